//! Kexec images in the unmodified image: VTL0's real stores into the pages of one, and a distribution's kernel.

mod attack;

use std::fs;

use anyhow::{Result, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_integrity::kexec::Form;
use vsm_sim::machine::Vtl0;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::kexec::{DECIDING, Image, KERNEL, Placed, distribution_kernels};
use vsm_sim::vtl0::signer::Signer;
use vsm_sim::vtl0::{authenticode, bytes};

use crate::linux::Linux;
use crate::setup::call;

/// Where images go: free memory below where frames are handed out.
const PLACE: u64 = 0x800_0000;

/// A VTL0 on the boot processor, and one on another.
fn boot(certificate: &[u8]) -> Result<(Linux, Vtl0)> {
    let kernel = KernelData { certificates: certificate.to_vec(), ..KernelData::default() };
    Linux::boot(&kernel)
}

fn place(linux: &mut Linux, image: &Image) -> Result<Placed> {
    image.place(linux.vtl0.machine().ram(), &mut linux.frames)
}

fn validate(linux: &mut Linux, placed: &Placed) -> Result<i64> {
    Ok(linux.call_with(F::KexecValidate, &placed.ranges, placed.flag())?.value)
}

fn invalidate(linux: &mut Linux, crash: bool) -> Result<i64> {
    call(&mut linux.vtl0, F::KexecValidate, [0, 0, u64::from(crash)])
}

/// Checks by real stores that VTL0 can write an image's pages, or cannot, and always the file's.
fn check_stores(linux: &mut Linux, placed: &Placed, open: bool) -> Result<()> {
    for page in placed.frozen() {
        linux.check_store("page", page, open)?;
    }
    for page in placed.file.first().into_iter().chain(placed.file.last()) {
        linux.check_store("the file", *page, true)?;
    }
    Ok(())
}

#[test]
fn machine_stores_into_an_accepted_image_fault_until_it_is_forgotten() -> Result<()> {
    let signer = Signer::authority("kernels")?;
    let file = authenticode::sign(&authenticode::made_up(0x3456, 1), &signer)?;
    let (mut linux, _other) = boot(signer.certificate())?;
    let forms = [Form::WithPointer, Form::WithoutPointer];
    for (crash, form) in [false, true].into_iter().flat_map(|crash| forms.map(|form| (crash, form))) {
        let image = |file: &[u8]| anyhow::Ok(Image { form, ..Image::new(file, PLACE, crash)? });
        let neither = place(&mut linux, &image(&file)?)?;
        bytes::write_u64(linux.vtl0.machine().ram(), neither.kimage + DECIDING, 17)?;
        ensure!(validate(&mut linux, &neither)? == Errno::Einval.to_result(), "a description of neither form");
        ensure!(linux.console().contains("an image of neither known form"), "{}", linux.console());
        check_stores(&mut linux, &neither, true)?;
        let mut forged = image(&file)?;
        forged.segments[KERNEL].bytes[0x200] ^= 1;
        let forged = place(&mut linux, &forged)?;
        ensure!(
            validate(&mut linux, &forged)? == Errno::Einval.to_result(),
            "another kernel in the pages\n{}",
            linux.console()
        );
        check_stores(&mut linux, &forged, true)?;
        let mut changed = file.clone();
        changed[0xa00] ^= 1;
        let changed = place(&mut linux, &image(&authenticode::settled(changed))?)?;
        ensure!(
            validate(&mut linux, &changed)? == Errno::Ekeyrejected.to_result(),
            "another kernel\n{}",
            linux.console()
        );
        check_stores(&mut linux, &changed, true)?;
        let placed = place(&mut linux, &image(&file)?)?;
        ensure!(invalidate(&mut linux, crash)? == 0, "there is none");
        for _ in 0..2 {
            ensure!(validate(&mut linux, &placed)? == 0, "the signed kernel\n{}", linux.console());
            check_stores(&mut linux, &placed, false)?;
        }
        ensure!(invalidate(&mut linux, !crash)? == 0, "the other one");
        check_stores(&mut linux, &placed, false)?;
        ensure!(invalidate(&mut linux, crash)? == 0, "KexecValidate without a list");
        check_stores(&mut linux, &placed, true)?;
    }
    Ok(())
}

#[test]
fn machine_takes_a_distribution_s_kernel() -> Result<()> {
    let Some(path) = distribution_kernels().into_iter().next() else {
        println!("SKIPPED: there is no signed kernel in target/kernels; `cargo xtask doctor --fix` fetches one");
        return Ok(());
    };
    let file = fs::read(path)?;
    let (mut linux, _other) = boot(&authenticode::signer_of(&file)?)?;
    let placed = place(&mut linux, &Image::new(&file, PLACE, false)?)?;
    let (result, stack) = linux.call_on_painted_stack(F::KexecValidate, &placed.ranges)?;
    ensure!(result.value == 0, "{}\n{}", result.value, linux.console());
    println!(
        "KexecValidate of {} KiB, {} pages in {} ranges: {} instructions, {stack} bytes of stack",
        file.len() >> 10,
        placed.frozen().len(),
        placed.ranges.len(),
        result.instructions
    );
    for page in [placed.kimage, placed.links[3], placed.sources[KERNEL][100], placed.control[0]] {
        linux.check_store("page", page, false)?;
    }
    ensure!(invalidate(&mut linux, false)? == 0 && linux.may_write(placed.kimage)?, "invalidate");
    Ok(())
}
