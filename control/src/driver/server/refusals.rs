//! Who is turned away: counted by reason, written down within bounds, and after too many failed
//! log-ins refused before anything is computed or asked.

use std::net::Ipv4Addr;

use dataplane::program::CallId;

use super::admission::{WRONG_NAME_OR_PASSWORD, reject};
use super::quiet::Quiet;
use super::{Action, Server};
use crate::config::server::ServerConfig;
use crate::driver::clock::Clock;
use crate::proto::Time;
use crate::proto::auth::{AuthRequest, Verdict};
use crate::proto::backoff::Backoff;
use crate::proto::ending::Ending;
use crate::proto::refusal::{Refusal, RefusalCounts};
use crate::proto::sources::source_of;

/// What the server remembers of those that it turned away.
pub(super) struct Refusals {
    clock: Clock,
    backoff: Backoff,
    prefix_len: u8,
    /// Beside those of the endpoint.
    counts: RefusalCounts,
    quiet: Quiet,
}

impl Refusals {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            clock: Clock::start(),
            backoff: Backoff::new(config.backoff, rand::random()),
            prefix_len: config.limits.peer_prefix_len,
            counts: RefusalCounts::default(),
            quiet: Quiet::default(),
        }
    }
}

impl Server {
    /// How often each reason has led to a refusal.
    pub(super) fn refusal_counts(&self) -> RefusalCounts {
        self.refusals.counts.plus(self.engine.refusal_counts())
    }

    /// What has been read again counts from now on, for whoever comes.
    pub(super) fn reconfigure_admission(&mut self, new: &ServerConfig) {
        let config = &mut self.config;
        config.access.clone_from(&new.access);
        config.backoff = new.backoff;
        config.limits.adopt(&new.limits);
        self.refusals.backoff.reconfigure(config.backoff);
        self.engine.set_access(config.access.clone());
        self.engine.set_limits(super::endpoint_limits(config));
    }

    /// Writes down whom the endpoint has turned away.
    pub(super) fn hear_refusals(&mut self) {
        while let Some((peer, refusal)) = self.engine.next_refusal() {
            self.notice(peer, refusal);
        }
    }

    /// Writes down what was left out a while ago.
    pub(super) fn sum_refusals_up(&mut self) {
        for line in self.refusals.quiet.sum_up(self.refusals.clock.now()) {
            self.log.line(&line);
        }
    }

    /// The same, whether or not it was a while ago: the server ends.
    pub(super) fn sum_all_refusals_up(&mut self) {
        for line in self.refusals.quiet.sum_up(Time(u64::MAX)) {
            self.log.line(&line);
        }
    }

    fn notice(&mut self, peer: Ipv4Addr, refusal: Refusal) {
        let now = self.refusals.clock.now();
        if self.refusals.quiet.may_notice(now, peer, refusal) {
            self.log.line(&format!("[{peer}] {refusal}"));
        }
    }

    /// Counts somebody whom this server, and not the endpoint, turns away.
    pub(super) fn refuse(&mut self, call_id: CallId, refusal: Refusal) {
        self.refusals.counts.add(refusal);
        if let Some(peer) = self.peer_of(call_id) {
            self.notice(peer, refusal);
        }
    }

    /// A call that ends without ever having had a network, because it went no further.
    pub(super) fn count_stalled(&mut self, call_id: CallId, ending: &Ending) {
        let is_stranger = |call_id| {
            let session = self.sessions.get(call_id);
            session.is_some_and(|it| it.attributes.user.is_empty())
        };
        let is_stalled = matches!(
            ending,
            Ending::NegotiationFailed(_) | Ending::GreSilent { .. }
        );
        if is_stalled && is_stranger(&call_id) {
            self.refuse(call_id, Refusal::CallStalled);
        }
    }

    /// Whether there may be a line about this call: those of sessions may always be, those of
    /// strangers are bounded.
    pub(super) fn may_say(&mut self, call_id: CallId) -> bool {
        let session = self.sessions.get(&call_id);
        let is_stranger = session.is_some_and(|session| session.attributes.user.is_empty());
        match self.peer_of(call_id).filter(|_| is_stranger) {
            Some(peer) => {
                let now = self.refusals.clock.now();
                self.refusals.quiet.may_say(now, peer)
            }
            None => true,
        }
    }

    fn peer_of(&self, call_id: CallId) -> Option<Ipv4Addr> {
        self.sessions.get(&call_id)?.peer.parse().ok()
    }

    fn source_of(&self, call_id: CallId) -> Option<Ipv4Addr> {
        let peer = self.peer_of(call_id)?;
        Some(source_of(peer, self.refusals.prefix_len))
    }

    /// The answer to a log-in that has to wait: the same as to a wrong password, so that guessing
    /// on teaches nothing. Who has a session and only proves itself again is let through.
    pub(super) fn hold_off(
        &mut self,
        call_id: CallId,
        request_id: u32,
        request: &AuthRequest,
    ) -> Option<Vec<Action>> {
        let session = self.sessions.get(&call_id)?;
        if !session.attributes.user.is_empty() {
            return None;
        }
        let source = self.source_of(call_id)?;
        let now = self.refusals.clock.now();
        let checked = self.refusals.backoff.check(now, source, &request.peer_name);
        let (refusal, left_ms) = checked.err()?;
        self.refuse(call_id, refusal);
        let seconds = left_ms.div_ceil(1000);
        self.say(
            call_id,
            &format!("log-in refused unseen for another {seconds} s"),
        );
        let verdict = reject(WRONG_NAME_OR_PASSWORD);
        Some(self.tell_verdict(call_id, request_id, verdict))
    }

    /// Turns away somebody whose name or password is wrong, and remembers that.
    pub(super) fn turn_away(
        &mut self,
        call_id: CallId,
        request_id: u32,
        user: &str,
        verdict: Verdict,
    ) -> Vec<Action> {
        self.refuse(call_id, Refusal::LogIn);
        if let Some(source) = self.source_of(call_id) {
            let now = self.refusals.clock.now();
            let backoff = &mut self.refusals.backoff;
            backoff.failed(now, source, user, rand::random());
        }
        self.tell_verdict(call_id, request_id, verdict)
    }

    /// Somebody has come in under the name that was presented.
    pub(super) fn remember_log_in(&mut self, call_id: CallId, user: &str) {
        if let Some(source) = self.source_of(call_id) {
            self.refusals.backoff.succeeded(source, user);
        }
    }
}
