//! Stress on the machine, for a moment: the image survives it, and what is broken is found there too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vsm_sim::trials::stress::{self, Damage, Layer, Options, Sabotage};

use crate::image::image;

fn options(vps: u32, steps: u64) -> Options {
    let time = Duration::from_secs(200);
    Options { vps, time, steps: Some(steps), seed: 2, ..Options::new(Layer::Machine) }
}

#[test]
fn machine_processors_at_once_break_no_rule() -> Result<()> {
    let outcome = stress::run(&options(2, 250), Some(image()))?;
    if let Some(failure) = outcome.failure {
        panic!("{failure}");
    }
    let figures = outcome.figures;
    ensure!(figures.steps == 250 && figures.success_count() > 0 && figures.attempt_count() > 0, "{figures:?}");
    Ok(())
}

#[test]
fn machine_stress_finds_what_is_broken() -> Result<()> {
    for (damage, word) in [(Damage::Permission, "VTL1's memory is open"), (Damage::Register, "was locked as")] {
        let sabotage = Some(Sabotage { damage, step: 20 });
        let options = Options { lockstep: true, sabotage, ..options(2, 400) };
        let found = || -> Result<_> {
            stress::run(&options, Some(image()))?.failure.with_context(|| format!("{damage:?} was not found"))
        };
        let (first, again) = (found()?, found()?);
        ensure!(first.broken.rule.contains(word), "{damage:?}: {}", first.broken.rule);
        ensure!(first.broken.step == again.broken.step && first.broken.step >= 20, "{damage:?}: {first}\n{again}");
        let trace = |failure: &stress::Failure| failure.trace.iter().map(ToString::to_string).collect::<Vec<_>>();
        ensure!(trace(&first) == trace(&again), "{damage:?}: {first}\n{again}");
    }
    Ok(())
}
