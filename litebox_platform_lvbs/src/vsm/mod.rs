//! The VSM calls: what VTL0 may ask of VTL1, and how a request reaches its handler.
//!
//! Everything here is pure; the registers of a call come from VTL0 and are trusted in nothing.
//!
//! | module | purpose |
//! |---|---|
//! | [`function`] | the one declaration of the calls: ids, names, marker types |
//! | [`context`] | what a handler is given about the call it serves |
//! | [`handler`] | the trait a handler implements through `#[vsm_handler]`, and what is known of it |
//! | [`param`] | the checked types a handler may take |
//! | [`errors`] | the errnos a call may answer with, as data |
//! | [`describe`] | the table in words, for whoever reads the image's file |
//! | [`reply`] | the types a handler may return |
//! | [`query`] | what VTL1 says about its table |
//! | [`gate`] | who may make which call when, as data |
//! | [`table`] | the jump table |
//! | [`hardening`] | the clamp on the attacker's table index |
//! | [`dispatch`](mod@dispatch) | from four registers to a result |

pub mod context;
pub mod describe;
pub mod dispatch;
pub mod errors;
pub mod function;
pub mod gate;
pub mod handler;
pub mod hardening;
pub mod param;
pub mod query;
pub mod reply;
pub mod table;

pub use crate::token::Token;
pub use context::{BootContext, CallContext};
pub use dispatch::{Answer, answer, dispatch};
pub use errors::{ErrnoMeta, ErrnoSet};
pub use function::{VSM_BASE, VSM_RESERVED, VSM_TABLE_LEN, VsmCall, VsmFunction, calls};
pub use gate::{CallerRule, Gate, PhaseRule};
pub use handler::{CallRow, Entry, HandlerMeta, Handles, Param, ParamMeta, Registers, Reply};
pub use param::{ByteCount, Flags, PageAddr, VsmParam, Vtl0Page};
pub use reply::VsmReply;
pub use table::VsmJumpTable;
