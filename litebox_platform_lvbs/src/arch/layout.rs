//! VTL1's virtual address space.
//!
//! | from | what | permission |
//! |---|---|---|
//! | [`VTL1_BASE`] | the whole region, linear: `virtual = VTL1_BASE + (physical - region start)` | text RX, constants R, the rest RW; never W and X |
//! | [`FROZEN_VIEWS`] | VTL0's memory while VTL1 reads it in place, frozen | R |
//! | [`LOG_RING`] | the log ring, once VTL0 has given memory for it | RW |
//! | [`VP_AREAS`] | one area a processor: stacks with unmapped guard pages, state pages, windows onto VTL0 | RW, windows as asked |
//!
//! Nothing else is mapped: no identity map, no map of VTL0's memory but those two.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::address::PAGE_SIZE;

/// Where the region's first byte appears; the last 2 GiB of the address space, so that one page directory maps the
/// largest region (`loader::MAX_REGION_SIZE`). The boot assembly uses the same number.
pub const VTL1_BASE: u64 = 0xFFFF_FFFF_8000_0000;
/// Where the processors' areas start: the GiB below [`VTL1_BASE`].
pub const VP_AREAS: u64 = 0xFFFF_FFFF_4000_0000;
/// Distance between two processors' areas, in bytes.
pub const VP_AREA_SIZE: u64 = 64 * PAGE_SIZE;

/// Where VTL0's frozen memory appears: the GiB below [`VP_AREAS`].
pub const FROZEN_VIEWS: u64 = 0xFFFF_FFFF_0000_0000;
/// Most bytes of all views together: a file of 64 MiB, and the four parts of a module that are read, as many each.
pub const FROZEN_VIEWS_SIZE: u64 = 512 << 20;

/// Where the log ring appears: above the processors' areas, below the linear map, with unmapped space on both sides.
pub const LOG_RING: u64 = 0xFFFF_FFFF_7000_0000;
/// Most bytes of a log ring.
pub const LOG_RING_SIZE: u64 = 16 << 20;

/// Physical address of the region, set once by boot before anything asks for it.
static REGION_START: AtomicU64 = AtomicU64::new(0);
/// Its size in bytes.
static REGION_SIZE: AtomicU64 = AtomicU64::new(0);
/// Bytes of the region that are mapped.
static REGION_MAPPED: AtomicU64 = AtomicU64::new(0);

/// Records where the region is, in bytes; `mapped` is what of it the linear map shows. Called once, by boot.
pub fn set_region(start: u64, size: u64, mapped: u64) {
    REGION_START.store(start, Ordering::Relaxed);
    REGION_SIZE.store(size, Ordering::Relaxed);
    REGION_MAPPED.store(mapped, Ordering::Relaxed);
}

/// Whether a physical address is VTL1's own.
#[must_use]
pub fn region_contains(pa: u64) -> bool {
    pa.checked_sub(REGION_START.load(Ordering::Relaxed))
        .is_some_and(|offset| offset < REGION_SIZE.load(Ordering::Relaxed))
}

/// Physical address of a byte in the linear map; `None` for any other virtual address.
#[must_use]
pub fn virt_to_phys(va: u64) -> Option<u64> {
    let offset = va.checked_sub(VTL1_BASE)?;
    (offset < REGION_MAPPED.load(Ordering::Relaxed)).then(|| REGION_START.load(Ordering::Relaxed) + offset)
}

/// Where a physical address of the region appears in the linear map; `None` outside of the region.
#[must_use]
pub fn phys_to_virt(pa: u64) -> Option<u64> {
    let offset = pa.checked_sub(REGION_START.load(Ordering::Relaxed))?;
    (offset < REGION_MAPPED.load(Ordering::Relaxed)).then_some(VTL1_BASE + offset)
}

/// First byte of processor `vp`'s area.
#[must_use]
pub const fn vp_area(vp: u32) -> u64 {
    VP_AREAS + vp as u64 * VP_AREA_SIZE
}

// All areas of `loader::MAX_POSSIBLE_CPUS` processors lie below the ring, and the ring below the linear map.
const _: () = assert!(VP_AREAS + crate::loader::MAX_POSSIBLE_CPUS * VP_AREA_SIZE < LOG_RING);
const _: () = assert!(LOG_RING + LOG_RING_SIZE < VTL1_BASE);
const _: () = assert!(FROZEN_VIEWS + FROZEN_VIEWS_SIZE < VP_AREAS);

macro_rules! linker_symbols {
    ($($(#[$doc:meta])* $name:ident = $symbol:ident;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name() -> u64 {
            unsafe extern "C" {
                static $symbol: u8;
            }
            // No access, only an address: the symbol is the linker script's.
            (&raw const $symbol) as u64
        }
    )*};
}

linker_symbols! {
    /// First byte of executable code.
    text_start = __text_start;
    /// First byte after it (page-aligned).
    text_end = __text_end;
    /// First byte of constants.
    rodata_start = __rodata_start;
    /// First byte after them (page-aligned).
    rodata_end = __rodata_end;
    /// First byte of variables.
    data_start = __data_start;
    /// First byte after them (page-aligned).
    data_end = __data_end;
    /// The page the hypervisor lays its hypercall page over.
    hypercall_page = __hypercall_page;
    /// First entry of the exception table.
    ex_table_start = __ex_table_start;
    /// First byte after the exception table.
    ex_table_end = __ex_table_end;
}
