//! What two ends agree on.

use super::*;

#[test]
fn every_method_brings_the_network_up() {
    for method in AuthMethod::ALL {
        let mut callee = callee();
        callee.require = only(method);
        let has_keys = matches!(
            method,
            AuthMethod::Eap | AuthMethod::MsChapV2 | AuthMethod::MsChapV1
        );
        let mut caller = caller();
        if !has_keys {
            caller.mppe = None;
            callee.mppe = None;
        }
        let pair = Pair::new(caller, callee).connect();
        let network = pair.network(CALLER);
        assert_eq!(network.local, Ipv4Addr::new(192, 168, 254, 231), "{method}");
        assert_eq!(network.remote, Ipv4Addr::new(192, 168, 254, 230));
        assert_eq!(network.dns, [Some(network.remote); 2]);
        assert_eq!(network.require_encryption, has_keys);
        assert_eq!(pair.network(CALLEE).remote, network.local);
        assert_eq!(pair.ends[CALLER].send.is_some(), has_keys, "{method}");
        pair.assert_keyed_alike();
        pair.assert_said(CALLEE, "Peer mia authenticated");
    }
}

#[test]
fn every_strength_and_mode_is_agreed_to_and_keyed_alike() {
    for method in [AuthMethod::Eap, AuthMethod::MsChapV2, AuthMethod::MsChapV1] {
        for strength in [40, 56, 128] {
            for stateful in [false, true] {
                let mppe = MppeConfig {
                    allow_40: strength == 40,
                    allow_56: strength == 56,
                    allow_128: strength == 128,
                    allow_stateful: stateful,
                    prefer_stateful: stateful,
                    ..MPPE_128
                };
                let (mut caller, mut callee) = (caller(), callee());
                caller.mppe = Some(mppe);
                callee.mppe = Some(mppe);
                callee.require = only(method);
                let pair = Pair::new(caller, callee).connect();
                let mode = if stateful { "stateful" } else { "stateless" };
                let cipher = format!("MPPE {strength}-bit {mode}");
                assert_eq!(pair.network(CALLER).cipher, cipher);
                pair.assert_said(CALLEE, &format!("{cipher} compression enabled"));
                pair.assert_encrypted();
            }
        }
    }
}

#[test]
fn the_strongest_that_both_allow_is_agreed_to() {
    let every = MppeConfig {
        allow_40: true,
        allow_56: true,
        ..MPPE_128
    };
    for (allow_56, cipher) in [
        (true, "MPPE 56-bit stateless"),
        (false, "MPPE 40-bit stateless"),
    ] {
        let (mut caller, mut callee) = (caller(), callee());
        caller.mppe = Some(every);
        callee.mppe = Some(MppeConfig {
            allow_128: false,
            allow_56,
            ..every
        });
        let pair = Pair::new(caller, callee).connect();
        assert_eq!(pair.network(CALLER).cipher, cipher);
        assert_eq!(pair.network(CALLEE).cipher, cipher);
        pair.assert_encrypted();
    }
}

#[test]
fn stateless_is_insisted_on_where_stateful_is_not_allowed() {
    let (mut caller, callee) = (caller(), callee());
    caller.mppe = Some(MppeConfig {
        allow_stateful: true,
        prefer_stateful: true,
        ..MPPE_128
    });
    let pair = Pair::new(caller, callee).connect();
    pair.assert_said(CALLER, "sent [CCP ConfReq id=0x1 <mppe -H -M +S -L -D -C>]");
    pair.assert_said(CALLER, "rcvd [CCP ConfNak id=0x1 <mppe +H -M +S -L -D -C>]");
    assert_eq!(pair.network(CALLEE).cipher, "MPPE 128-bit stateless");
    pair.assert_encrypted();
}

#[test]
fn a_request_for_several_strengths_and_mppc_is_naked_with_the_strongest() {
    let mut pair = Pair::new(caller(), callee());
    // What Windows asks for first.
    let mut first = true;
    pair.wire = Box::new(move |from, frame| {
        let is_request = frame.starts_with(&[0xFF, 3, 0x80, 0xFD, 1]);
        if from == CALLER && is_request && std::mem::take(&mut first) {
            let mut octets = frame.to_vec();
            octets[10..14].copy_from_slice(&[1, 0, 0, 0xE1]);
            return Some(octets.into());
        }
        Some(frame)
    });
    let pair = pair.connect();
    pair.assert_said(CALLEE, "rcvd [CCP ConfReq id=0x1 <mppe +H +M +S +L -D +C>]");
    pair.assert_said(CALLEE, "sent [CCP ConfNak id=0x1 <mppe +H -M +S -L -D -C>]");
    pair.assert_encrypted();
}

#[test]
fn the_receive_key_is_set_before_the_ack_that_lets_the_peer_use_it() {
    let pair = Pair::new(caller(), callee()).connect();
    for end in &pair.ends {
        let position = |start: &str| {
            end.lines
                .iter()
                .position(|line| line.starts_with(start))
                .unwrap()
        };
        let (receive, ack) = (position("receive key true"), position("sent [CCP ConfAck"));
        assert_eq!(receive + 1, ack, "{:#?}", end.lines);
        assert!(position("send key true") > position("rcvd [CCP ConfAck"));
    }
}

#[test]
fn optional_mppe_that_is_refused_leaves_a_network_in_the_clear() {
    let (mut caller, mut callee) = (caller(), callee());
    caller.mppe = Some(MppeConfig {
        require: false,
        ..MPPE_128
    });
    callee.mppe = None;
    let pair = Pair::new(caller, callee).connect();
    assert_eq!(pair.network(CALLER).cipher, "none");
    assert!(!pair.network(CALLER).require_encryption);
    pair.assert_keyed_alike();
}

#[test]
fn optional_mppe_that_is_agreed_to_is_then_demanded_of_every_packet() {
    let optional = MppeConfig {
        require: false,
        ..MPPE_128
    };
    let (mut caller, mut callee) = (caller(), callee());
    caller.mppe = Some(optional);
    callee.mppe = Some(optional);
    let pair = Pair::new(caller, callee).connect();
    assert!(pair.network(CALLER).require_encryption);
    pair.assert_encrypted();
}

#[test]
fn ends_that_prove_themselves_to_each_other_take_the_same_keys() {
    let (mut caller, mut callee) = (caller(), callee());
    caller.require = only(AuthMethod::MsChapV2);
    callee.remote_name = Some("mia".into());
    let pair = Pair::new(caller, callee).connect();
    pair.assert_said(CALLER, "Peer zidler authenticated");
    pair.assert_said(CALLEE, "Peer mia authenticated");
    pair.assert_said(CALLEE, "CHAP authentication succeeded");
    pair.assert_encrypted();
}

#[test]
fn keys_come_from_the_only_mschap_exchange_of_two() {
    let (mut caller, mut callee) = (caller(), callee());
    caller.require = only(AuthMethod::MsChapV2);
    callee.require = only(AuthMethod::ChapMd5);
    callee.remote_name = Some("mia".into());
    Pair::new(caller, callee).connect().assert_encrypted();
}

#[test]
fn a_weaker_method_is_fallen_back_to_where_it_is_allowed() {
    let (mut caller, mut callee) = (caller(), callee());
    caller.allow = only(AuthMethod::ChapMd5);
    caller.mppe = None;
    callee.mppe = None;
    callee.require = AuthMethods::ALL;
    let pair = Pair::new(caller, callee).connect();
    pair.network(CALLER);
    pair.assert_said(CALLEE, "rcvd [LCP ConfNak id=0x2 <auth chap MD5>]");
}

#[test]
fn a_verdict_may_come_late_and_is_asked_for_once() {
    let mut pair = Pair::new(caller(), callee());
    pair.ends[CALLEE].holds_verdicts = true;
    let mut pair = pair.connect();
    pair.run_for(20_000);
    assert_eq!(pair.ends[CALLEE].asked.len(), 1);
    pair.assert_never_up();
    pair.answer(CALLEE);
    pair.run_for(1_000);
    pair.assert_encrypted();
    pair.network(CALLER);
}

#[test]
fn headers_are_compressed_only_where_both_ends_allow_it() {
    let pair = Pair::new(caller(), callee()).connect();
    assert!(!pair.network(CALLER).compress_address_control);
    let mut caller = caller();
    caller.lcp = LcpConfig::default();
    let pair = Pair::new(caller, callee()).connect();
    for side in [CALLER, CALLEE] {
        assert!(pair.network(side).compress_address_control);
        assert!(pair.network(side).compress_protocol);
    }
}

#[test]
fn the_mtu_is_what_both_ends_can_carry() {
    let (mut caller, mut callee) = (caller(), callee());
    callee.lcp.mru = 1400;
    caller.lcp.mtu = 1456;
    let pair = Pair::new(caller, callee).connect();
    pair.assert_said(CALLER, "sent [LCP ConfRej id=0x1 <pcomp> <accomp>]");
    // MPPE needs four octets of the 1400.
    assert_eq!(pair.network(CALLER).mtu, 1396);
    assert_eq!(pair.network(CALLEE).mtu, 1456);
}

#[test]
fn a_peer_that_takes_more_than_we_send_is_sent_no_more_than_we_can() {
    let (mut caller, mut callee) = (caller(), callee());
    callee.lcp.mru = 16_384;
    caller.lcp.mtu = 1904;
    let pair = Pair::new(caller, callee).connect();
    assert_eq!(pair.network(CALLER).mtu, 1904);
}

#[test]
fn closing_takes_the_network_down_and_tells_the_peer_why() {
    for (closer, other) in [(CALLER, CALLEE), (CALLEE, CALLER)] {
        let mut pair = Pair::new(caller(), callee()).connect();
        pair.close(closer, "User request");
        pair.run_for(3_000);
        assert_eq!(
            *pair.ending(closer),
            Ending::LocalRequest("User request".into())
        );
        assert_eq!(
            *pair.ending(other),
            Ending::PeerRequest("User request".into())
        );
        pair.assert_said(other, "LCP terminated by peer (User request)");
        pair.assert_said(other, "Connection terminated.");
        assert!(pair.ends[other].network.is_none());
        assert!(pair.ends[other].send.is_none() && pair.ends[other].receive.is_none());
    }
}

#[test]
fn a_reset_request_resets_the_other_ends_encryptor() {
    let mut pair = Pair::new(caller(), callee()).connect();
    let now = pair.now;
    pair.ends[CALLER].link.handle_reset_needed(now);
    pair.drain(CALLER);
    pair.run_for(100);
    assert_eq!(pair.ends[CALLEE].resets, 1);
    pair.assert_said(CALLER, "sent [CCP ResetReq id=0x2]");
    pair.assert_said(CALLER, "rcvd [CCP ResetAck id=0x2]");
}

#[test]
fn a_renegotiation_of_lcp_proves_and_keys_everything_anew() {
    let mut pair = Pair::new(caller(), callee()).connect();
    let before = pair.ends[CALLER].send.clone().unwrap();
    // A Configure-Request with an identifier that was not used before.
    let request = [0xFF, 3, 0xC0, 0x21, 1, 99, 0, 10, 5, 6, 1, 2, 3, 4];
    pair.in_flight
        .push_back((pair.now, CALLEE, Bytes::copy_from_slice(&request)));
    pair.run_for(5_000);
    pair.network(CALLER);
    pair.assert_encrypted();
    let after = pair.ends[CALLER].send.clone().unwrap();
    assert_ne!(key(&before), key(&after));
}

#[test]
fn name_servers_that_a_server_lacks_are_not_asked_for_again() {
    let (mut caller, mut callee) = (caller(), callee());
    caller.addresses.ask_wins = true;
    callee.addresses.dns = [callee.addresses.local, None];
    let pair = Pair::new(caller, callee).connect();
    let line = "rcvd [IPCP ConfRej id=0x1 <ms-dns2 0.0.0.0> <ms-wins 0.0.0.0> <ms-wins 0.0.0.0>]";
    pair.assert_said(CALLER, line);
    assert_eq!(
        pair.network(CALLER).dns,
        [Some(Ipv4Addr::new(192, 168, 254, 230)), None]
    );
    assert_eq!(pair.network(CALLER).wins, [None; 2]);
}
