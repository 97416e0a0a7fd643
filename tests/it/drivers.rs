//! The same future on every runtime that there is: the own scope, tokio with one thread and with several, `async-io`. Tests that use it begin with `alone!(after drivers::ready, {`.

use procession::future::sleep;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Runs the case on each of them. What it returns must be `Send`, so that it could be spawned on several threads; there it is.
pub fn on_all_runtimes<F: Future<Output = ()> + Send + 'static>(case: impl Fn() -> F) {
    on_own_scope(&case);
    #[cfg(feature = "tokio")]
    on_tokio(&case);
    #[cfg(feature = "async-io")]
    on_async_io(&case);
}

pub fn on_own_scope<F: Future<Output = ()> + 'static>(case: &impl Fn() -> F) {
    procession::future::block_on(case()).unwrap();
    procession::future::scope(|scope| {
        scope.spawn(case());
    })
    .unwrap();
}

#[cfg(feature = "tokio")]
pub fn on_tokio<F: Future<Output = ()> + Send + 'static>(case: &impl Fn() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(case());
    drop(runtime);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(runtime.spawn(case())).unwrap();
}

/// The thread and the descriptors of `async-io` stay, so they are there before a test looks at what it leaves.
pub fn ready() {
    #[cfg(feature = "async-io")]
    {
        async_io::block_on(async_io::Timer::after(std::time::Duration::from_millis(1)));
        // A timer that is late asks nobody.
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(async_io::Async::new(one).unwrap());
    }
}

#[cfg(feature = "async-io")]
pub fn on_async_io<F: Future<Output = ()> + Send + 'static>(case: &impl Fn() -> F) {
    async_io::block_on(case());
}

/// So long a future is polled that nothing ends.
const LONG: Duration = Duration::from_secs(40);

/// Polls the future so often, and then drops it unless it is done.
pub async fn at_most<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    at_most_until(polls, LONG, future).await
}

/// The same, and not for longer than this.
pub async fn at_most_until<T>(polls: usize, patience: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut patience, mut left) = (pin!(future), pin!(sleep(patience)), polls);
    poll_fn(|task| match future.as_mut().poll(task) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if left <= 1 || patience.as_mut().poll(task).is_ready() => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}
