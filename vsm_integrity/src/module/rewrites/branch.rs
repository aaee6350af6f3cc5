//! Relative branches of five bytes, or six with a prefix or a condition (Intel SDM vol. 2: CALL, JMP, Jcc).

use crate::module::layout::Place;
use crate::module::plan::Plan;
use crate::module::sites::Site;

/// CALL with a displacement of 32 bits.
pub const CALL: u8 = 0xe8;
/// JMP with a displacement of 32 bits.
pub const JUMP: u8 = 0xe9;
/// RET.
pub const RET: u8 = 0xc3;
/// INT3.
pub const INT3: u8 = 0xcc;
/// The CS prefix, with which compilers make a branch to a thunk six bytes long.
pub const CS: u8 = 0x2e;

/// What a branch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is a call.
    Call,
    /// It is a jump.
    Jump,
    /// It is a jump under that condition, 0 to 15.
    Conditional(u8),
}

/// A branch to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// What it does.
    pub action: Action,
    /// Bytes of it.
    pub length: usize,
    /// Where it goes.
    pub target: u64,
}

/// Bytes of the branch at the start of `code`.
pub fn length(code: &[u8]) -> Option<usize> {
    match *code {
        [CALL | JUMP, ..] => Some(5),
        [CS, CALL | JUMP, ..] | [0x0f, 0x80..=0x8f, ..] => Some(6),
        _ => None,
    }
}

/// The branch at the start of `code`, which is at `va`.
pub fn decode(code: &[u8], va: u64) -> Option<Branch> {
    let length = length(code)?;
    let action = match *code {
        [CALL, ..] | [CS, CALL, ..] => Action::Call,
        [0x0f, condition, ..] => Action::Conditional(condition & 15),
        _ => Action::Jump,
    };
    let displacement = code.get(..length)?.last_chunk().map(|bytes| i32::from_le_bytes(*bytes))?;
    let target = va.wrapping_add(length as u64).wrapping_add_signed(i64::from(displacement));
    Some(Branch { action, length, target })
}

/// A call or a jump of five bytes at `va` to `target`; `None` when that is too far away.
pub fn encode(opcode: u8, va: u64, target: u64) -> Option<[u8; 5]> {
    let distance = target.wrapping_sub(va.wrapping_add(5)).cast_signed();
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    Some([opcode, a, b, c, d])
}

impl Plan<'_> {
    /// The branch of a site as it was compiled, relocated, and its bytes.
    pub(super) fn branch_at(&self, site: Site) -> Option<(Branch, [u8; 6])> {
        let index = self.layout.section_at(site.kind(), site.offset())?;
        let Place::Range(_, start) = self.layout.place(index) else { return None };
        let section = self.elf.section(index)?;
        let at = usize::try_from(site.offset().checked_sub(start)?).ok()?;
        let mut code = [0; 6];
        let bytes = code.get_mut(..length(self.elf.bytes(&section).get(at..)?)?)?;
        self.original(&section, &self.relocations.of_section(&self.elf, index), at, bytes).ok()?;
        Some((decode(bytes, self.address(site))?, code))
    }
}
