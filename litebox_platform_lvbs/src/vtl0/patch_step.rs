//! One step of a text poke: what VTL0 asks for, what of it is allowed, and the only thing that is ever written.
//!
//! Linux changes an instruction in three steps, so that no processor sees half of one: INT3 over the first byte, then the
//! bytes after it, then the first byte of the new form (`text_poke_bp_batch`, arch/x86/kernel/alternative.c). Between the
//! steps the memory itself says how far it has come, for nobody but VTL1 can write it: each step is compared with what is
//! there. VTL0 is trusted in nothing; the registry's lock keeps two processors from one site.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::{PAGE_SIZE, PhysAddr};
use crate::error::VsmError;
use crate::frames::{FrameRegistry, Owner, Permission};
use crate::hardware::Hardware;
use crate::platform::Platform;
use crate::vsm::PageAddr;

use super::patches::{MAX_SITE, PatchData, PatchDataMap, SiteKind};
use super::ptr::{PhysConstPtr, PhysMutPtr};
use super::static_calls::StaticCalls;

/// INT3 (Intel SDM vol. 2).
const INT3: u8 = 0xcc;
/// The NOP of 2 bytes and that of 5 (Linux arch/x86/include/asm/nops.h).
const NOP2: [u8; 2] = [0x66, 0x90];
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// The most bytes of a patch.
const MAX_CODE: usize = 5;

/// `struct heki_patch` as VTL0 passes it (LVBS contract §5.9).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct HekiPatch {
    /// Physical address of the first byte to write; that of the page where the bytes go on, or 0.
    pub pa: [u64; 2],
    /// How many bytes.
    pub size: u8,
    /// The bytes.
    pub code: [u8; MAX_CODE],
    /// Not used.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<HekiPatch>() == 24);
const _: () = assert!(core::mem::offset_of!(HekiPatch, size) == 16 && core::mem::offset_of!(HekiPatch, code) == 17);

/// What VTL0 asks to write, copied once, and sound as far as it can be without knowing the site.
#[derive(Clone, Copy, Debug)]
pub struct PatchRequest {
    at: PhysAddr,
    /// As VTL0 passed it, 0 for none; not none where the bytes cross the page.
    next_page: u64,
    size: u8,
    code: [u8; MAX_CODE],
}

impl PatchRequest {
    /// Copies the request at `first`, once; where its page ends it goes on at `second`, which is there exactly then.
    ///
    /// # Errors
    /// [`VsmError::InvalidParameter`] for a second page that is missing, or not needed; [`VsmError::FrameOwned`] for
    /// VTL1's frames; [`VsmError::Vtl0MemoryFault`]; [`VsmError::InvalidPhysicalAddress`] for a place that is none;
    /// [`VsmError::InvalidPatch`] for another number of bytes than 1 to 5, and for bytes that go on nowhere.
    pub fn read(platform: &Platform, first: PhysAddr, second: Option<PageAddr>) -> Result<Self, VsmError> {
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
        if !(1..=MAX_CODE).contains(&usize::from(size)) {
            return Err(invalid("a patch must have 1 to 5 bytes"));
        }
        if request.crosses() && next_page == 0 {
            return Err(invalid("a patch that crosses a page must go on in another one"));
        }
        Ok(request)
    }

    /// Where its first byte goes.
    #[must_use]
    pub fn at(&self) -> PhysAddr {
        self.at
    }

    /// Where the bytes go on that do not fit the first page; none where all of them do.
    ///
    /// # Errors
    /// [`VsmError::InvalidPhysicalAddress`].
    pub fn continuation(&self) -> Result<Option<PhysAddr>, VsmError> {
        if self.crosses() { PhysAddr::new(self.next_page).map(Some) } else { Ok(None) }
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
pub struct PatchStep<'s> {
    site: &'s PatchData,
    what: What,
}

/// The three steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// INT3 over the first byte.
    Break,
    /// The bytes after the first, of which there are as many as the site has.
    Tail([u8; MAX_CODE]),
    /// The first byte.
    Head(u8),
}

const FORMS: &str = "its bytes must be those of an instruction that may stand at the site";

impl<'s> PatchStep<'s> {
    /// Finds the site in `sites` that the request is for, and checks the request against it.
    ///
    /// # Errors
    /// [`VsmError::InvalidPatch`].
    pub fn new(request: &PatchRequest, sites: &'s PatchDataMap) -> Result<Self, VsmError> {
        let invalid = |rule| VsmError::InvalidPatch { at: request.at, rule };
        let (site, byte) =
            sites.near(request.at).ok_or(invalid("it must start at the first or second byte of a recorded site"))?;
        if request.next_page != 0 && Some(request.next_page) != site.next_page().map(PhysAddr::as_u64) {
            return Err(invalid("it must go on in the page that is recorded for the site"));
        }
        let what = match (byte, request.code()) {
            (0, [INT3]) => What::Break,
            (0, [head]) => What::Head(*head),
            (1, tail) if tail.len() + 1 == site.code().len() => What::Tail(request.code),
            _ => return Err(invalid("it must have the bytes of one of the three steps")),
        };
        Ok(Self { site, what })
    }

    /// Carries the step out, if its bytes may stand at the site and it is its turn: the bytes in memory are compared with
    /// what must be there before it. `calls` are the rules for static calls, where there can be any.
    ///
    /// # Errors
    /// [`VsmError::FrameOwned`] when a byte of the site is not in executable text of `owner`; [`VsmError::InvalidPatch`]
    /// when the step is not allowed; [`VsmError::Vtl0MemoryFault`]. Nothing has been written then.
    pub fn apply(
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
        match self.site.code().len() {
            2 => self.write::<2, 1>(registry, owner, calls, hardware),
            5 => self.write::<5, 4>(registry, owner, calls, hardware),
            _ => self.write::<MAX_SITE, MAX_CODE>(registry, owner, calls, hardware),
        }
    }

    /// The same for a site of `N` bytes, of which `TAIL` are after the first. Writes the bytes of the step and no others.
    fn write<const N: usize, const TAIL: usize>(
        self,
        registry: &FrameRegistry,
        owner: Owner,
        calls: Option<StaticCalls<'_>>,
        hardware: &dyn Hardware,
    ) -> Result<(), VsmError>
    where
        [u8; N]: FromBytes + IntoBytes + Immutable,
        [u8; TAIL]: FromBytes + IntoBytes + Immutable,
    {
        let (start, next_page) = (self.site.start(), self.site.next_page());
        let invalid = |rule| VsmError::InvalidPatch { at: start, rule };
        let now: [u8; N] = PhysMutPtr::scattered(registry, owner, start, next_page.as_slice())?.read(hardware)?;
        let (Some((first, old)), true) = (now.split_first(), N == TAIL + 1) else { return Err(invalid(FORMS)) };
        let old = old.first_chunk::<TAIL>().ok_or(invalid(FORMS))?;
        let allowed = |head: u8, tail: &[u8; TAIL]| {
            let mut code = now;
            if let Some((first, rest)) = code.split_first_mut() {
                *first = head;
                rest.copy_from_slice(tail);
            }
            self.site.allows(&code, calls)
        };
        let broken = *first == INT3;
        let head = match self.what {
            What::Break if !broken && self.site.has_form(&now) => INT3,
            What::Break => return Err(invalid("a breakpoint goes over a whole instruction of the site only")),
            What::Head(head) if broken && allowed(head, old) => head,
            What::Head(_) => {
                return Err(invalid("the first byte is written over a breakpoint, before its own tail only"));
            }
            What::Tail(code) => {
                let tail = code.first_chunk::<TAIL>().ok_or(invalid(FORMS))?;
                if !broken {
                    return Err(invalid("the tail is written behind a breakpoint only"));
                }
                if !self.site.heads().iter().any(|head| allowed(*head, tail)) {
                    return Err(invalid(FORMS));
                }
                let second = start.as_u64() + 1;
                let place = match next_page {
                    Some(page) if second.is_multiple_of(PAGE_SIZE) => PhysMutPtr::new(registry, owner, page)?,
                    _ => PhysMutPtr::scattered(registry, owner, PhysAddr::new(second)?, next_page.as_slice())?,
                };
                return place.write(hardware, tail).inspect_err(|_| {
                    // A page of the two may have been written. What can be put back is what could be written.
                    let _ = place.write(hardware, old);
                });
            }
        };
        PhysMutPtr::new(registry, owner, start)?.write(hardware, &head)
    }
}

/// Checks that the frame at `at` is text of `owner`, which VTL0 can execute and not write.
fn check_text(registry: &FrameRegistry, owner: Owner, at: PhysAddr) -> Result<(), VsmError> {
    match registry.get(at.gfn().as_u64()) {
        Some((found, Permission::RX)) if found == owner => Ok(()),
        found => Err(VsmError::FrameOwned(at, found.map_or(Owner::Nobody, |(owner, _)| owner))),
    }
}

impl PatchData {
    /// Whether an instruction may be written to the site.
    fn allows(&self, code: &[u8], calls: Option<StaticCalls<'_>>) -> bool {
        match self.kind() {
            SiteKind::JumpLabel => self.has_form(code),
            SiteKind::StaticCall { shape, va } => calls.is_some_and(|calls| calls.allow(shape, va, self.code(), code)),
        }
    }

    /// Whether an instruction can be what a patch has left at the site: of a static call, one of its shape, for what it
    /// calls may have gone meanwhile.
    fn has_form(&self, code: &[u8]) -> bool {
        match self.kind() {
            SiteKind::JumpLabel => code == self.code() || code == self.nop(),
            SiteKind::StaticCall { shape, va } => code == self.code() || shape.decode(code, va).is_some(),
        }
    }

    /// The first bytes that the site's instructions can have.
    fn heads(&self) -> &[u8] {
        match self.kind() {
            SiteKind::JumpLabel if self.code().len() == NOP2.len() => &[0xeb, NOP2[0]],
            SiteKind::JumpLabel => &[0xe9, NOP5[0]],
            SiteKind::StaticCall { shape, .. } => shape.heads(),
        }
    }

    /// The NOP of a jump label.
    fn nop(&self) -> &[u8] {
        if self.code().len() == NOP2.len() { &NOP2 } else { &NOP5 }
    }
}
