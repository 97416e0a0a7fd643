//! Functions in processes: what goes in, what comes out, and every way to end.

use crate::support::{Scratch, alone};
use procession::ipc::{Descriptor, Process, ProcessPool, active_children, current, join_all, join_all_timeout};
use procession::{Command, ErrorKind, ExitStatus, Signal, Stdio};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    name: String,
    sizes: Vec<u64>,
    more: BTreeMap<String, Option<bool>>,
}

fn twice(job: Job) -> Job {
    Job { name: job.name.repeat(2), sizes: job.sizes.iter().map(|size| size * 2).collect(), more: job.more }
}

#[test]
fn arguments_and_results_are_data() {
    alone!({
        let job = Job { name: "ab".into(), sizes: vec![1, u64::MAX / 2], more: [("x".into(), Some(true))].into() };
        let mut process = Process::start(twice, job.clone()).unwrap();
        assert_eq!(process.join().unwrap(), twice(job.clone()));
        // Once more: it is still there.
        assert_eq!(process.join().unwrap(), twice(job));
        assert_eq!(process.exit_code(), Some(0));
        assert!(!process.is_alive());
    });
}

/// Neither waits for the other, so no size can block them.
#[test]
fn large_arguments_and_results_go_through() {
    alone!({
        let text = "0123456789abcdef".repeat(1 << 19);
        let mut process = Process::start(|text: String| text.chars().rev().collect::<String>(), text.clone()).unwrap();
        // The process can end although nobody has asked for its result.
        assert!(process.wait_timeout(Duration::from_secs(60)).unwrap().is_some());
        assert_eq!(process.join().unwrap().len(), text.len());
    });
}

#[test]
fn the_function_runs_in_another_process() {
    alone!({
        let look = |()| (std::process::id(), current().map(|process| (process.name().to_owned(), process.parent_id())));
        let builder = Process::builder(look, ());
        let mut process = builder.name("the other").start().unwrap();
        let (id, known) = process.join().unwrap();
        assert_ne!(id, std::process::id());
        assert_eq!(id, process.id());
        assert_eq!(known, Some(("the other".to_owned(), std::process::id())));
    });
}

#[test]
fn a_panic_comes_back() {
    alone!({
        let function = |number: u32| -> u32 { panic!("the number was {number}") };
        let builder = Process::builder(function, 7).configure(|command| command.stderr(Stdio::piped()));
        let mut process = builder.start().unwrap();
        let error = process.join().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panic);
        let panic = error.panic().unwrap();
        assert_eq!(panic.message(), "the number was 7");
        assert!(panic.location().starts_with("tests/it/process.rs:"), "{}", panic.location());
        assert!(panic.backtrace().contains("a_panic_comes_back"), "{}", panic.backtrace());
        assert!(error.to_string().contains("panicked at tests/it/process.rs:"), "{error}");
        assert!(error.output().stderr_lossy().contains("the number was 7"));
        assert_eq!(process.exit_code(), Some(101));
    });
}

fn wait_for_ever((): ()) {
    loop {
        std::thread::park();
    }
}

#[test]
fn every_other_end_is_told() {
    alone!({
        let mut exits = Process::start(|code: i32| -> () { std::process::exit(code) }, 3).unwrap();
        let error = exits.join().unwrap_err();
        assert_eq!((error.kind(), error.output().status()), (ErrorKind::Status, ExitStatus::from_code(3)));
        assert!(error.to_string().ends_with("before the function had returned"), "{error}");
        let mut early = Process::start(|code: i32| -> () { std::process::exit(code) }, 0).unwrap();
        assert_eq!(early.join().unwrap_err().kind(), ErrorKind::Status);
        let mut aborts = Process::start(|()| -> () { std::process::abort() }, ()).unwrap();
        assert_eq!(aborts.join().unwrap_err().output().status().signal(), Some(Signal::ABRT));
        assert_eq!(aborts.exit_code(), Some(-6));
        let mut killed = Process::start(wait_for_ever, ()).unwrap();
        assert!(killed.is_alive());
        assert!(killed.join_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
        assert!(killed.kill().unwrap());
        let error = killed.join().unwrap_err();
        assert_eq!(error.output().status().signal(), Some(Signal::KILL));
        // Who has done it is said: we, or somebody else.
        assert!(error.to_string().contains("signal: SIGKILL, sent by this program, before the "), "{error}");
        let mut killed = Process::start(wait_for_ever, ()).unwrap();
        killed.handle().send_signal(Signal::KILL).unwrap();
        let error = killed.join().unwrap_err();
        assert!(error.to_string().contains("signal: SIGKILL before the "), "{error}");
    });
}

/// An error of ours is a result like any other, with everything that it knows.
#[test]
fn errors_are_results() {
    alone!({
        fn sorted(text: String) -> Result<String, procession::Error> {
            let text = Command::new("sort").input(text).check_output_text()?;
            Command::new("sh").args(["-c", "echo not today >&2; kill -9 $$"]).check_output()?;
            Ok(text)
        }
        let error = Process::start(sorted, "b\na\n".into()).unwrap().join().unwrap().unwrap_err();
        assert_eq!(error.output().status().signal(), Some(Signal::KILL));
        assert!(
            error.is_status() && error.to_string().ends_with("signal: SIGKILL; stderr ends:\nnot today"),
            "{error}"
        );
        assert!(error.output().usage().is_some() && error.output().pid().is_some());
        let record = |()| Command::new("echo").arg("hello").output();
        let output = Process::start(record, ()).unwrap().join().unwrap().unwrap();
        assert!(output.success() && output.stdout() == b"hello\n" && output.is_complete());
        let missing = |()| std::fs::read("/no/such/file").map_err(procession::Error::from);
        let error = Process::start(missing, ()).unwrap().join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    });
}

#[test]
fn all_are_joined() {
    alone!({
        let ends = |how: u32| -> u32 {
            match how {
                9 => std::process::exit(9),
                8 => wait_for_ever(()),
                _ => {}
            }
            how
        };
        let mut processes: Vec<Process<u32>> = [1, 9, 2].map(|how| Process::start(ends, how).unwrap()).into();
        let results = join_all(&mut processes);
        assert_eq!((results[0].as_ref().unwrap(), results[2].as_ref().unwrap()), (&1, &2));
        assert_eq!(results[1].as_ref().unwrap_err().output().status(), ExitStatus::from_code(9));
        let mut processes: Vec<Process<u32>> = [8, 8, 3].map(|how| Process::start(ends, how).unwrap()).into();
        processes[2].wait().unwrap();
        let results = join_all_timeout(&mut processes, Duration::from_millis(20));
        assert!(results[..2].iter().all(|result| result.as_ref().unwrap_err().is_timeout()), "{results:?}");
        assert_eq!(results[2].as_ref().unwrap(), &3);
        let text = results[0].as_ref().unwrap_err().to_string();
        assert!(text.contains("has not ended after 20ms"), "{text}");
        processes.iter().for_each(|process| drop(process.kill()));
        assert!(join_all(&mut processes)[0].as_ref().unwrap_err().is_status());
    });
}

#[test]
fn the_active_children_are_known() {
    alone!({
        let names = || active_children().iter().map(|child| child.name().to_owned()).collect::<Vec<_>>();
        assert!(names().is_empty());
        let start = |name: &str| Process::builder(wait_for_ever, ()).name(name).start().unwrap();
        let (one, mut two) = (start("one"), start("two"));
        let ended = Process::builder(|()| 7, ()).name("ended").start().unwrap();
        assert!(names().starts_with(&["one".to_owned(), "two".to_owned()]));
        // It is reaped by that, and its result is still there.
        while names().len() > 2 {
            std::thread::yield_now();
        }
        let mut ended = ended;
        assert_eq!(ended.join().unwrap(), 7);
        two.kill().unwrap();
        two.wait().unwrap();
        let left = active_children();
        assert_eq!((left.len(), left[0].id()), (1, one.id()));
        left[0].handle().send_signal(Signal::KILL).unwrap();
        left[0].handle().wait().unwrap();
        drop((left, one));
        assert!(names().is_empty());
        let pool = ProcessPool::new(1).unwrap();
        assert_eq!(pool.apply(|()| 1, ()).unwrap(), 1);
        assert_eq!(names(), ["Worker-1"]);
        drop(pool);
        assert!(names().is_empty());
    });
}

/// A value that cannot be sent, on either side, before anything was started or when all is over.
#[test]
fn what_cannot_be_sent_is_named() {
    alone!({
        #[derive(Debug, Deserialize)]
        struct Never;
        impl Serialize for Never {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("never"))
            }
        }
        let error = Process::start(|_: Never| (), Never).unwrap_err();
        assert!(error.is_invalid_input() && error.to_string().contains("Never cannot be sent"), "{error}");
        let error = Process::start(|()| Never, ()).unwrap().join().unwrap_err();
        assert!(error.is_invalid_input() && error.to_string().contains("Never cannot be sent"), "{error}");
        let error = Process::start(|()| Descriptor::from(std::io::pipe().unwrap().0), ()).unwrap().join().unwrap_err();
        assert!(error.is_invalid_input() && error.to_string().contains("give it a Connection"), "{error}");
    });
}

#[test]
fn descriptors_are_arguments() {
    alone!({
        let (mut reader, writer) = std::io::pipe().unwrap();
        let say = |(to, what): (Descriptor, String)| {
            std::io::PipeWriter::from(to.into_owned_fd()).write_all(what.as_bytes()).unwrap();
        };
        let mut process = Process::start(say, (Descriptor::from(writer), "said".to_owned())).unwrap();
        process.join().unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "said");
    });
}

/// Nothing of ours but what it was given: no descriptor, no variable, no signal that is blocked.
#[test]
fn the_process_finds_a_clean_place() {
    alone!({
        let (_reader, _writer) = std::io::pipe().unwrap();
        let look = |()| {
            let mut numbers: Vec<i32> = std::fs::read_dir("/proc/self/fd")
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().parse().unwrap())
                .collect();
            numbers.sort_unstable();
            let variables: Vec<String> =
                std::env::vars().map(|(key, _)| key).filter(|key| key.starts_with("PROCESSION_CALL")).collect();
            let mut input = Vec::new();
            std::io::stdin().read_to_end(&mut input).unwrap();
            (numbers, variables, input.len(), std::env::args().count())
        };
        let (numbers, variables, input, arguments) = Process::start(look, ()).unwrap().join().unwrap();
        // The streams, the call twice (once for the hook of panics), and the directory that is read.
        assert_eq!(numbers.len(), 6, "{numbers:?}");
        assert_eq!((variables.len(), input, arguments), (0, 0, 1));
    });
}

#[test]
fn processes_start_processes() {
    alone!({
        fn depth(levels: u32) -> Vec<String> {
            let mut names = match levels {
                0 => Vec::new(),
                _ => Process::start(depth, levels - 1).unwrap().join().unwrap(),
            };
            names.push(current().map_or_else(String::new, |process| process.name().to_owned()));
            names
        }
        let mut process = Process::builder(depth, 2).name("A").start().unwrap();
        assert_eq!(process.join().unwrap(), ["A:1:1", "A:1", "A"]);
    });
}

/// The daemon ends with its parent, also if that one is killed.
#[test]
fn a_daemon_does_not_survive_its_parent() {
    alone!({
        let scratch = Scratch::new();
        let parent = |place: String| -> () {
            let daemon = Process::builder(wait_for_ever, ()).daemon().start().unwrap();
            std::fs::write(format!("{place}.new"), daemon.id().to_string()).unwrap();
            std::fs::rename(format!("{place}.new"), place).unwrap();
            loop {
                std::thread::park();
            }
        };
        let place = scratch.join("daemon");
        let mut process = Process::start(parent, place.to_string_lossy().into_owned()).unwrap();
        while !place.exists() {
            assert!(process.is_alive());
            std::thread::yield_now();
        }
        let daemon: i32 = std::fs::read_to_string(&place).unwrap().parse().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        // SAFETY: integer arguments; signal 0 only asks. A zombie of somebody else counts as there until it is reaped.
        let is_there = || unsafe { libc::kill(daemon, 0) } == 0 && !is_zombie(daemon);
        while is_there() {
            std::thread::yield_now();
        }
    });
}

fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

/// A panic in another thread of the process is that thread's matter.
#[test]
fn only_the_functions_own_panic_counts() {
    alone!({
        let function = |()| std::thread::spawn(|| panic!("elsewhere")).join().is_err();
        let builder = Process::builder(function, ()).configure(|command| command.stderr(Stdio::null()));
        assert!(builder.start().unwrap().join().unwrap());
        // And one that is caught.
        let function = |()| std::panic::catch_unwind(|| panic!("here")).is_err();
        let builder = Process::builder(function, ()).configure(|command| command.stderr(Stdio::null()));
        assert!(builder.start().unwrap().join().unwrap());
    });
}

/// Programs that never come to the function: they end, they hang, they are other ones.
#[test]
fn a_process_that_does_not_arrive_is_told() {
    alone!({
        let with = |program: &'static str| {
            let quiet = move |command: Command| command.executable(program).arg("1000").stderr(Stdio::null());
            Process::builder(|()| (), ()).configure(quiet)
        };
        let error = with("false").start().unwrap().join().unwrap_err();
        assert!(error.to_string().ends_with("before the process had come to its function"), "{error}");
        assert_eq!(error.output().status(), ExitStatus::from_code(1));
        let mut process = with("sleep").arrival_timeout(Duration::from_millis(50)).start().unwrap();
        let error = process.join_timeout(Duration::from_millis(1)).unwrap_err();
        assert!(error.is_timeout() && process.is_alive());
        let error = process.join().unwrap_err();
        assert!(error.to_string().contains("had not come to its function after 50ms, and was killed"), "{error}");
        assert!(!process.is_alive());
    });
}

/// Whether it ends or is given up may be a matter of a microsecond; one of both is said.
#[test]
fn an_end_at_the_last_moment_is_told_as_one() {
    alone!({
        for round in 0..300 {
            let timeout = Duration::from_micros(round * 10);
            let builder = Process::builder(|()| (), ()).configure(|command| command.executable("true"));
            let error = builder.arrival_timeout(timeout).start().unwrap().join().unwrap_err().to_string();
            let ended = error.ends_with("exit status: 0 before the process had come to its function");
            assert!(ended || error.ends_with(&format!("after {timeout:?}, and was killed")), "{error}");
        }
    });
}

/// Whoever runs `main` in a process that was meant for a function gets no further process: that would be one without end.
#[test]
fn a_process_that_has_missed_its_function_starts_no_others() {
    alone!({
        // SAFETY: this process has one more thread, which waits.
        unsafe { std::env::set_var("PROCESSION_CALL", "7") };
        let error = Process::start(|()| (), ()).unwrap_err();
        // SAFETY: as above.
        unsafe { std::env::remove_var("PROCESSION_CALL") };
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("runs the program's main instead"), "{error}");
    });
}
