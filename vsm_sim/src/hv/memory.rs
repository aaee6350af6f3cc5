//! Guest memory as the model needs it: bytes at guest-physical addresses.

/// The address is not guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRam(pub u64);

/// The partition's memory, without regard to any VTL's protections.
pub trait GuestMemory: Send + Sync {
    /// Copies bytes out, once each. They do not cross a page.
    ///
    /// # Errors
    /// [`NotRam`] when the page is not guest RAM.
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), NotRam>;

    /// Copies bytes in. They do not cross a page.
    ///
    /// # Errors
    /// [`NotRam`] when the page is not guest RAM.
    fn write(&self, gpa: u64, from: &[u8]) -> Result<(), NotRam>;
}
