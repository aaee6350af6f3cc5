//! VTL1 as a confused deputy: for every call and every owner of a frame, what a call that names the frame can do to it.
//!
//! One file a call. VTL1's own frames, ranges that overlap in half and addresses beyond RAM are in each.

mod end_of_boot;
mod kdata;
mod kexec;
mod module;
mod protect;
mod ring;

use crate::kdata::machine;
use crate::setup::give_frames;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use vsm_sim::hosted::HostedMachine;

/// Where the frames of some owner lie: eight of them.
const OWNED: u64 = 0x2000;

/// Frames to name, as first frame and count: those of the owner whole, in part, half-overlapping from below and from
/// above, and from both sides.
const PLACES: [(u64, u64); 5] = [(OWNED, 8), (OWNED + 3, 1), (OWNED - 2, 4), (OWNED + 6, 4), (OWNED - 1, 10)];

/// Every owner but VTL1, with a permission it may have.
const OWNERS: [(Owner, Permission); 11] = [
    (Owner::Nobody, Permission::RW),
    (Owner::Nobody, Permission::ALL),
    (Owner::KernelText, Permission::RX),
    (Owner::BootProtected, Permission::ALL),
    (Owner::BootProtected, Permission::R),
    (Owner::Module { token: Token::new(7).unwrap(), kind: ModuleMemoryKind::Text }, Permission::RX),
    (Owner::Module { token: Token::new(7).unwrap(), kind: ModuleMemoryKind::RoData }, Permission::R),
    (Owner::Kexec { crash: false }, Permission::R),
    (Owner::Kexec { crash: true }, Permission::R),
    (Owner::RingBuffer, Permission::R),
    (Owner::Trampoline, Permission::R),
];

/// A machine on which the eight frames from `OWNED` on are `owner`'s.
fn machine_with(owner: Owner, permission: Permission) -> HostedMachine {
    let machine = machine();
    give_frames(&machine, OWNED..OWNED + 8, owner, permission);
    machine
}
