//! A distribution's signed kernel, for the tests of kexec: Debian's package, fetched with apt and unpacked into `target`,
//! never installed.
//!
//! The kernel carries the signature with which firmware starts it (Secure Boot), and in it the certificate of who has
//! signed it: test data that was not made for the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{capture, is_root};

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

fn kernels_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_kernel = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    let mut kernels: Vec<PathBuf> = entries.filter(is_kernel).collect();
    kernels.sort();
    kernels
}

/// Fetches and unpacks the newest kernel.
pub fn fetch(root: &Path) -> Result<()> {
    let package = package()?;
    let place = directory(root);
    let temporary = place.join("download");
    if temporary.exists() {
        fs::remove_dir_all(&temporary)?;
    }
    fs::create_dir_all(&temporary)?;
    let unpacked = unpack(&package, &temporary, &place);
    fs::remove_dir_all(&temporary)?;
    unpacked
}

/// The name of the package with the newest kernel.
fn package() -> Result<String> {
    let ask = || capture(Command::new("apt-cache").args(["depends", META_PACKAGE])).map(|text| named_in(&text));
    if let Ok(Some(package)) = ask() {
        return Ok(package);
    }
    // The package lists of a fresh machine are empty.
    if is_root() {
        capture(Command::new("apt-get").args(["update", "-qq"])).context("the package lists cannot be updated")?;
    }
    ask()?.with_context(|| format!("there is no package {META_PACKAGE}"))
}

/// The kernel's package in the output of `apt-cache depends`.
fn named_in(depends: &str) -> Option<String> {
    let packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.map(str::trim).find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

fn unpack(package: &str, temporary: &Path, place: &Path) -> Result<()> {
    eprintln!("fetching {package} into {} (needed for the tests of kexec)", place.display());
    capture(Command::new("apt-get").args(["download", "-qq", package]).current_dir(temporary))?;
    let entries = fs::read_dir(temporary)?.flatten().map(|entry| entry.path());
    let file = entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let file = file.with_context(|| format!("apt-get left no file of {package}"))?;
    capture(Command::new("dpkg-deb").arg("-x").arg(file).arg(temporary))?;
    let kernels = kernels_in(&temporary.join("boot"));
    if kernels.is_empty() {
        bail!("{package} holds no kernel");
    }
    for kernel in kernels {
        let name = kernel.file_name().context("a kernel's name")?;
        fs::rename(&kernel, place.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_package_is_the_one_it_depends_on() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-48-cloud-amd64\n  Suggests: other\n";
        assert_eq!(named_in(depends).as_deref(), Some("linux-image-6.1.0-48-cloud-amd64"));
        assert_eq!(named_in("linux-image-cloud-amd64\n  Depends: <linux-image>\n"), None);
        assert_eq!(named_in(""), None);
    }
}
