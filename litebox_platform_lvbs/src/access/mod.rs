//! The only way to VTL0's memory.
//!
//! VTL0 is the attacker: it names addresses that are VTL1's, and rewrites its memory while VTL1 looks. So memory is
//! reached by copying, or in place once the registry has frozen it (`Transaction::view`), and every address passes [`refuse_vtl1`] first. What has been copied is trusted in nothing.
//!
//! | type | for |
//! |---|---|
//! | [`PhysConstPtr`] | one value of a fixed layout, read |
//! | [`PhysMutPtr`] | the same, in a frame of the claimant's, read and written |
//! | [`FetchOnce`] | many objects, of which no byte is fetched twice |

mod fetch;
mod ptr;
mod refuse;
mod span_set;

pub use fetch::FetchOnce;
pub use ptr::{PhysConstPtr, PhysMutPtr};
pub use refuse::refuse_vtl1;
