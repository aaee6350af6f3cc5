//! Fuzz target `kernel_image`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("kernel_image"), |data: &[u8]| vsm_fuzz::kernel_image::run(data));
