//! Random things done to random children in a set, in random order. A model knows what each of them says: it is told once, in order,
//! whole, and before its end; whoever is taken out or put in again goes on where it was; and whatever is left ends with the set.
//!
//! `PROCESSION_RANDOM_SEED` is the first seed and `PROCESSION_RANDOM_ROUNDS` how many follow, as in `random`.

use crate::support::{alone, children, fixture, wait_for};
use crate::talk::{noise, pattern};
use procession::{
    Child, ChildKey, ChildSet, Command, Error, Follow, LineEnd, News, Output, Signal, Stop, Stream, TimerKey,
};
use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

#[test]
fn what_children_of_a_set_say_is_told_once_and_in_order() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    alone!({
        let first = number("PROCESSION_RANDOM_SEED").unwrap_or(1);
        for seed in first..first + number("PROCESSION_RANDOM_ROUNDS").unwrap_or(60) {
            // SAFETY: an integer argument.
            unsafe { libc::alarm(90) };
            eprintln!("seed {seed}"); // the last one that is shown is the one that failed or hung
            Play::new(seed).round();
            wait_for("the end of what was dropped", || {
                children().is_empty() || (fixture("exit").arg("0").call().is_ok() && children().is_empty())
            });
        }
    });
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// One child, and what is known of it.
#[derive(Debug)]
struct Actor {
    expected: [Vec<u8>; 2],
    /// How much of that was told or taken.
    taken: [usize; 2],
    ended: [bool; 2],
    follow: Follow,
    /// Input that was not given yet, if it is given in pieces.
    rest: Option<Vec<u8>>,
    /// It may be cut short.
    stopped: bool,
    /// Something may not have been told.
    untold: bool,
    code: i32,
    /// When it was to be told that it runs.
    remind: Option<Instant>,
}

impl Actor {
    #[track_caller]
    fn takes(&mut self, stream: Stream, bytes: &[u8], behind: usize) {
        let place = stream as usize;
        assert!(self.follow != Follow::Record && !self.ended[place]);
        let rest = &self.expected[place][self.taken[place]..];
        assert!(rest.starts_with(bytes), "{} of {} bytes of {stream}", self.taken[place], self.expected[place].len());
        self.taken[place] += bytes.len() + behind;
        assert!(self.taken[place] <= self.expected[place].len());
    }

    /// The record at the end is that of what it has said.
    #[track_caller]
    fn check(&self, result: Result<Output, Error>) {
        let output = match result {
            Ok(output) => output,
            Err(error) if self.stopped => error.output().clone(),
            Err(error) => panic!("{error}"),
        };
        for (place, captured) in [output.captured_stdout(), output.captured_stderr()].into_iter().enumerate() {
            let (expected, total) = (&self.expected[place], captured.total() as usize);
            assert!(self.stopped || total == expected.len(), "{total} of {}", expected.len());
            assert!(total <= expected.len() && captured.dropped() + captured.bytes().len() as u64 == total as u64);
            if self.follow == Follow::Record {
                assert!(captured.bytes() == &expected[self.taken[place]..total], "kept");
            } else {
                assert!(self.untold || (self.taken[place] == total && self.ended[place]), "told before the end");
                assert!(expected[..total].ends_with(captured.bytes()));
            }
        }
        if !self.stopped {
            assert_eq!(output.status().code(), Some(self.code));
        }
        assert!(output.status().is_known());
    }
}

struct Play {
    chance: Chance,
    set: ChildSet,
    actors: HashMap<ChildKey, Actor>,
    timers: HashMap<TimerKey, Instant>,
    watched: Option<(std::io::PipeWriter, procession::WatchKey, bool)>,
    log: String,
}

/// Shows what was done, if it fails.
impl Drop for Play {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log);
        }
    }
}

impl Play {
    fn new(seed: u64) -> Play {
        Play {
            chance: Chance(seed),
            set: ChildSet::new().unwrap(),
            actors: HashMap::new(),
            timers: HashMap::new(),
            watched: None,
            log: String::new(),
        }
    }

    fn note(&mut self, text: impl std::fmt::Display) {
        self.log += &format!("{text}\n");
    }

    fn round(&mut self) {
        for _ in 0..20 + self.chance.below(60) {
            self.step();
        }
        match self.chance.below(3) {
            0 => self.note("dropped"),
            _ => self.finish(),
        }
    }

    fn step(&mut self) {
        match self.chance.below(16) {
            0..3 if self.actors.len() < 8 => self.start(),
            3 | 4 => self.feed(),
            5 => self.take_out(),
            6 if self.chance.one_in(2) => self.stop(),
            7 => self.moments(),
            8 => self.descriptor(),
            9 if self.chance.one_in(3) => self.ends(),
            10 => {
                let waker = self.set.waker().unwrap();
                waker.wake();
                self.note("woken");
            }
            _ => {
                let timeout = Duration::from_micros(self.chance.of(&[0, 0, 100, 2000, 10_000]));
                let count = self.chance.of(&[1, 3, 100]);
                self.note(format!("wait {count} times {timeout:?}"));
                for _ in 0..count {
                    if !self.wait(timeout) {
                        break;
                    }
                }
            }
        }
    }

    fn start(&mut self) {
        let size = self.chance.of(&[0, 1, 1000, 70_000, 300_000]);
        let block = self.chance.of(&[100, 4096, 100_000]);
        let text = |size: usize| -> Vec<u8> {
            let letter = |byte: &u8| if byte.is_multiple_of(40) { b'\n' } else { b'!' + byte % 90 };
            noise(size).iter().map(letter).collect()
        };
        let (stdout, stderr) = (Vec::new(), Vec::new());
        let (mut expected, mut input, mut code, mut sleeps) = ([stdout, stderr], None, 0, false);
        let kind = self.chance.below(9);
        let with = |verb: &str, numbers: &[usize]| fixture(verb).args(numbers.iter().map(usize::to_string));
        let command = match kind {
            0 => {
                expected[0] = pattern(size);
                with("spew", &[size, block])
            }
            1 => {
                expected = [pattern(size), pattern(size)];
                with("alternate", &[size, size / 50 + block, size / 50 + 1000])
            }
            2 => {
                let count = size.min(2000);
                for number in 0..count {
                    let line = format!("{} {number}\n", ["out", "err"][number % 2]);
                    expected[number % 2].extend(line.bytes());
                }
                with("merge", &[count])
            }
            3 => {
                let count = size.min(5000);
                (0..count).for_each(|number| expected[0].extend(format!("line {number}\n").bytes()));
                with("lines", &[count])
            }
            4 => {
                code = 7;
                with("exit", &[7])
            }
            5 => {
                sleeps = true;
                with("sleep", &[60_000])
            }
            6 => {
                let bytes = text(size);
                expected[0] = bytes.to_ascii_uppercase();
                input = Some(bytes);
                fixture("upper")
            }
            _ => {
                input = Some(text(size));
                expected[0] = text(size);
                fixture("cat")
            }
        };
        let command = command.stop(Stop::new().signal(Signal::TERM, Duration::from_millis(200)).then_kill());
        let follow = self.chance.of(&[Follow::Record, Follow::Lines, Follow::Chunks]);
        let puts_in = self.chance.one_in(2);
        let timeout = self.chance.one_in(8).then(|| Duration::from_millis(self.chance.below(30) as u64));
        self.note(format!("{command} {follow:?}, put in {puts_in}, timeout {timeout:?}"));
        let mut actor = Actor {
            expected,
            taken: [0; 2],
            ended: [false; 2],
            follow,
            rest: None,
            stopped: sleeps,
            untold: false,
            code,
            remind: None,
        };
        let key = if puts_in {
            actor.rest = Some(input.unwrap_or_default());
            self.set.insert_and_follow(command.pipe_all().kill_on_drop().spawn().unwrap(), follow).unwrap()
        } else {
            actor.stopped |= timeout.is_some();
            let command = timeout.into_iter().fold(command, Command::timeout);
            let command = input.into_iter().fold(command, Command::input);
            self.set.start_and_follow(&command, follow).unwrap()
        };
        self.actors.insert(key, actor);
    }

    /// One of the children, if there are any.
    fn any(&mut self) -> Option<ChildKey> {
        let mut keys: Vec<ChildKey> = self.actors.keys().copied().collect();
        keys.sort();
        (!keys.is_empty()).then(|| self.chance.of(&keys))
    }

    fn feed(&mut self) {
        let Some(key) = self.any() else { return };
        let actor = self.actors.get_mut(&key).unwrap();
        let Some(rest) = &mut actor.rest else { return };
        let count = self.chance.of(&[0, 1, 5000, 100_000, usize::MAX]).min(rest.len());
        let piece: Vec<u8> = rest.drain(..count).collect();
        let ends = rest.is_empty();
        let stopped = actor.stopped;
        if ends {
            actor.rest = None;
        }
        self.note(format!("feed {count} {ends}"));
        let fed = self.set.feed(key, piece);
        assert!(stopped || fed.is_ok() || self.actors[&key].expected[0].is_empty(), "{fed:?}");
        if ends {
            assert!(self.set.end_input(key));
        }
    }

    fn stop(&mut self) {
        let Some(key) = self.any() else { return };
        self.note(format!("stop {key:?}"));
        self.actors.get_mut(&key).unwrap().stopped = true;
        assert!(self.set.stop(key));
    }

    fn moments(&mut self) {
        let after = Duration::from_micros(self.chance.of(&[0, 1, 900, 5000]));
        let now = Instant::now();
        self.note(format!("moment in {after:?}"));
        match self.chance.below(4) {
            0 => {
                if let Some(timer) = self.timers.keys().next().copied() {
                    self.timers.remove(&timer);
                    assert!(self.set.remove_timer(timer));
                }
            }
            1 => {
                if let Some(key) = self.any() {
                    assert!(self.set.set_timeout(key, after));
                    self.actors.get_mut(&key).unwrap().remind = Some(now + after);
                }
            }
            _ => drop(self.timers.insert(self.set.add_timer(after), now + after)),
        }
    }

    fn descriptor(&mut self) {
        match self.watched.take() {
            None => {
                let (reader, writer) = std::io::pipe().unwrap();
                let watch = self.set.watch(reader).unwrap();
                self.watched = Some((writer, watch, false));
            }
            Some((writer, watch, _)) if self.chance.one_in(3) => {
                assert!(self.set.unwatch(watch).is_some());
                drop(writer);
            }
            Some((mut writer, watch, _)) => {
                writer.write_all(b"x").unwrap();
                self.watched = Some((writer, watch, true));
            }
        }
    }

    /// Ends alone are asked for.
    fn ends(&mut self) {
        self.note("ends alone");
        self.actors.values_mut().for_each(|actor| actor.untold = true);
        let deadline = Instant::now() + Duration::from_millis(self.chance.below(10) as u64);
        for (key, result) in self.set.wait_all_deadline(deadline).unwrap() {
            self.actors.remove(&key).unwrap().check(result);
        }
        // What was not told is passed over, and where it goes on is not known.
        let loose = |actor: &Actor| actor.follow != Follow::Record;
        for (key, actor) in self.actors.extract_if(|_, actor| loose(actor)).collect::<Vec<_>>() {
            let mut child = self.set.remove(key).unwrap();
            let _report = child.stop(&Stop::kill()).unwrap();
            drop(actor);
        }
    }

    fn take_out(&mut self) {
        let Some(key) = self.any() else { return };
        let mut actor = self.actors.remove(&key).unwrap();
        let mut child: Child = self.set.remove(key).unwrap();
        assert!(self.set.get(key).is_none() && self.set.remove(key).is_none());
        actor.ended = [false; 2];
        match self.chance.below(4) {
            0 => {
                self.note(format!("{key:?} is dropped"));
                let _report = child.stop(&Stop::kill()).unwrap();
            }
            1 => {
                self.note(format!("{key:?} is talked to"));
                if actor.stopped {
                    let _report = child.stop(&Stop::kill()).unwrap();
                }
                let rest = actor.rest.take().unwrap_or_default();
                let result = child.communicate(if actor.stopped { Vec::new() } else { rest });
                actor.follow = Follow::Record;
                actor.check(result);
            }
            _ => {
                actor.follow = self.chance.of(&[Follow::Record, Follow::Lines, Follow::Chunks]);
                self.note(format!("{key:?} is put in again as {:?}", actor.follow));
                // Its input was ended before, or is held open now.
                actor.remind = None;
                let is_open = child.stdin.is_some() && actor.rest.is_none();
                let key = self.set.insert_and_follow(child, actor.follow).unwrap();
                if is_open {
                    assert!(self.set.end_input(key));
                }
                if actor.stopped {
                    self.set.stop(key);
                }
                self.actors.insert(key, actor);
            }
        }
    }

    /// One of the news. False if there are none.
    fn wait(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let Some(news) = self.set.wait_any_deadline(deadline).unwrap() else { return false };
        match news {
            News::Timer(timer) => assert!(Instant::now() >= self.timers.remove(&timer).unwrap()),
            News::Timeout(key) => {
                let moment = self.actors.get_mut(&key).unwrap().remind.take();
                assert!(moment.is_some_and(|moment| Instant::now() >= moment));
            }
            News::Readable(watch) => {
                let (_, of, is_readable) = self.watched.as_ref().unwrap();
                assert!(*of == watch && *is_readable);
            }
            News::Line { child, line } => {
                let behind = usize::from(line.end() == LineEnd::Newline);
                self.actors.get_mut(&child).unwrap().takes(line.stream(), line.bytes(), behind);
            }
            News::Chunk { child, stream, bytes } => {
                assert!(!bytes.is_empty());
                self.actors.get_mut(&child).unwrap().takes(stream, bytes, 0);
            }
            News::End { child, stream } => {
                let actor = self.actors.get_mut(&child).unwrap();
                assert!(!std::mem::replace(&mut actor.ended[stream as usize], true));
            }
            News::Exit { child, result } => {
                assert!(self.set.get(child).is_none());
                self.actors.remove(&child).unwrap().check(result);
            }
        }
        true
    }

    fn finish(&mut self) {
        self.note("finish");
        if let Some((_, watch, _)) = self.watched.take() {
            self.set.unwatch(watch);
        }
        for (key, actor) in &mut self.actors {
            if actor.stopped {
                assert!(self.set.stop(*key));
            }
            if let Some(rest) = actor.rest.take() {
                let fed = self.set.feed(*key, rest);
                assert!(actor.stopped || fed.is_ok() || actor.expected[0].is_empty(), "{fed:?}");
                assert!(self.set.end_input(*key));
            }
        }
        let end = Instant::now() + Duration::from_secs(30);
        while !self.set.is_empty() || !self.timers.is_empty() {
            self.wait(Duration::from_secs(30));
            assert!(Instant::now() < end, "{:?}", self.actors.keys());
        }
        assert!(self.actors.is_empty() && self.set.wait_any().unwrap().is_none());
    }
}
