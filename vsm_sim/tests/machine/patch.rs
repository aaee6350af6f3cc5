//! PatchText in the unmodified image: two processors at once, on a real kernel's sites where the captures are.

use std::sync::{Arc, Barrier};

use anyhow::{Context, Result, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::machine::{Machine, Vtl0};
use vsm_sim::random::SplitMix;
use vsm_sim::trials::run::measure_patch::{MOST_SITES, step_cost};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::{KernelData, Site, patch_record};
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::made_up::MadeUpKernel;
use vsm_sim::vtl0::modules::Frames;
use vsm_sim::vtl0::patcher::{Form, INT3, Patch, bytes_of, place_of, poke, poke_code};

use crate::setup::{booted_counting, call, call_with_list, enable_others, end_boot, start_other};

/// Where the kernel's text lies, where it ends, and where modules are placed: beyond VTL0's scratch memory.
const TEXT: u64 = 0x1000_0000;
const TEXT_END: u64 = 0x1400_0000;
const MODULES: (u64, u64) = (0x1800_0000, 0x1900_0000);
/// READ and EXEC (LVBS contract §5.1).
const EXECUTABLE: u64 = 5;
/// Switches of each processor's static calls, at random; each is up to three calls.
const RANDOM_SWITCHES: u64 = 150;

/// A site and the instructions that it is switched between.
struct Switch {
    site: Site,
    codes: [Vec<u8>; 2],
}

/// The sites of a captured kernel, or some across pages and within.
fn kernel_sites() -> Result<Vec<Site>> {
    let Some(archive) = captures::archives()?.pop() else {
        println!("SKIPPED: there are no captures of real kernels beside the repository; sites are made up");
        let site = |index: u64| {
            let pa = TEXT + 0x3fd * index;
            let next = (pa / 4096 + 1) * 4096;
            Site { pa, next_page: if pa + 5 > next { next } else { 0 }, jump: [0xe9, 1, 2, 3, 4], size: 5 }
        };
        return Ok((0..4000).map(site).collect());
    };
    Capture::open(&archive)?.sites(TEXT)
}

fn patch(vtl0: &mut Vtl0, request: u64, step: Patch) -> Result<i64> {
    bytes::write(vtl0.machine().ram(), request, &step.to_bytes())?;
    call(vtl0, F::PatchText, [request, 0, 0])
}

fn site_bytes(machine: &Machine, site: &Site) -> Result<Vec<u8>> {
    let mut found = vec![0; usize::from(site.size)];
    for (index, byte) in (0..).zip(&mut found) {
        bytes::read(machine.ram(), place_of(site, index), std::slice::from_mut(byte))?;
    }
    Ok(found)
}

/// What one processor switches: jump labels, and static calls.
struct Share {
    labels: Vec<Switch>,
    calls: Vec<Switch>,
}

/// Switches each label once, in order, and between them calls at random; looks at each after each step. The number of
/// switches.
fn switch(vtl0: &mut Vtl0, request: u64, share: &mut Share, seed: u64) -> Result<u64> {
    let machine = vtl0.machine();
    let mut random = SplitMix(seed);
    let mut one = |number: u64, Switch { site, codes }: &mut Switch| -> Result<()> {
        codes.swap(0, 1);
        let [code, now] = codes;
        let stages = [[&[INT3], &now[1..]].concat(), [&[INT3], &code[1..]].concat(), code.clone()];
        for (step, stage) in poke_code(site, code).into_iter().zip(stages) {
            let result = patch(vtl0, request, step)?;
            ensure!(result == 0, "switch {number}, {site:x?}: {step:x?} returned {result}");
            let found = site_bytes(&machine, site)?;
            ensure!(found == stage, "switch {number}, {site:x?}: {found:x?} where {stage:x?} must be");
        }
        Ok(())
    };
    let between = (share.labels.len() as u64 / RANDOM_SWITCHES).max(1);
    let mut number = 0;
    for (index, label) in (0..).zip(&mut share.labels) {
        one(number, label)?;
        number += 1;
        if index % between == 0 {
            let chosen = usize::try_from(random.next() % share.calls.len() as u64)?;
            one(number, &mut share.calls[chosen])?;
            number += 1;
        }
    }
    Ok(number)
}

#[test]
fn machine_two_processors_switch_thousands_of_sites() -> Result<()> {
    let mut vtl0 = booted_counting(2)?;
    let machine = vtl0.machine();
    enable_others(&mut vtl0)?;
    let mut other = start_other(&vtl0, 1)?;
    let sites = kernel_sites()?;
    let kernel = MadeUpKernel::new(300)?;
    let mut frames = Frames::scattered(MODULES.0, MODULES.1, 5);
    let data = KernelData { patches: patch_record(&sites), ..kernel.data };
    let ranges = data.write(machine.ram(), || frames.take())?;
    ensure!(call_with_list(&mut vtl0, F::LoadKData, &ranges)? == 0, "LoadKData");
    let mut recorded: Vec<Switch> = Vec::new();
    for site in &sites {
        let codes = [Form::Jump, Form::Nop].map(|form| bytes_of(site, form));
        for (index, byte) in (0..).zip(&codes[0]) {
            bytes::write(machine.ram(), place_of(site, index), &[*byte])?;
        }
        recorded.push(Switch { site: *site, codes });
    }
    ensure!(
        call_with_list(&mut vtl0, F::ProtectMemory, &[Range::direct(TEXT, TEXT_END, EXECUTABLE)])? == 0,
        "ProtectMemory"
    );
    end_boot(&mut vtl0)?;
    let placed = kernel.first.place(machine.ram(), &mut frames, 0)?;
    ensure!(
        call_with_list(&mut vtl0, F::ValidateModule, &placed.ranges)? == 1,
        "{}",
        machine.console_lines().join("\n")
    );
    for switch in &recorded {
        ensure!(site_bytes(&machine, &switch.site)? == switch.codes[0], "{:x?}", switch.site);
    }
    // Every second one: a kernel has some 6,000, which take minutes where processors are shared.
    let mut switches: Vec<Switch> = recorded.into_iter().step_by(2).collect();
    ensure!(switches.len() > 1900, "{} labels are not thousands", switches.len());
    ensure!(switches.iter().any(|switch| switch.site.next_page != 0), "no site crosses a page");
    // A processor has the first half, the other the second one.
    let mut calls: Vec<Switch> = Vec::new();
    for call in &kernel.first.calls {
        let site = placed.place_of(call.va, call.compiled.len())?;
        calls.push(Switch { site, codes: [call.compiled.clone(), call.direct.clone()] });
    }
    let others = Share { labels: switches.split_off(switches.len() / 2), calls: calls.split_off(calls.len() / 2) };
    let (mut mine, mut others) = (Share { labels: switches, calls }, others);
    let mut before = vec![0; usize::try_from(TEXT_END - TEXT)?];
    bytes::read(machine.ram(), TEXT, &mut before)?;
    let requests = [0, 1].map(|_| vtl0.with_scratch(|scratch| scratch.pages(1)));
    let [first, second] = requests.map(|page| page.map(|page| page + 0x123));
    let (first, second) = (first?, second?);
    let start = Arc::new(Barrier::new(2));
    let done = std::thread::scope(|scope| -> Result<u64> {
        let thread = scope.spawn({
            let (start, other, others) = (Arc::clone(&start), &mut other, &mut others);
            move || {
                start.wait();
                switch(other, second, others, 2)
            }
        });
        start.wait();
        let result = switch(&mut vtl0, first, &mut mine, 1);
        Ok(thread.join().expect("no panic").context("the second processor")? + result?)
    })
    .with_context(|| machine.console_lines().join("\n"))?;
    // Nothing but the sites has changed, and they are as they must be.
    let mut after = vec![0; before.len()];
    bytes::read(machine.ram(), TEXT, &mut after)?;
    let all = [&mine.labels, &mine.calls, &others.labels, &others.calls];
    for Switch { site, codes } in all.into_iter().flatten() {
        ensure!(site_bytes(&machine, site)? == codes[0], "{site:x?}");
        for index in 0..u64::from(site.size) {
            let place = place_of(site, index);
            if (TEXT..TEXT_END).contains(&place) {
                let place = usize::try_from(place - TEXT)?;
                after[place] = before[place];
            }
        }
    }
    ensure!(before == after, "text has changed outside of the sites");
    let changed = mine.labels.iter().chain(&others.labels);
    ensure!(changed.clone().all(|label| label.codes[0] == bytes_of(&label.site, Form::Nop)), "a label has not changed");
    println!("{done} switches on two processors: {} labels once, calls at random", changed.count());
    // A few more by one processor, to count.
    let Switch { site, codes } = &mine.labels[0];
    let mut instructions = Vec::new();
    for step in poke_code(site, &codes[1]) {
        bytes::write(machine.ram(), first, &step.to_bytes())?;
        let result = vtl0.vtl_call(F::PatchText.id(), first, 0, 0)?;
        ensure!(result.value == 0, "{step:x?}");
        instructions.push(result.instructions);
    }
    println!("the three steps take {instructions:?} instructions");
    Ok(())
}

#[test]
fn machine_a_step_costs_hardly_more_with_many_sites() -> Result<()> {
    let mut costs = Vec::new();
    for sites in [100, 10_000, MOST_SITES] {
        costs.push((sites, step_cost(&mut booted_counting(1)?, sites)?));
    }
    println!("recorded sites, and instructions of a step: {costs:?}");
    let [(_, few), _, (_, many)] = costs[..] else { anyhow::bail!("three costs") };
    ensure!(many < few * 2, "{costs:?}: the look-up grows with the number of sites");
    Ok(())
}

/// A refused step changes nothing, whatever processor it comes from: the image's own words for some of the hosted tests' table.
#[test]
fn machine_refuses_what_is_no_step() -> Result<()> {
    let mut vtl0 = booted_counting(1)?;
    let machine = vtl0.machine();
    let site = Site { pa: TEXT + 0xffe, next_page: TEXT + 0x1000, jump: [0xe9, 1, 2, 3, 4], size: 5 };
    for (index, byte) in (0..).zip(site.jump) {
        bytes::write(machine.ram(), place_of(&site, index), &[byte])?;
    }
    let data = KernelData { patches: patch_record(&[site]), ..KernelData::made_up(20, 1).0 };
    let mut frames = Frames::consecutive(MODULES.0, MODULES.1);
    let ranges = data.write(machine.ram(), || frames.take())?;
    ensure!(call_with_list(&mut vtl0, F::LoadKData, &ranges)? == 0, "LoadKData");
    ensure!(
        call_with_list(&mut vtl0, F::ProtectMemory, &[Range::direct(TEXT, TEXT_END, EXECUTABLE)])? == 0,
        "ProtectMemory"
    );
    end_boot(&mut vtl0)?;
    let request = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    let [int3, tail, head] = poke(&site, Form::Nop);
    let region = machine.config().map.region_start;
    for (what, step, errno) in [
        ("the tail first", tail, Errno::Einval),
        ("the head first", head, Errno::Einval),
        ("size 0", Patch { size: 0, ..int3 }, Errno::Einval),
        ("size 6", Patch { size: 6, ..int3 }, Errno::Einval),
        ("a neighbour", Patch { pa: [site.pa - 1, 0], ..int3 }, Errno::Einval),
        ("VTL1", Patch { pa: [region, 0], ..int3 }, Errno::Eacces),
        ("ordinary memory", Patch { pa: [TEXT_END, 0], ..int3 }, Errno::Enoent),
        ("no address", Patch { pa: [u64::MAX, 0], ..int3 }, Errno::Efault),
    ] {
        let result = patch(&mut vtl0, request, step)?;
        ensure!(result == errno.to_result(), "{what}: {result}");
        ensure!(site_bytes(&machine, &site)? == site.jump, "{what}: something was written");
    }
    ensure!(patch(&mut vtl0, request, int3)? == 0 && site_bytes(&machine, &site)?[0] == INT3, "the first step");
    Ok(())
}
