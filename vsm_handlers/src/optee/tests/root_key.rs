//! The place where a trusted operating system learns the root key, over a machine of a few lines.

extern crate std;

use alloc::boxed::Box;
use core::cell::Cell;

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::hardware::{Hardware, HypercallOutcome, MemoryFault};
use litebox_platform_lvbs::hv::{HvStatus, HypercallControl, InitialVpContext};
use litebox_platform_lvbs::loader::Generation;
use litebox_platform_lvbs::optee::{SmcAnswer, SmcRegisters};
use litebox_platform_lvbs::platform::PlatformConfig;

use super::*;

/// A machine whose memory below 0x1000 has the low byte of the address at each place.
struct Counting;

impl Hardware for Counting {
    fn hypercall(&self, _: HypercallControl, _: &[u8], _: &mut [u8]) -> HypercallOutcome {
        HypercallOutcome { status: HvStatus::SUCCESS, reps_done: 0 }
    }

    fn read_vtl0(&self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        for (byte, at) in into.iter_mut().zip(from.as_u64()..) {
            *byte = at.to_le_bytes()[0];
        }
        if from.as_u64() < 0x1000 { Ok(()) } else { Err(MemoryFault(from)) }
    }

    fn write_vtl0(&self, to: PhysAddr, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault(to))
    }

    fn initial_vp_context(&self, _: u32) -> Result<InitialVpContext, VsmError> {
        Ok(InitialVpContext::default())
    }
}

/// Remembers the keys it is told.
#[derive(Default)]
struct Listening(Cell<Option<[u8; 32]>>);

impl TrustedOs for Listening {
    fn uuid(&self) -> [u32; 4] {
        [0; 4]
    }

    fn revision(&self) -> (u32, u32) {
        (0, 0)
    }

    fn capabilities(&self) -> [u64; 3] {
        [0; 3]
    }

    fn take_root_key(&self, key: &[u8; 32]) {
        assert_eq!(self.0.replace(Some(*key)), None, "it is told once");
    }

    fn take(&self, _: &SmcRegisters) -> SmcAnswer {
        SmcAnswer::NOT_AVAILABLE
    }
}

#[test]
fn the_trusted_operating_system_learns_the_key_once_and_no_part_of_a_broken_one() {
    let config = PlatformConfig {
        vtl1_region: FrameRange::from_gfns(0x8000, 0x9000).unwrap(),
        possible_cpus: 1,
        boot_vp: 0,
        loader: Generation::G2,
    };
    let platform = Platform::new(Box::new(Counting), config).unwrap();
    let os = Listening::default();
    let offer = |at| hand_over(&platform, &os, PhysAddr::new(at).unwrap());
    assert!(offer(0xff0).is_err(), "its second half is no memory");
    assert_eq!(os.0.get(), None);
    offer(0x140).unwrap();
    assert_eq!(os.0.get(), Some(core::array::from_fn(|index| 0x40 + index.to_le_bytes()[0])));
    assert!(offer(0x180).is_err());
}
