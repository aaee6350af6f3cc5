//! Target: a life of VTL0. Any call with any registers on any processor, memory rewritten between VTL1's reads, hypercalls
//! that fail; after each call the rules that hold whatever was called.

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::hv::{HvStatus, MapFlags};
use litebox_platform_lvbs::vsm::{CallRow, VSM_TABLE_LEN, VsmFunction};
use vsm_sim::hosted::{HostedMachine, RacePoint};
use vsm_sim::hv::{Access, GuestMemory, Injection};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kdata::{self, KernelData};
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::log_reader::LogReader;

use crate::calls;
use crate::fixtures::{AUTHORITY, KERNEL, KERNEL_SIGNER, OTHER, SIGNER};
use crate::input::Input;
use crate::kexec_image;
use crate::machine::{self, BUFFER_FRAMES, BUFFERS, DIRECT_MAP, Everything, RAM, Reads, VTL1};
use crate::modules::Modules;
use crate::pages;

/// Calls of one life.
const MAX_STEPS: usize = 24;
/// Ids from the first call on, some behind the last included.
const IDS: u64 = VSM_TABLE_LEN as u64 + 3;

/// # Panics
/// When a rule is broken.
pub fn run(data: &[u8]) {
    live(data, None, &mut |_, _| ());
}

/// A life as `data` have it, most of whose calls are `chosen`, if there is one; tells `told` each call's id and result.
pub(crate) fn live(data: &[u8], chosen: Option<&CallRow>, told: &mut dyn FnMut(u64, i64)) {
    let machine = machine::new();
    start_second_processor(&machine);
    let mut input = Input::new(data);
    let mut list = [0; 2];
    let mut ring = None;
    let mut modules = Modules::default();
    let mut before = Everything::of(&machine);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(13) {
            12 => {
                if let Some(image) = kexec_image::place(&mut input, &machine, false) {
                    list = [image.list, image.ranges];
                }
            }
            8 | 9 => list = modules.place(&mut input, &machine),
            10 => list = secondary_key(&mut input, &machine),
            11 => modules.request_patch(&mut input, &machine),
            6 | 7 => list = kernel_data(&mut input, &machine),
            0 => list = pages::write_chain(&mut input, &machine, 0, pages::memory_range),
            1 => list = pages::write_chain(&mut input, &machine, 0, kdata_range),
            2 => write(&mut input, &machine),
            kind => {
                if kind == 3 {
                    inject(&mut input, &machine);
                }
                if kind == 4 {
                    race(&mut input, &machine);
                }
                let vp = u32::from(input.byte() & 1);
                let [id, a1, a2, a3] = match chosen {
                    Some(row) if input.below(4) != 0 => calls::registers(&mut input, row, list),
                    _ => registers(&mut input, list),
                };
                let reads = (kind != 4).then(|| Reads::watch(&machine));
                let lines = machine.log_lines().len();
                let result = machine.vtl_call(vp, id, a1, a2, a3);
                machine.partition().clear_injections();
                machine.ring().set_failing(false);
                machine.memory().set_race(None);
                let after = Everything::of(&machine);
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

/// The four registers of a call: a known id or any, and values that mean something or any.
fn registers(input: &mut Input<'_>, [first, count]: [u64; 2]) -> [u64; 4] {
    let id = match input.byte() {
        0xff => input.word(),
        byte => VsmFunction::EnableAPsVtl.id() + u64::from(byte) % IDS,
    };
    // Most calls that take something take a list in their first two registers.
    if input.byte() & 3 != 0 {
        return [id, first, count, 0];
    }
    [id, value(input), value(input), value(input)]
}

pub(crate) fn value(input: &mut Input<'_>) -> u64 {
    let kind = input.byte();
    let buffer = BUFFERS + u64::from(kind >> 4);
    match kind & 0xf {
        0 => 0,
        1 => u64::from(input.byte()),
        2 | 3 => buffer << 12,
        4 => buffer,
        5 => input.short(),
        6 => input.short() << 12,
        7 => VTL1.start << 12,
        8 => (VTL1.end << 12) - 1,
        9 => VTL1.start,
        10 => RAM << 12,
        11 => (RAM << 12) - 4096,
        12 => u64::MAX << (kind >> 4),
        13 => 1 << (kind >> 4) << (input.byte() & 0x3f),
        _ => input.word(),
    }
}

/// A range of bytes with one of LoadKData's kinds.
fn kdata_range(input: &mut Input<'_>) -> Range {
    if input.byte() == 0xff {
        return pages::memory_range(input);
    }
    let pa = (BUFFERS << 12) + input.short() * 16 % (BUFFER_FRAMES << 12);
    let epa = pa + 1 + input.short() % 0x3000;
    Range { va: DIRECT_MAP + pa, pa, epa, attributes: input.below(9) }
}

/// Writes bytes of the input into a buffer.
fn write(input: &mut Input<'_>, machine: &HostedMachine) {
    let at = (BUFFERS << 12) + input.short() * 16 % (BUFFER_FRAMES << 12);
    let len = usize::from(input.byte());
    let room = usize::try_from(4096 - at % 4096).unwrap_or_default();
    let bytes = input.bytes(len.min(room));
    // VTL0 is stopped where it may not write, as at the machine.
    let _ = machine.vtl0_write(0, at, bytes);
}

/// Makes one of the call's hypercalls fail, and sometimes the mapping of the ring.
fn inject(input: &mut Input<'_>, machine: &HostedMachine) {
    let how = input.byte();
    machine.ring().set_failing(how & 0x80 != 0);
    let status = match how % 3 {
        0 => HvStatus::INVALID_PARAMETER,
        1 => HvStatus::OPERATION_DENIED,
        _ => HvStatus::TIMEOUT,
    };
    let injection = Injection::new(input.below(16), status).at_element(u16::from(input.byte()));
    machine.partition().inject(injection);
}

/// Rewrites a word of a buffer at one of VTL1's reads, before or after it.
fn race(input: &mut Input<'_>, machine: &HostedMachine) {
    let (mut wait, word) = (input.below(16), input.word());
    let at = (BUFFERS << 12) + input.short() * 8 % (BUFFER_FRAMES << 12);
    let partition = machine.shared_partition();
    machine.memory().set_race(Some(Box::new(move |point, memory| {
        if matches!(point, RacePoint::BeforeRead { .. } | RacePoint::AfterRead { .. }) {
            if wait == 0 && partition.protection(at >> 12).contains(MapFlags::WRITE) {
                let _ = memory.write(at, &word.to_le_bytes());
            }
            wait = wait.wrapping_sub(1);
        }
    })));
}

/// Writes a small kernel's data and the list of them, and spoils some bytes of either.
fn kernel_data(input: &mut Input<'_>, machine: &HostedMachine) -> [u64; 2] {
    let (kernel, _) = KernelData::made_up(usize::from(input.byte() % 8), u64::from(input.byte()));
    let kernel = KernelData { certificates: [AUTHORITY, SIGNER, KERNEL_SIGNER].concat(), ..kernel };
    // The list lies in the first two frames.
    let scratch = BUFFERS << 12;
    let (start, end) = ((BUFFERS + 2) << 12, (BUFFERS + BUFFER_FRAMES) << 12);
    if (BUFFERS..BUFFERS + BUFFER_FRAMES).any(|gfn| machine.vtl0_may(0, gfn << 12, Access::Write).is_err()) {
        return [scratch, 1];
    }
    let written = if input.byte() & 1 == 0 {
        kernel.write(machine.memory(), kdata::consecutive(start, end))
    } else {
        kernel.write(machine.memory(), kdata::backwards(start, end))
    };
    let mut ranges = written.expect("a small kernel fits the buffers");
    for _ in 0..input.below(4) {
        let at = usize::from(input.byte()) % ranges.len();
        ranges.swap_remove(at);
        if ranges.is_empty() {
            return [scratch, 0];
        }
    }
    pages::write_list(machine, scratch, &ranges);
    for _ in 0..input.below(4) {
        write(input, machine);
    }
    [BUFFERS << 12, ranges.len() as u64]
}

/// Writes a certificate that the authority has signed, or one that is spoilt, and the list that names it.
fn secondary_key(input: &mut Input<'_>, machine: &HostedMachine) -> [u64; 2] {
    let (list, start) = (BUFFERS << 12, (BUFFERS + 1) << 12 | 0xf00);
    let mut der = if input.byte() & 1 == 0 { OTHER.to_vec() } else { SIGNER.to_vec() };
    if let Some(byte) = der.get_mut(usize::from(input.byte()) * 2) {
        *byte ^= input.byte();
    }
    let pa = start + u64::from(input.byte());
    for (at, byte) in (pa..).zip(&der) {
        let _ = machine.vtl0_write(0, at, &[*byte]);
    }
    let range = Range { va: DIRECT_MAP + pa, pa, epa: pa + der.len() as u64, attributes: input.below(16) / 15 };
    pages::write_list(machine, list, &[range]);
    [list, 1]
}

/// A whole boot; a boot with a failing hypercall; calls after it; lists sent to every call.
pub fn seeds() -> Vec<Vec<u8>> {
    let call = |vp: u8, id: u8| vec![5, vp, id, 1];
    let list = |kind: u8| {
        let range = [0, 0x80, 0, 0x1f, 3, 0, 0xa0, 0, 3, 1];
        [vec![kind, 0, 2, 0, 0], range.to_vec(), vec![0, 0]].concat()
    };
    // The first 64 frames, all buffers among them, whoever they belong to.
    let cover = |attributes: u8| [vec![0, 0, 1, 0, 0, 0, 0, 0, 63, attributes, 0, 0], call(0, 4)].concat();
    let boot = boot_of(&list(0), &call);
    let failing = [list(0), vec![3, 0, 0, 1], call(0, 4)[1..].to_vec()].concat();
    let raced = [list(0), [vec![4, 1], vec![0xff; 8], vec![0, 0]].concat(), call(0, 4)[1..].to_vec()].concat();
    let all = (0..0x11).flat_map(|id| call(0, id)).collect::<Vec<u8>>();
    // A ring of 4 KiB, of 64 KiB, and one whose mapping fails.
    let ring = |shift: u8| vec![5, 0, 12, 0, 0x22, 0xcd, shift, 0];
    let unmapped = [vec![3, 0x80, 15, 0], ring(0)[1..].to_vec()].concat();
    let kernel = |spoil: u8| [vec![6, 5, 1, 0, 0, spoil], call(0, 5)].concat();
    let symbols = u8::try_from(KERNEL.0).unwrap_or_default();
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
