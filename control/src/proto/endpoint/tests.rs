//! The endpoint against a scripted peer: every message is written and read as octets.

use dataplane::program::Command;

use super::*;
use crate::proto::auth::{AuthMethods, Secret, Secrets};
use crate::proto::link::{Addresses, Ipv6Config, LcpConfig, Report};
use crate::wire::pptp::codes::{DisconnectResult, EchoResult, StartResult, StopResult};
use crate::wire::pptp::messages::{
    CallClearRequest, CallDisconnectNotify, EchoReply, EchoRequest, IncomingCallConnected,
    SetLinkInfo, StartControlConnectionReply, StartControlConnectionRequest,
    StopControlConnectionReply, StopControlConnectionRequest, WanErrorNotify,
};
use crate::wire::pptp::{PROTOCOL_VERSION, Text, next_message};

mod endings;
mod limits;

pub(super) const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 1723);
const INBOUND: ConnectionId = ConnectionId(0);
/// The other end's call ID in every script with one call.
pub(super) const PEER_CALL_ID: u16 = 0x1234;

#[derive(Debug)]
struct NoSecrets;

impl Secrets for NoSecrets {
    fn find(&self, _: &str, _: &str, _: bool) -> Option<Secret> {
        None
    }

    fn origin(&self, _: bool) -> String {
        "nowhere".to_owned()
    }
}

pub(super) fn link_config() -> Arc<LinkConfig> {
    Arc::new(LinkConfig {
        name: "mia".to_owned(),
        remote_name: None,
        require: AuthMethods::NONE,
        allow: AuthMethods::NONE,
        eap_pass_through: false,
        secrets: Arc::new(NoSecrets),
        lcp: LcpConfig::default(),
        mppe: None,
        ipv6: Some(Ipv6Config::default()),
        addresses: Addresses::default(),
    })
}

/// What was seen of the endpoint, in order.
#[derive(Debug, PartialEq)]
enum Seen {
    Connect,
    Sent(Message),
    Close,
    Install(CallId, Option<u16>),
    PeerCallId(CallId, u16),
    Ended(CallId, Ending),
    DialFailed(Ending),
    Idle,
}

/// An endpoint, the time, and the one connection that most scripts need.
struct Script {
    endpoint: Endpoint,
    now: Time,
    connection: ConnectionId,
    hints: Vec<String>,
}

impl Script {
    fn new(config: EndpointConfig) -> Self {
        Self {
            endpoint: Endpoint::new(config, [3; 32]),
            now: Time(1_000_000),
            connection: INBOUND,
            hints: Vec::new(),
        }
    }

    fn server() -> Self {
        Self::server_with(|_| {})
    }

    fn server_with(change: impl FnOnce(&mut EndpointConfig)) -> Self {
        let mut config = EndpointConfig {
            link: Some(link_config()),
            ..EndpointConfig::default()
        };
        change(&mut config);
        let mut script = Self::new(config);
        assert_eq!(script.accept(INBOUND), []);
        script
    }

    /// A server with an established connection.
    fn started_server() -> Self {
        let mut script = Self::server();
        script.receive(&[start_request(PROTOCOL_VERSION)]);
        script
    }

    /// A client whose TCP connection is being opened.
    fn client() -> Self {
        let mut script = Self::new(EndpointConfig::default());
        let server = PEER;
        let link = link_config();
        let seen = script.handle(Event::Dial { server, link });
        assert_eq!(seen, [Seen::Connect]);
        script
    }

    /// A client whose Outgoing-Call-Request is out, and its call ID.
    fn calling_client() -> (Self, CallId) {
        let mut script = Self::client();
        script.connected();
        let seen = script.receive(&[start_reply(StartResult::SUCCESSFUL)]);
        let Seen::Install(call_id, None) = seen[0] else {
            panic!("no call was installed: {seen:?}");
        };
        (script, call_id)
    }

    /// A client with a call, whose link negotiates.
    fn client_with_call() -> (Self, CallId) {
        let (mut script, call_id) = Self::calling_client();
        script.receive(&[call_reply(call_id, OutgoingCallResult::CONNECTED)]);
        (script, call_id)
    }

    fn accept(&mut self, connection: ConnectionId) -> Vec<Seen> {
        let peer = PEER;
        self.handle(Event::Accepted { connection, peer })
    }

    fn connected(&mut self) -> Vec<Seen> {
        let connection = self.connection;
        self.handle(Event::Connected { connection })
    }

    fn disconnected(&mut self) -> Vec<Seen> {
        self.handle(Event::Disconnected {
            connection: self.connection,
            error: None,
        })
    }

    fn hang_up(&mut self, call_id: CallId) -> Vec<Seen> {
        let reason = "done".to_owned();
        self.handle(Event::HangUp { call_id, reason })
    }

    fn receive(&mut self, messages: &[Message]) -> Vec<Seen> {
        self.receive_bytes(&to_bytes(messages))
    }

    fn receive_bytes(&mut self, bytes: &[u8]) -> Vec<Seen> {
        let connection = self.connection;
        self.handle(Event::ControlBytes { connection, bytes })
    }

    fn handle(&mut self, event: Event<'_>) -> Vec<Seen> {
        self.endpoint.handle(self.now, event);
        std::iter::from_fn(|| self.endpoint.poll_action())
            .collect::<Vec<_>>()
            .into_iter()
            .flat_map(|action| self.see(action))
            .collect()
    }

    fn see(&mut self, action: Action) -> Vec<Seen> {
        match action {
            Action::Connect { connection, .. } => {
                self.connection = connection;
                vec![Seen::Connect]
            }
            Action::SendControl { bytes, .. } => messages(&bytes).map(Seen::Sent).collect(),
            Action::CloseControl { .. } => vec![Seen::Close],
            Action::Install {
                call_id,
                peer_call_id,
                ..
            } => vec![Seen::Install(call_id, peer_call_id)],
            Action::Dataplane(Command::SetPeerCallId {
                call_id,
                peer_call_id,
            }) => vec![Seen::PeerCallId(call_id, peer_call_id)],
            Action::Ended { call_id, ending } => vec![Seen::Ended(call_id, ending)],
            Action::DialFailed { ending, .. } => vec![Seen::DialFailed(ending)],
            Action::Idle => vec![Seen::Idle],
            Action::Report {
                report: Report::Line(line),
                ..
            } => {
                self.hints.push(line);
                vec![]
            }
            _ => vec![],
        }
    }

    /// Lets `ms` pass, with every time-out in it at its moment.
    fn pass_ms(&mut self, ms: u64) -> Vec<Seen> {
        let end = self.now.after_ms(ms);
        let mut seen = Vec::new();
        while let Some(at) = self.endpoint.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= self.now, "a deadline lies in the past");
            self.now = at;
            seen.extend(self.handle(Event::Timeout));
        }
        self.now = end;
        seen
    }

    fn assert_empty(&self) {
        assert_eq!(self.endpoint.connection_count(), 0);
        assert_eq!(self.endpoint.calls().count(), 0);
        assert_eq!(self.endpoint.poll_timeout(), None);
        assert!(self.endpoint.gate.is_empty());
    }
}

fn to_bytes(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(Message::to_bytes).collect()
}

pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        let (message, len) = next_message(bytes).expect("we sent PPTP")?;
        bytes = &bytes[len..];
        Some(message)
    })
}

pub(super) fn start_request(version: u16) -> Message {
    StartControlConnectionRequest {
        version,
        framing: 3,
        bearer: 3,
        maximum_channels: 0,
        firmware_revision: 1,
        host_name: Text::new("peer.example"),
        vendor_name: Text::new("a peer"),
    }
    .into()
}

pub(super) fn start_reply(result: StartResult) -> Message {
    StartControlConnectionReply {
        version: PROTOCOL_VERSION,
        result,
        error: ErrorCode::NONE,
        framing: 3,
        bearer: 3,
        maximum_channels: 1,
        firmware_revision: 1,
        host_name: Text::new("peer.example"),
        vendor_name: Text::new("a peer"),
    }
    .into()
}

pub(super) fn call_request(call_id: u16) -> Message {
    OutgoingCallRequest {
        call_id,
        call_serial_number: 1,
        minimum_bps: 300,
        maximum_bps: 100_000_000,
        bearer: 3,
        framing: 3,
        receive_window: 64,
        processing_delay: 0,
        phone_number_len: 0,
        phone_number: Text::EMPTY,
        subaddress: Text::EMPTY,
    }
    .into()
}

pub(super) fn call_reply(call_id: CallId, result: OutgoingCallResult) -> Message {
    OutgoingCallReply {
        call_id: PEER_CALL_ID,
        peer_call_id: call_id.0,
        result,
        error: ErrorCode::NONE,
        cause_code: 0,
        connect_speed: 100_000_000,
        receive_window: 64,
        processing_delay: 0,
        physical_channel_id: 0,
    }
    .into()
}

pub(super) fn disconnect_notify(call_id: u16) -> Message {
    CallDisconnectNotify {
        call_id,
        result: DisconnectResult::LOST_CARRIER,
        error: ErrorCode::NONE,
        cause_code: 0,
        call_statistics: Text::EMPTY,
    }
    .into()
}

pub(super) fn clear_request(call_id: u16) -> Message {
    CallClearRequest { call_id }.into()
}

pub(super) fn echo_request(identifier: u32) -> Message {
    EchoRequest { identifier }.into()
}

pub(super) fn echo_reply(identifier: u32) -> Message {
    EchoReply {
        identifier,
        result: EchoResult::OK,
        error: ErrorCode::NONE,
    }
    .into()
}

pub(super) fn stop_request(reason: StopReason) -> Message {
    StopControlConnectionRequest { reason }.into()
}

pub(super) fn stop_reply() -> Message {
    StopControlConnectionReply {
        result: StopResult::OK,
        error: ErrorCode::NONE,
    }
    .into()
}

/// Every Outgoing-Call-Reply in what was seen.
fn replies(seen: &[Seen]) -> Vec<&OutgoingCallReply> {
    seen.iter()
        .filter_map(|it| match it {
            Seen::Sent(Message::OutgoingCallReply(reply)) => Some(reply),
            _ => None,
        })
        .collect()
}

fn endings(seen: &[Seen]) -> Vec<&Ending> {
    seen.iter()
        .filter_map(|it| match it {
            Seen::Ended(_, ending) => Some(ending),
            _ => None,
        })
        .collect()
}

#[test]
fn a_client_installs_the_session_before_it_asks_for_the_call() {
    let mut script = Script::client();
    let seen = script.connected();
    let [Seen::Sent(Message::StartControlConnectionRequest(start))] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(start.version, 0x0100);
    assert_eq!(start.maximum_channels, 0, "a PNS has no channels (2.1)");

    let seen = script.receive(&[start_reply(StartResult::SUCCESSFUL)]);
    let [
        Seen::Install(call_id, None),
        Seen::Sent(Message::OutgoingCallRequest(request)),
    ] = seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    assert_eq!(request.call_id, call_id.0);

    let seen = script.receive(&[call_reply(*call_id, OutgoingCallResult::CONNECTED)]);
    let accm = SetLinkInfo {
        peer_call_id: PEER_CALL_ID,
        send_accm: 0xFFFF_FFFF,
        receive_accm: 0xFFFF_FFFF,
    };
    assert_eq!(
        seen,
        [
            Seen::PeerCallId(*call_id, PEER_CALL_ID),
            Seen::Sent(accm.into())
        ]
    );
    let status = script.endpoint.calls().next().expect("one call");
    assert_eq!(status.phase, CallPhase::Negotiating);
    assert_eq!(status.peer_host_name, "peer.example");
    assert!(status.outgoing);
}

#[test]
fn a_server_replies_to_start_and_call_and_knows_the_peers_call_id() {
    let mut script = Script::server();
    let seen = script.receive(&[start_request(PROTOCOL_VERSION)]);
    let [Seen::Sent(Message::StartControlConnectionReply(reply))] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(reply.result, StartResult::SUCCESSFUL);

    let seen = script.receive(&[call_request(PEER_CALL_ID)]);
    let [
        Seen::Install(call_id, Some(PEER_CALL_ID)),
        Seen::Sent(Message::OutgoingCallReply(reply)),
    ] = seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    assert_eq!(reply.result, OutgoingCallResult::CONNECTED);
    assert_eq!(
        (reply.call_id, reply.peer_call_id),
        (call_id.0, PEER_CALL_ID)
    );
}

#[test]
fn an_earlier_version_is_refused_with_result_5_and_a_later_one_is_answered_with_ours() {
    let mut script = Script::server();
    let seen = script.receive(&[start_request(0x0001)]);
    let [
        Seen::Sent(Message::StartControlConnectionReply(reply)),
        Seen::Close,
    ] = seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    assert_eq!(reply.result, StartResult(5));
    script.assert_empty();

    let mut script = Script::server();
    let seen = script.receive(&[start_request(0x0200)]);
    let [Seen::Sent(Message::StartControlConnectionReply(reply))] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!((reply.result, reply.version), (StartResult(1), 0x0100));
}

#[test]
fn a_reply_with_an_earlier_version_is_answered_with_stop_protocol() {
    let mut script = Script::client();
    script.connected();
    let mut reply = start_reply(StartResult::SUCCESSFUL).to_bytes().to_vec();
    reply[12..14].copy_from_slice(&[0x00, 0x01]);
    let seen = script.receive_bytes(&reply);
    let [
        Seen::DialFailed(Ending::NotPptp(_)),
        Seen::Sent(Message::StopControlConnectionRequest(stop)),
    ] = seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    assert_eq!(stop.reason, StopReason::STOP_PROTOCOL);
    assert_eq!(script.receive(&[stop_reply()]), [Seen::Close]);
    script.assert_empty();
}

#[test]
fn octets_cut_anywhere_mean_the_same_as_all_at_once() {
    let stream = to_bytes(&[
        start_request(PROTOCOL_VERSION),
        echo_request(9),
        call_request(1),
        call_request(2),
        clear_request(1),
        echo_request(10),
    ]);
    let at_once = Script::server().receive_bytes(&stream);
    assert!(at_once.len() >= 8, "{at_once:?}");
    for size in [1, 2, 7, 100, 219] {
        let mut script = Script::server();
        let cut: Vec<Seen> = stream
            .chunks(size)
            .flat_map(|chunk| script.receive_bytes(chunk))
            .collect();
        assert_eq!(cut, at_once, "in pieces of {size}");
    }
}

#[test]
fn a_stranger_that_sends_nothing_is_closed_by_time() {
    let mut script = Script::server();
    assert_eq!(script.pass_ms(59_999), []);
    assert_eq!(script.pass_ms(1), [Seen::Close]);
    script.assert_empty();
}

#[test]
fn a_started_connection_without_a_call_is_stopped_by_time() {
    let mut script = Script::started_server();
    let seen = script.pass_ms(70_000);
    let stop = Seen::Sent(stop_request(StopReason::NONE));
    assert_eq!(seen, [stop, Seen::Close]);
    script.assert_empty();
}

#[test]
fn one_half_open_connection_too_many_pushes_out_the_oldest() {
    let mut script = Script::server_with(|config| config.limits.half_open_max = 2);
    assert_eq!(script.accept(ConnectionId(1)), []);
    assert_eq!(script.accept(ConnectionId(2)), [Seen::Close]);
    assert!(!script.endpoint.connections.contains_key(&INBOUND));
    assert_eq!(script.endpoint.counters().connections_refused, 1);
}

#[test]
fn connections_beyond_the_limits_are_closed_at_once() {
    let mut script = Script::server_with(|config| config.limits.connections_per_peer_max = 2);
    assert_eq!(script.accept(ConnectionId(1)), []);
    assert_eq!(script.accept(ConnectionId(2)), [Seen::Close]);
    assert_eq!(script.disconnected(), []);
    assert_eq!(
        script.accept(ConnectionId(3)),
        [],
        "a place has become free"
    );
}

#[test]
fn what_is_not_pptp_is_closed_and_ends_the_calls() {
    for garbage in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        &[0; 16],
        &to_bytes(&[start_reply(StartResult::SUCCESSFUL)]),
        &to_bytes(&[call_request(1)]),
    ] {
        let mut script = Script::server();
        assert_eq!(script.receive_bytes(garbage), [Seen::Close]);
        assert_eq!(script.endpoint.counters().connections_broken, 1);
        script.assert_empty();
    }
    let (mut script, call_id) = Script::client_with_call();
    let seen = script.receive_bytes(b"220 mail.example ESMTP\r\n");
    assert!(
        matches!(
            seen.as_slice(),
            [Seen::Ended(id, Ending::NotPptp(_)), Seen::Close] if *id == call_id
        ),
        "{seen:?}"
    );
    script.assert_empty();
}

#[test]
fn messages_that_no_state_awaits_close_the_connection() {
    let connected = IncomingCallConnected {
        peer_call_id: 1,
        connect_speed: 1,
        receive_window: 1,
        transmit_delay: 0,
        framing: 1,
    };
    for illegal in [
        start_request(PROTOCOL_VERSION),
        stop_reply(),
        call_reply(CallId(77), OutgoingCallResult::CONNECTED),
        connected.into(),
    ] {
        let mut script = Script::started_server();
        // What stands behind the illegal message is not looked at.
        let seen = script.receive(&[illegal, call_request(5)]);
        assert_eq!(seen, [Seen::Close], "{illegal:?}");
        script.assert_empty();
    }
    let (mut script, call_id) = Script::client_with_call();
    let seen = script.receive(&[call_reply(call_id, OutgoingCallResult::CONNECTED)]);
    assert!(matches!(
        seen.as_slice(),
        [Seen::Ended(_, Ending::NotPptp(_)), Seen::Close]
    ));
}

#[test]
fn an_incoming_call_request_is_refused_with_a_reply() {
    let mut script = Script::started_server();
    let request = IncomingCallRequest {
        call_id: 40,
        call_serial_number: 1,
        bearer: 1,
        physical_channel_id: 0,
        dialed_number_len: 0,
        dialing_number_len: 0,
        dialed_number: Text::EMPTY,
        dialing_number: Text::EMPTY,
        subaddress: Text::EMPTY,
    };
    let seen = script.receive(&[request.into()]);
    let [Seen::Sent(Message::IncomingCallReply(reply))] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    // RFC 2637 2.10: 3 is Do Not Accept.
    assert_eq!(
        (reply.peer_call_id, reply.result),
        (40, IncomingCallResult(3))
    );
}

#[test]
fn a_client_refuses_to_be_called() {
    let (mut script, _) = Script::client_with_call();
    let seen = script.receive(&[call_request(9)]);
    assert_eq!(replies(&seen)[0].result, OutgoingCallResult(7));
}

#[test]
fn an_echo_request_is_answered_at_any_time() {
    let reply = |identifier| [Seen::Sent(echo_reply(identifier))];
    let mut script = Script::server();
    assert_eq!(script.receive(&[echo_request(1)]), reply(1));
    script.receive(&[start_request(PROTOCOL_VERSION)]);
    assert_eq!(script.receive(&[echo_request(2)]), reply(2));
    let (mut script, call_id) = Script::calling_client();
    assert_eq!(script.receive(&[echo_request(3)]), reply(3));
    script.hang_up(call_id);
    script.receive(&[disconnect_notify(PEER_CALL_ID)]);
    assert_eq!(script.receive(&[echo_request(4)]), reply(4));
}

/// A server whose links do not end by themselves, so that only echo is left.
fn server_with_quiet_call() -> (Script, CallId) {
    let mut quiet = (*link_config()).clone();
    quiet.lcp.restart_ms = 10_000_000;
    quiet.lcp.setup_timeout_ms = 0;
    quiet.lcp.auth_timeout_ms = 10_000_000;
    let mut script = Script::server_with(|config| config.link = Some(Arc::new(quiet)));
    script.receive(&[start_request(PROTOCOL_VERSION), call_request(PEER_CALL_ID)]);
    let call_id = script.endpoint.calls().next().expect("one call").call_id;
    (script, call_id)
}

#[test]
fn echo_goes_out_after_a_minute_of_silence_and_keeps_the_connection() {
    let (mut script, _) = server_with_quiet_call();
    for round in 1..5 {
        assert_eq!(script.pass_ms(59_999), []);
        assert_eq!(script.pass_ms(1), [Seen::Sent(echo_request(round))]);
        assert_eq!(script.pass_ms(59_000), []);
        assert_eq!(script.receive(&[echo_reply(round)]), []);
    }
}

#[test]
fn an_echo_without_reply_for_a_minute_ends_connection_and_calls() {
    let (mut script, _) = server_with_quiet_call();
    assert_eq!(script.pass_ms(119_999).len(), 1);
    let seen = script.pass_ms(1);
    assert!(
        matches!(
            seen.as_slice(),
            [Seen::Ended(_, Ending::PeerDead(_)), Seen::Close]
        ),
        "{seen:?}"
    );
    script.assert_empty();
}

#[test]
fn several_calls_share_a_connection_and_end_one_by_one() {
    let mut script = Script::started_server();
    let seen = script.receive(&[call_request(1), call_request(2), call_request(3)]);
    assert_eq!(replies(&seen).len(), 3);
    assert_eq!(script.endpoint.calls().count(), 3);
    let second = script
        .endpoint
        .calls()
        .find(|call| call.peer_call_id == Some(2))
        .expect("call 2");
    let seen = script.receive(&[clear_request(2)]);
    let [
        Seen::Sent(Message::CallDisconnectNotify(notify)),
        Seen::Ended(..),
    ] = seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    // RFC 2637 2.13: the Call ID that the sender assigned; 4 is Request.
    assert_eq!(
        (notify.call_id, notify.result),
        (second.call_id.0, DisconnectResult(4))
    );
    assert_eq!(script.endpoint.calls().count(), 2);

    let seen = script.disconnected();
    assert_eq!(endings(&seen).len(), 2);
    script.assert_empty();
}

#[test]
fn calls_beyond_the_limits_and_ids_in_use_are_refused_with_the_error_of_the_rfc() {
    let mut script = Script::server_with(|config| config.limits.calls_per_connection_max = 2);
    script.receive(&[start_request(PROTOCOL_VERSION), call_request(1)]);
    let seen = script.receive(&[call_request(1), call_request(2), call_request(3)]);
    let codes: Vec<_> = replies(&seen)
        .iter()
        .map(|reply| (reply.peer_call_id, reply.result.0, reply.error.0))
        .collect();
    // General Error with Bad-Call ID; Connected; General Error with No-Resource.
    assert_eq!(codes, [(1, 2, 5), (2, 1, 0), (3, 2, 4)]);
    assert_eq!(script.endpoint.counters().calls_refused, 2);
}

#[test]
fn a_refused_call_ends_with_the_servers_words_and_the_connection_in_order() {
    let (mut script, call_id) = Script::calling_client();
    let seen = script.receive(&[call_reply(call_id, OutgoingCallResult::BUSY)]);
    let stop = Seen::Sent(stop_request(StopReason::NONE));
    let ending = Ending::Refused {
        what: "the call",
        why: "busy signal detected".to_owned(),
    };
    assert_eq!(seen, [Seen::Ended(call_id, ending), stop]);
    assert_eq!(script.receive(&[stop_reply()]), [Seen::Close]);
    script.assert_empty();
}

#[test]
fn a_refused_connection_fails_the_dial_once() {
    let mut script = Script::client();
    script.connected();
    let seen = script.receive(&[start_reply(StartResult::NOT_AUTHORIZED)]);
    assert!(
        matches!(
            seen.as_slice(),
            [Seen::DialFailed(Ending::Refused { .. }), Seen::Close]
        ),
        "{seen:?}"
    );
    assert_eq!(script.disconnected(), []);
    script.assert_empty();
}

#[test]
fn every_wait_of_a_client_is_bounded() {
    let mut script = Script::client();
    let seen = script.pass_ms(60_000);
    assert!(matches!(
        seen.as_slice(),
        [Seen::DialFailed(Ending::Unreachable { .. }), Seen::Close]
    ));
    script.assert_empty();

    let mut script = Script::client();
    script.connected();
    let seen = script.pass_ms(60_000);
    assert!(matches!(
        seen.as_slice(),
        [Seen::DialFailed(Ending::ControlTimeout(_)), Seen::Close]
    ));
    script.assert_empty();

    let (mut script, _) = Script::calling_client();
    let seen = script.pass_ms(70_000);
    assert!(
        matches!(endings(&seen).as_slice(), [Ending::ControlTimeout(_)]),
        "{seen:?}"
    );
    assert_eq!(seen.last(), Some(&Seen::Close));
    script.assert_empty();
}
