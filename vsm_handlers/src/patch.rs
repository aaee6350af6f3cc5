//! Patches to protected text: PatchText.
//!
//! What may be patched was recorded when VTL0's kernel or a module was accepted, and how is `step`'s to say. VTL0 is
//! trusted in nothing; a patch that is refused has written nothing.

mod static_calls;
mod step;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::frames::FrameRegistry;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::{CallContext, PageAddr};
use vsm_macros::vsm_handler;

use crate::sealed::Sealed;
use static_calls::StaticCalls;
use step::{PatchRequest, PatchStep};

/// Writes one step of a text poke into protected text, if the site was recorded and it is the step's turn.
///
/// `request` is where a `heki_patch` of 24 bytes lies, anywhere; `second` is the page it goes on in, where it does not fit
/// the first. Sites are the jump labels of the kernel and of modules, and the static calls of both with their
/// trampolines. The bytes in memory are compared with what must be there before the step (LVBS contract §5.9).
///
/// -ENOENT tells Linux to write itself; at any other errno it stops. Nothing has been written then.
#[vsm_handler(
    VsmFunction::PatchText,
    phase = any,
    caller = any,
    errors(
        ENOENT = "an address that VTL1 does not protect: VTL0 then writes itself",
        EINVAL = "no step of a recorded site, or one out of turn; a second page that is missing or not needed",
        EACCES = "memory that is nobody's text",
        EFAULT = "a request that is not in memory",
    ),
)]
fn patch_text(call: &CallContext<'_>, request: PhysAddr, second: Option<PageAddr>) -> Result<(), VsmError> {
    let platform = call.platform();
    let request = PatchRequest::read(platform, request, second)?;
    // Held to the end: neither the frames' owner nor the site goes away, and no other processor is at the site.
    let registry = platform.frames().lock();
    let modules = platform.vtl0().modules().lock();
    let kernel = platform.vtl0().kernel_data();
    let at = request.at();
    let owner = owner_of(&registry, at);
    let text = Sealed { registry: &registry, kernel, modules: &modules, hardware: platform.hardware() };
    let (sites, calls) = match owner {
        Owner::Nobody => {
            // What it goes on in must not be protected either.
            return Err(match request.continuation()?.map(|page| (page, owner_of(&registry, page))) {
                None | Some((_, Owner::Nobody)) => VsmError::NotProtected(at),
                Some((page, owner)) => VsmError::FrameOwned(page, owner),
            });
        }
        Owner::KernelText => {
            let calls = StaticCalls { modules: &modules, kernel, text: &text, init_of: None };
            (kernel.map(|kernel| &kernel.patches), Some(calls))
        }
        Owner::Module { token, kind } if kind.is_text() => {
            let init_of = kind.is_init().then_some(token);
            let calls = StaticCalls { modules: &modules, kernel, text: &text, init_of };
            (modules.get(token).map(|module| &module.patches), Some(calls))
        }
        owner => return Err(VsmError::FrameOwned(at, owner)),
    };
    let sites = sites.ok_or(VsmError::InvalidPatch { at, rule: "its owner has no patch sites" })?;
    PatchStep::new(&request, sites)?.apply(&registry, owner, calls, platform.hardware())
}

/// The owner of the frame at that address; beyond all memory there is none.
fn owner_of(registry: &FrameRegistry, at: PhysAddr) -> Owner {
    registry.get(at.gfn().as_u64()).map_or(Owner::Nobody, |(owner, _)| owner)
}
