//! A daemon: a process that gives signs of life as long as its parent lives, and ends with it, however that ends.

use procession::Error;
use procession::ipc::{Process, Sender, one_way};
use std::time::Duration;

/// Knows no end.
fn heart((mut beats, interval): (Sender<u64>, Duration)) {
    for count in 1.. {
        // Whether anybody listens is nothing to it.
        let _ = beats.send(&count);
        std::thread::sleep(interval);
    }
}

/// Listens to so many beats, and leaves the daemon as it is.
pub(crate) fn heartbeat(count: usize) -> Result<(), Error> {
    let (ours, mut beats) = one_way()?;
    let heart = Process::builder(heart, (ours, Duration::from_millis(100))).name("heart").daemon().start()?;
    println!("{} is process {}", heart.name(), heart.id());
    for beat in beats.incoming().take(count) {
        println!("beat {}", beat?);
    }
    println!("the parent ends");
    Ok(())
}

fn main() -> Result<(), Error> {
    heartbeat(5)
}
