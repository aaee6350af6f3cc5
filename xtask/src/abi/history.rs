//! Compares the lock with its committed versions: no line is ever changed or removed, not even by hand.
//!
//! Those versions are HEAD's, and those of the last commits that HEAD shares with the main branch and with the last tag, where
//! they exist. A checkout without history, such as a release's sources, gets a plain message.

use std::path::Path;
use std::process::Command;

use crate::process::capture;

/// The lines of `committed` that `present` has lost, or has in another order.
#[must_use]
pub fn lost<'a>(committed: &'a str, present: &str) -> Vec<&'a str> {
    let is_entry = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let mut rest = present.lines();
    committed
        .lines()
        .filter(is_entry)
        .filter(|line| {
            let mut ahead = rest.clone();
            let is_there = ahead.any(|other| other == *line);
            if is_there {
                rest = ahead;
            }
            !is_there
        })
        .collect()
}

/// What is wrong with the lock at `path` below `root`, whose text is `present`.
#[must_use]
pub fn problems(root: &Path, path: &str, present: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let bases = bases(root);
    let found: Vec<(&str, String)> =
        bases.iter().filter_map(|(name, base)| Some((name.as_str(), committed(root, path, base)?))).collect();
    if found.is_empty() {
        println!("git has no committed {path} here: that no line of it was changed or removed is not checked");
    }
    for (name, committed) in found {
        for line in lost(&committed, present) {
            problems.push(format!(
                "{path} has lost an entry of {name}, or moved it: `{line}`; give it back: changes are new entries"
            ));
        }
    }
    problems
}

/// The file at `path` below `root` as that commit has it; `None` if it has none, or there is no git.
#[must_use]
pub fn committed(root: &Path, path: &str, commit: &str) -> Option<String> {
    // What `capture` takes from the end is a newline.
    git(root, &["show", &format!("{commit}:./{path}")]).map(|text| text + "\n")
}

/// The commits to compare with, by what they are.
fn bases(root: &Path) -> Vec<(String, String)> {
    let mut bases = vec![("HEAD".to_owned(), "HEAD".to_owned())];
    let tag = git(root, &["describe", "--tags", "--abbrev=0"]).map(|tag| tag.trim().to_owned());
    for other in [Some("origin/main".to_owned()), tag].into_iter().flatten() {
        if let Some(base) = git(root, &["merge-base", "HEAD", &other]) {
            bases.push((other, base.trim().to_owned()));
        }
    }
    bases
}

/// What git says; `None` if it is not there or refuses.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    capture(Command::new("git").arg("-C").arg(root).args(arguments)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_in_order_and_more_may_follow() {
        let committed = "# words\na 1\nb 1\nc 2\n";
        assert_eq!(lost(committed, "# other words\na 1\nb 1\nc 2\nd 3\n"), [""; 0]);
        assert_eq!(lost(committed, "# words\na 1\nc 2\n"), ["b 1"]);
        assert_eq!(lost(committed, "a 1\nb 2\nc 2\n"), ["b 1"]);
        assert_eq!(lost(committed, "b 1\na 1\nc 2\n"), ["b 1"]);
        assert_eq!(lost(committed, ""), ["a 1", "b 1", "c 2"]);
        assert_eq!(lost("a 1\na 1\n", "a 1\n"), ["a 1"]);
    }
}
