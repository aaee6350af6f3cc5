//! The life of a kernel module.
//!
//! The calls of this family are declared and not implemented; nothing else is in this file.

use vsm_macros::vsm_handler;

/// Verifies a kernel module and gives its sections their permissions, before any of it may execute.
#[vsm_handler(VsmFunction::ValidateModule, phase = any, caller = any, not_implemented)]
fn validate_module() {}

/// Releases the init sections of a module that has been initialised.
#[vsm_handler(VsmFunction::FreeModuleInit, phase = any, caller = any, not_implemented)]
fn free_module_init() {}

/// Releases all memory of a module.
#[vsm_handler(VsmFunction::UnloadModule, phase = any, caller = any, not_implemented)]
fn unload_module() {}
