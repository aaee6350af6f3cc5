//! Fuzz targets: whatever VTL0 can send, in any form, with what must hold afterwards.
//!
//! A target is a function from bytes to nothing that panics when a rule is broken; the programs in `fuzz_targets/` hand
//! libFuzzer's inputs to it. `cargo xtask fuzz` builds and runs them.
//!
//! | target | what it feeds | what must hold |
//! |---|---|---|
//! | [`heki_list`] | a chain of list pages to ProtectMemory | success exactly as the contract's rules say; the permissions those of the list; else nothing changed |
//! | [`kdata_der`] | certificates in a row | the elements are the bytes, up to the error's offset |
//! | [`kdata_blocklist`] | records of the blacklist keyring | hashes as the records say |
//! | [`kdata_ksymtab`] | export tables in memory with holes | the symbols of a model, each byte fetched once |
//! | [`kdata_patch_info`] | records of jump-label sites | sites as the records say, on one page or two |
//! | [`kdata_kernel_info`] | `struct heki_kinfo` | accepted exactly when sound, words as sent |
//! | [`module_trailer`] | how a module's file ends | content and signature as a model finds them |
//! | [`module_message`] | signed messages, tampered with | the signed content and a trusted signer; nothing else |
//! | [`certificate`] | certificates, tampered with | trusted as far as they are sound, added only if they are signed |
//! | [`module_file`] | modules' files, tampered with | the memory that a file explains is the only one; what it gives to others is sound |
//! | [`module_explain`] | a module's memory in any form, tampered with | accepted exactly when a kernel can have it like that |
//! | [`kernel_image`] | PE files, tampered with | layout as a model has it; no other file is taken for the signed one |
//! | [`calls`] | one call for each row of the table, with parameters made from its types | as in `vsm_call` |
//! | [`kexec_image`] | kernels loaded for kexec, with everything about them spoilt | what Linux would start of an accepted one is the signed kernel |
//! | [`patch_text`] | requests for text patches, honest and spoilt, on two processors | answered as the model answers; every byte of text is the model's |
//! | [`vsm_call`] | a life of VTL0: calls with any registers, memory rewritten at any read, failing hypercalls | VTL1 closed, registry and hypervisor agree, all or nothing, no W+X after boot |

// How the tests of vsm_integrity write DER.
#[path = "../../vsm_integrity/tests/signature/der.rs"]
#[expect(dead_code, reason = "the crate's own tests need more of it")]
mod der;
mod explainable;
mod fixtures;
mod machine;
mod tampered;

// What is fuzzed comes from the same generators as stress.
use vsm_sim::trials::stress::input;

// How the tests of vsm_integrity write objects and play the kernel that loads them.
#[path = "../../vsm_integrity/tests/explain/object.rs"]
mod object;
#[path = "../../vsm_integrity/tests/explain/world.rs"]
#[expect(dead_code, reason = "the crate's own tests need more of it")]
mod world;

// What the tests of vsm_integrity sign with, for the files that are signed.
#[cfg(test)]
#[path = "../../vsm_integrity/tests/signature/openssl.rs"]
#[expect(dead_code, reason = "the crate's own tests need more of it")]
mod openssl;
#[cfg(test)]
#[path = "../../vsm_integrity/tests/signature/pe.rs"]
#[expect(dead_code, reason = "the crate's own tests need more of it")]
mod pe;

pub mod calls;
pub mod certificate;
pub mod heki_list;
pub mod kdata_blocklist;
pub mod kdata_der;
pub mod kdata_kernel_info;
pub mod kdata_ksymtab;
pub mod kdata_patch_info;
pub mod kernel_image;
pub mod kexec_image;
pub mod module_explain;
pub mod module_file;
pub mod module_message;
pub mod module_trailer;
pub mod patch_text;
pub mod vsm_call;

use std::path::Path;

/// A target's name, and inputs to start from.
pub struct Target {
    /// As `cargo xtask fuzz` has it.
    pub name: &'static str,
    /// Small inputs that reach its depths.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The target.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "heki_list", seeds: heki_list::seeds, run: heki_list::run },
    Target { name: "kdata_der", seeds: kdata_der::seeds, run: kdata_der::run },
    Target { name: "kdata_blocklist", seeds: kdata_blocklist::seeds, run: kdata_blocklist::run },
    Target { name: "kdata_ksymtab", seeds: kdata_ksymtab::seeds, run: kdata_ksymtab::run },
    Target { name: "kdata_patch_info", seeds: kdata_patch_info::seeds, run: kdata_patch_info::run },
    Target { name: "kdata_kernel_info", seeds: kdata_kernel_info::seeds, run: kdata_kernel_info::run },
    Target { name: "module_trailer", seeds: module_trailer::seeds, run: module_trailer::run },
    Target { name: "module_message", seeds: module_message::seeds, run: module_message::run },
    Target { name: "certificate", seeds: certificate::seeds, run: certificate::run },
    Target { name: "module_file", seeds: module_file::seeds, run: module_file::run },
    Target { name: "module_explain", seeds: module_explain::seeds, run: module_explain::run },
    Target { name: "kernel_image", seeds: kernel_image::seeds, run: kernel_image::run },
    Target { name: "call", seeds: calls::seeds, run: calls::run },
    Target { name: "kexec_image", seeds: kexec_image::seeds, run: kexec_image::run },
    Target { name: "patch_text", seeds: patch_text::seeds, run: patch_text::run },
    Target { name: "vsm_call", seeds: vsm_call::seeds, run: vsm_call::run },
];

/// Names the directory that [`prepare`] writes the seeds into.
pub const SEEDS_VARIABLE: &str = "VSM_FUZZ_SEEDS";

/// Before the first input: where [`SEEDS_VARIABLE`] names a directory, the target's seeds are written into it, from which
/// libFuzzer then reads them.
///
/// # Panics
/// When the seeds cannot be written.
pub fn prepare(name: &str) {
    let Some(directory) = std::env::var_os(SEEDS_VARIABLE) else { return };
    let target = TARGETS.iter().find(|target| target.name == name).expect("every program's target is in the list");
    for (index, seed) in (target.seeds)().iter().enumerate() {
        let file = Path::new(&directory).join(format!("seed-{index:02}"));
        std::fs::write(&file, seed).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_and_every_cut_of_it_passes() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has no seed", target.name);
            for seed in seeds {
                for cut in 0..seed.len().min(200) {
                    (target.run)(&seed[..cut]);
                }
                (target.run)(&seed);
            }
        }
    }
}
