//! Which descriptors a child has: 0 to 2 and what was mapped, at the numbers asked for, whatever the parent's own table looks
//! like; and what happens to the parent's, which is nothing.

use crate::inject::supervise;
use crate::support::{Scratch, alone, children, descriptors, fixture, state_of, wait_for};
use nix::sys::resource::{Resource as Nix, getrlimit, setrlimit};
use procession::{Command, ErrorKind, Overflow, Resource, SpawnRoute, Stdio, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the child says it has: number to link and flags.
fn listed(command: &Command) -> BTreeMap<RawFd, (String, String)> {
    let output = command.output().unwrap();
    assert!(output.success(), "{output:?}");
    let text = output.stdout_text().unwrap();
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[0].parse().unwrap(), (words[1..words.len() - 1].join(" "), words[words.len() - 1].to_owned()))
    };
    text.lines().map(line).collect()
}

fn numbers(command: &Command) -> Vec<RawFd> {
    listed(command).into_keys().collect()
}

fn fcntl(fd: RawFd, what: i32, argument: i32) -> i32 {
    // SAFETY: integer arguments.
    unsafe { libc::fcntl(fd, what, argument) }
}

fn is_open(fd: RawFd) -> bool {
    fcntl(fd, libc::F_GETFD, 0) >= 0
}

/// The file at exactly this number, which must be free.
fn open_at(path: &Path, number: RawFd) -> OwnedFd {
    // The portable engine's thread may still be closing its pipe.
    wait_for("a free number", || !is_open(number));
    let file = File::open(path).unwrap();
    if file.as_raw_fd() == number {
        return file.into();
    }
    let placed = fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number);
    assert_eq!(placed, number);
    // SAFETY: made a line ago.
    unsafe { OwnedFd::from_raw_fd(placed) }
}

/// An inheritable copy, as careless programs have them.
fn leaky(path: &Path) -> OwnedFd {
    let file = File::open(path).unwrap();
    assert_eq!(fcntl(file.as_raw_fd(), libc::F_SETFD, 0), 0);
    file.into()
}

#[test]
fn a_child_has_what_it_was_given_and_no_more() {
    alone!({
        let _leaks: Vec<OwnedFd> = (0..5).map(|_| leaky(Path::new("/dev/null"))).collect();
        assert_eq!(numbers(&fixture("fds")), [0, 1, 2]);
        assert_eq!(numbers(&fixture("fds").fd(9, Stdio::null()).fd(5, Stdio::null())), [0, 1, 2, 5, 9]);
        let inherited = numbers(&fixture("fds").inherit_fds());
        assert!(inherited.len() >= 8, "{inherited:?}");
    });
}

/// C1: what one spawn opens is never seen by another's child, even if that keeps all that is not close-on-exec.
#[test]
fn nothing_leaks_into_the_children_of_other_threads() {
    alone!({
        let expected = numbers(&fixture("fds").inherit_fds());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let busy: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        while !done.load(Ordering::Relaxed) {
                            let mut child = fixture("cat").pipe_all().fd(7, Stdio::null()).spawn().unwrap();
                            let _ = child.handle().try_as_fd().unwrap();
                            assert!(child.wait().unwrap().success());
                            assert!(Command::new("/no/such/program").pipe_all().spawn().is_err());
                        }
                    })
                })
                .collect();
            for _ in 0..300 {
                assert_eq!(numbers(&fixture("fds").inherit_fds()), expected);
            }
            done.store(true, Ordering::Relaxed);
            assert!(busy.into_iter().all(|thread| thread.join().is_ok()));
        });
    });
}

/// B2: a spawn never waits for the life of somebody else's child.
#[test]
fn spawns_do_not_wait_for_strangers() {
    alone!({
        let started = Instant::now();
        let sleepers: Vec<_> = std::thread::scope(|scope| {
            let sleeping: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let one = || fixture("sleep").arg("60000").pipe_all().kill_on_drop().spawn().unwrap();
                        (0..25).map(|_| one()).collect::<Vec<_>>()
                    })
                })
                .collect();
            let passing: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).for_each(|_| assert!(Command::new("/no/program").spawn().is_err()))))
                .collect();
            passing.into_iter().for_each(|thread| thread.join().unwrap());
            sleeping.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(started.elapsed() < Duration::from_secs(30));
        for sleeper in &sleepers {
            sleeper.kill().unwrap();
        }
    });
}

/// How many system calls the child makes before its program runs, and what the program lists.
fn calls_before_exec(command: &Command, refuse: &(dyn Fn(libc::c_long) -> bool + Sync)) -> Option<(usize, Vec<RawFd>)> {
    let mut count = 0;
    let result = supervise(
        &[],
        || numbers(command),
        |call| {
            if call.ours || call.after_exec {
                return None;
            }
            count += 1;
            refuse(call.number).then_some(libc::ENOSYS)
        },
    );
    result.map(|numbers| (count, numbers))
}

const CLOSE_RANGE: &[libc::c_long] = &[libc::SYS_close_range];
const CLOSE_RANGE_AND_PROC: &[libc::c_long] = &[libc::SYS_close_range, libc::SYS_openat, libc::SYS_open];

/// C2, E3: the price does not depend on the limit, with and without close_range, and without /proc it is bounded.
#[test]
fn closing_the_others_costs_the_same_under_any_limit() {
    alone!({
        if SpawnRoute::current() == SpawnRoute::Portable {
            // std's own calls would be counted, too.
            return;
        }
        let (soft, hard) = getrlimit(Nix::RLIMIT_NOFILE).unwrap();
        let high = if setrlimit(Nix::RLIMIT_NOFILE, 1 << 20, hard.max(1 << 20)).is_ok() { 1 << 20 } else { hard };
        setrlimit(Nix::RLIMIT_NOFILE, high, high.max(hard)).unwrap();
        let _leaks: Vec<OwnedFd> = (0..10).map(|_| leaky(Path::new("/dev/null"))).collect();
        let command = fixture("fds").limit(Resource::Nofile, soft, hard);
        // Where the kernel does not take the handlers away, the child asks about each signal.
        let base = if SpawnRoute::current() == SpawnRoute::Clone { 85 } else { 15 };
        let cases = [(&[][..], base), (CLOSE_RANGE, base + 40), (CLOSE_RANGE_AND_PROC, (1 << 20) / 256 + base + 60)];
        for (refused, calls_max) in cases {
            let Some((calls, seen)) = calls_before_exec(&command, &|number| refused.contains(&number)) else { return };
            assert_eq!(seen, [0, 1, 2], "without {refused:?}");
            assert!(calls <= calls_max, "{calls} calls without {refused:?}");
        }
        setrlimit(Nix::RLIMIT_NOFILE, soft, hard.max(high)).unwrap();
    });
}

/// C3: what is open above a limit that was lowered since does not survive.
#[test]
fn descriptors_above_a_lowered_limit_do_not_survive() {
    alone!({
        let (soft, hard) = getrlimit(Nix::RLIMIT_NOFILE).unwrap();
        let leaks: Vec<OwnedFd> = (0..60).map(|_| leaky(Path::new("/dev/null"))).collect();
        // Room below the limit for what a spawn needs.
        let (low, high): (Vec<_>, Vec<_>) = leaks.into_iter().partition(|fd| fd.as_raw_fd() < 32);
        drop(low);
        let command = fixture("fds");
        command.output().unwrap();
        for refused in [&[][..], CLOSE_RANGE, CLOSE_RANGE_AND_PROC] {
            let seen = supervise(
                &[libc::SYS_close_range, libc::SYS_openat, libc::SYS_open],
                || {
                    setrlimit(Nix::RLIMIT_NOFILE, 32, hard).unwrap();
                    let seen = numbers(&command);
                    setrlimit(Nix::RLIMIT_NOFILE, soft, hard).unwrap();
                    seen
                },
                |call| (!call.ours && !call.after_exec && refused.contains(&call.number)).then_some(libc::EPERM),
            );
            let Some(seen) = seen else { return };
            assert_eq!(seen, [0, 1, 2], "without {refused:?}");
        }
        assert!(high.len() > 20);
    });
}

/// The parent's 0 to 2, put back at the end, also when a check fails.
struct Standard(Vec<RawFd>);

impl Standard {
    fn saved() -> Standard {
        Standard((0..3).map(|fd| fcntl(fd, libc::F_DUPFD_CLOEXEC, 100)).collect())
    }

    fn close(&self, subset: u32) {
        for fd in (0..3).filter(|fd| subset & 1 << fd != 0) {
            // SAFETY: an integer argument.
            unsafe { libc::close(fd) };
        }
    }

    fn restore(&self) {
        for (number, saved) in self.0.iter().enumerate() {
            // SAFETY: integer arguments.
            unsafe { libc::dup2(*saved, number as RawFd) };
        }
    }
}

impl Drop for Standard {
    fn drop(&mut self) {
        self.restore();
        for saved in &self.0 {
            // SAFETY: an integer argument.
            unsafe { libc::close(*saved) };
        }
    }
}

fn link(fd: RawFd) -> String {
    fs::read_link(format!("/proc/self/fd/{fd}")).map_or("closed".into(), |link| link.display().to_string())
}

/// What the child's 0 to 2 are, seen from outside while it is stopped.
fn seen_outside(streams: &[Stdio; 3]) -> Result<(), String> {
    let [stdin, stdout, stderr] = streams.clone();
    let command = Command::shell("kill -STOP $$").stdin(stdin).stdout(stdout).stderr(stderr).kill_on_drop();
    let child = command.spawn().map_err(|error| error.to_string())?;
    wait_for("the stop", || state_of(child.id()) == Some('T'));
    let ends = [
        child.stdin.as_ref().map(AsRawFd::as_raw_fd),
        child.stdout.as_ref().map(AsRawFd::as_raw_fd),
        child.stderr.as_ref().map(AsRawFd::as_raw_fd),
    ];
    let of_child = |fd: usize| {
        fs::read_link(format!("/proc/{}/fd/{fd}", child.id()))
            .map_or("closed".into(), |link| link.display().to_string())
    };
    let expected = [0, 1, 2].map(|number| match &streams[number] {
        stdio if *stdio == Stdio::inherit() => link(number as RawFd),
        stdio if *stdio == Stdio::null() => "/dev/null".into(),
        _ => ends[number].map_or("no pipe".into(), link),
    });
    let seen = [0, 1, 2].map(of_child);
    let low = ends.iter().flatten().any(|fd| *fd < 3);
    if seen == expected && !low { Ok(()) } else { Err(format!("{seen:?} instead of {expected:?}, {low}")) }
}

/// C4, C5: whatever of 0 to 2 the parent has closed.
#[test]
fn any_of_the_standard_streams_may_be_closed_in_the_parent() {
    alone!({
        SpawnRoute::current();
        let kinds = [Stdio::inherit(), Stdio::null(), Stdio::piped()];
        let mut wrong = Vec::new();
        let standard = Standard::saved();
        for subset in 1..8 {
            for choice in 0..27 {
                let streams = [choice % 3, choice / 3 % 3, choice / 9].map(|kind: usize| kinds[kind].clone());
                standard.close(subset);
                let result = seen_outside(&streams);
                let missing = Command::new("/no/program").stdin(streams[0].clone()).stdout(streams[1].clone()).spawn();
                let open: Vec<bool> = (0..3).map(is_open).collect();
                standard.restore();
                if open != [0, 1, 2].map(|fd| subset & 1 << fd == 0) {
                    wrong.push(format!("closed {subset:03b}: the parent's own changed: {open:?}"));
                }
                if let Err(text) = result {
                    wrong.push(format!("closed {subset:03b} {streams:?}: {text}"));
                }
                if !missing.as_ref().is_err_and(|error| error.is_not_found()) {
                    wrong.push(format!("closed {subset:03b} {streams:?}: {missing:?}"));
                }
            }
        }
        drop(standard);
        assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
    });
}

#[test]
fn verbs_work_with_all_standard_streams_closed() {
    alone!({
        SpawnRoute::current();
        let scratch = Scratch::new();
        let standard = Standard::saved();
        standard.close(7);
        let output = fixture("cat").input("through").output();
        let merged = fixture("merge").arg("4").stderr(Stdio::stdout()).output();
        // Files that are opened on the side are nobody's standard streams.
        let aside = fixture("cat").pipe_all().tee_stderr(Target::write(scratch.join("log")));
        let mut aside = aside.capture_limit(1, Overflow::Spill(scratch.join("spilled"))).spawn().unwrap();
        let open: Vec<bool> = (0..3).map(is_open).collect();
        let through = aside.communicate("through");
        drop(standard);
        assert_eq!(open, [false; 3]);
        assert_eq!(through.unwrap().stdout(), b"t");
        assert_eq!(output.unwrap().stdout(), b"through");
        assert_eq!(merged.unwrap().stdout(), b"out 0\nerr 1\nout 2\nerr 3\n");
    });
}

/// C6: a swap of the two, and both at one.
#[test]
fn output_streams_can_be_swapped_and_merged() {
    alone!({
        let both = "echo out; echo err >&2";
        let scratch = Scratch::new();
        let (one, two) = (scratch.file("one", 0o644, ""), scratch.file("two", 0o644, ""));
        let standard = Standard::saved();
        let (file_one, file_two) = (File::create(&one).unwrap(), File::create(&two).unwrap());
        // SAFETY: integer arguments.
        unsafe { libc::dup2(file_one.as_raw_fd(), 1) };
        // SAFETY: integer arguments.
        unsafe { libc::dup2(file_two.as_raw_fd(), 2) };
        let (own_one, own_two) = (unowned(1), unowned(2));
        let result = Command::shell(both).stdout(own_two).stderr(own_one).status();
        standard.restore();
        assert!(result.unwrap().success());
        assert_eq!(fs::read_to_string(&one).unwrap(), "err\n");
        assert_eq!(fs::read_to_string(&two).unwrap(), "out\n");
        assert_eq!(Command::shell(both).stderr(Stdio::stdout()).output().unwrap().stdout(), b"out\nerr\n");
        assert_eq!(Command::shell(both).stdout(Stdio::stderr()).output().unwrap().stderr(), b"out\nerr\n");
        assert!(is_open(1) && is_open(2));
    });
}

/// A stream that is exactly this number of ours. It is closed when the command goes, so the caller restores it after.
fn unowned(number: RawFd) -> Stdio {
    // SAFETY: the number is open, and the caller puts back what the owner closes.
    Stdio::from(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A small generator of numbers: the same sequence in every run, said when it fails.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// C6: any map of sources to targets is realised as if at the same time.
#[test]
fn any_map_of_descriptors_is_realised() {
    alone!({
        let scratch = Scratch::new();
        let files: Vec<PathBuf> = (0..16).map(|n| scratch.file(format!("source-{n}"), 0o644, "x")).collect();
        // Whatever the harness has open from 3 to 15 makes room.
        let free: Vec<RawFd> = (3..16).filter(|fd| !is_open(*fd)).collect();
        assert!(free.len() >= 8, "{free:?}");
        let mut random = Random(42);
        for round in 0..250 {
            let mut sources: Vec<(RawFd, Stdio)> = Vec::new();
            let mut rest = free.clone();
            for _ in 0..1 + random.below(8) {
                let number = rest.swap_remove(random.below(rest.len()));
                sources.push((number, Stdio::from(open_at(&files[number as usize], number))));
            }
            let mut targets: Vec<RawFd> = (0..16).filter(|fd| *fd != 1).collect();
            let mut command = fixture("fds").stdin(Stdio::null()).stderr(Stdio::null());
            let mut expected: BTreeMap<RawFd, String> =
                [(0, "/dev/null".to_owned()), (2, "/dev/null".to_owned())].into_iter().collect();
            for _ in 0..1 + random.below(8) {
                let target = targets.swap_remove(random.below(targets.len()));
                let (source, stdio) = &sources[random.below(sources.len())];
                command = match target {
                    0 => command.stdin(stdio.clone()),
                    2 => command.stderr(stdio.clone()),
                    _ => command.fd(target, stdio.clone()),
                };
                expected.insert(target, files[*source as usize].display().to_string());
            }
            let mut seen: BTreeMap<RawFd, String> =
                listed(&command).into_iter().map(|(number, (link, _))| (number, link)).collect();
            assert!(seen.remove(&1).is_some_and(|link| link.starts_with("pipe:")));
            assert_eq!(seen, expected, "round {round}: {command:?}");
        }
    });
}

/// The targets are numbers that are free now, which a spawn will use for itself: it must not be in its own way, and its
/// failure must still be told.
#[test]
fn targets_may_be_numbers_that_the_spawn_itself_uses() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.file("file", 0o644, "content");
        let own = File::open(&path).unwrap();
        for target in 3..40 {
            let command = |program: &str| {
                Command::new(Path::new(program)).fd(target, Stdio::borrowed(&own)).stdin(Stdio::piped())
            };
            let error = command("/no/such/program").spawn().expect_err("told as started");
            assert!(error.is_not_found(), "{target}: {error:?}");
            let read = fixture("readfd").arg(target.to_string()).fd(target, Stdio::borrowed(&own)).output().unwrap();
            assert_eq!(read.stdout(), b"content", "{target}");
            (&own).rewind().unwrap();
        }
        let mut all = Command::new("/no/such/program").pipe_all();
        for target in 3..40 {
            all = all.fd(target, Stdio::borrowed(&own));
        }
        assert!(all.spawn().unwrap_err().is_not_found());
        assert_eq!(fs::read(&path).unwrap(), b"content");
    });
}

/// C7: a source that is at its target already survives exec, and the parent's flag stays.
#[test]
fn a_source_at_its_target_survives() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.file("file", 0o644, "kept");
        let own = open_at(&path, 50);
        let command = fixture("readfd").arg("50").fd(50, own);
        assert_eq!(command.output().unwrap().stdout(), b"kept");
        assert_eq!(fcntl(50, libc::F_GETFD, 0), libc::FD_CLOEXEC);
        assert_eq!(listed(&fixture("fds").fd(50, Stdio::inherit()))[&50].0, path.display().to_string());
        assert_eq!(fcntl(50, libc::F_GETFD, 0), libc::FD_CLOEXEC);
        drop(command);
        assert!(!is_open(50));
    });
}

/// C8: a passed descriptor keeps its number; the parent's keeps its flags; it can be a source as well.
#[test]
fn passed_descriptors_keep_their_number() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.file("file", 0o644, "passed");
        let own = File::open(&path).unwrap();
        let number = own.as_raw_fd();
        let command = fixture("fds").pass_fd(&own).stdin(Stdio::borrowed(&own)).fd(30, Stdio::borrowed(&own));
        let seen = listed(&command);
        assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2, number, 30]));
        for fd in [0, number, 30] {
            assert_eq!(seen[&fd], (path.display().to_string(), "-".to_owned()), "{fd}");
        }
        assert_eq!(fcntl(number, libc::F_GETFD, 0), libc::FD_CLOEXEC);
        assert!(is_open(number));
        let closed = {
            let copy = own.try_clone().unwrap();
            // SAFETY: only the number is borrowed, and it is closed before it is used, which is the point.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(copy.as_raw_fd()) };
            drop(copy);
            fixture("fds").pass_fd(fd)
        };
        let error = closed.spawn().unwrap_err();
        assert!(error.is_invalid_input() && error.to_string().contains("descriptor"), "{error}");
    });
}

/// C9: one file for input and output.
#[test]
fn the_same_file_may_be_given_twice() {
    alone!({
        let scratch = Scratch::new();
        let path = scratch.file("file", 0o644, "in\n");
        let own = File::options().read(true).write(true).open(&path).unwrap();
        let stdio = Stdio::borrowed(&own);
        let shell = Command::shell("read line; echo got $line; echo err >&2");
        let status = shell.stdin(stdio.clone()).stdout(stdio.clone()).stderr(stdio).status().unwrap();
        assert!(status.success());
        assert_eq!(fs::read_to_string(&path).unwrap(), "in\ngot in\nerr\n");
        assert!(own.metadata().is_ok());
    });
}

/// C10: the null device is the child's alone, and a missing one is said.
#[test]
fn the_null_device_is_not_leaked_and_may_be_missing() {
    alone!({
        let started = Instant::now();
        let mut child = Command::shell("sleep 20 & echo $!").stdin(Stdio::null()).stderr(Stdio::null());
        child = child.stdout(Stdio::null());
        assert!(child.status().unwrap().success());
        assert!(started.elapsed() < Duration::from_secs(10));
        let command = fixture("exit").arg("0").stdin(Stdio::null());
        let result = supervise(
            &[libc::SYS_openat, libc::SYS_open],
            || command.spawn(),
            |call| call.ours.then_some(libc::ENOENT),
        );
        if let Some(result) = result {
            let error = result.unwrap_err();
            assert_eq!(error.failed_step(), Some("open"), "{error}");
            assert_eq!(error.failed_path(), Some(Path::new("/dev/null")), "{error}");
        }
    });
}

/// C11: what the command owns is closed with it, what it borrows is never.
#[test]
fn owned_descriptors_close_with_the_command_and_borrowed_never() {
    alone!({
        let (reader, mut writer) = procession::pipe().unwrap();
        let command = fixture("cat").stdin(reader);
        let before = descriptors();
        let mut child = command.spawn().unwrap();
        drop(command);
        assert!(descriptors().difference(&before).all(|line| line.contains("pidfd")), "{:?}", descriptors());
        drop(writer.write(b""));
        drop(writer);
        assert!(child.wait().unwrap().success());
        let (reader, writer) = procession::pipe().unwrap();
        let command = fixture("echo").arg("x").stdout(Stdio::borrowed(&writer));
        assert!(command.status().unwrap().success());
        assert!(is_open(writer.as_raw_fd()));
        drop((command, writer));
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x\n");
    });
}

/// C12: a process descriptor is never inherited, and a full table is no reason not to start or wait.
#[test]
fn process_descriptors_are_close_on_exec_and_can_be_lacking() {
    alone!({
        let sleeper = fixture("sleep").arg("60000").kill_on_drop().spawn().unwrap();
        let fd = sleeper.handle().try_as_fd().unwrap().as_raw_fd();
        assert_eq!(fcntl(fd, libc::F_GETFD, 0), libc::FD_CLOEXEC);
        assert!(fd > 2);
        sleeper.kill().unwrap();
        let (soft, hard) = getrlimit(Nix::RLIMIT_NOFILE).unwrap();
        let mut command = fixture("exit").arg("5").limit(Resource::Nofile, soft, hard);
        command = command.stdin(Stdio::inherit());
        setrlimit(Nix::RLIMIT_NOFILE, 64, hard).unwrap();
        let mut filler = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            filler.push(file);
        }
        let result = command.spawn();
        let (waited, polled) = match &result {
            Ok(child) => (child.handle().wait_timeout(Duration::from_secs(30)), child.handle().wait()),
            Err(_) => (Ok(None), Ok(procession::ExitStatus::UNKNOWN)),
        };
        drop(filler);
        setrlimit(Nix::RLIMIT_NOFILE, soft, hard).unwrap();
        match result {
            Ok(_) => {
                assert_eq!(waited.unwrap().and_then(|status| status.code()), Some(5));
                assert_eq!(polled.unwrap().code(), Some(5));
            }
            Err(error) => {
                // The portable engine needs a pipe to hear of errors.
                assert_eq!(SpawnRoute::current(), SpawnRoute::Portable, "{error:?}");
                assert!(error.is_resource_exhausted(), "{error:?}");
            }
        }
    });
}

/// C12: many children with pipes under a small limit: a clean error, and everything comes back.
#[test]
fn too_many_children_with_pipes_fail_cleanly() {
    alone!({
        let (soft, hard) = getrlimit(Nix::RLIMIT_NOFILE).unwrap();
        let command = fixture("cat").limit(Resource::Nofile, soft, hard).pipe_all().kill_on_drop();
        let before = descriptors();
        command.output().unwrap();
        setrlimit(Nix::RLIMIT_NOFILE, 128, hard).unwrap();
        let mut some = Vec::new();
        let error = loop {
            match command.spawn() {
                Ok(child) => some.push(child),
                Err(error) => break error,
            }
        };
        let count = some.len();
        assert!((10..60).contains(&count), "{count}");
        some.pop();
        let again = command.spawn();
        setrlimit(Nix::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(error.is_resource_exhausted(), "{error:?}");
        assert!(again.is_ok());
        drop((some, again));
        command.output().unwrap();
        // The portable engine's threads may still be closing their pipes.
        wait_for("the end of all descriptors", || descriptors() == before);
        assert_eq!(children(), Vec::<String>::new());
    });
}

/// A17: O_NONBLOCK belongs to the description, so it is neither on the child's ends nor on what it inherits.
#[test]
fn nonblocking_does_not_leak() {
    alone!({
        let mut child = fixture("fds").pipe_all().fd(8, Stdio::null()).spawn().unwrap();
        let output = child.communicate("some input").unwrap();
        let text = output.stdout_text().unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().all(|line| !line.contains("nonblock")), "{text}");
        let flags = || (0..3).map(|fd| fcntl(fd, libc::F_GETFL, 0)).collect::<Vec<_>>();
        let before = flags();
        let (mut reader, writer) = procession::pipe().unwrap();
        let mut child = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::borrowed(&writer)).spawn().unwrap();
        child.communicate("through").unwrap();
        assert_eq!(fcntl(writer.as_raw_fd(), libc::F_GETFL, 0) & libc::O_NONBLOCK, 0);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), flags()), ("through", before));
    });
}

/// What is asked for at a number that the limit does not allow is an error that names it.
#[test]
fn a_number_beyond_the_limit_is_named() {
    alone!({
        let (soft, _) = getrlimit(Nix::RLIMIT_NOFILE).unwrap();
        let number = RawFd::try_from(soft).unwrap_or(RawFd::MAX);
        let error = fixture("exit").fd(number, Stdio::null()).spawn().unwrap_err();
        assert!(error.to_string().contains(&number.to_string()), "{error}");
        let last = fixture("fds").fd(number - 1, Stdio::null()).current_dir_fd(File::open("/").unwrap());
        assert_eq!(numbers(&last), [0, 1, 2, number - 1]);
        let closed = fixture("exit").fd(77, Stdio::inherit()).spawn().unwrap_err();
        assert_eq!((closed.kind(), closed.failed_step()), (ErrorKind::Io, Some("dup2")), "{closed}");
        assert!(closed.to_string().contains("77"), "{closed}");
    });
}
