//! The scope: tasks on one thread that nothing outlives.

use crate::drivers::{on_all_runtimes, ready};
use crate::support::{alone, descriptors};
use procession::future::{Ended, block_on, idle, scope, sleep, try_scope};
use procession::{Error, ErrorKind};
use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(3);
const LONG: Duration = Duration::from_secs(3600);

/// Sets its flag when it is dropped.
struct Flag<'a>(&'a Cell<bool>);

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| ()));
}

#[test]
fn sleep_is_never_early_on_any_runtime() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            for micros in [0, 1, 700, 1500, 5000] {
                let begin = Instant::now();
                sleep(Duration::from_micros(micros)).await;
                assert!(begin.elapsed() >= Duration::from_micros(micros));
            }
        });
    });
}

#[test]
fn tasks_take_turns_and_borrow() {
    alone!({
        let order = RefCell::new(Vec::new());
        scope(|scope| {
            for name in ["a", "b", "c"] {
                let order = &order;
                scope.spawn(async move {
                    for _ in 0..3 {
                        order.borrow_mut().push(name);
                        idle().await;
                    }
                });
            }
            assert_eq!(scope.len(), 3);
        })
        .unwrap();
        assert_eq!(order.into_inner().concat(), "abcabcabc");
    });
}

#[test]
fn a_task_spawns_others_and_the_scope_waits_for_all() {
    alone!({
        let count = Cell::new(0);
        let count = &count;
        scope(|scope| {
            let inside = scope.clone();
            scope.spawn(async move {
                for _ in 0..10 {
                    let inner = inside.clone();
                    inside.spawn(async move {
                        inner.spawn(async move {
                            sleep(SHORT).await;
                            count.set(count.get() + 1);
                        });
                    });
                }
            });
        })
        .unwrap();
        assert_eq!(count.get(), 10);
    });
}

#[test]
fn a_task_that_never_waits_starves_neither_timers_nor_others() {
    alone!({
        let rounds = scope(|scope| {
            let (done, rounds) = (Cell::new(false), Cell::new(0_u64));
            let (done, rounds) = (std::rc::Rc::new(done), std::rc::Rc::new(rounds));
            let (is_done, counted) = (done.clone(), rounds.clone());
            scope.spawn(async move {
                while !is_done.get() {
                    counted.set(counted.get() + 1);
                    idle().await;
                }
            });
            scope.block_on(sleep(SHORT)).unwrap();
            done.set(true);
            rounds.get()
        })
        .unwrap();
        assert!(rounds > 3);
    });
}

#[test]
fn what_a_task_returns_comes_to_whoever_awaits_it() {
    alone!({
        let text = scope(|scope| {
            let task = scope.spawn(async { "value".to_owned() });
            let again = scope.spawn(async move {
                let value = task.await;
                value.map(|value| value + "!")
            });
            scope.block_on(again).unwrap()
        });
        assert_eq!(text.unwrap(), Ok(Ok("value!".to_owned())));
    });
}

#[test]
fn a_killed_task_is_dropped_and_says_so() {
    alone!({
        let dropped = Cell::new(false);
        scope(|scope| {
            let flag = Flag(&dropped);
            let task = scope.spawn(async move {
                let _flag = flag;
                pending::<()>().await;
            });
            scope.block_on(idle()).unwrap();
            assert!(task.started() && !task.ready() && !task.dead());
            task.kill();
            assert!(task.dead() && !task.ready() && !dropped.get());
            assert_eq!(scope.block_on(task).unwrap(), Err(Ended::Killed));
            assert!(dropped.get());
            // One that has not begun.
            let late = scope.spawn_later(LONG, async { 1 });
            let now = scope.spawn(async { 1 });
            late.kill();
            now.kill();
            scope.block_on(async { assert!(late.join(None).await && now.join(None).await) }).unwrap();
            assert!(!late.started() && !now.started());
            now.kill();
            assert_eq!((late.take(), now.take()), (Some(Err(Ended::Killed)), Some(Err(Ended::Killed))));
        })
        .unwrap();
    });
}

#[test]
fn a_panic_harms_no_other_and_is_told_to_whoever_asks() {
    alone!({
        quiet_panics();
        let other = scope(|scope| {
            let bad = scope.spawn(async {
                if true {
                    panic!("number {}", 7)
                }
            });
            let good = scope.spawn(async { 1 });
            assert_eq!(scope.block_on(bad).unwrap(), Err(Ended::Panicked("number 7".to_owned())));
            scope.block_on(good).unwrap()
        });
        assert_eq!(other.unwrap(), Ok(1));
        let error = Error::from(Ended::Panicked("x".to_owned()));
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Panic, "the task panicked: x"));
        let _ = std::panic::take_hook();
    });
}

#[test]
fn a_panic_that_nobody_asked_for_goes_on_at_the_end() {
    alone!({
        quiet_panics();
        let done = Cell::new(false);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            scope(|scope| {
                scope.spawn(async {
                    if true {
                        panic!("alone")
                    }
                });
                scope.spawn(async {
                    sleep(SHORT).await;
                    done.set(true);
                });
            })
        }));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"alone"));
        assert!(done.get());
        let _ = std::panic::take_hook();
    });
}

#[test]
fn a_function_that_panics_or_fails_kills_what_it_has_spawned() {
    alone!({
        quiet_panics();
        let dropped = Cell::new(false);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            scope(|scope| {
                let flag = Flag(&dropped);
                scope.spawn(async move {
                    let _flag = flag;
                    sleep(LONG).await;
                });
                scope.block_on(idle()).unwrap();
                panic!("here")
            })
        }));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"here"));
        assert!(dropped.replace(false));
        let error = try_scope(|scope| {
            let flag = Flag(&dropped);
            scope.spawn(async move {
                let _flag = flag;
                sleep(LONG).await;
            });
            Err::<(), Error>(std::io::Error::other("no").into())
        });
        assert_eq!(error.unwrap_err().to_string(), "no");
        assert!(dropped.get());
        let _ = std::panic::take_hook();
    });
}

#[test]
fn a_handle_that_has_leaked_says_that_the_scope_is_closed() {
    alone!({
        let leaked = scope(|scope| scope.clone()).unwrap();
        assert!(leaked.block_on(async {}).unwrap_err().is_invalid_input());
        let task = leaked.spawn(async { 1 });
        assert_eq!(task.take(), Some(Err(Ended::Killed)));
        assert!(leaked.is_empty());
    });
}

#[test]
fn scopes_nest_in_functions_and_not_in_tasks() {
    alone!({
        let value = scope(|outer| {
            let task = outer.spawn(async { 1 });
            let inner = scope(|inner| inner.block_on(async { 2 })).unwrap().unwrap();
            (inner, outer.block_on(task).unwrap().unwrap())
        });
        assert_eq!(value.unwrap(), (2, 1));
        let error = block_on(async { scope(|_| ()) }).unwrap().unwrap_err();
        assert!(error.to_string().starts_with("called from inside a task"), "{error}");
        let error = scope(|scope| {
            let inside = scope.clone();
            let task = scope.spawn(async move { inside.block_on(async {}).unwrap_err() });
            scope.block_on(task).unwrap().unwrap()
        });
        assert!(error.unwrap().is_invalid_input());
    });
}

#[test]
fn a_waker_of_another_thread_wakes() {
    alone!({
        let value = block_on(async {
            let mut thread = None;
            let mut polls = 0;
            poll_fn(|context| {
                polls += 1;
                if thread.is_some() {
                    return Poll::Ready(());
                }
                let waker = context.waker().clone();
                thread = Some(std::thread::spawn(move || waker.wake()));
                Poll::Pending
            })
            .await;
            thread.unwrap().join().unwrap();
            polls
        });
        assert_eq!(value.unwrap(), 2);
    });
}

#[test]
fn nothing_wakes_while_nothing_happens_and_nothing_is_left() {
    alone!({
        let before = descriptors();
        scope(|scope| {
            for _ in 0..100 {
                scope.spawn(sleep(Duration::from_millis(200)));
            }
            let waits = scope.waits();
            scope.block_on(sleep(Duration::from_millis(150))).unwrap();
            // One for the timer; a parked thread may be woken early by the system now and then.
            assert!(scope.waits() - waits <= 3, "{}", scope.waits() - waits);
            assert_eq!(descriptors(), before);
        })
        .unwrap();
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn links_are_called_once_and_know_the_end() {
    alone!({
        quiet_panics();
        let calls = RefCell::new(Vec::new());
        scope(|scope| {
            let note = |name: &'static str| {
                let calls = &calls;
                move |task: &procession::future::Task<'_, i32>| {
                    calls.borrow_mut().push((name, task.failure(), task.value()))
                }
            };
            let good = scope.spawn(async { 1 });
            good.link(note("any"));
            good.link_value(note("value"));
            good.link_exception(note("exception"));
            let bad = scope.spawn(async { if true { panic!("x") } else { 1 } });
            bad.link_value(note("value"));
            bad.link_exception(note("exception"));
            let unlinked = scope.spawn(async { 1 });
            unlinked.link(note("unlinked"));
            unlinked.unlink_all();
            scope.block_on(async { assert!(good.join(LONG).await && bad.join(LONG).await) }).unwrap();
            good.link(note("late"));
        })
        .unwrap();
        let panicked = Some(Ended::Panicked("x".to_owned()));
        let expected =
            [("any", None, Some(1)), ("value", None, Some(1)), ("exception", panicked, None), ("late", None, Some(1))];
        assert_eq!(calls.into_inner(), expected);
        let _ = std::panic::take_hook();
    });
}

#[test]
fn a_link_may_spawn_and_a_drop_may_spawn() {
    alone!({
        struct Spawns<'a>(procession::future::Scope<'a>, &'a Cell<u32>);
        impl Drop for Spawns<'_> {
            fn drop(&mut self) {
                let count = self.1;
                self.0.spawn(async move { count.set(count.get() + 1) });
            }
        }
        let count = Cell::new(0);
        let count = &count;
        scope(|scope| {
            let inside = scope.clone();
            scope.spawn(async {}).link(move |_| {
                inside.spawn(async move { count.set(count.get() + 1) });
            });
            let spawns = Spawns(scope.clone(), count);
            let task = scope.spawn(async move {
                let _spawns = spawns;
                pending::<()>().await;
            });
            scope.block_on(idle()).unwrap();
            task.kill();
            scope.block_on(task).unwrap().unwrap_err();
            assert_eq!(scope.block_on(async { count.get() }).unwrap(), 2);
            let spawns = Spawns(scope.clone(), count);
            scope.spawn(async move {
                let _spawns = spawns;
                pending::<()>().await;
            });
            scope.kill_tasks();
        })
        .unwrap();
        assert_eq!(count.get(), 3);
    });
}

#[test]
fn join_gives_up_at_its_time() {
    alone!({
        scope(|scope| {
            let task = scope.spawn(sleep(LONG));
            assert!(!scope.block_on(task.join(SHORT)).unwrap());
            task.kill();
            assert!(scope.block_on(task.join(LONG)).unwrap());
            assert_eq!(task.failure(), Some(Ended::Killed));
        })
        .unwrap();
    });
}
