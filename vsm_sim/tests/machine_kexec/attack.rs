//! A second processor of VTL0 that stores into description, page list, pages and file while the first one has the image
//! validated: what is accepted is the signed kernel, and stays it.

use std::sync::Barrier;

use anyhow::{Context, Result, ensure};
use iced_x86::code_asm::{al, byte_ptr, rbx, rcx};
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::Stop;
use vsm_sim::vtl0::authenticode;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kexec::{Image, KERNEL};
use vsm_sim::vtl0::signer::Signer;

use crate::{GENERAL_PROTECTION, PLACE, boot, invalidate, place};

/// Rounds of the attack, each with a store a little later.
const ROUNDS: u64 = 100;

#[test]
fn machine_a_second_processor_stores_while_an_image_is_validated() -> Result<()> {
    let signer = Signer::authority("kernels")?;
    let file = authenticode::sign(&authenticode::made_up(0x3456, 1), &signer)?;
    let (mut linux, mut other) = boot(signer.certificate())?;
    let machine = linux.vtl0.machine();
    let image = Image::new(&file, PLACE, false)?;
    let placed = place(&mut linux, &image)?;
    let calm = linux.call(F::KexecValidate, &placed.ranges)?;
    ensure!(calm.value == 0 && invalidate(&mut linux, false)? == 0, "{}\n{}", calm.value, linux.console());
    // Waits, then stores.
    let snippet = other.place(|asm| {
        let mut turn = asm.create_label();
        asm.set_label(&mut turn)?;
        asm.dec(rcx)?;
        asm.jnz(turn)?;
        asm.mov(byte_ptr(rbx), al)
    })?;
    let kernel = &placed.sources[KERNEL];
    // How many segments, the first entries, the kernel, its file.
    let targets = [placed.kimage + 64, placed.links[0] + 9, kernel[0] + 0x345, kernel[3] + 2, placed.file[1] + 0x77];
    let (mut refused, mut faults, mut late) = (0, 0, 0);
    for round in 0..ROUNDS {
        let target = targets[usize::try_from(round)? % targets.len()];
        let mut original = [0];
        bytes::read(machine.ram(), target, &mut original)?;
        let delay = 1 + calm.instructions * round * 3 / ROUNDS / 2;
        let registers =
            SharedState { rbx: target, rcx: delay, rax: u64::from(original[0] ^ 0xff), ..SharedState::default() };
        let barrier = Barrier::new(2);
        let (result, stop) = std::thread::scope(|scope| -> Result<_> {
            let attacker = scope.spawn(|| {
                barrier.wait();
                other.run_at(snippet, &registers)
            });
            barrier.wait();
            let result = linux.call(F::KexecValidate, &placed.ranges);
            let stop = attacker.join().expect("no panic");
            Ok((result?.value, stop?))
        })?;
        let stored = match stop {
            Stop::Done => true,
            Stop::Exception(exception) if exception.vector == GENERAL_PROTECTION => false,
            other => anyhow::bail!("round {round}: the attacker ended in {other:x?}"),
        };
        if result == 0 {
            for (page, expected) in kernel.iter().zip(image.segments[KERNEL].bytes.chunks(4096)) {
                let mut now = vec![0; expected.len()];
                bytes::read(machine.ram(), *page, &mut now)?;
                ensure!(now == expected, "round {round}: page {page:#x} was accepted and is not what was signed");
            }
            for page in placed.frozen() {
                let rights = machine.partition().protection(page >> 12);
                ensure!(!rights.contains(MapFlags::WRITE), "round {round}: page {page:#x} is writable");
            }
            if stored {
                late += 1;
            } else {
                faults += 1;
            }
            ensure!(invalidate(&mut linux, false)? == 0, "round {round}");
        } else {
            ensure!([-22, -74, -129].contains(&result) && stored, "round {round}: {result}, stored: {stored}");
            refused += 1;
        }
        bytes::write(machine.ram(), target, &original).context("the byte as it was")?;
    }
    println!("{refused} images refused for a store, {faults} stores refused, {late} stores too late or elsewhere");
    ensure!(refused > 0 && faults > 0, "the attacker comes always too early or always too late");
    Ok(())
}
