//! Build script of the boot image (`litebox_runner_lvbs/Cargo.toml` points here).
//!
//! For the VTL1 target it hands the linker script and the link arguments to the linker; on a host it does nothing.

use std::env;
use std::path::Path;

fn main() {
    let manifest_dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let script = Path::new(&manifest_dir).join("vtl1.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    for arg in [
        &format!("--script={}", script.display()),
        // Position independent and statically linked: the image relocates itself.
        "--pie",
        "--no-dynamic-linker",
        // The VTL0 loaders want every PT_LOAD aligned to 2 MiB (LVBS contract §2.6).
        "-zmax-page-size=0x200000",
        // Nothing may be patched in an executable section.
        "-ztext",
        "-znognustack",
        "--gc-sections",
        "--build-id=none",
        "--hash-style=sysv",
        "--orphan-handling=error",
    ] {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
