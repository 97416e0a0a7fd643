//! Two tasks on one thread that take turns: whenever one of them waits, the other one goes on.

use procession::Error;
use procession::future::{scope, sleep};
use std::cell::RefCell;
use std::time::Duration;

/// Everything that was done, in order.
pub(crate) fn eat_and_play() -> Result<Vec<String>, Error> {
    let done = RefCell::new(Vec::new());
    let say = |words: String| {
        println!("{words}");
        done.borrow_mut().push(words);
    };
    scope(|scope| {
        // Both borrow `say`: nothing of the scope outlives this call.
        scope.spawn(async {
            for dish in ["soup", "fish", "cake"] {
                say(format!("eats {dish}"));
                sleep(Duration::from_millis(20)).await;
            }
        });
        scope.spawn(async {
            sleep(Duration::from_millis(10)).await;
            for game in ["chess", "tag", "cards"] {
                say(format!("plays {game}"));
                sleep(Duration::from_millis(20)).await;
            }
        });
    })?;
    Ok(done.into_inner())
}

fn main() -> Result<(), Error> {
    eat_and_play().map(drop)
}
