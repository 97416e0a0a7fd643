//! A program with one thread, which the test harness is not: the environment is then read without a copy for each variable, and must
//! come out as std reads it.
#![allow(unsafe_code)] // changes its own environment, alone

use procession::Command;
use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

const AGAIN: &str = "PROCESSION_TEST_AGAIN";

fn fixture_env() -> Command {
    Command::new(std::path::Path::new(env!("CARGO_BIN_EXE_fixture"))).arg("env")
}

/// What a child has.
fn given(command: &Command) -> Vec<Vec<u8>> {
    let output = command.check_output().unwrap();
    output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// What std says that we have, in the order of the helper program.
fn ours() -> Vec<Vec<u8>> {
    let join = |(key, value): (OsString, OsString)| [key.into_vec(), b"=".to_vec(), value.into_vec()].concat();
    let mut all: Vec<Vec<u8>> = std::env::vars_os().map(join).collect();
    all.sort();
    all
}

fn is_inherited_whole() {
    assert_eq!(given(&fixture_env()), ours());
}

fn changes_are_seen() {
    // SAFETY: this program has one thread.
    unsafe { std::env::set_var("ADDED_BY_THE_TEST", "x=y") };
    assert!(given(&fixture_env()).contains(&b"ADDED_BY_THE_TEST=x=y".to_vec()));
    is_inherited_whole();
    let changed = fixture_env().env("ADDED_BY_THE_TEST", "other").env_remove("PATH").env("NEW", "1");
    let given: BTreeSet<Vec<u8>> = given(&changed).into_iter().collect();
    let mut expected: BTreeSet<Vec<u8>> = ours().into_iter().filter(|entry| !entry.starts_with(b"PATH=")).collect();
    expected.remove(&b"ADDED_BY_THE_TEST=x=y"[..]);
    expected.extend([b"ADDED_BY_THE_TEST=other".to_vec(), b"NEW=1".to_vec()]);
    assert_eq!(given, expected);
    // SAFETY: as above.
    unsafe { std::env::remove_var("ADDED_BY_THE_TEST") };
    is_inherited_whole();
}

fn nothing_is_inherited_if_cleared() {
    assert_eq!(given(&fixture_env().env_clear().env("ONLY", "one")), [b"ONLY=one".to_vec()]);
}

/// Entries that are none do not break anything, and reach nobody.
fn odd_entries_are_left_out() {
    let program = CString::new(std::env::current_exe().unwrap().into_os_string().into_vec()).unwrap();
    let odd = [c"ODD".to_owned(), c"=".to_owned(), c"=X=1".to_owned(), c"EMPTY=".to_owned(), c"".to_owned()];
    let again = CString::new(format!("{AGAIN}=1")).unwrap();
    let entries: Vec<_> = odd.iter().chain([&again]).map(|entry| entry.as_ptr()).chain([std::ptr::null()]).collect();
    let argv = [program.as_ptr(), std::ptr::null()];
    // SAFETY: this program has one thread, and its child becomes another program at once.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: zero-ended strings and null-ended lists that live.
            unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), entries.as_ptr()) };
            // SAFETY: ends this process only.
            unsafe { libc::_exit(99) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a valid place for the status of our child.
            unsafe { libc::waitpid(child, &mut status, 0) };
            assert_eq!(status, 0, "the program with odd entries failed");
        }
    }
}

fn a_thread_changes_nothing() {
    let (ready, wait) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ready.wait();
            wait.wait();
        });
        ready.wait();
        is_inherited_whole();
        wait.wait();
    });
    is_inherited_whole();
}

fn main() {
    if std::env::var_os(AGAIN).is_some() {
        return is_inherited_whole();
    }
    let tests: [(&str, fn()); 5] = [
        ("is_inherited_whole", is_inherited_whole),
        ("changes_are_seen", changes_are_seen),
        ("nothing_is_inherited_if_cleared", nothing_is_inherited_if_cleared),
        ("odd_entries_are_left_out", odd_entries_are_left_out),
        // The last: what starts a thread stays marked as having had one.
        ("a_thread_changes_nothing", a_thread_changes_nothing),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    println!("\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out", tests.len());
}
