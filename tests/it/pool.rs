//! Many commands, at most so many at a time: every task gets one last word, whatever dies.

use crate::support::{Scratch, alone, fixture, wait_for};
use procession::pool::{Halt, Outcome, Policy, Pool, Ready, Retry, ReturnWhen, Supply, Task, wait};
use procession::{Command, Deadline, Signal};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn echo(text: impl ToString) -> Command {
    Command::new("echo").arg(text.to_string())
}

#[test]
fn map_keeps_the_order_and_imap_unordered_does_not_wait_for_it() {
    alone!({
        let pool = Pool::new(4);
        let done = pool.map((0..100).map(echo));
        let said: Vec<String> = done.iter().map(|done| done.output().stdout_lossy().trim().to_owned()).collect();
        assert_eq!(said, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
        let order: Vec<usize> =
            pool.imap_unordered([Command::shell("sleep 0.5"), Command::new("true")]).map(|done| done.index()).collect();
        assert_eq!(order, [1, 0]);
    });
}

#[test]
fn no_more_than_so_many_at_a_time() {
    alone!({
        let pool = Pool::new(3);
        let scratch = Scratch::new();
        let script = format!("mkdir {0}/$$; ls {0} | wc -l; sleep 0.05; rmdir {0}/$$", scratch.path().display());
        let most = pool
            .imap((0..30).map(|_| Command::shell(script.clone())))
            .map(|done| done.check().unwrap().stdout_text().unwrap().trim().parse::<usize>().unwrap());
        let most = most.max();
        assert!(most <= Some(3) && most >= Some(2), "{most:?}");
    });
}

#[test]
fn a_running_task_is_cancelled_with_its_tree() {
    alone!({
        let pool = Pool::new(2);
        let pending = pool.apply_async(Command::shell("sleep 600 & sleep 600")).unwrap();
        wait_for("its start", || pending.is_running());
        assert!(pending.cancel());
        assert_eq!(pending.wait().outcome(), Outcome::Cancelled { confirmed: true });
        assert!(!pending.cancel());
    });
}

#[test]
fn a_waiting_task_is_cancelled_at_once() {
    alone!({
        let pool = Pool::new(1);
        let first = pool.apply_async(Command::new("sleep").arg("600")).unwrap();
        let second = pool.apply_async(Command::new("true")).unwrap();
        assert!(second.cancel());
        assert_eq!(second.done().unwrap().outcome(), Outcome::Cancelled { confirmed: true });
        assert_eq!(second.done().unwrap().attempts(), 0);
        drop(pool);
        assert_eq!(first.wait().outcome(), Outcome::Cancelled { confirmed: true });
    });
}

#[test]
fn outcomes() {
    alone!({
        let pool = Pool::new(4);
        let commands = [
            Command::shell("exit 3"),
            Command::shell("kill -9 $$"),
            Command::new("sleep").arg("600").timeout(Duration::from_millis(100)),
            Command::new("/no/such/program"),
            fixture("flood").capture_limit(1000, procession::Overflow::Fail),
        ];
        let outcomes: Vec<Outcome> = pool.map(commands).iter().map(|done| done.outcome()).collect();
        assert_eq!(
            outcomes,
            [
                Outcome::Exited(3),
                Outcome::Signalled { signal: Signal::KILL, exact: true },
                Outcome::TimedOut,
                Outcome::NotStarted,
                Outcome::Overflowed,
            ]
        );
    });
}

#[test]
fn what_fails_is_tried_again() {
    alone!({
        let scratch = Scratch::new();
        let counts = format!("echo x >> {0}/count; test $(wc -l < {0}/count) -ge 3", scratch.path().display());
        let pool = Pool::new(1).retry(Retry::times(5).backoff(Duration::from_millis(1)));
        let done = pool.apply_async(Command::shell(counts)).unwrap().into_done();
        assert_eq!((done.success(), done.attempts()), (true, 3));
    });
}

#[test]
fn the_first_failure_halts_the_run() {
    alone!({
        let pool = Pool::new(2).halt(Halt::on_failures(1).now());
        let scratch = Scratch::new();
        let file = scratch.join("begun").display().to_string();
        let commands = [
            Command::shell(format!("until [ -e {file} ]; do sleep 0.01; done; exit 1")),
            Command::shell(format!("touch {file}; exec sleep 600")),
            Command::new("true"),
        ];
        let done = pool.map(commands);
        let outcomes: Vec<Outcome> = done.iter().map(|done| done.outcome()).collect();
        assert_eq!(outcomes, [Outcome::Exited(1), Outcome::Cancelled { confirmed: true }, Outcome::NotStarted]);
        assert!(done[2].result().unwrap_err().to_string().contains("halted: 1 failed"));
    });
}

#[test]
fn a_failure_is_a_failure_of_those_that_wait_for_it() {
    alone!({
        let pool = Pool::new(2);
        let done = pool.map([
            Task::new(Command::new("true")).name("c").after("b"),
            Task::new(Command::new("false")).name("a"),
            Task::new(Command::new("true")).name("b").after("a"),
            Task::new(Command::new("true")).name("d").after_end("a"),
        ]);
        let outcomes: Vec<Outcome> = done.iter().map(|done| done.outcome()).collect();
        assert_eq!(outcomes, [Outcome::NotStarted, Outcome::Exited(1), Outcome::NotStarted, Outcome::Exited(0)]);
        assert!(done[0].result().unwrap_err().to_string().contains("a has not succeeded"), "{:?}", done[0]);
    });
}

#[test]
fn tokens_are_held_by_one_at_a_time() {
    alone!({
        let supply = Supply::tokens(["red", "green"]).env("COLOUR");
        let pool = Pool::new(4).resource("colour", supply).unwrap();
        let tasks = (0..6).map(|_| Task::new(Command::shell("echo $COLOUR; sleep 0.05")).needs("colour", 1));
        let said: Vec<String> = pool.map(tasks).iter().map(|done| done.output().stdout_lossy().trim().into()).collect();
        assert!(said.iter().all(|said| said == "red" || said == "green"), "{said:?}");
        let error = pool.apply(Task::new(Command::new("true")).needs("colour", 3)).unwrap_err();
        assert!(error.is_invalid_input(), "{error}");
    });
}

#[test]
fn a_callback_that_panics_ends_nothing() {
    alone!({
        std::panic::set_hook(Box::new(|_| ()));
        let pool = Pool::new(2);
        pool.apply_async_with(Command::new("true"), |_| panic!("oops")).unwrap();
        let done = pool.map((0..10).map(echo));
        assert!(done.iter().all(|done| done.success()));
        pool.close();
        assert!(pool.join().unwrap_err().to_string().contains("oops"));
    });
}

#[test]
fn a_callback_may_submit_more() {
    alone!({
        let pool = Arc::new(Pool::new(2));
        let (count, inner) = (Arc::new(AtomicUsize::new(0)), Arc::downgrade(&pool));
        let counted = Arc::clone(&count);
        let again = Mutex::new(None);
        let first = pool.apply_async_with(Command::new("true"), move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            let pool = inner.upgrade().unwrap();
            *again.lock().unwrap() = Some(pool.apply_async(Command::new("true")).unwrap());
        });
        assert!(first.unwrap().into_done().success());
        pool.close();
        pool.join().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn an_endless_input_is_taken_as_it_is_needed() {
    alone!({
        let pool = Pool::new(2);
        let taken = AtomicUsize::new(0);
        let endless = (0..)
            .inspect(|_| {
                taken.fetch_add(1, Ordering::Relaxed);
            })
            .map(echo);
        let first: Vec<usize> = pool.imap(endless).take(5).map(|done| done.index()).collect();
        assert_eq!(first, [0, 1, 2, 3, 4]);
        assert!(taken.load(Ordering::Relaxed) <= 5 + 10, "{taken:?}");
    });
}

#[test]
fn priorities_decide() {
    alone!({
        let pool = Pool::new(1).policy(Policy::Priority);
        let blocker = pool.apply_async(Command::shell("sleep 0.2")).unwrap();
        wait_for("its start", || blocker.is_running());
        let order = Arc::new(Mutex::new(Vec::new()));
        for priority in [1, 3, 2] {
            let order = Arc::clone(&order);
            let task = Task::new(Command::new("true")).priority(priority);
            pool.apply_async_with(task, move |_| order.lock().unwrap().push(priority)).unwrap();
        }
        pool.close();
        pool.join().unwrap();
        assert_eq!(*order.lock().unwrap(), [3, 2, 1]);
    });
}

#[test]
fn a_service_is_waited_for_and_stopped_last() {
    alone!({
        let pool = Pool::new(3);
        let service = Command::shell("sleep 0.1; echo listening; exec sleep 600");
        let done = pool.map([
            Task::new(Command::new("true")).after("server"),
            Task::new(service).name("server").service(Ready::line("listening")),
        ]);
        assert!(done[0].success());
        assert_eq!(done[1].outcome(), Outcome::Cancelled { confirmed: true });
        assert!(done[0].started() > done[1].started());
    });
}

#[test]
fn the_end_of_a_service_is_its_end() {
    alone!({
        // SAFETY: an integer argument.
        unsafe { libc::alarm(40) };
        let tasks = || {
            let (ready, late) = (Ready::line("listening"), Ready::started());
            [
                Task::new(Command::new("true")).name("after").after("server"),
                Task::new(Command::new("true")).name("cleanup").after_end("server").after("after"),
                Task::new(Command::new("true")).name("last").after("cleanup").after("server"),
                Task::new(Command::shell("echo listening; exec sleep 600")).name("server").service(ready),
                Task::new(Command::new("sleep").arg("600")).name("other").service(late).after("server"),
            ]
        };
        let check = |dones: &[&procession::Done]| {
            assert!(dones[..3].iter().all(|done| done.success()), "{dones:?}");
            assert!(dones[1].started() >= Some(dones[3].ended()), "{dones:?}");
            assert!(dones[0].ended() <= dones[3].ended(), "{dones:?}");
            assert!(dones[4].ended() <= dones[3].ended(), "the last one first: {dones:?}");
        };
        // In a loop, and when the pool is closed.
        let dones = Pool::new(4).map(tasks());
        check(&dones.iter().collect::<Vec<_>>());
        let pool = Pool::new(4);
        let pending = pool.submit_all(tasks()).unwrap();
        assert!(pending[0].wait().success());
        assert!(!pending[1].is_done());
        pool.close();
        pool.join().unwrap();
        check(&pending.iter().map(|one| one.wait()).collect::<Vec<_>>());
    });
}

#[test]
fn services_say_it_in_many_ways() {
    alone!({
        let scratch = Scratch::new();
        let file = scratch.join("ready");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap();
        let touch = format!("sleep 0.05; touch {}; exec sleep 600", file.display());
        let pool = Pool::new(8);
        let done = pool.map([
            Task::new(Command::new("true")).after("a").after("b").after("c").after("d"),
            Task::new(Command::shell(touch)).name("a").service(Ready::file(&file)),
            Task::new(Command::shell("sleep 600")).name("b").service(Ready::port(port)),
            Task::new(Command::shell("sleep 0.05; echo >&5; exec sleep 600")).name("c").service(Ready::descriptor(5)),
            Task::new(Command::shell("sleep 600")).name("d").service(Ready::started()),
        ]);
        assert!(done[0].success(), "{:?}", done[0]);
        let late = Ready::line("never").within(Duration::from_millis(100));
        let done = pool.map([
            Task::new(Command::shell("sleep 600")).name("e").service(late),
            Task::new(Command::new("true")).after("e"),
        ]);
        assert_eq!((done[0].outcome(), done[1].outcome()), (Outcome::TimedOut, Outcome::NotStarted));
    });
}

#[test]
fn several_are_waited_for() {
    alone!({
        let pool = Pool::new(2);
        let quick = pool.apply_async(Command::new("false")).unwrap();
        let slow = pool.apply_async(Command::new("sleep").arg("600")).unwrap();
        let pending = [slow, quick];
        assert_eq!(wait(&pending, ReturnWhen::First, Deadline::NEVER), (vec![1], vec![0]));
        assert_eq!(wait(&pending, ReturnWhen::FirstFailure, Deadline::NEVER), (vec![1], vec![0]));
        let soon = Deadline::after(Duration::from_millis(50));
        assert_eq!(wait(&pending, ReturnWhen::All, soon), (vec![1], vec![0]));
    });
}

#[test]
fn twenty_thousand_in_a_small_table() {
    alone!({
        use nix::sys::resource::{Resource, setrlimit};
        setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
        let pool = Pool::new(64);
        let done = pool.imap_unordered((0..500).map(|_| Command::new("true")));
        let mut count = 0;
        for done in done {
            assert!(done.success(), "{done:?}");
            count += 1;
        }
        assert_eq!(count, 500);
    });
}

#[test]
fn a_scope_that_is_left_by_a_panic_leaves_nothing() {
    alone!({
        std::panic::set_hook(Box::new(|_| ()));
        let panicked = std::panic::catch_unwind(|| {
            Pool::new(2).scope(|pool| {
                let pending = pool.apply_async(Command::new("sleep").arg("600")).unwrap();
                wait_for("its start", || pending.is_running());
                panic!("left");
            })
        });
        assert!(panicked.is_err());
    });
}
