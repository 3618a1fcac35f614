//! What ends a link, and that nothing passes that was demanded and not given.

use super::*;
use crate::crypto::key_derivation::KeyMaterial;
use crate::proto::auth::{AuthMethod, MsChapProof};

#[test]
fn a_wrong_password_ends_both_ends_with_names_for_it() {
    for method in AuthMethod::ALL {
        let (mut caller, mut callee) = (caller(), callee());
        caller.secrets = Arc::new(Known("wrong"));
        caller.mppe = None;
        callee.mppe = None;
        callee.require = only(method);
        let pair = Pair::new(caller, callee).connect();
        let why = if method == AuthMethod::MsChapV1 {
            // RFC 2433 4 has no text in it.
            "E=691 Authentication failure"
        } else {
            "Access denied"
        };
        assert_eq!(
            *pair.ending(CALLER),
            Ending::AuthFailed(why.into()),
            "{method}"
        );
        assert_eq!(
            *pair.ending(CALLEE),
            Ending::PeerAuthFailed("mia: Access denied".into())
        );
        pair.assert_never_up();
    }
}

#[test]
fn an_unknown_name_is_denied_as_a_wrong_password_is() {
    let mut caller = caller();
    caller.name = "zidler".into();
    let mut callee = callee();
    callee.secrets = Arc::new(Nobody);
    let pair = Pair::new(caller, callee).connect();
    assert_eq!(
        *pair.ending(CALLER),
        Ending::AuthFailed("Access denied".into())
    );
    pair.assert_never_up();
}

#[derive(Debug)]
struct Nobody;

impl Secrets for Nobody {
    fn find(&self, _: &str, _: &str, _: bool) -> Option<Secret> {
        None
    }

    fn origin(&self, _: bool) -> String {
        "the file".into()
    }
}

#[test]
fn without_a_secret_the_ending_names_the_file() {
    for method in [AuthMethod::MsChapV2, AuthMethod::Pap] {
        let (mut caller, mut callee) = (caller(), callee());
        caller.secrets = Arc::new(Nobody);
        callee.require = only(method);
        let pair = Pair::new(caller, callee).connect();
        assert_eq!(
            *pair.ending(CALLER),
            Ending::NoSecret {
                client: "mia".into(),
                server: "zidler".into(),
                file: "the file".into(),
            }
        );
    }
}

/// RFC 2759 9.1.2.
#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let mut pair = Pair::new(caller(), callee());
    pair.ends[CALLEE].holds_verdicts = true;
    let mut pair = pair.connect();
    let (request_id, _) = pair.ends[CALLEE].asked.pop().unwrap();
    let verdict = Verdict::Accept {
        proof: Some(MsChapProof {
            authenticator_response: format!("S={}", "0".repeat(40)),
            key_material: Some(KeyMaterial::V2 {
                master_key: [0; 16],
            }),
        }),
        message: "Welcome".into(),
        addresses: callee_addresses(),
        mppe: MppeLimit::default(),
    };
    let now = pair.now;
    pair.ends[CALLEE]
        .link
        .handle_verdict(now, request_id, verdict);
    pair.drain(CALLEE);
    pair.run_for(5_000);
    let Ending::PeerAuthFailed(why) = pair.ending(CALLER) else {
        panic!("{:?}", pair.ending(CALLER));
    };
    assert!(why.contains("does not know our password"), "{why}");
    assert!(!pair.ends[CALLER].was_up && pair.ends[CALLER].receive.is_none());
}

/// RFC 2759 9.1.3 is the wrong password above; in 9.1.4 and 9.1.5 the authenticator allows a retry,
/// and this peer has nothing else to offer.
#[test]
fn a_failure_that_allows_a_retry_is_a_failure() {
    for (message, why) in [
        (
            "E=691 R=1 C=33ffbbda5f835612c445de9dc6692fa7 V=0 M=Access denied",
            "Access denied",
        ),
        ("E=647 R=0 V=3 M=", "E=647 Account disabled"),
        ("nonsense", "Unknown authentication failure: nonsense"),
    ] {
        let mut caller = caller();
        caller.secrets = Arc::new(Known("wrong"));
        let mut pair = Pair::new(caller, callee());
        pair.wire = Box::new(move |from, frame| {
            if from == CALLEE && frame.starts_with(&[0xFF, 3, 0xC2, 0x23, 4]) {
                let (id, message) = (frame[5], message.as_bytes());
                let failure = ChapPacket::Failure { id, message }.to_bytes();
                return Some([&[0xFF, 3, 0xC2, 0x23][..], &failure].concat().into());
            }
            Some(frame)
        });
        let pair = pair.connect();
        assert_eq!(*pair.ending(CALLER), Ending::AuthFailed(why.into()));
        let line = format!("MS-CHAP authentication failed: {why}");
        pair.assert_said(CALLER, &line);
        let responses = |line: &&String| line.starts_with("sent [CHAP Response");
        assert_eq!(pair.ends[CALLER].lines.iter().filter(responses).count(), 1);
    }
}

#[test]
fn a_peer_that_proves_nothing_never_gets_a_network() {
    let mut caller = caller();
    caller.allow = AuthMethods::NONE;
    caller.mppe = None;
    let mut callee = callee();
    callee.mppe = None;
    callee.require = AuthMethods::ALL;
    let pair = Pair::new(caller, callee).connect();
    pair.assert_never_up();
    pair.assert_said(CALLER, "No auth is possible");
    pair.assert_said(CALLEE, "peer refused to authenticate: terminating link");
    assert!(matches!(pair.ending(CALLEE), Ending::PeerAuthFailed(_)));
    assert!(matches!(pair.ending(CALLER), Ending::PeerIncompatible(_)));
}

#[test]
fn methods_without_overlap_end_with_names_for_them() {
    let mut caller = caller();
    caller.allow = only(AuthMethod::ChapMd5);
    let pair = Pair::new(caller, callee()).connect();
    pair.assert_never_up();
    let Ending::PeerIncompatible(why) = pair.ending(CALLER) else {
        panic!("{:?}", pair.ending(CALLER));
    };
    assert!(
        why.contains("MS-CHAPv2") && why.contains("CHAP-MD5"),
        "{why}"
    );
    assert!(matches!(pair.ending(CALLEE), Ending::PeerAuthFailed(_)));
}

#[test]
fn a_caller_that_demands_proof_gets_no_network_without_it() {
    let (mut caller, mut callee) = (caller(), callee());
    caller.require = only(AuthMethod::MsChapV2);
    callee.allow = AuthMethods::NONE;
    let pair = Pair::new(caller, callee).connect();
    pair.assert_never_up();
    assert!(matches!(pair.ending(CALLER), Ending::PeerAuthFailed(_)));
}

#[test]
fn required_mppe_that_the_peer_lacks_ends_with_the_words_of_both() {
    let mut callee = callee();
    callee.mppe = None;
    let pair = Pair::new(caller(), callee).connect();
    pair.assert_never_up();
    let refused = Ending::MppeRefused {
        ours: "this side requires MPPE (128 bit, stateless only)".into(),
        theirs: "the peer rejects MPPE".into(),
    };
    assert_eq!(*pair.ending(CALLER), refused);
    // As in the capture mppe-refused.
    pair.assert_said(CALLER, "MPPE required but peer refused");
    pair.assert_said(
        CALLER,
        "sent [LCP TermReq id=0x2 \"MPPE required but peer refused\"]",
    );
    pair.assert_said(CALLEE, "sent [CCP ConfReq id=0x1]");
    pair.assert_said(CALLEE, "sent [CCP ConfRej id=0x1 <mppe +H -M +S -L -D -C>]");
    assert_eq!(
        *pair.ending(CALLEE),
        Ending::PeerRequest("MPPE required but peer refused".into())
    );
}

#[test]
fn a_callee_that_requires_mppe_refuses_a_caller_without_it() {
    let mut caller = caller();
    caller.mppe = None;
    let pair = Pair::new(caller, callee()).connect();
    pair.assert_never_up();
    assert!(matches!(pair.ending(CALLEE), Ending::MppeRefused { .. }));
}

#[test]
fn strengths_without_overlap_end_with_the_words_of_both() {
    let (mut caller, callee) = (caller(), callee());
    caller.mppe = Some(MppeConfig {
        allow_128: false,
        allow_40: true,
        ..MPPE_128
    });
    let pair = Pair::new(caller, callee).connect();
    pair.assert_never_up();
    for side in [CALLER, CALLEE] {
        let ending = pair.ending(side);
        let named = matches!(ending, Ending::MppeRefused { .. } | Ending::PeerRequest(_));
        assert!(named, "{ending:?}");
    }
}

#[test]
fn required_mppe_without_mschap_says_that_keys_are_missing() {
    for method in [AuthMethod::Pap, AuthMethod::ChapMd5] {
        let mut callee = callee();
        callee.mppe = None;
        callee.require = only(method);
        let pair = Pair::new(caller(), callee).connect();
        pair.assert_said(CALLER, "MPPE required, but MS-CHAP[v2] auth not performed.");
        assert!(matches!(pair.ending(CALLER), Ending::MppeRefused { .. }));
        assert!(!pair.ends[CALLER].was_up);
    }
}

/// A fault that a known router has.
#[test]
fn a_peer_that_asks_for_no_strength_for_ever_is_given_up() {
    let mut pair = Pair::new(caller(), callee());
    pair.wire = Box::new(|from, frame| {
        let mut octets = frame.to_vec();
        if from == CALLEE && frame.starts_with(&[0xFF, 3, 0x80, 0xFD, 1]) {
            octets[10..14].fill(0);
        }
        Some(octets.into())
    });
    let mut pair = pair.connect();
    pair.run_for(120_000);
    pair.assert_never_up();
    let Ending::MppeRefused { theirs, .. } = pair.ending(CALLER) else {
        panic!("{:?}", pair.ending(CALLER));
    };
    assert_eq!(theirs, "the peer asks for <mppe -H -M -S -L -D -C>");
}

#[test]
fn a_peer_that_does_not_know_ccp_is_refused_or_served_in_the_clear() {
    for require in [true, false] {
        let mut caller = caller();
        caller.mppe = Some(MppeConfig {
            require,
            ..MPPE_128
        });
        let mut callee = callee();
        callee.mppe = None;
        let mut pair = Pair::new(caller, callee);
        // The frame as an old peer sees it: of a protocol that it has never heard of.
        pair.wire = Box::new(|from, frame| {
            let mut octets = frame.to_vec();
            if from == CALLER && frame.starts_with(&[0xFF, 3, 0x80, 0xFD]) {
                octets[3] = 0xDD;
            }
            if from == CALLEE && frame.starts_with(&[0xFF, 3, 0xC0, 0x21, 8]) {
                octets[9] = 0xFD;
            }
            Some(octets.into())
        });
        let pair = pair.connect();
        if require {
            assert!(matches!(pair.ending(CALLER), Ending::MppeRefused { .. }));
            pair.assert_never_up();
        } else {
            assert_eq!(pair.network(CALLER).cipher, "none");
        }
    }
}

#[test]
fn ccp_that_goes_down_under_traffic_ends_the_link() {
    let mut pair = Pair::new(caller(), callee()).connect();
    pair.network(CALLER);
    let terminate = [0xFF, 3, 0x80, 0xFD, 5, 9, 0, 4];
    pair.in_flight
        .push_back((pair.now, CALLER, Bytes::copy_from_slice(&terminate)));
    pair.run_for(5_000);
    pair.assert_said(CALLER, "MPPE disabled");
    assert!(matches!(pair.ending(CALLER), Ending::PeerIncompatible(_)));
    // Its own Terminate-Ack told the callee that CCP was gone.
    assert!(matches!(pair.ending(CALLEE), Ending::PeerIncompatible(_)));
}

#[test]
fn mppe_that_lost_its_place_for_good_ends_the_link() {
    let mut pair = Pair::new(caller(), callee()).connect();
    let now = pair.now;
    pair.ends[CALLER].link.handle_mppe_lost(now);
    pair.drain(CALLER);
    pair.run_for(1_000);
    assert!(matches!(pair.ending(CALLER), Ending::PeerIncompatible(_)));
}

#[test]
fn no_address_means_no_network() {
    let mut callee = callee();
    callee.addresses.remote = None;
    let pair = Pair::new(caller(), callee).connect();
    pair.assert_never_up();
    assert!(matches!(pair.ending(CALLER), Ending::NoAddresses(_)));
}

#[test]
fn an_address_that_the_caller_insists_on_and_the_callee_refuses_ends_the_link() {
    let mut caller = caller();
    caller.addresses.local = Some(Ipv4Addr::new(10, 9, 9, 9));
    let pair = Pair::new(caller.clone(), callee()).connect();
    pair.assert_never_up();
    assert!(matches!(pair.ending(CALLEE), Ending::NoAddresses(_)));

    caller.addresses.accept_local = true;
    let pair = Pair::new(caller.clone(), callee()).connect();
    assert_eq!(
        pair.network(CALLER).local,
        Ipv4Addr::new(192, 168, 254, 231)
    );

    caller.addresses.accept_local = false;
    let mut callee = callee();
    callee.addresses.accept_remote = true;
    let pair = Pair::new(caller, callee).connect();
    assert_eq!(pair.network(CALLEE).remote, Ipv4Addr::new(10, 9, 9, 9));
}

#[test]
fn a_link_that_hears_itself_says_so() {
    let mut link = Link::new(Arc::new(caller()), LinkRole::Caller, [1; 32]);
    link.handle_up(Time(0));
    let mut ending = None;
    for now in 0..200 {
        let outputs: Vec<_> = std::iter::from_fn(|| link.poll_output()).collect();
        for output in outputs {
            match output {
                LinkOutput::Frame(frame) => link.handle_frame(Time(now), &frame),
                LinkOutput::Terminated(end) => ending = Some(end),
                _ => {}
            }
        }
        link.handle_timeout(Time(now));
    }
    assert_eq!(ending, Some(Ending::LoopedBack));
}
