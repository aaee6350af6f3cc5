//! The commands in the book, and how they are carried out.
//!
//! A fenced block marked `sh` is something a person can type. A block marked `sh,hyper-v` needs a guest of Hyper-V and is
//! only shown; one marked `sh,scratch` is run by `cargo xtask book --walkthrough`, in a copy. Placeholders are filled in, long
//! runs are made short, and what `.ci/run` runs anyway is not run twice.

use std::fmt;
use std::path::Path;
use std::process::Command as Process;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::{Page, blocks};
use crate::lint::host_cargo;

/// Placeholders for a reader's own files and names, and what is put in their place.
const FILLED_IN: [(&str, &str); 6] = [
    ("FILE.svg", "target/book-map.svg"),
    ("FILE", "target/vtl1/vmlinux"),
    ("IMAGE", "target/vtl1/vmlinux"),
    ("DIR", "../shared/captures"),
    ("NAME", "errno_is_negative"),
    ("SEED", "0x1"),
];
/// Options that say how long or how much; a little is enough to see that the command works.
const SHORTENED: [(&str, &str); 3] = [("--seconds", "1"), ("--mutate", "2"), ("--steps", "200")];
/// Variables that say how much to do.
const SHORTENED_VARIABLES: [(&str, &str); 1] = [("PROPTEST_CASES", "4")];

/// A command of the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookCommand {
    /// Page and line.
    pub place: String,
    /// As the book has it, without its remark.
    pub text: String,
    /// Whether it is only for a guest of Hyper-V.
    pub needs_hyper_v: bool,
}

impl fmt::Display for BookCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.needs_hyper_v { " (needs Hyper-V)" } else { "" };
        write!(f, "{}: {}{mark}", self.place, self.text)
    }
}

/// All of them, in the order of the pages. A line that ends in a backslash goes on in the next.
pub fn all(pages: &[Page]) -> Vec<BookCommand> {
    let mut commands: Vec<BookCommand> = Vec::new();
    for page in pages {
        for block in blocks::blocks(&page.text).iter().filter(|block| block.is("sh") && !block.is("scratch")) {
            let mut goes_on = false;
            for (line, text) in (block.line..).zip(&block.lines) {
                let text = text.split(" #").next().unwrap_or_default().trim();
                if text.is_empty() || text.starts_with('#') {
                    continue;
                }
                let (text, more) = text.strip_suffix('\\').map_or((text, false), |text| (text.trim_end(), true));
                match commands.last_mut().filter(|_| goes_on) {
                    Some(command) => command.text = format!("{} {text}", command.text),
                    None => commands.push(BookCommand {
                        place: format!("{}:{line}", page.path.display()),
                        text: text.to_owned(),
                        needs_hyper_v: block.is("hyper-v"),
                    }),
                }
                goes_on = more;
            }
        }
    }
    commands
}

/// Every `cargo xtask` in the text itself, that is, not in a block of code: place and words behind `cargo xtask`.
#[cfg(test)]
pub fn mentioned(pages: &[Page]) -> Vec<(String, Vec<String>)> {
    let of_page = |page: &Page| {
        let place = page.path.display().to_string();
        let mention = move |(line, code): (usize, String)| {
            let words = code.strip_prefix("cargo xtask ")?.split_whitespace().map(filled_in).collect();
            Some((format!("{place}:{line}"), words))
        };
        blocks::inline_code(&page.text).into_iter().filter_map(mention).collect::<Vec<_>>()
    };
    pages.iter().flat_map(of_page).collect()
}

/// Commands that are never tried: blocks of another shell without the mark `hyper-v`, and cargo commands in the text that are
/// in no block.
pub fn unmarked(pages: &[Page]) -> Vec<String> {
    let all: Vec<String> = all(pages).into_iter().map(|command| command.text).collect();
    // Pages for contributors name commands of their daily work, with names of theirs in them.
    let book = pages.iter().filter(|page| page.path.starts_with("docs"));
    let of_page = |page: &Page| {
        let place = page.path.display();
        let shells = ["bash", "shell", "console", "powershell", "cmd"];
        let blocks = blocks::blocks(&page.text);
        let blocks = blocks.iter().filter(|block| shells.iter().any(|shell| block.is(shell)) && !block.is("hyper-v"));
        let blocks = blocks.map(|block| format!("{place}:{}: mark it `sh`, or `hyper-v`, or `text`", block.line));
        let code = blocks::inline_code(&page.text);
        let inline = code.iter().filter(|(_, code)| {
            let words: Vec<&str> = code.split_whitespace().skip_while(|word| word.contains('=')).collect();
            matches!(words[..], ["cargo", "test" | "nextest" | "bench" | "clippy" | "run", _, ..])
                && !all.contains(code)
        });
        let inline = inline.map(|(line, code)| format!("{place}:{line}: no block has `{code}`, so it is never tried"));
        blocks.chain(inline).collect::<Vec<_>>()
    };
    book.flat_map(of_page).collect()
}

fn filled_in(word: &str) -> String {
    FILLED_IN.iter().find(|(name, _)| *name == word).map_or(word, |(_, value)| value).to_owned()
}

/// A command as it is run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Invocation {
    /// Variables of its environment.
    variables: Vec<(String, String)>,
    /// The program and its arguments.
    words: Vec<String>,
}

fn invocation(text: &str) -> Invocation {
    let Invocation { mut variables, mut words } = Invocation::default();
    for word in text.split_whitespace() {
        if let (true, Some((name, value))) = (words.is_empty(), word.split_once('=')) {
            let short = SHORTENED_VARIABLES.iter().find(|(variable, _)| *variable == name);
            variables.push((name.to_owned(), short.map_or(value, |(_, short)| short).to_owned()));
            continue;
        }
        let short = words.last().and_then(|before| SHORTENED.iter().find(|(option, _)| option == before));
        words.push(short.map_or_else(|| filled_in(word), |(_, short)| (*short).to_owned()));
    }
    if words.get(1).is_some_and(|command| command == "bench") {
        // Each benchmark once, built as tests are: that it works is what is to be seen.
        words.splice(2..2, ["--profile", "dev"].map(str::to_owned));
        if !words.iter().any(|word| word == "--") {
            words.push("--".to_owned());
        }
        words.push("--test".to_owned());
    }
    Invocation { variables, words }
}

/// What `.ci/run` does, as far as it stands in it.
fn done_by_ci(root: &Path) -> Result<Vec<String>> {
    let script = std::fs::read_to_string(root.join(".ci/run")).context(".ci/run")?;
    Ok(script.lines().filter(|line| line.starts_with("cargo ")).map(|line| line.trim().to_owned()).collect())
}

/// Runs each command once, and says which failed.
pub fn run_all(root: &Path, pages: &[Page]) -> Result<()> {
    let by_ci = done_by_ci(root)?;
    let mut done: Vec<Invocation> = Vec::new();
    let mut failed = Vec::new();
    for command in all(pages).iter().filter(|command| !command.needs_hyper_v) {
        let what = invocation(&command.text);
        // A command that runs the book's commands would not end.
        let skipped =
            by_ci.contains(&command.text) || done.contains(&what) || what.words.iter().any(|word| word == "book");
        if !skipped {
            let start = Instant::now();
            let result = execute(root, &what);
            let word = if result.is_ok() { "ok" } else { "FAILED" };
            println!("{word:<7} {:>6.1} s  {command}", start.elapsed().as_secs_f64());
            failed.extend(result.err().map(|error| format!("{command}: {error:#}")));
            done.push(what);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
}

fn execute(root: &Path, Invocation { variables, words }: &Invocation) -> Result<()> {
    let [program, arguments @ ..] = words.as_slice() else { bail!("there is no command") };
    ensure!(program == "cargo", "only cargo is carried out: mark the block as text, or make it a command of xtask");
    let mut process: Process = host_cargo(root);
    process.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
    let output = process.output().with_context(|| words.join(" "))?;
    let said = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    };
    ensure!(output.status.success(), "{}\n{}\n{}", output.status, said(&output.stdout), said(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> [Page; 1] {
        [Page { path: "a.md".into(), text: text.to_owned() }]
    }

    #[test]
    fn commands_are_found_with_their_place_and_mark() {
        let pages = page(
            "```sh\ncargo a   # remark\n\n# all remark\nX=1 cargo b \\\n  --c\n```\n```text\ncargo no\n```\n```sh,hyper-v\nboot\n```\n",
        );
        let found: Vec<String> = all(&pages).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a.md:2: cargo a", "a.md:5: X=1 cargo b --c", "a.md:12: boot (needs Hyper-V)"]);
    }

    #[test]
    fn what_a_person_fills_in_is_filled_in_and_long_runs_are_short() {
        let Invocation { variables, words } =
            invocation("PROPTEST_CASES=2600 A=b cargo xtask x FILE --seconds 600 --y NAME");
        assert_eq!(variables, [("PROPTEST_CASES".into(), "4".into()), ("A".to_owned(), "b".to_owned())]);
        assert_eq!(words[..6], ["cargo", "xtask", "x", "target/vtl1/vmlinux", "--seconds", "1"]);
        assert_eq!(words[7], "errno_is_negative");
        let bench = |text| invocation(text).words.join(" ");
        assert_eq!(bench("cargo bench -p x"), "cargo bench --profile dev -p x -- --test");
        assert_eq!(bench("cargo bench -- y"), "cargo bench --profile dev -- y --test");
    }

    #[test]
    fn a_command_that_fails_or_is_not_cargos_is_told() {
        let root = crate::workspace::root();
        let said = run_all(&root, &page("```sh\ncargo no-such-command\nrm x\n```\n")).unwrap_err().to_string();
        assert!(said.contains("a.md:2: cargo no-such-command"), "{said}");
        assert!(said.contains("a.md:3: rm x: only cargo is carried out"), "{said}");
        run_all(&root, &page("```sh\ncargo --version\n```\n```sh,hyper-v\nrm x\n```\n")).unwrap();
    }
}
