//! Objects in a manager's process: who can ask for what, and what becomes of them when somebody dies.

use crate::support::{Scratch, alone, is_running, wait_for};
use procession::ErrorKind;
use procession::ipc::manager::{AcquireError, Cell, Dict, List, Lock, Queue, Semaphore};
use procession::ipc::{Connection, Event, Manager, Process, ProcessPool, Proxy, RawConnection, Shared};
use procession::{Signal, Stdio};
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const KEY: [u8; 32] = [7; 32];

fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Text of errors, as what a function in another process can return.
fn told<T>(result: Result<T, procession::Error>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn count((counts, rounds): (Dict<String, u64>, u64)) -> Result<(), String> {
    for _ in 0..rounds {
        let add = |counts: &mut HashMap<String, u64>, word: String| *counts.entry(word).or_default() += 1;
        told(counts.update(add, "all".to_owned()))?;
    }
    Ok(())
}

#[test]
fn a_dict_counts_right_from_four_processes() {
    alone!({
        let manager = Manager::start().unwrap();
        let counts = manager.dict::<String, u64>().unwrap();
        let start = |_| Process::start(count, (counts.clone(), 500)).unwrap();
        let processes: Vec<_> = (0..4).map(start).collect();
        for mut process in processes {
            assert_eq!(process.join_timeout(LONG).unwrap(), Ok(()));
        }
        assert_eq!(counts.get(&"all".to_owned()).unwrap(), Some(2_000));
        manager.shutdown().unwrap();
    });
}

#[test]
fn collections_do_what_they_say() {
    alone!({
        let manager = Manager::start().unwrap();
        let dict = manager.dict::<u8, String>().unwrap();
        assert_eq!(dict.insert(&1, &"one".to_owned()).unwrap(), None);
        assert_eq!(dict.insert(&1, &"eins".to_owned()).unwrap().as_deref(), Some("one"));
        assert_eq!((dict.len().unwrap(), dict.is_empty().unwrap()), (1, false));
        assert_eq!(dict.to_map().unwrap(), HashMap::from([(1, "eins".to_owned())]));
        assert_eq!(dict.remove(&1).unwrap().as_deref(), Some("eins"));
        assert_eq!((dict.remove(&1).unwrap(), dict.get(&1).unwrap()), (None, None));
        let list = manager.list::<u32>().unwrap();
        (0..5).for_each(|number| list.push(&number).unwrap());
        assert_eq!((list.set(2, &9).unwrap(), list.set(7, &9).unwrap()), (Some(2), None));
        assert_eq!((list.remove(0).unwrap(), list.remove(4).unwrap(), list.get(9).unwrap()), (Some(0), None, None));
        assert_eq!(list.to_vec().unwrap(), [1, 9, 3, 4]);
        list.clear().unwrap();
        assert!(list.is_empty().unwrap());
        let names = manager.namespace().unwrap();
        names.set("a", &1_u8).unwrap();
        assert_eq!((names.get::<u8>("a").unwrap(), names.names().unwrap()), (Some(1), vec!["a".to_owned()]));
        assert!(names.get::<u16>("a").unwrap_err().to_string().contains("is a u8, and no u16"));
        assert!(names.remove("a").unwrap() && !names.remove("a").unwrap());
    });
}

static COUNTS: OnceLock<Dict<String, u64>> = OnceLock::new();

#[test]
fn a_pool_gets_proxies_in_its_initializer() {
    alone!({
        let manager = Manager::start().unwrap();
        let counts = manager.dict::<String, u64>().unwrap();
        let keep = |counts: Dict<String, u64>| _ = COUNTS.set(counts);
        let pool = ProcessPool::builder().workers(2).initializer(keep, counts.clone()).build().unwrap();
        let work = |number: u64| count((COUNTS.get().unwrap().clone(), number));
        assert!(pool.map(work, [3; 20]).unwrap().into_iter().all(|result| result.is_ok()));
        assert_eq!(counts.get(&"all".to_owned()).unwrap(), Some(60));
    });
}

/// A number that can be added to, and panics at 13.
struct Adder(u64);

impl Shared for Adder {
    type Call = u64;
    type Answer = u64;

    fn call(&mut self, number: u64) -> u64 {
        assert_ne!(number, 13, "an unlucky number");
        self.0 += number;
        self.0
    }
}

/// The same, and it does not mind.
struct Robust(Adder);

impl Shared for Robust {
    type Call = u64;
    type Answer = u64;
    const GOES_ON_AFTER_PANIC: bool = true;

    fn call(&mut self, number: u64) -> u64 {
        self.0.call(number)
    }
}

#[test]
fn a_panic_is_told_and_leaves_a_mark() {
    alone!({
        let manager = Manager::start().unwrap();
        let adder = manager.create(Adder, 1).unwrap();
        assert_eq!(adder.call(&2).unwrap(), 3);
        assert_eq!(adder.with(|adder, by: u64| adder.0 * by, 5).unwrap(), 15);
        let error = adder.call_timeout(&13, LONG).unwrap_err();
        let panic = error.panic().unwrap();
        assert!(panic.message().contains("an unlucky number"), "{panic}");
        assert!(panic.location().starts_with("tests/it/manager.rs:"), "{panic}");
        for error in [adder.call(&1).unwrap_err(), adder.with(|_, ()| (), ()).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Panic);
            assert!(error.to_string().contains("may be half done"), "{error}");
        }
        let robust = manager.create(|number| Robust(Adder(number)), 1).unwrap();
        assert!(robust.call(&13).is_err());
        assert_eq!(robust.call(&4).unwrap(), 5);
        let error = manager.create(|_: ()| -> Adder { panic!("never made") }, ()).unwrap_err();
        assert_eq!(error.panic().unwrap().message(), "never made");
    });
}

/// Ten threads in ten calls that would never end.
#[test]
fn a_killed_manager_is_told_to_all_who_wait() {
    alone!({
        let manager = Manager::start().unwrap();
        let (queue, sleepers) = (manager.queue::<u8>(1).unwrap(), manager.cell(0_u32).unwrap());
        let get = |queue: Queue<u8>| move || queue.get().unwrap_err();
        let threads: Vec<_> = (0..10).map(|_| std::thread::spawn(get(queue.clone()))).collect();
        // Each waits over a connection of its own: 10, the anchor, and one for us.
        let pid = manager.id().unwrap();
        let connections = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        wait_for("ten connections", || connections() >= 12);
        let begun = Instant::now();
        kill(pid);
        for thread in threads {
            let error = thread.join().unwrap();
            assert_eq!(error.kind(), ErrorKind::Ended, "{error}");
            assert_eq!(error.to_string(), "the manager has ended");
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(sleepers.get().unwrap_err().kind(), ErrorKind::Ended);
        assert_eq!(manager.list::<u8>().unwrap_err().kind(), ErrorKind::Ended);
        let error = manager.shutdown().unwrap_err();
        assert_eq!(error.output().status().signal(), Some(Signal::KILL));
    });
}

fn hold((lock, permits, holds): (Lock, Semaphore, Event)) {
    let _guard = lock.lock().unwrap();
    let _permit = permits.acquire().unwrap();
    holds.set();
    loop {
        std::thread::park();
    }
}

#[test]
fn what_a_killed_client_held_is_free() {
    alone!({
        let manager = Manager::start().unwrap();
        let (lock, permits) = (manager.lock().unwrap(), manager.semaphore(1).unwrap());
        let holds = Event::new().unwrap();
        let mut holder = Process::start(hold, (lock.clone(), permits.clone(), holds.clone())).unwrap();
        assert!(holds.wait_timeout(LONG));
        assert!(lock.is_locked().unwrap());
        assert!(lock.lock_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
        assert!(permits.acquire_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
        holder.kill().unwrap();
        let guard = match lock.lock_timeout(LONG) {
            Err(AcquireError::OwnerDied(died)) => died.into_inner(),
            other => panic!("{other:?}"),
        };
        drop(guard);
        // Told once.
        drop(lock.lock().unwrap());
        drop(permits.acquire_timeout(LONG).unwrap());
        assert_eq!(permits.available().unwrap(), 1);
        holder.wait().unwrap();
    });
}

/// Who waits and is killed takes nothing.
#[test]
fn a_killed_client_that_waits_takes_nothing() {
    alone!({
        let manager = Manager::start().unwrap();
        let (queue, comes) = (manager.queue::<u8>(1).unwrap(), manager.cell(false).unwrap());
        let get = |(queue, comes): (Queue<u8>, Cell<bool>)| {
            comes.set(&true).unwrap();
            queue.get().unwrap()
        };
        let mut waits = Process::start(get, (queue.clone(), comes.clone())).unwrap();
        wait_for("the other one", || comes.get().unwrap());
        std::thread::sleep(Duration::from_millis(50)); // whether it is in `get` by now or not, all must be well
        waits.kill().unwrap();
        waits.wait().unwrap();
        queue.put(&5).unwrap();
        assert_eq!(queue.get_timeout(LONG).unwrap(), 5);
        assert!(queue.get_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
        queue.put(&6).unwrap();
        assert!(queue.put_timeout(&7, Duration::from_millis(1)).unwrap_err().is_timeout());
        assert_eq!(queue.len().unwrap(), 1);
    });
}

fn own(scratch: std::path::PathBuf) {
    let manager = Manager::start().unwrap();
    let _list = manager.list::<u8>().unwrap();
    std::fs::write(&scratch, manager.id().unwrap().to_string()).unwrap();
    std::fs::rename(&scratch, scratch.with_extension("whole")).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn the_manager_ends_with_its_owner() {
    alone!({
        let scratch = Scratch::new();
        let mut owner = Process::start(own, scratch.join("manager")).unwrap();
        let file = scratch.join("manager.whole");
        wait_for("the manager", || file.exists());
        let pid: u32 = std::fs::read_to_string(file).unwrap().parse().unwrap();
        assert!(is_running(pid));
        owner.kill().unwrap();
        owner.wait().unwrap();
        wait_for("the end of the manager", || !is_running(pid));
    });
}

#[test]
fn an_object_goes_with_its_last_proxy() {
    alone!({
        let manager = Manager::start().unwrap();
        let (ended, outer) = (manager.event().unwrap(), manager.dict::<u8, Proxy<Adder>>().unwrap());
        struct Tells(procession::ipc::manager::Event);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.set().unwrap();
            }
        }
        impl Shared for Tells {
            type Call = ();
            type Answer = ();
            fn call(&mut self, (): ()) {}
        }
        let tells = manager.create(Tells, ended.clone()).unwrap();
        let other = tells.clone();
        tells.call(&()).unwrap();
        drop(tells);
        // On its way to a process that has not begun yet, it stays.
        let use_it = |tells: Proxy<Tells>| told(tells.call(&()));
        let mut process = Process::start(use_it, other).unwrap();
        assert_eq!(process.join_timeout(LONG).unwrap(), Ok(()));
        // The process has ended without a word.
        assert!(ended.wait_timeout(LONG).unwrap());
        // A proxy in a dict keeps its object.
        let adder = manager.create(Adder, 40).unwrap();
        outer.insert(&1, &adder).unwrap();
        drop(adder);
        let adder = outer.get(&1).unwrap().unwrap();
        assert_eq!(adder.call(&2).unwrap(), 42);
        assert_eq!(outer.get(&1).unwrap().unwrap(), adder);
    });
}

#[test]
fn names_are_found_from_elsewhere() {
    alone!({
        let scratch = Scratch::new();
        let manager = Manager::start().unwrap();
        let list = manager.list::<u8>().unwrap();
        manager.publish("list", &list).unwrap();
        assert!(manager.publish("list", &list).unwrap_err().is_invalid_input());
        manager.listen_at(scratch.join("socket")).unwrap();
        assert!(manager.listen_at(scratch.join("socket")).unwrap_err().is_invalid_input());
        let address = manager.listen_on_tcp("127.0.0.1:0", &KEY).unwrap();
        let by_path = |path: std::path::PathBuf| {
            let manager = told(Manager::connect(path))?;
            told(told(manager.find::<List<u8>>("list"))?.push(&1))
        };
        assert_eq!(Process::start(by_path, scratch.join("socket")).unwrap().join_timeout(LONG).unwrap(), Ok(()));
        let by_tcp = |address: std::net::SocketAddr| {
            let manager = told(Manager::connect_tcp(address, &KEY))?;
            let list = told(manager.find::<List<u8>>("list"))?;
            told(list.push(&2))?;
            let errors = [
                manager.find::<List<u16>>("list").unwrap_err().to_string(),
                manager.find::<List<u8>>("other").unwrap_err().to_string(),
                manager.list::<u8>().unwrap_err().to_string(),
                list.update(|list, ()| list.clear(), ()).unwrap_err().to_string(),
                Manager::connect_tcp(address, &[8; 32]).unwrap_err().kind().to_string_in_test(),
                Process::start(|_: List<u8>| (), list.clone()).unwrap_err().to_string(),
            ];
            Ok::<_, String>(errors.to_vec())
        };
        let errors = Process::start(by_tcp, address).unwrap().join_timeout(LONG).unwrap().unwrap();
        let parts = [
            "is a List<u8>, and no List<u16>",
            "no object is named \"other\"",
            "only a process of the same program on the same machine can make an object",
            "only a process of the same program on the same machine can run a function",
            "PermissionDenied",
            "cannot be passed on: connect there",
        ];
        for (error, part) in errors.iter().zip(parts) {
            assert!(error.contains(part), "{error}, not {part}");
        }
        assert_eq!(list.to_vec().unwrap(), [1, 2]);
        manager.withdraw("list").unwrap();
        assert!(manager.find::<List<u8>>("list").unwrap_err().is_not_found());
        manager.shutdown().unwrap();
        assert!(!scratch.join("socket").exists());
    });
}

trait InTest {
    fn to_string_in_test(&self) -> String;
}

impl InTest for ErrorKind {
    fn to_string_in_test(&self) -> String {
        format!("{self:?}")
    }
}

/// A call that takes long holds up its own object, and nobody else.
#[test]
fn one_slow_call_holds_up_nobody() {
    alone!({
        struct Slow;
        impl Shared for Slow {
            type Call = procession::ipc::Event;
            type Answer = ();
            fn call(&mut self, until: procession::ipc::Event) {
                assert!(until.wait_timeout(LONG));
            }
        }
        let manager = Manager::start().unwrap();
        let (slow, quick) = (manager.create(|()| Slow, ()).unwrap(), manager.cell(1).unwrap());
        let until = Event::new().unwrap();
        let late = slow.call_timeout(&until, Duration::from_millis(20)).unwrap_err();
        assert!(late.is_timeout(), "{late}");
        quick.set(&2).unwrap();
        assert_eq!(quick.get().unwrap(), 2);
        until.set();
        slow.call(&until).unwrap();
    });
}

/// Over TCP nobody knows who waits but the connection.
#[test]
fn a_client_over_tcp_that_is_killed_takes_nothing() {
    alone!({
        let manager = Manager::start().unwrap();
        let (queue, comes) = (manager.queue::<u8>(1).unwrap(), manager.cell(false).unwrap());
        manager.publish("queue", &queue).unwrap();
        manager.publish("comes", &comes).unwrap();
        let address = manager.listen_on_tcp("127.0.0.1:0", &KEY).unwrap();
        let get = |address: std::net::SocketAddr| {
            let manager = Manager::connect_tcp(address, &KEY).unwrap();
            let queue = manager.find::<Queue<u8>>("queue").unwrap();
            manager.find::<Cell<bool>>("comes").unwrap().set(&true).unwrap();
            queue.get().unwrap()
        };
        let mut waits = Process::start(get, address).unwrap();
        wait_for("the other one", || comes.get().unwrap());
        std::thread::sleep(Duration::from_millis(50)); // so that it is in `get`, most of the time
        waits.kill().unwrap();
        waits.wait().unwrap();
        queue.put(&5).unwrap();
        assert_eq!(queue.get_timeout(LONG).unwrap(), 5);
    });
}

#[derive(serde::Serialize)]
struct ManagerRequest2(u8, u64, u64, Option<Duration>, String, Payload);

type Payload = (Vec<u8>, Vec<()>);
type Failure = (u8, String, Option<(String, String, String)>);

#[derive(serde::Deserialize)]
struct ManagerAnswer2(Result<(u64, Payload), Failure>);

/// Whatever a stranger says is answered, and runs nothing.
#[test]
fn nonsense_disturbs_nobody() {
    alone!({
        let scratch = Scratch::new();
        let manager = Manager::start().unwrap();
        let (path, pid) = (scratch.join("socket"), manager.id());
        manager.listen_at(&path).unwrap();
        let dict = manager.dict::<String, Vec<u16>>().unwrap();
        let mut raw = RawConnection::connect(&path).unwrap();
        raw.send_bytes(b"no request").unwrap();
        assert_eq!(raw.recv_bytes().unwrap_err().kind(), ErrorKind::Ended);
        let mut stranger = Connection::<ManagerRequest2, ManagerAnswer2>::connect(&path).unwrap();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut failures = 0;
        for _ in 0..5_000 {
            // No release, which has no answer.
            let verb = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12][next(12) as usize];
            let payload = (0..next(12)).map(|_| next(256) as u8).collect();
            let number = if next(2) == 0 { next(10) } else { next(u64::MAX) };
            let text = next(3).to_string();
            let request = ManagerRequest2(verb, next(6), number, Some(Duration::ZERO), text, (payload, Vec::new()));
            stranger.send(&request).unwrap();
            failures += u32::from(stranger.recv_timeout(LONG).unwrap().0.is_err());
        }
        assert!(failures > 1_000, "{failures}");
        drop(stranger);
        dict.clear().unwrap();
        dict.insert(&"still".to_owned(), &vec![1]).unwrap();
        assert_eq!((dict.len().unwrap(), manager.id()), (1, pid));
    });
}

#[test]
fn proxies_are_used_by_many_threads() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    alone!({
        let manager = Manager::start().unwrap();
        is_shared(&manager);
        let (adder, lock) = (manager.create(Adder, 0).unwrap(), manager.lock().unwrap());
        is_shared(&adder);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _guard = lock.lock().unwrap();
                        let before = adder.call(&0).unwrap();
                        assert_eq!(adder.call(&1).unwrap(), before + 1);
                    }
                });
            }
        });
        assert_eq!(adder.call(&0).unwrap(), 600);
    });
}

/// There are too few descriptors for it.
#[test]
fn a_manager_that_cannot_start_says_why() {
    alone!({
        let start = |()| {
            let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
            nix::sys::resource::setrlimit(limit, 8, 8).unwrap();
            Manager::start().map(drop).unwrap_err().is_resource_exhausted()
        };
        let builder = Process::builder(start, ()).configure(|command| command.stderr(Stdio::null()));
        assert!(builder.start().unwrap().join_timeout(LONG).unwrap());
    });
}
