//! Every order in which a few threads can take the steps of an algorithm, with death at each step (`--cfg loom`).
//!
//! A process is a thread here. Who dies stops having any effect; then somebody buries it, and those who sleep look, as they do every tenth of a
//! second in life. A wake that is lost is a deadlock, which loom reports.

use super::raw_lock::{self, Taken};
use super::region::Party;
use super::vigil::Vigil;
use super::word::{Memory, View, Word, hurry, mortal};
use super::{barrier, condition, event, letterbox, semaphore};
use crate::deadline::Deadline;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use std::sync::atomic::{AtomicBool as Plain, Ordering as Plainly};

const ONE: u32 = 1;
const TWO: u32 = 2;
const THREE: u32 = 3;

const ALL: usize = 100;

fn party(number: u32) -> Party {
    Party::for_test(number)
}

/// Checks every order, with at most so many times that a thread is interrupted where it could have gone on (`ALL`: no bound).
/// `LOOM_MAX_PREEMPTIONS` is another bound.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    let bound = builder.preemption_bound.unwrap_or(preemptions);
    builder.preemption_bound = Some(bound).filter(|bound| *bound < ALL);
    builder.max_branches = 100_000;
    builder.check(model);
}

/// The same for a death at each access of the work, until the work gets done before it.
fn check_deaths(preemptions: usize, model: impl Fn(u32) -> bool + Clone + Sync + Send + 'static) {
    for accesses in 0.. {
        let done = std::sync::Arc::new(Plain::new(false));
        let (seen, model) = (done.clone(), model.clone());
        check(preemptions, move || {
            if model(accesses) {
                seen.store(true, Plainly::Relaxed);
            }
        });
        if done.load(Plainly::Relaxed) {
            assert!(accesses > 1, "nothing was done at all");
            return;
        }
    }
}

fn take(word: &Word, me: u32, bury: impl Fn(Party)) -> Taken {
    raw_lock::take(word, party(me), Deadline::NEVER, bury).unwrap()
}

#[test]
fn a_lock_has_one_holder_and_loses_no_wake() {
    let model = |others: &'static [u32]| {
        move || {
            let shared = Arc::new((Word::default(), Word::default()));
            let work = |me: u32| {
                let shared = shared.clone();
                move || {
                    assert_eq!(take(&shared.0, me, |_| ()), Taken::Clean);
                    // Not one step: a sum is lost if two are inside.
                    shared.1.store(shared.1.load() + me);
                    raw_lock::give_back(&shared.0);
                }
            };
            let others: Vec<_> = others.iter().map(|me| loom::thread::spawn(work(*me))).collect();
            let sum = THREE + (1..=others.len() as u32).sum::<u32>();
            work(THREE)();
            others.into_iter().for_each(|other| other.join().unwrap());
            assert_eq!(shared.1.load(), sum);
            assert_eq!(shared.0.load(), 0);
        }
    };
    check(ALL, model(&[ONE]));
    check(3, model(&[ONE, TWO]));
}

/// One dies at each of its steps while another one waits. What is told is true, and told once.
#[test]
fn a_lock_outlives_its_holder() {
    check_deaths(ALL, |accesses| {
        // The lock, and two counters that are the same whenever nobody holds it.
        let shared = Arc::new((Word::default(), Word::default(), Word::default()));
        let (there, waiting) = (shared.clone(), shared.clone());
        let dying = loom::thread::spawn(move || {
            mortal(accesses, || {
                let _ = take(&there.0, ONE, |_| ());
                there.1.add(1);
                there.2.add(1);
                raw_lock::give_back(&there.0);
            })
        });
        let waiter = loom::thread::spawn(move || {
            let taken = take(&waiting.0, TWO, |_| ());
            let torn = waiting.1.load() != waiting.2.load();
            assert!(!torn || taken == Taken::FromDead, "torn, and not told");
            raw_lock::give_back(&waiting.0);
            taken
        });
        let done = dying.join().unwrap();
        raw_lock::bury(&shared.0, party(ONE));
        // The look of those whose wake has died with it.
        shared.0.wake(u32::MAX);
        let told = waiter.join().unwrap() == Taken::FromDead;
        let last = take(&shared.0, THREE, |_| ());
        assert!(!told || last == Taken::Clean, "told twice");
        raw_lock::give_back(&shared.0);
        done
    });
}

struct Permits {
    memory: Memory,
    /// Whether the party `ONE` has died.
    dead: AtomicBool,
}

impl Permits {
    fn new(permits: u32) -> Arc<Permits> {
        let memory = Memory::new(semaphore::LENGTH);
        semaphore::begin(memory.view(), permits, 8);
        Arc::new(Permits { memory, dead: AtomicBool::new(false) })
    }

    fn of(&self, me: u32) -> semaphore::Words<'_, impl Fn(Party) -> bool> {
        let body = self.memory.view();
        let gone = move |who: Party| who == party(ONE) && self.bury_if_dead(body);
        semaphore::Words { body, me: party(me), gone, bell: None }
    }

    fn bury_if_dead(&self, body: View<'_>) -> bool {
        let dead = self.dead.load(Ordering::Acquire);
        if dead {
            (semaphore::KIND.bury)(body, party(ONE));
        }
        dead
    }

    /// `ONE` has died. Those who sleep look.
    fn bury(&self) {
        self.dead.store(true, Ordering::Release);
        self.bury_if_dead(self.memory.view());
        hurry();
        for offset in (0..24).step_by(4) {
            self.memory.view().word(offset).wake(u32::MAX);
        }
    }
}

#[test]
fn a_semaphore_loses_no_wake() {
    check(3, || {
        let permits = Permits::new(0);
        let takers = [ONE, TWO].map(|me| {
            let permits = permits.clone();
            loom::thread::spawn(move || assert!(permits.of(me).take(Deadline::NEVER)))
        });
        // One at a time, and the second one perhaps before the first is noticed.
        permits.of(THREE).make(1).unwrap();
        permits.of(THREE).make(1).unwrap();
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert_eq!(permits.of(THREE).free(), 0);
    });
}

/// A permit that is put aside is seen by who is about to sleep, or its owner sees that one.
#[test]
fn a_permit_that_is_put_aside_is_found() {
    check(3, || {
        let permits = Permits::new(1);
        let twice = |permits: &Permits, me: u32| {
            for _ in 0..2 {
                assert!(permits.of(me).take(Deadline::NEVER));
                permits.of(me).give_back();
            }
        };
        let there = permits.clone();
        let other = loom::thread::spawn(move || twice(&there, ONE));
        twice(&permits, TWO);
        other.join().unwrap();
        permits.of(THREE).collect();
        assert_eq!(permits.of(THREE).free(), 1);
    });
}

/// Takes and gives back a permit, and dies at each step of it.
#[test]
fn a_semaphore_neither_loses_nor_doubles_a_permit() {
    check_deaths(2, |accesses| {
        let permits = Permits::new(1);
        let (there, waiting) = (permits.clone(), permits.clone());
        let dying = loom::thread::spawn(move || {
            mortal(accesses, || {
                assert!(there.of(ONE).take(Deadline::NEVER));
                there.of(ONE).give_back();
            })
        });
        let waiter = loom::thread::spawn(move || {
            assert!(waiting.of(TWO).take(Deadline::NEVER));
            waiting.of(TWO).give_back();
        });
        let done = dying.join().unwrap();
        permits.bury();
        waiter.join().unwrap();
        let last = permits.of(THREE);
        last.collect();
        assert_eq!(last.free(), 1);
        done
    });
}

/// What is forgotten is gone or not, and what was made is there or not.
#[test]
fn forgetting_and_making_are_done_or_not_done() {
    check_deaths(2, |accesses| {
        let permits = Permits::new(2);
        assert!(permits.of(TWO).take(Deadline::NEVER));
        let there = permits.clone();
        let dying = loom::thread::spawn(move || {
            mortal(accesses, || {
                assert!(there.of(ONE).take(Deadline::NEVER));
                there.of(ONE).forget();
                there.of(ONE).make(3).unwrap();
            })
        });
        let done = dying.join().unwrap();
        permits.bury();
        permits.of(TWO).give_back();
        permits.of(TWO).collect();
        let free = permits.of(THREE).free();
        assert!(if done { free == 4 } else { [1, 2, 4].contains(&free) }, "{free}");
        done
    });
}

/// Two wait for a flag under a lock; it is set, and one is woken, who wakes the next.
#[test]
fn a_condition_loses_no_wake() {
    check(3, || {
        let shared = Arc::new((Word::default(), Word::default(), Word::default()));
        let wait = |me: u32| {
            let shared = shared.clone();
            loom::thread::spawn(move || {
                let (lock, turn, flag) = &*shared;
                let _ = take(lock, me, |_| ());
                while flag.load() == 0 {
                    let seen = turn.load();
                    raw_lock::give_back(lock);
                    condition::sleep(turn, seen, Deadline::NEVER, || ());
                    let _ = take(lock, me, |_| ());
                }
                raw_lock::give_back(lock);
                condition::notify(turn, 1);
            })
        };
        let waiters = [wait(ONE), wait(TWO)];
        let (lock, turn, flag) = &*shared;
        let _ = take(lock, THREE, |_| ());
        flag.store(1);
        raw_lock::give_back(lock);
        condition::notify(turn, 1);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

/// The one that is woken dies at each step; the other one goes on all the same.
#[test]
fn a_condition_outlives_those_who_wait() {
    check_deaths(1, |accesses| {
        let shared = Arc::new((Word::default(), Word::default(), Word::default()));
        let (there, waiting) = (shared.clone(), shared.clone());
        let wait = |shared: &(Word, Word, Word), me: u32| {
            let (lock, turn, work) = shared;
            let _ = take(lock, me, |_| ());
            while work.load() == 0 {
                let seen = turn.load();
                raw_lock::give_back(lock);
                condition::sleep(turn, seen, Deadline::NEVER, || ());
                let _ = take(lock, me, |_| ());
            }
            raw_lock::give_back(lock);
        };
        let dying = loom::thread::spawn(move || mortal(accesses, || wait(&there, ONE)));
        let waiter = loom::thread::spawn(move || wait(&waiting, TWO));
        let (lock, turn, _) = &*shared;
        let _ = loom::thread::spawn({
            let shared = shared.clone();
            move || {
                let _ = take(&shared.0, THREE, |_| ());
                shared.2.store(1);
                raw_lock::give_back(&shared.0);
                condition::notify(&shared.1, 1);
            }
        });
        let done = dying.join().unwrap();
        raw_lock::bury(lock, party(ONE));
        lock.wake(u32::MAX);
        condition::notify(turn, u32::MAX);
        waiter.join().unwrap();
        done
    });
}

#[test]
fn an_event_wakes_all() {
    check(3, || {
        let flag = Arc::new(Word::default());
        let waiters = [ONE, TWO].map(|_| {
            let flag = flag.clone();
            loom::thread::spawn(move || assert!(event::wait(&flag, &Vigil::default(), Deadline::NEVER)))
        });
        event::set(&flag);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

/// A bell that is not lost: how often it was rung and not heard.
fn hear(bell: &Word) {
    loop {
        let rung = bell.load();
        if rung > 0 && bell.replace(rung, rung - 1).is_ok() {
            return;
        }
        bell.sleep(0, Deadline::NEVER);
    }
}

/// Two questions and their answers, the second answer coming to the bell itself. Each side finds what was written before, and hears no bell that is not its.
#[test]
fn a_letterbox_loses_no_message() {
    check(4, || {
        let shared = Arc::new([(); 6].map(|()| Word::default()));
        let there = shared.clone();
        let take = |word: &Word, bell: &Word, message: &Word| {
            while !letterbox::look(word) {
                hear(bell);
                if message.load() == 9 {
                    break;
                }
            }
            letterbox::clear(word);
            message.load()
        };
        let put = |word: &Word, bell: &Word, message: &Word, value: u32| {
            message.store(value);
            let ring = letterbox::put(word);
            if ring {
                bell.add(1);
                bell.wake(1);
            }
        };
        let answerer = loom::thread::spawn(move || {
            let [asked, asked_bell, question, answered, answered_bell, answer] = &*there;
            assert_eq!(take(asked, asked_bell, question), 1);
            put(answered, answered_bell, answer, 2);
            assert_eq!(take(asked, asked_bell, question), 3);
            letterbox::announce(answered);
            answer.store(9);
            answered_bell.add(1);
            answered_bell.wake(1);
        });
        let [asked, asked_bell, question, answered, answered_bell, answer] = &*shared;
        put(asked, asked_bell, question, 1);
        assert_eq!(take(answered, answered_bell, answer), 2);
        put(asked, asked_bell, question, 3);
        assert_eq!(take(answered, answered_bell, answer), 9);
        answerer.join().unwrap();
        assert_eq!((asked_bell.load(), answered_bell.load()), (0, 0), "a bell too many");
        assert!(!letterbox::has_come(asked) && !letterbox::has_come(answered));
    });
}

#[test]
fn a_barrier_completes_or_breaks() {
    check_deaths(2, |accesses| {
        let memory = Arc::new(Memory::new(16));
        memory.view().word(4).store(2);
        let (there, waiting) = (memory.clone(), memory.clone());
        let dying = loom::thread::spawn(move || {
            mortal(accesses, || {
                let _ = barrier::Words::of(there.view()).wait(Deadline::NEVER, || ());
            })
        });
        let waiter = loom::thread::spawn(move || barrier::Words::of(waiting.view()).wait(Deadline::NEVER, || ()));
        let done = dying.join().unwrap();
        // What `bury` does.
        barrier::Words::of(memory.view()).spoil(barrier::BrokenBarrier::PartyDied);
        memory.view().word(0).wake(u32::MAX);
        let end = waiter.join().unwrap();
        assert!(end.is_ok() || end == Err(barrier::BrokenBarrier::PartyDied), "{end:?}");
        assert!(!done || end.is_ok(), "{end:?}");
        done
    });
}
