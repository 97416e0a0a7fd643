//! A run as a page. Decides what of a run gets to the page and that nothing a command says can be more than text there; how it is drawn
//! is decided in `page.js`, how it looks in `page.css`.

use super::{Bar, End, Named, Run, micros};
use crate::explain::spoken;
use crate::pool::readable;
use crate::pool::verdict::Verdict;
use minijinja::{AutoEscape, Environment, Value, context};
use serde_json::{Value as Json, json};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Where there are no scripts so many of the longest attempts are told.
const PLAIN_ROWS_MAX: usize = 100;

/// The whole page.
pub(super) fn page(run: &Run) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let facts: Vec<Value> = facts(run).into_iter().map(|(name, value)| context!(name, value)).collect();
    let legend: Vec<Value> = legend(run).into_iter().map(|(key, word, count)| context!(key, word, count)).collect();
    let context = context! {
        title => title(run),
        facts,
        legend,
        dropped => run.dropped,
        rows => plain_rows(run),
        style => Value::from_safe_string(include_str!("page.css").to_owned()),
        script => Value::from_safe_string(include_str!("page.js").to_owned()),
        data => Value::from_safe_string(data(run)),
    };
    // The template is a constant, and a test renders it.
    environment
        .render_named_str("page.html", include_str!("page.html"), context)
        .unwrap_or_else(|error| error.to_string())
}

fn title(run: &Run) -> String {
    let tasks = run.summary.tasks();
    let plural = if tasks == 1 { "" } else { "s" };
    let failed = match run.summary.failed() {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    format!("{tasks} task{plural}{failed}")
}

fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let summary = &run.summary;
    let mut facts = vec![
        ("took", spoken(summary.wall())),
        ("ran, all together", spoken(summary.ran())),
        ("at a time, on average", format!("{:.1}", summary.parallelism())),
        ("slots", run.slots().len().to_string()),
    ];
    if summary.retries() > 0 {
        facts.push(("run again", summary.retries().to_string()));
    }
    let memory = run.bars.iter().filter_map(|bar| bar.usage).map(|usage| usage.resident_max).max();
    if let Some(memory) = memory {
        facts.push(("processor time", spoken(summary.processor_time())));
        facts.push(("most memory", readable::bytes(memory)));
    }
    facts
}

/// The number that stands for it in the page.
fn key(verdict: Option<Verdict>) -> usize {
    verdict.map_or(Verdict::ALL.len(), |verdict| verdict as usize)
}

/// The words by their numbers.
fn words() -> impl Iterator<Item = (Option<Verdict>, &'static str)> {
    let ended = Verdict::ALL.into_iter().map(|verdict| (Some(verdict), verdict.word()));
    ended.chain([(None, "running")])
}

/// The kinds of attempts that there are, with their counts.
fn legend(run: &Run) -> Vec<(usize, &'static str, usize)> {
    let count = |verdict| run.bars.iter().filter(|bar| bar.verdict() == verdict).count();
    let all = words().map(|(verdict, word)| (key(verdict), word, count(verdict)));
    all.filter(|(_, _, count)| *count > 0).collect()
}

fn plain_rows(run: &Run) -> Vec<Value> {
    let mut longest: Vec<&Bar> = run.bars.iter().collect();
    longest.sort_by_key(|bar| Reverse(bar.ran()));
    let rows = longest.into_iter().take(PLAIN_ROWS_MAX);
    rows.map(|bar| context! { label => bar.task.label.as_str(), status => bar.status(), ran => spoken(bar.ran()) })
        .collect()
}

/// Everything the script draws, as JSON that cannot end the element it is in. Times are microseconds since the start of the run.
fn data(run: &Run) -> String {
    let slots = run.slots();
    let mut tables = Tables::default();
    let bars: Vec<String> = run.bars.iter().map(|bar| tables.row(run, &slots, bar).to_string()).collect();
    let started = run.started.and_then(|started| started.duration_since(UNIX_EPOCH).ok());
    let words: Vec<&str> = words().map(|(_, word)| word).collect();
    let text = format!(
        "{{\"start\":{},\"span\":{},\"words\":{},\"slots\":{},\"places\":{},\"statuses\":{},\"tasks\":[\n{}\n],\"bars\":[\n{}\n]}}",
        json!(started.map(|since| since.as_secs_f64() * 1e3)),
        run.moment(run.end),
        json!(words),
        json!(slots),
        json!(tables.places.names),
        json!(tables.statuses.names),
        tables.tasks.join(",\n"),
        bars.join(",\n"),
    );
    // It can only be inside a text, and there it means the same.
    text.replace('<', "\\u003c")
}

/// What many bars have in common is told once, by number.
#[derive(Default)]
struct Tables {
    places: Names,
    statuses: Names,
    tasks: Vec<String>,
    numbers: HashMap<*const Named, usize>,
}

#[derive(Default)]
struct Names {
    names: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, name: &str) -> usize {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len();
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

impl Tables {
    /// In the order in which the script reads it.
    fn row(&mut self, run: &Run, slots: &[usize], bar: &Bar) -> Json {
        let span = run.span(bar);
        let pause = match bar.end {
            End::Retried(_, pause) => Some(micros(pause)),
            _ => None,
        };
        json!([
            self.task(&bar.task),
            span.and_then(|_| slots.binary_search(&bar.slot).ok()),
            span.map_or_else(|| run.moment(bar.ended), |(start, _)| start),
            span.map_or(0, |(start, end)| end - start),
            key(bar.verdict()),
            self.statuses.number(&bar.status()),
            bar.attempt,
            self.places.number(&bar.place),
            bar.waited().map(micros),
            bar.usage.map(|usage| micros(usage.user)),
            bar.usage.map(|usage| micros(usage.system)),
            bar.usage.map(|usage| usage.resident_max),
            pause,
        ])
    }

    fn task(&mut self, task: &Arc<Named>) -> usize {
        let next = self.tasks.len();
        let number = *self.numbers.entry(Arc::as_ptr(task)).or_insert(next);
        if number == next {
            // No command: it is the label; false: it is not known.
            let command = match task.told.get() {
                Some(told) => json!(told.command),
                None => json!(false),
            };
            self.tasks.push(json!([task.id.to_string(), task.label, command]).to_string());
        }
        number
    }
}
