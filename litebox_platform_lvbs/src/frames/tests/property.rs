//! Random lives of the registry: transactions with random hypercall failures, and somewhere among them the end of boot.
//! The registry, the naive model and the hypervisor must agree after each.
//!
//! A plain `cargo test` makes 10^4 transactions; `PROPTEST_CASES=2600` makes 104,000.

use std::cell::RefCell;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::fake::{Fake, frames};
use super::naive::Naive;
use crate::address::FrameRange;
use crate::frames::{FrameRegistry, Permission, Transaction};
use crate::owner::{ModuleMemoryKind, Owner};
use crate::phase::Phase;
use crate::token::Token;

const FRAMES: usize = 1400;
/// Transactions of a life.
const TRANSACTIONS: usize = 40;
/// One failure, and then as many as the roll-back puts up with.
const FAILURES_UNTIL_GIVING_UP: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Stage {
        range: FrameRange,
        claimant: Owner,
        owner: Owner,
        permission: Permission,
        skip: bool,
    },
    /// As at the end of boot.
    WriteXorExecute,
    Apply,
}

#[derive(Clone, Debug)]
struct Plan {
    steps: Vec<Step>,
    commit: bool,
    fail: std::collections::BTreeMap<usize, u8>,
}

/// What the lives of a run came to, so that a generator that no longer reaches something is noticed.
#[derive(Debug, Default)]
struct Tally {
    transactions: usize,
    committed: usize,
    after_boot: usize,
    hypercalls: usize,
    failed_hypercalls: usize,
    refused_claims: usize,
    closed_frames: usize,
    refused_write_and_execute: usize,
    given_up_roll_backs: usize,
}

fn owner() -> impl Strategy<Value = Owner> {
    const KINDS: [ModuleMemoryKind; 7] = [
        ModuleMemoryKind::Text,
        ModuleMemoryKind::Data,
        ModuleMemoryKind::RoData,
        ModuleMemoryKind::RoAfterInit,
        ModuleMemoryKind::InitText,
        ModuleMemoryKind::InitData,
        ModuleMemoryKind::InitRoData,
    ];
    prop_oneof![
        4 => Just(Owner::Nobody),
        4 => Just(Owner::BootProtected),
        2 => (1..3_u64, prop::sample::select(&KINDS)).prop_map(|(token, kind)| Owner::Module {
            token: Token::new(token).unwrap(),
            kind
        }),
        2 => Just(Owner::KernelText),
        1 => any::<bool>().prop_map(|crash| Owner::Kexec { crash }),
        1 => Just(Owner::RingBuffer),
        2 => Just(Owner::Trampoline),
        1 => Just(Owner::Vtl1),
    ]
}

/// A claim on some frames: to have them, to release them, or to hand them to anybody.
fn stage() -> impl Strategy<Value = Step> {
    let end = u64::try_from(FRAMES).unwrap();
    let length = prop_oneof![4 => 1..20_u64, 1 => 1..900_u64];
    let range = (0..end, length).prop_map(move |(start, length)| frames(start, (start + length).min(end)));
    let owners = prop_oneof![
        5 => owner().prop_map(|claimant| (claimant, claimant)),
        4 => owner().prop_map(|claimant| (claimant, Owner::Nobody)),
        1 => (owner(), owner()),
    ];
    (range, owners, 0..8_u8, prop::bool::weighted(0.3)).prop_map(|(range, (claimant, owner), bits, skip)| Step::Stage {
        range,
        claimant,
        owner,
        permission: Permission::from_bits(bits).unwrap(),
        skip,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![24 => stage(), 2 => Just(Step::Apply), 1 => Just(Step::WriteXorExecute)]
}

fn plan() -> impl Strategy<Value = Plan> {
    let fail = prop_oneof![
        2 => Just(std::collections::BTreeMap::new()),
        2 => btree_map(0..6_usize, any::<u8>(), 1..2),
        1 => btree_map(0..9_usize, any::<u8>(), 1..8),
    ];
    (vec(step(), 1..10), prop::bool::weighted(0.8), fail).prop_map(|(steps, commit, fail)| Plan { steps, commit, fail })
}

/// Transactions, and how many of them are made during boot. The first one after that is the end of boot itself.
fn life() -> impl Strategy<Value = (Vec<Plan>, usize)> {
    (vec(plan(), TRANSACTIONS), 0..=TRANSACTIONS).prop_map(|(mut plans, boot_ends)| {
        if let Some(plan) = plans.get_mut(boot_ends) {
            plan.steps = vec![Step::WriteXorExecute];
            plan.commit = true;
        }
        (plans, boot_ends)
    })
}

/// A transaction on the model, beside the real one.
struct Run<'a> {
    naive: &'a mut Naive,
    fake: &'a Fake,
    phase: Phase,
    in_force: Vec<Permission>,
    tally: &'a mut Tally,
}

impl Run<'_> {
    /// Compares a real `apply` or `commit` with the model. Returns whether it succeeded.
    fn check(&mut self, go: impl FnOnce() -> bool) -> bool {
        let (calls, failed) = self.fake.with(|state| (state.calls, state.failed));
        let succeeded = go();
        let (calls, failed) = self.fake.with(|state| (state.calls - calls, state.failed - failed));
        let refused = self.phase == Phase::Runtime && self.naive.breaks_write_xor_execute();
        assert_eq!(succeeded, failed == 0 && !refused);
        self.tally.refused_write_and_execute += usize::from(refused);
        if succeeded {
            assert_eq!(calls, self.naive.hypercalls(&self.in_force));
            self.in_force = self.naive.permissions();
        } else {
            // A refusal is the failure that starts the roll-back.
            self.rolled_back(failed + usize::from(refused));
        }
        succeeded
    }

    /// The model's roll-back; `failed` hypercalls have failed since before it became necessary.
    fn rolled_back(&mut self, failed: usize) {
        if failed >= FAILURES_UNTIL_GIVING_UP {
            self.tally.given_up_roll_backs += 1;
            for (entry, flags) in self.naive.committed.iter_mut().zip(self.fake.protections()) {
                if entry.1.map_flags().bits() != u32::from(flags) {
                    entry.1 = (0..8)
                        .filter_map(Permission::from_bits)
                        .find(|p| p.map_flags().bits() == u32::from(flags))
                        .unwrap();
                }
            }
        }
        self.naive.staged = self.naive.committed.clone();
        self.in_force = self.naive.permissions();
    }
}

fn play(step: &Step, transaction: &mut Transaction<'_>, run: &mut Run<'_>) {
    match *step {
        Step::Apply => {
            run.check(|| transaction.apply().is_ok());
        }
        Step::Stage { range, claimant, owner, permission, skip } => {
            let staged = if skip {
                transaction.stage_skipping_foreign(range, claimant, owner, permission).is_ok()
            } else {
                transaction.stage(range, claimant, owner, permission).is_ok()
            };
            let allowed = owner != Owner::Vtl1 && run.naive.stage(range, claimant, (owner, permission), skip);
            assert_eq!(staged, allowed, "{step:?}");
            run.tally.refused_claims += usize::from(!allowed);
        }
        Step::WriteXorExecute => {
            let closed = run.naive.stage_write_xor_execute();
            transaction.stage_write_xor_execute();
            run.tally.closed_frames += closed;
        }
    }
}

fn one_transaction(
    registry: &mut FrameRegistry,
    naive: &mut Naive,
    fake: &Fake,
    plan: &Plan,
    phase: Phase,
    tally: &mut Tally,
) {
    fake.with(|state| {
        state.calls = 0;
        state.failed = 0;
        state.fail.clone_from(&plan.fail);
    });
    let before = fake.protections();
    let in_force = naive.permissions();
    let mut run = Run { naive, fake, phase, in_force, tally };
    let mut transaction = registry.begin(fake, phase).unwrap();
    for step in &plan.steps {
        play(step, &mut transaction, &mut run);
    }
    if plan.commit {
        if run.check(|| transaction.commit().is_ok()) {
            run.naive.committed = run.naive.staged.clone();
            run.tally.committed += 1;
        }
    } else {
        // A roll-back without a failure before it has one attempt less to lose.
        let failed = fake.with(|state| state.failed);
        drop(transaction);
        let failed = fake.with(|state| state.failed) - failed;
        run.rolled_back(failed + 1);
    }
    naive.assert_equals(registry);
    for ((gfn, entry), (was, flags)) in naive.committed.iter().enumerate().zip(before.iter().zip(fake.protections())) {
        assert_eq!(entry.1.map_flags().bits(), u32::from(flags), "frame {gfn:#x} at the hypervisor");
        let both = |flags: u8| flags & (2 | 4) == 2 | 4;
        assert!(phase == Phase::Boot || both(*was) || !both(flags), "frame {gfn:#x} is writable and executable");
    }
    tally.transactions += 1;
    tally.after_boot += usize::from(phase == Phase::Runtime);
    fake.with(|state| {
        tally.hypercalls += state.calls;
        tally.failed_hypercalls += state.failed;
    });
}

#[test]
fn registry_model_and_hypervisor_agree() {
    let config = ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() };
    let tally = RefCell::new(Tally::default());
    let result = TestRunner::new(config).run(&life(), |(plans, boot_ends)| {
        let fake = Fake::new(FRAMES);
        let vtl1 = frames(600, 640);
        let mut registry = FrameRegistry::new(vtl1).unwrap();
        let mut naive = Naive::new(FRAMES, vtl1);
        for (index, plan) in plans.iter().enumerate() {
            let phase = if index < boot_ends { Phase::Boot } else { Phase::Runtime };
            one_transaction(&mut registry, &mut naive, &fake, plan, phase, &mut tally.borrow_mut());
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let tally = tally.into_inner();
    println!("{tally:?}");
    let Tally { transactions, committed, after_boot, refused_claims, failed_hypercalls, .. } = tally;
    let Tally { closed_frames, refused_write_and_execute, given_up_roll_backs, .. } = tally;
    // A shortened run may miss what is rare.
    if transactions >= 10_000 {
        let common = [committed, after_boot, refused_claims, failed_hypercalls].into_iter().min();
        assert!(common >= Some(transactions / 10), "the generator is lame: {tally:?}");
        let rare = [closed_frames, refused_write_and_execute, given_up_roll_backs].into_iter().min();
        assert!(rare >= Some(transactions / 1000), "the generator is lame: {tally:?}");
    }
}
