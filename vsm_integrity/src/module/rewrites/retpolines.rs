//! Indirect branches: the compiler branches to `__x86_indirect_thunk_REG`; Linux leaves that, or makes it a plain indirect
//! branch, one behind an LFENCE, or a branch to another thunk (`patch_retpoline`, arch/x86/kernel/alternative.c).
//!
//! On CPUs with the ITS bug, branches that would lie in the lower half of a cache line go to thunks in pages that Linux
//! allocates for the module. Where in its page each thunk is follows from the file (`its_allocate_thunk`); only where the
//! pages are does not. So each page is one unknown, the same for all branches, and what it must hold is known: VTL1 has
//! [`thunk_page`] to compare or to refuse with.

use super::branch::{self, Action, CALL, INT3, JUMP};
use super::forms::{Forms, Spot};
use crate::addresses::is_in_kernel_half;
use crate::heap;
use crate::module::error::ModuleError;
use crate::module::habits::{Choice, Habits};
use crate::module::memory::{ModuleMemory, PAGE};
use crate::module::plan::Plan;
use crate::module::sites::{Class, Site};

/// The branch to the retpoline stays.
const KEPT: u8 = 1;
/// An indirect branch.
const PLAIN: u8 = 2;
/// LFENCE and an indirect branch.
const LFENCE: u8 = 4;
/// A branch to a thunk in the upper half of a cache line, where the branch itself would not be in one.
pub const ITS: u8 = 8;
/// A branch to the thunk that counts the depth of calls.
const DEPTH: u8 = 16;

/// Bytes between thunks (`RETPOLINE_THUNK_SIZE`).
const STRIDE: u64 = 32;
/// Bytes between the kernel's own thunks against ITS (`ITS_THUNK_SIZE`).
const ITS_STRIDE: u64 = 64;

impl Plan<'_> {
    /// Writes into each site of a branch through a retpoline where its thunk against ITS would be. Linux allocates those
    /// in the list's order, so the sites are put into that order first.
    ///
    /// # Errors
    /// When there are too many, or the heap is too small.
    pub(crate) fn place_thunks(&mut self) -> Result<(), ModuleError> {
        let count = self.sites.iter().filter(|site| site.class() == Class::Retpoline).count();
        let mut order = heap::filled(count, u32::MAX)?;
        for (at, site) in (0u32..).zip(&self.sites) {
            if site.class() == Class::Retpoline
                && let Some(slot) = order.get_mut(site.index())
            {
                *slot = at;
            }
        }
        let mut thunks = Thunks::default();
        for at in order {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let Some(site) = self.sites.get(at).copied() else { continue };
            let place = self.branch_at(site).and_then(|(branch, code)| {
                Some(thunks.place(&code, self.address(site), register(self, branch.target)?))
            });
            let moved = site.with_index(place.unwrap_or(0));
            let moved = moved.ok_or_else(|| self.refuse_site(site, "a module has too many thunks"))?;
            if let Some(slot) = self.sites.get_mut(at) {
                // The order stays: place and class come first, and there is one such site at a place.
                *slot = moved;
            }
        }
        Ok(())
    }

    /// The register by which a branch through a retpoline goes.
    pub(crate) fn thunk_register(&self, site: Site) -> Option<u8> {
        register(self, self.branch_at(site)?.0.target)
    }
}

/// The number, 0 to 15, of the register whose thunk is at `target`.
pub fn register(plan: &Plan<'_>, target: u64) -> Option<u8> {
    let distance = target.checked_sub(plan.kernel.arch.indirect_thunks)?;
    // There is no branch by the stack pointer.
    let number = u8::try_from(distance / STRIDE).ok()?;
    (distance.is_multiple_of(STRIDE) && number < 16 && number != 4).then_some(number)
}

/// Whether an indirect branch by the register at `va` would not end in the upper half of a cache line.
fn wants_thunk(va: u64, register: u8) -> bool {
    va.wrapping_add(1 + u64::from(register / 8)) & 0x20 == 0
}

pub(super) fn forms(plan: &Plan<'_>, habits: &Habits, memory: &ModuleMemory<'_>, spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Retpoline);
    let Some(branch) = branch::decode(spot.original, spot.va) else { return forms };
    let original = spot.original.get(..branch.length).unwrap_or_default();
    let Some(register) = register(plan, branch.target) else { return forms.with(KEPT, original) };
    let mut forms = forms.with(KEPT, original);
    let unfenced = indirect(branch.action, register, branch.length, false);
    let upper = spot.site.index() == 0;
    let bytes = unfenced.as_ref().map_or(original, Code::as_slice);
    forms.push(if upper { PLAIN | ITS } else { PLAIN }, bytes);
    let fenced = indirect(branch.action, register, branch.length, true);
    forms.push(LFENCE, fenced.as_ref().map_or(original, Code::as_slice));
    if !upper && let Some(target) = thunk_target(plan, habits, memory, spot, register) {
        push_branch(&mut forms, ITS, spot, branch.action, target);
    }
    let array = if branch.action == Action::Call { plan.depth_call_thunks } else { plan.depth_jump_thunks };
    if let Some(array) = array {
        push_branch(&mut forms, DEPTH, spot, branch.action, array.wrapping_add(u64::from(register) * STRIDE));
    }
    forms
}

/// Adds the branch of the original's shape to another target.
fn push_branch(forms: &mut Forms, options: u8, spot: &Spot<'_>, action: Action, target: u64) {
    let Some(length) = branch::length(spot.original) else { return };
    let mut bytes = [0; 6];
    let prefix = length.saturating_sub(5);
    if let (Some(into), Some(from)) = (bytes.get_mut(..prefix), spot.original.get(..prefix)) {
        into.copy_from_slice(from);
    }
    let opcode = match action {
        Action::Call => CALL,
        Action::Jump => JUMP,
        // The second byte of such a jump has the condition; the first one is its prefix here.
        Action::Conditional(condition) => 0x80 | condition,
    };
    let encoded = branch::encode(opcode, spot.va.wrapping_add(prefix as u64), target);
    if let (Some(into), Some(encoded)) = (bytes.get_mut(prefix..length), encoded) {
        into.copy_from_slice(&encoded);
        forms.push(options, bytes.get(..length).unwrap_or_default());
    }
}

/// Where the site's thunk must be, given where it says its page is.
fn thunk_target(
    plan: &Plan<'_>,
    habits: &Habits,
    memory: &ModuleMemory<'_>,
    spot: &Spot<'_>,
    register: u8,
) -> Option<u64> {
    let found = branch::decode(spot.found, spot.va)?.target;
    // What Linux uses when it can't allocate a thunk.
    if let Some(array) = plan.its_thunks
        && found.wrapping_sub(array) < 16 * ITS_STRIDE
    {
        // Nothing else of the array, be it where a page of the module's own would have the thunk.
        return (found == array.wrapping_add(u64::from(register) * ITS_STRIDE)).then_some(found);
    }
    let (number, offset) = split(spot.site.index());
    let page = match habits.thunk_pages.get(number) {
        Some(page) if *page != 0 => *page,
        _ => {
            let page = found.checked_sub(offset)?;
            let free = page.is_multiple_of(PAGE) && is_in_kernel_half(page) && !memory.contains(page);
            free.then_some(page)?
        }
    };
    Some(page + offset)
}

/// What is to be remembered once the site has been explained: number and address of the page of thunks that its branch
/// goes to.
pub fn thunk_page_of(plan: &Plan<'_>, spot: &Spot<'_>, options: u8) -> Option<(usize, u64)> {
    if options != ITS || spot.site.index() == 0 {
        return None;
    }
    let found = branch::decode(spot.found, spot.va)?.target;
    if let Some(array) = plan.its_thunks
        && found.wrapping_sub(array) < 16 * ITS_STRIDE
    {
        return None;
    }
    let (number, offset) = split(spot.site.index());
    Some((number, found.checked_sub(offset)?))
}

/// Number of the page and offset in it.
fn split(thunk: usize) -> (usize, u64) {
    (thunk / 4096, thunk as u64 % 4096)
}

/// Where Linux puts the next thunk in its pages, in units of bytes through all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Thunks {
    next: usize,
}

impl Thunks {
    /// The place of the thunk for a branch that the file has at `va`; 0 when it needs none.
    pub fn place(&mut self, code: &[u8], va: u64, register: u8) -> usize {
        // A conditional branch becomes one of two bytes around the indirect one.
        let skip = if matches!(code, [0x0f, ..]) { 2 } else { 0 };
        if !wants_thunk(va.wrapping_add(skip), register) {
            return 0;
        }
        let size = 3 + usize::from(register / 8);
        let (mut page, mut offset) = (self.next / 4096, self.next % 4096);
        // The first thunk of a page is at the upper half of its first line.
        if self.next == 0 {
            offset = 32;
        } else if offset == 0 || offset + size > 4096 {
            page += usize::from(offset != 0);
            offset = 32;
        }
        if (offset + size - 1) % 64 < 32 {
            offset = ((offset - 1) | 63) + 33;
        }
        let place = page * 4096 + offset;
        self.next = place + size;
        place
    }
}

/// Writes a thunk for the register to where it belongs in its page.
pub fn write_thunk(page: &mut [u8], offset: usize, register: u8) {
    let low = register & 7;
    let code = [0x41, 0xff, 0xe0 | low, INT3];
    let code = if register >= 8 { code.as_slice() } else { code.get(1..).unwrap_or_default() };
    for (into, byte) in page.iter_mut().skip(offset).zip(code) {
        *into = *byte;
    }
}

/// A few bytes of code.
struct Code {
    bytes: [u8; 8],
    length: usize,
}

impl Code {
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length += 1;
        Some(())
    }
}

/// An indirect branch by a register in `length` bytes; `None` when they don't suffice.
fn indirect(action: Action, register: u8, length: usize, fence: bool) -> Option<Code> {
    let mut code = Code { bytes: [0; 8], length: 0 };
    if let Action::Conditional(condition) = action {
        // Around it, under the opposite condition.
        code.push(0x70 | (condition ^ 1))?;
        code.push(u8::try_from(length.checked_sub(2)?).ok()?)?;
    }
    if fence {
        for byte in [0x0f, 0xae, 0xe8] {
            code.push(byte)?;
        }
    }
    if register >= 8 {
        code.push(0x41)?;
    }
    code.push(0xff)?;
    code.push(if action == Action::Call { 0xd0 } else { 0xe0 } | (register & 7))?;
    if code.length > length {
        return None;
    }
    if action != Action::Call && code.length < length {
        code.push(INT3)?;
    }
    // What is left is one NOP, for it is at most three bytes.
    let left = length - code.length;
    for byte in super::nops::NOPS.get(left).copied().unwrap_or_default() {
        code.push(*byte)?;
    }
    Some(code)
}
