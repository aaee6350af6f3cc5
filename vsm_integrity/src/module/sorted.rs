//! Tables that Linux sorts when it loads a module: of exceptions, of function entries, and for unwinding.
//!
//! Memory must hold the file's entries, relocated for where they are now, in ascending order. Nothing is sorted here:
//! that memory is in order is seen by looking, and then each entry of the file is searched there. A bit for each entry
//! says that it has been found, so that none counts twice. Trusts that memory does not change.

use super::error::ModuleError;
use super::plan::Plan;
use super::relocate::Written;
use super::statistics::Reason;
use super::walk::{Walk, Walked};
use crate::bytes::{array_at, u32_at, u64_at};
use crate::elf::RelocationType;
use crate::heap;

/// A kind of sorted table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// `__mcount_loc`: addresses (`ftrace_process_locs`, kernel/trace/ftrace.c).
    Entries,
    /// `__ex_table`: distances of an instruction and of what handles its fault, and a number (`sort_extable`,
    /// lib/extable.c).
    Exceptions,
    /// `.orc_unwind_ip`: distances of instructions, with `.orc_unwind` beside (`unwind_module_init`,
    /// arch/x86/kernel/unwind_orc.c).
    Unwind,
}

/// Bytes of an entry of `.orc_unwind` (`struct orc_entry`).
const ORC: usize = 6;

impl Table {
    /// The table that the section of that name is.
    pub fn with_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"__mcount_loc" => Self::Entries,
            b"__ex_table" => Self::Exceptions,
            b".orc_unwind_ip" => Self::Unwind,
            _ => return None,
        })
    }

    const fn stride(self) -> usize {
        match self {
            Self::Entries => 8,
            Self::Exceptions => 12,
            Self::Unwind => 4,
        }
    }
}

/// An entry, wherever in its table it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// What tables are sorted by: the address that the entry is about.
    key: u64,
    /// Address of a handler.
    handler: u64,
    /// A number of exceptions, or the unwinding data.
    data: [u8; ORC],
}

impl Entry {
    /// Whether it ends what is known about unwinding (`orc_sort_cmp`). objtool clears such an entry, so that its type (from
    /// 6.4 on) or its mark of the stack's end (before) is 0 as well; the end of a stack has one of both.
    fn is_terminator(&self) -> bool {
        let [.., registers, kind] = self.data;
        registers % 16 == 0 && kind == 0
    }
}

/// Notes that an entry in memory has been found; `false` when it had been before.
fn claim(taken: &mut [u64], at: usize) -> bool {
    let Some(word) = taken.get_mut(at / 64) else { return false };
    let bit = 1 << (at % 64);
    let free = *word & bit == 0;
    *word |= bit;
    free
}

/// What a table is compared with.
struct Compared<'w, 'p, 'a, 'm> {
    table: Table,
    walked: &'w Walked<'p, 'a, 'm>,
    /// Unwinding data in the file and in memory.
    orc: (&'a [u8], &'m [u8]),
}

impl Walk<'_, '_, '_> {
    /// Explains a whole sorted table.
    pub fn sorted(&mut self, table: Table, index: usize) -> Result<(), ModuleError> {
        let Some(walked) = self.open(index) else {
            return Err(ModuleError::section(b"", 0, "a sorted table must have bytes"));
        };
        let stride = table.stride();
        if !walked.file.len().is_multiple_of(stride) || walked.file.len() as u64 != walked.section.size {
            return Err(walked.refused(0, "a table must have whole entries"));
        }
        let count = walked.file.len() / stride;
        let mut orc: (&[u8], &[u8]) = (&[], &[]);
        if table == Table::Unwind {
            let data = self.plan.elf.find(b".orc_unwind").and_then(|section| self.open(section.index));
            let data = data.ok_or_else(|| walked.refused(0, "the unwinding data is missing"))?;
            if data.file.len() != count * ORC || data.relocations.get(0).is_some() {
                return Err(data.refused(0, "the unwinding data must be as long as its index"));
            }
            orc = (data.file, data.memory);
        }
        let compared = Compared { table, walked: &walked, orc };
        if let Some(at) = compared.first_unordered(count) {
            return Err(walked.unexplained(at * stride, &[], "the table must be in order"));
        }
        self.match_entries(&compared, count)?;
        self.statistics.count(Reason::SortedTable, walked.file.len() + orc.0.len());
        Ok(())
    }

    /// Finds every entry of the file in memory, each once.
    fn match_entries(&mut self, compared: &Compared<'_, '_, '_, '_>, count: usize) -> Result<(), ModuleError> {
        let mut taken = heap::filled(count.div_ceil(64), 0u64)?;
        let (mut relocation, mut guess) = (0, 0);
        for index in 0..count {
            if self.is_next(compared, index, relocation, guess) && claim(&mut taken, guess) {
                (relocation, guess) = (relocation + 1, guess + 1);
                continue;
            }
            let entry = self.in_file(compared, index, &mut relocation)?;
            let free = |at: usize| taken.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 0);
            guess = compared.first_with(entry.key, count);
            // Equal keys are rare, and those of one place next to each other.
            let at = (guess..count.min(guess.saturating_add(64)))
                .take_while(|at| compared.in_memory(*at).key == entry.key)
                .find(|at| free(*at) && compared.in_memory(*at) == entry);
            let Some(at) = at else {
                let stride = compared.table.stride();
                let near = guess.min(count.saturating_sub(1)) * stride;
                let rule = "the table must hold every entry of the file's";
                return Err(compared.walked.unexplained(near, &entry.key.to_le_bytes(), rule));
            };
            claim(&mut taken, at);
            guess = at + 1;
        }
        match compared.walked.relocations.get(relocation) {
            Some(_) => Err(compared.walked.refused(0, "a relocation must lie within its section")),
            None => Ok(()),
        }
    }

    /// The fast way for most unwinding data: the entry of the file is the one that memory has at `guess`. What is not
    /// seen here is looked for.
    #[inline]
    fn is_next(&self, compared: &Compared<'_, '_, '_, '_>, index: usize, next: usize, guess: usize) -> bool {
        let usual = || {
            let walked = compared.walked;
            let relocation = walked.relocations.get(next)?;
            if relocation.known_type() != Some(RelocationType::Relative32) {
                return None;
            }
            let field = index.checked_mul(4)?;
            if compared.table != Table::Unwind || relocation.offset != field as u64 {
                return None;
            }
            // What another relocation writes to the same place has to be seen as well.
            let after = walked.relocations.get(next + 1).map_or(u64::MAX, |after| after.offset);
            let zero = walked.file.get(field..)?.first_chunk::<4>()?;
            let sum = self.plan.symbols.ready(relocation.symbol)?.wrapping_add(relocation.addend);
            let distance = sum.wrapping_sub(walked.va.wrapping_add(relocation.offset)).cast_signed();
            let (file, memory) = compared.orc;
            let (data, there) = (file.get(index * ORC..)?, memory.get(guess.checked_mul(ORC)?..)?);
            let same = data.first_chunk::<ORC>()? == there.first_chunk::<ORC>()?;
            let fits = i32::try_from(distance).is_ok() && *zero == [0; 4] && after >= relocation.offset + 4;
            (same && fits && compared.key(guess)? == sum).then_some(())
        };
        usual().is_some()
    }

    /// An entry of the file, relocated where it is there.
    fn in_file(
        &mut self,
        compared: &Compared<'_, '_, '_, '_>,
        index: usize,
        next: &mut usize,
    ) -> Result<Entry, ModuleError> {
        let (walked, stride) = (compared.walked, compared.table.stride());
        let mut bytes = [0; 12];
        let start = index * stride;
        let from = walked.file.get(start..start + stride).unwrap_or_default();
        bytes.get_mut(..stride).unwrap_or_default().copy_from_slice(from);
        while let Some(relocation) = walked.relocations.get(*next) {
            if relocation.offset >= (start + stride) as u64 {
                break;
            }
            *next += 1;
            let checked = Plan::checked(&relocation, walked.file).map_err(|rule| walked.refused(start, rule))?;
            let (kind, range) = checked;
            if kind == RelocationType::None {
                continue;
            }
            let written: Result<Written, _> = self.plan.written(&relocation, kind, walked.va, None);
            let written = written.map_err(|rule| walked.refused(start, rule))?;
            let place = range.start.checked_sub(start).zip(range.end.checked_sub(start));
            let field = place.and_then(|(from, to)| bytes.get_mut(..stride)?.get_mut(from..to));
            let rule = "a relocation must lie within an entry";
            field.ok_or_else(|| walked.refused(start, rule))?.copy_from_slice(written.as_slice());
        }
        Ok(compared.decode(&bytes, index, compared.orc.0))
    }
}

impl Compared<'_, '_, '_, '_> {
    /// The entry of that place in memory.
    fn in_memory(&self, index: usize) -> Entry {
        let start = index.saturating_mul(self.table.stride());
        self.decode(self.walked.memory.get(start..).unwrap_or_default(), index, self.orc.1)
    }

    /// What the entry of that place in memory is sorted by.
    #[inline]
    fn key(&self, index: usize) -> Option<u64> {
        let start = index.checked_mul(self.table.stride())?;
        let rest = self.walked.memory.get(start..)?;
        match self.table {
            Table::Entries => u64_at(rest, 0),
            Table::Exceptions | Table::Unwind => {
                let distance = u32_at(rest, 0)?.cast_signed();
                Some(self.walked.va.wrapping_add(start as u64).wrapping_add_signed(i64::from(distance)))
            }
        }
    }

    /// The first entry in memory that is not where it should be.
    fn first_unordered(&self, count: usize) -> Option<usize> {
        let mut before = self.key(0);
        (1..count).find(|at| {
            let key = self.key(*at);
            // Linux puts the end of what is before an address first; for other tables equals are equal.
            let ends_first = || self.in_memory(at - 1).is_terminator() || !self.in_memory(*at).is_terminator();
            let ordered = before < key || before == key && (self.table != Table::Unwind || ends_first());
            before = key;
            !ordered
        })
    }

    /// Decodes an entry that is at that place in its table.
    fn decode(&self, bytes: &[u8], index: usize, orc: &[u8]) -> Entry {
        let va = self.walked.va.wrapping_add(index.saturating_mul(self.table.stride()) as u64);
        let target = |field: usize| {
            let distance = u32_at(bytes, field).unwrap_or_default().cast_signed();
            va.wrapping_add(field as u64).wrapping_add_signed(i64::from(distance))
        };
        match self.table {
            Table::Entries => Entry { key: u64_at(bytes, 0).unwrap_or_default(), ..Entry::default() },
            Table::Exceptions => {
                let [a, b, c, d] = array_at(bytes, 8).unwrap_or_default();
                Entry { key: target(0), handler: target(4), data: [a, b, c, d, 0, 0] }
            }
            Table::Unwind => {
                let data = array_at(orc, index.saturating_mul(ORC)).unwrap_or_default();
                Entry { key: target(0), handler: 0, data }
            }
        }
    }

    /// The first entry in memory that is not before `key`.
    fn first_with(&self, key: u64, count: usize) -> usize {
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.in_memory(middle).key < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
