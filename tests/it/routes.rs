//! The routes by which a process is made, each forced: by the environment, and by a kernel that refuses system calls. The same
//! table of cases holds on all of them. Then each single system call of a spawn fails in turn, and what a spawn costs.

use crate::inject::{Call, Rule, deny, deny_all, supervise};
use crate::support::{Scratch, alone, children, descriptors, fixture, wait_for};
use crate::talk::Leftover;
use procession::{Command, Error, ErrorKind, Life, Output, Pty, Scope, Signal, SpawnRoute, Stdio, Stop};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

// ---- the same cases everywhere ----

/// What must hold whatever the kernel refuses.
fn basics() {
    let output = fixture("echo").arg("hello").output().unwrap();
    assert_eq!((output.stdout(), output.returncode()), (&b"hello\n"[..], 0));
    assert_eq!(fixture("exit").arg("7").status().unwrap().code(), Some(7));
    assert_eq!(fixture("raise").arg("TERM").status().unwrap().signal(), Some(Signal::TERM));
    let input = vec![b'x'; 300_000];
    let output = fixture("cat").input(input.clone()).output().unwrap();
    assert!(output.stdout() == input);
    let output = fixture("tty").pty(Pty::new()).output().unwrap();
    assert_eq!(output.stdout(), b"0 tty\n1 tty\n2 tty\ncontrolling yes\nforeground\n");
    errors();
    waiting();
    descriptors_and_attributes();
    stopping();
}

fn errors() {
    let error = Command::new("/no/such/program").pipe_all().spawn().unwrap_err();
    assert_eq!((error.kind(), error.failed_step()), (ErrorKind::NotFound, Some("exec")), "{error}");
    let error = fixture("exit").current_dir("/no/such/directory").spawn().unwrap_err();
    assert_eq!((error.kind(), error.failed_step()), (ErrorKind::DirectoryNotFound, Some("chdir")), "{error}");
    let error = fixture("exit").process_group(i32::MAX).spawn().unwrap_err();
    assert_eq!(error.failed_step(), Some("setpgid"), "{error}");
}

fn waiting() {
    let mut child = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(child.handle().wait_timeout(Duration::from_millis(20)).unwrap(), None);
    let handle = child.handle().clone();
    let waiter = std::thread::spawn(move || handle.wait().unwrap());
    drop(child.stdin.take());
    assert_eq!(waiter.join().unwrap().code(), Some(0));
    assert_eq!(child.wait_timeout(Duration::from_secs(30)).unwrap().and_then(|status| status.code()), Some(0));
    assert!(child.usage().is_some());
    let error = fixture("sleep").arg("60000").timeout(Duration::from_millis(50)).output().unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(error.output().status().signal(), Some(Signal::TERM), "{:?}", error.output());
}

fn descriptors_and_attributes() {
    let mut leak = File::open("/dev/null").unwrap();
    // SAFETY: integer arguments.
    unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&leak), libc::F_SETFD, 0) };
    let output = fixture("fds").fd(9, Stdio::null()).output().unwrap();
    let text = output.stdout_text().unwrap();
    let numbers: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["0", "1", "2", "9"]);
    leak.flush().unwrap();
    let output = fixture("pgid").setsid().umask(0o077).current_dir("/").output().unwrap();
    assert!(output.stdout_lossy().contains(&format!("sid={}", output.pid().unwrap())), "{output:?}");
    let state = fixture("sigstate").output().unwrap();
    assert!(state.stdout_lossy().starts_with("blocked=\n"), "{state:?}");
    assert!(state.stdout_lossy().ends_with("default-pipe=yes\n"), "{state:?}");
    let swapped = fixture("merge").arg("2").stdout(Stdio::stderr()).output().unwrap();
    assert_eq!(swapped.stderr(), b"out 0\nerr 1\n");
    // SAFETY: a hook that fails.
    let hooked = unsafe { fixture("exit").pre_exec(|| Err(std::io::Error::from_raw_os_error(libc::EDOM))) };
    let error = hooked.spawn().unwrap_err();
    assert_eq!((error.failed_step(), error.raw_os_error()), (Some("pre_exec"), Some(libc::EDOM)));
}

fn stopping() {
    let mut child = fixture("deaf").arg("60000").stdout(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let plan = Stop::term_then_kill(Duration::from_millis(50)).scope(Scope::Group);
    let report = child.stop(&plan).unwrap();
    assert_eq!(report.status().signal(), Some(Signal::KILL));
    assert!(!child.kill().unwrap());
    let child = fixture("sleep").arg("60000").spawn().unwrap();
    assert!(child.send_signal(Signal::USR1).unwrap());
    assert_eq!(child.handle().wait().unwrap().signal(), Some(Signal::USR1));
    let dropped = fixture("exit").arg("0").spawn().unwrap();
    drop(dropped);
    wait_for("the end of all children", || {
        fixture("exit").arg("0").status().unwrap();
        children().is_empty()
    });
}

fn at_most(best: SpawnRoute) -> SpawnRoute {
    let rank = |route: SpawnRoute| match route {
        SpawnRoute::Clone3 => 0,
        SpawnRoute::Clone => 1,
        _ => 2,
    };
    let wished = match std::env::var("PROCESSION_ENGINE").as_deref() {
        Ok("clone") => SpawnRoute::Clone,
        Ok("portable") => SpawnRoute::Portable,
        _ => SpawnRoute::Clone3,
    };
    let wished = if cfg!(procession_portable) { SpawnRoute::Portable } else { wished };
    if rank(best) > rank(wished) { best } else { wished }
}

fn again_with(variable: &str, value: &str) -> bool {
    if std::env::var("PROCESSION_TEST_AGAIN").is_ok_and(|done| done == value) {
        return false;
    }
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(std::env::args_os().skip(1))
        .env("PROCESSION_TEST_AGAIN", value)
        .env(variable, value)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success(), "{value}: {}{text}", String::from_utf8_lossy(&again.stdout));
    true
}

#[test]
fn the_basics_hold_on_the_route_of_this_process() {
    alone!({
        assert_eq!(SpawnRoute::current(), at_most(SpawnRoute::Clone3));
        basics();
    });
}

#[test]
fn the_environment_chooses_a_route() {
    alone!({
        let again = std::env::var("PROCESSION_TEST_AGAIN").ok();
        match again.as_deref() {
            None => {
                let values = ["clone3", "clone", "portable", "nonsense"];
                assert!(values.iter().all(|value| again_with("PROCESSION_ENGINE", value)));
            }
            Some(value) => {
                let expected = match value {
                    "portable" => SpawnRoute::Portable,
                    "clone" => SpawnRoute::Clone,
                    _ => SpawnRoute::Clone3,
                };
                let expected = if cfg!(procession_portable) { SpawnRoute::Portable } else { expected };
                assert_eq!(SpawnRoute::current(), expected);
                basics();
            }
        }
    });
}

/// E2: clone3 is absent or forbidden.
#[test]
fn without_clone3_there_is_clone() {
    alone!({
        deny_all(libc::ENOSYS, &[libc::SYS_clone3]);
        assert_eq!(SpawnRoute::current(), at_most(SpawnRoute::Clone));
        basics();
    });
}

#[test]
fn a_forbidden_clone3_counts_as_absent() {
    alone!({
        if at_most(SpawnRoute::Clone3) == SpawnRoute::Portable {
            // Without threads and pidfds the last resort is the crate wait-timeout, which leaves its SIGCHLD handler behind.
            return;
        }
        deny_all(libc::EPERM, &[libc::SYS_clone3]);
        assert_eq!(SpawnRoute::current(), at_most(SpawnRoute::Clone));
        // Threads cannot be had either: the C library takes EPERM at its word.
        assert_eq!(fixture("exit").arg("3").status().unwrap().code(), Some(3));
        let output = fixture("cat").input("in").timeout(Duration::from_secs(30)).output().unwrap();
        assert_eq!(output.stdout(), b"in");
        errors();
        descriptors_and_attributes();
        stopping();
    });
}

/// E1: no process descriptors at birth.
#[test]
fn without_pidfds_at_birth_there_is_the_portable_route() {
    alone!({
        deny(&[Rule(libc::SYS_clone3, libc::ENOSYS, 0), Rule(libc::SYS_clone, libc::EINVAL, libc::CLONE_PIDFD as u32)]);
        assert_eq!(SpawnRoute::current(), SpawnRoute::Portable);
        basics();
    });
}

/// E1: a kernel of 2018.
#[test]
fn without_any_of_the_new_calls() {
    alone!({
        deny(&[
            Rule(libc::SYS_clone3, libc::ENOSYS, 0),
            Rule(libc::SYS_clone, libc::EINVAL, libc::CLONE_PIDFD as u32),
            Rule(libc::SYS_pidfd_open, libc::ENOSYS, 0),
            Rule(libc::SYS_pidfd_send_signal, libc::ENOSYS, 0),
            Rule(libc::SYS_close_range, libc::ENOSYS, 0),
            // waitid knows no P_PIDFD (3), but P_PID (1).
            Rule(libc::SYS_waitid, libc::EINVAL, 2),
            Rule(libc::SYS_openat2, libc::ENOSYS, 0),
        ]);
        assert_eq!(SpawnRoute::current(), SpawnRoute::Portable);
        basics();
    });
}

/// E1: only opening them later is forbidden.
#[test]
fn without_pidfd_open() {
    alone!({
        deny_all(libc::EPERM, &[libc::SYS_pidfd_open]);
        basics();
    });
}

/// E3.
#[test]
fn without_close_range() {
    alone!({
        deny_all(libc::EPERM, &[libc::SYS_close_range]);
        basics();
    });
}

/// D12, E1: a refused signal is an error at once, and a timeout does not wait for it without end.
#[test]
fn a_refused_signal_is_told() {
    alone!({
        let child = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let handle = child.handle().clone();
        let denied = std::thread::scope(|scope| {
            let denied = scope.spawn(|| {
                deny_all(libc::EPERM, &[libc::SYS_pidfd_send_signal, libc::SYS_kill]);
                let started = std::time::Instant::now();
                let limited = fixture("sleep").arg("3000").timeout(Duration::from_millis(50));
                let limited = limited.stop(Stop::term_then_kill(Duration::from_millis(50))).output();
                (handle.terminate(), handle.stop(&Stop::kill()), limited, started.elapsed())
            });
            denied.join().unwrap()
        });
        let (terminated, stopped, limited, elapsed) = denied;
        let error = terminated.unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::PermissionDenied, Some(libc::EPERM)), "{error}");
        assert!(error.to_string().contains("SIGTERM"), "{error}");
        assert!(stopped.is_err() || !stopped.unwrap().is_stopped());
        assert!(limited.is_err());
        assert!(elapsed < Duration::from_secs(30));
        child.kill().unwrap();
        child.handle().wait().unwrap();
        // The sleeper that could not be killed ends by itself and is reaped.
        wait_for("the end of all children", || {
            fixture("exit").arg("0").status().unwrap();
            children().is_empty()
        });
    });
}

/// E4: no /proc.
#[test]
fn without_proc() {
    alone!({
        fixture("exit").arg("0").status().unwrap();
        let result = supervise(
            &[],
            || {
                let output = fixture("cat").input("in").output().unwrap();
                let limited = fixture("sleep").arg("60000").timeout(Duration::from_millis(50)).output();
                let mut stopped = fixture("cat").pipe_all().spawn().unwrap();
                stopped.send_signal(Signal::STOP).unwrap();
                let mut explained = stopped.explain();
                while explained.life == Life::Running {
                    explained = stopped.explain();
                }
                let left = fixture("deaf").arg("60000").stop(Stop::new()).timeout(Duration::from_secs(1)).output();
                // The supervision lasts as long as anybody lives who is under it.
                drop(Leftover(
                    left.iter().chain(left.as_ref().err().map(Error::output)).filter_map(Output::pid).collect(),
                ));
                stopped.send_signal(Signal::CONT).unwrap();
                stopped.communicate(()).unwrap();
                (output, limited, explained, left)
            },
            |call| (call.ours && is_proc(&call)).then_some(libc::ENOENT),
        );
        let Some((output, limited, explained, left)) = result else { return };
        // What needs no /proc is known, and the rest is said to be unknown.
        assert_eq!((explained.life, explained.sees_processes), (Life::Stopped(Some(Signal::STOP)), false));
        let pipes = explained.streams.iter().filter(|stream| stream.ours && stream.waiting == Some(0));
        assert_eq!((pipes.count(), explained.process.as_ref()), (3, None), "{explained}");
        let text = explained.to_string();
        assert!(text.contains("it is stopped (SIGSTOP): send SIGCONT") && text.contains("cannot be seen"), "{text}");
        let left = left.unwrap_err();
        let explanation = left.output().explanation().unwrap();
        assert_eq!((explanation.life, explanation.sees_processes), (Life::Running, false), "{left}");
        wait_for("no zombie", || {
            fixture("exit").arg("0").status().unwrap();
            children().is_empty()
        });
        assert_eq!(output.stdout(), b"in");
        assert!(limited.unwrap_err().is_timeout());
    });
}

/// Whether the call of this process opens something in /proc.
fn is_proc(call: &Call) -> bool {
    if call.number != libc::SYS_openat {
        return false;
    }
    let mut path = [0_u8; 5];
    let local = libc::iovec { iov_base: path.as_mut_ptr().cast(), iov_len: 5 };
    let remote = libc::iovec { iov_base: call.args[1] as *mut libc::c_void, iov_len: 5 };
    let pid = std::process::id() as i32;
    // SAFETY: one local place of five bytes; the other is only an address, and a wrong one is an error.
    let count = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
    count == 5 && &path == b"/proc"
}

// ---- each call fails in turn ----

/// The calls of a spawn, of the parent and of the child until exec.
const CALLS: &[libc::c_long] = &[
    libc::SYS_pipe2,
    libc::SYS_openat,
    libc::SYS_clone3,
    libc::SYS_clone,
    libc::SYS_fcntl,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_close_range,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_umask,
    libc::SYS_setsid,
    libc::SYS_execve,
    libc::SYS_socketpair,
    libc::SYS_pidfd_open,
    libc::SYS_prctl,
    libc::SYS_waitid,
    libc::SYS_ioctl,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_newfstatat,
    libc::SYS_statx,
];

/// B4: the spawn with pipes, a null device, a passed descriptor and some steps; each of its calls fails in turn, with each of
/// two errors. It works all the same or fails, and leaves nothing.
#[test]
fn every_single_call_may_fail() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.file("in", 0o644, "passed");
        let own = File::open(path).unwrap();
        let command = fixture("echo")
            .arg("done")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .fd(10, Stdio::borrowed(&own))
            .umask(0o022)
            .setsid()
            .current_dir("/");
        each_call_fails(&command);
    });
}

/// The same where the child is born in our table of descriptors, which is long.
#[test]
fn every_single_call_in_a_long_table_may_fail() {
    alone!({
        let mut crowd: Vec<File> = (0..200).map(|_| File::open("/dev/null").unwrap()).collect();
        assert!(fixture("echo").status().unwrap().success());
        crowd.drain(..20);
        let command = fixture("echo").arg("done").stdin(Stdio::null()).pipe_all().fd(10, Stdio::null());
        each_call_fails(&command.current_dir("/"));
    });
}

/// The same with a terminal, which takes calls of its own.
#[test]
fn every_single_call_for_a_terminal_may_fail() {
    alone!({
        each_call_fails(&fixture("echo").arg("done").pty(Pty::new()));
    });
}

fn each_call_fails(command: &Command) {
    let before = descriptors();
    command.output().unwrap();
    let (mut outcomes, mut failures) = (BTreeMap::new(), 0);
    for errno in [libc::EMFILE, libc::EPERM] {
        for n in 0.. {
            let (mut count, mut failed) = (0, None);
            let result = supervise(
                CALLS,
                || {
                    let mut child = command.spawn()?;
                    let mut text = String::new();
                    child.stdout.take().map(|mut out| out.read_to_string(&mut text));
                    // What fails after the birth is about the child, which lives on and is reaped below.
                    let waited = child.wait().is_ok();
                    Ok::<_, procession::Error>((text, waited))
                },
                |call| {
                    if call.after_exec {
                        return None;
                    }
                    count += 1;
                    if count - 1 != n || is_sure(&call) {
                        return None;
                    }
                    failed = Some(call.number);
                    Some(errno)
                },
            );
            let Some(result) = result else { return };
            if n >= count {
                assert!(n > 10, "{n} calls");
                break;
            }
            let context = format!("call {n} ({failed:?}) with {errno}: {result:?}");
            match result {
                Ok((text, _)) => assert!(text == "done\n" || text.is_empty(), "{context}"),
                Err(error) => {
                    failures += 1;
                    assert!(error.to_string().starts_with(&command.to_string()), "{context}");
                }
            }
            *outcomes.entry(failed).or_insert(0) += 1;
            wait_for(&format!("the end of all descriptors after {context}: {before:?}"), || {
                fixture("exit").arg("0").status().unwrap();
                descriptors() == before && children().is_empty()
            });
        }
    }
    assert!(failures >= 8, "{failures} failures, {outcomes:?}");
}

/// Calls that the kernel promises to do, and whose failure nobody can answer: the mask of a thread, and asking for an action.
fn is_sure(call: &Call) -> bool {
    call.number == libc::SYS_rt_sigprocmask || call.number == libc::SYS_rt_sigaction && call.ours
}

/// E11: exec that is forbidden is told as such.
#[test]
fn a_forbidden_exec_is_told() {
    alone!({
        fixture("exit").arg("0").status().unwrap();
        let result = supervise(&[libc::SYS_execve], || fixture("exit").spawn(), |_| Some(libc::EPERM));
        let Some(result) = result else { return };
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.failed_step()), (ErrorKind::PermissionDenied, Some("exec")), "{error}");
    });
}

/// A refused pipe size and a busy table of dup2 are no errors.
#[test]
fn what_passes_is_tried_again() {
    alone!({
        fixture("exit").arg("0").status().unwrap();
        let mut refusals = 0;
        let result = supervise(
            &[libc::SYS_dup2, libc::SYS_dup3],
            || fixture("echo").arg("x").output(),
            |call| {
                refusals += 1;
                (!call.ours && refusals <= 4).then_some([libc::EBUSY, libc::EINTR][refusals % 2])
            },
        );
        let Some(result) = result else { return };
        assert_eq!(result.unwrap().stdout(), b"x\n");
        assert!(refusals > 4);
    });
}

// ---- what it costs ----

/// The calls of the spawning thread and of the child until exec, while `work` runs; by name for the message.
fn calls_of(work: impl Fn() + Send + Sync) -> Option<(Vec<libc::c_long>, Vec<libc::c_long>)> {
    work();
    calls_between_yields(|| {
        std::thread::yield_now();
        work();
        std::thread::yield_now();
    })
}

/// The same for what runs between two yields.
fn calls_between_yields(work: impl FnOnce() + Send) -> Option<(Vec<libc::c_long>, Vec<libc::c_long>)> {
    let (mut ours, mut theirs, mut counting) = (Vec::new(), Vec::new(), false);
    supervise(&[], work, |call| {
        if call.number == libc::SYS_sched_yield && call.ours {
            counting = !counting;
        } else if call.number == libc::SYS_fcntl && call.args[1] == libc::F_GETFD as u64 {
            // std checks every close in builds with debug assertions.
        } else if counting && call.ours {
            ours.push(call.number);
        } else if counting && !call.after_exec {
            theirs.push(call.number);
        }
        None
    })?;
    Some((ours, theirs))
}

#[test]
fn a_spawn_and_a_wait_cost_nine_calls() {
    alone!({
        if SpawnRoute::current() != SpawnRoute::Clone3 {
            return;
        }
        let command = fixture("exit").arg("0");
        let work = || assert!(command.spawn().unwrap().wait().unwrap().success());
        let Some((ours, theirs)) = calls_of(work) else { return };
        assert!(ours.len() + theirs.len() <= 9, "parent {ours:?}, child {theirs:?}");
    });
}

#[test]
fn collecting_a_kibibyte_costs_few_calls() {
    alone!({
        if SpawnRoute::current() != SpawnRoute::Clone3 {
            return;
        }
        let command = Command::new(Path::new("/bin/cat")).input(vec![b'x'; 1024]);
        let work = || assert_eq!(command.output().unwrap().stdout().len(), 1024);
        let Some((ours, _)) = calls_of(work) else { return };
        assert!(ours.len() <= 24, "{} calls: {ours:?}", ours.len());
    });
}

/// The same for what is awaited on the own scope, which is open and has waited before.
#[cfg(feature = "future")]
fn awaited_calls_of(work: impl AsyncFn() + Sync) -> Option<(Vec<libc::c_long>, Vec<libc::c_long>)> {
    calls_between_yields(|| {
        procession::future::scope(|scope| {
            scope.block_on(work()).unwrap();
            std::thread::yield_now();
            scope.block_on(work()).unwrap();
            std::thread::yield_now();
        })
        .unwrap();
    })
}

#[cfg(feature = "future")]
#[test]
fn an_awaited_spawn_and_wait_cost_few_calls() {
    alone!({
        if SpawnRoute::current() != SpawnRoute::Clone3 {
            return;
        }
        let command = fixture("exit").arg("0");
        let work = async || assert!(command.future().call().await.unwrap().success());
        let Some((ours, theirs)) = awaited_calls_of(work) else { return };
        assert!(ours.len() + theirs.len() <= 10, "parent {ours:?}, child {theirs:?}");
    });
}

#[cfg(feature = "future")]
#[test]
fn an_awaited_child_costs_few_calls() {
    alone!({
        if SpawnRoute::current() != SpawnRoute::Clone3 {
            return;
        }
        let command = fixture("exit").arg("0");
        let work = async || {
            let mut child = command.spawn().unwrap();
            assert!(child.future().wait().await.unwrap().success());
        };
        let Some((ours, theirs)) = awaited_calls_of(work) else { return };
        assert!(ours.len() + theirs.len() <= 12, "parent {ours:?}, child {theirs:?}");
    });
}

#[cfg(feature = "future")]
#[test]
fn an_awaited_small_output_costs_few_calls() {
    alone!({
        if SpawnRoute::current() != SpawnRoute::Clone3 {
            return;
        }
        let command = fixture("echo").arg("hello");
        let work = async || assert_eq!(command.future().output().await.unwrap().stdout(), b"hello\n");
        let Some((ours, _)) = awaited_calls_of(work) else { return };
        // Three waits at most: what it says, the ends of both streams, its own.
        assert!(ours.len() <= 26, "{} calls: {ours:?}", ours.len());
        let command = Command::new(Path::new("/bin/cat")).input(vec![b'x'; 1024]);
        let work = async || assert_eq!(command.future().output().await.unwrap().stdout().len(), 1024);
        let Some((ours, _)) = awaited_calls_of(work) else { return };
        assert!(ours.len() <= 30, "{} calls: {ours:?}", ours.len());
    });
}

/// Promise 6: the price does not grow with what is open or asked for.
#[test]
fn options_cost_one_call_each() {
    alone!({
        if SpawnRoute::current() != SpawnRoute::Clone3 {
            return;
        }
        let plain = fixture("exit").arg("0");
        let full = plain.clone().current_dir("/").umask(0o022).setsid().no_new_privileges();
        let count = |command: &Command| {
            let calls = calls_of(|| assert!(command.status().unwrap().success()))?;
            Some(calls.0.len() + calls.1.len())
        };
        let (Some(few), Some(more)) = (count(&plain), count(&full)) else { return };
        assert_eq!(more, few + 4);
        // A long table takes three more, once: the child's own beginning of it, and moving the process descriptor out of the way.
        let mut open = Vec::new();
        for length in [500, 900] {
            open.resize_with(length, || File::open("/dev/null").unwrap());
            // What is found out once: that it is long, and what the kernel is.
            (0..2).for_each(|_| assert!(plain.status().unwrap().success()));
            let long = count(&full);
            assert!(long.is_some_and(|long| long <= more + 3), "{long:?} with {length} open, else {more}");
        }
    });
}

// ---- signals during a birth ----

/// D21: no handler of the host ever runs in a child, under a storm of signals to the whole group.
#[test]
fn handlers_never_run_in_a_child() {
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::Relaxed};
    static HOST: AtomicI32 = AtomicI32::new(0);
    /// Shared with every copy: handlers that ran in a child, and all that ran.
    static SHARED: std::sync::atomic::AtomicPtr<[AtomicU32; 2]> =
        std::sync::atomic::AtomicPtr::new(std::ptr::null_mut());
    extern "C" fn handler(_: i32) {
        // SAFETY: set before the handler was installed, and never unmapped.
        let [foreign, all] = unsafe { &*SHARED.load(Relaxed) };
        all.fetch_add(1, Relaxed);
        // SAFETY: no arguments; not cached.
        if unsafe { libc::syscall(libc::SYS_getpid) } as i32 != HOST.load(Relaxed) {
            foreign.fetch_add(1, Relaxed);
        }
    }
    alone!({
        HOST.store(std::process::id() as i32, Relaxed);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        SHARED.store(page.cast(), Relaxed);
        // SAFETY: zeroed memory that is never unmapped.
        let [foreign, all] = unsafe { &*SHARED.load(Relaxed) };
        // Of its own group, so that the storm reaches it and its children only.
        // SAFETY: integer arguments.
        unsafe { libc::setpgid(0, 0) };
        let command = fixture("exit").arg("0");
        command.status().unwrap();
        let function = handler as *const () as libc::sighandler_t;
        // SAFETY: a handler that is async-signal-safe.
        let before = unsafe { libc::signal(libc::SIGWINCH, function) };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    // Its default action is to be ignored, so it does the program no harm.
                    // SAFETY: integer arguments.
                    unsafe { libc::kill(0, libc::SIGWINCH) };
                }
            });
            for _ in 0..400 {
                assert!(command.status().unwrap().success());
                assert!(Command::new("/no/such/program").spawn().is_err());
                // SAFETY: a hook that does nothing.
                let hooked = unsafe { command.clone().pre_exec(|| Ok(())) };
                assert!(hooked.status().unwrap().success());
            }
            done.store(true, Relaxed);
        });
        // SAFETY: the action from before.
        unsafe { libc::signal(libc::SIGWINCH, before) };
        assert!(all.load(Relaxed) > 1000);
        assert_eq!(foreign.load(Relaxed), 0, "of {}", all.load(Relaxed));
    });
}

/// E5: an interval timer with a handler that interrupts.
#[test]
fn interruptions_are_never_seen() {
    extern "C" fn handler(_: i32) {}
    alone!({
        // SAFETY: an all-zero action is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        // SAFETY: as above.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: valid actions; without SA_RESTART.
        unsafe { libc::sigaction(libc::SIGVTALRM, &action, &mut before) };
        let done = std::sync::atomic::AtomicBool::new(false);
        // SAFETY: no arguments.
        let thread = unsafe { libc::pthread_self() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    // SAFETY: the thread outlives this scope.
                    unsafe { libc::pthread_kill(thread, libc::SIGVTALRM) };
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            for _ in 0..5 {
                basics();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        // SAFETY: the action from before.
        unsafe { libc::sigaction(libc::SIGVTALRM, &before, std::ptr::null_mut()) };
    });
}

/// What is lacking for a moment says nothing about the kernel.
#[test]
fn a_shortage_does_not_choose_the_route() {
    alone!({
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let lowest_free = File::open("/dev/null").map(|file| std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, lowest_free as u64, hard).unwrap();
        let during = SpawnRoute::current();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let best = at_most(SpawnRoute::Clone3);
        assert_eq!(during, best);
        assert_eq!(SpawnRoute::current(), best);
        assert!(fixture("exit").arg("0").status().unwrap().success());
    });
}
