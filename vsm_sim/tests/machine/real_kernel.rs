//! What a real LVBS kernel sends that the contract did not say (§11), to the unmodified image.

use anyhow::{Result, ensure};
use iced_x86::code_asm::{al, byte_ptr, rbx};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::hv::Refusal;
use vsm_sim::machine::guest::HYPERCALL_PAGE;
use vsm_sim::machine::{Machine, MachineConfig, Vtl0};
use vsm_sim::trials::run::{Heki, Options, run};
use vsm_sim::vtl0::authenticode;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::kexec::{Image, KERNEL};
use vsm_sim::vtl0::lists::{Filling, Range, list_pages, write_list};
use vsm_sim::vtl0::loader::Generation;
use vsm_sim::vtl0::made_up::{MODULES, MadeUp, MadeUpKernel};
use vsm_sim::vtl0::memory_map::LEGACY_HOLE;
use vsm_sim::vtl0::modules::{PATCHES, Placed};
use vsm_sim::vtl0::patcher::Patch;
use vsm_sim::vtl0::ranges::{Kernel, READ_EXECUTE, READ_ONLY, READ_WRITE, kernel_ranges, last_attributes};
use vsm_sim::vtl0::records::Records;
use vsm_sim::vtl0::signer::Signer;

use crate::image::image;
use crate::linux::Linux;
use crate::setup::{
    boot, booted, call, call_with_list, config, console, end_boot, is_carried_out, small_map, start_others,
};

/// How many of VTL1's lines say `what`.
fn told(machine: &Machine, what: &str) -> usize {
    machine.console_lines().iter().filter(|line| line.contains(what)).count()
}

#[test]
fn machine_serves_the_lives_of_real_kernels() -> Result<()> {
    for (kernel, generation, cpus) in [
        (Kernel::NoKaslr, Generation::G2, 1),
        (Kernel::NoKaslr, Generation::G3, 3),
        (Kernel::Kaslr, Generation::G2, 2),
        (Kernel::Kaslr, Generation::G3, 4),
    ] {
        let heki = Heki::Kernel(kernel);
        let report = run(&Options { generation, cpus, heki, memory: 1 << 30, ..Options::default() }, image())?;
        let (failures, console) = (report.failures(), report.console());
        ensure!(failures.is_empty(), "{kernel:?}, {generation:?}: {failures:#?}\n{}", console.join("\n"));
        let told = |what: &str| console.iter().filter(|line| line.contains(what)).count();
        // The hypercall page alone is writable and executable, and so only where its last naming does not say otherwise.
        let closed = "end of boot: 1 frames of the kernel were writable and executable: now only executable";
        ensure!(told(closed) == usize::from(kernel == Kernel::NoKaslr), "{}", console.join("\n"));
        ensure!(told("are as they were, most likely no memory") == 1, "{}", console.join("\n"));
        ensure!(told("named by no ProtectMemory") == 0, "{}", console.join("\n"));
    }
    Ok(())
}

/// Holes in the middle of ranges, however the hypervisor refuses them: everything else is protected, and real stores show it.
#[test]
fn machine_protects_all_that_is_memory() -> Result<()> {
    for (refusal, kernel) in [(Refusal::AtFrame, Kernel::NoKaslr), (Refusal::WholeList, Kernel::Kaslr)] {
        let map = small_map(2).with_legacy_hole();
        let mut vtl0 = boot(MachineConfig::new(map, 2), Generation::G2, 2)?;
        let machine = vtl0.machine();
        machine.partition().set_refusal(refusal);
        let ranges = kernel_ranges(&map, kernel, HYPERCALL_PAGE);
        ensure!(call_with_list(&mut vtl0, F::ProtectMemory, &ranges)? == 0, "{}", console(&machine));
        end_boot(&mut vtl0)?;
        for pa in (0..map.end_of_ram()).step_by(4096) {
            let rights = machine.partition().protection(pa >> 12);
            let expected = match last_attributes(&ranges, pa) {
                _ if (map.region_start..map.region_end()).contains(&pa) => MapFlags::NONE,
                _ if LEGACY_HOLE.contains(&pa) => MapFlags::ALL,
                Some(READ_ONLY) => MapFlags::READ_ONLY,
                Some(READ_WRITE) => MapFlags::READ_WRITE,
                Some(READ_EXECUTE) => MapFlags::READ_EXECUTE,
                _ if pa == HYPERCALL_PAGE => MapFlags::READ_EXECUTE,
                other => anyhow::bail!("{pa:#x} ends with {other:?}"),
            };
            ensure!(rights == expected, "{refusal:?}: {pa:#x} is {rights}, not {expected}\n{}", console(&machine));
        }
        let frames = (LEGACY_HOLE.end - LEGACY_HOLE.start) >> 12;
        let frames = frames + if kernel == Kernel::Kaslr { 2 } else { 0 };
        let line = format!("ProtectMemory: {frames} frames in ");
        ensure!(told(&machine, &line) == 1, "{refusal:?}: {line}\n{}", console(&machine));
        // Beside the hole, and the kernel's text.
        let beside = LEGACY_HOLE.start - 4096;
        for (page, may_write) in [(beside, true), (HYPERCALL_PAGE, false)] {
            let registers = SharedState { rbx: page, ..SharedState::default() };
            let written = is_carried_out(&vtl0.run(&registers, |asm| asm.mov(byte_ptr(rbx), al))?)?;
            ensure!(written == may_write, "{refusal:?}: a store to {page:#x} is carried out: {written}");
        }
        let registers = SharedState { rbx: beside, ..SharedState::default() };
        ensure!(!is_carried_out(&vtl0.run(&registers, |asm| asm.jmp(rbx))?)?, "data beside the hole are executed");
    }
    Ok(())
}

/// Behind the first 127 ranges the driver's pages hold one each: as many as were seen.
#[test]
fn machine_takes_a_list_of_one_range_a_page() -> Result<()> {
    const LIST: u64 = 0x1000_0000;
    const NAMED: u64 = 0x2000_0000;
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let ranges: Vec<Range> =
        (0..8748).map(|index| NAMED + 0x2000 * index).map(|pa| Range::direct(pa, pa + 0x1000, READ_ONLY)).collect();
    let pages = list_pages(LIST, &ranges, Filling::Driver);
    ensure!(pages.len() == 8622, "{} pages", pages.len());
    for (at, page) in (LIST..).step_by(4096).zip(&pages) {
        bytes::write(machine.ram(), at, page)?;
    }
    ensure!(call(&mut vtl0, F::ProtectMemory, [LIST, 8748, 0])? == 0, "{}", console(&machine));
    for range in &ranges {
        let [named, beside] = [range.pa, range.epa].map(|pa| machine.partition().protection(pa >> 12));
        ensure!((named, beside) == (MapFlags::READ_ONLY, MapFlags::ALL), "{:#x}: {named}, {beside}", range.pa);
    }
    Ok(())
}

/// The sites of modules that were refused where the next one is loaded come along with it.
#[test]
fn machine_passes_over_the_patch_sites_of_dead_modules() -> Result<()> {
    let kernel = MadeUpKernel::new(300)?;
    let (mut linux, _other) = Linux::boot(&kernel.data)?;
    let mut records = Records::default();
    let mut changed = kernel.first.clone();
    changed.file[0x100] ^= 1;
    let ram = linux.vtl0.machine().ram().clone();
    for _ in 0..3 {
        let refused = records.place(&changed, &ram, &mut linux.frames, (MODULES, 0))?;
        let errno = linux.call(F::ValidateModule, &refused.ranges)?.value;
        ensure!(errno == Errno::Ekeyrejected.to_result(), "{errno}\n{}", linux.console());
        refused.free(&mut linux.frames, |kind| kind != PATCHES);
    }
    let placed = records.place(&kernel.first, &ram, &mut linux.frames, (MODULES, 0))?;
    ensure!(placed.objects.iter().filter(|object| object.kind == PATCHES).count() == 4, "four records");
    let token = linux.call(F::ValidateModule, &placed.ranges)?.value;
    ensure!(token == 1, "{token}\n{}", linux.console());
    // Its own sites are known, those of the dead are not.
    let request = linux.vtl0.with_scratch(|scratch| scratch.pages(1))?;
    for site in placed.sites(&kernel.first)? {
        let int3 = Patch { pa: [site.pa, 0], size: 1, code: [0xcc, 0, 0, 0, 0] };
        bytes::write(&ram, request, &int3.to_bytes())?;
        ensure!(call(&mut linux.vtl0, F::PatchText, [request, 0, 0])? == 0, "{site:x?}\n{}", linux.console());
    }
    Ok(())
}

/// The kernel's build key is no authority and may sign keys nevertheless; a key that such a key has signed is told why not.
#[test]
fn machine_takes_a_key_that_the_build_key_has_signed() -> Result<()> {
    let mut kernel = MadeUpKernel::new(300)?;
    let build = Signer::issued_by("a build key", &kernel.signer)?;
    let added = Signer::issued_by("an administrator's key", &build)?;
    let below = Signer::issued_by("a key below it", &added)?;
    kernel.data.certificates = build.certificate().to_vec();
    let (mut linux, _other) = Linux::boot(&kernel.data)?;
    let made_up = MadeUp { name: "vendor".into(), calls: kernel.helper.clone(), start: MODULES, text_pages: 2 };
    let module = linux.place(&made_up.signed(&added)?, 0)?;
    let validate = |linux: &mut Linux| Ok::<_, anyhow::Error>(linux.call(F::ValidateModule, &module.ranges)?.value);
    ensure!(validate(&mut linux)? == Errno::Enokey.to_result(), "{}", linux.console());
    for (certificate, expected) in [(added.certificate(), 0), (below.certificate(), Errno::Ekeyrejected.to_result())] {
        let mut placed = Placed::default();
        let ram = linux.vtl0.machine().ram().clone();
        placed.put(&ram, &mut linux.frames, 0, 0xffff_c900_3000_0ff0, certificate)?;
        let result = linux.call(F::CopySecondaryKey, &placed.ranges)?.value;
        ensure!(result == expected, "{result}, not {expected}\n{}", linux.console());
    }
    ensure!(validate(&mut linux)? == 1, "{}", linux.console());
    let machine = linux.vtl0.machine();
    ensure!(told(&machine, "a key of the kernel's that is no authority signed it") == 1, "{}", linux.console());
    ensure!(told(&machine, "is not an authority for it (-EKEYREJECTED)") == 1, "{}", linux.console());
    Ok(())
}

/// Linux asks for every write to text, thousands of times where VTL1 protects nothing; a write to text that VTL1 does not know
/// is told.
#[test]
fn machine_makes_no_line_of_what_linux_may_write_itself() -> Result<()> {
    const TEXT: u64 = 0x1000_0000;
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let text = Range::direct(TEXT, TEXT + 0x10_0000, READ_EXECUTE);
    ensure!(call_with_list(&mut vtl0, F::ProtectMemory, &[text])? == 0, "{}", console(&machine));
    let list = vtl0.with_scratch(|scratch| {
        let ranges = KernelData::made_up(20, 1).0.write(machine.ram(), || scratch.pages(1))?;
        write_list(machine.ram(), scratch, &ranges)
    })?;
    ensure!(call(&mut vtl0, F::LoadKData, [list.pa, list.nranges, 0])? == 0, "{}", console(&machine));
    end_boot(&mut vtl0)?;
    let request = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    let mut patch = |pa: u64| {
        bytes::write(machine.ram(), request, &Patch { pa: [pa, 0], size: 1, code: [0x3e, 0, 0, 0, 0] }.to_bytes())?;
        call(&mut vtl0, F::PatchText, [request, 0, 0])
    };
    let before = machine.console_lines().len();
    for index in 0..200 {
        ensure!(patch(text.epa + 0x40 * index)? == Errno::Enoent.to_result(), "{}", console(&machine));
    }
    ensure!(machine.console_lines().len() == before, "{}", console(&machine));
    ensure!(patch(TEXT + 0x40)? == Errno::Einval.to_result(), "{}", console(&machine));
    ensure!(machine.console_lines().len() == before + 1, "{}", console(&machine));
    Ok(())
}

/// VTL0 takes VTL1's region for memory like any other: the line about an image there names the cure.
#[test]
fn machine_names_the_cure_for_an_image_over_vtl1() -> Result<()> {
    let signer = Signer::authority("kernels")?;
    let file = authenticode::sign(&authenticode::made_up(0x3456, 1), &signer)?;
    let data = KernelData { certificates: signer.certificate().to_vec(), ..KernelData::default() };
    let (mut linux, _other) = Linux::boot(&data)?;
    let machine = linux.vtl0.machine();
    let mut image = Image::new(&file, 0x800_0000, false)?;
    image.segments[KERNEL].start = machine.config().map.region_start;
    let placed = image.place(machine.ram(), &mut linux.frames)?;
    let result = linux.call_with(F::KexecValidate, &placed.ranges, placed.flag())?.value;
    ensure!(result == Errno::Eacces.to_result(), "{result}\n{}", linux.console());
    ensure!(told(&machine, "boot with securekernel=SIZE@ADDR") == 1, "{}", linux.console());
    Ok(())
}

/// VTL1 leaves no reserved field unclear; VTL0's driver does, which only a hypervisor that checks them minds.
#[test]
fn machine_boots_beside_a_driver_that_clears_no_page() -> Result<()> {
    let machine = Machine::new(config(2))?;
    machine.partition().check_reserved_fields();
    ensure!(Vtl0::new(&machine).is_err(), "a strict hypervisor takes the driver's hypercalls");
    let mut vtl0 = booted(2)?;
    let mut others = start_others(&mut vtl0)?;
    let machine = vtl0.machine();
    machine.partition().check_reserved_fields();
    for vtl0 in std::iter::once(&mut vtl0).chain(&mut others) {
        ensure!(call(vtl0, F::LockRegs, [0; 3])? == 0, "{}", console(&machine));
    }
    let ranges = [Range::direct(0x1000_0000, 0x1010_0000, READ_ONLY)];
    ensure!(call_with_list(&mut vtl0, F::ProtectMemory, &ranges)? == 0, "{}", console(&machine));
    end_boot(&mut vtl0)?;
    ensure!(machine.partition().reports().is_empty(), "{:?}", machine.partition().reports());
    Ok(())
}
