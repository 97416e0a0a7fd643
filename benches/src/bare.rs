//! The least that running tiny commands and collecting their output can cost: bare system calls on memory made before, and none of what
//! makes it safe in a program with other threads, other descriptors and other children. What is above it is the price of a library.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs the program so many times, `width` at a time, both streams collected, on as many threads, each on a processor of its own if there
/// is more than one.
///
/// # Panics
/// If the system refuses anything, or a program fails.
pub fn fan_out(path: &Path, jobs: usize, width: usize, threads: usize) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let taken = AtomicUsize::new(0);
    if threads == 1 {
        return Lane::new(&path, width, None).run(jobs, &taken);
    }
    let everywhere = allowed();
    std::thread::scope(|scope| {
        for place in 0..threads {
            let (path, taken) = (&path, &taken);
            scope.spawn(move || {
                pin_to(place, &everywhere);
                Lane::new(path, width / threads, Some(everywhere)).run(jobs, taken);
            });
        }
    });
}

unsafe extern "C" {
    /// environ(7)
    static environ: *const *const c_char;
}

/// What one thread does.
struct Lane<'a> {
    job: Job<'a>,
    width: usize,
    epoll: c_int,
    null: c_int,
    stack: Vec<u128>,
    places: Vec<Place>,
}

/// What the child needs.
struct Job<'a> {
    path: &'a CString,
    everywhere: Option<libc::cpu_set_t>,
    /// What becomes its standard input, output and error.
    ends: [c_int; 3],
}

/// A child that runs, or room for one.
#[derive(Default)]
struct Place {
    pidfd: c_int,
    /// Which of our ends are still open.
    ends: [Option<c_int>; 2],
    output: [Vec<u8>; 2],
}

fn check(result: c_int) -> c_int {
    assert!(result >= 0, "{}", io::Error::last_os_error());
    result
}

impl<'a> Lane<'a> {
    fn new(path: &'a CString, width: usize, everywhere: Option<libc::cpu_set_t>) -> Lane<'a> {
        // SAFETY: integer arguments and a zero-ended path.
        let (epoll, null) = unsafe {
            (check(libc::epoll_create1(libc::EPOLL_CLOEXEC)), check(libc::open(c"/dev/null".as_ptr(), libc::O_CLOEXEC)))
        };
        let places = std::iter::repeat_with(Place::default).take(width).collect();
        Lane { job: Job { path, everywhere, ends: [null, -1, -1] }, width, epoll, null, stack: vec![0; 2048], places }
    }

    fn run(&mut self, jobs: usize, taken: &AtomicUsize) {
        let mut running = 0;
        let is_empty = |place: &Place| place.ends.iter().all(Option::is_none);
        loop {
            for place in 0..self.width {
                if is_empty(&self.places[place]) && taken.fetch_add(1, Ordering::Relaxed) < jobs {
                    self.start(place);
                    running += 1;
                }
            }
            if running == 0 {
                return;
            }
            running -= self.wait();
        }
    }

    fn start(&mut self, place: usize) {
        let mut ours = [0; 2];
        for number in 0..2 {
            let mut pair = [0; 2];
            // SAFETY: room for two descriptors.
            check(unsafe { libc::pipe2(pair.as_mut_ptr(), libc::O_CLOEXEC) });
            ours[number] = pair[0];
            self.job.ends[number + 1] = pair[1];
        }
        let mut pidfd: c_int = -1;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        let (top, job) = (self.stack.as_mut_ptr_range().end, std::ptr::from_mut(&mut self.job));
        // SAFETY: the stack and the job live until the parent is resumed, which is at exec; the child's function does not return.
        check(unsafe { libc::clone(child, top.cast(), flags, job.cast(), &raw mut pidfd) });
        for (number, end) in ours.into_iter().enumerate() {
            // SAFETY: it is ours, and not used any more.
            check(unsafe { libc::close(self.job.ends[number + 1]) });
            self.wait_for(libc::EPOLL_CTL_ADD, end, place * 2 + number);
        }
        self.places[place] = Place { pidfd, ends: ours.map(Some), output: Default::default() };
    }

    /// For one answer: a copy that the next child holds until its exec would be reported for ever.
    fn wait_for(&self, operation: c_int, end: c_int, token: usize) {
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLONESHOT) as u32, u64: token as u64 };
        // SAFETY: both descriptors are ours; the event is read during the call.
        check(unsafe { libc::epoll_ctl(self.epoll, operation, end, &mut event) });
    }

    /// How many have ended.
    fn wait(&mut self) -> usize {
        // SAFETY: an event is plain integers.
        let mut events: [libc::epoll_event; 64] = unsafe { std::mem::zeroed() };
        // SAFETY: room for as many events.
        let count = check(unsafe { libc::epoll_wait(self.epoll, events.as_mut_ptr(), 64, -1) });
        let mut ended = 0;
        for event in &events[..count as usize] {
            let token = event.u64 as usize;
            let number = token % 2;
            let place = &mut self.places[token / 2];
            let end = place.ends[number].unwrap();
            let mut buffer = [0; 4096];
            // SAFETY: the buffer has this length.
            let count = check(unsafe { libc::read(end, buffer.as_mut_ptr().cast(), buffer.len()) } as c_int);
            place.output[number].extend_from_slice(&buffer[..count as usize]);
            if count > 0 {
                self.wait_for(libc::EPOLL_CTL_MOD, end, token);
                continue;
            }
            place.ends[number] = None;
            // SAFETY: it is ours, and not used any more.
            check(unsafe { libc::close(end) });
            if place.ends.iter().all(Option::is_none) {
                reap(place.pidfd);
                ended += 1;
            }
        }
        ended
    }
}

fn reap(pidfd: c_int) {
    // SAFETY: room for an answer and a usage; the descriptor is ours, and not used any more.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let mut usage: libc::rusage = std::mem::zeroed();
        let (info_place, usage_place) = (&raw mut info, &raw mut usage);
        check(libc::syscall(libc::SYS_waitid, libc::P_PIDFD, pidfd, info_place, libc::WEXITED, usage_place) as c_int);
        assert_eq!(info.si_status(), 0);
        check(libc::close(pidfd));
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // SAFETY: they are ours, and not used any more.
        unsafe {
            check(libc::close(self.epoll));
            check(libc::close(self.null));
        }
    }
}

extern "C" fn child(job: *mut c_void) -> c_int {
    // SAFETY: the parent waits, and nobody writes to the job meanwhile; what is called takes no locks and no memory.
    unsafe {
        let job = &*job.cast::<Job<'_>>();
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        for (number, end) in (0..).zip(job.ends) {
            libc::dup2(end, number);
        }
        if let Some(everywhere) = &job.everywhere {
            libc::sched_setaffinity(0, size_of_val(everywhere), everywhere);
        }
        let arguments: [*const c_char; 2] = [job.path.as_ptr(), std::ptr::null()];
        libc::execve(job.path.as_ptr(), arguments.as_ptr(), environ);
        libc::_exit(127)
    }
}

fn allowed() -> libc::cpu_set_t {
    // SAFETY: a set is plain integers, and the call gets its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        check(libc::sched_getaffinity(0, size_of_val(&set), &mut set));
        set
    }
}

/// This thread stays on one of these processors.
fn pin_to(place: usize, everywhere: &libc::cpu_set_t) {
    // SAFETY: valid sets and their size.
    unsafe {
        let mut allowed = (0..libc::CPU_SETSIZE as usize).filter(|&number| libc::CPU_ISSET(number, everywhere));
        let Some(own) = allowed.clone().nth(place).or_else(|| allowed.next()) else { return };
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(own, &mut one);
        check(libc::sched_setaffinity(0, size_of_val(&one), &one));
    }
}
