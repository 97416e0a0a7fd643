//! Several tasks as one: joined, killed, bounded, mapped.

use crate::support::alone;
use procession::future::{Ended, Group, idle, iwait, joinall, killall, scope, sleep};
use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(3);
const LONG: Duration = Duration::from_secs(60);

fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| ()));
}

async fn after(millis: u64) -> u64 {
    sleep(Duration::from_millis(millis)).await;
    millis
}

#[test]
fn tasks_are_joined_in_the_order_of_their_ends() {
    alone!({
        scope(|scope| {
            let tasks = [40, 1, 20].map(|millis| scope.spawn(after(millis)));
            scope
                .block_on(async {
                    let first = joinall(&tasks, None, Some(1)).await;
                    assert_eq!(first.iter().map(|task| task.value()).collect::<Vec<_>>(), [Some(1)]);
                    let all = joinall(&tasks, LONG, None).await;
                    assert_eq!(all.iter().map(|task| task.value()).collect::<Vec<_>>(), [Some(1), Some(20), Some(40)]);
                    let (mut ends, mut count) = (iwait(&tasks), 0);
                    while ends.next().await.is_some() {
                        count += 1;
                    }
                    assert_eq!(count, 3);
                    let never = [scope.spawn(pending::<()>()), scope.spawn(pending())];
                    assert!(joinall(&never, SHORT, None).await.is_empty());
                    assert!(killall(&never, None).await);
                    assert!(never.iter().all(|task| task.failure() == Some(Ended::Killed)));
                })
                .unwrap();
        })
        .unwrap();
    });
}

#[test]
fn thousands_of_tasks_are_joined_one_by_one() {
    alone!({
        let sum = scope(|scope| {
            let tasks: Vec<_> =
                (0..5000_u64).map(|number| scope.spawn(async move { after(number % 7).await })).collect();
            scope.block_on(async {
                let (mut ends, mut sum) = (iwait(&tasks), 0);
                while let Some(task) = ends.next().await {
                    sum += task.value().unwrap();
                }
                sum
            })
        });
        assert_eq!(sum.unwrap().unwrap(), (0..5000).map(|number| number % 7).sum::<u64>());
    });
}

#[test]
fn a_group_with_a_size_lets_in_as_many() {
    alone!({
        let (inside, most) = (Cell::new(0), Cell::new(0));
        scope(|scope| {
            let group = Group::with_size(scope, 3);
            assert_eq!((group.free_count(), group.full(), group.is_empty()), (3, false, true));
            scope
                .block_on(async {
                    for _ in 0..10 {
                        let (inside, most) = (&inside, &most);
                        group
                            .spawn(async move {
                                inside.set(inside.get() + 1);
                                most.set(most.get().max(inside.get()));
                                sleep(SHORT).await;
                                inside.set(inside.get() - 1);
                            })
                            .await;
                    }
                    assert!(group.join(None).await && group.free_count() == 3);
                    for _ in 0..3 {
                        group.spawn(sleep(SHORT)).await;
                    }
                    assert!(group.full() && group.len() == 3);
                    assert!(group.spawn_nowait(async {}).is_err());
                    assert!(!group.join(Duration::ZERO).await);
                    group.wait_available().await;
                    group.spawn_nowait(async {}).map_err(|_| ()).unwrap().await.unwrap();
                    assert!(group.join(None).await && group.free_count() == 3);
                    assert_eq!(group.apply(async { 5 }).await, Ok(5));
                })
                .unwrap();
        })
        .unwrap();
        assert_eq!(most.get(), 3);
    });
}

#[test]
fn maps_keep_order_or_not_and_look_ahead_so_far() {
    alone!({
        let started = Cell::new(0_u64);
        let said = RefCell::new(Vec::new());
        scope(|scope| {
            let group = Group::with_size(scope, 4);
            let work = async |millis: u64| {
                started.set(started.get() + 1);
                after(millis).await
            };
            scope
                .block_on(async {
                    assert_eq!(group.map([9, 1, 5], work).await, Ok(vec![9, 1, 5]));
                    let mut results = group.imap([9, 1, 5], 2, work);
                    let mut all = Vec::new();
                    while let Some(result) = results.next().await {
                        all.push(result.unwrap());
                    }
                    assert_eq!(all, [9, 1, 5]);
                    started.set(0);
                    let mut results = group.imap_unordered([50, 1, 25, 1, 1], 3, work);
                    assert_eq!(results.next().await, Some(Ok(1)));
                    assert_eq!(started.get(), 3);
                    let mut rest = Vec::new();
                    while let Some(result) = results.next().await {
                        rest.push(result.unwrap());
                    }
                    assert_eq!((rest.len(), rest.last()), (4, Some(&50)));
                    // A slow one at the front does not keep the group from being full.
                    started.set(0);
                    let mut results = Group::with_size(scope, 2).imap([100, 1, 1, 1, 1], 5, work);
                    assert_eq!(results.next().await, Some(Ok(100)));
                    assert_eq!(started.get(), 5);
                    group.apply_async(after(1), |millis| said.borrow_mut().push(millis)).await.await.unwrap();
                })
                .unwrap();
        })
        .unwrap();
        assert_eq!(said.into_inner(), [1]);
    });
}

#[test]
fn a_map_tells_the_first_failure_and_goes_on() {
    alone!({
        quiet_panics();
        scope(|scope| {
            let group = Group::new(scope);
            let work = async |number: i32| if number == 2 { panic!("two") } else { number };
            scope
                .block_on(async {
                    let result = group.map([1, 2, 3], work).await;
                    assert_eq!(result, Err(Ended::Panicked("two".to_owned())));
                    let mut results = group.imap([1, 2, 3], 1, work);
                    assert_eq!(results.next().await, Some(Ok(1)));
                    assert_eq!(results.next().await, Some(Err(Ended::Panicked("two".to_owned()))));
                    assert_eq!((results.next().await, results.next().await), (Some(Ok(3)), None));
                })
                .unwrap();
        })
        .unwrap();
        let _ = std::panic::take_hook();
    });
}

#[test]
fn the_first_failure_kills_the_rest_if_that_was_wanted() {
    alone!({
        quiet_panics();
        scope(|scope| {
            let group = Group::new(scope).kill_at_failure();
            scope
                .block_on(async {
                    let sleeper = group.spawn(sleep(LONG)).await;
                    group
                        .spawn(async {
                            if true {
                                panic!("first")
                            }
                        })
                        .await;
                    assert_eq!(group.join_or_failure(None).await, Err(Ended::Panicked("first".to_owned())));
                    assert_eq!(sleeper.await, Err(Ended::Killed));
                    // Others go on.
                    let patient = Group::new(scope);
                    let slow = patient.spawn(after(5)).await;
                    patient.spawn_fallible(async { Err::<(), _>("no") }).await;
                    assert_eq!(patient.join_or_failure(LONG).await, Err(Ended::Failed("no".to_owned())));
                    assert_eq!(slow.await, Ok(5));
                })
                .unwrap();
        })
        .unwrap();
        // A panic in a group that nobody asks goes on at the end.
        let panic = catch_unwind(AssertUnwindSafe(|| {
            scope(|scope| {
                let group = Group::new(scope);
                scope.block_on(async {
                    group
                        .spawn(async {
                            if true {
                                panic!("unheard")
                            }
                        })
                        .await;
                    assert!(group.join(None).await);
                })
            })
        }));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"unheard"));
        let _ = std::panic::take_hook();
    });
}

#[test]
fn a_group_is_killed_as_a_whole_or_one_by_one() {
    alone!({
        scope(|scope| {
            let group = Group::with_size(scope, 10);
            scope
                .block_on(async {
                    let one = group.spawn(sleep(LONG)).await;
                    let other = group.spawn(sleep(LONG)).await;
                    idle().await;
                    assert!(group.killone(&one, LONG).await);
                    assert!(one.ready() && !other.ready() && group.len() == 1);
                    group.kill();
                    assert!(group.join(LONG).await && other.ready() && group.free_count() == 10);
                    assert_eq!(group.failure(), None);
                })
                .unwrap();
        })
        .unwrap();
    });
}
