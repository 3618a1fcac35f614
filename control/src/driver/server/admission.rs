//! Who may come in: secrets, one session a user or many, addresses.

use std::net::Ipv4Addr;

use dataplane::program::CallId;

use super::{Action, Event, Server};
use crate::config::secrets::Entry;
use crate::config::server::SingleSession;
use crate::proto::auth::{self, AuthMethod, AuthRequest, Secrets, Verdict};
use crate::proto::link::Addresses;

/// Microsoft's error codes (RFC 2759 6).
const WRONG_NAME_OR_PASSWORD: u32 = 691;
const NO_DIAL_IN: u32 = 649;

impl Server {
    /// Answers what a peer presented; what the answer sets off is to be carried out.
    pub(super) fn admit(
        &mut self,
        call_id: CallId,
        request_id: u32,
        request: &AuthRequest,
    ) -> Vec<Action> {
        let (verdict, mut actions) = self.judge(call_id, request);
        actions.extend(self.engine.handle_event(Event::Verdict {
            call_id,
            request_id,
            verdict,
        }));
        actions
    }

    /// Gives addresses to a peer that need not prove who it is.
    pub(super) fn assign(&mut self, call_id: CallId) -> Vec<Action> {
        let addresses = self.addresses(call_id, None);
        if addresses.is_none() {
            self.say(call_id, "no address left: enlarge the pool");
        }
        self.engine
            .handle_event(Event::Addresses { call_id, addresses })
    }

    fn judge(&mut self, call_id: CallId, request: &AuthRequest) -> (Verdict, Vec<Action>) {
        let pap = request.method == AuthMethod::Pap;
        let (client, server) = (&request.peer_name, &request.our_name);
        let secret = self.config.secrets.find(client, server, pap);
        let Ok(proof) = auth::verify(request, secret.as_ref()) else {
            return (reject(WRONG_NAME_OR_PASSWORD), Vec::new());
        };
        let others = match self.config.single_session {
            // Nobody asks: looking at all sessions for each that comes would take long with many.
            SingleSession::Allow => Vec::new(),
            _ => self.other_sessions(call_id, client),
        };
        let mut actions = Vec::new();
        match self.config.single_session {
            SingleSession::Deny if !others.is_empty() => {
                self.say(
                    call_id,
                    "this user has a session already (single_session = \"deny\")",
                );
                return (reject(NO_DIAL_IN), Vec::new());
            }
            SingleSession::Replace => {
                for call_id in others {
                    let reason = "Replaced by a new session".to_owned();
                    actions.extend(self.engine.handle_event(Event::HangUp { call_id, reason }));
                }
            }
            SingleSession::Deny | SingleSession::Allow => {}
        }
        let entry = self.config.secrets.entry(client, server, pap);
        let fixed = entry.and_then(Entry::fixed_address);
        let Some(addresses) = self.addresses(call_id, fixed) else {
            self.say(call_id, "no address left for this user: enlarge the pool");
            return (reject(NO_DIAL_IN), actions);
        };
        if let Some(session) = self.sessions.get_mut(&call_id) {
            session.user.clone_from(client);
        }
        let message = self.config.welcome.clone();
        let verdict = Verdict::Accept {
            proof,
            message,
            addresses,
        };
        (verdict, actions)
    }

    fn other_sessions(&self, call_id: CallId, user: &str) -> Vec<CallId> {
        let same = self
            .sessions
            .iter()
            .filter(|(other, session)| **other != call_id && session.user == user);
        same.map(|(other, _)| *other).collect()
    }

    /// Addresses for a session. A peer that proves itself again keeps those that it has.
    fn addresses(&mut self, call_id: CallId, fixed: Option<Ipv4Addr>) -> Option<Addresses> {
        let session = self.sessions.get_mut(&call_id)?;
        let remote = match (session.address, fixed) {
            (Some(held), _) => Some(held),
            (None, Some(fixed)) => Some(self.pool.allocate_fixed(fixed).then_some(fixed)?),
            // pptpd's `delegate`: the client brings its own.
            (None, None) if self.config.delegate => None,
            (None, None) => Some(self.pool.allocate(rand::random())?),
        };
        session.address = remote;
        let index = remote.and_then(|remote| self.config.pool.index_of(remote));
        Some(Addresses {
            local: self.config.local.for_client(index.unwrap_or(0)),
            remote,
            accept_local: false,
            accept_remote: remote.is_none(),
            ..self.config.link.addresses.clone()
        })
    }
}

/// With pppd's words to a peer that is turned away.
fn reject(code: u32) -> Verdict {
    Verdict::Reject {
        code,
        message: "Access denied".to_owned(),
    }
}
