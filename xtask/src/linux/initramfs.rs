//! What the guest finds in its memory when it starts: `vtl0_driver/initramfs` with everything that its steps need.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vsm_sim::vtl0::authenticode;
use vsm_sim::vtl0::signer::Signer;

use super::archive::Archive;
use super::driver::SOURCES;
use super::modules::{self, Catalogue, Module};
use super::packages::Kernel;

/// The module that is tried without a signature, and with a bit of its code changed.
const ATTACKED: &str = "dummy";
/// The module that is signed anew, with a key that the kernel is given later.
const SIGNED_ANEW: &str = "nls_utf8";
/// The step that loads as many modules as there are in [`MANY_FOLDERS`], up to [`MANY`].
pub const MANY_STEP: &str = "many";
const MANY: usize = 120;
/// Folders of modules that need no device to be loaded.
const MANY_FOLDERS: [&str; 4] = ["crypto", "fs", "lib", "net"];
/// Directories that are there from the start.
const DIRECTORIES: [&str; 8] = ["proc", "sys", "dev", "tmp", "run", "mnt", "etc", "root"];

/// What goes in besides the steps.
pub struct Parts<'a> {
    /// The kernel that boots.
    pub kernel: &'a Kernel,
    /// VTL1's image, an ELF file.
    pub image: &'a [u8],
    /// The driver.
    pub driver: &'a [u8],
    /// A program that makes the system calls which busybox has no command for.
    pub tool: &'a [u8],
    /// The kernel's own certificates, DER.
    pub certificates: &'a [u8],
    /// Whether the modules of the step `many` go in.
    pub many: bool,
}

/// Packs it. `root` is the repository's.
///
/// # Errors
/// Something is missing; `openssl` fails.
pub fn pack(root: &Path, parts: &Parts) -> Result<Vec<u8>> {
    let sources = root.join(SOURCES).join("initramfs");
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    archive.device("dev/console", 5, 1)?;
    archive.device("dev/null", 1, 3)?;
    archive.file("init", 0o755, &read(&sources.join("init"))?)?;
    for step in steps(&sources)? {
        let name = step.file_name().and_then(|name| name.to_str()).context("a step's name")?;
        archive.file(&format!("steps/{name}"), 0o755, &read(&step)?)?;
    }
    archive.file("bin/busybox", 0o755, &read(&parts.kernel.busybox)?)?;
    archive.file("bin/vtl0-tool", 0o755, parts.tool)?;
    archive.file("vtl0.ko", 0o644, parts.driver)?;
    archive.file("lib/vtl1.elf", 0o644, parts.image)?;
    archive.file("lib/certificates.der", 0o644, parts.certificates)?;
    let vmlinuz = read(&parts.kernel.vmlinuz)?;
    archive.file("lib/vtl0/vmlinuz", 0o644, &vmlinuz)?;

    let catalogue = Catalogue::read(&parts.kernel.modules)?;
    let list = fs::read_to_string(sources.join("modules")).context("cannot read the list of modules")?;
    archive.file("lib/vtl0/modules", 0o644, list.as_bytes())?;
    let mut names = wanted(&list, &catalogue);
    if parts.many {
        let many: Vec<String> = catalogue.below(&MANY_FOLDERS).into_iter().take(MANY).collect();
        let many = catalogue.with_dependencies(&many)?;
        let lines: Vec<&str> = many.iter().map(|module| module.name.as_str()).collect();
        archive.file("lib/vtl0/many", 0o644, (lines.join("\n") + "\n").as_bytes())?;
        names.extend(many.into_iter().map(|module| module.name));
    }
    distribution(&mut archive, &parts.kernel.release, &catalogue.with_dependencies(&names)?)?;
    attacked(&mut archive, &catalogue.module(ATTACKED)?.bytes)?;
    owned(&mut archive, &vmlinuz, &catalogue.module(SIGNED_ANEW)?.bytes)?;
    archive.finish()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The scripts of the steps, by name.
fn steps(sources: &Path) -> Result<Vec<PathBuf>> {
    let directory = sources.join("steps");
    let entries = fs::read_dir(&directory).with_context(|| format!("there is no {}", directory.display()))?;
    let mut steps: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    steps.retain(|path| path.extension().is_some_and(|suffix| suffix == "sh"));
    steps.sort();
    Ok(steps)
}

/// The names in the list of modules: one in a line, with `?` behind it where a kernel may have it built in.
fn wanted(list: &str, catalogue: &Catalogue) -> Vec<String> {
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let name = |line: &str| match line.strip_suffix('?') {
        Some(name) => catalogue.has(name.trim()).then(|| name.trim().to_owned()),
        None => (!line.is_empty()).then(|| line.to_owned()),
    };
    lines.filter_map(name).collect()
}

/// The distribution's modules, where `modprobe` looks for them.
fn distribution(archive: &mut Archive, release: &str, modules: &[Module]) -> Result<()> {
    let directory = format!("lib/modules/{release}");
    for module in modules {
        archive.file(&format!("{directory}/{}", module.path), 0o644, &module.bytes)?;
    }
    archive.file(&format!("{directory}/modules.dep"), 0o644, modules::dep_file(modules).as_bytes())?;
    archive.file(&format!("{directory}/modules.alias"), 0o644, modules::alias_file(modules).as_bytes())
}

fn attacked(archive: &mut Archive, module: &[u8]) -> Result<()> {
    archive.file("lib/vtl0/unsigned.ko", 0o644, modules::without_signature(module)?)?;
    archive.file("lib/vtl0/flipped.ko", 0o644, &modules::with_flipped_bit(module)?)
}

/// An owner of the machine, whom VTL0's driver has VTL1 trust besides the kernel's own certificates; a key that the owner has
/// signed; and a module that this key has signed. The owner also trusts who has signed the kernel's file for firmware, whose
/// certificate no kernel has built in: else it could not be the next kernel.
///
/// RSA and SHA-256, which every kernel has built in: ECDSA and SHA-512 it may have as modules.
fn owned(archive: &mut Archive, vmlinuz: &[u8], module: &[u8]) -> Result<()> {
    let owner = Signer::rsa_authority("machine owner")?;
    let distribution = authenticode::signer_of(vmlinuz).context("the kernel's file has no signature")?;
    let signer = Signer::rsa_of_modules_only("secondary", &owner)?;
    let content = signer.sign_with(modules::without_signature(module)?, "sha256")?;
    archive.file("lib/vtl0/owner.der", 0o644, &[owner.certificate(), distribution.as_slice()].concat())?;
    archive.file("lib/vtl0/secondary/key.x509", 0o644, signer.certificate())?;
    archive.file("lib/vtl0/secondary/module.ko", 0o644, &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_modules_may_name_what_a_kernel_has_built_in() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("kernel")).unwrap();
        fs::write(directory.path().join("kernel/kvm-intel.ko.xz"), "").unwrap();
        let catalogue = Catalogue::read(directory.path()).unwrap();
        let list = "# a comment\nxfs # and another\n\nfuse ?\nkvm-intel?\n";
        assert_eq!(wanted(list, &catalogue), ["xfs", "kvm-intel"]);
    }
}
