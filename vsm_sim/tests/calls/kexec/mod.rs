//! KexecValidate: made-up signed kernels and a distribution's, as Linux loads them and as an attacker would.

mod accept;
mod changes;
mod distribution;
mod failures;
mod page_lists;
mod races;
mod refusals;
mod signatures;
mod world;
