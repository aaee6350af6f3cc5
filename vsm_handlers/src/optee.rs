//! OP-TEE messages: the way to a trusted operating system beside VTL1's kernel, if there is one.
//!
//! Here is the transport: the page of registers is VTL0's, read once and written once. What a message means is for a
//! [`TrustedOs`] to say; VTL1 is built with [`NoTrustedOs`].

mod root_key;
mod trusted_os;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::access::PhysMutPtr;
use litebox_platform_lvbs::optee::SmcRegisters;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::{CallContext, Vtl0Page};
use vsm_macros::vsm_handler;

pub use trusted_os::{NoTrustedOs, TrustedOs};

/// Passes an OP-TEE message: nine registers at the start of the page with frame number `registers`.
///
/// The answer is written into the same registers: a0 to a3 change, the others and the rest of the page do not. What the
/// trusted operating system thinks of the message is in a0; a message without a server is answered with
/// `OPTEE_SMC_RETURN_ENOTAVAIL` (7). The errno is the transport's only.
#[vsm_handler(
    VsmFunction::OpteeMessage,
    phase = any,
    caller = any,
    errors(
        EACCES = "a page that VTL0 has given away, as a module's or the kernel's text; no answer is written",
        EFAULT = "a page that is no memory",
    )
)]
fn optee_message(call: &CallContext<'_>, registers: Vtl0Page) -> Result<(), VsmError> {
    let (platform, at) = (call.platform(), registers.start());
    // Read as what will be written: a message that cannot be answered must not have an effect.
    let message =
        PhysMutPtr::<SmcRegisters>::new(&platform.frames().lock(), Owner::Nobody, at)?.read(platform.hardware())?;
    // No lock is held meanwhile: a trusted operating system may take its time.
    let answer = message.answered(trusted_os::serve(&NoTrustedOs, &message));
    let registry = platform.frames().lock();
    PhysMutPtr::new(&registry, Owner::Nobody, at)?.write(platform.hardware(), &answer)
}
