//! What a child is: identity, limits, session and group, signals, what it does when its parent ends; and hooks.

use crate::support::{Scratch, alone, fixture, is_root, is_running, wait_for};
use nix::sys::resource::{Resource as Nix, getrlimit};
use procession::{Command, ErrorKind, Resource, Signal, SpawnRoute, Stdio, Step};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[track_caller]
fn said(command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.success(), "{output:?}");
    output.stdout_text().unwrap().trim_end().to_owned()
}

/// `name=value` words.
fn words(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

// ---- identity ----

/// H5: all three ids, the groups of the user and none of ours.
#[test]
fn a_user_brings_group_and_groups() {
    alone!({
        if !is_root() {
            return;
        }
        let ids = said(fixture("ids").user("nobody"));
        let ids = words(&ids);
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        assert_eq!(ids["uid"], vec![nobody.uid.to_string(); 3].join(","));
        assert_eq!(ids["gid"], vec![nobody.gid.to_string(); 3].join(","));
        assert_eq!(ids["groups"], nobody.gid.to_string());
        assert_eq!(said(fixture("ids").user(nobody.uid.as_raw())), said(fixture("ids").user("nobody")));
    });
}

#[test]
fn groups_group_and_user_can_be_chosen_apart() {
    alone!({
        if !is_root() {
            return;
        }
        // Groups of our own, which a child must not have by accident.
        nix::unistd::setgroups(&[8, 9].map(nix::unistd::Gid::from_raw)).unwrap();
        let cases = [
            (fixture("ids").user(1234).group(2345).groups([7_u32, 5, 6]), "1234", "2345", "5,6,7"),
            // CVE-2023-6507: an empty list is a list.
            (fixture("ids").user(1234).group(2345).groups::<u32>([]), "1234", "2345", ""),
            (fixture("ids").groups::<u32>([]), "0", "0", ""),
            (fixture("ids").group(2345).groups([1_u32]), "0", "2345", "1"),
            // A number that the user database does not know has no groups but those given.
            (fixture("ids").user(1234).group(2345), "1234", "2345", ""),
            // From root to root is a change as well: our supplementary groups are dropped for those of the database.
            (fixture("ids").user(1234).group("root").groups(["root"]), "1234", "0", "0"),
        ];
        for (command, user, group, groups) in cases {
            let ids = said(command.clone());
            assert_eq!(
                ids.trim_end(),
                format!("uid={user},{user},{user} gid={group},{group},{group} groups={groups}"),
                "{command:?}"
            );
        }
        let own = words(&said(fixture("ids")))["groups"].clone();
        assert_eq!(own, "8,9");
        assert_eq!(words(&said(fixture("ids").user(1234).group(2345).keep_groups()))["groups"], own);
    });
}

/// H5: what root gives up includes its capabilities and the way back.
#[test]
fn a_user_has_no_way_back() {
    alone!({
        if !is_root() {
            return;
        }
        let status = said(Command::new("cat").arg("/proc/self/status").user("nobody"));
        let line = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!((line("CapEff:"), line("CapPrm:")), ("0".repeat(16), "0".repeat(16)));
    });
}

#[test]
fn who_may_not_change_its_user_is_told_the_step() {
    alone!({
        if is_root() {
            // Root without the right: a child that is nobody and has no library in it cannot be asked.
            return;
        }
        let error = fixture("ids").user("root").spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert_eq!(error.failed_step(), Some("setgroups"), "{error}");
        let error = fixture("ids").group(0).spawn().unwrap_err();
        assert_eq!((error.kind(), error.failed_step()), (ErrorKind::PermissionDenied, Some("setgid")), "{error}");
        let own = nix::unistd::getuid().as_raw();
        assert!(said(fixture("ids").user(own)).starts_with(&format!("uid={own},{own},{own} ")));
    });
}

/// The rights that the earlier steps need are there, and those after have what they ask for.
#[test]
fn every_step_together() {
    alone!({
        if !is_root() {
            return;
        }
        let script = "umask; pwd; ulimit -n; cut -d' ' -f5,6 /proc/$$/stat; cat /proc/$$/oom_score_adj; nice; id -u; \
                      grep NoNew /proc/$$/status";
        let command = Command::shell(script)
            .current_dir("/usr")
            .umask(0o027)
            .setsid()
            .nice(3)
            .oom_score(500)
            .limit(Resource::Nofile, 99, 99)
            .user("nobody")
            .parent_death_signal(Signal::TERM)
            .no_new_privileges()
            .signal_mask([Signal::USR1]);
        // The death signal is set by a helper thread that stays: in a process of its own.
        let Some(host) = hosted(|| {
            let child = command.output().unwrap();
            print!("{} {}", child.pid().unwrap(), child.stdout_text().unwrap().replace('\n', " "));
        }) else {
            return;
        };
        let text = String::from_utf8(host.stdout).unwrap();
        let text = text.split("running 1 test").nth(1).unwrap();
        let text = text.split("...").nth(1).unwrap();
        let found: Vec<&str> = text.split_ascii_whitespace().collect();
        let pid = found[0];
        // Whoever runs the tests may be nice already.
        let own: i32 = said(fixture("nice")).parse().unwrap();
        let nice = (own + 3).min(19).to_string();
        let expected = [pid, "0027", "/usr", "99", pid, pid, "500", &nice, "65534", "NoNewPrivs:", "1"];
        assert_eq!(found, expected);
    });
}

// ---- files and limits ----

#[test]
fn umask_is_the_childs_alone() {
    alone!({
        let scratch = Scratch::new();
        assert_eq!(said(fixture("umask").umask(0o077)), "0077");
        let path = scratch.join("theirs");
        assert_eq!(said(fixture("umask-file").arg(&path).umask(0o026)), "0640");
        // H12: files that another thread makes meanwhile have the modes that they should have.
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    let path = scratch.join("ours");
                    let file = File::create_new(&path).unwrap();
                    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
                    fs::remove_file(path).unwrap();
                    count += 1;
                }
                count
            });
            for _ in 0..200 {
                fixture("exit").arg("0").umask(0o777).check_call().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(maker.join().unwrap() > 0);
        });
    });
}

/// H16: each limit arrives, and one takes effect; E6: the others are those of the host.
#[test]
fn limits_arrive() {
    alone!({
        let unlimited = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        let resources = [
            (Resource::Cpu, "cpu", Nix::RLIMIT_CPU),
            (Resource::FileSize, "fsize", Nix::RLIMIT_FSIZE),
            (Resource::Data, "data", Nix::RLIMIT_DATA),
            (Resource::Stack, "stack", Nix::RLIMIT_STACK),
            (Resource::Core, "core", Nix::RLIMIT_CORE),
            (Resource::Nproc, "nproc", Nix::RLIMIT_NPROC),
            (Resource::Nofile, "nofile", Nix::RLIMIT_NOFILE),
            (Resource::Memlock, "memlock", Nix::RLIMIT_MEMLOCK),
            (Resource::AddressSpace, "as", Nix::RLIMIT_AS),
        ];
        for (resource, name, number) in resources {
            let (soft, hard) = getrlimit(number).unwrap();
            let chosen = (hard.min(1 << 32) - 1).min(1_000_000_000);
            let text = said(fixture("limits").arg(name).limit(resource, chosen, hard));
            assert_eq!(text, format!("{name} {chosen} {}", unlimited(hard)));
            let text = said(fixture("limits").arg(name));
            assert_eq!(text, format!("{name} {} {}", unlimited(soft), unlimited(hard)));
            assert_eq!(getrlimit(number).unwrap(), (soft, hard));
        }
        let scratch = Scratch::new();
        let big = fixture("spew").arg("100000").stdout(Stdio::write(scratch.join("big")));
        let status = big.limit(Resource::FileSize, 1000, 1000).status().unwrap();
        assert_eq!(status.signal(), Some(Signal::XFSZ));
        assert_eq!(fs::metadata(scratch.join("big")).unwrap().len(), 1000);
        if !is_root() {
            let hard = getrlimit(Nix::RLIMIT_NOFILE).unwrap().1;
            let error = fixture("exit").limit(Resource::Nofile, hard + 1, hard + 1).spawn().unwrap_err();
            assert_eq!((error.kind(), error.failed_step()), (ErrorKind::PermissionDenied, Some("setrlimit")));
        }
    });
}

#[test]
fn scheduling_and_memory_wishes_arrive() {
    alone!({
        let own: i32 = said(fixture("nice")).parse().unwrap();
        assert_eq!(said(fixture("nice").nice(4)), (own + 4).min(19).to_string());
        assert_eq!(said(fixture("nice").nice(i32::MAX)), "19");
        let processors = said(fixture("affinity"));
        let last = processors.rsplit(',').next().unwrap().to_owned();
        assert_eq!(said(fixture("affinity").cpu_affinity([last.parse().unwrap()])), last);
        assert_eq!(said(fixture("affinity")), processors);
        let error = fixture("exit").cpu_affinity([60_000]).spawn().unwrap_err();
        assert_eq!((error.failed_step(), error.raw_os_error()), (Some("affinity"), Some(libc::EINVAL)));
        let own: i32 = said(fixture("oom")).parse().unwrap();
        for score in [own.max(7), 1000, 999] {
            assert_eq!(said(fixture("oom").oom_score(score)), score.to_string());
        }
        if has_capability(24) {
            for score in [-1000, -17, 0, 10] {
                assert_eq!(said(fixture("oom").oom_score(score)), score.to_string());
            }
        } else {
            let error = fixture("exit").oom_score(-1000).spawn().unwrap_err();
            assert_eq!((error.kind(), error.failed_step()), (ErrorKind::PermissionDenied, Some("oom score")));
        }
        if !has_capability(23) {
            let error = fixture("exit").nice(-20).spawn().unwrap_err();
            assert_eq!((error.kind(), error.failed_step()), (ErrorKind::PermissionDenied, Some("nice")));
        }
        assert_eq!(said(fixture("oom")), own.to_string());
    });
}

/// CAP_SYS_NICE is 23, CAP_SYS_RESOURCE is 24, which containers withhold from root.
fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & 1 << number != 0
}

#[test]
fn no_new_privileges_is_set_in_the_child_alone() {
    alone!({
        let own = said(fixture("nnp"));
        assert_eq!(said(fixture("nnp").no_new_privileges()), "1");
        assert_eq!(said(fixture("nnp")), own);
    });
}

// ---- sessions, groups ----

#[test]
fn sessions_and_groups() {
    alone!({
        let ours = words(&said(fixture("pgid")));
        let led = words(&said(fixture("pgid").setsid()));
        assert_eq!((&led["sid"], &led["pgid"]), (&led["pid"], &led["pid"]));
        let group = words(&said(fixture("pgid").process_group(0)));
        assert_eq!((&group["sid"], &group["pgid"]), (&ours["sid"], &group["pid"]));
        let mut leader = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).spawn().unwrap();
        let member = words(&said(fixture("pgid").process_group(leader.id() as i32)));
        assert_eq!(member["pgid"], leader.id().to_string());
        assert_ne!(member["pid"], leader.id().to_string());
        assert!(leader.wait().unwrap().success());
        let error = fixture("exit").process_group(i32::MAX).spawn().unwrap_err();
        assert_eq!(error.failed_step(), Some("setpgid"), "{error}");
    });
}

/// D15: the group is there when spawn returns.
#[test]
fn a_group_can_be_signalled_at_once() {
    alone!({
        for _ in 0..200 {
            let mut child = fixture("sleep").arg("60000").process_group(0).spawn().unwrap();
            assert!(child.send_signal_group(Signal::KILL).unwrap());
            assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL));
        }
    });
}

// ---- signals ----

fn state(command: Command) -> BTreeMap<String, String> {
    words(&said(command))
}

fn set_action(signal: i32, action: libc::sighandler_t) -> libc::sighandler_t {
    // SAFETY: the default or ignoring action, or a handler that is a function for the life of the process.
    unsafe { libc::signal(signal, action) }
}

extern "C" fn handler(_: i32) {}

/// A5: what runtimes ignore is default in the child; what the user ignores on purpose stays ignored.
#[test]
fn dispositions_are_default_but_for_what_the_host_was_told_to_ignore() {
    alone!({
        let quiet = state(fixture("sigstate"));
        assert_eq!((quiet["blocked"].as_str(), quiet["default-pipe"].as_str()), ("", "yes"));
        let hup = set_action(libc::SIGHUP, libc::SIG_IGN);
        let xfsz = set_action(libc::SIGXFSZ, libc::SIG_IGN);
        let usr1 = set_action(libc::SIGUSR1, handler as *const () as libc::sighandler_t);
        let plain = state(fixture("sigstate"));
        let unrestored = state(fixture("sigstate").restore_signals(false));
        // SAFETY: a hook that does nothing.
        let hooked = state(unsafe { fixture("sigstate").restore_signals(false).pre_exec(|| Ok(())) });
        let chosen = fixture("sigstate").default_signal(Signal::HUP).ignore_signal(Signal::TERM);
        let chosen = state(chosen.ignore_signal(Signal::PIPE));
        set_action(libc::SIGHUP, hup);
        set_action(libc::SIGXFSZ, xfsz);
        set_action(libc::SIGUSR1, usr1);
        let base = quiet["ignored"].clone();
        let with = |signals: &[i32]| {
            let mut all: Vec<i32> =
                base.split(',').filter_map(|word| word.parse().ok()).chain(signals.to_vec()).collect();
            all.sort_unstable();
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        assert_eq!(plain["ignored"], with(&[libc::SIGHUP]));
        assert_eq!(unrestored["ignored"], with(&[libc::SIGHUP, libc::SIGPIPE, libc::SIGXFSZ]));
        assert_eq!(hooked, unrestored);
        assert_eq!(chosen["ignored"], with(&[libc::SIGPIPE, libc::SIGTERM]));
    });
}

/// A5: `yes | head -1` ends.
#[test]
fn a_broken_pipe_ends_a_writer() {
    alone!({
        assert!(Command::shell("yes | head -1").output().unwrap().success());
        // Not the helper, which puts the signal right by itself.
        let mut child = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::PIPE));
    });
}

/// D20: empty by default, the caller's own if asked, or as chosen; the caller's stays.
#[test]
fn signal_masks() {
    alone!({
        use nix::sys::signal::{SigSet, SigmaskHow, Signal as N, pthread_sigmask};
        let mut set = SigSet::empty();
        set.add(N::SIGUSR1);
        set.add(N::SIGCHLD);
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&set), Some(&mut before)).unwrap();
        let blocked = |command: Command| state(command)["blocked"].clone();
        assert_eq!(blocked(fixture("sigstate")), "");
        assert_eq!(blocked(fixture("sigstate").inherit_signal_mask()), "10,17");
        assert_eq!(blocked(fixture("sigstate").signal_mask([Signal::TERM, Signal::HUP])), "1,15");
        // SAFETY: a hook that does nothing.
        let hooked = unsafe { fixture("sigstate").inherit_signal_mask().pre_exec(|| Ok(())) };
        assert_eq!(blocked(hooked), "10,17");
        let mut after = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), Some(&mut after)).unwrap();
        assert_eq!(after, set);
    });
}

// ---- the parent's end ----

const HOSTED: &str = "PROCESSION_TEST_HOSTED";

/// Runs the body in one more process and returns what it said; `None` in that process. For what leaves something behind in the
/// process by design, or ends it.
fn hosted(body: impl FnOnce()) -> Option<process::Output> {
    if std::env::var_os(HOSTED).is_some() {
        body();
        let _ = io::stdout().flush();
        process::exit(0);
    }
    let exe = std::env::current_exe().unwrap();
    let host = process::Command::new(exe).args(std::env::args_os().skip(1)).env(HOSTED, "1").output().unwrap();
    Some(host)
}

/// D17: the thread that started the child may end; if the process ends, however it does, the child does as well.
#[test]
fn a_death_signal_is_of_the_process_and_not_of_the_thread() {
    alone!({
        let named = std::env::var_os("PROCESSION_TEST_FILE").map(PathBuf::from);
        // The host will be killed, so it makes nothing that would have to go.
        let scratch = named.is_none().then(Scratch::new);
        let file = named.or_else(|| Some(scratch.as_ref()?.join("pid"))).unwrap();
        // SAFETY: no other thread reads the environment now.
        unsafe { std::env::set_var("PROCESSION_TEST_FILE", &file) };
        let host = hosted(|| {
            let threads = || fs::read_dir("/proc/self/task").unwrap().count();
            let start = || {
                let command = fixture("pingpong").stdin(Stdio::piped()).stdout(Stdio::piped());
                command.parent_death_signal(Signal::KILL).spawn().unwrap()
            };
            let mut first = std::thread::spawn(start).join().unwrap();
            first.kill().unwrap();
            assert_eq!(first.wait().unwrap().signal(), Some(Signal::KILL));
            // From now on the only thread that comes and goes is the one that starts the child.
            wait_for("the end of the threads", || threads() == 3);
            let mut child = std::thread::spawn(start).join().unwrap();
            wait_for("the end of the thread", || threads() == 3);
            child.stdin.as_mut().unwrap().write_all(b"alive\n").unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "pong alive\n");
            fs::write(&file, child.id().to_string()).unwrap();
            // SAFETY: integer arguments.
            unsafe { libc::kill(process::id() as i32, libc::SIGKILL) };
        });
        // SAFETY: no other thread reads the environment now.
        unsafe { std::env::remove_var("PROCESSION_TEST_FILE") };
        let Some(host) = host else { return };
        let pid = fs::read_to_string(&file);
        let text = String::from_utf8_lossy(&host.stderr).into_owned();
        let pid: u32 = pid.unwrap_or_else(|_| panic!("the host failed: {text}")).parse().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&host.status), Some(libc::SIGKILL));
        wait_for("the child's end", || !is_running(pid));
    });
}

#[test]
fn the_death_signal_is_the_one_asked_for_and_survives_a_change_of_user() {
    alone!({
        let Some(host) = hosted(|| {
            let plain = said(fixture("pdeathsig").parent_death_signal(Signal::USR2));
            let none = said(fixture("pdeathsig"));
            let command = fixture("pdeathsig").parent_death_signal(Signal::TERM);
            let user = if is_root() { said(command.user("nobody")) } else { said(command) };
            assert_eq!((plain.as_str(), none.as_str(), user.as_str()), ("12", "0", "15"));
        }) else {
            return;
        };
        assert!(host.status.success(), "{}", String::from_utf8_lossy(&host.stderr));
    });
}

// ---- control groups ----

/// A fresh control group, if this process may make one.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new() -> Option<ControlGroup> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let root = roots.map(PathBuf::from).into_iter().find(|root| root.join("cgroup.procs").exists())?;
        let path = root.join(format!("procession-{}", process::id()));
        fs::create_dir(&path).ok()?;
        Some(ControlGroup(path))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        wait_for("an empty control group", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_child_is_born_in_its_control_group() {
    alone!({
        let error = fixture("exit").cgroup("/no/such/group").spawn().unwrap_err();
        assert_eq!(error.failed_step(), Some("cgroup"), "{error}");
        let Some(group) = ControlGroup::new() else {
            eprintln!("skipped: no control group can be made here");
            return;
        };
        let name = format!("/{}", group.0.file_name().unwrap().to_str().unwrap());
        let show = || Command::new("cat").arg("/proc/self/cgroup");
        let is_in = |text: &str| text.lines().any(|line| line.starts_with("0::") && line.ends_with(&name));
        assert!(!is_in(&said(show())));
        let text = said(show().cgroup(&group.0));
        assert!(is_in(&text), "{text}");
        // SAFETY: a hook that does nothing.
        let text = said(unsafe { show().cgroup(&group.0).pre_exec(|| Ok(())) });
        assert!(is_in(&text), "{text}");
        let text = said(show().cgroup(&group.0).user("nobody"));
        assert!(is_in(&text), "{text}");
        let scratch = Scratch::new();
        let error = fixture("exit").cgroup(scratch.path()).spawn().unwrap_err();
        assert!(error.failed_step().is_some_and(|step| step.contains("cgroup")), "{error}");
    });
}

#[test]
fn pipes_have_the_size_that_was_wished_for() {
    alone!({
        let size = |fd: &dyn std::os::fd::AsRawFd| {
            // SAFETY: integer arguments.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ) }
        };
        let mut child = fixture("cat").pipe_all().pipe_size(128 * 1024).spawn().unwrap();
        assert_eq!(size(child.stdin.as_ref().unwrap()), 128 * 1024);
        assert_eq!(size(child.stdout.as_ref().unwrap()), 128 * 1024);
        child.wait().unwrap();
        // A wish that cannot be granted is none.
        let mut child = fixture("cat").pipe_all().pipe_size(usize::MAX).spawn().unwrap();
        assert!(child.wait().unwrap().success());
    });
}

// ---- hooks ----

/// F3, F4: hooks run in order, in a copy of the memory, after the other steps.
#[test]
fn hooks_run_in_order_in_a_copy() {
    alone!({
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (mut reader, writer) = procession::pipe().unwrap();
        let say = |text: &'static [u8]| {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
            move || {
                COUNT.fetch_add(1, Ordering::Relaxed);
                // SAFETY: a static slice, and a descriptor that the test keeps open.
                let written = unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
                if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            }
        };
        let command = fixture("umask").umask(0o012);
        // SAFETY: write is async-signal-safe.
        let command = unsafe { command.pre_exec(say(b"one ")) };
        // SAFETY: write is async-signal-safe.
        let command = unsafe { command.pre_exec(say(b"two ")) };
        assert_eq!(said(command.clone()), "0012");
        assert_eq!(COUNT.load(Ordering::Relaxed), 0);
        drop((command, writer));
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "one two ");
    });
}

fn leave() -> io::Result<()> {
    // SAFETY: ends this process only.
    unsafe { libc::_exit(42) }
}

/// F3: its errno arrives, as its own step; leaving by itself is an ordinary end.
#[test]
fn errors_and_ends_of_hooks_arrive() {
    alone!({
        // SAFETY: a hook that only fails.
        let failing = unsafe { fixture("exit").pre_exec(|| Err(io::Error::from_raw_os_error(libc::EXDEV))) };
        let error = failing.spawn().unwrap_err();
        assert_eq!((error.failed_step(), error.raw_os_error()), (Some("pre_exec"), Some(libc::EXDEV)), "{error}");
        // SAFETY: a hook that only fails.
        let failing = unsafe { fixture("exit").pre_exec(|| Err(io::ErrorKind::Other.into())) };
        assert_eq!(failing.spawn().unwrap_err().failed_step(), Some("pre_exec"));
        // SAFETY: a hook that only ends the child.
        let leaving = unsafe { fixture("exit").pre_exec(leave) };
        assert_eq!(leaving.status().unwrap().code(), Some(42));
        // What fails beside a hook keeps its name.
        // SAFETY: a hook that does nothing.
        let missing = unsafe { Command::new("/no/program").pre_exec(|| Ok(())) };
        let error = missing.spawn().unwrap_err();
        assert!(error.is_not_found() && error.failed_step() == Some("exec"), "{error}");
        // SAFETY: a hook that does nothing.
        let nowhere = unsafe { fixture("exit").current_dir("/no/directory").pre_exec(|| Ok(())) };
        assert_eq!(nowhere.spawn().unwrap_err().kind(), ErrorKind::DirectoryNotFound);
    });
}

/// F2: a panic ends the child, and no second copy of the host goes on.
#[test]
fn a_panic_in_a_hook_aborts_the_child() {
    alone!({
        // SAFETY: it panics, which is what is tested; the message is written by a copy with one thread.
        let panicking = unsafe { fixture("exit").arg("0").pre_exec(|| panic!("in the hook")) };
        match panicking.limit(Resource::Core, 0, 0).stderr(Stdio::null()).status() {
            Ok(status) => assert!(status.signal().is_some(), "{status}"),
            Err(error) => assert_eq!(error.failed_step(), Some("pre_exec"), "{error}"),
        }
    });
}

/// What needs no hook takes the route of the process.
#[test]
fn the_plan_says_the_steps() {
    alone!({
        let plan = fixture("exit").umask(0o022).nice(1).plan().unwrap();
        assert!(plan.steps().contains(&Step::Umask(0o022)) && plan.steps().contains(&Step::Nice(1)));
        let wished = std::env::var("PROCESSION_ENGINE").unwrap_or_default();
        let route = SpawnRoute::current();
        match wished.as_str() {
            "portable" => assert_eq!(route, SpawnRoute::Portable),
            "clone" => assert_ne!(route, SpawnRoute::Clone3),
            _ => {}
        }
    });
}
