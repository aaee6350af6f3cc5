//! What a diagnostic of the macros means: `cargo xtask explain CODE`.
//!
//! The words are those of the book, `docs/src/diagnostics.md`: a section a code.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

/// Where the words are, from the root.
pub const PAGE: &str = "docs/src/diagnostics.md";

/// The codes of rustc's own for mistakes that the macros leave to it.
pub const RUSTC: [&str; 3] = ["E0119", "E0425", "E0599"];

/// What to explain.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A code, as `VSM010` or rustc's `E0119`; without one all are listed.
    pub code: Option<String>,
}

/// A diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its code.
    pub code: String,
    /// The mistake in a few words.
    pub title: String,
    /// The paragraph.
    pub text: String,
}

/// The sections of the page.
pub fn sections(page: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in page.lines() {
        if let Some((code, title)) = line.strip_prefix("## ").and_then(|heading| heading.split_once(": ")) {
            sections.push(Section { code: code.to_owned(), title: title.to_owned(), text: String::new() });
        } else if let Some(section) = sections.last_mut() {
            section.text.push_str(line);
            section.text.push('\n');
        }
    }
    for section in &mut sections {
        section.text = section.text.trim().to_owned();
    }
    sections
}

/// Prints the paragraph about a code, or a line about each.
///
/// # Errors
/// There is no such code.
pub fn execute(root: &Path, options: &Options) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let sections = sections(&page);
    let Some(code) = &options.code else {
        for Section { code, title, .. } in &sections {
            println!("{code}  {title}");
        }
        return Ok(());
    };
    let wanted = code.to_uppercase();
    let section = sections.iter().find(|section| section.code == wanted);
    let Section { code, title, text } =
        section.with_context(|| format!("there is no diagnostic {wanted}; `cargo xtask explain` lists them"))?;
    println!("{code}: {title}\n\n{text}");
    let fixtures = fixtures(root, code)?;
    if !fixtures.is_empty() {
        println!("\nFor example: {}", fixtures.join(", "));
    }
    Ok(())
}

/// The fixtures whose recorded words have the code.
///
/// # Errors
/// They cannot be read.
pub fn fixtures(root: &Path, code: &str) -> Result<Vec<String>> {
    const DIRECTORY: &str = "vsm_handlers/tests/ui/fail";
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(DIRECTORY)).with_context(|| format!("cannot read {DIRECTORY}"))? {
        let path = entry?.path();
        let is_words = path.extension().is_some_and(|extension| extension == "stderr");
        let words = if RUSTC.contains(&code) { format!("error[{code}]: ") } else { format!("{code}: ") };
        if is_words && fs::read_to_string(&path)?.contains(&words) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            found.push(format!("{DIRECTORY}/{name}.rs"));
        }
    }
    found.sort();
    Ok(found)
}
