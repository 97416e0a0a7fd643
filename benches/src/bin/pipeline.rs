//! What do commands joined by pipes cost, beside a shell that joins the same commands: many short runs, and many bytes? What does a
//! Rust function between two commands cost beside a `cat` in its place, and a copy into a file beside `tee`?

use procession::{Command, Filter, Stdio, Target};
use procession_benches::tiny::Tiny;
use procession_benches::{Contestant, Options, contestant, measure, report, report_rate, source};
use std::path::Path;
use std::process;

const SIZE: usize = 1 << 30;
const TEE_SIZE: usize = 256 << 20;

fn main() {
    source::write_if_asked();
    let options = Options::parse(5);
    let case = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let options = Options { only: None, ..options.clone() };
    if case("short") {
        short(&options);
    }
    if case("bytes") {
        bytes(&options);
    }
    if case("filter") {
        filter(&options);
    }
    if case("tee") {
        tee(&options);
    }
}

/// Three programs that end at once.
fn short(options: &Options) {
    let tiny = Tiny::new();
    let path = tiny.path();
    let line = format!("{0} | {0} | {0}", path.display());
    let ours = Command::new(path) | Command::new(path) | Command::new(path);
    let ours_collected = ours.clone();
    let duct = || duct::cmd!(path).pipe(duct::cmd!(path)).pipe(duct::cmd!(path));
    let subprocess = || subprocess::Exec::cmd(path) | subprocess::Exec::cmd(path) | subprocess::Exec::cmd(path);
    let contestants = vec![
        contestant("procession", move || assert!(ours.call().unwrap().success())),
        contestant("procession, output", move || assert!(ours_collected.output().unwrap().success())),
        contestant("sh", || {
            let mut sh = process::Command::new("/bin/sh");
            assert!(sh.args(["-c", &line]).status().unwrap().success());
        }),
        contestant("std", || {
            let mut children: Vec<process::Child> = Vec::new();
            for place in 0..3 {
                let mut command = process::Command::new(path);
                if let Some(before) = children.last_mut().and_then(|child| child.stdout.take()) {
                    command.stdin(before);
                }
                if place < 2 {
                    command.stdout(process::Stdio::piped());
                }
                children.push(command.spawn().unwrap());
            }
            assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
        }),
        contestant("duct", || assert!(duct().run().unwrap().status.success())),
        contestant("subprocess", || assert!(subprocess().join().unwrap().success())),
    ];
    let title = format!("3 stages that end at once, {} rounds", options.rounds);
    report(&title, &measure(options, options.pick(200, 20), contestants));
}

/// From the source through two `cat`s to the null device: all that a parent does is to wait.
fn bytes(options: &Options) {
    let size = options.pick(SIZE, SIZE / 16);
    let (path, words) = source::command(size);
    let null = || std::fs::File::options().write(true).open("/dev/null").unwrap();
    let sh = shell(&path, &words, "| cat | cat > /dev/null");
    let sh_seen = Command::shell(line(&path, &words, "| cat | cat"));
    let (gen_, cat) = (Command::new(path.as_path()).args(words.clone()), || Command::new("cat"));
    let to_null = gen_.clone() | cat() | cat().stdout(Stdio::null());
    let seen = gen_ | cat() | cat();
    let contestants: Vec<Contestant<'_>> = vec![
        contestant("procession", || assert!(to_null.call().unwrap().success())),
        contestant("procession, for_each_chunk", || {
            let mut count = 0;
            seen.for_each_chunk(|_, bytes| count += bytes.len()).unwrap().check().unwrap();
            assert_eq!(count, size);
        }),
        contestant("sh, for_each_chunk", || {
            let mut count = 0;
            sh_seen.for_each_chunk(|_, bytes| count += bytes.len()).unwrap().check().unwrap();
            assert_eq!(count, size);
        }),
        contestant("sh", sh),
        contestant("duct", || {
            let whole = duct::cmd(&path, &words).pipe(duct::cmd!("cat")).pipe(duct::cmd!("cat"));
            assert!(whole.stdout_null().run().unwrap().status.success());
        }),
        contestant("subprocess", || {
            let cat = || subprocess::Exec::cmd("cat");
            let whole = subprocess::Exec::cmd(&path).args(&words) | cat() | cat();
            assert!(whole.stdout(null()).join().unwrap().success());
        }),
    ];
    let title = format!("{} MiB through 3 stages, {} rounds", size >> 20, options.rounds);
    report_rate(&title, &measure(options, 1, contestants), (size >> 20) as f64, "MiB", &["sh"]);
}

/// From the source through a function or a `cat` to another `cat`.
fn filter(options: &Options) {
    let size = options.pick(SIZE / 4, SIZE / 16);
    let (path, words) = source::command(size);
    let (gen_, cat) = (Command::new(path.as_path()).args(words.clone()), Command::new("cat"));
    let last = cat.clone().stdout(Stdio::null());
    let copy = Filter::new(|piece, out| {
        out.extend_from_slice(piece.unwrap_or_default());
        Ok(())
    });
    let plain = gen_.clone() | cat | last.clone();
    let pieces = gen_.clone() | copy | last.clone();
    let lines = gen_.clone() | Filter::keep_lines(|line| line.len() == 7) | last.clone();
    let grep = gen_ | Command::new("grep").arg("^.......$").env("LC_ALL", "C") | last;
    let contestants: Vec<Contestant<'_>> = vec![
        contestant("procession, cat between", || assert!(plain.call().unwrap().success())),
        contestant("procession, filter between", || assert!(pieces.call().unwrap().success())),
        contestant("sh, cat between", shell(&path, &words, "| cat | cat > /dev/null")),
        contestant("procession, filter of lines", || assert!(lines.call().unwrap().success())),
        contestant("procession, grep between", || assert!(grep.call().unwrap().success())),
    ];
    let title = format!("{} MiB through a filter, {} rounds", size >> 20, options.rounds);
    report_rate(&title, &measure(options, 1, contestants), (size >> 20) as f64, "MiB", &["sh, cat between"]);
}

/// From the source into a file, and to somebody who looks on.
fn tee(options: &Options) {
    let size = options.pick(TEE_SIZE, TEE_SIZE / 4);
    let (path, words) = source::command(size);
    let directory = Tiny::new();
    let file = directory.path().with_file_name("copy");
    let gen_ = Command::new(path.as_path()).args(words.clone()).stderr(Stdio::inherit());
    let teed = gen_.clone().tee_stdout(Target::write(&file));
    let direct = gen_.clone().stdout(Stdio::write(&file));
    let teed_null = gen_.tee_stdout(Target::write("/dev/null"));
    let checked = || assert_eq!(std::fs::metadata(&file).unwrap().len(), size as u64);
    let sh_tee = shell(&path, &words, &format!("| tee {} > /dev/null", file.display()));
    let sh_tee_null = shell(&path, &words, "| tee /dev/null > /dev/null");
    let contestants: Vec<Contestant<'_>> = vec![
        contestant("procession, file", || {
            assert!(teed.call().unwrap().success());
            checked();
        }),
        contestant("sh | tee file", || {
            sh_tee();
            checked();
        }),
        contestant("the child by itself", || {
            assert!(direct.call().unwrap().success());
            checked();
        }),
        contestant("procession, /dev/null", || assert!(teed_null.call().unwrap().success())),
        contestant("sh | tee /dev/null", sh_tee_null),
    ];
    let title = format!("{} MiB with a copy, {} rounds", size >> 20, options.rounds);
    let references = ["sh | tee file", "sh | tee /dev/null"];
    report_rate(&title, &measure(options, 1, contestants), (size >> 20) as f64, "MiB", &references);
}

/// The source in front of the rest of a line.
fn line(path: &Path, words: &[String], rest: &str) -> String {
    format!("{} {} {rest}", procession::quote(path), words.join(" "))
}

/// Such a line, run by the system's shell.
fn shell(path: &Path, words: &[String], rest: &str) -> impl Fn() + use<> {
    let line = line(path, words, rest);
    move || assert!(process::Command::new("/bin/sh").args(["-c", &line]).status().unwrap().success())
}
