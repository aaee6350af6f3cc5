//! Signatures against OpenSSL, the kernel's own format, and real modules.
//!
//! Everything is made at test time by the `openssl` command, which must be there.

mod captures;
mod certificates;
mod chains;
mod der;
mod field;
mod hostile;
mod images;
mod odd;
mod openssl;
mod pe;
mod policy;
mod signers;
mod support;
