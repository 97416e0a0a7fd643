//! A conversation with one child, as a passive machine: what is still to be written, what was read, what has ended. It makes no
//! system call; a driver tells it that an end is ready and lends it a function that transfers bytes. What is written is decided in
//! `feed`, what is kept and handed out in `sink`; here both sides meet, and the order in which pieces came is noted.

mod feed;
mod sink;

use crate::command::{Limit, Opened};
use crate::output::{Captured, Mark, ProcessEntry, Stream};
use feed::{Feed, Part};
use sink::{Sink, Spill, State};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// The conversation.
#[derive(Debug)]
pub(crate) struct Machine {
    feed: Feed,
    stdout: Sink,
    stderr: Sink,
    order: Option<Box<Order>>,
}

/// In which order pieces came.
#[derive(Debug, Default)]
struct Order {
    marks: Vec<Mark>,
    /// How often the streams were looked at.
    looks: u64,
}

/// One turn of reading or writing ends after this much, so that the other ends and the clock have theirs.
const TURN_MAX: usize = 1024 * 1024;
/// Beyond so many pieces those of one stream are no longer kept apart.
const MARKS_MAX: usize = 1 << 18;

/// Why no more could be read.
#[derive(Debug)]
pub(crate) enum Trouble {
    Read(io::Error),
    /// What memory does not hold could not be written to this file.
    Spill(PathBuf, io::Error),
}

impl Machine {
    /// For a child whose standard input may be a pipe of ours, and whose streams may be captured.
    pub(crate) fn new(stdin: bool, stdout: Option<&Limit>, stderr: Option<&Limit>) -> Machine {
        let feed = Feed::new(stdin);
        Machine { feed, stdout: Sink::new(stdout), stderr: Sink::new(stderr), order: None }
    }

    /// Adds input behind what is still to be written. False if the input has been ended already.
    pub(crate) fn add_input(&mut self, input: Opened) -> bool {
        if self.feed.open {
            self.feed.add(Part::new(input));
        }
        self.feed.open
    }

    /// Whether standard input stays open when everything has been written, because more may come.
    pub(crate) fn hold_input(&mut self, held: bool) {
        self.feed.held = held;
    }

    /// Whether there is something to write to standard input, or to close.
    pub(crate) fn wants_to_write(&self) -> bool {
        self.feed.open && !(self.feed.held && self.feed.is_empty())
    }

    /// Whether standard input is still open.
    pub(crate) fn input_is_open(&self) -> bool {
        self.feed.open
    }

    /// Whether the stream is still to be read.
    pub(crate) fn wants_to_read(&self, stream: Stream) -> bool {
        self.sink(stream).state == State::Open
    }

    /// Whether what is read is kept for the record, and nobody has it handed out meanwhile.
    pub(crate) fn collects(&self, stream: Stream) -> bool {
        !self.sink(stream).is_live()
    }

    /// Whether the stream was there and will bring no more.
    pub(crate) fn has_ended(&self, stream: Stream) -> bool {
        matches!(self.sink(stream).state, State::Ended | State::CutOff)
    }

    /// Whether everything has been written and read that there will be.
    pub(crate) fn is_done(&self) -> bool {
        !self.wants_to_write() && !self.wants_to_read_any()
    }

    /// Whether a stream is still to be read.
    pub(crate) fn wants_to_read_any(&self) -> bool {
        STREAMS.iter().any(|&stream| self.wants_to_read(stream))
    }

    /// The stream that exceeded its limit under [`Overflow::Fail`], if one did.
    pub(crate) fn overflowed(&self) -> Option<Stream> {
        STREAMS.into_iter().find(|&stream| self.sink(stream).kept().is_some_and(|kept| kept.overflowed))
    }

    /// Writes as much as the pipe takes. True if standard input is to be closed now: all is written, or nobody reads.
    pub(crate) fn write(&mut self, write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        self.feed.write(write)?;
        Ok(!self.feed.open)
    }

    /// No input can be written any more: the driver has closed the end.
    pub(crate) fn end_input(&mut self) {
        self.feed.refuse();
    }

    /// Reads as much as is there, up to a share that leaves other streams their turn. `read` appends at most so many bytes to
    /// the buffer and returns how many; 0 is the end of file. True if the stream has ended.
    pub(crate) fn read(
        &mut self,
        stream: Stream,
        read: impl FnMut(&mut Vec<u8>, usize) -> io::Result<usize>,
    ) -> Result<bool, Trouble> {
        let sink = self.sink_mut(stream);
        sink.read(read)?;
        Ok(sink.state != State::Open)
    }

    /// Reading is given up before the end of file.
    pub(crate) fn cut_off(&mut self, stream: Stream, holders: Vec<ProcessEntry>) {
        self.sink_mut(stream).cut_off(holders);
    }

    /// From now on everything is kept, by this rule; what nobody has taken of a live stream stands first.
    pub(crate) fn keep(&mut self, stream: Stream, limit: &Limit) {
        self.sink_mut(stream).keep(limit);
    }

    /// From now on the stream is handed out as it comes; what was kept of it until now comes first.
    pub(crate) fn hand_out(&mut self, stream: Stream, unread_max: usize) {
        self.sink_mut(stream).hand_out(unread_max);
    }

    /// What was read of a live stream and nobody has taken.
    pub(crate) fn unread(&self, stream: Stream) -> &[u8] {
        self.sink(stream).unread()
    }

    /// Takes so many bytes of what is unread.
    pub(crate) fn take(&mut self, stream: Stream, count: usize) {
        self.sink_mut(stream).take(count);
    }

    /// So many bytes that were taken last, as long as nothing has been read since.
    pub(crate) fn taken(&self, stream: Stream, count: usize) -> &[u8] {
        self.sink(stream).taken(count)
    }

    /// Takes out the memory that what is unread stands in, from the place that is returned, so that it can be looked at without asking
    /// here each time. Until it is put back nothing is unread.
    pub(crate) fn take_out(&mut self, stream: Stream) -> (Vec<u8>, usize) {
        self.sink_mut(stream).take_out()
    }

    /// Puts it back; what stands from this place on is unread.
    pub(crate) fn put_back(&mut self, stream: Stream, memory: Vec<u8>, start: usize) {
        self.sink_mut(stream).put_back(memory, start);
    }

    /// Takes all that is unread, with its memory.
    pub(crate) fn take_all(&mut self, stream: Stream) -> Vec<u8> {
        let (mut memory, start) = self.take_out(stream);
        if !memory.is_empty() {
            self.sink_mut(stream).kept_mut().dropped += memory.len() as u64;
        }
        memory.drain(..start);
        memory
    }

    /// A line that was taken ended with `\r`: if `\n` comes next it belongs to that, and nobody gets it.
    pub(crate) fn skip_newline(&mut self, stream: Stream) {
        let sink = self.sink_mut(stream);
        if sink.unread().starts_with(b"\n") {
            self.take(stream, 1);
        } else {
            let nothing_is_unread = sink.unread().is_empty();
            sink.kept_mut().after_return = nothing_is_unread;
        }
    }

    /// Whether a `\n` is to be [skipped](Self::skip_newline) if it is the next to be read.
    pub(crate) fn skips_newline(&self, stream: Stream) -> bool {
        self.sink(stream).kept().is_some_and(|kept| kept.after_return)
    }

    /// Memory to collect in, and to be found there at the end.
    pub(crate) fn lend(&mut self, stream: Stream, mut buffer: Vec<u8>) {
        let kept = self.sink_mut(stream).kept_mut();
        kept.lent = Some(buffer.len());
        buffer.clear();
        kept.head = buffer;
    }

    /// Up to which length the memory for what is read is known to have been written to before.
    pub(crate) fn used_memory(&self, stream: Stream) -> usize {
        self.sink(stream).kept().and_then(|kept| kept.lent).unwrap_or(0)
    }

    /// What is not kept of a stream is shown to somebody: nothing is lost.
    pub(crate) fn show(&mut self, stream: Stream) {
        self.sink_mut(stream).shown = true;
    }

    /// Where the whole stream is written to when memory holds no more.
    pub(crate) fn spill_to(&mut self, stream: Stream, path: PathBuf, file: File) {
        self.sink_mut(stream).kept_mut().spill = Some(Spill { path, file, begun: false, written: 0 });
    }

    /// Remembers in which order pieces come, from now on.
    pub(crate) fn remember_order(&mut self) {
        self.order.get_or_insert_default();
    }

    /// Both streams are looked at, as far as they are ready. What is read in one look is in no known order.
    pub(crate) fn begin_look(&mut self) {
        if let Some(order) = &mut self.order {
            order.looks += 1;
        }
    }

    /// A piece was read, at this time.
    pub(crate) fn mark(&mut self, stream: Stream, count: usize, at: Duration) {
        let Some(Order { marks, looks }) = self.order.as_deref_mut() else { return };
        let look = *looks;
        let full = marks.len() >= MARKS_MAX;
        let place = match marks.last() {
            Some(last) if last.stream == stream && last.look == look => marks.len().checked_sub(1),
            _ if full => marks.iter().rposition(|mark| mark.stream == stream),
            _ => None,
        };
        match place.and_then(|place| marks.get_mut(place)) {
            Some(mark) => mark.count += count as u64,
            None => marks.push(Mark { stream, count: count as u64, at, look }),
        }
    }

    /// Takes the order that was remembered.
    pub(crate) fn take_marks(&mut self) -> Vec<Mark> {
        self.order.take().map(|order| order.marks).unwrap_or_default()
    }

    /// The order that was remembered.
    pub(crate) fn marks(&self) -> &[Mark] {
        self.order.as_ref().map_or(&[], |order| &order.marks)
    }

    /// Nothing of the stream is kept, as if it had never come by us: it went elsewhere.
    pub(crate) fn forget(&mut self, stream: Stream) {
        if self.sink(stream).state != State::NotCaptured {
            *self.sink_mut(stream) = Sink::new(None);
            self.order.iter_mut().for_each(|order| order.marks.retain(|mark| mark.stream != stream));
        }
    }

    /// Whether there is no input left to be written. Of a reader that is not known before it has come to its end.
    pub(crate) fn input_is_written(&self) -> bool {
        self.feed.parts().all(|part| matches!(part, Part::Bytes { .. }) && part.waiting() == 0)
    }

    /// How much input waits to be written, as far as that is known.
    pub(crate) fn input_waiting(&self) -> usize {
        self.feed.parts().map(Part::waiting).sum()
    }

    /// How many bytes of input were taken, and whether some were refused.
    pub(crate) fn input(&self) -> (u64, bool) {
        (self.feed.accepted(), self.feed.refused)
    }

    /// What was collected until now, as a copy.
    pub(crate) fn snapshot(&self) -> [Captured; 2] {
        [self.stdout.snapshot(), self.stderr.snapshot()]
    }

    /// What was collected, without a copy.
    pub(crate) fn into_captured(self) -> [Captured; 2] {
        [self.stdout.into_captured(), self.stderr.into_captured()]
    }

    /// How much of a stream was read, and the last bytes of it, unless these are in a file.
    pub(crate) fn said(&self, stream: Stream, bytes_max: usize) -> (u64, Vec<u8>) {
        let Some(kept) = self.sink(stream).kept() else { return (0, Vec::new()) };
        let spilled = kept.spill.as_ref().is_some_and(|spill| spill.begun);
        let last = if kept.tail.is_empty() && !spilled { &kept.head } else { &kept.tail };
        let start = last.len().saturating_sub(bytes_max);
        (kept.total, last.get(start..).unwrap_or_default().to_vec())
    }

    /// How much was read of both streams.
    pub(crate) fn total(&self) -> u64 {
        [&self.stdout, &self.stderr].into_iter().filter_map(Sink::kept).map(|kept| kept.total).sum()
    }

    /// When output was read last; the driver says so once per wake-up.
    pub(crate) fn heard_at(&mut self, moment: Instant) {
        for sink in [&mut self.stdout, &mut self.stderr] {
            sink.heard_at(moment);
        }
    }

    /// When output was read last.
    pub(crate) fn heard(&self) -> Option<Instant> {
        [&self.stdout, &self.stderr].into_iter().filter_map(Sink::kept).filter_map(|kept| kept.heard).max()
    }

    fn sink(&self, stream: Stream) -> &Sink {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    fn sink_mut(&mut self, stream: Stream) -> &mut Sink {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::feed::READER_CHUNK;
    use super::sink::*;
    use super::*;
    use crate::command::{CONTEXT, Overflow};
    use crate::output::Completeness;
    use std::collections::VecDeque;
    use std::sync::Arc;

    fn machine(bytes_max: usize, overflow: Overflow) -> Machine {
        let limit = Limit { bytes_max, overflow };
        Machine::new(true, Some(&limit), Some(&limit))
    }

    /// A pipe end in memory: hands out `chunks`, then would block.
    fn give<'a>(chunks: &'a mut VecDeque<Vec<u8>>) -> impl FnMut(&mut Vec<u8>, usize) -> io::Result<usize> + 'a {
        |buffer, max| match chunks.pop_front() {
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(mut chunk) => {
                let rest = chunk.split_off(chunk.len().min(max));
                let count = chunk.len();
                if !rest.is_empty() {
                    chunks.push_front(rest);
                }
                buffer.extend_from_slice(&chunk);
                Ok(count)
            }
        }
    }

    /// Feeds a stream of `total` bytes in chunks of `size` and its end.
    fn run(machine: &mut Machine, total: usize, size: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..total).map(|i| (i % 251) as u8).collect();
        let mut chunks: VecDeque<Vec<u8>> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        chunks.push_back(Vec::new());
        while !chunks.is_empty() && machine.overflowed().is_none() {
            machine.read(Stream::Stdout, give(&mut chunks)).unwrap();
        }
        bytes
    }

    #[test]
    fn every_policy_keeps_what_it_promises_whatever_the_chunks() {
        for size in [1, 7, 100, 4096, 70_000] {
            for (total, max) in [(0, 10), (9, 10), (10, 10), (11, 10), (50_000, 999), (200_000, 150_000)] {
                for overflow in [Overflow::Head, Overflow::Tail, Overflow::HeadTail] {
                    let mut machine = machine(max, overflow.clone());
                    let bytes = run(&mut machine, total, size);
                    let [snapshot, _] = machine.snapshot();
                    let [captured, _] = machine.into_captured();
                    assert_eq!(snapshot.bytes, captured.bytes);
                    assert_eq!((snapshot.dropped, snapshot.gap), (captured.dropped, captured.gap));
                    let dropped = total.saturating_sub(max);
                    assert_eq!(captured.dropped, dropped as u64, "{overflow:?} {total} {max} {size}");
                    assert_eq!(captured.completeness, Completeness::Complete);
                    let head = match overflow {
                        _ if dropped == 0 => total,
                        Overflow::Head => max,
                        Overflow::Tail => 0,
                        _ => max - max / 2,
                    };
                    assert_eq!(captured.bytes[..head], bytes[..head]);
                    assert_eq!(captured.bytes[head..], bytes[head + dropped..]);
                    assert_eq!(captured.gap, (dropped > 0).then_some(head));
                }
            }
        }
    }

    #[test]
    fn failing_keeps_exactly_the_limit_and_a_full_stream_is_no_failure() {
        for size in [1, 3, 4096] {
            let mut full = machine(10, Overflow::Fail);
            run(&mut full, 10, size);
            assert_eq!(full.overflowed(), None);
            let mut over = machine(10, Overflow::Fail);
            let bytes = run(&mut over, 11, size);
            assert_eq!(over.overflowed(), Some(Stream::Stdout));
            let [captured, _] = over.into_captured();
            assert_eq!(captured.bytes, bytes[..10]);
        }
    }

    #[test]
    fn memory_is_bounded_by_the_policy() {
        for overflow in [Overflow::Head, Overflow::Tail, Overflow::HeadTail] {
            let mut machine = machine(1000, overflow.clone());
            run(&mut machine, 10_000_000, 65_536);
            let sink = machine.sink(Stream::Stdout).kept().unwrap();
            assert!(sink.head.capacity() + sink.tail.capacity() < 300_000, "{overflow:?}");
        }
    }

    #[test]
    fn input_is_written_in_order_across_refusals_to_take_more() {
        let mut machine = machine(10, Overflow::Fail);
        machine.add_input(Opened::Bytes(Arc::new(b"hello ".to_vec())));
        machine.add_input(Opened::Reader(Box::new(&b"big "[..])));
        machine.add_input(Opened::Bytes(Arc::new(b"world".to_vec())));
        let (mut written, mut turn) = (Vec::new(), 0);
        loop {
            let closed = machine
                .write(|bytes| {
                    turn += 1;
                    if turn % 2 == 0 {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    let count = bytes.len().min(2);
                    written.extend_from_slice(&bytes[..count]);
                    Ok(count)
                })
                .unwrap();
            if closed {
                break;
            }
        }
        assert_eq!(written, b"hello big world");
        assert_eq!(machine.input(), (15, false));
        assert!(!machine.wants_to_write());
        assert!(!machine.add_input(Opened::Bytes(Arc::new(Vec::new()))), "the end has been said");
    }

    #[test]
    fn one_turn_of_writing_is_bounded_and_asks_a_reader_once() {
        let mut machine = machine(10, Overflow::Fail);
        machine.add_input(Opened::Bytes(Arc::new(vec![0; 3 * TURN_MAX])));
        machine.add_input(Opened::Reader(Box::new(io::repeat(0))));
        for turn in 1..=3 {
            assert!(!machine.write(|bytes| Ok(bytes.len().min(65_536))).unwrap());
            assert_eq!(machine.input(), ((turn * TURN_MAX) as u64, false));
        }
        for turn in 1..=3 {
            assert!(!machine.write(|bytes| Ok(bytes.len())).unwrap());
            assert_eq!(machine.input(), ((3 * TURN_MAX + turn * READER_CHUNK) as u64, false));
        }
    }

    #[test]
    fn a_child_that_does_not_want_its_input_is_no_error() {
        let mut machine = machine(10, Overflow::Fail);
        machine.add_input(Opened::Bytes(Arc::new(vec![0; 10])));
        let mut first = true;
        let closed =
            machine.write(|_| if std::mem::take(&mut first) { Ok(4) } else { Err(io::ErrorKind::BrokenPipe.into()) });
        assert!(closed.unwrap());
        assert_eq!(machine.input(), (4, true));
    }

    #[test]
    fn a_spill_file_has_everything_once_however_the_stream_is_read() {
        for seed in 0..40 {
            let mut random = random(seed);
            let path = std::env::temp_dir().join(format!("procession-spill-{}-{seed}", std::process::id()));
            let limit = limit(10, Overflow::Spill(path.clone()));
            let mut machine = Machine::new(false, Some(&limit), None);
            machine.spill_to(Stream::Stdout, path.clone(), File::create(&path).unwrap());
            let mut given = Vec::new();
            for _ in 0..30 {
                match random(5) {
                    0 | 1 => {
                        let piece: Vec<u8> = (0..random(30)).map(|_| random(251) as u8).collect();
                        // An empty piece would be the end.
                        if !piece.is_empty() {
                            push(&mut machine, &piece);
                        }
                        given.extend(piece);
                    }
                    2 => machine.hand_out(Stream::Stdout, usize::MAX),
                    3 => machine.keep(Stream::Stdout, &limit),
                    _ => {
                        let count = random(machine.unread(Stream::Stdout).len() + 1);
                        machine.take(Stream::Stdout, count);
                    }
                }
                let spilled =
                    machine.sink(Stream::Stdout).kept().unwrap().spill.as_ref().is_some_and(|spill| spill.begun);
                if spilled {
                    let file = std::fs::read(&path).unwrap();
                    let whole = given.ends_with(&file);
                    assert!(whole, "seed {seed}: {} of {} bytes", file.len(), given.len());
                }
            }
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn one_turn_is_bounded() {
        let mut machine = machine(usize::MAX, Overflow::Fail);
        let mut given = 0;
        machine
            .read(Stream::Stderr, |buffer, max| {
                let count = max.min(65_536);
                given += count;
                buffer.extend(std::iter::repeat_n(0, count));
                Ok(count)
            })
            .unwrap();
        assert!(given <= TURN_MAX + READ_MAX);
        assert!(machine.wants_to_read(Stream::Stderr));
    }

    #[test]
    fn a_stream_that_was_given_up_says_so() {
        let mut machine = machine(10, Overflow::Fail);
        machine.cut_off(Stream::Stdout, Vec::new());
        let [stdout, stderr] = machine.into_captured();
        assert_eq!(stdout.completeness, Completeness::CutOff { holders: Vec::new() });
        assert_eq!(stderr.completeness, Completeness::Open);
    }

    /// Numbers that look random and are the same each time.
    fn random(mut state: u64) -> impl FnMut(usize) -> usize {
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        }
    }

    fn limit(bytes_max: usize, overflow: Overflow) -> Limit {
        Limit { bytes_max, overflow }
    }

    fn push(machine: &mut Machine, bytes: &[u8]) {
        let mut chunks = VecDeque::from([bytes.to_vec()]);
        while !chunks.is_empty() {
            machine.read(Stream::Stdout, give(&mut chunks)).unwrap();
        }
    }

    fn push_end(machine: &mut Machine) {
        machine.read(Stream::Stdout, |_, _| Ok(0)).unwrap();
    }

    #[test]
    fn what_is_handed_out_and_what_is_kept_are_the_whole_however_one_changes_between_them() {
        for seed in 0..60 {
            let mut random = random(seed);
            let mut machine = machine(usize::MAX, Overflow::Fail);
            let (mut given, mut taken) = (Vec::new(), Vec::new());
            for _ in 0..60 {
                match random(6) {
                    0 | 1 => {
                        let size = [1, 10, 5000, 70_000, 200_000][random(5)];
                        let piece: Vec<u8> = (0..size).map(|_| random(251) as u8).collect();
                        push(&mut machine, &piece);
                        given.extend(piece);
                    }
                    2 => machine.hand_out(Stream::Stdout, usize::MAX),
                    3 => machine.keep(Stream::Stdout, &limit(usize::MAX, Overflow::Fail)),
                    4 => machine.keep(Stream::Stdout, &limit(usize::MAX / 2, Overflow::Tail)),
                    _ => {
                        let unread = machine.unread(Stream::Stdout).to_vec();
                        let count = if random(2) == 0 { unread.len() } else { random(unread.len() + 1) };
                        taken.extend_from_slice(&unread[..count]);
                        machine.take(Stream::Stdout, count);
                    }
                }
            }
            let live = machine.sink(Stream::Stdout).is_live();
            if live && random(2) == 0 {
                taken.extend_from_slice(machine.unread(Stream::Stdout));
                assert!(taken == given, "seed {seed}");
                continue;
            }
            machine.keep(Stream::Stdout, &limit(usize::MAX, Overflow::Fail));
            push_end(&mut machine);
            let [snapshot, _] = machine.snapshot();
            let [captured, _] = machine.into_captured();
            assert_eq!(snapshot.bytes, captured.bytes);
            assert_eq!((captured.total, captured.dropped), (given.len() as u64, taken.len() as u64));
            assert!(!captured.lost && captured.completeness == Completeness::Complete);
            taken.extend(captured.bytes);
            assert!(taken == given, "seed {seed}");
        }
    }

    #[test]
    fn the_file_has_all_behind_its_beginning_however_one_changes_between_handing_out_and_keeping() {
        let path = std::env::temp_dir().join(format!("procession-machine-{}", std::process::id()));
        for seed in 0..60 {
            let mut random = random(seed);
            let keeping = limit([1000, 0][seed as usize % 2], Overflow::Spill(path.clone()));
            let mut machine = Machine::new(false, Some(&keeping), None);
            machine.spill_to(Stream::Stdout, path.clone(), File::create(&path).unwrap());
            let (mut given, mut taken, mut begun_at) = (Vec::new(), 0, None);
            for _ in 0..60 {
                match random(6) {
                    0 | 1 => {
                        let size = [1, 10, 900, 30_000][random(4)];
                        let piece: Vec<u8> = (0..size).map(|_| random(251) as u8).collect();
                        push(&mut machine, &piece);
                        given.extend(piece);
                    }
                    2 | 3 => machine.keep(Stream::Stdout, &keeping),
                    4 => machine.hand_out(Stream::Stdout, usize::MAX),
                    _ => {
                        let count = random(machine.unread(Stream::Stdout).len() + 1);
                        machine.take(Stream::Stdout, count);
                        taken += count;
                    }
                }
                let [snapshot, _] = machine.snapshot();
                if snapshot.spilled.is_some() {
                    let from: usize = *begun_at.get_or_insert(taken);
                    assert!(std::fs::read(&path).unwrap() == given[from..], "seed {seed}");
                } else if !machine.sink(Stream::Stdout).is_live() {
                    assert!(snapshot.bytes == given[taken..], "seed {seed}");
                }
                assert!(!snapshot.lost, "seed {seed}");
            }
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_nobody_has_taken_is_not_dropped_and_what_was_taken_is_kept_for_a_while() {
        let mut machine = machine(usize::MAX, Overflow::Fail);
        machine.hand_out(Stream::Stdout, usize::MAX);
        let piece = vec![b'x'; 100_000];
        for round in 1..=20 {
            push(&mut machine, &piece);
            assert_eq!(machine.unread(Stream::Stdout).len(), round * piece.len());
        }
        machine.take(Stream::Stdout, 20 * piece.len() - 3);
        assert_eq!(machine.unread(Stream::Stdout), b"xxx");
        let [snapshot, _] = machine.snapshot();
        assert_eq!((snapshot.bytes.len(), snapshot.gap), (CONTEXT, Some(0)));
        assert_eq!(snapshot.dropped + CONTEXT as u64, snapshot.total);
        assert!(!snapshot.lost, "it was handed out");
        for _ in 0..100 {
            push(&mut machine, &piece);
            machine.take(Stream::Stdout, piece.len());
        }
        assert_eq!(machine.unread(Stream::Stdout), b"xxx");
        let capacity = machine.sink(Stream::Stdout).kept().unwrap().tail.capacity();
        push(&mut machine, &piece);
        machine.take(Stream::Stdout, piece.len());
        assert_eq!(machine.sink(Stream::Stdout).kept().unwrap().tail.capacity(), capacity, "memory is used again");
    }

    #[test]
    fn more_unread_than_allowed_is_an_overflow_until_it_is_taken() {
        let mut machine = machine(usize::MAX, Overflow::Fail);
        machine.hand_out(Stream::Stdout, 10);
        push(&mut machine, &[0; 10]);
        assert_eq!(machine.overflowed(), None);
        push(&mut machine, &[0; 1]);
        assert_eq!(machine.overflowed(), Some(Stream::Stdout));
        machine.take(Stream::Stdout, 1);
        assert_eq!(machine.overflowed(), None);
        machine.take(Stream::Stdout, 100);
        assert_eq!(machine.unread(Stream::Stdout), b"");
    }

    #[test]
    fn what_was_too_much_unread_is_judged_anew_when_it_is_kept() {
        for (overflow, expected) in
            [(Overflow::Fail, Some(Stream::Stdout)), (Overflow::Head, None), (Overflow::Tail, None)]
        {
            let mut machine = machine(10, overflow.clone());
            machine.hand_out(Stream::Stdout, 10);
            push(&mut machine, &[0; 20]);
            machine.take(Stream::Stdout, 5);
            assert_eq!(machine.overflowed(), Some(Stream::Stdout));
            machine.keep(Stream::Stdout, &limit(10, overflow.clone()));
            assert_eq!(machine.overflowed(), expected, "{overflow:?}");
            let [captured, _] = machine.into_captured();
            assert_eq!((captured.bytes.len(), captured.dropped), (10, 10));
        }
        let mut machine = machine(10, Overflow::Fail);
        machine.hand_out(Stream::Stdout, 10);
        push(&mut machine, &[0; 20]);
        machine.hand_out(Stream::Stdout, usize::MAX);
        assert_eq!(machine.overflowed(), None);
    }

    #[test]
    fn what_was_kept_for_an_error_is_part_of_the_record() {
        let mut machine = machine(100, Overflow::Tail);
        push(&mut machine, b"oops ");
        machine.keep(Stream::Stdout, &Limit::default());
        push(&mut machine, b"and more");
        let [captured, _] = machine.into_captured();
        assert_eq!((captured.bytes, captured.dropped, captured.gap), (b"oops and more".to_vec(), 0, None));
    }

    #[test]
    fn another_rule_holds_for_what_is_there() {
        let bytes: Vec<u8> = (0..100).collect();
        for (overflow, kept, gap) in [
            (Overflow::Head, [&bytes[..10], &[]], 10),
            (Overflow::Tail, [&[], &bytes[95..]], 0),
            (Overflow::HeadTail, [&bytes[..5], &bytes[95..]], 5),
        ] {
            let mut machine = machine(usize::MAX, Overflow::Fail);
            push(&mut machine, &bytes[..90]);
            let bytes_max = if overflow == Overflow::Tail { 5 } else { 10 };
            machine.keep(Stream::Stdout, &limit(bytes_max, overflow.clone()));
            push(&mut machine, &bytes[90..]);
            let [snapshot, _] = machine.snapshot();
            let [captured, _] = machine.into_captured();
            assert_eq!(captured.bytes, kept.concat(), "{overflow:?}");
            assert_eq!((captured.dropped, captured.gap), (100 - captured.bytes.len() as u64, Some(gap)));
            assert_eq!((snapshot.bytes, snapshot.dropped), (captured.bytes, captured.dropped));
            assert!(captured.lost && snapshot.lost);
        }
    }

    #[test]
    fn the_second_half_of_a_line_end_is_nobodys() {
        for (rest, expected) in [(&b"\nx"[..], &b"x"[..]), (b"x\n", b"x\n"), (b"\n\n", b"\n"), (b"\n", b"")] {
            for chunk in [1, 2] {
                for keeps in [false, true] {
                    let mut machine = machine(usize::MAX, Overflow::Fail);
                    machine.hand_out(Stream::Stdout, usize::MAX);
                    push(&mut machine, b"a\r");
                    machine.take(Stream::Stdout, 2);
                    machine.skip_newline(Stream::Stdout);
                    assert!(machine.skips_newline(Stream::Stdout));
                    if keeps {
                        machine.keep(Stream::Stdout, &Limit::default());
                    }
                    rest.chunks(chunk).for_each(|piece| push(&mut machine, piece));
                    push_end(&mut machine);
                    if !keeps {
                        assert_eq!(machine.unread(Stream::Stdout), expected);
                        continue;
                    }
                    let [captured, _] = machine.into_captured();
                    assert_eq!(captured.bytes, expected);
                    assert_eq!(captured.total, captured.dropped + expected.len() as u64);
                    assert!(!captured.lost);
                }
            }
        }
        // It may be there already.
        let mut machine = machine(usize::MAX, Overflow::Fail);
        machine.hand_out(Stream::Stdout, usize::MAX);
        push(&mut machine, b"a\r\nb");
        machine.take(Stream::Stdout, 2);
        machine.skip_newline(Stream::Stdout);
        assert_eq!((machine.unread(Stream::Stdout), machine.skips_newline(Stream::Stdout)), (&b"b"[..], false));
    }

    #[test]
    fn marks_are_merged_where_no_order_is_known_and_bounded() {
        let mut machine = machine(10, Overflow::Tail);
        machine.mark(Stream::Stdout, 1, Duration::ZERO);
        assert!(machine.marks().is_empty(), "nobody wants to know");
        machine.remember_order();
        machine.begin_look();
        machine.mark(Stream::Stdout, 1, Duration::ZERO);
        machine.mark(Stream::Stdout, 2, Duration::ZERO);
        machine.mark(Stream::Stderr, 4, Duration::ZERO);
        machine.begin_look();
        machine.mark(Stream::Stderr, 8, Duration::ZERO);
        let counts = |machine: &Machine| machine.marks().iter().map(|mark| mark.count).collect::<Vec<_>>();
        assert_eq!(counts(&machine), [3, 4, 8]);
        for _ in 0..MARKS_MAX {
            machine.begin_look();
            machine.mark(Stream::Stdout, 1, Duration::ZERO);
        }
        assert_eq!(machine.marks().len(), MARKS_MAX);
        machine.mark(Stream::Stderr, 16, Duration::ZERO);
        assert_eq!(machine.marks().len(), MARKS_MAX);
        let total = |machine: &Machine, stream| -> u64 {
            machine.marks().iter().filter(|mark| mark.stream == stream).map(|mark| mark.count).sum()
        };
        assert_eq!((total(&machine, Stream::Stdout), total(&machine, Stream::Stderr)), (3 + MARKS_MAX as u64, 28));
        // What went elsewhere leaves none.
        machine.forget(Stream::Stdout);
        assert_eq!((total(&machine, Stream::Stdout), total(&machine, Stream::Stderr)), (0, 28));
        assert!(!machine.wants_to_read(Stream::Stdout) && !machine.has_ended(Stream::Stdout));
    }
}
