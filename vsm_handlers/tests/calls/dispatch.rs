//! Ids and the gate: only exact ids reach a handler, and only when the gate says so.
//!
//! The handlers are replaced by recorders; everything else is what the image uses. What is expected is what the lock
//! has, and the lock of the contract's calls what is written down here by hand; nothing is taken from the table under test.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::common::{BOOT_VP, CPUS, Machine, call, end_boot, kernel};
use litebox_platform_lvbs::vsm::{
    BootContext, CallContext, CallRow, CallerRule, Gate, HandlerMeta, Handles, PhaseRule, Refusal, TableIndex,
    VSM_BASE, VSM_RESERVED, VSM_TABLE_LEN, VsmCall, VsmFunction, VsmJumpTable,
};
use litebox_platform_lvbs::{Platform, VsmError};
use vsm_handlers::{GATE, ROWS, VsmTable, dispatch};

thread_local! {
    /// The handler that was reached since the cell was last emptied.
    static REACHED: Cell<Option<(VsmFunction, [u64; 3])>> = const { Cell::new(None) };
}

/// Stands for the real table with recorders in the handlers' places.
struct Recorders;

impl<C: VsmCall> Handles<C> for Recorders
where
    VsmTable: Handles<C>,
{
    const META: HandlerMeta = <VsmTable as Handles<C>>::META;

    fn call(_: &CallContext<'_>, registers: &[u64; 3]) -> Result<u32, Refusal> {
        REACHED.set(Some((C::FUNCTION, *registers)));
        Ok(7)
    }
}

fn recorders() -> VsmJumpTable {
    VsmJumpTable::new(&litebox_platform_lvbs::vsm_rows!(Recorders))
}

/// Makes a call and says which handler it reached, and the result.
fn reached(table: &VsmJumpTable, platform: &Platform, vp: u32, id: u64) -> (Option<u64>, i64) {
    REACHED.set(None);
    let answer = dispatch(table, &GATE, platform, vp, [id, 1, 2, 3]);
    let reached = REACHED.take();
    assert_eq!(answer.by_handler, reached.is_some());
    if let Some((_, registers)) = reached {
        assert_eq!(registers, [1, 2, 3], "the registers arrive in order");
    }
    (reached.map(|(function, _)| function.id()), answer.result)
}

/// When and by whom a call may be made.
#[derive(Clone, Copy)]
struct Rule {
    id: u64,
    /// Before the end of boot, and after it.
    boot: bool,
    runtime: bool,
    /// By a processor that is not the boot processor.
    other_vp: bool,
}

/// The rules of all calls, by ascending id, as the lock has them: what VTL0 was promised, written down apart from the rows.
fn rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let mut newest = BTreeMap::new();
        for line in include_str!("../../../abi/vsm.lock").lines().filter(|line| line.starts_with("0x")) {
            let mut words = line.split_whitespace();
            let id = u64::from_str_radix(&words.next().unwrap()[2..], 16).unwrap();
            let words: Vec<&str> = words.collect();
            let rule = Rule {
                id,
                boot: words.contains(&"phase=boot") || words.contains(&"phase=any"),
                runtime: words.contains(&"phase=runtime") || words.contains(&"phase=any"),
                other_vp: words.contains(&"caller=any"),
            };
            newest.insert(id, (!words.contains(&"retired")).then_some(rule));
        }
        newest.into_values().flatten().collect()
    })
}

/// What the contract says (§4, §5.6), by hand: the lock promises nothing else of these calls.
#[test]
fn the_lock_has_the_rules_of_the_contract() {
    const CONTRACT: [(u64, bool, bool, bool); 14] = [
        (0x1_ffe0, true, false, false),
        (0x1_ffe1, true, false, false),
        (0x1_ffe2, true, false, true),
        (0x1_ffe3, true, false, true),
        (0x1_ffe4, true, false, true),
        (0x1_ffe5, true, false, true),
        (0x1_ffe6, true, true, true),
        (0x1_ffe7, true, true, true),
        (0x1_ffe8, true, true, true),
        (0x1_ffe9, true, true, true),
        (0x1_ffea, true, true, true),
        (0x1_ffeb, true, true, true),
        (0x1_ffec, true, false, true),
        (0x1_fff0, true, true, true),
    ];
    for (id, boot, runtime, other_vp) in CONTRACT {
        let rule = rules().iter().find(|rule| rule.id == id).unwrap_or_else(|| panic!("{id:#x} is not in the lock"));
        assert_eq!((rule.boot, rule.runtime, rule.other_vp), (boot, runtime, other_vp), "{id:#x}");
    }
}

#[test]
fn the_gate_is_exhaustively_what_was_written_down() {
    let (table, platform) = (recorders(), kernel(&Machine::default()));
    for ended in [false, true] {
        if ended {
            end_boot(&platform);
        }
        for Rule { id, boot, runtime, other_vp } in rules().iter().copied() {
            for vp in 0..CPUS {
                let allowed = (if ended { runtime } else { boot }) && (other_vp || vp == BOOT_VP);
                let expected = if allowed { (Some(id), 7) } else { (None, -1) };
                assert_eq!(reached(&table, &platform, vp, id), expected, "{id:#x}, ended: {ended}, VP {vp}");
            }
        }
    }
}

/// The rule of the call with this id, if there is one.
fn rule(id: u64) -> Option<&'static Rule> {
    rules().iter().find(|rule| rule.id == id)
}

/// An id that reaches exactly what it must, both before and after the end of boot.
fn assert_exact(table: &VsmJumpTable, before: &Platform, after: &Platform, id: u64) {
    let rule = rule(id);
    let expected = if rule.is_some() { (Some(id), 7) } else { (None, -22) };
    assert_eq!(reached(table, before, BOOT_VP, id), expected, "{id:#x}");
    let after_boot = match rule {
        None => (None, -22),
        Some(rule) if rule.runtime => (Some(id), 7),
        Some(_) => (None, -1),
    };
    assert_eq!(reached(table, after, BOOT_VP, id), after_boot, "{id:#x} after the end of boot");
}

#[test]
fn only_exact_ids_reach_a_handler() {
    let (table, before, after) = (recorders(), kernel(&Machine::default()), kernel(&Machine::default()));
    end_boot(&after);
    // The whole range with its holes, its neighbours on both sides, and the places an index can wrap around at.
    for low in (0x1_ffd0..=0x2_0010).chain([0, 1, 16, 17, 0xffff_ffff]) {
        assert_exact(&table, &before, &after, low);
        for bit in 32..64 {
            assert_exact(&table, &before, &after, low | 1 << bit);
        }
        for upper in [0xffff_ffff_0000_0000, 0x8000_0001_0000_0000, 0x7fff_ffff_0000_0000] {
            assert_exact(&table, &before, &after, low | upper);
        }
        assert_exact(&table, &before, &after, low.wrapping_sub(0x1_ffe0));
        assert_exact(&table, &before, &after, low.wrapping_neg());
    }
    let holes = [VSM_BASE - 1, VSM_BASE + VSM_TABLE_LEN as u64];
    assert!(VSM_RESERVED.iter().chain(&holes).all(|id| VsmFunction::from_id(*id).is_none()));
}

#[test]
fn a_million_random_ids_reach_nothing() {
    let (table, before, after) = (recorders(), kernel(&Machine::default()), kernel(&Machine::default()));
    end_boot(&after);
    // SplitMix64 (Steele, Lea, Flood 2014): every 64-bit value once in 2^64 steps, the same ones in every run.
    let mut state: u64 = 0x1_ffe0;
    let mut exact = 0;
    for round in 0..1_000_000_u32 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut id = state;
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        id ^= id >> 31;
        if round % 4 == 0 {
            // Random upper bits over a low half near the range: the aliases that a truncation would let through.
            id = (id & !0xffff_ffff) | (0x1_ffd0 + (id & 0x3f));
        }
        exact += u32::from(rule(id).is_some());
        assert_exact(&table, &before, &after, id);
    }
    assert_eq!(exact, 0, "the seed is such that no random id is one of the calls");
}

#[test]
fn calls_that_are_not_implemented_say_so_when_the_gate_is_open() {
    let platform = kernel(&Machine::default());
    for row in ROWS.iter().filter(|row| !row.meta.implemented) {
        assert_eq!(call(&platform, BOOT_VP, [row.function.id(), 0, 0, 0]), -95, "{}", row.function.name());
    }
    end_boot(&platform);
    for row in ROWS.iter().filter(|row| !row.meta.implemented) {
        let expected = if rule(row.function.id()).unwrap().runtime { -95 } else { -1 };
        assert_eq!(call(&platform, BOOT_VP, [row.function.id(), 0, 0, 0]), expected, "{}", row.function.name());
    }
}

/// What the rules say, in plain words.
fn admitted(phase: PhaseRule, caller: CallerRule, ended: bool, bsp: bool) -> Result<(), VsmError> {
    let vp = if bsp { BOOT_VP } else { BOOT_VP + 1 };
    match (phase, ended) {
        (PhaseRule::Boot, true) => Err(VsmError::AfterEndOfBoot),
        (PhaseRule::Runtime, false) => Err(VsmError::BeforeEndOfBoot),
        _ if caller == CallerRule::Bsp && !bsp => Err(VsmError::NotBootProcessor(vp)),
        _ => Ok(()),
    }
}

#[test]
fn every_rule_holds_for_every_call_whatever_the_others_are() {
    let platforms = [kernel(&Machine::default()), kernel(&Machine::default())];
    end_boot(&platforms[1]);
    for phase in [PhaseRule::Boot, PhaseRule::Runtime, PhaseRule::Any] {
        for caller in [CallerRule::Bsp, CallerRule::Any] {
            for function in VsmFunction::ALL {
                // This call has the rules; all others have the opposite, so that no bit is another's.
                let rows = ROWS.map(|row| {
                    let mine = row.function == function;
                    let meta = HandlerMeta {
                        phase: if mine { phase } else { other_phase(phase) },
                        caller: if mine == (caller == CallerRule::Bsp) { CallerRule::Bsp } else { CallerRule::Any },
                        ..row.meta
                    };
                    CallRow { meta, ..row }
                });
                let (gate, index) = (Gate::new(&rows), TableIndex::of(function.id()).unwrap());
                for (ended, bsp) in [(false, false), (false, true), (true, false), (true, true)] {
                    let vp = if bsp { BOOT_VP } else { BOOT_VP + 1 };
                    let context = gate.admit(&platforms[usize::from(ended)], vp, index);
                    if let Ok(context) = &context {
                        assert_eq!(
                            BootContext::new(context).is_ok(),
                            phase == PhaseRule::Boot,
                            "the end of boot waits"
                        );
                    }
                    assert_eq!(
                        context.map(|_| ()),
                        admitted(phase, caller, ended, bsp),
                        "{function:?}, {phase:?}, {caller:?}, ended: {ended}, boot processor: {bsp}"
                    );
                }
            }
        }
    }
}

/// A rule under which no phase is treated as under `phase`, as far as there is one.
fn other_phase(phase: PhaseRule) -> PhaseRule {
    match phase {
        PhaseRule::Boot => PhaseRule::Runtime,
        PhaseRule::Runtime | PhaseRule::Any => PhaseRule::Boot,
    }
}

#[test]
fn the_gate_is_closed_where_no_call_is() {
    let (before, after) = (kernel(&Machine::default()), kernel(&Machine::default()));
    end_boot(&after);
    let end = VSM_BASE + VSM_TABLE_LEN as u64;
    let holes: Vec<u64> = (VSM_BASE..end).filter(|id| VsmFunction::from_id(*id).is_none()).collect();
    assert_eq!(holes, VSM_RESERVED);
    for id in holes {
        let index = TableIndex::of(id).expect("a hole is a place of the table");
        assert_eq!(index.id(), id);
        for platform in [&before, &after] {
            let refused = GATE.admit(platform, BOOT_VP, index).map(|_| ());
            assert_eq!(refused, Err(VsmError::UnknownFunction(id)));
        }
    }
    for id in [0, VSM_BASE - 1, end, end + 1, VSM_BASE + 64, VSM_BASE + 65, VSM_BASE.wrapping_neg(), u64::MAX] {
        assert_eq!(TableIndex::of(id), None, "{id:#x}");
    }
}
