//! Who is turned away when there is no room, and that nobody who is in has to go for it.

use super::*;
use crate::proto::refusal::Refusal;
use crate::proto::sources::{Access, SourceList};

/// Another source, in the /24 of `PEER` when `net` is 2.
const fn peer(net: u8, host: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, net, host), 50_000)
}

impl Script {
    fn accept_from(&mut self, id: u64, peer: SocketAddrV4) -> Vec<Seen> {
        self.connection = ConnectionId(id);
        let connection = self.connection;
        self.handle(Event::Accepted { connection, peer })
    }

    /// A connection that is started, and what comes of a call on it: result and error code.
    fn call_from(&mut self, id: u64, peer: SocketAddrV4) -> Option<(u8, u8)> {
        self.accept_from(id, peer);
        let seen = self.receive(&[start_request(PROTOCOL_VERSION), call_request(7)]);
        let reply = replies(&seen).pop()?;
        Some((reply.result.0, reply.error.0))
    }

    fn count(&self, refusal: Refusal) -> u64 {
        self.endpoint.refusal_counts().get(refusal)
    }
}

const CONNECTED: Option<(u8, u8)> = Some((1, 0));
/// General error, insufficient resources (RFC 2637 2.8 and 2.16).
const NO_RESOURCE: Option<(u8, u8)> = Some((2, 4));

#[test]
fn a_denied_source_is_closed_and_those_that_stand_are_left_alone() {
    let mut script = Script::started_server();
    let access = Access {
        allow: SourceList::new([(Ipv4Addr::new(192, 0, 0, 0), 16)]),
        deny: SourceList::new([(*PEER.ip(), 32)]),
    };
    script.endpoint.set_access(Arc::new(access));
    assert!(script.endpoint.turns_away(*PEER.ip()));
    assert!(!script.endpoint.turns_away(*peer(2, 8).ip()));
    assert_eq!(script.accept_from(1, PEER), [Seen::Close]);
    assert_eq!(script.accept_from(2, peer(2, 8)), []);
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 1);
    assert_eq!(script.accept_from(3, elsewhere), [Seen::Close]);
    assert_eq!(script.count(Refusal::SourceDenied), 3);
    assert_eq!(
        script.endpoint.next_refusal(),
        Some((*PEER.ip(), Refusal::SourceDenied))
    );
    script.connection = INBOUND;
    let seen = script.receive(&[call_request(1)]);
    assert_eq!(replies(&seen)[0].result, OutgoingCallResult::CONNECTED);
}

#[test]
fn a_connection_is_half_open_until_it_calls_and_the_oldest_such_goes() {
    let mut script = Script::server_with(|config| config.limits.half_open_max = 2);
    script.receive(&[start_request(PROTOCOL_VERSION), call_request(1)]);
    // Started, and silent from then on.
    script.accept_from(1, peer(2, 1));
    script.receive(&[start_request(PROTOCOL_VERSION)]);
    assert_eq!(script.accept_from(2, peer(2, 2)), []);
    let stop = Seen::Sent(stop_request(StopReason::NONE));
    assert_eq!(script.accept_from(3, peer(2, 3)), [stop, Seen::Close]);
    assert_eq!(script.accept_from(4, peer(2, 4)), [Seen::Close]);
    let left: Vec<u64> = script.endpoint.connections.keys().map(|id| id.0).collect();
    assert_eq!(left, [0, 3, 4], "the one with a call is not half-open");
    assert_eq!(script.count(Refusal::HalfOpenPushedOut), 2);
}

#[test]
fn one_source_may_have_only_so_many_half_open_connections_and_calls() {
    let mut script = Script::server_with(|config| {
        config.limits.half_open_per_peer_max = 2;
        config.limits.half_open_calls_per_peer_max = 1;
        config.limits.peer_prefix_len = 24;
    });
    assert_eq!(script.accept_from(1, peer(2, 1)), []);
    assert_eq!(script.accept_from(2, peer(2, 2)), [Seen::Close]);
    assert_eq!(script.count(Refusal::HalfOpenPerPeer), 1);
    assert_eq!(script.accept_from(3, peer(3, 1)), []);
    script.connection = INBOUND;
    let seen = script.receive(&[start_request(PROTOCOL_VERSION), call_request(1)]);
    assert_eq!(replies(&seen)[0].result, OutgoingCallResult::CONNECTED);
    assert_eq!(script.call_from(4, peer(2, 9)), NO_RESOURCE);
    assert_eq!(script.count(Refusal::HalfOpenCallsPerPeer), 1);
    assert_eq!(script.call_from(5, peer(3, 9)), CONNECTED);
}

#[test]
fn one_source_may_have_only_so_many_sessions() {
    let mut script = Script::server_with(|config| config.limits.calls_per_peer_max = 2);
    script.receive(&[start_request(PROTOCOL_VERSION), call_request(1)]);
    assert_eq!(script.call_from(1, PEER), CONNECTED);
    assert_eq!(script.call_from(2, PEER), NO_RESOURCE);
    assert_eq!(script.count(Refusal::SessionsPerPeer), 1);
    assert_eq!(script.call_from(3, peer(9, 9)), CONNECTED);
    script.connection = INBOUND;
    script.receive(&[clear_request(1)]);
    assert_eq!(
        script.call_from(4, PEER),
        CONNECTED,
        "a place has become free"
    );
}

#[test]
fn with_all_places_taken_a_call_that_takes_long_goes_and_no_other_does() {
    for (refusal, is_of_all) in [(Refusal::HalfOpenCalls, false), (Refusal::Sessions, true)] {
        let mut script = Script::server_with(|config| {
            let limits = &mut config.limits;
            let limit = if is_of_all {
                &mut limits.calls_max
            } else {
                &mut limits.half_open_calls_max
            };
            *limit = 2;
        });
        script.receive(&[start_request(PROTOCOL_VERSION), call_request(1)]);
        let first = script.endpoint.calls().next().expect("a call").call_id;
        script.pass_ms(5_000);
        assert_eq!(script.call_from(1, peer(2, 1)), CONNECTED);
        assert_eq!(script.call_from(2, peer(2, 2)), NO_RESOURCE);
        assert_eq!(script.count(refusal), 1);
        script.pass_ms(5_000);
        script.accept_from(3, peer(2, 3));
        let seen = script.receive(&[start_request(PROTOCOL_VERSION), call_request(7)]);
        let [Ending::LocalRequest(why)] = endings(&seen)[..] else {
            panic!("{seen:?}");
        };
        assert!(why.contains("took long"), "{why}");
        assert_eq!(replies(&seen)[0].result, OutgoingCallResult::CONNECTED);
        assert!(script.endpoint.call(first).is_none(), "the oldest goes");
        assert_eq!(script.count(Refusal::HalfOpenCallPushedOut), 1);
        assert_eq!(script.endpoint.calls().count(), 2);
        assert_eq!(script.call_from(4, peer(2, 4)), NO_RESOURCE);
    }
}

#[test]
fn whoever_breaks_off_on_the_way_is_counted_by_the_state_it_was_in() {
    let mut script = Script::server();
    script.accept_from(1, peer(2, 1));
    script.receive(&[start_request(PROTOCOL_VERSION)]);
    script.accept_from(2, peer(2, 2));
    script.receive_bytes(b"GET / HTTP/1.1\r\n\r\n");
    script.accept_from(3, peer(2, 3));
    script.receive(&[
        start_request(PROTOCOL_VERSION),
        call_request(1),
        clear_request(1),
    ]);
    script.pass_ms(70_000);
    script.assert_empty();
    for (refusal, count) in [
        (Refusal::NoStart, 1),
        (Refusal::NoCall, 1),
        (Refusal::NotPptp, 1),
    ] {
        assert_eq!(script.count(refusal), count, "{refusal}");
    }
    let peers: Vec<_> = std::iter::from_fn(|| script.endpoint.next_refusal()).collect();
    assert_eq!(peers.len(), 3, "{peers:?}");
}

#[test]
fn a_thousand_refusals_at_once_are_counted_and_few_are_kept_for_the_log() {
    let mut script = Script::server_with(|config| config.limits.half_open_max = 2_000);
    for id in 1..1_000 {
        script.accept_from(id, peer(2, 1));
    }
    script.pass_ms(60_000);
    assert_eq!(script.count(Refusal::NoStart), 1_000);
    let kept = std::iter::from_fn(|| script.endpoint.next_refusal()).count();
    assert_eq!(kept, 64);
    script.assert_empty();
}
