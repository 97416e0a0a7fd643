//! Asking line by line and piece by piece: what is lent, what stays, and that nothing is lost or doubled.

use crate::support::{alone, children, fixture, is_running, wait_for};
use crate::talk::{Leftover, cpu_time, in_two_parts, noise, own_status, pattern, pid_in, talk_until_it_wrote};
use procession::{
    Cause, Child, Command, Completeness, ErrorKind, LineEnd, Lines, Newlines, Overflow, PipelineChild, Stdio, Stop,
    Stream, Text,
};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

fn started(command: Command) -> Child {
    command.pipe_all().kill_on_drop().stop(Stop::kill()).spawn().unwrap()
}

/// Everything that comes, as text, with what ended it.
fn all(lines: Lines<'_>) -> Vec<(Stream, String, LineEnd)> {
    let one = |line: Result<procession::OwnedLine, procession::Error>| {
        let line = line.unwrap();
        (line.stream(), line.text().into_owned(), line.as_line().end())
    };
    lines.map(one).collect()
}

fn texts(lines: Lines<'_>) -> Vec<String> {
    all(lines).into_iter().map(|(_, text, _)| text).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A child that writes the pieces, each in one write, and time between them.
fn in_pieces(pieces: &[&[u8]]) -> Command {
    fixture("bytes").args(pieces.iter().map(|piece| hex(piece)))
}

/// A line as it stood in the stream.
fn put_back(bytes: &[u8], end: LineEnd, whole: &mut Vec<u8>) {
    whole.extend_from_slice(bytes);
    if end == LineEnd::Newline {
        whole.push(b'\n');
    }
}

#[test]
fn both_streams_come_and_the_last_line_needs_no_end() {
    alone!({
        let mut child = started(Command::shell("printf 'one\\n\\ntwo\\nhalf'; printf 'oops\\n\\nlast' >&2; exit 3"));
        let seen = all(child.lines());
        let of = |stream| {
            let lines = seen.iter().filter(move |(of, ..)| *of == stream);
            lines.map(|(_, text, end)| (text.as_str(), *end)).collect::<Vec<_>>()
        };
        let (newline, stream) = (LineEnd::Newline, LineEnd::Stream);
        assert_eq!(of(Stream::Stdout), [("one", newline), ("", newline), ("two", newline), ("half", stream)]);
        assert_eq!(of(Stream::Stderr), [("oops", newline), ("", newline), ("last", stream)]);
        assert!(child.lines().next().is_none(), "it stays at its end");
        assert_eq!(child.wait().unwrap().code(), Some(3));
        let output = child.communicate(()).unwrap();
        assert_eq!(output.returncode(), 3);
        assert_eq!(output.captured_stdout().total(), 13);
        assert!(output.is_complete(), "what is not in the record was handed out");
    });
}

#[test]
fn line_ends_that_are_cut_by_a_border_are_one() {
    alone!({
        let universal = Text::utf8().newlines(Newlines::Universal);
        let pieces: [&[u8]; 6] = [b"a\r", b"\nb\r", b"c\r\n", b"\r", b"\n", b"\rd\r"];
        let expected = ["a", "b", "c", "", "", "d"];
        let mut child = started(in_pieces(&pieces).text(universal));
        assert_eq!(texts(child.lines()), expected);
        // And also if the iteration is left and begun again between any two of them.
        let mut child = started(in_pieces(&pieces).text(universal));
        let mut seen = Vec::new();
        while let Some(line) = child.lines().next() {
            seen.push(line.unwrap().text().into_owned());
        }
        assert_eq!(seen, expected);
        // Or something else goes on.
        let mut child = started(in_pieces(&pieces).text(universal));
        let mut seen = vec![child.lines().next().unwrap().unwrap().text().into_owned()];
        child.for_each_line(|line| seen.push(line.text().into_owned())).unwrap();
        assert_eq!(seen, expected);
        let mut child = started(in_pieces(&pieces).text(universal));
        assert_eq!(child.lines().next().unwrap().unwrap().text(), "a");
        assert_eq!(child.communicate(()).unwrap().stdout_text().unwrap(), "b\nc\n\n\nd\n");
        // Otherwise the carriage return is a part of the line, at a border as well.
        let mut child = started(in_pieces(&pieces));
        assert_eq!(texts(child.lines()), ["a\r", "b\rc\r", "\r", "\rd\r"]);
    });
}

#[test]
fn a_line_of_exactly_the_limit_is_whole() {
    alone!({
        let cases: [(&str, &[(&str, LineEnd)]); 4] = [
            ("abcd\nx\n", &[("abcd", LineEnd::Newline), ("x", LineEnd::Newline)]),
            ("abcde\n", &[("abcd", LineEnd::Size), ("e", LineEnd::Newline)]),
            ("abcd", &[("abcd", LineEnd::Stream)]),
            ("abcdefgh\n", &[("abcd", LineEnd::Size), ("efgh", LineEnd::Newline)]),
        ];
        for (text, expected) in cases {
            let limited = in_pieces(&[text.as_bytes()]).line_limit(4);
            let expected: Vec<_> =
                expected.iter().map(|(text, end)| (Stream::Stdout, (*text).to_owned(), *end)).collect();
            assert_eq!(all(started(limited.clone()).lines()), expected);
            let mut shown = Vec::new();
            limited.for_each_line(|line| shown.push((line.stream(), line.text().into_owned(), line.end()))).unwrap();
            assert_eq!(shown, expected);
        }
    });
}

#[test]
fn a_line_without_end_does_not_fill_memory() {
    alone!({
        let endless = fixture("spew").arg((64 * MIB).to_string()).line_limit(MIB);
        let before = own_status("VmHWM");
        let (mut pieces, mut total) = (0, 0);
        let mut child = started(endless.clone());
        let mut lines = child.lines();
        while let Some(line) = lines.next_line().unwrap() {
            assert!(line.bytes().len() <= MIB);
            (pieces, total) = (pieces + 1, total + line.bytes().len());
        }
        drop(lines);
        assert_eq!((pieces, total), (64, 64 * MIB));
        assert!(child.wait().unwrap().success());
        (pieces, total) = (0, 0);
        endless.for_each_line(|line| (pieces, total) = (pieces + 1, total + line.bytes().len())).unwrap();
        assert_eq!((pieces, total), (64, 64 * MIB));
        let grown = own_status("VmHWM") - before;
        assert!(grown < 12 * 1024, "{grown} KiB");
    });
}

#[test]
fn text_whose_line_ends_are_no_bytes_is_decoded_first() {
    alone!({
        let sixteen = Text::encoding("utf-16le").unwrap().newlines(Newlines::Universal);
        let bytes: Vec<u8> =
            "\u{feff}caf\u{e9}\r\n\u{1f600}\u{a0a}x\nend".encode_utf16().flat_map(u16::to_le_bytes).collect();
        // Cut at odd places.
        let pieces: Vec<&[u8]> = bytes.chunks(3).collect();
        let command = in_pieces(&pieces).text(sixteen);
        let mut seen = Vec::new();
        command.for_each_line(|line| seen.push((line.decode().unwrap(), line.text().into_owned()))).unwrap();
        let expected = ["caf\u{e9}", "\u{1f600}\u{a0a}x", "end"];
        assert_eq!(seen, expected.map(|text| (text.to_owned(), text.to_owned())));

        let mut child = started(command);
        let error = child.lines().next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("for_each_line"), "{error}");
        // Nothing is lost by that.
        let mut seen = Vec::new();
        child.for_each_line(|line| seen.push(line.text().into_owned())).unwrap();
        assert_eq!(seen, expected);
    });
}

#[test]
fn bytes_that_are_no_text_stop_the_tree_and_are_in_the_record() {
    alone!({
        // An odd byte before the end: it is only found there.
        let sixteen = Text::encoding("utf-16le").unwrap();
        let odd = in_pieces(&[b"a\0\n\0b"]).text(sixteen);
        let mut seen = Vec::new();
        let error = odd.for_each_line(|line| seen.push(line.text().into_owned())).unwrap_err();
        assert_eq!((error.kind(), seen), (ErrorKind::Decode, vec!["a".to_owned()]));
        assert_eq!(error.output().stdout(), b"a\0\n\0b");

        let endless = Command::shell("printf 'good \\377 bad'; sleep 60 & wait").stop(Stop::kill());
        let mut text = String::new();
        let error = endless.for_each_text(|_, piece| text.push_str(piece)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert_eq!(error.output().stdout(), b"good \xff bad");
        assert_eq!(error.output().cause(), Cause::Stopped);
        assert!(text.starts_with("good "), "{text:?}");
        assert!(error.to_string().starts_with("/bin/sh -c"), "{error}");
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn bytes_that_were_read_before_and_are_no_text_stop_it_at_once() {
    alone!({
        let mut child = started(Command::shell("printf 'good\\n\\377 bad\\n'; exec sleep 60"));
        assert_eq!(child.lines().next().unwrap().unwrap().text(), "good");
        let before = Instant::now();
        let error = child.for_each_text(|_, _| ()).unwrap_err();
        assert_eq!((error.kind(), error.output().cause()), (ErrorKind::Decode, Cause::Stopped));
        assert!(before.elapsed() < Duration::from_secs(30));
        assert_eq!(error.output().stdout(), b"\xff bad\n");
    });
}

/// Takes the rest of what a child writes in ways that change, and returns all of it.
fn by_turns(child: &mut Child, mut state: usize) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut count = (state >> 33) % 50;
        match (state >> 40) % 4 {
            0 => {
                let Some(chunk) = child.chunks().next() else { return whole };
                whole.extend(chunk.unwrap().1);
            }
            1 => {
                for line in child.lines().only(Stream::Stdout).take(count) {
                    let line = line.unwrap();
                    put_back(line.bytes(), line.as_line().end(), &mut whole);
                    count -= 1;
                }
                if count > 0 {
                    return whole;
                }
            }
            2 => {
                // Something is read, and nothing is taken.
                let _ = child.chunks().only(Stream::Stderr).timeout(Duration::ZERO).next();
            }
            _ => {
                let mut lines = child.lines();
                while count > 0 {
                    let Some(line) = lines.next_line().unwrap() else { return whole };
                    put_back(line.bytes(), line.end(), &mut whole);
                    count -= 1;
                }
            }
        }
    }
}

#[test]
fn an_iteration_can_be_left_and_gone_on_with_without_a_loss() {
    alone!({
        let bytes = noise(MIB + 17);
        for seed in 0..8 {
            for limit in [100, 64 * KIB] {
                let mut child = started(fixture("cat").line_limit(limit));
                child.feed(bytes.clone()).unwrap();
                assert!(by_turns(&mut child, seed) == bytes, "seed {seed}");
                assert!(child.wait().unwrap().success());
            }
        }
    });
}

#[test]
fn whoever_goes_on_gets_the_rest() {
    alone!({
        let bytes = noise(300_000);
        for taken in [0, 1, 7, 300, 700] {
            let begun = || {
                let mut child = started(fixture("cat"));
                child.feed(bytes.clone()).unwrap();
                let mut whole = Vec::new();
                for line in child.lines().take(taken) {
                    let line = line.unwrap();
                    put_back(line.bytes(), line.as_line().end(), &mut whole);
                }
                (child, whole)
            };
            let (mut child, mut whole) = begun();
            let output = child.communicate(()).unwrap();
            whole.extend_from_slice(output.stdout());
            assert!(whole == bytes, "communicate after {taken}");
            assert_eq!(output.captured_stdout().total(), bytes.len() as u64);
            assert!(output.is_complete());

            let (mut child, mut whole) = begun();
            child.for_each_line(|line| put_back(line.bytes(), line.end(), &mut whole)).unwrap();
            assert!(whole == bytes, "for_each_line after {taken}");

            let (mut child, mut whole) = begun();
            let output = child.for_each_chunk(|_, piece| whole.extend_from_slice(piece)).unwrap();
            assert!(whole == bytes, "for_each_chunk after {taken}");
            assert!(bytes.ends_with(output.stdout()) && output.stdout().len() >= 64 * KIB, "{}", output.stdout().len());

            let (mut child, mut whole) = begun();
            for chunk in child.chunks() {
                whole.extend(chunk.unwrap().1);
            }
            assert!(whole == bytes, "chunks after {taken}");
        }
    });
}

#[test]
fn the_end_of_a_stream_that_was_seen_before_is_told_again() {
    alone!({
        // Standard output ends, unterminated, while standard error goes on.
        let early = "printf 'one\\nhalf'; exec 1>&-; read line; echo more >&2; printf last >&2";
        let begun = || {
            let mut child = started(Command::shell(early));
            assert_eq!(child.lines().next().unwrap().unwrap().text(), "one");
            // Until the end of standard output was seen, and nothing of it is taken.
            let error = child.lines().only(Stream::Stderr).timeout(SHORT).next().unwrap().unwrap_err();
            assert!(error.is_timeout());
            child
        };
        let mut child = begun();
        assert_eq!(
            child.lines().timeout(LONG).next().unwrap().unwrap().text(),
            "half",
            "the end of the other is not waited for"
        );
        child.feed("\n").unwrap();
        assert_eq!(texts(child.lines()), ["more", "last"]);
        let mut child = begun();
        child.feed("\n").unwrap();
        let mut seen = Vec::new();
        child.for_each_line(|line| seen.push((line.text().into_owned(), line.end()))).unwrap();
        let expected = [("half", LineEnd::Stream), ("more", LineEnd::Newline), ("last", LineEnd::Stream)];
        assert_eq!(seen, expected.map(|(text, end)| (text.to_owned(), end)));
        let mut child = begun();
        child.feed("\n").unwrap();
        assert_eq!(child.communicate(()).unwrap().stdout(), b"half");
    });
}

#[test]
fn the_last_line_of_a_stream_does_not_wait_for_the_other() {
    alone!({
        let mut child = started(Command::shell("printf half; exec 1>&-; exec sleep 60"));
        let started = Instant::now();
        assert_eq!(child.lines().next().unwrap().unwrap().text(), "half");
        assert!(started.elapsed() < Duration::from_secs(30));
        child.kill().unwrap();
        assert_eq!(texts(child.lines()), Vec::<String>::new());
    });
}

#[test]
fn a_conversation_that_timed_out_hands_out_everything_since_the_beginning() {
    alone!({
        let said = || {
            let (command, hold) = in_two_parts("one\\ntwo\\nhal", "f\\nend\\n");
            let mut child = started(command);
            let error = talk_until_it_wrote(&mut child, 11);
            assert_eq!(error.output().stdout(), b"one\ntwo\nhal");
            drop(hold);
            child
        };
        assert_eq!(texts(said().lines()), ["one", "two", "half", "end"]);

        let mut seen = Vec::new();
        let output = said().for_each_line(|line| seen.push(line.text().into_owned())).unwrap();
        assert_eq!(seen, ["one", "two", "half", "end"]);
        assert_eq!(output.stdout(), b"one\ntwo\nhalf\nend\n");

        let mut whole = Vec::new();
        said().for_each_chunk(|_, bytes| whole.extend_from_slice(bytes)).unwrap();
        assert_eq!(whole, b"one\ntwo\nhalf\nend\n");
    });
}

#[test]
fn a_wait_for_a_line_that_is_too_long_can_be_gone_on_after() {
    alone!({
        let mut child = started(fixture("say-sleep").args(["one\nha", "1000", "lf\n"]));
        let mut lines = child.lines().timeout(SHORT);
        assert_eq!(lines.next_line().unwrap().unwrap().text(), "one");
        let mut waits = 0;
        let half = loop {
            match lines.next_line() {
                Ok(line) => break line.unwrap().text().into_owned(),
                Err(error) => {
                    assert!(error.is_timeout(), "{error}");
                    assert!(error.to_string().contains("100ms"), "{error}");
                    assert_eq!(error.output().cause(), Cause::Running);
                    waits += 1;
                }
            }
        };
        assert_eq!(half, "half");
        assert!(waits > 0);
        assert!(lines.next_line().unwrap().is_none());
        drop(lines);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_wait_is_for_a_line_and_not_for_a_byte() {
    alone!({
        // Dots without an end: each comes sooner than the timeout.
        let dots = Command::shell("while :; do printf .; sleep 0.02; done");
        let mut child = started(dots);
        let started = Instant::now();
        let error = child.lines().timeout(Duration::from_millis(500)).next().unwrap().unwrap_err();
        assert!(error.is_timeout());
        assert!(started.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn one_stream_is_asked_for_while_the_other_floods() {
    alone!({
        let size = 256 * MIB;
        let mut child = started(Command::shell(format!(
            "'{}' spewerr {size}; echo done",
            crate::support::fixture_path().display()
        )));
        let before = own_status("VmHWM");
        assert_eq!(texts(child.lines().only(Stream::Stdout)), ["done"]);
        let grown = own_status("VmHWM") - before;
        assert!(grown < 8 * 1024, "{grown} KiB");
        let output = child.communicate(()).unwrap();
        assert!(output.success());
        assert_eq!(output.captured_stderr().total(), size as u64);
        assert_eq!(output.stderr().len(), 64 * KIB);
        assert!(pattern(size).ends_with(output.stderr()));
    });
}

#[test]
fn the_choice_of_a_stream_may_come_late() {
    alone!({
        let both = || {
            let child = started(Command::shell("printf 'a\nbb\\nccc\\n'; printf '1\\n22\\n333\\n' >&2"));
            // Everything is there.
            wait_for("the end", || child.try_wait().unwrap().is_some());
            child
        };
        for (stream, mine, other) in [
            (Stream::Stdout, ["a", "bb", "ccc"], ["1", "22", "333"]),
            (Stream::Stderr, ["1", "22", "333"], ["a", "bb", "ccc"]),
        ] {
            for taken in 0..=4 {
                let mut child = both();
                let mut lines = child.lines();
                let mut seen = Vec::new();
                for _ in 0..taken {
                    let line = lines.next().unwrap().unwrap();
                    seen.push(line.text().into_owned());
                }
                seen.extend(texts(lines.only(stream)));
                seen.extend(texts(child.lines()));
                seen.sort();
                let mut expected = [mine, other].concat();
                expected.sort_unstable();
                assert_eq!(seen, expected, "{stream} after {taken}");

                let mut child = both();
                let mut chunks = child.chunks();
                let mut whole = Vec::new();
                if taken == 1 {
                    whole.extend(chunks.next().unwrap().unwrap().1);
                }
                whole.extend(chunks.only(stream).flat_map(|chunk| chunk.unwrap().1));
                whole.extend(child.chunks().flat_map(|chunk| chunk.unwrap().1));
                whole.sort_unstable();
                assert_eq!(whole, b"\n\n\n\n\n\n122333abbccc", "{stream} after {taken}");
            }
        }
    });
}

#[test]
fn a_grandchild_that_holds_the_pipe_does_not_hold_up_the_lines() {
    alone!({
        let mut child = started(fixture("grandchild").arg("60000").drain(SHORT));
        let started = Instant::now();
        let seen = texts(child.lines());
        let pid = pid_in(&seen[0]);
        let _leftover = Leftover(vec![pid]);
        assert_eq!(seen.len(), 1);
        assert!(started.elapsed() < Duration::from_secs(20));
        let output = child.communicate(()).unwrap();
        assert!(matches!(output.captured_stdout().completeness(), Completeness::CutOff { .. }));
        assert!(!output.is_complete());
        assert!(is_running(pid));
    });
}

#[test]
fn more_unread_than_the_limit_allows_is_a_failure_and_what_was_read_comes_first() {
    alone!({
        // No line end, so nothing can be handed out.
        let endless = fixture("spew").arg((64 * MIB).to_string()).line_limit(64 * MIB);
        let mut child = started(endless.capture_limit(MIB, Overflow::Fail));
        let pid = child.id();
        let error = child.lines().next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overflow);
        assert_eq!(error.output().cause(), Cause::Overflow);
        assert!(error.to_string().contains("1048576"), "{error}");
        assert!(!is_running(pid), "it was stopped");
        let rest: Vec<u8> = child.lines().flat_map(|line| line.unwrap().into_bytes()).collect();
        assert!(rest.len() > MIB && rest == pattern(rest.len()), "{}", rest.len());
        // What was too much to be left unread may be dropped by whoever goes on.
        let mut child = started(fixture("lines").arg("50000").capture_limit(1000, Overflow::Head));
        assert_eq!(child.lines().next().unwrap().unwrap().text(), "line 0");
        let output = child.communicate(()).unwrap();
        assert!(output.success() && output.stdout().starts_with(b"line 1\n") && output.stdout().len() == 1000);
        assert!(!output.is_complete(), "some of it nobody has seen");
        // Whoever takes what comes has no such limit.
        let mut child = started(fixture("lines").arg("50000").capture_limit(1000, Overflow::Fail));
        assert_eq!(child.lines().map(Result::unwrap).count(), 50_000);
        let mut child = started(fixture("spew").arg((8 * MIB).to_string()).capture_limit(MIB, Overflow::Fail));
        let whole: Vec<u8> = child.chunks().flat_map(|chunk| chunk.unwrap().1).collect();
        assert!(whole == pattern(8 * MIB));
    });
}

#[test]
fn leaving_in_the_middle_leaves_nothing_behind() {
    alone!({
        let mut child = fixture("flood").stdout(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let mut lines = child.lines();
        assert_eq!(lines.next_line().unwrap().unwrap().bytes(), b"y");
        drop(lines);
        drop(child);
        // The pipe is closed, so it ends, and is reaped by the next command at the latest.
        wait_for("its end", || !is_running(pid));
        assert!(fixture("exit").arg("0").call().unwrap().success());
        wait_for("its reaping", || children().is_empty());

        let mut child = started(fixture("flood"));
        let _ = child.lines().nth(1000);
        drop(child);
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn input_larger_than_all_pipes_is_written_while_lines_are_read() {
    alone!({
        let text: String = (0..500_000).map(|number| format!("line {number}\n")).collect();
        let mut child = started(fixture("cat"));
        child.feed(text.clone()).unwrap();
        let mut lines = child.lines();
        let mut number = 0;
        while let Some(line) = lines.next_line().unwrap() {
            assert_eq!(line.text(), format!("line {number}"));
            number += 1;
        }
        drop(lines);
        assert_eq!(number, 500_000);
        let output = child.communicate(()).unwrap();
        assert_eq!(output.input_accepted(), text.len() as u64);
        assert!(!output.input_refused());
        // It was closed behind that.
        assert_eq!(child.feed("more").unwrap_err().kind(), ErrorKind::InvalidInput);
        // A child without a pipe has nothing to be fed by.
        let mut child = fixture("exit").arg("0").spawn().unwrap();
        assert_eq!(child.feed("x").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn what_is_fed_twice_comes_in_order() {
    alone!({
        let mut child = started(fixture("cat"));
        child.feed("one\n").unwrap();
        child.feed("two\n").unwrap();
        assert_eq!(texts(child.lines()), ["one", "two"]);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn lines_that_are_waited_for_cost_nothing() {
    alone!({
        let mut child = started(fixture("sleep").arg("60000"));
        let before = cpu_time();
        assert!(child.lines().timeout(Duration::from_secs(1)).next().unwrap().unwrap_err().is_timeout());
        assert!(child.chunks().timeout(Duration::from_secs(1)).next().unwrap().unwrap_err().is_timeout());
        assert!(cpu_time() - before < Duration::from_millis(300), "{:?}", cpu_time() - before);
        // Its stdout has ended, and it lives on.
        let mut child = started(fixture("close-out").arg("2000"));
        let before = cpu_time();
        assert_eq!(texts(child.lines()), Vec::<String>::new());
        assert!(cpu_time() - before < Duration::from_millis(300), "{:?}", cpu_time() - before);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_panic_between_reads_leaves_no_process() {
    alone!({
        let panics: [fn(&Command); 4] = [
            |command| drop(command.for_each_line(|_| panic!("seen enough"))),
            |command| drop(command.for_each_chunk(|_, _| panic!("seen enough"))),
            |command| drop(command.for_each_text(|_, _| panic!("seen enough"))),
            |command| {
                drop((command.clone() | fixture("cat")).for_each_line(|_| -> () { panic!("seen enough") }));
            },
        ];
        for panics in panics {
            let command = fixture("flood").stop(Stop::kill());
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panics(&command)));
            assert!(caught.is_err());
            assert_eq!(children(), Vec::<String>::new());
        }
        // A child that was spawned is its owner's; what was not shown is not lost.
        let mut child = started(fixture("flood"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drop(child.for_each_line(|_| panic!("seen enough")));
        }));
        assert!(caught.is_err());
        assert!(is_running(child.id()));
        drop(child);
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn lines_of_a_pipeline_say_where_they_come_from() {
    alone!({
        let loud = Command::shell("echo a; echo zero >&2; echo b") | Command::shell("tr a-z A-Z; echo one >&2");
        let piped = loud.clone().stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut whole: PipelineChild = piped.spawn().unwrap();
        let mut seen = Vec::new();
        let mut lines = whole.lines();
        while let Some(line) = lines.next_line().unwrap() {
            seen.push((line.stage(), line.stream(), line.text().into_owned()));
        }
        drop(lines);
        assert!(whole.wait().unwrap().success());
        seen.sort_by_key(|(stage, stream, _)| (*stage, *stream as u8));
        let line = |stage, stream, text: &str| (stage, stream, text.to_owned());
        let expected = [
            line(0, Stream::Stderr, "zero"),
            line(1, Stream::Stdout, "A"),
            line(1, Stream::Stdout, "B"),
            line(1, Stream::Stderr, "one"),
        ];
        assert_eq!(seen, expected);

        let mut seen = Vec::new();
        let output = loud.try_for_each_line(|line| {
            seen.push(line.stage());
            ControlFlow::Break(())
        });
        assert_eq!(seen.len(), 1);
        assert_eq!(output.unwrap().stages().len(), 2);
    });
}

#[test]
fn a_pipeline_is_fed_and_left_and_gone_on_with() {
    alone!({
        let bytes = noise(MIB);
        let cats = || {
            let cats = fixture("cat") | fixture("cat") | fixture("cat");
            cats.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let mut whole = Vec::new();
        let mut pipeline = cats();
        pipeline.feed(bytes.clone()).unwrap();
        for line in pipeline.lines().take(100) {
            let line = line.unwrap();
            put_back(line.bytes(), line.as_line().end(), &mut whole);
        }
        whole.extend(pipeline.chunks().next().unwrap().unwrap().1);
        for line in pipeline.lines().only(Stream::Stdout).take(100) {
            let line = line.unwrap();
            put_back(line.bytes(), line.as_line().end(), &mut whole);
        }
        let output = pipeline.communicate(()).unwrap();
        whole.extend_from_slice(output.stdout());
        assert!(whole == bytes);
        assert!(output.success() && output.is_complete());
        assert_eq!(output.input_accepted(), MIB as u64);
    });
}
