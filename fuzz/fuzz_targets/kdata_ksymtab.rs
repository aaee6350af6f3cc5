//! Fuzz target `kdata_ksymtab`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("kdata_ksymtab"), |data: &[u8]| vsm_fuzz::kdata_ksymtab::run(data));
