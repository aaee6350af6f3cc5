//! The picture in the documentation is the one that the sources give.

use std::path::Path;

use vsm_sim::map;

#[test]
fn the_picture_in_the_documentation_is_the_present_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/map.svg");
    let documented = std::fs::read_to_string(&file).unwrap_or_default();
    let present = map::draw().unwrap();
    let differs = documented.lines().zip(present.lines()).position(|(old, new)| old != new);
    assert!(
        documented == present,
        "docs/src/map.svg is not the present picture (line {}); to renew it, type: cargo xtask map --out docs/src/map.svg",
        differs.map_or(documented.lines().count().min(present.lines().count()), |line| line) + 1
    );
}

#[test]
fn the_picture_is_one_well_formed_document_and_drawn_the_same_twice() {
    let picture = map::draw().unwrap();
    assert_eq!(picture, map::draw().unwrap());
    // Every element is closed, in order.
    let mut open = Vec::new();
    for tag in picture.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let name = tag.split_whitespace().next().unwrap();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "in {tag:?}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    for words in ["LoadKData", "AllocateRingbufferMemory", "ProtectMemory", "-EPERM", "0xf680_0000", "kexec trampoline"]
    {
        assert!(picture.contains(words), "{words} is not in the picture");
    }
}
