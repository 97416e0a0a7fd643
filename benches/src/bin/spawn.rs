//! How long does it take to start a program that ends at once, and to see its end?

use futures_lite::future::block_on;
use procession_benches::tiny::Tiny;
use procession_benches::{Options, contestant, measure, report};
use std::process::Stdio;

fn main() {
    let options = Options::parse(9);
    let tiny = Tiny::new();
    let path = tiny.path();
    let word = path.to_str().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let ours = procession::Command::new(path);
    let ours_call = ours.clone();
    let mut std = std::process::Command::new(path);
    let mut tokio = tokio::process::Command::new(path);
    let mut smol = async_process::Command::new(path);
    // async-process makes pipes unless it is told not to.
    smol.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let duct = duct::cmd(path, [] as [&str; 0]);
    let contestants = vec![
        contestant("procession", move || assert!(ours.spawn().unwrap().wait().unwrap().success())),
        contestant("procession call", move || assert!(ours_call.call().unwrap().success())),
        contestant("std", move || assert!(std.spawn().unwrap().wait().unwrap().success())),
        contestant("subprocess", || assert!(subprocess::Exec::cmd(word).start().unwrap().wait().unwrap().success())),
        contestant("duct", move || assert!(duct.run().unwrap().status.success())),
        contestant("tokio current-thread", || {
            let status = runtime.block_on(async { tokio.spawn().unwrap().wait().await });
            assert!(status.unwrap().success());
        }),
        contestant("async-process", move || {
            let status = block_on(async { smol.spawn().unwrap().status().await });
            assert!(status.unwrap().success());
        }),
    ];
    let where_ = if options.one_cpu { "one processor" } else { "all processors" };
    let title = format!("spawn and wait, {where_}, {} rounds", options.rounds);
    report(&title, &measure(&options, options.pick(400, 50), contestants));
}
