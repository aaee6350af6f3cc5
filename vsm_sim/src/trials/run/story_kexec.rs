//! Another kernel to be started: loaded and forgotten as Linux does, and what an attacker would have VTL1 accept in its place.

use anyhow::{Context, Result};
use iced_x86::code_asm::{al, byte_ptr, qword_ptr, rax, rbx};
use litebox_platform_lvbs::vsm::VsmFunction as F;

use super::stage::Stage;
use crate::machine::Vtl0;
use crate::vtl0::authenticode;
use crate::vtl0::kexec::{Image, KERNEL, Placed};
use crate::vtl0::lists::write_list;
use crate::vtl0::modules::Frames;
use crate::vtl0::signer::Signer;

const PAGE: u64 = 4096;
/// Pages of VTL0's scratch memory for the images, and for where they go.
const PAGES: u64 = 256;
const MEMORY: u64 = 64;
/// Bytes of the made-up kernel.
const SIZE: usize = 0x8456;

/// Plays both images' life; nothing without a signer for the kernel.
pub(super) fn play(stage: &mut Stage<'_>, vtl0: &mut Vtl0, signer: Option<&Signer>) -> Result<()> {
    let Some(signer) = signer else { return Ok(()) };
    let file = authenticode::sign(&authenticode::made_up(SIZE, 1), signer)?;
    let start = vtl0.with_scratch(|scratch| scratch.pages(PAGES))?;
    let mut frames = Frames::scattered(start, start + PAGES * PAGE, 2);
    let at = vtl0.with_scratch(|scratch| scratch.pages(MEMORY))?;
    let image = Image::new(&file, at, false)?;
    // As kexec_file_load begins.
    stage.noted_call(vtl0, F::KexecValidate, [0; 3], "0", "no image")?;
    forgeries(stage, vtl0, &mut frames, &image)?;
    let placed = image.place(stage.machine.ram(), &mut frames)?;
    validate(stage, vtl0, &placed, "0", &format!("a signed kernel of {} KiB", file.len() >> 10))?;
    let kernel = placed.sources.get(KERNEL).and_then(|pages| pages.first()).copied().context("a kernel has pages")?;
    let list = placed.links.first().copied().context("an image has a page list")?;
    for (what, page) in [("description", placed.kimage), ("page list", list), ("kernel", kernel)] {
        stage.attempt(vtl0, &format!("write the image's {what}"), page, |asm| asm.mov(qword_ptr(rbx), rax))?;
    }
    stage.attempt(vtl0, "execute the image's kernel", kernel, |asm| asm.jmp(rbx))?;
    let crash = Image::new(&file, at, true)?.place(stage.machine.ram(), &mut frames)?;
    validate(stage, vtl0, &crash, "0", "the same as crash image")?;
    stage.noted_call(vtl0, F::KexecValidate, [0; 3], "0", "no image")?;
    stage.permitted(vtl0, "write what was the image's kernel", kernel, |asm| asm.mov(byte_ptr(rbx), al))?;
    let kernel = image.segments.get(KERNEL).context("an image has a kernel")?.start;
    stage.attempt(vtl0, "write the crash image's kernel", kernel, |asm| asm.mov(qword_ptr(rbx), rax))?;
    stage.noted_call(vtl0, F::KexecValidate, [0, 0, 1], "0", "no crash image")
}

/// What must not be accepted in the kernel's place.
fn forgeries(stage: &mut Stage<'_>, vtl0: &mut Vtl0, frames: &mut Frames, image: &Image) -> Result<()> {
    let mut pages = image.clone();
    *pages.segments.get_mut(KERNEL).and_then(|kernel| kernel.bytes.first_mut()).context("a kernel")? ^= 1;
    let mut file = image.file.clone();
    *file.get_mut(authenticode::KERNEL).context("a kernel")? ^= 1;
    let file = Image::new(&authenticode::settled(file), image.segments[0].start, false)?;
    let mut text = image.clone();
    text.segments.last_mut().context("an image has segments")?.start = vtl0.call_site() / PAGE * PAGE;
    for (what, image, expected) in [
        ("a bit of its pages changed", pages, "-EINVAL"),
        ("a bit of file and pages changed", file, "-EKEYREJECTED"),
        ("a segment over kernel text", text, "-EACCES"),
    ] {
        let placed = image.place(stage.machine.ram(), frames)?;
        validate(stage, vtl0, &placed, expected, what)?;
        placed.free(frames);
    }
    Ok(())
}

fn validate(stage: &mut Stage<'_>, vtl0: &mut Vtl0, placed: &Placed, expected: &str, note: &str) -> Result<()> {
    let machine = vtl0.machine();
    let list = vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, &placed.ranges))?;
    stage.noted_call(vtl0, F::KexecValidate, [list.pa, list.nranges, placed.flag()], expected, note)
}
