//! NOPs: the ones Linux writes for each length, and how its versions merge runs of them (`add_nops`, `optimize_nops`,
//! arch/x86/kernel/alternative.c; `x86_nops`, arch/x86/include/asm/nops.h).

use crate::module::x86::Instruction;

/// The NOP of each length, 0 to 11 bytes.
pub const NOPS: [&[u8]; 12] = [
    &[],
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

/// How space is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// NOPs of at most 8 bytes, as many as are needed (up to 6.4).
    Eight,
    /// NOPs of at most 11 bytes, as many as are needed.
    Eleven,
    /// One NOP of at most 11 bytes, or a jump over INT3s (6.5 and later).
    Jump,
}

/// How runs of NOPs are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merging {
    /// Whether NOPs of more than one byte are seen as such.
    pub any: bool,
    /// What a run becomes.
    pub filling: Filling,
    /// Whether a jump that leads to the end of a run becomes part of it.
    pub jumps: bool,
}

/// How each version of Linux merges; a version's number is its place here.
pub const MERGINGS: [Merging; 4] = [
    // Up to 6.2.
    Merging { any: false, filling: Filling::Eight, jumps: false },
    // 6.3, 6.4, with and without the longer NOPs.
    Merging { any: false, filling: Filling::Eleven, jumps: false },
    // 6.5 and later.
    Merging { any: true, filling: Filling::Jump, jumps: true },
    // The same without a look at jumps.
    Merging { any: true, filling: Filling::Jump, jumps: false },
];

/// Fills all of `space`.
pub fn fill(space: &mut [u8], filling: Filling) {
    let most = if filling == Filling::Eight { 8 } else { 11 };
    if filling == Filling::Jump && space.len() > most {
        let length = space.len();
        space.fill(0xcc);
        if length < 128 {
            if let (Some([opcode, distance]), Ok(over)) = (space.first_chunk_mut(), u8::try_from(length - 2)) {
                (*opcode, *distance) = (0xeb, over);
            }
        } else if let (Some([opcode, distance @ ..]), Ok(over)) =
            (space.first_chunk_mut::<5>(), u32::try_from(length - 5))
        {
            *opcode = 0xe9;
            *distance = over.to_le_bytes();
        }
        return;
    }
    for chunk in space.chunks_mut(most) {
        let nop = NOPS.get(chunk.len()).copied().unwrap_or_default();
        if chunk.len() == nop.len() {
            chunk.copy_from_slice(nop);
        }
    }
}

/// Merges the runs of NOPs in `code`, which is whole instructions. Ends, as Linux does, at the first thing that is none.
pub fn merge(code: &mut [u8], merging: Merging) {
    let mut at = 0;
    let (mut jump, mut jump_target) = (0, None);
    while let Some(instruction) = code.get(at..).and_then(Instruction::decode) {
        let next = at + instruction.length;
        let single = instruction.length == 1 && instruction.opcode[0] == 0x90;
        if !(single || merging.any && instruction.is_nop()) {
            let target = matches!(instruction.opcode[0], 0xeb | 0xe9).then(|| branch_target(code, at, &instruction));
            (jump, jump_target) = (at, target.flatten());
            at = next;
            continue;
        }
        let end = run_end(code, next, merging.any);
        let start = if merging.jumps && jump_target == Some(end) { jump } else { at };
        // Up to 6.4 a single NOP is left; one of one byte would be written over itself anyhow.
        if let Some(run) = code.get_mut(start..end) {
            fill(run, merging.filling);
        }
        at = end;
    }
}

/// Where the run of NOPs that goes on at `at` ends.
fn run_end(code: &[u8], mut at: usize, any: bool) -> usize {
    while let Some(rest) = code.get(at..) {
        if rest.first() == Some(&0x90) {
            at += 1;
            continue;
        }
        match Instruction::decode(rest) {
            Some(instruction) if any && instruction.is_nop() => at += instruction.length,
            _ => break,
        }
    }
    at
}

/// Where the relative branch at `at` leads, if within or right after `code`.
fn branch_target(code: &[u8], at: usize, instruction: &Instruction) -> Option<usize> {
    let (start, width) = instruction.immediate;
    let field = code.get(at + start..at + start + width)?;
    let distance = match *field {
        [byte] => i64::from(byte.cast_signed()),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        _ => return None,
    };
    let target = i64::try_from(at + instruction.length).ok()?.checked_add(distance)?;
    usize::try_from(target).ok().filter(|target| *target <= code.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nops_are_single_instructions() {
        for (length, nop) in NOPS.iter().enumerate().skip(1) {
            let instruction = Instruction::decode(nop).unwrap();
            assert_eq!((nop.len(), instruction.length), (length, length));
            assert!(instruction.is_nop());
        }
    }

    #[test]
    fn versions_merge_differently() {
        let merged = |code: &[u8], number: usize| {
            let mut code = code.to_vec();
            merge(&mut code, MERGINGS[number]);
            code
        };
        let nine = [0x90; 9];
        assert_eq!(merged(&nine, 0), [NOPS[8], NOPS[1]].concat());
        assert_eq!(merged(&nine, 1), NOPS[9]);
        assert_eq!(merged(&nine, 2), NOPS[9]);
        let long = [0x90; 13];
        let mut jump = vec![0xeb, 11];
        jump.resize(13, 0xcc);
        assert_eq!(merged(&long, 2), jump);
        // A NOP of several bytes is one only to newer versions.
        let mixed = [NOPS[3], NOPS[1], NOPS[1]].concat();
        assert_eq!(merged(&mixed, 0), [NOPS[3], NOPS[2]].concat());
        assert_eq!(merged(&mixed, 2), NOPS[5]);
        // A jump to the end of the NOPs after it.
        let skipped = [0xeb, 2, 0x90, 0x90];
        assert_eq!(merged(&skipped, 2), NOPS[4]);
        assert_eq!(merged(&skipped, 3), [0xeb, 2, 0x66, 0x90]);
        // What can't be decoded ends it.
        assert_eq!(merged(&[0x06, 0x90, 0x90], 0), [0x06, 0x90, 0x90]);
        let mut far = vec![0x90; 200];
        fill(&mut far, Filling::Jump);
        assert_eq!(far[..6], [0xe9, 195, 0, 0, 0, 0xcc]);
    }
}
