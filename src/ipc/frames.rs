//! Whole messages over a socket, each way with a deadline. Decides what a moment that passes in the middle of a message means: nothing is lost, the
//! next call goes on where this one stopped. Leaves to others what the messages are.
//!
//! A call without a deadline waits in the kernel. One with a deadline tries first, and waits for readiness where that was in vain. The flags of the
//! socket are never changed: others may have copies of it.

use super::wire::{Decoder, HEADER, Head, Kind, News, PACKET_MAX, Space};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::sys::socket::{self, DESCRIPTORS_MAX, Form};
use crate::sys::{fd, poll};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A packet that the kernel does not take is halved until it would be smaller than this.
const PIECE_MIN: usize = 4096;

/// So much memory of a message is kept for the next one; more if the last one was as long, because the next one may be. Getting new memory for a long
/// message takes the kernel as long as sending it.
const KEPT: usize = 1 << 20;
const KEPT_MAX: usize = 16 << 20;

/// How much is kept after a message of this length.
pub(crate) fn kept(length: usize) -> usize {
    length.clamp(KEPT, KEPT_MAX)
}

/// A message on its way out, for whoever comes back after a timeout: nothing of it is out, and it is tried again, or a part is, and the way out
/// has the rest.
#[derive(Debug)]
pub(crate) struct Parcel<'a> {
    kind: Kind,
    body: &'a [u8],
    descriptors: Vec<OwnedFd>,
    is_begun: bool,
}

impl<'a> Parcel<'a> {
    pub(crate) fn new(kind: Kind, body: &'a [u8], descriptors: Vec<OwnedFd>) -> Parcel<'a> {
        Parcel { kind, body, descriptors, is_begun: false }
    }
}

/// The way out. Holds what is left of a message that did not get out in time.
#[derive(Debug)]
pub(crate) struct Outgoing {
    length_max: u64,
    /// How much goes out at once: the length of a packet, or anything.
    piece_max: usize,
    /// What is left of each earlier message, and how much of the first one is out by now.
    pending: VecDeque<Vec<u8>>,
    sent: usize,
    last_in_part: bool,
}

impl Outgoing {
    pub(crate) fn new(length_max: u64) -> Outgoing {
        Outgoing { length_max, piece_max: usize::MAX, pending: VecDeque::new(), sent: 0, last_in_part: false }
    }

    /// For a socket of this form.
    pub(crate) fn of_form(self, form: Form) -> Outgoing {
        Outgoing { piece_max: if form == Form::Packets { PACKET_MAX } else { usize::MAX }, ..self }
    }

    /// The largest message that is sent from now on.
    pub(crate) fn set_length_max(&mut self, length_max: u64) {
        self.length_max = length_max;
    }

    pub(crate) fn length_max(&self) -> u64 {
        self.length_max
    }

    /// Sends a message. After a timeout it is as if it had never been tried, or it is out [in part](Self::is_sending) and the rest will go before
    /// the next one.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        kind: Kind,
        body: &[u8],
        descriptors: Vec<OwnedFd>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        self.send_on(socket, &mut Parcel::new(kind, body, descriptors), deadline)
    }

    /// Sends a message, or goes on with one for which the time was too short.
    pub(crate) fn send_on(
        &mut self,
        socket: BorrowedFd<'_>,
        parcel: &mut Parcel<'_>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        if parcel.is_begun {
            return self.flush(socket, deadline);
        }
        let Parcel { kind, body, descriptors: beside, is_begun } = parcel;
        let header = self.header(*kind, body.len(), beside.len())?;
        self.last_in_part = false;
        self.flush(socket, deadline)?;
        let length = HEADER + body.len();
        let mut sent = 0;
        while sent < length {
            let (header_rest, body_rest) = (from(&header, sent), from(body, sent.saturating_sub(HEADER)));
            let piece = body_rest.len().min(self.piece_max.saturating_sub(header_rest.len()));
            let parts = [IoSlice::new(header_rest), IoSlice::new(body_rest.get(..piece).unwrap_or(body_rest))];
            match send_some(socket, &parts, beside, deadline) {
                Ok(count) => {
                    sent += count;
                    beside.clear();
                }
                Err(error) if self.makes_smaller(&error) => {}
                Err(error) if error.is_timeout() && sent > 0 => {
                    self.pending.push_back([header_rest, body_rest].concat());
                    self.last_in_part = true;
                    *is_begun = true;
                    return Err(error.detail(format!("timed out: {sent} of {length} bytes are sent")));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether smaller packets can be tried, because the kernel's buffer is smaller than one.
    fn makes_smaller(&mut self, error: &Error) -> bool {
        let can =
            error.raw_os_error() == Some(libc::EMSGSIZE) && (PIECE_MIN + 1..=PACKET_MAX).contains(&self.piece_max);
        if can {
            self.piece_max /= 2;
        }
        can
    }

    /// Puts a message before those that will be sent, without sending it now.
    pub(crate) fn put_before(&mut self, kind: Kind, body: &[u8]) -> Result<(), Error> {
        let header = self.header(kind, body.len(), 0)?;
        self.pending.push_back([&header, body].concat());
        Ok(())
    }

    fn header(&self, kind: Kind, length: usize, descriptors: usize) -> Result<[u8; HEADER], Error> {
        if length as u64 > self.length_max {
            let text = format!("a message of {length} bytes cannot be sent: {} are the most", self.length_max);
            return Err(Error::invalid(text));
        }
        if descriptors > DESCRIPTORS_MAX {
            let text =
                format!("a message with {descriptors} descriptors cannot be sent: {DESCRIPTORS_MAX} are the most");
            return Err(Error::invalid(text));
        }
        Ok(Head { kind, descriptors: descriptors as u32, length: length as u64 }.to_bytes())
    }

    /// Sends what is left of earlier messages.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>, deadline: Deadline) -> Result<(), Error> {
        while let Some(first) = self.pending.front() {
            let rest = from(first, self.sent);
            if rest.is_empty() {
                self.sent = 0;
                self.pending.pop_front();
                continue;
            }
            let parts = [IoSlice::new(rest.get(..self.piece_max).unwrap_or(rest))];
            match send_some(socket, &parts, &[], deadline) {
                Ok(count) => self.sent += count,
                Err(error) if self.makes_smaller(&error) => {}
                Err(error) if error.is_timeout() => {
                    let left = self.pending.iter().map(Vec::len).sum::<usize>() - self.sent;
                    let whose = if self.last_in_part { "the message" } else { "an earlier message" };
                    let text = format!("timed out: {left} bytes of {whose} are still to be sent");
                    return Err(error.detail(text));
                }
                Err(error) => return Err(error),
            }
        }
        self.last_in_part = false;
        Ok(())
    }

    /// Whether the last message is out in part.
    pub(crate) fn is_sending(&self) -> bool {
        self.last_in_part
    }

    /// Whether something is left of any message.
    pub(crate) fn has_rest(&self) -> bool {
        !self.pending.is_empty()
    }
}

fn from(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..).unwrap_or_default()
}

fn send_some(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptors: &[OwnedFd],
    deadline: Deadline,
) -> Result<usize, Error> {
    loop {
        match socket::send(socket, parts, descriptors, deadline == Deadline::NEVER) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(&mut [poll::writable(socket)], deadline, "timed out: nothing of the message is sent")?;
            }
            Err(error) if is_gone(&error) => return Err(closed()),
            Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => {
                return Err(Error::io("sendmsg", error).kind_of(ErrorKind::ResourceExhausted));
            }
            Err(error) => return Err(Error::io("sendmsg", error)),
        }
    }
}

fn wait(entries: &mut [poll::PollFd<'_>], deadline: Deadline, late: &'static str) -> Result<(), Error> {
    match poll::wait(entries, deadline.moment()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(ErrorKind::Timeout).detail(late)),
        Err(error) => Err(Error::io("poll", error)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// The error of a connection that has ended in order, as far as can be known.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Ended).detail("the connection is closed by the other side")
}

/// A message that has come whole. Its bytes are the [body](Incoming::body).
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) kind: Kind,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The way in. Holds what has come of a message that is not whole yet.
#[derive(Debug)]
pub(crate) struct Incoming {
    decoder: Decoder,
    form: Form,
    /// Those of the message that is coming.
    descriptors: Vec<OwnedFd>,
    lost: bool,
    ended: bool,
}

impl Incoming {
    pub(crate) fn new(length_max: u64) -> Incoming {
        let decoder = Decoder::new(length_max);
        Incoming { decoder, form: Form::Stream, descriptors: Vec::new(), lost: false, ended: false }
    }

    /// For a socket of this form.
    pub(crate) fn of_form(self, form: Form) -> Incoming {
        let decoder = if form == Form::Packets { self.decoder.of_packets() } else { self.decoder };
        Incoming { decoder, form, ..self }
    }

    /// The largest message that is taken from now on.
    pub(crate) fn set_length_max(&mut self, length_max: u64) {
        self.decoder.set_length_max(length_max);
    }

    pub(crate) fn length_max(&self) -> u64 {
        self.decoder.length_max()
    }

    /// The bytes of the message that has come.
    pub(crate) fn body(&mut self) -> &mut Vec<u8> {
        self.decoder.body()
    }

    /// Takes the message out. The memory for the next one stays, unless most of it is in use.
    pub(crate) fn take_body(&mut self) -> Vec<u8> {
        let body = self.decoder.body();
        if body.len() > body.capacity() / 2 { std::mem::take(body) } else { body.as_slice().to_vec() }
    }

    /// Whether a message has begun to come, and is not whole.
    pub(crate) fn is_receiving(&self) -> bool {
        !self.ended && self.decoder.progress().is_some()
    }

    /// Whether nothing more can be received: the other side has gone, or has sent what is none of our messages.
    pub(crate) fn is_over(&self) -> bool {
        self.ended || self.decoder.is_broken()
    }

    /// The next message. Errors of a single message leave the way open: the next one can be received.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, deadline: Deadline) -> Result<Arrived, Error> {
        if !self.is_receiving() {
            let body = self.decoder.body();
            let kept = kept(body.len());
            // It has grown by doubling.
            if body.capacity() > 2 * kept {
                body.clear();
                body.shrink_to(kept);
            }
        }
        let mut was_reset = false;
        while !self.ended {
            match self.read_some(socket, deadline == Deadline::NEVER) {
                Ok(0) => return Err(self.end()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let late = wait(&mut [poll::readable(socket)], deadline, "timed out: nothing has come");
                    late.map_err(|error| self.with_progress(error))?;
                    continue;
                }
                // The other side has not read everything. It is told once, also before what it has sent.
                Err(error) if is_gone(&error) && !was_reset => {
                    was_reset = true;
                    continue;
                }
                Err(error) if is_gone(&error) => return Err(self.end()),
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                    return Err(Error::io("recvmsg", error).kind_of(ErrorKind::ResourceExhausted));
                }
                Err(error) => return Err(Error::io("recvmsg", error)),
            }
            let news = self.decoder.advance();
            match news.map_err(|fault| Error::new(ErrorKind::Decode).detail(fault.to_string()))? {
                None => {}
                Some(News::Message(head)) => return self.complete(head),
                Some(News::TooLarge(head)) => {
                    self.forget_descriptors();
                    let max = self.decoder.length_max();
                    let text = format!("a message of {} bytes has come: {max} are the most that is taken", head.length);
                    return Err(Error::new(ErrorKind::Overflow).detail(text));
                }
            }
        }
        Err(closed())
    }

    fn read_some(&mut self, socket: BorrowedFd<'_>, waits: bool) -> io::Result<usize> {
        if self.form == Form::Stream && !self.decoder.is_in_header() {
            let (buffer, wanted) = self.decoder.space().map_err(|_| io::ErrorKind::OutOfMemory)?;
            return socket::receive(socket, buffer, wanted, waits);
        }
        let space = match self.form {
            Form::Packets => self.decoder.packet_space(),
            Form::Stream | Form::Other => {
                self.decoder.space().map(|(first, count_max)| Space { first, count_max, rest: None })
            }
        };
        let Space { first, count_max, rest } = space.map_err(|_| io::ErrorKind::OutOfMemory)?;
        let received = socket::receive_with_descriptors(socket, first, count_max, rest, &mut self.descriptors, waits)?;
        self.lost |= received.lost;
        // Whoever sends some with each byte of a header does not fill our table with them: the count will be found wrong.
        self.descriptors.truncate(DESCRIPTORS_MAX + 1);
        if received.cut {
            self.decoder.break_off();
        }
        Ok(received.count)
    }

    fn complete(&mut self, head: Head) -> Result<Arrived, Error> {
        let (lost, descriptors) = (std::mem::take(&mut self.lost), std::mem::take(&mut self.descriptors));
        let (came, wanted) = (descriptors.len(), head.descriptors);
        if lost {
            let text = format!("{came} of the {wanted} descriptors of a message could be received");
            let error = io::Error::from_raw_os_error(libc::EMFILE);
            return Err(Error::new(ErrorKind::ResourceExhausted).detail(text).source(error));
        }
        if came != wanted as usize {
            let text = format!("a message of {wanted} descriptors has come with {came}");
            return Err(Error::new(ErrorKind::Decode).detail(text));
        }
        Ok(Arrived { kind: head.kind, descriptors })
    }

    fn forget_descriptors(&mut self) {
        self.lost = false;
        self.descriptors.clear();
    }

    fn end(&mut self) -> Error {
        self.ended = true;
        self.forget_descriptors();
        match self.decoder.progress() {
            None => closed(),
            Some((came, of)) => {
                let text =
                    format!("the connection has ended in the middle of a message: {came} of {of} bytes have come");
                Error::new(ErrorKind::Decode).detail(text)
            }
        }
    }

    fn with_progress(&self, error: Error) -> Error {
        match self.decoder.progress() {
            Some((came, of)) if error.is_timeout() => {
                error.detail(format!("timed out: {came} of {of} bytes of a message have come"))
            }
            _ => error,
        }
    }
}

/// Whether something has come, or the end has, until the deadline.
pub(crate) fn wait_readable(socket: BorrowedFd<'_>, deadline: Deadline) -> Result<bool, Error> {
    poll::wait_readable(socket, deadline.moment()).map_err(|error| Error::io("poll", error))
}

/// Two ends of a way for messages between processes of this machine, as a stream.
#[cfg(test)]
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    socket::pair().map_err(|error| Error::io("socketpair", error))
}

/// Two ends of one on which a small message is a single call for both sides: whoever uses it says so ([`Form::Packets`]).
pub(crate) fn packet_pair() -> Result<(OwnedFd, OwnedFd), Error> {
    socket::packet_pair().map_err(|error| Error::io("socketpair", error))
}

/// A descriptor that somebody has given us, and its form, if messages can go through it.
pub(crate) fn checked(descriptor: OwnedFd) -> Result<(OwnedFd, Form), Error> {
    match socket::form(descriptor.as_fd()) {
        Ok(Form::Other) => {
            Err(Error::invalid("the descriptor is a socket, but neither for a stream nor for packets in order"))
        }
        Ok(form) => Ok((fd::above_stdio(descriptor).map_err(|error| Error::io("dup", error))?, form)),
        Err(error) => Err(Error::invalid("the descriptor is no socket").source(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::wire::MESSAGE_MAX;
    use std::time::Duration;

    const SOON: Duration = Duration::from_millis(5);

    /// Both ways that there are.
    fn ways() -> [(OwnedFd, OwnedFd, Form); 2] {
        let ((one, two), (three, four)) = (pair().unwrap(), packet_pair().unwrap());
        [(one, two, Form::Stream), (three, four, Form::Packets)]
    }

    fn both(max: u64, form: Form) -> (Outgoing, Incoming) {
        (Outgoing::new(max).of_form(form), Incoming::new(max).of_form(form))
    }

    fn text(error: Error) -> String {
        error.to_string()
    }

    #[test]
    fn a_timeout_in_the_middle_loses_nothing() {
        for (one, two, form) in ways() {
            let (mut out, mut into) = both(MESSAGE_MAX, form);
            let body: Vec<u8> = (0..3_000_000_u32).map(|place| (place % 251) as u8).collect();
            let error = out.send(one.as_fd(), Kind::Bytes, &body, Vec::new(), Deadline::after(SOON)).unwrap_err();
            assert!(error.is_timeout() && out.is_sending(), "{error}");
            let (mut timeouts, mut rounds) = (0, 0);
            let arrived = loop {
                match into.receive(two.as_fd(), Deadline::now()) {
                    Ok(arrived) => break arrived,
                    Err(error) => {
                        assert!(error.is_timeout(), "{error}");
                        timeouts += 1;
                    }
                }
                rounds += 1;
                assert!(rounds < 10_000);
                let _ = out.flush(one.as_fd(), Deadline::now());
            };
            assert!(timeouts > 2 && !out.is_sending());
            assert_eq!(arrived.kind, Kind::Bytes);
            assert!(*into.body() == body);
            // The next one is whole as well.
            out.send(one.as_fd(), Kind::Value, b"next", Vec::new(), Deadline::now()).unwrap();
            assert_eq!(into.receive(two.as_fd(), Deadline::NEVER).unwrap().kind, Kind::Value);
            assert_eq!(into.body(), b"next");
        }
    }

    #[test]
    fn a_message_that_had_no_chance_is_not_sent_later() {
        for (one, two, form) in ways() {
            while socket::send(one.as_fd(), &[IoSlice::new(&[0; 4096])], &[], false).is_ok() {}
            let mut out = Outgoing::new(MESSAGE_MAX).of_form(form);
            let late = out.send(one.as_fd(), Kind::Bytes, b"late", Vec::new(), Deadline::after(SOON)).unwrap_err();
            assert_eq!(text(late), "timed out: nothing of the message is sent");
            assert!(!out.is_sending());
            // Nor is one whose turn did not come.
            out.put_before(Kind::Hello, b"earlier").unwrap();
            let late = out.send(one.as_fd(), Kind::Bytes, b"late", Vec::new(), Deadline::after(SOON)).unwrap_err();
            assert_eq!(text(late), "timed out: 23 bytes of an earlier message are still to be sent");
            assert!(!out.is_sending() && out.has_rest());
            drop(two);
            let gone = out.send(one.as_fd(), Kind::Bytes, b"late", Vec::new(), Deadline::NEVER).unwrap_err();
            assert_eq!((gone.kind(), text(gone)), (ErrorKind::Ended, text(closed())));
        }
    }

    #[test]
    fn descriptors_belong_to_their_message() {
        for (one, two, form) in ways() {
            let (mut out, mut into) = both(MESSAGE_MAX, form);
            let ends = || -> Vec<OwnedFd> { vec![one.try_clone().unwrap(), two.try_clone().unwrap()] };
            out.put_before(Kind::Hello, b"name").unwrap();
            out.send(one.as_fd(), Kind::Value, b"two", ends(), Deadline::NEVER).unwrap();
            out.send(one.as_fd(), Kind::Value, b"none", Vec::new(), Deadline::NEVER).unwrap();
            let counts: Vec<usize> =
                (0..3).map(|_| into.receive(two.as_fd(), Deadline::NEVER).unwrap().descriptors.len()).collect();
            assert_eq!(counts, [0, 2, 0]);
            // A header that says something else.
            let head = Head { kind: Kind::Value, descriptors: 1, length: 0 }.to_bytes();
            socket::send(one.as_fd(), &[IoSlice::new(&head)], &ends(), true).unwrap();
            let error = into.receive(two.as_fd(), Deadline::NEVER).unwrap_err();
            assert_eq!(text(error), "a message of 1 descriptors has come with 2");
            out.send(one.as_fd(), Kind::Value, b"good", Vec::new(), Deadline::NEVER).unwrap();
            assert_eq!(into.receive(two.as_fd(), Deadline::NEVER).unwrap().descriptors.len(), 0);
            let many = (0..254).map(|_| one.try_clone().unwrap()).collect();
            let error = out.send(one.as_fd(), Kind::Value, b"", many, Deadline::NEVER).unwrap_err();
            assert_eq!(text(error), "a message with 254 descriptors cannot be sent: 253 are the most");
        }
    }

    #[test]
    fn the_end_says_where_it_came() {
        for (one, two, form) in ways() {
            let mut into = Incoming::new(100).of_form(form);
            let head = Head { kind: Kind::Bytes, descriptors: 0, length: 50 }.to_bytes();
            socket::send(one.as_fd(), &[IoSlice::new(&head), IoSlice::new(b"ten bytes.")], &[], true).unwrap();
            drop(one);
            let torn = into.receive(two.as_fd(), Deadline::NEVER).unwrap_err();
            assert_eq!(text(torn), "the connection has ended in the middle of a message: 26 of 66 bytes have come");
            // Once.
            assert_eq!(text(into.receive(two.as_fd(), Deadline::NEVER).unwrap_err()), text(closed()));
        }
    }

    #[test]
    fn what_is_too_large_is_skipped() {
        for (one, two, form) in ways() {
            let (mut out, mut into) = (Outgoing::new(101).of_form(form), Incoming::new(100).of_form(form));
            for length in [100, 101, 99] {
                out.send(one.as_fd(), Kind::Bytes, &vec![1; length], Vec::new(), Deadline::NEVER).unwrap();
            }
            let mut receive = || into.receive(two.as_fd(), Deadline::NEVER).map(|_| into.body().len()).map_err(text);
            assert_eq!(receive(), Ok(100));
            assert_eq!(receive(), Err("a message of 101 bytes has come: 100 are the most that is taken".into()));
            assert_eq!(receive(), Ok(99));
            let error = out.send(one.as_fd(), Kind::Bytes, &[0; 102], Vec::new(), Deadline::NEVER).unwrap_err();
            assert_eq!(text(error), "a message of 102 bytes cannot be sent: 101 are the most");
        }
    }

    #[test]
    fn only_what_loses_nothing_is_taken() {
        let refused = |descriptor: OwnedFd| text(checked(descriptor).unwrap_err());
        assert!(refused(std::io::pipe().unwrap().0.into()).starts_with("the descriptor is no socket"));
        let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(refused(datagrams.into()).contains("neither for a stream"));
        assert_eq!(checked(packet_pair().unwrap().0).unwrap().1, Form::Packets);
    }
}
