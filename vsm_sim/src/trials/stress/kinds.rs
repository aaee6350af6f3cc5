//! What VTL0 may do in a step, and how often: a line for each kind.
//!
//! Every call is made with values of its parameters' types, a new one too. What it reads in memory needs a line here, and a
//! function that puts it there.

use anyhow::{Result, ensure};
use litebox_platform_lvbs::vsm::{CallRow, VSM_BASE, VSM_RESERVED, VSM_TABLE_LEN, VsmFunction as F};
use vsm_handlers::ROWS;

use super::input::Input;
use super::layout::BUFFER_FRAMES;
use super::life::Life;
use super::lists::{self, DRIVERS_RANGES};
use super::player::Player;
use super::{attempts, generators, kexec, modules};
use crate::hv::GuestMemory;
use crate::vtl0::lists::{Filling, Range};
use crate::vtl0::optee::{DISCOVERY, Message};

/// Plays a step out of an input.
pub type Play = fn(&mut Player, &mut Input<'_>) -> Result<()>;

/// A kind of step.
pub struct Kind {
    /// As messages have it.
    pub name: &'static str,
    /// How often, compared with the others.
    pub weight: u64,
    /// Where and when it is played.
    pub place: Place,
    /// What is done.
    pub play: Play,
}

/// Where a kind of step is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Everywhere.
    Any,
    /// Only by real instructions.
    Machine,
    /// Only in lives in which something is made to fail.
    Failing,
    /// Only on the hosted machine with one thread: what other processors do at once there, one does at a chosen moment.
    Lockstep,
}

const fn any(weight: u64, name: &'static str, play: Play) -> Kind {
    Kind { name, weight, place: Place::Any, play }
}

/// The kinds.
pub static KINDS: &[Kind] = &[
    any(8, "any call", |player, input| {
        let [id, a1, a2, a3] = generators::registers(input, &player.layout, player.list);
        player.call(id, [a1, a2, a3]).map(drop)
    }),
    any(12, "a call with values of its types", |player, input| {
        let row = &TABLE[usize::from(input.byte()) % TABLE.len()];
        let [id, a1, a2, a3] = generators::registers_of(input, &player.layout, row, player.list);
        player.call(id, [a1, a2, a3]).map(drop)
    }),
    any(20, "the call that another processor makes", |player, _| {
        let (id, parameters) = player.life.latest_call();
        player.call(id, parameters).map(drop)
    }),
    any(3, "LockRegs", |player, _| player.call(F::LockRegs.id(), [0; 3]).map(drop)),
    any(2, "the end of boot", |player, _| player.call(F::SignalEndOfBoot.id(), [0; 3]).map(drop)),
    any(5, "ProtectMemory of a sound list", protect),
    any(6, "ProtectMemory of any list", |player, input| {
        player.list = lists::write_chain(input, &player.cpu.memory(), &player.layout, lists::memory_range);
        call_with_list(player, F::ProtectMemory, 0)
    }),
    any(1, "ProtectMemory of a list of one range a page", |player, input| {
        let count = DRIVERS_RANGES + usize::from(input.byte() % 32);
        let ranges: Vec<Range> = (0..count).map(|_| small_range(player, input, 2)).collect();
        send(player, F::ProtectMemory, &ranges)
    }),
    any(1, "ProtectMemory of all memory", |player, _| {
        let ranges = player.life.boot_ranges.clone();
        send(player, F::ProtectMemory, &ranges)
    }),
    any(2, "LoadKData of a sound kernel", |player, _| load(player, &mut Input::new(&SOUND_KERNEL))),
    any(3, "LoadKData of a kernel with mistakes", load),
    any(2, "LoadKData of any list", |player, input| {
        player.list = lists::write_chain(input, &player.cpu.memory(), &player.layout, lists::kdata_range);
        call_with_list(player, F::LoadKData, 0)
    }),
    any(2, "a ring", ring),
    any(14, "ValidateModule of a sound module", |player, input| {
        let (which, order, offset) = (input.byte(), input.byte(), input.byte());
        validate(player, &mut Input::new(&[which, order, offset]))
    }),
    any(3, "ValidateModule where one was refused", |player, input| {
        let (which, order, offset) = (input.byte(), input.byte(), input.byte());
        validate(player, &mut Input::new(&[which, order, offset, modules::STALE]))
    }),
    any(6, "ValidateModule of a spoilt module", |player, input| {
        let [which, order, offset, how, number] = [(); 5].map(|()| input.byte());
        let [low, high] = [(); 2].map(|()| input.byte());
        validate(player, &mut Input::new(&[which, order, offset, 1 + how % 10, number, low, high]))
    }),
    any(4, "ValidateModule again", |player, input| call_with_list(player, F::ValidateModule, input.below(9))),
    any(8, "FreeModuleInit", |player, input| with_token(player, input, F::FreeModuleInit)),
    any(10, "UnloadModule", |player, input| with_token(player, input, F::UnloadModule)),
    any(2, "CopySecondaryKey", |player, input| {
        player.list = generators::secondary_key(input, &player.cpu.memory(), &player.layout);
        call_with_list(player, F::CopySecondaryKey, 0)
    }),
    any(8, "a patch, step by step", |player, input| patch(player, input, [0, 1, 2])),
    any(4, "a patch in the wrong order", |player, input| {
        let order = [(); 3].map(|()| usize::from(input.byte()));
        patch(player, input, order)
    }),
    any(3, "EnableAPsVtl", |player, input| with_mask(player, input, F::EnableAPsVtl)),
    any(3, "BootAPs", |player, input| with_mask(player, input, F::BootAPs)),
    any(6, "KexecValidate of a sound image", |player, input| {
        let (crash, order) = (input.byte() & 1, input.byte());
        load_image(player, &mut Input::new(&[order]), crash)
    }),
    any(5, "KexecValidate of a spoilt image", |player, input| {
        let crash = input.byte() & 1;
        load_image(player, input, crash)
    }),
    any(2, "KexecValidate of the last list", |player, input| call_with_list(player, F::KexecValidate, input.below(3))),
    any(4, "forgetting a kexec image", |player, input| {
        player.call(F::KexecValidate.id(), [0, 0, u64::from(input.byte() & 1)]).map(drop)
    }),
    any(2, "OpteeMessage of a probe", probe),
    any(1, "OpteeMessage", |player, input| {
        let frame = generators::value(input, &player.layout);
        player.call(F::OpteeMessage.id(), [frame, 0, 0]).map(drop)
    }),
    any(1, "SetPlatformRootKey", |player, input| {
        let at = player.layout.frame(input) << 12 | input.below(4096);
        player.call(F::SetPlatformRootKey.id(), [at, 0, 0]).map(drop)
    }),
    any(2, "Query", |player, _| {
        let page = answer_frame(player) << 12;
        player.call(F::Query.id(), [page, 0, 0]).map(drop)
    }),
    any(4, "values that mean nothing", |player, input| {
        let function = F::ALL[usize::from(input.byte()) % F::ALL.len()];
        let values = [(); 3].map(|()| generators::value(input, &player.layout));
        player.call(function.id(), values).map(drop)
    }),
    any(2, "an id that is none", |player, input| {
        let beside = [VSM_BASE - 1, VSM_BASE + VSM_TABLE_LEN as u64, input.word(), u64::MAX];
        let ids: Vec<u64> = beside.into_iter().chain(VSM_RESERVED).collect();
        player.call(ids[usize::from(input.byte()) % ids.len()], [0; 3]).map(drop)
    }),
    any(14, "rewriting buffers", |player, input| {
        player.quietly("rewrites buffers", |player| {
            for _ in 0..=input.below(4) {
                generators::write_anywhere(input, &player.cpu.memory(), &player.layout);
            }
        });
        Ok(())
    }),
    any(4, "an MSR's own value", |player, input| attempts::msr(player, input, attempts::Change::None)),
    any(4, "another value for an MSR", |player, input| attempts::msr(player, input, attempts::Change::Pinned)),
    any(2, "a free bit of an MSR", |player, input| attempts::msr(player, input, attempts::Change::Free)),
    any(2, "a control register's own value", |player, input| attempts::control(player, input, attempts::Change::None)),
    any(4, "a free bit of a control register", |player, input| {
        attempts::control(player, input, attempts::Change::Free)
    }),
    any(4, "a pinned bit of a control register", |player, input| {
        attempts::control(player, input, attempts::Change::Pinned)
    }),
    any(2, "a descriptor table", attempts::table),
    any(5, "VTL1's memory", attempts::vtl1_memory),
    any(10, "memory", attempts::memory),
    Kind { name: "a storm of violations", weight: 1, place: Place::Machine, play: attempts::storm },
    Kind { name: "a failing hypercall", weight: 5, place: Place::Failing, play: fail },
    Kind { name: "a raced call", weight: 8, place: Place::Lockstep, play: race },
];

/// Every call, with the types of its parameters.
static TABLE: [CallRow; ROWS.len()] = ROWS;

/// The kernel that the made-up modules are for, without a mistake: what [`generators::kernel_data`] takes.
const SOUND_KERNEL: [u8; 5] = [5, 1, 0, 0, 0];

/// The kind with that name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn named(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == name).unwrap_or_else(|| panic!("no step is called {name:?}"))
}

/// A kind for this life, by its weight.
pub fn draw(input: &mut Input<'_>, life: &Life) -> &'static Kind {
    let hosted = life.world.hosted().is_some();
    draw_of(input, |place| match place {
        Place::Any => true,
        Place::Machine => !hosted,
        Place::Failing => life.fails && life.has_all_inside(),
        Place::Lockstep => hosted && life.lockstep,
    })
}

fn draw_of(input: &mut Input<'_>, fits: impl Fn(Place) -> bool) -> &'static Kind {
    let kinds = || KINDS.iter().filter(|kind| fits(kind.place));
    let total: u64 = kinds().map(|kind| kind.weight).sum();
    let mut at = input.short() % total.max(1);
    for kind in kinds() {
        if at < kind.weight {
            return kind;
        }
        at -= kind.weight;
    }
    &KINDS[0]
}

fn call_with_list(player: &mut Player, function: F, third: u64) -> Result<()> {
    let [first, count] = player.list;
    player.call(function.id(), [first, count, third]).map(drop)
}

/// Writes a list as the driver does and makes a call with it.
fn send(player: &mut Player, function: F, ranges: &[Range]) -> Result<()> {
    let at = player.layout.buffers << 12;
    lists::write_filled(&player.cpu.memory(), at, ranges, Filling::Driver);
    player.list = [at, ranges.len() as u64];
    call_with_list(player, function, 0)
}

/// A few frames with an attribute that makes sense.
fn small_range(player: &Player, input: &mut Input<'_>, most: u64) -> Range {
    let start = player.layout.frame(input);
    let attributes = [1, 3, 3, 5][usize::from(input.byte() & 3)];
    Range::direct(start << 12, (start + 1 + input.below(most)) << 12, attributes)
}

fn protect(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    let ranges: Vec<Range> = (0..=input.below(12)).map(|_| small_range(player, input, 8)).collect();
    send(player, F::ProtectMemory, &ranges)
}

fn load(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    player.list = generators::kernel_data(input, &player.cpu.memory(), &player.layout);
    call_with_list(player, F::LoadKData, 0)
}

fn ring(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    let pages = 1 << input.below(5);
    let start = player.layout.buffers + input.below(BUFFER_FRAMES);
    // Sizes that are no power of two, or no whole pages, now and then.
    let more = if input.byte() < 32 { input.short() } else { 0 };
    player.call(F::AllocateRingbufferMemory.id(), [start << 12, (pages << 12) + more, 0]).map(drop)
}

fn validate(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    let Some(attempt) = modules::place(input, &player.cpu.memory(), &player.layout) else {
        player.quietly("cannot place a module", |_| {});
        return Ok(());
    };
    player.list = attempt.list;
    let [first, count] = attempt.list;
    if player.call(F::ValidateModule.id(), [first, count, 0])? > 0 {
        player.life.with_known(|known| known.placed[attempt.which] = attempt.placed);
    }
    Ok(())
}

/// With the token of a module that lives, mostly; else with any.
fn with_token(player: &mut Player, input: &mut Input<'_>, function: F) -> Result<()> {
    let (how, index) = (input.byte(), usize::from(input.byte()));
    let living = player.life.with_known(|known| known.tokens.iter().nth(index % known.tokens.len().max(1)).copied());
    let token = match (how, living) {
        (0..=223, Some(token)) => token,
        (224..=239, _) => generators::value(input, &player.layout),
        _ => input.below(40),
    };
    player.call(function.id(), [token, 0, 0]).map(drop)
}

/// Requests for the steps of a patch, in that order; from 128 on a bit of the request is changed.
fn patch(player: &mut Player, input: &mut Input<'_>, order: [usize; 3]) -> Result<()> {
    let steps = player.life.with_known(|known| modules::poke_of(input, &known.placed));
    let Some(steps) = steps else {
        return player.call(F::PatchText.id(), [generators::value(input, &player.layout), 0, 0]).map(drop);
    };
    for how in order {
        let request = modules::write_request(steps[how % 3], how, &player.cpu.memory(), &player.layout);
        player.call(F::PatchText.id(), [request, 0, 0])?;
    }
    Ok(())
}

/// A mask of the processors that there are, or one with others too.
fn with_mask(player: &mut Player, input: &mut Input<'_>, function: F) -> Result<()> {
    let frame = player.layout.buffers + BUFFER_FRAMES - 1;
    let mut page = [0; 4096];
    for (vp, byte) in (0..player.life.vps).map(|vp| (vp, usize::try_from(vp / 8).unwrap_or_default())) {
        page[byte] |= 1 << (vp % 8);
    }
    if input.byte() < 64 {
        let at = usize::try_from(input.short()).unwrap_or_default();
        page[at % 4096] |= input.byte();
    }
    let _ = player.cpu.memory().write(frame << 12, &page);
    // Without a page for the boot signal, or with one: then VTL1 waits for those that have not come.
    let signal = if input.byte() & 1 == 0 { 0 } else { frame - 1 };
    player.call(function.id(), [frame, signal, 0]).map(drop)
}

fn load_image(player: &mut Player, input: &mut Input<'_>, crash: u8) -> Result<()> {
    let Some(image) = kexec::place(input, &player.cpu.memory(), &player.layout, crash == 1) else {
        player.quietly("cannot place a kexec image", |_| {});
        return Ok(());
    };
    player.list = image.list;
    let [first, count] = image.list;
    if player.call(F::KexecValidate.id(), [first, count, crash.into()])? == 0 {
        player.figures.images += 1;
    }
    Ok(())
}

/// A frame of the processor's own for what VTL1 answers.
fn answer_frame(player: &Player) -> u64 {
    player.layout.buffers + BUFFER_FRAMES - 3
}

/// A message of Linux's probe for OP-TEE.
fn probe(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    let message = &DISCOVERY[usize::from(input.byte()) % DISCOVERY.len()];
    let frame = answer_frame(player);
    let written = player.cpu.memory().write(frame << 12, &Message::to_bytes(&message.registers)).is_ok();
    let result = player.call(F::OpteeMessage.id(), [frame, 0, 0])?;
    // Unless others write there meanwhile, or VTL0 does in the middle of the call.
    if written && result == 0 && player.life.lockstep && !player.raced {
        let mut bytes = [0; 72];
        let _ = player.cpu.ram().read(frame << 12, &mut bytes);
        let registers = Message::from_bytes(&bytes);
        ensure!(message.accepts(&registers), "{} is answered with {registers:x?}", message.what);
    }
    Ok(())
}

/// Makes one of the next hypercalls fail, of whichever processor, and sometimes a mapping.
fn fail(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    let life = std::sync::Arc::clone(&player.life);
    player.quietly("lets hypercalls fail", |_| {
        let (injection, ring_fails) = generators::failure(input);
        if life.lockstep {
            // One at a time: then whatever fails is taken back.
            life.world.partition().clear_injections();
        }
        life.world.partition().inject(injection);
        if let Some(machine) = life.world.hosted() {
            machine.ring().set_failing(ring_fails);
            if input.byte() < 32 {
                machine.views().fail_after(input.below(2));
            }
        }
    });
    // Where one thread plays, the next call is this processor's.
    (draw_of(input, |place| place == Place::Any).play)(player, input)
}

/// A call in the middle of which a word of a buffer is rewritten.
fn race(player: &mut Player, input: &mut Input<'_>) -> Result<()> {
    let life = std::sync::Arc::clone(&player.life);
    let Some(machine) = life.world.hosted() else { return Ok(()) };
    player.quietly("will rewrite a word", |player| generators::race(input, machine, &player.layout));
    player.raced = true;
    let outcome = (draw_of(input, |place| place == Place::Any).play)(player, input);
    player.raced = false;
    machine.memory().set_race(None);
    outcome
}
