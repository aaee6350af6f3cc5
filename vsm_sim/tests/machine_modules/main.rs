//! Modules in the unmodified image: real instructions run them, and try what they must not.

mod attack;
#[path = "../image/mod.rs"]
mod image;
mod life;
mod setup;
