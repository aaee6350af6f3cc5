//! A VTL0 that rewrites its memory while VTL1 reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use litebox_platform_lvbs::hv::MapFlags;
use vsm_sim::hosted::{HostedMemory, RacePoint};
use vsm_sim::hv::Partition;
use vsm_sim::vtl0::bytes;

use crate::linux::{Linux, VTL1};

/// Makes `call` while `attack` is made at each moment, with the moment's number; how many moments there were, and the
/// result. `attack` names an address and bytes for it, which are written if VTL0 may. `check` looks at each moment and after
/// each write.
pub fn race(
    linux: &Linux,
    call: impl FnOnce() -> i64,
    mut attack: impl FnMut(usize, RacePoint) -> Option<(u64, Vec<u8>)> + Send + 'static,
    check: impl Fn(&Partition, &HostedMemory) + Send + 'static,
) -> (usize, i64) {
    let partition = linux.machine.shared_partition();
    let moments = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&moments);
    linux.machine.memory().set_race(Some(Box::new(move |point, memory| {
        let moment = count.fetch_add(1, Ordering::Relaxed);
        check(&partition, memory);
        if let Some((gpa, bytes)) = attack(moment, point)
            && partition.protection(gpa >> 12).contains(MapFlags::WRITE)
        {
            bytes::write(memory, gpa, &bytes).unwrap();
            check(&partition, memory);
        }
    })));
    let result = call();
    linux.machine.memory().set_race(None);
    for gfn in VTL1 {
        assert_eq!(linux.machine.partition().protection(gfn), MapFlags::NONE);
    }
    (moments.load(Ordering::Relaxed), result)
}
