//! Hyper-V's interface as the TLFS (Hypervisor Top Level Functional Specification) defines it.
//!
//! Numbers and layouts; no state, no hardware access, no `unsafe`. Both sides of the
//! boundary use it: VTL1 to speak to the hypervisor, the simulator to be one. Nothing here is trusted to come from
//! the hypervisor alone: every layout accepts any bytes and every field has a checked accessor.
//!
//! | module | purpose |
//! |---|---|
//! | [`status`] | status codes |
//! | [`hypercall`] | call codes, control and result words, input layouts |
//! | [`context`] | the context a VP starts a VTL with |
//! | [`register`] | register names and values |
//! | [`vsm`] | layouts of the VSM registers, the intercept controls and the pending event |
//! | [`msr`] | synthetic MSRs and the architectural MSRs VTL1 watches |
//! | [`cpuid`] | hypervisor leaves and privileges |
//! | [`assist`] | the VP assist page |
//! | [`message`] | SynIC messages and intercept payloads |
//! | [`flush`] | flushes of translations, sets of processors |
//! | [`protection`] | what a VTL may do with a frame |
//! | [`vtl`] | VTL numbers |

pub mod assist;
pub mod context;
pub mod cpuid;
pub mod flush;
pub mod hypercall;
pub mod message;
pub mod msr;
pub mod protection;
pub mod register;
pub mod status;
pub mod vsm;
pub mod vtl;

pub use assist::{EntryReason, VpAssistPage};
pub use context::{InitialVpContext, SegmentRegister, TableRegister};
pub use hypercall::{HypercallCode, HypercallControl, HypercallResult, MODIFY_VTL_PROTECTION_MASK_MAX_GFNS};
pub use message::{HvMessage, MessageType};
pub use protection::MapFlags;
pub use register::{HvRegisterName, HvRegisterValue};
pub use status::HvStatus;
pub use vsm::{
    CrInterceptControl, PendingEvent, VsmCapabilities, VsmCodePageOffsets, VsmPartitionConfig, VsmPartitionStatus,
    VsmVpSecureConfig, VsmVpStatus,
};
pub use vtl::{InputVtl, Vtl};

/// The calling partition itself (TLFS `HV_PARTITION_ID_SELF`).
pub const PARTITION_ID_SELF: u64 = u64::MAX;
/// The calling virtual processor itself (TLFS `HV_VP_INDEX_SELF`).
pub const VP_INDEX_SELF: u32 = 0xffff_fffe;
