//! How many tiny commands a second, at most so many at a time, their output collected? One tiny program run thousands of times by every
//! contestant; the time of a whole batch is measured. `--width N` for another width than 8.

use procession_benches::bare;
use procession_benches::tiny::Tiny;
use procession_benches::{Options, contestant, measure, report};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

fn main() {
    // A word of our own before the common options.
    let width = std::env::var("WIDTH").ok().and_then(|width| width.parse().ok()).unwrap_or(8);
    let options = Options::parse(7);
    let jobs = options.pick(10_000, 1_000);
    let tiny = Tiny::new();
    let path = tiny.path().to_owned();
    let threads = rayon::ThreadPoolBuilder::new().num_threads(width).build().unwrap();
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let multi = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let pool = procession::Pool::new(width);
    let processors = std::thread::available_parallelism().map_or(1, usize::from).min(width);
    let (p1, p2, p3, p4, p5, p6, p7) =
        (path.clone(), path.clone(), path.clone(), path.clone(), path.clone(), path.clone(), path.clone());
    let (p8, p9, p10, p11) = (path.clone(), path.clone(), path.clone(), path.clone());

    let contestants = vec![
        contestant("procession map", || {
            let done = pool.map((0..jobs).map(|_| procession::Command::new(p1.as_path())));
            assert!(done.len() == jobs && done.iter().all(procession::Done::success));
        }),
        contestant("procession imap_unordered", || {
            let tasks = (0..jobs).map(|_| procession::Command::new(p2.as_path()));
            assert_eq!(pool.imap_unordered(tasks).filter(procession::Done::success).count(), jobs);
        }),
        contestant("procession map, only standard output", || {
            let task = |_| procession::Command::new(p10.as_path()).stderr(procession::Stdio::inherit());
            assert!(pool.map((0..jobs).map(task)).iter().all(procession::Done::success));
        }),
        contestant("bare system calls, one thread", || bare::fan_out(&path, jobs, width, 1)),
        contestant("bare system calls, a thread on each processor", || bare::fan_out(&path, jobs, width, processors)),
        contestant("std + rayon", || {
            threads.install(|| {
                (0..jobs).into_par_iter().for_each(|_| {
                    assert!(std::process::Command::new(&p3).stdin(Stdio::null()).output().unwrap().status.success());
                });
            });
        }),
        contestant("tokio multi-thread JoinSet", || multi.block_on(tokio_join_set(&p4, jobs, width))),
        contestant("tokio current-thread JoinSet", || single.block_on(tokio_join_set(&p5, jobs, width))),
        contestant("duct + rayon", || {
            threads.install(|| {
                (0..jobs / 4).into_par_iter().for_each(|_| {
                    let command = duct::cmd(&p6, [] as [&str; 0]).stdin_null().stdout_capture().stderr_capture();
                    assert!(command.run().unwrap().status.success());
                });
            });
        }),
        contestant("subprocess + rayon", || {
            threads.install(|| {
                (0..jobs / 4).into_par_iter().for_each(|_| {
                    let done = subprocess::Exec::cmd(&p7).stdin(subprocess::Redirection::Null);
                    let done = done.stdout(subprocess::Redirection::Pipe).stderr(subprocess::Redirection::Pipe);
                    assert!(done.capture().unwrap().success());
                });
            });
        }),
        contestant("xargs -P (a quarter, output through one pipe)", || xargs(&p8, jobs / 4, width)),
        contestant("GNU parallel (a fiftieth, if it is there)", || parallel(&p11, jobs / 50, width)),
        contestant("Python ThreadPool (a tenth)", || python(&p9, jobs / 10, width)),
    ];
    let title = format!(
        "{jobs} tiny commands, {width} at a time (duct and subprocess: a quarter of them), {} rounds",
        options.rounds
    );
    report(&title, &measure(&options, 1, contestants));
}

fn xargs(path: &Path, jobs: usize, width: usize) {
    let lines: String = (0..jobs).map(|job| format!("{job}\n")).collect();
    let command = procession::Command::new("xargs").args(["-n", "1", "-P"]).arg(width.to_string()).arg(path);
    assert!(command.input(lines).output().unwrap().success());
}

fn parallel(path: &Path, jobs: usize, width: usize) {
    let lines: String = (0..jobs).map(|job| format!("{job}\n")).collect();
    let command = procession::Command::new("parallel").args(["-N0", "-P"]).arg(width.to_string()).arg(path);
    match command.input(lines).output() {
        Err(error) if error.is_not_found() => {}
        output => assert!(output.unwrap().success()),
    }
}

fn python(path: &Path, jobs: usize, width: usize) {
    let program = "import subprocess, sys\nfrom concurrent.futures import ThreadPoolExecutor\n\
        path, jobs, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n\
        run = lambda _: subprocess.run([path], stdin=subprocess.DEVNULL, capture_output=True).returncode\n\
        with ThreadPoolExecutor(width) as pool:\n    assert not any(pool.map(run, range(jobs)))\n";
    let command = procession::Command::new("python3").args(["-c", program]).arg(path);
    assert!(command.args([jobs.to_string(), width.to_string()]).output().unwrap().success());
}

async fn tokio_join_set(path: &Path, jobs: usize, width: usize) {
    let path: Arc<PathBuf> = Arc::new(path.to_owned());
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..jobs {
        if set.len() >= width {
            set.join_next().await.unwrap().unwrap();
        }
        let path = Arc::clone(&path);
        set.spawn(async move {
            let output = tokio::process::Command::new(&*path).stdin(Stdio::null()).output().await.unwrap();
            assert!(output.status.success());
        });
    }
    while let Some(done) = set.join_next().await {
        done.unwrap();
    }
}
