//! Many commands at once on one thread, without a pool: each line as it is written, a sign of life each second, a word about those
//! that take long, and an end for those that take too long.

use procession::{ChildKey, ChildSet, Command, Error, Follow, News, Stop};
use std::collections::HashMap;
use std::time::Duration;

fn main() -> Result<(), Error> {
    let jobs = [
        ("quick", "echo hello; echo bye"),
        ("chatty", "for i in 1 2 3 4 5; do echo step $i; sleep 0.2; done"),
        ("failing", "echo 'no such table' >&2; exit 3"),
        ("slow", "sleep 1.3; echo at last"),
        ("endless", "echo begun; sleep 600"),
    ];
    let mut set = ChildSet::new()?;
    let mut names: HashMap<ChildKey, &str> = HashMap::new();
    for (name, script) in jobs {
        let command = Command::shell(script).timeout(Duration::from_secs(2));
        let command = command.stop(Stop::term_then_kill(Duration::from_millis(200)));
        let child = set.start_and_follow(&command, Follow::Lines)?;
        set.set_timeout(child, Duration::from_millis(1200));
        names.insert(child, name);
    }
    let second = Duration::from_secs(1);
    let mut tick = set.add_timer(second);
    while !set.is_empty() {
        let running = set.len();
        match set.wait_any()? {
            Some(News::Line { child, line }) => println!("{:>8} {} {line}", names[&child], line.stream()),
            Some(News::Exit { child, result }) => {
                let how = result.map_or_else(|error| error.to_string(), |output| output.status().to_string());
                println!("{:>8} has ended: {how}", names[&child]);
            }
            Some(News::Timeout(child)) => println!("{:>8} takes long", names[&child]),
            Some(News::Timer(timer)) if timer == tick => {
                println!("         {running} running");
                tick = set.add_timer(second);
            }
            _ => {}
        }
    }
    Ok(())
}
