//! A machine with the two made-up modules, and what their sites may become.

use vsm_sim::vtl0::kdata::Site;
use vsm_sim::vtl0::made_up::{LOCAL_FUNCTION, MadeUpKernel};
use vsm_sim::vtl0::modules::{Call, Placed};
use vsm_sim::vtl0::patcher::poke_code;

use super::{patch, site_bytes};
use crate::linux::Linux;

/// The kernel's return thunk, and the address of its read-only data (`KernelData::made_up`).
pub const RETURN_THUNK: u64 = 0xffff_ffff_81ff_ffff;
pub const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];
pub const ZERO: [u8; 5] = [0x2e, 0x2e, 0x2e, 0x31, 0xc0];
pub const RETURN: [u8; 5] = [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];

/// Both modules, accepted: the first has the token 1, the second uses it and has 2.
pub struct Loaded {
    pub kernel: MadeUpKernel,
    pub linux: Linux,
    pub placed: [Placed; 2],
}

impl Loaded {
    pub fn new(seed: Option<u64>) -> Self {
        let kernel = MadeUpKernel::new(300).unwrap();
        let mut linux = Linux::booted(seed, &kernel.data);
        let mut load = |module, token| {
            let placed = linux.place(module, 0);
            assert_eq!(linux.validate(&placed), token);
            placed
        };
        let placed = [load(&kernel.first, 1), load(&kernel.second, 2)];
        Self { kernel, linux, placed }
    }

    /// The static calls of a module, with the sites that they are at.
    pub fn calls(&self, which: usize) -> Vec<(Call, Site)> {
        let module = [&self.kernel.first, &self.kernel.second][which];
        let site = |call: &Call| self.placed[which].place_of(call.va, call.compiled.len()).unwrap();
        module.calls.iter().map(|call| (call.clone(), site(call))).collect()
    }

    /// Whether the call is in the init text.
    pub fn is_init(&self, which: usize, call: &Call) -> bool {
        let module = [&self.kernel.first, &self.kernel.second][which];
        let has = |va: u64, size: usize| (va..va + size as u64).contains(&call.va);
        module.parts.iter().any(|part| part.kind.is_init() && has(part.va, part.bytes.len()))
    }

    /// The address of a function that a module does not export, and of one in its init text.
    pub fn functions(&self, which: usize) -> [u64; 2] {
        let parts = &[&self.kernel.first, &self.kernel.second][which].parts;
        [parts[0].va + LOCAL_FUNCTION, parts[4].va]
    }

    /// Pokes all three steps; the first answer that is not 0.
    pub fn poke(&self, site: &Site, code: &[u8]) -> i64 {
        let steps = poke_code(site, code).into_iter().map(|step| patch(&self.linux.machine, step));
        let result = steps.take_while(|result| *result == 0).count();
        if result == 3 {
            assert_eq!(site_bytes(&self.linux.machine, site), code);
            return 0;
        }
        patch(&self.linux.machine, poke_code(site, code)[result])
    }

    /// Everything that may stand at the call.
    pub fn allowed(&self, which: usize, call: &Call) -> Vec<Vec<u8>> {
        let ([first, first_init], [second, second_init]) = (self.functions(0), self.functions(1));
        let mut allowed = vec![call.compiled.clone(), call.direct.clone()];
        let mut targets = vec![self.kernel.helper.1, first, second, self.placed_function(0)];
        if self.is_init(which, call) {
            targets.push([first_init, second_init][which]);
        }
        match call.compiled[0] {
            0xe8 => allowed.extend([NOP.to_vec(), ZERO.to_vec()]),
            0xe9 => {
                allowed.push(RETURN.to_vec());
                targets.push(RETURN_THUNK);
            }
            _ => targets.push(RETURN_THUNK),
        }
        allowed.extend(targets.into_iter().map(|target| branch(call, target)));
        allowed
    }

    /// What must not stand there.
    pub fn forbidden(&self, which: usize, call: &Call) -> Vec<(&'static str, Vec<u8>)> {
        let ([local, first_init], [_, second_init]) = (self.functions(0), self.functions(1));
        let to = |target| branch(call, target);
        let mut forbidden = vec![
            ("behind a function of the kernel", to(self.kernel.helper.1 + 1)),
            ("before a function of a module", to(local - 1)),
            ("data", to(self.kernel.first.parts[1].va)),
            ("itself", to(call.va)),
            ("what comes behind it", to(call.va + call.compiled.len() as u64)),
            ("the init text of another module", to([second_init, first_init][which])),
            ("where nothing is", to(self.kernel.second.parts[0].va + 0x10_0000)),
        ];
        if !self.is_init(which, call) {
            forbidden.push(("init text from text that stays", to([first_init, second_init][which])));
        }
        let mut other = call.direct.clone();
        other[0] = if call.compiled[0] == 0xe9 { 0xe8 } else { 0xe9 };
        forbidden.push(("a branch of another shape", other));
        match call.compiled[0] {
            0xe8 => forbidden.extend([("a return", RETURN.to_vec()), ("a jump to the thunk", to(RETURN_THUNK))]),
            0xe9 => forbidden.extend([("a NOP", NOP.to_vec()), ("a zero", ZERO.to_vec())]),
            _ => forbidden.push(("another condition", [&[0x0f, 0x85], &call.direct[2..]].concat())),
        }
        forbidden
    }

    /// The function that a module exports.
    pub fn placed_function(&self, which: usize) -> u64 {
        [&self.kernel.first, &self.kernel.second][which].parts[0].va + vsm_sim::vtl0::made_up::FUNCTION
    }
}

/// The call's branch to `target`.
pub fn branch(call: &Call, target: u64) -> Vec<u8> {
    let (opcode, _) = call.compiled.split_at(call.compiled.len() - 4);
    let distance = target.wrapping_sub(call.va + call.compiled.len() as u64).cast_signed();
    [opcode, &i32::try_from(distance).unwrap().to_le_bytes()].concat()
}
