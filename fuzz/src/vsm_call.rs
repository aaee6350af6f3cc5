//! Target: a life of VTL0. Any call with any registers on any processor, memory rewritten between VTL1's reads, hypercalls
//! that fail; after each call the rules that hold whatever was called.

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::vsm::{CallRow, VsmFunction};
use vsm_sim::hosted::HostedMachine;
use vsm_sim::hv::GuestMemory;
use vsm_sim::trials::stress::modules::{Modules, STALE};
use vsm_sim::trials::stress::{generators, kexec, lists};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::log_reader::LogReader;

use crate::input::Input;
use crate::machine::{self, BUFFERS, LAYOUT, Reads, Snapshot};

/// Calls of one life.
const MAX_STEPS: usize = 24;

/// # Panics
/// When a rule is broken.
pub fn run(data: &[u8]) {
    live(data, None, &mut |_, _| ());
}

/// A life as `data` have it, most of whose calls are `chosen`, if there is one; tells `told` each call's id and result.
pub(crate) fn live(data: &[u8], chosen: Option<&CallRow>, told: &mut dyn FnMut(u64, i64)) {
    let machine = machine::new();
    start_second_processor(&machine);
    let memory: &dyn GuestMemory = &machine::memory(&machine);
    let mut input = Input::new(data);
    let mut list = [0; 2];
    let mut ring = None;
    let mut modules = Modules::default();
    let mut before = Snapshot::of(&machine);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(13) {
            12 => {
                if let Some(image) = kexec::place(&mut input, memory, &LAYOUT, false) {
                    list = image.list;
                }
            }
            8 | 9 => list = modules.place(&mut input, memory, &LAYOUT),
            10 => list = generators::secondary_key(&mut input, memory, &LAYOUT),
            11 => modules.request_patch(&mut input, memory, &LAYOUT),
            6 | 7 => list = generators::kernel_data(&mut input, memory, &LAYOUT),
            0 => list = lists::write_chain(&mut input, memory, &LAYOUT, lists::memory_range),
            1 => list = lists::write_chain(&mut input, memory, &LAYOUT, lists::kdata_range),
            2 => generators::write(&mut input, memory, &LAYOUT),
            kind => {
                if kind == 3 {
                    inject(&mut input, &machine);
                }
                if kind == 4 {
                    generators::race(&mut input, &machine, &LAYOUT);
                }
                let vp = u32::from(input.byte() & 1);
                let [id, a1, a2, a3] = match chosen {
                    Some(row) if input.below(4) != 0 => generators::registers_of(&mut input, &LAYOUT, row, list),
                    _ => generators::registers(&mut input, &LAYOUT, list),
                };
                let reads = (kind != 4).then(|| Reads::watch(&machine));
                let lines = machine.log_lines().len();
                let result = machine.vtl_call(vp, id, a1, a2, a3);
                machine.partition().clear_injections();
                machine.ring().set_failing(false);
                machine.memory().set_race(None);
                let after = Snapshot::of(&machine);
                after.check(&before, result, &machine);
                modules.check(id, result, a1, &machine);
                told(id, result);
                if result >= 0 {
                    if id == VsmFunction::SignalEndOfBoot.id() && kind != 3 {
                        after.check_closed();
                    }
                    if let Some(reads) = reads {
                        reads.check_once();
                    }
                }
                if ring.is_none() {
                    ring = machine.ring().mapped().map(|frames| Ring::new(frames, lines));
                }
                if let Some(ring) = &mut ring {
                    ring.check(&machine);
                }
                before = after;
            }
        }
    }
}

/// VTL0 as a reader of VTL1's log.
struct Ring {
    start: u64,
    reader: LogReader,
    /// Lines of the console that the reader has been told, or has lost.
    told: usize,
}

impl Ring {
    /// A ring in `frames` whose first line is the console's line number `told`.
    fn new(frames: FrameRange, told: usize) -> Self {
        let size = usize::try_from(frames.count() << 12).unwrap_or_default();
        Self { start: frames.start() << 12, reader: LogReader::new(size), told }
    }

    /// The ring has the console's lines, all of them or the newest.
    fn check(&mut self, machine: &HostedMachine) {
        let start = self.start;
        let poll = self.reader.poll(&mut |offset, into| {
            bytes::read(machine.memory(), start + offset as u64, into).expect("the ring is RAM");
        });
        let console = machine.log_lines();
        self.told += usize::try_from(poll.lost).unwrap_or(usize::MAX);
        for line in poll.lines {
            let on_console = line.on_console();
            let words = on_console.strip_prefix("vtl1: ").unwrap_or(&on_console);
            assert_eq!(Some(words), console.get(self.told).map(String::as_str), "line {} of the ring", line.number);
            self.told += 1;
        }
        assert_eq!(self.told, console.len(), "lines that are on the console and not in the ring");
    }
}

/// EnableAPsVtl for both processors, and the second one's first entry.
pub(crate) fn start_second_processor(machine: &HostedMachine) {
    machine.memory().write(BUFFERS << 12, &[3]).expect("RAM");
    assert_eq!(machine.vtl_call(0, VsmFunction::EnableAPsVtl.id(), BUFFERS, 0, 0), 0, "EnableAPsVtl");
    machine.first_entry(1).expect("the second processor's first entry");
    machine.memory().write(BUFFERS << 12, &[0]).expect("RAM");
}

/// Makes one of the call's hypercalls fail, and sometimes the mapping of the ring.
fn inject(input: &mut Input<'_>, machine: &HostedMachine) {
    let (injection, ring_fails) = generators::failure(input);
    machine.ring().set_failing(ring_fails);
    machine.partition().inject(injection);
}

/// A whole boot; a boot with a failing hypercall; calls after it; lists sent to every call.
pub fn seeds() -> Vec<Vec<u8>> {
    let call = |vp: u8, id: u8| vec![5, vp, id, 1];
    let list = |kind: u8| {
        let range = [0, 0x80, 0, 0x1f, 3, 0, 0xa0, 0, 3, 1];
        [vec![kind, 0, 2, 0, 0], range.to_vec(), vec![0, 0]].concat()
    };
    // The first 64 frames, all buffers among them, of any owner.
    let cover = |attributes: u8| [vec![0, 0, 1, 0, 0, 0, 0, 0, 63, attributes, 0, 0], call(0, 4)].concat();
    let boot = boot_of(&list(0), &call);
    let failing = [list(0), vec![3, 0, 0, 1], call(0, 4)[1..].to_vec()].concat();
    let raced = [list(0), [vec![4, 1], vec![0xff; 8], vec![0, 0]].concat(), call(0, 4)[1..].to_vec()].concat();
    let all = (0..0x11).flat_map(|id| call(0, id)).collect::<Vec<u8>>();
    // A ring of 4 KiB, of 64 KiB, and one whose mapping fails.
    let ring = |shift: u8| vec![5, 0, 12, 0, 0x22, 0xcd, shift, 0];
    let unmapped = [vec![3, 0x80, 15, 0], ring(0)[1..].to_vec()].concat();
    let kernel = |spoil: u8| [vec![6, 5, 1, 0, 0, spoil], call(0, 5)].concat();
    let symbols = u8::try_from(crate::fixtures::KERNEL.0).unwrap_or_default();
    let sound_kernel = [vec![6, symbols, 1, 0, 0, 0], call(0, 5)].concat();
    // Which module, where, how it is spoilt; then ValidateModule. A call with a token.
    let module = |which: u8, spoil: u8| [vec![8, which, 0, 0, spoil, 9, 1, 40], call(0, 6)].concat();
    let token = |id: u8, token: u8| vec![5, 0, id, 0, 1, token, 0, 0];
    // Which module and label, to which form, which step; then PatchText.
    let patch = |step: u8| vec![11, 0, 0, 0, step, 5, 0, 11, 0, 0xd2, 0, 0];
    let key = |spoil: u8| [vec![10, 0, 1, spoil, 0, 0], call(1, 9)].concat();
    let two = [sound_kernel.clone(), module(0, 0), module(1, 0)].concat();
    let (free, unload) = (|number| token(7, number), |number| token(8, number));
    // The order of its frames, nothing spoilt; then KexecValidate, another in its place, and none.
    let image = |spoil: u8| [vec![12, 1, 0, spoil, 3, 9, 0], vec![0; 7 * usize::from(spoil)], call(0, 10)].concat();
    vec![
        [sound_kernel.clone(), image(0), image(0), vec![5, 0, 10, 0, 0, 0, 0], image(1)].concat(),
        [two.clone(), free(1), free(1), unload(1), unload(2), unload(1), module(0, 0)].concat(),
        [two.clone(), patch(0), patch(1), patch(2), unload(2)].concat(),
        [sound_kernel.clone(), module(0, 2), module(0, STALE), free(1), patch(0), module(1, STALE)].concat(),
        [sound_kernel.clone(), boot_of(&list(0), &call), key(0), key(1), two.clone()].concat(),
        [sound_kernel.clone(), module(1, 0), module(0, 1), module(0, 2), module(0, 3), module(0, 4)].concat(),
        [sound_kernel.clone(), vec![3, 0, 2, 1], module(0, 0), call(0, 6)[1..].to_vec()].concat(),
        [kernel(0), ring(0), boot.clone(), kernel(0)].concat(),
        [kernel(1), vec![0, 1, 3, 1, 2, 3], call(0, 5), all.clone()].concat(),
        [ring(4), boot.clone(), all.clone(), all.clone(), all.clone()].concat(),
        boot.clone(),
        [boot.clone(), all.clone()].concat(),
        [cover(7), cover(5), call(0, 3)].concat(),
        [ring(0), cover(3), boot.clone()].concat(),
        [kernel(0), ring(0), cover(7), call(0, 3)].concat(),
        [cover(1), kernel(0), ring(0), call(1, 3)].concat(),
        failing,
        [unmapped, ring(0)].concat(),
        raced,
        [list(1), all].concat(),
        [vec![2, 0, 0, 16], (0..16).collect(), vec![5, 0, 6, 0, 2, 3, 4]].concat(),
    ]
}

/// Registers locked on both processors, the list protected, and the end of boot.
fn boot_of(list: &[u8], call: &impl Fn(u8, u8) -> Vec<u8>) -> Vec<u8> {
    [list, &call(0, 2), &call(1, 2), &call(0, 4), &call(0, 3)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_seeds_reach_the_success_of_every_call_of_a_boot() {
        let mut succeeded = BTreeSet::new();
        for seed in seeds() {
            live(&seed, None, &mut |id, result| {
                if result >= 0 {
                    succeeded.insert(id);
                }
            });
        }
        for function in [
            VsmFunction::LockRegs,
            VsmFunction::SignalEndOfBoot,
            VsmFunction::ProtectMemory,
            VsmFunction::LoadKData,
            VsmFunction::AllocateRingbufferMemory,
            VsmFunction::ValidateModule,
            VsmFunction::FreeModuleInit,
            VsmFunction::UnloadModule,
            VsmFunction::CopySecondaryKey,
            VsmFunction::PatchText,
            VsmFunction::KexecValidate,
        ] {
            assert!(succeeded.contains(&function.id()), "{} never succeeds", function.name());
        }
    }
}
