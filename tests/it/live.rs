//! Output while it comes: lines and pieces.

use crate::support::{alone, children, fixture, script, wait_for};
use crate::talk::{line as read_line, pattern, pid_in};
use procession::{Cause, Command, LineEnd, Newlines, Overflow, Stdio, Stop, Stream, Text};
use std::ops::ControlFlow;
use std::time::Duration;

type Seen = Vec<(Stream, Vec<u8>, LineEnd)>;

fn lines_of(command: &Command) -> Seen {
    let mut seen = Seen::new();
    command.for_each_line(|line| seen.push((line.stream(), line.bytes().to_vec(), line.end()))).unwrap();
    seen
}

#[test]
fn lines_come_as_they_are_and_are_kept_as_well() {
    alone!({
        let mut seen = [Vec::new(), Vec::new()];
        let chatty = Command::new(script("chatty.sh"));
        let output = chatty.for_each_line(|line| seen[line.stream() as usize].push(line.text().into_owned())).unwrap();
        assert_eq!(seen, [["out one", "out two"], ["err one", "err two"]]);
        assert_eq!((output.stdout(), output.stderr()), (&b"out one\nout two\n"[..], &b"err one\nerr two\n"[..]));
        assert_eq!(output.returncode(), 3);
    });
}

#[test]
fn a_line_is_shown_before_the_process_has_ended() {
    alone!({
        // The process ends only because of what the line says.
        let mut ended = false;
        let waiting = Command::shell("echo $$; exec sleep 60").timeout(Duration::from_secs(50));
        let output = waiting.for_each_line(|line| {
            let pid = nix::unistd::Pid::from_raw(pid_in(&line.text()) as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            ended = true;
        });
        assert!(ended);
        assert_eq!(output.unwrap().status().signal(), Some(procession::Signal::KILL));
    });
}

#[test]
fn the_last_line_needs_no_end_and_line_ends_are_a_matter_of_choice() {
    alone!({
        use LineEnd::{Newline, Stream as End};
        let crlf = Command::new(script("crlf.sh"));
        let kept = lines_of(&crlf);
        let texts: Vec<_> = kept.iter().map(|(_, bytes, end)| (&bytes[..], *end)).collect();
        assert_eq!(texts, [(&b"one\r"[..], Newline), (b"two\rthree", Newline), (b"four\r\r", Newline), (b"five", End)]);
        let universal = lines_of(&crlf.text(Text::utf8().newlines(Newlines::Universal)));
        let texts: Vec<_> = universal.iter().map(|(_, bytes, _)| &bytes[..]).collect();
        assert_eq!(texts, [&b"one"[..], b"two", b"three", b"four", b"", b"five"]);
    });
}

#[test]
fn borders_of_reads_do_not_matter() {
    alone!({
        // "ab\r\ncd€\n", byte by byte.
        let bytes = fixture("bytes").args(["61", "62", "0d", "0a", "63", "64", "e2", "82", "ac", "0a"]);
        let universal = bytes.text(Text::utf8().newlines(Newlines::Universal));
        let texts: Vec<_> = lines_of(&universal).into_iter().map(|(_, bytes, _)| bytes).collect();
        assert_eq!(texts, [&b"ab"[..], "cd€".as_bytes()]);
    });
}

#[test]
fn many_lines_arrive_in_order_and_long_ones_in_pieces() {
    alone!({
        let mut next = 0;
        let many = fixture("lines").arg("200000").capture_limit(100, Overflow::Tail);
        let output = many.for_each_line(|line| {
            assert_eq!(line.text(), format!("line {next}"));
            next += 1;
        });
        assert_eq!(next, 200_000);
        assert_eq!(output.unwrap().stdout().len(), 100);
        let mut pieces = Vec::new();
        let long = fixture("spew").arg("1000000").line_limit(65_536);
        long.for_each_line(|line| pieces.push((line.bytes().len(), line.end()))).unwrap();
        let (last, before) = pieces.split_last().unwrap();
        assert!(before.iter().all(|piece| *piece == (65_536, LineEnd::Size)));
        assert_eq!(*last, (1_000_000 % 65_536, LineEnd::Stream));
    });
}

#[test]
fn whoever_has_seen_enough_stops_the_process() {
    alone!({
        let mut seen = 0;
        let endless = fixture("flood").capture_limit(10, Overflow::Head).stop(Stop::kill());
        let output = endless.try_for_each_line(|line| {
            assert_eq!(line.bytes(), b"y");
            seen += 1;
            if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let output = output.unwrap();
        assert_eq!(seen, 5, "nothing is shown after that");
        assert_eq!(output.cause(), Cause::Stopped);
        assert!(output.status().is_known() && output.survivors().is_empty());
        assert_eq!(children(), Vec::<String>::new());
    });
}

#[test]
fn pieces_are_the_whole() {
    alone!({
        let mut both = [Vec::new(), Vec::new()];
        let alternating = fixture("alternate").args(["300000", "1000", "3000"]);
        alternating.for_each_chunk(|stream, bytes| both[stream as usize].extend_from_slice(bytes)).unwrap();
        assert!(both[0] == pattern(300_000) && both[1] == pattern(300_000));
        // What goes elsewhere is not shown.
        let mut shown = Vec::new();
        let elsewhere = fixture("echo").arg("x").stdout(Stdio::null());
        elsewhere.for_each_chunk(|_, bytes| shown.extend_from_slice(bytes)).unwrap();
        assert_eq!(shown, b"");
    });
}

#[test]
fn a_timeout_shows_what_came_before() {
    alone!({
        let mut seen = Vec::new();
        let slow = fixture("say-sleep").args(["early\nhalf", "60000", "late"]).timeout(Duration::from_millis(200));
        let error = slow.for_each_line(|line| seen.push((line.text().into_owned(), line.end()))).unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(seen, [("early".to_owned(), LineEnd::Newline), ("half".to_owned(), LineEnd::Stream)]);
        assert_eq!(error.output().stdout(), b"early\nhalf");
    });
}

#[test]
fn a_panic_of_the_one_who_looks_on_leaves_no_process() {
    alone!({
        let (mut reader, writer) = procession::pipe().unwrap();
        let command = Command::shell("echo $$ >&3; echo line; exec sleep 60").fd(3, writer);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = command.for_each_line(|_| panic!("seen enough"));
        }));
        assert!(caught.is_err());
        drop(command);
        let pid = pid_in(&read_line(&mut reader));
        wait_for("the end of the process", || !crate::support::is_running(pid));
        assert_eq!(children(), Vec::<String>::new());
    });
}
