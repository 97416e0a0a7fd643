//! Waiting for time, and for one's turn.

use super::runtime::Alarm;
use crate::deadline::Deadline;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Waits for so long. Never shorter; counted from this call.
///
/// Works on every runtime, and also where there is none: there, a thread looks after the clock as long as somebody waits.
///
/// ```
/// use procession::future::{block_on, sleep};
/// use std::time::{Duration, Instant};
///
/// let begin = Instant::now();
/// block_on(sleep(Duration::from_millis(5)))?;
/// assert!(begin.elapsed() >= Duration::from_millis(5));
/// # Ok::<(), procession::Error>(())
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    Sleep::until(Deadline::after(duration))
}

/// See [`sleep`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    deadline: Deadline,
    alarm: Alarm,
}

impl Sleep {
    pub(super) fn until(deadline: Deadline) -> Sleep {
        Sleep { deadline, alarm: Alarm::default() }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.alarm.has_passed(context, this.deadline) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Lets all others have a turn who are ready, and what descriptors and timers have to say.
///
/// For long calculations: a task that never waits holds up all others.
#[doc(alias = "yield_now")]
pub fn idle() -> Idle {
    Idle { has_waited: false }
}

/// See [`idle`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Idle {
    has_waited: bool,
}

impl Future for Idle {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.has_waited {
            return Poll::Ready(());
        }
        self.has_waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
