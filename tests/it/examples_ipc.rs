//! The examples of functions in processes, for what comes out of them. Each is part of this program and runs as a process of its own, as in
//! `examples_pool`; their functions run in processes of theirs.

use crate::support::{alone, is_running, wait_for};
use procession::{Command, Output, Signal, Stdio};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[allow(dead_code)] // its main
#[path = "../../examples/heartbeat.rs"]
mod heartbeat;
#[allow(dead_code)] // its main
#[path = "../../examples/karaoke.rs"]
mod karaoke;
#[allow(dead_code)] // its main
#[path = "../../examples/manager_dict.rs"]
mod manager_dict;
#[allow(dead_code)] // its main
#[path = "../../examples/piped_processes.rs"]
mod piped_processes;
#[allow(dead_code)] // its main
#[path = "../../examples/process_join.rs"]
mod process_join;
#[allow(dead_code)] // its main
#[path = "../../examples/process_pool.rs"]
mod process_pool;
#[allow(dead_code)] // its main
#[path = "../../examples/queue_writer_reader.rs"]
mod queue_writer_reader;
#[allow(dead_code)] // its main
#[path = "../../examples/ticket_shop.rs"]
mod ticket_shop;
#[allow(dead_code)] // its main
#[path = "../../examples/traffic_light.rs"]
mod traffic_light;
#[allow(dead_code)] // its main
#[path = "../../examples/upper_server.rs"]
mod upper_server;

/// The name of the example, and a number for it.
const VARIABLE: &str = "PROCESSION_TEST_EXAMPLE_IPC";

/// Far more than any of them takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test: the examples, when this program is started as one of them. What they return is written down as it is.
#[test]
fn play() {
    let Some(line) = std::env::var(VARIABLE).ok() else { return };
    let (name, number) = line.split_once(' ').unwrap();
    let number: u32 = number.parse().unwrap();
    match name {
        "heartbeat" => heartbeat::heartbeat(number as usize).unwrap(),
        "karaoke" => println!("{}", karaoke::karaoke(number).unwrap()),
        "manager_dict" => println!("{:?}", manager_dict::manager_dict(number.into()).unwrap()),
        "piped_processes" => println!("{}", piped_processes::piped_processes(number.into()).unwrap()),
        "process_join" => process_join::process_join().unwrap(),
        "process_pool" => println!("{:?}", process_pool::process_pool().unwrap()),
        "queue_writer_reader" => println!("{}", queue_writer_reader::queue_writer_reader().unwrap()),
        "sold_with_lock" => println!("{:?}", ticket_shop::ticket_shop(number, 4, true).unwrap()),
        "sold_without" => println!("{:?}", ticket_shop::ticket_shop(number, 4, false).unwrap()),
        "traffic_light" => traffic_light::traffic_light(2, number).unwrap(),
        "upper_server" => upper_server::upper_server(number as usize, serve_until_told).unwrap(),
        name => panic!("{name:?}"),
    }
    std::process::exit(0);
}

/// Says where the server is, and lets it be until standard input ends.
fn serve_until_told(address: SocketAddr) -> std::io::Result<()> {
    println!("{address}");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).map(drop)
}

/// What the test harness says before anything else.
const HEAD: &str = "\nrunning 1 test\n";

fn example(name: &str, number: u32) -> Command {
    // With several threads the harness does not say the name of the test first.
    Command::new(std::env::current_exe().unwrap().as_path())
        .args(["--exact", "examples_ipc::play", "--nocapture", "--test-threads=2"])
        .env(VARIABLE, format!("{name} {number}"))
        .timeout(PATIENCE)
}

/// Runs it; what it said, if all was well.
fn said_by(name: &str, number: u32) -> Vec<String> {
    let output = example(name, number).output().unwrap();
    assert!(output.success(), "{output}");
    lines(&output)
}

fn lines(output: &Output) -> Vec<String> {
    let text = output.stdout_text().unwrap();
    let text = text.strip_prefix(HEAD).unwrap_or_else(|| panic!("{text:?}"));
    text.lines().map(str::to_owned).collect()
}

fn sorted(lines: &[String]) -> Vec<&str> {
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn children_are_joined_and_a_panic_is_told() {
    alone!({
        let output = example("process_join", 0).output().unwrap();
        assert!(output.success(), "{output}");
        let said = lines(&output);
        let (parent, children): (Vec<_>, Vec<_>) = said.into_iter().partition(|line| line.starts_with("parent: "));
        assert_eq!(sorted(&children), ["first: hello, world", "second: hello, moon", "second: hello, moon"]);
        let expected = [
            "parent: starts children",
            "parent: first has ended with Some(0)",
            "parent: second has ended with Some(0)",
            "parent: 7 / 2 = 3",
            "parent: unlucky has panicked: attempt to divide by zero",
        ];
        assert_eq!(parent, expected);
    });
}

#[test]
fn five_tasks_are_done_by_four_workers() {
    alone!({
        let said = said_by("process_pool", 0);
        let (returned, said) = said.split_last().unwrap();
        let workers: Vec<u32> =
            returned.trim_matches(['[', ']']).split(", ").map(|word| word.parse().unwrap()).collect();
        assert_eq!(workers.len(), 5);
        for (number, worker) in workers.iter().enumerate() {
            assert!(said.contains(&format!("task {number} runs in process {worker}")), "{said:?}");
        }
        // All that are begun and not done run at the same time.
        let mut running = 0;
        let counts: Vec<i32> = said
            .iter()
            .map(|line| {
                running += i32::from(line.contains(" runs in ")) - i32::from(line.ends_with(" is done"));
                running
            })
            .collect();
        assert!(counts.iter().all(|running| (0..=4).contains(running)), "{said:?}");
        let distinct = workers.iter().collect::<std::collections::BTreeSet<_>>();
        assert!(distinct.len() <= 4 && distinct.len() > 1, "{workers:?}");
        let took: Vec<_> = said.iter().filter(|line| line.contains(" took ")).collect();
        assert_eq!(took, said[said.len() - 5..].iter().collect::<Vec<_>>());
    });
}

#[test]
fn the_reader_has_got_all_before_it_is_stopped() {
    alone!({
        let said = said_by("queue_writer_reader", 0);
        let (code, said) = said.split_last().unwrap();
        assert_eq!(code, "-15", "it has ended by SIGTERM");
        for word in ["put", "got"] {
            let said: Vec<_> = said.iter().filter(|line| line.starts_with(word)).collect();
            assert_eq!(said, ["A", "B", "C"].map(|value| format!("{word} {value}")).iter().collect::<Vec<_>>());
        }
        assert_eq!(said.len(), 6);
    });
}

/// The tickets that were sold by each clerk, from a list of lists.
fn sold(name: &str, tickets: u32) -> Vec<Vec<u32>> {
    let said = said_by(name, tickets);
    let [list] = said.as_slice() else { panic!("{said:?}") };
    serde_json::from_str(list).unwrap()
}

#[test]
fn with_a_lock_each_ticket_is_sold_once() {
    alone!({
        let mut all = sold("sold_with_lock", 2000).concat();
        all.sort_unstable();
        assert_eq!(all, (1..=2000).collect::<Vec<u32>>());
    });
}

#[test]
fn without_a_lock_each_ticket_is_sold_by_everybody() {
    alone!({
        let each: Vec<u32> = (1..=10).rev().collect();
        assert_eq!(sold("sold_without", 10), vec![each; 4]);
    });
}

#[test]
fn four_sing_at_a_time() {
    alone!({
        let said = said_by("karaoke", 3);
        let (most, said) = said.split_last().unwrap();
        assert_eq!(most, "4");
        for number in 1..=12 {
            let theirs: Vec<_> = said.iter().filter(|line| line.starts_with(&format!("guest {number} "))).collect();
            assert_eq!(theirs, [&format!("guest {number} comes on stage"), &format!("guest {number} goes")]);
        }
        // Who has not yet gone has a place; that is said before it is given back.
        let mut on_stage = 0;
        for line in said {
            on_stage += if line.ends_with(" goes") { -1 } else { 1 };
            assert!((0..=4).contains(&on_stage), "{said:?}");
        }
    });
}

#[test]
fn nobody_goes_at_a_red_light() {
    alone!({
        let said = said_by("traffic_light", 3);
        let mut rest = said.as_slice();
        for _ in 0..2 {
            assert_eq!(rest[0], "red");
            assert_eq!(sorted(&rest[1..4]), ["car 1 waits", "car 2 waits", "car 3 waits"]);
            assert_eq!(rest[4], "green");
            assert_eq!(sorted(&rest[5..9]), ["a late car goes", "car 1 goes", "car 2 goes", "car 3 goes"]);
            rest = &rest[9..];
        }
        assert_eq!(rest, ["red"]);
    });
}

/// The number of the daemon, when so many beats have been heard.
fn heart_that_beats(child: &mut procession::Child, beats: u32) -> u32 {
    let mut lines = child.lines();
    let mut said =
        std::iter::from_fn(|| lines.next()).map(|line| String::from_utf8(line.unwrap().bytes().to_vec()).unwrap());
    let heart = said.find_map(|line| line.strip_prefix("heart is process ")?.parse().ok()).unwrap();
    for beat in 1..=beats {
        assert_eq!(said.next().unwrap(), format!("beat {beat}"));
    }
    heart
}

#[test]
fn a_heart_beats_as_long_as_its_parent_lives() {
    alone!({
        // Left to itself the parent ends.
        let said = said_by("heartbeat", 3);
        let heart = said[0].strip_prefix("heart is process ").unwrap().parse().unwrap();
        assert_eq!(said[1..], ["beat 1", "beat 2", "beat 3", "the parent ends"]);
        wait_for("the end of the daemon", || !is_running(heart));
        // Killed it can do nothing for its children.
        let mut child = example("heartbeat", u32::MAX).stdout(Stdio::piped()).spawn().unwrap();
        let heart = heart_that_beats(&mut child, 2);
        assert!(is_running(heart));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL));
        wait_for("the end of the daemon", || !is_running(heart));
    });
}

#[test]
fn five_hundred_clients_get_their_lines_in_capitals() {
    alone!({
        let mut server = example("upper_server", 4).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = server.stdin.take().unwrap();
        let address: SocketAddr = {
            let mut lines = server.lines();
            let mut said = std::iter::from_fn(|| lines.next());
            said.find_map(|line| std::str::from_utf8(line.unwrap().bytes()).unwrap().parse().ok()).unwrap()
        };
        // All are there before the first of them has said anything.
        let clients: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(address).unwrap()).collect();
        for (number, mut client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(format!("client {number} says Straße\n").as_bytes()).unwrap();
        }
        let answers = clients.iter().map(|client| {
            let mut answer = String::new();
            BufReader::new(client).read_line(&mut answer).unwrap();
            answer
        });
        let expected: Vec<String> = (0..500).map(|number| format!("CLIENT {number} SAYS STRASSE\n")).collect();
        assert_eq!(answers.collect::<Vec<_>>(), expected);
        // The workers are stopped: nobody listens any more.
        drop(input);
        assert!(server.wait().unwrap().success());
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn the_end_of_the_first_process_ends_all() {
    alone!({
        assert_eq!(said_by("piped_processes", 0), ["0"]);
        assert_eq!(said_by("piped_processes", 10_000), ["333383335000"]);
    });
}

#[test]
fn a_dict_of_a_manager_loses_nothing() {
    alone!({
        let said = said_by("manager_dict", 100);
        assert_eq!(said, ["[(0, 10), (1, 20), (4, 20), (5, 10), (6, 20), (9, 20)]"]);
    });
}
