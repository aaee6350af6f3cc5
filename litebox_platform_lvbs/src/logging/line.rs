//! One line of VTL1's log.
//!
//! A line is bounded and holds printable ASCII only, whatever VTL0 managed to get into it: nothing in it can end it,
//! or be taken for the start of another record or for a terminal's command. Nothing is allocated.

use core::fmt::{self, Write};

/// Most characters of a line; what is longer ends in [`CUT`]. With it a record of the ring has 512 bytes.
pub const MAX_TEXT: usize = 473;
/// The end of a line that was too long.
const CUT: &[u8] = b"...";

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// VTL1 itself is broken; the last line of the processor that says so.
    Panic,
    /// Something failed that should not.
    Error,
    /// VTL0 did something wrong, or something is not as safe as it could be.
    Warning,
    /// What an operator may want to know.
    Info,
    /// What a developer may want to know.
    Debug,
    /// Each step.
    Trace,
}

impl Level {
    /// The letter of the level in a ring's record.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::Panic => b'P',
            Self::Error => b'E',
            Self::Warning => b'W',
            Self::Info => b'I',
            Self::Debug => b'D',
            Self::Trace => b'T',
        }
    }

    /// The prefix of the text on the console. Empty for [`Self::Info`], the level of most lines.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Panic => "panic: ",
            Self::Error => "error: ",
            Self::Warning => "warning: ",
            Self::Info => "",
            Self::Debug => "debug: ",
            Self::Trace => "trace: ",
        }
    }
}

impl From<log::Level> for Level {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Error => Self::Error,
            log::Level::Warn => Self::Warning,
            log::Level::Info => Self::Info,
            log::Level::Debug => Self::Debug,
            log::Level::Trace => Self::Trace,
        }
    }
}

/// A line: its level and its text.
#[derive(Clone)]
pub struct Line {
    level: Level,
    text: [u8; MAX_TEXT],
    len: usize,
}

impl Line {
    /// A line with this text.
    #[must_use]
    pub fn new(level: Level, text: fmt::Arguments<'_>) -> Self {
        let mut line = Self { level, text: [0; MAX_TEXT], len: 0 };
        if line.write_fmt(text).is_err() {
            // It did not fit (or a Display gave up, which none of ours does).
            let cut = line.len.min(MAX_TEXT - CUT.len());
            if let Some(end) = line.text.get_mut(cut..cut + CUT.len()) {
                end.copy_from_slice(CUT);
                line.len = cut + CUT.len();
            }
        }
        line
    }

    /// How serious it is.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The text: printable ASCII, at most [`MAX_TEXT`] characters.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or_default()
    }
}

/// As on the console, without the newline.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level.prefix())?;
        f.write_str(core::str::from_utf8(self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({self})")
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let place = self.text.get_mut(self.len).ok_or(fmt::Error)?;
            *place = match byte {
                b' '..=b'~' => byte,
                b'\n' | b'\t' => b' ',
                _ => b'?',
            };
            self.len += 1;
        }
        Ok(())
    }
}
