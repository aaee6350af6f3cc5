//! VTL1's log, behind the `log` crate's macros: one line a message, to COM2.

use core::fmt::{self, Write};
use core::hint::spin_loop;

use log::{LevelFilter, Log, Metadata, Record};

use super::serial::Serial;
use crate::sync::Mutex;

static SERIAL: Mutex<Serial> = Mutex::new(Serial::new());

/// Tries for the console before a panic takes it by force: its holder may be the code that panicked.
const PANIC_TRIES: u32 = 1_000_000;

struct SerialLog;

impl Log for SerialLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            _ => "",
        };
        let mut serial = SERIAL.lock();
        serial.begin_line();
        // Writing to the UART cannot fail.
        let _ = writeln!(serial, "vtl1: {level}{}", record.args());
    }

    fn flush(&self) {}
}

/// Installs the logger. Called once by boot, as soon as the image is relocated.
pub fn install() {
    static LOG: SerialLog = SerialLog;
    // Fails only when there is a logger already, which would be ours.
    let _ = log::set_logger(&LOG);
    log::set_max_level(LevelFilter::Info);
}

/// Prints a panic's message even when the console's lock is never released.
pub fn print_panic(message: fmt::Arguments<'_>) {
    for _ in 0..PANIC_TRIES {
        if let Some(mut serial) = SERIAL.try_lock() {
            // COM2 is VTL0's to reprogram: it is set up again, so that this message comes through.
            *serial = Serial::new();
            let _ = writeln!(serial, "vtl1: panic: {message}");
            return;
        }
        spin_loop();
    }
    let _ = writeln!(Serial::new(), "\nvtl1: panic: {message}");
}
