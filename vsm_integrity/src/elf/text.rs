//! Texts in a string table. Trusts nothing.

/// The NUL-terminated text at `offset` of a string table, without its NUL.
pub(super) fn text(table: &[u8], offset: u32, most: usize) -> Result<&[u8], &'static str> {
    let rest = usize::try_from(offset).ok().and_then(|offset| table.get(offset..));
    let rest = rest.ok_or("a name must lie within its string table")?;
    let end = rest.iter().take(most + 1).position(|byte| *byte == 0);
    end.and_then(|end| rest.get(..end)).ok_or("a name is too long or has no end")
}
