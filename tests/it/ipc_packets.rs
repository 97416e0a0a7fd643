//! Packet queues: one write is one message, for shells and others, and what becomes of messages when somebody is killed.

use crate::support::{alone, wait_for};
use procession::ipc::{GetError, PacketReceiver, PacketSender, PutError, packet_queue};
use procession::{Command, Stdio};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

/// Reads messages from descriptor 3 until the end and writes each to descriptor 4, with its name before it.
const WORKER: &str = r#"while message=$(dd bs=65536 count=1 <&3 2>/dev/null) && [ -n "$message" ]; do printf '%s %s' "$0" "$message" >&4; done"#;

fn all(receiver: &PacketReceiver) -> Vec<String> {
    receiver.iter().map(|message| String::from_utf8(message.unwrap()).unwrap()).collect()
}

#[test]
fn shells_put_and_get_and_every_message_arrives_once() {
    alone!({
        let (jobs, workers_jobs) = packet_queue().unwrap();
        let (workers_results, results) = packet_queue().unwrap();
        let worker = |name: &str, jobs, results| {
            let command = Command::new("sh").args(["-c", WORKER, name]).fd(3, jobs).fd(4, results);
            command.spawn().unwrap()
        };
        let copy = (workers_jobs.try_clone().unwrap(), workers_results.try_clone().unwrap());
        let mut workers = [worker("one", copy.0, copy.1), worker("two", workers_jobs, workers_results)];
        let producer = "i=0; while [ $i -lt 100 ]; do printf 'job %s\n' $i >&3; i=$((i + 1)); done";
        let mut producer = Command::shell(producer).fd(3, jobs).spawn().unwrap();
        let mut lines = all(&results);
        assert!(producer.wait().unwrap().success());
        for worker in &mut workers {
            worker.wait().unwrap();
        }
        let by = |name: &str| lines.iter().filter(|line| line.starts_with(name)).count();
        eprintln!("{} jobs by one, {} by two", by("one"), by("two"));
        assert_eq!(by("one") + by("two"), 100);
        lines.iter_mut().for_each(|line| *line = line[4..].to_owned());
        lines.sort_by_key(|line| line[4..].parse::<u32>().unwrap());
        assert_eq!(lines, (0..100).map(|number| format!("job {number}")).collect::<Vec<_>>());
    });
}

#[test]
fn python_reads_and_writes_by_number() {
    alone!({
        let (jobs, theirs) = packet_queue().unwrap();
        let (their_results, results) = packet_queue().unwrap();
        let text = "import os\nwhile True:\n m = os.read(3, 65536)\n if not m: break\n os.write(4, m.upper())";
        let Ok(mut python) = Command::new("python3").args(["-c", text]).fd(3, theirs).fd(4, their_results).spawn()
        else {
            eprintln!("skipped: no python3");
            return;
        };
        let put = |text: &str| jobs.put(text.as_bytes()).unwrap();
        ["one", "two\nlines", &"x".repeat(65_536)].into_iter().for_each(put);
        drop(jobs);
        assert_eq!(all(&results), ["ONE", "TWO\nLINES", &"X".repeat(65_536)]);
        assert!(python.wait().unwrap().success());
    });
}

#[test]
fn ends_and_sizes_are_told() {
    alone!({
        let (sender, receiver) = packet_queue().unwrap();
        let mut message = Vec::new();
        assert!(matches!(receiver.get_timeout(&mut message, SHORT), Err(GetError::Empty)));
        assert!(matches!(sender.put(b""), Err(PutError::Encode { .. })));
        match sender.put(&[0; 65_537]) {
            Err(PutError::TooLarge { size: 65_537, size_max: 65_536, .. }) => {}
            other => panic!("{other:?}"),
        }
        sender.put(&[7; 65_536]).unwrap();
        receiver.get(&mut message).unwrap();
        assert_eq!(message, [7; 65_536]);
        // Somebody who does not know the limit. What comes behind is as it was put.
        let raw: OwnedFd = sender.as_fd().try_clone_to_owned().unwrap();
        nix::unistd::write(&raw, &[0; 70_000]).unwrap();
        sender.put(b"behind").unwrap();
        assert!(matches!(receiver.get(&mut message), Err(GetError::Decode(_))));
        receiver.get_nowait(&mut message).unwrap();
        assert_eq!(message, b"behind");
        // Full, and again not.
        let count = std::iter::repeat_with(|| sender.put_nowait(&[1; 1000])).take_while(Result::is_ok).count();
        assert!(sender.put_timeout(&[1; 1000], SHORT).unwrap_err().is_full());
        for _ in 0..count {
            receiver.get_timeout(&mut message, LONG).unwrap();
        }
        sender.put(b"last").unwrap();
        let again = PacketSender::from(OwnedFd::from(sender));
        drop((again, raw));
        assert_eq!(all(&receiver), ["last"]);
        assert!(matches!(receiver.get_nowait(&mut message), Err(GetError::Closed)));
        // The other way round, with a message that nobody will get.
        let (sender, receiver) = packet_queue().unwrap();
        sender.put(b"lost").unwrap();
        drop(receiver);
        assert!(matches!(sender.put(b"more"), Err(PutError::PeersGone(()))));
        assert!(matches!(sender.put_nowait(b"more"), Err(PutError::PeersGone(()))));
    });
}

#[test]
fn killed_writers_and_readers_tear_nothing() {
    alone!({
        let (jobs, theirs) = packet_queue().unwrap();
        let flood = "while printf '%0999d' 7 >&3; do :; done";
        let mut writers: Vec<_> = (0..3)
            .map(|_| Command::shell(flood).fd(3, Stdio::borrowed(&jobs)).stderr(Stdio::null()).spawn().unwrap())
            .collect();
        let mut reader = Command::shell("while dd bs=65536 count=1 <&3; do :; done")
            .fd(3, Stdio::borrowed(&theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        drop(jobs);
        let (expected, mut message) = (format!("{:0999}", 7), Vec::new());
        for round in 0..300 {
            theirs.get_timeout(&mut message, LONG).unwrap();
            assert_eq!(message, expected.as_bytes());
            if round % 100 == 0 {
                let mut victim = writers.pop().unwrap();
                victim.kill().unwrap();
                victim.wait().unwrap();
            }
            if round == 250 || writers.is_empty() {
                break;
            }
        }
        reader.kill().unwrap();
        reader.wait().unwrap();
        for writer in &mut writers {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        wait_for("the end of what is there", || {
            let got = theirs.get_timeout(&mut message, LONG);
            assert!(got.is_err() || message == expected.as_bytes());
            matches!(got, Err(GetError::Closed))
        });
    });
}
