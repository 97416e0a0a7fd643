//! A run with a bound on everything: time, output, and what is left behind.
//!
//! The command prints a little, leaves a process in the background that holds the pipe, and would take a minute. It is stopped after
//! 200 ms, its tree with it, and nothing that was read is lost.

use procession::{Command, Overflow, Stop};
use std::time::Duration;

fn main() -> Result<(), procession::Error> {
    let build = Command::shell("echo compiling; sleep 60 & echo linking; sleep 60")
        .timeout(Duration::from_millis(200))
        .stop(Stop::term_then_kill(Duration::from_millis(300)))
        .capture_limit(1024 * 1024, Overflow::Tail);
    println!("$ {build}");
    match build.output() {
        Ok(output) => println!("{output}"),
        Err(error) if error.is_timeout() => {
            let output = error.output();
            println!("{error}");
            println!("it said: {:?}", output.stdout_lossy());
            println!("it ended by {}, {} ms after its start", output.status(), output.elapsed().as_millis());
            println!("left behind: {} processes", output.survivors().len());
        }
        Err(error) => return Err(error),
    }

    // A conversation that times out goes on where it stopped.
    let mut slow = Command::shell("read word; sleep 0.3; echo \"you said $word\"").pipe_all().spawn()?;
    let error = slow.communicate_timeout("hello\n", Duration::from_millis(100)).unwrap_err();
    println!("after 100 ms: {error}");
    print!("later: {}", slow.communicate(())?);
    Ok(())
}
