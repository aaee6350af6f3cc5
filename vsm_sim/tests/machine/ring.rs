//! The log ring, the limits of the log and the end of boot in the unmodified image.

use anyhow::{Result, ensure};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, cr4, qword_ptr, rax, rbx};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::{Stop, VTL1, Vtl0};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::lists::{Range, write_list};

use crate::log_ring::Ring;
use crate::setup::{booted_counting, call, enable_others, end_boot, is_fault, start_other};

/// CR4.SMEP, which VTL0 has set and a lock pins.
const CR4_SMEP: u64 = 1 << 20;
/// Where VTL1 has the ring, and how its page tables say so (Intel SDM vol. 3 §4.5.4).
const RING_ADDRESS: u64 = 0xFFFF_FFFF_7000_0000;

fn with_rbx(value: u64) -> SharedState {
    SharedState { rbx: value, ..SharedState::default() }
}

fn flip_smep(asm: &mut CodeAssembler) -> Result<(), IcedError> {
    asm.mov(rax, cr4)?;
    asm.xor(rax, rbx)?;
    asm.mov(cr4, rax)
}

/// Lets VTL1 log about `count` lines, of several lengths.
fn make_lines(vtl0: &mut Vtl0, count: u64) -> Result<()> {
    let machine = vtl0.machine();
    let range = Range::direct(512 << 20, (512 << 20) + 4096, 1);
    let list = vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, &[range]))?;
    for index in 0..count {
        match index % 3 {
            0 => ensure!(call(vtl0, F::ProtectMemory, [list.pa, list.nranges, 0])? == 0, "ProtectMemory"),
            1 => ensure!(call(vtl0, F::ProtectMemory, [list.pa + index % 4096, list.nranges, 0])? < 0, "misaligned"),
            _ => ensure!(vtl0.vtl_call(index << 40, 0, 0, 0)?.value == Errno::Einval.to_result(), "an id that is none"),
        }
    }
    Ok(())
}

#[test]
fn machine_the_reader_in_vtl0_follows_the_console() -> Result<()> {
    let mut vtl0 = booted_counting(1)?;
    let mut ring = Ring::allocate(&mut vtl0, 1)?;
    let mut lines = Vec::new();
    // Often enough that nothing is lost, for several times the ring's size.
    for _ in 0..120 {
        make_lines(&mut vtl0, 9)?;
        let poll = ring.poll(&vtl0);
        ensure!(poll.lost == 0, "{} lines lost", poll.lost);
        lines.extend(poll.lines);
    }
    let shown: Vec<String> = lines.iter().map(vsm_sim::vtl0::log_reader::LogLine::on_console).collect();
    ensure!(shown == ring.console(&vtl0), "ring:\n{}\nconsole:\n{}", shown.join("\n"), ring.console(&vtl0).join("\n"));
    ensure!(shown.iter().map(String::len).sum::<usize>() > 3 * 4096, "only {} lines: no wrap", shown.len());
    ensure!(shown[0].starts_with("vtl1: log ring: 4 KiB at "), "{}", shown[0]);
    // A reader that comes late gets the newest lines, and knows what it has missed.
    make_lines(&mut vtl0, 200)?;
    let late = ring.poll(&vtl0);
    let console = ring.console(&vtl0);
    ensure!(late.lost > 0 && late.lost as usize + late.lines.len() + shown.len() == console.len(), "{late:?}");
    let late: Vec<String> = late.lines.iter().map(vsm_sim::vtl0::log_reader::LogLine::on_console).collect();
    ensure!(console.ends_with(&late), "{late:?}");
    Ok(())
}

#[test]
fn machine_vtl0_reads_the_ring_and_cannot_write_it() -> Result<()> {
    let mut vtl0 = booted_counting(1)?;
    let ring = Ring::allocate(&mut vtl0, 16)?;
    for address in [ring.start, ring.start + 0xfff8, ring.start + 0x8000] {
        let read = vtl0.run(&with_rbx(address), |asm| asm.mov(rax, qword_ptr(rbx)))?;
        ensure!(read == Stop::Done, "reading {address:#x} ended in {read:x?}");
        let written = vtl0.run(&with_rbx(address), |asm| asm.mov(qword_ptr(rbx), rbx))?;
        ensure!(is_fault(&written), "writing {address:#x} ended in {written:x?}");
        let executed = vtl0.run(&with_rbx(address), |asm| asm.jmp(rbx))?;
        ensure!(is_fault(&executed), "executing {address:#x} ended in {executed:x?}");
        ensure!(bytes::read_u64(vtl0.machine().ram(), address)? != address, "{address:#x} was written");
    }
    // The neighbours are as they were.
    for address in [ring.start - 8, ring.start + 0x1_0000] {
        let written = vtl0.run(&with_rbx(address), |asm| asm.mov(qword_ptr(rbx), rbx))?;
        ensure!(written == Stop::Done, "writing {address:#x} ended in {written:x?}");
    }
    Ok(())
}

#[test]
fn machine_the_ring_is_mapped_once_and_not_executable() -> Result<()> {
    let mut vtl0 = booted_counting(1)?;
    ensure!(leaf(&mut vtl0, RING_ADDRESS)?.is_none(), "mapped before there is a ring");
    let ring = Ring::allocate(&mut vtl0, 700)?;
    for page in [0, 1, 511, 512, 699] {
        let entry = leaf(&mut vtl0, RING_ADDRESS + page * 4096)?.unwrap_or_default();
        ensure!(entry & 0x000f_ffff_ffff_f000 == ring.start + page * 4096, "page {page}: entry {entry:#x}");
        ensure!(entry >> 63 == 1 && entry & 0b110 == 0b010, "page {page}: entry {entry:#x} is not NX, RW, supervisor");
    }
    for page in [700, 701, 4095] {
        ensure!(leaf(&mut vtl0, RING_ADDRESS + page * 4096)?.is_none(), "page {page} is mapped");
    }
    // Another one is refused, and the mapping stays.
    let other = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    ensure!(
        call(&mut vtl0, F::AllocateRingbufferMemory, [other, 4096, 0])? == Errno::Ebusy.to_result(),
        "a second ring"
    );
    ensure!(leaf(&mut vtl0, RING_ADDRESS)?.is_some(), "the ring is gone");
    Ok(())
}

/// The last-level entry that maps `va` in VTL1's tables, if it is present.
fn leaf(vtl0: &mut Vtl0, va: u64) -> Result<Option<u64>> {
    let machine = vtl0.machine();
    let mut table = vtl0.processor().vcpu().state(VTL1).cr3;
    for shift in [39, 30, 21, 12] {
        let entry = bytes::read_u64(machine.ram(), (table & 0x000f_ffff_ffff_f000) + (va >> shift & 511) * 8)?;
        if entry & 1 == 0 {
            return Ok(None);
        }
        ensure!(shift == 12 || entry & 1 << 7 == 0, "{va:#x} lies in a large page");
        table = entry;
    }
    Ok(Some(table))
}

#[test]
fn machine_a_processor_not_locked_at_the_end_of_boot_is_locked_when_it_is_seen() -> Result<()> {
    let mut boot_vp = booted_counting(3)?;
    enable_others(&mut boot_vp)?;
    let mut unlocked = start_other(&boot_vp, 1)?;
    ensure!(call(&mut boot_vp, F::LockRegs, [0; 3])? == 0, "LockRegs");
    // As long as the boot lasts, a processor that did not ask for it is not locked, whatever it calls.
    ensure!(call(&mut unlocked, F::OpteeMessage, [u64::MAX, 0, 0])? == Errno::Efault.to_result(), "OpteeMessage");
    let stop = unlocked.run(&with_rbx(CR4_SMEP), flip_smep)?;
    ensure!(stop == Stop::Done, "CR4 is pinned during boot: {stop:x?}");
    ensure!(unlocked.run(&with_rbx(CR4_SMEP), flip_smep)? == Stop::Done, "back");
    end_boot(&mut boot_vp)?;

    ensure!(unlocked.vtl_call(0, 0, 0, 0)?.value == Errno::Einval.to_result(), "any entry will do");
    let stop = unlocked.run(&with_rbx(CR4_SMEP), flip_smep)?;
    ensure!(is_fault(&stop), "CR4 is not pinned after the end of boot: {stop:x?}");
    // One that VTL1 sees for the first time.
    let mut late = start_other(&boot_vp, 2)?;
    let stop = late.run(&with_rbx(CR4_SMEP), flip_smep)?;
    ensure!(is_fault(&stop), "CR4 is not pinned on a processor that came late: {stop:x?}");

    let console = boot_vp.machine().console_lines();
    for vp in [1, 2] {
        let line =
            format!("vtl1: warning: the registers of VP {vp} were not locked before the end of boot; they are now");
        ensure!(console.iter().filter(|printed| **printed == line).count() == 1, "{}", console.join("\n"));
    }
    ensure!(console.iter().any(|line| line.starts_with("vtl1: end of boot: registers of 1 of 3")), "{console:?}");
    Ok(())
}

/// The processor that ends the boot without having been locked is locked by the time it is back.
#[test]
fn machine_the_end_of_boot_locks_its_own_processor() -> Result<()> {
    let mut vtl0 = booted_counting(1)?;
    end_boot(&mut vtl0)?;
    let stop = vtl0.run(&with_rbx(CR4_SMEP), flip_smep)?;
    ensure!(is_fault(&stop), "{stop:x?}");
    Ok(())
}

#[test]
fn machine_a_storm_of_violations_costs_bounded_log_work() -> Result<()> {
    const STORM: usize = 1000;
    let mut vtl0 = booted_counting(1)?;
    let mut ring = Ring::allocate(&mut vtl0, 16)?;
    let before = vtl0.machine().console_lines().len();
    let address = vtl0.place(|asm| asm.mov(qword_ptr(rbx), rbx))?;
    let mut costs = Vec::new();
    for _ in 0..STORM {
        let so_far = vtl0.processor().vtl1_instructions();
        let stop = vtl0.run_at(address, &with_rbx(ring.start))?;
        ensure!(is_fault(&stop), "{stop:x?}");
        costs.push(vtl0.processor().vtl1_instructions() - so_far);
    }
    let lines = vtl0.machine().console_lines().len() - before;
    // 8 at first, then at 16, 32, 64, 128, 256, 512.
    ensure!(lines == 8 + 6, "{lines} lines");
    ensure!(ring.poll(&vtl0).lines.len() == 1 + lines, "the ring has others");
    let (logged, silent) = (costs[0], costs[STORM - 1]);
    println!("a violation: {logged} instructions with its line, {silent} without");
    ensure!(silent * 2 < logged, "a violation costs {silent} instructions without a line, {logged} with one");
    Ok(())
}
