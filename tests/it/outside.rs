//! An engine as somebody else would write it, with what is public and no more: a thread for each job. It shows that the seam is open to
//! others, and that the suite in `engines` holds for real processes.

use procession::pool::{Capabilities, Engine, Finish, Job, JobId, JobNews, Outcome, Refusal, Tell, Waker};
use procession::{
    Cause, Child, Command, Deadline, Error, ErrorKind, Input, Output, ProcessHandle, Stdio, Stop, Stream,
};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The engine.
pub struct Threads {
    sender: Sender<Said>,
    receiver: Receiver<Said>,
    jobs: BTreeMap<JobId, (JoinHandle<()>, Arc<Mutex<Slot>>)>,
}

enum Said {
    Woken,
    Started(JobId),
    Output(JobId, Stream, Vec<u8>),
    CancelAccepted(JobId),
    Finished(JobId, Box<Finish>),
}

/// What the thread of a job and the engine share.
#[derive(Default)]
struct Slot {
    cancelled: bool,
    handle: Option<ProcessHandle>,
    /// Who stops it, and says in the end whether nothing of it is left.
    stopper: Option<JoinHandle<bool>>,
}

impl Slot {
    fn stop(&mut self) {
        if let Some(handle) = self.handle.clone().filter(|_| self.cancelled && self.stopper.is_none()) {
            let stop = move || handle.stop(&Stop::default()).is_ok_and(|report| report.survivors().is_empty());
            self.stopper = Some(thread::spawn(stop));
        }
    }
}

impl Threads {
    pub fn new() -> Threads {
        let (sender, receiver) = channel();
        Threads { sender, receiver, jobs: BTreeMap::new() }
    }

    fn pass_on(&mut self, said: Said, tell: &mut Tell<'_>) {
        match said {
            Said::Woken => {}
            Said::Started(job) => tell(job, JobNews::Started { place: "here".into() }),
            Said::Output(job, stream, bytes) => tell(job, JobNews::Output { stream, bytes: &bytes }),
            Said::CancelAccepted(job) if self.jobs.contains_key(&job) => tell(job, JobNews::CancelAccepted),
            Said::CancelAccepted(_) => {}
            Said::Finished(job, finish) => {
                let (thread, _) = self.jobs.remove(&job).unwrap();
                thread.join().unwrap();
                tell(job, JobNews::Finished(*finish));
            }
        }
    }
}

impl Engine for Threads {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "threads".into(), in_flight_max: Some(30), ..Capabilities::local() }
    }

    fn waker(&self) -> Waker {
        let sender = self.sender.clone();
        Waker::new(move || drop(sender.send(Said::Woken)))
    }

    fn submit(&mut self, job: &Job) -> Result<(), Refusal> {
        if self.jobs.len() >= 30 {
            return Err(Refusal::Later(Error::of_engine(ErrorKind::ResourceExhausted, "too many threads")));
        }
        let (slot, sender, copy) = (Arc::default(), self.sender.clone(), job.clone());
        let shared = Arc::clone(&slot);
        let thread = thread::spawn(move || {
            let finish = run(&copy, &shared, &sender);
            drop(sender.send(Said::Finished(copy.id, Box::new(finish))));
        });
        self.jobs.insert(job.id, (thread, slot));
        Ok(())
    }

    fn poll(&mut self, until: Deadline, tell: &mut Tell<'_>) -> Result<(), Error> {
        let first = match until.remaining() {
            None => self.receiver.recv().ok(),
            Some(wait) => match self.receiver.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => None,
                received => received.ok(),
            },
        };
        let more: Vec<Said> = self.receiver.try_iter().collect();
        first.into_iter().chain(more).for_each(|said| self.pass_on(said, tell));
        Ok(())
    }

    fn cancel(&mut self, job: JobId) {
        if let Some((_, slot)) = self.jobs.get(&job) {
            let mut slot = slot.lock().unwrap();
            if !std::mem::replace(&mut slot.cancelled, true) {
                drop(self.sender.send(Said::CancelAccepted(job)));
                slot.stop();
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        ids.into_iter().for_each(|id| self.cancel(id));
        for (thread, _) in std::mem::take(&mut self.jobs).into_values() {
            thread.join().unwrap();
        }
    }
}

/// Runs a job to its end.
fn run(job: &Job, slot: &Mutex<Slot>, sender: &Sender<Said>) -> Finish {
    let deadline = Deadline::from(job.command.get_timeout());
    let mut child = match start(&job.command) {
        Ok(child) => child,
        Err(error) => return Finish { outcome: Outcome::NotStarted, output: job.record(), error: Some(error) },
    };
    drop(sender.send(Said::Started(job.id)));
    let mut locked = slot.lock().unwrap();
    locked.handle = Some(child.handle().clone());
    locked.stop();
    drop(locked);
    let input = job.command.get_input().cloned().unwrap_or_else(Input::empty);
    let talked = if job.live { show(&mut child, input, deadline, job.id, sender) } else { Ok(input) };
    let talked = talked.and_then(|input| child.communicate_deadline(input, deadline));
    let stopper = slot.lock().unwrap().stopper.take();
    if let Some(confirmed) = stopper.map(|stopper| stopper.join().unwrap()) {
        let output = talked.unwrap_or_else(Error::into_output);
        let output = record(job, &child, &output, Cause::Stopped);
        return Finish { outcome: Outcome::Cancelled { confirmed }, output, error: None };
    }
    finish(job, &mut child, talked)
}

fn start(command: &Command) -> Result<Child, Error> {
    let stdin = if command.get_input().is_some() { Stdio::piped() } else { Stdio::null() };
    let command = command.clone().stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop();
    command.spawn()
}

/// Shows the output as it comes. What is left of the input is nothing.
fn show(
    child: &mut Child,
    input: Input,
    deadline: Deadline,
    job: JobId,
    sender: &Sender<Said>,
) -> Result<Input, Error> {
    if child.stdin.is_some() {
        child.feed(input)?;
    }
    let wait = deadline.remaining().unwrap_or(Duration::MAX);
    let mut chunks = child.chunks().timeout(wait);
    while let Some((stream, bytes)) = chunks.next_chunk()? {
        drop(sender.send(Said::Output(job, stream, bytes.to_vec())));
    }
    Ok(Input::empty())
}

fn finish(job: &Job, child: &mut Child, talked: Result<Output, Error>) -> Finish {
    let error = match talked {
        Ok(output) => {
            let output = record(job, child, &output, Cause::Ended);
            return Finish { outcome: Outcome::of(output.status()), output, error: None };
        }
        Err(error) => error,
    };
    let (outcome, cause) = match error.kind() {
        ErrorKind::Timeout => (Outcome::TimedOut, Cause::Timeout),
        ErrorKind::Overflow => (Outcome::Overflowed, Cause::Overflow),
        _ => (Outcome::EngineFailed { retryable: false }, Cause::Stopped),
    };
    drop(child.stop(&Stop::default()));
    let output = record(job, child, error.output(), cause);
    Finish { outcome, output, error: Some(error) }
}

/// The record of the job: that of the process, under the name of the command as it was given to us.
fn record(job: &Job, child: &Child, output: &Output, cause: Cause) -> Output {
    let record = job.record().with_stdout(output.stdout()).with_stderr(output.stderr()).with_cause(cause);
    let record = record.with_elapsed(output.elapsed());
    match child.status() {
        Some(status) => record.with_status(status),
        None => record,
    }
}
