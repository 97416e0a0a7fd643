//! How late is a limit of time noticed, how early (which is wrong), and how soon the end of a child?

use procession_benches::{Options, Table, median, number, order};
use std::process::Stdio;
use std::time::{Duration, Instant};
use wait_timeout::ChildExt;

const LIMIT: Duration = Duration::from_millis(100);
/// Not a whole number of milliseconds: what rounds shows it.
const ODD_LIMIT: Duration = Duration::from_micros(20_300);
const LONG: Duration = Duration::from_secs(10);
const SHORT_SLEEP: Duration = Duration::from_millis(50);

/// How long something took that should have taken the limit.
type Work = fn(Duration) -> Duration;

fn main() {
    let options = Options::parse(15);
    late(&options, LIMIT);
    late(&options, ODD_LIMIT);
    seen(&options);
}

fn late(options: &Options, limit: Duration) {
    let contestants: [(&str, Work); 7] = [
        ("procession wait_timeout", |limit| {
            let mut child = procession::Command::new("sleep").arg("10").kill_on_drop().spawn().unwrap();
            let start = Instant::now();
            assert!(child.wait_timeout(limit).unwrap().is_none());
            start.elapsed()
        }),
        ("procession output with timeout", |limit| {
            // All of it: start, limit, stop, reaping.
            let start = Instant::now();
            let error = procession::Command::new("sleep").arg("10").timeout(limit).output().unwrap_err();
            let elapsed = start.elapsed();
            assert!(error.is_timeout());
            elapsed
        }),
        ("std, try_wait every 10 ms", |limit| {
            let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
            let start = Instant::now();
            while start.elapsed() < limit {
                assert!(child.try_wait().unwrap().is_none());
                std::thread::sleep(Duration::from_millis(10).min(limit.saturating_sub(start.elapsed())));
            }
            end(child, start.elapsed())
        }),
        ("wait-timeout", |limit| {
            let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
            let start = Instant::now();
            assert!(child.wait_timeout(limit).unwrap().is_none());
            end(child, start.elapsed())
        }),
        ("subprocess", |limit| {
            let job = subprocess::Exec::cmd("sleep").arg("10").start().unwrap();
            let start = Instant::now();
            assert!(job.wait_timeout(limit).unwrap().is_none());
            let elapsed = start.elapsed();
            job.kill().unwrap();
            elapsed
        }),
        ("duct", |limit| {
            let handle = duct::cmd!("sleep", "10").unchecked().start().unwrap();
            let start = Instant::now();
            assert!(handle.wait_timeout(limit).unwrap().is_none());
            let elapsed = start.elapsed();
            handle.kill().unwrap();
            elapsed
        }),
        ("tokio current-thread", |limit| {
            runtime().block_on(async {
                let mut child = tokio::process::Command::new("sleep").arg("10").spawn().unwrap();
                let start = Instant::now();
                assert!(tokio::time::timeout(limit, child.wait()).await.is_err());
                let elapsed = start.elapsed();
                child.kill().await.unwrap();
                elapsed
            })
        }),
    ];
    let title =
        format!("a limit of {limit:?} on `sleep 10`: µs late, and early if negative; {} rounds", options.rounds);
    let mut table = Table::new(&title, &["", "µs late", "earliest", "latest"]);
    for (name, samples) in run(options, &contestants, limit) {
        let late: Vec<f64> = samples.iter().map(|took| (took - limit.as_secs_f64()) * 1e6).collect();
        let earliest = late.iter().copied().fold(f64::INFINITY, f64::min);
        let latest = late.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        table.row(&[name.to_owned(), number(median(&late)), number(earliest), number(latest)]);
    }
    table.print();
}

fn end(mut child: std::process::Child, elapsed: Duration) -> Duration {
    child.kill().unwrap();
    child.wait().unwrap();
    elapsed
}

fn seen(options: &Options) {
    let contestants: [(&str, Work); 7] = [
        ("procession wait_timeout", |limit| {
            let start = Instant::now();
            let mut child = procession::Command::new("sleep").arg("0.05").spawn().unwrap();
            assert!(child.wait_timeout(limit).unwrap().is_some());
            start.elapsed()
        }),
        ("procession output with timeout", |limit| {
            let start = Instant::now();
            procession::Command::new("sleep").arg("0.05").timeout(limit).output().unwrap();
            start.elapsed()
        }),
        ("std, try_wait every 10 ms", |_| {
            let start = Instant::now();
            let mut child = std::process::Command::new("sleep").arg("0.05").spawn().unwrap();
            while child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(10));
            }
            start.elapsed()
        }),
        ("wait-timeout", |limit| {
            let start = Instant::now();
            let mut child = std::process::Command::new("sleep").arg("0.05").spawn().unwrap();
            assert!(child.wait_timeout(limit).unwrap().is_some());
            start.elapsed()
        }),
        ("subprocess", |limit| {
            let start = Instant::now();
            let job = subprocess::Exec::cmd("sleep").arg("0.05").start().unwrap();
            assert!(job.wait_timeout(limit).unwrap().is_some());
            start.elapsed()
        }),
        ("duct", |limit| {
            let start = Instant::now();
            let handle = duct::cmd!("sleep", "0.05").start().unwrap();
            assert!(handle.wait_timeout(limit).unwrap().is_some());
            start.elapsed()
        }),
        ("tokio current-thread", |limit| {
            runtime().block_on(async {
                let start = Instant::now();
                let mut command = tokio::process::Command::new("sleep");
                let mut child = command.arg("0.05").stdin(Stdio::inherit()).spawn().unwrap();
                assert!(tokio::time::timeout(limit, child.wait()).await.unwrap().unwrap().success());
                start.elapsed()
            })
        }),
    ];
    let title = format!("`sleep 0.05` under a limit of 10 s: ms until its end is seen; {} rounds", options.rounds);
    let mut table = Table::new(&title, &["", "ms", "beyond 50 ms, µs"]);
    for (name, samples) in run(options, &contestants, LONG) {
        let took = median(&samples);
        table.row(&[name.to_owned(), number(took * 1e3), number((took - SHORT_SLEEP.as_secs_f64()) * 1e6)]);
    }
    table.print();
}

/// Seconds of each round of each contestant.
fn run(options: &Options, contestants: &[(&'static str, Work)], limit: Duration) -> Vec<(&'static str, Vec<f64>)> {
    let wanted = contestants.iter().filter(|(name, _)| options.wants(name));
    let mut rows: Vec<(&str, Work, Vec<f64>)> = wanted.map(|&(name, work)| (name, work, Vec::new())).collect();
    for round in 0..options.rounds {
        for place in order(round, rows.len()) {
            let (_, work, samples) = &mut rows[place];
            samples.push(work(limit).as_secs_f64());
        }
    }
    rows.into_iter().map(|(name, _, samples)| (name, samples)).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
