//! Queues between threads and processes: order, bounds, ends, and deaths at any moment.

use crate::support::{Scratch, alone, fixture};
use procession::ipc::{Descriptor, GetError, PutError, Queue, QueueReceiver, QueueSender};
use procession::{Child, Command, ErrorKind, Stdio};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// What the characters `queue-put` and `queue-get` send each other.
type Message = (u32, u32, Vec<u8>);

/// Far more than anything takes here.
const LONG: Duration = Duration::from_secs(30);
/// What somebody sees who does not wait long.
const SHORT: Duration = Duration::from_millis(20);

/// A character with a handle of a queue, and what it writes.
fn character(verb: &str, handle: &impl AsFd, arguments: &[u32]) -> Command {
    let number = handle.as_fd().as_raw_fd().to_string();
    let arguments = arguments.iter().map(u32::to_string);
    fixture(verb).arg(number).args(arguments).pass_fd(handle).stdin(Stdio::null()).stdout(Stdio::piped())
}

/// What a character has written: who, and which number.
fn records(child: &mut Child) -> Vec<(u32, u32)> {
    let mut bytes = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
    bytes.chunks_exact(8).map(|record| (word(&record[..4]), word(&record[4..]))).collect()
}

#[track_caller]
fn ends_with(child: &mut Child, code: i32) {
    let status = child.wait_timeout(LONG).unwrap().expect("it hangs");
    assert_eq!(status.code(), Some(code), "{status}");
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % limit
    }
}

// ---- messages

#[test]
fn four_put_and_four_get_in_the_order_of_each() {
    alone!({
        const EACH: u32 = 2000;
        let queue = Queue::<Message>::with_capacity(50, 4000).unwrap();
        let mut producers: Vec<_> =
            (0..4).map(|tag| character("queue-put", &queue, &[tag, EACH, 10 * tag]).spawn().unwrap()).collect();
        let mut consumers: Vec<_> = (0..4).map(|_| character("queue-get", &queue, &[]).spawn().unwrap()).collect();
        let read = |child: &mut Child| {
            let stdout = child.stdout.take().unwrap();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                std::io::BufReader::new(stdout).read_to_end(&mut bytes).unwrap();
                bytes
            })
        };
        let readers: Vec<_> = producers.iter_mut().chain(&mut consumers).map(read).collect();
        producers.iter_mut().for_each(|child| ends_with(child, 0));
        queue.close();
        consumers.iter_mut().for_each(|child| ends_with(child, 0));
        let mut seen: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let bytes: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        for taken in &bytes[4..] {
            let mut last: BTreeMap<u32, u32> = BTreeMap::new();
            for record in taken.chunks_exact(8) {
                let tag = u32::from_ne_bytes(record[..4].try_into().unwrap());
                let number = u32::from_ne_bytes(record[4..].try_into().unwrap());
                let before = last.insert(tag, number);
                assert!(before.is_none_or(|before| before < number), "{tag}: {number} after {before:?}");
                seen.entry(tag).or_default().push(number);
            }
        }
        for tag in 0..4 {
            let mut numbers = seen.remove(&tag).unwrap();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..EACH).collect::<Vec<_>>());
        }
        assert_eq!((queue.qsize(), queue.unfinished_tasks()), (0, 8000));
    });
}

#[test]
fn whatever_size_they_have_they_come_out_as_they_went_in() {
    alone!({
        let queue = Queue::<[u8]>::with_capacity(100, 4000).unwrap();
        let most = queue.message_size_max();
        assert_eq!(most, 4096 - 8);
        let sizes = |seed| {
            let mut dice = Dice(seed);
            std::iter::repeat_with(move || {
                let limit = if dice.below(20) == 0 { most as u64 + 1 } else { 90 };
                dice.below(limit) as usize
            })
        };
        let bytes = |number: usize, size: usize| vec![number as u8; size];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let messages = sizes(3).take(20_000).enumerate().map(|(number, size)| bytes(number, size));
                let messages: Vec<_> = messages.collect();
                for (place, some) in messages.chunks(7).enumerate() {
                    if place % 2 == 0 {
                        queue.put_bytes_all(some).unwrap();
                    } else {
                        some.iter().for_each(|message| queue.put_bytes(message).unwrap());
                    }
                }
                queue.close();
            });
            let mut expected = sizes(3).enumerate();
            let mut message = Vec::new();
            let mut check = |message: &[u8]| {
                let (number, size) = expected.next().unwrap();
                assert!(message.len() == size && message.iter().all(|byte| *byte == number as u8), "message {number}");
            };
            loop {
                let done = match queue.qsize() % 2 {
                    0 => queue.get_bytes_many(5, &mut check).map(drop),
                    _ => queue.get_bytes(&mut message).map(|()| check(&message)),
                };
                if let Err(error) = done {
                    assert!(error.is_closed(), "{error}");
                    break;
                }
            }
            assert_eq!(expected.next().unwrap().0, 20_000);
        });
    });
}

#[test]
fn one_byte_too_much_is_refused_before_anything_is_put() {
    alone!({
        let queue = Queue::<[u8]>::with_capacity(10, 1000).unwrap();
        let most = queue.message_size_max();
        queue.put_bytes(&vec![1; most]).unwrap();
        assert!(queue.is_full());
        let mut message = Vec::new();
        queue.get_bytes(&mut message).unwrap();
        assert_eq!(message.len(), most);
        match queue.put_bytes(&vec![1; most + 1]) {
            Err(PutError::TooLarge { size, size_max, .. }) => assert_eq!((size, size_max), (most + 1, most)),
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.qsize(), 0);
        match queue.put_bytes_all(&[vec![1; 3], vec![1; most + 1], vec![1; 3]]) {
            Err(PutError::TooLarge { item, .. }) => assert_eq!(item, 1),
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.qsize(), 1);
        for (items, bytes) in [(0, 10), (1, (1 << 30) - 7), (1, usize::MAX)] {
            let error = Queue::<u8>::with_capacity(items, bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        assert_eq!(Queue::<[u8]>::with_capacity(1, (1 << 30) - 8).unwrap().message_size_max(), (1 << 30) - 8);
    });
}

#[test]
fn what_cannot_be_sent_comes_back_and_what_is_none_is_said() {
    #[derive(Debug, Serialize, PartialEq)]
    struct Even(u32);
    impl<'de> Deserialize<'de> for Even {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Even, D::Error> {
            let number = u32::deserialize(deserializer)?;
            let odd = || serde::de::Error::custom("odd");
            Some(Even(number)).filter(|even| even.0 % 2 == 0).ok_or_else(odd)
        }
    }
    alone!({
        let queue = Queue::<(u32, Option<Descriptor>)>::new().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        match queue.put((1, Some(file.into()))) {
            Err(PutError::Encode { item: (1, Some(_)), error }) => {
                assert!(error.to_string().contains("a descriptor can only be"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        match queue.put_all([(1, None), (2, Some(file.into())), (3, None)]) {
            Err(PutError::Encode { item, .. }) => assert_eq!(item.len(), 1),
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.get_nowait().unwrap().0, 1);

        let numbers = Queue::<Even>::new().unwrap();
        numbers.put_all([0, 1, 2, 3, 4].map(Even)).unwrap();
        assert_eq!(numbers.get().unwrap(), Even(0));
        assert!(matches!(numbers.get(), Err(GetError::Decode(_))));
        let mut all = Vec::new();
        assert!(matches!(numbers.get_many(&mut all, 10), Err(GetError::Decode(_))));
        assert_eq!(all, [Even(2), Even(4)]);
        assert!(numbers.is_empty());
    });
}

#[test]
fn a_timeout_gives_the_item_back() {
    alone!({
        let queue = Queue::bounded(2).unwrap();
        assert_eq!(queue.capacity(), 2);
        assert!(matches!(queue.get_timeout(SHORT), Err(GetError::Empty)));
        assert_eq!(queue.put_all_timeout(["a", "b"].map(String::from), LONG).unwrap(), 2);
        let started = Instant::now();
        assert_eq!(queue.put_timeout("c".to_owned(), SHORT).unwrap_err().into_item(), "c");
        assert!(started.elapsed() >= SHORT);
        match queue.put_all_timeout(["d", "e"].map(String::from), SHORT) {
            Err(PutError::Full(items)) => assert_eq!(items, ["d", "e"]),
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.get().unwrap(), "a");
        // What finds no room is in the error, and what was not asked for is still in the iterator.
        let mut rest = (0..3000).map(|number| format!("{number}"));
        match queue.put_all_timeout(&mut rest, SHORT) {
            Err(error) => assert_eq!(error.into_item().first().unwrap(), "1"),
            Ok(count) => panic!("{count}"),
        }
        assert_eq!(rest.next().unwrap(), "1024");
        let mut items = Vec::new();
        assert_eq!(queue.get_many_timeout(&mut items, 10, LONG).unwrap(), 2);
        assert_eq!(items, ["b", "0"]);
    });
}

// ---- ends

#[test]
fn a_close_wakes_all_and_loses_nothing() {
    alone!({
        for round in 0..50 {
            let queue = Queue::bounded(4).unwrap();
            let (mut put, mut got) = (Vec::new(), Vec::new());
            std::thread::scope(|scope| {
                let putting = |tag: u32| {
                    let queue = &queue;
                    scope.spawn(move || {
                        let put = (0..).map(|number| (tag, number)).take_while(|item| match queue.put(*item) {
                            Ok(()) => true,
                            Err(PutError::Closed(back)) => {
                                assert_eq!(back, *item);
                                false
                            }
                            Err(error) => panic!("{error}"),
                        });
                        put.collect::<Vec<_>>()
                    })
                };
                let producers: Vec<_> = (0..3).map(putting).collect();
                let consumers: Vec<_> =
                    (0..2).map(|_| scope.spawn(|| queue.iter().collect::<Result<Vec<_>, _>>().unwrap())).collect();
                std::thread::sleep(Duration::from_micros(round * 40));
                queue.close();
                producers.into_iter().for_each(|thread| put.extend(thread.join().unwrap()));
                consumers.into_iter().for_each(|thread| got.extend(thread.join().unwrap()));
            });
            put.sort_unstable();
            got.sort_unstable();
            assert_eq!(put, got);
        }
    });
}

#[test]
fn a_close_wakes_other_processes_from_their_sleep() {
    alone!({
        let empty = Queue::<Message>::bounded(1).unwrap();
        let full = Queue::<Message>::bounded(1).unwrap();
        full.put((0, 0, vec![7])).unwrap();
        let mut getters: Vec<_> = (0..3).map(|_| character("queue-get", &empty, &[]).spawn().unwrap()).collect();
        let mut putters: Vec<_> = (0..3)
            .map(|tag| character("queue-put", &full, &[tag, 1]).stderr(Stdio::piped()).spawn().unwrap())
            .collect();
        for child in getters.iter().chain(&putters) {
            crate::support::wait_for("sleep on a word", || {
                std::fs::read_to_string(format!("/proc/{}/wchan", child.id()))
                    .is_ok_and(|place| place.contains("futex"))
                    || crate::support::state_of(child.id()) == Some('S')
            });
        }
        [&empty, &full].into_iter().for_each(Queue::close);
        getters.iter_mut().for_each(|child| ends_with(child, 0));
        for child in &mut putters {
            ends_with(child, 1);
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "fixture queue-put: the queue is closed\n");
        }
        assert!(full.is_closed() && full.put_nowait((1, 1, vec![])).unwrap_err().is_closed());
        assert_eq!(full.get().unwrap(), (0, 0, vec![7]));
        assert!(matches!(full.get(), Err(GetError::Closed)));
    });
}

#[test]
fn who_waits_is_told_when_nobody_is_left_on_the_other_side() {
    alone!({
        // The last one who puts ends in order, or is killed.
        for killed in [false, true] {
            let (sender, receiver) = Queue::<Message>::new().unwrap().split().unwrap();
            let count = if killed { u32::MAX } else { 3 };
            let mut child = character("queue-put", &sender, &[1, count]).stdout(Stdio::null()).spawn().unwrap();
            drop(sender);
            assert_eq!(receiver.get().unwrap().1, 0);
            if killed {
                child.kill().unwrap();
            }
            child.wait().unwrap();
            let end = loop {
                match receiver.get_timeout(LONG) {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(matches!(end, GetError::PeersGone), "{end:?}");
            assert!(matches!(receiver.get_nowait(), Err(GetError::PeersGone)));
            assert!(matches!(receiver.iter().next(), Some(Err(GetError::PeersGone))));
        }
        // The last one who gets.
        let (sender, receiver) = Queue::<Message>::bounded(1).unwrap().split().unwrap();
        let mut child = character("queue-get", &receiver, &[]).spawn().unwrap();
        drop(receiver);
        sender.put((0, 0, vec![])).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let end = std::iter::repeat_with(|| sender.put_timeout((0, 1, vec![]), LONG)).take(3).find_map(Result::err);
        assert!(matches!(end, Some(PutError::PeersGone((0, 1, _)))), "{end:?}");
        let error = sender.join().unwrap_err();
        assert!(error.kind() == ErrorKind::Ended && error.to_string().contains("nobody is left"), "{error}");
    });
}

#[test]
fn a_handle_on_its_way_counts() {
    alone!({
        let (sender, receiver) = Queue::<Message>::bounded(1).unwrap().split().unwrap();
        let hold = |command: Command| command.stdin(Stdio::piped()).spawn().unwrap();
        // It has the descriptor, and has not looked at it.
        let mut child = hold(character("queue-hold", &sender, &[]));
        drop(sender);
        for _ in 0..8 {
            assert!(matches!(receiver.get_timeout(SHORT * 2), Err(GetError::Empty)));
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(matches!(receiver.get_timeout(LONG), Err(GetError::PeersGone)));
        // A handle for both, handed on by somebody who only holds the descriptor of it.
        let again = QueueSender::<Message>::from_fd(receiver.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert!(matches!(receiver.get_timeout(SHORT), Err(GetError::Empty)));
        again.put((1, 2, vec![])).unwrap();
        let copy = again.clone();
        drop(again);
        assert_eq!(receiver.get().unwrap(), (1, 2, vec![]));
        assert!(matches!(receiver.get_timeout(SHORT), Err(GetError::Empty)));
        drop(copy);
        assert!(matches!(receiver.get_nowait(), Err(GetError::PeersGone)));
    });
}

#[test]
fn join_waits_for_what_was_put_and_no_more() {
    alone!({
        let queue = Queue::new().unwrap();
        queue.join().unwrap();
        assert_eq!(queue.task_done().unwrap_err().kind(), ErrorKind::InvalidInput);
        queue.put_all(0..100).unwrap();
        assert_eq!(queue.join_timeout(SHORT).unwrap_err().kind(), ErrorKind::Timeout);
        // Nothing was taken yet.
        assert_eq!(queue.task_done().unwrap_err().kind(), ErrorKind::InvalidInput);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for item in queue.iter() {
                        item.unwrap();
                        queue.task_done().unwrap();
                    }
                });
            }
            queue.join().unwrap();
            assert_eq!(queue.unfinished_tasks(), 0);
            queue.put(100).unwrap();
            queue.join_timeout(LONG).unwrap();
            queue.close();
        });
        assert!(queue.task_done().is_err());
    });
}

#[test]
fn other_descriptors_and_other_queues_are_refused() {
    alone!({
        let refused = |file: std::os::fd::OwnedFd| {
            let error = Queue::<u32>::from_fd(file).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            error.to_string()
        };
        let copy = |file: &dyn AsFd| file.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(refused(std::io::pipe().unwrap().0.into()), "this is no queue: the descriptor is no shared memory");
        let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert_eq!(refused(socket.into()), "this is no queue: the descriptor is no shared memory");
        let other = Queue::<Message>::new().unwrap();
        assert_eq!(refused(copy(&other)), "this is a queue of \"(u32, u32, Vec<u8>)\" and not of \"u32\"");
        assert!(Queue::<u32>::from_fd(copy(&Queue::<u32>::new().unwrap())).is_ok());
        assert!(QueueReceiver::<Message>::from_fd(copy(&other.sender().unwrap())).is_ok());
        assert!(serde_json::to_string(&other).is_err());
    });
}

// ---- deaths

/// How often: as the variable says, or so often.
fn rounds(usual: u64) -> u64 {
    std::env::var("PROCESSION_TEST_KILLS").ok().map_or(usual, |rounds| rounds.parse().unwrap())
}

#[test]
fn whoever_is_killed_whenever_nothing_is_lost_and_nobody_hangs() {
    alone!({
        // SAFETY: an integer argument. Many rounds take longer than tests usually may.
        unsafe { libc::alarm(90 + rounds(300) as u32 / 5) };
        let mut dice = Dice(std::process::id().into());
        let mut counted = [0; 4];
        for round in 0..rounds(300) {
            let seed = dice.0;
            let counts = one_round_of_killing(&mut dice, round);
            counted.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            assert!(counts[1] >= 400, "seed {seed}");
        }
        let [victims, arrived, lost, unsaid] = counted;
        eprintln!("{victims} killed, {arrived} messages arrived, {lost} died with who took them, {unsaid} put unsaid");
        assert!(victims > 0);
    });
}

/// Two put and two get; one of each is killed. How many were killed, how many messages arrived, how many were lost with a taker, how
/// many came from a killed one that could not say so any more.
fn one_round_of_killing(dice: &mut Dice, round: u64) -> [usize; 4] {
    const EACH: u32 = 400;
    let queue = Queue::<Message>::with_capacity(if round.is_multiple_of(2) { 4 } else { 1000 }, 4000).unwrap();
    let mut producers = [0, 1].map(|tag| character("queue-put", &queue, &[tag, EACH, 1 + 40 * tag]).spawn().unwrap());
    let mut consumers = [0, 1].map(|_| character("queue-get", &queue, &[]).spawn().unwrap());
    let mut moments = [dice.below(6_000), dice.below(6_000)];
    let started = Instant::now();
    moments.sort_unstable();
    let first = dice.below(2) as usize;
    for (moment, is_consumer) in moments.into_iter().zip([first == 0, first == 1]) {
        while started.elapsed() < Duration::from_micros(moment) {
            std::hint::spin_loop();
        }
        let victim = if is_consumer { &mut consumers[1] } else { &mut producers[1] };
        victim.kill().unwrap();
    }
    ends_with(&mut producers[0], 0);
    queue.close();
    ends_with(&mut consumers[0], 0);
    let count = |records: Vec<(u32, u32)>| {
        let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        records.into_iter().for_each(|record| *counts.entry(record).or_default() += 1);
        counts
    };
    let mut victims = 0;
    for victim in [&mut producers[1], &mut consumers[1]] {
        victims += usize::from(victim.wait_timeout(LONG).unwrap().expect("it hangs").signal().is_some());
    }
    let said = count(producers.iter_mut().flat_map(records).collect());
    let arrived = count(consumers.iter_mut().flat_map(records).collect());
    assert!(said.values().chain(arrived.values()).all(|count| *count == 1), "one came twice");
    assert_eq!(queue.qsize(), 0);
    let lost = said.keys().filter(|key| !arrived.contains_key(key)).count();
    let unsaid = arrived.keys().filter(|key| !said.contains_key(key)).count();
    // Each of the killed can have had one in its hands.
    assert!(lost <= 1 && unsaid <= 1, "{lost} lost, {unsaid} unsaid");
    [victims, arrived.len() + lost, lost, unsaid]
}

/// Runs a program up to every so-manieth instruction of a put or a get, kills it there, and looks at what it has left.
#[test]
fn whichever_instruction_is_its_last_the_queue_goes_on() {
    alone!({
        for what in ["put", "get"] {
            let Some(all) = killed_after(what, u64::MAX) else {
                eprintln!("skipped: no process can be traced here");
                return;
            };
            let samples = rounds(10).clamp(2, all);
            let mut done = 0;
            for sample in 0..samples {
                // The ends too, and different ones each time between.
                let steps = all * sample / (samples - 1).max(1) + u64::from(std::process::id()) % 7;
                done += u64::from(killed_after(what, steps).is_some());
            }
            eprintln!("{what}: {samples} deaths within {all} instructions, {done} after the end");
            assert!(all > 100 && done < samples, "{all} {done}");
        }
    });
}

/// Kills it after so many instructions. How many it took, if it was at the end before.
fn killed_after(what: &str, steps: u64) -> Option<u64> {
    // So that what it puts or gets wraps around in a ring of 512 units: 4 for the first message, 6 for each of the others.
    let queue = Queue::<[u8]>::with_capacity(8, 4000).unwrap();
    let (mut message, before) = (Vec::new(), if what == "put" { 81 } else { 84 });
    for place in 0..=before {
        queue.put_bytes(&[0; 40][..if place == 0 { 24 } else { 40 }]).unwrap();
        queue.get_bytes(&mut message).unwrap();
        queue.task_done().unwrap();
    }
    queue.put_bytes_all(&[[1; 40], [2; 40], [3; 40]]).unwrap();
    let number = queue.as_fd().as_raw_fd().to_string();
    let mut child = fixture("queue-step").args([number.as_str(), what]).pass_fd(&queue).spawn().unwrap();
    let stepped = step(child.id() as i32, steps);
    child.kill().unwrap();
    child.wait().unwrap();
    let (count, at_end) = stepped?;

    let context = format!("{what}, killed after {count} instructions");
    let left = queue.qsize();
    let (before, after) = if what == "put" { (3, 4) } else { (3, 2) };
    assert!(left == after || left == before && !at_end, "{context}: {left}");
    let unfinished = if what == "put" { left } else { 3 };
    assert_eq!(queue.unfinished_tasks(), unfinished, "{context}");
    queue.put_bytes_timeout(&[4; 40], LONG).unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut got = Vec::new();
    let show = |message: &[u8]| {
        assert!(message.len() == 40 && message.iter().all(|byte| *byte == message[0]), "{context}: torn");
        got.push(message[0]);
    };
    queue.get_bytes_many_timeout(10, LONG, show).unwrap_or_else(|error| panic!("{context}: {error}"));
    let expected: &[u8] = match left {
        4 => &[1, 2, 3, 9, 4],
        3 => &[1, 2, 3, 4],
        _ => &[2, 3, 4],
    };
    assert_eq!(got, expected, "{context}");
    at_end.then_some(count)
}

/// Lets a process that stops for its tracer do so many instructions. How many it were, and whether it has stopped again by itself.
fn step(pid: i32, steps: u64) -> Option<(u64, bool)> {
    let stopped = || {
        let mut status = 0;
        // SAFETY: the pointer is valid; the child is ours and nobody else waits for it now.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) }, pid);
        libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status))
    };
    if stopped() != Some(libc::SIGSTOP) {
        return None;
    }
    for count in 0..steps {
        // SAFETY: no pointers; the child is stopped and traced by this thread.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0) }, 0);
        match stopped() {
            Some(libc::SIGTRAP) => {}
            Some(libc::SIGSTOP) => return Some((count + 1, true)),
            other => panic!("after {count} instructions: {other:?}"),
        }
    }
    Some((steps, false))
}

#[test]
fn a_killed_sleeper_takes_no_wake_with_it() {
    alone!({
        let queue = Queue::<Message>::new().unwrap();
        for _ in 0..20 {
            let mut sleepers: Vec<_> = (0..3).map(|_| character("queue-get", &queue, &[]).spawn().unwrap()).collect();
            for child in &sleepers {
                crate::support::wait_for("sleep", || crate::support::state_of(child.id()) == Some('S'));
            }
            sleepers[0].kill().unwrap();
            queue.put((1, 1, vec![7])).unwrap();
            sleepers[1].kill().unwrap();
            crate::support::wait_for("the message to be taken", || queue.is_empty());
            sleepers[2].kill().unwrap();
            for child in &mut sleepers {
                child.wait().unwrap();
            }
        }
    });
}

// ---- cost

/// Without a ring everything would come about too, but only when those who sleep look for themselves, ten times a second.
#[test]
fn who_sleeps_is_woken_at_once() {
    alone!({
        const TURNS: u32 = 600;
        let [there, back] = [1, 1].map(|items| Queue::bounded(items).unwrap());
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| there.iter().for_each(|number| back.put(number.unwrap()).unwrap()));
            for number in 0..TURNS {
                // So that the other one sleeps.
                std::thread::sleep(Duration::from_micros(100));
                there.put(number).unwrap();
                assert_eq!(back.get().unwrap(), number);
            }
            // And now the other one waits for room.
            scope.spawn(|| (0..TURNS).for_each(|number| there.put(number).unwrap()));
            for number in 0..TURNS {
                std::thread::sleep(Duration::from_micros(100));
                assert_eq!(back.get().unwrap(), number);
            }
            there.close();
        });
        let time = started.elapsed();
        assert!(time < Duration::from_secs(20), "{time:?}");
    });
}

/// What two processes ask of the system while both of them run.
#[test]
fn messages_cost_no_system_calls() {
    alone!({
        const COUNT: u32 = 200_000;
        let scratch = Scratch::new();
        let queue = Queue::<[u8]>::new().unwrap();
        let number = queue.as_fd().as_raw_fd().to_string();
        let straced = |what: &str| {
            let file = scratch.join(what);
            let command = Command::new("strace").args(["-f", "-c", "-U", "name,calls", "-o"]).arg(&file);
            let command = command.arg(crate::support::fixture_path()).args(["queue-bytes", &number]);
            command.args([COUNT.to_string().as_str(), what]).pass_fd(&queue).stdout(Stdio::null()).spawn()
        };
        let (Ok(mut one), Ok(mut two)) = (straced("put"), straced("get")) else {
            eprintln!("skipped: no strace");
            return;
        };
        if !(one.wait().unwrap().success() && two.wait().unwrap().success()) {
            eprintln!("skipped: strace does not work here");
            return;
        }
        let mut total = 0;
        for what in ["put", "get"] {
            let text = std::fs::read_to_string(scratch.join(what)).unwrap();
            let line = text.lines().find(|line| line.contains("total")).unwrap();
            total += line.split_ascii_whitespace().find_map(|word| word.parse::<u32>().ok()).unwrap();
        }
        let each = f64::from(total) / f64::from(COUNT);
        eprintln!("{each} system calls for each message");
        assert!(each < 0.05, "{total} system calls for {COUNT} messages");
    });
}
