//! The only clock: the monotonic one, as the state machines count it.

use std::time::{Duration, Instant};

use crate::proto::Time;

/// Milliseconds since the driver started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// A clock that says `now` now; where the machine has not run for so long, less.
    pub(crate) fn at(now: Time) -> Self {
        let started = Instant::now();
        let origin = started.checked_sub(Duration::from_millis(now.0));
        Self {
            origin: origin.unwrap_or(started),
        }
    }

    pub(crate) fn now(self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The runtime's moment of `time`.
    pub(crate) fn instant(self, time: Time) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + Duration::from_millis(time.0))
    }
}
