//! Page tables: the final, W^X map of the region, and the few pages that come later.
//!
//! There is one set of tables for all processors. Tables are changed at boot and, under a lock, when a processor's
//! area is made; the only entries that change afterwards are the windows', each owned by one processor.

use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::{MapToError, MapperFlush};
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags as Flags, PhysFrame, Size2MiB,
    Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

use super::layout::{self, VTL1_BASE};
use super::pages::allocate_page;
use crate::address::PAGE_SIZE;
use crate::error::VsmError;
use crate::sync::{Mutex, MutexGuard};

/// A page-table entry as hardware reads it (Intel SDM vol. 3 §4.5.4).
pub type Pte = u64;

/// Physical address of the final top-level table, and the lock for changing the tables.
static TABLES: Mutex<u64> = Mutex::new(0);

const CODE: Flags = Flags::PRESENT.union(Flags::GLOBAL);
const CONSTANTS: Flags = Flags::PRESENT.union(Flags::GLOBAL).union(Flags::NO_EXECUTE);
const DATA: Flags = CONSTANTS.union(Flags::WRITABLE);
const TABLE: Flags = Flags::PRESENT.union(Flags::WRITABLE);

/// Takes page-table pages from the heap.
struct HeapFrames;

// SAFETY: every frame comes fresh and zeroed from the global allocator and is never given back.
unsafe impl FrameAllocator<Size4KiB> for HeapFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        let frame = allocate_page().ok()?;
        PhysFrame::from_start_address(PhysAddr::new(frame)).ok()
    }
}

/// Builds the final tables for `mapped` bytes of the region and switches to them.
///
/// Afterwards nothing in VTL1's address space is writable and executable, and the loader's identity map is gone.
pub fn install_final_tables(mapped: u64) -> Result<(), VsmError> {
    let top = allocate_page()?;
    *TABLES.lock() = top;
    {
        let mut tables = Tables::lock();
        let mut offset = 0;
        while offset < mapped {
            let va = VTL1_BASE + offset;
            let whole = va + Size2MiB::SIZE;
            if va.is_multiple_of(Size2MiB::SIZE) && mapped - offset >= Size2MiB::SIZE && uniform(va, whole) {
                tables.map_large(va, permission(va))?;
                offset += Size2MiB::SIZE;
            } else {
                tables.map(va, physical(va)?, permission(va))?;
                offset += PAGE_SIZE;
            }
        }
    }
    let frame = PhysFrame::from_start_address(PhysAddr::new(top)).map_err(|_| VsmError::NotPageAligned(top))?;
    // SAFETY: the new tables map the code, stack and data in use at the same virtual addresses as the boot tables do.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    Ok(())
}

/// What the linear map allows at `va`.
fn permission(va: u64) -> Flags {
    if (layout::text_start()..layout::text_end()).contains(&va) {
        CODE
    } else if (layout::rodata_start()..layout::rodata_end()).contains(&va) {
        CONSTANTS
    } else {
        DATA
    }
}

/// Whether no border of a segment lies inside `start..end`.
fn uniform(start: u64, end: u64) -> bool {
    [layout::text_start(), layout::text_end(), layout::rodata_start(), layout::rodata_end()]
        .iter()
        .all(|border| !(start + 1..end).contains(border))
}

/// Maps one page of a processor's area.
pub fn map_page(va: u64, frame: u64, flags: Flags) -> Result<(), VsmError> {
    Tables::lock().map(va, frame, flags)
}

/// Takes the 4 KiB page at `va` out of the tables, if it is in them. The caller flushes what must be flushed.
pub fn unmap_page(va: u64) {
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new_truncate(va));
    if let Ok((_, flush)) = Tables::lock().0.unmap(page) {
        flush.ignore();
    }
}

/// Physical address `va` is mapped to.
pub fn translate(va: u64) -> Option<u64> {
    let va = VirtAddr::try_new(va).ok()?;
    Tables::lock().0.translate_addr(va).map(PhysAddr::as_u64)
}

/// Physical address of the top-level table.
pub fn top_table() -> u64 {
    *TABLES.lock()
}

/// The last-level table with the entry of the 4 KiB page at `va`, which is made if need be.
pub fn table_of(va: u64) -> Result<*mut Pte, VsmError> {
    entry_of(va - va % (512 * PAGE_SIZE))
}

/// The entry that maps the 4 KiB page at `va`, with the tables above it made. Nothing becomes mapped by it.
pub fn entry_of(va: u64) -> Result<*mut Pte, VsmError> {
    let mut tables = Tables::lock();
    let va = VirtAddr::new_truncate(va);
    let mut table: *mut PageTable = tables.0.level_4_table_mut();
    for index in [va.p4_index(), va.p3_index(), va.p2_index()] {
        // SAFETY: `table` is a page table of ours: the top one, or one that a present entry names, all of them in the
        // linear map; the lock keeps others away.
        let entry = unsafe { &mut (&mut *table)[index] };
        if entry.is_unused() {
            entry.set_addr(PhysAddr::new(allocate_page()?), TABLE);
        }
        let next = layout::phys_to_virt(entry.addr().as_u64()).ok_or(VsmError::OutOfMemory("page tables"))?;
        table = next as *mut PageTable;
    }
    // SAFETY: as above; the reference becomes a raw pointer at once.
    Ok(unsafe { (&raw mut (&mut *table)[va.p1_index()]).cast() })
}

/// The tables, locked.
struct Tables<'a>(OffsetPageTable<'static>, #[expect(dead_code, reason = "held for its Drop")] MutexGuard<'a, u64>);

impl Tables<'_> {
    fn lock() -> Self {
        let guard = TABLES.lock();
        let virt = layout::phys_to_virt(*guard).expect("the top table lies in the region");
        let offset = VirtAddr::new_truncate(virt.wrapping_sub(*guard));
        // SAFETY: all page tables are pages of the region, which the linear map shows at `offset`; the guard makes this
        // the only mutable view of them.
        let table = unsafe { OffsetPageTable::new(&mut *(virt as *mut PageTable), offset) };
        Self(table, guard)
    }

    fn map(&mut self, va: u64, frame: u64, flags: Flags) -> Result<(), VsmError> {
        let page = Page::<Size4KiB>::containing_address(VirtAddr::new_truncate(va));
        let frame = PhysFrame::containing_address(PhysAddr::new_truncate(frame));
        // SAFETY: callers map pages of the region: the linear map once, and area pages that are freshly allocated.
        let done = unsafe { self.0.map_to_with_table_flags(page, frame, flags, TABLE, &mut HeapFrames) };
        done.map(MapperFlush::flush).map_err(|error| map_error(&error))
    }

    fn map_large(&mut self, va: u64, flags: Flags) -> Result<(), VsmError> {
        let page = Page::<Size2MiB>::containing_address(VirtAddr::new_truncate(va));
        let frame = PhysFrame::containing_address(PhysAddr::new_truncate(physical(va)?));
        // SAFETY: as in `map`.
        let done = unsafe { self.0.map_to_with_table_flags(page, frame, flags, TABLE, &mut HeapFrames) };
        done.map(MapperFlush::flush).map_err(|error| map_error(&error))
    }
}

fn map_error<S: PageSize + core::fmt::Debug>(error: &MapToError<S>) -> VsmError {
    match error {
        MapToError::FrameAllocationFailed => VsmError::OutOfMemory("page tables"),
        // Every page is mapped once, by boot or by `vp::create_area`, and areas and the linear map don't overlap.
        MapToError::ParentEntryHugePage | MapToError::PageAlreadyMapped(_) => {
            panic!("a page is mapped twice: {error:?}")
        }
    }
}

/// Physical address of a byte of the linear map.
fn physical(va: u64) -> Result<u64, VsmError> {
    layout::virt_to_phys(va).ok_or(VsmError::InvalidVirtualAddress(va))
}
