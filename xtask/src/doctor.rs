//! What this machine has, what it lacks, and the command that helps: `cargo xtask doctor`.
//!
//! A tool is a row of [`TOOLS`].

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::install::{apt_command, apt_install};
use crate::kernels;
use crate::linux::packages::{self, Series};
use crate::process::{capture, find_program, run};
use crate::toolchain::{self, Linker};
use crate::workspace;

use Install::{ByHand, Call, Package, Run};
use Need::{Optional, Required, Wanted};

/// Something a command of this project needs.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    name: &'static str,
    need: Need,
    /// Completes "needed for …".
    purpose: &'static str,
    /// Looks for it without changing anything, and says what was found or what is wrong.
    search: fn(&Path) -> Result<String>,
    install: Install,
}

/// What happens without a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The test suite fails.
    Required,
    /// Fewer checks run, so that `--fix` installs it.
    Wanted,
    /// It is a matter of taste.
    Optional,
}

/// How to get a tool.
#[derive(Clone, Copy, Debug)]
enum Install {
    /// A Debian package.
    Package(&'static str),
    /// A command that is run as it stands here.
    Run(&'static str),
    /// What to type instead, and what is done.
    Call(&'static str, fn(&Path) -> Result<()>),
    /// What the person has to do.
    ByHand(&'static str),
}

/// The emulator that the simulator's machine runs in.
pub const QEMU: Tool = tool(
    "qemu-system-x86_64",
    Required,
    "`cargo xtask run` and the tests that boot the image",
    |_| {
        let version = version("qemu-system-x86_64")?;
        let tested = if version.contains("version 7.2") { "" } else { " (tested: 7.2)" };
        Ok(format!("{version}{tested}"))
    },
    Package("qemu-system-x86"),
);

/// A C++ compiler, by the name that the compilation of libFuzzer asks for.
pub const CXX: Tool = tool("c++", Wanted, "`cargo xtask fuzz`: libFuzzer is C++", |_| version("c++"), Package("g++"));

/// What makes the book.
pub const MDBOOK: Tool = tool(
    "mdbook",
    Wanted,
    "`cargo xtask book`",
    |_| version("mdbook"),
    Run("cargo install --locked --quiet --no-default-features mdbook"),
);

/// What opens the pages that `--report` writes.
pub const CHROMIUM: Tool =
    tool("chromium", Wanted, "the test that opens a report in a browser", |_| version("chromium"), Package("chromium"));

/// All tools, in the order of the report.
const TOOLS: [Tool; 15] = [
    tool("rustc and cargo", Required, "building anything", rust, Run("rustup update stable")),
    tool(
        "rustfmt and clippy",
        Required,
        "`cargo xtask lint` and `ci`",
        |_| {
            let tool = |name| version_of("cargo", &[name, "--version"]).context("not in the active toolchain");
            Ok(format!("{}, {}", tool("fmt")?, tool("clippy")?))
        },
        Run("rustup component add rustfmt clippy"),
    ),
    tool(
        "library source",
        Required,
        "building core and alloc for the image's target",
        |_| {
            let found = toolchain::find_present().context("no toolchain has the library source")?;
            Ok(format!("{} in {}: {}", found.version, found.sysroot.display(), found.why))
        },
        Call("rustup component add rust-src", |_| toolchain::find().map(drop)),
    ),
    tool("linker", Required, "linking the image", linker, Package("lld")),
    QEMU,
    CXX,
    tool("clang", Wanted, "compiling `abi/vsm.h` a second time", |_| version("clang++"), Package("clang")),
    tool("zstd", Wanted, "tests on captures of real kernels", |_| version("zstd"), Package("zstd")),
    tool(
        "cargo-nextest",
        Optional,
        "faster tests with a time limit for each",
        |_| version_of("cargo-nextest", &["nextest", "--version"]),
        ByHand("cargo install --locked cargo-nextest"),
    ),
    MDBOOK,
    tool(
        "signed kernel",
        Wanted,
        "tests of kexec on a kernel that a distribution has signed",
        |root| {
            let kernel = kernels::present(root).context("not there; these tests are skipped")?;
            Ok(kernel.display().to_string())
        },
        Call("cargo xtask doctor --fix (Debian, amd64)", kernels::fetch),
    ),
    tool(
        "Linux for VTL0",
        Wanted,
        "`cargo xtask linux` and its test",
        linux,
        Call("cargo xtask doctor --fix (Debian, amd64)", fetch_linux),
    ),
    CHROMIUM,
    tool("captures", Optional, "tests on what a real kernel had in memory", captures, ByHand("put the archives there")),
    tool(
        "miri",
        Optional,
        "finding undefined behaviour in host tests",
        |_| {
            let mut command = Command::new("rustup");
            command.args(["which", "cargo-miri", "--toolchain", "nightly"]);
            capture(&mut command).map_err(|_| anyhow!("no nightly toolchain with miri"))
        },
        ByHand("rustup toolchain install nightly --component miri rust-src"),
    ),
];

const fn tool(
    name: &'static str,
    need: Need,
    purpose: &'static str,
    search: fn(&Path) -> Result<String>,
    install: Install,
) -> Tool {
    Tool { name, need, purpose, search, install }
}

impl Tool {
    /// What a person would type.
    fn command(&self) -> String {
        match self.install {
            Package(package) => apt_command(&[package]),
            Run(typed) | Call(typed, _) | ByHand(typed) => typed.to_owned(),
        }
    }

    fn install(&self, root: &Path) -> Result<()> {
        match self.install {
            Package(package) => apt_install(&[package], self.purpose),
            Run(typed) => {
                eprintln!("running `{typed}` (needed for {})", self.purpose);
                let mut words = typed.split_whitespace();
                run(Command::new(words.next().unwrap_or_default()).args(words))
            }
            Call(_, install) => install(root),
            ByHand(typed) => bail!("not installed by itself: {typed}"),
        }
    }

    /// A row of the report.
    fn line(&self, found: &Result<String>) -> String {
        let Self { name, purpose, .. } = self;
        match found {
            Ok(found) => format!("ok       {name:<19} {found}"),
            Err(problem) => {
                let word = if self.need == Required { "MISSING " } else { "optional" };
                let (blank, command) = ("", self.command());
                format!("{word} {name:<19} {problem:#}; needed for {purpose}\n         {blank:<19} type: {command}")
            }
        }
    }
}

fn rust(_: &Path) -> Result<String> {
    let active = toolchain::active()?;
    if !active.version.is_new_enough() {
        let (major, minor) = workspace::MINIMUM_RUST;
        bail!("{} is older than {major}.{minor}", active.version);
    }
    Ok(format!("{} ({})", active.version, active.name))
}

fn linker(_: &Path) -> Result<String> {
    let toolchain = toolchain::find_present().or_else(|| toolchain::active().ok());
    match toolchain.and_then(|toolchain| toolchain.linker()) {
        Some(Linker::Bundled(path)) => Ok(format!("{} (the toolchain's own)", path.display())),
        Some(Linker::External(path)) => Ok(path.display().to_string()),
        None => bail!("the toolchain has no rust-lld and there is no ld.lld"),
    }
}

fn linux(root: &Path) -> Result<String> {
    let kernel = |series: Series| packages::present(root, series).map(|kernel| kernel.release);
    let missing = || anyhow!("not fetched; its test is skipped");
    let releases: Option<Vec<String>> = [Series::V6_1, Series::V6_12].into_iter().map(kernel).collect();
    Ok(releases.ok_or_else(missing)?.join(", "))
}

fn fetch_linux(root: &Path) -> Result<()> {
    [Series::V6_1, Series::V6_12].into_iter().try_for_each(|series| packages::get(root, series)?.ensure_compilers())
}

fn captures(root: &Path) -> Result<String> {
    let directory = workspace::captures_dir(root);
    if !directory.is_dir() {
        bail!("{} is not there; these tests are skipped", directory.display());
    }
    Ok(directory.display().to_string())
}

fn version(program: &str) -> Result<String> {
    version_of(program, &["--version"])
}

/// The first line of what an installed program says about itself.
fn version_of(program: &str, arguments: &[&str]) -> Result<String> {
    find_program(program).context("not installed")?;
    let text = capture(Command::new(program).args(arguments)).map_err(|_| anyhow!("does not run"))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Installs the tool unless it is there.
pub fn ensure(tool: &Tool) -> Result<()> {
    let (root, name) = (workspace::root(), tool.name);
    let Err(before) = (tool.search)(&root) else {
        return Ok(());
    };
    tool.install(&root).with_context(|| format!("{name}: {before:#}"))?;
    let found = (tool.search)(&root)
        .map_err(|after| anyhow!("{name}: {after:#} even after installing it; type: {}", tool.command()))?;
    eprintln!("{name}: {found}");
    Ok(())
}

/// Prints what was found. With `fix`, installs what is missing and not a matter of taste.
pub fn examine(root: &Path, fix: bool) -> Result<()> {
    let mut lacking = Vec::new();
    for tool in &TOOLS {
        let mut found = (tool.search)(root);
        if found.is_err() && fix && tool.need != Optional {
            match ensure(tool) {
                Ok(()) => found = (tool.search)(root),
                Err(error) => eprintln!("{error:#}"),
            }
        }
        println!("{}", tool.line(&found));
        if found.is_err() && tool.need == Required {
            lacking.push(tool.name);
        }
    }
    if !lacking.is_empty() {
        let hint = if fix { "" } else { "; `cargo xtask doctor --fix` installs what it can" };
        bail!("missing: {}{hint}", lacking.join(", "));
    }
    Ok(())
}
