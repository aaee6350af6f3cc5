//! VTL1's log, behind the `log` crate's macros: one line a message, to COM2 and, once VTL0 has given memory for it, to the
//! log ring. Both get the same lines in the same order.

use core::fmt::{self, Write};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};

use log::{LevelFilter, Log, Metadata, Record};

use super::kernel::platform_if_ready;
use super::serial::Serial;
use crate::logging::{Level, Line};
use crate::sync::{Mutex, MutexGuard};

/// The console, and the order of the lines: the ring is written while this is held.
static SERIAL: Mutex<Serial> = Mutex::new(Serial::new());

/// Whether the ring has been told that the console is not used any more.
static CONSOLE_IS_DEAD: AtomicBool = AtomicBool::new(false);

/// Tries for a lock before a panic goes on without it: its holder may be the code that panicked.
const PANIC_TRIES: u32 = 1_000_000;

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Formatted before a lock is taken, and once for both.
        let line = Line::new(record.level().into(), *record.args());
        let mut serial = SERIAL.lock();
        serial.begin_line();
        // Writing to the UART cannot fail.
        let _ = writeln!(serial, "vtl1: {line}");
        if let Some(platform) = platform_if_ready()
            && let Some(ring) = platform.log_ring().lock().as_mut()
        {
            if serial.is_dead() && !CONSOLE_IS_DEAD.swap(true, Ordering::Relaxed) {
                ring.append(&Line::new(
                    Level::Warning,
                    format_args!("COM2 is missing or too slow; the log goes on here only"),
                ));
            }
            ring.append(&line);
        }
    }

    fn flush(&self) {}
}

/// Sets the most talkative level that is logged; [`LevelFilter::Info`] until then.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Installs the logger. Called once by boot, as soon as the image is relocated.
pub fn install() {
    static LOG: Logger = Logger;
    // Fails only when there is a logger already, which would be ours.
    let _ = log::set_logger(&LOG);
    log::set_max_level(LevelFilter::Info);
}

/// Prints a panic's message even when the console's lock is never released.
pub fn print_panic(message: fmt::Arguments<'_>) {
    if let Some(mut serial) = with_patience(&SERIAL) {
        // Once more, even if it was given up: this message matters.
        *serial = Serial::new();
        serial.begin_line();
        let _ = writeln!(serial, "vtl1: panic: {message}");
        drop(serial);
        add_to_ring(message);
    } else {
        let mut serial = Serial::new();
        serial.begin_line();
        let _ = writeln!(serial, "\nvtl1: panic: {message}");
        add_to_ring(message);
    }
}

/// A ring that is being written to by the code that panicked is left alone: the record would be torn.
fn add_to_ring(message: fmt::Arguments<'_>) {
    if let Some(platform) = platform_if_ready()
        && let Some(mut ring) = with_patience(platform.log_ring())
        && let Some(ring) = ring.as_mut()
    {
        ring.append(&Line::new(Level::Panic, message));
    }
}

fn with_patience<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    (0..PANIC_TRIES).find_map(|_| {
        let guard = mutex.try_lock();
        if guard.is_none() {
            spin_loop();
        }
        guard
    })
}
