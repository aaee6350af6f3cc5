//! Texts in a string table. Trusts nothing.

use core::ffi::CStr;

/// The NUL-terminated text at `offset` of a string table, without its NUL.
pub(super) fn text(table: &[u8], offset: u32, most: usize) -> Result<&[u8], &'static str> {
    let rest = usize::try_from(offset).ok().and_then(|offset| table.get(offset..));
    let rest = rest.ok_or("a name must lie within its string table")?;
    let rest = rest.get(..rest.len().min(most + 1)).unwrap_or_default();
    CStr::from_bytes_until_nul(rest).map(CStr::to_bytes).map_err(|_| "a name is too long or has no end")
}
