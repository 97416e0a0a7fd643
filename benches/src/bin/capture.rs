//! How fast is a large output taken, at which price? One gibibyte: into fresh memory, into a buffer that has been used before, and
//! by whoever wants to see it only once. Every contestant runs in a process of its own.

use procession::{Command, Stdio};
use procession_benches::{Options, Table, apart, median, number, order, source};
use std::cell::RefCell;
use std::io::Read;
use std::process;

const SIZE: usize = 1 << 30;

thread_local! {
    /// Memory that one run leaves to the next.
    static USED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Returns how many bytes were seen.
type Work = fn() -> usize;

/// (what it is called, whether its memory has been used before, what it does)
const CONTESTANTS: [(&str, bool, Work); 11] = [
    ("procession, fresh", false, || ours().output().unwrap().check().unwrap().into_stdout().len()),
    ("procession, reused", true, || {
        USED.with_borrow_mut(|buffer| {
            ours().output_into(buffer).unwrap().check().unwrap();
            buffer.len()
        })
    }),
    ("procession, streamed", false, || {
        let mut seen = 0;
        ours().for_each_chunk(|_, bytes| seen += bytes.len()).unwrap().check().unwrap();
        seen
    }),
    ("procession, chunks", false, || {
        let (mut seen, mut child) = (0, ours().stdout(Stdio::piped()).spawn().unwrap());
        let mut chunks = child.chunks();
        while let Some((_, bytes)) = chunks.next_chunk().unwrap() {
            seen += bytes.len();
        }
        drop(chunks);
        assert!(child.wait().unwrap().success());
        seen
    }),
    ("std, fresh", false, || std().output().unwrap().stdout.len()),
    ("std, reused", true, || {
        USED.with_borrow_mut(|buffer| {
            buffer.clear();
            let mut child = std().spawn().unwrap();
            child.stdout.take().unwrap().read_to_end(buffer).unwrap();
            assert!(child.wait().unwrap().success());
            buffer.len()
        })
    }),
    ("std, streamed", false, || {
        let (mut seen, mut buffer) = (0, vec![0; 64 * 1024]);
        let mut child = std().spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        loop {
            match stdout.read(&mut buffer).unwrap() {
                0 => break,
                count => seen += count,
            }
        }
        assert!(child.wait().unwrap().success());
        seen
    }),
    ("subprocess, fresh", false, || {
        let (path, words) = source::command(SIZE);
        let command = subprocess::Exec::cmd(path).args(words).stdout(subprocess::Redirection::Pipe);
        command.capture().unwrap().stdout.len()
    }),
    ("duct, fresh", false, || {
        let (path, words) = source::command(SIZE);
        duct::cmd(path, words).stdout_capture().run().unwrap().stdout.len()
    }),
    ("tokio, fresh", false, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (path, words) = source::command(SIZE);
        let mut command = tokio::process::Command::new(path);
        command.args(words).stderr(process::Stdio::inherit());
        runtime.block_on(async { command.output().await }).unwrap().stdout.len()
    }),
    // Nobody can be faster than a pipe and a buffer that fit the cache.
    ("bound: one buffer", false, || {
        use std::os::fd::AsRawFd;
        let (mut seen, mut buffer) = (0, vec![0; 256 * 1024]);
        let mut child = std().spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        // SAFETY: F_SETPIPE_SZ takes an integer.
        assert!(unsafe { libc::fcntl(stdout.as_raw_fd(), libc::F_SETPIPE_SZ, 256 * 1024) } > 0);
        loop {
            match stdout.read(&mut buffer).unwrap() {
                0 => break,
                count => seen += count,
            }
        }
        assert!(child.wait().unwrap().success());
        seen
    }),
];

fn ours() -> Command {
    let (path, words) = source::command(SIZE);
    // The default limit is what is captured here, to the byte.
    Command::new(path).args(words).stderr(Stdio::inherit())
}

fn std() -> process::Command {
    let (path, words) = source::command(SIZE);
    let mut command = process::Command::new(path);
    command.args(words).stdout(process::Stdio::piped()).stderr(process::Stdio::inherit());
    command
}

fn main() {
    source::write_if_asked();
    let options = Options::parse(3);
    if let Some(name) = apart::asked() {
        let (_, reused, work) = CONTESTANTS.iter().find(|(other, ..)| *other == name).unwrap();
        // More than one call: the first does not count.
        let calls = if *reused { 2 } else { 1 };
        return apart::tell(calls, || (), |()| work(), |seen| assert_eq!(seen, SIZE));
    }
    let title = format!("1 GiB captured, {} rounds", options.rounds);
    let mut table = Table::new(&title, &["", "s", "MiB/s", "own CPU s", "peak MiB", "x std, fresh"]);
    let wanted = CONTESTANTS.iter().filter(|(name, ..)| options.wants(name));
    let mut rows: Vec<(&str, Vec<apart::Sample>)> = wanted.map(|(name, ..)| (*name, Vec::new())).collect();
    for round in 0..options.rounds {
        for place in order(round, rows.len()) {
            let (name, samples) = &mut rows[place];
            samples.push(apart::measure(name));
        }
    }
    let of = |samples: &[apart::Sample], what: fn(&apart::Sample) -> f64| {
        median(&samples.iter().map(what).collect::<Vec<_>>())
    };
    let reference = rows.iter().find(|(name, _)| *name == "std, fresh").map(|(_, samples)| of(samples, |s| s.wall));
    for (name, samples) in &rows {
        let wall = of(samples, |sample| sample.wall);
        let (cpu, peak) = (of(samples, |sample| sample.cpu) / 1e6, of(samples, |sample| sample.peak) / 1024.0);
        table.row(&[
            (*name).to_owned(),
            number(wall / 1e6),
            number(1024.0 / (wall / 1e6)),
            number(cpu),
            number(peak),
            reference.map_or("-".to_owned(), |reference| format!("{:.2}", reference / wall)),
        ]);
    }
    table.print();
}
