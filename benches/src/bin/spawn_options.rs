//! What do rights, limits, a session and a directory cost, and how does it grow with the memory of the parent? For root.

use procession::Resource;
use procession_benches::tiny::Tiny;
use procession_benches::{Contestant, Measured, Options, Table, contestant, measure, median, number};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use subprocess::ExecExt;

/// Nobody.
const ID: u32 = 65534;
const LIMIT: u64 = 512;
const MEMORY: usize = 1 << 30;

fn main() {
    let options = Options::parse(5);
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    assert!(root, "only root can change the user of a child");
    let tiny = Tiny::new();
    let path = tiny.path();
    let small = measure(&options, options.pick(200, 20), contestants(path));
    // What counts is memory that was written to, in pages of the usual size.
    let memory = vec![1_u8; MEMORY];
    let big = measure(&options, options.pick(20, 3), contestants(path));
    assert_eq!(std::hint::black_box(&memory).len(), MEMORY);
    let title =
        "spawn and wait with user, group, groups, directory, session and limits; a small parent and one with 1 GiB";
    let mut table =
        Table::new(title, &["", "small µs", "1 GiB µs", "big / small", "1 GiB / ours", "own CPU µs at 1 GiB"]);
    let ours = median(&big[0].wall);
    for (small, big) in small.iter().zip(&big) {
        table.row(&row(small, big, ours));
    }
    table.print();
}

fn row(small: &Measured, big: &Measured, ours: f64) -> [String; 6] {
    let (one, other) = (median(&small.wall), median(&big.wall));
    let cpu = median(&big.cpu);
    [small.name.to_owned(), number(one), number(other), number(other / one), number(other / ours), number(cpu)]
}

fn contestants(path: &Path) -> Vec<Contestant<'_>> {
    let ours = procession::Command::new(path)
        .user(ID)
        .group(ID)
        .groups([ID])
        .current_dir("/")
        .setsid()
        .limit(Resource::Nofile, LIMIT, LIMIT)
        .limit(Resource::Core, 0, 0);
    let plain = procession::Command::new(path);
    let mut std = std::process::Command::new(path);
    let mut std_user = std::process::Command::new(path);
    // Its groups are cleared by std when root changes the user; a session and limits are not on offer.
    std_user.uid(ID).gid(ID).current_dir("/").process_group(0);
    let mut std_hook = std::process::Command::new(path);
    std_hook.uid(ID).gid(ID).current_dir("/");
    // SAFETY: system calls only.
    unsafe { std_hook.pre_exec(session_and_limits) };
    let word = path.to_str().unwrap();
    vec![
        contestant("procession", move || assert!(ours.spawn().unwrap().wait().unwrap().success())),
        contestant("procession, nothing set", move || assert!(plain.spawn().unwrap().wait().unwrap().success())),
        contestant("std, nothing set", move || assert!(std.spawn().unwrap().wait().unwrap().success())),
        contestant("std, uid and gid", move || assert!(std_user.spawn().unwrap().wait().unwrap().success())),
        contestant("std, uid, gid and pre_exec", move || assert!(std_hook.spawn().unwrap().wait().unwrap().success())),
        contestant("subprocess, setuid, setgid and setpgid", move || {
            let command = subprocess::Exec::cmd(word).setuid(ID).setgid(ID).setpgid().cwd("/");
            assert!(command.start().unwrap().wait().unwrap().success());
        }),
    ]
}

fn session_and_limits() -> io::Result<()> {
    let limits = [(libc::RLIMIT_NOFILE, LIMIT), (libc::RLIMIT_CORE, 0)];
    // SAFETY: no arguments.
    let mut failed = unsafe { libc::setsid() } < 0;
    for (resource, limit) in limits {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: the limit lives during the call.
        failed |= unsafe { libc::setrlimit(resource, &limit) } < 0;
    }
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
