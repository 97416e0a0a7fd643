//! What do thousands of children cost that live at the same time? Some that are fed and read, and some that sleep and then say
//! something; and does the time grow with their number, or faster? Every contestant runs in a process of its own.

use procession::{ChildSet, Command, Stdio};
use procession_benches::{Options, Table, apart, median, number, order};
use std::io::{Read, Write};
use std::process;
use std::time::Duration;

/// What each `cat` gets and gives back.
const MESSAGE: usize = 1024;
const WORD: &str = "sleeper";

/// Lets so many children live at once, and returns how many bytes they have written.
type Work = fn(usize) -> usize;

const CATS: [(&str, Work); 5] = [
    ("procession", |count| {
        let mut set = ChildSet::new().unwrap();
        let cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped());
        let keys: Vec<_> = (0..count).map(|_| set.insert(cat.spawn().unwrap()).unwrap()).collect();
        let message = std::sync::Arc::new(vec![b'x'; MESSAGE]);
        for key in keys {
            set.feed(key, procession::Input::from(message.to_vec())).unwrap();
            set.end_input(key);
        }
        sum(set.wait_all().unwrap())
    }),
    ("procession, start", |count| {
        let mut set = ChildSet::new().unwrap();
        let cat = Command::new("cat").input(vec![b'x'; MESSAGE]).stderr(Stdio::inherit());
        for _ in 0..count {
            set.start(&cat).unwrap();
        }
        sum(set.wait_all().unwrap())
    }),
    ("std, in sequence", |count| {
        let cat = |_| {
            let mut command = process::Command::new("cat");
            command.stdin(process::Stdio::piped()).stdout(process::Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<process::Child> = (0..count).map(cat).collect();
        let mut sum = 0;
        for mut child in children {
            child.stdin.take().unwrap().write_all(&[b'x'; MESSAGE]).unwrap();
            let mut bytes = Vec::new();
            child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
            assert!(child.wait().unwrap().success());
            sum += bytes.len();
        }
        sum
    }),
    ("duct", |count| {
        let cat = |_| duct::cmd!("cat").stdin_bytes(vec![b'x'; MESSAGE]).stdout_capture().start().unwrap();
        let handles: Vec<duct::Handle> = (0..count).map(cat).collect();
        handles.iter().map(|handle| handle.wait().unwrap().stdout.len()).sum()
    }),
    ("tokio current-thread", |count| {
        use tokio::io::AsyncWriteExt;
        runtime().block_on(async {
            let cat = |_| {
                let mut command = tokio::process::Command::new("cat");
                command.stdin(process::Stdio::piped()).stdout(process::Stdio::piped()).spawn().unwrap()
            };
            let children: Vec<tokio::process::Child> = (0..count).map(cat).collect();
            let talk = |mut child: tokio::process::Child| async move {
                let mut stdin = child.stdin.take().unwrap();
                stdin.write_all(&[b'x'; MESSAGE]).await.unwrap();
                drop(stdin);
                child.wait_with_output().await.unwrap().stdout.len()
            };
            let tasks: Vec<_> = children.into_iter().map(|child| tokio::spawn(talk(child))).collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.unwrap();
            }
            sum
        })
    }),
];

const SLEEPERS: [(&str, Work); 4] = [
    ("procession", |count| {
        let mut set = ChildSet::new().unwrap();
        let sleeper = Command::new(std::env::current_exe().unwrap().as_path()).arg(WORD).stderr(Stdio::inherit());
        for _ in 0..count {
            set.start(&sleeper).unwrap();
        }
        sum(set.wait_all().unwrap())
    }),
    ("std, in sequence", |count| {
        let sleeper = |_| {
            let mut command = process::Command::new(std::env::current_exe().unwrap());
            command.arg(WORD).stdin(process::Stdio::null()).stdout(process::Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<process::Child> = (0..count).map(sleeper).collect();
        children.into_iter().map(|child| child.wait_with_output().unwrap().stdout.len()).sum()
    }),
    ("duct", |count| {
        let path = std::env::current_exe().unwrap();
        let sleeper = |_| duct::cmd!(&path, WORD).stdin_null().stdout_capture().start().unwrap();
        let handles: Vec<duct::Handle> = (0..count).map(sleeper).collect();
        handles.iter().map(|handle| handle.wait().unwrap().stdout.len()).sum()
    }),
    ("tokio current-thread", |count| {
        runtime().block_on(async {
            let sleeper = |_| {
                let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
                command.arg(WORD).stdin(process::Stdio::null()).stdout(process::Stdio::piped()).spawn().unwrap()
            };
            let children: Vec<tokio::process::Child> = (0..count).map(sleeper).collect();
            let tasks: Vec<_> =
                children.into_iter().map(|child| tokio::spawn(child.wait_with_output())).collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.unwrap().unwrap().stdout.len();
            }
            sum
        })
    }),
];

fn sum(ended: Vec<(procession::ChildKey, Result<procession::Output, procession::Error>)>) -> usize {
    ended.into_iter().map(|(_, result)| result.unwrap().check().unwrap().stdout().len()).sum()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn main() {
    if std::env::args().nth(1).is_some_and(|word| word == WORD) {
        std::thread::sleep(Duration::from_secs(1));
        return println!("awake");
    }
    let options = Options::parse(3);
    if let Some(asked) = apart::asked() {
        return one(&asked);
    }
    let (cats, sleepers) = (options.pick(5000, 300), options.pick(2000, 200));
    let (few, many) = (options.pick(1000, 100), options.pick(4000, 400));
    compare(&options, &format!("{cats} `cat`, each with {MESSAGE} bytes"), "cat", &CATS, cats);
    compare(&options, &format!("{sleepers} children that sleep 1 s and then write"), "sleep", &SLEEPERS, sleepers);
    let title = format!("µs for each of {few} and of {many} `cat`, {} rounds", options.rounds);
    let mut table = Table::new(&title, &["", &few.to_string(), &many.to_string(), "ratio"]);
    for (name, _) in CATS.iter().filter(|(name, _)| options.wants(name)) {
        let each = [few, many].map(|count| {
            let samples: Vec<f64> = (0..options.rounds).map(|_| measured(name, "cat", count).wall).collect();
            median(&samples) / count as f64
        });
        table.row(&[(*name).to_owned(), number(each[0]), number(each[1]), number(each[1] / each[0])]);
    }
    table.print();
}

/// In a process of its own.
fn one(asked: &str) {
    let words: Vec<&str> = asked.split('|').collect();
    let [name, kind, count] = words[..] else { panic!("{asked}") };
    let (contestants, bytes) = if kind == "cat" { (&CATS[..], MESSAGE) } else { (&SLEEPERS[..], "awake\n".len()) };
    let (_, work) = contestants.iter().find(|(other, _)| *other == name).unwrap();
    let count: usize = count.parse().unwrap();
    raise_limit(count);
    apart::tell(1, || (), |()| work(count), |sum| assert_eq!(sum, count * bytes));
}

fn measured(name: &str, kind: &str, count: usize) -> apart::Sample {
    apart::measure(&format!("{name}|{kind}|{count}"))
}

fn compare(options: &Options, title: &str, kind: &str, contestants: &[(&'static str, Work)], count: usize) {
    let wanted = contestants.iter().filter(|(name, _)| options.wants(name));
    let mut rows: Vec<(&str, Vec<apart::Sample>)> = wanted.map(|(name, _)| (*name, Vec::new())).collect();
    for round in 0..options.rounds {
        for place in order(round, rows.len()) {
            let (name, samples) = &mut rows[place];
            samples.push(measured(name, kind, count));
        }
    }
    let of = |samples: &[apart::Sample], what: fn(&apart::Sample) -> f64| {
        median(&samples.iter().map(what).collect::<Vec<_>>())
    };
    let title = format!("{title}, {} rounds", options.rounds);
    let mut table = Table::new(&title, &["", "s", "ratio", "own CPU s", "KiB for each"]);
    let reference = rows.iter().find(|(name, _)| name.starts_with("std")).map(|(_, samples)| of(samples, |s| s.wall));
    for (name, samples) in &rows {
        let wall = of(samples, |sample| sample.wall);
        table.row(&[
            (*name).to_owned(),
            number(wall / 1e6),
            reference.map_or("-".to_owned(), |reference| format!("{:.2}", wall / reference)),
            number(of(samples, |sample| sample.cpu) / 1e6),
            number(of(samples, |sample| sample.peak) / count as f64),
        ]);
    }
    table.print();
}

/// Four descriptors for each child; root may have as many as it wants.
fn raise_limit(count: usize) {
    let wanted = count as u64 * 4 + 100;
    // SAFETY: limits are plain integers, and the pointers are valid.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = wanted.max(limit.rlim_cur);
        limit.rlim_max = limit.rlim_max.max(limit.rlim_cur);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0, "RLIMIT_NOFILE cannot be raised to {wanted}");
    }
}
