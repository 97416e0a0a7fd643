//! How a line of the run log looks, and what is read from one. Pure: the clock is passed in.

use super::super::done::{Done, Outcome};
use super::Known;
use super::key::Hash;
use crate::output::Captured;
use crate::signal::Signal;
use crate::sys::clock;
use crate::sys::procfs::without_secrets;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::time::{Duration, Instant, SystemTime};

/// The version of the lines that are written here.
const VERSION: u64 = 1;

/// The same moment on two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wall {
    pub(super) instant: Instant,
    pub(super) time: SystemTime,
}

impl Wall {
    pub(super) fn now() -> Wall {
        Wall { instant: Instant::now(), time: SystemTime::now() }
    }

    /// What a clock on the wall showed at a moment.
    fn at(self, moment: Instant) -> String {
        let before = self.instant.saturating_duration_since(moment);
        let after = moment.saturating_duration_since(self.instant);
        let time = self.time.checked_sub(before).and_then(|time| time.checked_add(after));
        clock::utc(time.unwrap_or(self.time)).to_string()
    }
}

/// The line for a task that has ended, without a line end.
pub(super) fn write(done: &Done, known: Option<&Known>, wall: Wall) -> String {
    let output = done.output();
    let (key, unkeyed) = match known.map(|known| &known.key) {
        Some(Ok(key)) => (Some(key), None),
        Some(Err(reason)) => (None, Some(reason.as_str())),
        None => (None, Some("its submission was not seen")),
    };
    let secrets = known.map(|known| known.secrets.as_slice()).unwrap_or_default();
    let error = done.result().err().map(|error| masked(error.summary(), secrets));
    let usage = output.usage().map(|usage| {
        json!({
            "user": usage.user.as_secs_f64(),
            "system": usage.system.as_secs_f64(),
            "resident_max": usage.resident_max,
        })
    });
    let mut line = Line::default();
    line.field("v", VERSION);
    line.field("key", key.map(Hash::to_string));
    line.field("unkeyed", unkeyed);
    line.field("task", known.map(|known| known.task.to_string()));
    line.field("label", done.label());
    line.field("name", done.name());
    line.field("group", done.group());
    line.field("command", done.command());
    outcome(done.outcome, &mut line);
    line.field("success", done.success());
    line.field("attempts", done.attempts);
    line.field("submitted", wall.at(done.submitted));
    line.field("started", done.started.map(|started| wall.at(started)));
    line.field("ended", wall.at(done.ended));
    line.field("waited", done.waited().as_secs_f64());
    line.field("ran", done.ran().as_secs_f64());
    line.field("usage", usage);
    line.field("place", done.place());
    line.field("slot", done.slot);
    line.field("stdout", stream(&output.stdout));
    line.field("stderr", stream(&output.stderr));
    line.field("error", error);
    line.end()
}

fn outcome(outcome: Outcome, line: &mut Line) {
    match outcome {
        Outcome::Exited(code) => {
            line.field("outcome", "exited");
            line.field("code", code);
        }
        Outcome::Signalled { signal, exact } => {
            line.field("outcome", "signalled");
            line.field("signal", signal.number());
            line.field("exact", exact);
        }
        Outcome::TimedOut => line.field("outcome", "timed-out"),
        Outcome::Overflowed => line.field("outcome", "overflowed"),
        Outcome::Cancelled { confirmed } => {
            line.field("outcome", "cancelled");
            line.field("confirmed", confirmed);
        }
        Outcome::NotStarted => line.field("outcome", "not-started"),
        Outcome::EngineFailed { retryable } => {
            line.field("outcome", "engine-failed");
            line.field("retryable", retryable);
        }
    }
}

fn stream(captured: &Captured) -> Value {
    json!({ "bytes": captured.total(), "file": captured.spilled().map(|path| path.to_string_lossy()) })
}

/// An engine may quote the command in its own words.
fn masked(text: String, secrets: &[OsString]) -> String {
    String::from_utf8_lossy(&without_secrets(text.into_bytes(), secrets)).into_owned()
}

/// An object whose fields stay in the order in which they are written.
#[derive(Default)]
struct Line(String);

impl Line {
    fn field(&mut self, name: &str, value: impl Into<Value>) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&format!("\"{name}\":{}", value.into()));
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// What is read from a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: Option<Hash>,
    pub(super) task: Option<Hash>,
    pub(super) outcome: Outcome,
    pub(super) success: bool,
    pub(super) ran: Duration,
}

/// Reads a line, or says what is wrong with it. Fields that are not known are of a later time and are passed over.
pub(super) fn read(line: &[u8]) -> Result<Entry, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| match error.is_eof() {
        true => "cut short".to_owned(),
        false => "no JSON".to_owned(),
    })?;
    let object = value.as_object().ok_or("no JSON object")?;
    match object.get("v").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(version) => return Err(format!("written by another version: {version}")),
        None => return Err("no line of a run log".to_owned()),
    }
    let ran = object.get("ran").and_then(Value::as_f64).and_then(|ran| Duration::try_from_secs_f64(ran).ok());
    Ok(Entry {
        key: hash(object, "key")?,
        task: hash(object, "task")?,
        outcome: read_outcome(object).ok_or("no outcome")?,
        success: flag(object, "success").ok_or("no success")?,
        ran: ran.ok_or("no duration")?,
    })
}

fn hash(object: &Map<String, Value>, name: &str) -> Result<Option<Hash>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_str().and_then(Hash::parse).map(Some).ok_or_else(|| format!("{name} is no key")),
    }
}

fn flag(object: &Map<String, Value>, name: &str) -> Option<bool> {
    object.get(name)?.as_bool()
}

fn number(object: &Map<String, Value>, name: &str) -> Option<i32> {
    object.get(name)?.as_i64()?.try_into().ok()
}

fn read_outcome(object: &Map<String, Value>) -> Option<Outcome> {
    Some(match object.get("outcome")?.as_str()? {
        "exited" => Outcome::Exited(number(object, "code")?),
        "signalled" => {
            let signal = Signal::from_number(number(object, "signal")?)?;
            Outcome::Signalled { signal, exact: flag(object, "exact")? }
        }
        "timed-out" => Outcome::TimedOut,
        "overflowed" => Outcome::Overflowed,
        "cancelled" => Outcome::Cancelled { confirmed: flag(object, "confirmed")? },
        "not-started" => Outcome::NotStarted,
        "engine-failed" => Outcome::EngineFailed { retryable: flag(object, "retryable")? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::done::TaskId;
    use super::super::super::task::Task;
    use super::super::key;
    use super::*;
    use crate::command::Command;
    use crate::error::{Error, ErrorKind};
    use crate::output::{Output, Usage};
    use crate::status::ExitStatus;
    use std::time::UNIX_EPOCH;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    /// What version 1 has written. These bytes are in people's files: they must be understood for ever.
    const YESTERDAY: &str = concat!(
        r#"{"v":1,"key":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff","unkeyed":null,"#,
        r#""task":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff","#,
        r#""label":"link","name":"link","group":null,"command":"ld -o \"a\\nb\" ***","outcome":"exited","code":3,"#,
        r#""success":false,"attempts":2,"submitted":"2024-02-29T12:34:56.789Z","started":"2024-02-29T12:34:57.039Z","#,
        r#""ended":"2024-02-29T12:34:58.539Z","waited":0.25,"ran":1.5,"usage":{"resident_max":4096,"system":0.25,"user":1.0},"#,
        r#""place":"local","slot":4,"stdout":{"bytes":5,"file":"/tmp/out"},"stderr":{"bytes":0,"file":null},"error":null}"#,
    );

    fn known(secrets: &[&str]) -> Known {
        let hash = Hash::parse(KEY).unwrap();
        Known { task: hash, key: Ok(hash), secrets: secrets.iter().map(OsString::from).collect() }
    }

    /// A task that ran for a second and a half, and the clock at its end.
    fn done() -> (Done, Wall) {
        let output = Output {
            command: "ld -o \"a\\nb\" ***".to_owned(),
            status: Some(ExitStatus::from_code(3)),
            usage: Some(Usage { user: Duration::from_secs(1), system: Duration::from_millis(250), resident_max: 4096 }),
            stdout: Captured { total: 5, spilled: Some("/tmp/out".into()), ..Captured::default() },
            ..Output::default()
        };
        let start = Instant::now();
        let moment = |millis| start + Duration::from_millis(millis);
        let done = Done {
            name: Some("link".into()),
            attempts: 2,
            slot: 4,
            submitted: start,
            started: Some(moment(250)),
            ended: moment(1750),
            ..Done::of(TaskId(1), Ok(output))
        };
        let time = UNIX_EPOCH + Duration::from_millis(1_709_210_096_789);
        (done, Wall { instant: moment(1000), time: time + Duration::from_secs(1) })
    }

    #[test]
    fn a_line_has_these_bytes() {
        let (done, wall) = done();
        assert_eq!(write(&done, Some(&known(&[])), wall), YESTERDAY);
    }

    #[test]
    fn yesterdays_bytes_are_understood() {
        let hash = Hash::parse(KEY);
        let (outcome, ran) = (Outcome::Exited(3), Duration::from_millis(1500));
        let expected = Entry { key: hash, task: hash, outcome, success: false, ran };
        assert_eq!(read(YESTERDAY.as_bytes()), Ok(expected));
        let more = YESTERDAY.replacen("\"v\":1", "\"new\":[1,{}],\"v\":1", 1);
        assert_eq!(read(more.as_bytes()), Ok(expected), "what a later version adds does no harm");
    }

    #[test]
    fn no_piece_of_a_line_is_taken_for_one() {
        for end in 0..YESTERDAY.len() {
            assert_eq!(read(&YESTERDAY.as_bytes()[..end]), Err("cut short".to_owned()), "{end}");
        }
        for start in 1..YESTERDAY.len() {
            assert!(read(&YESTERDAY.as_bytes()[start..]).is_err(), "{start}");
            let torn = [&YESTERDAY.as_bytes()[..start], YESTERDAY.as_bytes()].concat();
            assert!(read(&torn).is_err(), "{start}");
        }
    }

    #[test]
    fn lines_of_others_are_refused_with_a_reason() {
        for (line, reason) in [
            ("hello", "no JSON"),
            ("\0\0\0", "no JSON"),
            ("[1]", "no JSON object"),
            ("3", "no JSON object"),
            ("{}", "no line of a run log"),
            (r#"{"v":"1"}"#, "no line of a run log"),
            (r#"{"v":2}"#, "written by another version: 2"),
            (r#"{"v":1}"#, "no outcome"),
            (r#"{"v":1,"key":7}"#, "key is no key"),
            (r#"{"v":1,"task":"abc"}"#, "task is no key"),
            (r#"{"v":1,"outcome":"exited"}"#, "no outcome"),
            (r#"{"v":1,"outcome":"exited","code":99999999999}"#, "no outcome"),
            (r#"{"v":1,"outcome":"signalled","signal":99,"exact":true}"#, "no outcome"),
            (r#"{"v":1,"outcome":"won"}"#, "no outcome"),
            (r#"{"v":1,"outcome":"exited","code":0}"#, "no success"),
            (r#"{"v":1,"outcome":"exited","code":0,"success":true}"#, "no duration"),
            (r#"{"v":1,"outcome":"exited","code":0,"success":true,"ran":-1}"#, "no duration"),
            (r#"{"v":1,"outcome":"exited","code":0,"success":true,"ran":1e300}"#, "no duration"),
        ] {
            assert_eq!(read(line.as_bytes()), Err(reason.to_owned()), "{line}");
        }
    }

    #[test]
    fn every_outcome_reads_back() {
        let both = [true, false];
        let signals = Signal::NAMED.iter().copied().chain(Signal::from_number(64));
        let mut outcomes: Vec<Outcome> = [0, 1, 255, i32::MIN, i32::MAX].map(Outcome::Exited).to_vec();
        outcomes.extend(signals.flat_map(|signal| both.map(|exact| Outcome::Signalled { signal, exact })));
        outcomes.extend([Outcome::TimedOut, Outcome::Overflowed, Outcome::NotStarted]);
        outcomes.extend(both.map(|confirmed| Outcome::Cancelled { confirmed }));
        outcomes.extend(both.map(|retryable| Outcome::EngineFailed { retryable }));
        for outcome in outcomes {
            let (mut done, wall) = done();
            done.outcome = outcome;
            assert_eq!(read(write(&done, None, wall).as_bytes()).unwrap().outcome, outcome);
        }
    }

    #[test]
    fn an_error_is_told_without_what_the_program_said_and_without_secrets() {
        let mut output = Output { command: "login ***".to_owned(), ..Output::default() };
        output.stderr.bytes = b"wrong password hunter2".to_vec();
        let error =
            Error::new(ErrorKind::Io).step("ssh").detail("cannot run login hunter2 on\nhost").with_output(output);
        let (_, wall) = done();
        let line = write(&Done::of(TaskId(1), Err(error)), Some(&known(&["hunter2"])), wall);
        assert!(line.ends_with(r#""error":"ssh: cannot run login *** on\nhost"}"#), "{line}");
        assert!(!line.contains("hunter2"));
    }

    #[test]
    fn a_line_without_a_key_says_why() {
        let (done, wall) = done();
        let unkeyed = Known { key: Err("because".to_owned()), ..known(&[]) };
        for (known, reason) in [(None, "its submission was not seen"), (Some(&unkeyed), "because")] {
            let line = write(&done, known, wall);
            assert!(line.contains(&format!(r#""key":null,"unkeyed":"{reason}""#)), "{line}");
            let entry = read(line.as_bytes()).unwrap();
            assert_eq!((entry.key, entry.task), (None, known.map(|known| known.task)));
        }
    }

    #[test]
    fn whatever_a_command_is_called_it_is_one_line() {
        let (_, wall) = done();
        let command = Command::new("a\nb\"\\\u{7f}\u{2028}").arg("\x00\x1b[1m");
        let task = Task::new(command.clone()).name("\r\n");
        let output = Output { command: command.to_string(), ..Output::default() };
        let done = Done { name: task.name.clone(), ..Done::of(TaskId(1), Ok(output)) };
        let known = Known { task: key::identity(&task), ..known(&[]) };
        let line = write(&done, Some(&known), wall);
        assert!(!line.contains(['\n', '\r', '\0', '\x1b']));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["command"], command.to_string());
        assert_eq!(value["label"], "\r\n");
    }
}
