//! What the guest's steps say of themselves on its console, and whether that is what must be.
//!
//! A line is `@@ KIND STEP/PART TEXT`, wherever in a console line it begins; `vtl0_driver/initramfs/init` writes them. The guest
//! can say what it likes, so that a run counts only with a word for everything that was asked for and with an orderly end.

use std::fmt;
use std::time::Duration;

/// The steps of a run when none are named. Kexec comes before many modules are there, for Linux may choose their frames for its
/// image, which VTL1 refuses; the attacks come last, for they are the ones that may hurt the guest.
pub const STEPS: [&str; 8] = ["boot", "secondary", "kexec", "modules", "keys", "unload", "processors", "attacks"];

/// What came of a part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It came out as it must.
    Ok,
    /// It did not.
    Fail,
    /// An attack that VTL1 by design does not stop, or something that this kernel does not have.
    Open,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Fail => "FAIL",
            Self::Open => "open",
        })
    }
}

/// A line of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A step or a part of it begins.
    Begin {
        /// Its name, `step/part`.
        name: String,
        /// What is about to be done.
        text: String,
    },
    /// A part has ended.
    End(Part),
    /// All steps have been played.
    Done,
}

/// A part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Since VTL0 was entered.
    pub at: Duration,
    /// Its name, `step/part`.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
    /// In the guest's words.
    pub text: String,
}

/// Reads a console line; `None` for those that are not about steps.
pub fn read(at: Duration, line: &str) -> Option<Line> {
    let (_, said) = line.split_once("@@ ")?;
    let (kind, rest) = said.trim().split_once(' ').unwrap_or((said.trim(), ""));
    let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let (name, text) = (name.to_owned(), text.trim().to_owned());
    let verdict = match kind {
        "done" => return Some(Line::Done),
        _ if name.is_empty() => return None,
        "begin" => return Some(Line::Begin { name, text }),
        "ok" => Verdict::Ok,
        "fail" => Verdict::Fail,
        "open" => Verdict::Open,
        _ => return None,
    };
    Some(Line::End(Part { at, name, verdict, text }))
}

/// All that the steps of a run have said.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// What has begun, by name.
    pub begun: Vec<String>,
    /// What has ended, in order.
    pub parts: Vec<Part>,
    /// Whether the guest says that it has played all.
    pub done: bool,
}

/// The step that a name is of.
fn step_of(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

impl Played {
    /// Takes a line in.
    pub fn add(&mut self, line: Line) {
        match line {
            Line::Begin { name, .. } => self.begun.push(name),
            Line::End(part) => self.parts.push(part),
            Line::Done => self.done = true,
        }
    }

    /// Every reason why the steps asked for did not end as they must.
    pub fn failures(&self, asked: &[String]) -> Vec<String> {
        let failed = self.parts.iter().filter(|part| part.verdict == Verdict::Fail);
        let mut failures: Vec<String> = failed.map(|part| format!("{}: {}", part.name, part.text)).collect();
        let spoke = |step: &str| {
            let of_step = |part: &Part| step_of(&part.name) == step && part.verdict != Verdict::Fail;
            self.parts.iter().any(of_step)
        };
        for name in &self.begun {
            if !self.parts.iter().any(|part| step_of(&part.name) == step_of(name)) {
                failures.push(format!("{name}: began, and nothing more was heard of it"));
            }
        }
        // Names of steps may be plurals of those of their parts: attacks, attack/idt.
        let silent = asked.iter().filter(|step| !spoke(step) && !step.strip_suffix('s').is_some_and(spoke));
        failures.extend(silent.map(|step| format!("{step}: no part of it ended well")));
        if !self.done {
            failures.push("the guest did not come to the end of its steps".to_owned());
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, verdict: Verdict) -> Line {
        Line::End(Part { at: Duration::ZERO, name: name.to_owned(), verdict, text: "text".to_owned() })
    }

    fn played(lines: impl IntoIterator<Item = Line>) -> Played {
        let mut played = Played::default();
        lines.into_iter().for_each(|line| played.add(line));
        played
    }

    #[test]
    fn lines_of_steps_are_told_from_others() {
        let at = Duration::from_millis(5);
        let end = |verdict| {
            Some(Line::End(Part { at, name: "modules/xfs".into(), verdict, text: "loaded, 2 validated".into() }))
        };
        assert_eq!(read(at, "@@ ok modules/xfs loaded, 2 validated\r"), end(Verdict::Ok));
        assert_eq!(read(at, "[    4.2] @@ fail modules/xfs loaded, 2 validated"), end(Verdict::Fail));
        assert_eq!(read(at, "@@ open modules/xfs loaded, 2 validated"), end(Verdict::Open));
        assert_eq!(read(at, "@@ begin keys/flip"), Some(Line::Begin { name: "keys/flip".into(), text: String::new() }));
        assert_eq!(read(at, "@@ done"), Some(Line::Done));
        for other in ["", "@@", "@@ ok", "@@ maybe x y", "ok modules/xfs", "[    1.0] Linux version 6.1"] {
            assert_eq!(read(at, other), None, "{other:?}");
        }
    }

    #[test]
    fn a_run_is_good_only_when_everything_was_heard_of() {
        let asked = ["boot".to_owned(), "attacks".to_owned()];
        let begin = |name: &str| Line::Begin { name: name.into(), text: String::new() };
        let good = || {
            vec![begin("boot/driver"), part("boot/driver", Verdict::Ok), part("attack/idt", Verdict::Ok), Line::Done]
        };
        assert_eq!(played(good()).failures(&asked), [""; 0]);
        let with = |line| played(good().into_iter().chain([line])).failures(&asked);
        assert_eq!(with(part("attack/lstar", Verdict::Open)), [""; 0]);
        assert_eq!(with(part("attack/lstar", Verdict::Fail)), ["attack/lstar: text"]);
        assert_eq!(with(begin("kexec/image")).len(), 1, "what begins must end");
        for missing in [1, 2, 3] {
            let mut lines = good();
            lines.remove(missing);
            assert!(!played(lines).failures(&asked).is_empty(), "without line {missing}");
        }
    }
}
