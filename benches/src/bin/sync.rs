//! What does it cost that one process waits for another: locks, semaphores, events, alone and between two processes?
//!
//! Everything runs in this process and a forked copy of it, on memory that both have. Python, if it is there, runs the same loops on
//! `multiprocessing` and says how long they took.

use procession::ipc::{Event, Lock, Semaphore};
use procession_benches::{Options, Table, median, number, order};
use std::hint::black_box;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Seconds for so many operations; `None` if this contestant is not there.
type Work = fn(usize) -> Option<f64>;

fn main() {
    let options = Options::parse(9);
    let one: [(&str, Work); 6] = [
        ("procession Lock", |count| {
            let lock = Lock::new().unwrap();
            Some(timed(count, || drop(black_box(lock.lock().unwrap()))))
        }),
        ("futex", |count| {
            let lock = shared::<RawLock>();
            Some(timed(count, || lock.with(|| ())))
        }),
        ("std Mutex, one process", |count| {
            let lock = Mutex::new(());
            Some(timed(count, || drop(black_box(lock.lock().unwrap()))))
        }),
        ("pthread, shared", |count| {
            let lock = pthread(false);
            Some(timed(count, || with_pthread(lock, || ())))
        }),
        ("pthread, robust", |count| {
            let lock = pthread(true);
            Some(timed(count, || with_pthread(lock, || ())))
        }),
        ("Python mp.Lock", |count| python(count, "l = mp.Lock()", "l.acquire(); l.release()", "")),
    ];
    let calls = options.pick(3_000_000, 100_000);
    run(&options, "lock and unlock, nobody else there", calls, &one, "futex", "Python mp.Lock");
    let two: [(&str, Work); 5] = [
        ("procession Lock", |count| {
            let lock = Lock::new().unwrap();
            Some(both(count, || {
                let mine = Lock::from_fd(lock.as_fd().try_clone_to_owned().unwrap()).unwrap();
                move || drop(black_box(mine.lock().unwrap()))
            }))
        }),
        ("futex", |count| {
            let lock = shared::<RawLock>();
            Some(both(count, || || lock.with(|| ())))
        }),
        ("pthread, shared", |count| {
            let lock = pthread(false);
            Some(both(count, || move || with_pthread(lock, || ())))
        }),
        ("pthread, robust", |count| {
            let lock = pthread(true);
            Some(both(count, || move || with_pthread(lock, || ())))
        }),
        ("Python mp.Lock", |count| {
            python(count, "l = mp.Lock()", "l.acquire(); l.release()", "l.acquire(); l.release()")
        }),
    ];
    let calls = options.pick(1_000_000, 50_000);
    run(&options, "lock and unlock, two processes at once", calls, &two, "futex", "Python mp.Lock");
    let permits: [(&str, Work); 3] = [
        ("procession Semaphore", |count| {
            let permits = Semaphore::new(1).unwrap();
            Some(timed(count, || drop(black_box(permits.acquire()))))
        }),
        ("sem_t", |count| {
            let permits = sem_t();
            Some(timed(count, || with_sem(permits)))
        }),
        ("Python mp.Semaphore", |count| python(count, "l = mp.Semaphore(1)", "l.acquire(); l.release()", "")),
    ];
    let calls = options.pick(3_000_000, 100_000);
    run(&options, "acquire and release, nobody else there", calls, &permits, "sem_t", "Python mp.Semaphore");
    let events: [(&str, Work); 5] = [
        ("procession Event", |count| {
            let (there, back) = (Event::new().unwrap(), Event::new().unwrap());
            Some(ping_pong(count, |mine| {
                let (from, to) = if mine { (&back, &there) } else { (&there, &back) };
                move |first: bool| {
                    if first {
                        to.set();
                    }
                    from.wait();
                    from.clear();
                    if !first {
                        to.set();
                    }
                }
            }))
        }),
        ("procession Event, watched", |count| {
            let (there, back) = (Event::new().unwrap(), Event::new().unwrap());
            let _ = (there.as_fd(), back.as_fd());
            Some(ping_pong(count, |mine| {
                let (from, to) = if mine { (&back, &there) } else { (&there, &back) };
                move |first: bool| {
                    if first {
                        to.set();
                    }
                    readable(from.as_fd().as_raw_fd());
                    from.clear();
                    if !first {
                        to.set();
                    }
                }
            }))
        }),
        ("futex", |count| {
            let words = shared::<[Flag; 2]>();
            Some(ping_pong(count, |mine| {
                let (from, to) = if mine { (&words[1].0, &words[0].0) } else { (&words[0].0, &words[1].0) };
                move |first: bool| {
                    if first {
                        raise(to);
                    }
                    while from.load(Ordering::Acquire) == 0 {
                        futex(from, libc::FUTEX_WAIT, 0);
                    }
                    from.store(0, Ordering::Release);
                    if !first {
                        raise(to);
                    }
                }
            }))
        }),
        ("eventfd and poll", |count| {
            let bell = || {
                // SAFETY: integer arguments.
                let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
                assert!(fd >= 0);
                fd
            };
            let (there, back) = (bell(), bell());
            let took = ping_pong(count, |mine| {
                let (from, to) = if mine { (back, there) } else { (there, back) };
                move |first: bool| {
                    if first {
                        ring(to);
                    }
                    readable(from);
                    silence(from);
                    if !first {
                        ring(to);
                    }
                }
            });
            for fd in [there, back] {
                // SAFETY: ours, and not used any more.
                unsafe { libc::close(fd) };
            }
            Some(took)
        }),
        ("Python mp.Event", |count| {
            let body = "a.set(); b.wait(); b.clear()";
            python(count, "a, b = mp.Event(), mp.Event()", body, "a.wait(); a.clear(); b.set()")
        }),
    ];
    let calls = options.pick(30_000, 2_000);
    run(&options, "an event there and one back, two processes", calls, &events, "futex", "Python mp.Event");
}

fn run(options: &Options, title: &str, calls: usize, contestants: &[(&str, Work)], bound: &str, peer: &str) {
    let wanted: Vec<_> = contestants.iter().filter(|(name, _)| options.wants(name) || options.wants(title)).collect();
    let mut samples = vec![Vec::new(); wanted.len()];
    for round in 0..options.rounds {
        for place in order(round, wanted.len()) {
            let (name, work) = wanted[place];
            let calls = if name.starts_with("Python") { calls / 10 } else { calls };
            if let Some(seconds) = work(calls) {
                samples[place].push(seconds / calls as f64 * 1e9);
            }
        }
    }
    let of = |name: &str| {
        let place = wanted.iter().position(|(other, _)| *other == name)?;
        Some(&samples[place]).filter(|row| !row.is_empty()).map(|row| median(row))
    };
    let title = format!("{title}: ns each; {} rounds of {calls}", options.rounds);
    let mut table = Table::new(&title, &["", "ns", "best", "million/s", &format!("of {bound}"), &format!("x {peer}")]);
    for ((name, _), row) in wanted.iter().zip(&samples).filter(|(_, row)| !row.is_empty()) {
        let (middle, best) = (median(row), row.iter().copied().fold(f64::INFINITY, f64::min));
        let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        table.row(&[
            (*name).to_owned(),
            number(middle),
            number(best),
            number(1e3 / middle),
            ratio(of(bound).map(|bound| middle / bound)),
            ratio(of(peer).map(|peer| peer / middle)),
        ]);
    }
    table.print();
}

fn timed(count: usize, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        work();
    }
    start.elapsed().as_secs_f64()
}

/// Half of it in a forked copy at the same time.
fn both<W: FnMut()>(count: usize, prepare: impl Fn() -> W) -> f64 {
    let gate = shared::<AtomicU32>();
    let run = || {
        let mut work = prepare();
        gate.fetch_add(1, Ordering::AcqRel);
        while gate.load(Ordering::Acquire) < 2 {
            std::thread::yield_now();
        }
        timed(count / 2, &mut work)
    };
    in_two(|| _ = run(), || run())
}

/// A round trip is one call of each side. `prepare` is told whether it is ours, the side that begins.
fn ping_pong<W: FnMut(bool)>(count: usize, prepare: impl Fn(bool) -> W) -> f64 {
    in_two(
        || {
            let mut work = prepare(false);
            (0..count).for_each(|_| work(false));
        },
        || {
            let mut work = prepare(true);
            timed(count, || work(true))
        },
    )
}

/// Both at the same time, the first in a forked copy. Until both are done.
fn in_two(theirs: impl FnOnce(), ours: impl FnOnce() -> f64) -> f64 {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        theirs();
        // SAFETY: ends at once.
        unsafe { libc::_exit(0) };
    }
    let mut took = ours();
    let rest = Instant::now();
    // SAFETY: nobody wants the status.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    took += rest.elapsed().as_secs_f64();
    took
}

/// Zeros that this process and its copies share. Never given back.
fn shared<T>() -> &'static T {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: memory of our own, zeros, which are valid for all that is put there, and it lives for ever.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        &*start.cast()
    }
}

#[repr(align(64))]
struct Flag(AtomicU32);

fn raise(word: &AtomicU32) {
    word.store(1, Ordering::Release);
    futex(word, libc::FUTEX_WAKE, 1);
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    let never = std::ptr::null::<libc::timespec>();
    // SAFETY: the word lives for ever.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, never) };
}

/// The shortest lock on a futex: 0 free, 1 held, 2 held and perhaps somebody sleeps. It does not know who holds it.
struct RawLock(AtomicU32);

impl RawLock {
    fn with(&self, work: impl FnOnce()) {
        if self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            let mut spins = 0;
            while self.0.load(Ordering::Relaxed) != 0 && spins < 100 {
                std::hint::spin_loop();
                spins += 1;
            }
            while self.0.swap(2, Ordering::Acquire) != 0 {
                futex(&self.0, libc::FUTEX_WAIT, 2);
            }
        }
        work();
        if self.0.swap(0, Ordering::Release) == 2 {
            futex(&self.0, libc::FUTEX_WAKE, 1);
        }
    }
}

fn pthread(robust: bool) -> *mut libc::pthread_mutex_t {
    let lock = std::ptr::from_ref(shared::<libc::pthread_mutex_t>()).cast_mut();
    // SAFETY: memory for a mutex and its attributes, which nobody uses yet.
    unsafe {
        let mut attributes = std::mem::zeroed();
        assert_eq!(libc::pthread_mutexattr_init(&mut attributes), 0);
        assert_eq!(libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED), 0);
        if robust {
            assert_eq!(libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST), 0);
        }
        assert_eq!(libc::pthread_mutex_init(lock, &attributes), 0);
    }
    lock
}

fn with_pthread(lock: *mut libc::pthread_mutex_t, work: impl FnOnce()) {
    // SAFETY: it was initialised and lives for ever.
    assert_eq!(unsafe { libc::pthread_mutex_lock(lock) }, 0);
    work();
    // SAFETY: as above, and we hold it.
    assert_eq!(unsafe { libc::pthread_mutex_unlock(lock) }, 0);
}

fn sem_t() -> *mut libc::sem_t {
    let permits = std::ptr::from_ref(shared::<libc::sem_t>()).cast_mut();
    // SAFETY: memory for a semaphore, which nobody uses yet.
    assert_eq!(unsafe { libc::sem_init(permits, 1, 1) }, 0);
    permits
}

fn with_sem(permits: *mut libc::sem_t) {
    // SAFETY: it was initialised and lives for ever.
    assert_eq!(unsafe { libc::sem_wait(permits) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::sem_post(permits) }, 0);
}

fn ring(fd: i32) {
    // SAFETY: eight bytes.
    assert_eq!(unsafe { libc::write(fd, (&raw const ONE).cast(), 8) }, 8);
}

static ONE: u64 = 1;

fn silence(fd: i32) {
    let mut count = 0_u64;
    // SAFETY: room for eight bytes.
    assert_eq!(unsafe { libc::read(fd, (&raw mut count).cast(), 8) }, 8);
}

fn readable(fd: i32) {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    while unsafe { libc::poll(&mut entry, 1, -1) } != 1 {}
}

/// Seconds that the loop takes in Python; with a second process that runs the other one, if there is one.
fn python(count: usize, setup: &str, body: &str, other: &str) -> Option<f64> {
    let half = if body == other { count / 2 } else { count };
    let start = if other.is_empty() { "" } else { "p = mp.Process(target=f); p.start(); time.sleep(0.05)" };
    let join = if other.is_empty() { "" } else { "p.join()" };
    let other = if other.is_empty() { "pass" } else { other };
    let script = format!(
        "import multiprocessing as mp, time\nmp.set_start_method('fork')\n{setup}\n\
         def f():\n for _ in range({half}):\n  {other}\n{start}\n\
         t = time.perf_counter()\nfor _ in range({half}):\n {body}\n{join}\nprint(time.perf_counter() - t)\n"
    );
    let output = Command::new("python3").args(["-c", &script]).stderr(Stdio::inherit()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
