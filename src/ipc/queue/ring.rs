//! The ring of a queue: where a message lies, how two ends follow from each other, and what of that can be believed. Decides nothing about
//! time, locks or sleep. Makes no system call and touches memory only through [`Memory`], so it is tested from memory.
//!
//! A ring has a power of two of units of 8 bytes. A message is a header of one unit, its length and the lower bits of its number, and then
//! its bytes, filled up to whole units. A header never wraps around, bytes may. Both [ends](End) of the ring are one word each, with the number
//! of messages that have passed there: so one store publishes a message and counts it.
//!
//! Others can write to this memory. So nothing that is read from it is a length or a place before it has been compared with what can be.

/// A unit in bytes, and the size of a header.
pub(super) const UNIT: usize = 8;
/// The largest ring: a gibibyte.
pub(super) const UNITS_MAX: u32 = 1 << 27;

/// The bytes of a ring.
pub(super) trait Memory {
    fn copy_in(&self, offset: usize, from: &[u8]);
    fn copy_out(&self, offset: usize, to: &mut [u8]);
}

/// How far one side of a queue has come since it was made, as a word: where it is, and how many messages have passed.
///
/// | bits | |
/// |---|---|
/// | 0 to 31 | units, modulo 2³² |
/// | 32 to 62 | messages, modulo 2³¹ |
/// | 63 | at the end where messages are put: closed, nothing comes any more |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End(u64);

pub(super) const CLOSED: u64 = 1 << 63;
const COUNTS: u32 = 1 << 31;

impl End {
    pub(super) fn from_word(word: u64) -> End {
        End(word)
    }

    pub(super) fn word(self) -> u64 {
        self.0
    }

    pub(super) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// The number of the next message here, modulo 2³¹.
    pub(super) fn count(self) -> u32 {
        (self.0 >> 32) as u32 % COUNTS
    }

    fn units(self) -> u32 {
        self.0 as u32
    }

    fn further(self, units: u32, messages: u32) -> End {
        let count = self.count().wrapping_add(messages) % COUNTS;
        End(self.0 & CLOSED | u64::from(count) << 32 | u64::from(self.units().wrapping_add(units)))
    }
}

/// How many messages there are from one count to another.
pub(super) fn messages_between(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) % COUNTS
}

/// What lies between the two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) messages: u32,
    pub(super) units: u32,
}

/// What was read cannot be: somebody has written to the memory who does not know the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Corrupt {
    /// So many messages in so many units, of so many that there are.
    Ends { messages: u32, units: u32, of: u32 },
    /// A header that says so many bytes, where so many units are full, and which number it has and should have.
    Header { length: u32, full: u32, number: u32, expected: u32 },
}

impl std::fmt::Display for Corrupt {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Corrupt::Ends { messages, units, of } => {
                write!(out, "{messages} messages in {units} units of {of}, which cannot be")
            }
            Corrupt::Header { length, full, number, expected } => {
                write!(out, "message {number} of {length} bytes instead of message {expected} in {full} units at most")
            }
        }
    }
}

/// How many units a message of this length takes.
pub(super) fn units_for(length: usize) -> Option<u32> {
    let units = length.div_ceil(UNIT).checked_add(1)?;
    u32::try_from(units).ok().filter(|units| *units <= UNITS_MAX)
}

/// What lies in a ring of so many units with these ends.
pub(super) fn content(head: End, tail: End, units: u32) -> Result<Content, Corrupt> {
    let content = Content {
        messages: messages_between(head.count(), tail.count()),
        units: tail.units().wrapping_sub(head.units()),
    };
    // Each message takes a unit at least.
    let agrees = content.messages <= content.units && (content.messages == 0) == (content.units == 0);
    if content.units <= units && agrees {
        return Ok(content);
    }
    Err(Corrupt::Ends { messages: content.messages, units: content.units, of: units })
}

/// The memory of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring<M> {
    memory: M,
    units: u32,
}

impl<M: Memory> Ring<M> {
    /// The memory has so many units, a power of two.
    pub(super) fn new(memory: M, units: u32) -> Ring<M> {
        Ring { memory, units }
    }

    /// Writes a message behind `tail`, where the caller has made sure that there is room. The tail behind it.
    pub(super) fn write(&self, tail: End, bytes: &[u8]) -> Option<End> {
        let units = units_for(bytes.len()).filter(|units| *units <= self.units)?;
        let header = u64::from(tail.count()) << 32 | bytes.len() as u64;
        self.memory.copy_in(self.place(tail.units()), &header.to_ne_bytes());
        let start = self.place(tail.units().wrapping_add(1));
        let (first, rest) = bytes.split_at(bytes.len().min(self.size() - start));
        self.memory.copy_in(start, first);
        self.memory.copy_in(0, rest);
        Some(tail.further(units, 1))
    }

    /// Appends the message at `head` to `bytes`. The head behind it.
    pub(super) fn read(&self, head: End, content: Content, bytes: &mut Vec<u8>) -> Result<End, Corrupt> {
        let mut header = [0; UNIT];
        self.memory.copy_out(self.place(head.units()), &mut header);
        let header = u64::from_ne_bytes(header);
        let (number, length) = ((header >> 32) as u32, header as u32);
        let corrupt = Corrupt::Header { length, full: content.units, number, expected: head.count() };
        let size = length as usize;
        // Each of the others takes a unit at least, and the last one all that is left.
        let others = content.messages.saturating_sub(1);
        let most = content.units.saturating_sub(others).min(self.units);
        let fits = |units: &u32| *units <= most && (others > 0 || *units == most);
        let units = units_for(size).filter(|units| number == head.count() && fits(units)).ok_or(corrupt)?;
        let before = bytes.len();
        bytes.resize(before + size, 0);
        let start = self.place(head.units().wrapping_add(1));
        if let Some(to) = bytes.get_mut(before..) {
            let (first, rest) = to.split_at_mut(size.min(self.size() - start));
            self.memory.copy_out(start, first);
            self.memory.copy_out(0, rest);
        }
        Ok(head.further(units, 1))
    }

    fn place(&self, units: u32) -> usize {
        (units & (self.units - 1)) as usize * UNIT
    }

    fn size(&self) -> usize {
        self.units as usize * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    impl Memory for &RefCell<Vec<u8>> {
        fn copy_in(&self, offset: usize, from: &[u8]) {
            self.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
        }

        fn copy_out(&self, offset: usize, to: &mut [u8]) {
            to.copy_from_slice(&self.borrow()[offset..offset + to.len()]);
        }
    }

    /// The same numbers in every run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 20) % limit
        }
    }

    const UNITS: u32 = 16;

    #[test]
    fn a_ring_is_a_line_of_messages() {
        for seed in 1..200 {
            let (mut dice, memory) = (Dice(seed), RefCell::new(vec![0xee; UNITS as usize * UNIT]));
            let ring = Ring::new(&memory, UNITS);
            // Close to where units and messages begin anew.
            let mut tail = End((u64::from(COUNTS) - 40) << 32 | u64::from(u32::MAX - 30));
            let (mut head, mut line) = (tail, VecDeque::new());
            for _ in 0..400 {
                let here = content(head, tail, UNITS).unwrap();
                assert_eq!(here.messages as usize, line.len());
                let limit = if dice.below(4) == 0 { 130 } else { 20 };
                let length = dice.below(limit) as usize;
                let fits = units_for(length).is_some_and(|units| here.units + units <= UNITS);
                if dice.below(2) == 0 && fits {
                    let bytes: Vec<u8> = (0..length).map(|_| dice.below(256) as u8).collect();
                    tail = ring.write(tail, &bytes).unwrap();
                    line.push_back(bytes);
                } else if let Some(expected) = line.pop_front() {
                    let mut bytes = b"before".to_vec();
                    head = ring.read(head, here, &mut bytes).unwrap();
                    assert_eq!(bytes.strip_prefix(b"before"), Some(expected.as_slice()));
                }
            }
            assert!(!tail.is_closed());
        }
    }

    #[test]
    fn the_largest_message_fills_the_ring() {
        let memory = RefCell::new(vec![0; UNITS as usize * UNIT]);
        let ring = Ring::new(&memory, UNITS);
        let largest = vec![7; (UNITS as usize - 1) * UNIT];
        for start in 0..UNITS {
            let head = End(start.into());
            let tail = ring.write(head, &largest).unwrap();
            let full = content(head, tail, UNITS).unwrap();
            assert_eq!(full, Content { messages: 1, units: UNITS });
            let mut bytes = Vec::new();
            assert_eq!(ring.read(head, full, &mut bytes).unwrap(), tail);
            assert_eq!(bytes, largest);
            assert_eq!(ring.write(head, &[largest.as_slice(), b"x"].concat()), None);
        }
        assert_eq!((units_for(usize::MAX), units_for(u32::MAX as usize)), (None, None));
    }

    #[test]
    fn closed_stays_closed_and_counts_nothing() {
        let closed = End(CLOSED | (u64::from(COUNTS) - 1) << 32 | 5);
        let next = closed.further(2, 1);
        assert!(next.is_closed());
        assert_eq!((next.count(), next.units()), (0, 7));
        assert_eq!(content(End(u64::from(COUNTS - 1) << 32 | 5), next, 16).unwrap(), Content { messages: 1, units: 2 });
    }

    /// Whatever stands in the memory: an error or a message, no panic, and never more bytes than the ring has.
    #[test]
    fn nothing_is_believed() {
        let mut dice = Dice(42);
        let (mut messages, mut errors) = (0, 0);
        for _ in 0..200_000 {
            let memory = RefCell::new((0..UNITS as usize * UNIT).map(|_| dice.below(256) as u8).collect::<Vec<_>>());
            let ring = Ring::new(&memory, UNITS);
            let head = End(dice.below(u64::MAX));
            let tail =
                End(if dice.below(2) == 0 { dice.below(u64::MAX) } else { head.further(dice.below(20) as u32, 1).0 });
            if dice.below(2) == 0 {
                let header = u64::from(head.count()) << 32 | dice.below(200);
                (&memory).copy_in(ring.place(head.units()), &header.to_ne_bytes());
            }
            let mut bytes = Vec::new();
            match content(head, tail, UNITS).and_then(|here| ring.read(head, here, &mut bytes)) {
                Ok(next) => {
                    messages += 1;
                    assert!(content(next, tail, UNITS).is_ok(), "{head:?} {next:?} {tail:?}");
                }
                Err(corrupt) => {
                    errors += 1;
                    assert!(!corrupt.to_string().is_empty());
                }
            }
            assert!(bytes.capacity() <= UNITS as usize * UNIT);
        }
        assert!(messages > 1000 && errors > 1000, "{messages} {errors}");
    }
}
