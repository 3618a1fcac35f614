//! IPV6CP beside IPCP.

use super::*;
use crate::wire::ipv6cp::InterfaceIdentifier;

const ONE: InterfaceIdentifier = InterfaceIdentifier([0, 0, 0, 0, 0, 0, 0, 1]);
const TWO: InterfaceIdentifier = InterfaceIdentifier([0, 0, 0, 0, 0, 0, 0, 2]);

fn pair(caller_ipv6: Ipv6Config, callee_ipv6: Ipv6Config) -> Pair {
    let (mut caller, mut callee) = (caller(), callee());
    caller.ipv6 = Some(caller_ipv6);
    callee.ipv6 = Some(callee_ipv6);
    Pair::new(caller, callee)
}

fn named(local: InterfaceIdentifier) -> Ipv6Config {
    Ipv6Config {
        local: Some(local),
        ..Ipv6Config::default()
    }
}

#[track_caller]
fn assert_agreed(pair: &Pair) -> Ipv6Network {
    let [caller, callee] = [CALLER, CALLEE].map(|side| {
        let end = &pair.ends[side];
        end.ipv6
            .unwrap_or_else(|| panic!("no IPv6 after {:#?}", end.lines))
    });
    assert_eq!((caller.local, caller.remote), (callee.remote, callee.local));
    assert_ne!(caller.local, caller.remote);
    caller
}

#[test]
fn both_ends_draw_identifiers_that_do_not_claim_to_be_unique_in_the_world() {
    let pair = pair(Ipv6Config::default(), Ipv6Config::default()).connect();
    let agreed = assert_agreed(&pair);
    for identifier in [agreed.local, agreed.remote] {
        assert_ne!(identifier, InterfaceIdentifier::ZERO);
        assert_eq!(identifier.0[0] & 2, 0, "RFC 5072 4.1: the u bit is zero");
    }
    pair.assert_said(CALLER, &format!("local  LL address {}", agreed.local));
    pair.assert_said(CALLER, &format!("remote LL address {}", agreed.remote));
    pair.assert_encrypted();
}

#[test]
fn identifiers_that_are_given_are_kept() {
    let agreed = assert_agreed(&pair(named(ONE), named(TWO)).connect());
    assert_eq!((agreed.local, agreed.remote), (ONE, TWO));
    assert_eq!(agreed.local.link_local().to_string(), "fe80::1");
}

#[test]
fn an_identifier_that_both_ends_have_is_another_in_the_end() {
    let yielding = Ipv6Config {
        accept_local: true,
        ..named(ONE)
    };
    let agreed = assert_agreed(&pair(yielding, named(ONE)).connect());
    assert_eq!(agreed.remote, ONE);
}

#[test]
fn ends_that_insist_on_one_identifier_get_no_ipv6_and_keep_ipv4() {
    let mut pair = pair(named(ONE), named(ONE)).connect();
    pair.run_for(60_000);
    for end in &pair.ends {
        assert!(
            end.ipv6.is_none() && end.network.is_some(),
            "{:#?}",
            end.lines
        );
    }
}

#[test]
fn the_identifier_given_to_the_peer_is_taken_by_one_that_has_none_of_its_own() {
    let giving = Ipv6Config {
        remote: Some(TWO),
        ..named(ONE)
    };
    let agreed = assert_agreed(&pair(Ipv6Config::default(), giving).connect());
    assert_eq!((agreed.local, agreed.remote), (TWO, ONE));
}

#[test]
fn a_peer_without_ipv6_is_let_be_and_ipv4_goes_on() {
    for side in [CALLER, CALLEE] {
        let (mut caller, mut callee) = (caller(), callee());
        let config = Some(Ipv6Config::default());
        if side == CALLER {
            caller.ipv6 = config;
        } else {
            callee.ipv6 = config;
        }
        let mut pair = Pair::new(caller, callee).connect();
        pair.run_for(60_000);
        let line = "Protocol-Reject for protocol 0x8057 received";
        pair.assert_said(side, line);
        pair.network(CALLER);
        assert!(pair.ends.iter().all(|end| end.ipv6.is_none()));
    }
}

#[test]
fn a_peer_that_ends_ipv6_keeps_ipv4() {
    let mut pair = pair(Ipv6Config::default(), Ipv6Config::default()).connect();
    let request = [0xFF, 3, 0x80, 0x57, 5, 99, 0, 4];
    pair.in_flight
        .push_back((pair.now, CALLER, Bytes::copy_from_slice(&request)));
    pair.run_for(1_000);
    assert!(pair.ends[CALLER].ipv6.is_none());
    pair.assert_said(CALLER, "IPV6CP terminated by peer");
    pair.network(CALLER);
}

#[test]
fn ipv6cp_waits_for_encryption_as_ipcp_does() {
    let pair = pair(Ipv6Config::default(), Ipv6Config::default()).connect();
    for end in &pair.ends {
        let position = |part: &str| end.lines.iter().position(|line| line.contains(part));
        assert!(position("sent [IPV6CP") > position("compression enabled"));
    }
}

#[test]
fn lost_frames_only_delay_it() {
    for lost in 0..12 {
        let mut pair = pair(Ipv6Config::default(), Ipv6Config::default());
        let mut count = 0;
        pair.wire = Box::new(move |_, frame| {
            let is_ipv6cp = frame.starts_with(&[0xFF, 3, 0x80, 0x57]);
            count += usize::from(is_ipv6cp);
            // One of the first four, then up to two more in a row.
            let is_lost = is_ipv6cp && (lost % 4..=lost % 4 + lost / 4).contains(&(count - 1));
            (!is_lost).then_some(frame)
        });
        let mut pair = pair.connect();
        pair.run_for(30_000);
        assert_agreed(&pair);
    }
}
