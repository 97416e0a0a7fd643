//! How long one looks before one sleeps. Who is answered at once by somebody who runs as well has the answer a hundred times sooner by looking than
//! by sleeping and being woken; who is not has looked in vain, and kept a processor. Decides which of the two is likely from what came of it before.
//! Leaves to others what is looked at, and how one sleeps.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// So long one looks at most: about as long as to be woken on a processor that sleeps takes.
const PATIENCE: Duration = Duration::from_micros(50);
/// Looks without letting others run, where there is another processor on which the answer can be made meanwhile.
const LOOKS: u32 = 200;
/// Who has looked in vain sleeps at once for the next time, then for the next 3, 7, and so on up to this.
const REST_MAX: u32 = 1023;

/// What one has learnt.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    rest: u32,
    rest_left: u32,
}

impl Vigil {
    /// Looks for it, for so long as is worth it. Whether it has come.
    pub(crate) fn watch(&mut self, has_come: impl Fn() -> bool) -> bool {
        if self.rest_left > 0 {
            self.rest_left -= 1;
            return has_come();
        }
        let looks = if processors() > 1 { LOOKS } else { 1 };
        for _ in 0..looks {
            if has_come() {
                self.rest = 0;
                return true;
            }
            std::hint::spin_loop();
        }
        let begun = Instant::now();
        loop {
            // Whoever is to answer may be waiting for this very processor.
            thread::yield_now();
            let (came, is_late) = (has_come(), begun.elapsed() > PATIENCE);
            if is_late {
                // Also if it has come: on a busy machine one yields for very long, and is woken sooner.
                self.rest = (self.rest * 2 + 1).min(REST_MAX);
                self.rest_left = self.rest;
                return came;
            }
            if came {
                self.rest = 0;
                return true;
            }
        }
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
        let mut vigil = Vigil::default();
        // How many looks each of these took.
        let looks: Vec<u32> = (0..12)
            .map(|_| {
                let count = Cell::new(0);
                assert!(!vigil.watch(|| {
                    count.set(count.get() + 1);
                    false
                }));
                count.get()
            })
            .collect();
        let long: Vec<usize> = (0..12).filter(|place| looks[*place] > 1).collect();
        assert_eq!(long, [0, 2, 6]);
        // Once it was worth it, all is forgotten.
        while vigil.rest_left > 0 {
            vigil.watch(|| false);
        }
        assert!(vigil.watch(|| true));
        assert_eq!((vigil.rest, vigil.rest_left), (0, 0));
    }
}
