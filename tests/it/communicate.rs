//! Conversations: any amount, in any order, with any ending, and nothing is lost.

use crate::support::{alone, fixture, fixture_path, is_root, script, wait_for};
use crate::talk::{Leftover, cpu_time, line, noise, own_status, pattern, pid_in, without_rights};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal as Number, raise, sigaction};
use procession::{
    Cause, Command, Completeness, ErrorKind, Input, Newlines, Overflow, Signal, SpawnRoute, Stdio, Text, pipe,
};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(40);
const SHORT: Duration = Duration::from_millis(50);

// ---- any amount, in any order (A1, A2, A10, A16, A19)

#[test]
fn ten_mebibytes_on_each_stream_in_blocks_of_any_size() {
    alone!({
        let expected = pattern(10 * MIB);
        for (out, err) in [("1024", "204800"), ("204800", "1024"), ("65536", "65536"), ("65537", "4095")] {
            let output = fixture("alternate").args(["10485760", out, err]).timeout(LONG).output().unwrap();
            assert!(output.stdout() == expected && output.stderr() == expected, "blocks of {out} and {err}");
            assert!(output.is_complete() && output.success());
        }
    });
}

#[test]
fn input_and_output_in_the_order_that_the_child_likes() {
    alone!({
        let input = noise(8 * MIB);
        let output = fixture("a2").args(["1048576", "1048576"]).input(&input).timeout(LONG).output().unwrap();
        assert!(output.stdout() == pattern(MIB));
        assert!(output.stderr() == [pattern(MIB), b"8388608\n".to_vec()].concat());
        assert_eq!((output.input_accepted(), output.input_refused()), (8 << 20, false));

        let echo = fixture("cat").input(&input).timeout(LONG).output().unwrap();
        assert!(echo.stdout() == input);
    });
}

#[test]
fn every_size_around_the_limits_of_a_pipe() {
    alone!({
        let borders = [0, 4096, 8192, 16 * 1024, 64 * 1024, 128 * 1024, 256 * 1024, MIB];
        let sizes = borders.iter().flat_map(|&border: &usize| [border.saturating_sub(1), border, border + 1]);
        let noise = noise(MIB + 1);
        for size in sizes {
            let input = &noise[..size];
            let output = fixture("cat").input(input).timeout(LONG).output().unwrap();
            assert!(output.stdout() == input, "{size} bytes");
            assert_eq!((output.input_accepted(), output.input_refused()), (size as u64, false));
            assert!(output.is_complete());
            let mut child = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let output = child.communicate(Input::reader(io::Cursor::new(input.to_vec()))).unwrap();
            assert!(output.stdout() == input, "{size} bytes from a reader");
        }
    });
}

#[test]
fn one_stream_alone_is_collected_as_well_as_two() {
    alone!({
        let mut child = fixture("alternate").args(["3000000", "1000", "100000"]);
        child = child.stdout(Stdio::null());
        let output = child.clone().stderr(Stdio::piped()).spawn().unwrap().communicate(()).unwrap();
        assert!(output.stderr() == pattern(3_000_000));
        assert_eq!(output.captured_stdout().completeness(), &Completeness::NotCaptured);
        let swapped = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap().communicate(()).unwrap();
        assert!(swapped.stdout() == pattern(3_000_000));
        assert_eq!(swapped.captured_stderr().completeness(), &Completeness::NotCaptured);
    });
}

#[test]
fn a_filter_script_answers_at_the_end_only() {
    alone!({
        let lines = "line\n".repeat(300_000);
        let output = Command::new(script("count-lines.sh")).input(lines).timeout(LONG).check_output().unwrap();
        assert_eq!(output, b"300000\n");
    });
}

#[test]
fn a_question_and_its_answer_by_hand_and_then_the_rest() {
    alone!({
        let mut child = fixture("pingpong").pipe_all().spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
        assert_eq!(line(child.stdout.as_mut().unwrap()), "pong one");
        let output = child.communicate("two\nthree").unwrap();
        assert_eq!(output.stdout(), b"pong two\npong three\n");
    });
}

/// Fills the quota of pipe pages of the user, so that new pipes hold a page or two and refuse to grow.
fn with_small_pipes(body: impl FnOnce()) {
    without_rights(|| {
        let mut pipes = Vec::new();
        let small = loop {
            let (reader, writer) = pipe().unwrap();
            let grown = fcntl(reader.as_fd(), FcntlArg::F_SETPIPE_SZ(1 << 20));
            let size = fcntl(reader.as_fd(), FcntlArg::F_GETPIPE_SZ).unwrap();
            pipes.push((reader, writer));
            if grown.is_err() && size < 64 * 1024 {
                break size;
            }
            assert!(pipes.len() < 5000, "the quota does not end");
        };
        assert!(small <= 8192, "{small}");
        body();
    });
}

#[test]
fn small_pipes_by_quota_change_nothing() {
    alone!({
        if !is_root() {
            return;
        }
        with_small_pipes(|| {
            let line = "head -c 300000 /dev/zero >&2; cat; head -c 300000 /dev/zero >&2";
            let input = noise(2 * MIB);
            let output = Command::shell(line).input(&input).pipe_size(MIB).timeout(LONG).output().unwrap();
            assert!(output.stdout() == input);
            assert_eq!(output.stderr(), vec![0; 600_000]);
            assert!(output.is_complete() && output.success());
        });
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_pipe_that_was_found_full_grows_and_a_size_that_was_chosen_stays() {
    const KIB: i32 = 1024;
    const TAKEN: usize = 1_000_000;
    fn sizes(child: &procession::Child) -> [i32; 2] {
        let size = |fd: std::os::fd::BorrowedFd<'_>| fcntl(fd, FcntlArg::F_GETPIPE_SZ).unwrap();
        [size(child.stdin.as_ref().unwrap().as_fd()), size(child.stdout.as_ref().unwrap().as_fd())]
    }
    alone!({
        // Takes more than a pipe holds, gives it back, and keeps both ends open.
        let command = Command::shell(format!("head -c {TAKEN}; exec sleep 60")).pipe_all().kill_on_drop();
        for (command, expected) in [(command.clone(), 256 * KIB), (command.pipe_size(128 * 1024), 128 * KIB)] {
            let mut child = command.spawn().unwrap();
            if sizes(&child)[0] < 64 * KIB {
                // The user's quota of pipe pages is used up: nothing grows.
                return;
            }
            let mut input = noise(2 * MIB);
            loop {
                let error = child.communicate_timeout(std::mem::take(&mut input), SHORT).unwrap_err();
                assert!(error.is_timeout());
                if error.output().stdout().len() == TAKEN {
                    break;
                }
            }
            assert_eq!(sizes(&child), [expected; 2]);
        }
    });
}

#[test]
fn descriptors_above_1023_are_as_good_as_others() {
    alone!({
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        if hard < 2000 {
            return;
        }
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let held: Vec<_> = (0..1500).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let input = noise(2 * MIB);
        let output = fixture("a2").args(["1000000", "1000000"]).input(&input).timeout(LONG).output().unwrap();
        assert!(output.stdout() == pattern(1_000_000));
        assert!(output.stderr() == [pattern(1_000_000), b"2097152\n".to_vec()].concat());
        let error = fixture("say-sleep").args(["A", "60000", "B"]).timeout(Duration::from_secs(1)).run().unwrap_err();
        assert_eq!(error.output().stdout(), b"A");
        drop(held);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    });
}

// ---- input that is not wanted (A3, A4)

#[test]
fn a_child_that_does_not_want_its_input_is_no_error() {
    alone!({
        let input = noise(10 * MIB);
        let output = fixture("exit").arg("0").input(&input).timeout(LONG).output().unwrap();
        assert!(output.input_refused() && output.success());
        assert!(output.input_accepted() < input.len() as u64);

        let output = fixture("swallow").arg("1").input(&input).timeout(LONG).output().unwrap();
        assert_eq!(output.stdout(), b"swallowed 1\n");
        assert!(output.input_refused() && output.success());

        let output = fixture("exit").arg("7").input(&input).timeout(LONG).output().unwrap();
        assert_eq!((output.returncode(), output.cause()), (7, Cause::Ended));
    });
}

#[test]
fn endless_input_ends_with_the_child() {
    alone!({
        let endless = || Input::reader(io::repeat(b'y'));
        let output = fixture("swallow").arg("1000000").input(endless()).timeout(LONG).output().unwrap();
        assert_eq!(output.stdout(), b"swallowed 1000000\n");
        assert!(output.input_refused() && output.input_accepted() >= 1_000_000);
        let mut child = fixture("swallow").arg("10").pipe_all().spawn().unwrap();
        let output = child.communicate(endless()).unwrap();
        assert!(output.input_refused() && output.success());
    });
}

#[test]
fn endless_input_cannot_hold_up_a_timeout() {
    alone!({
        let started = Instant::now();
        let swallow = fixture("swallow").arg("1000000000000").timeout(Duration::from_millis(300));
        let error = swallow.input(Input::reader(io::repeat(b'y'))).output().unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(error.output().input_accepted() > 0);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    });
}

/// A reader that is always faster than the pipe, however fast the child is.
struct Pieces(usize);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::thread::sleep(Duration::from_millis(1));
        let count = buffer.len().min(self.0);
        buffer[..count].fill(b'y');
        Ok(count)
    }
}

#[test]
fn a_slow_reader_without_end_cannot_hold_up_a_timeout_or_the_output() {
    alone!({
        let started = Instant::now();
        let cat = fixture("cat").timeout(Duration::from_millis(500)).input(Input::reader(Pieces(10)));
        let error = cat.output().unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert!(!error.output().stdout().is_empty());
    });
}

#[test]
fn a_reader_that_fails_is_an_error_with_the_output_so_far() {
    struct Broken(bool);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::Error::other("the source has dried up"));
            }
            buffer[..4].copy_from_slice(b"good");
            Ok(4)
        }
    }
    alone!({
        let error = fixture("cat").input(Input::reader(Broken(false))).timeout(LONG).output().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("the source has dried up"), "{error}");
    });
}

#[test]
fn a_child_that_closes_its_input_and_goes_on_is_heard_to_the_end() {
    alone!({
        let output = fixture("close-in").arg("200").input(noise(MIB)).timeout(LONG).output().unwrap();
        assert_eq!(output.stdout(), b"ready\n");
        assert!(output.input_refused() && output.success() && output.is_complete());
        assert!(output.elapsed() >= Duration::from_millis(200));
    });
}

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Puts a handler in place for the length of the body.
fn with_action(signal: Number, handler: SigHandler, body: impl FnOnce()) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handlers of these tests only add to an atomic.
    let before = unsafe { sigaction(signal, &action) }.unwrap();
    body();
    // SAFETY: what was there before.
    unsafe { sigaction(signal, &before) }.unwrap();
}

#[test]
fn a_host_that_does_not_ignore_sigpipe_survives_and_keeps_its_own_signals() {
    alone!({
        let feed = || {
            let output = fixture("exit").arg("0").input(noise(MIB)).timeout(LONG).output().unwrap();
            assert!(output.input_refused() && output.success());
            let mut child = fixture("exit").arg("0").stdin(Stdio::piped()).spawn().unwrap();
            child.handle().wait().unwrap();
            let error = child.stdin.as_mut().unwrap().write_all(b"late").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        };
        with_action(Number::SIGPIPE, SigHandler::SigDfl, feed);
        with_action(Number::SIGPIPE, SigHandler::Handler(count_signal), || {
            feed();
            assert_eq!(SIGNALS.load(Ordering::SeqCst), 0, "the host saw our SIGPIPE");
            // One of the host's own, blocked and pending, is still there afterwards.
            let mut blocked = SigSet::empty();
            blocked.add(Number::SIGPIPE);
            blocked.thread_block().unwrap();
            raise(Number::SIGPIPE).unwrap();
            feed();
            assert_eq!(SIGNALS.load(Ordering::SeqCst), 0);
            blocked.thread_unblock().unwrap();
            assert_eq!(SIGNALS.load(Ordering::SeqCst), 1, "the host's own SIGPIPE is gone");
        });
    });
}

// ---- timeouts lose nothing (A8, A9, C05, C09)

#[test]
fn a_timeout_carries_the_output_so_far() {
    alone!({
        let started = Instant::now();
        let say = fixture("say-sleep").args(["A", "60000", "B"]).timeout(Duration::from_secs(1));
        let error = say.run().unwrap_err();
        assert!(error.is_timeout());
        assert!(started.elapsed() >= Duration::from_secs(1) && started.elapsed() < Duration::from_secs(10));
        let output = error.output();
        assert_eq!((output.stdout(), output.cause()), (&b"A"[..], Cause::Timeout));
        assert_eq!(output.status().signal(), Some(Signal::TERM));
        assert!(error.to_string().contains("timed out after 1s"), "{error}");
    });
}

#[test]
fn a_conversation_goes_on_after_a_timeout() {
    alone!({
        let mut child = fixture("say-sleep").args(["A", "700", "B"]).pipe_all().spawn().unwrap();
        let mut seen = Vec::new();
        wait_for("the first word", || {
            if let Err(error) = child.communicate_timeout((), SHORT) {
                assert!(error.is_timeout());
                assert_eq!(error.output().cause(), Cause::Running);
                assert_eq!(error.output().captured_stdout().completeness(), &Completeness::Open);
                seen = error.output().stdout().to_vec();
            }
            seen == b"A"
        });
        let output = child.communicate(()).unwrap();
        assert_eq!((output.stdout(), output.cause()), (&b"AB"[..], Cause::Ended));
        assert!(output.is_complete() && output.success());
    });
}

#[test]
fn input_goes_on_where_the_timeout_cut_it() {
    alone!({
        let input = noise(MIB);
        let mut child = fixture("late-read").arg("500").pipe_all().spawn().unwrap();
        let error = child.communicate_timeout(&input, SHORT).unwrap_err();
        assert!(error.is_timeout());
        let accepted = error.output().input_accepted();
        assert!(accepted > 0 && accepted < input.len() as u64, "{accepted}");
        assert!(!error.output().input_refused());
        // More input comes behind the old; further timeouts change nothing.
        let error = child.communicate_timeout("and more", SHORT).unwrap_err();
        assert!(error.is_timeout());
        let output = child.communicate(()).unwrap();
        assert!(output.stdout() == [&input[..], b"and more"].concat());
        assert_eq!(output.input_accepted(), input.len() as u64 + 8);
    });
}

#[test]
fn hundreds_of_timeouts_lose_and_double_nothing() {
    alone!({
        let input = noise(6 * MIB);
        let mut child = fixture("cat").pipe_all().spawn().unwrap();
        let mut given = Some(Input::from(&input));
        let mut rounds = 0;
        let mut longest = 0;
        let output = loop {
            rounds += 1;
            let timeout = Duration::from_micros(rounds % 300);
            match child.communicate_timeout(given.take().unwrap_or_else(Input::empty), timeout) {
                Ok(output) => break output,
                Err(error) => {
                    assert!(error.is_timeout(), "{error}");
                    let so_far = error.output().stdout();
                    assert!(so_far.len() >= longest && input.starts_with(so_far));
                    longest = so_far.len();
                }
            }
        };
        assert!(output.stdout() == input);
        assert!(rounds > 1);
    });
}

#[test]
fn a_timeout_is_not_early() {
    alone!({
        let mut child = fixture("sleep").arg("60000").pipe_all().kill_on_drop().spawn().unwrap();
        for micros in [0, 1, 999, 1000, 20_000] {
            let (timeout, started) = (Duration::from_micros(micros), Instant::now());
            assert!(child.communicate_timeout((), timeout).unwrap_err().is_timeout());
            assert!(started.elapsed() >= timeout);
            let moment = Instant::now() + timeout;
            assert!(child.communicate_deadline((), moment).unwrap_err().is_timeout());
            assert!(Instant::now() >= moment);
        }
    });
}

#[test]
fn timeouts_without_end_are_no_timeouts() {
    alone!({
        for timeout in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_nanos(u64::MAX)] {
            assert_eq!(fixture("echo").arg("hi").timeout(timeout).output().unwrap().stdout(), b"hi\n");
            let mut child = fixture("echo").arg("hi").stdout(Stdio::piped()).spawn().unwrap();
            assert_eq!(child.communicate_timeout((), timeout).unwrap().stdout(), b"hi\n");
        }
    });
}

#[test]
fn waiting_costs_no_processor_time() {
    alone!({
        let mut child = fixture("sleep").arg("60000").pipe_all().kill_on_drop().spawn().unwrap();
        let before = cpu_time();
        assert!(child.communicate_timeout((), Duration::from_secs(1)).unwrap_err().is_timeout());
        for _ in 0..100 {
            assert!(child.communicate_timeout((), Duration::from_millis(5)).unwrap_err().is_timeout());
        }
        let spent = cpu_time() - before;
        assert!(spent < Duration::from_millis(400), "{spent:?}");
    });
}

#[test]
fn short_timeouts_do_not_put_off_the_end_of_a_drain() {
    alone!({
        let command = fixture("grandchild").arg("60000").drain(Duration::from_millis(300));
        let mut child = command.pipe_all().spawn().unwrap();
        let _leftover = Leftover(vec![pid_in(&line(child.stdout.as_mut().unwrap()))]);
        let started = Instant::now();
        let output = loop {
            match child.communicate_timeout((), Duration::from_millis(20)) {
                Ok(output) => break output,
                Err(error) => assert!(error.is_timeout(), "{error}"),
            }
            assert!(started.elapsed() < Duration::from_secs(10), "the drain begins anew with each call");
        };
        assert!(matches!(output.captured_stdout().completeness(), Completeness::CutOff { .. }));
        assert!(output.success());
    });
}

// ---- text across chunks (A11, A12)

#[test]
fn characters_that_come_byte_by_byte_are_whole() {
    alone!({
        let text = "€😀é";
        let bytes: Vec<String> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let say = fixture("bytes").args(bytes);
        assert_eq!(say.check_output_text().unwrap(), text);
        // By hand, as the chunks come.
        let mut child = say.stdout(Stdio::piped()).spawn().unwrap();
        let (mut decoder, mut read, mut chunk) = (Text::utf8().decoder(), String::new(), [0; 2]);
        loop {
            let count = child.stdout.as_mut().unwrap().read(&mut chunk).unwrap();
            if count == 0 {
                break;
            }
            decoder.push(&chunk[..count], &mut read).unwrap();
        }
        decoder.finish(&mut read).unwrap();
        assert_eq!(read, text);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn characters_in_every_cut_and_cut_off() {
    alone!({
        for cut in [&["e282ac"][..], &["e2", "82ac"], &["e282", "ac"], &["e2", "82", "ac"]] {
            assert_eq!(fixture("bytes").args(cut.to_vec()).check_output_text().unwrap(), "€");
        }
        // U+1F600 in UTF-16LE, the pair cut in the middle of each half.
        let wide = Text::encoding("utf-16le").unwrap();
        for cut in [&["3dd8", "00de"][..], &["3d", "d800", "de"]] {
            assert_eq!(fixture("bytes").args(cut.to_vec()).text(wide).check_output_text().unwrap(), "😀");
        }
        let error = fixture("bytes").args(["61", "e282"]).check_output_text().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert_eq!(error.output().stdout(), b"a\xe2\x82");
        assert!(error.to_string().contains("byte 1 is not UTF-8"), "{error}");
    });
}

#[test]
fn line_ends_that_are_cut_are_one_line_end() {
    alone!({
        let universal = Text::utf8().newlines(Newlines::Universal);
        let text = fixture("bytes").args(["610d", "0a620d", "0a"]).text(universal).check_output_text().unwrap();
        assert_eq!(text, "a\nb\n");
        let script = Command::new(script("crlf.sh"));
        let universal = script.clone().text(universal).check_output_text().unwrap();
        assert_eq!(universal, "one\ntwo\nthree\nfour\n\nfive");
        assert_eq!(script.check_output_text().unwrap(), "one\r\ntwo\rthree\nfour\r\r\nfive");
    });
}

// ---- order, half-closed and closed streams (A17, A20, A21)

#[test]
fn merged_streams_keep_their_order() {
    alone!({
        let expected: String = (0..1000).map(|i| format!("{} {i}\n", if i % 2 == 0 { "out" } else { "err" })).collect();
        let merge = fixture("merge").arg("1000");
        let merged = merge.clone().stderr(Stdio::stdout()).output().unwrap();
        assert_eq!(merged.stdout_lossy(), expected);
        assert_eq!(merged.captured_stderr().completeness(), &Completeness::NotCaptured);
        let crossed = merge.clone().stdout(Stdio::stderr()).output().unwrap();
        assert_eq!(crossed.stderr_lossy(), expected);
        let apart = merge.output().unwrap();
        let lines = |word: &'static str| {
            expected.lines().filter(move |line| line.starts_with(word)).map(|line| format!("{line}\n"))
        };
        assert_eq!(apart.stdout_lossy(), lines("out").collect::<String>());
        assert_eq!(apart.stderr_lossy(), lines("err").collect::<String>());
    });
}

#[test]
fn a_stream_that_has_ended_costs_nothing_more() {
    alone!({
        let mut child = fixture("close-out").arg("2000").pipe_all().spawn().unwrap();
        let before = cpu_time();
        let mut rounds = 0;
        let output = loop {
            match child.communicate_timeout((), Duration::from_millis(100)) {
                Ok(output) => break output,
                Err(error) => assert!(error.is_timeout(), "{error}"),
            }
            rounds += 1;
        };
        assert!(rounds > 3, "{rounds}");
        assert!(output.success() && output.is_complete());
        let spent = cpu_time() - before;
        assert!(spent < Duration::from_millis(500), "{spent:?}");
    });
}

#[test]
fn input_for_a_closed_or_foreign_stdin_is_refused_and_nothing_is_lost() {
    alone!({
        let mut child = fixture("cat").stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
        drop(child.stdin.take());
        let error = child.communicate("too late").unwrap_err();
        assert!(error.is_invalid_input(), "{error}");
        assert!(error.to_string().contains("standard input"), "{error}");
        assert!(child.communicate(()).unwrap().success());

        let mut child = fixture("cat").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        assert!(child.communicate("no pipe").unwrap_err().is_invalid_input());
        assert!(child.communicate(()).unwrap().success());

        // The end of input was said by the first call.
        let mut child = fixture("say-sleep").args(["A", "500", "B"]).pipe_all().spawn().unwrap();
        assert!(child.communicate_timeout((), SHORT).unwrap_err().is_timeout());
        assert!(child.communicate("more").unwrap_err().is_invalid_input());
        assert_eq!(child.communicate(()).unwrap().stdout(), b"AB");
    });
}

#[test]
fn a_second_conversation_after_the_end_says_the_end() {
    alone!({
        let mut child = fixture("echo").arg("once").pipe_all().spawn().unwrap();
        assert_eq!(child.communicate(()).unwrap().stdout(), b"once\n");
        let again = child.communicate(()).unwrap();
        assert!(again.success() && again.stdout().is_empty());
        assert_eq!(child.returncode(), Some(0));
    });
}

#[test]
fn the_child_and_the_host_keep_blocking_streams() {
    alone!({
        let path = fixture_path().display();
        let command = Command::shell(format!("read word; exec '{path}' fds"));
        let output = command.input("go\n").timeout(LONG).output().unwrap();
        let text = output.stdout_lossy();
        for number in 0..=2 {
            let line = text.lines().find(|line| line.starts_with(&format!("{number} "))).unwrap();
            assert!(line.contains("pipe") && !line.contains("nonblock"), "{text}");
        }
        // A pipe of the host's, shared with the child.
        let (mut reader, writer) = pipe().unwrap();
        let flags = || {
            let all = [reader.as_fd(), writer.as_fd()];
            all.map(|fd| OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).unwrap()))
        };
        let before = flags();
        let output = fixture("echoerr").arg("hi").stdout(Stdio::borrowed(&writer)).output().unwrap();
        assert_eq!(output.stderr(), b"hi\n");
        fixture("echo").arg("there").stdout(Stdio::borrowed(&writer)).call().unwrap();
        assert_eq!(flags(), before);
        drop(writer);
        assert_eq!(line(&mut reader), "there");
    });
}

// ---- what it costs (A14, C08, E7)

#[test]
fn no_thread_is_made() {
    alone!({
        let before = fs::read_dir("/proc/self/task").unwrap().count();
        // Without process descriptors a thread announces the end.
        let allowed = if SpawnRoute::current() == SpawnRoute::Portable { before + 1 } else { before };
        let count = Command::shell("cat >/dev/null; ls /proc/$PPID/task | wc -l").input(noise(MIB));
        let output = count.clone().timeout(LONG).check_output_text().unwrap();
        assert!(output.trim().parse::<usize>().unwrap() <= allowed, "{output} instead of {allowed}");
        let output = count.check_output_text().unwrap();
        assert!(output.trim().parse::<usize>().unwrap() <= allowed, "{output} instead of {allowed}");
    });
}

#[test]
fn memory_is_the_input_and_the_output_and_no_more() {
    alone!({
        // The pages of the program itself are not meant: it has run once before. With little data, because the allocator keeps
        // freed blocks of the size that it has seen freed.
        let small = fixture("cat").input(noise(50_000)).output().unwrap();
        assert_eq!(small.into_stdout().len(), 50_000);
        // The peak is counted from now on.
        if fs::write("/proc/self/clear_refs", "5").is_err() {
            return;
        }
        let before = own_status("VmRSS:");
        // The command keeps its input, so that nothing is given back before the end.
        let command = fixture("cat").input(noise(64 * MIB));
        let output = command.output().unwrap();
        assert_eq!(output.stdout().len(), 64 * MIB);
        let peak = own_status("VmHWM:") - before;
        assert!(peak <= (64 + 64 + 1) * 1024, "{peak} KiB");
    });
}

#[test]
fn endless_output_in_little_memory() {
    alone!({
        let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
        let room = own_status("VmSize:") * 1024 + (48 << 20);
        let flood = fixture("flood").capture_limit(MIB, Overflow::Fail);
        setrlimit(Resource::RLIMIT_AS, room, hard).unwrap();
        let error = flood.clone().output().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overflow, "{error}");
        assert_eq!((error.output().stdout().len(), error.output().cause()), (MIB, Cause::Overflow));
        for policy in [Overflow::Head, Overflow::Tail, Overflow::HeadTail] {
            let flood = flood.clone().capture_limit(MIB, policy).timeout(Duration::from_millis(500));
            let error = flood.output().unwrap_err();
            assert!(error.is_timeout(), "{error}");
            assert_eq!(error.output().stdout().len(), MIB);
            assert!(error.output().captured_stdout().dropped() > 0);
        }
        setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
    });
}

#[test]
fn what_exceeds_the_limit_of_one_stream_is_no_matter_of_the_other() {
    alone!({
        let both = fixture("alternate").args(["100000", "1000", "1000"]);
        let output = both.clone().capture_limit_stderr(10, Overflow::Tail).output().unwrap();
        assert!(output.stdout() == pattern(100_000));
        assert!(output.stderr() == &pattern(100_000)[99_990..]);
        assert_eq!((output.captured_stderr().dropped(), output.captured_stderr().gap()), (99_990, Some(0)));
        assert!(!output.is_complete());
        let error = both.capture_limit_stderr(10, Overflow::Fail).output().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overflow);
        assert!(error.to_string().contains("wrote more than 10 bytes to stderr"), "{error}");
        assert_eq!(error.output().stderr(), &pattern(10));
    });
}

/// Sends SIGUSR1 to the calling thread a thousand times a second.
fn with_interruptions(body: impl FnOnce()) {
    let over = AtomicBool::new(false);
    // A number on some systems and a pointer on others. SAFETY: no arguments.
    let target = unsafe { libc::pthread_self() } as usize;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                // SAFETY: the thread lives at least as long as this scope.
                unsafe { libc::pthread_kill(target as libc::pthread_t, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        body();
        over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn interrupted_calls_go_on() {
    alone!({
        with_action(Number::SIGUSR1, SigHandler::Handler(count_signal), || {
            with_interruptions(|| {
                let input = noise(3 * MIB);
                for _ in 0..5 {
                    let output = fixture("a2").args(["500000", "500000"]).input(&input).timeout(LONG).output().unwrap();
                    assert!(output.stdout() == pattern(500_000));
                    let slow = fixture("late-read").arg("100").input(&input).output().unwrap();
                    assert!(slow.stdout() == input);
                }
                let (started, timeout) = (Instant::now(), Duration::from_millis(200));
                let mut child = fixture("sleep").arg("60000").pipe_all().spawn().unwrap();
                assert!(child.communicate_timeout((), timeout).unwrap_err().is_timeout());
                assert_eq!(child.wait_timeout(timeout).unwrap(), None);
                assert!(started.elapsed() >= 2 * timeout);
                assert!(started.elapsed() < 50 * timeout, "{:?}", started.elapsed());
                child.terminate().unwrap();
                assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM));
                let error = fixture("deaf").arg("60000").timeout(timeout).run().unwrap_err();
                assert!(error.is_timeout());
            });
        });
        assert!(SIGNALS.load(Ordering::SeqCst) > 100);
    });
}

#[test]
fn without_threads_and_processes_to_spare_a_conversation_goes_on() {
    alone!({
        if !is_root() {
            return;
        }
        let mut child = fixture("late-read").arg("300").pipe_all().spawn().unwrap();
        let mut sleeper = fixture("sleep").arg("60000").pipe_all().spawn().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
        without_rights(|| {
            setrlimit(Resource::RLIMIT_NPROC, 0, hard).unwrap();
            assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "threads can still be made");
            let input = noise(MIB);
            assert!(child.communicate_timeout(&input, SHORT).unwrap_err().is_timeout());
            assert!(child.communicate(()).unwrap().stdout() == input);
            assert!(fixture("exit").arg("0").output().is_err());
            // There the crate `wait-timeout` takes over, with a handler for SIGCHLD that stays.
            if SpawnRoute::current() != SpawnRoute::Portable {
                assert_eq!(sleeper.wait_timeout(SHORT).unwrap(), None);
            }
            assert!(sleeper.communicate_timeout((), SHORT).unwrap_err().is_timeout());
            setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
        });
        sleeper.kill().unwrap();
        assert_eq!(sleeper.wait().unwrap().signal(), Some(Signal::KILL));
    });
}

/// What the library keeps for a thread goes before what the caller keeps for it.
#[test]
fn a_command_is_run_by_what_a_thread_leaves_last() {
    use std::cell::RefCell;
    use std::sync::mpsc::{Sender, channel};
    struct Last(Sender<Vec<u8>>);
    impl Drop for Last {
        fn drop(&mut self) {
            let said = Command::new("echo").arg("last").output().unwrap().into_stdout();
            self.0.send(said).unwrap();
        }
    }
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    alone!({
        let (say, heard) = channel();
        let thread = std::thread::spawn(move || {
            LAST.set(Some(Last(say)));
            Command::new("echo").arg("first").output().unwrap().into_stdout()
        });
        assert_eq!(heard.recv().unwrap(), b"last\n");
        assert_eq!(thread.join().unwrap(), b"first\n");
    });
}
