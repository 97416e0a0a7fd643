//! Programs that behave differently on a terminal: one that writes columns, one that asks a question, one that hears of a new size.

use procession::{Command, Pty, Signal, Stdio};
use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Into a pipe, `ls` writes one name a line; on a terminal it writes columns, as wide as the terminal is.
    let names = Command::new("ls").arg("/");
    println!("through a pipe: {} lines", names.check_output_text()?.lines().count());
    let wide = names.clone().env("TERM", "dumb").stdin(Stdio::null()).pty(Pty::new().size(24, 100));
    println!("on a terminal:  {} lines", wide.check_output_text()?.lines().count());

    // A program that asks on its terminal, and turns the echo off for the answer. We wait for the question before we answer.
    let script = "exec 3<>/dev/tty; stty -echo; printf 'password: ' >&3; read word <&3; stty echo; echo; echo \"${#word} letters\"";
    let mut child = Command::shell(script).pty(Pty::new().echo(true)).spawn()?;
    let asked = read_until(child.stdout.as_mut(), "password: ")?;
    let hidden = !child.terminal().ok_or("no terminal")?.echo()?;
    child.stdin.as_mut().ok_or("no stdin")?.write_all(b"swordfish\n")?;
    print!("{asked}(echo off: {hidden}){}", child.communicate(())?.stdout_text()?);

    // A new size is told by a signal; ^C is typed.
    let script =
        "trap 'stty size' WINCH; trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = Command::shell(script).pty(Pty::new()).spawn()?;
    read_until(child.stdout.as_mut(), "ready\n")?;
    child.terminal().ok_or("no terminal")?.resize(50, 132)?;
    print!("resized to {}", read_until(child.stdout.as_mut(), "\n")?);
    child.stdin.as_mut().ok_or("no stdin")?.write_all(b"\x03")?;
    let output = child.communicate(())?;
    println!("{:?}, {}", output.stdout_lossy().trim_end(), output.status());

    // To drop a child on a terminal hangs up.
    let child = Command::new("sleep").arg("60").pty(Pty::new()).spawn()?;
    let handle = child.handle().clone();
    drop(child);
    assert_eq!(handle.wait()?.signal(), Some(Signal::HUP));
    println!("hung up");
    Ok(())
}

fn read_until(stdout: Option<&mut procession::PipeReader>, end: &str) -> std::io::Result<String> {
    let mut text = Vec::new();
    if let Some(stdout) = stdout {
        let mut byte = [0];
        while !text.ends_with(end.as_bytes()) && stdout.read(&mut byte)? == 1 {
            text.extend(byte);
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
