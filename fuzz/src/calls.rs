//! Target: one call, with parameters made from its types, in a life of VTL0 like that of `vsm_call`. There is one for every
//! row of the table, so that a new call is fuzzed because it is declared.

use std::sync::OnceLock;

use litebox_platform_lvbs::vsm::{CallRow, ParamMeta};
use vsm_handlers::ROWS;

use crate::input::Input;
use crate::machine::BUFFERS;
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

/// The registers of a call of `row`.
pub(crate) fn registers(input: &mut Input<'_>, row: &CallRow, list: [u64; 2]) -> [u64; 4] {
    let mut registers = [row.function.id(), 0, 0, 0];
    let mut at = 1;
    for param in row.meta.params {
        for (place, word) in parameter(input, param, list).into_iter().take(param.registers).enumerate() {
            if let Some(register) = registers.get_mut(at + place) {
                *register = word;
            }
        }
        at += param.registers;
    }
    registers
}

/// A value that the parameter's type takes, most of the time.
fn parameter(input: &mut Input<'_>, param: &ParamMeta, list: [u64; 2]) -> [u64; 3] {
    let how = input.byte();
    let buffer = BUFFERS + u64::from(how & 7);
    let one = match how >> 4 {
        0 => vsm_call::value(input),
        1 => 0,
        2 | 3 => vsm_call::value(input) & param.bits,
        4 => u64::from(input.byte()) & param.bits,
        5 => param.bits,
        6 => param.bits.wrapping_add(1),
        // Something in memory, by address or by frame.
        _ if param.bits >> 52 == 0 && param.bits.trailing_zeros() >= 12 => buffer << 12,
        _ if param.bits == (1 << 52) - 1 => (buffer << 12) + input.short() % 4096,
        _ if matches!(param.bits, 0xff_ffff_ffff | u64::MAX) => buffer,
        _ => u64::from(how & 0xf) & param.bits,
    };
    if param.registers == 2 && how >> 4 > 3 { [list[0], list[1], 0] } else { [one, vsm_call::value(input), 0] }
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
