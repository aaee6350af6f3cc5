//! The life of modules that depend on each other: made-up ones, and real ones where the captures are.

use anyhow::{Context, Result, ensure};
use iced_x86::code_asm::{al, byte_ptr, rbx};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::Stop;
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::made_up::MadeUpKernel;
use vsm_sim::vtl0::modules::{FILE, Module, PATCHES, Placed, chain};

use crate::setup::Linux;

const EBUSY: i64 = -16;
const EINVAL: i64 = -22;
/// #GP's vector.
const GENERAL_PROTECTION: u64 = 13;
/// of the 64 KiB of a stack so much at least must remain.
const SPARE_STACK: u64 = 16 << 10;

/// Whether VTL0's instruction ends well, or in a #GP.
fn allowed(stop: &Stop) -> Result<bool> {
    match stop {
        Stop::Done => Ok(true),
        Stop::Exception(exception) if exception.vector == GENERAL_PROTECTION => Ok(false),
        other => anyhow::bail!("{other:x?}"),
    }
}

/// VTL0 writes a byte of a page; what it writes is what is there.
fn may_write(linux: &mut Linux, page: u64) -> Result<bool> {
    let mut byte = [0];
    vsm_sim::vtl0::bytes::read(linux.vtl0.machine().ram(), page, &mut byte)?;
    let registers = SharedState { rbx: page, rax: u64::from(byte[0]), ..SharedState::default() };
    allowed(&linux.vtl0.run(&registers, |asm| asm.mov(byte_ptr(rbx), al))?)
}

/// Checks by real stores that each page of the module may be written, or not, as the contract says.
fn check_stores(linux: &mut Linux, placed: &Placed, initialised: bool, unloaded: bool) -> Result<()> {
    let memory: Vec<_> = placed.memory().collect();
    for (kind, page) in memory {
        let late = initialised && kind == litebox_platform_lvbs::owner::ModuleMemoryKind::RoAfterInit;
        let open = unloaded || (initialised && kind.is_init()) || !(kind.is_explained() || late);
        ensure!(
            may_write(linux, page)? == open,
            "{kind:?} at {page:#x}: a store is {}",
            if open { "refused" } else { "allowed" }
        );
    }
    for page in placed.pages(FILE).iter().chain(placed.pages(PATCHES)) {
        ensure!(may_write(linux, *page)?, "the file's or the sites' page {page:#x} stays closed");
    }
    Ok(())
}

/// The modules' whole life; each uses those before it, as `uses` says.
fn live(kernel: &KernelData, modules: &[Module]) -> Result<()> {
    let (mut linux, _other) = Linux::boot(kernel)?;
    let mut loaded: Vec<(Placed, i64)> = Vec::new();
    for (number, module) in modules.iter().enumerate() {
        let placed = linux.place(module, [0, 0x128][number % 2])?;
        linux.paint_stack()?;
        let result = linux.call(F::ValidateModule, &placed.ranges)?;
        let stack = linux.used_stack()?;
        ensure!(result.value > 0, "{}: {}\n{}", module.name, result.value, linux.console());
        let size: usize = module.parts.iter().map(|part| part.bytes.len()).sum();
        println!(
            "ValidateModule of {}: {} KiB of file, {} KiB of memory, {} ranges: {} instructions, {stack} bytes of stack",
            module.name,
            module.file.len() >> 10,
            size >> 10,
            placed.ranges.len(),
            result.instructions
        );
        ensure!(stack > 0 && stack < (64 << 10) - SPARE_STACK, "{stack} bytes of stack");
        check_stores(&mut linux, &placed, false, false).with_context(|| module.name.clone())?;
        ensure!(linux.free_init(result.value)? == 0, "FreeModuleInit of {}", module.name);
        ensure!(linux.free_init(result.value)? == EBUSY, "a second FreeModuleInit of {}", module.name);
        check_stores(&mut linux, &placed, true, false).with_context(|| module.name.clone())?;
        loaded.push((placed, result.value));
    }
    // The wrong order: whoever is used stays, and all of it.
    for (module, (placed, token)) in modules.iter().zip(&loaded) {
        if modules.iter().any(|other| other.uses.contains(&module.name)) {
            ensure!(linux.unload(*token)? == EBUSY, "{} goes before those that use it", module.name);
            check_stores(&mut linux, placed, true, false).with_context(|| module.name.clone())?;
        }
    }
    for (module, (placed, token)) in modules.iter().zip(&loaded).rev() {
        ensure!(linux.unload(*token)? == 0, "{} does not go\n{}", module.name, linux.console());
        ensure!(linux.unload(*token)? == EINVAL, "{} goes twice", module.name);
        check_stores(&mut linux, placed, true, true).with_context(|| module.name.clone())?;
    }
    // What the first exported has gone: the last can't be loaded now.
    let (placed, _) = loaded.last().context("a module")?;
    ensure!(linux.call(F::ValidateModule, &placed.ranges)?.value == EINVAL, "the last without the others");
    Ok(())
}

#[test]
fn machine_made_up_modules_live_and_go() -> Result<()> {
    let kernel = MadeUpKernel::new(2000)?;
    live(&kernel.data, &[kernel.first, kernel.second])
}

#[test]
fn machine_real_modules_live_and_go() -> Result<()> {
    let archives = captures::archives()?;
    let Some(archive) = archives.last() else {
        println!("SKIPPED: there are no captures of real modules beside the repository");
        return Ok(());
    };
    let set = Set::open(archive)?;
    let all: Vec<Module> = (0..set.len()).map(|index| Module::captured(&set.module(index)?)).collect::<Result<_>>()?;
    let modules = chain(&all);
    ensure!(modules.len() >= 3, "{} modules", modules.len());
    live(&Capture::open(archive)?.kernel_data(0x800_0000)?, &modules)
}

#[test]
fn machine_runs_the_init_text_of_a_module_while_there_is_one() -> Result<()> {
    let kernel = MadeUpKernel::new(300)?;
    let (mut linux, _other) = Linux::boot(&kernel.data)?;
    let placed = linux.place(&kernel.first, 0)?;
    // xor %eax,%eax; ret
    let init = placed.pages(4)[0];
    let site = linux.vtl0.call_site();
    let run = |linux: &mut Linux| {
        let stop = linux.vtl0.run_at(site, &SharedState { rax: init, ..SharedState::default() })?;
        allowed(&stop)
    };
    ensure!(!run(&mut linux)?, "it runs before it has been validated");
    let token = linux.call(F::ValidateModule, &placed.ranges)?.value;
    ensure!(token == 1 && run(&mut linux)?, "it does not run\n{}", linux.console());
    ensure!(linux.free_init(token)? == 0 && !run(&mut linux)?, "it runs once it has been freed");
    ensure!(linux.unload(token)? == 0, "UnloadModule");
    // Again and again: nothing is used up.
    for round in 0..60 {
        let token = linux.call(F::ValidateModule, &placed.ranges)?.value;
        ensure!(token == round + 2, "round {round}: {token}\n{}", linux.console());
        ensure!(linux.unload(token)? == 0, "round {round}");
    }
    Ok(())
}
