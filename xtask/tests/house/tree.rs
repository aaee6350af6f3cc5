//! The files the rules are about: those git tracks, and those it would track.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A text file.
pub struct File {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// The content.
    pub text: String,
}

impl File {
    /// The first part of the path: the crate, for a file of one.
    pub fn top(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Whether it is Rust source.
    pub fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    /// Whether it is input or expected output of a test, which breaks rules on purpose or is not written by hand.
    pub fn is_fixture(&self) -> bool {
        ["/tests/ui/", "/tests/expand/"].iter().any(|directory| self.path.contains(directory))
    }
}

/// Macros whose arguments are code for another crate, or a test's input, and not the crate's own code.
pub const QUOTING: [&str; 4] = ["quote", "quote_spanned", "parse_quote", "parse_quote_spanned"];

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All text files.
pub fn files() -> Vec<File> {
    let root = root();
    // A repository that belongs to another user than the one who tests is as good.
    let arguments = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(arguments).current_dir(&root).output().expect("the house rules need git");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("a file's name is not UTF-8");
    // A file that is tracked but has been removed is no file; neither is one that is not text.
    let read = |path: &str| Some(File { text: std::fs::read_to_string(root.join(path)).ok()?, path: path.to_owned() });
    let files: Vec<File> = names.split_terminator('\0').filter_map(read).collect();
    assert!(files.len() > 100, "git lists {} files only", files.len());
    files
}

/// All Rust files that people write: no fixtures.
pub fn sources() -> Vec<File> {
    files().into_iter().filter(|file| file.is_rust() && !file.is_fixture()).collect()
}
