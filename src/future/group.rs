//! Tasks that are dealt with together: at most so many at a time, joined and killed as one, and mapped over inputs.

use super::lock::{Permit, Semaphore};
use super::monitor::{ALL, Monitor, State};
use super::scope::Scope;
use super::task::{End, Ended, Ending, Tally, Task};
use super::timeout::timeout;
use crate::deadline::Deadline;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

/// Tasks of a scope that belong together. A cheap handle, to be cloned.
///
/// ```
/// use procession::future::{Group, scope, sleep};
/// use std::time::Duration;
///
/// let lengths = scope(|scope| {
///     // Two at a time.
///     let group = Group::with_size(scope, 2);
///     scope.block_on(group.map(["one", "two", "three"], async |word| {
///         sleep(Duration::from_millis(1)).await;
///         word.len()
///     }))
/// });
/// assert_eq!(lengths??, Ok(vec![3, 3, 5]));
/// # Ok::<(), procession::Error>(())
/// ```
///
/// Dropping the group stops nothing.
#[doc(alias = "Pool")]
#[doc(alias = "TaskGroup")]
#[doc(alias = "nursery")]
pub struct Group<'env> {
    scope: Scope<'env>,
    shared: Rc<Shared<'env>>,
}

struct Shared<'env> {
    members: RefCell<BTreeMap<u64, Rc<dyn Ending + 'env>>>,
    count: Monitor<Count>,
    permits: Semaphore,
    size: Option<usize>,
    kills_at_failure: bool,
    failure: RefCell<Option<Ended>>,
    /// Their panics go on at the end of the scope, unless somebody asks the group.
    panicked: RefCell<Vec<Rc<dyn Ending + 'env>>>,
}

/// How many members there are.
struct Count {
    members: usize,
    last: u64,
}

impl State for Count {
    fn calls(&self, _line: usize) -> bool {
        self.members == 0
    }
}

impl<'env> Group<'env> {
    /// A group of any size.
    pub fn new(scope: &Scope<'env>) -> Group<'env> {
        Group::of(scope, None, false)
    }

    /// At most so many tasks at a time, and at least one.
    pub fn with_size(scope: &Scope<'env>, size: usize) -> Group<'env> {
        Group::of(scope, Some(size.max(1)), false)
    }

    /// The same group, that kills the rest when one of its tasks panics, or [fails](Self::spawn_fallible).
    ///
    /// ```
    /// use procession::future::{Group, scope, sleep};
    /// use std::time::Duration;
    ///
    /// scope(|scope| {
    ///     let group = Group::new(scope).kill_at_failure();
    ///     scope.block_on(async {
    ///         group.spawn(sleep(Duration::from_secs(3600))).await;
    ///         group.spawn_fallible(async { Err::<(), _>("no such host") }).await;
    ///         let failure = group.join_or_failure(None).await.unwrap_err();
    ///         assert_eq!(failure.to_string(), "the task failed: no such host");
    ///     })
    /// })??;
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[must_use]
    pub fn kill_at_failure(self) -> Group<'env> {
        Group::of(&self.scope, self.shared.size, true)
    }

    fn of(scope: &Scope<'env>, size: Option<usize>, kills_at_failure: bool) -> Group<'env> {
        let shared = Shared {
            members: RefCell::default(),
            count: Monitor::new(Count { members: 0, last: 0 }),
            permits: Semaphore::new(size.unwrap_or(usize::MAX)),
            size,
            kills_at_failure,
            failure: RefCell::default(),
            panicked: RefCell::default(),
        };
        Group { scope: scope.clone(), shared: Rc::new(shared) }
    }

    /// Waits until there is room, and spawns the future.
    pub async fn spawn<F>(&self, future: F) -> Task<'env, F::Output>
    where
        F: Future + 'env,
        F::Output: 'env,
    {
        let permit = self.shared.permits.acquire().await;
        self.admit(permit, future)
    }

    /// Spawns the future, if there is room and nobody waits for it.
    ///
    /// # Errors
    /// If there is no room: the future.
    pub fn spawn_nowait<F>(&self, future: F) -> Result<Task<'env, F::Output>, F>
    where
        F: Future + 'env,
        F::Output: 'env,
    {
        match self.shared.permits.try_acquire() {
            Some(permit) => Ok(self.admit(permit, future)),
            None => Err(future),
        }
    }

    /// As [`spawn`](Self::spawn); its error is a failure of the group, too.
    pub async fn spawn_fallible<F, T, E>(&self, future: F) -> Task<'env, F::Output>
    where
        F: Future<Output = Result<T, E>> + 'env,
        T: 'env,
        E: fmt::Display + 'env,
    {
        let group = Rc::downgrade(&self.shared);
        self.spawn(async move {
            let result = future.await;
            if let (Err(error), Some(group)) = (&result, group.upgrade()) {
                group.fail(Ended::Failed(error.to_string()));
            }
            result
        })
        .await
    }

    fn admit<F>(&self, permit: Permit<'_>, future: F) -> Task<'env, F::Output>
    where
        F: Future + 'env,
        F::Output: 'env,
    {
        permit.forget();
        let task = self.scope.spawn(future);
        let number = self.shared.count.change(|count| {
            (count.members, count.last) = (count.members + 1, count.last + 1);
            count.last
        });
        self.shared.members.borrow_mut().insert(number, task.ending());
        // It knows the group and the group knows it, until its end.
        let shared = Rc::clone(&self.shared);
        task.set_hook(move |end| shared.leave(number, end));
        task
    }

    /// How many tasks of the group have not ended.
    pub fn len(&self) -> usize {
        self.shared.count.look(|count| count.members)
    }

    /// Whether all tasks of the group have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tasks can be spawned without waiting.
    pub fn free_count(&self) -> usize {
        self.shared.permits.value()
    }

    /// Whether [`spawn`](Self::spawn) would wait.
    pub fn full(&self) -> bool {
        self.free_count() == 0
    }

    /// Waits until there is room. Somebody else may take it before the next `.await`.
    pub async fn wait_available(&self) {
        drop(self.shared.permits.acquire().await);
    }

    /// Spawns the future, and waits for what it returns.
    ///
    /// # Errors
    /// If it panicked or was killed.
    pub async fn apply<F>(&self, future: F) -> Result<F::Output, Ended>
    where
        F: Future + 'env,
        F::Output: 'env,
    {
        self.spawn(future).await.await
    }

    /// Spawns the future, and calls the function with what it has returned.
    #[doc(alias = "apply_cb")]
    pub async fn apply_async<F>(&self, future: F, call: impl FnOnce(F::Output) + 'env) -> Task<'env, ()>
    where
        F: Future + 'env,
    {
        self.spawn(async move { call(future.await) }).await
    }

    /// Calls the function for each input, as many at a time as the group has room for. What they returned, in the order of the inputs.
    ///
    /// # Errors
    /// The first one, in this order, that panicked or was killed.
    pub async fn map<I, W, T>(&self, inputs: I, work: W) -> Result<Vec<T>, Ended>
    where
        I: IntoIterator,
        I::Item: 'env,
        W: AsyncFn(I::Item) -> T + 'env,
        T: 'env,
    {
        let (work, mut tasks) = (Rc::new(work), Vec::new());
        for input in inputs {
            let work = Rc::clone(&work);
            tasks.push(self.spawn(async move { work(input).await }).await);
        }
        let mut values = Vec::new();
        for task in tasks {
            values.push(task.await?);
        }
        Ok(values)
    }

    /// As [`map`](Self::map), one after the other in the order of the inputs, which are read as they are needed. At most `ahead` tasks, and at least one,
    /// run or have a result that nobody has taken.
    pub fn imap<I, W, T>(&self, inputs: I, ahead: usize, work: W) -> Imap<'env, I::IntoIter, W, T>
    where
        I: IntoIterator,
        W: AsyncFn(I::Item) -> T + 'env,
    {
        Imap::new(self.clone(), inputs.into_iter(), ahead, work, true)
    }

    /// The same, in the order in which they end.
    ///
    /// ```
    /// use procession::future::{Group, scope, sleep};
    /// use std::time::Duration;
    ///
    /// let order = scope(|scope| {
    ///     let mut slow_first = Group::new(scope).imap_unordered([30, 10], 8, async |millis| {
    ///         sleep(Duration::from_millis(millis)).await;
    ///         millis
    ///     });
    ///     scope.block_on(async {
    ///         let mut order = Vec::new();
    ///         while let Some(millis) = slow_first.next().await {
    ///             order.push(millis?);
    ///         }
    ///         Ok::<_, procession::Error>(order)
    ///     })
    /// });
    /// assert_eq!(order???, [10, 30]);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn imap_unordered<I, W, T>(&self, inputs: I, ahead: usize, work: W) -> Imap<'env, I::IntoIter, W, T>
    where
        I: IntoIterator,
        W: AsyncFn(I::Item) -> T + 'env,
    {
        Imap::new(self.clone(), inputs.into_iter(), ahead, work, false)
    }

    /// Waits until all tasks of the group have ended, for at most this long. Whether they have.
    pub async fn join(&self, patience: impl Into<Deadline>) -> bool {
        timeout(patience, self.shared.count.wait(ALL, |count| (count.members == 0).then_some(()))).await.is_ok()
    }

    /// The same; a panic of one of its tasks, or the error of [one that can fail](Self::spawn_fallible), is the error of all.
    ///
    /// # Errors
    /// The first failure there was.
    pub async fn join_or_failure(&self, patience: impl Into<Deadline>) -> Result<bool, Ended> {
        let has_ended = self.join(patience).await;
        self.failure().map_or(Ok(has_ended), Err)
    }

    /// The first failure there was. Whoever asks knows of all panics in the group.
    pub fn failure(&self) -> Option<Ended> {
        self.shared.panicked.borrow_mut().drain(..).for_each(|member| member.end().ask());
        self.shared.failure.borrow().clone()
    }

    /// Kills all tasks of the group. [`join`](Self::join) waits for that.
    pub fn kill(&self) {
        self.shared.kill();
    }

    /// Kills one, and waits until it has ended, for at most this long. Whether it has.
    pub async fn killone<T>(&self, task: &Task<'env, T>, patience: impl Into<Deadline>) -> bool {
        task.kill();
        task.join(patience).await
    }
}

impl Shared<'_> {
    fn leave(&self, number: u64, end: &End) {
        let member = self.members.borrow_mut().remove(&number);
        if let Some(failure @ Ended::Panicked(_)) = end.failure() {
            self.panicked.borrow_mut().extend(member);
            self.fail(failure);
        }
        self.permits.release(1);
        self.count.change(|count| count.members = count.members.saturating_sub(1));
    }

    fn fail(&self, failure: Ended) {
        self.failure.borrow_mut().get_or_insert(failure);
        if self.kills_at_failure {
            self.kill();
        }
    }

    fn kill(&self) {
        let members: Vec<_> = self.members.borrow().values().cloned().collect();
        members.iter().for_each(|member| member.end().kill());
    }
}

impl Clone for Group<'_> {
    fn clone(&self) -> Self {
        Group { scope: self.scope.clone(), shared: Rc::clone(&self.shared) }
    }
}

impl fmt::Debug for Group<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Group").field("len", &self.len()).field("size", &self.shared.size).finish_non_exhaustive()
    }
}

/// Results one after the other: see [`Group::imap`]. New tasks are started while somebody waits in [`next`](Self::next).
///
/// Dropping it starts no more tasks; those that run go on.
pub struct Imap<'env, I, W, T> {
    group: Group<'env>,
    inputs: Option<I>,
    ahead: usize,
    work: Rc<W>,
    is_ordered: bool,
    tally: Rc<Tally>,
    tasks: VecDeque<(usize, Task<'env, T>)>,
    ended: VecDeque<usize>,
    started: usize,
}

impl<'env, I, W, T> Imap<'env, I, W, T>
where
    I: Iterator,
    W: AsyncFn(I::Item) -> T + 'env,
{
    fn new(group: Group<'env>, inputs: I, ahead: usize, work: W, is_ordered: bool) -> Self {
        Imap {
            group,
            inputs: Some(inputs),
            ahead: ahead.max(1),
            work: Rc::new(work),
            is_ordered,
            tally: Rc::default(),
            tasks: VecDeque::new(),
            ended: VecDeque::new(),
            started: 0,
        }
    }

    /// The next result. `None` if there are no more. If it is dropped, none is lost.
    ///
    /// # Errors
    /// If this one panicked or was killed. The others go on.
    pub async fn next(&mut self) -> Option<Result<T, Ended>>
    where
        I::Item: 'env,
        T: 'env,
    {
        loop {
            self.start();
            if self.is_ordered {
                let can_start = self.inputs.is_some() && self.tasks.len() < self.ahead;
                if let Some((_, first)) = self.tasks.front_mut() {
                    let mut room = pin!(self.group.wait_available());
                    let result = poll_fn(|context| match Pin::new(&mut *first).poll(context) {
                        Poll::Pending if can_start => room.as_mut().poll(context).map(|()| None),
                        polled => polled.map(Some),
                    });
                    let Some(result) = result.await else { continue };
                    self.tasks.pop_front();
                    return Some(result);
                }
            } else if let Some(number) = self.ended.pop_front() {
                let place = self.tasks.iter().position(|(other, _)| *other == number);
                let task = place.and_then(|place| self.tasks.remove(place));
                return task.and_then(|(_, task)| task.take());
            } else if !self.tasks.is_empty() {
                let ended = self.tally.next().await;
                self.ended.extend(ended);
                continue;
            }
            self.inputs.as_ref()?;
            // The group is full of others.
            self.group.wait_available().await;
        }
    }

    /// As many as there is room for.
    fn start(&mut self)
    where
        I::Item: 'env,
        T: 'env,
    {
        while self.tasks.len() < self.ahead
            && let Some(inputs) = &mut self.inputs
            && let Some(permit) = self.group.shared.permits.try_acquire()
        {
            let Some(input) = inputs.next() else {
                self.inputs = None;
                break;
            };
            let work = Rc::clone(&self.work);
            let task = self.group.admit(permit, async move { work(input).await });
            if !self.is_ordered {
                task.end().tell(&self.tally, self.started);
            }
            self.tasks.push_back((self.started, task));
            self.started += 1;
        }
    }
}

impl<I, W, T> fmt::Debug for Imap<'_, I, W, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Imap").field("started", &self.started).finish_non_exhaustive()
    }
}
