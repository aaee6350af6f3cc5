//! Per-processor state and the memory it lives in.
//!
//! Every virtual processor has an *area* of its own in the address space: stacks, each with an unmapped guard page
//! below it, the pages it shares with the hypervisor, and its windows onto VTL0 memory. GS points to the area's
//! [`VpState`] for as long as the processor runs VTL1 code, so that the VTL switch can save VTL0's registers before
//! it has a register to spare.

use core::cell::Cell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::structures::paging::PageTableFlags as Flags;

use super::layout;
use super::pages::allocate_page;
use super::paging::{self, Pte};
use crate::address::PAGE_SIZE;
use crate::error::VsmError;

/// General-purpose registers of VTL0 but RSP, which is private to each VTL (TLFS "VTL state: private").
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are the registers of these names")]
pub struct GpRegisters {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// x87 and SSE state as FXSAVE64 lays it out (Intel SDM vol. 1 §10.5.1).
#[repr(C, align(16))]
pub struct FxArea(Cell<[u8; 512]>);

/// What a processor keeps while it is in VTL1. Only ever touched by its own processor.
#[repr(C, align(4096))]
pub struct VpState {
    /// Where VTL return is to be called: hypercall page + the offset the hypervisor gave.
    pub vtl_return: Cell<u64>,
    /// VTL0's registers between VTL entry and VTL return.
    pub vtl0: Cell<GpRegisters>,
    /// VTL0's CR2, which the VTLs share.
    pub cr2: Cell<u64>,
    /// MXCSR with every exception masked, for VTL1's own code.
    mxcsr: u32,
    /// The processor's index.
    pub index: u32,
    /// VTL0's x87 and SSE registers between VTL entry and VTL return.
    pub fx: FxArea,
    /// Whether the processor serves a VTL call (and not an interrupt or intercept), so that R8 takes a result. Its first
    /// entry is one.
    pub in_call: Cell<bool>,
    /// Whether this processor has panicked.
    pub panicked: Cell<bool>,
    /// Page-table entry of the window.
    window: Cell<*mut Pte>,
    /// Physical addresses of the pages shared with the hypervisor.
    pub shared: SharedPages,
}

/// Physical addresses of the pages a processor shares with the hypervisor.
#[derive(Clone, Copy, Debug)]
pub struct SharedPages {
    /// VP assist page.
    pub assist: u64,
    /// SynIC message page.
    pub messages: u64,
    /// Hypercall input.
    pub input: u64,
    /// Hypercall output.
    pub output: u64,
}

/// Offsets of what the VTL switch's assembly uses.
pub mod offset {
    use super::{VpState, offset_of};

    /// [`VpState::vtl_return`].
    pub const VTL_RETURN: usize = offset_of!(VpState, vtl_return);
    /// [`VpState::cr2`].
    pub const CR2: usize = offset_of!(VpState, cr2);
    /// [`VpState`]'s MXCSR for VTL1.
    pub const MXCSR: usize = offset_of!(VpState, mxcsr);
    /// [`VpState::fx`].
    pub const FX: usize = offset_of!(VpState, fx);
    /// Offset of a register in [`VpState::vtl0`], given its offset in [`GpRegisters`].
    pub const fn gpr(register: usize) -> usize {
        offset_of!(VpState, vtl0) + register
    }
}

/// Where VTL return is to be called, the same for all processors; 0 until boot has asked the hypervisor.
static VTL_RETURN: AtomicU64 = AtomicU64::new(0);

/// Records the address to call for a VTL return, for the areas made from now on.
pub fn set_vtl_return(entry: u64) {
    VTL_RETURN.store(entry, Ordering::Relaxed);
}

/// MXCSR after reset: all exceptions masked, round to nearest (Intel SDM vol. 1 §10.2.3).
const MXCSR_DEFAULT: u32 = 0x1F80;

/// Pages of an area, by index. Pages that are not listed are never mapped: each gap is a guard.
pub mod page {
    /// Kernel stack, 16 pages; page 0 is its guard.
    pub const STACK: u64 = 1;
    /// Number of pages of the kernel stack.
    pub const STACK_PAGES: u64 = 16;
    /// First page of the four interrupt stacks (#DF, NMI, #MC, #PF), each [`IST_PAGES`] pages and a guard below.
    pub const IST: u64 = 18;
    /// Number of pages of an interrupt stack.
    pub const IST_PAGES: u64 = 2;
    /// Number of interrupt stacks.
    pub const IST_STACKS: u64 = 4;
    /// [`super::VpState`].
    pub const STATE: u64 = 32;
    /// GDT and TSS.
    pub const SEGMENTS: u64 = 34;
    /// VP assist page.
    pub const ASSIST: u64 = 36;
    /// SynIC message page.
    pub const MESSAGES: u64 = 38;
    /// Hypercall input.
    pub const HYPERCALL_INPUT: u64 = 40;
    /// Hypercall output.
    pub const HYPERCALL_OUTPUT: u64 = 41;
    /// Window onto VTL0 memory; mapped only while a copy is under way.
    pub const WINDOW: u64 = 44;
}

const _: () = assert!(page::IST + page::IST_STACKS * (page::IST_PAGES + 1) <= page::STATE);
const _: () = assert!((page::WINDOW + 1) * PAGE_SIZE <= layout::VP_AREA_SIZE);
const _: () = assert!(size_of::<VpState>() == 4096);

/// Virtual address of page `index` of `vp`'s area.
#[must_use]
pub const fn area_page(vp: u32, index: u64) -> u64 {
    layout::vp_area(vp) + index * PAGE_SIZE
}

/// First byte above `vp`'s kernel stack.
#[must_use]
pub const fn stack_top(vp: u32) -> u64 {
    area_page(vp, page::STACK + page::STACK_PAGES)
}

/// First byte above interrupt stack `stack` (0 to 3) of `vp`.
#[must_use]
pub const fn ist_top(vp: u32, stack: u64) -> u64 {
    area_page(vp, page::IST + stack * (page::IST_PAGES + 1) + page::IST_PAGES)
}

/// Maps `vp`'s area and prepares its state. Called once per processor, under the lock of `start`.
///
/// # Errors
/// [`VsmError::OutOfMemory`]; pages mapped by then stay mapped and are used by the next attempt. A page for which there was
/// no page table is lost: one for each attempt, and there are no attempts after the boot.
pub fn create_area(vp: u32) -> Result<(), VsmError> {
    let stacks =
        (0..page::STACK_PAGES).map(|index| page::STACK + index).chain((0..page::IST_STACKS).flat_map(|stack| {
            let first = page::IST + stack * (page::IST_PAGES + 1);
            first..first + page::IST_PAGES
        }));
    let pages =
        [page::STATE, page::SEGMENTS, page::ASSIST, page::MESSAGES, page::HYPERCALL_INPUT, page::HYPERCALL_OUTPUT];
    for index in stacks.chain(pages) {
        let va = area_page(vp, index);
        if paging::translate(va).is_none() {
            let frame = allocate_page()?;
            paging::map_page(va, frame, Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE)?;
        }
    }
    let window = paging::entry_of(area_page(vp, page::WINDOW))?;
    let physical = |index| paging::translate(area_page(vp, index)).ok_or(VsmError::OutOfMemory("a processor's area"));
    let shared = SharedPages {
        assist: physical(page::ASSIST)?,
        messages: physical(page::MESSAGES)?,
        input: physical(page::HYPERCALL_INPUT)?,
        output: physical(page::HYPERCALL_OUTPUT)?,
    };
    let state = area_page(vp, page::STATE) as *mut VpState;
    // SAFETY: the page was mapped just above, is zeroed, aligned, and no processor uses it yet: it is handed to `vp`
    // only when this returns.
    unsafe {
        (&raw mut (*state).mxcsr).write(MXCSR_DEFAULT);
        (&raw mut (*state).index).write(vp);
        (&raw mut (*state).window).write(Cell::new(window));
        (&raw mut (*state).vtl_return).write(Cell::new(VTL_RETURN.load(Ordering::Relaxed)));
        (&raw mut (*state).in_call).write(Cell::new(true));
        (&raw mut (*state).shared).write(shared);
    }
    Ok(())
}

impl VpState {
    /// The calling processor's state.
    #[must_use]
    pub fn current() -> &'static Self {
        let state: *const Self;
        // SAFETY: reads the GS base only. Every processor has it set to its mapped `VpState` before it runs Rust code
        // that can get here (boot for the first one, the initial context for the others) and never changes it.
        unsafe {
            core::arch::asm!("rdgsbase {}", out(reg) state, options(nomem, nostack, preserves_flags));
            &*state
        }
    }

    /// Virtual address of a page of this processor's area.
    #[must_use]
    pub fn page(&self, index: u64) -> u64 {
        area_page(self.index, index)
    }

    /// The window's page-table entry.
    pub(super) fn window(&self) -> *mut Pte {
        self.window.get()
    }
}

/// Points GS of the calling processor to its state.
///
/// # Safety
/// [`create_area`] has made `vp`'s area, and `vp` is the calling processor.
pub unsafe fn set_current(vp: u32) {
    // SAFETY: the caller's promise; CR4.FSGSBASE is set (`cpu::set_control_registers`).
    unsafe {
        core::arch::asm!("wrgsbase {}", in(reg) area_page(vp, page::STATE), options(nomem, nostack, preserves_flags));
    }
}

impl FxArea {
    /// Replaces the saved state.
    pub fn set(&self, state: [u8; 512]) {
        self.0.set(state);
    }
}
