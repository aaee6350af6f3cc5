//! What kexec would start: Linux's description of a loaded image, the list of pages that it is put together from, and the
//! kernel's file (Linux `include/linux/kexec.h`, `arch/x86/kernel/kexec-bzimage64.c`).
//!
//! | module | is about |
//! |---|---|
//! | [`bzimage`] | which bytes of a signed file are the kernel that runs |
//! | [`kimage`] | where an image's segments go |
//! | [`page_list`] | from which pages they come, entry by entry |
//!
//! Pure: bytes and words in, verdict out. Whether the pages are frozen, and what they hold, is for the caller to see to.

pub mod bzimage;
pub mod kimage;
pub mod page_list;

pub use bzimage::BzImage;
pub use kimage::{Form, Kimage, Segment};
pub use page_list::{PageList, Step};
