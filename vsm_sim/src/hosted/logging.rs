//! VTL1's log lines of hosted machines. There is one logger for the whole process; which machine a line belongs to is known
//! by the thread that logs it.
//!
//! On the image a line goes to the console and into the ring as it is logged. Here both get it when the call is done,
//! which VTL0 cannot tell from the outside.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use litebox_platform_lvbs::Platform;
use litebox_platform_lvbs::logging::Line;
use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    /// The lines of the call that the thread serves; `None` while it serves none whose lines are kept.
    static LINES: RefCell<Option<Vec<Line>>> = const { RefCell::new(None) };
    /// The VTL1 that makes that call.
    static PLATFORM: RefCell<Option<Arc<Platform>>> = const { RefCell::new(None) };
}

/// Whether the ring's lock is free, or another thread's that gives it back.
fn ring_is_free(platform: &Platform) -> bool {
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        if platform.log_ring().try_lock().is_some() {
            return true;
        }
        if Instant::now() > patience {
            return false;
        }
        std::thread::yield_now();
    }
}

struct ThreadLog;

impl Log for ThreadLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        LINES.with_borrow(Option::is_some)
    }

    fn log(&self, record: &Record<'_>) {
        // The image takes the ring's lock for every line, so that it must be free wherever VTL1 logs.
        PLATFORM.with_borrow(|platform| {
            assert!(platform.as_deref().is_none_or(ring_is_free), "logged under the ring's lock");
        });
        let line = Line::new(record.level().into(), *record.args());
        LINES.with_borrow_mut(|lines| lines.as_mut().map(|lines| lines.push(line)));
    }

    fn flush(&self) {}
}

/// Installs the logger, unless there is one.
pub(super) fn install() {
    static LOG: ThreadLog = ThreadLog;
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// What one machine has logged.
#[derive(Debug, Default)]
pub(super) struct Collected(Mutex<Vec<Line>>);

impl Collected {
    /// Runs `work`, which serves `platform`, and keeps its lines.
    pub(super) fn collect<R>(&self, platform: &Arc<Platform>, work: impl FnOnce() -> R) -> R {
        LINES.set(Some(Vec::new()));
        PLATFORM.set(Some(Arc::clone(platform)));
        let result = work();
        PLATFORM.set(None);
        let lines = LINES.take().unwrap_or_default();
        // Locked over both: the ring has the console's order.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ring) = platform.log_ring().lock().as_mut() {
            for line in &lines {
                ring.append(line);
            }
        }
        kept.extend(lines);
        result
    }

    /// Forgets the lines so far.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }

    /// The lines so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Line::to_string).collect()
    }
}
