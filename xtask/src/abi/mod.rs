//! Everything that follows from the table of the calls: `cargo xtask abi`.
//!
//! `abi/` is written from the rows that this program was built with, and `--check` says whether it still agrees with them.
//! The lock beside the other files keeps what VTL0 was promised before.

mod compile;
mod drift;
pub mod dump;
mod header;
mod history;
mod layout;
mod lock;
mod model;
mod page;
mod readme;
mod shapes;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use litebox_platform_lvbs::vsm::{VSM_RESERVED, describe};

pub use compile::{compile, compile_header};
use lock::Lock;
pub use model::{Call, Param, Source, Table, snake_case};

/// What to do.
#[derive(Args, Clone, Debug, Default)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// Write nothing; fail if a file is stale or a promise is broken.
    #[arg(long)]
    pub check: bool,
    /// Change or retire what VTL0 was promised, by new entries in the lock.
    #[arg(long, conflicts_with = "check")]
    pub accept: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Print the table that an image's file holds, with the address and the source line of every entry.
    ///
    /// Ends with status 0 only if it is the table of `abi/`.
    #[command(after_help = "Example: cargo xtask abi dump target/vtl1/vmlinux")]
    Dump {
        /// The image; without it the one that was built last.
        image: Option<PathBuf>,
    },
}

/// The lock's place.
const LOCK: &str = "abi/vsm.lock";
/// Where the ABI's version stands in the source.
const VERSION_FILE: &str = "vsm_handlers/src/table.rs";
const VERSION_LINE: &str = "pub const ABI_VERSION: u32 = ";

/// Writes, checks or dumps.
///
/// # Errors
/// Something is stale, or a promise to VTL0 is broken; the message says what to type.
pub fn execute(root: &Path, options: &Options) -> Result<()> {
    match &options.action {
        Some(Action::Dump { image }) => dump::execute(root, image.as_deref()),
        None if options.check => check(root),
        None => write(root, options.accept),
    }
}

/// A file and what it must hold.
struct Product {
    path: &'static str,
    text: String,
}

/// All files that follow from the table and the lock.
fn products(root: &Path, table: &Table, lock: &Lock) -> Result<Vec<Product>> {
    // The version is in the hash, and may have been raised since this program was built.
    let table = &Table { hash: describe::hash(&vsm_handlers::ROWS, lock.version()), ..table.clone() };
    let version_file = read(root, VERSION_FILE)?;
    let version = version_file.lines().map(|line| match line.strip_prefix(VERSION_LINE) {
        Some(_) => format!("{VERSION_LINE}{};\n", lock.version()),
        None => format!("{line}\n"),
    });
    Ok(vec![
        Product { path: LOCK, text: lock.text() },
        Product { path: "abi/vsm.h", text: header::text(table, lock) },
        Product { path: "abi/vsm.json", text: page::json(table, lock) },
        Product { path: "abi/vsm.md", text: page::markdown(table, lock) },
        Product { path: VERSION_FILE, text: version.collect() },
        Product { path: "README.md", text: readme::renewed(&read(root, "README.md")?, table, &VSM_RESERVED)? },
    ])
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}

/// The lock; an empty one where there is none yet.
fn read_lock(root: &Path) -> Result<Lock> {
    if root.join(LOCK).exists() { Lock::parse(&read(root, LOCK)?) } else { Ok(Lock::default()) }
}

/// The ids and names that the lock has, retired ones included.
///
/// # Errors
/// The lock cannot be read.
pub fn locked_calls(root: &Path) -> Result<Vec<(u64, String)>> {
    Ok(read_lock(root)?.entries.into_iter().map(|entry| (entry.id, entry.name)).collect())
}

/// Writes what is stale.
fn write(root: &Path, accept: bool) -> Result<()> {
    let (table, shapes) = (Table::built_in()?, shapes::present(0));
    // An entry that is not committed yet has promised nothing, and is made anew.
    let committed = history::committed(root, LOCK, "HEAD").and_then(|text| Lock::parse(&text).ok());
    let renewed = committed.and_then(|mut lock| lock.update(&table, &shapes, false).is_ok().then_some(lock));
    let lock = if let Some(lock) = renewed {
        lock
    } else {
        let mut lock = read_lock(root)?;
        lock.update(&table, &shapes, accept)?;
        lock
    };
    fs::create_dir_all(root.join("abi"))?;
    for Product { path, text } in products(root, &table, &lock)? {
        if fs::read_to_string(root.join(path)).is_ok_and(|old| old == text) {
            continue;
        }
        fs::write(root.join(path), text).with_context(|| format!("cannot write {path}"))?;
        println!("{path}");
    }
    Ok(())
}

/// Checks that nothing is stale and that every promise is kept, and compiles the header.
///
/// # Errors
/// The message lists everything that is wrong.
pub fn check(root: &Path) -> Result<()> {
    let (table, lock) = (Table::built_in()?, read_lock(root)?);
    let mut problems: Vec<String> = lock.drifts(&table, &shapes::present(0)).iter().map(ToString::to_string).collect();
    problems.extend(history::problems(root, LOCK, &fs::read_to_string(root.join(LOCK)).unwrap_or_default()));
    if vsm_handlers::ABI_VERSION != lock.version() {
        problems.push(format!("{VERSION_FILE} has another version than {LOCK}: cargo xtask abi"));
    }
    for Product { path, text } in products(root, &table, &lock)? {
        if fs::read_to_string(root.join(path)).ok().as_deref() != Some(text.as_str()) {
            problems.push(format!("{path} is stale: cargo xtask abi"));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    let compiled = compile_header(&root.join("abi/vsm.h"))?;
    ensure!(!compiled.is_empty(), "there is no gcc and no clang to compile abi/vsm.h with");
    println!("abi/ is what the table says; abi/vsm.h compiles with {}", compiled.join(", "));
    Ok(())
}
