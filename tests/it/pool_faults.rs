//! A pool when something goes wrong: children that do not end, systems without room, callers that panic, engines that die. Whatever
//! it is, every task gets one last word, what was promised of the others holds, and nothing is left.

use crate::support::{alone, wait_for};
use procession::pool::{
    Halt, Local, Outcome, Pending, Pool, Ready, Retry, Script, Scripted, Summary, Supply, Task, Unstarted,
};
use procession::{Command, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Far more than any of these tests takes, and less than the limit of all tests: a hang is seen early.
fn soon() {
    // SAFETY: an integer argument.
    unsafe { libc::alarm(40) };
}

fn sleeper() -> Command {
    Command::new("sleep").arg("600")
}

fn shell(script: &str) -> Command {
    Command::shell(script)
}

fn outcomes(pending: &[Pending]) -> Vec<Outcome> {
    pending.iter().map(|one| one.wait().outcome()).collect()
}

const SECOND: Duration = Duration::from_secs(1);
const CANCELLED: Outcome = Outcome::Cancelled { confirmed: true };

// ---- lanes and engines ----

#[test]
fn who_waits_for_a_resource_does_not_spin() {
    alone!({
        soon();
        let pool = Pool::new(4).resource("one", Supply::amount(1)).unwrap();
        let tasks = (0..2).map(|_| Task::new(shell("sleep 0.5")).needs("one", 1));
        let before = processor_time();
        assert!(pool.map(tasks).iter().all(|done| done.success()));
        let spent = processor_time() - before;
        assert!(spent < Duration::from_millis(250), "{spent:?} of processor time for two sleeps");
    });
}

#[test]
fn who_waits_for_a_slow_callback_does_not_spin() {
    alone!({
        soon();
        let pool = Pool::new(1);
        let called = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&called);
        let slow = move |_: &procession::Done| {
            std::thread::sleep(Duration::from_millis(1000));
            count.fetch_add(1, Ordering::Relaxed);
        };
        let pending = pool.apply_async_with(Command::new("true"), slow).unwrap();
        let before = processor_time();
        assert!(pending.into_done().success());
        assert_eq!(called.load(Ordering::Relaxed), 1);
        let spent = processor_time() - before;
        assert!(spent < Duration::from_millis(100), "{spent:?} of processor time for a sleep");
        // It ends as well when the callback panics.
        std::panic::set_hook(Box::new(|_| ()));
        let pending = pool.apply_async_with(Command::new("true"), |_| panic!("oops")).unwrap();
        assert!(pending.into_done().success());
    });
}

/// What this process has used, in its own code and the system's, without its children.
fn processor_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_secs(value.tv_sec() as u64) + Duration::from_micros(value.tv_usec() as u64)
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[test]
fn tasks_submitted_together_use_the_whole_width() {
    alone!({
        soon();
        let pool = Pool::new(6);
        let _pending = pool.submit_all((0..6).map(|_| sleeper())).unwrap();
        wait_for("all six", || pool.running() == 6);
    });
}

#[test]
fn the_engine_that_can_gets_the_task_whatever_the_width() {
    alone!({
        soon();
        let without_files = || {
            Scripted::new().otherwise(Script::new().exits(9)).with_capabilities(|able| {
                able.files = procession::pool::FileAccess::None;
            })
        };
        let able = Scripted::new().otherwise(Script::new());
        let pool = Pool::with_engines(1, vec![Box::new(without_files()), Box::new(without_files()), Box::new(able)]);
        let done = pool.apply_async(Task::new(Command::new("x")).reads("/etc/passwd")).unwrap().into_done();
        assert!(done.success(), "{done:?}");
    });
}

#[test]
fn one_engine_does_not_keep_a_share_it_cannot_use() {
    alone!({
        soon();
        let narrow = Scripted::new().otherwise(Script::new().hangs()).with_capabilities(|able| {
            able.in_flight_max = Some(1);
        });
        let wide = Scripted::new().otherwise(Script::new().hangs());
        let pool = Pool::with_engines(6, vec![Box::new(narrow), Box::new(wide)]);
        let _pending = pool.submit_all((0..6).map(|_| Command::new("x"))).unwrap();
        wait_for("all six", || pool.running() == 6);
    });
}

#[test]
fn the_others_take_over_from_a_dead_engine_with_the_whole_width() {
    alone!({
        soon();
        let dying = Scripted::new().otherwise(Script::new().ends_engine("power cut"));
        let living = Scripted::new().otherwise(Script::new().hangs());
        let pool = Pool::with_engines(4, vec![Box::new(dying), Box::new(living)]);
        let retry = Retry::times(20).pause_of(Duration::from_millis(20));
        let tasks = (0..4).map(|_| Task::new(Command::new("x")).idempotent().retry(retry.clone()));
        let _pending = pool.submit_all(tasks).unwrap();
        wait_for("all four", || pool.running() == 4);
    });
}

#[test]
fn what_only_a_dead_engine_could_do_fails() {
    alone!({
        soon();
        let able = Scripted::new().otherwise(Script::new().ends_engine("power cut"));
        let unable = Scripted::new().otherwise(Script::new()).with_capabilities(|able| {
            able.files = procession::pool::FileAccess::None;
        });
        let pool = Pool::with_engines(1, vec![Box::new(able), Box::new(unable)]);
        let task = || Task::new(Command::new("x")).reads("/etc/passwd");
        let pending = pool.submit_all([task(), task()]).unwrap();
        for one in &pending {
            assert!(matches!(one.wait().outcome(), Outcome::EngineFailed { .. }), "{one:?}");
        }
        let late = pool.apply(task()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Engine, "{late}");
        assert!(pool.apply(Command::new("x")).is_ok());
    });
}

// ---- services ----

#[test]
fn a_service_that_was_ready_is_run_again() {
    alone!({
        soon();
        let pool = Pool::new(2);
        let service = Task::new(shell("echo up; sleep 0.1; exit 1")).name("server");
        let service = service.service(Ready::line("up")).retry(Retry::times(2));
        let pending = pool.apply_async(service).unwrap();
        let done = pending.into_done();
        assert_eq!((done.outcome(), done.attempts()), (Outcome::Exited(1), 3));
        let late = pool.apply_async(Task::new(Command::new("true")).after("server")).unwrap().into_done();
        assert_eq!(late.outcome(), Outcome::NotStarted, "its service is gone");
    });
}

#[test]
fn close_ends_a_service_that_is_alone() {
    alone!({
        soon();
        let pool = Pool::new(2);
        let pending = pool.apply_async(Task::new(sleeper()).service(Ready::started())).unwrap();
        wait_for("its start", || pending.is_running());
        std::thread::sleep(Duration::from_millis(50));
        pool.close();
        pool.join().unwrap();
        assert_eq!(pending.wait().outcome(), CANCELLED);
    });
}

#[test]
fn cancelling_the_last_task_ends_the_services_of_a_closed_pool() {
    alone!({
        soon();
        let pool = Pool::new(1);
        let service = pool.apply_async(Task::new(sleeper()).service(Ready::started())).unwrap();
        let other = pool.apply_async(Command::new("true")).unwrap();
        wait_for("its start", || service.is_running());
        std::thread::sleep(Duration::from_millis(50));
        pool.close();
        assert!(other.cancel());
        pool.join().unwrap();
        assert_eq!(service.wait().outcome(), CANCELLED);
    });
}

#[test]
fn a_service_outlives_the_runs_of_others() {
    alone!({
        soon();
        let pool = Pool::new(4);
        let service = pool.apply_async(Task::new(sleeper()).name("server").service(Ready::started())).unwrap();
        for _ in 0..3 {
            let done = pool.map((0..4).map(|_| Task::new(Command::new("true")).after("server")));
            assert!(done.iter().all(|done| done.success()));
        }
        assert!(service.is_running());
    });
}

#[test]
fn a_service_may_take_for_ever_to_be_ready() {
    alone!({
        soon();
        let pool = Pool::new(2);
        let done = pool.map([
            Task::new(shell("sleep 0.2; echo up; exec sleep 600"))
                .name("s")
                .service(Ready::line("up").within(Duration::MAX)),
            Task::new(Command::new("true")).after("s"),
        ]);
        assert!(done[1].success(), "{done:?}");
    });
}

// ---- whoever is called ----

#[test]
fn a_condition_of_a_retry_that_panics_is_told_and_the_task_is_over() {
    alone!({
        soon();
        std::panic::set_hook(Box::new(|_| ()));
        let pool = Pool::new(2);
        let retry = Retry::times(3).when(|_| panic!("no opinion"));
        let done = pool.apply_async(Task::new(Command::new("false")).retry(retry)).unwrap().into_done();
        assert_eq!((done.outcome(), done.attempts()), (Outcome::Exited(1), 1));
        assert!(pool.apply(Command::new("true")).is_ok());
        pool.close();
        assert!(pool.join().unwrap_err().to_string().contains("no opinion"));
    });
}

#[test]
fn a_callback_may_want_a_lock_that_its_caller_holds() {
    alone!({
        soon();
        let pool = Pool::new(2);
        let book = Arc::new(Mutex::new(0));
        for _ in 0..200 {
            let mut held = book.lock().unwrap();
            let inner = Arc::clone(&book);
            pool.apply_async_with(Command::new("true"), move |_| *inner.lock().unwrap() += 1).unwrap();
            *held += 1;
        }
        let held = book.lock().unwrap();
        let inner = Arc::clone(&book);
        let last = pool.apply_async_with(sleeper(), move |_| *inner.lock().unwrap() += 1).unwrap();
        last.cancel();
        drop(held);
        pool.close();
        pool.join().unwrap();
        assert_eq!(*book.lock().unwrap(), 401);
    });
}

#[test]
fn two_pools_may_submit_to_each_other() {
    alone!({
        soon();
        let pools = Arc::new([Pool::new(2), Pool::new(2)]);
        let count = Arc::new(AtomicUsize::new(0));
        let weak = Arc::downgrade(&pools);
        fn bounce(pools: &std::sync::Weak<[Pool; 2]>, count: &Arc<AtomicUsize>, to: usize, left: usize) {
            let Some(all) = pools.upgrade() else { return };
            let (pools, inner) = (pools.clone(), Arc::clone(count));
            let next = move |_: &procession::pool::Done| {
                inner.fetch_add(1, Ordering::Relaxed);
                if left > 0 {
                    bounce(&pools, &inner, 1 - to, left - 1);
                }
            };
            drop(all[to].apply_async_with(Command::new("true"), next).unwrap());
        }
        for place in 0..20 {
            bounce(&weak, &count, place % 2, 9);
        }
        wait_for("all of them", || count.load(Ordering::Relaxed) == 200);
    });
}

#[test]
fn a_callback_may_drop_the_pool() {
    alone!({
        soon();
        let pool = Arc::new(Mutex::new(Some(Pool::new(2))));
        let inner = Arc::clone(&pool);
        let held = pool.lock().unwrap();
        let other = held.as_ref().unwrap().apply_async(sleeper()).unwrap();
        let callback = move |_: &procession::pool::Done| drop(inner.lock().unwrap().take());
        let first = held.as_ref().unwrap().apply_async_with(Command::new("true"), callback).unwrap();
        drop(held);
        assert!(first.into_done().success());
        assert_eq!(other.wait().outcome(), CANCELLED);
        assert!(pool.lock().unwrap().is_none());
    });
}

#[test]
fn a_callback_may_not_wait_for_its_pool() {
    alone!({
        soon();
        let pool = Arc::new(Pool::new(2));
        let inner = Arc::downgrade(&pool);
        let (said, heard) = std::sync::mpsc::channel();
        let callback = move |_: &procession::pool::Done| {
            let pool = inner.upgrade().unwrap();
            pool.close();
            said.send(pool.join().map_err(|error| error.to_string())).unwrap();
        };
        pool.apply_async_with(Command::new("true"), callback).unwrap();
        assert!(heard.recv().unwrap().unwrap_err().contains("callback"));
        pool.join().unwrap();
    });
}

#[test]
fn an_input_that_panics_loses_nothing_that_was_taken() {
    alone!({
        soon();
        std::panic::set_hook(Box::new(|_| ()));
        let pool = Pool::new(2);
        let input = (0..).map(|number| if number < 5 { Command::new("true") } else { panic!("no more") });
        let mut results = pool.imap(input);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| results.next().is_some()));
        assert!(panicked.is_err());
        let rest: Vec<_> = results.map(|done| (done.index(), done.success())).collect();
        assert_eq!(rest, (0..5).map(|index| (index, true)).collect::<Vec<_>>());
        let input = (0..).map(|number| if number < 3 { sleeper() } else { panic!("no more") });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.map(input))).is_err());
        wait_for("the end of what was taken", || pool.running() + pool.waiting() == 0);
    });
}

/// Those who look on see what each attempt has said.
#[test]
fn an_attempt_that_failed_is_told_with_its_record() {
    alone!({
        soon();
        struct Said(Arc<Mutex<Vec<String>>>);
        impl procession::pool::Observer for Said {
            fn see(&mut self, news: &procession::pool::TaskNews<'_>) {
                let said = match news {
                    procession::pool::TaskNews::Retrying { label, attempt, result, .. } => {
                        let output = result.unwrap_or_else(procession::Error::output);
                        format!("{label} {attempt} {:?} {}", result.is_ok(), output.stdout_lossy())
                    }
                    procession::pool::TaskNews::Finished(done) => format!("{done}"),
                    _ => return,
                };
                self.0.lock().unwrap().push(said);
            }
        }
        let said = Arc::default();
        let engine = Scripted::new()
            .on_program("x", Script::new().stdout("one").exits(3))
            .times(1)
            .on_program("x", Script::new().stdout("two").hangs())
            .times(1)
            .otherwise(Script::new());
        let pool = Pool::with_engine(1, engine).retry(Retry::times(2)).observe(Said(Arc::clone(&said)));
        let task = Task::new(Command::new("x").timeout(SECOND)).name("it");
        assert!(pool.apply(task).unwrap().success());
        drop(pool);
        assert_eq!(*said.lock().unwrap(), ["it 1 true one", "it 2 false two", "it: exit 0"]);
    });
}

/// Whoever was kept from running by others is told apart from those who failed, and is counted apart.
#[test]
fn why_it_was_not_started() {
    alone!({
        soon();
        let engine = || {
            Scripted::new()
                .on_program("fails", Script::new().exits(1))
                .on_program("nobody", Script::new().not_found())
                .on_program("hangs", Script::new().hangs())
                .otherwise(Script::new())
        };
        let task = |program: &str| Task::new(Command::new(program)).name(program);
        let summary = Summary::new();
        let pool = Pool::with_engine(1, engine()).halt(Halt::on_failures(3)).observe(summary.clone());
        let pending = pool
            .submit_all([
                task("fails"),
                task("b").after("fails"),
                task("c").after("b"),
                task("nobody"),
                task("hangs"),
                task("waits"),
                task("over"),
            ])
            .unwrap();
        assert_eq!(pending[3].wait().outcome(), Outcome::NotStarted);
        assert!(pending[5].cancel());
        wait_for("its start", || pending[4].is_running());
        let halts = pool.apply_async(Task::new(Command::new("fails")).priority(1)).unwrap();
        // It is the third failure, and comes before what is left.
        pending[6].cancel();
        let late = pool.submit_all([task("late"), task("later").after("late")]).unwrap();
        pending[4].cancel();
        assert!(!halts.wait().success());
        let why = |one: &Pending| one.wait().unstarted();
        let first = pending[0].id();
        assert_eq!(
            pending.iter().map(why).collect::<Vec<_>>(),
            [
                None,
                Some(Unstarted::Dependency(first)),
                Some(Unstarted::Dependency(first)),
                None,
                None,
                Some(Unstarted::Cancelled),
                Some(Unstarted::Cancelled),
            ]
        );
        assert_eq!(late.iter().map(why).collect::<Vec<_>>(), [Some(Unstarted::Halted); 2]);
        let after = pool.apply_async(task("after")).unwrap();
        assert_eq!(why(&after), Some(Unstarted::Halted));
        drop(pool);
        assert_eq!((summary.tasks(), summary.not_started(), summary.failed(), summary.cancelled()), (11, 7, 3, 1));
        // Of those that were to be tried again the last attempt counts.
        let summary = Summary::new();
        let pool = Pool::with_engine(1, engine()).observe(summary.clone());
        let again = pool.apply_async(task("fails").retry(Retry::times(9).pause_of(600 * SECOND))).unwrap();
        drop(pool);
        assert!(again.wait().unstarted().is_none_or(|why| why == Unstarted::Cancelled));
        assert_eq!(summary.not_started() + summary.cancelled() + summary.failed(), 1);
    });
}

/// Also where tasks are run again, are put off, have been run before, and on several engines.
#[test]
fn so_much_time_lies_between_starts() {
    alone!({
        soon();
        let times = |engines: usize, change: fn(Pool) -> Pool, tasks: Vec<Task>| {
            let engines: Vec<Scripted> = (0..engines)
                .map(|_| {
                    Scripted::new()
                        .on_program("fails", Script::new().takes(SECOND / 2).exits(1))
                        .on_program("late", Script::new().refused_at_first(1))
                        .otherwise(Script::new().takes(100 * SECOND))
                })
                .collect();
            let holds: Vec<_> = engines.iter().map(Scripted::hold).collect();
            let engines = engines.into_iter().map(|engine| Box::new(engine) as Box<dyn procession::pool::Engine>);
            let pool = change(Pool::with_engines(8, engines.collect()).start_interval(3 * SECOND));
            let pending = pool.submit_all(tasks).unwrap();
            drop(holds);
            let mut starts: Vec<_> = pending.iter().filter_map(|one| one.wait().started()).collect();
            starts.sort_unstable();
            starts.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<Duration>>()
        };
        let tasks = |programs: &[&str]| programs.iter().map(|program| Task::new(Command::new(*program))).collect();
        assert_eq!(times(1, |pool| pool, tasks(&["a", "b", "c", "d"])), [3 * SECOND; 3]);
        let skips: fn(Pool) -> Pool = |pool| pool.skip_if(|task| task.command().get_program() == "b");
        assert_eq!(times(1, skips, tasks(&["a", "b", "b", "c"])).into_iter().max(), Some(3 * SECOND));
        // The one that is run again comes behind the other two.
        let retries: fn(Pool) -> Pool = |pool| pool.retry(Retry::times(1).pause_of(SECOND));
        assert_eq!(times(1, retries, tasks(&["fails", "a"])), [3 * SECOND]);
        assert!(times(1, |pool| pool, tasks(&["a", "late", "b"])).into_iter().all(|between| between >= 3 * SECOND));
        // Several engines, on the one clock that they have in common.
        let engines = (0..3).map(|_| Box::new(Local::new().unwrap()) as Box<dyn procession::pool::Engine>);
        let interval = Duration::from_millis(10);
        let pool = Pool::with_engines(8, engines.collect()).start_interval(interval);
        let begin = Instant::now();
        let pending = pool.submit_all((0..7).map(|_| Command::new("true"))).unwrap();
        let mut starts: Vec<_> = pending.iter().filter_map(|one| one.wait().started()).collect();
        starts.sort_unstable();
        // How long it takes from the word to the start is not the pool's: what is known is that none comes before its time.
        let since = starts.iter().map(|start| start.duration_since(begin));
        assert!(since.zip(0..).all(|(since, number)| since >= interval * number), "{starts:?}");
    });
}

/// There is no start without a process.
#[test]
fn what_could_not_be_started_was_not_started() {
    alone!({
        soon();
        let pool = Pool::new(1);
        let done = pool.apply_async(Command::new("/no/such/program")).unwrap().into_done();
        assert_eq!((done.outcome(), done.attempts(), done.started()), (Outcome::NotStarted, 0, None));
        let done = pool.apply_async(Command::new("true")).unwrap().into_done();
        assert_eq!((done.attempts(), done.slot()), (1, 0));
        assert!(done.started().unwrap() >= done.submitted() && done.ended() >= done.started().unwrap());
    });
}

// ---- room, halts and strangers ----

#[test]
fn what_had_no_room_is_not_started_after_the_halt() {
    alone!({
        soon();
        let engine = Scripted::new()
            .on_program("late", Script::new().refused_at_first(u32::MAX))
            .on_program("fails", Script::new().takes(SECOND).exits(1));
        let (journal, hold) = (engine.journal(), engine.hold());
        let pool = Pool::with_engine(3, engine).halt(Halt::on_failures(1));
        let pending = pool.submit_all(["fails", "late"].map(Command::new)).unwrap();
        drop(hold);
        assert_eq!(outcomes(&pending), [Outcome::Exited(1), Outcome::NotStarted]);
        assert_eq!(journal.started().len(), 1, "{journal}");
    });
}

#[test]
fn a_cancelled_task_for_which_there_is_no_room_is_cancelled() {
    alone!({
        soon();
        let engine = Scripted::new().otherwise(Script::new().refused_at_first(u32::MAX));
        let _hold = engine.hold();
        let journal = engine.journal();
        let pool = Pool::with_engine(1, engine);
        let pending = pool.apply_async(Command::new("x")).unwrap();
        wait_for("a try", || !journal.entries().is_empty());
        pending.cancel();
        assert_eq!(pending.wait().outcome(), CANCELLED);
    });
}

#[test]
fn room_is_looked_for_while_something_runs_for_ever() {
    alone!({
        soon();
        let engine =
            Scripted::new().on_program("for-ever", Script::new().hangs()).otherwise(Script::new().refused_at_first(3));
        let pool = Pool::with_engine(2, engine);
        let _first = pool.apply_async(Command::new("for-ever")).unwrap();
        assert!(pool.apply(Command::new("x")).is_ok());
    });
}

#[test]
fn a_task_of_another_pool_cannot_be_waited_for() {
    alone!({
        soon();
        let (one, other) = (Pool::new(1), Pool::new(1));
        one.apply(Command::new("true")).unwrap();
        let foreign = other.apply_async(sleeper()).unwrap();
        let own = one.apply_async(Command::new("true")).unwrap();
        let error = one.apply(Task::new(Command::new("true")).after(foreign.id())).unwrap_err();
        assert!(error.to_string().contains("is not of this pool"), "{error}");
        assert!(one.apply(Task::new(Command::new("true")).after(own.id())).is_ok());
    });
}

#[test]
fn those_that_never_ran_are_no_failures_of_the_run() {
    alone!({
        soon();
        let pool = Pool::new(1).halt(Halt::on_failures(2));
        let done = pool.map([
            Task::new(Command::new("false")).name("a"),
            Task::new(Command::new("true")).after("a"),
            Task::new(Command::new("true")).after("a"),
            Task::new(Command::new("true")),
        ]);
        assert!(done[3].success(), "{done:?}");
    });
}

#[test]
fn a_slow_input_does_not_keep_the_first_waiting() {
    alone!({
        soon();
        let pool = Pool::new(2).look_ahead(usize::MAX);
        let endless = std::iter::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(10));
            Command::new("true")
        });
        let first: Vec<usize> = pool.imap(endless).take(3).map(|done| done.index()).collect();
        assert_eq!(first, [0, 1, 2]);
        // Those that wait for what comes later are submitted with it all the same.
        let chain = (0..4).map(|number| {
            std::thread::sleep(Duration::from_millis(10));
            let task = Task::new(Command::new("true")).name(number.to_string());
            if number < 3 { task.after((number + 1).to_string()) } else { task }
        });
        assert!(pool.imap(chain).all(|done| done.success()));
    });
}

#[test]
fn a_pool_that_cannot_start_says_so_and_may_start_later() {
    alone!({
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        soon();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let pool = Pool::new(2);
        setrlimit(Resource::RLIMIT_NOFILE, 4, hard).unwrap();
        let done = pool.map((0..3).map(|_| Command::new("true")));
        assert!(done.iter().all(|done| matches!(done.outcome(), Outcome::EngineFailed { .. })), "{done:?}");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(pool.apply(Command::new("true")).is_ok());
    });
}

#[test]
fn a_pause_goes_on_when_the_engine_of_the_attempt_has_died() {
    alone!({
        soon();
        for _ in 0..20 {
            let dying =
                Scripted::new().on_program("first", Script::new()).otherwise(Script::new().ends_engine("smoke"));
            let pool = Pool::with_engines(2, vec![Box::new(dying), Box::new(Scripted::new().otherwise(Script::new()))]);
            pool.apply(Command::new("first")).unwrap();
            let retry = Retry::times(1).pause_of(Duration::from_millis(20));
            let done = pool.apply_async(Task::new(Command::new("x")).idempotent().retry(retry)).unwrap().into_done();
            assert!(done.success(), "{done:?}");
        }
    });
}
