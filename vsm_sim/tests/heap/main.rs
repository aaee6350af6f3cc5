//! Heap that calls take: little of it, none of it lost, and with an allocator that refuses any one request nothing breaks
//! and nothing is left behind.
//!
//! A test binary of its own because of its allocator, [`counting`], which counts and refuses requests of the thread that asks
//! for it only: the tests may run at the same time. Captures of real kernels are test data that lie beside the repository;
//! without them those tests are left out, and that is printed.

mod counting;
mod kdata;
mod kexec;
mod linux;
mod modules;
mod protect;
mod quiet;
