//! VTL1's own address space, read out of its page tables: nothing is writable and executable, and nothing is there that
//! must not be.

use anyhow::{Context, Result, ensure};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol, elf};
use vsm_sim::engine::{PrivateState, TableRegister};
use vsm_sim::machine::{Machine, VTL1, Vtl0};
use vsm_sim::vtl0::bytes::{self, read_u64};
use vsm_sim::vtl0::memory_map::MemoryMap;

use crate::setup::{booted, call, image, start_others};

const PAGE: u64 = 4096;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A leaf of the page tables.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    va: u64,
    pa: u64,
    size: u64,
    writable: bool,
    executable: bool,
    user: bool,
}

impl Mapping {
    fn covers(&self, va: u64) -> bool {
        va.checked_sub(self.va).is_some_and(|offset| offset < self.size)
    }
}

/// All leaves, ascending (Intel SDM vol. 3 §4.5), and that every table lies in VTL1's region.
fn mappings(machine: &Machine, state: &PrivateState) -> Result<Vec<Mapping>> {
    let mut found = Vec::new();
    let rights = WRITABLE | USER;
    walk(machine, state.cr3 & ADDRESS, 4, 0, rights, &mut found)?;
    Ok(found)
}

fn walk(machine: &Machine, table: u64, level: u32, base: u64, rights: u64, found: &mut Vec<Mapping>) -> Result<()> {
    let map = machine.config().map;
    ensure!(in_region(&map, table), "a table of level {level} lies at {table:#x}, outside of VTL1's memory");
    let shift = 12 + 9 * (level - 1);
    for index in 0..512u64 {
        let entry = read_u64(machine.ram(), table + index * 8)?;
        if entry & PRESENT == 0 {
            continue;
        }
        let va = base | index << shift;
        let va = if level == 4 && index >= 256 { va | 0xffff << 48 } else { va };
        let rights = (rights & entry) | (rights | entry) & NO_EXECUTE;
        if level == 1 || level < 4 && entry & LARGE != 0 {
            let size = 1 << shift;
            found.push(Mapping {
                va,
                pa: entry & ADDRESS & !(size - 1),
                size,
                writable: rights & WRITABLE != 0,
                executable: rights & NO_EXECUTE == 0,
                user: rights & USER != 0,
            });
        } else {
            walk(machine, entry & ADDRESS, level - 1, va, rights, found)?;
        }
    }
    Ok(())
}

fn in_region(map: &MemoryMap, pa: u64) -> bool {
    (map.region_start..map.region_end()).contains(&pa)
}

/// A machine after its boot, with the rules that hold for all of its mappings shown.
fn checked(vtl0: &mut Vtl0) -> Result<Vec<Mapping>> {
    let machine = vtl0.machine();
    let map = machine.config().map;
    let state = vtl0.processor().vcpu().state(VTL1);
    let all = mappings(&machine, &state)?;
    ensure!(!all.is_empty(), "nothing is mapped");
    for mapping in &all {
        ensure!(!(mapping.writable && mapping.executable), "writable and executable: {mapping:x?}");
        ensure!(!mapping.user, "a user page: {mapping:x?}");
        ensure!(
            in_region(&map, mapping.pa) && in_region(&map, mapping.pa + mapping.size - 1),
            "memory that is not VTL1's: {mapping:x?}"
        );
        ensure!(mapping.va >> 63 == 1, "the lower half, where the loader's identity map was: {mapping:x?}");
    }
    // A frame that code runs from is writable nowhere, at whatever address.
    for code in all.iter().filter(|mapping| mapping.executable) {
        let alias = all
            .iter()
            .find(|other| other.writable && other.pa < code.pa + code.size && code.pa < other.pa + other.size);
        ensure!(alias.is_none(), "{code:x?} is writable as {alias:x?}");
    }
    Ok(all)
}

fn at(all: &[Mapping], va: u64) -> Option<&Mapping> {
    all.iter().find(|mapping| mapping.covers(va))
}

/// Where the physical address `pa` is mapped.
fn mappings_of(all: &[Mapping], pa: u64) -> Vec<Mapping> {
    all.iter().filter(|mapping| (mapping.pa..mapping.pa + mapping.size).contains(&pa)).copied().collect()
}

#[test]
fn machine_maps_nothing_writable_and_executable() -> Result<()> {
    let mut vtl0 = booted(2)?;
    checked(&mut vtl0)?;
    for mut other in start_others(&mut vtl0)? {
        checked(&mut other)?;
    }
    ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs");
    ensure!(call(&mut vtl0, F::SignalEndOfBoot, [0; 3])? == 0, "SignalEndOfBoot");
    checked(&mut vtl0)?;
    Ok(())
}

/// Every page of every segment has the rights that the ELF file gives the segment.
#[test]
fn machine_maps_the_image_as_its_segments_say() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let all = checked(&mut vtl0)?;
    let region = vtl0.machine().config().map.region_start;
    let endian = LittleEndian;
    let header = elf::FileHeader64::<LittleEndian>::parse(image())?;
    let mut seen = [0; 3];
    for segment in header.program_headers(endian, image())? {
        if segment.p_type(endian) != elf::PT_LOAD {
            continue;
        }
        let flags = segment.p_flags(endian);
        let (writable, executable) = (flags & elf::PF_W != 0, flags & elf::PF_X != 0);
        seen[if executable { 0 } else { usize::from(writable) + 1 }] += 1;
        let start = region + segment.p_paddr(endian);
        for page in (start..start + segment.p_memsz(endian)).step_by(4096) {
            let mapped = mappings_of(&all, page);
            ensure!(!mapped.is_empty(), "page {page:#x} of the image is not mapped");
            for mapping in mapped {
                ensure!(mapping.executable == executable, "{mapping:x?} of a segment with flags {flags:#x}");
                // A data segment may hold constants that boot computes and then closes.
                ensure!(writable || !mapping.writable, "{mapping:x?} of a segment with flags {flags:#x}");
            }
        }
    }
    ensure!(seen.iter().all(|count| *count > 0), "code, constants and variables: {seen:?} segments");
    Ok(())
}

/// The jump table, the IDT and the constants are read-only.
#[test]
fn machine_maps_table_and_idt_read_only() -> Result<()> {
    let mut vtl0 = booted(2)?;
    let _others = start_others(&mut vtl0)?;
    let all = checked(&mut vtl0)?;
    let machine = vtl0.machine();
    let region = machine.config().map.region_start;
    let file = object::File::parse(image())?;
    let table = file.symbol_by_name("VSM_JUMP_TABLE").context("the image has no symbol VSM_JUMP_TABLE")?;
    for byte in [table.address(), table.address() + table.size().max(8) - 1] {
        let mapped = mappings_of(&all, region + byte);
        ensure!(!mapped.is_empty(), "the jump table is not mapped");
        for mapping in mapped {
            ensure!(!mapping.writable && !mapping.executable, "the jump table: {mapping:x?}");
        }
    }
    let TableRegister { base, limit } = vtl0.processor().vcpu().state(VTL1).idtr;
    ensure!(limit >= 0xF3 * 16 + 15, "the IDT ends before the SynIC's vector: {limit:#x}");
    for va in [base, base + u64::from(limit)] {
        let idt = at(&all, va).context("the IDT is not mapped")?;
        for mapping in mappings_of(&all, idt.pa + (va - idt.va)) {
            ensure!(!mapping.writable && !mapping.executable, "the IDT: {mapping:x?}");
        }
    }
    Ok(())
}

/// The kernel stack and each interrupt stack in the TSS end in a page that is not mapped.
#[test]
fn machine_maps_guard_pages_below_every_stack() -> Result<()> {
    let mut boot_vp = booted(3)?;
    let mut others = start_others(&mut boot_vp)?;
    let mut stacks = Vec::new();
    for vtl0 in std::iter::once(&mut boot_vp).chain(&mut others) {
        let all = checked(vtl0)?;
        let machine = vtl0.machine();
        let state = vtl0.processor().vcpu().state(VTL1);
        let tss = at(&all, state.tr.base).context("the TSS is not mapped")?;
        let tss = tss.pa + (state.tr.base - tss.va);
        let mut words = [0; 104];
        bytes::read(machine.ram(), tss, &mut words)?;
        let word = |offset: usize| words[offset..offset + 8].try_into().map_or(0, u64::from_le_bytes);
        // RSP0, and IST1 to IST7 (Intel SDM vol. 3 §7.7); VTL1 itself runs on one of its own.
        let mut tops: Vec<u64> = (0..7).map(|index| word(36 + index * 8)).filter(|top| *top != 0).collect();
        ensure!(tops.len() >= 4, "only {} interrupt stacks", tops.len());
        tops.push(state.rsp.next_multiple_of(PAGE));
        for top in tops {
            let mut bottom = top;
            while at(&all, bottom - 1).is_some() {
                bottom -= PAGE;
                ensure!(top - bottom <= 64 * PAGE, "the stack that ends at {top:#x} has no guard page");
            }
            ensure!(bottom < top, "the stack that ends at {top:#x} is not mapped");
            // The guard page is one for good: no other processor's stack lies right there.
            stacks.push((bottom, top));
        }
    }
    stacks.sort_unstable();
    for pair in stacks.windows(2) {
        ensure!(pair[0].1 < pair[1].0, "no gap between the stacks {:x?} and {:x?}", pair[0], pair[1]);
    }
    Ok(())
}

#[test]
fn machine_runs_vtl1_with_its_protections_on() -> Result<()> {
    const CR0_WP: u64 = 1 << 16;
    const CR0_PG_PE: u64 = 1 << 31 | 1;
    const CR4_MCE_SMEP_SMAP: u64 = 1 << 6 | 1 << 20 | 1 << 21;
    const CR4_PAE: u64 = 1 << 5;
    const EFER_NXE: u64 = 1 << 11;
    const RFLAGS_IF_AC: u64 = 1 << 9 | 1 << 18;
    let mut boot_vp = booted(2)?;
    let mut others = start_others(&mut boot_vp)?;
    let first = boot_vp.processor().vcpu().state(VTL1);
    for vtl0 in std::iter::once(&mut boot_vp).chain(&mut others) {
        let vp = vtl0.processor().vp();
        let state = vtl0.processor().vcpu().state(VTL1);
        ensure!(state.cr0 & (CR0_WP | CR0_PG_PE) == CR0_WP | CR0_PG_PE, "VP {vp}: CR0 {:#x}", state.cr0);
        ensure!(
            state.cr4 & CR4_MCE_SMEP_SMAP == CR4_MCE_SMEP_SMAP && state.cr4 & CR4_PAE != 0,
            "VP {vp}: CR4 {:#x}",
            state.cr4
        );
        ensure!(state.efer & EFER_NXE != 0, "VP {vp}: EFER {:#x}", state.efer);
        ensure!(state.rflags & RFLAGS_IF_AC == 0, "VP {vp}: RFLAGS {:#x}", state.rflags);
        ensure!(
            state.cr3 == first.cr3 && state.cr4 == first.cr4 && state.cr0 == first.cr0,
            "VP {vp} differs from VP 0"
        );
    }
    Ok(())
}

/// While VTL1 copies from VTL0's memory it has a window onto one frame; between calls it has none.
#[test]
fn machine_closes_the_windows_onto_vtl0s_memory() -> Result<()> {
    use vsm_sim::machine::Stop;
    use vsm_sim::vtl0::lists::{Range, write_list};
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let map = machine.config().map;
    let range = Range::direct(512 << 20, (512 << 20) + PAGE, 1);
    let list = vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, &[range]))?;
    let registers = vtl0.call_registers(F::ProtectMemory.id(), list.pa, list.nranges, 0);
    vtl0.go_to(vtl0.call_site(), &registers);
    let mut windows = 0;
    for step in 0..200_000u32 {
        match vtl0.processor().step()? {
            Stop::Stepped(_) => {}
            Stop::Done => break,
            other => anyhow::bail!("the call ended in {other:x?}"),
        }
        // A walk is slow: not at every step.
        if step % 16 == 0 {
            let state = vtl0.processor().vcpu().state(VTL1);
            let outside: Vec<_> =
                mappings(&machine, &state)?.into_iter().filter(|mapping| !in_region(&map, mapping.pa)).collect();
            ensure!(outside.len() <= 1, "more than one window: {outside:x?}");
            for window in outside {
                ensure!(window.size == PAGE && window.pa == list.pa, "{window:x?} instead of the list's page");
                ensure!(!window.executable && !window.user && !window.writable, "a window for reading: {window:x?}");
                windows += 1;
            }
        }
    }
    ensure!(windows > 0, "the list was read through no window");
    ensure!(vtl0.processor().vcpu().shared().r8 == 0, "ProtectMemory failed");
    checked(&mut vtl0)?;
    Ok(())
}
