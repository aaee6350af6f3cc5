//! Copies from and to VTL0's memory, through a window of the calling processor.
//!
//! VTL0's memory has no place in VTL1's address space. A copy opens the processor's window onto one frame, moves
//! the bytes with instructions that are allowed to fault, and closes the window again. No other processor uses the window,
//! so that none has to be told when it changes.

use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::structures::paging::PageTableFlags as Flags;

use super::exceptions::copy_fallible;
use super::layout;
use super::vp::{VpState, page};
use crate::address::{PAGE_SIZE, PhysAddr};
use crate::hardware::MemoryFault;

/// First address beyond physical memory (from CPUID's MAXPHYADDR).
static PHYSICAL_END: AtomicU64 = AtomicU64::new(0);

/// Reads MAXPHYADDR. Called once by boot.
pub fn set_physical_end() {
    // Intel SDM vol. 2, CPUID leaf 80000008H: EAX bits 7:0.
    let bits = core::arch::x86_64::__cpuid(0x8000_0008).eax & 0xff;
    PHYSICAL_END.store(1 << bits.clamp(32, crate::address::PHYS_ADDR_BITS), Ordering::Relaxed);
}

/// Checks that the frame at `at` may be mapped as VTL0's. Called before each mapping, whatever was checked before: VTL0 may
/// never name VTL1's own frames.
pub(super) fn check_frame(at: PhysAddr) -> Result<(), MemoryFault> {
    let frame = at.gfn().start().as_u64();
    if layout::region_contains(frame) || frame >= PHYSICAL_END.load(Ordering::Relaxed) {
        return Err(MemoryFault(at));
    }
    Ok(())
}

/// A window onto one frame of VTL0; closed when dropped.
struct Window<'a> {
    vp: &'a VpState,
}

impl<'a> Window<'a> {
    fn open(vp: &'a VpState, at: PhysAddr, writable: bool) -> Result<Self, MemoryFault> {
        check_frame(at)?;
        let frame = at.gfn().start().as_u64();
        let mut entry = frame | (Flags::PRESENT | Flags::NO_EXECUTE | Flags::ACCESSED | Flags::DIRTY).bits();
        if writable {
            entry |= Flags::WRITABLE.bits();
        }
        // SAFETY: the entry is this processor's own window entry; no reference into the window exists while it changes.
        // Not present before (see `drop`), so that no stale translation can exist.
        unsafe { vp.window().write_volatile(entry) };
        compiler_fence(Ordering::SeqCst);
        Ok(Self { vp })
    }

    fn address(&self, at: PhysAddr) -> u64 {
        self.vp.page(page::WINDOW) + at.page_offset()
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as in `open`.
        unsafe { self.vp.window().write_volatile(0) };
        tlb::flush(VirtAddr::new_truncate(self.vp.page(page::WINDOW)));
    }
}

/// Copies VTL0's bytes at `from`, which lie on one page.
pub fn read(from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
    check_page(from, into.len())?;
    let window = Window::open(VpState::current(), from, false)?;
    // SAFETY: `into` is ours to overwrite; the window is mapped, holds no Rust value, and its bytes lie on one page.
    unsafe { copy_fallible(into.as_mut_ptr(), window.address(from) as *const u8, into.len()) }
        .map_err(|_| MemoryFault(from))
}

/// Copies bytes to VTL0's memory at `to`, which lie on one page.
pub fn write(to: PhysAddr, from: &[u8]) -> Result<(), MemoryFault> {
    check_page(to, from.len())?;
    let window = Window::open(VpState::current(), to, true)?;
    // SAFETY: the window shows VTL0's frame, in which no Rust value of ours lives.
    unsafe { copy_fallible(window.address(to) as *mut u8, from.as_ptr(), from.len()) }.map_err(|_| MemoryFault(to))
}

fn check_page(at: PhysAddr, len: usize) -> Result<(), MemoryFault> {
    let room = PAGE_SIZE - at.page_offset();
    match u64::try_from(len) {
        Ok(len) if len <= room => Ok(()),
        _ => Err(MemoryFault(at)),
    }
}
