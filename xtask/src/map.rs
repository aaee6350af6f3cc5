//! `cargo xtask map`: a picture of the frame registry during a boot.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

/// Where the picture goes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The file to write. The documentation's is `docs/src/map.svg`.
    #[arg(long, value_name = "FILE", default_value = "target/map.svg")]
    pub out: PathBuf,
}

/// Plays the boot and writes the picture.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    // Relative to where the person is; only the default is relative to the clone.
    let default = Path::new("target/map.svg");
    let file = if options.out == default { root.join(default) } else { options.out.clone() };
    let picture = vsm_sim::map::draw()?;
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}
