//! What processes share: locks, semaphores, events, conditions, barriers, values and memory, and what is left of them when a party is killed.

use crate::support::{Scratch, alone, fixture, fixture_path, is_root, kills, wait_for};
use crate::talk::line;
use procession::ipc::{
    Array, Barrier, BrokenBarrier, Condition, Event, Lock, Semaphore, SharedMemory, TryLockError, Value,
};
use procession::{Child, ChildSet, Command, News, Stdio};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Far more than anybody needs, and an end to what hangs.
const BOUND: Duration = Duration::from_secs(20);

/// A number below `end`, another one each time.
fn random(end: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() % end
}

/// Gives descriptors to a command, and says their numbers in its arguments.
fn with_fds(command: Command, fds: &[BorrowedFd<'_>]) -> Command {
    fds.iter().fold(command, |command, fd| command.pass_fd(fd).arg(fd.as_raw_fd().to_string()))
}

fn start(command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).kill_on_drop().spawn().unwrap();
    assert_eq!(line(child.stdout.as_mut().unwrap()), "ready");
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A lock, and two counters that are the same whenever nobody holds it.
struct Pairs {
    lock: Lock,
    one: Value<u64>,
    two: Value<u64>,
    stop: Event,
}

impl Pairs {
    fn new() -> Pairs {
        let (one, two) = (Value::new(0).unwrap(), Value::new(0).unwrap());
        Pairs { lock: Lock::new().unwrap(), one, two, stop: Event::new().unwrap() }
    }

    fn counting(&self, command: Command) -> Child {
        let [memory, bell] = self.stop.as_fds();
        start(with_fds(command, &[self.lock.as_fd(), self.one.as_fd(), self.two.as_fd(), memory, bell]))
    }

    /// Looks, and repairs if it was told to. Whether it was.
    fn check(&self) -> bool {
        match self.lock.lock_timeout(BOUND) {
            Ok(_guard) => {
                assert_eq!(self.one.get(), self.two.get(), "torn, and not told");
                false
            }
            Err(TryLockError::OwnerDied(died)) => {
                let _guard = died.into_inner();
                self.two.set(self.one.get());
                true
            }
            Err(TryLockError::WouldBlock) => panic!("the lock hangs"),
        }
    }
}

#[test]
fn whoever_is_killed_with_the_lock_the_others_go_on() {
    alone!({
        let pairs = Pairs::new();
        let mut survivor = pairs.counting(fixture("ipc-pairs"));
        let mut told = 0;
        for _ in 0..kills(200) {
            let victim = pairs.counting(fixture("ipc-pairs"));
            std::thread::sleep(Duration::from_micros(random(2000)));
            kill(victim);
            told += u32::from(pairs.check());
        }
        pairs.stop.set();
        assert!(survivor.wait_timeout(BOUND).unwrap().is_some_and(|status| status.success()));
        let rounds = pairs.one.get();
        eprintln!("{told} times told here, {rounds} rounds");
        assert!(rounds > 0);
        pairs.check();
        assert!(!pairs.check() && !pairs.lock.is_locked());
    });
}

/// Without anybody else, so that whatever death left is told here.
#[test]
fn the_next_holder_is_told_of_a_death() {
    alone!({
        let pairs = Pairs::new();
        let mut told = 0;
        // Nearly always the lock is held.
        for _ in 0..1000 {
            let victim = pairs.counting(fixture("ipc-pairs"));
            kill(victim);
            if pairs.check() {
                told += 1;
            }
            assert!(!pairs.check(), "told twice");
            if told == 3 {
                return;
            }
        }
        panic!("{told} times told");
    });
}

#[test]
fn permits_of_the_dead_come_back_once() {
    alone!({
        const PERMITS: u32 = 3;
        let permits = Semaphore::bounded(PERMITS).unwrap();
        let worker = |at_once: &str| start(with_fds(fixture("ipc-permits"), &permits.as_fds()).arg(at_once));
        for round in 0..kills(50) {
            let (one, two) = (worker("1"), worker("2"));
            std::thread::sleep(Duration::from_micros(random(1500)));
            kill(one);
            // The other one lives, and goes on.
            drop(permits.acquire_timeout(BOUND).expect("no permit comes back"));
            kill(two);
            let all: Vec<_> = (0..PERMITS).map_while(|_| permits.acquire_timeout(BOUND)).collect();
            assert_eq!(all.len(), PERMITS as usize, "round {round}: lost");
            assert!(permits.try_acquire().is_none(), "round {round}: doubled");
            drop(all);
            assert_eq!(permits.value(), PERMITS);
        }
    });
}

#[test]
fn a_permit_of_the_dead_comes_back_within_a_second() {
    alone!({
        let permits = Semaphore::new(1).unwrap();
        let holder = start(with_fds(fixture("ipc-permit"), &permits.as_fds()));
        assert!(permits.try_acquire().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(permits.acquire_timeout(BOUND).expect("no permit")));
            kill(holder);
            let killed = Instant::now();
            waiting.join().unwrap();
            assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
        });
        // And at once for those who ask.
        kill(start(with_fds(fixture("ipc-permit"), &permits.as_fds())));
        assert!(permits.try_acquire().is_some());
        kill(start(with_fds(fixture("ipc-permit"), &permits.as_fds())));
        assert_eq!(permits.value(), 1);
        // What is kept for good is not given back.
        permits.acquire().forget();
        assert_eq!(permits.value(), 0);
        permits.release(1).unwrap();
        assert_eq!(permits.value(), 1);
    });
}

#[test]
fn a_semaphore_counts() {
    alone!({
        let permits = Semaphore::bounded(2).unwrap();
        let (one, two) = (permits.acquire(), permits.acquire_timeout(BOUND).unwrap());
        assert!(permits.acquire_timeout(Duration::from_millis(10)).is_none());
        let text = permits.release(1).unwrap_err().to_string();
        assert_eq!(text, "1 more permits would make 3, and there may be 2");
        // One that was forgotten can be made anew, by anybody.
        one.forget();
        permits.release(1).unwrap();
        assert!(permits.release(1).is_err());
        assert_eq!(permits.value(), 1);
        drop(two);
        assert_eq!(permits.value(), 2);
        let many = Semaphore::new(i32::MAX as u32).unwrap();
        assert!(many.release(u32::MAX).is_err() && Semaphore::new(u32::MAX).is_err());
        let one_at_a_time = Semaphore::new(1).unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);
        let work = || {
            for _ in 0..2000 {
                let _permit = one_at_a_time.acquire();
                assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::Relaxed), 0);
                inside.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
            others.into_iter().for_each(|other| other.join().unwrap());
        });
    });
}

#[test]
fn events_and_permits_are_waited_for_together_with_children() {
    alone!({
        let (event, permits) = (Event::new().unwrap(), Semaphore::new(1).unwrap());
        let mut set = ChildSet::new().unwrap();
        let event_key = set.watch(event.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let permit_key = set.watch(permits.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert!(matches!(set.wait_any().unwrap(), Some(News::Readable(key)) if key == permit_key));
        let permit = permits.acquire();
        set.start(&with_fds(fixture("ipc-set"), &event.as_fds())).unwrap();
        let (mut exits, mut sets) = (0, 0);
        while exits == 0 || sets == 0 {
            match set.wait_any().unwrap() {
                Some(News::Exit { .. }) => exits += 1,
                Some(News::Readable(key)) => {
                    assert!(key == event_key, "there is no permit");
                    assert!(event.is_set());
                    event.clear();
                    sets += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((exits, sets), (1, 1));
        assert!(!event.is_set());
        drop(permit);
        assert!(matches!(set.wait_any().unwrap(), Some(News::Readable(key)) if key == permit_key));
    });
}

#[test]
fn an_event_wakes_whoever_is_left() {
    alone!({
        for _ in 0..kills(20) {
            let event = Event::new().unwrap();
            let waiter = || start(with_fds(fixture("ipc-await"), &event.as_fds()));
            let mut waiters: Vec<Child> = (0..3).map(|_| waiter()).collect();
            let victim = waiters.swap_remove(random(3) as usize);
            let mut victim = victim;
            victim.kill().unwrap();
            event.set();
            victim.wait().unwrap();
            for mut survivor in waiters {
                assert!(survivor.wait_timeout(BOUND).unwrap().is_some_and(|status| status.success()));
                assert_eq!(line(survivor.stdout.as_mut().unwrap()), "set");
            }
        }
    });
}

#[test]
fn a_wake_goes_to_whoever_is_left() {
    alone!({
        let (lock, changed, items) = (Lock::new().unwrap(), Condition::new().unwrap(), Value::new(0_u32).unwrap());
        let consumer = || start(with_fds(fixture("ipc-consume"), &[lock.as_fd(), changed.as_fd(), items.as_fd()]));
        let mut first = consumer();
        for _ in 0..kills(20) {
            let second = consumer();
            items.set(1);
            changed.notify_one();
            // Perhaps the one that was woken.
            kill(std::mem::replace(&mut first, second));
            wait_for("somebody takes it", || items.get() == 0);
        }
        kill(first);
    });
}

#[test]
fn a_party_that_dies_breaks_the_barrier() {
    alone!({
        for what in ["wait", "hold"] {
            let barrier = Barrier::new(3).unwrap();
            let party = || with_fds(fixture("ipc-meet"), &[barrier.as_fd()]);
            let victim = start(party().arg(what));
            let mut other = start(party().arg("wait"));
            let waits = if what == "wait" { 2 } else { 1 };
            wait_for("they wait", || barrier.waiting() == waits);
            let began = Instant::now();
            std::thread::scope(|scope| {
                let mine = (what == "hold").then(|| scope.spawn(|| barrier.wait()));
                kill(victim);
                assert_eq!(line(other.stdout.as_mut().unwrap()), BrokenBarrier::PartyDied.to_string());
                if let Some(mine) = mine {
                    assert_eq!(mine.join().unwrap(), Err(BrokenBarrier::PartyDied));
                }
            });
            assert!(began.elapsed() < BOUND);
            other.wait().unwrap();
            assert!(barrier.is_broken());
            barrier.reset();
            // And then it works, also when somebody leaves in order.
            let mut leaves = start(party().arg("leave"));
            assert!(leaves.wait().unwrap().success());
            let (mut one, mut two) = (start(party().arg("wait")), start(party().arg("wait")));
            barrier.wait_timeout(BOUND).unwrap();
            for child in [&mut one, &mut two] {
                assert_eq!(line(child.stdout.as_mut().unwrap()), "passed");
                assert!(child.wait().unwrap().success());
            }
            assert!(!barrier.is_broken());
        }
    });
}

/// Process numbers mean nothing: two that are both number 1.
#[test]
fn parties_may_be_in_different_pid_namespaces() {
    alone!({
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let pairs = Pairs::new();
        let apart = || {
            let words = ["--pid", "--fork", "--kill-child"];
            Command::new("unshare").args(words).arg(fixture_path()).arg("ipc-pairs")
        };
        let tried = Command::new("unshare").args(["--pid", "--fork", "true"]).status();
        if !tried.as_ref().is_ok_and(|status| status.success()) {
            eprintln!("skipped: no namespaces here: {tried:?}");
            return;
        }
        let mut survivor = pairs.counting(apart());
        for _ in 0..kills(20) {
            let victim = pairs.counting(apart());
            std::thread::sleep(Duration::from_micros(random(2000)));
            kill(victim);
            pairs.check();
        }
        pairs.stop.set();
        assert!(survivor.wait_timeout(BOUND).unwrap().is_some_and(|status| status.success()));
    });
}

/// What is free is taken without asking the kernel.
#[test]
fn without_contention_there_are_no_system_calls() {
    alone!({
        let calls = |count: &str| -> Option<u64> {
            let scratch = Scratch::new();
            let counts = scratch.join("counts");
            let mut straced = std::process::Command::new("strace");
            straced.args(["-f", "-c", "-o"]).arg(&counts).arg(fixture_path()).args(["ipc-uncontended", count]);
            let Ok(output) = straced.output() else { return None };
            if !output.status.success() {
                eprintln!("skipped: strace: {}", String::from_utf8_lossy(&output.stderr));
                return None;
            }
            let text = std::fs::read_to_string(&counts).unwrap();
            let total = text.lines().find(|line| line.split_ascii_whitespace().last() == Some("total"));
            total.map(|line| line.split_ascii_whitespace().nth(3).unwrap().parse().unwrap())
        };
        let (Some(few), Some(many)) = (calls("100"), calls("100100")) else {
            eprintln!("skipped: strace does not work here");
            return;
        };
        assert!(many <= few + 5, "{few} calls for 100, {many} for 100,100");
    });
}

/// Another layout is another number, and a short file must not kill anybody.
#[test]
fn memory_of_another_kind_is_refused() {
    alone!({
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let lock = Lock::new().unwrap();
        let memory = File::from(copy(lock.as_fd()));
        for place in 0..12 {
            let mut byte = [0];
            memory.read_exact_at(&mut byte, place).unwrap();
            memory.write_all_at(&[byte[0] ^ 1], place).unwrap();
            let text = Lock::from_fd(copy(lock.as_fd())).unwrap_err().to_string();
            assert!(text.starts_with("this is no Lock: "), "byte {place}: {text}");
            memory.write_all_at(&byte, place).unwrap();
        }
        assert!(Lock::from_fd(copy(lock.as_fd())).is_ok());
        assert!(Condition::from_fd(copy(lock.as_fd())).is_err());
        assert!(Array::<u8>::from_fd(copy(lock.as_fd())).is_err());
        assert!(Lock::from_fd(copy(SharedMemory::new(1 << 20).unwrap().as_fd())).is_err());
        let (event, permits) = (Event::new().unwrap(), Semaphore::new(1).unwrap());
        let copies = |fds: [BorrowedFd<'_>; 2]| -> [OwnedFd; 2] { fds.map(copy) };
        assert!(Event::from_fds(copies(permits.as_fds())).is_err());
        let [memory, _] = copies(event.as_fds());
        let text = Event::from_fds([memory, copy(lock.as_fd())]).unwrap_err().to_string();
        assert_eq!(text, "the second descriptor is no eventfd");
        // An array that says that it is longer than its memory.
        let row = Array::new(&[1_u8, 2, 3]).unwrap();
        let memory = File::from(copy(row.as_fd()));
        let size = memory.metadata().unwrap().len();
        let count = size - 3 - 64 + 16;
        memory.write_all_at(&u64::MAX.to_ne_bytes(), count).unwrap();
        assert!(Array::<u8>::from_fd(copy(row.as_fd())).is_err());
    });
}

#[test]
fn nothing_is_left_of_them() {
    alone!({
        let names = || {
            let files = std::fs::read_dir("/dev/shm").map(|files| files.flatten().map(|file| file.file_name()));
            files.map(Iterator::collect::<std::collections::BTreeSet<_>>).unwrap_or_default()
        };
        let before = names();
        let pairs = Pairs::new();
        let (one, two) = (pairs.counting(fixture("ipc-pairs")), pairs.counting(fixture("ipc-pairs")));
        kill(one);
        kill(two);
        drop(pairs);
        assert!(names().is_subset(&before));
    });
}
