//! A module's memory while it is being looked at: claimed, and frozen.
//!
//! What holds something that must be explained is made unwritable for VTL0 before a byte of it is read.

use alloc::vec::Vec;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::frames::{Permission, Transaction};
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vtl0::MemoryContainer;
use vsm_integrity::heap::{TryPush, with_room};

use super::parts::Part;
use crate::frozen::NamedFrames;
use crate::objects::{ObjectKind, Objects};

/// What VTL0 may do with a part once the module is accepted (LVBS contract §5.7).
pub(super) fn accepted(kind: ModuleMemoryKind) -> Permission {
    match kind {
        ModuleMemoryKind::Text | ModuleMemoryKind::InitText => Permission::RX,
        ModuleMemoryKind::RoData | ModuleMemoryKind::InitRoData => Permission::R,
        ModuleMemoryKind::Data | ModuleMemoryKind::RoAfterInit | ModuleMemoryKind::InitData => Permission::RW,
    }
}

/// The parts of the module's memory, claimed for it: what must be explained is frozen with the next
/// [`Transaction::apply`], the rest has its final permission then.
pub(super) fn claim(
    objects: &Objects<Part>,
    token: Token,
    named: &mut NamedFrames,
    transaction: &mut Transaction<'_>,
) -> Result<Vec<MemoryContainer>, VsmError> {
    let mut parts: Vec<MemoryContainer> = with_room(ModuleMemoryKind::COUNT)?;
    for part in Part::ALL {
        let Some(kind) = part.memory() else { continue };
        let mut ranges = objects.ranges(*part).peekable();
        let Some(va) = ranges.peek().map(|range| range.va()) else { continue };
        let owner = Owner::Module { token, kind };
        let permission = if kind.is_explained() { Permission::R } else { accepted(kind) };
        let mut frames = Vec::new();
        for range in ranges {
            let run = part.frames(range)?;
            named.push(run)?;
            transaction.stage(run, owner, owner, permission)?;
            frames.try_push(run)?;
        }
        parts.push(MemoryContainer { kind, va, frames });
    }
    Ok(parts)
}

/// Stages the permissions of an accepted module.
pub(super) fn promote(
    parts: &[MemoryContainer],
    token: Token,
    transaction: &mut Transaction<'_>,
) -> Result<(), VsmError> {
    for part in parts.iter().filter(|part| part.kind.is_explained()) {
        let owner = Owner::Module { token, kind: part.kind };
        for frames in &part.frames {
            transaction.stage(*frames, owner, owner, accepted(part.kind))?;
        }
    }
    Ok(())
}
