//! Pins a thread to a processor, or moves one.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The processor cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot pin the worker to processor {cpu}: {source}; choose one that `taskset -p $$` allows, \
     or do not pin"
)]
pub struct AffinityError {
    /// The processor that was asked for, counted from 0.
    pub cpu: usize,
    /// What the kernel said.
    pub source: io::Error,
}

/// Lets the calling thread run on processor `cpu` alone.
///
/// # Errors
/// There is no such processor, or it is not among those that this process may use.
pub fn pin_current_thread(cpu: usize) -> Result<(), AffinityError> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| AffinityError {
            cpu,
            source: errno.into(),
        })
}

/// Processors that the calling thread may run on, counted from 0; none when the kernel does not
/// say.
#[must_use]
pub fn permitted_processors() -> Vec<usize> {
    processors_of(Pid::from_raw(0))
}

/// Processors that this thread may run on, likewise.
#[must_use]
pub fn processors_of(thread: Pid) -> Vec<usize> {
    let Ok(set) = sched_getaffinity(thread) else {
        return Vec::new();
    };
    let is_permitted = |cpu: &usize| set.is_set(*cpu).unwrap_or(false);
    (0..CpuSet::count()).filter(is_permitted).collect()
}

/// Puts a thread on processor `cpu` now; afterwards it may run where it could before.
///
/// # Errors
/// The thread is gone, or may not run there.
pub fn move_thread(thread: Pid, cpu: usize) -> io::Result<()> {
    let permitted = sched_getaffinity(thread)?;
    if !permitted.is_set(cpu)? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(thread, &only)?;
    sched_setaffinity(thread, &permitted)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::gettid;

    #[test]
    fn a_moved_thread_may_run_where_it_could_before() {
        let permitted = permitted_processors();
        for cpu in &permitted {
            move_thread(gettid(), *cpu).unwrap();
            assert_eq!(processors_of(gettid()), permitted);
        }
        let outside = permitted.last().unwrap() + 1;
        assert!(move_thread(gettid(), outside).is_err());
        assert_eq!(permitted_processors(), permitted);
    }

    #[test]
    fn a_processor_that_does_not_exist_is_an_error_that_names_it() {
        let error = pin_current_thread(1023).expect_err("no machine of ours has 1024 processors");
        assert!(error.to_string().contains("processor 1023"));
        assert!(pin_current_thread(usize::MAX).is_err());
    }
}
