//! What explained a module's bytes, in numbers.

use core::ops::AddAssign;

/// Why bytes are as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// As in the file.
    Verbatim,
    /// A relocation.
    Relocation,
    /// A replacement of an alternative.
    Alternative,
    /// NOPs that were merged.
    NopMerging,
    /// A branch through a retpoline.
    Retpoline,
    /// A return.
    Return,
    /// A call of `__fentry__`.
    Ftrace,
    /// A call through `pv_ops`.
    Paravirt,
    /// A trampoline of a static call.
    StaticCall,
    /// A LOCK prefix.
    SmpLock,
    /// A jump label.
    JumpLabel,
    /// An ENDBR.
    Seal,
    /// A call that is counted, or the counting.
    CallDepth,
    /// An entry of a table that Linux sorts.
    SortedTable,
    /// Space between sections, and after the last one.
    Padding,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::Padding as usize + 1;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Verbatim,
        Self::Relocation,
        Self::Alternative,
        Self::NopMerging,
        Self::Retpoline,
        Self::Return,
        Self::Ftrace,
        Self::Paravirt,
        Self::StaticCall,
        Self::SmpLock,
        Self::JumpLabel,
        Self::Seal,
        Self::CallDepth,
        Self::SortedTable,
        Self::Padding,
    ];

    /// A short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verbatim => "verbatim",
            Self::Relocation => "relocation",
            Self::Alternative => "alternative",
            Self::NopMerging => "nop",
            Self::Retpoline => "retpoline",
            Self::Return => "return",
            Self::Ftrace => "ftrace",
            Self::Paravirt => "paravirt",
            Self::StaticCall => "static call",
            Self::SmpLock => "smp lock",
            Self::JumpLabel => "jump label",
            Self::Seal => "seal",
            Self::CallDepth => "call depth",
            Self::SortedTable => "sorted",
            Self::Padding => "padding",
        }
    }
}

/// Bytes by reason. A byte of a site that is as in the relocated file counts as such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    bytes: [u64; Reason::COUNT],
}

impl Statistics {
    /// Bytes of that reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.bytes.get(reason as usize).copied().unwrap_or_default()
    }

    /// Counts more bytes.
    pub fn count(&mut self, reason: Reason, bytes: usize) {
        if let Some(slot) = self.bytes.get_mut(reason as usize) {
            *slot = slot.saturating_add(bytes as u64);
        }
    }

    /// All bytes.
    pub fn total(&self) -> u64 {
        self.bytes.iter().fold(0, |total, bytes| total.saturating_add(*bytes))
    }
}

impl AddAssign for Statistics {
    fn add_assign(&mut self, other: Self) {
        for (into, bytes) in self.bytes.iter_mut().zip(other.bytes) {
            *into = into.saturating_add(bytes);
        }
    }
}
