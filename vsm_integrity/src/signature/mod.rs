//! Signatures: where a module's is, what it says, and whether it holds.
//!
//! | module | is about |
//! |---|---|
//! | [`trailer`] | where the signature of a module file lies |
//! | [`message`] | the PKCS#7 message: signers, certificates, algorithms |
//! | [`certificate`] | X.509 certificates |
//! | [`marks`] | what can be read of a certificate whatever its encoding |
//! | [`digest`] | hashing content that comes in pieces |
//! | [`algorithm`] | keys and the arithmetic |
//! | [`error`] | why not |
//!
//! What it takes: a parsed message has less than 8 KiB on the heap beside its own bytes (64 KiB at most), the check of
//! one signature takes 23 KiB more for a moment (RSA-4096; ECDSA takes none), and less than 16 KiB of stack. The content
//! is never held.
//!
//! Who is trusted is in [`crate::keys`], which is also where a signature is checked.

pub mod algorithm;
pub mod certificate;
mod content_type;
pub mod digest;
pub mod error;
mod extensions;
pub(crate) mod indirect;
pub mod marks;
pub mod message;
mod reader;
mod signed_attributes;
mod span;
pub mod trailer;

pub use certificate::Certificate;
pub use content_type::ContentType;
pub use digest::{CompressSha256, ContentDigests, ContentHasher, Digest, DigestAlgorithm, DigestSet};
pub use error::{ErrorClass, SignatureError, Unsupported};
pub use message::SignedMessage;

pub(crate) use message::Signer;
