//! Fuzz target `call`, for the call that the environment names; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("call"), |data: &[u8]| vsm_fuzz::calls::run(data));
