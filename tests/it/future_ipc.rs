//! What processes share, and pools of workers, awaited: on every runtime the same as the blocking verbs, and nothing is lost or torn wherever
//! a future is dropped.

use crate::drivers::{self, on_all_runtimes, ready};
use crate::support::alone;
use procession::future::{block_on, scope, sleep};
use procession::ipc::{
    Connection, Descriptor, Event, GetError, Listener, Process, ProcessPool, PutError, RawConnection, Semaphore,
    packet_queue,
};
use procession::pool::WorkerPool;
use procession::{Command, ErrorKind, Stop};
use std::cell::Cell;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_millis(5);
const FOREVER: Duration = Duration::from_secs(600);

/// Polls the future so often, and then drops it unless it is done. Others have their turn after that.
async fn at_most<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let answer = drivers::at_most(polls, future).await;
    if answer.is_none() {
        sleep(Duration::from_micros(100)).await;
    }
    answer
}

/// Both at the same time.
async fn both<A, B>(one: impl Future<Output = A>, two: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut two) = (pin!(one), pin!(two));
    let (mut first, mut second) = (None, None);
    poll_fn(|task| {
        if first.is_none()
            && let Poll::Ready(answer) = one.as_mut().poll(task)
        {
            first = Some(answer);
        }
        if second.is_none()
            && let Poll::Ready(answer) = two.as_mut().poll(task)
        {
            second = Some(answer);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, two) => {
                (first, second) = (one, two);
                Poll::Pending
            }
        }
    })
    .await
}

/// Ends on streams and on packets.
fn raw_pairs() -> [(RawConnection, RawConnection); 2] {
    let (one, two) = std::os::unix::net::UnixStream::pair().unwrap();
    let stream = (RawConnection::from_fd(one.into()).unwrap(), RawConnection::from_fd(two.into()).unwrap());
    [RawConnection::pair().unwrap(), stream]
}

fn value(number: usize) -> Vec<u8> {
    let length = [0, 10, 70_000, 1_000_000][number % 4] + number;
    (0..length).map(|place| (place % 251) as u8 ^ number as u8).collect()
}

// ---- connections

#[test]
fn connections_do_what_the_blocking_verbs_do() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let (mut ours, mut theirs) = Connection::<Vec<u8>, usize>::pair().unwrap();
            assert!(!ours.future().poll(SOON).await.unwrap());
            let late = ours.future().recv_timeout(SOON).await.unwrap_err();
            assert_eq!(late.to_string(), "timed out: nothing has come");
            for number in 0..8 {
                let echo = async {
                    let value = theirs.future().recv().await?;
                    theirs.future().send(&value.len()).await
                };
                let ask = async {
                    ours.future().send(&value(number)).await?;
                    assert!(ours.future().poll(LONG).await?);
                    ours.future().recv().await
                };
                let (echoed, asked) = both(echo, ask).await;
                echoed.unwrap();
                assert_eq!(asked.unwrap(), value(number).len());
            }
            // Nobody reads: a part is out, and its rest goes before the next.
            let late = ours.future().send_timeout(&vec![7; 3_000_000], SOON).await.unwrap_err();
            assert!(late.is_timeout() && ours.is_sending(), "{late}");
            let late = ours.future().flush_timeout(SOON).await.unwrap_err();
            assert!(late.is_timeout() && ours.is_sending(), "{late}");
            let refused = ours.future().send_timeout(&vec![8], SOON).await.unwrap_err();
            assert!(refused.is_timeout() && !ours.is_sending(), "{refused}");
            let (mut sender, _receiver) = ours.split();
            let mut incoming = theirs.incoming().future();
            let (sent, came) = both(
                async {
                    sender.future().flush().await?;
                    sender.future().send(&vec![9]).await?;
                    sender.finish()
                },
                async { [incoming.next().await, incoming.next().await, incoming.next().await] },
            )
            .await;
            sent.unwrap();
            let came = came.map(|item| item.map(|value| value.unwrap().len()));
            assert_eq!(came, [Some(3_000_000), Some(1), None]);
            assert!(theirs.future().recv().await.unwrap_err().kind() == ErrorKind::Ended);
            assert!(theirs.future().poll(Duration::ZERO).await.unwrap());

            for (mut one, mut two) in raw_pairs() {
                let mut buffer = Vec::new();
                assert!(!two.future().poll(SOON).await.unwrap());
                assert!(two.future().recv_bytes_timeout(SOON).await.unwrap_err().is_timeout());
                let (sent, came) = both(
                    async {
                        one.future().send_bytes(&value(3)).await?;
                        one.future().send_bytes_timeout(b"second", LONG).await
                    },
                    async {
                        let first = two.future().recv_bytes().await?;
                        two.future().recv_bytes_into(&mut buffer).await?;
                        Ok::<_, procession::Error>(first)
                    },
                )
                .await;
                sent.unwrap();
                assert!(came.unwrap() == value(3) && buffer == b"second");
                assert!(one.future().send_bytes_timeout(&vec![0; 3_000_000], SOON).await.unwrap_err().is_timeout());
                assert!(one.is_sending() && one.future().flush_timeout(SOON).await.unwrap_err().is_timeout());
                let (flushed, came) = both(one.future().flush(), two.future().recv_bytes()).await;
                flushed.unwrap();
                assert_eq!(came.unwrap().len(), 3_000_000);
                drop(two);
                assert_eq!(one.future().send_bytes(b"late").await.unwrap_err().kind(), ErrorKind::Ended);
            }
        });
    });
}

/// Sends each of them, whatever has to be tried how often: what is out in part is finished, what is not is sent again.
async fn send_all(raw: &mut RawConnection, count: usize, polls: usize) -> usize {
    let mut drops = 0;
    for number in 0..count {
        let value = value(number);
        loop {
            match at_most(polls, raw.future().send_bytes(&value)).await {
                Some(sent) => break sent.unwrap(),
                None => drops += 1,
            }
            if raw.is_sending() {
                while at_most(polls, raw.future().flush()).await.is_none() {
                    drops += 1;
                }
                break;
            }
        }
    }
    drops
}

#[test]
fn messages_dropped_at_any_point_are_neither_lost_nor_torn() {
    const COUNT: usize = 8;
    alone!(after ready, {
        on_all_runtimes(|| async {
            for polls in [1, 2, 3, 5, 100_000] {
                for (mut one, mut two) in raw_pairs() {
                    let receive = async {
                        let mut drops = 0;
                        for number in 0..COUNT {
                            let came = loop {
                                match at_most(polls, two.future().recv_bytes()).await {
                                    Some(came) => break came.unwrap(),
                                    None => drops += 1,
                                }
                            };
                            assert!(came == value(number), "message {number} with {polls} polls each");
                        }
                        drops
                    };
                    let (sending, receiving) = both(send_all(&mut one, COUNT, polls), receive).await;
                    if polls == 1 {
                        assert!(sending > 0 && receiving > 0, "nothing was dropped");
                    }
                    assert!(two.try_recv_bytes().unwrap().is_none());
                }
            }
        });
    });
}

#[test]
fn the_blocking_verb_goes_on_where_a_dropped_future_stopped() {
    alone!({
        for (mut one, mut two) in raw_pairs() {
            let whole = vec![5; 2_000_000];
            block_on(async {
                assert!(at_most(1, one.future().send_bytes(&whole)).await.is_none());
                assert!(one.is_sending());
                // It takes what is there, and the rest is missing.
                assert!(at_most(1, two.future().recv_bytes()).await.is_none());
            })
            .unwrap();
            thread::scope(|threads| {
                threads.spawn(|| one.flush().unwrap());
                assert!(two.recv_bytes().unwrap() == whole);
            });
        }
    });
}

#[test]
fn descriptors_arrive_once_although_their_message_has_to_wait() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            // The one before it is out, or in part.
            for length in [100_000, 300_000] {
                arrives_once(length).await;
            }
        });
    });
}

async fn arrives_once(length: usize) {
    let (mut ours, mut theirs) = Connection::<(Vec<u8>, Option<Descriptor>), ()>::pair().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    // Until the kernel takes no more.
    let mut before = 0;
    while at_most(1, ours.future().send(&(vec![1; length], None))).await.is_some() {
        before += 1;
    }
    let is_begun = ours.is_sending();
    let descriptor = Descriptor::from(OwnedFd::from(writer));
    let message = (b"beside".to_vec(), Some(descriptor));
    assert!(at_most(1, ours.future().send(&message)).await.is_none());
    assert!(!ours.is_sending(), "the earlier one is first");
    let expected = before + usize::from(is_begun);
    let receive = async {
        for _ in 0..expected {
            assert!(theirs.future().recv().await?.1.is_none());
        }
        theirs.future().recv().await
    };
    let (sent, came) = both(ours.future().send(&message), receive).await;
    sent.unwrap();
    drop(message);
    let came = came.unwrap().1.unwrap().into_owned_fd();
    File::from(came).write_all(b"through").unwrap();
    let mut text = String::new();
    // Its end comes when nobody has another copy.
    File::from(OwnedFd::from(reader)).read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

#[test]
fn many_connections_on_one_thread() {
    alone!({
        let sum = Cell::new(0);
        scope(|scope| {
            for number in 0..200_u64 {
                let (mut ours, mut theirs) = Connection::<u64, u64>::pair().unwrap();
                scope.spawn(async move {
                    while let Ok(number) = theirs.future().recv().await {
                        theirs.future().send(&(number * 2)).await.unwrap();
                    }
                });
                let sum = &sum;
                scope.spawn(async move {
                    for round in 0..5 {
                        ours.future().send(&(number + round)).await.unwrap();
                        let doubled = ours.future().recv().await.unwrap();
                        sum.set(sum.get() + doubled);
                    }
                });
            }
        })
        .unwrap();
        assert_eq!(sum.get(), 2 * (0..200_u64).map(|number| 5 * number + 10).sum::<u64>());
    });
}

// ---- listeners

#[test]
fn whoever_connects_is_let_in_wherever_a_future_is_dropped() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let mut listener = Listener::new().unwrap();
            let path = listener.path().unwrap().to_owned();
            assert!(listener.future().accept_raw_timeout(SOON).await.unwrap_err().is_timeout());
            let clients = thread::spawn(move || {
                (0..20_u8).for_each(|number| Connection::<u8, u8>::connect(&path).unwrap().send(&number).unwrap());
            });
            for expected in 0..20 {
                let mut connection = loop {
                    if let Some(accepted) = at_most(1, listener.future().accept::<u8, u8>()).await {
                        break accepted.unwrap();
                    }
                };
                assert_eq!(connection.future().recv().await.unwrap(), expected);
            }
            clients.join().unwrap();
            let mut client = RawConnection::connect(listener.path().unwrap()).unwrap();
            client.send_bytes(b"raw").unwrap();
            let mut server = listener.future().accept_raw().await.unwrap();
            assert_eq!(server.future().recv_bytes_timeout(LONG).await.unwrap(), b"raw");
        });
    });
}

#[test]
fn proofs_over_tcp_go_on_wherever_a_future_is_dropped() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let key = [7; 32];
            let mut listener = Listener::tcp("127.0.0.1:0", &key).unwrap();
            let address = listener.address().unwrap();
            let clients = thread::spawn(move || {
                (0..5).map(|_| Connection::<(), u8>::connect_tcp(address, &key)?.recv()).collect::<Result<Vec<_>, _>>()
            });
            for number in 0..5 {
                let mut connection = loop {
                    if let Some(accepted) = at_most(1, listener.future().accept_timeout::<u8, ()>(LONG)).await {
                        break accepted.unwrap();
                    }
                };
                connection.future().send(&number).await.unwrap();
            }
            assert_eq!(clients.join().unwrap().unwrap(), [0, 1, 2, 3, 4]);

            // Who says nothing is sent away in time, although nothing happens.
            let mut listener = listener.handshake_timeout(Duration::from_millis(30));
            let silent = TcpStream::connect(address).unwrap();
            let error = listener.future().accept::<u8, u8>().await.unwrap_err();
            assert!(error.to_string().contains("it has proved nothing within 30ms"), "{error}");
            drop(silent);
        });
    });
}

// ---- processes

#[test]
fn processes_are_joined() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let mut process = Process::start(|text: String| text.repeat(100_000), "abc".to_owned()).unwrap();
            assert_eq!(process.future().join().await.unwrap().len(), 300_000);
            // Once more, and by the other verb.
            assert_eq!(process.future().join_timeout(LONG).await.unwrap().len(), 300_000);
            assert_eq!(process.join().unwrap().len(), 300_000);

            let mut process = Process::start(|()| -> u8 { panic!("on purpose") }, ()).unwrap();
            let error = process.future().join().await.unwrap_err();
            assert_eq!(error.panic().unwrap().message(), "on purpose");
            assert_eq!(process.future().wait().await.unwrap().code(), Some(101));

            let mut process = Process::start(thread::sleep, FOREVER).unwrap();
            let blocking = process.join_timeout(SOON).unwrap_err().to_string();
            let late = process.future().join_timeout(SOON).await.unwrap_err();
            assert!(late.is_timeout() && process.is_alive());
            assert_eq!(late.to_string(), blocking);
            assert!(process.future().wait_timeout(SOON).await.unwrap().is_none());
            let _ = process.future().stop(&Stop::kill()).await.unwrap();
            let error = process.future().join().await.unwrap_err().to_string();
            assert!(error.contains("sent by this program, before the function had returned"), "{error}");

            let other = Process::builder(|()| (), ()).configure(|command| command.executable("sleep").arg("1000"));
            let mut process = other.arrival_timeout(Duration::from_millis(50)).start().unwrap();
            let error = process.future().join().await.unwrap_err();
            assert!(error.to_string().contains("had not come to its function after 50ms, and was killed"), "{error}");
            assert!(!process.is_alive());
        });
    });
}

#[test]
fn a_join_that_is_dropped_at_any_point_can_be_done_again() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            for polls in 1..5 {
                let mut process = Process::start(|length: usize| vec![3_u8; length], 200_000).unwrap();
                let joined = loop {
                    if let Some(joined) = at_most(polls, process.future().join()).await {
                        break joined;
                    }
                };
                assert_eq!(joined.unwrap().len(), 200_000);
            }
        });
    });
}

// ---- pools

fn square(number: u64) -> u64 {
    number * number
}

#[test]
fn a_pool_of_processes_does_what_it_does_for_threads() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let pool = ProcessPool::new(2).unwrap();
            let future = pool.future();
            assert_eq!(future.apply(square, 12).await.unwrap(), 144);
            let squares: Vec<u64> = (0..2_000).map(square).collect();
            assert_eq!(pool.future().map(square, 0..2_000).await.unwrap(), squares);
            let (mut results, mut came) = (pool.future().imap_unordered(square, 0..2_000), Vec::new());
            while let Some(result) = results.next().await {
                came.push(result.unwrap());
            }
            assert!(results.is_over());
            came.sort_unstable();
            assert_eq!(came, squares);
            let error = pool.future().map(|number: u64| 10 / number, [1, 0, 2]).await.unwrap_err();
            assert!(error.panic().is_some(), "{error}");
            assert_eq!(pool.future().join().await.unwrap_err().kind(), ErrorKind::InvalidInput);

            let pending = pool.apply_async(square, 5).unwrap();
            assert!(pending.future().wait_timeout(LONG).await && pending.is_done());
            assert_eq!(pending.future().get().await.unwrap(), 25);
            assert!(pending.future().get().await.unwrap_err().is_invalid_input(), "it was taken");
            let pending = pool.apply_async(thread::sleep, FOREVER).unwrap();
            assert!(!pending.future().wait_timeout(SOON).await);
            pool.close();
            let late = pool.future().join_timeout(SOON).await.unwrap_err();
            assert!(late.is_timeout() && late.to_string() == pool.join_timeout(SOON).unwrap_err().to_string());
            pool.terminate();
            assert!(pending.future().get().await.unwrap_err().is_cancelled());
            pool.future().join().await.unwrap();
            pool.future().join_timeout(SOON).await.unwrap();
        });
    });
}

#[test]
fn results_of_processes_are_not_lost_wherever_a_future_is_dropped() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let pool = ProcessPool::new(2).unwrap();
            for polls in 1..4 {
                let (mut results, mut came) = (pool.future().imap(square, 0..50), Vec::new());
                while !results.is_over() {
                    came.extend(at_most(polls, results.next()).await.flatten().transpose().unwrap());
                    came.extend(results.next_timeout(Duration::ZERO).await.transpose().unwrap());
                }
                assert_eq!(came, (0..50).map(square).collect::<Vec<_>>());
                let pending = pool.apply_async(square, 9).unwrap();
                let got = loop {
                    if let Some(got) = at_most(polls, pending.future().get()).await {
                        break got;
                    }
                };
                assert_eq!(got.unwrap(), 81);
            }
        });
    });
}

#[test]
fn whoever_goes_away_cancels_what_it_has_asked_for() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let pool = ProcessPool::new(1).unwrap();
            // One worker: whatever is not cancelled is in the way for ever.
            assert!(at_most(1, pool.future().apply(thread::sleep, FOREVER)).await.is_none());
            assert_eq!(pool.future().apply(square, 3).await.unwrap(), 9);
            assert!(at_most(1, pool.future().map(thread::sleep, [FOREVER; 3])).await.is_none());
            assert_eq!(pool.future().apply(square, 4).await.unwrap(), 16);

            let lines = Command::shell("while read -r word; do [ $word = long ] && sleep 600; echo $word; done");
            let pool = WorkerPool::new(1, lines).unwrap();
            assert!(at_most(1, pool.future().apply("long")).await.is_none());
            assert_eq!(pool.future().apply_text("short").await.unwrap(), "short");
            assert!(at_most(1, pool.future().map(["long", "long"])).await.is_none());
            assert_eq!(pool.future().apply_text("short").await.unwrap(), "short");
        });
    });
}

#[test]
fn a_pool_of_commands_does_what_it_does_for_threads() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let lines = Command::shell("while read -r word; do [ $word = long ] && sleep 600; echo $word$word; done");
            let pool = WorkerPool::new(2, lines).unwrap();
            let requests = || (0..300).map(|number| number.to_string());
            let doubled: Vec<String> = requests().map(|text| text.repeat(2)).collect();
            assert_eq!(pool.future().apply("a").await.unwrap(), b"aa");
            assert_eq!(pool.future().map(["a", "b"]).await.unwrap(), [b"aa", b"bb"]);
            assert_eq!(pool.future().map_text(requests()).await.unwrap(), doubled);
            for in_order in [true, false] {
                let future = pool.future();
                let mut replies = if in_order { future.imap(requests()) } else { future.imap_unordered(requests()) };
                let mut came = Vec::new();
                while !replies.is_over() {
                    let reply = at_most(1, replies.next()).await.flatten().transpose().unwrap();
                    came.extend(reply.map(|reply| String::from_utf8(reply).unwrap()));
                    let reply = replies.next_timeout(SOON).await.transpose().unwrap();
                    came.extend(reply.map(|reply| String::from_utf8(reply).unwrap()));
                }
                let mut expected = doubled.clone();
                if !in_order {
                    came.sort_unstable();
                    expected.sort_unstable();
                }
                assert_eq!(came, expected);
            }
            let pending = pool.apply_async("c").unwrap();
            assert!(pending.future().wait_timeout(LONG).await);
            assert_eq!(pending.future().get_text().await.unwrap(), "cc");
            assert!(pending.future().get().await.unwrap_err().is_invalid_input(), "it was taken");
            let pending = pool.apply_async("long").unwrap();
            assert!(!pending.future().wait_timeout(SOON).await);
            assert!(pool.future().join().await.unwrap_err().is_invalid_input());
            pool.terminate();
            assert!(pending.future().get().await.unwrap_err().is_cancelled());
            pool.future().join().await.unwrap();
        });
    });
}

// ---- signs

#[test]
fn events_are_waited_for() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let event = Event::new().unwrap();
            assert!(!event.future().wait_timeout(SOON).await.unwrap());
            let setter = |event: Event| {
                thread::sleep(Duration::from_millis(20));
                event.set();
            };
            let mut process = Process::start(setter, event.clone()).unwrap();
            assert!(at_most(1, event.future().wait()).await.is_none());
            event.future().wait().await.unwrap();
            process.future().join().await.unwrap();
            assert!(event.future().wait_timeout(Duration::ZERO).await.unwrap());
            event.clear();
            assert!(!event.future().wait_timeout(SOON).await.unwrap());
            // Somebody has died after the flag and before the descriptor: the one that is too loud is silenced, and nobody runs in circles.
            let [_, bell] = event.as_fds().map(|fd| fd.try_clone_to_owned().unwrap());
            File::from(bell).write_all(&1_u64.to_ne_bytes()).unwrap();
            let set = async {
                sleep(SOON).await;
                event.set();
            };
            assert!(both(event.future().wait_timeout(Duration::from_millis(500)), set).await.0.unwrap());
        });
        // All tasks of a thread wait for the same descriptor.
        let event = Event::new().unwrap();
        let count = Cell::new(0);
        scope(|scope| {
            for _ in 0..100 {
                scope.spawn(async {
                    event.future().wait().await.unwrap();
                    count.set(count.get() + 1);
                });
            }
            scope.block_on(sleep(SOON)).unwrap();
            assert_eq!(count.get(), 0);
            event.set();
        })
        .unwrap();
        assert_eq!(count.get(), 100);
    });
}

#[test]
fn permits_are_taken_and_those_of_the_dead_come_back() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let permits = Semaphore::new(1).unwrap();
            let first = permits.future().acquire().await.unwrap();
            assert!(permits.future().acquire_timeout(SOON).await.unwrap().is_none());
            assert!(at_most(1, permits.future().acquire()).await.is_none());
            drop(first);
            drop(permits.future().acquire_timeout(LONG).await.unwrap().unwrap());

            let begun = Event::new().unwrap();
            let hold = |(permits, begun): (Semaphore, Event)| {
                let _permit = permits.acquire();
                begun.set();
                thread::sleep(FOREVER);
            };
            let mut process = Process::start(hold, (permits.clone(), begun.clone())).unwrap();
            begun.future().wait().await.unwrap();
            assert!(permits.future().acquire_timeout(SOON).await.unwrap().is_none());
            let kill = async {
                sleep(SOON).await;
                process.kill().unwrap();
                process.future().wait().await.unwrap();
            };
            let (permit, ()) = both(permits.future().acquire_timeout(LONG), kill).await;
            drop(permit.unwrap().expect("the permit of the dead"));
        });
        // No more than there may be at the same time, and each has its turn.
        let permits = Semaphore::new(3).unwrap();
        let (now, most, done) = (Cell::new(0), Cell::new(0), Cell::new(0));
        scope(|scope| {
            for _ in 0..50 {
                scope.spawn(async {
                    let _permit = permits.future().acquire().await.unwrap();
                    now.set(now.get() + 1);
                    most.set(most.get().max(now.get()));
                    sleep(Duration::from_millis(1)).await;
                    now.set(now.get() - 1);
                    done.set(done.get() + 1);
                });
            }
        })
        .unwrap();
        assert_eq!((most.get(), done.get(), permits.value()), (3, 50, 3));
    });
}

#[test]
fn packets_are_put_and_got() {
    alone!(after ready, {
        on_all_runtimes(|| async {
            let (sender, receiver) = packet_queue().unwrap();
            let mut message = Vec::new();
            assert!(matches!(receiver.future().get_timeout(&mut message, SOON).await, Err(GetError::Empty)));
            assert!(at_most(1, receiver.future().get(&mut message)).await.is_none());
            let mut full = 0;
            while at_most(1, sender.future().put(&[full; 4096])).await.is_some() {
                full += 1;
            }
            assert!(matches!(sender.future().put_timeout(b"x", SOON).await, Err(PutError::Full(()))));
            let put = async {
                for number in full..100 {
                    while at_most(1, sender.future().put(&[number; 4096])).await.is_none() {}
                }
                sender.future().put(b"last").await
            };
            let get = async {
                for number in 0..100 {
                    while at_most(1, receiver.future().get(&mut message)).await.is_none() {}
                    assert_eq!(message, [number; 4096]);
                }
                receiver.future().get(&mut message).await
            };
            let (put, got) = both(put, get).await;
            put.unwrap();
            got.unwrap();
            assert_eq!(message, b"last");
            drop(sender);
            assert!(matches!(receiver.future().get(&mut message).await, Err(GetError::Closed)));
        });
    });
}
