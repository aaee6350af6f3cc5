//! Formatting and clippy, for the host, the fuzz targets and the image's target: `cargo xtask lint`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{find_program, run};
use crate::{image, toolchain};

/// The cargo that runs this command, so that the same toolchain is used.
pub fn host_cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// The fuzz targets are a workspace of their own.
const FUZZ_MANIFEST: &str = "fuzz/Cargo.toml";

/// Is every file formatted?
pub fn format(root: &Path) -> Result<()> {
    let host = run(host_cargo(root).args(["fmt", "--all", "--", "--check"]));
    let fuzz = run(host_cargo(root).args(["fmt", "--manifest-path", FUZZ_MANIFEST, "--", "--check"]));
    host.and(fuzz).context("to format everything, type: cargo xtask lint --fix")
}

/// Type-checks the host's crates, tests included, and the image for its target. With `json` in cargo's form for editors.
pub fn check(root: &Path, json: bool) -> Result<()> {
    let form: &[&str] = if json { &["--message-format", "json"] } else { &[] };
    let host = run(host_cargo(root).args(["check", "--workspace", "--all-targets", "--quiet"]).args(form));
    let toolchain = toolchain::find()?;
    let linker = image::linker(&toolchain)?;
    let image = run(image::cargo(root, &toolchain, &linker, "check").args(["--release", "--quiet"]).args(form));
    host.and(image)
}

/// cargo-deny with the project's `deny.toml`. Says so where it is not installed.
pub fn deny(root: &Path) -> Result<()> {
    if find_program("cargo-deny").is_none() {
        println!("skipped: cargo-deny is not installed (cargo install --locked cargo-deny)");
        return Ok(());
    }
    run(host_cargo(root).args(["deny", "check"]))
}

/// Clippy for everything that runs on the host, tests included; every warning is an error.
pub fn host(root: &Path) -> Result<()> {
    run(host_cargo(root).args(["clippy", "--workspace", "--all-targets", "--quiet", "--"]).args(["-D", "warnings"]))
}

/// Clippy for the fuzz targets, tests included; every warning is an error.
pub fn fuzz(root: &Path) -> Result<()> {
    let mut command = host_cargo(root);
    command.args(["clippy", "--manifest-path", FUZZ_MANIFEST, "--all-targets", "--quiet"]);
    // Beside the project's own files, whose dependencies it shares.
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        command.arg("--target-dir").arg(root.join("target"));
    }
    run(command.args(["--", "-D", "warnings"]))
}

/// The fuzz targets' own tests: every seed and every beginning of one, without libFuzzer.
pub fn fuzz_tests(root: &Path) -> Result<()> {
    let mut command = host_cargo(root);
    command.args(["test", "--manifest-path", FUZZ_MANIFEST, "--lib", "--quiet"]);
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        command.arg("--target-dir").arg(root.join("target"));
    }
    run(&mut command)
}

/// Clippy for the boot image's target; every warning is an error.
pub fn image(root: &Path) -> Result<()> {
    let toolchain = toolchain::find()?;
    let linker = image::linker(&toolchain)?;
    let mut command = image::cargo(root, &toolchain, &linker, "clippy");
    run(command.args(["--release", "--quiet", "--", "-D", "warnings"]))
        .with_context(|| format!("clippy for the image's target ({})", toolchain.name))
}

/// Formatting and clippy, each also when an earlier one failed: one run tells everything. With `fix` every file is
/// formatted first.
pub fn all(root: &Path, fix: bool) -> Result<()> {
    if fix {
        run(host_cargo(root).args(["fmt", "--all"]))?;
        run(host_cargo(root).args(["fmt", "--manifest-path", FUZZ_MANIFEST]))?;
    }
    let failures: Vec<String> = [format(root), host(root), fuzz(root), image(root)]
        .into_iter()
        .filter_map(Result::err)
        .map(|error| format!("{error:#}"))
        .collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}
