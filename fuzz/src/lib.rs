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
//! | [`vsm_call`] | a life of VTL0: calls with any registers, memory rewritten at any read, failing hypercalls | VTL1 closed, registry and hypervisor agree, all or nothing, no W+X after boot |

mod input;
mod machine;
mod pages;

pub mod heki_list;
pub mod kdata_blocklist;
pub mod kdata_der;
pub mod kdata_kernel_info;
pub mod kdata_ksymtab;
pub mod kdata_patch_info;
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
