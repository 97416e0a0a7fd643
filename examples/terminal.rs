//! Programs that behave differently on a terminal: one that writes columns, one that asks for a password, one that hears of a new size.

use procession::{Command, Pty, Signal, Stdio};
use std::time::Duration;

const TURN: Duration = Duration::from_secs(20);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Into a pipe, `ls` writes one name a line; on a terminal it writes columns, as wide as the terminal is.
    let names = Command::new("ls").arg("/").env("TERM", "dumb");
    let columns = names.clone().stdin(Stdio::null()).pty(Pty::new().size(24, 100));
    println!("through a pipe: {} lines", names.check_output_text()?.lines().count());
    println!("on a terminal:  {} lines", columns.check_output_text()?.lines().count());

    // Who asks for a password turns the echo off, and throws away what was typed before: wait for the question.
    let script = "stty -echo; printf 'password: ' >/dev/tty; read word; stty echo; echo \"${#word} letters\"";
    let mut child = Command::shell(script).pty(Pty::new().echo(true)).spawn()?;
    let terminal = child.terminal().ok_or("no terminal")?.clone();
    let mut talk = child.converse(TURN);
    talk.read_until("password: ")?;
    println!("asked for a password, with the echo {}", if terminal.echo()? { "on" } else { "off" });
    talk.write_line("swordfish")?;
    println!("it has {} letters", talk.read_until(" letters")?.text());
    child.wait()?;

    // A new size is told by a signal; ^C is typed.
    let script =
        "trap 'stty size' WINCH; trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = Command::shell(script).pty(Pty::new()).spawn()?;
    let terminal = child.terminal().ok_or("no terminal")?.clone();
    let mut talk = child.converse(TURN);
    talk.read_until("ready\n")?;
    terminal.resize(50, 132)?;
    println!("resized to {}", talk.read_until("\n")?.text().trim_end());
    talk.write("\x03")?;
    println!("{}", talk.read_until("\n")?.text().trim_end());
    println!("ended by {}", child.wait()?);

    // The terminal goes away with all that is ours of it, and that is a hang-up.
    drop(terminal);
    let child = Command::new("sleep").arg("60").pty(Pty::new()).spawn()?;
    let handle = child.handle().clone();
    drop(child);
    assert_eq!(handle.wait()?.signal(), Some(Signal::HUP));
    println!("hung up");
    Ok(())
}
