//! The table of the calls as it was described at compile time (`litebox_platform_lvbs::vsm::describe`), read back.
//!
//! The bytes come from this program, or from the section of an image's file. Nothing in a file is trusted: every length is
//! checked, and bytes that remain are an error.

use anyhow::{Context, Result, bail, ensure};
use litebox_platform_lvbs::vsm::describe::FORMAT;

/// All calls, by ascending id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The ABI's hash.
    pub hash: u64,
    /// The calls.
    pub calls: Vec<Call>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The id VTL0 passes.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `boot`, `runtime` or `any`.
    pub phase: String,
    /// `bsp` or `any`.
    pub caller: String,
    /// False if it answers -ENOTSUP.
    pub implemented: bool,
    /// In the registers' order.
    pub params: Vec<Param>,
    /// What a success returns; empty if it is not implemented.
    pub reply: String,
    /// Which errnos it answers, when, and what refuses.
    pub errors: Vec<Error>,
    /// What the declaration says.
    pub summary: String,
    /// What the handler's documentation says.
    pub doc: String,
    /// Where the handler is.
    pub source: Source,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Unit and bounds.
    pub unit: String,
    /// How many registers it takes.
    pub registers: u64,
    /// The bits that may be set in each.
    pub bits: u64,
}

/// An errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The positive number.
    pub number: u64,
    /// As Linux spells it.
    pub name: String,
    /// When it occurs.
    pub when: String,
    /// `gate`, `handler`, or the parameter whose type refuses.
    pub by: String,
}

/// Where a handler is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The function.
    pub handler: String,
    /// The file, from the root of the workspace.
    pub file: String,
    /// The line.
    pub line: u64,
}

impl Table {
    /// The table that this program was built with.
    ///
    /// # Errors
    /// Never, unless this file and `describe` disagree.
    pub fn built_in() -> Result<Self> {
        Self::parse(&vsm_handlers::ABI)
    }

    /// Reads a description.
    ///
    /// # Errors
    /// The bytes are not a description, or have another format.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader(bytes);
        let format = reader.number()?;
        ensure!(format == FORMAT, "the description has format {format}, this program reads {FORMAT}");
        let table = Self { hash: reader.number()?, calls: reader.list(Reader::call)? };
        ensure!(reader.0.is_empty(), "{} bytes stand after the description", reader.0.len());
        Ok(table)
    }

    /// The same without what changes whenever a line is added somewhere.
    #[must_use]
    pub fn without_sources(&self) -> Self {
        let mut table = self.clone();
        for call in &mut table.calls {
            call.source = Source { handler: call.source.handler.clone(), file: String::new(), line: 0 };
        }
        table
    }
}

impl Call {
    /// The name as C spells it: that of the handler, in capitals.
    #[must_use]
    pub fn upper_name(&self) -> String {
        snake_case(&self.name).to_uppercase()
    }

    /// The errnos, each once, ascending by number.
    #[must_use]
    pub fn errnos(&self) -> Vec<(u64, &str)> {
        let mut errnos: Vec<_> = self.errors.iter().map(|error| (error.number, error.name.as_str())).collect();
        errnos.sort_unstable();
        errnos.dedup();
        errnos
    }
}

/// `FooBarX` as `foo_bar_x`; a run of capitals is a word (`BootAPs` is `boot_aps`, `LoadKData` is `load_kdata`).
#[must_use]
pub fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| letters.get(before));
        let starts = letter.is_uppercase() && before.is_some_and(|before| !before.is_uppercase());
        // The last capital of a run starts the next word, unless what follows is a single letter of plural.
        let ends_run = letter.is_uppercase()
            && before.is_some_and(|before| before.is_uppercase())
            && letters.get(at + 1).is_some_and(|next| next.is_lowercase() && *next != 's')
            && letters.get(at.wrapping_sub(2)).is_some_and(|earlier| earlier.is_uppercase());
        if starts || ends_run {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// The bytes that have not been read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Result<u64> {
        let (number, rest) = self.0.split_first_chunk().context("the description ends within a number")?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn text(&mut self) -> Result<String> {
        let len = usize::try_from(self.number()?)?;
        let (text, rest) = self.0.split_at_checked(len).context("the description ends within a text")?;
        self.0 = rest;
        Ok(String::from_utf8(text.to_vec())?)
    }

    fn list<T>(&mut self, element: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        // Not reserved: the count is the file's.
        let mut list = Vec::new();
        for _ in 0..self.number()? {
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn call(&mut self) -> Result<Call> {
        Ok(Call {
            id: self.number()?,
            name: self.text()?,
            phase: self.text()?,
            caller: self.text()?,
            implemented: match self.number()? {
                0 => false,
                1 => true,
                other => bail!("{other} is neither implemented nor not"),
            },
            params: self.list(Self::param)?,
            reply: self.text()?,
            errors: self.list(Self::error)?,
            summary: self.text()?,
            doc: self.text()?,
            source: Source { handler: self.text()?, file: self.text()?, line: self.number()? },
        })
    }

    fn param(&mut self) -> Result<Param> {
        Ok(Param {
            name: self.text()?,
            kind: self.text()?,
            unit: self.text()?,
            registers: self.number()?,
            bits: self.number()?,
        })
    }

    fn error(&mut self) -> Result<Error> {
        Ok(Error { number: self.number()?, name: self.text()?, when: self.text()?, by: self.text()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vsm_handlers::ROWS;

    #[test]
    fn the_description_is_the_rows() {
        let table = Table::built_in().unwrap();
        assert_eq!(table.hash, vsm_handlers::ABI_HASH);
        assert_eq!(table.calls.len(), ROWS.len());
        for (call, row) in table.calls.iter().zip(&ROWS) {
            assert_eq!((call.id, call.name.as_str()), (row.function.id(), row.function.name()));
            assert_eq!((call.phase.as_str(), call.caller.as_str()), (row.meta.phase.name(), row.meta.caller.name()));
            assert_eq!((call.implemented, call.reply.as_str()), (row.meta.implemented, row.meta.reply));
            assert_eq!((call.doc.as_str(), call.summary.as_str()), (row.meta.doc, row.function.doc()));
            assert_eq!(call.source.handler, row.meta.name);
            assert_eq!((call.source.file.as_str(), call.source.line), (row.meta.file, u64::from(row.meta.line)));
            for (param, meta) in call.params.iter().zip(row.meta.params) {
                assert_eq!((param.name.as_str(), param.kind.as_str(), param.bits), (meta.name, meta.kind, meta.bits));
            }
            assert_eq!(call.params.len(), row.meta.params.len());
            let numbers: Vec<u64> = call.errnos().iter().map(|errno| errno.0).collect();
            let expected: Vec<u64> = row.errnos().iter().map(|errno| errno.number().unsigned_abs().into()).collect();
            assert_eq!(numbers, expected, "{}", call.name);
        }
    }

    #[test]
    fn a_version_is_a_hash() {
        let hash = |version| litebox_platform_lvbs::vsm::describe::hash(&ROWS, version);
        assert_eq!(hash(vsm_handlers::ABI_VERSION), vsm_handlers::ABI_HASH);
        assert_ne!(hash(vsm_handlers::ABI_VERSION + 1), vsm_handlers::ABI_HASH);
        let renamed = |name| {
            let mut rows = ROWS;
            let param = litebox_platform_lvbs::vsm::ParamMeta { name, ..ROWS[4].meta.params[0] };
            rows[4].meta.params = Box::leak(Box::new([param]));
            litebox_platform_lvbs::vsm::describe::hash(&rows, vsm_handlers::ABI_VERSION)
        };
        assert_eq!(renamed(ROWS[4].meta.params[0].name), vsm_handlers::ABI_HASH);
        assert_ne!(renamed("another"), vsm_handlers::ABI_HASH);
    }

    #[test]
    fn every_cut_of_the_description_is_refused() {
        let bytes = &vsm_handlers::ABI;
        for end in 0..bytes.len() {
            assert!(Table::parse(&bytes[..end]).is_err(), "{end} bytes of {}", bytes.len());
        }
        assert!(Table::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn names_are_spelt_as_the_handlers_are() {
        for row in &ROWS {
            assert_eq!(snake_case(row.function.name()), row.meta.name);
        }
        assert_eq!(snake_case("Frobnicate"), "frobnicate");
        assert_eq!(snake_case("QueryABIVersion"), "query_abi_version");
    }
}
