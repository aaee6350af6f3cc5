//! What VTL0's Linux does for `kexec_file_load`: the segments as its loader makes them, the
//! page list, `struct kimage`, and the HEKI list that names all of it (Linux 6.6, `kernel/kexec_core.c`,
//! `arch/x86/kernel/kexec-bzimage64.c`; LVBS contract §5.10).
//!
//! Tests change a part of it and see what VTL1 says.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use vsm_integrity::kexec::{BzImage, Form};

use super::bytes;
use super::lists::Range;
use super::modules::Frames;
use crate::hv::GuestMemory;

const PAGE: u64 = 4096;
/// Entries of a page of the page list; the last one links to the next page.
const ENTRIES: usize = 512;
/// Where the kernel's file appears in VTL0's virtual memory: Linux's vmalloc area.
const FILE_VA: u64 = 0xffff_c900_4000_0000;
/// The kinds of an entry (`IND_*`).
pub const DESTINATION: u64 = 1;
/// A link.
pub const INDIRECTION: u64 = 2;
/// The end.
pub const DONE: u64 = 4;
/// A page's source.
pub const SOURCE: u64 = 8;
/// The attributes of a list (LVBS contract §5.1).
pub const DESCRIPTION: u64 = 0;
/// The kernel's file.
pub const FILE: u64 = 1;
/// Pages.
pub const PAGES: u64 = 2;
/// Offsets in `struct kimage`.
pub const HEAD: u64 = 0;
/// Where the image is entered.
pub const START: u64 = 24;
/// The word that tells the two forms apart (include/linux/kexec.h): up to 6.6 a pointer to a copy of vmcoreinfo, which only a
/// crash image has; in 6.12 the number of segments.
pub const DECIDING: u64 = 56;
/// How many segments there are, up to 6.6; in 6.12 this word and all behind it lie [`WITHOUT_POINTER`] bytes before.
pub const COUNT: u64 = 64;
/// The first segment.
pub const SEGMENTS: u64 = 72;
/// The pointer's bytes.
const WITHOUT_POINTER: u64 = 8;
/// Bytes of a segment.
pub const SEGMENT: u64 = 32;
/// Bytes of `struct kimage` with all of its lists and flags, more or less.
const KIMAGE: u64 = 0x380;
/// Pages that start the image: control code, swap page, page tables.
const CONTROL_PAGES: u64 = 6;

/// A segment before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Physical address of its first page.
    pub start: u64,
    /// Bytes of its memory: whole pages.
    pub size: u64,
}

/// A kernel to be started.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel's file.
    pub file: Vec<u8>,
    /// As the loader makes them: purgatory, parameters with the command line, kernel, initrd.
    pub segments: Vec<Segment>,
    /// Where it is entered.
    pub start: u64,
    /// Whether it is the crash image.
    pub crash: bool,
    /// How `struct kimage` is laid out; at first as in 6.6.
    pub form: Form,
}

/// The kernel among [`Image::segments`].
pub const KERNEL: usize = 2;

impl Image {
    /// The image of a kernel, with its segments from `at` on.
    ///
    /// # Errors
    /// When the file is no kernel.
    pub fn new(file: &[u8], at: u64, crash: bool) -> Result<Self> {
        let kernel = BzImage::parse(file)?;
        let content = file.get(kernel.kernel).context("the kernel proper")?;
        let mut next = at;
        let mut segment = |bytes: &[u8], size: u64| {
            let size = size.max(bytes.len() as u64).next_multiple_of(PAGE);
            let start = next;
            next += size;
            Segment { bytes: bytes.to_vec(), start, size }
        };
        let segments = vec![
            segment(&[0x90; 0x1400], 0x5000),
            segment(b"BOOT_PARAMS root=/dev/sda1 quiet", 0x2000),
            segment(content, kernel.init_size),
            segment(&[0x1f; 0x5123], 0),
        ];
        Ok(Self { file: file.to_vec(), segments, start: at + 0x40, crash, form: Form::WithPointer })
    }

    /// First byte behind the segments.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.iter().map(|segment| segment.start + segment.size).max().unwrap_or_default()
    }

    /// Puts everything into memory and makes the list's ranges.
    ///
    /// # Errors
    /// When there are no frames left, or a frame is not RAM.
    pub fn place(&self, memory: &dyn GuestMemory, frames: &mut Frames) -> Result<Placed> {
        let mut placed = Placed { crash: self.crash, ..Placed::default() };
        placed.kimage = frames.take()?;
        placed.put_file(memory, frames, &self.file)?;
        for (index, segment) in self.segments.iter().enumerate() {
            ensure!(segment.bytes.len() as u64 <= segment.size && segment.size.is_multiple_of(PAGE), "segment {index}");
            let mut pages = Vec::new();
            for offset in (0..segment.size).step_by(4096) {
                // A crash image is loaded to where it runs.
                let page = if self.crash { segment.start + offset } else { frames.take()? };
                let mut content = [0; 4096];
                let from = usize::try_from(offset)?.min(segment.bytes.len());
                let part = &segment.bytes[from..segment.bytes.len().min(from + 4096)];
                content[..part.len()].copy_from_slice(part);
                bytes::write(memory, page, &content)?;
                pages.push(page);
            }
            placed.sources.push(pages);
        }
        if !self.crash {
            placed.write_entries(memory, frames, &self.entries(&placed.sources))?;
        }
        placed.control = (0..CONTROL_PAGES).map(|_| frames.take()).collect::<Result<_>>()?;
        self.describe(memory, &placed)?;
        placed.list();
        Ok(placed)
    }

    /// The page list without links.
    #[must_use]
    pub fn entries(&self, sources: &[Vec<u64>]) -> Vec<u64> {
        let mut entries = Vec::new();
        for (segment, pages) in self.segments.iter().zip(sources) {
            entries.push(segment.start | DESTINATION);
            entries.extend(pages.iter().map(|page| page | SOURCE));
        }
        entries.push(DONE);
        entries
    }

    /// Writes `struct kimage`.
    ///
    /// # Errors
    /// When its frame is not RAM.
    pub fn describe(&self, memory: &dyn GuestMemory, placed: &Placed) -> Result<()> {
        // Linux takes it from kzalloc: nothing of what was there before.
        bytes::write(memory, placed.kimage, &vec![0; usize::try_from(KIMAGE)?])?;
        let put = |at: u64, value: u64| bytes::write_u64(memory, placed.kimage + at, value);
        put(HEAD, placed.links.first().map_or(DONE, |link| link | INDIRECTION))?;
        put(START, self.start)?;
        let shift = match self.form {
            Form::WithPointer => {
                put(DECIDING, if self.crash { FILE_VA } else { 0 })?;
                0
            }
            Form::WithoutPointer => WITHOUT_POINTER,
        };
        put(COUNT - shift, self.segments.len() as u64)?;
        for (index, segment) in self.segments.iter().enumerate() {
            let at = SEGMENTS - shift + index as u64 * SEGMENT;
            put(at, FILE_VA)?;
            put(at + 8, segment.bytes.len() as u64)?;
            put(at + 16, segment.start)?;
            put(at + 24, segment.size)?;
        }
        Ok(())
    }
}

/// An image in VTL0's memory.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// The list's ranges.
    pub ranges: Vec<Range>,
    /// Physical address of `struct kimage`.
    pub kimage: u64,
    /// Pages of the file.
    pub file: Vec<u64>,
    file_size: u64,
    /// Pages of the page list.
    pub links: Vec<u64>,
    /// The pages that hold the segments.
    pub sources: Vec<Vec<u64>>,
    /// Pages that start the image.
    pub control: Vec<u64>,
    crash: bool,
}

impl Placed {
    fn put_file(&mut self, memory: &dyn GuestMemory, frames: &mut Frames, file: &[u8]) -> Result<()> {
        for part in file.chunks(4096) {
            let page = frames.take()?;
            bytes::write(memory, page, part)?;
            self.file.push(page);
        }
        self.file_size = file.len() as u64;
        Ok(())
    }

    /// Writes the page list, as Linux does: a page's last entry links to the next page.
    ///
    /// # Errors
    /// When there are no frames left, or a frame is not RAM.
    pub fn write_entries(&mut self, memory: &dyn GuestMemory, frames: &mut Frames, entries: &[u64]) -> Result<()> {
        let chunks: Vec<&[u64]> = entries.chunks(ENTRIES - 1).collect();
        self.links = (0..chunks.len()).map(|_| frames.take()).collect::<Result<_>>()?;
        for (index, chunk) in chunks.into_iter().enumerate() {
            let mut page = [0u8; 4096];
            let link = self.links.get(index + 1).map(|next| next | INDIRECTION);
            for (slot, entry) in chunk.iter().copied().chain(link).enumerate() {
                page[slot * 8..slot * 8 + 8].copy_from_slice(&entry.to_le_bytes());
            }
            bytes::write(memory, self.links[index], &page)?;
        }
        Ok(())
    }

    /// Makes the list's ranges: neighbours are merged if they are of one kind.
    pub fn list(&mut self) {
        let mut ranges = Vec::new();
        let kimage = self.kimage;
        append(&mut ranges, Range::direct(kimage, kimage + KIMAGE, DESCRIPTION));
        let ends = (1..).map(|page| self.file_size.min(page * PAGE));
        for ((page, va), end) in self.file.iter().zip((FILE_VA..).step_by(4096)).zip(ends) {
            append(&mut ranges, Range { va, pa: *page, epa: page + (FILE_VA + end - va), attributes: FILE });
        }
        for page in self.frozen().into_iter().filter(|page| *page != kimage) {
            append(&mut ranges, Range::direct(page, page + PAGE, PAGES));
        }
        self.ranges = ranges;
    }

    /// The pages that VTL0 must not be able to write once the image is accepted.
    #[must_use]
    pub fn frozen(&self) -> Vec<u64> {
        let sources = self.sources.iter().flatten();
        [self.kimage].iter().chain(&self.links).chain(sources).chain(&self.control).copied().collect()
    }

    /// The ranges of a driver that names the memory of a crash image's segments in their description only.
    #[must_use]
    pub fn ranges_without_segments(&self) -> Vec<Range> {
        let listed = |range: &&Range| range.attributes != PAGES;
        let mut ranges: Vec<Range> = self.ranges.iter().filter(listed).copied().collect();
        for page in &self.control {
            append(&mut ranges, Range::direct(*page, page + PAGE, PAGES));
        }
        ranges
    }

    /// The third register of the call.
    #[must_use]
    pub fn flag(&self) -> u64 {
        u64::from(self.crash)
    }

    /// Gives all frames back but those of a crash image's segments.
    pub fn free(&self, frames: &mut Frames) {
        frames.give(&[self.kimage]);
        frames.give(&self.file);
        frames.give(&self.links);
        frames.give(&self.control);
        if !self.crash {
            self.sources.iter().for_each(|pages| frames.give(pages));
        }
    }
}

/// What the driver does: neighbours in physical memory become one range, whatever their virtual addresses.
fn append(ranges: &mut Vec<Range>, range: Range) {
    match ranges.last_mut() {
        Some(last) if last.epa == range.pa && last.attributes == range.attributes => last.epa = range.epa,
        _ => ranges.push(range),
    }
}

/// A distribution's signed kernels, which `cargo xtask doctor --fix` fetches: in `target/kernels`, or where `VSM_KERNELS`
/// says.
#[must_use]
pub fn distribution_kernels() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kernels");
    let place = env::var_os("VSM_KERNELS").map_or(beside, PathBuf::from);
    let entries = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_kernel = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    let mut kernels: Vec<PathBuf> = entries.filter(is_kernel).collect();
    kernels.sort();
    kernels
}
