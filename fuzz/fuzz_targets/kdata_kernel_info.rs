//! Fuzz target `kdata_kernel_info`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("kdata_kernel_info"), |data: &[u8]| vsm_fuzz::kdata_kernel_info::run(data));
