//! What a handler is to the table: a trait implementation that `#[vsm_handler]` writes.
//!
//! Trait coherence makes the registration exact: two handlers for a call do not compile (E0119), nor does a table
//! that lacks one (E0277).

use super::context::CallContext;
use super::function::VsmCall;
use super::reply::Refusal;
use super::row::{CallRow, HandlerMeta};

/// The handler of call `C`. Implemented through `#[vsm_handler(VsmFunction::X, …)]` on a function, never by hand.
#[diagnostic::on_unimplemented(
    message = "VSM050: VSM call `{C}` has no handler",
    label = "this table needs a handler for every declared call",
    note = "annotate a function with `#[vsm_handler(VsmFunction::…, phase = …, caller = …, errors(…))]`, and \
            with the flag `not_implemented` if the call is to answer -ENOTSUP"
)]
pub trait Handles<C: VsmCall> {
    /// What the attribute and the signature say.
    const META: HandlerMeta;

    /// Checks the registers and runs the handler.
    ///
    /// # Errors
    /// What is wrong with a parameter, or the handler's error.
    fn call(context: &CallContext<'_>, registers: &[u64; 3]) -> Result<u32, Refusal>;
}

impl CallRow {
    /// The row of call `C` in the table that `T` stands for.
    #[must_use]
    pub const fn of<T: Handles<C>, C: VsmCall>() -> Self {
        Self { function: C::FUNCTION, meta: T::META, entry: T::call }
    }
}
