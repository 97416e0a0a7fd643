//! How long one looks before one sleeps. Who is answered at once by somebody who runs as well has the answer a hundred times sooner by looking than
//! by sleeping and being woken; who is not has looked in vain, and kept a processor. Decides which of the two is likely from what came of it before.
//! Leaves to others what is looked at, and how one sleeps.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// So long one looks at most: about as long as to be woken on a processor that sleeps takes.
const PATIENCE: Duration = Duration::from_micros(50);
/// Looks without letting others run, where there is another processor on which the answer can be made meanwhile.
const LOOKS: u32 = 200;
/// Who has lost time by looking sleeps at once so often that it is so little for each wait. On a machine that is busy with others one gives way and
/// gets no turn again for milliseconds, where who sleeps is woken at once.
const LOSS: Duration = Duration::from_micros(1);
/// And the longer the more often it was in vain, up to so many times as often.
const DOUBT_MAX: u32 = 4;
const REST_MAX: u32 = 4095;

/// What this process has learnt about one object. Several threads learn together, and nothing depends on what they have learnt.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    /// How often it was in vain, doubled each time.
    doubt: AtomicU32,
    /// So many waits are slept through at once.
    rest: AtomicU32,
}

impl Vigil {
    /// Looks for it, for so long as is worth it. Whether it has come.
    pub(crate) fn watch(&self, has_come: impl Fn() -> bool) -> bool {
        if cfg!(loom) {
            // Whoever looks again does nothing that a model could not do without.
            return false;
        }
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
            return has_come();
        }
        let looks = if processors() > 1 { LOOKS } else { 1 };
        for _ in 0..looks {
            if has_come() {
                self.doubt.store(0, Ordering::Relaxed);
                return true;
            }
            std::hint::spin_loop();
        }
        let begun = Instant::now();
        loop {
            // Whoever is to answer may be waiting for this very processor.
            thread::yield_now();
            let (came, took) = (has_come(), begun.elapsed());
            if took > PATIENCE {
                self.regret(took);
                return came;
            }
            if came {
                self.doubt.store(0, Ordering::Relaxed);
                return true;
            }
        }
    }

    fn regret(&self, took: Duration) {
        let doubt = (self.doubt.load(Ordering::Relaxed) * 2).clamp(1, DOUBT_MAX);
        let waits = u32::try_from(took.as_nanos() / LOSS.as_nanos()).unwrap_or(REST_MAX);
        self.doubt.store(doubt, Ordering::Relaxed);
        self.rest.store(waits.saturating_mul(doubt).min(REST_MAX), Ordering::Relaxed);
    }
}

/// How many this process may use; asked once.
fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn who_looks_in_vain_does_so_less_and_less_often() {
        let vigil = Vigil::default();
        let count = Cell::new(0);
        let in_vain = || {
            count.set(count.get() + 1);
            false
        };
        let mut rests = Vec::new();
        for _ in 0..3 {
            count.set(0);
            assert!(!vigil.watch(in_vain));
            assert!(count.get() > 1);
            rests.push(vigil.rest.load(Ordering::Relaxed));
            while vigil.rest.load(Ordering::Relaxed) > 0 {
                count.set(0);
                assert!(!vigil.watch(in_vain));
                assert_eq!(count.get(), 1);
            }
        }
        assert!(rests[0] >= 50 && rests[1] >= 100 && rests[2] >= 200, "{rests:?}");
        // Once it was worth it, what was before is forgotten.
        assert!(vigil.watch(|| true));
        assert_eq!((vigil.doubt.into_inner(), vigil.rest.into_inner()), (0, 0));
    }
}
