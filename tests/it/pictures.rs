//! The pictures of a pool's run: the summary, the progress on a terminal and elsewhere, the timeline as a trace and as a page in a real
//! browser.

use crate::support::alone;
use procession::pool::{Pool, Progress, Retry, Summary, Task};
use procession::{Command, Pty};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// As a person would name nothing: it would drive a terminal, and end the elements of a page.
const HOSTILE: &str = "</script><img src=x onerror=pwned()> \u{1b}[2J \"'` {{ 7*7 }} \u{2028} \u{202e}";

/// Six tasks: three succeed, one of them at the second try; one fails, one does not exist, one takes too long.
fn tasks() -> Vec<Task> {
    let flag = std::env::temp_dir().join(format!("procession-flag-{}", std::process::id()));
    let flaky = format!("rm {} 2>/dev/null || {{ touch {0}; kill -SEGV $$; }}", flag.display());
    vec![
        Task::new(Command::new("true").arg(HOSTILE)),
        Task::new(Command::new("true").secret_arg("hunter2")).name(format!("secret {HOSTILE}")),
        Task::new(Command::shell(flaky)).name("flaky").retry(Retry::times(1)),
        Task::new(Command::shell("echo first >&2; printf 'it \\033[31mbroke\\n' >&2; sleep 0.1; exit 3"))
            .name("failing"),
        Task::new(Command::new("no-such-program")),
        Task::new(Command::new("sleep").arg("30").timeout(Duration::from_millis(200))).name("slow"),
    ]
}

/// What was written to it.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn assert_visible(text: &str) {
    let controls: String = text.chars().filter(|&c| c != '\n' && c.is_control()).collect();
    assert_eq!(controls, "", "{text:?}");
}

#[test]
fn a_summary_of_a_run() {
    alone!({
        let summary = Summary::new();
        let done = Pool::new(2).observe(summary.clone()).map(tasks());
        assert_eq!(done.len(), 6);
        assert_eq!((summary.tasks(), summary.succeeded(), summary.failed(), summary.retries()), (6, 3, 3, 1));
        let ran: Duration = done.iter().map(|done| done.ran()).sum();
        assert!(summary.ran() >= ran && summary.wall() >= Duration::from_millis(200), "{summary:?}");
        let text = summary.to_string();
        assert!(text.starts_with("6 tasks in "), "{text}");
        assert!(text.contains(": 3 succeeded, 1 failed, 1 timed out, 1 could not be started\n"), "{text}");
        assert!(text.contains("it \\u{1b}[31mbroke\n") && !text.contains("first"), "{text}");
        assert!(text.contains("  not started  no-such-program\n   "), "what went wrong is below: {text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert_visible(&text);
    });
}

#[test]
fn progress_in_plain_lines() {
    alone!({
        let written = Written::default();
        let progress = Progress::to(written.clone()).total(6);
        let pool = Pool::new(1).observe(progress.clone());
        let done = pool.map(tasks());
        progress.finish();
        let text = written.text();
        assert_visible(&text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), done.len() + 2, "one more for the retry and for the whole: {text}");
        let starts = |start: &str| lines.iter().any(|line| line.starts_with(start));
        assert!(starts("[1/6] true \"</script>") && starts("[2/6] secret </script>"), "{text}");
        assert!(starts("[2/6] flaky: SIGSEGV (") && starts("[3/6] flaky: exit 0 ("), "{text}");
        assert!(starts("[4/6] failing: exit 3 (") && starts("[5/6] no-such-program: not started ("), "{text}");
        assert!(lines[6].starts_with("[6/6] slow: timed out ("), "{text}");
        assert!(lines[7].starts_with("[6/6] 3 succeeded, 1 failed, 1 timed out, 1 could not be started in "), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    });
}

const ON_A_TERMINAL: &str = "PROCESSION_TEST_ON_A_TERMINAL";

/// This test again, with standard error on a terminal or not.
fn again(test: &str) -> Command {
    let command = Command::new(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    command.env(ON_A_TERMINAL, "1").env("TERM", "xterm").timeout(Duration::from_secs(60))
}

#[test]
fn progress_on_a_terminal_and_elsewhere() {
    alone!({
        if std::env::var_os(ON_A_TERMINAL).is_some() {
            let progress = Progress::new().total(6);
            let pool = Pool::new(3).observe(progress.clone());
            pool.map(tasks());
            progress.suspend(|| eprintln!("said by others"));
            drop((pool, progress));
            eprintln!("after it");
            return;
        }
        let test = "pictures::progress_on_a_terminal_and_elsewhere";
        let elsewhere = again(test).output().unwrap();
        assert!(elsewhere.success(), "{elsewhere}");
        assert_visible(&elsewhere.stderr_lossy());
        assert!(elsewhere.stderr_lossy().contains("\nsaid by others\n[6/6] 3 succeeded, "), "{elsewhere}");

        let on_one = again(test).pty(Pty::new().size(24, 80)).output().unwrap();
        assert!(on_one.success(), "{on_one}");
        let text = on_one.stdout_lossy().replace('\r', "");
        assert!(text.contains("\nafter it\n"), "the line before it was ended: {text:?}");
        let has_bars = text.contains("\u{1b}[");
        assert_eq!(has_bars, cfg!(feature = "progress"), "{text:?}");
        assert!(text.contains("[6/6] 3 succeeded, 1 failed, 1 timed out, 1 could not be started in "), "{text:?}");
        // Neither what a task is called nor the bars leave the terminal in another state.
        assert!(!text.contains("\u{1b}[2J \"") && !text.contains("\u{1b}[?25l"), "{text:?}");
        assert!(text.contains("\\u{1b}[2J"), "{text:?}");
    });
}

#[cfg(feature = "timeline")]
mod timeline {
    use super::{HOSTILE, tasks};
    use crate::browser::{self, Browser};
    use crate::support::{Scratch, alone};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use procession::Command;
    use procession::pool::{Pool, Script, Scripted, Task, Timeline};
    use serde_json::{Value, json};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    #[test]
    fn a_trace_of_a_run() {
        alone!({
            let folder = Scratch::new();
            let timeline = Timeline::new();
            Pool::new(2).observe(timeline.clone()).map(tasks());
            timeline.write_chrome(folder.join("run.json")).unwrap();
            let text = std::fs::read_to_string(folder.join("run.json")).unwrap();
            assert!(!text.contains("hunter2"));
            let trace: Value = serde_json::from_str(&text).unwrap();
            let events = trace["traceEvents"].as_array().unwrap();
            let complete: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
            assert_eq!(complete.len(), 6, "five that ran, one of them twice: {text}");
            // In a slot one comes after the other.
            for slot in [1, 2] {
                let spans = complete.iter().filter(|event| event["tid"] == slot);
                let spans: Vec<(u64, u64)> = spans.map(|event| (number(&event["ts"]), number(&event["dur"]))).collect();
                assert!(spans.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{spans:?}");
            }
            let slow = complete.iter().find(|event| event["name"] == "slow").unwrap();
            assert!(number(&slow["dur"]) >= 200_000 && slow["args"]["status"] == "timed out", "{slow}");
            assert!(slow["args"]["command"].as_str().unwrap().starts_with("sleep 30"), "{slow}");
            let failing = complete.iter().find(|event| event["name"] == "failing").unwrap();
            assert!(
                failing["args"]["memory_max_bytes"].is_u64() && failing["args"]["cpu_user_us"].is_u64(),
                "{failing}"
            );
            assert!(number(&trace["otherData"]["start_unix_us"]) > 0);
        });
    }

    #[test]
    fn a_picture_that_cannot_be_written_leaves_the_old_one() {
        alone!({
            let folder = Scratch::new();
            let path = folder.file("run.html", 0o640, "the old one");
            let timeline = Timeline::new();
            Pool::new(2).observe(timeline.clone()).map(tasks());
            let names = || {
                std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
            };
            // SAFETY: ignoring a signal runs no code of ours.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
            setrlimit(Resource::RLIMIT_FSIZE, 1000, hard).unwrap();
            let error = timeline.write_html(&path).unwrap_err();
            setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
            // SAFETY: the default action runs no code of ours.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
            assert_eq!(error.raw_os_error(), Some(libc::EFBIG), "{error}");
            assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), names().len()), ("the old one", 1));
            timeline.write_html(&path).unwrap();
            assert!(std::fs::read_to_string(&path).unwrap().starts_with("<!doctype html>"));
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
            assert_eq!(names().len(), 1);
        });
    }

    fn number(value: &Value) -> u64 {
        value.as_u64().unwrap_or_else(|| panic!("{value}"))
    }

    const CHART: &str = "document.getElementById('chart')";
    const CARD: &str = "document.getElementById('card')";
    const SAID: &str = "document.getElementById('said').textContent";

    fn open(browser: &mut Browser, timeline: &Timeline, title: &str) {
        let folder = Scratch::new();
        let path = folder.join("run.html");
        timeline.write_html(&path).unwrap();
        browser.open(&path);
        browser.until(&format!("document.title === {}", json!(title)));
        browser.settle();
    }

    /// The box of an element: left, top, width, height.
    fn place(browser: &mut Browser, element: &str) -> [f64; 4] {
        let place =
            browser.value(&format!("(b => [b.left, b.top, b.width, b.height])({element}.getBoundingClientRect())"));
        [0, 1, 2, 3].map(|at| place[at].as_f64().unwrap())
    }

    fn drawn(browser: &mut Browser) -> String {
        browser.settle();
        browser.text(&format!("{CHART}.dataset.drawn"))
    }

    fn search(browser: &mut Browser, words: &str) -> String {
        browser.value("document.getElementById('search').select()");
        browser.value("document.getElementById('search').focus()");
        for letter in words.chars() {
            browser.press(&letter.to_string());
        }
        browser.until("document.getElementById('found').textContent !== ''");
        browser.settle();
        browser.text("document.getElementById('found').textContent")
    }

    /// Moves the mouse over the rows of the chart until the card says this; in small steps if large ones have missed it.
    fn hover(browser: &mut Browser, wanted: &str) -> String {
        let [left, top, width, height] = place(browser, CHART);
        for step in [30, 5] {
            for y in (38..height as u32).step_by(24) {
                for x in (80..width as u32).step_by(step) {
                    browser.mouse("mouseMoved", left + f64::from(x), top + f64::from(y));
                    let said = browser.text(&format!("{CARD}.hidden ? '' : {CARD}.innerText"));
                    if said.contains(wanted) {
                        return said;
                    }
                }
            }
        }
        panic!("nothing in the chart says {wanted}");
    }

    #[test]
    fn a_page_in_a_browser() {
        if !browser::is_here("a_page_in_a_browser") {
            return;
        }
        alone!({
            let mut browser = Browser::start(1200, 800);
            let timeline = Timeline::new();
            Pool::new(3).observe(timeline.clone()).map(tasks());
            assert!(!timeline.to_html().contains("hunter2"));
            open(&mut browser, &timeline, "6 tasks, 3 failed");
            browser.screenshot("run.png");

            // The bars: five tasks ran, one of them twice.
            let label = browser.text(&format!("{CHART}.getAttribute('aria-label')"));
            // How many of the three slots were needed is a matter of time.
            let slots = label.strip_prefix("Timeline: 6 bars in ").and_then(|rest| rest.split_once(" slots, "));
            assert!(slots.is_some_and(|(slots, _)| ["2", "3"].contains(&slots)), "{label}");
            assert_eq!(drawn(&mut browser), "6");
            let colors = format!(
                "new Set(new Uint32Array({CHART}.getContext('2d').getImageData(0, 0, {CHART}.width, {CHART}.height).data.buffer)).size"
            );
            assert!(browser.value(&colors).as_u64().unwrap() > 5, "it is empty");

            // By the mouse: command, status, times, processor time and memory.
            let said = hover(&mut browser, "timed out");
            browser.screenshot("hover.png");
            for part in ["slow", "sleep 30", "timed out", "ran\n", "from ", "waited", "slot "] {
                assert!(said.contains(part), "{part} is not in {said}");
            }
            let said = hover(&mut browser, "exit 3");
            assert!(said.contains("processor") && said.contains("user") && said.contains("memory"), "{said}");

            // By the keyboard.
            browser.value(&format!("{CHART}.focus()"));
            browser.press("End");
            browser.press("Home");
            let first = browser.text(SAID);
            assert!(first.contains("command ") && first.contains("; ran "), "{first}");
            assert!(!browser.value(&format!("{CARD}.hidden")).as_bool().unwrap());
            // From whichever slot it is in to the first one, and on to the second.
            for _ in 0..3 {
                browser.press("ArrowUp");
            }
            assert!(browser.text(SAID).contains("where slot 0, "));
            browser.press("ArrowDown");
            assert!(browser.text(SAID).contains("where slot 1, "));
            browser.press("Enter");
            browser.until("document.activeElement.closest('tr')?.classList.contains('chosen') === true");
            browser.press("Escape");
            assert!(browser.value(&format!("{CARD}.hidden")).as_bool().unwrap());

            // The table: the longest first, also what never ran.
            let rows = browser.value("[...document.querySelectorAll('#table tbody tr')].map(row => row.innerText)");
            let rows: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
            assert_eq!(rows.len(), 7, "{rows:?}");
            assert!(rows[0].starts_with("slow") && rows[6].contains("never ran"), "{rows:?}");

            assert_eq!(search(&mut browser, "pwned"), "2 of 7 match");
            assert_eq!(browser.value("document.querySelectorAll('#table tbody tr').length"), 2);
            browser.screenshot("found.png");

            // Nothing of a command has run, and nothing was asked of anybody.
            let shown = browser.text("document.querySelector('#table tbody').innerText");
            assert!(shown.contains(HOSTILE.split(' ').next().unwrap()), "{shown}");
            assert_eq!(browser.value("document.images.length + document.scripts.length"), 2);
            browser.media("prefers-color-scheme", "dark");
            browser.settle();
            assert_eq!(browser.text("getComputedStyle(document.body).backgroundColor"), "rgb(20, 24, 29)");
            browser.screenshot("dark.png");
            assert_eq!(browser.complaints, [""; 0]);
            browser.close();
        });
    }

    #[test]
    fn a_page_of_ten_thousand() {
        if !browser::is_here("a_page_of_ten_thousand") {
            return;
        }
        alone!({
            let mut browser = Browser::start(1200, 800);
            let engine = Scripted::new()
                .on_program("cc", Script::new().takes(Duration::from_millis(300)))
                .on_program("ld", Script::new().takes(Duration::from_millis(70)))
                .otherwise(Script::new().takes(Duration::from_millis(500)).exits(1));
            let timeline = Timeline::new();
            let pool = Pool::with_engine(16, engine).observe(timeline.clone());
            let programs = ["cc", "cc", "ld", "cc", "ld", "cc", "cc"].iter().cycle().take(9999).chain(&["test"]);
            let done = pool.imap(
                programs
                    .enumerate()
                    .map(|(number, program)| Task::new(Command::new(*program).arg(format!("file{number}.o")))),
            );
            assert_eq!(done.filter(|done| !done.success()).count(), 1);
            open(&mut browser, &timeline, "10000 tasks, 1 failed");
            assert_eq!(drawn(&mut browser), "10000");
            browser.screenshot("many.png");

            // By the wheel nearer, by a key back; by dragging to a part.
            let [left, top, width, height] = place(&mut browser, CHART);
            let (x, y) = (left + width / 2.0, top + height / 2.0);
            for _ in 0..8 {
                browser.wheel(x, y, -300.0);
            }
            browser.until(&format!("+{CHART}.dataset.drawn < 5000"));
            browser.screenshot("zoomed.png");
            browser.value(&format!("{CHART}.focus()"));
            browser.press("0");
            browser.until(&format!("{CHART}.dataset.drawn === '10000'"));
            browser.mouse("mousePressed", left + width * 0.5, y);
            browser.mouse("mouseMoved", left + width * 0.6, y);
            browser.mouse("mouseReleased", left + width * 0.6, y);
            browser.until(&format!("+{CHART}.dataset.drawn < 2000"));
            browser.press("0");

            assert_eq!(search(&mut browser, "exit 1"), "1 of 10000 match");
            let label = browser.text("document.querySelector('#table tbody button').textContent");
            assert_eq!(label, "test file9999.o");
            browser.value("document.querySelector('#table tbody button').click()");
            browser.screenshot("chosen.png");
            assert!(browser.text(SAID).contains("status exit 1"));
            assert_eq!(browser.complaints, [""; 0]);
            browser.close();
        });
    }
}
