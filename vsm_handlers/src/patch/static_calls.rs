//! What static calls of a module or of the kernel may become, by what VTL1 knows of VTL0's functions.
//!
//! VTL0 chooses when a call changes, and among functions; an address that is no function's start is never the target of a
//! branch that was not compiled. Which function a call is meant for VTL1 does not know: Linux keeps that in writable data. The
//! kernel's own trampolines say it too, and those are sealed: where one leads, the calls compiled to go there may lead as well,
//! though nobody exports that function.

use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vtl0::functions::KERNEL;
use litebox_platform_lvbs::vtl0::{KernelData, ModuleMemoryMetadataMap};
use vsm_integrity::kernel_info;
use vsm_integrity::module::static_calls::trampoline_target;
use vsm_integrity::module::{Instruction, SealedText, Shape};

/// The rules for the static calls of the kernel or of one module.
#[derive(Clone, Copy)]
pub(super) struct StaticCalls<'a> {
    /// All modules.
    pub(super) modules: &'a ModuleMemoryMetadataMap,
    /// What is known of the kernel.
    pub(super) kernel: Option<&'a KernelData>,
    /// Its text.
    pub(super) text: &'a dyn SealedText,
    /// The module in whose text for initialisation the call is, if in any.
    pub(super) init_of: Option<Token>,
}

impl StaticCalls<'_> {
    /// Whether `code` may stand at the static call at `va` that was compiled to `compiled`.
    pub(super) fn allow(&self, shape: Shape, va: u64, compiled: &[u8], code: &[u8]) -> bool {
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
                shape != Shape::Call && returns.thunk && self.is_return_thunk(target)
                    || self.is_function(target)
                    || self.is_kernels_choice(shape, va, compiled, target)
            }
        }
    }

    fn is_return_thunk(&self, target: u64) -> bool {
        let arch = self.kernel.and_then(|kernel| kernel_info::arch_info(&kernel.arch));
        // In the kernel: VTL0 may say that there is no thunk, with a 0, which is nowhere to go.
        arch.is_some_and(|arch| arch.return_thunk == target && target >= KERNEL)
    }

    fn is_function(&self, target: u64) -> bool {
        self.kernel.is_some_and(|kernel| kernel.functions.contains(target))
            || self.modules.has_function(target, self.init_of)
    }

    /// Whether the call was compiled to go to a trampoline of the kernel, as a signed relocation says, and that goes to
    /// `target` in the kernel.
    fn is_kernels_choice(&self, shape: Shape, va: u64, compiled: &[u8], target: u64) -> bool {
        let Some(Instruction::Branch(trampoline)) = shape.decode(compiled, va) else { return false };
        let in_kernel = |va| self.kernel.is_some_and(|kernel| kernel.text.contains(va));
        in_kernel(trampoline) && in_kernel(target) && trampoline_target(self.text, trampoline) == Some(target)
    }
}

#[cfg(test)]
mod tests {
    use vsm_integrity::module::NoSealedText;

    use super::*;

    fn calls<'a>(modules: &'a ModuleMemoryMetadataMap, kernel: &'a KernelData) -> StaticCalls<'a> {
        let (kernel, text) = (Some(kernel), &NoSealedText);
        StaticCalls { modules, kernel, text, init_of: None }
    }

    #[test]
    fn a_return_thunk_lies_in_the_kernel() {
        let (kernel, va) = (0xffff_ffff_8100_0000, 0xffff_ffff_c000_1000);
        for (thunk, fine) in [
            (kernel, true),
            (KERNEL, true),
            (KERNEL - 1, false),
            (0xffff_8880_0000_1000, false),
            (0x1000, false),
            (0, false),
        ] {
            // The last word of five.
            let data = KernelData { arch: alloc::vec![0, 0, 0, 0, thunk], ..KernelData::default() };
            let modules = ModuleMemoryMetadataMap::default();
            let calls = calls(&modules, &data);
            assert_eq!(calls.is_return_thunk(thunk), fine, "{thunk:#x}");
            assert!(!calls.is_return_thunk(thunk ^ 0x10));
            // And so a jump there is allowed only then: the displacement is counted from the jump's end.
            let displacement = thunk.wrapping_sub(va + 5);
            let Ok(near) = i32::try_from(displacement.cast_signed()) else { continue };
            let code = [&[0xe9][..], &near.to_le_bytes()].concat();
            assert_eq!(calls.allow(Shape::Jump, va, &[0; 5], &code), fine, "{thunk:#x}");
        }
        // Near the ends of the address space a displacement goes round.
        let data = KernelData { arch: alloc::vec![0; 5], ..KernelData::default() };
        let modules = ModuleMemoryMetadataMap::default();
        let calls = calls(&modules, &data);
        let va = 0_u64.wrapping_sub(0x1000);
        let code = [&[0xe9][..], &0x0ffb_u32.to_le_bytes()].concat();
        assert_eq!(Shape::Jump.decode(&code, va), Some(Instruction::Branch(0)));
        assert!(!calls.allow(Shape::Jump, va, &[0; 5], &code));
    }
}
