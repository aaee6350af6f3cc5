//! The jump table's place in memory, and the dispatch that indexes it.
//!
//! `cargo xtask verify-elf` proves on the linked image what the comments here claim.

use litebox_platform_lvbs::arch::platform;
use litebox_platform_lvbs::vsm::{VsmJumpTable, dispatch};

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

/// Serves one VTL call of processor `vp`; the other arguments are VTL0's RDI, RSI, RDX and R8.
///
/// The only indirect call in here goes through [`VSM_JUMP_TABLE`], with the index clamped.
// SAFETY: nothing else in the image has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vsm_dispatch(vp: u32, rdi: u64, rsi: u64, rdx: u64, r8: u64) -> i64 {
    dispatch(&VSM_JUMP_TABLE, &vsm_handlers::GATE, platform(), vp, [rdi, rsi, rdx, r8])
}
