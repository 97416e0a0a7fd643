//! Looks at what would be run, without running it: the program as it was found, its streams, and every step between the birth of the
//! process and the program, in order.

use procession::{Command, Resource, Signal, Stdio};

fn main() -> Result<(), procession::Error> {
    let command = Command::new("sort")
        .args(["-k", "2", "my file"])
        .env("LC_ALL", "C")
        .secret_env("TOKEN", "hunter2")
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .stderr(Stdio::stdout())
        .umask(0o077)
        .setsid()
        .limit(Resource::Cpu, 10, 20)
        .ignore_signal(Signal::HUP);
    println!("{}", command.plan()?);

    // What is wrong with a request is told before anything is created.
    for wrong in [
        Command::new("no-such-program"),
        Command::new("ls").arg("a\0b"),
        Command::new("ls").user("nobody-of-that-name"),
        Command::new("ls").setsid().foreground(),
    ] {
        if let Err(error) = wrong.plan() {
            println!("{error}");
        }
    }
    Ok(())
}
