//! Finding a toolchain that can build the image: a compiler, cargo, the standard library's source, and a linker.
//!
//! The image is built for a target the compiler doesn't ship, so `core` and `alloc` are compiled from source, which a
//! plain rustup toolchain doesn't have. The search order is the one that changes least on the person's machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::install;
use crate::process::{capture, find_program, is_executable};
use crate::workspace::MINIMUM_RUST;

/// Debian's packages that hold a complete toolchain (1.96 in Debian 12), and a linker for it.
pub const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];

/// A compiler version: major, minor, and whether it is a nightly or a beta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
    /// Whether this is a stable release.
    pub stable: bool,
}

impl Version {
    /// Reads the output of `rustc --version`, such as `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.split_whitespace().nth(1)?;
        let mut parts = number.split('.');
        Some(Self {
            major: parts.next()?.parse().ok()?,
            minor: parts.next()?.parse().ok()?,
            stable: parts.next()?.chars().all(|c| c.is_ascii_digit()),
        })
    }

    /// Whether the workspace builds with this compiler.
    pub fn is_new_enough(self) -> bool {
        (self.major, self.minor) >= MINIMUM_RUST
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.stable { "" } else { " (not stable)" };
        write!(f, "{}.{}{kind}", self.major, self.minor)
    }
}

/// The linker an image build uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linker {
    /// `rust-lld` of the toolchain; the compiler finds it by itself.
    Bundled(PathBuf),
    /// Another LLD, to be named with `-C linker=`.
    External(PathBuf),
}

/// A toolchain that was looked at.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Name for messages: a rustup toolchain name, or the compiler's path.
    pub name: String,
    /// The cargo program.
    pub cargo: PathBuf,
    /// The rustc program.
    pub rustc: PathBuf,
    /// What `rustc --print sysroot` says.
    pub sysroot: PathBuf,
    /// The compiler's version.
    pub version: Version,
    /// Why this one was taken, for the person who asked for the build.
    pub why: String,
}

impl Toolchain {
    /// Looks at the compiler that `rustc` starts.
    fn probe(name: &str, rustc: &Path) -> Result<Self> {
        let sysroot = PathBuf::from(capture(Command::new(rustc).args(["--print", "sysroot"]))?);
        let text = capture(Command::new(rustc).arg("--version"))?;
        let version = Version::parse(&text).with_context(|| format!("`{}` calls itself {text:?}", rustc.display()))?;
        // A rustup proxy picks a toolchain by the environment; the programs inside the sysroot are what they are.
        let inside = |program: &str, fallback: &Path| {
            let path = sysroot.join("bin").join(program);
            if is_executable(&path) { path } else { fallback.to_path_buf() }
        };
        let beside = rustc.with_file_name("cargo");
        let cargo = find_program(&beside).unwrap_or(beside);
        Ok(Self {
            name: name.to_owned(),
            cargo: inside("cargo", &cargo),
            rustc: inside("rustc", rustc),
            sysroot,
            version,
            why: String::new(),
        })
    }

    /// The directory of the standard library's source.
    pub fn library(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    /// Whether the standard library's source is there.
    pub fn has_source(&self) -> bool {
        self.library().join("Cargo.lock").is_file()
    }

    /// The linker: the toolchain's own LLD, else one from the system.
    pub fn linker(&self) -> Option<Linker> {
        let bundled = self.sysroot.join("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld");
        if is_executable(&bundled) {
            return Some(Linker::Bundled(bundled));
        }
        ["ld.lld", "rust-lld"].iter().find_map(find_program).map(Linker::External)
    }

    fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }
}

/// The toolchain that commands without further words use.
pub fn active() -> Result<Toolchain> {
    let rustc = find_program("rustc").context("there is no `rustc` on PATH; install Rust from https://rustup.rs")?;
    let name = std::env::var("RUSTUP_TOOLCHAIN")
        .ok()
        .or_else(|| {
            let text = capture(Command::new("rustup").args(["show", "active-toolchain"])).ok()?;
            Some(text.split_whitespace().next()?.to_owned())
        })
        .unwrap_or_else(|| rustc.display().to_string());
    Toolchain::probe(&name, &rustc)
}

/// The other toolchains rustup has installed, stable and new ones first.
pub fn others(active: Option<&Toolchain>) -> Vec<Toolchain> {
    let Ok(list) = capture(Command::new("rustup").args(["toolchain", "list"])) else {
        return Vec::new();
    };
    let mut found: Vec<Toolchain> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|name| {
            let rustc = capture(Command::new("rustup").args(["which", "rustc", "--toolchain", name])).ok()?;
            Toolchain::probe(name, Path::new(&rustc)).ok()
        })
        .filter(|toolchain| active.is_none_or(|active| active.sysroot != toolchain.sysroot))
        .collect();
    found.sort_by_key(|toolchain| std::cmp::Reverse((toolchain.version.stable, toolchain.version)));
    found
}

/// Debian's toolchain, if it is installed. It lies in `/usr`, apart from rustup's.
fn debian() -> Option<Toolchain> {
    let rustc = Path::new("/usr/bin/rustc");
    is_executable(rustc).then(|| Toolchain::probe("/usr/bin/rustc", rustc).ok())?
}

/// A toolchain without installing anything; `None` when no present one has the source.
pub fn find_present() -> Option<Toolchain> {
    let active = active().ok();
    if let Some(active) = &active
        && active.version.is_new_enough()
        && active.has_source()
    {
        return Some(active.clone().because("the active toolchain has the library source"));
    }
    let usable = |toolchain: &Toolchain| toolchain.version.is_new_enough() && toolchain.has_source();
    if let Some(other) = others(active.as_ref()).into_iter().find(usable) {
        return Some(other.because("an installed toolchain that has the library source; the active one has not"));
    }
    debian()
        .filter(usable)
        .map(|toolchain| toolchain.because("Debian's toolchain has the library source; rustup's have not"))
}

/// A toolchain that can build the image, completing or installing one if none is there.
pub fn find() -> Result<Toolchain> {
    if let Some(present) = find_present() {
        return Ok(present);
    }
    let mut tried = Vec::new();

    match active() {
        Ok(active) if active.version.is_new_enough() => {
            let added = install::rustup_component(
                "rust-src",
                Some(&active.name),
                "building core and alloc for the image's target",
            );
            match added {
                Ok(()) if active.has_source() => {
                    return Ok(active.because("the active toolchain, completed with its library source just now"));
                }
                Ok(()) => tried.push(format!(
                    "rustup added rust-src to {}, but {} holds no library source",
                    active.name,
                    active.library().display()
                )),
                Err(error) => tried.push(format!("{error:#}")),
            }
        }
        Ok(active) => tried.push(format!(
            "the active toolchain {} is {}, and {}.{} is needed: rustup update stable",
            active.name, active.version, MINIMUM_RUST.0, MINIMUM_RUST.1
        )),
        Err(error) => tried.push(format!("{error:#}")),
    }

    match install::apt_install(&DEBIAN_PACKAGES, "a toolchain with the library source") {
        Ok(()) => match debian().filter(|toolchain| toolchain.version.is_new_enough() && toolchain.has_source()) {
            Some(debian) => return Ok(debian.because("Debian's toolchain, installed just now")),
            None => {
                tried.push(format!("{} were installed, but /usr holds no library source", DEBIAN_PACKAGES.join(" ")));
            }
        },
        Err(error) => tried.push(format!("{error:#}")),
    }

    bail!(
        "no toolchain has the standard library's source, which the image needs.\n\
         Type one of:\n  rustup component add rust-src\n  {}\nWhat was tried:\n  - {}",
        install::apt_command(&DEBIAN_PACKAGES),
        tried.join("\n  - ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let stable = Version::parse("rustc 1.95.0 (59807616e 2026-04-14)").unwrap();
        assert_eq!((stable.major, stable.minor, stable.stable), (1, 95, true));
        let nightly = Version::parse("rustc 1.98.0-nightly (0123 2026-05-01)").unwrap();
        assert!(!nightly.stable && nightly.is_new_enough());
        assert!(!Version::parse("rustc 1.94.1 (x)").unwrap().is_new_enough());
        assert!(Version::parse("rustc 2.0.0").unwrap().is_new_enough());
        assert_eq!(Version::parse("something"), None);
    }

    #[test]
    fn the_active_toolchain_names_programs_that_exist() {
        let active = active().unwrap();
        assert!(is_executable(&active.cargo), "{}", active.cargo.display());
        assert!(is_executable(&active.rustc), "{}", active.rustc.display());
        assert!(active.sysroot.is_dir());
    }
}
