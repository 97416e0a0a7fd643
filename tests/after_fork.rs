//! Nothing allocates between clone and exec, on any route, in any step. A program of its own, because it has its own
//! allocator: one that kills every process but the first. See `src/sys/after_fork.rs` for the law.
#![allow(unsafe_code)]

use procession::{Command, ErrorKind, Resource, Signal, SpawnRoute, Stdio};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

struct Trap;

/// The process that may allocate; 0 until a test sets it.
static HOST: AtomicI32 = AtomicI32::new(0);

fn check() {
    let host = HOST.load(Relaxed);
    // SAFETY: no arguments. The system call itself, which no library caches.
    let own = unsafe { libc::syscall(libc::SYS_getpid) };
    if host != 0 && own != libc::c_long::from(host) {
        // Not abort(3): it takes a lock, in memory that may be the host's. And no mask keeps this signal back.
        // SAFETY: integer arguments; the process is this one.
        unsafe { libc::syscall(libc::SYS_kill, own, libc::SIGKILL) };
    }
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Trap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static TRAP: Trap = Trap;

fn armed() {
    HOST.store(std::process::id() as i32, Relaxed);
}

fn fixture(verb: &str) -> Command {
    // No core of the helper or of a trapped copy.
    Command::new(Path::new(env!("CARGO_BIN_EXE_fixture"))).arg(verb).limit(Resource::Core, 0, 0)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Every step that there is, as far as this process may.
fn with_every_step(command: Command) -> Command {
    let command = command
        .stdin(Stdio::pty())
        .fd(20, Stdio::null())
        .current_dir_fd(File::open("/").unwrap())
        .umask(0o022)
        .process_group(0)
        .nice(1)
        .oom_score(1000)
        .cpu_affinity(processors())
        .limit(Resource::Nofile, 64, 64)
        .parent_death_signal(Signal::TERM)
        .no_new_privileges()
        .signal_mask([Signal::USR1])
        .ignore_signal(Signal::HUP)
        .default_signal(Signal::TERM);
    if is_root() { command.user(65534).group(65534).groups([65534_u32]) } else { command }
}

fn processors() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let first = list.split([',', '-']).next().unwrap();
    vec![first.parse().unwrap()]
}

#[test]
fn the_trap_bites() {
    armed();
    // SAFETY: it allocates, which is what must be caught; glibc's malloc is usable after fork.
    let allocating = unsafe {
        fixture("exit").arg("0").pre_exec(|| {
            std::hint::black_box(vec![0_u8; 100]);
            Ok(())
        })
    };
    assert_eq!(allocating.status().unwrap().signal(), Some(Signal::KILL));
    // SAFETY: a hook that does nothing.
    let quiet = unsafe { fixture("exit").arg("0").pre_exec(|| Ok(())) };
    assert!(quiet.status().unwrap().success());
}

#[test]
fn no_step_allocates() {
    armed();
    for round in 0..3 {
        let command = with_every_step(fixture("echo").arg("through"));
        let output = command.output().unwrap();
        assert_eq!(output.stdout(), b"through\n", "round {round}: {output:?}");
        // SAFETY: a hook that does nothing.
        let hooked = unsafe { command.clone().pre_exec(|| Ok(())) };
        assert_eq!(hooked.output().unwrap().stdout(), b"through\n");
        let session = fixture("echo").arg("s").setsid().current_dir("/").output().unwrap();
        assert_eq!(session.stdout(), b"s\n");
    }
}

/// A child that takes a table of descriptors of its own first, and one to which that is refused. In a process of its own, which no other
/// test has refused it.
#[test]
fn no_step_allocates_in_a_long_table() {
    const VARIABLE: &str = "PROCESSION_TEST_LONG_TABLE";
    if std::env::var_os(VARIABLE).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "no_step_allocates_in_a_long_table"]).env(VARIABLE, "1");
        let output = again.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    armed();
    let mut crowd: Vec<File> = (0..200).map(|_| File::open("/dev/null").unwrap()).collect();
    assert!(fixture("exit").arg("0").status().unwrap().success());
    crowd.drain(..30);
    for _ in 0..3 {
        let output = with_every_step(fixture("echo").arg("through")).output().unwrap();
        assert_eq!(output.stdout(), b"through\n", "{output:?}");
        let missing = with_every_step(Command::new(Path::new("/no/such/program"))).status().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
    }
    let denied = std::thread::spawn(|| {
        deny(libc::SYS_close_range);
        (0..2).all(|_| with_every_step(fixture("exit").arg("0")).status().unwrap().success())
    });
    assert!(denied.join().unwrap());
}

/// A trapped child would die by a signal, and look like one that was started.
#[test]
fn no_failure_allocates() {
    armed();
    let missing = Path::new("/no/such/program");
    let commands = [
        (Command::new(missing), ErrorKind::NotFound),
        (with_every_step(Command::new(missing)), ErrorKind::NotFound),
        (fixture("exit").current_dir("/no/such/directory"), ErrorKind::DirectoryNotFound),
        (fixture("exit").process_group(i32::MAX), ErrorKind::PermissionDenied),
        (fixture("exit").fd(777, Stdio::inherit()), ErrorKind::Io),
        (fixture("exit").cpu_affinity([60_000]), ErrorKind::Io),
        (Command::new(Path::new("/")), ErrorKind::NotExecutable),
    ];
    for (command, kind) in commands {
        // SAFETY: a hook that does nothing.
        let hooked = unsafe { command.clone().pre_exec(|| Ok(())) };
        for command in [command, hooked] {
            match command.status() {
                Ok(status) => panic!("{command:?} seems to have run: {status}"),
                Err(error) if kind == ErrorKind::PermissionDenied => {
                    assert_eq!(error.failed_step(), Some("setpgid"), "{error:?}");
                }
                Err(error) => assert_eq!(error.kind(), kind, "{error:?}"),
            }
        }
    }
    // SAFETY: a hook that fails.
    let failing = unsafe { fixture("exit").pre_exec(|| Err(std::io::Error::from_raw_os_error(libc::EIO))) };
    assert_eq!(failing.status().unwrap_err().failed_step(), Some("pre_exec"));
}

/// F1: locks of the allocator that other threads hold at the moment of birth.
#[test]
fn a_busy_allocator_does_not_matter() {
    armed();
    let done = AtomicBool::new(false);
    let lock = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut size = 1;
                while !done.load(Relaxed) {
                    let _guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
                    std::hint::black_box(vec![0_u8; size]);
                    size = size * 7 % 100_003 + 1;
                }
            });
        }
        for _ in 0..150 {
            assert!(with_every_step(fixture("exit").arg("0")).status().unwrap().success());
            assert!(Command::new(Path::new("/no/such/program")).spawn().is_err());
        }
        done.store(true, Relaxed);
    });
}

/// Without close_range, and without /proc.
#[test]
fn no_fallback_allocates() {
    armed();
    let denied = std::thread::spawn(|| {
        deny(libc::SYS_close_range);
        let output = fixture("fds").output().unwrap();
        assert_eq!(output.stdout_text().unwrap().lines().count(), 3, "{output:?}");
        assert!(with_every_step(fixture("exit").arg("0")).status().unwrap().success());
    });
    denied.join().unwrap();
}

fn deny(number: libc::c_long) {
    let ret = (libc::BPF_RET | libc::BPF_K) as u16;
    let errno = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let mut filter = [
        libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 },
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: number as u32,
        },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: errno },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: integer arguments.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is valid for reads of its length during the call.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
    assert_eq!(set, 0);
}

/// Each route that is open here, in a process of its own: the route is chosen once.
#[test]
fn on_every_route() {
    const VARIABLE: &str = "PROCESSION_ENGINE";
    if std::env::var_os("PROCESSION_TEST_ROUTE").is_some() {
        eprintln!("route {:?}", SpawnRoute::current());
        return;
    }
    for route in ["clone3", "clone", "portable"] {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .env(VARIABLE, route)
            .env("PROCESSION_TEST_ROUTE", "1")
            .output()
            .unwrap();
        assert!(status.status.success(), "{route}: {}", String::from_utf8_lossy(&status.stdout));
    }
}
