//! LoadKData with real kernels' data: every exported symbol is found, with the value the kernel itself gives, and in
//! little heap; and with a heap that refuses any one request, nothing breaks.

use std::sync::Arc;

use litebox_platform_lvbs::frames::FrameState;
use litebox_platform_lvbs::vsm::VsmFunction;
use litebox_platform_lvbs::{Errno, Platform};
use vsm_sim::hosted::HostedMemory;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::{KernelData, backwards, consecutive};
use vsm_sim::vtl0::lists::{List, Scratch, write_list};
use vsm_sim::vtl0::signer::Signer;

use crate::counting::{Counted, NEVER};
use crate::linux::{call, memory, platform};

/// The most heap that LoadKData may use for a real kernel, in bytes.
const MOST_HEAP: usize = 2 << 20;

fn memory_with(data: &KernelData, scattered: bool) -> (Arc<HostedMemory>, List) {
    let memory = memory();
    let (start, end) = (0x300_0000, 0x700_0000);
    let ranges = if scattered {
        data.write(&*memory, backwards(start, end)).unwrap()
    } else {
        data.write(&*memory, consecutive(start, end)).unwrap()
    };
    let list = write_list(&*memory, &mut Scratch::default(), &ranges).unwrap();
    (memory, list)
}

fn load(platform: &Platform, list: List, refuse: usize) -> Counted<i64> {
    call(platform, VsmFunction::LoadKData, [list.pa, list.nranges, 0], refuse)
}

/// Loads a captured kernel's data and compares with what the kernel itself says. Returns how many symbols were looked
/// for, and how many were not found or have another value.
fn check(capture: &Capture, scattered: bool) -> (usize, usize) {
    let data = capture.kernel_data(0x800_0000).unwrap();
    let (memory, list) = memory_with(&data, scattered);
    let platform = platform(&memory);
    let Counted { result, peak, kept, .. } = load(&platform, list, NEVER);
    assert_eq!(result, 0, "{}", capture.name());
    let loaded = platform.vtl0().kernel_data().unwrap();
    let kallsyms = capture.kallsyms().unwrap();
    let names = capture.exported_names().unwrap();
    let mut mismatches = 0;
    for (name, gpl) in &names {
        let found = loaded.symbols.find(name.as_bytes());
        let right = found.is_some_and(|symbol| {
            symbol.gpl == *gpl && kallsyms.get(name).is_some_and(|values| values.contains(&symbol.value))
        });
        if !right {
            println!("{}: {name}: {found:x?}, kallsyms has {:x?}", capture.name(), kallsyms.get(name));
            mismatches += 1;
        }
    }
    println!(
        "{}: {} ranges, {} KiB of rodata; {} symbols, {mismatches} mismatches; {} patch sites, {} certificates; \
         heap: {} KiB at most, {} KiB kept",
        capture.name(),
        list.nranges,
        data.rodata.len() >> 10,
        names.len(),
        loaded.patches.len(),
        loaded.system_certificates,
        peak >> 10,
        kept >> 10
    );
    assert_eq!(loaded.symbols.len(), names.len(), "{}", capture.name());
    assert_eq!(loaded.patches.len(), capture.sites(0x800_0000).unwrap().len());
    assert!(peak < MOST_HEAP, "{}: {peak} bytes of heap", capture.name());
    (names.len(), mismatches)
}

#[test]
fn every_exported_symbol_of_a_real_kernel_has_the_value_of_kallsyms() {
    let archives = captures::archives().unwrap();
    if archives.is_empty() {
        println!("SKIPPED: there are no captures of real kernels beside the repository");
        return;
    }
    let (mut symbols, mut mismatches) = (0, 0);
    for archive in &archives {
        let capture = Capture::open(archive).unwrap();
        for scattered in [false, true] {
            let (looked_for, wrong) = check(&capture, scattered);
            assert!(looked_for > 1000, "{} has {looked_for} symbols only", capture.name());
            symbols += looked_for;
            mismatches += wrong;
        }
    }
    println!("{symbols} symbols looked for in {} kernels, each loaded twice: {mismatches} mismatches", archives.len());
    assert_eq!(mismatches, 0);
}

#[test]
fn a_heap_that_refuses_any_one_request_is_an_errno_and_leaves_nothing_behind() {
    let (mut data, exports) = KernelData::made_up(3000, 5);
    // An RSA key as well, as distributions have: its numbers are made by a crate that cannot do without memory.
    data.certificates.extend(Signer::rsa_authority("the builder of a distribution's kernel").unwrap().certificate());
    let (memory, list) = memory_with(&data, true);
    let states = |platform: &Platform| -> Vec<FrameState> { platform.frames().lock().intervals().collect() };
    let mut refusals = 0;
    loop {
        let platform = platform(&memory);
        let before = states(&platform);
        let Counted { result, kept, .. } = load(&platform, list, refusals);
        if result == 0 {
            break;
        }
        assert_eq!(result, Errno::Enomem.to_result(), "allocation {refusals}");
        assert_eq!(states(&platform), before, "allocation {refusals}");
        assert!(platform.vtl0().kernel_data().is_none());
        // What the registry has set aside for its transactions may stay.
        assert!(kept < 64 << 10, "{kept} bytes stay after allocation {refusals} has failed");
        // And nothing stands in the way of another try.
        assert_eq!(load(&platform, list, NEVER).result, 0);
        assert_eq!(platform.vtl0().kernel_data().unwrap().symbols.len(), exports.len());
        refusals += 1;
    }
    println!("{refusals} allocations, each refused once");
    assert!(refusals > 15);
}
