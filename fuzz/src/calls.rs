//! Target: one call, with parameters made from its types, in a life of VTL0 like that of `vsm_call`. There is one for every
//! row of the table, so that a new call is fuzzed because it is declared.

use std::sync::OnceLock;

use litebox_platform_lvbs::vsm::CallRow;
use vsm_handlers::ROWS;

use crate::vsm_call;

/// Names the call that [`run`] makes.
pub const CALL_VARIABLE: &str = "VSM_FUZZ_CALL";

/// The call that the environment names; any of them where it names none.
fn chosen(data: &[u8]) -> &'static CallRow {
    static TABLE: [CallRow; ROWS.len()] = ROWS;
    static CHOSEN: OnceLock<Option<&CallRow>> = OnceLock::new();
    let named = CHOSEN.get_or_init(|| {
        let name = std::env::var(CALL_VARIABLE).ok()?;
        let row = TABLE.iter().find(|row| row.meta.name == name);
        Some(row.unwrap_or_else(|| panic!("{CALL_VARIABLE}: there is no call {name}")))
    });
    named.unwrap_or_else(|| &TABLE[data.iter().fold(0, |sum, byte| sum + usize::from(*byte)) % TABLE.len()])
}

/// # Panics
/// When a rule is broken.
pub fn run(data: &[u8]) {
    vsm_call::live(data, Some(chosen(data)), &mut |_, _| ());
}

/// Those of the lives, and a life of nothing but the call.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vsm_call::seeds();
    seeds.extend((0..16u8).map(|how| (0..8).flat_map(|_| [5, 0, 1, how << 4, 1, 2, 3, 4]).collect()));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_reached_by_its_own_target() {
        for row in &ROWS {
            let (mut made, mut let_in) = (0u32, 0u32);
            for seed in seeds() {
                vsm_call::live(&seed, Some(row), &mut |id, result| {
                    if id == row.function.id() {
                        made += 1;
                        let_in += u32::from(result != -1);
                    }
                });
            }
            assert!(made > 20 && let_in > 5, "{}: made {made} times, let in {let_in} times", row.function.name());
        }
    }
}
