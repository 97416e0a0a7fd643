//! Thousands of children alive at a time: each is a `cat` that gets 1 KiB back, all are started before the first one is fed. And the
//! same for several numbers of them, to see whether the time grows with the number or faster. `CHILDREN=5000` for another number.

use procession::{ChildSet, Command, News, Stdio};
use procession_benches::{Options, contestant, measure, report};
use std::io::{Read, Write};
use std::process::Stdio as StdStdio;

const MESSAGE: [u8; 1024] = [b'x'; 1024];

fn main() {
    let options = Options::parse(3);
    let chosen = std::env::var("CHILDREN").ok().and_then(|children| children.parse().ok());
    let counts = chosen.map_or_else(|| vec![options.pick(1000, 100), options.pick(4000, 200)], |count| vec![count]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for count in counts {
        let contestants = vec![
            contestant("procession ChildSet", || with_a_set(count)),
            contestant("std, one after the other", || with_std(count)),
            contestant("tokio current-thread", || runtime.block_on(with_tokio(count))),
        ];
        report(&format!("{count} cats alive, {} rounds", options.rounds), &measure(&options, 1, contestants));
    }
}

fn with_a_set(count: usize) {
    let mut set = ChildSet::new().unwrap();
    let cat = Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::piped());
    let keys: Vec<_> = (0..count).map(|_| set.insert(cat.spawn().unwrap()).unwrap()).collect();
    for key in keys {
        set.feed(key, MESSAGE.to_vec()).unwrap();
        set.end_input(key);
    }
    let mut bytes = 0;
    while let Some(news) = set.wait_any().unwrap() {
        if let News::Exit { result, .. } = news {
            bytes += result.unwrap().stdout().len();
        }
    }
    assert_eq!(bytes, count * MESSAGE.len());
}

fn with_std(count: usize) {
    let cat = || {
        let mut command = std::process::Command::new("/bin/cat");
        command.stdin(StdStdio::piped()).stdout(StdStdio::piped()).spawn().unwrap()
    };
    let mut cats: Vec<_> = (0..count).map(|_| cat()).collect();
    for cat in &mut cats {
        cat.stdin.take().unwrap().write_all(&MESSAGE).unwrap();
    }
    let mut bytes = 0;
    for mut cat in cats {
        let mut output = Vec::new();
        bytes += cat.stdout.take().unwrap().read_to_end(&mut output).unwrap();
        assert!(cat.wait().unwrap().success());
    }
    assert_eq!(bytes, count * MESSAGE.len());
}

async fn with_tokio(count: usize) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cat = || {
        let mut command = tokio::process::Command::new("/bin/cat");
        command.stdin(StdStdio::piped()).stdout(StdStdio::piped()).spawn().unwrap()
    };
    let cats: Vec<_> = (0..count).map(|_| cat()).collect();
    let mut set = tokio::task::JoinSet::new();
    for mut cat in cats {
        set.spawn(async move {
            let mut stdin = cat.stdin.take().unwrap();
            stdin.write_all(&MESSAGE).await.unwrap();
            drop(stdin);
            let mut output = Vec::new();
            let count = cat.stdout.take().unwrap().read_to_end(&mut output).await.unwrap();
            assert!(cat.wait().await.unwrap().success());
            count
        });
    }
    let mut bytes = 0;
    while let Some(count) = set.join_next().await {
        bytes += count.unwrap();
    }
    assert_eq!(bytes, count * MESSAGE.len());
}
