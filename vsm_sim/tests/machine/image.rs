//! The boot image, for every test that boots it: built once for all tests of a process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// The image's file: the one that `VTL1_IMAGE` names, or the workspace's, built first.
pub fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| read_image().unwrap_or_else(|error| panic!("there is no image to test: {error:#}")))
}

fn read_image() -> Result<Vec<u8>> {
    let path = match std::env::var_os("VTL1_IMAGE") {
        Some(path) => PathBuf::from(path),
        None => build_image()?,
    };
    std::fs::read(&path).with_context(|| path.display().to_string())
}

fn build_image() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in the workspace")?;
    let status = Command::new(env!("CARGO"))
        .args(["xtask", "build-vtl1", "--quiet"])
        .current_dir(root)
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("cargo cannot be run")?;
    ensure!(status.success(), "`cargo xtask build-vtl1` failed: {status}");
    Ok(root.join("target/vtl1/vmlinux"))
}
