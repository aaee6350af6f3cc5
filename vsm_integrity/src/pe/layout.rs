//! What of a PE file is signed, from its headers ("PE Format", sections "MS-DOS Stub" to "Section Table").

use core::ops::Range;

use crate::bytes::array_at;
use crate::error::ParseError;
use crate::signature::SignatureError;

use super::table::MAX_TABLE_BYTES;

/// The most bytes of headers, stub included. Linux's images have 512 to 4096.
pub const MAX_HEADER_BYTES: usize = 64 << 10;
/// The most sections ("PE Format": the Windows loader's limit).
pub const MAX_SECTIONS: u16 = 96;

/// Where the MS-DOS header says where the PE signature is.
const PE_OFFSET: usize = 0x3c;
/// Bytes of the PE signature and the COFF file header.
const FILE_HEADER_BYTES: usize = 24;
/// Where in the optional header the size of all headers is.
const SIZE_OF_HEADERS: usize = 60;
/// Where in the optional header the checksum is.
const CHECKSUM: usize = 64;
/// The certificate table's place among the data directories.
const CERTIFICATE_DIRECTORY: usize = 4;
/// Bytes of a data directory.
const DIRECTORY_BYTES: usize = 8;
/// Bytes of an entry of the section table.
const SECTION_BYTES: usize = 40;

/// Where the parts of a signed PE file lie, as offsets into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayout {
    pub(super) file_len: usize,
    /// The checksum's four bytes.
    pub(super) checksum: Range<usize>,
    /// The data directory of the certificate table.
    pub(super) directory: Range<usize>,
    /// The certificate table, which ends the file.
    pub certificates: Range<usize>,
}

impl ImageLayout {
    /// Finds the parts of a file of `file_len` bytes that starts with `head`: [`MAX_HEADER_BYTES`], or the whole file
    /// where it is shorter; more is fine too.
    ///
    /// # Errors
    /// [`SignatureError::NotSigned`] without certificate table; [`SignatureError::TooLong`] for headers beyond
    /// [`MAX_HEADER_BYTES`] and for a table beyond [`MAX_TABLE_BYTES`]; [`SignatureError::Image`] for whatever is not
    /// as the format says, and for bytes that no signature would cover.
    pub fn parse(head: &[u8], file_len: usize) -> Result<Self, SignatureError> {
        let image = Headers::parse(head).map_err(SignatureError::Image)?;
        if image.size > MAX_HEADER_BYTES {
            return Err(SignatureError::TooLong { what: "headers", bytes: image.size, most: MAX_HEADER_BYTES });
        }
        if image.certificates.is_empty() {
            return Err(SignatureError::NotSigned);
        }
        let table = image.certificates.len();
        if table > MAX_TABLE_BYTES {
            return Err(SignatureError::TooLong { what: "a certificate table", bytes: table, most: MAX_TABLE_BYTES });
        }
        let refuse = |offset, rule| Err(SignatureError::Image(ParseError::new(offset, rule)));
        if image.certificates.end != file_len {
            return refuse(image.directory, "the certificate table does not end where the file does");
        }
        if !image.certificates.start.is_multiple_of(8) {
            return refuse(image.directory, "the certificate table is not aligned to 8 bytes");
        }
        let covered = image.covered(head).map_err(SignatureError::Image)?;
        if covered > image.certificates.start {
            return refuse(image.directory, "the certificate table lies in a section");
        }
        Ok(Self {
            file_len,
            checksum: image.checksum..image.checksum.saturating_add(4),
            directory: image.directory..image.directory.saturating_add(DIRECTORY_BYTES),
            certificates: image.certificates,
        })
    }
}

/// What the headers say.
struct Headers {
    /// Of all headers: where the first section starts.
    size: usize,
    checksum: usize,
    directory: usize,
    certificates: Range<usize>,
    sections: usize,
    section_count: u16,
}

fn u16_at(head: &[u8], offset: usize) -> Result<u16, ParseError> {
    array_at(head, offset).map(u16::from_le_bytes).ok_or(ParseError::new(offset, "the file ends in its headers"))
}

/// A word of the headers, as an offset or a size.
fn word_at(head: &[u8], offset: usize) -> Result<usize, ParseError> {
    let word: [u8; 4] = array_at(head, offset).ok_or(ParseError::new(offset, "the file ends in its headers"))?;
    usize::try_from(u32::from_le_bytes(word)).map_err(|_| ParseError::new(offset, "longer than memory"))
}

impl Headers {
    fn parse(head: &[u8]) -> Result<Self, ParseError> {
        if head.first_chunk() != Some(b"MZ") {
            return Err(ParseError::new(0, "an image starts with MZ"));
        }
        let pe = word_at(head, PE_OFFSET)?;
        // What no linker does is refused.
        if !(PE_OFFSET + 4..=MAX_HEADER_BYTES).contains(&pe) || !pe.is_multiple_of(2) {
            return Err(ParseError::new(PE_OFFSET, "no place for a PE signature"));
        }
        if array_at(head, pe) != Some(*b"PE\0\0") {
            return Err(ParseError::new(pe, "no PE signature"));
        }
        let section_count = u16_at(head, pe + 6)?;
        if section_count > MAX_SECTIONS {
            return Err(ParseError::new(pe + 6, "a PE file has 96 sections at most"));
        }
        let optional = pe + FILE_HEADER_BYTES;
        let optional_size = usize::from(u16_at(head, pe + 20)?);
        // PE32 and PE32+ differ in the width of four fields before the directories.
        let directories = match u16_at(head, optional)? {
            0x10b => 96,
            0x20b => 112,
            _ => return Err(ParseError::new(optional, "neither PE32 nor PE32+")),
        };
        let count = word_at(head, optional + directories - 4)?;
        let end = count.checked_mul(DIRECTORY_BYTES).and_then(|bytes| bytes.checked_add(directories));
        if end.is_none_or(|end| end > optional_size) {
            return Err(ParseError::new(
                optional + directories - 4,
                "more data directories than the header has room for",
            ));
        }
        let directory = optional + directories + CERTIFICATE_DIRECTORY * DIRECTORY_BYTES;
        let certificates = if count > CERTIFICATE_DIRECTORY {
            let (start, size) = (word_at(head, directory)?, word_at(head, directory + 4)?);
            start..start.checked_add(size).ok_or(ParseError::new(directory, "longer than memory"))?
        } else {
            0..0
        };
        let checksum = optional + CHECKSUM;
        // Its value is of no account, but it must be there.
        word_at(head, checksum)?;
        Ok(Self {
            size: word_at(head, optional + SIZE_OF_HEADERS)?,
            checksum,
            directory,
            certificates,
            sections: optional + optional_size,
            section_count,
        })
    }

    /// Where the last section ends, when they follow each other and the headers without gap or overlap.
    ///
    /// Authenticode hashes the headers, the sections in the order of their places, and what follows the last one: with
    /// such sections that is all of the file. Bytes between sections it would leave out.
    fn covered(&self, head: &[u8]) -> Result<usize, ParseError> {
        let entries = usize::from(self.section_count) * SECTION_BYTES;
        if self.size < self.sections + entries {
            return Err(ParseError::new(self.sections, "the section table is not within the headers"));
        }
        let section = |index: usize| {
            let entry = self.sections + index * SECTION_BYTES;
            Ok((word_at(head, entry + 20)?, word_at(head, entry + 16)?, entry))
        };
        let mut end = self.size;
        let mut left = 0usize;
        for index in 0..usize::from(self.section_count) {
            let (start, size, entry) = section(index)?;
            if size > 0 {
                left += 1;
                if start < self.size {
                    return Err(ParseError::new(entry, "a section lies in the headers"));
                }
            }
        }
        // They need not be in order in the table. As many turns as sections, each over all of them: 96 at most.
        while left > 0 {
            let mut next = None;
            for index in 0..usize::from(self.section_count) {
                let (start, size, entry) = section(index)?;
                if size > 0 && start == end {
                    if next.is_some() {
                        return Err(ParseError::new(entry, "two sections start at one place"));
                    }
                    next = Some(size);
                }
            }
            let size = next.ok_or(ParseError::new(self.sections, "sections overlap, or bytes lie between them"))?;
            end = end.checked_add(size).ok_or(ParseError::new(self.sections, "longer than memory"))?;
            left -= 1;
        }
        Ok(end)
    }
}
