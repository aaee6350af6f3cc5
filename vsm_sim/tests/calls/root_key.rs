//! SetPlatformRootKey over the hypervisor model: the key is taken whole or not at all, once, and is seen nowhere.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::vtl0::bytes;

/// First byte after RAM, and VTL1's first.
const RAM_END: u64 = 64 << 20;
const VTL1: u64 = 32 << 20;
/// A key over the border of two pages.
const KEY: u64 = 0x10_0000 - 7;

fn key() -> [u8; 32] {
    std::array::from_fn(|index| 0xc0 | u8::try_from(index).unwrap())
}

fn machine() -> HostedMachine {
    let mut machine = HostedMachine::new(HostedConfig::default());
    machine.keep_log();
    bytes::write(machine.memory(), KEY, &key()).unwrap();
    machine
}

fn set(machine: &HostedMachine, at: u64) -> i64 {
    machine.vtl_call(0, VsmFunction::SetPlatformRootKey.id(), at, 0, 0)
}

fn kept(machine: &HostedMachine) -> Option<[u8; 32]> {
    machine.platform().root_key().lock().expose().copied()
}

#[test]
fn a_key_at_a_page_crossing_is_kept_and_no_second_one_is_taken() {
    let machine = machine();
    assert_eq!(set(&machine, KEY), 0);
    assert_eq!(kept(&machine), Some(key()));
    bytes::write(machine.memory(), KEY, &[0; 32]).unwrap();
    assert_eq!(set(&machine, KEY), Errno::Ebusy.to_result());
    assert_eq!(kept(&machine), Some(key()));
}

#[test]
fn a_key_that_is_refused_leaves_nothing_and_a_good_one_is_taken_then() {
    for (at, errno) in [
        (VTL1, Errno::Eacces),
        (VTL1 - 16, Errno::Eacces),
        (RAM_END, Errno::Efault),
        // Half of it can be read.
        (RAM_END - 16, Errno::Efault),
        ((1 << 52) - 16, Errno::Efault),
        (u64::MAX, Errno::Efault),
    ] {
        let machine = machine();
        bytes::write(machine.memory(), RAM_END - 16, &key()[..16]).unwrap();
        assert_eq!(set(&machine, at), errno.to_result(), "{at:#x}");
        assert_eq!(kept(&machine), None, "{at:#x}");
        assert_eq!(set(&machine, KEY), 0, "{at:#x}");
        assert_eq!(kept(&machine), Some(key()), "{at:#x}");
    }
}

#[test]
fn no_key_is_taken_after_the_end_of_boot() {
    let machine = machine();
    assert_eq!(machine.vtl_call(0, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0), 0);
    assert_eq!(set(&machine, KEY), Errno::Eperm.to_result());
    assert_eq!(kept(&machine), None);
}

#[test]
fn the_key_is_in_no_line_of_the_log() {
    let machine = machine();
    assert_eq!(set(&machine, RAM_END - 16), Errno::Efault.to_result());
    assert_eq!(set(&machine, KEY), 0);
    assert_eq!(set(&machine, KEY), Errno::Ebusy.to_result());
    let shown = format!("{:?} {:?}", machine.platform().root_key(), machine.log_lines());
    assert!(shown.contains("has the platform's root key"), "{shown}");
    // Any two of its bytes, in each way in which bytes are printed.
    for pair in key().windows(2) {
        let [one, other] = [pair[0], pair[1]];
        for form in [
            format!("{one}, {other}"),
            format!("{one:02x}{other:02x}"),
            format!("{one:02x} {other:02x}"),
            format!("{one:#x}, {other:#x}"),
        ] {
            assert!(!shown.to_lowercase().contains(&form), "{form} is in {shown}");
        }
    }
}
