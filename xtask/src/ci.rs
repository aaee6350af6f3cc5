//! Everything a change must pass: `cargo xtask ci`.
//!
//! All steps run even when one fails, so that one run shows every problem; a table of results comes last.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::{abi, book, fuzz, image, lint, linux, repro, run, stress, suite, verify};

/// How long each fuzz target runs, in seconds: enough for the seeds and what is near to them.
const FUZZ_SECONDS: u64 = 3;

/// How much to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Formatting, clippy, dependencies, what follows from the table, and the linked file; no tests, no machine, no fuzzing.
    Quick,
    /// Everything but the test suite and reproducibility: what `.ci/run` does after `cargo xtask test`.
    WithoutTests,
    /// Everything but reproducibility.
    Normal,
    /// Everything.
    Full,
}

struct Step {
    name: &'static str,
    outcome: Result<()>,
    took: Duration,
}

/// The machine options for these arguments, the rest as a person gets them by default.
#[derive(Parser)]
struct Machine {
    #[command(flatten)]
    options: run::Options,
}

fn machine(root: &Path, arguments: &[&str]) -> Result<()> {
    let words = std::iter::once("run").chain(arguments.iter().copied());
    run::run(root, &Machine::try_parse_from(words)?.options)
}

/// Plays a life with this loader on 1, 2, 4 and 8 processors.
fn boots(root: &Path, loader: &str) -> Result<()> {
    ["1", "2", "4", "8"].into_iter().try_for_each(|cpus| machine(root, &["--loader", loader, "--cpus", cpus]))
}

/// Plays the lives of a Linux that has VTL1 protect what a real kernel names, and of one with `heki=0`.
fn real_lists(root: &Path) -> Result<()> {
    let lives: [&[&str]; 3] =
        [&["--heki", "kaslr", "--loader", "g3", "--cpus", "4"], &["--heki", "no-kaslr"], &["--heki", "off"]];
    lives.into_iter().try_for_each(|arguments| machine(root, arguments))
}

/// The options of a Linux for these arguments, the rest as a person gets them by default.
#[derive(Parser)]
struct Linux {
    #[command(flatten)]
    options: linux::Options,
}

/// Boots both series of Debian's kernel and plays all steps there. 6.12 with 2 processors is the README's command, which the
/// book's step carries out.
fn linuxes(root: &Path) -> Result<()> {
    [("6.1", "2"), ("6.12", "1")].into_iter().try_for_each(|(series, vps)| {
        let words = ["linux", "--debian", series, "--vps", vps];
        linux::run(root, &Linux::try_parse_from(words)?.options).with_context(|| format!("{series}, {vps} processors"))
    })
}

/// Builds the image if that is needed, and proves the rules on it.
pub fn verify_built(root: &Path) -> Result<()> {
    let built = image::build(root, image::Options { debug: false, quiet: true })?;
    verify_file(&built.vmlinux)
}

/// Proves the rules on a file.
pub fn verify_file(file: &Path) -> Result<()> {
    let bytes = std::fs::read(file).map_err(|error| anyhow::anyhow!("cannot read {}: {error}", file.display()))?;
    let report = verify::verify(&bytes);
    print!("{report}");
    if !report.is_good() {
        bail!("{} breaks the rules above marked FAIL", file.display());
    }
    println!("{}: every check passed", file.display());
    Ok(())
}

/// Runs the steps and prints the table.
pub fn run_all(root: &Path, extent: Extent) -> Result<()> {
    let mut steps = Vec::new();
    let mut step = |name: &'static str, work: &dyn Fn() -> Result<()>| {
        eprintln!("=== {name}");
        let start = Instant::now();
        let outcome = work();
        if let Err(error) = &outcome {
            eprintln!("{name}: {error:#}");
        }
        steps.push(Step { name, outcome, took: start.elapsed() });
    };
    step("format", &|| lint::format(root));
    step("clippy (host)", &|| lint::host(root));
    step("clippy (fuzz)", &|| lint::fuzz(root));
    step("clippy (image)", &|| lint::image(root));
    step("dependencies", &|| lint::deny(root));
    step("abi", &|| abi::check(root));
    step("verify-elf", &|| verify_built(root));
    step("abi dump", &|| abi::dump::execute(root, None));
    if matches!(extent, Extent::Normal | Extent::Full) {
        step("test", &|| suite::run_all(root, &suite::Options::default()));
    }
    if extent != Extent::Quick {
        step("book", &|| book::execute(root, book::Options::all()));
        step("run g2, 1 to 8 cpus", &|| boots(root, "g2"));
        step("run g2-prime, the same", &|| boots(root, "g2-prime"));
        step("run g3, the same", &|| boots(root, "g3"));
        step("run, real lists", &|| real_lists(root));
        step("linux 6.1 and 6.12", &|| linuxes(root));
        step("fuzz", &|| fuzz::short(root, FUZZ_SECONDS));
        step("stress", &|| stress::short(root));
    }
    if extent == Extent::Full {
        step("two builds", &|| repro::check(root));
    }

    println!("=== results");
    for step in &steps {
        let word = if step.outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{word:<7} {:<18} {:>7.1} s", step.name, step.took.as_secs_f64());
    }
    let failed: Vec<&str> = steps.iter().filter(|step| step.outcome.is_err()).map(|step| step.name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_the_machine_steps_are_accepted() {
        for loader in ["g2", "g2-prime", "g3"] {
            let machine = Machine::try_parse_from(["run", "--loader", loader]).unwrap();
            assert_eq!(machine.options.cpus, 2);
            assert_eq!(machine.options.mem, 4 << 30);
        }
    }
}
