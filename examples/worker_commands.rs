//! A program that is slow to start and quick to answer, started twice and asked a hundred times.
//!
//! It is a calculator in a loop of the shell, which needs a while to get ready. One of the requests kills it: that request is answered with an error that
//! says what has happened, all others with their result.

use procession::Command;
use procession::pool::WorkerPool;
use std::io::{self, Write};

/// Says that it is ready, then one line for each line.
const CALCULATOR: &str = "
    sleep 0.1
    echo ready
    while read -r expression; do
        case $expression in
            *crash*) echo 'out of cheese' >&2; kill -9 $$;;
            *) echo $(($expression));;
        esac
    done";

pub(crate) fn worker_commands(out: &mut impl Write) -> io::Result<()> {
    let calculator = Command::shell(CALCULATOR);
    let pool =
        WorkerPool::builder(calculator).workers(2).name("calculator").greeting(|line| line == b"ready").build()?;
    writeln!(out, "6 * 7 = {}", pool.apply_text("6 * 7")?)?;

    let expressions =
        (1..=100).map(|number| if number == 50 { "crash".into() } else { format!("{number} * {number}") });
    let (mut sum, mut failed) = (0_u64, Vec::new());
    for result in pool.imap(expressions).texts() {
        match result {
            Ok(square) => sum += square.parse::<u64>().map_err(io::Error::other)?,
            Err(error) => failed.push(error),
        }
    }
    writeln!(out, "the sum of the others is {sum}")?;
    for error in failed {
        let output = error.output();
        writeln!(out, "{}", output.command())?;
        writeln!(out, "  ended by {} and had said: {}", output.status(), output.stderr_lossy().trim_end())?;
    }
    pool.close();
    pool.join()?;
    Ok(())
}

fn main() -> io::Result<()> {
    worker_commands(&mut io::stdout())
}
