//! A hang explains itself: what is said of each kind, by whom it is printed, and that it never fails and shows no secret.

use crate::support::{alone, done_as_nobody, fixture, is_root, state_of, wait_for};
use crate::talk::{Leftover, line, pid_in, pids_in};
use procession::{
    Cause, Child, Command, Completeness, ErrorKind, Explanation, Life, Reason, Signal, Stdio, Stop, pipe,
};
use std::io::Write;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(100);

/// Whether the kernel tells in which call a process waits; a sandbox may not.
fn sees_calls() -> bool {
    std::fs::read_to_string("/proc/self/syscall").is_ok_and(|line| !line.starts_with("-1"))
}

/// Waits until the process is where the test wants to have it.
#[track_caller]
fn explained(child: &Child, what: &str, wanted: impl Fn(&Explanation) -> bool) -> Explanation {
    let mut found = child.explain();
    let end = Instant::now() + Duration::from_secs(10);
    while !wanted(&found) {
        assert!(Instant::now() < end, "{what} is not explained:\n{found}\n{found:#?}");
        std::thread::sleep(Duration::from_millis(2));
        found = child.explain();
    }
    found
}

#[track_caller]
fn because(child: &Child, what: &str, wanted: impl Fn(&Reason) -> bool) -> Explanation {
    explained(child, what, |explanation| explanation.reasons.iter().any(&wanted))
}

/// The explanation as lines, for messages and for words.
#[track_caller]
fn assert_says(explanation: &Explanation, words: &[&str]) {
    let text = explanation.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

fn ready(child: &mut Child) {
    assert_eq!(line(child.stdout.as_mut().unwrap()), "ready");
}

// ---- what it waits for

#[test]
fn a_child_that_waits_for_its_input() {
    alone!({
        if !sees_calls() {
            return;
        }
        let mut cat = fixture("cat").pipe_all().spawn().unwrap();
        let explanation = because(&cat, "the wait for input", |reason| {
            *reason == Reason::WaitsForInput { who: None, ours: true, writers: Vec::new() }
        });
        assert_eq!((explanation.pid, explanation.life), (cat.id(), Life::Running));
        let process = explanation.process.as_ref().unwrap();
        assert_eq!((process.parent, process.threads, process.state), (std::process::id(), 1, 'S'));
        let call = process.call.as_ref().unwrap();
        assert_eq!((call.name.as_str(), call.descriptor), ("read", Some(0)));
        assert_eq!(call.target, explanation.streams[0].target);
        assert_says(&explanation, &["it waits for its input, which we hold open", " cat): running, started "]);
        for (number, stream) in explanation.streams.iter().enumerate() {
            assert_eq!((stream.descriptor as usize, stream.ours, stream.waiting), (number, true, Some(0)));
            let theirs = if number == 0 { &stream.readers } else { &stream.writers };
            assert_eq!(theirs.iter().map(|entry| entry.pid).collect::<Vec<_>>(), [cat.id()]);
        }
        // The same from the handle, which has no pipes but can see them.
        let handle = cat.handle().explain();
        assert!(handle.reasons.contains(&explanation.reasons[0]), "{handle}");
        assert_eq!(handle.streams[1].waiting, None);
        // Once it has its input and its end it is explained as ended.
        cat.stdin.take().unwrap().write_all(b"words").unwrap();
        cat.handle().wait().unwrap();
        let explanation = cat.explain();
        assert!(matches!(explanation.life, Life::Ended(status) if status.success()), "{explanation}");
        assert_eq!((explanation.process, explanation.streams[0].waiting), (None, Some(5)));
    });
}

#[test]
fn somebody_else_holds_the_input() {
    alone!({
        if !sees_calls() {
            return;
        }
        let (reader, writer) = pipe().unwrap();
        let command = fixture("sleep").arg("60000").fd(9, Stdio::from(writer)).kill_on_drop();
        let sleeper = command.spawn().unwrap();
        let cat = fixture("cat").stdin(Stdio::from(reader)).stdout(Stdio::null()).kill_on_drop().spawn().unwrap();
        let explanation =
            because(&cat, "the wait for input", |reason| matches!(reason, Reason::WaitsForInput { ours: true, .. }));
        let words = format!("which we and {} (", sleeper.id());
        assert_says(&explanation, &["it waits for its input, ", &words, "hold open"]);
        // The command value has it as well, until it is dropped.
        drop(command);
        let explanation =
            because(&cat, "the wait for input", |reason| matches!(reason, Reason::WaitsForInput { ours: false, .. }));
        let words = format!("which {} (", sleeper.id());
        assert_says(&explanation, &["it waits for its input, ", &words, "holds open"]);
        assert_says(&explanation, &["it waits for its input, ", &words, "holds open"]);
    });
}

#[test]
fn a_child_whose_output_nobody_reads() {
    alone!({
        if !sees_calls() {
            return;
        }
        let flood = fixture("flood").pipe_all().kill_on_drop().spawn().unwrap();
        let explanation = because(&flood, "the full pipe", |reason| {
            *reason == Reason::WaitsForReader { who: None, descriptor: 1, ours: true, readers: Vec::new() }
        });
        let stdout = &explanation.streams[1];
        assert!(stdout.waiting.unwrap() > 0, "{explanation}");
        assert_says(&explanation, &["it waits for somebody to read its stdout: the pipe is full, and we hold"]);
        // In a pipeline of two, by the one that follows.
        let mut two = (fixture("flood") | fixture("sleep").arg("60000")).spawn().unwrap();
        let pid = two.handles().nth(1).unwrap().id();
        wait_for("the full pipe between two", || {
            two.explain().reasons.iter().any(
                |reason| matches!(reason, Reason::WaitsForReader { readers, ours: false, .. } if readers[0].pid == pid),
            )
        });
        let explanation = two.explain();
        assert_eq!(explanation.stages.len(), 2);
        assert_says(&explanation, &["flood", "sleep 60000", &format!("{pid} (")]);
        assert!(two.stop(&Stop::kill()).unwrap().iter().all(|report| report.is_stopped()));
    });
}

#[test]
fn a_member_of_the_tree_waits() {
    alone!({
        if !sees_calls() {
            return;
        }
        let shell = Command::shell("cat; true").pipe_all().kill_on_drop().spawn().unwrap();
        let explanation = explained(&shell, "the wait of the shell's child", |explanation| {
            let [first, second] = &explanation.reasons[..] else { return false };
            matches!(first, Reason::WaitsForChild { who: None, children } if children.len() == 1)
                && matches!(second, Reason::WaitsForInput { who: Some(who), ours: true, .. } if who.command == "cat")
        });
        let cat = &explanation.relatives[0];
        assert_eq!((cat.parent, cat.entry.command.as_str()), (shell.id(), "cat"));
        assert_says(&explanation, &["it waits for its child ", "(cat) waits for its input, which we hold open"]);
        assert_says(&explanation, &["belongs to it: "]);
    });
}

#[test]
fn those_who_sleep_and_those_who_work() {
    alone!({
        if !sees_calls() {
            return;
        }
        let sleeper = fixture("sleep").arg("60000").kill_on_drop().spawn().unwrap();
        let explanation = because(&sleeper, "the sleep", |reason| matches!(reason, Reason::WaitsIn { .. }));
        assert_says(&explanation, &["it sleeps of its own will (clock_nanosleep)"]);
        let busy = Command::shell("while :; do :; done").kill_on_drop().spawn().unwrap();
        let explanation = because(
            &busy,
            "the work",
            |reason| matches!(reason, Reason::Busy { who: None, processor_time } if !processor_time.is_zero()),
        );
        assert_says(&explanation, &["it is at work: ", " of processor time so far"]);
    });
}

// ---- stopped, ended

#[test]
fn a_stopped_child() {
    alone!({
        let mut stopped = fixture("ready-sleep").arg("60000").pipe_all().kill_on_drop().spawn().unwrap();
        ready(&mut stopped);
        stopped.send_signal(Signal::STOP).unwrap();
        let explanation = explained(&stopped, "the stop", |explanation| matches!(explanation.life, Life::Stopped(_)));
        assert_eq!(explanation.life, Life::Stopped(Some(Signal::STOP)));
        assert_says(&explanation, &["stopped by SIGSTOP", "it is stopped (SIGSTOP): send SIGCONT"]);
        // It was looked at only: the state is as it was, and so is the status.
        assert_eq!(stopped.try_wait().unwrap(), None);
        stopped.send_signal(Signal::CONT).unwrap();
        explained(&stopped, "the continuation", |explanation| explanation.life == Life::Running);
    });
}

#[test]
fn a_zombie_that_nobody_waited_for() {
    alone!({
        let mut child = fixture("exit").arg("3").spawn().unwrap();
        let explanation = because(&child, "the zombie", |reason| *reason == Reason::NotWaitedFor { who: None });
        assert!(matches!(explanation.life, Life::Unreaped(status) if status.code() == Some(3)), "{explanation}");
        assert_says(&explanation, &["ended (exit status: 3)", "nobody has waited for it yet"]);
        assert_eq!(state_of(child.id()), Some('Z'), "an explanation reaps nobody");
        assert_eq!(child.wait().unwrap().code(), Some(3));
        let explanation = child.explain();
        assert!(matches!(explanation.life, Life::Ended(status) if status.code() == Some(3)), "{explanation}");
        assert!(explanation.reasons.is_empty() && explanation.process.is_none(), "{explanation}");
    });
}

#[test]
fn a_grandchild_that_holds_the_pipe() {
    alone!({
        let mut child = fixture("grandchild").arg("60000").pipe_all().spawn().unwrap();
        let pid = pid_in(&line(child.stdout.as_mut().unwrap()));
        let _leftover = Leftover(vec![pid]);
        let explanation = because(
            &child,
            "the holder",
            |reason| matches!(reason, Reason::HeldOpen { descriptors, holders, .. } if descriptors == &[1, 2] && holders[0].pid == pid),
        );
        assert_says(&explanation, &[&format!("it has ended, but {pid} ("), "holds its stdout and stderr"]);
        assert!(explanation.relatives.iter().any(|relative| relative.entry.pid == pid), "{explanation}");
        child.handle().wait().unwrap();
        assert_says(&child.explain(), &[&format!("it has ended, but {pid} (")]);
        // After the pipes were given up nobody holds anything of ours.
        (child.stdout, child.stderr) = (None, None);
        assert!(child.explain().reasons.is_empty(), "{}", child.explain());
    });
}

// ---- a conversation

#[test]
fn a_conversation_says_how_far_it_came() {
    alone!({
        let cat = fixture("cat").pipe_all().kill_on_drop().spawn().unwrap();
        assert_eq!(cat.explain().streams[1].passed, None, "none has begun");
        let talker = Command::shell("echo first; printf 'last \\033[2Jwords'; exec sleep 60");
        let mut talker = talker.pipe_all().kill_on_drop().spawn().unwrap();
        let error = talker.communicate_timeout("12345", Duration::from_secs(1)).unwrap_err();
        assert!(error.is_timeout());
        let explanation = talker.explain();
        assert_eq!(explanation.streams[0].passed, Some(5), "{explanation}");
        assert_eq!(explanation.streams[1].passed, Some(20), "{explanation}");
        assert_eq!(explanation.streams[1].tail, "first\nlast \u{1b}[2Jwords");
        assert!(explanation.silent_for.unwrap() <= explanation.elapsed);
        assert_says(
            &explanation,
            &["its stdout ends:\n    | first\n    | last \\u{1b}[2Jwords", "20 bytes read so far"],
        );
        assert_says(&explanation, &["the last output came "]);
        assert!(!explanation.to_string().contains('\x1b'));
        // What went to a file is counted, and the beginning that memory has is not called the end.
        let scratch = crate::support::Scratch::new();
        let spilling = Command::shell("echo words; exec sleep 60");
        let spilling = spilling.capture_limit(3, procession::Overflow::Spill(scratch.join("all")));
        let mut spilling = spilling.pipe_all().kill_on_drop().spawn().unwrap();
        while spilling.explain().streams[1].passed != Some(6) {
            spilling.communicate_timeout((), SHORT).unwrap_err();
        }
        assert_eq!(spilling.explain().streams[1].tail, "");
        // The end of a stream is no output.
        let mut closer =
            Command::shell("echo words; sleep 1; exec 2>&-; exec sleep 60").pipe_all().kill_on_drop().spawn().unwrap();
        while closer.stderr.is_some() {
            closer.communicate_timeout((), SHORT).unwrap_err();
        }
        let silent_for = closer.explain().silent_for.unwrap();
        assert!(silent_for > Duration::from_millis(500), "{silent_for:?}");
        assert!(error.output().explanation().is_none(), "nothing was left behind");
    });
}

// ---- told by the records

#[test]
fn a_drain_that_is_cut_off_is_explained_in_the_record() {
    alone!({
        let output = fixture("grandchild").arg("60000").drain(Duration::from_millis(50)).output().unwrap();
        let pid = pids_in(output.stdout(), "grandchild")[0];
        let _leftover = Leftover(vec![pid]);
        let explanation = output.explanation().unwrap();
        assert!(explanation.streams[1].ours, "gathered before the pipe was closed: {explanation}");
        assert!(
            matches!(&explanation.reasons[..], [Reason::HeldOpen { holders, .. }] if holders[0].pid == pid),
            "{explanation}"
        );
        let Completeness::CutOff { holders } = output.captured_stdout().completeness() else { panic!("{output}") };
        assert_eq!(explanation.streams[1].writers, *holders);
        // The record names the holder once.
        let text = output.to_string();
        assert!(text.contains("still held by") && !text.contains("it has ended"), "{text}");
        // An error says it as well, where it said nothing before.
        let failed = fixture("grandchild-exit").args(["3", "60000"]).drain(Duration::from_millis(50)).check_output();
        let failed = failed.unwrap_err();
        let pid = pids_in(failed.output().stdout(), "grandchild")[0];
        let _leftover = Leftover(vec![pid]);
        assert_eq!(failed.kind(), ErrorKind::Status);
        let text = failed.to_string();
        assert!(text.contains(&format!("; it has ended, but {pid} (")) && text.contains("holds its stdout"), "{text}");
        assert!(text.len() < 1000, "{text}");
    });
}

#[test]
fn a_stop_that_leaves_survivors_is_explained_in_the_error() {
    alone!({
        let mild = Stop::new().signal(Signal::TERM, SHORT);
        let deaf = fixture("deaf").arg("60000").stop(mild.clone());
        let error = deaf.timeout(Duration::from_secs(1)).run().unwrap_err();
        let pid = error.output().pid().unwrap();
        let leftover = Leftover(vec![pid]);
        let explanation = error.output().explanation().unwrap();
        assert_eq!((explanation.pid, explanation.life), (pid, Life::Running));
        assert_eq!(explanation.streams[1].tail, "ready");
        let text = error.to_string();
        assert!(text.contains(&format!("still alive: {pid}")), "{text}");
        assert!(text.contains("; it sleeps of its own will ("), "{text}");
        assert!(!text.contains("it has ended"), "{text}");
        drop(leftover);
        // One that shares its streams with nobody of ours.
        let silent = fixture("deaf").arg("60000").stdout(Stdio::null()).stop(mild.clone());
        let error = silent.timeout(Duration::from_secs(1)).call().unwrap_err();
        let pid = error.output().pid().unwrap();
        drop(Leftover(vec![pid]));
        assert_eq!(error.output().explanation().map(|explanation| explanation.pid), Some(pid), "{error}");
        // A whole pipeline.
        let two = (fixture("deaf").arg("60000") | fixture("cat")).stop(mild);
        let error = two.timeout(Duration::from_secs(1)).output().unwrap_err();
        let pids: Vec<u32> = error.output().survivors().iter().map(|entry| entry.pid).collect();
        let _leftover = Leftover(pids.clone());
        let explanation = error.output().explanation().unwrap();
        assert!(explanation.stages.iter().any(|stage| stage.pid == pids[0]), "{explanation}");
        wait_for("no zombie", || {
            drop(Leftover(pids.clone()));
            Command::new("true").call().unwrap();
            crate::support::children().is_empty()
        });
    });
}

#[test]
fn nobody_looks_when_nothing_is_left_behind() {
    alone!({
        let output = fixture("echo").arg("words").output().unwrap();
        assert!(output.explanation().is_none());
        let error = fixture("sleep").arg("60000").timeout(SHORT).output().unwrap_err();
        assert_eq!(error.output().cause(), Cause::Timeout);
        assert!(error.output().explanation().is_none());
        let error = fixture("flood").capture_limit(1000, procession::Overflow::Fail).output().unwrap_err();
        assert_eq!(error.output().cause(), Cause::Overflow);
        assert!(error.output().explanation().is_none(), "what is not read to the end on purpose needs no explanation");
    });
}

// ---- secrets, rights

#[test]
fn secrets_are_masked_everywhere() {
    alone!({
        if !sees_calls() {
            return;
        }
        let secret = "hunter2";
        let script = "echo my hunter2; sh -c 'sleep 60; true' \"$2\" & exec 5<>\"$1\"; read word <&5";
        let scratch = crate::support::Scratch::new();
        let fifo = scratch.join("hunter2");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let command = Command::shell(script).arg("sh").arg(&fifo).secret_env("TOKEN", secret);
        let mut child = command.secret_arg(secret).pipe_all().process_group(0).kill_on_drop().spawn().unwrap();
        let error = child.communicate_timeout((), Duration::from_millis(300)).unwrap_err();
        assert!(error.is_timeout());
        let explanation = because(&child, "the read", |reason| matches!(reason, Reason::WaitsIn { who: None, .. }));
        assert_says(&explanation, &["it waits in read on descriptor 0 (", "/***)", "belongs to it: "]);
        assert!(!explanation.to_string().contains(secret), "{explanation}");
        assert!(!format!("{explanation:?}").contains(secret), "{explanation:?}");
        assert_says(&explanation, &["***", "    | my ***"]);
        // Secrets at the border of what is shown: a long one leaves little of what was looked at.
        for secret in [secret, "correct-horse-battery-staple-and-two-hunters"] {
            for size in [400, 512, 513, 5_000, 10_000] {
                let script = "i=0; while [ $i -lt $1 ]; do printf %s $2; i=$((i+${#2})); done; exec sleep 60";
                let command = Command::shell(script).args(["sh", &size.to_string()]).secret_arg(secret);
                let mut child = command.pipe_all().kill_on_drop().spawn().unwrap();
                let mut heard = 0;
                while heard < size {
                    let error = child.communicate_timeout((), Duration::from_millis(100)).unwrap_err();
                    heard = error.output().stdout().len();
                }
                let tail = &child.explain().streams[1].tail;
                assert!(!tail.is_empty() && tail.bytes().all(|byte| byte == b'*'), "{size}: {tail}");
            }
        }
    });
}

#[test]
fn without_rights_less_is_known_and_nothing_fails() {
    alone!({
        if done_as_nobody() {
            return;
        }
        let mut cat = fixture("cat").pipe_all().spawn().unwrap();
        let explanation = explained(&cat, "the child", |explanation| explanation.process.is_some());
        assert_eq!(explanation.life, Life::Running);
        assert!(explanation.sees_processes && explanation.streams.iter().all(|stream| stream.ours), "{explanation}");
        drop(cat.stdin.take());
        cat.handle().wait().unwrap();
        // Our own program may not look into its pipes, and ours are open all the same.
        if !is_root() && std::path::Path::new("/bin/su").exists() {
            // A set-user-id program belongs to another user.
            let mut su = Command::new("/bin/su").args(["-c", "true"]).pipe_all().kill_on_drop().spawn().unwrap();
            let explanation = su.explain();
            assert!(explanation.streams.iter().all(|stream| stream.ours), "{explanation}");
            let _ = su.communicate(());
        }
    });
}

#[test]
fn a_process_of_another_user() {
    alone!({
        if !is_root() || !sees_calls() {
            return;
        }
        let cat = fixture("cat").pipe_all().user(65_534).group(65_534).kill_on_drop();
        let Ok(cat) = cat.spawn() else { return };
        because(&cat, "what root may see", |reason| matches!(reason, Reason::WaitsForInput { who: None, .. }));
        crate::talk::without_rights(|| {
            // Another user's process: its state may be seen, and no more.
            let explanation = cat.explain();
            assert_eq!((explanation.life, explanation.pid), (Life::Running, cat.id()));
            let process = explanation.process.as_ref().unwrap();
            assert_eq!((process.state, &process.call), ('S', &None), "{explanation}");
            assert!(explanation.streams.iter().all(|stream| stream.ours && stream.waiting == Some(0)), "{explanation}");
        });
    });
}

#[test]
fn serial_numbers_grow_and_are_never_used_again() {
    alone!({
        let mut last = 0;
        for _ in 0..3 {
            let mut child = fixture("exit").arg("0").spawn().unwrap();
            let serial = child.handle().serial();
            assert!(serial > last && child.handle().clone().serial() == serial);
            last = serial;
            child.wait().unwrap();
        }
    });
}
