//! The awaited verbs: on every runtime the same record as the blocking ones, and nothing is lost or left behind wherever a future is
//! dropped.

use crate::drivers::{at_most, at_most_until, on_all_runtimes, on_own_scope, ready};
use crate::support::{alone, fixture, is_running, wait_for};
use crate::talk::pattern;
use procession::future::{self, Awaited, block_on, idle, scope, sleep};
use procession::{
    ChildSet, Command, Conversation, Error, ErrorKind, Filter, Follow, News, Output, Overflow, Pipeline, Pool, Signal,
    Stdio, Stop,
};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(40);

/// What is the same however the waiting was done.
fn essence(result: Result<Output, Error>) -> String {
    let (error, output) = match result {
        Ok(output) => (None, output),
        Err(error) => (Some((error.kind(), error.is_timeout())), error.output().clone()),
    };
    let sums = [output.stdout(), output.stderr()].map(|bytes| {
        (bytes.len(), bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte))))
    });
    let stages: Vec<_> = output.stages().iter().map(|stage| (stage.status(), stage.stderr().len())).collect();
    format!(
        "{error:?} {} {:?} {sums:?} {} {} {} {stages:?}",
        output.status(),
        output.cause(),
        output.is_complete(),
        // How much of what was refused went into the pipe is a matter of time.
        if output.input_refused() { 0 } else { output.input_accepted() },
        output.input_refused(),
    )
}

/// Commands whose runs take every turn that a run can take.
fn commands() -> Vec<Command> {
    let big = pattern(1 << 20);
    vec![
        Command::new("true"),
        Command::shell("echo out; echo err >&2; exit 3"),
        Command::shell("kill -9 $$"),
        Command::new("cat").input(&big),
        fixture("alternate").args(["1048576", "65537", "4095"]),
        fixture("a2").args(["100000", "100000"]).input(&big),
        Command::shell("echo early; sleep 60").timeout(Duration::from_millis(150)),
        Command::shell("trap '' TERM; echo deaf; while :; do sleep 0.05; done")
            .timeout(Duration::from_millis(150))
            .stop(Stop::term_then_kill(Duration::from_millis(50))),
        Command::shell("sleep 2 & echo left").drain(Duration::from_millis(50)),
        Command::new("head").args(["-c", "1"]).input(&big),
        Command::new("yes").capture_limit(100_000, Overflow::Fail),
        Command::shell("echo out; echo err >&2").stderr(Stdio::stdout()),
        Command::new("/no/such/program"),
        Command::new("cat").input("x").stdin(Stdio::null()),
        Command::shell("exec >&- 2>&-; sleep 0.1; exit 4"),
    ]
}

#[test]
fn commands_have_the_same_record_on_every_runtime() {
    alone!(after ready, {
        let expected: Arc<Vec<String>> = Arc::new(commands().iter().map(|command| essence(command.output())).collect());
        on_all_runtimes(|| {
            let expected = Arc::clone(&expected);
            async move {
                for (command, expected) in commands().iter().zip(&*expected) {
                    assert_eq!(&essence(command.future().output().await), expected, "{command}");
                }
            }
        });
    });
}

#[test]
fn pipelines_have_the_same_record_on_every_runtime() {
    fn pipelines() -> Vec<Pipeline> {
        let big = pattern(300_000);
        vec![
            Command::new("cat").input(&big) | Command::new("tr").args(["a-z", "A-Z"]) | Command::new("cat"),
            Command::shell("echo one; exit 2") | Command::shell("cat; echo oops >&2; exit 3"),
            Command::new("yes") | Command::new("head").args(["-n", "3"]),
            (Command::new("cat") | Command::shell("sleep 60")).timeout(Duration::from_millis(100)),
            (Command::shell("seq 1 20000") | Command::new("cat"))
                .filter(Filter::keep_lines(|line| line.ends_with(b"7"))),
        ]
    }
    alone!(after ready, {
        let expected: Arc<Vec<String>> = Arc::new(pipelines().iter().map(|whole| essence(whole.output())).collect());
        on_all_runtimes(|| {
            let expected = Arc::clone(&expected);
            async move {
                for (whole, expected) in pipelines().iter().zip(&*expected) {
                    assert_eq!(&essence(whole.future().output().await), expected, "{whole}");
                }
            }
        });
    });
}

#[test]
fn the_other_verbs_say_the_same() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let three = Command::shell("exit 3");
            assert_eq!(three.future().call().await.unwrap().code(), Some(3));
            assert_eq!(three.future().status().await.unwrap().code(), Some(3));
            assert_eq!(three.future().check_call().await.unwrap_err().kind(), ErrorKind::Status);
            let echo = Command::new("echo").arg("word");
            assert_eq!(echo.future().check_output().await.unwrap(), b"word\n");
            assert_eq!(echo.future().check_output_text().await.unwrap(), "word\n");
            let mut buffer = Vec::with_capacity(100);
            echo.future().output_into(&mut buffer).await.unwrap();
            assert_eq!(buffer, b"word\n");
            let mut lines = Vec::new();
            let loud = Command::shell("printf 'a\\nb\\nc'");
            loud.future().for_each_line(|line| lines.push(line.to_string())).await.unwrap();
            assert_eq!(lines, ["a", "b", "c"]);
            let mut pieces = String::new();
            loud.future().for_each_text(|_, piece| pieces.push_str(piece)).await.unwrap();
            assert_eq!(pieces, "a\nb\nc");

            let mut child = Command::shell("sleep 0.05; exit 5").spawn().unwrap();
            assert_eq!(child.future().wait_timeout(Duration::from_millis(1)).await.unwrap(), None);
            assert_eq!(child.future().wait().await.unwrap().code(), Some(5));
            assert_eq!(child.handle().future().wait().await.unwrap().code(), Some(5));

            let mut both = (Command::new("cat") | Command::new("cat")).spawn().unwrap();
            assert!(both.future().wait().await.unwrap().success());

            let mut stubborn = Command::shell("trap '' TERM; echo up; while :; do sleep 0.05; done")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let first = stubborn.future().lines().next().await.unwrap().unwrap();
            assert_eq!(first.bytes(), b"up");
            let report = stubborn.future().stop(&Stop::term_then_kill(Duration::from_millis(50))).await.unwrap();
            assert_eq!((report.status().signal(), report.steps_taken()), (Some(Signal::KILL), 2));
        });
    });
}

#[test]
fn turns_are_taken_on_every_runtime() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let adder = "while read -r a b; do echo \"sum $((a + b))\"; done";
            let mut child = Command::shell(adder).pipe_all().spawn().unwrap();
            let mut talk = child.future().converse(LONG);
            for number in 0..50 {
                talk.write_line(format!("{number} 1")).await.unwrap();
                talk.read_until("sum ").await.unwrap();
                let sum = talk.read_line().await.unwrap().unwrap();
                assert_eq!(String::from_utf8(sum).unwrap(), (number + 1).to_string());
            }
            talk.end_input();
            assert_eq!(talk.read_to_end().await.unwrap(), b"");
            drop(talk);
            assert!(child.future().wait().await.unwrap().success());

            let greeter = Command::shell("printf 'name? '; read -r name; echo \"hello $name\"");
            let talk = async |talk: &mut Awaited<Conversation<'_>>| {
                talk.read_until("name? ").await?;
                talk.write_line("world").await?;
                talk.read_line().await
            };
            let (greeting, output) = greeter.future().converse(LONG, talk).await.unwrap();
            assert_eq!((greeting.as_deref(), output.success()), (Some(&b"hello world"[..]), true));
        });
    });
}

#[test]
fn a_set_and_a_pool_are_awaited() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let mut set = ChildSet::new().unwrap();
            for number in 0..20 {
                let command = Command::shell(format!("echo {number}; sleep 0.0{}", number % 3));
                set.start_and_follow(&command, Follow::Lines).unwrap();
            }
            set.add_timer(Duration::from_millis(1));
            let (mut lines, mut ended, mut timers) = (0, 0, 0);
            while let Some(news) = set.future().wait_any().await.unwrap() {
                match news {
                    News::Line { .. } => lines += 1,
                    News::Exit { result, .. } => ended += usize::from(result.unwrap().success()),
                    News::Timer(_) => timers += 1,
                    _ => {}
                }
            }
            assert_eq!((lines, ended, timers), (20, 20, 1));
            for _ in 0..5 {
                set.start(&Command::new("true")).unwrap();
            }
            assert_eq!(set.future().wait_all().await.unwrap().len(), 5);

            let pool = Pool::new(3);
            let commands = (0..12).map(|number| Command::shell(format!("exit {}", number % 2)));
            let done = pool.future().map(commands.clone()).await;
            assert_eq!(done.iter().map(|done| done.index()).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
            let (mut results, mut count) = (pool.future().imap_unordered(commands), 0);
            while let Some(done) = results.next().await {
                count += usize::from(done.success());
            }
            drop(results);
            assert_eq!(count, 6);
            let pending = pool.apply_async(Command::new("sleep").arg("0.05")).unwrap();
            assert!(pending.future().wait_timeout(Duration::from_millis(1)).await.is_none());
            assert!(pending.future().wait().await.success());
            assert_eq!(pool.future().apply(Command::new("echo").arg("x")).await.unwrap().stdout(), b"x\n");
            pool.close();
            pool.future().join().await.unwrap();
        });
    });
}

// ---- dropped at every point

#[test]
fn a_conversation_dropped_at_any_point_goes_on_without_a_loss() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let input = pattern(400_000);
            for polls in 1.. {
                let mut child = fixture("cat").pipe_all().spawn().unwrap();
                let mut first = Some(input.as_slice());
                let (mut drops, mut output) = (0, None);
                while output.is_none() {
                    let input = first.take().unwrap_or_default();
                    output = at_most(polls, child.future().communicate(input)).await;
                    drops += usize::from(output.is_none());
                }
                let output = output.unwrap().unwrap();
                assert!(output.stdout() == input, "{} bytes with a drop after {polls} polls each", output.stdout().len());
                assert_eq!(output.input_accepted(), input.len() as u64);
                if drops == 0 {
                    assert!(polls > 1, "it never waited");
                    break;
                }
            }
        });
    });
}

#[test]
fn the_blocking_verb_goes_on_where_a_dropped_future_stopped() {
    alone!({
        block_on(async {
            let input = pattern(400_000);
            for polls in 1..20 {
                let mut child = fixture("cat").pipe_all().spawn().unwrap();
                let done = at_most(polls, child.future().communicate(input.as_slice())).await;
                let output = match done {
                    Some(output) => output.unwrap(),
                    None => child.communicate_timeout((), LONG).unwrap(),
                };
                assert!(output.stdout() == input, "after {polls} polls");
            }
        })
        .unwrap();
    });
}

#[test]
fn lines_and_turns_dropped_at_any_point_lose_nothing() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            for polls in 1..6 {
                let mut child = Command::shell("for i in 1 2 3 4 5; do echo line $i; sleep 0.002; done; printf rest")
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let (mut lines, mut seen) = (child.future().lines(), Vec::new());
                loop {
                    match at_most(polls, lines.next()).await {
                        Some(Some(line)) => seen.push(line.unwrap().text().into_owned()),
                        Some(None) => break,
                        // Whoever never lets the runtime have a look is told nothing.
                        None => idle().await,
                    }
                }
                drop(lines);
                assert_eq!(seen, ["line 1", "line 2", "line 3", "line 4", "line 5", "rest"]);
                child.future().wait().await.unwrap();

                let mut child = Command::shell("while read -r word; do sleep 0.002; echo \"<$word>\"; done")
                    .pipe_all()
                    .spawn()
                    .unwrap();
                let mut talk = child.future().converse(LONG);
                for word in ["one", "two", "three"] {
                    // A turn that is dropped in vain before it.
                    let vain = at_most_until(polls, Duration::from_millis(5), talk.read_until("never")).await;
                    assert!(vain.is_none());
                    // What a dropped turn has not written is written with the next one.
                    let _ = at_most(polls, talk.write_line(word)).await;
                    let reply = loop {
                        if let Some(reply) = at_most(polls, talk.read_until(">\n")).await {
                            break reply.unwrap();
                        }
                        idle().await;
                    };
                    assert_eq!(reply.bytes(), format!("<{word}>\n").as_bytes());
                }
                talk.end_input();
                drop(talk);
                assert!(child.future().wait().await.unwrap().success());
            }
        });
    });
}

#[test]
fn a_run_that_is_dropped_at_any_point_leaves_no_process() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let command = Command::shell("echo up; cat >/dev/null; sleep 0.02 & sleep 0.01; wait")
                .input(pattern(300_000))
                .stop(Stop::term_then_kill(Duration::from_secs(5)));
            let mut polls = 1;
            while at_most(polls, command.future().output()).await.is_none() {
                polls += 1;
            }
            assert!(polls > 1);
            let whole = command.clone() | Command::shell("cat; sleep 60");
            for polls in 1..6 {
                let dropped = at_most_until(polls, Duration::from_millis(100), whole.future().output()).await;
                assert!(dropped.is_none());
            }
            let talk = async |talk: &mut Awaited<Conversation<'_>>| {
                talk.read_until("never").await?;
                Ok(())
            };
            let forever = Command::shell("echo up; sleep 60");
            for polls in 1..4 {
                let run = forever.future().converse(LONG, talk);
                assert!(at_most_until(polls, Duration::from_millis(100), run).await.is_none());
            }
            // Tokio goes on with the stops by itself; the litter check sees whoever is left.
            let me = std::process::id();
            for _ in 0..2000 {
                let children = std::fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
                if children.trim().is_empty() {
                    break;
                }
                // Those that have ended are reaped by the next start.
                Command::new("true").future().call().await.unwrap();
                sleep(Duration::from_millis(2)).await;
            }
        });
    });
}

#[test]
fn dropping_a_run_waits_for_nobody_where_somebody_goes_on_with_the_stop() {
    alone!({
        let grace = Duration::from_secs(3);
        let pid = Cell::new(0);
        scope(|scope| {
            scope.block_on(async {
                let deaf = Command::shell("trap '' TERM; echo $$; while :; do sleep 0.02; done");
                let deaf = deaf.stop(Stop::term_then_kill(grace));
                let mut run = Box::pin(deaf.future().for_each_line(|line| pid.set(line.text().parse().unwrap())));
                while pid.get() == 0 {
                    assert!(at_most(2, &mut run).await.is_none());
                }
                let begin = Instant::now();
                drop(run);
                assert!(begin.elapsed() < grace / 2);
                assert!(is_running(pid.get()), "the stop goes on without us");
            })
        })
        .unwrap()
        .unwrap();
        assert!(!is_running(pid.get()), "nothing outlives the scope");
    });
}

#[test]
fn a_killed_task_stops_the_tree_of_its_child() {
    alone!({
        let pids = std::cell::RefCell::new(Vec::<u32>::new());
        scope(|scope| {
            let task = scope.spawn(async {
                let tree = Command::shell("echo $$; (sleep 60; :) & echo $!; wait");
                tree.future().for_each_line(|line| pids.borrow_mut().push(line.text().parse().unwrap())).await
            });
            scope
                .block_on(async {
                    while pids.borrow().len() < 2 {
                        sleep(Duration::from_millis(1)).await;
                    }
                    task.kill();
                })
                .unwrap();
        })
        .unwrap();
        for pid in pids.into_inner() {
            wait_for("the end of the tree", || !is_running(pid));
        }
    });
}

// ---- cheap

#[test]
fn nobody_is_woken_while_nothing_happens() {
    alone!(after ready, {
        static POLLS: AtomicUsize = AtomicUsize::new(0);
        on_all_runtimes(|| async {
            for command in [Command::new("sleep").arg("0.3"), Command::shell("sleep 0.3; echo done")] {
                POLLS.store(0, Ordering::Relaxed);
                let command = command.timeout(LONG);
                let mut run = pin!(command.future().output());
                let output = poll_fn(|task| {
                    POLLS.fetch_add(1, Ordering::Relaxed);
                    run.as_mut().poll(task)
                });
                assert!(output.await.unwrap().success());
                // The start, and what the end is made of: output, two ends of streams, and the end of the process.
                let polls = POLLS.load(Ordering::Relaxed);
                assert!(polls <= 6, "{polls} polls");
            }
        });
    });
}

#[test]
fn thousands_wait_on_one_thread() {
    alone!({
        let count = 300;
        scope(|scope| {
            let tasks: Vec<_> = (0..count)
                .map(|number| {
                    scope.spawn(async move {
                        let command = Command::shell(format!("sleep 0.1; echo {number}"));
                        command.future().check_output_text().await.unwrap().trim().parse::<usize>().unwrap()
                    })
                })
                .collect();
            let sum = scope.block_on(async {
                let mut sum = 0;
                for task in tasks {
                    sum += task.await.unwrap();
                }
                sum
            });
            assert_eq!(sum.unwrap(), count * (count - 1) / 2);
            assert_eq!(std::fs::read_dir("/proc/self/task").unwrap().count(), threads());
        })
        .unwrap();
    });
}

/// The threads of a test: its own, and that of the program.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn without_a_runtime_nothing_is_started_and_it_is_said() {
    alone!({
        let mut run = Box::pin(Command::new("sleep").arg("60").output_elsewhere());
        let mut task = std::task::Context::from_waker(std::task::Waker::noop());
        if cfg!(feature = "async-io") {
            return; // which is always there
        }
        match run.as_mut().poll(&mut task) {
            Poll::Ready(Err(error)) => assert!(error.to_string().contains("no runtime"), "{error}"),
            other => panic!("{other:?}"),
        }
    });
}

/// A run that owns its command.
trait Elsewhere {
    fn output_elsewhere(self) -> impl Future<Output = Result<Output, Error>>;
}

impl Elsewhere for Command {
    async fn output_elsewhere(self) -> Result<Output, Error> {
        self.future().output().await
    }
}

#[test]
fn a_task_may_use_blocking_verbs_too() {
    alone!({
        on_own_scope(&|| async {
            assert_eq!(Command::new("echo").arg("x").output().unwrap().stdout(), b"x\n");
            assert!(future::block_on(async {}).is_err(), "a scope inside of a task would hold up all others");
        });
    });
}

#[test]
fn many_that_time_out_at_once_share_their_looks() {
    alone!({
        let (begun, cpu) = (Instant::now(), crate::talk::cpu_time());
        scope(|scope| {
            for _ in 0..300 {
                scope.spawn(async {
                    let command = fixture("sleep").arg("60000").timeout(Duration::from_millis(300));
                    assert!(command.future().output().await.unwrap_err().is_timeout());
                });
            }
        })
        .unwrap();
        // A look of its own for each of them would take many seconds.
        let cpu = crate::talk::cpu_time() - cpu;
        assert!(begun.elapsed() < LONG / 2 && cpu < Duration::from_secs(2), "{:?}, {cpu:?}", begun.elapsed());
    });
}
