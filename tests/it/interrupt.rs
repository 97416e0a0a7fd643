//! ^C and its like: who gets the signal, how often, what the second and the third one do, and what is left as it was. The host is this
//! test again, on a terminal of its own where one is needed.

use crate::support::{Scratch, alone, fixture, fixture_path, wait_for};
use crate::talk::line;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal as Number, kill, raise, sigaction};
use nix::unistd::Pid;
use procession::pool::{Done, Local, Outcome, Pool, Script, Scripted, Task};
use procession::{Child, Command, PipeWriter, Pty, Signal, Stop};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So long nobody waits in these tests.
const LONG: Duration = Duration::from_secs(60);
const HOSTED: &str = "PROCESSION_TEST_HOSTED_IN";

/// The place that the host and the test share, in the process that is the host.
fn place() -> Option<PathBuf> {
    std::env::var_os(HOSTED).map(PathBuf::from)
}

/// The test again.
fn again(scratch: &Scratch) -> Command {
    let again = Command::new(std::env::current_exe().unwrap()).args(std::env::args_os().skip(1));
    again.env(HOSTED, scratch.path()).timeout(LONG)
}

fn is_up(child: &mut Child) {
    let mut said = String::new();
    while !said.ends_with("the host is up") {
        let line = line(child.stdout.as_mut().unwrap());
        assert!(!line.is_empty() || !said.ends_with("\n\n"), "{said}");
        said += "\n";
        said += &line;
    }
}

/// The host is on a terminal; `act` has it when all is running.
fn on_a_terminal(scratch: &Scratch, act: impl FnOnce(&mut Child)) {
    let mut child = again(scratch).pty(Pty::new()).spawn().unwrap();
    is_up(&mut child);
    act(&mut child);
    let output = child.communicate(()).unwrap();
    assert!(output.success() && output.stdout_lossy().contains("1 passed"), "{output:?}");
}

fn type_interrupt(child: &mut Child) {
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A command that notes each SIGINT in a file, until the end of the input that comes with it.
fn noting(file: &Path) -> (Command, PipeWriter) {
    let (reader, writer) = procession::pipe().unwrap();
    let file = fs::File::create(file).unwrap();
    (fixture("trap").args(["INT", "HUP", "TERM"]).stdin(reader).stdout(file), writer)
}

/// The same behind a shell that is no deafer than it.
fn noting_behind_a_shell(file: &Path) -> (Command, PipeWriter) {
    let (reader, writer) = procession::pipe().unwrap();
    let script = format!(
        "trap : INT HUP TERM; {} trap INT HUP TERM <&3 >{} & while kill -0 $! 2>/dev/null; do wait; done",
        fixture_path().display(),
        file.display()
    );
    (Command::shell(script).fd(3, reader), writer)
}

/// Runs children of all kinds until a signal has come: each of them has had it once, and has ended as it wanted.
fn run_noting_children(place: &Path, number: Number) {
    // One lane, which passes signals on in the order of the tasks: when the last one has it, everybody has had it who ever will.
    let pool = Pool::with_engine(4, Local::new().unwrap()).interruptible(LONG).unwrap();
    let file = |name: &str| place.join(name);
    let names = ["ours", "tree", "group", "session"];
    let files = names.map(file);
    let made = names.iter().zip(&files).map(|(name, file)| {
        let (command, writer) = if *name == "tree" { noting_behind_a_shell(file) } else { noting(file) };
        let command = match *name {
            "group" => command.process_group(0),
            "session" => command.setsid(),
            _ => command,
        };
        (pool.apply_async(command).unwrap(), writer)
    });
    let (pending, writers): (Vec<_>, Vec<_>) = made.unzip();
    let waiting = pool.apply_async(Command::new("true")).unwrap();
    wait_for("children", || files.iter().all(|file| text(file) == "ready\n"));
    println!("\nthe host is up");
    // Whoever waits wakes at once.
    let done = waiting.into_done();
    assert_eq!(done.outcome(), Outcome::Cancelled { confirmed: true });
    let error = done.result().unwrap_err();
    assert!(error.to_string().contains(&format!("not started: interrupted by {number}")), "{error}");
    wait_for("signals", || files.iter().all(|file| text(file).lines().count() > 1));
    drop(writers);
    for (done, file) in pending.into_iter().map(|one| one.into_done()).zip(&files) {
        assert_eq!(done.outcome(), Outcome::Exited(0), "{done:?}");
        assert_eq!(text(file), format!("ready\n{}\n", number as i32), "{}", file.display());
    }
    assert_eq!(pool.interrupted().map(Signal::number), Some(number as i32));
    // Nothing is started any more.
    assert_eq!(pool.map([Command::new("true")]).len(), 0);
    let late = pool.apply_async(Command::new("true")).unwrap().into_done();
    assert_eq!(late.outcome(), Outcome::Cancelled { confirmed: true });
}

#[test]
fn what_is_typed_reaches_everybody_once() {
    alone!({
        if let Some(place) = place() {
            return run_noting_children(&place, Number::SIGINT);
        }
        on_a_terminal(&Scratch::new(), type_interrupt);
    });
}

#[test]
fn what_is_sent_to_the_host_alone_reaches_everybody_once() {
    alone!({
        if let Some(place) = place() {
            let number = text(&place.join("number")).parse::<i32>().unwrap();
            return run_noting_children(&place, Number::try_from(number).unwrap());
        }
        for number in [Number::SIGINT, Number::SIGTERM, Number::SIGHUP] {
            let scratch = Scratch::new();
            fs::write(scratch.join("number"), (number as i32).to_string()).unwrap();
            on_a_terminal(&scratch, |child| kill(Pid::from_raw(child.id() as i32), number).unwrap());
        }
    });
}

/// A deaf child and its record, when a signal has come.
fn run_deaf_child(place: &Path, stop: Stop, grace: Duration) -> Done {
    let pool = Pool::new(2).interruptible(grace).unwrap();
    let file = place.join("deaf");
    let command = fixture("deaf").arg("60000").stdout(fs::File::create(&file).unwrap()).stop(stop);
    let pending = pool.apply_async(command).unwrap();
    wait_for("the child", || text(&file) == "ready\n");
    let begin = Instant::now();
    println!("\nthe host is up");
    let done = pending.into_done();
    assert!(begin.elapsed() < LONG / 2);
    assert_eq!(pool.interrupted(), Some(Signal::INT));
    done
}

/// So far apart that the kernel does not make one of two. No more of them: with nothing left, the next one ends the host.
fn type_interrupts(child: &mut Child, count: usize) {
    for place in 0..count {
        if place > 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
        type_interrupt(child);
    }
}

#[test]
fn the_second_one_stops_and_the_third_one_kills() {
    alone!({
        if let Some(place) = place() {
            let slow = Stop::new().signal(Signal::TERM, LONG).then_kill();
            let done = run_deaf_child(&place, slow, LONG);
            assert_eq!(done.outcome(), Outcome::Cancelled { confirmed: true });
            assert_eq!(done.status().signal(), Some(Signal::KILL));
            return;
        }
        on_a_terminal(&Scratch::new(), |child| type_interrupts(child, 3));
    });
}

#[test]
fn the_second_one_stops_by_the_plan() {
    alone!({
        if let Some(place) = place() {
            let done = run_deaf_child(&place, Stop::default(), LONG);
            assert_eq!(done.outcome(), Outcome::Cancelled { confirmed: true });
            return;
        }
        on_a_terminal(&Scratch::new(), |child| type_interrupts(child, 2));
    });
}

#[test]
fn the_end_of_the_grace_stops() {
    alone!({
        let scratch = Scratch::new();
        std::thread::scope(|scope| {
            let file = scratch.join("deaf");
            scope.spawn(move || {
                wait_for("the child", || text(&file) == "ready\n");
                kill(Pid::this(), Number::SIGINT).unwrap();
            });
            let done = run_deaf_child(scratch.path(), Stop::default(), Duration::from_millis(50));
            assert_eq!(done.outcome(), Outcome::Cancelled { confirmed: true });
        });
    });
}

/// A killed child has left the terminal raw, and another group in its foreground.
#[test]
fn the_terminal_is_put_right() {
    alone!({
        use nix::sys::termios::tcgetattr;
        if let Some(place) = place() {
            let stdin = std::io::stdin();
            let before = tcgetattr(&stdin).unwrap();
            let pool = Pool::new(2).interruptible(Duration::ZERO).unwrap();
            let script = "trap '' INT; exec </dev/tty; stty raw -echo; set -m; sh -c 'touch up; exec sleep 60'";
            let command = Command::shell(script).current_dir(&place).stop(Stop::kill());
            let pending = pool.apply_async(command).unwrap();
            wait_for("the child", || place.join("up").exists());
            assert_ne!(tcgetattr(&stdin).unwrap(), before);
            let own = nix::unistd::getpgrp();
            let foreground = || nix::unistd::tcgetpgrp(&stdin).unwrap();
            assert_ne!(foreground(), own);
            // In raw mode nobody can type it.
            raise(Number::SIGINT).unwrap();
            assert_eq!(pending.wait().outcome(), Outcome::Cancelled { confirmed: true });
            assert_eq!((tcgetattr(&stdin).unwrap(), foreground()), (before, own));
            println!("\nthe host is up");
            return;
        }
        on_a_terminal(&Scratch::new(), |_| ());
    });
}

/// A mask of `/proc/self/status`.
fn signals(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

fn bits(numbers: &[Number]) -> u64 {
    numbers.iter().map(|number| 1 << (*number as i32 - 1)).sum()
}

extern "C" fn nothing(_: libc::c_int) {}

/// Whether it is the handler of this test.
fn is_own(action: &SigAction) -> bool {
    matches!(action.handler(), SigHandler::Handler(handler) if std::ptr::fn_addr_eq(handler, nothing as extern "C" fn(libc::c_int)))
}

fn dispose(number: Number, action: &SigAction) -> SigAction {
    // SAFETY: the handlers of this test do nothing.
    unsafe { sigaction(number, action) }.unwrap()
}

#[test]
fn dispositions_are_as_before_and_what_is_ignored_stays_ignored() {
    alone!({
        let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        let mut mask = SigSet::empty();
        mask.add(Number::SIGUSR1);
        let own = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_NODEFER, mask);
        let hang_up = dispose(Number::SIGHUP, &ignored);
        let terminate = dispose(Number::SIGTERM, &own);
        let before = signals("SigCgt");
        for _ in 0..3 {
            let pool = Pool::new(2).interruptible(LONG).unwrap().interruptible(LONG).unwrap();
            assert_eq!(signals("SigCgt") & !before, bits(&[Number::SIGINT]));
            assert_eq!(signals("SigIgn") & bits(&[Number::SIGHUP]), bits(&[Number::SIGHUP]));
            raise(Number::SIGHUP).unwrap();
            let error = Pool::new(2).interruptible(LONG).unwrap_err();
            assert!(error.is_invalid_input() && error.to_string().contains("another pool"), "{error}");
            // Children are as without a pool.
            let said = pool.apply(fixture("sigstate")).unwrap().stdout_text().unwrap();
            assert_eq!(said, fixture("sigstate").check_output_text().unwrap());
            assert_eq!(pool.interrupted(), None);
            drop(pool);
            assert_eq!(signals("SigCgt"), before);
        }
        let pool = Pool::new(1).interruptible(LONG).unwrap();
        // Somebody else's change is left alone.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        dispose(Number::SIGINT, &own);
        drop(pool);
        assert!(is_own(&dispose(Number::SIGINT, &default)));
        let found = dispose(Number::SIGTERM, &terminate);
        assert!(is_own(&found) && found.mask().contains(Number::SIGUSR1));
        assert!(found.flags().contains(SaFlags::SA_NODEFER) && !found.flags().contains(SaFlags::SA_SIGINFO));
        dispose(Number::SIGHUP, &hang_up);
    });
}

#[test]
fn an_endless_input_ends() {
    alone!({
        let pool = Pool::new(2).interruptible(LONG).unwrap();
        let mut count = 0;
        for done in pool.imap((0..).map(|_| Command::new("true"))) {
            count += 1;
            assert!(done.success() || pool.interrupted().is_some(), "{done:?}");
            if count == 5 {
                raise(Number::SIGTERM).unwrap();
                wait_for("the signal", || pool.interrupted().is_some());
            }
        }
        assert!((5..100).contains(&count), "{count}");
        assert_eq!(pool.interrupted(), Some(Signal::TERM));
    });
}

#[test]
fn an_engine_that_cannot_signal_cancels() {
    alone!({
        let engine = Scripted::new().otherwise(Script::new().hangs());
        let pool = Pool::with_engine(2, engine).interruptible(LONG).unwrap();
        let pending = pool.apply_async(Task::new(Command::new("true"))).unwrap();
        wait_for("its start", || pending.is_running());
        raise(Number::SIGINT).unwrap();
        assert_eq!(pending.wait().outcome(), Outcome::Cancelled { confirmed: true });
    });
}

#[test]
fn with_nothing_left_a_further_signal_does_what_it_always_does() {
    alone!({
        if place().is_some() {
            let pool = Pool::new(2).interruptible(LONG).unwrap();
            raise(Number::SIGINT).unwrap();
            wait_for("the signal", || pool.interrupted().is_some());
            raise(Number::SIGINT).unwrap();
            std::thread::sleep(LONG);
            return;
        }
        let output = again(&Scratch::new()).output().unwrap();
        assert_eq!(output.status().signal(), Some(Signal::INT), "{output:?}");
    });
}
