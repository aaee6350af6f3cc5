//! The kernel data that a run's VTL0 hands over, and the modules that it loads: a real kernel's where a capture is there,
//! made-up ones otherwise.

use anyhow::{Context, Result};

use crate::machine::Vtl0;
use crate::trials::validate::set::Set;
use crate::vtl0::captures::{self, Capture};
use crate::vtl0::kdata::{KernelData, kind};
use crate::vtl0::lists::{List, write_list};
use crate::vtl0::made_up::MadeUpKernel;
use crate::vtl0::memory_map::SCRATCH_END;
use crate::vtl0::modules::{self, Module};
use crate::vtl0::signer::Signer;

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
    /// Another signer of kernels; none where `openssl` cannot make a key.
    pub kernels: Option<Signer>,
    /// Modules of that kernel, in the order of loading: each may use those before it.
    pub modules: Vec<Module>,
}

/// What there is to run with.
struct Choice {
    kernel: KernelData,
    modules: Vec<Module>,
    source: String,
}

/// Puts kernel data and the list of them into VTL0's memory.
pub(super) fn prepare(vtl0: &mut Vtl0) -> Result<Prepared> {
    let Choice { mut kernel, modules, source } = choose();
    let kernels = Signer::authority("kernels").ok();
    // As a distribution's kernel has the certificate of who signs its kernels.
    kernel.certificates.extend(kernels.iter().flat_map(|signer| signer.certificate().iter()));
    let machine = vtl0.machine().clone();
    vtl0.with_scratch(|scratch| {
        let ranges = KernelData { trampoline_pages: 1, ..kernel }.write(machine.ram(), || scratch.pages(1))?;
        let trampoline = ranges.iter().find(|range| range.attributes == kind::KEXEC_TRAMPOLINE);
        let trampoline = trampoline.context("a trampoline")?.pa;
        Ok(Prepared { list: write_list(machine.ram(), scratch, &ranges)?, trampoline, source, kernels, modules })
    })
}

/// The first capture's data, or made-up ones and why.
fn choose() -> Choice {
    let why = match captured() {
        Ok(Some(choice)) => return choice,
        Ok(None) => "no captures".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    match MadeUpKernel::new(SYMBOLS) {
        Ok(MadeUpKernel { data: kernel, first, second, .. }) => {
            Choice { kernel, modules: vec![first, second], source: format!("made-up data ({why})") }
        }
        Err(error) => Choice {
            kernel: KernelData::made_up(SYMBOLS, 1).0,
            modules: Vec::new(),
            source: format!("made-up data ({why}), and no modules ({error:#})"),
        },
    }
}

/// The first capture's, if there is one.
fn captured() -> Result<Option<Choice>> {
    let archives = captures::archives()?;
    let Some(archive) = archives.first() else { return Ok(None) };
    let capture = Capture::open(archive)?;
    let set = Set::open(archive)?;
    let all: Vec<Module> = (0..set.len()).map(|index| Module::captured(&set.module(index)?)).collect::<Result<_>>()?;
    // Where VTL0 keeps nothing else; VTL1 stores the sites and looks at none.
    let kernel = capture.kernel_data(SCRATCH_END)?;
    Ok(Some(Choice { kernel, modules: modules::chain(&all), source: format!("data of {}", capture.name()) }))
}
