//! Static calls: to functions that VTL1 knows, to nothing, back to their trampoline; and nowhere else.

use std::collections::BTreeSet;

use litebox_platform_lvbs::Errno;
use vsm_sim::vtl0::made_up::LOCAL_FUNCTION;
use vsm_sim::vtl0::patcher::{INT3, poke_code, write_at};

use super::modules::{Loaded, NOP, branch};
use super::{near, patch, site_bytes, write_site};
use crate::linux::Linux;

/// For every state of a call and every single write of 1 to 5 bytes from a pool to any place near it: it is allowed
/// exactly when it is one of the steps, as they are written down here, to one of the instructions that may stand there.
#[test]
fn in_every_state_only_its_next_steps_are_taken() {
    let loaded = Loaded::new(Some(5));
    let machine = &loaded.linux.machine;
    let (mut taken, mut refused) = (0, 0);
    for (call, site) in loaded.calls(0) {
        let allowed = loaded.allowed(0, &call);
        let mut pool: BTreeSet<Vec<u8>> = [vec![INT3], vec![0x90], vec![INT3; 5]].into();
        let forbidden = loaded.forbidden(0, &call).into_iter().map(|(_, code)| code);
        for code in allowed.iter().cloned().chain(forbidden) {
            pool.extend([code[..1].to_vec(), code[1..].to_vec(), code[..5].to_vec(), code[2..].to_vec()]);
        }
        let broken = allowed.iter().map(|code| [&[INT3], &code[1..]].concat());
        let states: Vec<Vec<u8>> = allowed.iter().cloned().chain(broken).collect();
        for state in &states {
            write_site(machine, &site, state);
            let before = near(machine, &site);
            let is_broken = state[0] == INT3;
            for code in &pool {
                for byte in 0..u64::from(site.size) {
                    let may = match byte {
                        0 if **code == [INT3] => !is_broken,
                        0 if code.len() == 1 => is_broken && allowed.contains(&[code.as_slice(), &state[1..]].concat()),
                        1 => is_broken && allowed.iter().any(|form| form[1..] == **code),
                        _ => false,
                    };
                    let request = write_at(&site, byte, code);
                    let result = patch(machine, request);
                    assert_eq!(
                        result,
                        if may { 0 } else { Errno::Einval.to_result() },
                        "{call:x?} in {state:x?}: {request:x?}"
                    );
                    if may {
                        taken += 1;
                        write_site(machine, &site, state);
                    } else {
                        refused += 1;
                        assert!(near(machine, &site) == before, "{call:x?} in {state:x?}: {request:x?}");
                    }
                }
            }
        }
        write_site(machine, &site, &call.compiled);
    }
    println!("{taken} steps taken, {refused} refused");
    assert!(taken > 200 && refused > 5000, "{taken}, {refused}");
}

#[test]
fn each_call_takes_every_instruction_and_goes_back() {
    for seed in [None, Some(6)] {
        let loaded = Loaded::new(seed);
        let machine = &loaded.linux.machine;
        for which in 0..2 {
            for (call, site) in loaded.calls(which) {
                assert_eq!(site_bytes(machine, &site), call.compiled);
                for code in loaded.allowed(which, &call) {
                    assert_eq!(loaded.poke(&site, &code), 0, "{call:x?} to {code:x?}");
                }
                for (what, code) in loaded.forbidden(which, &call) {
                    // The tail, or with a tail that may be there the first byte.
                    let now = site_bytes(machine, &site);
                    assert_eq!(loaded.poke(&site, &code), Errno::Einval.to_result(), "{call:x?} to {what}");
                    let left = site_bytes(machine, &site);
                    assert!(left[0] == INT3 && (left[1..] == now[1..] || left[1..] == code[1..]), "{what}: {left:x?}");
                    for step in &poke_code(&site, &now)[1..] {
                        assert_eq!(patch(machine, *step), 0, "{call:x?} back from {what}");
                    }
                }
                assert_eq!(loaded.poke(&site, &call.compiled), 0);
            }
        }
    }
}

/// A site that crosses a page goes on wherever the page's neighbour in virtual memory is.
#[test]
fn the_made_up_modules_have_a_call_across_pages_that_are_no_neighbours() {
    let loaded = Loaded::new(Some(7));
    let site = loaded.calls(0).into_iter().map(|(_, site)| site).find(|site| site.next_page != 0).unwrap();
    assert_ne!(site.next_page, (site.pa & !0xfff) + 0x1000);
    let [int3, mut tail, head] = poke_code(&site, &NOP);
    let machine = &loaded.linux.machine;
    assert_eq!(patch(machine, int3), 0);
    let before = near(machine, &site);
    for second in [0, (site.pa & !0xfff) + 0x1000, site.next_page + 0x1000, site.next_page + 1, u64::MAX] {
        tail.pa[1] = second;
        assert_eq!(patch(machine, tail), Errno::Einval.to_result(), "{second:#x}");
        assert!(near(machine, &site) == before);
    }
    tail.pa[1] = site.next_page;
    assert_eq!([patch(machine, tail), patch(machine, head)], [0, 0]);
}

#[test]
fn what_has_gone_is_neither_called_anew_nor_patched() {
    let mut loaded = Loaded::new(Some(8));
    let [_, second] = [0, 1].map(|which| loaded.functions(which)[0]);
    let (call, site) = loaded.calls(0)[0].clone();
    assert_eq!(loaded.poke(&site, &branch(&call, second)), 0);
    assert_eq!(loaded.linux.unload(2), 0);
    // The call is still there; it can be taken back, and not be written again.
    assert_eq!(site_bytes(&loaded.linux.machine, &site), branch(&call, second));
    assert_eq!(loaded.poke(&site, &NOP), 0);
    assert_eq!(loaded.poke(&site, &branch(&call, second)), Errno::Einval.to_result());
    assert_eq!(loaded.poke(&site, &NOP), Errno::Einval.to_result(), "the first step is out of turn now");
    for step in &poke_code(&site, &NOP)[1..] {
        assert_eq!(patch(&loaded.linux.machine, *step), 0);
    }
    // The text for initialisation.
    let calls = loaded.calls(0);
    let (init_call, init_site) = calls.iter().find(|(call, _)| loaded.is_init(0, call)).cloned().unwrap();
    let [_, init] = loaded.functions(0);
    assert_eq!(loaded.poke(&init_site, &branch(&init_call, init)), 0);
    let before = near(&loaded.linux.machine, &init_site);
    assert_eq!(loaded.linux.free_init(1), 0);
    for step in poke_code(&init_site, &NOP) {
        assert_eq!(patch(&loaded.linux.machine, step), Errno::Enoent.to_result(), "it is ordinary memory now");
    }
    assert!(near(&loaded.linux.machine, &init_site) == before);
    assert_eq!(loaded.poke(&site, &call.direct), 0, "what stays can be patched");
    assert_eq!(loaded.linux.unload(1), 0);
    let before = near(&loaded.linux.machine, &site);
    for step in poke_code(&site, &NOP) {
        assert_eq!(patch(&loaded.linux.machine, step), Errno::Enoent.to_result());
    }
    assert!(near(&loaded.linux.machine, &site) == before);
    // Another module in the same frames does not have the first one's sites.
    let frames = &mut loaded.linux.frames;
    loaded.placed[0].free(frames, |_| true);
    loaded.placed[0] = vsm_sim::vtl0::modules::Placed::default();
    reload_elsewhere(&mut loaded.linux, &loaded.kernel, &site);
}

/// Loads the first module into other frames: the frame of the old site is nobody's.
fn reload_elsewhere(
    linux: &mut Linux,
    kernel: &vsm_sim::vtl0::made_up::MadeUpKernel,
    old: &vsm_sim::vtl0::kdata::Site,
) {
    let placed = linux.place(&kernel.first, 0);
    assert_eq!(linux.validate(&placed), 3);
    assert!(placed.memory().all(|(_, page)| page != old.pa & !0xfff), "frames are handed out in turn");
    assert_eq!(patch(&linux.machine, write_at(old, 0, &[INT3])), Errno::Enoent.to_result());
    let call = &kernel.first.calls[0];
    let site = placed.place_of(call.va, 5).unwrap();
    // Its functions are where those of the first one were.
    let code = branch(call, kernel.first.parts[0].va + LOCAL_FUNCTION);
    assert_eq!(poke_code(&site, &code).map(|step| patch(&linux.machine, step)), [0; 3]);
}
