//! Loss, silence, strangers, and bounds.

use proptest::prelude::*;

use super::*;

#[test]
fn the_loss_of_any_one_frame_delays_and_does_not_prevent() {
    for lost in 0..40 {
        let mut pair = Pair::new(caller(), callee());
        let mut count = 0;
        pair.wire = Box::new(move |_, frame| {
            count += 1;
            (count != lost + 1).then_some(frame)
        });
        let mut pair = pair.connect();
        pair.run_for(20_000);
        pair.network(CALLER);
        pair.network(CALLEE);
        pair.assert_encrypted();
    }
}

#[test]
fn a_peer_that_never_answers_is_asked_ten_times() {
    let mut pair = Pair::new(caller(), callee());
    pair.wire = Box::new(|_, _| None);
    let mut pair = pair.connect();
    pair.run_for(60_000);
    assert_eq!(*pair.ending(CALLER), Ending::NegotiationFailed("LCP"));
    pair.assert_said(CALLER, "LCP: timeout sending Config-Requests");
    let requests = |line: &&String| line.starts_with("sent [LCP ConfReq id=0x1 ");
    assert_eq!(pair.ends[CALLER].lines.iter().filter(requests).count(), 10);
    assert!(!pair.ends[CALLER].link.heard_anything());
}

#[test]
fn a_peer_that_falls_silent_is_dead_after_the_echoes_and_not_before() {
    let mut pair = Pair::new(caller(), callee()).connect();
    pair.run_for(300_000);
    pair.network(CALLER);
    pair.wire = Box::new(|_, _| None);
    // Four echoes, thirty seconds each, unanswered when the fifth is due.
    pair.run_for(115_000);
    pair.network(CALLER);
    pair.run_for(60_000);
    assert_eq!(*pair.ending(CALLER), Ending::PeerDead("LCP Echo-Requests"));
    pair.assert_said(CALLER, "No response to 4 echo-requests");
}

#[test]
fn any_sign_of_life_keeps_a_link_up() {
    let mut pair = Pair::new(caller(), callee()).connect();
    pair.wire = Box::new(|_, _| None);
    for _ in 0..20 {
        pair.run_for(29_000);
        let now = pair.now;
        for end in &mut pair.ends {
            end.link.handle_alive(now, false);
        }
    }
    pair.network(CALLER);
}

#[test]
fn adaptive_echoes_are_for_links_without_traffic() {
    let mut caller = caller();
    caller.lcp.echo_adaptive = true;
    let mut pair = Pair::new(caller, callee()).connect();
    let echoes = |pair: &Pair| {
        let lines = pair.ends[CALLER].lines.iter();
        lines
            .filter(|line| line.starts_with("sent [LCP EchoReq"))
            .count()
    };
    let first = echoes(&pair);
    for _ in 0..10 {
        let now = pair.now;
        pair.ends[CALLER].link.handle_alive(now, true);
        pair.run_for(30_000);
    }
    assert_eq!(echoes(&pair), first);
    // Answers to echoes are no traffic.
    for _ in 0..10 {
        let now = pair.now;
        pair.ends[CALLER].link.handle_alive(now, false);
        pair.run_for(30_000);
    }
    assert_eq!(echoes(&pair), first + 10);
    pair.network(CALLER);
    pair.wire = Box::new(|_, _| None);
    pair.run_for(180_000);
    assert_eq!(*pair.ending(CALLER), Ending::PeerDead("LCP Echo-Requests"));
}

#[test]
fn frames_before_the_call_is_established_are_kept() {
    let mut pair = Pair::new(caller(), callee());
    let now = pair.now;
    pair.ends[CALLEE].link.handle_up(now);
    pair.drain(CALLEE);
    pair.run_for(1_000);
    assert!(pair.ends[CALLER].link.heard_anything());
    pair.ends[CALLER].link.handle_up(pair.now);
    pair.drain(CALLER);
    // Well within a restart interval.
    pair.run_for(1_500);
    pair.network(CALLER);
}

#[test]
fn ipcp_that_comes_while_ccp_negotiates_is_neither_terminated_nor_forgotten() {
    let mut pair = Pair::new(caller(), callee());
    let mut first = true;
    pair.wire = Box::new(move |from, frame| {
        // CCP is slow from the callee to the caller, and IPCP overtakes it.
        let is_ack = frame.starts_with(&[0xFF, 3, 0x80, 0xFD, 2]);
        (from != CALLEE || !is_ack || !std::mem::take(&mut first)).then_some(frame)
    });
    let pair = pair.connect();
    let lines = &pair.ends[CALLER].lines;
    assert!(
        !lines.iter().any(|line| line.contains("IPCP TermAck")),
        "{lines:#?}"
    );
    pair.network(CALLER);
    pair.assert_encrypted();
}

#[test]
fn an_unknown_protocol_and_an_unknown_code_are_rejected_with_a_bound() {
    let mut pair = Pair::new(caller(), callee()).connect();
    let ipv6cp = [
        0xFF, 3, 0x80, 0x57, 1, 1, 0, 14, 1, 10, 1, 2, 3, 4, 5, 6, 7, 8,
    ];
    let unknown_code = [0xFF, 3, 0xC0, 0x21, 77, 1, 0, 4];
    for frame in [&ipv6cp[..], &unknown_code] {
        for _ in 0..50 {
            let frame = Bytes::copy_from_slice(frame);
            pair.in_flight.push_back((pair.now, CALLER, frame));
        }
        pair.run_for(100);
        pair.run_for(20_000);
    }
    let lines = &pair.ends[CALLER].lines;
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("sent [LCP ProtRej"), 8);
    assert_eq!(count("sent [LCP CodeRej"), 8);
    pair.network(CALLER);
}

#[test]
fn a_setup_that_takes_too_long_ends_with_what_it_waited_for() {
    let mut callee = callee();
    callee.lcp.setup_timeout_ms = 20_000;
    let mut pair = Pair::new(caller(), callee);
    pair.ends[CALLEE].holds_verdicts = true;
    let mut pair = pair.connect();
    pair.run_for(30_000);
    assert_eq!(
        *pair.ending(CALLEE),
        Ending::NegotiationFailed("authentication")
    );
    assert_eq!(
        *pair.ending(CALLER),
        Ending::PeerRequest("Setup timeout".into())
    );
}

#[test]
fn a_call_that_vanishes_ends_the_link_at_once() {
    let mut pair = Pair::new(caller(), callee()).connect();
    let now = pair.now;
    pair.ends[CALLER].link.handle_down(now);
    pair.drain(CALLER);
    assert_eq!(*pair.ending(CALLER), Ending::PeerRequest(String::new()));
}

#[test]
fn what_comes_after_the_end_changes_nothing() {
    let mut pair = Pair::new(caller(), callee());
    pair.ends[CALLEE].holds_verdicts = true;
    let mut pair = pair.connect();
    pair.close(CALLEE, "User request");
    pair.run_for(1_000);
    pair.ending(CALLEE);
    // `drain` panics on anything that follows the end.
    pair.answer(CALLEE);
    for side in [CALLER, CALLEE] {
        let now = pair.now;
        let link = &mut pair.ends[side].link;
        link.handle_mppe_lost(now);
        link.handle_reset_needed(now);
        link.handle_alive(now, true);
        link.handle_frame(now, &[0xFF, 3, 0xC0, 0x21, 1, 1, 0, 4]);
        link.handle_close(now, "again", Ending::LoopedBack);
        link.handle_down(now);
        link.handle_timeout(now);
        pair.drain(side);
    }
}

#[test]
fn a_repeated_request_is_acknowledged_and_changes_nothing() {
    let mut pair = Pair::new(caller(), callee());
    let mut request = None;
    let (sender, receiver) = std::sync::mpsc::channel();
    pair.wire = Box::new(move |from, frame| {
        if from == CALLER && frame.starts_with(&[0xFF, 3, 0x80, 0x21, 1]) {
            let _ = sender.send(frame.clone());
        }
        Some(frame)
    });
    let mut pair = pair.connect();
    while let Ok(frame) = receiver.try_recv() {
        request = Some(frame);
    }
    pair.in_flight
        .push_back((pair.now, CALLEE, request.unwrap()));
    let ups = pair.ends[CALLEE].lines.len();
    pair.run_for(100);
    pair.network(CALLEE);
    let said = &pair.ends[CALLEE].lines[ups..];
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[1].starts_with("sent [IPCP ConfAck"), "{said:#?}");
}

#[test]
fn ten_thousand_links_fit_into_a_few_kilobytes_each() {
    assert!(size_of::<Link>() <= 2_048, "{}", size_of::<Link>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is lost, the link comes up keyed alike, or ends with a name; it never hangs.
    #[test]
    fn random_loss_ends_in_a_network_or_in_an_ending(seed: u64, percent in 0_u64..60) {
        let mut pair = Pair::seeded(caller(), callee(), (seed & 0xFF) as u8);
        let mut state = seed | 1;
        pair.wire = Box::new(move |_, frame| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 100 >= percent).then_some(frame)
        });
        let mut pair = pair.connect();
        pair.run_for(100_000);
        for side in [CALLER, CALLEE] {
            let end = &pair.ends[side];
            prop_assert!(end.network.is_some() || end.endings.len() == 1, "{:#?}", end.lines);
            prop_assert!(end.network.is_none() || end.send.is_some() && end.receive.is_some());
        }
        if pair.ends.iter().all(|end| end.network.is_some()) {
            pair.assert_encrypted();
        }
    }

    /// Nothing that a stranger sends panics, or makes more than a bounded answer.
    #[test]
    fn anything_may_come_at_any_time(
        frames in prop::collection::vec(stranger(), 1..60),
        cut in 0_usize..60,
    ) {
        let mut pair = Pair::new(caller(), callee());
        let mut count = 0;
        // The wire ends at some point of the negotiation, and the stranger takes over.
        pair.wire = Box::new(move |_, frame| {
            count += 1;
            (count <= cut).then_some(frame)
        });
        let mut pair = pair.connect();
        for frame in frames {
            let now = pair.now;
            for side in [CALLER, CALLEE] {
                pair.ends[side].link.handle_frame(now, &frame);
                let outputs = &pair.ends[side].link.around.outbox.outputs;
                prop_assert!(outputs.len() < 32, "{outputs:?}");
                pair.drain(side);
            }
        }
        pair.run_for(200_000);
        for end in &pair.ends {
            prop_assert!(!end.was_up || end.send.is_some() || end.network.is_none());
        }
    }
}

/// Frames that look like something.
fn stranger() -> impl Strategy<Value = Vec<u8>> {
    let protocol = prop::sample::select(vec![
        0xC021_u16, 0xC023, 0xC223, 0x80FD, 0x8021, 0x8057, 0x00FD, 0x1234,
    ]);
    let option = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..8));
    let options = prop::collection::vec(option, 0..6);
    (protocol, 0_u8..18, 0_u8..4, options, 0_u16..3).prop_map(
        |(protocol, code, id, options, off)| {
            let mut data = Vec::new();
            for (kind, value) in options {
                data.extend([kind % 20, 2 + value.len() as u8]);
                data.extend(value);
            }
            let len = (data.len() as u16 + 4).wrapping_sub(off);
            let mut frame = vec![0xFF, 3];
            frame.extend(protocol.to_be_bytes());
            frame.extend([code, id]);
            frame.extend(len.to_be_bytes());
            frame.extend(data);
            frame
        },
    )
}

/// The peer's packets of one protocol never come: the callee gives up by time, in whatever phase,
/// also when everything has stood before.
#[test]
fn lcp_and_the_network_layers_have_times_of_their_own() {
    let is_lcp = |frame: &[u8]| frame.starts_with(&[0xFF, 3, 0xC0, 0x21]);
    let is_ipcp = |frame: &[u8]| frame.windows(2).take(3).any(|it| it == [0x80, 0x21]);
    let limited = || {
        let mut callee = callee();
        callee.lcp.setup_timeout_ms = 0;
        callee.lcp.lcp_timeout_ms = 7_000;
        callee.lcp.network_timeout_ms = 8_000;
        callee
    };
    for (loses, layer) in [
        (Box::new(is_lcp) as Box<dyn Fn(&[u8]) -> bool>, "LCP"),
        (Box::new(is_ipcp), "IPCP"),
    ] {
        let mut pair = Pair::new(caller(), limited());
        pair.wire =
            Box::new(move |from, frame| (from == CALLEE || !loses(&frame)).then_some(frame));
        let mut pair = pair.connect();
        pair.run_for(11_000);
        assert_eq!(*pair.ending(CALLEE), Ending::NegotiationFailed(layer));
    }
    let mut pair = Pair::new(caller(), limited()).connect();
    pair.run_for(60_000);
    pair.network(CALLEE);
    pair.wire = Box::new(move |from, frame| (from == CALLEE || !is_lcp(&frame)).then_some(frame));
    let again = Bytes::from_static(&[0xFF, 3, 0xC0, 0x21, 1, 99, 0, 4]);
    pair.in_flight.push_back((pair.now, CALLEE, again));
    pair.run_for(15_000);
    assert_eq!(*pair.ending(CALLEE), Ending::NegotiationFailed("LCP"));
}
