//! Wake-ups between control and a worker: an eventfd beside each queue.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Readable from a [`Wake::signal`] until the next [`Wake::clear`].
#[derive(Debug)]
pub struct Wake(EventFd);

impl Wake {
    /// Makes one, not signalled.
    ///
    /// # Errors
    /// The process or the machine has no file descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?))
    }

    /// Makes it readable. Cannot fail: a full counter is already readable.
    pub fn signal(&self) {
        let written = self.0.write(1);
        debug_assert!(matches!(written, Ok(_) | Err(Errno::EAGAIN)), "{written:?}");
    }

    /// Makes it unreadable. Clear first and look into the queue afterwards: in the other order a
    /// message that comes in between is slept over.
    pub fn clear(&self) {
        let read = self.0.read();
        debug_assert!(matches!(read, Ok(_) | Err(Errno::EAGAIN)), "{read:?}");
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn is_readable(wake: &Wake) -> bool {
        let mut fds = [PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn is_readable_from_signal_to_clear_however_often_signalled() {
        let wake = Wake::new().unwrap();
        assert!(!is_readable(&wake));
        wake.signal();
        wake.signal();
        assert!(is_readable(&wake));
        wake.clear();
        assert!(!is_readable(&wake));
        wake.clear();
    }
}
