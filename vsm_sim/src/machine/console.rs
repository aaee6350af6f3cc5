//! A 16550A on COM2, as far as a console needs one: what VTL1 writes is collected by line.
//!
//! Registers: the PC16550D's data sheet. Interrupts and reception are not modelled; what the guest writes to their
//! registers is kept, and reading them says that nothing has happened.

/// First I/O port of COM2.
pub const COM2: u16 = 0x2F8;
const DIVISOR_ACCESS: u8 = 1 << 7;
/// Transmitter and its holding register are empty.
const LINE_STATUS: u8 = 0x60;

/// The UART and what was written to it.
#[derive(Debug, Default)]
pub struct Console {
    registers: [u8; 8],
    divisor: [u8; 2],
    line: Vec<u8>,
    lines: Vec<String>,
}

impl Console {
    /// Whether `port` is one of the UART's.
    #[must_use]
    pub fn owns(port: u16) -> bool {
        (COM2..COM2 + 8).contains(&port)
    }

    /// An OUT of one byte; a line that it completes.
    pub fn write(&mut self, port: u16, value: u8) -> Option<String> {
        let register = usize::from(port - COM2);
        let divisor = self.registers[3] & DIVISOR_ACCESS != 0;
        match register {
            0 | 1 if divisor => self.divisor[register] = value,
            0 => return self.transmit(value),
            _ => self.registers[register] = value,
        }
        None
    }

    /// An IN of one byte.
    #[must_use]
    pub fn read(&self, port: u16) -> u8 {
        let register = usize::from(port - COM2);
        let divisor = self.registers[3] & DIVISOR_ACCESS != 0;
        match register {
            0 | 1 if divisor => self.divisor[register],
            0 => 0,
            2 => 0xC1, // FIFOs on, no interrupt pending
            5 => LINE_STATUS,
            6 => 0xB0, // carrier, data set ready, clear to send
            _ => self.registers[register],
        }
    }

    fn transmit(&mut self, byte: u8) -> Option<String> {
        // The other end listens at 115200 baud (LVBS contract §2.7); at another speed it sees no byte as it was sent.
        let byte = if self.divisor == [1, 0] { byte } else { 0xff };
        match byte {
            b'\r' => None,
            b'\n' => {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                self.lines.push(line.clone());
                Some(line)
            }
            _ => {
                self.line.push(byte);
                None
            }
        }
    }

    /// The complete lines so far, and the one that has no end yet.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.clone();
        if !self.line.is_empty() {
            lines.push(String::from_utf8_lossy(&self.line).into_owned());
        }
        lines
    }
}
