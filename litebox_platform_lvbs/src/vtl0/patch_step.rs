//! One step of a text poke: what VTL0 asks for, what of it is allowed, and the only thing that is ever written.
//!
//! Linux changes a jump label in three steps, so that no processor sees half an instruction: INT3 over the first byte, then
//! the bytes after it, then the first byte of the new form (`text_poke_bp_batch`, arch/x86/kernel/alternative.c). Between
//! the steps the memory itself says how far it has come, for nobody but VTL1 can write it: each step is compared with what
//! is there. VTL0 is trusted in nothing; the registry's lock keeps two processors from one site.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::{PAGE_SIZE, PhysAddr};
use crate::error::VsmError;
use crate::frames::{FrameRegistry, Owner};
use crate::hardware::Hardware;
use crate::platform::Platform;
use crate::vsm::PageAddr;

use super::patches::{PatchData, PatchDataMap};
use super::ptr::{PhysConstPtr, PhysMutPtr};

/// INT3 (Intel SDM vol. 2).
const INT3: u8 = 0xcc;
/// The NOP of 2 bytes and that of 5 (Linux arch/x86/include/asm/nops.h).
const NOP2: [u8; 2] = [0x66, 0x90];
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// `struct heki_patch` as VTL0 passes it (LVBS contract §5.9).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct PatchRequest {
    /// Physical address of the first byte to write; that of the page where the bytes go on, or 0.
    pub pa: [u64; 2],
    /// How many bytes.
    pub size: u8,
    /// The bytes.
    pub code: [u8; 5],
    /// Not used.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<PatchRequest>() == 24);
const _: () =
    assert!(core::mem::offset_of!(PatchRequest, size) == 16 && core::mem::offset_of!(PatchRequest, code) == 17);

impl PatchRequest {
    /// Copies the request at `first`, once; where its page ends it goes on at `second`, which is there exactly then.
    ///
    /// # Errors
    /// [`VsmError::InvalidParameter`] for a second page that is missing, or not needed; [`VsmError::FrameOwned`] for
    /// VTL1's frames; [`VsmError::Vtl0MemoryFault`].
    pub fn read(platform: &Platform, first: PhysAddr, second: Option<PageAddr>) -> Result<Self, VsmError> {
        let straddles = first.page_offset() + size_of::<Self>() as u64 > PAGE_SIZE;
        let second = second.map(PageAddr::start);
        if straddles != second.is_some() {
            let value = second.map_or(0, PhysAddr::as_u64);
            return Err(VsmError::InvalidParameter { name: "second page", value });
        }
        PhysConstPtr::scattered(platform, first, second.as_slice())?.read(platform.hardware())
    }

    /// The bytes to write.
    fn code(&self) -> Option<&[u8]> {
        self.code.get(..usize::from(self.size)).filter(|code| !code.is_empty())
    }
}

/// A step that a recorded site allows, as far as its place and its bytes go; whether it is its turn depends on memory.
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
    /// The bytes after the first: those of the jump, or of the NOP.
    Tail(Form),
    /// The first byte: that of the jump, or of the NOP.
    Head(Form),
}

/// What a site can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Jump,
    Nop,
}

impl<'s> PatchStep<'s> {
    /// Finds the site in `sites` that the request is for, and checks the request against it.
    ///
    /// # Errors
    /// [`VsmError::InvalidPatch`], [`VsmError::InvalidPhysicalAddress`].
    pub fn new(request: &PatchRequest, sites: &'s PatchDataMap) -> Result<Self, VsmError> {
        let [at, next_page] = request.pa;
        let at = PhysAddr::new(at)?;
        let invalid = |rule| VsmError::InvalidPatch { at, rule };
        let code = request.code().ok_or(invalid("a patch must have 1 to 5 bytes"))?;
        let (site, byte) =
            sites.near(at).ok_or(invalid("it must start at the first or second byte of a recorded site"))?;
        let crosses = at.page_offset() + code.len() as u64 > PAGE_SIZE;
        let sites_next = site.next_page().map_or(0, PhysAddr::as_u64);
        if next_page != sites_next && (crosses || next_page != 0) {
            return Err(invalid("it must go on in the page that is recorded for the site"));
        }
        let forms = [Form::Jump, Form::Nop];
        let is = |form: &Form, byte: usize| {
            let bytes = site.form(*form);
            if byte == 0 { bytes.get(..1) == Some(code) } else { bytes.get(1..) == Some(code) }
        };
        let what = match (byte, code) {
            (0, [INT3]) => What::Break,
            (0, _) => What::Head(*forms.iter().find(|form| is(form, 0)).ok_or(invalid(FORMS))?),
            _ => What::Tail(*forms.iter().find(|form| is(form, 1)).ok_or(invalid(FORMS))?),
        };
        Ok(Self { site, what })
    }

    /// Carries the step out, if it is its turn: the bytes in memory are compared with what must be there before it.
    ///
    /// # Errors
    /// [`VsmError::FrameOwned`] when a byte of the site is not `owner`'s; [`VsmError::InvalidPatch`] when it is not the
    /// step's turn; [`VsmError::Vtl0MemoryFault`]. Nothing has been written then.
    pub fn apply(self, registry: &FrameRegistry, owner: Owner, hardware: &dyn Hardware) -> Result<(), VsmError> {
        match self.site.jump().len() {
            2 => self.write::<2, 1>(registry, owner, hardware),
            _ => self.write::<5, 4>(registry, owner, hardware),
        }
    }

    /// The same for a site of `N` bytes, of which `TAIL` are after the first. Writes the bytes of the step and no others.
    fn write<const N: usize, const TAIL: usize>(
        self,
        registry: &FrameRegistry,
        owner: Owner,
        hardware: &dyn Hardware,
    ) -> Result<(), VsmError>
    where
        [u8; N]: FromBytes + IntoBytes + Immutable,
        [u8; TAIL]: FromBytes + IntoBytes + Immutable,
    {
        let (start, next_page) = (self.site.start(), self.site.next_page());
        let invalid = |rule| VsmError::InvalidPatch { at: start, rule };
        let now: [u8; N] = PhysMutPtr::scattered(registry, owner, start, next_page.as_slice())?.read(hardware)?;
        let is = |form| self.site.form(form) == now;
        let has_tail = |form| self.site.form(form).get(1..) == now.get(1..);
        let broken = now.first() == Some(&INT3);
        let head = match self.what {
            What::Break if is(Form::Jump) || is(Form::Nop) => INT3,
            What::Break => return Err(invalid("a breakpoint goes over a jump or a NOP only")),
            What::Head(form) if broken && has_tail(form) => *self.site.form(form).first().ok_or(invalid(FORMS))?,
            What::Head(_) => {
                return Err(invalid("the first byte is written over a breakpoint, before its own tail only"));
            }
            What::Tail(form) if broken && (has_tail(Form::Jump) || has_tail(Form::Nop)) => {
                let tail =
                    self.site.form(form).get(1..).and_then(|tail| tail.first_chunk::<TAIL>()).ok_or(invalid(FORMS))?;
                let second = start.as_u64() + 1;
                return match next_page {
                    Some(page) if second.is_multiple_of(PAGE_SIZE) => PhysMutPtr::new(registry, owner, page)?,
                    _ => PhysMutPtr::scattered(registry, owner, PhysAddr::new(second)?, next_page.as_slice())?,
                }
                .write(hardware, tail);
            }
            What::Tail(_) => return Err(invalid("the tail is written behind a breakpoint only")),
        };
        PhysMutPtr::new(registry, owner, start)?.write(hardware, &head)
    }
}

const FORMS: &str = "its bytes must be those of the site's jump or of the NOP of that size";

impl PatchData {
    /// The bytes of a form.
    fn form(&self, form: Form) -> &[u8] {
        match form {
            Form::Jump => self.jump(),
            Form::Nop if self.jump().len() == NOP2.len() => &NOP2,
            Form::Nop => &NOP5,
        }
    }
}
