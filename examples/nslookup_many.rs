//! Many hosts, eight at a time: `nslookup` for each, with a bound on its time, another try where that was exceeded, a view of how far it
//! is, and a table at the end.
//!
//! ```sh
//! cargo run --all-features --example nslookup_many -- www.python.org mail.python.org
//! cargo run --all-features --example nslookup_many -- --jobs 32 --file hosts.txt
//! ```
//!
//! `support/nslookup.rs` decides who answers, so that this runs with and without a network.

#[path = "support/nslookup.rs"]
mod nslookup;

use lexopt::{Arg, Parser, ValueExt};
use nslookup::Nslookup;
use procession::pool::{Pool, Progress, Retry, Task};
use procession::{Done, Outcome};
use std::collections::HashSet;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
Usage: nslookup_many [--jobs N] [--timeout SECONDS] [--retries N] [--file FILE] [HOST..]

Looks up each host once. The hosts of a file are its lines; what follows a `#` is left out. Exits with 1 if any has no address.
";

/// Who is asked for if nobody is named.
const HOSTS: [&str; 4] = ["python.org", "www.python.org", "mail.python.org", "nobody.invalid"];

fn main() -> ExitCode {
    ExitCode::from(nslookup_many(std::env::args_os()))
}

/// The whole program: its exit status, 2 if something is wrong.
pub(crate) fn nslookup_many(args: impl IntoIterator<Item = OsString>) -> u8 {
    let status = Options::parse(Parser::from_iter(args)).and_then(|options| {
        let Some(options) = options else { return Ok(true) };
        let Some(nslookup) = Nslookup::that_answers()? else { return Ok(true) };
        // The last of the hosts that nobody has named is there to fail.
        Ok(look_up(&nslookup, &options) || options.is_example)
    });
    match status {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("nslookup_many: {error}");
            2
        }
    }
}

type Trouble = Box<dyn std::error::Error>;

/// What is wished.
struct Options {
    jobs: usize,
    timeout: Duration,
    retries: u32,
    hosts: Vec<String>,
    /// No hosts were named.
    is_example: bool,
}

impl Options {
    /// None if there is nothing to do but to show the usage, which was done.
    fn parse(mut parser: Parser) -> Result<Option<Options>, Trouble> {
        let mut options =
            Options { jobs: 8, timeout: Duration::from_secs(4), retries: 2, hosts: Vec::new(), is_example: false };
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Short('j') | Arg::Long("jobs") => options.jobs = parser.value()?.parse()?,
                Arg::Short('t') | Arg::Long("timeout") => {
                    options.timeout = Duration::try_from_secs_f64(parser.value()?.parse()?)?;
                }
                Arg::Short('r') | Arg::Long("retries") => options.retries = parser.value()?.parse()?,
                Arg::Short('f') | Arg::Long("file") => options.add_file(&parser.value()?)?,
                Arg::Short('h') | Arg::Long("help") => {
                    print!("{USAGE}");
                    return Ok(None);
                }
                Arg::Value(host) => options.hosts.push(host.string()?),
                arg => return Err(arg.unexpected().into()),
            }
        }
        if options.hosts.is_empty() {
            options.is_example = true;
            options.hosts = HOSTS.map(String::from).to_vec();
        }
        if let Some(host) = options.hosts.iter().find(|host| host.starts_with('-')) {
            return Err(format!("{host:?} is no host: nslookup would take it for an option").into());
        }
        // A host that stands there twice is asked for once; a name is that of one task.
        let mut seen = HashSet::new();
        options.hosts.retain(|host| seen.insert(host.clone()));
        Ok(Some(options))
    }

    fn add_file(&mut self, path: &OsString) -> Result<(), Trouble> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let hosts = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        self.hosts.extend(hosts.filter(|host| !host.is_empty()).map(String::from));
        Ok(())
    }
}

/// Asks for all hosts and prints the table. False if one of them has no address.
fn look_up(nslookup: &Nslookup, options: &Options) -> bool {
    // An answer is an answer, also "there is no such host". Only silence is worth another question.
    let retry = Retry::times(options.retries)
        .backoff(Duration::from_millis(100))
        .when(|outcome| matches!(outcome, Outcome::TimedOut | Outcome::Signalled { .. }));
    let progress = Progress::new().total(options.hosts.len() as u64);
    let pool = Pool::new(options.jobs).retry(retry).observe(progress.clone());
    let done = pool.map(
        options.hosts.iter().map(|host| Task::new(nslookup.about(host).timeout(options.timeout)).name(host.as_str())),
    );
    progress.finish();

    let width = options.hosts.iter().map(String::len).max().unwrap_or_default();
    println!("{:width$}  {:>8}  {:>5}  answer", "host", "time", "tries");
    let mut are_all_known = true;
    for (host, done) in options.hosts.iter().zip(&done) {
        let addresses = addresses(done);
        are_all_known &= !addresses.is_empty();
        let answer = if addresses.is_empty() { reason(done) } else { addresses.join(" ") };
        println!("{host:width$}  {:>5} ms  {:>5}  {answer}", done.ran().as_millis(), done.attempts());
    }
    are_all_known
}

/// What stands behind `Address:` after the first `Name:`; what stands before that is the server's.
fn addresses(done: &Done) -> Vec<String> {
    let text = done.output().stdout_lossy();
    let about_host = text.lines().skip_while(|line| !line.starts_with("Name:"));
    about_host.filter_map(|line| line.strip_prefix("Address:")).map(|address| address.trim().to_owned()).collect()
}

/// Why there is none, in nslookup's words if it has any: they stand behind two or three stars, or ";;".
fn reason(done: &Done) -> String {
    let text = done.output().stdout_lossy();
    let said = text.lines().find(|line| line.starts_with("**") || line.starts_with(";;"));
    match (done.result(), said) {
        (Ok(_), Some(said)) => said.trim_start_matches(['*', ';', ' ']).trim().to_owned(),
        _ => done.outcome().to_string(),
    }
}
