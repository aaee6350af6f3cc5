//! The table that an image's file holds: `cargo xtask abi dump`.
//!
//! The words come from the section `.vsm_abi`, which is not loaded; the addresses from the relocations of the jump table,
//! which are what the image branches by; the function at an address from the symbols. Nothing in the file is trusted: what it
//! says of itself is compared with what was built.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use litebox_platform_lvbs::vsm::VSM_BASE;
use serde_json::Value;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::model::Table;
use super::page;
use crate::verify::{Image, TABLE_SYMBOL, within};
use crate::workspace::image_dir;

/// The section with the description.
const SECTION: &str = ".vsm_abi";
/// The table as it is written for programs.
const WRITTEN: &str = "abi/vsm.json";
/// Bytes of an entry of the jump table.
const ENTRY: u64 = 8;

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The table in words.
    pub table: Table,
    /// Where the entry of each id is, with the name of the function there.
    pub entries: BTreeMap<u64, (u64, String)>,
}

/// Prints the table of an image, and compares it with this workspace's.
pub(crate) fn execute(root: &Path, image: Option<&Path>) -> Result<()> {
    let built = image_dir(root).join("vmlinux");
    let path = image.unwrap_or(&built);
    let bytes = fs::read(path).with_context(|| format!("cannot read {} (cargo xtask build-vtl1)", path.display()))?;
    let dump = read(&bytes).with_context(|| format!("{} does not describe itself", path.display()))?;
    println!("{}", dump.text());
    compare(&dump)?;
    compare_written(&dump, &fs::read_to_string(root.join(WRITTEN)).with_context(|| format!("cannot read {WRITTEN}"))?)?;
    println!("this is the table of abi/, hash {:#018x}", dump.table.hash);
    Ok(())
}

/// Reads the description and the jump table of a file.
///
/// # Errors
/// One of them is missing or malformed.
pub fn read(bytes: &[u8]) -> Result<Dump> {
    let image = Image::parse(bytes).map_err(|reason| anyhow::anyhow!("not an image: {reason}"))?;
    let section = image.sections.iter().find(|section| section.name == SECTION);
    let section = section.with_context(|| format!("it has no section {SECTION}"))?;
    ensure!(!section.is_loaded(), "{SECTION} is marked as loaded");
    let (start, len) = (usize::try_from(section.offset)?, usize::try_from(section.size)?);
    let end = start.checked_add(len).context("the section ends beyond all files")?;
    let loaded = |at: u64| image.loads().any(|segment| within(segment.offset, segment.filesz, at, 1));
    ensure!(!loaded(section.offset), "{SECTION} lies in a loaded segment");
    let table = Table::parse(bytes.get(start..end).context("the section ends beyond the file")?)?;

    // What the image branches by is compared below; what relocates it is `verify-elf`'s to prove.
    let symbol = image.symbols_named(TABLE_SYMBOL).next().context("it has no jump table")?;
    let mut entries = BTreeMap::new();
    for call in &table.calls {
        let slot = call.id.checked_sub(VSM_BASE).and_then(|index| index.checked_mul(ENTRY));
        let slot = slot.and_then(|offset| symbol.address.checked_add(offset)).context("an id beyond the table")?;
        let relocation = image.relocations.iter().find(|relocation| relocation.at == slot);
        let relocation = relocation.with_context(|| format!("the jump table has no entry for {}", call.name))?;
        let address = u64::try_from(relocation.addend)?;
        let function =
            image.symbols.iter().find(|other| other.address == address && other.kind == object::elf::STT_FUNC);
        let name = function.map_or_else(|| "no function".to_owned(), |function| function.name.clone());
        entries.insert(call.id, (address, name));
    }
    Ok(Dump { table, entries })
}

/// Whether a file's description is this workspace's, and each entry the handler of its call.
///
/// # Errors
/// It is not; the message says where.
pub fn compare(dump: &Dump) -> Result<()> {
    let mut problems = Vec::new();
    let expected = Table::built_in()?;
    if dump.table.hash != expected.hash {
        problems.push(format!("the hash is {:#018x}, that of abi/ {:#018x}", dump.table.hash, expected.hash));
    }
    let ids = |table: &Table| table.calls.iter().map(|call| call.id).collect::<Vec<_>>();
    if ids(&dump.table) != ids(&expected) {
        problems.push("it has other calls".to_owned());
    }
    let (found, wanted) = (dump.table.without_sources(), expected.without_sources());
    for (found, wanted) in found.calls.iter().zip(&wanted.calls).filter(|(found, wanted)| found != wanted) {
        problems.push(format!("{} ({:#x}) is described otherwise than in abi/", found.name, wanted.id));
    }
    // Calls that are not implemented have equal code, of which the linker may keep one for all.
    for call in dump.table.calls.iter().filter(|call| call.implemented) {
        let entry = dump.entries.get(&call.id);
        if let Some((address, function)) = entry.filter(|(_, function)| !is_entry_of(function, &call.name)) {
            problems.push(format!("the entry of {} at {address:#x} is {function}", call.name));
        }
    }
    if !problems.is_empty() {
        bail!("this is not the table of abi/:\n{}", problems.join("\n"));
    }
    Ok(())
}

/// Whether `abi/vsm.json`, which is written for programs, says the same of every call as the file.
///
/// # Errors
/// They differ; the message says where.
pub fn compare_written(dump: &Dump, json: &str) -> Result<()> {
    let json: Value = serde_json::from_str(json).with_context(|| format!("{WRITTEN} is no JSON"))?;
    let hash = format!("{:#018x}", dump.table.hash);
    ensure!(json["hash"] == hash.as_str(), "the hash is {hash}, in {WRITTEN} {}", json["hash"]);
    let written = json["calls"].as_array().with_context(|| format!("{WRITTEN} has no calls"))?;
    ensure!(written.len() == dump.table.calls.len(), "{WRITTEN} has another number of calls");
    for (call, written) in dump.table.calls.iter().zip(written) {
        // Since when there is a call is the lock's to say.
        let mut said = page::call(call, None);
        said["since"] = written["since"].clone();
        ensure!(said == *written, "{} ({:#x}) is described otherwise in {WRITTEN}", call.name, call.id);
    }
    Ok(())
}

/// Whether a symbol is that of the entry of `call`: `<VsmTable as Handles<calls::X>>::call`, in Rust's v0 mangling.
fn is_entry_of(symbol: &str, call: &str) -> bool {
    symbol.contains(&format!("5calls{}{call}E4call", call.len()))
}

impl Dump {
    /// For people: a line a call.
    #[must_use]
    pub fn text(&self) -> String {
        let mut builder = Builder::default();
        builder.push_record(["id", "call", "phase", "caller", "entry", "parameters", "errnos", "source"]);
        for call in &self.table.calls {
            let address = self.entries.get(&call.id).map_or_else(String::new, |entry| format!("{:#x}", entry.0));
            let params: Vec<String> = call.params.iter().map(|param| param.name.clone()).collect();
            let mut errnos = String::new();
            for (_, name) in call.errnos() {
                // Writing to a string cannot fail.
                let _ = write!(errnos, "{name} ");
            }
            builder.push_record([
                format!("{:#x}", call.id),
                call.name.clone(),
                call.phase.clone(),
                call.caller.clone(),
                address,
                params.join(", "),
                errnos.trim_end().to_owned(),
                format!("{}:{}", call.source.file, call.source.line),
            ]);
        }
        builder.build().with(Style::blank()).to_string()
    }
}
