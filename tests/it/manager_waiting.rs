//! What clients wait for in a manager: locks that are taken again, conditions, barriers, permits, the end of all jobs; and what a client that is killed
//! leaves of them.

use crate::support::{alone, wait_for};
use procession::ipc::manager::{AcquireError, Barrier, Cell, Condition, Lock, Queue, RLock, Semaphore};
use procession::ipc::{BrokenBarrier, Event, Manager, Process};
use std::collections::HashSet;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_set_has_each_item_once() {
    alone!({
        let manager = Manager::start().unwrap();
        let set = manager.set::<u32>().unwrap();
        let added: Vec<bool> = [1, 2, 1, 3].iter().map(|item| set.insert(item).unwrap()).collect();
        assert_eq!((added, set.len().unwrap()), (vec![true, true, false, true], 3));
        assert!(set.contains(&2).unwrap() && !set.contains(&4).unwrap());
        assert!(set.remove(&2).unwrap() && !set.remove(&2).unwrap());
        let more = |set: &mut HashSet<u32>, more: Vec<u32>| set.extend(more);
        set.update(more, vec![3, 4]).unwrap();
        assert_eq!(set.to_set().unwrap(), HashSet::from([1, 3, 4]));
        set.clear().unwrap();
        assert!(set.is_empty().unwrap());
    });
}

#[test]
fn an_array_stays_as_long_as_it_was() {
    alone!({
        let manager = Manager::start().unwrap();
        let row = manager.array([1_u16, 2, 3]).unwrap();
        assert_eq!((row.set(0, &7).unwrap(), row.get(0).unwrap(), row.len().unwrap()), (1, 7, 3));
        let error = row.set(3, &7).unwrap_err();
        assert_eq!(error.to_string(), "there is no place 3 in an array of 3");
        assert!(row.get(u64::MAX).unwrap_err().is_invalid_input() && !row.is_empty().unwrap());
        row.update(|row, ()| row.reverse(), ()).unwrap();
        assert_eq!(row.to_vec().unwrap(), [3, 2, 7]);
        assert!(manager.array(Vec::<u8>::new()).unwrap().is_empty().unwrap());
    });
}

fn hold((lock, permits, holds): (RLock, Semaphore, Event)) {
    let _guards = [lock.lock().unwrap(), lock.lock().unwrap()];
    let _permits = [permits.acquire().unwrap(), permits.acquire().unwrap()];
    holds.set();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_lock_that_is_taken_again_belongs_to_a_thread() {
    alone!({
        let manager = Manager::start().unwrap();
        let lock = manager.rlock().unwrap();
        let outer = lock.lock().unwrap();
        let inner = lock.clone().lock_timeout(LONG).unwrap();
        let elsewhere = || std::thread::scope(|scope| scope.spawn(|| lock.lock_timeout(SHORT).is_ok()).join().unwrap());
        assert!(!elsewhere());
        drop(outer);
        assert!(!elsewhere() && lock.is_locked().unwrap());
        drop(inner);
        assert!(elsewhere() && !lock.is_locked().unwrap());
        // Whoever dies with it, however often it had it, leaves it once.
        let (permits, holds) = (manager.semaphore(2).unwrap(), Event::new().unwrap());
        let mut holder = Process::start(hold, (lock.clone(), permits.clone(), holds.clone())).unwrap();
        assert!(holds.wait_timeout(LONG));
        assert!(lock.lock_timeout(SHORT).unwrap_err().is_timeout());
        holder.kill().unwrap();
        match lock.lock_timeout(LONG) {
            Err(AcquireError::OwnerDied(died)) => drop((died.into_inner(), lock.lock().unwrap())),
            other => panic!("{other:?}"),
        }
        drop(lock.lock().unwrap());
        drop([permits.acquire_timeout(LONG).unwrap(), permits.acquire_timeout(LONG).unwrap()]);
        assert_eq!(permits.available().unwrap(), 2);
        holder.wait().unwrap();
    });
}

#[test]
fn permits_are_made_and_kept() {
    alone!({
        let manager = Manager::start().unwrap();
        let bounded = manager.bounded_semaphore(1).unwrap();
        assert!(bounded.release(1).unwrap_err().is_invalid_input());
        bounded.acquire().unwrap().forget();
        assert_eq!(bounded.available().unwrap(), 0);
        bounded.release(1).unwrap();
        assert!(bounded.release(1).is_err() && bounded.release(u64::MAX).is_err());
        drop(bounded.acquire_timeout(LONG).unwrap());
        let any = manager.semaphore(0).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| any.acquire_timeout(LONG).map(|permit| permit.forget()));
            any.release(3).unwrap();
            waits.join().unwrap().unwrap();
        });
        assert_eq!(any.available().unwrap(), 2);
        assert!(manager.semaphore(u64::MAX).is_err());
    });
}

type Parts = (Lock, Condition, Cell<u32>, Cell<u32>);

/// Takes one item when there is one.
fn consume((lock, changed, items, waiting): Parts) {
    let mut guard = lock.lock().unwrap();
    waiting.update(|waiting, ()| *waiting += 1, ()).unwrap();
    while items.get().unwrap() == 0 {
        guard = changed.wait(guard).unwrap();
    }
    items.update(|items, ()| *items -= 1, ()).unwrap();
}

#[test]
fn a_wake_goes_to_one_that_lives() {
    alone!({
        let manager = Manager::start().unwrap();
        let (lock, changed) = (manager.lock().unwrap(), manager.condition().unwrap());
        let (items, waiting) = (manager.cell(0).unwrap(), manager.cell(0).unwrap());
        let parts = || (lock.clone(), changed.clone(), items.clone(), waiting.clone());
        let start = |count: u32| {
            let process = Process::start(consume, parts()).unwrap();
            // It has the lock from its count on until it waits.
            wait_for("it to wait", || waiting.get().unwrap() == count);
            drop(lock.lock().unwrap());
            process
        };
        let (mut first, mut second, mut third) = (start(1), start(2), start(3));
        // The one that has waited longest is dead, and the manager may not have seen it when it is woken.
        first.kill().unwrap();
        first.wait().unwrap();
        {
            let _guard = lock.lock().unwrap();
            items.set(&1).unwrap();
            changed.notify_one().unwrap();
        }
        second.join_timeout(LONG).unwrap();
        assert_eq!(items.get().unwrap(), 0);
        assert!(third.is_alive());
        items.set(&1).unwrap();
        changed.notify_all().unwrap();
        third.join_timeout(LONG).unwrap();
        let (guard, woken) = changed.wait_timeout(lock.lock().unwrap(), SHORT);
        assert!(!woken && lock.is_locked().unwrap());
        drop(guard.unwrap());
        // Its place is not taken any more: there is nobody to wake, and nothing is kept for later.
        changed.notify_all().unwrap();
        assert!(!changed.wait_timeout(lock.lock().unwrap(), SHORT).1);
    });
}

fn meet((barrier, comes): (Barrier, Cell<bool>)) -> Result<u64, String> {
    comes.set(&true).unwrap();
    barrier.wait().unwrap().map_err(|broken| broken.to_string())
}

#[test]
fn a_barrier_is_broken_by_who_dies_at_it() {
    alone!({
        let manager = Manager::start().unwrap();
        let (barrier, comes) = (manager.barrier(3).unwrap(), manager.cell(false).unwrap());
        let start = || Process::start(meet, (barrier.clone(), comes.clone())).unwrap();
        for _ in 0..3 {
            let (mut one, mut two) = (start(), start());
            let mut numbers = vec![barrier.wait_timeout(LONG).unwrap().unwrap()];
            numbers.extend([one.join_timeout(LONG).unwrap().unwrap(), two.join_timeout(LONG).unwrap().unwrap()]);
            numbers.sort_unstable();
            assert_eq!(numbers, [0, 1, 2]);
        }
        let (mut victim, mut other) = (start(), start());
        wait_for("both", || barrier.waiting().unwrap() == 2);
        victim.kill().unwrap();
        assert_eq!(other.join_timeout(LONG).unwrap(), Err(BrokenBarrier::PartyDied.to_string()));
        assert_eq!(barrier.wait().unwrap(), Err(BrokenBarrier::PartyDied));
        assert!(barrier.is_broken().unwrap());
        victim.wait().unwrap();
        barrier.reset().unwrap();
        let mut other = start();
        wait_for("it", || barrier.waiting().unwrap() == 1);
        assert_eq!(barrier.wait_timeout(SHORT).unwrap(), Err(BrokenBarrier::TimedOut));
        assert_eq!(other.join_timeout(LONG).unwrap(), Err(BrokenBarrier::TimedOut.to_string()));
        barrier.reset().unwrap();
        let mut other = start();
        wait_for("it", || barrier.waiting().unwrap() == 1);
        barrier.reset().unwrap();
        assert_eq!(other.join_timeout(LONG).unwrap(), Err(BrokenBarrier::Reset.to_string()));
        barrier.abort().unwrap();
        assert_eq!(barrier.wait().unwrap(), Err(BrokenBarrier::Aborted));
        assert_eq!(barrier.parties().unwrap(), 3);
        assert!(manager.barrier(0).unwrap_err().is_invalid_input());
    });
}

#[test]
fn the_end_of_all_jobs_is_waited_for() {
    alone!({
        let manager = Manager::start().unwrap();
        let jobs = manager.queue::<u32>(4).unwrap();
        let work = |jobs: Queue<u32>| {
            for _ in 0..10 {
                jobs.get().unwrap();
                jobs.task_done().unwrap();
            }
        };
        let mut workers = [(); 2].map(|()| Process::start(work, jobs.clone()).unwrap());
        (0..20).for_each(|job| jobs.put(&job).unwrap());
        jobs.join().unwrap();
        assert_eq!((jobs.unfinished_tasks().unwrap(), jobs.len().unwrap()), (0, 0));
        assert!(jobs.task_done().unwrap_err().is_invalid_input());
        workers.iter_mut().for_each(|worker| worker.join_timeout(LONG).unwrap());
        jobs.put(&1).unwrap();
        jobs.get().unwrap();
        assert!(jobs.join_timeout(SHORT).unwrap_err().is_timeout());
    });
}
