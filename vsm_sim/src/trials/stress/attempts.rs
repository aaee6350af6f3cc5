//! Instructions that VTL1 may have to answer for, and what must come of them.

use anyhow::{Result, ensure};
use litebox_platform_lvbs::hv::{HvRegisterName, MapFlags};

use super::cpu::{Attempt, Outcome, PINNED, Pinned, XD_DISABLE};
use super::input::Input;
use super::player::Player;
use crate::hv::Access;

/// What is changed of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Bits that are VTL0's.
    Free,
    /// A pinned bit.
    Pinned,
}

/// Bits of CR0 and CR4 that VTL0's kernel can change in 64-bit mode without harm to itself. CR0: MP, TS, AM, which are its own,
/// and WP. CR4: TSD, MCE, PGE, PCE, which are its own, and DE, SMEP.
const CR0_FREE: [u64; 3] = [1 << 1, 1 << 3, 1 << 18];
const CR0_PINNED: [u64; 1] = [1 << 16];
const CR4_FREE: [u64; 4] = [1 << 2, 1 << 6, 1 << 7, 1 << 8];
const CR4_PINNED: [u64; 2] = [1 << 3, 1 << 20];
/// Bits of IA32_MISC_ENABLE that are VTL0's: fast strings, MONITOR, xTPR, turbo (Intel SDM vol. 4, MSR 1A0h).
const MISC_ENABLE_FREE: [u64; 4] = [1, 1 << 18, 1 << 23, 1 << 38];
/// Components of XCR0 that a processor may have beside x87 and SSE: AVX, PKRU.
const XCR0_PINNED: [u64; 2] = [1 << 2, 1 << 9];

fn choose<const N: usize>(input: &mut Input<'_>, bits: [u64; N]) -> u64 {
    bits[usize::from(input.byte()) % N]
}

fn registers(control: bool) -> impl Iterator<Item = (usize, Pinned)> {
    PINNED.into_iter().enumerate().filter(move |(_, pinned)| pinned.msr.is_none() == control)
}

/// WRMSR of an MSR that LockRegs pins; of the one with free bits where those are to change.
///
/// # Errors
/// When what comes of it is not what must.
pub fn msr(player: &mut Player, input: &mut Input<'_>, change: Change) -> Result<()> {
    let fits = |pinned: &Pinned| change != Change::Free || pinned.mask != u64::MAX;
    let all = || registers(false).filter(|(_, pinned)| fits(pinned));
    let chosen = usize::from(input.byte()) % all().count();
    let Some((index, Pinned { name, msr: Some(number), .. })) = all().nth(chosen) else { return Ok(()) };
    let now = player.cpu.register(name);
    let value = match (change, name) {
        (Change::None, _) => now,
        (Change::Free, _) => now ^ choose(input, MISC_ENABLE_FREE),
        // Sometimes together with a free one.
        (_, HvRegisterName::MISC_ENABLE) => {
            now ^ XD_DISABLE ^ if input.byte() & 1 == 0 { 0 } else { choose(input, MISC_ENABLE_FREE) }
        }
        // SCE: other bits are not VTL0's to change while it runs.
        (_, HvRegisterName::EFER) => now ^ 1,
        // A selector has 16 bits, an address stays canonical.
        (_, HvRegisterName::SYSENTER_CS) => now ^ 1 << input.below(16),
        _ => now ^ 1 << input.below(20),
    };
    let what = match change {
        Change::None => "wrmsr, the same value",
        Change::Free => "wrmsr, a free bit",
        Change::Pinned => "wrmsr, another value",
    };
    let outcome = player.attempt(what, &Attempt::Msr(number, name, value))?;
    judge(player, index, value, outcome)
}

/// A write of CR0, CR4, or XCR0 where the machine stops at that.
///
/// # Errors
/// When what comes of it is not what must.
pub fn control(player: &mut Player, input: &mut Input<'_>, change: Change) -> Result<()> {
    // XCR0 has no free bits.
    let fits = |pinned: &Pinned| change != Change::Free || pinned.mask != u64::MAX;
    let fitting: Vec<(usize, Pinned)> =
        registers(true).filter(|(_, pinned)| fits(pinned) && player.cpu.stops_at(pinned.name)).collect();
    let (index, Pinned { name, .. }) = fitting[usize::from(input.byte()) % fitting.len()];
    let (free, pinned) = match name {
        HvRegisterName::CR0 => (choose(input, CR0_FREE), choose(input, CR0_PINNED)),
        HvRegisterName::CR4 => (choose(input, CR4_FREE), choose(input, CR4_PINNED)),
        _ => (0, choose(input, XCR0_PINNED)),
    };
    let (what, bits) = match change {
        Change::None => ("control register, same value", 0),
        Change::Free => ("control register, a free bit", free),
        // Sometimes together with a free one.
        Change::Pinned => ("control register, pinned bit", pinned | if input.byte() & 1 == 0 { 0 } else { free }),
    };
    let value = player.cpu.register(name) ^ bits;
    let outcome = player.attempt(what, &Attempt::Control(name, value))?;
    judge(player, index, value, outcome)
}

/// A locked register may be written exactly with its pinned bits as they are; others are VTL0's.
fn judge(player: &mut Player, index: usize, value: u64, outcome: Outcome) -> Result<()> {
    let Pinned { name, mask, optional, .. } = PINNED[index];
    let allowed = player.locked.is_none_or(|locked| (locked[index] ^ value) & mask == 0);
    let vp = player.vp();
    // Where hypercalls fail, the hypervisor may have seemed not to know the register.
    let unknown = optional && player.life.fails;
    ensure!(allowed || unknown || outcome == Outcome::Fault, "VP {vp} has changed {name} to {value:#x}");
    // Where hypercalls fail, VTL1 may not be able to carry a write out.
    ensure!(!allowed || player.life.fails || outcome == Outcome::Done, "VP {vp} may not write {value:#x} to {name}");
    let now = player.cpu.register(name);
    ensure!(outcome == Outcome::Fault || now == value, "VP {vp} has written {value:#x} to {name}, which is {now:#x}");
    Ok(())
}

/// A load of a descriptor-table register, which a locked processor may not.
///
/// # Errors
/// When a locked processor could.
pub fn table(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    use HvRegisterName as N;
    if player.locked.is_none() {
        // What the value does not matter to is not loaded for nothing.
        player.quietly("no table yet", |_| {});
        return Ok(());
    }
    let name = [N::GDTR, N::IDTR, N::TR][usize::from(input.byte()) % 3];
    let outcome = player.attempt("a descriptor table", &Attempt::Table(name))?;
    ensure!(outcome == Outcome::Fault, "VP {} has loaded {name}", player.vp());
    Ok(())
}

fn access(input: &mut Input<'_>) -> Access {
    [Access::Read, Access::Write, Access::Execute][usize::from(input.byte() % 3)]
}

fn what(access: Access) -> &'static str {
    match access {
        Access::Read => "a load",
        Access::Write => "a store",
        Access::Execute => "a jump",
    }
}

/// An access to VTL1's memory, which is always a #GP.
///
/// # Errors
/// When it is not.
pub fn vtl1_memory(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    let access = access(input);
    let frames = player.layout.vtl1.clone();
    let frame = match input.byte() & 7 {
        0 => frames.start,
        1 => frames.end - 1,
        _ => frames.start + input.short() % (frames.end - frames.start),
    };
    let gpa = frame << 12 | (input.short() % 0x1ff) << 3;
    let outcome = player.attempt(what(access), &Attempt::Memory(access, gpa))?;
    ensure!(outcome == Outcome::Fault, "VP {} got at VTL1's memory at {gpa:#x} ({})", player.vp(), what(access));
    Ok(())
}

/// An access to any other memory. A jump goes only to code that does no harm.
///
/// # Errors
/// When it is allowed and VTL1 has taken that away, or the other way round.
pub fn memory(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    let access = access(input);
    let target = player.layout.target - u64::from(player.vp()) + input.below(player.life.vps.into());
    let gpa = match (access, input.byte() & 3) {
        (Access::Execute, _) => target << 12,
        // Behind the code.
        (_, 0) => target << 12 | 0x800 | (input.short() % 0xff) << 3,
        _ => player.layout.frame(input) << 12 | 0x800,
    };
    let right = match access {
        Access::Read => MapFlags::READ,
        Access::Write => MapFlags::WRITE,
        Access::Execute => MapFlags::KERNEL_EXECUTE,
    };
    let (frame, partition) = (gpa >> 12, player.cpu.partition());
    let allowed = partition.is_ram(frame) && partition.protection(frame).contains(right);
    let outcome = player.attempt(what(access), &Attempt::Memory(access, gpa))?;
    // Where others work meanwhile, only they know what the frame may be used for now.
    let expected = if allowed { Outcome::Done } else { Outcome::Fault };
    ensure!(
        !player.life.lockstep || outcome == expected,
        "VP {}: {} at {gpa:#x} is {outcome}, not {expected}",
        player.vp(),
        what(access)
    );
    Ok(())
}

/// Many violations in a row.
///
/// # Errors
/// When one of them is none.
pub fn storm(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    for _ in 0..20 {
        vtl1_memory(player, input)?;
    }
    Ok(())
}
