//! A module of a capture set: the signed file, and the bytes that a real kernel had made of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vsm_integrity::module::{Kind, ModuleError, ModuleMemory, Plan, Range};

use super::set::address;

/// A range of a module's memory.
#[derive(Clone, Debug)]
pub struct OwnedRange {
    /// What it is for.
    pub kind: Kind,
    /// Its address.
    pub va: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A captured module.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Its name.
    pub name: String,
    /// The signed file.
    pub file: Vec<u8>,
    /// Its memory.
    pub ranges: Vec<OwnedRange>,
    /// Its pages of thunks against ITS, as far as the capture has their bytes: address and bytes of each.
    pub thunk_pages: Vec<(u64, Vec<u8>)>,
    pub(super) json: Value,
}

impl Captured {
    /// Reads the module that a manifest's entry names.
    pub(super) fn read(files: &Path, entry: &Value) -> Result<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"));
        let file = |name: &str| fs::read(files.join(name)).with_context(|| format!("reading {name}"));
        let name = text("name")?.to_owned();
        let json: Value = serde_json::from_slice(&file(text("json")?)?).with_context(|| name.clone())?;
        let mut ranges = Vec::new();
        for range in json.get("ranges").and_then(Value::as_array).context("no ranges")? {
            let kind = range.get("type").and_then(Value::as_str).context("a range without a type")?;
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
            let layout = range.get("layout").and_then(Value::as_str).context("a range without a layout")?;
            // Kernels from 6.4 on have memory of its own for each kind; a capture of one may name its file in the range.
            let source = range.get("file").or_else(|| json.pointer(&format!("/{layout}/file")));
            let memory = file(source.and_then(Value::as_str).context("a range without a file")?)?;
            let number = |name: &str| Ok::<_, anyhow::Error>(usize::try_from(address(range, &format!("/{name}"))?)?);
            let (offset, size) = (number("off")?, number("size")?);
            let bytes = memory.get(offset..offset + size).context("a range outside of its file")?;
            ranges.push(OwnedRange {
                kind: kind.context("a range of an unknown kind")?,
                va: address(range, "/va")?,
                bytes: bytes.to_vec(),
            });
        }
        let ko = json.pointer("/ko/file").and_then(Value::as_str).context("no file")?;
        let mut thunk_pages = Vec::new();
        for page in json.get("its_pages").and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = page.get("file").and_then(Value::as_str) {
                thunk_pages.push((address(page, "/va")?, file(name)?));
            }
        }
        Ok(Self { name, file: file(ko)?, ranges, thunk_pages, json })
    }

    /// The memory, for [`Plan`].
    ///
    /// # Errors
    /// When no kernel has ranges like these.
    pub fn memory(&self) -> Result<ModuleMemory<'_>, ModuleError> {
        let ranges: Vec<Range<'_>> = self
            .ranges
            .iter()
            .map(|range| Range { kind: range.kind, va: range.va, size: range.bytes.len() as u64, bytes: &range.bytes })
            .collect();
        ModuleMemory::new(&ranges)
    }

    /// The range of that kind.
    pub fn range_mut(&mut self, kind: Kind) -> Option<&mut OwnedRange> {
        self.ranges.iter_mut().find(|range| range.kind == kind)
    }

    /// Where the kernel placed the module's per-CPU variables, as the capture says.
    pub fn per_cpu(&self) -> Option<u64> {
        address(&self.json, "/percpu/offset").ok().filter(|offset| *offset != 0)
    }

    /// Where the module's jump labels are, and the jumps that belong there, as the capture says.
    ///
    /// # Errors
    /// When the capture does not say.
    pub fn jump_labels(&self) -> Result<Vec<(u64, Vec<u8>)>> {
        let labels = self.json.get("jump_label_sites").and_then(Value::as_array).context("no jump labels")?;
        let label = |label: &Value| {
            let digits = label.get("jmp").and_then(Value::as_str).context("a jump label without a jump")?;
            let (bytes, rest) = digits.as_bytes().as_chunks::<2>();
            ensure!(rest.is_empty(), "{digits} are no bytes");
            let byte = |byte: &[u8; 2]| Ok(u8::from_str_radix(std::str::from_utf8(byte)?, 16)?);
            Ok((address(label, "/va")?, bytes.iter().map(byte).collect::<Result<_>>()?))
        };
        labels.iter().map(label).collect()
    }

    /// The names of the modules that this one uses, as the capture says.
    pub fn depends(&self) -> Vec<String> {
        let names = self.json.get("depends").and_then(Value::as_array).cloned().unwrap_or_default();
        names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Compares what a plan says with what the real kernel said: addresses of sections, jump labels, exports.
    ///
    /// # Errors
    /// What differs.
    pub fn compare(&self, plan: &Plan<'_>, per_cpu: Option<u64>) -> Result<()> {
        self.compare_sections(plan)?;
        self.compare_exports(plan, per_cpu)?;
        self.compare_jump_labels(plan)
    }

    fn compare_sections(&self, plan: &Plan<'_>) -> Result<()> {
        for section in self.json.get("sections").and_then(Value::as_array).context("no sections")? {
            let index = usize::try_from(address(section, "/idx")?)?;
            let Ok(va) = address(section, "/va") else { continue };
            let name = section.get("name").and_then(Value::as_str).unwrap_or_default();
            // Linux places its copies of the symbol tables behind what the file asks for.
            if plan.elf().section(index).is_none_or(|section| section.flags & 2 == 0) || name == ".symtab" {
                continue;
            }
            let computed = plan.layout().address(index);
            ensure!(computed == Some(va), "{}: {name} is at {va:#x}, computed {computed:#x?}", self.name);
        }
        Ok(())
    }

    fn compare_exports(&self, plan: &Plan<'_>, per_cpu: Option<u64>) -> Result<()> {
        let mut found = Vec::new();
        plan.exports(per_cpu, |export| {
            let texts = [export.name, export.namespace].map(|text| String::from_utf8_lossy(text).into_owned());
            found.push((texts, export.value, export.gpl));
            Ok::<_, ModuleError>(())
        })?;
        let mut wanted = Vec::new();
        for export in self.json.get("exports").and_then(Value::as_array).context("no exports")? {
            let text = |index: usize| export.get(index).and_then(Value::as_str).unwrap_or_default().to_owned();
            let gpl = export.get(2).is_some_and(|gpl| gpl.as_bool().unwrap_or(gpl.as_u64() == Some(1)));
            wanted.push(([text(0), text(3)], address(export, "/1")?, gpl));
        }
        found.sort();
        wanted.sort();
        if found != wanted {
            let odd = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted);
            bail!("{}: exports differ: {} and {}, {odd:x?}", self.name, found.len(), wanted.len());
        }
        Ok(())
    }

    fn compare_jump_labels(&self, plan: &Plan<'_>) -> Result<()> {
        let mut found = Vec::new();
        plan.jump_labels(|label| {
            let jump = label.jump().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            found.push((label.va, jump, label.key, u64::from(label.key_bits)));
            Ok::<_, ModuleError>(())
        })?;
        let mut wanted = Vec::new();
        for label in self.json.get("jump_label_sites").and_then(Value::as_array).context("no jump labels")? {
            let jump = label.get("jmp").and_then(Value::as_str).unwrap_or_default().to_owned();
            wanted.push((address(label, "/va")?, jump, address(label, "/key")?, address(label, "/key_bits")?));
        }
        found.sort();
        wanted.sort();
        if found != wanted {
            let odd = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted);
            bail!("{}: jump labels differ: {} and {}, {odd:x?}", self.name, found.len(), wanted.len());
        }
        Ok(())
    }

    /// Compares the pages of thunks that the module's branches go to with those of the capture, as far as it has them.
    ///
    /// # Errors
    /// What differs.
    pub fn compare_thunk_pages(&self, plan: &Plan<'_>, pages: &[u64], files: &Path) -> Result<()> {
        let captured = self.json.get("its_pages").and_then(Value::as_array).cloned().unwrap_or_default();
        for (number, page) in pages.iter().enumerate().filter(|(_, page)| **page != 0) {
            let entry = captured.iter().find(|entry| names(entry, *page));
            let entry = entry.with_context(|| format!("{}: there is no page of thunks at {page:#x}", self.name))?;
            let mut expected = vec![0; 4096];
            plan.write_thunk_page(number, &mut expected)?;
            let Some(file) = entry.get("file").and_then(Value::as_str) else { continue };
            let found = fs::read(files.join(file)).with_context(|| format!("reading {file}"))?;
            let differs = found.iter().zip(&expected).position(|(one, other)| one != other);
            ensure!(differs.is_none(), "{}: the page of thunks at {page:#x} differs at {differs:x?}", self.name);
        }
        Ok(())
    }
}

/// Whether a number, wherever it stands in an entry, is that address.
fn names(entry: &Value, va: u64) -> bool {
    match entry {
        Value::Object(fields) => fields.values().any(|field| names(field, va)),
        Value::Array(fields) => fields.iter().any(|field| names(field, va)),
        other => address(other, "").is_ok_and(|number| number == va),
    }
}
