//! The options of `cargo xtask linux`, and the kernel's command line that follows from them.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use super::packages::Series;
use super::steps::STEPS;
use crate::run::parse_size;

/// Where VTL1's memory begins unless told otherwise: in RAM of every size, above kernel and initramfs, on a 2 MiB border.
const REGION: u64 = 512 << 20;
/// VTL1's memory without processors, and for each: what `docs/src/memory-map.md` has, and 8 MiB for a distribution's modules.
const REGION_SIZE: u64 = 24 << 20;
const REGION_SIZE_PER_VP: u64 = 4 << 20;
/// A region's start and size are multiples of this.
const REGION_ALIGN: u64 = 2 << 20;
/// Least memory of the guest: what lies below 1 GiB the simulator and the firmware use too.
const LEAST_MEMORY: u64 = 1 << 30;

/// Which generation of the VTL0 loader the driver plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Loader {
    /// Parameters in a boot_params page.
    G2,
    /// Parameters in registers.
    G3,
}

/// What to boot, and what to do there.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option that a person gives or not")]
pub struct Options {
    /// Debian's kernel of this series.
    #[arg(long, value_enum, default_value = "6.12", conflicts_with = "kernel")]
    pub debian: Series,
    /// Boot this kernel (a bzImage) with a VTL0 driver of its own, and report every VSM call that it makes.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk; VTL1's image is added to it, as /usr/lib/firmware/vmlinux and /usr/lib/firmware/vsm_sk.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// Words for the end of the kernel's command line.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub append: String,
    /// Keep memory from Linux, as SIZE@ADDR on 2 MiB borders: for a driver with --kernel that wants it so; else VTL1's own.
    #[arg(long, value_name = "SIZE@ADDR", value_parser = parse_region)]
    pub reserve: Option<Region>,
    /// Number of virtual processors.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub vps: u32,
    /// Guest memory, at least 1G, in bytes or with a suffix K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    pub mem: u64,
    /// Generation of the VTL0 loader to play.
    #[arg(long, value_enum, default_value = "g3", conflicts_with = "kernel")]
    pub loader: Loader,
    /// Boot this VTL1 image instead of building one.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Steps to play, separated by commas, instead of all but `many`.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "kernel")]
    pub steps: Vec<String>,
    /// Give the guest's console to this terminal; VTL1's lines stand above it.
    #[arg(long)]
    pub shell: bool,
    /// Write the run as a page of HTML.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Print Linux's console, and every step of the hypervisor.
    #[arg(long)]
    pub trace: bool,
    /// Count VTL1's instructions exactly; all processors then share one thread.
    #[arg(long)]
    pub count: bool,
    /// Fetch and build everything, and boot nothing.
    #[arg(long, conflicts_with = "kernel")]
    pub prepare: bool,
}

/// Memory that Linux is kept from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Bytes.
    pub size: u64,
    /// Guest-physical address.
    pub start: u64,
}

fn parse_region(text: &str) -> Result<Region, String> {
    let (size, start) = text.split_once('@').ok_or_else(|| format!("{text:?} is not SIZE@ADDR"))?;
    let region = Region { size: parse_size(size)?, start: parse_size(start)? };
    let aligned = region.size.is_multiple_of(REGION_ALIGN) && region.start.is_multiple_of(REGION_ALIGN);
    if !aligned || region.size == 0 {
        return Err(format!("{text:?}: size and address must be multiples of 2 MiB"));
    }
    Ok(region)
}

impl Options {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// Says what does not go together.
    pub fn check(&self) -> Result<()> {
        ensure!(self.mem >= LEAST_MEMORY, "--mem must be at least 1G");
        ensure!(self.mem.is_multiple_of(REGION_ALIGN), "--mem must be a multiple of 2 MiB");
        Ok(())
    }

    /// The names of the steps that are played.
    pub fn steps(&self) -> Vec<String> {
        if self.steps.is_empty() && !self.shell {
            STEPS.map(str::to_owned).to_vec()
        } else if self.steps.is_empty() {
            // Somebody who types wants VTL1 up and nothing hurt.
            vec![STEPS[0].to_owned()]
        } else {
            self.steps.clone()
        }
    }

    /// VTL1's memory.
    pub fn region(&self) -> Region {
        let size = REGION_SIZE + REGION_SIZE_PER_VP * u64::from(self.vps);
        self.reserve.unwrap_or(Region { size, start: REGION })
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> String {
        let mut words = vec!["console=ttyS0".to_owned(), "panic=-1".to_owned()];
        let reserve = |region: Region| format!("memmap={:#x}${:#x}", region.size, region.start);
        if self.kernel.is_some() {
            words.extend(self.reserve.map(reserve));
            words.push("firmware_class.path=/usr/lib/firmware".to_owned());
        } else {
            let region = self.region();
            words.push(reserve(region));
            // For an image of a kernel that takes over after a crash.
            words.push("crashkernel=128M".to_owned());
            words.push(format!("vtl0.region={:#x}@{:#x}", region.size, region.start));
            let loader = if self.loader == Loader::G2 { "g2" } else { "g3" };
            words.push(format!("vtl0.loader={loader}"));
            words.push(format!("vtl0.steps={}", self.steps().join(",")));
            if self.shell {
                words.push("vtl0.shell".to_owned());
            }
        }
        if !self.append.is_empty() {
            words.push(self.append.clone());
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Result<Options, clap::Error> {
        Command::try_parse_from([&["linux"], words].concat()).map(|command| command.options)
    }

    #[test]
    fn the_command_line_reserves_what_the_driver_is_told() {
        let line = options(&["--vps", "4", "--loader", "g2", "--append", "quiet -x"]).unwrap().command_line();
        let words: Vec<&str> = line.split(' ').collect();
        for word in [
            "memmap=0x2800000$0x20000000",
            "vtl0.region=0x2800000@0x20000000",
            "vtl0.loader=g2",
            "vtl0.steps=boot,secondary,kexec,modules,keys,unload,processors,attacks",
        ] {
            assert!(words.contains(&word), "{word}: {line}");
        }
        assert!(line.ends_with(" quiet -x") && !line.contains("vtl0.shell"), "{line}");
        let shell = options(&["--shell"]).unwrap().command_line();
        assert!(shell.contains("vtl0.steps=boot ") && shell.ends_with("vtl0.shell"), "{shell}");
    }

    #[test]
    fn somebody_s_own_kernel_gets_no_words_of_our_driver() {
        let own = options(&["--kernel", "k", "--reserve", "128M@0x2000_0000"]).unwrap().command_line();
        assert!(own.contains("memmap=0x8000000$0x20000000") && !own.contains("vtl0."), "{own}");
        let plain = options(&["--kernel", "k"]).unwrap().command_line();
        assert!(!plain.contains("memmap"), "{plain}");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for words in [
            &["--initrd", "x"][..],
            &["--kernel", "k", "--debian", "6.1"],
            &["--kernel", "k", "--steps", "boot"],
            &["--vps", "0"],
            &["--reserve", "1M@512M"],
            &["--reserve", "0@512M"],
            &["--reserve", "32M"],
        ] {
            assert!(options(words).is_err(), "{words:?}");
        }
        assert!(options(&["--mem", "512M"]).unwrap().check().is_err());
        assert!(options(&[]).unwrap().check().is_ok());
    }
}
