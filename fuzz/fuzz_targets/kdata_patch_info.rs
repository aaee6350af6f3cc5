//! Fuzz target `kdata_patch_info`; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vsm_fuzz::prepare("kdata_patch_info"), |data: &[u8]| vsm_fuzz::kdata_patch_info::run(data));
