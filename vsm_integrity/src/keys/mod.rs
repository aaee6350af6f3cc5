//! Who may sign: the key store, and the check of a signed message against it.
//!
//! A certificate that VTL0's kernel had built in during boot is trusted. Everything else is believed only as far as it
//! is signed: secondary certificates when they are added, the certificates in a message each time. What each of them must
//! be is said in one place, `policy`. Times are not looked at; see [`crate::signature::certificate`].

mod chain;
mod image;
mod policy;
mod revoked;
mod store;
mod verify;

pub use chain::{MAX_CERTIFICATE_CHECKS, MAX_INTERMEDIATES};
pub use revoked::{MAX_REVOKED, MAX_REVOKED_BYTES};
pub use store::{Added, KeyStore, KeyStoreBuilder, MAX_SECONDARY, MAX_SYSTEM, Origin};
pub use verify::{Purpose, Verified};
