//! Builds VTL0's driver (`vtl0_driver/`) as a module of a kernel, with the headers of its package.
//!
//! The sources are copied to `target/linux` first, beside `abi/` as they lie in the repository, so that two kernels are
//! built for without disturbing each other and nothing is left among the sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::Kernel;
use crate::process::capture;

/// The sources, from the root of the repository.
pub const SOURCES: &str = "vtl0_driver";
/// The header with numbers and layouts of the calls.
const ABI: &str = "abi/vsm.h";
/// The module that comes out.
const MODULE: &str = "vtl0.ko";
/// How many of the compiler's last lines an error shows.
const SHOWN: usize = 40;

/// Builds the driver with the attacks it makes on its own kernel. `directory` is where the copy of the sources goes.
///
/// # Errors
/// The driver is not there, or does not compile: then with what the compiler said.
pub fn build(root: &Path, kernel: &Kernel, directory: &Path) -> Result<PathBuf> {
    let sources = directory.join(SOURCES);
    copy(&root.join(SOURCES), &sources).with_context(|| format!("cannot copy {SOURCES}"))?;
    copy_file(&root.join(ABI), &directory.join(ABI))?;
    let mut make = Command::new("make");
    make.arg("-C").arg(&kernel.headers).arg(format!("M={}", sources.display()));
    make.arg(format!("CC={}", kernel.compiler)).arg("ATTACKS=1");
    // Would need the types of the kernel itself, which a package of headers may hold and whose tool it does not.
    make.arg("CONFIG_DEBUG_INFO_BTF_MODULES=").arg("modules");
    for variable in ["MAKEFLAGS", "MFLAGS", "CFLAGS", "KCFLAGS", "ARCH", "CROSS_COMPILE"] {
        make.env_remove(variable);
    }
    let output = make.output().context("cannot start make")?;
    fs::write(directory.join("make.log"), [output.stdout.as_slice(), &output.stderr].concat())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        bail!("the driver does not build:\n{}", lines[lines.len().saturating_sub(SHOWN)..].join("\n"));
    }
    Ok(sources.join(MODULE))
}

/// Builds the program that the steps call where busybox has no command, and that runs without any library.
///
/// # Errors
/// It is not there, or does not compile.
pub fn tool(root: &Path, kernel: &Kernel, directory: &Path) -> Result<PathBuf> {
    let program = directory.join("vtl0-tool");
    let source = root.join(SOURCES).join("initramfs/tool.c");
    let mut compile = Command::new(&kernel.compiler);
    capture(compile.args(["-O2", "-Wall", "-static", "-o"]).arg(&program).arg(source))?;
    Ok(program)
}

/// Copies the sources of a folder and of those below it, and removes copies whose sources are gone. What has not changed
/// keeps its time, so that make builds only what is needed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)?.flatten() {
        let name = entry.file_name();
        if is_source(Path::new(&name)) && !from.join(&name).exists() && !is_made(Path::new(&name)) {
            fs::remove_file(entry.path())?;
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy_to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &copy_to)?;
        } else if is_source(&source) {
            copy_file(&source, &copy_to)?;
        }
    }
    Ok(())
}

fn is_source(path: &Path) -> bool {
    let suffix = path.extension().and_then(|suffix| suffix.to_str());
    matches!(suffix, Some("c" | "h" | "S")) || path.ends_with("Makefile") || path.ends_with("Kbuild")
}

/// `vtl0.mod.c` and the like, which the kernel's build writes.
fn is_made(path: &Path) -> bool {
    path.to_str().is_some_and(|name| name.ends_with(".mod.c") || name == ".module-common.c")
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_are_copied_and_old_copies_go() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("deeper")).unwrap();
        for name in ["a.c", "b.h", "Makefile", "a.o", "readme.md", "deeper/c.c"] {
            fs::write(from.join(name), name).unwrap();
        }
        fs::create_dir_all(&to).unwrap();
        for name in ["old.c", "vtl0.mod.c", "a.o"] {
            fs::write(to.join(name), "made here").unwrap();
        }
        copy(&from, &to).unwrap();
        let text = |name: &str| fs::read_to_string(to.join(name)).ok();
        assert_eq!(text("deeper/c.c").as_deref(), Some("deeper/c.c"));
        assert_eq!(text("a.c").as_deref(), Some("a.c"));
        assert_eq!([text("old.c"), text("readme.md")], [None, None]);
        assert_eq!([text("vtl0.mod.c"), text("a.o")], [Some("made here".into()), Some("made here".into())]);
        let before = fs::metadata(to.join("a.c")).unwrap().modified().unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::metadata(to.join("a.c")).unwrap().modified().unwrap(), before, "what is the same stays");
    }
}
