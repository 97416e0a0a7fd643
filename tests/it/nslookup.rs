//! A program that we did not write, over a protocol that we did not invent: BIND's `nslookup` against a DNS server on loopback.
//!
//! Where `nslookup` is not installed a fixture script plays it, and the test says so.

use std::time::Duration;

use procession::Command;

use crate::support::alone;

#[path = "../../examples/support/dns.rs"]
mod dns;

/// Far more than a lookup on loopback takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program, and what it will find.
struct Nslookup {
    /// Looks up one host.
    about_www: Command,
    address: &'static str,
    /// Reads what to do from its standard input.
    interactive: Command,
    mail_exchanger: &'static str,
}

impl Nslookup {
    /// The real one, asking `server`; or the script, which asks nobody.
    fn asking(server: &dns::Responder) -> Self {
        let version = Command::new("nslookup").arg("-version").timeout(PATIENCE);
        match version.output() {
            Err(error) if error.is_not_found() => Self::played_by_script(),
            version => {
                version.expect("nslookup -version");
                let nslookup = Command::new("nslookup").arg(format!("-port={}", server.port()));
                Self {
                    about_www: nslookup.clone().args(["www.python.org", "127.0.0.1"]),
                    address: "Address: 192.0.2.80\n",
                    interactive: nslookup.args(["-", "127.0.0.1"]),
                    mail_exchanger: "python.org\tmail exchanger = 50 mail.python.org.\n",
                }
            }
        }
    }

    fn played_by_script() -> Self {
        eprintln!("nslookup is not installed (Debian: bind9-dnsutils): fixtures/fake-nslookup.sh plays it");
        let script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/fake-nslookup.sh"));
        Self {
            about_www: script.clone().arg("www.python.org"),
            address: "Address: 192.0.2.14\n",
            interactive: script,
            mail_exchanger: "python.org\tmail exchanger = 10 mail.python.org.\n",
        }
    }
}

#[test]
fn output_captures_a_lookup() {
    alone!({
        let server = dns::Responder::start().unwrap();
        let nslookup = Nslookup::asking(&server);
        let output = nslookup.about_www.timeout(PATIENCE).output().unwrap();
        let text = output.stdout_text().unwrap();
        assert!(text.contains("Name:\twww.python.org\n"), "{output}");
        assert!(text.contains(nslookup.address), "{output}");
        assert_eq!(output.returncode(), 0, "{output}");
    });
}

#[test]
fn communicate_holds_a_conversation() {
    alone!({
        let server = dns::Responder::start().unwrap();
        let nslookup = Nslookup::asking(&server);
        let mut child = nslookup.interactive.pipe_all().spawn().unwrap();
        let output = child.communicate_timeout("set q=mx\npython.org\nexit\n", PATIENCE).unwrap();
        assert!(output.stdout_text().unwrap().contains(nslookup.mail_exchanger), "{output}");
        assert_eq!(output.stderr_lossy(), "", "{output}");
        assert_eq!(child.returncode(), Some(0), "{output}");
    });
}
