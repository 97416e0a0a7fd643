//! A crawler over commands: every page is fetched by a command of its own, a few at a time on one thread, each within its time, and what a page
//! links to is crawled next. By itself it crawls a small site that it makes in a scratch folder: sixty pages that link to each other, one that never
//! comes, and links to one that is not there. With a command, in which `{}` stands for the address, and an address to begin with, it crawls what
//! that can fetch: `crawler 'curl -sf {}' http://localhost:8000/`.

use procession::future::{Queue, killall, try_scope};
use procession::pool::Template;
use procession::{Command, Error};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

/// What came of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    Page { links: usize },
    Missing,
    TooSlow,
}

/// Fetches a page and all that can be reached from it, by so many commands at a time. What came of each, by its address.
pub(crate) fn crawl(
    fetch: impl Fn(&str) -> Command,
    start: &str,
    width: usize,
) -> Result<BTreeMap<String, Fetched>, Error> {
    let (seen, pages) = (RefCell::new(BTreeSet::from([start.to_owned()])), RefCell::new(BTreeMap::new()));
    let waiting = Queue::<String>::unbounded();
    try_scope(|scope| {
        let worker = async || {
            loop {
                let address = waiting.get().await;
                let page = fetch(&address).future().check_output_text().await;
                let came = match page {
                    Ok(text) => {
                        let links = links_of(&text);
                        for link in &links {
                            if seen.borrow_mut().insert(link.clone()) {
                                waiting.put(link.clone()).await;
                            }
                        }
                        Fetched::Page { links: links.len() }
                    }
                    Err(error) if error.is_timeout() => Fetched::TooSlow,
                    Err(_) => Fetched::Missing,
                };
                pages.borrow_mut().insert(address, came);
                // Whoever works goes on until he is killed.
                if let Err(error) = waiting.task_done() {
                    return error;
                }
            }
        };
        let workers: Vec<_> = (0..width).map(|_| scope.spawn(worker())).collect();
        scope.block_on(async {
            waiting.put(start.to_owned()).await;
            waiting.join().await;
            killall(&workers, None).await;
        })
    })?;
    Ok(pages.into_inner())
}

/// The addresses in `href="..."`.
fn links_of(page: &str) -> Vec<String> {
    page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// Pages that link to each other, as files: page 7 never comes, and page 60 is not there.
pub(crate) fn make_site(folder: &Path) -> io::Result<()> {
    for number in 0..60 {
        let links = [number * 2 + 1, number * 2 + 2, (number + 13) % 60].map(|link| link.min(60));
        let links = links.map(|link| format!("<a href=\"page{link}\">{link}</a>"));
        fs::write(folder.join(format!("page{number}")), links.concat())?;
    }
    fs::remove_file(folder.join("page7"))?;
    Command::new("mkfifo").arg(folder.join("page7")).check_call().map_err(io::Error::from)
}

/// Reads a page of that site: opening the one that never comes waits for a writer.
pub(crate) fn fetch_file(folder: &Path) -> impl Fn(&str) -> Command {
    let folder = folder.to_owned();
    move |page| Command::new("cat").arg(folder.join(page)).timeout(Duration::from_millis(500))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let pages = match (arguments.next(), arguments.next()) {
        (Some(template), Some(start)) => {
            let template = Template::from(Command::parse(template)?.timeout(Duration::from_secs(10)));
            let fetch = |address: &str| template.fill(1, &[address.into()]);
            crawl(fetch, &start, 8)?
        }
        _ => {
            let folder: PathBuf = env::temp_dir().join(format!("crawler-{}", std::process::id()));
            fs::create_dir(&folder)?;
            let pages = make_site(&folder).map_err(Error::from).and_then(|()| crawl(fetch_file(&folder), "page0", 8));
            fs::remove_dir_all(&folder)?;
            pages?
        }
    };
    let count = |wanted: fn(&Fetched) -> bool| pages.values().filter(|came| wanted(came)).count();
    println!(
        "{} pages, {} missing, {} too slow",
        count(|came| matches!(came, Fetched::Page { .. })),
        count(|came| *came == Fetched::Missing),
        count(|came| *came == Fetched::TooSlow),
    );
    Ok(())
}
