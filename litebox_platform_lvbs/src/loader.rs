//! What VTL0's loader tells the image: where its region is, how large, how many processors there may be.
//!
//! Two loader generations exist in the field (LVBS contract §1). They are told apart by the registers of the first
//! entry; everything they say is checked, because a wrong region would let VTL1 protect the wrong memory. This runs
//! before the end of boot, when VTL0 is still what the firmware measured; a mistake is reported and ends the boot.

use log::LevelFilter;
use thiserror::Error;

/// The smallest region any loader gives: the 16 MiB it maps for the image (contract §2.3).
pub const MIN_REGION_SIZE: u64 = 16 << 20;
/// The part of the region VTL1 uses at most; the kernel's address window is that large (see `arch::layout`).
pub const MAX_REGION_SIZE: u64 = 1 << 30;
/// Alignment of the region, in bytes (contract §2.1).
pub const REGION_ALIGN: u64 = 2 << 20;
/// Most processors VTL1 accepts; Hyper-V's own limit for a partition is 2048 virtual processors.
pub const MAX_POSSIBLE_CPUS: u64 = 2048;

/// Offset of the boot_params page in the region (contract §2.2, page 14).
pub const BOOT_PARAMS_OFFSET: u64 = 0xE000;
/// Offset of the command line page in the region (contract §2.2, page 15).
pub const COMMAND_LINE_OFFSET: u64 = 0xF000;

/// Size of a boot_params page, in bytes.
const PAGE: usize = 4096;
/// Number of e820 entries (Linux `struct boot_params`, u8).
const E820_ENTRIES: usize = 0x1E8;
/// Low and high half of the command line's address (Linux `struct setup_header`, `struct boot_params`).
const CMD_LINE_PTR: usize = 0x228;
const EXT_CMD_LINE_PTR: usize = 0x0C8;
/// First e820 entry; each is {addr u64, size u64, type u32}, packed.
const E820_TABLE: usize = 0x2D0;
const E820_ENTRY_SIZE: usize = 20;
const E820_MAX: usize = 128;
const E820_RAM: u32 = 1;

/// The four argument registers of the first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRegisters {
    /// RDI.
    pub rdi: u64,
    /// RSI.
    pub rsi: u64,
    /// RDX.
    pub rdx: u64,
    /// R8.
    pub r8: u64,
}

/// Which loader started the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// LVBS 6.6: RDI = 0, RSI = address of a boot_params page.
    G2,
    /// The 2026 mailing-list series: RDI = possible CPUs, RSI = region start, RDX = region size.
    G3,
}

/// What the image must know to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootInfo {
    /// Which loader started us.
    pub generation: Generation,
    /// First byte of the region.
    pub region_start: u64,
    /// Size of the region in bytes.
    pub region_size: u64,
    /// How many processors VTL0 may ever have.
    pub possible_cpus: u32,
    /// The most talkative level of the log, where the command line names one (`vtl1.loglevel=`).
    pub log_level: Option<LevelFilter>,
}

/// Why the image cannot start.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LoaderError {
    /// The registers are those of no known loader.
    #[error("unknown loader: rdi={:#x} rsi={:#x} rdx={:#x} r8={:#x}, image region starts at {region_start:#x}", .registers.rdi, .registers.rsi, .registers.rdx, .registers.r8)]
    UnknownLoader {
        /// The registers at entry.
        registers: EntryRegisters,
        /// The region's start as the image computed it from its own address.
        region_start: u64,
    },
    /// The image does not lie 2 MiB into a 2 MiB aligned region.
    #[error("the region starts at {0:#x}, which is not 2 MiB aligned")]
    Misaligned(u64),
    /// boot_params has no RAM entry, or more e820 entries than fit.
    #[error("boot_params has {0} e820 entries and none of them is RAM within bounds")]
    NoRegion(u8),
    /// boot_params describes a region other than the one the image lies in.
    #[error("boot_params says the region starts at {told:#x}, but the image lies in {found:#x}")]
    OtherRegion {
        /// What the loader said.
        told: u64,
        /// Where the image is.
        found: u64,
    },
    /// The region is smaller than needed.
    #[error("the region has {size:#x} bytes; {needed:#x} are needed for {cpus} processors")]
    TooSmall {
        /// What there is.
        size: u64,
        /// What must be there.
        needed: u64,
        /// For how many processors.
        cpus: u32,
    },
    /// The region's end is not a physical address.
    #[error("the region {start:#x} + {size:#x} ends beyond physical memory")]
    TooLarge {
        /// First byte.
        start: u64,
        /// Size in bytes.
        size: u64,
    },
    /// The command line is not where it must be, or has no end.
    #[error("the command line at {0:#x} is not the page behind boot_params, or has no end")]
    CommandLine(u64),
    /// `possible_cpus=` is missing, no number, or out of bounds.
    #[error("possible_cpus is missing or not a number from 1 to {MAX_POSSIBLE_CPUS}")]
    PossibleCpus,
}

/// Memory VTL1 needs for one processor at the least: its stacks and pages.
pub const BYTES_PER_CPU: u64 = 256 << 10;

impl BootInfo {
    /// Reads the loader's arguments. `region_start` is what the image computed from its own address; `page` gives the
    /// region's page at an offset (only asked for the two pages of [`BOOT_PARAMS_OFFSET`]).
    ///
    /// # Errors
    /// [`LoaderError`] names what is wrong; there is no partial result.
    pub fn from_loader<'p>(
        registers: EntryRegisters,
        region_start: u64,
        page: impl Fn(u64) -> &'p [u8; PAGE],
    ) -> Result<Self, LoaderError> {
        if !region_start.is_multiple_of(REGION_ALIGN) {
            return Err(LoaderError::Misaligned(region_start));
        }
        let info = if registers.rdi == 0 && Some(registers.rsi) == region_start.checked_add(BOOT_PARAMS_OFFSET) {
            Self::from_boot_params(region_start, page(BOOT_PARAMS_OFFSET), page(COMMAND_LINE_OFFSET))?
        } else if (1..=MAX_POSSIBLE_CPUS).contains(&registers.rdi) && registers.rsi == region_start {
            let possible_cpus = u32::try_from(registers.rdi).map_err(|_| LoaderError::PossibleCpus)?;
            Self {
                generation: Generation::G3,
                region_start,
                region_size: registers.rdx,
                possible_cpus,
                log_level: None,
            }
        } else {
            return Err(LoaderError::UnknownLoader { registers, region_start });
        };
        info.check()
    }

    fn from_boot_params(
        region_start: u64,
        params: &[u8; PAGE],
        command_line: &[u8; PAGE],
    ) -> Result<Self, LoaderError> {
        let entries = params[E820_ENTRIES];
        let (told, size) = (0..usize::from(entries).min(E820_MAX))
            .map(|i| E820_TABLE + i * E820_ENTRY_SIZE)
            .find(|&at| read_u32(params, at + 16) == E820_RAM)
            .map(|at| (read_u64(params, at), read_u64(params, at + 8)))
            .ok_or(LoaderError::NoRegion(entries))?;
        if told != region_start {
            return Err(LoaderError::OtherRegion { told, found: region_start });
        }
        let line_at = u64::from(read_u32(params, CMD_LINE_PTR)) | u64::from(read_u32(params, EXT_CMD_LINE_PTR)) << 32;
        // The high half is written by some trees only (contract §2.7), so below 4 GiB it is not looked at.
        let expected = region_start.wrapping_add(COMMAND_LINE_OFFSET);
        if line_at != expected && line_at & 0xffff_ffff != expected {
            return Err(LoaderError::CommandLine(line_at));
        }
        let end = command_line.iter().position(|&byte| byte == 0).ok_or(LoaderError::CommandLine(line_at))?;
        let line = &command_line[..end];
        let possible_cpus = possible_cpus(line).ok_or(LoaderError::PossibleCpus)?;
        let log_level = log_level(line);
        Ok(Self { generation: Generation::G2, region_start, region_size: size, possible_cpus, log_level })
    }

    fn check(self) -> Result<Self, LoaderError> {
        let needed = MIN_REGION_SIZE + u64::from(self.possible_cpus) * BYTES_PER_CPU;
        if self.region_size < needed {
            return Err(LoaderError::TooSmall { size: self.region_size, needed, cpus: self.possible_cpus });
        }
        let too_large = LoaderError::TooLarge { start: self.region_start, size: self.region_size };
        let end = self.region_start.checked_add(self.region_size).ok_or(too_large)?;
        if end > 1 << crate::address::PHYS_ADDR_BITS || !self.region_size.is_multiple_of(crate::address::PAGE_SIZE) {
            return Err(too_large);
        }
        Ok(self)
    }
}

/// The value of the last word that starts with `key`, as Linux's parameter parsing takes the last one.
fn value<'l>(line: &'l [u8], key: &str) -> Option<&'l str> {
    let mut words = line.split(|&byte| byte == b' ').rev();
    words.find_map(|word| word.strip_prefix(key.as_bytes())).and_then(|word| core::str::from_utf8(word).ok())
}

fn possible_cpus(line: &[u8]) -> Option<u32> {
    let number: u32 = value(line, "possible_cpus=")?.parse().ok()?;
    (1..=MAX_POSSIBLE_CPUS).contains(&u64::from(number)).then_some(number)
}

/// A level that is not known is ignored: the boot must not fail because of a word about the log.
fn log_level(line: &[u8]) -> Option<LevelFilter> {
    value(line, "vtl1.loglevel=")?.parse().ok()
}

fn read_u32(page: &[u8; PAGE], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&page[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn read_u64(page: &[u8; PAGE], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&page[at..at + 8]);
    u64::from_le_bytes(bytes)
}

// The last entry of a full table still lies in the page.
const _: () = assert!(E820_TABLE + E820_MAX * E820_ENTRY_SIZE <= PAGE);

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x0800_0000;

    struct Pages {
        params: [u8; PAGE],
        line: [u8; PAGE],
    }

    impl Pages {
        /// As the G2 loader leaves them, on top of memory that was not zeroed.
        fn g2(size: u64, line: &str) -> Self {
            let mut pages = Self { params: [0xA5; PAGE], line: [0xA5; PAGE] };
            pages.params[E820_ENTRIES] = 3;
            pages.params[CMD_LINE_PTR..CMD_LINE_PTR + 4]
                .copy_from_slice(&u32::try_from(BASE + 0xF000).unwrap().to_le_bytes());
            pages.params[EXT_CMD_LINE_PTR..EXT_CMD_LINE_PTR + 4].fill(0);
            pages.entry(0, 0, BASE, 2);
            pages.entry(1, BASE, size, E820_RAM);
            pages.entry(2, BASE.wrapping_add(size), 1 << 32, 2);
            pages.line[..line.len()].copy_from_slice(line.as_bytes());
            pages.line[line.len()] = 0;
            pages
        }

        fn entry(&mut self, index: usize, addr: u64, size: u64, kind: u32) {
            let at = E820_TABLE + index * E820_ENTRY_SIZE;
            self.params[at..at + 8].copy_from_slice(&addr.to_le_bytes());
            self.params[at + 8..at + 16].copy_from_slice(&size.to_le_bytes());
            self.params[at + 16..at + 20].copy_from_slice(&kind.to_le_bytes());
        }

        fn parse(&self, registers: EntryRegisters, region: u64) -> Result<BootInfo, LoaderError> {
            BootInfo::from_loader(registers, region, |offset| match offset {
                BOOT_PARAMS_OFFSET => &self.params,
                COMMAND_LINE_OFFSET => &self.line,
                other => panic!("page {other:#x} was asked for"),
            })
        }
    }

    const G2: EntryRegisters = EntryRegisters { rdi: 0, rsi: BASE + BOOT_PARAMS_OFFSET, rdx: 0, r8: 0 };

    #[test]
    fn g2_takes_region_and_cpus_from_boot_params() {
        let pages = Pages::g2(24 << 20, "debug rootwait maxcpus=1 noxsave possible_cpus=2");
        let expected = BootInfo {
            generation: Generation::G2,
            region_start: BASE,
            region_size: 24 << 20,
            possible_cpus: 2,
            log_level: None,
        };
        assert_eq!(pages.parse(G2, BASE), Ok(expected));
    }

    #[test]
    fn the_command_line_may_name_a_log_level() {
        for (words, level) in [
            ("vtl1.loglevel=debug possible_cpus=2", Some(LevelFilter::Debug)),
            ("vtl1.loglevel=error possible_cpus=2 vtl1.loglevel=off", Some(LevelFilter::Off)),
            ("vtl1.loglevel=loud possible_cpus=2", None),
            ("vtl1.loglevel= possible_cpus=2", None),
        ] {
            assert_eq!(Pages::g2(24 << 20, words).parse(G2, BASE).unwrap().log_level, level, "{words:?}");
        }
    }

    #[test]
    fn g3_takes_region_and_cpus_from_registers() {
        let pages = Pages::g2(0, "");
        let registers = EntryRegisters { rdi: 8, rsi: BASE, rdx: 48 << 20, r8: 0 };
        let info = pages.parse(registers, BASE).unwrap();
        assert_eq!((info.generation, info.possible_cpus, info.region_size), (Generation::G3, 8, 48 << 20));
    }

    #[test]
    fn registers_of_no_loader_are_named() {
        let pages = Pages::g2(24 << 20, "possible_cpus=2");
        for registers in [
            EntryRegisters { rdi: 0, rsi: BASE, rdx: 24 << 20, r8: 0 },
            EntryRegisters { rdi: 1, rsi: BASE + 0x1000, rdx: 24 << 20, r8: 0 },
            EntryRegisters { rdi: MAX_POSSIBLE_CPUS + 1, rsi: BASE, rdx: 1 << 30, r8: 0 },
            EntryRegisters { rdi: 1, rsi: BASE + BOOT_PARAMS_OFFSET, rdx: 0, r8: 0 },
        ] {
            let error = pages.parse(registers, BASE).unwrap_err();
            assert_eq!(error, LoaderError::UnknownLoader { registers, region_start: BASE });
        }
    }

    #[test]
    fn a_wrong_region_is_refused() {
        let line = "possible_cpus=2";
        assert_eq!(Pages::g2(24 << 20, line).parse(G2, BASE + 0x1000), Err(LoaderError::Misaligned(BASE + 0x1000)));
        let mut pages = Pages::g2(24 << 20, line);
        pages.entry(1, BASE + (2 << 20), 24 << 20, E820_RAM);
        assert!(matches!(pages.parse(G2, BASE), Err(LoaderError::OtherRegion { .. })));
        pages.entry(1, BASE, 24 << 20, 2);
        assert_eq!(pages.parse(G2, BASE), Err(LoaderError::NoRegion(3)));
        assert!(matches!(Pages::g2(8 << 20, line).parse(G2, BASE), Err(LoaderError::TooSmall { .. })));
        assert!(matches!(
            Pages::g2(16 << 20, "possible_cpus=96").parse(G2, BASE),
            Err(LoaderError::TooSmall { cpus: 96, .. })
        ));
        assert!(matches!(Pages::g2(!0xfff, line).parse(G2, BASE), Err(LoaderError::TooLarge { .. })));
        assert!(matches!(Pages::g2((24 << 20) + 1, line).parse(G2, BASE), Err(LoaderError::TooLarge { .. })));
    }

    #[test]
    fn the_command_line_must_name_the_cpus() {
        for line in [
            "",
            "debug",
            "possible_cpus=",
            "possible_cpus=0",
            "possible_cpus=2049",
            "possible_cpus=-1",
            "xpossible_cpus=2",
        ] {
            assert_eq!(Pages::g2(24 << 20, line).parse(G2, BASE), Err(LoaderError::PossibleCpus), "{line:?}");
        }
        let pages = Pages::g2(24 << 20, "possible_cpus=9 possible_cpus=3");
        assert_eq!(pages.parse(G2, BASE).unwrap().possible_cpus, 3);
        let mut endless = Pages::g2(24 << 20, "possible_cpus=2");
        endless.line.fill(b'x');
        assert!(matches!(endless.parse(G2, BASE), Err(LoaderError::CommandLine(_))));
        let mut elsewhere = Pages::g2(24 << 20, "possible_cpus=2");
        elsewhere.params[CMD_LINE_PTR] = 1;
        assert!(matches!(elsewhere.parse(G2, BASE), Err(LoaderError::CommandLine(_))));
    }

    #[test]
    fn more_entries_than_fit_are_not_read() {
        let mut pages = Pages::g2(24 << 20, "possible_cpus=2");
        for index in 0..E820_MAX {
            pages.entry(index, 0, 0, 2);
        }
        pages.params[E820_ENTRIES] = 255;
        assert_eq!(pages.parse(G2, BASE), Err(LoaderError::NoRegion(255)));
    }
}
