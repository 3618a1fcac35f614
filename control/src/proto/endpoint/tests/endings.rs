//! How calls and connections end, from either side.

use super::*;

#[test]
fn hanging_up_before_the_reply_clears_the_call_and_stops_the_connection() {
    let (mut script, call_id) = Script::calling_client();
    let seen = script.hang_up(call_id);
    assert_eq!(seen, [Seen::Sent(clear_request(call_id.0))]);
    assert_eq!(script.hang_up(call_id), [], "a second time changes nothing");
    // The reply crosses the Call-Clear-Request, and names what the notify will bear.
    let reply = call_reply(call_id, OutgoingCallResult::CONNECTED);
    assert_eq!(script.receive(&[reply]), []);
    let seen = script.receive(&[disconnect_notify(PEER_CALL_ID)]);
    let ending = Ending::LocalRequest("done".to_owned());
    let stop = Seen::Sent(stop_request(StopReason::NONE));
    assert_eq!(seen, [Seen::Ended(call_id, ending), stop]);
    assert_eq!(script.receive(&[stop_reply()]), [Seen::Close]);
    script.assert_empty();
}

#[test]
fn a_peer_that_answers_neither_clear_nor_stop_does_not_hold_us() {
    let (mut script, call_id) = Script::client_with_call();
    let mut seen = script.hang_up(call_id);
    seen.extend(script.pass_ms(20_000));
    assert_eq!(
        endings(&seen),
        [&Ending::LocalRequest("done".to_owned())],
        "{seen:?}"
    );
    assert_eq!(seen.last(), Some(&Seen::Close));
    script.assert_empty();
}

#[test]
fn the_links_own_reason_outlives_a_notify_that_overtakes_its_end() {
    let (mut script, call_id) = Script::client_with_call();
    script.handle(Event::MppeLost { call_id });
    let seen = script.receive(&[disconnect_notify(PEER_CALL_ID)]);
    let ended = endings(&seen);
    assert!(
        matches!(ended[..], [Ending::PeerIncompatible(_)]),
        "{seen:?}"
    );
}

#[test]
fn a_call_id_with_swapped_octets_still_ends_the_only_call() {
    let (mut script, call_id) = Script::client_with_call();
    let seen = script.receive(&[disconnect_notify(PEER_CALL_ID.swap_bytes())]);
    assert!(
        matches!(&seen[0], Seen::Ended(id, Ending::PeerRequest(_)) if *id == call_id),
        "{seen:?}"
    );
}

#[test]
fn stop_request_is_answered_and_clears_every_call() {
    let mut script = Script::started_server();
    script.receive(&[call_request(1), call_request(2)]);
    let seen = script.receive(&[stop_request(StopReason::STOP_LOCAL_SHUTDOWN)]);
    let [
        Seen::Sent(reply),
        Seen::Ended(_, Ending::PeerRequest(_)),
        Seen::Ended(_, Ending::PeerRequest(_)),
        Seen::Close,
    ] = seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    assert_eq!(*reply, stop_reply());
    script.assert_empty();
}

#[test]
fn link_info_with_real_maps_and_wan_errors_are_taken_and_change_nothing() {
    let (mut script, call_id) = Script::client_with_call();
    let info = SetLinkInfo {
        peer_call_id: call_id.0,
        send_accm: 0x000A_0000,
        receive_accm: 0,
    };
    let errors = WanErrorNotify {
        peer_call_id: call_id.0,
        crc_errors: 1,
        framing_errors: 0,
        hardware_overruns: 0,
        buffer_overruns: 0,
        time_out_errors: 0,
        alignment_errors: 0,
    };
    assert_eq!(script.receive(&[info.into(), errors.into()]), []);
    let counters = script.endpoint.counters();
    assert_eq!((counters.set_link_infos, counters.wan_errors), (1, 1));
}

#[test]
fn a_broken_connection_before_the_call_fails_the_dial_and_after_it_ends_the_call() {
    let mut script = Script::client();
    let seen = script.disconnected();
    assert!(matches!(
        seen.as_slice(),
        [Seen::DialFailed(Ending::Unreachable { .. })]
    ));
    script.assert_empty();

    let (mut script, _) = Script::client_with_call();
    let seen = script.disconnected();
    assert!(
        matches!(seen.as_slice(), [Seen::Ended(_, Ending::ControlLost(_))]),
        "{seen:?}"
    );
    script.assert_empty();
}

#[test]
fn a_person_is_told_when_nothing_comes_over_gre_and_the_ending_says_so() {
    let (mut script, call_id) = Script::client_with_call();
    script.pass_ms(5_999);
    assert!(script.hints.is_empty());
    script.pass_ms(1);
    assert!(script.hints[0].contains("GRE (IP protocol 47) from 192.0.2.7"));
    let seen = script.receive(&[disconnect_notify(PEER_CALL_ID)]);
    let ending = Ending::GreSilent {
        server: "192.0.2.7".to_owned(),
    };
    assert_eq!(seen[0], Seen::Ended(call_id, ending));
}

#[test]
fn shutdown_ends_everything_in_order_and_says_idle_once() {
    let (mut script, call_id) = Script::calling_client();
    let seen = script.handle(Event::Shutdown);
    assert_eq!(seen, [Seen::Sent(clear_request(call_id.0))]);
    let mut seen = script.receive(&[disconnect_notify(PEER_CALL_ID)]);
    seen.extend(script.receive(&[stop_reply()]));
    let stop = stop_request(StopReason::STOP_LOCAL_SHUTDOWN);
    assert_eq!(endings(&seen).len(), 1);
    assert_eq!(seen[1..], [Seen::Sent(stop), Seen::Close, Seen::Idle]);
    assert_eq!(script.handle(Event::Shutdown), []);
    script.assert_empty();

    let mut script = Script::client();
    let seen = script.handle(Event::Shutdown);
    assert!(matches!(
        seen.as_slice(),
        [
            Seen::Close,
            Seen::DialFailed(Ending::LocalRequest(_)),
            Seen::Idle
        ]
    ));
    assert_eq!(script.accept(ConnectionId(5)), [Seen::Close]);
}

#[test]
fn a_call_that_is_cut_ends_at_once_and_the_peer_is_told() {
    let mut script = Script::started_server();
    script.receive(&[call_request(7)]);
    let call_id = script.endpoint.calls().next().unwrap().call_id;
    let reason = "enough".to_owned();
    let seen = script.handle(Event::Cut { call_id, reason });
    let [Seen::Sent(Message::CallDisconnectNotify(notify)), rest @ ..] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(notify.call_id, call_id.0);
    assert_eq!(notify.result, DisconnectResult::ADMIN_SHUTDOWN);
    let ending = Ending::LocalRequest("enough".to_owned());
    assert_eq!(rest, [Seen::Ended(call_id, ending)]);
    assert!(script.endpoint.call(call_id).is_none());
}

#[test]
fn a_server_that_drains_refuses_connections_and_calls_and_keeps_what_stands() {
    let mut script = Script::started_server();
    script.receive(&[call_request(1)]);
    script.endpoint.set_accepting(false);
    let seen = script.receive(&[call_request(2)]);
    let refusals = replies(&seen);
    assert_eq!(refusals[0].result, OutgoingCallResult::DO_NOT_ACCEPT);
    assert_eq!(script.endpoint.calls().count(), 1);

    script.connection = ConnectionId(1);
    assert_eq!(script.accept(ConnectionId(1)), []);
    let seen = script.receive(&[start_request(PROTOCOL_VERSION)]);
    let [
        Seen::Sent(Message::StartControlConnectionReply(reply)),
        Seen::Close,
    ] = seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    assert_eq!(reply.result, StartResult::GENERAL_ERROR);
    assert_eq!(reply.error, ErrorCode::NO_RESOURCE);

    script.endpoint.set_accepting(true);
    script.connection = ConnectionId(2);
    assert_eq!(script.accept(ConnectionId(2)), []);
    script.receive(&[start_request(PROTOCOL_VERSION)]);
    let seen = script.receive(&[call_request(1)]);
    assert_eq!(replies(&seen)[0].result, OutgoingCallResult::CONNECTED);
}
