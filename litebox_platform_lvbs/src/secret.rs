//! Secrets that VTL1 keeps: bytes that are written into their place, shown to no log, and zeroized.
//!
//! A secret is never moved once it is set: it has no copy on a stack to forget.

use core::fmt;

use zeroize::Zeroize;

use crate::error::VsmError;

/// `N` bytes that are set once, where they stay. They are zeroized when setting them fails, and when they are dropped.
pub struct Secret<const N: usize> {
    bytes: [u8; N],
    is_set: bool,
}

impl<const N: usize> Default for Secret<N> {
    fn default() -> Self {
        Self { bytes: [0; N], is_set: false }
    }
}

impl<const N: usize> Secret<N> {
    /// Sets the secret, once, to what `write` writes into its place. `name` is for the refusal of a second one.
    ///
    /// # Errors
    /// [`VsmError::AlreadySet`]; an error of `write`, after which there is no secret.
    pub fn set(
        &mut self,
        name: &'static str,
        write: impl FnOnce(&mut [u8; N]) -> Result<(), VsmError>,
    ) -> Result<(), VsmError> {
        if self.is_set {
            return Err(VsmError::AlreadySet(name));
        }
        write(&mut self.bytes).inspect_err(|_| self.bytes.zeroize())?;
        self.is_set = true;
        Ok(())
    }

    /// The bytes, if they have been set. Copy them nowhere that is not zeroized.
    #[must_use]
    pub fn expose(&self) -> Option<&[u8; N]> {
        self.is_set.then_some(&self.bytes)
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("is_set", &self.is_set).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Errno;

    #[test]
    fn a_secret_is_set_once_and_a_failure_leaves_nothing_of_it() {
        let mut secret = Secret::<4>::default();
        let fault = secret.set("a secret", |bytes| {
            bytes[..2].fill(0xa5);
            Err(VsmError::NotImplemented)
        });
        assert_eq!(fault, Err(VsmError::NotImplemented));
        assert_eq!((secret.expose(), secret.bytes), (None, [0; 4]));
        let set = |secret: &mut Secret<4>, byte| {
            secret.set("a secret", |bytes| {
                bytes.fill(byte);
                Ok(())
            })
        };
        set(&mut secret, 0xa5).unwrap();
        assert_eq!(set(&mut secret, 0x5a).map_err(|error| error.errno()), Err(Errno::Ebusy));
        assert_eq!(secret.expose(), Some(&[0xa5; 4]));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let mut secret = Secret::<4>::default();
        let set = secret.set("a secret", |bytes| {
            bytes.fill(0xa5);
            Ok(())
        });
        set.unwrap();
        let shown = format!("{secret:?} {secret:#?}");
        assert!(shown.contains("is_set: true") && !shown.contains("165") && !shown.contains("a5"), "{shown}");
    }
}
