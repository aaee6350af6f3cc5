//! Which generation of Linux VTL0 runs, as far as what modules look like depends on it.
//!
//! Decided once, from the names that the kernel exports: those came with the change itself, so that a distribution that
//! takes a change into an older version is seen right, where a version number would not be. What else differs between
//! versions shows in what is read: the size of an alternative's entry (two relocations), how alternatives are written and
//! NOPs merged (a habit), where an image's segments are (the image), whether a kind has memory of its own (the ranges),
//! which of a module's symbols stay (the module's `vermagic`).

use core::fmt;

/// A generation of Linux. Trusts the kernel's export tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelGeneration {
    /// Up to 6.1: the depth of calls is never counted. A kernel whose exports are not known counts as such.
    #[default]
    UpTo6_1,
    /// 6.2 to 6.7: calls may be counted, also those that a paravirt site has become.
    From6_2,
    /// 6.8 to 6.14: alternatives instead of paravirt sites; a call that an alternative starts with may be counted.
    From6_8,
    /// 6.15 and later, where the counter is no longer in `pcpu_hot`: counted calls are not known of these.
    From6_15,
}

impl KernelGeneration {
    /// The generation of the kernel that exports the names for which `exports` is true: `pcpu_hot` came with 6.2 and went
    /// with 6.15, and `BUG_func` came with the alternatives that took the place of paravirt sites.
    #[must_use]
    pub fn from_exports(exports: impl Fn(&[u8]) -> bool) -> Self {
        match (exports(b"pcpu_hot"), exports(b"BUG_func")) {
            (false, false) => Self::UpTo6_1,
            (true, false) => Self::From6_2,
            (true, true) => Self::From6_8,
            (false, true) => Self::From6_15,
        }
    }
}

impl fmt::Display for KernelGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UpTo6_1 => "up to 6.1",
            Self::From6_2 => "6.2 to 6.7",
            Self::From6_8 => "6.8 to 6.14",
            Self::From6_15 => "6.15 and later",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_exports_says_its_generation() {
        let of = |names: &[&[u8]]| KernelGeneration::from_exports(|name| names.contains(&name));
        assert_eq!(of(&[b"pv_ops"]), KernelGeneration::UpTo6_1);
        assert_eq!(of(&[b"pcpu_hot"]), KernelGeneration::From6_2);
        assert_eq!(of(&[b"BUG_func", b"pcpu_hot"]).to_string(), "6.8 to 6.14");
        assert_eq!(of(&[b"BUG_func"]), KernelGeneration::From6_15);
    }
}
