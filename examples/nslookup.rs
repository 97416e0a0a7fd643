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
//! `main` is both of them in Rust. What follows it decides who answers, so that the programs run with and without a network.

#[path = "support/dns.rs"]
mod dns;

use std::path::{Path, PathBuf};
use std::time::Duration;

use procession::{Command, Error};

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

/// How long we try a resolver before we do without it.
const PROBE_BUDGET: Duration = Duration::from_secs(3);

/// The program that is asked, and whom it asks in turn.
enum Nslookup {
    /// The real one, and the resolver that this machine uses.
    System,
    /// The real one, and the small DNS server of this example.
    Loopback(dns::Responder),
    /// A script that talks like it.
    Script(PathBuf),
}

impl Nslookup {
    /// `nslookup HOST`: prints what it learns about the host, and ends.
    fn about(&self, host: &str) -> Command {
        match self {
            Self::System => Command::new("nslookup").arg(host),
            Self::Loopback(server) => {
                Command::new("nslookup").arg(format!("-port={}", server.port())).args([host, "127.0.0.1"])
            }
            Self::Script(script) => Command::new(script).arg(host),
        }
    }

    /// `nslookup`: reads commands from its standard input.
    fn interactive(&self) -> Command {
        match self {
            Self::System => Command::new("nslookup"),
            // A dash where the host would stand is how nslookup takes a server and stays interactive.
            Self::Loopback(_) => self.about("-"),
            Self::Script(script) => Command::new(script),
        }
    }

    /// The first that answers: the system's resolver, our own server, the script. Says in a sentence why it is not the first.
    /// None if there is nobody to ask, which has then been said.
    fn that_answers() -> Result<Option<Self>, Error> {
        match Self::System.answers() {
            Ok(true) => return Ok(Some(Self::System)),
            Ok(false) => {
                println!(
                    "This machine's resolver does not know python.org (no network?), so nslookup asks a small DNS server \
                     that this example starts on 127.0.0.1."
                );
                if let Ok(server) = dns::Responder::start() {
                    let loopback = Self::Loopback(server);
                    if loopback.answers()? {
                        return Ok(Some(loopback));
                    }
                }
                println!(
                    "That got no answer either: there is no loopback device, or this nslookup is not the one of BIND."
                );
            }
            Err(error) if error.is_not_found() => println!("There is no nslookup on this machine."),
            Err(error) => return Err(error),
        }
        Ok(Self::stand_in())
    }

    /// The script, if it is here. Says how to get the real program.
    fn stand_in() -> Option<Self> {
        println!(
            "BIND's nslookup is in the package bind9-dnsutils (Debian, Ubuntu), bind-utils (Fedora) or bind-tools (Alpine)."
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fake-nslookup.sh");
        if !script.exists() {
            println!("The script that could play its part is in the repository only.");
            return None;
        }
        println!("Until it is installed, a script plays its part.");
        Some(Self::Script(script))
    }

    /// Asks both questions of `main` in one go, as a trial. The exit status alone would not do: nslookup can exit with 0 though
    /// it found nothing.
    fn answers(&self) -> Result<bool, Error> {
        let trial =
            self.interactive().input("www.python.org\nset q=mx\npython.org\nexit\n").timeout(PROBE_BUDGET).output();
        match trial {
            Ok(output) => {
                let text = output.stdout_lossy();
                let answered = text.contains("Name:") && text.contains("mail exchanger");
                Ok(answered && output.success())
            }
            Err(error) if error.is_timeout() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
