//! Where the signed file lets the kernel patch code while the module runs: jump labels. Static calls are in
//! [`static_calls`](super::static_calls).
//!
//! VTL0 says again where its jump labels are (MOD_PATCH, LVBS contract §5.9); that list is compared with this one.

use super::error::ModuleError;
use super::kind::Kind;
use super::plan::Plan;
use super::relocate::Ordered;
use super::rewrites;
use super::symbols::Value;
use crate::elf::{RelocationType, Section};

/// A jump label (Linux `struct jump_entry`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JumpLabel {
    /// Address of the jump or NOP.
    pub va: u64,
    /// Where it is.
    pub kind: Kind,
    /// The jump; as many bytes of it as the site has.
    code: [u8; 5],
    length: u8,
    /// Address of the key that decides, without its lowest two bits.
    pub key: u64,
    /// The lowest two bits: whether the branch is likely, and whether the file has a NOP where a jump would be.
    pub key_bits: u8,
}

impl JumpLabel {
    /// The bytes of the jump, 2 or 5. The other form is the NOP of that size.
    pub fn jump(&self) -> &[u8] {
        self.code.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Plan<'_> {
    /// Calls `keep` with every jump label, in the file's order.
    ///
    /// # Errors
    /// When the table is damaged, or what `keep` returns.
    pub fn jump_labels<E: From<ModuleError>>(&self, mut keep: impl FnMut(JumpLabel) -> Result<(), E>) -> Result<(), E> {
        const NAME: &[u8] = b"__jump_table";
        let Some(section) = self.elf.find(NAME).filter(Section::is_loaded) else { return Ok(()) };
        let size = self.elf.bytes(&section).len();
        let relocations = self.relocations.of_section(&self.elf, section.index);
        let mut next = 0;
        for offset in (0..size).step_by(16) {
            let refused = |rule| E::from(ModuleError::section(NAME, offset, rule));
            let mut field = |at: usize, kind| self.place(&relocations, &mut next, (offset + at) as u64, kind);
            let code = field(0, RelocationType::Relative32).map_err(refused)?;
            let target = field(4, RelocationType::Relative32).map_err(refused)?;
            let key = field(8, RelocationType::Relative64).map_err(refused)?;
            let label = self.jump_label(code, target, key).map_err(refused)?;
            keep(label)?;
        }
        Ok(())
    }

    fn jump_label(&self, va: u64, target: u64, key: u64) -> Result<JumpLabel, &'static str> {
        let place = self.layout.find(va).filter(|(kind, _)| kind.is_text());
        let (kind, offset) = place.ok_or("a jump label must be in the module's code")?;
        let section = self.layout.section_at(kind, offset).and_then(|index| self.elf.section(index));
        let section = section.ok_or("a jump label must be in a section")?;
        let start = va.checked_sub(self.layout.address(section.index).unwrap_or(u64::MAX));
        let start = start.and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| self.elf.bytes(&section).get(start..)).unwrap_or_default();
        let length = rewrites::jump_label_length(bytes).ok_or("a jump label must be a jump or a NOP")?;
        let distance = target.wrapping_sub(va.wrapping_add(length as u64)).cast_signed();
        let mut code = [0; 5];
        if length == 2 {
            let short = i8::try_from(distance).map_err(|_| "a jump label's target is too far away")?;
            code[..2].copy_from_slice(&[0xeb, short.cast_unsigned()]);
        } else {
            let [a, b, c, d] =
                i32::try_from(distance).map_err(|_| "a jump label's target is too far away")?.to_le_bytes();
            code = [0xe9, a, b, c, d];
        }
        let target = self.layout.find(target).filter(|(kind, _)| kind.is_text());
        target.ok_or("a jump label must lead to the module's code")?;
        // Lossless: two bits; 2 or 5.
        let key_bits = u8::try_from(key & 3).unwrap_or_default();
        let length = u8::try_from(length).unwrap_or_default();
        Ok(JumpLabel { va, kind, code, length, key: key & !3, key_bits })
    }

    /// The address that the distance at `offset` of a section refers to.
    pub(super) fn place(
        &self,
        relocations: &Ordered<'_>,
        next: &mut usize,
        offset: u64,
        kind: RelocationType,
    ) -> Result<u64, &'static str> {
        while let Some(relocation) = relocations.get(*next).filter(|found| found.offset <= offset) {
            *next += 1;
            if relocation.offset != offset || relocation.is_none() {
                continue;
            }
            if relocation.known_type() != Some(kind) {
                return Err("a table's field has a relocation of another type");
            }
            return match self.value(&relocation)? {
                Value::Number(value) => Ok(value.wrapping_add(relocation.addend)),
                Value::PerCpu(_) => Err("a table must not refer to per-CPU variables"),
            };
        }
        Err("a table's field must be relocated")
    }
}
