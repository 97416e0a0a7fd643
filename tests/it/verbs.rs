//! The verbs that run a command to its end: what they return, what they collect, and how they say what went wrong.

use crate::support::{alone, children, fixture, fixture_path, script};
use crate::talk::{Leftover, line, noise, pattern, pids_in};
use procession::{
    Cause, Command, Completeness, Error, ErrorKind, ErrorMode, ExitStatus, Input, Newlines, Overflow, Signal, Stdio,
    Stop, Text, cmd, pipe,
};
use std::fs;
use std::io::{self, Cursor};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const LONG: Duration = Duration::from_secs(40);

/// A file of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Scratch {
        let path = std::env::temp_dir().join(format!("procession-verbs-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs the body with another descriptor in place of one of 0 to 2.
fn with_stream(number: i32, fd: &OwnedFd, body: impl FnOnce()) {
    // SAFETY: integer arguments.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    assert!(copy > 2);
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let saved = unsafe { OwnedFd::from_raw_fd(copy) };
    // SAFETY: both are open; the test runs alone.
    unsafe { libc::dup2(fd.as_raw_fd(), number) };
    body();
    // SAFETY: both are open; the test runs alone.
    unsafe { libc::dup2(saved.as_raw_fd(), number) };
}

// ---- call, check_call, status (S10, S11)

#[test]
fn call_returns_how_it_ended() {
    alone!({
        let exit = |code: i32| fixture("exit").arg(code.to_string());
        assert_eq!(exit(7).call().unwrap().code(), Some(7));
        assert_eq!(exit(0).status().unwrap(), ExitStatus::from_code(0));
        assert_eq!(fixture("raise").arg("TERM").call().unwrap().signal(), Some(Signal::TERM));
        exit(0).check_call().unwrap();
        let error = exit(3).check_call().unwrap_err();
        assert_eq!((error.kind(), error.output().returncode()), (ErrorKind::Status, 3));
        assert!(error.is_status());
        assert_eq!(error.to_string(), format!("{}: exit status: 3", exit(3)));
        let error = fixture("raise").arg("KILL").check_call().unwrap_err();
        assert!(error.to_string().ends_with(": signal: SIGKILL"), "{error}");
    });
}

#[test]
fn call_shares_the_streams_of_this_program() {
    alone!({
        let (mut reader, writer) = pipe().unwrap();
        let (input_reader, input_writer) = pipe().unwrap();
        nix::unistd::write(&input_writer, b"from above\n").unwrap();
        drop(input_writer);
        let (input, output) = (OwnedFd::from(input_reader), OwnedFd::from(writer));
        with_stream(0, &input, || {
            with_stream(1, &output, || {
                assert!(fixture("upper").call().unwrap().success());
                // Verbs that collect have no input, whatever this program has.
                assert_eq!(fixture("cat").check_output().unwrap(), b"");
            });
        });
        drop((output, input));
        assert_eq!(line(&mut reader), "FROM ABOVE");
        assert_eq!(line(&mut reader), "");
    });
}

#[test]
fn streams_that_are_set_go_where_they_are_told() {
    alone!({
        let (from, to) = (Scratch::new("from", "file input\n"), Scratch::new("to", "old"));
        let upper = fixture("upper").stdin(Stdio::read(&from.0));
        let output = upper.clone().stdout(Stdio::write(&to.0)).output().unwrap();
        assert_eq!((output.stdout(), fs::read(&to.0).unwrap()), (&b""[..], b"FILE INPUT\n".to_vec()));
        assert_eq!(output.captured_stdout().completeness(), &Completeness::NotCaptured);
        upper.clone().stdout(Stdio::append(&to.0)).call().unwrap();
        assert_eq!(fs::read(&to.0).unwrap(), b"FILE INPUT\nFILE INPUT\n");
        let file = fs::File::open(&from.0).unwrap();
        assert_eq!(fixture("cat").stdin(file).check_output().unwrap(), b"file input\n");
        assert_eq!(upper.check_output().unwrap(), b"FILE INPUT\n");
        let quiet = fixture("alternate").args(["10", "1", "1"]).stderr(Stdio::null());
        assert_eq!(quiet.output().unwrap().stderr(), b"");
    });
}

// ---- output, run, check_output (S06, S09, S12, S15)

#[test]
fn the_record_of_a_run_is_whole() {
    alone!({
        let before = SystemTime::now();
        let command = fixture("usage").args(["50", "8"]);
        let output = command.run().unwrap();
        let after = SystemTime::now();
        assert_eq!(output.command(), command.to_string());
        assert!(output.pid().unwrap() > 1);
        assert_eq!((output.status(), output.returncode()), (ExitStatus::from_code(0), 0));
        assert_eq!(output.cause(), Cause::Ended);
        let usage = output.usage().unwrap();
        assert!(usage.user + usage.system >= Duration::from_millis(50) && usage.resident_max >= 8 << 20);
        let (started, ended) = (output.started().unwrap(), output.ended().unwrap());
        assert!(started >= before && started <= ended && ended <= after + Duration::from_millis(100));
        assert_eq!(ended.duration_since(started).unwrap(), output.elapsed());
        assert!(output.elapsed() >= Duration::from_millis(50));
        assert!(output.survivors().is_empty() && output.is_complete() && output.success());
        assert_eq!((output.input_accepted(), output.input_refused()), (0, false));
    });
}

#[test]
fn both_streams_of_a_chatty_script_and_its_failure() {
    alone!({
        let chatty = Command::new(script("chatty.sh"));
        let output = chatty.output().unwrap();
        assert_eq!(output.stdout(), b"out one\nout two\n");
        assert_eq!(output.stderr(), b"err one\nerr two\n");
        assert_eq!(output.returncode(), 3);
        assert_eq!(output.to_string(), "out one\nout two\nerr one\nerr two\n[exit status: 3]\n");
        let error = output.clone().check().unwrap_err();
        assert_eq!(error.output().stdout(), b"out one\nout two\n");
        assert_eq!(output.into_streams(), (b"out one\nout two\n".to_vec(), b"err one\nerr two\n".to_vec()));
        let merged = chatty.clone().stderr(Stdio::stdout()).accept([3]).check_output_text().unwrap();
        assert_eq!(merged, "out one\nerr one\nout two\nerr two\n");
        let error = chatty.check_output().unwrap_err();
        assert_eq!(error.to_string(), format!("{chatty}: exit status: 3; stderr ends:\nerr one\nerr two"));
        assert_eq!(error.into_output().stdout(), b"out one\nout two\n");
    });
}

#[test]
fn the_codes_that_are_accepted_decide() {
    alone!({
        let fail = |code: &str| Command::new(script("fail.sh")).arg(code);
        assert!(fail("4").accept([0, 4]).check_output().is_ok());
        assert!(fail("4").accept([0, 4]).output().unwrap().success());
        assert!(fail("4").accept([4]).check_call().is_ok());
        let error = fail("0").accept([4]).check_output().unwrap_err();
        assert_eq!((error.kind(), error.output().returncode()), (ErrorKind::Status, 0));
        assert!(fail("5").accept([0, 4]).check_output().unwrap_err().is_status());
        assert!(fail("200").accept_any().check_output().is_ok());
        let raise = fixture("raise").arg("TERM");
        assert!(raise.clone().accept([-libc::SIGTERM]).check_call().is_ok());
        assert!(raise.clone().accept([libc::SIGTERM, 143]).check_call().unwrap_err().is_status());
        assert!(raise.accept_any().check_output().is_ok());
        // A timeout is one, whatever is accepted.
        let slow = fixture("sleep").arg("60000").timeout(Duration::from_millis(50)).accept_any();
        assert!(slow.check_output().unwrap_err().is_timeout());
        let mut child = fail("4").accept([4]).pipe_all().spawn().unwrap();
        assert!(child.communicate(()).unwrap().check().is_ok());
    });
}

#[test]
fn input_of_every_sort() {
    alone!({
        let text = String::from("some text");
        let inputs = [
            Input::from("some text"),
            Input::from(&text),
            Input::from(text.clone()),
            Input::from(b"some text"),
            Input::from(text.as_bytes()),
            Input::from(text.clone().into_bytes()),
            Input::from(&text.clone().into_bytes()),
            Input::reader(Cursor::new("some text")),
        ];
        for input in inputs {
            let shown = format!("{input:?}");
            assert_eq!(fixture("upper").input(input).check_output().unwrap(), b"SOME TEXT", "{shown}");
        }
        let file = Scratch::new("input", noise(200_000));
        let output = fixture("cat").input(Input::reader(fs::File::open(&file.0).unwrap())).output().unwrap();
        assert!(output.stdout() == noise(200_000));
        assert_eq!(output.input_accepted(), 200_000);
        assert_eq!(fixture("cat").input(Input::empty()).check_output().unwrap(), b"");
        assert_eq!(fixture("cat").input(()).check_output().unwrap(), b"");
        assert_eq!(fixture("cat").check_output().unwrap(), b"");
        // Bytes can be used again, a reader cannot, and says so before it is half used.
        let again = fixture("cat").input("again");
        assert_eq!(again.check_output().unwrap(), again.check_output().unwrap());
        let once = fixture("cat").input(Input::reader(Cursor::new("once")));
        assert_eq!(once.check_output().unwrap(), b"once");
        let error = once.check_output().unwrap_err();
        assert!(error.is_invalid_input() && error.to_string().contains("used already"), "{error}");
        // Verbs that share the streams feed as well.
        let to = Scratch::new("fed", "");
        fixture("upper").input("fed").stdout(Stdio::write(&to.0)).check_call().unwrap();
        assert_eq!(fs::read(&to.0).unwrap(), b"FED");
    });
}

#[test]
fn a_file_as_input_is_read_by_the_child_itself() {
    alone!({
        let file = Scratch::new("file", noise(200_000));
        let open = || fs::File::open(&file.0).unwrap();
        let output = fixture("cat").input(open()).output().unwrap();
        assert!(output.stdout() == noise(200_000));
        assert_eq!(output.input_accepted(), 0, "nothing was fed");
        // A conversation has a pipe already, so there it is fed.
        let mut child = fixture("cat").pipe_all().spawn().unwrap();
        let output = child.communicate(open()).unwrap();
        assert!(output.stdout() == noise(200_000));
        assert_eq!(output.input_accepted(), 200_000);
    });
}

#[test]
fn contradictions_are_refused_before_anything_runs() {
    alone!({
        let touched = Scratch::new("touched", "");
        fs::remove_file(&touched.0).unwrap();
        let touch = || fixture("touch").arg(&touched.0);
        let contradictions = [
            touch().input("text").stdin(Stdio::null()),
            touch().input("text").stdin(Stdio::inherit()),
            touch().input("text").stdin(Stdio::read("/dev/null")),
            touch().stdout(Stdio::stderr()).stderr(Stdio::stdout()),
            touch().arg("zero\0byte"),
            touch().env("", "empty"),
            touch().env("A=B", "c"),
            touch().fd(1, Stdio::null()),
        ];
        for command in contradictions {
            let error = command.output().unwrap_err();
            assert!(error.is_invalid_input(), "{command}: {error}");
            assert_eq!((error.output().cause(), error.output().pid()), (Cause::NotStarted, None));
            assert!(command.call().unwrap_err().is_invalid_input());
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
            assert!(!touched.0.exists());
        }
        assert_eq!(fixture("cat").input("text").stdin(Stdio::piped()).check_output().unwrap(), b"text");
    });
}

#[test]
fn pipes_and_endless_programs() {
    alone!({
        // The children get SIGPIPE back, which this program ignores.
        let head = Command::shell("yes | head -1").timeout(LONG).output().unwrap();
        assert_eq!((head.stdout(), head.returncode()), (&b"y\n"[..], 0));
        let flood = format!("'{}' flood | head -c 3", fixture_path().display());
        assert_eq!(Command::shell(flood).timeout(LONG).check_output_text().unwrap(), "y\ny");
    });
}

// ---- capture limits (C08)

#[test]
fn each_policy_keeps_what_it_promises() {
    alone!({
        let size = 300_000;
        let all = pattern(size);
        let spew = fixture("spew").arg(size.to_string());
        for limit in [0, 1, 10, 65_536, 299_999] {
            let keep = |policy| spew.clone().capture_limit(limit, policy).output();
            let error = keep(Overflow::Fail).unwrap_err();
            assert_eq!((error.kind(), error.output().cause()), (ErrorKind::Overflow, Cause::Overflow));
            assert!(error.output().stdout() == &all[..limit]);
            assert!(error.to_string().contains(&format!("wrote more than {limit} bytes to stdout")), "{error}");
            let head = keep(Overflow::Head).unwrap();
            assert!(head.stdout() == &all[..limit]);
            let tail = keep(Overflow::Tail).unwrap();
            assert!(tail.stdout() == &all[size - limit..]);
            let both = keep(Overflow::HeadTail).unwrap();
            let (first, last) = (limit - limit / 2, limit / 2);
            assert!(both.stdout() == [&all[..first], &all[size - last..]].concat());
            for (output, gap) in [(head, limit), (tail, 0), (both, first)] {
                let captured = output.captured_stdout();
                assert_eq!((captured.dropped(), captured.gap()), ((size - limit) as u64, Some(gap)));
                assert_eq!(captured.completeness(), &Completeness::Complete);
                assert!(output.success() && !output.is_complete());
                assert!(output.to_string().contains(&format!("[{} bytes dropped]", size - limit)));
            }
        }
        for policy in [Overflow::Fail, Overflow::Head, Overflow::Tail, Overflow::HeadTail] {
            let output = spew.clone().capture_limit(size, policy.clone()).output().unwrap();
            assert!(output.is_complete() && output.stdout() == all, "{policy:?}");
            assert_eq!(output.captured_stdout().gap(), None);
        }
        // The limit stops those who go on, also in a conversation.
        let flood = fixture("flood").capture_limit(1000, Overflow::Fail);
        let mut child = flood.pipe_all().spawn().unwrap();
        let error = child.communicate(()).unwrap_err();
        assert_eq!((error.kind(), error.output().stdout().len()), (ErrorKind::Overflow, 1000));
        assert!(child.status().is_some(), "it was stopped");
    });
}

// ---- text (C07)

#[test]
fn text_in_other_encodings() {
    alone!({
        let say = |hex: &str, text: Text| fixture("bytes").arg(hex).text(text).check_output_text();
        let latin = Text::encoding("latin1").unwrap();
        assert_eq!(say("636166e9", latin).unwrap(), "café");
        assert_eq!(say("93fa967b", Text::encoding("shift_jis").unwrap()).unwrap(), "日本");
        assert_eq!(say("fffe61000d000a00", Text::encoding("UTF-16").unwrap()).unwrap(), "a\r\n");
        let universal = Text::encoding("utf-16le").unwrap().newlines(Newlines::Universal);
        assert_eq!(say("61000d000a006200", universal).unwrap(), "a\nb");
        let error = say("616263ff64", Text::utf8()).unwrap_err();
        assert_eq!((error.kind(), error.output().stdout()), (ErrorKind::Decode, &b"abc\xffd"[..]));
        assert!(error.to_string().ends_with("byte 3 is not UTF-8"), "{error}");
        assert!(error.output().success(), "the run itself was fine");
        assert_eq!(say("61ff62", Text::utf8().errors(ErrorMode::Replace)).unwrap(), "a\u{fffd}b");
        assert_eq!(say("61ff62", Text::utf8().errors(ErrorMode::Ignore)).unwrap(), "ab");
        let output = fixture("bytes").arg("61ff62").output().unwrap();
        assert_eq!((output.stdout_lossy().as_ref(), output.stdout_text().is_err()), ("a\u{fffd}b", true));
        let unknown: Error = Text::encoding("klingon").unwrap_err().into();
        assert!(unknown.is_invalid_input() && unknown.to_string().contains("klingon"), "{unknown}");
    });
}

// ---- errors (S16-S18, H7, H15, promise 7)

#[test]
fn errors_end_with_what_the_child_said() {
    alone!({
        let fail = Command::new(script("fail.sh")).arg("9");
        let error = fail.check_output().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{fail}: exit status: 9; stderr ends:\nfail.sh: giving up with status 9")
        );
        // Bounded, and the end of it.
        let long = Command::shell("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done >&2; exit 1");
        let text = long.check_output().unwrap_err().to_string();
        assert!(text.ends_with("line 4998\nline 4999") && text.len() < 3000, "{text}");
        let one = fixture("spewerr").arg("1000000").accept([1]).check_output().unwrap_err();
        assert!(one.to_string().len() < 3000);
        assert_eq!(one.output().stderr().len(), 1_000_000);
        // A timeout says it too.
        let slow = Command::shell("echo working >&2; exec sleep 60").timeout(Duration::from_secs(1));
        let text = slow.output().unwrap_err().to_string();
        assert!(text.ends_with(": timed out after 1s; stderr ends:\nworking"), "{text}");
    });
}

#[test]
fn what_the_child_said_cannot_drive_the_terminal() {
    alone!({
        let evil = "\x1b]0;owned\x07\x1b[2J\u{9b}31mred\u{7f}\rback\0zero";
        let error = Command::shell("cat >&2; exit 1").input(evil).check_output().unwrap_err();
        let shown = [error.to_string(), format!("{error:?}"), error.output().to_string()];
        for text in shown {
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
            assert!(text.contains("owned") && text.contains("red"), "{text:?}");
        }
        assert_eq!(error.output().stderr(), evil.as_bytes());
    });
}

#[test]
fn errors_become_io_errors_with_everything_inside() {
    alone!({
        let not_found = Command::new("no-such-program-anywhere").output().unwrap_err();
        assert!(not_found.is_not_found() && not_found.to_string().starts_with("no-such-program-anywhere: "));
        let error = io::Error::from(not_found);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let inner = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!(inner.kind(), ErrorKind::NotFound);
        let timeout = fixture("sleep").arg("60000").timeout(Duration::ZERO).output().unwrap_err();
        assert_eq!(io::Error::from(timeout).kind(), io::ErrorKind::TimedOut);
        let status = fixture("exit").arg("1").check_call().unwrap_err();
        assert_eq!(io::Error::from(status).kind(), io::ErrorKind::Other);
    });
}

#[test]
fn programs_that_are_none() {
    alone!({
        let run = |name: &str| Command::new(script(name)).output().unwrap_err();
        let missing = run("bad-interpreter.sh");
        assert_eq!(missing.kind(), ErrorKind::InterpreterNotFound);
        assert!(missing.to_string().contains("/nonexistent/interpreter"), "{missing}");
        assert_eq!(run("no-shebang").kind(), ErrorKind::NotExecutable);
        assert_eq!(run("empty-program").kind(), ErrorKind::NotExecutable);
        assert_eq!(run("no-such-script.sh").kind(), ErrorKind::NotFound);
    });
}

#[test]
fn secrets_are_shown_nowhere() {
    alone!({
        let secret = "hunter2";
        let with = |command: Command| command.secret_arg(secret).secret_env("TOKEN", secret);
        let mut shown = Vec::new();
        let command = with(Command::shell("exit 3")).arg("open");
        shown.extend([command.to_string(), format!("{command:?}")]);
        let plan = command.plan().unwrap();
        shown.extend([plan.to_string(), format!("{plan:?}")]);
        let output = command.output().unwrap();
        assert!(output.command().contains("***") && output.command().contains("open"));
        shown.extend([output.to_string(), format!("{output:?}"), output.command().to_owned()]);
        let error = command.check_output().unwrap_err();
        shown.extend([error.to_string(), format!("{error:?}"), io::Error::from(error).to_string()]);
        for wrong in [with(Command::new("no-such-program")), with(Command::new("sh")).secret_arg("hunter2\0")] {
            let error = wrong.output().unwrap_err();
            shown.extend([error.to_string(), format!("{error:?}")]);
        }
        let error = with(Command::new("sh")).secret_env("T2", "hunter2\0").spawn().unwrap_err();
        shown.push(error.to_string());
        let error = with(Command::new("sh")).secret_arg("hunter2".repeat(50_000)).spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ArgumentListTooLong);
        shown.push(error.to_string());

        // Where the process table would tell it: survivors, and those who hold a pipe.
        let mild = Stop::new().signal(Signal::TERM, Duration::from_millis(20));
        let mut deaf = with(fixture("deaf").arg("60000")).pipe_all().kill_on_drop().spawn().unwrap();
        assert_eq!(line(deaf.stdout.as_mut().unwrap()), "ready");
        shown.extend([format!("{deaf:?}"), format!("{:?}", deaf.handle())]);
        let report = deaf.stop(&mild).unwrap();
        assert_eq!(report.survivors().len(), 1);
        shown.extend([report.to_string(), format!("{report:?}")]);
        let copies = with(Command::shell("(read x; sleep 30) </dev/zero & echo grandchild $!")).drain(Duration::ZERO);
        let output = copies.output().unwrap();
        let _leftover = Leftover(pids_in(output.stdout(), "grandchild"));
        assert!(!output.is_complete());
        shown.extend([output.to_string(), format!("{output:?}")]);
        for text in shown {
            assert!(!text.contains(secret), "{text}");
        }
    });
}

#[test]
fn an_observer_sees_every_command_that_is_started() {
    alone!({
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let exit = fixture("exit").arg("0").on_spawn(move |command| log.lock().unwrap().push(command.to_string()));
        exit.call().unwrap();
        exit.output().unwrap();
        let refused = exit.clone().arg("zero\0byte").call().unwrap_err();
        assert!(refused.is_invalid_input());
        assert_eq!(*seen.lock().unwrap(), [exit.to_string(), exit.to_string()]);
    });
}

// ---- stories

#[test]
fn the_two_programs_of_the_first_page() {
    alone!({
        let nslookup = Command::new(script("fake-nslookup.sh"));
        let to = Scratch::new("answer", "");
        let status = nslookup.clone().arg("www.python.org").stdout(Stdio::write(&to.0)).call().unwrap();
        assert_eq!(status.returncode(), 0);
        assert!(fs::read_to_string(&to.0).unwrap().contains("Name:\twww.python.org\nAddress: 192.0.2.14\n"));
        let mut talking = nslookup.clone().pipe_all().spawn().unwrap();
        let output = talking.communicate("set q=mx\npython.org\nexit\n").unwrap();
        assert!(output.stdout_text().unwrap().contains("python.org\tmail exchanger = 10 mail.python.org."));
        assert_eq!(talking.returncode(), Some(0));
        assert_eq!(nslookup.arg("nowhere.invalid").output().unwrap().returncode(), 1);
    });
}

#[test]
fn a_greeting_by_macro_and_by_line() {
    alone!({
        let greet = cmd!(script("greet.sh"), "moon").env("NAME", "earth");
        assert_eq!(greet.check_output_text().unwrap(), "hello moon, this is earth\n");
        let line = format!("NAME='two words' '{}' 'big world'", script("greet.sh").display());
        let greet = Command::parse(&line).unwrap();
        assert_eq!(greet.check_output_text().unwrap(), "hello big world, this is two words\n");
        assert_eq!(
            Command::shell(greet.to_string()).check_output_text().unwrap(),
            "hello big world, this is two words\n"
        );
    });
}

#[test]
fn a_borrowed_stream_stays_the_callers() {
    alone!({
        let (mut reader, writer) = pipe().unwrap();
        let echo = fixture("echo").arg("twice").stdout(Stdio::borrowed(writer.as_fd()));
        echo.check_call().unwrap();
        echo.check_call().unwrap();
        drop((echo, writer));
        assert_eq!(
            (line(&mut reader), line(&mut reader), line(&mut reader)),
            ("twice".into(), "twice".into(), String::new())
        );
    });
}

#[test]
fn a_reader_that_fails_ends_the_run_and_says_why() {
    alone!({
        struct Failing;
        impl std::io::Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("no more data"))
            }
        }
        let error = fixture("cat").input(procession::Input::reader(Failing)).output().unwrap_err();
        assert!(error.to_string().contains("no more data"), "{error}");
        assert_eq!(error.output().cause(), Cause::Stopped);
        assert!(error.output().status().is_known());
        assert_eq!(children(), Vec::<String>::new());
    });
}
