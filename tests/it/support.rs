//! What the tests share: the helper programs, a process of its own for every test, and the litter check.

use procession::Command;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The helper program in one of its characters; `fixtures/main.rs` lists them.
pub fn fixture(verb: &str) -> Command {
    Command::new(fixture_path()).arg(verb)
}

/// The file of the helper program.
pub fn fixture_path() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_fixture"))
}

/// A fixture script.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Whether this process may do what root may.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Waits for a fact, for at most ten seconds.
#[track_caller]
pub fn wait_for(what: &str, mut fact: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !fact() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process is there and not a zombie.
pub fn is_running(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The letter of a process's state, if it is there.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// A directory that goes away with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Everybody may enter it, so that tests can give up rights.
    pub fn new() -> Scratch {
        use std::os::unix::fs::PermissionsExt;
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let path = loop {
            let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("procession-{}-{count}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                // Left by a process of the same number that was killed.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Scratch(path.canonicalize().unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// A new directory in it.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// A new file in it, written with no child in between birth and exec that could hold it open.
    pub fn file(&self, name: impl AsRef<Path>, mode: u32, text: impl AsRef<[u8]>) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let _fence = procession::spawn_fence();
        let path = self.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// If this is root: runs the test again as nobody and says yes. For tests whose subject is a lack of rights.
pub fn done_as_nobody() -> bool {
    use std::os::unix::process::CommandExt;
    if !is_root() {
        return false;
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(std::env::args_os().skip(1)).uid(65534).gid(65534).current_dir("/");
    match again.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: nobody may not read {}", std::env::current_exe().unwrap().display());
        }
        output => {
            let output = output.unwrap();
            let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && stdout.contains("1 passed"), "as nobody:\n{stdout}\n{stderr}");
        }
    }
    true
}

/// Runs the body in a process of its own, and checks that it leaves no litter: descriptors, threads, children, signal state,
/// directory, file mode mask and environment are as before. The process is ended by SIGALRM if it takes too long.
/// What the body would leave on purpose, such as the thread of a runtime, can be made before: `alone!(after make, { ... })`.
macro_rules! alone {
    ($body:block) => {
        $crate::support::alone!(after || (), $body)
    };
    (after $prepare:expr, $body:block) => {{
        fn here() {}
        $crate::support::run_alone(std::any::type_name_of_val(&here), $prepare, || $body)
    }};
}
pub(crate) use alone;

const VARIABLE: &str = "PROCESSION_TEST_ALONE";
const SECONDS_MAX: u32 = 90;

/// See [`alone!`].
pub fn run_alone(type_name: &str, prepare: impl FnOnce(), body: impl FnOnce()) {
    let path = type_name.strip_suffix("::here").unwrap_or(type_name);
    let name = path.split_once("::").map_or(path, |(_crate, name)| name);
    if std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == *name) {
        // SAFETY: an integer argument.
        unsafe { libc::alarm(SECONDS_MAX) };
        // A shell's background jobs are started with these ignored, and children would inherit that.
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: the default action runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        prepare();
        let before = Litter::now();
        body();
        before.check();
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, name)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let one_passed = stdout.contains("1 passed");
    assert!(output.status.success() && one_passed, "{}\n{stdout}\n{stderr}", output.status);
}

/// How often somebody is killed in a test. More of it: `PROCESSION_TEST_KILLS=10000`.
#[cfg(all(feature = "ipc", target_os = "linux"))]
pub fn kills(usual: u64) -> u64 {
    let kills = std::env::var("PROCESSION_TEST_KILLS").ok().map_or(usual, |kills| kills.parse().unwrap());
    // SAFETY: an integer argument. Many take longer than tests usually may.
    unsafe { libc::alarm(SECONDS_MAX + kills as u32 / 5) };
    kills
}

/// What a test must leave as it found it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Litter {
    descriptors: BTreeSet<String>,
    threads: usize,
    children: Vec<String>,
    signals: Vec<String>,
    directory: Option<PathBuf>,
    environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

impl Litter {
    fn now() -> Litter {
        let signals = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let wanted = ["SigBlk", "SigIgn", "SigCgt", "Umask"];
        let signals = signals.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
        Litter {
            descriptors: descriptors(),
            threads: fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count()),
            children: children(),
            signals: signals.map(without_private_signals).collect(),
            directory: std::env::current_dir().ok(),
            environment: std::env::vars_os().collect(),
        }
    }

    fn without_environment(&self) -> Litter {
        Litter { environment: Vec::new(), ..self.clone() }
    }

    /// Threads and children that are about to end get a moment.
    #[track_caller]
    fn check(&self) {
        let end = Instant::now() + Duration::from_secs(3);
        while *self != Litter::now() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let now = Litter::now();
        assert!(self.environment == now.environment, "the test changed the environment");
        let (before, after) = (self.without_environment(), now.without_environment());
        assert_eq!(before, after, "the test left litter (left: before, right: after)");
    }
}

/// A line of signals without 32 to 34, which C libraries keep for themselves (musl ignores 34 after a change of user).
fn without_private_signals(line: &str) -> String {
    match line.split_once(":\t") {
        Some((name, mask)) if name.starts_with("Sig") => {
            let mask = u64::from_str_radix(mask, 16).unwrap_or_default() & !(0b111 << 31);
            format!("{name} {mask:x}")
        }
        _ => line.to_owned(),
    }
}

/// The open descriptors of this process, with what they are, when no thread is left that announces the end of a process: each lets go of its pipe a moment later. The portable engine has them.
pub fn settled_descriptors() -> BTreeSet<String> {
    let announces = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("procession-"))
    };
    wait_for("the end of those who announce", || {
        !fs::read_dir("/proc/self/task").unwrap().flatten().any(|task| announces(&task))
    });
    descriptors()
}

/// The open descriptors of this process, with what they are.
pub fn descriptors() -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    let all = entries.flatten().filter_map(|entry| {
        let link = fs::read_link(entry.path()).ok()?;
        Some(format!("{} {}", entry.file_name().to_string_lossy(), link.display()))
    });
    // The directory that is being read is open as well.
    all.filter(|line| !line.contains("/proc/")).collect()
}

/// The children of this process, zombies included.
pub fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let stats = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| stat.rsplit_once(')').and_then(|(_, tail)| tail.split_ascii_whitespace().nth(1)) == Some(&own))
        .map(|stat| stat.split(") ").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn the_litter_check_bites() {
    alone!({
        let before = Litter::now();
        before.check();
        let file = fs::File::open("/dev/null").unwrap();
        assert_ne!(before, Litter::now());
        drop(file);
        let child = std::process::Command::new("true").spawn().unwrap();
        assert_ne!(before, Litter::now());
        let mut child = child;
        child.wait().unwrap();
        before.check();
    });
}
