//! The listing for people, and the README's copy of it.

use std::path::Path;

use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_handlers::{Listing, ROWS};

#[test]
fn every_call_has_a_line_that_says_whether_it_is_implemented() {
    let listing = Listing.to_string();
    let lines: Vec<&str> = listing.lines().skip(2).collect();
    assert_eq!(lines.len(), VsmFunction::COUNT);
    for (line, row) in lines.iter().zip(&ROWS) {
        assert!(line.starts_with(&format!("| `{:#x}` | {} |", row.function.id(), row.function.name())), "{line}");
        assert_eq!(line.matches('|').count(), 8, "{line}");
        assert_eq!(line.ends_with("| not implemented |"), !row.meta.implemented, "{line}");
    }
    assert_eq!(lines[0], "| `0x1ffe0` | EnableAPsVtl | boot | bsp | `present`: frame number | 0 | implemented |");
    assert_eq!(lines[13], "| `0x1fff0` | OpteeMessage | any | any | `registers`: frame number | 0 | implemented |");
}

#[test]
fn rows_tell_where_the_handler_is_and_what_it_does() {
    let row = &ROWS[VsmFunction::SignalEndOfBoot.index()];
    assert_eq!(row.meta.name, "signal_end_of_boot");
    assert!(row.meta.doc.starts_with("Ends the boot phase"), "{}", row.meta.doc);
    assert!(row.meta.file.ends_with("boot.rs"), "{}", row.meta.file);
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/boot.rs")).unwrap();
    let line = source.lines().nth(row.meta.line as usize - 1).unwrap();
    assert!(line.contains("VsmFunction::SignalEndOfBoot"), "line {} is: {line}", row.meta.line);
}

/// The README's table is the listing.
#[test]
fn the_readme_has_the_listing() {
    const BEGIN: &str = "<!-- calls:begin -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).expect("the workspace has a README.md");
    let begin = readme.find(BEGIN).expect("README.md has the line <!-- calls:begin -->") + BEGIN.len();
    let end = begin + readme[begin..].find("<!-- calls:end -->").expect("README.md has the line <!-- calls:end -->");
    assert_eq!(readme[begin..end], Listing.to_string(), "write it with `cargo xtask abi`");
}
