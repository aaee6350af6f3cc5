//! A distribution's kernel and what is needed around it, as Debian's packages have them: the signed kernel, its modules, the
//! headers a module is built with, and a static busybox. Everything lies below `target/linux`; nothing is installed but,
//! where they are missing, compilers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::debian::{self, Apt};
use crate::install::apt_install;
use crate::kernels::kernels_in;
use crate::process::find_program;

/// What the kernels for virtual machines are called.
const FLAVOUR: &str = "-cloud-amd64";
/// Written last, so that what was unpacked half is not taken for whole.
const STAMP: &str = "packages";

/// A series of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Debian 12's kernel.
    #[value(name = "6.1")]
    V6_1,
    /// The next one with long-term support, which Debian 12 has too.
    #[value(name = "6.12")]
    V6_12,
}

impl Series {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }
}

/// A kernel with everything around it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// The signed image.
    pub vmlinuz: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
    /// Where a module is built.
    pub headers: PathBuf,
    /// The compiler that a module is built with.
    pub compiler: String,
    /// A static busybox.
    pub busybox: PathBuf,
}

/// Where everything of a series lies.
pub fn directory(root: &Path, series: Series) -> PathBuf {
    root.join("target").join("linux").join(series.name())
}

/// The kernel of a series, if it has been fetched.
pub fn present(root: &Path, series: Series) -> Option<Kernel> {
    let directory = directory(root, series);
    let tree = directory.join("root");
    directory.join(STAMP).is_file().then(|| describe(&tree).ok()).flatten()
}

/// The kernel of a series; it is fetched if it is not there.
///
/// # Errors
/// No package of it can be had here, or one lacks what it should have.
pub fn get(root: &Path, series: Series) -> Result<Kernel> {
    if let Some(kernel) = present(root, series) {
        return Ok(kernel);
    }
    let directory = directory(root, series);
    let tree = directory.join("root");
    let what = format!("a kernel linux-image-{}.*{FLAVOUR} with headers", series.name());
    let (apt, packages) = debian::ask(&root.join("target").join("apt"), &what, |apt| packages(apt, series))?;
    let size = apt.size(&packages)?.div_ceil(1 << 20);
    eprintln!("fetching {} packages, {size} MiB, into {}: {}", packages.len(), tree.display(), packages.join(" "));
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    apt.unpack(&packages, &tree)?;
    let kernel = describe(&tree)?;
    relocate(&kernel.headers)?;
    fs::write(directory.join(STAMP), packages.join("\n") + "\n")?;
    Ok(kernel)
}

/// The packages of the newest kernel of a series that this apt knows.
fn packages(apt: &Apt, series: Series) -> Result<Option<Vec<String>>> {
    let Some(release) = newest(&apt.names(&format!("linux-image-{}.", series.name()))?) else { return Ok(None) };
    let headers = format!("linux-headers-{release}");
    let mut packages = vec![format!("linux-image-{release}"), "busybox-static".to_owned()];
    // Those that hold files a module is built with; the others are compilers, and the kernel itself.
    let around = |name: &String| name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-");
    packages.extend(apt.depends(&headers)?.into_iter().filter(around));
    packages.push(headers);
    Ok((packages.len() == 5).then_some(packages))
}

/// The newest release among the names of packages of kernels.
fn newest(names: &[String]) -> Option<String> {
    let releases = names.iter().filter_map(|name| name.strip_prefix("linux-image-"));
    let signed = releases.filter(|release| release.ends_with(FLAVOUR));
    signed.max_by(|left, right| debian::compare(left, right)).map(str::to_owned)
}

/// The only entry of a directory whose name begins and ends so.
fn only(directory: &Path, start: &str, end: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("there is no {}", directory.display()))?;
    let fits = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(start) && name.ends_with(end))
    };
    let found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(fits).collect();
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => bail!("{} has {} entries {start}…{end}, not one", directory.display(), found.len()),
    }
}

fn describe(tree: &Path) -> Result<Kernel> {
    let vmlinuz = kernels_in(&tree.join("boot")).into_iter().next().context("the packages hold no kernel")?;
    let modules = only(&tree.join("lib/modules"), "", FLAVOUR)?;
    let release = modules.file_name().and_then(|name| name.to_str()).context("a kernel's release")?.to_owned();
    let headers = only(&tree.join("usr/src"), "linux-headers-", FLAVOUR)?;
    let variables = fs::read_to_string(headers.join(".kernelvariables")).context("the headers name no compiler")?;
    let compiler = compiler(&variables).context("the headers name no gcc")?;
    Ok(Kernel { release, vmlinuz, modules, headers, compiler, busybox: tree.join("bin/busybox") })
}

/// The compiler that a kernel was built with, such as `gcc-12`.
fn compiler(variables: &str) -> Option<String> {
    let start = variables.find("gcc-")?;
    let name: String = variables[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    Some(name)
}

/// Lets the headers find their other halves where they are now: they name them by where Debian installs them.
fn relocate(headers: &Path) -> Result<()> {
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile)?;
    let moved = text.replace("include /usr/src/", "include ../");
    if moved == text {
        bail!("{} does not include what was expected:\n{text}", makefile.display());
    }
    Ok(fs::write(makefile, moved)?)
}

impl Kernel {
    /// Installs what building a module takes: make, the kernel's compiler, and the libraries of the kernel's own tools.
    ///
    /// # Errors
    /// It is missing and cannot be installed; the message says what to type.
    pub fn ensure_compilers(&self) -> Result<()> {
        let programs = ["make", &self.compiler, "openssl"];
        let mut missing: Vec<&str> = programs.into_iter().filter(|name| find_program(name).is_none()).collect();
        if !self.tools_start() {
            missing.extend(["libelf1", "libssl3", "zlib1g"]);
        }
        if missing.is_empty() { Ok(()) } else { apt_install(&missing, "building a module of a Debian kernel") }
    }

    /// Whether the kernel's tools find their libraries.
    fn tools_start(&self) -> bool {
        /// What the dynamic linker ends with when it lacks one.
        const NO_LIBRARY: i32 = 127;
        let starts = |tool: &str| {
            let output = Command::new(self.headers.join(tool)).output();
            output.is_ok_and(|output| output.status.code() != Some(NO_LIBRARY))
        };
        starts("scripts/mod/modpost") && starts("tools/objtool/objtool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_signed_kernel_for_virtual_machines_is_taken() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64",
            "linux-image-6.1.0-58-amd64",
            "linux-image-6.1.0-58-cloud-amd64-unsigned",
            "linux-image-6.1.0-58-cloud-amd64-dbg",
        ];
        assert_eq!(newest(&names.map(str::to_owned)).as_deref(), Some("6.1.0-57-cloud-amd64"));
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn the_compiler_is_the_one_that_the_headers_name() {
        let text = "override ARCH = x86\nCC = $(if $(X),$(CCACHE)) $(CROSS_COMPILE)gcc-12\nifneq\n";
        assert_eq!(compiler(text).as_deref(), Some("gcc-12"));
        assert_eq!(compiler("CC = clang"), None);
    }

    #[test]
    fn headers_find_their_other_half_beside_them() {
        let directory = tempfile::tempdir().unwrap();
        let makefile = directory.path().join("Makefile");
        fs::write(&makefile, "include /usr/src/linux-headers-6.1.0-57-common/Makefile\n").unwrap();
        relocate(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(&makefile).unwrap(), "include ../linux-headers-6.1.0-57-common/Makefile\n");
        assert!(relocate(directory.path()).is_err(), "a second time there is nothing to move");
    }
}
