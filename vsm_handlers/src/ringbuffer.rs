//! Memory for VTL1's log: AllocateRingbufferMemory.
//!
//! VTL0 chooses the memory and from then on may only read it; VTL1 writes its log there and reads nothing back. What
//! is in the log VTL0 may know: addresses of its own, ids, errors.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::logging::LogRing;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::vsm::{BootContext, ByteCount, PageAddr};
use log::info;
use vsm_macros::vsm_handler;

/// Most bytes of a ring: 16 MiB, more than a hundred thousand lines. VTL1 keeps addresses for no more.
const MAX_BYTES: u64 = 16 << 20;

/// Takes memory that VTL1 writes its log into and VTL0 may only read.
///
/// `memory` is physically contiguous, `size` whole pages of bytes, at most 16 MiB. The frames must have no owner. Once
/// only. What was in the memory is wiped; what VTL1 logs from then on is in the ring as well as on the console. All or
/// nothing: on an error no permission has changed and nothing has been written.
#[vsm_handler(
    VsmFunction::AllocateRingbufferMemory,
    phase = boot,
    caller = any,
    errors(
        EINVAL = "a size that is not page-aligned, or more than 16 MiB",
        EFAULT = "memory that ends beyond physical addresses",
        EACCES = "a frame that belongs to somebody",
        EBUSY = "there is a ring already",
        ENOMEM = "VTL1 has no memory or no addresses for the ring",
        EIO = "the hypervisor refuses, as it does for memory that does not exist",
    ),
)]
fn allocate_ringbuffer_memory(call: &BootContext<'_>, memory: PageAddr, size: ByteCount) -> Result<(), VsmError> {
    let platform = call.platform();
    let start = memory.start().as_u64();
    if size.get() > MAX_BYTES {
        return Err(VsmError::InvalidParameter { name: "size", value: size.get() });
    }
    // Cannot overflow: both are below 2^53.
    let frames = FrameRange::from_bytes(start, start.saturating_add(size.get()))?;
    let bytes = usize::try_from(size.get()).map_err(|_| VsmError::OutOfMemory("the log ring"))?;

    // Held to the end: of two calls at once the second finds the ring of the first.
    let mut registry = platform.frames().lock();
    if platform.log_ring().lock().is_some() {
        return Err(VsmError::AlreadySet("the frames of the log ring"));
    }
    let mut transaction = registry.begin(platform.hardware(), Phase::Boot)?;
    transaction.stage(frames, Owner::RingBuffer, Owner::RingBuffer, Permission::R)?;
    transaction.apply()?;
    // Taken away again by whatever fails from here on; nothing is written before VTL0 has lost the memory for good.
    let mapping = platform.hardware().map_ring(frames)?;
    transaction.commit()?;
    let ring = LogRing::new(mapping, bytes);
    *platform.log_ring().lock() = Some(ring);
    drop(registry);
    info!("log ring: {} KiB at {start:#x}, read-only for VTL0", size.get() >> 10);
    Ok(())
}
