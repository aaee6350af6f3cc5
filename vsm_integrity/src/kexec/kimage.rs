//! `struct kimage`: where the segments of an image go (Linux `include/linux/kexec.h`; LVBS contract §5.10).
//!
//! The structure comes in two forms, with and without a pointer before the number of segments. Which one it is, the image
//! itself says: where one form has its number of segments, 1 to 16, the other has a pointer or nothing.

use core::fmt;

use crate::addresses::is_in_kernel_half;
use crate::bytes::u64_at;
use crate::error::ParseError;

/// The most segments (`KEXEC_SEGMENT_MAX`).
pub const MAX_SEGMENTS: usize = 16;
/// Bytes of the structure that are looked at.
pub const KIMAGE_BYTES: usize = Form::WithPointer.segments() + MAX_SEGMENTS * SEGMENT_BYTES;
/// The most bytes that all segments have in memory. Kernel and initrd of a distribution have some 150 MiB.
pub const MAX_BYTES: u64 = 512 << 20;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Offsets of fields: `head`, `start`, and of the word by which the forms differ.
const HEAD: usize = 0;
const START: usize = 24;
const DECIDING: usize = 56;
/// Bytes of `struct kexec_segment`: `buf`, `bufsz`, `mem`, `memsz`.
const SEGMENT_BYTES: usize = 32;
/// End of the physical address space.
const END: u64 = 1 << 52;

/// A form of the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Linux 6.1 and 6.6: `nr_segments` comes after a pointer.
    WithPointer,
    /// Linux 6.12: it comes in its place.
    WithoutPointer,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WithPointer => "Linux 6.1 and 6.6",
            Self::WithoutPointer => "Linux 6.12",
        })
    }
}

impl Form {
    /// The form of the description that `bytes` start with.
    fn find(bytes: &[u8]) -> Result<Self, ParseError> {
        let word = u64_at(bytes, DECIDING).ok_or(SHORT)?;
        if (1..=MAX_SEGMENTS as u64).contains(&word) {
            Ok(Self::WithoutPointer)
        } else if word == 0 || is_in_kernel_half(word) {
            Ok(Self::WithPointer)
        } else {
            let rule =
                "an image of neither known form: here are 1 to 16 segments (Linux 6.12), or a pointer or 0 (6.1, 6.6)";
            Err(ParseError::new(DECIDING, rule))
        }
    }

    /// Offset of `nr_segments`.
    const fn count(self) -> usize {
        match self {
            Self::WithPointer => DECIDING + 8,
            Self::WithoutPointer => DECIDING,
        }
    }

    /// Offset of `segment`.
    const fn segments(self) -> usize {
        self.count() + 8
    }
}

/// A part of an image that is contiguous where it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Bytes that are loaded; zeros follow.
    pub bytes: u64,
    /// Physical address of its first page.
    pub start: u64,
    /// Physical address after its last page.
    pub end: u64,
}

impl Segment {
    /// How many pages it has; at least one.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        (self.end - self.start) / PAGE
    }

    /// Whether the byte at `address` is in it.
    #[must_use]
    pub const fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    fn parse(bytes: &[u8], at: usize) -> Result<Self, ParseError> {
        let refuse = |rule| ParseError::new(at, rule);
        let field = |offset| u64_at(bytes, at + offset).ok_or(SHORT);
        let (loaded, start, size) = (field(8)?, field(16)?, field(24)?);
        let end = start.checked_add(size).filter(|end| *end <= END).ok_or(refuse("a segment ends beyond 2^52"))?;
        if !start.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) {
            return Err(refuse("a segment must be made of whole pages"));
        }
        if start == end {
            return Err(refuse("a segment must not be empty"));
        }
        if loaded > size {
            return Err(refuse("a segment has more bytes than memory"));
        }
        Ok(Self { bytes: loaded, start, end })
    }
}

const SHORT: ParseError = ParseError::new(KIMAGE_BYTES, "the description of the image is too short");

/// An image as Linux describes it. Its addresses are physical, page-aligned, and its segments do not overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kimage {
    /// The first entry of the page list.
    pub head: u64,
    /// Where the image is entered: in one of the segments.
    pub start: u64,
    /// The form that the description has.
    pub form: Form,
    segments: [Segment; MAX_SEGMENTS],
    count: usize,
}

impl Kimage {
    /// Reads the description, which `bytes` start with.
    ///
    /// # Errors
    /// When `bytes` are fewer than [`KIMAGE_BYTES`], are of neither [`Form`], there is no segment or more than [`MAX_SEGMENTS`], one is not made of
    /// whole pages below 2^52, two overlap, they have more than [`MAX_BYTES`] together, or the image is entered elsewhere.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() < KIMAGE_BYTES {
            return Err(SHORT);
        }
        let form = Form::find(bytes)?;
        let count = u64_at(bytes, form.count()).ok_or(SHORT)?;
        let count = usize::try_from(count).ok().filter(|count| (1..=MAX_SEGMENTS).contains(count));
        let count = count.ok_or(ParseError::new(form.count(), "an image has 1 to 16 segments"))?;
        let mut kimage = Self {
            head: u64_at(bytes, HEAD).ok_or(SHORT)?,
            start: u64_at(bytes, START).ok_or(SHORT)?,
            form,
            segments: [Segment::default(); MAX_SEGMENTS],
            count: 0,
        };
        let mut size = 0u64;
        for index in 0..count {
            let at = form.segments() + index * SEGMENT_BYTES;
            let segment = Segment::parse(bytes, at)?;
            if kimage.segments().iter().any(|other| segment.start < other.end && other.start < segment.end) {
                return Err(ParseError::new(at, "segments must not overlap"));
            }
            size = size.saturating_add(segment.end - segment.start);
            if size > MAX_BYTES {
                return Err(ParseError::new(at, "the segments have more bytes than VTL1 takes"));
            }
            if let Some(place) = kimage.segments.get_mut(index) {
                *place = segment;
            }
            kimage.count = index + 1;
        }
        if !kimage.segments().iter().any(|segment| segment.contains(kimage.start)) {
            return Err(ParseError::new(START, "the image must be entered in one of its segments"));
        }
        Ok(kimage)
    }

    /// The segments, 1 to 16.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.count).unwrap_or_default()
    }

    /// The segment whose memory the page at `address` is of.
    #[must_use]
    pub fn segment_at(&self, address: u64) -> Option<&Segment> {
        self.segments().iter().find(|segment| segment.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(segments: &[[u64; 4]], start: u64) -> Vec<u8> {
        described_as(Form::WithPointer, segments, start)
    }

    fn described_as(form: Form, segments: &[[u64; 4]], start: u64) -> Vec<u8> {
        let mut bytes = vec![0; KIMAGE_BYTES];
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(HEAD, 0x1234_5002);
        put(START, start);
        put(form.count(), segments.len() as u64);
        for (index, segment) in segments.iter().take(MAX_SEGMENTS).enumerate() {
            for (field, value) in segment.iter().enumerate() {
                put(form.segments() + index * SEGMENT_BYTES + field * 8, *value);
            }
        }
        bytes
    }

    #[test]
    fn an_image_is_read() {
        let kimage = Kimage::parse(&described(&[[9, 0x10, 0x1000, 0x2000], [9, 0x1000, 0x5000, 0x1000]], 0x5fff));
        let kimage = kimage.unwrap();
        assert_eq!((kimage.head, kimage.start), (0x1234_5002, 0x5fff));
        let segments = [
            Segment { bytes: 0x10, start: 0x1000, end: 0x3000 },
            Segment { bytes: 0x1000, start: 0x5000, end: 0x6000 },
        ];
        assert_eq!(kimage.segments(), segments);
        assert_eq!(kimage.segment_at(0x2fff), Some(&segments[0]));
        assert_eq!((kimage.segment_at(0x3000), kimage.segment_at(0xfff)), (None, None));
    }

    #[test]
    fn the_image_says_which_form_it_has() {
        let segments = [[9, 0x10, 0x1000, 0x2000], [9, 0x1000, 0x5000, 0x1000]];
        let mut old = described(&segments, 0x1000);
        let new = described_as(Form::WithoutPointer, &segments, 0x1000);
        let parsed = Kimage::parse(&new).unwrap();
        assert_eq!(parsed, Kimage { form: Form::WithoutPointer, ..Kimage::parse(&old).unwrap() });
        // A pointer, of the kernel's half only; each form is checked by its own rules.
        for (word, accepted) in [(0xffff_8880_1234_5000, true), (u64::MAX << 47, true), (17, false), (1 << 46, false)] {
            old[DECIDING..DECIDING + 8].copy_from_slice(&u64::to_le_bytes(word));
            let refused = Kimage::parse(&old).err();
            assert_eq!(refused.is_none(), accepted, "{word:#x}");
            assert!(refused.is_none_or(|refused| refused.offset == DECIDING && refused.rule.contains("neither")));
        }
        old[DECIDING] = 1;
        old[DECIDING + 1..DECIDING + 8].fill(0);
        assert!(Kimage::parse(&old).is_err());
        let mut odd = new.clone();
        odd[DECIDING] = 0;
        assert!(Kimage::parse(&odd).is_err());
        for start in [0xfff, 0x3000, 0x6000] {
            assert!(Kimage::parse(&described_as(Form::WithoutPointer, &segments, start)).is_err());
        }
    }

    #[test]
    fn what_no_image_is_like_is_refused() {
        let page = |index: u64| [0, 1, index << 12, 0x1000];
        let many: Vec<_> = (1..=17).map(page).collect();
        assert!(Kimage::parse(&described(&many[..16], 0x1000)).is_ok());
        assert!(Kimage::parse(&described(&[[0, 0, 0, MAX_BYTES]], 0)).is_ok());
        for (segments, start, rule) in [
            (&many[..], 0x1000, "1 to 16"),
            (&[][..], 0, "1 to 16"),
            (&[[0, 0, 0x1001, 0x1000]], 0x1001, "whole pages"),
            (&[[0, 0, 0x1000, 0x1001]], 0x1000, "whole pages"),
            (&[[0, 0, 0x1000, 0]], 0x1000, "empty"),
            (&[[0, 0x1001, 0x1000, 0x1000]], 0x1000, "more bytes than memory"),
            (&[[0, 0, u64::MAX - 0xfff, 0x2000]], 0, "2^52"),
            (&[[0, 0, END - 0x1000, 0x2000]], END, "2^52"),
            (&[page(3), [0, 0, 0x2000, 0x2000]], 0x3000, "overlap"),
            (&[[0, 0, 0, MAX_BYTES], [0, 0, MAX_BYTES, 0x1000]], 0, "than VTL1 takes"),
            (&[page(3)], 0x4000, "entered"),
            (&[page(3)], 0x2fff, "entered"),
        ] {
            let refused = Kimage::parse(&described(segments, start)).unwrap_err();
            assert!(refused.rule.contains(rule), "{refused}");
        }
        let mut odd = described(&[page(1)], 0x1000);
        odd[Form::WithPointer.count() + 7] = 1;
        assert!(Kimage::parse(&odd).is_err());
        for length in 0..KIMAGE_BYTES {
            assert_eq!(Kimage::parse(&described(&many[..1], 0x1000)[..length]), Err(SHORT));
        }
    }
}
