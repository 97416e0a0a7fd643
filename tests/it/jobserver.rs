//! Jobs shared with others: our server and our clients, real makes on either side, and what is made good when somebody dies or cheats.

use crate::support::{Scratch, alone, fixture, fixture_path, is_root, wait_for};
use crate::talk::line;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::time::TimeValLike;
use procession::pool::{Done, JobToken, Jobserver, JobserverStyle, Outcome, Pool, Ready, Task};
use procession::{Child, Command, ErrorKind, Output, Signal, Stdio};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const STYLES: [JobserverStyle; 2] = [JobserverStyle::Fifo, JobserverStyle::Pipe];

/// What a command will find in its MAKEFLAGS.
fn flags(command: &Command) -> String {
    let mut variables = command.get_envs();
    let (_, value) = variables.find(|(name, _)| *name == "MAKEFLAGS").unwrap();
    value.unwrap().to_str().unwrap().to_owned()
}

fn auth(jobserver: &Jobserver) -> String {
    let flags = flags(&jobserver.configure(Command::new("true").env_clear()));
    flags.split_once("--jobserver-auth=").unwrap().1.to_owned()
}

fn fifo(jobserver: &Jobserver) -> PathBuf {
    auth(jobserver).strip_prefix("fifo:").unwrap().into()
}

fn descriptors(auth: &str) -> [RawFd; 2] {
    let (read, write) = auth.split_once(',').unwrap();
    [read.parse().unwrap(), write.parse().unwrap()]
}

/// Takes tokens until there are no more.
fn all(jobserver: &Jobserver) -> Vec<JobToken> {
    std::iter::from_fn(|| jobserver.try_acquire().unwrap()).collect()
}

/// A fixture that holds what it could get, and what it said.
fn holder(command: Command) -> (Child, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let said = line(child.stdout.as_mut().unwrap());
    (child, said)
}

fn let_go(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

fn is_blocking(fd: RawFd) -> bool {
    // SAFETY: the callers have it open.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_GETFL).unwrap() & libc::O_NONBLOCK == 0
}

// ---- our server alone

#[test]
fn there_are_as_many_tokens_as_jobs() {
    alone!({
        for (style, jobs) in [(STYLES[0], 1), (STYLES[1], 1), (STYLES[0], 5), (STYLES[1], 5), (STYLES[1], 4096)] {
            let jobserver = Jobserver::server(jobs, style).unwrap();
            for _ in 0..2 {
                let mut tokens = all(&jobserver);
                assert_eq!(tokens.len(), jobs, "{style:?}");
                drop(tokens.pop());
                assert_eq!(all(&jobserver.clone()).len(), 1);
            }
            assert_eq!(jobserver.recover().unwrap(), 0);
        }
    });
}

#[test]
fn numbers_out_of_bounds_are_refused() {
    alone!({
        for jobs in [0, 4097, usize::MAX] {
            let error = Jobserver::server(jobs, JobserverStyle::Fifo).unwrap_err();
            assert!(error.is_invalid_input());
            assert_eq!(error.to_string(), format!("a jobserver is for 1 to 4096 jobs and not for {jobs}"));
        }
    });
}

#[test]
fn threads_never_hold_more_than_there_is() {
    alone!({
        for style in STYLES {
            let jobserver = Jobserver::server(3, style).unwrap();
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..6 {
                    scope.spawn(|| {
                        for _ in 0..2_000 {
                            if let Some(_token) = jobserver.try_acquire().unwrap() {
                                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                                std::thread::yield_now();
                                running.fetch_sub(1, Ordering::SeqCst);
                            }
                        }
                    });
                }
            });
            assert!((2..=3).contains(&most.into_inner()));
            assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 3));
        }
    });
}

#[test]
fn nothing_is_left_behind() {
    alone!({
        let jobserver = Jobserver::server(2, JobserverStyle::Fifo).unwrap();
        let path = fifo(&jobserver);
        let directory = path.parent().unwrap().to_owned();
        let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
        assert_eq!((mode(&path) & 0o777, mode(&directory) & 0o777), (0o600, 0o700));
        // It is there as long as a clone or a token is.
        let (other, token) = (jobserver.clone(), jobserver.try_acquire().unwrap());
        drop(jobserver);
        drop(other);
        assert!(path.exists());
        drop(token);
        assert!(!path.exists() && !directory.exists());

        let jobserver = Jobserver::server(2, JobserverStyle::Pipe).unwrap();
        for number in descriptors(&auth(&jobserver)) {
            let link = fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
            let link = link.to_str().unwrap().strip_suffix(" (deleted)").unwrap();
            assert!(!Path::new(link).parent().unwrap().exists());
        }
    });
}

/// Runs this test again in another place, where it makes a server and says where that is.
fn served_from(temporary: &Path, directory: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jobserver::a_place_with_an_odd_name_is_avoided", "--nocapture"])
        .envs([("TMPDIR", temporary.as_os_str()), ("PROCESSION_TEST_PLACE", "yes".as_ref())])
        .current_dir(directory)
        .output()
        .unwrap()
}

#[test]
fn a_place_with_an_odd_name_is_avoided() {
    alone!({
        if std::env::var_os("PROCESSION_TEST_PLACE").is_some() {
            match Jobserver::server(2, JobserverStyle::Fifo) {
                Ok(jobserver) => println!("it is {}!", fifo(&jobserver).display()),
                Err(error) => println!("it is {error}!"),
            }
            return;
        }
        let scratch = Scratch::new();
        let plain = scratch.directory("plain");
        let relative = PathBuf::from("plain");
        for (temporary, expected) in [
            (&plain, &*plain),
            (&relative, Path::new("/tmp")),
            (&scratch.directory("a b"), Path::new("/tmp")),
            (&scratch.directory("a$b"), Path::new("/tmp")),
        ] {
            let text = served_from(temporary, scratch.path()).stdout_text().unwrap();
            assert!(text.contains(&format!("it is {}/procession-jobs-", expected.display())), "{temporary:?}: {text}");
        }
        assert_eq!(fs::read_dir(&plain).unwrap().count(), 0);
        let text = served_from(&scratch.join("missing"), scratch.path()).stdout_text().unwrap();
        assert!(text.contains("missing: no place for a named pipe: No such file or directory!"), "{text}");
    });
}

// ---- what a command is told

#[test]
fn a_command_keeps_its_flags_and_its_descriptors() {
    alone!({
        let jobserver = Jobserver::server(2, JobserverStyle::Pipe).unwrap();
        let taken = descriptors(&auth(&jobserver));
        let file = fs::File::open("/dev/null").unwrap();
        let given = |verb: &str| {
            let command =
                fixture(verb).env("MAKEFLAGS", "k -j8 --jobserver-auth=8,9 -- A=b").env("CARGO_MAKEFLAGS", "-j");
            // Where the numbers are taken it gets others.
            jobserver.configure(command.fd(taken[0], Stdio::borrowed(&file)).fd(taken[1], Stdio::borrowed(&file)))
        };
        let command = given("env");
        let [read, write] =
            descriptors(flags(&command).split_once("auth=").unwrap().1.strip_suffix(" -- A=b").unwrap());
        let text = command.args(["MAKEFLAGS", "CARGO_MAKEFLAGS"]).check_output_text().unwrap();
        assert_eq!(text, format!("MAKEFLAGS=k -j2 --jobserver-auth={read},{write} -- A=b\n"));
        let text = given("fds").check_output_text().unwrap();
        let has = |number: RawFd, link: &str| text.lines().any(|line| line.starts_with(&format!("{number} {link}")));
        assert!(has(taken[0], "/dev/null") && has(taken[1], "/dev/null"), "{text}");
        assert!(has(read, "/") && has(write, "/") && text.matches("procession-jobs-").count() == 2, "{text}");
        let (child, said) = holder(given("jobs").arg("9"));
        assert_eq!(said, "holds 2");
        let_go(child);
    });
}

#[test]
fn descendants_are_served_through_those_in_between() {
    alone!({
        for style in STYLES {
            let jobserver = Jobserver::server(3, style).unwrap();
            let _ours = jobserver.try_acquire().unwrap().unwrap();
            // A shell knows nothing of it, and a client hands on what it was given.
            let (jobs, fixture) = ("jobs 9 </dev/null", fixture_path().display());
            let line = format!("{fixture} {jobs}; {fixture} jobs-on; {fixture} {jobs}");
            let text = jobserver.configure(Command::shell(line)).check_output_text().unwrap();
            assert_eq!(text, "holds 3\nholds 3\nholds 3\n", "{style:?}");
        }
    });
}

// ---- children that take, die and cheat

#[test]
fn what_a_child_holds_nobody_else_has() {
    alone!({
        for style in STYLES {
            let jobserver = Jobserver::server(5, style).unwrap();
            let ours = [(); 2].map(|()| jobserver.try_acquire().unwrap().unwrap());
            let (child, said) = holder(jobserver.configure(fixture("jobs").arg("3")));
            // It was started on the first of ours, and has two more.
            assert_eq!(said, "holds 3");
            let rest = all(&jobserver);
            assert_eq!(rest.len(), 1);
            let (second, said) = holder(jobserver.configure(fixture("jobs").arg("9")));
            assert_eq!(said, "holds 1");
            let_go(second);
            let_go(child);
            drop((ours, rest));
            assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 5), "{style:?}");
        }
    });
}

#[test]
fn a_child_can_wait_for_a_token() {
    alone!({
        for style in STYLES {
            let jobserver = Jobserver::server(3, style).unwrap();
            let mut ours = all(&jobserver);
            let (mut child, said) = holder(jobserver.configure(fixture("jobs").args(["3", "wait"])));
            assert_eq!(said, "waits with 1");
            ours.truncate(1);
            let mut said = said;
            while said.starts_with("waits") {
                said = line(child.stdout.as_mut().unwrap());
            }
            assert_eq!(said, "holds 3");
            assert!(jobserver.try_acquire().unwrap().is_none());
            let_go(child);
            assert!(seems_to_have(&jobserver));
        }
    });
}

/// Whether there seems to be a token.
fn seems_to_have(jobserver: &Jobserver) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    poll(&mut [PollFd::new(jobserver.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn tokens_of_the_dead_are_made_good() {
    alone!({
        for style in STYLES {
            let jobserver = Jobserver::server(6, style).unwrap();
            let ours = [(); 2].map(|()| jobserver.try_acquire().unwrap().unwrap());
            let (child, said) = holder(jobserver.configure(fixture("jobs").arg("4")));
            assert_eq!(said, "holds 4");
            child.handle().kill().unwrap();
            let mut child = child;
            assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL));
            assert_eq!(all(&jobserver).len(), 1);
            assert_eq!(jobserver.recover().unwrap(), 3, "{style:?}");
            assert_eq!(jobserver.recover().unwrap(), 0);
            assert_eq!(all(&jobserver).len(), 4);
            drop(ours);
            assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 6));
        }
    });
}

#[test]
fn tokens_that_nobody_took_are_taken_out() {
    alone!({
        let jobserver = Jobserver::server(3, JobserverStyle::Fifo).unwrap();
        let cheat =
            |text: &str| fs::OpenOptions::new().write(true).open(fifo(&jobserver)).unwrap().write_all(text.as_bytes());
        cheat("rogue").unwrap();
        assert_eq!(jobserver.recover().unwrap(), -5);
        assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 3));
        let ours = all(&jobserver);
        cheat("x").unwrap();
        assert_eq!(jobserver.recover().unwrap(), -1);
        drop(ours);
        assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 3));

        let jobserver = Jobserver::server(3, JobserverStyle::Pipe).unwrap();
        let command = jobserver.configure(fixture("writefd"));
        let [_, write] = descriptors(flags(&command).rsplit_once('=').unwrap().1);
        command.args([&write.to_string(), "rogue"]).check_call().unwrap();
        assert_eq!(jobserver.recover().unwrap(), -5);
        assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 3));
    });
}

// ---- a pipe of somebody else's

/// What the fixture says of a jobserver that is a pipe with these bytes, while we look at it; and what is in the pipe afterwards.
fn client_of(bytes: &[u8], user: Option<u32>) -> Option<(String, Vec<u8>)> {
    let (mut reader, mut writer) = procession::pipe().unwrap();
    writer.write_all(bytes).unwrap();
    let command = fixture("jobs").arg("9").env("MAKEFLAGS", " -j9 --jobserver-auth=3,4");
    let mut command = command.fd(3, Stdio::borrowed(&reader)).fd(4, Stdio::borrowed(&writer));
    command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(user) = user {
        command = command.user(user).group(user);
    }
    let mut child = match command.spawn() {
        Err(error) if user.is_some() && error.kind() == ErrorKind::PermissionDenied => return None,
        child => child.unwrap(),
    };
    let said = line(child.stdout.as_mut().unwrap());
    // The flags belong to what we share, so we would see a change.
    assert!(is_blocking(reader.as_raw_fd()) && is_blocking(writer.as_raw_fd()));
    let_go(child);
    // The command has copies.
    drop((command, writer));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    rest.sort_unstable();
    Some((said, rest))
}

#[test]
fn a_pipe_stays_blocking_and_gets_its_own_bytes_back() {
    alone!({
        for bytes in [&b""[..], b"abc"] {
            let (said, rest) = client_of(bytes, None).unwrap();
            assert_eq!((said, &*rest), (format!("holds {}", bytes.len() + 1), bytes));
        }
    });
}

#[test]
fn a_pipe_of_another_user_is_no_obstacle() {
    alone!({
        // Nobody may open it anew, so it is used as it is.
        if !is_root() {
            eprintln!("skipped: takes root");
            return;
        }
        let Some((said, rest)) = client_of(b"abc", Some(65_534)) else {
            eprintln!("skipped: nobody may not start {}", fixture_path().display());
            return;
        };
        assert_eq!((&*said, &*rest), ("holds 4", &b"abc"[..]));
    });
}

#[test]
fn what_cannot_be_used_is_said() {
    alone!({
        let scratch = Scratch::new();
        let file = scratch.file("file", 0o644, "keep me");
        let said = |flags: &str| {
            let command = fixture("jobs").arg("1").env("MAKEFLAGS", flags).env_remove("CARGO_MAKEFLAGS");
            command.fd(3, fs::File::open("/dev/null").unwrap()).accept_any().check_output_text().unwrap()
        };
        assert_eq!(said(""), "none\n");
        assert_eq!(said("n -j4"), "none\n");
        assert_eq!(said(" --jobserver-auth=-2,-2"), "none\n");
        assert_eq!(
            said(" --jobserver-auth=later"),
            "Unsupported jobserver: MAKEFLAGS names one of unknown style: \"later\"\n"
        );
        let text = said(" --jobserver-auth=101,102");
        assert!(text.starts_with("Io jobserver: MAKEFLAGS names descriptors 101 and 102, "), "{text}");
        assert!(text.contains("`+`") && text.ends_with(": Bad file descriptor\n"), "{text}");
        let text = said(" --jobserver-auth=3,3");
        assert!(text.ends_with(": they are not the ends of a pipe\n"), "{text}");
        let text = said(&format!(" --jobserver-auth=fifo:{}", scratch.join("gone").display()));
        assert!(
            text.ends_with("/gone: the pipe that MAKEFLAGS names cannot be used: No such file or directory\n"),
            "{text}"
        );
        let text = said(&format!(" --jobserver-auth=fifo:{}", file.display()));
        assert!(text.ends_with("/file: the pipe that MAKEFLAGS names cannot be used: it is none\n"), "{text}");
        assert_eq!(fs::read_to_string(file).unwrap(), "keep me");
    });
}

// ---- real makes

/// The make of this machine, as major and minor version.
fn make() -> Option<(u32, u32)> {
    let text = Command::new("make").arg("--version").check_output_text();
    let Ok(text) = text else {
        eprintln!("skipped: there is no make");
        return None;
    };
    let version = text.lines().next().and_then(|line| line.strip_prefix("GNU Make "));
    let Some((major, minor)) = version.and_then(|version| version.split_once('.')) else {
        eprintln!("skipped: this make is not GNU's: {text}");
        return None;
    };
    let minor = minor.split('.').next().unwrap_or_default();
    Some((major.parse().unwrap(), minor.parse().unwrap()))
}

/// The styles that it knows.
fn styles(version: (u32, u32)) -> &'static [JobserverStyle] {
    match version {
        (4, minor) if minor >= 4 => &STYLES,
        (4, minor) if minor >= 2 => &[JobserverStyle::Pipe],
        (major, _) if major > 4 => &STYLES,
        _ => {
            eprintln!("skipped: make {}.{} is too old", version.0, version.1);
            &[]
        }
    }
}

/// A make that knows no more of the outside than it should.
fn make_in(scratch: &Scratch, makefile: &str) -> Command {
    scratch.file("Makefile", 0o644, makefile);
    let command = Command::new("make").arg("-C").arg(scratch.path()).arg("--no-print-directory");
    command.env("FIXTURE", fixture_path()).env_remove("MAKEFLAGS").env_remove("CARGO_MAKEFLAGS").env_remove("MAKELEVEL")
}

/// It did what it should, and had nothing to complain of, such as a token too many or too few.
#[track_caller]
fn without_complaint(output: Output) -> String {
    assert!(output.success() && output.stderr().is_empty(), "{output:?}");
    output.stdout_text().unwrap()
}

#[test]
fn make_runs_as_many_jobs_as_our_server_has() {
    alone!({
        let Some(version) = make() else { return };
        for style in styles(version) {
            let scratch = Scratch::new();
            // Each job ends when it has seen the others; so three must run at a time.
            let meet = "all: a b c\na b c:\n\t@touch met-$@; i=0; until [ -e met-a -a -e met-b -a -e met-c ]; do \
                        i=$$((i+1)); [ $$i -lt 2000 ] || exit 1; sleep 0.01; done\n";
            let jobserver = Jobserver::server(3, *style).unwrap();
            let token = jobserver.try_acquire().unwrap();
            let text = without_complaint(jobserver.configure(make_in(&scratch, meet)).output().unwrap());
            assert_eq!(text, "");
            drop(token);
            assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 3), "{style:?}");
        }
    });
}

#[test]
fn two_makes_run_no_more_jobs_than_our_server_has() {
    alone!({
        let Some(version) = make() else { return };
        for style in styles(version) {
            let scratch = Scratch::new();
            let jobs = "all: 1 2 3 4 5 6\n1 2 3 4 5 6:\n\t@echo + >>log; sleep 0.03; echo - >>log\n";
            let jobserver = Jobserver::server(3, *style).unwrap();
            let command = jobserver.configure(make_in(&scratch, jobs)).stdout(Stdio::piped()).stderr(Stdio::piped());
            // Both at first: the makes are quick to take what is left.
            let tokens = [(); 2].map(|()| jobserver.try_acquire().unwrap().unwrap());
            let makes = tokens.map(|token| (command.spawn().unwrap(), token));
            for (mut child, token) in makes {
                without_complaint(child.communicate(()).unwrap());
                drop(token);
            }
            let (mut running, mut most, mut ended) = (0, 0, 0);
            for line in fs::read_to_string(scratch.join("log")).unwrap().lines() {
                if line == "+" {
                    running += 1
                } else {
                    (running, ended) = (running - 1, ended + 1)
                }
                most = most.max(running);
            }
            assert_eq!((running, ended), (0, 12));
            assert!((2..=3).contains(&most), "{most} at a time");
            assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 3), "{style:?}");
        }
    });
}

#[test]
fn tokens_of_a_killed_make_are_made_good() {
    alone!({
        let Some(version) = make() else { return };
        for style in styles(version) {
            let scratch = Scratch::new();
            let jobserver = Jobserver::server(3, *style).unwrap();
            let _token = jobserver.try_acquire().unwrap();
            let command = jobserver.configure(make_in(&scratch, "all: a b c\na b c:\n\t@touch $@; exec sleep 60\n"));
            let mut child = command.spawn().unwrap();
            wait_for("three jobs", || ["a", "b", "c"].iter().all(|name| scratch.join(name).exists()));
            assert!(jobserver.try_acquire().unwrap().is_none());
            assert!(child.stop(&procession::Stop::kill()).unwrap().survivors().is_empty());
            assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (2, 2), "{style:?}");
        }
    });
}

#[test]
fn a_rule_of_make_shares_its_jobs_with_us() {
    alone!({
        let Some(version) = make() else { return };
        let jobs =
            "all:\n\t+@$$FIXTURE fds\n\t+@$$FIXTURE jobs 9 </dev/null\n\t+@$$FIXTURE jobs-on\n\t+@$$FIXTURE fds\n";
        for style in styles(version) {
            let scratch = Scratch::new();
            let command = with_style(make_in(&scratch, jobs).arg("-j3"), version, *style);
            let text = without_complaint(command.output().unwrap());
            // What make made of its pipe is as before.
            let (before, after) = text.split_once("holds 3\nholds 3\n").unwrap_or_else(|| panic!("{text}"));
            let pipes =
                |text: &str| text.lines().filter(|line| line.contains("fifo") || line.contains("pipe:")).count();
            assert_eq!(before, after);
            assert!(*style == JobserverStyle::Fifo || pipes(before) >= 2, "{before}");
        }
    });
}

#[test]
fn a_rule_that_is_not_recursive_is_told_of_the_plus() {
    alone!({
        let Some(version) = make() else { return };
        let jobs = "all:\n\t@$$FIXTURE jobs 9 </dev/null || true\n";
        for style in styles(version) {
            let scratch = Scratch::new();
            let command = with_style(make_in(&scratch, jobs).arg("-j3"), version, *style);
            let text = without_complaint(command.output().unwrap());
            match style {
                JobserverStyle::Fifo => assert_eq!(text, "holds 3\n"),
                // From 4.4 on make says so itself.
                JobserverStyle::Pipe if version >= (4, 4) => assert_eq!(text, "none\n"),
                JobserverStyle::Pipe => assert!(text.contains("begin with `+`"), "{text}"),
            }
        }
        let scratch = Scratch::new();
        assert_eq!(without_complaint(make_in(&scratch, jobs).output().unwrap()), "none\n");
    });
}

fn with_style(command: Command, version: (u32, u32), style: JobserverStyle) -> Command {
    match style {
        _ if version < (4, 4) => command,
        JobserverStyle::Fifo => command.arg("--jobserver-style=fifo"),
        JobserverStyle::Pipe => command.arg("--jobserver-style=pipe"),
    }
}

// ---- pools

/// How many ran at a time at most, by a file with a `+` for each beginning and a `-` for each end.
fn most_at_a_time(log: &Path) -> (usize, usize) {
    let (mut running, mut most, mut ended) = (0_usize, 0, 0);
    for line in fs::read_to_string(log).unwrap().lines() {
        if line == "+" {
            running += 1;
        } else {
            (running, ended) = (running - 1, ended + 1);
        }
        most = most.max(running);
    }
    assert_eq!(running, 0);
    (most, ended)
}

/// A command that says in the file when it begins and ends.
fn logged(log: &Path) -> Command {
    Command::shell(format!("echo + >>{0}; sleep 0.02; echo - >>{0}", log.display()))
}

#[test]
fn two_pools_share_a_server() {
    alone!({
        for style in STYLES {
            let scratch = Scratch::new();
            let log = scratch.join("log");
            let jobserver = Jobserver::server(3, style).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let pool = Pool::new(8).jobserver(jobserver.clone());
                        let done = pool.map((0..12).map(|_| logged(&log)));
                        assert!(done.iter().all(Done::success), "{done:?}");
                    });
                }
            });
            let (most, ended) = most_at_a_time(&log);
            assert!((2..=3).contains(&most) && ended == 24, "{most} at a time, {ended} in all");
            assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 3), "{style:?}");
        }
    });
}

#[test]
fn a_pool_and_its_makes_run_no_more_jobs_than_the_server_has() {
    alone!({
        let Some(version) = make() else { return };
        for style in styles(version) {
            let scratch = Scratch::new();
            let jobserver = Jobserver::server(4, *style).unwrap();
            let pool = Pool::new(3).jobserver(jobserver.clone());
            let jobs = "all: 1 2 3 4\n1 2 3 4:\n\t@echo + >>log; sleep 0.03; echo - >>log\n";
            let done = pool.map((0..3).map(|_| make_in(&scratch, jobs)));
            for done in done {
                without_complaint(done.into_result().unwrap());
            }
            let (most, ended) = most_at_a_time(&scratch.join("log"));
            assert!((3..=4).contains(&most) && ended == 12, "{most} at a time, {ended} in all");
            assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 4), "{style:?}");
        }
    });
}

/// The test again, as a recipe of make: its pool has as many places as it likes, and make's tokens.
#[test]
fn a_pool_under_make_runs_no_more_than_make_was_told() {
    alone!({
        const LOG: &str = "PROCESSION_TEST_JOBS_LOG";
        if let Some(log) = std::env::var_os(LOG) {
            let jobserver = Jobserver::from_env().unwrap().unwrap();
            let done = Pool::new(8).jobserver(jobserver).map((0..9).map(|_| logged(Path::new(&log))));
            assert!(done.iter().all(Done::success), "{done:?}");
            return;
        }
        let Some(version) = make() else { return };
        for style in styles(version) {
            let scratch = Scratch::new();
            let jobs = "all: a b\na b:\n\t+@$$AGAIN\n";
            let again = std::env::args().map(|word| procession::quote(word).to_string());
            let again: Vec<String> = again.collect();
            let command = with_style(make_in(&scratch, jobs).arg("-j3"), version, *style);
            let command = command.env("AGAIN", again.join(" ")).env(LOG, scratch.join("log"));
            let output = command.output().unwrap();
            assert!(output.success() && output.stdout_lossy().matches("1 passed").count() == 2, "{output:?}");
            let (most, ended) = most_at_a_time(&scratch.join("log"));
            assert!((2..=3).contains(&most) && ended == 18, "{most} at a time, {ended} in all");
        }
    });
}

#[test]
fn tokens_that_a_killed_task_took_with_it_come_back() {
    alone!({
        for style in STYLES {
            let jobserver = Jobserver::server(4, style).unwrap();
            let pool = Pool::new(4).jobserver(jobserver.clone());
            let (mut reader, writer) = procession::pipe().unwrap();
            let (waits_for, _never) = procession::pipe().unwrap();
            let holds = fixture("jobs").arg("9").stdout(writer).stdin(waits_for);
            let pending = pool.apply_async(holds).unwrap();
            assert_eq!(line(&mut reader), "holds 4");
            assert!(jobserver.try_acquire().unwrap().is_none());
            pending.cancel();
            assert_eq!(pending.wait().outcome(), Outcome::Cancelled { confirmed: true });
            assert_eq!((jobserver.recover().unwrap(), all(&jobserver).len()), (0, 4), "{style:?}");
        }
    });
}

#[test]
fn without_further_tokens_one_task_runs_after_the_other() {
    alone!({
        const LOG: &str = "PROCESSION_TEST_JOBS_LOG";
        if let Some(log) = std::env::var_os(LOG) {
            let jobserver = Jobserver::from_env().unwrap().unwrap();
            let done = Pool::new(8).jobserver(jobserver).map((0..6).map(|_| logged(Path::new(&log))));
            assert!(done.iter().all(Done::success), "{done:?}");
            return;
        }
        let scratch = Scratch::new();
        let fifo = scratch.join("empty");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let again = Command::new(std::env::current_exe().unwrap()).args(std::env::args_os().skip(1));
        let again = again.env("MAKEFLAGS", format!("-j9 --jobserver-auth=fifo:{}", fifo.display()));
        let output = again.env(LOG, scratch.join("log")).output().unwrap();
        assert!(output.success() && output.stdout_lossy().contains("1 passed"), "{output:?}");
        assert_eq!(most_at_a_time(&scratch.join("log")), (1, 6));
    });
}

#[test]
fn lost_tokens_are_made_good_when_nobody_runs_on_one() {
    alone!({
        let jobserver = Jobserver::server(3, JobserverStyle::Fifo).unwrap();
        let mut thief = fs::OpenOptions::new().read(true).open(fifo(&jobserver)).unwrap();
        thief.read_exact(&mut [0; 2]).unwrap();
        let pool = Pool::new(8).jobserver(jobserver.clone());
        assert!(pool.map([Command::new("true")]).iter().all(Done::success));
        assert_eq!(all(&jobserver).len(), 3);
    });
}

#[test]
fn a_token_that_comes_from_outside_is_found() {
    alone!({
        let jobserver = Jobserver::server(2, JobserverStyle::Fifo).unwrap();
        let ours = all(&jobserver);
        let pool = Pool::new(2).jobserver(jobserver.clone());
        let pending = pool.apply_async(Command::new("true")).unwrap();
        let before = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
        assert!(pending.wait_timeout(std::time::Duration::from_millis(300)).is_none());
        let after = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
        // Thirty looks; a busy loop is a thousand times as many.
        let switches = after.voluntary_context_switches() - before.voluntary_context_switches();
        assert!(switches < 300, "{switches}");
        let (a, b) = (before.user_time() + before.system_time(), after.user_time() + after.system_time());
        assert!((b - a).num_milliseconds() < 150, "{a} {b}");
        drop(ours);
        assert!(pending.into_done().success());
    });
}

#[test]
fn a_service_takes_no_token() {
    alone!({
        let jobserver = Jobserver::server(1, JobserverStyle::Fifo).unwrap();
        let pool = Pool::new(4).jobserver(jobserver);
        let done = pool.map([
            Task::new(Command::shell("echo \"flags $MAKEFLAGS.\"; exec sleep 600").env_remove("MAKEFLAGS"))
                .name("server")
                .service(Ready::line("flags .")),
            Task::new(Command::new("true")).after("server"),
        ]);
        assert!(done[1].success(), "{done:?}");
    });
}
