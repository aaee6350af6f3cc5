//! The VSM calls: what VTL0 may ask of VTL1, and how a request reaches its handler.
//!
//! Everything here is pure; the registers of a call come from VTL0 and are trusted in nothing.
//!
//! | module | purpose |
//! |---|---|
//! | [`function`] | the one declaration of the calls: ids, names, marker types |
//! | [`row`] | what is known of a call: its handler's attribute and signature, its entry |
//! | [`handler`] | the trait a handler implements through `#[vsm_handler]` |
//! | [`context`] | what a handler is given about the call it serves |
//! | [`param`] | the checked types a handler may take |
//! | [`reply`] | the types a handler may return; a refusal, and who refused |
//! | [`errors`] | the errnos a call may answer with, as data |
//! | [`table`] | the jump table, and the one check of VTL0's index into it |
//! | [`gate`] | who may make which call when, as data |
//! | [`query`] | what VTL1 says about its table |
//! | [`describe`] | the table in words, for readers of the image's file |
//!
//! `dispatch` of `vsm_handlers` puts them together: from the four registers of a call to its answer.

pub mod context;
pub mod describe;
pub mod errors;
pub mod function;
pub mod gate;
pub mod handler;
pub mod param;
pub mod query;
pub mod reply;
pub mod row;
pub mod table;

pub use crate::token::Token;
pub use context::{BootContext, CallContext};
pub use errors::ErrnoSet;
pub use function::{VSM_BASE, VSM_MAX_TABLE_LEN, VSM_RESERVED, VSM_TABLE_LEN, VsmCall, VsmFunction, calls};
pub use gate::Gate;
pub use handler::Handles;
pub use param::{ByteCount, Flags, PageAddr, Param, Registers, VsmParam, Vtl0Page};
pub use reply::{Refusal, Reply, VsmReply};
pub use row::{CallRow, CallerRule, Entry, ErrnoMeta, HandlerMeta, ParamMeta, PhaseRule};
pub use table::{TableIndex, VsmJumpTable};
