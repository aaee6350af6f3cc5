//! What this machine has, what it lacks, and the command that helps: `cargo xtask doctor`.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::install::{apt_command, apt_install, rustup_component};
use crate::kernels;
use crate::process::{capture, find_program, run};
use crate::toolchain::{self, Linker};
use crate::workspace;

/// How cargo installs mdbook: the part that builds a book.
const INSTALL_MDBOOK: [&str; 5] = ["install", "--locked", "--quiet", "--no-default-features", "mdbook"];

/// Something a command of this project needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// Compiler and cargo of at least the workspace's `rust-version`.
    Rust,
    /// rustfmt and clippy of the active toolchain.
    Lints,
    /// A toolchain with the standard library's source.
    Source,
    /// An LLD for the image.
    Linker,
    /// The emulator that the simulator's machine runs in.
    Qemu,
    /// A C++ compiler.
    Cxx,
    /// Another C compiler than the usual one, and its C++.
    Clang,
    /// The program that unpacks captures.
    Zstd,
    /// The faster test runner.
    Nextest,
    /// What makes the book.
    Mdbook,
    /// A distribution's signed kernel.
    Kernel,
    /// Captures of real kernels.
    Captures,
    /// The interpreter that finds undefined behaviour.
    Miri,
}

/// How a search ended.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was looked for.
    pub what: Find,
    /// What was found, or why it does not serve.
    pub state: Result<String, Missing>,
}

/// Something that is not there.
#[derive(Clone, Debug)]
pub struct Missing {
    /// What is wrong.
    pub problem: String,
    /// The command that helps.
    pub fix: String,
}

impl Find {
    /// Everything, in the order of the report.
    pub const ALL: [Self; 13] = [
        Self::Rust,
        Self::Lints,
        Self::Source,
        Self::Linker,
        Self::Qemu,
        Self::Cxx,
        Self::Clang,
        Self::Zstd,
        Self::Nextest,
        Self::Mdbook,
        Self::Kernel,
        Self::Captures,
        Self::Miri,
    ];

    /// Whether the test suite passes without it.
    pub fn is_optional(self) -> bool {
        matches!(
            self,
            Self::Cxx
                | Self::Clang
                | Self::Zstd
                | Self::Nextest
                | Self::Mdbook
                | Self::Kernel
                | Self::Captures
                | Self::Miri
        )
    }

    fn purpose(self) -> &'static str {
        match self {
            Self::Rust => "building anything",
            Self::Lints => "`cargo xtask lint` and `ci`",
            Self::Source => "building core and alloc for the image's target",
            Self::Linker => "linking the image",
            Self::Qemu => "`cargo xtask run` and the tests that boot the image",
            Self::Cxx => "`cargo xtask fuzz`: libFuzzer is C++",
            Self::Clang => "compiling `abi/vsm.h` with a second compiler",
            Self::Zstd => "tests on captures of real kernels",
            Self::Nextest => "faster tests with a time limit for each",
            Self::Mdbook => "`cargo xtask book`",
            Self::Kernel => "tests of kexec on a kernel that a distribution has signed",
            Self::Captures => "tests on what a real kernel had in memory",
            Self::Miri => "finding undefined behaviour in host tests",
        }
    }

    /// Looks for it, without changing anything.
    pub fn look(self, root: &Path) -> Finding {
        Finding { what: self, state: self.search(root) }
    }

    fn search(self, root: &Path) -> Result<String, Missing> {
        match self {
            Self::Rust => rust(),
            Self::Lints => lints(),
            Self::Source => toolchain::find_present()
                .map(|found| format!("{} in {}: {}", found.version, found.sysroot.display(), found.why))
                .ok_or_else(|| missing("no toolchain has the library source", "rustup component add rust-src")),
            Self::Linker => linker(),
            Self::Qemu => program("qemu-system-x86_64", "qemu-system-x86", |version| {
                let tested = if version.contains("version 7.2") { "" } else { " (tested: 7.2)" };
                format!("{version}{tested}")
            }),
            // The name that the compilation of libFuzzer asks for.
            Self::Cxx => program("c++", "g++", str::to_owned),
            Self::Clang => program("clang++", "clang", str::to_owned),
            Self::Zstd => program("zstd", "zstd", str::to_owned),
            Self::Nextest => {
                if find_program("cargo-nextest").is_none() {
                    return Err(missing("not installed", "cargo install --locked cargo-nextest"));
                }
                version_of("cargo-nextest", &["nextest", "--version"])
                    .ok_or_else(|| missing("does not run", "cargo install --locked cargo-nextest"))
            }
            Self::Mdbook => {
                let install = format!("cargo {}", INSTALL_MDBOOK.join(" "));
                if find_program("mdbook").is_none() {
                    return Err(missing("not installed", &install));
                }
                version_of("mdbook", &["--version"]).ok_or_else(|| missing("does not run", &install))
            }
            Self::Kernel => kernels::present(root).map(|path| path.display().to_string()).ok_or_else(|| {
                missing("not there; these tests are skipped", "cargo xtask doctor --fix (Debian, amd64)")
            }),
            Self::Captures => {
                let directory = workspace::captures_dir(root);
                if directory.is_dir() {
                    Ok(directory.display().to_string())
                } else {
                    Err(missing(
                        "not there; these tests are skipped",
                        &format!("put the archives into {}", directory.display()),
                    ))
                }
            }
            Self::Miri => {
                let mut command = Command::new("rustup");
                command.args(["which", "cargo-miri", "--toolchain", "nightly"]);
                capture(&mut command).map_err(|_| {
                    missing(
                        "no nightly toolchain with miri",
                        "rustup toolchain install nightly --component miri rust-src",
                    )
                })
            }
        }
    }

    /// Installs it, if that can be done without a decision of the person.
    ///
    /// # Errors
    /// It cannot be installed from here; the message holds the command to type.
    pub fn fix(self) -> Result<()> {
        match self {
            Self::Rust => run(Command::new("rustup").args(["update", "stable"])),
            Self::Lints => {
                rustup_component("rustfmt", None, self.purpose())?;
                rustup_component("clippy", None, self.purpose())
            }
            Self::Source => toolchain::find().map(drop),
            Self::Linker => apt_install(&["lld"], self.purpose()),
            Self::Qemu => apt_install(&["qemu-system-x86"], self.purpose()),
            Self::Cxx => apt_install(&["g++"], self.purpose()),
            Self::Clang => apt_install(&["clang"], self.purpose()),
            Self::Zstd => apt_install(&["zstd"], self.purpose()),
            Self::Mdbook => {
                eprintln!("installing mdbook (needed for {})", self.purpose());
                run(Command::new("cargo").args(INSTALL_MDBOOK))
            }
            Self::Kernel => kernels::fetch(&workspace::root()),
            Self::Nextest | Self::Captures | Self::Miri => {
                bail!("not installed by itself: it is optional")
            }
        }
    }
}

impl fmt::Display for Find {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rust => "rustc and cargo",
            Self::Lints => "rustfmt and clippy",
            Self::Source => "library source",
            Self::Linker => "linker",
            Self::Qemu => "qemu-system-x86_64",
            Self::Cxx => "c++",
            Self::Clang => "clang",
            Self::Zstd => "zstd",
            Self::Nextest => "cargo-nextest",
            Self::Mdbook => "mdbook",
            Self::Kernel => "signed kernel",
            Self::Captures => "captures",
            Self::Miri => "miri",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what;
        match &self.state {
            Ok(found) => write!(f, "ok       {what:<19} {found}"),
            Err(missing) => {
                let word = if what.is_optional() { "optional" } else { "MISSING " };
                write!(
                    f,
                    "{word} {what:<19} {}; needed for {}\n         {:<19} type: {}",
                    missing.problem,
                    what.purpose(),
                    "",
                    missing.fix
                )
            }
        }
    }
}

fn missing(problem: &str, fix: &str) -> Missing {
    Missing { problem: problem.to_owned(), fix: fix.to_owned() }
}

fn rust() -> Result<String, Missing> {
    let active = toolchain::active().map_err(|error| missing(&format!("{error:#}"), "rustup update stable"))?;
    if active.version.is_new_enough() {
        Ok(format!("{} ({})", active.version, active.name))
    } else {
        let (major, minor) = workspace::MINIMUM_RUST;
        Err(missing(&format!("{} is older than {major}.{minor}", active.version), "rustup update stable"))
    }
}

fn lints() -> Result<String, Missing> {
    let tool = |name: &str| version_of("cargo", &[name, "--version"]);
    match (tool("fmt"), tool("clippy")) {
        (Some(format), Some(clippy)) => Ok(format!("{format}, {clippy}")),
        _ => Err(missing("not in the active toolchain", "rustup component add rustfmt clippy")),
    }
}

fn linker() -> Result<String, Missing> {
    let toolchain = toolchain::find_present().or_else(|| toolchain::active().ok());
    match toolchain.and_then(|toolchain| toolchain.linker()) {
        Some(Linker::Bundled(path)) => Ok(format!("{} (the toolchain's own)", path.display())),
        Some(Linker::External(path)) => Ok(path.display().to_string()),
        None => Err(missing("the toolchain has no rust-lld and there is no ld.lld", &apt_command(&["lld"]))),
    }
}

fn program(name: &str, package: &str, describe: impl Fn(&str) -> String) -> Result<String, Missing> {
    if find_program(name).is_none() {
        return Err(missing("not installed", &apt_command(&[package])));
    }
    version_of(name, &["--version"])
        .map(|version| describe(&version))
        .ok_or_else(|| missing("does not run", &apt_command(&[package])))
}

/// The first line of what a program says about itself.
fn version_of(program: &str, arguments: &[&str]) -> Option<String> {
    let text = capture(Command::new(program).args(arguments)).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

/// Makes sure that something is there, installing it if it is not.
///
/// # Errors
/// It is missing and cannot be installed; the message holds the command to type.
pub fn ensure(what: Find) -> Result<()> {
    let root = workspace::root();
    let Err(before) = what.look(&root).state else {
        return Ok(());
    };
    what.fix().with_context(|| format!("{what}: {}", before.problem))?;
    match what.look(&root).state {
        Ok(found) => {
            eprintln!("{what}: {found}");
            Ok(())
        }
        Err(after) => bail!("{what}: {} even after installing it; type: {}", after.problem, after.fix),
    }
}

/// Prints what was found. With `fix`, installs what is missing and not a matter of taste.
///
/// # Errors
/// Something that is not optional is missing.
pub fn examine(root: &Path, fix: bool) -> Result<()> {
    let mut lacking = Vec::new();
    for what in Find::ALL {
        let mut finding = what.look(root);
        // These make more checks run; the other optional things are the person's choice.
        if finding.state.is_err()
            && fix
            && (!what.is_optional()
                || matches!(what, Find::Cxx | Find::Clang | Find::Zstd | Find::Mdbook | Find::Kernel))
        {
            match ensure(what) {
                Ok(()) => finding = what.look(root),
                Err(error) => eprintln!("{error:#}"),
            }
        }
        if finding.state.is_err() && !what.is_optional() {
            lacking.push(what.to_string());
        }
        println!("{finding}");
    }
    if !lacking.is_empty() {
        let hint = if fix { "" } else { "; `cargo xtask doctor --fix` installs what it can" };
        bail!("missing: {}{hint}", lacking.join(", "));
    }
    Ok(())
}
