//! Messages from one process to another: one puts, one gets, both run. Messages of 64 bytes and of 4 KiB, as plain bytes, as values, and
//! many at a time, beside the crate ipc-channel, a pipe, and Python's multiprocessing. `--only 64` for one size.

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender};
use procession::ipc::{PacketReceiver, Queue, QueueReceiver, packet_queue};
use procession::{Child, Command, PipeReader, Stdio, pipe};
use procession_benches::{Contestant, Options, contestant, measure, report_rate};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// A value such as people send: as large as the message that it becomes, nearly.
#[derive(Clone, Serialize, Deserialize)]
struct Job {
    number: u64,
    text: String,
}

impl Job {
    fn new(size: usize) -> Job {
        Job { number: 300, text: "x".repeat(size - 3) }
    }
}

const BATCH: usize = 64;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let [_, role, way, size, count] = &words[..]
        && role == "get"
    {
        get(way, size.parse().unwrap(), count.parse().unwrap());
        return;
    }
    let options = Options::parse(7);
    for (size, count) in [(64, options.pick(200_000, 10_000)), (4096, options.pick(50_000, 5_000))] {
        run(&options, size, count);
    }
}

fn run(options: &Options, size: usize, count: usize) {
    let contestants = [ours(size, count), others(size, count), pythons(size, count)].into_iter().flatten().collect();
    let measured = measure(options, 1, contestants);
    let title = format!("{count} messages of {size} bytes, {} rounds", options.rounds);
    let references = ["pipe", "ipc-channel bytes", "ipc-channel typed", "py Pipe", "py Queue"];
    report_rate(&title, &measured, count as f64 / 1e6, "M messages", &references);
}

/// Whoever gets. It says a line when it has got all of a round.
struct Getter {
    child: Child,
    lines: BufReader<PipeReader>,
}

impl Getter {
    fn new(way: &str, size: usize, count: usize, give: impl FnOnce(Command) -> Command) -> Getter {
        let program = std::env::current_exe().unwrap();
        let command = Command::new(program).args(["get", way, &size.to_string(), &count.to_string()]);
        Getter::of(give(command.stdin(Stdio::null())))
    }

    fn of(command: Command) -> Getter {
        let mut child = command.stdout(Stdio::piped()).kill_on_drop().spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Getter { child, lines }
    }

    fn wait(&mut self) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n", "{}", self.child.id());
    }
}

/// Descriptor 3 is the end to get from.
fn inherited() -> OwnedFd {
    // SAFETY: whoever has started this program gave it descriptor 3, and nobody else takes it.
    unsafe { OwnedFd::from_raw_fd(3) }
}

fn third(fd: impl AsFd) -> impl FnOnce(Command) -> Command {
    let fd = Stdio::borrowed(fd);
    move |command| command.fd(3, fd)
}

/// When all is measured, those who put go first. Whoever waits for a round misses the line that does not come.
fn or_end<T, E>(got: Result<T, E>) -> T {
    got.unwrap_or_else(|_| std::process::exit(0))
}

fn get(way: &str, size: usize, count: usize) {
    let done = || {
        println!("done");
    };
    match way {
        "bytes" => {
            let (queue, mut message) = (QueueReceiver::<[u8]>::from_fd(inherited()).unwrap(), Vec::new());
            forever(done, count, || {
                or_end(queue.get_bytes(&mut message));
                assert_eq!(message.len(), size);
                1
            });
        }
        "bytes-batch" => {
            let queue = QueueReceiver::<[u8]>::from_fd(inherited()).unwrap();
            forever(done, count, || or_end(queue.get_bytes_many(BATCH, |message| assert_eq!(message.len(), size))));
        }
        "typed" => {
            let queue = QueueReceiver::<Job>::from_fd(inherited()).unwrap();
            forever(done, count, || {
                assert_eq!(or_end(queue.get()).text.len(), size - 3);
                1
            });
        }
        "typed-batch" => {
            let (queue, mut jobs) = (QueueReceiver::<Job>::from_fd(inherited()).unwrap(), Vec::new());
            forever(done, count, || {
                jobs.clear();
                let count = or_end(queue.get_many(&mut jobs, BATCH));
                assert!(jobs.iter().all(|job| job.text.len() == size - 3));
                count
            });
        }
        "packets" => {
            let (queue, mut message) = (PacketReceiver::from(inherited()), Vec::new());
            forever(done, count, || {
                or_end(queue.get(&mut message));
                1
            });
        }
        "pipe" => {
            let (mut reader, mut message) = (PipeReader::from(inherited()), vec![0; size]);
            forever(done, count, || {
                or_end(reader.read_exact(&mut message));
                1
            });
        }
        _ => foreign(way, size, count, done),
    }
}

fn foreign(way: &str, size: usize, count: usize, done: impl FnMut()) {
    let (way, name) = way.split_once('=').unwrap();
    if way == "ipc-bytes" {
        let (sender, receiver): (IpcBytesSender, IpcBytesReceiver) = ipc::bytes_channel().unwrap();
        IpcSender::connect(name.to_owned()).unwrap().send(sender).unwrap();
        forever(done, count, || {
            assert_eq!(or_end(receiver.recv()).len(), size);
            1
        });
    }
    let (sender, receiver): (IpcSender<Job>, IpcReceiver<Job>) = ipc::channel().unwrap();
    IpcSender::connect(name.to_owned()).unwrap().send(sender).unwrap();
    forever(done, count, || {
        assert_eq!(or_end(receiver.recv()).text.len(), size - 3);
        1
    });
}

/// Gets in rounds, until somebody kills this process.
fn forever(mut done: impl FnMut(), count: usize, mut get: impl FnMut() -> usize) -> ! {
    let mut got = 0;
    loop {
        got += get();
        if got >= count {
            assert_eq!(got, count);
            got = 0;
            done();
        }
    }
}

fn ours(size: usize, count: usize) -> Vec<Contestant<'static>> {
    let (message, job) = (vec![b'x'; size], Job::new(size));
    let messages = vec![message.clone(); BATCH];
    let bytes = Queue::<[u8]>::new().unwrap();
    let mut getter = Getter::new("bytes", size, count, third(&bytes));
    let one_by_one = {
        let message = message.clone();
        contestant("Queue bytes", move || {
            (0..count).for_each(|_| bytes.put_bytes(&message).unwrap());
            getter.wait();
        })
    };
    let batch = Queue::<[u8]>::new().unwrap();
    let mut getter = Getter::new("bytes-batch", size, count, third(&batch));
    let in_batches = contestant("Queue bytes, 64 at a time", move || {
        let mut left = count;
        while left > 0 {
            let some = left.min(BATCH);
            batch.put_bytes_all(&messages[..some]).unwrap();
            left -= some;
        }
        getter.wait();
    });
    let typed = Queue::<Job>::new().unwrap();
    let mut getter = Getter::new("typed", size, count, third(&typed));
    let typed = {
        let job = job.clone();
        contestant("Queue typed", move || {
            (0..count).for_each(|_| typed.put(job.clone()).unwrap());
            getter.wait();
        })
    };
    let typed_batch = Queue::<Job>::new().unwrap();
    let mut getter = Getter::new("typed-batch", size, count, third(&typed_batch));
    let typed_batch = contestant("Queue typed, many at a time", move || {
        assert_eq!(typed_batch.put_all(std::iter::repeat_n(job.clone(), count)).unwrap(), count);
        getter.wait();
    });
    let (sender, receiver) = packet_queue().unwrap();
    let mut getter = Getter::new("packets", size, count, third(&receiver));
    let packets = contestant("packet_queue", move || {
        (0..count).for_each(|_| sender.put(&message).unwrap());
        getter.wait();
    });
    vec![one_by_one, in_batches, typed, typed_batch, packets]
}

fn others(size: usize, count: usize) -> Vec<Contestant<'static>> {
    let (message, job) = (vec![b'x'; size], Job::new(size));
    let (reader, mut writer) = pipe().unwrap();
    let mut getter = Getter::new("pipe", size, count, third(&reader));
    let piped = {
        let message = message.clone();
        contestant("pipe", move || {
            (0..count).for_each(|_| writer.write_all(&message).unwrap());
            getter.wait();
        })
    };
    let (server, name) = IpcOneShotServer::<IpcBytesSender>::new().unwrap();
    let mut getter = Getter::new(&format!("ipc-bytes={name}"), size, count, |command| command);
    let (_, sender) = server.accept().unwrap();
    let bytes = contestant("ipc-channel bytes", move || {
        (0..count).for_each(|_| sender.send(&message).unwrap());
        getter.wait();
    });
    let (server, name) = IpcOneShotServer::<IpcSender<Job>>::new().unwrap();
    let mut getter = Getter::new(&format!("ipc-typed={name}"), size, count, |command| command);
    let (_, sender) = server.accept().unwrap();
    let typed = contestant("ipc-channel typed", move || {
        (0..count).for_each(|_| sender.send(job.clone()).unwrap());
        getter.wait();
    });
    vec![piped, bytes, typed]
}

/// Puts from one Python process to another each time it is told to.
const PYTHON: &str = r#"
import multiprocessing as mp, sys
kind, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if kind == "pipe":
    reader, writer = mp.Pipe(duplex=False)
    put, get = writer.send_bytes, reader.recv_bytes
else:
    queue = mp.Queue() if kind == "queue" else mp.SimpleQueue()
    put, get = queue.put, queue.get
done_reader, done_writer = mp.Pipe(duplex=False)
def getter():
    while True:
        for _ in range(count):
            assert len(get()) == size
        done_writer.send(0)
if __name__ == "__main__":
    mp.get_context("fork").Process(target=getter, daemon=True).start()
    message = b"x" * size
    for line in sys.stdin:
        for _ in range(count):
            put(message)
        done_reader.recv()
        print("done", flush=True)
"#;

fn pythons(size: usize, count: usize) -> Vec<Contestant<'static>> {
    if Command::new("python3").args(["-c", "import multiprocessing"]).status().is_err() {
        eprintln!("no python3: its rows are missing");
        return Vec::new();
    }
    let python = |name, kind: &str| {
        let command = Command::new("python3").args(["-c", PYTHON, kind, &size.to_string(), &count.to_string()]);
        let mut getter = Getter::of(command.stdin(Stdio::piped()));
        let mut stdin = getter.child.stdin.take().unwrap();
        contestant(name, move || {
            stdin.write_all(b"go\n").unwrap();
            getter.wait();
        })
    };
    vec![python("py Pipe", "pipe"), python("py SimpleQueue", "simple"), python("py Queue", "queue")]
}
