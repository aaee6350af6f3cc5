//! What a module's static calls may become, by what VTL1 knows of VTL0's functions.
//!
//! VTL0 chooses when a call changes, and among functions; an address that is no function's start is never the target of a
//! branch that was not compiled. Which function a call is meant for VTL1 does not know: Linux keeps that in writable data.

use vsm_integrity::kernel_info;
use vsm_integrity::module::{Instruction, Shape};

use crate::vsm::Token;

use super::kdata::KernelData;
use super::modules::ModuleMemoryMetadataMap;

/// The rules for the static calls of one module.
#[derive(Clone, Copy, Debug)]
pub struct StaticCalls<'a> {
    /// All modules.
    pub modules: &'a ModuleMemoryMetadataMap,
    /// What is known of the kernel.
    pub kernel: Option<&'a KernelData>,
    /// The module that the call is in.
    pub module: Token,
    /// Whether the call is in text for initialisation.
    pub is_init: bool,
}

impl StaticCalls<'_> {
    /// Whether `code` may stand at the static call at `va` that was compiled to `compiled`.
    #[must_use]
    pub fn allow(&self, shape: Shape, va: u64, compiled: &[u8], code: &[u8]) -> bool {
        let returns = self.modules.habits.returns(va);
        match shape.decode(code, va) {
            None => false,
            Some(Instruction::Nothing | Instruction::Zero) => true,
            Some(Instruction::Return) => returns.plain,
            // Its own trampoline, or for a trampoline what it was compiled with.
            Some(Instruction::Branch(_)) if code == compiled => true,
            // A trampoline is a function too, and would go round for ever.
            Some(Instruction::Branch(target)) if target == va => false,
            Some(Instruction::Branch(target)) => {
                shape != Shape::Call && returns.thunk && self.is_return_thunk(target) || self.is_function(target)
            }
        }
    }

    fn is_return_thunk(&self, target: u64) -> bool {
        let arch = self.kernel.and_then(|kernel| kernel_info::arch_info(&kernel.arch));
        arch.is_some_and(|arch| arch.return_thunk == target)
    }

    fn is_function(&self, target: u64) -> bool {
        self.kernel.is_some_and(|kernel| kernel.functions.contains(target))
            || self.modules.has_function(target, self.module, self.is_init)
    }
}
