//! What is awaited, on every runtime, beside tokio, async-process and Python: starting and waiting one after the other, two thousand children
//! alive at a time, 256 MiB through `cat`, a thousand limits of time. Every contestant of every case is a process of its own, so that its peak of
//! memory, its threads and its allocations are its own. `CASE=alive` for one case.

use procession_benches::tiny::{Tiny, WORDS};
use procession_benches::{Options, Table, apart, median, number, order, own_cpu};
use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts what contestants in Rust ask for.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: all is left to the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as promised to us.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised to us.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Who runs the tasks.
#[derive(Clone, Copy)]
enum Runs {
    Own,
    TokioSingle,
    TokioMulti,
    Smol,
    Python(&'static str),
}

/// Whose commands they are.
#[derive(Clone, Copy)]
enum Whose {
    Ours,
    /// With the stop that a command has by default, which looks for the whole tree.
    OursTree,
    Tokio,
    AsyncProcess,
    Python,
}

const CONTESTANTS: [(&str, Runs, Whose); 11] = [
    ("procession, own scope", Runs::Own, Whose::Ours),
    ("procession on tokio current-thread", Runs::TokioSingle, Whose::Ours),
    ("procession on tokio multi-thread", Runs::TokioMulti, Whose::Ours),
    ("procession on smol", Runs::Smol, Whose::Ours),
    (TREE, Runs::Own, Whose::OursTree),
    (REFERENCE, Runs::TokioSingle, Whose::Tokio),
    ("tokio multi-thread", Runs::TokioMulti, Whose::Tokio),
    ("async-process on tokio current-thread", Runs::TokioSingle, Whose::AsyncProcess),
    ("async-process on smol", Runs::Smol, Whose::AsyncProcess),
    ("Python asyncio", Runs::Python("asyncio"), Whose::Python),
    ("gevent", Runs::Python("gevent"), Whose::Python),
];
const REFERENCE: &str = "tokio current-thread";
/// Has something to do only where a child is stopped.
const TREE: &str = "procession, own scope, stops the tree";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    InTurn,
    Alive,
    Communicate,
    Limits,
}

/// What is done, the word for it, how often, and how often in quick runs.
const CASES: [(Case, &str, &str, usize, usize); 4] = [
    (Case::InTurn, "in turn", "tiny commands started and waited for, one after the other", 2000, 200),
    (Case::Alive, "alive", "children alive at a time, output collected", 2000, 200),
    (Case::Communicate, "communicate", "MiB through cat and back", 256, 16),
    (Case::Limits, "limits", "limits of time that come, each child killed and reaped", 1000, 100),
];
const LIMIT: Duration = Duration::from_millis(1500);
/// So long lives who is alive: the slowest has started all of them by then, or nearly so.
const ALIVE: Duration = Duration::from_secs(2);
const FOR_EVER: Duration = Duration::from_secs(600);
/// What a program says that cannot be had.
const ABSENT: f64 = -1.0;

fn main() {
    let options = Options::parse(5);
    if let Some(word) = apart::asked() {
        let (case, name) = word.split_once('/').unwrap();
        let (case, _, _, usual, quick) = *CASES.iter().find(|(_, other, ..)| *other == case).unwrap();
        let (_, runs, whose) = *CONTESTANTS.iter().find(|(other, ..)| *other == name).unwrap();
        return tell(case, runs, whose, options.pick(usual, quick));
    }
    allow_descriptors();
    let chosen = std::env::var("CASE").unwrap_or_default();
    for (case, word, title, usual, quick) in CASES.into_iter().filter(|(_, word, ..)| word.contains(&chosen)) {
        let wanted =
            CONTESTANTS.iter().filter(|(name, ..)| options.wants(name) && (case == Case::Limits || *name != TREE));
        let mut samples: Vec<(&str, Vec<Vec<f64>>)> = wanted.map(|(name, ..)| (*name, Vec::new())).collect();
        for round in 0..options.rounds {
            for place in order(round, samples.len()) {
                let (name, samples) = &mut samples[place];
                samples.push(apart::numbers(&format!("{word}/{name}")));
            }
        }
        print(&format!("{} {title}, {} rounds", options.pick(usual, quick), options.rounds), case, &samples);
    }
}

fn print(title: &str, case: Case, samples: &[(&str, Vec<Vec<f64>>)]) {
    let detail = match case {
        Case::InTurn => "µs each",
        Case::Limits => "µs late",
        _ => "-",
    };
    let head = ["", "ms", "best ms", REFERENCE, "own CPU ms", "peak MiB", "threads", "allocations each", detail];
    let mut table = Table::new(title, &head);
    let of =
        |samples: &[Vec<f64>], place: usize| median(&samples.iter().map(|sample| sample[place]).collect::<Vec<_>>());
    let reference = samples.iter().find(|(name, _)| *name == REFERENCE).map(|(_, samples)| of(samples, 0));
    for (name, samples) in samples {
        if samples.iter().any(|sample| sample[0] == ABSENT) {
            table.row(&[&[format!("{name}: not there")], &["-"; 8].map(str::to_owned)[..]].concat());
            continue;
        }
        let best = samples.iter().map(|sample| sample[0]).fold(f64::INFINITY, f64::min);
        let mut row = vec![(*name).to_owned(), number(of(samples, 0)), number(best)];
        row.push(reference.map_or("-".to_owned(), |reference| format!("{:.2}", of(samples, 0) / reference)));
        row.extend([number(of(samples, 1)), number(of(samples, 2) / 1024.0), number(of(samples, 3))]);
        row.extend(
            [4, 5].map(|place| if of(samples, place) < 0.0 { "-".to_owned() } else { number(of(samples, place)) }),
        );
        table.row(&row);
    }
    table.print();
}

/// In the process of one contestant. Of those who are alive what counts is the time beyond their lives.
fn tell(case: Case, runs: Runs, whose: Whose, count: usize) {
    let program = match case {
        Case::InTurn => Tiny::new(),
        Case::Alive => Tiny::sleeper(ALIVE),
        Case::Communicate => Tiny::new(),
        Case::Limits => Tiny::sleeper(FOR_EVER),
    };
    if let Runs::Python(with) = runs {
        return python(with, case, count, program.path());
    }
    let work = work(case, whose, count, program.path());
    let (tasks, each) = if case.is_crowd() { (count, 1) } else { (1, count) };
    let (memory, cpu, allocations) = (apart::status("VmRSS:"), own_cpu(), ALLOCATIONS.load(Ordering::Relaxed));
    let start = Instant::now();
    let (mut numbers, threads) = run(runs, tasks, work);
    let wall = start.elapsed() - if case == Case::Alive { ALIVE } else { Duration::ZERO };
    let cpu = own_cpu() - cpu;
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - allocations) as f64 / (tasks * each) as f64;
    let peak = apart::status("VmHWM:").saturating_sub(memory);
    let (wall, cpu) = (wall.as_secs_f64() * 1e3, cpu.as_secs_f64() * 1e3);
    if !case.has_detail() {
        numbers = vec![-1.0];
    }
    println!("{wall} {cpu} {peak} {threads} {allocations} {}", median(&numbers));
}

impl Case {
    fn is_crowd(self) -> bool {
        matches!(self, Case::Alive | Case::Limits)
    }

    fn has_detail(self) -> bool {
        matches!(self, Case::InTurn | Case::Limits)
    }
}

/// What one task does, and the number that it has to tell.
type Work = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = f64> + Send>> + Send + Sync>;

fn task<F: Future<Output = f64> + Send + 'static>(make: impl Fn() -> F + Send + Sync + 'static) -> Work {
    Arc::new(move || Box::pin(make()))
}

/// As many tasks, and how many threads there are at the end.
fn run(runs: Runs, tasks: usize, work: Work) -> (Vec<f64>, u64) {
    let on_tokio = |mut builder: tokio::runtime::Builder| {
        let runtime = builder.enable_all().build().unwrap();
        let numbers = runtime.block_on(async {
            let mut set = tokio::task::JoinSet::new();
            for _ in 0..tasks {
                set.spawn(work());
            }
            set.join_all().await
        });
        (numbers, apart::status("Threads:"))
    };
    match runs {
        Runs::Own => procession::future::scope(|scope| {
            let tasks: Vec<_> = (0..tasks).map(|_| scope.spawn(work())).collect();
            let mut numbers = Vec::with_capacity(tasks.len());
            let all = async {
                for task in tasks {
                    numbers.push(task.await.unwrap());
                }
            };
            scope.block_on(all).unwrap();
            (numbers, apart::status("Threads:"))
        })
        .unwrap(),
        Runs::TokioSingle => on_tokio(tokio::runtime::Builder::new_current_thread()),
        Runs::TokioMulti => on_tokio(tokio::runtime::Builder::new_multi_thread()),
        Runs::Smol => {
            let executor = async_executor::LocalExecutor::new();
            let tasks: Vec<_> = (0..tasks).map(|_| executor.spawn(work())).collect();
            let numbers = async_io::block_on(executor.run(async {
                let mut numbers = Vec::with_capacity(tasks.len());
                for task in tasks {
                    numbers.push(task.await);
                }
                numbers
            }));
            (numbers, apart::status("Threads:"))
        }
        Runs::Python(_) => unreachable!("is a program"),
    }
}

fn work(case: Case, whose: Whose, count: usize, path: &Path) -> Work {
    let path: Arc<PathBuf> = Arc::new(path.to_owned());
    match case {
        Case::InTurn => in_turn(whose, count, path),
        Case::Alive => alive(whose, path),
        Case::Communicate => communicate(whose, count << 20),
        Case::Limits => limits(whose, path),
    }
}

/// The middle time of one, µs.
async fn timed<F: Future<Output = ()>>(count: usize, mut work: impl FnMut() -> F) -> f64 {
    let mut walls = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        work().await;
        walls.push(start.elapsed().as_secs_f64() * 1e6);
    }
    median(&walls)
}

fn in_turn(whose: Whose, count: usize, path: Arc<PathBuf>) -> Work {
    match whose {
        Whose::Ours | Whose::OursTree => task(move || {
            let command = procession::Command::new(path.as_path());
            async move { timed(count, async || assert!(command.future().call().await.unwrap().success())).await }
        }),
        Whose::Tokio => task(move || {
            let mut command = tokio::process::Command::new(&*path);
            async move {
                timed(count, || {
                    let child = command.spawn();
                    async { assert!(child.unwrap().wait().await.unwrap().success()) }
                })
                .await
            }
        }),
        Whose::AsyncProcess => task(move || {
            let mut command = async_process::Command::new(&*path);
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
            async move {
                timed(count, || {
                    let child = command.spawn();
                    async { assert!(child.unwrap().status().await.unwrap().success()) }
                })
                .await
            }
        }),
        Whose::Python => unreachable!("is a program"),
    }
}

fn alive(whose: Whose, path: Arc<PathBuf>) -> Work {
    let check = |bytes: &[u8]| {
        assert_eq!(bytes, WORDS);
        ABSENT
    };
    match whose {
        Whose::Ours | Whose::OursTree => {
            let command = Arc::new(procession::Command::new(path.as_path()));
            task(move || {
                let command = Arc::clone(&command);
                async move { check(command.future().output().await.unwrap().check().unwrap().stdout()) }
            })
        }
        Whose::Tokio => task(move || {
            let path = Arc::clone(&path);
            async move {
                let output = tokio::process::Command::new(&*path).stdin(Stdio::null()).output().await.unwrap();
                assert!(output.status.success());
                check(&output.stdout)
            }
        }),
        Whose::AsyncProcess => task(move || {
            let path = Arc::clone(&path);
            async move {
                let output = async_process::Command::new(&*path).stdin(Stdio::null()).output().await.unwrap();
                assert!(output.status.success());
                check(&output.stdout)
            }
        }),
        Whose::Python => unreachable!("is a program"),
    }
}

fn communicate(whose: Whose, size: usize) -> Work {
    let make = move || vec![b'x'; size];
    let check = move |bytes: &[u8]| {
        assert!(bytes.len() == size && bytes.iter().all(|byte| *byte == b'x'));
        ABSENT
    };
    match whose {
        Whose::Ours | Whose::OursTree => task(move || {
            let command = procession::Command::new("cat").input(make()).stderr(procession::Stdio::inherit());
            async move { check(command.future().output().await.unwrap().check().unwrap().stdout()) }
        }),
        Whose::Tokio => task(move || async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut command = tokio::process::Command::new("cat");
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let writer = tokio::spawn(async move { stdin.write_all(&make()).await.unwrap() });
            let mut output = Vec::new();
            stdout.read_to_end(&mut output).await.unwrap();
            writer.await.unwrap();
            assert!(child.wait().await.unwrap().success());
            check(&output)
        }),
        Whose::AsyncProcess => task(move || async move {
            use futures_lite::{AsyncReadExt, AsyncWriteExt};
            let mut command = async_process::Command::new("cat");
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let writer = async move {
                stdin.write_all(&make()).await.unwrap();
                drop(stdin);
            };
            let reader = async move {
                let mut output = Vec::new();
                stdout.read_to_end(&mut output).await.unwrap();
                output
            };
            let ((), output) = futures_lite::future::zip(writer, reader).await;
            assert!(child.status().await.unwrap().success());
            check(&output)
        }),
        Whose::Python => unreachable!("is a program"),
    }
}

/// How late a limit is seen, µs.
fn limits(whose: Whose, path: Arc<PathBuf>) -> Work {
    let late = |start: Instant| (start.elapsed().as_secs_f64() - LIMIT.as_secs_f64()) * 1e6;
    match whose {
        Whose::Ours => task(move || {
            let command = procession::Command::new(path.as_path()).stdout(procession::Stdio::null());
            async move {
                let mut child = command.spawn().unwrap();
                let start = Instant::now();
                assert!(child.future().wait_timeout(LIMIT).await.unwrap().is_none());
                let late = late(start);
                child.kill().unwrap();
                child.future().wait().await.unwrap();
                late
            }
        }),
        Whose::OursTree => task(move || {
            let command = procession::Command::new(path.as_path()).stdout(procession::Stdio::null()).timeout(LIMIT);
            async move {
                let start = Instant::now();
                assert!(command.future().call().await.unwrap_err().is_timeout());
                late(start)
            }
        }),
        Whose::Tokio => task(move || {
            let mut command = tokio::process::Command::new(&*path);
            async move {
                let mut child = command.stdout(Stdio::null()).spawn().unwrap();
                let start = Instant::now();
                assert!(tokio::time::timeout(LIMIT, child.wait()).await.is_err());
                let late = late(start);
                child.kill().await.unwrap();
                late
            }
        }),
        Whose::AsyncProcess => task(move || {
            let mut command = async_process::Command::new(&*path);
            async move {
                command.stdin(Stdio::inherit()).stdout(Stdio::null()).stderr(Stdio::inherit());
                let mut child = command.spawn().unwrap();
                let start = Instant::now();
                let alarm = async {
                    async_io::Timer::after(LIMIT).await;
                    None
                };
                let status = async { Some(child.status().await) };
                assert!(futures_lite::future::or(status, alarm).await.is_none());
                let late = late(start);
                child.kill().unwrap();
                child.status().await.unwrap();
                late
            }
        }),
        Whose::Python => unreachable!("is a program"),
    }
}

/// The program tells by itself; without gevent it says so.
fn python(with: &str, case: Case, count: usize, path: &Path) {
    let word = CASES.iter().find(|(other, ..)| *other == case).unwrap().1;
    let command = procession::Command::new("python3").args(["-c", include_str!("../peers.py"), with, word]);
    let command = command.arg(count.to_string()).arg(path);
    let output =
        command.args([ALIVE, LIMIT].map(|time| time.as_secs_f64().to_string())).stderr(procession::Stdio::inherit());
    match output.output().unwrap() {
        output if output.status().code() == Some(77) => println!("{ABSENT} 0 0 0 0 0"),
        output => print!("{}", output.check().unwrap().stdout_text().unwrap()),
    }
}

/// Three descriptors for each child, and more where a runtime wants copies.
fn allow_descriptors() {
    // SAFETY: a limit is plain integers, and both calls get a valid one.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}
