//! Many children on one thread: what is told, in which order, and that nobody waits for somebody else.

use crate::support::{alone, fixture};
use procession::{ChildSet, Command, Follow, News, Stream};
use std::time::{Duration, Instant};

#[test]
fn records_come_as_the_children_end() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let slow = set.start(&Command::shell("sleep 0.3; echo slow; exit 3")).unwrap();
        let quick = set.start(&Command::shell("cat; echo oops >&2").input("quick")).unwrap();
        let mut order = Vec::new();
        while let Some(news) = set.wait_any().unwrap() {
            let News::Exit { child, result } = news else { panic!("{news:?}") };
            let output = result.unwrap();
            order.push((child, output.stdout().to_vec(), output.stderr().to_vec(), output.status().code()));
        }
        assert_eq!(
            order,
            [(quick, b"quick".to_vec(), b"oops\n".to_vec(), Some(0)), (slow, b"slow\n".to_vec(), Vec::new(), Some(3)),]
        );
        assert!(set.is_empty());
    });
}

#[test]
fn lines_then_ends_then_the_exit() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        let child = set.start_and_follow(&Command::shell("echo one; echo two; printf three"), Follow::Lines).unwrap();
        let mut told = Vec::new();
        while let Some(news) = set.wait_any().unwrap() {
            told.push(match news {
                News::Line { child: of, line } => {
                    assert_eq!(of, child);
                    format!("line {line}")
                }
                News::End { stream: Stream::Stdout, .. } => "end".to_owned(),
                News::End { .. } => continue,
                News::Exit { result, .. } => format!("exit {}", result.unwrap().status()),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(told, ["line one", "line two", "line three", "end", "exit exit status: 0"]);
    });
}

#[test]
fn a_timeout_of_the_command_stops_it_and_keeps_what_it_said() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        set.start(&Command::shell("echo begun; sleep 60").timeout(Duration::from_millis(200))).unwrap();
        let begun = Instant::now();
        let Some(News::Exit { result, .. }) = set.wait_any().unwrap() else { panic!() };
        let error = result.unwrap_err();
        assert!(error.is_timeout() && error.output().stdout() == b"begun\n", "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn a_set_that_is_dropped_stops_what_is_in_it() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        for _ in 0..20 {
            set.start(&fixture("deaf").timeout(Duration::from_secs(60))).ok();
            set.start(&Command::new("sleep").arg("600")).unwrap();
        }
        drop(set);
    });
}

#[test]
fn a_thousand_children() {
    alone!({
        let mut set = ChildSet::new().unwrap();
        for number in 0..300 {
            set.start(&Command::new("echo").arg(number.to_string())).unwrap();
        }
        let mut sum = 0;
        for (_, result) in set.wait_all().unwrap() {
            sum += result.unwrap().check_text();
        }
        assert_eq!(sum, 300 * 299 / 2);
    });
}

trait Number {
    fn check_text(&self) -> u32;
}

impl Number for procession::Output {
    fn check_text(&self) -> u32 {
        self.stdout_text().unwrap().trim().parse().unwrap()
    }
}
