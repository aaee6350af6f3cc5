//! Building the boot image: `cargo xtask build-vtl1`.
//!
//! The build depends on the sources and the toolchain only: variables of an outer build are removed, and every path of
//! this machine that could reach the file is replaced, so that two clones give the same bytes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::process::{clear_build_environment, run};
use crate::toolchain::{self, Linker, Toolchain};
use crate::workspace::{IMAGE_PACKAGE, TARGET_NAME, TARGET_SPEC, image_dir};
use crate::{install, sizes};

/// What to build and how much to say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Unoptimised, with names ending in `-debug`.
    pub debug: bool,
    /// Say nothing but errors.
    pub quiet: bool,
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Built {
    /// The file under the name that loaders of generation G2 use.
    pub vmlinux: PathBuf,
    /// The same bytes under the name that loaders of generation G3 use.
    pub vsm_sk: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// Builds the image of the workspace at `root`.
///
/// # Errors
/// No toolchain can build it, the compiler or the linker refuses, or a file cannot be written.
pub fn build(root: &Path, options: Options) -> Result<Built> {
    let toolchain = toolchain::find()?;
    let linker = linker(&toolchain)?;
    if !options.quiet {
        eprintln!(
            "toolchain: {} {} ({}): {}",
            toolchain.name,
            toolchain.version,
            toolchain.sysroot.display(),
            toolchain.why
        );
    }
    let mut command = cargo(root, &toolchain, &linker, "build");
    if !options.debug {
        command.arg("--release");
    }
    if options.quiet {
        command.arg("--quiet");
    }
    run(&mut command).context("the boot image does not build")?;

    let directory = image_dir(root);
    let profile = if options.debug { "debug" } else { "release" };
    let output = directory.join(TARGET_NAME).join(profile).join(IMAGE_PACKAGE);
    let bytes = fs::read(&output).with_context(|| format!("cannot read {}", output.display()))?;
    let suffix = if options.debug { "-debug" } else { "" };
    let built = Built {
        vmlinux: directory.join(format!("vmlinux{suffix}")),
        vsm_sk: directory.join(format!("vsm_sk{suffix}")),
        sha256: sha256(&bytes),
    };
    publish(&built.vmlinux, &bytes)?;
    publish(&built.vsm_sk, &bytes)?;
    if !options.quiet {
        print!("{}", sizes::report(&bytes)?);
        println!("sha256   {}", built.sha256);
        println!("G2 name  {}", built.vmlinux.display());
        println!("G3 name  {}", built.vsm_sk.display());
    }
    Ok(built)
}

/// The image that was built last; it is built if there is none.
///
/// # Errors
/// As [`build`].
pub fn present(root: &Path) -> Result<PathBuf> {
    let file = image_dir(root).join("vmlinux");
    if file.is_file() { Ok(file) } else { Ok(build(root, Options { debug: false, quiet: true })?.vmlinux) }
}

/// A cargo command for the image's package and target, with the environment and flags that every build of it needs.
pub fn cargo(root: &Path, toolchain: &Toolchain, linker: &Linker, subcommand: &str) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    clear_build_environment(&mut command);
    // `cargo clippy` and the like are looked up on PATH and must be of the same toolchain.
    if let Some(directory) = toolchain.cargo.parent() {
        let mut path = vec![directory.to_path_buf()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        if let Ok(path) = std::env::join_paths(path) {
            command.env("PATH", path);
        }
    }
    command
        .current_dir(root)
        .env("RUSTC", &toolchain.rustc)
        // Building core from source is an unstable option, also in a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, toolchain, linker))
        .arg(subcommand)
        .args(["--package", IMAGE_PACKAGE, "--target", TARGET_SPEC])
        .args(["-Z", "build-std=core,alloc,compiler_builtins"])
        // The second: core then sorts by heapsort. Its quicksort recurses with frames of 1.5 KiB, to a depth that grows with
        // the slice, and what VTL1 sorts comes from VTL0: 6,000 patch sites are enough to run through 32 KiB of stack.
        .args(["-Z", "build-std-features=compiler-builtins-mem,optimize_for_size"])
        .args(["-Z", "json-target-spec"])
        .arg("--target-dir")
        .arg(image_dir(root));
    command
}

/// The linker for this toolchain, installing one where that is possible.
///
/// # Errors
/// There is none; the message holds the command to type.
pub fn linker(toolchain: &Toolchain) -> Result<Linker> {
    if let Some(linker) = toolchain.linker() {
        return Ok(linker);
    }
    install::apt_install(&["lld"], "linking the image: the toolchain has no rust-lld")?;
    toolchain.linker().context("lld was installed, but there is no `ld.lld` on PATH")
}

/// The compiler's flags, in cargo's encoding: separated by the unit separator, so that paths may hold blanks.
fn flags(root: &Path, toolchain: &Toolchain, linker: &Linker) -> OsString {
    let mut flags = OsString::new();
    let mut push = |flag: OsString| {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push(flag);
    };
    for (from, to) in remapped(root, toolchain) {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        push(flag);
    }
    if let Linker::External(path) = linker {
        let mut flag = OsString::from("-Clinker=");
        flag.push(path);
        push(flag);
    }
    flags
}

/// Directories of this machine and what stands for them in the image. The compiler takes the last one that fits.
fn remapped(root: &Path, toolchain: &Toolchain) -> Vec<(PathBuf, &'static str)> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut pairs = Vec::new();
    for (path, to) in [
        (toolchain.sysroot.clone(), "/sysroot"),
        (toolchain.library(), "/library"),
        (cargo_home, "/cargo"),
        (root.to_path_buf(), "/vtl1"),
    ] {
        if let Ok(real) = path.canonicalize()
            && real != path
        {
            pairs.push((real, to));
        }
        pairs.push((path, to));
    }
    pairs
}

/// Writes a file so that a reader sees the old bytes or the new ones and never a part; equal bytes are left alone.
fn publish(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_nothing_is_the_known_one() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn flags_name_every_directory_and_keep_blanks() {
        let toolchain = Toolchain {
            name: "t".to_owned(),
            cargo: "/t/bin/cargo".into(),
            rustc: "/t/bin/rustc".into(),
            sysroot: "/t".into(),
            version: toolchain::Version::parse("rustc 1.95.0 (x)").unwrap(),
            why: String::new(),
        };
        let flags = flags(Path::new("/a clone"), &toolchain, &Linker::External("/ld.lld".into()));
        let flags: Vec<&str> = flags.to_str().unwrap().split('\u{1f}').collect();
        assert!(flags.contains(&"--remap-path-prefix=/a clone=/vtl1"), "{flags:?}");
        assert!(flags.contains(&"--remap-path-prefix=/t/lib/rustlib/src/rust/library=/library"));
        assert_eq!(flags.last(), Some(&"-Clinker=/ld.lld"));
    }
}
