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

/// Text that somebody chose, as one line of so many columns at most: control characters, line ends and what turns the direction of
/// writing are escaped. A character that is wide takes two columns.
pub(crate) fn visible_line(text: &str, columns_max: usize) -> String {
    let mut line = String::new();
    let (mut columns, mut before_last) = (0, 0);
    for character in text.chars() {
        let start = line.len();
        if character.is_control() || is_unseen(character) {
            line.extend(character.escape_default());
            columns += line.len() - start;
        } else {
            line.push(character);
            columns += columns_of(character);
        }
        if columns > columns_max {
            line.truncate(before_last);
            line.push('…');
            return line;
        }
        if columns < columns_max {
            // There is room for the sign that something is missing.
            before_last = line.len();
        }
    }
    line
}

/// Whether a character shows nothing itself and changes how others are shown, or where lines end.
fn is_unseen(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// How wide terminals show it. Roughly: who must know it exactly asks the terminal.
fn columns_of(character: char) -> usize {
    match character {
        '\u{300}'..='\u{36f}' => 0,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' => 2,
        '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' => 2,
        '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visible_line_is_one_line_of_a_bounded_width() {
        for (text, columns, line) in [
            ("", 5, ""),
            ("make all", 8, "make all"),
            ("make all", 7, "make a…"),
            ("make all", 1, "…"),
            ("a\nb\tc", 20, "a\\nb\\tc"),
            ("\u{1b}[2J", 20, "\\u{1b}[2J"),
            ("\u{9b}2J", 20, "\\u{9b}2J"),
            ("\u{1b}[2J", 6, "…"),
            ("ab\u{202e}cd\u{2028}", 40, "ab\\u{202e}cd\\u{2028}"),
            ("時間", 4, "時間"),
            ("時間", 3, "時…"),
            ("e\u{301}e\u{301}", 2, "e\u{301}e\u{301}"),
        ] {
            assert_eq!(visible_line(text, columns), line, "{text:?} in {columns}");
        }
    }
}
