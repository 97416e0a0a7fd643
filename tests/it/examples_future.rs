//! The examples of tasks, for what comes out of them.

use crate::support::{Scratch, alone};
use std::time::{Duration, Instant};

#[allow(dead_code)] // its main
#[path = "../../examples/crawler.rs"]
mod crawler;
#[allow(dead_code)] // its main
#[path = "../../examples/eat_and_play.rs"]
mod eat_and_play;
#[allow(dead_code)] // its main
#[path = "../../examples/joinall.rs"]
mod joinall;
#[allow(dead_code)] // its main
#[path = "../../examples/upper_server_async.rs"]
mod upper_server_async;

#[test]
fn both_take_turns() {
    alone!({
        let done = eat_and_play::eat_and_play().unwrap();
        assert_eq!(done.first().map(String::as_str), Some("eats soup"));
        let eaten: Vec<_> = done.iter().filter(|words| words.starts_with("eats")).collect();
        assert_eq!(eaten, ["eats soup", "eats fish", "eats cake"]);
        let played: Vec<_> = done.iter().filter(|words| words.starts_with("plays")).collect();
        assert_eq!(played, ["plays chess", "plays tag", "plays cards"]);
    });
}

#[test]
fn all_are_joined() {
    alone!({
        let (mut squares, first, in_time) = joinall::squares().unwrap();
        squares.sort_unstable();
        assert_eq!(squares, (1..=100).map(|number| number * number).collect::<Vec<u64>>());
        assert_eq!((first, in_time), (1, 1));
    });
}

#[test]
fn five_hundred_clients_are_served_on_one_thread() {
    alone!({
        let (served, answers) = upper_server_async::upper_server(500).unwrap();
        let expected: Vec<String> = (0..500).map(|number| format!("CLIENT {number} SAYS STRASSE\n")).collect();
        assert_eq!((served, answers), (500, expected));
    });
}

#[test]
fn a_site_is_crawled_whatever_its_pages_do() {
    alone!({
        let site = Scratch::new();
        crawler::make_site(site.path()).unwrap();
        let begin = Instant::now();
        let pages = crawler::crawl(crawler::fetch_file(site.path()), "page0", 8).unwrap();
        let came = |name: &str| pages.get(name).copied();
        assert_eq!(came("page0"), Some(crawler::Fetched::Page { links: 3 }));
        assert_eq!((came("page7"), came("page60")), (Some(crawler::Fetched::TooSlow), Some(crawler::Fetched::Missing)));
        // Each once: 0 to 60, of which one never comes and one is not there.
        assert_eq!(pages.len(), 61);
        let whole = pages.values().filter(|came| matches!(came, crawler::Fetched::Page { links: 3 })).count();
        assert_eq!(whole, 59);
        assert!(begin.elapsed() >= Duration::from_millis(500));
    });
}
