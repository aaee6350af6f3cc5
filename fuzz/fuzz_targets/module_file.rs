//! Fuzz target `module_file`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("module_file"), |data: &[u8]| vsm_fuzz::module_file::run(data));
