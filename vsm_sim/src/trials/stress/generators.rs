//! What VTL0 sends: registers of calls, bytes in buffers, kernel data, keys, failures. Everything comes out of an input, random
//! or a fuzzer's, honest often enough to get somewhere.

use litebox_platform_lvbs::hv::{HvStatus, MapFlags};
use litebox_platform_lvbs::vsm::{CallRow, ParamMeta, VSM_TABLE_LEN, VsmFunction};

use super::input::Input;
use super::layout::{BUFFER_FRAMES, Layout};
use super::lists::write_list;
use crate::hosted::{HostedMachine, RacePoint};
use crate::hv::{GuestMemory, Injection};
use crate::vtl0::kdata::{self, KernelData};
use crate::vtl0::lists::{DIRECT_MAP, Range};
use crate::vtl0::signed::{AUTHORITY, KERNEL_SIGNER, OTHER, SIGNER};

/// Ids from the first call on, some behind the last included.
const IDS: u64 = VSM_TABLE_LEN as u64 + 3;

/// The four registers of a call: a known id or any, and values that mean something or any. `list` is the last list written.
pub fn registers(input: &mut Input<'_>, layout: &Layout, [first, count]: [u64; 2]) -> [u64; 4] {
    let id = match input.byte() {
        0xff => input.word(),
        byte => VsmFunction::EnableAPsVtl.id() + u64::from(byte) % IDS,
    };
    // Most calls that take something take a list in their first two registers.
    if input.byte() & 3 != 0 {
        return [id, first, count, 0];
    }
    [id, value(input, layout), value(input, layout), value(input, layout)]
}

/// A register's value.
pub fn value(input: &mut Input<'_>, layout: &Layout) -> u64 {
    let kind = input.byte();
    let buffer = layout.buffers + u64::from(kind >> 4);
    match kind & 0xf {
        0 => 0,
        1 => u64::from(input.byte()),
        2 | 3 => buffer << 12,
        4 => buffer,
        5 => layout.frame(input),
        6 => layout.frame(input) << 12,
        7 => layout.vtl1.start << 12,
        8 => (layout.vtl1.end << 12) - 1,
        9 => layout.vtl1.start,
        10 => layout.ram_end << 12,
        11 => (layout.ram_end << 12) - 4096,
        12 => u64::MAX << (kind >> 4),
        13 => 1 << (kind >> 4) << (input.byte() & 0x3f),
        _ => input.word(),
    }
}

/// The registers of a call of `row`, with parameters made from its types.
pub fn registers_of(input: &mut Input<'_>, layout: &Layout, row: &CallRow, list: [u64; 2]) -> [u64; 4] {
    let mut registers = [row.function.id(), 0, 0, 0];
    let mut at = 1;
    for param in row.meta.params {
        for (place, word) in parameter(input, layout, param, list).into_iter().take(param.registers).enumerate() {
            if let Some(register) = registers.get_mut(at + place) {
                *register = word;
            }
        }
        at += param.registers;
    }
    registers
}

/// A value that the parameter's type takes, most of the time.
fn parameter(input: &mut Input<'_>, layout: &Layout, param: &ParamMeta, list: [u64; 2]) -> [u64; 3] {
    let how = input.byte();
    let buffer = layout.buffers + u64::from(how & 7);
    let one = match how >> 4 {
        0 => value(input, layout),
        1 => 0,
        2 | 3 => value(input, layout) & param.bits,
        4 => u64::from(input.byte()) & param.bits,
        5 => param.bits,
        6 => param.bits.wrapping_add(1),
        // Something in memory, by address or by frame.
        _ if param.bits >> 52 == 0 && param.bits.trailing_zeros() >= 12 => buffer << 12,
        _ if param.bits == (1 << 52) - 1 => (buffer << 12) + input.short() % 4096,
        _ if matches!(param.bits, 0xff_ffff_ffff | u64::MAX) => buffer,
        _ => u64::from(how & 0xf) & param.bits,
    };
    if param.registers == 2 && how >> 4 > 3 { [list[0], list[1], 0] } else { [one, value(input, layout), 0] }
}

/// A place for bytes of the input among the buffers from frame `start` on, and the bytes.
fn some_bytes<'a>(input: &mut Input<'a>, start: u64, frames: u64) -> (u64, &'a [u8]) {
    let at = (start << 12) + input.short() * 16 % (frames << 12);
    let len = usize::from(input.byte());
    let room = usize::try_from(4096 - at % 4096).unwrap_or_default();
    (at, input.bytes(len.min(room)))
}

/// Writes bytes of the input into the processor's own buffers.
pub fn write(input: &mut Input<'_>, memory: &dyn GuestMemory, layout: &Layout) {
    let (at, bytes) = some_bytes(input, layout.buffers, BUFFER_FRAMES);
    // VTL0 is stopped where it may not write, as at the machine.
    let _ = memory.write(at, bytes);
}

/// Writes bytes of the input into any processor's buffers: VTL1 may be reading them.
pub fn write_anywhere(input: &mut Input<'_>, memory: &dyn GuestMemory, layout: &Layout) {
    let all = &layout.all_buffers;
    let (at, bytes) = some_bytes(input, all.start, all.end - all.start);
    let _ = memory.write(at, bytes);
}

/// A failure that waits for one of the next hypercalls, and whether the mapping of the ring fails.
pub fn failure(input: &mut Input<'_>) -> (Injection, bool) {
    let how = input.byte();
    let status = match how % 3 {
        0 => HvStatus::INVALID_PARAMETER,
        1 => HvStatus::OPERATION_DENIED,
        _ => HvStatus::TIMEOUT,
    };
    (Injection::new(input.below(16), status).at_element(u16::from(input.byte())), how & 0x80 != 0)
}

/// Lets a word of a buffer be rewritten at one of VTL1's reads, before or after it.
pub fn race(input: &mut Input<'_>, machine: &HostedMachine, layout: &Layout) {
    let (mut wait, word) = (input.below(16), input.word());
    let at = (layout.buffers << 12) + input.short() * 8 % (BUFFER_FRAMES << 12);
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

/// Writes a small kernel's data and the list of them, and spoils some bytes of either; the two registers.
pub fn kernel_data(input: &mut Input<'_>, memory: &dyn GuestMemory, layout: &Layout) -> [u64; 2] {
    let (kernel, _) = KernelData::made_up(usize::from(input.byte() % 8), u64::from(input.byte()));
    let kernel = KernelData { certificates: [AUTHORITY, SIGNER, KERNEL_SIGNER].concat(), ..kernel };
    // The list lies in the first two frames.
    let scratch = layout.buffers << 12;
    let (start, end) = ((layout.buffers + 2) << 12, (layout.buffers + BUFFER_FRAMES) << 12);
    let written = if input.byte() & 1 == 0 {
        kernel.write(memory, kdata::consecutive(start, end))
    } else {
        kernel.write(memory, kdata::backwards(start, end))
    };
    // A small kernel fits the buffers; but VTL0 may no longer be allowed to write there.
    let Ok(mut ranges) = written else { return [scratch, 1] };
    for _ in 0..input.below(4) {
        let at = usize::from(input.byte()) % ranges.len();
        ranges.swap_remove(at);
        if ranges.is_empty() {
            return [scratch, 0];
        }
    }
    write_list(memory, scratch, &ranges);
    for _ in 0..input.below(4) {
        write(input, memory, layout);
    }
    [scratch, ranges.len() as u64]
}

/// Writes a certificate that the authority has signed, or one that is spoilt, and the list that names it; the two registers.
pub fn secondary_key(input: &mut Input<'_>, memory: &dyn GuestMemory, layout: &Layout) -> [u64; 2] {
    let (list, start) = (layout.buffers << 12, (layout.buffers + 1) << 12 | 0xf00);
    let mut der = if input.byte() & 1 == 0 { OTHER.to_vec() } else { SIGNER.to_vec() };
    if let Some(byte) = der.get_mut(usize::from(input.byte()) * 2) {
        *byte ^= input.byte();
    }
    let pa = start + u64::from(input.byte());
    for (at, byte) in (pa..).zip(&der) {
        let _ = memory.write(at, &[*byte]);
    }
    let range = Range { va: DIRECT_MAP + pa, pa, epa: pa + der.len() as u64, attributes: input.below(16) / 15 };
    write_list(memory, list, &[range]);
    [list, 1]
}
