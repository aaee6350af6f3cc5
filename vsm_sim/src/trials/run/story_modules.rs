//! The modules of a life: loaded in order, used, unloaded in the wrong and in the right order, and what an attacker would
//! have VTL1 accept in their place.

use anyhow::{Context, Result};
use iced_x86::code_asm::{al, byte_ptr, qword_ptr, rax, rbx};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_integrity::module::Kind;

use super::report::show_result;
use super::stage::Stage;
use crate::machine::Vtl0;
use crate::vtl0::bytes;
use crate::vtl0::kdata::Site;
use crate::vtl0::lists::write_list;
use crate::vtl0::modules::{Call, Frames, Module, PATCHES, Placed};
use crate::vtl0::patcher::{BATCH, Form, INT3, Patch, bytes_of, poke, poke_batch, poke_code, write_at};
use crate::vtl0::records::Records;

/// Pages of VTL0's scratch memory for modules and their files.
const PAGES: u64 = 1536;
const PAGE: u64 = 4096;
/// What `scripts/sign-file` appends behind the message.
const TRAILER: usize = 40;
/// Sites that are switched at once at most: more than a batch.
const FLIPS: usize = BATCH + 50;
/// CALL with a displacement of 32 bits.
const CALL: u8 = 0xe8;

/// Plays the life of the modules.
pub(super) fn play(stage: &mut Stage<'_>, vtl0: &mut Vtl0, modules: &[Module]) -> Result<()> {
    let start = vtl0.with_scratch(|scratch| scratch.pages(PAGES))?;
    let mut frames = Frames::scattered(start, start + PAGES * PAGE, 1);
    let Some(top) = modules.last() else { return Ok(()) };
    // HEKI keeps the patch records of modules that are refused: the next one there hands them all over (LVBS contract §11.5).
    let mut records = Records::default();
    let mut labelled = modules.iter().filter(|module| !module.labels.is_empty());
    let other = labelled.next().unwrap_or(top);
    let refused = labelled.next_back().unwrap_or(other);
    dead(stage, vtl0, &mut frames, &mut records, [other, refused])?;
    let mut loaded: Vec<(Placed, u64)> = Vec::new();
    for (module, token) in modules.iter().zip(1..) {
        if module.name == refused.name {
            forgeries(stage, vtl0, &mut frames, &mut records, module)?;
        }
        let placed = records.place(module, stage.machine.ram(), &mut frames, (home(module), 0x230))?;
        let what = format!("{}, {} KiB", module.name, module.file.len() >> 10);
        validate(stage, vtl0, &placed, &token.to_string(), &what)?;
        // Linux gives the memory of a module's init to the next module as soon as it has run.
        if module.name != top.name {
            stage.call(vtl0, F::FreeModuleInit, [token, 0, 0], "0")?;
        }
        loaded.push((placed, token));
    }
    let (placed, token) = loaded.last().context("a module")?;
    let page = |kind: Kind| placed.pages(kind.number() as u64).first().copied();
    let text = page(Kind::Text).context("a module has text")?;
    stage.attempt(vtl0, "write a module's text", text, |asm| asm.mov(qword_ptr(rbx), rax))?;
    if let Some(page) = page(Kind::RoData) {
        stage.attempt(vtl0, "write a module's constants", page, |asm| asm.mov(qword_ptr(rbx), rax))?;
    }
    if let Some(page) = page(Kind::Data) {
        stage.attempt(vtl0, "execute a module's data", page, |asm| asm.jmp(rbx))?;
    }
    stage.call(vtl0, F::FreeModuleInit, [*token, 0, 0], "0")?;
    stage.call(vtl0, F::FreeModuleInit, [*token, 0, 0], "-EBUSY")?;
    if let Some(page) = page(Kind::InitText) {
        stage.attempt(vtl0, "execute freed init text", page, |asm| asm.jmp(rbx))?;
    }
    let site = loaded.iter().zip(modules).find_map(|((placed, _), module)| site_in(module, placed));
    if let Some(site) = &site {
        patch(stage, vtl0, site)?;
    }
    // A key with sites in all of them.
    for _ in 0..2 {
        flip_all(stage, vtl0, loaded.iter().map(|(placed, _)| placed).zip(modules))?;
    }
    let call = loaded.iter().zip(modules).find_map(|((placed, _), module)| call_in(module, placed));
    if let Some((site, call)) = &call {
        poke_call(stage, vtl0, site, call)?;
    }
    // The first is used by the others.
    stage.call(vtl0, F::UnloadModule, [1, 0, 0], "-EBUSY")?;
    for (_, token) in loaded.iter().rev() {
        stage.call(vtl0, F::UnloadModule, [*token, 0, 0], "0")?;
    }
    stage.call(vtl0, F::UnloadModule, [1, 0, 0], "-EINVAL")?;
    if let Some(site) = &site {
        let [first, ..] = poke(site, Form::Nop);
        request(stage, vtl0, first, "-ENOENT", "a site whose module is gone")?;
    }
    stage.permitted(vtl0, "write what was a module's text", text, |asm| asm.mov(byte_ptr(rbx), al))?;
    stage.attempt(vtl0, "execute what was a module's text", text, |asm| asm.jmp(rbx))?;
    // Once more, with no record but its own.
    let (again, token) = (&modules[0], modules.len() as u64 + 1);
    records.forget(home(again));
    let placed = records.place(again, stage.machine.ram(), &mut frames, (home(again), 0))?;
    validate(stage, vtl0, &placed, &token.to_string(), &format!("{} again", again.name))?;
    stage.call(vtl0, F::UnloadModule, [token, 0, 0], "0")
}

/// Whether the address is in the module's text that stays.
fn in_text(module: &Module, va: u64) -> bool {
    let text = module.parts.iter().find(|part| part.kind == Kind::Text);
    text.is_some_and(|text| va >= text.va && va - text.va < text.bytes.len() as u64)
}

/// A jump label in the module's text.
fn site_in(module: &Module, placed: &Placed) -> Option<Site> {
    let label = module.labels.iter().find(|label| in_text(module, label.va))?;
    let mut jump = [0; 5];
    jump.get_mut(..label.jump.len())?.copy_from_slice(&label.jump);
    Some(Site { jump, ..placed.place_of(label.va, label.jump.len()).ok()? })
}

/// A static call in the module's text that Linux makes a direct one.
fn call_in(module: &Module, placed: &Placed) -> Option<(Site, Call)> {
    let direct = |call: &&Call| call.direct != call.compiled && call.direct.first() == Some(&CALL);
    let call = module.calls.iter().filter(direct).find(|call| in_text(module, call.va))?;
    Some((placed.place_of(call.va, call.compiled.len()).ok()?, call.clone()))
}

/// Makes a static call a direct one, as Linux does, and tries to make it go elsewhere.
fn poke_call(stage: &mut Stage<'_>, vtl0: &mut Vtl0, site: &Site, call: &Call) -> Result<()> {
    for (step, what) in poke_code(site, &call.direct).into_iter().zip(["INT3", "the target", "CALL"]) {
        request(stage, vtl0, step, "0", &format!("static call: {what}"))?;
    }
    let mut behind = call.direct.clone();
    behind[1] ^= 1;
    let [int3, elsewhere, _] = poke_code(site, &behind);
    let [_, back, head] = poke_code(site, &call.compiled);
    request(stage, vtl0, int3, "0", "static call: INT3")?;
    request(stage, vtl0, elsewhere, "-EINVAL", "static call: a target that is no function")?;
    request(stage, vtl0, back, "0", "static call: its trampoline")?;
    request(stage, vtl0, head, "0", "static call: CALL")
}

/// Switches a jump label as Linux does, and tries what it does not do.
fn patch(stage: &mut Stage<'_>, vtl0: &mut Vtl0, site: &Site) -> Result<()> {
    let [int3, tail, head] = poke(site, other_form(stage, site)?);
    request(stage, vtl0, tail, "-EINVAL", "the tail out of turn")?;
    for (step, what) in [(int3, "INT3"), (tail, "the tail"), (head, "the first byte")] {
        request(stage, vtl0, step, "0", what)?;
    }
    request(stage, vtl0, write_at(site, 1, &[INT3]), "-EINVAL", "INT3 over a second byte")
}

/// Switches the jump labels in the text of all modules, phase by phase, as Linux does when one key changes.
fn flip_all<'m>(
    stage: &mut Stage<'_>,
    vtl0: &mut Vtl0,
    modules: impl Iterator<Item = (&'m Placed, &'m Module)>,
) -> Result<()> {
    let mut sites = Vec::new();
    for (placed, module) in modules {
        for (label, site) in module.labels.iter().zip(placed.sites(module)?) {
            if in_text(module, label.va) && sites.len() < FLIPS {
                sites.push((site, bytes_of(&site, other_form(stage, &site)?)));
            }
        }
    }
    let at = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    let shown = format!("{:#x} ({at:#x}, 0x0, 0x0): {} sites, phase by phase", F::PatchText.id(), sites.len());
    stage.step(vtl0, F::PatchText.name(), &shown, "0", |vtl0| {
        let machine = vtl0.machine();
        for patch in poke_batch(&sites) {
            bytes::write(machine.ram(), at, &patch.to_bytes())?;
            match vtl0.vtl_call(F::PatchText.id(), at, 0, 0)?.value {
                0 => {}
                error => return Ok(format!("{} for {patch:x?}", show_result(error))),
            }
        }
        Ok("0".to_owned())
    })
}

/// The form that a site does not have now.
fn other_form(stage: &Stage<'_>, site: &Site) -> Result<Form> {
    let mut first = [0];
    bytes::read(stage.machine.ram(), site.pa, &mut first)?;
    Ok(if first[0] == site.jump[0] { Form::Nop } else { Form::Jump })
}

fn request(stage: &mut Stage<'_>, vtl0: &mut Vtl0, patch: Patch, expected: &str, what: &str) -> Result<()> {
    let at = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    bytes::write(stage.machine.ram(), at, &patch.to_bytes())?;
    stage.noted_call(vtl0, F::PatchText, [at, 0, 0], expected, what)
}

/// Where Linux has the `struct module`: in the module's data.
fn home(module: &Module) -> u64 {
    module.parts.iter().find(|part| part.kind == Kind::Data).map_or(0, |part| part.va)
}

/// What must not be accepted in the module's place.
fn forgeries(
    stage: &mut Stage<'_>,
    vtl0: &mut Vtl0,
    frames: &mut Frames,
    records: &mut Records,
    module: &Module,
) -> Result<()> {
    let mut text = module.clone();
    let part = text.part_mut(Kind::Text).context("a module has text")?;
    part.bytes[0] ^= 1;
    let mut file = module.clone();
    file.file[0x100] ^= 1;
    for (what, forged, expected) in [
        ("a bit of its text changed", text, "-EINVAL"),
        ("without a signature", without_signature(module), "-ENODATA"),
        ("a bit of its file changed", file, "-EKEYREJECTED"),
    ] {
        let placed = records.place(&forged, stage.machine.ram(), frames, (home(module), 0))?;
        validate(stage, vtl0, &placed, expected, &format!("{}, {what}", module.name))?;
        placed.free(frames, |kind| kind != PATCHES);
    }
    Ok(())
}

/// Another module that was to be where `module` will be, and is refused.
fn dead(
    stage: &mut Stage<'_>,
    vtl0: &mut Vtl0,
    frames: &mut Frames,
    records: &mut Records,
    [other, module]: [&Module; 2],
) -> Result<()> {
    let unsigned = without_signature(other);
    let placed = records.place(&unsigned, stage.machine.ram(), frames, (home(module), 0))?;
    validate(stage, vtl0, &placed, "-ENODATA", &format!("{}, without a signature", other.name))?;
    placed.free(frames, |kind| kind != PATCHES);
    Ok(())
}

fn without_signature(module: &Module) -> Module {
    Module { file: module.file[..module.file.len() - TRAILER].to_vec(), ..module.clone() }
}

fn validate(stage: &mut Stage<'_>, vtl0: &mut Vtl0, placed: &Placed, expected: &str, what: &str) -> Result<()> {
    let machine = vtl0.machine();
    let list = vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, &placed.ranges))?;
    let records = placed.objects.iter().filter(|object| object.kind == PATCHES).count();
    let note = format!("{what}; patch records: {records}");
    stage.noted_call(vtl0, F::ValidateModule, [list.pa, list.nranges, 0], expected, &note)
}
