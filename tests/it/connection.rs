//! Connections: with threads, with processes, with those that die, lie, trickle or may not come in.

use crate::support::{Scratch, alone, fixture, is_root};
use procession::ipc::{
    Connection, Descriptor, Listener, RawConnection, Receiver, Sender, one_way, wait_any, wait_any_timeout,
};
use procession::{ErrorKind, Stdio};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(5);

/// A message as version 1 writes it.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&header(kind, body.len() as u64)[..], body].concat()
}

fn header(kind: u8, length: u64) -> Vec<u8> {
    [&[0xc5, b'p', 1, kind, 0, 0, 0, 0][..], &length.to_le_bytes()].concat()
}

/// One end as it is, for those who break the rules.
fn with_raw<S, R>() -> (UnixStream, Connection<S, R>) {
    let (raw, ours) = UnixStream::pair().unwrap();
    (raw, Connection::from_fd(ours.into()).unwrap())
}

/// The same, where each write is a packet.
fn with_raw_packets<S, R>() -> (UnixStream, Connection<S, R>) {
    let (raw, ours) = Connection::<R, S>::pair().unwrap();
    (raw.as_fd().try_clone_to_owned().unwrap().into(), ours)
}

fn text<T>(result: Result<T, procession::Error>) -> String {
    result.map(drop).unwrap_err().to_string()
}

#[test]
fn a_process_answers() {
    alone!({
        let (mut ours, theirs) = Connection::<(String, u64), (String, u64)>::pair().unwrap();
        let mut child = fixture("connection-echo").arg("3").fd(3, Stdio::borrowed(&theirs)).spawn().unwrap();
        drop(theirs);
        for number in 0..200 {
            let value = ("x".repeat(number * 37), number as u64);
            ours.send(&value).unwrap();
            assert_eq!(ours.recv_timeout(LONG).unwrap(), value);
        }
        drop(ours);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_process_that_dies_is_one_that_closes() {
    alone!({
        let (mut ours, theirs) = Connection::<(String, u64), (String, u64)>::pair().unwrap();
        let mut child = fixture("connection-echo").arg("3").fd(3, Stdio::borrowed(&theirs)).spawn().unwrap();
        drop(theirs);
        ours.send(&("first".to_owned(), 0)).unwrap();
        ours.send(&("kept".to_owned(), 1)).unwrap();
        assert_eq!(ours.recv().unwrap().0, "first");
        assert!(ours.poll(LONG));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it has sent is not lost.
        assert_eq!(ours.recv().unwrap().0, "kept");
        assert_eq!(ours.recv().unwrap_err().kind(), ErrorKind::Ended);
        assert_eq!(ours.recv().unwrap_err().kind(), ErrorKind::Ended);
        assert_eq!(ours.send(&("late".to_owned(), 2)).unwrap_err().kind(), ErrorKind::Ended);
        assert!(ours.poll(Duration::ZERO));
    });
}

#[test]
fn what_was_sent_before_the_end_comes_also_if_ours_was_never_read() {
    alone!({
        let (stream, other) = UnixStream::pair().unwrap();
        let streams = [stream, other].map(|end| RawConnection::from_fd(end.into()).unwrap());
        let packets = RawConnection::pair().unwrap();
        for [mut ours, mut theirs] in [streams, packets.into()] {
            theirs.send_bytes(b"one").unwrap();
            theirs.send_bytes(&[2; 100_000]).unwrap();
            // Nobody will read this, so that the end is told as a reset.
            ours.send_bytes(b"unread").unwrap();
            drop(theirs);
            assert_eq!(ours.recv_bytes_timeout(LONG).unwrap(), b"one");
            assert_eq!(ours.recv_bytes().unwrap(), [2; 100_000]);
            assert_eq!(ours.recv_bytes().unwrap_err().kind(), ErrorKind::Ended);
        }
    });
}

#[test]
fn a_death_in_the_middle_of_a_message_is_told_once_and_harms_nobody_else() {
    alone!({
        let (mut torn, theirs) = RawConnection::pair().unwrap();
        let (mut good, mut other) = RawConnection::pair().unwrap();
        let command = fixture("connection-half").arg("3").fd(3, Stdio::borrowed(&theirs)).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop((theirs, command));
        assert_eq!(child.lines().next().unwrap().unwrap().text(), "ready");
        let late = torn.recv_bytes_timeout(SOON).unwrap_err();
        assert_eq!(late.to_string(), "timed out: 116 of 1016 bytes of a message have come");
        assert!(torn.try_recv_bytes().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        other.send_bytes(b"goes on").unwrap();
        let error = torn.recv_bytes().unwrap_err();
        let expected = "the connection has ended in the middle of a message: 116 of 1016 bytes have come";
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Decode, expected));
        assert_eq!(torn.recv_bytes().unwrap_err().kind(), ErrorKind::Ended);
        assert_eq!(good.recv_bytes().unwrap(), b"goes on");
    });
}

#[test]
fn a_sender_whose_reader_goes_gets_an_error_and_no_signal() {
    alone!({
        // The helper has the default action for SIGPIPE, which would kill it.
        let (ours, theirs) = Connection::<(), Vec<u8>>::pair().unwrap();
        let command = fixture("connection-gone").arg("3").fd(3, Stdio::borrowed(&theirs)).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(theirs);
        let mut lines = child.lines();
        assert_eq!(lines.next().unwrap().unwrap().text(), "ready");
        drop(ours);
        let said = lines.next().unwrap().unwrap().text().to_string();
        assert_eq!(said, "Ended: the connection is closed by the other side");
        drop(lines);
        assert!(child.wait().unwrap().success());
    });
}

#[derive(Debug, Serialize, Deserialize)]
struct Question(u32);

#[test]
fn two_that_do_not_mean_the_same_find_out() {
    alone!({
        let (one, two) = UnixStream::pair().unwrap();
        let mut one = Connection::<Question, u8>::from_fd(one.into()).unwrap();
        let mut two = Connection::<u8, Vec<String>>::from_fd(two.into()).unwrap();
        one.send(&Question(1)).unwrap();
        one.send(&Question(2)).unwrap();
        for _ in 0..3 {
            let error = two.recv().unwrap_err();
            let expected = "the other side sends values of the type Question, this one expects Vec<String>";
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Decode, expected));
        }
        // The other direction is right.
        two.send(&8).unwrap();
        assert_eq!(one.recv().unwrap(), 8);
        // Values and bytes.
        let (one, two) = UnixStream::pair().unwrap();
        let mut one = Connection::<u8, u8>::from_fd(one.into()).unwrap();
        let mut two = RawConnection::from_fd(two.into()).unwrap();
        one.send(&1).unwrap();
        two.send_bytes(b"1").unwrap();
        assert_eq!(text(one.recv()), "bytes have come, where values of the type u8 are expected");
        assert_eq!(text(two.recv_bytes()), "the other side sends values of the type u8, this one expects bytes");
        assert_eq!(text(two.recv_bytes()), "a value has come, where bytes are expected");
    });
}

#[test]
fn what_is_none_of_our_messages_is_named() {
    alone!({
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], "no message begins with the bytes 47 45, but with c5 70"),
            (b"\xc5p\x07", "the other side speaks version 7 of the format, this one 1"),
            (b"\xc5p\x01\x63\0\0\0\0\0\0\0\0\0\0\0\0", "a message of the unknown kind 99"),
            (b"\xc5p\x01\x02\0\0\0\x01\0\0\0\0\0\0\0\0", "a message with 16777216 descriptors, where 253 are the most"),
            (b"\xc5p\x01\x02\x01\0\0\0\0\0\0\0\0\0\0\0", "a message of 1 descriptors has come with 0"),
            (
                b"\xc5p\x01\x05\0\0\0\0\0\0\0\0\0\0\0\0",
                "the other side wants to see a proof of a key, and none is known here",
            ),
        ] {
            let (mut raw, mut ours) = with_raw::<u8, u8>();
            raw.write_all(bytes).unwrap();
            assert_eq!(text(ours.recv()), expected);
            // This side can still be heard.
            ours.send(&5).unwrap();
            let mut came = [0; 16 + 2 + 16 + 1];
            raw.read_exact(&mut came).unwrap();
            assert_eq!(came[..], [message(1, b"u8"), message(2, &[5])].concat());
        }
        // A value without a hello, and one that is none.
        let (mut raw, mut ours) = with_raw::<(), (u8, String)>();
        raw.write_all(&message(2, b"\x07\x01a")).unwrap();
        assert!(text(ours.recv()).starts_with("a value has come and was not said to be of any type"));
        raw.write_all(&message(1, b"(u8, String)")).unwrap();
        raw.write_all(&message(2, b"\x07\x05a")).unwrap();
        assert!(text(ours.recv()).starts_with("3 bytes are no (u8, String): "));
        raw.write_all(&message(2, b"\x07\x01a")).unwrap();
        assert_eq!(ours.recv().unwrap(), (7, "a".to_owned()));
        // Names that are nonsense.
        for name in [&b"\xff\x00\x1b[31m"[..], &[b'A'; 100_000]] {
            let (mut raw, mut ours) = with_raw::<(), u8>();
            let writer = thread::spawn(move || raw.write_all(&message(1, name)));
            let said = text(ours.recv());
            assert!(said.len() < 5000 && !said.contains('\x1b') && said.ends_with("this one expects u8"), "{said}");
            writer.join().unwrap().unwrap();
        }
    });
}

#[test]
fn packets_end_where_they_should() {
    alone!({
        let expected = "a packet that is longer than the message in it, or than 131072 bytes";
        // More than the message, two messages, more than any packet, and more than is missing.
        let cases: [&[&[u8]]; 4] = [
            &[&[message(3, b"four"), b"x".to_vec()].concat()],
            &[&[message(3, b"four"), message(3, b"five")].concat()],
            &[&[header(3, 1_000_000), vec![1; 200_000]].concat()],
            &[&[header(3, 150_000), vec![1; 100_000]].concat(), &[1; 50_001]],
        ];
        for packets in cases {
            let (mut raw, ours) = with_raw_packets::<(), ()>();
            let mut ours = ours.into_raw().unwrap();
            let packets: Vec<Vec<u8>> = packets.iter().map(|packet| packet.to_vec()).collect();
            let writer = thread::spawn(move || packets.iter().try_for_each(|packet| raw.write_all(packet)));
            let error = ours.recv_bytes().unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Decode, expected));
            writer.join().unwrap().unwrap();
        }
        // A header in two packets is unusual, and no harm.
        let (mut raw, ours) = with_raw_packets::<(), ()>();
        let mut ours = ours.into_raw().unwrap();
        let bytes = message(3, b"four");
        raw.write_all(&bytes[..7]).unwrap();
        assert!(ours.try_recv_bytes().unwrap().is_none());
        raw.write_all(&bytes[7..]).unwrap();
        assert_eq!(ours.recv_bytes().unwrap(), b"four");
    });
}

#[test]
fn bytes_of_yesterday_are_read() {
    alone!({
        let (mut raw, mut ours) = with_raw::<(), (String, u32)>();
        raw.write_all(include_bytes!("../data/wire-1.bin")).unwrap();
        drop(raw);
        assert_eq!(ours.recv().unwrap(), ("hello".to_owned(), 300));
        assert_eq!(text(ours.recv()), "bytes have come, where values of the type (String, u32) are expected");
        let refusal = ours.recv().unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::PermissionDenied);
        assert_eq!(refusal.to_string(), "the other side refuses: no");
        assert_eq!(ours.recv().unwrap_err().kind(), ErrorKind::Ended);
    });
}

/// The most memory that this process has ever had, in KiB.
fn memory_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn sizes_are_checked_before_they_cost_anything() {
    alone!({
        let before = memory_peak();
        for length in [(1 << 30) + 1, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
            let (mut raw, ours) = UnixStream::pair().unwrap();
            let mut ours = RawConnection::from_fd(ours.into()).unwrap();
            raw.write_all(&header(3, length)).unwrap();
            let error = ours.recv_bytes().unwrap_err();
            let expected = format!("a message of {length} bytes has come: 1073741824 are the most that is taken");
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Overflow, expected));
            // What follows belongs to it.
            raw.write_all(&[1; 100_000]).unwrap();
            assert!(ours.try_recv_bytes().unwrap().is_none());
        }
        // As large as is taken, but it never comes.
        let (mut raw, ours) = UnixStream::pair().unwrap();
        let mut ours = RawConnection::from_fd(ours.into()).unwrap();
        raw.write_all(&header(3, 1 << 30)).unwrap();
        assert!(ours.try_recv_bytes().unwrap().is_none());
        // Memory that nobody has touched is none.
        let (mut sender, _receiver) = RawConnection::pair().unwrap();
        let error = sender.send_bytes(&vec![0; 1 << 31]).unwrap_err();
        assert_eq!(error.to_string(), "a message of 2147483648 bytes cannot be sent: 1073741824 are the most");
        assert!(memory_peak() < before + 32 * 1024, "{} after {before}", memory_peak());
        // To the byte.
        for (length, taken) in [(999, true), (1000, true), (1001, false)] {
            let (mut one, two) = RawConnection::pair().unwrap();
            let mut two = two.message_max(1000);
            one.send_bytes(&vec![1; length]).unwrap();
            one.send_bytes(b"next").unwrap();
            assert_eq!(two.recv_bytes().is_ok(), taken);
            assert_eq!(two.recv_bytes().unwrap(), b"next");
            assert_eq!(two.send_bytes(&vec![1; length]).is_ok(), taken);
        }
    });
}

#[test]
fn descriptors_go_through_messages() {
    alone!({
        let (mut ours, theirs) = Connection::<(Descriptor, Descriptor), u64>::pair().unwrap();
        let mut child = fixture("connection-capitals").arg("3").fd(3, Stdio::borrowed(&theirs)).spawn().unwrap();
        drop(theirs);
        let scratch = Scratch::new();
        let path = scratch.file("small", 0o600, "small letters");
        let (mut reader, writer) = std::io::pipe().unwrap();
        let files = (File::open(&path).unwrap().into(), writer.into());
        ours.send(&files).unwrap();
        drop(files);
        let mut capitals = String::new();
        reader.read_to_string(&mut capitals).unwrap();
        assert_eq!((capitals.as_str(), ours.recv().unwrap()), ("SMALL LETTERS", 13));
        drop(ours);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn descriptors_that_nobody_takes_are_closed() {
    alone!({
        type Pipes = Vec<Descriptor>;
        let ends = |count: usize| (0..count).map(|_| std::io::pipe().unwrap().1.into()).collect::<Pipes>();
        let (mut one, mut two) = Connection::<Pipes, ()>::pair().unwrap();
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        one.send(&ends(253)).unwrap();
        assert_eq!(open(), before);
        assert_eq!(two.recv().unwrap().len(), 253);
        let error = one.send(&ends(254)).unwrap_err();
        assert_eq!(error.to_string(), "a message with 254 descriptors cannot be sent: 253 are the most");
        assert_eq!(open(), before);
        // Too large, of the wrong type, never received.
        let mut two = two.message_max(8);
        one.send(&ends(20)).unwrap();
        assert_eq!(two.recv().unwrap_err().kind(), ErrorKind::Overflow);
        assert_eq!(open(), before);
        one.send(&ends(1)).unwrap();
        assert_eq!(two.recv().unwrap().len(), 1);
        one.send(&ends(3)).unwrap();
        let mut raw = two.into_raw().unwrap();
        assert_eq!(text(raw.recv_bytes()), "a value has come, where bytes are expected");
        assert_eq!(open(), before);
        one.send(&ends(2)).unwrap();
        drop(raw);
        drop(one);
        assert_eq!(open(), before - 2);
    });
}

#[test]
fn descriptors_that_find_no_room_are_told_and_the_next_message_comes() {
    alone!({
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (mut one, mut two) = Connection::<Vec<Descriptor>, ()>::pair().unwrap();
        let ends: Vec<Descriptor> = (0..30).map(|_| std::io::pipe().unwrap().1.into()).collect();
        one.send(&ends).unwrap();
        one.send(&Vec::new()).unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 200, hard).unwrap();
        let mut full: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        full.truncate(full.len() - 10);
        let error = two.recv();
        let next = two.recv();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(
            error.to_string().contains("of the 30 descriptors of a message could be received: Too many open"),
            "{error}"
        );
        assert_eq!(next.unwrap().len(), 0);
    });
}

#[test]
fn connections_go_through_connections() {
    alone!({
        type Inner = Connection<u32, String>;
        let (mut outer, mut end) = Connection::<(Inner, Sender<u8>, Receiver<u8>), ()>::pair().unwrap();
        let (inner, mut other) = Inner::pair().unwrap();
        // Something was said already: that it was goes with it.
        let mut inner = inner;
        inner.send(&1).unwrap();
        other.send(&"one".to_owned()).unwrap();
        assert_eq!((other.recv().unwrap(), inner.recv().unwrap()), (1, "one".to_owned()));
        let (sender, mut first) = one_way().unwrap();
        let (mut last, receiver) = one_way().unwrap();
        outer.send(&(inner, sender, receiver)).unwrap();
        let (mut inner, mut sender, mut receiver) = end.recv().unwrap();
        inner.send(&2).unwrap();
        other.send(&"two".to_owned()).unwrap();
        sender.send(&3).unwrap();
        last.send(&4).unwrap();
        assert_eq!((other.recv().unwrap(), inner.recv().unwrap()), (2, "two".to_owned()));
        assert_eq!((first.recv().unwrap(), receiver.recv().unwrap()), (3, 4));
        // Nobody else has the end by now.
        drop(inner);
        assert_eq!(other.recv().unwrap_err().kind(), ErrorKind::Ended);
    });
}

#[test]
fn in_the_middle_of_a_message_a_connection_stays_where_it_is() {
    alone!({
        let (mut outer, _end) = Connection::<Connection<Vec<u8>, String>, ()>::pair().unwrap();
        let (mut raw, mut inner) = with_raw::<Vec<u8>, String>();
        raw.write_all(&message(1, b"String")).unwrap();
        raw.write_all(&message(2, b"\x05hello")[..10]).unwrap();
        assert!(inner.try_recv().unwrap().is_none());
        let said = text(outer.send(&inner));
        assert!(said.ends_with("a connection cannot be passed on now: a message has come in part"), "{said}");
        raw.write_all(&message(2, b"\x05hello")[10..]).unwrap();
        assert_eq!(inner.recv().unwrap(), "hello");
        assert!(inner.send_timeout(&vec![1; 10_000_000], SOON).unwrap_err().is_timeout());
        let said = text(outer.send(&inner));
        assert!(said.ends_with("a connection cannot be passed on now: a message is not out yet"), "{said}");
        assert!(text(inner.into_raw()).ends_with("a message is not out yet"));
        // Outside of a message there is no way at all.
        let (alone, _other) = RawConnection::pair().unwrap();
        assert!(postcard::to_allocvec(&alone).is_err());
    });
}

#[test]
fn a_peer_that_trickles_loses_nothing() {
    alone!({
        let (mut raw, mut ours) = with_raw::<(), String>();
        let values: Vec<String> = (0..40).map(|number| "y".repeat(number % 7)).collect();
        let mut bytes = message(1, b"String");
        for value in &values {
            bytes.extend(message(2, &postcard::to_allocvec(value).unwrap()));
        }
        let writer = thread::spawn(move || {
            for byte in bytes {
                raw.write_all(&[byte]).unwrap();
                thread::sleep(Duration::from_micros(500));
            }
        });
        let (mut came, mut timeouts) = (Vec::new(), 0);
        while came.len() < values.len() {
            match ours.recv_timeout(Duration::from_micros(300)) {
                Ok(value) => came.push(value),
                Err(error) => {
                    assert!(error.is_timeout(), "{error}");
                    timeouts += 1;
                }
            }
        }
        writer.join().unwrap();
        assert!(timeouts > 10);
        assert_eq!(came, values);
        assert_eq!(ours.recv().unwrap_err().kind(), ErrorKind::Ended);
    });
}

#[test]
fn timeouts_on_both_sides_lose_nothing() {
    alone!({
        let (mut sender, mut receiver) = one_way::<Vec<u32>>().unwrap();
        let value = |number: u32| -> Vec<u32> { (0..number * 5000).map(|place| place ^ number).collect() };
        let writer = thread::spawn(move || {
            let mut timeouts = 0;
            for number in 0..30 {
                let value = value(number);
                while let Err(error) = sender.send_timeout(&value, Duration::from_micros(50)) {
                    assert!(error.is_timeout(), "{error}");
                    timeouts += 1;
                    // Out in part: the rest goes before the next one.
                    if sender.is_sending() {
                        break;
                    }
                }
            }
            sender.flush().unwrap();
            timeouts
        });
        let mut timeouts = 0;
        for number in 0..30 {
            let came = loop {
                match receiver.recv_timeout(Duration::from_micros(50)) {
                    Ok(came) => break came,
                    Err(error) => assert!(error.is_timeout(), "{error}"),
                }
                timeouts += 1;
            };
            assert!(came == value(number), "{number}");
        }
        assert!(writer.join().unwrap() > 3 && timeouts > 3);
        assert_eq!(receiver.recv().unwrap_err().kind(), ErrorKind::Ended);
    });
}

#[test]
fn a_timeout_is_never_early_and_not_very_late() {
    alone!({
        let (one, mut two) = Connection::<u8, u8>::pair().unwrap();
        for timeout in [Duration::ZERO, Duration::from_millis(30)] {
            let start = Instant::now();
            assert!(two.recv_timeout(timeout).unwrap_err().is_timeout());
            assert!(!one.poll(timeout));
            let took = start.elapsed();
            assert!(took >= 2 * timeout && took < 2 * timeout + Duration::from_secs(5), "{took:?}");
        }
    });
}

#[test]
fn both_directions_at_once() {
    alone!({
        let (one, two) = Connection::<Vec<u8>, Vec<u8>>::pair().unwrap();
        let work = |connection: Connection<Vec<u8>, Vec<u8>>| {
            let (mut sender, mut receiver) = connection.split();
            let writer = thread::spawn(move || {
                (0..60_usize).try_for_each(|number| sender.send(&vec![number as u8; number * 6000]))?;
                sender.finish()
            });
            thread::spawn(move || {
                let mut count = 0;
                for (number, value) in receiver.incoming().enumerate() {
                    assert!(value.unwrap() == vec![number as u8; number * 6000]);
                    count += 1;
                }
                writer.join().unwrap().unwrap();
                count
            })
        };
        let counts = [work(one), work(two)].map(|thread| thread.join().unwrap());
        assert_eq!(counts, [60, 60]);
    });
}

#[test]
fn one_wait_for_many_things() {
    alone!({
        let (mut one, two) = Connection::<u8, u8>::pair().unwrap();
        let (quiet, _keep) = Connection::<u8, u8>::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut listener = Listener::new().unwrap();
        let all: [&dyn AsFd; 4] = [&quiet, &two, &reader, &listener];
        assert!(wait_any_timeout(&all, SOON).unwrap().is_empty());
        one.send(&1).unwrap();
        assert_eq!(wait_any(&all).unwrap(), [1]);
        drop(writer);
        let client = Connection::<u8, u8>::connect(listener.path().unwrap()).unwrap();
        assert_eq!(wait_any(&all).unwrap(), [1, 2, 3]);
        let server = listener.accept::<u8, u8>().unwrap();
        let mut child = fixture("sleep").arg("60000").spawn().unwrap();
        drop(client);
        assert_eq!(wait_any(&[&quiet, &server]).unwrap(), [1]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(wait_any(&[]).unwrap_err().is_invalid_input());
        assert!(wait_any_timeout(&[], SOON).unwrap().is_empty());
    });
}

#[test]
fn a_listener_leaves_nothing_and_removes_only_its_own() {
    alone!({
        let listener = Listener::new().unwrap();
        let path = listener.path().unwrap().to_owned();
        let mode = |path: &std::path::Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(listener);
        assert!(!path.parent().unwrap().exists());
        assert_eq!(Connection::<(), ()>::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);

        let scratch = Scratch::new();
        let path = scratch.join("place");
        // SAFETY: an integer argument; this process has one thread that makes files.
        let mask = unsafe { libc::umask(0) };
        let listener = Listener::bind(&path).unwrap();
        // SAFETY: as above.
        unsafe { libc::umask(mask) };
        assert_eq!(mode_of_socket(&path), 0o600);
        let error = Listener::bind(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: there is something at this path already", path.display()));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "of somebody else").unwrap();
        drop(listener);
        assert_eq!(fs::read_to_string(&path).unwrap(), "of somebody else");
        fs::remove_file(&path).unwrap();
        let long = scratch.join("x".repeat(200));
        assert!(Listener::bind(&long).unwrap_err().to_string().ends_with("the path is too long for a socket"));
        assert_eq!(Listener::bind(scratch.join("no/such/place")).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        // Something else, which is left behind then.
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = RawConnection::connect(&path).unwrap_err();
        assert!(error.to_string().ends_with("something else than a listener of this library is there"), "{error}");
        drop(other);
        let error = RawConnection::connect(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("nobody listens there"), "{error}");
    });
}

fn mode_of_socket(path: &std::path::Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn five_hundred_clients() {
    alone!({
        let mut listener = Listener::new().unwrap();
        let path = listener.path().unwrap().to_owned();
        let mut child = fixture("connection-clients").arg(&path).arg("500").stdout(Stdio::piped()).spawn().unwrap();
        let mut connections = Vec::new();
        for _ in 0..500 {
            let connection = listener.accept_timeout::<u32, u32>(LONG).unwrap();
            assert_eq!(connection.peer().unwrap().pid(), child.id());
            assert_eq!(connection.peer().unwrap().uid(), nix::unistd::geteuid().as_raw());
            connections.push(connection);
        }
        for connection in &mut connections {
            let number = connection.recv_timeout(LONG).unwrap();
            connection.send(&(number * 2)).unwrap();
        }
        let output = child.communicate("").unwrap();
        assert_eq!(output.stdout_text().unwrap().trim(), (499 * 500).to_string());
        let error = listener.accept_timeout::<u8, u8>(SOON).unwrap_err();
        assert!(error.is_timeout(), "{error}");
    });
}

#[test]
fn other_users_stay_outside() {
    alone!({
        if !is_root() {
            eprintln!("skipped: it takes root to be somebody else");
            return;
        }
        let scratch = Scratch::new();
        let path = scratch.join("door");
        let client = || {
            let command = fixture("connection-clients").arg(&path).arg("1").user(65534_u32).group(65534_u32);
            command.stdout(Stdio::piped()).stderr(Stdio::piped())
        };
        let stderr = |output: procession::Output| output.stderr_text().unwrap().to_string();
        // Closed by its mode.
        let listener = Listener::bind(&path).unwrap();
        let said = stderr(client().output().unwrap());
        if said.contains("PermissionDenied") && said.contains("exec") {
            eprintln!("skipped: nobody may not run the helper");
            return;
        }
        assert!(said.contains("PermissionDenied: connect"), "{said}");
        // Open to another one, but not to this one: refused at the door, and told so.
        let mut listener = listener.allow_user(12345).unwrap();
        assert_eq!(mode_of_socket(&path), 0o666);
        let mut child = client().spawn().unwrap();
        let pid = child.id();
        let error = listener.accept_timeout::<u32, u32>(LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let expected = format!("{}: process {pid} of user 65534 has connected and is not allowed", path.display());
        assert_eq!(error.to_string(), expected);
        let said = stderr(child.communicate("").unwrap());
        assert!(
            said.contains("PermissionDenied: the other side refuses: user 65534 is not allowed")
                || said.contains("Ended"),
            "{said}"
        );
        // And the listener goes on.
        let mut listener = listener.allow_user(65534).unwrap();
        let mut child = client().spawn().unwrap();
        let mut connection = listener.accept_timeout::<u32, u32>(LONG).unwrap();
        assert_eq!((connection.peer().unwrap().uid(), connection.recv().unwrap()), (65534, 0));
        connection.send(&9).unwrap();
        let output = child.communicate("").unwrap();
        assert_eq!(output.stdout_text().unwrap().trim(), "9");
        // A listener of somebody else is not believed.
        assert!(RawConnection::connect_to_user(&path, 65534).unwrap_err().to_string().ends_with("belongs to user 0"));
        assert!(RawConnection::connect_to_user(&path, 0).is_ok());
    });
}

const KEY: [u8; 32] = [42; 32];
const OTHER_KEY: [u8; 32] = [43; 32];

#[test]
fn who_knows_the_key_gets_in_and_nobody_else() {
    alone!({
        let listener = Listener::tcp("127.0.0.1:0", &KEY).unwrap();
        let address = listener.address().unwrap();
        let server = thread::spawn(move || {
            let mut listener = listener;
            let refused = listener.accept_timeout::<u8, u8>(LONG).unwrap_err();
            let mut connection = listener.accept_timeout::<u8, u8>(LONG).unwrap();
            let number = connection.recv().unwrap();
            connection.send(&(number + 1)).unwrap();
            refused
        });
        let error = Connection::<u8, u8>::connect_tcp(address, &OTHER_KEY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.to_string(), format!("{address}: the other side refuses: the keys are not the same"));
        let mut connection = Connection::<u8, u8>::connect_tcp(address, &KEY).unwrap();
        connection.send(&1).unwrap();
        assert_eq!(connection.recv().unwrap(), 2);
        assert_eq!(connection.peer().unwrap_err().kind(), ErrorKind::Unsupported);
        let refused = server.join().unwrap();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        assert!(refused.to_string().ends_with("was refused: it does not know the key"), "{refused}");
        assert!(Listener::tcp("127.0.0.1:0", b"short").unwrap_err().is_invalid_input());
        assert!(Connection::<u8, u8>::connect_tcp(address, b"short").unwrap_err().is_invalid_input());
        assert_eq!(
            Connection::<u8, u8>::connect_tcp(address, &KEY).unwrap_err().raw_os_error(),
            Some(libc::ECONNREFUSED)
        );
    });
}

#[test]
fn a_server_that_does_not_know_the_key_learns_nothing_and_is_found_out() {
    alone!({
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = thread::spawn(move || Connection::<u8, u8>::connect_tcp(address, &KEY).unwrap_err());
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&message(5, &[9; 32])).unwrap();
        let mut proof = [0; 16 + 64];
        stream.read_exact(&mut proof).unwrap();
        // Says back what it has heard.
        stream.write_all(&message(7, &proof[48..])).unwrap();
        let error = connect.join().unwrap();
        assert_eq!(error.to_string(), format!("{address}: the other side does not know the key"));
        for (answer, expected) in [
            (&b"SSH-2.0-OpenSSH_9.9\r\n"[..], "no message begins with the bytes 53 53, but with c5 70"),
            (&message(3, b"hello"), "the other side does not ask for a proof of the key"),
            (&message(5, b"short"), "the other side asks with 5 bytes instead of 32"),
            (&header(5, 1 << 40), "a message of 1099511627776 bytes has come: 256 are the most that is taken"),
            (b"", "the connection is closed by the other side"),
        ] {
            let connect = thread::spawn(move || Connection::<u8, u8>::connect_tcp(address, &KEY).unwrap_err());
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer).unwrap();
            // It may have heard enough, and be gone.
            let _ = stream.shutdown(Shutdown::Write);
            assert_eq!(connect.join().unwrap().to_string(), format!("{address}: {expected}"));
        }
        // Nobody answers.
        let start = Instant::now();
        let error = Connection::<u8, u8>::connect_tcp_timeout(address, &KEY, Duration::from_millis(50)).unwrap_err();
        assert!(error.is_timeout() && start.elapsed() < LONG, "{error}");
    });
}

#[test]
fn strangers_on_tcp_keep_nobody_out() {
    alone!({
        let mut listener = Listener::tcp("127.0.0.1:0", &KEY).unwrap().handshake_timeout(Duration::from_millis(300));
        let address = listener.address().unwrap();
        let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut loud = TcpStream::connect(address).unwrap();
        loud.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(TcpStream::connect(address).unwrap());
        let good = thread::spawn(move || {
            let mut connections: Vec<_> =
                (0..5).map(|_| Connection::<u8, u8>::connect_tcp(address, &KEY).unwrap()).collect();
            connections.iter_mut().map(|connection| connection.recv().unwrap()).collect::<Vec<_>>()
        });
        let (mut refused, mut connections) = (Vec::new(), Vec::new());
        while refused.len() < 22 || connections.len() < 5 {
            match listener.accept_timeout::<u8, u8>(LONG) {
                Ok(connection) => connections.push(connection),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
                    refused.push(error.to_string());
                }
            }
        }
        connections.iter_mut().for_each(|connection| connection.send(&7).unwrap());
        assert_eq!(good.join().unwrap(), [7; 5]);
        let count = |part: &str| refused.iter().filter(|text| text.contains(part)).count();
        assert_eq!(count("it has proved nothing within 300ms"), 20, "{refused:#?}");
        assert_eq!(count("no message begins with the bytes 47 45"), 1, "{refused:#?}");
        assert_eq!(count("instead of a proof: the connection is closed by the other side"), 1, "{refused:#?}");
        drop(silent);
        assert!(listener.accept_timeout::<u8, u8>(SOON).unwrap_err().is_timeout());
    });
}

#[test]
fn a_crowd_of_strangers_pushes_out_the_oldest() {
    alone!({
        let mut listener = Listener::tcp("127.0.0.1:0", &KEY).unwrap();
        let address = listener.address().unwrap();
        // More than there are places in the kernel's queue, if it is short.
        let connect = move || (0..130).map(|_| TcpStream::connect(address).unwrap()).collect();
        let strangers = thread::spawn(connect);
        for _ in 0..2 {
            let error = listener.accept_timeout::<u8, u8>(LONG).unwrap_err();
            assert!(error.to_string().ends_with("there are too many others"), "{error}");
        }
        let strangers: Vec<TcpStream> = strangers.join().unwrap();
        let good = thread::spawn(move || Connection::<u8, u8>::connect_tcp(address, &KEY).map(drop));
        let came = std::iter::repeat_with(|| listener.accept_timeout::<u8, u8>(LONG)).take(2).filter(Result::is_ok);
        assert_eq!(came.count(), 1);
        good.join().unwrap().unwrap();
        drop(strangers);
    });
}

#[test]
fn descriptors_do_not_go_over_tcp() {
    alone!({
        let mut listener = Listener::tcp("127.0.0.1:0", &KEY).unwrap();
        let address = listener.address().unwrap();
        let client = thread::spawn(move || Connection::<Option<Descriptor>, u8>::connect_tcp(address, &KEY).unwrap());
        let mut server = listener.accept_timeout::<u8, Option<Descriptor>>(LONG).unwrap();
        let mut client = client.join().unwrap();
        let error = client.send(&Some(std::io::pipe().unwrap().0.into())).unwrap_err();
        let expected = "a value of the type Option<Descriptor> cannot be sent over TCP: there is a descriptor in it";
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidInput, expected));
        client.send(&None).unwrap();
        assert!(server.recv().unwrap().is_none());
        // Large ones, both ways, over TCP.
        let (mut one, mut two) = (client.into_raw().unwrap(), server.into_raw().unwrap());
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|place| (place % 253) as u8).collect();
        let copy = bytes.clone();
        let writer = thread::spawn(move || one.send_bytes(&copy).map(|()| one));
        assert!(two.recv_bytes().unwrap() == bytes);
        drop(writer.join().unwrap().unwrap());
        assert_eq!(two.recv_bytes().unwrap_err().kind(), ErrorKind::Ended);
    });
}

#[test]
fn only_sockets_are_connections() {
    alone!({
        let file: OwnedFd = tempfile_of("x").into();
        let error = RawConnection::from_fd(file).unwrap_err();
        assert_eq!(error.to_string(), "the descriptor is no socket: Socket operation on non-socket");
        let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(text(Connection::<u8, u8>::from_fd(datagram.into())).contains("neither for a stream nor"));
    });
}

fn tempfile_of(content: &str) -> File {
    let scratch = Scratch::new();
    let mut file = File::options().read(true).write(true).create_new(true).open(scratch.join("file")).unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn random_bytes_are_an_error_and_nothing_else() {
    alone!({
        let mut random = 88172645463325252_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for round in 0..3000 {
            type Values = Vec<(String, Option<u32>)>;
            let (mut raw, ours) =
                if round % 3 == 0 { with_raw_packets::<u8, Values>() } else { with_raw::<u8, Values>() };
            let mut ours = ours.message_max(10_000);
            let mut bytes: Vec<u8> = (0..next() % 400).map(|_| next() as u8).collect();
            if round % 2 == 0 {
                bytes = [message(1, b"Vec<(String, Option<u32>)>"), message(2, &bytes)].concat();
            }
            if round % 3 == 0 && !bytes.is_empty() {
                // Cut somewhere, now and then where it should be.
                let at = if round % 2 == 0 { 16 + 26 } else { next() as usize % bytes.len() };
                let (one, two) = bytes.split_at(at.min(bytes.len()));
                raw.write_all(one).unwrap();
                raw.write_all(two).unwrap();
            } else {
                raw.write_all(&bytes).unwrap();
            }
            drop(raw);
            // However it goes, it comes to an end.
            assert!(ours.incoming().count() <= bytes.len() / 16 + 1);
        }
    });
}
