//! `.modinfo`: what a module says about itself, as NUL-terminated `tag=value` texts (Linux `include/linux/moduleinfo.h`).
//!
//! Trusts nothing but that the file is signed: what is said here decides which symbols the module may use.

/// The texts of a `.modinfo` section.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModInfo<'a> {
    bytes: &'a [u8],
}

/// The licenses that Linux counts as compatible with the GPL (`license_is_gpl_compatible`, include/linux/license.h).
const GPL_COMPATIBLE: [&[u8]; 6] =
    [b"GPL", b"GPL v2", b"GPL and additional rights", b"Dual BSD/GPL", b"Dual MIT/GPL", b"Dual MPL/GPL"];

impl<'a> ModInfo<'a> {
    /// The texts in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// All values of a tag.
    pub fn all<'t>(&self, tag: &'t [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 't> {
        self.bytes.split(|byte| *byte == 0).filter_map(move |text| text.strip_prefix(tag)?.strip_prefix(b"="))
    }

    /// The first value of a tag.
    pub fn get(&self, tag: &[u8]) -> Option<&'a [u8]> {
        self.all(tag).next()
    }

    /// Whether symbols for GPL-compatible modules may be used. Linux looks at the first license; a module without one is
    /// proprietary.
    pub fn is_gpl_compatible(&self) -> bool {
        self.get(b"license").is_some_and(|license| GPL_COMPATIBLE.contains(&license))
    }

    /// Whether symbols of that namespace may be used.
    pub fn imports(&self, namespace: &[u8]) -> bool {
        self.all(b"import_ns").any(|name| name == namespace)
    }

    /// Names of the modules that this one needs.
    pub fn depends(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.get(b"depends").unwrap_or_default().split(|byte| *byte == b',').filter(|name| !name.is_empty())
    }

    /// Version of the kernel the module was built for, out of `vermagic`; `None` when that can't be read.
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.get(b"vermagic")?.split(|byte| !byte.is_ascii_digit());
        let mut number = || core::str::from_utf8(numbers.next()?).ok()?.parse().ok();
        Some((number()?, number()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_whole() {
        let info = ModInfo::new(
            b"license=Dual MIT/GPL\0import_ns=A\0import_ns=B\0depends=x,y\0vermagic=6.12.3-4 SMP \0xlicense=no\0",
        );
        assert!(info.is_gpl_compatible());
        assert!(info.imports(b"A") && info.imports(b"B") && !info.imports(b"") && !info.imports(b"AB"));
        assert!(info.depends().eq([b"x", b"y"]));
        assert_eq!(info.kernel_version(), Some((6, 12)));
        assert!(!ModInfo::new(b"license=Proprietary\0license=GPL\0").is_gpl_compatible());
        assert!(!ModInfo::new(b"").is_gpl_compatible());
        assert_eq!(ModInfo::new(b"depends=\0vermagic=x\0").depends().count(), 0);
        assert_eq!(ModInfo::new(b"vermagic=x\0").kernel_version(), None);
    }
}
