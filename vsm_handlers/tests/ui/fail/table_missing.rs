//! One declared call has no handler.

use litebox_platform_lvbs::vsm::{CallRow, VsmFunction};
use vsm_macros::vsm_handler;

pub struct VsmTable;

pub const ROWS: [CallRow; VsmFunction::COUNT] = litebox_platform_lvbs::vsm_rows!(VsmTable);

/// Not implemented.
#[vsm_handler(VsmFunction::EnableAPsVtl, phase = any, caller = any, not_implemented)]
fn enable_aps_vtl() {}

/// Not implemented.
#[vsm_handler(VsmFunction::BootAPs, phase = any, caller = any, not_implemented)]
fn boot_aps() {}

/// Not implemented.
#[vsm_handler(VsmFunction::SignalEndOfBoot, phase = any, caller = any, not_implemented)]
fn signal_end_of_boot() {}

/// Not implemented.
#[vsm_handler(VsmFunction::ProtectMemory, phase = any, caller = any, not_implemented)]
fn protect_memory() {}

/// Not implemented.
#[vsm_handler(VsmFunction::LoadKData, phase = any, caller = any, not_implemented)]
fn load_kdata() {}

/// Not implemented.
#[vsm_handler(VsmFunction::ValidateModule, phase = any, caller = any, not_implemented)]
fn validate_module() {}

/// Not implemented.
#[vsm_handler(VsmFunction::FreeModuleInit, phase = any, caller = any, not_implemented)]
fn free_module_init() {}

/// Not implemented.
#[vsm_handler(VsmFunction::UnloadModule, phase = any, caller = any, not_implemented)]
fn unload_module() {}

/// Not implemented.
#[vsm_handler(VsmFunction::CopySecondaryKey, phase = any, caller = any, not_implemented)]
fn copy_secondary_key() {}

/// Not implemented.
#[vsm_handler(VsmFunction::KexecValidate, phase = any, caller = any, not_implemented)]
fn kexec_validate() {}

/// Not implemented.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, not_implemented)]
fn patch_text() {}

/// Not implemented.
#[vsm_handler(VsmFunction::AllocateRingbufferMemory, phase = any, caller = any, not_implemented)]
fn allocate_ringbuffer_memory() {}

/// Not implemented.
#[vsm_handler(VsmFunction::OpteeMessage, phase = any, caller = any, not_implemented)]
fn optee_message() {}

fn main() {}
