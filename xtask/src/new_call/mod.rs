//! Adding a call: `cargo xtask new-call NAME`.
//!
//! Writes what a declared call needs to pass every check: the row, a handler that answers -ENOTSUP with its documentation to
//! be filled in, a test, a step of the simulator's life, and what follows from the row. The page `docs/src/adding-a-call.md`
//! goes on from there. Nothing is written unless all of it can be.

mod insert;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use litebox_platform_lvbs::vsm::{VSM_BASE, VSM_MAX_TABLE_LEN, VsmFunction};

use crate::abi::{locked_calls, snake_case};
use crate::lint::host_cargo;
use crate::process::run;
use crate::run::parse_size;

/// What to add.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The call's name, as `QueryModule`.
    pub name: String,
    /// The id VTL0 passes, decimal or 0x…: one that no call has or had. Without it the one after the last.
    #[arg(long, value_parser = parse_size)]
    pub id: Option<u64>,
    /// When the call may be made.
    #[arg(long, default_value = "any", value_parser = ["boot", "runtime", "any"])]
    pub phase: String,
    /// Which processor may make it: the boot processor or any.
    #[arg(long, default_value = "any", value_parser = ["bsp", "any"])]
    pub caller: String,
}

/// Words of the language (Rust reference, "Keywords", edition 2024), reserved ones included; no name of a function or module.
const KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final fn \
    for gen if impl in let loop macro match mod move mut override priv pub ref return Self self static struct super trait \
    true try type typeof unsafe unsized use virtual where while yield";
const DECLARATION: &str = "litebox_platform_lvbs/src/vsm/function.rs";
const HANDLERS: &str = "vsm_handlers/src/lib.rs";
const TESTS: &str = "vsm_handlers/tests/calls/main.rs";
const STORY: &str = "vsm_sim/src/trials/run/story_calls.rs";

/// Adds the call, and renews what follows from the table.
pub fn execute(root: &Path, options: &Options) -> Result<()> {
    let locked = locked_calls(root)?;
    ensure_name(&options.name, &locked)?;
    let id = choose_id(options.id, &locked)?;
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"));
    let edits = edits(options, id, &read)?;
    for Edit { path, .. } in edits.iter().filter(|edit| edit.is_new) {
        ensure!(!root.join(path).exists(), "{} is there already", path.display());
    }
    for Edit { path, text, .. } in &edits {
        fs::write(root.join(path), text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    // By a program that has been built with the new row.
    run(host_cargo(root).args(["run", "--quiet", "--package", "xtask", "--", "abi"]))?;
    println!("\n{} is call {id:#x} and answers -ENOTSUP. What comes next: docs/src/adding-a-call.md", options.name);
    Ok(())
}

/// The id that was asked for, which no call may have or have had; without one the id after all that ever were.
fn choose_id(wanted: Option<u64>, locked: &[(u64, String)]) -> Result<u64> {
    let declared = VsmFunction::ALL.iter().map(|function| (function.id(), function.name()));
    let mut taken = declared.chain(locked.iter().map(|(id, name)| (*id, name.as_str())));
    let last = VSM_BASE + VSM_MAX_TABLE_LEN as u64 - 1;
    let Some(id) = wanted else {
        let id = taken.map(|(id, _)| id).max().map_or(VSM_BASE, |id| id + 1);
        ensure!(id <= last, "the table is full: the gate has bits for {VSM_MAX_TABLE_LEN} places");
        return Ok(id);
    };
    ensure!((VSM_BASE..=last).contains(&id), "{id:#x} is outside the table: ids lie in {VSM_BASE:#x}..={last:#x}");
    if let Some((_, name)) = taken.find(|(other, _)| *other == id) {
        bail!("{id:#x} belongs to {name}, for good even if that is retired (abi/vsm.lock)");
    }
    Ok(id)
}

/// Checks that this can be a call's name, and that no call has or had it.
fn ensure_name(name: &str, locked: &[(u64, String)]) -> Result<()> {
    let is_name = name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric())
        && name.chars().any(|letter| letter.is_ascii_lowercase());
    ensure!(is_name, "a call's name is made of words that begin with a capital, as QueryModule: {name}");
    let snake = snake_case(name);
    let declared = VsmFunction::ALL.iter().map(|function| (function.id(), function.name()));
    let mut taken = declared.chain(locked.iter().map(|(id, name)| (*id, name.as_str())));
    // Calls whose handlers would have one name have one file.
    if let Some((id, taken)) = taken.find(|(_, taken)| snake_case(taken) == snake) {
        bail!("{taken} is or was call {id:#x} (abi/vsm.lock): {name} cannot be another");
    }
    for word in [name, snake.as_str()] {
        let is_keyword = KEYWORDS.split_whitespace().any(|keyword| keyword == word);
        ensure!(!is_keyword, "{word} is a word of Rust's own: {name} cannot be a call");
    }
    Ok(())
}

/// A file to write.
#[derive(Debug)]
struct Edit {
    path: PathBuf,
    text: String,
    is_new: bool,
}

/// All files, with their new text.
fn edits(options: &Options, id: u64, read: &dyn Fn(&str) -> Result<String>) -> Result<Vec<Edit>> {
    let Options { name, phase, caller, .. } = options;
    let snake = snake_case(name);
    // What the gate lets through answers -ENOTSUP.
    let (before, after) = (phase != "runtime", phase != "boot");
    let number = |passes: bool| if passes { "Errno::ENOTSUP.to_result()" } else { "Errno::EPERM.to_result()" };
    let filled_in = |template: &str| {
        let words = [("NAME", name.as_str()), ("SNAKE", &snake), ("PHASE", phase), ("CALLER", caller)];
        let words = words.into_iter().chain([("BEFORE", number(before)), ("AFTER", number(after))]);
        words.fold(template.to_owned(), |text, (word, value)| text.replace(word, value))
    };
    let change = |path: &'static str, changed: &dyn Fn(&str) -> Result<String>| {
        let text = changed(&read(path)?).with_context(|| format!("{path} is not as expected"))?;
        Ok::<_, anyhow::Error>(Edit { path: path.into(), text, is_new: false })
    };
    let new = |path: String, template| Edit { path: path.into(), text: filled_in(template), is_new: true };
    let errno = if after { "-ENOTSUP" } else { "-EPERM" };
    let step = format!("stage.call(vtl0, F::{name}, [0; 3], \"{errno}\")?;");
    Ok(vec![
        change(DECLARATION, &|text| insert::row(text, name, id))?,
        change(HANDLERS, &|text| insert::module(&insert::table_line(text, &format!("`{snake}` | {name}"))?, &snake))?,
        new(format!("vsm_handlers/src/{snake}.rs"), include_str!("handler.txt")),
        change(TESTS, &|text| insert::module(text, &snake))?,
        new(format!("vsm_handlers/tests/calls/{snake}.rs"), include_str!("test.txt")),
        change(STORY, &|text| insert::last_step(text, "play", &step))?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn edits_for(name: &str, phase: &str) -> Vec<Edit> {
        let root = workspace::root();
        let options = Options { name: name.to_owned(), id: None, phase: phase.to_owned(), caller: "bsp".to_owned() };
        edits(&options, last_declared() + 6, &|path| Ok(fs::read_to_string(root.join(path))?)).unwrap()
    }

    fn last_declared() -> u64 {
        VsmFunction::ALL.map(VsmFunction::id).into_iter().max().unwrap()
    }

    #[test]
    fn every_file_gets_what_it_needs() {
        let (implemented, phase_rule) = ("ENOTSUP", "EPERM");
        for (phase, before, after) in
            [("any", implemented, implemented), ("boot", implemented, phase_rule), ("runtime", phase_rule, implemented)]
        {
            let edits = edits_for("FrobAPsTwice", phase);
            let text = |path: &str| &edits.iter().find(|edit| edit.path == Path::new(path)).unwrap().text;
            let row = format!("FrobAPsTwice = {},\n}}\n", insert::id_literal(last_declared() + 6));
            assert!(text(DECLARATION).contains(&row), "{row}");
            assert!(text(HANDLERS).contains("\nmod frob_aps_twice;\n"));
            assert!(text(HANDLERS).contains("\n//! | `frob_aps_twice` | FrobAPsTwice |\n"));
            assert!(text(TESTS).contains("\nmod frob_aps_twice;\n"));
            let step = format!("\n    stage.call(vtl0, F::FrobAPsTwice, [0; 3], \"-{after}\")?;\n    Ok(())\n}}\n");
            assert!(text(STORY).contains(&step), "{step}");
            let handler = text("vsm_handlers/src/frob_aps_twice.rs");
            assert!(handler.contains(&format!("FrobAPsTwice, phase = {phase}, caller = bsp, not_implemented)]\n")));
            assert!(handler.contains("\nfn frob_aps_twice() {}\n"));
            let written = text("vsm_handlers/tests/calls/frob_aps_twice.rs");
            let positions = [before, after]
                .map(|errno| written.find(&format!("[id, 0, 0, 0]), Errno::{errno}.to_result());\n")).unwrap());
            assert!(before == after || positions.is_sorted(), "{written}");
        }
    }

    #[test]
    fn a_name_that_is_none_or_taken_is_refused() {
        for name in ["frobnicate", "Frob_nicate", "FROB", "", "Frob nicate", "../Frob"] {
            assert!(ensure_name(name, &[]).unwrap_err().to_string().contains("a call's name"), "{name}");
        }
        let lock_regs = format!("LockRegs is or was call {:#x}", VsmFunction::LockRegs.id());
        assert!(ensure_name("LockRegs", &[]).unwrap_err().to_string().contains(&lock_regs));
        let locked = [(0x2_0000, "FrobAPs".to_owned())];
        for name in ["FrobAPs", "FrobAps"] {
            let error = ensure_name(name, &locked).expect_err(name).to_string();
            assert!(error.contains("FrobAPs is or was call 0x20000 (abi/vsm.lock)"), "{error}");
        }
        ensure_name("FrobAPsTwice", &locked).unwrap();
    }

    #[test]
    fn a_word_of_rusts_own_is_refused() {
        for name in ["Move", "Match", "Self", "Async", "Yield", "Type", "Try", "Gen"] {
            let error = ensure_name(name, &[]).expect_err(name).to_string();
            assert!(error.contains("a word of Rust's own"), "{error}");
        }
        ensure_name("MoveAll", &[]).unwrap();
    }

    #[test]
    fn an_id_is_fresh_also_after_a_retired_one() {
        let last = last_declared();
        assert_eq!(choose_id(None, &[]).unwrap(), last + 1);
        assert_eq!(choose_id(None, &[(last + 5, String::new())]).unwrap(), last + 6);
        assert!(choose_id(None, &[(VSM_BASE + 63, String::new())]).is_err());
    }

    #[test]
    fn an_id_can_be_chosen_if_no_call_has_or_had_it() {
        let (first, hole) = (VsmFunction::ALL[0], last_declared() + 3);
        let locked = [(hole + 1, "Frob".to_owned())];
        assert_eq!(choose_id(Some(hole), &locked).unwrap(), hole);
        let refused = |id: u64, words: &str| {
            let error = choose_id(Some(id), &locked).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(first.id(), &format!("belongs to {}", first.name()));
        refused(hole + 1, "belongs to Frob");
        refused(VSM_BASE - 1, "is outside the table");
        refused(VSM_BASE + VSM_MAX_TABLE_LEN as u64, "is outside the table");
    }
}
