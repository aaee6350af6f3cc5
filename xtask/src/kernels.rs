//! A distribution's signed kernel, for the tests of kexec: Debian's package, unpacked into `target`.
//!
//! The kernel carries the signature with which firmware starts it (Secure Boot), and in it the certificate of who has
//! signed it: test data that was not made for the tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::debian;

/// The package that depends on the newest kernel for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Where kernels lie; the tests look here.
pub fn directory(root: &Path) -> PathBuf {
    root.join("target").join("kernels")
}

/// The first kernel that is there.
pub fn present(root: &Path) -> Option<PathBuf> {
    kernels_in(&directory(root)).into_iter().next()
}

/// The kernels in a directory, by name.
pub fn kernels_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_kernel = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    let mut kernels: Vec<PathBuf> = entries.filter(is_kernel).collect();
    kernels.sort();
    kernels
}

/// Fetches and unpacks the newest kernel.
pub fn fetch(root: &Path) -> Result<()> {
    let (apt, package) = debian::ask(&root.join("target").join("apt"), META_PACKAGE, |apt| {
        Ok(apt.depends(META_PACKAGE)?.into_iter().find(|name| name.starts_with("linux-image-")))
    })?;
    let place = directory(root);
    eprintln!("fetching {package} into {} (needed for the tests of kexec)", place.display());
    let tree = tempfile::tempdir_in(root.join("target"))?;
    apt.unpack(std::slice::from_ref(&package), tree.path())?;
    let kernels = kernels_in(&tree.path().join("boot"));
    if kernels.is_empty() {
        bail!("{package} holds no kernel");
    }
    fs::create_dir_all(&place)?;
    for kernel in kernels {
        let name = kernel.file_name().context("a kernel's name")?;
        fs::rename(&kernel, place.join(name))?;
    }
    Ok(())
}
