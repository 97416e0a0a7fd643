//! What does it cost to start a program from a parent with ten thousand open descriptors, and from the same parent with few?

use procession_benches::tiny::Tiny;
use procession_benches::{Options, contestant, measure, report};
use std::fs::File;
use std::path::Path;

const COUNT: usize = 10_000;

fn main() {
    let options = Options::parse(7);
    raise_limit();
    let tiny = Tiny::new();
    compare(&options, tiny.path(), "few");
    let null = File::open("/dev/null").unwrap();
    let files: Vec<File> = (0..COUNT).map(|_| null.try_clone().unwrap()).collect();
    compare(&options, tiny.path(), &files.len().to_string());
}

fn compare(options: &Options, path: &Path, count: &str) {
    let ours = procession::Command::new(path);
    let inheriting = ours.clone().inherit_fds();
    let mut std = std::process::Command::new(path);
    let word = path.to_str().unwrap();
    let contestants = vec![
        contestant("procession", move || assert!(ours.spawn().unwrap().wait().unwrap().success())),
        contestant("procession, inherit_fds", move || assert!(inheriting.spawn().unwrap().wait().unwrap().success())),
        contestant("std", move || assert!(std.spawn().unwrap().wait().unwrap().success())),
        contestant("subprocess", || assert!(subprocess::Exec::cmd(word).start().unwrap().wait().unwrap().success())),
    ];
    let title = format!("spawn and wait with {count} descriptors open, {} rounds", options.rounds);
    report(&title, &measure(options, options.pick(100, 10), contestants));
}

/// As many descriptors as the hard limit allows, and more if this is root.
fn raise_limit() {
    let wanted = COUNT as u64 + 100;
    // SAFETY: limits are plain integers, and the pointers are valid.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = wanted.max(limit.rlim_cur);
        limit.rlim_max = limit.rlim_max.max(limit.rlim_cur);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0, "RLIMIT_NOFILE cannot be raised to {wanted}");
    }
}
