//! Loops over the records of many tasks: what is taken from the input, when it is submitted, and where the loop ends.

use crate::support::{alone, wait_for};
use procession::pool::{
    Halt, Observer, Outcome, Pool, ReturnWhen, Script, Scripted, Task, TaskNews, as_completed, wait,
};
use procession::{Command, Deadline};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Far more than any of these tests takes, and less than the limit of all tests: a hang is seen early.
fn soon() {
    // SAFETY: an integer argument.
    unsafe { libc::alarm(40) };
}

fn scripted() -> Scripted {
    Scripted::new().on_program("false", Script::new().exits(1)).otherwise(Script::new())
}

fn job() -> Command {
    Command::new("true")
}

/// The labels of the tasks that were started.
#[derive(Clone, Default)]
struct Starts(Arc<Mutex<Vec<String>>>);

impl Observer for Starts {
    fn see(&mut self, news: &TaskNews<'_>) {
        if let TaskNews::Started { label, .. } = news {
            self.0.lock().unwrap().push((*label).to_owned());
        }
    }
}

impl Starts {
    fn has(&self, label: &str) -> bool {
        self.0.lock().unwrap().iter().any(|one| one == label)
    }
}

#[test]
fn a_halt_ends_a_loop_over_an_endless_input() {
    alone!({
        soon();
        let taken = AtomicUsize::new(0);
        let endless = || {
            (0..).map(|number| {
                taken.fetch_add(1, Ordering::Relaxed);
                if number == 5 { Command::new("false") } else { job() }
            })
        };
        type Run = fn(&Pool, &mut dyn Iterator<Item = Command>) -> Vec<usize>;
        let loops: [(&str, Run); 3] = [
            ("map", |pool, tasks| pool.map(tasks).iter().map(|done| done.index()).collect()),
            ("imap", |pool, tasks| pool.imap(tasks).map(|done| done.index()).collect()),
            ("imap_unordered", |pool, tasks| pool.imap_unordered(tasks).map(|done| done.index()).collect()),
        ];
        for (name, run) in loops {
            for halt in [Halt::on_failures(1), Halt::on_failures(1).now(), Halt::on_successes(3)] {
                taken.store(0, Ordering::Relaxed);
                let pool = Pool::with_engine(2, scripted()).halt(halt);
                assert_eq!(pool.halted(), None);
                let mut indexes = run(&pool, &mut endless());
                indexes.sort_unstable();
                let taken = taken.load(Ordering::Relaxed);
                assert_eq!(indexes, (0..taken).collect::<Vec<_>>(), "{name} {halt:?}");
                assert!(pool.halted().unwrap().ends_with(" failed") || halt == Halt::on_successes(3));
                // Nothing more is taken by whoever asks again.
                assert_eq!(run(&pool, &mut endless()), [0; 0]);
            }
        }
    });
}

#[test]
fn a_pool_that_is_closed_ends_a_loop_over_an_endless_input() {
    alone!({
        soon();
        let pool = Pool::with_engine(2, scripted());
        let mut dones = Vec::new();
        for done in pool.imap((0..).map(|_| job())) {
            pool.close();
            dones.push(done);
        }
        let refused = dones.pop().unwrap();
        assert!(dones.iter().all(|done| done.success()));
        assert_eq!(refused.result().unwrap_err().to_string(), "true: the pool is closed");
        // Who comes too late is told, once.
        let dones = pool.map((0..).map(|_| job()));
        assert_eq!(dones.iter().map(|done| done.outcome()).collect::<Vec<_>>(), [Outcome::NotStarted]);
    });
}

#[test]
fn a_task_is_submitted_when_it_was_taken() {
    alone!({
        soon();
        let starts = Starts::default();
        let pool = Pool::with_engine(2, scripted()).observe(starts.clone());
        let input = (0..20).map(|number| {
            let before = format!("{}", number - 1);
            // As one who types the next line when he sees what has come of the last one.
            wait_for("the start of the one before", || number == 0 || starts.has(&before));
            Task::new(job()).name(number.to_string())
        });
        assert_eq!(pool.map(input).iter().filter(|done| done.success()).count(), 20);
    });
}

#[test]
fn who_waits_for_one_that_is_to_come_keeps_nobody_waiting() {
    alone!({
        soon();
        let starts = Starts::default();
        let pool = Pool::with_engine(8, scripted()).observe(starts.clone());
        let task = |name: &str| Task::new(job()).name(name);
        let names = ["late", "c", "b", "a", "last", "right", "left", "selfish", "end"];
        let input = names.iter().map(|&name| match name {
            "late" => task(name).after("end").after("a").after("end"),
            "c" => task(name).after("b"),
            "b" => task(name).after("a"),
            "last" => {
                wait_for("the start of all that is known", || ["a", "b", "c"].iter().all(|name| starts.has(name)));
                task(name)
            }
            // These wait for each other, for themselves, for nobody.
            "right" => task(name).after("left"),
            "left" => task(name).after_end("right"),
            "selfish" => task(name).after("selfish"),
            _ => task(name),
        });
        let dones = pool.map(input.chain([task("lost").after("nobody")]));
        let order: Vec<usize> = dones.iter().map(|done| done.index()).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
        let failed: Vec<_> = dones.iter().filter(|done| !done.success()).collect();
        assert_eq!(failed.iter().map(|done| done.index()).collect::<Vec<_>>(), [5, 6, 7, 9]);
        assert!(failed.iter().all(|done| done.result().unwrap_err().is_invalid_input()));
        assert!(dones[0].started() >= Some(dones[8].ended()));
    });
}

#[test]
fn a_look_ahead_that_is_full_gives_up_those_who_wait_for_what_is_to_come() {
    alone!({
        soon();
        let pool = Pool::with_engine(2, scripted()).look_ahead(3);
        let first = Task::new(job()).name("first").after("6");
        let rest = (1..8).map(|number| Task::new(job()).name(number.to_string()));
        let dones = pool.map(std::iter::once(first).chain(rest));
        assert_eq!(
            dones.iter().map(|done| done.success()).collect::<Vec<_>>(),
            [false, true, true, true, true, true, true, true]
        );
    });
}

/// What this process has used, in its own code and the system's.
fn processor_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_secs(value.tv_sec() as u64) + Duration::from_micros(value.tv_usec() as u64)
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// `PROCESSION_MANY_TASKS` is how many.
#[test]
fn the_time_for_a_task_does_not_grow_with_their_number() {
    let many = std::env::var("PROCESSION_MANY_TASKS").ok().map_or(24_000, |text| text.parse::<usize>().unwrap());
    alone!({
        let jobs = |count| (0..count).map(|_| job());
        let submit = |pool: &Pool, count| pool.submit_all(jobs(count)).unwrap();
        type Verb<'a> = &'a dyn Fn(&Pool, usize) -> usize;
        let verbs: [(&str, Verb<'_>); 7] = [
            ("map", &|pool, count| pool.map(jobs(count)).len()),
            ("imap", &|pool, count| pool.imap(jobs(count)).count()),
            ("imap_unordered", &|pool, count| pool.imap_unordered(jobs(count)).count()),
            ("as_completed", &|pool, count| as_completed(&submit(pool, count), Deadline::NEVER).count()),
            ("wait", &|pool, count| wait(&submit(pool, count), ReturnWhen::All, Deadline::NEVER).0.len()),
            ("join", &|pool, count| {
                jobs(count).for_each(|job| drop(pool.apply_async(job).unwrap()));
                pool.close();
                pool.join().unwrap();
                count
            }),
            ("halt", &|_, count| {
                let pool = Pool::with_engine(4, scripted()).halt(Halt::on_failures(1));
                let first = pool.apply_async(Command::new("false")).unwrap();
                assert!(!first.wait().success());
                let pending = submit(&pool, count);
                let singles: Vec<_> = jobs(count).map(|job| pool.apply_async(job).unwrap()).collect();
                assert!(pending.iter().chain(&singles).all(|one| one.wait().attempts() == 0));
                count
            }),
        ];
        for (name, verb) in verbs {
            let time = |count: usize| {
                let pool = Pool::with_engine(4, scripted());
                let before = processor_time();
                assert_eq!(verb(&pool, count), count);
                (processor_time() - before).as_secs_f64() / count as f64 * 1e6
            };
            let (few, many) = (time(many / 16), time(many));
            eprintln!("{name}: {few:.1} us each of few, {many:.1} us each of many");
            assert!(many < 4.0 * few + 20.0, "{name}: {few:.1} us each of few, {many:.1} us each of many");
        }
    });
}
