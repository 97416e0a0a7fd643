//! Turns: write, wait for something, and again; on pipes. Terminals are in `pty`.

use crate::support::{alone, children, fixture};
use crate::talk::pattern;
use procession::{
    Cause, Child, Command, Error, ErrorKind, Filter, Input, Newlines, Overflow, Pattern, Stdio, Stream, Text,
};
use std::time::{Duration, Instant};

/// Generous: no test waits for it unless something is wrong.
const LONG: Duration = Duration::from_secs(50);
/// For what is not to come.
const SHORT: Duration = Duration::from_millis(100);

fn talking(command: Command) -> Child {
    command.pipe_all().spawn().unwrap()
}

/// Ends the child and reaps it.
fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn turns_follow_each_other() {
    alone!({
        let mut child = talking(fixture("pingpong"));
        let mut talk = child.converse(LONG);
        for round in 0..100 {
            let word = format!("word {round}");
            talk.write_line(&word).unwrap();
            let reply = talk.read_until("pong ").unwrap();
            assert_eq!(
                (reply.bytes(), reply.before(), reply.matched(), reply.which()),
                (&b"pong "[..], &b""[..], &b"pong "[..], 0)
            );
            assert_eq!(talk.read_line().unwrap().unwrap(), word.as_bytes());
            assert_eq!(talk.unread(), b"");
        }
        talk.end_input();
        assert_eq!(talk.read_line().unwrap(), None);
        assert_eq!(talk.read_to_end().unwrap(), b"");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_pattern_is_found_whatever_the_borders_of_reads_and_what_follows_stays() {
    alone!({
        // Each byte comes by a write of its own.
        let mut child = talking(fixture("bytes").args(["61", "62", "3e", "20", "63", "64"]));
        let mut talk = child.converse(LONG);
        let reply = talk.read_until(Pattern::any(["zz", "> ", ">"])).unwrap();
        // `>` came before `> ` could.
        assert_eq!((reply.which(), reply.bytes()), (2, &b"ab>"[..]));
        assert_eq!(talk.read_until(b" ").unwrap().bytes(), b" ");
        assert_eq!(talk.read_until("cd").unwrap().text(), "");
        child.wait().unwrap();

        let mut child = talking(Command::shell("printf 'a> b> c'"));
        child.handle().wait().unwrap();
        let mut talk = child.converse(LONG);
        assert_eq!(talk.read_until(Pattern::any(["b", "> "])).unwrap().which(), 1);
        assert_eq!(talk.unread(), b"b> c");
        assert_eq!(
            talk.read_until(Pattern::with(|unread| unread.iter().position(|b| *b == b'>').map(|at| at..at + 1)))
                .unwrap()
                .before(),
            b"b"
        );
        assert_eq!(talk.read_to_end().unwrap(), b" c");
        child.wait().unwrap();
    });
}

#[test]
fn a_pattern_that_never_comes_takes_nothing_and_the_conversation_goes_on() {
    alone!({
        let mut child = talking(fixture("pingpong"));
        let mut talk = child.converse(LONG);
        talk.write_line("one").unwrap();
        talk.read_until("pong").unwrap();
        talk.set_timeout(SHORT);
        let asked = Instant::now();
        let error = talk.read_until("never").unwrap_err();
        assert!(asked.elapsed() >= SHORT);
        assert!(error.is_timeout());
        assert!(error.to_string().contains(r#""never" did not come within 100ms"#), "{error}");
        // The context and what is unread.
        assert_eq!(error.output().stdout(), b"pong one\n");
        assert_eq!(error.output().cause(), Cause::Running);
        talk.set_timeout(LONG);
        assert_eq!(talk.unread(), b" one\n");
        assert_eq!(talk.read_line().unwrap().unwrap(), b" one");
        talk.write_line("two").unwrap();
        talk.read_until("two").unwrap();
        end(child);
    });
}

#[test]
fn the_end_of_the_output_is_an_error_with_the_status_and_all_that_was_said() {
    alone!({
        let mut child = talking(Command::shell("echo half; echo 'disk is full' >&2; exit 3"));
        let error = child.converse(LONG).read_until("done").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ended);
        let text = error.to_string();
        assert!(text.contains(r#"the output ended before "done" came"#), "{text}");
        assert!(text.ends_with("stderr ends:\ndisk is full"), "{text}");
        assert_eq!((error.output().stdout(), error.output().returncode()), (&b"half\n"[..], 3));
        assert_eq!(error.output().cause(), Cause::Ended);
        // And it can still be read.
        assert_eq!(child.converse(LONG).read_to_end().unwrap(), b"half\n");
        assert_eq!(child.wait().unwrap().code(), Some(3));
    });
}

#[test]
fn a_stream_that_ends_while_the_process_goes_on_is_told_at_once() {
    alone!({
        let mut child = talking(fixture("close-out").arg("60000"));
        let asked = Instant::now();
        let error = child.converse(LONG).read_until("x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ended);
        assert!(asked.elapsed() < LONG / 2);
        assert_eq!(child.try_wait().unwrap(), None);
        end(child);
    });
}

#[test]
fn writing_and_reading_do_not_block_each_other() {
    alone!({
        // It writes while it reads, and to both streams before it reads.
        let size = 8 << 20;
        let mut child = talking(fixture("a2").args([(1 << 20).to_string(), (1 << 20).to_string()]));
        let mut talk = child.converse(LONG);
        talk.write(pattern(size)).unwrap();
        talk.end_input();
        assert!(talk.read_to_end().unwrap() == pattern(1 << 20));
        talk.listen_to(Stream::Stderr);
        // Nobody listened to it: the end was kept.
        let errors = talk.read_to_end().unwrap();
        let said = [pattern(1 << 20), format!("{size}\n").into_bytes()].concat();
        assert!(errors.len() >= 64 * 1024 && said.ends_with(&errors));
        child.wait().unwrap();

        let mut child = talking(fixture("cat"));
        let mut talk = child.converse(LONG);
        talk.write(pattern(size)).unwrap();
        talk.write_line("!").unwrap();
        assert!(talk.read_until("!").unwrap().before() == pattern(size));
        talk.end_input();
        child.wait().unwrap();
    });
}

#[test]
fn a_child_that_does_not_take_its_input_is_told() {
    alone!({
        // Not in time: what is left goes with the next turn.
        let mut child = talking(fixture("late-read").arg("2000"));
        let mut talk = child.converse(SHORT);
        let error = talk.write(pattern(4 << 20)).unwrap_err();
        assert!(
            error.is_timeout() && error.to_string().contains("bytes of input were not taken within 100ms"),
            "{error}"
        );
        talk.set_timeout(LONG);
        talk.write("!").unwrap();
        assert!(talk.read_until("!").unwrap().before() == pattern(4 << 20));
        talk.end_input();
        child.wait().unwrap();

        // Never: it has closed its end.
        let mut child = talking(fixture("close-in").arg("60000"));
        let mut talk = child.converse(LONG);
        talk.read_until("ready").unwrap();
        let error = talk.write_line("hello").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("write stdin: the child has closed its input"), "{error}");
        let again = talk.write_line("hello").unwrap_err();
        assert!(again.is_invalid_input(), "{again}");
        end(child);

        // Never: it has ended.
        let mut child = talking(fixture("exit").arg("0"));
        child.handle().wait().unwrap();
        assert_eq!(child.converse(LONG).write("x").unwrap_err().kind(), ErrorKind::Io);
    });
}

#[test]
fn quiet_is_waited_for() {
    alone!({
        let mut child = talking(fixture("pingpong"));
        let mut talk = child.converse(LONG);
        assert_eq!(talk.read_quiet(SHORT).unwrap(), b"");
        talk.write("one\ntwo\n").unwrap();
        talk.read_until("pong").unwrap();
        assert_eq!(talk.read_quiet(Duration::from_millis(500)).unwrap(), b" one\npong two\n");
        talk.end_input();
        assert_eq!(talk.read_quiet(LONG).unwrap(), b"");
        child.wait().unwrap();

        let mut child = talking(fixture("flood"));
        let mut talk = child.converse(SHORT);
        let error = talk.read_quiet(Duration::from_millis(90)).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("not quiet for 90ms within 100ms"), "{error}");
        assert!(!talk.unread().is_empty());
        end(child);
    });
}

#[test]
fn lines_of_every_kind() {
    alone!({
        let command = fixture("bytes").args(["610d", "0a620d", "63", "0d0a0a64"]);
        let mut child = talking(command.text(Text::utf8().newlines(Newlines::Universal)));
        let mut talk = child.converse(LONG);
        let mut lines = Vec::new();
        while let Some(line) = talk.read_line().unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        // The `\r` of the first line ended it before the `\n` could come.
        lines.retain(|line| !line.is_empty());
        assert_eq!(lines, ["a", "b", "c", "d"]);
        child.wait().unwrap();
    });
}

#[test]
fn more_than_the_limit_unread_stops_the_child() {
    alone!({
        let mut child = talking(fixture("flood").capture_limit(100_000, Overflow::Fail));
        let error = child.converse(LONG).read_until("never").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overflow);
        assert!(error.output().stdout().len() > 100_000);
        assert!(error.output().stdout().len() < 1_000_000);
        assert!(child.wait().unwrap().signal().is_some());
    });
}

#[test]
fn either_stream_can_be_listened_to() {
    alone!({
        let mut child = talking(Command::shell("echo one; echo oops >&2; read -r go; echo two; echo again >&2"));
        let mut talk = child.converse(LONG);
        assert_eq!(talk.read_line().unwrap().unwrap(), b"one");
        assert_eq!(talk.listen_to(Stream::Stderr).read_line().unwrap().unwrap(), b"oops");
        talk.write_line("go").unwrap();
        assert_eq!(talk.listen_to(Stream::Stdout).read_line().unwrap().unwrap(), b"two");
        assert_eq!(talk.listen_to(Stream::Stderr).read_to_end().unwrap(), b"again\n");
        child.wait().unwrap();
    });
}

#[test]
fn what_no_turn_has_taken_is_there_for_others() {
    alone!({
        let mut child = talking(Command::shell("echo one; echo two; echo three; read -r go; echo four"));
        child.converse(LONG).read_until("one\n").unwrap();
        let mut lines = child.lines();
        assert_eq!(lines.next().unwrap().unwrap().text(), "two");
        drop(lines);
        assert_eq!(child.converse(LONG).read_line().unwrap().unwrap(), b"three");
        let output = child.communicate("go\n").unwrap();
        assert_eq!(output.stdout(), b"four\n");
        assert_eq!(output.captured_stdout().total(), 19);
        assert!(output.success());
    });
}

#[test]
fn a_command_that_converses_does_not_outlive_it() {
    alone!({
        // The function is done, and the child sees the end of its input.
        let (reply, output) = fixture("pingpong")
            .converse(LONG, |talk| {
                talk.write_line("hello")?;
                talk.read_line()
            })
            .unwrap();
        assert_eq!(reply.unwrap(), b"pong hello");
        assert!(output.success() && output.cause() == Cause::Ended);

        // A turn that fails.
        let failed = Command::shell("echo half; sleep 60 & sleep 60").converse(SHORT, |talk| talk.read_until("never"));
        let error = failed.unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(error.output().stdout(), b"half\n");
        assert_eq!(children(), [""; 0]);

        // A function that fails by itself.
        let failed: Result<((), _), Error> = fixture("ready-sleep").arg("60000").converse(LONG, |talk| {
            talk.read_until("ready")?;
            Err(Command::new("no-such-program").call().unwrap_err())
        });
        assert!(failed.unwrap_err().is_not_found());
        assert_eq!(children(), [""; 0]);

        // A function that panics.
        let panicked = std::panic::catch_unwind(|| {
            let _ = fixture("sleep").arg("60000").converse(LONG, |_| -> Result<(), Error> { panic!("no") });
        });
        assert!(panicked.is_err());
        assert_eq!(children(), [""; 0]);

        // A child that goes on when all has been said.
        let error = Command::shell("echo hello; exec sleep 60").converse(SHORT, |talk| talk.read_line()).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("not ended within 100ms"), "{error}");
        assert_eq!(children(), [""; 0]);
    });
}

#[test]
fn the_timeout_of_the_command_bounds_all_turns() {
    alone!({
        let asked = Instant::now();
        let flood = fixture("flood").timeout(Duration::from_millis(300));
        let error = flood
            .converse(LONG, |talk| {
                loop {
                    talk.read_line()?;
                }
            })
            .map(|(never, _): ((), _)| never)
            .unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(asked.elapsed() >= Duration::from_millis(300) && asked.elapsed() < LONG / 2);
    });
}

#[test]
fn pipelines_converse_too() {
    alone!({
        let louder = fixture("pingpong") | Filter::map_lines(|line| line.to_ascii_uppercase()) | fixture("cat");
        let mut child = louder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut talk = child.converse(LONG);
        for word in ["one", "two"] {
            talk.write_line(word).unwrap();
            assert_eq!(talk.read_line().unwrap().unwrap(), format!("PONG {}", word.to_uppercase()).as_bytes());
        }
        talk.end_input();
        assert_eq!(talk.read_to_end().unwrap(), b"");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn an_empty_pattern_and_a_stream_that_is_not_there_are_refused() {
    alone!({
        let mut child = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut talk = child.converse(LONG);
        assert!(talk.read_until("").unwrap_err().is_invalid_input());
        assert_eq!(talk.read_until("x").unwrap_err().kind(), ErrorKind::Ended);
        assert_eq!(talk.read_line().unwrap(), None);
        talk.end_input();
        child.wait().unwrap();
        let mut child = fixture("exit").arg("0").spawn().unwrap();
        assert!(child.converse(LONG).write("x").unwrap_err().is_invalid_input());
        child.wait().unwrap();
    });
}

#[test]
fn a_turn_that_waits_uses_no_processor_time() {
    alone!({
        let mut child = talking(fixture("close-out").arg("60000"));
        let before = cpu_time();
        let mut talk = child.converse(Duration::from_millis(500));
        talk.listen_to(Stream::Stderr);
        assert!(talk.read_until("x").unwrap_err().is_timeout());
        assert!(cpu_time() - before < Duration::from_millis(50));
        end(child);
    });
}

fn cpu_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).unwrap();
    let time = |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    time(usage.user_time()) + time(usage.system_time())
}

#[test]
fn input_of_the_command_comes_first_and_leaves_room_for_turns() {
    alone!({
        let command = fixture("cat").input("one\n");
        let (answer, output) = command
            .converse(LONG, |talk| {
                talk.read_until("one\n")?;
                talk.write("two\n")?;
                talk.end_input();
                talk.read_to_end()
            })
            .unwrap();
        assert_eq!(answer, b"two\n");
        assert!(output.success() && !output.input_refused());
        // Nobody has to say the end.
        let (_, output) = command.converse(LONG, |talk| talk.read_until("one\n")).unwrap();
        assert!(output.success());
    });
}

#[test]
fn the_end_of_input_comes_behind_what_a_reader_still_has() {
    alone!({
        let command = fixture("cat").input(Input::reader(std::io::Cursor::new(pattern(300_000))));
        let (all, output) = command
            .converse(LONG, |talk| {
                talk.end_input();
                talk.read_to_end()
            })
            .unwrap();
        assert!(all == pattern(300_000) && !output.input_refused());
    });
}

#[test]
fn lines_that_cannot_be_found_among_the_bytes_are_refused() {
    alone!({
        let text = Text::encoding("utf-16le").unwrap();
        let mut child = talking(fixture("echo").arg("x").text(text));
        let error = child.converse(LONG).read_line().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        child.wait().unwrap();
    });
}

#[test]
fn half_of_a_line_end_is_no_line() {
    alone!({
        let universal = Text::utf8().newlines(Newlines::Universal);
        // The second half comes later than the line.
        let halves = fixture("bytes").args(["610d", "0a62", "0d", "630d0a", "64"]).text(universal);
        let mut child = halves.pipe_all().spawn().unwrap();
        let mut talk = child.converse(Duration::from_secs(10));
        let mut lines = Vec::new();
        while let Some(line) = talk.read_line().unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["a", "b", "c", "d"]);
        assert_eq!(child.communicate(()).unwrap().captured_stdout().total(), 9);
    });
}
