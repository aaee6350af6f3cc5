//! The table and its handlers, over a machine of a few lines.

mod boot;
mod common;
mod dispatch;
mod errors;
mod params;
mod query;
mod rows;
mod set_platform_root_key;
