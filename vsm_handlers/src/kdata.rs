//! Handing over certificates and kernel data.
//!
//! The one call of this family is declared and not implemented; nothing else is in this file.

use vsm_macros::vsm_handler;

/// Takes certificates, kernel symbol tables and patch sites, as a HEKI list.
#[vsm_handler(VsmFunction::LoadKData, phase = boot, caller = any, not_implemented)]
fn load_kdata() {}
