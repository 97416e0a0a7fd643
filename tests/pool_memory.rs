//! What a pool keeps of the tasks that are over, counted by an allocator of its own. A program of its own for that reason.
#![allow(unsafe_code)]

use procession::pool::{Capabilities, Engine, Finish, Job, JobId, JobNews, Outcome, Pool, Refusal, Task, Tell, Waker};
use procession::{Command, Deadline, Error, ExitStatus};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

struct Counting;

/// The bytes that all threads have asked for and not given back.
static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// An engine that remembers nothing. Jobs named `false` fail, all others succeed.
#[derive(Default)]
struct Quick {
    jobs: Vec<(JobId, bool)>,
    bell: Arc<(Mutex<bool>, Condvar)>,
}

impl Engine for Quick {
    fn capabilities(&self) -> Capabilities {
        Capabilities::local()
    }

    fn waker(&self) -> Waker {
        let bell = Arc::clone(&self.bell);
        Waker::new(move || {
            *bell.0.lock().unwrap() = true;
            bell.1.notify_all();
        })
    }

    fn submit(&mut self, job: &Job) -> Result<(), Refusal> {
        self.jobs.push((job.id, job.command.get_program() != "false"));
        Ok(())
    }

    fn poll(&mut self, until: Deadline, tell: &mut Tell<'_>) -> Result<(), Error> {
        let is_idle = self.jobs.is_empty();
        for (id, success) in self.jobs.drain(..) {
            let status = ExitStatus::from_code(u8::from(!success));
            let output = Job::new(Command::new("job")).record().with_status(status);
            tell(id, JobNews::Finished(Finish { outcome: Outcome::of(status), output, error: None }));
        }
        let mut rung = self.bell.0.lock().unwrap();
        while is_idle && !std::mem::take(&mut *rung) {
            rung = match until.remaining() {
                Some(time) if time.is_zero() => break,
                Some(time) => self.bell.1.wait_timeout(rung, time).unwrap().0,
                None => self.bell.1.wait(rung).unwrap(),
            };
        }
        Ok(())
    }

    fn cancel(&mut self, _job: JobId) {}
}

/// What a service does with its pools, so many times: tasks with and without names, that fail, that wait for others, whose callbacks panic.
fn serve(pools: &[Pool; 2], first: usize, count: usize) {
    let task = |number: usize| {
        let command = Command::new(if number.is_multiple_of(5) { "false" } else { "true" });
        let task = Task::new(command).group(format!("group {number}"));
        match number % 3 {
            0 => task.name(format!("task {number}")),
            // The one before is known for a while, also if nobody holds it.
            1 => task.name(format!("task {number}")).after_end(format!("task {}", number - 1)),
            _ => task.after(format!("task {}", number - 1)),
        }
    };
    let numbers = first..first + count;
    // Their numbers are mixed.
    for number in numbers.clone().take(count / 2) {
        pools[0].apply_async(task(number)).unwrap();
        pools[1].apply_async_with(task(number), |_| panic!("on purpose")).unwrap();
    }
    let dones = pools[0].imap_unordered(numbers.skip(count / 2).map(task)).filter(|done| done.attempts() > 0).count();
    assert!(dones > count / 4);
    let waits = || pools.iter().map(|pool| pool.running() + pool.waiting()).sum::<usize>();
    while waits() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_pool_that_serves_for_ever_does_not_grow() {
    std::panic::set_hook(Box::new(|_| ()));
    let count =
        std::env::var("PROCESSION_MANY_TASKS").ok().map_or(24_000, |text| text.parse::<usize>().unwrap() / 3 * 3);
    let pools = [(); 2].map(|()| Pool::with_engine(4, Quick::default()));
    let mut bytes = Vec::new();
    for round in 0..4 {
        serve(&pools, round * count, count);
        bytes.push(BYTES.load(Ordering::Relaxed));
    }
    eprintln!("{bytes:?} bytes after each {count} tasks");
    let growth = bytes[3] - bytes[1];
    // A table may double once more, as long as it is; 60 bytes for each task would be more than this.
    assert!(growth < 4 << 20, "{bytes:?} bytes after each {count} tasks");
    assert!(bytes[3] < 16 << 20, "{bytes:?} bytes");
}
