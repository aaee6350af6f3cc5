//! The VTL-call loop of a processor.

use litebox_platform_lvbs::arch::vp::VpState;
use litebox_platform_lvbs::arch::vtl_switch::{Entry, return_to_vtl0};
use litebox_platform_lvbs::arch::{messages, panic, platform};
use litebox_platform_lvbs::failure;
use litebox_platform_lvbs::logging::LogKind;
use log::warn;

use crate::table::vsm_dispatch;

/// Ends a processor's first entry, which is its boot and not a call, with R8 = 0, and serves it from then on.
pub fn first_return(vp: &VpState) -> ! {
    let mut registers = vp.vtl0.get();
    registers.r8 = 0;
    vp.vtl0.set(registers);
    loop {
        vsm_handlers::before_return(platform(), vp.index);
        let entry = return_to_vtl0(vp);
        if failure::has_failed() {
            panic::serve_failed(vp);
        }
        match entry {
            Entry::Call => {
                let mut registers = vp.vtl0.get();
                let result = vsm_dispatch(vp.index, registers.rdi, registers.rsi, registers.rdx, registers.r8);
                registers.r8 = result.cast_unsigned();
                vp.vtl0.set(registers);
            }
            Entry::Interrupt => {}
            Entry::Other(reason) => {
                if let Some(logged) = platform().count_event(vp.index, LogKind::OddEntry) {
                    warn!("VP {}: entered for the unknown reason {reason}{logged}", vp.index);
                }
            }
        }
        serve_intercepts(vp);
    }
}

/// Most messages handled in one entry. One is the rule; more wait behind it only when VTL0 was stopped repeatedly.
const MAX_MESSAGES: usize = 16;

/// Not inlined: what it needs of the stack would be missing to every call.
#[inline(never)]
fn serve_intercepts(vp: &VpState) {
    for _ in 0..MAX_MESSAGES {
        let Some(message) = messages::take(vp) else { return };
        if let Err(error) = vsm_handlers::intercept::handle_intercept(platform(), vp.index, &message)
            && let Some(logged) = platform().count_event(vp.index, LogKind::FailedIntercept)
        {
            warn!("VP {}: {:?}: {error}{logged}", vp.index, message.message_type);
        }
    }
}
