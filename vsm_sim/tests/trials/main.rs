//! The simulator's experiments on the host: stress, mutations of real modules, and the map of memory.

mod captured_modules;
mod map;
mod stress;
