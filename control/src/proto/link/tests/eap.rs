//! EAP in the place of CHAP.

use super::*;
use crate::crypto::challenge_response::chap_md5_response;

fn pair(mppe: Option<MppeConfig>) -> Pair {
    let (mut caller, mut callee) = (caller(), callee());
    caller.mppe = mppe;
    callee.mppe = mppe;
    callee.require = only(AuthMethod::Eap);
    Pair::new(caller, callee)
}

fn eap(packet: &[u8]) -> Bytes {
    [&[0xFF, 3, 0xC2, 0x27], packet].concat().into()
}

fn is_eap(frame: &[u8], code: u8) -> bool {
    frame.starts_with(&[0xFF, 3, 0xC2, 0x27, code])
}

#[test]
fn mschap_v2_inside_eap_keys_both_ends() {
    let pair = pair(Some(MPPE_128)).connect();
    pair.network(CALLER);
    pair.assert_encrypted();
    pair.assert_said(CALLER, "EAP authentication succeeded");
    pair.assert_said(CALLER, "Remote message: Access granted");
    pair.assert_said(CALLEE, "Peer mia authenticated");
}

/// The callee's every MSCHAPv2 Challenge is turned into a challenge of type 4, as pppd begins.
fn begin_with_md5(pair: &mut Pair) {
    pair.wire = Box::new(|from, frame| {
        let is_challenge = is_eap(&frame, 1) && frame.get(8..10) == Some(&[26, 1]);
        if from != CALLEE || !is_challenge {
            return Some(frame);
        }
        let mut packet = vec![1, frame[5], 0, 22, 4, 16];
        packet.extend([7; 16]);
        Some(eap(&packet))
    });
}

#[test]
fn md5_is_refused_where_keys_are_needed_and_mschap_v2_suggested() {
    let mut pair = pair(Some(MPPE_128));
    begin_with_md5(&mut pair);
    let pair = pair.connect();
    // Nak, with type 26 alone.
    let naks = |line: &&String| line.starts_with("sent [EAP Response") && line.ends_with("Nak 1a]");
    assert!(pair.ends[CALLER].lines.iter().any(|line| naks(&line)));
    pair.assert_never_up();
}

#[test]
fn a_peer_that_wants_md5_gets_it_where_no_keys_are_needed() {
    let mut pair = pair(None);
    // Asked for TLS, the caller says what it would rather have: MSCHAPv2 or MD5.
    pair.wire = Box::new(|from, frame| {
        let is_challenge = is_eap(&frame, 1) && frame.get(8) == Some(&26);
        if from == CALLEE && is_challenge {
            return Some(eap(&[1, frame[5], 0, 6, 13, 0x20]));
        }
        Some(frame)
    });
    let pair = pair.connect();
    pair.network(CALLER);
    pair.assert_said(CALLER, "EAP authentication succeeded");
    assert_eq!(pair.network(CALLEE).cipher, "none");
}

#[test]
fn a_peer_that_wants_nothing_that_there_is_is_turned_away() {
    let mut pair = pair(Some(MPPE_128));
    pair.wire = Box::new(|from, frame| {
        let is_response = is_eap(&frame, 2) && frame.get(8) == Some(&26);
        if from == CALLER && is_response {
            return Some(eap(&[2, frame[5], 0, 6, 3, 13]));
        }
        Some(frame)
    });
    let pair = pair.connect();
    assert!(matches!(pair.ending(CALLEE), Ending::PeerAuthFailed(_)));
    pair.assert_never_up();
}

#[test]
fn every_lost_packet_is_made_up_for() {
    for mppe in [Some(MPPE_128), None] {
        for lost in 0..8 {
            let mut pair = pair(mppe);
            let mut count = 0;
            pair.wire = Box::new(move |_, frame| {
                let is_eap = frame.starts_with(&[0xFF, 3, 0xC2, 0x27]);
                count += usize::from(is_eap);
                (!is_eap || count != lost + 1).then_some(frame)
            });
            let mut pair = pair.connect();
            pair.run_for(20_000);
            pair.network(CALLER);
            pair.network(CALLEE);
            pair.assert_keyed_alike();
        }
    }
}

#[test]
fn a_success_that_no_method_has_earned_is_nothing() {
    let mut pair = pair(Some(MPPE_128));
    pair.wire = Box::new(|from, frame| {
        // The authenticator says Success instead of proving that it knows the password.
        let is_proof = is_eap(&frame, 1) && frame.get(8..10) == Some(&[26, 3]);
        if from == CALLEE && is_proof {
            return Some(eap(&[3, frame[5], 0, 4]));
        }
        Some(frame)
    });
    let mut pair = pair.connect();
    pair.run_for(120_000);
    pair.assert_never_up();
}

#[test]
fn an_authenticator_without_the_password_is_found_out() {
    let (mut caller, mut callee) = (caller(), callee());
    callee.require = only(AuthMethod::Eap);
    caller.mppe = None;
    callee.mppe = None;
    let mut pair = Pair::new(caller, callee);
    pair.wire = Box::new(|from, frame| {
        let is_proof = is_eap(&frame, 1) && frame.get(8..10) == Some(&[26, 3]);
        if from == CALLEE && is_proof {
            let mut octets = frame.to_vec();
            octets[20] ^= 1;
            return Some(octets.into());
        }
        Some(frame)
    });
    let pair = pair.connect();
    assert!(matches!(pair.ending(CALLER), Ending::PeerAuthFailed(_)));
    pair.assert_never_up();
}

#[test]
fn a_notification_is_shown_and_answered() {
    let mut pair = pair(Some(MPPE_128));
    let mut shown = false;
    pair.wire = Box::new(move |from, frame| {
        let is_request = is_eap(&frame, 1) && frame.get(8) == Some(&1);
        if from == CALLEE && is_request && !std::mem::replace(&mut shown, true) {
            return Some(eap(&[1, frame[5].wrapping_sub(1), 0, 7, 2, b'h', b'i']));
        }
        Some(frame)
    });
    let mut pair = pair.connect();
    pair.run_for(5_000);
    pair.assert_said(CALLER, "EAP: Notification \"hi\"");
    pair.network(CALLER);
}

#[test]
fn requests_without_end_end() {
    let mut pair = pair(Some(MPPE_128));
    pair.wire = Box::new(|from, frame| (from != CALLER || !is_eap(&frame, 2)).then_some(frame));
    let mut pair = pair.connect();
    for id in 0..200_u8 {
        let request = eap(&[1, id, 0, 6, 1, id]);
        pair.in_flight.push_back((pair.now, CALLER, request));
        pair.run_for(20);
    }
    assert!(matches!(pair.ending(CALLER), Ending::AuthFailed(_)));
    let said = |line: &&String| line.starts_with("sent [EAP Response");
    assert!(pair.ends[CALLER].lines.iter().filter(said).count() <= 25);
}

#[test]
fn a_peer_is_asked_again_after_the_interval_and_the_network_stays() {
    let (caller, mut callee) = (caller(), callee());
    callee.require = only(AuthMethod::Eap);
    callee.lcp.chap_interval_ms = 2_000;
    let mut pair = Pair::new(caller, callee).connect();
    pair.run_for(20_000);
    let asked = |line: &&String| line.starts_with("rcvd [EAP Success");
    assert!(pair.ends[CALLER].lines.iter().filter(asked).count() > 5);
    pair.network(CALLER);
    pair.assert_encrypted();
}

/// What an authentication server that speaks MD5 says to a Response.
fn by_server(response: &[u8]) -> Verdict {
    let challenge = [7; 16];
    match response {
        [2, id, _, _, 1, name @ ..] => {
            assert_eq!(name, b"mia");
            let mut request = vec![1, id.wrapping_add(1), 0, 22, 4, 16];
            request.extend(challenge);
            Verdict::Continue { request }
        }
        [2, id, _, _, 4, 16, value @ ..] => {
            let due = chap_md5_response(*id, b"mia123", &challenge);
            assert_eq!(value[..16], due);
            Verdict::Accept {
                proof: None,
                message: String::new(),
                addresses: callee_addresses(),
                mppe: MppeLimit::default(),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_passed_through_is_spoken_with_the_server_whatever_gets_lost() {
    for lost in 0..6 {
        let (mut caller, mut callee) = (caller(), callee());
        (caller.mppe, callee.mppe) = (None, None);
        callee.require = only(AuthMethod::Eap);
        callee.eap_pass_through = true;
        let mut pair = Pair::new(caller, callee);
        pair.ends[CALLEE].holds_verdicts = true;
        let mut count = 0;
        pair.wire = Box::new(move |_, frame| {
            let is_eap = frame.starts_with(&[0xFF, 3, 0xC2, 0x27]);
            count += usize::from(is_eap);
            (!is_eap || count != lost + 1).then_some(frame)
        });
        let mut pair = pair.connect();
        for _ in 0..100 {
            let now = pair.now;
            let callee = &mut pair.ends[CALLEE];
            for (request_id, request) in std::mem::take(&mut callee.asked) {
                assert_eq!(request.method, AuthMethod::Eap);
                let verdict = by_server(request.response.as_bytes());
                callee.link.handle_verdict(now, request_id, verdict);
            }
            pair.drain(CALLEE);
            pair.run_for(200);
        }
        pair.network(CALLER);
        pair.network(CALLEE);
        pair.assert_said(CALLER, "EAP authentication succeeded");
    }
}
