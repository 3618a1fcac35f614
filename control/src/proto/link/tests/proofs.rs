//! Proofs that are asked for again while the network is up, and links without any.

use super::*;

const INTERVAL_MS: u64 = 60_000;

fn challenged_again(method: AuthMethod) -> Pair {
    let (mut caller, mut callee) = (caller(), callee());
    callee.require = only(method);
    callee.lcp.chap_interval_ms = INTERVAL_MS;
    if method == AuthMethod::ChapMd5 {
        (caller.mppe, callee.mppe) = (None, None);
    }
    Pair::new(caller, callee).connect()
}

fn count(pair: &Pair, side: usize, start: &str) -> usize {
    let lines = pair.ends[side].lines.iter();
    lines.filter(|line| line.starts_with(start)).count()
}

#[test]
fn a_peer_is_challenged_again_and_keeps_its_network_and_its_keys() {
    for method in [
        AuthMethod::MsChapV2,
        AuthMethod::MsChapV1,
        AuthMethod::ChapMd5,
    ] {
        let mut pair = challenged_again(method);
        let keyed = count(&pair, CALLEE, "send key") + count(&pair, CALLER, "send key");
        let challenges = count(&pair, CALLER, "rcvd [CHAP Challenge");
        pair.run_for(3 * INTERVAL_MS);
        let more = count(&pair, CALLER, "rcvd [CHAP Challenge") - challenges;
        assert_eq!(more, 3, "{method}: {:#?}", pair.ends[CALLER].lines);
        assert_eq!(count(&pair, CALLER, "rcvd [CHAP Success"), 4, "{method}");
        pair.network(CALLER);
        pair.network(CALLEE);
        let keyed_now = count(&pair, CALLEE, "send key") + count(&pair, CALLER, "send key");
        assert_eq!(keyed_now, keyed, "{method}");
        pair.assert_keyed_alike();
        assert_eq!(
            count(&pair, CALLEE, "Peer mia authenticated"),
            1,
            "{method}"
        );
    }
}

#[test]
fn challenges_differ_from_one_to_the_next() {
    let mut pair = challenged_again(AuthMethod::MsChapV2);
    pair.run_for(4 * INTERVAL_MS);
    let lines = &pair.ends[CALLER].lines;
    let challenges = lines
        .iter()
        .filter(|line| line.starts_with("rcvd [CHAP Challenge"));
    let mut challenges: Vec<_> = challenges.collect();
    assert_eq!(challenges.len(), 5);
    challenges.sort();
    challenges.dedup();
    assert_eq!(challenges.len(), 5);
}

#[test]
fn a_peer_that_leaves_a_later_challenge_unanswered_is_let_go() {
    let mut pair = challenged_again(AuthMethod::MsChapV2);
    pair.network(CALLEE);
    let is_response = |frame: &Bytes| frame.windows(3).take(4).any(|it| it == [0xC2, 0x23, 2]);
    pair.wire =
        Box::new(move |from, frame| (from == CALLEE || !is_response(&frame)).then_some(frame));
    pair.run_for(INTERVAL_MS + 60_000);
    assert!(matches!(pair.ending(CALLEE), Ending::PeerAuthFailed(_)));
    pair.assert_said(CALLEE, "Peer failed to respond to CHAP challenge");
}

#[test]
fn a_peer_that_meets_a_later_challenge_badly_is_let_go() {
    let mut pair = challenged_again(AuthMethod::MsChapV2);
    pair.ends[CALLEE].secrets = Arc::new(Known("changed"));
    pair.run_for(INTERVAL_MS + 5_000);
    assert!(matches!(pair.ending(CALLEE), Ending::PeerAuthFailed(_)));
    assert!(pair.ends[CALLER].network.is_none());
}

#[test]
fn a_peer_that_becomes_another_is_let_go() {
    let mut pair = challenged_again(AuthMethod::ChapMd5);
    pair.wire = Box::new(|from, frame| {
        let mut octets = frame.to_vec();
        let is_response = frame.windows(3).take(4).any(|it| it == [0xC2, 0x23, 2]);
        if from == CALLER && is_response && octets.ends_with(b"mia") {
            let at = octets.len() - 3;
            octets[at..].copy_from_slice(b"eve");
        }
        Some(octets.into())
    });
    // Eve has the same password.
    #[derive(Debug)]
    struct Anyone;
    impl Secrets for Anyone {
        fn find(&self, _: &str, _: &str, _: bool) -> Option<Secret> {
            Some(Secret::new("mia123".into()))
        }
        fn origin(&self, _: bool) -> String {
            String::new()
        }
    }
    pair.ends[CALLEE].secrets = Arc::new(Anyone);
    pair.run_for(INTERVAL_MS + 5_000);
    pair.assert_said(CALLEE, "Peer changed its name");
    assert!(matches!(pair.ending(CALLEE), Ending::PeerAuthFailed(_)));
}

fn unproved() -> (LinkConfig, LinkConfig) {
    let (mut caller, mut callee) = (caller(), callee());
    callee.require = AuthMethods::NONE;
    (caller.mppe, callee.mppe) = (None, None);
    (caller, callee)
}

#[test]
fn a_callee_that_demands_no_proof_gives_addresses_all_the_same() {
    let (caller, callee) = unproved();
    let mut pair = Pair::new(caller, callee).connect();
    assert_eq!(
        pair.network(CALLER).local,
        Ipv4Addr::new(192, 168, 254, 231)
    );
    assert_eq!(pair.network(CALLEE).remote, pair.network(CALLER).local);
    // Nor is it asked again, or let go, when the time for authentication is over.
    pair.run_for(100_000);
    pair.network(CALLEE);
}

#[test]
fn without_a_free_address_an_unproved_peer_is_told_and_let_go() {
    let (caller, mut callee) = unproved();
    callee.addresses.remote = None;
    let pair = Pair::new(caller, callee).connect();
    pair.assert_never_up();
    assert!(matches!(pair.ending(CALLEE), Ending::NoAddresses(_)));
    pair.assert_said(
        CALLER,
        "LCP terminated by peer (No network protocols running)",
    );
}

#[test]
fn methods_are_demanded_strongest_first_and_fallen_back_from_one_by_one() {
    let (mut caller, mut callee) = unproved();
    let (v2, pap) = (AuthMethod::MsChapV2, AuthMethod::Pap);
    callee.require = AuthMethods {
        mschap_v2: true,
        pap: true,
        ..AuthMethods::NONE
    };
    caller.allow = only(pap);
    let pair = Pair::new(caller.clone(), callee.clone()).connect();
    let first = |pair: &Pair, method: &str| {
        let lines = &pair.ends[CALLEE].lines;
        let line = lines
            .iter()
            .find(|line| line.starts_with("sent [LCP ConfReq"));
        assert!(line.unwrap().contains(method), "{lines:#?}");
    };
    first(&pair, "<auth chap MS-v2>");
    pair.assert_said(CALLEE, "rcvd [LCP ConfNak id=0x2 <auth pap>]");
    pair.assert_said(CALLEE, "PAP peer authentication succeeded for mia");
    pair.network(CALLER);
    caller.allow = only(v2);
    let pair = Pair::new(caller.clone(), callee.clone()).connect();
    pair.network(CALLER);
    // A method that is suggested but not allowed gives way to what is left.
    caller.allow = only(AuthMethod::ChapMd5);
    let pair = Pair::new(caller, callee).connect();
    pair.assert_said(CALLEE, "rcvd [LCP ConfNak id=0x2 <auth chap MD5>]");
    assert!(matches!(pair.ending(CALLEE), Ending::PeerAuthFailed(_)));
    pair.assert_never_up();
}
