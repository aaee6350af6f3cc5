//! The made-up modules as VTL0 hands them over, whole or spoilt, and what must hold of those that VTL1 has accepted.

use std::collections::BTreeMap;

use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_integrity::module::Kind;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::hv::Access;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kdata::Site;
use vsm_sim::vtl0::modules::{Frames, Label, Module, Placed};
use vsm_sim::vtl0::patcher::{Form, poke};

use crate::fixtures::MADE_UP;
use crate::input::Input;
use crate::machine::{BUFFERS, RAM, VTL1};
use crate::pages;

/// Frames where modules are placed, and how many each one takes.
const START: u64 = 0x100;
const FRAMES: u64 = 0x20;
/// The frame with the request of a patch.
const REQUEST: u64 = BUFFERS + 0xd;

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
    /// Puts a module into frames, spoils it or its list, and writes the list; the two registers that name it.
    pub fn place(&mut self, input: &mut Input<'_>, machine: &HostedMachine) -> [u64; 2] {
        let (which, order, offset, how) = (usize::from(input.byte() & 1), input.byte(), input.byte(), input.byte());
        let (number, at) = (usize::from(input.byte()), usize::try_from(input.short()).unwrap_or_default());
        let list = BUFFERS << 12;
        let start = START + FRAMES * (which as u64 + u64::from(order & 2));
        let free = |gfn: u64| machine.vtl0_may(0, gfn << 12, Access::Write).is_ok();
        if !(start..start + FRAMES).all(free) || !(BUFFERS..BUFFERS + 2).all(free) {
            return [list, 1];
        }
        let mut frames = if order & 1 == 0 {
            Frames::consecutive(start << 12, (start + FRAMES) << 12)
        } else {
            Frames::scattered(start << 12, (start + FRAMES) << 12, u64::from(order))
        };
        let mut module = MADE_UP[which].clone();
        let count = module.parts.len();
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
        let Ok(placed) = module.place(machine.memory(), &mut frames, u64::from(offset) * 16) else { return [list, 1] };
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
        self.placed[which] = placed;
        pages::write_list(machine, list, &ranges);
        [list, ranges.len() as u64]
    }

    /// Writes the request for a step of the patch of a label.
    pub fn request_patch(&self, input: &mut Input<'_>, machine: &HostedMachine) {
        let which = usize::from(input.byte() & 1);
        let labels = &MADE_UP[which].labels;
        let label = &labels[usize::from(input.byte()) % labels.len()];
        let form = if input.byte() & 1 == 0 { Form::Jump } else { Form::Nop };
        let step = usize::from(input.byte());
        let Some(site) = site(&self.placed[which], label) else { return };
        let mut request = poke(&site, form)[step % 3].to_bytes();
        if step & 0x80 != 0 {
            request[step & 0xf] ^= 1;
        }
        let _ = machine.vtl0_write(0, REQUEST << 12, &request);
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
            let text = module.parts.iter().find(|part| part.kind == Kind::Text).expect("its text");
            let of_text = |which: &usize| MADE_UP[*which].parts.iter().any(|part| part.va == text.va);
            let which = (0..2).find(of_text).expect("a module that is signed");
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
            assert!(!live.initialised || module.parts.iter().all(|part| !part.kind.is_init()));
            for part in module.parts.iter().filter(|part| part.kind.is_explained()) {
                // VTL0 may have put it elsewhere, if nothing refers to it.
                check_part(live.which, part.kind, machine, |offset| part.physical(part.va + offset));
            }
        }
    }
}

/// Every byte of the part is as the signed file and the kernel have it, but for its jump labels; VTL0 cannot write it.
fn check_part(which: usize, kind: Kind, machine: &HostedMachine, physical: impl Fn(u64) -> Option<u64>) {
    let module = &MADE_UP[which];
    let honest = module.parts.iter().find(|part| part.kind == kind).expect("a part of the module");
    for (va, expected) in (honest.va..).step_by(4096).zip(honest.bytes.chunks(4096)) {
        let page = physical(va - honest.va).expect("a page of the part");
        assert!(page >> 12 < RAM && !VTL1.contains(&(page >> 12)));
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
    // What may become of those is `patch_text`'s to say.
    in_label || module.calls.iter().any(|call| (call.va..call.va + call.compiled.len() as u64).contains(&va))
}

fn site(placed: &Placed, label: &Label) -> Option<Site> {
    let pa = placed.physical(label.va)?;
    let last = label.va + label.jump.len() as u64 - 1;
    let next_page = if last >> 12 == label.va >> 12 { 0 } else { placed.physical(last >> 12 << 12)? };
    let mut jump = [0; 5];
    jump[..label.jump.len()].copy_from_slice(&label.jump);
    Some(Site { pa, next_page, jump, size: u8::try_from(label.jump.len()).ok()? })
}
