//! SetPlatformRootKey through the real table: its parameter, its phase. What becomes of the key is in the simulator's tests.

use litebox_platform_lvbs::vsm::VsmFunction;

use crate::common::{BOOT_VP, Machine, VTL1_END, VTL1_START, call, end_boot, kernel};

const PAGE: u64 = 0x1234 << 12;

#[test]
fn a_key_is_taken_from_vtl0s_memory_once_and_during_boot_only() {
    let machine = Machine::default();
    machine.0.lock().unwrap().page = Some((PAGE, vec![0xa5; 4096]));
    let id = VsmFunction::SetPlatformRootKey.id();
    let platform = kernel(&machine);
    let (vtl1, after) = (VTL1_START << 12, VTL1_END << 12);
    for (key, errno) in
        [(vtl1, -13), (vtl1 - 31, -13), (after - 1, -13), (1 << 52, -14), ((1 << 52) - 1, -14), (after, -14)]
    {
        assert_eq!(call(&platform, BOOT_VP, [id, key, 0, 0]), errno, "{key:#x}");
    }
    assert_eq!(call(&platform, BOOT_VP + 1, [id, PAGE, 0, 0]), 0);
    assert_eq!(call(&platform, BOOT_VP, [id, PAGE, 0, 0]), -16);
    end_boot(&platform);
    assert_eq!(call(&platform, BOOT_VP, [id, PAGE, 0, 0]), -1);
}
