//! `cargo xtask run`: boots the image in the simulator and plays a whole VTL0 life against it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use vsm_sim::trials::run::Heki;
use vsm_sim::vtl0::loader::Generation;
use vsm_sim::vtl0::ranges::Kernel;

use crate::{doctor, image, report};

/// Which generation of the VTL0 loader is played (LVBS contract, "Generations").
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Loader {
    /// Parameters in a boot_params page.
    G2,
    /// As g2, without the call EnableAPsVtl.
    G2Prime,
    /// Parameters in registers.
    G3,
}

/// What VTL0 has VTL1 protect as its boot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protected {
    /// Some 40,000 ranges, all of them RAM: for the figures.
    Many,
    /// What a Linux with KASLR names: some frames twice, and some that are no RAM.
    Kaslr,
    /// What a Linux without KASLR names: its hypercall page writable and executable, and frames that are no RAM.
    NoKaslr,
    /// Nothing, as with `heki=0`: the boot never ends, and no module loads.
    Off,
}

/// The machine to build and what to load into it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Print every hypercall, MSR access, VTL switch and protection change.
    #[arg(long)]
    pub trace: bool,
    /// Generation of the VTL0 loader to play.
    #[arg(long, value_enum, default_value = "g2")]
    pub loader: Loader,
    /// Number of virtual processors, 1 to 96.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=96))]
    pub cpus: u32,
    /// Guest memory, in bytes or with a suffix K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    pub mem: u64,
    /// Guest-physical address of the region given to VTL1 (decimal or 0x…); chosen as VTL0 would if absent.
    #[arg(long, value_name = "ADDR", value_parser = parse_size)]
    pub region_base: Option<u64>,
    /// Size of that region; computed from --cpus as VTL0 would if absent.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub region_size: Option<u64>,
    /// Fill the region with a pattern before loading, as memory that was used before.
    #[arg(long)]
    pub dirty: bool,
    /// What VTL0 has VTL1 protect.
    #[arg(long, value_enum, default_value = "many")]
    pub heki: Protected,
    /// Boot this file instead of building the image.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Print the figures of the documentation instead: the image's sizes, and instruction counts.
    #[arg(long, conflicts_with_all = ["trace", "report"])]
    pub figures: bool,
    /// Write the run as a page of HTML.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Reads a size or an address: decimal or `0x…`, with an optional suffix K, M or G (powers of 1024).
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim_end_matches(['B', 'b']).char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16),
        None => digits.replace('_', "").parse(),
    }
    .map_err(|error| format!("{text:?} is not a size: {error}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} does not fit 64 bits"))
}

/// The image to use: the one named, else the one built now.
pub(crate) fn image(root: &Path, named: Option<&PathBuf>) -> Result<PathBuf> {
    match named {
        Some(file) => Ok(file.clone()),
        None => Ok(image::build(root, image::Options { debug: false, quiet: true })?.vmlinux),
    }
}

/// Builds the image if none is named, and boots it, or prints the figures.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    doctor::ensure(&doctor::QEMU)?;
    let path = image(root, options.image.as_ref())?;
    let image = std::fs::read(&path)?;
    if options.figures {
        print!("{}", crate::sizes::report(&image)?);
        let options = vsm_sim::trials::run::Options { echo: false, ..options.simulator() };
        print!("{}", vsm_sim::trials::run::measure::measure(&options, &image)?);
        return Ok(());
    }
    boot(&path, &image, options)
}

impl Options {
    /// What the simulator is told.
    fn simulator(&self) -> vsm_sim::trials::run::Options {
        vsm_sim::trials::run::Options {
            generation: match self.loader {
                Loader::G2 => Generation::G2,
                Loader::G2Prime => Generation::G2Prime,
                Loader::G3 => Generation::G3,
            },
            cpus: self.cpus,
            memory: self.mem,
            region_base: self.region_base,
            region_size: self.region_size,
            dirty: self.dirty,
            trace: self.trace,
            echo: true,
            heki: match self.heki {
                Protected::Many => Heki::Many,
                Protected::Kaslr => Heki::Kernel(Kernel::Kaslr),
                Protected::NoKaslr => Heki::Kernel(Kernel::NoKaslr),
                Protected::Off => Heki::Off,
            },
            moments: self.report.is_some(),
            ..vsm_sim::trials::run::Options::default()
        }
    }
}

fn boot(path: &Path, image: &[u8], asked: &Options) -> Result<()> {
    let options = asked.simulator();
    let map = options.map()?;
    println!(
        "booting {} with loader {:?}: {} possible processors, {} of them present, {} MiB of RAM, region {:#x}..{:#x}",
        path.display(),
        options.generation,
        options.cpus,
        options.present(),
        options.memory >> 20,
        map.region_start,
        map.region_end()
    );
    println!("--- VTL1's console (COM2) ---");
    let report = vsm_sim::trials::run::run(&options, image)?;
    println!("--- what VTL0 did, and what came of it ---\n{}", table(&report));
    let failures = report.failures();
    if let Some(file) = &asked.report {
        let facts = [
            ("image", path.display().to_string()),
            ("loader", format!("{:?}", options.generation)),
            ("processors", options.present().to_string()),
            ("memory", format!("{} MiB", options.memory >> 20)),
            ("VTL1's region", format!("{:#x}..{:#x}", map.region_start, map.region_end())),
        ];
        page(&report, &facts, failures.is_empty()).write(file)?;
    }
    if failures.is_empty() {
        println!("all {} steps ended as they must", report.steps.len());
        return Ok(());
    }
    bail!("{} of {} steps are not as they must be:\n{}", failures.len(), report.steps.len(), failures.join("\n"))
}

/// The run as a page: its time is counted in VTL1's instructions, which are the same in every run.
fn page(run: &vsm_sim::trials::run::Report, facts: &[(&str, String)], is_good: bool) -> report::Report {
    let facts = facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let mut page = report::Report {
        title: "A life of VTL0, played against the image".to_owned(),
        facts,
        is_good,
        unit: "instructions of VTL1",
        ..report::Report::default()
    };
    let (mut at, mut shown) = (0.0, 0);
    let console = run.console();
    for (index, step) in run.steps.iter().enumerate() {
        let cost = report::count(step.instructions);
        at += cost;
        let verdict = if step.is_right() { "ok" } else { "fail" };
        let text = format!("{} = {}", step.parameters, step.result);
        page.consoles[0].push(report::Line { at, text: format!("VP {}: {} {text}", step.vp, step.what) });
        if let Some(moment) = run.moments.get(index) {
            let lines = console.get(shown..moment.lines).unwrap_or_default();
            page.consoles[1].extend(lines.iter().map(|line| report::Line { at, text: line.clone() }));
            shown = moment.lines;
            page.maps.extend(moment.rights.as_ref().map(|rights| report::map(at, &step.what, rights)));
        }
        if step.instructions > 0 {
            let kind = if step.result.starts_with('-') { "refused" } else { "call" };
            let detail = format!("{text}; {} hypercalls", step.hypercalls);
            page.switches.push(report::Switch { at, cost, vp: step.vp, name: step.what.clone(), text: detail, kind });
        }
        let text = if step.is_right() { text } else { format!("{text}; must be {}", step.expected) };
        page.steps.push(report::Step { at, name: format!("VP {}: {}", step.vp, step.what), text, verdict });
    }
    page
}

fn table(report: &vsm_sim::trials::run::Report) -> tabled::Table {
    let mut rows = tabled::builder::Builder::default();
    rows.push_record(["VP", "what", "parameters", "result", "must be", "VTL1 instructions", "hypercalls"]);
    for step in &report.steps {
        rows.push_record([
            step.vp.to_string(),
            step.what.clone(),
            step.parameters.clone(),
            step.result.clone(),
            if step.is_right() { String::new() } else { step.expected.clone() },
            step.instructions.to_string(),
            step.hypercalls.to_string(),
        ]);
    }
    let mut table = rows.build();
    table.with(tabled::settings::Style::sharp());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_form() {
        assert_eq!(parse_size("4G"), Ok(4 << 30));
        assert_eq!(parse_size("512m"), Ok(512 << 20));
        assert_eq!(parse_size("0x8000_0000"), Ok(0x8000_0000));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in ["", "G", "4T", "0x", "-1", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong:?}");
        }
    }
}
