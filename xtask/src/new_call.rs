//! Adding a call: `cargo xtask new-call NAME`.
//!
//! Everything that a declared call needs so that all is green: the row, a handler that answers -ENOTSUP, its documentation to be
//! filled in, a test, a step of the simulator's life, and what follows from the row. What it does is in the page
//! `docs/src/adding-a-call.md`; nothing is written unless all of it can be.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use litebox_platform_lvbs::vsm::{VSM_BASE, VsmFunction};

use crate::abi::{locked_calls, snake_case};
use crate::lint::host_cargo;
use crate::process::run;

/// What to add.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The call's name, as `QueryModule`.
    pub name: String,
}

/// Places of the table: the gate keeps a bit for each.
const MOST_PLACES: u64 = 64;
/// Words of the language (Rust reference, "Keywords", edition 2024), reserved ones included; no name of a function or module.
const KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final fn \
    for gen if impl in let loop macro match mod move mut override priv pub ref return Self self static struct super trait \
    true try type typeof unsafe unsized use virtual where while yield";
const DECLARATION: &str = "litebox_platform_lvbs/src/vsm/function.rs";
const HANDLERS: &str = "vsm_handlers/src/lib.rs";
const TESTS: &str = "vsm_handlers/tests/calls/main.rs";
const STORY: &str = "vsm_sim/src/trials/run/story_calls.rs";

/// Adds it, and renews what follows from the table.
///
/// # Errors
/// The name is taken or not one, the table is full, or a file is not as it is expected to be.
pub fn execute(root: &Path, options: &Options) -> Result<()> {
    let locked = locked_calls(root)?;
    ensure_free(&options.name, &locked)?;
    let id = fresh_id(&locked)?;
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"));
    let edits = edits(&options.name, id, &read)?;
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

/// The id behind all that ever were.
fn fresh_id(locked: &[(u64, String)]) -> Result<u64> {
    let declared = VsmFunction::ALL.iter().map(|function| function.id());
    let last = declared.chain(locked.iter().map(|call| call.0)).max().context("there is no call")?;
    let id = last.checked_add(1).filter(|id| *id < VSM_BASE + MOST_PLACES);
    id.context("the table is full: 64 places are all that the gate has bits for")
}

/// Whether no call has or had the name, and its modules and functions may be called so.
fn ensure_free(name: &str, locked: &[(u64, String)]) -> Result<()> {
    let snake = snake_case(name);
    // Calls whose handlers would have one name have one file.
    if let Some((id, taken)) = locked.iter().find(|(_, locked)| snake_case(locked) == snake) {
        bail!("{taken} is call {id:#x} in abi/vsm.lock, or was: a name is used once, as {name} would not be");
    }
    for word in [name, snake.as_str()] {
        ensure!(
            KEYWORDS.split_whitespace().all(|keyword| keyword != word),
            "{word} is a word of Rust's own: {name} cannot be a call"
        );
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
fn edits(name: &str, id: u64, read: &dyn Fn(&str) -> Result<String>) -> Result<Vec<Edit>> {
    let is_name = name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric())
        && name.chars().any(|letter| letter.is_ascii_lowercase());
    ensure!(is_name, "a call's name is made of words that begin with a capital, as QueryModule: {name}");
    if let Some(taken) = VsmFunction::ALL.iter().find(|function| function.name() == name) {
        bail!("{name} is call {:#x} already", taken.id());
    }
    let snake = snake_case(name);
    let old = |path: &str, text: String| Edit { path: path.into(), text, is_new: false };
    let new = |path: String, text: String| Edit { path: path.into(), text, is_new: true };
    let hex = format!("{id:x}");
    let (high, low) = hex.split_at(hex.len().saturating_sub(4));
    let row = format!("    /// {name}: what VTL0 asks of VTL1, in a sentence.\n    {name} = 0x{high}_{low},\n");
    let step = format!("    stage.call(vtl0, F::{name}, [0; 3], \"-ENOTSUP\")?;\n");
    let handlers = with_module(&read(HANDLERS)?, &snake)?;
    let story = insert_before_last(&read(STORY)?, "    Ok(())\n", &step)?;
    Ok(vec![
        old(DECLARATION, insert_before_first(&read(DECLARATION)?, "}\n\n#[cfg(test)]\n", &row)?),
        old(
            HANDLERS,
            insert_before_first(&handlers, "//! | [`intercept`] |", &format!("//! | `{snake}` | {name} |\n"))?,
        ),
        new(format!("vsm_handlers/src/{snake}.rs"), handler(name, &snake)),
        old(TESTS, with_module(&read(TESTS)?, &snake)?),
        new(format!("vsm_handlers/tests/calls/{snake}.rs"), test(name)),
        old(STORY, with_functions(&story)?),
    ])
}

fn handler(name: &str, snake: &str) -> String {
    format!(
        "//! {name}.\n//!\n//! What it is for, and what it trusts.\n\nuse vsm_macros::vsm_handler;\n\n\
         /// {name}: what it does, and what holds after an error.\n\
         #[vsm_handler(VsmFunction::{name}, phase = any, caller = any, not_implemented)]\nfn {snake}() {{}}\n"
    )
}

fn test(name: &str) -> String {
    format!(
        "//! {name} through the real table.\n\nuse litebox_platform_lvbs::vsm::VsmFunction;\n\n\
         use crate::common::{{BOOT_VP, Machine, call, end_boot, kernel}};\n\n\
         #[test]\nfn is_declared_and_not_implemented() {{\n    let platform = kernel(&Machine::default());\n    \
         let id = VsmFunction::{name}.id();\n    assert_eq!(call(&platform, BOOT_VP, [id, 0, 0, 0]), -95);\n    \
         end_boot(&platform);\n    assert_eq!(call(&platform, BOOT_VP, [id, 0, 0, 0]), -95);\n}}\n"
    )
}

/// `text` with `added` before the first place where `mark` stands.
fn insert_before_first(text: &str, mark: &str, added: &str) -> Result<String> {
    let at = text.find(mark).with_context(|| format!("there is no {mark:?} to write before"))?;
    let (before, after) = text.split_at(at);
    Ok(format!("{before}{added}{after}"))
}

/// The same for the last place.
fn insert_before_last(text: &str, mark: &str, added: &str) -> Result<String> {
    let at = text.rfind(mark).with_context(|| format!("there is no {mark:?} to write before"))?;
    let (before, after) = text.split_at(at);
    Ok(format!("{before}{added}{after}"))
}

/// `text` with `mod name;` among its modules, in order.
fn with_module(text: &str, name: &str) -> Result<String> {
    let line = format!("mod {name};");
    let module = |line: &str| line.trim_start_matches("pub ").strip_prefix("mod ").map(str::to_owned);
    let mut lines: Vec<&str> = text.lines().collect();
    let wanted = format!("{name};");
    let after = lines.iter().rposition(|line| module(line).is_some_and(|other| other < wanted));
    let first = lines.iter().position(|line| module(line).is_some());
    let at = after.map(|at| at + 1).or(first).context("there are no modules to put one among")?;
    lines.insert(at, &line);
    Ok(lines.join("\n") + "\n")
}

/// The story's file with the calls' names imported, which it has no need of before it names one.
fn with_functions(text: &str) -> Result<String> {
    const WITHOUT: &str = "use litebox_platform_lvbs::vsm::{VSM_BASE, VSM_TABLE_LEN};\n";
    const WITH: &str = "use litebox_platform_lvbs::vsm::{VSM_BASE, VSM_TABLE_LEN, VsmFunction as F};\n";
    ensure!(text.contains(WITHOUT) || text.contains(WITH), "{STORY} has no line {WITHOUT:?}");
    Ok(text.replace(WITHOUT, WITH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn of(name: &str) -> Result<Vec<Edit>> {
        let root = workspace::root();
        edits(name, 0x1_fff7, &|path| Ok(fs::read_to_string(root.join(path))?))
    }

    #[test]
    fn every_file_gets_what_it_needs() {
        let edits = of("FrobAPsTwice").unwrap();
        let text = |path: &str| &edits.iter().find(|edit| edit.path == Path::new(path)).unwrap().text;
        assert!(text(DECLARATION).contains("    FrobAPsTwice = 0x1_fff7,\n}\n"));
        assert!(text(HANDLERS).contains("\nmod frob_aps_twice;\n"));
        assert!(text(HANDLERS).contains("//! | `frob_aps_twice` | FrobAPsTwice |\n//! | [`intercept`]"));
        assert!(text(TESTS).contains("\nmod frob_aps_twice;\n"));
        assert!(text(STORY).contains("    stage.call(vtl0, F::FrobAPsTwice, [0; 3], \"-ENOTSUP\")?;\n    Ok(())\n"));
        assert!(text(STORY).contains("VsmFunction as F"));
        assert!(text("vsm_handlers/src/frob_aps_twice.rs").contains("fn frob_aps_twice() {}"));
        assert!(text("vsm_handlers/tests/calls/frob_aps_twice.rs").contains("VsmFunction::FrobAPsTwice.id()"));
    }

    #[test]
    fn a_name_that_is_none_or_taken_is_refused() {
        for name in ["frobnicate", "Frob_nicate", "FROB", "", "Frob nicate", "../Frob"] {
            assert!(of(name).unwrap_err().to_string().contains("a call's name"), "{name}");
        }
        assert!(of("LockRegs").unwrap_err().to_string().contains("is call 0x1ffe2 already"));
    }

    #[test]
    fn a_word_of_rusts_own_is_refused() {
        for name in ["Move", "Match", "Self", "Async", "Yield", "Type", "Try", "Gen"] {
            let error = ensure_free(name, &[]).expect_err(name).to_string();
            assert!(error.contains("a word of Rust's own"), "{error}");
        }
        ensure_free("MoveAll", &[]).unwrap();
    }

    #[test]
    fn a_name_in_the_lock_is_refused_also_when_it_is_retired() {
        let locked = [(0x1_fff7, "FrobAPs".to_owned())];
        for name in ["FrobAPs", "FrobAps"] {
            let error = ensure_free(name, &locked).expect_err(name).to_string();
            assert!(error.contains("FrobAPs is call 0x1fff7 in abi/vsm.lock, or was"), "{error}");
        }
        ensure_free("FrobAPsTwice", &locked).unwrap();
    }

    #[test]
    fn an_id_is_fresh_also_after_a_retired_one() {
        let last = VsmFunction::ALL.map(VsmFunction::id).into_iter().max().unwrap();
        assert_eq!(fresh_id(&[]).unwrap(), last + 1);
        assert_eq!(fresh_id(&[(last + 5, String::new())]).unwrap(), last + 6);
        assert!(fresh_id(&[(VSM_BASE + 63, String::new())]).is_err());
    }

    #[test]
    fn modules_are_in_order() {
        assert_eq!(with_module("mod b;\npub mod d;\n", "c").unwrap(), "mod b;\nmod c;\npub mod d;\n");
        assert_eq!(with_module("x\nmod b;\n", "a").unwrap(), "x\nmod a;\nmod b;\n");
        assert!(with_module("x\n", "a").is_err());
    }
}
