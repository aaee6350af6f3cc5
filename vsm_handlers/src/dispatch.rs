//! From the four registers of a VTL call to its answer. The image's entry and the simulator run this code.
//!
//! The registers are VTL0's. The id is looked up in all its 64 bits, then tested at the gate, and only then used as an
//! index. The errno conversion and the log line of a refusal are here and nowhere else.

use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::vsm::{Gate, Refusal, TableIndex, VsmFunction, VsmJumpTable};
use litebox_platform_lvbs::{Platform, VsmError};
use log::{debug, warn};

/// The answer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The result register's value: not negative, or a negative Linux errno.
    pub result: i64,
    /// Whether the call's handler gave it, not the gate or a parameter's type before it.
    pub by_handler: bool,
}

/// Serves a VSM call of processor `vp`: `registers` are the id and the three parameters (LVBS contract §3: RDI, RSI,
/// RDX, R8).
///
/// Made to be inlined into the entry, so that its access to `table` is one to the image's own static.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the image's entry must index the static table directly")]
pub fn dispatch(table: &VsmJumpTable, gate: &Gate, platform: &Platform, vp: u32, registers: [u64; 4]) -> Answer {
    let [id, first, second, third] = registers;
    let Some(index) = TableIndex::of(id) else {
        return refuse(platform, vp, id, Refusal::Before(VsmError::UnknownFunction(id)));
    };
    let context = match gate.admit(platform, vp, index) {
        Ok(context) => context,
        Err(error) => return refuse(platform, vp, id, Refusal::Before(error)),
    };
    match table.entry(index)(&context, &[first, second, third]) {
        Ok(value) => Answer { result: value.into(), by_handler: true },
        Err(refusal) => refuse(platform, vp, id, refusal),
    }
}

/// Logs why the call failed, within the limits of what VTL0 can cause, and turns the reason into the answer.
#[cold]
#[inline(never)]
fn refuse(platform: &Platform, vp: u32, id: u64, refusal: Refusal) -> Answer {
    let error = refusal.error();
    let errno = error.errno();
    let answer = Answer { result: errno.to_result(), by_handler: matches!(refusal, Refusal::ByHandler(_)) };
    if matches!(error, VsmError::NotProtected(_)) {
        // How Linux finds out that it may write itself, thousands of times in a boot (LVBS contract §11.7).
        return answer;
    }
    if let Some(logged) = platform.count_event(vp, LogKind::RefusedCall(id)) {
        match (VsmFunction::from_id(id), error) {
            (Some(function), VsmError::NotImplemented) => {
                debug!("VP {vp}: {}: {error} (-{}){logged}", function.name(), errno.name());
            }
            (Some(function), _) => warn!("VP {vp}: {}: {error} (-{}){logged}", function.name(), errno.name()),
            (None, _) => warn!("VP {vp}: {error} (-{}){logged}", errno.name()),
        }
    }
    answer
}
