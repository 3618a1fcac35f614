//! Hands operations to the kernel and collects what has become of them.

use std::io;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, cqueue, squeue};

use super::setup;
use super::token::Token;
use crate::sys::probe::RingError;

/// An io_uring that knows how much is in flight.
pub(super) struct Ring {
    uring: IoUring,
    in_flight: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} in flight)", self.in_flight)
    }
}

impl Ring {
    /// A ring for the calling thread alone.
    pub(super) fn new(in_flight_max: usize) -> Result<Self, RingError> {
        let uring = setup::build(in_flight_max)?;
        Ok(Self {
            uring,
            in_flight: 0,
        })
    }

    /// For registrations.
    pub(super) fn submitter(&self) -> Submitter<'_> {
        self.uring.submitter()
    }

    /// Completions that can wait in the kernel.
    pub(super) fn completions_max(&self) -> usize {
        self.uring.params().cq_entries() as usize
    }

    /// Operations that have not completed for good.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Operations that the kernel has not seen yet.
    pub(super) fn queued(&mut self) -> usize {
        self.uring.submission().len()
    }

    /// Queues an operation; when the queue is full, hands it over first.
    ///
    /// # Safety
    /// Whatever the operation points to stays valid, and is touched by nobody else, until it has
    /// completed for good.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.to_bits());
        self.in_flight += 1;
        loop {
            let mut submission = self.uring.submission();
            // SAFETY: the caller's promise is the one that is asked for.
            if unsafe { submission.push(&entry) }.is_ok() {
                return;
            }
            drop(submission);
            // A failure here comes back from `enter`, where it can be reported; the completion
            // queue has room for all that is in flight, so the kernel takes what is queued.
            let _ = self.uring.submit();
        }
    }

    /// Hands over what is queued and waits until `want` operations have completed, or `timeout_ns`
    /// has passed; without one, for as long as it takes.
    pub(super) fn enter(&self, want: usize, timeout_ns: Option<u64>) -> io::Result<()> {
        let result = match timeout_ns {
            None => self.uring.submit_and_wait(want),
            Some(timeout_ns) => {
                let time = Timespec::new()
                    .sec(timeout_ns / 1_000_000_000)
                    .nsec((timeout_ns % 1_000_000_000) as u32);
                let arguments = SubmitArgs::new().timespec(&time);
                self.uring.submitter().submit_with_args(want, &arguments)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Nothing came in time; a signal; the kernel wants its completions collected.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Appends all completions to `completed`.
    pub(super) fn collect(&mut self, completed: &mut Vec<cqueue::Entry>) {
        let before = completed.len();
        completed.extend(self.uring.completion());
        let is_last = |entry: &&cqueue::Entry| !cqueue::more(entry.flags());
        self.in_flight -= completed[before..].iter().filter(is_last).count();
    }
}
