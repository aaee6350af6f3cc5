//! `--shell`: the guest's console on this terminal, with VTL1's last lines above it.
//!
//! The terminal is set with `stty` and split with the control sequences that every terminal of today knows (DECSTBM, DECSC,
//! DECRC). Where standard output is none, VTL1's lines stand between those of Linux, marked.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::process::{Command, Stdio, exit};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use vsm_sim::linux::{Event, Input};

/// Lines of VTL1 that are seen.
const PANE: usize = 8;
/// Least height of a terminal that is split.
const LEAST_ROWS: usize = 20;
/// Ctrl-] ends the guest, as it ends telnet.
const QUIT: u8 = 0x1D;

/// A terminal that is the guest's. Dropping it gives the terminal back.
pub struct Terminal {
    /// How it was set before, as `stty -g` says; none where standard input is no terminal.
    before: Option<String>,
    pane: Option<Mutex<VecDeque<String>>>,
}

fn stty(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("stty");
    let output = command.args(arguments).stdin(Stdio::inherit()).output().context("cannot start stty")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Rows in the output of `stty size`.
fn rows(size: &str) -> Option<usize> {
    size.split_whitespace().next()?.parse().ok()
}

impl Terminal {
    /// Takes the terminal, and sends what is typed to the guest from now on.
    ///
    /// # Errors
    /// The terminal cannot be set.
    pub fn take(mut input: Input) -> Result<Self> {
        let before = if stdin().is_terminal() { Some(stty(&["-g"])?) } else { None };
        let rows = stdout().is_terminal().then(|| stty(&["size"]).ok().and_then(|size| rows(&size))).flatten();
        let terminal =
            Self { before, pane: rows.filter(|rows| *rows >= LEAST_ROWS).map(|_| Mutex::new(VecDeque::new())) };
        println!("Ctrl-] ends the guest at once, `exit` in it switches it off.");
        if let (Some(rows), true) = (rows, terminal.pane.is_some()) {
            print!("\x1b[2J\x1b[{};{rows}r\x1b[{rows};1H", PANE + 2);
        }
        if terminal.before.is_some() {
            stty(&["raw", "-echo"])?;
        }
        terminal.draw();
        let before = terminal.before.clone();
        let split = terminal.pane.is_some();
        std::thread::Builder::new().name("keyboard".to_owned()).spawn(move || {
            let mut bytes = [0; 256];
            while let Ok(count @ 1..) = stdin().read(&mut bytes) {
                if bytes[..count].contains(&QUIT) && before.is_some() {
                    give_back(before.as_deref(), split);
                    // The emulator ends with this process.
                    exit(1);
                }
                if input.send(&bytes[..count]).is_err() {
                    return;
                }
            }
        })?;
        Ok(terminal)
    }

    /// Shows an event.
    pub fn show(&self, event: &Event<'_>) {
        let mut out = stdout().lock();
        // A terminal that is gone is noticed elsewhere.
        let _ = match event {
            Event::Vtl0Bytes(bytes) => out.write_all(bytes).and_then(|()| out.flush()),
            Event::Vtl1Line(line) => match &self.pane {
                None => write!(out, "VTL1| {line}\r\n").and_then(|()| out.flush()),
                Some(pane) => {
                    drop(out);
                    let mut lines = pane.lock().unwrap_or_else(PoisonError::into_inner);
                    lines.push_back((*line).to_owned());
                    if lines.len() > PANE {
                        lines.pop_front();
                    }
                    drop(lines);
                    self.draw();
                    Ok(())
                }
            },
            _ => Ok(()),
        };
    }

    fn draw(&self) {
        let Some(pane) = &self.pane else { return };
        let lines = pane.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = stdout().lock();
        let _ = out.write_all(picture(lines.iter()).as_bytes()).and_then(|()| out.flush());
    }
}

/// The pane: lines of VTL1, then a rule; the cursor stays where it was.
fn picture<'a>(lines: impl Iterator<Item = &'a String>) -> String {
    let mut text = String::from("\x1b7");
    let mut lines = lines.map(String::as_str);
    for row in 1..=PANE {
        let line: String = lines.next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect();
        // Without wrapping: a long line must not push into the guest's half.
        let _ = write!(text, "\x1b[{row};1H\x1b[2K\x1b[?7l\x1b[36m{line}\x1b[0m\x1b[?7h");
    }
    let _ = write!(text, "\x1b[{};1H\x1b[2K\x1b[7m VTL1 above, Linux in VTL0 below \x1b[0m\x1b8", PANE + 1);
    text
}

fn give_back(before: Option<&str>, split: bool) {
    if split {
        // The whole screen scrolls again, and the cursor goes to its last line.
        print!("\x1b[r\x1b[999;1H\r\n");
    }
    if let Some(before) = before {
        let _ = stty(&[before]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back(self.before.as_deref(), self.pane.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vtl1_s_lines_stay_above_and_harmless() {
        let lines = ["first".to_owned(), "\x1b[2Jsecond".to_owned()];
        let text = picture(lines.iter());
        assert!(text.starts_with("\x1b7") && text.ends_with("\x1b8"), "the cursor is kept");
        assert!(text.contains("first") && text.contains("[2Jsecond") && !text.contains("\x1b[2J"), "{text:?}");
        assert_eq!(text.matches("\x1b[2K").count(), PANE + 1, "each row is drawn anew");
        assert_eq!(rows("40 120"), Some(40));
        assert_eq!(rows(""), None);
    }
}
