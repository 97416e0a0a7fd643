//! The bars of `progress` on a terminal: one for the whole, and a line for each task that runs. Decides how a picture looks;
//! when one is drawn is decided in `progress`.

use super::progress::{Board, Running};
use crate::entry;
use crate::explain::spoken;
use crate::sys;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// As many lines as these are left free on the terminal for what was there before.
const ROWS_FREE: usize = 4;
const ROWS_MAX: usize = 30;
const BAR_WIDTH: usize = 24;

/// A bar of many lines: all that changes is in its text, so that a picture is one write.
pub(super) struct Bars {
    bar: ProgressBar,
    text: Arc<Mutex<String>>,
    /// As it looks when it is to be seen.
    shown: ProgressStyle,
    /// Without any line.
    hidden: ProgressStyle,
    is_hidden: bool,
    size: fn() -> (usize, usize),
    /// Where lines that stay are written: the same terminal. Indicatif would fill them up with spaces and not end them.
    lines: Box<dyn io::Write + Send>,
}

impl Bars {
    /// None if the terminal can only write.
    pub(super) fn on_stderr() -> Option<Bars> {
        // Far above the pace of `progress`, which alone decides.
        let target = ProgressDrawTarget::stderr_with_hz(u8::MAX);
        if target.is_hidden() { None } else { Bars::new(target, size_of_stderr, io::stderr()) }
    }

    fn new(
        target: ProgressDrawTarget,
        size: fn() -> (usize, usize),
        lines: impl io::Write + Send + 'static,
    ) -> Option<Bars> {
        let text = Arc::new(Mutex::new(String::new()));
        let written = text.clone();
        let style = ProgressStyle::with_template(&format!("{{bar:{BAR_WIDTH}}} {{pos}}/{{len}} {{text}}")).ok()?;
        let shown = style.progress_chars("=> ").with_key("text", move |_: &_, out: &mut dyn Write| {
            // A picture that cannot be written is not seen.
            let _ = out.write_str(&written.lock().unwrap_or_else(PoisonError::into_inner));
        });
        let hidden = ProgressStyle::with_template("").ok()?;
        let bar = ProgressBar::with_draw_target(Some(0), target).with_style(hidden.clone());
        Some(Bars { bar, text, shown, hidden, is_hidden: true, size, lines: Box::new(lines) })
    }

    /// A new picture.
    pub(super) fn draw(&mut self, board: &Board, now: Instant) {
        self.show();
        let text = self.compose(board, now);
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
        self.bar.update(|state| {
            state.set_len(board.total());
            state.set_pos(board.ended());
        });
    }

    /// How wide a line can be.
    pub(super) fn columns(&self) -> usize {
        (self.size)().1
    }

    /// Nothing is to be seen of it any more, until it is drawn again.
    pub(super) fn hide(&mut self) {
        if !self.is_hidden {
            self.is_hidden = true;
            self.bar.set_style(self.hidden.clone());
            self.bar.force_draw();
        }
    }

    /// A line that stays, in the place of the bars; they come again below it when they are drawn.
    pub(super) fn say(&mut self, line: &str) {
        self.hide();
        // A terminal that is gone is no reason to stop a run.
        let _ = self.lines.write_all(format!("{line}\n").as_bytes());
        let _ = self.lines.flush();
    }

    fn show(&mut self) {
        if self.is_hidden {
            self.is_hidden = false;
            self.bar.set_style(self.shown.clone());
        }
    }

    fn compose(&self, board: &Board, now: Instant) -> String {
        let (rows, columns) = (self.size)();
        let counted = format!("{}/{} ", board.ended(), board.total()).len();
        let first_columns = columns.saturating_sub(BAR_WIDTH + 2 + counted);
        let to_go = match self.bar.eta() {
            eta if eta.is_zero() || board.ended() == 0 => String::new(),
            eta => format!(", about {} to go", spoken(eta)),
        };
        let mut text = entry::visible_line(&format!("{}{to_go}", board.state(now)), first_columns);
        let running = board.running();
        let shown_max = rows.saturating_sub(ROWS_FREE).clamp(1, ROWS_MAX);
        for running in running.iter().take(shown_max) {
            text.push('\n');
            text.push_str(&line_of(running, now, columns));
        }
        match running.len().saturating_sub(shown_max) {
            0 => {}
            more => text.push_str(&format!("\n  and {more} more")),
        }
        text
    }
}

/// A bar that is dropped is drawn once more.
impl Drop for Bars {
    fn drop(&mut self) {
        self.hide();
    }
}

fn line_of(running: &Running, now: Instant, columns: usize) -> String {
    let elapsed = spoken(now.saturating_duration_since(running.since));
    // One column is left free: some terminals begin a new line when the last one is used.
    entry::visible_line(&format!("  {:>3} {elapsed:>10}  {}", running.slot, running.label), columns.saturating_sub(1))
}

/// Rows and columns.
fn size_of_stderr() -> (usize, usize) {
    match sys::pty::size(io::stderr().as_fd()) {
        Ok((rows, columns)) if rows > 0 && columns > 0 => (usize::from(rows), usize::from(columns)),
        _ => (24, 80),
    }
}

#[cfg(test)]
mod tests {
    use super::super::done::{Outcome, TaskId};
    use super::super::observe::Observer;
    use super::super::progress::Progress;
    use super::super::sample::{Sample, run_start};
    use super::*;
    use indicatif::TermLike;
    use std::io::Write as _;

    const ROWS: usize = 10;
    const COLUMNS: usize = 60;

    /// A terminal that keeps what its screen and the rows above it would show.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<Cells>>);

    #[derive(Debug, Default)]
    struct Cells {
        rows: Vec<Vec<char>>,
        row: usize,
        column: usize,
    }

    impl Cells {
        fn put(&mut self, character: char) {
            if character == '\n' || self.column == COLUMNS {
                (self.row, self.column) = (self.row + 1, 0);
            }
            self.rows.resize(self.rows.len().max(self.row + 1), vec![' '; COLUMNS]);
            if character != '\n' {
                assert!(!character.is_control(), "{character:?}");
                self.rows[self.row][self.column] = character;
                self.column += 1;
            }
        }
    }

    impl Screen {
        fn change(&self, change: impl FnOnce(&mut Cells)) -> io::Result<()> {
            change(&mut self.0.lock().unwrap());
            Ok(())
        }

        fn lines(&self) -> Vec<String> {
            let cells = self.0.lock().unwrap();
            let all = cells.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned());
            let mut lines: Vec<_> = all.collect();
            lines.truncate(lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1));
            lines
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            COLUMNS as u16
        }
        fn height(&self) -> u16 {
            ROWS as u16
        }
        fn move_cursor_up(&self, count: usize) -> io::Result<()> {
            self.change(|cells| cells.row -= count)
        }
        fn move_cursor_down(&self, count: usize) -> io::Result<()> {
            self.change(|cells| cells.row += count)
        }
        fn move_cursor_right(&self, count: usize) -> io::Result<()> {
            self.change(|cells| cells.column = (cells.column + count).min(COLUMNS))
        }
        fn move_cursor_left(&self, count: usize) -> io::Result<()> {
            self.change(|cells| cells.column = cells.column.saturating_sub(count))
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)?;
            self.write_str("\n")
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.change(|cells| text.chars().for_each(|character| cells.put(character)))
        }
        fn clear_line(&self) -> io::Result<()> {
            self.change(|cells| {
                cells.column = 0;
                let row = cells.row;
                if let Some(row) = cells.rows.get_mut(row) {
                    row.fill(' ');
                }
            })
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    impl io::Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_str(std::str::from_utf8(bytes).unwrap()).map(|()| bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn on(screen: &Screen) -> Bars {
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        Bars::new(target, || (ROWS, COLUMNS), screen.clone()).unwrap()
    }

    fn running(progress: &mut Progress, count: u64) {
        let start = run_start();
        for id in 0..count {
            let sample = Sample::new(start, id, &format!("task {id}\u{1b}[2J")).slot(id as usize).ran(id, 5000);
            sample.tell_submitted(progress);
            sample.tell_started(progress, 1, None);
        }
    }

    #[test]
    fn a_picture_of_a_run() {
        let screen = Screen::default();
        let mut progress = Progress::with_bars(on(&screen)).total(5);
        running(&mut progress, 2);
        let bar = format!("{:24}", "");
        assert_eq!(
            screen.lines(),
            [
                format!("{bar} 0/5 2 running, 1 ms"),
                "    0       1 ms  task 0\\u{1b}[2J".to_owned(),
                "    1       0 ms  task 1\\u{1b}[2J".to_owned(),
            ]
        );
        let start = run_start();
        let long = "a label that goes on and on, beyond the end of the line";
        Sample::new(start, 0, long).slot(0).exits(1).tell_finished(&mut progress);
        Sample::new(start, 7, long).slot(0).tell_started(&mut progress, 1, None);
        let lines = screen.lines();
        assert_eq!(lines[0], "[1/5] a label that goes on and on, beyond th…: exit 1 (0 ms)");
        assert!(lines[1].starts_with("====> "), "{lines:?}");
        assert!(lines[1].contains(" 1/5 1 failed, 2 running"), "{lines:?}");
        assert_eq!(lines[2], "    0       0 ms  a label that goes on and on, beyond the …");
        assert_eq!((lines[0].chars().count(), lines[2].chars().count(), lines.len()), (60, 59, 4));
        progress.suspend(|| {
            assert_eq!(screen.lines(), lines[..1]);
            writeln!(screen.clone(), "others").unwrap();
        });
        assert_eq!((&screen.lines()[1], &screen.lines()[3..]), (&"others".to_owned(), &lines[2..]));
        drop(progress);
        let lines = screen.lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[2].starts_with("[1/5] 1 failed, 2 running, "), "{lines:?}");
        let cells = screen.0.lock().unwrap();
        assert_eq!((cells.row, cells.column), (3, 0), "the cursor is where the next line begins");
    }

    #[test]
    fn a_terminal_of_few_rows_is_not_filled() {
        let screen = Screen::default();
        let mut progress = Progress::with_bars(on(&screen));
        running(&mut progress, 9);
        let lines = screen.lines();
        assert_eq!(lines.len(), 8, "{lines:?}");
        assert_eq!(lines[7], "  and 3 more");
    }

    #[test]
    fn what_has_seen_nothing_shows_nothing() {
        let screen = Screen::default();
        drop(Progress::with_bars(on(&screen)));
        assert_eq!(screen.lines(), [""; 0]);
        let progress = Progress::with_bars(on(&screen));
        progress.tick();
        progress.suspend(|| ());
        progress.finish();
        assert_eq!(screen.lines(), [""; 0]);
    }

    #[test]
    fn a_suspension_ends_with_a_panic_and_takes_news() {
        let screen = Screen::default();
        let mut progress = Progress::with_bars(on(&screen));
        running(&mut progress, 1);
        let handle = progress.clone();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            handle.suspend(|| {
                handle.suspend(|| running(&mut progress, 3));
                assert_eq!(screen.lines(), [""; 0]);
                panic!("on purpose");
            })
        }));
        assert!(caught.is_err());
        let output = crate::Output::default();
        progress.see(&crate::pool::TaskNews::Retrying {
            label: "b",
            attempt: 1,
            result: Ok(&output),
            id: TaskId(2),
            outcome: Outcome::TimedOut,
            pause: std::time::Duration::ZERO,
            at: run_start(),
        });
        let lines = screen.lines();
        assert!(lines[0].starts_with("[0/4] task 2\\u{1b}[2J: timed out ("), "{lines:?}");
        assert!(lines[0].ends_with("), again at once"), "{lines:?}");
        progress.finish();
        assert_eq!(screen.lines().len(), 2);
        running(&mut progress, 1);
        assert!(screen.lines().len() > 2, "it goes on");
    }
}
