//! A second processor of VTL0 that stores into description, page list, pages and file while the first one has the image
//! validated: what is accepted is the signed kernel, and stays it.

use anyhow::{Result, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::vtl0::authenticode;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kexec::{Image, KERNEL};
use vsm_sim::vtl0::signer::Signer;

use super::{PLACE, boot, invalidate, place};
use crate::attack::Attack;

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
    let kernel = &placed.sources[KERNEL];
    // How many segments, the first entries, the kernel, its file.
    let targets = [placed.kimage + 64, placed.links[0] + 9, kernel[0] + 0x345, kernel[3] + 2, placed.file[1] + 0x77];
    let attack = Attack {
        function: F::KexecValidate,
        ranges: &placed.ranges,
        targets: &targets,
        rounds: ROUNDS,
        longest_delay: calm.instructions * 3 / 2,
        errnos: &[Errno::Einval, Errno::Ebadmsg, Errno::Ekeyrejected],
    };
    attack.run(&mut linux, &mut other, |linux, result| {
        if result < 0 {
            return Ok(());
        }
        for (page, expected) in kernel.iter().zip(image.segments[KERNEL].bytes.chunks(4096)) {
            let mut now = vec![0; expected.len()];
            bytes::read(machine.ram(), *page, &mut now)?;
            ensure!(now == expected, "page {page:#x} was accepted and is not what was signed");
        }
        for page in placed.frozen() {
            let rights = machine.partition().protection(page >> 12);
            ensure!(!rights.contains(MapFlags::WRITE), "page {page:#x} is writable");
        }
        ensure!(result == 0 && invalidate(linux, false)? == 0, "{result}");
        Ok(())
    })
}
