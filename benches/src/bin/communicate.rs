//! How fast do bytes go through a filter (`cat`) and back, at which price in processor time and memory? Every contestant runs in
//! a process of its own, and the bytes are checked.

use procession_benches::{Options, Table, apart, median, number, order};
use std::io::{Read, Write};
use std::process::Stdio;

const MIB: usize = 1 << 20;
/// (what it is called, bytes, calls per process, the same when quick)
const SIZES: [(&str, usize, usize, usize); 3] =
    [("256 MiB", 256 * MIB, 1, 1), ("1 MiB", MIB, 40, 5), ("1 KiB", 1024, 200, 20)];

type Work = fn(Vec<u8>) -> Vec<u8>;

const CONTESTANTS: [(&str, Work); 7] = [
    ("procession", procession),
    ("procession, child", procession_child),
    ("std", std_thread),
    ("subprocess", subprocess),
    ("duct", duct),
    ("tokio current-thread", tokio_current_thread),
    ("tokio multi-thread", tokio_multi_thread),
];

fn main() {
    let options = Options::parse(7);
    if let Some(word) = apart::asked() {
        return tell(&word, &options);
    }
    for (size_name, size, ..) in SIZES {
        if options.only.as_deref().is_some_and(|only| only.ends_with("iB") && only != size_name) {
            continue;
        }
        let only = options.only.as_deref().filter(|only| !only.ends_with("iB"));
        let wanted = CONTESTANTS.iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only)));
        let mut samples: Vec<(&str, Vec<apart::Sample>)> = wanted.map(|(name, _)| (*name, Vec::new())).collect();
        for round in 0..options.rounds {
            for place in order(round, samples.len()) {
                let (name, samples) = &mut samples[place];
                samples.push(apart::measure(&format!("{name}/{size_name}")));
            }
        }
        print(size_name, size, &samples, options.rounds);
    }
}

fn print(size_name: &str, size: usize, samples: &[(&str, Vec<apart::Sample>)], rounds: usize) {
    let title = format!("{size_name} through cat and back, {rounds} rounds");
    let mut table = Table::new(&title, &["", "ms", "ratio", "best ms", "MiB/s", "own CPU ms", "peak MiB"]);
    let of = |samples: &[apart::Sample], what: fn(&apart::Sample) -> f64| {
        median(&samples.iter().map(what).collect::<Vec<_>>())
    };
    let reference = samples.iter().find(|(name, _)| *name == "std").map(|(_, samples)| of(samples, |s| s.wall));
    for (name, samples) in samples {
        let wall = of(samples, |sample| sample.wall);
        let best = samples.iter().map(|sample| sample.wall).fold(f64::INFINITY, f64::min);
        table.row(&[
            (*name).to_owned(),
            number(wall / 1e3),
            reference.map_or("-".to_owned(), |reference| format!("{:.2}", wall / reference)),
            number(best / 1e3),
            number(size as f64 / MIB as f64 / (wall / 1e6)),
            number(of(samples, |sample| sample.cpu) / 1e3),
            number(of(samples, |sample| sample.peak) / 1024.0),
        ]);
    }
    table.print();
}

fn tell(word: &str, options: &Options) {
    let (name, size_name) = word.rsplit_once('/').unwrap();
    let (_, work) = CONTESTANTS.iter().find(|(other, _)| *other == name).unwrap();
    let (_, size, calls, quick) = *SIZES.iter().find(|(other, ..)| *other == size_name).unwrap();
    apart::tell(options.pick(calls, quick), || make(size), work, |output| check(&output, size));
}

/// No byte twice in the same place: the pattern is as long as a prime.
fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..65_521).map(next).collect()
}

fn make(size: usize) -> Vec<u8> {
    let pattern = pattern();
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let count = pattern.len().min(size - bytes.len());
        bytes.extend_from_slice(&pattern[..count]);
    }
    bytes
}

fn check(bytes: &[u8], size: usize) {
    assert_eq!(bytes.len(), size);
    let pattern = pattern();
    assert!(bytes.chunks(pattern.len()).all(|chunk| chunk == &pattern[..chunk.len()]), "wrong bytes");
}

// ---- the contestants: standard error is inherited by all ----

fn procession(input: Vec<u8>) -> Vec<u8> {
    let command = procession::Command::new("cat").input(input).stderr(procession::Stdio::inherit());
    command.output().unwrap().check().unwrap().into_stdout()
}

fn procession_child(input: Vec<u8>) -> Vec<u8> {
    let piped = procession::Stdio::piped;
    let mut child = procession::Command::new("cat").stdin(piped()).stdout(piped()).spawn().unwrap();
    child.communicate(input).unwrap().check().unwrap().into_stdout()
}

fn std_thread(input: Vec<u8>) -> Vec<u8> {
    let mut command = std::process::Command::new("cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    output
}

fn subprocess(input: Vec<u8>) -> Vec<u8> {
    let capture = subprocess::Exec::cmd("cat").stdin(input).stdout(subprocess::Redirection::Pipe).capture();
    let capture = capture.unwrap();
    assert!(capture.success());
    capture.stdout
}

fn duct(input: Vec<u8>) -> Vec<u8> {
    duct::cmd("cat", [] as [&str; 0]).stdin_bytes(input).stdout_capture().run().unwrap().stdout
}

fn tokio_current_thread(input: Vec<u8>) -> Vec<u8> {
    use std::cell::OnceCell;
    thread_local! {
        static RUNTIME: OnceCell<tokio::runtime::Runtime> = const { OnceCell::new() };
    }
    RUNTIME.with(|cell| {
        let make = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        cell.get_or_init(make).block_on(tokio_talk(input))
    })
}

fn tokio_multi_thread(input: Vec<u8>) -> Vec<u8> {
    use std::sync::OnceLock;
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let make = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    RUNTIME.get_or_init(make).block_on(tokio_talk(input))
}

async fn tokio_talk(input: Vec<u8>) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut command = tokio::process::Command::new("cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let writer = tokio::spawn(async move { stdin.write_all(&input).await.unwrap() });
    let mut output = Vec::new();
    stdout.read_to_end(&mut output).await.unwrap();
    writer.await.unwrap();
    assert!(child.wait().await.unwrap().success());
    output
}
