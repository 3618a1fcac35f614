//! Why a server turns somebody away, or gives up what somebody has begun: one name for counters,
//! and for the log what to do about it.

use std::fmt;

/// A reason. Indexes [`RefusalCounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// TCP connection closed: its source may not connect.
    SourceDenied,
    /// TCP connection closed: its source has as many as it may have.
    ConnectionsPerPeer,
    /// TCP connection closed: its source has as many without a call as it may have.
    HalfOpenPerPeer,
    /// TCP connection closed: there are as many as there may be.
    Connections,
    /// A connection without a call had to go for a new one.
    HalfOpenPushedOut,
    /// Control connection refused: the server drains, or ends.
    Draining,
    /// What came on a control connection is not PPTP.
    NotPptp,
    /// A connection without Start-Control-Connection-Request in time.
    NoStart,
    /// A control connection without a call in time.
    NoCall,
    /// Call refused: its control connection has as many as it may have.
    CallsPerConnection,
    /// Call refused: its source has as many sessions as it may have.
    SessionsPerPeer,
    /// Call refused: its source has as many calls that are not up as it may have.
    HalfOpenCallsPerPeer,
    /// Call refused: there are as many calls that are not up as there may be.
    HalfOpenCalls,
    /// Call refused: there are as many sessions as there may be.
    Sessions,
    /// A call that took long had to go for a new one.
    HalfOpenCallPushedOut,
    /// A call did not get any further.
    CallStalled,
    /// Wrong name or password.
    LogIn,
    /// Log-in refused unseen: too many of its source have failed.
    BackoffPeer,
    /// Log-in refused unseen: too many under its name have failed.
    BackoffUser,
    /// Log-in refused: the user has a session.
    SecondSession,
    /// Log-in refused: no address is left.
    NoAddress,
}

impl Refusal {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 21] = [
        Self::SourceDenied,
        Self::ConnectionsPerPeer,
        Self::HalfOpenPerPeer,
        Self::Connections,
        Self::HalfOpenPushedOut,
        Self::Draining,
        Self::NotPptp,
        Self::NoStart,
        Self::NoCall,
        Self::CallsPerConnection,
        Self::SessionsPerPeer,
        Self::HalfOpenCallsPerPeer,
        Self::HalfOpenCalls,
        Self::Sessions,
        Self::HalfOpenCallPushedOut,
        Self::CallStalled,
        Self::LogIn,
        Self::BackoffPeer,
        Self::BackoffUser,
        Self::SecondSession,
        Self::NoAddress,
    ];

    /// For `status --json` and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SourceDenied => "source_denied",
            Self::ConnectionsPerPeer => "connections_per_peer",
            Self::HalfOpenPerPeer => "half_open_per_peer",
            Self::Connections => "connections",
            Self::HalfOpenPushedOut => "half_open_pushed_out",
            Self::Draining => "draining",
            Self::NotPptp => "not_pptp",
            Self::NoStart => "no_start",
            Self::NoCall => "no_call",
            Self::CallsPerConnection => "calls_per_connection",
            Self::SessionsPerPeer => "sessions_per_peer",
            Self::HalfOpenCallsPerPeer => "half_open_calls_per_peer",
            Self::HalfOpenCalls => "half_open_calls",
            Self::Sessions => "sessions",
            Self::HalfOpenCallPushedOut => "half_open_call_pushed_out",
            Self::CallStalled => "call_stalled",
            Self::LogIn => "log_in",
            Self::BackoffPeer => "backoff_peer",
            Self::BackoffUser => "backoff_user",
            Self::SecondSession => "second_session",
            Self::NoAddress => "no_address",
        }
    }
}

/// For the log: what happened, and which setting is behind it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceDenied => {
                "connection closed: this source may not connect (access.allow and access.deny)"
            }
            Self::ConnectionsPerPeer => {
                "connection closed: this source has as many as it may have (raise \
                 limits.connections_per_peer_max for many clients behind one address)"
            }
            Self::HalfOpenPerPeer => {
                "connection closed: this source has as many without a call as it may have (raise \
                 limits.half_open_per_peer_max for many clients behind one address)"
            }
            Self::Connections => {
                "connection closed: there are as many as there may be (raise limits.sessions_max, \
                 `connections` in pptpd.conf, or limits.half_open_max)"
            }
            Self::HalfOpenPushedOut => {
                "connection without a call closed for a new one (raise limits.half_open_max if \
                 that was no attack, or deny its source in access.deny)"
            }
            Self::Draining => "connection refused: the server takes no new ones (drain --cancel)",
            Self::NotPptp => "connection closed: what came on it is not PPTP",
            Self::NoStart => {
                "connection closed: Start-Control-Connection-Request never came \
                 (timeouts.first_message_s, `stimeout` in pptpd.conf)"
            }
            Self::NoCall => "connection closed: no call came (timeouts.first_call_s)",
            Self::CallsPerConnection => {
                "call refused: its connection has as many as it may have \
                 (limits.calls_per_connection_max)"
            }
            Self::SessionsPerPeer => {
                "call refused: this source has as many sessions as it may have (raise \
                 limits.sessions_per_peer_max for many clients behind one address)"
            }
            Self::HalfOpenCallsPerPeer => {
                "call refused: this source has as many calls on the way as it may have (raise \
                 limits.half_open_calls_per_peer_max for many clients behind one address)"
            }
            Self::HalfOpenCalls => {
                "call refused: as many calls are on the way as may be (raise \
                 limits.half_open_calls_max)"
            }
            Self::Sessions => {
                "call refused: there are as many sessions as there may be (raise \
                 limits.sessions_max, or `connections` in pptpd.conf)"
            }
            Self::HalfOpenCallPushedOut => {
                "call that took long ended for a new one (raise limits.half_open_calls_max or \
                 limits.sessions_max if that was no attack)"
            }
            Self::CallStalled => {
                "call ended: it did not get any further (timeouts.lcp_s, auth_s, network_s and \
                 setup_s)"
            }
            Self::LogIn => "log-in failed: wrong name or password",
            Self::BackoffPeer => {
                "log-in refused unseen: too many from this source have failed \
                 (log_in_backoff.peer_failures_max)"
            }
            Self::BackoffUser => {
                "log-in refused unseen: too many under this name have failed \
                 (log_in_backoff.user_failures_max)"
            }
            Self::SecondSession => {
                "log-in refused: the user has a session already (auth.single_session = \"deny\")"
            }
            Self::NoAddress => "log-in refused: no address is left (enlarge the pool)",
        })
    }
}

/// How often each reason has occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalCounts([u64; Refusal::ALL.len()]);

impl RefusalCounts {
    /// Once more.
    pub const fn add(&mut self, refusal: Refusal) {
        self.0[refusal as usize] += 1;
    }

    /// How often so far.
    #[must_use]
    pub const fn get(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize]
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
        self
    }

    /// All reasons with their counts, also those without any.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::ALL.iter().map(|it| (it.name(), self.get(*it)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_count_and_name() {
        let mut counts = RefusalCounts::default();
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index, "{}", refusal.name());
            counts.add(refusal);
            assert_eq!(counts.get(refusal), 1);
        }
        let names: std::collections::BTreeSet<_> = counts.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), Refusal::ALL.len());
        assert!(counts.plus(&counts).iter().all(|(_, count)| count == 2));
    }
}
