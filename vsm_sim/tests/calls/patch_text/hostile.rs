//! Requests that must not change a byte, each with its errno.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hv::GuestMemory;
use vsm_sim::vtl0::kdata::Site;
use vsm_sim::vtl0::patcher::{Form, INT3, Patch, place_of, poke, write_at};

use super::{RAM, REQUEST, RODATA, TEXT, VTL1, booted, near, patch, site_bytes, sites, text, write_site};

fn patch_at(pa: u64, code: &[u8]) -> Patch {
    let site = Site { pa, next_page: 0, jump: [0; 5], size: 5 };
    write_at(&site, 0, code)
}

/// What a site can be in: its bytes.
fn states(site: &Site) -> Vec<Vec<u8>> {
    let jump = site.jump[..usize::from(site.size)].to_vec();
    let nop = if site.size == 2 { vec![0x66, 0x90] } else { vec![0x0f, 0x1f, 0x44, 0, 0] };
    let broken = |form: &[u8]| [&[INT3], &form[1..]].concat();
    vec![jump.clone(), nop.clone(), broken(&jump), broken(&nop)]
}

/// Linux asks for every write to text, thousands of times in a boot where VTL1 protects nothing yet, and then writes itself
/// (LVBS contract §11.7): no line about it, nor do the lines about real refusals run out.
#[test]
fn what_linux_may_write_itself_is_not_worth_a_line() {
    let sites = sites();
    let mut machine = booted(&sites);
    machine.keep_log();
    for _ in 0..2000 {
        assert_eq!(patch(&machine, patch_at((RODATA.end + 8) << 12, &[0x3e])), Errno::Enoent.to_result());
    }
    assert_eq!(machine.log_lines(), [""; 0]);
    assert_eq!(patch(&machine, patch_at(sites[0].pa + 1, &[INT3])), Errno::Einval.to_result());
    assert_eq!(machine.log_lines().len(), 1);
}

/// For every state of a site and every single write of 1 to 5 bytes from a pool to any place near it: it is allowed
/// exactly when it is one of the steps as they are written down here.
#[test]
fn in_every_state_only_its_next_steps_are_taken() {
    for site in sites() {
        let machine = booted(&[site]);
        let states = states(&site);
        let tails: Vec<&[u8]> = vec![&states[0][1..], &states[1][1..]];
        for (index, state) in states.iter().enumerate() {
            let mut pool: Vec<Vec<u8>> = vec![vec![INT3], vec![0x90], vec![0xe8], vec![0], vec![INT3; 5]];
            pool.extend(states.iter().flat_map(|state| {
                (0..state.len()).flat_map(move |from| (from + 1..=state.len()).map(move |to| state[from..to].to_vec()))
            }));
            for code in &pool {
                for byte in 0..u64::from(site.size) {
                    write_site(&machine, &site, state);
                    let broken = index >= 2;
                    let allowed = match byte {
                        0 if **code == [INT3] => !broken,
                        0 => {
                            let form = states[..2].iter().find(|form| form[..1] == **code);
                            broken && form.is_some_and(|form| form[1..] == state[1..])
                        }
                        1 => broken && tails.contains(&code.as_slice()),
                        _ => false,
                    };
                    let before = near(&machine, &site);
                    let request = write_at(&site, byte, code);
                    let result = patch(&machine, request);
                    assert_eq!(
                        result,
                        if allowed { 0 } else { Errno::Einval.to_result() },
                        "{site:x?} in {state:x?}: {request:x?}"
                    );
                    if !allowed {
                        assert!(near(&machine, &site) == before, "{site:x?} in {state:x?}: {request:x?}");
                    }
                }
            }
        }
    }
}

#[test]
fn neighbours_other_addresses_and_odd_sizes_are_refused() {
    let sites = sites();
    let machine = booted(&sites);
    let site = sites[2];
    let before = text(&machine);
    let (torn, across) = (sites[7], sites[9]);
    let mut requests: Vec<(&str, Patch, Errno)> = vec![
        ("INT3 in front of a site", patch_at(site.pa + 0x40, &[INT3]), Errno::Einval),
        ("INT3 over the second byte", patch_at(site.pa + 1, &[INT3]), Errno::Einval),
        ("INT3 behind a site", patch_at(site.pa + 5, &[INT3]), Errno::Einval),
        ("size 0", Patch { size: 0, ..poke(&site, Form::Nop)[0] }, Errno::Einval),
        ("size 6", Patch { size: 6, ..poke(&site, Form::Nop)[0] }, Errno::Einval),
        ("size 255", Patch { size: 255, ..poke(&site, Form::Nop)[0] }, Errno::Einval),
        ("the tail first", poke(&site, Form::Nop)[1], Errno::Einval),
        ("the head first", poke(&site, Form::Nop)[2], Errno::Einval),
        ("all at once", write_at(&site, 0, &[0x0f, 0x1f, 0x44, 0, 0]), Errno::Einval),
        ("read-only data", patch_at(RODATA.start << 12, &[INT3]), Errno::Eacces),
        ("VTL1", patch_at(VTL1.start << 12, &[INT3]), Errno::Eacces),
        ("data", patch_at((RODATA.end + 8) << 12, &[INT3]), Errno::Enoent),
        ("no memory", patch_at((RAM + 1) << 12, &[INT3]), Errno::Enoent),
        ("INT3 over the third byte", patch_at(site.pa + 2, &[INT3]), Errno::Einval),
        ("a wrong first byte", patch_at(site.pa, &[0xe8]), Errno::Einval),
        ("a wrong tail", write_at(&site, 1, &[0x1f, 0x44, 0, 1]), Errno::Einval),
        ("another site's tail", write_at(&site, 1, &[0xcc; 4]), Errno::Einval),
        ("a tail that is too short", write_at(&site, 1, &[0x1f, 0x44, 0]), Errno::Einval),
        ("a tail that is too long", write_at(&site, 1, &[0x1f, 0x44, 0, 0, 0]), Errno::Einval),
        ("the end of a tail", write_at(&site, 2, &[0x44, 0, 0]), Errno::Einval),
        ("the tail with the next site's first byte", write_at(&sites[0], 1, &[0x1f, 0x44, 0, 0, 0x66]), Errno::Einval),
        ("all of a site across pages at once", write_at(&across, 0, &[0x0f, 0x1f, 0x44, 0, 0]), Errno::Einval),
        ("a part up to the end of a page", write_at(&across, 1, &[0x1f]), Errno::Einval),
        ("a part from the start of a page", patch_at(across.next_page, &[0x44, 0]), Errno::Einval),
        ("data, size 0", Patch { size: 0, ..patch_at((RODATA.end + 8) << 12, &[INT3]) }, Errno::Einval),
        ("data, size 6", Patch { size: 6, ..patch_at((RODATA.end + 8) << 12, &[INT3]) }, Errno::Einval),
        ("data that goes on nowhere", patch_at((RODATA.end + 8) * 4096 - 1, &[1, 2]), Errno::Einval),
        (
            "data that goes on in text",
            Patch { pa: [(TEXT.start << 12) - 1, TEXT.start << 12], ..patch_at(0, &[1, 2]) },
            Errno::Eacces,
        ),
        (
            "data that goes on in VTL1",
            Patch { pa: [(RAM << 12) - 1, VTL1.start << 12], ..patch_at(0, &[1, 2]) },
            Errno::Eacces,
        ),
        (
            "data that goes on in data",
            Patch { pa: [(RAM << 12) - 1, RODATA.end << 12], ..patch_at(0, &[1, 2]) },
            Errno::Enoent,
        ),
        (
            "data that goes on beyond all memory",
            Patch { pa: [(RAM << 12) - 1, 1 << 52], ..patch_at(0, &[1, 2]) },
            Errno::Efault,
        ),
        ("the last physical address", patch_at((1 << 52) - 1, &[INT3]), Errno::Enoent),
        ("no physical address", patch_at(1 << 52, &[INT3]), Errno::Efault),
        ("a virtual address", patch_at(0xffff_ffff_8100_0000, &[INT3]), Errno::Efault),
        (
            "second page for what has none",
            Patch { pa: [site.pa, TEXT.start << 12], ..poke(&site, Form::Nop)[0] },
            Errno::Einval,
        ),
    ];
    for second in [
        0,
        across.pa & !0xfff,
        across.next_page + 0x1000,
        across.next_page + 1,
        sites[10].next_page,
        VTL1.start << 12,
        u64::MAX,
    ] {
        let [_, mut tail, _] = poke(&across, Form::Nop);
        tail.pa[1] = second;
        requests.push(("another second page", tail, Errno::Einval));
    }
    // The second page of a torn site, named as if it were the first one's neighbour.
    requests.push(("the neighbour of a torn site", patch_at(torn.pa + 1, &[0; 4]), Errno::Einval));
    for (what, request, errno) in requests {
        // Behind a breakpoint, so that it is not the order that saves the day.
        for broken in [false, true] {
            if broken && errno == Errno::Einval && !what.ends_with("first") {
                write_site(&machine, &across, &[&[INT3], &across.jump[1..]].concat());
                write_site(&machine, &site, &[&[INT3], &site.jump[1..]].concat());
            }
            let around = || sites.iter().map(|site| near(&machine, site)).collect::<Vec<_>>();
            let now = around();
            assert_eq!(patch(&machine, request), errno.to_result(), "{what}");
            assert!(around() == now, "{what}");
            write_site(&machine, &across, &across.jump);
            write_site(&machine, &site, &site.jump);
        }
    }
    assert!(text(&machine) == before);
}

/// LoadKData's word for it is not enough: with each byte a site must lie in what was then sealed as text.
#[test]
fn a_site_that_goes_on_outside_of_the_text_is_never_written() {
    let base = TEXT.start << 12;
    let site = |index: u64, next_page| Site {
        pa: base + index * 0x1000 + 0xffe,
        next_page,
        jump: [0xe9, 1, 2, 3, 4],
        size: 5,
    };
    let torn = Site { pa: base + 0x5fff, ..site(0, (RODATA.end + 4) << 12) };
    let sites = [site(0, RODATA.end << 12), site(1, RODATA.start << 12), site(2, (RAM + 2) << 12), torn];
    let fine = site(4, base + 0x9000);
    let machine = booted(&[&sites[..2], &[torn, fine]].concat());
    for site in &sites {
        let before = text(&machine);
        for step in poke(site, Form::Nop) {
            let errno = patch(&machine, step);
            assert!(
                [Errno::Eacces.to_result(), Errno::Einval.to_result(), Errno::Enoent.to_result()].contains(&errno),
                "{site:x?}: {step:x?}"
            );
            // The second page alone is no protected memory in two of the four.
            assert!(errno != Errno::Enoent.to_result() || step.pa[0] == site.next_page, "{site:x?}: {step:x?}");
        }
        assert!(text(&machine) == before);
    }
    assert_eq!(patch(&machine, poke(&sites[0], Form::Nop)[0]), Errno::Eacces.to_result());
    assert_eq!(poke(&fine, Form::Nop).map(|step| patch(&machine, step)), [0; 3]);
}

/// The request may lie anywhere, also on two pages that are not neighbours.
#[test]
fn the_request_is_read_wherever_it_lies() {
    let site = sites()[0];
    let machine = booted(&[site]);
    let [int3, ..] = poke(&site, Form::Nop);
    let bytes = int3.to_bytes();
    let (first, second) = (0x700_0000_u64, 0x710_0000_u64);
    for on_first in 1..=24_u64 {
        let at = first + 0x1000 - on_first;
        let split = usize::try_from(on_first).unwrap();
        machine.memory().write(at, &bytes[..split]).unwrap();
        if split < bytes.len() {
            machine.memory().write(second, &bytes[split..]).unwrap();
        }
        let straddles = on_first < 24;
        let call = |second| machine.vtl_call(0, VsmFunction::PatchText.id(), at, second, 0);
        let unneeded = if straddles { 0 } else { second };
        assert_eq!(call(unneeded), Errno::Einval.to_result(), "{on_first} bytes on the first page");
        assert_eq!(site_bytes(&machine, &site), site.jump);
        assert_eq!(call(if straddles { second } else { 0 }), 0, "{on_first} bytes on the first page");
        assert_eq!(site_bytes(&machine, &site)[0], INT3);
        write_site(&machine, &site, &site.jump);
    }
    let call = |at, second| machine.vtl_call(0, VsmFunction::PatchText.id(), at, second, 0);
    let end = first + 0x1000 - 8;
    for (at, second, errno) in [
        (VTL1.start << 12, 0, Errno::Eacces),
        ((VTL1.start << 12) - 8, VTL1.start << 12, Errno::Eacces),
        (end, VTL1.start << 12, Errno::Eacces),
        (end, second + 8, Errno::Einval),
        (RAM << 12, 0, Errno::Efault),
        (end, RAM << 12, Errno::Efault),
        (1 << 52, 0, Errno::Efault),
        (u64::MAX, 0, Errno::Efault),
    ] {
        assert_eq!(call(at, second), errno.to_result(), "{at:#x} {second:#x}");
    }
    assert_eq!(site_bytes(&machine, &site), site.jump);
}

/// A request that changes between two reads: the machine tells of a second one, and what was read first counts.
#[test]
fn a_request_rewritten_behind_vtl1s_back_counts_as_it_was_read() {
    use vsm_sim::hosted::RacePoint;
    let site = sites()[0];
    let machine = booted(&[site]);
    machine.memory().set_race(Some(Box::new(|point, memory| {
        if matches!(point, RacePoint::AfterRead { gpa: REQUEST, .. }) {
            memory.write(REQUEST, &[0xff; 24]).unwrap();
        }
    })));
    assert_eq!(patch(&machine, poke(&site, Form::Nop)[0]), 0);
    assert_eq!(site_bytes(&machine, &site)[0], INT3);
}

#[test]
fn before_the_text_is_sealed_linux_writes_itself() {
    let machine = vsm_sim::hosted::HostedMachine::new(vsm_sim::hosted::HostedConfig::default());
    machine.memory().write(0x10_0000, &patch_at(0x20_0000, &[INT3]).to_bytes()).unwrap();
    assert_eq!(machine.vtl_call(0, VsmFunction::PatchText.id(), 0x10_0000, 0, 0), Errno::Enoent.to_result());
    assert_eq!(place_of(&sites()[0], 1), (TEXT.start << 12) + 1);
}
