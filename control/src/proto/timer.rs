//! The timers of one link, as a table that has no clock of its own (RFC 1661 4.6).

use serde::{Deserialize, Serialize};

use super::Time;

/// What may be due. `ALL` is the order in which what is due at once is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Timer {
    /// LCP's restart timer.
    LcpRestart,
    /// CCP's restart timer.
    CcpRestart,
    /// IPCP's restart timer.
    IpcpRestart,
    /// IPV6CP's restart timer.
    Ipv6cpRestart,
    /// The next LCP Echo-Request.
    Echo,
    /// We prove who we are: the PAP Authenticate-Request goes out again.
    Proving,
    /// The peer proves who it is: the CHAP Challenge goes out again.
    Verifying,
    /// Authentication, both ways, must be over.
    AuthDeadline,
    /// IPCP waits no longer for a peer that has said nothing about an optional MPPE.
    CcpSettle,
    /// The network must be up.
    SetupDeadline,
    /// LCP, or what follows authentication, must be over.
    PhaseDeadline,
}

impl Timer {
    pub(super) const ALL: [Self; 11] = [
        Self::LcpRestart,
        Self::CcpRestart,
        Self::IpcpRestart,
        Self::Ipv6cpRestart,
        Self::Echo,
        Self::Proving,
        Self::Verifying,
        Self::AuthDeadline,
        Self::CcpSettle,
        Self::SetupDeadline,
        Self::PhaseDeadline,
    ];
}

/// When each timer is due; a stopped one never is.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct TimerTable {
    due: [Option<Time>; Timer::ALL.len()],
}

impl TimerTable {
    pub(super) const fn set(&mut self, timer: Timer, due: Time) {
        self.due[timer as usize] = Some(due);
    }

    pub(super) const fn stop(&mut self, timer: Timer) {
        self.due[timer as usize] = None;
    }

    pub(super) const fn is_set(&self, timer: Timer) -> bool {
        self.due[timer as usize].is_some()
    }

    pub(super) fn stop_all(&mut self) {
        *self = Self::default();
    }

    /// The earliest moment at which any timer is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.iter().copied().flatten().min()
    }

    /// Stops `timer` and says so, when it is due.
    pub(super) fn expire(&mut self, timer: Timer, now: Time) -> bool {
        let expired = self.due[timer as usize].is_some_and(|due| due <= now);
        if expired {
            self.stop(timer);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_next_and_expires_once() {
        let mut table = TimerTable::default();
        assert_eq!(table.next(), None);
        table.set(Timer::Echo, Time(30));
        table.set(Timer::LcpRestart, Time(10));
        assert_eq!(table.next(), Some(Time(10)));
        assert!(!table.expire(Timer::LcpRestart, Time(9)));
        assert!(table.expire(Timer::LcpRestart, Time(10)));
        assert!(!table.expire(Timer::LcpRestart, Time(11)));
        assert_eq!(table.next(), Some(Time(30)));
    }

    #[test]
    fn every_timer_has_its_own_place() {
        for (index, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, index);
        }
    }
}
