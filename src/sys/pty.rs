//! pty(7): a terminal whose user is a program. Decides how a pair is opened, how the child's end is found, and which words say the
//! end of input. Settings can be made through either end; they belong to the terminal, not to a descriptor.
#![allow(unsafe_code)]

use super::errno::{check, retry};
use super::fd;
use nix::fcntl::OFlag;
use nix::sys::termios::{self, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, Termios};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Both ends of a new terminal, close-on-exec and above descriptor 2.
pub(crate) struct Pair {
    /// Ours. Non-blocking: it is another description than the child's, which stays as it is.
    pub(crate) master: OwnedFd,
    /// The child's: the terminal itself.
    pub(crate) slave: OwnedFd,
    /// The name by which the child's end can be opened, if it has one here.
    pub(crate) path: Option<PathBuf>,
}

/// Which terminal a descriptor is open to, for whoever looks for others that have it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) file_system: u64,
    pub(crate) device: u64,
}

fn flags() -> OFlag {
    OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC
}

/// posix_openpt(3), unlockpt(3). Neither end becomes the controlling terminal of this process.
pub(crate) fn open() -> io::Result<Pair> {
    let master = nix::pty::posix_openpt(flags())?;
    // On Linux the file system has set owner and mode, and old C libraries would start a helper program.
    #[cfg(not(target_os = "linux"))]
    nix::pty::grantpt(&master)?;
    nix::pty::unlockpt(&master)?;
    let master = fd::above_stdio(master.into())?;
    fd::set_nonblocking(master.as_fd())?;
    let slave = fd::above_stdio(peer(master.as_fd())?)?;
    let path = name(master.as_fd()).ok().filter(|path| is_at(path, slave.as_fd()));
    Ok(Pair { master, slave, path })
}

/// The other end, without a name (`TIOCGPTPEER`, Linux 4.13): it works where /dev/pts is that of somebody else. Older kernels and
/// filters that forbid the call have the name.
#[cfg(target_os = "linux")]
fn peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: TIOCGPTPEER takes an integer, the flags to open with.
    let number = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags().bits()) });
    match number {
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        Ok(number) => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        Err(_) => peer_by_name(master),
    }
}

#[cfg(not(target_os = "linux"))]
fn peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    peer_by_name(master)
}

fn peer_by_name(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = name(master)?;
    retry(|| Ok(nix::fcntl::open(&path, flags(), nix::sys::stat::Mode::empty())?))
}

/// ptsname_r(3): the name of the other end.
#[cfg(not(target_vendor = "apple"))]
fn name(master: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let mut name = [0_u8; 128];
    // SAFETY: the buffer is valid for writes of its length.
    let errno = unsafe { libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) };
    if errno == 0 { path_in(&name) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// What ptsname(3) asks there, without its one buffer for all threads.
#[cfg(target_vendor = "apple")]
fn name(master: BorrowedFd<'_>) -> io::Result<PathBuf> {
    const TIOCPTYGNAME: libc::c_ulong = 0x4080_7453;
    let mut name = [0_u8; 128];
    // SAFETY: the call writes at most 128 bytes, a size that its number encodes.
    check(unsafe { libc::ioctl(master.as_raw_fd(), TIOCPTYGNAME, name.as_mut_ptr()) })?;
    path_in(&name)
}

fn path_in(name: &[u8]) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CStr::from_bytes_until_nul(name).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())).to_owned())
}

/// Whether the file at this path is this terminal: in another mount namespace the name may be that of a stranger.
fn is_at(path: &Path, slave: BorrowedFd<'_>) -> bool {
    let found = nix::sys::stat::stat(path).map(|stat| identity_in(&stat));
    found.is_ok_and(|found| identity(slave).is_ok_and(|own| own == found))
}

/// Which terminal this is.
pub(crate) fn identity(slave: BorrowedFd<'_>) -> io::Result<Identity> {
    Ok(identity_in(&nix::sys::stat::fstat(slave)?))
}

#[allow(clippy::unnecessary_cast)] // narrower elsewhere
pub(crate) fn identity_in(stat: &nix::sys::stat::FileStat) -> Identity {
    Identity { file_system: stat.st_dev as u64, device: stat.st_rdev as u64 }
}

// ---- the size ----

/// Rows and columns (`TIOCGWINSZ`).
pub(crate) fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is valid for a write of the struct.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as _, &mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets rows and columns (`TIOCSWINSZ`). If they change, the kernel sends SIGWINCH to the foreground group.
pub(crate) fn set_size(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is valid for a read of the struct.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &size) }).map(drop)
}

// ---- the settings ----

/// How a terminal treats what passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    /// What is typed comes back as output.
    pub(crate) echo: bool,
    /// A newline that is written becomes a carriage return and a newline.
    pub(crate) crlf: bool,
    /// Nothing is edited and no character is special.
    pub(crate) raw: bool,
}

/// The mode that a terminal has now.
pub(crate) fn mode(terminal: BorrowedFd<'_>) -> io::Result<Mode> {
    let now = settings(terminal)?;
    Ok(Mode {
        echo: now.local_flags.contains(LocalFlags::ECHO),
        crlf: now.output_flags.contains(OutputFlags::OPOST | OutputFlags::ONLCR),
        raw: !now.local_flags.contains(LocalFlags::ICANON),
    })
}

/// Gives a new terminal its mode.
pub(crate) fn set_mode(terminal: BorrowedFd<'_>, mode: Mode) -> io::Result<()> {
    change(terminal, |settings| {
        if mode.raw {
            termios::cfmakeraw(settings);
        }
        // What is wanted by name holds in raw mode as well.
        settings.local_flags.set(LocalFlags::ECHO, mode.echo);
        settings.output_flags.set(OutputFlags::ONLCR, mode.crlf);
        settings.output_flags.set(OutputFlags::OPOST, mode.crlf || !mode.raw);
    })
}

/// Whether what is typed comes back as output.
pub(crate) fn set_echo(terminal: BorrowedFd<'_>, echo: bool) -> io::Result<()> {
    change(terminal, |settings| settings.local_flags.set(LocalFlags::ECHO, echo))
}

/// Takes the line discipline away, or puts it back with the special characters that there were.
pub(crate) fn set_raw(terminal: BorrowedFd<'_>, raw: bool) -> io::Result<()> {
    change(terminal, |settings| {
        if raw {
            termios::cfmakeraw(settings);
        } else {
            settings.input_flags |= InputFlags::BRKINT | InputFlags::ICRNL | InputFlags::IXON;
            settings.output_flags |= OutputFlags::OPOST;
            settings.local_flags |= LocalFlags::ISIG | LocalFlags::ICANON | LocalFlags::IEXTEN;
        }
    })
}

fn settings(terminal: BorrowedFd<'_>) -> io::Result<Termios> {
    retry(|| Ok(termios::tcgetattr(terminal)?))
}

fn change(terminal: BorrowedFd<'_>, change: impl FnOnce(&mut Termios)) -> io::Result<()> {
    let mut settings = settings(terminal)?;
    change(&mut settings);
    retry(|| Ok(termios::tcsetattr(terminal, SetArg::TCSANOW, &settings)?))
}

// ---- the end of input ----

/// A special character with this value is none.
const DISABLED: u8 = if cfg!(target_os = "linux") { 0 } else { 0xff };

/// What says the end of input when the last byte typed was this one (`None` if there was none): the end-of-file character, which
/// hands over what was typed and means the end where nothing was; so twice inside a line. Once where a program edits lines by itself:
/// it leaves signals to the terminal, and takes the character for the end at an empty line. Empty where nothing can say it.
pub(crate) fn end_of_input(terminal: BorrowedFd<'_>, last: Option<u8>) -> io::Result<Vec<u8>> {
    let now = settings(terminal)?;
    Ok(end_words(&now, last))
}

fn end_words(now: &Termios, last: Option<u8>) -> Vec<u8> {
    let special = |index: SpecialCharacterIndices| {
        now.control_chars.get(index as usize).copied().filter(|&character| character != DISABLED)
    };
    let end = special(SpecialCharacterIndices::VEOF);
    let (canonical, signals) = (LocalFlags::ICANON, LocalFlags::ISIG);
    let end = end.filter(|_| now.local_flags.intersects(canonical | signals));
    let Some(end) = end else { return Vec::new() };
    if !now.local_flags.contains(canonical) {
        return vec![end];
    }
    let ends_line = |byte: u8| {
        let signals = [SpecialCharacterIndices::VINTR, SpecialCharacterIndices::VQUIT, SpecialCharacterIndices::VSUSP];
        byte == b'\n'
            || byte == end
            || special(SpecialCharacterIndices::VEOL) == Some(byte)
            || (byte == b'\r' && now.input_flags.contains(InputFlags::ICRNL))
            // A character that becomes a signal takes the line with it.
            || (now.local_flags.contains(LocalFlags::ISIG) && signals.iter().any(|&key| special(key) == Some(byte)))
    };
    if last.is_none_or(ends_line) { vec![end] } else { vec![end, end] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_one_terminal_and_knows_its_name() {
        let pair = open().unwrap();
        assert!(pair.master.as_raw_fd() > 2 && pair.slave.as_raw_fd() > 2);
        let path = pair.path.as_deref().unwrap();
        assert!(is_at(path, pair.slave.as_fd()));
        assert!(!is_at(Path::new("/dev/null"), pair.slave.as_fd()));
        let by_name = peer_by_name(pair.master.as_fd()).unwrap();
        assert_eq!(identity(by_name.as_fd()).unwrap(), identity(pair.slave.as_fd()).unwrap());
    }

    #[test]
    fn settings_and_size_are_seen_from_both_ends() {
        let pair = open().unwrap();
        let (ours, theirs) = (pair.master.as_fd(), pair.slave.as_fd());
        for mode in [(false, false, false), (true, true, false), (false, true, true), (true, false, true)] {
            let mode = Mode { echo: mode.0, crlf: mode.1, raw: mode.2 };
            set_raw(theirs, false).unwrap();
            set_mode(theirs, mode).unwrap();
            assert_eq!(super::mode(ours).unwrap(), mode);
        }
        set_size(ours, 7, 65_535).unwrap();
        assert_eq!(size(theirs).unwrap(), (7, 65_535));
    }

    #[test]
    fn the_end_of_input_is_said_once_or_twice_or_not_at_all() {
        let pair = open().unwrap();
        let words = |last: Option<u8>| end_of_input(pair.master.as_fd(), last).unwrap();
        let cases =
            [(None, 1), (Some(b'\n'), 1), (Some(b'\r'), 1), (Some(4), 1), (Some(3), 1), (Some(b'x'), 2), (Some(0), 2)];
        for (last, count) in cases {
            assert_eq!(words(last), vec![4; count], "{last:?}");
        }
        change(pair.slave.as_fd(), |settings| {
            settings.control_chars[SpecialCharacterIndices::VEOF as usize] = 0x1a;
            settings.local_flags.remove(LocalFlags::ISIG);
            settings.input_flags.remove(InputFlags::ICRNL);
        })
        .unwrap();
        assert_eq!(words(Some(3)), [0x1a, 0x1a]);
        assert_eq!(words(Some(b'\r')), [0x1a, 0x1a]);
        // As programs do that edit lines by themselves.
        change(pair.slave.as_fd(), |settings| {
            settings.local_flags.remove(LocalFlags::ICANON);
            settings.local_flags.insert(LocalFlags::ISIG);
        })
        .unwrap();
        assert_eq!(words(Some(b'x')), [0x1a]);
        set_raw(pair.slave.as_fd(), true).unwrap();
        assert!(words(None).is_empty());
    }
}
