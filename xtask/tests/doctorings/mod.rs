//! Ways to break a good image, each by one rule. Every entry changes as little as it can.

use iced_x86::{FlowControl, Instruction, OpKind};
use xtask::verify::{Rule, TABLE_LEN};

use crate::elf::{DISPATCH, Elf, TABLE, eh, ph, rela, sh, sym};

const WRITABLE: u32 = 2;
const EXECUTABLE: u32 = 1;
const MIB: u64 = 1 << 20;

/// Changes the flags of the first PT_LOAD that has exactly `from`.
pub fn change_flags(elf: &mut Elf, from: u32, to: u32) {
    let at = elf.segment_with(from) + ph::FLAGS;
    elf.put32(at, to);
}

fn change_type(elf: &mut Elf, to: u32) {
    let at = elf.segment_with(6) + ph::TYPE;
    elf.put32(at, to);
}

/// Overwrites the first entry of the dynamic section.
fn dynamic_tag(elf: &mut Elf, tag: u64) {
    let at = elf.u64(elf.section(".dynamic") + sh::OFFSET);
    elf.put64(usize::try_from(at).unwrap(), tag);
}

/// Makes a direct branch of the dispatch function, other than a call, go to this address.
fn retarget_branch(elf: &mut Elf, target: u64) {
    let code = elf.dispatch_code();
    let branch: &Instruction = code
        .iter()
        .find(|instruction| {
            matches!(instruction.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
                && instruction.op0_kind() == OpKind::NearBranch64
        })
        .expect("the dispatch function checks the range with a branch");
    let distance = target.wrapping_sub(branch.next_ip()).cast_signed();
    let end = elf.offset(branch.ip()) + branch.len();
    if branch.len() == 2 {
        elf.put(end - 1, &i8::try_from(distance).unwrap().to_le_bytes());
    } else {
        elf.put(end - 4, &i32::try_from(distance).unwrap().to_le_bytes());
    }
}

/// A 32-bit displacement from the instruction that ends at `end` to `target`.
fn displacement(end: u64, target: u64) -> [u8; 4] {
    i32::try_from(target.wrapping_sub(end).cast_signed()).unwrap().to_le_bytes()
}

/// The rule that is broken, how, and what is done to the file.
pub type Doctoring = (Rule, &'static str, fn(&mut Elf));

/// What the loaders and W^X refuse.
pub const LOADER: &[Doctoring] = &[
    (Rule::ElfHeader, "32 bits", |elf| elf.0[eh::CLASS] = 1),
    (Rule::ElfHeader, "big endian", |elf| elf.0[eh::DATA] = 2),
    (Rule::ElfHeader, "AArch64", |elf| {
        elf.put16(eh::MACHINE, 183);
    }),
    (Rule::ElfHeader, "an object file", |elf| {
        elf.put16(eh::TYPE, 1);
    }),
    (Rule::ElfHeader, "cut off", |elf| elf.0.truncate(4096)),
    (Rule::FirstHeader, "PT_PHDR first", |elf| {
        let at = elf.segment(0);
        elf.put32(at + ph::TYPE, 6);
    }),
    (Rule::FirstHeader, "aligned to a page", |elf| {
        let at = elf.segment(0);
        elf.put64(at + ph::ALIGN, 4096);
    }),
    (Rule::LoadAlign, "a later segment aligned to a page", |elf| {
        let at = elf.segment_with(6);
        elf.put64(at + ph::ALIGN, 4096);
    }),
    (Rule::LoadAlign, "a segment one page higher", |elf| {
        let at = elf.segment_with(6);
        let address = elf.u64(at + ph::PADDR) + 4096;
        elf.put64(at + ph::PADDR, address);
        elf.put64(at + ph::VADDR, address);
    }),
    (Rule::VirtualIsPhysical, "p_paddr moved", |elf| {
        let at = elf.segment_with(6);
        let address = elf.u64(at + ph::PADDR) + 2 * MIB;
        elf.put64(at + ph::PADDR, address);
    }),
    (Rule::FitsWindow, "bss to 14 MiB and a byte", |elf| {
        let (first, last) = (elf.segment(0), elf.segment_with(6));
        let offset = elf.u64(last + ph::PADDR) - elf.u64(first + ph::PADDR);
        elf.put64(last + ph::MEMSZ, 14 * MIB + 1 - offset);
    }),
    (Rule::FitsWindow, "memory beyond 2^64", |elf| {
        let at = elf.segment_with(6);
        elf.put64(at + ph::MEMSZ, u64::MAX - 1);
    }),
    (Rule::FitsWindow, "overlapping segments", |elf| {
        let at = elf.segment(0);
        elf.put64(at + ph::MEMSZ, 3 * MIB);
    }),
    (Rule::FitsWindow, "more in the file than in memory", |elf| {
        let at = elf.segment(0);
        elf.put64(at + ph::MEMSZ, 16);
    }),
    (Rule::Entry, "in constants", |elf| {
        let at = elf.segment_with(4);
        let address = elf.u64(at + ph::VADDR);
        elf.put64(eh::ENTRY, address);
    }),
    (Rule::Entry, "nowhere", |elf| elf.put64(eh::ENTRY, 16)),
    (Rule::NoDynamicLinking, "PT_INTERP", |elf| {
        change_type(elf, 3);
    }),
    (Rule::NoDynamicLinking, "PT_TLS", |elf| change_type(elf, 7)),
    (Rule::NoDynamicLinking, "DT_NEEDED", |elf| {
        dynamic_tag(elf, 1);
    }),
    (Rule::NoDynamicLinking, "DT_RELR", |elf| {
        dynamic_tag(elf, 36);
    }),
    (Rule::NoDynamicLinking, "SHT_REL", |elf| {
        let at = elf.section(".rela.dyn");
        elf.put32(at + sh::TYPE, 9);
    }),
    (Rule::RelocationKinds, "R_X86_64_64", |elf| {
        let at = elf.table_relocation(3);
        elf.put32(at + rela::TYPE, 1);
    }),
    (Rule::RelocationTargets, "in code", |elf| {
        let address = elf.address(DISPATCH);
        let at = elf.table_relocation(3);
        elf.put64(at + rela::AT, address);
    }),
    (Rule::RelocationTargets, "outside", |elf| {
        let at = elf.table_relocation(3);
        elf.put64(at + rela::AT, 0x1000);
    }),
    (Rule::RelocationTargets, "to an address outside", |elf| {
        let at = elf.table_relocation(3);
        elf.put64(at + rela::ADDEND, 0xffff_8000_0000_0000);
    }),
    (Rule::SegmentWx, "code writable", |elf| {
        change_flags(elf, 5, 5 | WRITABLE);
    }),
    (Rule::SegmentWx, "data executable", |elf| {
        change_flags(elf, 6, 6 | EXECUTABLE);
    }),
    (Rule::SectionWx, ".text writable", |elf| {
        let at = elf.section(".text");
        elf.put64(at + sh::FLAGS, 7);
    }),
    (Rule::SectionWx, ".data executable", |elf| {
        let at = elf.section(".data");
        elf.put64(at + sh::FLAGS, 7);
    }),
    (Rule::SectionWx, "writable section in the code segment", |elf| {
        let at = elf.section(".text");
        elf.put64(at + sh::FLAGS, 3);
    }),
];

/// What the table must not be.
pub const JUMP_TABLE: &[Doctoring] = &[
    (Rule::TableSymbol, "no name", |elf| {
        let at = elf.symbol(TABLE);
        elf.put32(at + sym::NAME, 0);
    }),
    (Rule::TableSymbol, "an entry more", |elf| {
        let at = elf.symbol(TABLE);
        elf.put64(at + sym::SIZE, (TABLE_LEN + 1) * 8);
    }),
    (Rule::TableSymbol, "a function", |elf| {
        let at = elf.symbol(TABLE);
        elf.0[at + sym::INFO] = 0x12;
    }),
    (Rule::TableSection, "another section's name", |elf| {
        let name = elf.u32(elf.section(".data") + sh::NAME);
        let at = elf.section(".vsm_table");
        elf.put32(at + sh::NAME, name);
    }),
    (Rule::TableSection, "not at the start", |elf| {
        let at = elf.symbol(TABLE);
        let address = elf.u64(at + sym::VALUE) + 8;
        elf.put64(at + sym::VALUE, address);
    }),
    (Rule::TableSection, "not at a page", |elf| {
        let at = elf.section(".vsm_table");
        let address = elf.u64(at + sh::ADDR) - 64;
        elf.put64(at + sh::ADDR, address);
    }),
    (Rule::TableSection, "another symbol", |elf| {
        let index = u16::try_from(elf.section_index(".vsm_table")).unwrap();
        let at = elf.symbol(DISPATCH);
        elf.put16(at + sym::SHNDX, index);
    }),
    (Rule::TableSection, "more data behind the table", |elf| {
        let at = elf.offset(elf.address(TABLE) + TABLE_LEN * 8);
        elf.0[at] = 1;
    }),
    (Rule::TableSection, "a neighbour on the page", |elf| {
        let end = elf.u64(elf.section(".vsm_table") + sh::ADDR) + TABLE_LEN * 8;
        let at = elf.section(".data");
        elf.put64(at + sh::ADDR, end);
        elf.put64(at + sh::SIZE, 8);
    }),
    (Rule::TableReadOnly, "writable", |elf| {
        change_flags(elf, 4, 4 | WRITABLE);
    }),
    (Rule::TableReadOnly, "executable", |elf| {
        change_flags(elf, 4, 4 | EXECUTABLE);
    }),
    (Rule::TableRelocations, "one entry without", |elf| {
        let elsewhere = elf.u64(elf.segment_with(6) + ph::VADDR);
        let at = elf.table_relocation(16);
        elf.put64(at + rela::AT, elsewhere);
    }),
    (Rule::TableRelocations, "one entry twice", |elf| {
        let entry = elf.u64(elf.table_relocation(5) + rela::AT);
        let at = elf.other_relocation();
        elf.put64(at + rela::AT, entry);
    }),
    (Rule::TableRelocations, "one across two entries", |elf| {
        let entry = elf.u64(elf.table_relocation(5) + rela::AT);
        let at = elf.other_relocation();
        elf.put64(at + rela::AT, entry + 4);
    }),
    (Rule::TableRelocations, "one behind the last entry", |elf| {
        let entry = elf.u64(elf.table_relocation(16) + rela::AT);
        let at = elf.other_relocation();
        elf.put64(at + rela::AT, entry + 8);
    }),
    (Rule::TableEntries, "the second byte of a function", |elf| {
        let at = elf.table_relocation(0) + rela::ADDEND;
        let target = elf.u64(at);
        elf.put64(at, target + 1);
    }),
    (Rule::TableEntries, "data", |elf| {
        let target = elf.u64(elf.segment_with(6) + ph::VADDR);
        let at = elf.table_relocation(16) + rela::ADDEND;
        elf.put64(at, target);
    }),
];

/// What the dispatch function must not do.
pub const CODE: &[Doctoring] = &[
    (Rule::DispatchSymbol, "no name", |elf| {
        let at = elf.symbol(DISPATCH);
        elf.put32(at + sym::NAME, 0);
    }),
    (Rule::DispatchSymbol, "no size", |elf| {
        let at = elf.symbol(DISPATCH);
        elf.put64(at + sym::SIZE, 0);
    }),
    (Rule::DispatchSymbol, "no code", |elf| {
        let at = elf.offset(elf.address(DISPATCH));
        elf.0[at] = 0x06;
    }),
    (Rule::IndexClamped, "no cmp", |elf| {
        let [cmp, _, _] = elf.clamp();
        elf.replace(&cmp, &[]);
    }),
    (Rule::IndexClamped, "no sbb", |elf| {
        let [_, sbb, _] = elf.clamp();
        elf.replace(&sbb, &[]);
    }),
    (Rule::IndexClamped, "no and", |elf| {
        let [_, _, and] = elf.clamp();
        elf.replace(&and, &[]);
    }),
    (Rule::IndexClamped, "a length of one more", |elf| {
        let [cmp, _, _] = elf.clamp();
        assert_eq!(cmp.op1_kind(), OpKind::Immediate8to64);
        let at = elf.offset(cmp.ip()) + cmp.len() - 1;
        assert_eq!(u64::from(elf.0[at]), TABLE_LEN);
        elf.0[at] += 1;
    }),
    (Rule::IndexClamped, "a 32-bit comparison", |elf| {
        let [cmp, _, _] = elf.clamp();
        let at = elf.offset(cmp.ip());
        elf.0[at] &= !0x08; // REX.W
    }),
    (Rule::IndexClamped, "no branch through the table", |elf| {
        for instruction in elf.dispatch_code() {
            if matches!(instruction.flow_control(), FlowControl::IndirectCall | FlowControl::IndirectBranch) {
                elf.replace(&instruction, &[]);
            }
        }
    }),
    (Rule::IndexClamped, "a branch to behind the cmp", |elf| {
        let [_, sbb, _] = elf.clamp();
        retarget_branch(elf, sbb.ip());
    }),
    (Rule::IndexClamped, "a branch to behind the and", |elf| {
        let [_, _, and] = elf.clamp();
        retarget_branch(elf, and.next_ip());
    }),
    (Rule::NoOtherIndirect, "call rax", |elf| {
        let at = elf.offset(elf.address(DISPATCH));
        let code = elf.dispatch_code();
        let len = code
            .iter()
            .scan(0, |end, instruction| {
                *end += instruction.len();
                Some(*end)
            })
            .find(|end| *end >= 2)
            .unwrap();
        let mut bytes = vec![0x90; len];
        bytes[..2].copy_from_slice(&[0xff, 0xd0]);
        elf.put(at, &bytes);
    }),
    (Rule::OnlyDispatch, "a branch through the table elsewhere", |elf| {
        let function = elf.some_function(10);
        let mut bytes = vec![0x48, 0x8d, 0x05]; // lea rax, [rip + TABLE]
        bytes.extend(displacement(function + 7, elf.address(TABLE)));
        bytes.extend([0xff, 0x14, 0xc8]); // call [rax + rcx*8]
        let at = elf.offset(function);
        elf.put(at, &bytes);
    }),
    (Rule::OnlyDispatch, "a jump into the dispatch function", |elf| {
        let function = elf.some_function(5);
        let [_, _, and] = elf.clamp();
        let mut bytes = vec![0xe9];
        bytes.extend(displacement(function + 5, and.ip()));
        let at = elf.offset(function);
        elf.put(at, &bytes);
    }),
];
