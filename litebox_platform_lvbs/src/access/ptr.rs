//! Typed pointers into VTL0 memory.
//!
//! A pointer says where a value of a fixed layout lies, and has been checked not to touch VTL1's frames. It gives
//! no reference: a value is copied, as a whole, once per call, so that no code can look at VTL0's bytes twice by
//! accident. The bytes of a value may lie in pages that are not neighbours. Nothing that is read is trusted.

use core::fmt;
use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::address::{AddressError, FrameRange, PAGE_SIZE, PhysAddr};
use crate::error::VsmError;
use crate::frames::FrameRegistry;
use crate::hardware::Hardware;
use crate::owner::Owner;
use crate::platform::Platform;

use super::refuse::refuse_vtl1;

#[cfg(test)]
#[path = "ptr_tests.rs"]
mod tests;

/// Where the bytes of a value lie: from `first` to the end of its page, then in `more`, page by page.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// Contiguous from here.
    Contiguous(PhysAddr),
    /// The rest of the first page, then these pages.
    Scattered { first: PhysAddr, more: &'a [PhysAddr] },
}

/// A piece of a value: the part within one page.
struct Piece {
    at: PhysAddr,
    bytes: usize,
}

impl Piece {
    fn frame(&self) -> Result<FrameRange, AddressError> {
        let gfn = self.at.gfn().as_u64();
        FrameRange::from_gfns(gfn, gfn + 1)
    }
}

impl Place<'_> {
    /// The pieces of a value of `size` bytes, each within a page.
    fn pieces(self, size: usize) -> impl Iterator<Item = Result<Piece, VsmError>> {
        let mut left = size;
        let mut next = match self {
            Self::Contiguous(at) | Self::Scattered { first: at, .. } => Ok(at),
        };
        let mut following = match self {
            Self::Contiguous(_) => [].iter(),
            Self::Scattered { more, .. } => more.iter(),
        };
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let at = match next {
                Ok(at) => at,
                Err(error) => {
                    left = 0;
                    return Some(Err(error));
                }
            };
            let room = PAGE_SIZE - at.page_offset();
            let bytes = usize::try_from(room).map_or(left, |room| room.min(left));
            left -= bytes;
            next = match self {
                Self::Contiguous(_) => at.checked_add(room).map_err(VsmError::from),
                Self::Scattered { .. } => {
                    following.next().copied().ok_or(VsmError::InvalidParameter { name: "pages", value: at.as_u64() })
                }
            };
            Some(Ok(Piece { at, bytes }))
        })
    }

    /// Calls `check` for each piece.
    fn check(self, size: usize, check: impl Fn(Piece) -> Result<(), VsmError>) -> Result<(), VsmError> {
        self.pieces(size).try_for_each(|piece| check(piece?))
    }

    fn read<T: FromBytes + IntoBytes>(self, hardware: &dyn Hardware) -> Result<T, VsmError> {
        let mut value = T::new_zeroed();
        self.read_into(hardware, value.as_mut_bytes())?;
        Ok(value)
    }

    fn read_into(self, hardware: &dyn Hardware, into: &mut [u8]) -> Result<(), VsmError> {
        let mut rest = into;
        for piece in self.pieces(rest.len()) {
            let Piece { at, bytes } = piece?;
            let (part, after) = rest.split_at_mut_checked(bytes).ok_or(VsmError::Vtl0MemoryFault(at))?;
            hardware.read_vtl0(at, part).map_err(|fault| VsmError::Vtl0MemoryFault(fault.0))?;
            rest = after;
        }
        Ok(())
    }

    fn write(self, hardware: &dyn Hardware, bytes: &[u8]) -> Result<(), VsmError> {
        let mut rest = bytes;
        for piece in self.pieces(bytes.len()) {
            let Piece { at, bytes } = piece?;
            let (part, after) = rest.split_at_checked(bytes).ok_or(VsmError::Vtl0MemoryFault(at))?;
            hardware.write_vtl0(at, part).map_err(|fault| VsmError::Vtl0MemoryFault(fault.0))?;
            rest = after;
        }
        Ok(())
    }

    /// Checks that all of it lies in frames that `claimant` may write.
    fn check_claim(self, registry: &FrameRegistry, claimant: Owner, size: usize) -> Result<(), VsmError> {
        self.check_pages(size)?;
        self.check(size, |piece| registry.check(piece.frame()?, claimant))
    }

    /// Page-aligned continuation pages, and only as many as the value needs.
    fn check_pages(self, size: usize) -> Result<(), VsmError> {
        let Self::Scattered { first, more } = self else { return Ok(()) };
        if let Some(page) = more.iter().find(|page| !page.is_page_aligned()) {
            return Err(VsmError::NotPageAligned(page.as_u64()));
        }
        let needed = self.pieces(size).count().saturating_sub(1);
        if more.len() > needed {
            return Err(VsmError::InvalidParameter { name: "pages", value: first.as_u64() });
        }
        Ok(())
    }
}

/// Points to a value in VTL0 memory that VTL1 reads.
#[derive(Clone, Copy)]
pub struct PhysConstPtr<'a, T> {
    place: Place<'a>,
    value: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes> PhysConstPtr<'static, T> {
    /// Points to the value that starts at `at` and runs through contiguous memory.
    ///
    /// # Errors
    /// [`VsmError::FrameOwned`] when a byte of it lies in VTL1, [`VsmError::InvalidPhysicalAddress`] when it runs past
    /// 2^52.
    pub fn new(platform: &Platform, at: PhysAddr) -> Result<Self, VsmError> {
        PhysConstPtr::checked(platform, Place::Contiguous(at))
    }
}

impl<'a, T: FromBytes + IntoBytes> PhysConstPtr<'a, T> {
    /// Points to the value that starts at `first` and, where that page ends, goes on in the pages `more`.
    ///
    /// # Errors
    /// As [`Self::new`], and [`VsmError::NotPageAligned`] or [`VsmError::InvalidParameter`] when `more` is not exactly
    /// the page-aligned addresses that the value needs.
    pub fn scattered(platform: &Platform, first: PhysAddr, more: &'a [PhysAddr]) -> Result<Self, VsmError> {
        Self::checked(platform, Place::Scattered { first, more })
    }

    fn checked(platform: &Platform, place: Place<'a>) -> Result<Self, VsmError> {
        place.check_pages(size_of::<T>())?;
        place.check(size_of::<T>(), |piece| refuse_vtl1(platform, piece.at, piece.bytes as u64))?;
        Ok(Self { place, value: PhantomData })
    }

    /// Copies the value. Each call fetches each byte once; a caller that has checked a copy must use that copy.
    ///
    /// # Errors
    /// [`VsmError::Vtl0MemoryFault`].
    pub fn read(&self, hardware: &dyn Hardware) -> Result<T, VsmError> {
        self.place.read(hardware)
    }

    /// Copies the value into its place, and nowhere else: for a secret. After an error the place holds a part of it.
    ///
    /// # Errors
    /// [`VsmError::Vtl0MemoryFault`].
    pub fn read_into(&self, hardware: &dyn Hardware, into: &mut T) -> Result<(), VsmError> {
        self.place.read_into(hardware, into.as_mut_bytes())
    }
}

/// Points to a value in VTL0 memory that VTL1 may write, on behalf of the owner it was made for.
///
/// It borrows the registry, so that no frame changes hands between the check and the write.
#[derive(Clone, Copy)]
pub struct PhysMutPtr<'a, T: ?Sized> {
    place: Place<'a>,
    /// In bytes.
    size: usize,
    registry: PhantomData<&'a FrameRegistry>,
    value: PhantomData<T>,
}

impl<'a, T: FromBytes + IntoBytes + Immutable> PhysMutPtr<'a, T> {
    /// Points to the value that starts at `at` and runs through contiguous memory.
    ///
    /// # Errors
    /// [`VsmError::FrameOwned`] when a byte of it lies in a frame that is neither `claimant`'s nor free,
    /// [`VsmError::InvalidPhysicalAddress`] when it runs past 2^52.
    pub fn new(registry: &'a FrameRegistry, claimant: Owner, at: PhysAddr) -> Result<Self, VsmError> {
        Self::checked(registry, claimant, Place::Contiguous(at))
    }

    /// Points to the value that starts at `first` and, where that page ends, goes on in the pages `more`.
    ///
    /// # Errors
    /// As [`Self::new`], and [`VsmError::NotPageAligned`] or [`VsmError::InvalidParameter`] when `more` is not exactly
    /// the page-aligned addresses that the value needs.
    pub fn scattered(
        registry: &'a FrameRegistry,
        claimant: Owner,
        first: PhysAddr,
        more: &'a [PhysAddr],
    ) -> Result<Self, VsmError> {
        Self::checked(registry, claimant, Place::Scattered { first, more })
    }

    fn checked(registry: &'a FrameRegistry, claimant: Owner, place: Place<'a>) -> Result<Self, VsmError> {
        place.check_claim(registry, claimant, size_of::<T>())?;
        Ok(Self { place, size: size_of::<T>(), registry: PhantomData, value: PhantomData })
    }

    /// Copies the value out.
    ///
    /// # Errors
    /// [`VsmError::Vtl0MemoryFault`].
    pub fn read(&self, hardware: &dyn Hardware) -> Result<T, VsmError> {
        self.place.read(hardware)
    }

    /// Writes the value.
    ///
    /// # Errors
    /// [`VsmError::Vtl0MemoryFault`]; the pages before the one at fault have been written.
    pub fn write(&self, hardware: &dyn Hardware, value: &T) -> Result<(), VsmError> {
        self.place.write(hardware, value.as_bytes())
    }
}

impl<'a> PhysMutPtr<'a, [u8]> {
    /// Points to `size` bytes from `first` on, as [`PhysMutPtr::scattered`] does.
    ///
    /// # Errors
    /// As [`PhysMutPtr::scattered`].
    pub fn bytes(
        registry: &'a FrameRegistry,
        claimant: Owner,
        first: PhysAddr,
        more: &'a [PhysAddr],
        size: usize,
    ) -> Result<Self, VsmError> {
        let place = Place::Scattered { first, more };
        place.check_claim(registry, claimant, size)?;
        Ok(Self { place, size, registry: PhantomData, value: PhantomData })
    }

    /// Copies the bytes out, all of them.
    ///
    /// # Errors
    /// [`VsmError::InvalidParameter`] when `into` has another size; [`VsmError::Vtl0MemoryFault`].
    pub fn read_into(&self, hardware: &dyn Hardware, into: &mut [u8]) -> Result<(), VsmError> {
        self.check_size(into.len())?;
        self.place.read_into(hardware, into)
    }

    /// Writes the bytes, all of them.
    ///
    /// # Errors
    /// As [`Self::read_into`]; the pages before the one at fault have been written.
    pub fn write_from(&self, hardware: &dyn Hardware, from: &[u8]) -> Result<(), VsmError> {
        self.check_size(from.len())?;
        self.place.write(hardware, from)
    }

    fn check_size(&self, size: usize) -> Result<(), VsmError> {
        if size == self.size { Ok(()) } else { Err(VsmError::InvalidParameter { name: "bytes", value: size as u64 }) }
    }
}

impl fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contiguous(at) => write!(f, "{at}"),
            Self::Scattered { first, more } => write!(f, "{first} and {more:?}"),
        }
    }
}

impl<T> fmt::Debug for PhysConstPtr<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysConstPtr({:?})", self.place)
    }
}

impl<T: ?Sized> fmt::Debug for PhysMutPtr<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysMutPtr({:?})", self.place)
    }
}
