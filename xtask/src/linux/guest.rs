//! Boots what was prepared, and says what came of it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use vsm_sim::linux::{End, Linux, Outcome};

use super::Guest;
use super::options::Options;
use super::record::{Inner, Record, Telling};
use super::shell::Terminal;
use super::steps::Verdict;
use crate::report::{Report, Step};

/// A guest that says nothing for so long hangs: the longest step of a slow machine is far shorter.
const SILENCE: Duration = Duration::from_mins(2);
/// Longest run of the steps.
const LIMIT: Duration = Duration::from_mins(30);
/// Longest run with somebody at the keyboard, who may do nothing for long.
const SHELL_LIMIT: Duration = Duration::from_hours(24);
/// Lines of Linux's console that are shown when something went wrong.
const LAST_LINES: usize = 25;

/// Boots the guest, prints what came of it, and fails unless that is what must come.
///
/// # Errors
/// The machine does not start, or the run is not as it must be: every reason is named.
pub fn run(root: &Path, options: &Options, guest: &Guest) -> Result<()> {
    let own = options.kernel.is_some();
    println!(
        "booting {} with {} processors{}, {} MiB of memory",
        guest.release,
        options.vps,
        // QEMU 7.2 loses text that one processor patches while another runs on another thread.
        if options.vps > 1 { " on one thread" } else { "" },
        options.mem >> 20
    );
    let machine = Linux::new(vsm_sim::linux::Options {
        vps: options.vps,
        memory: options.mem,
        count: options.count,
        one_thread: options.vps > 1,
        trace: options.trace,
        watchdog: if options.shell { SHELL_LIMIT } else { SILENCE },
        limit: if options.shell { SHELL_LIMIT } else { LIMIT },
        ..vsm_sim::linux::Options::new(guest.kernel.clone(), guest.initrd.clone(), options.command_line())
    })?;
    let telling = Telling { everything: options.trace, console: own, nothing: options.shell };
    let record = Arc::new(Record::new(telling));
    let terminal = if options.shell { Some(Terminal::take(machine.input()?)?) } else { None };
    let partition = Arc::clone(machine.machine());
    let (observed, wants_maps) = (Arc::clone(&record), options.report.is_some());
    let outcome = machine.run(Arc::new(move |at, event| {
        if let Some(terminal) = &terminal {
            terminal.show(&event);
        }
        observed.take(at, event, || wants_maps.then(|| partition.partition().effective_protections()));
    }))?;

    let inner = record.inner();
    write_consoles(root, &inner)?;
    let failures = failures(options, &outcome, &inner);
    print_result(options, &outcome, &inner);
    if let Some(file) = &options.report {
        report(options, guest, &outcome, &inner, failures.is_empty()).write(file)?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    let lines = &inner.consoles[0];
    if !own && !options.trace {
        println!("--- the end of Linux's console ---");
        lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).for_each(|line| println!("{}", line.text));
    }
    bail!("the run is not as it must be:\n{}", failures.join("\n"))
}

/// Keeps both consoles in `target/linux`, with times.
fn write_consoles(root: &Path, inner: &Inner) -> Result<()> {
    for (name, lines) in ["vtl0.log", "vtl1.log"].into_iter().zip(&inner.consoles) {
        let lines: Vec<String> = lines.iter().map(|line| format!("[{:9.1} ms] {}", line.at, line.text)).collect();
        let directory = root.join("target").join("linux");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), lines.join("\n") + "\n")?;
    }
    Ok(())
}

/// Every reason why a run is not as it must be.
fn failures(options: &Options, outcome: &Outcome, inner: &Inner) -> Vec<String> {
    let mut failures =
        if options.kernel.is_some() || options.shell { Vec::new() } else { inner.played.failures(&options.steps()) };
    // Somebody's own kernel may end as it likes, but orderly.
    let orderly = match outcome.end {
        End::PowerOff => true,
        End::Reboot | End::Halted => options.kernel.is_some(),
        _ => false,
    };
    if !orderly {
        failures.push(outcome.end.to_string());
    }
    failures.extend(outcome.reports.iter().map(|text| format!("not defined by the TLFS: {text}")));
    failures
}

fn print_result(options: &Options, outcome: &Outcome, inner: &Inner) {
    if options.kernel.is_some() {
        println!("--- the VSM calls of this kernel ---\n{}", inner.calls_table());
    } else if !inner.played.parts.is_empty() {
        println!("--- what Linux did, and what came of it ---\n{}", inner.steps_table());
    }
    for (name, (count, refused, cost)) in inner.calls() {
        println!("{name:<26} {count:>6} calls, {refused:>4} refused, {cost:>9.1} ms in VTL1");
    }
    let count = |verdict| inner.played.parts.iter().filter(|part| part.verdict == verdict).count();
    println!(
        "{}: {:.1} s, {:.1} s of processor time, {} exits, {} VTL calls; {} ok, {} open, {} failed",
        outcome.end,
        outcome.seconds,
        outcome.processor_seconds,
        outcome.exits.values().sum::<u64>(),
        outcome.calls,
        count(Verdict::Ok),
        count(Verdict::Open),
        count(Verdict::Fail)
    );
}

fn report(options: &Options, guest: &Guest, outcome: &Outcome, inner: &Inner, is_good: bool) -> Report {
    let exits = outcome.exits.iter().map(|(name, count)| format!("{name}: {count}"));
    let facts = [
        ("kernel", guest.release.clone()),
        ("command line", options.command_line()),
        ("processors", options.vps.to_string()),
        ("memory", format!("{} MiB", options.mem >> 20)),
        ("end", outcome.end.to_string()),
        ("time", format!("{:.1} s; processor time {:.1} s", outcome.seconds, outcome.processor_seconds)),
        ("VTL calls", outcome.calls.to_string()),
        ("exits", exits.collect::<Vec<_>>().join(", ")),
    ];
    let steps = inner.played.parts.iter().map(|part| Step {
        at: part.at.as_secs_f64() * 1000.0,
        name: part.name.clone(),
        text: part.text.clone(),
        verdict: match part.verdict {
            Verdict::Ok => "ok",
            Verdict::Fail => "fail",
            Verdict::Open => "open",
        },
    });
    Report {
        title: format!("Linux {} beside VTL1", guest.release),
        facts: facts.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        is_good,
        unit: "ms",
        steps: steps.collect(),
        switches: inner.switches.clone(),
        consoles: inner.consoles.clone(),
        maps: inner.maps.clone(),
    }
}
