//! KexecValidate: signed kernels of somebody's making, and a distribution's, as Linux loads them and as nobody should.

mod accept;
mod changes;
mod distribution;
mod failures;
#[path = "../modules/linux.rs"]
#[expect(dead_code, reason = "the tests of modules need more of it")]
mod linux;
mod page_lists;
mod races;
mod refusals;
mod signatures;
mod world;
