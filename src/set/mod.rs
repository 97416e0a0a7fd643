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
use crate::explain::Explanation;
use crate::handle::{self, Sight};
use crate::live::Line;
use crate::output::{Output, Stream};
use crate::pipe::{PipeReader, PipeWriter, pipe};
use crate::signal::Signal;
use crate::sys;
use crate::sys::epoll::{Answer, Epoll, Interest};
use crate::text::Cut;
use entry::{Around, Entry, Fact, Limit};
use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};
#[cfg(feature = "future")]
use std::task::{Poll, ready};
use std::time::{Duration, Instant};
use token::{Key, Part, Slab};

/// Thousands of children, timers and descriptors of your own, waited for on one thread without a runtime.
///
/// Put children in, and [`wait_any`](Self::wait_any) tells what happens, one thing at a time: a line, a piece of output, the end of a
/// stream, the end of a child with its record, a timer, a descriptor. All of them are read and fed whichever is told, so no child
/// waits for another. No thread is started and no signal handler is installed. An idle child costs its descriptors and half a
/// kibibyte.
///
/// ```
/// use procession::{ChildSet, Command, Follow, News};
/// use std::time::Duration;
///
/// let mut set = ChildSet::new()?;
/// for host in ["one", "two", "three"] {
///     let command = Command::shell("echo \"asking $1\"; echo \"$1 is up\"").args(["sh", host]);
///     set.start_and_follow(&command.timeout(Duration::from_secs(10)), Follow::Lines)?;
/// }
/// let patience = set.add_timer(Duration::from_secs(60));
/// let (mut lines, mut ended) = (0, 0);
/// while ended < 3 {
///     match set.wait_any()? {
///         Some(News::Line { line, .. }) => lines += usize::from(line.text().ends_with("is up")),
///         Some(News::Exit { result, .. }) => {
///             assert!(result?.success());
///             ended += 1;
///         }
///         Some(News::Timer(timer)) if timer == patience => break,
///         _ => {}
///     }
/// }
/// assert_eq!((lines, ended), (3, 3));
/// # Ok::<(), procession::Error>(())
/// ```
///
/// **Who is first** when several things are ready: timers and timeouts, by their moments; then what children have to say, child by
/// child in the order in which they became ready; then descriptors. Of one child output comes before the end of its stream, and that
/// before the end of the child, which is the last that is told of it. Timers that come faster than they are dealt with take turns with
/// the rest.
///
/// **Fairness**: in one turn at most one read of each stream is told (256 KiB), or 1 MiB of each collected, and a child that has had
/// its turn comes behind all others that are ready. Nothing is read of a child while something of it is untold, so a slow loop holds up
/// the children, by their pipes, and fills no memory.
///
/// **What can block** is what you bring along: an [`Input`] that is a reader, a function in a filter of a target, a writer as a target.
/// They are called on the thread that waits, and all others wait for them. A terminal or a pipe as a target blocks nobody: its
/// child is not read until it has taken what it was given.
///
/// **In a loop of your own**, wait for [the descriptor](Self::try_as_fd) of the set, no longer than until
/// [its next moment](Self::next_moment), and take what there is:
///
/// ```
/// use procession::{ChildSet, Command, News};
/// use std::os::fd::AsRawFd;
///
/// let mut set = ChildSet::new()?;
/// set.start(&Command::new("echo").arg("hello"))?;
/// while !set.is_empty() {
///     let until = set.next_moment().remaining();
///     // poll, select, epoll, or whatever the host has
///     # let mut entry = libc::pollfd { fd: set.try_as_fd()?.as_raw_fd(), events: libc::POLLIN, revents: 0 };
///     # unsafe { libc::poll(&mut entry, 1, until.map_or(-1, |time| time.as_nanos().div_ceil(1_000_000) as i32)) };
///     while let Some(news) = set.try_wait_any()? {
///         if let News::Exit { result, .. } = news {
///             assert_eq!(result?.stdout(), b"hello\n");
///         }
///     }
/// }
/// # Ok::<(), procession::Error>(())
/// ```
///
/// Dropping the set stops every child that is still in it, all at the same time, each by the stop plan of its command; in a forked
/// copy of the program it does nothing.
#[doc(alias = "select")]
#[doc(alias = "selectors")]
#[doc(alias = "epoll")]
#[doc(alias = "reactor")]
pub struct ChildSet {
    epoll: Epoll,
    entries: Slab<Box<Entry>>,
    watched: Slab<OwnedFd>,
    timers: Slab<Instant>,
    /// When the caller wants to hear something. One timer is armed, for the first moment of this list and the next.
    moments: BTreeSet<(Instant, Moment)>,
    /// When a child is to be looked at.
    looks: BTreeSet<(Instant, Key)>,
    /// Who has something to tell, in order. Who is gone is passed over.
    pending: VecDeque<Key>,
    ready_descriptors: VecDeque<Key>,
    /// Descriptors that were told, and are waited for again with the next wait.
    told_descriptors: Vec<Key>,
    /// Children whose end is not waited for before the next look: whoever starts many that end soon waits for few of them.
    deferred: Option<Vec<Key>>,
    waker: Option<(PipeReader, Weak<PipeWriter>)>,
    null: Option<Stdio>,
    woken: bool,
    /// When the kernel was asked last.
    asked: Instant,
    /// What was told last was a timer.
    told_timer: bool,
    sight: Sight,
    /// Answers of the kernel, in memory that is used again.
    answers: Vec<Answer>,
    /// The process that made it. A forked copy has another number, and must not touch the children, nor what is waited for.
    owner: u32,
}

/// Whose moment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Timer(Key),
    /// A child is to be reported as still running.
    Reminder(Key),
}

/// What somebody who waits wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Everything,
    /// What children say and how they end. The rest is told later.
    Children,
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
    /// Each line of both streams as soon as it is complete; the record keeps the last 64 KiB. A line that is longer than the
    /// [limit](Command::line_limit) comes in pieces.
    Lines,
    /// Output as it is read; the record keeps the last 64 KiB.
    Chunks,
}

/// A child that has left a set at its end, and what [`Command::output`] or [`Child::communicate`] would have returned.
pub type Exit = (ChildKey, Result<Output, Error>);

/// What has happened in a [`ChildSet`].
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // looked at once and never kept
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
pub(crate) enum Found {
    Timer(TimerKey),
    Timeout(ChildKey),
    Readable(WatchKey),
    Child(Key, Fact),
}

/// Waits for the descriptor of a set, until a moment.
#[cfg(feature = "future")]
pub(crate) type WaitFor<'a> = dyn FnMut(&ChildSet, Deadline) -> Poll<Result<(), Error>> + 'a;

/// Called with what is read of a child whose record is kept.
pub(crate) type SeeAll<'a> = dyn FnMut(ChildKey, Stream, &[u8]) + 'a;

impl ChildSet {
    /// An empty set. It holds one descriptor, and another one from the first command on that has no input.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn new() -> Result<ChildSet, Error> {
        Ok(ChildSet {
            epoll: Epoll::new().map_err(|error| Error::io("epoll_create", error))?,
            entries: Slab::default(),
            watched: Slab::default(),
            timers: Slab::default(),
            moments: BTreeSet::new(),
            looks: BTreeSet::new(),
            pending: VecDeque::new(),
            ready_descriptors: VecDeque::new(),
            told_descriptors: Vec::new(),
            deferred: None,
            waker: None,
            null: None,
            woken: false,
            asked: Instant::now(),
            told_timer: false,
            sight: Sight::default(),
            answers: Vec::new(),
            owner: std::process::id(),
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
        if follow == Follow::Lines && command.settings.text.is_cut_as_text() {
            return Err(no_lines().of_command(|| command.to_string()));
        }
        let streams = command.collected_streams(self.null())?;
        let limit = command.timeout.map(|timeout| Limit { timeout, deadline: Deadline::after(timeout) });
        let child = command.spawn_with(&streams)?;
        let [stdin, ..] = &streams;
        let input = command.fed_input(stdin.as_ref());
        self.admit(child, Some(input), follow, limit)
    }

    /// Puts a child in: one that is to be fed while it runs, or whose conversation was begun. Its output is collected from here on;
    /// standard input stays open for what is [fed](Self::feed), until [`end_input`](Self::end_input).
    ///
    /// ```
    /// use procession::{ChildSet, Command, Follow, News};
    ///
    /// let mut set = ChildSet::new()?;
    /// let cat = set.insert_and_follow(Command::new("cat").pipe_all().spawn()?, Follow::Lines)?;
    /// set.feed(cat, "one\n")?;
    /// let mut lines = Vec::new();
    /// while let Some(news) = set.wait_any()? {
    ///     if let News::Line { child, line } = news {
    ///         lines.push(line.to_string());
    ///         match lines.len() {
    ///             1 => set.feed(child, "two\n")?,
    ///             _ => assert!(set.end_input(child)),
    ///         }
    ///     }
    /// }
    /// assert_eq!(lines, ["one", "two"]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert_and_follow`](Self::insert_and_follow).
    pub fn insert(&mut self, child: Child) -> Result<ChildKey, Error> {
        self.insert_and_follow(child, Follow::Record)
    }

    /// The same, and tells its output while it runs.
    ///
    /// # Errors
    /// As [`start_and_follow`](Self::start_and_follow). The child is dropped then, as any child is.
    pub fn insert_and_follow(&mut self, child: Child, follow: Follow) -> Result<ChildKey, Error> {
        if follow == Follow::Lines && child.settings.text.is_cut_as_text() {
            return Err(no_lines().of_command(|| child.handle().line()));
        }
        self.admit(child, None, follow, None)
    }

    /// The null device, opened once for all who are given it.
    fn null(&mut self) -> Stdio {
        if self.null.is_none() {
            let options = &mut std::fs::OpenOptions::new();
            let opened = sys::fd::open(Path::new("/dev/null"), options.read(true).write(true), 0);
            self.null = opened.ok().map(Stdio::from);
        }
        self.null.clone().unwrap_or_else(Stdio::null)
    }

    /// A child that was started with this input, or that was put in and gets it later.
    fn admit(
        &mut self,
        mut child: Child,
        input: Option<Input>,
        follow: Follow,
        limit: Option<Limit>,
    ) -> Result<ChildKey, Error> {
        let (is_ours, kill_on_drop) = (input.is_some(), child.kill_on_drop);
        if is_ours {
            // It is nobody's until it is in the set.
            child.kill_on_drop = KillOnDrop::In(self.owner);
        }
        let input = input.unwrap_or_else(Input::empty);
        let mut machine =
            if follow == Follow::Record { child.begin(input, Purpose::Collect)? } else { child.begin_live(input)? };
        machine.hold_input(!is_ours);
        let mut entry = Entry::new(child, machine, follow, limit, is_ours)?;
        entry.child.kill_on_drop = kill_on_drop;
        if self.deferred.is_some() {
            entry.defer_notice();
        }
        let key = self.entries.insert(Box::new(entry));
        self.deferred.iter_mut().for_each(|deferred| deferred.push(key));
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

    /// A child in the set: its number, its handle, its terminal. Its ends belong to the set as long as it is in it.
    pub fn get(&self, child: ChildKey) -> Option<&Child> {
        self.entries.get(child.0).map(|entry| &entry.child)
    }

    /// What a child is doing, and why it does not come to its end; see [`Child::explain`]. `None` if it is not in the set.
    pub fn explain(&self, child: ChildKey) -> Option<Explanation> {
        self.entries.get(child.0).map(|entry| handle::explain(&entry.child.subject(Some(entry.machine()))))
    }

    /// Gives input to a child that was [inserted](Self::insert), behind what is still to be written. It never blocks; what the child
    /// does not take waits in memory.
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

    /// How many bytes the standard input of a child has taken.
    pub(crate) fn input_accepted(&self, child: ChildKey) -> u64 {
        self.entries.get(child.0).map_or(0, |entry| entry.machine().input().0)
    }

    /// Closes the standard input of a child behind what is still to be written. False if it is not in the set.
    pub fn end_input(&mut self, child: ChildKey) -> bool {
        let Some(entry) = self.entries.get_mut(child.0) else { return false };
        entry.end_input();
        self.step(child.0, &mut |_, _, _| ());
        true
    }

    /// Begins to stop a child by the plan of its command. The waits that follow send the signals, and go on telling what it says; its
    /// [exit](News::Exit) tells when that is done. False if it is not in the set.
    pub fn stop(&mut self, child: ChildKey) -> bool {
        let Some(entry) = self.entries.get_mut(child.0) else { return false };
        entry.stop();
        self.look_again(child.0, Deadline::now());
        true
    }

    /// Sends a signal to a child and its tree, once, but to nobody in this group.
    pub(crate) fn signal(&mut self, child: ChildKey, signal: Signal, except_group: Option<i32>) -> Result<(), Error> {
        let sight = &mut self.sight;
        self.entries.get(child.0).map_or(Ok(()), |entry| entry.signal(sight, signal, except_group))
    }

    /// Takes a child out, as it is. What was read and not told goes with it: [`Child::communicate`] or [`Child::lines`] go on from
    /// there. A stop that was begun, or a [`Command::timeout`], is not gone on with.
    #[must_use = "dropping a child lets it go on; to stop it there is `stop`"]
    pub fn remove(&mut self, child: ChildKey) -> Option<Child> {
        let entry = self.forget(child.0)?;
        Some(entry.into_child(&mut self.epoll))
    }

    /// Tells once, as [`News::Timeout`], that a child still runs after so long. It is not stopped; a
    /// [`Command::timeout`] does that. Takes the place of an earlier one. False if it is not in the set.
    ///
    /// ```
    /// use procession::{ChildSet, Command, News};
    /// use std::time::Duration;
    ///
    /// let mut set = ChildSet::new()?;
    /// let child = set.start(&Command::new("sleep").arg("60"))?;
    /// set.set_timeout(child, Duration::from_millis(50));
    /// while let Some(news) = set.wait_any()? {
    ///     match news {
    ///         News::Timeout(child) => assert!(set.stop(child)),
    ///         News::Exit { result, .. } => assert!(result?.status().signal().is_some()),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn set_timeout(&mut self, child: ChildKey, timeout: Duration) -> bool {
        self.set_deadline(child, Deadline::after(timeout))
    }

    /// The same, at a moment; never with [`Deadline::NEVER`].
    pub fn set_deadline(&mut self, child: ChildKey, deadline: impl Into<Deadline>) -> bool {
        let Some(entry) = self.entries.get_mut(child.0) else { return false };
        let name = Moment::Reminder(child.0);
        let deadline = deadline.into();
        if let Some(moment) = entry.set_reminder(deadline).moment() {
            self.moments.remove(&(moment, name));
        }
        self.moments.extend(deadline.moment().map(|moment| (moment, name)));
        true
    }

    /// A timer: told once, as [`News::Timer`], after so long and never before. One that the clock cannot hold never comes, and is not
    /// waited for.
    pub fn add_timer(&mut self, after: Duration) -> TimerKey {
        // A moment that the clock cannot hold never comes.
        let moment = Deadline::after(after).moment();
        let key = self.timers.insert(moment.unwrap_or_else(Instant::now));
        self.moments.extend(moment.map(|moment| (moment, Moment::Timer(key))));
        TimerKey(key)
    }

    /// Takes a timer back. False if it has been told, or taken back before.
    pub fn remove_timer(&mut self, timer: TimerKey) -> bool {
        let Some(moment) = self.timers.remove(timer.0) else { return false };
        self.moments.remove(&(moment, Moment::Timer(timer.0)));
        true
    }

    /// Waits for a descriptor of yours as well: told as [`News::Readable`] as long as it is readable. The set owns it; give it a
    /// duplicate if you go on using it.
    ///
    /// # Errors
    /// If it cannot be waited for, as a regular file cannot. It is closed then.
    pub fn watch(&mut self, descriptor: impl Into<OwnedFd>) -> Result<WatchKey, Error> {
        let key = self.watched.insert(descriptor.into());
        let Some(fd) = self.watched.get(key) else { return Ok(WatchKey(key)) };
        match self.epoll.add(fd.as_fd(), key.token(Part::Watched), Interest::ReadOnce) {
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

    /// What ends a wait from another thread: `wait_any` and its kin then return `None`, once however often it was called before. As long
    /// as somebody has one there is something to wait for. Costs two descriptors the first time.
    ///
    /// ```
    /// use procession::{ChildSet, Command};
    ///
    /// let mut set = ChildSet::new()?;
    /// set.start(&Command::new("sleep").arg("60"))?;
    /// let waker = set.waker()?;
    /// let thread = std::thread::spawn(move || waker.wake());
    /// assert!(set.wait_any()?.is_none());
    /// # thread.join().unwrap();
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn waker(&mut self) -> Result<SetWaker, Error> {
        if let Some(writer) = self.waker.as_ref().and_then(|(_, writer)| writer.upgrade()) {
            return Ok(SetWaker(writer));
        }
        self.drop_waker();
        let failed = |error| Error::io("pipe", error);
        let (reader, writer) = pipe().map_err(failed)?;
        for end in [reader.as_fd(), writer.as_fd()] {
            sys::fd::set_nonblocking(end).map_err(failed)?;
        }
        let token = Key::FIRST.token(Part::Wake);
        self.epoll.add(reader.as_fd(), token, Interest::Read).map_err(|error| Error::io("epoll_ctl", error))?;
        let writer = Arc::new(writer);
        self.waker = Some((reader, Arc::downgrade(&writer)));
        Ok(SetWaker(writer))
    }

    fn drop_waker(&mut self) {
        if let Some((reader, _)) = self.waker.take() {
            self.epoll.remove(reader.as_fd());
        }
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
        let found = self.find(Wish::Everything, deadline.into(), &Cell::new(false), &mut |_, _, _| ())?;
        Ok(found.map(|found| self.news(found)))
    }

    /// What [`wait_any`](Self::wait_any) would tell, for a task; `wait` waits for the descriptor of the set, until a moment.
    #[cfg(feature = "future")]
    pub(crate) fn poll_any(
        &mut self,
        wish: Wish,
        deadline: Deadline,
        wait: &mut WaitFor<'_>,
    ) -> Poll<Result<Option<Found>, Error>> {
        let see: &mut SeeAll<'_> = &mut |_, _, _| ();
        loop {
            // What there is is taken first, and the descriptor is asked for what comes then.
            let until = self.next_moment_of(wish);
            if !until.has_passed() {
                self.wait(Deadline::now(), see)?;
            }
            self.look_at_due(see);
            if let Some(found) = self.next_found(wish) {
                self.told_timer = matches!(found, Found::Timer(_) | Found::Timeout(_));
                return Poll::Ready(Ok(Some(found)));
            }
            if std::mem::take(&mut self.woken) || self.has_nothing_left(wish) || deadline.has_passed() {
                return Poll::Ready(Ok(None));
            }
            let until = deadline.earlier(self.next_moment_of(wish));
            ready!(wait(self, until))?;
        }
    }

    /// The next child that has ended, as [`wait_exit`](Self::wait_exit) would tell.
    #[cfg(feature = "future")]
    pub(crate) fn exit_of(&mut self, found: Found) -> Option<Exit> {
        match found {
            Found::Child(key, Fact::Over) => self.forget(key).map(|entry| (ChildKey(key), entry.into_result())),
            _ => None,
        }
    }

    /// What was found, as it is told.
    pub(crate) fn news(&mut self, found: Found) -> News<'_> {
        match found {
            Found::Timer(timer) => News::Timer(timer),
            Found::Timeout(child) => News::Timeout(child),
            Found::Readable(watch) => {
                self.told_descriptors.push(watch.0);
                News::Readable(watch)
            }
            Found::Child(key, fact) => self.tell(key, fact),
        }
    }

    /// Waits for the next child that ends. Lines and chunks are not told; what else happens is told later. Whoever sees what is read
    /// may have enough.
    pub(crate) fn wait_exit(
        &mut self,
        deadline: Deadline,
        enough: &Cell<bool>,
        see: &mut SeeAll<'_>,
    ) -> Result<Option<Exit>, Error> {
        loop {
            match self.find(Wish::Children, deadline, enough, see)? {
                Some(Found::Child(key, Fact::Over)) => {
                    if let Some(entry) = self.forget(key) {
                        return Ok(Some((ChildKey(key), entry.into_result())));
                    }
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next child that is known to have ended: nobody is asked.
    pub(crate) fn ended(&mut self) -> Option<Exit> {
        while let Some(found) = self.next_found(Wish::Children) {
            if let Found::Child(key, Fact::Over) = found
                && let Some(entry) = self.forget(key)
            {
                return Some((ChildKey(key), entry.into_result()));
            }
        }
        None
    }

    /// From now on the end of a child is not waited for before it had time until the next wait. For whoever always waits after a start,
    /// and hands the descriptor of the set to nobody.
    pub(crate) fn defer_notices(&mut self) {
        self.deferred.get_or_insert_default();
    }

    /// Waits for all children: their results in the order in which they end. Their lines and chunks are not told; timers, timeouts of
    /// those that still run, and descriptors are told by the next [`wait_any`](Self::wait_any). A [`waker`](Self::waker) ends nothing.
    ///
    /// # Errors
    /// As [`wait_any`](Self::wait_any).
    #[doc(alias = "joinall")]
    pub fn wait_all(&mut self) -> Result<Vec<Exit>, Error> {
        self.wait_all_deadline(Deadline::NEVER)
    }

    /// The same, at most until a moment. Those that have not ended then stay in the set.
    ///
    /// # Errors
    /// As [`wait_any`](Self::wait_any).
    pub fn wait_all_deadline(&mut self, deadline: impl Into<Deadline>) -> Result<Vec<Exit>, Error> {
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
        self.next_moment_of(Wish::Everything)
    }

    fn next_moment_of(&self, wish: Wish) -> Deadline {
        let all = wish == Wish::Everything;
        if self.woken || !self.pending.is_empty() || (all && !self.ready_descriptors.is_empty()) {
            return Deadline::now();
        }
        let look = self.looks.first().map(|(moment, _)| *moment);
        let moment = self.moments.first().map(|(moment, _)| *moment).filter(|_| all);
        look.into_iter().chain(moment).min().map_or(Deadline::NEVER, Deadline::at)
    }

    fn tell(&mut self, key: Key, fact: Fact) -> News<'_> {
        let child = ChildKey(key);
        match fact {
            Fact::End(stream) => News::End { child, stream },
            Fact::Over => {
                let result = match self.forget(key) {
                    Some(entry) => entry.into_result(),
                    None => Err(Error::invalid("the child is not in the set")),
                };
                News::Exit { child, result }
            }
            Fact::Line(stream, cut) => News::Line { child, line: self.line(key, stream, cut) },
            Fact::Chunk(stream, count) => {
                let bytes = self.entries.get(key).map_or(&[][..], |entry| entry.machine().taken(stream, count));
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
        if let Some(moment) = entry.armed {
            self.looks.remove(&(moment, key));
        }
        if let Some(moment) = entry.reminder().moment() {
            self.moments.remove(&(moment, Moment::Reminder(key)));
        }
        Some(entry)
    }

    /// The next that is to be told, after a wait if that is needed.
    fn find(
        &mut self,
        wish: Wish,
        deadline: Deadline,
        enough: &Cell<bool>,
        see: &mut SeeAll<'_>,
    ) -> Result<Option<Found>, Error> {
        let mut has_waited = false;
        loop {
            self.look_at_due(see);
            if let Some(found) = self.next_found(wish) {
                self.told_timer = matches!(found, Found::Timer(_) | Found::Timeout(_));
                return Ok(Some(found));
            }
            let is_over = std::mem::take(&mut self.woken) || self.has_nothing_left(wish);
            if is_over || enough.get() || (has_waited && deadline.has_passed()) {
                return Ok(None);
            }
            self.wait(deadline.earlier(self.next_moment_of(wish)), see)?;
            has_waited = true;
        }
    }

    /// Whether nothing will ever happen.
    fn has_nothing_left(&self, wish: Wish) -> bool {
        let can_be_woken = self.waker.as_ref().is_some_and(|(_, writer)| writer.strong_count() > 0);
        let has_others = wish == Wish::Everything && !(self.watched.is_empty() && self.moments.is_empty());
        self.entries.is_empty() && !has_others && !can_be_woken
    }

    /// The order of what is told is decided here.
    fn next_found(&mut self, wish: Wish) -> Option<Found> {
        let all = wish == Wish::Everything;
        if all && let Some(found) = self.next_due() {
            return Some(found);
        }
        while let Some(&key) = self.pending.front() {
            if let Some(fact) = self.entries.get_mut(key).and_then(|entry| entry.next_fact()) {
                return Some(Found::Child(key, fact));
            }
            self.pending.pop_front();
            if let Some(entry) = self.entries.get_mut(key) {
                entry.is_pending = false;
            }
        }
        while all && let Some(key) = self.ready_descriptors.pop_front() {
            if self.watched.get(key).is_some() {
                return Some(Found::Readable(WatchKey(key)));
            }
        }
        None
    }

    /// The next timer or timeout that has come. Those that come faster than they are dealt with take turns with everything else: behind
    /// one that was told only those count that had come when the kernel was asked.
    fn next_due(&mut self) -> Option<Found> {
        while let Some(&(moment, name)) = self.moments.first()
            && moment <= if self.told_timer { self.asked } else { Instant::now() }
        {
            self.moments.pop_first();
            match name {
                Moment::Timer(key) if self.timers.remove(key).is_some() => return Some(Found::Timer(TimerKey(key))),
                Moment::Timer(_) => {}
                Moment::Reminder(key) => {
                    let Some(entry) = self.entries.get_mut(key) else { continue };
                    entry.set_reminder(Deadline::NEVER);
                    if !entry.is_over() {
                        return Some(Found::Timeout(ChildKey(key)));
                    }
                }
            }
        }
        None
    }

    /// Children whose moment has come are looked at.
    fn look_at_due(&mut self, see: &mut SeeAll<'_>) {
        if self.looks.is_empty() {
            return;
        }
        let now = Instant::now();
        self.sight.renew();
        while let Some(&(moment, key)) = self.looks.first()
            && moment <= now
        {
            self.looks.pop_first();
            if let Some(entry) = self.entries.get_mut(key) {
                entry.armed = None;
            }
            self.step(key, see);
        }
    }

    /// Waits once.
    fn wait(&mut self, until: Deadline, see: &mut SeeAll<'_>) -> Result<(), Error> {
        for key in self.told_descriptors.drain(..) {
            if let Some(fd) = self.watched.get(key) {
                let added = self.epoll.add_again(fd.as_fd(), key.token(Part::Watched), Interest::ReadOnce);
                added.map_err(|error| Error::io("epoll_ctl", error))?;
            }
        }
        if self.deferred.as_ref().is_none_or(Vec::is_empty) {
            return self.ask(until, see).map(drop);
        }
        let has_answers = self.ask(Deadline::now(), see)?;
        let mut deferred = self.deferred.take().unwrap_or_default();
        for key in deferred.drain(..) {
            if self.entries.get_mut(key).is_some_and(|entry| entry.announce()) {
                self.step(key, see);
            }
        }
        self.deferred = Some(deferred);
        if has_answers || !self.pending.is_empty() || until.has_passed() {
            return Ok(());
        }
        self.ask(until, see).map(drop)
    }

    /// Asks the kernel once, and takes the answers. Whether there were any.
    fn ask(&mut self, until: Deadline, see: &mut SeeAll<'_>) -> Result<bool, Error> {
        let mut answers = std::mem::take(&mut self.answers);
        let waited = self.epoll.wait(&mut answers, until.moment());
        self.asked = Instant::now();
        self.sight.renew();
        let mut marked: Option<Key> = None;
        let has_answers = !answers.is_empty();
        for Answer { token, hung_up } in answers.drain(..) {
            let (key, part) = Key::of(token);
            match part {
                Part::Watched => self.ready_descriptors.push_back(key),
                Part::Wake => self.take_wake(),
                _ => {
                    // Several answers about one child most often stand side by side: one look for all of them.
                    if let Some(before) = marked.replace(key).filter(|before| *before != key) {
                        self.step(before, see);
                    }
                    if let Some(entry) = self.entries.get_mut(key) {
                        entry.mark(part, hung_up);
                    }
                }
            }
        }
        if let Some(key) = marked {
            self.step(key, see);
        }
        self.answers = answers;
        waited.map_err(|error| Error::io("epoll_wait", error))?;
        Ok(has_answers)
    }

    fn take_wake(&mut self) {
        let mut bytes = [0; 256];
        let Some((reader, _)) = &self.waker else { return };
        loop {
            match sys::fd::read(reader.as_fd(), &mut bytes) {
                // Nobody is left who could wake.
                Ok(0) => return self.drop_waker(),
                Ok(count) => {
                    self.woken = true;
                    if count < bytes.len() {
                        return;
                    }
                }
                // All is read.
                Err(_) => return,
            }
        }
    }

    /// Looks at a child, and notes when to look again.
    fn step(&mut self, key: Key, see: &mut SeeAll<'_>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let see = &mut |stream, bytes: &[u8]| see(ChildKey(key), stream, bytes);
        let until = entry.step(&mut Around { epoll: &mut self.epoll, sight: &mut self.sight, see }, key);
        if entry.has_news() && !std::mem::replace(&mut entry.is_pending, true) {
            self.pending.push_back(key);
        }
        self.look_again(key, until);
    }

    /// Notes when to look at a child again.
    fn look_again(&mut self, key: Key, until: Deadline) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (before, armed) = (entry.armed, until.moment());
        if before != armed {
            if let Some(before) = before {
                self.looks.remove(&(before, key));
            }
            self.looks.extend(armed.map(|moment| (moment, key)));
            entry.armed = armed;
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
        if self.owner != std::process::id() {
            return;
        }
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
    /// Puts children in; see [`ChildSet::insert`]. One that cannot be put in is dropped.
    fn extend<I: IntoIterator<Item = Child>>(&mut self, children: I) {
        for child in children {
            let _ = self.insert(child);
        }
    }
}
