//! One call (RFC 2637 3.2.4, outgoing call, in both roles) and the PPP link that it carries.
//!
//! ```text
//! Caller (the RFC's PNS)  WaitReply -> Established -> WaitDisconnect -> Over
//! Callee (the RFC's PAC)  Established -> Over
//! ```
//!
//! Only outgoing calls exist in virtual private networks: the callee needs no telephone line, so
//! the RFC's wait_cs_ans takes no time and Incoming-Call-Requests are refused by the endpoint.
//!
//! An orderly end goes from the inside out: LCP Terminate, then Call-Clear-Request by the caller
//! and Call-Disconnect-Notify by the callee. WaitReply and WaitDisconnect have a time at which
//! they end; Established ends with the link, whose phases have their own.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::program::{CallId, Command};

use super::connection::refusal;
use super::ending::Ending;
use super::endpoint::{CallPhase, Timers};
use super::link::{Addresses, Link, LinkConfig, LinkOutput, LinkRole, Network, Report};
use super::{Action, ConnectionId, Time, auth, outbox};
use crate::wire::pptp::Text;
use crate::wire::pptp::codes::{DisconnectResult, ErrorCode, OutgoingCallResult};
use crate::wire::pptp::messages::{
    BEARER_ANALOG, BEARER_DIGITAL, CallClearRequest, CallDisconnectNotify, FRAMING_ASYNCHRONOUS,
    FRAMING_SYNCHRONOUS, Message, OutgoingCallReply, OutgoingCallRequest, SetLinkInfo,
};

mod snapshot;

pub(super) use snapshot::CallSnapshot;

/// Minimum and Maximum BPS of our requests, and Connect Speed of our replies. Nobody holds anybody
/// to them.
const BPS_MIN: u32 = 2_400;
const BPS_MAX: u32 = 1_000_000_000;
/// No character is escaped inside GRE, so the ACCM means nothing (RFC 2637 2.15); this is its
/// default.
const ACCM_DEFAULT: u32 = 0xFFFF_FFFF;

/// What a call wants done, in this order.
#[derive(Debug)]
pub(super) enum CallOutput {
    /// Send this over the call's control connection.
    Send(Message),
    /// For the driver.
    Act(Action),
}

/// What a call is made from.
#[derive(Debug)]
pub(super) struct CallSpec {
    pub(super) call_id: CallId,
    pub(super) connection: ConnectionId,
    pub(super) peer: Ipv4Addr,
    pub(super) config: Arc<LinkConfig>,
    pub(super) seed: [u8; 32],
    pub(super) receive_window: u16,
    pub(super) timers: Timers,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    call_id: CallId,
    connection: ConnectionId,
    peer: Ipv4Addr,
    peer_call_id: Option<u16>,
    role: LinkRole,
    state: State,
    link: Link,
    timers: Timers,
    installed_at: Time,
    network: Option<Network>,
    peer_name: Option<String>,
    outputs: VecDeque<CallOutput>,
}

#[derive(Debug)]
enum State {
    /// Outgoing-Call-Request is sent (Caller).
    WaitReply { until: Time },
    /// The link runs.
    Established(Established),
    /// Call-Clear-Request is sent (Caller).
    WaitDisconnect { until: Time, ending: Ending },
    /// `Ended` has been said.
    Over,
}

#[derive(Debug)]
struct Established {
    /// When a person is told that nothing comes over GRE.
    hint_at: Option<Time>,
    /// We asked the link to end: this is why, whatever else happens meanwhile.
    closing: Option<Ending>,
}

impl Call {
    /// Asks for a call: installs the session, then sends Outgoing-Call-Request, because GRE may
    /// come before the reply does.
    pub(super) fn place(now: Time, spec: CallSpec, serial: u16, phone_number: &str) -> Self {
        let until = now.after_ms(spec.timers.call_reply_ms);
        let request = OutgoingCallRequest {
            call_id: spec.call_id.0,
            call_serial_number: serial,
            minimum_bps: BPS_MIN,
            maximum_bps: BPS_MAX,
            bearer: BEARER_ANALOG | BEARER_DIGITAL,
            framing: FRAMING_ASYNCHRONOUS | FRAMING_SYNCHRONOUS,
            receive_window: spec.receive_window,
            processing_delay: 0,
            phone_number_len: u16::try_from(phone_number.len().min(64)).unwrap_or(64),
            phone_number: Text::new(phone_number),
            subaddress: Text::EMPTY,
        };
        let mut call = Self::new(
            now,
            spec,
            LinkRole::Caller,
            State::WaitReply { until },
            None,
        );
        call.send(request);
        call
    }

    /// Accepts a call: installs the session, replies, and starts the link.
    pub(super) fn answer(now: Time, spec: CallSpec, request: &OutgoingCallRequest) -> Self {
        let reply = OutgoingCallReply {
            call_id: spec.call_id.0,
            peer_call_id: request.call_id,
            result: OutgoingCallResult::CONNECTED,
            error: ErrorCode::NONE,
            cause_code: 0,
            connect_speed: BPS_MAX.min(request.maximum_bps),
            receive_window: spec.receive_window,
            processing_delay: 0,
            physical_channel_id: 0,
        };
        let state = State::Established(Established {
            hint_at: None,
            closing: None,
        });
        let mut call = Self::new(now, spec, LinkRole::Callee, state, Some(request.call_id));
        call.send(reply);
        call.link.handle_up(now);
        call.drain_link(now);
        call
    }

    fn new(
        now: Time,
        spec: CallSpec,
        role: LinkRole,
        state: State,
        peer_call_id: Option<u16>,
    ) -> Self {
        let mut call = Self {
            call_id: spec.call_id,
            connection: spec.connection,
            peer: spec.peer,
            peer_call_id,
            role,
            state,
            link: Link::new(spec.config, role, spec.seed),
            timers: spec.timers,
            installed_at: now,
            network: None,
            peer_name: None,
            outputs: VecDeque::new(),
        };
        call.act(Action::Install {
            call_id: spec.call_id,
            connection: spec.connection,
            peer: spec.peer,
            peer_call_id,
        });
        call
    }

    pub(super) const fn call_id(&self) -> CallId {
        self.call_id
    }

    pub(super) const fn connection(&self) -> ConnectionId {
        self.connection
    }

    pub(super) const fn peer(&self) -> Ipv4Addr {
        self.peer
    }

    pub(super) const fn peer_call_id(&self) -> Option<u16> {
        self.peer_call_id
    }

    pub(super) const fn is_outgoing(&self) -> bool {
        matches!(self.role, LinkRole::Caller)
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(super) const fn installed_at(&self) -> Time {
        self.installed_at
    }

    pub(super) const fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    pub(super) fn peer_name(&self) -> Option<&str> {
        self.peer_name.as_deref()
    }

    pub(super) const fn phase(&self) -> CallPhase {
        match &self.state {
            State::WaitReply { .. } => CallPhase::Calling,
            State::Established(established) if established.closing.is_some() => CallPhase::Ending,
            State::Established(_) if self.network.is_some() => CallPhase::Up,
            State::Established(_) => CallPhase::Negotiating,
            State::WaitDisconnect { .. } | State::Over => CallPhase::Ending,
        }
    }

    /// Outgoing-Call-Reply.
    ///
    /// # Errors
    /// When no reply is due: the connection is to be closed (RFC 2637 3).
    pub(super) fn handle_reply(
        &mut self,
        now: Time,
        reply: &OutgoingCallReply,
    ) -> Result<(), Ending> {
        match &self.state {
            State::WaitReply { .. } if reply.result == OutgoingCallResult::CONNECTED => {
                self.establish(now, reply.call_id);
            }
            State::WaitReply { .. } => self.end(Ending::Refused {
                what: "the call",
                why: refusal(reply.result, OutgoingCallResult::GENERAL_ERROR, reply.error),
            }),
            // It crossed our Call-Clear-Request; the Call-Disconnect-Notify will bear this ID.
            State::WaitDisconnect { .. } => self.peer_call_id = Some(reply.call_id),
            State::Established(_) | State::Over => {
                return Err(Ending::NotPptp(
                    "Outgoing-Call-Reply came twice for one call".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn establish(&mut self, now: Time, peer_call_id: u16) {
        self.peer_call_id = Some(peer_call_id);
        self.act(Action::Dataplane(Command::SetPeerCallId {
            call_id: self.call_id,
            peer_call_id,
        }));
        self.send(SetLinkInfo {
            peer_call_id,
            send_accm: ACCM_DEFAULT,
            receive_accm: ACCM_DEFAULT,
        });
        self.state = State::Established(Established {
            hint_at: Some(now.after_ms(self.timers.gre_hint_ms)),
            closing: None,
        });
        self.link.handle_up(now);
        self.drain_link(now);
    }

    /// Call-Clear-Request, which is the caller's to send; from a callee it means the same.
    pub(super) fn handle_clear_request(&mut self, now: Time) {
        if let Some(peer_ending) = self.ending_by_peer(now, "Call-Clear-Request".to_owned()) {
            self.take_link_down(now);
            self.send_disconnect(DisconnectResult::REQUEST);
            self.end(peer_ending);
        }
    }

    /// Call-Disconnect-Notify, which is the callee's to send; from a caller it means the same.
    pub(super) fn handle_disconnect_notify(&mut self, now: Time, notify: &CallDisconnectNotify) {
        let why = refusal(notify.result, DisconnectResult::GENERAL_ERROR, notify.error);
        let words = format!("Call-Disconnect-Notify, {why}");
        if let Some(peer_ending) = self.ending_by_peer(now, words) {
            self.take_link_down(now);
            self.end(peer_ending);
        }
    }

    /// The control connection is gone or about to be, and the call with it.
    pub(super) fn handle_lost(&mut self, now: Time, lost: Ending) {
        let ending = match lost {
            Ending::PeerRequest(words) => self.ending_by_peer(now, words),
            Ending::ControlLost(words) if self.is_silent(now) => self.ending_by_peer(now, words),
            lost => self.ending_so_far().or(Some(lost)),
        };
        if let Some(ending) = ending.filter(|_| !self.is_over()) {
            self.take_link_down(now);
            self.end(ending);
        }
    }

    /// Why a call ends that the peer brings to its end: for our own reason if we had one first,
    /// and for silence on GRE if the peer got as little from us as we from it. `None` when over.
    fn ending_by_peer(&self, now: Time, words: String) -> Option<Ending> {
        if self.is_over() {
            return None;
        }
        let by_peer = if self.is_silent(now) {
            self.gre_silent()
        } else {
            Ending::PeerRequest(words)
        };
        Some(self.ending_so_far().unwrap_or(by_peer))
    }

    fn ending_so_far(&self) -> Option<Ending> {
        match &self.state {
            State::Established(established) => {
                let closing = established.closing.as_ref();
                closing.or_else(|| self.link.ending_so_far()).cloned()
            }
            State::WaitDisconnect { ending, .. } => Some(ending.clone()),
            State::WaitReply { .. } | State::Over => None,
        }
    }

    /// Whether the link has waited long without a single frame.
    fn is_silent(&self, now: Time) -> bool {
        let long_enough = self.installed_at.after_ms(self.timers.gre_hint_ms) <= now;
        matches!(self.state, State::Established(_)) && long_enough && !self.link.heard_anything()
    }

    fn gre_silent(&self) -> Ending {
        Ending::GreSilent {
            server: self.peer.to_string(),
        }
    }

    /// A PPP frame came. Before the reply the link keeps it.
    pub(super) fn handle_frame(&mut self, now: Time, frame: &[u8]) {
        if matches!(self.state, State::WaitReply { .. } | State::Established(_)) {
            self.link.handle_frame(now, frame);
            self.drain_link(now);
        }
    }

    /// Packets came from the peer.
    pub(super) fn handle_alive(&mut self, now: Time, has_traffic: bool) {
        self.with_link(now, |link| link.handle_alive(now, has_traffic));
    }

    /// The stateful decryptor lost its place.
    pub(super) fn handle_reset_needed(&mut self, now: Time) {
        self.with_link(now, |link| link.handle_reset_needed(now));
    }

    /// The peer's MPPE counter and ours have parted for good.
    pub(super) fn handle_mppe_lost(&mut self, now: Time) {
        self.with_link(now, |link| link.handle_mppe_lost(now));
    }

    /// What the secrets said.
    pub(super) fn handle_verdict(&mut self, now: Time, request_id: u32, verdict: auth::Verdict) {
        self.with_link(now, |link| link.handle_verdict(now, request_id, verdict));
    }

    /// What the pool has for a peer that need not prove itself.
    pub(super) fn handle_addresses(&mut self, now: Time, addresses: Option<Addresses>) {
        self.with_link(now, |link| link.handle_addresses(now, addresses));
    }

    fn with_link(&mut self, now: Time, handle: impl FnOnce(&mut Link)) {
        if matches!(self.state, State::Established(_)) {
            handle(&mut self.link);
            self.drain_link(now);
        }
    }

    /// Somebody on this side wants the call to end, in order. A second time changes nothing.
    pub(super) fn hang_up(&mut self, now: Time, reason: &str) {
        let ending = Ending::LocalRequest(reason.to_owned());
        match &mut self.state {
            State::WaitReply { .. } => self.clear(now, ending),
            State::Established(established) if established.closing.is_none() => {
                established.closing = Some(ending.clone());
                self.link.handle_close(now, reason, ending);
                self.drain_link(now);
            }
            State::Established(_) | State::WaitDisconnect { .. } | State::Over => {}
        }
    }

    /// Somebody on this side wants the call to end at once: the other end is told on the control
    /// connection, and not waited for.
    pub(super) fn cut(&mut self, now: Time, reason: &str) {
        if self.is_over() {
            return;
        }
        match self.role {
            LinkRole::Caller => self.send(CallClearRequest {
                call_id: self.call_id.0,
            }),
            LinkRole::Callee => self.send_disconnect(DisconnectResult::ADMIN_SHUTDOWN),
        }
        self.take_link_down(now);
        self.end(Ending::LocalRequest(reason.to_owned()));
    }

    /// The moment of `poll_timeout` has come; too early is harmless.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        match &mut self.state {
            State::WaitReply { until } if *until <= now => {
                self.end(Ending::ControlTimeout("Outgoing-Call-Request"));
            }
            State::WaitDisconnect { until, ending } if *until <= now => {
                let ending = ending.clone();
                self.end(ending);
            }
            State::Established(established) => {
                if established.hint_at.is_some_and(|at| at <= now) {
                    established.hint_at = None;
                    self.give_hint();
                }
                self.link.handle_timeout(now);
                self.drain_link(now);
            }
            State::WaitReply { .. } | State::WaitDisconnect { .. } | State::Over => {}
        }
    }

    /// When `handle_timeout` is due.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match &self.state {
            State::WaitReply { until } | State::WaitDisconnect { until, .. } => Some(*until),
            State::Established(established) => {
                let times = [established.hint_at, self.link.poll_timeout()];
                times.into_iter().flatten().min()
            }
            State::Over => None,
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<CallOutput> {
        outbox::pop(&mut self.outputs)
    }

    fn give_hint(&mut self) {
        if self.link.heard_anything() {
            return;
        }
        let line = format!(
            "still no answer over GRE (IP protocol 47) from {}: a firewall or NAT on the way may \
             drop it",
            self.peer
        );
        self.report(Report::Line(line));
    }

    fn drain_link(&mut self, now: Time) {
        let call_id = self.call_id;
        while let Some(output) = self.link.poll_output() {
            match output {
                LinkOutput::Frame(frame) => self.program(Command::Inject { call_id, frame }),
                LinkOutput::SetReceiveKey(mppe) => {
                    self.program(Command::SetReceiveKey { call_id, mppe });
                }
                LinkOutput::SetSendKey(mppe) => self.program(Command::SetSendKey { call_id, mppe }),
                LinkOutput::ResetSendKey => self.program(Command::ResetSendKey { call_id }),
                LinkOutput::Authenticate {
                    request_id,
                    request,
                } => self.act(Action::Authenticate {
                    call_id,
                    request_id,
                    request,
                }),
                LinkOutput::AssignAddresses => self.act(Action::AssignAddresses { call_id }),
                LinkOutput::Report(report) => self.report(report),
                LinkOutput::PrepareNetwork(network) => {
                    self.act(Action::PrepareNetwork { call_id, network });
                }
                LinkOutput::NetworkUp(network) => self.network_up(network),
                LinkOutput::NetworkDown => self.network_down(),
                LinkOutput::Ipv6Up(ipv6) => self.act(Action::Ipv6Up { call_id, ipv6 }),
                LinkOutput::Ipv6Down => self.act(Action::Ipv6Down { call_id }),
                LinkOutput::Terminated(ending) => return self.handle_terminated(now, ending),
            }
        }
    }

    fn handle_terminated(&mut self, now: Time, ending: Ending) {
        let silent = !self.link.heard_anything();
        let ending = match ending {
            Ending::NegotiationFailed(_) if silent => self.gre_silent(),
            ending => self.ending_so_far().unwrap_or(ending),
        };
        match self.role {
            LinkRole::Caller => self.clear(now, ending),
            LinkRole::Callee => {
                self.send_disconnect(disconnect_result(&ending));
                self.end(ending);
            }
        }
    }

    /// Sends Call-Clear-Request and waits for Call-Disconnect-Notify (Caller).
    fn clear(&mut self, now: Time, ending: Ending) {
        self.network_down();
        self.send(CallClearRequest {
            call_id: self.call_id.0,
        });
        let until = now.after_ms(self.timers.clear_ms);
        self.state = State::WaitDisconnect { until, ending };
    }

    fn send_disconnect(&mut self, result: DisconnectResult) {
        self.send(CallDisconnectNotify {
            call_id: self.call_id.0,
            result,
            error: ErrorCode::NONE,
            cause_code: 0,
            call_statistics: Text::EMPTY,
        });
    }

    /// Tells the link that nothing can be sent any more. What it still wants done concerns only
    /// this side.
    fn take_link_down(&mut self, now: Time) {
        self.link.handle_down(now);
        while let Some(output) = self.link.poll_output() {
            match output {
                LinkOutput::NetworkDown => self.network_down(),
                LinkOutput::Report(report) => self.report(report),
                _ => {}
            }
        }
    }

    fn network_up(&mut self, network: Network) {
        self.network = Some(network.clone());
        self.act(Action::NetworkUp {
            call_id: self.call_id,
            network,
        });
    }

    fn network_down(&mut self) {
        if self.network.take().is_some() {
            self.act(Action::NetworkDown {
                call_id: self.call_id,
            });
        }
    }

    fn end(&mut self, ending: Ending) {
        debug_assert!(!self.is_over());
        self.network_down();
        self.state = State::Over;
        self.act(Action::Ended {
            call_id: self.call_id,
            ending,
        });
    }

    fn report(&mut self, report: Report) {
        if let Report::PeerAuthenticated(name) = &report {
            self.peer_name = Some(name.clone());
        }
        self.act(Action::Report {
            call_id: self.call_id,
            report,
        });
    }

    fn program(&mut self, command: Command) {
        self.act(Action::Dataplane(command));
    }

    fn send(&mut self, message: impl Into<Message>) {
        self.outputs.push_back(CallOutput::Send(message.into()));
    }

    fn act(&mut self, action: Action) {
        self.outputs.push_back(CallOutput::Act(action));
    }
}

/// RFC 2637 2.13: what the caller is told about the end.
const fn disconnect_result(ending: &Ending) -> DisconnectResult {
    match ending {
        Ending::LocalRequest(_) => DisconnectResult::ADMIN_SHUTDOWN,
        _ => DisconnectResult::LOST_CARRIER,
    }
}
