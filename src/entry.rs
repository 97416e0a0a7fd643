//! A process in words: its number and its command line. Decides how lists of processes read, and that nothing a process chose
//! (its name, its output) can drive the terminal it is shown on.

use std::borrow::Cow;
use std::fmt;

/// A process as the process table shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEntry {
    /// Its number.
    pub pid: u32,
    /// Its command line, cut to a bearable length.
    pub command: String,
}

impl fmt::Display for ProcessEntry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.pid, self.command)
    }
}

/// `1 (sh), 2 (cat)`, or that nobody could be seen.
pub(crate) fn list(entries: &[ProcessEntry]) -> String {
    if entries.is_empty() {
        return "a process that cannot be seen".to_owned();
    }
    entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Writes text that a process chose: escape sequences must not reach a terminal through our messages.
pub(crate) fn write_visible(out: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.write_char(character)?,
            '\r' => {}
            control if control.is_control() => write!(out, "{}", control.escape_default())?,
            other => out.write_char(other)?,
        }
    }
    Ok(())
}

/// The beginning of a line that is too long to be shown.
pub(crate) fn shortened(line: &str, characters_max: usize) -> Cow<'_, str> {
    match line.char_indices().nth(characters_max) {
        Some((end, _)) => Cow::from(format!("{}…", line.get(..end).unwrap_or_default())),
        None => Cow::from(line),
    }
}

/// The last lines, bounded in number and in bytes.
pub(crate) fn tail(bytes: &[u8], lines_max: usize, bytes_max: usize) -> String {
    let text = String::from_utf8_lossy(bytes.get(bytes.len().saturating_sub(bytes_max)..).unwrap_or_default());
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines.get(lines.len().saturating_sub(lines_max)..).unwrap_or_default().join("\n")
}
