//! The objects in a manager's process. Decides that one call at a time has an object in its hands, how a call that has to wait does so without
//! holding up anybody, and what is left when a method panics.

use super::protocol::{Failure, Payload};
use crate::deadline::Deadline;
use crate::error::ErrorKind;
use crate::ipc::region::LOOK;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A type of your own that lives in a manager's process, and is called from everywhere.
///
/// Its calls and answers are data. One call at a time has the object in its hands; it must not wait for another call of the same object.
///
/// ```
/// use procession::ipc::manager::{Manager, Shared};
/// use serde::{Deserialize, Serialize};
///
/// struct Account {
///     cents: u64,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// enum Order {
///     Deposit(u64),
///     Withdraw(u64),
/// }
///
/// impl Shared for Account {
///     type Call = Order;
///     type Answer = Result<u64, String>;
///
///     fn call(&mut self, order: Order) -> Result<u64, String> {
///         self.cents = match order {
///             Order::Deposit(cents) => self.cents + cents,
///             Order::Withdraw(cents) => self.cents.checked_sub(cents).ok_or("not enough")?,
///         };
///         Ok(self.cents)
///     }
/// }
///
/// let manager = Manager::start()?;
/// let account = manager.create(|cents| Account { cents }, 500)?;
/// assert_eq!(account.call(&Order::Deposit(100))?, Ok(600));
/// assert_eq!(account.call(&Order::Withdraw(1_000))?, Err("not enough".to_owned()));
/// # Ok::<(), procession::Error>(())
/// ```
pub trait Shared: Send + 'static {
    /// What it can be asked.
    type Call: Serialize + DeserializeOwned;
    /// What it answers.
    type Answer: Serialize + DeserializeOwned;

    /// Whether it can be called again after one of its calls has panicked. If not, which is the rule, later calls are errors that say that it may be
    /// half done.
    const GOES_ON_AFTER_PANIC: bool = false;

    /// Answers a call.
    fn call(&mut self, call: Self::Call) -> Self::Answer;
}

/// Who calls, and how long there is time.
pub(super) struct Caller<'a> {
    /// The number of the connection.
    pub(super) visitor: u64,
    pub(super) deadline: Deadline,
    /// Whether nobody waits for the answer any more.
    pub(super) is_gone: &'a dyn Fn() -> bool,
}

/// What the server knows of an object.
pub(super) trait Object: Send + Sync + 'static {
    fn call(&self, payload: Payload, caller: &Caller<'_>) -> Result<Payload, Failure>;

    /// Whether anything can be held of it.
    fn can_be_held(&self) -> bool {
        false
    }

    /// The connection has ended: what it held is free.
    fn left(&self, _visitor: u64) {}

    fn as_any(&self) -> &dyn Any;
}

thread_local! {
    /// What a function that makes objects has made.
    static MADE: RefCell<Option<Arc<dyn Object>>> = const { RefCell::new(None) };
    /// What a function that is run has in its hands.
    static IN_HANDS: RefCell<Option<Arc<dyn Object>>> = const { RefCell::new(None) };
}

/// Calls a function that makes an object, and says what it has made.
pub(super) fn making<R>(work: impl FnOnce() -> R) -> (R, Option<Arc<dyn Object>>) {
    MADE.take();
    let result = work();
    (result, MADE.take())
}

pub(super) fn made(object: Arc<dyn Object>) {
    MADE.set(Some(object));
}

/// Calls a function that asks for the object in its hands.
pub(super) fn handing<R>(object: Arc<dyn Object>, work: impl FnOnce() -> R) -> R {
    IN_HANDS.set(Some(object));
    let _emptied = Emptied;
    work()
}

/// The hands are empty afterwards, also when a panic passes.
struct Emptied;

impl Drop for Emptied {
    fn drop(&mut self) {
        IN_HANDS.take();
    }
}

/// The object in the hands of this function, for as long as the work takes.
pub(super) fn in_hands<T: Shared, R>(work: impl FnOnce(&mut T) -> R) -> Result<R, Failure> {
    let object = IN_HANDS.take();
    let exclusive = object.as_ref().and_then(|object| object.as_any().downcast_ref::<Exclusive<T>>());
    let wrong = || Failure::new(ErrorKind::InvalidInput, "the object is of another type");
    exclusive.ok_or_else(wrong)?.with(work)
}

/// An object whose calls never wait: one after the other.
pub(super) struct Exclusive<T>(Mutex<T>);

impl<T: Shared> Exclusive<T> {
    pub(super) fn new(object: T) -> Exclusive<T> {
        Exclusive(Mutex::new(object))
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Result<R, Failure> {
        let mut guard = match self.0.lock() {
            Ok(guard) => guard,
            Err(poisoned) if T::GOES_ON_AFTER_PANIC => {
                self.0.clear_poison();
                poisoned.into_inner()
            }
            Err(_) => {
                let text = "the object may be half done: a call before has panicked";
                return Err(Failure::new(ErrorKind::Panic, text));
            }
        };
        Ok(work(&mut guard))
    }
}

impl<T: Shared> Object for Exclusive<T> {
    fn call(&self, payload: Payload, _: &Caller<'_>) -> Result<Payload, Failure> {
        let call = payload.value::<T::Call>()?;
        let answer = self.with(|object| object.call(call))?;
        Ok(Payload::of(&answer)?)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An object whose calls may have to wait for other calls. It decides what is possible now, and never waits itself.
pub(super) trait Waiting: Send + 'static {
    type Call: Serialize + DeserializeOwned;
    type Answer: Serialize + DeserializeOwned;

    /// Carries the call out, if that is possible now. It is asked again after each change.
    fn attempt(&mut self, call: &mut Self::Call, visitor: u64) -> Option<Self::Answer>;

    /// A call that was attempted will not be carried out: its time is over, or nobody waits for it because that one has gone.
    fn give_up(&mut self, _call: &mut Self::Call, _visitor: u64, _has_gone: bool) {}

    /// The connection has ended: what it held is free.
    fn left(&mut self, _visitor: u64) {}
}

/// A [`Waiting`] object, and those who wait for it.
pub(super) struct Monitor<S> {
    state: Mutex<(S, usize)>,
    changed: Condvar,
}

impl<S: Waiting> Monitor<S> {
    pub(super) fn new(state: S) -> Monitor<S> {
        Monitor { state: Mutex::new((state, 0)), changed: Condvar::new() }
    }
}

impl<S: Waiting> Object for Monitor<S> {
    fn call(&self, payload: Payload, caller: &Caller<'_>) -> Result<Payload, Failure> {
        let mut call = payload.value::<S::Call>()?;
        // Our own states are whole before anything of the user's runs.
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut has_waited = false;
        loop {
            let (state, sleepers) = &mut *guard;
            if has_waited && (caller.is_gone)() {
                state.give_up(&mut call, caller.visitor, true);
                self.changed.notify_all();
                return Err(Failure::new(ErrorKind::Ended, "nobody waits for the answer"));
            }
            if let Some(answer) = state.attempt(&mut call, caller.visitor) {
                if *sleepers > 0 {
                    self.changed.notify_all();
                }
                drop(guard);
                return Ok(Payload::of(&answer)?);
            }
            let remaining = caller.deadline.remaining();
            if remaining == Some(Duration::ZERO) {
                state.give_up(&mut call, caller.visitor, false);
                self.changed.notify_all();
                return Err(Failure::new(ErrorKind::Timeout, "timed out: what was waited for has not come about"));
            }
            // A client that dies does not ring: whoever waits on its behalf looks.
            let nap = remaining.map_or(LOOK, |remaining| remaining.min(LOOK));
            *sleepers += 1;
            guard = self.changed.wait_timeout(guard, nap).unwrap_or_else(PoisonError::into_inner).0;
            guard.1 -= 1;
            has_waited = true;
        }
    }

    fn can_be_held(&self) -> bool {
        true
    }

    fn left(&self, visitor: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.left(visitor);
        self.changed.notify_all();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
