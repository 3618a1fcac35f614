//! Sets the ring up with the best flags that this kernel takes.

use std::io;

use io_uring::{Builder, IoUring, cqueue, squeue};
use nix::errno::Errno;

use crate::sys::probe::{RingError, classify_setup, read_disabled_sysctl};

/// Requests that are handed over at once; more are handed over in several goes.
const SUBMISSIONS: u32 = 256;

/// Sets a ring up for the calling thread, the only one that may use it. `in_flight_max` operations
/// may complete without being looked at.
pub(super) fn build(in_flight_max: usize) -> Result<IoUring, RingError> {
    // Each slot has one operation at most, and multishot operations use up a slot with each
    // completion, so with room for all of them the completion queue cannot overflow.
    let completions = u32::try_from(in_flight_max.next_power_of_two() * 2).unwrap_or(u32::MAX);
    let completions = completions.max(SUBMISSIONS * 4);
    first_that_is_known(&ATTEMPTS, |flags| {
        let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
        builder.setup_cqsize(completions).setup_clamp();
        flags(&mut builder);
        builder.build(SUBMISSIONS)
    })
    .map_err(|source| classify_setup(source, read_disabled_sysctl()))
}

type Flags = fn(&mut Builder<squeue::Entry, cqueue::Entry>);

/// From the best to the plainest: DEFER_TASKRUN is of Linux 6.1, SINGLE_ISSUER of 6.0,
/// COOP_TASKRUN of 5.19.
const ATTEMPTS: [Flags; 3] = [
    |builder| {
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun();
    },
    |builder| {
        builder.setup_single_issuer().setup_coop_taskrun();
    },
    |_| {},
];

/// Tries one after the other while the kernel does not know the flags.
fn first_that_is_known<F: Copy, R>(
    attempts: &[F],
    attempt: impl Fn(F) -> io::Result<R>,
) -> io::Result<R> {
    let mut refused = io::Error::from(Errno::EINVAL);
    for &flags in attempts {
        match attempt(flags) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            result => return result,
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(kernel: impl Fn(u8) -> io::Result<u8>) -> Result<u8, Option<i32>> {
        first_that_is_known(&[1, 2, 3], kernel).map_err(|error| error.raw_os_error())
    }

    #[test]
    fn an_older_kernel_gets_fewer_flags_and_other_errors_end_the_search() {
        let unknown = || io::Error::from(Errno::EINVAL);
        let forbidden = || io::Error::from(Errno::EPERM);
        assert_eq!(tried(Ok), Ok(1));
        assert_eq!(tried(|n| if n < 3 { Err(unknown()) } else { Ok(n) }), Ok(3));
        assert_eq!(tried(|_| Err(unknown())), Err(Some(libc::EINVAL)));
        assert_eq!(tried(|_| Err(forbidden())), Err(Some(libc::EPERM)));
    }
}
