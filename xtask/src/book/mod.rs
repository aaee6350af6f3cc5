//! `cargo xtask book`: builds the book, follows its links, and runs the commands in it.
//!
//! | file | purpose |
//! |---|---|
//! | [`blocks`] | finds code blocks, commands and links in Markdown |
//! | [`commands`] | carries the commands out |
//! | [`walkthrough`] | does what the page about adding a call says |

pub mod blocks;
pub mod commands;
pub mod walkthrough;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::doctor;
use crate::process::describe;

/// What else to do than build.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// Also carry out every command of the book that does not need Hyper-V, and do what the page about adding a call says.
    #[arg(long)]
    run_commands: bool,
    /// Only list the commands, and which of them need Hyper-V.
    #[arg(long, conflicts_with = "run_commands")]
    list_commands: bool,
    /// Only do what the page about adding a call says, in a scratch copy: the call is created, implemented by the page's
    /// own text and tested, and answers in the machine.
    #[arg(long, conflicts_with_all = ["run_commands", "list_commands"])]
    walkthrough: bool,
}

impl Options {
    /// Everything: what continuous integration does.
    pub const fn all() -> Self {
        Self { run_commands: true, list_commands: false, walkthrough: false }
    }
}

/// A page: its path, relative to the workspace, and its text.
#[derive(Clone, Debug)]
pub struct Page {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// The Markdown.
    pub text: String,
}

/// The pages of the book, and those at the root that belong with it.
pub fn pages(root: &Path) -> Result<Vec<Page>> {
    let mut paths: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "AGENTS.md"].map(PathBuf::from).to_vec();
    let source = Path::new("docs/src");
    let entries = std::fs::read_dir(root.join(source)).context("the book's source")?;
    for entry in entries {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_some_and(|suffix| suffix == "md") {
            paths.push(source.join(name));
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(root.join(&path)).with_context(|| path.display().to_string())?;
        Ok(Page { path, text })
    };
    paths.into_iter().map(read).collect()
}

/// Builds and checks the book, as the options say.
pub fn execute(root: &Path, options: Options) -> Result<()> {
    if options.walkthrough {
        return walkthrough::execute(root);
    }
    let pages = pages(root)?;
    if options.list_commands {
        for command in commands::all(&pages) {
            println!("{command}");
        }
        return Ok(());
    }
    check_links(root, &pages)?;
    build(root)?;
    if options.run_commands {
        let commands = commands::run_all(root, &pages);
        let walkthrough = walkthrough::execute(root);
        commands.and(walkthrough)?;
    }
    Ok(())
}

/// Builds the HTML. A warning is an error.
fn build(root: &Path) -> Result<()> {
    doctor::ensure(&doctor::MDBOOK)?;
    let into = root.join("target/book");
    let mut command = Command::new("mdbook");
    command.arg("build").arg(root.join("docs")).arg("--dest-dir").arg(&into);
    let output = command.output().with_context(|| describe(&command))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let complains = said.lines().any(|line| ["WARN", "ERROR"].iter().any(|level| line.contains(level)));
    ensure!(output.status.success() && !complains, "`{}` complains:\n{said}", describe(&command));
    println!("the book is in {}", into.join("index.html").display());
    Ok(())
}

/// Every relative link leads to a file, every page of the book is in its summary, and every command is one that is tried.
fn check_links(root: &Path, pages: &[Page]) -> Result<()> {
    let mut problems = Vec::new();
    for page in pages {
        let directory = page.path.parent().unwrap_or(Path::new(""));
        for (line, target) in blocks::links(&page.text) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !root.join(directory).join(file).exists() {
                problems.push(format!("{}:{line}: the link to {target} leads nowhere", page.path.display()));
            }
        }
    }
    problems.extend(commands::unmarked(pages));
    let summary = pages.iter().find(|page| page.path.ends_with("SUMMARY.md")).context("docs/src/SUMMARY.md")?;
    let listed: Vec<String> = blocks::links(&summary.text).into_iter().map(|(_, target)| target).collect();
    for page in pages.iter().filter(|page| page.path.starts_with("docs") && !page.path.ends_with("SUMMARY.md")) {
        let name = page.path.file_name().unwrap_or_default().to_string_lossy();
        if !listed.iter().any(|target| *target == name) {
            problems.push(format!("{}: SUMMARY.md does not list it", page.path.display()));
        }
    }
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_leads_somewhere_and_every_page_is_listed() {
        let root = crate::workspace::root();
        check_links(&root, &pages(&root).unwrap()).unwrap();
    }

    #[test]
    fn a_dead_link_and_a_page_that_is_not_listed_are_found() {
        let page = |path: &str, text: &str| Page { path: path.into(), text: text.to_owned() };
        let pages = [
            page("docs/src/SUMMARY.md", "- [One](one.md)\n"),
            page("docs/src/one.md", "[a](no-such-page.md) [b](https://x.example/y) [c](#here)\n"),
            page("docs/src/two.md", "`cargo test -p x`\n```powershell\nx\n```\n```powershell,hyper-v\nx\n```\n"),
        ];
        let said = check_links(&crate::workspace::root(), &pages).unwrap_err().to_string();
        assert!(said.contains("docs/src/one.md:1: the link to no-such-page.md leads nowhere"), "{said}");
        assert!(said.contains("docs/src/two.md: SUMMARY.md does not list it"), "{said}");
        assert!(said.contains("docs/src/two.md:1: no block has `cargo test -p x`"), "{said}");
        assert!(said.contains("docs/src/two.md:3: mark it"), "{said}");
        // That one.md, which SUMMARY.md names, is no file is the fifth.
        assert_eq!(said.lines().count(), 5, "{said}");
    }
}
