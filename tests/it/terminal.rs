//! Terminals: a session of its own with one, the foreground handed over and given back, and none where none is wanted. Each on
//! a fresh pseudo-terminal.

use crate::inject::supervise;
use crate::support::{alone, fixture};
use procession::{Command, Stdio};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// Our end, and the path of the other.
struct Terminal {
    _master: OwnedFd,
    path: PathBuf,
}

impl Terminal {
    fn new() -> Terminal {
        // SAFETY: flags only.
        let master = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
        assert!(master >= 0);
        // SAFETY: a descriptor that was opened a line ago.
        let master = unsafe { OwnedFd::from_raw_fd(master) };
        // SAFETY: a master that is open.
        assert_eq!(unsafe { libc::grantpt(master.as_raw_fd()) }, 0);
        // SAFETY: a master that is open.
        assert_eq!(unsafe { libc::unlockpt(master.as_raw_fd()) }, 0);
        let mut name = [0_u8; 64];
        // SAFETY: the buffer is valid for writes of its length.
        let named = unsafe { libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) };
        assert_eq!(named, 0);
        let path = std::ffi::CStr::from_bytes_until_nul(&name).unwrap().to_str().unwrap().into();
        Terminal { _master: master, path }
    }
}

fn said(command: &Command) -> String {
    let output = command.output().unwrap();
    assert!(output.success(), "{output:?}");
    output.stdout_text().unwrap()
}

const HOSTED: &str = "PROCESSION_TEST_ON_TERMINAL";

/// Runs the test again as the leader of a session on a terminal, and says yes in that process.
fn on_a_terminal() -> bool {
    if std::env::var_os(HOSTED).is_some() {
        return true;
    }
    let terminal = Terminal::new();
    let again = Command::new(std::env::current_exe().unwrap()).args(std::env::args_os().skip(1)).env(HOSTED, "1");
    let output = again.stdin(Stdio::read(&terminal.path)).controlling_terminal().output().unwrap();
    assert!(output.success() && output.stdout_lossy().contains("1 passed"), "{output:?}");
    false
}

fn foreground(terminal: &File) -> i32 {
    nix::unistd::tcgetpgrp(terminal).unwrap().as_raw()
}

fn own_group() -> i32 {
    nix::unistd::getpgrp().as_raw()
}

#[test]
fn a_child_can_lead_a_session_on_its_own_terminal() {
    alone!({
        let terminal = Terminal::new();
        let on = fixture("tty").stdin(Stdio::read(&terminal.path)).controlling_terminal();
        assert_eq!(said(&on), "0 tty\n1 not\n2 not\ncontrolling yes\nforeground\n");
        let plain = fixture("tty").stdin(Stdio::read(&terminal.path)).setsid();
        assert_eq!(said(&plain), "0 tty\n1 not\n2 not\ncontrolling no\nnone\n");
        let error = fixture("tty").stdin(Stdio::null()).controlling_terminal().spawn().unwrap_err();
        assert_eq!(error.failed_step(), Some("controlling terminal"), "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY), "{error}");
    });
}

/// D23: handed over, and given back when the child was waited for; SIGTTOU stops nobody.
#[test]
fn the_foreground_is_handed_over_and_given_back() {
    alone!({
        if !on_a_terminal() {
            return;
        }
        let terminal = File::options().read(true).write(true).open("/dev/tty").unwrap();
        assert_eq!(foreground(&terminal), own_group());
        assert!(said(&fixture("tty").stdin(Stdio::inherit())).ends_with("controlling yes\nforeground\n"));
        assert!(said(&fixture("tty").process_group(0)).ends_with("controlling yes\nbackground\n"));
        assert!(said(&fixture("tty").setsid()).ends_with("controlling no\nnone\n"));
        for _ in 0..5 {
            assert!(said(&fixture("tty").foreground()).ends_with("controlling yes\nforeground\n"));
            assert_eq!(foreground(&terminal), own_group());
        }
        let mut child = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::null()).foreground().spawn().unwrap();
        assert_eq!(foreground(&terminal), child.id() as i32);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(foreground(&terminal), own_group());
        // Whoever has it now keeps it.
        let mut first = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::null()).foreground().spawn().unwrap();
        let mut second = fixture("cat").stdin(Stdio::piped()).stdout(Stdio::null()).foreground().spawn().unwrap();
        first.wait().unwrap();
        assert_eq!(foreground(&terminal), second.id() as i32);
        second.wait().unwrap();
        // The group that had it before has gone, so it is ours.
        assert_eq!(foreground(&terminal), own_group());
    });
}

/// A child that did not come to be does not keep the terminal.
#[test]
fn a_failed_spawn_gives_the_foreground_back() {
    alone!({
        if !on_a_terminal() {
            return;
        }
        let terminal = File::options().read(true).write(true).open("/dev/tty").unwrap();
        let missing = Command::new("/no/such/program").foreground();
        assert!(missing.spawn().unwrap_err().is_not_found());
        assert_eq!(foreground(&terminal), own_group());
        let late = fixture("exit").foreground().current_dir("/").cpu_affinity([60_000]);
        assert_eq!(late.spawn().unwrap_err().failed_step(), Some("affinity"));
        assert_eq!(foreground(&terminal), own_group());
        // SAFETY: a hook that fails.
        let hooked = unsafe { fixture("exit").foreground().pre_exec(|| Err(std::io::Error::from_raw_os_error(1))) };
        assert!(hooked.spawn().is_err());
        assert_eq!(foreground(&terminal), own_group());
    });
}

#[test]
fn without_a_terminal_the_foreground_is_refused() {
    alone!({
        if File::open("/dev/tty").is_ok() {
            eprintln!("skipped: the tests run on a terminal");
            return;
        }
        let error = fixture("tty").foreground().spawn().unwrap_err();
        assert_eq!(error.failed_step(), Some("foreground"), "{error}");
        assert_eq!(error.failed_path().and_then(|path| path.to_str()), Some("/dev/tty"), "{error}");
    });
}

/// A terminal that is opened for a child does not become the host's.
#[test]
fn a_terminal_opened_for_a_child_is_not_ours() {
    alone!({
        let terminal = Terminal::new();
        // The leader of a session without a terminal gets the first one that it opens carelessly.
        // SAFETY: integer arguments.
        if unsafe { libc::setsid() } < 0 {
            eprintln!("skipped: this process leads a group");
            return;
        }
        let command = fixture("exit").arg("0").stdin(Stdio::read(&terminal.path)).stdout(Stdio::append(&terminal.path));
        assert!(command.status().unwrap().success());
        assert!(File::open("/dev/tty").is_err());
    });
}

/// H10: a child in a session of its own cannot push characters into our terminal.
#[test]
fn a_child_of_its_own_session_cannot_type_for_us() {
    alone!({
        if !on_a_terminal() {
            return;
        }
        let text = said(&fixture("tiocsti").stdin(Stdio::null()).setsid());
        assert_eq!(text, "0 ENOTTY\n/dev/tty ENXIO\n");
    });
}

/// The step that hands over comes after the group was made, on every route, and its failure is told.
#[test]
fn a_refused_hand_over_is_told() {
    alone!({
        if !on_a_terminal() {
            return;
        }
        fixture("exit").arg("0").status().unwrap();
        let result = supervise(
            &[libc::SYS_ioctl],
            || fixture("exit").foreground().spawn(),
            |call| (!call.ours && !call.after_exec && call.args[1] == libc::TIOCSPGRP).then_some(libc::EPERM),
        );
        let Some(result) = result else { return };
        let error = result.unwrap_err();
        assert_eq!((error.failed_step(), error.raw_os_error()), (Some("foreground"), Some(libc::EPERM)), "{error}");
    });
}
