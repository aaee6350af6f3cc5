//! The sites at which VTL0 will ask for text patches: jump labels, and the kernel's own static calls.
//!
//! Linux's `struct heki_patch_info` with its `struct heki_patch`es (LVBS contract §5.9), as many of them as the bytes
//! hold, one after the other.

use core::ops::Range;

use crate::bytes::{array_at, u32_at, u64_at};
use crate::error::ParseError;

/// Bytes of a `heki_patch_info` before its patches.
pub const HEADER_BYTES: usize = 48;
/// Bytes of a `heki_patch`.
pub const PATCH_BYTES: usize = 24;
/// `HEKI_JUMP_LABEL`, the only type of record that the contract has.
pub const JUMP_LABEL: u32 = 0;
/// A record of static calls and their trampolines, which is VTL1's own and no part of the contract.
pub const STATIC_CALL: u32 = 1;
/// First byte of a call with a 32-bit displacement, 5 bytes long (Intel SDM vol. 2, CALL).
const CALL_REL32: u8 = 0xe8;
/// First byte of a jump with an 8-bit displacement, 2 bytes long (Intel SDM vol. 2, JMP).
const JMP_REL8: u8 = 0xeb;
/// First byte of a jump with a 32-bit displacement, 5 bytes long.
const JMP_REL32: u8 = 0xe9;
/// Bits of a physical address (Intel SDM vol. 3 §4.1.4).
const PHYS_ADDR_BITS: u32 = 52;
const PAGE: u64 = 4096;

/// What a record's sites are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SiteType {
    /// Jumps that may become NOPs and back.
    #[default]
    JumpLabel,
    /// Calls and jumps, as they were compiled, that may go elsewhere.
    StaticCall,
}

/// A place in VTL0's kernel text that may be patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchSite {
    /// What it is.
    pub kind: SiteType,
    /// Physical address of the first byte.
    pub pa: u64,
    /// Physical address of the page with the bytes that are not on the first one; 0 when all are.
    pub next_page: u64,
    /// The jump or the call, 2 or 5 bytes of it.
    code: [u8; 5],
    len: u8,
}

impl PatchSite {
    /// The jump, or of a static call what was compiled.
    #[must_use]
    pub fn jump(&self) -> &[u8] {
        self.code.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Checks a `heki_patch` of a record of that type.
    ///
    /// # Errors
    /// The rule that the patch breaks.
    pub fn parse(kind: SiteType, patch: &[u8; PATCH_BYTES]) -> Result<Self, &'static str> {
        const SHORT: &str = "a patch has 24 bytes";
        let pa = u64_at(patch, 0).ok_or(SHORT)?;
        let next_page = u64_at(patch, 8).ok_or(SHORT)?;
        let [len] = array_at(patch, 16).ok_or(SHORT)?;
        let code: [u8; 5] = array_at(patch, 17).ok_or(SHORT)?;
        match (kind, len, code) {
            (SiteType::JumpLabel, 2, [JMP_REL8, ..])
            | (SiteType::JumpLabel, 5, [JMP_REL32, ..])
            | (SiteType::StaticCall, 5, [CALL_REL32 | JMP_REL32, ..]) => {}
            (SiteType::StaticCall, ..) => return Err("a static call must be a call or a jump of 5 bytes"),
            (_, 2 | 5, _) => return Err("a site's code must be a jump of the site's size"),
            _ => return Err("a site must have 2 or 5 bytes"),
        }
        if pa == 0 || pa >> PHYS_ADDR_BITS != 0 || next_page >> PHYS_ADDR_BITS != 0 {
            return Err("a site must have physical addresses");
        }
        if !next_page.is_multiple_of(PAGE) {
            return Err("a site goes on at the start of a page");
        }
        let straddles = pa % PAGE + u64::from(len) > PAGE;
        match (straddles, next_page) {
            (false, 0) => {}
            (false, _) => return Err("a site within a page has no second page"),
            (true, 0) => return Err("a site that crosses a page must have a second page"),
            (true, next) if next == pa - pa % PAGE => return Err("a site's second page must not be its first"),
            (true, _) => {}
        }
        Ok(Self { kind, pa, next_page, code, len })
    }
}

/// The sites in `bytes`, record by record. An error names the offset of the record or of the patch in it. After an
/// error the iterator ends.
///
/// Zeros after the last record, to the end, are padding: VTL0 may send whole pages.
#[must_use]
pub fn sites(bytes: &[u8]) -> Sites<'_> {
    sites_from(bytes, &[])
}

/// The same for bytes of several places. At each of `starts`, which ascend, a record may begin that VTL0 has allocated by
/// itself: zeros before it are padding then, too.
#[must_use]
pub fn sites_from<'a>(bytes: &'a [u8], starts: &'a [usize]) -> Sites<'a> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    Sites { bytes, starts, end, at: 0, left: 0, kind: SiteType::default(), padding: 0..0 }
}

/// See [`sites`].
#[derive(Clone, Debug)]
pub struct Sites<'a> {
    bytes: &'a [u8],
    /// Where a record may begin behind padding.
    starts: &'a [usize],
    /// After the last byte that is not zero.
    end: usize,
    at: usize,
    /// Patches of the present record that have not been yielded.
    left: u64,
    /// What they are.
    kind: SiteType,
    /// The zeros before the next place where a record may begin; looked for once for each place.
    padding: Range<usize>,
}

impl Sites<'_> {
    fn advance(&mut self) -> Result<Option<PatchSite>, ParseError> {
        while self.left == 0 {
            if self.at >= self.end {
                return Ok(None);
            }
            if let Some(start) = self.end_of_padding() {
                self.at = start;
                continue;
            }
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            (self.kind, self.left) = header(rest).map_err(|rule| ParseError::new(self.at, rule))?;
            self.at = self.at.saturating_add(HEADER_BYTES);
        }
        self.left -= 1;
        let start = self.at;
        let site = array_at(self.bytes, start)
            .ok_or("a record's patches end after the last byte")
            .and_then(|patch| PatchSite::parse(self.kind, &patch))
            .map_err(|rule| ParseError::new(start, rule))?;
        self.at = start.saturating_add(PATCH_BYTES);
        Ok(Some(site))
    }

    /// The next place where a record may begin, if what is here is padding before it. A record may begin with zeros as
    /// well: what makes sense here is one.
    fn end_of_padding(&mut self) -> Option<usize> {
        let next = self.starts.partition_point(|start| *start <= self.at);
        let start = *self.starts.get(next)?;
        if self.padding.end != start {
            let before = self.bytes.get(self.at..start)?;
            let used = before.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
            self.padding = self.at.saturating_add(used)..start;
        }
        let is_zero = self.padding.start <= self.at;
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let is_empty = || header(rest).is_ok() && u64_at(rest, 40) != Some(0);
        (is_zero && !self.is_record(self.at) && (self.is_record(start) || !is_empty())).then_some(start)
    }

    /// Whether a record with patches begins at `at`, as far as its header and first patch tell.
    fn is_record(&self, at: usize) -> bool {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let patches = rest.len().saturating_sub(HEADER_BYTES) / PATCH_BYTES;
        let Ok((kind, used)) = header(rest) else { return false };
        let is_held = usize::try_from(used).is_ok_and(|used| 0 < used && used <= patches);
        is_held && array_at(rest, HEADER_BYTES).is_some_and(|patch| PatchSite::parse(kind, &patch).is_ok())
    }
}

/// What patches, and how many, follow the header that `bytes` start with.
fn header(bytes: &[u8]) -> Result<(SiteType, u64), &'static str> {
    const SHORT: &str = "a record starts with 48 bytes";
    let kind = u32_at(bytes, 0).ok_or(SHORT)?;
    let used = u64_at(bytes, 32).ok_or(SHORT)?;
    let most = u64_at(bytes, 40).ok_or(SHORT)?;
    let kind = match kind {
        JUMP_LABEL => SiteType::JumpLabel,
        STATIC_CALL => SiteType::StaticCall,
        _ => return Err("a record is one of jump labels or of static calls"),
    };
    if used > most {
        return Err("a record has more patches than it has room for");
    }
    Ok((kind, used))
}

impl Iterator for Sites<'_> {
    type Item = Result<PatchSite, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.end = 0;
            self.left = 0;
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHORT_JUMP: &[u8] = &[0xeb, 0x12];
    const LONG_JUMP: &[u8] = &[0xe9, 1, 2, 3, 4];

    fn patch(pa: u64, next: u64, code: &[u8]) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&pa.to_le_bytes());
        bytes[8..16].copy_from_slice(&next.to_le_bytes());
        bytes[16] = u8::try_from(code.len()).unwrap();
        bytes[17..17 + code.len()].copy_from_slice(code);
        bytes
    }

    fn record(kind: u32, used: u64, most: u64, patches: &[[u8; 24]]) -> Vec<u8> {
        let mut bytes = vec![0xcc; 48];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[32..40].copy_from_slice(&used.to_le_bytes());
        bytes[40..48].copy_from_slice(&most.to_le_bytes());
        bytes.extend(patches.as_flattened());
        bytes
    }

    fn refused(bytes: &[u8]) -> ParseError {
        let items: Vec<_> = sites(bytes).collect();
        assert!(items[..items.len() - 1].iter().all(Result::is_ok));
        items.last().unwrap().unwrap_err()
    }

    #[test]
    fn every_patch_of_every_record_is_found() {
        let first = record(0, 2, 9, &[patch(0x1000, 0, SHORT_JUMP), patch(0x1ffd, 0x9000, LONG_JUMP)]);
        let empty = record(0, 0, 9, &[]);
        let second = record(0, 1, 1, &[patch(0x2ffb, 0, LONG_JUMP)]);
        let all = [first, empty.clone(), second, empty].concat();
        let found: Vec<_> = sites(&all).map(|site| site.map(|site| (site.pa, site.next_page))).collect();
        assert_eq!(found, [Ok((0x1000, 0)), Ok((0x1ffd, 0x9000)), Ok((0x2ffb, 0))]);
        assert_eq!(sites(&all).next().unwrap().unwrap().jump(), SHORT_JUMP);
        for zeros in [1, 47, 48, 49, 4096] {
            assert_eq!(sites(&[all.clone(), vec![0; zeros]].concat()).filter_map(Result::ok).count(), 3);
        }
        assert_eq!(sites(&[]).count(), 0);
    }

    /// Records that VTL0 has allocated one by one, in pages that happen to be neighbours.
    #[test]
    fn zeros_before_a_record_s_place_are_padding() {
        let padded = |bytes: &[u8], to: usize| [bytes, &vec![0; to - bytes.len()]].concat();
        // What is VTL0's own in a header may be zero.
        for own in [0xcc, 0] {
            let record = |pas: &[u64]| {
                let patches: Vec<_> = pas.iter().map(|pa| patch(*pa, 0, SHORT_JUMP)).collect();
                let mut bytes = record(0, pas.len() as u64, 170, &patches);
                bytes[8..32].fill(own);
                bytes
            };
            let many: Vec<u64> = (1..168).map(|index| 0x1000 + 8 * index).collect();
            let full: Vec<u64> = (1..169).map(|index| 0x1000 + 8 * index).collect();
            // The first leaves 40 bytes of its page, most of it, 16, two pages, and all but a header.
            for (first, pages) in [(&many, 1), (&many[..1].to_vec(), 1), (&full, 1), (&many, 3), (&vec![], 1)] {
                let one = padded(&record(first), 4096 * pages);
                let all = [one, record(&[0x9000, 0x9008]), vec![0; 99]].concat();
                let starts: Vec<usize> = (1..all.len().div_ceil(4096)).map(|page| 4096 * page).collect();
                let found: Result<Vec<u64>, _> =
                    sites_from(&all, &starts).map(|site| site.map(|site| site.pa)).collect();
                assert_eq!(found.unwrap(), [&first[..], &[0x9000, 0x9008]].concat(), "{own}, {} sites", first.len());
            }
            // One directly behind the other, however their headers lie over the start of a page.
            for start in (4000..4096).step_by(8) {
                let all = [record(&[0x1000]), record(&[0x2000]), record(&[0x3000])].concat();
                for cut in [72, 144] {
                    let starts = [cut + 4096 - start];
                    let found = sites_from(&all, &starts).map(|site| site.unwrap().pa).collect::<Vec<_>>();
                    assert_eq!(found, [0x1000, 0x2000, 0x3000], "{own}, a page from {} on", starts[0]);
                }
            }
        }
        // What is no padding stays wrong, and so does what is missing.
        let good = record(0, 1, 1, &[patch(0x1000, 0, SHORT_JUMP)]);
        let bad = [padded(&good, 4095), vec![1], good.clone()].concat();
        assert_eq!(sites_from(&bad, &[4096]).filter_map(Result::err).count(), 1);
        let cut = [padded(&good, 4096), good[..71].to_vec()].concat();
        assert_eq!(sites_from(&cut, &[4096]).filter_map(Result::err).count(), 1);
    }

    #[test]
    fn the_offset_of_what_is_wrong_is_named() {
        let good = record(0, 1, 1, &[patch(0x1000, 0, SHORT_JUMP)]);
        let end = good.len();
        let after = |bytes: Vec<u8>| refused(&[good.clone(), bytes].concat());
        assert_eq!(after(vec![1]), ParseError::new(end, "a record starts with 48 bytes"));
        assert_eq!(after(record(2, 0, 0, &[])).offset, end);
        assert_eq!(after(record(0, 2, 1, &[[0; 24]; 2])).offset, end);
        assert_eq!(after(record(0, 1, 1, &[])).offset, end + 48);
        assert_eq!(after(record(0, u64::MAX, u64::MAX, &[patch(0x1000, 0, SHORT_JUMP)])).offset, end + 72);
        for (bad, rule) in [
            (patch(0, 0, SHORT_JUMP), "physical"),
            (patch(1 << 52, 0, SHORT_JUMP), "physical"),
            (patch(u64::MAX, 0x1000, LONG_JUMP), "physical"),
            (patch(0x1fff, 1 << 52, SHORT_JUMP), "physical"),
            (patch(0x1000, 0, &[0xeb]), "2 or 5"),
            (patch(0x1000, 0, &[0xe9, 0, 0, 0]), "2 or 5"),
            (patch(0x1000, 0, &[0xe9, 0]), "must be a jump"),
            (patch(0x1000, 0, &[0x0f, 0x1f, 0x44, 0, 0]), "must be a jump"),
            (patch(0x1000, 0x3000, LONG_JUMP), "no second page"),
            (patch(0x1ffc, 0, LONG_JUMP), "second page"),
            (patch(0x1ffc, 0x3001, LONG_JUMP), "start of a page"),
            (patch(0x1ffc, 0x1000, LONG_JUMP), "must not be its first"),
        ] {
            let error = after(record(0, 2, 2, &[patch(0x5000, 0, SHORT_JUMP), bad]));
            assert_eq!(error.offset, end + 48 + 24, "{error}");
            assert!(error.rule.contains(rule), "{error} for {rule}");
        }
    }

    #[test]
    fn a_record_of_static_calls_has_calls_and_jumps_of_five_bytes() {
        let call = [0xe8, 1, 2, 3, 4];
        let calls = record(1, 2, 2, &[patch(0x1000, 0, &call), patch(0x1ffd, 0x9000, LONG_JUMP)]);
        let labels = record(0, 1, 1, &[patch(0x3000, 0, LONG_JUMP)]);
        let found: Vec<_> = sites(&[calls, labels].concat()).map(|site| site.unwrap().kind).collect();
        assert_eq!(found, [SiteType::StaticCall, SiteType::StaticCall, SiteType::JumpLabel]);
        for code in [SHORT_JUMP, &[0xe8, 1], &[0x0f, 0x1f, 0x44, 0, 0], &[0x0f, 0x84, 0, 0, 0], &[0xeb, 0, 0, 0, 0]] {
            let error = refused(&record(1, 1, 1, &[patch(0x1000, 0, code)]));
            assert!(error.rule.contains("a call or a jump of 5 bytes"), "{error}");
        }
        assert!(refused(&record(0, 1, 1, &[patch(0x1000, 0, &call)])).rule.contains("must be a jump"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(sites(&bytes).count() <= bytes.len() / PATCH_BYTES + 1);
            let starts: Vec<usize> = (0..400).step_by(7).collect();
            prop_assert!(sites_from(&bytes, &starts).count() <= bytes.len() / PATCH_BYTES + 1);
        }

        #[test]
        fn records_of_any_size_are_found(sizes in prop::collection::vec(0u8..20, 0..20)) {
            let mut pa = 0x1000;
            let mut all = Vec::new();
            for size in &sizes {
                let patches: Vec<_> = (0..*size).map(|_| { pa += 8; patch(pa, 0, LONG_JUMP) }).filter(|patch| {
                    u64::from_le_bytes(patch[..8].try_into().unwrap()) % 4096 < 4000
                }).collect();
                all.extend(record(0, patches.len() as u64, 100, &patches));
            }
            let found: Result<Vec<_>, _> = sites(&all).collect();
            let headers = sizes.len() * HEADER_BYTES;
            prop_assert_eq!(found.unwrap().len(), (all.len() - headers) / PATCH_BYTES);
        }
    }
}
