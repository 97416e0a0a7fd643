//! Events, queues, locks and timeouts: the same on every runtime, between threads, and when somebody who waits is dropped.

use crate::drivers::{on_all_runtimes, ready};
use crate::support::alone;
use procession::future::{
    AsyncResult, Channel, Event, Full, Lock, Queue, Semaphore, TimedOut, Timeout, block_on, idle, scope, sleep,
    timeout, wait, with_timeout_value,
};
use procession::{Deadline, Error};
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(3);
const LONG: Duration = Duration::from_secs(60);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One look at a future.
async fn look<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    let mut future = Some(future);
    poll_fn(move |context| Poll::Ready(future.take().unwrap().poll(context))).await
}

fn is_send<T: Send + Sync>(value: T) -> T {
    value
}

#[test]
fn an_event_lets_all_go_also_if_it_is_cleared_at_once() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let event = is_send(Event::new());
            let waiters: Vec<Boxed<'_, ()>> = (0..5).map(|_| Box::pin(event.wait()) as Boxed<'_, ()>).collect();
            let pulse: Boxed<'_, ()> = Box::pin(async {
                idle().await;
                event.set();
                event.clear();
            });
            let ended = wait(waiters.into_iter().chain([pulse]), LONG, None).await;
            assert_eq!(ended.len(), 6);
            assert!(!event.is_set() && !event.wait_timeout(SHORT).await);
            event.set();
            assert!(event.wait_timeout(Duration::ZERO).await);
        });
    });
}

#[test]
fn a_result_comes_to_all() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let result = is_send(AsyncResult::new());
            let get = || Box::pin(result.get()) as Boxed<'_, String>;
            let set = Box::pin(async {
                sleep(SHORT).await;
                assert!(!result.ready());
                result.set("told".to_owned());
                String::new()
            });
            let ended = wait([get(), get(), set], LONG, None).await;
            assert_eq!(ended.iter().filter(|(_, text)| text == "told").count(), 2);
            assert_eq!(result.value().as_deref(), Some("told"));
        });
    });
}

#[test]
fn a_queue_keeps_order_and_bound() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let queue = is_send(Queue::new(3));
            let put: Boxed<'_, ()> = Box::pin(async {
                for number in 0..100 {
                    queue.put(number).await;
                    assert!(queue.qsize() <= 3);
                }
            });
            let get: Boxed<'_, ()> = Box::pin(async {
                for number in 0..100 {
                    assert_eq!(queue.get().await, number);
                    if number % 7 == 0 {
                        idle().await;
                    }
                    queue.task_done().unwrap();
                }
            });
            let joined: Boxed<'_, ()> = Box::pin(async {
                idle().await;
                queue.join().await;
            });
            assert_eq!(wait([get, put, joined], LONG, None).await.len(), 3);
            assert!(queue.is_empty() && queue.unfinished_tasks() == 0);
            assert!(queue.task_done().unwrap_err().is_invalid_input());
            (0..3).for_each(|number| queue.put_nowait(number).unwrap());
            assert!(queue.is_full());
            assert_eq!(queue.put_nowait(9), Err(Full(9)));
            assert_eq!(queue.put_timeout(9, SHORT).await, Err(Full(9)));
            assert_eq!((queue.get_nowait(), queue.get_timeout(LONG).await), (Some(0), Some(1)));
            queue.put_timeout(3, LONG).await.unwrap();
            assert_eq!((queue.get().await, queue.get().await), (2, 3));
            assert_eq!((queue.get_nowait(), queue.get_timeout(SHORT).await), (None, None));
        });
    });
}

#[test]
fn a_getter_that_was_called_and_dropped_loses_nothing() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let queue = Queue::new(3);
            let mut first = Box::pin(queue.get());
            let mut second = Box::pin(queue.get());
            assert!(look(first.as_mut()).await.is_pending() && look(second.as_mut()).await.is_pending());
            queue.put(1).await;
            // Who waits is first, whoever asks at once, or looks earlier.
            assert_eq!(queue.get_nowait(), None);
            assert!(look(second.as_mut()).await.is_pending());
            drop(first);
            assert_eq!(look(second.as_mut()).await, Poll::Ready(1));
            // The same where the second one is woken by the drop.
            let mut first = Box::pin(queue.get());
            assert!(look(first.as_mut()).await.is_pending());
            let second: Boxed<'_, i32> = Box::pin(queue.get());
            let third: Boxed<'_, i32> = Box::pin(async {
                idle().await;
                queue.put(2).await;
                drop(first);
                0
            });
            assert_eq!(wait([second, third], LONG, None).await.len(), 2);
        });
    });
}

#[test]
fn a_channel_hands_over_or_takes_back() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let channel = is_send(Channel::new());
            assert_eq!(channel.get_nowait(), None);
            let mut put = Box::pin(channel.put("withdrawn"));
            assert!(look(put.as_mut()).await.is_pending());
            drop(put);
            assert_eq!(channel.get_nowait(), None);
            let mut put = Box::pin(channel.put("taken"));
            let mut behind = Box::pin(channel.put("behind"));
            assert!(look(put.as_mut()).await.is_pending() && look(behind.as_mut()).await.is_pending());
            assert_eq!(channel.get().await, "taken");
            assert!(look(put.as_mut()).await.is_ready());
            let both: [Boxed<'_, &str>; 2] = [Box::pin(channel.get()), Box::pin(async { behind.await; "" })];
            assert_eq!(wait(both, LONG, None).await.len(), 2);
        });
    });
}

#[test]
fn permits_never_leak() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let (semaphore, inside) = (is_send(Semaphore::new(2)), AtomicUsize::new(0));
            let work = |number: u64| {
                let (semaphore, inside) = (&semaphore, &inside);
                Box::pin(async move {
                    // Some give up, some while they wait.
                    let Ok(permit) = timeout(Duration::from_micros(number * 100), semaphore.acquire()).await else { return };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                    sleep(Duration::from_micros(300)).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }) as Boxed<'_, ()>
            };
            assert_eq!(wait((0..40).map(work), LONG, None).await.len(), 40);
            assert_eq!(semaphore.value(), 2);
            semaphore.acquire().await.forget();
            assert_eq!(semaphore.value(), 1);
            semaphore.release(1);
            let lock = is_send(Lock::new());
            let held = lock.acquire().await;
            assert!(lock.locked() && lock.try_acquire().is_none());
            drop(held);
            assert!(!lock.locked());
        });
    });
}

#[test]
fn threads_wake_tasks_and_tasks_wake_threads() {
    alone!({
        let queue = Arc::new(Queue::new(2));
        let back = Arc::new(Queue::new(2));
        let (theirs, answers) = (queue.clone(), back.clone());
        let thread = std::thread::spawn(move || {
            block_on(async {
                for _ in 0..200 {
                    let number: u64 = theirs.get().await;
                    answers.put(number * 2).await;
                }
            })
            .unwrap();
        });
        let sum = scope(|scope| {
            scope.spawn(async {
                for number in 0..200 {
                    queue.put(number).await;
                }
            });
            scope.block_on(async {
                let mut sum = 0;
                for _ in 0..200 {
                    sum += back.get().await;
                }
                sum
            })
        });
        assert_eq!(sum.unwrap().unwrap(), 199 * 200);
        thread.join().unwrap();
    });
}

#[test]
fn a_timeout_is_known_by_its_limit() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let begin = Instant::now();
            let (outer, mut inner) = (Timeout::new(LONG), Timeout::new(SHORT));
            let error = outer.limit(inner.limit(pending::<()>())).await.unwrap().unwrap_err();
            assert!(error.is_of(&inner) && !error.is_of(&outer) && begin.elapsed() >= SHORT);
            assert!(outer.pending() && !inner.pending());
            // Done at the first look is never too late.
            assert_eq!(inner.limit(async { 1 }).await, Ok(1));
            inner.cancel();
            assert_eq!(inner.remaining(), None);
            let error: TimedOut = Timeout::new(SHORT).limit(inner.limit(pending::<()>())).await.unwrap_err();
            assert!(!error.is_of(&inner) && Error::from(error).is_timeout());
            inner.start(SHORT);
            assert!(inner.limit(pending::<()>()).await.is_err());
            assert!(timeout(Deadline::now(), pending::<()>()).await.is_err());
            assert_eq!(with_timeout_value(SHORT, 7, pending()).await, 7);
            assert_eq!(with_timeout_value(None, 7, async { 8 }).await, 8);
        });
    });
}

#[test]
fn some_of_several_are_enough() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let sleeper = |millis: u64| async move {
                sleep(Duration::from_millis(millis)).await;
                millis
            };
            assert_eq!(wait([40, 1, 20].map(sleeper), None, None).await, [(1, 1), (2, 20), (0, 40)]);
            assert_eq!(wait([60_000, 1].map(sleeper), None, Some(1)).await, [(1, 1)]);
            assert_eq!(wait([60_000, 1].map(sleeper), Duration::from_millis(50), None).await, [(1, 1)]);
            assert_eq!(wait([0; 0].map(sleeper), None, Some(3)).await, []);
        });
    });
}

#[test]
fn time_passes_where_there_is_no_runtime() {
    alone!(after ready, {
        // The simplest executor there is, on a thread of its own, many times at once.
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let run = || {
            let mut future = pin!(async {
                let begin = Instant::now();
                for _ in 0..5 {
                    sleep(SHORT).await;
                }
                begin.elapsed() >= 5 * SHORT
            });
            let waker = Arc::new(Unpark(std::thread::current())).into();
            let mut context = std::task::Context::from_waker(&waker);
            loop {
                match future.as_mut().poll(&mut context) {
                    Poll::Ready(result) => break result,
                    Poll::Pending => std::thread::park(),
                }
            }
        };
        std::thread::scope(|threads| {
            let all: Vec<_> = (0..4).map(|_| threads.spawn(run)).collect();
            assert!(all.into_iter().all(|thread| thread.join().unwrap()));
        });
    });
}

/// A small generator of numbers that differ.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn many_threads_and_tasks_that_give_up_lose_nothing() {
    alone!({
        let (queue, channel, permits) = (Queue::new(3), Channel::new(), Semaphore::new(2));
        let (put, got, inside) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let is_over = std::sync::atomic::AtomicBool::new(false);
        // Each has some tasks that put, get and hold, with patience for a few microseconds.
        let work = async |mut seed: u64, is_putter: bool| {
            while if is_putter { !next(&mut seed).is_multiple_of(400) } else { !is_over.load(Ordering::SeqCst) } {
                let patience = Duration::from_micros(next(&mut seed) % 300);
                match (is_putter, next(&mut seed) % 4) {
                    (true, 0) => {
                        put.fetch_add(usize::from(channel.put_timeout((), patience).await.is_ok()), Ordering::SeqCst);
                    }
                    (true, _) => {
                        put.fetch_add(usize::from(queue.put_timeout((), patience).await.is_ok()), Ordering::SeqCst);
                    }
                    (false, 0) => {
                        got.fetch_add(usize::from(timeout(patience, channel.get()).await.is_ok()), Ordering::SeqCst);
                    }
                    (false, 1) => {
                        if let Some(_permit) = permits.acquire_timeout(patience).await {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            idle().await;
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                    (false, _) => {
                        got.fetch_add(usize::from(queue.get_timeout(patience).await.is_some()), Ordering::SeqCst);
                    }
                }
            }
        };
        let run = |seed: u64, is_putter: bool| {
            let work = &work;
            move || {
                scope(|scope| {
                    for number in 0..4 {
                        scope.spawn(work(seed * 7919 + number * 104_729 + 1, is_putter));
                    }
                })
                .unwrap();
            }
        };
        std::thread::scope(|threads| {
            let putters: Vec<_> = (1..4).map(|seed| threads.spawn(run(seed, true))).collect();
            let getters: Vec<_> = (4..6).map(|seed| threads.spawn(run(seed, false))).collect();
            putters.into_iter().for_each(|thread| thread.join().unwrap());
            is_over.store(true, Ordering::SeqCst);
            getters.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let mut left = 0;
        while queue.get_nowait().is_some() {
            left += 1;
        }
        assert_eq!(channel.get_nowait(), None);
        assert_eq!(put.into_inner(), got.into_inner() + left);
        assert_eq!(permits.value(), 2);
    });
}
