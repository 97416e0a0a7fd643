//! An interactive nslookup, driven question by question: what `expect` is for.
//!
//! nslookup shows its prompt only to a person, so it gets a terminal. Each turn waits for the prompt, at most for `PATIENCE`; whatever
//! goes wrong, nslookup is stopped and the error has all that was said.

#[path = "support/nslookup.rs"]
mod nslookup;

use nslookup::Nslookup;
use procession::{Error, Pty};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

const PROMPT: &str = "> ";

fn main() -> Result<(), Error> {
    let Some(nslookup) = Nslookup::that_answers()? else {
        return Ok(());
    };
    // A simple terminal, so that nobody decorates the prompt.
    let command = nslookup.interactive().pty(Pty::new().size(24, 80)).env("TERM", "dumb");
    println!("$ {command}");
    let questions = ["www.python.org", "set q=mx", "python.org", "no-such-host.invalid"];
    let (answers, output) = command.converse(PATIENCE, |talk| {
        talk.read_until(PROMPT)?;
        let mut answers = Vec::new();
        for question in questions {
            talk.write_line(question)?;
            answers.push(talk.read_until(PROMPT)?.text().into_owned());
        }
        talk.write_line("exit")?;
        talk.read_to_end()?;
        Ok(answers)
    })?;
    for (question, answer) in questions.iter().zip(&answers) {
        println!("{question:<22} {}", telling(answer));
    }
    println!("Exit code: {}", output.returncode());
    Ok(())
}

/// The line of an answer that people look for.
fn telling(answer: &str) -> &str {
    let is_telling = |line: &&str| {
        line.contains("mail exchanger")
            || line.starts_with("** ")
            || (line.starts_with("Address: ") && !line.contains('#'))
    };
    answer.lines().find(is_telling).map_or("", str::trim)
}
