//! Static calls: branches to trampolines that the kernel may make direct ones, the trampolines themselves, and the functions
//! that a module adds to where such a branch may lead.
//!
//! Where they are is taken from the signed file. What an instruction may become is what Linux writes there
//! (`__static_call_transform`, arch/x86/kernel/static_call.c); whether a target is a function is the caller's to know.

use alloc::vec::Vec;

use super::error::{ModuleError, ShortBytes};
use super::habits::{Choice, Habits};
use super::kernel::SealedText;
use super::kind::Kind;
use super::layout::Place;
use super::plan::Plan;
use super::rewrites::branch::{self, CALL, CS, INT3, JUMP, RET};
use super::rewrites::returns;
use crate::elf::{self, RelocationType, Section, Symbol};
use crate::heap;

/// The most functions of a kind of text.
pub const MAX_FUNCTIONS: usize = 1 << 18;
/// The longest instruction: a conditional jump.
pub const MAX_SIZE: usize = 6;
/// The section with a module's trampolines, how their names start, and the bytes of UD1 by which Linux knows one
/// (include/linux/static_call_types.h; `tramp_ud`, arch/x86/kernel/static_call.c).
const TRAMPOLINES: &[u8] = b".static_call.text";
const TRAMPOLINE: &[u8] = b"__SCT__";
const MARK: [u8; 3] = [0x0f, 0xb9, 0xcc];
/// `STATIC_CALL_SITE_TAIL` (include/linux/static_call_types.h): the site is a jump.
const TAIL: u64 = 1;
/// The NOP of five bytes; `xor %eax, %eax` in five bytes, a call of what only returns 0; RET, filled (`x86_nops`, `xor5rax`,
/// `retinsn`).
const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
const ZERO: [u8; 5] = [CS, CS, CS, 0x31, 0xc0];
const RETURN: [u8; 5] = [RET, INT3, INT3, INT3, INT3];

/// The instruction that was compiled, which decides what it may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// CALL.
    Call,
    /// JMP: a tail call, or a trampoline.
    Jump,
    /// A jump under a condition, with its second byte: a tail call.
    Conditional(u8),
}

/// What may stand at a static call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// It goes to that address.
    Branch(u64),
    /// There is nothing to call.
    Nothing,
    /// What would be called returns 0 and does nothing else.
    Zero,
    /// A tail call of nothing.
    Return,
}

impl Shape {
    /// The shape of the instruction at the start of `code`.
    #[must_use]
    pub fn of_code(code: &[u8]) -> Option<Self> {
        match *code {
            [CALL, ..] => Some(Self::Call),
            [JUMP, ..] => Some(Self::Jump),
            [0x0f, second @ 0x80..=0x8f, ..] => Some(Self::Conditional(second)),
            _ => None,
        }
    }

    /// Bytes of all its instructions.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Call | Self::Jump => 5,
            Self::Conditional(_) => MAX_SIZE,
        }
    }

    /// The first bytes that its instructions can have.
    #[must_use]
    pub const fn heads(self) -> &'static [u8] {
        match self {
            Self::Call => &[CALL, NOP[0], ZERO[0]],
            Self::Jump => &[JUMP, RET],
            Self::Conditional(_) => &[0x0f],
        }
    }

    /// What `code` does at `va`; `None` for bytes that cannot stand here, whatever is called.
    #[must_use]
    pub fn decode(self, code: &[u8], va: u64) -> Option<Instruction> {
        if code.len() != self.size() {
            return None;
        }
        match self {
            Self::Call if code == NOP => return Some(Instruction::Nothing),
            Self::Call if code == ZERO => return Some(Instruction::Zero),
            Self::Jump if code == RETURN => return Some(Instruction::Return),
            _ => {}
        }
        let target = branch::decode(code, va).filter(|_| Self::of_code(code) == Some(self))?.target;
        Some(Instruction::Branch(target))
    }
}

/// What the kernel writes for a tail call of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returns {
    /// A RET.
    pub plain: bool,
    /// A jump to the return thunk in use.
    pub thunk: bool,
}

impl Habits {
    /// How this kernel returns at `va`, as far as its modules have shown.
    #[must_use]
    pub fn returns(&self, va: u64) -> Returns {
        let (plain, thunk) = returns::written(self.options(Choice::Return), va);
        Returns { plain, thunk }
    }
}

/// A static call of a module, or one of its trampolines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticCall {
    /// Its address.
    pub va: u64,
    /// Where it is.
    pub kind: Kind,
    /// What it can become.
    pub shape: Shape,
    code: ShortBytes<MAX_SIZE>,
}

impl StaticCall {
    /// The instruction as the file has it, relocated.
    #[must_use]
    pub fn compiled(&self) -> &[u8] {
        self.code.as_slice()
    }

    /// Where the compiled instruction goes: to the trampoline that the signed relocation names.
    #[must_use]
    pub fn trampoline(&self) -> Option<u64> {
        branch::decode(self.compiled(), self.va).map(|branch| branch.target)
    }
}

/// Where a trampoline of a static call goes that lies in sealed text at `va`: what Linux has that call do now. `None` for
/// one that returns, and for what is no trampoline.
#[must_use]
pub fn trampoline_target(text: &dyn SealedText, va: u64) -> Option<u64> {
    let mut code = [0; 8];
    if !text.read(va, &mut code) {
        return None;
    }
    let (jump, mark) = code.split_at_checked(Shape::Jump.size())?;
    match Shape::Jump.decode(jump, va)? {
        Instruction::Branch(target) if mark == MARK => Some(target),
        _ => None,
    }
}

impl Plan<'_> {
    /// Calls `keep` with every static call, in the file's order, and then with every trampoline.
    ///
    /// # Errors
    /// When the table is damaged or names what is no branch, or what `keep` returns.
    pub fn static_calls<E: From<ModuleError>>(
        &self,
        mut keep: impl FnMut(StaticCall) -> Result<(), E>,
    ) -> Result<(), E> {
        const NAME: &[u8] = b".static_call_sites";
        let section = self.elf.find(NAME).filter(Section::is_loaded);
        if let Some(section) = section {
            let size = self.elf.bytes(&section).len();
            let relocations = self.relocations.of_section(&self.elf, section.index);
            let mut next = 0;
            for offset in (0..size).step_by(8) {
                let refused = |rule| E::from(ModuleError::section(NAME, offset, rule));
                let mut field =
                    |at: usize| self.place(&relocations, &mut next, (offset + at) as u64, RelocationType::Relative32);
                let va = field(0).map_err(refused)?;
                let key = field(4).map_err(refused)?;
                keep(self.static_call(va, key & TAIL != 0).map_err(refused)?)?;
            }
        }
        for index in 1..self.elf.symbol_count() {
            let symbol = self.elf.symbol(index).ok().filter(|symbol| symbol.is_function);
            if let Some(trampoline) = symbol.and_then(|symbol| self.trampoline(&symbol)) {
                keep(trampoline)?;
            }
        }
        Ok(())
    }

    fn static_call(&self, va: u64, tail: bool) -> Result<StaticCall, &'static str> {
        let place = self.layout.find(va).filter(|(kind, _)| kind.is_text());
        let (kind, offset) = place.ok_or("a static call must be in the module's code")?;
        let index = self.layout.section_at(kind, offset).ok_or("a static call must be in a section")?;
        let start = va.wrapping_sub(self.layout.address(index).unwrap_or(va));
        let (section, start) =
            self.elf.section(index).zip(usize::try_from(start).ok()).ok_or("a static call must be in a section")?;
        let code = self.elf.bytes(&section).get(start..).unwrap_or_default();
        let shape = Shape::of_code(code).filter(|shape| tail == (*shape != Shape::Call));
        let shape = shape.ok_or("a static call must be a call, or a jump where it is the last thing")?;
        let code = self.relocated(&section, start, shape)?;
        Ok(StaticCall { va, kind, shape, code })
    }

    /// The trampoline that the symbol is, if it is one: a jump, or a return, with Linux's mark behind it.
    fn trampoline(&self, symbol: &Symbol) -> Option<StaticCall> {
        let (section, kind, offset) = self.text_of(symbol)?;
        if section.name != TRAMPOLINES || !self.elf.symbol_name(symbol).ok()?.starts_with(TRAMPOLINE) {
            return None;
        }
        let start = usize::try_from(symbol.value).ok()?;
        let (code, mark) = self.elf.bytes(&section).get(start..)?.split_at_checked(Shape::Jump.size())?;
        if !mark.starts_with(&MARK) || !Shape::Jump.heads().contains(code.first()?) {
            return None;
        }
        let code = self.relocated(&section, start, Shape::Jump).ok()?;
        let va = self.layout.start(kind).checked_add(u64::from(offset))?;
        Some(StaticCall { va, kind, shape: Shape::Jump, code })
    }

    fn relocated(
        &self,
        section: &Section<'_>,
        start: usize,
        shape: Shape,
    ) -> Result<ShortBytes<MAX_SIZE>, &'static str> {
        let mut code = [0; MAX_SIZE];
        let code = code.get_mut(..shape.size()).unwrap_or_default();
        self.original(section, &self.relocations.of_section(&self.elf, section.index), start, code)?;
        Ok(ShortBytes::new(code))
    }

    /// The section of a symbol that is in text, which kind of text, and its offset there.
    fn text_of(&self, symbol: &Symbol) -> Option<(Section<'_>, Kind, u32)> {
        let elf::Place::Section(index) = symbol.place else { return None };
        let Place::Range(kind, start) = self.layout.place(index) else { return None };
        let section = self.elf.section(index).filter(|section| kind.is_text() && symbol.value < section.size)?;
        Some((section, kind, start.checked_add(u32::try_from(symbol.value).ok()?)?))
    }

    /// Offsets of all functions in a kind of text, ascending: the file's symbols that are functions, and what it exports.
    ///
    /// # Errors
    /// [`ModuleError::OutOfMemory`], or when the file's tables are damaged or there are more than [`MAX_FUNCTIONS`].
    pub fn functions(&self, kind: Kind) -> Result<Vec<u32>, ModuleError> {
        let mut count = 0usize;
        self.each_function(kind, |_| count = count.saturating_add(1))?;
        if count > MAX_FUNCTIONS {
            return Err(ModuleError::section(b"", 0, "a module must not have more than 262144 functions"));
        }
        let mut offsets = heap::with_room(count)?;
        self.each_function(kind, |offset| offsets.push(offset))?;
        offsets.sort_unstable_by(u32::cmp);
        offsets.dedup();
        Ok(offsets)
    }

    fn each_function(&self, kind: Kind, mut keep: impl FnMut(u32)) -> Result<(), ModuleError> {
        for index in 1..self.elf.symbol_count() {
            let symbol = self.elf.symbol(index).ok().filter(|symbol| symbol.is_function);
            match symbol.and_then(|symbol| self.text_of(&symbol)) {
                Some((_, found, offset)) if found == kind => keep(offset),
                _ => {}
            }
        }
        // Where per-CPU variables are does not matter here.
        self.exports(Some(0), |export| {
            if let Some((found, offset)) = self.layout.find(export.value)
                && found == kind
            {
                keep(offset);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VA: u64 = 0xffff_ffff_c000_1000;

    #[test]
    fn each_shape_has_its_own_instructions_and_no_others() {
        let near = |opcode, target| branch::encode(opcode, VA, target).unwrap().to_vec();
        let call = near(CALL, VA + 0x500);
        let jump = near(JUMP, VA - 0x500);
        let conditional = [0x0f, 0x84, 0xfa, 0xff, 0xff, 0xff].to_vec();
        let wide = [&[CS][..], &call].concat();
        let all = [call, jump, conditional.clone(), NOP.to_vec(), ZERO.to_vec(), RETURN.to_vec(), wide];
        for (shape, expected) in [
            (Shape::Call, [Some(Instruction::Branch(VA + 0x500)), None, None, Some(Instruction::Nothing)]),
            (Shape::Jump, [None, Some(Instruction::Branch(VA - 0x500)), None, None]),
            (Shape::Conditional(0x84), [None, None, Some(Instruction::Branch(VA)), None]),
            (Shape::Conditional(0x85), [None; 4]),
        ] {
            let zero = (shape == Shape::Call).then_some(Instruction::Zero);
            let back = (shape == Shape::Jump).then_some(Instruction::Return);
            let expected = expected.into_iter().chain([zero, back, None]);
            for (code, expected) in all.iter().zip(expected) {
                assert_eq!(shape.decode(code, VA), expected, "{shape:?}: {code:x?}");
                assert!(expected.is_none() || shape.heads().contains(&code[0]), "{shape:?}: {code:x?}");
                assert_eq!(shape.decode(&code[..4], VA), None);
            }
        }
        assert_eq!(Shape::of_code(&conditional), Some(Shape::Conditional(0x84)));
        assert_eq!((Shape::of_code(&NOP), Shape::of_code(&[]), Shape::of_code(&[0x0f])), (None, None, None));
    }

    #[test]
    fn a_trampoline_in_sealed_text_says_where_its_call_goes() {
        struct Text([u8; 8]);
        impl SealedText for Text {
            fn read(&self, va: u64, into: &mut [u8]) -> bool {
                let sealed = va == VA && into.len() == 8;
                if sealed {
                    into.copy_from_slice(&self.0);
                }
                sealed
            }
        }
        let jump = branch::encode(JUMP, VA, VA - 0x5000).unwrap();
        let text = |code: [u8; 5], mark: [u8; 3]| Text([&code[..], &mark].concat().try_into().unwrap());
        assert_eq!(trampoline_target(&text(jump, MARK), VA), Some(VA - 0x5000));
        assert_eq!(trampoline_target(&text(jump, MARK), VA + 8), None);
        assert_eq!(trampoline_target(&text(jump, [0x0f, 0xb9, 0xcd]), VA), None);
        assert_eq!(trampoline_target(&text(RETURN, MARK), VA), None);
        assert_eq!(trampoline_target(&text(branch::encode(CALL, VA, VA).unwrap(), MARK), VA), None);
    }

    #[test]
    fn returns_are_written_as_the_kernel_has_shown() {
        let mut habits = Habits::default();
        assert_eq!(habits.returns(VA), Returns { plain: true, thunk: true });
        // The thunk against ITS, bit 3 of the choice: by the half of the cache line.
        assert!(habits.narrow(Choice::Return, 8));
        assert_eq!(habits.returns(VA), Returns { plain: false, thunk: true });
        assert_eq!(habits.returns(VA + 0x20), Returns { plain: true, thunk: false });
        let mut habits = Habits::default();
        assert!(habits.narrow(Choice::Return, 2));
        assert_eq!(habits.returns(VA), Returns { plain: true, thunk: false });
    }
}
