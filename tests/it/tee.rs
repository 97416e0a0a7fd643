//! Who else gets what a child writes: that the copies are whole, decorated as said, and that a target that fails or blocks is told.

use crate::support::{Scratch, alone, children, fixture, fixture_path, is_running, wait_for};
use crate::talk::{cpu_time, noise, own_status, pattern, pid_in, with_descriptor};
use nix::sys::signal::{SigHandler, Signal as Number, signal};
use procession::{Cause, Clock, Command, ErrorKind, Filter, Output, Overflow, PipeReader, Stdio, Stop, Stream, Target};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const MIB: usize = 1024 * 1024;
const LONG: Duration = Duration::from_secs(60);

type Log = Arc<Mutex<Vec<u8>>>;

fn log() -> Log {
    Log::default()
}

fn bytes(log: &Log) -> Vec<u8> {
    log.lock().unwrap().clone()
}

fn text(log: &Log) -> String {
    String::from_utf8(bytes(log)).unwrap()
}

/// A pipe in which there is room for nothing.
fn full_pipe() -> (PipeReader, procession::PipeWriter) {
    let (reader, writer) = procession::pipe().unwrap();
    let flags = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    let flags = nix::fcntl::OFlag::from_bits_retain(flags);
    let nonblocking = flags | nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nonblocking)).unwrap();
    while nix::unistd::write(&writer, &[b'#'; 4096]).is_ok() {}
    while nix::unistd::write(&writer, b"#").is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    (reader, writer)
}

/// A writer that takes so many bytes.
struct Takes {
    left: usize,
    taken: Vec<u8>,
    then: fn() -> io::Result<usize>,
}

impl Takes {
    fn shared(left: usize, then: fn() -> io::Result<usize>) -> Arc<Mutex<Takes>> {
        Arc::new(Mutex::new(Takes { left, taken: Vec::new(), then }))
    }
}

impl Write for Takes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.left);
        if count == 0 && !bytes.is_empty() {
            return (self.then)();
        }
        self.taken.extend_from_slice(&bytes[..count]);
        self.left -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn fails() -> io::Result<usize> {
    Err(io::Error::other("the disk is on fire"))
}

#[test]
fn copies_are_the_same_everywhere() {
    alone!({
        let scratch = Scratch::new();
        let (file, appended, shown) = (scratch.join("file"), scratch.join("appended"), scratch.join("shown"));
        fs::write(&file, "what was there").unwrap();
        fs::write(&appended, "before\n").unwrap();
        let both = log();
        let noisy = noise(3 * MIB);
        let command = fixture("cat").input(noisy.clone());
        let own = File::create(&shown).unwrap();
        let output = with_descriptor(1, &own, || {
            print!("before ");
            let command = command.tee(Target::stdout()).tee(Target::write(&file)).tee_stdout(Target::append(&appended));
            command
                .tee(Target::writer(Arc::clone(&both)))
                .tee_stderr(Target::write(scratch.join("empty")))
                .output()
                .unwrap()
        });
        assert!(output.stdout() == noisy);
        assert!(fs::read(&file).unwrap() == noisy);
        assert!(fs::read(&appended).unwrap() == [b"before\n", &noisy[..]].concat());
        assert!(fs::read(&shown).unwrap() == [b"before ", &noisy[..]].concat(), "what was printed before comes before");
        assert!(bytes(&both) == noisy);
        assert_eq!(fs::read(scratch.join("empty")).unwrap(), b"");
    });
}

#[test]
fn both_streams_go_into_one_target() {
    alone!({
        let (both, errors) = (log(), log());
        let alternating = fixture("alternate").args(["100000", "1000", "3000"]).tee(Target::writer(Arc::clone(&both)));
        let output = alternating.tee_stderr(Target::writer(Arc::clone(&errors))).output().unwrap();
        assert!(output.stdout() == pattern(100_000) && output.stderr() == pattern(100_000));
        assert!(bytes(&errors) == pattern(100_000));
        assert_eq!(bytes(&both).len(), 200_000);

        let marked = log();
        let both = Command::shell("echo out; echo err >&2; printf half; printf other >&2");
        both.tee(Target::writer(Arc::clone(&marked)).prefix("> ")).output().unwrap();
        let mut lines: Vec<String> = text(&marked).lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["> err", "> half", "> other", "> out"]);
        assert!(text(&marked).ends_with('\n'), "an unterminated line gets an end");
    });
}

#[test]
fn one_stream_that_is_the_other_goes_by_its_way() {
    alone!({
        let copy = log();
        let merged = fixture("merge").arg("100").stderr(Stdio::stdout()).tee(Target::writer(Arc::clone(&copy)));
        let output = merged.output().unwrap();
        assert_eq!(output.stdout(), bytes(&copy));
        assert_eq!(text(&copy).lines().count(), 100);
        assert!(text(&copy).starts_with("out 0\nerr 1\nout 2\n"));
        let error = merged.tee_stderr(Target::stdout()).output().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    });
}

#[test]
fn lines_are_stamped_and_marked() {
    alone!({
        let copy = log();
        let target = Target::writer(Arc::clone(&copy)).prefix("job 7 | ").timestamps(Clock::Elapsed);
        let output = fixture("say-sleep").args(["one\ntw", "1100", "o\n\nend"]).tee_stdout(target).output().unwrap();
        assert_eq!(output.stdout(), b"one\ntwo\n\nend");
        let text = text(&copy);
        let mut last = 0.0;
        let mut lines = Vec::new();
        for line in text.lines() {
            let (stamp, rest) = line.split_at(11);
            let stamp = stamp.strip_prefix('[').and_then(|stamp| stamp.strip_suffix("] ")).expect(line);
            assert_eq!((stamp.len(), stamp.find('.')), (8, Some(4)), "{line}");
            let stamp: f64 = stamp.trim_start().parse().expect(line);
            assert!(stamp >= last && stamp <= output.elapsed().as_secs_f64(), "{line}");
            last = stamp;
            lines.push((stamp >= 1.1, rest.to_owned()));
        }
        let line = |late, text: &str| (late, format!("job 7 | {text}"));
        assert_eq!(lines, [line(false, "one"), line(true, "two"), line(true, ""), line(true, "end")]);

        let copy = log();
        let target = Target::writer(Arc::clone(&copy)).timestamps(Clock::Utc);
        let output = fixture("say-sleep").args(["now\n", "1100", "then\n"]).tee(target).output().unwrap();
        let millis = |moment: std::time::SystemTime| moment.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let (from, until) = (millis(output.started().unwrap()), millis(output.ended().unwrap()));
        let text = crate::tee::text(&copy);
        // The day's millisecond, which needs no calendar.
        let moment = |line: &str| {
            assert_eq!((line.find('T'), line.find("Z ")), (Some(10), Some(23)), "{line:?}");
            let number = |range: std::ops::Range<usize>| line[range].parse::<u128>().unwrap();
            ((number(11..13) * 60 + number(14..16)) * 60 + number(17..19)) * 1000 + number(20..23)
        };
        let moments: Vec<u128> = text.lines().map(moment).collect();
        assert!(text.ends_with("Z then\n") && moments.len() == 2, "{text}");
        const DAY: u128 = 86_400_000;
        if from / DAY == until / DAY {
            assert!(
                moments[0] + 1000 >= from % DAY && moments[0] + 1100 <= moments[1] && moments[1] <= until % DAY,
                "{text}"
            );
        }
    });
}

#[test]
fn lines_of_several_children_are_not_torn() {
    alone!({
        let copy = log();
        let (mut reader, writer) = procession::pipe().unwrap();
        let collect = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        let run = |name: &'static str, target: Target| {
            let command = fixture("lines").arg("20000").tee_stdout(target.prefix(name));
            std::thread::spawn(move || assert!(command.call().unwrap().success()))
        };
        with_descriptor(1, &writer, || {
            let names = ["a ", "bb ", "ccc "];
            let writers = names.map(|name| run(name, Target::writer(Arc::clone(&copy))));
            let own = names.map(|name| run(name, Target::stdout()));
            writers.into_iter().chain(own).for_each(|thread| thread.join().unwrap());
        });
        drop(writer);
        for all in [bytes(&copy), collect.join().unwrap()] {
            let all = String::from_utf8(all).unwrap();
            assert_eq!(all.lines().count(), 60_000);
            let mut next = [0, 0, 0];
            for line in all.lines() {
                let (name, number) = line.split_once(" line ").unwrap_or_else(|| panic!("torn: {line:?}"));
                let place = ["a", "bb", "ccc"]
                    .iter()
                    .position(|known| *known == name)
                    .unwrap_or_else(|| panic!("torn: {line:?}"));
                assert_eq!(number.parse(), Ok(next[place]), "torn: {line:?}");
                next[place] += 1;
            }
        }
    });
}

#[test]
fn what_a_target_filters_is_not_filtered_elsewhere() {
    alone!({
        let copy = log();
        let loud = Filter::keep_lines(|line| !line.ends_with(b"1"));
        let target = Target::writer(Arc::clone(&copy)).filter(loud).prefix("> ");
        let output = fixture("lines").arg("4").tee_stdout(target).output().unwrap();
        assert_eq!(output.stdout(), b"line 0\nline 1\nline 2\nline 3\n");
        assert_eq!(text(&copy), "> line 0\n> line 2\n> line 3\n");
        // The end is told once, when both streams have ended.
        let ends = Arc::new(Mutex::new(0));
        let count = Arc::clone(&ends);
        let filter = Filter::new(move |piece, out| {
            match piece {
                Some(bytes) => out.extend(bytes.to_ascii_uppercase()),
                None => {
                    *count.lock().unwrap() += 1;
                    out.extend_from_slice(b"the end");
                }
            }
            Ok(())
        });
        let copy = log();
        Command::shell("echo a; echo b >&2").tee(Target::writer(Arc::clone(&copy)).filter(filter)).output().unwrap();
        assert_eq!(*ends.lock().unwrap(), 1);
        assert!(text(&copy).ends_with("\nthe end") && text(&copy).len() == 11, "{}", text(&copy));
    });
}

/// A run whose target failed: the error names it, the tree is stopped, what was read is in the record.
fn failed(result: Result<Output, procession::Error>, target: &str) -> Output {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(target), "{text}");
    assert!(text.contains("fixture"), "it names the command: {text}");
    assert_eq!(children(), Vec::<String>::new());
    error.into_output()
}

#[test]
fn a_target_that_fails_ends_the_run_and_is_named() {
    alone!({
        let endless = fixture("flood").stop(Stop::kill());
        for left in [0, 1, 100_000] {
            let writer = Takes::shared(left, fails);
            let target = Target::writer(Arc::clone(&writer));
            let output = failed(endless.clone().tee(target.clone()).output(), "tee to a writer: the disk is on fire");
            assert_eq!(output.cause(), Cause::Stopped);
            let taken = writer.lock().unwrap().taken.clone();
            assert_eq!(taken.len(), left);
            assert!(output.stdout().len() >= left.max(1) && output.stdout().starts_with(&taken));
            assert!(output.stdout().chunks(2).all(|line| line == &b"y\n"[..line.len()]));
            // It is not tried again.
            writer.lock().unwrap().left = 0;
            failed(endless.clone().tee_stdout(target.clone()).for_each_chunk(|_, _| ()), "tee to a writer");
            let piped = endless.clone().stdout(Stdio::piped()).tee_stdout(target.clone());
            failed(piped.spawn().unwrap().communicate(()), "tee to a writer");
            let mut child = piped.spawn().unwrap();
            let error = child.lines().find_map(Result::err).unwrap();
            assert!(error.to_string().contains("tee to a writer"), "{error}");
            assert!(!is_running(child.id()));
            assert_eq!(children(), Vec::<String>::new());
            failed((endless.clone().tee_stdout(target) | fixture("cat")).output(), "tee to a writer");
        }
        // At the very end, when the last line is completed.
        let ending = fixture("say-sleep").args(["one\nhalf", "10", ""]);
        let target = Target::writer(Takes::shared(6, fails)).prefix("> ");
        let output = failed(ending.tee(target).output(), "tee to a writer");
        assert_eq!(output.stdout(), b"one\nhalf");
    });
}

#[test]
fn a_full_device_is_named() {
    alone!({
        for target in [Target::write("/dev/full"), Target::append("/dev/full")] {
            let result = fixture("spew").arg("1000000").tee(target).output();
            let error = result.unwrap_err();
            assert_eq!((error.failed_path(), error.raw_os_error()), (Some("/dev/full".as_ref()), Some(libc::ENOSPC)));
            assert!(!error.output().stdout().is_empty());
            assert_eq!(children(), Vec::<String>::new());
        }
        let full = File::options().write(true).open("/dev/full").unwrap();
        let result = with_descriptor(1, &full, || fixture("echo").arg("x").tee(Target::stdout()).output());
        let output = failed(result, "tee to stdout");
        assert_eq!(output.stdout(), b"x\n");
        let result = with_descriptor(2, &full, || fixture("echo").arg("x").tee(Target::stderr()).call());
        assert!(result.unwrap_err().to_string().contains("tee to stderr"));
    });
}

#[test]
fn a_target_that_panics_leaves_nothing_behind() {
    alone!({
        let endless = fixture("flood").stop(Stop::kill());
        for panics in [
            endless.clone().tee(Target::writer(Takes::shared(10, || panic!("no more")))),
            endless.tee(Target::stderr().filter(Filter::map_lines(|_| -> Vec<u8> { panic!("no more") }))),
        ] {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(panics.output())));
            assert!(caught.is_err());
            assert_eq!(children(), Vec::<String>::new());
            let pipeline = panics | fixture("cat");
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(pipeline.output())));
            assert!(caught.is_err());
            assert_eq!(children(), Vec::<String>::new());
        }
    });
}

#[test]
fn a_target_that_blocks_does_not_hold_up_a_timeout() {
    alone!({
        let (mut reader, writer) = full_pipe();
        let timeout = Duration::from_millis(300);
        let slow = || fixture("spew").arg("1000000").timeout(timeout).stop(Stop::kill()).tee(Target::stdout());
        let started = Instant::now();
        with_descriptor(1, &writer, || {
            let error = slow().output().unwrap_err();
            assert!(error.is_timeout(), "{error}");
            assert!(!error.output().stdout().is_empty());
            // Also with something that the program has printed and that is still in its buffer.
            print!("buffered");
            let error = slow().output().unwrap_err();
            assert!(error.is_timeout(), "{error}");
            let mut child = fixture("spew").arg("1000000").tee(Target::stdout()).spawn().unwrap();
            let error = child.communicate_timeout((), timeout).unwrap_err();
            assert!(error.is_timeout(), "{error}");
            let error = child.lines().timeout(timeout).find_map(Result::err).unwrap();
            assert!(error.is_timeout(), "{error}");
            child.kill().unwrap();
            child.wait().unwrap();
            // So that nothing is left in the buffer.
            let mut drained = vec![0; 65_536];
            reader.read_exact(&mut drained).unwrap();
            io::stdout().flush().unwrap();
        });
        assert!(started.elapsed() < Duration::from_secs(30));
        // A pipe with a name is as patient.
        let scratch = Scratch::new();
        let path = scratch.join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_retain(0o600)).unwrap();
        let _both_ends = File::options().read(true).write(true).open(&path).unwrap();
        let error = fixture("spew").arg("1000000").timeout(timeout).tee(Target::append(&path)).output().unwrap_err();
        assert!(error.is_timeout(), "{error}");
    });
}

#[test]
fn a_named_pipe_that_nobody_reads_is_refused() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_retain(0o600)).unwrap();
        let marker = scratch.path().join("ran");
        let error = fixture("touch").arg(&marker).tee(Target::append(&path)).output().unwrap_err();
        assert_eq!((error.failed_path(), error.raw_os_error()), (Some(&*path), Some(libc::ENXIO)), "{error}");
        assert!(!marker.exists());
    });
}

#[test]
fn what_a_slow_target_does_not_take_in_time_is_told() {
    alone!({
        let (_reader, writer) = full_pipe();
        // The child ends at once; its pipes are given so long.
        let quick = fixture("echo").arg("x").drain(Duration::from_millis(200)).tee(Target::stdout());
        let quick = quick.timeout(Duration::from_secs(2));
        let error = with_descriptor(1, &writer, || quick.output()).unwrap_err();
        assert_eq!(error.output().stdout(), b"x\n");
        assert!(error.to_string().contains("tee to stdout") && error.is_timeout(), "{error}");
    });
}

#[test]
fn what_a_child_wrote_while_a_target_blocked_is_in_the_record() {
    alone!({
        let (_reader, writer) = full_pipe();
        let both =
            fixture("bytes").args(["616263", "646566"]).timeout(Duration::from_millis(500)).tee(Target::stdout());
        let error = with_descriptor(1, &writer, || both.output()).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.output().stdout(), b"abcdef");
        assert!(error.output().is_complete());
    });
}

#[test]
fn a_target_that_blocks_does_not_hold_up_a_stop() {
    alone!({
        let (mut reader, writer) = full_pipe();
        // There is room for the first line, and no more.
        reader.read_exact(&mut [0; 4096]).unwrap();
        let polite = fixture("term-spew").arg("1000000").stop(Stop::term_then_kill(Duration::from_secs(20)));
        let polite = polite.tee_stdout(Target::stdout());
        let output = with_descriptor(1, &writer, || polite.try_for_each_line(|_| ControlFlow::Break(()))).unwrap();
        assert_eq!(
            (output.cause(), output.status().code()),
            (Cause::Stopped, Some(0)),
            "it could write its last words"
        );
        assert_eq!(output.captured_stdout().total(), 1_000_006);
    });
}

#[test]
fn a_target_that_blocks_during_a_stop_does_not_fill_memory() {
    alone!({
        // It goes on writing for as long as it is let.
        let deaf = Command::shell(format!("trap '' TERM; exec '{}' flood", fixture_path().display()));
        let deaf = deaf.stop(Stop::term_then_kill(Duration::from_secs(1))).capture_limit(1000, Overflow::Tail);
        let (_reader, writer) = full_pipe();
        let before = own_status("VmHWM");
        let command = deaf.timeout(Duration::from_millis(300)).tee(Target::stdout());
        let error = with_descriptor(1, &writer, || command.output()).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        let total = error.output().captured_stdout().total();
        assert!(total > 64 * MIB as u64, "it was read all the while: {total}");
        let grown = own_status("VmHWM") - before;
        assert!(grown < 32 * 1024, "{grown} KiB");
    });
}

#[test]
fn a_slow_target_gets_everything() {
    alone!({
        let (mut reader, writer) = full_pipe();
        let collect = std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut piece = [0; 10_000];
            loop {
                std::thread::sleep(Duration::from_millis(1));
                match reader.read(&mut piece).unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&piece[..count]),
                }
            }
        });
        let bytes = noise(MIB);
        let output =
            with_descriptor(1, &writer, || fixture("cat").input(bytes.clone()).tee(Target::stdout()).output()).unwrap();
        drop(writer);
        assert!(output.stdout() == bytes);
        assert!(collect.join().unwrap().ends_with(&bytes));
    });
}

#[test]
fn a_stream_that_goes_elsewhere_has_no_target() {
    alone!({
        let scratch = Scratch::new();
        let (made, other) = (scratch.join("made"), scratch.join("other"));
        for elsewhere in [Stdio::inherit(), Stdio::null(), Stdio::write(&other)] {
            let command = fixture("echo").arg("x").stdout(elsewhere);
            let error = command.clone().tee_stdout(Target::write(&made)).output().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("stdout has a target"), "{error}");
            assert!(command.clone().tee(Target::write(&made)).spawn().is_err());
            assert!(command.clone().tee(Target::write(&made)).call().is_err());
            assert!(!made.exists() && !other.exists(), "nothing was created");
            // The other stream may have one.
            command.tee_stderr(Target::writer(log())).call().unwrap();
        }
        // Nor is anything made for a program that is not there.
        assert!(Command::new("no-such-program").tee(Target::write(&made)).output().is_err());
        assert!(!made.exists());
        let error = fixture("echo").tee(Target::write(scratch.join("no/such/folder"))).output().unwrap_err();
        assert_eq!(error.failed_path(), Some(&*scratch.join("no/such/folder")));
        assert!(error.to_string().contains("fixture"), "{error}");
    });
}

#[test]
fn verbs_that_collect_nothing_have_targets_too() {
    alone!({
        let copy = log();
        let command =
            Command::shell("echo out; echo err >&2; exit 3").tee(Target::writer(Arc::clone(&copy)).prefix("> "));
        assert_eq!(command.call().unwrap().code(), Some(3));
        let mut lines: Vec<_> = text(&copy).lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["> err", "> out"]);
        let error = command.check_call().unwrap_err();
        assert_eq!(error.output().stderr(), b"err\n", "the end is kept for the error");
        // Standard input is still that of this program.
        let copy = log();
        let (reader, mut writer) = procession::pipe().unwrap();
        writer.write_all(b"typed\n").unwrap();
        drop(writer);
        with_descriptor(0, &reader, || fixture("cat").tee_stdout(Target::writer(Arc::clone(&copy))).call()).unwrap();
        assert_eq!(text(&copy), "typed\n");
    });
}

#[test]
fn a_spawned_child_gives_what_a_conversation_reads() {
    alone!({
        let copy = log();
        let teed = || fixture("cat").stdin(Stdio::piped()).tee_stdout(Target::writer(Arc::clone(&copy)));
        let mut child = teed().spawn().unwrap();
        assert_eq!(child.communicate("one\n").unwrap().stdout(), b"one\n");
        let mut child = teed().spawn().unwrap();
        child.feed("two\nthree\n").unwrap();
        assert_eq!(child.lines().next().unwrap().unwrap().text(), "two");
        assert_eq!(child.communicate(()).unwrap().stdout(), b"three\n");
        assert_eq!(text(&copy), "one\ntwo\nthree\n");
        // And whoever only waits does not wait for ever.
        let large = noise(MIB);
        let copy = log();
        let scratch = Scratch::new();
        let path = scratch.file("large", 0o644, &large);
        let mut child =
            fixture("cat").stdin(Stdio::read(&path)).tee_stdout(Target::writer(Arc::clone(&copy))).spawn().unwrap();
        let output = child.communicate(()).unwrap();
        assert!(output.success() && bytes(&copy) == large);
    });
}

#[test]
fn stages_have_targets() {
    alone!({
        let (first, last, errors) = (log(), log(), log());
        let pipeline = fixture("lines").arg("3")
            | Command::shell("cat; echo careful >&2").tee_stderr(Target::writer(Arc::clone(&errors)))
            | fixture("upper").tee_stdout(Target::writer(Arc::clone(&last)).prefix("> "));
        let output = pipeline.output().unwrap();
        assert_eq!(output.stdout(), b"LINE 0\nLINE 1\nLINE 2\n");
        assert_eq!(text(&last), "> LINE 0\n> LINE 1\n> LINE 2\n");
        assert_eq!(text(&errors), "careful\n");
        last.lock().unwrap().clear();
        assert!(pipeline.call().unwrap().success());
        assert_eq!(text(&last), "> LINE 0\n> LINE 1\n> LINE 2\n");
        // What goes to the next one passes us then.
        let large = noise(MIB);
        let inner = fixture("cat").tee_stdout(Target::writer(Arc::clone(&first)));
        let output = (fixture("cat") | inner.clone() | inner | fixture("cat")).input(large.clone()).output().unwrap();
        assert!(output.success() && output.stdout() == large);
        assert_eq!(bytes(&first).len(), 2 * MIB);
    });
}

#[test]
fn a_broken_target_never_kills_the_host() {
    alone!({
        let endless = fixture("flood").stop(Stop::kill());
        for handler in [SigHandler::SigDfl, SigHandler::SigIgn] {
            // SAFETY: no handler of ours is called.
            let before = unsafe { signal(Number::SIGPIPE, handler) }.unwrap();
            let (reader, writer) = procession::pipe().unwrap();
            drop(reader);
            with_descriptor(1, &writer, || {
                for buffered in ["", "something"] {
                    print!("{buffered}");
                    let error = endless.clone().tee(Target::stdout()).output().unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EPIPE), "{error}");
                    assert!(error.to_string().contains("tee to stdout"), "{error}");
                }
                let (null, mut rest) = (File::options().write(true).open("/dev/null").unwrap(), io::stdout());
                // SAFETY: integer arguments.
                unsafe { libc::dup2(null.as_raw_fd(), 1) };
                rest.flush().unwrap();
            });
            with_descriptor(2, &writer, || {
                let error = endless.clone().tee(Target::stderr()).output().unwrap_err();
                assert!(error.to_string().contains("tee to stderr"), "{error}");
            });
            // SAFETY: puts back what was there.
            unsafe { signal(Number::SIGPIPE, before) }.unwrap();
            assert_eq!(children(), Vec::<String>::new());
        }
    });
}

#[test]
fn a_grandchild_does_not_hold_up_the_last_line() {
    alone!({
        let copy = log();
        let held = Command::shell(format!("'{}' sleeper 60000 & echo $!; printf half", fixture_path().display()));
        let target = Target::writer(Arc::clone(&copy)).prefix("> ");
        let output = held.drain(Duration::from_millis(100)).tee(target).output().unwrap();
        let (first, _) = output.stdout_lossy().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let _leftover = crate::talk::Leftover(vec![pid_in(&first)]);
        assert_eq!(text(&copy), format!("> {first}\n> half\n"));
        assert!(!output.is_complete());
    });
}

#[test]
fn waiting_with_targets_costs_nothing() {
    alone!({
        let quiet =
            fixture("sleep").arg("1500").tee(Target::writer(log())).tee(Target::stdout().timestamps(Clock::Utc));
        let before = cpu_time();
        quiet.timeout(LONG).output().unwrap();
        assert!(cpu_time() - before < Duration::from_millis(300), "{:?}", cpu_time() - before);
        // A target that takes nothing is waited for, not asked again and again.
        let (_reader, writer) = full_pipe();
        let before = cpu_time();
        let blocked = fixture("spew").arg("1000000").timeout(Duration::from_millis(1500)).stop(Stop::kill());
        assert!(with_descriptor(1, &writer, || blocked.tee(Target::stdout()).output()).unwrap_err().is_timeout());
        assert!(cpu_time() - before < Duration::from_millis(400), "{:?}", cpu_time() - before);
    });
}

#[test]
fn a_target_says_what_it_is() {
    alone!({
        let all = [Target::stdout(), Target::stderr(), Target::write("a"), Target::append("b"), Target::writer(log())];
        let names = all.map(|target| format!("{target:?}"));
        assert_eq!(
            names,
            ["Target(stdout)", "Target(stderr)", "Target(write a)", "Target(append b)", "Target(writer)"]
        );
        assert_eq!(Stream::Stdout.to_string(), "stdout");
        wait_for("nobody", || children().is_empty());
    });
}

#[test]
fn a_plan_knows_the_targets() {
    alone!({
        let plan = fixture("exit").tee_stdout(Target::stderr()).plan().unwrap().to_string();
        assert!(plan.contains("stream   1 <- piped\n"), "{plan}");
        let error = fixture("exit").stdout(Stdio::null()).tee_stdout(Target::stderr()).plan().unwrap_err();
        assert!(error.is_invalid_input(), "{error}");
    });
}

#[test]
fn a_named_pipe_without_a_reader_is_not_waited_for() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_retain(0o600)).unwrap();
        let error = fixture("echo").arg("x").tee(Target::append(&path)).timeout(LONG).output().unwrap_err();
        assert_eq!((error.raw_os_error(), error.failed_path()), (Some(libc::ENXIO), Some(&*path)), "{error}");
    });
}
