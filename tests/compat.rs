//! CPython's `subprocess` as oracle: one table of cases, run there and here, with the outcomes compared.
//!
//! A case is data: a name, a piece of Python, and the same in Rust. Both say their outcome in the same words, listed at
//! `PRELUDE` below, so that a case passes when two lines of text are equal. Where we do something else on purpose the case says
//! `.difference(python, ours, reason)`: then both outcomes must be exactly these. Python runs once for the whole table. Without
//! a Python of at least 3.11 one line says so, and only our side of the differences is checked.
//!
//! Every case is a test of its own, by the name of its group and its own. Cases marked `.alone()` change what belongs to the
//! whole process (descriptors 0 to 2, signals, the directory): ours then runs in a process of its own, and Python's after all
//! others.
#![allow(unsafe_code)] // raw descriptors and signals of the test's own process

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use procession::{
    Captured, Child, Command, Completeness, DecodeError, Error, ErrorKind, ErrorMode, ExitStatus, Input, Newlines,
    Output, Signal, Stdio, Stop, Text,
};
use std::collections::HashMap;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

// ---- what a case is ----

type Ours = fn(&World) -> Result<String, Error>;

struct Case {
    name: &'static str,
    python: &'static str,
    ours: Ours,
    difference: Option<Difference>,
    alone: bool,
    root: bool,
}

/// A deliberate DIFFERENCE.
struct Difference {
    python: &'static str,
    ours: &'static str,
    reason: &'static str,
}

impl Case {
    const fn of(name: &'static str, python: &'static str, ours: Ours) -> Case {
        Case { name, python, ours, difference: None, alone: false, root: false }
    }

    const fn difference(self, python: &'static str, ours: &'static str, reason: &'static str) -> Case {
        Case { difference: Some(Difference { python, ours, reason }), ..self }
    }

    /// Changes what belongs to the whole process.
    const fn alone(self) -> Case {
        Case { alone: true, ..self }
    }

    /// Needs the rights of root.
    const fn root(self) -> Case {
        Case { root: true, ..self }
    }
}

/// A group of cases, and a test for each: `cases!(group, name(python, ours), ..)`.
macro_rules! cases {
    ($group:ident, $($name:ident ($python:expr, $ours:expr $(,)?) $(.$mark:ident $values:tt)*),+ $(,)?) => {
        mod $group {
            use super::*;

            pub(super) const CASES: &[Case] =
                &[$(Case::of(concat!(stringify!($group), "::", stringify!($name)), $python, $ours)$(.$mark $values)*),+];

            $(#[test]
            fn $name() {
                check(concat!(stringify!($group), "::", stringify!($name)));
            })+
        }
    };
}

const TABLE: [&[Case]; 10] = [
    verbs::CASES,
    input::CASES,
    streams::CASES,
    conversation::CASES,
    time::CASES,
    program::CASES,
    environment::CASES,
    attributes::CASES,
    ends::CASES,
    text::CASES,
];

fn table() -> impl Iterator<Item = &'static Case> {
    TABLE.into_iter().flatten()
}

#[test]
fn the_table_is_long_and_says_why_it_differs() {
    assert!(table().count() >= 70);
    for difference in table().filter_map(|case| case.difference.as_ref()) {
        assert!(difference.reason.len() > 20 && difference.python != difference.ours, "{}", difference.reason);
    }
}

const ALONE: &str = "PROCESSION_COMPAT_ALONE";

#[track_caller]
fn check(name: &str) {
    let case = table().find(|case| case.name == name).unwrap();
    if std::env::var(ALONE).is_ok_and(|wanted| wanted == name) {
        println!("\n{ALONE}={}", outcome(case));
        return;
    }
    if case.root && !is_root() {
        return;
    }
    let ours = if case.alone { outcome_alone(case) } else { outcome(case) };
    let python = python_outcomes().map(|all| all.get(name).map_or("no outcome", String::as_str));
    match &case.difference {
        Some(Difference { python: theirs, ours: expected, reason }) => {
            assert_eq!(ours, *expected, "{name}: we changed (DIFFERENCE: {reason})");
            assert_eq!(python.unwrap_or(theirs), *theirs, "{name}: Python changed (DIFFERENCE: {reason})");
        }
        None => {
            let python = python.unwrap_or(&ours);
            assert_eq!(ours, python, "{name}: left is ours, right is Python's, of\n{}", case.python);
        }
    }
}

/// Our outcome, in the words of `PRELUDE`.
fn outcome(case: &Case) -> String {
    let world = World::new();
    let told = (case.ours)(&world).unwrap_or_else(|error| refusal(&error));
    told.replace(world.root.to_str().unwrap(), "TMP")
}

fn outcome_alone(case: &Case) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", case.name, "--nocapture", "--test-threads=1"])
        .env(ALONE, case.name)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line = stdout.lines().find_map(|line| line.strip_prefix(ALONE)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("{stdout}\n{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A folder for one case (one for all of Python's), removed at its end.
struct World {
    root: PathBuf,
}

impl World {
    /// `sub/tool` is the helper program, `odd/tool` a script without interpreter line, `bad/tool` and `noexec` may
    /// not be executed, `input` has three lines.
    fn new() -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("procession-compat.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().canonicalize().unwrap().join(name);
        for folder in ["sub", "bad", "odd"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        symlink(FIXTURE, root.join("sub/tool")).unwrap();
        symlink(Path::new(FIXTURES).join("no-shebang"), root.join("odd/tool")).unwrap();
        for file in ["bad/tool", "noexec"] {
            fs::write(root.join(file), "#!/bin/sh\n").unwrap();
        }
        fs::write(root.join("input"), "three\nlines\nhere\n").unwrap();
        World { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn create(&self, name: &str) -> File {
        File::create(self.path(name)).unwrap()
    }

    /// What a file holds.
    fn content(&self, name: &str) -> String {
        bytes(&fs::read(self.path(name)).unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A folder that stays behind in the temporary folder is a nuisance and no failure.
        let _ = fs::remove_dir_all(&self.root);
    }
}

// ---- Python's side ----

/// The words for outcomes, and the run of the table. What a piece of Python returns is its outcome:
///
/// - `CODE STDOUT STDERR` for a run (`shown`), with `-` for a stream that was not captured;
/// - `status CODE STDOUT STDERR` for an end that is not accepted, `timeout STDOUT STDERR`;
/// - `refused` for a request that is wrong in itself (ValueError, TypeError, LookupError);
/// - `errno NAME` for a step that the system refused;
/// - `undecodable at OFFSET`, and whatever the case itself says.
///
/// Bytes and text are quoted and escaped; long ones are given by length and checksum.
const PRELUDE: &str = r#"
import contextlib, errno, faulthandler, fcntl, os, pathlib, shlex, signal, socket, sys, textwrap, threading, time, zlib
import concurrent.futures
from subprocess import *

faulthandler.dump_traceback_later(60, exit=True)
FX, FIXTURES, T, RESULTS = sys.argv[1:]

def esc(x):
    if x is None:
        return '-'
    if isinstance(x, str):
        x = x.encode()
    if len(x) > 200:
        return f'<{len(x)} bytes {zlib.adler32(x):08x}>'
    known = {9: '\\t', 10: '\\n', 13: '\\r', 34: '\\"', 39: "\\'", 92: '\\\\'}
    return "'" + ''.join(known.get(b) or (chr(b) if 32 <= b < 127 else f'\\x{b:02x}') for b in x) + "'"

def shown(p):
    return f'{p.returncode} {esc(p.stdout)} {esc(p.stderr)}'

def talked(p, *args, **named):
    out, err = p.communicate(*args, **named)
    return f'{p.returncode} {esc(out)} {esc(err)}'

def content(name):
    with open(f'{T}/{name}', 'rb') as f:
        return esc(f.read())

def fixture(*args, **named):
    return run([FX, *args], capture_output=True, **named)

def spawned(*args, **named):
    return Popen([FX, *args], **named)

def is_alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(')')[1].split()[0] not in 'ZX'
    except OSError:
        return False

def wait_for(fact):
    while not fact():
        time.sleep(.005)

@contextlib.contextmanager
def moved(number, f):
    saved = os.dup(number)
    os.dup2(f.fileno(), number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)

def outcome(name, code):
    try:
        space = dict(globals())
        try:
            return str(eval(compile(code.strip(), name, 'eval'), space))
        except SyntaxError:
            exec('def case():\n' + textwrap.indent(textwrap.dedent(code), '  '), space)
            return str(space['case']())
    except TimeoutExpired as e:
        return f'timeout {esc(e.stdout or b"")} {esc(e.stderr or b"")}'
    except CalledProcessError as e:
        return f'status {e.returncode} {esc(e.stdout)} {esc(e.stderr)}'
    except UnicodeDecodeError as e:
        return f'undecodable at {e.start}'
    except OSError as e:
        return f'errno {errno.errorcode.get(e.errno, e)}'
    except (ValueError, TypeError, LookupError) as e:
        return 'refused'
    except BaseException as e:
        return repr(e)

def main(cases):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        named = [name for name, _, alone in cases if not alone]
        results = dict(zip(named, pool.map(outcome, named, [code for _, code, alone in cases if not alone])))
    results.update({name: outcome(name, code) for name, code, alone in cases if alone})
    with open(RESULTS, 'w') as f:
        f.writelines(f'{name}\t{text}\n'.replace(T, 'TMP') for name, text in results.items())

if sys.version_info < (3, 11):
    sys.exit('Python is older than 3.11')
"#;

/// Outcomes by name; `None` if there is no Python to ask, which is said once.
fn python_outcomes() -> Option<&'static HashMap<String, String>> {
    static OUTCOMES: OnceLock<Option<HashMap<String, String>>> = OnceLock::new();
    let outcomes = OUTCOMES.get_or_init(|| {
        let told = run_python();
        if let Err(reason) = &told {
            // Straight to the descriptor: the test runner keeps what `eprintln!` says to itself.
            let line = format!("tests/compat.rs: SKIPPED the comparison with CPython: {reason}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        told.ok()
    });
    outcomes.as_ref()
}

fn run_python() -> Result<HashMap<String, String>, String> {
    let world = World::new();
    let cases = table().filter(|case| !case.root || is_root());
    let lines: Vec<String> = cases
        .map(|case| {
            assert!(case.python.is_ascii(), "{}: Rust and Python escape alike in ASCII only", case.name);
            format!("({:?}, {:?}, {})", case.name, case.python, truth(case.alone))
        })
        .collect();
    let (script, results) = (world.path("table.py"), world.path("results"));
    fs::write(&script, format!("{}\nmain([{}])\n", PRELUDE, lines.join(",\n"))).unwrap();
    let output = std::process::Command::new("python3")
        .args(["-I", "-W", "ignore"])
        .args([&script, Path::new(FIXTURE), Path::new(FIXTURES), &world.root, &results])
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("python3: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if let Some(line) = stderr.lines().find(|line| line.contains("older than")) {
        return Err(line.to_owned());
    }
    assert!(output.status.success(), "the table does not run on Python: {}\n{stderr}", output.status);
    let results = fs::read_to_string(results).unwrap();
    let pairs = results.lines().filter_map(|line| line.split_once('\t'));
    Ok(pairs.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect())
}

// ---- our side, in the same words ----

const FIXTURE: &str = env!("CARGO_BIN_EXE_fixture");
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

/// The helper program.
fn fx<const N: usize>(args: [&str; N]) -> Command {
    Command::new(FIXTURE).args(args)
}

fn sh(line: &str) -> Command {
    Command::new("sh").args(["-c", line])
}

/// A program by its path.
fn at(path: impl AsRef<Path>) -> Command {
    Command::new(path.as_ref())
}

fn bytes(bytes: &[u8]) -> String {
    if bytes.len() <= 200 {
        return format!("'{}'", bytes.escape_ascii());
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    format!("<{} bytes {:08x}>", bytes.len(), b << 16 | a)
}

fn stream(captured: &Captured) -> String {
    match captured.completeness() {
        Completeness::NotCaptured => "-".to_owned(),
        _ => bytes(captured.bytes()),
    }
}

fn shown(output: &Output) -> String {
    let (stdout, stderr) = (stream(output.captured_stdout()), stream(output.captured_stderr()));
    format!("{} {stdout} {stderr}", output.returncode())
}

fn refusal(error: &Error) -> String {
    let output = error.output();
    match error.kind() {
        ErrorKind::InvalidInput => "refused".to_owned(),
        ErrorKind::Timeout => format!("timeout {} {}", bytes(output.stdout()), bytes(output.stderr())),
        ErrorKind::Status => format!("status {}", shown(output)),
        ErrorKind::Decode => {
            let decode = error.source().unwrap().downcast_ref::<DecodeError>().unwrap();
            format!("undecodable at {}", decode.offset())
        }
        _ => match error.raw_os_error() {
            Some(errno) => format!("errno {:?}", Errno::from_raw(errno)),
            None => format!("{error:?}"),
        },
    }
}

/// What Python shows for a list of numbers or None.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// What Python shows for a truth value.
fn truth(fact: bool) -> String {
    if fact { "True" } else { "False" }.to_owned()
}

fn number_or_none(code: Option<i32>) -> String {
    code.map_or("None".to_owned(), |code| code.to_string())
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The timeout of runs that are cut short: long enough for a program to start and say its first words.
const CUT: Duration = Duration::from_millis(1000);

fn wait_for(mut fact: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !fact() {
        assert!(Instant::now() < end, "it did not come about");
        std::thread::sleep(milliseconds(5));
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Reads one line of a child that says when it is ready.
fn line_of(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

/// Talks until something was read, and leaves the conversation unfinished.
fn talk_until_output(child: &mut Child, input: &str) -> String {
    let mut input = Input::from(input);
    loop {
        let error = child.communicate_timeout(std::mem::replace(&mut input, Input::empty()), milliseconds(50));
        let error = error.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        if !error.output().stdout().is_empty() {
            return bytes(error.output().stdout());
        }
    }
}

/// Does something while descriptor `number` is another.
fn moved<T>(number: RawFd, other: &impl AsFd, action: impl FnOnce() -> T) -> T {
    // SAFETY: the number is one of 0 to 2, which stay open for the whole test.
    let saved = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().unwrap();
    duplicate(other.as_fd().as_raw_fd(), number);
    let result = action();
    duplicate(saved.as_raw_fd(), number);
    result
}

fn duplicate(from: RawFd, to: RawFd) {
    // SAFETY: integer arguments; the process is alone with this test, so nobody else uses the number that is replaced.
    assert!(unsafe { libc::dup2(from, to) } >= 0);
}

fn set_inheritable(fd: impl AsFd) {
    // SAFETY: integer arguments, and the descriptor is open.
    assert_eq!(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFD, 0) }, 0);
}

fn set_action(signal: i32, action: libc::sighandler_t) {
    // SAFETY: ignoring and the default action are no handlers, so no code of ours is called.
    unsafe { libc::signal(signal, action) };
}

/// Does something while this thread blocks SIGUSR1.
fn blocking_usr1<T>(action: impl FnOnce() -> T) -> T {
    let mut set = SigSet::empty();
    set.add(nix::sys::signal::SIGUSR1);
    let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
    let result = action();
    before.thread_set_mask().unwrap();
    result
}

/// A descriptor that is not open.
fn closed_descriptor() -> BorrowedFd<'static> {
    // SAFETY: nobody uses it but the library, which must find out that it is not open.
    unsafe { BorrowedFd::borrow_raw(9999) }
}

/// The fields of `pid=1 ppid=2 pgid=3 sid=4`.
fn pgid_fields(output: &Output) -> HashMap<String, i32> {
    let text = output.stdout_lossy();
    let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.parse().unwrap())).collect()
}

// ---- the verbs ----

cases!(
    verbs,
    run_collects("shown(run([FX, 'echo', 'hi'], capture_output=True))", |_| Ok(shown(&fx(["echo", "hi"]).run()?))),
    run_that_was_not_told_to_capture("shown(run([FX, 'exit', '0']))", |_| Ok(shown(&fx(["exit", "0"]).run()?)))
        .difference(
            "0 - -",
            "0 '' ''",
            "who wants the streams of the parent says `call`; `run` collects what is not set"
        ),
    run_with_a_code("shown(fixture('exit', '3'))", |_| Ok(shown(&fx(["exit", "3"]).run()?))),
    run_checked("shown(run([FX, 'exit', '3'], capture_output=True, check=True))", |_| {
        Ok(shown(&fx(["exit", "3"]).run()?.check()?))
    }),
    check_returncode("fixture('raise', 'TERM').check_returncode()", |_| {
        Ok(shown(&fx(["raise", "TERM"]).run()?.check()?))
    }),
    capture_and_stdout("shown(run([FX, 'echo', 'x'], capture_output=True, stdout=DEVNULL))", |_| Ok(shown(
        &fx(["echo", "x"]).stdout(Stdio::null()).run()?
    )))
    .difference(
        "refused",
        "0 - ''",
        "capturing is the default and no flag, so a stream that is set contradicts nothing"
    ),
    call_codes("[call([FX, 'exit', str(n)]) for n in (0, 1, 7, 127, 255)]", |_| {
        let codes = ["0", "1", "7", "127", "255"].map(|code| Ok(fx(["exit", code]).call()?.returncode()));
        Ok(list(codes.into_iter().collect::<Result<Vec<_>, Error>>()?))
    }),
    call_signals("[call([FX, 'raise', s]) for s in ('HUP', 'KILL', 'SEGV', 'PIPE', '35')]", |_| {
        let codes = ["HUP", "KILL", "SEGV", "PIPE", "35"].map(|signal| Ok(fx(["raise", signal]).call()?.returncode()));
        Ok(list(codes.into_iter().collect::<Result<Vec<_>, Error>>()?))
    }),
    call_leaves_streams_alone(
        r#"
        with open(T + '/out', 'wb') as f, moved(1, f):
            code = call([FX, 'echo', 'through'])
        return f'{code} {content("out")}'
        "#,
        |w| {
            let code = moved(1, &w.create("out"), || fx(["echo", "through"]).call())?.returncode();
            Ok(format!("{code} {}", w.content("out")))
        }
    )
    .alone(),
    check_call_good("check_call([FX, 'exit', '0'])", |_| fx(["exit", "0"]).check_call().map(|()| "0".to_owned())),
    check_call_bad("check_call([FX, 'exit', '9'])", |_| fx(["exit", "9"]).check_call().map(|()| "0".to_owned())),
    check_call_signal("check_call([FX, 'raise', 'KILL'])", |_| fx(["raise", "KILL"])
        .check_call()
        .map(|()| "0".to_owned())),
    check_output_good("esc(check_output([FX, 'echo', 'a', 'b']))", |_| Ok(bytes(
        &fx(["echo", "a", "b"]).check_output()?
    ))),
    check_output_bad("check_output(['sh', '-c', 'echo out; echo err >&2; exit 3'], stderr=PIPE)", |_| {
        Ok(bytes(&sh("echo out; echo err >&2; exit 3").check_output()?))
    }),
    check_output_bad_and_silent("check_output(['sh', '-c', 'echo out; exit 3'])", |_| {
        Ok(bytes(&sh("echo out; exit 3").check_output()?))
    })
    .difference(
        "status 3 'out\\n' -",
        "status 3 'out\\n' ''",
        "standard error is collected as well, so that the error can show what the program had to say"
    ),
    check_output_with_stdout("check_output([FX, 'echo', 'x'], stdout=DEVNULL)", |_| {
        Ok(bytes(&fx(["echo", "x"]).stdout(Stdio::null()).check_output()?))
    })
    .difference("refused", "''", "streams that are set go where they are told; what was not captured is empty"),
    check_output_merged("esc(check_output([FX, 'merge', '20'], stderr=STDOUT))", |_| {
        Ok(bytes(&fx(["merge", "20"]).stderr(Stdio::stdout()).check_output()?))
    }),
    getstatusoutput(
        r#"
        code, text = getstatusoutput('echo a; echo b >&2; exit 3')
        return f'{code} {esc(text)}'
        "#,
        |_| status_output("echo a; echo b >&2; exit 3")
    ),
    getstatusoutput_takes_one_newline(
        r#"
        code, text = getstatusoutput(r'printf "a\n\n"')
        return f'{code} {esc(text)}'
        "#,
        |_| status_output(r#"printf "a\n\n""#)
    ),
    getstatusoutput_of_a_signal(
        r#"
        code, text = getstatusoutput('kill -9 $$')
        return f'{code} {esc(text)}'
        "#,
        |_| status_output("kill -9 $$")
    ),
    getoutput("esc(getoutput('echo a; exit 5'))", |_| {
        let output = Command::shell("echo a; exit 5").stderr(Stdio::stdout()).run()?;
        Ok(bytes(output.stdout().strip_suffix(b"\n").unwrap_or(output.stdout())))
    }),
    the_record_knows_its_command(
        r#"
        p = fixture('echo', "it's", 'a b', '', '$x')
        return [esc(word) for word in shlex.split(shlex.join(p.args))[1:]]
        "#,
        |_| {
            let output = fx(["echo", "it's", "a b", "", "$x"]).run()?;
            let again = Command::parse(output.command())?;
            // As Python shows a list of strings.
            let words = again.get_args().map(|word| format!("{:?}", bytes(word.as_bytes())));
            Ok(list(words))
        }
    ),
);

fn status_output(line: &str) -> Result<String, Error> {
    let output = Command::shell(line).stderr(Stdio::stdout()).run()?;
    let text = output.stdout_text()?;
    Ok(format!("{} {}", output.returncode(), bytes(text.strip_suffix('\n').unwrap_or(&text).as_bytes())))
}

// ---- input ----

cases!(
    input,
    is_fed("shown(fixture('upper', input=b'abc'))", |_| Ok(shown(&fx(["upper"]).input("abc").run()?))),
    empty_is_an_end("shown(fixture('cat', input=b''))", |_| Ok(shown(&fx(["cat"]).input("").run()?))),
    none_of_check_output_is_an_end("esc(check_output([FX, 'cat'], input=None))", |_| {
        Ok(bytes(&fx(["cat"]).check_output()?))
    }),
    with_stdin_is_refused("fixture('cat', input=b'x', stdin=DEVNULL)", |_| {
        Ok(shown(&fx(["cat"]).input("x").stdin(Stdio::null()).run()?))
    }),
    with_stdin_pipe_is_the_same("fixture('cat', input=b'x', stdin=PIPE)", |_| {
        Ok(shown(&fx(["cat"]).input("x").stdin(Stdio::piped()).run()?))
    })
    .difference("refused", "0 'x' ''", "a pipe is what input needs, so saying so is no contradiction"),
    bytes_that_are_no_text("shown(fixture('cat', input=bytes(range(256)) [100:180]))", |_| {
        let all: Vec<u8> = (100..180).collect();
        Ok(shown(&fx(["cat"]).input(all).run()?))
    }),
    much_of_it_comes_back("shown(fixture('cat', input=b'0123456789abcde\\n' * 262144))", |_| {
        Ok(shown(&fx(["cat"]).input(b"0123456789abcde\n".repeat(262_144)).run()?))
    }),
    more_than_is_read("shown(fixture('swallow', '10', input=b'x' * 1000000))", |_| {
        Ok(shown(&fx(["swallow", "10"]).input("x".repeat(1_000_000)).run()?))
    }),
    that_nobody_reads("shown(fixture('exit', '4', input=b'x' * 1000000))", |_| {
        Ok(shown(&fx(["exit", "4"]).input("x".repeat(1_000_000)).run()?))
    }),
    to_a_child_that_closed_it("shown(fixture('close-in', '100', input=b'x' * 1000000))", |_| {
        Ok(shown(&fx(["close-in", "100"]).input("x".repeat(1_000_000)).run()?))
    }),
    late("shown(fixture('late-read', '100', input=b'x' * 200000))", |_| {
        Ok(shown(&fx(["late-read", "100"]).input("x".repeat(200_000)).run()?))
    }),
    and_output_and_errors_all_large("shown(fixture('a2', '200000', '300000', input=b'y' * 400000))", |_| {
        Ok(shown(&fx(["a2", "200000", "300000"]).input("y".repeat(400_000)).run()?))
    }),
    of_the_parent_in_run(
        r#"
        with open(T + '/input') as f, moved(0, f):
            return shown(fixture('cat'))
        "#,
        |w| moved(0, &File::open(w.path("input")).unwrap(), || Ok(shown(&fx(["cat"]).run()?)))
    )
    .alone()
    .difference(
        "0 'three\\nlines\\nhere\\n' ''",
        "0 '' ''",
        "a run whose output is collected must not eat the terminal or the script that the parent reads"
    ),
    of_the_parent_in_call(
        r#"
        with open(T + '/input') as f, moved(0, f):
            return call([FX, 'swallow', '17'], stdout=DEVNULL)
        "#,
        |w| {
            let swallow = fx(["swallow", "17"]).stdout(Stdio::null());
            let status = moved(0, &File::open(w.path("input")).unwrap(), || swallow.call())?;
            Ok(status.returncode().to_string())
        }
    )
    .alone(),
);

// ---- the streams ----

cases!(
    streams,
    three_pipes("talked(spawned('upper', stdin=PIPE, stdout=PIPE, stderr=PIPE), b'there')", |_| {
        Ok(shown(&fx(["upper"]).pipe_all().spawn()?.communicate("there")?))
    }),
    null_input("shown(fixture('cat', stdin=DEVNULL))", |_| Ok(shown(&fx(["cat"]).stdin(Stdio::null()).run()?))),
    null_output("shown(run([FX, 'echo', 'x'], stdout=DEVNULL, stderr=PIPE))", |_| {
        Ok(shown(&fx(["echo", "x"]).stdout(Stdio::null()).run()?))
    }),
    null_errors("shown(run([FX, 'echoerr', 'x'], stdout=PIPE, stderr=DEVNULL))", |_| {
        Ok(shown(&fx(["echoerr", "x"]).stderr(Stdio::null()).run()?))
    }),
    errors_to_output_keep_the_order("shown(run([FX, 'merge', '200'], stdout=PIPE, stderr=STDOUT))", |_| {
        Ok(shown(&fx(["merge", "200"]).stderr(Stdio::stdout()).run()?))
    }),
    errors_to_output_that_is_the_parents(
        r#"
        with open(T + '/out', 'wb') as f, moved(1, f):
            code = call([FX, 'merge', '4'], stderr=STDOUT)
        return f'{code} {content("out")}'
        "#,
        |w| {
            let merge = fx(["merge", "4"]).stderr(Stdio::stdout());
            let code = moved(1, &w.create("out"), || merge.call())?.returncode();
            Ok(format!("{code} {}", w.content("out")))
        }
    )
    .alone(),
    errors_to_output_in_a_file(
        r#"
        with open(T + '/merged', 'wb') as f:
            code = call([FX, 'merge', '10'], stdout=f, stderr=STDOUT)
        return f'{code} {content("merged")}'
        "#,
        |w| {
            let merge = fx(["merge", "10"]).stdout(w.create("merged")).stderr(Stdio::stdout());
            Ok(format!("{} {}", merge.call()?.returncode(), w.content("merged")))
        }
    ),
    file_object(
        r#"
        with open(T + '/object', 'wb') as f:
            code = call([FX, 'echo', 'x'], stdout=f)
        return f'{code} {content("object")}'
        "#,
        |w| {
            let code = fx(["echo", "x"]).stdout(w.create("object")).call()?.returncode();
            Ok(format!("{code} {}", w.content("object")))
        }
    ),
    descriptor_number(
        r#"
        fd = os.open(T + '/number', os.O_WRONLY | os.O_CREAT)
        code = call([FX, 'echo', 'x'], stdout=fd)
        os.write(fd, b'still mine')
        os.close(fd)
        return f'{code} {content("number")}'
        "#,
        |w| {
            let mut file = w.create("number");
            let code = fx(["echo", "x"]).stdout(Stdio::borrowed(&file)).call()?.returncode();
            file.write_all(b"still mine").unwrap();
            Ok(format!("{code} {}", w.content("number")))
        }
    ),
    file_as_input(
        r#"
        with open(T + '/input') as f:
            return shown(fixture('cat', stdin=f))
        "#,
        |w| Ok(shown(&fx(["cat"]).stdin(Stdio::read(w.path("input"))).run()?))
    ),
    file_to_append_to(
        r#"
        for word in 'one', 'two':
            with open(T + '/appended', 'ab') as f:
                call([FX, 'echo', word], stdout=f)
        return content('appended')
        "#,
        |w| {
            for word in ["one", "two"] {
                fx(["echo", word]).stdout(Stdio::append(w.path("appended"))).call()?;
            }
            Ok(w.content("appended"))
        }
    ),
    input_that_is_an_output_file(
        r#"
        with open(T + '/in-is-out', 'wb') as f:
            return fixture('cat', stdin=f).returncode
        "#,
        |w| Ok(shown(&fx(["cat"]).stdin(Stdio::write(w.path("in-is-out"))).run()?))
    )
    .difference("1", "refused", "a file that we open for the child is known to be for the other direction"),
    same_descriptor_for_input_and_output(
        r#"
        with open(T + '/both', 'w+b', buffering=0) as f:
            f.write(b'abc')
            f.seek(0)
            code = call([FX, 'cat'], stdin=f, stdout=f)
        return f'{code} {content("both")}'
        "#,
        |w| {
            fs::write(w.path("both"), "abc").unwrap();
            let file = Stdio::from(File::options().read(true).write(true).open(w.path("both")).unwrap());
            let code = fx(["cat"]).stdin(file.clone()).stdout(file).call()?.returncode();
            Ok(format!("{code} {}", w.content("both")))
        }
    ),
    same_descriptor_for_both_outputs(
        r#"
        with open(T + '/outputs', 'wb') as f:
            code = call([FX, 'merge', '6'], stdout=f, stderr=f)
        return f'{code} {content("outputs")}'
        "#,
        |w| {
            let file = Stdio::from(w.create("outputs"));
            let code = fx(["merge", "6"]).stdout(file.clone()).stderr(file).call()?.returncode();
            Ok(format!("{code} {}", w.content("outputs")))
        }
    ),
    a_socket_for_both_directions(
        r#"
        ours, theirs = socket.socketpair()
        p = spawned('pingpong', stdin=theirs, stdout=theirs)
        theirs.close()
        ours.sendall(b'over\n')
        answer = ours.makefile().readline()
        ours.close()
        return f'{p.wait()} {esc(answer)}'
        "#,
        |_| {
            let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let theirs = Stdio::from(theirs);
            let mut child = fx(["pingpong"]).stdin(theirs.clone()).stdout(theirs).spawn()?;
            ours.write_all(b"over\n").unwrap();
            let mut answer = String::new();
            BufReader::new(&ours).read_line(&mut answer).unwrap();
            drop(ours);
            Ok(format!("{} {}", child.wait()?.returncode(), bytes(answer.as_bytes())))
        }
    ),
    outputs_of_the_parent_swapped(
        r#"
        with open(T + '/one', 'wb') as one, open(T + '/two', 'wb') as two, moved(1, one), moved(2, two):
            call([FX, 'merge', '4'], stdout=2, stderr=1)
        return content('one') + content('two')
        "#,
        |w| {
            moved(1, &w.create("one"), || {
                moved(2, &w.create("two"), || {
                    fx(["merge", "4"]).stdout(std::io::stderr()).stderr(std::io::stdout()).call()
                })
            })?;
            Ok(w.content("one") + &w.content("two"))
        }
    )
    .alone(),
    pipes_when_the_parent_has_no_standard_streams(
        r#"
        saved = [os.dup(n) for n in range(3)]
        for n in range(3):
            os.close(n)
        try:
            return talked(spawned('upper', stdin=PIPE, stdout=PIPE, stderr=PIPE), b'none')
        finally:
            for n in range(3):
                os.dup2(saved[n], n)
        "#,
        |_| {
            let saved = [0, 1, 2].map(|number| {
                // SAFETY: it is open, and closed only here.
                let fd: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(number) };
                let copy: OwnedFd = fd.try_clone_to_owned().unwrap();
                // SAFETY: an integer argument; the process is alone with this test, which puts the number back.
                unsafe { libc::close(number) };
                copy
            });
            let result = fx(["upper"]).pipe_all().spawn().and_then(|mut child| child.communicate("none"));
            for (number, copy) in saved.iter().enumerate() {
                duplicate(copy.as_raw_fd(), number as RawFd);
            }
            Ok(shown(&result?))
        }
    )
    .alone(),
    descriptor_that_is_not_open("call([FX, 'cat'], stdin=9999)", |_| {
        Ok(fx(["cat"]).stdin(Stdio::borrowed(closed_descriptor())).call()?.returncode().to_string())
    })
    .difference("errno EBADF", "refused", "the request is refused by the number's name, before a process is made"),
    pipe_size(
        r#"
        p = spawned('exit', '0', stdout=PIPE, pipesize=4096)
        size = fcntl.fcntl(p.stdout, 1032)
        p.communicate()
        return size
        "#,
        |_| {
            let mut child = fx(["exit", "0"]).stdout(Stdio::piped()).pipe_size(4096).spawn()?;
            // SAFETY: integer arguments, and the descriptor is open.
            let size = unsafe { libc::fcntl(child.stdout.as_ref().unwrap().as_raw_fd(), libc::F_GETPIPE_SZ) };
            child.communicate(())?;
            Ok(size.to_string())
        }
    ),
    large_blocks_on_both_outputs("shown(fixture('alternate', '500000', '1000', '70000'))", |_| {
        Ok(shown(&fx(["alternate", "500000", "1000", "70000"]).run()?))
    }),
    others_are_closed(
        r#"
        fd = os.open('/dev/null', os.O_RDONLY)
        os.set_inheritable(fd, True)
        p = fixture('readfd', str(fd))
        os.close(fd)
        return p.returncode
        "#,
        |_| {
            let file = File::open("/dev/null").unwrap();
            set_inheritable(&file);
            Ok(fx(["readfd"]).arg(file.as_raw_fd().to_string()).run()?.returncode().to_string())
        }
    )
    .alone(),
    others_are_kept_on_request(
        r#"
        fd = os.open(T + '/input', os.O_RDONLY)
        os.set_inheritable(fd, True)
        p = fixture('readfd', str(fd), close_fds=False)
        os.close(fd)
        return shown(p)
        "#,
        |w| {
            let file = File::open(w.path("input")).unwrap();
            set_inheritable(&file);
            Ok(shown(&fx(["readfd"]).arg(file.as_raw_fd().to_string()).inherit_fds().run()?))
        }
    )
    .alone(),
    pass_fds(
        r#"
        fd = os.open(T + '/input', os.O_RDONLY)
        p = fixture('readfd', str(fd), pass_fds=[fd])
        kept = os.get_inheritable(fd)
        os.close(fd)
        return f'{shown(p)} {kept}'
        "#,
        |w| {
            let file = File::open(w.path("input")).unwrap();
            let output = fx(["readfd"]).arg(file.as_raw_fd().to_string()).pass_fd(&file).run()?;
            // SAFETY: integer arguments, and the descriptor is open.
            let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
            Ok(format!("{} {}", shown(&output), truth(flags == 0)))
        }
    ),
    pass_fds_that_are_not_open("fixture('exit', '0', pass_fds=[9999])", |_| {
        Ok(shown(&fx(["exit", "0"]).pass_fd(closed_descriptor()).run()?))
    })
    .difference("errno EBADF", "refused", "the request is refused by the number's name, before a process is made"),
    pass_fds_negative("fixture('exit', '0', pass_fds=[-1])", |_| Ok(shown(
        &fx(["exit", "0"]).fd(-1, Stdio::null()).run()?
    ))),
    the_child_has_what_it_was_given_and_no_more(
        r#"
        fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 100)
        p = fixture('fds', pass_fds=[fd], text=True)
        os.close(fd)
        return [len(p.stdout.splitlines())] + [line.split()[0] for line in p.stdout.splitlines()][:3]
        "#,
        |_| {
            let output = fx(["fds"]).fd(100, Stdio::null()).run()?;
            let text = output.stdout_lossy();
            let numbers = text.lines().map(|line| format!("'{}'", line.split(' ').next().unwrap()));
            Ok(list([text.lines().count().to_string()].into_iter().chain(numbers.take(3))))
        }
    ),
);

// ---- conversations ----

cases!(
    conversation,
    without_pipes("talked(spawned('exit', '0'))", |_| Ok(shown(&fx(["exit", "0"]).spawn()?.communicate(())?))),
    with_one_pipe("talked(spawned('echo', 'x', stdout=PIPE))", |_| {
        Ok(shown(&fx(["echo", "x"]).stdout(Stdio::piped()).spawn()?.communicate(())?))
    }),
    with_input_and_no_pipe("talked(spawned('exit', '0'), b'lost')", |_| {
        Ok(shown(&fx(["exit", "0"]).spawn()?.communicate("lost")?))
    })
    .difference(
        "0 - -",
        "refused",
        "input that cannot reach the child is a mistake, and not to be dropped in silence"
    ),
    goes_on_after_a_timeout(
        r#"
        p = spawned('polite', '20000', '5', stdout=PIPE)
        read = None
        while not read:
            try:
                p.communicate(timeout=.05)
            except TimeoutExpired as e:
                read = e.output
        p.terminate()
        return f'{esc(read)} {talked(p)}'
        "#,
        |_| {
            let mut child = fx(["polite", "20000", "5"]).stdout(Stdio::piped()).spawn()?;
            let read = talk_until_output(&mut child, "");
            child.terminate()?;
            Ok(format!("{read} {}", shown(&child.communicate(())?)))
        }
    ),
    goes_on_with_new_input(
        r#"
        p = spawned('late-read', '20000', stdin=PIPE, stdout=PIPE)
        try:
            p.communicate(b'o' * 2000000, timeout=.05)
        except TimeoutExpired:
            p.kill()
        return talked(p, b'new')
        "#,
        |_| {
            let mut child = fx(["late-read", "600"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let error = child.communicate_timeout("o".repeat(2_000_000), milliseconds(50)).unwrap_err();
            assert!(error.is_timeout());
            Ok(shown(&child.communicate("new")?))
        }
    )
    .difference(
        "refused",
        "0 <2000003 bytes beaa3b4f> -",
        "what is left of the input is still to be written, so more can stand behind it"
    ),
    again_after_its_end(
        r#"
        p = spawned('echo', 'x', stdout=PIPE, stderr=PIPE)
        talked(p)
        return talked(p)
        "#,
        |_| {
            let mut child = fx(["echo", "x"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            child.communicate(())?;
            Ok(shown(&child.communicate(())?))
        }
    )
    .difference(
        "0 'x\\n' ''",
        "0 - -",
        "the output is handed over once, without a copy; a finished conversation has no more to give"
    ),
    by_hand_line_by_line(
        r#"
        p = spawned('pingpong', stdin=PIPE, stdout=PIPE)
        answers = b''
        for word in b'one\n', b'two\n':
            p.stdin.write(word)
            p.stdin.flush()
            answers += p.stdout.readline()
        p.stdin.close()
        return f'{p.wait()} {esc(answers)}'
        "#,
        |_| {
            let mut child = fx(["pingpong"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
            let mut answers = String::new();
            for word in ["one\n", "two\n"] {
                stdin.write_all(word.as_bytes()).unwrap();
                stdout.read_line(&mut answers).unwrap();
            }
            drop(stdin);
            Ok(format!("{} {}", child.wait()?.returncode(), bytes(answers.as_bytes())))
        }
    ),
    after_reading_by_hand(
        r#"
        p = spawned('pingpong', stdin=PIPE, stdout=PIPE, bufsize=0)
        p.stdin.write(b'one\n')
        first, rest = p.stdout.read(9), talked(p, b'two\n')
        return f'{esc(first)} {rest}'
        "#,
        |_| {
            let mut child = fx(["pingpong"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            child.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
            let mut first = [0; 9];
            child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
            Ok(format!("{} {}", bytes(&first), shown(&child.communicate("two\n")?)))
        }
    ),
    writing_to_a_child_that_ended(
        r#"
        p = spawned('exit', '0', stdin=PIPE, bufsize=0)
        p.wait()
        p.stdin.write(b'x')
        "#,
        |_| {
            let mut child = fx(["exit", "0"]).stdin(Stdio::piped()).spawn()?;
            child.handle().wait()?;
            // A child of another test that has not become its program yet has a copy of our end for a moment.
            let mut tries = (0..1000).map(|_| {
                std::thread::sleep(Duration::from_millis(1));
                child.stdin.as_mut().unwrap().write_all(b"x")
            });
            let error = tries.find_map(Result::err).unwrap();
            Ok(format!("errno {:?}", Errno::from_raw(error.raw_os_error().unwrap())))
        }
    ),
    wait_while_the_child_waits_for_input(
        r#"
        p = spawned('cat', stdin=PIPE)
        try:
            return p.wait(.3)
        except TimeoutExpired:
            p.kill()
            p.wait()
            return 'running'
        "#,
        |_| {
            let mut child = fx(["cat"]).stdin(Stdio::piped()).spawn()?;
            let status = child.wait_timeout(milliseconds(20_000))?;
            Ok(status.map_or("running".to_owned(), |status| status.returncode().to_string()))
        }
    )
    .difference("running", "0", "waiting closes our end of the input first: nobody can write to it any more"),
    grandchild_that_holds_the_pipe(
        r#"
        p = run([FX, 'grandchild', '1500', 'late'], stdout=PIPE)
        return [p.returncode, b'late' in p.stdout]
        "#,
        |_| {
            let output = fx(["grandchild", "1500", "late"]).drain(milliseconds(50)).run()?;
            assert!(matches!(output.captured_stdout().completeness(), Completeness::CutOff { .. }));
            Ok(list([output.returncode().to_string(), truth(output.stdout_lossy().contains("late"))]))
        }
    )
    .difference(
        "[0, True]",
        "[0, False]",
        "a grandchild must not hold up the call: after the drain time the record says who holds the pipe"
    ),
    grandchild_that_is_waited_for(
        r#"
        p = run([FX, 'grandchild', '300', 'late'], stdout=PIPE)
        return [p.returncode, b'late' in p.stdout]
        "#,
        |_| {
            let output = fx(["grandchild", "300", "late"]).drain(Duration::MAX).run()?;
            Ok(list([output.returncode().to_string(), truth(output.stdout_lossy().contains("late"))]))
        }
    ),
);

// ---- time ----

cases!(
    time,
    run_is_cut_short("fixture('say-sleep', 'hello', '20000', 'x', timeout=1)", |_| {
        Ok(shown(&fx(["say-sleep", "hello", "20000", "x"]).timeout(CUT).run()?))
    }),
    run_without_time("fixture('sleep', '20000', timeout=0)", |_| {
        Ok(shown(&fx(["sleep", "20000"]).timeout(Duration::ZERO).run()?))
    }),
    run_with_time_enough("shown(fixture('sleep', '50', timeout=20))", |_| {
        Ok(shown(&fx(["sleep", "50"]).timeout(milliseconds(20_000)).run()?))
    }),
    run_of_a_child_deaf_to_asking("fixture('deaf', '20000', timeout=1)", |_| {
        Ok(shown(&fx(["deaf", "20000"]).timeout(CUT).run()?))
    }),
    run_of_a_polite_child("fixture('polite', '20000', '0', timeout=1)", |_| {
        Ok(shown(&fx(["polite", "20000", "0"]).timeout(CUT).run()?))
    })
    .difference(
        "timeout 'ready\\n' ''",
        "timeout 'ready\\nterminating\\n' ''",
        "a child is asked before it is killed, and its last words are read"
    ),
    run_of_a_polite_child_killed("fixture('polite', '20000', '0', timeout=1)", |_| {
        Ok(shown(&fx(["polite", "20000", "0"]).timeout(CUT).stop(Stop::kill()).run()?))
    }),
    run_while_the_input_is_not_read("fixture('sleep', '20000', input=b'x' * 1000000, timeout=1)", |_| {
        Ok(shown(&fx(["sleep", "20000"]).input("x".repeat(1_000_000)).timeout(CUT).run()?))
    }),
    nothing_read_is(
        r#"
        try:
            fixture('sleep', '20000', timeout=.1)
        except TimeoutExpired as e:
            return esc(e.stdout)
        "#,
        |_| {
            let error = fx(["sleep", "20000"]).timeout(milliseconds(100)).run().unwrap_err();
            Ok(stream(error.output().captured_stdout()))
        }
    )
    .difference("-", "''", "captured and empty is not the same as not captured"),
    descendants_after_run_was_cut_short(
        r#"
        try:
            fixture('tree', '1', '1', '20000', timeout=1)
        except TimeoutExpired as e:
            pids = [int(line.split()[1]) for line in e.stdout.splitlines()]
        alive = [is_alive(pid) for pid in pids]
        os.kill(pids[1], signal.SIGKILL)
        return alive
        "#,
        |_| {
            let error = fx(["tree", "1", "1", "20000"]).timeout(CUT).run().unwrap_err();
            let text = error.output().stdout_lossy();
            let pids = text.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap());
            Ok(list(pids.map(|pid| truth(is_alive(pid)))))
        }
    )
    .difference(
        "[False, True]",
        "[False, False]",
        "what a run has started does not outlive it: the whole tree is stopped"
    ),
    call_is_cut_short("call([FX, 'sleep', '20000'], timeout=.1)", |_| {
        Ok(fx(["sleep", "20000"]).timeout(milliseconds(100)).call()?.returncode().to_string())
    }),
    check_output_is_cut_short("check_output([FX, 'say-sleep', 'a', '20000', 'b'], timeout=1)", |_| {
        Ok(bytes(&fx(["say-sleep", "a", "20000", "b"]).timeout(CUT).check_output()?))
    }),
    wait_is_cut_short_and_the_child_goes_on(
        r#"
        p = spawned('sleep', '20000')
        try:
            p.wait(.1)
        except TimeoutExpired:
            found = p.poll()
        p.kill()
        return [found, p.wait(), p.wait(1)]
        "#,
        |_| {
            let mut child = fx(["sleep", "20000"]).spawn()?;
            assert_eq!(child.wait_timeout(milliseconds(100))?, None);
            let found = number_or_none(child.poll()?);
            child.kill()?;
            let ended = child.wait()?.returncode();
            let again = child.wait_timeout(milliseconds(1000))?.map(ExitStatus::returncode);
            Ok(list([found, ended.to_string(), number_or_none(again)]))
        }
    ),
    communicate_is_cut_short_and_the_child_goes_on(
        r#"
        p = spawned('sleep', '20000', stdout=PIPE)
        try:
            p.communicate(timeout=.1)
        except TimeoutExpired:
            found = p.poll()
        p.kill()
        return f'{found} {talked(p)}'
        "#,
        |_| {
            let mut child = fx(["sleep", "20000"]).stdout(Stdio::piped()).spawn()?;
            assert!(child.communicate_timeout((), milliseconds(100)).unwrap_err().is_timeout());
            let found = number_or_none(child.poll()?);
            child.kill()?;
            Ok(format!("{found} {}", shown(&child.communicate(())?)))
        }
    ),
);

// ---- the program ----

cases!(
    program,
    missing_by_name("run(['no-such-program-here'])", |_| Ok(shown(&Command::new("no-such-program-here").run()?))),
    missing_by_path("run(['/no/such/program'])", |_| Ok(shown(&Command::new("/no/such/program").run()?))),
    below_a_file("run([T + '/input/program'])", |w| Ok(shown(&at(w.path("input/program")).run()?))),
    directory("run([T + '/sub'])", |w| Ok(shown(&at(w.path("sub")).run()?))),
    without_permission("run([T + '/noexec'])", |w| Ok(shown(&at(w.path("noexec")).run()?))),
    script_without_interpreter_line("run([FIXTURES + '/no-shebang'])", |_| {
        Ok(shown(&Command::new(format!("{FIXTURES}/no-shebang")).run()?))
    }),
    empty_file("run([FIXTURES + '/empty-program'])", |_| {
        Ok(shown(&Command::new(format!("{FIXTURES}/empty-program")).run()?))
    }),
    script_with_missing_interpreter("run([FIXTURES + '/bad-interpreter.sh'])", |_| {
        Ok(shown(&Command::new(format!("{FIXTURES}/bad-interpreter.sh")).run()?))
    }),
    script("shown(run([FIXTURES + '/greet.sh'], capture_output=True))", |_| {
        Ok(shown(&Command::new(format!("{FIXTURES}/greet.sh")).run()?))
    }),
    open_for_writing(
        r#"
        with open(T + '/busy', 'wb') as f:
            os.fchmod(f.fileno(), 0o755)
            f.write(b'#!/bin/sh\n')
            f.flush()
            return run([T + '/busy']).returncode
        "#,
        |w| {
            let mut file = w.create("busy");
            file.write_all(b"#!/bin/sh\n").unwrap();
            file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
            Ok(at(w.path("busy")).run()?.returncode().to_string())
        }
    ),
    empty_name("run([''])", |_| Ok(shown(&Command::new("").run()?))).difference(
        "errno EACCES",
        "refused",
        "no file has this name, so nothing is searched"
    ),
    no_words_at_all("run([])", |_| Ok(shown(&Command::parse("")?.run()?))),
    zero_byte_in_the_name("run(['a\\0b'])", |_| Ok(shown(&Command::new("a\0b").run()?))),
    zero_byte_in_an_argument("fixture('argv', 'a\\0b')", |_| Ok(shown(&fx(["argv", "a\0b"]).run()?))),
    zero_byte_in_the_directory("fixture('cwd', cwd='/a\\0b')", |_| Ok(shown(&fx(["cwd"]).current_dir("/a\0b").run()?))),
    one_string_is_a_program("shown(run('true', capture_output=True))", |_| Ok(shown(&Command::new("true").run()?))),
    one_string_is_not_split("run('echo hi')", |_| Ok(shown(&Command::new("echo hi").run()?))),
    path_object("shown(run(pathlib.Path(T) / 'sub' / 'tool', capture_output=True))", |w| {
        Ok(shown(&at(w.path("sub/tool")).run()?))
    }),
    words_are_kept("shown(fixture('argv', '', 'a b', '*', '$HOME', '-x', \"'\"))", |_| {
        Ok(shown(&fx(["argv", "", "a b", "*", "$HOME", "-x", "'"]).run()?))
    }),
    words_that_are_no_text("shown(run([FX, b'echo', b'\\xff\\xfe'], capture_output=True))", |_| {
        Ok(shown(&fx(["echo"]).arg(OsStr::from_bytes(b"\xff\xfe")).run()?))
    }),
    words_that_are_too_long("fixture('argv', 'x' * 200000)", |_| Ok(shown(&fx(["argv", &"x".repeat(200_000)]).run()?))),
    executable_and_its_name("shown(run(['shown', 'argv', 'x'], executable=FX, capture_output=True))", |_| {
        Ok(shown(&Command::new("shown").executable(FIXTURE).args(["argv", "x"]).run()?))
    }),
    executable_is_searched("shown(run(['shown', '-c', 'echo $0'], executable='sh', capture_output=True))", |_| {
        Ok(shown(&Command::new("shown").executable("sh").args(["-c", "echo $0"]).run()?))
    }),
    shell("shown(run('echo $((1+2)); exit 4', shell=True, capture_output=True))", |_| {
        Ok(shown(&Command::shell("echo $((1+2)); exit 4").run()?))
    }),
    shell_with_more_words("shown(run(['echo $0 $1', 'zero', 'one two'], shell=True, capture_output=True))", |_| {
        Ok(shown(&Command::shell("echo $0 $1").args(["zero", "one two"]).run()?))
    }),
    shell_and_a_missing_program("run('no-such-program-here', shell=True, stderr=PIPE).returncode", |_| {
        Ok(Command::shell("no-such-program-here").run()?.returncode().to_string())
    }),
    shell_and_a_file_without_permission("run([f'{T}/noexec'], shell=True, stderr=PIPE).returncode", |w| {
        Ok(Command::shell(w.path("noexec")).run()?.returncode().to_string())
    }),
    shell_and_its_signal("run('kill -TERM $$', shell=True).returncode", |_| {
        Ok(Command::shell("kill -TERM $$").run()?.returncode().to_string())
    }),
    directory_of_the_child("shown(fixture('cwd', cwd=T + '/sub'))", |w| {
        Ok(shown(&fx(["cwd"]).current_dir(w.path("sub")).run()?))
    }),
    directory_that_is_missing(
        r#"
        try:
            fixture('cwd', cwd=T + '/nowhere')
        except OSError as e:
            return f'{errno.errorcode[e.errno]} {e.filename}'
        "#,
        |w| Ok(errno_and_path(fx(["cwd"]).current_dir(w.path("nowhere")).run()))
    ),
    directory_that_is_a_file(
        r#"
        try:
            fixture('cwd', cwd=T + '/input')
        except OSError as e:
            return f'{errno.errorcode[e.errno]} {e.filename}'
        "#,
        |w| Ok(errno_and_path(fx(["cwd"]).current_dir(w.path("input")).run()))
    ),
    directory_that_is_empty("fixture('cwd', cwd='')", |_| Ok(shown(&fx(["cwd"]).current_dir("").run()?))).difference(
        "errno ENOENT",
        "refused",
        "an empty path is a mistake of the caller, which needs no process to be seen"
    ),
    program_relative_to_the_directory_of_the_child("run(['./tool', 'exit', '3'], cwd=T + '/sub').returncode", |w| {
        let tool = Command::new("./tool").args(["exit", "3"]).current_dir(w.path("sub"));
        Ok(tool.run()?.returncode().to_string())
    })
    .difference("3", "errno ENOENT", "the directory of the child does not change what a relative program means"),
    program_relative_to_the_directory_of_the_parent(
        r#"
        before = os.getcwd()
        os.chdir(T)
        try:
            return run(['sub/tool', 'exit', '3'], cwd='/').returncode
        finally:
            os.chdir(before)
        "#,
        |w| {
            let before = std::env::current_dir().unwrap();
            std::env::set_current_dir(&w.root).unwrap();
            let result = Command::new("sub/tool").args(["exit", "3"]).current_dir("/").run();
            std::env::set_current_dir(before).unwrap();
            Ok(result?.returncode().to_string())
        }
    )
    .alone()
    .difference("errno ENOENT", "3", "the directory of the child does not change what a relative program means"),
    relative_program_and_no_directory(
        r#"
        before = os.getcwd()
        os.chdir(T)
        try:
            return shown(run(['sub/tool', 'cwd'], capture_output=True))
        finally:
            os.chdir(before)
        "#,
        |w| {
            let before = std::env::current_dir().unwrap();
            std::env::set_current_dir(&w.root).unwrap();
            let result = Command::new("sub/tool").arg("cwd").run();
            std::env::set_current_dir(before).unwrap();
            Ok(shown(&result?))
        }
    )
    .alone(),
    found_in_the_path_of_the_child(
        "shown(run(['tool', 'argv'], env={'PATH': T + '/sub'}, capture_output=True))",
        |w| { Ok(shown(&Command::new("tool").arg("argv").env("PATH", w.path("sub")).run()?)) }
    ),
    not_found_in_the_path_of_the_child("run(['sh', '-c', 'true'], env={'PATH': T})", |w| {
        Ok(shown(&sh("true").env("PATH", w.path("")).run()?))
    }),
    found_after_one_without_permission(
        "run(['tool', 'exit', '3'], env={'PATH': f'{T}/bad:{T}/sub'}).returncode",
        |w| {
            let path = std::env::join_paths([w.path("bad"), w.path("sub")]).unwrap();
            Ok(Command::new("tool").args(["exit", "3"]).env("PATH", path).run()?.returncode().to_string())
        }
    ),
    found_without_permission_only("run(['tool'], env={'PATH': f'{T}/bad:{T}/nowhere'})", |w| {
        let path = std::env::join_paths([w.path("bad"), w.path("nowhere")]).unwrap();
        Ok(shown(&Command::new("tool").env("PATH", path).run()?))
    }),
    found_after_one_that_is_no_program(
        "run(['tool', 'exit', '3'], env={'PATH': f'{T}/odd:{T}/sub'}).returncode",
        |w| {
            let path = std::env::join_paths([w.path("odd"), w.path("sub")]).unwrap();
            Ok(Command::new("tool").args(["exit", "3"]).env("PATH", path).run()?.returncode().to_string())
        }
    )
    .difference(
        "3",
        "errno ENOEXEC",
        "the first program of this name is what the shell would take; a broken one is told and not passed over"
    ),
    found_without_any_path("shown(run(['true'], env={}, capture_output=True))", |_| {
        Ok(shown(&Command::new("true").env_clear().run()?))
    }),
    relative_entries_of_the_path("run(['tool', 'exit', '3'], cwd=T, env={'PATH': 'sub'}).returncode", |w| {
        let tool = Command::new("tool").args(["exit", "3"]).current_dir(&w.root).env("PATH", "sub");
        Ok(tool.run()?.returncode().to_string())
    })
    .difference(
        "3",
        "errno ENOENT",
        "a relative entry of PATH runs whatever lies in the directory one happens to be in"
    ),
);

/// What the system refused, and about which path.
fn errno_and_path(result: Result<Output, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DirectoryNotFound);
    let errno = Errno::from_raw(error.raw_os_error().unwrap());
    format!("{errno:?} {}", error.failed_path().unwrap().display())
}

// ---- the environment ----

cases!(
    environment,
    replaced("shown(fixture('env', env={'B': '2', 'A': '1'}))", |_| {
        Ok(shown(&fx(["env"]).env_replace([("B", "2"), ("A", "1")]).run()?))
    }),
    empty("shown(fixture('env', env={}))", |_| Ok(shown(&fx(["env"]).env_clear().run()?))),
    inherited(
        "fixture('env').stdout == b''.join(sorted(k + b'=' + v + b'\\n' for k, v in os.environb.items()))",
        |_| {
            let mut all: Vec<OsString> = std::env::vars_os()
                .map(|(mut key, value)| {
                    key.push("=");
                    key.push(value);
                    key
                })
                .collect();
            all.sort();
            let expected: Vec<u8> = all.iter().flat_map(|entry| [entry.as_bytes(), b"\n"].concat()).collect();
            Ok(truth(fx(["env"]).run()?.stdout() == expected))
        }
    ),
    extended("shown(fixture('env', 'K', 'PATH', env={**os.environ, 'K': 'v w', 'PATH': '/x'}))", |_| {
        Ok(shown(&fx(["env", "K", "PATH"]).env("K", "v w").env("PATH", "/x").run()?))
    }),
    one_removed("shown(fixture('env', 'PATH', env={k: v for k, v in os.environ.items() if k != 'PATH'}))", |_| {
        Ok(shown(&fx(["env", "PATH"]).env_remove("PATH").run()?))
    }),
    bytes_that_are_no_text("shown(fixture('env', env={b'K\\xff': b'\\xfe'}))", |_| {
        let (key, value) = (OsStr::from_bytes(b"K\xff"), OsStr::from_bytes(b"\xfe"));
        Ok(shown(&fx(["env"]).env_replace([(key, value)]).run()?))
    }),
    value_that_is_empty("shown(fixture('env', env={'K': ''}))", |_| {
        Ok(shown(&fx(["env"]).env_replace([("K", "")]).run()?))
    }),
    value_with_equals("shown(fixture('env', env={'K': 'a=b'}))", |_| {
        Ok(shown(&fx(["env"]).env_replace([("K", "a=b")]).run()?))
    }),
    key_with_equals("fixture('env', env={'K=': 'v'})", |_| Ok(shown(&fx(["env"]).env("K=", "v").run()?))),
    key_that_begins_with_equals("fixture('env', env={'=K': 'v'})", |_| Ok(shown(&fx(["env"]).env("=K", "v").run()?))),
    key_with_a_zero_byte("fixture('env', env={'K\\0': 'v'})", |_| Ok(shown(&fx(["env"]).env("K\0", "v").run()?))),
    value_with_a_zero_byte("fixture('env', env={'K': 'v\\0'})", |_| Ok(shown(&fx(["env"]).env("K", "v\0").run()?))),
    key_that_is_empty("shown(fixture('env', env={'': 'v'}))", |_| Ok(shown(&fx(["env"]).env("", "v").run()?)))
        .difference("0 '=v\\n' ''", "refused", "no program can ask for a variable without a name"),
);

// ---- attributes ----

cases!(
    attributes,
    new_session(
        r#"
        words = dict(word.split('=') for word in fixture('pgid', start_new_session=True, text=True).stdout.split())
        return words['pid'] == words['pgid'] == words['sid']
        "#,
        |_| {
            let fields = pgid_fields(&fx(["pgid"]).setsid().run()?);
            let same = fields["pid"] == fields["pgid"] && fields["pid"] == fields["sid"];
            Ok(truth(same))
        }
    ),
    new_group(
        r#"
        words = dict(word.split('=') for word in fixture('pgid', process_group=0, text=True).stdout.split())
        return [words['pid'] == words['pgid'], int(words['sid']) == os.getsid(0)]
        "#,
        |_| {
            let fields = pgid_fields(&fx(["pgid"]).process_group(0).run()?);
            let session = nix::unistd::getsid(None).unwrap().as_raw();
            let facts = [fields["pid"] == fields["pgid"], fields["sid"] == session];
            Ok(list(facts.map(truth)))
        }
    ),
    group_of_the_parent(
        r#"
        words = dict(word.split('=') for word in fixture('pgid', text=True).stdout.split())
        return int(words['pgid']) == os.getpgrp()
        "#,
        |_| {
            let same = pgid_fields(&fx(["pgid"]).run()?)["pgid"] == nix::unistd::getpgrp().as_raw();
            Ok(truth(same))
        }
    ),
    group_of_another_child(
        r#"
        leader = spawned('sleep', '20000', process_group=0)
        words = dict(word.split('=') for word in fixture('pgid', process_group=leader.pid, text=True).stdout.split())
        leader.kill()
        leader.wait()
        return int(words['pgid']) == leader.pid
        "#,
        |_| {
            let mut leader = fx(["sleep", "20000"]).process_group(0).spawn()?;
            let id = leader.id() as i32;
            let same = pgid_fields(&fx(["pgid"]).process_group(id).run()?)["pgid"] == id;
            leader.kill()?;
            leader.wait()?;
            Ok(truth(same))
        }
    ),
    group_that_is_not_there("fixture('pgid', process_group=4194303)", |_| {
        Ok(shown(&fx(["pgid"]).process_group(4_194_303).run()?))
    }),
    group_that_is_negative("fixture('exit', '0', process_group=-5).returncode", |_| {
        Ok(fx(["exit", "0"]).process_group(-5).run()?.returncode().to_string())
    })
    .difference("0", "refused", "Python takes every negative number for none, which hides mistakes"),
    session_and_group("fixture('exit', '0', start_new_session=True, process_group=0).returncode", |_| {
        Ok(fx(["exit", "0"]).setsid().process_group(0).run()?.returncode().to_string())
    })
    .difference("errno EPERM", "0", "the leader of a session leads its own group already: both wishes are fulfilled"),
    umask("shown(fixture('umask', umask=0o027))", |_| Ok(shown(&fx(["umask"]).umask(0o027).run()?))),
    umask_of_zero("shown(fixture('umask', umask=0))", |_| Ok(shown(&fx(["umask"]).umask(0).run()?))),
    umask_of_the_parent("shown(fixture('umask'))", |_| Ok(shown(&fx(["umask"]).run()?))),
    umask_that_is_none("shown(fixture('umask', umask=0o1777))", |_| Ok(shown(&fx(["umask"]).umask(0o1777).run()?)))
        .difference("0 '0777\\n' ''", "refused", "bits that the kernel would drop are a mistake of the caller"),
    signals_are_restored("[fixture('sigstate').stdout.decode().splitlines()[n] for n in (0, 2)]", |_| {
        let output = fx(["sigstate"]).run()?;
        let text = output.stdout_lossy();
        let lines: Vec<&str> = text.lines().collect();
        Ok(list([lines[0], lines[2]].map(|line| format!("'{line}'"))))
    }),
    signals_are_not_restored("fixture('sigstate', restore_signals=False).stdout.splitlines()[2].decode()", |_| {
        Ok(fx(["sigstate"]).restore_signals(false).run()?.stdout_lossy().lines().nth(2).unwrap().to_owned())
    })
    .alone(),
    signals_that_the_parent_ignores(
        r#"
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        p = fixture('sigstate')
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        return '1' in p.stdout.decode().splitlines()[1].removeprefix('ignored=').split(',')
        "#,
        |_| {
            set_action(libc::SIGHUP, libc::SIG_IGN);
            let output = fx(["sigstate"]).run();
            set_action(libc::SIGHUP, libc::SIG_DFL);
            let output = output?;
            let text = output.stdout_lossy();
            let ignored = text.lines().find_map(|line| line.strip_prefix("ignored=")).unwrap();
            Ok(truth(ignored.split(',').any(|number| number == "1")))
        }
    )
    .alone(),
    signals_that_the_parent_blocks(
        r#"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        p = fixture('sigstate')
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return p.stdout.splitlines()[0].decode()
        "#,
        |_| Ok(blocking_usr1(|| fx(["sigstate"]).run())?.stdout_lossy().lines().next().unwrap().to_owned())
    )
    .alone()
    .difference("blocked=10", "blocked=", "a child that blocks signals cannot be asked to end; the mask is no part of a command"),
    signals_that_the_parent_blocks_on_request(
        r#"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        p = fixture('sigstate')
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return p.stdout.splitlines()[0].decode()
        "#,
        |_| {
            let output = blocking_usr1(|| fx(["sigstate"]).inherit_signal_mask().run())?;
            Ok(output.stdout_lossy().lines().next().unwrap().to_owned())
        }
    )
    .alone(),
    hook("shown(fixture('umask', preexec_fn=lambda: os.umask(0o77)))", |_| {
        let umask = || {
            // SAFETY: an integer argument.
            unsafe { libc::umask(0o77) };
            Ok(())
        };
        // SAFETY: umask(2) is async-signal-safe.
        Ok(shown(&unsafe { fx(["umask"]).pre_exec(umask) }.run()?))
    })
    .alone(),
    hook_that_fails(
        r#"
        def fail():
            raise PermissionError(errno.EPERM, 'no')
        fixture('umask', preexec_fn=fail)
        "#,
        |_| {
            // SAFETY: no system call, no allocation.
            let command = unsafe { fx(["umask"]).pre_exec(|| Err(std::io::Error::from_raw_os_error(libc::EPERM))) };
            Ok(shown(&command.run()?))
        }
    )
    .alone()
    .difference(
        "SubprocessError('Exception occurred in preexec_fn.')",
        "errno EPERM",
        "the error of the hook is the error of the spawn"
    ),
    user_by_name("esc(check_output(['id', '-u'], user='nobody'))", |_| {
        Ok(bytes(&Command::new("id").arg("-u").user("nobody").check_output()?))
    })
    .root(),
    user_and_group_and_groups(
        r#"
        return [esc(check_output(['id', flag], user=65534, group=12, extra_groups=[13, 14])) for flag in ('-u', '-g', '-G')]
        "#,
        |_| {
            let id = |flag| Command::new("id").arg(flag).user(65534).group(12).groups([13, 14]);
            let shown = ["-u", "-g", "-G"].map(|flag| Ok(format!("{:?}", bytes(&id(flag).check_output()?))));
            Ok(list(shown.into_iter().collect::<Result<Vec<_>, Error>>()?))
        }
    )
    .root(),
    user_alone(
        r#"
        call(['id', '-u'], user=65534, stdout=DEVNULL)
        return esc(check_output(['id', '-g'], user=65534))
        "#,
        |_| Ok(bytes(&Command::new("id").arg("-g").user(65534).check_output()?))
    )
    .root()
    .difference("'0\\n'", "'65534\\n'", "a user without the groups of the parent is what is meant; Python leaves root's"),
    groups_cleared("esc(check_output(['id', '-G'], group=12, extra_groups=[]))", |_| {
        Ok(bytes(&Command::new("id").arg("-G").group(12).groups([0_u32; 0]).check_output()?))
    })
    .root(),
    user_that_is_unknown("fixture('exit', '0', user='no-such-user-here')", |_| {
        Ok(shown(&fx(["exit", "0"]).user("no-such-user-here").run()?))
    }),
    group_that_is_unknown("fixture('exit', '0', group='no-such-group-here')", |_| {
        Ok(shown(&fx(["exit", "0"]).group("no-such-group-here").run()?))
    }),
    rights_of_root("esc(check_output(['id', '-u'], user=0))", |_| {
        Ok(bytes(&Command::new("id").arg("-u").user(0).check_output()?))
    }),
    groups_with_the_rights_we_have("esc(check_output(['id', '-u'], extra_groups=[0]))", |_| {
        Ok(bytes(&Command::new("id").arg("-u").groups([0]).check_output()?))
    }),
);

// ---- ends ----

cases!(
    ends,
    codes_before_and_after(
        r#"
        p = spawned('cat', stdin=PIPE)
        codes = [p.returncode, p.poll()]
        p.stdin.close()
        return codes + [p.wait(), p.returncode, p.poll()]
        "#,
        |_| {
            let mut child = fx(["cat"]).stdin(Stdio::piped()).spawn()?;
            let mut codes = vec![child.returncode(), child.poll()?];
            child.stdin = None;
            codes.push(Some(child.wait()?.returncode()));
            codes.extend([child.returncode(), child.poll()?]);
            Ok(list(codes.into_iter().map(number_or_none)))
        }
    ),
    code_is_known_only_after_a_look(
        r#"
        p = spawned('exit', '6', stdout=PIPE)
        p.stdout.read()
        wait_for(lambda: not is_alive(p.pid))
        return [p.returncode, p.poll(), p.returncode]
        "#,
        |_| {
            let mut child = fx(["exit", "6"]).stdout(Stdio::piped()).spawn()?;
            child.stdout.as_mut().unwrap().read_to_end(&mut Vec::new()).unwrap();
            wait_for(|| !is_alive(child.id() as i32));
            Ok(list([child.returncode(), child.poll()?, child.returncode()].map(number_or_none)))
        }
    ),
    aborted("call([FX, 'abort'])", |_| Ok(fx(["abort"]).call()?.returncode().to_string())),
    last_thread_decides("call([FX, 'leader-exit', '50'], stdout=DEVNULL)", |_| {
        Ok(fx(["leader-exit", "50"]).stdout(Stdio::null()).call()?.returncode().to_string())
    }),
    terminated(
        r#"
        p = spawned('sleep', '20000')
        p.terminate()
        return [p.wait(), p.poll()]
        "#,
        |_| {
            let mut child = fx(["sleep", "20000"]).spawn()?;
            child.terminate()?;
            Ok(list([Some(child.wait()?.returncode()), child.poll()?].map(number_or_none)))
        }
    ),
    killed_although_deaf(
        r#"
        p = spawned('deaf', '20000', stdout=PIPE)
        p.stdout.readline()
        p.terminate()
        try:
            p.wait(.1)
        except TimeoutExpired:
            p.kill()
        return p.wait()
        "#,
        |_| {
            let mut child = fx(["deaf", "20000"]).stdout(Stdio::piped()).spawn()?;
            line_of(&mut child);
            child.terminate()?;
            assert_eq!(child.wait_timeout(milliseconds(100))?, None);
            child.kill()?;
            Ok(child.wait()?.returncode().to_string())
        }
    ),
    any_signal(
        r#"
        p = spawned('sleep', '20000')
        p.send_signal(signal.SIGUSR2)
        return p.wait()
        "#,
        |_| {
            let mut child = fx(["sleep", "20000"]).spawn()?;
            child.send_signal(Signal::USR2)?;
            Ok(child.wait()?.returncode().to_string())
        }
    ),
    stopped_child_acts_when_continued(
        r#"
        p = spawned('stopped', stdout=PIPE)
        p.stdout.readline()
        wait_for(lambda: open(f'/proc/{p.pid}/stat').read().rsplit(') ')[1][0] == 'T')
        p.terminate()
        try:
            p.wait(.1)
        except TimeoutExpired:
            p.send_signal(signal.SIGCONT)
        return p.wait()
        "#,
        |_| {
            let mut child = fx(["stopped"]).stdout(Stdio::piped()).spawn()?;
            line_of(&mut child);
            let stat = format!("/proc/{}/stat", child.id());
            wait_for(|| fs::read_to_string(&stat).unwrap().rsplit_once(") ").unwrap().1.starts_with('T'));
            child.terminate()?;
            assert_eq!(child.wait_timeout(milliseconds(100))?, None);
            child.send_signal(Signal::CONT)?;
            Ok(child.wait()?.returncode().to_string())
        }
    ),
    signal_after_the_end(
        r#"
        p = spawned('exit', '2')
        p.wait()
        p.send_signal(signal.SIGTERM)
        p.terminate()
        p.kill()
        return p.returncode
        "#,
        |_| {
            let mut child = fx(["exit", "2"]).spawn()?;
            child.wait()?;
            assert!(!child.send_signal(Signal::TERM)? && !child.terminate()? && !child.kill()?);
            Ok(number_or_none(child.returncode()))
        }
    ),
    number_that_the_child_has(
        r#"
        p = spawned('pgid', stdout=PIPE, text=True)
        return p.communicate()[0].split()[0] == f'pid={p.pid}'
        "#,
        |_| {
            let mut child = fx(["pgid"]).stdout(Stdio::piped()).spawn()?;
            let output = child.communicate(())?;
            let same = pgid_fields(&output)["pid"] == child.id() as i32;
            Ok(truth(same))
        }
    ),
    many_threads_wait(
        r#"
        p = spawned('sleep', '100')
        codes = []
        threads = [threading.Thread(target=lambda: codes.append(p.wait())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return codes
        "#,
        |_| {
            let child = fx(["sleep", "100"]).spawn()?;
            let handles = [(); 4].map(|()| child.handle().clone());
            let threads = handles.map(|handle| std::thread::spawn(move || handle.wait()));
            let codes = threads.map(|thread| thread.join().unwrap().map(ExitStatus::returncode));
            Ok(list(codes.into_iter().collect::<Result<Vec<_>, Error>>()?))
        }
    ),
    dropped_child_goes_on(
        r#"
        p = spawned('sleep', '20000')
        pid = p.pid
        del p
        alive = is_alive(pid)
        os.kill(pid, signal.SIGKILL)
        return alive
        "#,
        |_| {
            let child = fx(["sleep", "20000"]).spawn()?;
            let handle = child.handle().clone();
            drop(child);
            let alive = is_alive(handle.id() as i32);
            handle.kill()?;
            handle.wait()?;
            Ok(truth(alive))
        }
    ),
    somebody_else_waited(
        r#"
        p = spawned('exit', '7')
        os.waitpid(p.pid, 0)
        return p.wait() == 0
        "#,
        |_| {
            let mut child = fx(["exit", "7"]).spawn()?;
            // SAFETY: a null pointer is allowed for the status.
            unsafe { libc::waitpid(child.id() as i32, std::ptr::null_mut(), 0) };
            let status = child.wait()?;
            assert!(status == ExitStatus::UNKNOWN || status.code() == Some(7), "{status}");
            Ok(truth(status.returncode() == 0))
        }
    )
    .difference(
        "True",
        "False",
        "a status that somebody took is unknown, or the real one where the kernel keeps it"
    ),
    nobody_keeps_the_status(
        r#"
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        code = call([FX, 'exit', '7'])
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return code == 0
        "#,
        |_| {
            set_action(libc::SIGCHLD, libc::SIG_IGN);
            let status = fx(["exit", "7"]).call();
            set_action(libc::SIGCHLD, libc::SIG_DFL);
            let status = status?;
            assert!(status == ExitStatus::UNKNOWN || status.code() == Some(7), "{status}");
            Ok(truth(status.returncode() == 0))
        }
    )
    .alone()
    .difference(
        "True",
        "False",
        "a status that nobody keeps is unknown, or the real one where the kernel keeps it"
    ),
);

// ---- text ----

cases!(
    text,
    utf8_in_pieces("esc(check_output([FX, 'bytes', '41e2', '82', 'ac42'], encoding='utf-8'))", |_| {
        Ok(bytes(fx(["bytes", "41e2", "82", "ac42"]).check_output_text()?.as_bytes()))
    }),
    input_and_output("esc(check_output([FX, 'upper'], input='stra\\u00dfe\\n', encoding='utf-8'))", |_| {
        Ok(bytes(fx(["upper"]).input("stra\u{df}e\n").check_output_text()?.as_bytes()))
    }),
    broken_and_strict("check_output([FX, 'bytes', '4142ff43'], encoding='utf-8')", |_| {
        fx(["bytes", "4142ff43"]).check_output_text()
    }),
    cut_off_and_strict("check_output([FX, 'bytes', '41e282'], encoding='utf-8')", |_| {
        fx(["bytes", "41e282"]).check_output_text()
    }),
    broken_and_replaced(
        "esc(check_output([FX, 'bytes', '41f09f9241e28241ffc0af'], encoding='utf-8', errors='replace'))",
        |_| {
            let text = Text::utf8().errors(ErrorMode::Replace);
            Ok(bytes(fx(["bytes", "41f09f9241e28241ffc0af"]).text(text).check_output_text()?.as_bytes()))
        }
    ),
    broken_and_ignored("esc(check_output([FX, 'bytes', '41ff42'], encoding='utf-8', errors='ignore'))", |_| {
        let text = Text::utf8().errors(ErrorMode::Ignore);
        Ok(bytes(fx(["bytes", "41ff42"]).text(text).check_output_text()?.as_bytes()))
    }),
    byte_order_mark("esc(check_output([FX, 'bytes', 'efbbbf41'], encoding='utf-8'))", |_| {
        Ok(bytes(fx(["bytes", "efbbbf41"]).check_output_text()?.as_bytes()))
    }),
    latin1("esc(check_output([FX, 'bytes', '636166e9'], encoding='latin1'))", |_| {
        Ok(bytes(fx(["bytes", "636166e9"]).text(Text::encoding("latin1")?).check_output_text()?.as_bytes()))
    }),
    latin1_above_ascii("esc(check_output([FX, 'bytes', '80'], encoding='latin1'))", |_| {
        Ok(bytes(fx(["bytes", "80"]).text(Text::encoding("latin1")?).check_output_text()?.as_bytes()))
    })
    .difference(
        "'\\xc2\\x80'",
        "'\\xe2\\x82\\xac'",
        "labels are those of the Encoding Standard, where latin1 means windows-1252"
    ),
    windows_1252("esc(check_output([FX, 'bytes', '80e9'], encoding='cp1252'))", |_| {
        Ok(bytes(fx(["bytes", "80e9"]).text(Text::encoding("cp1252")?).check_output_text()?.as_bytes()))
    }),
    utf16_with_mark("esc(check_output([FX, 'bytes', 'fffe41', '00ac20'], encoding='utf-16'))", |_| {
        Ok(bytes(fx(["bytes", "fffe41", "00ac20"]).text(Text::encoding("utf-16")?).check_output_text()?.as_bytes()))
    }),
    shift_jis("esc(check_output([FX, 'bytes', '93', 'fa', '967b'], encoding='shift_jis'))", |_| {
        let text = Text::encoding("shift_jis")?;
        Ok(bytes(fx(["bytes", "93", "fa", "967b"]).text(text).check_output_text()?.as_bytes()))
    }),
    unknown_encoding("check_output([FX, 'echo'], encoding='no-such-code')", |_| {
        fx(["echo"]).text(Text::encoding("no-such-code")?).check_output_text()
    }),
    line_ends("esc(check_output([FX, 'bytes', '410d', '0a420d430d0d0a0a'], encoding='utf-8'))", |_| {
        let text = Text::utf8().newlines(Newlines::Universal);
        Ok(bytes(fx(["bytes", "410d", "0a420d430d0d0a0a"]).text(text).check_output_text()?.as_bytes()))
    }),
    line_ends_by_default("esc(check_output([FX, 'bytes', '410d0a'], encoding='utf-8'))", |_| {
        Ok(bytes(fx(["bytes", "410d0a"]).check_output_text()?.as_bytes()))
    })
    .difference("'A\\n'", "'A\\r\\n'", "bytes and text say the same unless line ends are asked to be translated"),
    checked_before_it_is_decoded(
        "check_output(['sh', '-c', r'printf \"\\377\"; exit 3'], encoding='utf-8', stderr=PIPE)",
        |_| { sh(r"printf '\377'; exit 3").check_output_text() }
    )
    .difference(
        "undecodable at 0",
        "status 3 '\\xff' ''",
        "how a program ended comes before how its words are written"
    ),
);
