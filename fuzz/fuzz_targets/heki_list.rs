//! Fuzz target `heki_list`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("heki_list"), |data: &[u8]| vsm_fuzz::heki_list::run(data));
