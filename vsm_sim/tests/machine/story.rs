//! Lives of a VTL0 that `cargo xtask run` can play, beside the one that it does play.

use anyhow::{Result, ensure};
use vsm_sim::trials::run::{Heki, Options, run};
use vsm_sim::vtl0::loader::Generation;

use crate::image::image;

#[test]
fn machine_serves_a_vtl0_without_heki_and_trusts_no_module() -> Result<()> {
    for generation in [Generation::G2, Generation::G3] {
        let report = run(&Options { generation, memory: 1 << 30, heki: Heki::Off, ..Options::default() }, image())?;
        let refused = report.steps.iter().filter(|step| step.result == "-ENOKEY").count();
        ensure!(
            report.failures().is_empty() && refused == 2,
            "{:#?}\n{}",
            report.failures(),
            report.console().join("\n")
        );
    }
    Ok(())
}
