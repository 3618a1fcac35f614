//! How urgent a thread is (Linux `setpriority(2)`: on Linux a nice value is a thread's own).

use std::io;

use nix::errno::Errno;

/// Nice value of a worker: ahead of ordinary programs on the same processor, which preempt it in
/// the middle of a batch otherwise, and behind what an administrator calls urgent.
const NICE: libc::c_int = -10;

/// Lets the calling thread run ahead of ordinary programs.
///
/// # Errors
/// Without the capability CAP_SYS_NICE; the thread goes on as before.
pub fn raise_current_thread() -> io::Result<()> {
    // SAFETY: it takes numbers only; 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    Errno::result(result)?;
    Ok(())
}

/// Lets the calling thread run only when nobody else wants its processor.
///
/// # Errors
/// What the kernel says; the thread goes on as before.
pub fn idle_current_thread() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are read only, and live; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    Errno::result(result)?;
    Ok(())
}
