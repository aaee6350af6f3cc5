//! Pages for page tables and processors' areas, from the heap. They are never given back.

use alloc::alloc::{Layout, alloc_zeroed};

use super::layout;
use crate::error::VsmError;

/// The physical address of a fresh, zeroed page.
pub(super) fn allocate_page() -> Result<u64, VsmError> {
    const PAGE: Layout = match Layout::from_size_align(4096, 4096) {
        Ok(layout) => layout,
        Err(_) => unreachable!(),
    };
    // SAFETY: the layout has a non-zero size.
    let memory = unsafe { alloc_zeroed(PAGE) };
    if memory.is_null() {
        return Err(VsmError::OutOfMemory("a page"));
    }
    layout::virt_to_phys(memory as u64).ok_or(VsmError::OutOfMemory("a page of the region"))
}
