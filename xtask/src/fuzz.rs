//! Fuzzing: `cargo xtask fuzz`.
//!
//! The targets are a workspace of their own, `fuzz/`, because everything in it is compiled with coverage counters. Any
//! toolchain that builds the project will do, a stable one too; libFuzzer needs a C++ compiler. Nothing is skipped: what is
//! missing is installed, or the error says what to type.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args, Subcommand};

use crate::doctor;
use crate::process::{clear_build_environment, describe, run};
use crate::toolchain;

/// What the targets are compiled for, named so that build scripts and macros stay without counters.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Coverage as libFuzzer counts it: edges in 8-bit counters, and the operands of comparisons (Clang, "SanitizerCoverage").
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Keeps conditions apart that would be folded into one branch, and with it into one counter.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];
/// Where a target's program writes its seeds (`vsm_fuzz::SEEDS_VARIABLE`).
const SEEDS_VARIABLE: &str = "VSM_FUZZ_SEEDS";
/// The program of all calls, and what tells it which (`vsm_fuzz::calls::CALL_VARIABLE`).
const CALL_PROGRAM: &str = "call";
const CALL_VARIABLE: &str = "VSM_FUZZ_CALL";
/// An input that takes longer has hung, in seconds.
const TIMEOUT: u32 = 25;
/// More memory than this, in MiB, is a finding, and so is a single piece of it that is larger than the second: VTL1's heap is a
/// few MiB. libFuzzer sees single pieces only with `--sanitize`.
const MEMORY_LIMITS: [u32; 2] = [512, 64];
/// A program gets this much longer than it was told before it is ended, in seconds.
const GRACE: u64 = 60;

/// What to do with the targets.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Print every target and what it feeds.
    #[command(after_help = "Example: cargo xtask fuzz list")]
    List,
    /// Build the targets and run one of them, or all.
    ///
    /// What was found in earlier runs is the start of the next: the corpus is kept in `target/fuzz/corpus`. Ends with
    /// status 0 only if nothing was found; an input that breaks a rule is kept in `target/fuzz/findings`.
    #[command(after_help = "Example: cargo xtask fuzz run --all --seconds 60")]
    Run(Run),
}

/// How to run.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("what").required(true).args(["target", "all"])))]
pub struct Run {
    /// A target's name.
    pub target: Option<String>,
    /// Run every target.
    #[arg(long)]
    pub all: bool,
    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// How many targets run at the same time.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub jobs: u32,
    /// Run this one input instead, as to repeat a finding.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seconds", "jobs", "all"])]
    pub input: Option<PathBuf>,
    /// Build with AddressSanitizer: slower, and finds what unsafe code does wrong.
    #[arg(long)]
    pub sanitize: bool,
}

/// What one target did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    name: String,
    runs: String,
    per_second: String,
    edges: String,
    corpus: String,
    /// Why it failed.
    failure: Option<String>,
}

/// Lists or runs the targets.
pub fn execute(root: &Path, action: &Action) -> Result<()> {
    match action {
        Action::List => list(root),
        Action::Run(options) => run_targets(root, options),
    }
}

/// Runs every target for `seconds` each: what a change must pass.
pub fn short(root: &Path, seconds: u64) -> Result<()> {
    run_targets(root, &Run { target: None, all: true, seconds, jobs: 2, input: None, sanitize: false })
}

fn list(root: &Path) -> Result<()> {
    for name in targets(root)? {
        let source = root.join(source_of(&name));
        let text = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
        println!("{name:<32} {}", purpose(&text));
    }
    Ok(())
}

/// The first paragraph of a module's documentation, without its first word.
fn purpose(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    let text = paragraph.join(" ");
    text.strip_prefix("Target: ").unwrap_or(&text).to_owned()
}

/// The targets' names, sorted: one program each, and one for every call of the table.
fn targets(root: &Path) -> Result<Vec<String>> {
    let directory = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let (Some(name), Some("rs")) = (path.file_stem(), path.extension().and_then(|suffix| suffix.to_str())) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    // The program of the calls is as many targets as there are calls.
    names.retain(|name| name != CALL_PROGRAM);
    names.extend(vsm_handlers::ROWS.iter().map(|row| format!("{CALL_PROGRAM}_{}", row.meta.name)));
    names.sort();
    Ok(names)
}

/// The handler's name, for the target of a call.
fn call_of(target: &str) -> Option<&str> {
    target.strip_prefix(CALL_PROGRAM)?.strip_prefix('_')
}

/// The program of a target.
fn program_of(target: &str) -> &str {
    if call_of(target).is_some() { CALL_PROGRAM } else { target }
}

/// The file that describes a target.
fn source_of(target: &str) -> String {
    format!("fuzz/src/{}.rs", if call_of(target).is_some() { "calls" } else { target })
}

/// What a target's program is started with.
fn command_of(programs: &Path, target: &str) -> Command {
    let mut command = Command::new(programs.join(program_of(target)));
    if let Some(call) = call_of(target) {
        command.env(CALL_VARIABLE, call);
    }
    command
}

fn directory(root: &Path) -> PathBuf {
    root.join("target").join("fuzz")
}

/// Builds the programs of `names`; the directory they are in.
fn build(root: &Path, names: &[String], sanitize: bool) -> Result<PathBuf> {
    doctor::ensure(&doctor::CXX)?;
    let toolchain = toolchain::active()?;
    // Another directory, so that going back and forth does not build everything again.
    let built = directory(root).join(if sanitize { "sanitized" } else { "plain" });
    let mut command = Command::new(&toolchain.cargo);
    clear_build_environment(&mut command);
    let mut flags = COVERAGE.to_vec();
    if sanitize {
        // The one option here that a stable compiler keeps for itself.
        flags.push("-Zsanitizer=address");
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
        .current_dir(root.join("fuzz"))
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args(["build", "--release", "--quiet", "--features", "libfuzzer", "--target", TARGET, "--target-dir"])
        .arg(&built);
    for name in names.iter().map(|name| program_of(name)).collect::<BTreeSet<_>>() {
        command.args(["--bin", name]);
    }
    eprintln!("building {} with {}", names.join(", "), toolchain.name);
    run(&mut command).context("the fuzz targets do not build")?;
    Ok(built.join(TARGET).join("release"))
}

fn run_targets(root: &Path, options: &Run) -> Result<()> {
    let known = targets(root)?;
    let names = match &options.target {
        None => known,
        Some(one) => {
            ensure!(known.contains(one), "there is no target {one:?}, only {}", known.join(", "));
            vec![one.clone()]
        }
    };
    let programs = build(root, &names, options.sanitize)?;
    if let Some(input) = &options.input {
        for name in &names {
            run(command_of(&programs, name).arg(input))?;
        }
        return Ok(());
    }
    let outcomes = run_side_by_side(root, &programs, names, options);
    println!("{}", table(&outcomes));
    let failures: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| Some(format!("{}: {}", outcome.name, outcome.failure.as_ref()?)))
        .collect();
    ensure!(failures.is_empty(), "{} of {} targets failed:\n{}", failures.len(), outcomes.len(), failures.join("\n"));
    Ok(())
}

/// Runs the targets, `options.jobs` at a time.
fn run_side_by_side(root: &Path, programs: &Path, names: Vec<String>, options: &Run) -> Vec<Outcome> {
    let queue = Mutex::new(VecDeque::from(names));
    let outcomes = Mutex::new(Vec::new());
    let locked = |names: &Mutex<VecDeque<String>>| names.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(name) = locked(&queue) {
                    eprintln!("{name}: {} s", options.seconds);
                    let outcome = run_one(root, command_of(programs, &name), &name, options.seconds);
                    let outcome = outcome.unwrap_or_else(|error| Outcome {
                        name,
                        failure: Some(format!("{error:#}")),
                        ..Outcome::default()
                    });
                    // Now, and in the summary again: the other targets may take long.
                    if let Some(failure) = &outcome.failure {
                        eprintln!("{}: {failure}", outcome.name);
                    }
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by(|one, other| one.name.cmp(&other.name));
    outcomes
}

/// Runs one target; its output goes into a file.
fn run_one(root: &Path, mut command: Command, name: &str, seconds: u64) -> Result<Outcome> {
    let directory = directory(root);
    let (corpus, findings) = (directory.join("corpus").join(name), directory.join("findings"));
    let log = directory.join(format!("{name}.log"));
    for needed in [&corpus, &findings] {
        fs::create_dir_all(needed).with_context(|| format!("cannot make {}", needed.display()))?;
    }
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    command
        .env(SEEDS_VARIABLE, &corpus)
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={}", MEMORY_LIMITS[0]))
        .arg(format!("-malloc_limit_mb={}", MEMORY_LIMITS[1]))
        .arg(format!("-artifact_prefix={}/{name}-", findings.display()))
        .args(["-use_value_profile=1", "-print_final_stats=1"])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", describe(&command)))?;
    let mut left = seconds + GRACE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if left == 0 {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_secs(1));
        left -= 1;
    };
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let mut outcome = read_log(name, &text);
    outcome.failure = match status {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{status}\n{}", explain(name, &text, &log))),
        None => Some(format!("did not end within {} s; its output is in {}", seconds + GRACE, log.display())),
    };
    Ok(outcome)
}

/// The figures libFuzzer printed.
fn read_log(name: &str, log: &str) -> Outcome {
    let after = |words: &str| {
        let found = log.lines().rev().find_map(|line| line.split_once(words)).map(|(_, rest)| rest);
        found.and_then(|rest| rest.split_whitespace().next()).unwrap_or("?").to_owned()
    };
    Outcome {
        name: name.to_owned(),
        runs: after("stat::number_of_executed_units:"),
        per_second: after("stat::average_exec_per_sec:"),
        edges: after(" cov: "),
        corpus: after(" corp: "),
        failure: None,
    }
}

/// What a person needs to know of a finding: the panic's words, and how to see it again.
fn explain(name: &str, log: &str, file: &Path) -> String {
    let mut lines: Vec<String> =
        log.lines().skip_while(|line| !line.contains("panicked at")).take(4).map(str::to_owned).collect();
    if let Some((_, input)) = log.lines().find_map(|line| line.split_once("Test unit written to ")) {
        lines.push(format!("again: cargo xtask fuzz run {name} --input {input}"));
    }
    lines.push(format!("its output: {}", file.display()));
    lines.join("\n")
}

fn table(outcomes: &[Outcome]) -> tabled::Table {
    let mut rows = tabled::builder::Builder::default();
    rows.push_record(["target", "inputs run", "per second", "edges covered", "corpus", "findings"]);
    for Outcome { name, runs, per_second, edges, corpus, failure } in outcomes {
        let findings = if failure.is_some() { "FAILED" } else { "none" };
        rows.push_record([name, runs, per_second, edges, corpus, findings]);
    }
    let mut table = rows.build();
    table.with(tabled::settings::Style::sharp());
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn every_target_says_what_it_is_for() {
        let root = workspace::root();
        let names = targets(&root).unwrap();
        assert!(names.len() >= 13, "{names:?}");
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        for name in names {
            let source = fs::read_to_string(root.join(source_of(&name))).unwrap();
            assert!(source.starts_with("//! Target: "), "{name}");
            assert!(!purpose(&source).is_empty(), "{name}");
            assert!(manifest.contains(&format!("name = \"{}\"", program_of(&name))), "{name} is not in the manifest");
        }
    }

    #[test]
    fn every_call_of_the_table_is_a_target() {
        let names = targets(&workspace::root()).unwrap();
        for row in &vsm_handlers::ROWS {
            assert!(names.contains(&format!("call_{}", row.meta.name)), "{names:?}");
        }
    }

    #[test]
    fn figures_and_findings_are_read_from_a_log() {
        let log = "#12 NEW cov: 10 ft: 11 corp: 3/21b\nthread 'x' panicked at src/a.rs:1:2:\nthe rule\nartifact_prefix='x'; \
                   Test unit written to findings/a-1\n#99 DONE   cov: 86 ft: 1002 corp: 254/56Kb lim: 2282\n\
                   stat::number_of_executed_units: 378183\nstat::average_exec_per_sec:     34380\n";
        let outcome = read_log("a", log);
        assert_eq!((outcome.runs.as_str(), outcome.per_second.as_str()), ("378183", "34380"));
        assert_eq!((outcome.edges.as_str(), outcome.corpus.as_str()), ("86", "254/56Kb"));
        let text = explain("a", log, Path::new("a.log"));
        assert!(text.contains("the rule") && text.contains("fuzz run a --input findings/a-1"), "{text}");
        assert_eq!(read_log("a", "").runs, "?");
    }

    #[test]
    fn an_unknown_target_is_named_with_the_known_ones() {
        let target = Some("nothing".into());
        let options = Run { target, all: false, seconds: 1, jobs: 1, input: None, sanitize: false };
        let error = run_targets(&workspace::root(), &options).unwrap_err().to_string();
        assert!(error.contains("nothing") && error.contains("heki_list"), "{error}");
    }
}
