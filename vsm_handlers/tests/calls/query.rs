//! Query through the real table: a page that cannot be written is an errno. What is answered is in the simulator's tests.

use litebox_platform_lvbs::vsm::VsmFunction;

use crate::common::{BOOT_VP, Machine, VTL1_END, VTL1_START, call, end_boot, kernel};

#[test]
fn a_page_that_cannot_be_written_is_an_errno_in_both_phases() {
    let platform = kernel(&Machine::default());
    let id = VsmFunction::Query.id();
    for ended in [false, true] {
        for (page, errno) in [(VTL1_START << 12, -13), (VTL1_END << 12, -14), (1 << 52, -14), (8, -22)] {
            assert_eq!(call(&platform, BOOT_VP, [id, page, 0, 0]), errno, "{page:#x}");
        }
        if !ended {
            end_boot(&platform);
        }
    }
}
