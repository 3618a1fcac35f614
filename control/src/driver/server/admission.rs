//! Who may come in: secrets, one session a user or many, addresses.

use std::net::Ipv4Addr;

use dataplane::program::CallId;

use super::attributes::SessionAttributes;
use super::{Action, Event, Server};
use crate::config::server::SingleSession;
use crate::proto::auth::{self, AuthMethod, AuthRequest, MsChapProof, Secrets, Verdict};
use crate::proto::link::Addresses;
use crate::proto::refusal::Refusal;

/// Microsoft's error codes (RFC 2759 6).
pub(super) const WRONG_NAME_OR_PASSWORD: u32 = 691;
pub(super) const NO_DIAL_IN: u32 = 649;

/// What the first of two sessions is told.
pub(super) const REPLACED: &str = "Replaced by a new session";

impl Server {
    /// Answers what a peer presented; what the answer sets off is to be carried out.
    pub(super) fn admit(
        &mut self,
        call_id: CallId,
        request_id: u32,
        request: &AuthRequest,
    ) -> Vec<Action> {
        if let Some(actions) = self.hold_off(call_id, request_id, request) {
            return actions;
        }
        match self.ask_radius(call_id, request_id, request) {
            Some(actions) => actions,
            None => self.admit_by_secrets(call_id, request_id, request),
        }
    }

    /// Holds what a peer presented against the local secrets.
    pub(super) fn admit_by_secrets(
        &mut self,
        call_id: CallId,
        request_id: u32,
        request: &AuthRequest,
    ) -> Vec<Action> {
        let pap = request.method == AuthMethod::Pap;
        let (client, server) = (&request.peer_name, &request.our_name);
        let secret = self.config.secrets.find(client, server, pap);
        let Ok(proof) = auth::verify(request, secret.as_ref()) else {
            let verdict = reject(WRONG_NAME_OR_PASSWORD);
            return self.turn_away(call_id, request_id, client, verdict);
        };
        self.remember_log_in(call_id, client);
        let entry = self.config.secrets.entry(client, server, pap);
        let attributes = SessionAttributes::from_secret(client, entry);
        let message = self.config.welcome.clone();
        self.accept(call_id, request_id, attributes, proof, message)
    }

    /// Gives addresses to a peer that need not prove who it is.
    pub(super) fn assign(&mut self, call_id: CallId) -> Vec<Action> {
        let addresses = self.addresses(call_id, &SessionAttributes::default());
        if addresses.is_none() {
            self.refuse(call_id, Refusal::NoAddress);
            self.say(call_id, "no address left: enlarge the pool");
        }
        self.engine
            .handle_event(Event::Addresses { call_id, addresses })
    }

    /// Answers what a peer presented.
    pub(super) fn tell_verdict(
        &mut self,
        call_id: CallId,
        request_id: u32,
        verdict: Verdict,
    ) -> Vec<Action> {
        self.engine.handle_event(Event::Verdict {
            call_id,
            request_id,
            verdict,
        })
    }

    /// Lets in who has proved who it is, unless this server has no room for it. `proof` is what
    /// MS-CHAP makes keys of, `message` the words for the peer.
    pub(super) fn accept(
        &mut self,
        call_id: CallId,
        request_id: u32,
        mut attributes: SessionAttributes,
        proof: Option<MsChapProof>,
        message: String,
    ) -> Vec<Action> {
        if !self.settle_rates(call_id, &mut attributes) {
            return self.tell_verdict(call_id, request_id, reject(NO_DIAL_IN));
        }
        let others = match self.config.single_session {
            // Nobody asks: looking at all sessions for each that comes would take long with many.
            SingleSession::Allow => Vec::new(),
            _ => self.other_sessions(call_id, &attributes.user),
        };
        let mut actions = Vec::new();
        match self.config.single_session {
            SingleSession::Deny if !others.is_empty() => {
                self.refuse(call_id, Refusal::SecondSession);
                self.say(
                    call_id,
                    "this user has a session already (single_session = \"deny\")",
                );
                return self.tell_verdict(call_id, request_id, reject(NO_DIAL_IN));
            }
            SingleSession::Replace => {
                for call_id in others {
                    let reason = REPLACED.to_owned();
                    actions.extend(self.engine.handle_event(Event::HangUp { call_id, reason }));
                    // Its network goes down before the new one comes up: the address is free.
                    self.hand_over_address(call_id);
                }
            }
            SingleSession::Deny | SingleSession::Allow => {}
        }
        let Some(addresses) = self.addresses(call_id, &attributes) else {
            self.refuse(call_id, Refusal::NoAddress);
            self.say(call_id, "no address left for this user: enlarge the pool");
            actions.extend(self.tell_verdict(call_id, request_id, reject(NO_DIAL_IN)));
            return actions;
        };
        let mppe = attributes.mppe;
        let is_limited_anew = self.is_limited_anew(call_id, &attributes);
        if let Some(session) = self.sessions.get_mut(&call_id) {
            session.attributes = attributes;
        }
        if is_limited_anew {
            self.set_limits(call_id, true);
        }
        let verdict = Verdict::Accept {
            proof,
            message,
            addresses,
            mppe,
        };
        actions.extend(self.engine.handle_event(Event::Verdict {
            call_id,
            request_id,
            verdict,
        }));
        actions
    }

    /// Takes its address from a session that is about to end.
    fn hand_over_address(&mut self, call_id: CallId) {
        let session = self.sessions.get_mut(&call_id);
        let session = session.filter(|session| session.held.is_none());
        if let Some(address) = session.and_then(|session| session.address.take()) {
            self.release_address(address);
        }
    }

    fn other_sessions(&self, call_id: CallId, user: &str) -> Vec<CallId> {
        let same = self
            .sessions
            .iter()
            .filter(|(other, session)| **other != call_id && session.attributes.user == user);
        same.map(|(other, _)| *other).collect()
    }

    /// Addresses for a session. A peer that proves itself again keeps those that it has.
    fn addresses(&mut self, call_id: CallId, attributes: &SessionAttributes) -> Option<Addresses> {
        let remote = self.choose_address(call_id, attributes)?;
        let common = &self.config.link.addresses;
        let or = |given: [Option<Ipv4Addr>; 2], common: [Option<Ipv4Addr>; 2]| {
            if given == [None; 2] { common } else { given }
        };
        Some(Addresses {
            local: self.config.local_for(remote),
            remote,
            accept_local: false,
            accept_remote: remote.is_none(),
            dns: or(attributes.dns, common.dns),
            wins: or(attributes.wins, common.wins),
            ..common.clone()
        })
    }
}

/// With pppd's words to a peer that is turned away.
pub(super) fn reject(code: u32) -> Verdict {
    Verdict::Reject {
        code,
        message: "Access denied".to_owned(),
    }
}
