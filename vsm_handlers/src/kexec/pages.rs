//! The pages that an image is made of: which are frozen, and which goes where.
//!
//! All of it is read from frozen memory, once it is frozen. Bounded by what a list may name and an image may have.

use alloc::vec::Vec;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::access::FetchOnce;
use litebox_platform_lvbs::address::{FrameRange, PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::frames::Transaction;
use litebox_platform_lvbs::vtl0::KexecSlot;
use vsm_integrity::kexec::page_list::{self, PageListError};
use vsm_integrity::kexec::{Kimage, PageList, Segment, Step};

use super::parts::Part;
use crate::frozen::Pieces;
use crate::objects::ObjectKind;

/// Entries of a page.
const ENTRIES: usize = 512;
/// Pages that are looked at together.
const TOGETHER: u64 = 1024;
/// A page of zeros.
static ZEROS: [u8; 4096] = [0; 4096];

/// A set of frames.
#[derive(Default)]
pub(super) struct FrameSet(Vec<FrameRange>);

impl FrameSet {
    /// Adds frames, which may be in it already.
    pub(super) fn push(&mut self, frames: FrameRange) -> Result<(), VsmError> {
        self.0.try_reserve(1).map_err(out_of_memory)?;
        self.0.push(frames);
        Ok(())
    }

    /// Puts the set in order: ascending runs that do not touch.
    pub(super) fn settle(&mut self) -> Result<(), VsmError> {
        self.0.sort_unstable_by_key(|frames| frames.start());
        let mut settled: Vec<FrameRange> = Vec::new();
        settled.try_reserve_exact(self.0.len()).map_err(out_of_memory)?;
        for frames in &self.0 {
            match settled.last_mut() {
                Some(last) if frames.start() <= last.end() => {
                    *last = FrameRange::from_gfns(last.start(), last.end().max(frames.end()))?;
                }
                _ => settled.push(*frames),
            }
        }
        self.0 = settled;
        Ok(())
    }

    /// Refuses frames of which something else has been fetched. The set has been settled, so that nothing of it need be noted:
    /// among very many spans above it that would take long for each of its runs.
    pub(super) fn check(&self, fetched: &FetchOnce<'_>) -> Result<(), VsmError> {
        self.iter().try_for_each(|frames| {
            let (start, bytes) = (frames.start() * PAGE_SIZE, frames.count() * PAGE_SIZE);
            if fetched.fresh(PhysAddr::new(start)?, bytes) == bytes {
                return Ok(());
            }
            let rule = "its bytes must not be named twice";
            Err(VsmError::InvalidRange { start, end: frames.end() * PAGE_SIZE, rule })
        })
    }

    /// The runs.
    pub(super) fn iter(&self) -> impl Iterator<Item = FrameRange> + '_ {
        self.0.iter().copied()
    }

    /// How many frames there are.
    pub(super) fn count(&self) -> u64 {
        self.iter().fold(0, |sum, frames| sum.saturating_add(frames.count()))
    }

    /// How many frames of `other` are in the set, which has been settled.
    fn count_within(&self, other: FrameRange) -> u64 {
        let first = self.0.partition_point(|frames| frames.end() <= other.start());
        let runs = self.0.get(first..).unwrap_or_default().iter().take_while(|frames| frames.start() < other.end());
        runs.fold(0, |sum, frames| sum + (frames.end().min(other.end()) - frames.start().max(other.start())))
    }

    /// Whether the page at `address` is in the set, which has been settled.
    fn contains(&self, address: u64) -> bool {
        let gfn = address / PAGE_SIZE;
        let after = self.0.partition_point(|frames| frames.start() <= gfn);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|frames| gfn < frames.end())
    }
}

/// The frames of a segment's memory.
pub(super) fn frames(segment: &Segment) -> Result<FrameRange, VsmError> {
    Ok(FrameRange::from_bytes(segment.start, segment.end)?)
}

/// Where the bytes of an image's segments are now.
pub(super) enum Sources {
    /// Where they will run.
    InPlace,
    /// In these pages, by physical address, one segment after another.
    Copied(Vec<u64>),
}

impl Sources {
    /// Finds them. All pages are in `frozen`, and none of them is written when the image is put together, before it has been
    /// read.
    pub(super) fn find(
        slot: KexecSlot,
        kimage: &Kimage,
        frozen: &FrameSet,
        transaction: &Transaction<'_>,
    ) -> Result<Self, VsmError> {
        match slot {
            KexecSlot::Crash => page_list::check_none(kimage.head).map(|()| Self::InPlace).map_err(refuse),
            KexecSlot::Normal => walk(kimage, frozen, transaction).map(Self::Copied),
        }
    }

    /// Whether a segment of the image holds `content` with zeros behind it.
    pub(super) fn hold(
        &self,
        kimage: &Kimage,
        segment: usize,
        content: &[u8],
        transaction: &Transaction<'_>,
    ) -> Result<bool, VsmError> {
        let (before, rest) = kimage.segments().split_at_checked(segment).unwrap_or_default();
        let Some(segment) = rest.first() else { return Ok(false) };
        let first = before.iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.pages()));
        let page = |index: u64| match self {
            Self::InPlace => segment.start.checked_add(index.checked_mul(PAGE_SIZE)?),
            Self::Copied(pages) => pages.get(usize::try_from(first.checked_add(index)?).ok()?).copied(),
        };
        let mut rest = content;
        let mut done = 0;
        while done < segment.pages() {
            let until = segment.pages().min(done + TOGETHER);
            let mut runs: Vec<FrameRange> = Vec::new();
            for index in done..until {
                let Some(page) = page(index) else { return Ok(false) };
                append(&mut runs, FrameRange::from_bytes(page, page.saturating_add(PAGE_SIZE))?)?;
            }
            let pieces = Pieces::of_frames(&runs)?;
            let view = pieces.view(transaction)?;
            let (expected, after) = rest.split_at_checked(view.len()).unwrap_or((rest, &[]));
            let (found, tail) = view.split_at_checked(expected.len()).unwrap_or_default();
            if found != expected || tail.chunks(ZEROS.len()).any(|chunk| Some(chunk) != ZEROS.get(..chunk.len())) {
                return Ok(false);
            }
            rest = after;
            done = until;
        }
        Ok(rest.is_empty())
    }
}

/// Adds a frame to runs of them, in order.
fn append(runs: &mut Vec<FrameRange>, frame: FrameRange) -> Result<(), VsmError> {
    match runs.last_mut() {
        Some(last) if last.end() == frame.start() => *last = FrameRange::from_gfns(last.start(), frame.end())?,
        _ => {
            runs.try_reserve(1).map_err(out_of_memory)?;
            runs.push(frame);
        }
    }
    Ok(())
}

/// The pages that the page list names as sources, in its order.
fn walk(kimage: &Kimage, frozen: &FrameSet, transaction: &Transaction<'_>) -> Result<Vec<u64>, VsmError> {
    let total = kimage.segments().iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.pages()));
    let total = usize::try_from(total).map_err(out_of_memory)?;
    let mut sources: Vec<u64> = Vec::new();
    sources.try_reserve_exact(total).map_err(out_of_memory)?;
    let mut links: Vec<u64> = Vec::new();
    let mut list = PageList::new(kimage);
    let mut step = list.step(kimage.head).map_err(refuse)?;
    // Each turn reads one page of entries, and the list has an end (see `page_list`).
    loop {
        let Step::Indirection(link) = step else {
            // Only the last entry of all, as there is a segment.
            return Err(Part::Description.refuse(0, "the page list must have pages of its own"));
        };
        let page = [checked_page(link, "a page of the page list must be on the list", frozen)?];
        if kimage.segment_at(link).is_some() {
            return Err(Part::Pages.refuse(link, "a page of the page list lies where a segment goes"));
        }
        links.try_reserve(1).map_err(out_of_memory)?;
        links.push(link);
        let pieces = Pieces::of_frames(&page)?;
        let view = pieces.view(transaction)?;
        let (entries, _) = view.as_chunks::<8>();
        let mut next = None;
        for entry in entries.iter().take(ENTRIES) {
            match list.step(u64::from_le_bytes(*entry)).map_err(refuse)? {
                Step::Destination => {}
                Step::Source { source, destination, .. } => {
                    checked_page(source, "a source of the image must be on the list", frozen)?;
                    if source != destination && kimage.segment_at(source).is_some() {
                        return Err(Part::Pages.refuse(source, "a source lies where another page goes"));
                    }
                    sources.try_reserve(1).map_err(out_of_memory)?;
                    sources.push(source);
                }
                Step::Done => {
                    refuse_twice(&sources, links)?;
                    refuse_overwritten(kimage, &sources, frozen)?;
                    return Ok(sources);
                }
                link @ Step::Indirection(_) => {
                    next = Some(link);
                    break;
                }
            }
        }
        step = next.ok_or(Part::Pages.refuse(link, "a page of the page list has no end"))?;
    }
}

/// The frame of a page that must be frozen; `rule` says so.
fn checked_page(address: u64, rule: &'static str, frozen: &FrameSet) -> Result<FrameRange, VsmError> {
    if !frozen.contains(address) {
        return Err(Part::Pages.refuse(address, rule));
    }
    Ok(FrameRange::from_bytes(address, address.saturating_add(PAGE_SIZE))?)
}

/// Refuses a page that has two uses: what is copied first may leave something else in it for the second.
fn refuse_twice(sources: &[u64], links: Vec<u64>) -> Result<(), VsmError> {
    let mut pages = links;
    pages.try_reserve_exact(sources.len()).map_err(out_of_memory)?;
    pages.extend_from_slice(sources);
    pages.sort_unstable();
    match pages.array_windows().find(|[one, other]| one == other) {
        Some([page, _]) => Err(Part::Pages.refuse(*page, "a page of the image is used twice")),
        None => Ok(()),
    }
}

/// Refuses pages of the HEKI list that lie where a segment goes, but for sources that are there already: a listed swap page
/// there would change the segment while Linux copies, and a listed control page would be overwritten.
fn refuse_overwritten(kimage: &Kimage, sources: &[u64], frozen: &FrameSet) -> Result<(), VsmError> {
    let mut rest = sources;
    for segment in kimage.segments() {
        let pages = usize::try_from(segment.pages()).map_err(out_of_memory)?;
        let (own, after) = rest.split_at_checked(pages).unwrap_or((rest, &[]));
        rest = after;
        let destinations = (segment.start..segment.end).step_by(ZEROS.len());
        let in_place = destinations.zip(own).filter(|(destination, source)| destination == *source).count();
        if frozen.count_within(frames(segment)?) != in_place as u64 {
            return Err(
                Part::Pages.refuse(segment.start, "a page that is not its own source lies where a segment goes")
            );
        }
    }
    Ok(())
}

fn refuse(error: PageListError) -> VsmError {
    Part::Pages.refuse(error.entry, error.rule)
}

fn out_of_memory<T>(_: T) -> VsmError {
    VsmError::OutOfMemory("a kexec image")
}
