//! What was seen on its way to another process: names of sessions, and counters, which would begin
//! at zero again. Histograms do: whoever reads metrics allows for that.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dataplane::program::CallId;
use serde::{Deserialize, Serialize};

use super::{Login, Observer, Phase, Seen};
use crate::driver::server::Server;
use crate::driver::server::snapshot::Traffic;

/// Of all sessions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::driver::server) struct TallyState {
    connections: u64,
    calls: u64,
    log_ins: Vec<(String, u64)>,
    ended: Vec<(String, u64)>,
    /// By share.
    traffic: Vec<Traffic>,
}

/// Of one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::driver::server) struct SeenState {
    sid: u64,
    called: Option<Ipv4Addr>,
    /// Names of phases, and microseconds.
    took: Vec<(String, u64)>,
}

impl Observer {
    /// Counters.
    pub(in crate::driver::server) fn told(&self) -> TallyState {
        let (log_ins, ended) = self.tally.labelled();
        TallyState {
            connections: self.tally.connections.get(),
            calls: self.tally.calls.get(),
            log_ins,
            ended,
            traffic: self.ended.to_vec(),
        }
    }

    /// A session that is up.
    pub(in crate::driver::server) fn session_told(&self, call_id: CallId) -> Option<SeenState> {
        let seen = self.sessions.get(&call_id)?;
        let took = seen.setup().into_iter();
        Some(SeenState {
            sid: seen.sid,
            called: seen.called,
            took: took.map(|it| (it.phase, it.took_us)).collect(),
        })
    }

    /// Goes on counting where another process left off.
    pub(in crate::driver::server) fn assume(&mut self, state: TallyState) {
        self.tally.connections.inc_by(state.connections);
        self.tally.calls.inc_by(state.calls);
        self.tally.add_labelled(&state.log_ins, &state.ended);
        for (ours, theirs) in self.ended.iter_mut().zip(&state.traffic) {
            ours.add(theirs);
        }
    }

    fn assume_session(&mut self, call_id: CallId, state: SeenState) {
        let phase = |name: &str| Phase::ALL.into_iter().find(|it| it.name() == name);
        let took = state.took.iter();
        let took = took.filter_map(|(name, us)| Some((phase(name)?, Duration::from_micros(*us))));
        let seen = Seen {
            sid: state.sid,
            called: state.called,
            accepted: None,
            milestone: Instant::now(),
            took: took.collect(),
            is_over: true,
            login: Login::Accepted,
        };
        self.sessions.insert(call_id, seen);
    }
}

impl Server {
    /// Knows a session as the other process did, and so does the log.
    pub(in crate::driver::server) fn assume_seen(&mut self, call_id: CallId, state: SeenState) {
        self.observer.assume_session(call_id, state);
        let sid = self.observer.sid(call_id);
        let Some(session) = self.sessions.get(&call_id) else {
            return;
        };
        self.log.know(call_id.0, |facts| {
            facts.session = sid;
            facts.call_id = call_id.0;
            facts.peer.clone_from(&session.peer);
            facts.user = Some(session.attributes.user.clone()).filter(|user| !user.is_empty());
            let network = session.network.as_ref();
            facts.address = network.map(|network| network.agreed.remote.to_string());
        });
    }
}
