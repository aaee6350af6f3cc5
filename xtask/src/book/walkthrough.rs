//! Does what the page about adding a call says, in a scratch copy: `cargo xtask book --walkthrough`.
//!
//! The commands of `docs/src/adding-a-call.md` are run, its files written and its changes made in the page's order, and
//! nothing else, so that a reader who does the same gets the same. The copy and what was built in it stay, which makes the
//! next run quick.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use litebox_platform_lvbs::vsm::VsmFunction;

use crate::image::sha256;
use crate::process::{capture, describe, run};
use crate::repro::{copy_sources, source_files};
use crate::workspace::image_dir;

/// The page, from the root.
const PAGE: &str = "docs/src/adding-a-call.md";

/// The call that the page makes.
const CALL: &str = "Frobnicate";

/// Something that the page says to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Type a command: its words.
    Run(Vec<String>),
    /// Write a file.
    Write { path: String, text: String },
    /// Put lines in the place of others.
    Change { path: String, from: String, to: String },
}

/// The steps of a page: of its fenced blocks those marked `sh,scratch`, and those that name a `file=`.
fn steps(page: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let mut body = String::new();
        loop {
            let line = lines.next().context("a block does not end")?;
            if line.trim() == "```" {
                break;
            }
            body.push_str(line.get(indent..).unwrap_or_default());
            body.push('\n');
        }
        let file = info.split(',').find_map(|word| word.trim().strip_prefix("file="));
        match (info.split(',').next().unwrap_or_default(), file) {
            ("sh", None) if info.ends_with(",scratch") => {
                let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
                steps.extend(body.lines().filter(|line| !line.is_empty()).map(|line| Step::Run(words(line))));
            }
            ("diff", Some(path)) => {
                let side = |sign: char| {
                    let lines = body.lines().filter_map(|line| line.strip_prefix(sign));
                    lines.fold(String::new(), |text, line| format!("{text}{line}\n"))
                };
                let (from, to) = (side('-'), side('+'));
                ensure!(!from.is_empty(), "a change of {path} has no line that begins with `-`");
                steps.push(Step::Change { path: path.to_owned(), from, to });
            }
            (_, Some(path)) => steps.push(Step::Write { path: path.to_owned(), text: body }),
            _ => {}
        }
    }
    Ok(steps)
}

/// Carries out the page's steps in order.
pub fn execute(root: &Path) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let steps = steps(&page).context(PAGE)?;
    ensure!(steps.len() > 4, "{PAGE} has {} steps only", steps.len());
    if VsmFunction::ALL.iter().any(|function| function.name() == CALL) {
        println!("SKIPPED: {CALL} is a call of this tree already, so that the page's first step would be refused");
        return Ok(());
    }
    // Not below the workspace's own directory for what is built, which the compile-fail tests take out of paths.
    let of_this = sha256(root.to_string_lossy().as_bytes());
    let scratch = std::env::temp_dir().join(format!("vtl1-walkthrough-{}", of_this.get(..12).unwrap_or_default()));
    let files = source_files(root)?;
    fs::create_dir_all(&scratch)?;
    remove_others(&scratch, &scratch, &files)?;
    copy_sources(root, &scratch, &files)?;
    for (index, step) in steps.iter().enumerate() {
        let start = Instant::now();
        do_step(&scratch, step).with_context(|| format!("{PAGE}, step {}", index + 1))?;
        println!("  {:.0} s", start.elapsed().as_secs_f64());
    }
    println!("{PAGE}: all {} steps work", steps.len());
    Ok(())
}

/// Removes every file that is not one of `files`, except what has been built.
fn remove_others(scratch: &Path, directory: &Path, files: &[PathBuf]) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.strip_prefix(scratch)?;
        if name == Path::new("target") {
            continue;
        }
        if path.is_dir() {
            remove_others(scratch, &path, files)?;
        } else if !files.iter().any(|file| file == name) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn do_step(scratch: &Path, step: &Step) -> Result<()> {
    match step {
        Step::Run(words) => {
            println!("$ {}", words.join(" "));
            type_in(scratch, words)
        }
        Step::Write { path, text } => {
            println!("writing {path}");
            fs::write(scratch.join(path), text).with_context(|| format!("cannot write {path}"))
        }
        Step::Change { path, from, to } => {
            println!("changing {path}");
            let text = fs::read_to_string(scratch.join(path)).with_context(|| format!("cannot read {path}"))?;
            let places = text.matches(from.as_str()).count();
            ensure!(places == 1, "{path} has the lines to change {places} times:\n{from}");
            Ok(fs::write(scratch.join(path), text.replace(from.as_str(), to))?)
        }
    }
}

/// Runs a command of the page in the copy.
fn type_in(scratch: &Path, words: &[String]) -> Result<()> {
    let [program, arguments @ ..] = words else { bail!("an empty command") };
    ensure!(program == "cargo", "the page's commands are cargo's, not `{program}`");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(scratch);
    // What is built there stays there: cargo takes the crates of two copies of a workspace for the same.
    for variable in ["CARGO_TARGET_DIR", "CARGO_MANIFEST_DIR", "VTL1_IMAGE"] {
        command.env_remove(variable);
    }
    if arguments.iter().any(|word| word == "run") {
        // What the machine says is what the page is about.
        let said = capture(&mut command)?;
        let answers = said.lines().filter(|line| line.contains("Frobnicate"));
        println!("{}", answers.clone().collect::<Vec<_>>().join("\n"));
        ensure!(answers.count() > 0, "`{}` says nothing of the call", describe(&command));
        ensure!(image_dir(scratch).join("vmlinux").is_file(), "the image is not the copy's own");
        return Ok(());
    }
    run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn blocks_become_steps_in_their_order() {
        let page = "a\n```sh,scratch\ncargo a b\n\ncargo c\n```\n1. b\n\n   ```rust,ignore,file=x/y.rs\n   fn f() {\n       g();\n   }\n   \
                    ```\n```diff,file=z\n-one\n+two\n+three\n```\n```rust\nnot(this)\n```\n```sh\ncargo not this\n```\n";
        let run = |words: &[&str]| Step::Run(words.iter().map(ToString::to_string).collect());
        let expected = [
            run(&["cargo", "a", "b"]),
            run(&["cargo", "c"]),
            Step::Write { path: "x/y.rs".into(), text: "fn f() {\n    g();\n}\n".into() },
            Step::Change { path: "z".into(), from: "one\n".into(), to: "two\nthree\n".into() },
        ];
        assert_eq!(steps(page).unwrap(), expected);
        assert!(steps("```sh,scratch\ncargo a\n").is_err());
        assert!(steps("```diff,file=z\n+two\n```\n").is_err());
    }

    #[test]
    fn the_page_creates_implements_tests_and_runs_the_call() {
        let steps = steps(&fs::read_to_string(workspace::root().join(PAGE)).unwrap()).unwrap();
        let runs =
            |words: &str| steps.iter().any(|step| matches!(step, Step::Run(run) if run.join(" ").contains(words)));
        assert!(
            matches!(steps.first(), Some(Step::Run(words)) if words.join(" ") == "cargo xtask new-call Frobnicate")
        );
        assert!(runs("cargo xtask run") && runs("cargo test") && runs("cargo xtask abi --check"));
        assert!(
            steps
                .iter()
                .any(|step| matches!(step, Step::Write { path, .. } if path == "vsm_handlers/src/frobnicate.rs"))
        );
    }
}
