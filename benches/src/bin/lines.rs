//! How fast is a program's output cut into lines? Twenty million lines of eight bytes; every line is looked at.

use procession::{Command, Stdio};
use procession_benches::{Contestant, Options, contestant, measure, report_rate, source};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::process;

const LINES: usize = 20_000_000;

/// What is done with each line by everybody, to be compared at the end.
#[derive(Default)]
struct Seen {
    lines: usize,
    bytes: usize,
}

impl Seen {
    #[inline]
    fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        self.bytes += black_box(line).len();
    }
}

fn main() {
    source::write_if_asked();
    let options = Options::parse(5);
    let lines = options.pick(LINES, LINES / 20);
    let (path, words) = source::command(lines * 8);
    let ours = Command::new(path.as_path()).args(words.clone()).stderr(Stdio::inherit());
    let check = |seen: Seen| assert_eq!((seen.lines, seen.bytes), (lines, lines * 7));

    let std = || {
        let mut child = process::Command::new(&path).args(&words).stdout(process::Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        (child, stdout)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tokio = || {
        let mut command = tokio::process::Command::new(&path);
        let mut child = command.args(&words).stdout(process::Stdio::piped()).spawn().unwrap();
        let stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
        (child, stdout)
    };
    let until = |mut reader: Box<dyn BufRead>| {
        let (mut seen, mut line) = (Seen::default(), Vec::new());
        while reader.read_until(b'\n', &mut line).unwrap() > 0 {
            seen.line(&line[..line.len() - 1]);
            line.clear();
        }
        check(seen);
    };

    let contestants: Vec<Contestant<'_>> = vec![
        contestant("procession, for_each_line", || {
            let mut seen = Seen::default();
            ours.for_each_line(|line| seen.line(line.bytes())).unwrap().check().unwrap();
            check(seen);
        }),
        contestant("procession, next_line", || {
            let mut seen = Seen::default();
            let mut child = ours.clone().stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = child.lines();
            while let Some(line) = lines.next_line().unwrap() {
                seen.line(line.bytes());
            }
            drop(lines);
            assert!(child.wait().unwrap().success());
            check(seen);
        }),
        contestant("procession, iterator", || {
            let mut seen = Seen::default();
            let mut child = ours.clone().stdout(Stdio::piped()).spawn().unwrap();
            child.lines().for_each(|line| seen.line(line.unwrap().bytes()));
            assert!(child.wait().unwrap().success());
            check(seen);
        }),
        contestant("std, read_until", || {
            let (mut child, stdout) = std();
            until(Box::new(BufReader::new(stdout)));
            assert!(child.wait().unwrap().success());
        }),
        contestant("std, lines", || {
            let ((mut child, stdout), mut seen) = (std(), Seen::default());
            BufReader::new(stdout).lines().for_each(|line| seen.line(line.unwrap().as_bytes()));
            assert!(child.wait().unwrap().success());
            check(seen);
        }),
        contestant("tokio, read_until", || {
            use tokio::io::AsyncBufReadExt;
            runtime.block_on(async {
                let ((mut child, mut stdout), mut seen, mut line) = (tokio(), Seen::default(), Vec::new());
                while stdout.read_until(b'\n', &mut line).await.unwrap() > 0 {
                    seen.line(&line[..line.len() - 1]);
                    line.clear();
                }
                assert!(child.wait().await.unwrap().success());
                check(seen);
            });
        }),
        contestant("tokio, lines", || {
            use tokio::io::AsyncBufReadExt;
            runtime.block_on(async {
                let ((mut child, stdout), mut seen) = (tokio(), Seen::default());
                let mut lines = stdout.lines();
                while let Some(line) = lines.next_line().await.unwrap() {
                    seen.line(line.as_bytes());
                }
                assert!(child.wait().await.unwrap().success());
                check(seen);
            });
        }),
        contestant("duct, read_until", || {
            until(Box::new(BufReader::new(duct::cmd(&path, &words).reader().unwrap())));
        }),
        contestant("subprocess, read_until", || {
            let stream = subprocess::Exec::cmd(&path).args(&words).stream_stdout().unwrap();
            until(Box::new(BufReader::new(stream)));
        }),
        // Nobody can be faster than reading and looking at each byte, into a pipe as large as ours.
        contestant("bound: read and count", || {
            let (mut child, mut stdout) = std();
            resize(&stdout, 256 * 1024);
            let (mut buffer, mut seen) = (vec![0; 256 * 1024], 0);
            loop {
                match stdout.read(&mut buffer).unwrap() {
                    0 => break,
                    count => seen += count_ends(&buffer[..count]),
                }
            }
            assert!(child.wait().unwrap().success());
            assert_eq!(seen, lines);
        }),
    ];
    let title = format!("{} lines of 8 bytes, {} rounds", lines, options.rounds);
    let measured = measure(&options, 1, contestants);
    let references = ["std, read_until", "std, lines", "tokio, lines"];
    report_rate(&title, &measured, lines as f64 / 1e6, "M lines", &references);
}

/// In sums of one byte, which the compiler puts into wide registers.
fn count_ends(bytes: &[u8]) -> usize {
    let count = |piece: &[u8]| piece.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
    bytes.chunks(192).map(|piece| usize::from(count(piece))).sum()
}

fn resize(pipe: &impl std::os::fd::AsRawFd, size: i32) {
    // SAFETY: F_SETPIPE_SZ takes an integer.
    assert!(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, size) } > 0);
}
