//! The VTL-call loop of a processor, and the static jump table that its calls go through.
//!
//! `cargo xtask verify-elf` proves on the linked image what the comments about the table claim.

use litebox_platform_lvbs::arch::vp::VpState;
use litebox_platform_lvbs::arch::vtl_switch::{Entry, return_to_vtl0};
use litebox_platform_lvbs::arch::{messages, panic, platform};
use litebox_platform_lvbs::failure::has_failed;
use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::vsm::VsmJumpTable;
use log::warn;

/// The table of `vsm_handlers`, alone on read-only pages.
// SAFETY: nothing else in the image has this name, and the section holds read-only data.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".vsm_table")]
static VSM_JUMP_TABLE: VsmJumpTable = vsm_handlers::VSM_TABLE;

/// What the file says about the calls, for `cargo xtask abi dump`. The section is not part of what is loaded.
// SAFETY: nothing else in the image has this section, and nothing that runs refers to it.
#[unsafe(link_section = ".vsm_abi")]
#[used]
static VSM_ABI: [u8; vsm_handlers::ABI.len()] = vsm_handlers::ABI;

/// Ends a processor's first entry, which is its boot and not a call, with R8 = 0, and serves it from then on.
pub fn serve(vp: &VpState) -> ! {
    let mut registers = vp.vtl0.get();
    registers.r8 = 0;
    vp.vtl0.set(registers);
    loop {
        vsm_handlers::before_return(platform(), vp.index);
        let entry = return_to_vtl0(vp);
        if has_failed() {
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

/// Serves one VTL call of processor `vp`; the other arguments are VTL0's RDI, RSI, RDX and R8.
///
/// The only indirect call in here goes through [`VSM_JUMP_TABLE`], with the index clamped.
// SAFETY: nothing else in the image has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vsm_dispatch(vp: u32, rdi: u64, rsi: u64, rdx: u64, r8: u64) -> i64 {
    vsm_handlers::dispatch(&VSM_JUMP_TABLE, &vsm_handlers::GATE, platform(), vp, [rdi, rsi, rdx, r8]).result
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
