//! What many tasks write, on two streams: whose output comes when, that no line is torn, and that a stream which takes nothing is
//! told and stops nobody. The news are those that a pool tells.

use crate::support::{Scratch, alone, descriptors, fixture};
use crate::talk::{noise, with_descriptor};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal as Number, signal};
use procession::pool::{Done, Observer, Outcome, Pool, Print, Ready, Task, TaskId, TaskNews};
use procession::{Command, ErrorKind, Output, Overflow, Stream};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const MIB: usize = 1024 * 1024;

/// A writer that can be looked into.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both streams of a print, apart.
fn pages(print: Print) -> (Print, Page, Page) {
    let (stdout, stderr) = (Page::default(), Page::default());
    (print.writers(stdout.clone(), stderr.clone()), stdout, stderr)
}

/// Both streams on one page, as on a terminal.
fn terminal(print: Print) -> (Print, Page) {
    let page = Page::default();
    (print.writers(page.clone(), page.clone()), page)
}

fn id(number: u64) -> TaskId {
    TaskId::from_number(number)
}

fn submit(print: &mut Print, number: u64) {
    let task = Task::new(Command::new("true"));
    print.see(&TaskNews::Submitted { id: id(number), task: &task, label: "true", at: Instant::now() });
}

/// The task, which is called by its number, has written this.
fn write(print: &mut Print, number: u64, stream: Stream, bytes: impl AsRef<[u8]>) {
    let (index, label) = (number as usize, number.to_string());
    print.see(&TaskNews::Output { id: id(number), index, label: &label, stream, bytes: bytes.as_ref() });
}

fn out(print: &mut Print, number: u64, text: &str) {
    write(print, number, Stream::Stdout, text);
}

fn err(print: &mut Print, number: u64, text: &str) {
    write(print, number, Stream::Stderr, text);
}

fn end(print: &mut Print, number: u64) {
    print.see(&TaskNews::Finished(&Done::of(id(number), Ok(Output::default()))));
}

/// A task that has ended with this command.
fn ended(print: &mut Print, number: u64, command: Command) {
    print.see(&TaskNews::Finished(&Done::of(id(number), command.output())));
}

#[test]
fn a_group_is_one_piece_at_the_end() {
    alone!({
        let (mut print, stdout, stderr) = pages(Print::grouped());
        assert!(!print.wants_output());
        out(&mut print, 1, "live output is not wanted\n");
        ended(&mut print, 2, Command::shell("echo out two; echo err two >&2; printf end"));
        ended(&mut print, 1, Command::shell("echo oops >&2; printf '\\377\\000'; exit 3"));
        ended(&mut print, 3, Command::new("/no/such/program"));
        assert_eq!(stdout.bytes(), b"out two\nend\xff\x00");
        assert_eq!(stderr.text(), "err two\noops\n");
        assert!(print.error().is_none());
    });
}

#[test]
fn lines_around_a_group_begin_on_a_line_of_their_own() {
    alone!({
        let print = Print::grouped().header(|label| format!("== {label}"));
        let (mut print, stdout, _) = pages(print.footer(|done| format!("-- {}", done.outcome())));
        ended(&mut print, 1, Command::new("printf").arg("half"));
        ended(&mut print, 2, Command::new("false"));
        ended(&mut print, 3, Command::new("echo").arg("whole"));
        let expected = "== printf half\nhalf\n-- exit 0\n== false\n-- exit 1\n== echo whole\nwhole\n-- exit 0\n";
        assert_eq!(stdout.text(), expected);

        let (mut print, stdout, stderr) =
            pages(Print::grouped().header(str::to_owned).prefix(|label| format!("{label}: ")));
        ended(&mut print, 1, Command::new("true"));
        ended(&mut print, 2, Command::new("seq").arg("2"));
        assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("seq 2\nseq 2: 1\nseq 2: 2\n", ""));
    });
}

#[test]
fn a_group_with_a_transcript_keeps_its_order() {
    alone!({
        let steps = Command::shell("echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three");
        for (command, expected) in [(steps.clone().transcript(), "one\ntwo\nthree\n"), (steps, "one\nthree\ntwo\n")] {
            let (mut print, page) = terminal(Print::grouped());
            ended(&mut print, 1, command);
            assert_eq!(page.text(), expected);
        }
    });
}

#[test]
fn a_group_comes_from_its_file_and_what_is_missing_is_told() {
    alone!({
        let scratch = Scratch::new();
        let file = scratch.join("out");
        let spilled = || fixture("spew").arg("300000").capture_limit(1000, Overflow::Spill(file.clone()));
        let all = fixture("spew").arg("300000").check_output().unwrap();
        for prefix in [false, true] {
            let (mut print, stdout, stderr) =
                pages(if prefix { Print::grouped().prefix(|_| "> ".to_owned()) } else { Print::grouped() });
            ended(&mut print, 1, spilled());
            assert_eq!(stderr.text(), "");
            let shown: Vec<u8> = match prefix {
                true => stdout.text().replace("> (continued) ", "").replace("> ", "").replace('\n', "").into(),
                false => stdout.bytes(),
            };
            assert!(shown == all);
        }
        let done = Done::of(id(1), spilled().output());
        fs::remove_file(&file).unwrap();
        let (mut print, stdout, stderr) = pages(Print::grouped());
        print.see(&TaskNews::Finished(&done));
        assert_eq!(stdout.text(), "");
        let (label, short) = (done.label(), done.label().chars().take(40).collect::<String>());
        let short = if label.len() > short.len() { format!("{short}…") } else { short };
        let expected = format!("[{short}: stdout is in {}: No such file", file.display());
        assert!(stderr.text().starts_with(&expected), "{}", stderr.text());

        let (mut print, stdout, stderr) = pages(Print::grouped());
        ended(&mut print, 1, Command::new("seq").arg("100").capture_limit(4, Overflow::Head));
        assert_eq!(
            (stdout.text().as_str(), stderr.text().as_str()),
            ("1\n2\n", "[seq 100: 288 bytes of stdout were not kept]\n")
        );
    });
}

#[test]
fn lines_of_many_are_never_torn() {
    alone!({
        let (mut print, stdout, stderr) = pages(Print::prefixed());
        assert!(print.wants_output());
        out(&mut print, 1, "on");
        out(&mut print, 2, "a\nb\nc");
        err(&mut print, 1, "oo");
        assert_eq!(
            (stdout.text().as_str(), stderr.text().as_str()),
            ("2| a\n2| b\n", ""),
            "as soon as a line is whole"
        );
        out(&mut print, 1, "e\n\n");
        err(&mut print, 1, "ps\r\n");
        write(&mut print, 3, Stream::Stdout, b"\xff\xfe\0");
        end(&mut print, 2);
        end(&mut print, 3);
        end(&mut print, 1);
        assert_eq!(stdout.bytes(), b"2| a\n2| b\n1| one\n1| \n2| c\n3| \xff\xfe\0\n");
        assert_eq!(stderr.text(), "1| oops\r\n");

        let (mut print, stdout, _) = pages(Print::prefixed().prefix(|label| format!("[{label}] ")));
        out(&mut print, 1, "first attempt");
        let output = procession::Output::default();
        let (outcome, result, pause, at) = (Outcome::Exited(1), Ok(&output), Duration::ZERO, Instant::now());
        let retrying = TaskNews::Retrying { id: id(1), label: "1", attempt: 1, outcome, result, pause, at };
        print.see(&retrying);
        out(&mut print, 1, "second\n");
        end(&mut print, 1);
        end(&mut print, 1);
        assert_eq!(stdout.text(), "[1] first attempt\n[1] second\n", "two attempts do not share a line");
    });
}

#[test]
fn a_line_without_an_end_is_shown_in_pieces() {
    alone!({
        let (mut print, stdout, _) = pages(Print::prefixed());
        let long = vec![b'x'; 3 * 64 * 1024 + 1];
        write(&mut print, 1, Stream::Stdout, &long);
        assert_eq!(
            stdout.bytes().iter().filter(|byte| **byte == b'x').count(),
            3 * 64 * 1024,
            "no more than 64 KiB are held"
        );
        out(&mut print, 2, "short\n");
        out(&mut print, 1, "y\nnext\n");
        let full = "x".repeat(64 * 1024);
        let expected =
            format!("1| {full}\n1| (continued) {full}\n1| (continued) {full}\n2| short\n1| (continued) xy\n1| next\n");
        assert!(stdout.text() == expected);
        end(&mut print, 1);
        end(&mut print, 2);
        assert!(stdout.text() == expected);
    });
}

/// Whatever the pieces: what stands behind the prefix of a task is what it wrote, line by line.
#[test]
fn any_pieces_of_many_tasks_are_their_lines() {
    alone!({
        for seed in 1..30 {
            let (mut print, stdout, stderr) = pages(Print::prefixed());
            let mut dice = noise(40_000 + seed).into_iter().skip(seed).map(usize::from);
            let mut written: HashMap<(u64, Stream), Vec<u8>> = HashMap::new();
            for _ in 0..400 {
                let mut next = |below: usize| dice.next().unwrap() % below;
                let task = next(5) as u64;
                let stream = if next(2) == 0 { Stream::Stdout } else { Stream::Stderr };
                let bytes: Vec<u8> =
                    (0..next(40)).map(|_| [b'\n', b'|', b' ', 0xff, b'0' + next(10) as u8][next(5)]).collect();
                written.entry((task, stream)).or_default().extend(&bytes);
                write(&mut print, task, stream, bytes);
            }
            (0..5).for_each(|task| end(&mut print, task));
            for ((task, stream), mut expected) in written {
                if expected.last().is_some_and(|byte| *byte != b'\n') {
                    expected.push(b'\n');
                }
                let page = if stream == Stream::Stdout { stdout.bytes() } else { stderr.bytes() };
                let front = format!("{task}| ");
                let own =
                    page.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(front.as_bytes()));
                assert!(own.collect::<Vec<_>>().concat() == expected, "seed {seed}");
            }
        }
    });
}

#[test]
fn the_first_that_has_not_ended_is_live_and_the_others_wait() {
    alone!({
        let (mut print, page) = terminal(Print::keep_order().header(|label| format!("== {label}")));
        assert!(print.wants_output());
        (1..=4).for_each(|task| submit(&mut print, task));
        out(&mut print, 2, "two ");
        out(&mut print, 1, "one ");
        assert_eq!(page.text(), "== 1\none ", "live, and not only whole lines");
        err(&mut print, 2, "too");
        err(&mut print, 1, "won");
        end(&mut print, 3);
        out(&mut print, 4, "four\n");
        end(&mut print, 4);
        assert_eq!(page.text(), "== 1\none won");
        end(&mut print, 1);
        assert_eq!(page.text(), "== 1\none won\n== 2\ntwo too");
        out(&mut print, 2, "!\n");
        end(&mut print, 2);
        assert_eq!(page.text(), "== 1\none won\n== 2\ntwo too!\n== 4\nfour\n");
        // One that was never announced.
        out(&mut print, 9, "late\n");
        end(&mut print, 9);
        assert!(page.text().ends_with("== 9\nlate\n"));
    });
}

#[test]
fn streams_stay_apart_and_bytes_as_they_are() {
    alone!({
        let (mut print, stdout, stderr) = pages(Print::keep_order());
        submit(&mut print, 1);
        submit(&mut print, 2);
        write(&mut print, 2, Stream::Stdout, b"\xff\0b");
        err(&mut print, 2, "2");
        write(&mut print, 1, Stream::Stdout, b"\xffa");
        err(&mut print, 1, "1");
        end(&mut print, 2);
        end(&mut print, 1);
        assert_eq!((stdout.bytes(), stderr.bytes()), (b"\xffa\xff\0b".to_vec(), b"12".to_vec()));

        let (mut print, stdout, _) =
            pages(Print::keep_order().prefix(|label| format!("{label}: ")).footer(|_| "--".to_owned()));
        submit(&mut print, 1);
        submit(&mut print, 2);
        out(&mut print, 2, "a\nb");
        out(&mut print, 1, "c");
        end(&mut print, 2);
        end(&mut print, 1);
        assert_eq!(stdout.text(), "1: c\n--\n2: a\n2: b\n--\n", "the options can be combined");
    });
}

#[test]
fn a_service_holds_up_nobody() {
    alone!({
        let (mut print, stdout, _) = pages(Print::keep_order());
        let service = Task::new(Command::new("true")).service(Ready::started());
        print.see(&TaskNews::Submitted { id: id(1), task: &service, label: "", at: Instant::now() });
        submit(&mut print, 2);
        out(&mut print, 1, "listening\n");
        out(&mut print, 2, "request\n");
        assert_eq!(stdout.text(), "request\n");
        end(&mut print, 2);
        end(&mut print, 1);
        assert_eq!(stdout.text(), "request\nlistening\n");
    });
}

/// The bytes of memory that this process has of its own.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn much_that_is_held_goes_to_a_file_without_a_name() {
    alone!({
        let scratch = Scratch::new();
        let shown = scratch.join("shown");
        let file = File::create(&shown).unwrap();
        let mut print = Print::keep_order().writers(file.try_clone().unwrap(), io::sink());
        let before = (resident(), descriptors().len());
        let (tasks, piece) = (20, noise(MIB));
        (0..tasks).for_each(|task| submit(&mut print, task));
        for _ in 0..10 {
            (1..tasks).for_each(|task| write(&mut print, task, Stream::Stdout, &piece));
        }
        assert!(print.error().is_none(), "{:?}", print.error());
        let more = resident().saturating_sub(before.0);
        assert!(more < 64 * MIB, "{} MiB for {} MiB", more / MIB, 10 * (tasks - 1));
        assert_eq!(descriptors().len(), before.1 + 1, "one file for all");
        assert!(descriptors().iter().any(|line| line.contains("(deleted)")), "{:?}", descriptors());
        assert_eq!(fs::metadata(&shown).unwrap().len(), 0);
        (0..tasks).for_each(|task| end(&mut print, task));
        assert!(fs::read(&shown).unwrap() == piece.repeat(10 * (tasks as usize - 1)));
        drop(print);
        assert_eq!(descriptors().len(), before.1 - 1, "and the writer is closed");
    });
}

#[test]
fn our_own_streams_get_it_behind_what_was_printed_before() {
    alone!({
        let scratch = Scratch::new();
        let (stdout, stderr) = (File::create(scratch.join("out")).unwrap(), File::create(scratch.join("err")).unwrap());
        with_descriptor(1, &stdout, || {
            with_descriptor(2, &stderr, || {
                let mut print = Print::prefixed();
                print!("before ");
                out(&mut print, 1, "one\n");
                err(&mut print, 1, "oops\n");
                println!("after");
                end(&mut print, 1);
                assert!(print.error().is_none());
            });
        });
        assert_eq!(fs::read_to_string(scratch.join("out")).unwrap(), "before 1| one\nafter\n");
        assert_eq!(fs::read_to_string(scratch.join("err")).unwrap(), "1| oops\n");
    });
}

/// Neither a panic nor a signal, whatever the program does with SIGPIPE.
#[test]
fn nobody_reads_what_we_print() {
    alone!({
        for handler in [SigHandler::SigDfl, SigHandler::SigIgn] {
            // SAFETY: neither action runs code of ours.
            let before = unsafe { signal(Number::SIGPIPE, handler) }.unwrap();
            for own in [true, false] {
                let (reader, writer) = procession::pipe().unwrap();
                drop(reader);
                let errors = Page::default();
                let see = |print: &mut Print| {
                    err(print, 1, "before\n");
                    out(print, 1, "lost\n");
                    err(print, 1, "not shown any more\n");
                    end(print, 1);
                };
                let kept = match own {
                    true => with_descriptor(1, &writer, || {
                        let mut print = Print::keep_order();
                        let kept = print.clone();
                        see(&mut print);
                        kept
                    }),
                    false => {
                        // Not our own type, which knows what to do.
                        let mut print = Print::keep_order().writers(File::from(OwnedFd::from(writer)), errors.clone());
                        let kept = print.clone();
                        see(&mut print);
                        assert_eq!(errors.text(), "before\n");
                        kept
                    }
                };
                for _ in 0..2 {
                    let error = kept.error().expect("it stays");
                    assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
                    assert_eq!(error.to_string(), "print to stdout: Broken pipe");
                }
            }
            // SAFETY: as it was.
            unsafe { signal(Number::SIGPIPE, before) }.unwrap();
        }
    });
}

/// The litter check sees the signal mask of this thread.
#[test]
fn a_writer_that_panics_leaves_nothing_behind() {
    alone!({
        struct Panics;
        impl Write for Panics {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                panic!("on purpose")
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let errors = Page::default();
        let mut print = Print::prefixed().writers(Panics, errors.clone());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| out(&mut print, 1, "a\n")));
        assert!(caught.is_err());
        err(&mut print, 1, "b\n");
        assert_eq!(errors.text(), "1| b\n", "a pool catches it and goes on");
    });
}

#[test]
fn the_disk_is_full() {
    alone!({
        let full = File::options().write(true).open("/dev/full").unwrap();
        for print in [Print::grouped(), Print::prefixed(), Print::keep_order()] {
            let stdout = Page::default();
            let mut print = print.writers(stdout.clone(), full.try_clone().unwrap());
            out(&mut print, 1, "shown\n");
            err(&mut print, 1, "lost\n");
            out(&mut print, 1, "not shown\n");
            ended(&mut print, 1, Command::shell("echo a; echo b >&2"));
            ended(&mut print, 2, Command::shell("echo c"));
            let expected = if print.wants_output() { "shown\n" } else { "a\n" };
            assert!(stdout.text().ends_with(expected), "{print:?}: {}", stdout.text());
            let error = print.error().unwrap();
            assert_eq!((error.kind(), error.failed_step()), (ErrorKind::ResourceExhausted, Some("print to stderr")));
        }
    });
}

#[test]
fn there_is_no_room_for_what_is_held() {
    alone!({
        let (mut print, stdout, _) = pages(Print::keep_order());
        submit(&mut print, 1);
        submit(&mut print, 2);
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        // The signal of this limit would end us.
        setrlimit(Resource::RLIMIT_FSIZE, MIB as u64, hard).unwrap();
        out(&mut print, 1, "shown\n");
        for _ in 0..20 {
            write(&mut print, 2, Stream::Stdout, vec![b'x'; MIB]);
        }
        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
        let error = print.error().unwrap();
        assert_eq!((error.raw_os_error(), error.failed_step()), (Some(libc::EFBIG), Some("hold output")));
        end(&mut print, 1);
        end(&mut print, 2);
        assert_eq!(stdout.text(), "shown\n", "what is incomplete is not shown");
    });
}

#[test]
fn a_pool_is_shown_in_each_way() {
    alone!({
        let commands = || {
            (0..40).map(|number| {
                Command::shell(format!("printf {number}; sleep 0.00$(({number} % 7)); echo .; echo e{number} >&2"))
            })
        };
        let expected: Vec<String> = (0..40).map(|number| format!("{number}.")).collect();
        for (print, is_ordered) in [
            (Print::grouped(), false),
            (Print::prefixed().prefix(|_| String::new()), false),
            (Print::keep_order(), true),
        ] {
            let (print, stdout, stderr) = pages(print);
            let pool = Pool::new(8).observe(print.clone());
            assert_eq!(pool.map(commands()).len(), 40);
            pool.close();
            pool.join().unwrap();
            assert!(print.error().is_none());
            let (stdout, stderr) = (stdout.text(), stderr.text());
            let (mut lines, mut errors): (Vec<&str>, Vec<&str>) = (stdout.lines().collect(), stderr.lines().collect());
            if !is_ordered {
                lines.sort_by_key(|line| line.trim_end_matches('.').parse::<usize>().unwrap());
                errors.sort_by_key(|line| line[1..].parse::<usize>().unwrap());
            }
            assert_eq!(lines, expected, "{print:?}");
            assert!(
                errors.iter().map(|line| &line[1..]).eq(expected.iter().map(|line| line.trim_end_matches('.'))),
                "{print:?}"
            );
        }
        // Two that look on at the same time.
        let (grouped, stdout, stderr) = pages(Print::grouped());
        let pool = Pool::new(2).observe(grouped).observe(pages(Print::keep_order()).0);
        pool.map([fixture("spew").arg("300000")]);
        drop(pool);
        assert_eq!((stdout.bytes().len(), stderr.text().as_str()), (300_000, ""));
    });
}

#[test]
fn a_slow_reader_gets_everything() {
    alone!({
        let (mut reader, writer) = procession::pipe().unwrap();
        let bytes = noise(3 * MIB);
        let received = std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut all = Vec::new();
                let mut space = [0; 1000];
                loop {
                    match reader.read(&mut space).unwrap() {
                        0 => break all,
                        count => all.extend_from_slice(&space[..count]),
                    }
                    std::thread::yield_now();
                }
            });
            with_descriptor(1, writer, || {
                let mut print = Print::keep_order();
                submit(&mut print, 1);
                submit(&mut print, 2);
                write(&mut print, 2, Stream::Stdout, &bytes[MIB..]);
                write(&mut print, 1, Stream::Stdout, &bytes[..MIB]);
                end(&mut print, 1);
                end(&mut print, 2);
                assert!(print.error().is_none());
            });
            reading.join().unwrap()
        });
        assert!(received == bytes);
    });
}
