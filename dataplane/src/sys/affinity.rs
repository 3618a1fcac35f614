//! Pins a thread to a processor.

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

/// Processors that the calling thread may run on, counted from 0; none when the kernel does not say.
#[must_use]
pub fn permitted_processors() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    let is_permitted = |cpu: &usize| set.is_set(*cpu).unwrap_or(false);
    (0..CpuSet::count()).filter(is_permitted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_does_not_exist_is_an_error_that_names_it() {
        let error = pin_current_thread(1023).expect_err("no machine of ours has 1024 processors");
        assert!(error.to_string().contains("processor 1023"));
        assert!(pin_current_thread(usize::MAX).is_err());
    }
}
