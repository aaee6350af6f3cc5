//! Fuzz target `module_message`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("module_message"), |data: &[u8]| vsm_fuzz::module_message::run(data));
