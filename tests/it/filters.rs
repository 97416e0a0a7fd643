//! Functions between commands: whole data through any number of them, what fails, what waits, and what it costs.

use crate::support::{Scratch, alone, children, fixture, fixture_path, wait_for};
use crate::talk::{Leftover, cpu_time, in_two_parts, noise, own_status, pattern, pids_in, with_descriptor};
use procession::{
    Cause, Command, Completeness, ErrorKind, Filter, Overflow, Pipeline, PipelineChild, Stdio, Stop, Stream,
};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const MIB: usize = 1024 * 1024;
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(80);

fn cat() -> Command {
    fixture("cat")
}

/// Lets everything pass.
fn same() -> Filter {
    Filter::new(|piece, out| {
        out.extend_from_slice(piece.unwrap_or_default());
        Ok(())
    })
}

/// Counts what passes.
fn counting() -> (Filter, Arc<AtomicUsize>) {
    let total = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&total);
    let filter = Filter::new(move |piece, out| {
        out.extend_from_slice(piece.unwrap_or_default());
        count.fetch_add(piece.unwrap_or_default().len(), Ordering::Relaxed);
        Ok(())
    });
    (filter, total)
}

/// A hundred for each.
fn expanding() -> Filter {
    Filter::new(|piece, out| {
        for byte in piece.unwrap_or_default() {
            out.extend_from_slice(&[*byte; 100]);
        }
        Ok(())
    })
}

fn dropping() -> Filter {
    Filter::keep_lines(|_| false)
}

fn failing() -> Filter {
    Filter::new(|_, _| Err(io::Error::other("the filter is torn")))
}

fn panicking() -> Filter {
    Filter::map_lines(|_| -> Vec<u8> { panic!("no more") })
}

/// Puts a letter in front of each line.
fn marking(mark: &'static str) -> Filter {
    Filter::map_lines(move |line| [mark.as_bytes(), line].concat())
}

fn piped(pipeline: Pipeline) -> PipelineChild {
    pipeline.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn filters_stand_anywhere_and_in_a_row() {
    alone!({
        let echo = || fixture("echo").arg("x");
        assert_eq!((echo() | marking("a")).check_output().unwrap(), b"ax\n");
        assert_eq!((echo() | marking("a") | cat()).check_output().unwrap(), b"ax\n");
        assert_eq!(
            (echo() | marking("a") | marking("b") | cat() | cat() | marking("c")).check_output().unwrap(),
            b"cbax\n"
        );
        let right = cat() | marking("b") | cat() | marking("c");
        assert_eq!((echo() | marking("a") | right).check_output().unwrap(), b"cbax\n");
        let joined = Pipeline::from_iter([echo(), cat()]).filter(marking("a")).pipe(fixture("upper"));
        assert_eq!(joined.check_output().unwrap(), b"AX\n");
        assert!(joined.to_string().ends_with("upper") && joined.to_string().contains("| <filter> |"), "{joined}");
        // One that is used twice keeps what it knows.
        let mut count = 0;
        let numbered = Filter::map_lines(move |line| {
            count += 1;
            format!("{count} {}", String::from_utf8_lossy(line))
        });
        let twice = fixture("lines").arg("2") | numbered;
        assert_eq!(twice.check_output().unwrap(), b"1 line 0\n2 line 1\n");
        assert_eq!(twice.check_output().unwrap(), b"3 line 0\n4 line 1\n");
        // An unterminated line gets an end; an empty stream stays empty.
        assert_eq!((Command::shell("printf x") | marking("a") | cat()).check_output().unwrap(), b"ax\n");
        assert_eq!((fixture("exit").arg("0") | marking("a") | cat()).check_output().unwrap(), b"");
        // Lines that end with a carriage return keep it.
        let crlf = fixture("bytes").args(["610d", "0a0d", "0a62"]) | marking("> ");
        assert_eq!(crlf.check_output().unwrap(), b"> a\r\n> \r\n> b\n");
    });
}

#[test]
fn the_end_is_told_once_and_what_it_brings_passes() {
    alone!({
        let ends = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ends);
        let closing = Filter::new(move |piece, out| {
            match piece {
                Some(bytes) => out.extend_from_slice(bytes),
                None => {
                    count.fetch_add(1, Ordering::Relaxed);
                    out.extend_from_slice(b"the end\n");
                }
            }
            Ok(())
        });
        let pipeline = fixture("echo").arg("x") | closing.clone() | marking("> ") | closing | cat();
        assert_eq!(pipeline.check_output().unwrap(), b"> x\n> the end\nthe end\n");
        assert_eq!(ends.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn large_data_comes_whole() {
    alone!({
        let input = noise(64 * MIB);
        let pipeline = cat() | same() | cat() | same() | same() | cat() | same();
        let output = pipeline.clone().input(input.clone()).timeout(LONG).output().unwrap();
        assert!(output.stdout() == input);
        assert!(output.success() && output.is_complete());
        assert_eq!(output.input_accepted(), input.len() as u64);
        let mut spawned = piped(pipeline);
        let output = spawned.communicate(input.clone()).unwrap();
        assert!(output.stdout() == input && output.success());
    });
}

#[test]
fn a_gibibyte_needs_little_memory() {
    alone!({
        let size = 1024 * MIB;
        let (filter, total) = counting();
        let pipeline =
            fixture("spew").arg(size.to_string()) | filter | cat() | same() | fixture("swallow").arg(size.to_string());
        let before = own_status("VmHWM");
        let text = pipeline.timeout(LONG).check_output_text().unwrap();
        assert_eq!(text, format!("swallowed {size}\n"));
        assert_eq!(total.load(Ordering::Relaxed), size);
        let grown = own_status("VmHWM") - before;
        assert!(grown < 16 * 1024, "{grown} KiB");
    });
}

#[test]
fn what_grows_and_what_vanishes_on_the_way() {
    alone!({
        let size = 300_000;
        let source = fixture("spew").arg(size.to_string());
        let before = own_status("VmHWM");
        let counted = source.clone() | expanding() | fixture("swallow").arg((size * 100).to_string());
        assert_eq!(counted.timeout(LONG).check_output().unwrap(), format!("swallowed {}\n", size * 100).as_bytes());
        let mut shown = Vec::with_capacity(size);
        let mut offset = 0;
        (source.clone() | expanding())
            .for_each_chunk(|_, bytes| {
                shown.extend(
                    bytes.iter().enumerate().filter(|(place, _)| (offset + place) % 100 == 0).map(|(_, byte)| *byte),
                );
                offset += bytes.len();
            })
            .unwrap();
        assert!(shown == pattern(size) && offset == size * 100);
        let grown = own_status("VmHWM") - before;
        assert!(grown < 40 * 1024, "{grown} KiB");
        let expected: Vec<u8> = pattern(size).into_iter().flat_map(|byte| [byte; 100]).collect();
        assert!((source.clone() | expanding()).check_output().unwrap() == expected);
        assert_eq!((fixture("lines").arg("200000") | dropping() | cat()).check_output().unwrap(), b"");
        assert_eq!((fixture("lines").arg("200000") | dropping()).check_output().unwrap(), b"");
        let nothing = Filter::new(|_, _| Ok(()));
        let output = (source | nothing | cat()).output().unwrap();
        assert!(output.success() && output.stdout().is_empty());
    });
}

#[test]
fn a_filter_that_fails_ends_the_whole() {
    alone!({
        let source = || fixture("flood").stop(Stop::kill());
        for pipeline in [
            source() | failing() | cat() | cat(),
            source() | cat() | failing() | cat(),
            source() | cat() | cat() | failing(),
            source() | same() | failing() | same() | cat(),
        ] {
            let error = pipeline.clone().timeout(LONG).output().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains("filter: the filter is torn"), "{error}");
            assert!(error.to_string().contains("<filter>"), "{error}");
            assert_eq!(error.output().cause(), Cause::Stopped);
            assert_eq!(children(), Vec::<String>::new());
            assert!(pipeline.call().unwrap_err().to_string().contains("the filter is torn"));
            let error = piped(pipeline.clone()).communicate(()).unwrap_err();
            assert!(error.to_string().contains("the filter is torn"), "{error}");
            assert!(piped(pipeline.clone()).wait().unwrap_err().to_string().contains("the filter is torn"));
            let error = piped(pipeline).lines().find_map(Result::err).unwrap();
            assert!(error.to_string().contains("the filter is torn"), "{error}");
            assert_eq!(children(), Vec::<String>::new());
        }
        // Some of it passes before.
        let mut left = 3;
        let later = Filter::new(move |piece, out| {
            left -= i32::from(piece.is_some());
            out.extend_from_slice(piece.unwrap_or_default());
            if left == 0 { Err(io::Error::other("enough")) } else { Ok(()) }
        });
        let error = (fixture("bytes").args(["61", "62", "63", "64"]) | later).output().unwrap_err();
        let stdout = error.output().stdout().to_vec();
        assert!(b"abcd".starts_with(&stdout[..]), "{stdout:?}");
        // At the end.
        let at_end = Filter::new(|piece, out| {
            out.extend_from_slice(piece.unwrap_or_default());
            if piece.is_none() { Err(io::Error::other("no end")) } else { Ok(()) }
        });
        for pipeline in [fixture("echo").arg("x") | at_end.clone(), fixture("echo").arg("x") | at_end | cat()] {
            let error = pipeline.timeout(LONG).output().unwrap_err();
            assert!(error.to_string().contains("no end"), "{error}");
        }
    });
}

#[test]
fn a_filter_that_panics_leaves_nothing_behind() {
    alone!({
        for pipeline in [
            fixture("flood").stop(Stop::kill()) | panicking() | cat(),
            fixture("flood").stop(Stop::kill()) | cat() | panicking(),
        ] {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(pipeline.output())));
            assert!(caught.is_err());
            assert_eq!(children(), Vec::<String>::new());
        }
    });
}

#[test]
fn a_slow_reader_holds_up_the_writer() {
    alone!({
        // The reader begins late; until then little is read.
        let (filter, total) = counting();
        let pipeline = fixture("flood") | filter | fixture("late-read").arg("1000") | fixture("swallow").arg("2");
        let before = own_status("VmHWM");
        let mut child = piped(pipeline);
        let cpu = cpu_time();
        let error = child.communicate_timeout((), Duration::from_millis(700)).unwrap_err();
        assert!(error.is_timeout());
        let read = total.load(Ordering::Relaxed);
        assert!(read < 2 * MIB, "{read}");
        assert!(cpu_time() - cpu < Duration::from_millis(300), "{:?}", cpu_time() - cpu);
        let output = child.communicate(()).unwrap();
        assert_eq!(output.stdout(), b"swallowed 2\n");
        assert!(output.success(), "who wrote into a closed pipe is forgiven: {output:?}");
        let grown = own_status("VmHWM") - before;
        assert!(grown < 8 * 1024, "{grown} KiB");
    });
}

#[test]
fn a_reader_that_has_enough_ends_the_writer() {
    alone!({
        for pipeline in [
            fixture("flood") | same() | fixture("swallow").arg("10"),
            fixture("flood") | same() | cat() | same() | fixture("swallow").arg("10"),
            fixture("flood") | same() | fixture("swallow").arg("10") | same(),
            fixture("flood") | same() | fixture("close-in").arg("10"),
        ] {
            let output = pipeline.clone().timeout(LONG).output().unwrap();
            assert!(output.success(), "{output:?}");
            assert_eq!(output.stages()[0].status().signal(), Some(procession::Signal::PIPE));
            assert!(pipeline.call().unwrap().success());
            assert!(piped(pipeline).wait().unwrap().success());
        }
        // Also one that has ended long before the first byte comes.
        let late = Command::shell(format!("sleep 0.6; exec '{}' flood", fixture_path().display()));
        for reader in [fixture("exit").arg("0"), fixture("grandchild").arg("60000")] {
            let pipeline = late.clone().drain(SHORT) | same() | reader.drain(SHORT);
            let started = Instant::now();
            let output = pipeline.timeout(LONG).output().unwrap();
            let _leftover = Leftover(pids_in(output.stdout(), "grandchild"));
            assert!(output.success(), "{output:?}");
            assert!(started.elapsed() < Duration::from_secs(30));
        }
    });
}

#[test]
fn a_grandchild_that_holds_a_pipe_does_not_hold_up_the_rest() {
    alone!({
        let held = || {
            Command::shell(format!("'{}' sleeper 60000 & echo pid $!; printf half", fixture_path().display()))
                .drain(SHORT)
        };
        for pipeline in
            [held() | marking("> ") | cat(), held() | marking("> "), held() | marking("> ") | cat() | same()]
        {
            let started = Instant::now();
            let output = pipeline.output().unwrap();
            let _leftover = Leftover(pids_in(output.stdout(), "> pid"));
            assert!(started.elapsed() < Duration::from_secs(30));
            assert!(output.stdout_lossy().ends_with("> half\n"), "what was read passes: {:?}", output.stdout_lossy());
            assert!(output.success());
        }
        // Also if only the reader itself is waited for.
        let scratch = Scratch::new();
        let path = scratch.join("out");
        let shared = held() | marking("> ") | cat().stdout(Stdio::write(&path));
        assert!(shared.call().unwrap().success());
        let text = std::fs::read(&path).unwrap();
        let _leftover = Leftover(pids_in(&text, "> pid"));
        assert!(text.ends_with(b"> half\n"), "{:?}", String::from_utf8_lossy(&text));
        let output = (held() | marking("> ")).output().unwrap();
        let _leftover = Leftover(pids_in(output.stdout(), "> pid"));
        assert!(matches!(output.captured_stdout().completeness(), Completeness::CutOff { .. }));
    });
}

#[test]
fn timeouts_and_stops_reach_every_stage() {
    alone!({
        let slow = fixture("sleep").arg("60000") | same() | cat() | same() | cat();
        let started = Instant::now();
        let error = slow.clone().timeout(SHORT).stop(Stop::kill()).output().unwrap_err();
        assert!(error.is_timeout() && error.output().stages().len() == 3);
        let busy = fixture("flood") | same() | cat() | dropping();
        let error = busy.clone().timeout(SHORT).stop(Stop::kill()).output().unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(children(), Vec::<String>::new());
        for pipeline in [slow, busy] {
            let mut child = piped(pipeline.clone());
            assert!(child.communicate_timeout((), SHORT).unwrap_err().is_timeout());
            assert!(child.lines().timeout(SHORT).next().unwrap().unwrap_err().is_timeout());
            let reports = child.stop(&Stop::kill()).unwrap();
            assert_eq!(reports.len(), pipeline.stages().len());
            assert_eq!(children(), Vec::<String>::new());
            drop(child);
        }
        assert!(started.elapsed() < Duration::from_secs(30));
    });
}

#[test]
fn what_a_filter_had_is_there_after_a_timeout() {
    alone!({
        let said = |behind: fn(Pipeline) -> Pipeline| {
            let (command, hold) = in_two_parts("one\\ntw", "o\\n");
            let mut child = piped(behind(command | marking("> ")));
            let error = loop {
                let error = child.communicate_timeout((), Duration::from_millis(20)).unwrap_err();
                if !error.output().stdout().is_empty() {
                    break error;
                }
            };
            assert_eq!(error.output().stdout(), b"> one\n");
            drop(hold);
            child
        };
        for behind in [|pipeline: Pipeline| pipeline | cat(), |pipeline: Pipeline| pipeline] {
            assert_eq!(said(behind).communicate(()).unwrap().stdout(), b"> one\n> two\n");
            let mut child = said(behind);
            let lines: Vec<_> = child.lines().map(|line| line.unwrap().text().into_owned()).collect();
            assert_eq!(lines, ["> one", "> two"]);
            assert!(child.wait().unwrap().success());
        }
    });
}

#[test]
fn a_spawned_pipeline_with_filters_is_waited_for_and_dropped() {
    alone!({
        let large = fixture("spew").arg((4 * MIB).to_string());
        let discarding = || fixture("count").stdout(Stdio::null());
        assert!((large.clone() | same() | discarding()).spawn().unwrap().wait().unwrap().success());
        // What comes out of the last filter is read by whoever waits.
        assert!((large.clone() | same()).spawn().unwrap().wait().unwrap().success());
        assert_eq!(
            (large.clone() | same() | fixture("exit").arg("3")).spawn().unwrap().wait().unwrap().code(),
            Some(3)
        );
        // And written by us if it would be inherited.
        let scratch = Scratch::new();
        let shown = std::fs::File::create(scratch.join("shown")).unwrap();
        with_descriptor(1, &shown, || {
            let last = || fixture("echo").arg("x") | marking("> ");
            assert!(last().spawn().unwrap().wait().unwrap().success());
            assert!(last().call().unwrap().success());
            assert!(last().stdout(Stdio::piped()).spawn().unwrap().wait().unwrap().success());
            assert_eq!(last().check_output().unwrap(), b"> x\n");
        });
        assert_eq!(std::fs::read(scratch.join("shown")).unwrap(), b"> x\n> x\n");
        let mut child = (large | same() | cat()).stdout(Stdio::piped()).spawn().unwrap();
        assert!(child.stdout.is_some(), "no filter stands behind it");
        drop(child.stdout.take());
        assert!(!child.wait().unwrap().success() || children().is_empty());
        drop(child);

        let child = piped(fixture("flood") | same() | cat() | same());
        assert!(child.stdout.is_none(), "what a filter is still to change is nobody's to read");
        drop(child);
        // The ends are closed, so all end, and are reaped by the next command at the latest.
        wait_for("their end", || {
            assert!(fixture("exit").arg("0").call().unwrap().success());
            children().is_empty()
        });
        let killed =
            fixture("flood").kill_on_drop().stop(Stop::kill()) | same() | cat().kill_on_drop().stop(Stop::kill());
        let mut child = piped(killed);
        let _ = child.chunks().next();
        drop(child);
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn the_output_behind_a_last_filter_is_ours_to_write() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("out");
        let result = (fixture("echo").arg("x") | same()).stdout(Stdio::write(&path)).output();
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("tee_stdout"), "{error}");
        assert!(!path.exists());
        // As the error says.
        let teed = fixture("echo").arg("x").tee_stdout(procession::Target::write(&path)) | marking("> ");
        assert!(teed.call().unwrap().success());
        assert_eq!(std::fs::read(&path).unwrap(), b"> x\n");
        let limited = fixture("spew").arg("1000000").capture_limit(1000, Overflow::Fail) | same();
        assert_eq!(limited.output().unwrap_err().kind(), ErrorKind::Overflow);
        let limited = fixture("spew").arg("1000000") | same() | cat().capture_limit(1000, Overflow::Tail);
        assert_eq!(limited.output().unwrap().stdout(), &pattern(1_000_000)[999_000..]);
    });
}

#[test]
fn what_passes_between_stages_is_in_no_record() {
    alone!({
        let held = Command::shell(format!("'{}' sleeper 60000 & echo pid $!", fixture_path().display())).drain(SHORT);
        for first in [fixture("lines").arg("10"), held] {
            let output = (first.transcript() | same() | cat().transcript()).output().unwrap();
            let _leftover = Leftover(pids_in(output.stdout(), "pid"));
            assert!(output.stages()[0].stdout().is_empty());
            let log: Vec<u8> = output.transcript().iter().flat_map(|piece| piece.bytes().to_vec()).collect();
            assert_eq!(log, output.stdout());
            assert_eq!(output.transcript().iter().map(procession::Piece::total).sum::<u64>(), log.len() as u64);
        }
    });
}

#[test]
fn errors_of_all_stages_come_by() {
    alone!({
        let loud = |text: &str| Command::shell(format!("cat; echo {text} >&2"));
        let pipeline = loud("one") | same() | loud("two") | same() | loud("three") | same();
        let output = pipeline.clone().input("x\n").output().unwrap();
        assert_eq!((output.stdout(), output.stderr()), (&b"x\n"[..], &b"one\ntwo\nthree\n"[..]));
        assert!(output.is_complete());
        assert_eq!(output.captured_stderr().total(), 14);
        let mut seen = Vec::new();
        pipeline
            .input("x\n")
            .for_each_line(|line| seen.push((line.stage(), line.stream() == Stream::Stdout, line.text().into_owned())))
            .unwrap();
        seen.sort();
        let line = |stage, out, text: &str| (stage, out, text.to_owned());
        assert_eq!(seen, [line(0, false, "one"), line(1, false, "two"), line(2, false, "three"), line(2, true, "x")]);
    });
}

#[test]
fn a_spawned_pipeline_with_filters_is_fed_and_left_and_gone_on_with() {
    alone!({
        let bytes: Vec<u8> = (0..200_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        for pipeline in [cat() | same() | cat() | marking("") | cat(), cat() | marking("") | cat() | same()] {
            let mut child = piped(pipeline);
            child.feed(bytes.clone()).unwrap();
            let mut whole = Vec::new();
            for round in 0..30 {
                for line in child.lines().take(round * 10) {
                    whole.extend_from_slice(line.unwrap().bytes());
                    whole.push(b'\n');
                }
                // Pieces may end within a line; the next line is then the rest of it.
                for chunk in child.chunks().take(round % 3) {
                    whole.extend_from_slice(&chunk.unwrap().1);
                }
                let _ = child.communicate_timeout((), Duration::ZERO);
            }
            whole.extend(child.lines().only(Stream::Stdout).flat_map(|line| [line.unwrap().bytes(), b"\n"].concat()));
            assert!(whole == bytes);
            assert!(child.wait().unwrap().success());
        }
    });
}

#[test]
fn fifty_stages_by_turns() {
    alone!({
        let mut pipeline = Pipeline::from_iter([cat()]);
        for _ in 0..24 {
            pipeline = pipeline.filter(same()).pipe(cat());
        }
        let input = noise(MIB);
        let output = pipeline.input(input.clone()).timeout(LONG).output().unwrap();
        assert!(output.stdout() == input && output.success());
        assert_eq!(output.stages().len(), 25);
    });
}

#[test]
fn waiting_with_filters_costs_nothing() {
    alone!({
        let quiet = fixture("sleep").arg("1500") | same() | cat() | same() | cat();
        let before = cpu_time();
        quiet.timeout(LONG).output().unwrap();
        assert!(cpu_time() - before < Duration::from_millis(300), "{:?}", cpu_time() - before);
        // The first stage has ended and the one behind it has enough for now.
        let paused =
            fixture("spew").arg((2 * MIB).to_string()) | same() | fixture("late-read").arg("1500") | fixture("count");
        let before = cpu_time();
        paused.timeout(LONG).output().unwrap();
        assert!(cpu_time() - before < Duration::from_millis(500), "{:?}", cpu_time() - before);
        // And what it made is more than is wanted for now.
        let grown = fixture("spew").arg("60000") | expanding() | fixture("late-read").arg("1500") | fixture("count");
        let before = cpu_time();
        grown.timeout(LONG).output().unwrap();
        assert!(cpu_time() - before < Duration::from_millis(700), "{:?}", cpu_time() - before);
        // And one whose output has ended lives on.
        let before = cpu_time();
        (fixture("close-out").arg("1500") | same() | cat()).timeout(LONG).output().unwrap();
        assert!(cpu_time() - before < Duration::from_millis(300), "{:?}", cpu_time() - before);
    });
}

#[test]
fn a_filter_is_called_on_the_thread_of_the_verb() {
    alone!({
        let threads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&threads);
        let noting = Filter::new(move |piece, out| {
            seen.lock().unwrap().push(std::thread::current().id());
            out.extend_from_slice(piece.unwrap_or_default());
            Ok(())
        });
        (fixture("echo").arg("x") | noting | cat()).output().unwrap();
        let threads = threads.lock().unwrap();
        assert!(!threads.is_empty() && threads.iter().all(|id| *id == std::thread::current().id()));
        let (mut reader, writer) = procession::pipe().unwrap();
        (fixture("echo").arg("y") | same() | cat()).stdout(writer).call().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "y\n");
    });
}

#[test]
fn what_has_passed_and_nobody_wants_any_more_keeps_nobody_awake() {
    alone!({
        let writer = Command::shell("trap '' PIPE; seq 1000000 2>/dev/null; sleep 1");
        let before = cpu_time();
        let output = (writer | expanding() | Command::new("head").arg("-c1")).output().unwrap();
        assert_eq!(output.stdout(), b"1");
        assert!(cpu_time() - before < Duration::from_millis(500), "{:?}", cpu_time() - before);
        assert_eq!(children(), Vec::<String>::new());
    });
}
