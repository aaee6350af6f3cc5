//! Modules in the unmodified image: real instructions run them, and try what they must not.

mod attack;
mod captured;
mod life;
