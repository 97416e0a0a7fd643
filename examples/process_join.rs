//! A function in a process of its own: started, waited for, and asked for what it has returned.

use procession::Error;
use procession::ipc::{Process, current};

/// Runs in the new process. It takes one argument; several are a tuple.
fn greet((name, times): (String, usize)) -> u32 {
    for _ in 0..times {
        println!("{}: hello, {name}", current().map_or("?", |process| process.name()));
    }
    std::process::id()
}

/// Two processes at the same time, and one that comes to a bad end.
pub(crate) fn process_join() -> Result<(), Error> {
    println!("parent: starts children");
    let mut first = Process::builder(greet, ("world".to_owned(), 1)).name("first").start()?;
    let mut second = Process::builder(greet, ("moon".to_owned(), 2)).name("second").start()?;
    for child in [&mut first, &mut second] {
        let id = child.join()?;
        assert!(id == child.id() && id != std::process::id());
        println!("parent: {} has ended with {:?}", child.name(), child.exit_code());
    }

    let divide = |(a, b): (u32, u32)| a / b;
    println!("parent: 7 / 2 = {}", Process::start(divide, (7, 2))?.join()?);
    let mut unlucky = Process::builder(divide, (7, 0)).name("unlucky").start()?;
    if let Some(panic) = unlucky.join().as_ref().err().and_then(Error::panic) {
        println!("parent: {} has panicked: {}", unlucky.name(), panic.message());
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    process_join()
}
