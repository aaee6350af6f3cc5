//! The page list of an image that is copied to its place when it is started (Linux `kimage_add_entry`, `IND_*`).
//!
//! Linux writes it in one way only: for each segment, in order, its destination and then one source for each page of it;
//! full pages of entries are linked to the next one; at last the end. Any other list is refused, so that every page of a
//! segment comes from the one source that was looked at, and nothing is put over it afterwards.
//!
//! Bounded by that shape: as many entries as segments and pages, and a link after another entry only.

use thiserror::Error;

use super::kimage::Kimage;

/// The kinds of an entry, in its low bits.
const DESTINATION: u64 = 1;
const INDIRECTION: u64 = 2;
const DONE: u64 = 4;
const SOURCE: u64 = 8;
/// The low bits.
const FLAGS: u64 = 0xfff;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// End of the physical address space.
const END: u64 = 1 << 52;

/// Why a list was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("entry {entry:#x}: {rule}")]
pub struct PageListError {
    /// The entry.
    pub entry: u64,
    /// The rule that was broken.
    pub rule: &'static str,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next segment begins.
    Destination,
    /// The page at `source` goes to `destination`, a page of segment number `segment`.
    Source {
        /// Physical address.
        source: u64,
        /// Physical address.
        destination: u64,
        /// Index of the segment.
        segment: usize,
    },
    /// The list goes on at the start of the page with this physical address.
    Indirection(u64),
    /// The list ends, and all segments are complete.
    Done,
}

/// A walk of a list.
#[derive(Debug)]
pub struct PageList<'a> {
    kimage: &'a Kimage,
    /// Index of the next segment.
    next: usize,
    /// Where the next source goes, and where the present segment ends.
    at: u64,
    end: u64,
    /// Whether the last entry was a link.
    linked: bool,
}

impl<'a> PageList<'a> {
    /// The list of an image, from its start.
    #[must_use]
    pub fn new(kimage: &'a Kimage) -> Self {
        Self { kimage, next: 0, at: 0, end: 0, linked: false }
    }

    /// Checks the next entry.
    ///
    /// # Errors
    /// When Linux would not have written it here.
    pub fn step(&mut self, entry: u64) -> Result<Step, PageListError> {
        let refuse = |rule| Err(PageListError { entry, rule });
        let page = entry & !FLAGS;
        if page >= END {
            return refuse("an address beyond 2^52");
        }
        let linked = core::mem::replace(&mut self.linked, false);
        match entry & FLAGS {
            DESTINATION => {
                let Some(segment) = self.kimage.segments().get(self.next) else {
                    return refuse("more destinations than segments");
                };
                if self.at != self.end {
                    return refuse("a destination before the last segment is complete");
                }
                if page != segment.start {
                    return refuse("a destination that is not the next segment's");
                }
                (self.at, self.end) = (segment.start, segment.end);
                self.next += 1;
                Ok(Step::Destination)
            }
            SOURCE => {
                if self.at >= self.end {
                    return refuse("more sources than the segment has pages");
                }
                let destination = self.at;
                self.at += PAGE;
                Ok(Step::Source { source: page, destination, segment: self.next.saturating_sub(1) })
            }
            INDIRECTION => {
                if linked {
                    return refuse("a link to nothing but another link");
                }
                self.linked = true;
                Ok(Step::Indirection(page))
            }
            DONE => {
                if page != 0 {
                    return refuse("an end with an address");
                }
                if self.at != self.end || self.next != self.kimage.segments().len() {
                    return refuse("the list ends before the segments are complete");
                }
                Ok(Step::Done)
            }
            _ => refuse("no kind of entry, or several"),
        }
    }
}

/// The one entry of an image that lies where it will run: a crash image has no page list.
///
/// # Errors
/// When it has one.
pub fn check_none(head: u64) -> Result<(), PageListError> {
    if head == DONE {
        return Ok(());
    }
    Err(PageListError { entry: head, rule: "a crash image has no page list" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kexec::kimage::KIMAGE_BYTES;

    /// Segments 0x1000..0x3000 and 0x8000..0x9000.
    fn kimage() -> Kimage {
        let mut bytes = vec![0; KIMAGE_BYTES];
        let fields = [(24, 0x1000), (64, 2), (88, 0x1000), (96, 0x2000), (120, 0x8000), (128, 0x1000)];
        for (at, value) in fields {
            bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        Kimage::parse(&bytes).unwrap()
    }

    const GOOD: [u64; 8] = [0xa002, 0x1001, 0x5008, 0xb002, 0x6008, 0x8001, 0x7008, 4];

    fn walk(entries: &[u64]) -> Result<Vec<Step>, PageListError> {
        let kimage = kimage();
        let mut list = PageList::new(&kimage);
        entries.iter().map(|entry| list.step(*entry)).collect()
    }

    #[test]
    fn a_list_is_walked() {
        let source = |source, destination, segment| Step::Source { source, destination, segment };
        assert_eq!(
            walk(&GOOD).unwrap(),
            [
                Step::Indirection(0xa000),
                Step::Destination,
                source(0x5000, 0x1000, 0),
                Step::Indirection(0xb000),
                source(0x6000, 0x2000, 0),
                Step::Destination,
                source(0x7000, 0x8000, 1),
                Step::Done
            ]
        );
        assert!(check_none(4).is_ok() && check_none(0).is_err() && check_none(0x1004).is_err());
    }

    /// Whether the entries are a whole list.
    fn accepted(entries: &[u64]) -> bool {
        walk(entries).is_ok_and(|steps| steps.iter().position(|step| *step == Step::Done) == Some(entries.len() - 1))
    }

    #[test]
    fn any_other_list_is_refused() {
        assert!(accepted(&GOOD));
        let is_link = |entry: u64| entry & FLAGS == INDIRECTION && entry < END;
        // But for links and the pages that sources name, no entry can be replaced, left out or put in.
        for at in 0..GOOD.len() {
            for entry in [0, 1, 2, 3, 4, 8, 0x1001, 0x8001, 0x9001, 0x1004, 0x1009, 0x1018, 0xc002, 0xd008, u64::MAX] {
                let mut other = GOOD;
                other[at] = entry;
                let same = [INDIRECTION, SOURCE].contains(&(entry & FLAGS)) && entry & FLAGS == GOOD[at] & FLAGS;
                assert_eq!(accepted(&other), same || entry == GOOD[at], "{at}: {entry:#x}");
                let more = [&GOOD[..at], &[entry], &GOOD[at..]].concat();
                let beside_link = is_link(GOOD[at]) || at.checked_sub(1).is_some_and(|before| is_link(GOOD[before]));
                assert_eq!(accepted(&more), is_link(entry) && !beside_link, "{entry:#x} before {at}");
            }
            let less = [&GOOD[..at], &GOOD[at + 1..]].concat();
            assert_eq!(accepted(&less), is_link(GOOD[at]), "without {at}");
        }
        // A list that goes round comes to too many entries, or to a link after a link.
        assert!(walk(&[0xa002, 0xa002]).is_err());
        assert!(walk(&[0xa002, 0x1001, 0xa002, 0x1001]).is_err());
    }
}
