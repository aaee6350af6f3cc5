//! Changes a module's memory, bit by bit and relocation by relocation, and sees every change refused.
//!
//! A changed byte is first looked at with what is around it: what is refused then is refused in any case. What is accepted
//! may contradict another site, so the whole module is explained with it before it counts.

use anyhow::{Context, Result};
use vsm_integrity::elf::{RelocationType, SHT_RELA};
use vsm_integrity::module::layout::Place;
use vsm_integrity::module::relocate::compute;
use vsm_integrity::module::symbols::Value;
use vsm_integrity::module::{Explained, Habits, Kernel, Kind, ModuleError, Plan, Resolver};

use super::captured::Captured;
use crate::random::SplitMix;

/// How much is changed.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// How many bytes have each of their bits flipped.
    pub bytes: usize,
    /// Every how many relocations one gets another target; 0 for none.
    pub relocations: usize,
}

/// A change that was accepted.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// Where.
    pub kind: Kind,
    /// Offset in the range.
    pub offset: usize,
    /// The bytes before.
    pub before: Vec<u8>,
    /// And after.
    pub after: Vec<u8>,
    /// Whether it was a relocation's target.
    pub relocation: bool,
}

/// What came of the changes.
#[derive(Clone, Debug, Default)]
pub struct Mutations {
    /// Bits that were flipped.
    pub bits: usize,
    /// Targets that were changed.
    pub targets: usize,
    /// Changes that were accepted.
    pub survivors: Vec<Survivor>,
}

/// Makes changes to the memory of a module that is accepted as it is, with the habits that its kernel has shown.
///
/// # Errors
/// When the module is refused to begin with.
pub fn run(
    captured: &Captured,
    kernel: Kernel<'_>,
    exports: &impl Resolver,
    habits: &Habits,
    extent: Extent,
) -> Result<Mutations> {
    let file = captured.file.clone();
    let plan = Plan::new(&file, &captured.memory()?, kernel, exports)?;
    let habits = habits.clone().for_next_module();
    let explained = plan.explain(&captured.memory()?, &habits)?;
    let done = Mutations::default();
    let mut changing = Changing { plan: &plan, memory: captured.clone(), habits, explained, done };
    changing.flip_bits(extent.bytes)?;
    changing.redirect(extent.relocations)?;
    Ok(changing.done)
}

/// A module whose memory is being changed.
struct Changing<'p, 'a> {
    plan: &'p Plan<'a>,
    memory: Captured,
    /// What is known of the kernel.
    habits: Habits,
    /// The verdict on the module as it was.
    explained: Explained,
    done: Mutations,
}

impl Changing<'_, '_> {
    /// Flips each bit of that many bytes, spread over code and read-only data.
    fn flip_bits(&mut self, count: usize) -> Result<()> {
        let explained = |kind: &Kind| kind.is_explained();
        let sizes: Vec<(Kind, usize)> = Kind::ALL
            .into_iter()
            .filter(explained)
            .filter_map(|kind| Some((kind, self.memory.range_mut(kind)?.bytes.len())))
            .collect();
        let total: usize = sizes.iter().map(|(_, size)| size).sum();
        let mut random = SplitMix(total as u64);
        for _ in 0..count.min(total) {
            let mut at = usize::try_from(random.next() % total as u64)?;
            for (kind, size) in &sizes {
                if at < *size {
                    for bit in 0..8 {
                        self.flip(*kind, at, 1 << bit)?;
                    }
                    break;
                }
                at -= size;
            }
        }
        Ok(())
    }

    fn flip(&mut self, kind: Kind, at: usize, mask: u8) -> Result<()> {
        let range = self.memory.range_mut(kind).context("a range")?;
        let before = *range.bytes.get(at).context("a byte")?;
        self.done.bits += 1;
        self.replace(kind, at, &[before ^ mask], false)
    }

    /// Gives every so many-th relocation the value of another symbol.
    fn redirect(&mut self, every: usize) -> Result<()> {
        if every == 0 {
            return Ok(());
        }
        let elf = *self.plan.elf();
        let symbols = elf.symbol_count();
        let mut number = 0;
        for table in elf.sections().filter(|section| section.kind == SHT_RELA) {
            let Place::Range(kind, start) = self.plan.layout().place(table.info) else { continue };
            if !kind.is_explained() {
                continue;
            }
            let va = self.plan.layout().address(table.info).context("an address")?;
            for relocation in elf.relocations(&table).iter() {
                number += 1;
                let Some(width) = relocation.known_type().filter(|width| *width != RelocationType::None) else {
                    continue;
                };
                if number % every != 0 {
                    continue;
                }
                let place = va.wrapping_add(relocation.offset);
                let own = self.plan.symbol_value(relocation.symbol).ok();
                // The next symbol with another value that fits.
                let other =
                    (1..symbols).map(|step| (relocation.symbol + step * 7) % symbols).take(64).find_map(|index| {
                        let value = self.plan.symbol_value(index).ok().filter(|value| Some(*value) != own)?;
                        let Value::Number(value) = value else { return None };
                        compute(width, value, relocation.addend, place).ok()
                    });
                let Some(other) = other else { continue };
                let at = usize::try_from(u64::from(start) + relocation.offset)?;
                self.done.targets += 1;
                self.replace(kind, at, other.as_slice(), true)?;
            }
        }
        Ok(())
    }

    /// Puts bytes in place of what is there, looks, and puts back what was there.
    fn replace(&mut self, kind: Kind, at: usize, bytes: &[u8], relocation: bool) -> Result<()> {
        let place = at..at + bytes.len();
        // A look that refused everything would prove nothing.
        let untouched = self.plan.check(&self.memory.memory()?, &mut self.habits.clone(), kind, place.clone());
        untouched.with_context(|| format!("{} {at:#x} as it was", kind.name()))?;
        let range = self.memory.range_mut(kind).context("a range")?;
        let field = range.bytes.get_mut(place.clone()).context("bytes")?;
        let before = field.to_vec();
        if before == bytes {
            return Ok(());
        }
        field.copy_from_slice(bytes);
        if self.is_accepted(kind, place.clone())? {
            let after = bytes.to_vec();
            self.done.survivors.push(Survivor { kind, offset: at, before: before.clone(), after, relocation });
        }
        let range = self.memory.range_mut(kind).context("a range")?;
        range.bytes.get_mut(place).context("bytes")?.copy_from_slice(&before);
        Ok(())
    }

    fn is_accepted(&self, kind: Kind, place: std::ops::Range<usize>) -> Result<bool, ModuleError> {
        let memory = self.memory.memory()?;
        if self.plan.check(&memory, &mut self.habits.clone(), kind, place).is_err() {
            return Ok(false);
        }
        // A branch to a page of thunks elsewhere counts only with that page, which VTL1 compares as well. Where per-CPU
        // variables are is VTL0's choice: with one reference only, any change of it is another choice.
        let explained = self.plan.explain(&memory, &self.habits);
        let same = |other: Explained| {
            other.thunk_pages == self.explained.thunk_pages && other.per_cpu == self.explained.per_cpu
        };
        Ok(explained.is_ok_and(same))
    }
}
