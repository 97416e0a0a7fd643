//! Who gives which task to which worker, and what becomes of it: the thread of a pool. Decides how many tasks lie ready at a worker, when they are taken
//! back, when a worker is hired, replaced or stopped, and who is to blame when one has died.
//!
//! A worker with short tasks has some in advance, so that it need not wait for this thread after each; as many as it works off in [`ADVANCE`]. They are
//! not lost to it: as long as it has not begun one it can be taken back, for a worker that has nothing to do, or because this one has died.

use super::Shared;
use super::channel::{Answered, Channel, Ends, Rest, Returned, Ungranted};
use super::worker::{self, Answer, QUIT, Setup};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::ipc::call::{Call, State};
use crate::ipc::codec::{self, Encoded};
use crate::ipc::passing::Descriptor;
use crate::ipc::process::{ARRIVAL_MAX, Process, Started, outcome};
use crate::output::Output;
use crate::pool::workers::answers::{Tell, broken, cancelled, terminated};
use crate::pool::workers::beginnings::{Beginnings, DEATHS_MAX};
use crate::pool::workers::inbox::Said;
use crate::set::{ChildKey, ChildSet, News};
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::sys::eventfd;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// So much work lies ready at a worker.
const ADVANCE: Duration = Duration::from_micros(200);
/// But no more tasks than this.
const ADVANCE_MAX: usize = 128;
/// When somebody has nothing to do, tasks that lie ready elsewhere are looked at again after this time.
const PATIENCE: Duration = Duration::from_millis(1);

/// A task, and who waits for it.
pub(super) struct Order {
    pub(super) id: u64,
    /// The iteration that it belongs to.
    pub(super) group: u64,
    pub(super) function: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Those in the arguments, as long as the task is with no worker.
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) timeout: Option<Duration>,
    /// How often it may be begun once more when its worker dies.
    pub(super) retries: u32,
    pub(super) tell: Tell<Encoded>,
}

/// What is asked of the desk.
pub(super) enum Message {
    Submit(Order),
    Cancel(u64),
    CancelGroup(u64),
}

struct Worker {
    /// `None` in place of a task: the word to go.
    channel: Channel<Option<Order>>,
    call: Call,
    name: String,
    id: u32,
    /// How many tasks it has ended.
    done: u64,
    /// How long its tasks take, the last ones counting most.
    mean: Option<Duration>,
    /// Until when it must have come to its function; not, once it is known to have begun to work.
    arrival: Option<Deadline>,
    /// When the task that it is in must be ended.
    deadline: Deadline,
    is_leaving: bool,
    /// Why it is being stopped.
    doom: Option<Doom>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doom {
    Cancelled,
    Timeout,
    Terminated,
}

pub(super) struct Desk {
    shared: Arc<Shared>,
    set: ChildSet,
    workers: BTreeMap<ChildKey, Worker>,
    waiting: VecDeque<Order>,
    beginnings: Beginnings,
    terminating: bool,
    /// Why no worker will ever work.
    broken: Option<String>,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Desk, Error> {
        let mut set = ChildSet::new()?;
        let bell = shared.bell.try_clone().map_err(|error| Error::io("dup", error))?;
        set.watch(bell)?;
        Ok(Desk {
            shared,
            set,
            workers: BTreeMap::new(),
            waiting: VecDeque::new(),
            beginnings: Beginnings::default(),
            terminating: false,
            broken: None,
        })
    }

    /// Works until the pool is over.
    pub(super) fn run(mut self) {
        let mut bytes = Vec::new();
        let mut was_quiet = false;
        loop {
            let (closed, terminated) = self.take_messages();
            if terminated && !self.terminating {
                self.terminate();
            }
            let came = self.take_answers(&mut bytes);
            self.look_at_deadlines();
            self.answer_for_good();
            self.hire();
            self.hand_out(was_quiet && !came);
            self.answer_for_good();
            if closed && self.waiting.is_empty() && self.dismiss_all() {
                break;
            }
            was_quiet = self.sleep();
        }
    }

    /// What was asked since the last time; whether the pool was closed, and terminated.
    fn take_messages(&mut self) -> (bool, bool) {
        let Said { messages, closed, terminated } = self.shared.inbox.take();
        for message in messages {
            match message {
                Message::Submit(order) => self.waiting.push_back(order),
                Message::Cancel(id) => self.cancel(|order| order.id == id),
                Message::CancelGroup(group) => self.cancel(|order| order.group == group),
            }
        }
        (closed, terminated)
    }

    /// Nobody will do what waits.
    fn answer_for_good(&mut self) {
        if self.broken.is_none() && !self.terminating {
            return;
        }
        for order in std::mem::take(&mut self.waiting) {
            let error = self.broken.as_deref().map_or_else(terminated, broken);
            order.tell.tell(Err(error));
        }
    }

    fn terminate(&mut self) {
        self.terminating = true;
        let keys: Vec<ChildKey> = self.workers.keys().copied().collect();
        keys.into_iter().for_each(|key| self.stop(key, Doom::Terminated));
    }

    /// Ends tasks that were not begun, and stops the workers of the others.
    fn cancel(&mut self, is_meant: impl Fn(&Order) -> bool) {
        let mut doomed = Vec::new();
        for (key, worker) in &mut self.workers {
            if !worker.channel.tasks().flatten().any(&is_meant) {
                continue;
            }
            give_back(worker, usize::MAX, &mut self.waiting);
            if worker.channel.tasks().flatten().any(&is_meant) {
                doomed.push(*key);
            }
        }
        let (meant, others) = std::mem::take(&mut self.waiting).into_iter().partition::<Vec<_>, _>(&is_meant);
        self.waiting = others.into();
        meant.into_iter().for_each(|order| order.tell.tell(Err(cancelled())));
        doomed.into_iter().for_each(|key| self.stop(key, Doom::Cancelled));
    }

    /// Stops a worker and all that it has started. What it has not begun goes to others.
    fn stop(&mut self, key: ChildKey, doom: Doom) {
        let Some(worker) = self.workers.get_mut(&key) else { return };
        give_back(worker, usize::MAX, &mut self.waiting);
        if worker.doom.is_none() {
            worker.doom = Some(doom);
            worker.deadline = Deadline::NEVER;
            self.set.stop(key);
        }
    }

    /// Takes what the workers have left. True if there was anything.
    fn take_answers(&mut self, bytes: &mut Vec<u8>) -> bool {
        let mut came = false;
        let mut garbled = Vec::new();
        for (key, worker) in &mut self.workers {
            let before = worker.done;
            came |= take_answers_of(worker, bytes).unwrap_or_else(|_| {
                garbled.push(*key);
                true
            });
            if worker.done > before {
                self.beginnings.succeed(before == 0);
            }
        }
        // It has written where it must not: nothing of it can be trusted.
        garbled.into_iter().for_each(|key| self.stop(key, Doom::Terminated));
        came
    }

    fn look_at_deadlines(&mut self) {
        for worker in self.workers.values_mut().filter(|worker| worker.arrival.is_some_and(Deadline::has_passed)) {
            worker.arrival = Some(Deadline::NEVER);
            // Else it is in what it is to do first, which may take its time.
            if worker.call.state().is_ok_and(|state| state == State::Started) {
                let text = format!("{} had not come to its function after {ARRIVAL_MAX:?}", worker.name);
                self.broken.get_or_insert(text);
                worker.deadline = Deadline::now();
            }
        }
        let late = self.workers.iter().filter(|(_, worker)| worker.deadline.has_passed());
        let late: Vec<ChildKey> = late.map(|(key, _)| *key).collect();
        late.into_iter().for_each(|key| self.stop(key, Doom::Timeout));
    }

    /// Starts as many workers as there is work for.
    fn hire(&mut self) {
        while self.broken.is_none() && !self.terminating && self.workers.len() < self.shared.rules.workers {
            let free = self.workers.values().filter(|worker| worker.is_free() && worker.channel.len() == 0).count();
            if free >= self.waiting.len() {
                return;
            }
            if let Err(error) = self.hire_one() {
                // With others at work it may go better later. Alone there is nothing to wait for: what there is now is answered, and the next
                // task is a new try.
                if self.workers.is_empty() {
                    for order in std::mem::take(&mut self.waiting) {
                        order.tell.tell(Err(broken(&error.to_string())));
                    }
                }
                return;
            }
        }
    }

    fn hire_one(&mut self) -> Result<(), Error> {
        let (channel, Ends { memory, tasks, results, socket }) = Channel::new()?;
        let bell = self.shared.bell.try_clone().map_err(|error| Error::io("dup", error))?;
        let descriptors = [memory, tasks, results, socket, bell].map(Descriptor::from);
        let rules = &self.shared.rules;
        let first = match &rules.first {
            Some(first) => Some(first.copy()?),
            None => None,
        };
        let setup: Setup = (descriptors, first, rules.tasks_max, rules.memory_max);
        let number = self.shared.next_worker();
        let builder = Process::builder(worker::work, setup).name(format!("{}-{number}", rules.name));
        let builder = builder.configure(|command| rules.configured(command)).daemon();
        let Started { child, call, name, .. } = builder.start_plainly()?;
        let (id, handle) = (child.id(), child.handle().clone());
        // Nobody would ever tell it to go. Whether it can be killed is of no interest any more.
        let key = self.set.insert(child).inspect_err(|_| drop(handle.kill()))?;
        let worker = Worker {
            channel,
            call,
            name,
            id,
            done: 0,
            mean: None,
            arrival: Some(Deadline::after(ARRIVAL_MAX)),
            deadline: Deadline::NEVER,
            is_leaving: false,
            doom: None,
        };
        self.workers.insert(key, worker);
        Ok(())
    }

    /// Gives tasks to those who have the fewest. `was_quiet`: for a while nothing has come from anybody.
    fn hand_out(&mut self, was_quiet: bool) {
        if self.waiting.is_empty() {
            self.share_out(was_quiet);
        }
        let free = self.workers.values().filter(|worker| worker.is_free());
        let (count, with_them) = free.fold((0, 0), |(count, sum), worker| (count + 1, sum + worker.channel.len()));
        // Nobody gets more than his share, though he would work it off: others would be idle.
        let share = (self.waiting.len() + with_them).div_ceil(count.max(1));
        for worker in self.workers.values_mut().filter(|worker| worker.is_free()) {
            let most = worker.advance().min(share);
            while worker.channel.len() < most {
                let Some(order) = self.waiting.pop_front() else { break };
                if let Err(order) = grant(worker, order) {
                    self.waiting.push_front(order);
                    break;
                }
            }
        }
        for worker in self.workers.values().filter(|worker| worker.channel.len() > 0) {
            worker.channel.wake();
        }
    }

    /// Somebody has nothing to do, and elsewhere tasks lie ready: half of them are taken back.
    fn share_out(&mut self, was_quiet: bool) {
        if !self.workers.values().any(|worker| worker.is_free() && worker.channel.len() == 0) {
            return;
        }
        let most = self.workers.values_mut().max_by_key(|worker| worker.channel.unbegun());
        let Some(most) = most else { return };
        let count = most.channel.unbegun();
        // A few short tasks are done sooner than they are moved, unless the one before them takes long.
        if count > 0 && (was_quiet || most.mean.unwrap_or_default() * count as u32 >= ADVANCE) {
            give_back(most, count.div_ceil(2), &mut self.waiting);
        }
    }

    /// Nothing is left to be done: tells the workers to go. True when all have gone.
    fn dismiss_all(&mut self) -> bool {
        if self.workers.values().any(|worker| worker.channel.tasks().flatten().next().is_some()) {
            return false;
        }
        self.workers.values_mut().for_each(dismiss);
        self.workers.is_empty()
    }

    /// Sleeps until something happens. True if nothing has.
    fn sleep(&mut self) -> bool {
        let mut deadline = Deadline::NEVER;
        let (mut idle, mut ready) = (false, false);
        for worker in self.workers.values() {
            if worker.channel.ask_to_be_told(worker.arrival.is_none()) {
                deadline = Deadline::now();
            }
            deadline = deadline.earlier(worker.deadline).earlier(worker.arrival.unwrap_or(Deadline::NEVER));
            idle |= worker.is_free() && worker.channel.len() == 0;
            ready |= worker.channel.unbegun() > 0;
        }
        if idle && ready {
            deadline = deadline.earlier(Deadline::after(PATIENCE));
        }
        if !self.waiting.is_empty() && self.workers.len() < self.shared.rules.workers {
            // A worker could not be started.
            deadline = deadline.earlier(Deadline::after(PATIENCE * 50));
        }
        if !self.shared.inbox.fall_asleep() {
            deadline = Deadline::now();
        }
        let mut ends = Vec::new();
        let mut quiet = true;
        let mut until = deadline;
        loop {
            match self.set.wait_any_deadline(until) {
                Ok(Some(News::Exit { child, result })) => ends.push((child, result)),
                Ok(Some(News::Readable(_))) => {
                    eventfd::silence(self.shared.bell.as_fd());
                    quiet = false;
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    self.give_up(error.to_string());
                    std::thread::sleep(PATIENCE);
                    break;
                }
            }
            until = Deadline::now();
        }
        self.shared.inbox.wake_up();
        quiet &= ends.is_empty();
        ends.into_iter().for_each(|(key, result)| self.bury(key, result));
        quiet
    }

    /// A worker has ended.
    fn bury(&mut self, key: ChildKey, result: Result<Output, Error>) {
        let Some(mut worker) = self.workers.remove(&key) else { return };
        let garbled = take_answers_of(&mut worker, &mut Vec::new()).is_err();
        let mut output = result.unwrap_or_else(Error::into_output);
        let was_ready = worker.channel.is_ready();
        let (name, id, doom, done) = (worker.name, worker.id, worker.doom, worker.done);
        let Rest { begun, unbegun } = worker.channel.into_rest();
        for back in unbegun.into_iter().rev() {
            take_over(back, &mut self.waiting);
        }
        if doom.is_none() && done == 0 {
            self.note_early_end(&worker.call, &name, was_ready, output.status());
        }
        if let Some((Some(mut order), kept)) = begun {
            order.descriptors = kept;
            // Where a panic has aborted, the account of it is all that the worker has left.
            let panic = doom.is_none().then(|| outcome(&worker.call, output.status()).err()).flatten();
            match panic.filter(|error| error.kind() == ErrorKind::Panic) {
                Some(panic) => {
                    output.command = format!("{name} (process {id}) in {}", order.function);
                    order.tell.tell(Err(panic.with_output(output)));
                }
                None => self.blame(order, doom, output, &format!("{name} (process {id})"), garbled),
            }
        }
    }

    /// A worker has ended before it had ended a task. That may go on for ever.
    fn note_early_end(&mut self, call: &Call, name: &str, was_ready: bool, status: ExitStatus) {
        if self.beginnings.die() {
            self.give_up(format!(
                "{DEATHS_MAX} workers in a row have ended before they had ended a task, {name} by {status}"
            ));
        }
        // Somebody has killed it, or it is its task that has ended it.
        if was_ready || matches!(status.signal(), Some(Signal::KILL | Signal::TERM)) {
            return;
        }
        let are_too_many = self.beginnings.fail();
        let why = outcome(call, status).and_then(|result| codec::decode::<Result<(), String>>(&result, Vec::new()));
        let (kind, text) = match why {
            Ok(Ok(())) => (ErrorKind::Status, status.to_string()),
            Ok(Err(reason)) => (ErrorKind::InvalidInput, reason),
            Err(error) => (error.kind(), error.to_string()),
        };
        // What the program itself does wrong it does again.
        if kind == ErrorKind::Panic || kind == ErrorKind::InvalidInput || are_too_many {
            self.give_up(format!("{name} has ended before its first task: {text}"));
        }
    }

    /// The worker has died in this task.
    fn blame(&mut self, mut order: Order, doom: Option<Doom>, mut output: Output, who: &str, garbled: bool) {
        if doom.is_none() && order.retries > 0 && !self.terminating {
            order.retries -= 1;
            self.waiting.push_front(order);
            return;
        }
        output.command = format!("{who} in {}", order.function);
        let error = match doom {
            Some(Doom::Timeout) => {
                let text = format!("not finished after {:?}", order.timeout.unwrap_or_default());
                Error::new(ErrorKind::Timeout).detail(text)
            }
            Some(Doom::Cancelled) => cancelled(),
            Some(Doom::Terminated) if !garbled => terminated(),
            _ => Error::new(ErrorKind::Status).detail(format!("{} before the function had returned", output.status())),
        };
        order.tell.tell(Err(error.with_output(output)));
    }

    fn give_up(&mut self, why: String) {
        self.broken.get_or_insert(why);
    }
}

/// However the desk ends, nobody waits for ever.
impl Drop for Desk {
    fn drop(&mut self) {
        let with_workers = std::mem::take(&mut self.workers).into_values().flat_map(|worker| {
            let Rest { begun, unbegun } = worker.channel.into_rest();
            begun.map(|(order, _)| order).into_iter().chain(unbegun.into_iter().map(|back| back.task)).flatten()
        });
        let left: Vec<Order> = with_workers.chain(std::mem::take(&mut self.waiting)).collect();
        left.into_iter().for_each(|order| order.tell.tell(Err(terminated())));
        self.set.stop_all();
        // They are being stopped; the set waits for them when it is dropped.
        let _ = self.set.wait_all_deadline(Deadline::after(Duration::from_secs(5)));
        self.shared.inbox.end();
    }
}

impl Worker {
    /// Whether it takes tasks.
    fn is_free(&self) -> bool {
        !self.is_leaving && self.doom.is_none()
    }

    /// How many tasks it should have.
    fn advance(&self) -> usize {
        match self.mean {
            None => 1,
            Some(mean) => {
                let fitting = ADVANCE.as_nanos() / mean.as_nanos().max(1);
                1 + (fitting as usize).min(ADVANCE_MAX - 1)
            }
        }
    }

    /// The task that it is in, or comes to next, is another one.
    fn begin_next(&mut self) {
        let timeout = self.channel.tasks().next().and_then(|order| order.as_ref()?.timeout);
        let counts = self.arrival.is_none() && self.doom.is_none();
        self.deadline = if counts { timeout.into() } else { Deadline::NEVER };
    }
}

fn take_answers_of(worker: &mut Worker, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut came = false;
    if worker.arrival.is_some() && worker.channel.is_ready() {
        worker.arrival = None;
        worker.begin_next();
        came = true;
    }
    while let Some(Answered { task, descriptors }) = worker.channel.next_result(bytes)? {
        came = true;
        let Some(order) = task else { continue };
        worker.done += 1;
        let result = Answer::read(bytes, descriptors).and_then(|answer| {
            worker.mean = Some(worker.mean.map_or(answer.took, |mean| (mean * 7 + answer.took) / 8));
            answer.result
        });
        let (name, id, function) = (&worker.name, worker.id, order.function);
        let result = result.map_err(|error| error.of_command(|| format!("{name} (process {id}) in {function}")));
        order.tell.tell(result);
        worker.begin_next();
    }
    Ok(came)
}

fn grant(worker: &mut Worker, mut order: Order) -> Result<(), Order> {
    let is_first = worker.channel.len() == 0;
    let (bytes, descriptors, keeps) = (order.bytes.clone(), std::mem::take(&mut order.descriptors), order.retries > 0);
    match worker.channel.grant(Some(order), &bytes, descriptors, keeps) {
        Ok(()) => {
            if is_first {
                worker.begin_next();
            }
            Ok(())
        }
        // With nothing before it there is always room in the ring: it is the memory for long tasks that is missing, or this user has too many
        // descriptors on their way.
        Err(Ungranted { task: Some(order), error: Some(error), .. }) if is_first => {
            order.tell.tell(Err(Error::from(error).detail("the arguments cannot be given to a worker")));
            Ok(())
        }
        Err(Ungranted { task: Some(mut order), descriptors, .. }) => {
            order.descriptors = descriptors;
            Err(order)
        }
        Err(Ungranted { task: None, .. }) => Ok(()),
    }
}

/// Tells a worker to go when it has done what it has.
fn dismiss(worker: &mut Worker) {
    if worker.is_free() && worker.channel.grant(None, QUIT, Vec::new(), false).is_ok() {
        worker.is_leaving = true;
        worker.channel.wake();
    }
}

/// Takes tasks back that the worker has not begun; in their order, before all others.
fn give_back(worker: &mut Worker, count_max: usize, waiting: &mut VecDeque<Order>) {
    let mut was_leaving = false;
    for back in worker.channel.take_back(count_max) {
        was_leaving |= !take_over(back, waiting);
    }
    if was_leaving {
        worker.is_leaving = false;
        dismiss(worker);
    }
}

/// A task that is with no worker any more comes before all others. False if it was the word to go.
fn take_over(Returned { task, descriptors }: Returned<Option<Order>>, waiting: &mut VecDeque<Order>) -> bool {
    let Some(mut order) = task else { return false };
    match descriptors {
        Ok(descriptors) => {
            order.descriptors = descriptors;
            waiting.push_front(order);
        }
        Err(error) => {
            let error = Error::io("recvmsg", error)
                .detail("the descriptors in the arguments cannot be given to another worker");
            order.tell.tell(Err(error));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advance_follows_the_length_of_the_tasks() {
        let (channel, _ends) = Channel::new().unwrap();
        let call = Call::left_by_parent(crate::sys::shared::unsealed(c"test").unwrap());
        let mut worker = Worker {
            channel,
            call,
            name: String::new(),
            id: 0,
            done: 0,
            mean: None,
            arrival: Some(Deadline::after(ARRIVAL_MAX)),
            deadline: Deadline::NEVER,
            is_leaving: false,
            doom: None,
        };
        let mut advance = |nanos: u64| {
            worker.mean = Some(Duration::from_nanos(nanos));
            worker.advance()
        };
        let found: Vec<usize> = [0, 100, 2_000, 20_000, 200_000, 300_000, 1_000_000_000].map(&mut advance).into();
        assert_eq!(found, [128, 128, 101, 11, 2, 1, 1]);
    }
}
