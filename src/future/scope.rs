//! A scope: tasks on the thread of the caller, which nothing outlives. Decides who runs next, what the end of the scope waits for, and what
//! becomes of a panic. How the thread sleeps is decided in `reactor.rs`.

use super::reactor::{Reactor, Rest};
use super::sleep::sleep;
use super::task::{Ending, How, Task};
use crate::error::Error;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Runs the function on this thread, and the tasks that it spawns while it waits in [`Scope::block_on`] and after it has returned. Comes back when
/// all tasks have ended.
///
/// Tasks may borrow what lives longer than this call. A task that panics harms no other; a panic that nobody asked for, by awaiting the
/// [`Task`] or looking at its end, goes on here when all have ended, as with [`std::thread::scope`]. If the function panics, all tasks are killed, and
/// then the panic goes on; [`try_scope`] does so for errors, too.
///
/// ```
/// use procession::future::{Event, scope, sleep};
/// use std::time::Duration;
///
/// let bell = Event::new();
/// let order = std::cell::RefCell::new(Vec::new());
/// scope(|scope| {
///     scope.spawn(async {
///         bell.wait().await;
///         order.borrow_mut().push("heard");
///     });
///     scope.spawn(async {
///         sleep(Duration::from_millis(1)).await;
///         order.borrow_mut().push("rung");
///         bell.set();
///     });
/// })?;
/// assert_eq!(order.into_inner(), ["rung", "heard"]);
/// # Ok::<(), procession::Error>(())
/// ```
///
/// A scope may be opened in the function of another one on the same thread. While the inner one runs, the tasks of the outer one rest.
///
/// # Errors
/// If it is called from inside a task, which would hold up all others: spawn on the scope that the task belongs to, of which a clone can be moved
/// into it. If the kernel refuses to wait; the tasks are killed then.
///
/// # Panics
/// With the first panic of a task that nobody asked for.
#[doc(alias = "hub")]
#[doc(alias = "gevent")]
pub fn scope<'env, T>(work: impl FnOnce(&Scope<'env>) -> T) -> Result<T, Error> {
    let scope = Scope::open()?;
    let result = catch_unwind(AssertUnwindSafe(|| work(&scope)));
    if result.is_err() {
        scope.kill_all();
    }
    scope.close(result)
}

/// As [`scope`], for a function that can fail: its error kills all tasks.
///
/// ```
/// use procession::future::{sleep, try_scope};
/// use procession::{Command, Error};
/// use std::time::Duration;
///
/// let error = try_scope(|scope| {
///     scope.spawn(sleep(Duration::from_secs(3600)));
///     Command::new("no-such-program").call()
/// });
/// assert!(error.unwrap_err().is_not_found());
/// ```
///
/// # Errors
/// That of the function, or as [`scope`].
///
/// # Panics
/// As [`scope`].
pub fn try_scope<'env, T, E: From<Error>>(work: impl FnOnce(&Scope<'env>) -> Result<T, E>) -> Result<T, E> {
    let scope = Scope::open()?;
    let result = catch_unwind(AssertUnwindSafe(|| work(&scope)));
    if !matches!(result, Ok(Ok(_))) {
        scope.kill_all();
    }
    scope.close(result)?
}

/// Runs one future on this thread. It need not be `Send`, and may borrow.
///
/// What it leaves to be done when it is over, such as the stop of a child whose future was dropped, is done before this returns.
///
/// ```
/// use procession::future::{block_on, sleep};
/// use std::time::Duration;
///
/// let answer = block_on(async {
///     sleep(Duration::from_millis(1)).await;
///     42
/// })?;
/// assert_eq!(answer, 42);
/// # Ok::<(), procession::Error>(())
/// ```
///
/// # Errors
/// As [`scope`].
pub fn block_on<F: Future>(future: F) -> Result<F::Output, Error> {
    scope(|scope| scope.block_on(future))?
}

/// A scope that is open: spawns tasks, and runs them. A cheap handle, to be cloned into tasks that spawn others.
pub struct Scope<'env> {
    core: Rc<Core<'env>>,
}

struct Core<'env> {
    ready: Arc<Ready>,
    reactor: Arc<Reactor>,
    tasks: RefCell<Tasks<'env>>,
    /// Tasks that have panicked.
    panicked: RefCell<Vec<Rc<dyn Ending + 'env>>>,
    /// What a link has panicked with.
    loose: RefCell<Option<Box<dyn Any + Send>>>,
    state: Cell<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Whatever is spawned is killed at once.
    Killing,
    Closed,
}

#[derive(Default)]
struct Tasks<'env> {
    places: Vec<Option<Place<'env>>>,
    free: Vec<usize>,
}

struct Place<'env> {
    notice: Arc<Notice>,
    /// Not there while it is polled.
    future: Option<Job<'env>>,
    ending: Rc<dyn Ending + 'env>,
}

type Job<'env> = Pin<Box<dyn Future<Output = ()> + 'env>>;

/// So many polls are made before descriptors and timers are asked.
const POLLS_MAX: usize = 64;

/// Who is ready, in order. `None` when the scope is closed.
struct Ready {
    queue: Mutex<Option<VecDeque<Arc<Notice>>>>,
    /// A waker that was forgotten somewhere keeps no descriptors.
    reactor: Weak<Reactor>,
}

/// By which a task is woken.
pub(super) struct Notice {
    place: usize,
    is_queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Ready {
    fn queue(&self) -> MutexGuard<'_, Option<VecDeque<Arc<Notice>>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> Option<Arc<Notice>> {
        self.queue().as_mut()?.pop_front()
    }

    fn is_empty(&self) -> bool {
        self.queue().as_ref().is_none_or(VecDeque::is_empty)
    }
}

impl Wake for Notice {
    fn wake(self: Arc<Notice>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Notice>) {
        if self.is_queued.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(queue) = &mut *self.ready.queue() {
            queue.push_back(Arc::clone(self));
        }
        if let Some(reactor) = self.ready.reactor.upgrade() {
            reactor.wake();
        }
    }
}

impl<'env> Scope<'env> {
    fn open() -> Result<Scope<'env>, Error> {
        if Reactor::is_polling() {
            return Err(Error::invalid(INSIDE));
        }
        let reactor = Reactor::of_thread();
        let reactor = reactor.ok_or_else(|| Error::invalid("a thread that is ending cannot open a scope"))?;
        reactor.open();
        let ready = Ready { queue: Mutex::new(Some(VecDeque::new())), reactor: Arc::downgrade(&reactor) };
        let core = Core {
            ready: Arc::new(ready),
            reactor,
            tasks: RefCell::default(),
            panicked: RefCell::default(),
            loose: RefCell::default(),
            state: Cell::new(State::Open),
        };
        Ok(Scope { core: Rc::new(core) })
    }

    /// A task. It runs for the first time when this thread next waits: in [`block_on`](Self::block_on), at its next `.await` if a task calls
    /// this, or at the end of the scope.
    ///
    /// The task belongs to the scope: dropping the handle stops nothing. On a scope that is closed, or being killed, it ends as killed at once.
    #[doc(alias = "Greenlet")]
    #[doc(alias = "create_task")]
    #[doc(alias = "start_soon")]
    pub fn spawn<F>(&self, future: F) -> Task<'env, F::Output>
    where
        F: Future + 'env,
        F::Output: 'env,
    {
        self.core.spawn(|task| async move {
            task.start();
            let value = future.await;
            task.put(value);
        })
    }

    /// A task that starts after this time. Until then it [has not started](Task::started).
    #[doc(alias = "start_later")]
    #[doc(alias = "call_later")]
    pub fn spawn_later<F>(&self, delay: Duration, future: F) -> Task<'env, F::Output>
    where
        F: Future + 'env,
        F::Output: 'env,
    {
        let delay = sleep(delay);
        self.core.spawn(|task| async move {
            delay.await;
            task.start();
            let value = future.await;
            task.put(value);
        })
    }

    /// Runs the tasks until this future is done.
    ///
    /// # Errors
    /// If it is called from inside a task: await the future there. If the scope is closed. If the kernel refuses to wait.
    #[doc(alias = "run_until_complete")]
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let mut future = pin!(future);
        let mut output = None;
        self.core.run(Some(&mut |context: &mut Context<'_>| match future.as_mut().poll(context) {
            Poll::Ready(value) => {
                output = Some(value);
                true
            }
            Poll::Pending => false,
        }))?;
        output.ok_or_else(|| Error::invalid(CLOSED))
    }

    /// Kills all tasks that there are now. Each is over when the thread next waits.
    #[doc(alias = "killall")]
    pub fn kill_tasks(&self) {
        let endings: Vec<_> =
            self.core.tasks.borrow().places.iter().flatten().map(|place| Rc::clone(&place.ending)).collect();
        endings.iter().for_each(|ending| ending.end().kill());
    }

    /// How many tasks have not ended.
    pub fn len(&self) -> usize {
        self.core.tasks.borrow().len()
    }

    /// Whether all tasks have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often this thread has waited for the kernel in its scopes, to see that nothing wakes it for nothing.
    pub fn waits(&self) -> u64 {
        self.core.reactor.waits()
    }

    fn kill_all(&self) {
        self.core.state.set(State::Killing);
        self.kill_tasks();
    }

    /// The end: all that is left runs, and then whatever was to go on goes on.
    fn close<T>(self, result: Result<T, Box<dyn Any + Send>>) -> Result<T, Error> {
        let drained = catch_unwind(AssertUnwindSafe(|| self.core.drain()));
        let unasked = self.core.clear();
        match (result, drained, unasked) {
            (Err(panic), _, _) | (Ok(_), Err(panic), _) | (Ok(_), Ok(_), Some(panic)) => resume_unwind(panic),
            (Ok(value), Ok(drained), None) => drained.map(|()| value),
        }
    }
}

const INSIDE: &str =
    "called from inside a task, where it would hold up all others: await it there, or spawn on the scope of the task";
const CLOSED: &str = "the scope is closed";

impl<'env> Core<'env> {
    fn spawn<T: 'env, F>(&self, job: impl FnOnce(Task<'env, T>) -> F) -> Task<'env, T>
    where
        F: Future<Output = ()> + 'env,
    {
        let tasks = &mut *self.tasks.borrow_mut();
        let place = tasks.free.pop().unwrap_or(tasks.places.len());
        let notice = Arc::new(Notice { place, is_queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
        let task = Task::new(Waker::from(Arc::clone(&notice)));
        if self.state.get() != State::Open {
            tasks.free.extend(Some(place).filter(|place| *place < tasks.places.len()));
            task.ending().end().set(How::Killed);
            return task;
        }
        let entry =
            Place { notice: Arc::clone(&notice), future: Some(Box::pin(job(task.share()))), ending: task.ending() };
        match tasks.places.get_mut(place) {
            Some(free) => *free = Some(entry),
            None => tasks.places.push(Some(entry)),
        }
        notice.wake();
        task
    }

    fn run(&self, mut main: Option<&mut dyn FnMut(&mut Context<'_>) -> bool>) -> Result<(), Error> {
        if Reactor::is_polling() {
            return Err(Error::invalid(INSIDE));
        }
        if self.state.get() == State::Closed {
            return Err(Error::invalid(CLOSED));
        }
        let notice =
            Arc::new(Notice { place: usize::MAX, is_queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
        let waker = Waker::from(Arc::clone(&notice));
        if main.is_some() {
            waker.wake_by_ref();
        }
        let _polling = self.reactor.poll();
        loop {
            for rest in self.reactor.take_adopted() {
                self.adopt(rest);
            }
            for _ in 0..POLLS_MAX {
                let Some(first) = self.ready.first() else { break };
                first.is_queued.store(false, Ordering::SeqCst);
                match &mut main {
                    Some(main) if Arc::ptr_eq(&first, &notice) => {
                        if main(&mut Context::from_waker(&waker)) {
                            return Ok(());
                        }
                    }
                    _ => self.poll(first),
                }
            }
            if main.is_none() && self.tasks.borrow().len() == 0 && !self.reactor.has_adopted() {
                return Ok(());
            }
            let has_news = || !self.ready.is_empty() || self.reactor.has_adopted();
            self.reactor.turn(has_news).map_err(|error| Error::io("epoll_wait", error))?;
        }
    }

    /// Runs to its end, also while everything is killed.
    fn adopt(&self, rest: Rest) {
        let before = self.state.replace(State::Open);
        let task = self.spawn(|task| async move {
            rest.await;
            task.put(());
        });
        task.ending().end().is_adopted.set(true);
        self.state.set(before);
    }

    fn poll(&self, notice: Arc<Notice>) {
        let place = notice.place;
        let (mut future, ending) = match self.tasks.borrow_mut().places.get_mut(place) {
            Some(Some(entry)) if Arc::ptr_eq(&entry.notice, &notice) => match entry.future.take() {
                Some(future) => (future, Rc::clone(&entry.ending)),
                None => return,
            },
            // Over, and woken once more.
            _ => return,
        };
        let waker = Waker::from(notice);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            // Whatever kills it while it runs is seen at its next turn.
            if ending.end().is_killed() {
                return Poll::Ready(How::Killed);
            }
            future.as_mut().poll(&mut Context::from_waker(&waker)).map(|()| How::Returned)
        }));
        if let Ok(Poll::Pending) = polled {
            if let Some(Some(entry)) = self.tasks.borrow_mut().places.get_mut(place) {
                entry.future = Some(future);
            }
            return;
        }
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
        let how = match (polled, dropped) {
            (Ok(Poll::Ready(how)), Ok(())) => how,
            (Err(panic), _) | (_, Err(panic)) => How::Panicked(panic),
            (Ok(Poll::Pending), Ok(())) => return,
        };
        let mut tasks = self.tasks.borrow_mut();
        let gone = tasks.places.get_mut(place).and_then(Option::take);
        tasks.free.push(place);
        drop(tasks);
        drop(gone);
        self.end(ending, how);
    }

    fn end(&self, ending: Rc<dyn Ending + 'env>, how: How) {
        if matches!(how, How::Panicked(_)) {
            self.panicked.borrow_mut().push(Rc::clone(&ending));
        }
        ending.end().set(how);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| ending.call_links())) {
            self.loose.borrow_mut().get_or_insert(panic);
        }
    }

    fn drain(&self) -> Result<(), Error> {
        loop {
            self.run(None)?;
            if self.reactor.close() {
                self.state.set(State::Closed);
                return Ok(());
            }
        }
    }

    /// Drops what is left, which is nothing unless the kernel refuses to wait. The first panic that nobody asked for.
    fn clear(&self) -> Option<Box<dyn Any + Send>> {
        if self.state.replace(State::Closed) != State::Closed {
            self.reactor.force_close();
        }
        let left = mem::take(&mut *self.tasks.borrow_mut());
        for place in left.places.into_iter().flatten() {
            let Place { future, ending, .. } = place;
            let how = match catch_unwind(AssertUnwindSafe(|| drop(future))) {
                Ok(()) => How::Killed,
                Err(panic) => How::Panicked(panic),
            };
            self.end(ending, how);
        }
        // They know it, and it knows them.
        self.ready.queue().take();
        let panicked = mem::take(&mut *self.panicked.borrow_mut());
        let unasked = panicked.into_iter().find_map(|ending| ending.end().take_unasked());
        unasked.or_else(|| self.loose.borrow_mut().take())
    }
}

impl Tasks<'_> {
    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

impl Clone for Scope<'_> {
    fn clone(&self) -> Self {
        Scope { core: Rc::clone(&self.core) }
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Scope")
            .field("tasks", &self.len())
            .field("state", &self.core.state.get())
            .finish_non_exhaustive()
    }
}
