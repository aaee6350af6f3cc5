//! Fuzz target `kexec_image`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("kexec_image"), |data: &[u8]| vsm_fuzz::kexec_image::run(data));
