//! Every captured module through the image, in the order in which the real kernel loaded them: accepted, each of its static
//! calls and jump labels poked there and back, initialised, and unloaded in the end.
//!
//! The captures are test data that lie beside the repository; without them nothing is tested here, and that is printed.

use anyhow::{Context, Result, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::owner::ModuleMemoryKind as Kind;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::{Access, Engine};
use vsm_sim::machine::{Machine, VTL0};
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::Site;
use vsm_sim::vtl0::modules::{Call, FILE, Module, PATCHES, Placed};
use vsm_sim::vtl0::patcher::{place_of, poke_batch, poke_code};

use crate::linux::Linux;
use crate::pokes::Pokes;

/// What a site is to be.
type Poke = (Site, Vec<u8>);

/// What was done with a set.
#[derive(Debug, Default)]
struct Done {
    modules: usize,
    calls: usize,
    counted: usize,
    labels: usize,
    thunk_pages: usize,
}

/// The text of a module, page after page.
fn text_of(machine: &Machine, placed: &Placed) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (_, page) in placed.memory().filter(|(kind, _)| kind.is_text()) {
        let at = text.len();
        text.resize(at + 4096, 0);
        bytes::read(machine.ram(), page, &mut text[at..])?;
    }
    Ok(text)
}

fn site_bytes(machine: &Machine, site: &Site) -> Result<Vec<u8>> {
    let mut found = vec![0; usize::from(site.size)];
    for (index, byte) in (0..).zip(&mut found) {
        bytes::read(machine.ram(), place_of(site, index), std::slice::from_mut(byte))?;
    }
    Ok(found)
}

/// How far a module has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Accepted,
    Initialised,
    /// Its init parts are others' by then.
    Unloaded,
}

/// Checks that VTL0's kernel has the rights of the contract to each page: at the hypervisor, on the processors, and by real
/// stores to one page of each kind.
fn check_rights(linux: &mut Linux, placed: &Placed, stage: Stage) -> Result<()> {
    let machine = linux.vtl0.machine();
    let rights = |kind: Kind| match (stage, kind) {
        (Stage::Unloaded, _) => Permission::RW,
        (Stage::Initialised, Kind::RoAfterInit) => Permission::R,
        (Stage::Initialised, kind) if kind.is_init() => Permission::RW,
        (_, kind) if kind.is_text() => Permission::RX,
        (_, kind) if kind.is_explained() => Permission::R,
        _ => Permission::RW,
    };
    let thunks = placed.thunks().map(|page| (Kind::Text, page));
    let memory = placed.memory().chain(thunks).filter(|(kind, _)| stage != Stage::Unloaded || !kind.is_init());
    let mut last = None;
    for (kind, page) in memory {
        let expected = rights(kind).map_flags();
        let found = machine.partition().protection(page >> 12);
        ensure!(found == expected, "{kind:?} at {page:#x} is {found}, not {expected}");
        let there = machine.engine().access(VTL0, page >> 12)?.context("RAM")?;
        let [read, write, execute, user_execute] =
            [MapFlags::READ, MapFlags::WRITE, MapFlags::KERNEL_EXECUTE, MapFlags::USER_EXECUTE]
                .map(|flag| expected.contains(flag));
        ensure!(
            there == Access { read, write, execute, user_execute },
            "{kind:?} at {page:#x} is {expected}, not {there:?}"
        );
        if last.replace(kind) != Some(kind) {
            linux.check_store(&format!("{kind:?}"), page, write)?;
        }
    }
    Ok(())
}

/// The other instruction of each site: what the kernel made of a static call, or a NOP where it left it; the jump or the NOP of
/// a jump label.
fn others(machine: &Machine, placed: &Placed, module: &Module, calls: &[&Call]) -> Result<Vec<(Poke, Vec<u8>)>> {
    let mut pokes = Vec::new();
    for call in calls {
        let site = placed.place_of(call.va, call.compiled.len())?;
        let is_left = call.direct == call.compiled && call.compiled[0] == 0xe8;
        let other = if is_left { vec![0x0f, 0x1f, 0x44, 0, 0] } else { call.direct.clone() };
        ensure!(site_bytes(machine, &site)? == call.compiled, "{:#x}", call.va);
        pokes.push(((site, other), call.compiled.clone()));
    }
    for label in &module.labels {
        let site = placed.place_of(label.va, label.jump.len())?;
        let nop: &[u8] = if label.jump.len() == 2 { &[0x66, 0x90] } else { &[0x0f, 0x1f, 0x44, 0, 0] };
        let now = site_bytes(machine, &site)?;
        let other = if now == nop { label.jump.clone() } else { nop.to_vec() };
        pokes.push(((site, other), now));
    }
    Ok(pokes)
}

/// Pokes every site of a module to its other instruction and back, as Linux does it: in batches. Calls that count are refused,
/// and put back.
fn poke_all(linux: &mut Linux, pokes: &Pokes, module: &Module, placed: &Placed, done: &mut Done) -> Result<()> {
    let machine = linux.vtl0.machine();
    let counts = linux.console().contains("(retbleed=stuff)");
    let (counted, calls): (Vec<&Call>, Vec<&Call>) =
        module.calls.iter().partition(|call| counts && call.counted_function().is_some());
    let before = text_of(&machine, placed)?;
    for call in &counted {
        let site = placed.place_of(call.va, call.compiled.len())?;
        let [int3, tail, _] = poke_code(&site, &call.direct);
        let [_, old_tail, old_head] = poke_code(&site, &call.compiled);
        let answers = pokes.run(&mut linux.vtl0, &[int3, tail, old_tail, old_head])?;
        ensure!(answers == [0, Errno::Einval.to_result(), 0, 0], "{call:x?}: {answers:?}");
    }
    let all = others(&machine, placed, module, &calls)?;
    let there: Vec<Poke> = all.iter().map(|(poke, _)| poke.clone()).collect();
    pokes.must(&mut linux.vtl0, &poke_batch(&there))?;
    for (site, code) in &there {
        ensure!(site_bytes(&machine, site)? == *code, "{site:x?} is not {code:x?}");
    }
    ensure!(there.is_empty() || text_of(&machine, placed)? != before, "nothing has changed");
    let back: Vec<Poke> = all.into_iter().map(|((site, _), now)| (site, now)).collect();
    pokes.must(&mut linux.vtl0, &poke_batch(&back))?;
    ensure!(text_of(&machine, placed)? == before, "text is not as it was");
    done.calls += calls.len();
    done.counted += counted.len();
    done.labels += module.labels.len();
    Ok(())
}

/// The whole life of each module of a set.
fn live(which: usize) -> Result<()> {
    let archives = captures::all_archives()?;
    let Some(archive) = archives.get(which) else {
        println!("SKIPPED: there are no captures of real modules beside the repository");
        return Ok(());
    };
    let set = Set::open(archive)?;
    let mut linux = Linux::boot_captured(&Capture::open(archive)?)?;
    let pokes = Pokes::new(&linux.vtl0)?;
    let mut loaded: Vec<(String, Placed, i64)> = Vec::new();
    let mut done = Done::default();
    for index in 0..set.len() {
        let module = Module::captured(&set.module(index)?)?;
        let name = module.name.clone();
        let placed = linux.place(&module, [0, 0x7f8][index % 2])?;
        let token = linux.call(F::ValidateModule, &placed.ranges)?.value;
        ensure!(token > 0, "{name}: {token}\n{}", linux.console());
        check_rights(&mut linux, &placed, Stage::Accepted).with_context(|| name.clone())?;
        placed.free(&mut linux.frames, |kind| kind == FILE || kind == PATCHES);
        poke_all(&mut linux, &pokes, &module, &placed, &mut done).with_context(|| name.clone())?;
        ensure!(linux.free_init(token)? == 0, "FreeModuleInit of {name}");
        check_rights(&mut linux, &placed, Stage::Initialised).with_context(|| name.clone())?;
        placed.free(&mut linux.frames, |kind| (4..FILE).contains(&kind));
        done.modules += 1;
        done.thunk_pages += placed.thunks().count();
        loaded.push((name, placed, token));
    }
    for (name, placed, token) in loaded.iter().rev() {
        ensure!(linux.unload(*token)? == 0, "UnloadModule of {name}\n{}", linux.console());
        check_rights(&mut linux, placed, Stage::Unloaded).with_context(|| name.clone())?;
    }
    println!("{}: {done:?}", set.name());
    ensure!(done.modules == set.len() && done.calls + done.counted > 0 && done.labels > 0, "{done:?}");
    Ok(())
}

#[test]
fn machine_modules_of_the_first_set() -> Result<()> {
    live(0)
}

#[test]
fn machine_modules_of_the_second_set() -> Result<()> {
    live(1)
}

#[test]
fn machine_modules_of_6_12_against_its() -> Result<()> {
    live(2)
}

#[test]
fn machine_modules_of_6_12() -> Result<()> {
    live(3)
}

#[test]
fn machine_modules_of_6_12_that_count_calls() -> Result<()> {
    live(4)
}
