//! Many children in one set, and the next that happens awaited.

use super::Awaited;
use super::readiness::Readiness;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::set::{ChildSet, Exit, Found, News, Wish};
use std::future::poll_fn;
use std::time::Duration;

impl ChildSet {
    /// The verbs of this set as futures, on any runtime: see [`future`](crate::future). The runtime waits for one descriptor, however
    /// many children there are.
    ///
    /// A future that is dropped takes nothing: what it would have told is told by the next.
    #[doc(alias = "async")]
    pub fn future(&mut self) -> Awaited<&mut ChildSet> {
        Awaited(self)
    }
}

/// The verbs of a set. Errors are those of the blocking verbs, that there is no runtime here, and that the system has no epoll.
impl<'a> Awaited<&'a mut ChildSet> {
    /// As [`ChildSet::wait_any`].
    ///
    /// ```
    /// use procession::{ChildSet, Command, News, future};
    ///
    /// let ended = future::block_on(async {
    ///     let (mut set, mut ended) = (ChildSet::new()?, 0);
    ///     for _ in 0..3 {
    ///         set.start(&Command::new("true"))?;
    ///     }
    ///     while let Some(news) = set.future().wait_any().await? {
    ///         ended += usize::from(matches!(news, News::Exit { .. }));
    ///     }
    ///     Ok::<_, procession::Error>(ended)
    /// })??;
    /// assert_eq!(ended, 3);
    /// # Ok::<(), procession::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait_any(self) -> Result<Option<News<'a>>, Error> {
        self.wait_any_deadline(Deadline::NEVER).await
    }

    /// As [`ChildSet::wait_any_timeout`].
    ///
    /// # Errors
    /// As [`wait_any`](Self::wait_any).
    pub async fn wait_any_timeout(self, timeout: Duration) -> Result<Option<News<'a>>, Error> {
        self.wait_any_deadline(Deadline::after(timeout)).await
    }

    /// As [`ChildSet::wait_any_deadline`].
    ///
    /// # Errors
    /// As [`wait_any`](Self::wait_any).
    pub async fn wait_any_deadline(self, deadline: impl Into<Deadline>) -> Result<Option<News<'a>>, Error> {
        let found = find(self.0, Wish::Everything, deadline.into(), &mut Readiness::here()?).await?;
        Ok(found.map(|found| self.0.news(found)))
    }

    /// As [`ChildSet::wait_all`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    #[doc(alias = "joinall")]
    pub async fn wait_all(self) -> Result<Vec<Exit>, Error> {
        self.wait_all_deadline(Deadline::NEVER).await
    }

    /// As [`ChildSet::wait_all_deadline`].
    ///
    /// # Errors
    /// As there, and if there is no runtime.
    pub async fn wait_all_deadline(self, deadline: impl Into<Deadline>) -> Result<Vec<Exit>, Error> {
        let (deadline, mut ended, mut readiness) = (deadline.into(), Vec::new(), Readiness::here()?);
        while !self.0.is_empty() {
            match find(self.0, Wish::Children, deadline, &mut readiness).await? {
                Some(found) => ended.extend(self.0.exit_of(found)),
                None if deadline.has_passed() => break,
                None => {}
            }
        }
        Ok(ended)
    }
}

async fn find(
    set: &mut ChildSet,
    wish: Wish,
    deadline: Deadline,
    readiness: &mut Readiness,
) -> Result<Option<Found>, Error> {
    poll_fn(|task| {
        set.poll_any(wish, deadline, &mut |set, until| readiness.readable(task, Some(set.try_as_fd()?), until))
    })
    .await
}
