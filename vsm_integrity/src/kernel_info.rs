//! What VTL0 says about its kernel: where the export tables are, and what its alternatives call.
//!
//! Linux's `struct heki_kinfo` (LVBS contract §5.5). Its middle, the paravirt operations, has a size that depends on
//! the kernel's configuration; what comes after it is found from the end.

use crate::bytes::u64_at;
use crate::error::ParseError;
use crate::ksymtab::Table;

/// Bytes of the part that every kernel has in the same place: the bounds of both export tables.
const FIXED_BYTES: usize = 32;
/// Words after the paravirt operations: pv_bug, pv_nop, indirect thunks, return thunk (initial, present).
const TAIL_WORDS: usize = 5;
/// The most bytes a `heki_kinfo` may have: a page. Linux 6.1's has 744.
pub const MAX_BYTES: usize = 4096;

/// The parsed `struct heki_kinfo`. Addresses are VTL0's virtual ones; they are checked where they are used.
#[derive(Clone, Copy, Debug)]
pub struct KernelInfo<'a> {
    /// `__ksymtab`: symbols that every module may use.
    pub ksymtab: Table,
    /// `__ksymtab_gpl`: symbols that GPL-compatible modules may use.
    pub ksymtab_gpl: Table,
    arch: &'a [[u8; 8]],
}

/// What an x86 kernel's alternatives call, in `struct heki_kinfo`'s order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchInfo<'a> {
    /// `pv_ops`, one function address each; the number depends on the kernel's configuration.
    pub pv_ops: &'a [u64],
    /// `paravirt_BUG`.
    pub pv_bug: u64,
    /// `_paravirt_nop`.
    pub pv_nop: u64,
    /// `__x86_indirect_thunk_array`.
    pub indirect_thunks: u64,
    /// `__x86_return_thunk` as linked.
    pub return_thunk_init: u64,
    /// The return thunk in use.
    pub return_thunk: u64,
}

impl<'a> KernelInfo<'a> {
    /// Parses the bytes of a `struct heki_kinfo`.
    ///
    /// # Errors
    /// Which field breaks which rule.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_BYTES {
            return Err(ParseError::new(MAX_BYTES, "the kernel information is longer than a page"));
        }
        let word = |offset| u64_at(bytes, offset).ok_or(ParseError::new(offset, "the kernel information ends here"));
        let table =
            |offset: usize| Table::new(word(offset)?, word(offset + 8)?).map_err(|rule| ParseError::new(offset, rule));
        let (ksymtab, ksymtab_gpl) = (table(0)?, table(16)?);
        if ksymtab.overlaps(&ksymtab_gpl) {
            return Err(ParseError::new(16, "the export tables overlap"));
        }
        let (arch, rest) = bytes.get(FIXED_BYTES..).unwrap_or_default().as_chunks();
        if !rest.is_empty() {
            return Err(ParseError::new(
                bytes.len() - rest.len(),
                "the kernel information is not made of 64-bit words",
            ));
        }
        Ok(Self { ksymtab, ksymtab_gpl, arch })
    }

    /// The words after the export tables, which [`arch_info`] makes sense of.
    pub fn arch_words(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.arch.iter().map(|word| u64::from_le_bytes(*word))
    }
}

/// What the kernel's alternatives call, out of the words after the export tables; `None` when there are too few.
#[must_use]
pub fn arch_info(words: &[u64]) -> Option<ArchInfo<'_>> {
    let (pv_ops, tail) = words.split_at_checked(words.len().checked_sub(TAIL_WORDS)?)?;
    match *tail {
        [pv_bug, pv_nop, indirect_thunks, return_thunk_init, return_thunk] => {
            Some(ArchInfo { pv_ops, pv_bug, pv_nop, indirect_thunks, return_thunk_init, return_thunk })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: u64 = 0xffff_ffff_8200_0000;

    fn info(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_kernels_information_is_read_with_any_number_of_paravirt_operations() {
        for count in [0u64, 1, 84, 200] {
            let mut words = vec![BASE, BASE + 24, BASE + 24, BASE + 60];
            words.extend((0..count).map(|index| BASE + 0x1000 + index));
            words.extend([1, 2, 3, 4, 5]);
            let bytes = info(&words);
            let parsed = KernelInfo::parse(&bytes).unwrap();
            assert_eq!((parsed.ksymtab.count(), parsed.ksymtab_gpl.count()), (2, 3));
            let words: Vec<u64> = parsed.arch_words().collect();
            let arch = arch_info(&words).unwrap();
            assert_eq!(arch.pv_ops.len() as u64, count);
            let tail = [arch.pv_bug, arch.pv_nop, arch.indirect_thunks, arch.return_thunk_init, arch.return_thunk];
            assert_eq!(tail, [1, 2, 3, 4, 5]);
        }
        assert_eq!(KernelInfo::parse(&info(&[BASE; 4])).unwrap().arch_words().len(), 0);
        assert_eq!(arch_info(&[]), None);
        assert_eq!(arch_info(&[1, 2, 3, 4]), None);
    }

    #[test]
    fn broken_information_is_refused_with_its_offset() {
        let refused = |bytes: &[u8]| KernelInfo::parse(bytes).map(|_| ()).unwrap_err();
        assert_eq!(refused(&[]).offset, 0);
        assert_eq!(refused(&info(&[BASE, BASE + 12, BASE])).offset, 24);
        assert_eq!(refused(&info(&[BASE, BASE - 12, BASE, BASE])).offset, 0);
        assert_eq!(refused(&info(&[BASE, BASE + 13, BASE, BASE])).offset, 0);
        assert_eq!(refused(&info(&[BASE, BASE, 1 << 47, (1 << 47) + 12])).offset, 16);
        assert_eq!(refused(&info(&[BASE, BASE + 24, BASE + 12, BASE + 24])).rule, "the export tables overlap");
        assert_eq!(refused(&info(&[BASE, BASE, 0, u64::MAX / 12 * 12])).offset, 16);
        let mut odd = info(&[BASE, BASE, BASE, BASE, 1]);
        odd.push(0);
        assert_eq!(refused(&odd).offset, 40);
        assert_eq!(refused(&vec![0; MAX_BYTES + 1]).offset, MAX_BYTES);
        assert!(KernelInfo::parse(&vec![0; MAX_BYTES]).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(info) = KernelInfo::parse(&bytes) {
                prop_assert!(!info.ksymtab.overlaps(&info.ksymtab_gpl));
            }
        }
    }
}
