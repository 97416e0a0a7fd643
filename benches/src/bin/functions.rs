//! An empty function called in a pool of processes, once for each item, each with its own answer: what giving out and answering costs. And a call
//! that is waited for before the next one is made. `WIDTH=` for another number of workers than 2.

use procession::ipc::ProcessPool;
use procession_benches::{Options, contestant, measure, report};
use std::process::{Command, Stdio};

fn nothing(number: u64) -> u64 {
    number
}

fn main() {
    let options = Options::parse(5);
    let width = std::env::var("WIDTH").ok().and_then(|width| width.parse().ok()).unwrap_or(2);
    let (many, few) = (options.pick(100_000, 1_000), options.pick(2_000, 100));
    let pool = ProcessPool::new(width).unwrap();
    pool.map(nothing, 0..1_000).unwrap();
    let contestants = vec![
        contestant("procession ProcessPool::map", || {
            assert_eq!(pool.map(nothing, 0..many as u64).unwrap().len(), many);
        }),
        contestant("Python mp.Pool.map(chunksize=1)", || python(width, many, "pool.map(nothing, range(count), 1)")),
        contestant("Python ProcessPoolExecutor.map", || {
            python(width, many, "list(executor.map(nothing, range(count)))")
        }),
    ];
    report(
        &format!("{many} empty calls, {width} workers, {} rounds", options.rounds),
        &measure(&options, 1, contestants),
    );
    let contestants = vec![
        contestant("procession ProcessPool::apply", || {
            for number in 0..few as u64 {
                assert_eq!(pool.apply(nothing, number).unwrap(), number);
            }
        }),
        contestant("Python mp.Pool.apply", || python(width, few, "[pool.apply(nothing, (n,)) for n in range(count)]")),
    ];
    report(&format!("{few} calls one after the other, {} rounds", options.rounds), &measure(&options, 1, contestants));
}

/// The start of Python and of its workers is not counted: it says how long the calls took, and the rest is waited out before.
fn python(width: usize, count: usize, call: &str) {
    let program = format!(
        "import sys\nfrom functions_peer import nothing\nimport multiprocessing, concurrent.futures\ncount = {count}\n\
         {}\n{call}\n",
        if call.contains("executor") {
            format!("executor = concurrent.futures.ProcessPoolExecutor({width})")
        } else {
            format!("pool = multiprocessing.Pool({width})")
        }
    );
    let folder = std::env::temp_dir().join(format!("procession-functions-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("functions_peer.py"), "def nothing(number):\n    return number\n").unwrap();
    let status = Command::new("python3").arg("-c").arg(program).current_dir(&folder).stdin(Stdio::null()).status();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(status.unwrap().success());
}
