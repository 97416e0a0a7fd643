//! A set of children: what is told, in which order, what of it can be taken back, and what a loop around it needs.

use crate::inject::{Rule, deny};
use crate::support::{Scratch, alone, descriptors, fixture, fixture_path, is_running, state_of, wait_for};
use crate::talk::{Leftover, cpu_time, noise, pattern, pid_in, pids_in, sleeps};
use nix::sys::eventfd::EventFd;
use procession::{
    Captured, Cause, ChildKey, ChildSet, Command, Completeness, Deadline, Error, ErrorKind, Filter, Follow, Input,
    LineEnd, News, Output, Overflow, Signal, Stdio, Stop, Stream, Target, Text, TimerKey, WatchKey,
};
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(100);
/// Far more than anything here may take, and far less than the lives of those who are stopped.
const BOUND: Duration = Duration::from_secs(20);

/// News that can be kept.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // there are few
enum Told {
    Timer(TimerKey),
    Timeout(ChildKey),
    Readable(WatchKey),
    Line(ChildKey, Stream, String, LineEnd),
    Chunk(ChildKey, Stream, Vec<u8>),
    End(ChildKey, Stream),
    Exit(ChildKey, Result<Output, Error>),
}

fn told(news: News<'_>) -> Told {
    match news {
        News::Timer(timer) => Told::Timer(timer),
        News::Timeout(child) => Told::Timeout(child),
        News::Readable(watch) => Told::Readable(watch),
        News::Line { child, line } => Told::Line(child, line.stream(), line.to_string(), line.end()),
        News::Chunk { child, stream, bytes } => Told::Chunk(child, stream, bytes.to_vec()),
        News::End { child, stream } => Told::End(child, stream),
        News::Exit { child, result } => Told::Exit(child, result),
    }
}

/// The next news, which must come.
#[track_caller]
fn next(set: &mut ChildSet) -> Told {
    told(set.wait_any_timeout(BOUND).unwrap().expect("nothing has happened"))
}

/// All news until nothing is left.
fn all(set: &mut ChildSet) -> Vec<Told> {
    let mut all = Vec::new();
    while let Some(news) = set.wait_any().unwrap() {
        all.push(told(news));
    }
    all
}

/// The next end of a child, whatever else comes before.
#[track_caller]
fn next_exit(set: &mut ChildSet) -> (ChildKey, Result<Output, Error>) {
    loop {
        if let Told::Exit(child, result) = next(set) {
            return (child, result);
        }
    }
}

// ---- records

#[test]
fn records_come_as_the_children_end() {
    alone!({
        let (reader, writer) = procession::pipe().unwrap();
        let mut set = ChildSet::new().unwrap();
        assert!(set.is_empty() && set.wait_any().unwrap().is_none());
        let slow = set.start(&Command::shell("read x <&3; echo slow; exit 3").fd(3, reader)).unwrap();
        let quick = set.start(&Command::shell("cat; echo oops >&2").input("quick")).unwrap();
        assert_eq!((set.len(), set.keys().collect::<Vec<_>>()), (2, vec![slow, quick]));
        let (first, output) = next_exit(&mut set);
        let output = output.unwrap();
        assert_eq!((first, output.stdout(), output.stderr()), (quick, &b"quick"[..], &b"oops\n"[..]));
        assert!(set.get(quick).is_none() && set.get(slow).is_some());
        drop(writer);
        let (second, output) = next_exit(&mut set);
        let output = output.unwrap();
        assert_eq!((second, output.stdout(), output.status().code()), (slow, &b"slow\n"[..], Some(3)));
        assert!(set.is_empty() && set.wait_any().unwrap().is_none());
    });
}

/// What there is to say of a record, but for times and numbers that differ from run to run.
fn essence(result: Result<Output, Error>) -> String {
    let (kind, detail, output) = match &result {
        Ok(output) => (None, String::new(), output),
        Err(error) => (Some(error.kind()), error.to_string(), error.output()),
    };
    let pid = output.pid().unwrap_or(0).to_string();
    let stream = |stream: &Captured| {
        let holders = match stream.completeness() {
            Completeness::CutOff { holders } => format!("cut off by {}", holders.len()),
            other => format!("{other:?}"),
        };
        format!(
            "{:?} of {}, dropped {}, gap {:?}, {holders}, {:?}",
            String::from_utf8_lossy(stream.bytes()),
            stream.total(),
            stream.dropped(),
            stream.gap(),
            stream.spilled()
        )
    };
    let streams = format!("{}\n{}", stream(output.captured_stdout()), stream(output.captured_stderr()));
    let leftover: Vec<u32> = pids_in(output.stdout(), "grandchild");
    drop(Leftover(leftover));
    // A number is a number, however long it is.
    let digits = |text: &str| {
        let mut short = text.replace(|c: char| c.is_ascii_digit(), "#");
        while short.contains("##") {
            short = short.replace("##", "#");
        }
        short
    };
    format!(
        "{kind:?} {} {} {:?} {:?} {} {} pieces {} survivors {} {}\n{}",
        output.command(),
        output.status(),
        output.success(),
        output.cause(),
        // How much of it reached a child that did not want it is chance.
        if output.input_refused() { "some".to_owned() } else { output.input_accepted().to_string() },
        output.input_refused(),
        !output.transcript().is_empty(),
        output.survivors().len(),
        output.explanation().is_some(),
        digits(&format!("{streams}\n{}", detail.replace(&pid, "PID")))
    )
}

/// Commands whose records do not depend on chance.
fn cases(scratch: &Scratch) -> Vec<Command> {
    let long = "x".repeat(300_000);
    let spew = |size: usize| fixture("spew").arg(size.to_string());
    let spilled = |name: &str| Overflow::Spill(scratch.join(name));
    let brief = Stop::term_then_kill(SHORT);
    vec![
        fixture("echo").args(["one", "two"]),
        fixture("echoerr").arg("oops"),
        fixture("exit").arg("7"),
        fixture("exit").arg("7").accept([7]),
        fixture("raise").arg("TERM"),
        fixture("cat").input(long.clone()),
        fixture("cat").input(Input::reader(std::io::Cursor::new(long.clone().into_bytes()))),
        fixture("swallow").arg("5").input(long.clone()),
        fixture("close-in").arg("0").input(long),
        fixture("alternate").args(["200000", "1000", "1000"]),
        fixture("a2").args(["100000", "100000"]).input("12345"),
        fixture("echo").arg("to nobody").stdout(Stdio::null()),
        fixture("merge").arg("10").stderr(Stdio::stdout()),
        fixture("cat").stdin(Stdio::read("/dev/null")),
        fixture("flood").capture_limit(10, Overflow::Fail).stop(brief.clone()),
        spew(1000).capture_limit(10, Overflow::Head),
        spew(200_000).capture_limit(10, Overflow::Tail),
        spew(200_000).capture_limit(11, Overflow::HeadTail),
        spew(200_000).capture_limit(1000, spilled("spilled")),
        spew(0).capture_limit(0, Overflow::Fail),
        spew(1_000_000).transcript().capture_limit(5, Overflow::Tail),
        fixture("sleep").arg("60000").timeout(SHORT),
        fixture("deaf").arg("60000").timeout(Duration::from_secs(2)).stop(brief.clone()),
        fixture("say-sleep").args(["begun", "60000", ""]).timeout(Duration::from_secs(2)),
        fixture("term-spew").arg("100000").timeout(Duration::from_secs(2)),
        fixture("sleep").arg("60000").timeout(SHORT).stop(Stop::new().close_stdin(SHORT).then_kill()).input("x"),
        fixture("grandchild").arg("60000").drain(SHORT),
        fixture("grandchild").arg("60000").drain(Duration::ZERO),
        fixture("spew").arg("100000").tee(Target::write(scratch.join("copy"))),
        fixture("lines").arg("50").tee(Target::writer(Arc::new(Mutex::new(Broken)))).stop(brief),
        fixture("lines")
            .arg("50")
            .tee(Target::write(scratch.join("few")).filter(Filter::keep_lines(|line| line.ends_with(b"7")))),
        fixture("stty").arg("0").stdin(Stdio::pty()),
        fixture("tty").pty(procession::Pty::new().crlf(false)),
        fixture("cat").pty(procession::Pty::new()).input("typed\n"),
        Command::new("/no/such/program"),
        fixture("echo").current_dir("/no/such/directory"),
        fixture("echo").input("x").stdin(Stdio::null()),
    ]
}

/// A target that takes nothing.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("broken"))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn both_drivers_give_the_same_records() {
    alone!({
        let (one, other) = (Scratch::new(), Scratch::new());
        let strip = |text: String, scratch: &Scratch| text.replace(&scratch.path().display().to_string(), "DIR");
        let expected: Vec<String> = std::thread::scope(|scope| {
            let run = |command: Command| scope.spawn(move || essence(command.output()));
            let threads: Vec<_> = cases(&one).into_iter().map(run).collect();
            threads.into_iter().map(|thread| strip(thread.join().unwrap(), &one)).collect()
        });
        let mut set = ChildSet::new().unwrap();
        let mut results: Vec<Option<String>> = expected.iter().map(|_| None).collect();
        let mut places = HashMap::new();
        for (place, command) in cases(&other).iter().enumerate() {
            match set.start(command) {
                Ok(child) => drop(places.insert(child, place)),
                Err(error) => results[place] = Some(strip(essence(Err(error)), &other)),
            }
        }
        for (child, result) in set.wait_all().unwrap() {
            results[places[&child]] = Some(strip(essence(result), &other));
        }
        for (place, expected) in expected.iter().enumerate() {
            assert_eq!(results[place].as_ref(), Some(expected));
        }
        for name in ["copy", "few", "spilled"] {
            let read = |scratch: &Scratch| std::fs::read(scratch.join(name)).unwrap();
            assert!(read(&one) == read(&other), "{name}");
        }
    });
}

/// The same again for children whose output is told: what was told and what the record has kept.
#[test]
fn what_is_told_is_what_the_other_driver_shows() {
    alone!({
        let commands = || {
            vec![
                fixture("lines").arg("2000"),
                fixture("merge").arg("500"),
                fixture("bytes")
                    .args(["610d", "0a620a0d", "0a", "63"])
                    .text(Text::utf8().newlines(procession::Newlines::Universal)),
                fixture("spew").arg("100000").line_limit(999),
                fixture("echo").arg("hidden").stdout(Stdio::null()),
                fixture("alternate").args(["100000", "7", "9000"]).line_limit(64),
                fixture("cat").input("no end"),
                fixture("grandchild").arg("60000").drain(SHORT),
                fixture("lines").arg("100").pty(procession::Pty::new()),
            ]
        };
        for (command, again) in commands().into_iter().zip(commands()) {
            let mut expected: [Vec<(String, LineEnd)>; 2] = Default::default();
            let result = command.for_each_line(|line| {
                expected[line.stream() as usize].push((line.to_string(), line.end()));
            });
            let mut lines: [Vec<(String, LineEnd)>; 2] = Default::default();
            let mut chunks: [Vec<u8>; 2] = Default::default();
            let mut exits = Vec::new();
            let mut set = ChildSet::new().unwrap();
            let by_line = set.start_and_follow(&again, Follow::Lines).unwrap();
            let by_chunk = set.start_and_follow(&again, Follow::Chunks).unwrap();
            for news in all(&mut set) {
                match news {
                    Told::Line(child, stream, text, end) if child == by_line => {
                        lines[stream as usize].push((text, end));
                    }
                    Told::Chunk(child, stream, bytes) if child == by_chunk => {
                        assert!(!bytes.is_empty());
                        chunks[stream as usize].extend(bytes);
                    }
                    Told::End(..) => {}
                    Told::Exit(_, result) => exits.push(result),
                    other => panic!("{other:?}"),
                }
            }
            let masked = |all: [Vec<(String, LineEnd)>; 2]| {
                all.map(|stream| {
                    let masked = |(text, end): (String, LineEnd)| match text.starts_with("grandchild") {
                        true => ("grandchild".to_owned(), end),
                        false => (text, end),
                    };
                    stream.into_iter().map(masked).collect::<Vec<_>>()
                })
            };
            assert_eq!(masked(lines), masked(expected), "{command}");
            let expected = essence(result);
            for exit in exits {
                let captured = exit.as_ref().unwrap();
                let streams = [captured.captured_stdout(), captured.captured_stderr()];
                for (stream, told) in streams.into_iter().zip(&chunks) {
                    if !command.to_string().contains("grandchild") {
                        assert_eq!(stream.total(), told.len() as u64, "{command}");
                        assert!(told.ends_with(stream.bytes()));
                    }
                }
                assert_eq!(essence(exit), expected);
            }
        }
    });
}

// ---- what is told, and in which order

#[test]
fn lines_then_ends_then_the_exit() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let command = Command::shell("echo one; echo oops >&2; echo two; printf three");
        let child = set.start_and_follow(&command, Follow::Lines).unwrap();
        let all = all(&mut set);
        let of = |wanted: Stream| -> Vec<String> {
            let place = |news: &Told| match news {
                Told::Line(of, stream, text, end) if *of == child && *stream == wanted => {
                    Some(format!("{text} {end:?}"))
                }
                Told::End(of, stream) if *of == child && *stream == wanted => Some("end".to_owned()),
                _ => None,
            };
            all.iter().filter_map(place).collect()
        };
        assert_eq!(of(Stream::Stdout), ["one Newline", "two Newline", "three Stream", "end"]);
        assert_eq!(of(Stream::Stderr), ["oops Newline", "end"]);
        let Some(Told::Exit(_, Ok(output))) = all.last() else { panic!("{all:?}") };
        assert_eq!((output.stdout(), output.stderr()), (&b"one\ntwo\nthree"[..], &b"oops\n"[..]));
        assert_eq!(all.iter().filter(|news| matches!(news, Told::Exit(..))).count(), 1);
    });
}

#[test]
fn streams_that_are_not_ours_have_no_end() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let command = fixture("merge").arg("2").stdout(Stdio::null());
        set.start_and_follow(&command, Follow::Lines).unwrap();
        let all = all(&mut set);
        let [Told::Line(_, Stream::Stderr, text, _), Told::End(_, Stream::Stderr), Told::Exit(..)] = &all[..] else {
            panic!("{all:?}")
        };
        assert_eq!(text, "err 1");
    });
}

#[test]
fn timers_come_first_and_by_their_moments() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let child = set.start_and_follow(&fixture("lines").arg("3"), Follow::Lines).unwrap();
        let silent = set.start(&fixture("sleep").arg("60000")).unwrap();
        // One line is told, and two wait.
        assert!(matches!(next(&mut set), Told::Line(..)));
        let moment = Instant::now();
        // Far enough from each other for a thread that has to wait for its turn.
        set.set_deadline(silent, moment + Duration::from_millis(200));
        let second = set.add_timer(Duration::from_millis(300));
        let first = set.add_timer(Duration::ZERO);
        wait_for("the moment", || moment.elapsed() > Duration::from_millis(600));
        let mut order = Vec::new();
        while order.len() < 5 {
            order.push(match next(&mut set) {
                Told::Timer(timer) if timer == first => "first",
                Told::Timer(timer) if timer == second => "second",
                Told::Timeout(of) if of == silent => "timeout",
                Told::Line(of, ..) if of == child => "line",
                other => panic!("{other:?}"),
            });
        }
        let place = |name| order.iter().position(|word| *word == name).unwrap();
        assert!(place("timeout") < place("second") && place("first") < place("second"), "{order:?}");
        assert!(place("timeout") <= 2, "{order:?}");
        set.stop(silent);
        set.wait_all().unwrap();
    });
}

#[test]
fn a_timer_is_never_early_and_some_never_come() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let begun = Instant::now();
        let mut expected = HashMap::new();
        for micros in [0, 1, 999, 1001, 20_300, 20_300, 50_001] {
            let after = Duration::from_micros(micros);
            expected.insert(set.add_timer(after), after);
        }
        let never = set.add_timer(Duration::MAX);
        let taken_back = set.add_timer(SHORT);
        assert!(set.remove_timer(taken_back) && !set.remove_timer(taken_back));
        assert!(set.next_moment().has_passed());
        while let Some(news) = set.wait_any().unwrap() {
            let Told::Timer(timer) = told(news) else { panic!() };
            assert!(begun.elapsed() >= expected.remove(&timer).unwrap());
        }
        // What never comes is not waited for.
        assert!(expected.is_empty() && begun.elapsed() < BOUND);
        assert!(set.next_moment() == Deadline::NEVER);
        assert!(set.remove_timer(never));
    });
}

#[test]
fn timers_that_come_faster_than_they_are_dealt_with_do_not_keep_children_waiting() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        set.start_and_follow(&fixture("lines").arg("1000"), Follow::Lines).unwrap();
        let (mut lines, mut timers) = (0, 0);
        set.add_timer(Duration::ZERO);
        loop {
            match next(&mut set) {
                Told::Timer(_) => {
                    timers += 1;
                    set.add_timer(Duration::ZERO);
                }
                Told::Line(..) => lines += 1,
                Told::Exit(..) => break,
                _ => {}
            }
            assert!(timers < 1_000_000, "{lines} lines");
        }
        assert_eq!(lines, 1000);
        assert!(timers >= 900, "they take turns: {timers}");
    });
}

#[test]
fn who_has_had_a_turn_comes_behind_the_others() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let mut pids = Vec::new();
        for _ in 0..5 {
            let child = set.start_and_follow(&fixture("flood"), Follow::Chunks).unwrap();
            pids.push(set.get(child).unwrap().id());
        }
        for _ in 0..10 {
            wait_for("full pipes", || pids.iter().all(|pid| state_of(*pid) == Some('S')));
            let mut turns = HashSet::new();
            for _ in &pids {
                match next(&mut set) {
                    Told::Chunk(child, Stream::Stdout, piece) => {
                        assert!(piece.len() <= 256 * 1024 && turns.insert(child), "twice the same");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}

/// Whoever has been told that a child is in a set by a key that is out of date gets an answer.
#[test]
fn keys_of_those_who_are_gone_mean_nobody() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let old = set.start(&fixture("exit").arg("0")).unwrap();
        next_exit(&mut set).1.unwrap();
        let new = set.start(&fixture("sleep").arg("60000")).unwrap();
        assert_ne!(old, new);
        assert!(set.get(old).is_none() && set.explain(old).is_none() && set.remove(old).is_none());
        assert!(!set.stop(old) && !set.end_input(old) && !set.set_timeout(old, SHORT));
        assert_eq!(set.feed(old, "x").unwrap_err().kind(), ErrorKind::InvalidInput);
        let watch = set.watch(std::io::pipe().unwrap().0).unwrap();
        assert!(set.unwatch(watch).is_some() && set.unwatch(watch).is_none() && set.watched(watch).is_none());
        assert!(set.get(new).is_some());
    });
}

// ---- children that are put in

#[test]
fn a_child_that_was_put_in_is_fed_and_read_at_the_same_time() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let bytes = noise(1 << 20);
        let child = set.insert(fixture("cat").pipe_all().spawn().unwrap()).unwrap();
        // It waits for input, and not for the end of it.
        assert!(set.wait_any_timeout(SHORT).unwrap().is_none());
        for piece in bytes.chunks(300_000) {
            set.feed(child, piece.to_vec()).unwrap();
            assert!(set.wait_any_timeout(Duration::from_millis(2)).unwrap().is_none());
        }
        assert!(set.end_input(child));
        let error = set.feed(child, "too late").err();
        let (_, result) = next_exit(&mut set);
        let output = result.unwrap();
        assert!(output.stdout() == bytes || error.is_none());
        assert_eq!(output.input_accepted(), output.stdout().len() as u64);
        assert!(output.success() && output.is_complete());
    });
}

#[test]
fn input_that_cannot_reach_the_child_is_refused() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let child = set.insert(fixture("sleep").arg("60000").stdin(Stdio::null()).spawn().unwrap()).unwrap();
        assert_eq!(set.feed(child, "x").unwrap_err().kind(), ErrorKind::InvalidInput);
        let started = set.start(&fixture("sleep").arg("60000")).unwrap();
        assert_eq!(set.feed(started, "x").unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn turns_with_several_children() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let mut left = HashMap::new();
        for number in 0..5 {
            let child = fixture("pingpong").pipe_all().spawn().unwrap();
            let child = set.insert_and_follow(child, Follow::Lines).unwrap();
            set.feed(child, format!("{number}\n")).unwrap();
            left.insert(child, 20);
        }
        let mut exits = 0;
        while let Some(news) = set.wait_any().unwrap() {
            match told(news) {
                Told::Line(child, _, text, _) => {
                    let left = left.get_mut(&child).unwrap();
                    *left -= 1;
                    match left {
                        0 => assert!(set.end_input(child)),
                        _ => set.feed(child, format!("{}\n", text.trim_start_matches("pong "))).unwrap(),
                    }
                }
                Told::Exit(_, result) => {
                    assert!(result.unwrap().success());
                    exits += 1;
                }
                _ => {}
            }
        }
        assert_eq!(exits, 5);
        assert!(left.values().all(|left| *left == 0));
    });
}

#[test]
fn a_conversation_that_was_begun_goes_on_in_a_set_and_behind_it() {
    alone!({
        let bytes = noise(400_000);
        let mut child = fixture("cat").pipe_all().spawn().unwrap();
        // Nobody reads what it writes for long: part of the input is left.
        let error = child.communicate_timeout(bytes.clone(), Duration::from_micros(1)).unwrap_err();
        assert!(error.is_timeout());
        let mut set = ChildSet::new().unwrap();
        let key = set.insert_and_follow(child, Follow::Chunks).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 100_000 {
            match next(&mut set) {
                Told::Chunk(_, _, piece) => seen.extend(piece),
                other => panic!("{other:?}"),
            }
        }
        // Whatever was read and not told is still there.
        let mut child = set.remove(key).unwrap();
        assert!(set.is_empty() && set.wait_any().unwrap().is_none());
        let output = child.communicate("and more").unwrap();
        seen.extend_from_slice(output.stdout());
        assert!(seen == [&bytes[..], b"and more"].concat(), "{} of {}", seen.len(), bytes.len() + 8);
    });
}

/// What was collected before is told first, however much it is.
#[test]
fn what_was_collected_is_told_when_somebody_wants_to_hear_it() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let child = fixture("a2").args(["300000", "0"]).pipe_all().spawn().unwrap();
        let key = set.insert(child).unwrap();
        // It waits for its input when all has been read that it wrote before.
        wait_for("so much to read", || {
            assert!(set.wait_any_timeout(Duration::from_millis(1)).unwrap().is_none());
            set.explain(key).unwrap().streams.iter().any(|stream| stream.passed == Some(300_000))
        });
        let child = set.remove(key).unwrap();
        let key = set.insert_and_follow(child, Follow::Chunks).unwrap();
        assert!(set.end_input(key));
        let mut bytes = Vec::new();
        for news in all(&mut set) {
            if let Told::Chunk(of, Stream::Stderr, piece) = news {
                assert_eq!(of, key);
                bytes.extend(piece);
            }
        }
        assert!(bytes == [&pattern(300_000)[..], b"0\n"].concat(), "{}", bytes.len());
    });
}

#[test]
fn a_child_is_taken_out_in_the_middle_of_its_lines() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let key = set.start_and_follow(&fixture("lines").arg("1000"), Follow::Lines).unwrap();
        for number in 0..100 {
            let Told::Line(_, _, text, _) = next(&mut set) else { panic!() };
            assert_eq!(text, format!("line {number}"));
        }
        let mut child = set.remove(key).unwrap();
        let rest: Vec<String> = child.lines().map(|line| line.unwrap().to_string()).collect();
        assert_eq!(rest, (100..1000).map(|number| format!("line {number}")).collect::<Vec<_>>());
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_child_whose_end_was_not_told_is_taken_out_with_its_record() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let first = set.start(&fixture("echo").arg("one")).unwrap();
        let second = set.start(&fixture("echo").arg("two")).unwrap();
        for child in [first, second] {
            let handle = set.get(child).unwrap().handle().clone();
            handle.wait().unwrap();
        }
        // Both are looked at in one wait, and one of them is told.
        let (told, _) = next_exit(&mut set);
        let (other, word) = if told == first { (second, "two\n") } else { (first, "one\n") };
        // Nothing is told of it before but its end.
        assert!(set.set_timeout(other, Duration::ZERO));
        assert!(set.next_moment().has_passed());
        let mut child = set.remove(other).unwrap();
        assert_eq!(child.communicate(()).unwrap().stdout(), word.as_bytes());
        assert!(set.is_empty() && set.wait_any().unwrap().is_none());
    });
}

#[test]
fn that_a_child_runs_is_not_told_when_it_has_ended() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        for number in 0..3 {
            let child = set.start(&fixture("exit").arg(number.to_string())).unwrap();
            set.get(child).unwrap().handle().clone().wait().unwrap();
        }
        // All three are looked at in one wait.
        next_exit(&mut set).1.unwrap();
        let rest: Vec<ChildKey> = set.keys().collect();
        rest.iter().for_each(|child| assert!(set.set_timeout(*child, Duration::ZERO)));
        for _ in rest {
            assert!(matches!(next(&mut set), Told::Exit(..)));
        }
    });
}

#[test]
fn a_child_that_is_taken_out_is_what_it_was_before() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        for kills in [false, true] {
            let command = fixture("sleep").arg("60000");
            let command = if kills { command.kill_on_drop() } else { command };
            let key = set.start(&command).unwrap();
            let child = set.remove(key).unwrap();
            let handle = child.handle().clone();
            drop(child);
            assert_eq!(handle.try_wait().unwrap().is_some(), kills);
            handle.kill().unwrap();
            handle.wait().unwrap();
        }
    });
}

#[test]
fn a_stop_that_goes_on_can_be_taken_out() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let command = fixture("deaf").arg("60000").stop(Stop::term_then_kill(Duration::from_secs(600)));
        let key = set.start_and_follow(&command, Follow::Lines).unwrap();
        assert!(matches!(next(&mut set), Told::Line(..)));
        assert!(set.stop(key) && set.stop(key));
        assert!(set.wait_any_timeout(SHORT).unwrap().is_none());
        let mut child = set.remove(key).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        assert!(child.stop(&Stop::kill()).unwrap().is_stopped());
    });
}

// ---- timeouts and stops

#[test]
fn a_timeout_of_the_command_stops_it_and_keeps_what_it_said() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let begun = Instant::now();
        set.start(&Command::shell("echo begun; sleep 60").timeout(Duration::from_millis(400))).unwrap();
        let (_, result) = next_exit(&mut set);
        let error = result.unwrap_err();
        assert!(error.is_timeout() && error.output().stdout() == b"begun\n", "{error}");
        assert!(error.to_string().contains("timed out after 400ms"), "{error}");
        assert!(begun.elapsed() >= Duration::from_millis(400) && begun.elapsed() < BOUND);
    });
}

#[test]
fn a_child_that_still_runs_is_told_once_and_not_stopped() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let child = set.start(&fixture("sleep").arg("60000")).unwrap();
        let quick = set.start(&fixture("exit").arg("0")).unwrap();
        let begun = Instant::now();
        assert!(set.set_timeout(quick, Duration::from_secs(600)) && set.set_timeout(child, Duration::MAX));
        assert!(set.set_timeout(child, SHORT));
        let (mut timeouts, mut exits) = (0, 0);
        while timeouts == 0 {
            match next(&mut set) {
                Told::Timeout(of) => {
                    assert!(of == child && begun.elapsed() >= SHORT);
                    timeouts += 1;
                }
                Told::Exit(of, _) => {
                    assert_eq!(of, quick);
                    exits += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(is_running(set.get(child).unwrap().id()));
        // The timeout of one that has ended is not told, and does not keep the set waiting.
        assert!(set.next_moment() == Deadline::NEVER || exits == 0);
        assert!(set.set_timeout(child, SHORT) && set.set_deadline(child, Deadline::NEVER));
        assert!(set.wait_any_timeout(SHORT * 2).unwrap().is_none() || exits == 0);
        assert!(set.stop(child));
        let output = next_exit(&mut set).1.unwrap();
        assert_eq!((output.cause(), output.status().signal()), (Cause::Stopped, Some(Signal::TERM)));
    });
}

#[test]
fn what_a_child_says_while_it_is_stopped_is_told() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let child = set.start_and_follow(&fixture("term-spew").arg("300000"), Follow::Chunks).unwrap();
        let mut bytes = Vec::new();
        let output = loop {
            match next(&mut set) {
                Told::Chunk(_, _, piece) => {
                    bytes.extend(piece);
                    assert!(set.stop(child));
                }
                Told::Exit(_, result) => break result.unwrap(),
                _ => {}
            }
        };
        assert!(bytes == [b"ready\n", &pattern(300_000)[..]].concat());
        assert!(output.success() && output.cause() == Cause::Stopped);
    });
}

#[test]
fn closing_the_input_is_a_step_of_a_stop() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let plan = Stop::new().close_stdin(BOUND * 10).then_kill();
        let child = set.insert(fixture("cat").pipe_all().stop(plan.clone()).spawn().unwrap()).unwrap();
        // So much that the pipe stays full, and is waited for, when the stop begins.
        let full = fixture("late-read").arg("300").pipe_all().stop(plan).spawn().unwrap();
        let full = set.insert(full).unwrap();
        set.feed(full, vec![b'x'; 1 << 20]).unwrap();
        assert!(set.wait_any_timeout(Duration::from_millis(20)).unwrap().is_none());
        let begun = Instant::now();
        set.stop_all();
        for _ in 0..2 {
            let (of, result) = next_exit(&mut set);
            let output = result.unwrap();
            assert_eq!((output.success(), output.cause()), (true, Cause::Stopped));
            assert_eq!(output.input_refused(), of == full);
            assert!(of == child || output.stdout().len() as u64 == output.input_accepted());
        }
        assert!(begun.elapsed() < BOUND);
    });
}

#[test]
fn a_set_that_is_dropped_stops_what_is_in_it() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let plan = Stop::term_then_kill(SHORT);
        let mut handles = Vec::new();
        for _ in 0..10 {
            let deaf = set.start(&fixture("deaf").arg("60000").stop(plan.clone())).unwrap();
            let sleeper = set.insert(fixture("sleep").arg("60000").spawn().unwrap()).unwrap();
            let reader = set.insert(fixture("cat").pipe_all().spawn().unwrap()).unwrap();
            handles.extend([deaf, sleeper, reader].map(|child| set.get(child).unwrap().handle().clone()));
        }
        drop(set);
        assert!(handles.iter().all(|handle| handle.status().is_some()));
    });
}

#[test]
fn unwinding_stops_what_is_in_the_set() {
    alone!({
        let caught = std::panic::catch_unwind(|| {
            let mut set = ChildSet::new().unwrap();
            set.start(&fixture("sleep").arg("60000")).unwrap();
            set.start_and_follow(&fixture("flood"), Follow::Lines).unwrap();
            set.wait_any().unwrap();
            panic!("on purpose");
        });
        assert!(caught.is_err());
    });
}

// ---- grandchildren, terminals, targets

#[test]
fn a_grandchild_that_keeps_a_pipe_does_not_keep_the_set() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        for drain in [Duration::ZERO, SHORT] {
            set.start_and_follow(&fixture("grandchild").arg("60000").drain(drain), Follow::Lines).unwrap();
        }
        set.start(&fixture("grandchild").args(["400", "late"]).drain(Duration::MAX)).unwrap();
        let begun = Instant::now();
        let (mut sweep, mut ends, mut outputs) = (Leftover(Vec::new()), 0, Vec::new());
        for news in all(&mut set) {
            match news {
                Told::Line(_, _, text, _) => sweep.0.push(pid_in(&text)),
                Told::End(..) => ends += 1,
                Told::Exit(_, result) => outputs.push(result.unwrap()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((sweep.0.len(), ends), (2, 4));
        for output in &outputs[..2] {
            let Completeness::CutOff { holders } = output.captured_stdout().completeness() else { panic!() };
            assert_eq!(holders.len(), 1);
            assert!(sweep.0.contains(&holders[0].pid) && output.explanation().is_some());
        }
        assert!(outputs[2].is_complete() && outputs[2].stdout().ends_with(b"late\n"));
        assert!(begun.elapsed() < BOUND);
    });
}

#[test]
fn children_on_terminals() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let command = fixture("pingpong").pty(procession::Pty::new());
        let child = set.insert_and_follow(command.spawn().unwrap(), Follow::Lines).unwrap();
        set.feed(child, "one\n").unwrap();
        let winch = set.insert_and_follow(fixture("winch").pty(procession::Pty::new()).spawn().unwrap(), Follow::Lines);
        let winch = winch.unwrap();
        let (mut lines, mut exits) = (Vec::new(), 0);
        while let Some(news) = set.wait_any().unwrap() {
            match told(news) {
                Told::Line(of, Stream::Stdout, text, _) => {
                    match text.as_str() {
                        "pong one" => set.feed(child, "two\n").unwrap(),
                        "pong two" => assert!(set.end_input(child)),
                        "ready" => set.get(winch).unwrap().terminal().unwrap().resize(33, 44).unwrap(),
                        "33 44" => assert!(set.end_input(of)),
                        other => panic!("{other}"),
                    }
                    lines.push(text);
                }
                Told::Exit(_, result) => {
                    assert!(result.unwrap().success());
                    exits += 1;
                }
                _ => {}
            }
        }
        lines.sort();
        assert_eq!(
            (lines, exits),
            (vec!["33 44", "pong one", "pong two", "ready"].into_iter().map(str::to_owned).collect(), 2)
        );
    });
}

#[test]
fn a_target_that_takes_nothing_keeps_nobody_else_waiting() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let mut options = std::fs::OpenOptions::new();
        use std::os::unix::fs::OpenOptionsExt;
        let mut reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let mut set = ChildSet::new().unwrap();
        let size = 500_000;
        let slow = set.start(&fixture("spew").arg(size.to_string()).tee(Target::write(&path))).unwrap();
        let late = set.start(&fixture("spew").arg("300000").tee(Target::write(&path)).timeout(Duration::from_secs(1)));
        let late = late.unwrap();
        let begun = Instant::now();
        for _ in 0..10 {
            let quick = set.start(&fixture("echo").arg("quick")).unwrap();
            let (of, output) = next_exit(&mut set);
            assert_eq!((of, output.unwrap().stdout()), (quick, &b"quick\n"[..]));
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        // A timeout comes whatever a target does, and the child that waits does not keep a processor busy.
        let (time, before) = (cpu_time(), sleeps());
        let (of, result) = next_exit(&mut set);
        assert!(of == late && result.unwrap_err().is_timeout());
        let (time, sleeps) = (cpu_time() - time, sleeps() - before);
        assert!(sleeps < 2000 && time < Duration::from_millis(500), "{sleeps} times awake, {time:?}");
        let mut copy = Vec::new();
        while set.get(slow).is_some() {
            let _ = reader.read_to_end(&mut copy);
            if let Some(news) = set.wait_any_timeout(Duration::from_millis(5)).unwrap() {
                let Told::Exit(_, result) = told(news) else { panic!() };
                assert!(result.unwrap().stdout() == pattern(size));
            }
        }
        let _ = reader.read_to_end(&mut copy);
        assert!(copy.len() >= size);
    });
}

// ---- what the system refuses

#[test]
fn without_descriptors_others_go_on() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let running = set.insert_and_follow(fixture("pingpong").pipe_all().spawn().unwrap(), Follow::Lines).unwrap();
        let mut full: Vec<OwnedFd> = Vec::new();
        while let Ok(fd) = std::io::stdin().as_fd().try_clone_to_owned() {
            full.push(fd);
        }
        let before = set.len();
        for room in [0, 1, 2, 3, 4] {
            full.truncate(full.len() - usize::from(room > 0));
            match set.start(&fixture("sleep").arg("60000")) {
                Ok(child) => {
                    drop(set.remove(child).unwrap().stop(&Stop::kill().scope(procession::Scope::Process)).unwrap())
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}"),
            }
            assert_eq!(set.len(), before);
        }
        assert!(set.waker().is_ok());
        set.feed(running, "still here\n").unwrap();
        let Told::Line(_, _, text, _) = next(&mut set) else { panic!() };
        assert_eq!(text, "pong still here");
        // Enough for two pipes, and not for a descriptor of the process: its end is looked for.
        let more = full.split_off(full.len() - 6);
        drop(more);
        let found = (0..6).find_map(|_| {
            full.extend(std::io::stdin().as_fd().try_clone_to_owned());
            let started = set.start(&fixture("echo").arg("blind"));
            (started.is_err()).then_some(())
        });
        assert!(found.is_some());
        drop(full);
        set.end_input(running);
        for (_, result) in set.wait_all().unwrap() {
            assert!(result.unwrap().success());
        }
    });
}

#[test]
fn a_child_that_cannot_be_waited_for_is_stopped_and_its_error_told() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // As with fs.epoll.max_user_watches.
                deny(&[Rule(libc::SYS_epoll_ctl, libc::ENOSPC, 0)]);
                let begun = Instant::now();
                let plan = Stop::term_then_kill(SHORT);
                let polite = set.start(&fixture("sleep").arg("60000")).unwrap();
                let deaf = set.start(&fixture("deaf").arg("60000").stop(plan)).unwrap();
                // Nothing has to be waited for but the end, and that can be looked for.
                let silent = fixture("exit").arg("3").stdout(Stdio::null()).stderr(Stdio::null());
                let silent = set.start(&silent).unwrap();
                for _ in 0..3 {
                    let (child, result) = next_exit(&mut set);
                    if child == silent {
                        assert_eq!(result.unwrap().status().code(), Some(3));
                        continue;
                    }
                    let error = result.unwrap_err();
                    assert_eq!((error.kind(), error.failed_step()), (ErrorKind::ResourceExhausted, Some("epoll_ctl")));
                    let output = error.output();
                    assert_eq!(output.cause(), Cause::Stopped);
                    let signal = if child == deaf { Signal::KILL } else { Signal::TERM };
                    assert!(child == polite || child == deaf);
                    assert!(output.status().signal().is_some_and(|found| found == signal || child == deaf));
                }
                assert!(begun.elapsed() < BOUND && set.is_empty());
                assert!(set.watch(std::io::pipe().unwrap().0).is_err());
            });
        });
    });
}

#[test]
fn a_file_that_cannot_be_written_stops_the_child() {
    alone!({
        if std::fs::OpenOptions::new().write(true).open("/dev/full").is_err() {
            return;
        }
        // Standard error would get a file beside it, where only root may make one.
        let command = || {
            let spilled = fixture("flood").capture_limit(1000, Overflow::Spill("/dev/full".into()));
            spilled.capture_limit_stderr(1000, Overflow::Tail)
        };
        let expected = command().output().unwrap_err();
        let mut set = ChildSet::new().unwrap();
        set.start(&command()).unwrap();
        let (_, result) = next_exit(&mut set);
        let error = result.unwrap_err();
        assert_eq!(error.failed_step(), Some("spill to"), "{error}");
        assert_eq!((error.kind(), error.output().cause()), (expected.kind(), expected.output().cause()));
        assert_eq!(error.output().captured_stdout().completeness(), expected.output().captured_stdout().completeness());
        assert!(error.output().status().is_known());
    });
}

#[test]
fn input_that_was_used_up_starts_nothing_that_stays() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let command = fixture("cat").input(Input::reader(std::io::Cursor::new(b"once".to_vec())));
        assert_eq!(command.output().unwrap().stdout(), b"once");
        for follow in [Follow::Record, Follow::Lines] {
            let error = set.start_and_follow(&command, follow).unwrap_err();
            assert_eq!(error.to_string(), command.output().unwrap_err().to_string());
            assert!(set.is_empty());
        }
    });
}

#[test]
fn lines_are_refused_where_they_cannot_be_found() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let command = fixture("echo").arg("x").text(Text::encoding("utf-16le").unwrap());
        assert_eq!(set.start_and_follow(&command, Follow::Lines).unwrap_err().kind(), ErrorKind::InvalidInput);
        let child = command.pipe_all().kill_on_drop().spawn().unwrap();
        assert_eq!(set.insert_and_follow(child, Follow::Lines).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(set.is_empty());
    });
}

// ---- descriptors, wakers, and loops of others

#[test]
fn descriptors_of_ones_own_are_told() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let event = EventFd::new().unwrap();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let pipe = set.watch(reader).unwrap();
        let counter = set.watch(event.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let socket = set.watch(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert!(set.wait_any_timeout(Duration::from_millis(20)).unwrap().is_none());
        writer.write_all(b"x").unwrap();
        for _ in 0..3 {
            // As long as nobody reads it.
            assert!(matches!(next(&mut set), Told::Readable(watch) if watch == pipe));
        }
        let mut byte = [0];
        assert_eq!(nix::unistd::read(set.watched(pipe).unwrap(), &mut byte).unwrap(), 1);
        assert!(set.try_wait_any().unwrap().is_none());
        event.write(1).unwrap();
        assert!(matches!(next(&mut set), Told::Readable(watch) if watch == counter));
        event.read().unwrap();
        theirs.write_all(b"y").unwrap();
        assert!(matches!(next(&mut set), Told::Readable(watch) if watch == socket));
        ours.read_exact(&mut byte).unwrap();
        drop(writer);
        assert!(matches!(next(&mut set), Told::Readable(watch) if watch == pipe), "the end");
        // Children are not kept waiting by what nobody reads.
        let child = set.start(&fixture("sleep").arg("300")).unwrap();
        let time = cpu_time();
        let ended = set.wait_all().unwrap();
        assert!(ended.len() == 1 && ended[0].0 == child);
        let time = cpu_time() - time;
        assert!(time < Duration::from_millis(100), "{time:?}");
        assert!(matches!(next(&mut set), Told::Readable(watch) if watch == pipe));
        let given_back = set.unwatch(pipe).unwrap();
        assert_eq!(nix::unistd::read(&given_back, &mut byte).unwrap(), 0);
        assert!(set.try_wait_any().unwrap().is_none());
        let scratch = Scratch::new();
        let file = std::fs::File::create(scratch.join("file")).unwrap();
        assert_eq!(set.watch(file).unwrap_err().kind(), ErrorKind::PermissionDenied);
        theirs.write_all(b"z").unwrap();
        set.unwatch(counter).unwrap();
        set.unwatch(socket).unwrap();
        // Nothing is left to wait for.
        assert!(set.wait_any().unwrap().is_none());
    });
}

#[test]
fn while_only_ends_are_waited_for_nothing_else_is_lost() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let timer = set.add_timer(Duration::ZERO);
        let taken_back = set.add_timer(Duration::ZERO);
        let (reader, mut writer) = std::io::pipe().unwrap();
        let watch = set.watch(reader).unwrap();
        writer.write_all(b"x").unwrap();
        let slow = set.start(&fixture("sleep").arg("60000")).unwrap();
        let quick = set.start(&fixture("sleep").arg("300")).unwrap();
        set.start_and_follow(&fixture("lines").arg("10"), Follow::Lines).unwrap();
        assert!(set.set_timeout(slow, Duration::from_millis(1)) && set.set_timeout(quick, Duration::from_millis(1)));
        let time = cpu_time();
        let mut ended = Vec::new();
        while ended.len() < 2 {
            ended.extend(set.wait_all_deadline(Instant::now() + SHORT).unwrap());
        }
        // What has come and is not asked for keeps nobody busy.
        let time = cpu_time() - time;
        assert!(time < SHORT, "{time:?}");
        assert!(set.next_moment().has_passed() && set.remove_timer(taken_back));
        let mut rest = Vec::new();
        for _ in 0..3 {
            rest.push(match next(&mut set) {
                Told::Timer(of) if of == timer => "timer",
                Told::Timeout(of) if of == slow => "timeout",
                Told::Readable(of) if of == watch => "descriptor",
                other => panic!("{other:?}"),
            });
        }
        // The end is the last that is told of a child.
        assert_eq!(rest, ["timer", "timeout", "descriptor"]);
        assert_eq!(set.len(), 1);
    });
}

#[test]
fn a_waker_ends_a_wait_from_another_thread() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        set.start(&fixture("sleep").arg("60000")).unwrap();
        let waker = set.waker().unwrap();
        let again = set.waker().unwrap();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                scope.spawn(|| again.wake());
                assert!(set.wait_any().unwrap().is_none());
            });
        }
        // However often it is called before the wait, it ends one.
        for _ in 0..1000 {
            waker.wake();
        }
        assert!(set.wait_any_timeout(BOUND).unwrap().is_none());
        let begun = Instant::now();
        assert!(set.wait_any_timeout(SHORT).unwrap().is_none());
        assert!(begun.elapsed() >= SHORT);
        drop(set);
        waker.wake();
    });
}

#[test]
fn who_can_be_woken_has_something_to_wait_for_until_nobody_is_left_who_could() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let before = descriptors();
        let waker = set.waker().unwrap();
        let begun = Instant::now();
        assert!(set.wait_any_timeout(SHORT).unwrap().is_none() && begun.elapsed() >= SHORT);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(SHORT);
                drop(waker);
            });
            assert!(set.wait_any().unwrap().is_none());
        });
        assert!(begun.elapsed() >= SHORT * 2 && begun.elapsed() < BOUND);
        assert_eq!(descriptors(), before);
        assert!(set.wait_any().unwrap().is_none());
        let waker = set.waker().unwrap();
        waker.wake();
        assert!(set.wait_any().unwrap().is_none());
    });
}

/// A loop of the host's that knows the set by its descriptor and its next moment.
#[test]
fn a_set_in_a_loop_of_the_host() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        if set.try_as_fd().is_err() {
            return;
        }
        let mut ends = HashMap::new();
        for number in 0..20 {
            let command = match number % 4 {
                0 => fixture("lines").arg("200"),
                1 => fixture("sleep").arg("50"),
                2 => fixture("sleep").arg("60000").timeout(SHORT),
                _ => fixture("deaf").arg("60000").timeout(SHORT).stop(Stop::term_then_kill(SHORT)),
            };
            ends.insert(set.start_and_follow(&command, Follow::Lines).unwrap(), number);
        }
        let timer = set.add_timer(SHORT);
        let (mut lines, mut timers, mut rounds) = (0, 0, 0);
        while !set.is_empty() {
            rounds += 1;
            let millis = set.next_moment().remaining().map_or(-1, |time| time.as_nanos().div_ceil(1_000_000) as i32);
            let mut entry = libc::pollfd { fd: set.try_as_fd().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid entry.
            assert!(unsafe { libc::poll(&mut entry, 1, millis) } >= 0);
            while let Some(news) = set.try_wait_any().unwrap() {
                match told(news) {
                    Told::Line(..) => lines += 1,
                    Told::Timer(of) => {
                        assert_eq!(of, timer);
                        timers += 1;
                    }
                    Told::Exit(child, result) => {
                        let number = ends.remove(&child).unwrap();
                        assert_eq!(result.is_ok(), number % 4 < 2, "{number}");
                    }
                    _ => {}
                }
            }
        }
        assert_eq!((lines, timers, ends.len()), (5 * 200 + 5, 1, 0));
        assert!(rounds < 2000, "{rounds}");
    });
}

#[test]
fn a_set_in_a_set() {
    alone!({
        let mut inner = ChildSet::new().unwrap();
        let Ok(fd) = inner.try_as_fd().map(|fd| fd.try_clone_to_owned().unwrap()) else { return };
        let mut outer = ChildSet::new().unwrap();
        let watch = outer.watch(fd).unwrap();
        inner.start(&fixture("echo").arg("inside")).unwrap();
        loop {
            assert!(matches!(next(&mut outer), Told::Readable(of) if of == watch));
            if let Some(news) = inner.try_wait_any().unwrap() {
                let Told::Exit(_, result) = told(news) else { panic!() };
                assert_eq!(result.unwrap().stdout(), b"inside\n");
                break;
            }
        }
    });
}

#[test]
fn a_set_goes_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    alone!({
        let mut set = ChildSet::new().unwrap();
        is_send(&set);
        is_send(&set.waker().unwrap());
        set.start(&fixture("echo").arg("moved")).unwrap();
        let ended = std::thread::spawn(move || set.wait_all().unwrap()).join().unwrap();
        assert_eq!(ended[0].1.as_ref().unwrap().stdout(), b"moved\n");
        let mut set = ChildSet::new().unwrap();
        set.extend((0..3).map(|_| fixture("echo").arg("put in").pipe_all().spawn().unwrap()));
        let keys: Vec<ChildKey> = set.keys().collect();
        keys.into_iter().for_each(|key| assert!(set.end_input(key)));
        let ended = set.wait_all().unwrap();
        assert!(ended.iter().all(|(_, result)| result.as_ref().unwrap().stdout() == b"put in\n") && ended.len() == 3);
        assert!(fixture_path().exists());
    });
}
