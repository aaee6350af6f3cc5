//! VTL0's loader of the VTL1 image, in both generations (LVBS contract §1, §2).
//!
//! Step by step what the Linux drivers do: special pages, identity map, GDT, the ELF image, boot_params or registers,
//! and the context for HvCallEnableVpVtl. What they do not initialise keeps what was there before.

use anyhow::{Context, Result, bail, ensure};
use litebox_platform_lvbs::hv::{InitialVpContext, SegmentRegister, TableRegister};
use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};

use super::bytes::{write, write_u64};
use super::memory_map::MemoryMap;
use crate::hv::GuestMemory;

const PAGE: u64 = 4096;
const IMAGE_ALIGN: u64 = 2 << 20;
/// What the loader maps and the image may use at first.
const INITIAL_MAP: u64 = 16 << 20;

/// Which loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// LVBS 6.6.96: boot_params page.
    G2,
    /// The upstreaming tree of 2025: as G2, without EnableAPsVtl.
    G2Prime,
    /// The 2026 series: registers.
    G3,
}

/// How VTL0 starts VTL1 on the boot processor.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// For HvCallEnableVpVtl.
    pub context: InitialVpContext,
    /// RDI, RSI, RDX and R8 of the first VTL call; the rest of the registers are whatever VTL0 had.
    pub arguments: [u64; 4],
}

/// Loads `image` and prepares the region. Nothing is zeroed that the drivers don't zero.
pub fn load(
    memory: &dyn GuestMemory,
    map: &MemoryMap,
    generation: Generation,
    possible_cpus: u32,
    image: &[u8],
) -> Result<Start> {
    let base = map.region_start;
    let rsp = match generation {
        Generation::G2 | Generation::G2Prime => base + 0xDFFF,
        Generation::G3 => base + 0xE000,
    };
    if generation == Generation::G3 {
        // Page-table pages 2 to 12 are zeroed first; the older loaders leave garbage between their entries.
        write(memory, base + 0x2000, &vec![0; 11 * 4096])?;
    }
    write_u64(memory, base + 0x1004, rsp).context("TSS.sp0")?;
    write_page_tables(memory, base)?;
    let gdt = write_gdt(memory, base, generation)?;
    let entry = load_elf(memory, map, generation, image)?;
    let arguments = match generation {
        Generation::G2 | Generation::G2Prime => {
            write_boot_params(memory, map, possible_cpus)?;
            [0, base + 0xE000, 0, 0]
        }
        Generation::G3 => [u64::from(possible_cpus), base, map.region_size, 0],
    };
    Ok(Start { context: context(base, entry, rsp, gdt, generation), arguments })
}

/// Identity map of the first 16 MiB, 4 KiB pages, RWX (contract §2.3).
fn write_page_tables(memory: &dyn GuestMemory, base: u64) -> Result<()> {
    let index = |shift: u32| base >> shift & 511;
    write_u64(memory, base + 0x2000 + index(39) * 8, (base + 0x3000) | 0x3)?;
    write_u64(memory, base + 0x3000 + index(30) * 8, (base + 0x4000) | 0x3)?;
    for table in 0..8 {
        let entry = index(21) + table;
        // The drivers would write behind the page here; that is their bug, and not one to reproduce silently.
        ensure!(entry < 512, "the 16 MiB window at {base:#x} crosses a 1 GiB boundary, which VTL0's loader can't map");
        write_u64(memory, base + 0x4000 + entry * 8, (base + 0x5000 + table * PAGE) | 0x63)?;
    }
    for page in 0..INITIAL_MAP / PAGE {
        write_u64(memory, base + 0x5000 + page * 8, (base + page * PAGE) | 0x63)?;
    }
    Ok(())
}

/// The GDT (contract §2.4): its limit.
fn write_gdt(memory: &dyn GuestMemory, base: u64, generation: Generation) -> Result<u16> {
    let tss = base + 0x1000;
    let entries: Vec<u64> = match generation {
        // A TSS descriptor in its legacy 8-byte form: GDT_ENTRY(0x89, tss, 104).
        Generation::G2 | Generation::G2Prime => {
            let low = (tss & 0xff_ffff) << 16 | 0x68 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
            vec![0x0020_1800_0000_0000, 0x0020_9800_0000_0000, 0x0000_9000_0000_0000, low]
        }
        Generation::G3 => {
            let low = (tss & 0xff_ffff) << 16 | 0x67 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
            vec![0, 0x00A0_9B00_0000_0000, 0x00C0_9300_0000_0000, low, tss >> 32]
        }
    };
    for (index, entry) in entries.iter().enumerate() {
        write_u64(memory, base + index as u64 * 8, *entry)?;
    }
    Ok(u16::try_from(entries.len() * 8 - 1)?)
}

/// Copies the image's segments; the physical entry point (contract §2.6).
fn load_elf(memory: &dyn GuestMemory, map: &MemoryMap, generation: Generation, image: &[u8]) -> Result<u64> {
    let endian = LittleEndian;
    let header = elf::FileHeader64::<LittleEndian>::parse(image).context("the image is not an ELF64 file")?;
    ensure!(header.e_machine(endian) == elf::EM_X86_64, "the image is not for x86-64");
    ensure!(matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN), "the image is neither ET_EXEC nor ET_DYN");
    let segments = header.program_headers(endian, image)?;
    let loads: Vec<_> = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD).collect();
    // G2 takes the alignment of the first program header, whatever that is; G3 the first PT_LOAD's.
    let aligning = match generation {
        Generation::G2 | Generation::G2Prime => segments.first(),
        Generation::G3 => loads.first().copied(),
    };
    let Some(align) = aligning.map(|segment| segment.p_align(endian)) else { bail!("the image has no segments") };
    ensure!(align.is_power_of_two(), "the first segment's alignment {align:#x} is not a power of two");
    let load_base = (map.region_start + align).next_multiple_of(align);
    ensure!(load_base >= map.region_start + 16 * PAGE, "ENOSPC: the image would lie on the special pages");
    for segment in &loads {
        let p_align = segment.p_align(endian);
        ensure!(p_align != 0 && p_align % IMAGE_ALIGN == 0, "EINVAL: a segment's alignment is {p_align:#x}");
    }
    let Some(lowest) = loads.iter().map(|segment| segment.p_paddr(endian)).min() else { bail!("no PT_LOAD") };
    let size_of = |segment: &elf::ProgramHeader64<LittleEndian>| match generation {
        Generation::G2 | Generation::G2Prime => segment.p_filesz(endian),
        Generation::G3 => segment.p_memsz(endian),
    };
    let end = loads.iter().map(|segment| segment.p_paddr(endian) + size_of(segment)).max().unwrap_or(lowest);
    ensure!(end - lowest <= INITIAL_MAP - IMAGE_ALIGN, "the image's {:#x} bytes don't fit 14 MiB", end - lowest);
    for segment in &loads {
        let at = load_base + segment.p_paddr(endian) - lowest;
        let data = segment.data(endian, image).ok().context("a segment lies outside of the file")?;
        write(memory, at, data)?;
        let zeros = segment.p_memsz(endian).saturating_sub(segment.p_filesz(endian));
        write(memory, at + data.len() as u64, &vec![0; usize::try_from(zeros)?])?;
    }
    Ok(load_base + header.e_entry(endian) - lowest)
}

/// boot_params and the command line (contract §2.7). Bytes not written keep what they had.
fn write_boot_params(memory: &dyn GuestMemory, map: &MemoryMap, possible_cpus: u32) -> Result<()> {
    let params = map.region_start + 0xE000;
    let line = map.region_start + 0xF000;
    write_u64(memory, params + 0x070, 0)?; // acpi_rsdp_addr
    write(memory, params + 0x0C8, &u32::try_from(line >> 32)?.to_le_bytes())?;
    write(memory, params + 0x1E8, &[4])?;
    write(memory, params + 0x210, &[0xFF])?;
    write(memory, params + 0x228, &u32::try_from(line & 0xffff_ffff)?.to_le_bytes())?;
    write(memory, params + 0x23C, &1u32.to_le_bytes())?;
    let end = map.region_end();
    // The last one stands for VTL0's copied ACPI entries.
    let e820 = [
        (0, map.region_start, 2u32),
        (map.region_start, map.region_size, 1),
        (end, map.end_of_ram() - end, 2),
        (0xF7FF_0000, 0x8000, 3),
    ];
    for (index, (start, size, kind)) in e820.into_iter().enumerate() {
        let at = params + 0x2D0 + index as u64 * 20;
        write_u64(memory, at, start)?;
        write_u64(memory, at + 8, size)?;
        write(memory, at + 16, &kind.to_le_bytes())?;
    }
    let text = format!(
        "debug rootwait console=ttyS1,115200 earlyprintk=ttyS1,115200 cpuidle.off=1 cpufreq.off=1 idle=halt \
         initcall_blacklist=do_init_real_mode,sbf_init maxcpus=1 noxsave possible_cpus={possible_cpus}\0"
    );
    write(memory, line, text.as_bytes())
}

/// The boot processor's context (contract §2.5).
fn context(base: u64, entry: u64, rsp: u64, gdt_limit: u16, generation: Generation) -> InitialVpContext {
    let (code, data) = match generation {
        Generation::G2 | Generation::G2Prime => (0x209B, 0x4093),
        Generation::G3 => (0xA09B, 0xC093),
    };
    let segment = |selector, attributes| SegmentRegister { base: 0, limit: 0, selector, attributes };
    InitialVpContext {
        rip: entry,
        rsp,
        rflags: 0x2,
        cs: segment(0x08, code),
        ds: segment(0x10, data),
        es: segment(0x10, data),
        fs: segment(0x10, data),
        gs: segment(0x10, data),
        ss: segment(0, 0),
        tr: SegmentRegister { base: base + 0x1000, limit: 103, selector: 0x18, attributes: 0x8B },
        ldtr: SegmentRegister::default(),
        idtr: TableRegister::default(),
        gdtr: TableRegister { pad: [0; 3], limit: gdt_limit, base },
        efer: 0xD01,
        cr0: 0x8001_0033,
        cr3: base + 0x2000,
        cr4: 0xB0,
        pat: 0x0007_0406_0007_0406,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::hv::NotRam;

    /// Pages that hold 0xA5 until they are written.
    #[derive(Default)]
    struct Dirty(Mutex<BTreeMap<u64, [u8; 4096]>>);

    impl GuestMemory for Dirty {
        fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), NotRam> {
            let pages = self.0.lock().unwrap();
            let page = pages.get(&(gpa / PAGE)).copied().unwrap_or([0xA5; 4096]);
            let at = usize::try_from(gpa % PAGE).unwrap();
            into.copy_from_slice(&page[at..at + into.len()]);
            Ok(())
        }

        fn write(&self, gpa: u64, from: &[u8]) -> Result<(), NotRam> {
            let mut pages = self.0.lock().unwrap();
            let at = usize::try_from(gpa % PAGE).unwrap();
            pages.entry(gpa / PAGE).or_insert([0xA5; 4096])[at..at + from.len()].copy_from_slice(from);
            Ok(())
        }
    }

    fn word(memory: &Dirty, gpa: u64) -> u64 {
        super::super::bytes::read_u64(memory, gpa).unwrap()
    }

    /// The example of contract §2.3 and §2.4, number by number.
    #[test]
    fn special_pages_of_the_contracts_example() {
        let memory = Dirty::default();
        let base = 0x0800_0000;
        write_page_tables(&memory, base).unwrap();
        write_gdt(&memory, base, Generation::G2).unwrap();
        assert_eq!(word(&memory, base + 0x2000), 0x0800_3003);
        assert_eq!(word(&memory, base + 0x3000), 0x0800_4003);
        assert_eq!(word(&memory, base + 0x4000 + 64 * 8), 0x0800_5063);
        assert_eq!(word(&memory, base + 0x4000 + 71 * 8), 0x0800_C063);
        assert_eq!(word(&memory, base + 0x5000), 0x0800_0063);
        assert_eq!(word(&memory, base + 0x2008), 0xA5A5_A5A5_A5A5_A5A5, "not zeroed in this generation");
        assert_eq!(word(&memory, base + 24), 0x0800_8900_1000_0068);
    }
}
