//! The checks of `cargo xtask verify-elf` against the real image: it passes, and a copy doctored to break one rule fails
//! by that rule's name.

mod doctorings;
mod elf;

use std::sync::OnceLock;

use doctorings::{CODE, Doctoring, JUMP_TABLE, LOADER, change_flags};
use elf::{Elf, TABLE, eh, sh, sym};
use xtask::verify::{Rule, verify};
use xtask::{image, workspace};

/// The image, built once for all tests of this process if it is not there yet.
fn good() -> Elf {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = IMAGE.get_or_init(|| std::fs::read(image::present(&workspace::root()).unwrap()).unwrap());
    Elf(bytes.clone())
}

fn each_breaks_its_rule(doctorings: &[Doctoring]) {
    let mut survived = Vec::new();
    for (rule, name, doctor) in doctorings {
        let mut elf = good();
        doctor(&mut elf);
        let report = verify(&elf.0);
        if !report.breaks(*rule) || report.is_good() {
            survived.push(format!("{rule}: {name}"));
        }
    }
    assert!(survived.is_empty(), "not found by their check: {survived:#?}");
}

#[test]
fn the_image_passes_every_check() {
    let report = verify(&good().0);
    assert!(report.is_good(), "{report}");
}

#[test]
fn a_file_that_breaks_a_loader_or_permission_rule_fails_by_its_name() {
    each_breaks_its_rule(LOADER);
}

#[test]
fn a_file_with_another_jump_table_fails_by_the_rule_s_name() {
    each_breaks_its_rule(JUMP_TABLE);
}

#[test]
fn a_file_with_other_code_fails_by_the_rule_s_name() {
    each_breaks_its_rule(CODE);
}

#[test]
fn every_rule_has_a_doctored_file() {
    for &rule in Rule::ALL {
        let lists = [LOADER, JUMP_TABLE, CODE];
        assert!(lists.iter().any(|list| list.iter().any(|(of, _, _)| *of == rule)), "no file breaks {rule}");
    }
}

#[test]
fn all_failures_are_reported_not_only_the_first() {
    let mut elf = good();
    change_flags(&mut elf, 5, 7);
    let at = elf.symbol(TABLE);
    elf.put64(at + sym::SIZE, 8);
    let [_, _, and] = elf.clamp();
    elf.replace(&and, &[]);
    let report = verify(&elf.0);
    for rule in [Rule::SegmentWx, Rule::TableSymbol, Rule::IndexClamped] {
        assert!(report.breaks(rule), "{report}");
    }
    let text = report.to_string();
    assert!(text.contains("FAIL  segment-w^x") && text.contains("ok    entry-executable"), "{text}");
}

#[test]
fn no_bytes_make_the_checks_panic() {
    let good = good();
    assert!(!verify(&[]).is_good());
    for len in [1, 16, 63, 64, 65, 4096] {
        assert!(!verify(&good.0[..len]).is_good());
    }
    // Bytes of every header in turn, and the first bytes of the symbol and relocation tables.
    let headers = |start: usize, len: usize| start..start + len;
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let areas = [
        headers(0, 64),
        headers(good.segment(0), 56 * usize::from(good.u16(eh::PHNUM))),
        headers(good.section_at(0), 64 * usize::from(good.u16(eh::SHNUM))),
        headers(at(good.u64(good.section(".symtab") + sh::OFFSET)), 96),
        headers(at(good.u64(good.section(".rela.dyn") + sh::OFFSET)), 96),
    ];
    let mut bytes = good.0.clone();
    for offset in areas.into_iter().flatten().step_by(17) {
        let old = bytes[offset];
        for value in [0xff, old ^ 1] {
            bytes[offset] = value;
            // The result does not matter here; it must come.
            let _ = verify(&bytes);
        }
        bytes[offset] = old;
    }
}
