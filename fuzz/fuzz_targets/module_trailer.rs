//! Fuzz target `module_trailer`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("module_trailer"), |data: &[u8]| vsm_fuzz::module_trailer::run(data));
