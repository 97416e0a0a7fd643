//! How long something may take. Decides who has timed out when several limits are inside each other.

use super::sleep::Sleep;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

/// Waits for the future for at most this long, or until this moment. When the time has passed, the future is dropped: what it waited for
/// loses nothing, and children that it waits for are stopped.
///
/// ```
/// use procession::future::{block_on, timeout};
/// use std::time::Duration;
///
/// block_on(async {
///     assert_eq!(timeout(Duration::from_secs(60), async { 1 }).await, Ok(1));
///     let error = timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
///     assert_eq!(error.to_string(), "the timeout passed");
/// })?;
/// # Ok::<(), procession::Error>(())
/// ```
///
/// # Errors
/// If the time has passed.
#[doc(alias = "wait_for")]
#[doc(alias = "with_timeout")]
#[doc(alias = "fail_after")]
pub async fn timeout<F: Future>(patience: impl Into<Deadline>, future: F) -> Result<F::Output, TimedOut> {
    Timeout::new(patience).limit(future).await
}

/// The same, with a value for the case that the time has passed.
///
/// ```
/// use procession::future::{block_on, with_timeout_value};
/// use std::time::Duration;
///
/// let answer = block_on(with_timeout_value(Duration::from_millis(1), 0, std::future::pending()))?;
/// assert_eq!(answer, 0);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "move_on_after")]
pub async fn with_timeout_value<F: Future>(patience: impl Into<Deadline>, value: F::Output, future: F) -> F::Output {
    timeout(patience, future).await.unwrap_or(value)
}

/// One limit for several futures, one after the other, that knows its own error among those of others.
///
/// ```
/// use procession::future::{TimedOut, Timeout, block_on, sleep};
/// use std::time::Duration;
///
/// let (day, moment) = (Timeout::new(Duration::from_secs(86_400)), Timeout::new(Duration::from_millis(1)));
/// let work = async {
///     day.limit(sleep(Duration::ZERO)).await?;
///     moment.limit(sleep(Duration::from_secs(3600))).await?;
///     Ok::<(), TimedOut>(())
/// };
/// let error = block_on(day.limit(work))?.unwrap().unwrap_err();
/// assert!(error.is_of(&moment) && !error.is_of(&day));
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug)]
pub struct Timeout {
    number: u64,
    deadline: Deadline,
}

/// The time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut {
    number: u64,
}

impl Timeout {
    /// A limit that begins now.
    pub fn new(patience: impl Into<Deadline>) -> Timeout {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Timeout { number: LAST.fetch_add(1, Ordering::Relaxed), deadline: patience.into() }
    }

    /// Waits for the future, as [`timeout`] does, until the limit. A future that is done when it is first looked at is never too late.
    ///
    /// # Errors
    /// If the time has passed: this limit's error.
    pub async fn limit<F: Future>(&self, future: F) -> Result<F::Output, TimedOut> {
        let mut future = pin!(future);
        let mut alarm = pin!(Sleep::until(self.deadline));
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => alarm.as_mut().poll(context).map(|()| Err(TimedOut { number: self.number })),
        })
        .await
    }

    /// It begins anew, with this time.
    #[doc(alias = "reschedule")]
    pub fn start(&mut self, patience: impl Into<Deadline>) {
        self.deadline = patience.into();
    }

    /// It never passes, until it is [started](Self::start) again.
    #[doc(alias = "close")]
    pub fn cancel(&mut self) {
        self.deadline = Deadline::NEVER;
    }

    /// How long there is left; `None` for ever.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.remaining()
    }

    /// Whether it is one that can pass.
    pub fn pending(&self) -> bool {
        self.deadline != Deadline::NEVER && !self.deadline.has_passed()
    }
}

impl TimedOut {
    /// Whether it was this limit.
    pub fn is_of(&self, limit: &Timeout) -> bool {
        self.number == limit.number
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the timeout passed")
    }
}

impl std::error::Error for TimedOut {}

impl From<TimedOut> for Error {
    fn from(_: TimedOut) -> Error {
        Error::new(ErrorKind::Timeout)
    }
}
