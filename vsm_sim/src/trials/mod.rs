//! Experiments on the model: what the commands of `cargo xtask` play against VTL1, and what must come of it.
//!
//! | module | purpose |
//! |---|---|
//! | [`run`] | a whole VTL0 life against the image, and figures |
//! | [`stress`] | whatever VTL0 can do, on all processors at once, and the rules that must hold |
//! | [`validate`] | captures of real modules, and what VTL1's code says about them |

pub mod run;
pub mod stress;
pub mod validate;
