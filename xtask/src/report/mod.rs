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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::find_program;

    fn page() -> Report {
        let step = |at, name: &str, verdict| Step { at, name: name.to_owned(), text: "<b>".to_owned(), verdict };
        let frames = |first| vec![(0, 100, first), (100, 1000, Rights::All)];
        Report {
            title: "A run".to_owned(),
            facts: vec![("kernel".to_owned(), "6.12".to_owned())],
            is_good: false,
            unit: "ms",
            steps: vec![
                step(1.0, "a/x", "ok"),
                step(2.0, "a/y", "ok"),
                step(3.0, "b/x", "open"),
                step(4.0, "b/y", "fail"),
            ],
            switches: vec![Switch {
                at: 2.0,
                cost: 0.5,
                vp: 1,
                name: "LockRegs".to_owned(),
                text: "= 0".to_owned(),
                kind: "call",
            }],
            consoles: [
                vec![Line { at: 1.0, text: "Linux".to_owned() }],
                vec![Line { at: 2.0, text: "vtl1".to_owned() }],
            ],
            maps: vec![
                Map { at: 1.0, what: "start".to_owned(), frames: frames(Rights::All) },
                Map { at: 2.0, what: "VTL1".to_owned(), frames: frames(Rights::None) },
            ],
        }
    }

    /// A browser runs the page's script and draws it, from the file alone.
    #[test]
    fn a_browser_shows_the_page_and_counts_its_steps() {
        let Some(chromium) = find_program("chromium") else {
            println!("SKIPPED: there is no chromium; `cargo xtask doctor --fix` installs it");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let (file, picture) = (directory.path().join("page.html"), directory.path().join("page.png"));
        page().write(&file).unwrap();
        let open = |argument: String| {
            let mut command = Command::new(&chromium);
            command.args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000"]);
            command.arg(format!("--user-data-dir={}", directory.path().join("profile").display()));
            // A machine without a network must show the same.
            command
                .args(["--host-resolver-rules=MAP * ~NOTFOUND", &argument])
                .arg(format!("file://{}", file.display()));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let shown = open("--dump-dom".to_owned());
        assert!(shown.contains("<title>A run (2 ok, 1 open, 1 failed)</title>"), "{shown}");
        assert!(shown.contains("&lt;b&gt;"), "text stays text");
        open(format!("--screenshot={}", picture.display()));
        let png = std::fs::read(&picture).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{} bytes: an empty page has fewer", png.len());
    }

    #[test]
    fn the_page_needs_no_other_file() {
        let html = page::html(&page());
        for reference in ["src=", "href=", "http:", "https:", "@import", "url("] {
            assert!(!html.contains(reference), "{reference}");
        }
    }
}
