//! What a list names, while it is being looked at: claimed, frozen, and mapped.
//!
//! Whole pages of a file are made unwritable for VTL0 before a byte of them is read. A page that the file uses in part may
//! hold other data of VTL0's kernel, and is copied instead.

use alloc::vec::Vec;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::access::FetchOnce;
use litebox_platform_lvbs::address::{FrameRange, PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::frames::{FrozenView, Permission, Transaction};
use litebox_platform_lvbs::hardware::{AlignedPage, ViewPiece};
use litebox_platform_lvbs::heki::CheckedRange;
use litebox_platform_lvbs::owner::Owner;

use crate::objects::{ObjectKind, Objects};

/// The frames that a list has named, whole, for one owner. Two objects that shared one would not be found out by the registry.
#[derive(Default)]
pub(crate) struct NamedFrames(Vec<FrameRange>);

impl NamedFrames {
    /// Names frames.
    pub(crate) fn push(&mut self, frames: FrameRange) -> Result<(), VsmError> {
        self.0.try_reserve(1).map_err(out_of_memory)?;
        self.0.push(frames);
        Ok(())
    }

    /// Refuses frames that are named twice, or of which something else has been fetched.
    pub(crate) fn check(mut self, fetched: &mut FetchOnce<'_>) -> Result<(), VsmError> {
        self.0.sort_unstable_by_key(|frames| frames.start());
        fetched.note_frames(&self.0)
    }
}

/// The bytes of frozen frames.
pub(crate) struct Pieces<'a>(Vec<ViewPiece<'a>>);

impl<'a> Pieces<'a> {
    /// Those of `runs`, one after another.
    pub(crate) fn of_frames(runs: &[FrameRange]) -> Result<Self, VsmError> {
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(runs.len()).map_err(out_of_memory)?;
        pieces.extend(runs.iter().map(|frames| ViewPiece::Frozen(*frames)));
        Ok(Self(pieces))
    }

    /// Maps them.
    pub(crate) fn view<'v>(&'v self, transaction: &'v Transaction<'_>) -> Result<FrozenView<'v>, VsmError>
    where
        'a: 'v,
    {
        transaction.view(&self.0)
    }
}

/// A page of the file.
enum FilePiece {
    /// Whole pages.
    Frozen(FrameRange),
    /// A page that the file uses in part: the index of its copy.
    Copied(usize),
}

/// A file: its whole pages claimed, the others copied.
pub(crate) struct File {
    pieces: Vec<FilePiece>,
    /// The first and the last page at most.
    copies: Vec<AlignedPage>,
    /// Offset of the file's first byte in the pieces.
    first: usize,
    /// How many bytes the file has.
    size: usize,
}

impl File {
    /// Claims the whole pages of the file that `objects` have as `kind`, and copies what is left of it. The claim by `owner`
    /// only keeps it from changing, until [`Self::release`] or the end of the transaction.
    pub(crate) fn claim<K: ObjectKind>(
        (objects, kind): (&Objects<K>, K),
        owner: Owner,
        fetched: &mut FetchOnce<'_>,
        named: &mut NamedFrames,
        transaction: &mut Transaction<'_>,
    ) -> Result<Self, VsmError> {
        let mut file = Self { pieces: Vec::new(), copies: Vec::new(), first: 0, size: 0 };
        let first_va = objects.ranges(kind).next().map(CheckedRange::va);
        let first_va = first_va.ok_or_else(|| kind.refuse(0, "the file must be on the list"))?;
        file.first = usize::try_from(first_va % PAGE_SIZE).map_err(out_of_memory)?;
        let mut open = false;
        for range in objects.ranges(kind) {
            let joins = range.va() % PAGE_SIZE == range.start() % PAGE_SIZE;
            let continues = range.va() == first_va || (!open && range.start().is_multiple_of(PAGE_SIZE));
            if !joins || !continues {
                return Err(kind.refuse(range.va(), "the file's ranges must join at the borders of pages"));
            }
            open = !range.end().is_multiple_of(PAGE_SIZE);
            file.size =
                usize::try_from(range.byte_count()).ok().and_then(|bytes| file.size.checked_add(bytes)).ok_or(OUT)?;
            let (mut at, end) = (range.start(), range.end());
            while at < end {
                let page_end = at - at % PAGE_SIZE + PAGE_SIZE;
                let whole = at.is_multiple_of(PAGE_SIZE) && page_end <= end;
                let stop = if whole { end - end % PAGE_SIZE } else { end.min(page_end) };
                if whole {
                    let frames = FrameRange::from_bytes(at, stop)?;
                    named.push(frames)?;
                    transaction.stage(frames, owner, owner, Permission::R)?;
                    file.push(FilePiece::Frozen(frames))?;
                } else {
                    file.copy(at, stop, fetched)?;
                }
                at = stop;
            }
        }
        Ok(file)
    }

    /// Copies the bytes `start..end`, all of one page, to their place in a page of VTL1's.
    fn copy(&mut self, start: u64, end: u64, fetched: &mut FetchOnce<'_>) -> Result<(), VsmError> {
        self.copies.try_reserve(1).map_err(out_of_memory)?;
        self.copies.push(AlignedPage::ZEROED);
        let page = self.copies.last_mut().ok_or(OUT)?;
        let offset = usize::try_from(start % PAGE_SIZE).map_err(out_of_memory)?;
        let bytes = usize::try_from(end - start).map_err(out_of_memory)?;
        let place = page.0.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes)).ok_or(OUT)?;
        fetched.fetch(PhysAddr::new(start)?, place)?;
        self.push(FilePiece::Copied(self.copies.len() - 1))
    }

    fn push(&mut self, piece: FilePiece) -> Result<(), VsmError> {
        self.pieces.try_reserve(1).map_err(out_of_memory)?;
        self.pieces.push(piece);
        Ok(())
    }

    /// All pages, for a view.
    pub(crate) fn pieces(&self) -> Result<Pieces<'_>, VsmError> {
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(self.pieces.len()).map_err(out_of_memory)?;
        for piece in &self.pieces {
            pieces.push(match piece {
                FilePiece::Frozen(frames) => ViewPiece::Frozen(*frames),
                FilePiece::Copied(index) => ViewPiece::Copied(self.copies.get(*index).ok_or(OUT)?),
            });
        }
        Ok(Pieces(pieces))
    }

    /// The file's bytes in a view of its pages.
    pub(crate) fn bytes<'v>(&self, view: &'v [u8]) -> &'v [u8] {
        view.get(self.first..).and_then(|rest| rest.get(..self.size)).unwrap_or_default()
    }

    /// Gives the file's pages back as they were.
    pub(crate) fn release(&self, transaction: &mut Transaction<'_>) -> Result<(), VsmError> {
        for piece in &self.pieces {
            if let FilePiece::Frozen(frames) = piece {
                transaction.unstage(*frames)?;
            }
        }
        Ok(())
    }
}

const OUT: VsmError = VsmError::OutOfMemory("frozen memory");

fn out_of_memory<T>(_: T) -> VsmError {
    OUT
}
