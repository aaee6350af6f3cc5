//! The only way to VTL0's memory.
//!
//! VTL0 is the attacker: it names addresses that are VTL1's, and rewrites its memory while VTL1 looks. So memory is
//! reached by copying alone, and every address passes [`refuse_vtl1`] first. What has been copied is trusted in nothing.
//!
//! | type | for |
//! |---|---|
//! | [`PhysConstPtr`] | one value of a fixed layout, read |
//! | [`PhysMutPtr`] | the same, in a frame of the claimant's, read and written |
//! | [`FetchOnce`] | many objects, of which no byte is fetched twice |

mod fetch;
mod ptr;
mod span_set;

pub use fetch::FetchOnce;
pub use ptr::{PhysConstPtr, PhysMutPtr};

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
