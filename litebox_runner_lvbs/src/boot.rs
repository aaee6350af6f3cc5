//! From the high address to the first VTL return.
//!
//! The boot processor builds everything once: heap, final page tables, Hyper-V's set-up, the kernel's state, and the
//! protection of VTL1's own memory. Application processors come later, with everything but themselves in place.
//! What is missing or wrong ends here, with a reason on the console.

extern crate alloc;

use alloc::boxed::Box;

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::arch::bare_metal::BareMetal;
use litebox_platform_lvbs::arch::hyperv::HypervError;
use litebox_platform_lvbs::arch::layout::{self, VTL1_BASE};
use litebox_platform_lvbs::arch::vp::{self, VpState};
use litebox_platform_lvbs::arch::{
    cpu, exceptions, heap, hyperv, kernel, logger, paging, panic, platform, segments, start, vtl0_memory,
};
use litebox_platform_lvbs::loader::{BootInfo, MAX_REGION_SIZE, MIN_REGION_SIZE};
use litebox_platform_lvbs::platform::PlatformConfig;
use litebox_platform_lvbs::{Platform, VsmError, failure};
use log::info;

use crate::entry::EntryState;
use crate::serve::serve;

/// First byte of the region that nothing of the loader's occupies (LVBS contract §2.2: 16 special pages).
const SPECIAL_PAGES_END: u64 = 0x10000;
/// Where the image starts in the region.
const IMAGE_OFFSET: u64 = 0x20_0000;

/// The boot processor's main function; runs on the boot stack with the boot page tables.
pub extern "C" fn boot_processor(entry: &'static EntryState, region_start: u64) -> ! {
    logger::install();
    segments::load_boot();
    exceptions::prepare();
    exceptions::load();
    info!("starting, region at {region_start:#x}");
    if let Err(error) = cpu::check_features().map_err(HypervError::Missing).and_then(|()| hyperv::check()) {
        panic!("cannot start: {error}");
    }
    let info = match BootInfo::from_loader(entry.arguments(), region_start, special_page) {
        Ok(info) => info,
        Err(error) => panic!("cannot start: {error}"),
    };
    if let Some(level) = info.log_level {
        logger::set_level(level);
    }
    let index = match set_up_memory(&info) {
        Ok(index) => index,
        Err(error) => panic!("cannot set up memory: {error}"),
    };
    // The rest needs a stack that is not the boot stack, and its guard page.
    // SAFETY: the area of this processor was made by `set_up_memory`; nothing on the boot stack is needed again.
    unsafe {
        core::arch::asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {main}",
            "ud2",
            stack = in(reg) vp::stack_top(index),
            main = sym boot_processor_on_own_stack,
            in("rdi") entry,
            in("rsi") &raw const info,
            options(noreturn),
        )
    }
}

extern "C" fn boot_processor_on_own_stack(entry: &'static EntryState, info: &BootInfo) -> ! {
    // Copied at once: it lies on the boot stack.
    let info = *info;
    let vp = VpState::current();
    vp.vtl0.set(entry.registers);
    vp.cr2.set(entry.cr2);
    vp.fx.set(entry.fx);
    if let Err(error) = start_serving(vp, &info) {
        panic!("cannot start: {error}");
    }
    serve(vp)
}

/// The page of the region at `offset`, in the boot map.
fn special_page(offset: u64) -> &'static [u8; 4096] {
    // SAFETY: `BootInfo` asks for the loader's two pages only, which lie in the 16 MiB of the boot map; the loader has
    // written them and is waiting for us to return.
    unsafe { &*((VTL1_BASE + offset) as *const [u8; 4096]) }
}

/// Heap, final page tables and the boot processor's area; its index.
fn set_up_memory(info: &BootInfo) -> Result<u32, VsmError> {
    let mapped = info.region_size.min(MAX_REGION_SIZE);
    layout::set_region(info.region_start, info.region_size, mapped);
    vtl0_memory::set_physical_end();
    cpu::set_control_registers();
    let at = |offset| VTL1_BASE + offset;
    // SAFETY: each span is memory of the region that the loader left to us: behind its special pages, between the
    // image's segments, behind the image. The boot map shows the first 16 MiB; the rest is added once it is mapped.
    unsafe {
        heap::add_span(at(SPECIAL_PAGES_END), at(IMAGE_OFFSET));
        heap::add_span(layout::text_end(), layout::rodata_start());
        heap::add_span(layout::rodata_end(), layout::data_start());
        heap::add_span(layout::data_end(), at(MIN_REGION_SIZE));
        paging::install_final_tables(mapped)?;
        heap::add_span(at(MIN_REGION_SIZE), at(mapped));
    }
    let index = hyperv::vp_index();
    start::ensure_area(index)?;
    // SAFETY: the area has just been made, with the segments filled; this processor has no TSS of ours yet.
    unsafe {
        segments::load(index);
        vp::set_current(index);
    }
    Ok(index)
}

/// Everything between the processor's own stack and the first return. Not inlined: the caller's frame stays for ever.
#[inline(never)]
fn start_serving(vp: &VpState, info: &BootInfo) -> Result<(), HypervError> {
    hyperv::initialise_partition(&BareMetal)?;
    hyperv::initialise_vp(&BareMetal, vp)?;
    panic::allow_return();
    let end = info.region_start.saturating_add(info.region_size);
    let vtl1_region = FrameRange::from_bytes(info.region_start, end).map_err(VsmError::from)?;
    let platform = Platform::new(
        Box::new(BareMetal),
        PlatformConfig { vtl1_region, possible_cpus: info.possible_cpus, boot_vp: vp.index, loader: info.generation },
    )?;
    platform.frames().lock().close_vtl1(&BareMetal)?;
    platform.set_entered(vp.index);
    kernel::set_platform(platform);
    let reserve = heap::usage();
    info!(
        "ready: loader {:?}, region {:#x}..{end:#x} closed to VTL0, {} possible processors, {} of {} KiB in use",
        info.generation,
        info.region_start,
        info.possible_cpus,
        reserve.used / 1024,
        reserve.size / 1024
    );
    Ok(())
}

/// An application processor's main function; its context gave it stack, segments and tables.
// SAFETY: nothing else in the image has this name.
#[unsafe(no_mangle)]
extern "C" fn vtl1_application_processor_main() -> ! {
    let vp = VpState::current();
    // First of all: until then this processor cannot be stopped at VTL0's violations.
    if let Err(error) = hyperv::initialise_vp(platform().hardware(), vp) {
        panic!("processor {} cannot start: {error}", vp.index);
    }
    if failure::has_failed() {
        panic::serve_failed(vp);
    }
    let index = hyperv::vp_index();
    assert!(index == vp.index, "processor {index} was started with the state of processor {}", vp.index);
    info!("processor {index} is in VTL1");
    platform().set_entered(index);
    serve(vp)
}
