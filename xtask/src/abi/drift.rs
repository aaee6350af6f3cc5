//! How the present table, structures and numbers differ from what `abi/vsm.lock` promises.

use std::fmt;

/// How a table differs from what was promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// A call has another id than it had.
    Renumbered { name: String, was: u64, is: u64 },
    /// An id has been given to another call.
    Reused { id: u64, was: String, is: String },
    /// A call's parameters, errnos or rules changed, or a structure's layout, or a group's values.
    Changed { name: String, what: &'static str, was: String, is: String },
    /// A call is implemented now; until then only its id was promised.
    Implemented { name: String },
    /// A call is no longer declared.
    Gone { name: String, id: u64 },
    /// A call has no entry.
    New { name: String, id: u64 },
    /// A structure or a group of numbers has no entry.
    NewShape { name: String },
    /// A structure or a group of numbers is gone.
    GoneShape { name: String },
}

impl Drift {
    /// Whether `cargo xtask abi` records it without `--accept`.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::New { .. } | Self::NewShape { .. } | Self::Implemented { .. })
    }

    /// Whether it is refused even with `--accept`.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Renumbered { .. } | Self::Reused { .. })
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renumbered { name, was, is } => {
                write!(f, "{name} was renumbered from {was:#x} to {is:#x}: an id stays; give it back")
            }
            Self::Reused { id, was, is } => {
                write!(f, "{id:#x} belongs to {was}, also when that is retired, and was given to {is}: take a fresh id")
            }
            Self::Changed { name, what, was, is } => write!(
                f,
                "the {what} of {name} changed from `{was}` to `{is}`, which needs a new entry in abi/vsm.lock: \
                 cargo xtask abi --accept"
            ),
            Self::Gone { name, id } => {
                write!(f, "{name} ({id:#x}) is gone; to retire its id for good: cargo xtask abi --accept")
            }
            Self::Implemented { name } => {
                write!(f, "{name} is implemented, and abi/vsm.lock does not say how yet: cargo xtask abi")
            }
            Self::NewShape { name } => write!(f, "{name} has no entry in abi/vsm.lock yet: cargo xtask abi"),
            Self::GoneShape { name } => write!(f, "{name} is gone; to retire it: cargo xtask abi --accept"),
            Self::New { name, id } => write!(f, "{name} ({id:#x}) has no entry in abi/vsm.lock yet: cargo xtask abi"),
        }
    }
}
