//! Shows a command's output while it comes, marks errors, and stops at the first line that matters.

use procession::{Command, Stream};
use std::ops::ControlFlow;
use std::time::Duration;

fn main() -> Result<(), procession::Error> {
    let build = Command::shell("for i in 1 2 3; do echo step $i; sleep 0.1; done; echo 'warning: nearly done' >&2; sleep 0.1; echo ready; sleep 60")
        .timeout(Duration::from_secs(20));
    let mut errors = 0;
    let output = build.try_for_each_line(|line| {
        match line.stream() {
            Stream::Stdout => println!("  | {line}"),
            Stream::Stderr => {
                errors += 1;
                println!("  ! {line}");
            }
        }
        if line.bytes() == b"ready" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    println!("{errors} lines of errors, {} bytes kept, {:?}", output.stdout().len(), output.cause());
    Ok(())
}
