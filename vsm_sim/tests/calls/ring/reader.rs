//! The reader of the log ring against the real writer, at the grain of single bytes: whatever is logged, whenever VTL0
//! looks, and however a look is torn, a line that comes out is one that went in, in order, and none is lost unsaid.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use litebox_platform_lvbs::logging::{Level, Line, LogRing, MAX_TEXT, RingMemory};
use proptest::prelude::*;
use vsm_sim::random::SplitMix;
use vsm_sim::vtl0::log_reader::{LogLine, LogReader};

const SIZE: usize = 4096;

/// A side of a die with so many.
fn roll(random: &mut SplitMix, sides: usize) -> usize {
    usize::try_from(random.next() >> 33).unwrap() % sides
}

/// What VTL0 sees, and the stores of VTL1 that have not got there yet.
struct Shared {
    bytes: Vec<u8>,
    on_the_way: VecDeque<(usize, u8)>,
    /// Stores since the last one that all others must precede; they may arrive in any order.
    loose: Vec<(usize, u8)>,
    random: SplitMix,
    in_order: bool,
}

impl Shared {
    fn arrive(&mut self, count: usize) {
        for _ in 0..count {
            let Some((offset, byte)) = self.on_the_way.pop_front() else { return };
            self.bytes[offset] = byte;
        }
    }

    fn publish(&mut self, offset: usize, byte: u8) {
        if !self.in_order {
            for index in (1..self.loose.len()).rev() {
                // A byte that is stored twice keeps its last value.
                let other = roll(&mut self.random, index + 1);
                if self.loose[other].0 != self.loose[index].0 {
                    self.loose.swap(index, other);
                }
            }
        }
        self.on_the_way.extend(self.loose.drain(..));
        self.on_the_way.push_back((offset, byte));
    }
}

#[derive(Clone)]
struct Memory(Arc<Mutex<Shared>>);

impl Memory {
    fn new(seed: u64, in_order: bool) -> Self {
        let shared = Shared {
            bytes: vec![0x41; SIZE],
            on_the_way: VecDeque::new(),
            loose: Vec::new(),
            random: SplitMix(seed),
            in_order,
        };
        Self(Arc::new(Mutex::new(shared)))
    }

    /// VTL0's read: its bytes are taken in any order, and VTL1 goes on meanwhile.
    fn read(&self, offset: usize, into: &mut [u8], speed: usize) {
        let mut shared = self.0.lock().unwrap();
        let backwards = roll(&mut shared.random, 2) == 1;
        let start = roll(&mut shared.random, into.len().max(1));
        for step in 0..into.len() {
            let index = (start + if backwards { into.len() - step } else { step }) % into.len();
            if speed > 0 && roll(&mut shared.random, 4) == 0 {
                let count = roll(&mut shared.random, speed);
                shared.arrive(count);
            }
            into[index] = shared.bytes[offset + index];
        }
    }
}

impl RingMemory for Memory {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= SIZE, "a write beyond the ring");
        self.0.lock().unwrap().loose.extend((offset..).zip(bytes.iter().copied()));
    }

    fn publish(&mut self, offset: usize, byte: u8) {
        self.0.lock().unwrap().publish(offset, byte);
    }
}

/// A line's text: its number, and something that makes it longer; sometimes what looks like a record.
fn text(number: usize, length: usize) -> String {
    let tail = match number % 5 {
        0 => "\u{1e}0000000000000000 00000000 I forged 00000000\n",
        1 => "0000000000000000 00000007 W x ",
        _ => "abc ",
    };
    format!("line {number} {}", tail.repeat(length))
}

fn sent(number: usize, length: usize) -> LogLine {
    let line = Line::new(Level::Info, format_args!("{}", text(number, length)));
    let text = String::from_utf8(line.text().to_vec()).unwrap();
    LogLine { number: u32::try_from(number).unwrap(), level: 'I', text }
}

/// Plays a log and its reader; `lengths` are those of the lines, `polls` says after which of them VTL0 looks.
fn play(lengths: &[usize], polls: &[bool], order: u64, speed: usize, in_order: bool) -> Result<(), TestCaseError> {
    let memory = Memory::new(order, in_order);
    let mut ring = LogRing::new(Box::new(memory.clone()), SIZE);
    let mut reader = LogReader::new(SIZE);
    let mut next = 0_u32;
    let check = |reader: &mut LogReader, next: &mut u32, speed: usize| -> Result<u32, TestCaseError> {
        let poll = reader.poll(&mut |offset, into| memory.read(offset, into, speed));
        let mut lost = poll.lost;
        for line in poll.lines {
            let number = usize::try_from(line.number).unwrap();
            prop_assert!(number < lengths.len(), "line {} was never logged", number);
            prop_assert_eq!(&line, &sent(number, lengths[number]));
            prop_assert!(line.number >= *next, "line {} came after line {}", line.number, *next);
            prop_assert!(lost >= line.number - *next, "a line is missing and not counted");
            lost -= line.number - *next;
            *next = line.number + 1;
        }
        prop_assert_eq!(lost, 0, "lines are said to be lost that are not");
        Ok(poll.lost)
    };
    for (number, length) in lengths.iter().enumerate() {
        ring.append(&Line::new(Level::Info, format_args!("{}", text(number, *length))));
        if polls[number % polls.len()] {
            check(&mut reader, &mut next, speed)?;
        }
    }
    // VTL1 rests: everything arrives, and nothing is left out.
    memory.0.lock().unwrap().arrive(usize::MAX);
    check(&mut reader, &mut next, 0)?;
    prop_assert_eq!(next as usize, lengths.len(), "the newest line has not been found");
    prop_assert_eq!(check(&mut reader, &mut next, 0)?, 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_torn_look_never_gives_a_line_that_was_not_logged(
        lengths in proptest::collection::vec(0_usize..150, 1..200),
        polls in proptest::collection::vec(any::<bool>(), 1..40),
        seed in any::<u64>(),
        speed in 0_usize..2000,
        in_order in any::<bool>(),
    ) {
        play(&lengths, &polls, seed, speed, in_order)?;
    }

    /// A late reader gets what is left, which is at least the ring but two records and the end mark.
    #[test]
    fn a_late_reader_finds_the_newest_lines(lengths in proptest::collection::vec(0_usize..150, 1..300)) {
        let memory = Memory::new(1, true);
        let mut ring = LogRing::new(Box::new(memory.clone()), SIZE);
        for (number, length) in lengths.iter().enumerate() {
            ring.append(&Line::new(Level::Info, format_args!("{}", text(number, *length))));
        }
        memory.0.lock().unwrap().arrive(usize::MAX);
        let poll = LogReader::new(SIZE).poll(&mut |offset, into| memory.read(offset, into, 0));
        let bytes = |number: usize| sent(number, lengths[number]).text.len() + 39;
        let mut room = SIZE - 18;
        let fitting = (0..lengths.len()).rev().take_while(|number| {
            let fits = bytes(*number) <= room;
            room = room.saturating_sub(bytes(*number));
            fits
        }).count();
        prop_assert_eq!(poll.lines.len(), fitting);
        prop_assert_eq!(poll.lost as usize, lengths.len() - fitting);
        for (line, number) in poll.lines.iter().rev().zip((0..lengths.len()).rev()) {
            prop_assert_eq!(line, &sent(number, lengths[number]));
        }
    }

    /// Memory that is no ring, or a damaged one, gives no line and ends.
    #[test]
    fn garbage_gives_nothing(seed in any::<u64>()) {
        let mut random = SplitMix(seed);
        // Many marks, digits and line ends.
        let alphabet = b"\x1e\x1d0123456789abcdef \nIW";
        let garbage: Vec<u8> = (0..SIZE).map(|_| alphabet[roll(&mut random, alphabet.len())]).collect();
        let mut read = |offset: usize, into: &mut [u8]| into.copy_from_slice(&garbage[offset..offset + into.len()]);
        prop_assert_eq!(LogReader::new(SIZE).poll(&mut read), vsm_sim::vtl0::log_reader::Poll::default());
    }
}

#[test]
fn the_longest_lines_wrap_at_every_place() {
    for length in 0..MAX_TEXT {
        let lengths: Vec<usize> = (0..40).map(|index| (length + index * 7) % 160).collect();
        play(&lengths, &[true], length as u64, 0, true).unwrap();
    }
}

#[test]
fn a_reader_before_the_writer_waits() {
    let memory = Memory::new(1, true);
    let mut reader = LogReader::new(SIZE);
    let mut poll = || reader.poll(&mut |offset, into| memory.read(offset, into, 0));
    assert_eq!(poll().lines, []);
    let mut ring = LogRing::new(Box::new(memory.clone()), SIZE);
    memory.0.lock().unwrap().arrive(usize::MAX);
    assert_eq!(poll().lines, []);
    ring.append(&Line::new(Level::Panic, format_args!("the end")));
    memory.0.lock().unwrap().arrive(usize::MAX);
    let poll = poll();
    assert_eq!((poll.lost, poll.lines.len()), (0, 1));
    assert_eq!(poll.lines[0].on_console(), "vtl1: panic: the end");
}
