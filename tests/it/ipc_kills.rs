//! Somebody is killed at any moment, again and again: nothing is lost, nobody hangs. Few times here, thousands with `PROCESSION_TEST_KILLS=10000`. Locks,
//! semaphores, events and conditions: see `ipc_sync.rs`; queues: `ipc_queue.rs`.

use crate::support::{alone, kills, wait_for};
use procession::ipc::manager::{self, AcquireError, Condition, Dict, Lock, LockGuard, RLock, Semaphore};
use procession::ipc::{Barrier, BrokenBarrier, Event, Manager, Process, ProcessPool, Value};
use std::collections::HashMap;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(20);

/// A number below `end`, another one each time.
fn random(end: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() % end
}

fn pause(micros: u64) {
    std::thread::sleep(Duration::from_micros(random(micros)));
}

fn meet((barrier, here): (Barrier, Event)) -> Result<usize, String> {
    here.set();
    barrier.wait_timeout(BOUND).map_err(|broken| broken.to_string())
}

/// All who wait at a barrier are told the same: it was passed by all, or somebody has died.
#[test]
fn a_barrier_is_passed_by_all_or_by_nobody() {
    alone!({
        let (mut passed, mut broken) = (0, 0);
        for _ in 0..kills(30) {
            let (barrier, here) = (Barrier::new(3).unwrap(), Event::new().unwrap());
            let start = |here: &Event| Process::start(meet, (barrier.clone(), here.clone())).unwrap();
            let mut other = start(&Event::new().unwrap());
            let mut victim = start(&here);
            assert!(here.wait_timeout(BOUND));
            let mine = std::thread::scope(|scope| {
                let mine = scope.spawn(|| {
                    pause(300);
                    barrier.wait_timeout(BOUND)
                });
                pause(500);
                victim.kill().unwrap();
                mine.join().unwrap()
            });
            let theirs = other.join_timeout(BOUND).unwrap();
            match mine {
                Ok(_) => assert!(theirs.is_ok(), "{mine:?} {theirs:?}"),
                Err(why) => {
                    assert_eq!(why, BrokenBarrier::PartyDied);
                    assert_eq!(theirs, Err(why.to_string()));
                }
            }
            *if mine.is_ok() { &mut passed } else { &mut broken } += 1;
            victim.wait().unwrap();
        }
        eprintln!("{passed} times passed, {broken} times broken");
    });
}

/// Each task of a pool is answered: with its result, or with the death of the worker that had it.
#[test]
fn every_task_of_a_pool_is_answered() {
    alone!({
        let pool = ProcessPool::new(2).unwrap();
        let task = |number: u64| {
            let until = std::time::Instant::now() + Duration::from_micros(number % 7 * 20);
            while std::time::Instant::now() < until {}
            (number, std::process::id())
        };
        let mut worker = pool.apply(task, 0).unwrap().1;
        let (mut done, mut died) = (0, 0);
        for round in 0..kills(50) {
            let tasks: Vec<_> = (0..8).map(|place| pool.apply_async(task, round * 8 + place).unwrap()).collect();
            pause(400);
            kill_worker(worker);
            let mut last = None;
            for (place, task) in tasks.into_iter().enumerate() {
                assert!(task.wait_timeout(BOUND), "never answered");
                match task.get() {
                    Ok((number, pid)) => {
                        assert_eq!(number, round * 8 + place as u64);
                        last = Some(pid);
                        done += 1;
                    }
                    Err(error) => {
                        assert!(error.to_string().contains("SIGKILL"), "{error}");
                        died += 1;
                    }
                }
            }
            worker = last.filter(|pid| *pid != worker).unwrap_or_else(|| {
                loop {
                    match pool.apply(task, 0) {
                        Ok((_, pid)) if pid != worker => break pid,
                        _ => {}
                    }
                }
            });
        }
        eprintln!("{done} tasks done, {died} died with their workers");
        assert!(done > died);
    });
}

fn kill_worker(pid: u32) {
    // It is a child of ours that nobody has waited for, or its number has not come back yet.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL);
}

/// A lock in the manager, and two counters that are the same whenever nobody holds it. They are in memory that is shared: a call of a manager's object
/// may still be carried out when the one that has made it is dead.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Pairs {
    lock: Lock,
    one: Value<u64>,
    two: Value<u64>,
}

impl Pairs {
    /// Looks, and repairs if it was told to.
    fn look(&self, taken: Result<LockGuard, AcquireError>) -> (LockGuard, bool) {
        match taken {
            Ok(guard) => {
                assert_eq!(self.one.get(), self.two.get(), "torn, and not told");
                (guard, false)
            }
            Err(AcquireError::OwnerDied(died)) => {
                self.two.set(self.one.get());
                (died.into_inner(), true)
            }
            Err(AcquireError::Failed(error)) => panic!("the lock hangs: {error}"),
        }
    }
}

/// Everything that a client can hold or wait for in a manager.
type Everything =
    (Pairs, (RLock, Semaphore, Condition), (manager::Queue<u64>, manager::Barrier, Dict<u64, u64>), Event);

/// Does everything, one thing after the other, for ever.
fn use_all((pairs, holds, waits, here): Everything) {
    let ((rlock, permits, changed), (queue, barrier, dict)) = (holds, waits);
    let moment = Duration::from_millis(1);
    for round in 0_u64.. {
        {
            let _guard = pairs.look(pairs.lock.lock());
            pairs.one.fetch_add(1);
            // A call in between takes longer than an instruction.
            let _ = dict.get(&7).unwrap();
            pairs.two.fetch_add(1);
        }
        here.set();
        match rlock.lock() {
            Ok(guard) => drop((rlock.lock().unwrap(), guard)),
            Err(AcquireError::OwnerDied(died)) => drop(died.into_inner()),
            Err(AcquireError::Failed(error)) => panic!("{error}"),
        }
        drop((permits.acquire().unwrap(), permits.acquire_timeout(moment)));
        let _ = (queue.put_timeout(&round, moment), queue.get_timeout(moment));
        let add = |dict: &mut HashMap<u64, u64>, key: u64| *dict.entry(key).or_default() += 1;
        dict.update(add, round % 5).unwrap();
        match round % 3 {
            0 => _ = barrier.wait_timeout(moment).unwrap(),
            1 => {
                let (guard, _) = pairs.look(pairs.lock.lock());
                drop(pairs.look(changed.wait_timeout(guard, moment).0));
            }
            _ => changed.notify_all().unwrap(),
        }
    }
}

#[test]
fn a_manager_outlives_its_clients() {
    alone!({
        let manager = Manager::start().unwrap();
        let (one, two) = (Value::new(0).unwrap(), Value::new(0).unwrap());
        let pairs = Pairs { lock: manager.lock().unwrap(), one, two };
        let (rlock, permits) = (manager.rlock().unwrap(), manager.semaphore(2).unwrap());
        let (changed, queue) = (manager.condition().unwrap(), manager.queue::<u64>(3).unwrap());
        let (barrier, dict) = (manager.barrier(2).unwrap(), manager.dict::<u64, u64>().unwrap());
        let start = || {
            let here = Event::new().unwrap();
            let holds = (rlock.clone(), permits.clone(), changed.clone());
            let waits = (queue.clone(), barrier.clone(), dict.clone());
            (Process::start(use_all, (pairs.clone(), holds, waits, here.clone())).unwrap(), here)
        };
        let threads = || std::fs::read_dir(format!("/proc/{}/task", manager.id().unwrap())).unwrap().count();
        let before = threads();
        let (mut survivor, _) = start();
        let mut told = 0;
        for _ in 0..kills(30) {
            let (mut victim, here) = start();
            assert!(here.wait_timeout(BOUND), "it hangs");
            pause(3_000);
            victim.kill().unwrap();
            told += u32::from(pairs.look(pairs.lock.lock_timeout(BOUND)).1);
            match rlock.lock_timeout(BOUND) {
                Ok(guard) => drop(guard),
                Err(AcquireError::OwnerDied(died)) => drop(died.into_inner()),
                Err(AcquireError::Failed(error)) => panic!("the second lock hangs: {error}"),
            }
            drop(permits.acquire_timeout(BOUND).expect("no permit comes back"));
            victim.wait().unwrap();
            if barrier.is_broken().unwrap() {
                barrier.reset().unwrap();
            }
        }
        assert!(survivor.is_alive(), "{:?}", survivor.join());
        survivor.kill().unwrap();
        survivor.wait().unwrap();
        // Nothing is left of them: no permit is lost or doubled, no connection, no place in a line.
        wait_for("all permits", || permits.available().unwrap() == 2);
        wait_for("the ends of connections", || threads() <= before + 2);
        eprintln!("{told} times told here, {} rounds", pairs.one.get());
        assert!(pairs.one.get() > 0);
    });
}
