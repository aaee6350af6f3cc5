//! COM2: VTL1's console (LVBS contract §2.7: ttyS1, 115200 baud).
//!
//! The port is VTL0's to reprogram at any time, and what VTL1 writes waits for it. So VTL1 sets it up for every line; a wait
//! has a bound; and after a bounded number of long waits in a whole boot, or without a UART, the port is not used again.

use core::fmt;

use x86_64::instructions::port::{PortReadOnly, PortWriteOnly};

const COM2: u16 = 0x2F8;
/// Line control: 8 bits, no parity, one stop bit, no divisor access.
const LINE_8N1: u8 = 0x03;
const LINE_STATUS_EMPTY: u8 = 1 << 5;
/// Bytes the transmitter takes at once when it is empty (16550A FIFO).
const FIFO: usize = 16;
/// Polls that a wait may take. A 16-byte FIFO drains in 1.4 ms at 115200 baud; a port access takes about 1 us.
const MAX_POLLS: u32 = 20_000;
/// Polls from which on a wait counts as long: twice what the FIFO takes.
const LONG_WAIT: u32 = 3_000;
/// How many long waits there may be in a boot: a second at most, together.
const MAX_LONG_WAITS: u8 = 50;

/// The UART's state.
#[derive(Debug)]
pub struct Serial {
    state: State,
    room: usize,
    long_waits: u8,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Not looked for yet.
    Unknown,
    Ready,
    Dead,
}

impl Default for Serial {
    fn default() -> Self {
        Self::new()
    }
}

impl Serial {
    /// A UART that has not been probed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Unknown, room: 0, long_waits: 0 }
    }

    fn write_port(offset: u16, value: u8) {
        // SAFETY: COM2's registers; writing them has no effect on memory.
        unsafe { PortWriteOnly::new(COM2 + offset).write(value) }
    }

    fn read_port(offset: u16) -> u8 {
        // SAFETY: as in `write_port`.
        unsafe { PortReadOnly::new(COM2 + offset).read() }
    }

    /// Looks for a UART: its scratch register keeps what is written.
    fn probe(&mut self) {
        Self::write_port(7, 0x5A);
        self.state = if Self::read_port(7) == 0x5A { State::Ready } else { State::Dead };
    }

    /// Sets the port up for a line: VTL0 may have changed anything since the last one.
    pub fn begin_line(&mut self) {
        if self.state == State::Unknown {
            self.probe();
        }
        if self.state == State::Ready {
            Self::write_port(3, 0x80); // divisor access
            Self::write_port(0, 0x01); // 115200 baud
            Self::write_port(1, 0x00);
            Self::write_port(3, LINE_8N1);
            Self::write_port(1, 0x00); // no interrupts
            Self::write_port(2, 0x01); // FIFOs on
        }
    }

    /// Whether the port is not used any more.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state == State::Dead
    }

    fn put(&mut self, byte: u8) {
        if self.state == State::Ready && self.room == 0 {
            let polls = (0..MAX_POLLS).find(|_| Self::read_port(5) & LINE_STATUS_EMPTY != 0);
            if polls.is_none_or(|polls| polls > LONG_WAIT) {
                self.long_waits += 1;
            }
            if self.long_waits >= MAX_LONG_WAITS {
                self.state = State::Dead;
            }
            self.room = FIFO;
        }
        if self.state == State::Ready {
            Self::write_port(0, byte);
            self.room -= 1;
        }
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match byte {
                b'\n' => {
                    self.put(b'\r');
                    self.put(b'\n');
                }
                0x20..=0x7e | b'\t' => self.put(byte),
                // Nothing that a terminal could take for a command.
                _ => self.put(b'?'),
            }
        }
        Ok(())
    }
}
