//! Installing what is missing: rustup components and Debian packages, each announced with the reason.
//!
//! Nothing is installed behind a person's back: a package is only fetched where this process is root already, and
//! everywhere else the exact command is printed.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{capture, describe, find_program, is_root, run};

/// The command that installs Debian packages, as a person would type it.
pub fn apt_command(packages: &[&str]) -> String {
    format!("apt-get update && apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// Whether this process can install Debian packages: root, and apt-get is there.
pub fn can_apt() -> bool {
    is_root() && find_program("apt-get").is_some()
}

/// Installs Debian packages. `reason` completes "needed for …" in the announcement.
pub fn apt_install(packages: &[&str], reason: &str) -> Result<()> {
    if !can_apt() {
        bail!("{} needed for {reason}; as root, type: {}", packages.join(" "), apt_command(packages));
    }
    eprintln!("installing {} (needed for {reason})", packages.join(" "));
    let mut install = Command::new("apt-get");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "--no-install-recommends", "-qq"])
        .args(packages);
    // The package lists of a fresh machine are empty or old; update them only when the first try fails.
    let first = capture(&mut install);
    if first.is_ok() {
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    capture(update.args(["update", "-qq"])).context("the package lists cannot be updated")?;
    capture(&mut install).map(drop).with_context(|| format!("type as root: {}", apt_command(packages)))
}

/// Adds a component to a rustup toolchain (`None`: the active one).
pub fn rustup_component(component: &str, toolchain: Option<&str>, reason: &str) -> Result<()> {
    let mut command = Command::new("rustup");
    command.args(["component", "add", component]);
    if let Some(toolchain) = toolchain {
        command.args(["--toolchain", toolchain]);
    }
    let typed = describe(&command);
    if find_program("rustup").is_none() {
        bail!("{component} needed for {reason}, and rustup is not installed to add it (`{typed}`)");
    }
    eprintln!("running `{typed}` (needed for {reason})");
    run(&mut command)
}
