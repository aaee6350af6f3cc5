//! The life of modules that depend on each other: made-up ones, and real ones where the captures are.

use anyhow::{Context, Result, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::made_up::MadeUpKernel;
use vsm_sim::vtl0::modules::{FILE, Module, PATCHES, Placed, chain};

use crate::linux::Linux;
use crate::setup::is_carried_out;

/// Checks by real stores that each page of the module may be written, or not, as the contract says.
fn check_stores(linux: &mut Linux, placed: &Placed, initialised: bool, unloaded: bool) -> Result<()> {
    let memory: Vec<_> = placed.memory().collect();
    for (kind, page) in memory {
        let late = initialised && kind == litebox_platform_lvbs::owner::ModuleMemoryKind::RoAfterInit;
        let open = unloaded || (initialised && kind.is_init()) || !(kind.is_explained() || late);
        linux.check_store(&format!("{kind:?}"), page, open)?;
    }
    for page in placed.pages(FILE).iter().chain(placed.pages(PATCHES)) {
        linux.check_store("the file or the sites", *page, true)?;
    }
    Ok(())
}

/// The modules' whole life; each uses those before it, as `uses` says.
fn live(kernel: &KernelData, modules: &[Module]) -> Result<()> {
    let (mut linux, _other) = Linux::boot(kernel)?;
    let mut loaded: Vec<(Placed, i64)> = Vec::new();
    for (number, module) in modules.iter().enumerate() {
        let placed = linux.place(module, [0, 0x128][number % 2])?;
        let (result, stack) = linux.call_on_painted_stack(F::ValidateModule, &placed.ranges)?;
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
        check_stores(&mut linux, &placed, false, false).with_context(|| module.name.clone())?;
        ensure!(linux.free_init(result.value)? == 0, "FreeModuleInit of {}", module.name);
        ensure!(
            linux.free_init(result.value)? == Errno::Ebusy.to_result(),
            "a second FreeModuleInit of {}",
            module.name
        );
        check_stores(&mut linux, &placed, true, false).with_context(|| module.name.clone())?;
        loaded.push((placed, result.value));
    }
    // The wrong order: a module that another one uses stays, with all its memory.
    for (module, (placed, token)) in modules.iter().zip(&loaded) {
        if modules.iter().any(|other| other.uses.contains(&module.name)) {
            ensure!(linux.unload(*token)? == Errno::Ebusy.to_result(), "{} goes before those that use it", module.name);
            check_stores(&mut linux, placed, true, false).with_context(|| module.name.clone())?;
        }
    }
    for (module, (placed, token)) in modules.iter().zip(&loaded).rev() {
        ensure!(linux.unload(*token)? == 0, "{} does not go\n{}", module.name, linux.console());
        ensure!(linux.unload(*token)? == Errno::Einval.to_result(), "{} goes twice", module.name);
        check_stores(&mut linux, placed, true, true).with_context(|| module.name.clone())?;
    }
    // What the first exported has gone: the last can't be loaded now.
    let (placed, _) = loaded.last().context("a module")?;
    ensure!(
        linux.call(F::ValidateModule, &placed.ranges)?.value == Errno::Einval.to_result(),
        "the last without the others"
    );
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
        is_carried_out(&stop)
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
