//! The server's part: verdicts from RADIUS, accounting of sessions, routes to the networks behind
//! clients, and orders from outside.

use std::net::Ipv4Addr;

use bytes::Bytes;
use dataplane::program::CallId;

use super::super::admission::{NO_DIAL_IN, WRONG_NAME_OR_PASSWORD, reject};
use super::super::attributes::{SessionAttributes, SessionRoute};
use super::super::traffic::is_senseless;
use super::super::{Action, Event, Server, ServerError, Session};
use super::accept::{Accepted, Answer, apply};
use super::requests::{Account, Facts, SHUTTING_DOWN, count, terminate_cause};
use super::{Call, Pending, Radius, RadiusEvent, RadiusInput, unix_s};
use crate::proto::auth::{AuthMethod, AuthRequest, Secret, Verdict};
use crate::proto::ending::Ending;
use crate::proto::radius::{Change, Order, RecordKind, SessionKey};
use crate::wire::radius::{AcctStatusType, AttributeList, Code, ErrorCause, Kind, Packet};

/// What a client reads whose session an operator ends by RADIUS.
const DISCONNECTED: &str = "Disconnected by the administrator";

impl Server {
    /// Opens what RADIUS needs, when it is configured.
    pub(in super::super) fn open_radius(&mut self) -> Result<(), ServerError> {
        if let Some(config) = &self.config.radius {
            let radius = Radius::open(config, &self.config.link.name);
            self.radius = Some(radius.map_err(ServerError::Radius)?);
        }
        Ok(())
    }

    /// The same after another process, which hears orders still.
    pub(in super::super) fn open_radius_quietly(&mut self) -> Result<(), ServerError> {
        if let Some(config) = &self.config.radius {
            let radius = Radius::open_quietly(config, &self.config.link.name);
            self.radius = Some(radius.map_err(ServerError::Radius)?);
        }
        Ok(())
    }

    /// Asks the RADIUS servers; `None` when there are none, and the secrets have to answer.
    pub(in super::super) fn ask_radius(
        &mut self,
        call_id: CallId,
        request_id: u32,
        request: &AuthRequest,
    ) -> Option<Vec<Action>> {
        let radius = self.radius.as_mut()?;
        let peer = &self.sessions.get(&call_id)?.peer;
        let call = radius.call(call_id);
        let seen = self.observer.session(call_id);
        call.called = call.called.or_else(|| seen?.called);
        let facts = Facts {
            call_id,
            calling: peer,
            called: call.called,
            acct_session_id: &call.acct_session_id.clone(),
        };
        let state = call.state.take();
        let mtu = self.config.link.lcp.mtu;
        match radius.nas.access(&facts, request, state.as_deref(), mtu) {
            Ok((attributes, password)) => {
                let pending = Pending {
                    call_id,
                    request_id,
                    request: request.clone(),
                };
                radius.ask(pending, attributes, password);
                let mut events = Vec::new();
                radius.settle(&mut events);
                Some(self.handle_radius_events(events))
            }
            Err(why) => {
                self.say(call_id, why);
                let verdict = reject(WRONG_NAME_OR_PASSWORD);
                Some(self.tell_verdict(call_id, request_id, verdict))
            }
        }
    }

    /// Something came from a RADIUS server, or became due.
    pub(in super::super) fn handle_radius(&mut self, input: RadiusInput) -> Vec<Action> {
        let radius = self.radius.as_mut();
        let events = radius.map_or_else(Vec::new, |radius| radius.handle(input));
        self.handle_radius_events(events)
    }

    fn handle_radius_events(&mut self, events: Vec<RadiusEvent>) -> Vec<Action> {
        let mut actions = Vec::new();
        for event in events {
            match event {
                RadiusEvent::Answered {
                    pending,
                    reply,
                    authenticator,
                    secret,
                } => actions.extend(self.hear_answer(&pending, &reply, &authenticator, &secret)),
                RadiusEvent::Failed(pending) => actions.extend(self.hear_nothing(&pending)),
                RadiusEvent::InterimDue(call_id) => self.account_interim(call_id),
                RadiusEvent::Order {
                    datagram,
                    key,
                    order,
                } => {
                    let outcome = self.obey(&key, order, &mut actions);
                    if let Some(radius) = &mut self.radius {
                        radius.answer_order(&datagram, outcome);
                    }
                }
                RadiusEvent::Say(text) => self.log.line(&text),
            }
        }
        actions
    }

    fn hear_answer(
        &mut self,
        pending: &Pending,
        reply: &Bytes,
        authenticator: &[u8; 16],
        secret: &Secret,
    ) -> Vec<Action> {
        let (call_id, request_id) = (pending.call_id, pending.request_id);
        let Ok(packet) = Packet::parse(reply) else {
            return Vec::new();
        };
        let answer = Answer {
            packet,
            authenticator,
            secret: secret.as_bytes(),
            request: &pending.request,
        };
        if let Some(radius) = &mut self.radius {
            let call = radius.call(call_id);
            call.asked = None;
            call.by_secrets = false;
        }
        match (packet.code(), pending.request.method) {
            (Code::ACCESS_ACCEPT, _) => match answer.accepted() {
                Ok(accepted) => {
                    self.remember_log_in(call_id, &pending.request.peer_name);
                    self.accept_by_radius(call_id, request_id, accepted)
                }
                Err(why) => {
                    self.say(call_id, why);
                    self.tell_verdict(call_id, request_id, reject(NO_DIAL_IN))
                }
            },
            (Code::ACCESS_CHALLENGE, AuthMethod::Eap) => {
                let state = packet.find(Kind::STATE).map(<[u8]>::to_vec);
                if let Some(radius) = &mut self.radius {
                    radius.call(call_id).state = state;
                }
                let verdict = Verdict::Continue {
                    request: packet.joined(Kind::EAP_MESSAGE),
                };
                self.tell_verdict(call_id, request_id, verdict)
            }
            // A challenge that only a person could meet is a refusal (RFC 2865 4.4).
            _ => {
                let (code, words) = answer.rejected();
                let Verdict::Reject { message, .. } = reject(WRONG_NAME_OR_PASSWORD) else {
                    return Vec::new();
                };
                let verdict = Verdict::Reject {
                    code: code.unwrap_or(WRONG_NAME_OR_PASSWORD),
                    message: words.unwrap_or(message),
                };
                self.turn_away(call_id, request_id, &pending.request.peer_name, verdict)
            }
        }
    }

    fn accept_by_radius(
        &mut self,
        call_id: CallId,
        request_id: u32,
        accepted: Accepted,
    ) -> Vec<Action> {
        let Accepted {
            mut attributes,
            network,
            proof,
            message,
        } = accepted;
        let mppe = self.config.link.mppe;
        if attributes.mppe.narrow(mppe) != mppe {
            self.say(call_id, &format!("RADIUS: {}", attributes.mppe));
        }
        // A netmask that has our own address in it, or others of the pool, is only decoration.
        let (locals, pools) = (self.config.own_addresses(), &self.config.pools);
        let is_ours = |route: &SessionRoute| {
            locals.iter().any(|local| route.contains(*local))
                || pools
                    .iter()
                    .flat_map(|pool| pool.spec.ranges.ranges())
                    .any(|(first, last)| route.contains(first) || route.contains(last))
        };
        attributes
            .routes
            .extend(network.filter(|route| !is_ours(route)));
        let message = message.unwrap_or_else(|| self.config.welcome.clone());
        self.accept(call_id, request_id, attributes, proof, message)
    }

    /// No server answered: the secrets do, where they may.
    fn hear_nothing(&mut self, pending: &Pending) -> Vec<Action> {
        let (call_id, request_id) = (pending.call_id, pending.request_id);
        let Some(radius) = &mut self.radius else {
            return Vec::new();
        };
        let falls_back = radius.fall_back_to_secrets && pending.request.method != AuthMethod::Eap;
        let call = radius.call(call_id);
        call.asked = None;
        call.by_secrets = falls_back;
        if falls_back {
            self.say(call_id, "no RADIUS server answers: the secrets files do");
            return self.admit_by_secrets(call_id, request_id, &pending.request);
        }
        self.say(call_id, "no RADIUS server answers");
        let verdict = Verdict::Reject {
            code: NO_DIAL_IN,
            message: "No authentication server answers".to_owned(),
        };
        self.tell_verdict(call_id, request_id, verdict)
    }

    /// The network of a session stands.
    pub(in super::super) fn account_start(&mut self, call_id: CallId) {
        let Some(radius) = &mut self.radius else {
            return;
        };
        let (now, interim_ms) = (radius.clock.now(), radius.interim_ms);
        let call = radius.call(call_id);
        if call.started.is_some() {
            return;
        }
        call.started = Some(now);
        let session = self.sessions.get(&call_id);
        call.framed = session.and_then(framed_address);
        let interval_ms = session
            .and_then(|session| session.attributes.interim_interval_ms)
            .or(interim_ms)
            .filter(|ms| *ms < u64::MAX);
        if let (Some(accounting), Some(interval_ms)) = (&mut radius.accounting, interval_ms) {
            accounting.start_interims(now, call_id, interval_ms);
        }
        self.account(call_id, AcctStatusType::Start, None);
    }

    fn account_interim(&mut self, call_id: CallId) {
        self.account(call_id, AcctStatusType::InterimUpdate, None);
    }

    /// A call is over, whether or not it has come to a session.
    pub(in super::super) fn account_stop(&mut self, call_id: CallId, ending: &Ending) {
        self.account(call_id, AcctStatusType::Stop, Some(ending));
        if let Some(radius) = &mut self.radius {
            radius.forget(call_id);
        }
    }

    /// The server stops before these sessions have ended in order.
    pub(in super::super) fn account_rest(&mut self) {
        let rest: Vec<CallId> = self.sessions.keys().copied().collect();
        for call_id in rest {
            self.account_stop(call_id, &Ending::LocalRequest(SHUTTING_DOWN.to_owned()));
        }
    }

    fn account(&mut self, call_id: CallId, status: AcctStatusType, ending: Option<&Ending>) {
        let (Some(radius), Some(session)) = (&mut self.radius, self.sessions.get(&call_id)) else {
            return;
        };
        let Some(Call {
            acct_session_id,
            called,
            by_secrets,
            started: Some(started),
            framed,
            ..
        }) = radius.calls.get(&call_id)
        else {
            return;
        };
        let facts = Facts {
            call_id,
            calling: &session.peer,
            called: *called,
            acct_session_id,
        };
        let account = Account {
            user: &session.attributes.user,
            class: &session.attributes.class,
            address: *framed,
            by_secrets: *by_secrets,
        };
        let mut list = radius.nas.account(&facts, &account);
        list.number(Kind::ACCT_STATUS_TYPE, status as u32);
        list.number(Kind::EVENT_TIMESTAMP, unix_s());
        if status != AcctStatusType::Start
            && let Some(counters) = self.engine.counters(call_id)
        {
            let ms = radius.clock.now().0.saturating_sub(started.0);
            count(&mut list, ms / 1000, counters);
        }
        if let Some(ending) = ending {
            let cause = terminate_cause(ending);
            list.number(Kind::ACCT_TERMINATE_CAUSE, cause as u32);
        }
        let kind = match status {
            AcctStatusType::InterimUpdate => RecordKind::Interim,
            _ => RecordKind::Session,
        };
        self.send_record(kind, list);
    }

    fn send_record(&mut self, kind: RecordKind, list: AttributeList) {
        let Some(radius) = &mut self.radius else {
            return;
        };
        radius.record(kind, list);
        let mut events = Vec::new();
        radius.settle(&mut events);
        for event in events {
            if let RadiusEvent::Say(text) = event {
                self.log.line(&text);
            }
        }
    }

    /// Does what somebody who may has ordered.
    fn obey(
        &mut self,
        key: &SessionKey,
        order: Order,
        actions: &mut Vec<Action>,
    ) -> Result<(), ErrorCause> {
        let meant = self.sessions_of(key);
        if meant.is_empty() {
            return Err(ErrorCause::SessionContextNotFound);
        }
        if let Order::Change(change) = &order
            && is_senseless(change)
        {
            return Err(ErrorCause::InvalidAttributeValue);
        }
        for call_id in meant {
            match &order {
                Order::Disconnect => {
                    self.say(call_id, "RADIUS: Disconnect-Request");
                    let reason = DISCONNECTED.to_owned();
                    actions.extend(self.engine.handle_event(Event::HangUp { call_id, reason }));
                }
                Order::Change(change) => {
                    self.say(call_id, "RADIUS: CoA-Request");
                    self.change_session(call_id, change);
                }
            }
        }
        Ok(())
    }

    /// The one place where what a session may do changes while it stands.
    fn change_session(&mut self, call_id: CallId, change: &Change) {
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        apply(&mut session.attributes, change.clone());
        self.change_limits(call_id, change);
        if let (Some(radius), Some(interval_ms)) = (&mut self.radius, change.interim_interval_ms)
            && let Some(accounting) = &mut radius.accounting
        {
            accounting.stop_interims(call_id);
            if interval_ms < u64::MAX {
                accounting.start_interims(radius.clock.now(), call_id, interval_ms);
            }
        }
    }

    /// Sessions with a network for which all of `key` is true.
    fn sessions_of(&self, key: &SessionKey) -> Vec<CallId> {
        let Some(radius) = &self.radius else {
            return Vec::new();
        };
        let sessions = self.sessions.iter();
        let meant = sessions.filter(|(call_id, session)| {
            session.network.is_some() && is_meant(key, **call_id, session, radius)
        });
        meant.map(|(call_id, _)| *call_id).collect()
    }
}

fn is_meant(key: &SessionKey, call_id: CallId, session: &Session, radius: &Radius) -> bool {
    let is =
        |wanted: &Option<String>, ours: &str| wanted.as_ref().is_none_or(|wanted| wanted == ours);
    let call = radius.calls.get(&call_id);
    let SessionAttributes { user, .. } = &session.attributes;
    is(&key.user_name, user)
        && is(&key.calling_station_id, &session.peer)
        && is(
            &key.acct_session_id,
            call.map_or("", |call| &call.acct_session_id),
        )
        && key
            .framed_ip_address
            .is_none_or(|wanted| framed_address(session) == Some(wanted))
        && key.nas_port.is_none_or(|port| port == u32::from(call_id.0))
}

/// The inner address that the client has.
fn framed_address(session: &Session) -> Option<Ipv4Addr> {
    let agreed = session.network.as_ref().map(|it| it.agreed.remote);
    agreed.or(session.address)
}
