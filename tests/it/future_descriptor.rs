//! Descriptors that are waited for, on every runtime.

use crate::drivers::{on_all_runtimes, ready};
use crate::support::{alone, descriptors};
use procession::future::{Watched, block_on, idle, scope, sleep};
use procession::pipe;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(3);

/// Polls both until both are done.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut one, mut other) = (None, None);
    poll_fn(|context| {
        if one.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(context)
        {
            one = Some(value);
        }
        if other.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(context)
        {
            other = Some(value);
        }
        if one.is_some() && other.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (one.unwrap(), other.unwrap())
}

#[test]
fn pipes_pass_more_than_they_hold_on_every_runtime() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let (reader, writer) = pipe().unwrap();
            let (reader, writer) = (Watched::new(reader).unwrap(), Watched::new(writer).unwrap());
            let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
            let send = async {
                writer.write_all(&sent).await.unwrap();
                drop(writer);
            };
            let mut got = Vec::new();
            both(send, async { reader.read_to_end(&mut got).await.unwrap() }).await;
            assert!(got == sent);
        });
    });
}

#[test]
fn one_socket_is_read_and_written_at_the_same_time_on_every_runtime() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let (one, other) = UnixStream::pair().unwrap();
            let (one, other) = (Watched::new(one).unwrap(), Watched::new(other).unwrap());
            let block = vec![7; 1_000_000];
            let read = async |from: &Watched<UnixStream>| {
                let (mut count, mut buffer) = (0, vec![0; 65536]);
                while count < block.len() {
                    count += from.read(&mut buffer).await.unwrap();
                }
                count
            };
            let counts = both(
                both(one.write_all(&block), read(&one)),
                both(other.write_all(&block), read(&other)),
            );
            let ((_, first), (_, second)) = counts.await;
            assert_eq!((first, second), (block.len(), block.len()));
        });
    });
}

#[test]
fn several_wait_for_clients_of_one_listener_on_every_runtime() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let listener = Arc::new(Watched::new(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap());
            let address = listener.get_ref().local_addr().unwrap();
            let connect = async {
                sleep(SHORT).await;
                // Both are there before anybody looks.
                (TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap())
            };
            let ((first, second), _clients) = both(both(listener.accept(), listener.accept()), connect).await;
            assert_ne!(first.unwrap().1, second.unwrap().1);
        });
    });
}

#[test]
fn files_are_always_ready_on_every_runtime() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let file = Watched::new(std::fs::File::open("/dev/null").unwrap()).unwrap();
            let mut is_first = true;
            let read = file.read_with(|_| if std::mem::take(&mut is_first) { Err(std::io::ErrorKind::WouldBlock.into()) } else { Ok(3) });
            assert_eq!(read.await.unwrap(), 3);
        });
    });
}

#[test]
fn a_reader_that_is_dropped_leaves_the_bytes_for_the_next() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let (reader, mut writer) = pipe().unwrap();
            let reader = Watched::new(reader).unwrap();
            let mut buffer = [0; 8];
            {
                let mut first = pin!(reader.read(&mut buffer));
                assert!(poll_fn(|context| Poll::Ready(first.as_mut().poll(context).is_pending())).await);
            }
            writer.write_all(b"kept").unwrap();
            assert_eq!(reader.read(&mut buffer).await.unwrap(), 4);
        });
    });
}

#[test]
fn another_thread_is_told_instead_of_hanging() {
    alone!({
        let (reader, _writer) = pipe().unwrap();
        let reader = Watched::new(reader).unwrap();
        let mut buffer = [0; 8];
        block_on(async {
            let mut read = pin!(reader.read(&mut buffer));
            assert!(poll_fn(|context| Poll::Ready(read.as_mut().poll(context).is_pending())).await);
        })
        .unwrap();
        let error = std::thread::scope(|threads| {
            threads.spawn(|| block_on(reader.read(&mut buffer)).unwrap().unwrap_err()).join().unwrap()
        });
        assert!(error.to_string().contains("another thread"), "{error}");
        // Dropped on another thread while the loop of its own sleeps.
        scope(|scope| {
            let thread = std::thread::spawn(move || drop(reader));
            scope.block_on(sleep(SHORT)).unwrap();
            thread.join().unwrap();
        })
        .unwrap();
    });
}

#[test]
fn what_waits_in_one_scope_can_go_on_in_an_inner_and_in_a_later_one() {
    alone!({
        let (reader, mut writer) = pipe().unwrap();
        let reader = Watched::new(reader).unwrap();
        let mut buffer = [0; 8];
        let mut read = Box::pin(reader.read(&mut buffer));
        scope(|outer| {
            let once = poll_fn(|context| Poll::Ready(read.as_mut().poll(context).is_pending()));
            assert!(outer.block_on(once).unwrap());
            let once = poll_fn(|context| Poll::Ready(read.as_mut().poll(context).is_pending()));
            scope(|inner| assert!(inner.block_on(once).unwrap())).unwrap();
        })
        .unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            writer.write_all(b"later").unwrap();
        });
        assert_eq!(block_on(read).unwrap().unwrap(), 5);
        thread.join().unwrap();
    });
}

#[test]
fn a_waiting_loop_calls_the_kernel_once_for_each_wake() {
    alone!({
        let before = descriptors();
        scope(|scope| {
            let pairs: Vec<_> = (0..50).map(|_| pipe().unwrap()).collect();
            let (readers, mut writers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            for reader in readers {
                scope.spawn(async move {
                    let reader = Watched::new(reader).unwrap();
                    while reader.read(&mut [0; 8]).await.unwrap() > 0 {}
                });
            }
            scope.block_on(idle()).unwrap();
            let waits = scope.waits();
            for writer in &mut writers {
                writer.write_all(b"x").unwrap();
            }
            scope.block_on(sleep(Duration::from_millis(100))).unwrap();
            // Those that are told at once, the end of the pause, and looks between many turns.
            assert!(scope.waits() - waits <= 4, "{}", scope.waits() - waits);
        })
        .unwrap();
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn signals_are_told_and_then_as_before() {
    alone!({
        use nix::sys::signal::{Signal as Number, raise};
        let signals = procession::future::Signals::new().unwrap();
        assert!(procession::future::Signals::new().unwrap_err().is_invalid_input());
        raise(Number::SIGHUP).unwrap();
        raise(Number::SIGINT).unwrap();
        let both = block_on(async { (signals.next().await.unwrap(), signals.next().await.unwrap()) });
        assert_eq!(both.unwrap(), (procession::Signal::HUP, procession::Signal::INT));
        let thread = std::thread::spawn(|| {
            std::thread::sleep(SHORT);
            nix::sys::signal::kill(nix::unistd::getpid(), Number::SIGTERM).unwrap();
        });
        assert_eq!(block_on(signals.next()).unwrap().unwrap(), procession::Signal::TERM);
        thread.join().unwrap();
    });
}
