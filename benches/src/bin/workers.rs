//! A request to a command that lives on, against a process for each request. What answers is `cat`, which is quick to start: with an interpreter the
//! difference grows by its start. `WIDTH=` for another number of workers than 2.

use procession::pool::WorkerPool;
use procession::{Command, Pool};
use procession_benches::{Options, contestant, measure, report};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

fn main() {
    let options = Options::parse(5);
    let width = std::env::var("WIDTH").ok().and_then(|width| width.parse().ok()).unwrap_or(2);
    let count = options.pick(20_000, 500);
    let workers = WorkerPool::new(width, Command::new("/bin/cat")).unwrap();
    workers.apply("hello").unwrap();
    let mut child =
        std::process::Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let contestants = vec![
        contestant("procession WorkerPool::map", || {
            let requests = (0..count).map(|number| number.to_string());
            assert_eq!(workers.map(requests).unwrap().len(), count);
        }),
        contestant("procession WorkerPool::apply", || {
            for number in 0..count {
                assert_eq!(workers.apply_text(number.to_string()).unwrap(), number.to_string());
            }
        }),
        contestant("procession Pool::imap, a process each", || {
            let pool = Pool::new(width);
            let commands = (0..count / 10).map(|number| Command::new("/bin/cat").input(number.to_string()));
            assert!(pool.imap(commands).all(|done| done.output().success()));
        }),
        contestant("std, one cat, write and read_line", || {
            let mut line = String::new();
            for number in 0..count {
                line.clear();
                writeln!(input, "{number}").unwrap();
                output.read_line(&mut line).unwrap();
                assert_eq!(line.trim_end(), number.to_string());
            }
        }),
    ];
    let title =
        format!("{count} requests (a process each: {}), {width} workers, {} rounds", count / 10, options.rounds);
    report(&title, &measure(&options, 1, contestants));
    drop((input, output));
    child.wait().unwrap();
}
