//! Fuzz target `kdata_der`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("kdata_der"), |data: &[u8]| vsm_fuzz::kdata_der::run(data));
