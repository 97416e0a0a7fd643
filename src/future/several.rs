//! Several at once: wait for all of them, for some, or for one after the other as they end.

use super::sleep::Sleep;
use super::task::{Tally, Task};
use crate::deadline::Deadline;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Waits until all tasks have ended, or `count` of them, or the time has passed. Those that have ended, in the order of their ends; what they returned
/// is still theirs.
///
/// ```
/// use procession::future::{joinall, scope, sleep};
/// use std::time::Duration;
///
/// scope(|scope| {
///     let tasks: Vec<_> = [30, 20, 10].map(|millis| scope.spawn(async move {
///         sleep(Duration::from_millis(millis)).await;
///         millis
///     })).into();
///     let ended = scope.block_on(joinall(&tasks, Duration::from_secs(60), Some(1)))?;
///     assert_eq!(ended[0].value(), Some(10));
///     let ended = scope.block_on(joinall(&tasks, None, None))?;
///     assert_eq!(ended.iter().map(|task| task.value()).collect::<Vec<_>>(), [Some(10), Some(20), Some(30)]);
///     Ok::<(), procession::Error>(())
/// })??;
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "gather")]
pub async fn joinall<'a, 'env, T>(
    tasks: &'a [Task<'env, T>],
    timeout: impl Into<Deadline>,
    count: Option<usize>,
) -> Vec<&'a Task<'env, T>> {
    let count = count.map_or(tasks.len(), |count| count.min(tasks.len()));
    let mut ends = iwait(tasks);
    let mut alarm = pin!(Sleep::until(timeout.into()));
    let mut ended = Vec::new();
    while ended.len() < count {
        let mut next = pin!(ends.next());
        let next = poll_fn(|context| match next.as_mut().poll(context) {
            Poll::Pending => alarm.as_mut().poll(context).map(|()| None),
            ready => ready,
        });
        match next.await {
            Some(task) => ended.push(task),
            None => break,
        }
    }
    ended
}

/// The tasks, one after the other as they end.
///
/// ```
/// use procession::future::{iwait, scope};
///
/// scope(|scope| {
///     let tasks = [1, 2, 3].map(|number| scope.spawn(async move { number }));
///     scope.block_on(async {
///         let (mut ends, mut sum) = (iwait(&tasks), 0);
///         while let Some(task) = ends.next().await {
///             sum += task.value().unwrap();
///         }
///         assert_eq!(sum, 6);
///     })
/// })??;
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "as_completed")]
pub fn iwait<'a, 'env, T>(tasks: &'a [Task<'env, T>]) -> Iwait<'a, 'env, T> {
    // Those that have ended come in the order of their ends, as far as that is still known: in that of the list.
    let tally = Rc::new(Tally::default());
    for (number, task) in tasks.iter().enumerate() {
        task.end().tell(&tally, number);
    }
    Iwait { tasks, tally, ended: Vec::new().into_iter(), left: tasks.len() }
}

/// See [`iwait`].
pub struct Iwait<'a, 'env, T> {
    tasks: &'a [Task<'env, T>],
    tally: Rc<Tally>,
    ended: std::vec::IntoIter<usize>,
    left: usize,
}

impl<'a, 'env, T> Iwait<'a, 'env, T> {
    /// The next one that has ended. `None` if all were told. If it is dropped, none is lost.
    pub async fn next(&mut self) -> Option<&'a Task<'env, T>> {
        if self.left == 0 {
            return None;
        }
        if self.ended.len() == 0 {
            self.ended = self.tally.next().await.into_iter();
        }
        self.left -= 1;
        self.ended.next().and_then(|number| self.tasks.get(number))
    }
}

impl<T> fmt::Debug for Iwait<'_, '_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Iwait").field("left", &self.left).finish_non_exhaustive()
    }
}

/// Kills all tasks, and waits until they have ended, for at most this long. Whether they have.
pub async fn killall<T>(tasks: &[Task<'_, T>], timeout: impl Into<Deadline>) -> bool {
    tasks.iter().for_each(Task::kill);
    joinall(tasks, timeout, None).await.len() == tasks.len()
}

/// Waits for all futures, or for `count` of them, or until the time has passed. Their numbers and what they returned, in the order of their ends; the
/// others are dropped.
///
/// Works with everything that can be awaited, on every runtime; a future is looked at only when it was woken. Futures of several types are boxed:
///
/// ```
/// use procession::future::{Event, block_on, sleep, wait};
/// use std::pin::Pin;
/// use std::time::Duration;
///
/// let event = Event::new();
/// event.set();
/// let both: [Pin<Box<dyn Future<Output = ()> + '_>>; 2] = [Box::pin(sleep(Duration::from_secs(60))), Box::pin(event.wait())];
/// assert_eq!(block_on(wait(both, None, Some(1)))?, [(1, ())]);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "select")]
pub async fn wait<F: Future>(
    futures: impl IntoIterator<Item = F>,
    timeout: impl Into<Deadline>,
    count: Option<usize>,
) -> Vec<(usize, F::Output)> {
    let mut all = All::new(futures);
    let count = count.map_or(all.futures.len(), |count| count.min(all.futures.len()));
    let mut alarm = pin!(Sleep::until(timeout.into()));
    let mut ended = Vec::new();
    poll_fn(|context| {
        all.poll(context, count, &mut ended);
        if ended.len() >= count { Poll::Ready(()) } else { alarm.as_mut().poll(context) }
    })
    .await;
    ended
}

/// Futures that are polled when they were woken.
struct All<F> {
    futures: Vec<Option<Pin<Box<F>>>>,
    ones: Vec<(Arc<One>, Waker)>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken {
    state: Mutex<(Vec<usize>, Option<Waker>)>,
}

struct One {
    number: usize,
    is_woken: AtomicBool,
    woken: Arc<Woken>,
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, (Vec<usize>, Option<Waker>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for One {
    fn wake(self: Arc<One>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<One>) {
        if self.is_woken.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut state = self.woken.lock();
        state.0.push(self.number);
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<F: Future> All<F> {
    fn new(futures: impl IntoIterator<Item = F>) -> All<F> {
        let futures: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
        let woken = Arc::<Woken>::default();
        let one = |number| {
            let one = Arc::new(One { number, is_woken: AtomicBool::new(false), woken: Arc::clone(&woken) });
            one.wake_by_ref();
            (Arc::clone(&one), Waker::from(one))
        };
        let ones = (0..futures.len()).map(one).collect();
        All { futures, ones, woken }
    }

    fn poll(&mut self, context: &Context<'_>, count: usize, ended: &mut Vec<(usize, F::Output)>) {
        let mut state = self.woken.lock();
        state.1 = Some(context.waker().clone());
        let woken = std::mem::take(&mut state.0);
        drop(state);
        for number in woken {
            let (Some(slot), Some((one, waker))) = (self.futures.get_mut(number), self.ones.get(number)) else {
                continue;
            };
            one.is_woken.store(false, Ordering::SeqCst);
            let Some(future) = slot else { continue };
            if ended.len() >= count {
                return;
            }
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                *slot = None;
                ended.push((number, value));
            }
        }
    }
}
