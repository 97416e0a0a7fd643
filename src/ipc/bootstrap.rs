//! How a process comes to its function: this file runs before `main` in every process of a program that uses processes, and takes over those that
//! were started for a function. Decides what the function finds, and how its end is told.
//!
//! That is why nothing needs to be said in `main`, and why processes work in tests, whose `main` belongs to the test harness. In a process that was
//! started by anybody else it asks for one environment variable and steps aside.

use super::call::{self, Beginning, Call, State};
use super::function::Function;
use crate::error::{Error, Panic};
use crate::sys::program::{self, before_main};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};

/// The number of the descriptor with the [call](Call).
const VARIABLE: &CStr = c"PROCESSION_CALL";

/// What the process exits with when its function has panicked, as every Rust program does.
pub(super) const EXIT_PANIC: i32 = 101;

before_main!(BEGIN, begin);

static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
static CURRENT: OnceLock<Current> = OnceLock::new();
/// The call of this process, where accounts of panics are left, and the thread that the function runs on.
static CALL: OnceLock<(Call, ThreadId)> = OnceLock::new();

thread_local! {
    /// The last panic of the thread that the function runs on.
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
    /// Whether panics of this thread are caught by somebody who asks for an account.
    static IS_ACCOUNTED_FOR: Cell<bool> = const { Cell::new(false) };
}

/// The process that this code runs in, if it was started for a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    name: String,
    parent: u32,
}

impl Current {
    /// The name that [`ProcessBuilder::name`](super::ProcessBuilder::name) has given it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process that has started this one.
    pub fn parent_id(&self) -> u32 {
        self.parent
    }

    /// Whether that process is still there.
    pub fn parent_is_alive(&self) -> bool {
        std::os::unix::process::parent_id() == self.parent
    }
}

/// The process that this code runs in. `None` in the main one.
///
/// ```
/// use procession::ipc::{Process, current};
///
/// assert!(current().is_none());
/// let mut process = Process::builder(|()| current().map(|process| process.name().to_owned()), ()).name("worker").start()?;
/// assert_eq!(process.join()?.as_deref(), Some("worker"));
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "current_process")]
#[doc(alias = "parent_process")]
pub fn current() -> Option<&'static Current> {
    CURRENT.get()
}

/// The variable that makes a process of this program run a function, for those who start one.
pub(super) fn variable() -> &'static str {
    VARIABLE.to_str().unwrap_or_default()
}

/// Whether a process of this program would come to its function. If not, it would run `main` once more, and perhaps start a process there.
pub(super) fn check() -> Result<(), Error> {
    // Whatever the linker thinks of it: whoever can ask has it.
    std::hint::black_box(&BEGIN);
    if !HAS_BEGUN.load(Ordering::Relaxed) {
        return Err(Error::unsupported(
            "the code that leads a new process to its function has not run when this program started: its section .init_array was left out, or \
             the program was not started by the system's loader",
        ));
    }
    if std::env::var_os(variable()).is_some() {
        return Err(Error::unsupported(format!(
            "this process was itself started for a function ({} is set) and runs the program's main instead",
            variable()
        )));
    }
    Ok(())
}

/// The first code of ours in every process of the program.
fn begin() {
    HAS_BEGUN.store(true, Ordering::Relaxed);
    let Some(number) = program::take_variable(VARIABLE) else { return };
    let code = panic::catch_unwind(|| serve(number.to_str().and_then(|number| number.parse().ok()).unwrap_or(-1)));
    process::exit(code.unwrap_or(EXIT_PANIC));
}

/// Makes the call that the parent has left behind this descriptor. The code to exit with.
fn serve(number: i32) -> i32 {
    let call = match program::adopt(number) {
        Ok(file) => Call::left_by_parent(file),
        Err(error) => {
            complain(&format_args!("{}={number}: {error}", variable()));
            return 1;
        }
    };
    program::ignore_broken_pipes();
    let ended = match make(&call) {
        Ok(Ok(result)) => call.end(State::Returned, &result),
        Ok(Err(error)) => call.end(State::Refused, error.to_string().as_bytes()),
        // The hook has left an account of it.
        Err(Panicked) => return EXIT_PANIC,
    };
    let flushed = io::stdout().flush();
    match (ended, flushed) {
        (Ok(()), Ok(())) => 0,
        (Err(error), _) => {
            complain(&format_args!("the result of a function cannot be left: {error}"));
            1
        }
        (Ok(()), Err(error)) => {
            complain(&format_args!("standard output: {error}"));
            1
        }
    }
}

/// There is nobody else to tell, and nothing is to be done if that fails, too.
fn complain(what: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "procession: {what}");
}

struct Panicked;

fn make(call: &Call) -> Result<Result<Vec<u8>, Error>, Panicked> {
    let work = || -> Result<Vec<u8>, Error> {
        let (beginning, arguments) = call.beginning()?;
        let Beginning { program, place, name, parent, descriptors } = beginning;
        let own = call::own_program()?;
        if own != program {
            return Err(Error::invalid(format!("this process runs another program: file {own:?} and not {program:?}")));
        }
        let adopt = |number| program::adopt(number).map_err(|error| Error::io(format!("descriptor {number}"), error));
        let descriptors = descriptors.into_iter().map(adopt).collect::<Result<Vec<_>, _>>()?;
        let _ = CURRENT.set(Current { name, parent });
        leave_accounts_of_panics(call)?;
        call.arrive().map_err(|error| Error::io("write", error))?;
        let (result, descriptors) = Function::at(place).call(arguments, descriptors)?;
        if !descriptors.is_empty() {
            return Err(Error::invalid(
                "the result of a process stays when the process has gone, and its descriptors do not: give it a Connection as an argument, and send \
                 what has descriptors there",
            ));
        }
        Ok(result)
    };
    // The process ends right after this, so nobody sees what the panic has left half done.
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}

/// The panic of the thread that the function runs on is its end. The account is written in the hook, because a program may be built to abort then.
fn leave_accounts_of_panics(call: &Call) -> Result<(), Error> {
    let file = call.as_fd().try_clone_to_owned().map_err(|error| Error::io("dup", error))?;
    let before = panic::take_hook();
    let _ = CALL.set((Call::left_by_parent(file), thread::current().id()));
    panic::set_hook(Box::new(move |info| {
        if let Some(call) = call_of_this_thread() {
            let account = account_of(info);
            // Of a panic that cannot go on it is known already why it has begun.
            if !(LAST.with_borrow(Option::is_some) && is_about_another(&account)) {
                // What cannot be written is seen by the exit code.
                let _ = call.end_in_panic(&account);
                LAST.set(Some(account));
            }
        } else if IS_ACCOUNTED_FOR.get() {
            LAST.set(Some(account_of(info)));
        }
        before(info);
    }));
    Ok(())
}

fn call_of_this_thread() -> Option<&'static Call> {
    CALL.get().filter(|(_, thread)| *thread == thread::current().id()).map(|(call, _)| call)
}

/// Whether these are std's words before it aborts: a panic has come to a function that cannot unwind, or to a destructor during another one.
fn is_about_another(account: &Panic) -> bool {
    account.message().starts_with("panic in a ") && account.location().contains("core/src/panicking.rs")
}

/// From now on there are accounts of the panics of this thread, for [`take_last_panic`].
pub(super) fn account_for_this_thread() {
    IS_ACCOUNTED_FOR.set(true);
}

/// The account of a panic that was caught on this thread.
pub(super) fn take_last_panic() -> Panic {
    let unknown = || Panic::new("a panic of which nothing is known".into(), "an unknown place".into(), String::new());
    forget_last_panic().unwrap_or_else(unknown)
}

/// A panic of this thread was caught, whoever has done it: if the process ends now, it is for another reason.
pub(super) fn forget_last_panic() -> Option<Panic> {
    let last = LAST.take();
    if last.is_some()
        && let Some(call) = call_of_this_thread()
    {
        // What remains is an account of a panic that was a result; only an abort could be taken for it.
        let _ = call.arrive();
    }
    last
}

fn account_of(info: &PanicHookInfo<'_>) -> Panic {
    let location = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("a value that is no text");
    Panic::new(message.to_owned(), location, Backtrace::force_capture().to_string())
}
