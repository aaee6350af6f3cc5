//! What happens in a run, taken down for the table, the report and whoever waits.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction;
use tabled::builder::Builder;
use vsm_sim::linux::Event;

use super::steps::{self, Line, Played};
use crate::report::{self, Map, Switch};

/// VTL0's rights to its memory, as the hypervisor has them.
pub type Rights = Vec<(u64, u64, MapFlags)>;

/// What is told while the guest runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Telling {
    /// Linux's console and all steps of the hypervisor.
    pub everything: bool,
    /// Linux's console.
    pub console: bool,
    /// Nothing: the terminal is the guest's.
    pub nothing: bool,
}

/// A run so far.
#[derive(Default)]
pub struct Record {
    telling: Telling,
    inner: Mutex<Inner>,
}

/// What has been taken down.
#[derive(Default)]
pub struct Inner {
    /// VTL0's and VTL1's consoles.
    pub consoles: [Vec<report::Line>; 2],
    /// What the steps say.
    pub played: Played,
    /// VTL calls and intercepts.
    pub switches: Vec<Switch>,
    /// VTL0's rights as they changed.
    pub maps: Vec<Map>,
}

fn milliseconds(at: Duration) -> f64 {
    at.as_secs_f64() * 1000.0
}

/// A call's name; the first entry of a processor has none.
fn name(id: u64) -> String {
    match (id, VsmFunction::from_id(id)) {
        (_, Some(function)) => function.name().to_owned(),
        (0, None) => "first entry".to_owned(),
        (_, None) => format!("no VSM call ({id:#x})"),
    }
}

fn result(answer: i64) -> String {
    Errno::from_result(answer).map_or_else(|| answer.to_string(), |errno| format!("-{}", errno.name()))
}

impl Record {
    /// An empty record.
    pub fn new(telling: Telling) -> Self {
        Self { telling, inner: Mutex::default() }
    }

    /// What has been taken down.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event down. `rights` is asked only after a VTL call.
    pub fn take(&self, at: Duration, event: Event<'_>, rights: impl Fn() -> Option<Rights>) {
        let now = milliseconds(at);
        match event {
            Event::Vtl0Line(line) => self.vtl0(at, line),
            Event::Vtl1Line(line) => {
                if !self.telling.nothing {
                    println!("{line}");
                }
                self.inner().consoles[1].push(report::Line { at: now, text: line.to_owned() });
            }
            Event::Call { vp, id, arguments, answer, nanoseconds, instructions, hypercalls } => {
                let [a, b, c] = arguments;
                let counted = if instructions == 0 { String::new() } else { format!(", {instructions} instructions") };
                let text = format!("{a:#x}, {b:#x}, {c:#x} = {}; {hypercalls} hypercalls{counted}", result(answer));
                let cost = Duration::from_nanos(nanoseconds);
                let kind = if answer < 0 { "refused" } else { "call" };
                let switch = Switch { at: now, cost: milliseconds(cost), vp, name: name(id), text, kind };
                let map = rights().map(|rights| report::map(now, &format!("{} on VP {vp}", switch.name), &rights));
                let mut inner = self.inner();
                inner.switches.push(switch);
                if let Some(map) = map.filter(|map| inner.maps.last().is_none_or(|last| last.frames != map.frames)) {
                    inner.maps.push(map);
                }
            }
            Event::Intercept { vp, what } => {
                let switch = Switch {
                    at: now,
                    cost: 0.0,
                    vp,
                    name: "intercept".into(),
                    text: what.to_owned(),
                    kind: "intercept",
                };
                self.inner().switches.push(switch);
            }
            Event::Trace(text) if self.telling.everything => println!("    {text}"),
            Event::Report(text) => eprintln!("not defined by the TLFS: {text}"),
            Event::Trace(_) | Event::Vtl0Bytes(_) | Event::Processor { .. } => {}
        }
    }

    fn vtl0(&self, at: Duration, text: &str) {
        let said = steps::read(at, text);
        let told = self.telling.everything || self.telling.console;
        if told && !self.telling.nothing {
            println!("{text}");
        } else if let (Some(Line::Begin { name, text }), false) = (&said, self.telling.nothing) {
            eprintln!("[{:5.1} s] {name}: {text}", at.as_secs_f64());
        }
        let mut inner = self.inner();
        if let Some(said) = said {
            inner.played.add(said);
        }
        inner.consoles[0].push(report::Line { at: milliseconds(at), text: text.to_owned() });
    }
}

impl Inner {
    /// The table of the steps' parts.
    pub fn steps_table(&self) -> tabled::Table {
        let mut rows = Builder::default();
        rows.push_record(["at", "step", "verdict", "what came of it"]);
        for part in &self.played.parts {
            let at = format!("{:.1} s", part.at.as_secs_f64());
            // A table wider than a screen is no table.
            let text: String = part.text.chars().take(110).collect();
            rows.push_record([at, part.name.clone(), part.verdict.to_string(), text]);
        }
        let mut table = rows.build();
        table.with(tabled::settings::Style::sharp());
        table
    }

    /// Every VTL call, for a driver that is not ours.
    pub fn calls_table(&self) -> tabled::Table {
        let mut rows = Builder::default();
        rows.push_record(["at", "VP", "call", "RSI, RDX, R8 = result", "cost"]);
        for switch in self.switches.iter().filter(|switch| switch.kind != "intercept") {
            let (at, cost) = (format!("{:.1} ms", switch.at), format!("{:.3} ms", switch.cost));
            rows.push_record([at, switch.vp.to_string(), switch.name.clone(), switch.text.clone(), cost]);
        }
        let mut table = rows.build();
        table.with(tabled::settings::Style::sharp());
        table
    }

    /// The calls by name: how often, how often refused, milliseconds in VTL1 together.
    pub fn calls(&self) -> BTreeMap<&str, (u64, u64, f64)> {
        let mut calls = BTreeMap::new();
        for switch in self.switches.iter().filter(|switch| switch.kind != "intercept") {
            let (count, refused, cost): &mut (u64, u64, f64) = calls.entry(switch.name.as_str()).or_default();
            *count += 1;
            *refused += u64::from(switch.kind == "refused");
            *cost += switch.cost;
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::steps::Verdict;

    #[test]
    fn calls_steps_and_changes_of_rights_are_taken_down() {
        let record = Record::new(Telling { nothing: true, ..Telling::default() });
        let at = Duration::from_millis(5);
        let call = |id, answer| Event::Call {
            vp: 1,
            id,
            arguments: [1, 2, 3],
            answer,
            nanoseconds: 2_000_000,
            instructions: 0,
            hypercalls: 4,
        };
        let all = || Some(vec![(0, 100, MapFlags::ALL)]);
        let some = || Some(vec![(0, 50, MapFlags::ALL), (50, 100, MapFlags::READ)]);
        record.take(at, call(VsmFunction::LockRegs.id(), 0), all);
        record.take(at, call(VsmFunction::ProtectMemory.id(), 0), some);
        record.take(at, call(VsmFunction::PatchText.id(), Errno::EINVAL.to_result()), some);
        record.take(at, call(VsmFunction::PatchText.id(), 0), || None);
        record.take(at, Event::Intercept { vp: 0, what: "a write" }, || unreachable!("only calls change rights"));
        record.take(at, Event::Vtl0Line("@@ ok boot/driver up"), || None);
        record.take(at, Event::Vtl1Line("hello"), || None);
        let inner = record.inner();
        assert_eq!(inner.calls()["PatchText"], (2, 1, 4.0));
        assert_eq!(inner.calls().values().map(|(count, ..)| count).sum::<u64>(), 4, "an intercept is no call");
        assert_eq!(
            inner.maps.iter().map(|map| map.what.as_str()).collect::<Vec<_>>(),
            ["LockRegs on VP 1", "ProtectMemory on VP 1"]
        );
        assert_eq!(inner.played.parts[0].verdict, Verdict::Ok);
        assert_eq!(inner.consoles.each_ref().map(Vec::len), [1, 1]);
        let text = inner.calls_table().to_string();
        assert!(text.contains("0x1, 0x2, 0x3 = -EINVAL; 4 hypercalls"), "{text}");
    }
}
