//! The kernel data that a run's VTL0 hands over: a real kernel's where a capture is there, made-up ones otherwise.

use anyhow::Result;

use crate::machine::Vtl0;
use crate::vtl0::captures::{self, Capture};
use crate::vtl0::kdata::KernelData;
use crate::vtl0::lists::{List, Range, write_list};
use crate::vtl0::memory_map::SCRATCH_END;

/// Symbols of the made-up kernel, as many as a distribution's has.
const SYMBOLS: usize = 14_000;

/// What VTL0 has put into its memory.
pub(super) struct Prepared {
    /// The list for LoadKData.
    pub list: List,
    /// Physical address of the trampoline's first page.
    pub trampoline: u64,
    /// Whose data they are.
    pub source: String,
}

/// Puts kernel data and the list of them into VTL0's memory.
pub(super) fn prepare(vtl0: &mut Vtl0) -> Result<Prepared> {
    let (kernel, source) = choose();
    let machine = vtl0.machine().clone();
    vtl0.with_scratch(|scratch| {
        let kernel_ranges = KernelData { trampoline_pages: 0, ..kernel }.write(machine.ram(), || scratch.pages(1))?;
        let trampoline = scratch.pages(1)?;
        let mut ranges = kernel_ranges;
        ranges.push(Range::direct(trampoline, trampoline + 4096, crate::vtl0::kdata::kind::KEXEC_TRAMPOLINE));
        Ok(Prepared { list: write_list(machine.ram(), scratch, &ranges)?, trampoline, source })
    })
}

/// The first capture's data, or made-up ones and why.
fn choose() -> (KernelData, String) {
    let captured = captures::archives().and_then(|archives| {
        let Some(archive) = archives.first() else { return Ok(None) };
        let capture = Capture::open(archive)?;
        // Where VTL0 keeps nothing else; VTL1 stores the sites and looks at none.
        Ok(Some((capture.kernel_data(SCRATCH_END)?, format!("data of {}", capture.name()))))
    });
    let why = match captured {
        Ok(Some(data)) => return data,
        Ok(None) => "no captures".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    (KernelData::made_up(SYMBOLS, 1).0, format!("made-up data ({why})"))
}
