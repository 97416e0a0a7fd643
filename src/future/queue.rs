//! Values that go from task to task: a queue that holds some, and a channel that holds none.

use super::monitor::{ALL, FIRST, Monitor, SECOND, State};
use super::timeout::{Timeout, timeout};
use crate::error::Error;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// In this line wait those who get.
const GET: usize = FIRST;
/// And in this one those who put.
const PUT: usize = SECOND;

/// A queue with a bound: for tasks, and for threads. Everybody has their turn in the order of their arrival; what is dropped while it waits has taken
/// nothing.
///
/// ```
/// use procession::future::{Queue, scope};
///
/// let queue = Queue::new(2);
/// let sum = scope(|scope| {
///     let worker = scope.spawn(async {
///         let mut sum = 0;
///         loop {
///             match queue.get().await {
///                 Some(number) => sum += number,
///                 None => break sum,
///             }
///         }
///     });
///     scope.spawn(async {
///         for number in 1..=100 {
///             queue.put(Some(number)).await;
///         }
///         queue.put(None).await;
///     });
///     scope.block_on(worker)
/// });
/// assert_eq!(sum??, Ok(5050));
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "JoinableQueue")]
pub struct Queue<T>(Monitor<Items<T>>);

struct Items<T> {
    items: VecDeque<T>,
    capacity: usize,
    /// Put, and not yet done.
    unfinished: usize,
}

impl<T> State for Items<T> {
    fn calls(&self, line: usize) -> bool {
        match line {
            GET => !self.items.is_empty(),
            PUT => self.items.len() < self.capacity,
            _ => self.unfinished == 0,
        }
    }
}

impl<T> Items<T> {
    fn put(&mut self, item: &mut Option<T>) -> Option<()> {
        if self.items.len() < self.capacity {
            self.items.push_back(item.take()?);
            self.unfinished = self.unfinished.saturating_add(1);
            return Some(());
        }
        None
    }
}

/// There is no room, or nobody to take it. The item comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("there is no room for the item")
    }
}

impl<T: fmt::Debug> std::error::Error for Full<T> {}

impl<T> Queue<T> {
    /// For at most so many items, and at least one: what holds none is a [`Channel`].
    pub const fn new(capacity: usize) -> Queue<T> {
        let capacity = if capacity == 0 { 1 } else { capacity };
        Queue(Monitor::new(Items { items: VecDeque::new(), capacity, unfinished: 0 }))
    }

    /// For as many items as there is memory.
    pub const fn unbounded() -> Queue<T> {
        Queue::new(usize::MAX)
    }

    /// Waits for room, and puts the item behind all others. If it is dropped while it waits, the item is dropped; [`put_timeout`](Self::put_timeout)
    /// gives it back.
    pub async fn put(&self, item: T) {
        let mut item = Some(item);
        self.0.wait(PUT, |items| items.put(&mut item)).await;
    }

    /// Puts it if there is room and nobody waits for it.
    ///
    /// # Errors
    /// If it is full: the item.
    #[doc(alias = "try_put")]
    pub fn put_nowait(&self, item: T) -> Result<(), Full<T>> {
        let mut item = Some(item);
        let put = self.0.attempt(PUT, |items| items.put(&mut item));
        put.map_or_else(|| item.take().map_or(Ok(()), |item| Err(Full(item))), Ok)
    }

    /// Waits for room for at most this long.
    ///
    /// # Errors
    /// If it was full all the time: the item.
    pub async fn put_timeout(&self, item: T, patience: Duration) -> Result<(), Full<T>> {
        let mut item = Some(item);
        let _: Result<(), _> = timeout(patience, self.0.wait(PUT, |items| items.put(&mut item))).await;
        item.map_or(Ok(()), |item| Err(Full(item)))
    }

    /// Waits for an item, the oldest. If it is dropped while it waits, nothing was taken.
    pub async fn get(&self) -> T {
        self.0.wait(GET, |items| items.items.pop_front()).await
    }

    /// Waits for an item for at most this long.
    pub async fn get_timeout(&self, patience: Duration) -> Option<T> {
        timeout(patience, self.get()).await.ok()
    }

    /// The oldest item, if there is one and nobody waits for it.
    #[doc(alias = "try_get")]
    pub fn get_nowait(&self) -> Option<T> {
        self.0.attempt(GET, |items| items.items.pop_front())
    }

    /// Somebody has done what an item was about; see [`join`](Self::join).
    ///
    /// # Errors
    /// If more is done than was put.
    pub fn task_done(&self) -> Result<(), Error> {
        let left = self.0.change(|items| {
            items.unfinished = items.unfinished.checked_sub(1)?;
            Some(())
        });
        left.ok_or_else(|| Error::invalid("task_done was called more often than items were put"))
    }

    /// Waits until everything that was put is [done](Self::task_done).
    pub async fn join(&self) {
        self.0.wait(ALL, |items| (items.unfinished == 0).then_some(())).await;
    }

    /// How many items there are.
    #[doc(alias = "len")]
    pub fn qsize(&self) -> usize {
        self.0.look(|items| items.items.len())
    }

    /// How many items were put and are not [done](Self::task_done).
    pub fn unfinished_tasks(&self) -> usize {
        self.0.look(|items| items.unfinished)
    }

    /// Whether there is no item.
    #[doc(alias = "empty")]
    pub fn is_empty(&self) -> bool {
        self.qsize() == 0
    }

    /// Whether there is no room.
    #[doc(alias = "full")]
    pub fn is_full(&self) -> bool {
        self.0.look(|items| items.items.len() >= items.capacity)
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Queue").field("qsize", &self.qsize()).finish_non_exhaustive()
    }
}

/// Hands values over: who puts waits until somebody has got it.
///
/// ```
/// use procession::future::{Channel, scope};
///
/// let channel = Channel::new();
/// scope(|scope| {
///     scope.spawn(async { channel.put("from hand to hand").await });
///     assert_eq!(scope.block_on(channel.get())?, "from hand to hand");
///     Ok::<(), procession::Error>(())
/// })??;
/// # Ok::<(), procession::Error>(())
/// ```
#[doc(alias = "rendezvous")]
pub struct Channel<T>(Monitor<Hand<T>>);

struct Hand<T> {
    offer: Option<(u64, T)>,
    offers: u64,
    /// The last one that was taken.
    taken: u64,
}

impl<T> State for Hand<T> {
    fn calls(&self, line: usize) -> bool {
        match line {
            GET => self.offer.is_some(),
            // And those who wait for theirs to be taken.
            _ => self.offer.is_none(),
        }
    }
}

impl<T> Hand<T> {
    fn offer(&mut self, item: &mut Option<T>) -> Option<u64> {
        if self.offer.is_some() {
            return None;
        }
        self.offers += 1;
        self.offer = Some((self.offers, item.take()?));
        Some(self.offers)
    }

    fn take(&mut self) -> Option<T> {
        let (number, item) = self.offer.take()?;
        self.taken = number;
        Some(item)
    }
}

/// Takes back what nobody has taken.
struct Offer<'a, T> {
    channel: &'a Channel<T>,
    number: u64,
}

impl<T> Offer<'_, T> {
    fn take_back(&self) -> Option<T> {
        let is_ours = |offer: &mut (u64, T)| offer.0 == self.number;
        self.channel.0.change(|hand| hand.offer.take_if(is_ours)).map(|(_, item)| item)
    }
}

impl<T> Drop for Offer<'_, T> {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl<T> Channel<T> {
    /// With nobody at either end.
    pub const fn new() -> Channel<T> {
        Channel(Monitor::new(Hand { offer: None, offers: 0, taken: 0 }))
    }

    /// Waits until somebody has got the item. If it is dropped, nobody gets it any more; on another thread somebody may just have got it, which
    /// [`put_timeout`](Self::put_timeout) tells.
    pub async fn put(&self, item: T) {
        let mut item = Some(item);
        let number = self.0.wait(PUT, |hand| hand.offer(&mut item)).await;
        self.wait_taken(&Offer { channel: self, number }).await;
    }

    async fn wait_taken(&self, offer: &Offer<'_, T>) {
        self.0.wait(ALL, |hand| (hand.taken >= offer.number).then_some(())).await;
    }

    /// Waits for at most this long until somebody has got it.
    ///
    /// # Errors
    /// If nobody has: the item.
    pub async fn put_timeout(&self, item: T, patience: Duration) -> Result<(), Full<T>> {
        let (limit, mut item) = (Timeout::new(patience), Some(item));
        if let Ok(number) = limit.limit(self.0.wait(PUT, |hand| hand.offer(&mut item))).await {
            let offer = Offer { channel: self, number };
            if limit.limit(self.wait_taken(&offer)).await.is_err() {
                item = offer.take_back();
            }
        }
        item.map_or(Ok(()), |item| Err(Full(item)))
    }

    /// Waits for somebody who puts. If it is dropped before, nothing was taken.
    pub async fn get(&self) -> T {
        self.0.wait(GET, Hand::take).await
    }

    /// What somebody waits to hand over, if somebody does and nobody was here before.
    #[doc(alias = "try_get")]
    pub fn get_nowait(&self) -> Option<T> {
        self.0.attempt(GET, Hand::take)
    }
}

impl<T> Default for Channel<T> {
    fn default() -> Channel<T> {
        Channel::new()
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_offered = self.0.look(|hand| hand.offer.is_some());
        out.debug_struct("Channel").field("is_offered", &is_offered).finish()
    }
}
