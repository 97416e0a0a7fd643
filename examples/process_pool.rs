//! Five tasks for four processes: four begin at once, and the fifth when one of them is done.

use procession::Error;
use procession::ipc::ProcessPool;
use std::time::{Duration, Instant};

/// Runs in a worker. The number of the worker's process, and how long the task took.
fn long_task(number: u32) -> (u32, Duration) {
    let begin = Instant::now();
    println!("task {number} runs in process {}", std::process::id());
    std::thread::sleep(Duration::from_millis(100 + 50 * u64::from(number)));
    println!("task {number} is done");
    (std::process::id(), begin.elapsed())
}

/// The processes that have done the tasks, in the order of the tasks.
pub(crate) fn process_pool() -> Result<Vec<u32>, Error> {
    let pool = ProcessPool::new(4)?;
    let tasks = (0..5).map(|number| pool.apply_async(long_task, number)).collect::<Result<Vec<_>, _>>()?;
    println!("waiting for all tasks");
    pool.close();
    pool.join()?;
    // Nobody waits any more: everything has been done.
    let mut workers = Vec::new();
    for (number, task) in tasks.into_iter().enumerate() {
        let (worker, time) = task.get()?;
        println!("task {number} took {:.2} s", time.as_secs_f64());
        workers.push(worker);
    }
    Ok(workers)
}

fn main() -> Result<(), Error> {
    let mut workers = process_pool()?;
    workers.sort_unstable();
    workers.dedup();
    println!("all done, by {} processes", workers.len());
    Ok(())
}
