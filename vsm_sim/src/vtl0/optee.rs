//! How Linux looks for OP-TEE (`optee_probe`, drivers/tee/optee/smc_abi.c): the messages in order, and what it must be told
//! to go on. Written from that driver's documentation and the LVBS contract §5.13.

/// A message, and what Linux makes of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// What it is for.
    pub what: &'static str,
    /// Registers a0 to a8.
    pub registers: [u64; 9],
    /// What a0 to a3 must be where there is no trusted operating system; `None` where any value will do.
    pub answer: [Option<u64>; 4],
}

/// The code for what is not there.
pub const NOT_AVAILABLE: u64 = 7;

const fn message(what: &'static str, a0: u64, a1: u64, answer: [Option<u64>; 4]) -> Message {
    Message { what, registers: [a0, a1, 0, 0, 0, 0, 0, 0, 0], answer }
}

/// What Linux sends until it knows that it has no device: fast calls have bit 31, the owner is the trusted operating system
/// (0x32) or its interface (0x3f).
pub const DISCOVERY: [Message; 6] = [
    // Another interface than OP-TEE's ends the probe.
    message(
        "UUID of the interface",
        0xbf00_ff01,
        0,
        [Some(0x384f_b3e0), Some(0xe7f8_11e3), Some(0xaf63_0002), Some(0xa5d5_c51b)],
    ),
    // Printed; whatever it is.
    message("revision of the operating system", 0xb200_0001, 0, [None, None, None, None]),
    // Major must be 2, minor at least 0.
    message("revision of the interface", 0xbf00_ff03, 0, [Some(2), Some(0), Some(0), Some(0)]),
    // Several processors: no bit. No way to share memory: Linux stops here.
    message("capabilities", 0xb200_0009, 0, [Some(0), Some(0), Some(0), Some(0)]),
    // Linux repeats it until nothing is left.
    message("disable the cache of shared memory", 0xb200_000a, 0, [Some(NOT_AVAILABLE), None, None, None]),
    // Who sends a message all the same.
    message("open a session", 0x3200_0004, 0, [Some(NOT_AVAILABLE), None, None, None]),
];

impl Message {
    /// Whether `registers` are an answer that Linux must get to this message.
    #[must_use]
    pub fn accepts(&self, registers: &[u64; 9]) -> bool {
        let answered = self.answer.iter().zip(registers).all(|(must, is)| must.is_none_or(|must| must == *is));
        answered && registers[4..] == self.registers[4..]
    }

    /// The registers in memory.
    #[must_use]
    pub fn to_bytes(registers: &[u64; 9]) -> Vec<u8> {
        registers.iter().flat_map(|register| register.to_le_bytes()).collect()
    }

    /// The registers that lie in memory.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 72]) -> [u64; 9] {
        std::array::from_fn(|index| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[index * 8..][..8]);
            u64::from_le_bytes(word)
        })
    }
}
