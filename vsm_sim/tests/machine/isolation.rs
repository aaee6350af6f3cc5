//! VTL0 cannot reach VTL1's memory after the first return: not by its instructions, not through the hypervisor, not
//! through its page tables.

use anyhow::{Context, Result, ensure};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, qword_ptr, rax, rbx};
use litebox_platform_lvbs::hv::{HypercallCode, HypercallControl, MapFlags, msr};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, elf};
use vsm_sim::engine::SharedState;
use vsm_sim::machine::guest::{HYPERCALL_PAGE, PML4};
use vsm_sim::machine::{Machine, Stop, Vtl0};
use vsm_sim::vtl0::bytes::{read_u64, write_u64};
use vsm_sim::vtl0::memory_map::{MemoryMap, SCRATCH_START};

use crate::setup::{boot, booted, call, config, console, image, must_fault, must_fault_at};

const PAGE: u64 = 4096;
/// Nothing that VTL1 would write by itself.
const PATTERN: u64 = 0x5A17_C0DE_5A17_C0DE;

/// First and last bytes of VTL1's region, of the loader's pages, of each segment of the image, and of what lies between
/// and behind them, where heap and stacks are.
fn places(map: &MemoryMap) -> Result<Vec<(String, u64)>> {
    let endian = LittleEndian;
    let header = elf::FileHeader64::<LittleEndian>::parse(image())?;
    let mut places = vec![
        ("first page".to_owned(), map.region_start),
        ("second page".to_owned(), map.region_start + PAGE),
        ("boot stack".to_owned(), map.region_start + 0xDFF0),
        ("heap in front of the image".to_owned(), map.region_start + 0x10_0000),
        ("end of the first 16 MiB".to_owned(), map.region_start + (16 << 20) - 8),
        ("memory behind the first 16 MiB".to_owned(), map.region_start + (16 << 20)),
        ("last page".to_owned(), map.region_end() - PAGE),
        ("last bytes".to_owned(), map.region_end() - 8),
    ];
    for segment in header.program_headers(endian, image())? {
        if segment.p_type(endian) == elf::PT_LOAD && segment.p_memsz(endian) != 0 {
            // Linked at 2 MiB, loaded 2 MiB into the region (contract §2.6).
            let start = map.region_start + segment.p_paddr(endian);
            let end = (start + segment.p_memsz(endian)) & !7;
            places.push((format!("segment at {:#x}", segment.p_paddr(endian)), start));
            places.push((format!("end of the segment at {:#x}", segment.p_paddr(endian)), end - 8));
            places.push((format!("behind the segment at {:#x}", segment.p_paddr(endian)), end.next_multiple_of(PAGE)));
        }
    }
    ensure!(places.len() > 12, "the image has too few segments: {places:?}");
    Ok(places)
}

/// Reads, writes and executes at every place.
fn attack(vtl0: &mut Vtl0) -> Result<()> {
    let machine = vtl0.machine();
    for (what, address) in places(&machine.config().map)? {
        let registers = SharedState { rbx: address, rax: PATTERN, ..SharedState::default() };
        let before = read_u64(machine.ram(), address)?;
        must_fault(vtl0, &format!("reading the {what}"), &registers, |asm| asm.mov(rax, qword_ptr(rbx)))?;
        let now = vtl0.processor().vcpu().shared().rax;
        ensure!(now == PATTERN, "reading the {what}: RAX has become {now:#x}");
        must_fault(vtl0, &format!("writing the {what}"), &registers, |asm| asm.mov(qword_ptr(rbx), rax))?;
        must_fault(vtl0, &format!("changing the {what}"), &registers, |asm| asm.lock().xadd(qword_ptr(rbx), rax))?;
        let jump = vtl0.place(|asm| asm.jmp(rbx))?;
        must_fault_at(vtl0, &format!("executing the {what}"), &registers, jump, address)?;
        let after = read_u64(machine.ram(), address)?;
        ensure!(after == before || after != PATTERN, "the {what} has been written");
        ensure!(after & 0xff != PATTERN & 0xff || after == before, "the {what} has been written in part");
    }
    Ok(())
}

#[test]
fn machine_keeps_vtl0_out_after_the_first_return() -> Result<()> {
    let mut vtl0 = booted(2)?;
    attack(&mut vtl0).with_context(|| console(&vtl0.machine()))
}

/// VTL0's list covers all RAM; and after the end of boot nothing is different.
#[test]
fn machine_keeps_vtl0_out_after_protect_memory_and_the_end_of_boot() -> Result<()> {
    use vsm_sim::vtl0::lists::write_list;
    use vsm_sim::vtl0::ranges::boot_ranges;
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let ranges = boot_ranges(&machine.config().map, 20, 1);
    let list = vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, &ranges))?;
    ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs");
    ensure!(call(&mut vtl0, F::ProtectMemory, [list.pa, list.nranges, 0])? == 0, "{}", console(&machine));
    ensure!(call(&mut vtl0, F::SignalEndOfBoot, [0; 3])? == 0, "SignalEndOfBoot");
    attack(&mut vtl0).with_context(|| console(&machine))
}

/// An access that begins in VTL0's memory and ends in VTL1's.
#[test]
fn machine_keeps_accesses_across_the_border_out() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let map = vtl0.machine().config().map;
    let registers = SharedState { rbx: map.region_start - 4, rax: PATTERN, ..SharedState::default() };
    let before = read_u64(vtl0.machine().ram(), map.region_start)?;
    must_fault(&mut vtl0, "reading across the border", &registers, |asm| asm.mov(rax, qword_ptr(rbx)))?;
    must_fault(&mut vtl0, "writing across the border", &registers, |asm| asm.mov(qword_ptr(rbx), rax))?;
    ensure!(read_u64(vtl0.machine().ram(), map.region_start)? == before, "VTL1's first bytes have changed");
    Ok(())
}

fn header(vp: u32) -> Vec<u8> {
    let mut bytes = u64::MAX.to_le_bytes().to_vec();
    bytes.extend_from_slice(&vp.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// The hypervisor reads parameters and writes results for VTL0 only where VTL0 may.
#[test]
fn machine_does_not_let_a_hypercall_reach_vtl1s_memory() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let region = machine.config().map.region_start;
    // HvCallGetVpRegisters of RIP: from a good input page to VTL1's memory, and the other way round.
    let mut input = header(0xffff_fffe);
    input.extend_from_slice(&0x0002_0010u32.to_le_bytes());
    vsm_sim::vtl0::bytes::write(machine.ram(), SCRATCH_START, &input)?;
    let control = HypercallControl::new(HypercallCode::GET_VP_REGISTERS).with_reps(1).raw();
    for page in [region, region + 0x20_0000, region + (16 << 20), machine.config().map.region_end() - PAGE] {
        let before = [read_u64(machine.ram(), page)?, read_u64(machine.ram(), page + 8)?];
        for (rdx, r8) in [(SCRATCH_START, page), (page, SCRATCH_START + PAGE), (page, page)] {
            let registers = SharedState { rcx: control, rdx, r8, rax: HYPERCALL_PAGE, ..SharedState::default() };
            let site = vtl0.call_site();
            let stop = vtl0.run_at(site, &registers)?;
            let status = vtl0.processor().vcpu().shared().rax & 0xffff;
            ensure!(stop != Stop::Done || status != 0, "a hypercall with parameters at {rdx:#x}, {r8:#x} succeeded");
        }
        let after = [read_u64(machine.ram(), page)?, read_u64(machine.ram(), page + 8)?];
        ensure!(after == before, "a hypercall has written to {page:#x}");
    }
    Ok(())
}

/// VTL0 cannot give itself what VTL1 has taken.
#[test]
fn machine_refuses_vtl0_the_protection_hypercall() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let before = machine.partition().effective_protections();
    // Target VTL: the caller's own, VTL0, VTL1.
    for target in [0u8, 0x10, 0x11, 1] {
        let mut input = u64::MAX.to_le_bytes().to_vec();
        input.extend_from_slice(&MapFlags::ALL.bits().to_le_bytes());
        input.extend_from_slice(&[target, 0, 0, 0]);
        input.extend_from_slice(&(machine.config().map.region_start >> 12).to_le_bytes());
        let control = HypercallControl::new(HypercallCode::MODIFY_VTL_PROTECTION_MASK).with_reps(1);
        let (result, _) = vtl0.hypercall(control, &input, 0)?;
        ensure!(!result.status().is_success(), "target {target:#x}: {}", result.status());
    }
    ensure!(machine.partition().effective_protections() == before, "VTL0 has changed protections");
    attack(&mut vtl0)
}

/// The hypercall page and the SynIC's and assist pages are memory the hypervisor writes for VTL0.
#[test]
fn machine_does_not_place_vtl0s_pages_over_vtl1() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let place = machine.config().map.region_start + 0x20_0000;
    let before = read_u64(machine.ram(), place)?;
    for number in [msr::HYPERCALL, msr::VP_ASSIST_PAGE, msr::SIMP, msr::SIEFP] {
        let stop = vtl0.write_msr(number, place | 1)?;
        ensure!(stop != Stop::Done, "MSR {number:#x} takes a page of VTL1's");
        ensure!(read_u64(machine.ram(), place)? == before, "MSR {number:#x}: VTL1's code has changed");
    }
    Ok(())
}

/// Page tables may lie anywhere; a walk that comes to VTL1's memory ends there.
#[test]
fn machine_does_not_let_page_walks_read_vtl1s_memory() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let region = machine.config().map.region_start;
    // Entries of VTL0's top-level table for addresses it does not use otherwise.
    for (slot, table) in [(100, region), (101, region + 0x2000), (102, machine.config().map.region_end() - PAGE)] {
        let entry = PML4 + slot * 8;
        write_u64(machine.ram(), entry, table | 0x63)?;
        let before = read_u64(machine.ram(), table)?;
        let registers = SharedState { rbx: slot << 39, rax: PATTERN, ..SharedState::default() };
        must_fault(&mut vtl0, "a read through VTL1's memory", &registers, |asm| asm.mov(rax, qword_ptr(rbx)))?;
        must_fault(&mut vtl0, "a write through VTL1's memory", &registers, |asm| asm.mov(qword_ptr(rbx), rax))?;
        ensure!(read_u64(machine.ram(), table)? == before, "the walk has set bits in {table:#x}");
    }
    Ok(())
}

/// The list names VTL1's own memory, as a place where to find ranges and as what to protect.
#[test]
fn machine_does_not_let_a_call_name_vtl1s_memory() -> Result<()> {
    use vsm_sim::vtl0::lists::{Range, write_list};
    const READ_WRITE_EXECUTE: u64 = 7;
    let mut vtl0 = boot(config(1), vsm_sim::vtl0::loader::Generation::G3, 1)?;
    let machine = vtl0.machine();
    let map = machine.config().map;
    let before = machine.partition().effective_protections();
    for pa in [map.region_start, map.region_start + 0x20_0000, map.region_end() - PAGE] {
        ensure!(call(&mut vtl0, F::ProtectMemory, [pa, 1, 0])? < 0, "a list at {pa:#x} is taken");
        ensure!(call(&mut vtl0, F::EnableAPsVtl, [pa >> 12, 0, 0])? < 0, "a mask at {pa:#x} is taken");
    }
    let ranges = [Range::direct(map.region_start - PAGE, map.region_end(), READ_WRITE_EXECUTE)];
    let list = vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, &ranges))?;
    call(&mut vtl0, F::ProtectMemory, [list.pa, list.nranges, 0])?;
    ensure!(machine.partition().effective_protections() == before, "ProtectMemory has opened VTL1's memory");
    attack(&mut vtl0)
}

/// What is tried above works on memory that is VTL0's: the snippets themselves are right.
#[test]
fn machine_lets_vtl0_use_its_own_memory() -> Result<()> {
    type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let bodies: [Body; 3] = [
        |asm| asm.mov(rax, qword_ptr(rbx)),
        |asm| asm.mov(qword_ptr(rbx), rax),
        |asm| asm.lock().xadd(qword_ptr(rbx), rax),
    ];
    let mut vtl0 = booted(1)?;
    let registers = SharedState { rbx: SCRATCH_START, rax: PATTERN, ..SharedState::default() };
    for body in bodies {
        vtl0.must_run(&registers, body)?;
    }
    let machine: &Machine = &vtl0.machine();
    ensure!(read_u64(machine.ram(), SCRATCH_START)? == PATTERN.wrapping_mul(2), "the writes are not in memory");
    Ok(())
}
