//! A pool and unfriendly children, systems without room, callers who leave in the middle, and what a pool costs: all with real
//! processes.

use crate::support::{Scratch, alone, children, done_as_nobody, fixture, is_running, state_of, wait_for};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use procession::pool::{Halt, Observer, Outcome, Pending, Pool, Retry, ReturnWhen, Task, TaskNews, as_completed, wait};
use procession::{Command, Deadline, ErrorKind, Signal, SpawnRoute, Stdio, Stop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[path = "../../benches/src/tiny.rs"]
#[allow(dead_code)]
mod tiny;

/// See `pool_faults`.
fn soon() {
    // SAFETY: an integer argument.
    unsafe { libc::alarm(60) };
}

fn sleeper() -> Command {
    Command::new("sleep").arg("600")
}

fn yes() -> Command {
    Command::new("true")
}

fn shell(script: impl Into<String>) -> Command {
    Command::shell(script.into())
}

fn silent_panics() {
    std::panic::set_hook(Box::new(|_| ()));
}

/// The number that a child has written to a file.
fn pid_in(path: &Path) -> u32 {
    let read = || std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'));
    wait_for("the number of a child", || read().is_some());
    read().unwrap().trim().parse().unwrap()
}

fn kill(pid: u32, signal: libc::c_int) {
    // SAFETY: integer arguments; the child is not reaped, because its end was not told.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

const CANCELLED: Outcome = Outcome::Cancelled { confirmed: true };
const KILLED: Outcome = Outcome::Signalled { signal: Signal::KILL, exact: true };

// ---- children ----

/// G1, L14: whichever it is, the others are run, and it has a cause.
#[test]
fn a_child_that_is_killed_fails_alone() {
    alone!({
        soon();
        let pool = Pool::new(3);
        let done = pool.map((0..9).map(|number| if number % 4 == 0 { shell("kill -9 $$") } else { yes() }));
        for (number, done) in done.iter().enumerate() {
            assert_eq!(done.outcome(), if number % 4 == 0 { KILLED } else { Outcome::Exited(0) });
        }
        let scratch = Scratch::new();
        let path = scratch.join("pid");
        let victim = pool.apply_async(shell(format!("echo $$ > {}; exec sleep 600", path.display()))).unwrap();
        let other = pool.apply_async(sleeper()).unwrap();
        kill(pid_in(&path), libc::SIGKILL);
        assert_eq!(victim.wait().outcome(), KILLED);
        assert!(other.is_running());
    });
}

#[test]
fn a_child_that_ignores_the_wish_to_end_is_killed() {
    alone!({
        soon();
        let scratch = Scratch::new();
        let path = scratch.join("pid");
        let deaf = format!("trap '' TERM; echo $$ > {}; while :; do sleep 1; done", path.display());
        let pool = Pool::new(2);
        let stop = Stop::term_then_kill(Duration::from_millis(100));
        let pending = pool.apply_async(shell(deaf).stop(stop)).unwrap();
        let pid = pid_in(&path);
        assert!(pending.cancel());
        assert_eq!(pending.wait().outcome(), CANCELLED);
        assert!(!is_running(pid));
    });
}

#[test]
fn stopped_children_are_cancelled_and_timed_out() {
    alone!({
        soon();
        let scratch = Scratch::new();
        let pool = Pool::new(2);
        let stops = |path: &Path| shell(format!("echo $$ > {}; kill -STOP $$; exec sleep 600", path.display()));
        let (one, two) = (scratch.join("one"), scratch.join("two"));
        let cancelled = pool.apply_async(stops(&one)).unwrap();
        let timed_out = pool.apply_async(stops(&two).timeout(Duration::from_secs(1))).unwrap();
        let pid = pid_in(&one);
        wait_for("the stop", || state_of(pid) == Some('T'));
        assert!(cancelled.cancel());
        assert_eq!(cancelled.wait().outcome(), CANCELLED);
        assert_eq!(timed_out.wait().outcome(), Outcome::TimedOut);
    });
}

#[test]
fn grandchildren_that_hold_pipes_hold_nobody_up() {
    alone!({
        soon();
        let pool = Pool::new(2);
        let begin = Instant::now();
        let done = pool.map((0..6).map(|_| fixture("grandchild").arg("30000")));
        for done in &done {
            assert!(done.success(), "{done:?}");
            let said = done.output().stdout_lossy();
            let pid: u32 = said.trim().strip_prefix("grandchild ").unwrap().parse().unwrap();
            if is_running(pid) {
                kill(pid, libc::SIGKILL);
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    });
}

/// G17: what one child holds open is not what another one waits for.
#[test]
fn no_child_holds_the_pipe_of_another() {
    alone!({
        soon();
        let pool = Pool::new(12);
        let _sleepers = pool.submit_all((0..4).map(|_| sleeper())).unwrap();
        let cats = pool.map((0..40).map(|number| Command::new("cat").input(format!("{number}"))));
        for (number, done) in cats.iter().enumerate() {
            assert_eq!(done.output().stdout_lossy(), number.to_string());
        }
        assert_eq!(pool.running(), 4);
    });
}

#[test]
fn a_crowd_that_ends_at_once() {
    alone!({
        soon();
        let (width, count) = if SpawnRoute::current() == SpawnRoute::Portable { (60, 250) } else { (500, 2000) };
        let (reader, writer) = nix::unistd::pipe().unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).unwrap();
        let wait = |_| {
            let gate = Stdio::from(reader.try_clone().unwrap());
            Command::new("cat").stdin(gate).stdout(Stdio::null()).stderr(Stdio::null())
        };
        let pool = Pool::new(width);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(20_000), hard).unwrap();
        let pending = pool.submit_all((0..count).map(wait)).unwrap();
        wait_for("a full house", || pool.running() == width);
        drop(writer);
        pool.close();
        pool.join().unwrap();
        assert!(pending.iter().all(|one| one.success() == Some(true)));
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        drop(reader);
    });
}

#[test]
fn many_time_out_at_once() {
    alone!({
        soon();
        let pool = Pool::new(50);
        let done = pool.map((0..150).map(|_| sleeper().timeout(Duration::from_millis(200))));
        assert!(done.iter().all(|done| done.outcome() == Outcome::TimedOut));
    });
}

// ---- a system without room ----

/// G14.
#[test]
fn thousands_in_a_small_table() {
    alone!({
        soon();
        setrlimit(Resource::RLIMIT_NOFILE, 256, 256).unwrap();
        let pool = Pool::new(64);
        assert!(pool.imap_unordered((0..2000).map(|_| yes())).all(|done| done.success()));
    });
}

#[test]
fn descriptors_run_out_in_the_middle_and_come_back() {
    alone!({
        soon();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let pool = Pool::new(16);
        let mut count = 0;
        for done in pool.imap_unordered((0..300).map(|_| yes())) {
            assert!(done.success(), "{done:?}");
            count += 1;
            match count {
                50 => setrlimit(Resource::RLIMIT_NOFILE, 24, hard).unwrap(),
                250 => setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap(),
                _ => {}
            }
        }
        assert_eq!(count, 300);
    });
}

#[test]
fn processes_run_out_in_the_middle_and_come_back() {
    alone!({
        soon();
        if done_as_nobody() {
            return;
        }
        let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
        let pool = Pool::new(3);
        assert!(pool.map((0..6).map(|_| yes())).iter().all(|done| done.success()));
        let runs = pool.apply_async(sleeper()).unwrap();
        wait_for("its start", || runs.is_running());
        setrlimit(Resource::RLIMIT_NPROC, 0, hard).unwrap();
        let waits = pool.submit_all((0..5).map(|_| yes())).unwrap();
        assert!(waits[0].wait_timeout(Duration::from_millis(500)).is_none(), "{:?}", waits[0]);
        setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
        assert!(waits.iter().all(|one| one.wait().success()), "{waits:?}");
        assert!(runs.is_running());
        // With nothing running it is tried for some seconds, and then that is the end of it.
        runs.cancel();
        let _ = runs.wait();
        setrlimit(Resource::RLIMIT_NPROC, 0, hard).unwrap();
        let error = pool.apply(yes()).unwrap_err();
        setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        assert!(pool.apply(yes()).is_ok());
    });
}

// ---- callers ----

struct Unhappy;

impl Observer for Unhappy {
    fn see(&mut self, news: &TaskNews<'_>) {
        assert!(!matches!(news, TaskNews::Finished(_)), "unhappy");
    }
}

#[test]
fn who_looks_on_and_panics_ends_nothing() {
    alone!({
        soon();
        silent_panics();
        let count = Arc::new(AtomicUsize::new(0));
        let pool = Pool::new(2).observe(Unhappy);
        for _ in 0..20 {
            let count = Arc::clone(&count);
            pool.apply_async_with(yes(), move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        }
        pool.close();
        assert!(pool.join().unwrap_err().to_string().contains("unhappy"));
        assert_eq!(count.load(Ordering::Relaxed), 20);
    });
}

/// G16, L12: dropped at any moment, nothing is left, and everybody is told.
#[test]
fn dropped_at_any_moment_it_leaves_nothing() {
    alone!({
        soon();
        for round in 0..40_u64 {
            let pool = Pool::new(4);
            let commands = [yes(), sleeper(), shell("sleep 0.003"), shell("sleep 600 & wait"), shell("exit 3")];
            let tasks = commands.iter().cycle().take(15);
            let retry = Retry::times(9).pause_of(Duration::from_millis(round));
            let pending = pool.submit_all(tasks.map(|command| Task::from(command).retry(retry.clone()))).unwrap();
            std::thread::sleep(Duration::from_micros(round * round * 20));
            drop(pool);
            assert!(pending.iter().all(Pending::is_done), "round {round}: {pending:?}");
            assert_eq!(children(), Vec::<String>::new(), "round {round}");
        }
    });
}

#[test]
fn unwinding_out_of_a_loop_cancels_what_is_left() {
    alone!({
        soon();
        silent_panics();
        let pool = Pool::new(3);
        let left = catch_unwind(AssertUnwindSafe(|| {
            let mut results = pool.imap([yes(), sleeper(), sleeper(), sleeper()]);
            let first = results.next();
            panic!("after {first:?}");
        }));
        assert!(left.is_err());
        wait_for("the end of all", || pool.running() + pool.waiting() == 0);
        assert!(pool.apply(yes()).is_ok());
    });
}

#[test]
fn a_task_is_cancelled_wherever_it_is() {
    alone!({
        soon();
        let pool = Pool::new(1).retry(Retry::times(1).pause_of(Duration::from_secs(600)));
        let pausing = pool.apply_async(Command::new("false")).unwrap();
        wait_for("the pause", || pool.running() == 0 && pool.apply(yes()).is_ok());
        let running = pool.apply_async(sleeper()).unwrap();
        let queued = pool.apply_async(yes()).unwrap();
        wait_for("its start", || running.is_running());
        for (one, attempts) in [(pausing, 1), (queued, 0), (running, 1)] {
            assert!(one.cancel());
            assert_eq!((one.wait().outcome(), one.wait().attempts()), (CANCELLED, attempts));
            assert!(!one.cancel());
        }
        assert_eq!((pool.running(), pool.waiting()), (0, 0));
    });
}

#[test]
fn each_attempt_has_the_whole_timeout() {
    alone!({
        soon();
        let pool = Pool::new(2);
        let task = Task::new(sleeper().timeout(Duration::from_millis(100))).retry(Retry::times(2));
        let done = pool.apply_async(task).unwrap().into_done();
        assert_eq!((done.outcome(), done.attempts()), (Outcome::TimedOut, 3));
        assert!(done.ended() - done.submitted() >= Duration::from_millis(300));
    });
}

#[test]
fn a_run_is_halted_for_each_reason_now_or_later() {
    alone!({
        soon();
        let fails = || Command::new("false");
        let count = |halt: Halt, tasks: &[Command]| {
            let done = Pool::new(1).halt(halt).map(tasks);
            done.iter().filter(|done| done.attempts() > 0).count()
        };
        assert_eq!(count(Halt::on_failures(1), &[yes(), fails(), yes()]), 2);
        assert_eq!(count(Halt::on_failures(2), &[fails(), yes(), fails(), yes()]), 3);
        assert_eq!(count(Halt::on_failure_percent(50), &[yes(), yes(), fails(), fails(), yes()]), 4);
        assert_eq!(count(Halt::on_successes(2), &[yes(), fails(), yes(), yes()]), 3);
        for (halt, outcome) in [(Halt::on_failures(1), Outcome::Exited(7)), (Halt::on_failures(1).now(), CANCELLED)] {
            let scratch = Scratch::new();
            let gate = scratch.join("gate");
            // It ends when the other one has: if it may.
            let patient = shell(format!("trap '' HUP; until test -e {}; do sleep 0.01; done; exit 7", gate.display()));
            let pool = Pool::new(2).halt(halt);
            let patient = pool.apply_async(patient).unwrap();
            wait_for("its start", || patient.is_running());
            let failed = pool.apply_async(fails()).unwrap();
            let refused = pool.apply_async(yes()).unwrap();
            assert_eq!(failed.wait().outcome(), Outcome::Exited(1));
            assert_eq!(refused.wait().outcome(), Outcome::NotStarted);
            if outcome != CANCELLED {
                std::fs::write(&gate, "").unwrap();
            }
            assert_eq!(patient.wait().outcome(), outcome);
        }
    });
}

// ---- the classes of Python ----

/// L01, E01: as many as there are processors.
#[test]
fn the_width_is_the_number_of_processors() {
    assert_eq!(Pool::new(0).width(), std::thread::available_parallelism().unwrap().get());
}

/// L02, L03, L13, E06.
#[test]
fn a_pending_task_tells_how_it_stands() {
    alone!({
        soon();
        let pool = Pool::new(1);
        assert_eq!(pool.apply(shell("echo yes")).unwrap().stdout_lossy(), "yes\n");
        assert_eq!(pool.apply(shell("exit 4")).unwrap().status().code(), Some(4));
        assert_eq!(pool.apply(Command::new("/no/such")).unwrap_err().kind(), ErrorKind::NotFound);
        let (said, heard) = std::sync::mpsc::channel();
        let pending = pool.apply_async_with(sleeper(), move |done| said.send(done.outcome()).unwrap()).unwrap();
        wait_for("its start", || pending.is_running());
        assert!(pending.wait_timeout(Duration::from_millis(20)).is_none());
        assert_eq!((pending.is_done(), pending.success()), (false, None));
        assert!(pending.cancel());
        assert_eq!(heard.recv().unwrap(), CANCELLED);
        assert_eq!((pending.is_done(), pending.success(), pending.is_running()), (true, Some(false), false));
        assert!(pending.into_done().result().unwrap_err().is_cancelled());
    });
}

/// L06: the iterator has a timeout for each record; E03: and one for all.
#[test]
fn an_iteration_has_its_deadlines() {
    alone!({
        soon();
        let pool = Pool::new(2);
        let mut results = pool.imap([yes(), sleeper(), yes()]);
        assert_eq!(results.next_timeout(Duration::from_secs(20)).unwrap().index(), 0);
        assert!(results.next_timeout(Duration::from_millis(50)).is_none());
        assert!(!results.is_over());
        drop(results);
        let all = pool.imap([sleeper(), sleeper(), sleeper()]).deadline(Deadline::after(Duration::from_millis(100)));
        let outcomes: Vec<_> = all.map(|done| done.outcome()).collect();
        assert_eq!(outcomes, [CANCELLED; 3]);
    });
}

/// L08, E02: what was taken is run; L10: join wants a closed pool, and has a timeout; L09, E05: whoever waits is told.
#[test]
fn close_join_and_terminate() {
    alone!({
        soon();
        let pool = Pool::new(1);
        assert!(pool.join().unwrap_err().is_invalid_input());
        let pending = pool.submit_all([yes(), sleeper(), yes()]).unwrap();
        pool.close();
        assert!(pool.apply(yes()).unwrap_err().is_invalid_input());
        assert!(pending[0].wait().success());
        let error = pool.join_timeout(Duration::from_millis(50)).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("2 tasks"), "{error}");
        pool.terminate();
        pool.join().unwrap();
        assert_eq!([1, 2].map(|place: usize| pending[place].done().unwrap().outcome()), [CANCELLED, CANCELLED]);
    });
}

/// A loop whose pool is closed meanwhile comes to its end; L11.
#[test]
fn a_loop_ends_when_its_pool_is_closed() {
    alone!({
        soon();
        let pool = Pool::new(2).look_ahead(0);
        let mut seen = Vec::new();
        for done in pool.imap((0..10).map(|_| yes())) {
            pool.close();
            seen.push(done.outcome());
        }
        // The one that is refused says so, and is the last one that was taken.
        let (refused, ran) = seen.split_last().unwrap();
        assert_eq!(*refused, Outcome::NotStarted, "{seen:?}");
        assert!(!ran.is_empty() && ran.iter().all(|outcome| *outcome == Outcome::Exited(0)), "{seen:?}");
        let done = Pool::new(2).scope(|pool| pool.apply_async(shell("sleep 0.2"))).unwrap();
        assert!(done.done().unwrap().success());
    });
}

/// E07.
#[test]
fn several_are_waited_for_in_the_order_of_their_ends() {
    alone!({
        soon();
        let pool = Pool::new(3);
        let pending = pool.submit_all([shell("sleep 0.5"), yes(), sleeper()]).unwrap();
        let order: Vec<usize> = as_completed(&pending, Deadline::NEVER).take(2).map(|(place, _)| place).collect();
        assert_eq!(order, [1, 0]);
        assert_eq!(wait(&pending, ReturnWhen::All, Deadline::now()), (vec![0, 1], vec![2]));
        pending[2].cancel();
        assert_eq!(wait(&pending, ReturnWhen::All, Deadline::NEVER), (vec![0, 1, 2], vec![]));
    });
}

// ---- what a lane saves, and what must not be missed for it ----

/// Streams come to their end before the process, after it, with it, in pieces, or there are none.
#[test]
fn an_end_is_noticed_in_whatever_way_it_comes() {
    alone!({
        soon();
        let cases = [
            ("exec >&- 2>&-; sleep 0.2; exit 3", Outcome::Exited(3), "", ""),
            ("exec >&-; echo late >&2; sleep 0.1; echo later >&2; exit 4", Outcome::Exited(4), "", "late\nlater\n"),
            ("sleep 0.7 & echo first", Outcome::Exited(0), "first\n", ""),
            (
                "for word in 1 2 3 4; do echo $word; echo $word$word >&2; sleep 0.02; done",
                Outcome::Exited(0),
                "1\n2\n3\n4\n",
                "11\n22\n33\n44\n",
            ),
            ("echo words; kill -9 $$", KILLED, "words\n", ""),
            ("exit 5", Outcome::Exited(5), "", ""),
        ];
        let pool = Pool::new(8);
        let tasks = (0..60).map(|place| shell(cases[place % cases.len()].0));
        for (place, done) in pool.map(tasks).into_iter().enumerate() {
            let (script, outcome, stdout, stderr) = cases[place % cases.len()];
            let output = done.output();
            let said = (output.stdout_lossy(), output.stderr_lossy());
            assert_eq!((done.outcome(), &*said.0, &*said.1), (outcome, stdout, stderr), "{script}");
        }
        let mute = shell("exit 6").stdout(Stdio::inherit()).stderr(Stdio::inherit());
        assert_eq!(pool.apply(mute).unwrap().status().code(), Some(6));
    });
}

/// It is read once for several that start together, and not for those that come later.
#[test]
fn tasks_inherit_the_environment_that_there_is_when_they_start() {
    alone!({
        soon();
        let pool = Pool::new(4);
        for round in 0..5 {
            // SAFETY: the threads of the pool have nothing to do, and there are no others.
            unsafe { std::env::set_var("PROCESSION_TEST_ROUND", round.to_string()) };
            let said = |command: fn(Command) -> Command| {
                let done = pool.map((0..8).map(|_| command(shell("echo $PROCESSION_TEST_ROUND $PROCESSION_TEST_OWN"))));
                done.iter().map(|done| done.output().stdout_lossy().into_owned()).collect::<Vec<_>>()
            };
            assert_eq!(said(|command| command), vec![format!("{round}\n"); 8]);
            assert_eq!(said(|command| command.env("PROCESSION_TEST_OWN", "x")), vec![format!("{round} x\n"); 8]);
            assert_eq!(said(|command| command.env_remove("PROCESSION_TEST_ROUND")), vec!["\n"; 8]);
        }
        drop(pool);
        // SAFETY: as above.
        unsafe { std::env::remove_var("PROCESSION_TEST_ROUND") };
    });
}

/// The thread that starts it stays on one processor.
#[test]
fn children_may_run_on_every_processor_whoever_on_a_lane_starts_them() {
    alone!({
        soon();
        let everywhere = fixture("affinity").output().unwrap().into_stdout();
        let (say, heard) = std::sync::mpsc::channel();
        let pool = Pool::new(4);
        for _ in 0..8 {
            let say = say.clone();
            let then = move |done: &procession::Done| {
                let of_callback = fixture("affinity").output().unwrap().into_stdout();
                say.send((done.output().stdout().to_vec(), of_callback)).unwrap();
            };
            let _pending = pool.apply_async_with(fixture("affinity"), then).unwrap();
        }
        drop(say);
        assert_eq!(heard.iter().collect::<Vec<_>>(), vec![(everywhere.clone(), everywhere); 8]);
    });
}

// ---- what it costs ----

#[test]
fn there_are_no_more_threads_than_processors() {
    alone!({
        soon();
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let (before, processors) = (threads(), std::thread::available_parallelism().unwrap().get());
        if SpawnRoute::current() == SpawnRoute::Portable {
            eprintln!("skipped: the portable engine has threads of its own");
            return;
        }
        let pool = Pool::new(64);
        assert_eq!(threads(), before);
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in pool.imap_unordered((0..100).map(|_| yes())) {
                        most.fetch_max(threads(), Ordering::Relaxed);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!(most <= before + 4 + processors, "{most} threads, {before} before, {processors} processors");
    });
}

/// What the system is asked for each job, by the pool and the child together.
#[test]
fn a_job_takes_few_system_calls() {
    const JOBS: &str = "PROCESSION_TEST_JOBS";
    // Not alone: looking for litter takes calls as well, more where more processes run.
    if let Some(jobs) = std::env::var(JOBS).ok().map(|jobs| jobs.parse::<usize>().unwrap()) {
        let tiny = tiny::Tiny::new();
        let job = |_| Command::new(tiny.path()).stderr(Stdio::inherit());
        assert!(Pool::new(8).map((0..jobs).map(job)).iter().all(|done| done.success()));
        return;
    }
    alone!({
        soon();
        // Eight of the child until it is the program, eight of the pool, and waits in which strace has its part.
        let most = match SpawnRoute::current() {
            SpawnRoute::Clone3 => 18.5,
            // And one for each signal that there is, and for the mask.
            SpawnRoute::Clone => 90.0,
            _ => {
                eprintln!("skipped: it is the other engine that is quick");
                return;
            }
        };
        let calls = |jobs: usize| -> Option<u64> {
            let scratch = Scratch::new();
            let counts = scratch.join("counts");
            let mut straced = std::process::Command::new("strace");
            straced.args(["-f", "-c", "-o"]).arg(&counts).arg(std::env::current_exe().unwrap());
            straced.args(std::env::args_os().skip(1)).env(JOBS, jobs.to_string());
            let Ok(output) = straced.output() else { return None };
            if !output.status.success() {
                eprintln!("skipped: strace: {}", String::from_utf8_lossy(&output.stderr));
                return None;
            }
            let text = std::fs::read_to_string(&counts).unwrap();
            // Share, seconds, microseconds a call, calls, perhaps errors, name.
            let of = |name: &str| {
                let line = text.lines().find(|line| line.split_ascii_whitespace().last() == Some(name));
                line.map_or(0, |line| line.split_ascii_whitespace().nth(3).unwrap().parse::<u64>().unwrap())
            };
            // In a build for debugging the standard library looks at each descriptor before it closes it.
            Some(of("total") - of("fcntl"))
        };
        let (Some(few), Some(many)) = (calls(100), calls(1100)) else {
            eprintln!("skipped: strace does not work here");
            return;
        };
        let each = (many - few) as f64 / 1000.0;
        eprintln!("{each} system calls for each job");
        assert!(each <= most, "{each} system calls for each job");
    });
}
