//! The hypercall instruction sequence.

use core::arch::asm;

use super::layout;
use crate::hv::{HypercallControl, HypercallResult};

/// Calls the hypervisor through the hypercall page (TLFS "Hypercall Interface", x64 calling convention: RCX control,
/// RDX input address, R8 output address, RAX result; volatile are RAX, RCX, RDX, R8 to R11 and XMM0 to XMM5).
///
/// # Safety
/// The hypercall page is enabled, and the pages at the two physical addresses may be read, and written, by the
/// hypervisor as the call's code says.
pub unsafe fn hypercall(control: HypercallControl, input: u64, output: u64) -> HypercallResult {
    let result: u64;
    // SAFETY: the caller's promise; the clobbers are those of the convention above, which is also Windows' one.
    unsafe {
        asm!(
            "call {page}",
            page = in(reg) layout::hypercall_page(),
            inout("rcx") control.raw() => _,
            inout("rdx") input => _,
            inout("r8") output => _,
            out("rax") result,
            clobber_abi("win64"),
        );
    }
    HypercallResult(result)
}
