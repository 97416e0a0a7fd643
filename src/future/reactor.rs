//! Our own reactor: which descriptors and moments the futures of one thread wait for, and how that thread sleeps until something comes.
//! There is one for each thread, shared by all scopes on it; it goes with the last scope or source. Nothing is made before somebody waits: a
//! scope without descriptors parks its thread, and has no descriptor of its own. Which task runs is decided in `scope.rs`.

use crate::deadline::Deadline;
use crate::error::Error;
use crate::sys::edges::{Edge, Edges};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
}

/// What goes on when nobody waits for it any more.
pub(crate) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Reactor {
    thread: Thread,
    edges: OnceLock<Edges>,
    state: Mutex<State>,
    /// The loop sleeps, or is about to: whoever has news wakes it.
    is_parked: AtomicBool,
    /// Scopes that are open: they take what is adopted.
    scopes: AtomicUsize,
    waits: AtomicU64,
    /// Memory that is used again.
    ready: Mutex<Vec<(u64, Edge)>>,
}

#[derive(Default)]
struct State {
    /// By the numbers of the descriptors: the kernel gives the lowest that is free.
    entries: Vec<Option<Entry>>,
    /// How many there are.
    count: usize,
    /// The last life that was given to an entry.
    lives: u32,
    timers: BTreeMap<(Instant, u64), Waker>,
    last_timer: u64,
    adopted: Vec<Rest>,
}

/// A descriptor that somebody waits for.
struct Entry {
    /// So that a late answer about a closed descriptor finds nobody.
    life: u32,
    edge: Edge,
    /// One, most often, and then nothing is allocated.
    first: Option<Arc<Flag>>,
    others: Vec<Arc<Flag>>,
}

impl State {
    fn entry(&mut self, number: RawFd) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    fn has_entries(&self) -> bool {
        self.count > 0
    }

    fn insert(&mut self, number: RawFd, entry: Entry) {
        let Ok(place) = usize::try_from(number) else { return };
        if self.entries.len() <= place {
            self.entries.resize_with(place + 1, || None);
        }
        if let Some(free) = self.entries.get_mut(place) {
            *free = Some(entry);
            self.count += 1;
        }
    }

    fn remove(&mut self, number: RawFd) {
        let place = usize::try_from(number).ok().and_then(|place| self.entries.get_mut(place));
        if place.and_then(Option::take).is_some() {
            self.count -= 1;
        }
    }
}

impl Entry {
    fn flags(&self) -> impl Iterator<Item = &Arc<Flag>> {
        self.first.iter().chain(&self.others)
    }
}

/// What one source is told.
struct Flag {
    interest: Interest,
    state: Mutex<FlagState>,
}

#[derive(Default)]
struct FlagState {
    is_ready: bool,
    waker: Option<Waker>,
}

thread_local! {
    /// The reactor of this thread, while somebody holds it.
    static OWN: RefCell<Weak<Reactor>> = const { RefCell::new(Weak::new()) };
    /// The same, while its loop polls.
    static POLLING: RefCell<Option<Arc<Reactor>>> = const { RefCell::new(None) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reactor {
    /// That of this thread. None if the thread is ending, and its variables have gone.
    pub(super) fn of_thread() -> Option<Arc<Reactor>> {
        let of_thread = OWN.try_with(|own| {
            let mut own = own.borrow_mut();
            own.upgrade().unwrap_or_else(|| {
                let reactor = Arc::new(Reactor {
                    thread: thread::current(),
                    edges: OnceLock::new(),
                    state: Mutex::default(),
                    is_parked: AtomicBool::new(false),
                    scopes: AtomicUsize::new(0),
                    waits: AtomicU64::new(0),
                    ready: Mutex::default(),
                });
                *own = Arc::downgrade(&reactor);
                reactor
            })
        });
        of_thread.ok().filter(|_| POLLING.try_with(|_| ()).is_ok())
    }

    /// The one whose loop polls on this thread just now.
    pub(super) fn polling() -> Option<Arc<Reactor>> {
        POLLING.try_with(|polling| polling.borrow().clone()).ok().flatten()
    }

    pub(super) fn is_polling() -> bool {
        POLLING.try_with(|polling| polling.borrow().is_some()).unwrap_or(false)
    }

    /// Whether its loop polls on this thread just now.
    fn is_polling_here(&self) -> bool {
        let is_it = |polling: &RefCell<Option<Arc<Reactor>>>| {
            polling.borrow().as_ref().is_some_and(|polling| std::ptr::eq(&**polling, self))
        };
        POLLING.try_with(is_it).unwrap_or(false)
    }

    /// What is polled until the guard is dropped finds this reactor.
    pub(super) fn poll(self: &Arc<Reactor>) -> Polling {
        POLLING.with_borrow_mut(|polling| *polling = Some(Arc::clone(self)));
        Polling
    }

    pub(super) fn open(&self) {
        self.scopes.fetch_add(1, Ordering::SeqCst);
    }

    /// Not if this is the last scope and something was adopted meanwhile.
    pub(super) fn close(&self) -> bool {
        let state = lock(&self.state);
        let is_free = state.adopted.is_empty() || self.scopes.load(Ordering::SeqCst) > 1;
        if is_free {
            self.scopes.fetch_sub(1, Ordering::SeqCst);
        }
        is_free
    }

    /// Also with something adopted, which nobody can run: the kernel refuses to wait.
    pub(super) fn force_close(&self) {
        self.scopes.fetch_sub(1, Ordering::SeqCst);
        drop(self.take_adopted());
    }

    pub(super) fn has_adopted(&self) -> bool {
        !lock(&self.state).adopted.is_empty()
    }

    /// How often the thread has waited for the kernel.
    pub(super) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Gives back what no scope is there for.
    pub(super) fn adopt(&self, rest: Rest) -> Result<(), Rest> {
        let mut state = lock(&self.state);
        if self.scopes.load(Ordering::SeqCst) == 0 {
            return Err(rest);
        }
        state.adopted.push(rest);
        drop(state);
        self.wake();
        Ok(())
    }

    pub(super) fn take_adopted(&self) -> Vec<Rest> {
        std::mem::take(&mut lock(&self.state).adopted)
    }

    /// There is news: the wait ends.
    pub(super) fn wake(&self) {
        if self.is_parked.load(Ordering::SeqCst) && self.is_parked.swap(false, Ordering::SeqCst) {
            match self.edges.get() {
                Some(edges) => edges.ring(),
                None => self.thread.unpark(),
            }
        }
    }

    /// Calls those whose moment has come or whose descriptor is ready. Waits for that if nobody has `news`.
    pub(super) fn turn(&self, has_news: impl Fn() -> bool) -> io::Result<()> {
        let next = self.call_timers();
        self.is_parked.store(true, Ordering::SeqCst);
        // Whoever has come after this question finds us parked.
        let is_waiting = !has_news();
        if !is_waiting {
            self.is_parked.store(false, Ordering::SeqCst);
        }
        let result = match self.edges.get() {
            Some(edges) if is_waiting => self.wait_for_edges(edges, next),
            Some(edges) if lock(&self.state).has_entries() => self.wait_for_edges(edges, Some(Instant::now())),
            None if is_waiting => {
                self.park(next);
                Ok(())
            }
            _ => return Ok(()),
        };
        self.is_parked.store(false, Ordering::SeqCst);
        if is_waiting && next.is_some() {
            self.call_timers();
        }
        result
    }

    fn park(&self, until: Option<Instant>) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        match until {
            // Early or for nothing: the loop asks again.
            Some(moment) => thread::park_timeout(moment.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }

    fn wait_for_edges(&self, edges: &Edges, until: Option<Instant>) -> io::Result<()> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        let mut ready = std::mem::take(&mut *lock(&self.ready));
        let result = edges.wait(&mut ready, until);
        self.is_parked.store(false, Ordering::SeqCst);
        for (token, edge) in ready.drain(..) {
            self.tell(token, edge);
        }
        *lock(&self.ready) = ready;
        result
    }

    fn tell(&self, token: u64, edge: Edge) {
        let (fd, life) = (token as u32 as RawFd, (token >> 32) as u32);
        // One by one, so that nothing is locked while somebody is woken, and nothing allocated.
        for place in 0.. {
            let flag = match lock(&self.state).entry(fd) {
                Some(entry) if entry.life == life => entry.flags().nth(place).cloned(),
                _ => None,
            };
            let Some(flag) = flag else { return };
            if flag.is_told(edge) {
                let mut state = lock(&flag.state);
                state.is_ready = true;
                let waker = state.waker.take();
                drop(state);
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }

    /// Calls the timers whose moment has come. The next moment.
    fn call_timers(&self) -> Option<Instant> {
        let mut now = None;
        loop {
            let mut state = lock(&self.state);
            let first = state.timers.first_entry()?;
            let (moment, _) = *first.key();
            if moment > *now.get_or_insert_with(Instant::now) {
                return Some(moment);
            }
            let waker = first.remove();
            drop(state);
            waker.wake();
        }
    }

    /// A descriptor that is waited for.
    pub(super) fn source(
        self: &Arc<Reactor>,
        fd: BorrowedFd<'_>,
        interest: Interest,
    ) -> Result<Option<OwnSource>, Error> {
        if self.thread.id() != thread::current().id() {
            return Err(Error::invalid(ELSEWHERE));
        }
        let of_step = |error| Error::io("epoll", error);
        let edges = match self.edges.get() {
            Some(edges) => edges,
            None => {
                let edges = Edges::new().map_err(of_step)?;
                self.edges.get_or_init(|| edges)
            }
        };
        match self.enter(edges, fd, interest) {
            Ok((life, flag)) => {
                Ok(Some(OwnSource { reactor: Arc::clone(self), fd: fd.as_raw_fd(), life, flag, is_closing: false }))
            }
            // A file, which is always ready.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(None),
            Err(error) => Err(of_step(error)),
        }
    }

    fn enter(&self, edges: &Edges, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<(u32, Arc<Flag>)> {
        let state = &mut *lock(&self.state);
        let flag = Arc::new(Flag { interest, state: Mutex::default() });
        let number = fd.as_raw_fd();
        let life = match state.entry(number) {
            Some(entry) => {
                let edge = with(entry.edge, interest);
                edges.change(number, token(number, entry.life), edge)?;
                entry.edge = edge;
                entry.others.push(Arc::clone(&flag));
                entry.life
            }
            None => {
                let (life, edge) = (state.lives.wrapping_add(1), with(Edge::default(), interest));
                edges.add(number, token(number, life), edge)?;
                state.lives = life;
                state.insert(number, Entry { life, edge, first: Some(Arc::clone(&flag)), others: Vec::new() });
                life
            }
        };
        Ok((life, flag))
    }

    /// Without a call if the descriptor is about to be closed.
    fn leave(&self, number: RawFd, flag: &Arc<Flag>, is_closing: bool) {
        let state = &mut *lock(&self.state);
        let Some(entry) = state.entry(number) else { return };
        entry.first.take_if(|first| Arc::ptr_eq(first, flag));
        entry.others.retain(|other| !Arc::ptr_eq(other, flag));
        if entry.flags().next().is_none() {
            state.remove(number);
            match self.edges.get() {
                Some(edges) if is_closing => edges.forget(number),
                Some(edges) => edges.remove(number),
                None => {}
            }
        }
    }

    /// Arms the timer for this moment, in place of an earlier arming.
    fn arm(&self, armed: &mut Option<(Instant, u64)>, moment: Instant, waker: &Waker) {
        let state = &mut *lock(&self.state);
        if let Some(key) = armed.filter(|(before, _)| *before == moment)
            && let Some(before) = state.timers.get_mut(&key)
        {
            before.clone_from(waker);
            return;
        }
        armed.take().and_then(|key| state.timers.remove(&key));
        state.last_timer += 1;
        let key = (moment, state.last_timer);
        state.timers.insert(key, waker.clone());
        *armed = Some(key);
    }

    fn disarm(&self, armed: &mut Option<(Instant, u64)>) {
        if let Some(key) = armed.take() {
            lock(&self.state).timers.remove(&key);
        }
    }
}

/// Why a source fails.
const ELSEWHERE: &str =
    "this belongs to a scope of another thread, or to one that does not run: nobody would wake it here";

/// The loop polls until this is dropped.
pub(super) struct Polling;

impl Drop for Polling {
    fn drop(&mut self) {
        let _ = POLLING.try_with(|polling| polling.borrow_mut().take());
    }
}

fn with(edge: Edge, interest: Interest) -> Edge {
    match interest {
        Interest::Read => Edge { reads: true, ..edge },
        Interest::Write => Edge { writes: true, ..edge },
    }
}

fn token(number: RawFd, life: u32) -> u64 {
    u64::from(number as u32) | u64::from(life) << 32
}

impl Flag {
    fn is_told(&self, edge: Edge) -> bool {
        match self.interest {
            Interest::Read => edge.reads,
            Interest::Write => edge.writes,
        }
    }
}

/// A descriptor that is waited for in our own loop.
pub(crate) struct OwnSource {
    reactor: Arc<Reactor>,
    fd: RawFd,
    life: u32,
    flag: Arc<Flag>,
    is_closing: bool,
}

impl OwnSource {
    /// The descriptor is closed next, and by that nobody is told of it any more.
    pub(super) fn closing(mut self) {
        self.is_closing = true;
    }

    pub(super) fn take_ready(&self, context: &Context<'_>) -> io::Result<bool> {
        if !self.reactor.is_polling_here() {
            return Err(io::Error::other(ELSEWHERE));
        }
        let mut state = lock(&self.flag.state);
        if std::mem::take(&mut state.is_ready) {
            return Ok(true);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            waker => *waker = Some(context.waker().clone()),
        }
        drop(state);
        if let Some(edges) = self.reactor.edges.get() {
            edges.ask_again(self.fd, token(self.fd, self.life), with(Edge::default(), self.flag.interest));
        }
        Ok(false)
    }
}

impl Drop for OwnSource {
    fn drop(&mut self) {
        self.reactor.leave(self.fd, &self.flag, self.is_closing);
    }
}

/// A moment that is waited for in our own loop.
pub(crate) struct OwnAlarm {
    reactor: Arc<Reactor>,
    armed: Option<(Instant, u64)>,
}

impl OwnAlarm {
    pub(super) fn new(reactor: Arc<Reactor>) -> OwnAlarm {
        OwnAlarm { reactor, armed: None }
    }

    pub(super) fn has_passed(&mut self, context: &Context<'_>, deadline: Deadline) -> bool {
        let moment = deadline.moment().filter(|_| !deadline.has_passed());
        match moment {
            Some(moment) => self.reactor.arm(&mut self.armed, moment, context.waker()),
            None => self.reactor.disarm(&mut self.armed),
        }
        deadline != Deadline::NEVER && moment.is_none()
    }

    /// Whether its loop polls on this thread: it could be one that nobody runs any more.
    pub(super) fn is_here(&self) -> bool {
        self.reactor.is_polling_here()
    }
}

impl Drop for OwnAlarm {
    fn drop(&mut self) {
        self.reactor.disarm(&mut self.armed);
    }
}
