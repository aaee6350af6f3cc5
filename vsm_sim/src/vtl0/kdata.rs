//! What VTL0 hands over with LoadKData: the objects, made up or captured, and their way into memory.
//!
//! The layouts are the contract's (§5.5, §5.9). A made-up kernel has everything a real one has, only less of it; what
//! VTL1 must find in it is known beforehand.

use anyhow::{Result, ensure};

use super::bytes;
use super::lists::Range;
use crate::hv::GuestMemory;
use crate::random::SplitMix;

const PAGE: u64 = 4096;
/// A certificate of a made-up kernel, and one that it revokes: self-signed, P-256. Their private keys are gone.
const TRUSTED: &[u8] = include_bytes!("fixtures/trusted.der");
const REVOKED: &[u8] = include_bytes!("fixtures/revoked.der");

/// The kinds of kernel data, by attribute (Linux `enum heki_kdata_type`).
pub mod kind {
    /// `system_certificate_list`.
    pub const SYSTEM_CERTS: u64 = 0;
    /// The revocation list, in the same form.
    pub const REVOCATION_CERTS: u64 = 1;
    /// The blacklist keyring's records.
    pub const BLACKLIST_HASHES: u64 = 2;
    /// `struct heki_kinfo`.
    pub const KERNEL_INFO: u64 = 3;
    /// The kernel's read-only data.
    pub const KERNEL_DATA: u64 = 4;
    /// The kernel's jump-label sites.
    pub const PATCH_INFO: u64 = 5;
    /// The code that VTL0 starts another kernel with.
    pub const KEXEC_TRAMPOLINE: u64 = 6;
}

/// Where a made-up kernel's read-only data begin: Linux's kernel mapping without KASLR.
const RODATA: u64 = 0xffff_ffff_8200_0000;
/// Where the other objects appear in VTL0's virtual memory: Linux's vmalloc area.
const VMALLOC: u64 = 0xffff_c900_0000_0000;
/// What a made-up trampoline consists of: RET.
const TRAMPOLINE: u8 = 0xc3;
/// Bytes of a blacklist record.
const RECORD: usize = 133;

/// A symbol that VTL1 must find.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// Whether it is in the second table.
    pub gpl: bool,
}

/// A jump-label site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Physical address of its first byte.
    pub pa: u64,
    /// Physical address of its second page, 0 if it has none.
    pub next_page: u64,
    /// The jump: 2 or 5 bytes.
    pub jump: [u8; 5],
    /// How many.
    pub size: u8,
}

/// The objects of one LoadKData. An empty one is not sent.
#[derive(Clone, Debug, Default)]
pub struct KernelData {
    /// Concatenated DER certificates.
    pub certificates: Vec<u8>,
    /// The same, revoked.
    pub revoked: Vec<u8>,
    /// Blacklist records.
    pub blocklist: Vec<u8>,
    /// `struct heki_kinfo`.
    pub info: Vec<u8>,
    /// Virtual address of the read-only data.
    pub rodata_va: u64,
    /// The read-only data.
    pub rodata: Vec<u8>,
    /// Where they lie, in one piece, as a kernel's do; in any pages when there is none.
    pub rodata_pa: Option<u64>,
    /// Records of jump-label sites.
    pub patches: Vec<u8>,
    /// Pages of the kexec trampoline.
    pub trampoline_pages: u64,
}

impl KernelData {
    /// A kernel with about `symbols` symbols, drawn from `seed`, and what VTL1 must find of them.
    #[must_use]
    pub fn made_up(symbols: usize, seed: u64) -> (Self, Vec<Export>) {
        let mut random = SplitMix(seed);
        let exports = exports(symbols, &mut random);
        let (rodata, info) = rodata(&exports, &mut random);
        let sites: Vec<Site> = (0..symbols as u64 / 4 + 3).map(|index| site(index, &mut random)).collect();
        let (first, second) = sites.split_at(sites.len() / 2);
        let kernel = Self {
            // The first is a certificate; what else a kernel may have is passed over.
            certificates: [TRUSTED.to_vec(), der(&[0xa5; 700]), der(&vec![0x33; 70_000])].concat(),
            revoked: REVOKED.to_vec(),
            blocklist: blocklist(&["tbs:00112233445566778899aabbccddeeff", "bin:0f0e0d", "other:things"]),
            info,
            rodata_va: RODATA,
            rodata,
            rodata_pa: None,
            patches: [patch_record(first), patch_record(second)].concat(),
            trampoline_pages: 2,
        };
        (kernel, exports)
    }

    /// The objects that are sent, in the driver's order (LVBS contract §11.3), each with its kind and VTL0's virtual address of
    /// its first byte. They begin anywhere within a page, as a kernel's objects do.
    fn objects<'a>(&'a self, trampoline: &'a [u8]) -> Vec<(u64, u64, &'a [u8])> {
        let objects = [
            (kind::SYSTEM_CERTS, VMALLOC + 0x123, self.certificates.as_slice()),
            (kind::REVOCATION_CERTS, VMALLOC + 0x0100_0ff0, &self.revoked),
            (kind::BLACKLIST_HASHES, VMALLOC + 0x0200_0800, &self.blocklist),
            (kind::KEXEC_TRAMPOLINE, VMALLOC + 0x0500_0000, trampoline),
            (kind::KERNEL_INFO, VMALLOC + 0x0300_0040, &self.info),
            (kind::KERNEL_DATA, self.rodata_va, &self.rodata),
            (kind::PATCH_INFO, VMALLOC + 0x0400_0010, &self.patches),
        ];
        objects.into_iter().filter(|(.., bytes)| !bytes.is_empty()).collect()
    }

    /// Writes the objects to pages that `page` hands out, and returns the ranges of the list: pages that happen to be
    /// neighbours are merged into one range, as the driver does.
    ///
    /// # Errors
    /// When `page` has none left, or hands out what is not RAM.
    pub fn write(&self, memory: &dyn GuestMemory, mut page: impl FnMut() -> Result<u64>) -> Result<Vec<Range>> {
        let mut ranges: Vec<Range> = Vec::new();
        let trampoline = vec![TRAMPOLINE; usize::try_from(self.trampoline_pages * PAGE)?];
        for (kind, va, object) in self.objects(&trampoline) {
            let mut done = 0;
            while done < object.len() {
                let at = va + done as u64;
                let size = object.len().min(done + usize::try_from(PAGE - at % PAGE)?) - done;
                let pa = match self.rodata_pa {
                    Some(start) if kind == kind::KERNEL_DATA => start + done as u64,
                    _ => page()? + at % PAGE,
                };
                bytes::write(memory, pa, &object[done..done + size])?;
                append(&mut ranges, Range { va: at, pa, epa: pa + size as u64, attributes: kind });
                done += size;
            }
        }
        Ok(ranges)
    }
}

/// Appends a range, as a part of the last one where both are neighbours in memory.
pub(super) fn append(ranges: &mut Vec<Range>, range: Range) {
    match ranges.last_mut() {
        Some(last) if last.epa == range.pa && last.attributes == range.attributes => last.epa = range.epa,
        _ => ranges.push(range),
    }
}

/// A DER SEQUENCE around `content`.
#[must_use]
pub fn der(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut element = vec![0x30];
    match digits.as_slice() {
        [] => element.push(0),
        [short] if *short < 0x80 => element.push(*short),
        long => {
            element.push(0x80 + u8::try_from(long.len()).unwrap_or(8));
            element.extend(long);
        }
    }
    element.extend(content);
    element
}

/// Blacklist records with these texts.
#[must_use]
pub fn blocklist(texts: &[&str]) -> Vec<u8> {
    texts
        .iter()
        .flat_map(|text| {
            let mut record = text.as_bytes().to_vec();
            record.resize(RECORD, 0);
            record
        })
        .collect()
}

/// `struct heki_patch_info` with its sites, which are jump labels.
#[must_use]
pub fn patch_record(sites: &[Site]) -> Vec<u8> {
    record_of_type(0, sites)
}

/// The same with static calls of the kernel's own, each with the call or the jump that was compiled.
#[must_use]
pub fn static_call_record(sites: &[Site]) -> Vec<u8> {
    record_of_type(1, sites)
}

fn record_of_type(kind: u8, sites: &[Site]) -> Vec<u8> {
    let mut record = vec![0; 48];
    let count = (sites.len() as u64).to_le_bytes();
    record[0] = kind;
    // The list head and the module pointer are VTL0's own business.
    record[8..32].fill(0xee);
    record[32..40].copy_from_slice(&count);
    record[40..48].copy_from_slice(&count);
    for site in sites {
        record.extend(site.pa.to_le_bytes());
        record.extend(site.next_page.to_le_bytes());
        record.push(site.size);
        record.extend(site.jump);
        record.extend([0; 2]);
    }
    record
}

/// `struct heki_kinfo`: the bounds of both export tables, the paravirt operations, and five more addresses.
#[must_use]
pub fn kernel_info(tables: [u64; 4], pv_ops: &[u64], others: [u64; 5]) -> Vec<u8> {
    tables.iter().chain(pv_ops).chain(&others).flat_map(|word| word.to_le_bytes()).collect()
}

/// Symbols sorted by name within each table, as a kernel has them.
fn exports(count: usize, random: &mut SplitMix) -> Vec<Export> {
    let mut exports: Vec<Export> = (0..count)
        .map(|index| {
            let length = usize::try_from(random.next() % 40).unwrap_or(0);
            let value = match random.next() % 20 {
                // A per-CPU symbol's value is an offset.
                0 => random.next() % 0x3_0000,
                _ => RODATA - (random.next() % 0x100_0000),
            };
            Export { name: format!("sym{index}_{}", "x".repeat(length)), value, gpl: random.next().is_multiple_of(2) }
        })
        .collect();
    exports.sort_by(|left, right| (left.gpl, &left.name).cmp(&(right.gpl, &right.name)));
    exports
}

/// Read-only data with both export tables and their names, and the `heki_kinfo` that says where they are.
fn rodata(exports: &[Export], random: &mut SplitMix) -> (Vec<u8>, Vec<u8>) {
    let before = usize::try_from(random.next() % 20_000).unwrap_or(0);
    let table = before.next_multiple_of(4);
    let names = table + 12 * exports.len() + 100;
    let mut bytes = vec![0xaa; names];
    // Names are in no order that follows from the tables'.
    let mut order: Vec<usize> = (0..exports.len()).collect();
    for index in (1..order.len()).rev() {
        let other = usize::try_from(random.next() % (index as u64 + 1)).unwrap_or(0);
        order.swap(index, other);
    }
    for index in order {
        let entry = table + 12 * index;
        let name = bytes.len();
        bytes.extend(exports[index].name.as_bytes());
        bytes.push(0);
        // Each is relative to its own field, and wraps.
        let value = exports[index].value.wrapping_sub(RODATA + entry as u64);
        let fields = [value, (name - entry - 4) as u64, (bytes.len() - 1 - entry - 8) as u64];
        for (place, field) in bytes[entry..entry + 12].chunks_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes()[..4]);
        }
    }
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    let plain = exports.iter().filter(|export| !export.gpl).count();
    let [start, middle, end] = [0, plain, exports.len()].map(|index| RODATA + (table + 12 * index) as u64);
    let pv_ops: Vec<u64> = (0..84).map(|index| RODATA - 0x10_0000 + 16 * index).collect();
    (
        bytes,
        kernel_info(
            [start, middle, middle, end],
            &pv_ops,
            [RODATA - 5, RODATA - 4, RODATA - 3, RODATA - 2, RODATA - 1],
        ),
    )
}

/// Site number `index` of a kernel whose text lies at 16 MiB.
fn site(index: u64, random: &mut SplitMix) -> Site {
    let pa = 0x100_0000 + 4093 * index;
    let size = if random.next().is_multiple_of(2) { 2 } else { 5 };
    let straddles = pa % PAGE + u64::from(size) > PAGE;
    // The page after the next, for the text need not be contiguous.
    let next_page = if straddles { (pa / PAGE + 2) * PAGE + 0x1000_0000 } else { 0 };
    let jump = if size == 2 { [0xeb, 0x10, 0, 0, 0] } else { [0xe9, 0x10, 0x20, 0, 0] };
    Site { pa, next_page, jump, size }
}

/// Hands out pages one after the other.
///
/// # Errors
/// From the returned function, when `end` is reached.
pub fn consecutive(start: u64, end: u64) -> impl FnMut() -> Result<u64> {
    let mut next = start;
    move || {
        ensure!(next < end, "no page left below {end:#x}");
        next += PAGE;
        Ok(next - PAGE)
    }
}

/// Hands out pages from the top down, so that none is followed by its neighbour and every page is a range.
///
/// # Errors
/// From the returned function, when `start` is reached.
pub fn backwards(start: u64, end: u64) -> impl FnMut() -> Result<u64> {
    let mut next = end;
    move || {
        ensure!(next > start, "no page left above {start:#x}");
        next -= PAGE;
        Ok(next)
    }
}
