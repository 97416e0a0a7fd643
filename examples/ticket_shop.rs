//! Several clerks sell from one stock. With a lock no ticket is sold twice. Without it each of them looks before any of the others has
//! written down a sale, and everybody sells the same ticket.

use procession::Error;
use procession::ipc::{Barrier, Lock, Process, Value};
use serde::{Deserialize, Serialize};

/// What the clerks share. It is an argument of each of them.
#[derive(Clone, Serialize, Deserialize)]
struct Shop {
    /// How many tickets are left.
    left: Value<u32>,
    rule: Rule,
}

#[derive(Clone, Serialize, Deserialize)]
enum Rule {
    /// Between looking and writing down nobody else does either.
    OneAtATime(Lock),
    /// The worst that can happen without a lock, each time: all look, then all write.
    AllAtOnce(Barrier),
}

/// The numbers of the tickets that this clerk has sold.
fn clerk(shop: Shop) -> Vec<u32> {
    std::iter::from_fn(|| match &shop.rule {
        Rule::OneAtATime(lock) => {
            let _guard = lock.lock().expect("no clerk dies at work");
            sell(&shop.left, std::thread::yield_now)
        }
        Rule::AllAtOnce(barrier) => {
            let together = || barrier.wait().expect("no clerk dies at work");
            let ticket = sell(&shop.left, || _ = together());
            // Nobody looks again before all have written.
            together();
            ticket
        }
    })
    .collect()
}

/// Looks, does something else, and writes down the sale.
fn sell(left: &Value<u32>, meanwhile: impl Fn()) -> Option<u32> {
    let ticket = left.get();
    meanwhile();
    left.set(ticket.checked_sub(1)?);
    Some(ticket)
}

/// What each of the clerks has sold.
pub(crate) fn ticket_shop(tickets: u32, clerks: u32, with_lock: bool) -> Result<Vec<Vec<u32>>, Error> {
    let rule = if with_lock { Rule::OneAtATime(Lock::new()?) } else { Rule::AllAtOnce(Barrier::new(clerks)?) };
    let shop = Shop { left: Value::new(tickets)?, rule };
    let processes = (0..clerks).map(|_| Process::start(clerk, shop.clone())).collect::<Result<Vec<_>, _>>()?;
    processes.into_iter().map(|mut process| process.join()).collect()
}

fn main() -> Result<(), Error> {
    for (with_lock, how) in [(true, "with a lock"), (false, "without a lock")] {
        let sold = ticket_shop(10, 4, with_lock)?;
        println!("{how}: {} tickets of 10 were sold: {sold:?}", sold.concat().len());
    }
    Ok(())
}
