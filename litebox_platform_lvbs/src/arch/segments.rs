//! GDT and TSS of a processor.
//!
//! Every processor has its own, on a page of its area: the TSS holds the processor's interrupt stacks, and loading
//! the task register writes to the GDT.

use core::mem::MaybeUninit;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::vp::{self, page};

/// Selector of 64-bit kernel code.
pub const CODE: u16 = 0x08;
/// Selector of kernel data.
pub const DATA: u16 = 0x10;
/// Selector of the TSS.
pub const TSS: u16 = 0x18;

/// Index of the #DF stack among the TSS's interrupt stacks.
pub const IST_DOUBLE_FAULT: u16 = 0;
/// Index of the NMI stack.
pub const IST_NMI: u16 = 1;
/// Index of the #MC stack.
pub const IST_MACHINE_CHECK: u16 = 2;
/// Index of the #PF stack: a kernel stack that ran into its guard page can't take the fault's frame.
pub const IST_PAGE_FAULT: u16 = 3;

/// What lies on a processor's segments page.
#[repr(C)]
struct SegmentsPage {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
}

/// Where a processor's tables are, for its initial context.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// First byte of the GDT.
    pub gdt: u64,
    /// Its limit.
    pub gdt_limit: u16,
    /// First byte of the TSS.
    pub tss: u64,
}

/// The tables in use until the boot processor has an area of its own: without them a fault in that time would be a
/// triple fault, with nothing on the console.
static mut BOOT_SEGMENTS: MaybeUninit<SegmentsPage> = MaybeUninit::uninit();

/// The one interrupt stack of [`BOOT_SEGMENTS`], in bytes; nothing that uses it ever returns.
const BOOT_STACK: usize = 16 << 10;
static mut BOOT_STACK_AREA: BootStack = BootStack([0; BOOT_STACK]);

/// Aligned as a stack must be.
#[repr(C, align(16))]
struct BootStack([u8; BOOT_STACK]);

/// Fills `vp`'s GDT and TSS. The processor does not run in VTL1 yet.
pub fn prepare(vp: u32) {
    // SAFETY: the page is mapped for this processor's lifetime (`vp::create_area`) and no other code reads it yet.
    unsafe { fill(vp::area_page(vp, page::SEGMENTS) as *mut SegmentsPage, |stack| vp::ist_top(vp, stack)) };
}

/// Fills and loads the tables for the time before the boot processor has an area. Called once, first of all.
pub fn load_boot() {
    let segments = (&raw mut BOOT_SEGMENTS).cast();
    let stack_top = (&raw const BOOT_STACK_AREA) as u64 + BOOT_STACK as u64;
    // SAFETY: boot is single-threaded, the static lives for ever, and only this processor uses it.
    unsafe {
        fill(segments, |_| stack_top);
        load_from(segments);
    }
}

/// Writes a GDT and a TSS whose interrupt stacks end where `stack` says.
///
/// # Safety
/// `segments` may be written, and stays where it is for as long as a processor uses it.
unsafe fn fill(segments: *mut SegmentsPage, stack: impl Fn(u64) -> u64) {
    let mut tss = TaskStateSegment::new();
    // The TSS is packed: it is written whole, not through references to its fields.
    let mut stacks = [VirtAddr::zero(); 7];
    for (entry, index) in stacks.iter_mut().zip(0..page::IST_STACKS) {
        *entry = VirtAddr::new_truncate(stack(index));
    }
    tss.interrupt_stack_table = stacks;
    let mut gdt = GlobalDescriptorTable::new();
    gdt.append(Descriptor::kernel_code_segment());
    gdt.append(Descriptor::kernel_data_segment());
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*segments).tss).write(tss);
        gdt.append(Descriptor::tss_segment_unchecked(&raw const (*segments).tss));
        (&raw mut (*segments).gdt).write(gdt);
    }
}

/// The place of `vp`'s tables, which [`prepare`] has filled.
#[must_use]
pub fn locate(vp: u32) -> Tables {
    let segments = vp::area_page(vp, page::SEGMENTS) as *const SegmentsPage;
    // SAFETY: only addresses are taken, and the limit of a table that `prepare` has written.
    unsafe {
        Tables {
            gdt: (*segments).gdt.entries().as_ptr() as u64,
            gdt_limit: (*segments).gdt.limit(),
            tss: (&raw const (*segments).tss) as u64,
        }
    }
}

/// Loads the calling processor's tables.
///
/// # Safety
/// [`prepare`] was called for `vp`, the calling processor, and its task register holds no TSS of ours yet.
pub unsafe fn load(vp: u32) {
    // SAFETY: the page is mapped for ever; only `prepare` and the processor's own LTR write it.
    unsafe { load_from(vp::area_page(vp, page::SEGMENTS) as *const SegmentsPage) };
}

/// Loads a GDT, its segments and its TSS.
///
/// # Safety
/// [`fill`] has filled `segments`, which stays where it is.
unsafe fn load_from(segments: *const SegmentsPage) {
    // SAFETY: the caller's promise; the selectors are those of the entries `fill` appended, in that order.
    unsafe {
        (*segments).gdt.load_unsafe();
        CS::set_reg(SegmentSelector(CODE));
        SS::set_reg(SegmentSelector(DATA));
        DS::set_reg(SegmentSelector(DATA));
        ES::set_reg(SegmentSelector(DATA));
        load_tss(SegmentSelector(TSS));
    }
}
