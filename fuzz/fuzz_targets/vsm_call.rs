//! Fuzz target `vsm_call`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("vsm_call"), |data: &[u8]| vsm_fuzz::vsm_call::run(data));
