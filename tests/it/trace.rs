//! What is told to `tracing`: one span for each child, in the span of who spawned it, and what happens to it.

use crate::support::{alone, children, fixture, wait_for};
use crate::talk::{Leftover, pids_in};
use procession::{Command, Signal, Stdio, Stop};
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber, info_span};

/// Writes everything down.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    /// The spans as `name field=value ..`, with the place of the parent. The id is the place plus one.
    spans: Vec<(String, Option<u64>)>,
    closed: Vec<u64>,
    entered: Vec<u64>,
    /// The events as `LEVEL text field=value ..`, with the span they belong to.
    events: Vec<(String, Option<u64>)>,
}

impl Log {
    /// What is told while the body runs.
    fn of(body: impl FnOnce()) -> Log {
        let log = Log::default();
        tracing::subscriber::with_default(log.clone(), body);
        log
    }

    fn spans(&self) -> Vec<(String, Option<u64>)> {
        self.0.lock().unwrap().spans.clone()
    }

    /// The events of a span.
    fn events(&self, span: u64) -> Vec<String> {
        let notes = self.0.lock().unwrap();
        let of_span = notes.events.iter().filter(|(_, parent)| *parent == Some(span));
        of_span.map(|(text, _)| text.clone()).collect()
    }

    #[track_caller]
    fn assert_events(&self, span: u64, expected: &[&str]) {
        let events = self.events(span);
        let same = events.len() == expected.len()
            && events.iter().zip(expected).all(|(event, start)| event.starts_with(start));
        assert!(same, "{events:#?}\nare not\n{expected:#?}");
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.0, " {value:?}").unwrap(),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut text = attributes.metadata().name().to_owned();
        attributes.record(&mut Line(&mut text));
        let mut notes = self.0.lock().unwrap();
        let parent = if attributes.is_contextual() { notes.entered.last().copied() } else { None };
        notes.spans.push((text, parent));
        Id::from_u64(notes.spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        assert_eq!(event.metadata().target(), "procession");
        let mut text = event.metadata().level().to_string();
        event.record(&mut Line(&mut text));
        let mut notes = self.0.lock().unwrap();
        let parent = event.parent().map(Id::into_u64).or(notes.entered.last().copied());
        notes.events.push((text, parent));
    }

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().entered.push(span.into_u64());
    }

    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().entered.pop();
    }

    fn try_close(&self, id: Id) -> bool {
        self.0.lock().unwrap().closed.push(id.into_u64());
        true
    }
}

#[test]
fn a_run_is_a_span_within_that_of_the_caller() {
    alone!({
        let mut serial = 0;
        let mut pid = 0;
        let log = Log::of(|| {
            let _entered = info_span!("outer").entered();
            let child = fixture("cat").secret_arg("hunter2").pipe_all().spawn();
            let mut child = child.unwrap();
            (serial, pid) = (child.handle().serial(), child.id());
            assert_eq!(child.communicate("words").unwrap().stdout(), b"words");
        });
        let [outer, (child, parent)] = &log.spans()[..] else { panic!("{:?}", log.spans()) };
        assert_eq!((outer.0.as_str(), *parent), ("outer", Some(1)));
        assert!(child.starts_with(&format!("child id={serial} pid={pid} command=\"")), "{child}");
        assert!(child.ends_with("fixture cat ***\""), "{child}");
        let ended = "DEBUG stream ended stream=Std";
        log.assert_events(2, &["DEBUG spawned route=", ended, ended, "DEBUG exited status=exit status: 0 usage=Usage"]);
        for (stream, count) in [("Stdout", 5), ("Stderr", 0)] {
            assert!(log.events(2).contains(&format!("DEBUG stream ended stream={stream} bytes={count}")));
        }
        assert!(log.0.lock().unwrap().closed.contains(&2), "the span ends with the last handle");
    });
}

#[test]
fn a_stop_tells_each_step_and_to_whom() {
    alone!({
        let stop = Stop::new().close_stdin(Duration::from_millis(10)).signal(Signal::TERM, Duration::from_millis(50));
        let stop = stop.then_kill();
        let mut pid = 0;
        let log = Log::of(|| {
            let deaf = fixture("deaf").arg("60000").stop(stop).stdin(Stdio::piped());
            let error = deaf.timeout(Duration::from_secs(1)).run().unwrap_err();
            pid = error.output().pid().unwrap();
        });
        let steps = [
            "DEBUG spawned".to_owned(),
            "WARN timed out".to_owned(),
            format!("INFO stop step action=close stdin to={pid}"),
            format!("INFO stop step action=SIGTERM to={pid}"),
            format!("INFO stop step action=SIGKILL to={pid}"),
            "DEBUG stream ended".to_owned(),
            "DEBUG stream ended".to_owned(),
            "DEBUG exited status=signal: SIGKILL".to_owned(),
        ];
        // Standard input has nothing to feed, so it was closed before the stop.
        log.assert_events(1, &steps.each_ref().map(String::as_str));
        // The whole tree: a group, and a member of it by itself.
        let log = Log::of(|| {
            let shell = Command::shell("sleep 60 & sleep 60; true").process_group(0);
            assert!(shell.timeout(Duration::from_millis(300)).run().unwrap_err().is_timeout());
        });
        let events = log.events(1);
        assert!(events.iter().any(|event| event.starts_with("INFO stop step action=SIGTERM to=group ")), "{events:?}");
        assert!(events.iter().filter(|event| event.contains("action=SIGTERM")).count() >= 3, "{events:?}");
    });
}

#[test]
fn what_is_refused_cut_off_and_left_is_told() {
    alone!({
        let mut pid = 0;
        let log = Log::of(|| {
            let output = fixture("exit").arg("0").input(vec![0; 1 << 20]).output().unwrap();
            assert!(output.input_refused());
            let output = fixture("grandchild").arg("60000").drain(Duration::from_millis(20)).output().unwrap();
            pid = pids_in(output.stdout(), "grandchild")[0];
            let sleeper = fixture("sleep").arg("60000").spawn().unwrap();
            let _leftover = Leftover(vec![sleeper.id()]);
            drop(sleeper);
        });
        let _leftover = Leftover(vec![pid]);
        assert!(log.events(1).contains(&"INFO input refused".to_owned()), "{:?}", log.events(1));
        let events = log.events(2);
        let cut_off = |event: &&String| event.starts_with("WARN stream cut off stream=");
        assert_eq!(events.iter().filter(cut_off).count(), 2, "{events:?}");
        log.assert_events(3, &["DEBUG spawned", "INFO dropped while running"]);
        wait_for("no zombie", || {
            Command::new("true").call().unwrap();
            children().is_empty()
        });
    });
}

#[test]
fn a_spawn_that_fails_is_an_error_without_a_span() {
    alone!({
        let log = Log::of(|| {
            let _entered = info_span!("outer").entered();
            Command::new("no-such-program").secret_arg("hunter2").spawn().unwrap_err();
            Command::new("true").arg("a\0b").output().unwrap_err();
            Command::new("true").current_dir("/no/such").output().unwrap_err();
        });
        assert_eq!(log.spans().len(), 1);
        let error = "ERROR spawn failed error=";
        log.assert_events(1, &[&format!("{error}no-such-program ***: "), error, error]);
    });
}

#[test]
fn who_listens_may_ask_the_handle() {
    alone!({
        // A subscriber that spawns and waits inside of an event, as a logger that asks for the time zone might.
        struct Curious(Log);
        impl Subscriber for Curious {
            fn enabled(&self, _: &Metadata<'_>) -> bool {
                true
            }
            fn new_span(&self, attributes: &Attributes<'_>) -> Id {
                self.0.new_span(attributes)
            }
            fn record(&self, _: &Id, _: &Record<'_>) {}
            fn record_follows_from(&self, _: &Id, _: &Id) {}
            fn event(&self, event: &Event<'_>) {
                self.0.event(event);
                if let Some(handle) = HANDLE.lock().unwrap().as_ref() {
                    let _ = (handle.status(), handle.poll(), handle.explain());
                }
            }
            fn enter(&self, _: &Id) {}
            fn exit(&self, _: &Id) {}
        }
        static HANDLE: Mutex<Option<procession::ProcessHandle>> = Mutex::new(None);
        let log = Log::default();
        tracing::subscriber::with_default(Curious(log.clone()), || {
            let child = fixture("sleep").arg("60000").spawn().unwrap();
            *HANDLE.lock().unwrap() = Some(child.handle().clone());
            let _ = child.handle().stop(&Stop::kill()).unwrap();
            drop(HANDLE.lock().unwrap().take());
        });
        assert!(log.events(1).iter().any(|event| event.starts_with("DEBUG exited")), "{:?}", log.events(1));
    });
}
