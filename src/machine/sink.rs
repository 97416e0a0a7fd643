//! What was read of one stream: what is kept, handed out, spilled or dropped, and how the memory for it grows.

use super::{TURN_MAX, Trouble};
use crate::command::{CONTEXT, Limit, Overflow};
use crate::output::{Captured, Completeness, ProcessEntry};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    NotCaptured,
    Open,
    Ended,
    CutOff(Vec<ProcessEntry>),
}

/// What is kept of a stream: a beginning, and behind a gap an end. Of a live stream only the end is kept, and with it whatever
/// nobody has taken yet.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) state: State,
    pub(super) head: Vec<u8>,
    pub(super) tail: Vec<u8>,
    pub(super) head_max: usize,
    pub(super) tail_max: usize,
    /// How much is read at a time beyond the beginning.
    pub(super) read_max: usize,
    pub(super) total: u64,
    pub(super) dropped: u64,
    /// What was dropped stood before everything that is kept.
    pub(super) dropped_first: bool,
    /// What is read now is shown to somebody as well.
    pub(super) shown: bool,
    /// Something was dropped that nobody was shown.
    pub(super) lost: bool,
    /// A line end may be half taken: a `\n` that comes next is the other half.
    pub(super) after_return: bool,
    pub(super) fails: bool,
    pub(super) overflowed: bool,
    pub(super) live: Option<Live>,
    pub(super) spill: Option<Spill>,
    /// Up to which length the memory of the beginning was in use before.
    pub(super) used: usize,
}

/// How much at the end nobody has taken, and how much of that there may be.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) unread: usize,
    pub(super) unread_max: usize,
}

#[derive(Debug)]
pub(super) struct Spill {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) begun: bool,
    /// Up to which place in the stream the file has it.
    pub(super) written: u64,
}

/// The first reads want little memory, later ones as much as has been read; a turn ends after this much.
pub(super) const READ_MIN: usize = 16 * 1024;
pub(super) const READ_MAX: usize = 1024 * 1024;
/// What is not kept is read into the same memory again, which should fit a cache.
pub(super) const TAIL_READ_MIN: usize = 64 * 1024;
pub(super) const TAIL_READ_MAX: usize = 256 * 1024;
/// A read that brought less than this has most likely emptied the pipe: asking again would cost a call for nothing.
pub(super) const WORTH_ASKING_AGAIN: usize = 16 * 1024;

impl Sink {
    pub(super) fn new(limit: Option<&Limit>) -> Sink {
        let mut sink = Sink {
            state: if limit.is_some() { State::Open } else { State::NotCaptured },
            head: Vec::new(),
            tail: Vec::new(),
            head_max: 0,
            tail_max: 0,
            read_max: TAIL_READ_MIN,
            total: 0,
            dropped: 0,
            dropped_first: false,
            shown: false,
            lost: false,
            after_return: false,
            fails: false,
            overflowed: false,
            live: None,
            spill: None,
            used: 0,
        };
        if let Some(limit) = limit {
            sink.limit(limit);
        }
        sink
    }

    fn limit(&mut self, limit: &Limit) {
        let all = limit.bytes_max;
        (self.head_max, self.tail_max) = match limit.overflow {
            Overflow::Fail | Overflow::Head | Overflow::Spill(_) => (all, 0),
            Overflow::Tail => (0, all),
            Overflow::HeadTail => (all - all / 2, all / 2),
        };
        self.fails = limit.overflow == Overflow::Fail;
    }

    pub(super) fn keep(&mut self, limit: &Limit) {
        if self.state == State::NotCaptured {
            return;
        }
        let was_live = match self.live.take() {
            Some(live) => {
                let taken = self.tail.len() - live.unread;
                self.tail.drain(..taken);
                self.dropped += taken as u64;
                true
            }
            None => {
                self.trim();
                false
            }
        };
        self.shown = false;
        let before = (self.head_max, self.tail_max);
        self.limit(limit);
        if before != (self.head_max, self.tail_max) {
            self.refit();
        }
        if was_live {
            // What was too much to be left unread need not be too much to be kept.
            self.overflowed = self.fails && !self.tail.is_empty();
        }
    }

    /// What was kept by another rule is divided into a beginning and an end anew.
    fn refit(&mut self) {
        let is_one = self.dropped == 0 || self.dropped_first || self.head.is_empty();
        if !is_one {
            // The gap stays where it is: what exceeds the beginning stood before it.
            let excess = self.head.len().saturating_sub(self.head_max);
            self.head.truncate(self.head_max);
            self.dropped += excess as u64;
            self.lost |= excess > 0;
            return;
        }
        self.dropped_first = self.dropped > 0;
        if self.head.is_empty() {
            std::mem::swap(&mut self.head, &mut self.tail);
        } else {
            self.head.append(&mut self.tail);
        }
        if self.spill.is_some() {
            // What a file is to have stays at the beginning until it is there.
        } else if self.head_max == 0 {
            std::mem::swap(&mut self.head, &mut self.tail);
        } else if self.head.len() > self.head_max {
            self.tail = self.head.split_off(self.head_max);
        }
    }

    pub(super) fn hand_out(&mut self, unread_max: usize) {
        if self.state == State::NotCaptured {
            return;
        }
        match &mut self.live {
            Some(live) => live.unread_max = unread_max,
            None => {
                self.trim();
                self.head.append(&mut self.tail);
                self.tail = std::mem::take(&mut self.head);
                self.live = Some(Live { unread: self.tail.len(), unread_max });
            }
        }
        (self.head_max, self.tail_max) = (0, CONTEXT);
        self.fails = false;
        self.shown = true;
        self.overflowed = self.unread().len() > unread_max;
    }

    pub(super) fn unread(&self) -> &[u8] {
        let count = self.live.as_ref().map_or(0, |live| live.unread);
        self.tail.get(self.tail.len() - count..).unwrap_or_default()
    }

    pub(super) fn read(
        &mut self,
        mut read: impl FnMut(&mut Vec<u8>, usize) -> io::Result<usize>,
    ) -> Result<(), Trouble> {
        let mut taken = 0;
        while self.state == State::Open && taken < TURN_MAX && !self.overflowed {
            let count = match self.read_once(&mut read) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Trouble::Read(error)),
            };
            self.total += count as u64;
            self.spill_what_is_over()?;
            match count {
                0 => self.state = State::Ended,
                // What is handed out is wanted while it is in the cache.
                count if count < WORTH_ASKING_AGAIN || self.live.is_some() => break,
                count => taken += count,
            }
        }
        Ok(())
    }

    fn read_once(&mut self, read: impl FnOnce(&mut Vec<u8>, usize) -> io::Result<usize>) -> io::Result<usize> {
        let room = self.head_max.saturating_sub(self.head.len());
        if room > 0 {
            let wanted = self.head.len().clamp(READ_MIN, READ_MAX).min(room);
            self.head.reserve(wanted);
            let spare = self.head.capacity() - self.head.len();
            let before = self.head.len();
            let count = read(&mut self.head, spare.min(READ_MAX).min(room))?;
            self.dropped += self.skip_half(before, false) as u64;
            return Ok(count);
        }
        // The beginning is full: what comes now goes to the end, or is counted. Moving the end down each time would cost more
        // than letting it grow to twice its size.
        if self.tail.len() > self.tail_kept().saturating_mul(2).max(READ_MIN) {
            self.trim();
        }
        self.tail.reserve(self.read_max);
        let before = self.tail.len();
        let count = read(&mut self.tail, self.read_max)?;
        let skipped = self.skip_half(before, true);
        if count == self.read_max {
            self.read_max = (count * 2).min(TAIL_READ_MAX);
        }
        if let Some(live) = &mut self.live {
            live.unread += count - skipped;
            self.overflowed = live.unread > live.unread_max;
        } else {
            self.dropped += skipped as u64;
        }
        self.overflowed |= self.fails && count > 0;
        Ok(count)
    }

    /// The second half of a line end whose first half was taken is nobody's. Says how many bytes that were; of a live stream they
    /// stay with what was taken.
    fn skip_half(&mut self, before: usize, to_tail: bool) -> usize {
        let bytes = if to_tail { &mut self.tail } else { &mut self.head };
        let Some(&first) = bytes.get(before) else { return 0 };
        let skips = std::mem::take(&mut self.after_return) && first == b'\n';
        if skips && self.live.is_none() {
            bytes.remove(before);
        }
        usize::from(skips)
    }

    /// Writes to the file what came beyond the limit, and at first what came before. From then on the file gets everything, also what
    /// is handed out and what fits the memory again.
    fn spill_what_is_over(&mut self) -> Result<(), Trouble> {
        let Some(spill) = &mut self.spill else { return Ok(()) };
        let handed_out = self.live.is_some();
        let is_over = !self.tail.is_empty() || self.head.len() > self.head_max;
        if !spill.begun && (handed_out || !is_over) {
            return Ok(());
        }
        let kept = self.head.len() + self.tail.len();
        let new = if spill.begun { usize::try_from(self.total - spill.written).unwrap_or(kept) } else { kept };
        // Half of a line end that is nobody's is part of the stream all the same.
        let half: &[u8] = if new > kept { b"\n" } else { b"" };
        let of_tail = new.min(self.tail.len());
        let of_head = (new - of_tail).min(self.head.len());
        let (_, head) = self.head.split_at(self.head.len() - of_head);
        let (_, tail) = self.tail.split_at(self.tail.len() - of_tail);
        let written = [half, head, tail].into_iter().try_for_each(|bytes| spill.file.write_all(bytes));
        (spill.begun, spill.written) = (true, self.total);
        written.map_err(|error| Trouble::Spill(spill.path.clone(), error))?;
        if !handed_out {
            self.tail.clear();
            self.head.truncate(self.head_max);
        }
        Ok(())
    }

    /// How much of the end must stay.
    fn tail_kept(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.unread).max(self.tail_max)
    }

    /// Drops what the end need not keep.
    fn trim(&mut self) {
        let excess = self.tail.len().saturating_sub(self.tail_kept());
        self.tail.drain(..excess);
        self.dropped += excess as u64;
        self.lost |= excess > 0 && !self.shown;
    }

    fn completeness(&self) -> Completeness {
        match &self.state {
            State::NotCaptured => Completeness::NotCaptured,
            State::Open => Completeness::Open,
            State::Ended => Completeness::Complete,
            State::CutOff(holders) => Completeness::CutOff { holders: holders.clone() },
        }
    }

    pub(super) fn snapshot(&self) -> Captured {
        let excess = self.tail.len().saturating_sub(self.tail_kept());
        let mut bytes = Vec::with_capacity(self.head.len() + self.tail.len() - excess);
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(self.tail.get(excess..).unwrap_or_default());
        let lost = self.lost || (excess > 0 && !self.shown);
        Captured { lost, ..self.captured(bytes, self.dropped + excess as u64) }
    }

    pub(super) fn into_captured(mut self) -> Captured {
        self.trim();
        let mut bytes = std::mem::take(&mut self.head);
        let gap = if self.dropped_first { 0 } else { bytes.len() };
        let captured = self.captured(Vec::new(), self.dropped);
        let gap = captured.gap.map(|_| gap);
        if bytes.is_empty() {
            bytes = self.tail;
        } else {
            bytes.extend_from_slice(&self.tail);
        }
        Captured { bytes, gap, ..captured }
    }

    fn captured(&self, bytes: Vec<u8>, dropped: u64) -> Captured {
        let gap = (dropped > 0).then_some(if self.dropped_first { 0 } else { self.head.len() });
        let spilled = self.spill.as_ref().filter(|spill| spill.begun).map(|spill| spill.path.clone());
        let completeness = self.completeness();
        Captured { bytes, total: self.total, dropped, gap, completeness, lost: self.lost, spilled }
    }
}
