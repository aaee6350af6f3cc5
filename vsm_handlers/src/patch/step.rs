//! One step of a text poke: what VTL0 asks for, what of it is allowed, and the only thing that is ever written.
//!
//! Linux changes an instruction in three steps, so that no processor sees half of one: INT3 over the first byte, then the
//! bytes after it, then the first byte of the new form (`text_poke_bp_batch`, arch/x86/kernel/alternative.c). Between the
//! steps the memory itself says how far it has come, because only VTL1 can write it: each step is compared with what is
//! there. VTL0 is trusted in nothing; the registry's lock keeps two processors from one site.

use litebox_platform_lvbs::access::{PhysConstPtr, PhysMutPtr};
use litebox_platform_lvbs::address::{PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::frames::FrameRegistry;
use litebox_platform_lvbs::hardware::Hardware;
use litebox_platform_lvbs::heki::{HekiPatch, MAX_PATCH_CODE};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::PageAddr;
use litebox_platform_lvbs::vtl0::patches::MAX_SITE;
use litebox_platform_lvbs::vtl0::{PatchData, PatchDataMap, SiteKind};
use litebox_platform_lvbs::{Platform, VsmError};

use super::static_calls::StaticCalls;
use crate::sealed::check_text;

/// INT3 (Intel SDM vol. 2).
const INT3: u8 = 0xcc;
/// The NOP of 2 bytes and that of 5 (Linux arch/x86/include/asm/nops.h).
const NOP2: Code = [0x66, 0x90, 0, 0, 0, 0];
const NOP5: Code = [0x0f, 0x1f, 0x44, 0x00, 0x00, 0];

/// An instruction, and zeros behind it: of one size, so that comparing costs a few instructions.
type Code = [u8; MAX_SITE];
/// What stands behind the first byte.
type Tail = [u8; MAX_PATCH_CODE];
const _: () = assert!(MAX_SITE == MAX_PATCH_CODE + 1);

/// What VTL0 asks to write, copied once, and sound as far as it can be without knowing the site.
#[derive(Clone, Copy, Debug)]
pub(super) struct PatchRequest {
    at: PhysAddr,
    /// As VTL0 passed it, 0 for none; not none where the bytes cross the page.
    next_page: u64,
    size: u8,
    code: [u8; MAX_PATCH_CODE],
}

impl PatchRequest {
    /// Copies the request at `first`, once; where its page ends it goes on at `second`, which is there exactly then.
    ///
    /// # Errors
    /// [`VsmError::InvalidParameter`] for a second page that is missing, or not needed; [`VsmError::FrameOwned`] for
    /// VTL1's frames; [`VsmError::Vtl0MemoryFault`]; [`VsmError::InvalidPhysicalAddress`] for a place that is none;
    /// [`VsmError::InvalidPatch`] for another number of bytes than 1 to 5, and for bytes that go on nowhere.
    pub(super) fn read(platform: &Platform, first: PhysAddr, second: Option<PageAddr>) -> Result<Self, VsmError> {
        let straddles = first.page_offset() + size_of::<HekiPatch>() as u64 > PAGE_SIZE;
        let second = second.map(PageAddr::start);
        if straddles != second.is_some() {
            let value = second.map_or(0, PhysAddr::as_u64);
            return Err(VsmError::InvalidParameter { name: "second page", value });
        }
        let patch: HekiPatch =
            PhysConstPtr::scattered(platform, first, second.as_slice())?.read(platform.hardware())?;
        let HekiPatch { pa: [at, next_page], size, code, .. } = patch;
        let request = Self { at: PhysAddr::new(at)?, next_page, size, code };
        let invalid = |rule| VsmError::InvalidPatch { at: request.at, rule };
        if !(1..=MAX_PATCH_CODE).contains(&usize::from(size)) {
            return Err(invalid("a patch must have 1 to 5 bytes"));
        }
        if request.crosses() && next_page == 0 {
            return Err(invalid("a patch that crosses a page must go on in another one"));
        }
        Ok(request)
    }

    /// Where its first byte goes.
    pub(super) fn at(&self) -> PhysAddr {
        self.at
    }

    /// Where the bytes go on that do not fit the first page; none where all of them do.
    ///
    /// # Errors
    /// [`VsmError::InvalidPhysicalAddress`].
    pub(super) fn continuation(&self) -> Result<Option<PhysAddr>, VsmError> {
        if self.crosses() { Ok(Some(PhysAddr::new(self.next_page)?)) } else { Ok(None) }
    }

    fn crosses(&self) -> bool {
        self.at.page_offset() + u64::from(self.size) > PAGE_SIZE
    }

    fn code(&self) -> &[u8] {
        self.code.get(..usize::from(self.size)).unwrap_or_default()
    }
}

/// A step that a recorded site allows, as far as its place and its size go; whether its bytes may be written, and whether
/// it is its turn, depends on memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct PatchStep<'s> {
    site: &'s PatchData,
    step: Step,
}

/// The three steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// INT3 over the first byte.
    Break,
    /// The bytes after the first, of which there are as many as the site has.
    Tail(Tail),
    /// The first byte.
    Head(u8),
}

const FORMS: &str = "its bytes must be those of an instruction that may stand at the site";

impl<'s> PatchStep<'s> {
    /// Finds the site in `sites` that the request is for, and checks the request against it.
    ///
    /// # Errors
    /// [`VsmError::InvalidPatch`].
    pub(super) fn new(request: &PatchRequest, sites: &'s PatchDataMap) -> Result<Self, VsmError> {
        let invalid = |rule| VsmError::InvalidPatch { at: request.at, rule };
        let (site, byte) =
            sites.near(request.at).ok_or(invalid("it must start at the first or second byte of a recorded site"))?;
        if request.next_page != 0 && Some(request.next_page) != site.next_page().map(PhysAddr::as_u64) {
            return Err(invalid("it must go on in the page that is recorded for the site"));
        }
        let step = match (byte, request.code()) {
            (0, [INT3]) => Step::Break,
            (0, [head]) => Step::Head(*head),
            (1, code) if code.len() + 1 == site.code().len() => {
                let mut tail = Tail::default();
                tail.iter_mut().zip(code).for_each(|(byte, new)| *byte = *new);
                Step::Tail(tail)
            }
            _ => return Err(invalid("it must have the bytes of one of the three steps")),
        };
        Ok(Self { site, step })
    }

    /// Carries the step out, if its bytes may stand at the site and it is its turn: the bytes in memory are compared with
    /// what must be there before it. `calls` are the rules for static calls, where there can be any.
    ///
    /// # Errors
    /// [`VsmError::FrameOwned`] when a byte of the site is not in executable text of `owner`; [`VsmError::InvalidPatch`]
    /// when the step is not allowed; [`VsmError::Vtl0MemoryFault`]. Nothing has been written then.
    pub(super) fn apply(
        self,
        registry: &FrameRegistry,
        owner: Owner,
        calls: Option<StaticCalls<'_>>,
        hardware: &dyn Hardware,
    ) -> Result<(), VsmError> {
        check_text(registry, owner, self.site.start())?;
        if let Some(page) = self.site.next_page() {
            check_text(registry, owner, page)?;
        }
        let (start, next_page, size) = (self.site.start(), self.site.next_page(), self.site.code().len());
        let invalid = |rule| VsmError::InvalidPatch { at: start, rule };
        let mut now = Code::default();
        let place = now.get_mut(..size).ok_or(invalid(FORMS))?;
        PhysMutPtr::bytes(registry, owner, start, next_page.as_slice(), size)?.read_into(hardware, place)?;
        let [first, old @ ..] = now;
        let allowed = |head: u8, [a, b, c, d, e]: Tail| allows(self.site, [head, a, b, c, d, e], calls);
        let broken = first == INT3;
        let head = match self.step {
            Step::Break if !broken && has_form(self.site, now) => INT3,
            Step::Break => return Err(invalid("a breakpoint goes over a whole instruction of the site only")),
            Step::Head(head) if broken && allowed(head, old) => head,
            Step::Head(_) => {
                return Err(invalid("the first byte is written over a breakpoint, before its own tail only"));
            }
            Step::Tail(code) => {
                if !broken {
                    return Err(invalid("the tail is written behind a breakpoint only"));
                }
                if !heads(self.site).iter().any(|head| allowed(*head, code)) {
                    return Err(invalid(FORMS));
                }
                let second = start.as_u64() + 1;
                let (at, more) = match &next_page {
                    Some(page) if second.is_multiple_of(PAGE_SIZE) => (*page, &[][..]),
                    _ => (PhysAddr::new(second)?, next_page.as_slice()),
                };
                let (Some(new), Some(old)) = (code.get(..size.saturating_sub(1)), old.get(..size.saturating_sub(1)))
                else {
                    return Err(invalid(FORMS));
                };
                let place = PhysMutPtr::bytes(registry, owner, at, more, new.len())?;
                return place.write_from(hardware, new).inspect_err(|_| {
                    // A page of the two may have been written. What can be put back is what could be written.
                    let _ = place.write_from(hardware, old);
                });
            }
        };
        PhysMutPtr::new(registry, owner, start)?.write(hardware, &head)
    }
}

/// Whether an instruction may be written to the site.
fn allows(site: &PatchData, code: Code, calls: Option<StaticCalls<'_>>) -> bool {
    match site.kind() {
        SiteKind::JumpLabel => has_form(site, code),
        SiteKind::StaticCall { shape, va } => {
            calls.zip(cut(site, &code)).is_some_and(|(calls, code)| calls.allow(shape, va, site.code(), code))
        }
    }
}

/// Whether an instruction can be what a patch has left at the site: of a static call, one of its shape, because what it
/// calls may have gone meanwhile.
fn has_form(site: &PatchData, code: Code) -> bool {
    match site.kind() {
        SiteKind::JumpLabel => code == site.padded_code() || code == nop(site),
        SiteKind::StaticCall { shape, va } => {
            code == site.padded_code() || cut(site, &code).and_then(|code| shape.decode(code, va)).is_some()
        }
    }
}

/// As many bytes as the site has.
fn cut<'c>(site: &PatchData, code: &'c Code) -> Option<&'c [u8]> {
    code.get(..site.code().len())
}

/// The first bytes that the site's instructions can have.
fn heads(site: &PatchData) -> &[u8] {
    match site.kind() {
        SiteKind::JumpLabel if site.code().len() == 2 => &[0xeb, NOP2[0]],
        SiteKind::JumpLabel => &[0xe9, NOP5[0]],
        SiteKind::StaticCall { shape, .. } => shape.heads(),
    }
}

/// The NOP of a jump label.
fn nop(site: &PatchData) -> Code {
    if site.code().len() == 2 { NOP2 } else { NOP5 }
}
