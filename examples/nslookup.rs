//! The two programs of an old Python tutorial. The first lends the terminal to a child and looks at how it ended:
//!
//! ```python
//! code = subprocess.call(['nslookup', 'www.python.org'])
//! print('Exit code:', code)
//! ```
//!
//! The second talks to a child through pipes:
//!
//! ```python
//! p = subprocess.Popen(['nslookup'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
//! output, err = p.communicate(b'set q=mx\npython.org\nexit\n')
//! print(output.decode('utf-8'))
//! print('Exit code:', p.returncode)
//! ```
//!
//! `main` is both of them in Rust. `support/nslookup.rs` decides who answers, so that the programs run with and without a network.

#[path = "support/nslookup.rs"]
mod nslookup;

use nslookup::Nslookup;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(nslookup) = Nslookup::that_answers()? else {
        return Ok(());
    };

    let command = nslookup.about("www.python.org").timeout(PATIENCE);
    println!("$ {command}");
    let status = command.call()?;
    println!("Exit code: {}", status.returncode());

    let command = nslookup.interactive().pipe_all();
    println!("$ {command}");
    let mut child = command.spawn()?;
    let output = child.communicate_timeout("set q=mx\npython.org\nexit\n", PATIENCE)?;
    println!("{}", output.stdout_text()?);
    println!("Exit code: {}", output.returncode());
    Ok(())
}

/// How long either program may take. A lookup takes milliseconds, or fails within seconds.
const PATIENCE: Duration = Duration::from_secs(15);
