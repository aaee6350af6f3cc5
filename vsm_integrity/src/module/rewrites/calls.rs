//! Call depth tracking: on some CPUs Linux makes a call go to a few bytes before the function, where it puts an instruction
//! that counts (`callthunks_patch_module_calls`, arch/x86/kernel/callthunks.c, 6.2 and later).
//!
//! Which calls: those of `.call_sites`, and those that a paravirt site (6.2 to 6.7) or an alternative (6.8 and later) starts
//! with once these have been written; only in TEXT, not of `__fentry__`, and only of functions in text that stays: the
//! module's own, the kernel's, another module's. Which functions: those that have NOPs before them, or the instruction
//! already. Of a function outside of the module that is what sealed text holds there; the instruction is not this module's
//! then. Before a function of the module itself, the instruction must be there when a call is counted, and only then.
//!
//! The instruction is `sarq $5, %gs:pcpu_hot+16`: with an absolute operand up to 6.6, relative to itself later. The address
//! of `pcpu_hot` is an export of the kernel. Where calls are counted, returns go to a thunk.

use super::branch::{self, Action, Branch, CALL};
use super::forms::{Forms, Spot};
use super::nops::NOPS;
use crate::generation::KernelGeneration;
use crate::heap::OutOfMemory;
use crate::module::error::ModuleError;
use crate::module::habits::{Choice, Habits};
use crate::module::kind::Kind;
use crate::module::layout::Place;
use crate::module::plan::Plan;
use crate::module::sites::{Class, Site};

/// Calls stay.
pub const KEPT: u8 = 1;
/// Calls count, with the longer instruction.
const ABSOLUTE: u8 = 2;
/// Calls count, with the shorter one.
const RELATIVE: u8 = 4;
/// Offset of `call_depth` in `struct pcpu_hot` (arch/x86/include/asm/current.h).
const DEPTH: u64 = 16;
/// Bytes of the longer instruction.
const LONG: usize = 10;
/// Bytes of the shorter instruction.
const SHORT: usize = 9;
/// In the number of a space's site: an alternative may replace the call that counts.
const MAY_BE_REPLACED: usize = 1;
/// In the number of a space's site: there is room for the shorter instruction only.
const SHORT_SPACE: usize = 2;

/// The instruction that counts, at a place.
struct Template {
    bytes: [u8; LONG],
    length: usize,
}

impl Template {
    /// The instruction of an option right before a function.
    fn new(option: u8, hot: u64, function: u64) -> Option<Self> {
        let depth = hot.wrapping_add(DEPTH);
        let distance = if option == ABSOLUTE { depth } else { depth.wrapping_sub(function) };
        let [a, b, c, d] = i32::try_from(distance.cast_signed()).ok()?.to_le_bytes();
        Some(if option == ABSOLUTE {
            Self { bytes: [0x65, 0x48, 0xc1, 0x3c, 0x25, a, b, c, d, 5], length: LONG }
        } else {
            Self { bytes: [0x65, 0x48, 0xc1, 0x3d, a, b, c, d, 5, 0], length: SHORT }
        })
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Whether all bytes are NOPs of one byte.
fn are_nops(space: &[u8]) -> bool {
    space.iter().all(|byte| *byte == NOPS[1][0])
}

impl Habits {
    /// Whether this kernel's modules have shown that it counts calls (`retbleed=stuff`): it then writes to functions that are
    /// sealed whenever it changes a static call, which no patch protocol covers.
    #[must_use]
    pub fn counts_calls(&self) -> bool {
        self.options(Choice::Call) & KEPT == 0
    }
}

impl Plan<'_> {
    /// The options that count calls on this kernel; none where it can't.
    pub fn counting_options(&self) -> &'static [u8] {
        let thunk = self.kernel.arch.return_thunk != self.kernel.arch.return_thunk_init;
        match self.kernel.generation {
            _ if !thunk || self.pcpu_hot.is_none() => &[],
            KernelGeneration::From6_2 => &[ABSOLUTE, RELATIVE],
            KernelGeneration::From6_8 => &[RELATIVE],
            KernelGeneration::UpTo6_1 | KernelGeneration::From6_15 => &[],
        }
    }

    /// The class of sites, besides `.call_sites`, that may start with a call that is counted.
    pub fn counted_class(&self) -> Option<Class> {
        match self.kernel.generation {
            KernelGeneration::From6_2 => Some(Class::Paravirt),
            KernelGeneration::From6_8 => Some(Class::Alternative),
            KernelGeneration::UpTo6_1 | KernelGeneration::From6_15 => None,
        }
    }

    /// Bytes of the space before a function that is the site of that number: as many as the longest instruction of this kernel
    /// has, unless there are fewer NOPs.
    pub fn pad_length(&self, number: usize) -> usize {
        if number & SHORT_SPACE == 0 && self.counting_options().contains(&ABSOLUTE) { LONG } else { SHORT }
    }

    /// Where the call at `va` of the function at `target` goes instead when calls are counted in that way; `None` when it
    /// stays.
    fn counted(&self, option: u8, va: u64, target: u64) -> Option<u64> {
        if !self.in_text(va) || Some(target) == self.fentry {
            return None;
        }
        let template = Template::new(option, self.pcpu_hot?, target)?;
        let length = template.length;
        let pad = target.checked_sub(length as u64)?;
        match self.layout.find(target) {
            Some((Kind::Text, offset)) => self.has_pad(&self.sites, offset, length).then_some(pad),
            // Not text that stays, or no text at all.
            Some(_) => None,
            None => {
                let mut space = [0; LONG];
                let space = space.get_mut(..length)?;
                let sealed = self.kernel.text.read(pad, space);
                (sealed && (are_nops(space) || space == template.as_slice())).then_some(pad)
            }
        }
    }

    /// Whether the file has NOPs in the `length` bytes before that offset of TEXT, which no alternative of the sorted `sites`
    /// covers: that would be written first.
    fn has_pad(&self, sites: &[Site], offset: u32, length: usize) -> bool {
        let space = self.layout.section_at(Kind::Text, offset).and_then(|index| {
            let Place::Range(_, start) = self.layout.place(index) else { return None };
            let end = usize::try_from(offset.checked_sub(start)?).ok()?;
            self.elf.bytes(&self.elf.section(index)?).get(end.checked_sub(length)?..end)
        });
        let start = u32::try_from(length).ok().and_then(|length| offset.checked_sub(length));
        let covered = |start| {
            let before = sites.get(..sites.partition_point(|site| *site < Site::at(Kind::Text, offset)));
            let near = |site: &&Site| site.kind() == Kind::Text && site.offset() + 256 > start;
            before.unwrap_or_default().iter().rev().take_while(near).any(|site| self.alternative_end(*site) > start)
        };
        space.is_some_and(are_nops) && start.is_some_and(|start| !covered(start))
    }

    /// Where the alternative at that site ends; 0 when it is none.
    fn alternative_end(&self, site: Site) -> u32 {
        let entry = (site.class() == Class::Alternative).then(|| self.alternative(site.index())).flatten();
        entry.map_or(0, |entry| site.offset() + u32::from(entry.length))
    }

    /// Makes the call that `code`, which is at `va`, starts with go where a counted one goes, if it is one. Says whether
    /// it is a call.
    pub(super) fn count_call(&self, option: u8, va: u64, code: &mut [u8]) -> bool {
        let Some(five) = code.first_chunk_mut::<5>() else { return false };
        let Some(call) = branch::decode(five, va).filter(|branch| branch.action == Action::Call) else { return false };
        let pad = self.counted(option, va, call.target);
        if let Some(counted) = pad.and_then(|pad| branch::encode(CALL, va, pad)) {
            *five = counted;
        }
        true
    }

    /// Adds the space before each function of the module whose calls may be counted.
    ///
    /// The calls of `__fentry__` that were dropped have left room for about as many; more is asked for when that is full.
    ///
    /// # Errors
    /// [`ModuleError::OutOfMemory`].
    pub(crate) fn place_pads(&mut self) -> Result<(), ModuleError> {
        if self.counting_options().is_empty() {
            return Ok(());
        }
        self.sites.dedup();
        let count = self.sites.len();
        for at in 0..count {
            let Some(site) = self.sites.get(at).copied().filter(|site| site.kind() == Kind::Text) else { continue };
            match site.class() {
                Class::Call => {
                    let number = if self.may_be_replaced(at) { MAY_BE_REPLACED } else { 0 };
                    self.place_pad(count, self.branch_at(site), number)?;
                }
                Class::Alternative if self.counted_class() == Some(Class::Alternative) => {
                    let replacement = self.alternative(site.index()).map(|entry| entry.replacement);
                    let place = replacement.and_then(|va| self.layout.find(va)).filter(|(kind, _)| kind.is_text());
                    let code = place.and_then(|(kind, offset)| Site::new(kind.is_init(), offset, Class::Call, 0));
                    self.place_pad(count, self.branch_at(site), MAY_BE_REPLACED)?;
                    self.place_pad(count, code.and_then(|code| self.branch_at(code)), MAY_BE_REPLACED)?;
                }
                _ => {}
            }
        }
        self.sites.sort_unstable_by(Site::cmp);
        let is_pad = |site: &Site| site.class() == Class::Pad;
        self.sites.dedup_by(|second, first| is_pad(second) && is_pad(first) && first.same_place(*second));
        Ok(())
    }

    /// Whether the site of that number lies within an alternative.
    fn may_be_replaced(&self, at: usize) -> bool {
        let Some(site) = self.sites.get(at) else { return false };
        let covers = |other: &Site| site.offset() < self.alternative_end(*other);
        let near = |other: &&Site| other.kind() == site.kind() && other.offset() + 256 > site.offset();
        let before = self.sites.get(..at).unwrap_or_default().iter().rev().take_while(near);
        let after = self.sites.get(at..).unwrap_or_default().iter().take_while(|other| other.same_place(*site));
        before.chain(after).any(covers)
    }

    /// Adds the space before the function of the module that a call goes to, behind the first `count` sites.
    fn place_pad(&mut self, count: usize, call: Option<(Branch, [u8; 6])>, number: usize) -> Result<(), ModuleError> {
        let call = call.filter(|(branch, _)| branch.action == Action::Call && branch.length == 5);
        let function = call.and_then(|(branch, _)| self.layout.find(branch.target));
        let Some((Kind::Text, offset)) = function else { return Ok(()) };
        let sorted = self.sites.get(..count).unwrap_or_default();
        let place = |number: usize| {
            let length = self.pad_length(number);
            let start = offset.checked_sub(u32::try_from(length).ok()?)?;
            self.has_pad(sorted, offset, length).then(|| Site::new(false, start, Class::Pad, number))?
        };
        let Some(pad) = place(number).or_else(|| place(number | SHORT_SPACE)) else { return Ok(()) };
        if self.sites.len() == self.sites.capacity() {
            // Functions that are called often fill the room.
            self.sites.get_mut(count..).unwrap_or_default().sort_unstable_by(Site::cmp);
            self.sites.dedup();
            let enough = ((self.sites.len() - count) / 8).max(64);
            if self.sites.capacity() - self.sites.len() < enough {
                self.sites.try_reserve_exact(2 * enough).map_err(|_| OutOfMemory)?;
            }
        }
        self.sites.push(pad);
        Ok(())
    }
}

pub(super) fn forms(plan: &Plan<'_>, spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Call);
    let Some(branch) = branch::decode(spot.original, spot.va) else { return forms };
    let original = spot.original.get(..branch.length).unwrap_or_default();
    let mut forms = forms.with(KEPT, original);
    for option in plan.counting_options() {
        let mut code = [0; 6];
        let Some(code) = code.get_mut(..branch.length) else { continue };
        code.copy_from_slice(original);
        plan.count_call(*option, spot.va, code);
        forms.push(*option, code);
    }
    forms
}

/// The space before a function of the module that a listed call counts for.
pub(super) fn pad_forms(plan: &Plan<'_>, spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Call);
    let number = spot.site.index();
    let length = plan.pad_length(number);
    let (Some(original), Some(hot)) = (spot.original.get(..length), plan.pcpu_hot) else { return forms };
    let surely = number & MAY_BE_REPLACED == 0;
    let mut forms = forms.with(if surely { KEPT } else { u8::MAX }, original);
    for option in plan.counting_options() {
        let Some(template) = Template::new(*option, hot, spot.va.wrapping_add(length as u64)) else { continue };
        let mut bytes = [NOPS[1][0]; LONG];
        // For the longer one there may be no room: then the NOPs stay.
        if let Some(into) = length.checked_sub(template.length).and_then(|start| bytes.get_mut(start..length)) {
            into.copy_from_slice(template.as_slice());
        }
        forms.push(*option, bytes.get(..length).unwrap_or_default());
    }
    forms
}
