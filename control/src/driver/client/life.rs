//! When a tunnel that has ended is dialled again: `persist`, `maxfail`, `holdoff`, `demand`
//! (pppd(8)). A judgement only: it reads no clock and sends nothing.

use std::time::Duration;

use crate::config::client::Persist;
use crate::proto::ending::Ending;

/// The hold-off doubles with each failure in a row, so often.
const DOUBLINGS_MAX: u32 = 3;
/// Where `holdoff` is 0, a failure still waits this long.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// What comes after an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The process ends.
    Leave,
    /// Another attempt, after this.
    Redial(Duration),
    /// Nothing until a packet wants to go into the tunnel, and not before this.
    AwaitPacket(Duration),
}

/// The attempts of one tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    persist: Persist,
    /// Attempts in a row that brought no network.
    failures: u32,
}

impl Life {
    pub(super) const fn new(persist: Persist) -> Self {
        Self {
            persist,
            failures: 0,
        }
    }

    /// The tunnel stands.
    pub(super) const fn network_up(&mut self) {
        self.failures = 0;
    }

    /// Attempts in a row that brought no network.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// An attempt has ended; `had_network` when the tunnel stood. `jitter`, from 0 to 1, keeps a
    /// thousand clients of one server from coming back at the same moment.
    pub(super) fn after(&mut self, ending: &Ending, had_network: bool, jitter: f64) -> Next {
        if !had_network {
            self.failures = self.failures.saturating_add(1);
        }
        let given_up = self.persist.max_fail > 0 && self.failures >= self.persist.max_fail;
        // Only a person has a new password.
        let is_hopeless = matches!(
            ending,
            Ending::PasswordExpired { .. } | Ending::PasswordNotChanged(_)
        );
        if !self.persist.wanted || given_up || is_hopeless {
            return Next::Leave;
        }
        // A link that was idle is not held off (pppd(8), holdoff).
        let pause = if matches!(ending, Ending::IdleTimeout) {
            Duration::ZERO
        } else {
            self.pause(jitter)
        };
        if self.persist.demand {
            Next::AwaitPacket(pause)
        } else {
            Next::Redial(pause)
        }
    }

    /// `holdoff`, doubled for every failure after the first, give or take a quarter.
    fn pause(&self, jitter: f64) -> Duration {
        let mut base = Duration::from_millis(self.persist.holdoff_ms);
        if self.failures > 0 {
            base = base.max(FAILURE_PAUSE);
        }
        let doublings = self.failures.saturating_sub(1).min(DOUBLINGS_MAX);
        let pause = base.saturating_mul(1 << doublings);
        pause.mul_f64(jitter.clamp(0.0, 1.0).mul_add(0.5, 0.75))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDOFF: Persist = Persist {
        wanted: true,
        demand: false,
        max_fail: 3,
        holdoff_ms: 1_000,
    };

    fn lost() -> Ending {
        Ending::ControlLost("closed".to_owned())
    }

    #[test]
    fn without_persist_every_ending_is_the_last() {
        let wanted = false;
        let mut life = Life::new(Persist { wanted, ..HOLDOFF });
        assert_eq!(life.after(&lost(), true, 0.5), Next::Leave);
    }

    #[test]
    fn only_failures_in_a_row_are_counted() {
        let mut life = Life::new(HOLDOFF);
        let redial = |ms| Next::Redial(Duration::from_millis(ms));
        assert_eq!(life.after(&lost(), false, 0.5), redial(1_000));
        assert_eq!(life.after(&lost(), false, 0.5), redial(2_000));
        life.network_up();
        assert_eq!(life.after(&lost(), true, 0.5), redial(1_000));
        assert_eq!(life.after(&lost(), false, 0.5), redial(1_000));
        assert_eq!(life.after(&lost(), false, 0.5), redial(2_000));
        assert_eq!(life.after(&lost(), false, 0.5), Next::Leave);
    }

    #[test]
    fn maxfail_0_never_gives_up_and_the_pause_stays_bounded() {
        let mut life = Life::new(Persist {
            max_fail: 0,
            ..HOLDOFF
        });
        for _ in 0..100 {
            let Next::Redial(pause) = life.after(&lost(), false, 1.0) else {
                panic!("it gave up");
            };
            assert!(pause <= Duration::from_secs(10), "{pause:?}");
        }
    }

    #[test]
    fn an_expired_password_is_not_tried_again() {
        let client = "mia".to_owned();
        let why = "Password expired".to_owned();
        for ending in [
            Ending::PasswordNotChanged(why.clone()),
            Ending::PasswordExpired { client, why },
        ] {
            let max_fail = 0;
            let mut life = Life::new(Persist {
                max_fail,
                ..HOLDOFF
            });
            assert_eq!(life.after(&ending, false, 0.5), Next::Leave);
        }
    }

    #[test]
    fn jitter_moves_the_pause_by_a_quarter() {
        for (jitter, ms) in [(0.0, 750), (1.0, 1_250), (7.0, 1_250)] {
            let mut life = Life::new(HOLDOFF);
            let expected = Next::Redial(Duration::from_millis(ms));
            assert_eq!(life.after(&lost(), true, jitter), expected);
        }
    }

    #[test]
    fn an_idle_link_is_not_held_off() {
        let mut life = Life::new(Persist {
            demand: true,
            ..HOLDOFF
        });
        let next = life.after(&Ending::IdleTimeout, true, 0.5);
        assert_eq!(next, Next::AwaitPacket(Duration::ZERO));
        let next = life.after(&Ending::ConnectTimeout, true, 0.5);
        assert_eq!(next, Next::AwaitPacket(Duration::from_secs(1)));
    }
}
