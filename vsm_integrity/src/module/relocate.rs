//! Relocations of a module's sections: found by section, walked in the order of their places, and computed as Linux does
//! (`__write_relocate_add`, arch/x86/kernel/module.c), with the overflow checks of its newest version.
//!
//! Trusts the addresses of the layout and the values of the symbols.

use alloc::vec::Vec;

use super::error::ModuleError;
use super::symbols::Value;
use crate::elf::{Elf, Relocation, RelocationType, Relocations, SHT_RELA, Section};
use crate::heap::{self, TryPush};

/// The most relocations of a section that is not in order; a section in order may have any number.
pub const MAX_UNORDERED: usize = 1 << 17;
/// Where a module's per-CPU variables must end: Linux reserves a few kilobytes for them right after its own.
pub const PER_CPU_LIMIT: u64 = 1 << 28;

/// The relocations of every section.
#[derive(Debug)]
pub struct RelocationIndex {
    /// For each section the index of the section with its relocations, or 0.
    sections: Vec<u16>,
    /// The order of those that are not in order.
    orders: Vec<(usize, Vec<u32>)>,
}

/// The relocations of a section, by place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ordered<'p> {
    relocations: Relocations<'p>,
    order: Option<&'p [u32]>,
}

impl RelocationIndex {
    /// Finds the relocations of all sections in memory, and puts them in order where they are not.
    ///
    /// # Errors
    /// [`ModuleError::Section`] when a section has two tables, or one for another table of symbols.
    pub fn new(elf: &Elf<'_>) -> Result<Self, ModuleError> {
        let mut index = Self { sections: heap::filled(elf.section_count(), 0)?, orders: Vec::new() };
        for table in elf.sections().filter(|section| section.kind == SHT_RELA) {
            let refused = |rule| ModuleError::section(table.name, 0, rule);
            let Some(target) = elf.section(table.info).filter(Section::is_loaded) else { continue };
            if table.link != elf.symbol_table() {
                return Err(refused("relocations must be about the file's symbols"));
            }
            match index.sections.get_mut(target.index) {
                Some(slot @ 0) => *slot = u16::try_from(table.index).unwrap_or_default(),
                _ => return Err(refused("a section must have one table of relocations")),
            }
            let relocations = elf.relocations(&table);
            if relocations.iter().is_sorted_by_key(|relocation| relocation.offset) {
                continue;
            }
            if relocations.len() > MAX_UNORDERED {
                return Err(refused("more than 131072 relocations must be in the order of their places"));
            }
            index.orders.try_push((target.index, in_order(&relocations)?))?;
        }
        Ok(index)
    }

    /// The relocations of a section.
    pub fn of_section<'p>(&'p self, elf: &Elf<'p>, section: usize) -> Ordered<'p> {
        let table = self.sections.get(section).copied().filter(|table| *table != 0);
        let Some(table) = table.and_then(|table| elf.section(usize::from(table))) else { return Ordered::default() };
        let order = self.orders.iter().find(|(of, _)| *of == section).map(|(_, order)| order.as_slice());
        Ordered { relocations: elf.relocations(&table), order }
    }
}

/// The indices of the relocations, by place.
fn in_order(relocations: &Relocations<'_>) -> Result<Vec<u32>, ModuleError> {
    let mut order = heap::with_room(relocations.len())?;
    order.extend((0u32..).zip(relocations.iter()).map(|(index, _)| index));
    let place = |index: &u32| {
        let relocation = usize::try_from(*index).ok().and_then(|index| relocations.get(index));
        (relocation.map(|relocation| relocation.offset), *index)
    };
    order.sort_unstable_by_key(place);
    Ok(order)
}

impl Ordered<'_> {
    /// The relocation at that place in the order.
    pub fn get(&self, place: usize) -> Option<Relocation> {
        let index = match self.order {
            Some(order) => usize::try_from(*order.get(place)?).ok()?,
            None => place,
        };
        self.relocations.get(index)
    }

    /// How many relocations are before `offset`.
    pub fn before(&self, offset: u64) -> usize {
        let (mut low, mut high) = (0, self.relocations.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(|relocation| relocation.offset < offset) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// The bytes that a relocation writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    bytes: [u8; 8],
    width: usize,
}

impl Written {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.width).unwrap_or_default()
    }
}

/// What a relocation of that type writes at the address `place`, for a symbol with that value and an addend.
///
/// # Errors
/// When the result does not fit.
pub fn compute(kind: RelocationType, value: u64, addend: u64, place: u64) -> Result<Written, &'static str> {
    const OVERFLOW: &str = "a relocation's value must fit";
    let sum = value.wrapping_add(addend);
    let distance = sum.wrapping_sub(place);
    let bytes = match kind {
        RelocationType::None | RelocationType::Absolute64 => sum,
        RelocationType::Relative64 => distance,
        RelocationType::Unsigned32 if sum >> 32 == 0 => sum,
        RelocationType::Signed32 if i32::try_from(sum.cast_signed()).is_ok() => sum,
        RelocationType::Relative32 if i32::try_from(distance.cast_signed()).is_ok() => distance,
        _ => return Err(OVERFLOW),
    };
    Ok(Written { bytes: bytes.to_le_bytes(), width: kind.width() })
}

/// Where Linux placed the module's per-CPU variables, concluded from what a relocation wrote.
///
/// `found` are the bytes in memory at the address `place`; `offset` is the symbol's in the section, the addend included.
/// The section has `size` bytes and wants to be aligned to `align`.
pub fn per_cpu_base(
    kind: RelocationType,
    found: &[u8],
    offset: u64,
    place: u64,
    (size, align): (u64, u64),
) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.get_mut(..found.len())?.copy_from_slice(found);
    let found = u64::from_le_bytes(bytes);
    // What is missing of a narrow value is found by the area's upper limit: it is below 4 GiB.
    let base = match kind {
        RelocationType::None => return None,
        RelocationType::Absolute64 => found.wrapping_sub(offset),
        RelocationType::Relative64 => found.wrapping_add(place).wrapping_sub(offset),
        RelocationType::Unsigned32 | RelocationType::Signed32 => found.wrapping_sub(offset) & u64::from(u32::MAX),
        RelocationType::Relative32 => found.wrapping_add(place).wrapping_sub(offset) & u64::from(u32::MAX),
    };
    let fits = base.is_multiple_of(align.max(1)) && base.checked_add(size)? <= PER_CPU_LIMIT;
    fits.then_some(base)
}

impl Value {
    /// The value, once it is known where the module's per-CPU variables are.
    pub fn number(self, per_cpu: Option<u64>) -> Option<u64> {
        match self {
            Self::Number(value) => Some(value),
            Self::PerCpu(offset) => per_cpu.map(|base| base.wrapping_add(offset)),
        }
    }
}
