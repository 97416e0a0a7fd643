//! Stopping: the tree and nobody else, in bounded time, and what was said meanwhile is kept. Pipes that others keep open.

use crate::support::{alone, children, fixture, is_root, is_running, script, state_of, wait_for};
use crate::talk::{Leftover, line, noise, pattern, pid_in, pids_in};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setresuid};
use procession::{
    Captured, Cause, Child, Command, Completeness, ErrorKind, Input, Output, Overflow, Scope, Signal, SpawnRoute,
    Stdio, Stop,
};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(100);
/// Far more than any stop may take, and far less than the lives of those who are stopped.
const BOUND: Duration = Duration::from_secs(15);

/// Marks a command and all its descendants, to find them again.
const MARK: &str = "PROCESSION_TEST_MARK";

fn marked(command: Command) -> Command {
    command.env(MARK, mark())
}

fn mark() -> String {
    format!("mark-{}", std::process::id())
}

/// The living processes that carry the mark of this test.
fn alive() -> Vec<u32> {
    let wanted = format!("{MARK}={}", mark());
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|all| all.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes()))
        })
        .filter(|&pid| is_running(pid))
        .collect()
}

/// Ends all who carry the mark, also when the test fails.
struct Sweep;

impl Drop for Sweep {
    fn drop(&mut self) {
        drop(Leftover(alive()));
    }
}

#[track_caller]
fn assert_all_gone() {
    wait_for("the end of them all", || alive().is_empty());
}

fn ready(child: &mut Child) {
    assert_eq!(line(child.stdout.as_mut().unwrap()), "ready");
}

fn holders(stream: &Captured) -> Vec<u32> {
    match stream.completeness() {
        Completeness::CutOff { holders } => holders.iter().map(|entry| entry.pid).collect(),
        other => panic!("not cut off: {other:?}"),
    }
}

// ---- a timeout bounds the call (A7)

#[test]
fn a_timeout_bounds_the_call_whatever_runs() {
    alone!({
        let _sweep = Sweep;
        let lines = [
            "sleep 30; true",
            "sleep 30 | cat",
            "sleep 30 & wait",
            "sleep 30 & sleep 30 & echo $$",
            "trap '' TERM; sleep 30; sleep 30",
            "(sleep 30; sleep 30) & (sleep 30 | cat) & wait",
            "exec sleep 30 >/dev/null 2>&1",
        ];
        for line in lines {
            let command = marked(Command::shell(line)).drain(Duration::from_secs(60));
            let started = Instant::now();
            let result = command.timeout(SHORT).run();
            let elapsed = started.elapsed();
            assert!(elapsed >= SHORT && elapsed < BOUND, "{line}: {elapsed:?}");
            if line.contains("echo") {
                // It ended by itself, and what holds the pipe is not part of it any more.
                let output = result.unwrap();
                assert!(output.success() && !output.is_complete());
                drop(Sweep);
            } else {
                let error = result.unwrap_err();
                assert!(error.is_timeout(), "{error}");
                assert_eq!((error.output().cause(), error.output().survivors()), (Cause::Timeout, &[][..]));
                assert!(error.output().status().is_known());
            }
            assert_all_gone();
        }
    });
}

#[test]
fn a_timeout_bounds_calls_that_share_the_streams() {
    alone!({
        let _sweep = Sweep;
        let started = Instant::now();
        let command = marked(Command::shell("sleep 30; true")).timeout(SHORT);
        assert!(command.call().unwrap_err().is_timeout());
        assert!(command.check_call().unwrap_err().is_timeout());
        assert!(command.status().unwrap_err().is_timeout());
        assert!(command.check_output().unwrap_err().is_timeout());
        assert!(started.elapsed() < BOUND);
        assert_all_gone();
    });
}

#[test]
fn the_smallest_timeouts_end_the_call() {
    alone!({
        for timeout in [Duration::ZERO, Duration::from_nanos(1)] {
            let error = fixture("sleep").arg("60000").timeout(timeout).output().unwrap_err();
            assert!(error.is_timeout());
            assert!(error.output().status().signal().is_some());
        }
    });
}

#[test]
fn a_script_that_will_not_go_goes() {
    alone!({
        let _sweep = Sweep;
        let stubborn = marked(Command::new(script("ignore-term.sh")));
        let error = stubborn.timeout(Duration::from_secs(2)).run().unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(error.output().stdout(), b"ready\n");
        assert_eq!(error.output().status().signal(), Some(Signal::KILL));
        assert!(error.output().elapsed() < BOUND);
        assert_all_gone();
    });
}

// ---- asking, waiting, insisting

#[test]
fn the_default_plan_asks_and_then_insists() {
    alone!({
        let mut deaf = fixture("deaf").arg("60000").pipe_all().spawn().unwrap();
        ready(&mut deaf);
        let report = deaf.stop(&Stop::default()).unwrap();
        assert_eq!((report.status().signal(), report.steps_taken()), (Some(Signal::KILL), 2));
        assert!(report.is_stopped());
        assert_eq!(deaf.returncode(), Some(-9));

        let mut polite = fixture("polite").args(["60000", "3"]).pipe_all().spawn().unwrap();
        ready(&mut polite);
        let report = polite.stop(&Stop::term_then_kill(BOUND)).unwrap();
        assert_eq!((report.status().code(), report.steps_taken()), (Some(3), 1));
        assert_eq!(report.to_string(), "exit status: 3 after 1 step");
        assert_eq!(polite.communicate(()).unwrap().stdout(), b"terminating\n");

        let report = polite.stop(&Stop::default()).unwrap();
        assert_eq!((report.status().code(), report.steps_taken()), (Some(3), 0));
    });
}

#[test]
fn a_stopped_process_acts_on_the_signal() {
    alone!({
        let mut polite = fixture("polite").args(["60000", "3"]).pipe_all().spawn().unwrap();
        ready(&mut polite);
        polite.send_signal(Signal::STOP).unwrap();
        let pid = polite.id();
        wait_for("the stop", || state_of(pid) == Some('T'));
        let report = polite.stop(&Stop::term_then_kill(BOUND)).unwrap();
        assert_eq!((report.status().code(), report.steps_taken()), (Some(3), 1));
        // The same by a group, and by insisting.
        let mut group = fixture("polite").args(["60000", "4"]).process_group(0).pipe_all().spawn().unwrap();
        ready(&mut group);
        assert!(group.send_signal_group(Signal::STOP).unwrap());
        let pid = group.id();
        wait_for("the stop", || state_of(pid) == Some('T'));
        assert_eq!(group.stop(&Stop::term_then_kill(BOUND).scope(Scope::Group)).unwrap().status().code(), Some(4));
        let mut stopped = fixture("stopped").pipe_all().spawn().unwrap();
        ready(&mut stopped);
        assert_eq!(stopped.stop(&Stop::kill()).unwrap().status().signal(), Some(Signal::KILL));
    });
}

#[test]
fn what_is_said_during_the_stop_is_kept() {
    alone!({
        let command = fixture("term-spew").arg("3000000").stop(Stop::term_then_kill(BOUND));
        let error = command.timeout(Duration::from_secs(3)).run().unwrap_err();
        assert!(error.is_timeout());
        assert!(error.output().stdout() == [b"ready\n".to_vec(), pattern(3_000_000)].concat());
        assert!(error.output().is_complete());
        assert_eq!(error.output().status().code(), Some(0));
    });
}

#[test]
fn closing_the_input_is_a_step() {
    alone!({
        let plan = Stop::new().close_stdin(BOUND).then_kill();
        let mut cat = fixture("cat").pipe_all().spawn().unwrap();
        let report = cat.stop(&plan).unwrap();
        assert_eq!((report.status().code(), report.steps_taken()), (Some(0), 1));
        assert!(cat.stdin.is_none());
        // A handle has no pipe to close.
        let cat = fixture("cat").stdin(Stdio::piped()).spawn().unwrap();
        let plan = Stop::new().close_stdin(Duration::from_millis(20)).then_kill();
        let report = cat.handle().stop(&plan).unwrap();
        assert_eq!((report.status().signal(), report.steps_taken()), (Some(Signal::KILL), 2));
        // In the midst of a conversation.
        let plan = Stop::new().close_stdin(BOUND).then_kill();
        let cat = fixture("late-read").arg("1500").input(noise(1 << 20)).stop(plan);
        let error = cat.timeout(SHORT).run().unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(error.output().status().code(), Some(0));
        assert!(error.output().input_refused());
        assert_eq!(error.output().stdout().len() as u64, error.output().input_accepted());
    });
}

#[test]
fn plans_are_followed_step_by_step() {
    alone!({
        let plan = Stop::new().signal(Signal::HUP, SHORT).signal(Signal::USR1, SHORT).then_kill();
        let mut child = fixture("trap").args(["HUP", "USR1"]).pipe_all().spawn().unwrap();
        ready(&mut child);
        let report = child.stop(&plan).unwrap();
        assert_eq!((report.status().signal(), report.steps_taken()), (Some(Signal::KILL), 3));
        let numbers = format!("{}\n{}\n", libc::SIGHUP, libc::SIGUSR1);
        assert_eq!(child.communicate(()).unwrap().stdout_lossy(), numbers);
        // The plan ends with the process.
        let mut child = fixture("sleep").arg("60000").spawn().unwrap();
        let report = child.stop(&Stop::new().signal(Signal::INT, BOUND).signal(Signal::HUP, BOUND)).unwrap();
        assert_eq!((report.status().signal(), report.steps_taken()), (Some(Signal::INT), 1));
    });
}

#[test]
fn survivors_are_reported() {
    alone!({
        let mild = Stop::new().signal(Signal::TERM, SHORT);
        let mut deaf = fixture("deaf").arg("60000").pipe_all().kill_on_drop().spawn().unwrap();
        ready(&mut deaf);
        let report = deaf.stop(&mild).unwrap();
        assert!(!report.is_stopped() && !report.status().is_known());
        let [survivor] = report.survivors() else { panic!("{report}") };
        assert_eq!(survivor.pid, deaf.id());
        assert!(survivor.command.contains("deaf 60000"), "{survivor}");
        assert!(report.to_string().contains(&format!("still alive: {survivor}")), "{report}");
        assert_eq!(deaf.try_wait().unwrap(), None);
        let nothing = deaf.stop(&Stop::new()).unwrap();
        assert_eq!((nothing.steps_taken(), nothing.survivors().len()), (0, 1));
        drop(deaf);

        // Whoever ends is no survivor although the leader is one, and the other way round.
        let _sweep = Sweep;
        let family =
            marked(Command::shell("trap '' TERM; sh -c 'trap - TERM; exec sleep 30' & echo ready; wait; read word"));
        let mut child = family.pipe_all().kill_on_drop().spawn().unwrap();
        ready(&mut child);
        let report = child.stop(&Stop::new().signal(Signal::TERM, Duration::from_secs(1))).unwrap();
        assert!(report.survivors().iter().any(|entry| entry.pid == child.id()), "{report}");
    });
}

#[test]
fn survivors_of_a_timeout_are_in_the_error() {
    alone!({
        let mild = Stop::new().signal(Signal::TERM, SHORT);
        let started = Instant::now();
        let deaf = fixture("deaf").arg("60000").stop(mild).drain(Duration::from_secs(60));
        let error = deaf.timeout(Duration::from_secs(2)).run().unwrap_err();
        let pid = error.output().pid().unwrap();
        let _leftover = Leftover(vec![pid]);
        assert!(error.is_timeout() && started.elapsed() < BOUND);
        assert_eq!(error.output().survivors().iter().map(|entry| entry.pid).collect::<Vec<_>>(), [pid]);
        assert!(error.to_string().contains(&format!("still alive: {pid}")), "{error}");
        assert_eq!(error.output().stdout(), b"ready\n");
        assert!(!error.output().status().is_known());
        drop(Leftover(vec![pid]));
        wait_for("no zombie", || {
            Command::new("true").call().unwrap();
            children().is_empty()
        });
    });
}

// ---- how far a stop reaches (D13, D14, D15)

#[test]
fn the_whole_tree_is_stopped() {
    alone!({
        let _sweep = Sweep;
        for plan in [Stop::default(), Stop::kill()] {
            let mut child = marked(fixture("tree").args(["2", "3", "60000"])).pipe_all().spawn().unwrap();
            let members: Vec<u32> = (0..13).map(|_| pid_in(&line(child.stdout.as_mut().unwrap()))).collect();
            assert!(members.iter().all(|&pid| is_running(pid)));
            let report = child.stop(&plan).unwrap();
            assert!(report.is_stopped(), "{report}");
            assert!(!members.iter().any(|&pid| is_running(pid)));
        }
        assert_all_gone();
    });
}

#[test]
fn a_group_is_stopped_also_after_its_leader_has_ended() {
    alone!({
        let straggler = fixture("group-straggler").arg("60000").process_group(0).pipe_all();
        for scope in [Scope::Group, Scope::Tree] {
            let mut leader = straggler.spawn().unwrap();
            let pid = pid_in(&line(leader.stdout.as_mut().unwrap()));
            let own = leader.id();
            wait_for("the end of the leader", || state_of(own) == Some('Z'));
            assert!(is_running(pid));
            let report = leader.stop(&Stop::default().scope(scope)).unwrap();
            assert_eq!(report.status().code(), Some(0));
            assert!(report.survivors().is_empty() && !is_running(pid), "{scope:?}: {report}");
        }
        // Once the leader is reaped the number is nobody's, and nothing is sent to it.
        let mut leader = straggler.spawn().unwrap();
        let pid = pid_in(&line(leader.stdout.as_mut().unwrap()));
        let _leftover = Leftover(vec![pid]);
        leader.wait().unwrap();
        assert!(!leader.send_signal_group(Signal::KILL).unwrap());
        assert_eq!(leader.stop(&Stop::kill()).unwrap().status().code(), Some(0));
        assert!(is_running(pid));
    });
}

#[test]
fn a_signal_to_the_group_is_never_too_early() {
    alone!({
        for round in 0..300 {
            let command = fixture("sleep").arg("60000");
            let command = if round % 2 == 0 { command.process_group(0) } else { command.setsid() };
            let mut child = command.spawn().unwrap();
            assert!(child.send_signal_group(Signal::KILL).unwrap());
            assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL));
        }
    });
}

#[test]
fn the_group_of_the_host_is_never_hit() {
    alone!({
        let mut bystander = fixture("sleep").arg("60000").kill_on_drop().spawn().unwrap();
        let mut child = fixture("sleep").arg("60000").spawn().unwrap();
        let error = child.send_signal_group(Signal::KILL).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("leads no group"), "{error}");
        let report = child.stop(&Stop::kill().scope(Scope::Group)).unwrap();
        assert_eq!(report.status().signal(), Some(Signal::KILL));
        let own_group = nix::unistd::getpgrp().as_raw();
        // A group outside of the pid namespace has no number that could be joined.
        if own_group > 0 {
            let mut joined = fixture("sleep").arg("60000").process_group(own_group).spawn().unwrap();
            assert!(joined.send_signal_group(Signal::KILL).is_err());
            assert!(joined.stop(&Stop::kill()).unwrap().is_stopped());
        }
        assert_eq!(bystander.wait_timeout(SHORT).unwrap(), None);
    });
}

#[test]
fn the_scope_of_one_process_leaves_others_alone() {
    alone!({
        let _sweep = Sweep;
        let mut child = marked(Command::shell("sleep 30 & echo $!; wait")).pipe_all().spawn().unwrap();
        let other = pid_in(&line(child.stdout.as_mut().unwrap()));
        let report = child.stop(&Stop::kill().scope(Scope::Process)).unwrap();
        assert!(report.is_stopped());
        assert!(is_running(other));
    });
}

#[test]
fn those_who_ran_away_are_found_by_their_mark() {
    alone!({
        let _sweep = Sweep;
        for verb in ["escape", "escape-closed"] {
            let mut child = marked(fixture(verb).arg("60000")).track_descendants().pipe_all().spawn().unwrap();
            let pid = pid_in(&line(child.stdout.as_mut().unwrap()));
            assert!(child.stop(&Stop::default()).unwrap().is_stopped());
            assert!(!is_running(pid), "{verb}");
            // Also after their parent has ended.
            let mut child = marked(fixture(verb).arg("0")).track_descendants().pipe_all().spawn().unwrap();
            let pid = pid_in(&line(child.stdout.as_mut().unwrap()));
            child.wait().unwrap();
            assert!(child.stop(&Stop::kill()).unwrap().survivors().is_empty());
            assert!(!is_running(pid), "{verb}, late");
        }
        // Two runs of the same command have different marks.
        let command = marked(fixture("escape-closed").arg("60000")).track_descendants().pipe_all();
        let (mut one, mut two) = (command.spawn().unwrap(), command.spawn().unwrap());
        pid_in(&line(one.stdout.as_mut().unwrap()));
        let other = pid_in(&line(two.stdout.as_mut().unwrap()));
        assert!(one.stop(&Stop::kill()).unwrap().is_stopped());
        assert!(is_running(other) && is_running(two.id()));
        assert!(two.stop(&Stop::kill()).unwrap().is_stopped());
        assert_all_gone();
    });
}

#[test]
fn those_who_ran_away_with_a_pipe_are_found_by_it() {
    alone!({
        let _sweep = Sweep;
        let error = marked(fixture("escape").arg("60000")).timeout(Duration::from_secs(2)).run().unwrap_err();
        assert!(error.is_timeout());
        let escaped = pids_in(error.output().stdout(), "escaped");
        assert!(escaped.len() == 1 && !is_running(escaped[0]));
        assert!(error.output().is_complete());
        let mut child = marked(fixture("escape").arg("60000")).pipe_all().spawn().unwrap();
        let escaped = pid_in(&line(child.stdout.as_mut().unwrap()));
        assert!(child.stop(&Stop::default()).unwrap().is_stopped());
        assert!(!is_running(escaped));
        let mut child = marked(fixture("escape").arg("60000")).pipe_all().kill_on_drop().spawn().unwrap();
        let escaped = pid_in(&line(child.stdout.as_mut().unwrap()));
        drop(child);
        assert!(!is_running(escaped));
        assert_all_gone();
    });
}

#[test]
fn those_who_are_born_during_the_stop_are_stopped() {
    alone!({
        let _sweep = Sweep;
        for round in 0..12 {
            // Not by a pipe of the child's, or they would be found by that.
            let (mut reader, writer) = procession::pipe().unwrap();
            let forks = marked(fixture("forks").args(["3000", "0"])).stdout(writer);
            let (forks, plan) = match round % 3 {
                0 => (forks, Stop::kill()),
                1 => (forks.process_group(0), Stop::default()),
                _ => (forks.track_descendants(), Stop::default()),
            };
            let mut child = forks.spawn().unwrap();
            drop(forks);
            for _ in 0..20 + round {
                assert!(is_running(pid_in(&line(&mut reader))));
            }
            let report = child.stop(&plan).unwrap();
            assert!(report.is_stopped(), "{report}");
            let left = alive();
            assert!(left.is_empty(), "round {round}: {left:?}");
        }
    });
}

// ---- nobody else (D2, F5)

/// A stranger with a number of our choice, and a child of its own whose number it tells.
fn stranger(pid: u32) -> Option<(u32, u32)> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        head: [u64; 8],
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const EXIT_SIGNAL: usize = 4;
    let (mut reader, writer) = procession::pipe().unwrap();
    let wanted = pid as i32;
    let mut args = CloneArgs { set_tid: &raw const wanted as u64, set_tid_size: 1, ..CloneArgs::default() };
    args.head[EXIT_SIGNAL] = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM this is fork(2); the struct lives during the call.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if made == 0 {
        // SAFETY: async-signal-safe, and the copy does nothing else.
        let child = unsafe { libc::fork() };
        if child > 0 {
            let _ = nix::unistd::write(&writer, &child.to_ne_bytes());
        }
        loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        }
    }
    drop(writer);
    let mut told = [0; 4];
    (made == i64::from(wanted) && reader.read_exact(&mut told).is_ok()).then(|| (pid, u32::from_ne_bytes(told)))
}

#[test]
fn a_stranger_with_the_same_number_is_left_alone() {
    alone!({
        if !is_root() {
            return;
        }
        let own_pidfd = SpawnRoute::current() != SpawnRoute::Portable;
        for stolen in [false, own_pidfd] {
            for _ in 0..20 {
                let mut child = fixture("exit").arg("5").process_group(0).track_descendants().spawn().unwrap();
                if stolen {
                    waitpid(Pid::from_raw(child.id() as i32), None).unwrap();
                } else {
                    assert_eq!(child.wait().unwrap().code(), Some(5));
                }
                // Somebody else may have been faster to get the number.
                let Some((pid, offspring)) = stranger(child.id()) else { continue };
                let leftover = Leftover(vec![pid, offspring]);
                assert!(!child.kill().unwrap() && !child.terminate().unwrap());
                assert!(!child.send_signal_group(Signal::KILL).unwrap());
                assert_eq!(child.stop(&Stop::default()).unwrap().survivors(), []);
                assert_eq!(child.handle().stop(&Stop::kill().scope(Scope::Group)).unwrap().survivors(), []);
                drop(child);
                assert!(is_running(pid) && is_running(offspring), "a stranger was hit");
                drop(leftover);
                waitpid(Pid::from_raw(pid as i32), None).unwrap();
                break;
            }
        }
    });
}

#[test]
fn a_copy_of_the_host_is_no_member_although_it_holds_our_ends() {
    alone!({
        let limited = fixture("spew").arg("100000").capture_limit(10, Overflow::Fail);
        let mut child = limited.pipe_all().spawn().unwrap();
        let (mut reader, writer) = procession::pipe().unwrap();
        // SAFETY: no other thread of this test does anything, and the copies only wait.
        let copy = match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                // SAFETY: as above.
                if let Ok(ForkResult::Parent { child }) = unsafe { fork() } {
                    let _ = nix::unistd::write(&writer, &child.as_raw().to_ne_bytes());
                }
                loop {
                    // SAFETY: no arguments.
                    unsafe { libc::pause() };
                }
            }
            ForkResult::Parent { child } => child,
        };
        let mut told = [0; 4];
        reader.read_exact(&mut told).unwrap();
        let copies = [copy.as_raw() as u32, u32::from_ne_bytes(told)];
        let leftover = Leftover(copies.to_vec());
        let error = child.communicate(()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overflow, "{error}");
        assert!(child.stop(&Stop::kill()).unwrap().is_stopped());
        assert!(copies.iter().all(|&pid| is_running(pid)), "a stop of a child has hit a copy of the host");
        drop(leftover);
        waitpid(copy, None).unwrap();
    });
}

#[test]
fn a_stop_that_is_not_allowed_is_bounded() {
    alone!({
        if !is_root() {
            return;
        }
        let (root, nobody) = (Uid::from_raw(0), Uid::from_raw(65_534));
        let command = fixture("deaf").arg("60000").user(0).group(Gid::current().as_raw()).keep_groups();
        setresuid(nobody, nobody, root).unwrap();
        let started = Instant::now();
        let error = command.timeout(Duration::from_secs(1)).run().unwrap_err();
        setresuid(root, root, root).unwrap();
        // SAFETY: an integer argument.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        if error.failed_step().is_some_and(|step| step == "exec" || step.contains("id")) {
            // The helper program is out of reach for others.
            return;
        }
        let pid = error.output().pid().unwrap_or_else(|| panic!("{error}"));
        drop(Leftover(vec![pid]));
        assert!(matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Timeout), "{error}");
        assert!(started.elapsed() < BOUND);
        assert_eq!(error.output().stdout(), b"ready\n");
        wait_for("no zombie", || {
            Command::new("true").call().unwrap();
            children().is_empty()
        });
    });
}

// ---- drop and unwinding (F6, S08, S23)

#[test]
fn drop_kills_if_it_was_told_to() {
    alone!({
        let _sweep = Sweep;
        let command = marked(fixture("tree").args(["1", "2", "60000"])).pipe_all().kill_on_drop();
        let mut child = command.spawn().unwrap();
        let members: Vec<u32> = (0..3).map(|_| pid_in(&line(child.stdout.as_mut().unwrap()))).collect();
        drop(child);
        assert!(!members.iter().any(|&pid| is_running(pid)));
        assert!(children().is_empty());
        // By its plan.
        let plan = Stop::new().signal(Signal::HUP, BOUND);
        let child = fixture("sleep").arg("60000").kill_on_drop().stop(plan).spawn().unwrap();
        let handle = child.handle().clone();
        drop(child);
        assert_eq!(handle.status().and_then(|status| status.signal()), Some(Signal::HUP));
        // What has ended is not stopped again.
        let mut child = fixture("exit").arg("3").kill_on_drop().spawn().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
    });
}

#[test]
fn unwinding_past_fifty_live_children_stops_them_all() {
    alone!({
        let _sweep = Sweep;
        let started = Instant::now();
        let unwound = catch_unwind(|| {
            let command = marked(fixture("sleep").arg("60000")).pipe_all().kill_on_drop();
            let _children: Vec<Child> = (0..50).map(|_| command.spawn().unwrap()).collect();
            panic!("past them all");
        });
        assert!(unwound.is_err());
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert!(children().is_empty() && alive().is_empty());
    });
}

#[test]
fn unwinding_out_of_a_verb_leaves_nothing_behind() {
    struct Panics(u32);
    impl Read for Panics {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(self.0 > 0, "the reader panics");
            self.0 -= 1;
            Ok(buffer.len())
        }
    }
    alone!({
        let _sweep = Sweep;
        for pieces in [0, 1, 10] {
            let command = marked(fixture("tree").args(["1", "1", "60000"])).input(Input::reader(Panics(pieces)));
            let unwound = catch_unwind(AssertUnwindSafe(|| command.timeout(Duration::from_secs(1)).output()));
            if unwound.is_err() {
                assert!(children().is_empty() && alive().is_empty());
            } else {
                assert!(pieces > 0, "nobody reads, so not all pieces are asked for");
            }
        }
        let swallow = marked(fixture("swallow").arg("100000000")).input(Input::reader(Panics(10)));
        assert!(catch_unwind(AssertUnwindSafe(|| swallow.output())).is_err());
        assert!(children().is_empty() && alive().is_empty());
    });
}

// ---- pipes that others keep open (A6)

#[test]
fn a_grandchild_with_the_pipe_does_not_hold_up_the_call() {
    alone!({
        let started = Instant::now();
        let output = fixture("grandchild").arg("60000").drain(Duration::from_millis(50)).output().unwrap();
        let elapsed = started.elapsed();
        let pid = pids_in(output.stdout(), "grandchild")[0];
        let _leftover = Leftover(vec![pid]);
        assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
        assert!(output.success() && !output.is_complete());
        assert_eq!(output.cause(), Cause::Ended);
        assert_eq!(holders(output.captured_stdout()), [pid]);
        assert_eq!(holders(output.captured_stderr()), [pid]);
        let text = output.to_string();
        assert!(text.contains("cut off") && text.contains(&pid.to_string()) && text.contains("sleeper"), "{text}");
        assert!(is_running(pid), "nobody asked to kill it");
        let failed = fixture("grandchild-exit").args(["3", "60000"]).drain(Duration::ZERO).check_output();
        let failed = failed.unwrap_err();
        let pid = pids_in(failed.output().stdout(), "grandchild")[0];
        let _leftover = Leftover(vec![pid]);
        assert_eq!((failed.kind(), failed.output().returncode()), (ErrorKind::Status, 3));
        assert_eq!(holders(failed.output().captured_stdout()), [pid]);
    });
}

#[test]
fn a_service_starter_returns_with_the_pid_of_its_service() {
    alone!({
        let output = Command::new(script("background.sh")).output().unwrap();
        let pid: u32 = output.stdout_lossy().trim().parse().unwrap();
        let _leftover = Leftover(vec![pid]);
        assert!(output.success());
        assert_eq!(holders(output.captured_stdout()), [pid]);
        assert!(output.elapsed() >= Duration::from_secs(1), "the drain time is one second by default");
        assert!(output.elapsed() < BOUND && is_running(pid));
    });
}

#[test]
fn what_was_written_before_the_end_is_read_without_any_drain_time() {
    alone!({
        for round in 0..150 {
            let output = fixture("spew").arg("40000").drain(Duration::ZERO).output().unwrap();
            assert!(output.is_complete(), "round {round}: {:?}", output.captured_stdout().completeness());
            assert!(output.stdout() == pattern(40_000));
            let output = fixture("echo").arg("hi").drain(Duration::ZERO).timeout(BOUND).output().unwrap();
            assert!(output.is_complete() && output.stdout() == b"hi\n", "round {round}");
        }
    });
}

#[test]
fn a_drain_without_end_waits_for_the_end_of_the_file() {
    alone!({
        let command = fixture("grandchild").args(["1500", "late"]).drain(Duration::MAX);
        let output = command.clone().output().unwrap();
        assert!(output.stdout().ends_with(b"late\n") && output.is_complete());
        let output = command.drain(BOUND).output().unwrap();
        assert!(output.stdout().ends_with(b"late\n") && output.is_complete());
    });
}

#[test]
fn a_timeout_ends_a_drain_without_end() {
    alone!({
        let command = fixture("grandchild").arg("60000").drain(Duration::MAX).timeout(Duration::from_secs(1));
        let started = Instant::now();
        let output: Output = command.run().unwrap_or_else(|error| error.into_output());
        let _leftover = Leftover(pids_in(output.stdout(), "grandchild"));
        assert!(started.elapsed() >= Duration::from_secs(1) && started.elapsed() < BOUND);
        assert!(output.status().success());
        assert_eq!(holders(output.captured_stdout()), pids_in(output.stdout(), "grandchild"));
    });
}

#[test]
fn a_name_of_a_survivor_cannot_drive_the_terminal() {
    alone!({
        let name = std::ffi::OsStr::from_bytes(b"\x1b[2Jname");
        let mut child = fixture("deaf").arg0(name).arg("60000").pipe_all().kill_on_drop().spawn().unwrap();
        ready(&mut child);
        let report = child.stop(&Stop::new().signal(Signal::TERM, SHORT)).unwrap();
        assert_eq!(report.survivors().len(), 1);
        assert!(!report.to_string().contains('\x1b'), "{report:?}");
    });
}
