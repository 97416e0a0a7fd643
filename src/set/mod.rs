//! Many children on one thread: the driver that feeds their conversations with readiness from one epoll, and tells what happens one
//! thing at a time. Decides who is first when several things are ready, and how much one child may take before it is another's
//! turn.

mod entry;
mod token;

use crate::child::{Child, KillOnDrop};
use crate::command::{Command, Input, Stdio};
use crate::communicate::Purpose;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::handle;
use crate::live::Line;
use crate::machine::STREAMS;
use crate::output::{Output, Stream};
use crate::pipe::{PipeReader, PipeWriter, pipe};
use crate::signal::Signal;
use crate::sys;
use crate::sys::epoll::{Epoll, Interest};
use crate::text::Cut;
use entry::{Entry, Fact};
use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use token::{Key, Part, Slab};

/// Thousands of children, timers and descriptors of your own, waited for on one thread without a runtime.
///
/// Put children in, and [`wait_any`](Self::wait_any) tells what happens, one thing at a time: a line, a piece of output, the end of a
/// stream, the end of a child with its record, a timer, a descriptor. All of them are read and fed whichever is told, so no child
/// waits for another. No thread is started and no signal handler is installed.
///
/// **Who is first** when several things are ready: timers and timeouts, by their moments; then what a child has to say, child by
/// child in the order in which they became ready. Of one child output comes before the end of its stream, and that before the end of
/// the child. **Fairness**: in one turn at most one read of each stream is told (256 KiB), or 1 MiB of each collected, and a child that
/// has had its turn comes behind all others that are ready.
///
/// Dropping the set stops every child that is still in it, all at the same time, each by the stop plan of its command.
///
/// ```
/// use procession::{ChildSet, Command, News};
///
/// let mut set = ChildSet::new()?;
/// for word in ["one", "two", "three"] {
///     set.start(&Command::new("echo").arg(word))?;
/// }
/// let mut bytes = 0;
/// while let Some(news) = set.wait_any()? {
///     if let News::Exit { result, .. } = news {
///         bytes += result?.stdout().len();
///     }
/// }
/// assert_eq!(bytes, 14);
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "select")]
#[doc(alias = "epoll")]
pub struct ChildSet {
    epoll: Epoll,
    entries: Slab<Box<Entry>>,
    watched: Slab<OwnedFd>,
    timers: Slab<Instant>,
    /// Every moment that is waited for: one timer is armed, for the first.
    times: BTreeSet<(Instant, Moment)>,
    /// Who has something to tell, in order.
    pending: VecDeque<Key>,
    ready_descriptors: VecDeque<Key>,
    waker: Option<(PipeReader, SetWaker)>,
    null: Option<Stdio>,
    woken: bool,
    /// Answers of the kernel, in memory that is used again.
    answers: Vec<u64>,
}

/// Whose moment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Timer(Key),
    /// A child is to be reported as still running.
    Reminder(Key),
    /// A child is to be looked at.
    Look(Key),
}

/// A child in a set. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildKey(Key);

/// A timer in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey(Key);

/// A descriptor of the caller's in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchKey(Key);

/// What is told of a child while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// Its end alone, with a record of everything.
    #[default]
    Record,
    /// Each line of both streams as soon as it is complete; the record keeps the last 64 KiB.
    Lines,
    /// Output as it is read; the record keeps the last 64 KiB.
    Chunks,
}

/// What has happened in a [`ChildSet`].
#[derive(Debug)]
#[doc(alias = "Event")]
pub enum News<'a> {
    /// A timer has come.
    Timer(TimerKey),
    /// The moment of [`set_timeout`](ChildSet::set_timeout) has come, and the child still runs.
    Timeout(ChildKey),
    /// A descriptor of the caller's is readable, or has come to its end.
    Readable(WatchKey),
    /// A child has written a line.
    Line {
        /// Which child.
        child: ChildKey,
        /// The line, and which stream it came from.
        line: Line<'a>,
    },
    /// A child has written this.
    Chunk {
        /// Which child.
        child: ChildKey,
        /// To which stream.
        stream: Stream,
        /// What.
        bytes: &'a [u8],
    },
    /// Nothing more will come of this stream. Told of children whose output is [followed](Follow).
    End {
        /// Which child.
        child: ChildKey,
        /// Which stream.
        stream: Stream,
    },
    /// A child has ended, and its streams with it; it is not in the set any more. The last thing that is told of it.
    Exit {
        /// Which child.
        child: ChildKey,
        /// What [`Command::output`] or [`Child::communicate`] would have returned.
        result: Result<Output, Error>,
    },
}

/// What there is to tell, before anything of it is lent.
enum Found {
    Timer(TimerKey),
    Timeout(ChildKey),
    Readable(WatchKey),
    Child(Key, Fact),
}

/// Called with what is read of a child whose record is kept.
pub(crate) type SeeAll<'a> = dyn FnMut(ChildKey, Stream, &[u8]) + 'a;

impl ChildSet {
    /// An empty set. It holds one descriptor.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn new() -> Result<ChildSet, Error> {
        Ok(ChildSet {
            epoll: Epoll::new().map_err(|error| Error::io("epoll_create", error))?,
            entries: Slab::default(),
            watched: Slab::default(),
            timers: Slab::default(),
            times: BTreeSet::new(),
            pending: VecDeque::new(),
            ready_descriptors: VecDeque::new(),
            waker: None,
            null: None,
            woken: false,
            answers: Vec::new(),
        })
    }

    /// Starts a command as [`Command::output`] does: both streams are collected, its [`input`](Command::input) is fed, and its
    /// [`timeout`](Command::timeout) stops it.
    ///
    /// # Errors
    /// If it cannot be started. Nothing is put into the set then.
    pub fn start(&mut self, command: &Command) -> Result<ChildKey, Error> {
        self.start_and_follow(command, Follow::Record)
    }

    /// The same, and tells its output while it runs.
    ///
    /// # Errors
    /// As [`start`](Self::start); and with [`Follow::Lines`] if its [`text`](Command::text) is in an encoding in which a line cannot be
    /// found among the bytes (UTF-16).
    pub fn start_and_follow(&mut self, command: &Command, follow: Follow) -> Result<ChildKey, Error> {
        if follow == Follow::Lines && command.text.is_cut_as_text() {
            return Err(no_lines().of_command(|| command.to_string()));
        }
        let streams = command.collected_streams(self.null())?;
        let mut child = command.spawn_with(&streams)?;
        child.settings.kill_on_drop = KillOnDrop::Always;
        let [stdin, ..] = &streams;
        let input = command.fed_input(stdin.as_ref());
        self.admit(child, input, follow, command.timeout, true)
    }

    /// Puts a child in. Its output is collected from here on, or told; standard input stays open for what is [fed](Self::feed), until
    /// [`end_input`](Self::end_input).
    ///
    /// # Errors
    /// If the system refuses to wait for it.
    pub fn insert(&mut self, child: Child) -> Result<ChildKey, Error> {
        self.insert_and_follow(child, Follow::Record)
    }

    /// The same, and tells its output while it runs.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and as [`start_and_follow`](Self::start_and_follow).
    pub fn insert_and_follow(&mut self, child: Child, follow: Follow) -> Result<ChildKey, Error> {
        if follow == Follow::Lines && child.settings.text.is_cut_as_text() {
            return Err(no_lines().of_command(|| child.handle().line()));
        }
        let key = self.admit(child, Input::empty(), follow, None, false)?;
        if let Some(entry) = self.entries.get_mut(key.0) {
            entry.machine_mut().hold_input(true);
        }
        Ok(key)
    }

    /// The null device, opened once for all who are given it.
    fn null(&mut self) -> Stdio {
        if self.null.is_none() {
            let options = &mut std::fs::OpenOptions::new();
            let opened = sys::fd::open(Path::new("/dev/null"), options.read(true).write(true), 0);
            self.null = opened.ok().map(|fd| Stdio::from(fd));
        }
        self.null.clone().unwrap_or_else(Stdio::null)
    }

    fn admit(
        &mut self,
        mut child: Child,
        input: Input,
        follow: Follow,
        timeout: Option<Duration>,
        is_ours: bool,
    ) -> Result<ChildKey, Error> {
        let purpose = if follow == Follow::Record { Purpose::Collect } else { Purpose::Show };
        let mut machine = child.begin(input, purpose)?;
        if follow != Follow::Record {
            for stream in STREAMS {
                machine.hand_out(stream, child.limit(stream, Purpose::Collect).bytes_max);
            }
        }
        let entry = Entry::new(child, machine, follow, timeout, is_ours)?;
        let key = self.entries.insert(Box::new(entry));
        self.step(key, &mut |_, _, _| ());
        Ok(ChildKey(key))
    }

    /// How many children are in the set.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no child in the set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The children in the set.
    pub fn keys(&self) -> impl Iterator<Item = ChildKey> + '_ {
        self.entries.keys().map(ChildKey)
    }

    /// A child in the set.
    pub fn get(&self, child: ChildKey) -> Option<&Child> {
        self.entries.get(child.0).map(|entry| &entry.child)
    }

    /// Gives input to a child that was [inserted](Self::insert), behind what is still to be written.
    ///
    /// # Errors
    /// If it is not in the set, or its standard input is not a pipe or has been closed.
    pub fn feed(&mut self, child: ChildKey, input: impl Into<Input>) -> Result<(), Error> {
        let Some(entry) = self.entries.get_mut(child.0) else {
            return Err(Error::invalid("the child is not in the set"));
        };
        entry.add_input(input.into())?;
        self.step(child.0, &mut |_, _, _| ());
        Ok(())
    }

    /// Closes the standard input of a child behind what is still to be written. False if it is not in the set.
    pub fn end_input(&mut self, child: ChildKey) -> bool {
        let Some(entry) = self.entries.get_mut(child.0) else { return false };
        entry.machine_mut().hold_input(false);
        entry.mark(Part::Stdin);
        self.step(child.0, &mut |_, _, _| ());
        true
    }

    /// Begins to stop a child by the plan of its command, without waiting: its [exit](News::Exit) tells when that is done. False if it is
    /// not in the set.
    pub fn stop(&mut self, child: ChildKey) -> bool {
        let Some(entry) = self.entries.get_mut(child.0) else { return false };
        entry.stop();
        self.step(child.0, &mut |_, _, _| ());
        true
    }

    /// Sends a signal to a child and its tree, once, but to nobody in this group.
    pub(crate) fn signal(&self, child: ChildKey, signal: Signal, except_group: Option<i32>) -> Result<(), Error> {
        self.entries.get(child.0).map_or(Ok(()), |entry| entry.signal(signal, except_group))
    }

    /// Takes a child out, as it is. What was read and not told goes with it: [`Child::communicate`] goes on from there.
    pub fn remove(&mut self, child: ChildKey) -> Option<Child> {
        let entry = self.forget(child.0)?;
        self.pending.retain(|key| *key != child.0);
        Some(entry.into_child(&mut self.epoll))
    }

    /// Tells once, as [`News::Timeout`], that a child still runs after so long. It is not stopped; a
    /// [`Command::timeout`] does that. False if it is not in the set.
    pub fn set_timeout(&mut self, child: ChildKey, timeout: Duration) -> bool {
        self.set_deadline(child, Deadline::after(timeout))
    }

    /// The same, at a moment; never with [`Deadline::NEVER`].
    pub fn set_deadline(&mut self, child: ChildKey, deadline: impl Into<Deadline>) -> bool {
        let Some(entry) = self.entries.get_mut(child.0) else { return false };
        let name = Moment::Reminder(child.0);
        let before = std::mem::replace(&mut entry.remind, deadline.into());
        if let Some(moment) = before.moment() {
            self.times.remove(&(moment, name));
        }
        self.times.extend(entry.remind.moment().map(|moment| (moment, name)));
        true
    }

    /// A timer: told once, as [`News::Timer`], after so long.
    pub fn add_timer(&mut self, after: Duration) -> TimerKey {
        // A moment that the clock cannot hold never comes.
        let moment = Deadline::after(after).moment();
        let key = self.timers.insert(moment.unwrap_or_else(Instant::now));
        self.times.extend(moment.map(|moment| (moment, Moment::Timer(key))));
        TimerKey(key)
    }

    /// Takes a timer back. False if it has been told, or taken back before.
    pub fn remove_timer(&mut self, timer: TimerKey) -> bool {
        let Some(moment) = self.timers.remove(timer.0) else { return false };
        self.times.remove(&(moment, Moment::Timer(timer.0)));
        true
    }

    /// Waits for a descriptor of yours as well: told as [`News::Readable`] whenever it is readable. The set owns it; give it a duplicate
    /// if you go on using it.
    ///
    /// # Errors
    /// If it cannot be waited for, as a regular file cannot.
    pub fn watch(&mut self, descriptor: impl Into<OwnedFd>) -> Result<WatchKey, Error> {
        let key = self.watched.insert(descriptor.into());
        let Some(fd) = self.watched.get(key) else { return Ok(WatchKey(key)) };
        match self.epoll.add(fd.as_fd(), key.token(Part::Watched), Interest::Read) {
            Ok(()) => Ok(WatchKey(key)),
            Err(error) => {
                self.watched.remove(key);
                Err(Error::io("epoll_ctl", error).detail("the descriptor cannot be waited for"))
            }
        }
    }

    /// A descriptor that is waited for, to read from it.
    pub fn watched(&self, watch: WatchKey) -> Option<BorrowedFd<'_>> {
        self.watched.get(watch.0).map(|fd| fd.as_fd())
    }

    /// Gives a descriptor back.
    pub fn unwatch(&mut self, watch: WatchKey) -> Option<OwnedFd> {
        let fd = self.watched.remove(watch.0)?;
        self.epoll.remove(fd.as_fd());
        Some(fd)
    }

    /// What ends a wait from another thread: [`wait_any_deadline`](Self::wait_any_deadline) and `wait_any` then return `None`. Costs two
    /// descriptors the first time.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn waker(&mut self) -> Result<SetWaker, Error> {
        if let Some((_, waker)) = &self.waker {
            return Ok(waker.clone());
        }
        let failed = |error| Error::io("pipe", error);
        let (reader, writer) = pipe().map_err(failed)?;
        for end in [reader.as_fd(), writer.as_fd()] {
            sys::fd::set_nonblocking(end).map_err(failed)?;
        }
        let token = Key::FIRST.token(Part::Wake);
        self.epoll.add(reader.as_fd(), token, Interest::Read).map_err(failed)?;
        let waker = SetWaker(Arc::new(writer));
        self.waker = Some((reader, waker.clone()));
        Ok(waker)
    }

    /// Waits for what happens next. `None` if there is nothing left to wait for, or a [`waker`](Self::waker) wanted it.
    ///
    /// # Errors
    /// If the system refuses to wait. What goes wrong with a child is told as its exit.
    pub fn wait_any(&mut self) -> Result<Option<News<'_>>, Error> {
        self.wait_any_deadline(Deadline::NEVER)
    }

    /// The same, for at most this long. `None` also if nothing has happened until then.
    ///
    /// # Errors
    /// As [`wait_any`](Self::wait_any).
    pub fn wait_any_timeout(&mut self, timeout: Duration) -> Result<Option<News<'_>>, Error> {
        self.wait_any_deadline(Deadline::after(timeout))
    }

    /// The same, without waiting: for a loop of your own that waits for the [descriptor](Self::try_as_fd) of the set.
    ///
    /// # Errors
    /// As [`wait_any`](Self::wait_any).
    pub fn try_wait_any(&mut self) -> Result<Option<News<'_>>, Error> {
        self.wait_any_deadline(Deadline::now())
    }

    /// The same, at most until a moment.
    ///
    /// # Errors
    /// As [`wait_any`](Self::wait_any).
    pub fn wait_any_deadline(&mut self, deadline: impl Into<Deadline>) -> Result<Option<News<'_>>, Error> {
        let Some(found) = self.find(deadline.into(), &mut |_, _, _| ())? else { return Ok(None) };
        Ok(Some(match found {
            Found::Timer(timer) => News::Timer(timer),
            Found::Timeout(child) => News::Timeout(child),
            Found::Readable(watch) => News::Readable(watch),
            Found::Child(key, fact) => self.tell(key, fact),
        }))
    }

    /// Waits for the next child that ends. What else happens is not told. `None` also when somebody wants the wait to end: a waker, or
    /// whoever sees what is read.
    pub(crate) fn wait_exit(
        &mut self,
        deadline: Deadline,
        enough: &Cell<bool>,
        see: &mut SeeAll<'_>,
    ) -> Result<Option<(ChildKey, Result<Output, Error>)>, Error> {
        loop {
            match self.find_ready(see) {
                Some(Found::Child(key, Fact::Over(result))) => {
                    self.forget(key);
                    return Ok(Some((ChildKey(key), *result)));
                }
                Some(_) => continue,
                None => {}
            }
            if enough.get() || self.has_enough() || !self.wait(deadline, see)? {
                return Ok(None);
            }
        }
    }

    /// Waits for all children: their results in the order in which they end. Timers and descriptors are not told meanwhile.
    ///
    /// # Errors
    /// As [`wait_any`](Self::wait_any).
    #[doc(alias = "joinall")]
    pub fn wait_all(&mut self) -> Result<Vec<(ChildKey, Result<Output, Error>)>, Error> {
        self.wait_all_deadline(Deadline::NEVER)
    }

    /// The same, at most until a moment. Those that have not ended then stay in the set.
    ///
    /// # Errors
    /// As [`wait_any`](Self::wait_any).
    pub fn wait_all_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<Vec<(ChildKey, Result<Output, Error>)>, Error> {
        let (deadline, mut ended) = (deadline.into(), Vec::new());
        while !self.is_empty() {
            match self.wait_exit(deadline, &Cell::new(false), &mut |_, _, _| ())? {
                Some(exit) => ended.push(exit),
                None if deadline.has_passed() => break,
                None => {}
            }
        }
        Ok(ended)
    }

    /// Begins to stop all children, at the same time, without waiting.
    pub fn stop_all(&mut self) {
        for key in self.entries.keys().collect::<Vec<_>>() {
            self.stop(ChildKey(key));
        }
    }

    /// The descriptor of the set, which is readable when there is something to be told: for a loop of your own. Timers do not make it
    /// readable: wait no longer than until [`next_moment`](Self::next_moment), and call [`try_wait_any`](Self::try_wait_any) until it
    /// returns `None`.
    ///
    /// # Errors
    /// On systems without epoll.
    pub fn try_as_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.epoll.as_fd().ok_or_else(|| Error::unsupported("a descriptor for a set of children (epoll)"))
    }

    /// The first moment at which there is something to be done without a descriptor being ready.
    pub fn next_moment(&self) -> Deadline {
        if !self.pending.is_empty() || !self.ready_descriptors.is_empty() {
            return Deadline::now();
        }
        self.times.first().map_or(Deadline::NEVER, |(moment, _)| Deadline::at(*moment))
    }

    fn tell(&mut self, key: Key, fact: Fact) -> News<'_> {
        let child = ChildKey(key);
        match fact {
            Fact::End(stream) => News::End { child, stream },
            Fact::Over(result) => {
                self.forget(key);
                News::Exit { child, result: *result }
            }
            Fact::Line(stream, cut) => News::Line { child, line: self.line(key, stream, cut) },
            Fact::Chunk(stream) => {
                let bytes = self.entries.get(key).map_or(&[][..], |entry| entry.machine().unread(stream));
                News::Chunk { child, stream, bytes }
            }
        }
    }

    fn line(&self, key: Key, stream: Stream, cut: Cut) -> Line<'_> {
        let entry = self.entries.get(key);
        let bytes = entry.and_then(|entry| entry.machine().unread(stream).get(cut.start..cut.end)).unwrap_or_default();
        let text = entry.map(|entry| entry.child.settings.text).unwrap_or_default();
        Line::new(stream, bytes, cut.how, text)
    }

    /// A child leaves the set, and its moments with it.
    fn forget(&mut self, key: Key) -> Option<Box<Entry>> {
        let entry = self.entries.remove(key)?;
        for (moment, name) in [(entry.armed, Moment::Look(key)), (entry.remind.moment(), Moment::Reminder(key))] {
            if let Some(moment) = moment {
                self.times.remove(&(moment, name));
            }
        }
        Some(entry)
    }

    fn find(&mut self, deadline: Deadline, see: &mut SeeAll<'_>) -> Result<Option<Found>, Error> {
        loop {
            if let Some(found) = self.find_ready(see) {
                return Ok(Some(found));
            }
            if self.has_enough() || !self.wait(deadline, see)? {
                return Ok(None);
            }
        }
    }

    /// The order of what is told is decided here.
    fn find_ready(&mut self, see: &mut SeeAll<'_>) -> Option<Found> {
        if let Some(found) = self.find_due(see) {
            return Some(found);
        }
        while let Some(&key) = self.pending.front() {
            let fact = self.entries.get_mut(key).and_then(|entry| entry.next_fact());
            if let Some(fact) = fact {
                return Some(Found::Child(key, fact));
            }
            self.pending.pop_front();
            if let Some(entry) = self.entries.get_mut(key) {
                entry.is_pending = false;
            }
        }
        while let Some(key) = self.ready_descriptors.pop_front() {
            if self.watched.get(key).is_some() {
                return Some(Found::Readable(WatchKey(key)));
            }
        }
        None
    }

    /// Nothing is left to wait for, or somebody wants the wait to end.
    fn has_enough(&mut self) -> bool {
        let nothing_left = self.entries.len() == 0 && self.watched.len() == 0 && self.timers.len() == 0;
        std::mem::take(&mut self.woken) || (nothing_left && self.waker.is_none())
    }

    /// Timers that have come; children whose moment has come are looked at.
    fn find_due(&mut self, see: &mut SeeAll<'_>) -> Option<Found> {
        let mut now = None;
        while let Some(&(moment, name)) = self.times.first()
            && moment <= *now.get_or_insert_with(Instant::now)
        {
            self.times.pop_first();
            match name {
                Moment::Timer(key) => {
                    if self.timers.remove(key).is_some() {
                        return Some(Found::Timer(TimerKey(key)));
                    }
                }
                Moment::Reminder(key) => {
                    let Some(entry) = self.entries.get_mut(key) else { continue };
                    entry.remind = Deadline::NEVER;
                    if !entry.is_over() {
                        return Some(Found::Timeout(ChildKey(key)));
                    }
                }
                Moment::Look(key) => {
                    if let Some(entry) = self.entries.get_mut(key) {
                        entry.armed = None;
                    }
                    self.step(key, see);
                }
            }
        }
        None
    }

    /// Waits once, and takes the answers. False if the deadline has come.
    fn wait(&mut self, deadline: Deadline, see: &mut SeeAll<'_>) -> Result<bool, Error> {
        let until = deadline.earlier(self.next_moment());
        let mut answers = std::mem::take(&mut self.answers);
        let waited = self.epoll.wait(&mut answers, until.moment());
        let mut marked: Option<Key> = None;
        for (key, part) in answers.drain(..).map(Key::of) {
            match part {
                Part::Watched => self.ready_descriptors.push_back(key),
                Part::Wake => self.take_wake(),
                _ => {
                    // Several answers about one child most often stand side by side: one look for all of them.
                    if let Some(before) = marked.replace(key).filter(|before| *before != key) {
                        self.step(before, see);
                    }
                    if let Some(entry) = self.entries.get_mut(key) {
                        entry.mark(part);
                    }
                }
            }
        }
        if let Some(key) = marked {
            self.step(key, see);
        }
        self.answers = answers;
        waited.map_err(|error| Error::io("epoll_wait", error))?;
        let has_news = !self.pending.is_empty() || !self.ready_descriptors.is_empty() || self.woken;
        Ok(has_news || !deadline.has_passed())
    }

    fn take_wake(&mut self) {
        if let Some((reader, _)) = &self.waker {
            let mut bytes = [0; 64];
            let _ = sys::fd::read(reader.as_fd(), &mut bytes);
            self.woken = true;
        }
    }

    /// Looks at a child, and notes when to look again.
    fn step(&mut self, key: Key, see: &mut SeeAll<'_>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let until = entry.step(&mut self.epoll, key, &mut |stream, bytes| see(ChildKey(key), stream, bytes));
        let armed = until.moment();
        if entry.armed != armed {
            let name = Moment::Look(key);
            if let Some(before) = entry.armed {
                self.times.remove(&(before, name));
            }
            self.times.extend(armed.map(|moment| (moment, name)));
            entry.armed = armed;
        }
        if entry.has_news() && !std::mem::replace(&mut entry.is_pending, true) {
            self.pending.push_back(key);
        }
    }
}

fn no_lines() -> Error {
    Error::invalid("lines of this encoding cannot be lent: follow it by `Follow::Chunks`")
}

/// Ends the wait of a [`ChildSet`] from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SetWaker(Arc<PipeWriter>);

impl SetWaker {
    /// Ends the wait that is going on, or the next one. Never blocks.
    pub fn wake(&self) {
        // A pipe that is full has woken enough, and one that nobody reads needs nobody to be woken.
        let _ = self.0.write_some(&[0]);
    }
}

/// Everything that is left is stopped, all at the same time, each by the plan of its command.
impl Drop for ChildSet {
    fn drop(&mut self) {
        let keys: Vec<Key> = self.entries.keys().collect();
        let mut children: Vec<Child> = keys
            .into_iter()
            .filter_map(|key| self.remove(ChildKey(key)))
            .filter(|child| child.status().is_none())
            .collect();
        let mut ends: Vec<Option<PipeWriter>> = children.iter_mut().map(|child| child.stdin.take()).collect();
        let mut closes: Vec<_> = ends.iter_mut().map(|end| move || *end = None).collect();
        let targets = children.iter().zip(&mut closes).map(|(child, close)| handle::Target {
            handle: child.handle(),
            plan: &child.settings.stop,
            pipes: child.pipes(),
            close_stdin: Some(close),
        });
        // What cannot be stopped is reaped later.
        let _ = handle::stop_all(&mut targets.collect::<Vec<_>>());
    }
}

impl fmt::Debug for ChildSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ChildSet").field("children", &self.len()).finish_non_exhaustive()
    }
}

impl Extend<Child> for ChildSet {
    /// Puts children in. One that the system refuses to wait for is stopped.
    fn extend<I: IntoIterator<Item = Child>>(&mut self, children: I) {
        for child in children {
            let _ = self.insert(child);
        }
    }
}
