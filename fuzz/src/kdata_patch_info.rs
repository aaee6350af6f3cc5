//! Target: the records of jump labels and static calls, and the map of the former that VTL1 keeps.

use std::collections::BTreeSet;

use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::vtl0::{PatchData, PatchDataMap};
use vsm_integrity::patch_info::{HEADER_BYTES, PATCH_BYTES, SiteType, sites};

/// Most sites the map is made of: the model of it keeps every byte.
const MAX_SITES: usize = 200;

/// A site: whether it is a static call, its address, that of its second page or 0, and the jump.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Site {
    is_call: bool,
    pa: u64,
    next_page: u64,
    jump: Vec<u8>,
}

/// # Panics
/// When a rule is broken: the sites are exactly those of the model, and an error names the model's offset; the map of the
/// sites is refused exactly when two of them share a byte, and finds every site by its first byte, and no other.
pub fn run(data: &[u8]) {
    let (expected, end) = model(data);
    let found: Vec<_> = sites(data).collect();
    assert_eq!(found, sites(data).collect::<Vec<_>>(), "the same bytes read twice");
    let taken: Vec<Site> = found
        .iter()
        .map_while(|item| item.as_ref().ok())
        .map(|site| Site {
            is_call: site.kind == SiteType::StaticCall,
            pa: site.pa,
            next_page: site.next_page,
            jump: site.jump().to_vec(),
        })
        .collect();
    assert_eq!(taken, expected);
    match (&found[taken.len()..], end) {
        ([], Ok(())) => {}
        ([Err(error)], Err(offset)) => assert_eq!(error.offset, offset, "{error}"),
        (rest, end) => panic!("ends with {rest:?}, the model with {end:?}"),
    }
    // Where a static call may go is the caller's to know.
    let labels: Vec<Site> = taken.into_iter().filter(|site| !site.is_call).take(MAX_SITES).collect();
    check_map(&labels);
}

/// The sites of the records in `data`, up to the first offset where a rule is broken.
fn model(data: &[u8]) -> (Vec<Site>, Result<(), usize>) {
    let mut found = Vec::new();
    let padding = data.iter().rev().take_while(|byte| **byte == 0).count();
    let mut at = 0;
    while at < data.len() - padding {
        let Some((is_call, count)) = data.get(at..at + HEADER_BYTES).and_then(patches_of) else {
            return (found, Err(at));
        };
        at += HEADER_BYTES;
        for _ in 0..count {
            let Some(site) = data.get(at..at + PATCH_BYTES).and_then(|patch| site(is_call, patch)) else {
                return (found, Err(at));
            };
            found.push(site);
            at += PATCH_BYTES;
        }
    }
    (found, Ok(()))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Whether a record is of static calls, and how many patches it has, if its header is sound: of type 0 or 1, and with no more
/// patches than there is room for.
fn patches_of(header: &[u8]) -> Option<(bool, u64)> {
    let (used, most) = (word(header, 32), word(header, 40));
    let is_call = match header[..4] {
        [0, 0, 0, 0] => false,
        [1, 0, 0, 0] => true,
        _ => return None,
    };
    (used <= most).then_some((is_call, used))
}

/// A sound patch's site.
fn site(is_call: bool, patch: &[u8]) -> Option<Site> {
    let (pa, next_page) = (word(patch, 0), word(patch, 8));
    let jump = match &patch[16..22] {
        [2, short @ 0xeb, offset, ..] if !is_call => vec![*short, *offset],
        [5, 0xe9, ..] => patch[17..22].to_vec(),
        [5, 0xe8, ..] if is_call => patch[17..22].to_vec(),
        _ => return None,
    };
    let physical = pa != 0 && pa < 1 << 52 && next_page < 1 << 52;
    let (first, last) = (pa / 4096, pa.checked_add(jump.len() as u64 - 1)? / 4096);
    let second_page = if first == last { next_page == 0 } else { next_page != 0 && next_page / 4096 != first };
    (physical && second_page && next_page.is_multiple_of(4096)).then_some(Site { is_call, pa, next_page, jump })
}

/// The addresses of a site's bytes.
fn bytes_of(site: &Site) -> impl Iterator<Item = u64> {
    let Site { pa, next_page, jump, .. } = site;
    (*pa..pa + jump.len() as u64).map(move |at| {
        let beyond = at / 4096 != pa / 4096;
        if beyond { next_page + at % 4096 } else { at }
    })
}

fn check_map(sites: &[Site]) {
    let pa = |raw| PhysAddr::new(raw).expect("a physical address that the parser takes");
    let data = |site: &Site| {
        let next_page = (site.next_page != 0).then(|| pa(site.next_page));
        PatchData::new(pa(site.pa), next_page, &site.jump).expect("a site that the parser takes")
    };
    let mut bytes = BTreeSet::new();
    let apart = sites.iter().flat_map(bytes_of).all(|at| bytes.insert(at));
    let map = PatchDataMap::new(sites.iter().map(data).collect());
    assert_eq!(map.is_ok(), apart, "{sites:x?}");
    let Ok(map) = map else { return };
    assert_eq!(map.len(), sites.len());
    assert!(map.iter().is_sorted_by_key(PatchData::start));
    for site in sites {
        assert_eq!(map.at(pa(site.pa)), Some(&data(site)));
        for at in bytes_of(site).skip(1) {
            assert_eq!(map.at(pa(at)), None, "{at:#x} is not the first byte of a site");
        }
    }
}

fn calls(count: u64) -> Vec<u8> {
    let mut header = header(count);
    header[0] = 1;
    header
}

fn header(count: u64) -> Vec<u8> {
    let mut header = vec![0; HEADER_BYTES];
    header[32..40].copy_from_slice(&count.to_le_bytes());
    header[40..48].copy_from_slice(&count.to_le_bytes());
    header
}

fn patch(pa: u64, next: u64, jump: &[u8]) -> Vec<u8> {
    let mut patch = [pa.to_le_bytes(), next.to_le_bytes()].concat();
    patch.push(u8::try_from(jump.len()).unwrap_or_default());
    patch.extend(jump);
    patch.resize(PATCH_BYTES, 0);
    patch
}

/// One record, one of static calls before one, three with an empty one between and padding behind, one that ends too early, overlapping sites.
pub fn seeds() -> Vec<Vec<u8>> {
    let short = patch(0x1000, 0, &[0xeb, 5]);
    let crossing = patch(0x1ffd, 0x9000, &[0xe9, 1, 2, 3, 4]);
    let beside = patch(0x9002, 0, &[0xeb, 5]);
    let overlapping = patch(0x9001, 0, &[0xeb, 5]);
    let one = [header(1), short.clone()].concat();
    vec![
        one.clone(),
        [calls(2), patch(0x3000, 0, &[0xe8, 1, 2, 3, 4]), crossing.clone(), one.clone()].concat(),
        [header(2), short, crossing.clone(), header(0), one.clone(), vec![0; 60]].concat(),
        [one, header(3), crossing.clone()].concat(),
        [header(2), crossing.clone(), beside].concat(),
        [header(2), crossing, overlapping].concat(),
    ]
}
