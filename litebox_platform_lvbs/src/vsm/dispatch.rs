//! From the four registers of a VTL call to its result.
//!
//! The registers are VTL0's. The id is compared in all its 64 bits, then tested at the gate, then clamped, and only
//! then used as an index. The errno conversion and the log line of a refusal are here and nowhere else.

use log::{debug, warn};

use super::context::CallContext;
use super::function::{VSM_BASE, VSM_TABLE_LEN, VsmFunction};
use super::gate::Gate;
use super::hardening::clamp_index;
use super::table::VsmJumpTable;
use crate::error::VsmError;
use crate::logging::LogKind;
use crate::platform::Platform;

/// The answer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The result register's value.
    pub result: i64,
    /// Whether the call's handler gave it, not the gate or a parameter's type before it.
    pub by_handler: bool,
}

/// Serves a VSM call of processor `vp`: `registers` are the id and the three parameters (LVBS contract §3: RDI, RSI,
/// RDX, R8). Returns the result register's value: not negative, or a negative Linux errno.
///
/// Made to be inlined into the entry, so that its access to `table` is one to the image's own static.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the image's entry must index the static table directly")]
pub fn dispatch(table: &VsmJumpTable, gate: &Gate, platform: &Platform, vp: u32, registers: [u64; 4]) -> i64 {
    answer(table, gate, platform, vp, registers).result
}

/// As [`dispatch`], for tests that ask who answered.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is the body of `dispatch`")]
pub fn answer(table: &VsmJumpTable, gate: &Gate, platform: &Platform, vp: u32, registers: [u64; 4]) -> Answer {
    let refused = |error| Answer { result: refuse(platform, registers[0], vp, error), by_handler: false };
    let [id, first, second, third] = registers;
    // On 64 bits: an id with upper bits set is as unknown as one below the base.
    let index = match usize::try_from(id.wrapping_sub(VSM_BASE)) {
        Ok(index) if index < VSM_TABLE_LEN => index,
        _ => return refused(VsmError::UnknownFunction(id)),
    };
    let context = match admit(gate, platform, vp, index) {
        Ok(context) => context,
        Err(error) => return refused(error),
    };
    // Last before the load: a mispredicted branch above must not reach beyond the table.
    let Some(entry) = table.entry(clamp_index::<VSM_TABLE_LEN>(index)) else {
        return refused(VsmError::UnknownFunction(id));
    };
    let result = match entry(&context, &[first, second, third]) {
        Ok(value) => i64::from(value),
        Err(error) => refuse(platform, id, vp, error),
    };
    Answer { result, by_handler: context.was_handler_entered() }
}

/// Tests the gate, and holds the end of boot back while a boot-phase call runs.
#[inline]
fn admit<'a>(gate: &Gate, platform: &'a Platform, vp: u32, index: usize) -> Result<CallContext<'a>, VsmError> {
    let phase = &platform.vtl0().phase;
    gate.admit(index, phase.get(), vp, platform.config().boot_vp)?;
    // The boot may have ended since the line above; the guard is what decides.
    let boot_call = if gate.needs_boot_call(index) { Some(phase.enter_boot_call()?) } else { None };
    Ok(CallContext::new(platform, vp, boot_call))
}

/// Logs why the call failed, within the limits of what VTL0 can cause, and turns the reason into the result register's
/// value.
#[cold]
#[inline(never)]
fn refuse(platform: &Platform, id: u64, vp: u32, error: VsmError) -> i64 {
    let errno = error.errno();
    if matches!(error, VsmError::NotProtected(_)) {
        // How Linux finds out that it may write itself, thousands of times in a boot (LVBS contract §11.7).
        return errno.to_result();
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
    errno.to_result()
}
