//! What this VTL1 is, for a VTL0 that wants to know before it relies on it: Query.
//!
//! Nothing of VTL0's is read, and a page of its own is written.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::access::PhysMutPtr;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::query::QueryAnswer;
use litebox_platform_lvbs::vsm::{CallContext, PageAddr};
use vsm_macros::vsm_handler;

use crate::table::{ABI_HASH, ABI_VERSION, ROWS};

/// Writes a `struct vsm_query` to the start of the page at `answer`: version and hash of the ABI, the calls there are, and
/// in which phase each may be made.
///
/// A VTL0 whose header has another `VSM_ABI_HASH` was built against another table: the masks say what it can rely on. A VTL1
/// without this call answers -EINVAL.
#[vsm_handler(
    VsmFunction::Query,
    phase = any,
    caller = any,
    errors(
        EACCES = "a page that VTL0 has given away; nothing is written",
        EFAULT = "a page that is no memory",
    )
)]
fn query(call: &CallContext<'_>, answer: PageAddr) -> Result<(), VsmError> {
    let platform = call.platform();
    let said = QueryAnswer::new(&ROWS, ABI_VERSION, ABI_HASH, platform.vtl0().phase.get());
    let registry = platform.frames().lock();
    PhysMutPtr::new(&registry, Owner::Nobody, answer.start())?.write(platform.hardware(), &said)
}
