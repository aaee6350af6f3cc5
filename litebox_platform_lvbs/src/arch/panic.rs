//! What happens when VTL1 itself is broken.
//!
//! The message is printed, VTL0 gets a #GP on this processor, and from then on every processor answers every call
//! with an error. No processor hangs: VTL0 stays able to print, and to reboot.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::bare_metal::BareMetal;
use super::vp::{self, VpState};
use super::vtl_switch::return_to_vtl0;
use super::{logger, messages};
use crate::error::VsmError;
use crate::failure::set_failed;
use crate::hardware::calls;
use crate::hv::{HvRegisterName, InputVtl, PendingEvent};
use crate::vsm::VsmFunction;

/// Whether a return to VTL0 is possible: set by boot before the first VTL return.
static CAN_RETURN: AtomicBool = AtomicBool::new(false);

/// Makes panics return to VTL0 from now on, instead of stopping the processor.
pub fn allow_return() {
    CAN_RETURN.store(true, Ordering::Release);
}

/// Ends VTL1's service. The calling processor only answers with errors from here on.
pub fn fail(message: fmt::Arguments<'_>) -> ! {
    set_failed();
    logger::print_panic(message);
    if !CAN_RETURN.load(Ordering::Acquire) {
        stop();
    }
    let vp = VpState::current();
    if vp.vtl_return.get() == 0 {
        stop();
    }
    // A second panic on the same processor comes from answering the first one: just go on answering.
    if !vp.panicked.replace(true) {
        if vp.in_call.get()
            && let Some(function) = VsmFunction::from_id(vp.vtl0.get().rdi)
        {
            logger::print_panic(format_args!("the latest call of VP {} is {}", vp.index, function.name()));
        }
        inject_general_protection();
    }
    serve_failed_anew(vp)
}

/// Serves from the top of the calling processor's stack: however often it panics, the stack does not grow.
fn serve_failed_anew(vp: &VpState) -> ! {
    extern "C" fn serve() -> ! {
        serve_failed(VpState::current())
    }
    // SAFETY: `create_area` has mapped the processor's stack; nothing of what lies on it is used again, for `serve` does not
    // return.
    unsafe {
        asm!("mov rsp, {top}", "xor ebp, ebp", "call {serve}", "ud2", top = in(reg) vp::stack_top(vp.index), serve = sym serve, options(noreturn))
    }
}

/// Stops where no return to VTL0 is possible: its loader waits for ever, with the reason on the console.
fn stop() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Answers every entry of this processor after VTL1 has failed, the current call included.
pub fn serve_failed(vp: &VpState) -> ! {
    loop {
        // Before each return, the first one included: with its slot occupied the hypervisor would not report another
        // intercept, and an intercepted instruction that is not answered is tried again for ever.
        let stopped = messages::take(vp).is_some();
        if vp.in_call.get() {
            let mut registers = vp.vtl0.get();
            registers.r8 = VsmError::Vtl1Failed.errno().to_result().cast_unsigned();
            vp.vtl0.set(registers);
        } else if stopped {
            inject_general_protection();
        }
        return_to_vtl0(vp);
    }
}

/// Tells VTL0 by a #GP that what it was doing has failed.
fn inject_general_protection() {
    let event: crate::hv::HvRegisterValue = PendingEvent::GENERAL_PROTECTION.0.into();
    // If this fails too, VTL0 still gets an error from its call.
    let _ = calls::set_vp_registers(&BareMetal, InputVtl::VTL0, &[(HvRegisterName::PENDING_EVENT0, event)]);
}
