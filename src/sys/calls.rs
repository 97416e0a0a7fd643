//! Names of system calls, for those that a process can be found waiting in. The numbers are those of this program's own kind
//! of machine.

/// Its name, and whether its first argument is a descriptor.
pub(crate) fn name(number: i64) -> Option<(&'static str, bool)> {
    let number = libc::c_long::try_from(number).ok()?;
    let named = EVERYWHERE.iter().chain(HERE).find(|(known, ..)| *known == number);
    named.map(|(_, name, descriptor)| (*name, *descriptor))
}

macro_rules! calls {
    ($($number:ident $name:literal $descriptor:literal)*) => { &[$((libc::$number, $name, $descriptor)),*] };
}

type Known = (libc::c_long, &'static str, bool);

/// Those that every kind of machine has.
const EVERYWHERE: &[Known] = calls! {
    SYS_read "read" true
    SYS_write "write" true
    SYS_readv "readv" true
    SYS_writev "writev" true
    SYS_ppoll "ppoll" false
    SYS_pselect6 "pselect6" false
    SYS_epoll_pwait "epoll_pwait" true
    SYS_wait4 "wait4" false
    SYS_waitid "waitid" false
    SYS_nanosleep "nanosleep" false
    SYS_clock_nanosleep "clock_nanosleep" false
    SYS_futex "futex" false
    SYS_rt_sigsuspend "rt_sigsuspend" false
    SYS_rt_sigtimedwait "rt_sigtimedwait" false
    SYS_restart_syscall "restart_syscall" false
    SYS_openat "openat" false
    SYS_ioctl "ioctl" true
    SYS_flock "flock" true
    SYS_fsync "fsync" true
    SYS_splice "splice" true
    SYS_tee "tee" true
    SYS_connect "connect" true
    SYS_accept4 "accept4" true
    SYS_recvfrom "recvfrom" true
    SYS_recvmsg "recvmsg" true
    SYS_sendto "sendto" true
    SYS_sendmsg "sendmsg" true
};

/// Those that are known by name on this kind of machine alone.
#[cfg(target_arch = "x86_64")]
const HERE: &[Known] = calls! {
    SYS_poll "poll" false
    SYS_select "select" false
    SYS_epoll_wait "epoll_wait" true
    SYS_pause "pause" false
    SYS_open "open" false
    SYS_pread64 "pread64" true
    SYS_pwrite64 "pwrite64" true
    SYS_fcntl "fcntl" true
    SYS_sendfile "sendfile" true
    SYS_accept "accept" true
    SYS_io_uring_enter "io_uring_enter" true
    SYS_vfork "vfork" false
    SYS_semtimedop "semtimedop" false
    SYS_msgrcv "msgrcv" false
};
#[cfg(not(target_arch = "x86_64"))]
const HERE: &[Known] = &[];
