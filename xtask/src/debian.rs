//! Debian's packages: found by name, fetched with apt and unpacked below a directory, never installed.
//!
//! Where the machine's own apt does not know what is asked for (another release, or lists that this user may not renew), a
//! private apt does: a directory with its own list of sources and its own state, on the archive that the machine's sources
//! name. What apt has checked is trusted: signatures of the archive and sums of the packages.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{capture, is_root, run};

/// The release whose kernels and compilers the private apt looks for, and the names of its parts.
const RELEASE: &str = "bookworm";
/// The keys that Debian signs its archive with, where the package `debian-archive-keyring` is installed.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt: the machine's, or a private one.
#[derive(Clone, Debug, Default)]
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    /// Renews the lists of packages.
    fn update(&self) -> Result<()> {
        capture(self.command("apt-get").args(["update", "-qq"])).context("the package lists cannot be updated")?;
        Ok(())
    }

    /// The packages whose names begin so.
    pub fn names(&self, start: &str) -> Result<Vec<String>> {
        let text = capture(self.command("apt-cache").args(["pkgnames", start]))?;
        Ok(text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// The packages that one depends on.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        Ok(dependencies(&capture(self.command("apt-cache").args(["depends", package]))?))
    }

    /// Bytes that fetching these packages moves.
    pub fn size(&self, packages: &[String]) -> Result<u64> {
        let text = capture(self.command("apt-cache").args(["show", "--no-all-versions"]).args(packages))?;
        Ok(text.lines().filter_map(|line| line.strip_prefix("Size: ")?.trim().parse::<u64>().ok()).sum())
    }

    /// Fetches packages and unpacks them, all into the same tree.
    ///
    /// # Errors
    /// A package cannot be fetched or unpacked; what was unpacked before stays.
    pub fn unpack(&self, packages: &[String], tree: &Path) -> Result<()> {
        let download = tree.join("download");
        remove(&download)?;
        fs::create_dir_all(&download)?;
        let mut fetch = self.command("apt-get");
        // As root apt would fetch as its own user, who may not write here, and warn.
        fetch.args(["-o", "APT::Sandbox::User=root", "download", "-q"]).args(packages);
        // A line for each package, as it begins.
        run(fetch.current_dir(&download).stdout(std::io::stderr()))?;
        let files: Vec<PathBuf> = fs::read_dir(&download)?.flatten().map(|entry| entry.path()).collect();
        ensure!(files.len() == packages.len(), "apt-get left {} files of {}", files.len(), packages.join(", "));
        for file in files {
            capture(Command::new("dpkg-deb").arg("-x").arg(&file).arg(tree))?;
        }
        remove(&download)
    }
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

/// The packages in the output of `apt-cache depends`; of alternatives the first.
fn dependencies(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut chosen = false;
    for line in text.lines() {
        let (alternative, line) =
            line.trim_start_matches(' ').strip_prefix('|').map_or((false, line), |rest| (true, rest));
        let line = line.trim();
        let Some(name) = line.strip_prefix("Depends: ").or_else(|| line.strip_prefix("PreDepends: ")) else { continue };
        // A line with a bar is followed by another way to fulfil it.
        if !chosen {
            names.push(name.trim().to_owned());
        }
        chosen = alternative;
    }
    names.retain(|name| !name.starts_with('<'));
    names
}

/// Compares two versions, or names with versions in them, as people read them: runs of digits as numbers.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let (text, number) = (split(&mut left), split(&mut right));
        let order = text.0.cmp(number.0).then(text.1.cmp(&number.1));
        if order != Ordering::Equal || (left.is_empty() && right.is_empty()) {
            return order;
        }
    }
}

/// Takes text up to a number, and the number, from the start.
fn split<'a>(text: &mut &'a str) -> (&'a str, u64) {
    let start = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let (before, rest) = text.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *text = after;
    (before, digits.parse().unwrap_or(0))
}

/// The first answer that some apt has to a question: the machine's as it is; the machine's with new lists, where this
/// process may renew them; a private one in `directory`.
///
/// # Errors
/// No apt has an answer. The message names what was asked for, which is `what`.
pub fn ask<T>(directory: &Path, what: &str, question: impl Fn(&Apt) -> Result<Option<T>>) -> Result<(Apt, T)> {
    let machine = Apt::default();
    if let Ok(Some(answer)) = question(&machine) {
        return Ok((machine, answer));
    }
    if is_root() {
        eprintln!("renewing the package lists (for {what})");
        machine.update()?;
        if let Some(answer) = question(&machine)? {
            return Ok((machine, answer));
        }
    }
    let private = private(directory).with_context(|| format!("this machine's apt does not know {what}"))?;
    if let Ok(Some(answer)) = question(&private) {
        return Ok((private, answer));
    }
    eprintln!("fetching the package lists of {RELEASE} into {} (for {what})", directory.display());
    private.update()?;
    let answer = question(&private)?;
    let answer = answer.with_context(|| format!("neither this machine's apt nor {RELEASE}'s archive knows {what}"))?;
    Ok((private, answer))
}

/// Sets up an apt of its own in `directory`, for [`RELEASE`].
fn private(directory: &Path) -> Result<Apt> {
    let format = "$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)";
    let text = capture(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let sources = sources(&text, Path::new(KEYRING).is_file().then_some(KEYRING));
    if sources.is_empty() {
        bail!("it has no lists of Debian's archive; type as root: apt-get update");
    }
    for part in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(directory.join(part))?;
    }
    let list = directory.join("sources.list");
    fs::write(&list, sources)?;
    let status = directory.join("status");
    fs::write(&status, "")?;
    let set = |name: &str, value: &Path| ["-o".to_owned(), format!("{name}={}", value.display())];
    let options = [
        set("Dir::Etc::SourceList", &list),
        set("Dir::Etc::SourceParts", Path::new("/dev/null")),
        set("Dir::State::Lists", &directory.join("lists")),
        set("Dir::State::status", &status),
        set("Dir::Cache", directory),
        set("Dir::Cache::Archives", &directory.join("archives")),
        set("APT::Sandbox::User", Path::new("root")),
    ];
    Ok(Apt { options: options.into_iter().flatten().collect() })
}

/// The list of sources for [`RELEASE`], on the archives among what `apt-get indextargets` says of the machine's own.
fn sources(targets: &str, keyring: Option<&str>) -> String {
    let signed_by = keyring.map_or_else(String::new, |keyring| format!("[signed-by={keyring}] "));
    let mut lines = Vec::new();
    for target in targets.lines() {
        let ["Packages", uri, suite, "main", "Debian"] = target.split('|').collect::<Vec<_>>()[..] else { continue };
        let parts: &[&str] = if suite.ends_with("-security") { &["-security"] } else { &["", "-updates"] };
        for part in parts {
            let line = format!("deb {signed_by}{uri} {RELEASE}{part} main\n");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_alternatives_the_first_is_taken() {
        let text = "linux-headers-6.12\n  PreDepends: linux-base\n  Depends: linux-headers-common\n |Depends: linux-image-6.12\n  \
                    Depends: linux-image-6.12-unsigned\n  Depends: <virtual>\n    one-that-is\n  Suggests: other\n";
        assert_eq!(dependencies(text), ["linux-base", "linux-headers-common", "linux-image-6.12"]);
        assert!(dependencies("").is_empty());
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (less, more) in [
            ("linux-image-6.1.0-9-cloud", "linux-image-6.1.0-10-cloud"),
            ("6.12.99+deb12-cloud", "6.12.117+deb12-cloud"),
            ("6.1", "6.1.1"),
        ] {
            assert_eq!(
                (compare(less, more), compare(more, less)),
                (Ordering::Less, Ordering::Greater),
                "{less} {more}"
            );
            assert_eq!(compare(less, less), Ordering::Equal);
        }
    }

    #[test]
    fn the_private_sources_are_on_the_machine_s_archive() {
        let targets = "Packages|http://archive/debian/|trixie|main|Debian\nDEP-11|http://archive/debian/|trixie|main|Debian\n\
                       Packages|http://archive/debian/|trixie-updates|main|Debian\n\
                       Packages|http://archive/security/|trixie-security|main|Debian\n\
                       Packages|http://other/|stable|main|Other\n";
        let expected = "deb [signed-by=/k] http://archive/debian/ bookworm main\n\
                        deb [signed-by=/k] http://archive/debian/ bookworm-updates main\n\
                        deb [signed-by=/k] http://archive/security/ bookworm-security main\n";
        assert_eq!(sources(targets, Some("/k")), expected);
        assert_eq!(sources("Packages|http://other/|stable|main|Other\n", None), "");
    }
}
