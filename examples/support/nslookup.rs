//! Who plays nslookup in the examples: the real one with the resolver of this machine, the real one with a DNS server of our own, or a
//! script. Decides it by asking.

#[path = "dns.rs"]
mod dns;

use procession::{Command, Error};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long we try a resolver before we do without it.
const PROBE_BUDGET: Duration = Duration::from_secs(3);

/// The program that is asked, and whom it asks in turn.
pub(crate) enum Nslookup {
    /// The real one, and the resolver that this machine uses.
    System,
    /// The real one, and the small DNS server of this example.
    Loopback(dns::Responder),
    /// A script that talks like it.
    Script(PathBuf),
}

impl Nslookup {
    /// `nslookup HOST`: prints what it learns about the host, and ends.
    pub(crate) fn about(&self, host: &str) -> Command {
        match self {
            Self::System => Command::new("nslookup").arg(host),
            Self::Loopback(server) => {
                Command::new("nslookup").arg(format!("-port={}", server.port())).args([host, "127.0.0.1"])
            }
            Self::Script(script) => Command::new(script).arg(host),
        }
    }

    /// `nslookup`: reads commands from its standard input.
    pub(crate) fn interactive(&self) -> Command {
        match self {
            Self::System => Command::new("nslookup"),
            // A dash where the host would stand is how nslookup takes a server and stays interactive.
            Self::Loopback(_) => self.about("-"),
            Self::Script(script) => Command::new(script),
        }
    }

    /// The first that answers: the system's resolver, our own server, the script. Says in a sentence why it is not the first.
    /// None if there is nobody to ask, which has then been said.
    pub(crate) fn that_answers() -> Result<Option<Self>, Error> {
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

    /// Asks two questions in one go, as a trial. The exit status alone would not do: nslookup can exit with 0 though
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
