//! The made-up modules as VTL0 hands them over, whole or spoilt, and what must hold of those that VTL1 has accepted.

use std::collections::BTreeMap;

use litebox_platform_lvbs::vsm::VsmFunction;
use litebox_platform_lvbs::vtl0::ModuleMemory;
use vsm_integrity::module::Kind;

use super::input::Input;
use super::layout::{Layout, MODULE_FRAMES};
use super::lists;
use crate::hosted::HostedMachine;
use crate::hv::{Access, GuestMemory};
use crate::vtl0::bytes;
use crate::vtl0::kdata::Site;
use crate::vtl0::modules::{Frames, Module, PATCHES, Placed};
use crate::vtl0::patcher::{Form, Patch, poke, poke_code};
use crate::vtl0::records::Records;
use crate::vtl0::signed::MADE_UP;

/// A module in frames, and the list that names it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Which of the made-up ones.
    pub which: usize,
    /// Where it is.
    pub placed: Placed,
    /// The two registers.
    pub list: [u64; 2],
}

/// How a module is placed where the other one and it itself were refused before, whose patch records are still there.
pub const STALE: u8 = 11;

/// Puts a module into frames, spoils it or its list, and writes the list; nothing where VTL0 may not write.
pub fn place(input: &mut Input<'_>, memory: &dyn GuestMemory, layout: &Layout) -> Option<Attempt> {
    let (which, order, offset, how) = (usize::from(input.byte() & 1), input.byte(), input.byte(), input.byte());
    let (number, at) = (usize::from(input.byte()), usize::try_from(input.short()).unwrap_or_default());
    let start = (layout.modules + MODULE_FRAMES * (which as u64 + u64::from(order & 2))) << 12;
    let end = start + (MODULE_FRAMES << 12);
    let mut frames =
        if order & 1 == 0 { Frames::consecutive(start, end) } else { Frames::scattered(start, end, u64::from(order)) };
    let mut module = MADE_UP[which].clone();
    let count = module.parts.len();
    let mut records = Records::default();
    // Where the `struct module` of all of them is.
    let home = layout.modules << 12;
    if how == STALE {
        for refused in [&MADE_UP[1 - which], &MADE_UP[which]] {
            records.place(refused, memory, &mut frames, (home, 0)).ok()?.free(&mut frames, |kind| kind != PATCHES);
        }
    }
    match how {
        1 => {
            let bytes = &mut module.parts[number % count].bytes;
            let at = at % bytes.len();
            bytes[at] ^= 1 << (number & 7);
        }
        2 => {
            let at = at % module.file.len();
            module.file[at] ^= 1 << (number & 7);
        }
        3 => module.labels[0].va += number as u64,
        _ => {}
    }
    // A label that is nowhere has no place.
    let placed = records.place(&module, memory, &mut frames, (home, u64::from(offset) * 16)).ok()?;
    let mut ranges = placed.ranges.clone();
    let chosen = number % ranges.len();
    match how {
        4 => drop(ranges.remove(chosen)),
        5 => ranges[chosen].attributes = at as u64 % 10,
        6 => ranges.push(ranges[chosen]),
        7 => ranges[chosen].epa -= 4096.min(ranges[chosen].epa - ranges[chosen].pa - 1),
        8 => ranges.reverse(),
        9 => ranges[chosen].va ^= 4096,
        10 => ranges[chosen].pa ^= 4096,
        _ => {}
    }
    let list = layout.buffers << 12;
    lists::write_list(memory, list, &ranges);
    Some(Attempt { which, placed, list: [list, ranges.len() as u64] })
}

/// The frame with the request of a patch.
fn request_frame(layout: &Layout) -> u64 {
    layout.buffers + 0xd
}

/// The three steps that make a label of a placed module a jump or a NOP, or a static call what Linux makes of it or what it was.
pub fn poke_of(input: &mut Input<'_>, placed: &[Placed; 2]) -> Option<[Patch; 3]> {
    let which = usize::from(input.byte() & 1);
    let (labels, calls) = (&MADE_UP[which].labels, &MADE_UP[which].calls);
    let index = usize::from(input.byte()) % (labels.len() + calls.len());
    let first_form = input.byte() & 1 == 0;
    if let Some(label) = labels.get(index) {
        let mut jump = [0; 5];
        jump.get_mut(..label.jump.len())?.copy_from_slice(&label.jump);
        let site = Site { jump, ..placed[which].place_of(label.va, label.jump.len()).ok()? };
        return Some(poke(&site, if first_form { Form::Jump } else { Form::Nop }));
    }
    let call = calls.get(index - labels.len())?;
    let site = placed[which].place_of(call.va, call.compiled.len()).ok()?;
    Some(poke_code(&site, if first_form { &call.direct } else { &call.compiled }))
}

/// Writes a request for PatchText, `how & 0x80` with a bit of it changed; its physical address.
pub fn write_request(patch: Patch, how: usize, memory: &dyn GuestMemory, layout: &Layout) -> u64 {
    let mut request = patch.to_bytes();
    if how & 0x80 != 0 {
        request[how & 0xf] ^= 1;
    }
    let at = request_frame(layout) << 12;
    let _ = memory.write(at, &request);
    at
}

/// A module that VTL1 has accepted.
#[derive(Clone, Copy, Debug)]
struct Live {
    which: usize,
    initialised: bool,
}

/// What VTL0 knows of its modules.
#[derive(Debug, Default)]
pub struct Modules {
    placed: [Placed; 2],
    live: BTreeMap<u64, Live>,
}

impl Modules {
    /// As [`place`], remembered; the two registers that name it.
    pub fn place(&mut self, input: &mut Input<'_>, memory: &dyn GuestMemory, layout: &Layout) -> [u64; 2] {
        let Some(attempt) = place(input, memory, layout) else { return [layout.buffers << 12, 1] };
        self.placed[attempt.which] = attempt.placed;
        attempt.list
    }

    /// Writes the request for a step of the patch of a label.
    pub fn request_patch(&self, input: &mut Input<'_>, memory: &dyn GuestMemory, layout: &Layout) {
        let steps = poke_of(input, &self.placed);
        let how = usize::from(input.byte());
        if let Some(steps) = steps {
            write_request(steps[how % 3], how, memory, layout);
        }
    }

    /// What must hold after the call `id` with this answer.
    ///
    /// # Panics
    /// When a rule is broken.
    pub fn check(&mut self, id: u64, result: i64, token: u64, machine: &HostedMachine) {
        let known = machine.platform().vtl0().modules().lock();
        if id == VsmFunction::ValidateModule.id() && result >= 0 {
            let new = u64::try_from(result).unwrap_or_default();
            assert!(new > 0 && !self.live.contains_key(&new), "{new} is no token for a new module");
            let module = known.iter().find(|module| u64::from(module.token.get()) == new).expect("an accepted module");
            let which = which_of(module);
            assert!(which == 0 || self.live.values().any(|other| other.which == 0), "it uses one that is not there");
            self.live.insert(new, Live { which, initialised: false });
        }
        if id == VsmFunction::FreeModuleInit.id() && result >= 0 {
            let module = self.live.get_mut(&token).expect("a module that is there");
            assert!(!module.initialised, "initialised twice");
            module.initialised = true;
        }
        if id == VsmFunction::UnloadModule.id() && result >= 0 {
            let gone = self.live.remove(&token).expect("a module that is there");
            let used = gone.which == 0
                && known.iter().any(|module| module.uses.iter().any(|used| u64::from(used.get()) == token));
            assert!(!used, "{gone:?} is in use");
        }
        let tokens: Vec<u64> = known.iter().map(|module| u64::from(module.token.get())).collect();
        assert!(tokens.len() == self.live.len() && tokens.iter().all(|token| self.live.contains_key(token)));
        for module in known.iter() {
            let live = self.live[&u64::from(module.token.get())];
            assert_eq!(module.initialised, live.initialised);
        }
        drop(known);
        check_all(machine);
    }
}

/// Which of the made-up modules the accepted one is.
fn which_of(module: &ModuleMemory) -> usize {
    let text = module.parts.iter().find(|part| part.kind == Kind::Text).expect("its text");
    let of_text = |which: &usize| MADE_UP[*which].parts.iter().any(|part| part.va == text.va);
    (0..2).find(of_text).expect("a module that is signed")
}

/// What must hold of every accepted module while no call is at work.
///
/// # Panics
/// When a rule is broken.
pub fn check_all(machine: &HostedMachine) {
    for module in machine.platform().vtl0().modules().lock().iter() {
        assert!(!module.initialised || module.parts.iter().all(|part| !part.kind.is_init()), "init parts stayed");
        let which = which_of(module);
        for part in module.parts.iter().filter(|part| part.kind.is_explained()) {
            // VTL0 may have put it elsewhere, if nothing refers to it.
            check_part(which, part.kind, machine, |offset| part.physical(part.va + offset));
        }
    }
}

/// Every byte of the part is as the signed file and the kernel have it, but for its jump labels; VTL0 cannot write it.
fn check_part(which: usize, kind: Kind, machine: &HostedMachine, physical: impl Fn(u64) -> Option<u64>) {
    let module = &MADE_UP[which];
    let honest = module.parts.iter().find(|part| part.kind == kind).expect("a part of the module");
    for (va, expected) in (honest.va..).step_by(4096).zip(honest.bytes.chunks(4096)) {
        let page = physical(va - honest.va).expect("a page of the part");
        assert!(machine.memory().is_ram(page >> 12) && !machine.vtl1_region().contains(&(page >> 12)));
        assert!(machine.vtl0_may(0, page, Access::Write).is_err(), "VTL0 may write {kind:?} of an accepted module");
        let executable = machine.vtl0_may(0, page, Access::Execute).is_ok();
        assert!(!executable || kind.is_text(), "{kind:?} of an accepted module is executable");
        let mut found = [0; 4096];
        bytes::read(machine.memory(), page, &mut found).expect("RAM");
        for (at, (found, expected)) in (va..).zip(found.iter().zip(expected)) {
            assert!(found == expected || is_patched(module, at, *found), "{found:#04x} at {at:#x} of {kind:?}");
        }
    }
}

/// Whether the byte at `va` is one that a patch of a jump label may have put there, or is one of a static call.
fn is_patched(module: &Module, va: u64, found: u8) -> bool {
    let in_label = module.labels.iter().any(|label| {
        let index = va.checked_sub(label.va).and_then(|index| usize::try_from(index).ok());
        let Some(jump) = index.and_then(|index| label.jump.get(index)) else { return false };
        found == *jump || index == Some(0) && found == 0xcc || [0x66, 0x90, 0x0f, 0x1f, 0x44, 0].contains(&found)
    });
    // What may become of those is for the fuzz target `patch_text` to say.
    in_label || module.calls.iter().any(|call| (call.va..call.va + call.compiled.len() as u64).contains(&va))
}
