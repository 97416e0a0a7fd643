//! How fast do messages go from one process to another and back? Round trips, one at a time, and throughput, one way with a word of thanks at the
//! end. The peer is a process of its own for everybody, started before the first round.

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender};
use procession::ipc::{Connection, RawConnection};
use procession::{Child, Command, Stdio};
use procession_benches::{Contestant, Options, contestant, measure, report_rate};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The first byte of a message says what the peer does: sends it back, nothing, or says one byte.
const ECHO: u8 = b'e';
const SINK: u8 = b's';
const THANKS: u8 = b't';

type Message = (u8, String);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, kind, name] = words.as_slice()
        && word == "peer"
    {
        return peer(kind, name);
    }
    let options = Options::parse(9);
    for (size, trips, count) in [(64, 20_000, 200_000), (4096, 20_000, 100_000), (1 << 20, 400, 1_000)] {
        let (trips, count) = (options.pick(trips, trips / 20), options.pick(count, count / 20));
        let references = ["UnixStream, length and bytes", "ipc-channel, bytes", "Python Pipe, bytes"];
        let title = format!("{trips} round trips of {size} bytes, {} rounds", options.rounds);
        report_rate(
            &title,
            &measure(&options, 1, contestants(size, trips, true)),
            trips as f64 / 1e6,
            "M",
            &references,
        );
        let title = format!("{count} messages of {size} bytes one way, {} rounds", options.rounds);
        report_rate(
            &title,
            &measure(&options, 1, contestants(size, count, false)),
            count as f64 / 1e6,
            "M",
            &references,
        );
    }
}

fn contestants(size: usize, count: usize, trips: bool) -> Vec<Contestant<'static>> {
    let bytes = move |first: u8| {
        let mut bytes = vec![7; size];
        bytes[0] = first;
        bytes
    };
    let value = move |first: u8| (first, "x".repeat(size - 1));
    let work = move |exchange: &mut dyn FnMut(u8, bool)| {
        if trips {
            (0..count).for_each(|_| exchange(ECHO, true));
        } else {
            (1..count).for_each(|_| exchange(SINK, false));
            exchange(THANKS, true);
        }
    };
    let pick = |first: u8| {
        if first == ECHO {
            0
        } else if first == SINK {
            1
        } else {
            2
        }
    };
    // Made once: what is measured is the way, not the making.
    let raw = [ECHO, SINK, THANKS].map(bytes);
    let values = [ECHO, SINK, THANKS].map(value);

    let (ours, theirs) = RawConnection::pair().unwrap();
    let peer_raw = start("raw", "-", Some(Stdio::borrowed(&theirs)));
    drop(theirs);
    let state = RefCell::new((ours, Vec::new(), peer_raw));
    let messages = raw.clone();
    let procession_raw = contestant("procession, bytes", move || {
        let (connection, buffer, _) = &mut *state.borrow_mut();
        work(&mut |first, answered| {
            connection.send_bytes(&messages[pick(first)]).unwrap();
            if answered {
                connection.recv_bytes_into(buffer).unwrap();
            }
        });
    });

    let (ours, theirs) = Connection::<Message, Message>::pair().unwrap();
    let peer_typed = start("typed", "-", Some(Stdio::borrowed(&theirs)));
    drop(theirs);
    let state = RefCell::new((ours, peer_typed));
    let messages = values.clone();
    let procession_typed = contestant("procession, values", move || {
        let (connection, _) = &mut *state.borrow_mut();
        work(&mut |first, answered| {
            connection.send(&messages[pick(first)]).unwrap();
            if answered {
                connection.recv().unwrap();
            }
        });
    });

    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer_stream = start("stream", "-", Some(Stdio::borrowed(&theirs)));
    drop(theirs);
    let state = RefCell::new((ours, Vec::new(), peer_stream));
    let messages = raw.clone();
    let stream = contestant("UnixStream, length and bytes", move || {
        let (stream, buffer, _) = &mut *state.borrow_mut();
        work(&mut |first, answered| {
            write_message(stream, &messages[pick(first)]);
            if answered {
                read_message(stream, buffer).unwrap();
            }
        });
    });

    let (server, name) = IpcOneShotServer::<(IpcBytesSender, IpcBytesReceiver)>::new().unwrap();
    let peer_bytes = start("ipc-bytes", &name, None);
    let (_, (sender, receiver)) = server.accept().unwrap();
    let messages = raw;
    let ipc_bytes = contestant("ipc-channel, bytes", move || {
        let _ = &peer_bytes;
        work(&mut |first, answered| {
            sender.send(&messages[pick(first)]).unwrap();
            if answered {
                receiver.recv().unwrap();
            }
        });
    });

    let (server, name) = IpcOneShotServer::<(IpcSender<Message>, IpcReceiver<Message>)>::new().unwrap();
    let peer_values = start("ipc-values", &name, None);
    let (_, (sender, receiver)) = server.accept().unwrap();
    let messages = values;
    let ipc_values = contestant("ipc-channel, values", move || {
        let _ = &peer_values;
        work(&mut |first, answered| {
            // It takes values, so there is one to be made for each.
            sender.send(messages[pick(first)].clone()).unwrap();
            if answered {
                receiver.recv().unwrap();
            }
        });
    });

    let mut python =
        Command::new("python3").args(["-c", PYTHON]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, from) = (python.stdin.take().unwrap(), python.stdout.take().unwrap());
    let mut from = BufReader::new(from);
    let python = contestant("Python Pipe, bytes", move || {
        let _ = &python;
        writeln!(to, "{} {size} {count}", u8::from(trips)).unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    });

    vec![procession_raw, procession_typed, stream, ipc_bytes, ipc_values, python]
}

/// Ends when its end of the connection does.
fn start(kind: &str, name: &str, descriptor: Option<Stdio>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap()).args(["peer", kind, name]);
    if let Some(descriptor) = descriptor {
        command = command.fd(3, descriptor);
    }
    command.stderr(Stdio::inherit()).stdout(Stdio::inherit()).spawn().unwrap()
}

fn peer(kind: &str, name: &str) {
    // SAFETY: the parent passes it, and nobody else here has it.
    let passed = || unsafe { OwnedFd::from_raw_fd(3) };
    match kind {
        "raw" => {
            let (mut connection, mut buffer) = (RawConnection::from_fd(passed()).unwrap(), Vec::new());
            while connection.recv_bytes_into(&mut buffer).is_ok() {
                if let Some(answer) = answer(&buffer) {
                    connection.send_bytes(answer).unwrap();
                }
            }
        }
        "typed" => {
            let mut connection = Connection::<Message, Message>::from_fd(passed()).unwrap();
            while let Ok((first, text)) = connection.recv() {
                match first {
                    ECHO => connection.send(&(first, text)).unwrap(),
                    THANKS => connection.send(&(first, String::new())).unwrap(),
                    _ => {}
                }
            }
        }
        "stream" => {
            let (mut stream, mut buffer) = (UnixStream::from(passed()), Vec::new());
            while read_message(&mut stream, &mut buffer).is_some() {
                if let Some(answer) = answer(&buffer) {
                    write_message(&mut stream, answer);
                }
            }
        }
        "ipc-bytes" => {
            let (to_us, from_them) = ipc::bytes_channel().unwrap();
            let (to_them, from_us) = ipc::bytes_channel().unwrap();
            IpcSender::connect(name.to_owned()).unwrap().send((to_us, from_us)).unwrap();
            while let Ok(message) = from_them.recv() {
                if let Some(answer) = answer(&message) {
                    to_them.send(answer).unwrap();
                }
            }
        }
        _ => {
            let (to_us, from_them) = ipc::channel::<Message>().unwrap();
            let (to_them, from_us) = ipc::channel::<Message>().unwrap();
            IpcSender::connect(name.to_owned()).unwrap().send((to_us, from_us)).unwrap();
            while let Ok((first, text)) = from_them.recv() {
                match first {
                    ECHO => to_them.send((first, text)).unwrap(),
                    THANKS => to_them.send((first, String::new())).unwrap(),
                    _ => {}
                }
            }
        }
    }
}

fn answer(message: &[u8]) -> Option<&[u8]> {
    match message.first() {
        Some(&ECHO) => Some(message),
        Some(&THANKS) => Some(&message[..1]),
        _ => None,
    }
}

/// As one would write it: eight bytes of length, the message, in one call if the kernel takes them.
fn write_message(stream: &mut UnixStream, bytes: &[u8]) {
    let length = (bytes.len() as u64).to_le_bytes();
    let sent = stream.write_vectored(&[IoSlice::new(&length), IoSlice::new(bytes)]).unwrap();
    if sent < length.len() + bytes.len() {
        stream.write_all(&bytes[sent - length.len()..]).unwrap();
    }
}

fn read_message(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut length = [0; 8];
    stream.read_exact(&mut length).ok()?;
    buffer.resize(u64::from_le_bytes(length) as usize, 0);
    stream.read_exact(buffer).ok()
}

const PYTHON: &str = r#"
import sys
from multiprocessing import Pipe, Process

def peer(connection):
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        if message[0] == 101:
            connection.send_bytes(message)
        elif message[0] == 116:
            connection.send_bytes(message[:1])

ours, theirs = Pipe()
process = Process(target=peer, args=(theirs,), daemon=True)
process.start()
theirs.close()
for line in sys.stdin:
    trips, size, count = map(int, line.split())
    rest = b"x" * (size - 1)
    if trips:
        message = b"e" + rest
        for _ in range(count):
            ours.send_bytes(message)
            ours.recv_bytes()
    else:
        message = b"s" + rest
        for _ in range(count - 1):
            ours.send_bytes(message)
        ours.send_bytes(b"t" + rest)
        ours.recv_bytes()
    print("done", flush=True)
"#;
