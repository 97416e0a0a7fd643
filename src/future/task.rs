//! A task's handle: how it ended, what it returned, and who is told. When it runs is decided in `scope.rs`.

use super::sleep::Sleep;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

/// A task of a [`Scope`](super::Scope). Await it for what it returns; drop it, and it goes on.
///
/// ```
/// use procession::future::{Ended, scope};
///
/// scope(|scope| {
///     let task = scope.spawn(async { 6 * 7 });
///     let idler = scope.spawn(std::future::pending::<()>());
///     idler.kill();
///     scope.block_on(async {
///         assert_eq!(task.await, Ok(42));
///         assert_eq!(idler.await, Err(Ended::Killed));
///     })
/// })??;
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "Greenlet")]
#[doc(alias = "JoinHandle")]
pub struct Task<'env, T> {
    inner: Rc<Inner<'env, T>>,
}

struct Inner<'env, T> {
    end: End,
    value: RefCell<Option<T>>,
    links: RefCell<Vec<Link<'env, T>>>,
    /// Of the group that it is in.
    hook: RefCell<Option<Hook<'env>>>,
}

type Hook<'env> = Box<dyn FnOnce(&End) + 'env>;

struct Link<'env, T> {
    /// What it wants to hear of.
    success: bool,
    failure: bool,
    call: Call<'env, T>,
}

type Call<'env, T> = Box<dyn FnOnce(&Task<'env, T>) + 'env>;

/// How a task ends, whatever it returns.
pub(super) struct End {
    waker: Waker,
    is_started: Cell<bool>,
    is_killed: Cell<bool>,
    pub(super) is_adopted: Cell<bool>,
    is_asked: Cell<bool>,
    how: RefCell<Option<How>>,
    watchers: RefCell<Vec<Watcher>>,
}

pub(super) enum How {
    Returned,
    Killed,
    Panicked(Box<dyn Any + Send>),
}

/// Somebody who waits for the end.
enum Watcher {
    Waker(Waker),
    Tally(Weak<Tally>, usize),
}

/// Counts ends for somebody who waits for several.
#[derive(Default)]
pub(super) struct Tally {
    ended: RefCell<Vec<usize>>,
    waker: RefCell<Option<Waker>>,
}

/// A task seen by those who do not know what it returns.
pub(super) trait Ending {
    fn end(&self) -> &End;
    fn call_links(self: Rc<Self>);
}

/// Why a task has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It was killed.
    #[doc(alias = "GreenletExit")]
    #[doc(alias = "CancelledError")]
    Killed,
    /// It has panicked, with these words.
    Panicked(String),
    /// It has returned an error, with these words, to a [group](super::Group::spawn_fallible).
    Failed(String),
    /// Somebody else has taken the value.
    Taken,
}

impl Tally {
    /// Which ones have ended since this was asked last.
    pub(super) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.ended.borrow_mut())
    }

    /// Which ones have ended since this was asked last, as soon as there is one.
    pub(super) async fn next(&self) -> Vec<usize> {
        poll_fn(|context| {
            let ended = self.take();
            if !ended.is_empty() {
                return Poll::Ready(ended);
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn note(&self, number: usize) {
        self.ended.borrow_mut().push(number);
        let waker = self.waker.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl End {
    pub(super) fn kill(&self) {
        if self.how.borrow().is_none() && !self.is_adopted.get() {
            self.is_killed.set(true);
            self.waker.wake_by_ref();
        }
    }

    pub(super) fn is_killed(&self) -> bool {
        self.is_killed.get()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.how.borrow().is_some()
    }

    pub(super) fn has_returned(&self) -> bool {
        matches!(&*self.how.borrow(), Some(How::Returned))
    }

    pub(super) fn set(&self, how: How) {
        *self.how.borrow_mut() = Some(how);
        for watcher in std::mem::take(&mut *self.watchers.borrow_mut()) {
            match watcher {
                Watcher::Waker(waker) => waker.wake(),
                Watcher::Tally(tally, number) => tally.upgrade().iter().for_each(|tally| tally.note(number)),
            }
        }
    }

    /// Tells the tally of the end, under this number.
    pub(super) fn tell(&self, tally: &Rc<Tally>, number: usize) {
        if self.has_ended() {
            return tally.note(number);
        }
        let mut watchers = self.watchers.borrow_mut();
        if watchers.len() == watchers.capacity() {
            watchers.retain(|watcher| !matches!(watcher, Watcher::Tally(tally, _) if tally.strong_count() == 0));
        }
        watchers.push(Watcher::Tally(Rc::downgrade(tally), number));
    }

    /// Why there is no value. Whoever asks knows of a panic.
    pub(super) fn failure(&self) -> Option<Ended> {
        match &*self.how.borrow() {
            None | Some(How::Returned) => None,
            Some(How::Killed) => Some(Ended::Killed),
            Some(How::Panicked(panic)) => Some(Ended::Panicked(words(&**panic))),
        }
    }

    pub(super) fn ask(&self) {
        self.is_asked.set(true);
    }

    /// The panic, unless somebody knows of it.
    pub(super) fn take_unasked(&self) -> Option<Box<dyn Any + Send>> {
        if self.is_asked.get() {
            return None;
        }
        match self.how.borrow_mut().as_mut() {
            Some(How::Panicked(panic)) => {
                let words = words(&**panic);
                Some(std::mem::replace(panic, Box::new(words)))
            }
            _ => None,
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.has_ended() {
            return Poll::Ready(());
        }
        let mut watchers = self.watchers.borrow_mut();
        let is_there = |watcher: &Watcher| matches!(watcher, Watcher::Waker(waker) if waker.will_wake(context.waker()));
        if !watchers.iter().any(is_there) {
            watchers.push(Watcher::Waker(context.waker().clone()));
        }
        Poll::Pending
    }
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}

impl<T> Ending for Inner<'_, T> {
    fn end(&self) -> &End {
        &self.end
    }

    fn call_links(self: Rc<Self>) {
        let task = Task { inner: self };
        let hook = task.inner.hook.borrow_mut().take();
        hook.into_iter().for_each(|hook| hook(task.end()));
        let links = std::mem::take(&mut *task.inner.links.borrow_mut());
        links.into_iter().for_each(|link| task.call(link));
    }
}

impl<'env, T: 'env> Task<'env, T> {
    pub(super) fn new(waker: Waker) -> Task<'env, T> {
        let end = End {
            waker,
            is_started: Cell::new(false),
            is_killed: Cell::new(false),
            is_adopted: Cell::new(false),
            is_asked: Cell::new(false),
            how: RefCell::new(None),
            watchers: RefCell::default(),
        };
        Task {
            inner: Rc::new(Inner {
                end,
                value: RefCell::new(None),
                links: RefCell::default(),
                hook: RefCell::default(),
            }),
        }
    }

    pub(super) fn ending(&self) -> Rc<dyn Ending + 'env> {
        Rc::clone(&self.inner) as Rc<dyn Ending + 'env>
    }
}

impl<'env, T> Task<'env, T> {
    pub(super) fn share(&self) -> Task<'env, T> {
        Task { inner: Rc::clone(&self.inner) }
    }

    pub(super) fn end(&self) -> &End {
        &self.inner.end
    }

    /// Called at the end, before all links.
    pub(super) fn set_hook(&self, hook: impl FnOnce(&End) + 'env) {
        if self.ready() {
            hook(self.end());
        } else {
            *self.inner.hook.borrow_mut() = Some(Box::new(hook));
        }
    }

    pub(super) fn start(&self) {
        self.inner.end.is_started.set(true);
    }

    pub(super) fn put(&self, value: T) {
        *self.inner.value.borrow_mut() = Some(value);
    }

    /// Waits for the end, for at most this long. Whether it has ended; the handle still has the value.
    pub async fn join(&self, timeout: impl Into<Deadline>) -> bool {
        let mut alarm = pin!(Sleep::until(timeout.into()));
        poll_fn(|context| match (self.inner.end.poll(context), alarm.as_mut().poll(context)) {
            (Poll::Ready(()), _) => Poll::Ready(true),
            (Poll::Pending, Poll::Ready(())) => Poll::Ready(false),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        })
        .await
    }

    /// Takes what it returned, or why it returned nothing. `None` as long as it runs.
    #[doc(alias = "get")]
    #[doc(alias = "result")]
    pub fn take(&self) -> Option<Result<T, Ended>> {
        if !self.ready() {
            return None;
        }
        self.end().ask();
        Some(match self.end().failure() {
            Some(ended) => Err(ended),
            None => self.inner.value.borrow_mut().take().ok_or(Ended::Taken),
        })
    }

    /// What it returned, if it has returned and nobody has taken it.
    pub fn value(&self) -> Option<T>
    where
        T: Clone,
    {
        if !self.ready() {
            return None;
        }
        self.end().ask();
        self.inner.value.borrow().clone()
    }

    /// Why it has no value, if it has ended without one.
    #[doc(alias = "exception")]
    pub fn failure(&self) -> Option<Ended> {
        if self.ready() {
            self.end().ask();
        }
        self.end().failure()
    }

    /// Whether it has ended.
    #[doc(alias = "dead")]
    #[doc(alias = "done")]
    #[doc(alias = "is_finished")]
    pub fn ready(&self) -> bool {
        self.end().has_ended()
    }

    /// Whether it has returned.
    pub fn successful(&self) -> bool {
        if self.ready() {
            self.end().ask();
        }
        self.end().has_returned()
    }

    /// Whether it has ended, or is going to be without doing anything more, because it was killed.
    pub fn dead(&self) -> bool {
        self.ready() || self.end().is_killed()
    }

    /// Whether it has begun. It may have ended.
    pub fn started(&self) -> bool {
        self.inner.end.is_started.get()
    }

    /// Kills it: its future is dropped instead of being polled again, which stops the children that it waits for. It is over when it has been
    /// [joined](Self::join). Nothing happens if it has ended.
    #[doc(alias = "cancel")]
    #[doc(alias = "abort")]
    pub fn kill(&self) {
        self.end().kill();
    }

    /// Calls the function when it has ended, with the task; at once if it has. Whoever asks the task there knows of a panic.
    #[doc(alias = "rawlink")]
    #[doc(alias = "add_done_callback")]
    pub fn link(&self, call: impl FnOnce(&Task<'env, T>) + 'env) {
        self.add(Link { success: true, failure: true, call: Box::new(call) });
    }

    /// The same, only if it has returned.
    pub fn link_value(&self, call: impl FnOnce(&Task<'env, T>) + 'env) {
        self.add(Link { success: true, failure: false, call: Box::new(call) });
    }

    /// The same, only if it was killed or has panicked.
    pub fn link_exception(&self, call: impl FnOnce(&Task<'env, T>) + 'env) {
        self.add(Link { success: false, failure: true, call: Box::new(call) });
    }

    /// Takes all links away that have not been called.
    #[doc(alias = "unlink")]
    pub fn unlink_all(&self) {
        let links = std::mem::take(&mut *self.inner.links.borrow_mut());
        drop(links);
    }

    fn add(&self, link: Link<'env, T>) {
        if self.ready() {
            self.call(link);
        } else {
            self.inner.links.borrow_mut().push(link);
        }
    }

    fn call(&self, link: Link<'env, T>) {
        let has_returned = self.end().has_returned();
        if (has_returned && link.success) || (!has_returned && link.failure) {
            (link.call)(self);
        }
    }
}

/// The value is moved out: there is one.
impl<T> Future for Task<'_, T> {
    type Output = Result<T, Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T, Ended>> {
        let this = self.get_mut();
        match this.inner.end.poll(context) {
            Poll::Ready(()) => Poll::Ready(this.take().unwrap_or(Err(Ended::Taken))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for Task<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match &*self.end().how.borrow() {
            None if self.started() => "running",
            None => "not started",
            Some(How::Returned) => "returned",
            Some(How::Killed) => "killed",
            Some(How::Panicked(_)) => "panicked",
        };
        write!(out, "Task({end})")
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Killed => out.write_str("the task was killed"),
            Ended::Panicked(words) => write!(out, "the task panicked: {words}"),
            Ended::Failed(words) => write!(out, "the task failed: {words}"),
            Ended::Taken => out.write_str("somebody else has taken what the task returned"),
        }
    }
}

impl std::error::Error for Ended {}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Error {
        let kind = match ended {
            Ended::Killed => ErrorKind::Cancelled,
            Ended::Panicked(_) => ErrorKind::Panic,
            Ended::Failed(_) => ErrorKind::Io,
            Ended::Taken => ErrorKind::InvalidInput,
        };
        Error::invalid(ended.to_string()).kind_of(kind)
    }
}
