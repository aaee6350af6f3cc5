//! `--report FILE`: a run as one page of HTML that needs nothing else, no network and no other file.
//!
//! | module | purpose |
//! |---|---|
//! | [`page`] | the page: facts, steps, timeline, consoles |
//! | [`picture`] | the frame map over time |
//!
//! What is shown comes from a guest that may write what it likes: every text is escaped, and a run of any length gives a
//! page of bounded size.

pub mod page;
pub mod picture;

use std::path::Path;

use anyhow::{Context, Result};

/// A run, as it is shown. Times are in the page's unit, from the start.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The page's title.
    pub title: String,
    /// What was run and how it ended, by name.
    pub facts: Vec<(String, String)>,
    /// Whether everything ended as it must.
    pub is_good: bool,
    /// What times and costs are counted in: milliseconds, or instructions of VTL1.
    pub unit: &'static str,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What VTL1 was entered for, in order.
    pub switches: Vec<Switch>,
    /// VTL0's and VTL1's consoles.
    pub consoles: [Vec<Line>; 2],
    /// What VTL0 may do with its memory, as it changed.
    pub maps: Vec<Map>,
}

/// A step with its verdict.
#[derive(Clone, Debug)]
pub struct Step {
    /// When it ended.
    pub at: f64,
    /// Its name.
    pub name: String,
    /// What came of it.
    pub text: String,
    /// `ok`, `fail` or `open`.
    pub verdict: &'static str,
}

/// An entry into VTL1 and the return from it.
#[derive(Clone, Debug)]
pub struct Switch {
    /// When it ended.
    pub at: f64,
    /// How long VTL1 had the processor.
    pub cost: f64,
    /// The processor.
    pub vp: u32,
    /// The call's name, or what VTL0 was stopped at.
    pub name: String,
    /// Parameters, result, hypercalls.
    pub text: String,
    /// `call`, `refused` or `intercept`.
    pub kind: &'static str,
}

/// A line of a console.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was written.
    pub at: f64,
    /// What.
    pub text: String,
}

/// What VTL0 may do with its memory at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// When.
    pub at: f64,
    /// What had just happened.
    pub what: String,
    /// First frame, first frame after, rights: all of RAM, ascending.
    pub frames: Vec<(u64, u64, Rights)>,
}

/// VTL0's rights to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Everything.
    All,
    /// Reading and writing.
    ReadWrite,
    /// Reading and execution.
    ReadExecute,
    /// Reading.
    Read,
    /// Nothing.
    None,
}

impl Rights {
    /// From the hypervisor's flags; execution counts when the kernel may.
    pub fn new(flags: litebox_platform_lvbs::hv::MapFlags) -> Self {
        use litebox_platform_lvbs::hv::MapFlags as F;
        match (flags.contains(F::READ), flags.contains(F::WRITE), flags.contains(F::KERNEL_EXECUTE)) {
            (_, true, true) => Self::All,
            (_, true, false) => Self::ReadWrite,
            (_, false, true) => Self::ReadExecute,
            (true, false, false) => Self::Read,
            (false, false, false) => Self::None,
        }
    }
}

/// A count, for a place on a scale.
pub fn count(number: u64) -> f64 {
    // Exact up to 2^32, and no run comes near.
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// The hypervisor's intervals, as a map.
pub fn map(at: f64, what: &str, intervals: &[(u64, u64, litebox_platform_lvbs::hv::MapFlags)]) -> Map {
    let mut frames: Vec<(u64, u64, Rights)> = Vec::new();
    for &(start, end, flags) in intervals {
        let rights = Rights::new(flags);
        match frames.last_mut() {
            Some((_, last, same)) if *last == start && *same == rights => *last = end,
            _ => frames.push((start, end, rights)),
        }
    }
    Map { at, what: what.to_owned(), frames }
}

impl Report {
    /// Writes the page.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        std::fs::write(file, page::html(self)).with_context(|| format!("cannot write {}", file.display()))?;
        println!("report: {}", file.display());
        Ok(())
    }
}
