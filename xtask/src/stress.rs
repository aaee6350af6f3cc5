//! `cargo xtask stress`: everything VTL0 can do, at random, on all its processors at once.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::{Args, Parser, ValueEnum};
use vsm_sim::trials::stress::{self, Damage, Figures, Sabotage};

use crate::doctor;
use crate::run;

/// Where VTL1 runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layer {
    /// As host code over the hypervisor model: a thousand lives, every rule.
    Hosted,
    /// As the image on a software CPU, with real instructions.
    Machine,
    /// Both, each for half of the time.
    Both,
}

/// What to run.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Processors of VTL0, 1 to 16.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub vps: u32,
    /// How long, in seconds.
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub seconds: u64,
    /// Seed of all random choices, in hexadecimal; taken from the clock if absent.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    pub seed: Option<u64>,
    /// End after so many steps of each layer, if the time is not over before.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Where VTL1 runs.
    #[arg(long, value_enum, default_value = "both")]
    pub layer: Layer,
    /// One thread plays all processors, in an order drawn from the seed: the same seed and steps give the same run.
    #[arg(long)]
    pub lockstep: bool,
    /// Seconds after which a step counts as hanging.
    #[arg(long, value_name = "S", default_value_t = 90)]
    pub patience: u64,
    /// Boot this file instead of building the image.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Break a rule from outside at that step (permission, register or hang), to see that it is found.
    #[arg(long, value_name = "WHAT@STEP", value_parser = parse_sabotage)]
    pub sabotage: Option<Sabotage>,
}

/// The default options.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn parse_hex(text: &str) -> Result<u64, String> {
    let digits = text.trim_start_matches("0x").replace('_', "");
    u64::from_str_radix(&digits, 16).map_err(|error| format!("{text:?} is not a hexadecimal number: {error}"))
}

fn parse_sabotage(text: &str) -> Result<Sabotage, String> {
    let (what, step) = text.split_once('@').ok_or_else(|| format!("{text:?} is not WHAT@STEP"))?;
    let damage = match what {
        "permission" => Damage::Permission,
        "register" => Damage::Register,
        "hang" => Damage::Hang,
        _ => return Err(format!("{what:?} is not one of permission, register, hang")),
    };
    let step = step.parse().map_err(|error| format!("{step:?} is not a number: {error}"))?;
    Ok(Sabotage { damage, step })
}

/// Runs the layers one after the other, and prints a table for each. `heap` gives the heap of this process in use.
pub fn run(root: &Path, options: &Options, heap: Option<fn() -> usize>) -> Result<()> {
    use vsm_sim::trials::stress::Layer as L;
    let layers: &[L] = match options.layer {
        Layer::Hosted => &[L::Hosted],
        Layer::Machine => &[L::Machine],
        Layer::Both => &[L::Hosted, L::Machine],
    };
    let image = if layers.contains(&L::Machine) {
        doctor::ensure(&doctor::QEMU)?;
        Some(std::fs::read(run::image(root, options.image.as_ref())?)?)
    } else {
        None
    };
    let seed = options.seed.unwrap_or_else(seed_of_now);
    let time = Duration::from_secs(options.seconds) / u32::try_from(layers.len())?;
    for layer in layers {
        println!("=== {layer}: {} processors, seed {seed:#x}, at most {} s", options.vps, time.as_secs());
        let outcome = stress::run(
            &stress::Options {
                vps: options.vps,
                time,
                steps: options.steps,
                seed,
                lockstep: options.lockstep,
                sabotage: options.sabotage,
                patience: Duration::from_secs(options.patience),
                heap,
                layer: *layer,
            },
            image.as_deref(),
        )?;
        println!("{}", report(&outcome.figures));
        if let Some(sum) = outcome.sum {
            println!("sum over everything that was done: {sum:#018x}");
        }
        if let Some(failure) = outcome.failure {
            bail!("{failure}");
        }
        println!("no rule was broken");
    }
    Ok(())
}

/// What a change must pass: a minute on four processors, without a watch on the heap.
pub fn short(root: &Path) -> Result<()> {
    run(root, &Line::try_parse_from(["stress"])?.options, None)
}

/// A seed that is another one each time.
fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    vsm_sim::random::SplitMix(now.as_secs() ^ u64::from(now.subsec_nanos()) << 32).next()
}

fn per_second(count: u64, time: Duration) -> String {
    // Enough for a table: counts of a run stay far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
    let rate = count as f64 / time.as_secs_f64().max(1e-9);
    format!("{rate:.1}")
}

fn report(figures: &Figures) -> String {
    let Figures { images, steps, lives, ended_boots, time, .. } = figures;
    let (calls, attempts) = (figures.call_count(), figures.attempt_count());
    let mut rows = tabled::builder::Builder::default();
    rows.push_record(["what", "times", "per second", "mean, µs", "longest, ms", "what came of it"]);
    for (what, row) in figures.calls.iter().chain(&figures.attempts) {
        let mean = row.time.as_micros() / u128::from(row.count.max(1));
        let answers: Vec<String> = row.answers.iter().map(|(answer, count)| format!("{answer}: {count}")).collect();
        rows.push_record([
            (*what).to_owned(),
            row.count.to_string(),
            per_second(row.count, *time),
            mean.to_string(),
            format!("{:.1}", row.longest.as_secs_f64() * 1e3),
            answers.join(", "),
        ]);
    }
    let mut table = rows.build();
    table.with(tabled::settings::Style::sharp());
    let answers: Vec<String> = figures.answers().iter().map(|(answer, count)| format!("{answer}: {count}")).collect();
    format!(
        "{table}\n{calls} calls ({} a second), {} of them successful; {attempts} instructions ({} a second); {images} kexec images \
         accepted; {steps} steps, {lives} boots, {ended_boots} of them to the end, in {:.1} s\ncalls by answer: {}",
        per_second(calls, *time),
        figures.success_count(),
        per_second(attempts, *time),
        time.as_secs_f64(),
        answers.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_it_is_a_minute_on_four_processors() {
        let Options { vps, seconds, layer, lockstep, .. } = Line::try_parse_from(["stress"]).unwrap().options;
        assert_eq!((vps, seconds, layer, lockstep), (4, 60, Layer::Both, false));
    }

    #[test]
    fn seeds_and_sabotage_are_read() {
        assert_eq!(parse_hex("0x2_a"), Ok(42));
        assert_eq!(parse_hex("2A"), Ok(42));
        assert!(parse_hex("xyz").is_err() && parse_hex("").is_err());
        assert_eq!(parse_sabotage("register@7"), Ok(Sabotage { damage: Damage::Register, step: 7 }));
        assert!(
            parse_sabotage("register").is_err() && parse_sabotage("x@1").is_err() && parse_sabotage("hang@y").is_err()
        );
    }
}
