//! What was read of one stream: what is kept, handed out, spilled or dropped, and how the memory for it grows. A stream that has said
//! nothing is a few words long.

use super::{TURN_MAX, Trouble};
use crate::command::{CONTEXT, Limit, Overflow};
use crate::output::{Captured, Completeness, ProcessEntry};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    NotCaptured,
    Open,
    Ended,
    CutOff,
}

/// What becomes of what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// More than the limit is a failure.
    Fail,
    Head,
    Tail,
    HeadTail,
    /// It is handed out; the limit is that of what nobody has taken.
    Live,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) state: State,
    rule: Rule,
    /// What is read now is shown to somebody as well.
    pub(super) shown: bool,
    bytes_max: usize,
    kept: Option<Box<Kept>>,
}

/// What is kept of a stream: a beginning, and behind a gap an end. Of a live stream only the end is kept, and with it whatever
/// nobody has taken yet.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) head: Vec<u8>,
    pub(super) tail: Vec<u8>,
    /// How much at the end of a live stream nobody has taken.
    pub(super) unread: usize,
    /// How much is read at a time beyond the beginning.
    read_max: usize,
    pub(super) total: u64,
    pub(super) dropped: u64,
    /// What was dropped stood before everything that is kept.
    dropped_first: bool,
    /// Something was dropped that nobody was shown.
    lost: bool,
    /// A line end may be half taken: a `\n` that comes next is the other half.
    pub(super) after_return: bool,
    pub(super) overflowed: bool,
    pub(super) spill: Option<Spill>,
    /// Up to which length the memory of the beginning was in use before, if it is somebody else's.
    pub(super) lent: Option<usize>,
    /// Who kept the pipe open when reading was given up.
    holders: Vec<ProcessEntry>,
    /// When one of the streams was read last.
    pub(super) heard: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Spill {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) begun: bool,
    /// Up to which place in the stream the file has it.
    pub(super) written: u64,
}

/// Most children say little, and there may be thousands of them: what is read first is read into memory for the moment, and as much as
/// came is kept. Later reads want as much as has been read, and a turn ends after this much.
pub(super) const READ_MIN: usize = 16 * 1024;
pub(super) const READ_MAX: usize = 1024 * 1024;
thread_local! {
    /// Where the first words of a stream are read. Most outputs are short: their records hold what was said and not what might have been,
    /// and no memory is asked for by a stream that says nothing.
    static FIRST_WORDS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What is not kept is read into the same memory again, which should fit a cache.
pub(super) const TAIL_READ_MAX: usize = 256 * 1024;
/// A read that brought less than this, and less than it could, has most likely emptied the pipe: asking again would cost a call for
/// nothing.
pub(super) const WORTH_ASKING_AGAIN: usize = 16 * 1024;

impl Default for Kept {
    fn default() -> Kept {
        Kept {
            head: Vec::new(),
            tail: Vec::new(),
            unread: 0,
            read_max: READ_MIN,
            total: 0,
            dropped: 0,
            dropped_first: false,
            lost: false,
            after_return: false,
            overflowed: false,
            spill: None,
            lent: None,
            holders: Vec::new(),
            heard: None,
        }
    }
}

impl Sink {
    pub(super) fn new(limit: Option<&Limit>) -> Sink {
        let state = if limit.is_some() { State::Open } else { State::NotCaptured };
        let mut sink = Sink { state, rule: Rule::Head, shown: false, bytes_max: 0, kept: None };
        if let Some(limit) = limit {
            sink.limit(limit);
        }
        sink
    }

    /// What is kept of it, if it has said anything.
    pub(super) fn kept(&self) -> Option<&Kept> {
        self.kept.as_deref()
    }

    pub(super) fn kept_mut(&mut self) -> &mut Kept {
        self.kept.get_or_insert_default()
    }

    pub(super) fn is_live(&self) -> bool {
        self.rule == Rule::Live
    }

    /// How much there may be at the beginning, and at the end.
    fn room(&self) -> (usize, usize) {
        let all = self.bytes_max;
        match self.rule {
            Rule::Fail | Rule::Head => (all, 0),
            Rule::Tail => (0, all),
            Rule::HeadTail => (all - all / 2, all / 2),
            Rule::Live => (0, CONTEXT),
        }
    }

    fn limit(&mut self, limit: &Limit) {
        self.bytes_max = limit.bytes_max;
        self.rule = match limit.overflow {
            Overflow::Fail => Rule::Fail,
            Overflow::Head | Overflow::Spill(_) => Rule::Head,
            Overflow::Tail => Rule::Tail,
            Overflow::HeadTail => Rule::HeadTail,
        };
    }

    pub(super) fn keep(&mut self, limit: &Limit) {
        if self.state == State::NotCaptured {
            return;
        }
        let (before, was_live, shown) = (self.room(), self.is_live(), std::mem::take(&mut self.shown));
        self.limit(limit);
        let (room, fails) = (self.room(), self.rule == Rule::Fail);
        let Some(kept) = &mut self.kept else { return };
        if was_live {
            kept.drop_taken();
        } else {
            let (_, tail_max) = before;
            kept.trim(tail_max, shown);
        }
        if before != room {
            kept.refit(room);
        }
        if was_live {
            // What was too much to be left unread need not be too much to be kept.
            kept.overflowed = fails && !kept.tail.is_empty();
        }
    }

    pub(super) fn hand_out(&mut self, unread_max: usize) {
        if self.state == State::NotCaptured {
            return;
        }
        let (_, tail_max) = self.room();
        if !self.is_live()
            && let Some(kept) = &mut self.kept
        {
            kept.trim(tail_max, self.shown);
            kept.head.append(&mut kept.tail);
            kept.tail = std::mem::take(&mut kept.head);
            kept.unread = kept.tail.len();
        }
        (self.rule, self.bytes_max, self.shown) = (Rule::Live, unread_max, true);
        self.judge_unread();
    }

    pub(super) fn unread(&self) -> &[u8] {
        self.kept().and_then(|kept| kept.tail.get(kept.tail.len() - kept.unread..)).unwrap_or_default()
    }

    /// Takes so many bytes of what is unread.
    pub(super) fn take(&mut self, count: usize) {
        if let Some(kept) = self.kept.as_mut().filter(|_| self.rule == Rule::Live) {
            kept.unread = kept.unread.saturating_sub(count);
        }
        self.judge_unread();
    }

    /// So many bytes that were taken last, as long as nothing has been read since.
    pub(super) fn taken(&self, count: usize) -> &[u8] {
        let Some(kept) = self.kept() else { return &[] };
        let end = kept.tail.len() - kept.unread;
        kept.tail.get(end.saturating_sub(count)..end).unwrap_or_default()
    }

    /// Takes out the memory that what is unread stands in, from the place that is returned.
    pub(super) fn take_out(&mut self) -> (Vec<u8>, usize) {
        let live = self.is_live();
        let Some(kept) = self.kept.as_mut().filter(|_| live) else { return (Vec::new(), 0) };
        let tail = std::mem::take(&mut kept.tail);
        let start = tail.len() - std::mem::take(&mut kept.unread);
        (tail, start)
    }

    /// Puts it back; what stands from this place on is unread.
    pub(super) fn put_back(&mut self, memory: Vec<u8>, start: usize) {
        // Without memory nothing was taken out.
        if self.is_live() && memory.capacity() > 0 {
            let kept = self.kept_mut();
            kept.unread = memory.len() - start;
            kept.tail = memory;
            self.judge_unread();
        }
    }

    /// One of the streams was read, if it was this one.
    pub(super) fn heard_at(&mut self, moment: Instant) {
        if let Some(kept) = &mut self.kept {
            kept.heard = Some(moment);
        }
    }

    /// Whether more is unread than there may be.
    fn judge_unread(&mut self) {
        let max = self.bytes_max;
        if let Some(kept) = self.kept.as_mut().filter(|_| self.rule == Rule::Live) {
            kept.overflowed = kept.unread > max;
        }
    }

    /// Reading is given up.
    pub(super) fn cut_off(&mut self, holders: Vec<ProcessEntry>) {
        if self.state == State::Open {
            self.state = State::CutOff;
            if !holders.is_empty() {
                self.kept_mut().holders = holders;
            }
        }
    }

    pub(super) fn read(
        &mut self,
        mut read: impl FnMut(&mut Vec<u8>, usize) -> io::Result<usize>,
    ) -> Result<(), Trouble> {
        let (room, rule, unread_max, shown) = (self.room(), self.rule, self.bytes_max, self.shown);
        let (kept, mut taken) = (self.kept.get_or_insert_default(), 0);
        while self.state == State::Open && taken < TURN_MAX && !kept.overflowed {
            let (count, is_full) = match kept.read_once(room, rule, shown, &mut read) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Trouble::Read(error)),
            };
            kept.total += count as u64;
            if rule == Rule::Live {
                kept.overflowed = kept.unread > unread_max;
            }
            kept.spill_what_is_over(room, rule)?;
            match count {
                0 => self.state = State::Ended,
                // What is handed out is wanted while it is in the cache.
                _ if rule == Rule::Live => break,
                count if count < WORTH_ASKING_AGAIN && !is_full => break,
                count => taken += count,
            }
        }
        Ok(())
    }

    fn completeness(&self) -> Completeness {
        match self.state {
            State::NotCaptured => Completeness::NotCaptured,
            State::Open => Completeness::Open,
            State::Ended => Completeness::Complete,
            State::CutOff => {
                let holders = self.kept().map(|kept| kept.holders.clone()).unwrap_or_default();
                Completeness::CutOff { holders }
            }
        }
    }

    pub(super) fn snapshot(&self) -> Captured {
        let (completeness, (_, tail_max)) = (self.completeness(), self.room());
        let Some(kept) = self.kept() else { return Captured { completeness, ..Captured::default() } };
        let excess = kept.excess(tail_max);
        let mut bytes = Vec::with_capacity(kept.head.len() + kept.tail.len() - excess);
        bytes.extend_from_slice(&kept.head);
        bytes.extend_from_slice(kept.tail.get(excess..).unwrap_or_default());
        let lost = kept.lost || (excess > 0 && !self.shown);
        Captured { lost, completeness, ..kept.captured(bytes, kept.dropped + excess as u64) }
    }

    pub(super) fn into_captured(mut self) -> Captured {
        let (completeness, (_, tail_max)) = (self.completeness(), self.room());
        let Some(kept) = &mut self.kept else { return Captured { completeness, ..Captured::default() } };
        kept.trim(tail_max, self.shown);
        let captured = kept.captured(Vec::new(), kept.dropped);
        let mut bytes = std::mem::take(&mut kept.head);
        if bytes.is_empty() {
            bytes = std::mem::take(&mut kept.tail);
        } else {
            bytes.extend_from_slice(&kept.tail);
        }
        // Records are kept by the thousand.
        if kept.lent.is_none() && bytes.capacity() <= READ_MIN && bytes.len() * 2 <= bytes.capacity() {
            bytes.shrink_to_fit();
        }
        Captured { bytes, completeness, ..captured }
    }
}

/// Reads so much, or a little more, but not more than there is room for. Says how many bytes came, and how many could have come.
fn read_some(
    to: &mut Vec<u8>,
    wanted: usize,
    room: usize,
    read: impl FnOnce(&mut Vec<u8>, usize) -> io::Result<usize>,
) -> io::Result<(usize, usize)> {
    let spare = to.capacity() - to.len();
    if wanted > READ_MIN || spare >= wanted.min(room) {
        to.reserve(wanted.min(room));
        let most = (to.capacity() - to.len()).min(READ_MAX).min(room);
        return Ok((read(to, most)?, most));
    }
    let most = wanted.min(room);
    // Whoever reads another stream meanwhile, because he looks on at this one, finds none and makes his own; so does a thread that ends.
    let mut memory = FIRST_WORDS.try_with(Cell::take).unwrap_or_default();
    memory.clear();
    memory.reserve(most);
    let count = read(&mut memory, most);
    to.extend_from_slice(&memory);
    // What a filter has made of it may be larger, and is not kept for ever.
    memory.shrink_to(2 * READ_MIN);
    let _ = FIRST_WORDS.try_with(|kept| kept.set(memory));
    Ok((count?, most))
}

impl Kept {
    /// What somebody has taken is not kept any more.
    fn drop_taken(&mut self) {
        let taken = self.tail.len() - std::mem::take(&mut self.unread);
        self.tail.drain(..taken);
        self.dropped += taken as u64;
    }

    /// What was kept by another rule is divided into a beginning and an end anew.
    fn refit(&mut self, (head_max, _): (usize, usize)) {
        let is_one = self.dropped == 0 || self.dropped_first || self.head.is_empty();
        if !is_one {
            // The gap stays where it is: what exceeds the beginning stood before it.
            let excess = self.head.len().saturating_sub(head_max);
            self.head.truncate(head_max);
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
        } else if head_max == 0 {
            std::mem::swap(&mut self.head, &mut self.tail);
        } else if self.head.len() > head_max {
            self.tail = self.head.split_off(head_max);
        }
    }

    fn read_once(
        &mut self,
        (head_max, tail_max): (usize, usize),
        rule: Rule,
        shown: bool,
        read: impl FnOnce(&mut Vec<u8>, usize) -> io::Result<usize>,
    ) -> io::Result<(usize, bool)> {
        let (room, live) = (head_max.saturating_sub(self.head.len()), rule == Rule::Live);
        if room > 0 {
            let before = self.head.len();
            let (count, most) = read_some(&mut self.head, before.clamp(READ_MIN, READ_MAX), room, read)?;
            self.dropped += self.skip_half(before, false, live) as u64;
            return Ok((count, count == most));
        }
        // The beginning is full: what comes now goes to the end, or is counted. Moving the end down each time would cost more
        // than letting it grow to twice its size.
        if self.tail.len() > self.unread.max(tail_max).saturating_mul(2).max(READ_MIN) {
            self.trim(tail_max, shown);
        }
        let before = self.tail.len();
        let (count, most) = read_some(&mut self.tail, self.read_max, self.read_max, read)?;
        let skipped = self.skip_half(before, true, live);
        if count == most {
            self.read_max = (count * 4).min(TAIL_READ_MAX);
        }
        if live {
            self.unread += count - skipped;
        } else {
            self.dropped += skipped as u64;
        }
        self.overflowed |= rule == Rule::Fail && count > 0;
        Ok((count, count == most))
    }

    /// The second half of a line end whose first half was taken is nobody's. Says how many bytes that were; of a live stream they
    /// stay with what was taken.
    fn skip_half(&mut self, before: usize, to_tail: bool, live: bool) -> usize {
        let bytes = if to_tail { &mut self.tail } else { &mut self.head };
        let Some(&first) = bytes.get(before) else { return 0 };
        let skips = std::mem::take(&mut self.after_return) && first == b'\n';
        if skips && !live {
            bytes.remove(before);
        }
        usize::from(skips)
    }

    /// Writes to the file what came beyond the limit, and at first what came before. From then on the file gets everything, also what
    /// is handed out and what fits the memory again.
    fn spill_what_is_over(&mut self, (head_max, _): (usize, usize), rule: Rule) -> Result<(), Trouble> {
        let Some(spill) = &mut self.spill else { return Ok(()) };
        let handed_out = rule == Rule::Live;
        let is_over = !self.tail.is_empty() || self.head.len() > head_max;
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
            self.head.truncate(head_max);
        }
        Ok(())
    }

    /// How much of the end need not stay.
    fn excess(&self, tail_max: usize) -> usize {
        self.tail.len().saturating_sub(self.unread.max(tail_max))
    }

    /// Drops what the end need not keep.
    fn trim(&mut self, tail_max: usize, shown: bool) {
        let excess = self.excess(tail_max);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
        self.lost |= excess > 0 && !shown;
    }

    fn captured(&self, bytes: Vec<u8>, dropped: u64) -> Captured {
        let gap = (dropped > 0).then_some(if self.dropped_first { 0 } else { self.head.len() });
        let spilled = self.spill.as_ref().filter(|spill| spill.begun).map(|spill| spill.path.clone());
        let (total, lost) = (self.total, self.lost);
        Captured { bytes, total, dropped, gap, lost, spilled, ..Captured::default() }
    }
}
