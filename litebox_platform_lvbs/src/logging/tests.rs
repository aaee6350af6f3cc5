//! The log's lines, records and limits. The ring's reader, and what it must withstand, is the simulator's.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::limit::FIRST;
use super::*;

/// Memory that writes down every byte stored.
#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    fn of(size: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![0xA5; size])))
    }
}

impl RingMemory for Bytes {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.0.lock().unwrap()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn publish(&mut self, offset: usize, byte: u8) {
        self.0.lock().unwrap()[offset] = byte;
    }
}

#[test]
fn a_record_is_what_the_book_says() {
    let memory = Bytes::of(4096);
    let mut ring = LogRing::new(Box::new(memory.clone()), 4096);
    assert_eq!(memory.0.lock().unwrap()[..18], *b"\x1d0000000000000000\n");
    assert!(memory.0.lock().unwrap()[18..].iter().all(|byte| *byte == 0), "what was in the memory is gone");
    ring.append(&Line::new(Level::Warning, format_args!("VP {}: {}", 3, "no")));
    ring.append(&Line::new(Level::Info, format_args!("")));
    // The sums are those of Python's zlib.crc32.
    let expected = "\x1e0000000000000000 00000000 W VP 3: no 80fce10d\n\
                    \x1e000000000000002f 00000001 I  354490a5\n\
                    \x1d0000000000000056\n";
    let memory = memory.0.lock().unwrap();
    assert_eq!(String::from_utf8_lossy(&memory[..expected.len()]), expected);
}

#[test]
fn a_line_is_printable_and_bounded_whatever_it_is_made_of() {
    let line = Line::new(Level::Info, format_args!("a\nb\x1ec\x1dd\te\u{e9}\x7f"));
    assert_eq!(line.text(), b"a b?c?d e???");
    let long = Line::new(Level::Error, format_args!("{}", "x".repeat(MAX_TEXT + 1)));
    assert_eq!(long.text().len(), MAX_TEXT);
    assert!(long.text().ends_with(b"xx..."));
    let whole = Line::new(Level::Error, format_args!("{}", "x".repeat(MAX_TEXT)));
    assert!(whole.text().ends_with(b"xxx") && whole.text().len() == MAX_TEXT);
    assert_eq!(Line::new(Level::Warning, format_args!("x")).to_string(), "warning: x");
}

#[test]
fn the_longest_record_is_written_whole_in_the_smallest_ring() {
    let memory = Bytes::of(4096);
    let mut ring = LogRing::new(Box::new(memory.clone()), 4096);
    for _ in 0..100 {
        ring.append(&Line::new(Level::Info, format_args!("{}", "x".repeat(MAX_TEXT))));
    }
    let memory = memory.0.lock().unwrap();
    // 100 records of 512 bytes end at 51200 = 12 * 4096 + 2048, and there is no other mark.
    assert_eq!(memory[2048..2048 + 18], *b"\x1d000000000000c800\n");
    assert_eq!(memory.split(|byte| *byte == 0x1d).count(), 1 + 1);
    assert_eq!(memory.split(|byte| *byte == 0x1e).count(), 7 + 1);
}

#[test]
fn a_storm_is_logged_with_the_logarithm_of_its_length() {
    let limits = LogLimits::default();
    let (mut lines, mut told) = (0_u64, 0_u64);
    for _ in 0..1_000_000 {
        if let Some(Logged { left_out }) = limits.count(LogKind::MemoryViolation) {
            lines += 1;
            told += 1 + left_out;
        }
    }
    // 8 at first, then at 16, 32, ..., 2^19.
    assert_eq!(lines, FIRST + 16);
    assert_eq!(told, 1 << 19, "every event up to the last line is accounted for");
    // Another kind is not silenced by it.
    assert_eq!(limits.count(LogKind::MsrViolation), Some(Logged { left_out: 0 }));
    assert_eq!(Logged { left_out: 7 }.to_string(), " (7 more like it were not logged)");
    assert_eq!(Logged { left_out: 0 }.to_string(), "");
}

#[test]
fn ids_of_no_call_are_one_kind_and_calls_one_each() {
    let limits = LogLimits::default();
    let logged = |id| limits.count(LogKind::RefusedCall(id)).is_some();
    let random = (0..1000_u64).map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 40);
    assert_eq!(random.filter(|id| logged(*id)).count(), 8 + 6);
    for id in [0x1_ffe0, 0x1_fff0] {
        assert_eq!((0..9).filter(|_| logged(id)).count(), 8, "{id:#x}");
    }
}

proptest! {
    /// Whatever is appended: the bytes of the whole stream, laid around the ring.
    #[test]
    fn the_ring_holds_the_end_of_the_stream(lengths in proptest::collection::vec(0_usize..600, 1..80)) {
        let memory = Bytes::of(8192);
        let large = Bytes::of(1 << 20);
        let mut ring = LogRing::new(Box::new(memory.clone()), 8192);
        let mut unwrapped = LogRing::new(Box::new(large.clone()), 1 << 20);
        for (index, length) in lengths.iter().enumerate() {
            let text = format!("{index} ").repeat(*length);
            let line = Line::new(Level::Info, format_args!("{text}"));
            ring.append(&line);
            unwrapped.append(&line);
        }
        let (memory, large) = (memory.0.lock().unwrap(), large.0.lock().unwrap());
        let end = large.iter().position(|byte| *byte == 0x1d).unwrap() + 18;
        for position in end.saturating_sub(8192)..end {
            prop_assert_eq!(memory[position % 8192], large[position], "position {}", position);
        }
    }
}
