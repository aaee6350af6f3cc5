//! COM2: VTL1's console (LVBS contract §2.7: ttyS1, 115200 baud).
//!
//! A missing or stuck UART costs one bounded wait and is not used again; it never stops VTL1.

use core::fmt;

use x86_64::instructions::port::{PortReadOnly, PortWriteOnly};

const COM2: u16 = 0x2F8;
/// Line control: 8 bits, no parity, one stop bit, no divisor access.
const LINE_8N1: u8 = 0x03;
const LINE_STATUS_EMPTY: u8 = 1 << 5;
/// Bytes the transmitter takes at once when it is empty (16550A FIFO).
const FIFO: usize = 16;
/// Polls until a UART counts as dead. A 16-byte FIFO drains in 1.4 ms; a port access takes about 1 us.
const MAX_POLLS: u32 = 20_000;

/// The UART's state.
#[derive(Debug)]
pub struct Serial {
    state: State,
    room: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
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
        Self { state: State::Unknown, room: 0 }
    }

    fn write_port(offset: u16, value: u8) {
        // SAFETY: COM2's registers; writing them has no effect on memory.
        unsafe { PortWriteOnly::new(COM2 + offset).write(value) }
    }

    fn read_port(offset: u16) -> u8 {
        // SAFETY: as in `write_port`.
        unsafe { PortReadOnly::new(COM2 + offset).read() }
    }

    fn set_up(&mut self) {
        // The scratch register keeps what is written where there is a UART at all.
        Self::write_port(7, 0x5A);
        if Self::read_port(7) != 0x5A {
            self.state = State::Dead;
            return;
        }
        Self::write_port(1, 0x00); // no interrupts
        Self::write_port(3, 0x80); // divisor access
        Self::write_port(0, 0x01); // 115200 baud
        Self::write_port(1, 0x00);
        Self::write_port(3, LINE_8N1);
        Self::write_port(2, 0x07); // FIFOs on and empty
        self.state = State::Ready;
    }

    /// Restores the line settings, which VTL0 may have changed since the last line (divisor access, most of all).
    pub fn begin_line(&mut self) {
        if self.state == State::Ready {
            Self::write_port(3, LINE_8N1);
        }
    }

    fn put(&mut self, byte: u8) {
        if self.state == State::Unknown {
            self.set_up();
        }
        if self.state == State::Ready && self.room == 0 {
            let ready = (0..MAX_POLLS).any(|_| Self::read_port(5) & LINE_STATUS_EMPTY != 0);
            if ready {
                self.room = FIFO;
            } else {
                self.state = State::Dead;
            }
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
