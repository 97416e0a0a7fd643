//! What is said to the thread of a pool whose workers live on, and how its end is waited for. Decides who must be rung for, and what a pool that was
//! closed still takes. Leaves to others what the messages say. Used by the pools of commands and of functions.

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
#[cfg(feature = "future")]
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// Between those who use a pool and its thread.
pub(crate) struct Inbox<M> {
    state: Mutex<State<M>>,
    has_ended: Condvar,
    ring: Box<dyn Fn() + Send + Sync>,
}

struct State<M> {
    messages: Vec<M>,
    /// Something was said since the thread has looked.
    changed: bool,
    desk_sleeps: bool,
    closed: bool,
    terminated: bool,
    ended: bool,
    desk: Option<ThreadId>,
    /// The tasks that wait for the end.
    joiners: Vec<Waker>,
}

/// What there was in an inbox.
#[derive(Debug)]
pub(crate) struct Said<M> {
    pub(crate) messages: Vec<M>,
    pub(crate) closed: bool,
    pub(crate) terminated: bool,
}

impl<M> Inbox<M> {
    /// An empty one. The thread is rung for when it sleeps and something is said.
    pub(crate) fn new(ring: impl Fn() + Send + Sync + 'static) -> Inbox<M> {
        let state = State {
            messages: Vec::new(),
            changed: false,
            desk_sleeps: false,
            closed: false,
            terminated: false,
            ended: false,
            desk: None,
            joiners: Vec::new(),
        };
        Inbox { state: Mutex::new(state), has_ended: Condvar::new(), ring: Box::new(ring) }
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and lets the thread know.
    fn change<T>(&self, to: impl FnOnce(&mut State<M>) -> T) -> T {
        let mut state = self.state();
        let result = to(&mut state);
        state.changed = true;
        if std::mem::take(&mut state.desk_sleeps) {
            drop(state);
            (self.ring)();
        }
        result
    }

    /// Work for the pool. If it was closed it is given back.
    pub(crate) fn submit(&self, message: M) -> Result<(), (Error, M)> {
        self.change(|state| match state.closed {
            true => Err((Error::invalid("the pool was closed"), message)),
            false => {
                state.messages.push(message);
                Ok(())
            }
        })
    }

    /// A wish. It is forgotten as soon as there is nobody left who could fulfil it.
    pub(crate) fn ask(&self, message: M) {
        self.change(|state| {
            if !state.ended {
                state.messages.push(message);
            }
        });
    }

    pub(crate) fn close(&self) {
        self.change(|state| state.closed = true);
    }

    pub(crate) fn terminate(&self) {
        self.change(|state| (state.closed, state.terminated) = (true, true));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// For the thread: that it is the one.
    pub(crate) fn begin(&self) {
        self.state().desk = Some(thread::current().id());
    }

    /// For the thread: what was said since the last time.
    pub(crate) fn take(&self) -> Said<M> {
        let mut state = self.state();
        state.changed = false;
        let messages = std::mem::take(&mut state.messages);
        Said { messages, closed: state.closed, terminated: state.terminated }
    }

    /// For the thread: from now on it must be rung for. False if there is something already.
    pub(crate) fn fall_asleep(&self) -> bool {
        let mut state = self.state();
        state.desk_sleeps = !state.changed;
        state.desk_sleeps
    }

    pub(crate) fn wake_up(&self) {
        self.state().desk_sleeps = false;
    }

    /// For the thread: the pool has ended. What was said and not heard is dropped.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        (state.closed, state.ended) = (true, true);
        let (unheard, joiners) = (std::mem::take(&mut state.messages), std::mem::take(&mut state.joiners));
        drop(state);
        drop(unheard);
        self.has_ended.notify_all();
        joiners.into_iter().for_each(Waker::wake);
    }

    /// Waits for the end, for ever.
    pub(crate) fn join(&self) -> Result<(), Error> {
        self.join_until(Deadline::NEVER).map(drop)
    }

    /// Waits for the end, so long at most.
    pub(crate) fn join_timeout(&self, timeout: Duration) -> Result<(), Error> {
        if self.join_until(Deadline::after(timeout))? { Ok(()) } else { Err(not_ended(timeout)) }
    }

    /// Waits for the end for a task, which is woken then.
    #[cfg(feature = "future")]
    pub(crate) fn poll_join(&self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.state();
        state.may_be_joined()?;
        if state.ended {
            return Poll::Ready(Ok(()));
        }
        add_waker(&mut state.joiners, task);
        Poll::Pending
    }

    fn join_until(&self, deadline: Deadline) -> Result<bool, Error> {
        let mut state = self.state();
        state.may_be_joined()?;
        while !state.ended {
            if deadline.has_passed() {
                return Ok(false);
            }
            state = wait_until(&self.has_ended, state, deadline);
        }
        Ok(true)
    }
}

impl<M> State<M> {
    fn may_be_joined(&self) -> Result<(), Error> {
        if !self.closed {
            return Err(Error::invalid("the pool was neither closed nor terminated, and would never end"));
        }
        if self.desk == Some(thread::current().id()) {
            return Err(Error::invalid("a callback of the pool cannot wait for its end"));
        }
        Ok(())
    }
}

/// The error of who has waited so long in vain.
pub(crate) fn not_ended(timeout: Duration) -> Error {
    Error::new(ErrorKind::Timeout).detail(format!("the pool has not ended after {timeout:?}"))
}

/// One more task to be woken, unless it is known.
#[cfg(feature = "future")]
pub(crate) fn add_waker(wakers: &mut Vec<Waker>, task: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(task.waker())) {
        wakers.push(task.waker().clone());
    }
}

impl<M> fmt::Debug for Inbox<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Inbox").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// Waits on a condition until the deadline at most.
pub(crate) fn wait_until<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Deadline,
) -> MutexGuard<'a, T> {
    match deadline.remaining() {
        None => condition.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(time) => condition.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn counted() -> (Inbox<u8>, Arc<AtomicU32>) {
        let rings = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&rings);
        let ring = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        (Inbox::new(ring), rings)
    }

    #[test]
    fn only_a_sleeper_is_rung_for_and_only_once() {
        let (inbox, rings) = counted();
        let rings = || rings.load(Ordering::Relaxed);
        inbox.submit(1).unwrap();
        assert_eq!(rings(), 0);
        assert!(!inbox.fall_asleep(), "there is something");
        assert_eq!(inbox.take().messages, [1]);
        assert!(inbox.fall_asleep());
        inbox.ask(2);
        inbox.ask(3);
        assert_eq!((rings(), inbox.take().messages), (1, vec![2, 3]));
        assert!(inbox.fall_asleep());
        inbox.wake_up();
        inbox.close();
        assert_eq!(rings(), 1);
    }

    #[test]
    fn a_closed_one_takes_wishes_and_no_work() {
        let (inbox, _) = counted();
        assert!(inbox.join().unwrap_err().is_invalid_input());
        inbox.close();
        assert!(inbox.submit(1).unwrap_err().0.is_invalid_input());
        inbox.ask(2);
        let said = inbox.take();
        assert!(said.closed && !said.terminated && said.messages == [2]);
        assert!(inbox.join_timeout(Duration::ZERO).unwrap_err().is_timeout());
        inbox.end();
        inbox.ask(3);
        assert!(inbox.take().messages.is_empty());
        inbox.join().unwrap();
        inbox.begin();
        assert!(inbox.join().unwrap_err().is_invalid_input());
    }
}
