//! A command is shown before it is run, as `set -x` does it: on standard error, in one write, without secrets.

use crate::support::{alone, fixture};
use procession::{Command, Stdio};

const VARIABLE: &str = "PROCESSION_TEST_ECHO";

/// What this test writes to its standard error and output when it runs again as a child, doing `what`.
fn said(what: &str, test: &str, streams: impl FnOnce(Command) -> Command) -> (String, String) {
    let again = Command::new(std::env::current_exe().unwrap().as_path())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, what);
    let output = streams(again).output().unwrap();
    assert!(output.success(), "{output}");
    (output.stderr_lossy().into_owned(), output.stdout_lossy().into_owned())
}

/// What the child does.
fn act(what: &str) {
    match what {
        "single" => {
            let command = Command::new("printf").args(["%s", "a b"]).secret_arg("hunter2").env("K", "v").echo();
            command.clone().stdout(Stdio::null()).call().unwrap();
            assert_eq!(command.output().unwrap().stdout(), b"a bhunter2");
            Command::new("true").arg("\x1b[2J").echo().check_call().unwrap();
            Command::new("true").call().unwrap();
            Command::new("true").arg("a\0b").echo().call().unwrap_err();
            // Shown and then not started.
            Command::new("true").current_dir("/no/such").echo().call().unwrap_err();
        }
        "pipeline" => {
            let two = Command::new("echo").arg("x").secret_arg("hunter2").echo() | Command::new("cat").echo();
            two.clone().echo().output().unwrap();
            two.output().unwrap();
        }
        "closed" => {
            // SAFETY: descriptor 2 is this program's own, and nobody uses it any more.
            unsafe { libc::close(2) };
            assert_eq!(Command::new("echo").arg("x").echo().check_output().unwrap(), b"x\n");
        }
        "broken" => {
            // A reader that has gone, in a program that does not ignore SIGPIPE.
            // SAFETY: an integer and the default action.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            assert_eq!(Command::new("echo").arg("x").echo().check_output().unwrap(), b"x\n");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_command_is_shown_before_it_is_run() {
    const TEST: &str = "echo::a_command_is_shown_before_it_is_run";
    if let Ok(what) = std::env::var(VARIABLE) {
        return act(&what);
    }
    alone!({
        let (stderr, _) = said("single", TEST, |again| again);
        let line = "+ K=v printf '%s' 'a b' ***";
        let expected = format!("{line} >/dev/null\n{line}\n+ true '\\u{{1b}}[2J'\n+ cd /no/such && true\n");
        assert_eq!(stderr, expected);
        let (stderr, _) = said("pipeline", TEST, |again| again);
        assert_eq!(stderr, "+ echo x *** | cat\n+ echo x ***\n+ cat\n");
    });
}

#[test]
fn a_standard_error_that_takes_nothing_is_no_error() {
    const TEST: &str = "echo::a_standard_error_that_takes_nothing_is_no_error";
    if let Ok(what) = std::env::var(VARIABLE) {
        return act(&what);
    }
    alone!({
        said("closed", TEST, |again| again);
        let (reader, writer) = procession::pipe().unwrap();
        drop(reader);
        said("broken", TEST, |again| again.stderr(Stdio::from(writer)));
        // A full disk takes nothing either.
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        said("broken", TEST, |again| again.stderr(full));
    });
}

#[test]
fn it_is_one_write() {
    const TEST: &str = "echo::it_is_one_write";
    if std::env::var_os(VARIABLE).is_some() {
        let many = fixture("exit").arg("0").args((0..100).map(|number| format!("argument {number}"))).echo();
        return many.check_call().unwrap();
    }
    alone!({
        // A datagram for each write.
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        said("", TEST, |again| again.stderr(std::os::fd::OwnedFd::from(theirs)));
        let mut buffer = [0; 65_536];
        let count = ours.recv(&mut buffer).unwrap();
        let line = String::from_utf8_lossy(&buffer[..count]);
        assert!(line.starts_with("+ ") && line.ends_with(" 'argument 99'\n"), "{line}");
    });
}
