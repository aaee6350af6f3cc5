//! Tests of the typed pointers: page borders, scattered pages, VTL1's frames, frames with an owner.

use super::{PhysConstPtr, PhysMutPtr};
use crate::address::PhysAddr;
use crate::error::{Errno, VsmError};
use crate::frames::Permission;
use crate::frames::tests::fake::{Fake, frames};
use crate::owner::{ModuleMemoryKind, Owner};
use crate::phase::Phase;
use crate::platform::Platform;
use crate::token::Token;

type Value = [u64; 4];
const VALUE: Value = [0x0102_0304, u64::MAX, 0, 0x1122_3344_5566_7788];

fn machine() -> (Fake, Platform) {
    let fake = Fake::new(1024);
    let platform = fake.platform(frames(0x200, 0x300));
    (fake, platform)
}

fn pa(raw: u64) -> PhysAddr {
    PhysAddr::new(raw).unwrap()
}

#[test]
fn a_value_is_copied_across_page_borders() {
    let (fake, platform) = machine();
    for at in [0x5000, 0x5008, 0x5fe0, 0x5fe1, 0x5ff3, 0x5fff] {
        let registry = platform.frames().lock();
        let target = PhysMutPtr::<Value>::new(&registry, Owner::Nobody, pa(at)).unwrap();
        target.write(&fake, &VALUE).unwrap();
        assert_eq!(target.read(&fake), Ok(VALUE));
        assert_eq!(PhysConstPtr::<Value>::new(&platform, pa(at)).unwrap().read(&fake), Ok(VALUE));
    }
}

#[test]
fn each_byte_is_fetched_once_per_read() {
    let (fake, platform) = machine();
    PhysConstPtr::<[u8; 9000]>::new(&platform, pa(0x5ffc)).unwrap().read(&fake).unwrap();
    let reads = fake.with(|state| state.reads.clone());
    assert_eq!(reads, [(0x5ffc, 4), (0x6000, 4096), (0x7000, 4096), (0x8000, 804)]);
}

#[test]
fn a_value_may_lie_in_pages_that_are_not_neighbours() {
    let (fake, platform) = machine();
    let more = [pa(0x3000)];
    let registry = platform.frames().lock();
    let target = PhysMutPtr::<Value>::scattered(&registry, Owner::Nobody, pa(0x9ff0), &more).unwrap();
    target.write(&fake, &VALUE).unwrap();
    let pointer = PhysConstPtr::<Value>::scattered(&platform, pa(0x9ff0), &more).unwrap();
    assert_eq!(pointer.read(&fake), Ok(VALUE));
    let tail = PhysConstPtr::<[u64; 2]>::new(&platform, pa(0x3000)).unwrap();
    assert_eq!(tail.read(&fake), Ok([VALUE[2], VALUE[3]]));
    // Exactly the pages it needs, and aligned.
    let scattered = |first, more: &[PhysAddr]| PhysConstPtr::<Value>::scattered(&platform, pa(first), more).map(|_| ());
    assert_eq!(scattered(0x9fe0, &[]), Ok(()));
    assert!(matches!(scattered(0x9fe0, &more), Err(VsmError::InvalidParameter { .. })));
    assert!(matches!(scattered(0x9ff0, &[]), Err(VsmError::InvalidParameter { .. })));
    assert_eq!(scattered(0x9ff0, &[pa(0x3008)]), Err(VsmError::NotPageAligned(0x3008)));
}

#[test]
fn no_pointer_reaches_into_vtl1() {
    let (_, platform) = machine();
    let registry = platform.frames().lock();
    let is_own = |error| matches!(error, VsmError::FrameOwned(_, Owner::Vtl1));
    for at in [0x1f_ffe1, 0x20_0000, 0x2f_ffff] {
        assert!(is_own(PhysConstPtr::<Value>::new(&platform, pa(at)).unwrap_err()), "{at:#x}");
        assert!(is_own(PhysMutPtr::<Value>::new(&registry, Owner::Nobody, pa(at)).unwrap_err()), "{at:#x}");
    }
    let more = [pa(0x20_0000)];
    assert!(is_own(PhysConstPtr::<Value>::scattered(&platform, pa(0x9ff0), &more).unwrap_err()));
    assert!(is_own(PhysMutPtr::<Value>::scattered(&registry, Owner::Nobody, pa(0x9ff0), &more).unwrap_err()));
    assert!(PhysConstPtr::<Value>::new(&platform, pa(0x1f_ffe0)).is_ok());
    assert!(PhysConstPtr::<Value>::new(&platform, pa(0x30_0000)).is_ok());
}

#[test]
fn only_the_owner_may_write() {
    let (fake, platform) = machine();
    let mut registry = platform.frames().lock();
    let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
    let module = Owner::Module { token: Token::new(3).unwrap(), kind: ModuleMemoryKind::Text };
    transaction.stage(frames(6, 7), module, module, Permission::R).unwrap();
    transaction.commit().unwrap();
    let mine = PhysMutPtr::<Value>::new(&registry, module, pa(0x5ff0)).unwrap();
    assert_eq!(mine.write(&fake, &VALUE), Ok(()));
    for other in [
        Owner::Nobody,
        Owner::BootProtected,
        Owner::KernelText,
        Owner::Module { token: Token::new(4).unwrap(), kind: ModuleMemoryKind::Text },
    ] {
        let error = PhysMutPtr::<Value>::new(&registry, other, pa(0x5ff0)).unwrap_err();
        assert_eq!(error, VsmError::FrameOwned(pa(0x6000), module));
    }
}

#[test]
fn addresses_end_where_physical_memory_does() {
    let (fake, platform) = machine();
    let end = (1 << 52) - 8;
    let error = PhysConstPtr::<Value>::new(&platform, pa(end)).unwrap_err();
    assert_eq!(error.errno(), Errno::Efault);
    let beyond = PhysConstPtr::<u64>::new(&platform, pa(end)).unwrap();
    assert_eq!(beyond.read(&fake), Err(VsmError::Vtl0MemoryFault(pa(end))));
}
