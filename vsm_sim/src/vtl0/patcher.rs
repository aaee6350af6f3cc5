//! How Linux changes a jump label or a static call: the three requests of a text poke (`text_poke_bp_batch`, LVBS contract
//! §5.9).

use super::kdata::Site;

const PAGE: u64 = 4096;
/// INT3.
pub const INT3: u8 = 0xcc;

/// Sites of a batch at most: Linux's `TP_VEC_MAX`, a page of `struct text_poke_loc`.
pub const BATCH: usize = 4096 / 16;

/// What a site is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A jump.
    Jump,
    /// The NOP of the same size.
    Nop,
}

/// A `struct heki_patch` as a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Physical address of the first byte, and of the page the bytes go on in, or 0.
    pub pa: [u64; 2],
    /// How many bytes.
    pub size: u8,
    /// The bytes.
    pub code: [u8; 5],
}

impl Patch {
    /// Bytes of a request.
    pub const SIZE: usize = 24;

    /// The request in memory.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0xee; Self::SIZE];
        bytes[..8].copy_from_slice(&self.pa[0].to_le_bytes());
        bytes[8..16].copy_from_slice(&self.pa[1].to_le_bytes());
        bytes[16] = self.size;
        bytes[17..22].copy_from_slice(&self.code);
        bytes
    }
}

/// The bytes of a site in a form.
pub fn bytes_of(site: &Site, form: Form) -> Vec<u8> {
    match (form, site.size) {
        (Form::Jump, length) => site.jump[..usize::from(length)].to_vec(),
        (Form::Nop, 2) => vec![0x66, 0x90],
        (Form::Nop, _) => vec![0x0f, 0x1f, 0x44, 0x00, 0x00],
    }
}

/// Where byte `index` of a site lies.
pub fn place_of(site: &Site, index: u64) -> u64 {
    let left = PAGE - site.pa % PAGE;
    if index < left { site.pa + index } else { site.next_page + (index - left) }
}

/// The request that writes `code` from byte `index` of the site on.
///
/// # Panics
/// When there are more than 5 bytes.
pub fn write_at(site: &Site, index: u64, code: &[u8]) -> Patch {
    let pa = place_of(site, index);
    let crosses = pa % PAGE + code.len() as u64 > PAGE;
    let mut bytes = [0; 5];
    bytes[..code.len()].copy_from_slice(code);
    let next = if crosses { site.next_page } else { 0 };
    Patch { pa: [pa, next], size: u8::try_from(code.len()).expect("5 bytes at most"), code: bytes }
}

/// The three steps that make the site `form`.
pub fn poke(site: &Site, form: Form) -> [Patch; 3] {
    poke_code(site, &bytes_of(site, form))
}

/// The three steps that make the site's instruction `code`, which has as many bytes.
///
/// # Panics
/// When there are more than 6.
pub fn poke_code(site: &Site, code: &[u8]) -> [Patch; 3] {
    [write_at(site, 0, &[INT3]), write_at(site, 1, &code[1..]), write_at(site, 0, &code[..1])]
}

/// The steps that give each site its new code, as `text_poke_bp_batch` makes them of up to [`BATCH`] sites: INT3 at all, then
/// the rest of all, then the first byte of all (LVBS contract §11.7).
///
/// # Panics
/// As [`poke_code`].
#[must_use]
pub fn poke_batch(sites: &[(Site, Vec<u8>)]) -> Vec<Patch> {
    let batch = |sites: &[(Site, Vec<u8>)]| {
        let pokes: Vec<[Patch; 3]> = sites.iter().map(|(site, code)| poke_code(site, code)).collect();
        (0..3).flat_map(|phase| pokes.iter().map(|steps| steps[phase]).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    sites.chunks(BATCH).flat_map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_goes_phase_by_phase_over_all_its_sites() {
        let site = |index: u64| Site { pa: 0x1000 * index, next_page: 0, jump: [0xe9, 1, 2, 3, 4], size: 5 };
        let sites: Vec<_> = (0..300).map(|index| (site(index), bytes_of(&site(index), Form::Nop))).collect();
        let steps = poke_batch(&sites);
        assert_eq!(steps.len(), 900);
        for (start, count) in [(0, BATCH), (BATCH, 300 - BATCH)] {
            for (phase, first) in [INT3, 0x1f, 0x0f].into_iter().enumerate() {
                let at = 3 * start + phase * count;
                assert!(steps[at..at + count].iter().all(|step| step.code[0] == first), "phase {phase} from {at}");
                let places: Vec<u64> = steps[at..at + count].iter().map(|step| step.pa[0] / 0x1000).collect();
                assert!(places.iter().copied().eq(start as u64..(start + count) as u64), "{places:?}");
            }
        }
    }
}
