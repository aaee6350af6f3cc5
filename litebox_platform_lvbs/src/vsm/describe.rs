//! The table in words, as bytes made at compile time: what the image's file says about itself.
//!
//! The runner puts the bytes into a section that is not loaded; `cargo xtask abi` reads them, from a file or from this
//! crate, and writes every product of the table from them. All of it is the contributor's own text: nothing here comes from
//! VTL0, and nothing here runs in VTL1.
//!
//! A number is 8 bytes, little endian; a text is its length and its bytes; a list is its length and its elements.
//!
//! | what | fields |
//! |---|---|
//! | the table | [`FORMAT`]; the ABI's hash; list of calls |
//! | a call | id; name; phase; caller; implemented (0, 1); list of parameters; reply; list of errors; documentation of the call, of the handler; the handler's name, file, line |
//! | a parameter | name; kind; unit; registers; bits |
//! | an error | number; name; when; by whom: `gate`, a parameter's name, or `handler` |

use super::row::{CallRow, ErrnoMeta, ParamMeta};
use crate::error::Errno;

/// The first number: changes with the format.
pub const FORMAT: u64 = 1;

/// Takes the bytes of the description: counts them, hashes them, or keeps them.
struct Sink<const LEN: usize> {
    bytes: [u8; LEN],
    /// How many there were, more than `LEN` if they are only counted.
    at: usize,
}

impl<const LEN: usize> Sink<LEN> {
    const fn byte(&mut self, byte: u8) {
        // Evaluated at compile time. A sink of no bytes counts.
        if LEN != 0 {
            self.bytes[self.at] = byte;
        }
        self.at += 1;
    }

    const fn number(&mut self, number: u64) {
        let bytes = number.to_le_bytes();
        let mut rest: &[u8] = &bytes;
        while let [first, tail @ ..] = rest {
            self.byte(*first);
            rest = tail;
        }
    }

    const fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            self.byte(*first);
            rest = tail;
        }
    }

    const fn param(&mut self, param: &ParamMeta) {
        self.text(param.name);
        self.text(param.kind);
        self.text(param.unit);
        self.number(param.registers as u64);
        self.number(param.bits);
    }

    const fn error(&mut self, error: &ErrnoMeta, by: &str) {
        self.number(error.errno.number().unsigned_abs() as u64);
        self.text(error.errno.name());
        self.text(error.when);
        self.text(by);
    }

    const fn errors(&mut self, list: &[ErrnoMeta], by: &str) {
        let mut rest = list;
        while let [first, tail @ ..] = rest {
            self.error(first, by);
            rest = tail;
        }
    }

    const fn call(&mut self, row: &CallRow) {
        let meta = &row.meta;
        self.number(row.function.id());
        self.text(row.function.name());
        self.text(meta.phase.name());
        self.text(meta.caller.name());
        self.number(meta.implemented as u64);
        self.number(meta.params.len() as u64);
        let mut count = meta.errors.len();
        let mut params = meta.params;
        while let [first, tail @ ..] = params {
            self.param(first);
            count += first.errors.len();
            params = tail;
        }
        self.text(meta.reply);
        let gate = row.gate_errors();
        let mut rules: &[Option<ErrnoMeta>] = &gate;
        while let [first, tail @ ..] = rules {
            count += first.is_some() as usize;
            rules = tail;
        }
        self.number(count as u64);
        rules = &gate;
        while let [first, tail @ ..] = rules {
            if let Some(error) = first {
                self.error(error, "gate");
            }
            rules = tail;
        }
        params = meta.params;
        while let [first, tail @ ..] = params {
            self.errors(first.errors, first.name);
            params = tail;
        }
        self.errors(meta.errors, "handler");
        self.text(row.function.doc());
        self.text(meta.doc);
        self.text(meta.name);
        self.text(meta.file);
        self.number(meta.line as u64);
    }

    const fn table(&mut self, rows: &[CallRow], version: u32) {
        self.number(FORMAT);
        self.number(hash(rows, version));
        self.number(rows.len() as u64);
        let mut rest = rows;
        while let [first, tail @ ..] = rest {
            self.call(first);
            rest = tail;
        }
    }
}

/// How many bytes [`bytes`] makes of `rows`.
#[must_use]
pub const fn len(rows: &[CallRow]) -> usize {
    let mut sink = Sink::<0> { bytes: [], at: 0 };
    // The length is that of any version's.
    sink.table(rows, 0);
    sink.at
}

/// The description of `rows`, of which it takes [`len`] bytes, as `version` of the ABI.
///
/// # Panics
/// When the length is another, which a constant does while it is compiled.
#[must_use]
pub const fn bytes<const LEN: usize>(rows: &[CallRow], version: u32) -> [u8; LEN] {
    let mut sink = Sink::<LEN> { bytes: [0; LEN], at: 0 };
    sink.table(rows, version);
    assert!(sink.at == LEN, "the length is that of these rows");
    sink.bytes
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
struct Hash(u64);

impl Hash {
    const fn bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let [first, tail @ ..] = rest {
            self.0 = (self.0 ^ *first as u64).wrapping_mul(0x0100_0000_01b3);
            rest = tail;
        }
    }

    const fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
        self.bytes(&[0]);
    }

    const fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }
}

/// A number for what VTL0 must agree with VTL1 about: the ABI's version, which is raised also when a structure in memory
/// changes, and of each call the id, name, phase, caller, whether it is implemented, its parameters' names, kinds, registers
/// and bits, its reply and its errnos. No words that only explain are in it.
///
/// Two tables with the same number are the same ABI; it says nothing about who made them.
#[must_use]
pub const fn hash(rows: &[CallRow], version: u32) -> u64 {
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    hash.number(version as u64);
    let mut rest = rows;
    while let [row, tail @ ..] = rest {
        hash.number(row.function.id());
        hash.text(row.function.name());
        hash.text(row.meta.phase.name());
        hash.text(row.meta.caller.name());
        hash.number(row.meta.implemented as u64);
        let mut params = row.meta.params;
        hash.number(params.len() as u64);
        while let [first, others @ ..] = params {
            hash.text(first.name);
            hash.text(first.kind);
            hash.number(first.registers as u64);
            hash.number(first.bits);
            params = others;
        }
        hash.text(row.meta.reply);
        let (errnos, mut all) = (row.errnos(), Errno::ALL);
        while let [first, others @ ..] = all {
            if errnos.contains(*first) {
                hash.number(first.number().unsigned_abs() as u64);
            }
            all = others;
        }
        rest = tail;
    }
    hash.0
}
