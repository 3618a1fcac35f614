//! What an operator asks of a server, and what a server answers: bounded, whatever it holds.

use dataplane::counters::SessionCounters;
use serde::{Deserialize, Serialize};

/// Sessions in one page: a fraction of a millisecond of the control loop.
pub const PAGE_SESSIONS: usize = 256;
/// Sessions that one request may end.
pub const TERMINATE_MAX: usize = 256;

/// What an operator asks of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// The next sessions by call ID, at most [`PAGE_SESSIONS`].
    Sessions {
        /// Call ID of the last one of the page before.
        after: Option<u16>,
    },
    /// Ends these sessions.
    Terminate {
        /// At most [`TERMINATE_MAX`].
        sessions: Vec<SessionName>,
        /// At once, instead of in order.
        hard: bool,
    },
    /// How full the address pools are.
    Pools,
    /// Reads the configuration and the secrets again.
    Reload,
    /// Takes no more calls, and ends when there are none left.
    Drain {
        /// Takes calls again.
        cancel: bool,
    },
    /// How far that has come.
    Progress,
}

impl Order {
    /// Whether it changes anything, in words for the log.
    #[must_use]
    pub fn change(&self) -> Option<String> {
        match self {
            Self::Sessions { .. } | Self::Pools | Self::Progress => None,
            Self::Terminate { sessions, hard } => {
                let how = if *hard { "at once" } else { "in order" };
                let count = sessions.len();
                let first = sessions.first().map_or("", |name| name.sid.as_str());
                let more = if count > 1 { " and others" } else { "" };
                Some(format!("ends {count} sessions {how}: {first}{more}"))
            }
            Self::Reload => Some("reads the configuration again".to_owned()),
            Self::Drain { cancel: false } => Some("drains the server".to_owned()),
            Self::Drain { cancel: true } => Some("no longer drains the server".to_owned()),
        }
    }
}

/// Names one session for certain: call IDs are used again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionName {
    /// Ours.
    pub call_id: u16,
    /// 16 hexadecimal digits.
    pub sid: String,
}

/// One session. Sizes are in octets; `rx` is what came from the client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// 16 hexadecimal digits, never used again.
    pub sid: String,
    /// Ours.
    pub call_id: u16,
    /// Theirs.
    pub peer_call_id: Option<u16>,
    /// Which worker carries it.
    pub worker: u16,
    /// TUN interface.
    pub interface: String,
    /// Name that the client proved to be its own.
    pub user: String,
    /// Outer address of the client.
    pub peer: String,
    /// Outer address that it called.
    pub called: String,
    /// Host Name that it gave.
    pub host_name: String,
    /// Our address inside, when up.
    pub local_ip: Option<String>,
    /// The client's address inside, when up.
    pub ip: Option<String>,
    /// Its link-local address, when IPv6 is up.
    pub ip6: Option<String>,
    /// `start`, `active`, `finish`.
    pub state: String,
    /// Seconds since the call came.
    pub uptime_s: u64,
    /// `MPPE 128-bit stateless`, `none`.
    pub cipher: Option<String>,
    /// `down/up` in kbit/s.
    pub rate_limit: Option<String>,
    /// IP packets from the client.
    pub rx_bytes: u64,
    /// IP packets from the client.
    pub rx_packets: u64,
    /// IP packets to the client.
    pub tx_bytes: u64,
    /// IP packets to the client.
    pub tx_packets: u64,
    /// GRE packets that never came.
    pub lost: u64,
    /// Packets put back into order.
    pub reordered: u64,
    /// Packets dropped, for whatever reason.
    pub dropped: u64,
    /// Times MPPE had to be brought back into step.
    pub mppe_resyncs: u64,
    /// What each phase of the set-up took, in the order of `SetupPhase`.
    pub setup: Vec<PhaseTime>,
}

impl SessionRecord {
    /// Fills in what the session has carried.
    pub(crate) fn count(&mut self, counters: &SessionCounters) {
        self.rx_bytes = counters.received_bytes.get();
        self.rx_packets = counters.received_packets.get();
        self.tx_bytes = counters.sent_bytes.get();
        self.tx_packets = counters.sent_packets.get();
        self.lost = counters.lost.get();
        self.reordered = counters.reordered.get();
        self.dropped = counters.dropped.get() + counters.send_dropped.get();
        self.mppe_resyncs = counters.resyncs.get();
    }

    /// For orders about it.
    #[must_use]
    pub fn name(&self) -> SessionName {
        SessionName {
            call_id: self.call_id,
            sid: self.sid.clone(),
        }
    }
}

/// How long a phase of a session's set-up took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// `control`, `call`, `lcp`, `auth`, `ccp`, `ipcp`.
    pub phase: String,
    /// Microseconds.
    pub took_us: u64,
}

/// Sessions in the order of their call IDs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPage {
    /// Of this page.
    pub sessions: Vec<SessionRecord>,
    /// For the next page; `None` when this is the last.
    pub next: Option<u16>,
}

/// One address pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// What the configuration calls it.
    pub name: String,
    /// Its ranges, as a person writes them.
    pub ranges: String,
    /// Addresses in the ranges.
    pub size: u32,
    /// Those that are given, or set aside.
    pub used: u32,
    /// Those that are to be had.
    pub free: u32,
}

/// How far draining has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// No calls are taken.
    pub is_draining: bool,
    /// Sessions that are left.
    pub sessions: usize,
}

/// What a reload has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Secrets there are now.
    pub secrets: usize,
    /// Settings that differ and need a restart.
    pub needs_restart: Vec<String>,
    /// What a person should know of the new files.
    pub warnings: Vec<String>,
}

/// Whose packets are wanted, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureWish {
    /// At a server: which session. At a client there is one.
    pub session: Option<SessionName>,
    /// Packets after which it ends.
    pub count: Option<u64>,
    /// Milliseconds after which it ends.
    pub duration_ms: Option<u64>,
}
