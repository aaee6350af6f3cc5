//! `cargo xtask map`: a picture of the frame registry while a VTL0 boots.
//!
//! | module | purpose |
//! |---|---|
//! | [`scene`] | the boot, played on a hosted machine, and what the registry holds after each step |
//! | [`svg`] | the picture |
//!
//! Nothing in it depends on the machine it is drawn on: the same sources give the same bytes.

pub mod scene;
pub mod svg;

use anyhow::Result;

/// Plays the boot and draws it.
pub fn draw() -> Result<String> {
    Ok(svg::picture(&scene::play()?))
}
