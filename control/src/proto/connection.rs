//! One control connection (RFC 2637 3.1): its start, keep-alive and stop, in both roles.
//!
//! ```text
//! Originator  Connecting -> WaitCtlReply -\
//!                                          >-> Established -> WaitStopReply -> Closed
//! Receiver    WaitCtlRequest -------------/
//! ```
//!
//! What concerns a call is passed on as [`ConnectionOutput::Call`] and not looked into. Every
//! state but Established has a time at which it ends, and Established is kept by echo.
//!
//! Start collisions (3.1.3): the RFC wants one control connection between two hosts and lets the
//! higher address win. Here every dial has a connection of its own and every accepted connection
//! is served for itself, as all known peers do: with one connection a pair of addresses, two
//! clients behind one NAT could never be served. So a collision is not looked for, and its loser
//! is not closed: both connections go on, each with its own calls.

use std::collections::VecDeque;
use std::fmt::Display;

use bytes::Bytes;

use super::ending::Ending;
use super::endpoint::{EndpointConfig, Timers};
use super::refusal::Refusal;
use super::{Time, outbox};
use crate::wire::pptp::codes::{EchoResult, ErrorCode, StartResult, StopReason, StopResult};
use crate::wire::pptp::messages::{
    BEARER_ANALOG, BEARER_DIGITAL, EchoReply, EchoRequest, FRAMING_ASYNCHRONOUS,
    FRAMING_SYNCHRONOUS, Message, StartControlConnectionReply, StartControlConnectionRequest,
    StopControlConnectionReply, StopControlConnectionRequest,
};
use crate::wire::pptp::{MESSAGE_LEN_MAX, PROTOCOL_VERSION, Text, next_message};

mod snapshot;

pub(super) use snapshot::ConnectionSnapshot;

/// What a connection wants done, in this order.
#[derive(Debug)]
pub(super) enum ConnectionOutput {
    /// Send these octets.
    Send(Bytes),
    /// The other end has been started with: calls can be made.
    Established,
    /// A message about a call.
    Call(Message),
    /// Of no use from now on: calls on it end.
    Lost(Ending),
    /// Close TCP; nothing follows.
    Close,
}

/// Who opened the TCP connection (RFC 2637 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionRole {
    /// We did.
    Originator,
    /// The other end did.
    Receiver,
}

/// What both Start-Control-Connection messages say of us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) host_name: Text<64>,
    pub(super) vendor: Text<64>,
    pub(super) maximum_channels: u16,
    /// Whether others may start a connection with us.
    pub(super) is_accepting: bool,
}

impl Identity {
    pub(super) fn new(config: &EndpointConfig) -> Self {
        Self {
            host_name: Text::new(&config.host_name),
            vendor: Text::new(&config.vendor),
            // Only a PAC has channels; a client leaves 0.
            maximum_channels: config.link.as_ref().map_or(0, |_| {
                u16::try_from(config.limits.calls_per_connection_max).unwrap_or(u16::MAX)
            }),
            is_accepting: true,
        }
    }
}

/// One control connection.
#[derive(Debug)]
pub(super) struct Connection {
    state: State,
    role: ConnectionRole,
    /// Where TCP leads, in words for endings.
    peer: String,
    peer_host_name: String,
    timers: Timers,
    /// The front part of a message: always shorter than a whole one.
    partial: Vec<u8>,
    outputs: VecDeque<ConnectionOutput>,
    /// It has carried a call.
    has_called: bool,
    /// Why we gave it up, where that was the other end's fault.
    refusal: Option<Refusal>,
}

#[derive(Debug)]
enum State {
    /// TCP is being connected (Originator).
    Connecting { until: Time },
    /// Start-Control-Connection-Request is sent (Originator).
    WaitCtlReply { until: Time },
    /// The RFC's idle: nothing has come yet (Receiver).
    WaitCtlRequest { until: Time },
    /// Calls can be made.
    Established(Established),
    /// Stop-Control-Connection-Request is sent.
    WaitStopReply { until: Time },
    /// Nothing may be sent or received.
    Closed,
}

#[derive(Debug)]
struct Established {
    /// When Echo-Request is due if nothing comes.
    echo_at: Time,
    /// When the connection is given up: an Echo-Request waits for its reply.
    dead_at: Option<Time>,
    /// Identifier of the last Echo-Request.
    echo_identifier: u32,
    /// When the connection is stopped because it carries no call (Receiver).
    idle_until: Option<Time>,
}

impl Connection {
    /// For a TCP connection that is being opened.
    pub(super) fn originate(now: Time, peer: String, timers: Timers) -> Self {
        let until = now.after_ms(timers.connect_ms);
        Self::new(
            ConnectionRole::Originator,
            State::Connecting { until },
            peer,
            timers,
        )
    }

    /// For a TCP connection that the other end opened.
    pub(super) fn receive(now: Time, peer: String, timers: Timers) -> Self {
        let until = now.after_ms(timers.start_ms);
        Self::new(
            ConnectionRole::Receiver,
            State::WaitCtlRequest { until },
            peer,
            timers,
        )
    }

    fn new(role: ConnectionRole, state: State, peer: String, timers: Timers) -> Self {
        Self {
            state,
            role,
            peer,
            peer_host_name: String::new(),
            timers,
            partial: Vec::new(),
            outputs: VecDeque::new(),
            has_called: false,
            refusal: None,
        }
    }

    pub(super) const fn role(&self) -> ConnectionRole {
        self.role
    }

    /// Host Name that the other end gave; empty before it did.
    pub(super) fn peer_host_name(&self) -> &str {
        &self.peer_host_name
    }

    /// Why this side gave it up, where that was the other end's fault.
    pub(super) const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    pub(super) const fn is_established(&self) -> bool {
        matches!(self.state, State::Established(_))
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// TCP stands (Originator): Start-Control-Connection-Request goes out.
    pub(super) fn handle_connected(&mut self, now: Time, identity: &Identity) {
        if !matches!(self.state, State::Connecting { .. }) {
            return;
        }
        self.send(start_request(identity));
        self.state = State::WaitCtlReply {
            until: now.after_ms(self.timers.start_ms),
        };
    }

    /// TCP is gone, or never came to be.
    pub(super) fn handle_disconnected(&mut self, error: Option<String>) {
        let words = error.unwrap_or_else(|| "the other end closed it".to_owned());
        match self.state {
            State::Connecting { .. } => self.lose(Ending::Unreachable {
                server: self.peer.clone(),
                cause: words,
            }),
            State::WaitCtlReply { .. } | State::WaitCtlRequest { .. } | State::Established(_) => {
                self.lose(Ending::ControlLost(words));
            }
            State::WaitStopReply { .. } | State::Closed => {}
        }
        self.state = State::Closed;
    }

    /// Octets came, cut anywhere.
    pub(super) fn handle_bytes(&mut self, now: Time, bytes: &[u8], identity: &Identity) {
        let joined;
        let mut stream = bytes;
        if !self.partial.is_empty() {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            joined = partial;
            stream = &joined;
        }
        while !self.is_closed() {
            match next_message(stream) {
                Ok(Some((message, len))) => {
                    self.handle_message(now, message, identity);
                    stream = stream.get(len..).unwrap_or(&[]);
                }
                Ok(None) => {
                    debug_assert!(stream.len() < MESSAGE_LEN_MAX);
                    self.partial = stream.to_vec();
                    return;
                }
                Err(error) => self.fail(Ending::NotPptp(error.to_string())),
            }
        }
    }

    fn handle_message(&mut self, now: Time, message: Message, identity: &Identity) {
        if let State::Established(established) = &mut self.state {
            // Any message shows that the other end lives.
            established.echo_at = now.after_ms(self.timers.echo_idle_ms);
            established.dead_at = None;
        }
        match (&self.state, message) {
            (_, Message::EchoRequest(request)) => self.send(echo_reply(request.identifier)),
            (_, Message::StopControlConnectionRequest(request)) => self.handle_stop(&request),
            (State::WaitCtlRequest { .. }, Message::StartControlConnectionRequest(request)) => {
                self.handle_start_request(now, &request, identity);
            }
            (State::WaitCtlReply { .. }, Message::StartControlConnectionReply(reply)) => {
                self.handle_start_reply(now, &reply);
            }
            (State::WaitStopReply { .. }, Message::StopControlConnectionReply(_)) => self.close(),
            // What crossed our Stop-Control-Connection-Request has no meaning any more.
            (State::WaitStopReply { .. }, _) | (State::Established(_), Message::EchoReply(_)) => {}
            (State::Established(_), message) if is_about_call(&message) => {
                self.outputs.push_back(ConnectionOutput::Call(message));
            }
            (_, message) => {
                let name = name(&message);
                self.fail(Ending::NotPptp(format!("{name} has no place here")));
            }
        }
    }

    /// RFC 2637 3.1.2: an earlier version is refused; a later one is answered with ours.
    fn handle_start_request(
        &mut self,
        now: Time,
        request: &StartControlConnectionRequest,
        identity: &Identity,
    ) {
        let version = request.version;
        self.peer_host_name = request.host_name.to_string();
        if version < PROTOCOL_VERSION {
            self.send(start_reply(identity, StartResult::VERSION_NOT_SUPPORTED));
            self.fail(Ending::NotPptp(version_words(version)));
            return;
        }
        if !identity.is_accepting {
            self.send(StartControlConnectionReply {
                error: ErrorCode::NO_RESOURCE,
                ..start_reply(identity, StartResult::GENERAL_ERROR)
            });
            self.refusal = Some(Refusal::Draining);
            self.fail(Ending::LocalRequest("no new connections".to_owned()));
            return;
        }
        self.send(start_reply(identity, StartResult::SUCCESSFUL));
        self.establish(now);
        self.rest(now);
    }

    /// RFC 2637 3.1.1: a reply with an earlier version is answered with Stop-Control-Connection-
    /// Request, a refusal by closing.
    fn handle_start_reply(&mut self, now: Time, reply: &StartControlConnectionReply) {
        self.peer_host_name = reply.host_name.to_string();
        if !is_success(reply) {
            self.fail(Ending::Refused {
                what: "the control connection",
                why: refusal(reply.result, StartResult::GENERAL_ERROR, reply.error),
            });
        } else if reply.version < PROTOCOL_VERSION {
            self.lose(Ending::NotPptp(version_words(reply.version)));
            self.send_stop(now, StopReason::STOP_PROTOCOL);
        } else {
            self.establish(now);
        }
    }

    fn establish(&mut self, now: Time) {
        self.state = State::Established(Established {
            echo_at: now.after_ms(self.timers.echo_idle_ms),
            dead_at: None,
            echo_identifier: 0,
            idle_until: None,
        });
        self.outputs.push_back(ConnectionOutput::Established);
    }

    fn handle_stop(&mut self, request: &StopControlConnectionRequest) {
        self.send(StopControlConnectionReply {
            result: StopResult::OK,
            error: ErrorCode::NONE,
        });
        if !matches!(self.state, State::WaitStopReply { .. }) {
            let reason = request.reason;
            let words = format!("Stop-Control-Connection-Request, {reason}");
            self.lose(Ending::PeerRequest(words));
        }
        self.close();
    }

    /// The connection carries no call: it is stopped after a while (Receiver).
    pub(super) const fn rest(&mut self, now: Time) {
        let until = now.after_ms(self.timers.idle_ms);
        if let (State::Established(established), ConnectionRole::Receiver) =
            (&mut self.state, self.role)
        {
            established.idle_until = Some(until);
        }
    }

    /// The connection carries a call.
    pub(super) const fn engage(&mut self) {
        self.has_called = true;
        if let State::Established(established) = &mut self.state {
            established.idle_until = None;
        }
    }

    /// Ends the connection in order: Stop-Control-Connection-Request when it is established, else
    /// TCP is just closed. The endpoint ends the calls itself.
    pub(super) fn stop(&mut self, now: Time, reason: StopReason) {
        match self.state {
            State::Established(_) => self.send_stop(now, reason),
            State::WaitStopReply { .. } | State::Closed => {}
            _ => self.close(),
        }
    }

    /// The same at once: the other end is told, and not waited for.
    pub(super) fn cut(&mut self, reason: StopReason) {
        if self.is_established() {
            self.send(StopControlConnectionRequest { reason });
        }
        self.close();
    }

    fn send_stop(&mut self, now: Time, reason: StopReason) {
        self.send(StopControlConnectionRequest { reason });
        self.state = State::WaitStopReply {
            until: now.after_ms(self.timers.stop_ms),
        };
    }

    /// Gives the connection up because of a message about a call (RFC 2637 3): what came behind it
    /// is not looked at.
    pub(super) fn reject(&mut self, ending: Ending) {
        self.outputs
            .retain(|output| !matches!(output, ConnectionOutput::Call(_)));
        if !self.is_closed() {
            self.fail(ending);
        }
    }

    /// Gives the connection up because of what the other end did: closes TCP.
    fn fail(&mut self, ending: Ending) {
        if matches!(ending, Ending::NotPptp(_)) {
            self.refusal.get_or_insert(Refusal::NotPptp);
        }
        self.lose(ending);
        self.close();
    }

    fn lose(&mut self, ending: Ending) {
        self.outputs.push_back(ConnectionOutput::Lost(ending));
    }

    fn close(&mut self) {
        if !self.is_closed() {
            self.state = State::Closed;
            self.outputs.push_back(ConnectionOutput::Close);
        }
    }

    fn send(&mut self, message: impl Into<Message>) {
        if !self.is_closed() {
            let bytes = message.into().to_bytes();
            self.outputs.push_back(ConnectionOutput::Send(bytes));
        }
    }

    /// The moment of `poll_timeout` has come; too early is harmless.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        match &mut self.state {
            State::Connecting { .. } => self.fail(Ending::Unreachable {
                server: self.peer.clone(),
                cause: "no answer to the TCP connection request".to_owned(),
            }),
            State::WaitCtlReply { .. } => {
                self.fail(Ending::ControlTimeout("Start-Control-Connection-Request"));
            }
            State::WaitCtlRequest { .. } => {
                self.refusal = Some(Refusal::NoStart);
                let words = "Start-Control-Connection-Request never came".to_owned();
                self.fail(Ending::NotPptp(words));
            }
            State::Established(established) => {
                if established.dead_at.is_some_and(|at| at <= now) {
                    self.fail(Ending::PeerDead("Echo-Requests on the control connection"));
                } else if established.idle_until.is_some_and(|at| at <= now) {
                    self.refusal = (!self.has_called).then_some(Refusal::NoCall);
                    self.stop(now, StopReason::NONE);
                } else {
                    established.echo_identifier = established.echo_identifier.wrapping_add(1);
                    established.dead_at = Some(now.after_ms(self.timers.echo_wait_ms));
                    let identifier = established.echo_identifier;
                    self.send(EchoRequest { identifier });
                }
            }
            State::WaitStopReply { .. } => self.close(),
            State::Closed => {}
        }
    }

    /// When `handle_timeout` is due.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Connecting { until }
            | State::WaitCtlReply { until }
            | State::WaitCtlRequest { until }
            | State::WaitStopReply { until } => Some(*until),
            State::Established(established) => {
                let echo = established.dead_at.unwrap_or(established.echo_at);
                Some(established.idle_until.map_or(echo, |idle| idle.min(echo)))
            }
            State::Closed => None,
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<ConnectionOutput> {
        outbox::pop(&mut self.outputs)
    }
}

/// The words for a refusal: a general error says nothing without its Error Code.
pub(super) fn refusal<T: PartialEq + Display>(result: T, general: T, error: ErrorCode) -> String {
    if result == general {
        error.to_string()
    } else {
        result.to_string()
    }
}

fn start_request(identity: &Identity) -> StartControlConnectionRequest {
    StartControlConnectionRequest {
        version: PROTOCOL_VERSION,
        framing: FRAMING_ASYNCHRONOUS | FRAMING_SYNCHRONOUS,
        bearer: BEARER_ANALOG | BEARER_DIGITAL,
        maximum_channels: 0,
        firmware_revision: 0,
        host_name: identity.host_name,
        vendor_name: identity.vendor,
    }
}

fn start_reply(identity: &Identity, result: StartResult) -> StartControlConnectionReply {
    StartControlConnectionReply {
        version: PROTOCOL_VERSION,
        result,
        error: ErrorCode::NONE,
        framing: FRAMING_ASYNCHRONOUS | FRAMING_SYNCHRONOUS,
        bearer: BEARER_ANALOG | BEARER_DIGITAL,
        maximum_channels: identity.maximum_channels,
        firmware_revision: 0,
        host_name: identity.host_name,
        vendor_name: identity.vendor,
    }
}

/// Some ADSL modems reply with result 0 and no error, and mean success.
fn is_success(reply: &StartControlConnectionReply) -> bool {
    reply.result == StartResult::SUCCESSFUL
        || (reply.result == StartResult(0) && reply.error == ErrorCode::NONE)
}

fn echo_reply(identifier: u32) -> EchoReply {
    EchoReply {
        identifier,
        result: EchoResult::OK,
        error: ErrorCode::NONE,
    }
}

fn version_words(version: u16) -> String {
    let (major, minor) = (version >> 8, version & 0xFF);
    format!("it speaks PPTP version {major}.{minor}, and 1.0 is needed")
}

/// Call management, error reporting and PPP session control (RFC 2637 1.4).
const fn is_about_call(message: &Message) -> bool {
    message.message_type() >= 7
}

const fn name(message: &Message) -> &'static str {
    match message {
        Message::StartControlConnectionRequest(_) => "Start-Control-Connection-Request",
        Message::StartControlConnectionReply(_) => "Start-Control-Connection-Reply",
        Message::StopControlConnectionRequest(_) => "Stop-Control-Connection-Request",
        Message::StopControlConnectionReply(_) => "Stop-Control-Connection-Reply",
        Message::EchoRequest(_) => "Echo-Request",
        Message::EchoReply(_) => "Echo-Reply",
        Message::OutgoingCallRequest(_) => "Outgoing-Call-Request",
        Message::OutgoingCallReply(_) => "Outgoing-Call-Reply",
        Message::IncomingCallRequest(_) => "Incoming-Call-Request",
        Message::IncomingCallReply(_) => "Incoming-Call-Reply",
        Message::IncomingCallConnected(_) => "Incoming-Call-Connected",
        Message::CallClearRequest(_) => "Call-Clear-Request",
        Message::CallDisconnectNotify(_) => "Call-Disconnect-Notify",
        Message::WanErrorNotify(_) => "WAN-Error-Notify",
        Message::SetLinkInfo(_) => "Set-Link-Info",
    }
}
