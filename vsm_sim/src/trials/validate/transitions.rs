//! What a real kernel poked into a module's text right after the moment at which it would have been validated: jump labels
//! and static calls, as the capture has them (`after_prepare_coming`).
//!
//! The static calls are found in the file by the `object` crate, so that VTL1's own reader is compared with another one.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use serde_json::Value;
use vsm_integrity::module::{Instruction, Shape};

use super::captured::Captured;
use super::set::address;
use crate::vtl0::modules::Call;

/// Bytes of the instruction that counts a call, before the function.
pub const COUNTING: u64 = 9;

impl Call {
    /// The function that Linux makes the call count for, where calls are counted: it then goes to the instruction before it.
    /// `None` for a call that does not count. Functions are at multiples of 16 in such a kernel.
    #[must_use]
    pub fn counted_function(&self) -> Option<u64> {
        match Shape::of_code(&self.compiled)?.decode(&self.direct, self.va)? {
            Instruction::Branch(target) => Some(target + COUNTING).filter(|function| function.is_multiple_of(16)),
            _ => None,
        }
    }
}

impl Captured {
    /// The static calls of the file, in its order, with the instructions before and after the kernel's pokes.
    ///
    /// # Errors
    /// When the capture lacks something.
    pub fn static_calls(&self) -> Result<Vec<Call>> {
        let changes = self.changes()?;
        let calls = self.static_call_sites()?.into_iter().map(|va| {
            let head = self.text(va, 1)?;
            let compiled = self.text(va, if head == [0x0f] { 6 } else { 5 })?;
            Ok(Call { va, direct: changed(&changes, va, &compiled), compiled })
        });
        calls.collect()
    }

    /// The jump labels that the kernel switched: address, the bytes before and after.
    ///
    /// # Errors
    /// When the capture lacks something, or text has changed where there is neither a jump label nor a static call
    /// nor, where calls are counted, the space before a function.
    pub fn switched_labels(&self) -> Result<Vec<Call>> {
        let mut changes = self.changes()?;
        let mut labels = Vec::new();
        for (va, jump) in self.jump_labels()? {
            let compiled = self.text(va, jump.len())?;
            let direct = changed(&changes, va, &compiled);
            if direct != compiled {
                labels.push(Call { va, compiled, direct });
            }
        }
        for call in labels.iter().chain(&self.static_calls()?) {
            changes.retain(|va, _| va.checked_sub(call.va).is_none_or(|at| at >= call.compiled.len() as u64));
        }
        // Where calls are counted, the space before functions whose calls are.
        let count = [0x65, 0x48, 0xc1, 0x3d];
        let is_counted = |va: &u64| (*va..).zip(count).all(|(va, byte)| changes.get(&va) == Some(&byte));
        let spaces: Vec<u64> = changes.keys().copied().filter(is_counted).collect();
        for start in spaces {
            changes.retain(|va, _| !(start..start + COUNTING).contains(va));
        }
        ensure!(changes.is_empty(), "{}: text has changed elsewhere: {changes:x?}", self.name);
        Ok(labels)
    }

    /// The bytes of text that changed, by address. A capture's runs also have bytes between two changes.
    fn changes(&self) -> Result<BTreeMap<u64, u8>> {
        let mut changes = BTreeMap::new();
        for change in self.json.get("after_prepare_coming").and_then(Value::as_array).into_iter().flatten() {
            let word = |name: &str| change.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"));
            if !word("range")?.ends_with("TEXT") {
                continue;
            }
            let [(old, odd), (new, odder)] =
                [word("old")?, word("new")?].map(|digits| digits.as_bytes().as_chunks::<2>());
            ensure!(odd.is_empty() && odder.is_empty() && old.len() == new.len(), "digits that are no bytes");
            for (va, (old, new)) in (address(change, "/va")?..).zip(old.iter().zip(new)) {
                if old != new {
                    changes.insert(va, u8::from_str_radix(std::str::from_utf8(new)?, 16)?);
                }
            }
        }
        Ok(changes)
    }

    /// `size` bytes of text.
    fn text(&self, va: u64, size: usize) -> Result<Vec<u8>> {
        for range in self.ranges.iter().filter(|range| range.kind.is_text()) {
            let start = va.checked_sub(range.va).map(usize::try_from).transpose()?;
            if let Some(bytes) = start.and_then(|start| range.bytes.get(start..start + size)) {
                return Ok(bytes.to_vec());
            }
        }
        bail!("{}: {va:#x} is no text", self.name)
    }

    /// The addresses that `.static_call_sites` refers to.
    fn static_call_sites(&self) -> Result<Vec<u64>> {
        let file = object::File::parse(self.file.as_slice())?;
        let Some(table) = file.section_by_name(".static_call_sites") else { return Ok(Vec::new()) };
        let sections = self.json.get("sections").and_then(Value::as_array).context("no sections")?;
        let mut sites = BTreeMap::new();
        for (offset, relocation) in table.relocations().filter(|(offset, _)| offset % 8 == 0) {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { bail!("a site without a symbol") };
            let symbol = file.symbol_by_index(symbol)?;
            let index = symbol.section_index().context("a site in no section")?.0 as u64;
            let section = sections.iter().find(|section| address(section, "/idx").is_ok_and(|found| found == index));
            let start = address(section.context("a site's section")?, "/va")?;
            sites.insert(offset, start.wrapping_add(symbol.address()).wrapping_add_signed(relocation.addend()));
        }
        Ok(sites.into_values().collect())
    }
}

/// `bytes` of `va` with the changes.
fn changed(changes: &BTreeMap<u64, u8>, va: u64, bytes: &[u8]) -> Vec<u8> {
    (va..).zip(bytes).map(|(va, byte)| *changes.get(&va).unwrap_or(byte)).collect()
}
