//! Patches to protected text: PatchText.
//!
//! What may be patched was recorded when VTL0's kernel or a module was accepted, and how is `PatchStep`'s to say. VTL0 is
//! trusted in nothing; a patch that is refused has written nothing.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::frames::Owner;
use litebox_platform_lvbs::vsm::{CallContext, PageAddr, Token};
use litebox_platform_lvbs::vtl0::{PatchRequest, PatchStep};
use vsm_macros::vsm_handler;

/// Writes one step of a jump-label patch into protected text, if the site was recorded and it is the step's turn.
///
/// `request` is where a `heki_patch` of 24 bytes lies, anywhere; `second` is the page it goes on in, where it does not fit
/// the first. The bytes in memory are compared with what must be there before the step (LVBS contract §5.9).
///
/// -ENOENT for an address that VTL1 does not protect: Linux then writes itself. -EINVAL for anything but a step of a
/// recorded site, and for one out of turn; -EACCES for memory that is nobody's text; -EFAULT for a request that cannot be
/// read. Linux stops at any of these. Nothing has been written then.
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
    let at = PhysAddr::new(request.pa[0])?;
    // Held to the end: neither the frames' owner nor the site goes away, and nobody else is at the site.
    let registry = platform.frames().lock();
    let modules = platform.vtl0().modules().lock();
    let owner = registry.get(at.gfn().as_u64()).map_or(Owner::Nobody, |(owner, _)| owner);
    let sites = match owner {
        Owner::Nobody => return Err(VsmError::NotProtected(at)),
        Owner::KernelText => platform.vtl0().kernel_data().map(|kernel| &kernel.patches),
        Owner::Module { token, kind } if kind.is_text() => {
            modules.get(Token::new(u64::from(token))?).map(|module| &module.patches)
        }
        owner => return Err(VsmError::FrameOwned(at, owner)),
    };
    let sites = sites.ok_or(VsmError::InvalidPatch { at, rule: "its owner has no patch sites" })?;
    PatchStep::new(&request, sites)?.apply(&registry, owner, platform.hardware())
}
