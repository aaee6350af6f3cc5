//! A kernel's file as kexec's loader takes it apart (Linux `Documentation/arch/x86/boot.rst`,
//! `arch/x86/kernel/kexec-bzimage64.c`).
//!
//! The file is a real-mode part, of which the loader keeps the header only, and the kernel proper, which it loads whole and
//! enters 512 bytes after its start. The signatures behind it are loaded with it, for the loader does not look for them.

use core::ops::Range;

use crate::bytes::array_at;
use crate::error::ParseError;

/// Bytes of a sector, in which the real-mode part is counted.
const SECTOR: usize = 512;
/// Offsets of the setup header's fields in the file (boot.rst, "The Real-Mode Kernel Header").
const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const LOADFLAGS: usize = 0x211;
const XLOADFLAGS: usize = 0x236;
const INIT_SIZE: usize = 0x260;
/// Sectors of the real-mode part where the header says 0.
const DEFAULT_SETUP_SECTS: u8 = 4;
/// The first protocol with `xloadflags`.
const MIN_VERSION: u16 = 0x20c;
/// `LOADED_HIGH`: the kernel proper is loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `XLF_KERNEL_64`: there is a 64-bit entry point, at 0x200.
const XLF_KERNEL_64: u16 = 1;

/// What of a file kexec's loader puts into memory as the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BzImage {
    /// Its place in the file; ends where the file does.
    pub kernel: Range<usize>,
    /// Bytes that the kernel uses from its first one on, before it knows the machine's memory.
    pub init_size: u64,
}

impl BzImage {
    /// Finds the kernel in a file.
    ///
    /// # Errors
    /// For a file that Linux's loader of 64-bit kernels does not take (`bzImage64_probe`).
    pub fn parse(file: &[u8]) -> Result<Self, ParseError> {
        let short = |offset| ParseError::new(offset, "the file ends in its setup header");
        let byte = |offset: usize| file.get(offset).copied().ok_or(short(offset));
        let word = |offset: usize| array_at(file, offset).map(u16::from_le_bytes).ok_or(short(offset));
        if word(BOOT_FLAG)? != 0xaa55 {
            return Err(ParseError::new(BOOT_FLAG, "no boot flag"));
        }
        if array_at(file, HEADER) != Some(*b"HdrS") {
            return Err(ParseError::new(HEADER, "no setup header"));
        }
        if word(VERSION)? < MIN_VERSION {
            return Err(ParseError::new(VERSION, "a boot protocol before 2.12"));
        }
        if byte(LOADFLAGS)? & LOADED_HIGH == 0 {
            return Err(ParseError::new(LOADFLAGS, "a kernel that is loaded low"));
        }
        if word(XLOADFLAGS)? & XLF_KERNEL_64 == 0 {
            return Err(ParseError::new(XLOADFLAGS, "a kernel without 64-bit entry point"));
        }
        let init_size = array_at(file, INIT_SIZE).map(u32::from_le_bytes).ok_or(short(INIT_SIZE))?;
        let sectors = match byte(SETUP_SECTS)? {
            0 => DEFAULT_SETUP_SECTS,
            sectors => sectors,
        };
        let start = (usize::from(sectors) + 1) * SECTOR;
        // The entry point at least is in it.
        if file.len() <= start + SECTOR {
            return Err(ParseError::new(SETUP_SECTS, "the file ends in its real-mode part"));
        }
        Ok(Self { kernel: start..file.len(), init_size: u64::from(init_size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut file = vec![0; 0x3000];
        file[SETUP_SECTS] = 7;
        file[BOOT_FLAG..HEADER].copy_from_slice(&[0x55, 0xaa, 0xeb, 0x6a]);
        file[HEADER..HEADER + 4].copy_from_slice(b"HdrS");
        file[VERSION..VERSION + 2].copy_from_slice(&[0x0f, 2]);
        file[LOADFLAGS] = 1;
        file[XLOADFLAGS] = 1;
        file[INIT_SIZE..INIT_SIZE + 4].copy_from_slice(&0x12_3456_u32.to_le_bytes());
        file
    }

    #[test]
    fn the_kernel_starts_behind_the_real_mode_part() {
        assert_eq!(BzImage::parse(&file()), Ok(BzImage { kernel: 0x1000..0x3000, init_size: 0x12_3456 }));
        let mut default = file();
        default[SETUP_SECTS] = 0;
        assert_eq!(BzImage::parse(&default).unwrap().kernel, 0xa00..0x3000);
    }

    #[test]
    fn what_linux_does_not_load_is_refused() {
        for (at, value, rule) in [
            (BOOT_FLAG, 0, "boot flag"),
            (HEADER + 1, 0, "setup header"),
            (VERSION, 0x0b, "protocol"),
            (LOADFLAGS, 0xfe, "low"),
            (XLOADFLAGS, 0xfe, "64-bit"),
            (SETUP_SECTS, 22, "real-mode"),
            (SETUP_SECTS, 255, "real-mode"),
        ] {
            let mut file = file();
            if at == VERSION {
                file[at + 1] = 1;
            }
            file[at] = value;
            let refused = BzImage::parse(&file).unwrap_err();
            assert!(refused.rule.contains(rule), "{refused}");
        }
        for length in 0..0x1200 {
            assert!(BzImage::parse(&file()[..length]).is_err(), "{length:#x}");
        }
        assert!(BzImage::parse(&file()[..0x1201]).is_ok());
    }
}
