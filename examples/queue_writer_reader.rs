//! One process puts into a queue, another gets from it until it is stopped: when everything that was put has been worked on, and not before.

use procession::Error;
use procession::ipc::{Process, Queue};
use std::time::Duration;

fn write(queue: Queue<String>) {
    for value in ["A", "B", "C"] {
        println!("put {value}");
        queue.put(value.to_owned()).expect("the queue is open");
    }
}

/// Knows no end.
fn read(queue: Queue<String>) {
    loop {
        let value = queue.get().expect("the queue is open");
        println!("got {value}");
        queue.task_done().expect("it was one");
    }
}

/// How the reader has ended, as Python says it.
pub(crate) fn queue_writer_reader() -> Result<i32, Error> {
    let queue = Queue::new()?;
    let mut writer = Process::start(write, queue.clone())?;
    let mut reader = Process::builder(read, queue.clone()).daemon().start()?;
    writer.join()?;
    // Without this the reader might be stopped with work in its hands. A time, because a reader may die, and then nobody finishes it.
    queue.join_timeout(Duration::from_secs(30))?;
    reader.terminate()?;
    Ok(reader.wait()?.returncode())
}

fn main() -> Result<(), Error> {
    let code = queue_writer_reader()?;
    println!("the reader has ended with {code}");
    Ok(())
}
