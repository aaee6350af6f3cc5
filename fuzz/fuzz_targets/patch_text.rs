//! Fuzz target `patch_text`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("patch_text"), |data: &[u8]| vsm_fuzz::patch_text::run(data));
