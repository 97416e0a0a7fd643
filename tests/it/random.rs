//! Random children, and random questions to them in random order. A model knows every byte they write: each is handed out once, in
//! order, whoever asks, and the records say the truth.
//!
//! `PROCESSION_RANDOM_SEED` is the first seed and `PROCESSION_RANDOM_ROUNDS` how many follow. The same seed asks the same questions;
//! how much has been read when one is asked is a matter of time, so a failure may need some rounds with the same seed
//! (`PROCESSION_RANDOM_AGAIN`) to come back.

use crate::support::{Scratch, alone, children, fixture, wait_for};
use crate::talk::pattern;
use procession::{
    Child, Command, Error, ErrorKind, Filter, Line, LineEnd, Newlines, Output, Overflow, Piece, Pipeline,
    PipelineChild, Pty, Stdio, Stop, Stream, Target, Text,
};
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn each_byte_is_handed_out_once_and_in_order() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    alone!({
        let first = number("PROCESSION_RANDOM_SEED").unwrap_or(1);
        let rounds = number("PROCESSION_RANDOM_ROUNDS").unwrap_or(200);
        let again = number("PROCESSION_RANDOM_AGAIN").unwrap_or(1);
        for seed in first..first + rounds {
            for _ in 0..again {
                // SAFETY: an integer argument.
                unsafe { libc::alarm(90) };
                eprintln!("seed {seed}"); // the last one that is shown is the one that failed or hung
                round(seed);
            }
        }
    });
}

// ---- chance ----

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn size(&mut self, most: usize) -> usize {
        let scale = self.of(&[1, 30, 3000, 70_000, 300_000]);
        self.below(scale + 1).min(most)
    }

    fn millis(&mut self, most: usize) -> Duration {
        Duration::from_micros(self.below(most * 1000 + 1) as u64)
    }

    /// Lines that do not repeat. A terminal gets only what passes its line discipline.
    fn text(&mut self, size: usize, plain: bool) -> Vec<u8> {
        let mut text = Vec::with_capacity(size + 100);
        let longest = self.of(&[3, 40, 200]);
        while text.len() < size {
            for _ in 0..self.below(longest) {
                text.push(b'!' + self.below(94) as u8);
            }
            let ends: &[&[u8]] = if plain { &[b"\n"] } else { &[b"\n", b"\n", b"\r\n", b"\r", b"\n\r", b"\r\r\n"] };
            let end = self.of(ends);
            text.extend_from_slice(end);
        }
        if !plain || self.one_in(4) {
            text.truncate(size);
        }
        text
    }
}

// ---- what a child says ----

const OUT: usize = 0;
const ERR: usize = 1;
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

#[derive(Clone, Debug)]
enum Verb {
    Spew(usize, usize),
    Alternate(usize, usize, usize),
    Merge(usize),
    Lines(usize),
    Bytes(Vec<Vec<u8>>),
    Cat,
    Upper,
    Pingpong,
    A2(usize, usize),
}

impl Verb {
    fn command(&self) -> Command {
        let with = |verb: &str, numbers: &[usize]| fixture(verb).args(numbers.iter().map(usize::to_string));
        match self {
            Verb::Spew(size, block) => with("spew", &[*size, *block]),
            Verb::Alternate(size, one, other) => with("alternate", &[*size, *one, *other]),
            Verb::Merge(count) => with("merge", &[*count]),
            Verb::Lines(count) => with("lines", &[*count]),
            Verb::Bytes(pieces) => {
                let hex = |piece: &Vec<u8>| piece.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                fixture("bytes").args(pieces.iter().map(hex))
            }
            Verb::Cat => fixture("cat"),
            Verb::Upper => fixture("upper"),
            Verb::Pingpong => fixture("pingpong"),
            Verb::A2(before, after) => with("a2", &[*before, *after]),
        }
    }

    fn reads(&self) -> bool {
        matches!(self, Verb::Cat | Verb::Upper | Verb::Pingpong | Verb::A2(..))
    }

    fn is_loud(&self) -> bool {
        matches!(self, Verb::Alternate(..) | Verb::Merge(_) | Verb::A2(..))
    }

    /// What it writes, in order.
    fn says(&self, input: &[u8]) -> Vec<(usize, Vec<u8>)> {
        match self {
            Verb::Spew(size, _) => vec![(OUT, pattern(*size))],
            Verb::Alternate(size, one, other) => {
                let all = pattern(*size);
                let (mut outs, mut errs) = (all.chunks(*one), all.chunks(*other));
                let mut said = Vec::new();
                loop {
                    let (out, err) = (outs.next(), errs.next());
                    if out.is_none() && err.is_none() {
                        return said;
                    }
                    said.extend(out.map(|out| (OUT, out.to_vec())));
                    said.extend(err.map(|err| (ERR, err.to_vec())));
                }
            }
            Verb::Merge(count) => {
                let line =
                    |number: usize| (number % 2, format!("{} {number}\n", ["out", "err"][number % 2]).into_bytes());
                (0..*count).map(line).collect()
            }
            Verb::Lines(count) => (0..*count).map(|number| (OUT, format!("line {number}\n").into_bytes())).collect(),
            Verb::Bytes(pieces) => pieces.iter().map(|piece| (OUT, piece.clone())).collect(),
            Verb::Cat => vec![(OUT, input.to_vec())],
            Verb::Upper => vec![(OUT, input.to_ascii_uppercase())],
            Verb::Pingpong => {
                cut(input, usize::MAX).iter().map(|line| (OUT, [b"pong ", *line, b"\n"].concat())).collect()
            }
            Verb::A2(before, after) => {
                vec![(ERR, pattern(*before)), (OUT, pattern(*after)), (ERR, format!("{}\n", input.len()).into_bytes())]
            }
        }
    }
}

/// Lines as filters and targets see them.
fn cut(mut bytes: &[u8], size_max: usize) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let line = &bytes[..bytes.len().min(size_max.saturating_add(1))];
        let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
        if end > size_max {
            lines.push(&bytes[..size_max]);
            bytes = &bytes[size_max..];
        } else {
            lines.push(&bytes[..end]);
            bytes = bytes.get(end + 1..).unwrap_or_default();
        }
    }
    lines
}

fn each_line(bytes: &[u8], size_max: usize, mut map: impl FnMut(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut all = Vec::new();
    cut(bytes, size_max).into_iter().for_each(|line| map(line, &mut all));
    all
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Identity,
    Twice,
    Some,
    None,
    Longer,
    WithEnd,
}

impl Kind {
    fn filter(self) -> Filter {
        match self {
            Kind::Identity => Filter::new(|piece, out| {
                out.extend_from_slice(piece.unwrap_or_default());
                Ok(())
            }),
            Kind::WithEnd => Filter::new(|piece, out| {
                out.extend_from_slice(piece.unwrap_or(b"<end>"));
                Ok(())
            }),
            Kind::Twice => Filter::new(|piece, out| {
                piece.unwrap_or_default().iter().for_each(|byte| out.extend([*byte; 2]));
                Ok(())
            }),
            Kind::Some => Filter::keep_lines(is_kept),
            Kind::None => Filter::keep_lines(|_| false),
            Kind::Longer => Filter::map_lines(|line| [line, b"|\r", line].concat()),
        }
    }

    fn of(self, bytes: &[u8], size_max: usize) -> Vec<u8> {
        match self {
            Kind::Identity => bytes.to_vec(),
            Kind::WithEnd => [bytes, b"<end>"].concat(),
            Kind::Twice => bytes.iter().flat_map(|byte| [*byte; 2]).collect(),
            Kind::Some => each_line(bytes, size_max, |line, out| {
                if is_kept(line) {
                    out.extend_from_slice(line);
                    out.push(b'\n');
                }
            }),
            Kind::None => Vec::new(),
            Kind::Longer => {
                each_line(bytes, size_max, |line, out| out.extend_from_slice(&[line, b"|\r", line, b"\n"].concat()))
            }
        }
    }
}

fn is_kept(line: &[u8]) -> bool {
    line.len() % 3 != 1
}

// ---- the scene: what is started ----

type Writer = Arc<Mutex<Vec<u8>>>;

/// A target and what it is to get.
struct Copied {
    writer: Writer,
    expected: Vec<u8>,
    decorated: bool,
}

#[derive(Clone, Debug)]
struct Limit {
    size: usize,
    overflow: Overflow,
}

struct Scene {
    started: Started,
    input: Vec<u8>,
    is_terminal: bool,
    expected: [Vec<u8>; 2],
    copies: Vec<Copied>,
    limit: Option<Limit>,
    line_max: usize,
    newlines: Newlines,
    transcript: bool,
    /// What was written until a moment does not depend on what comes later.
    is_steady: bool,
}

#[allow(clippy::large_enum_variant)] // there is one
enum Started {
    One(Child),
    Many(PipelineChild),
}

macro_rules! on {
    ($started:expr, $child:ident => $what:expr) => {
        match $started {
            Started::One($child) => $what,
            Started::Many($child) => $what,
        }
    };
}

fn source(chance: &mut Chance, most: usize) -> Verb {
    let block = |chance: &mut Chance| 1 + chance.size(80_000);
    match chance.below(12) {
        0 => Verb::Spew(chance.size(most), 1000 + block(chance)),
        1 => {
            let size = chance.size(most);
            Verb::Alternate(size, size / 100 + block(chance), size / 100 + block(chance))
        }
        2 => Verb::Merge(chance.size(most.min(3000))),
        3 => Verb::Lines(chance.size(most / 10)),
        4 => {
            let count = 1 + chance.below(6);
            Verb::Bytes(
                (0..count)
                    .map(|_| {
                        let size = 1 + chance.below(8);
                        chance.text(size, false)
                    })
                    .collect(),
            )
        }
        5 | 6 => Verb::Pingpong,
        7 | 8 => Verb::A2(chance.size(most), chance.size(most)),
        _ => Verb::Cat,
    }
}

/// The command with what the whole run has in common.
fn scene(chance: &mut Chance, scratch: &Scratch, log: &mut String) -> Scene {
    let is_terminal = chance.one_in(4);
    let most = if is_terminal { 20_000 } else { 300_000 };
    let first = source(chance, most);
    let input = match &first {
        Verb::Pingpong => {
            let size = chance.size(5000);
            chance.text(size, is_terminal)
        }
        verb if verb.reads() => {
            let size = chance.size(most);
            chance.text(size, is_terminal)
        }
        _ => Vec::new(),
    };
    let mut input = input;
    if is_terminal && matches!(first, Verb::Pingpong) && input.last().is_some_and(|last| *last != b'\n') {
        input.push(b'\n'); // it asks again behind the end of its input, which a terminal says once
    }
    let limit = chance.one_in(3).then(|| {
        let path = scratch.join("spill");
        let overflow = [
            Overflow::Fail,
            Overflow::Head,
            Overflow::Tail,
            Overflow::HeadTail,
            Overflow::Spill(path.clone()),
            Overflow::Spill(path),
        ];
        Limit { size: chance.of(&[0, 1, 9, 1000, 10_000, 70_000, 400_000]), overflow: chance.of(&overflow) }
    });
    let line_max = chance.of(&[1 << 20, 1 << 20, 1000, 64, 7]);
    let newlines = chance.of(&[Newlines::Keep, Newlines::Universal]);
    let transcript = chance.one_in(2);
    let pipe_size = chance.of(&[None, Some(4096), Some(1 << 20)]);
    let dress = |command: Command| {
        let mut command = command.line_limit(line_max).text(Text::utf8().newlines(newlines));
        if transcript {
            command = command.transcript();
        }
        if let Some(size) = pipe_size {
            command = command.pipe_size(size);
        }
        command
    };
    let limited = |command: Command| match &limit {
        Some(limit) => command.capture_limit(limit.size, limit.overflow.clone()),
        None => command,
    };
    let stage_count = chance.of(&[1, 1, 1, 2, 3, 4]);
    let _ = writeln!(
        log,
        "terminal {is_terminal}, limit {limit:?}, lines of {line_max} {newlines:?}, pipe {pipe_size:?}, transcript {transcript}, input {}, {stage_count} stages, {first:?}",
        input.len()
    );
    let mut copies = Vec::new();
    let mut expected = [Vec::new(), Vec::new()];
    let mut is_steady = true;
    let crlf = is_terminal && chance.one_in(3);
    let mode = if chance.one_in(2) { Pty::new().crlf(crlf) } else { Pty::new().crlf(crlf).size(5, 20) };
    let on_terminal = |bytes: &[u8]| -> Vec<u8> {
        let one = |byte: &u8| if crlf && *byte == b'\n' { b"\r\n".to_vec() } else { vec![*byte] };
        bytes.iter().flat_map(one).collect()
    };
    let has_filter = chance.one_in(2);
    if stage_count == 1 && !has_filter {
        // 0: two streams, 1: standard error joins standard output.
        let joined = chance.one_in(if is_terminal { 2 } else { 4 });
        for (stream, bytes) in first.says(&input) {
            let bytes = if is_terminal && (joined || stream == OUT) { on_terminal(&bytes) } else { bytes };
            expected[if joined { OUT } else { stream }].extend(bytes);
        }
        let mut command = limited(dress(first.command()));
        command = match (is_terminal, joined) {
            (true, true) => command.pty(mode),
            (true, false) => command.pty(mode).stderr(Stdio::piped()),
            (false, true) => command.pipe_all().stderr(Stdio::stdout()),
            (false, false) => command.pipe_all(),
        };
        for stream in STREAMS {
            if (!joined || stream == Stream::Stdout) && chance.one_in(3) {
                command = copied(chance, command, stream, &expected[stream as usize], line_max, &mut copies);
            }
        }
        let _ = writeln!(
            log,
            "{command}, joined {joined}, crlf {crlf}, expected {} and {}",
            expected[0].len(),
            expected[1].len()
        );
        let started = Started::One(command.spawn().unwrap());
        return Scene {
            started,
            input,
            is_terminal,
            expected,
            copies,
            limit,
            line_max,
            newlines,
            transcript,
            is_steady,
        };
    }
    let mut pipeline: Option<Pipeline> = None;
    let mut passing = input.clone();
    // The record of the whole says nothing of files of standard error.
    let spills = matches!(&limit, Some(Limit { overflow: Overflow::Spill(_), .. }));
    let limit = limit.filter(|_| !spills || !first.is_loud());
    let limited = |command: Command| match &limit {
        Some(limit) => command.capture_limit(limit.size, limit.overflow.clone()),
        None => command,
    };
    let mut was_loud = spills;
    for place in 0..stage_count {
        let is_last = place + 1 == stage_count;
        let verb = match chance.below(5) {
            _ if place == 0 => first.clone(),
            0 => Verb::Upper,
            1 if passing.len() < 30_000 => Verb::Pingpong,
            2 if !was_loud => Verb::A2(chance.size(most), chance.size(most)),
            _ => Verb::Cat,
        };
        was_loud |= verb.is_loud();
        is_steady &= place == 0 || matches!(verb, Verb::Cat | Verb::Upper);
        let mut said = Vec::new();
        for (stream, bytes) in verb.says(&passing) {
            match stream {
                OUT => said.extend(bytes),
                _ => expected[ERR].extend(bytes),
            }
        }
        let mut command = dress(verb.command());
        if is_last
            || (verb.is_loud() && limit.as_ref().is_some_and(|limit| !matches!(limit.overflow, Overflow::Spill(_))))
        {
            command = limited(command);
        }
        if place == 0 && is_terminal {
            // The input is typed; the rest are pipes.
            command = command.pty(mode.clone()).stdin(Stdio::pty());
            if is_last {
                said = on_terminal(&said);
                command = command.stdout(Stdio::pty());
            }
        }
        let mut kinds = Vec::new();
        while (has_filter || place + 1 < stage_count) && chance.one_in(2) && kinds.len() < 3 && said.len() < 500_000 {
            let kind = chance.of(&[
                Kind::Identity,
                Kind::Identity,
                Kind::Twice,
                Kind::Some,
                Kind::Longer,
                Kind::WithEnd,
                Kind::None,
            ]);
            is_steady &= matches!(kind, Kind::Identity | Kind::Twice);
            said = kind.of(&said, line_max);
            kinds.push(kind);
        }
        if chance.one_in(4) {
            command = copied(chance, command, Stream::Stdout, &said, line_max, &mut copies);
            // What is cut off within a line passes a filter as a line.
            copies.iter_mut().next_back().unwrap().decorated |= !is_steady;
        }
        let _ = writeln!(log, "stage {place}: {command} {kinds:?} says {}", said.len());
        let joined = match pipeline.take() {
            None => Pipeline::from_iter([command]),
            Some(pipeline) => pipeline | command,
        };
        pipeline = Some(kinds.iter().fold(joined, |pipeline, kind| pipeline | kind.filter()));
        passing = said;
    }
    expected[OUT] = passing;
    let mut pipeline = pipeline.unwrap().stderr(Stdio::piped());
    if !is_terminal {
        pipeline = pipeline.stdin(Stdio::piped());
    }
    if !is_terminal || stage_count > 1 {
        pipeline = pipeline.stdout(Stdio::piped());
    }
    let _ = writeln!(log, "expected {} and {}", expected[0].len(), expected[1].len());
    let started = Started::Many(pipeline.spawn().unwrap());
    Scene { started, input, is_terminal, expected, copies, limit, line_max, newlines, transcript, is_steady }
}

/// The command with a target that gets a stream as well.
fn copied(
    chance: &mut Chance,
    command: Command,
    stream: Stream,
    said: &[u8],
    line_max: usize,
    copies: &mut Vec<Copied>,
) -> Command {
    let writer = Writer::default();
    let target = Target::writer(Arc::clone(&writer));
    let (target, expected, decorated) = match chance.below(4) {
        0 => {
            let prefixed = each_line(said, line_max, |line, out| out.extend_from_slice(&[b"> ", line, b"\n"].concat()));
            (target.prefix("> "), prefixed, true)
        }
        1 => (target.filter(Kind::Some.filter()), Kind::Some.of(said, line_max), true),
        _ => (target, said.to_vec(), false),
    };
    copies.push(Copied { writer, expected, decorated });
    match stream {
        Stream::Stdout => command.tee_stdout(target),
        Stream::Stderr => command.tee_stderr(target),
    }
}

// ---- the model ----

/// What is known of one stream.
struct Known {
    expected: Vec<u8>,
    /// What is still to be handed out, until the end of the stream.
    ahead: Vec<u8>,
    /// How much has been taken.
    taken: usize,
    total: u64,
    /// Bytes were dropped by a rule: what is kept is not in one piece.
    has_gap: bool,
    /// Something was dropped that nobody was shown.
    is_lost: bool,
    /// Something may have been dropped that the model has not heard of.
    is_loose: bool,
    /// From where on the file has the stream.
    spilled_from: Option<usize>,
}

impl Known {
    fn new(expected: Vec<u8>) -> Known {
        let ahead = expected.clone();
        Known {
            expected,
            ahead,
            taken: 0,
            total: 0,
            has_gap: false,
            is_lost: false,
            is_loose: false,
            spilled_from: None,
        }
    }

    #[track_caller]
    fn take(&mut self, bytes: &[u8], who: &str) {
        assert!(
            self.ahead.starts_with(bytes),
            "{who}: not what comes next, with {} taken and {} ahead: {:?} is not {:?}",
            self.taken,
            self.ahead.len(),
            shown(bytes),
            shown(&self.ahead)
        );
        self.ahead.drain(..bytes.len());
        self.taken += bytes.len();
    }

    #[track_caller]
    fn take_line(&mut self, bytes: &[u8], end: LineEnd, newlines: Newlines, line_max: usize, is_cut: bool, who: &str) {
        let is_end = |byte: &u8| *byte == b'\n' || (newlines == Newlines::Universal && *byte == b'\r');
        assert!(!bytes.iter().any(is_end) && bytes.len() <= line_max, "{who}: {:?}", shown(bytes));
        self.take(bytes, who);
        match end {
            LineEnd::Newline => {
                let universal = newlines == Newlines::Universal;
                let count = if universal && self.ahead.starts_with(b"\r\n") {
                    2
                } else {
                    assert!(self.ahead.first().is_some_and(is_end), "{who}: no line end: {:?}", shown(&self.ahead));
                    1
                };
                self.ahead.drain(..count);
                self.taken += count;
            }
            LineEnd::Stream => assert!(!bytes.is_empty() && (is_cut || self.ahead.is_empty()), "{who}: not the end"),
            LineEnd::Size => assert!(bytes.len() == line_max, "{who}: {} of {line_max}", bytes.len()),
            _ => unreachable!(),
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned()
}

struct Play {
    started: Started,
    known: [Known; 2],
    copies: Vec<Copied>,
    limit: Option<Limit>,
    line_max: usize,
    newlines: Newlines,
    transcript: bool,
    input: Vec<u8>,
    given: usize,
    /// No more input will be given.
    closed: bool,
    is_terminal: bool,
    /// A conversation has begun.
    begun: bool,
    /// It was stopped: less may come than expected.
    is_cut: bool,
    log: String,
    seed: u64,
}

impl Drop for Play {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("PROCESSION_RANDOM_SEED={}\n{}", self.seed, self.log);
        }
    }
}

/// What became of a step.
#[derive(PartialEq, Eq)]
enum Went {
    On,
    /// The record was given, or the run has failed as it may.
    Over,
}

const CONTEXT: usize = 64 * 1024;

impl Play {
    fn rest(&mut self) -> Vec<u8> {
        self.closed = true;
        let rest = self.input[self.given..].to_vec();
        self.given = self.input.len();
        rest
    }

    fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        if std::env::var_os("PROCESSION_RANDOM_SEED").is_some() {
            eprintln!("  {what}");
        }
        self.log.push_str(&what);
        self.log.push('\n');
    }

    /// These streams are handed out from now on; the others are kept by their rules.
    fn hands_out(&mut self, streams: [bool; 2]) -> Went {
        if (0..2).any(|place| streams[place] && self.known[place].is_loose) && self.talk(Duration::ZERO) == Went::Over {
            return Went::Over;
        }
        for (known, is_handed_out) in self.known.iter_mut().zip(streams) {
            known.is_loose |= !is_handed_out && (self.limit.is_some() || !self.begun);
        }
        self.begun = true;
        Went::On
    }

    /// A failure that can be gone on after, or one that may be.
    #[track_caller]
    fn failed(&mut self, error: &Error) -> Went {
        self.note(format!("  {error}"));
        match error.kind() {
            ErrorKind::Overflow => {
                let limit = self.limit.as_ref().expect("there is no limit");
                let exceeds = |known: &Known| known.expected.len() > limit.size;
                assert!(self.known.iter().any(exceeds), "nothing exceeds the limit: {error}");
                self.is_cut = true;
                self.look_at(error.output());
                Went::Over
            }
            ErrorKind::Timeout | ErrorKind::Ended => {
                self.look_at(error.output());
                Went::On
            }
            _ => panic!("{error}"),
        }
    }

    /// A record in the midst of things.
    #[track_caller]
    fn look_at(&mut self, output: &Output) {
        let spills = matches!(&self.limit, Some(Limit { overflow: Overflow::Spill(_), .. }));
        for (known, captured) in self.known.iter_mut().zip([output.captured_stdout(), output.captured_stderr()]) {
            let (bytes, total) = (captured.bytes(), captured.total() as usize);
            assert!(captured.total() >= known.total && total <= known.expected.len(), "total {total}");
            known.total = captured.total();
            assert!(bytes.len() as u64 + captured.dropped() <= captured.total());
            if !spills {
                assert_eq!(bytes.len() as u64 + captured.dropped(), captured.total());
            }
            if self.limit.is_none() {
                assert!(known.expected[..total].ends_with(bytes), "a record of something else");
            }
        }
        if self.transcript {
            holds_together(output);
        }
        self.look_at_copies(false);
    }

    #[track_caller]
    fn look_at_copies(&self, is_end: bool) {
        for copied in &self.copies {
            let written = copied.writer.lock().unwrap();
            if is_end && !self.is_cut {
                assert!(*written == copied.expected, "a target has {} of {}", written.len(), copied.expected.len());
            } else if !copied.decorated || !self.is_cut {
                assert!(copied.expected.starts_with(&written), "a target has something else");
            }
        }
    }

    /// The record of a conversation that collects, or shows, at its end or not. What is kept is what comes next.
    #[track_caller]
    fn check(&mut self, output: &Output, is_end: bool, shows: bool) {
        let limit = self.limit.clone();
        let is_cut = self.is_cut;
        for (known, captured) in self.known.iter_mut().zip([output.captured_stdout(), output.captured_stderr()]) {
            let (bytes, total) = (captured.bytes(), captured.total() as usize);
            assert!(captured.total() >= known.total, "total {total}");
            assert!(
                if is_end && !is_cut { total == known.expected.len() } else { total <= known.expected.len() },
                "total {total} of {}",
                known.expected.len()
            );
            known.total = captured.total();
            let to_come = known.expected.len() - total;
            let split = known.ahead.len().saturating_sub(to_come);
            let rest = known.ahead.split_off(split);
            let read = std::mem::take(&mut known.ahead);
            let (head, tail) = match &limit {
                None if shows => (0, CONTEXT),
                None => (usize::MAX, 0),
                Some(limit) => match limit.overflow {
                    Overflow::Tail => (0, limit.size),
                    Overflow::HeadTail => (limit.size - limit.size / 2, limit.size / 2),
                    _ => (limit.size, 0),
                },
            };
            let spills = matches!(&limit, Some(Limit { overflow: Overflow::Spill(_), .. }));
            let head = read.len().min(head);
            let tail = (read.len() - head).min(tail);
            let kept = [&read[..head], &read[read.len() - tail..]].concat();
            if spills {
                assert!(
                    bytes.len() >= kept.len() && read.starts_with(bytes),
                    "memory has something else: {} of {}",
                    bytes.len(),
                    read.len()
                );
            } else if known.is_loose && limit.is_none() {
                let least = read.len().min(CONTEXT);
                assert!(bytes.len() >= least && read.ends_with(bytes), "the end is something else");
            } else {
                assert!(
                    bytes == kept,
                    "{} are kept and not {} of {}: {:?} {:?}",
                    bytes.len(),
                    kept.len(),
                    read.len(),
                    shown(bytes),
                    shown(&kept)
                );
            }
            // What is said of what is not kept.
            if spills {
                assert!(bytes.len() as u64 + captured.dropped() <= captured.total());
            }
            if !spills || captured.spilled().is_none() {
                assert_eq!(bytes.len() as u64 + captured.dropped(), captured.total(), "dropped");
            }
            assert_eq!(captured.gap().is_some(), captured.dropped() > 0, "gap");
            if let Some(gap) = captured.gap() {
                // Where the gap was is no longer known when the stream was handed out since.
                let is_one = (known.taken == 0 && !known.has_gap) || limit.is_none();
                if is_one {
                    assert!(known.expected.starts_with(&bytes[..gap]), "before the gap");
                    assert!(known.expected[..total].ends_with(&bytes[gap..]), "behind the gap");
                }
            }
            let shown_all = shows; // by a loop that had everything
            known.is_lost |= !spills && !shown_all && bytes.len() < read.len();
            known.has_gap |= bytes.len() < read.len();
            if let Some(path) = captured.spilled() {
                let from = *known.spilled_from.get_or_insert(known.taken);
                let file = fs::read(path).unwrap();
                let whole = &known.expected[from..total];
                assert!(file == whole, "the file has {} of {} from {from} on", file.len(), whole.len());
            }
            known.is_loose = false;
            known.ahead = bytes.to_vec();
            known.ahead.extend_from_slice(&rest);
        }
        if self.transcript {
            holds_together(output);
        }
        if is_end {
            if !self.is_cut {
                assert!(output.success(), "{output:?}");
                assert_eq!(
                    output.is_complete(),
                    !self.known.iter().any(|known| known.is_lost),
                    "is complete: {:?} {:?} spilled {:?}",
                    output.captured_stdout().completeness(),
                    (
                        output.stdout().len(),
                        output.captured_stdout().dropped(),
                        output.captured_stdout().total(),
                        self.known[0].taken
                    ),
                    output.captured_stdout().spilled()
                );
                assert_eq!((output.input_accepted(), output.input_refused()), (self.input.len() as u64, false));
            }
            self.look_at_copies(true);
        } else {
            self.look_at_copies(false);
        }
    }

    /// `communicate` for some time.
    #[track_caller]
    fn talk(&mut self, timeout: Duration) -> Went {
        self.note(format!("communicate for {timeout:?}"));
        let rest = self.rest();
        self.begun = true;
        let talked = on!(&mut self.started, child => child.communicate_timeout(rest, timeout));
        match talked {
            Ok(output) => {
                self.check(&output, true, false);
                Went::Over
            }
            Err(error) if error.is_timeout() => {
                self.check(error.output(), false, false);
                Went::On
            }
            Err(error) => self.failed(&error),
        }
    }

    #[track_caller]
    fn talk_to_the_end(&mut self) -> Went {
        self.note("communicate to the end");
        let rest = self.rest();
        let talked = on!(&mut self.started, child => child.communicate(rest));
        match talked {
            Ok(output) => self.check(&output, true, false),
            Err(error) => {
                self.failed(&error);
            }
        }
        Went::Over
    }

    /// Everything was handed out.
    #[track_caller]
    fn is_at_the_end(&self, streams: [bool; 2]) {
        for place in (0..2).filter(|place| streams[*place] && !self.is_cut) {
            assert!(
                self.known[place].ahead.is_empty(),
                "{} of {} bytes did not come",
                self.known[place].ahead.len(),
                STREAMS[place]
            );
        }
    }

    fn of(only: Option<Stream>) -> [bool; 2] {
        STREAMS.map(|stream| only.is_none_or(|only| only == stream))
    }

    #[track_caller]
    fn lines(&mut self, count: usize, only: Option<Stream>, timeout: Option<Duration>, owned: bool) -> Went {
        if self.hands_out(Play::of(only)) == Went::Over {
            return Went::Over;
        }
        self.note(format!("{count} lines of {only:?} in {timeout:?}, owned {owned}"));
        let (known, newlines, line_max, is_cut) = (&mut self.known, self.newlines, self.line_max, self.is_cut);
        let mut lines = on!(&mut self.started, child => child.lines());
        if let Some(only) = only {
            lines = lines.only(only);
        }
        if let Some(timeout) = timeout {
            lines = lines.timeout(timeout);
        }
        let mut ended = Ok(false);
        for _ in 0..count {
            let mut see = |line: Line<'_>| {
                known[line.stream() as usize].take_line(line.bytes(), line.end(), newlines, line_max, is_cut, "lines");
            };
            let next = match owned {
                true => lines.next().transpose().map(|line| line.map(|line| see(line.as_line()))),
                false => lines.next_line().map(|line| line.map(see)),
            };
            match next {
                Ok(Some(())) => {}
                Ok(None) => ended = Ok(true),
                Err(error) => ended = Err(error),
            }
            if !matches!(ended, Ok(false)) {
                break;
            }
        }
        drop(lines);
        self.after_a_loop(ended, only)
    }

    #[track_caller]
    fn chunks(&mut self, count: usize, only: Option<Stream>, timeout: Option<Duration>, owned: bool) -> Went {
        if self.hands_out(Play::of(only)) == Went::Over {
            return Went::Over;
        }
        self.note(format!("{count} chunks of {only:?} in {timeout:?}"));
        let known = &mut self.known;
        let mut chunks = on!(&mut self.started, child => child.chunks());
        if let Some(only) = only {
            chunks = chunks.only(only);
        }
        if let Some(timeout) = timeout {
            chunks = chunks.timeout(timeout);
        }
        let mut ended = Ok(false);
        for _ in 0..count {
            let mut see = |stream: Stream, bytes: &[u8]| {
                assert!(!bytes.is_empty());
                known[stream as usize].take(bytes, "chunks");
            };
            let next = match owned {
                true => chunks.next().transpose().map(|chunk| chunk.map(|(stream, bytes)| see(stream, &bytes))),
                false => chunks.next_chunk().map(|chunk| chunk.map(|(stream, bytes)| see(stream, bytes))),
            };
            match next {
                Ok(Some(())) => {}
                Ok(None) => ended = Ok(true),
                Err(error) => ended = Err(error),
            }
            if !matches!(ended, Ok(false)) {
                break;
            }
        }
        drop(chunks);
        self.after_a_loop(ended, only)
    }

    #[track_caller]
    fn after_a_loop(&mut self, ended: Result<bool, Error>, only: Option<Stream>) -> Went {
        match ended {
            Ok(true) => self.is_at_the_end(Play::of(only)),
            Ok(false) => {}
            Err(error) => return self.failed(&error),
        }
        Went::On
    }

    /// Some turns.
    #[track_caller]
    fn turns(&mut self, chance: &mut Chance) -> Went {
        let mut heard = Stream::Stdout;
        for _ in 0..1 + chance.below(5) {
            if self.is_ready_for_another(chance) {
                heard = if heard == Stream::Stdout { Stream::Stderr } else { Stream::Stdout };
            }
            // A pipeline is listened to where its first stage writes errors; that may be another stage.
            if matches!(self.started, Started::Many(_)) {
                heard = Stream::Stdout;
            }
            if self.hands_out(STREAMS.map(|stream| stream == Stream::Stdout || stream == heard)) == Went::Over {
                return Went::Over;
            }
            let timeout = chance.millis(4);
            let kind = chance.below(6);
            let size = chance.size(if self.is_terminal { 1000 } else { 100_000 });
            let piece = if kind == 0 && !self.closed {
                let end = (self.given + size).min(self.input.len());
                Some(self.input[self.given..end].to_vec())
            } else {
                None
            };
            let pattern = chance.of(&[&b"\n"[..], b"7\n", b"e", b"\r", b"xyz", b"ne 1", b"ong"]).to_vec();
            let quiet = chance.millis(2);
            let ends = chance.one_in(2);
            self.note(format!(
                "turn {kind} with {heard} in {timeout:?}: {:?} {:?}",
                piece.as_ref().map(Vec::len),
                shown(&pattern)
            ));
            let newlines = self.newlines;
            let mut talk = on!(&mut self.started, child => child.converse(timeout));
            talk.listen_to(heard);
            let known = &mut self.known[heard as usize];
            let failed = match (kind, piece) {
                (0, Some(piece)) => {
                    self.given += piece.len();
                    let written = talk.write(&piece).err();
                    if self.given == self.input.len() && ends {
                        talk.end_input();
                        self.closed = true;
                    }
                    written
                }
                (0 | 1, _) => match talk.read_until(pattern.clone()) {
                    Ok(reply) => {
                        assert!(reply.bytes().ends_with(&pattern));
                        known.take(reply.bytes(), "read_until");
                        None
                    }
                    Err(error) => Some(error),
                },
                (2 | 3, _) => match talk.read_line() {
                    Ok(Some(line)) => {
                        let is_last = known.ahead == line
                            || (self.is_cut && {
                                let next = known.ahead.get(line.len());
                                !matches!(next, Some(b'\n' | b'\r'))
                            });
                        let end = if is_last { LineEnd::Stream } else { LineEnd::Newline };
                        known.take_line(&line, end, newlines, usize::MAX, self.is_cut, "read_line");
                        None
                    }
                    Ok(None) => {
                        assert!(self.is_cut || known.ahead.is_empty(), "no line, and {} bytes", known.ahead.len());
                        None
                    }
                    Err(error) => Some(error),
                },
                (4, _) => match talk.read_quiet(quiet) {
                    Ok(bytes) => {
                        known.take(&bytes, "read_quiet");
                        None
                    }
                    Err(error) => Some(error),
                },
                _ => {
                    assert!(known.ahead.starts_with(talk.unread()), "unread");
                    None
                }
            };
            if let Some(error) = failed
                && self.failed(&error) == Went::Over
            {
                return Went::Over;
            }
        }
        Went::On
    }

    fn is_ready_for_another(&self, chance: &mut Chance) -> bool {
        chance.one_in(3)
    }

    fn explain(&mut self) {
        self.note("explain");
        let explanation = on!(&self.started, child => child.explain());
        assert!(!explanation.to_string().is_empty());
    }

    fn stop(&mut self) {
        self.note("stop");
        match &mut self.started {
            Started::One(child) => drop(child.stop(&Stop::kill()).unwrap()),
            Started::Many(children) => drop(children.stop(&Stop::kill()).unwrap()),
        }
        self.is_cut = true;
        self.closed = true;
        self.given = self.input.len();
    }

    /// To the end with a function that is shown everything.
    #[track_caller]
    fn show(&mut self, by_line: bool) -> Went {
        if !self.closed {
            self.note("feed");
            let rest = self.rest();
            on!(&mut self.started, child => child.feed(rest)).unwrap();
            self.fed();
        }
        if self.hands_out([true; 2]) == Went::Over {
            return Went::Over;
        }
        let Started::One(child) = &mut self.started else { return self.talk_to_the_end() };
        // Whoever exceeds the limit is stopped, and the line he was at is the last one.
        let exceeds = |limit: &Limit| self.known.iter().any(|known| known.expected.len() > limit.size);
        let is_cut = self.is_cut || self.limit.as_ref().is_some_and(exceeds);
        let (known, newlines, line_max) = (&mut self.known, self.newlines, self.line_max);
        let before: Vec<_> = known.iter().map(|known| known.ahead.clone()).collect();
        self.log.push_str(if by_line { "for_each_line\n" } else { "for_each_chunk\n" });
        let result = match by_line {
            true => child.for_each_line(|line| {
                let known = &mut known[line.stream() as usize];
                known.take_line(line.bytes(), line.end(), newlines, line_max, is_cut, "for_each_line");
            }),
            false => child.for_each_chunk(|stream, bytes| known[stream as usize].take(bytes, "for_each_chunk")),
        };
        match result {
            Ok(output) => {
                self.is_at_the_end([true; 2]);
                // What was shown now is in the record as far as it is kept.
                for (known, before) in self.known.iter_mut().zip(before) {
                    known.taken -= before.len() - known.ahead.len();
                    known.ahead = before;
                }
                self.check(&output, true, true);
            }
            Err(error) => {
                self.failed(&error);
            }
        }
        Went::Over
    }

    fn fed(&mut self) {
        for known in &mut self.known {
            known.is_loose |= self.limit.is_some() && self.begun;
        }
        self.begun = true;
    }

    fn step(&mut self, chance: &mut Chance) -> Went {
        let only = chance.of(&[None, None, Some(Stream::Stdout), Some(Stream::Stderr)]);
        let waits = self.closed && chance.one_in(2);
        let timeout = chance.millis(3);
        let timeout = (!waits).then_some(timeout);
        let owned = chance.one_in(2);
        match chance.below(11) {
            0..3 => {
                let count = chance.of(&[1, 2, 20, 1000]);
                self.lines(count, only, timeout, owned)
            }
            3 | 4 => {
                let count = 1 + chance.below(4);
                self.chunks(count, only, timeout, owned)
            }
            5..8 => self.turns(chance),
            8 if !self.closed => {
                self.note("feed");
                let rest = self.rest();
                on!(&mut self.started, child => child.feed(rest)).unwrap();
                self.fed();
                Went::On
            }
            9 => {
                self.explain();
                Went::On
            }
            _ => {
                let timeout = chance.millis(5);
                self.talk(timeout)
            }
        }
    }
}

/// The pieces are those of the record.
#[track_caller]
fn holds_together(output: &Output) {
    let pieces = output.transcript();
    for (stream, captured) in STREAMS.into_iter().zip([output.captured_stdout(), output.captured_stderr()]) {
        let last = output.stages().len().saturating_sub(1);
        let is_of =
            |piece: &&Piece<'_>| piece.stream() == stream && (stream == Stream::Stderr || piece.stage() == last);
        let total: u64 = pieces.iter().filter(is_of).map(Piece::total).sum();
        assert_eq!(total, captured.total(), "the transcript of {stream}");
        let bytes: Vec<u8> = pieces.iter().filter(is_of).flat_map(|piece| piece.bytes().to_vec()).collect();
        assert!(
            bytes == captured.bytes(),
            "the transcript of {stream} has {} of {}",
            bytes.len(),
            captured.bytes().len()
        );
    }
    assert!(pieces.windows(2).all(|two| two[0].at() <= two[1].at()), "time does not go back");
}

fn round(seed: u64) {
    let mut chance = Chance(seed);
    let chance = &mut chance;
    let scratch = Scratch::new();
    let mut log = String::new();
    let scene = scene(chance, &scratch, &mut log);
    let is_steady = scene.is_steady;
    let mut play = Play {
        started: scene.started,
        known: scene.expected.map(Known::new),
        copies: scene.copies,
        limit: scene.limit,
        line_max: scene.line_max,
        newlines: scene.newlines,
        transcript: scene.transcript,
        closed: scene.input.is_empty() && chance.one_in(2),
        input: scene.input,
        given: 0,
        is_terminal: scene.is_terminal,
        begun: false,
        is_cut: false,
        log,
        seed,
    };
    if play.closed {
        on!(&mut play.started, child => child.feed(())).unwrap();
        play.begun = true;
    }
    for _ in 0..chance.below(12) {
        if play.step(chance) == Went::Over {
            return finished(play);
        }
    }
    match chance.below(8) {
        0 => return finished(play),
        1 if is_steady => {
            play.stop();
            for _ in 0..chance.below(4) {
                if play.step(chance) == Went::Over {
                    return finished(play);
                }
            }
            play.talk_to_the_end();
        }
        2 | 3 => {
            if !play.closed {
                let rest = play.rest();
                on!(&mut play.started, child => child.feed(rest)).unwrap();
                play.fed();
            }
            let by_line = chance.one_in(2);
            let went = match by_line {
                true => play.lines(usize::MAX, None, None, false),
                false => play.chunks(usize::MAX, None, None, false),
            };
            if went == Went::On {
                play.talk_to_the_end();
            }
        }
        4 | 5 => {
            let by_line = chance.one_in(2);
            play.show(by_line);
        }
        _ => {
            play.talk_to_the_end();
        }
    }
    finished(play);
}

/// Whatever was left is dropped, and ends.
fn finished(play: Play) {
    drop(play);
    wait_for("the end of what was dropped", || {
        // Starting a command reaps what has ended.
        children().is_empty() || (fixture("exit").arg("0").call().unwrap().success() && children().is_empty())
    });
}
