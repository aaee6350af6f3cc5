//! A second processor of VTL0 that stores into list, file and memory while the first one has the module validated: no
//! unsigned byte ever becomes executable.

use anyhow::{Result, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::machine::Machine;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::made_up::MadeUpKernel;
use vsm_sim::vtl0::modules::{FILE, Placed};

use crate::attack::Attack;
use crate::linux::Linux;

/// Rounds of the attack, each with a store a little later.
const ROUNDS: u64 = 120;

/// What the pages hold that must be explained.
fn explained(machine: &Machine, placed: &Placed) -> Result<Vec<(u64, Vec<u8>)>> {
    let pages = placed.memory().filter(|(kind, _)| kind.is_explained());
    pages
        .map(|(_, page)| {
            let mut now = vec![0; 4096];
            bytes::read(machine.ram(), page, &mut now)?;
            Ok((page, now))
        })
        .collect()
}

#[test]
fn machine_a_second_processor_stores_during_validation() -> Result<()> {
    let kernel = MadeUpKernel::new(300)?;
    let (mut linux, mut other) = Linux::boot(&kernel.data)?;
    let machine = linux.vtl0.machine();
    let placed = linux.place(&kernel.first, 0x80)?;
    let calm = linux.call(F::ValidateModule, &placed.ranges)?;
    ensure!(calm.value == 1 && linux.unload(1)? == 0, "{}\n{}", calm.value, linux.console());
    let signed = explained(&machine, &placed)?;
    let targets = [0, 2, 4, 6, FILE].map(|kind| placed.pages(kind)[0] + 0x7f0);
    let attack = Attack {
        function: F::ValidateModule,
        ranges: &placed.ranges,
        targets: &targets,
        rounds: ROUNDS,
        longest_delay: calm.instructions * 3 / 2,
        errnos: &[Errno::Einval, Errno::Ekeyrejected],
    };
    let rights = |page: u64| machine.partition().protection(page >> 12);
    attack.run(&mut linux, &mut other, |linux, result| {
        if result >= 0 {
            for ((page, bytes), (_, now)) in signed.iter().zip(&explained(&machine, &placed)?) {
                ensure!(bytes == now, "page {page:#x} was accepted and is not what was signed");
                ensure!(!rights(*page).contains(MapFlags::WRITE), "page {page:#x} is writable");
            }
            ensure!(result > 0 && linux.unload(result)? == 0, "token {result}");
        }
        for (_, page) in placed.memory() {
            ensure!(!rights(page).contains(MapFlags::KERNEL_EXECUTE), "page {page:#x} is executable");
        }
        Ok(())
    })
}
