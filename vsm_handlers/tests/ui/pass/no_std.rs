//! The expansion needs neither `std` nor `unsafe`, and passes the strictest lints.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs, warnings, clippy::pedantic)]

// For the linker's sake; under another name, so that a path to `std` in the expansion would not resolve.
extern crate std as _;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::vsm::{BootContext, CallContext, CallRow, Handles, Token, VsmJumpTable, calls};
use vsm_macros::vsm_handler;

/// Stands for the table.
pub struct VsmTable;

/// Takes parameters and returns a token.
#[vsm_handler(VsmFunction::ValidateModule, phase = any, caller = any, errors())]
fn validate_module(call: &CallContext<'_>, start: PhysAddr, token: Token) -> Result<Token, VsmError> {
    if call.vp() == 0 && start.is_page_aligned() { Ok(token) } else { Err(VsmError::NotPageAligned(start.as_u64())) }
}

/// Needs the boot phase.
#[vsm_handler(litebox_platform_lvbs::vsm::VsmFunction::SignalEndOfBoot, phase = boot, caller = any, errors(),)]
fn signal_end_of_boot(call: &BootContext<'_>) -> Result<(), VsmError> {
    call.boot_call().end_boot()
}

/// Is not there yet.
#[vsm_handler(VsmFunction::LoadKData, phase = boot, caller = bsp, not_implemented)]
fn load_kdata() {}

/// The rows and a table, at compile time.
pub const ROWS: [CallRow; 3] = [
    CallRow::of::<VsmTable, calls::ValidateModule>(),
    CallRow::of::<VsmTable, calls::SignalEndOfBoot>(),
    CallRow::of::<VsmTable, calls::LoadKData>(),
];
/// The table.
pub static TABLE: VsmJumpTable = VsmJumpTable::new(&ROWS);

const _: () = assert!(<VsmTable as Handles<calls::ValidateModule>>::META.params.len() == 2);
const _: () = assert!(!<VsmTable as Handles<calls::LoadKData>>::META.implemented);

fn main() {}
