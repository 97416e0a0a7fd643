//! A command with placeholders. Values are put in as they are: an argument stays one argument, and no shell ever sees it. Pure.

use crate::command::{Arg, Command, Program};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A command in whose arguments placeholders stand for values.
///
/// | placeholder | stands for |
/// |---|---|
/// | `{}` | all values; alone in an argument, each becomes an argument |
/// | `{1}`, `{2}` .. | one of them |
/// | `{.}`, `{1.}` | without its last extension |
/// | `{/}`, `{1/}` | without its directories |
/// | `{//}`, `{1//}` | its directory |
/// | `{/.}`, `{1/.}` | without directories and extension |
/// | `{#}` | the number of the task, from 1 |
///
/// If the command has no placeholder the values are put behind its arguments. Braces that are none of these stay as they are.
///
/// ```
/// use procession::Command;
/// use procession::pool::Template;
///
/// let template = Template::from(Command::new("convert").args(["{}", "{.}.png"]));
/// assert_eq!(template.fill(1, &["a b.jpg".into()]).to_string(), "convert 'a b.jpg' 'a b.png'");
/// ```
#[derive(Clone, Debug)]
pub struct Template {
    command: Command,
    has_placeholder: bool,
}

impl From<Command> for Template {
    fn from(command: Command) -> Template {
        let is_one = |text: &OsStr| pieces(text.as_bytes()).iter().any(|piece| !matches!(piece, Piece::Text(_)));
        let has_placeholder = command.args.iter().any(|arg| is_one(&arg.text)) || is_one(command.get_program());
        Template { command, has_placeholder }
    }
}

impl Template {
    /// The command for these values; `number` is that of the task.
    pub fn fill(&self, number: usize, values: &[OsString]) -> Command {
        let mut command = self.command.clone();
        if !self.has_placeholder {
            return command.args(values.iter().cloned());
        }
        if let Program::Name(name) = &mut command.program {
            *name = filled(name, number, values);
        }
        let mut args = Vec::with_capacity(command.args.len());
        for arg in std::mem::take(&mut command.args) {
            if arg.text.as_bytes() == b"{}" {
                args.extend(values.iter().map(|value| Arg { text: value.clone(), secret: arg.secret }));
            } else {
                args.push(Arg { text: filled(&arg.text, number, values), secret: arg.secret });
            }
        }
        command.args = args;
        command
    }
}

/// A part of an argument.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a [u8]),
    Number,
    /// Which value (all if none is named), and what of it.
    Value(Option<usize>, Form),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    WithoutExtension,
    Name,
    Directory,
    Stem,
}

fn pieces(text: &[u8]) -> Vec<Piece<'_>> {
    let (mut pieces, mut rest, mut begun) = (Vec::new(), text, 0);
    while let Some(open) = rest.get(begun..).and_then(|tail| tail.iter().position(|&byte| byte == b'{')) {
        let open = begun + open;
        let close = rest.get(open..).and_then(|tail| tail.iter().position(|&byte| byte == b'}')).map(|at| open + at);
        let Some(close) = close else { break };
        let Some(piece) = rest.get(open + 1..close).and_then(placeholder) else {
            begun = open + 1;
            continue;
        };
        let (before, _) = rest.split_at(open);
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(piece);
        (_, rest) = rest.split_at(close + 1);
        begun = 0;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

fn placeholder(inside: &[u8]) -> Option<Piece<'static>> {
    if inside == b"#" {
        return Some(Piece::Number);
    }
    let digits = inside.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, form) = inside.split_at(digits);
    let form = match form {
        b"" => Form::Whole,
        b"." => Form::WithoutExtension,
        b"/" => Form::Name,
        b"//" => Form::Directory,
        b"/." => Form::Stem,
        _ => return None,
    };
    let number = match std::str::from_utf8(number).ok()? {
        "" => None,
        number => Some(number.parse().ok().filter(|number| *number > 0)?),
    };
    Some(Piece::Value(number, form))
}

fn filled(text: &OsStr, number: usize, values: &[OsString]) -> OsString {
    let mut bytes = Vec::new();
    for piece in pieces(text.as_bytes()) {
        match piece {
            Piece::Text(text) => bytes.extend_from_slice(text),
            Piece::Number => bytes.extend_from_slice(number.to_string().as_bytes()),
            Piece::Value(Some(place), form) => {
                let value = place.checked_sub(1).and_then(|place| values.get(place));
                bytes.extend_from_slice(value.map_or(b"", |value| part(value.as_bytes(), form)));
            }
            Piece::Value(None, form) => {
                let parts: Vec<&[u8]> = values.iter().map(|value| part(value.as_bytes(), form)).collect();
                bytes.extend_from_slice(&parts.join(&b' '));
            }
        }
    }
    OsString::from_vec(bytes)
}

fn part(value: &[u8], form: Form) -> &[u8] {
    let slash = value.iter().rposition(|&byte| byte == b'/');
    let name_at = slash.map_or(0, |slash| slash + 1);
    let (directory, name) = value.split_at(name_at);
    // A dot at the beginning of a name begins no extension.
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|dot| *dot > 0);
    let end = dot.unwrap_or(name.len());
    match form {
        Form::Whole => value,
        Form::WithoutExtension => value.get(..name_at + end).unwrap_or(value),
        Form::Name => name,
        Form::Stem => name.get(..end).unwrap_or(name),
        Form::Directory => match directory {
            [] => b".",
            [b'/'] => b"/",
            [directory @ .., _] => directory,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders() {
        let value = ["dir.d/a b.tar.gz".into(), "/x".into()];
        for (text, expected) in [
            ("{}", "dir.d/a b.tar.gz /x"),
            ("<{1}>", "<dir.d/a b.tar.gz>"),
            ("{2}{1.}", "/xdir.d/a b.tar"),
            ("{1/}", "a b.tar.gz"),
            ("{1/.}", "a b.tar"),
            ("{1//} {2//}", "dir.d /"),
            ("{#}:{3}:{0}", "7::{0}"),
            ("${HOME} {a} {", "${HOME} {a} {"),
            ("{{1}}", "{dir.d/a b.tar.gz}"),
            ("{99999999999999999999}", "{99999999999999999999}"),
        ] {
            assert_eq!(filled(OsStr::new(text), 7, &value), expected, "{text}");
        }
        assert_eq!(part(b"name", Form::Directory), b".");
        assert_eq!(part(b".hidden", Form::WithoutExtension), b".hidden");
        assert_eq!(part(b"d.d/.h", Form::Stem), b".h");
    }

    #[test]
    fn an_argument_stays_one_argument() {
        let template = Template::from(Command::new("rm"));
        let command = template.fill(1, &["a b; rm -rf /".into(), "$(x)".into()]);
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["a b; rm -rf /", "$(x)"]);
        let template = Template::from(Command::new("cp").args(["{}", "to"]));
        let command = template.fill(1, &["a b".into(), "".into()]);
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["a b", "", "to"]);
    }
}
