//! Moments where there is no runtime at all, so that a timeout works wherever a future is polled: one thread for all of them, which is there only
//! while somebody waits.

use crate::deadline::Deadline;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::thread;
use std::time::Instant;

struct Clock {
    timers: BTreeMap<(Instant, u64), Waker>,
    last: u64,
    runs: bool,
}

static CLOCK: Mutex<Clock> = Mutex::new(Clock { timers: BTreeMap::new(), last: 0, runs: false });
static NEWS: Condvar = Condvar::new();

fn locked() -> MutexGuard<'static, Clock> {
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
pub(super) struct Alarm(Option<(Instant, u64)>);

impl Alarm {
    pub(super) fn has_passed(&mut self, context: &Context<'_>, deadline: Deadline) -> bool {
        self.disarm();
        match deadline.moment() {
            None => false,
            Some(_) if deadline.has_passed() => true,
            Some(moment) => {
                self.arm(moment, context.waker());
                false
            }
        }
    }

    fn arm(&mut self, moment: Instant, waker: &Waker) {
        let mut clock = locked();
        clock.last += 1;
        let key = (moment, clock.last);
        clock.timers.insert(key, waker.clone());
        self.0 = Some(key);
        if clock.runs {
            NEWS.notify_all();
        } else if thread::Builder::new().name("procession-clock".to_owned()).spawn(run).is_ok() {
            clock.runs = true;
        } else {
            // No thread can be had: whoever polls looks all the time.
            waker.wake_by_ref();
        }
    }

    fn disarm(&mut self) {
        if let Some(key) = self.0.take() {
            locked().timers.remove(&key);
            NEWS.notify_all();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// The thread, until nobody waits.
fn run() {
    let mut clock = locked();
    while let Some(first) = clock.timers.first_entry() {
        let (moment, _) = *first.key();
        let remaining = moment.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            let waker = first.remove();
            drop(clock);
            waker.wake();
            clock = locked();
        } else {
            clock = NEWS.wait_timeout(clock, remaining).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
    clock.runs = false;
}
