//! `cargo xtask validate-capture`: what VTL1's code says about modules that a real kernel has loaded.
//!
//! A capture set is the signed modules of one boot with the bytes that the kernel made of them. Every module must be accepted, and
//! with `--mutate` every change of it refused.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tabled::builder::Builder;
use tabled::settings::object::{Columns, Object, Rows};
use tabled::settings::{Alignment, Style};
use vsm_integrity::module::{Reason, Statistics};
use vsm_sim::trials::validate::accept::{Acceptance, Meter, Outcome};
use vsm_sim::trials::validate::mutate::{self, Extent, Mutations};
use vsm_sim::trials::validate::set::{self, Set};

/// What to look at, and how closely.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Capture sets: a set's directory, its `.tar.zst`, or a directory of them.
    #[arg(required = true)]
    pub places: Vec<PathBuf>,
    /// Flip each bit of that many bytes of each module, and give every relocation another target: all must be refused.
    #[arg(long, value_name = "BYTES")]
    pub mutate: Option<usize>,
    /// With `--mutate`: change only one in so many relocations.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub every: usize,
    /// Time `openssl dgst -sha256` on the largest files as well.
    #[arg(long)]
    pub openssl: bool,
}

/// Goes through all sets and prints a row for each module.
pub fn run(options: &Options, meter: &impl Meter) -> Result<()> {
    let mut failures = 0;
    for place in &options.places {
        for set in set::find(place)? {
            failures += one_set(&set, options, meter)?;
        }
    }
    ensure!(failures == 0, "{failures} modules were not as they must be");
    Ok(())
}

/// Goes through a set; returns how many modules failed.
fn one_set(place: &Path, options: &Options, meter: &impl Meter) -> Result<usize> {
    let set = Set::open(place)?;
    let mut acceptance = Acceptance::new(&set)?;
    let mut rows = Builder::default();
    // Reasons that no byte of the set has are left out.
    let mut outcomes = Vec::new();
    let mut changes = Vec::new();
    loop {
        let exports = options.mutate.map(|_| acceptance.exports().clone());
        let Some((captured, outcome)) = acceptance.step(meter)? else { break };
        if let (Some(bytes), Some(exports), Ok(_)) = (options.mutate, &exports, &outcome.result) {
            let extent = Extent { bytes, relocations: options.every };
            let start = Instant::now();
            let mutations = {
                let kernel = set.kernel(exports, acceptance.texts())?;
                mutate::run(&captured, kernel, exports, acceptance.habits(), extent)?
            };
            changes.push((captured.name.clone(), mutations, start.elapsed()));
        }
        outcomes.push((outcome, captured.file));
    }
    let mut total = Statistics::default();
    let mut time = Duration::ZERO;
    for (outcome, _) in &outcomes {
        total += outcome.result.clone().unwrap_or_default();
        time += outcome.time;
    }
    let reasons: Vec<Reason> = Reason::ALL.into_iter().filter(|reason| total.get(*reason) != 0).collect();
    let mut head = vec!["module".to_owned(), "file".to_owned()];
    head.extend(reasons.iter().map(|reason| reason.name().to_owned()));
    head.extend(["unexplained", "µs", "peak"].map(str::to_owned));
    rows.push_record(head);
    for (outcome, _) in &outcomes {
        rows.push_record(row(outcome, &reasons));
    }
    let peak = outcomes.iter().filter_map(|(outcome, _)| outcome.peak).max();
    let file = outcomes.iter().map(|(outcome, _)| outcome.file).sum();
    let refused = outcomes.iter().filter(|(outcome, _)| outcome.result.is_err()).count();
    let all = Outcome { name: format!("{} modules", outcomes.len()), file, result: Ok(total), time, peak };
    rows.push_record(row(&all, &reasons));
    let mut table = rows.build();
    table.with(Style::sharp());
    table.modify(Columns::new(1..).intersect(Rows::new(1..)), Alignment::right());
    println!("{}\n{table}", set.name());
    for (outcome, _) in &outcomes {
        if let Err(error) = &outcome.result {
            println!("refused: {}: {error}", outcome.name);
        }
    }
    println!(
        "{} of {} modules accepted; {} of signed files explained in {:.1} ms ({:.0} MiB/s)\n",
        outcomes.len() - refused,
        outcomes.len(),
        mebibytes(file),
        time.as_secs_f64() * 1e3,
        rate(file, time),
    );
    if options.openssl {
        compare(&outcomes)?;
    }
    Ok(refused + report_changes(&changes))
}

/// A row of the table.
fn row(outcome: &Outcome, reasons: &[Reason]) -> Vec<String> {
    let mut cells = vec![outcome.name.clone(), outcome.file.to_string()];
    if let Ok(statistics) = &outcome.result {
        cells.extend(reasons.iter().map(|reason| statistics.get(*reason).to_string()));
        cells.push("0".to_owned());
    } else {
        cells.extend(reasons.iter().map(|_| String::new()));
        cells.push("refused".to_owned());
    }
    cells.push(outcome.time.as_micros().to_string());
    cells.push(outcome.peak.map_or_else(|| "-".to_owned(), |peak| format!("{} KiB", peak.div_ceil(1024))));
    cells
}

/// Prints what came of changes; returns how many modules had one that was accepted.
fn report_changes(changes: &[(String, Mutations, Duration)]) -> usize {
    let (mut bits, mut targets, mut failed) = (0, 0, 0);
    for (name, mutations, time) in changes {
        bits += mutations.bits;
        targets += mutations.targets;
        failed += usize::from(!mutations.survivors.is_empty());
        if time.as_secs() > 10 {
            println!("{name}: {} bits and {} targets in {} s", mutations.bits, mutations.targets, time.as_secs());
        }
        for survivor in &mutations.survivors {
            println!(
                "accepted: {name}: {} at {:#x}: {:02x?} instead of {:02x?}{}",
                survivor.kind.name(),
                survivor.offset,
                survivor.after,
                survivor.before,
                if survivor.relocation { " (a relocation)" } else { "" },
            );
        }
    }
    if !changes.is_empty() {
        println!("{bits} flipped bits and {targets} changed targets; {failed} modules with one that was accepted\n");
    }
    failed
}

/// Times `openssl` on the five largest files beside what the explanation of each took.
fn compare(outcomes: &[(Outcome, Vec<u8>)]) -> Result<()> {
    let mut largest: Vec<&(Outcome, Vec<u8>)> = outcomes.iter().collect();
    largest.sort_by_key(|(outcome, _)| std::cmp::Reverse(outcome.file));
    let directory = std::env::temp_dir().join(format!("validate-capture-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    for (outcome, bytes) in largest.into_iter().take(5) {
        let path = directory.join("module");
        std::fs::write(&path, bytes)?;
        // The best of several, without the time that the process takes for an empty file.
        let best = |path: &Path| -> Result<Duration> {
            let mut best = Duration::MAX;
            for _ in 0..5 {
                let start = Instant::now();
                let output = Command::new("openssl").args(["dgst", "-sha256"]).arg(path).output();
                ensure!(output.context("starting openssl")?.status.success(), "openssl failed");
                best = best.min(start.elapsed());
            }
            Ok(best)
        };
        let hash = best(&path)?.saturating_sub(best(Path::new("/dev/null"))?);
        println!(
            "{}: explained at {:.0} MiB/s, hashed by openssl at {:.0} MiB/s",
            outcome.name,
            rate(outcome.file, outcome.time),
            rate(outcome.file, hash),
        );
    }
    std::fs::remove_dir_all(&directory)?;
    println!();
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / time.as_secs_f64().max(1e-9)
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
