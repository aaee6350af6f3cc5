//! A module's pages of thunks against ITS: what its indirect branches go to where they may not stay in place.
//!
//! Linux allocates each page by itself, outside of the module's memory (`its_alloc`, arch/x86/kernel/alternative.c), and
//! writes it while it applies the file's retpolines. Which pages there are the module's branches show; what each must hold
//! follows from the file. So VTL0 names the frames, and they are frozen and compared like the module's own text, whose
//! permission they then have until the module goes.

use alloc::vec::Vec;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::{FrameRange, PAGE_SIZE};
use litebox_platform_lvbs::frames::{Permission, Transaction};
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vtl0::MemoryContainer;
use vsm_integrity::heap::{TryPush, filled};
use vsm_integrity::module::{ModuleError, Plan};

use super::parts::Part;
use crate::frozen::{NamedFrames, Pieces};
use crate::objects::Objects;

/// What kind of memory the pages count as.
const KIND: ModuleMemoryKind = ModuleMemoryKind::Text;
const MISSING: VsmError =
    VsmError::Module("a module's pages of thunks against ITS must be on its list, as ranges of kind 9");
const UNUSED: VsmError = VsmError::Module("a module must not come with pages of thunks that it does not branch to");
const DIFFERENT: VsmError = VsmError::Module("a page of thunks must hold what follows from the module's file");

/// The pages that the list names, each a part of its own, by address; claimed for the module and frozen with the next
/// [`Transaction::apply`].
pub(super) fn claim(
    objects: &Objects<Part>,
    token: Token,
    named: &mut NamedFrames,
    transaction: &mut Transaction<'_>,
) -> Result<Vec<MemoryContainer>, VsmError> {
    let owner = Owner::Module { token, kind: KIND };
    let mut pages = Vec::new();
    for range in objects.ranges(Part::Thunks) {
        let frames = Part::Thunks.frames(range)?;
        named.push(frames)?;
        transaction.stage(frames, owner, owner, Permission::R)?;
        let mut va = range.va();
        for gfn in frames.start()..frames.end() {
            let mut frames = Vec::new();
            frames.try_push(FrameRange::from_gfns(gfn, gfn + 1)?)?;
            pages.try_push(MemoryContainer { kind: KIND, va, frames })?;
            va = va.wrapping_add(PAGE_SIZE);
        }
    }
    Ok(pages)
}

/// Checks that the frozen pages are those that the module branches to, whose `addresses` have a 0 for one that it does not,
/// and that each holds its thunks.
pub(super) fn check(
    pages: &[MemoryContainer],
    addresses: &[u64],
    plan: &Plan<'_>,
    transaction: &Transaction<'_>,
    refused: impl Fn(ModuleError) -> VsmError,
) -> Result<(), VsmError> {
    let mut expected = filled(usize::try_from(PAGE_SIZE).unwrap_or_default(), 0)?;
    let mut used = 0usize;
    for (number, va) in addresses.iter().enumerate().filter(|(_, va)| **va != 0) {
        let at = pages.binary_search_by_key(va, |page| page.va).map_err(|_| MISSING)?;
        let page = pages.get(at).ok_or(MISSING)?;
        plan.write_thunk_page(number, &mut expected).map_err(&refused)?;
        let pieces = Pieces::of_frames(&page.frames)?;
        if *pieces.view(transaction)? != *expected {
            return Err(DIFFERENT);
        }
        used = used.saturating_add(1);
    }
    // No two numbers have one address.
    if used == pages.len() { Ok(()) } else { Err(UNUSED) }
}
