//! What a handler is given about the call it serves.
//!
//! A handler of the boot phase gets a [`BootContext`], which exists only while a [`BootCall`] guard does: a
//! function that needs the boot phase can ask for it in its signature, and a run-time call cannot provide it.

use core::fmt;
use core::ops::Deref;

use super::reply::Refusal;
use crate::error::VsmError;
use crate::phase::BootCall;
use crate::platform::Platform;

/// One VSM call in progress. [`Gate::admit`](super::Gate::admit) makes it, and nothing else does.
pub struct CallContext<'a> {
    pub(super) platform: &'a Platform,
    pub(super) vp: u32,
    /// For a call that may run in the boot phase only.
    pub(super) boot_call: Option<BootCall<'a>>,
}

impl<'a> CallContext<'a> {
    /// The kernel that serves the call.
    #[must_use]
    pub fn platform(&self) -> &'a Platform {
        self.platform
    }

    /// Index of the processor that makes the call.
    #[must_use]
    pub fn vp(&self) -> u32 {
        self.vp
    }
}

impl fmt::Debug for CallContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext").field("vp", &self.vp).field("boot_call", &self.boot_call).finish_non_exhaustive()
    }
}

/// A call of the boot phase in progress. While it lives, only the call itself can end the boot.
#[derive(Debug)]
pub struct BootContext<'a> {
    call: &'a CallContext<'a>,
    boot_call: &'a BootCall<'a>,
}

impl<'a> BootContext<'a> {
    /// The boot-phase view of `call`.
    ///
    /// # Errors
    /// [`VsmError::AfterEndOfBoot`], before the handler, when the gate did not admit the call as one of the boot phase.
    pub fn new(call: &'a CallContext<'a>) -> Result<Self, Refusal> {
        let boot_call = call.boot_call.as_ref();
        boot_call.map(|boot_call| Self { call, boot_call }).ok_or(Refusal::Before(VsmError::AfterEndOfBoot))
    }

    /// The proof that the boot has not ended.
    #[must_use]
    pub fn boot_call(&self) -> &BootCall<'a> {
        self.boot_call
    }
}

impl<'a> Deref for BootContext<'a> {
    type Target = CallContext<'a>;

    fn deref(&self) -> &Self::Target {
        self.call
    }
}
