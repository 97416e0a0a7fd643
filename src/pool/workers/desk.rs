//! Who gives which request to which worker: the thread of a pool of commands that live on. Decides when a worker is started, when it has had enough, when
//! it is stopped, and when no further one is of use. What it says is judged in `dialogue`, who is to blame in `blame`.
//!
//! A worker has one request at a time: what is in its pipe cannot be taken back. Whether it has read something of it is a fact that can be asked for:
//! how many bytes its pipe took, less those that wait in it.

use super::answers::{Tell, broken, cancelled, terminated};
use super::beginnings::{Beginnings, DEATHS_MAX};
use super::blame::{Evidence, Fate, Verdict, judge};
use super::dialogue::{Dialogue, Fault, shown};
use super::{Check, Shared};
use crate::command::{Input, Source, Stdio};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::output::{Output, Stream};
use crate::set::{ChildKey, ChildSet, Follow, News, WatchKey};
use crate::signal::Signal;
use crate::sys;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

/// A worker that could not be started, with others at work, is tried again after this time.
const PATIENCE: Duration = Duration::from_millis(50);
/// So long a worker that has closed an end of a pipe has until it has ended by itself.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// So much news is taken before somebody else is listened to.
const NEWS_MAX: usize = 256;
/// So much of standard error stands in the errors of a pool without workers.
const STDERR_MAX: usize = 1024;

/// A request, and who waits for the reply.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) number: u64,
    /// The iteration that it belongs to.
    pub(super) group: u64,
    /// What errors say of the request.
    pub(super) shown: String,
    /// The request as it is sent.
    pub(super) framed: Arc<Vec<u8>>,
    /// How often it may be begun once more when its worker dies.
    pub(super) retries: u32,
    pub(super) tell: Tell,
}

impl Order {
    /// For what no worker has anything to do with.
    pub(super) fn answer_without_worker(self, error: Error) {
        let who = self.to_string();
        self.tell.tell(Err(error.of_command(|| who)));
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "request {} {}", self.number, self.shown)
    }
}

/// What is asked of the desk.
#[derive(Debug)]
pub(super) enum Message {
    Submit(Order),
    Cancel(u64),
    CancelGroup(u64),
}

struct Worker {
    name: String,
    id: u32,
    dialogue: Dialogue,
    /// Its standard input once more: tells that nobody reads it, and what was not read.
    ear: Option<WatchKey>,
    /// How many bytes it was given before what it was asked last.
    asked_at: u64,
    fed: u64,
    /// The step of its beginning that it is in.
    starting: Option<usize>,
    order: Option<Order>,
    /// Whether it had read something of its request, once that cannot be asked any more.
    had_begun: Option<bool>,
    /// How many requests it has replied to.
    done: u64,
    /// When it must have replied.
    deadline: Deadline,
    /// When it is stopped because it was told to go, or goes by itself; and why then.
    going: Option<(Deadline, Fate)>,
    /// Why it is being stopped.
    fate: Option<Fate>,
}

impl Worker {
    /// Whether it takes a request, now or after its beginning.
    fn is_free(&self) -> bool {
        self.order.is_none() && self.going.is_none() && self.fate.is_none()
    }

    fn is_idle(&self) -> bool {
        self.is_free() && self.starting.is_none()
    }

    fn who(&self) -> String {
        format!("{} (process {})", self.name, self.id)
    }
}

/// Why no worker will ever work, with what the last one has said.
struct Broken {
    why: String,
    output: Output,
}

pub(super) struct Desk {
    shared: Arc<Shared>,
    set: ChildSet,
    workers: BTreeMap<ChildKey, Worker>,
    waiting: VecDeque<Order>,
    beginnings: Beginnings,
    last_worker: u64,
    terminating: bool,
    broken: Option<Broken>,
}

/// What has happened, without what was lent.
enum Event {
    Spoke { key: ChildKey, is_first: bool },
    Silent(ChildKey),
    Deaf(WatchKey),
    Gone(ChildKey, Box<Output>),
    Nothing,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, set: ChildSet) -> Desk {
        Desk {
            shared,
            set,
            workers: BTreeMap::new(),
            waiting: VecDeque::new(),
            beginnings: Beginnings::default(),
            last_worker: 0,
            terminating: false,
            broken: None,
        }
    }

    /// Works until the pool is over.
    pub(super) fn run(mut self) {
        self.shared.inbox.begin();
        loop {
            let closed = self.take_messages();
            self.look_at_deadlines();
            self.answer_for_good();
            self.hire();
            self.hand_out();
            self.answer_for_good();
            if closed && self.waiting.is_empty() && self.dismiss_all() {
                return;
            }
            if let Err(error) = self.wait() {
                return self.give_up(error.to_string(), &Output::default());
            }
        }
    }

    /// Does what was asked since the last time. True if the pool was closed.
    fn take_messages(&mut self) -> bool {
        let said = self.shared.inbox.take();
        for message in said.messages {
            match message {
                Message::Submit(order) => self.waiting.push_back(order),
                Message::Cancel(number) => self.cancel(|order| order.number == number),
                Message::CancelGroup(group) => self.cancel(|order| order.group == group),
            }
        }
        if said.terminated && !std::mem::replace(&mut self.terminating, true) {
            let keys: Vec<ChildKey> = self.workers.keys().copied().collect();
            keys.into_iter().for_each(|key| self.stop(key, Fate::Terminated));
        }
        said.closed
    }

    /// Nobody will do what waits.
    fn answer_for_good(&mut self) {
        if self.broken.is_some() || self.terminating {
            for order in std::mem::take(&mut self.waiting) {
                order.answer_without_worker(self.refusal());
            }
        }
    }

    /// Why nothing more is done.
    fn refusal(&self) -> Error {
        match &self.broken {
            Some(Broken { why, output }) => broken(why).with_output(output.clone()),
            None => terminated(),
        }
    }

    fn give_up(&mut self, why: String, output: &Output) {
        if self.broken.is_none() {
            let mut rest = Output { stderr: output.stderr.clone(), ..Output::default() };
            let surplus = rest.stderr.bytes.len().saturating_sub(STDERR_MAX);
            rest.stderr.bytes.drain(..surplus);
            self.broken = Some(Broken { why, output: rest });
        }
    }

    /// Answers requests that wait, and stops the workers of the others.
    fn cancel(&mut self, is_meant: impl Fn(&Order) -> bool) {
        let (meant, others) = std::mem::take(&mut self.waiting).into_iter().partition::<Vec<_>, _>(&is_meant);
        self.waiting = others.into();
        meant.into_iter().for_each(|order| order.answer_without_worker(cancelled()));
        let is_busy = |worker: &Worker| worker.order.as_ref().is_some_and(&is_meant);
        let doomed: Vec<ChildKey> =
            self.workers.iter().filter(|(_, worker)| is_busy(worker)).map(|(key, _)| *key).collect();
        doomed.into_iter().for_each(|key| self.stop(key, Fate::Cancelled));
    }

    /// Stops a worker and all that it has started, by the plan of its command.
    fn stop(&mut self, key: ChildKey, fate: Fate) {
        self.close_ear(key);
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if worker.fate.is_none() {
            (worker.fate, worker.deadline, worker.going) = (Some(fate), Deadline::NEVER, None);
            self.set.stop(key);
        }
    }

    /// Its standard input is ours alone no longer: keeps what can be asked now only.
    fn close_ear(&mut self, key: ChildKey) {
        let has_begun = self.has_begun(key);
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if let Some(ear) = worker.ear.take() {
            worker.had_begun = Some(has_begun);
            self.set.unwatch(ear);
        }
    }

    /// Whether it has read something of what it was asked last.
    fn has_begun(&self, key: ChildKey) -> bool {
        let Some(worker) = self.workers.get(&key) else { return false };
        self.has_read(worker, self.set.input_accepted(key))
    }

    fn has_read(&self, worker: &Worker, accepted: u64) -> bool {
        if let Some(had_begun) = worker.had_begun {
            return had_begun;
        }
        let ear = worker.ear.and_then(|ear| self.set.watched(ear));
        // Where the system does not say, it may have.
        let waiting = ear.and_then(|ear| sys::pipe::waiting(ear).ok()).unwrap_or_default();
        accepted.saturating_sub(waiting) > worker.asked_at
    }

    fn look_at_deadlines(&mut self) {
        let mut late = Vec::new();
        for (key, worker) in &self.workers {
            let is_late = worker.deadline.has_passed();
            match &worker.going {
                // It was the end of its pipes that has made it late.
                Some((going, fate)) if going.has_passed() || (is_late && *going != Deadline::NEVER) => {
                    late.push((*key, fate.clone()));
                }
                _ if is_late => late.push((*key, Fate::Timeout)),
                _ => {}
            }
        }
        late.into_iter().for_each(|(key, fate)| self.stop(key, fate));
    }

    /// Starts as many workers as there is work for.
    fn hire(&mut self) {
        while self.broken.is_none() && !self.terminating && self.workers.len() < self.shared.rules.workers {
            let free = self.workers.values().filter(|worker| worker.is_free()).count();
            if free >= self.waiting.len() {
                return;
            }
            if let Err(error) = self.hire_one() {
                // With others at work it may go better later. Alone there is nothing to wait for: what there is now is answered, and the next
                // request is a new try.
                if self.workers.is_empty() {
                    for order in std::mem::take(&mut self.waiting) {
                        order.answer_without_worker(broken(&error.to_string()));
                    }
                }
                return;
            }
        }
    }

    fn hire_one(&mut self) -> Result<(), Error> {
        let streams = [Some(Stdio::piped()), Some(Stdio::piped()), self.shared.rules.stderr()];
        let child = self.shared.rules.command.spawn_with(&streams)?;
        let ear = child.stdin.as_ref().map(|stdin| stdin.as_fd().try_clone_to_owned()).transpose();
        let ear = ear.map_err(|error| Error::io("dup", error));
        let id = child.id();
        // Whatever goes wrong from here on: in the set it is stopped.
        let key = self.set.insert_and_follow(child, Follow::Chunks)?;
        let ear = ear.and_then(|ear| ear.map(|ear| self.set.watch(ear)).transpose());
        self.last_worker += 1;
        let worker = Worker {
            name: format!("{}-{}", self.shared.rules.name, self.last_worker),
            id,
            dialogue: Dialogue::default(),
            ear: None,
            asked_at: 0,
            fed: 0,
            starting: Some(0),
            order: None,
            had_begun: None,
            done: 0,
            deadline: Deadline::NEVER,
            going: None,
            fate: None,
        };
        let worker = self.workers.entry(key).or_insert(worker);
        match ear {
            Ok(ear) => worker.ear = ear,
            Err(error) => {
                self.stop(key, Fate::Terminated);
                return Err(error);
            }
        }
        self.start_from(key, 0);
        Ok(())
    }

    /// Its beginning goes on with this step, or is over.
    fn start_from(&mut self, key: ChildKey, step: usize) {
        let shared = Arc::clone(&self.shared);
        let next = shared.rules.first.get(step);
        let Some(worker) = self.workers.get_mut(&key) else { return };
        worker.starting = next.map(|_| step);
        let greets = next.is_some_and(|first| first.framed.is_none());
        if !greets && let Err(fault) = worker.dialogue.next_reply(&shared.rules.protocol, shared.rules.reply_max) {
            return self.stop(key, Fate::Fault(fault));
        }
        worker.dialogue.rest();
        worker.deadline = Deadline::NEVER;
        let Some(first) = next else { return };
        worker.dialogue.ask();
        worker.deadline = shared.rules.timeout.into();
        if let Some(framed) = &first.framed {
            self.feed(key, framed);
        }
    }

    /// Gives it what it is asked.
    fn feed(&mut self, key: ChildKey, framed: &Arc<Vec<u8>>) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        worker.asked_at = worker.fed;
        worker.fed += framed.len() as u64;
        if self.set.feed(key, Input(Source::Bytes(Arc::clone(framed)))).is_err() {
            // Nobody reads it. What there is to know comes with its end.
            self.let_go(key, Fate::ClosedInput, LAST_WORDS);
        }
    }

    /// It goes by itself, or was told to: gives it so long.
    fn let_go(&mut self, key: ChildKey, fate: Fate, patience: Duration) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if worker.going.is_none() && worker.fate.is_none() {
            worker.going = Some((Deadline::after(patience), fate));
        }
    }

    /// Gives a request to each who has none.
    fn hand_out(&mut self) {
        let idle: Vec<ChildKey> =
            self.workers.iter().filter(|(_, worker)| worker.is_idle()).map(|(key, _)| *key).collect();
        for key in idle {
            let Some(order) = self.waiting.pop_front() else { return };
            let Some(worker) = self.workers.get_mut(&key) else { return };
            let framed = Arc::clone(&order.framed);
            worker.order = Some(order);
            worker.dialogue.ask();
            worker.deadline = self.shared.rules.timeout.into();
            self.feed(key, &framed);
        }
    }

    /// Nothing is left to be done: tells the workers to go. True when all have gone.
    fn dismiss_all(&mut self) -> bool {
        let free: Vec<ChildKey> =
            self.workers.iter().filter(|(_, worker)| worker.is_free()).map(|(key, _)| *key).collect();
        free.into_iter().for_each(|key| self.dismiss(key));
        self.workers.is_empty()
    }

    /// The end of its input is the word to go.
    fn dismiss(&mut self, key: ChildKey) {
        self.close_ear(key);
        self.set.end_input(key);
        if let Some(worker) = self.workers.get_mut(&key) {
            worker.deadline = Deadline::NEVER;
        }
        self.let_go(key, Fate::Lingers, self.shared.rules.leave);
    }

    /// Waits until something happens, and deals with it.
    fn wait(&mut self) -> Result<(), Error> {
        let mut until = self.next_deadline();
        if !self.shared.inbox.fall_asleep() {
            until = Deadline::now();
        }
        for _ in 0..NEWS_MAX {
            let Some(event) = self.next_event(until)? else { break };
            self.deal_with(event);
            until = Deadline::now();
        }
        self.shared.inbox.wake_up();
        Ok(())
    }

    fn next_deadline(&self) -> Deadline {
        let mut deadline = Deadline::NEVER;
        for worker in self.workers.values() {
            let going = worker.going.as_ref().map_or(Deadline::NEVER, |(going, _)| *going);
            deadline = deadline.earlier(worker.deadline).earlier(going);
        }
        if !self.waiting.is_empty() && self.workers.len() < self.shared.rules.workers {
            // A worker could not be started.
            deadline = deadline.earlier(Deadline::after(PATIENCE));
        }
        deadline
    }

    fn next_event(&mut self, until: Deadline) -> Result<Option<Event>, Error> {
        Ok(self.set.wait_any_deadline(until)?.map(|news| match news {
            News::Chunk { child, stream: Stream::Stdout, bytes } => match self.workers.get_mut(&child) {
                // Who is told to go, or is stopped, may say what it likes.
                Some(worker) if worker.fate.is_none() && !matches!(worker.going, Some((_, Fate::Lingers))) => {
                    Event::Spoke { key: child, is_first: worker.dialogue.hear(bytes) }
                }
                _ => Event::Nothing,
            },
            News::End { child, stream: Stream::Stdout } => Event::Silent(child),
            News::Readable(watch) => Event::Deaf(watch),
            News::Exit { child, result } => Event::Gone(child, Box::new(result.unwrap_or_else(Error::into_output))),
            _ => Event::Nothing,
        }))
    }

    fn deal_with(&mut self, event: Event) {
        match event {
            Event::Spoke { key, is_first } => self.listen(key, is_first),
            Event::Silent(key) => self.let_go(key, Fate::ClosedOutput, LAST_WORDS),
            Event::Deaf(ear) => self.grow_deaf(ear),
            Event::Gone(key, output) => self.bury(key, *output),
            Event::Nothing => {}
        }
    }

    /// A worker has said something.
    fn listen(&mut self, key: ChildKey, is_first: bool) {
        let shared = Arc::clone(&self.shared);
        let rules = &shared.rules;
        let has_begun = !is_first || self.has_begun(key);
        let Some(worker) = self.workers.get_mut(&key) else { return };
        let step = worker.starting.and_then(|step| rules.first.get(step));
        let is_asked = worker.order.is_some() || step.is_some_and(|first| first.framed.is_some());
        if is_asked && !has_begun {
            // It cannot be the reply to what it has not read.
            let said = shown(worker.dialogue.half_reply());
            return self.stop(key, Fate::Fault(Fault::Unasked(said)));
        }
        loop {
            let Some(worker) = self.workers.get_mut(&key).filter(|worker| worker.fate.is_none()) else { return };
            let mut next = || worker.dialogue.next_reply(&rules.protocol, rules.reply_max);
            let reply = match next() {
                Ok(Some(reply)) => reply,
                Ok(None) => return,
                Err(fault) => return self.stop(key, Fate::Fault(fault)),
            };
            if let Some(step) = worker.starting {
                self.judge_start(key, step, &reply);
                continue;
            }
            // What stands behind it makes it doubtful.
            if let Err(fault) = next() {
                return self.stop(key, Fate::Fault(fault));
            }
            self.pass_on(key, reply);
        }
    }

    /// What a worker has said in its beginning.
    fn judge_start(&mut self, key: ChildKey, step: usize, reply: &[u8]) {
        let shared = Arc::clone(&self.shared);
        let Some(first) = shared.rules.first.get(step) else { return };
        // The code of others is no reason to leave the desk.
        let is_right = panic::catch_unwind(AssertUnwindSafe(|| (first.is_right)(reply))).unwrap_or(false);
        if is_right {
            return self.start_from(key, step + 1);
        }
        let asked = first.request.as_ref().map_or_else(String::new, |request| format!(" to {}", shown(request)));
        self.stop(key, Fate::WrongStart(format!("it has said {}{asked} at its beginning", shown(reply))));
    }

    /// A request is done.
    fn pass_on(&mut self, key: ChildKey, reply: Vec<u8>) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        worker.deadline = Deadline::NEVER;
        worker.done += 1;
        worker.dialogue.rest();
        let is_spent = self.shared.rules.requests_max.is_some_and(|max| worker.done >= max);
        self.beginnings.succeed(worker.done == 1);
        if let Some(order) = worker.order.take() {
            order.tell.tell(Ok(reply));
        }
        if let Some((deadline, _)) = &mut worker.going {
            *deadline = deadline.earlier(Deadline::after(LAST_WORDS));
        } else if is_spent {
            self.dismiss(key);
        }
    }

    /// Nobody reads the standard input of a worker any more, perhaps because it has ended. What it has read it may still reply to.
    fn grow_deaf(&mut self, ear: WatchKey) {
        let found = self.workers.iter().find(|(_, worker)| worker.ear == Some(ear)).map(|(key, _)| *key);
        let Some(key) = found else {
            self.set.unwatch(ear);
            return;
        };
        let has_left = self.set.watched(ear).and_then(|ear| sys::pipe::waiting(ear).ok()).is_some_and(|left| left > 0);
        let accepted = self.set.input_accepted(key);
        self.close_ear(key);
        let Some(worker) = self.workers.get_mut(&key) else { return };
        if worker.had_begun == Some(false) && worker.fate.is_none() {
            // Others need not wait for its end.
            worker.deadline = Deadline::NEVER;
            worker.order.take().into_iter().for_each(|order| self.waiting.push_front(order));
        }
        let has_all = !has_left && accepted == worker.fed;
        // With all of the request in its hands it has until the deadline.
        let patience = if worker.order.is_some() && has_all { Duration::MAX } else { LAST_WORDS };
        self.let_go(key, Fate::ClosedInput, patience);
    }

    /// A worker has ended.
    fn bury(&mut self, key: ChildKey, mut output: Output) {
        let Some(mut worker) = self.workers.remove(&key) else { return };
        let has_begun = self.has_read(&worker, output.input_accepted());
        if let Some(ear) = worker.ear.take() {
            self.set.unwatch(ear);
        }
        let order = worker.order.take();
        self.note_early_end(&worker, order.is_some() && has_begun, &output);
        let Some(mut order) = order else { return };
        let (status, half_reply) = (output.status(), worker.dialogue.half_reply());
        let (retries, timeout) = (order.retries, self.shared.rules.timeout);
        let fate = worker.fate.as_ref();
        match judge(&Evidence { fate, has_begun, retries, status, half_reply, timeout }) {
            Verdict::GiveBack => self.waiting.push_front(order),
            Verdict::Again => {
                order.retries -= 1;
                self.waiting.push_front(order);
            }
            Verdict::Answer(kind, text) => {
                output.command = format!("{} in {order}", worker.who());
                order.tell.tell(Err(Error::new(kind).detail(text).with_output(output)));
            }
        }
    }

    /// If a worker has ended before it had replied to anything, that may go on for ever.
    fn note_early_end(&mut self, worker: &Worker, had_request: bool, output: &Output) {
        let is_ours = matches!(worker.fate, Some(Fate::Cancelled | Fate::Terminated | Fate::Lingers));
        let was_told_to_go = matches!(worker.going, Some((_, Fate::Lingers)));
        let was_late = worker.fate == Some(Fate::Timeout) && worker.starting.is_none();
        if worker.done > 0 || is_ours || was_told_to_go || was_late {
            return;
        }
        let (who, status) = (worker.who(), output.status());
        if self.beginnings.die() {
            let text = format!("{DEATHS_MAX} workers in a row have ended before their first reply, {who} by {status}");
            self.give_up(text, output);
        }
        let was_killed = worker.fate.is_none() && matches!(status.signal(), Some(Signal::KILL | Signal::TERM));
        if had_request || was_killed {
            return;
        }
        let why = match &worker.fate {
            None => format!("it has ended by {status}"),
            Some(Fate::Fault(fault)) => fault.to_string(),
            Some(Fate::WrongStart(text)) => text.clone(),
            Some(Fate::ClosedInput) => "it has closed its standard input".into(),
            Some(Fate::ClosedOutput) => "it has closed its standard output".into(),
            Some(_) => format!("it was not ready after {:?}", self.shared.rules.timeout.unwrap_or_default()),
        };
        let is_sure = matches!(worker.fate, Some(Fate::WrongStart(_)));
        if self.beginnings.fail() || is_sure {
            self.give_up(format!("{who} has not come to its first request: {why}"), output);
        }
    }
}

/// However the desk ends, nobody waits for ever.
impl Drop for Desk {
    fn drop(&mut self) {
        let with_workers = std::mem::take(&mut self.workers).into_values().filter_map(|worker| worker.order);
        let left: Vec<Order> = with_workers.chain(std::mem::take(&mut self.waiting)).collect();
        left.into_iter().for_each(|order| order.answer_without_worker(self.refusal()));
        self.set.stop_all();
        // They are being stopped; the set waits for them when it is dropped.
        let _ = self.set.wait_all_deadline(Deadline::after(Duration::from_secs(5)));
        self.shared.inbox.end();
    }
}

/// What a worker is asked in its beginning, or says by itself, and whether that is right.
pub(super) struct First {
    pub(super) request: Option<Vec<u8>>,
    pub(super) framed: Option<Arc<Vec<u8>>>,
    pub(super) is_right: Check,
}
