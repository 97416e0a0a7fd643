//! A long table of descriptors: a child that needs only its beginning is born in it and copies that. Nobody may notice, but by the clock.

use crate::inject::{Call, supervise};
use crate::support::{Scratch, alone, children, descriptors, fixture, fixture_path, settled_descriptors, wait_for};
use nix::sys::resource::{Resource as Nix, getrlimit, setrlimit};
use procession::{Command, ErrorKind, Pty, Resource, Scope, SpawnRoute, Stdio, Stop};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// From this number on stands what is kept.
const FAR: RawFd = 512;

/// So many files that the table is long; every third is not close-on-exec, as careless programs have them.
fn crowd(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|n| if n % 3 == 0 { leaky() } else { null() }).collect()
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn leaky() -> OwnedFd {
    let file = null();
    // SAFETY: integer arguments.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    file
}

/// Lets the length be noticed, by the number of a child's descriptor, and leaves low numbers free, as they are where children come and go.
fn with_room(mut crowd: Vec<OwnedFd>) -> Vec<OwnedFd> {
    assert!(fixture("exit").arg("0").status().unwrap().success());
    crowd.drain(..20);
    crowd
}

/// Whether the table is ever shared: not by kernels that make bad copies.
fn shares() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok());
    let mut words = release.split(|character: char| !character.is_ascii_digit());
    let version = (number(words.next()), number(words.next()));
    SpawnRoute::current() != SpawnRoute::Portable && version >= (Some(6), Some(11))
}

/// What kernels once did wrong: behind the first 64 numbers a child found none free for a long way.
#[test]
fn a_child_finds_the_numbers_free_that_are() {
    alone!({
        let _crowd = with_room(crowd(1000));
        // Its libraries are opened next, and this is as far as it may go.
        let full = (3..64).fold(fixture("fds"), |command, number| command.fd(number, Stdio::stdout()));
        let seen = listed(&full.limit(Resource::Nofile, 68, 68));
        assert_eq!(seen.lines().count(), 64, "{seen}");
    });
}

fn listed(command: &Command) -> String {
    let output = command.output().unwrap();
    assert!(output.success(), "{output:?}");
    // Pipes have numbers of their own.
    let text = output.stdout_text().unwrap();
    let line = |line: &str| match line.split_once(" pipe:[") {
        Some((number, rest)) => format!("{number} pipe {}\n", rest.split_once(' ').unwrap().1),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A child asks for a table of its own.
fn asks(call: &Call) -> bool {
    call.number == libc::SYS_close_range && call.args[2] == u64::from(libc::CLOSE_RANGE_UNSHARE) && !call.after_exec
}

/// How often children ask for a table of their own while `work` is done, all of which is refused with this errno.
fn asked<T: Send>(errno: Option<i32>, work: impl FnOnce() -> T + Send) -> Option<(usize, T)> {
    let mut count = 0;
    let result = supervise(&[libc::SYS_close_range], work, |call| {
        count += usize::from(asks(&call));
        errno.filter(|_| asks(&call))
    });
    result.map(|result| (count, result))
}

fn commands(scratch: &Scratch) -> Vec<Command> {
    let file = || Stdio::from(File::open(scratch.file("in", 0o644, "words")).unwrap());
    let own = |mode: &str| {
        let file = File::options().read(true).append(mode == "append").open(scratch.file(mode, 0o644, "own")).unwrap();
        Stdio::from(file)
    };
    vec![
        fixture("fds"),
        fixture("fds").stdin(Stdio::piped()).stderr(Stdio::piped()),
        fixture("fds").stdin(file()).stderr(Stdio::stdout()),
        fixture("fds").fd(3, file()).fd(4, Stdio::null()),
        fixture("fds").fd(40, own("read")).fd(300, own("append")),
        fixture("fds").fd(1500, own("high")).stdin(own("first")),
        fixture("fds").fd(9, Stdio::inherit()).stdin(Stdio::inherit()),
        fixture("fds").current_dir_fd(File::open("/").unwrap()).fd(8, own("eight")),
        fixture("fds").setsid().umask(0o077).nice(1).fd(5, own("five")).fd(6, own("six")),
        fixture("fds").stdin(Stdio::pty()).fd(7, own("seven")),
    ]
}

#[test]
fn a_child_has_the_same_descriptors_in_a_long_table() {
    alone!({
        let scratch = Scratch::new();
        let _nine = from(9, &null());
        let (commands, mut expected) = (commands(&scratch), Vec::new());
        for command in &commands {
            expected.push(listed(command));
        }
        // Once with numbers to spare among the low ones, and once without any.
        for room in [true, false] {
            let crowd = if room { with_room(crowd(1000)) } else { crowd(1000) };
            let before = settled_descriptors();
            for _ in 0..2 {
                for (command, expected) in commands.iter().zip(&expected) {
                    let seen = listed(command);
                    assert_eq!(without_terminals(&seen), without_terminals(expected), "room: {room}, {command:?}");
                }
            }
            let inherited = listed(&fixture("fds").inherit_fds());
            assert!(inherited.lines().count() > 300, "{inherited}");
            wait_for("our own to be as before", || descriptors() == before);
            drop(crowd);
        }
        drop(commands);
    });
}

/// A terminal has a new number each time.
fn without_terminals(text: &str) -> String {
    text.lines()
        .map(|line| if line.contains("/dev/pts/") { "terminal\n".into() } else { format!("{line}\n") })
        .collect()
}

/// A copy at the lowest free number from this one on.
fn from(number: RawFd, file: &impl AsRawFd) -> OwnedFd {
    // SAFETY: integer arguments.
    let copy = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    assert!(copy >= number);
    // SAFETY: made a line ago.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// Otherwise nothing here would be tested.
#[test]
fn the_table_is_shared_where_it_is_long() {
    alone!({
        if !shares() {
            return;
        }
        let run = |command: &Command| asked(None, || command.status().unwrap().success());
        let plain = fixture("exit").arg("0");
        let Some((few, true)) = run(&plain) else { return };
        assert_eq!(few, 0);
        let crowd = with_room(crowd(1000));
        let piped = plain.clone().stdin(Stdio::null()).fd(9, Stdio::null());
        assert_eq!(run(&plain), Some((1, true)));
        assert_eq!(run(&piped), Some((1, true)));
        assert_eq!(run(&plain.clone().inherit_fds()), Some((0, true)));
        // What stands far behind cannot be left out.
        let last = Stdio::from(File::from(null()));
        let far = crowd.iter().map(|fd| fd.as_raw_fd()).max().unwrap();
        assert_eq!(run(&plain.clone().fd(far, Stdio::inherit())), Some((0, true)));
        assert_eq!(run(&plain.fd(9, last)), Some((1, true)));
    });
}

#[test]
fn a_failure_leaves_a_long_table_as_it_was() {
    alone!({
        let _crowd = with_room(crowd(1000));
        let before = settled_descriptors();
        let busy = fixture("exit").arg("0").fd(9, Stdio::null());
        for _ in 0..20 {
            let missing = Command::new("/no/such/program").pipe_all().spawn().unwrap_err();
            assert_eq!((missing.kind(), missing.failed_step()), (ErrorKind::NotFound, Some("exec")), "{missing}");
            let directory = busy.clone().current_dir("/no/such/directory").spawn().unwrap_err();
            assert_eq!(directory.kind(), ErrorKind::DirectoryNotFound, "{directory}");
            let closed = busy.clone().fd(5, Stdio::null()).fd(400_000, Stdio::inherit()).spawn().unwrap_err();
            assert_eq!(closed.failed_step(), Some("dup2"), "{closed}");
            let directory = Command::new(Path::new("/")).pipe_all().spawn().unwrap_err();
            assert_eq!(directory.kind(), ErrorKind::NotExecutable, "{directory}");
            assert!(busy.status().unwrap().success());
        }
        assert_eq!(settled_descriptors(), before);
        assert_eq!(children(), [""; 0]);
    });
}

/// A kernel before 5.9, a filter: not asked again. No memory at the moment: asked the next time.
fn refused(errno: i32, times: usize) {
    if !shares() {
        return;
    }
    let _crowd = with_room(crowd(1000));
    let (before, command) = (settled_descriptors(), fixture("fds").fd(9, Stdio::null()).stdin(Stdio::piped()));
    let expected = listed(&command);
    let both = asked(Some(errno), || {
        let missing = Command::new("/no/such/program").spawn().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
        (0..5).map(|_| listed(&command)).collect::<Vec<_>>()
    });
    let Some((count, seen)) = both else { return };
    assert!(seen.iter().all(|seen| *seen == expected), "{seen:?} and not {expected}");
    // The one that cannot be run proves nothing.
    assert_eq!(count, times + 1);
    assert_eq!(settled_descriptors(), before);
    assert_eq!(asked(None, || listed(&command)), Some((usize::from(times > 1), expected)));
    assert_eq!(children(), [""; 0]);
}

#[test]
fn a_kernel_that_makes_no_table_is_not_asked_again() {
    alone!({ refused(libc::ENOSYS, 1) });
}

#[test]
fn a_kernel_that_does_not_know_the_flag_is_not_asked_again() {
    alone!({ refused(libc::EINVAL, 1) });
}

#[test]
fn a_filter_that_allows_no_table_is_not_asked_again() {
    alone!({ refused(libc::EPERM, 1) });
}

#[test]
fn memory_may_be_there_the_next_time() {
    alone!({ refused(libc::ENOMEM, 5) });
}

/// Some filter does not like a process that shares a table and is no thread.
#[test]
fn a_birth_that_is_refused_is_tried_with_a_copy() {
    alone!({
        if !shares() {
            return;
        }
        let _crowd = with_room(crowd(1000));
        let mut refused = 0;
        let result = supervise(
            &[libc::SYS_clone3, libc::SYS_clone],
            || (0..3).all(|_| fixture("exit").arg("0").status().unwrap().success()),
            |call| {
                is_shared(&call).then(|| {
                    refused += 1;
                    libc::EPERM
                })
            },
        );
        assert!(result.is_none_or(|all| all && refused == 1), "{refused}");
    });
}

/// The flags of a birth: an argument, or the first word that one points to.
fn is_shared(call: &Call) -> bool {
    let flags = if call.number == libc::SYS_clone {
        call.args[0]
    } else {
        // SAFETY: the caller is a thread of this process, which waits for our answer.
        unsafe { *(call.args[0] as *const u64) }
    };
    flags & libc::CLONE_FILES as u64 != 0 && flags & libc::CLONE_THREAD as u64 == 0
}

/// People run what they have open: a memfd, or a program that has been checked.
#[test]
fn what_is_open_can_be_run_and_entered_by_its_number() {
    alone!({
        let _crowd = with_room(crowd(1000));
        // Far behind what the child needs otherwise.
        let (program, root) = (from(500, &File::open(fixture_path()).unwrap()), from(500, &File::open("/").unwrap()));
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let directory = format!("/proc/self/fd/{}", root.as_raw_fd());
        for _ in 0..3 {
            let by_number = Command::new(Path::new(&path)).args(["echo", "run"]);
            assert_eq!(by_number.output().unwrap().stdout(), b"run\n");
            let inside = fixture("cwd").current_dir(&directory).output().unwrap();
            assert_eq!(inside.stdout_text().unwrap().trim_end(), "/");
        }
        if shares() {
            assert!(asked(None, || fixture("exit").status().unwrap()).is_none_or(|(count, _)| count == 1));
        }
    });
}

/// The numbers of what is kept of some living children, by the links of our own descriptors.
fn kept_numbers(work: impl FnOnce()) -> Vec<RawFd> {
    let before = descriptors();
    work();
    let number = |line: &String| line.split(' ').next().unwrap().parse().unwrap();
    let mut numbers: Vec<RawFd> = descriptors().difference(&before).map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_is_kept_makes_room_for_what_is_given() {
    alone!({
        if !shares() {
            return;
        }
        let (soft, hard) = getrlimit(Nix::RLIMIT_NOFILE).unwrap();
        let quiet = Stop::kill().scope(Scope::Process);
        let cat = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).stop(quiet.clone());
        let mut kept = Vec::new();
        let few = kept_numbers(|| kept.extend((0..5).map(|_| cat.spawn().unwrap())));
        assert!(few.len() == 15 && few[14] < 64, "{few:?}");
        // More than there is room for: the rest stays below.
        setrlimit(Nix::RLIMIT_NOFILE, 540, hard).unwrap();
        let many = kept_numbers(|| kept.extend((0..60).map(|_| cat.spawn().unwrap())));
        setrlimit(Nix::RLIMIT_NOFILE, soft, hard).unwrap();
        assert_eq!(many.len(), 180);
        let far: BTreeSet<RawFd> = many.iter().copied().filter(|number| *number >= FAR).collect();
        assert_eq!(far, (FAR..540).collect());
        // With room everything is moved that has no low number, a terminal's as well.
        let more = kept_numbers(|| kept.push(fixture("cat").pty(Pty::new()).stop(quiet.clone()).spawn().unwrap()));
        assert!(more.len() >= 3 && more.iter().all(|number| *number < 64 || *number >= FAR), "{more:?}");
        let flags = |number: RawFd| {
            // SAFETY: integer arguments.
            unsafe { libc::fcntl(number, libc::F_GETFD) }
        };
        assert!(many.iter().chain(&more).all(|number| flags(*number) == libc::FD_CLOEXEC));
        // A low limit, and they talk all the same.
        setrlimit(Nix::RLIMIT_NOFILE, 256, hard).unwrap();
        let mut last = cat.spawn().unwrap();
        setrlimit(Nix::RLIMIT_NOFILE, soft, hard).unwrap();
        last.stdin.take().unwrap().write_all(b"said").unwrap();
        let mut text = String::new();
        last.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), last.wait().unwrap().success()), ("said", true));
        for child in &mut kept {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
}

/// B5: threads that open, move and close thousands of descriptors while children are born in the table find their own at each.
#[test]
fn the_descriptors_of_other_threads_are_theirs() {
    alone!({
        let scratch = Scratch::new();
        let words: Vec<File> = (0..4)
            .map(|n| {
                let path = scratch.file(format!("word{n}"), 0o644, format!("word{n}"));
                File::open(path).unwrap()
            })
            .collect();
        let crowd = with_room(crowd(1000));
        let (done, turns) = (&AtomicBool::new(false), &AtomicUsize::new(0));
        let before = settled_descriptors();
        std::thread::scope(|scope| {
            for word in &words {
                scope.spawn(|| {
                    let identity = |file: &File| file.metadata().map(|metadata| metadata.ino()).unwrap();
                    let own = identity(word);
                    while !done.load(Ordering::Relaxed) {
                        let copies: Vec<File> = (0..200).map(|_| word.try_clone().unwrap()).collect();
                        let mut text = [0; 5];
                        for copy in &copies {
                            copy.read_exact_at(&mut text, 0).unwrap();
                            assert_eq!(identity(copy), own);
                        }
                        drop(copies);
                        turns.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let end = Instant::now() + Duration::from_millis(1500);
            let spawning: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(move || {
                        let mut births = 0;
                        while Instant::now() < end || births < 20 || turns.load(Ordering::Relaxed) < 50 {
                            let command = fixture("fds").fd(9, Stdio::null()).stdin(Stdio::piped());
                            assert_eq!(listed(&command).lines().count(), 4);
                            assert!(Command::new("/no/such/program").pipe_all().spawn().is_err());
                            births += 1;
                        }
                    })
                })
                .collect();
            let joined: Vec<_> = spawning.into_iter().map(|thread| thread.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(joined.iter().all(Result::is_ok));
        });
        assert_eq!(settled_descriptors(), before);
        drop(crowd);
    });
}
