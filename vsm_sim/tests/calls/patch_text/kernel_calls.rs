//! The kernel's own static calls and their trampolines, which VTL0 names in a record of their own: to functions that VTL1
//! knows, to where the sealed trampoline leads, to nothing, and back; and nowhere else.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kdata::{KernelData, Site, consecutive, patch_record, static_call_record};
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::patcher::poke_code;

use super::{OBJECTS, RAM, RODATA, TEXT, VTL1, near, patch, site_bytes, write_site};
use crate::setup::{self, call_with_list, end_boot};

const EINVAL: i64 = Errno::Einval.to_result();
const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];
const ZERO: [u8; 5] = [0x2e, 0x2e, 0x2e, 0x31, 0xc0];
const RETURN: [u8; 5] = [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];
/// Where the read-only data lie, and sites before them: a call, one across two pages, a tail call and a trampoline.
const END: u64 = RODATA.start << 12;
const CALLS: [u64; 2] = [END - 0x3000, END - 0x2002];
const TAIL: u64 = END - 0x3100;
const TRAMPOLINE: u64 = END - 0x800;
/// A function that nobody exports, to which the trampoline leads.
const HIDDEN: u64 = END - 0x4000;

/// A kernel's data with one of the functions that it exports.
struct World {
    kernel: KernelData,
    function: u64,
}

impl World {
    fn new() -> Self {
        let (kernel, exports) = KernelData::made_up(20, 1);
        let kernel = KernelData { rodata_pa: Some(END), patches: Vec::new(), ..kernel };
        let function = exports.iter().find(|export| export.value > 1 << 63).unwrap().value;
        Self { kernel, function }
    }

    fn va(&self, pa: u64) -> u64 {
        self.kernel.rodata_va - (END - pa)
    }

    /// The branch from `pa` to an address.
    fn branch(&self, opcode: u8, pa: u64, target: u64) -> [u8; 5] {
        let distance = i32::try_from(target.wrapping_sub(self.va(pa) + 5).cast_signed()).unwrap().to_le_bytes();
        [opcode, distance[0], distance[1], distance[2], distance[3]]
    }

    /// A site that was compiled to a branch to an address.
    fn site(&self, opcode: u8, pa: u64, target: u64) -> Site {
        let next = (pa / 4096 + 1) * 4096;
        let next_page = if pa + 5 > next { next } else { 0 };
        Site { pa, next_page, jump: self.branch(opcode, pa, target), size: 5 }
    }

    /// The calls, the tail call, and the trampoline.
    fn sites(&self) -> [Site; 4] {
        let trampoline = self.va(TRAMPOLINE);
        let [first, second] = CALLS.map(|pa| self.site(0xe8, pa, trampoline));
        [first, second, self.site(0xe9, TAIL, trampoline), self.site(0xe9, TRAMPOLINE, self.va(HIDDEN))]
    }

    fn load(&self, machine: &HostedMachine, patches: Vec<u8>) -> i64 {
        let kernel = KernelData { patches, ..self.kernel.clone() };
        let ranges = kernel.write(machine.memory(), consecutive(OBJECTS.0, OBJECTS.1)).unwrap();
        call_with_list(machine, VsmFunction::LoadKData, &ranges, 0)
    }

    /// A machine that has booted with these sites.
    fn booted(&self) -> HostedMachine {
        let machine = setup::machine(RAM, VTL1);
        for site in self.sites() {
            write_site(&machine, &site, &site.jump);
        }
        // By this Linux knows a trampoline.
        bytes::write(machine.memory(), TRAMPOLINE + 5, &[0x0f, 0xb9, 0xcc]).unwrap();
        let label = Site { pa: END - 0x5000, next_page: 0, jump: [0xe9, 1, 2, 3, 4], size: 5 };
        let patches = [patch_record(&[label]), static_call_record(&self.sites())].concat();
        assert_eq!(self.load(&machine, patches), 0);
        let ends = [0, TEXT.start << 12, END, RODATA.end << 12, RAM << 12];
        let list: Vec<Range> =
            ends.windows(2).zip([3, 5, 1, 3]).map(|(ends, rights)| Range::direct(ends[0], ends[1], rights)).collect();
        assert_eq!(call_with_list(&machine, VsmFunction::ProtectMemory, &list, 0), 0);
        assert_eq!(end_boot(&machine), 0);
        machine
    }
}

fn poke(machine: &HostedMachine, site: &Site, code: &[u8]) {
    for step in poke_code(site, code) {
        assert_eq!(patch(machine, step), 0, "{site:x?} to {code:x?}");
    }
    assert_eq!(site_bytes(machine, site), code);
}

/// The tail of `code` is refused, or its first byte where only that is wrong, and what was there can be put back.
fn refuse(machine: &HostedMachine, site: &Site, code: &[u8]) {
    let now = site_bytes(machine, site);
    let [int3, tail, head] = poke_code(site, code);
    assert_eq!(patch(machine, int3), 0);
    let mut before = near(machine, site);
    let mut result = patch(machine, tail);
    if result == 0 {
        before = near(machine, site);
        result = patch(machine, head);
    }
    assert_eq!(result, EINVAL, "{site:x?} to {code:x?}");
    assert!(near(machine, site) == before);
    for step in &poke_code(site, &now)[1..] {
        assert_eq!(patch(machine, *step), 0, "{site:x?} back");
    }
}

#[test]
fn they_go_to_functions_that_vtl1_knows_and_back() {
    let world = World::new();
    let machine = world.booted();
    let [first, second, tail, trampoline] = world.sites();
    for site in [first, second] {
        let to = |target| world.branch(0xe8, site.pa, target);
        for code in [to(world.function), NOP, ZERO, to(world.va(HIDDEN)), site.jump] {
            poke(&machine, &site, &code);
        }
        let inside =
            [world.function + 1, world.va(HIDDEN) + 1, world.va(site.pa), world.va(END), 0xffff_ffff_c000_0000];
        for code in inside.map(to).iter().chain(&[RETURN, world.branch(0xe9, site.pa, world.function)]) {
            refuse(&machine, &site, code);
        }
    }
    for site in [tail, trampoline] {
        let to = |target| world.branch(0xe9, site.pa, target);
        for code in [to(world.function), RETURN, site.jump] {
            poke(&machine, &site, &code);
        }
        for code in [to(world.function + 1), NOP, ZERO, world.branch(0xe8, site.pa, world.function)] {
            refuse(&machine, &site, &code);
        }
    }
    // Where the trampoline no longer leads, no call may go anew.
    poke(&machine, &trampoline, &world.branch(0xe9, TRAMPOLINE, world.function));
    refuse(&machine, &first, &world.branch(0xe8, first.pa, world.va(HIDDEN)));
}

#[test]
fn a_record_names_calls_and_jumps_within_the_kernels_text() {
    let world = World::new();
    let mut machine = setup::machine(RAM, VTL1);
    machine.keep_log();
    let refused = |world: &World, site: Site, why: &str| {
        assert_eq!(world.load(&machine, static_call_record(&[site])), EINVAL, "{why}");
        let log = machine.log_lines();
        assert!(log.iter().any(|line| line.contains(why)), "{why}: {log:#?}");
    };
    let good = world.sites()[0];
    let split = world.sites()[1];
    refused(&world, Site { size: 2, ..good }, "a call or a jump of 5 bytes");
    refused(&world, Site { jump: NOP, ..good }, "a call or a jump of 5 bytes");
    refused(&world, Site { next_page: split.next_page + 0x1000, ..split }, "must go on in the next page");
    refused(&world, world.site(0xe8, good.pa, world.va(END)), "must go into the kernel's text");
    refused(&world, Site { pa: END, ..good }, "must lie in the kernel's text");
    let scattered = World { kernel: KernelData { rodata_pa: None, ..world.kernel.clone() }, ..world };
    let mut pages = (OBJECTS.0..).step_by(0x2000);
    let kernel = KernelData { patches: static_call_record(&[good]), ..scattered.kernel };
    let ranges = kernel.write(machine.memory(), || Ok(pages.next().unwrap())).unwrap();
    assert_eq!(call_with_list(&machine, VsmFunction::LoadKData, &ranges, 0), EINVAL);
}
