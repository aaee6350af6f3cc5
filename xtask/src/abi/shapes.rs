//! What is promised of the structures and numbers in memory: a line each of `abi/vsm.lock`, as for a call.
//!
//! Layout and values are the promise; what a field or a number means is explained elsewhere.

use std::fmt;

use anyhow::{Context, Result, ensure};

use super::drift::Drift;
use super::layout::{Field, NUMBERS, Numbers, STRUCTURES, Structure};

/// Stands for a promise that no longer holds.
const RETIRED: &str = "retired";

/// An entry: a structure or a group of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `struct` and its tag, or `numbers` and what their names begin with.
    pub name: String,
    /// The version of the ABI it came with.
    pub since: u32,
    /// Layout or values.
    pub promise: String,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} since={} {}", self.name, self.since, self.promise)
    }
}

impl Shape {
    /// Reads a line; `None` if it is a call's.
    ///
    /// # Errors
    /// It begins like an entry and is malformed.
    pub fn parse(line: &str) -> Result<Option<Self>> {
        if !line.starts_with("struct ") && !line.starts_with("numbers ") {
            return Ok(None);
        }
        let (name, rest) = line.split_once(" since=").context("a version is written `since=`")?;
        let (since, promise) = rest.split_once(' ').context("an entry has a promise")?;
        ensure!(name.split(' ').count() == 2, "a structure or group has one name");
        Ok(Some(Self { name: name.to_owned(), since: since.parse()?, promise: promise.to_owned() }))
    }

    /// What the promise is about.
    fn subject(&self) -> &'static str {
        if self.name.starts_with("struct ") { "layout" } else { "values" }
    }
}

/// All present structures and numbers, as if each had come with version `since`.
#[must_use]
pub fn present(since: u32) -> Vec<Shape> {
    let structures = STRUCTURES.iter().map(|one| (format!("struct {}", one.name), layout(one)));
    let numbers = NUMBERS.iter().map(|group| (format!("numbers {}", group.prefix), values(group)));
    structures.chain(numbers).map(|(name, promise)| Shape { name, since, promise }).collect()
}

fn layout(structure: &Structure) -> String {
    let relation = if structure.open_ended { ">=" } else { "=" };
    let field = |Field { name, ty, count, offset, .. }: &Field| match count {
        0 => format!("{name}: {ty} @{offset}"),
        count => format!("{name}: {ty}[{count}] @{offset}"),
    };
    let fields: Vec<String> = structure.fields.iter().map(field).collect();
    format!("size{relation}{} | {}", structure.size, fields.join("; "))
}

fn values(numbers: &Numbers) -> String {
    numbers.values.iter().map(|(name, value, _)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The newest entry of a name, which is the one that counts.
fn newest<'a>(promised: &'a [Shape], name: &str) -> Option<&'a Shape> {
    promised.iter().rev().find(|shape| shape.name == name)
}

/// How `present` differs from what was promised.
#[must_use]
pub fn drifts(promised: &[Shape], present: &[Shape]) -> Vec<Drift> {
    let mut drifts = Vec::new();
    for is in present {
        let name = is.name.clone();
        match newest(promised, &name) {
            None => drifts.push(Drift::NewShape { name }),
            Some(was) if was.promise != is.promise => {
                let (was, is, what) = (was.promise.clone(), is.promise.clone(), is.subject());
                drifts.push(Drift::Changed { name, what, was, is });
            }
            Some(_) => {}
        }
    }
    for (at, was) in promised.iter().enumerate().filter(|(_, was)| was.promise != RETIRED) {
        let is_newest = promised.iter().skip(at + 1).all(|later| later.name != was.name);
        if is_newest && !present.iter().any(|is| is.name == was.name) {
            drifts.push(Drift::GoneShape { name: was.name.clone() });
        }
    }
    drifts
}

/// The entries that the lock lacks.
#[must_use]
pub fn additions(promised: &[Shape], present: &[Shape], since: u32) -> Vec<Shape> {
    let mut added = Vec::new();
    for drift in drifts(promised, present) {
        match drift {
            Drift::GoneShape { name } => added.push(Shape { name, since, promise: RETIRED.to_owned() }),
            Drift::NewShape { name } | Drift::Changed { name, .. } => {
                added.extend(newest(present, &name).map(|is| Shape { since, ..is.clone() }));
            }
            _ => {}
        }
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::lock::Lock;
    use crate::abi::model::Table;

    /// The change is refused, and with `--accept` takes a version and a line.
    fn refused(change: fn(&mut Vec<Shape>), words: &str) {
        let table = Table::built_in().unwrap();
        let mut lock = Lock::default();
        lock.update(&table, &present(0), false).unwrap();
        let before = lock.text();
        let mut changed = present(0);
        change(&mut changed);
        let [drift] = lock.drifts(&table, &changed).try_into().expect("one drift");
        assert!(drift.to_string().contains(words), "{drift}");
        assert!(lock.update(&table, &changed, false).unwrap_err().to_string().contains(words));
        lock.update(&table, &changed, true).unwrap();
        assert_eq!((lock.drifts(&table, &changed), lock.version()), (vec![], 2));
        assert!(lock.text().starts_with(&before) && lock.text().lines().count() == before.lines().count() + 1);
        assert_eq!(Lock::parse(&lock.text()).unwrap(), lock);
    }

    const OTHER: &[Field] = &[Field { name: "va", ty: "__u32", count: 2, offset: 4, doc: "" }];

    #[test]
    fn a_structure_that_changes_or_goes_is_found() {
        refused(
            |shapes| shapes[0].promise = layout(&Structure { size: 40, ..STRUCTURES[0] }),
            "layout of struct heki_range",
        );
        refused(
            |shapes| shapes[0].promise = layout(&Structure { fields: &STRUCTURES[0].fields[..3], ..STRUCTURES[0] }),
            "layout of struct heki_range",
        );
        refused(
            |shapes| shapes[0].promise = layout(&Structure { fields: OTHER, ..STRUCTURES[0] }),
            "to `size=32 | va: __u32[2] @4`",
        );
        refused(|shapes| drop(shapes.remove(0)), "struct heki_range is gone");
    }

    #[test]
    fn a_number_that_changes_comes_or_goes_is_found() {
        refused(
            |shapes| {
                shapes.last_mut().unwrap().promise =
                    values(&Numbers { values: &[("HEKI_JUMP_LABEL", 1, "")], ..NUMBERS[5] });
            },
            "the values of numbers VSM_ changed from `HEKI_JUMP_LABEL=0 HEKI_STATIC_CALL=1` to `HEKI_JUMP_LABEL=1`",
        );
        refused(|shapes| shapes.last_mut().unwrap().promise.push_str(" MORE=2"), "the values of numbers VSM_");
        refused(|shapes| drop(shapes.pop()), "numbers VSM_ is gone");
    }

    #[test]
    fn a_structure_that_is_new_gets_an_entry_unasked() {
        let table = Table::built_in().unwrap();
        let (mut lock, all) = (Lock::default(), present(0));
        lock.update(&table, &all[1..], false).unwrap();
        assert_eq!(lock.drifts(&table, &all), [Drift::NewShape { name: "struct heki_range".to_owned() }]);
        lock.update(&table, &all, false).unwrap();
        assert_eq!((lock.drifts(&table, &all), lock.version()), (vec![], 2));
    }

    #[test]
    fn names_are_told_apart() {
        let all = present(0);
        for shape in &all {
            assert_eq!(all.iter().filter(|other| other.name == shape.name).count(), 1, "{}", shape.name);
        }
        assert!(
            Shape::parse("struct a b since=1 size=1 | ").is_err() && Shape::parse("numbers A since=x A=1").is_err()
        );
        assert_eq!(Shape::parse("0x10 One since=1 retired").unwrap(), None);
    }
}
