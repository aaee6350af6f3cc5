//! Fuzz target `certificate`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("certificate"), |data: &[u8]| vsm_fuzz::certificate::run(data));
