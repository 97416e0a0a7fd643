//! Sockets of a connection: made, sent to and received from, with descriptors beside the bytes (`SCM_RIGHTS`, unix(7)). Nothing here raises
//! SIGPIPE, and every descriptor that arrives is close-on-exec from birth. What the bytes mean is decided far above.
#![allow(unsafe_code)]

use super::errno::{check, retry};
use super::fd;
use nix::sys::socket::{AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::stat::Mode;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::{from_mut, null_mut};
use std::time::Duration;

/// So many descriptors the kernel takes in one call (`SCM_MAX_FD`).
pub(crate) const DESCRIPTORS_MAX: usize = 253;

/// socketpair(2): two ends of one stream.
#[cfg(test)]
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair_of(SockType::Stream)
}

/// socketpair(2): two ends of a way for packets that arrive whole, each by one call.
pub(crate) fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair_of(SockType::SeqPacket)
}

fn pair_of(kind: SockType) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, two) = nix::sys::socket::socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((fd::above_stdio(one)?, fd::above_stdio(two)?))
}

/// bind(2) and listen(2): a socket for packets at this path. It is born with this mode, less the mask of the process: fchmod(2) before bind(2).
pub(crate) fn listen_at(path: &Path, mode: u32, waiting_max: i32) -> io::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let socket = unix_packets()?;
    nix::sys::stat::fchmod(&socket, Mode::from_bits_truncate(mode))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &address)?;
    listen(socket.as_fd(), waiting_max)?;
    Ok(socket)
}

/// listen(2); called again it says how many may wait from now on, if the system allows as many.
pub(crate) fn listen(socket: BorrowedFd<'_>, waiting_max: i32) -> io::Result<()> {
    let waiting_max = Backlog::new(waiting_max).unwrap_or(Backlog::MAXCONN);
    Ok(nix::sys::socket::listen(&socket, waiting_max)?)
}

/// connect(2) to the socket at this path. Where too many wait there already it waits for its turn, so long at most, and is `WouldBlock` then.
pub(crate) fn connect_to(path: &Path, timeout: Option<Duration>) -> io::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let socket = unix_packets()?;
    set_send_timeout(socket.as_fd(), timeout)?;
    retry(|| Ok(nix::sys::socket::connect(socket.as_raw_fd(), &address)?))?;
    set_send_timeout(socket.as_fd(), None)?;
    Ok(socket)
}

fn unix_packets() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    fd::above_stdio(nix::sys::socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// `SO_SNDTIMEO`, which holds for connect(2) as well. No time means for ever.
fn set_send_timeout(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    // Zero would mean for ever.
    let timeout = timeout.map_or(Duration::ZERO, |time| time.clamp(Duration::from_micros(1), LONGEST));
    let timeout = nix::sys::time::TimeVal::new(timeout.as_secs() as _, timeout.subsec_micros() as _);
    Ok(nix::sys::socket::setsockopt(&fd, sockopt::SendTimeout, &timeout)?)
}

/// The longest time that every kernel takes.
const LONGEST: Duration = Duration::from_secs(20 * 86_400);

/// accept4(2) without waiting. `WouldBlock` if nobody is there.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let number = retry(|| Ok(nix::sys::socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    fd::above_stdio(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Who is at the other end of a Unix socket (`SO_PEERCRED`): what was true when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

pub(crate) fn peer(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    let known = nix::sys::socket::getsockopt(&fd, sockopt::PeerCredentials)?;
    Ok(Credentials { pid: known.pid(), uid: known.uid(), gid: known.gid() })
}

/// Whether descriptors can pass, because the other end is on this machine (`SO_DOMAIN`). An error if it is no socket.
pub(crate) fn is_local(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(option(fd, libc::SO_DOMAIN)? == libc::AF_UNIX)
}

/// What arrives at the other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Bytes, without any borders.
    Stream,
    /// What was sent by one call is received by one.
    Packets,
    /// Something that can get lost.
    Other,
}

/// What the socket is for (`SO_TYPE`). An error if it is no socket.
pub(crate) fn form(fd: BorrowedFd<'_>) -> io::Result<Form> {
    Ok(match option(fd, libc::SO_TYPE)? {
        libc::SOCK_STREAM => Form::Stream,
        libc::SOCK_SEQPACKET => Form::Packets,
        _ => Form::Other,
    })
}

/// getsockopt(2) of an option that is one number.
fn option(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    let place = from_mut(&mut value).cast();
    // SAFETY: the place is valid for writes of the length, which is valid for a write as well.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, place, &mut length) })?;
    Ok(value)
}

/// Says that nothing more will be sent (`SHUT_WR`), for all who share this end.
pub(crate) fn end_sending(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Write)?)
}

/// What is sent over TCP goes at once (`TCP_NODELAY`), and the kernel asks now and then whether the other side is still there (`SO_KEEPALIVE`).
pub(crate) fn set_prompt(fd: BorrowedFd<'_>) -> io::Result<()> {
    nix::sys::socket::setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    Ok(nix::sys::socket::setsockopt(&fd, sockopt::KeepAlive, &true)?)
}

fn flags(waits: bool) -> libc::c_int {
    if waits { 0 } else { libc::MSG_DONTWAIT }
}

/// sendmsg(2): the parts one behind the other, and the descriptors with their first byte. How many bytes were taken; with at least one, the
/// descriptors have gone too. A peer that has gone is the error `BrokenPipe`, never a signal.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptors: &[OwnedFd],
    waits: bool,
) -> io::Result<usize> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let beside: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::from_bits_retain(flags(waits)) | MsgFlags::MSG_NOSIGNAL;
    retry(|| Ok(nix::sys::socket::sendmsg::<()>(fd.as_raw_fd(), parts, beside, flags, None)?))
}

/// recv(2): at most `count_max` bytes into the spare capacity of `buffer`, and how many came (0 at the end). Descriptors that come with them are
/// closed by the kernel. With no spare capacity it is an error.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>, count_max: usize, waits: bool) -> io::Result<usize> {
    let (start, count) = spare(buffer, count_max)?;
    // SAFETY: `start` is valid for writes of `count` bytes, all within the spare capacity of `buffer`.
    let received = retry(|| check(unsafe { libc::recv(fd.as_raw_fd(), start, count, flags(waits)) }))? as usize;
    let length = buffer.len() + received;
    // SAFETY: the kernel has written so many bytes behind the old length, and `length` is within the capacity.
    unsafe { buffer.set_len(length) };
    Ok(received)
}

fn spare(buffer: &mut Vec<u8>, count_max: usize) -> io::Result<(*mut libc::c_void, usize)> {
    let spare = buffer.spare_capacity_mut();
    let count = spare.len().min(count_max);
    if count == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((spare.as_mut_ptr().cast(), count))
}

/// What has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) count: usize,
    /// Some descriptors could not be received: this process may not have more.
    pub(crate) lost: bool,
    /// The packet was longer than the room for it, and the rest is gone.
    pub(crate) cut: bool,
}

/// Room for the descriptors of one call, aligned as a `cmsghdr` must be.
const CONTROL_WORDS: usize = 132;
type Control = MaybeUninit<[u64; CONTROL_WORDS]>;

/// recvmsg(2): as [`receive`], and the descriptors that come with the bytes are appended to `descriptors`. What is longer than `count_max` goes
/// to the spare capacity of `rest`, if there is one.
pub(crate) fn receive_with_descriptors(
    fd: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    count_max: usize,
    mut rest: Option<&mut Vec<u8>>,
    descriptors: &mut Vec<OwnedFd>,
    waits: bool,
) -> io::Result<Received> {
    let (iov_base, iov_len) = spare(buffer, count_max)?;
    let first = libc::iovec { iov_base, iov_len };
    let (iov_base, iov_len) = match &mut rest {
        Some(rest) => spare(rest, usize::MAX)?,
        None => (null_mut(), 0),
    };
    let mut parts = [first, libc::iovec { iov_base, iov_len }];
    let mut control = Control::uninit();
    // SAFETY: a plain C struct of integers and pointers, for which zeros are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    let flags = flags(waits) | libc::MSG_CMSG_CLOEXEC;
    let count = retry(|| {
        // An interrupted call may have changed them.
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>() as _;
        // SAFETY: the struct points to parts within the spare capacity of the two buffers, or of no length, and to control
        // memory of the length given.
        check(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) })
    })? as usize;
    let mut lost = message.msg_flags & libc::MSG_CTRUNC != 0;
    for descriptor in rights(&message) {
        match fd::above_stdio(descriptor) {
            Ok(descriptor) => descriptors.push(descriptor),
            Err(_) => lost = true,
        }
    }
    let into_first = count.min(first.iov_len);
    let length = buffer.len() + into_first;
    // SAFETY: the kernel has written so many bytes behind the old length, and `length` is within the capacity.
    unsafe { buffer.set_len(length) };
    if let Some(rest) = rest {
        let length = rest.len() + (count - into_first).min(iov_len);
        // SAFETY: the kernel goes on in the second part when the first one is full; `length` is within the capacity.
        unsafe { rest.set_len(length) };
    }
    let cut = message.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Received { count, lost, cut })
}

/// Takes the descriptors out of a message that recvmsg(2) has just filled.
fn rights(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has set the control memory and its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header that the kernel has written into our control memory.
    while let Some(found) = unsafe { header.as_ref() } {
        if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: only arithmetic.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            #[allow(clippy::unnecessary_cast)] // u32 with musl
            let count = (found.cmsg_len as usize).saturating_sub(empty) / size_of::<RawFd>();
            // SAFETY: the header is valid, its data follow it.
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            for place in 0..count {
                // SAFETY: so many numbers follow the header.
                let place = unsafe { data.add(place) };
                // SAFETY: a number that the kernel has written; nothing is said of its alignment.
                let number = unsafe { place.read_unaligned() };
                // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: both are valid, as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    descriptors
}

/// getrandom(2): bytes that nobody can guess.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let (start, count) = (rest.as_mut_ptr().cast(), rest.len());
        // SAFETY: the pointer is valid for writes of the length.
        filled += retry(|| check(unsafe { libc::getrandom(start, count, 0) }))? as usize;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    fn part(bytes: &[u8]) -> [IoSlice<'_>; 1] {
        [IoSlice::new(bytes)]
    }

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        for (one, two) in [pair().unwrap(), packet_pair().unwrap()] {
            let (reader, writer) = std::io::pipe().unwrap();
            assert_eq!(send(one.as_fd(), &part(b"take this"), &[writer.into()], true).unwrap(), 9);
            let (mut buffer, mut descriptors) = (Vec::with_capacity(64), Vec::new());
            let received =
                receive_with_descriptors(two.as_fd(), &mut buffer, 64, None, &mut descriptors, true).unwrap();
            let expected = Received { count: 9, lost: false, cut: false };
            assert_eq!((received, buffer.as_slice()), (expected, &b"take this"[..]));
            let flags = nix::fcntl::fcntl(&descriptors[0], nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_ne!(flags & libc::FD_CLOEXEC, 0);
            File::from(descriptors.pop().unwrap()).write_all(b"through").unwrap();
            let mut text = String::new();
            File::from(OwnedFd::from(reader)).read_to_string(&mut text).unwrap();
            assert_eq!(text, "through");
        }
    }

    #[test]
    fn a_packet_fills_both_parts_and_what_is_cut_off_is_told() {
        let (one, two) = packet_pair().unwrap();
        for (length, cut) in [(3, false), (4, false), (5, false), (12, false), (13, true)] {
            send(one.as_fd(), &part(&b"0123456789abcdef"[..length]), &[], true).unwrap();
            let (mut first, mut rest) = (Vec::with_capacity(4), Vec::with_capacity(8));
            let into = Some(&mut rest);
            let received = receive_with_descriptors(two.as_fd(), &mut first, 4, into, &mut Vec::new(), true).unwrap();
            assert_eq!((received.count, received.cut), (length.min(12), cut));
            assert_eq!([first, rest].concat(), b"0123456789abcdef"[..length.min(12)]);
        }
    }

    #[test]
    fn as_many_descriptors_as_the_kernel_takes() {
        let (one, two) = pair().unwrap();
        let many = |count| (0..count).map(|_| one.try_clone().unwrap()).collect::<Vec<_>>();
        send(one.as_fd(), &part(b"x"), &many(DESCRIPTORS_MAX), true).unwrap();
        let (mut buffer, mut descriptors) = (Vec::with_capacity(1), Vec::new());
        receive_with_descriptors(two.as_fd(), &mut buffer, 1, None, &mut descriptors, true).unwrap();
        assert_eq!(descriptors.len(), DESCRIPTORS_MAX);
        assert!(send(one.as_fd(), &part(b"x"), &many(DESCRIPTORS_MAX + 1), true).is_err());
    }

    #[test]
    fn nobody_waits_who_does_not_want_to_and_a_gone_peer_is_an_error() {
        let (one, two) = pair().unwrap();
        let mut buffer = Vec::with_capacity(8);
        assert_eq!(receive(two.as_fd(), &mut buffer, 8, false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        while send(one.as_fd(), &part(&[0; 4096]), &[], false).is_ok() {}
        assert_eq!(send(one.as_fd(), &part(b"x"), &[], false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(two);
        assert_eq!(send(one.as_fd(), &part(b"x"), &[], true).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut full = Vec::new();
        assert_eq!(receive(one.as_fd(), &mut full, 8, true).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn both_ends_know_each_other() {
        let (one, two) = pair().unwrap();
        let own = Credentials {
            pid: std::process::id() as i32,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        };
        assert_eq!(peer(one.as_fd()).unwrap(), own);
        assert!(is_local(two.as_fd()).unwrap());
        assert_eq!(form(two.as_fd()).unwrap(), Form::Stream);
        assert_eq!(form(packet_pair().unwrap().0.as_fd()).unwrap(), Form::Packets);
        assert!(is_local(std::io::pipe().unwrap().0.as_fd()).is_err());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_local(tcp.as_fd()).unwrap());
    }

    #[test]
    fn random_bytes_differ() {
        let mut bytes = [[0; 32]; 2];
        bytes.iter_mut().for_each(|bytes| random(bytes).unwrap());
        assert_ne!(bytes[0], bytes[1]);
    }
}
