//! SetPlatformRootKey: the secret that a trusted operating system derives its keys from.
//!
//! The bytes are VTL0's firmware's, and still VTL0's when they are read: a VTL0 that lies harms only the secrets it asks for.
//! They are copied from VTL0's memory into their place in the platform's state, with no buffer between.

use litebox_platform_lvbs::access::PhysConstPtr;
use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::vsm::BootContext;
use litebox_platform_lvbs::{Platform, VsmError};
use log::info;
use vsm_macros::vsm_handler;

use super::trusted_os::{NoTrustedOs, TrustedOs};

/// Hands over the platform's root key: 32 bytes, contiguous in physical memory, from `key` on.
///
/// Once: VTL1 keeps the key as long as it runs. VTL0 should wipe its own copy then. On an error VTL1 has no byte of it.
#[vsm_handler(
    VsmFunction::SetPlatformRootKey,
    phase = boot,
    caller = any,
    errors(
        EBUSY = "there is a root key already",
        EFAULT = "bytes that are not memory",
        EACCES = "a key that ends in a frame of VTL1",
    )
)]
fn set_platform_root_key(call: &BootContext<'_>, key: PhysAddr) -> Result<(), VsmError> {
    hand_over(call.platform(), &NoTrustedOs, key)
}

/// Keeps the key at `key`, and lets the trusted operating system know it.
fn hand_over(platform: &Platform, os: &impl TrustedOs, key: PhysAddr) -> Result<(), VsmError> {
    let source = PhysConstPtr::new(platform, key)?;
    let mut root_key = platform.root_key().lock();
    root_key.set("the platform's root key", |bytes| source.read_into(platform.hardware(), bytes))?;
    if let Some(bytes) = root_key.expose() {
        os.take_root_key(bytes);
    }
    drop(root_key);
    info!("SetPlatformRootKey: VTL1 has the platform's root key");
    Ok(())
}

#[cfg(test)]
mod tests {
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
}
