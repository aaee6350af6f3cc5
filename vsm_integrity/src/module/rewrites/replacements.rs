//! The replacement of an alternative at its site: a copy of code that lies elsewhere, with branches and operands that are
//! relative to where they are moved along (arch/x86/kernel/alternative.c).
//!
//! What is copied is memory's, which is explained where it lies; trusts that it does not change.

use super::branch::{self, CALL, INT3, JUMP};
use super::entries::{Buffer, Entry, Group};
use super::locks::{DS, LOCK};
use super::nops::NOPS;
use crate::module::kind::Kind;
use crate::module::memory::ModuleMemory;
use crate::module::plan::Plan;
use crate::module::sites::{Class, Site};
use crate::module::x86::Instruction;

/// Writes an entry's replacement to its site; `None` when there is none that could be there.
pub(super) fn replace(
    plan: &Plan<'_>,
    memory: &ModuleMemory<'_>,
    entry: &Entry,
    group: &Group<'_>,
    site: &mut [u8],
    whole: bool,
) -> Option<()> {
    let used = usize::from(entry.replacement_length);
    let mut buffer: Buffer = [0x90; 256];
    let into = buffer.get_mut(..used)?;
    if used != 0 {
        let (kind, offset) = plan.layout.find(entry.replacement)?;
        if !kind.is_text() {
            return None;
        }
        into.copy_from_slice(memory.slice(kind, usize::try_from(offset).ok()?, used)?);
        undo_later(plan, kind, offset, into)?;
    }
    if entry.direct_call {
        direct_call(plan, group, into)?;
    } else if whole {
        relocate(into, group.va, entry.replacement);
    } else {
        relocate_first(into, group.va, entry.replacement);
    }
    // The rest is NOPs, which are merged afterwards.
    site.copy_from_slice(buffer.get(..site.len())?);
    Some(())
}

/// Makes the bytes of a replacement, which lie at `offset` of that kind, what they were when alternatives were applied: before
/// calls were counted and LOCK prefixes taken out.
fn undo_later(plan: &Plan<'_>, kind: Kind, offset: u32, code: &mut [u8]) -> Option<()> {
    let first = plan.sites.partition_point(|site| *site < Site::at(kind, offset));
    let end = offset.checked_add(u32::try_from(code.len()).ok()?)?;
    let sites = plan.sites.get(first..)?.iter();
    for site in sites.take_while(|site| site.kind() == kind && site.offset() < end) {
        let rest = code.get_mut(usize::try_from(site.offset() - offset).ok()?..)?;
        match site.class() {
            Class::Call => {
                let (branch, compiled) = plan.branch_at(*site)?;
                rest.get_mut(..branch.length)?.copy_from_slice(compiled.get(..branch.length)?);
            }
            Class::Lock => {
                if let Some(byte) = rest.first_mut().filter(|byte| **byte == DS) {
                    *byte = LOCK;
                }
            }
            _ => {}
        }
    }
    Some(())
}

/// Up to 6.4: only a call or a jump of five bytes that is all there is (`recompute_jump`).
fn relocate_first(code: &mut [u8], va: u64, from: u64) {
    let Some(five) = code.first_chunk_mut::<5>() else { return };
    let only = five[0];
    let Some(branch) = branch::decode(five, from).filter(|_| code.len() == 5) else { return };
    let Some(five) = code.first_chunk_mut::<5>() else { return };
    let distance = branch.target.wrapping_sub(va.wrapping_add(2)).cast_signed();
    let forward = branch.target.wrapping_sub(va).cast_signed() >= 0;
    match i8::try_from(distance) {
        Ok(short) if only == JUMP && forward => {
            five[..2].copy_from_slice(&[0xeb, short.cast_unsigned()]);
            five[2..].copy_from_slice(NOPS[3]);
        }
        _ => {
            if let Some(moved) = branch::encode(only, va, branch.target) {
                *five = moved;
            }
        }
    }
}

/// From 6.5 on: every relative branch that leaves the replacement, and every operand relative to the next instruction
/// (`apply_relocation`).
fn relocate(code: &mut [u8], va: u64, from: u64) {
    let moved = from.wrapping_sub(va);
    let length = code.len();
    let mut at = 0;
    while let Some(instruction) = code.get(at..).and_then(Instruction::decode) {
        let next = at + instruction.length;
        let leaves = |distance: i64| {
            let target = i64::try_from(next).unwrap_or_default().saturating_add(distance);
            target < 0 || target > i64::try_from(length).unwrap_or_default()
        };
        let branches = matches!(instruction.opcode, [0x70..=0x7f | 0xeb | JUMP | CALL, _] | [0x0f, 0x80..=0x8f]);
        if branches && let Some(distance) = shift(code, at, instruction.immediate, moved, leaves) {
            let short = distance.wrapping_add_unsigned(moved).wrapping_add(3);
            if instruction.opcode[0] == JUMP
                && let Ok(short) = i8::try_from(short)
                && let Some([opcode, to, rest @ ..]) = code.get_mut(at..next)
            {
                (*opcode, *to) = (0xeb, short.cast_unsigned());
                rest.fill(INT3);
            }
        }
        if instruction.rip_displacement != 0 {
            let _ = shift(code, at, (instruction.rip_displacement, 4), moved, leaves);
        }
        at = next;
    }
}

/// Adds `moved` to the displacement in the field of the instruction at `at` when it `leaves`; returns what it was.
fn shift(
    code: &mut [u8],
    at: usize,
    (start, width): (usize, usize),
    moved: u64,
    leaves: impl Fn(i64) -> bool,
) -> Option<i64> {
    let field = code.get_mut(at + start..at + start + width)?;
    let distance = match *field {
        [byte] => i64::from(byte.cast_signed()),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        _ => return None,
    };
    if leaves(distance) {
        let bytes = distance.wrapping_add_unsigned(moved).to_le_bytes();
        field.copy_from_slice(bytes.get(..width)?);
    }
    Some(distance)
}

/// A call through `pv_ops` that becomes a direct one, or nothing (`alt_replace_call`, 6.8 and later).
fn direct_call(plan: &Plan<'_>, group: &Group<'_>, code: &mut [u8]) -> Option<()> {
    let Some(&[0xff, 0x15, a, b, c, d]) = group.original.first_chunk::<6>() else { return None };
    let displacement = i64::from(i32::from_le_bytes([a, b, c, d]));
    let slot = group.va.wrapping_add(6).wrapping_add_signed(displacement);
    let offset = slot.checked_sub(plan.pv_ops?)?;
    let operation = usize::try_from(offset / 8).ok().filter(|_| offset.is_multiple_of(8))?;
    let target = *plan.kernel.arch.pv_ops.get(operation)?;
    let code = code.first_chunk_mut::<5>()?;
    if target == plan.kernel.arch.pv_nop {
        code.fill(NOPS[1][0]);
    } else {
        *code = branch::encode(CALL, group.va, if target == 0 { plan.kernel.arch.pv_bug } else { target })?;
    }
    Some(())
}
