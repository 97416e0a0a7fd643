//! The one place that knows on which runtime a future is polled: the scope whose thread it is, tokio, or async-io. Each is asked for four things:
//! whether a descriptor has become ready, whether a moment has come, to go on with what nobody waits for any more, and nothing else.

use super::clock;
use super::reactor::{OwnAlarm, OwnSource, Reactor, Rest};
use crate::deadline::Deadline;
use crate::error::Error;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Context;

#[cfg(feature = "async-io")]
use super::on_async_io;
#[cfg(feature = "tokio")]
use super::on_tokio;

pub(crate) use super::reactor::Interest;

/// Who runs what is polled here.
#[derive(Clone)]
pub(crate) enum Runtime {
    Own(Arc<Reactor>),
    #[cfg(feature = "tokio")]
    Tokio(tokio::runtime::Handle),
    #[cfg(feature = "async-io")]
    AsyncIo,
}

/// A descriptor that is waited for. It is dropped before the descriptor is closed.
pub(crate) enum Source {
    Own(OwnSource),
    #[cfg(feature = "tokio")]
    Tokio(on_tokio::Source),
    #[cfg(feature = "async-io")]
    AsyncIo(on_async_io::Source),
    /// A file.
    AlwaysReady,
}

/// A moment that is waited for. Finds its runtime when it first waits, and again where that has gone.
#[derive(Default)]
pub(crate) struct Alarm(Option<Armed>);

enum Armed {
    Own(OwnAlarm),
    #[cfg(feature = "tokio")]
    Tokio(on_tokio::Alarm),
    #[cfg(feature = "async-io")]
    AsyncIo(on_async_io::Alarm),
    Clock(clock::Alarm),
}

impl Runtime {
    /// That on which this is called.
    pub(crate) fn current() -> Result<Runtime, Error> {
        if let Some(reactor) = Reactor::polling() {
            return Ok(Runtime::Own(reactor));
        }
        #[cfg(feature = "tokio")]
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            return Ok(Runtime::Tokio(handle));
        }
        #[cfg(feature = "async-io")]
        return Ok(Runtime::AsyncIo);
        #[cfg(not(feature = "async-io"))]
        Err(Error::invalid(
            "no runtime: poll it in `procession::future::scope`, or enable the feature `tokio` or `async-io`",
        ))
    }

    /// A descriptor that is waited for. The caller drops the source before the descriptor is closed.
    pub(crate) fn source(&self, fd: BorrowedFd<'_>, interest: Interest) -> Result<Source, Error> {
        Ok(match self {
            Runtime::Own(reactor) => reactor.source(fd, interest)?.map_or(Source::AlwaysReady, Source::Own),
            #[cfg(feature = "tokio")]
            Runtime::Tokio(handle) => {
                on_tokio::Source::new(handle, fd, interest)?.map_or(Source::AlwaysReady, Source::Tokio)
            }
            #[cfg(feature = "async-io")]
            Runtime::AsyncIo => on_async_io::Source::new(fd, interest)?.map_or(Source::AlwaysReady, Source::AsyncIo),
        })
    }

    fn armed(&self) -> Armed {
        match self {
            Runtime::Own(reactor) => Armed::Own(OwnAlarm::new(Arc::clone(reactor))),
            #[cfg(feature = "tokio")]
            Runtime::Tokio(handle) => Armed::Tokio(on_tokio::Alarm::new(handle.clone())),
            #[cfg(feature = "async-io")]
            Runtime::AsyncIo => Armed::AsyncIo(on_async_io::Alarm::default()),
        }
    }

    /// Goes on with this when nobody waits for it any more. Gives it back where there is nobody to run it.
    pub(crate) fn adopt(&self, rest: Rest) -> Result<(), Rest> {
        match self {
            Runtime::Own(reactor) => reactor.adopt(rest),
            #[cfg(feature = "tokio")]
            Runtime::Tokio(handle) => {
                drop(handle.spawn(rest));
                Ok(())
            }
            // It has a thread for readiness, and none for tasks.
            #[cfg(feature = "async-io")]
            Runtime::AsyncIo => Err(rest),
        }
    }
}

impl Source {
    /// The descriptor is closed right after this.
    pub(crate) fn closing(self) {
        match self {
            Source::Own(source) => source.closing(),
            #[cfg(feature = "tokio")]
            Source::Tokio(_) => {}
            #[cfg(feature = "async-io")]
            Source::AsyncIo(_) => {}
            Source::AlwaysReady => {}
        }
    }

    /// Whether it has become ready since this was asked last. If not, the task is woken when it does. May be spurious; a descriptor that is ready
    /// at the first question says so sooner or later by waking.
    pub(crate) fn take_ready(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        match self {
            Source::Own(source) => source.take_ready(context),
            #[cfg(feature = "tokio")]
            Source::Tokio(source) => source.take_ready(context),
            #[cfg(feature = "async-io")]
            Source::AsyncIo(source) => source.take_ready(context),
            Source::AlwaysReady => Ok(true),
        }
    }
}

impl Alarm {
    /// Whether the moment has come (never early); if not, the task is woken then. The moment may be another one at each call. NEVER arms
    /// nothing.
    pub(crate) fn has_passed(&mut self, context: &mut Context<'_>, deadline: Deadline) -> bool {
        if matches!(&self.0, Some(Armed::Own(alarm)) if !alarm.is_here()) {
            self.0 = None;
        }
        let find =
            || Runtime::current().map_or_else(|_| Armed::Clock(clock::Alarm::default()), |runtime| runtime.armed());
        match self.0.get_or_insert_with(find) {
            Armed::Own(alarm) => alarm.has_passed(context, deadline),
            #[cfg(feature = "tokio")]
            Armed::Tokio(alarm) => alarm.has_passed(context, deadline),
            #[cfg(feature = "async-io")]
            Armed::AsyncIo(alarm) => alarm.has_passed(context, deadline),
            Armed::Clock(alarm) => alarm.has_passed(context, deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::future::{block_on, scope, sleep, try_scope};
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Leaves something to be done when it is dropped, as a child that is to be stopped does.
    struct Leaves(Runtime, Arc<AtomicUsize>);

    impl Drop for Leaves {
        fn drop(&mut self) {
            let done = Arc::clone(&self.1);
            let rest = Box::pin(async move {
                for _ in 0..3 {
                    sleep(Duration::from_millis(2)).await;
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
            assert!(self.0.adopt(rest).is_ok());
        }
    }

    async fn holds(done: Arc<AtomicUsize>) {
        let _leaves = Leaves(Runtime::current().unwrap(), done);
        pending::<()>().await;
    }

    #[test]
    fn what_was_left_is_done_before_the_scope_ends() {
        let done = Arc::new(AtomicUsize::new(0));
        scope(|scope| {
            let task = scope.spawn(holds(Arc::clone(&done)));
            scope.block_on(sleep(Duration::from_millis(1))).unwrap();
            task.kill();
        })
        .unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 1);
        // By an error, and by a panic; the future that the function holds itself, too.
        let killed = try_scope(|scope| {
            scope.spawn(holds(Arc::clone(&done)));
            scope.block_on(crate::future::timeout(Duration::from_millis(1), holds(Arc::clone(&done))))?.unwrap_err();
            Err::<(), Error>(Error::invalid("no"))
        });
        assert_eq!((killed.is_err(), done.load(Ordering::SeqCst)), (true, 3));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scope(|scope| {
                scope.spawn(holds(Arc::clone(&done)));
                scope.block_on(sleep(Duration::from_millis(1))).unwrap();
                std::panic::resume_unwind(Box::new(()));
            })
        }));
        assert_eq!((panicked.is_err(), done.load(Ordering::SeqCst)), (true, 4));
    }

    #[test]
    fn another_thread_may_leave_something_to_a_scope_that_sleeps() {
        let done = Arc::new(AtomicUsize::new(0));
        scope(|scope| {
            let runtime = scope.block_on(async { Runtime::current().unwrap() }).unwrap();
            let leaves = Leaves(runtime, Arc::clone(&done));
            let thread = std::thread::spawn(move || drop(leaves));
            scope.block_on(sleep(Duration::from_millis(30))).unwrap();
            thread.join().unwrap();
        })
        .unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_scope_does_not_close_over_what_was_left_just_now() {
        let reactor = Reactor::of_thread().unwrap();
        reactor.open();
        assert!(reactor.adopt(Box::pin(async {})).is_ok() && !reactor.close());
        assert_eq!(reactor.take_adopted().len(), 1);
        assert!(reactor.close() && reactor.adopt(Box::pin(async {})).is_err());
    }

    #[test]
    fn nobody_takes_what_is_left_after_the_scope() {
        let runtime = block_on(async { Runtime::current().unwrap() }).unwrap();
        assert!(matches!(runtime, Runtime::Own(_)));
        assert!(runtime.adopt(Box::pin(async {})).is_err());
    }
}
