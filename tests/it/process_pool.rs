//! Functions in a pool of processes: Python's verbs, and what becomes of tasks when workers die.

use crate::support::alone;
use procession::ipc::{Barrier, Descriptor, Lock, Process, ProcessPool, RLock, Value, current};
use procession::{ErrorKind, ExitStatus, Signal, Stdio};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

fn square(number: u64) -> u64 {
    number * number
}

/// Ends in the way that the number says.
fn fail(number: u32) -> u32 {
    match number {
        0 => std::process::abort(),
        1 => std::process::exit(7),
        2 => panic!("two"),
        number => number,
    }
}

fn sleep(time: Duration) -> u32 {
    std::thread::sleep(time);
    std::process::id()
}

const FOREVER: Duration = Duration::from_secs(600);

#[test]
fn results_come_in_order_whatever_their_number() {
    alone!({
        let pool = ProcessPool::new(3).unwrap();
        assert_eq!(pool.map(square, 0..20_000).unwrap(), (0..20_000).map(square).collect::<Vec<_>>());
        let mut unordered: Vec<u64> = pool.imap_unordered(square, 0..1_000).collect::<Result<_, _>>().unwrap();
        unordered.sort_unstable();
        assert_eq!(unordered, (0..1_000).map(square).collect::<Vec<_>>());
        assert!(pool.map(square, []).unwrap().is_empty());
        assert_eq!(pool.apply(|text: String| text.to_uppercase(), "different".into()).unwrap(), "DIFFERENT");
        assert_eq!(pool.map(|(a, b): (i64, i64)| a - b, [(1, 2), (5, 3)]).unwrap(), [-1, 2]);
    });
}

/// Long arguments and long results, more than anything between the processes could hold.
#[test]
fn any_size_goes_through() {
    alone!({
        let pool = ProcessPool::new(2).unwrap();
        let texts = (0..40_usize).map(|number| "x".repeat(number * 50_000 + 8_000));
        let reversed = |text: String| text.len() as u64;
        let lengths = pool.map(reversed, texts.clone()).unwrap();
        assert_eq!(lengths, texts.map(|text| text.len() as u64).collect::<Vec<_>>());
        let long = pool.map(|length: usize| "y".repeat(length), (0..40).map(|number| number * 50_000)).unwrap();
        assert!(long.iter().enumerate().all(|(number, text)| text.len() == number * 50_000));
    });
}

#[test]
fn both_workers_work() {
    alone!({
        let pool = ProcessPool::new(2).unwrap();
        let place = |()| -> (String, u32) {
            std::thread::sleep(Duration::from_millis(20));
            (current().unwrap().name().to_owned(), std::process::id())
        };
        let mut places = pool.map(place, [(); 10]).unwrap();
        places.sort();
        places.dedup();
        let names: Vec<&str> = places.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Worker-1", "Worker-2"]);
        assert!(places.iter().all(|(_, id)| *id != std::process::id()));
    });
}

/// The death of a worker is the matter of the task that it was in.
#[test]
fn a_death_is_blamed_on_its_task_and_touches_no_other() {
    alone!({
        let builder = ProcessPool::builder().workers(2).configure(|command| command.stderr(Stdio::piped()));
        let pool = builder.build().unwrap();
        let results: Vec<_> =
            pool.imap(fail, (0..300).map(|number| if number % 100 < 3 { number % 100 } else { 9 })).collect();
        for (number, result) in results.into_iter().enumerate() {
            let error = match (number % 100, result) {
                (0..3, Err(error)) => error,
                (3.., Ok(9)) => continue,
                (number, result) => panic!("{number}: {result:?}"),
            };
            let text = error.to_string();
            assert!(text.starts_with("Worker-") && text.contains("process_pool::fail"), "{text}");
            match number % 100 {
                0 => assert_eq!(error.output().status().signal(), Some(Signal::ABRT), "{text}"),
                1 => assert_eq!(error.output().status(), ExitStatus::from_code(7), "{text}"),
                _ => assert_eq!(error.panic().unwrap().message(), "two", "{text}"),
            }
        }
    });
}

extern "C" fn never_unwinds() {
    panic!("where nothing can unwind");
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("the second one");
    }
}

/// A panic that aborts, as all do in a program that was built so, is told with its words; an abort after one that was caught is none.
#[test]
fn a_panic_that_aborts_is_a_panic() {
    alone!({
        let builder = ProcessPool::builder().workers(1).retries(9).configure(|command| command.stderr(Stdio::piped()));
        let pool = builder.build().unwrap();
        let task = |how: u32| -> u32 {
            match how {
                0 => never_unwinds(),
                1 => {
                    let _dropped = PanicsWhenDropped;
                    panic!("the first one");
                }
                2 => panic!("an ordinary one"),
                _ => assert!(std::panic::catch_unwind(|| panic!("caught")).is_err()),
            }
            how
        };
        for (how, words) in [(0, "where nothing can unwind"), (1, "the second one"), (2, "an ordinary one")] {
            let error = pool.apply(task, how).unwrap_err();
            let panic = error.panic().unwrap();
            assert_eq!(panic.message(), words, "{error}");
            assert!(panic.location().starts_with("tests/it/process_pool.rs:"), "{error}");
            assert_eq!(error.output().status().signal(), (how < 2).then_some(Signal::ABRT));
            assert!(error.to_string().starts_with("Worker-"), "{error}");
        }
        // The same worker, one after the other.
        let builder = ProcessPool::builder().workers(1).configure(|command| command.stderr(Stdio::piped()));
        let pool = builder.build().unwrap();
        assert_eq!(pool.apply(task, 3).unwrap(), 3);
        let error = pool.apply(fail, 0).unwrap_err();
        assert!(error.is_status() && error.output().status().signal() == Some(Signal::ABRT), "{error}");
        assert!(pool.apply(task, 2).unwrap_err().panic().is_some());
        assert!(pool.apply(fail, 0).unwrap_err().is_status());
    });
}

/// Killed from outside, idle and busy, again and again: every task is answered, and with retries every one is done.
#[test]
fn workers_that_are_killed_are_replaced() {
    alone!({
        let pool = ProcessPool::builder().workers(2).retries(1_000).build().unwrap();
        let (sender, receiver) = mpsc::channel::<()>();
        let killer = std::thread::spawn(move || {
            let mut killed = 0;
            while receiver.recv_timeout(Duration::from_millis(10)) == Err(mpsc::RecvTimeoutError::Timeout) {
                killed += u32::from(kill_one_child());
            }
            killed
        });
        let task = |number: u64| {
            std::thread::sleep(Duration::from_micros(number % 300));
            square(number)
        };
        for _ in 0..5 {
            assert_eq!(pool.map(task, 0..1_000).unwrap(), (0..1_000).map(square).collect::<Vec<_>>());
        }
        drop(sender);
        let killed = killer.join().unwrap();
        assert!(killed > 5, "{killed} killed");
    });
}

/// The first child of this process that there is.
fn kill_one_child() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let Some(child) = children.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).next()
    else {
        return false;
    };
    // SAFETY: integer arguments; a child of ours.
    unsafe { libc::kill(child.parse().unwrap(), libc::SIGKILL) == 0 }
}

#[test]
fn a_timeout_stops_one_worker() {
    alone!({
        let pool = ProcessPool::builder().workers(2).timeout(Duration::from_millis(100)).build().unwrap();
        let times = [Duration::ZERO, FOREVER, Duration::ZERO, Duration::from_millis(1)];
        let results: Vec<_> = pool.imap(sleep, times).collect();
        let late = results[1].as_ref().unwrap_err();
        assert!(late.is_timeout() && late.to_string().contains("not finished after 100ms"), "{late}");
        assert!([0, 2, 3].iter().all(|number| results[*number].is_ok()), "{results:?}");
    });
}

#[test]
fn cancelling_reaches_what_waits_and_what_runs() {
    alone!({
        let pool = ProcessPool::new(1).unwrap();
        let running = pool.apply_async(sleep, FOREVER).unwrap();
        let waiting = pool.apply_async(square, 3).unwrap();
        let other = pool.apply_async(square, 4).unwrap();
        waiting.cancel();
        assert!(waiting.get().unwrap_err().is_cancelled());
        assert!(!running.is_done() && !other.is_done());
        running.cancel();
        assert!(running.get().unwrap_err().is_cancelled());
        assert_eq!(other.get().unwrap(), 16);
        // An iteration that is left takes its tasks with it.
        let mut endless = pool.imap(sleep, [Duration::ZERO, FOREVER]);
        assert!(endless.next().unwrap().is_ok());
        drop(endless);
        assert_eq!(pool.apply(square, 5).unwrap(), 25);
    });
}

/// A task that lies ready behind one that takes long goes to a worker that has nothing to do.
#[test]
fn nothing_waits_behind_a_long_task_while_somebody_is_idle() {
    alone!({
        let pool = ProcessPool::new(2).unwrap();
        // Both know that tasks are short.
        pool.map(square, 0..5_000).unwrap();
        let nap = |number: u32| {
            if number == 0 {
                std::thread::sleep(FOREVER);
            }
            number
        };
        let mut results = pool.imap_unordered(nap, 0..100);
        let rest: Vec<u32> = (1..100).map(|_| results.next().unwrap().unwrap()).collect();
        assert_eq!(rest.len(), 99);
        assert!(results.next_timeout(Duration::from_millis(1)).is_none() && !results.is_over());
    });
}

#[test]
fn the_initializer_comes_first_in_every_worker() {
    alone!({
        static BASE: AtomicU32 = AtomicU32::new(0);
        let (mut reader, writer) = std::io::pipe().unwrap();
        let first = |(base, log): (u32, Descriptor)| {
            BASE.store(base, Ordering::Relaxed);
            std::io::PipeWriter::from(log.into_owned_fd()).write_all(b"begun\n").unwrap();
        };
        let builder = ProcessPool::builder().workers(2).tasks_per_worker(3);
        let pool = builder.initializer(first, (100, Descriptor::from(writer))).build().unwrap();
        let results =
            pool.map(|number: u32| (BASE.load(Ordering::Relaxed) + number, std::process::id()), 0..12).unwrap();
        assert!(results.iter().enumerate().all(|(number, (sum, _))| *sum == 100 + number as u32));
        let mut workers: Vec<u32> = results.iter().map(|(_, id)| *id).collect();
        workers.sort_unstable();
        assert!(workers.chunk_by(|one, two| one == two).all(|tasks| tasks.len() <= 3), "{workers:?}");
        drop(pool);
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        assert!(log.lines().count() >= 4, "{log}");
    });
}

/// Also when another worker has begun and works: it is not tried again and again.
#[test]
fn workers_without_a_beginning_are_not_started_for_ever() {
    alone!({
        let begun = Value::new(0_u32).unwrap();
        let first = |begun: Value<u32>| {
            if begun.fetch_add(1) > 0 {
                std::process::exit(7);
            }
        };
        let builder = ProcessPool::builder().workers(2).configure(|command| command.stderr(Stdio::null()));
        let pool = builder.initializer(first, begun.clone()).build().unwrap();
        pool.apply(square, 1).unwrap();
        let _long = pool.apply_async(sleep, FOREVER).unwrap();
        let error = pool.apply(square, 2).unwrap_err();
        assert!(error.to_string().contains("before its first task: exit status: 7"), "{error}");
        assert_eq!(begun.get(), 4);
    });
}

/// An initializer that fails would fail for ever: the pool says so instead.
#[test]
fn a_pool_without_a_beginning_is_broken() {
    alone!({
        for (how, words) in [(2, "panicked at tests/it/process_pool.rs"), (1, "exit status: 7"), (0, "signal: SIGABRT")]
        {
            let builder = ProcessPool::builder().workers(2).configure(|command| command.stderr(Stdio::null()));
            let pool = builder
                .initializer(
                    |how: u32| {
                        fail(how);
                    },
                    how,
                )
                .build()
                .unwrap();
            let error = pool.map(square, 0..10).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Engine);
            assert!(
                error.to_string().contains("before its first task") && error.to_string().contains(words),
                "{error}"
            );
            assert_eq!(pool.apply(square, 1).unwrap_err().kind(), ErrorKind::Engine);
        }
    });
}

#[test]
fn a_worker_that_grows_is_replaced() {
    alone!({
        let pool = ProcessPool::builder().workers(1).memory_per_worker(64 << 20).build().unwrap();
        let grow = |bytes: usize| -> u32 {
            std::mem::forget(vec![1_u8; bytes]);
            std::process::id()
        };
        let workers = pool.map(grow, [1, 1, 80 << 20, 1, 1]).unwrap();
        assert!(workers[0] == workers[1] && workers[1] == workers[2]);
        assert!(workers[2] != workers[3] && workers[3] == workers[4]);
    });
}

#[test]
fn closing_terminating_and_joining() {
    alone!({
        let pool = ProcessPool::new(2).unwrap();
        assert!(pool.join().unwrap_err().is_invalid_input());
        let last = pool.apply_async(sleep, Duration::from_millis(50)).unwrap();
        pool.close();
        assert!(pool.apply(square, 1).unwrap_err().is_invalid_input());
        pool.join().unwrap();
        assert!(last.is_done() && last.get().is_ok());

        let pool = ProcessPool::new(1).unwrap();
        let tasks: Vec<_> = (0..3).map(|_| pool.apply_async(sleep, FOREVER).unwrap()).collect();
        assert!(!tasks[0].wait_timeout(Duration::from_millis(20)));
        pool.close();
        assert!(pool.join_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
        pool.terminate();
        pool.join().unwrap();
        for task in tasks {
            let error = task.get().unwrap_err();
            assert!(error.is_cancelled() && error.to_string().contains("the pool was terminated"), "{error}");
        }
        // An endless input ends with the pool.
        let pool = ProcessPool::new(1).unwrap();
        let mut results = pool.imap(square, 0..);
        assert_eq!(results.next().unwrap().unwrap(), 0);
        pool.terminate();
        assert!(results.by_ref().take(100_000).count() < 100_000);
        assert!(results.is_over());
    });
}

/// Callbacks are called once, also those that panic, and the pool goes on.
#[test]
fn callbacks_get_every_result() {
    alone!({
        let pool = ProcessPool::new(2).unwrap();
        let (sender, receiver) = mpsc::channel();
        for number in 0..10 {
            let sender = sender.clone();
            let callback = move |result: Result<u64, procession::Error>| {
                sender.send(result.unwrap()).unwrap();
                assert!(number % 2 == 0, "on purpose");
            };
            pool.apply_async_with(square, number, callback).unwrap();
        }
        let mut squares: Vec<u64> = receiver.iter().take(10).collect();
        squares.sort_unstable();
        assert_eq!(squares, (0..10).map(square).collect::<Vec<_>>());
    });
}

/// The input is read a bounded number of items ahead.
#[test]
fn an_endless_input_is_taken_as_results_are() {
    alone!({
        let pool = ProcessPool::builder().workers(2).look_ahead(10).build().unwrap();
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let items = (0_u64..).inspect(|_| {
            TAKEN.fetch_add(1, Ordering::Relaxed);
        });
        for (number, result) in pool.imap(square, items).take(1_000).enumerate() {
            assert_eq!(result.unwrap(), square(number as u64));
            assert!(TAKEN.load(Ordering::Relaxed) <= number as u32 + 11);
        }
    });
}

#[test]
fn wrong_requests_are_refused() {
    alone!({
        assert!(ProcessPool::new(0).unwrap_err().is_invalid_input());
        assert!(ProcessPool::builder().tasks_per_worker(0).build().unwrap_err().is_invalid_input());
        let pool = ProcessPool::new(1).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let many: Vec<Descriptor> = (0..254).map(|_| reader.try_clone().unwrap().into()).collect();
        let error = pool.apply(|many: Vec<Descriptor>| many.len(), many).unwrap_err();
        assert!(error.to_string().contains("254 descriptors in it cannot be sent"), "{error}");
        let many = |reader: Descriptor| -> Vec<Descriptor> {
            let reader = reader.into_owned_fd();
            (0..254).map(|_| reader.try_clone().unwrap().into()).collect()
        };
        let error = pool.apply(many, Descriptor::from(reader)).unwrap_err();
        assert!(error.is_invalid_input() && error.to_string().contains("254 descriptors in it"), "{error}");
    });
}

/// What is written to the pipe until its last writer has gone.
fn drained(mut reader: std::io::PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

fn say((words, writer): (String, Descriptor)) {
    std::io::PipeWriter::from(writer.into_owned_fd()).write_all(words.as_bytes()).unwrap();
}

/// Tasks with descriptors and without, long and short, on several workers: each gets its own, and nobody keeps one.
#[test]
fn descriptors_come_with_their_task() {
    alone!({
        let pool = ProcessPool::new(3).unwrap();
        let mut readers = Vec::new();
        let said = (0..200_usize).map(|number| {
            let (reader, writer) = std::io::pipe().unwrap();
            readers.push(reader);
            (format!("{number}{}", "x".repeat(number * 100)), Descriptor::from(writer))
        });
        let said: Vec<_> = said.collect();
        let plain: Vec<_> = (0..200).map(|number| pool.apply_async(square, number).unwrap()).collect();
        pool.map(say, said).unwrap();
        for (number, task) in plain.into_iter().enumerate() {
            assert_eq!(task.get().unwrap(), square(number as u64));
        }
        for (number, reader) in readers.into_iter().enumerate() {
            assert_eq!(drained(reader), format!("{number}{}", "x".repeat(number * 100)));
        }
    });
}

/// Results can have them as well: the object is made over there and used here.
#[test]
fn descriptors_come_with_results() {
    alone!({
        let pool = ProcessPool::new(2).unwrap();
        let made = |number: u32| -> (u32, Value<u32>, Descriptor) {
            let (reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(format!("pipe {number}").as_bytes()).unwrap();
            (number, Value::new(number * 2).unwrap(), reader.into())
        };
        for (number, result) in pool.imap(made, 0..100).enumerate() {
            let (same, value, reader) = result.unwrap();
            assert_eq!((same as usize, value.get()), (number, 2 * same));
            assert_eq!(drained(std::io::PipeReader::from(reader.into_owned_fd())), format!("pipe {number}"));
        }
        // Nobody has asked for it: it goes.
        let _ = pool.apply_async(made, 1).unwrap();
    });
}

/// A lock as the argument of each task, taken by them at the same time: no update is lost.
#[test]
fn shared_objects_are_arguments_of_tasks() {
    alone!({
        let pool = ProcessPool::new(3).unwrap();
        let (lock, sum) = (Lock::new().unwrap(), Value::new(0_u64).unwrap());
        let add = |(lock, sum, number): (Lock, Value<u64>, u64)| {
            let _held = lock.lock().unwrap();
            sum.set(sum.get() + number);
        };
        pool.map(add, (0..300).map(|number| (lock.clone(), sum.clone(), number))).unwrap();
        assert_eq!(sum.get(), (0..300).sum::<u64>());
    });
}

/// A task that was not begun takes its descriptors to another worker; what is cancelled closes them, waiting or begun.
#[test]
fn descriptors_go_where_their_task_goes() {
    alone!({
        let pool = ProcessPool::new(1).unwrap();
        // The worker is known to be quick, and gets some in advance.
        pool.map(square, 0..5_000).unwrap();
        let long = pool.apply_async(sleep, FOREVER).unwrap();
        let pipes = || std::io::pipe().unwrap();
        let ((moved, moved_in), (cancelled, cancelled_in)) = (pipes(), pipes());
        let moved_on = pool.apply_async(say, ("moved on".to_owned(), moved_in.into())).unwrap();
        let waiting = pool.apply_async(say, ("cancelled".to_owned(), cancelled_in.into())).unwrap();
        waiting.cancel();
        assert!(waiting.get().unwrap_err().is_cancelled());
        assert_eq!(drained(cancelled), "");
        // The worker is stopped with the task behind the one that it is in.
        long.cancel();
        moved_on.get().unwrap();
        assert_eq!(drained(moved), "moved on");
        let (begun, begun_in) = pipes();
        let hold = |writer: Descriptor| {
            std::thread::sleep(FOREVER);
            drop(writer);
        };
        let running = pool.apply_async(hold, begun_in.into()).unwrap();
        running.cancel();
        assert_eq!(drained(begun), "");
        drop(running);
        // A pool that is dropped has none.
        let (left, left_in) = pipes();
        let _task = pool.apply_async(sleep, FOREVER).unwrap();
        let _behind = pool.apply_async(say, ("never".to_owned(), left_in.into())).unwrap();
        drop(pool);
        assert_eq!(drained(left), "");
    });
}

/// Workers that are killed all the time: with retries each task says its words, and no writer is left anywhere.
#[test]
fn descriptors_survive_the_death_of_workers() {
    alone!({
        let pool = ProcessPool::builder().workers(2).retries(1_000).build().unwrap();
        let (sender, receiver) = mpsc::channel::<()>();
        let killer = std::thread::spawn(move || {
            while receiver.recv_timeout(Duration::from_millis(10)) == Err(mpsc::RecvTimeoutError::Timeout) {
                kill_one_child();
            }
        });
        let slowly = |(number, writer): (u64, Descriptor)| {
            std::thread::sleep(Duration::from_micros(number * 7 % 300));
            say((number.to_string(), writer));
        };
        for _ in 0..5 {
            let (mut readers, mut tasks) = (Vec::new(), Vec::new());
            for number in 0..100 {
                let (reader, writer) = std::io::pipe().unwrap();
                readers.push(reader);
                tasks.push((number, Descriptor::from(writer)));
            }
            pool.map(slowly, tasks).unwrap();
            for (number, reader) in readers.into_iter().enumerate() {
                // Once, or more often if the worker was killed after it had spoken.
                let (text, number) = (drained(reader), number.to_string());
                assert!(!text.is_empty() && text.replace(&number, "").is_empty(), "{number}: {text}");
            }
        }
        drop(sender);
        killer.join().unwrap();
    });
}

/// A pool that is dropped in the middle of its work leaves nothing behind, at any moment.
#[test]
fn dropping_stops_everything() {
    alone!({
        for wait in 0..20 {
            let pool = ProcessPool::new(3).unwrap();
            let tasks: Vec<_> = (0..10).map(|_| pool.apply_async(sleep, FOREVER).unwrap()).collect();
            std::thread::sleep(Duration::from_micros(wait * wait * 20));
            let begun = Instant::now();
            drop(pool);
            assert!(begun.elapsed() < Duration::from_secs(20));
            assert!(tasks.into_iter().all(|task| task.get().unwrap_err().is_cancelled()));
        }
    });
}

/// What a process receives by two ways it has once.
#[test]
fn an_object_that_comes_twice_is_one() {
    alone!({
        let pool = ProcessPool::new(1).unwrap();
        let twice = |(one, two): (RLock, RLock)| {
            let _held = one.lock().unwrap();
            two.lock_timeout(Duration::ZERO).is_ok()
        };
        let lock = RLock::new().unwrap();
        assert!(pool.apply(twice, (lock.clone(), lock.clone())).unwrap());
        assert!(!lock.is_locked());
        // It comes with every task; the worker has more of them than there are places for parties.
        let count = Value::new(0_u32).unwrap();
        static KEPT: Mutex<Vec<Value<u32>>> = Mutex::new(Vec::new());
        let keep = |count: Value<u32>| {
            count.fetch_add(1);
            KEPT.lock().unwrap().push(count);
        };
        pool.map(keep, (0..5_000).map(|_| count.clone())).unwrap();
        assert_eq!(count.get(), 5_000);
    });
}

/// A copy that goes in order says nothing of the others.
#[test]
fn a_death_breaks_a_barrier_that_came_twice() {
    alone!({
        let barrier = Barrier::new(2).unwrap();
        let leaves = |(one, two): (Barrier, Barrier)| drop((one, two));
        Process::start(leaves, (barrier.clone(), barrier.clone())).unwrap().join().unwrap();
        assert!(!barrier.is_broken());
        let dies = |(one, _two): (Barrier, Barrier)| {
            drop(one);
            std::process::abort();
        };
        let mut process = Process::<()>::start(dies, (barrier.clone(), barrier.clone())).unwrap();
        assert!(process.join().unwrap_err().is_status());
        assert!(barrier.is_broken());
    });
}

/// A process that may not have so many: the task is told, and the next one is done. Nothing of it is left anywhere.
#[test]
fn too_many_descriptors_for_a_worker_are_told() {
    alone!({
        let few = |command: procession::Command| command.limit(procession::Resource::Nofile, 40, 40);
        let pool = ProcessPool::builder().workers(1).configure(few).build().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let many: Vec<Descriptor> = (0..100).map(|_| writer.try_clone().unwrap().into()).collect();
        drop(writer);
        let error = pool.apply(|many: Vec<Descriptor>| many.len() as u32, many).unwrap_err();
        assert!(error.to_string().contains("the descriptors in the arguments have not come"), "{error}");
        assert_eq!(drained(reader), "");
        let (reader, writer) = std::io::pipe().unwrap();
        pool.apply(say, ("after it".to_owned(), writer.into())).unwrap();
        assert_eq!(drained(reader), "after it");
    });
}
