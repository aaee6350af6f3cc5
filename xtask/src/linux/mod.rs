//! `cargo xtask linux`: a distribution's own, signed Linux in VTL0, with VTL1 beside it.
//!
//! | module | purpose |
//! |---|---|
//! | [`options`] | what a person can say, and the kernel's command line |
//! | [`packages`] | the kernel, its headers and busybox, from Debian's packages |
//! | [`payload`] | the kernel proper out of its bootable image |
//! | [`certificates`] | the certificates that the kernel is built with |
//! | [`driver`] | building VTL0's driver |
//! | [`modules`] | the distribution's modules, and what they depend on |
//! | [`archive`], [`initramfs`] | what the guest finds in its memory |
//! | [`guest`], [`record`], [`steps`] | the run, and whether it was as it must be |
//! | [`shell`] | the guest's console on this terminal |

mod archive;
mod certificates;
mod driver;
mod guest;
mod initramfs;
mod modules;
mod options;
pub mod packages;
mod payload;
mod record;
mod shell;
mod steps;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{doctor, run};
pub use options::Options;
use packages::Kernel;

/// A guest that is ready to boot.
pub struct Guest {
    /// The kernel's release, or the file it is from.
    pub release: String,
    /// The bootable image.
    pub kernel: Vec<u8>,
    /// The initramfs.
    pub initrd: Vec<u8>,
}

/// Does what the options say.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    options.check()?;
    doctor::ensure(&doctor::QEMU)?;
    let image = fs::read(run::image(root, options.image.as_ref())?)?;
    let guest = match &options.kernel {
        Some(kernel) => own(kernel, options.initrd.as_deref(), &image)?,
        None => prepare(root, options, &image)?,
    };
    if options.prepare {
        let [kernel, initrd] = [&guest.kernel, &guest.initrd].map(|bytes| bytes.len() >> 20);
        println!("{}: {kernel} MiB of kernel, {initrd} MiB of initramfs", guest.release);
        return Ok(());
    }
    guest::run(root, options, &guest)
}

/// Somebody's own kernel, with VTL1's image where the drivers look for it (contract §2: G2 by path, G3 as firmware).
fn own(kernel: &Path, initrd: Option<&Path>, image: &[u8]) -> Result<Guest> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = archive::Archive::default();
    for name in ["vmlinux", "vsm_sk"] {
        archive.file(&format!("usr/lib/firmware/{name}"), 0o644, image)?;
    }
    // Archives follow each other on borders of four bytes.
    let mut all = initrd.map(read).transpose()?.unwrap_or_default();
    all.resize(all.len().next_multiple_of(4), 0);
    all.extend(archive.finish()?);
    Ok(Guest { release: kernel.display().to_string(), kernel: read(kernel)?, initrd: all })
}

/// Fetches what is missing and builds driver and initramfs.
fn prepare(root: &Path, options: &Options, image: &[u8]) -> Result<Guest> {
    if packages::present(root, options.debian).is_none() {
        eprintln!(
            "the first run fetches some 50 MiB and builds everything: a few minutes; later ones take less than one"
        );
    }
    let kernel = packages::get(root, options.debian)?;
    kernel.ensure_compilers()?;
    let directory = packages::directory(root, options.debian);
    let certificates = certificates(&kernel)?;
    eprintln!("building the driver for {} with {}", kernel.release, kernel.compiler);
    let driver = fs::read(driver::build(root, &kernel, &directory)?)?;
    let tool = fs::read(driver::tool(root, &kernel, &directory)?)?;
    let parts = initramfs::Parts {
        kernel: &kernel,
        image,
        driver: &driver,
        tool: &tool,
        certificates: &certificates.der,
        many: options.steps.iter().any(|step| step == initramfs::MANY_STEP),
    };
    let initrd = initramfs::pack(root, &parts)?;
    Ok(Guest { release: kernel.release, kernel: fs::read(kernel.vmlinuz)?, initrd })
}

fn certificates(kernel: &Kernel) -> Result<certificates::List> {
    let image = fs::read(&kernel.vmlinuz)?;
    let list = payload::vmlinux(&image).and_then(|vmlinux| certificates::cut(&vmlinux));
    let list = list.with_context(|| format!("cannot find the certificates in {}", kernel.vmlinuz.display()))?;
    eprintln!("the kernel trusts {}", list.names.join(", "));
    Ok(list)
}
