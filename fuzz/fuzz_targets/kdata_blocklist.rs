//! Fuzz target `kdata_blocklist`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("kdata_blocklist"), |data: &[u8]| vsm_fuzz::kdata_blocklist::run(data));
