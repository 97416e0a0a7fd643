//! Waiting: one end, seen by everybody, told truly, at no cost; no zombies; nothing of the host's is touched.

use crate::support::{alone, children, fixture, is_root, is_running, script, state_of, wait_for};
use crate::talk::{cpu_time, keeps_stolen_status, line};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal as Number, sigaction};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, fork, setresuid};
use procession::{
    Child, Command, Deadline, Error, ErrorKind, ExitStatus, Input, Output, PipeReader, PipeWriter, Plan, ProcessHandle,
    Signal, SpawnRoute, Stdio, Stop, StopReport, Text, pipe,
};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(50);

/// A child that lives until its input ends or it is stopped; it says nothing.
fn idle() -> Child {
    fixture("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Waits until it is a zombie.
fn wait_for_end(child: &Child) {
    let pid = child.id();
    wait_for("the end", || state_of(pid) == Some('Z'));
}

// ---- drop (D1, D26)

#[test]
fn dropped_children_leave_no_zombies() {
    alone!({
        let finished: Vec<Child> = (0..50).map(|_| fixture("exit").arg("3").spawn().unwrap()).collect();
        finished.iter().for_each(wait_for_end);
        drop(finished);
        assert!(children().is_empty(), "{:?}", children());
        let running: Vec<Child> = (0..50).map(|_| fixture("sleep").arg("300").spawn().unwrap()).collect();
        let started = Instant::now();
        drop(running);
        assert!(started.elapsed() < Duration::from_secs(2), "drop waits");
        // The next command reaps those that have ended.
        wait_for("no zombies", || {
            Command::new("true").call().unwrap();
            children().is_empty()
        });
    });
}

#[test]
fn a_dropped_child_goes_on_and_drop_does_not_wait() {
    alone!({
        let (mut reader, writer) = pipe().unwrap();
        let child = fixture("say-sleep").args(["A", "1500", "B\n"]).stdout(writer).spawn().unwrap();
        let (pid, started) = (child.id(), Instant::now());
        drop(child);
        assert!(started.elapsed() < Duration::from_millis(1000), "{:?}", started.elapsed());
        assert!(is_running(pid));
        assert_eq!(line(&mut reader), "AB");
        wait_for("the end", || state_of(pid) == Some('Z'));
        // Another drop reaps it.
        let (idle, ended) = (idle(), fixture("exit").arg("0").spawn().unwrap());
        let other = idle.id();
        wait_for_end(&ended);
        drop(idle);
        // Closing its input has ended it. If that was quick it has been reaped by its own drop.
        wait_for("the end", || matches!(state_of(other), None | Some('Z')));
        drop(ended);
        assert!(children().is_empty(), "{:?}", children());
    });
}

#[test]
fn the_last_handle_reaps() {
    alone!({
        let child = idle();
        let handle = child.handle().clone();
        let pid = child.id();
        drop(child);
        wait_for("the end", || state_of(pid) == Some('Z'));
        assert_eq!(handle.wait().unwrap().code(), Some(0));
        let child = fixture("exit").arg("0").spawn().unwrap();
        let (first, second) = (child.handle().clone(), child.handle().clone());
        wait_for_end(&child);
        drop((child, first));
        assert_eq!(children().len(), 1);
        drop(second);
        assert!(children().is_empty());
    });
}

#[test]
fn unwinding_past_a_hundred_live_children_is_quick() {
    alone!({
        let started = Instant::now();
        let unwound = catch_unwind(|| {
            let _children: Vec<Child> = (0..100).map(|_| idle()).collect();
            panic!("past them all");
        });
        assert!(unwound.is_err());
        assert!(started.elapsed() < Duration::from_secs(20));
        wait_for("no zombies", || {
            Command::new("true").call().unwrap();
            children().is_empty()
        });
    });
}

// ---- many waiters (D2, D3, F8)

#[test]
fn all_waiters_see_the_same_end() {
    alone!({
        for round in 0..100 {
            let child = fixture("sleep").arg("60000").spawn().unwrap();
            let ends = std::thread::scope(|scope| {
                let handle = child.handle();
                let poller = scope.spawn(|| {
                    loop {
                        if let Some(code) = handle.poll().unwrap() {
                            return code;
                        }
                        std::thread::yield_now();
                    }
                });
                // Half of them hold a handle of their own.
                let waiters: Vec<_> = (0..8)
                    .map(|i| {
                        let own = (i % 2 == 0).then(|| handle.clone());
                        scope.spawn(move || own.as_ref().unwrap_or(handle).wait().unwrap().returncode())
                    })
                    .collect();
                if round % 2 == 0 {
                    std::thread::yield_now();
                }
                assert!(handle.kill().unwrap());
                let mut ends: Vec<i32> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
                ends.push(poller.join().unwrap());
                ends
            });
            assert_eq!(ends, [-9; 9]);
        }
    });
}

#[test]
fn a_wait_blocks_neither_looking_nor_signals() {
    fn look_and_stop(handle: &ProcessHandle, waiting: &AtomicBool) {
        wait_for("the waiter", || waiting.load(Ordering::SeqCst));
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(handle.try_wait().unwrap(), None);
            assert_eq!(handle.returncode(), None);
            assert_eq!(handle.wait_timeout(Duration::ZERO).unwrap(), None);
        }
        assert!(handle.terminate().unwrap());
    }
    alone!({
        let sleep = fixture("sleep").arg("10000");
        // One handle, shared by reference: nobody can tell from the count that there are several users.
        let child = sleep.spawn().unwrap();
        let waiting = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                waiting.store(true, Ordering::SeqCst);
                child.handle().wait().unwrap()
            });
            look_and_stop(child.handle(), &waiting);
            assert_eq!(waiter.join().unwrap().signal(), Some(Signal::TERM));
        });
        // A child that is waited for by its owner, and a handle of somebody else.
        for talks in [false, true] {
            let mut child = sleep.clone().stdin(Stdio::piped()).spawn().unwrap();
            let handle = child.handle().clone();
            let waiting = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    waiting.store(true, Ordering::SeqCst);
                    if talks { child.communicate(()).unwrap().status() } else { child.wait().unwrap() }
                });
                look_and_stop(&handle, &waiting);
                assert_eq!(waiter.join().unwrap().signal(), Some(Signal::TERM));
            });
        }
    });
}

#[test]
fn five_hundred_children_at_one_barrier_are_all_seen() {
    alone!({
        let (reader, writer) = pipe().unwrap();
        let command = fixture("swallow").arg("1").stdin(reader).stdout(Stdio::null());
        let mut children: Vec<Child> = (0..500).map(|_| command.spawn().unwrap()).collect();
        drop(writer);
        for child in &mut children {
            // Nothing came, so they say 1.
            let end = child.wait_timeout(Duration::from_secs(30)).unwrap();
            assert_eq!(end.and_then(ExitStatus::code), Some(1));
        }
    });
}

fn is_send_and_sync<T: Send + Sync>() {}

#[test]
fn everything_may_be_shared_between_threads() {
    is_send_and_sync::<Command>();
    is_send_and_sync::<Plan>();
    is_send_and_sync::<Child>();
    is_send_and_sync::<ProcessHandle>();
    is_send_and_sync::<Output>();
    is_send_and_sync::<Error>();
    is_send_and_sync::<Input>();
    is_send_and_sync::<Stdio>();
    is_send_and_sync::<Stop>();
    is_send_and_sync::<StopReport>();
    is_send_and_sync::<PipeReader>();
    is_send_and_sync::<PipeWriter>();
    is_send_and_sync::<ExitStatus>();
    is_send_and_sync::<Signal>();
    is_send_and_sync::<Deadline>();
    is_send_and_sync::<Text>();
}

#[test]
fn a_command_can_be_used_again_and_by_many() {
    alone!({
        let command = fixture("cat").pipe_all();
        let (mut one, mut two) = (command.spawn().unwrap(), command.spawn().unwrap());
        assert_ne!(one.id(), two.id());
        assert_eq!(one.communicate("one").unwrap().stdout(), b"one");
        assert_eq!(two.communicate("two").unwrap().stdout(), b"two");
        let command = fixture("upper").input("again");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| assert_eq!(command.check_output().unwrap(), b"AGAIN")));
            }
        });
    });
}

// ---- somebody else reaps (D4, D5, D7)

/// What is told of a status that was stolen: the truth where the kernel keeps it, else that nobody knows.
#[track_caller]
fn assert_stolen(status: ExitStatus, code: i32) {
    if keeps_stolen_status() {
        assert_eq!(status.code(), Some(code));
    } else {
        assert_eq!(status, ExitStatus::UNKNOWN);
        assert_eq!(status.returncode(), ExitStatus::UNKNOWN_RETURNCODE);
        assert!(!status.success());
    }
}

#[test]
fn a_status_that_a_stranger_took_is_told_truly_or_not_at_all() {
    alone!({
        // By number, before we wait.
        let mut child = fixture("exit").arg("42").spawn().unwrap();
        waitpid(Pid::from_raw(child.id() as i32), None).unwrap();
        assert_stolen(child.wait().unwrap(), 42);
        assert_eq!(child.usage(), None);
        assert!(!child.kill().unwrap());
        // Any child, while threads wait.
        let child = fixture("swallow").arg("1").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let handle = child.handle().clone();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| handle.wait().unwrap());
            drop(child);
            let _ = waitpid(None, None);
            let status = waiter.join().unwrap();
            assert!(status.code() == Some(1) || (!keeps_stolen_status() && !status.is_known()), "{status}");
        });
        // Before we look, wait with a timeout, stop, or talk.
        let steal = |code: &str| {
            let child = fixture("exit").arg(code).pipe_all().spawn().unwrap();
            waitpid(Pid::from_raw(child.id() as i32), None).unwrap();
            child
        };
        assert_stolen(steal("1").try_wait().unwrap().unwrap(), 1);
        assert_stolen(steal("2").wait_timeout(Duration::MAX).unwrap().unwrap(), 2);
        assert_stolen(steal("3").stop(&Stop::kill()).unwrap().status(), 3);
        let output = steal("4").communicate(()).unwrap();
        assert_stolen(output.status(), 4);
        assert_eq!(output.usage(), None);
        drop(steal("5"));
    });
}

extern "C" fn reap_all(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
}

extern "C" fn only_count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

/// Puts an action for SIGCHLD in place for the length of the body, and checks that it is still there at the end.
fn with_sigchld(handler: SigHandler, flags: SaFlags, body: impl FnOnce()) {
    let action = SigAction::new(handler, flags, SigSet::empty());
    // SAFETY: the handlers of these tests use an atomic and waitpid(2).
    let before = unsafe { sigaction(Number::SIGCHLD, &action) }.unwrap();
    body();
    // SAFETY: what was there before.
    let found = unsafe { sigaction(Number::SIGCHLD, &before) }.unwrap();
    assert_eq!(format!("{:?}", found.handler()), format!("{handler:?}"), "the host's handler is gone");
}

#[test]
fn a_host_whose_handler_reaps_everything_loses_nothing() {
    alone!({
        with_sigchld(SigHandler::Handler(reap_all), SaFlags::SA_RESTART, || {
            for code in 1..20 {
                let output = fixture("exit").arg(code.to_string()).output().unwrap();
                let known = output.status().code();
                assert!(known == Some(code) || (!keeps_stolen_status() && known.is_none()), "{output:?}");
            }
            let missing = Command::new("no-such-program").output().unwrap_err();
            assert!(missing.is_not_found());
        });
        assert!(HANDLED.load(Ordering::SeqCst) > 0);
    });
}

#[test]
fn a_host_that_ignores_sigchld_still_sees_each_end_in_time() {
    alone!({
        let ignored = [(SigHandler::SigIgn, SaFlags::empty()), (SigHandler::SigDfl, SaFlags::SA_NOCLDWAIT)];
        for (handler, flags) in ignored {
            with_sigchld(handler, flags, || {
                let mut long = fixture("sleep").arg("60000").spawn().unwrap();
                let mut short = fixture("swallow").arg("9").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
                let started = Instant::now();
                assert_stolen(short.wait().unwrap(), 1);
                assert!(started.elapsed() < Duration::from_secs(10));
                assert_eq!(long.wait_timeout(SHORT).unwrap(), None);
                assert_stolen(fixture("exit").arg("6").output().unwrap().status(), 6);
                assert!(Command::new("no-such-program").output().unwrap_err().is_not_found());
                let report = long.stop(&Stop::kill()).unwrap();
                assert!(report.survivors().is_empty(), "{report}");
                assert!(fixture("sleep").arg("60000").timeout(SHORT).run().unwrap_err().is_timeout());
            });
        }
    });
}

#[test]
fn the_host_keeps_its_handler_and_its_children() {
    alone!({
        with_sigchld(SigHandler::Handler(only_count), SaFlags::SA_RESTART, || {
            let before = HANDLED.load(Ordering::SeqCst);
            fixture("exit").arg("0").output().unwrap();
            wait_for("the host's handler", || HANDLED.load(Ordering::SeqCst) > before);
            let mut foreign = std::process::Command::new("sh").args(["-c", "exit 12"]).spawn().unwrap();
            let pid = foreign.id();
            wait_for("the end", || state_of(pid) == Some('Z'));
            drop(fixture("exit").arg("0").spawn().unwrap());
            for _ in 0..20 {
                fixture("exit").arg("0").call().unwrap();
                fixture("sleep").arg("60000").timeout(Duration::from_millis(1)).call().unwrap_err();
            }
            assert_eq!(foreign.wait().unwrap().code(), Some(12), "somebody took the host's child");
        });
        wait_for("no zombies", || {
            Command::new("true").call().unwrap();
            children().is_empty()
        });
    });
}

// ---- time (D8)

#[test]
fn a_wait_ends_soon_after_the_child() {
    alone!({
        let mut delays: Vec<Duration> = (0..21)
            .map(|round| {
                let mut child = idle();
                let (handle, started) = (child.handle().clone(), Instant::now());
                let waiter = std::thread::spawn(move || {
                    if round % 2 == 0 {
                        handle.wait().unwrap()
                    } else {
                        handle.wait_timeout(Duration::MAX).unwrap().unwrap()
                    }
                });
                std::thread::sleep(Duration::from_millis(20));
                let slept = started.elapsed();
                child.stdin = None;
                assert!(waiter.join().unwrap().success());
                started.elapsed() - slept
            })
            .collect();
        delays.sort();
        assert!(delays[10] < Duration::from_millis(40), "{delays:?}");
    });
}

#[test]
fn timeouts_of_any_length_are_held() {
    alone!({
        let mut child = fixture("sleep").arg("60000").spawn().unwrap();
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(1500), SHORT] {
            let started = Instant::now();
            assert_eq!(child.wait_timeout(timeout).unwrap(), None);
            assert!(started.elapsed() >= timeout && started.elapsed() < timeout + Duration::from_secs(5));
            assert_eq!(child.handle().wait_deadline(Instant::now() + timeout).unwrap(), None);
        }
        assert_eq!(child.wait_deadline(Instant::now() - SHORT).unwrap(), None);
        child.kill().unwrap();
        for timeout in [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_nanos(1 << 63)] {
            assert_eq!(child.wait_timeout(timeout).unwrap().unwrap().signal(), Some(Signal::KILL));
        }
        for timeout in [Duration::MAX, Duration::from_secs(u64::MAX)] {
            let mut child = fixture("exit").arg("4").spawn().unwrap();
            assert_eq!(child.wait_timeout(timeout).unwrap().unwrap().code(), Some(4));
        }
        let mut child = fixture("exit").arg("4").spawn().unwrap();
        wait_for_end(&child);
        assert_eq!(child.wait_timeout(Duration::ZERO).unwrap().and_then(ExitStatus::code), Some(4));
    });
}

#[test]
fn waiting_costs_no_processor_time() {
    alone!({
        let mut child = fixture("sleep").arg("60000").kill_on_drop().spawn().unwrap();
        let before = cpu_time();
        assert_eq!(child.wait_timeout(Duration::from_millis(800)).unwrap(), None);
        assert!(cpu_time() - before < Duration::from_millis(200), "{:?}", cpu_time() - before);
    });
}

// ---- what is an end (D9, D11, D22, D24)

#[test]
fn a_stop_is_no_end() {
    alone!({
        let mut child = fixture("stopped").pipe_all().spawn().unwrap();
        let pid = child.id();
        wait_for("the stop", || state_of(pid) == Some('T'));
        assert_eq!(child.wait_timeout(SHORT).unwrap(), None);
        assert_eq!((child.try_wait().unwrap(), child.poll().unwrap()), (None, None));
        assert!(child.send_signal(Signal::CONT).unwrap());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_signal_after_the_end_reaches_nobody_and_is_no_error() {
    alone!({
        let mut child = fixture("exit").arg("5").process_group(0).spawn().unwrap();
        wait_for_end(&child);
        assert!(!child.kill().unwrap(), "it has ended, unreaped");
        assert!(!child.terminate().unwrap());
        assert_eq!(child.wait().unwrap().code(), Some(5));
        for _ in 0..2 {
            assert!(!child.kill().unwrap() && !child.terminate().unwrap());
            assert!(!child.send_signal(Signal::USR1).unwrap());
            assert!(!child.send_signal_group(Signal::KILL).unwrap());
        }
        assert_eq!(child.wait().unwrap().code(), Some(5));
        assert_eq!(child.stop(&Stop::default()).unwrap().steps_taken(), 0);
    });
}

#[test]
fn all_exit_codes() {
    alone!({
        for code in 0..=255 {
            let status = fixture("exit").arg(code.to_string()).call().unwrap();
            assert_eq!((status.code(), status.signal(), status.returncode()), (Some(code), None, code));
            assert_eq!((status.raw(), status.success()), (Some(code << 8), code == 0));
        }
        for (asked, told) in [("256", 0), ("257", 1), ("-1", 255)] {
            assert_eq!(fixture("exit").arg(asked).call().unwrap().code(), Some(told));
        }
    });
}

#[test]
fn all_terminating_signals() {
    alone!({
        let harmless = [Signal::CHLD, Signal::URG, Signal::WINCH, Signal::CONT];
        let stopping = [Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU];
        let reserved = 32..libc::SIGRTMIN();
        for number in (1..=64).filter(|number| !reserved.contains(number)) {
            let signal = Signal::from_number(number).unwrap();
            if stopping.contains(&signal) {
                continue;
            }
            let status = fixture("raise").arg(number.to_string()).call().unwrap();
            if harmless.contains(&signal) {
                assert_eq!(status.code(), Some(0), "{signal}");
                continue;
            }
            assert_eq!((status.signal(), status.code()), (Some(signal), None));
            assert_eq!((status.returncode(), status.shell_code()), (-number, 128 + number as u8));
            assert!(!status.core_dumped() && !status.success());
            assert_eq!(status.to_string(), format!("signal: {signal}"));
        }
        assert_eq!(fixture("abort").call().unwrap().signal(), Some(Signal::ABRT));
        // A shell that tells of a signal by a code is another matter.
        assert_eq!(Command::shell("exit 137").call().unwrap().code(), Some(137));
    });
}

#[test]
fn a_leader_that_ends_before_its_threads_has_not_ended() {
    alone!({
        let mut child = fixture("leader-exit").arg("400").pipe_all().spawn().unwrap();
        assert_eq!(line(child.stdout.as_mut().unwrap()), "ready");
        let before = cpu_time();
        assert_eq!(child.try_wait().unwrap(), None);
        assert_eq!(child.wait_timeout(SHORT).unwrap(), None);
        assert!(child.communicate_timeout((), SHORT).unwrap_err().is_timeout());
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert!(cpu_time() - before < Duration::from_millis(200));
        let output = fixture("leader-exit").arg("100").output().unwrap();
        assert_eq!((output.returncode(), output.stdout()), (7, &b"ready\n"[..]));
    });
}

#[test]
fn what_it_used_is_told() {
    alone!({
        let mut child = fixture("usage").args(["200", "40"]).spawn().unwrap();
        assert_eq!(child.usage(), None);
        assert!(child.wait().unwrap().success());
        let usage = child.usage().unwrap();
        let time = usage.user + usage.system;
        assert!(time >= Duration::from_millis(200) && time < Duration::from_secs(10), "{usage:?}");
        assert!(usage.resident_max >= 40 << 20 && usage.resident_max < 400 << 20, "{usage:?}");
        let output = fixture("usage").args(["0", "1"]).output().unwrap();
        assert!(output.usage().unwrap().resident_max < 40 << 20, "{output:?}");
    });
}

#[test]
fn the_descriptor_becomes_readable_at_the_end() {
    alone!({
        let child = idle();
        let fd = child.handle().try_as_fd().unwrap();
        let look = |timeout: u16| {
            let mut entry = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut entry, timeout).unwrap() == 1
        };
        assert!(!look(10));
        child.kill().unwrap();
        assert!(look(10_000));
        assert_eq!(child.handle().wait().unwrap().signal(), Some(Signal::KILL));
        assert!(look(0));
    });
}

// ---- what may not be done (D12)

#[test]
fn a_signal_that_is_not_allowed_is_told_at_once() {
    alone!({
        if !is_root() {
            return;
        }
        let mut child = fixture("deaf").arg("60000").pipe_all().spawn().unwrap();
        assert_eq!(line(child.stdout.as_mut().unwrap()), "ready");
        let (root, nobody) = (Uid::from_raw(0), Uid::from_raw(65_534));
        setresuid(nobody, nobody, root).unwrap();
        let started = Instant::now();
        let error = child.kill().unwrap_err();
        let stopped = child.stop(&Stop::term_then_kill(SHORT));
        let waited = child.wait_timeout(SHORT).unwrap();
        let elapsed = started.elapsed();
        setresuid(root, root, root).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // SAFETY: an integer argument.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::PermissionDenied, Some(libc::EPERM)));
        assert!(error.to_string().contains("cannot send SIGKILL"), "{error}");
        assert_eq!(waited, None);
        assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
        match stopped {
            Ok(report) => assert_eq!(report.survivors().first().map(|entry| entry.pid), Some(child.id())),
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
        }
    });
}

// ---- a host that forks (F5)

#[test]
fn a_copy_of_the_host_touches_nothing() {
    alone!({
        let mut talker = fixture("pingpong").pipe_all().spawn().unwrap();
        let mut sleeper = fixture("sleep").arg("60000").kill_on_drop().spawn().unwrap();
        let mut ended = fixture("exit").arg("11").spawn().unwrap();
        drop(fixture("sleep").arg("300").spawn().unwrap());
        wait_for_end(&ended);
        // SAFETY: this test has no other thread that does anything.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let done = catch_unwind(AssertUnwindSafe(|| {
                    let looked = SpawnRoute::current() == SpawnRoute::Portable || sleeper.try_wait().unwrap().is_none();
                    drop((talker, sleeper, ended));
                    looked && Command::new("true").call().unwrap().success()
                }));
                // SAFETY: an integer argument; nothing else of the copy runs.
                unsafe { libc::_exit(i32::from(!done.unwrap_or(false))) }
            }
            ForkResult::Parent { child } => {
                let end = waitpid(child, None).unwrap();
                assert_eq!(end, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
        assert!(is_running(sleeper.id()) && is_running(talker.id()));
        talker.stdin.as_mut().unwrap().write_all(b"still there\n").unwrap();
        assert_eq!(line(talker.stdout.as_mut().unwrap()), "pong still there");
        assert_eq!(talker.communicate("yes").unwrap().stdout(), b"pong yes\n");
        assert_eq!(ended.wait().unwrap().code(), Some(11));
        assert_eq!(sleeper.wait_timeout(SHORT).unwrap(), None);
        drop(sleeper);
        wait_for("no zombies", || {
            Command::new("true").call().unwrap();
            children().is_empty()
        });
    });
}

// ---- pipe ends by hand

#[test]
fn a_wait_says_the_end_of_input() {
    alone!({
        let mut child = idle();
        assert_eq!(child.wait_timeout(Duration::from_secs(20)).unwrap().and_then(ExitStatus::code), Some(0));
        assert!(child.stdin.is_none());
        let mut greet = Command::new(script("greet.sh")).arg("pipe").env("NAME", "wait").pipe_all().spawn().unwrap();
        let mut text = String::new();
        greet.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello pipe, this is wait\n");
        assert!(greet.wait().unwrap().success());
    });
}
