//! Tests of the registry against a hypervisor that can be told to fail, and against a naive model.

pub(crate) mod fake;
mod naive;
mod narrow;
mod property;
mod scale;
mod unit;
