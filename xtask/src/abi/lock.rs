//! `abi/vsm.lock`: what VTL0 has been promised of each call, structure and number. Entries are added, never changed or
//! removed.
//!
//! A line is an entry: id, name, `since=` the ABI's version it came with, the rules, and after bars the parameters and the
//! errnos; or `retired` in their place. Entries of structures and numbers are in [`super::shapes`]. The newest entry of an id
//! or name counts. `cargo xtask abi` adds what is new, and with `--accept` also what changes a promise.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};

use super::drift::Drift;
use super::model::{Call, Table};
use super::shapes::{self, Shape};

/// What is written above the entries.
const HEAD: &str = "\
# What VTL0 has been promised of each VSM call. `cargo xtask abi` adds entries; none is ever changed or removed.
# id name since=version phase=… caller=… result=… | parameter: kind, registers, bits | errnos
# struct tag since=version size=bytes | field: type[count] @offset
# numbers prefix since=version name=value
";

/// Stands for the result of a call that has none yet.
const NOT_IMPLEMENTED: &str = " not_implemented";

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The id.
    pub id: u64,
    /// The call's name.
    pub name: String,
    /// The version of the ABI it came with.
    pub since: u32,
    /// The promise; `None` if the call has been retired.
    pub promise: Option<String>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let promise = self.promise.as_deref().unwrap_or("retired");
        write!(f, "{:#x} {} since={} {promise}", self.id, self.name, self.since)
    }
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// Those of the calls, in the order in which they came.
    pub entries: Vec<Entry>,
    /// Those of structures and numbers, in that order.
    pub shapes: Vec<Shape>,
}

/// What is promised of `call`.
fn promise(call: &Call) -> String {
    let rules = if call.implemented {
        format!("phase={} caller={} result={}", call.phase, call.caller, call.reply)
    } else {
        format!("phase={} caller={}{NOT_IMPLEMENTED}", call.phase, call.caller)
    };
    let params: Vec<String> = call
        .params
        .iter()
        .map(|param| format!("{}: {}, {}, {:#x}", param.name, param.kind, param.registers, param.bits))
        .collect();
    let errnos: Vec<&str> = call.errnos().into_iter().map(|(_, name)| name).collect();
    format!("{rules} | {} | {}", params.join("; "), errnos.join(" "))
}

impl Lock {
    /// Reads the file.
    ///
    /// # Errors
    /// A line is malformed, or contradicts one before it.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lock = Self::default();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let place = || format!("abi/vsm.lock, line {}", index + 1);
            if let Some(shape) = Shape::parse(line).with_context(|| format!("{}: {line}", place()))? {
                ensure!(shape.since >= lock.version(), "{}: versions ascend", place());
                lock.shapes.push(shape);
                continue;
            }
            let entry = parse_entry(line).with_context(|| format!("{}: {line}", place()))?;
            ensure!(entry.since >= lock.version(), "{}: versions ascend", place());
            for before in &lock.entries {
                ensure!(
                    (before.id == entry.id) == (before.name == entry.name),
                    "{}: {:#x} {} contradicts {:#x} {}: an id and a name belong together for good",
                    place(),
                    entry.id,
                    entry.name,
                    before.id,
                    before.name
                );
            }
            let retired = lock.newest().get(&entry.id).is_some_and(|before| before.promise.is_none());
            ensure!(!retired, "{}: {:#x} has been retired", place(), entry.id);
            lock.entries.push(entry);
        }
        Ok(lock)
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let calls = self.entries.iter().map(|entry| (entry.since, entry.to_string()));
        let mut lines: Vec<_> = calls.chain(self.shapes.iter().map(|shape| (shape.since, shape.to_string()))).collect();
        // Stable: what came with a version stays in its order, and behind what came before.
        lines.sort_by_key(|line| line.0);
        lines.iter().fold(HEAD.to_owned(), |text, (_, line)| format!("{text}{line}\n"))
    }

    /// The ABI's version: that of the newest entry.
    #[must_use]
    pub fn version(&self) -> u32 {
        let calls = self.entries.last().map_or(0, |entry| entry.since);
        self.shapes.last().map_or(0, |shape| shape.since).max(calls)
    }

    /// The newest entry of each id, which is the one that counts.
    fn newest(&self) -> BTreeMap<u64, &Entry> {
        self.entries.iter().map(|entry| (entry.id, entry)).collect()
    }

    /// Since which version there is the call with this id.
    #[must_use]
    pub fn since(&self, id: u64) -> Option<u32> {
        self.entries.iter().find(|entry| entry.id == id).map(|entry| entry.since)
    }

    /// How `table` and the present structures and numbers differ from the promises.
    #[must_use]
    pub fn drifts(&self, table: &Table, present: &[Shape]) -> Vec<Drift> {
        let newest = self.newest();
        let mut drifts = Vec::new();
        for call in &table.calls {
            let name = call.name.clone();
            if let Some(other) = newest.values().find(|entry| entry.name == name && entry.id != call.id) {
                drifts.push(Drift::Renumbered { name, was: other.id, is: call.id });
                continue;
            }
            let Some(entry) = newest.get(&call.id) else {
                drifts.push(Drift::New { name, id: call.id });
                continue;
            };
            if entry.name != name || entry.promise.is_none() {
                drifts.push(Drift::Reused { id: call.id, was: entry.name.clone(), is: name });
                continue;
            }
            let (was, is) = (entry.promise.as_deref().unwrap_or_default(), promise(call));
            if was.contains(NOT_IMPLEMENTED) && !is.contains(NOT_IMPLEMENTED) {
                drifts.push(Drift::Implemented { name });
                continue;
            }
            let parts = was.split(" | ").zip(is.split(" | ")).zip(["rules", "parameters", "errnos"]);
            for ((was, is), what) in parts.filter(|((was, is), _)| was != is) {
                drifts.push(Drift::Changed { name: name.clone(), what, was: was.to_owned(), is: is.to_owned() });
            }
        }
        for entry in newest.values().filter(|entry| entry.promise.is_some()) {
            if !table.calls.iter().any(|call| call.id == entry.id || call.name == entry.name) {
                drifts.push(Drift::Gone { name: entry.name.clone(), id: entry.id });
            }
        }
        drifts.extend(shapes::drifts(&self.shapes, present));
        drifts
    }

    /// Adds the entries that `table`, the present structures and numbers need. With `accept` also those that change a promise.
    ///
    /// # Errors
    /// The table breaks a promise, and may not.
    pub fn update(&mut self, table: &Table, present: &[Shape], accept: bool) -> Result<()> {
        let drifts = self.drifts(table, present);
        let refused: Vec<String> = drifts
            .iter()
            .filter(|drift| drift.is_forbidden() || !(accept || drift.is_harmless()))
            .map(ToString::to_string)
            .collect();
        ensure!(refused.is_empty(), "{}", refused.join("\n"));
        let since = self.version() + 1;
        self.shapes.extend(shapes::additions(&self.shapes, present, since));
        for call in &table.calls {
            let (is, entry) = (promise(call), self.newest().get(&call.id).copied().cloned());
            if entry.is_none_or(|entry| entry.promise.as_deref() != Some(is.as_str())) {
                self.entries.push(Entry { id: call.id, name: call.name.clone(), since, promise: Some(is) });
            }
        }
        for drift in drifts {
            if let Drift::Gone { name, id } = drift {
                self.entries.push(Entry { id, name, since, promise: None });
            }
        }
        Ok(())
    }
}

fn parse_entry(line: &str) -> Result<Entry> {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().context("an entry has an id, a name, a version and a promise");
    let id = word()?.strip_prefix("0x").context("an id is written in hexadecimal")?;
    let id = u64::from_str_radix(id, 16)?;
    let name = word()?.to_owned();
    let since = word()?.strip_prefix("since=").context("a version is written `since=`")?.parse()?;
    let promise = match word()? {
        "retired" => None,
        promise => {
            ensure!(promise.split(" | ").count() == 3, "a promise has rules, parameters and errnos");
            Some(promise.to_owned())
        }
    };
    Ok(Entry { id, name, since, promise })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::model::Param;
    use crate::abi::shapes::present;

    /// The calls of the contract, and a lock that promises them.
    fn sound() -> (Table, Lock) {
        let mut table = Table::built_in().unwrap();
        table.calls.retain(|call| call.id <= 0x1_fff0);
        let mut lock = Lock::default();
        lock.update(&table, &present(0), false).unwrap();
        assert_eq!(Lock::parse(&lock.text()).unwrap(), lock);
        assert_eq!((lock.drifts(&table, &present(0)), lock.version()), (vec![], 1));
        (table, lock)
    }

    /// The one drift of `table`; it is refused, by these words.
    fn refused(lock: &Lock, table: &Table, accept: bool, words: &str) -> Drift {
        let [drift] = lock.drifts(table, &present(0)).try_into().expect("one drift");
        assert!(drift.to_string().contains(words), "{drift}");
        let error = lock.clone().update(table, &present(0), accept).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        drift
    }

    #[test]
    fn an_id_that_is_renumbered_is_found() {
        let (mut table, lock) = sound();
        let last = table.calls.last_mut().unwrap();
        last.id += 1;
        refused(&lock, &table, true, "was renumbered from 0x1fff0 to 0x1fff1");
    }

    #[test]
    fn an_id_that_is_given_to_another_call_is_found() {
        let (mut table, lock) = sound();
        "OpteeMessage2".clone_into(&mut table.calls.last_mut().unwrap().name);
        refused(&lock, &table, true, "0x1fff0 belongs to OpteeMessage");
    }

    #[test]
    fn an_id_that_was_retired_is_found_when_it_is_used_again() {
        let (mut table, mut lock) = sound();
        let retired = table.calls.remove(3);
        assert!(matches!(refused(&lock, &table, false, "is gone"), Drift::Gone { id: 0x1_ffe3, .. }));
        lock.update(&table, &present(0), true).unwrap();
        assert_eq!((lock.drifts(&table, &present(0)), lock.version()), (vec![], 2));
        assert_eq!(Lock::parse(&lock.text()).unwrap(), lock, "the retired id is kept");
        for name in ["SignalEndOfBoot", "Another"] {
            table.calls.insert(3, Call { name: name.to_owned(), ..retired.clone() });
            refused(&lock, &table, true, "0x1ffe3 belongs to SignalEndOfBoot");
            table.calls.remove(3);
        }
    }

    #[test]
    fn a_parameter_that_changes_is_found() {
        let changes: [fn(&mut Vec<Param>); 4] = [
            |params| params[0].bits = 1,
            |params| params[0].kind.push('s'),
            |params| params[0].name.push('s'),
            |params| drop(params.pop()),
        ];
        for change in changes {
            let (mut table, mut lock) = sound();
            change(&mut table.calls[4].params);
            refused(&lock, &table, false, "the parameters of ProtectMemory changed");
            lock.update(&table, &present(0), true).unwrap();
            assert_eq!(
                (lock.drifts(&table, &present(0)), lock.version(), lock.entries.len()),
                (vec![], 2, table.calls.len() + 1)
            );
        }
    }

    #[test]
    fn an_errno_that_comes_or_goes_is_found() {
        let (mut table, lock) = sound();
        let gone = table.calls[5].errors.iter().position(|error| error.name == "EBUSY").unwrap();
        table.calls[5].errors.remove(gone);
        refused(&lock, &table, false, "the errnos of LoadKData changed");
        let (mut table, lock) = sound();
        let mut error = table.calls[5].errors[0].clone();
        (error.number, error.name) = (34, "ERANGE".to_owned());
        table.calls[5].errors.push(error);
        refused(&lock, &table, false, "the errnos of LoadKData changed");
    }

    #[test]
    fn a_rule_that_changes_is_found() {
        let (mut table, lock) = sound();
        "any".clone_into(&mut table.calls[2].phase);
        refused(&lock, &table, false, "the rules of LockRegs changed");
    }

    #[test]
    fn to_implement_a_call_breaks_no_promise_and_to_take_it_back_does() {
        let (mut table, mut lock) = sound();
        let entries = lock.entries.len();
        let taken = Call { id: 0x1_ffff, name: "Taken".to_owned(), implemented: false, ..table.calls[0].clone() };
        table.calls.push(taken);
        lock.update(&table, &present(0), false).unwrap();
        table.calls.last_mut().unwrap().implemented = true;
        assert_eq!(lock.drifts(&table, &present(0)), [Drift::Implemented { name: "Taken".to_owned() }]);
        lock.update(&table, &present(0), false).unwrap();
        assert_eq!((lock.drifts(&table, &present(0)), lock.version(), lock.entries.len()), (vec![], 3, entries + 2));
        table.calls.last_mut().unwrap().implemented = false;
        refused(&lock, &table, false, "the rules of Taken changed");
    }

    #[test]
    fn words_that_only_explain_are_no_promise() {
        let (mut table, lock) = sound();
        for call in &mut table.calls {
            call.doc.push_str(" More.");
            call.errors.iter_mut().for_each(|error| error.when.push('.'));
        }
        assert_eq!(lock.drifts(&table, &present(0)), []);
    }

    #[test]
    fn a_new_call_gets_an_entry_and_a_version() {
        let (mut table, mut lock) = sound();
        let new = Call { id: 0x1_fff1, name: "New".to_owned(), ..table.calls[0].clone() };
        table.calls.push(new);
        assert_eq!(lock.drifts(&table, &present(0)), [Drift::New { name: "New".to_owned(), id: 0x1_fff1 }]);
        lock.update(&table, &present(0), false).unwrap();
        assert_eq!((lock.drifts(&table, &present(0)), lock.version(), lock.since(0x1_fff1)), (vec![], 2, Some(2)));
    }

    #[test]
    fn a_lock_that_contradicts_itself_is_refused() {
        let entry = |id: &str, name: &str, since: u32| format!("{id} {name} since={since} phase=any |  | EIO\n");
        let first = entry("0x10", "One", 1);
        assert!(Lock::parse(&first).is_ok());
        for (second, words) in [
            (entry("0x10", "Two", 1), "belong together"),
            (entry("0x11", "One", 2), "belong together"),
            (entry("0x11", "Two", 0), "versions ascend"),
            (format!("0x10 One since=1 retired\n{first}"), "has been retired"),
            ("0x11 Two since=1 phase=any\n".to_owned(), "a promise has"),
            ("17 Two since=1 retired\n".to_owned(), "hexadecimal"),
        ] {
            let error = format!("{:#}", Lock::parse(&format!("{first}{second}")).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }
}
