//! VTL0's memory is read and written in `access` only, where VTL1's own frames are refused.

use proc_macro2::{TokenStream, TokenTree};

use crate::tree::sources;
use crate::{Finding, assert_none, lines};

/// What copies from and to VTL0's memory, or maps it, without a check.
const UNCHECKED: [&str; 3] = ["read_vtl0", "write_vtl0", "map_view"];
/// Where it may be named: the checks, the seam, what implements it, and the simulator with its tests.
const PLACES: [&str; 5] = [
    "litebox_platform_lvbs/src/access/",
    "litebox_platform_lvbs/src/frames/view.rs",
    "litebox_platform_lvbs/src/hardware/",
    "litebox_platform_lvbs/src/arch/",
    "vsm_sim/",
];

fn may_name(path: &str) -> bool {
    PLACES.iter().any(|place| path.starts_with(place)) || path.split('/').any(|part| part == "tests")
}

/// The names among a file's tokens; comments and strings don't count.
fn named(path: &str, tokens: TokenStream, findings: &mut Vec<Finding>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => named(path, group.stream(), findings),
            TokenTree::Ident(word) if UNCHECKED.iter().any(|name| word == name) => {
                let what = format!("`{word}` checks nothing: use `access`, which refuses VTL1's own frames");
                findings.push(Finding::new(path, word.span().start().line, what));
            }
            _ => {}
        }
    }
}

fn findings(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !may_name(path) {
        named(path, text.parse().unwrap_or_else(|error| panic!("{path}: {error}")), &mut findings);
    }
    findings
}

#[test]
fn vtl0s_memory_is_read_and_written_in_access_only() {
    let found: Vec<Finding> = sources().iter().flat_map(|file| findings(&file.path, &file.text)).collect();
    assert_none(&found);
}

#[test]
fn an_access_past_the_check_is_found() {
    let text = "// read_vtl0(at)\nfn f(hw: &dyn Hardware) {\n    hw.read_vtl0(at, &mut [0]);\n    g(Hardware::write_vtl0);\n    log!(hw.read_vtl0());\n}";
    for path in
        ["vsm_handlers/src/kdata.rs", "litebox_platform_lvbs/src/heki/walk.rs", "litebox_runner_lvbs/src/boot.rs"]
    {
        assert_eq!(lines(&findings(path, text)), [3, 4, 5], "{path}");
    }
    for path in [
        "litebox_platform_lvbs/src/access/ptr.rs",
        "vsm_handlers/tests/calls/common.rs",
        "vsm_sim/src/hosted/hardware.rs",
    ] {
        assert_eq!(findings(path, text), [], "{path}");
    }
}
