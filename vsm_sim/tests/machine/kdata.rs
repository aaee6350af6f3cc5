//! LoadKData in the unmodified image: a made-up kernel, and the captured ones where they are.

use anyhow::{Context, Result, ensure};
use iced_x86::code_asm::{qword_ptr, rbx};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::{KernelData, backwards, kind};
use vsm_sim::vtl0::lists::write_list;

use crate::setup::{booted_counting, is_fault};

/// Where the kernel's text is taken to lie: beyond everything that VTL0 uses here.
const TEXT: u64 = 0x1000_0000;

/// Where scattered objects lie: the scratch memory is for their list, with a page for each range.
const SCATTERED: u64 = 0x2000_0000;
/// Pages that hold any of the kernels' objects.
const PAGES: u64 = 4096;

/// Boots a machine, loads `kernel` and returns what VTL1 says about it. Its pages are neighbours, or each is a range of its own.
fn load(what: &str, kernel: &KernelData, scattered: bool) -> Result<String> {
    let mut vtl0 = booted_counting(1)?;
    let machine = vtl0.machine();
    let (list, trampoline) = vtl0.with_scratch(|scratch| {
        let ranges = if scattered {
            kernel.write(machine.ram(), backwards(SCATTERED, SCATTERED + PAGES * 4096))?
        } else {
            kernel.write(machine.ram(), || scratch.pages(1))?
        };
        let trampoline = ranges.iter().find(|range| range.attributes == kind::KEXEC_TRAMPOLINE).map(|range| range.pa);
        Ok::<_, anyhow::Error>((write_list(machine.ram(), scratch, &ranges)?, trampoline))
    })?;
    let result = vtl0.vtl_call(F::LoadKData.id(), list.pa, list.nranges, 0);
    let console = machine.console_lines();
    let result = result.with_context(|| format!("{what}\n{}", console.join("\n")))?;
    ensure!(result.value == 0, "{what}: {}\n{}", result.value, console.join("\n"));
    println!("{what}: {} ranges, {} instructions", list.nranges, result.instructions);
    // The trampoline is there to be read and nothing else.
    let registers = SharedState { rbx: trampoline.context("a trampoline")?, ..SharedState::default() };
    let written = vtl0.run(&registers, |asm| asm.mov(qword_ptr(rbx), rbx))?;
    ensure!(is_fault(&written), "{what}: writing the trampoline ended in {written:x?}");
    ensure!(
        vtl0.vtl_call(F::LoadKData.id(), list.pa, list.nranges, 0)?.value == Errno::Ebusy.to_result(),
        "{what}: a second LoadKData"
    );
    console
        .into_iter()
        .find(|line| line.contains("LoadKData:") && line.contains(" symbols "))
        .context("VTL1 says nothing")
}

#[test]
fn machine_kernel_data_are_loaded_by_the_real_image() -> Result<()> {
    let (kernel, exports) = KernelData::made_up(2000, 11);
    let line = load("a made-up kernel", &kernel, false)?;
    ensure!(
        line.contains(&format!("1 certificates, 1 revoked, 2 blocked hashes, {} symbols", exports.len())),
        "{line}"
    );
    let archives = captures::archives()?;
    if archives.is_empty() {
        println!("SKIPPED: there are no captures of real kernels beside the repository");
    }
    for archive in archives {
        let capture = Capture::open(&archive)?;
        for scattered in [false, true] {
            let line = load(capture.name(), &capture.kernel_data(TEXT)?, scattered)?;
            ensure!(line.contains(&format!(" {} symbols ", capture.exported_names()?.len())), "{line}");
            ensure!(line.contains(&format!(" {} patch sites", capture.sites(TEXT)?.len())), "{line}");
        }
    }
    Ok(())
}
