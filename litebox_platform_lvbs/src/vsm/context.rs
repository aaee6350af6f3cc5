//! What a handler is given about the call it serves.
//!
//! A handler of the boot phase gets a [`BootContext`], which exists only while a [`BootCall`] guard does: a
//! function that needs the boot phase can ask for it in its signature, and a run-time call cannot provide it.

use core::cell::Cell;
use core::fmt;
use core::ops::Deref;

use crate::error::VsmError;
use crate::phase::BootCall;
use crate::platform::Platform;

/// One VSM call in progress.
pub struct CallContext<'a> {
    platform: &'a Platform,
    vp: u32,
    boot_call: Option<BootCall<'a>>,
    /// Whether a parameter's type has refused its registers, so that the handler has not run.
    parameter_refused: Cell<bool>,
}

impl<'a> CallContext<'a> {
    /// A call made by processor `vp`; `boot_call` for a call that may run in the boot phase only.
    #[must_use]
    pub fn new(platform: &'a Platform, vp: u32, boot_call: Option<BootCall<'a>>) -> Self {
        Self { platform, vp, boot_call, parameter_refused: Cell::new(false) }
    }

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

    /// Remembers that a parameter's type has refused.
    pub(super) fn note_parameter_refused(&self) {
        self.parameter_refused.set(true);
    }

    /// Whether the handler has been entered, if the entry of its call has.
    pub(super) fn was_handler_entered(&self) -> bool {
        !self.parameter_refused.get()
    }
}

impl fmt::Debug for CallContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext").field("vp", &self.vp).field("boot_call", &self.boot_call).finish_non_exhaustive()
    }
}

/// A call of the boot phase in progress; the boot cannot end while it lives, but through it.
#[derive(Debug)]
pub struct BootContext<'a> {
    call: &'a CallContext<'a>,
    boot_call: &'a BootCall<'a>,
}

impl<'a> BootContext<'a> {
    /// The boot-phase view of `call`.
    ///
    /// # Errors
    /// [`VsmError::AfterEndOfBoot`] when the call was not admitted as one of the boot phase.
    pub fn new(call: &'a CallContext<'a>) -> Result<Self, VsmError> {
        call.boot_call.as_ref().map(|boot_call| Self { call, boot_call }).ok_or(VsmError::AfterEndOfBoot)
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
