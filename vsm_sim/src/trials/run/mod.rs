//! `cargo xtask run`: a whole VTL0 life played against the real image, and figures from it.
//!
//! | module | purpose |
//! |---|---|
//! | `kernel_data` | what the life's kernel says about itself, real where a capture is there |
//! | `stage` | where a step is played and reported |
//! | [`story`] | the steps of the life, each with what must come of it |
//! | `story_calls` | those that are about one call each |
//! | `story_kexec` | those of a kernel to be started next |
//! | `story_modules` | those that are about modules |
//! | `story_registers` | those that are about locked registers |
//! | `story_optee` | those of a driver that looks for OP-TEE |
//! | [`report`] | the table of what came of them |
//! | [`measure`], [`measure_patch`] | instruction counts |

mod kernel_data;
pub mod measure;
pub mod measure_patch;
pub mod report;
mod stage;
pub mod story;
mod story_calls;
mod story_kexec;
mod story_modules;
mod story_optee;
mod story_registers;

use std::sync::Arc;

use anyhow::Result;

use crate::machine::{Machine, MachineConfig};
use crate::vtl0::loader::Generation;
use crate::vtl0::memory_map::{MemoryMap, default_region_size};
use crate::vtl0::ranges::Kernel;

pub use report::Report;

/// Most processors a run really has; the possible ones beyond are not present, as in a guest that could be given more.
pub const MAX_PRESENT: u32 = 8;

/// What to run.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a command line")]
pub struct Options {
    /// Which loader VTL0 has.
    pub generation: Generation,
    /// Possible processors; up to [`MAX_PRESENT`] of them are present.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// First byte of VTL1's region; `None` for VTL0's own choice.
    pub region_base: Option<u64>,
    /// Size of the region; `None` for VTL0's default.
    pub region_size: Option<u64>,
    /// Fill the region with a pattern first.
    pub dirty: bool,
    /// Print every event of the hypervisor.
    pub trace: bool,
    /// Print VTL1's console as it comes.
    pub echo: bool,
    /// About how many ranges ProtectMemory gets, where they are many.
    pub ranges: u64,
    /// What VTL0 has protected.
    pub heki: Heki,
    /// Keep for each step how things stood after it.
    pub moments: bool,
}

/// What VTL0 has VTL1 protect as its boot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heki {
    /// Nothing, with `heki=0` on its command line: it boots VTL1, but never gives it a kernel to protect.
    Off,
    /// Very many ranges, all of them RAM: for the figures.
    Many,
    /// What a real kernel names, which is not all RAM.
    Kernel(Kernel),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            generation: Generation::G2,
            cpus: 2,
            memory: 4 << 30,
            region_base: None,
            region_size: None,
            dirty: false,
            trace: false,
            echo: false,
            ranges: 40_000,
            heki: Heki::Many,
            moments: false,
        }
    }
}

impl Options {
    /// The processors that are present.
    #[must_use]
    pub fn present(&self) -> u32 {
        self.cpus.min(MAX_PRESENT)
    }

    /// The memory map these options describe.
    pub fn map(&self) -> Result<MemoryMap> {
        let size = self.region_size.unwrap_or_else(|| default_region_size(self.cpus));
        let map = MemoryMap::new(self.memory, self.region_base, size)?;
        Ok(if matches!(self.heki, Heki::Kernel(_)) { map.with_legacy_hole() } else { map })
    }

    /// A machine as these options describe it.
    pub fn machine(&self) -> Result<Arc<Machine>> {
        let machine = Machine::new(MachineConfig {
            count_instructions: true,
            echo: self.echo,
            dirt: self.dirty.then_some(0xA5),
            ..MachineConfig::new(self.map()?, self.present())
        })?;
        if self.trace {
            machine.partition().set_trace(Box::new(|event: &crate::hv::TraceEvent<'_>| println!("    {event}")));
        }
        Ok(machine)
    }
}

/// Plays the life; the report says whether everything came as it must.
pub fn run(options: &Options, image: &[u8]) -> Result<Report> {
    let machine = options.machine()?;
    let mut report = Report::new(machine.clone());
    story::play(options, image, &machine, &mut report)?;
    Ok(report)
}
