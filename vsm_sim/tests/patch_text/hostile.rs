//! Requests that must not change a byte, each with its errno.

use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hv::GuestMemory;
use vsm_sim::vtl0::kdata::Site;
use vsm_sim::vtl0::patcher::{Form, INT3, Patch, place_of, poke, write_at};

use crate::{
    EACCES, EFAULT, EINVAL, ENOENT, RAM, REQUEST, RODATA, TEXT, VTL1, booted, get, near, patch, put, sites, text,
};

fn one(pa: u64, code: &[u8]) -> Patch {
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
                    put(&machine, &site, state);
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
                    assert_eq!(result, if allowed { 0 } else { EINVAL }, "{site:x?} in {state:x?}: {request:x?}");
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
    let mut requests: Vec<(&str, Patch, i64)> = vec![
        ("INT3 in front of a site", one(site.pa + 0x40, &[INT3]), EINVAL),
        ("INT3 over the second byte", one(site.pa + 1, &[INT3]), EINVAL),
        ("INT3 behind a site", one(site.pa + 5, &[INT3]), EINVAL),
        ("size 0", Patch { size: 0, ..poke(&site, Form::Nop)[0] }, EINVAL),
        ("size 6", Patch { size: 6, ..poke(&site, Form::Nop)[0] }, EINVAL),
        ("size 255", Patch { size: 255, ..poke(&site, Form::Nop)[0] }, EINVAL),
        ("the tail first", poke(&site, Form::Nop)[1], EINVAL),
        ("the head first", poke(&site, Form::Nop)[2], EINVAL),
        ("all at once", write_at(&site, 0, &[0x0f, 0x1f, 0x44, 0, 0]), EINVAL),
        ("read-only data", one(RODATA.start << 12, &[INT3]), EACCES),
        ("VTL1", one(VTL1.start << 12, &[INT3]), EACCES),
        ("data", one((RODATA.end + 8) << 12, &[INT3]), ENOENT),
        ("no memory", one((RAM + 1) << 12, &[INT3]), ENOENT),
        ("INT3 over the third byte", one(site.pa + 2, &[INT3]), EINVAL),
        ("a wrong first byte", one(site.pa, &[0xe8]), EINVAL),
        ("a wrong tail", write_at(&site, 1, &[0x1f, 0x44, 0, 1]), EINVAL),
        ("another site's tail", write_at(&site, 1, &[0xcc; 4]), EINVAL),
        ("a tail that is too short", write_at(&site, 1, &[0x1f, 0x44, 0]), EINVAL),
        ("a tail that is too long", write_at(&site, 1, &[0x1f, 0x44, 0, 0, 0]), EINVAL),
        ("the end of a tail", write_at(&site, 2, &[0x44, 0, 0]), EINVAL),
        ("the tail with the next site's first byte", write_at(&sites[0], 1, &[0x1f, 0x44, 0, 0, 0x66]), EINVAL),
        ("all of a site across pages at once", write_at(&across, 0, &[0x0f, 0x1f, 0x44, 0, 0]), EINVAL),
        ("a part up to the end of a page", write_at(&across, 1, &[0x1f]), EINVAL),
        ("a part from the start of a page", one(across.next_page, &[0x44, 0]), EINVAL),
        ("data, size 0", Patch { size: 0, ..one((RODATA.end + 8) << 12, &[INT3]) }, EINVAL),
        ("data, size 6", Patch { size: 6, ..one((RODATA.end + 8) << 12, &[INT3]) }, EINVAL),
        ("data that goes on nowhere", one((RODATA.end + 8) * 4096 - 1, &[1, 2]), EINVAL),
        (
            "data that goes on in text",
            Patch { pa: [(TEXT.start << 12) - 1, TEXT.start << 12], ..one(0, &[1, 2]) },
            EACCES,
        ),
        ("data that goes on in VTL1", Patch { pa: [(RAM << 12) - 1, VTL1.start << 12], ..one(0, &[1, 2]) }, EACCES),
        ("data that goes on in data", Patch { pa: [(RAM << 12) - 1, RODATA.end << 12], ..one(0, &[1, 2]) }, ENOENT),
        ("data that goes on beyond all memory", Patch { pa: [(RAM << 12) - 1, 1 << 52], ..one(0, &[1, 2]) }, EFAULT),
        ("the last physical address", one((1 << 52) - 1, &[INT3]), ENOENT),
        ("no physical address", one(1 << 52, &[INT3]), EFAULT),
        ("a virtual address", one(0xffff_ffff_8100_0000, &[INT3]), EFAULT),
        (
            "second page for what has none",
            Patch { pa: [site.pa, TEXT.start << 12], ..poke(&site, Form::Nop)[0] },
            EINVAL,
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
        requests.push(("another second page", tail, EINVAL));
    }
    // The second page of a torn site, named as if it were the first one's neighbour.
    requests.push(("the neighbour of a torn site", one(torn.pa + 1, &[0; 4]), EINVAL));
    for (what, request, errno) in requests {
        // Behind a breakpoint, so that it is not the order that saves the day.
        for broken in [false, true] {
            if broken && errno == EINVAL && !what.ends_with("first") {
                put(&machine, &across, &[&[INT3], &across.jump[1..]].concat());
                put(&machine, &site, &[&[INT3], &site.jump[1..]].concat());
            }
            let around = || sites.iter().map(|site| near(&machine, site)).collect::<Vec<_>>();
            let now = around();
            assert_eq!(patch(&machine, request), errno, "{what}");
            assert!(around() == now, "{what}");
            put(&machine, &across, &across.jump);
            put(&machine, &site, &site.jump);
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
            assert!([EACCES, EINVAL, ENOENT].contains(&errno), "{site:x?}: {step:x?}");
            // The second page alone is no protected memory in two of the four.
            assert!(errno != ENOENT || step.pa[0] == site.next_page, "{site:x?}: {step:x?}");
        }
        assert!(text(&machine) == before);
    }
    assert_eq!(patch(&machine, poke(&sites[0], Form::Nop)[0]), EACCES);
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
        assert_eq!(call(unneeded), EINVAL, "{on_first} bytes on the first page");
        assert_eq!(get(&machine, &site), site.jump);
        assert_eq!(call(if straddles { second } else { 0 }), 0, "{on_first} bytes on the first page");
        assert_eq!(get(&machine, &site)[0], INT3);
        put(&machine, &site, &site.jump);
    }
    let call = |at, second| machine.vtl_call(0, VsmFunction::PatchText.id(), at, second, 0);
    let end = first + 0x1000 - 8;
    for (at, second, errno) in [
        (VTL1.start << 12, 0, EACCES),
        ((VTL1.start << 12) - 8, VTL1.start << 12, EACCES),
        (end, VTL1.start << 12, EACCES),
        (end, second + 8, EINVAL),
        (RAM << 12, 0, EFAULT),
        (end, RAM << 12, EFAULT),
        (1 << 52, 0, EFAULT),
        (u64::MAX, 0, EFAULT),
    ] {
        assert_eq!(call(at, second), errno, "{at:#x} {second:#x}");
    }
    assert_eq!(get(&machine, &site), site.jump);
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
    assert_eq!(get(&machine, &site)[0], INT3);
}

#[test]
fn before_the_text_is_sealed_linux_writes_itself() {
    let machine = vsm_sim::hosted::HostedMachine::new(vsm_sim::hosted::HostedConfig::default());
    machine.memory().write(0x10_0000, &one(0x20_0000, &[INT3]).to_bytes()).unwrap();
    assert_eq!(machine.vtl_call(0, VsmFunction::PatchText.id(), 0x10_0000, 0, 0), ENOENT);
    assert_eq!(place_of(&sites()[0], 1), (TEXT.start << 12) + 1);
}
