//! Commands that live on and answer requests: Python's verbs, and what becomes of requests when workers die, babble or fall silent.

use crate::support::{Scratch, alone, fixture, is_running, wait_for};
use procession::pool::{Framed, Protocol, WorkerPool, WorkerPoolBuilder};
use procession::{Command, Error, ErrorKind, ExitStatus, Input, Newlines, Pty, Signal, Stdio, Stop, Text};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Twice what it is asked.
fn doubler() -> Command {
    Command::shell("while read -r line; do echo \"$line$line\"; done")
}

fn worker() -> WorkerPoolBuilder {
    WorkerPool::builder(fixture("worker")).workers(1)
}

fn worker_with(arguments: &[&str]) -> WorkerPoolBuilder {
    WorkerPool::builder(fixture("worker").args(arguments)).workers(1)
}

/// The error of a request, which must name the worker and the request.
#[track_caller]
fn blamed(pool: &WorkerPool, request: &str) -> Error {
    let error = pool.apply(request).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("Worker-") && text.contains("(process "), "{text}");
    assert!(text.contains(&format!("in request {} {request:?}", number_in(&text))), "{text}");
    error
}

/// The number that an error has for its request.
fn number_in(text: &str) -> u64 {
    let (_, rest) = text.split_once("request ").unwrap_or_else(|| panic!("{text}"));
    rest.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{text}"))
}

/// The pool goes on, and its worker is one of its own.
#[track_caller]
fn goes_on(pool: &WorkerPool) {
    assert_eq!(pool.apply_text("echo still here").unwrap(), "still here");
}

#[test]
fn replies_come_in_order_whatever_their_number() {
    alone!({
        let pool = WorkerPool::new(3, doubler()).unwrap();
        let requests = || (0..2_000).map(|number| number.to_string());
        let replies: Vec<String> = requests().map(|text| text.repeat(2)).collect();
        assert_eq!(pool.map_text(requests()).unwrap(), replies);
        assert_eq!(pool.imap(requests()).texts().collect::<Result<Vec<_>, _>>().unwrap(), replies);
        let unordered: BTreeSet<String> = pool.imap_unordered(requests()).texts().collect::<Result<_, _>>().unwrap();
        assert_eq!(unordered, replies.into_iter().collect());
        assert!(pool.map(Vec::<String>::new()).unwrap().is_empty());
        assert_eq!(pool.apply("").unwrap(), b"");
        assert_eq!(pool.apply(vec![0xff]).unwrap(), [0xff, 0xff]);
    });
}

/// Whoever is quick does not wait for who is slow.
#[test]
fn what_ends_first_comes_first() {
    alone!({
        let pool = worker().workers(2).build().unwrap();
        let mut replies = pool.imap_unordered(["sleep 600000", "echo a", "echo b", "echo c"]);
        let first: Vec<_> = replies.by_ref().take(3).map(|reply| reply.unwrap()).collect();
        assert_eq!(first, [b"a", b"b", b"c"]);
        assert!(replies.next_timeout(Duration::from_millis(1)).is_none() && !replies.is_over());
        drop(replies);
        goes_on(&pool);
    });
}

/// Each process lives on, and there are no more than were wished for.
#[test]
fn workers_live_on_and_all_of_them_work() {
    alone!({
        let pool = worker().workers(2).build().unwrap();
        assert_eq!(pool.workers(), 2);
        // Both are needed at the same time.
        let slow: Vec<_> = (0..2).map(|_| pool.apply_async("sleep 200").unwrap()).collect();
        let mut pids = pool.map_text(vec!["pid"; 50]).unwrap();
        slow.into_iter().for_each(|reply| drop(reply.get().unwrap()));
        pids.extend(pool.map_text(vec!["pid"; 50]).unwrap());
        pids.sort();
        pids.dedup();
        assert!((1..=2).contains(&pids.len()), "{pids:?}");
        assert_eq!(worker().build().unwrap().map_text(["count"; 3]).unwrap(), ["1", "2", "3"]);
    });
}

#[test]
fn a_death_is_blamed_on_its_request_and_touches_no_other() {
    alone!({
        let pool = worker().workers(2).build().unwrap();
        let requests = (0..300).map(|number| match number % 100 {
            0 => "exit 7".to_owned(),
            1 => "raise 6".to_owned(),
            2 => "half 3".to_owned(),
            _ => format!("echo {number}"),
        });
        let replies: Vec<_> = pool.imap(requests).collect();
        assert_eq!(replies.len(), 300);
        for (number, reply) in replies.into_iter().enumerate() {
            let error = match (number % 100, reply) {
                (0..3, Err(error)) => error,
                (3.., Ok(text)) if text == number.to_string().as_bytes() => continue,
                (_, reply) => panic!("{number}: {reply:?}"),
            };
            let (text, status) = (error.to_string(), error.output().status());
            assert!(text.starts_with("Worker-") && error.is_status(), "{text}");
            assert_eq!(number_in(&text), number as u64 + 1);
            assert!(error.output().pid().is_some() && error.output().usage().is_some(), "{text}");
            match number % 100 {
                0 => {
                    assert_eq!(status, ExitStatus::from_code(7));
                    assert!(
                        text.contains("in request") && text.contains("exit status: 7 before it had replied"),
                        "{text}"
                    );
                }
                1 => assert_eq!(status.signal(), Some(Signal::ABRT), "{text}"),
                _ => assert!(text.contains("exit status: 3 in the middle of its reply \"hal\""), "{text}"),
            }
        }
    });
}

/// What a worker has said last on standard error is in the error.
#[test]
fn the_tail_of_standard_error_is_kept() {
    alone!({
        let pool = worker().build().unwrap();
        pool.apply("complain the disk is on fire").unwrap();
        let error = blamed(&pool, "exit 1");
        assert!(error.to_string().contains("the disk is on fire"), "{error}");
        assert_eq!(error.output().stderr(), b"the disk is on fire\n");
    });
}

/// Killed from outside, in the middle of 2,000 requests: each has its own reply, or an error that names it.
#[test]
fn each_request_is_answered_once_while_workers_are_killed() {
    alone!({
        let (killer, stop) = killer();
        let pool = worker().workers(3).build().unwrap();
        let requests = || (0..2_000_u32).map(|number| format!("echo {number} {}", "x".repeat(number as usize % 50)));
        let replies: Vec<_> = pool.imap(requests()).collect();
        assert_eq!(replies.len(), 2_000);
        let mut failed = 0;
        for (request, reply) in requests().zip(replies) {
            match reply {
                Ok(text) => assert_eq!(Some(&*String::from_utf8(text).unwrap()), request.strip_prefix("echo ")),
                Err(error) => {
                    failed += 1;
                    let (text, words) = (error.to_string(), &request[..request.len().min(50)]);
                    assert!(text.contains(words) && text.contains("SIGKILL"), "{text}");
                }
            }
        }
        // And with retries every one has its reply.
        let pool = worker().workers(3).retries(1_000).build().unwrap();
        for reply in pool.imap_unordered(requests()) {
            reply.unwrap();
        }
        let replies = pool.map_text(requests()).unwrap();
        assert!(requests().zip(&replies).all(|(request, reply)| request.strip_prefix("echo ") == Some(reply)));
        drop(stop);
        let killed = killer.join().unwrap();
        assert!(killed > 5, "{killed} killed, {failed} failed");
    });
}

/// Kills a child of this process every few milliseconds, until the sender is dropped. How many it has killed.
fn killer() -> (std::thread::JoinHandle<u32>, mpsc::Sender<()>) {
    let (sender, receiver) = mpsc::channel::<()>();
    let killer = std::thread::spawn(move || {
        let mut killed = 0;
        while receiver.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
            killed += u32::from(kill_one_child(killed as usize));
        }
        killed
    });
    (killer, sender)
}

/// Kills one of the children of this process, if there is one.
fn kill_one_child(which: usize) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<i32> =
        lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    let Some(child) = children.get(which % children.len().max(1)) else { return false };
    // SAFETY: integer arguments; a child of ours.
    unsafe { libc::kill(*child, libc::SIGKILL) == 0 }
}

/// A worker that is killed while it has read nothing of a request is not the matter of that request.
#[test]
fn what_was_not_read_goes_to_another_worker() {
    alone!({
        let pool = worker().build().unwrap();
        for _ in 0..20 {
            let pid: i32 = pool.apply_text("pid").unwrap().parse().unwrap();
            // Stopped, it reads nothing more.
            // SAFETY: integer arguments; a child of ours.
            unsafe { libc::kill(pid, libc::SIGSTOP) };
            wait_for("the stop", || crate::support::state_of(pid as u32) == Some('T'));
            let pending = pool.apply_async("echo unharmed").unwrap();
            assert!(!pending.wait_timeout(Duration::from_millis(5)));
            // SAFETY: as above.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            assert_eq!(pending.get_text().unwrap(), "unharmed");
        }
    });
}

#[test]
fn a_retry_is_a_new_try() {
    alone!({
        let scratch = Scratch::new();
        let marker = scratch.join("tried");
        // Dies at its first request, and at no other one.
        let line = "while read -r line; do if test ! -e \"$1\"; then echo x > \"$1\"; exit 9; fi; echo \"$line\"; done";
        let command = Command::shell(line).arg("sh").arg(&marker);
        let pool = WorkerPool::builder(command.clone()).workers(1).build().unwrap();
        assert_eq!(pool.apply("one").unwrap_err().output().status(), ExitStatus::from_code(9));
        std::fs::remove_file(&marker).unwrap();
        let pool = WorkerPool::builder(command).workers(1).retries(1).build().unwrap();
        assert_eq!(pool.apply_text("one").unwrap(), "one");
        // No more often than was allowed.
        let pool = worker().retries(2).build().unwrap();
        assert_eq!(blamed(&pool, "exit 4").output().status(), ExitStatus::from_code(4));
    });
}

#[test]
fn a_timeout_stops_one_worker() {
    alone!({
        let pool = worker().workers(2).timeout(Duration::from_millis(300)).build().unwrap();
        let requests = ["echo a", "silent", "echo b", "sleep 1"];
        let replies: Vec<_> = pool.imap(requests).collect();
        let late = replies[1].as_ref().unwrap_err();
        let text = late.to_string();
        assert!(late.is_timeout() && text.contains("request 2 \"silent\": no reply after 300ms"), "{text}");
        assert_eq!(late.output().status().signal(), Some(Signal::TERM), "{text}");
        assert!([0, 2, 3].iter().all(|number| replies[*number].is_ok()), "{replies:?}");
    });
}

/// The stop is that of the command, and reaches what the worker has started.
#[test]
fn a_worker_is_stopped_by_the_plan_of_its_command() {
    alone!({
        let line = "sleep 600 & echo $!; trap 'exit 33' USR1; while read -r line; do sleep 600 & wait; done";
        let command = Command::shell(line).stop(Stop::new().signal(Signal::USR1, Duration::from_secs(10)));
        static GRANDCHILD: AtomicU32 = AtomicU32::new(0);
        let keep = |line: &[u8]| {
            GRANDCHILD.store(String::from_utf8_lossy(line).parse().unwrap(), Ordering::Relaxed);
            true
        };
        let pool =
            WorkerPool::builder(command).workers(1).timeout(Duration::from_millis(500)).greeting(keep).build().unwrap();
        let error = blamed(&pool, "hello");
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.output().status(), ExitStatus::from_code(33), "{error}");
        drop(pool);
        let grandchild = GRANDCHILD.load(Ordering::Relaxed);
        assert!(grandchild > 0);
        wait_for("the end of what it has started", || !is_running(grandchild));
    });
}

#[test]
fn cancelling_reaches_what_waits_and_what_runs() {
    alone!({
        let pool = worker().build().unwrap();
        let running = pool.apply_async("silent").unwrap();
        let waiting = pool.apply_async("echo 3").unwrap();
        let other = pool.apply_async("echo 4").unwrap();
        assert_eq!((running.number(), waiting.number(), other.number()), (1, 2, 3));
        waiting.cancel();
        let error = waiting.get().unwrap_err();
        assert!(error.is_cancelled() && error.to_string().contains("request 2 \"echo 3\": cancelled"), "{error}");
        assert!(!running.is_done() && !other.is_done());
        running.cancel();
        let error = running.get().unwrap_err();
        assert!(error.is_cancelled() && error.to_string().contains("request 1 \"silent\": cancelled"), "{error}");
        assert_eq!(other.get_text().unwrap(), "4");
        // An iteration that is left takes its requests with it.
        let mut endless = pool.imap(["echo 1", "silent"]);
        assert!(endless.next().unwrap().is_ok());
        drop(endless);
        goes_on(&pool);
    });
}

#[test]
fn the_beginning_comes_first_in_every_worker() {
    alone!({
        let line = "echo welcome; echo 'version 3'; base=0
            while read -r word rest; do
                case $word in base) base=$rest; echo ok;; *) echo $((base + word)) $$;; esac
            done";
        let builder = WorkerPool::builder(Command::shell(line)).workers(2).requests_per_worker(3);
        let builder = builder.greeting(|line| line == b"welcome").greeting(|line| line.starts_with(b"version "));
        let pool = builder.initial("base 100", |reply| reply == b"ok").build().unwrap();
        let replies = pool.map_text((0..12).map(|number| number.to_string())).unwrap();
        let mut workers = Vec::new();
        for (number, reply) in replies.iter().enumerate() {
            let (sum, worker) = reply.split_once(' ').unwrap();
            assert_eq!(sum, (100 + number).to_string());
            workers.push(worker);
        }
        workers.sort_unstable();
        // Recycled: none has replied to more than three.
        assert!(workers.chunk_by(|one, two| one == two).all(|requests| requests.len() <= 3), "{workers:?}");
    });
}

/// A worker that never comes to its first request would never do so: the pool says why, and starts no more.
#[test]
fn a_pool_without_a_beginning_is_broken() {
    alone!({
        let scratch = Scratch::new();
        let log = scratch.join("starts");
        let dies = Command::shell("echo x >> \"$1\"; echo no licence >&2; exit 3").arg("sh").arg(&log);
        let pool = WorkerPool::builder(dies).workers(1).build().unwrap();
        let replies: Vec<_> = pool.imap((0..10).map(|number| number.to_string())).collect();
        for (number, reply) in replies.into_iter().enumerate() {
            let (error, name) = match reply {
                Err(error) => (error, format!("request {} \"{number}\"", number + 1)),
                reply => panic!("{reply:?}"),
            };
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Engine, "{text}");
            assert!(text.starts_with(&name) && text.contains("Worker-3 (process "), "{text}");
            assert!(text.contains("exit status: 3") && text.contains("no licence"), "{text}");
        }
        assert_eq!(pool.apply("x").unwrap_err().kind(), ErrorKind::Engine);
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 3);
    });
}

#[test]
fn a_beginning_that_is_not_as_expected_breaks_the_pool() {
    alone!({
        let broken = |builder: WorkerPoolBuilder, words: &str| {
            let started = Instant::now();
            let pool = builder.timeout(Duration::from_millis(300)).build().unwrap();
            let error = pool.apply("echo x").unwrap_err();
            let text = error.to_string();
            assert!(error.kind() == ErrorKind::Engine && text.contains(words), "{text}");
            assert!(text.starts_with("request 1 \"echo x\": the pool has no workers: Worker-"), "{text}");
            assert!(started.elapsed() < Duration::from_secs(30));
        };
        let is_ok = |reply: &[u8]| reply == b"ok";
        broken(worker().initial("echo no", is_ok), "it has said \"no\" to \"echo no\" at its beginning");
        broken(worker_with(&["banner=hello"]).greeting(is_ok), "it has said \"hello\" at its beginning");
        broken(worker().initial("exit 5", is_ok), "it has ended by exit status: 5");
        broken(worker().initial("twice ok", is_ok), "it has said \"ok\\n\" behind its reply");
        broken(worker().initial("silent", is_ok), "it was not ready after 300ms");
        broken(worker().greeting(|_| panic!("on purpose")).initial("echo", is_ok), "it was not ready after");
        broken(worker_with(&["banner=a"]).greeting(|_| panic!("on purpose")), "it has said \"a\"");
        // Nobody has said that there would be a banner.
        broken(worker_with(&["banner=hello", "silent"]), "it has said \"hello\\n\" without having been asked");
        broken(worker_with(&["deaf"]), "closed its standard input");
        broken(worker_with(&["mute"]), "closed its standard output");
    });
}

/// Who cannot be started at all is no reason to wait.
#[test]
fn a_command_that_is_not_there_is_named() {
    alone!({
        let pool = WorkerPool::new(2, Command::new("/no/such/program")).unwrap();
        let error = pool.apply("x").unwrap_err();
        let text = error.to_string();
        assert!(error.kind() == ErrorKind::Engine && text.contains("/no/such/program"), "{text}");
        assert!(text.contains("No such file or directory"), "{text}");
    });
}

/// A worker that dies of each of its first requests is no failed beginning, and yet has a bound.
#[test]
fn deaths_without_a_reply_have_a_bound() {
    alone!({
        let pool = worker().retries(1_000_000).build().unwrap();
        let error = pool.apply("exit 1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Engine, "{error}");
        assert!(error.to_string().contains("64 workers in a row"), "{error}");
    });
}

#[test]
fn two_replies_are_one_too_many() {
    alone!({
        let pool = worker().build().unwrap();
        let error = blamed(&pool, "twice a");
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(error.to_string().contains("it has said \"a\\n\" behind its reply"), "{error}");
        goes_on(&pool);
        // The second one comes later, and nobody is given it.
        let scratch = Scratch::new();
        let file = scratch.join("said");
        let before = pool.apply_text("pid").unwrap();
        assert_eq!(pool.apply_text(format!("later {}", file.display())).unwrap(), "now");
        wait_for("the second reply", || file.exists());
        goes_on(&pool);
        assert_ne!(pool.apply_text("pid").unwrap(), before);
    });
}

#[test]
fn a_reply_has_a_limit() {
    alone!({
        let pool = worker().reply_limit(100_000).build().unwrap();
        assert_eq!(pool.apply("big 100000").unwrap().len(), 100_000);
        for request in ["big 100001", "big 50000000"] {
            let error = blamed(&pool, request);
            assert_eq!(error.kind(), ErrorKind::Overflow);
            assert!(error.to_string().contains("more than 100000 bytes"), "{error}");
        }
        goes_on(&pool);
        // Without one there is room for much.
        assert_eq!(worker().build().unwrap().apply("big 5000000").unwrap().len(), 5_000_000);
    });
}

/// Far more than a pipe holds, in both directions.
#[test]
fn any_size_goes_through() {
    alone!({
        let pool = WorkerPool::new(2, Command::new("cat")).unwrap();
        let requests: Vec<String> = (0..10).map(|number| "x".repeat(number * 300_000)).collect();
        assert_eq!(pool.map_text(requests.clone()).unwrap(), requests);
    });
}

#[test]
fn closed_pipes_are_named() {
    alone!({
        let pool = worker().build().unwrap();
        let error = blamed(&pool, "close-out ");
        assert_eq!(error.kind(), ErrorKind::Ended);
        assert!(error.to_string().contains("it has closed its standard output before it had replied"), "{error}");
        let error = blamed(&pool, "close-out hal");
        assert!(error.to_string().contains("closed its standard output in the middle of its reply \"hal\""), "{error}");
        // The reply to what was read before the end of reading counts; the next request goes to somebody else.
        assert_eq!(pool.apply_text("close-in").unwrap(), "closed");
        goes_on(&pool);
        assert_eq!(pool.apply_text("say-exit good bye").unwrap(), "good bye");
        goes_on(&pool);
        // A part was read, and the rest never will be.
        let half = Command::shell("head -c 5 >/dev/null; exec 0<&-; exec sleep 600");
        let pool = WorkerPool::new(1, half).unwrap();
        let error = blamed(&pool, "0123456789");
        assert_eq!(error.kind(), ErrorKind::Ended);
        assert!(error.to_string().contains("it has closed its standard input before it had replied"), "{error}");
    });
}

#[test]
fn closing_terminating_and_joining() {
    alone!({
        let pool = worker().workers(2).build().unwrap();
        assert!(pool.join().unwrap_err().is_invalid_input());
        let last = pool.apply_async("sleep 50").unwrap();
        pool.close();
        assert!(pool.apply("echo 1").unwrap_err().is_invalid_input());
        let called = std::sync::Arc::new(AtomicU32::new(0));
        let counts = std::sync::Arc::clone(&called);
        let refused = pool.apply_async_with("echo 1", move |_| {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        assert!(refused.unwrap_err().is_invalid_input() && called.load(Ordering::Relaxed) == 0);
        assert!(pool.map(["echo 1"]).unwrap().is_empty());
        pool.join().unwrap();
        assert!(last.is_done() && last.get_text().unwrap() == "50");

        let pool = worker().build().unwrap();
        let requests: Vec<_> = (0..3).map(|_| pool.apply_async("silent").unwrap()).collect();
        assert!(!requests[0].wait_timeout(Duration::from_millis(20)));
        pool.close();
        assert!(pool.join_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
        pool.terminate();
        pool.join().unwrap();
        for request in requests {
            let error = request.get().unwrap_err();
            assert!(error.is_cancelled() && error.to_string().contains("the pool was terminated"), "{error}");
        }
        // An endless input ends with the pool.
        let pool = worker().build().unwrap();
        let mut replies = pool.imap(std::iter::repeat("count"));
        assert_eq!(replies.next().unwrap().unwrap(), b"1");
        pool.terminate();
        assert!(replies.by_ref().take(100_000).count() < 100_000);
        assert!(replies.is_over());
    });
}

/// Told to go by the end of its input; who stays is stopped.
#[test]
fn who_does_not_go_is_stopped() {
    alone!({
        let builder = worker_with(&["stays"]).requests_per_worker(1);
        let pool = builder.leave_timeout(Duration::from_millis(100)).build().unwrap();
        let pids = pool.map_text(["pid"; 3]).unwrap();
        assert!(pids[0] != pids[1] && pids[1] != pids[2]);
        pool.close();
        pool.join().unwrap();
        assert!(pids.iter().all(|pid| !is_running(pid.parse().unwrap())));
    });
}

/// Callbacks are called once, also those that panic, and the pool goes on.
#[test]
fn callbacks_get_every_reply() {
    alone!({
        let pool = WorkerPool::new(2, doubler()).unwrap();
        let (sender, receiver) = mpsc::channel();
        for number in 0..10 {
            let sender = sender.clone();
            let callback = move |reply: Result<Vec<u8>, Error>| {
                sender.send(reply.unwrap()).unwrap();
                assert!(number % 2 == 0, "on purpose");
            };
            pool.apply_async_with(number.to_string(), callback).unwrap();
        }
        let mut replies: Vec<Vec<u8>> = receiver.iter().take(10).collect();
        replies.sort();
        assert_eq!(replies, (0..10).map(|number| number.to_string().repeat(2).into_bytes()).collect::<Vec<_>>());
    });
}

#[test]
fn an_endless_input_is_taken_as_replies_are() {
    alone!({
        let pool = WorkerPool::builder(doubler()).workers(2).look_ahead(10).build().unwrap();
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let requests = (0_u64..).map(|number| {
            TAKEN.fetch_add(1, Ordering::Relaxed);
            number.to_string()
        });
        for (number, reply) in pool.imap(requests).texts().take(500).enumerate() {
            assert_eq!(reply.unwrap(), number.to_string().repeat(2));
            assert!(TAKEN.load(Ordering::Relaxed) <= number as u32 + 11);
        }
    });
}

#[test]
fn wrong_requests_are_refused_before_anything_is_sent() {
    alone!({
        let pool = worker().build().unwrap();
        let error = pool.apply("echo 1\necho 2").unwrap_err();
        assert!(error.is_invalid_input() && error.to_string().contains("\"echo 1\\necho 2\""), "{error}");
        assert_eq!(pool.apply_text("count").unwrap(), "1");
        let replies: Vec<_> = pool.imap(["count", "\n", "count"]).collect();
        assert!(replies[0].is_ok() && replies[1].as_ref().unwrap_err().is_invalid_input() && replies[2].is_ok());

        let cat = || Command::new("cat");
        let utf16 = Text::encoding("utf-16le").unwrap();
        for builder in [
            WorkerPool::builder(cat()).workers(0),
            WorkerPool::builder(cat()).requests_per_worker(0),
            WorkerPool::builder(cat().stdin(Stdio::null())),
            WorkerPool::builder(cat().stdout(Stdio::null())),
            WorkerPool::builder(cat().input(Input::empty())),
            WorkerPool::builder(cat().timeout(Duration::from_secs(1))),
            WorkerPool::builder(cat().pty(Pty::new())),
            WorkerPool::builder(cat().text(utf16)),
            WorkerPool::builder(cat()).protocol(Protocol::lines_until("a\nb")),
            WorkerPool::builder(cat()).initial("a\nb", |_| true),
        ] {
            let error = builder.build().unwrap_err();
            assert!(error.is_invalid_input(), "{error}");
        }
        let lengths = WorkerPool::builder(cat().text(utf16)).workers(1).protocol(Protocol::length_prefixed());
        assert_eq!(lengths.build().unwrap().apply_text(b"a\0b\0").unwrap(), "ab");
    });
}

#[test]
fn text_is_that_of_the_command() {
    alone!({
        let pool = worker().build().unwrap();
        assert_eq!(pool.apply("bytes").unwrap(), [0xff, 0xfe]);
        assert_eq!(pool.apply_text("bytes").unwrap_err().kind(), ErrorKind::Decode);
        let latin = Text::encoding("latin1").unwrap().newlines(Newlines::Universal);
        let pool = WorkerPool::new(1, fixture("worker").text(latin)).unwrap();
        assert_eq!(pool.apply_text("bytes").unwrap(), "ÿþ");
        assert_eq!(pool.apply_text("echo with a return\r").unwrap(), "with a return");
        assert_eq!(pool.apply("echo with a return\r").unwrap(), b"with a return\r");
    });
}

/// Programs that people have.
#[test]
fn programs_that_live_on() {
    alone!({
        let has = |program: &str| {
            let is_there = Command::new(program).arg("--version").output().is_ok();
            if !is_there {
                eprintln!("skipped: no {program}");
            }
            is_there
        };
        if has("bc") {
            let pool = WorkerPool::new(2, Command::new("bc").arg("-q")).unwrap();
            let sums = pool.map_text((1..200).map(|number| format!("{number}^2 + 1"))).unwrap();
            assert_eq!(sums, (1..200).map(|number| (number * number + 1).to_string()).collect::<Vec<_>>());
        }
        if has("jq") {
            let pool = WorkerPool::new(2, Command::new("jq").args(["-c", "--unbuffered", ".a + 1"])).unwrap();
            assert_eq!(pool.map_text(["{\"a\": 1}", "{\"a\":41}"]).unwrap(), ["2", "42"]);
        }
        if has("python3") {
            python();
        }
    });
}

/// Answers in the three manners, and dies when it is told.
const SCRIPT: &str = r#"
import struct, sys
manner = sys.argv[1]
source, sink = sys.stdin.buffer, sys.stdout.buffer
while True:
    if manner == "lines":
        line = source.readline()
        if not line:
            break
        sink.write(b"%d\n" % eval(line))
    else:
        head = source.read(4)
        if not head:
            break
        order = ">I" if manner == "big" else "<I"
        body = source.read(struct.unpack(order, head)[0])
        sink.write(struct.pack(order, len(body)) + body[::-1])
    sink.flush()
"#;

fn python() {
    let script = |manner: &str| Command::new("python3").args(["-c", SCRIPT, manner]);
    let pool = WorkerPool::new(2, script("lines")).unwrap();
    assert_eq!(pool.map_text((0..100).map(|number| format!("{number} * 2"))).unwrap().last().unwrap(), "198");
    let error = blamed(&pool, "1 // 0");
    let text = error.to_string();
    assert!(text.contains("exit status: 1") && text.contains("ZeroDivisionError"), "{text}");
    assert_eq!(pool.apply_text("40 + 2").unwrap(), "42");
    for (manner, protocol) in
        [("big", Protocol::length_prefixed()), ("little", Protocol::length_prefixed_little_endian())]
    {
        let pool = WorkerPool::builder(script(manner)).workers(2).protocol(protocol).build().unwrap();
        let requests: Vec<Vec<u8>> = (0..50_usize).map(|number| (0..number * 999).map(|b| b as u8).collect()).collect();
        let replies = pool.map(requests.clone()).unwrap();
        assert!(requests.iter().zip(replies).all(|(request, reply)| request.iter().rev().eq(&reply)));
    }
}

#[test]
fn replies_of_several_lines_end_with_a_marker() {
    alone!({
        let line = "while read -r count; do seq $count; echo; echo END; done";
        let builder = WorkerPool::builder(Command::shell(line)).workers(2).protocol(Protocol::lines_until("END"));
        let pool = builder.build().unwrap();
        let replies = pool.map_text((0..50).map(|count| count.to_string())).unwrap();
        for (count, reply) in replies.into_iter().enumerate() {
            let lines: String = (1..=count).map(|number| format!("{number}\n")).collect();
            assert_eq!(reply, lines + "\n");
        }
        // The marker comes from the request.
        let pool = WorkerPool::builder(Command::new("sh")).workers(1).protocol(Protocol::lines_until("END"));
        assert_eq!(pool.build().unwrap().apply_text("echo a\necho b\necho END").unwrap(), "a\nb\n");
    });
}

#[test]
fn a_protocol_of_ones_own_may_fail() {
    alone!({
        let frame = |request: &[u8], bytes: &mut Vec<u8>| {
            if request == b"no" {
                return Err("it says no".to_owned());
            }
            bytes.extend_from_slice(request);
            bytes.push(b'\n');
            Ok(())
        };
        let find = |bytes: &[u8], _| match bytes {
            [b'!', ..] => Err("it begins with a mark".to_owned()),
            [b'?', ..] => panic!("on purpose"),
            [b'*', ..] => Ok(Some(Framed { reply: 0..1, end: 0 })),
            _ => Ok(bytes.strip_suffix(b"\n").map(|reply| Framed { reply: 0..reply.len(), end: bytes.len() })),
        };
        let pool = WorkerPool::builder(Command::new("cat")).workers(1).protocol(Protocol::new(frame, find));
        let pool = pool.build().unwrap();
        assert!(pool.apply("no").unwrap_err().to_string().contains("it says no"));
        for (request, words) in [("!", "it begins with a mark"), ("?", "has panicked"), ("*", "has found")] {
            let error = blamed(&pool, request);
            assert!(error.kind() == ErrorKind::Decode && error.to_string().contains(words), "{error}");
        }
        assert_eq!(pool.apply("yes").unwrap(), b"yes");
    });
}

#[allow(dead_code)] // its main
#[path = "../../examples/worker_commands.rs"]
mod worker_commands;

#[test]
fn the_example_does_what_it_says() {
    alone!({
        let mut said = Vec::new();
        worker_commands::worker_commands(&mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["6 * 7 = 42", &*format!("the sum of the others is {}", 338_350 - 2_500)]);
        assert!(lines[2].starts_with("calculator-") && lines[2].ends_with("in request 51 \"crash\""), "{said}");
        assert_eq!(lines[3], "  ended by signal: SIGKILL and had said: out of cheese");
        assert_eq!(lines.len(), 4);
    });
}
