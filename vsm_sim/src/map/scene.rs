//! The boot that is drawn: a guest with 4 GiB and few ranges, so that each of them can be seen.
//!
//! The calls and their order are the contract's (§5.2); what the list of protections names is what a kernel has, in
//! bigger pieces.

use std::ops::Range;

use anyhow::{Result, ensure};
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::{FrameRegistry, FrameState};
use litebox_platform_lvbs::vsm::VsmFunction as F;

use crate::hosted::{HostedConfig, HostedMachine};
use crate::trials::run::report::show_result;
use crate::vtl0::kdata::{self, KernelData, kind};
use crate::vtl0::lists::{self, List, Scratch, write_cpu_mask, write_list};
use crate::vtl0::memory_map::{MemoryMap, SCRATCH_END, SCRATCH_START, default_region_size};
use crate::vtl0::ranges::{READ_EXECUTE, READ_ONLY, READ_WRITE};

/// RAM: 4 GiB, of which 128 MiB lie above the device hole.
const MEMORY: u64 = 4 << 30;
const VPS: u32 = 2;

/// Where things lie in VTL0's memory.
const LOW: Range<u64> = 0..0x10_0000;
const TEXT: Range<u64> = 0x400_0000..0x4ff_f000;
const TRAMPOLINE: Range<u64> = 0x4ff_f000..0x500_0000;
const RODATA: Range<u64> = 0x500_0000..0x5a0_0000;
const DATA: Range<u64> = 0x5a0_0000..0x600_0000;
const VDSO: Range<u64> = 0x900_0000..0x900_2000;
const RING: Range<u64> = 0x2000_0000..0x2004_0000;

/// Something in the physical address space that a reader knows by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes.
    pub bytes: Range<u64>,
    /// What it is.
    pub name: &'static str,
    /// Whether there is memory at all.
    pub is_ram: bool,
}

/// What the registry holds after a step.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What was done.
    pub what: String,
    /// With what, in words.
    pub detail: String,
    /// What came of it.
    pub result: String,
    /// The registry.
    pub frames: Vec<FrameState>,
}

/// A boot.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The physical address space from its start to the end of RAM, in order and without gaps.
    pub places: Vec<Place>,
    /// The registry before the first step and after each.
    pub snapshots: Vec<Snapshot>,
}

/// Plays the boot.
pub fn play() -> Result<Scene> {
    let map = MemoryMap::new(MEMORY, None, default_region_size(VPS))?;
    let region = frames(&(map.region_start..map.region_end()))?;
    let ram = map.slots().iter().map(|slot| frames(&(slot.gpa..slot.gpa + slot.size))).collect::<Result<Vec<_>>>()?;
    let before = FrameRegistry::new(region)?.intervals().collect();
    let mut stage = Stage {
        machine: HostedMachine::new(HostedConfig { ram, vtl1_region: region, vps: VPS }),
        scratch: Scratch::default(),
        snapshots: Vec::new(),
    };
    stage.snapshots.push(Snapshot {
        what: "VTL1 starts".to_owned(),
        detail: "as the hypervisor has it".to_owned(),
        result: String::new(),
        frames: before,
    });
    stage.note("first VTL call", "VTL1 closes its region", 0);
    stage.boot(&map)?;
    Ok(Scene { places: places(&map), snapshots: stage.snapshots })
}

struct Stage {
    machine: HostedMachine,
    scratch: Scratch,
    snapshots: Vec<Snapshot>,
}

impl Stage {
    fn boot(&mut self, map: &MemoryMap) -> Result<()> {
        let mask = write_cpu_mask(self.machine.memory(), &mut self.scratch, 0..VPS)?;
        self.call(0, F::EnableAPsVtl, [mask, 0], 0, "the second processor")?;
        self.machine.first_entry(1)?;
        for vp in 0..VPS {
            self.call(vp, F::LockRegs, [0; 2], 0, &format!("processor {vp}"))?;
        }
        let kernel_data = self.kernel_data()?;
        self.call(0, F::LoadKData, [kernel_data.pa, kernel_data.nranges], 0, "certificates, trampoline")?;
        let ring = [RING.start, RING.end - RING.start];
        self.call(0, F::AllocateRingbufferMemory, ring, 0, "256 KiB for the log")?;
        let list = write_list(self.machine.memory(), &mut self.scratch, &protections(map))?;
        self.call(0, F::ProtectMemory, [list.pa, list.nranges], 0, "all RAM, VTL1's too")?;
        self.call(0, F::SignalEndOfBoot, [0; 2], 0, "")?;
        // From here on VTL0 is the attacker.
        let open = [lists::Range::direct(TEXT.start, TEXT.end, READ_WRITE)];
        let list = write_list(self.machine.memory(), &mut self.scratch, &open)?;
        self.call(0, F::ProtectMemory, [list.pa, list.nranges], -1, "asked for: kernel text writable")
    }

    /// A small made-up kernel's data, which lie in its read-only data, and the trampoline.
    fn kernel_data(&mut self) -> Result<List> {
        let (kernel, _) = KernelData::made_up(40, 1);
        let kernel = KernelData { trampoline_pages: 0, ..kernel };
        let mut ranges = kernel.write(self.machine.memory(), kdata::consecutive(RODATA.start, RODATA.end))?;
        let place = ranges.iter().position(|range| range.attributes == kind::KERNEL_INFO).unwrap_or(ranges.len());
        ranges.insert(place, lists::Range::direct(TRAMPOLINE.start, TRAMPOLINE.end, kind::KEXEC_TRAMPOLINE));
        write_list(self.machine.memory(), &mut self.scratch, &ranges)
    }

    fn call(&mut self, vp: u32, function: F, [a1, a2]: [u64; 2], expected: i64, detail: &str) -> Result<()> {
        let result = self.machine.vtl_call(vp, function.id(), a1, a2, 0);
        let name = function.name();
        ensure!(result == expected, "{name} ({detail}) gave {}, not {}", show_result(result), show_result(expected));
        self.note(name, detail, result);
        Ok(())
    }

    fn note(&mut self, what: &str, detail: &str, result: i64) {
        let frames = self.machine.platform().frames().lock().intervals().collect();
        let (what, detail) = (what.to_owned(), detail.to_owned());
        self.snapshots.push(Snapshot { what, detail, result: show_result(result), frames });
    }
}

fn frames(bytes: &Range<u64>) -> Result<FrameRange> {
    Ok(FrameRange::from_bytes(bytes.start, bytes.end)?)
}

/// What ProtectMemory's list names: all of RAM, VTL1's region included.
fn protections(map: &MemoryMap) -> Vec<lists::Range> {
    let special = [(TEXT.start..TRAMPOLINE.end, READ_EXECUTE), (RODATA, READ_ONLY), (VDSO, READ_ONLY)];
    let mut ranges = Vec::new();
    for slot in map.slots() {
        let (mut at, end) = (slot.gpa, slot.gpa + slot.size);
        for (bytes, attributes) in special.iter().filter(|(bytes, _)| bytes.start >= slot.gpa && bytes.end <= end) {
            if at < bytes.start {
                ranges.push(lists::Range::direct(at, bytes.start, READ_WRITE));
            }
            ranges.push(lists::Range::direct(bytes.start, bytes.end, *attributes));
            at = bytes.end;
        }
        ranges.push(lists::Range::direct(at, end, READ_WRITE));
    }
    ranges
}

fn places(map: &MemoryMap) -> Vec<Place> {
    let named = [
        (LOW, "low memory"),
        (SCRATCH_START..SCRATCH_END, "VTL0's lists"),
        (TEXT, "kernel text"),
        (TRAMPOLINE, "kexec trampoline"),
        (RODATA, "read-only data"),
        (DATA, "data"),
        (VDSO, "vDSO"),
        (RING, "log ring"),
        (map.region_start..map.region_end(), "VTL1"),
    ];
    let mut places = Vec::new();
    let mut at = 0;
    for slot in map.slots() {
        if at < slot.gpa {
            places.push(Place { bytes: at..slot.gpa, name: "devices", is_ram: false });
            at = slot.gpa;
        }
        let end = slot.gpa + slot.size;
        for (bytes, name) in named.iter().filter(|(bytes, _)| bytes.start >= slot.gpa && bytes.end <= end) {
            if at < bytes.start {
                places.push(Place { bytes: at..bytes.start, name: "free memory", is_ram: true });
            }
            places.push(Place { bytes: bytes.clone(), name, is_ram: true });
            at = bytes.end;
        }
        if at < end {
            places.push(Place { bytes: at..end, name: "free memory", is_ram: true });
            at = end;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use litebox_platform_lvbs::frames::Permission;
    use litebox_platform_lvbs::owner::Owner;

    use super::*;

    const PAGE: u64 = 4096;

    fn at(snapshot: &Snapshot, gpa: u64) -> (Owner, Permission) {
        let gfn = gpa / PAGE;
        let state = snapshot.frames.iter().find(|state| (state.frames.start()..state.frames.end()).contains(&gfn));
        state.map(|state| (state.owner, state.permission)).unwrap()
    }

    #[test]
    fn the_boot_ends_with_every_owner_in_its_place() {
        let scene = play().unwrap();
        let last = scene.snapshots.last().unwrap();
        assert_eq!(at(last, TEXT.start), (Owner::KernelText, Permission::RX));
        assert_eq!(at(last, TRAMPOLINE.start), (Owner::Trampoline, Permission::R));
        assert_eq!(at(last, RODATA.start), (Owner::BootProtected, Permission::R));
        assert_eq!(at(last, DATA.start), (Owner::Nobody, Permission::RW));
        assert_eq!(at(last, RING.end - PAGE), (Owner::RingBuffer, Permission::R));
        let vtl1 = scene.places.iter().find(|place| place.name == "VTL1").unwrap();
        assert_eq!(at(last, vtl1.bytes.start), (Owner::Vtl1, Permission::NONE));
        // Nothing that VTL0 can write is executable for its kernel once boot has ended.
        let ram = |state: &&FrameState| state.frames.end() * PAGE <= scene.places.last().unwrap().bytes.end;
        assert!(last.frames.iter().filter(ram).all(|state| !state.permission.is_write_and_execute() || {
            !scene.places.iter().any(|place| place.is_ram && place.bytes.contains(&(state.frames.start() * PAGE)))
        }));
    }

    #[test]
    fn places_cover_the_address_space_once() {
        let scene = play().unwrap();
        assert_eq!(scene.places[0].bytes.start, 0);
        assert!(scene.places.windows(2).all(|pair| pair[0].bytes.end == pair[1].bytes.start));
        assert_eq!(
            scene
                .places
                .iter()
                .filter(|place| place.is_ram)
                .map(|place| place.bytes.end - place.bytes.start)
                .sum::<u64>(),
            MEMORY
        );
    }
}
