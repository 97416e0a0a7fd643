//! Processes in a row: one makes numbers, the next one squares them, and we add them up. Each has its ends of the connections and no others,
//! so the end of the first one ends the second, and that ends us.

use procession::Error;
use procession::ipc::{Process, Receiver, Sender, one_way};

fn count((mut to, most): (Sender<u64>, u64)) {
    for number in 1..=most {
        to.send(&number).expect("somebody listens");
    }
}

fn square((mut from, mut to): (Receiver<u64>, Sender<u64>)) {
    for number in from.incoming() {
        let number = number.expect("a number, or the end");
        to.send(&(number * number)).expect("somebody listens");
    }
}

/// The sum of the squares up to a number.
pub(crate) fn piped_processes(most: u64) -> Result<u64, Error> {
    let (numbers_in, numbers) = one_way()?;
    let (squares_in, mut squares) = one_way()?;
    // The ends go to the processes, and are closed here: an argument is moved.
    let mut first = Process::start(count, (numbers_in, most))?;
    let mut second = Process::start(square, (numbers, squares_in))?;
    let mut sum = 0;
    for square in squares.incoming() {
        sum += square?;
    }
    // A sum of half the numbers would be none: did both do their work to the end?
    first.join()?;
    second.join()?;
    Ok(sum)
}

fn main() -> Result<(), Error> {
    println!("1 + 4 + 9 + .. + 10000 = {}", piped_processes(100)?);
    Ok(())
}
