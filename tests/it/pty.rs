//! Pseudo-terminals as streams: who sees one, what passes it, how both directions end, and what is left when something fails.

use crate::inject::{Call, supervise};
use crate::support::{Scratch, alone, descriptors, fixture, is_running, settled_descriptors, wait_for};
use procession::{
    Cause, Child, Command, Completeness, ErrorKind, Filter, Input, Overflow, Pty, Signal, Stdio, Stop, Target,
};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

fn said(command: &Command) -> String {
    let output = command.output().unwrap();
    assert!(output.success(), "{output:?}");
    output.stdout_text().unwrap()
}

/// Reads lines from the child until this one.
fn expect(child: &mut Child, wanted: &str) {
    let mut reader = child.stdout.as_ref().unwrap();
    let mut text = Vec::new();
    while !text.ends_with(wanted.as_bytes()) {
        let mut byte = [0];
        assert_eq!(reader.read(&mut byte).unwrap(), 1, "the end, after {:?}", String::from_utf8_lossy(&text));
        text.extend(byte);
    }
}

fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| format!("line {number:>10}\n").into_bytes()).collect()
}

// ---- who sees a terminal ----

#[test]
fn the_streams_that_are_not_set_are_on_the_terminal() {
    alone!({
        let on = |command: Command| {
            let text = said(&command);
            let words: Vec<&str> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
            words.join(" ")
        };
        let pty = Pty::new;
        assert_eq!(on(fixture("tty").pty(pty())), "tty tty tty yes foreground");
        assert_eq!(on(fixture("tty").pty(pty()).stderr(Stdio::piped())), "tty tty not yes foreground");
        assert_eq!(on(fixture("tty").stderr(Stdio::piped()).pty(pty())), "tty tty not yes foreground");
        assert_eq!(on(fixture("tty").stdin(Stdio::null()).stdout(Stdio::pty())), "not tty not yes foreground");
        assert_eq!(on(fixture("tty").stdin(Stdio::pty())), "tty not not yes foreground");
        assert_eq!(on(fixture("tty").stderr(Stdio::pty())), "not not tty yes foreground");
        assert_eq!(on(fixture("tty").pty(pty()).stdin(Stdio::null())), "not tty tty yes foreground");
        assert_eq!(on(fixture("tty").stdout(Stdio::pty()).stderr(Stdio::stdout())), "not tty tty yes foreground");
        assert_eq!(on(fixture("tty").pty(pty()).controlling_terminal()), "tty tty tty yes foreground");
        assert_eq!(on(fixture("tty").pty(pty()).process_group(0).setsid()), "tty tty tty yes foreground");
        assert_eq!(on(fixture("tty").fd(9, Stdio::null()).pty(pty())), "tty tty tty yes foreground");
        // SAFETY: a hook that does nothing.
        assert_eq!(on(unsafe { fixture("tty").pty(pty()).pre_exec(|| Ok(())) }), "tty tty tty yes foreground");
    });
}

#[test]
fn standard_error_is_read_where_it_is() {
    alone!({
        let merged = fixture("merge").arg("4").pty(Pty::new()).output().unwrap();
        assert_eq!((merged.stdout(), merged.stderr()), (&b"out 0\nerr 1\nout 2\nerr 3\n"[..], &b""[..]));
        let apart = fixture("merge").arg("4").pty(Pty::new()).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((apart.stdout(), apart.stderr()), (&b"out 0\nout 2\n"[..], &b"err 1\nerr 3\n"[..]));
        let alone = fixture("merge").arg("4").stderr(Stdio::pty()).output().unwrap();
        assert_eq!((alone.stdout(), alone.stderr()), (&b"out 0\nout 2\n"[..], &b"err 1\nerr 3\n"[..]));
    });
}

#[test]
fn a_terminal_has_the_size_and_the_settings_it_was_given() {
    alone!({
        assert_eq!(said(&fixture("winsize").pty(Pty::new())), "24 80\n");
        assert_eq!(said(&fixture("winsize").pty(Pty::new().size(1, u16::MAX))), "1 65535\n");
        assert_eq!(said(&fixture("winsize").arg("1").stdout(Stdio::pty())), "24 80\n");
        assert_eq!(said(&fixture("stty").pty(Pty::new())), "echo=no crlf=no canonical=yes\n");
        assert_eq!(said(&fixture("stty").pty(Pty::new().echo(true))), "echo=yes crlf=no canonical=yes\n");
        assert_eq!(said(&fixture("stty").pty(Pty::new().crlf(true))), "echo=no crlf=yes canonical=yes\r\n");
        assert_eq!(said(&fixture("stty").pty(Pty::new().raw())), "echo=no crlf=no canonical=no\n");
        let echoed = fixture("cat").pty(Pty::new().echo(true).crlf(true)).input("word\n").output().unwrap();
        assert_eq!(echoed.stdout(), b"word\r\nword\r\n");
    });
}

#[test]
fn the_terminal_is_changed_from_our_side() {
    alone!({
        let mut child = fixture("winch").pty(Pty::new().size(10, 20)).spawn().unwrap();
        expect(&mut child, "ready\n");
        let terminal = child.terminal().unwrap().clone();
        assert_eq!(terminal.size().unwrap(), (10, 20));
        terminal.resize(30, 40).unwrap();
        expect(&mut child, "30 40\n");
        assert_eq!(terminal.size().unwrap(), (30, 40));
        let mut other = fixture("cat").pty(Pty::new().size(7, 8)).spawn().unwrap();
        terminal.resize_like(other.terminal().unwrap()).unwrap();
        expect(&mut child, "7 8\n");
        assert!(terminal.resize(0, 1).unwrap_err().is_invalid_input());
        assert!(terminal.resize(1, 0).unwrap_err().is_invalid_input());
        let error = terminal.resize_like(File::open("/dev/null").unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY), "{error}");
        assert!(!terminal.echo().unwrap() && !terminal.is_raw().unwrap());
        terminal.set_echo(true).unwrap();
        assert!(terminal.echo().unwrap());
        terminal.set_raw(true).unwrap();
        assert!(terminal.is_raw().unwrap() && !terminal.echo().unwrap());
        terminal.set_raw(false).unwrap();
        assert!(!terminal.is_raw().unwrap() && !terminal.echo().unwrap());
        assert_eq!(terminal.foreground_group().unwrap(), Some(child.id()));
        let path = terminal.path().unwrap();
        assert!(path.starts_with("/dev/pts"), "{path:?}");
        assert_eq!(std::fs::read_link(format!("/proc/{}/fd/0", child.id())).unwrap(), path);
        assert!(child.wait().unwrap().success());
        assert_eq!(terminal.foreground_group().unwrap(), None);
        assert!(other.wait().unwrap().success());
        let mut plain = fixture("exit").arg("0").pipe_all().spawn().unwrap();
        assert!(plain.terminal().is_none() && plain.wait().unwrap().success());
    });
}

#[test]
fn an_interrupt_is_typed() {
    alone!({
        let mut child = fixture("trap").args(["INT", "QUIT"]).pty(Pty::new()).spawn().unwrap();
        expect(&mut child, "ready\n");
        child.stdin.as_ref().unwrap().write_all(b"\x03").unwrap();
        expect(&mut child, "2\n");
        child.stdin.as_ref().unwrap().write_all(b"\x1c").unwrap();
        expect(&mut child, "3\n");
        assert!(child.wait().unwrap().success());
        let mut child = fixture("cat").pty(Pty::new()).spawn().unwrap();
        let output = child.communicate("\x03").unwrap();
        assert_eq!(output.status().signal(), Some(Signal::INT), "{output:?}");
    });
}

// ---- how output ends ----

#[test]
fn everything_written_before_the_end_is_read_and_then_the_end() {
    alone!({
        for size in [0, 1, 4095, 4096, 100_000, 3_000_000] {
            let mut child = fixture("spew").arg(size.to_string()).pty(Pty::new()).spawn().unwrap();
            let mut bytes = Vec::new();
            let stdout = child.stdout.as_mut().unwrap();
            stdout.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len(), size);
            assert!(bytes.iter().enumerate().all(|(place, byte)| *byte == b'a' + (place % 26) as u8));
            // The end is the end, however often one asks.
            assert_eq!(stdout.read(&mut [0; 10]).unwrap(), 0);
            assert!(stdout.wait_readable(Duration::ZERO).unwrap());
            assert!(child.wait().unwrap().success());
            let output = fixture("spew").arg(size.to_string()).pty(Pty::new()).output().unwrap();
            assert!(output.success() && output.stdout() == bytes);
            assert_eq!(output.captured_stdout().completeness(), &Completeness::Complete);
        }
    });
}

#[test]
fn a_short_last_word_is_not_lost() {
    alone!({
        for _ in 0..200 {
            assert_eq!(fixture("echo").arg("gone").pty(Pty::new()).output().unwrap().stdout(), b"gone\n");
        }
    });
}

// ---- how input ends ----

#[test]
fn the_end_of_input_is_said() {
    alone!({
        for input in ["", "a\n", "a", "a\nb", "\n", "a\n\n"] {
            let output = fixture("cat").pty(Pty::new()).input(input).output().unwrap();
            assert_eq!((output.stdout(), output.input_accepted()), (input.as_bytes(), input.len() as u64));
            let mut child = fixture("cat").pty(Pty::new()).spawn().unwrap();
            child.stdin.as_ref().unwrap().write_all(input.as_bytes()).unwrap();
            drop(child.stdin.take());
            let mut text = String::new();
            child.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, input);
            assert!(child.wait().unwrap().success());
            let mut child = fixture("cat").pty(Pty::new()).stdout(Stdio::null()).spawn().unwrap();
            child.stdin.as_ref().unwrap().write_all(input.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success());
        }
        // The first reader has seen one end; that line was full.
        let output = Command::shell("cat; cat; echo over").pty(Pty::new()).input("a\n\x04b").output().unwrap();
        assert_eq!(output.stdout(), b"a\nbover\n");
        let report =
            fixture("cat").pty(Pty::new()).spawn().unwrap().stop(&Stop::new().close_stdin(Duration::from_secs(60)));
        let report = report.unwrap();
        assert_eq!((report.status().code(), report.steps_taken()), (Some(0), 1), "{report}");
    });
}

/// A descriptor that was taken out is somebody else's, and so is the end.
#[test]
fn a_descriptor_that_was_taken_out_says_nothing() {
    alone!({
        let mut child = fixture("cat").pty(Pty::new()).spawn().unwrap();
        let fd = OwnedFd::from(child.stdin.take().unwrap());
        let mut again = File::from(fd.try_clone().unwrap());
        drop(fd);
        // Had the end been said before, this would come behind it.
        again.write_all(b"word\n\x04").unwrap();
        let mut text = String::new();
        child.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "word\n");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_raw_terminal_has_no_end_of_input_and_takes_any_byte() {
    alone!({
        let input: Vec<u8> = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
        let size = input.len().to_string();
        let output = fixture("swallow").arg(&size).pty(Pty::new().raw()).input(input.clone()).output().unwrap();
        assert_eq!(output.stdout(), format!("swallowed {size}\n").as_bytes());
        let mut child = fixture("cat").pty(Pty::new().raw()).spawn().unwrap();
        let error = child.communicate_timeout(vec![4_u8; 9], Duration::from_millis(200)).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.output().stdout(), [4; 9]);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

// ---- amounts ----

#[test]
fn a_megabyte_of_lines_goes_there_and_back() {
    alone!({
        let input = lines(1 << 16);
        assert_eq!(input.len(), 1 << 20);
        let output = fixture("cat").pty(Pty::new()).input(input.clone()).output().unwrap();
        assert!(output.stdout() == input, "{} bytes", output.stdout().len());
        let mut child = fixture("cat").pty(Pty::new()).spawn().unwrap();
        let output = child.communicate(Input::reader(std::io::Cursor::new(input.clone()))).unwrap();
        assert!(output.success() && output.stdout() == input);
        // By hand, with a writer and a reader.
        let mut child = fixture("cat").pty(Pty::new()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                stdin.write_all(&input).unwrap();
                drop(stdin);
            });
            let mut bytes = Vec::new();
            child.stdout.as_mut().unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == input);
        });
        assert!(child.wait().unwrap().success());
    });
}

/// As documented: the kernel keeps 4095 bytes of a line.
#[test]
fn a_longer_line_loses_its_rest() {
    alone!({
        let line = |length: usize| [vec![b'x'; length], b"\n".to_vec()].concat();
        let output = fixture("cat").pty(Pty::new()).input(line(4095)).output().unwrap();
        assert!(output.stdout() == line(4095), "{}", output.stdout().len());
        let output = fixture("cat").pty(Pty::new()).input(line(5000)).output().unwrap();
        assert!(output.stdout() == line(4095), "{}", output.stdout().len());
    });
}

/// Types empty lines until the terminal takes no more, and returns how many.
fn fill(child: &Child) -> usize {
    let mut taken = 0;
    let mut refusals = 0;
    // What the terminal hands over to the line discipline makes room again.
    while refusals < 20 {
        match nix::unistd::write(child.stdin.as_ref().unwrap(), &[b'\n'; 1000]) {
            Ok(count) => taken += count,
            Err(errno) => {
                assert_eq!(errno, nix::errno::Errno::EAGAIN);
                refusals += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    assert!((4096..1 << 20).contains(&taken), "{taken}");
    taken
}

/// The end of input waits for room, where there is somebody who can wait.
#[test]
fn a_full_terminal_delays_the_end_of_input_and_no_more() {
    alone!({
        // It is not said, and nobody waits.
        let mut child = fixture("sleep").arg("60000").pty(Pty::new()).spawn().unwrap();
        fill(&child);
        let start = std::time::Instant::now();
        drop(child.stdin.take());
        assert!(start.elapsed() < Duration::from_secs(5));
        child.kill().unwrap();
        child.wait().unwrap();

        let late = || fixture("late-read").arg("500").pty(Pty::new());
        let long = Duration::from_secs(30);
        let mut child = late().spawn().unwrap();
        let count = fill(&child);
        assert!(child.communicate_timeout((), long).unwrap().stdout() == vec![b'\n'; count]);
        // Also when no output is waited for, and when the conversation is taken up again.
        let mut child = late().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        fill(&child);
        assert!(child.communicate(()).unwrap().success());
        let mut child = late().spawn().unwrap();
        let count = fill(&child);
        assert!(child.communicate_timeout((), Duration::from_millis(10)).unwrap_err().is_timeout());
        assert!(child.communicate_timeout((), long).unwrap().stdout() == vec![b'\n'; count]);
        // A write by hand comes back when there is room for the end.
        let mut child = late().stdout(Stdio::null()).spawn().unwrap();
        fill(&child);
        child.stdin.as_ref().unwrap().write_all(b"last\n").unwrap();
        assert!(child.wait().unwrap().success());
    });
}

/// The child ends before it has read: a fact and not an error.
#[test]
fn input_that_nobody_wants_is_a_fact() {
    alone!({
        let output = fixture("exit").arg("3").pty(Pty::new()).input(lines(1 << 16)).output().unwrap();
        assert_eq!((output.returncode(), output.input_refused()), (3, true), "{output:?}");
        let mut child = fixture("exit").arg("0").pty(Pty::new()).spawn().unwrap();
        child.handle().wait().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        assert_eq!(stdin.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    });
}

// ---- hanging up ----

#[test]
fn one_end_does_not_hang_up_and_the_last_does() {
    alone!({
        let mut child = fixture("trap").arg("USR1").pty(Pty::new()).spawn().unwrap();
        expect(&mut child, "ready\n");
        let handle = child.handle().clone();
        let stdin = child.stdin.take().unwrap();
        let stdout = child.stdout.take().unwrap();
        drop(child);
        handle.send_signal(Signal::USR1).unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, format!("{}\n", libc::SIGUSR1));
        handle.send_signal(Signal::USR1).unwrap();
        assert_eq!(handle.try_wait().unwrap(), None);
        // Not by the end of input: the descriptor says nothing.
        drop(OwnedFd::from(stdin));
        assert_eq!(handle.wait().unwrap().signal(), Some(Signal::HUP));
    });
}

#[test]
fn a_dropped_child_is_hung_up() {
    alone!({
        let mut child = fixture("ready-sleep").arg("60000").pty(Pty::new()).spawn().unwrap();
        expect(&mut child, "ready\n");
        let (handle, terminal) = (child.handle().clone(), child.terminal().unwrap().clone());
        drop(child);
        assert_eq!(handle.try_wait().unwrap(), None);
        drop(terminal);
        assert_eq!(handle.wait().unwrap().signal(), Some(Signal::HUP));
        // The plan comes first, and drop waits for it.
        let mut child = fixture("polite").args(["60000", "5"]).pty(Pty::new()).kill_on_drop().spawn().unwrap();
        expect(&mut child, "ready\n");
        let handle = child.handle().clone();
        drop(child);
        assert_eq!(handle.wait().unwrap().code(), Some(5));
    });
}

// ---- bounds ----

#[test]
fn limits_timeouts_and_lines_are_those_of_pipes() {
    alone!({
        let error = fixture("flood").pty(Pty::new()).capture_limit(10_000, Overflow::Fail).output().unwrap_err();
        assert_eq!((error.kind(), error.output().stdout().len()), (ErrorKind::Overflow, 10_000));
        let tail = fixture("lines").arg("100000").pty(Pty::new()).capture_limit(12, Overflow::Tail).output().unwrap();
        assert_eq!(tail.stdout(), b"\nline 99999\n");
        let slow = fixture("say-sleep").args(["word", "60000", "late"]).pty(Pty::new());
        let error = slow.timeout(Duration::from_millis(300)).output().unwrap_err();
        assert_eq!((error.is_timeout(), error.output().stdout()), (true, &b"word"[..]), "{error}");
        assert_eq!(error.output().status().signal(), Some(Signal::TERM));
        let term = fixture("term-spew").arg("100000").pty(Pty::new()).timeout(Duration::from_millis(500));
        let error = term.stop(Stop::term_then_kill(Duration::from_secs(30))).output().unwrap_err();
        assert_eq!(error.output().stdout().len(), "ready\n".len() + 100_000, "{error}");
        let mut seen = Vec::new();
        let output = fixture("lines").arg("1000").pty(Pty::new()).for_each_line(|line| seen.push(line.to_string()));
        assert!(output.unwrap().success() && seen.len() == 1000 && seen[999] == "line 999");
        let closed = fixture("cat").pty(Pty::new()).stop(Stop::new().close_stdin(Duration::from_secs(60)));
        let mut child = closed.kill_on_drop().spawn().unwrap();
        let stop = Stop::new().close_stdin(Duration::from_secs(60));
        child.stdin.as_ref().unwrap().write_all(b"half").unwrap();
        assert_eq!(child.stop(&stop).unwrap().status().code(), Some(0));
    });
}

#[test]
fn who_keeps_the_terminal_is_named_and_stopped() {
    alone!({
        // A daemon: out of the session, so that neither SIGHUP nor the process table leads to it.
        let escape = || fixture("escape").args(["0", "60000"]).pty(Pty::new()).drain(Duration::from_millis(200));
        let output = escape().output().unwrap();
        let text = output.stdout_text().unwrap();
        let pid: i32 = text.trim().strip_prefix("escaped ").unwrap().parse().unwrap();
        let Completeness::CutOff { holders } = output.captured_stdout().completeness() else { panic!("{output:?}") };
        assert_eq!(holders.iter().map(|holder| holder.pid as i32).collect::<Vec<_>>(), [pid], "{holders:?}");
        // SAFETY: integer arguments; the daemon holds nothing else of ours.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        wait_for("the end of the daemon", || !is_running(pid as u32));

        let mut child = fixture("escape").args(["60000", "60000"]).pty(Pty::new()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_ref().unwrap()).read_line(&mut line).unwrap();
        let pid: u32 = line.trim().strip_prefix("escaped ").unwrap().parse().unwrap();
        let report = child.stop(&Stop::term_then_kill(Duration::from_secs(10))).unwrap();
        assert!(report.is_stopped(), "{report}");
        wait_for("the end of the daemon", || !is_running(pid));
    });
}

/// What looks on gets from a terminal what it gets from a pipe, once.
#[test]
fn turns_targets_filters_and_spills_work_with_a_terminal() {
    alone!({
        let asks = Command::shell("printf 'name? '; read name; echo hello $name; cat").pty(Pty::new());
        let (reply, output) = asks
            .converse(Duration::from_secs(60), |talk| {
                let question = talk.read_until("name? ")?.before().to_vec();
                talk.write_line("world")?;
                let reply = talk.read_line()?;
                talk.write("last")?;
                Ok((question, reply))
            })
            .unwrap();
        assert_eq!(reply, (Vec::new(), Some(b"hello world".to_vec())));
        assert!(output.success(), "{output:?}");

        let merged = || fixture("merge").arg("4").pty(Pty::new());
        let all = b"out 0\nerr 1\nout 2\nerr 3\n";
        let mut seen = Vec::new();
        let output = merged().for_each_chunk(|_, bytes| seen.extend_from_slice(bytes)).unwrap();
        assert!(output.success() && seen == all, "{seen:?}");
        let scratch = Scratch::new();
        let log = scratch.join("log");
        assert!(merged().tee_stdout(Target::write(&log)).output().unwrap().success());
        assert_eq!(std::fs::read(&log).unwrap(), all);
        let error = merged().tee_stderr(Target::write(&log)).output().unwrap_err();
        assert!(error.is_invalid_input() && error.to_string().contains("stderr has a target"), "{error}");
        let apart = merged().stderr(Stdio::piped()).tee_stderr(Target::write(&log));
        assert!(apart.output().unwrap().success());
        assert_eq!(std::fs::read(&log).unwrap(), b"err 1\nerr 3\n");

        let upper = || Filter::map_lines(|line| line.to_ascii_uppercase());
        let ends = (fixture("cat") | fixture("cat").stdout(Stdio::pty())).filter(upper()).input("a\nb\n");
        assert_eq!(ends.output().unwrap().stdout(), b"A\nB\n");
        let (large, stderr) = (scratch.join("large"), scratch.join("stderr"));
        let spilled = fixture("spew").arg("10000").pty(Pty::new()).capture_limit(100, Overflow::Spill(large.clone()));
        let spilled = spilled.capture_limit_stderr(100, Overflow::Spill(stderr.clone())).output().unwrap();
        assert_eq!((spilled.success(), std::fs::metadata(&large).unwrap().len()), (true, 10_000));
        assert!(!stderr.exists());
    });
}

/// An explanation shows the terminal as the process has it, and says nothing of pipes that are none.
#[test]
fn an_explanation_names_the_terminal() {
    alone!({
        let mut child = fixture("cat").pty(Pty::new()).spawn().unwrap();
        let path = child.terminal().unwrap().path().unwrap().display().to_string();
        let text = child.explain().to_string();
        assert!(text.contains(&path) && !text.contains("pipe"), "{text}");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn the_outer_ends_of_a_pipeline_can_be_terminals() {
    alone!({
        let pipeline = fixture("upper").stdin(Stdio::pty()) | fixture("cat").stdout(Stdio::pty());
        assert_eq!(pipeline.clone().input("word").output().unwrap().stdout(), b"WORD");
        let output = pipeline.output().unwrap();
        assert!(output.success() && output.stdout().is_empty());
        let mut child = (fixture("upper").stdin(Stdio::pty()) | fixture("cat").stdout(Stdio::pty())).spawn().unwrap();
        assert_eq!(child.communicate(lines(10)).unwrap().stdout(), lines(10).to_ascii_uppercase());
        let outer = fixture("tty").pty(Pty::new()) | fixture("cat").pty(Pty::new());
        let text = outer.check_output_text().unwrap();
        assert!(text.starts_with("0 tty\n1 not\n2 tty\n"), "{text}");
        let file = (fixture("cat").pty(Pty::new()) | fixture("cat")).input(File::open("/proc/version").unwrap());
        assert!(file.check_output().unwrap().starts_with(b"Linux"));
        let inner = (fixture("cat") | fixture("cat").stdin(Stdio::pty())).output().unwrap_err();
        assert!(inner.is_invalid_input(), "{inner}");
        let mut waits = (fixture("cat").stdin(Stdio::pty()) | fixture("cat").stdout(Stdio::null())).spawn().unwrap();
        assert!(waits.wait().unwrap().success());
    });
}

#[test]
fn a_file_as_input_is_typed() {
    alone!({
        let version = std::fs::read("/proc/version").unwrap();
        let tty = Command::shell("test -t 0 && cat").pty(Pty::new()).input(File::open("/proc/version").unwrap());
        assert_eq!(tty.output().unwrap().stdout(), version);
        assert!(Command::shell("test -t 0").pty(Pty::new()).call().unwrap().success());
    });
}

// ---- descriptors ----

#[test]
fn the_child_has_the_terminal_and_nothing_of_ours() {
    alone!({
        for inherits in [false, true] {
            let command = fixture("fds").pty(Pty::new());
            let command = if inherits { command.inherit_fds() } else { command };
            let text = said(&command);
            let found: Vec<&str> = text.lines().filter(|line| line.contains("/dev/p")).collect();
            assert_eq!(found.len(), 3, "{text}");
            for (number, line) in found.iter().enumerate() {
                assert!(line.starts_with(&format!("{number} /dev/pts/")) && line.ends_with(" -"), "{text}");
            }
        }
    });
}

/// What a host without standard streams gets: see `descriptors.rs` for pipes.
#[test]
fn no_end_lands_among_the_standard_streams() {
    alone!({
        // Copies, to have something to print to again.
        let kept: Vec<OwnedFd> = (0..3)
            .map(|number| {
                // SAFETY: the standard streams are open.
                unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }.try_clone_to_owned().unwrap()
            })
            .collect();
        for number in 0..3 {
            // SAFETY: nobody uses them until they are put back.
            unsafe { libc::close(number) };
        }
        let child = fixture("cat").pty(Pty::new()).spawn();
        let numbers = child.as_ref().map(|child| {
            let ends = [child.stdin.as_ref().unwrap().as_fd(), child.stdout.as_ref().unwrap().as_fd()];
            ends.iter().chain(&[child.terminal().unwrap().as_fd()]).map(|fd| fd.as_raw_fd()).collect::<Vec<_>>()
        });
        let output = child.as_ref().map(|_| fixture("tty").pty(Pty::new()).output());
        for (number, copy) in kept.iter().enumerate() {
            // SAFETY: integer arguments.
            unsafe { libc::dup2(copy.as_raw_fd(), number as i32) };
        }
        for number in numbers.unwrap() {
            assert!(number > 2, "{number}");
            // SAFETY: integer arguments.
            let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
            assert_eq!(flags, libc::FD_CLOEXEC);
        }
        assert!(output.unwrap().unwrap().stdout().starts_with(b"0 tty\n1 tty\n2 tty\n"));
        assert!(child.unwrap().wait().unwrap().success());
    });
}

/// The leader of a session without a terminal gets the first one that it opens carelessly.
#[test]
fn the_terminal_of_a_child_is_not_ours() {
    alone!({
        // SAFETY: no arguments.
        if unsafe { libc::setsid() } < 0 {
            eprintln!("skipped: this process leads a group");
            return;
        }
        assert!(fixture("tty").pty(Pty::new()).output().unwrap().success());
        let mut child = fixture("cat").pty(Pty::new()).spawn().unwrap();
        assert_eq!(File::open("/dev/tty").unwrap_err().raw_os_error(), Some(libc::ENXIO));
        assert!(child.wait().unwrap().success());
    });
}

// ---- what fails ----

#[test]
fn contradictions_are_refused_before_anything_is_made() {
    alone!({
        let pty = || fixture("exit").arg("0").pty(Pty::new());
        let cases = [
            (pty().process_group(7), "cannot join"),
            (pty().foreground(), "foreground"),
            (pty().stdin(Stdio::null()).controlling_terminal(), "stdin is not on it"),
            (pty().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()), "no stream"),
            (pty().pty(Pty::new().size(0, 80)), "no size"),
            (pty().pty(Pty::new().size(24, 0)), "no size"),
            (pty().fd(5, Stdio::pty()), "descriptor 5"),
        ];
        let before = descriptors();
        for (command, text) in cases {
            let error = command.spawn().unwrap_err();
            assert!(error.is_invalid_input() && error.to_string().contains(text), "{error}");
            assert!(command.plan().unwrap_err().is_invalid_input());
        }
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn a_plan_says_which_terminal() {
    alone!({
        let text = fixture("exit").pty(Pty::new().size(3, 4).echo(true)).plan().unwrap().to_string();
        for part in
            ["pty      3 rows, 4 columns echo\n", "stream   0 <- pty\n", "controlling terminal at descriptor 0\n"]
        {
            assert!(text.contains(part), "{text}");
        }
        let plan = fixture("exit").stdin(Stdio::null()).stderr(Stdio::pty()).plan().unwrap();
        assert!(plan.to_string().contains("controlling terminal at descriptor 2\n"), "{plan}");
        let other =
            fixture("exit").stdin(Stdio::null()).stderr(Stdio::pty()).pty(Pty::new().raw()).stdout(Stdio::null());
        assert_ne!(plan, other.plan().unwrap());
    });
}

/// Runs a spawn on a terminal whose calls are answered, with no litter whatever comes of it.
fn answered(
    numbers: &[libc::c_long],
    answer: impl FnMut(Call) -> Option<libc::c_int>,
) -> Option<Result<String, procession::Error>> {
    // The route is found out before.
    fixture("exit").arg("0").status().unwrap();
    let before = settled_descriptors();
    let result = supervise(numbers, || fixture("tty").pty(Pty::new()).output(), answer)?;
    assert_eq!(settled_descriptors(), before);
    Some(result.map(|output| output.stdout_lossy().into_owned()))
}

fn is_ioctl(call: &Call, request: u64) -> bool {
    call.ours && call.number == libc::SYS_ioctl && call.args[1] & 0xffff_ffff == request
}

/// TIOCGPTPEER is of Linux 4.13, and some filters do not know it: then the terminal is opened by its name.
#[test]
fn without_a_way_by_descriptor_the_terminal_is_opened_by_name() {
    alone!({
        for errno in [libc::EINVAL, libc::ENOTTY, libc::EPERM] {
            let mut refused = 0;
            let result = answered(&[libc::SYS_ioctl], |call| {
                let hit = is_ioctl(&call, libc::TIOCGPTPEER);
                refused += i32::from(hit);
                hit.then_some(errno)
            });
            let Some(result) = result else { return };
            assert_eq!(result.unwrap(), "0 tty\n1 tty\n2 tty\ncontrolling yes\nforeground\n");
            assert_eq!(refused, 1);
        }
    });
}

#[test]
fn a_terminal_that_cannot_be_had_is_an_error_of_the_pty() {
    alone!({
        let opens_ptmx = |call: &Call| {
            // SAFETY: the call is made by a thread of this process that waits for the answer, with a string that lives.
            let path = || unsafe { std::ffi::CStr::from_ptr(call.args[1] as *const libc::c_char) };
            call.ours && call.number == libc::SYS_openat && path().to_bytes() == b"/dev/ptmx"
        };
        let cases = [
            (libc::ENOENT, ErrorKind::Unsupported),
            (libc::ENOSPC, ErrorKind::ResourceExhausted),
            (libc::EPERM, ErrorKind::PermissionDenied),
            (libc::EMFILE, ErrorKind::ResourceExhausted),
        ];
        for (errno, kind) in cases {
            let Some(result) = answered(&[libc::SYS_openat], |call| opens_ptmx(&call).then_some(errno)) else { return };
            let error = result.unwrap_err();
            let told = (error.kind(), error.failed_step(), error.raw_os_error());
            assert_eq!(told, (kind, Some("pty"), Some(errno)), "{error}");
        }
        // Each later call that it takes.
        for request in [libc::TIOCSPTLCK, libc::TCGETS, libc::TCSETS, libc::TIOCSWINSZ] {
            let Some(result) = answered(&[libc::SYS_ioctl], |call| is_ioctl(&call, request).then_some(libc::EACCES))
            else {
                return;
            };
            let error = result.unwrap_err();
            assert_eq!((error.failed_step(), error.raw_os_error()), (Some("pty"), Some(libc::EACCES)), "{error}");
        }
        // In the child, the step is named.
        let result = answered(&[libc::SYS_ioctl], |call| {
            (!call.ours && !call.after_exec && call.args[1] == libc::TIOCSCTTY).then_some(libc::EPERM)
        });
        let error = result.unwrap().unwrap_err();
        assert_eq!(error.failed_step(), Some("controlling terminal"), "{error}");
        assert_eq!(error.output().cause(), Cause::NotStarted);
    });
}

#[test]
fn a_program_that_is_missing_leaves_no_terminal() {
    alone!({
        let error = Command::new("/no/such/program").pty(Pty::new()).spawn().unwrap_err();
        assert!(error.is_not_found(), "{error}");
    });
}
