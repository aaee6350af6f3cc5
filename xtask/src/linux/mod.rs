//! `cargo xtask linux`: a distribution's own, signed Linux in VTL0, with VTL1 beside it.
//!
//! | module | purpose |
//! |---|---|
//! | [`packages`] | the kernel, its headers and busybox, from Debian's packages |
//! | [`payload`] | the kernel proper out of its bootable image |
//! | [`certificates`] | the certificates that the kernel is built with |
//! | [`driver`] | building VTL0's driver |
//! | [`modules`] | the distribution's modules, and what they depend on |
//! | [`archive`], [`initramfs`] | what the guest finds in its memory |

mod archive;
mod certificates;
mod driver;
mod initramfs;
mod modules;
mod packages;
mod payload;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::run;
use packages::{Kernel, Series};

/// What to boot, and what to do there.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Debian's kernel of this series.
    #[arg(long, value_enum, default_value = "6.12")]
    pub debian: Series,
    /// Boot this VTL1 image instead of building one.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Steps to play, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub steps: Vec<String>,
    /// Fetch and build everything, and boot nothing.
    #[arg(long)]
    pub prepare: bool,
}

/// A guest that is ready to boot.
pub struct Guest {
    /// The kernel's release.
    pub release: String,
    /// The bootable image.
    pub kernel: Vec<u8>,
    /// The initramfs.
    pub initrd: Vec<u8>,
}

/// Does what the options say.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let guest = prepare(root, options)?;
    let [kernel, initrd] = [&guest.kernel, &guest.initrd].map(|bytes| bytes.len() >> 20);
    println!("{}: {kernel} MiB of kernel, {initrd} MiB of initramfs", guest.release);
    Ok(())
}

/// Fetches what is missing and builds image, driver and initramfs.
fn prepare(root: &Path, options: &Options) -> Result<Guest> {
    let kernel = packages::get(root, options.debian)?;
    kernel.ensure_compilers()?;
    let image = fs::read(run::image(root, options.image.as_ref())?)?;
    let directory = packages::directory(root, options.debian);
    let certificates = certificates(&kernel)?;
    eprintln!("building the driver for {} with {}", kernel.release, kernel.compiler);
    let driver = fs::read(driver::build(root, &kernel, &directory)?)?;
    let tool = fs::read(driver::tool(root, &kernel, &directory)?)?;
    let parts = initramfs::Parts {
        kernel: &kernel,
        image: &image,
        driver: &driver,
        tool: &tool,
        certificates: &certificates.der,
        many: options.steps.iter().any(|step| step == initramfs::MANY_STEP),
    };
    let initrd = initramfs::pack(root, &parts)?;
    fs::write(directory.join("initramfs.cpio"), &initrd)?;
    Ok(Guest { release: kernel.release, kernel: fs::read(kernel.vmlinuz)?, initrd })
}

fn certificates(kernel: &Kernel) -> Result<certificates::List> {
    let image = fs::read(&kernel.vmlinuz)?;
    let list = payload::vmlinux(&image).and_then(|vmlinux| certificates::cut(&vmlinux));
    let list = list.with_context(|| format!("cannot find the certificates in {}", kernel.vmlinuz.display()))?;
    eprintln!("the kernel trusts {}", list.names.join(", "));
    Ok(list)
}
