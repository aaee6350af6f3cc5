//! COM1: what the guest writes, by bytes and by lines; what is written to it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Event;
use super::processors::Run;

/// How often the reader looks whether the run is over.
const LOOK: Duration = Duration::from_millis(50);
/// A line that never ends is told in pieces of so many bytes.
const LONGEST_LINE: usize = 4096;

/// Our end of COM1.
pub struct Serial(UnixStream);

/// Writes to the guest's COM1.
pub struct Input(UnixStream);

impl Input {
    /// Sends bytes; they wait until the guest reads them.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Another handle of the same.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// The thread that reads.
pub struct Reading {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Reading {
    /// Waits until all that the guest has written is told.
    pub fn finish(self) {
        self.over.store(true, SeqCst);
        let _ = self.thread.join();
    }
}

impl Serial {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(LOOK)).context("a time limit for COM1")?;
        Ok(Self(stream))
    }

    pub(super) fn input(&self) -> Result<Input> {
        Ok(Input(self.0.try_clone().context("another handle of COM1")?))
    }

    /// Tells `run`'s observer what the guest writes.
    pub(super) fn read(&self, run: Arc<Run>) -> Result<Reading> {
        let mut stream = self.0.try_clone().context("another handle of COM1")?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("COM1".into()).spawn(move || {
            let (mut line, mut bytes) = (Vec::new(), [0; 4096]);
            loop {
                // Asked before reading: what came before the end is still there.
                let last = is_over.load(SeqCst);
                match stream.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(count) => tell(&run, &mut line, &bytes[..count]),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && !last => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            if !line.is_empty() {
                tell_line(&run, &mut line);
            }
        })?;
        Ok(Reading { over, thread })
    }
}

fn tell(run: &Run, line: &mut Vec<u8>, bytes: &[u8]) {
    run.tell(Event::Vtl0Bytes(bytes));
    run.active();
    for byte in bytes {
        match byte {
            b'\n' => tell_line(run, line),
            _ => line.push(*byte),
        }
        if line.len() >= LONGEST_LINE {
            tell_line(run, line);
        }
    }
}

fn tell_line(run: &Run, line: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line).into_owned();
    run.tell(Event::Vtl0Line(text.trim_end_matches('\r')));
    line.clear();
}
