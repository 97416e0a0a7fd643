//! A run in Chrome's trace event format. Decides what becomes of slots, attempts and retries there; how it looks is the viewer's matter.

use super::{Bar, End, Run, micros};
use crate::pool::verdict::Verdict;
use serde_json::{Map, Value, json};

/// One process stands for the pool.
const PROCESS: u64 = 1;

/// The whole trace: a thread for each slot, a complete event for each attempt, an instant one for each retry and for each task that
/// never ran.
pub(super) fn trace(run: &Run) -> String {
    let mut out = String::from("{\"displayTimeUnit\":\"ms\",\"otherData\":");
    out.push_str(&about(run).to_string());
    out.push_str(",\"traceEvents\":[\n");
    push(&mut out, &json!({"ph": "M", "name": "process_name", "pid": PROCESS, "args": {"name": "pool"}}));
    for slot in run.slots() {
        let named =
            [("thread_name", "name", json!(format!("slot {slot}"))), ("thread_sort_index", "sort_index", json!(slot))];
        for (name, key, value) in named {
            push(
                &mut out,
                &json!({"ph": "M", "name": name, "pid": PROCESS, "tid": thread(slot), "args": {key: value}}),
            );
        }
    }
    for bar in &run.bars {
        push(&mut out, &event(run, bar));
        if let End::Retried(outcome, pause) = bar.end {
            let args = json!({"status": outcome.to_string(), "pause_us": micros(pause)});
            push(&mut out, &instant(run, bar, "t", &format!("retry: {}", bar.task.label), args));
        }
    }
    out.push_str("\n]}\n");
    out
}

fn push(out: &mut String, event: &Value) {
    if !out.ends_with("[\n") {
        out.push_str(",\n");
    }
    out.push_str(&event.to_string());
}

fn about(run: &Run) -> Value {
    let mut about = Map::new();
    about.insert("tasks".to_owned(), json!(run.summary.tasks()));
    about.insert("dropped".to_owned(), json!(run.dropped));
    let since_epoch = run.started.and_then(|started| started.duration_since(std::time::UNIX_EPOCH).ok());
    if let Some(since_epoch) = since_epoch {
        about.insert("start_unix_us".to_owned(), json!(micros(since_epoch)));
    }
    Value::Object(about)
}

/// Viewers have a meaning of their own for a thread with the number 0.
fn thread(slot: usize) -> u64 {
    slot as u64 + 1
}

fn event(run: &Run, bar: &Bar) -> Value {
    let Some((start, end)) = run.span(bar) else {
        return instant(run, bar, "p", &format!("{}: {}", bar.status(), bar.task.label), Value::Object(args(bar)));
    };
    json!({
        "ph": "X",
        "name": bar.task.label,
        "cat": category(bar),
        "cname": color(bar),
        "pid": PROCESS,
        "tid": thread(bar.slot),
        "ts": start,
        "dur": end - start,
        "args": args(bar),
    })
}

/// Something without a duration, at the end of the attempt; in its thread (`t`) or in the process (`p`).
fn instant(run: &Run, bar: &Bar, scope: &str, name: &str, args: Value) -> Value {
    json!({
        "ph": "i",
        "s": scope,
        "name": name,
        "cat": category(bar),
        "pid": PROCESS,
        "tid": thread(bar.slot),
        "ts": run.moment(bar.ended),
        "args": args,
    })
}

fn args(bar: &Bar) -> Map<String, Value> {
    let mut args = Map::new();
    let mut add = |name: &str, value: Value| args.insert(name.to_owned(), value);
    add("task", json!(bar.task.id.to_string()));
    add("status", json!(bar.status()));
    add("attempt", json!(bar.attempt));
    add("place", json!(&*bar.place));
    if let Some(command) = bar.task.command() {
        add("command", json!(command));
    }
    if let Some(waited) = bar.waited() {
        add("waited_us", json!(micros(waited)));
    }
    if let Some(usage) = bar.usage {
        add("cpu_user_us", json!(micros(usage.user)));
        add("cpu_system_us", json!(micros(usage.system)));
        add("memory_max_bytes", json!(usage.resident_max));
    }
    args
}

fn category(bar: &Bar) -> &'static str {
    bar.verdict().map_or("running", Verdict::word)
}

/// One of the names that `chrome://tracing` knows; others do not look at it.
fn color(bar: &Bar) -> &'static str {
    match bar.verdict() {
        None => "startup",
        Some(Verdict::Succeeded) => "good",
        Some(Verdict::Skipped) => "white",
        Some(Verdict::Cancelled | Verdict::NotStarted) => "grey",
        Some(Verdict::TimedOut | Verdict::Overflowed) => "bad",
        Some(Verdict::Failed | Verdict::Signalled | Verdict::EngineFailed | Verdict::Unstartable) => "terrible",
    }
}
