//! Kernel data of real kernels, as captured from their memory.
//!
//! The captures are test data that lie beside the repository, in `../shared/captures` (Linux 6.1) and
//! `../shared/captures-6.12`, or nowhere; none of them is part of it. Where they are not, a test that needs them says so and
//! goes on without. `tar` and `zstd` unpack them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::bytes;
use super::kdata::{KernelData, Site, kernel_info, patch_record};
use super::lists::Range;
use super::ranges::{READ_EXECUTE, READ_ONLY};
use crate::hv::GuestMemory;

/// Where captures of Linux 6.1 lie, from the workspace's directory.
const PLACE: &str = "../shared/captures";
/// Where captures of later kernels lie.
const LATER: &str = "../shared/captures-6.12";
/// What of an archive is needed.
const FILES: [&str; 6] = [
    "kernel.json",
    "certs.der",
    "kernel-rodata.bin.zst",
    "kernel-text.bin.zst",
    "kernel-jump-table.bin.zst",
    "kallsyms.txt.zst",
];
/// The archives' extension.
const ARCHIVE: &str = ".tar.zst";

/// The captured kernel data of one kernel, unpacked.
pub struct Capture {
    name: String,
    files: PathBuf,
    kernel: Value,
    /// Deletes the files in the end.
    _directory: TempDir,
}

/// A captured kernel that has its text in VTL0's memory.
pub struct PlacedKernel {
    /// What it hands over with LoadKData; its read-only data will lie as far behind the text as in virtual memory.
    pub data: KernelData,
    /// What it asks of ProtectMemory for its text, and for its read-only data behind it.
    pub ranges: [Range; 2],
}

/// The archives of Linux 6.1 that are there, by name; none when the captures are not.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn archives() -> Result<Vec<PathBuf>> {
    archives_in(PLACE)
}

/// The archives of all kernels that are there, Linux 6.1 first; none when the captures are not.
///
/// # Errors
/// When a directory is there and cannot be read.
pub fn all_archives() -> Result<Vec<PathBuf>> {
    Ok([archives_in(PLACE)?, archives_in(LATER)?].concat())
}

fn archives_in(place: &str) -> Result<Vec<PathBuf>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's directory")?;
    let place = workspace.join(place);
    if !place.is_dir() {
        return Ok(Vec::new());
    }
    let mut archives = Vec::new();
    for entry in fs::read_dir(&place).with_context(|| format!("reading {}", place.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ARCHIVE)) {
            archives.push(path);
        }
    }
    archives.sort();
    Ok(archives)
}

impl Capture {
    /// Unpacks the kernel data of an archive into a temporary directory.
    ///
    /// # Errors
    /// When a tool or a file is missing.
    pub fn open(archive: &Path) -> Result<Self> {
        let name = archive.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(ARCHIVE));
        let name = name.ok_or_else(|| anyhow!("{} is no archive", archive.display()))?.to_owned();
        let directory = TempDir::new()?;
        let mut tar = Command::new("tar");
        tar.arg("--zstd").arg("-xf").arg(archive).arg("-C").arg(directory.path());
        tar.args(FILES.map(|file| format!("{name}/{file}")));
        let status = tar.status().context("starting tar")?;
        ensure!(status.success(), "tar could not unpack {} (it needs zstd)", archive.display());
        let files = directory.path().join(&name);
        let kernel = serde_json::from_slice(&fs::read(files.join("kernel.json"))?).context("kernel.json")?;
        Ok(Self { name, files, kernel, _directory: directory })
    }

    /// The capture's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An address at `path` in `kernel.json`.
    fn address(&self, path: &str) -> Result<u64> {
        let value = self.kernel.pointer(path).ok_or_else(|| anyhow!("kernel.json has no {path}"))?;
        let text = value.as_str().and_then(|text| text.strip_prefix("0x"));
        let text = text.ok_or_else(|| anyhow!("kernel.json: {path} is no address"))?;
        u64::from_str_radix(text, 16).with_context(|| format!("kernel.json: {path}"))
    }

    /// A file's bytes, decompressed.
    fn file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.files.join(name);
        if name.strip_suffix(".zst").is_none() {
            return fs::read(&path).with_context(|| format!("reading {name}"));
        }
        let output = Command::new("zstd").arg("-dcq").arg(&path).output().context("starting zstd")?;
        ensure!(output.status.success(), "zstd could not unpack {name}");
        Ok(output.stdout)
    }

    /// The values that the kernel's own symbol list has for each name.
    ///
    /// # Errors
    /// When the file is missing or is no such list.
    pub fn kallsyms(&self) -> Result<HashMap<String, Vec<u64>>> {
        let text = String::from_utf8(self.file("kallsyms.txt.zst")?)?;
        let mut symbols: HashMap<String, Vec<u64>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            // A fourth word would be the module that the symbol is of.
            if let (Some(value), Some(_), Some(name), None) = (words.next(), words.next(), words.next(), words.next()) {
                symbols.entry(name.to_owned()).or_default().push(u64::from_str_radix(value, 16)?);
            }
        }
        Ok(symbols)
    }

    /// Every name and value in the kernel's two export tables, and whether it is of the second, read from the capture
    /// straightforwardly.
    ///
    /// # Errors
    /// When the capture is not what it should be.
    pub fn exported_names(&self) -> Result<Vec<(String, bool)>> {
        let rodata = self.file("kernel-rodata.bin.zst")?;
        let base = self.address("/rodata/start")?;
        let place = |va: u64| Ok::<_, anyhow::Error>(usize::try_from(va.checked_sub(base).context("before rodata")?)?);
        let mut names = Vec::new();
        for (table, gpl) in [("ksymtab", false), ("ksymtab_gpl", true)] {
            let (start, end) = (self.address(&format!("/{table}/start"))?, self.address(&format!("/{table}/end"))?);
            for entry in (start..end).step_by(12) {
                let field = rodata.get(place(entry)? + 4..).and_then(|rest| rest.first_chunk()).context("a table")?;
                let name = entry.wrapping_add(4).wrapping_add_signed(i64::from(i32::from_le_bytes(*field)));
                let text = rodata.get(place(name)?..).and_then(|rest| rest.split(|byte| *byte == 0).next());
                names.push((String::from_utf8(text.context("a name")?.to_vec())?, gpl));
            }
        }
        Ok(names)
    }

    /// Puts the kernel's text into memory from `pa` on, as a kernel lies there: in one piece, its read-only data behind it.
    ///
    /// # Errors
    /// When the capture is not what it should be, or the memory is not RAM.
    pub fn place(&self, memory: &dyn GuestMemory, pa: u64) -> Result<PlacedKernel> {
        let (va, text) = self.text()?;
        bytes::write(memory, pa, &text)?;
        let data = self.kernel_data(pa)?;
        let rodata = pa + data.rodata_va.checked_sub(va).context("read-only data before the text")?;
        let end = rodata + (data.rodata.len() as u64).next_multiple_of(4096);
        let ranges = [Range::direct(pa, rodata, READ_EXECUTE), Range::direct(rodata, end, READ_ONLY)];
        Ok(PlacedKernel { data: KernelData { rodata_pa: Some(rodata), ..data }, ranges })
    }

    /// The kernel's text: its address and its bytes.
    ///
    /// # Errors
    /// When the capture is not what it should be.
    pub fn text(&self) -> Result<(u64, Vec<u8>)> {
        Ok((self.address("/text/start")?, self.file("kernel-text.bin.zst")?))
    }

    /// What VTL0 of this kernel would hand over.
    ///
    /// The capture has no blacklist, no revoked certificates and no trampoline: one page of the latter is made up. The
    /// kernel's text is taken to lie at `text_pa`.
    ///
    /// # Errors
    /// When the capture is not what it should be.
    pub fn kernel_data(&self, text_pa: u64) -> Result<KernelData> {
        let info = |name: &str| self.address(&format!("/heki_kinfo/{name}"));
        let pv_ops = self.kernel.pointer("/heki_kinfo/pv_ops").and_then(Value::as_str).context("pv_ops")?;
        Ok(KernelData {
            certificates: self.file("certs.der")?,
            info: kernel_info(
                [info("ksymtab_start")?, info("ksymtab_end")?, info("ksymtab_gpl_start")?, info("ksymtab_gpl_end")?],
                &words(pv_ops)?,
                [
                    info("pv_bug")?,
                    info("pv_nop")?,
                    info("indirect_thunk_array_addr")?,
                    info("return_thunk_init_addr")?,
                    info("return_thunk_addr")?,
                ],
            ),
            rodata_va: self.address("/rodata/start")?,
            rodata: self.file("kernel-rodata.bin.zst")?,
            patches: patch_record(&self.sites(text_pa)?),
            trampoline_pages: 1,
            ..KernelData::default()
        })
    }

    /// The kernel's jump-label sites outside of its init text (Linux `struct jump_entry`: displacements of code and
    /// target, each relative to its own field, and a key).
    ///
    /// # Errors
    /// When the capture is not what it should be.
    pub fn sites(&self, text_pa: u64) -> Result<Vec<Site>> {
        let (table, table_va) = (self.file("kernel-jump-table.bin.zst")?, self.address("/jump_table/start")?);
        let (bytes, start) = (self.file("kernel-text.bin.zst")?, self.address("/text/start")?);
        let mut sites = Vec::new();
        for (entry, at) in table.as_chunks::<16>().0.iter().zip((table_va..).step_by(16)) {
            let target = |field: usize| {
                let displacement = entry[field..].first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes));
                at.wrapping_add(field as u64).wrapping_add_signed(i64::from(displacement))
            };
            let (code, target) = (target(0), target(4));
            let offset = code.checked_sub(start).and_then(|offset| usize::try_from(offset).ok());
            let Some(first) = offset.and_then(|offset| bytes.get(offset)) else { continue };
            // The NOPs of two and five bytes, and the jumps.
            let size = match first {
                0x66 | 0xeb => 2,
                0x0f | 0xe9 => 5,
                other => anyhow::bail!("a site at {code:#x} starts with {other:#x}"),
            };
            let distance = target.wrapping_sub(code + u64::from(size)).to_le_bytes();
            let jump = match size {
                2 => [0xeb, distance[0], 0, 0, 0],
                _ => [0xe9, distance[0], distance[1], distance[2], distance[3]],
            };
            let pa = text_pa + (code - start);
            let next = (pa / 4096 + 1) * 4096;
            let next_page = if pa + u64::from(size) > next { next } else { 0 };
            sites.push(Site { pa, next_page, jump, size });
        }
        Ok(sites)
    }
}

/// Little-endian 64-bit words written as hexadecimal bytes.
fn words(hex: &str) -> Result<Vec<u64>> {
    let (words, rest) = hex.as_bytes().as_chunks::<16>();
    ensure!(rest.is_empty(), "the paravirt operations are not made of 64-bit words");
    words.iter().map(|word| Ok(u64::from_str_radix(std::str::from_utf8(word)?, 16)?.swap_bytes())).collect()
}
