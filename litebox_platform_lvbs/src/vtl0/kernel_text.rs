//! Where the text of VTL0's kernel lies in physical memory.
//!
//! VTL1 walks no page table of VTL0's. Linux maps its whole image, text and read-only data alike, at one distance from
//! physical memory (`phys_base`, arch/x86/kernel/head_64.S); LoadKData names the read-only data by both addresses, and so
//! gives that distance. What is trusted: that VTL0 tells it right, during boot. A wrong distance leads to other frames, and
//! of those only sealed text of the kernel is ever read: the reader asks the frame registry first.

use super::functions::KERNEL;

/// The kernel's text, in virtual and in physical memory. The default is that of a kernel of which VTL1 does not know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelText {
    /// Where the read-only data begin, which lie behind the text (arch/x86/kernel/vmlinux.lds.S).
    end: u64,
    /// Virtual minus physical address.
    distance: u64,
}

impl KernelText {
    /// From the ranges of the read-only data, by virtual address: virtual and physical address of each. Unknown when there
    /// are none, or they are not all at one distance, as no kernel has them.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut ranges = ranges.into_iter().map(|(va, pa)| (va, va.wrapping_sub(pa)));
        let Some((end, distance)) = ranges.next() else { return Self::default() };
        if ranges.all(|(_, other)| other == distance) { Self { end, distance } } else { Self::default() }
    }

    /// Whether the address is one of the kernel's text.
    #[must_use]
    pub fn contains(&self, va: u64) -> bool {
        (KERNEL..self.end).contains(&va)
    }

    /// Whether one of the `size` bytes from `va` on is one of the kernel's text.
    #[must_use]
    pub fn overlaps(&self, va: u64, size: u64) -> bool {
        va < self.end && KERNEL < va.saturating_add(size)
    }

    /// Physical address of the byte at `va`, if that is one of the kernel's text. Whose frame it is in is not known here.
    #[must_use]
    pub fn physical(&self, va: u64) -> Option<u64> {
        self.contains(va).then(|| va.wrapping_sub(self.distance))
    }

    /// Address of the byte at the physical address `pa`, if that is one of the kernel's text.
    #[must_use]
    pub fn virtual_of(&self, pa: u64) -> Option<u64> {
        Some(pa.wrapping_add(self.distance)).filter(|va| self.contains(*va))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_far_from_its_frames_as_the_read_only_data() {
        let (rodata, pa) = (KERNEL + 0x200_0000, 0x700_0000);
        let text = KernelText::new([(rodata, pa), (rodata + 0x9000, pa + 0x9000)]);
        for (va, expected) in [
            (rodata - 1, Some(pa - 1)),
            (rodata - 0x100_0000, Some(pa - 0x100_0000)),
            (rodata, None),
            (KERNEL - 1, None),
            (0, None),
            (u64::MAX, None),
        ] {
            assert_eq!((text.physical(va), text.contains(va)), (expected, expected.is_some()), "{va:#x}");
            assert_eq!(text.virtual_of(va.wrapping_sub(text.distance)), expected.map(|_| va));
        }
        for (va, size, expected) in [
            (rodata - 1, 1, true),
            (rodata, 0x1000, false),
            (KERNEL - 0x1000, 0x1000, false),
            (KERNEL - 0x1000, 0x1001, true),
            (0, u64::MAX, true),
            (u64::MAX, 1, false),
        ] {
            assert_eq!(text.overlaps(va, size), expected, "{va:#x}");
        }
        assert!(!KernelText::default().overlaps(0, u64::MAX));
        for unknown in [KernelText::new([]), KernelText::new([(rodata, pa), (rodata + 0x1000, pa)])] {
            assert_eq!((unknown, unknown.physical(rodata - 1)), (KernelText::default(), None));
        }
    }
}
