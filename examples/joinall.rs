//! Many tasks, waited for as one: all of them, the first of them, or as many as there are when the time has passed.

use procession::Error;
use procession::future::{joinall, killall, scope, sleep};
use std::time::Duration;

async fn square(number: u64) -> u64 {
    sleep(Duration::from_millis(number)).await;
    number * number
}

/// The squares up to a hundred, which one was first, and how many were there in time.
pub(crate) fn squares() -> Result<(Vec<u64>, u64, usize), Error> {
    scope(|scope| {
        let tasks: Vec<_> = (1..=100).map(|number| scope.spawn(square(number))).collect();
        let slow: Vec<_> = [1, 3_600_000].map(|number| scope.spawn(square(number))).into();
        scope.block_on(async {
            let first = joinall(&tasks, None, Some(1)).await;
            let first = first.iter().find_map(|task| task.value()).unwrap_or_default();
            let squares = joinall(&tasks, None, None).await;
            let squares = squares.iter().filter_map(|task| task.value()).collect();
            let in_time = joinall(&slow, Duration::from_millis(200), None).await.len();
            // The scope would wait for the other one.
            killall(&slow, None).await;
            (squares, first, in_time)
        })
    })?
}

fn main() -> Result<(), Error> {
    let (mut squares, first, in_time) = squares()?;
    squares.sort_unstable();
    println!("{squares:?}\nfirst: {first}\nof the slow ones in time: {in_time}");
    Ok(())
}
