//! Signed PE files: the kernel images that kexec may start (Microsoft, "Windows Authenticode Portable Executable
//! Signature Format"; "PE Format").
//!
//! | module | is about |
//! |---|---|
//! | [`layout`] | what of the file is signed, and where the signatures are |
//! | [`table`] | the certificate table: one signed message or more |
//! | [`hash`] | hashing the file as it is read, once, from start to end |
//!
//! Every byte of an accepted file is hashed, but for the three parts that a signature cannot cover: the checksum, which
//! nobody looks at (signers leave wrong ones, and kexec loads none of its bytes), and the certificate table with the entry
//! that says where it is. A file in which other bytes would be left out (between sections, behind the table) is refused. Whether a signature holds is said by
//! [`KeyStore::verify_image`](crate::keys::KeyStore::verify_image).

pub mod hash;
pub mod layout;
pub mod table;

pub use hash::{ImageDigests, ImageHasher};
pub use layout::ImageLayout;
pub use table::ImageSignatures;
