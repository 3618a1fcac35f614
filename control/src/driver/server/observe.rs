//! Looks on while sessions come and go: how long each phase of a set-up takes, how log-ins and
//! sessions end, and the events of the log. It decides nothing, and learns everything from actions
//! that are carried out anyway.
//!
//! | phase | from | to |
//! | --- | --- | --- |
//! | `control` | TCP is accepted | Start-Control-Connection-Reply |
//! | `call` | that | Outgoing-Call-Reply |
//! | `lcp` | that | LCP is opened |
//! | `auth` | that | everybody has proved who they are |
//! | `ccp` | that | MPPE is agreed |
//! | `ipcp` | that, or `auth` where there is no MPPE | IP flows |
//! | `total` | TCP is accepted | IP flows |

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dataplane::counters::SessionCounters;
use dataplane::program::CallId;
use serde_json::{Map, Value, json};

use super::metrics::Tally;
use super::snapshot::{SHARES, Share, Traffic};
use super::{Server, Session};
use crate::driver::admin::records::PhaseTime;
use crate::driver::engine::Input;
use crate::driver::transport::TransportInput;
use crate::proto::ending::Ending;
use crate::proto::link::Report;
use crate::proto::{Action, ConnectionId};

pub(super) mod handover;

/// Connections whose beginning is remembered until they call; a flood is not timed.
const BEGINNINGS_MAX: usize = 16_384;
/// For so long: after that the endpoint has closed them.
const BEGINNING_LIFE: Duration = Duration::from_secs(120);

/// How a log-in may have come out.
pub(super) const LOG_INS: [&str; 3] = ["accepted", "rejected", "abandoned"];

/// A part of a session's set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Control,
    Call,
    Lcp,
    Auth,
    Ccp,
    Ipcp,
    Total,
}

impl Phase {
    pub(super) const ALL: [Self; 7] = [
        Self::Control,
        Self::Call,
        Self::Lcp,
        Self::Auth,
        Self::Ccp,
        Self::Ipcp,
        Self::Total,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Call => "call",
            Self::Lcp => "lcp",
            Self::Auth => "auth",
            Self::Ccp => "ccp",
            Self::Ipcp => "ipcp",
            Self::Total => "total",
        }
    }
}

/// What is remembered of everything that was seen.
#[derive(Default)]
pub(super) struct Observer {
    beginnings: HashMap<ConnectionId, Beginning>,
    sessions: HashMap<CallId, Seen>,
    pub(super) tally: Tally,
    /// What sessions that have ended have carried, by share.
    ended: [Traffic; SHARES as usize],
    /// Ended, with lines in the log that may still follow.
    gone: Option<CallId>,
}

/// Of a control connection.
struct Beginning {
    accepted: Instant,
    started: Option<Instant>,
}

/// Of a session.
pub(super) struct Seen {
    sid: u64,
    /// Our address that the client called.
    pub(super) called: Option<Ipv4Addr>,
    accepted: Option<Instant>,
    /// When the phase before the present one was over.
    milestone: Instant,
    took: Vec<(Phase, Duration)>,
    is_over: bool,
    login: Login,
}

/// How far a log-in has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Login {
    None,
    Presented,
    Rejected,
    Accepted,
}

impl Observer {
    /// 16 hexadecimal digits, as accel-ppp has them; empty for a session that was never seen.
    pub(super) fn sid(&self, call_id: CallId) -> String {
        let seen = self.sessions.get(&call_id);
        seen.map_or_else(String::new, |seen| format!("{:016x}", seen.sid))
    }

    pub(super) fn session(&self, call_id: CallId) -> Option<&Seen> {
        self.sessions.get(&call_id)
    }

    /// What sessions of one share that have ended have carried.
    pub(super) fn ended(&self, share: u8) -> Traffic {
        self.ended
            .get(usize::from(share))
            .copied()
            .unwrap_or_default()
    }

    /// A happening that the endpoint has not seen yet; `next` names the connection that is
    /// accepted next.
    pub(super) fn look_at(&mut self, input: &Input, next: ConnectionId) {
        let Input::Transport(TransportInput::Accepted { .. }) = input else {
            return;
        };
        self.tally.connections.inc();
        if self.beginnings.len() < BEGINNINGS_MAX {
            let beginning = Beginning {
                accepted: Instant::now(),
                started: None,
            };
            self.beginnings.insert(next, beginning);
        }
    }

    /// Forgets connections that have never called.
    pub(super) fn tidy(&mut self) {
        self.beginnings
            .retain(|_, beginning| beginning.accepted.elapsed() < BEGINNING_LIFE);
    }

    fn install(&mut self, call_id: CallId, connection: ConnectionId, called: Option<Ipv4Addr>) {
        let now = Instant::now();
        let mut seen = Seen {
            sid: rand::random(),
            called,
            accepted: None,
            milestone: now,
            took: Vec::with_capacity(Phase::ALL.len()),
            is_over: false,
            login: Login::None,
        };
        self.tally.calls.inc();
        // Only the first call of a connection had to wait for it.
        if let Some(beginning) = self.beginnings.remove(&connection) {
            let started = beginning.started.unwrap_or(now);
            let (control, call) = (started - beginning.accepted, now - started);
            seen.accepted = Some(beginning.accepted);
            for (phase, took) in [(Phase::Control, control), (Phase::Call, call)] {
                seen.took.push((phase, took));
                self.tally.took(phase, took);
            }
        }
        self.sessions.insert(call_id, seen);
    }

    /// A phase is over, the first time.
    fn reach(&mut self, call_id: CallId, phase: Phase) {
        let Some(seen) = self.sessions.get_mut(&call_id) else {
            return;
        };
        let is_known = seen.took.iter().any(|(known, _)| *known == phase);
        if seen.is_over || is_known {
            return;
        }
        let now = Instant::now();
        seen.took.push((phase, now - seen.milestone));
        self.tally.took(phase, now - seen.milestone);
        seen.milestone = now;
        if phase == Phase::Ipcp {
            seen.is_over = true;
            if let Some(accepted) = seen.accepted {
                seen.took.push((Phase::Total, now - accepted));
                self.tally.took(Phase::Total, now - accepted);
            }
        }
    }

    fn log_in(&mut self, call_id: CallId, next: Login) {
        let Some(seen) = self.sessions.get_mut(&call_id) else {
            return;
        };
        match (seen.login, next) {
            // Challenged again, while the session stands.
            (Login::Accepted, _) => return,
            (_, Login::Accepted) => self.tally.log_in(LOG_INS[0]),
            (_, Login::Rejected) => self.tally.log_in(LOG_INS[1]),
            _ => {}
        }
        seen.login = next;
    }

    fn end(&mut self, call_id: CallId, ending: &Ending, counters: Option<&SessionCounters>) {
        let Some(seen) = self.sessions.remove(&call_id) else {
            return;
        };
        if seen.login == Login::Presented {
            self.tally.log_in(LOG_INS[2]);
        }
        self.tally.end(cause(ending));
        let share = share_of(call_id);
        if let (Some(ended), Some(counters)) = (self.ended.get_mut(usize::from(share)), counters) {
            ended.count(counters);
        }
    }
}

impl Seen {
    /// What each phase took, as far as it has come.
    pub(super) fn setup(&self) -> Vec<PhaseTime> {
        let took = self.took.iter().map(|(phase, took)| PhaseTime {
            phase: phase.name().to_owned(),
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        });
        took.collect()
    }
}

impl Server {
    /// Looks at what is about to be carried out.
    pub(super) fn observe(&mut self, action: &Action) {
        if let Some(gone) = self.observer.gone.take() {
            self.log.forget(gone.0);
        }
        while let Some(call_id) = self.engine.next_rejected() {
            self.observer.log_in(call_id, Login::Rejected);
        }
        match action {
            Action::SendControl { connection, .. } => {
                let beginning = self.observer.beginnings.get_mut(connection);
                if let Some(beginning) = beginning {
                    beginning.started.get_or_insert_with(Instant::now);
                }
            }
            Action::Install {
                call_id,
                connection,
                peer,
                ..
            } => {
                let called = self.engine.called(*connection);
                self.observer.install(*call_id, *connection, called);
                let session = self.observer.sid(*call_id);
                self.log.know(call_id.0, |facts| {
                    facts.session = session;
                    facts.call_id = call_id.0;
                    facts.peer = peer.to_string();
                });
                if self.may_say(*call_id) {
                    self.log.event(call_id.0, "call", Map::new());
                }
            }
            Action::Authenticate { call_id, .. } => {
                self.observer.log_in(*call_id, Login::Presented);
            }
            Action::Report { call_id, report } => self.observe_report(*call_id, report),
            Action::NetworkUp { call_id, network } => {
                self.observer.reach(*call_id, Phase::Ipcp);
                self.log.know(call_id.0, |facts| {
                    facts.address = Some(network.remote.to_string());
                });
                let cipher = json!(network.cipher);
                self.log
                    .event(call_id.0, "up", details([("cipher", cipher)]));
            }
            Action::NetworkDown { call_id } => {
                let carried = self.carried(*call_id);
                self.log.event(call_id.0, "down", carried);
            }
            Action::Ended { call_id, ending } => {
                let counters = self.engine.counters(*call_id).map(AsRef::as_ref);
                self.observer.end(*call_id, ending, counters);
                let mut said = self.carried(*call_id);
                said.insert("cause".to_owned(), json!(cause(ending)));
                said.insert("reason".to_owned(), json!(ending.to_string()));
                if self.may_say(*call_id) {
                    self.log.event(call_id.0, "ended", said);
                }
                self.observer.gone = Some(*call_id);
            }
            _ => {}
        }
    }

    fn observe_report(&mut self, call_id: CallId, report: &Report) {
        match report {
            Report::LinkUp => self.observer.reach(call_id, Phase::Lcp),
            Report::NetworkPhase => self.observer.reach(call_id, Phase::Auth),
            Report::CipherUp(_) => self.observer.reach(call_id, Phase::Ccp),
            Report::PeerAuthenticated(name) => {
                self.observer.log_in(call_id, Login::Accepted);
                self.log
                    .know(call_id.0, |facts| facts.user = Some(name.clone()));
                self.log.event(call_id.0, "authenticated", Map::new());
            }
            Report::Line(_) => {}
        }
    }

    fn carried(&self, call_id: CallId) -> Map<String, Value> {
        let counters = self.engine.counters(call_id).filter(|_| self.log.is_json());
        counters.map_or_else(Map::new, |counters| {
            details([
                ("received_bytes", json!(counters.received_bytes.get())),
                ("received_packets", json!(counters.received_packets.get())),
                ("sent_bytes", json!(counters.sent_bytes.get())),
                ("sent_packets", json!(counters.sent_packets.get())),
                ("lost", json!(counters.lost.get())),
            ])
        })
    }

    /// One share of the sessions, for metrics.
    pub(super) fn share(&self, share: u8) -> Share {
        let mut sum = Share {
            traffic: self.observer.ended(share),
            ..Share::default()
        };
        let width = u16::MAX / u16::from(SHARES) + 1;
        let first = u16::from(share % SHARES) * width;
        for call_id in first..=first + (width - 1) {
            let call_id = CallId(call_id);
            let Some(session) = self.sessions.get(&call_id) else {
                continue;
            };
            sum.active += usize::from(session.network.is_some());
            sum.starting += usize::from(session.network.is_none());
            if let Some(counters) = self.engine.counters(call_id) {
                sum.traffic.count(counters);
            }
        }
        sum
    }
}

impl Session {
    /// accel-ppp's words: `start`, `active`.
    pub(super) const fn state(&self) -> &'static str {
        match self.network {
            Some(_) => "active",
            None => "start",
        }
    }
}

/// Which share a session falls into.
const fn share_of(call_id: CallId) -> u8 {
    (call_id.0 >> 12) as u8
}

const _: () = assert!(share_of(CallId(u16::MAX)) == SHARES - 1);

fn details<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    let owned = pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    owned.collect()
}

/// All that [`cause`] says.
pub(super) const CAUSES: [&str; 11] = [
    "admin",
    "peer",
    "lost",
    "gre_silent",
    "auth",
    "mppe",
    "no_address",
    "idle",
    "session_time",
    "negotiation",
    "protocol",
];

/// How sessions end, in a word.
pub(super) const fn cause(ending: &Ending) -> &'static str {
    match ending {
        Ending::LocalRequest(_) => "admin",
        Ending::PeerRequest(_) => "peer",
        Ending::ControlLost(_) | Ending::ControlTimeout(_) | Ending::PeerDead(_) => "lost",
        Ending::GreSilent { .. } => "gre_silent",
        Ending::PeerAuthFailed(_)
        | Ending::AuthFailed(_)
        | Ending::PasswordExpired { .. }
        | Ending::PasswordNotChanged(_)
        | Ending::NoSecret { .. } => "auth",
        Ending::MppeRefused { .. } => "mppe",
        Ending::NoAddresses(_) => "no_address",
        Ending::IdleTimeout => "idle",
        Ending::ConnectTimeout => "session_time",
        Ending::TrafficLimit => "quota",
        Ending::NegotiationFailed(_) | Ending::PeerIncompatible(_) | Ending::LoopedBack => {
            "negotiation"
        }
        Ending::NotPptp(_) | Ending::Refused { .. } | Ending::Unreachable { .. } => "protocol",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_timed_once_and_in_their_order() {
        let (mut observer, call_id) = (Observer::default(), CallId(7));
        let beginning = Beginning {
            accepted: Instant::now(),
            started: None,
        };
        observer.beginnings.insert(ConnectionId(3), beginning);
        observer.install(call_id, ConnectionId(3), None);
        for phase in [Phase::Lcp, Phase::Auth, Phase::Ccp, Phase::Ipcp, Phase::Lcp] {
            observer.reach(call_id, phase);
        }
        // Negotiated again.
        observer.reach(call_id, Phase::Ipcp);
        let setup = observer.session(call_id).unwrap().setup();
        let names: Vec<_> = setup.iter().map(|it| it.phase.as_str()).collect();
        assert_eq!(names, Phase::ALL.map(Phase::name));
        assert!(observer.beginnings.is_empty());
        assert_eq!(observer.sid(call_id).len(), 16);
    }

    #[test]
    fn what_a_session_has_carried_outlives_it() {
        let (mut observer, call_id) = (Observer::default(), CallId(0xF001));
        observer.install(call_id, ConnectionId(3), None);
        let counters = SessionCounters::default();
        counters.sent_bytes.add(1_000);
        observer.end(call_id, &Ending::IdleTimeout, Some(&counters));
        assert_eq!(observer.ended(15).sent_bytes, 1_000);
        assert_eq!(observer.ended(0), Traffic::default());
        assert_eq!(observer.sid(call_id), "");
    }

    #[test]
    fn every_try_to_log_in_has_one_result() {
        let mut observer = Observer::default();
        let results = |observer: &Observer| {
            ["accepted", "rejected", "abandoned"].map(|result| observer.tally.log_ins(result))
        };
        for (call_id, steps, ending) in [
            (
                1,
                &[Login::Presented, Login::Accepted, Login::Presented][..],
                Ending::IdleTimeout,
            ),
            (
                2,
                &[Login::Presented, Login::Rejected],
                Ending::PeerAuthFailed(String::new()),
            ),
            (3, &[Login::Presented], Ending::ControlLost(String::new())),
            (4, &[], Ending::ControlLost(String::new())),
        ] {
            let call_id = CallId(call_id);
            observer.install(call_id, ConnectionId(0), None);
            for step in steps {
                observer.log_in(call_id, *step);
            }
            observer.end(call_id, &ending, None);
        }
        assert_eq!(results(&observer), [1, 1, 1]);
    }
}
