//! Commands joined by pipes.

use crate::support::{alone, children, fixture, is_running, script, wait_for};
use crate::talk::pattern;
use procession::{Cause, Command, Completeness, ErrorKind, Overflow, Pipeline, Signal, Stdio, Stop};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

const MIB: usize = 1024 * 1024;
const LONG: Duration = Duration::from_secs(60);

fn cat() -> Command {
    fixture("cat")
}

#[test]
fn what_one_writes_the_next_reads() {
    alone!({
        let three = fixture("lines").arg("3") | fixture("upper") | cat();
        assert_eq!(three.check_output().unwrap(), b"LINE 0\nLINE 1\nLINE 2\n");
        assert_eq!(three.stages().len(), 3);
        // Made in other ways it is the same.
        let collected: Pipeline = [fixture("lines").arg("3"), fixture("upper"), cat()].into_iter().collect();
        let methods = fixture("lines").arg("3").pipe(fixture("upper")).pipe(cat());
        let halves = fixture("lines").arg("3") | (fixture("upper") | cat());
        for other in [collected, methods, halves] {
            assert_eq!(other.to_string(), three.to_string());
            assert_eq!(other.check_output_text().unwrap(), "LINE 0\nLINE 1\nLINE 2\n");
        }
    });
}

#[test]
fn the_pipe_to_the_next_stage_has_the_size_that_was_wished_for() {
    alone!({
        let sized = cat().stdin(Stdio::piped()).pipe_size(128 * 1024) | cat();
        let mut whole = sized.stdout(Stdio::piped()).spawn().unwrap();
        let first = whole.handles().next().unwrap().id();
        let end = std::fs::File::options().write(true).open(format!("/proc/{first}/fd/1")).unwrap();
        // SAFETY: an integer argument.
        assert_eq!(unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&end), libc::F_GETPIPE_SZ) }, 128 * 1024);
        drop(end);
        assert!(whole.wait().unwrap().success());
    });
}

#[test]
fn fifty_stages_and_large_data_work() {
    alone!({
        let fifty: Pipeline = (0..50).map(|_| cat()).collect();
        let input = pattern(3 * MIB);
        let output = fifty.input(input.clone()).timeout(LONG).output().unwrap();
        assert!(output.stdout() == input);
        assert_eq!(output.stages().len(), 50);
        assert!(output.success() && output.is_complete());
        assert_eq!(output.input_accepted(), input.len() as u64);

        let size = 64 * MIB;
        let large = fixture("spew").arg(size.to_string()) | cat() | cat() | fixture("count");
        let text = large.timeout(LONG).check_output_text().unwrap();
        assert!(text.starts_with(&format!("{size} ")), "{text}");
    });
}

#[test]
fn the_status_of_the_whole_is_that_of_the_last_failure() {
    alone!({
        let exit = |code: u8| fixture("exit").arg(code.to_string());
        assert!((exit(0) | exit(0)).call().unwrap().success());
        assert_eq!((exit(3) | exit(0)).call().unwrap().code(), Some(3));
        assert_eq!((exit(3) | exit(4) | exit(0)).call().unwrap().code(), Some(4));
        assert_eq!((exit(3) | exit(0) | exit(5)).call().unwrap().code(), Some(5));
        assert!((exit(3) | exit(0)).pipefail(false).call().unwrap().success());
        assert!((exit(3).accept([0, 3]) | exit(0)).check_call().is_ok());
        let error = (exit(3) | exit(0)).check_call().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Status);
        assert!(error.to_string().contains("stage 1 ("), "{error}");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    });
}

#[test]
fn a_stage_that_nobody_reads_any_more_is_forgiven() {
    alone!({
        let endless = fixture("flood") | fixture("swallow").arg("10");
        let output = endless.timeout(LONG).output().unwrap();
        assert_eq!(output.stdout(), b"swallowed 10\n");
        assert_eq!(output.stages()[0].status().signal(), Some(Signal::PIPE));
        assert!(output.success() && output.status().success());
        // The last stage has nobody behind it to be forgiven for.
        let last = cat() | fixture("raise").arg("PIPE");
        assert_eq!(last.output().unwrap().status().signal(), Some(Signal::PIPE));
    });
}

#[test]
fn every_stage_has_a_record_of_its_own() {
    alone!({
        let speaking = Command::new(script("chatty.sh")) | Command::shell("cat; echo second >&2") | cat();
        let output = speaking.output().unwrap();
        assert_eq!(output.stdout(), b"out one\nout two\n");
        assert_eq!(output.stderr(), b"err one\nerr two\nsecond\n");
        let [one, two, three] = output.stages() else { panic!("{output}") };
        assert_eq!(
            (one.stderr(), two.stderr(), three.stderr()),
            (&b"err one\nerr two\n"[..], &b"second\n"[..], &b""[..])
        );
        assert_eq!((one.returncode(), two.returncode(), three.returncode()), (3, 0, 0));
        assert_eq!(output.returncode(), 3);
        assert!(output.stages().iter().all(|stage| stage.usage().is_some() && stage.pid().is_some()));
        assert!(output.usage().unwrap().resident_max > 0);
        let error = output.check().unwrap_err();
        assert!(error.to_string().ends_with("stderr ends:\nerr one\nerr two\nsecond"), "{error}");
        assert_eq!(error.output().stdout(), b"out one\nout two\n");
    });
}

#[test]
fn one_timeout_stops_all_and_loses_nothing() {
    alone!({
        let started = Instant::now();
        let stuck = Command::shell("echo early; sleep 60 & sleep 60") | cat() | Command::shell("cat; sleep 60");
        let error = stuck.timeout(Duration::from_millis(300)).output().unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(error.output().stdout(), b"early\n");
        assert_eq!(error.output().cause(), Cause::Timeout);
        assert_eq!(error.output().survivors(), []);
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn what_exceeds_a_limit_ends_the_whole() {
    alone!({
        let flood = fixture("flood") | cat().capture_limit(1000, Overflow::Fail);
        let error = flood.output().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overflow);
        assert_eq!(error.output().stdout().len(), 1000);
        let tail = (fixture("spew").arg("100000") | cat().capture_limit(1000, Overflow::Tail)).output().unwrap();
        assert!(tail.stdout() == &pattern(100_000)[99_000..]);
        assert!(!tail.is_complete() && tail.success());
    });
}

#[test]
fn a_conversation_goes_on_after_a_timeout() {
    alone!({
        let slow = (cat() | fixture("late-read").arg("400")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = slow.spawn().unwrap();
        let input = pattern(2 * MIB);
        let error = child.communicate_timeout(input.clone(), Duration::from_millis(50)).unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(error.output().cause(), Cause::Running);
        let output = child.communicate(()).unwrap();
        assert!(output.stdout() == input);
        assert!(output.success());
    });
}

#[test]
fn the_ends_are_the_callers() {
    alone!({
        let shouting = (cat() | fixture("upper")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shouting.spawn().unwrap();
        assert_eq!(child.handles().count(), 2);
        child.stdin.take().unwrap().write_all(b"hello").unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "HELLO");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_stop_reaches_every_stage_at_the_same_time() {
    alone!({
        let deaf = fixture("deaf").arg("60000") | fixture("deaf").arg("60000") | fixture("deaf").arg("60000");
        let mut child = deaf.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let grace = Duration::from_millis(500);
        let started = Instant::now();
        let reports = child.stop(&Stop::term_then_kill(grace)).unwrap();
        assert!(started.elapsed() < grace * 3, "one grace for all, not one for each");
        assert_eq!(reports.len(), 3);
        assert!(reports.iter().all(|report| report.is_stopped()));
        assert!(child.wait().unwrap().signal().is_some());
    });
}

#[test]
fn a_stage_that_cannot_start_leaves_nothing_behind() {
    alone!({
        let broken = fixture("sleep").arg("60000") | Command::new("no-such-program-here") | cat();
        for error in [broken.output().unwrap_err(), broken.spawn().unwrap_err()] {
            assert!(error.is_not_found(), "{error}");
        }
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn streams_inside_are_not_given_twice() {
    alone!({
        let cases = [
            cat() | cat().stdin(Stdio::null()),
            cat() | cat().input("x"),
            cat().stdout(Stdio::null()) | cat(),
            Pipeline::from_iter([]),
        ];
        for wrong in cases {
            assert!(wrong.output().unwrap_err().is_invalid_input());
        }
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn errors_of_a_stage_can_go_through_the_pipe() {
    alone!({
        let merged = fixture("merge").arg("4").stderr(Stdio::stdout()) | cat();
        assert_eq!(merged.check_output().unwrap(), b"out 0\nerr 1\nout 2\nerr 3\n");
        let quiet = (Command::new(script("chatty.sh")).accept([3]) | cat()).stderr(Stdio::null());
        let output = quiet.output().unwrap();
        assert_eq!(output.captured_stderr().completeness(), &Completeness::NotCaptured);
        assert!(output.success());
    });
}

#[test]
fn a_reader_that_fails_ends_every_stage() {
    alone!({
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("no more data"))
            }
        }
        let error = (cat() | cat()).input(procession::Input::reader(Failing)).output().unwrap_err();
        assert!(error.to_string().contains("no more data"), "{error}");
        assert_eq!(error.output().cause(), Cause::Stopped);
        assert!(error.output().stages().iter().all(|stage| stage.status().is_known()));
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn a_refused_input_loses_nothing_of_an_unfinished_conversation() {
    alone!({
        let slow = fixture("say-sleep").args(["early ", "300", "late"]) | cat();
        let mut child = slow.stdout(Stdio::piped()).spawn().unwrap();
        let error = child.communicate_timeout((), Duration::from_millis(100)).unwrap_err();
        assert!(error.is_timeout());
        assert!(child.communicate("nobody reads this").unwrap_err().is_invalid_input());
        assert_eq!(child.communicate(()).unwrap().stdout(), b"early late");
    });
}

#[test]
fn every_stage_is_stopped_by_its_own_plan_unless_there_is_one_for_all() {
    alone!({
        let polite = |plan: Stop| fixture("polite").args(["60000", "7"]).stop(plan);
        let graceful = || Stop::term_then_kill(LONG);
        let mixed = (polite(Stop::kill()) | polite(graceful())).timeout(Duration::from_millis(500));
        let error = mixed.clone().output().unwrap_err();
        let statuses: Vec<_> = error.output().stages().iter().map(|stage| stage.returncode()).collect();
        assert_eq!(statuses, [-9, 7]);
        let error = mixed.stop(graceful()).output().unwrap_err();
        // Its last words may find nobody who reads them any more.
        assert!([7, -Signal::PIPE.number()].contains(&error.output().stages()[0].returncode()), "{error}");
    });
}

#[test]
fn a_stop_closes_the_input_also_after_a_conversation_has_begun() {
    alone!({
        let both = (cat() | cat()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = both.spawn().unwrap();
        let reports = child.stop(&Stop::new().close_stdin(LONG)).unwrap();
        assert!(reports.iter().all(|report| report.status().success()), "{reports:?}");
        let mut child = both.spawn().unwrap();
        let error =
            child.communicate_timeout(procession::Input::reader(Endless), Duration::from_millis(100)).unwrap_err();
        assert!(error.is_timeout());
        assert!(child.stdin.is_some(), "it is still the caller's");
        child.stdout = None;
        let reports = child.stop(&Stop::new().close_stdin(LONG)).unwrap();
        assert!(reports.iter().all(|report| report.is_stopped()), "{reports:?}");
    });
}

struct Endless;

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(b'x');
        Ok(buffer.len())
    }
}

#[test]
fn a_stage_that_floods_does_not_starve_the_others() {
    alone!({
        // Each stage says one line, while the first one writes without end.
        let flooding = Command::shell("yes >&2");
        let saying = (0..9).map(|place| Command::shell(format!("echo line {place} >&2; exec sleep 60")));
        let pipeline = std::iter::once(flooding).chain(saying).collect::<Pipeline>().stop(Stop::kill());
        let mut seen = Vec::new();
        let output = pipeline.try_for_each_line(|line| {
            if line.stage() > 0 {
                seen.push(line.text().into_owned());
            }
            if seen.len() == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(output.unwrap().cause(), Cause::Stopped);
        seen.sort();
        assert_eq!(seen, (0..9).map(|place| format!("line {place}")).collect::<Vec<_>>());
    });
}

#[test]
fn a_stage_that_had_ended_by_itself_was_not_stopped() {
    alone!({
        let last = Command::shell("cat; exec 2>&-; echo now; exec sleep 60");
        let breaking = (Command::new("true") | last).stop(Stop::kill());
        // A process closes its streams a moment before it has ended.
        let pid = |child: &String| child.split(' ').next().and_then(|pid| pid.parse().ok()).unwrap();
        let ended = || children().len() == 1 || !children().iter().map(pid).all(is_running);
        let output = breaking
            .try_for_each_line(|_| {
                wait_for("the end of the first stage", ended);
                std::ops::ControlFlow::Break(())
            })
            .unwrap();
        let causes: Vec<_> = output.stages().iter().map(|stage| stage.cause()).collect();
        assert_eq!((output.cause(), causes), (Cause::Stopped, vec![Cause::Ended, Cause::Stopped]));
        assert_eq!(children(), Vec::<String>::new());
    });
}
