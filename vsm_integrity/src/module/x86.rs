//! How long an x86-64 instruction is, and where its displacement and immediate are.
//!
//! Only what Linux asks its own decoder when it patches code: the boundaries between instructions, NOPs, and the targets
//! of relative branches. Written from the opcode maps of the Intel SDM vol. 2, appendix A. It trusts nothing; what it does
//! not know is no instruction.

/// The shape of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes of all of it.
    pub length: usize,
    /// Bytes of prefixes before the opcode.
    pub prefixes: usize,
    /// Whether one of the prefixes is 0xf3.
    pub repeated: bool,
    /// The opcode's first two bytes; the second is 0 for an opcode of one byte.
    pub opcode: [u8; 2],
    /// Offset of a displacement of 32 bits that is relative to the next instruction; 0 when there is none.
    pub rip_displacement: usize,
    /// Offset and bytes of the immediate; 0 bytes when there is none.
    pub immediate: (usize, usize),
}

/// The most bytes of an instruction (Intel SDM vol. 2 §2.3.11).
pub const MAX_LENGTH: usize = 15;

/// What follows an opcode.
#[derive(Clone, Copy)]
struct Tail {
    modrm: bool,
    immediate: usize,
}

impl Instruction {
    /// Decodes the instruction at the start of `code`; `None` when it is cut off or unknown.
    pub fn decode(code: &[u8]) -> Option<Self> {
        let code = code.get(..code.len().min(MAX_LENGTH))?;
        let (mut at, mut narrow, mut address32, mut wide, mut repeated) = (0, false, false, false, false);
        loop {
            match *code.get(at)? {
                0x66 => narrow = true,
                0x67 => address32 = true,
                0xf3 => repeated = true,
                0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 => {}
                _ => break,
            }
            at += 1;
        }
        if let Some(rex @ 0x40..=0x4f) = code.get(at).copied() {
            wide = rex & 8 != 0;
            at += 1;
        }
        let prefixes = at;
        // An immediate that follows the operand's size, but never has more than 32 bits.
        let full = if narrow && !wide { 2 } else { 4 };
        let first = *code.get(at)?;
        at += 1;
        let mut second = 0;
        let tail = match first {
            0x0f => {
                second = *code.get(at)?;
                at += 1;
                match second {
                    0x38 => {
                        at += 1;
                        Tail { modrm: true, immediate: 0 }
                    }
                    0x3a => {
                        at += 1;
                        Tail { modrm: true, immediate: 1 }
                    }
                    _ => two_byte(second)?,
                }
            }
            // VEX with two and three bytes, EVEX: their maps are those of 0f, 0f 38 and 0f 3a.
            0xc5 => vex(code, &mut at, 1, 1)?,
            0xc4 => {
                let map = *code.get(at)? & 0x1f;
                vex(code, &mut at, 2, map)?
            }
            0x62 => {
                let map = *code.get(at)? & 7;
                vex(code, &mut at, 3, map)?
            }
            _ => one_byte(first, *code.get(at).unwrap_or(&0), full, wide, address32)?,
        };
        let mut rip_displacement = 0;
        if tail.modrm {
            let displacement = modrm(code, &mut at)?;
            if displacement.1 {
                rip_displacement = displacement.0;
            }
        }
        let immediate = (at, tail.immediate);
        let length = at + tail.immediate;
        (length <= code.len()).then_some(Self {
            length,
            prefixes,
            repeated,
            opcode: [first, second],
            rip_displacement,
            immediate,
        })
    }

    /// Whether Linux takes it for a NOP of any length (`insn_is_nop`, 6.5 and later).
    pub const fn is_nop(&self) -> bool {
        (self.opcode[0] == 0x90 && !self.repeated) || (self.opcode[0] == 0x0f && self.opcode[1] == 0x1f)
    }
}

/// Skips the ModRM byte, what it calls for, and the displacement; returns where a displacement of 32 bits starts, and
/// whether it is relative to the next instruction.
fn modrm(code: &[u8], at: &mut usize) -> Option<(usize, bool)> {
    let modrm = *code.get(*at)?;
    *at += 1;
    let (mode, register) = (modrm >> 6, modrm & 7);
    let mut base = register;
    if mode != 3 && register == 4 {
        base = *code.get(*at)? & 7;
        *at += 1;
    }
    let start = *at;
    let relative = mode == 0 && register == 5;
    *at += match mode {
        0 if base == 5 => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    Some((start, relative))
}

/// The opcode after a VEX or EVEX prefix with `payload` bytes after its first.
fn vex(code: &[u8], at: &mut usize, payload: usize, map: u8) -> Option<Tail> {
    *at += payload;
    let opcode = *code.get(*at)?;
    *at += 1;
    match map {
        // 0f 77 is VZEROUPPER.
        1 if opcode == 0x77 => Some(Tail { modrm: false, immediate: 0 }),
        // Opcodes that have no meaning without the prefix may have one here.
        1 => Some(Tail { modrm: true, immediate: two_byte(opcode).map_or(0, |tail| tail.immediate) }),
        2 | 5 | 6 => Some(Tail { modrm: true, immediate: 0 }),
        3 => Some(Tail { modrm: true, immediate: 1 }),
        _ => None,
    }
}

/// Opcodes of one byte, 64-bit mode.
fn one_byte(opcode: u8, next: u8, full: usize, wide: bool, address32: bool) -> Option<Tail> {
    let plain = |immediate| Some(Tail { modrm: false, immediate });
    let modrm = |immediate| Some(Tail { modrm: true, immediate });
    match opcode {
        0x00..=0x3f => match opcode & 7 {
            0..=3 => modrm(0),
            4 => plain(1),
            5 => plain(full),
            // PUSH and POP of segments, BCD arithmetic: none in 64-bit mode.
            _ => None,
        },
        0x63 | 0x84..=0x8f | 0xd0..=0xd3 | 0xd8..=0xdf | 0xfe | 0xff => modrm(0),
        0x68 | 0xa9 => plain(full),
        0x69 | 0x81 | 0xc7 => modrm(full),
        0x6a | 0x70..=0x7f | 0xa8 | 0xb0..=0xb7 | 0xcd | 0xe0..=0xe7 | 0xeb => plain(1),
        0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => modrm(1),
        0x50..=0x5f
        | 0x6c..=0x6f
        | 0x90..=0x99
        | 0x9b..=0x9f
        | 0xa4..=0xa7
        | 0xaa..=0xaf
        | 0xc3
        | 0xc9
        | 0xcb
        | 0xcc
        | 0xcf
        | 0xd7
        | 0xec..=0xef
        | 0xf1
        | 0xf4
        | 0xf5
        | 0xf8..=0xfd => plain(0),
        0xa0..=0xa3 => plain(if address32 { 4 } else { 8 }),
        0xb8..=0xbf => plain(if wide { 8 } else { full }),
        0xc2 | 0xca => plain(2),
        0xc8 => plain(3),
        // Relative branches have 32 bits whatever the prefixes.
        0xe8 | 0xe9 => plain(4),
        // TEST with an immediate is in the group of those without.
        0xf6 => modrm(usize::from(next & 0x38 <= 8)),
        0xf7 => modrm(if next & 0x38 <= 8 { full } else { 0 }),
        _ => None,
    }
}

/// Opcodes after 0f.
fn two_byte(opcode: u8) -> Option<Tail> {
    let plain = |immediate| Some(Tail { modrm: false, immediate });
    let modrm = |immediate| Some(Tail { modrm: true, immediate });
    match opcode {
        0x05..=0x09 | 0x0b | 0x0e | 0x30..=0x37 | 0x77 | 0xa0..=0xa2 | 0xa8..=0xaa | 0xc8..=0xcf => plain(0),
        0x80..=0x8f => plain(4),
        0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => modrm(1),
        0x04 | 0x0a | 0x0c | 0x24..=0x27 | 0x38..=0x3f | 0x7a | 0x7b => None,
        _ => modrm(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_follow_the_opcode_maps() {
        let cases: [(&[u8], usize); 31] = [
            (&[0x90], 1),
            (&[0xf3, 0x90], 2),
            (&[0x31, 0xc0], 2),
            (&[0x48, 0x89, 0xe5], 3),
            (&[0x66, 0x05, 1, 2], 4),
            (&[0x05, 1, 2, 3, 4], 5),
            (&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], 10),
            (&[0xb8, 1, 2, 3, 4], 5),
            (&[0x66, 0xb8, 1, 2], 4),
            (&[0x48, 0xa1, 1, 2, 3, 4, 5, 6, 7, 8], 10),
            (&[0x67, 0xa1, 1, 2, 3, 4], 6),
            (&[0xf6, 0xc1, 1], 3),
            (&[0xf6, 0xd1], 2),
            (&[0xf7, 0x05, 1, 2, 3, 4, 5, 6, 7, 8], 10),
            (&[0xf7, 0x15, 1, 2, 3, 4], 6),
            (&[0x8b, 0x04, 0x25, 1, 2, 3, 4], 7),
            (&[0x8b, 0x44, 0x24, 8], 4),
            (&[0x8b, 0x84, 0x24, 1, 2, 3, 4], 7),
            (&[0x8b, 0x04, 0x24], 3),
            (&[0xe8, 1, 2, 3, 4], 5),
            (&[0x2e, 0xe9, 1, 2, 3, 4], 6),
            (&[0x0f, 0x84, 1, 2, 3, 4], 6),
            (&[0x0f, 0xba, 0xe0, 5], 4),
            (&[0x0f, 0x0b], 2),
            (&[0xf0, 0x0f, 0xb1, 0x0f], 4),
            (&[0x66, 0x0f, 0x38, 0xdc, 0xc1], 5),
            (&[0x66, 0x0f, 0x3a, 0x0f, 0xc1, 8], 6),
            (&[0xc5, 0xf8, 0x77], 3),
            (&[0xc4, 0xe3, 0x7d, 0x46, 0xc1, 1], 6),
            (&[0x62, 0xf1, 0xfd, 0x48, 0x6f, 0x07], 6),
            // VCVTTPS2UQQ, found by the other decoder.
            (&[0x62, 0xf1, 0x7d, 0x48, 0x7a, 0xc0], 6),
        ];
        for (code, length) in cases {
            assert_eq!(Instruction::decode(code).map(|found| found.length), Some(length), "{code:02x?}");
            // Cut off, it is none.
            assert_eq!(Instruction::decode(&code[..length - 1]), None, "{code:02x?}");
        }
    }

    #[test]
    fn relative_operands_are_found() {
        let load = Instruction::decode(&[0x48, 0x8b, 0x05, 1, 2, 3, 4]).unwrap();
        assert_eq!((load.rip_displacement, load.immediate.1), (3, 0));
        let store = Instruction::decode(&[0xc7, 0x05, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        assert_eq!((store.rip_displacement, store.immediate), (2, (6, 4)));
        let stack = Instruction::decode(&[0x8b, 0x04, 0x25, 1, 2, 3, 4]).unwrap();
        assert_eq!(stack.rip_displacement, 0);
        let jump = Instruction::decode(&[0x75, 4]).unwrap();
        assert_eq!((jump.opcode, jump.immediate), ([0x75, 0], (1, 1)));
    }

    /// Length of the instruction at the start of `code`, and where a displacement relative to the next one starts, as
    /// `iced-x86` has them.
    fn reference(code: &[u8]) -> Option<(usize, usize)> {
        use iced_x86::{Decoder, DecoderOptions, Register};
        let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NO_INVALID_CHECK);
        let found = decoder.decode();
        let relative = [Register::RIP, Register::EIP].contains(&found.memory_base());
        let displacement = if relative { decoder.get_constant_offsets(&found).displacement_offset() } else { 0 };
        (!found.is_invalid()).then_some((found.len(), displacement))
    }

    /// Checks that both decoders agree, but for three things, in which this one does as Linux': a REX prefix must be the
    /// last, moves of control and debug registers have a ModRM byte like any other, and AMD's XOP, EXTRQ and INSERTQ are
    /// unknown.
    fn compare(code: &[u8]) {
        let prefixes =
            code.iter().take_while(|byte| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3));
        let rest = &code[prefixes.count()..];
        let (rex, rest) =
            rest.iter().position(|byte| !(0x40..=0x4f).contains(byte)).map_or((0, rest), |at| (at, &rest[at..]));
        let odd = matches!(rest, [0x0f, 0x78, ..] | [0x8f, ..])
            || matches!(rest, [0x0f, 0x20..=0x23, modrm, ..] if *modrm < 0xc0);
        let prefix_after = matches!(rest, [0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3, ..]);
        if rex > 1 || rex == 1 && prefix_after || odd {
            return;
        }
        if let Some(other) = reference(code) {
            let own = Instruction::decode(code).map(|found| (found.length, found.rip_displacement));
            assert_eq!(own, Some(other), "{code:02x?}");
        }
    }

    #[test]
    fn another_decoder_finds_the_same_boundaries() {
        let tail = [0x05, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99];
        for prefix in [&[][..], &[0x66], &[0x48], &[0x66, 0x48], &[0xf3], &[0xf2, 0x41], &[0x67]] {
            for first in 0..=255u8 {
                for second in 0..=255u8 {
                    compare(&[prefix, &[first, second], &tail].concat());
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn another_decoder_agrees_on_any_bytes(
            start in prop::sample::select(vec![&[][..], &[0x0f, 0x38], &[0x0f, 0x3a], &[0xc4], &[0xc5], &[0x62], &[0x66, 0x0f]]),
            code in prop::collection::vec(any::<u8>(), 15),
        ) {
            compare(&[start, &code].concat()[..15]);
        }
    }

    #[test]
    fn what_is_no_instruction_is_none() {
        assert_eq!(Instruction::decode(&[]), None);
        assert_eq!(Instruction::decode(&[0x06]), None);
        assert_eq!(Instruction::decode(&[0x66; 20]), None);
        assert_eq!(Instruction::decode(&[0x0f, 0x0a, 0, 0, 0]), None);
    }
}
