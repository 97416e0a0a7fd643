//! A hang, made on purpose, explains itself: a shell's child waits for input that nobody sends, and then is stopped. Then a run
//! whose grandchild keeps the pipe: the record says so by itself.

use procession::{Command, Stop};
use std::time::Duration;

fn main() -> Result<(), procession::Error> {
    let mut child =
        Command::shell("echo 'What is your name?'; read name; echo \"Hello, $name\"").pipe_all().echo().spawn()?;
    // Nobody answers.
    match child.handle().wait_timeout(Duration::from_millis(300))? {
        Some(status) => println!("{status}"),
        None => println!("it hangs:\n{}\n", child.explain()),
    }
    println!("stopped: {}\n", child.stop(&Stop::default())?);

    let service = Command::shell("echo started; sleep 2 &").drain(Duration::from_millis(200)).echo();
    let output = service.output()?;
    print!("{output}");
    if let Some(explanation) = output.explanation() {
        println!("in full:\n{explanation}");
    }
    Ok(())
}
