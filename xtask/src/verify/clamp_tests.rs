//! Tests of the clamp check on code assembled for the purpose.

use super::*;
use iced_x86::{Decoder, DecoderOptions};

const CODE: u64 = 0x20_0000;
const TABLE: u64 = 0x40_0000;
/// A read-only pointer to the table, and one to a function.
const TABLE_POINTER: u64 = 0x30_0000;
const FUNCTION_POINTER: u64 = 0x30_0008;
const FUNCTION: u64 = 0x20_4000;

/// The table's length, as an immediate.
const LEN: u8 = TABLE_LEN.to_le_bytes()[0];

/// `lea rax, [rip + TABLE]` as the first instruction.
const LEA_TABLE: [u8; 7] = [0x48, 0x8d, 0x05, 0xf9, 0xff, 0x1f, 0x00];
const CMP_RCX_LEN: [u8; 4] = [0x48, 0x83, 0xf9, LEN];
const SBB_RDX: [u8; 3] = [0x48, 0x19, 0xd2];
const AND_RCX_RDX: [u8; 3] = [0x48, 0x21, 0xd1];
const CALL_ENTRY: [u8; 3] = [0xff, 0x14, 0xc8]; // call [rax + rcx*8]

fn target_of(parts: &[&[u8]]) -> Target {
    target_with_joins(parts, &[])
}

fn target_with_joins(parts: &[&[u8]], joins: &[u64]) -> Target {
    let bytes = parts.concat();
    let code: Vec<Instruction> = Decoder::with_ip(64, &bytes, CODE, DecoderOptions::NONE).into_iter().collect();
    assert!(code.iter().all(|instruction| !instruction.is_invalid()));
    let joins = joins.iter().map(|offset| CODE + offset).collect();
    let known = Known {
        table: Table { address: TABLE },
        pointers: BTreeMap::from([(TABLE_POINTER, TABLE), (FUNCTION_POINTER, FUNCTION)]),
    };
    let found = indirect_branches(&code, &joins, &known);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].target
}

#[test]
fn the_plain_form_is_clamped() {
    let target = target_of(&[&LEA_TABLE, &CMP_RCX_LEN, &SBB_RDX, &AND_RCX_RDX, &CALL_ENTRY]);
    assert_eq!(target, Target::ClampedEntry);
}

#[test]
fn a_length_in_a_register_a_loaded_entry_and_a_scaled_address_are_clamped() {
    let len_in_register: &[&[u8]] = &[
        &LEA_TABLE,
        &[0xbe, LEN, 0, 0, 0], // mov esi, LEN
        &[0x48, 0x39, 0xf1],   // cmp rcx, rsi
        &SBB_RDX,
        &AND_RCX_RDX,
        &[0x48, 0x8b, 0x0c, 0xc8], // mov rcx, [rax + rcx*8]
        &[0xff, 0xd1],             // call rcx
    ];
    assert_eq!(target_of(len_in_register), Target::ClampedEntry);
    let scaled: &[&[u8]] = &[
        &CMP_RCX_LEN,
        &SBB_RDX,
        &AND_RCX_RDX,
        &[0x48, 0xc1, 0xe1, 0x03],                   // shl rcx, 3
        &[0x48, 0x8d, 0x05, 0xeb, 0xff, 0x1f, 0x00], // lea rax, [rip + TABLE]
        &[0x48, 0x01, 0xc8],                         // add rax, rcx
        &[0xff, 0x20],                               // jmp [rax]
    ];
    assert_eq!(target_of(scaled), Target::ClampedEntry);
    let lea: &[&[u8]] = &[
        &LEA_TABLE,
        &CMP_RCX_LEN,
        &SBB_RDX,
        &AND_RCX_RDX,
        &[0x48, 0x8d, 0x04, 0xc8], // lea rax, [rax + rcx*8]
        &[0xff, 0x10],             // call [rax]
    ];
    assert_eq!(target_of(lea), Target::ClampedEntry);
    let copied: &[&[u8]] = &[
        &LEA_TABLE,
        &[0x48, 0x8d, 0x8f, 0x20, 0x00, 0xfe, 0xff], // lea rcx, [rdi - 0x1ffe0]
        &[0x48, 0x89, 0xcb],                         // mov rbx, rcx
        &[0x48, 0x83, 0xfb, LEN],                    // cmp rbx, LEN
        &SBB_RDX,
        &AND_RCX_RDX,
        &CALL_ENTRY,
    ];
    assert_eq!(target_of(copied), Target::ClampedEntry);
}

#[test]
fn the_table_may_be_reached_through_a_read_only_pointer() {
    let load_table = [0x48, 0x8b, 0x05, 0xf9, 0xff, 0x0f, 0x00]; // mov rax, [rip + TABLE_POINTER]
    let target = target_of(&[&load_table, &CMP_RCX_LEN, &SBB_RDX, &AND_RCX_RDX, &CALL_ENTRY]);
    assert_eq!(target, Target::ClampedEntry);
    assert_eq!(target_of(&[&load_table, &CALL_ENTRY]), Target::UnclampedEntry);
}

#[test]
fn a_branch_between_clamp_and_use_keeps_the_fall_through_path_and_drops_a_join() {
    let with_branch: &[&[u8]] = &[&LEA_TABLE, &CMP_RCX_LEN, &SBB_RDX, &AND_RCX_RDX, &[0x74, 0x7f], &CALL_ENTRY];
    assert_eq!(target_of(with_branch), Target::ClampedEntry);
    let parts: &[&[u8]] = &[&LEA_TABLE, &CMP_RCX_LEN, &SBB_RDX, &AND_RCX_RDX, &CALL_ENTRY];
    // A join before everything harms nothing. Any later one skips a part of the clamp, or the load of the base.
    assert_eq!(target_with_joins(parts, &[0]), Target::ClampedEntry);
    for join in [7, 11, 14, 17] {
        assert_eq!(target_with_joins(parts, &[join]), Target::Unknown, "join at +{join}");
    }
}

#[test]
fn each_missing_or_wrong_part_is_unclamped() {
    let wrong: [(&str, &[&[u8]]); 9] = [
        ("no clamp", &[&LEA_TABLE, &CALL_ENTRY]),
        ("no cmp", &[&LEA_TABLE, &SBB_RDX, &AND_RCX_RDX, &CALL_ENTRY]),
        ("no sbb", &[&LEA_TABLE, &CMP_RCX_LEN, &AND_RCX_RDX, &CALL_ENTRY]),
        ("no and", &[&LEA_TABLE, &CMP_RCX_LEN, &SBB_RDX, &CALL_ENTRY]),
        ("one entry more", &[&LEA_TABLE, &[0x48, 0x83, 0xf9, LEN + 1], &SBB_RDX, &AND_RCX_RDX, &CALL_ENTRY]),
        ("32-bit cmp", &[&LEA_TABLE, &[0x83, 0xf9, LEN], &SBB_RDX, &AND_RCX_RDX, &CALL_ENTRY]),
        ("another register compared", &[&LEA_TABLE, &[0x48, 0x83, 0xfb, LEN], &SBB_RDX, &AND_RCX_RDX, &CALL_ENTRY]),
        (
            "flags changed between",
            &[&LEA_TABLE, &CMP_RCX_LEN, &[0x48, 0x85, 0xf6], &SBB_RDX, &AND_RCX_RDX, &CALL_ENTRY],
        ),
        ("index changed after", &[&LEA_TABLE, &CMP_RCX_LEN, &SBB_RDX, &AND_RCX_RDX, &[0x48, 0xff, 0xc1], &CALL_ENTRY]),
    ];
    for (name, parts) in wrong {
        assert_eq!(target_of(parts), Target::UnclampedEntry, "{name}");
    }
}

#[test]
fn other_targets_are_told_apart() {
    // call [rip + FUNCTION_POINTER], and the same of memory that may change.
    assert_eq!(target_of(&[&[0xff, 0x15, 0x02, 0x00, 0x10, 0x00]]), Target::Fixed(FUNCTION));
    assert_eq!(target_of(&[&[0xff, 0x15, 0x12, 0x00, 0x10, 0x00]]), Target::Unknown);
    assert_eq!(target_of(&[&[0xff, 0xd0]]), Target::Unknown); // call rax
    assert_eq!(target_of(&[&[0xff, 0x50, 0x18]]), Target::Unknown); // call [rax + 24]
    // Nothing is known after a call.
    let after_call: &[&[u8]] = &[&LEA_TABLE, &CMP_RCX_LEN, &SBB_RDX, &AND_RCX_RDX, &[0xe8, 0, 0, 0, 0], &CALL_ENTRY];
    assert_eq!(target_of(after_call), Target::Unknown);
}
