//! The rule that nothing VTL0 names lies in VTL1, in its one place.

use crate::address::{FrameRange, PhysAddr};
use crate::error::VsmError;
use crate::owner::Owner;
use crate::platform::Platform;

/// Refuses VTL1's own frames: of the `bytes` from `at` on, none may lie there. No bytes count as one.
///
/// # Errors
/// [`VsmError::FrameOwned`] with the first address that is VTL1's; [`VsmError::InvalidPhysicalAddress`] when the bytes run
/// past 2^52.
pub fn refuse_vtl1(platform: &Platform, at: PhysAddr, bytes: u64) -> Result<(), VsmError> {
    let vtl1 = platform.config().vtl1_region;
    let last = at.checked_add(bytes.saturating_sub(1))?;
    let frames = FrameRange::from_gfns(at.gfn().as_u64(), last.gfn().as_u64() + 1)?;
    if frames.overlaps(vtl1) {
        return Err(VsmError::FrameOwned(at.max(vtl1.first()), Owner::Vtl1));
    }
    Ok(())
}
