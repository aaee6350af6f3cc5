//! A capture set: one boot of one kernel, as a directory or as an archive of one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use vsm_integrity::generation::KernelGeneration;
use vsm_integrity::kernel_info::ArchInfo;
use vsm_integrity::module::{Export, Kernel, Resolver, SealedText};

use super::captured::Captured;

/// The extension of an archived set.
const ARCHIVE: &str = ".tar.zst";

/// A capture set.
pub struct Set {
    name: String,
    files: PathBuf,
    kernel: Value,
    modules: Vec<Value>,
    /// The words of `pv_ops`.
    pv_ops: Vec<u64>,
    /// Deletes the files of an archive in the end.
    _directory: Option<TempDir>,
}

/// An export, with its texts.
#[derive(Clone, Debug)]
struct Owned {
    value: u64,
    gpl: bool,
    namespace: Vec<u8>,
}

/// The symbols that modules may use: the kernel's and those of accepted modules.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    symbols: HashMap<Vec<u8>, Owned>,
}

impl Exports {
    /// Adds a symbol; one that is there stays.
    pub fn add(&mut self, name: &[u8], export: &Export<'_>) {
        let Export { value, gpl, namespace } = *export;
        self.symbols.entry(name.to_vec()).or_insert_with(|| Owned { value, gpl, namespace: namespace.to_vec() });
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }
}

impl Resolver for Exports {
    fn find(&self, name: &[u8]) -> Option<Export<'_>> {
        let Owned { value, gpl, namespace } = self.symbols.get(name)?;
        Some(Export { value: *value, gpl: *gpl, namespace })
    }
}

/// The text that VTL1 would have sealed: the kernel's, and that of accepted modules.
#[derive(Clone, Debug, Default)]
pub struct SealedTexts {
    pieces: Vec<(u64, Vec<u8>)>,
}

impl SealedTexts {
    /// Adds text at an address.
    pub fn add(&mut self, va: u64, bytes: Vec<u8>) {
        self.pieces.push((va, bytes));
    }
}

impl SealedText for SealedTexts {
    fn read(&self, va: u64, into: &mut [u8]) -> bool {
        let piece = self.pieces.iter().find_map(|(start, bytes)| {
            let at = usize::try_from(va.checked_sub(*start)?).ok()?;
            bytes.get(at..at.checked_add(into.len())?)
        });
        piece.map(|bytes| into.copy_from_slice(bytes)).is_some()
    }
}

/// The sets at a path: a set's directory or archive, or a directory of them.
///
/// # Errors
/// When there is none, or one can't be read.
pub fn find(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() || path.join("manifest.json").is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let entries = fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    for entry in entries {
        let entry = entry?.path();
        let archive = entry.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ARCHIVE));
        if archive {
            found.push(entry);
        } else if entry.is_dir() {
            found.extend(find(&entry).unwrap_or_default());
        }
    }
    if found.is_empty() {
        bail!("{} has no capture set", path.display());
    }
    found.sort();
    Ok(found)
}

impl Set {
    /// Opens a set: a directory, or an archive, which is unpacked into a temporary directory.
    ///
    /// # Errors
    /// When a file is missing or is not what it should be.
    pub fn open(path: &Path) -> Result<Self> {
        let (files, directory) = if path.is_dir() { (path.to_owned(), None) } else { unpack(path)? };
        let json = |name: &str| -> Result<Value> {
            let bytes = fs::read(files.join(name)).with_context(|| format!("reading {name}"))?;
            serde_json::from_slice(&bytes).with_context(|| name.to_owned())
        };
        let (kernel, manifest) = (json("kernel.json")?, json("manifest.json")?);
        let modules = manifest.get("modules").and_then(Value::as_array).context("manifest.json has no modules")?;
        let pv_ops = kernel.pointer("/heki_kinfo/pv_ops").and_then(Value::as_str).context("pv_ops")?;
        let name = kernel.get("set").and_then(Value::as_str).unwrap_or("set").to_owned();
        let (modules, pv_ops) = (modules.clone(), words(pv_ops)?);
        Ok(Self { name, files, modules, pv_ops, kernel, _directory: directory })
    }

    /// The set's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the set's files are.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// How many modules there are.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// The module that was loaded at that place.
    ///
    /// # Errors
    /// When there is none, or it is not what it should be.
    pub fn module(&self, index: usize) -> Result<Captured> {
        let entry = self.modules.get(index).context("no such module")?;
        Captured::read(&self.files, entry)
    }

    /// What VTL1 would know of the kernel: what VTL0 says that its alternatives call, which of its exports there are, and
    /// sealed text.
    ///
    /// # Errors
    /// When `kernel.json` does not have it.
    pub fn kernel<'k>(&'k self, exports: &Exports, text: &'k SealedTexts) -> Result<Kernel<'k>> {
        let info = |name: &str| address(&self.kernel, &format!("/heki_kinfo/{name}"));
        let generation = KernelGeneration::from_exports(|name| exports.find(name).is_some());
        let arch = ArchInfo {
            pv_ops: &self.pv_ops,
            pv_bug: info("pv_bug")?,
            pv_nop: info("pv_nop")?,
            indirect_thunks: info("indirect_thunk_array_addr")?,
            return_thunk_init: info("return_thunk_init_addr")?,
            return_thunk: info("return_thunk_addr")?,
        };
        Ok(Kernel { arch, generation, text })
    }

    /// The kernel's text; none where a set has none. It may have zeros where no test looks.
    ///
    /// # Errors
    /// When the capture is not what it should be.
    pub fn kernel_text(&self) -> Result<SealedTexts> {
        let file = self.files.join("kernel-text.bin.zst");
        if !file.is_file() {
            return Ok(SealedTexts::default());
        }
        let bytes = unzstd(&file)?;
        Ok(SealedTexts { pieces: vec![(address(&self.kernel, "/text/start")?, bytes)] })
    }

    /// The kernel's exports, from its read-only data.
    ///
    /// # Errors
    /// When the capture is not what it should be.
    pub fn kernel_exports(&self) -> Result<Exports> {
        let rodata = unzstd(&self.files.join("kernel-rodata.bin.zst"))?;
        let base = address(&self.kernel, "/rodata/start")?;
        let place = |va: u64| Ok::<_, anyhow::Error>(usize::try_from(va.checked_sub(base).context("before rodata")?)?);
        let mut exports = Exports::default();
        for (table, gpl) in [("ksymtab", false), ("ksymtab_gpl", true)] {
            let bound = |end: &str| address(&self.kernel, &format!("/{table}/{end}"));
            for entry in (bound("start")?..bound("end")?).step_by(12) {
                let target = |field: u64| {
                    let bytes = rodata.get(place(entry + field)?..).and_then(|rest| rest.first_chunk());
                    let distance = i32::from_le_bytes(*bytes.context("a table's entry")?);
                    Ok::<_, anyhow::Error>((entry + field).wrapping_add_signed(i64::from(distance)))
                };
                let text = |va: u64| {
                    let text = rodata.get(place(va)?..).and_then(|rest| rest.split(|byte| *byte == 0).next());
                    text.context("a name")
                };
                let (name, namespace) = (text(target(4)?)?, text(target(8)?)?);
                exports.add(name, &Export { value: target(0)?, gpl, namespace });
            }
        }
        Ok(exports)
    }
}

/// Unpacks an archive; returns where the set is.
fn unpack(archive: &Path) -> Result<(PathBuf, Option<TempDir>)> {
    let directory = TempDir::new()?;
    let mut tar = Command::new("tar");
    let status = tar.arg("--zstd").arg("-xf").arg(archive).arg("-C").arg(directory.path()).status();
    ensure!(status.context("starting tar")?.success(), "tar could not unpack {} (it needs zstd)", archive.display());
    let mut sets = find(directory.path())?;
    let set = sets.pop().filter(|_| sets.is_empty()).context("an archive must have one set")?;
    Ok((set, Some(directory)))
}

/// A file's bytes, decompressed by `zstd`.
fn unzstd(path: &Path) -> Result<Vec<u8>> {
    let output = Command::new("zstd").arg("-dcq").arg(path).output().context("starting zstd")?;
    ensure!(output.status.success(), "zstd could not unpack {}", path.display());
    Ok(output.stdout)
}

/// An address, written as `0x…`, at `path`.
pub(super) fn address(json: &Value, path: &str) -> Result<u64> {
    let value = json.pointer(path).ok_or_else(|| anyhow!("there is no {path}"))?;
    match value.as_str().and_then(|text| text.strip_prefix("0x")) {
        Some(text) => u64::from_str_radix(text, 16).with_context(|| path.to_owned()),
        None => value.as_u64().ok_or_else(|| anyhow!("{path} is no address")),
    }
}

/// Little-endian 64-bit words written as hexadecimal bytes.
fn words(hex: &str) -> Result<Vec<u64>> {
    let (words, rest) = hex.as_bytes().as_chunks::<16>();
    ensure!(rest.is_empty(), "the paravirt operations are not made of 64-bit words");
    words.iter().map(|word| Ok(u64::from_str_radix(std::str::from_utf8(word)?, 16)?.swap_bytes())).collect()
}
