//! The life of a kernel module: ValidateModule, FreeModuleInit, UnloadModule.
//!
//! A module's code runs only if VTL1 can explain every byte of what VTL0 put in memory from the signed file and from what
//! VTL1 knows itself. Until a module is gone its frames are its own: no other call takes, weakens or writes them.

mod memory;
mod parts;
mod symbols;
mod thunks;
mod validate;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::heki::HekiList;
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vsm::{CallContext, Flags};
use log::info;
use vsm_macros::vsm_handler;

/// `init_module` flags (Linux `include/uapi/linux/module.h`): ignore modversions, ignore vermagic, compressed.
const INIT_FLAGS: u64 = 7;

/// Verifies a kernel module and gives its memory its permissions, before any of it may execute.
///
/// A range's attribute says which of the seven kinds of the module's memory it is part of, or that it holds the file (with
/// its signature), the patch sites (LVBS contract §5.1, §5.7) or pages of thunks against ITS, which Linux allocates beside
/// the module. The memory must be what Linux makes of the signed file at
/// these addresses, up to the moment at which the module is complete and nothing of it has run. The flags change nothing:
/// neither versions nor the version magic are VTL1's to compare. Returns the module's token. All or nothing: on an error no
/// permission has changed and nothing is remembered.
#[vsm_handler(
    VsmFunction::ValidateModule,
    phase = any,
    caller = any,
    errors(
        ENODATA = "the module has no signature",
        ENOPKG = "the signature is of a kind that is not supported",
        EBADMSG = "the signature is no message",
        ENOKEY = "nobody whom VTL1 knows has signed it",
        EKEYREJECTED = "the signature does not hold, or its signer may not sign",
        EINVAL = "memory or a file that VTL1 cannot explain, a part that breaks a rule",
        EFAULT = "a part that is not memory",
        EACCES = "frames of somebody else",
        ENOMEM = "VTL1 has no memory for the module",
        EIO = "the hypervisor refuses",
    ),
)]
fn validate_module(call: &CallContext<'_>, list: HekiList, flags: Flags<INIT_FLAGS>) -> Result<Token, VsmError> {
    // Their type has refused what Linux does not define. None of them makes VTL1 accept more: it compares no versions and no
    // version magic, and a compressed file reaches it as Linux has unpacked it.
    let _ = flags;
    validate::validate(call, list)
}

/// Releases the init parts of a module that has been initialised, and makes its late read-only data read-only.
///
/// Once for a module. -EINVAL for a token of no module, -EBUSY for a module that has been initialised, -ENOMEM, -EIO when
/// the hypervisor refuses; nothing has changed then.
#[vsm_handler(
    VsmFunction::FreeModuleInit,
    phase = any,
    caller = any,
    errors(
        EINVAL = "there is no such module",
        EBUSY = "the module has been initialised",
        ENOMEM = "VTL1 has no memory for the registry",
        EIO = "the hypervisor refuses",
    ),
)]
fn free_module_init(call: &CallContext<'_>, token: Token) -> Result<(), VsmError> {
    let platform = call.platform();
    let mut registry = platform.frames().lock();
    let mut modules = platform.vtl0().modules().lock();
    let module = modules.get(token).ok_or(VsmError::NoSuchModule(token))?;
    if module.initialised {
        return Err(VsmError::ModuleInitialised(token));
    }
    let mut transaction = registry.begin(platform.hardware(), platform.vtl0().phase.get())?;
    for part in &module.parts {
        let owner = Owner::Module { token, kind: part.kind };
        let (next, permission) = match part.kind {
            kind if kind.is_init() => (Owner::Nobody, Permission::RW),
            ModuleMemoryKind::RoAfterInit => (owner, Permission::R),
            _ => continue,
        };
        for frames in &part.frames {
            transaction.stage(*frames, owner, next, permission)?;
        }
    }
    transaction.commit()?;
    // What the registry still has as the module's stays; that takes no walk over the module's frames for each site.
    modules.end_initialisation(token, |site| {
        let owner = registry.get(site.start().gfn().as_u64()).map(|(owner, _)| owner);
        matches!(owner, Some(Owner::Module { token: of, .. }) if of == token)
    });
    Ok(())
}

/// Releases all memory of a module: all of it is data that VTL0 may write and not execute.
#[vsm_handler(
    VsmFunction::UnloadModule,
    phase = any,
    caller = any,
    errors(
        EINVAL = "there is no such module",
        EBUSY = "another module uses it",
        ENOMEM = "VTL1 has no memory for the registry",
        EIO = "the hypervisor refuses",
    ),
)]
fn unload_module(call: &CallContext<'_>, token: Token) -> Result<(), VsmError> {
    let platform = call.platform();
    let mut registry = platform.frames().lock();
    let mut modules = platform.vtl0().modules().lock();
    let module = modules.get(token).ok_or(VsmError::NoSuchModule(token))?;
    if let Some(user) = modules.user_of(token) {
        return Err(VsmError::ModuleInUse(token, user));
    }
    let mut transaction = registry.begin(platform.hardware(), platform.vtl0().phase.get())?;
    for part in module.memory() {
        let owner = Owner::Module { token, kind: part.kind };
        for frames in &part.frames {
            transaction.stage(*frames, owner, Owner::Nobody, Permission::RW)?;
        }
    }
    transaction.commit()?;
    modules.remove(token);
    info!("UnloadModule: module {token} is gone");
    Ok(())
}
