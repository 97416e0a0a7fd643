//! A dict in a manager's process: what one `get` and one `insert` cost, each waited for before the next one.

use procession::ipc::Manager;
use procession_benches::{Options, contestant, measure, report};
use std::process::{Command, Stdio};

fn main() {
    let options = Options::parse(5);
    let (ours, theirs) = (options.pick(40_000, 400), options.pick(4_000, 40));
    let manager = Manager::start().unwrap();
    let dict = manager.dict::<u64, u64>().unwrap();
    let contestants = vec![contestant("procession Dict", || {
        for number in 0..ours as u64 {
            dict.insert(&(number % 100), &number).unwrap();
            assert_eq!(dict.get(&(number % 100)).unwrap(), Some(number));
        }
    })];
    report(&format!("{} calls, {} rounds", ours * 2, options.rounds), &measure(&options, 1, contestants));
    println!("Python, {} calls, as it measures itself:", theirs * 2);
    for _ in 0..options.rounds {
        python(theirs as u64);
    }
}

/// The start of Python and of its manager is not counted.
fn python(count: u64) {
    let program = format!(
        "import multiprocessing, time\n\
         def main():\n    manager = multiprocessing.Manager()\n    d = manager.dict()\n    d[0] = 0\n    begun = time.perf_counter()\n    \
         for n in range({count}):\n        d[n % 100] = n\n        assert d[n % 100] == n\n    \
         took = time.perf_counter() - begun\n    print(f'{{took / {count} / 2 * 1e6:.1f}} us for one call')\n\
         main()\n"
    );
    let status = Command::new("python3").arg("-c").arg(program).stdin(Stdio::null()).status();
    assert!(status.unwrap().success());
}
