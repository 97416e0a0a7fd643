//! Sets of many children, of unfriendly ones, and under unfriendly conditions: nobody waits for somebody else, nothing turns in
//! circles, and no news reach the wrong child.

use crate::support::{alone, children, fixture, is_running, state_of, wait_for};
use crate::talk::{Leftover, cpu_time, own_status, sleeps};
use nix::sys::signal::{Signal as Number, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setresuid};
use procession::{
    Cause, ChildKey, ChildSet, Command, ErrorKind, Follow, News, Overflow, Scope, Signal, SpawnRoute, Stdio, Stop,
};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Far more than anything here may take.
const BOUND: Duration = Duration::from_secs(30);

/// How many children make a crowd. The portable engine forks, and has a thread for each.
fn many(wanted: usize) -> usize {
    if SpawnRoute::current() == SpawnRoute::Portable { wanted / 8 } else { wanted }
}

/// Starts children until there are so many, or until the system allows no more.
fn start(set: &mut ChildSet, count: usize, command: impl Fn(usize) -> Command) -> Vec<ChildKey> {
    let mut keys = Vec::with_capacity(count);
    for number in 0..count {
        match set.start(&command(number)) {
            Ok(key) => keys.push(key),
            Err(error) if error.kind() == ErrorKind::ResourceExhausted && number > 100 => break,
            Err(error) => panic!("{number}: {error}"),
        }
    }
    keys
}

/// A copy of this process that has every descriptor and does nothing.
struct Copy(Pid);

impl Copy {
    fn new() -> Copy {
        // SAFETY: the copy calls nothing but pause.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Copy(child),
            ForkResult::Child => {
                // SAFETY: integer arguments: it does not outlive a test that fails.
                unsafe { libc::alarm(60) };
                loop {
                    // SAFETY: no arguments.
                    unsafe { libc::pause() };
                }
            }
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        kill(self.0, Number::SIGKILL).unwrap();
        waitpid(self.0, None).unwrap();
    }
}

/// Nothing happens in the set for a while, and it costs nothing.
#[track_caller]
fn assert_quiet(set: &mut ChildSet) {
    let (time, before) = (cpu_time(), sleeps());
    let news = set.wait_any_timeout(Duration::from_millis(300)).unwrap();
    assert!(news.is_none(), "{news:?}");
    let (time, sleeps) = (cpu_time() - time, sleeps() - before);
    assert!(time < Duration::from_millis(60) && sleeps < 10, "{time:?} and {sleeps} times awake");
}

/// A15.
#[test]
fn a_loud_child_does_not_keep_a_thousand_quiet_ones_waiting() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let loud = set.start_and_follow(&fixture("flood"), Follow::Chunks).unwrap();
        let collected = set.start(&fixture("flood").capture_limit(1, Overflow::Head)).unwrap();
        let mut quiet = HashSet::new();
        for number in 0..many(999) {
            quiet.insert(set.start_and_follow(&fixture("echo").arg(number.to_string()), Follow::Lines).unwrap());
        }
        // What takes long to start has nothing to say meanwhile, and the loud one may go on.
        let has_spoken = |child: &ChildKey| set.get(*child).is_some_and(|child| state_of(child.id()) == Some('Z'));
        wait_for("what all have said", || quiet.iter().all(has_spoken));
        let (begun, mut turns) = (Instant::now(), 0);
        let wanted = quiet.len();
        let mut lines = 0;
        while lines < wanted {
            match set.wait_any().unwrap().unwrap() {
                News::Line { child, .. } => {
                    assert!(quiet.contains(&child));
                    lines += 1;
                }
                News::Chunk { child, bytes, .. } => {
                    assert!(child == loud && bytes.len() <= 256 * 1024);
                    turns += 1;
                }
                News::Exit { child, result } => assert!(quiet.contains(&child) && result.unwrap().success()),
                _ => {}
            }
        }
        // In each round the loud one has one turn.
        assert!(turns < wanted && begun.elapsed() < BOUND, "{turns} turns in {:?}", begun.elapsed());
        assert!(set.get(loud).is_some() && set.get(collected).is_some());
    });
}

/// A18: a copy of the host keeps every description alive, so that closing alone would not end what epoll has to say about it.
#[test]
fn nothing_is_heard_of_what_was_closed_while_somebody_else_holds_it() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let plan = || Stop::new().close_stdin(Duration::from_millis(20)).then_kill().scope(Scope::Process);
        let full = |set: &mut ChildSet, command: Command| {
            let child = set.insert(command.pipe_all().stop(plan()).spawn().unwrap()).unwrap();
            set.feed(child, vec![b'x'; 1 << 20]).unwrap();
            child
        };
        let mut keys = Vec::new();
        for _ in 0..3 {
            // Each end is closed for another reason while it is waited for.
            keys.push(set.start(&fixture("echo").arg("ends by itself")).unwrap());
            keys.push(set.start(&fixture("close-in").arg("50").input(vec![0; 1 << 20])).unwrap());
            keys.push(set.start(&fixture("flood").capture_limit(100_000, Overflow::Fail).stop(plan())).unwrap());
            keys.push(
                set.start(&fixture("sleep").arg("60000").timeout(Duration::from_millis(50)).stop(plan())).unwrap(),
            );
            let timed = fixture("sleep").arg("60000").input(vec![0; 1 << 20]);
            keys.push(set.start(&timed.timeout(Duration::from_millis(50)).stop(plan())).unwrap());
            keys.push(full(&mut set, fixture("sleep").arg("60000")));
            keys.push(full(&mut set, fixture("flood").capture_limit(100_000, Overflow::Fail)));
            keys.push(set.start(&fixture("grandchild").arg("2000").drain(Duration::from_millis(50))).unwrap());
        }
        let removed = full(&mut set, fixture("sleep").arg("60000"));
        let _copy = Copy::new();
        for key in &keys {
            if set.get(*key).is_some_and(|child| child.stdin.is_some()) {
                set.stop(*key);
            }
        }
        let mut sweep = Leftover(Vec::new());
        let mut ends = HashSet::new();
        while ends.len() < keys.len() {
            let Some(News::Exit { child, result }) = set.wait_any_timeout(BOUND).unwrap() else { panic!("{ends:?}") };
            assert!(ends.insert(child));
            let output = result.unwrap_or_else(|error| error.output().clone());
            let holders = match output.captured_stdout().completeness() {
                procession::Completeness::CutOff { holders } => holders.clone(),
                _ => Vec::new(),
            };
            // The copy is one of them, and not ours to end.
            sweep.0.extend(crate::talk::pids_in(output.stdout(), "grandchild"));
            assert!(holders.len() <= 2, "{holders:?}");
        }
        let mut child = set.remove(removed).unwrap();
        assert!(child.stop(&plan()).unwrap().is_stopped());
        drop(child);
        // Others now have the numbers, and the places in the set.
        let later: Vec<ChildKey> = (0..keys.len())
            .map(|_| set.insert_and_follow(fixture("pingpong").pipe_all().spawn().unwrap(), Follow::Lines).unwrap())
            .collect();
        assert_quiet(&mut set);
        for (number, key) in later.iter().enumerate() {
            set.feed(*key, format!("{number}\n")).unwrap();
        }
        let mut answers = HashMap::new();
        while answers.len() < later.len() {
            let Some(News::Line { child, line }) = set.wait_any_timeout(BOUND).unwrap() else { panic!() };
            answers.insert(child, line.to_string());
        }
        for (number, key) in later.iter().enumerate() {
            assert_eq!(answers[key], format!("pong {number}"));
            assert!(!keys.contains(key));
        }
        assert_quiet(&mut set);
    });
}

#[test]
fn a_copy_of_the_host_that_drops_the_set_changes_nothing() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let child = set.insert_and_follow(fixture("pingpong").pipe_all().spawn().unwrap(), Follow::Lines).unwrap();
        let sleeper = set.start(&fixture("sleep").arg("60000")).unwrap();
        // SAFETY: the copy drops a value, which takes no lock that another thread may hold, and exits.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                drop(set);
                // SAFETY: an integer argument.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child: copy } => {
                waitpid(copy, None).unwrap();
                assert!(is_running(set.get(sleeper).unwrap().id()));
                set.feed(child, "still\n").unwrap();
                let Some(News::Line { line, .. }) = set.wait_any_timeout(BOUND).unwrap() else { panic!() };
                assert_eq!(line.to_string(), "pong still");
            }
        }
    });
}

#[test]
fn a_thousand_timeouts_of_their_own_on_one_thread() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let threads = own_status("Threads");
        let command = fixture("sleep").arg("60000").stdout(Stdio::null()).stderr(Stdio::null());
        let keys = start(&mut set, many(1000), |_| command.clone().stop(Stop::kill().scope(Scope::Process)));
        if SpawnRoute::current() != SpawnRoute::Portable {
            assert_eq!(own_status("Threads"), threads);
        }
        let begun = Instant::now();
        let after = |place: usize| Duration::from_micros(300_000 + (place as u64 * 7919 % 1000) * 300);
        let mut wanted = HashMap::new();
        for (place, key) in keys.iter().enumerate() {
            wanted.insert(*key, begun + after(place));
            assert!(set.set_deadline(*key, begun + after(place)));
        }
        let (mut last, mut latest) = (begun, Duration::ZERO);
        let (cpu, slept) = (cpu_time(), sleeps());
        while !wanted.is_empty() {
            match set.wait_any_timeout(BOUND).unwrap() {
                Some(News::Timeout(child)) => {
                    let (now, moment) = (Instant::now(), wanted.remove(&child).unwrap());
                    assert!(now >= moment && moment >= last, "each at its moment, in order");
                    (last, latest) = (moment, latest.max(now - moment));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(latest < Duration::from_secs(1), "{latest:?} late");
        // One timer is armed: a sleep for each moment at most, and a few for the machine.
        let (cpu, slept) = (cpu_time() - cpu, sleeps() - slept);
        assert!(slept <= keys.len() as u64 + 100 && cpu < Duration::from_secs(1), "{slept} sleeps, {cpu:?}");
        // And the same number of stops, each begun at another moment.
        keys.iter().for_each(|key| assert!(set.stop(*key)));
        assert_eq!(set.wait_all().unwrap().len(), keys.len());
    });
}

#[test]
fn a_crowd_that_ends_at_once() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let (reader, writer) = procession::pipe().unwrap();
        let input = Stdio::from(reader);
        let count = many(2000);
        let keys = start(&mut set, count, |number| {
            fixture("swallow").arg("1").env("NUMBER", number.to_string()).stdin(input.clone())
        });
        let begun = Instant::now();
        drop((input, writer));
        let mut ended = HashSet::new();
        for (key, result) in set.wait_all().unwrap() {
            let output = result.unwrap();
            assert_eq!((output.stdout(), output.status().code()), (&b"swallowed 0\n"[..], Some(1)));
            assert!(output.is_complete() && ended.insert(key));
        }
        assert_eq!(ended, keys.into_iter().collect());
        assert!(set.is_empty() && begun.elapsed() < BOUND);
    });
}

#[test]
fn a_crowd_is_stopped_together() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let plan = Stop::term_then_kill(Duration::from_millis(300));
        let keys = start(&mut set, many(400), |number| {
            let verb = if number % 8 == 0 { "deaf" } else { "sleep" };
            fixture(verb).arg("60000").stop(plan.clone())
        });
        let (begun, cpu) = (Instant::now(), cpu_time());
        set.stop_all();
        for (_, result) in set.wait_all().unwrap() {
            assert_eq!(result.unwrap().cause(), Cause::Stopped);
        }
        // Not each for itself: a look at all processes for each of them would take far longer.
        let cpu = cpu_time() - cpu;
        assert!(begun.elapsed() < BOUND && cpu < BOUND / 20, "{} in {:?}, {cpu:?}", keys.len(), begun.elapsed());
        start(&mut set, many(400), |_| fixture("sleep").arg("60000").stop(plan.clone()));
        let (begun, cpu) = (Instant::now(), cpu_time());
        drop(set);
        let cpu = cpu_time() - cpu;
        assert!(begun.elapsed() < BOUND && cpu < BOUND / 20, "{:?}, {cpu:?}", begun.elapsed());
    });
}

#[test]
fn children_that_will_not_go_that_stand_still_and_that_are_killed() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let plan = Stop::term_then_kill(Duration::from_millis(100));
        let timeout = Duration::from_secs(2);
        let mut kinds = HashMap::new();
        let mut pids = Vec::new();
        for number in 0..30 {
            let kind = ["deaf", "stopped", "killed"][number % 3];
            let command = if kind == "killed" { fixture("sleep").arg("60000") } else { fixture(kind).arg("60000") };
            let command = command.timeout(timeout).stop(plan.clone());
            let key = set.start(&command).unwrap();
            kinds.insert(key, kind);
            pids.push((kind, set.get(key).unwrap().id()));
        }
        let of =
            |wanted: &str| pids.iter().filter(|(kind, _)| *kind == wanted).map(|(_, pid)| *pid).collect::<Vec<_>>();
        wait_for("those who stand still", || of("stopped").iter().all(|pid| state_of(*pid) == Some('T')));
        drop(Leftover(of("killed")));
        let begun = Instant::now();
        for (key, result) in set.wait_all().unwrap() {
            match kinds[&key] {
                "killed" => {
                    let output = result.unwrap();
                    assert_eq!((output.cause(), output.status().signal()), (Cause::Ended, Some(Signal::KILL)));
                }
                kind => {
                    let error = result.unwrap_err();
                    let signal = if kind == "deaf" { Signal::KILL } else { Signal::TERM };
                    assert!(error.is_timeout());
                    assert_eq!(
                        (error.output().stdout(), error.output().status().signal()),
                        (&b"ready\n"[..], Some(signal))
                    );
                }
            }
        }
        assert!(begun.elapsed() < BOUND);
    });
}

#[test]
fn while_nothing_happens_nothing_is_done() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        assert_quiet(&mut set);
        for _ in 0..20 {
            set.start(&fixture("sleep").arg("60000").timeout(Duration::from_secs(600))).unwrap();
            let child = set.insert_and_follow(fixture("cat").pipe_all().spawn().unwrap(), Follow::Lines).unwrap();
            set.set_timeout(child, Duration::from_secs(600));
            set.start(&fixture("close-out").arg("60000").stderr(Stdio::null())).unwrap();
        }
        let waker = set.waker().unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        set.watch(reader).unwrap();
        set.add_timer(Duration::from_secs(600));
        // Half a line is nothing to tell, and full pipes that nobody reads are nothing to wait for.
        let half = set.insert_and_follow(fixture("cat").pipe_all().spawn().unwrap(), Follow::Lines).unwrap();
        set.feed(half, "half a line").unwrap();
        let full = set.insert(fixture("sleep").arg("60000").pipe_all().spawn().unwrap()).unwrap();
        set.feed(full, vec![0; 1 << 20]).unwrap();
        let _ = set.wait_any_timeout(Duration::from_millis(300)).unwrap();
        assert_quiet(&mut set);
        drop(waker);
    });
}

/// A debugger that does not let go: the end is announced and cannot be taken.
#[test]
fn a_child_that_is_held_by_a_debugger_keeps_nobody_waiting() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let held = set.start(&fixture("sleep").arg("60000")).unwrap();
        let pid = Pid::from_raw(set.get(held).unwrap().id() as i32);
        // SAFETY: the copy makes system calls and nothing else.
        let debugger = match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Copy(child),
            ForkResult::Child => {
                // SAFETY: integer arguments.
                let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw(), 0, 0) };
                // SAFETY: an integer argument: it does not outlive a test that fails.
                unsafe { libc::alarm(if seized < 0 { 1 } else { 60 }) };
                loop {
                    // SAFETY: no arguments.
                    unsafe { libc::pause() };
                }
            }
        };
        let is_traced = || {
            std::fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| status.contains(&format!("TracerPid:\t{}", debugger.0)))
        };
        let end = Instant::now() + Duration::from_secs(3);
        while !is_traced() {
            if Instant::now() > end || state_of(debugger.0.as_raw() as u32) == Some('Z') {
                eprintln!("skipped: no ptrace here");
                return;
            }
        }
        kill(pid, Number::SIGKILL).unwrap();
        wait_for("the end", || state_of(pid.as_raw() as u32) == Some('Z'));
        for _ in 0..5 {
            let quick = set.start(&fixture("echo").arg("quick")).unwrap();
            let begun = Instant::now();
            let Some(News::Exit { child, result }) = set.wait_any_timeout(BOUND).unwrap() else { panic!() };
            assert!(child == quick && result.unwrap().success() && begun.elapsed() < Duration::from_secs(5));
        }
        let (time, before) = (cpu_time(), sleeps());
        assert!(set.wait_any_timeout(Duration::from_millis(200)).unwrap().is_none());
        assert!(cpu_time() - time < Duration::from_millis(100) && sleeps() - before < 100);
        drop(debugger);
        let Some(News::Exit { child, result }) = set.wait_any_timeout(BOUND).unwrap() else { panic!() };
        assert_eq!((child, result.unwrap().status().signal()), (held, Some(Signal::KILL)));
    });
}

/// Some may not be signalled, and all others are stopped all the same.
#[test]
fn a_stop_that_is_not_allowed_keeps_no_other_from_being_stopped() {
    alone!({
        if !crate::support::is_root() {
            return;
        }
        let (root, nobody) = (Uid::from_raw(0), Uid::from_raw(65_534));
        let foreign = fixture("sleep").arg("60000").user(0).group(Gid::current().as_raw()).keep_groups();
        setresuid(nobody, nobody, root).unwrap();
        let (mut own, mut sweep) = (Vec::new(), Leftover(Vec::new()));
        let mut results = Vec::new();
        for drops in [false, true] {
            let mut set = ChildSet::new().unwrap();
            for number in 0..6 {
                let command = if number % 2 == 0 { foreign.clone() } else { fixture("sleep").arg("60000") };
                let command = command.stop(Stop::term_then_kill(Duration::from_millis(50)));
                match set.start(&command) {
                    Ok(key) if number % 2 == 0 => sweep.0.push(set.get(key).unwrap().id()),
                    Ok(key) => own.push(set.get(key).unwrap().handle().clone()),
                    // The helper program is out of reach for others.
                    Err(_) => {}
                }
            }
            if drops {
                drop(set);
            } else {
                set.stop_all();
                results.extend(set.wait_all().unwrap().into_iter().map(|(_, result)| result));
            }
        }
        setresuid(root, root, root).unwrap();
        // SAFETY: an integer argument.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        let foreigners = sweep.0.len();
        drop(sweep);
        assert!(own.iter().all(|handle| handle.status().is_some_and(|status| status.signal() == Some(Signal::TERM))));
        let refused = results.iter().filter_map(|result| result.as_ref().err());
        assert_eq!(refused.filter(|error| error.kind() == ErrorKind::PermissionDenied).count(), foreigners / 2);
        wait_for("no zombie", || {
            Command::new("true").call().unwrap();
            children().is_empty()
        });
    });
}
