//! Fuzz target `module_explain`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("module_explain"), |data: &[u8]| vsm_fuzz::module_explain::run(data));
