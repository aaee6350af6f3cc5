//! Random transactions with random hypercall failures: the registry, the naive model and the hypervisor must agree
//! after each. `PROPTEST_CASES=2600` makes 10^5 transactions.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::fake::{Fake, frames};
use super::naive::Naive;
use crate::address::FrameRange;
use crate::frames::{FrameRegistry, Owner, Permission, Transaction};
use crate::vtl0::Phase;

const FRAMES: usize = 1400;
const TRANSACTIONS: usize = 40;
/// One failure, and then as many as the roll-back puts up with.
const FAILURES_UNTIL_GIVING_UP: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Stage { range: FrameRange, claimant: Owner, owner: Owner, permission: Permission, skip: bool },
    Apply,
}

#[derive(Clone, Debug)]
struct Plan {
    steps: Vec<Step>,
    commit: bool,
    phase: Phase,
    fail: std::collections::BTreeMap<usize, u8>,
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        4 => Just(Owner::Nobody),
        4 => Just(Owner::BootProtected),
        2 => (1..3_u32).prop_map(|token| Owner::Module { token }),
        1 => any::<bool>().prop_map(|crash| Owner::Kexec { crash }),
        1 => Just(Owner::RingBuffer),
        1 => Just(Owner::Vtl1),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let end = u64::try_from(FRAMES).unwrap();
    let length = prop_oneof![4 => 1..20_u64, 1 => 1..900_u64];
    let range = (0..end, length).prop_map(move |(start, length)| frames(start, (start + length).min(end)));
    let stage = (range, owner(), any::<bool>(), 0..8_u8, prop::bool::weighted(0.3));
    let stage = stage.prop_map(|(range, claimant, release, bits, skip)| Step::Stage {
        range,
        claimant,
        owner: if release { Owner::Nobody } else { claimant },
        permission: Permission::from_bits(bits).unwrap(),
        skip,
    });
    prop_oneof![12 => stage, 1 => Just(Step::Apply)]
}

fn plan() -> impl Strategy<Value = Plan> {
    let fail = prop_oneof![
        2 => Just(std::collections::BTreeMap::new()),
        2 => btree_map(0..6_usize, any::<u8>(), 1..2),
        1 => btree_map(0..9_usize, any::<u8>(), 1..8),
    ];
    let phase = prop_oneof![Just(Phase::Boot), Just(Phase::Runtime)];
    (vec(step(), 1..10), prop::bool::weighted(0.8), phase, fail).prop_map(|(steps, commit, phase, fail)| Plan {
        steps,
        commit,
        phase,
        fail,
    })
}

/// A transaction on the model, beside the real one.
struct Run<'a> {
    naive: &'a mut Naive,
    fake: &'a Fake,
    phase: Phase,
    in_force: Vec<Permission>,
}

impl Run<'_> {
    /// Compares a real `apply` or `commit` with the model. Returns whether it succeeded.
    fn check(&mut self, go: impl FnOnce() -> bool) -> bool {
        let (calls, failed) = self.fake.with(|state| (state.calls, state.failed));
        let succeeded = go();
        let (calls, failed) = self.fake.with(|state| (state.calls - calls, state.failed - failed));
        let refused = self.phase == Phase::Runtime && self.naive.breaks_write_xor_execute();
        assert_eq!(succeeded, failed == 0 && !refused);
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
        }
    }
}

fn one_transaction(registry: &mut FrameRegistry, naive: &mut Naive, fake: &Fake, plan: &Plan) {
    fake.with(|state| {
        state.calls = 0;
        state.failed = 0;
        state.fail.clone_from(&plan.fail);
    });
    let in_force = naive.permissions();
    let mut run = Run { naive, fake, phase: plan.phase, in_force };
    let mut transaction = registry.begin(fake, plan.phase).unwrap();
    for step in &plan.steps {
        play(step, &mut transaction, &mut run);
    }
    if plan.commit {
        if run.check(|| transaction.commit().is_ok()) {
            naive.committed = naive.staged.clone();
        }
    } else {
        // A roll-back without a failure before it has one attempt less to lose.
        let failed = fake.with(|state| state.failed);
        drop(transaction);
        let failed = fake.with(|state| state.failed) - failed;
        run.rolled_back(failed + 1);
    }
    naive.assert_equals(registry);
    for ((gfn, entry), flags) in naive.committed.iter().enumerate().zip(fake.protections()) {
        assert_eq!(entry.1.map_flags().bits(), u32::from(flags), "frame {gfn:#x} at the hypervisor");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn registry_model_and_hypervisor_agree(plans in vec(plan(), TRANSACTIONS)) {
        let fake = Fake::new(FRAMES);
        let vtl1 = frames(600, 640);
        let mut registry = FrameRegistry::new(vtl1).unwrap();
        let mut naive = Naive::new(FRAMES, vtl1);
        for plan in &plans {
            one_transaction(&mut registry, &mut naive, &fake, plan);
        }
    }
}
