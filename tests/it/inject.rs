//! System calls that fail on demand, by seccomp(2). `deny` is a filter for the rest of this process: a kernel that lacks
//! something, or a container that forbids it. `supervise` lets another thread answer each call, of the spawning thread and of
//! its children, one by one: it counts them, and makes the n-th fail.

use libc::{c_int, c_long, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// The call with this number fails with this errno, if this many bits are set in its first argument.
#[derive(Clone, Copy)]
pub struct Rule(pub c_long, pub c_int, pub u32);

/// Makes these calls fail for this thread and all that it starts, until they end.
pub fn deny(rules: &[Rule]) {
    let mut program = Vec::new();
    for Rule(number, errno, bits) in rules {
        let refuse = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | *errno as u32);
        program.push(load(0));
        if *bits == 0 {
            program.push(jump(libc::BPF_JEQ, *number as u32, 0, 1));
        } else {
            program.push(jump(libc::BPF_JEQ, *number as u32, 0, 3));
            program.push(load(16));
            program.push(jump(libc::BPF_JSET, *bits, 0, 1));
        }
        program.push(refuse);
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    install(&mut program, 0).unwrap();
}

/// The calls with these numbers fail with this errno.
pub fn deny_all(errno: c_int, numbers: &[c_long]) {
    deny(&numbers.iter().map(|&number| Rule(number, errno, 0)).collect::<Vec<_>>());
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | code | libc::BPF_K) as u16, jt, jf, k }
}

/// Loads a word of `struct seccomp_data`; low halves come first on the processors we run on.
fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn install(program: &mut [libc::sock_filter], flags: c_ulong) -> io::Result<c_long> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: integer arguments.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is valid for reads of its length during the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub number: c_long,
    pub args: [u64; 6],
    /// Whether the spawning thread makes it; else a child.
    pub ours: bool,
    /// Whether the child that makes it has been told to go on with an execve before.
    pub after_exec: bool,
}

#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    pointer: u64,
    args: [u64; 6],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const RECEIVE: c_ulong = 0xC050_2100;
const SEND: c_ulong = 0xC018_2101;

/// Runs `work` on a thread of its own; `answer` sees each call that it and its children make: with `None` the call goes on, with
/// an errno it fails. With numbers, only those calls are seen. `None` where the kernel or a filter around us does not allow it.
pub fn supervise<T: Send>(
    numbers: &[c_long],
    work: impl FnOnce() -> T + Send,
    mut answer: impl FnMut(Call) -> Option<c_int>,
) -> Option<T> {
    let listener = AtomicI32::new(0);
    let thread = AtomicI32::new(0);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // SAFETY: no arguments.
            thread.store(unsafe { libc::gettid() }, SeqCst);
            let notify = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF);
            let mut program = vec![load(0)];
            // Always seen, to know when a child has become another program.
            for number in numbers.iter().chain(&[libc::SYS_execve]) {
                program.extend([jump(libc::BPF_JEQ, *number as u32, 0, 1), notify]);
            }
            let rest = if numbers.is_empty() { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
            program.push(statement(libc::BPF_RET | libc::BPF_K, rest));
            match install(&mut program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER) {
                // From here on no call is made before the other side listens, and storing makes none.
                Ok(fd) => listener.store(fd as i32, SeqCst),
                Err(_) => {
                    listener.store(-1, SeqCst);
                    return None;
                }
            }
            Some(work())
        });
        while listener.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        if listener.load(SeqCst) > 0 {
            // SAFETY: the kernel has made it for us.
            let listener = unsafe { OwnedFd::from_raw_fd(listener.load(SeqCst)) };
            let wanted = |number| numbers.is_empty() || numbers.contains(&number);
            serve(&listener, thread.load(SeqCst) as u32, &mut |call| {
                if wanted(call.number) { answer(call) } else { None }
            });
        } else {
            eprintln!("skipped: no seccomp listener here");
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn serve(listener: &OwnedFd, thread: u32, answer: &mut dyn FnMut(Call) -> Option<c_int>) {
    let mut executed = std::collections::HashSet::new();
    loop {
        let mut entry = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&mut entry, 1, -1) };
        if entry.revents & libc::POLLIN == 0 {
            // Hung up: nobody is left under the filter.
            return;
        }
        let mut call = Notification::default();
        // SAFETY: a zeroed struct of the size that the number encodes.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &mut call) } < 0 {
            continue;
        }
        let number = c_long::from(call.number);
        let shown =
            Call { number, args: call.args, ours: call.pid == thread, after_exec: executed.contains(&call.pid) };
        let errno = answer(shown);
        if number == libc::SYS_execve && errno.is_none() {
            executed.insert(call.pid);
        }
        let go_on = u32::from(errno.is_none());
        let answer = Answer { id: call.id, value: 0, error: -errno.unwrap_or(0), flags: go_on };
        // SAFETY: a struct of the size that the number encodes. If the caller has died meanwhile there is nobody to tell.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &answer) };
    }
}
