//! Vectors on a heap that can be used up: an error where the standard library would end the program.

use alloc::vec::Vec;

/// The heap does not hold what was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// [`Vec::push`] that can fail.
pub trait TryPush<T> {
    /// Appends an element.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing has changed then.
    fn try_push(&mut self, element: T) -> Result<(), OutOfMemory>;
}

impl<T> TryPush<T> for Vec<T> {
    fn try_push(&mut self, element: T) -> Result<(), OutOfMemory> {
        self.try_reserve(1).map_err(|_| OutOfMemory)?;
        self.push(element);
        Ok(())
    }
}

/// An empty vector with room for exactly `count` elements.
///
/// # Errors
/// [`OutOfMemory`].
pub fn with_room<T>(count: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(count).map_err(|_| OutOfMemory)?;
    Ok(vector)
}

/// `count` copies of `element`.
///
/// # Errors
/// [`OutOfMemory`].
pub fn filled<T: Clone>(count: usize, element: T) -> Result<Vec<T>, OutOfMemory> {
    let mut vector = with_room(count)?;
    vector.resize(count, element);
    Ok(vector)
}
