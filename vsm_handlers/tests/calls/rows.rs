//! What a row says of its handler.

use std::path::Path;

use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_handlers::ROWS;

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
