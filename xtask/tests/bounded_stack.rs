//! What VTL1 sorts comes from VTL0, and its stacks are 32 KiB: the image must have no sort that recurses.

use object::{Object, ObjectSymbol};
use xtask::{image, workspace};

/// Parts of the names of core's and alloc's sorts that call themselves, or take their scratch memory from the stack.
const RECURSIVE: [&str; 4] = ["9quicksort", "6driftsort", "5drift4sort", "7ipnsort"];

#[test]
fn the_image_has_no_sort_that_recurses() {
    let bytes = std::fs::read(image::present(&workspace::root()).unwrap()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let names: Vec<&str> = file.symbols().filter_map(|symbol| symbol.name().ok()).collect();
    assert!(names.len() > 100, "the image has no symbols to look at");
    let found: Vec<&&str> = names.iter().filter(|name| RECURSIVE.iter().any(|part| name.contains(part))).collect();
    assert!(found.is_empty(), "{found:#?}");
    // What core sorts with instead, so that a new way of mangling does not go unnoticed.
    assert!(names.iter().any(|name| name.contains("8heapsort8heapsort")), "the image does not sort at all");
}
