//! Key strengths that neither end asks for first, and MPPE that comes to nothing.

use super::*;

/// Octets that a frame of CCP begins with, up to its code.
const CCP: [u8; 4] = [0xFF, 3, 0x80, 0xFD];

fn strengths(bits: &[u32]) -> MppeConfig {
    MppeConfig {
        allow_40: bits.contains(&40),
        allow_56: bits.contains(&56),
        allow_128: bits.contains(&128),
        ..MPPE_128
    }
}

const SETS: [&[u32]; 7] = [
    &[128],
    &[56],
    &[40],
    &[128, 56],
    &[128, 40],
    &[56, 40],
    &[128, 56, 40],
];

#[test]
fn the_strongest_common_strength_is_found_from_any_two_sets() {
    for of_caller in SETS {
        for of_callee in SETS {
            let (mut caller, mut callee) = (caller(), callee());
            caller.mppe = Some(strengths(of_caller));
            callee.mppe = Some(strengths(of_callee));
            let mut pair = Pair::new(caller, callee).connect();
            let common = of_caller.iter().find(|bits| of_callee.contains(bits));
            if let Some(bits) = common {
                let cipher = format!("MPPE {bits}-bit stateless");
                assert_eq!(pair.network(CALLER).cipher, cipher);
                assert_eq!(pair.network(CALLEE).cipher, cipher);
                pair.assert_encrypted();
            } else {
                pair.run_for(60_000);
                pair.assert_never_up();
                assert!(!pair.ends[CALLER].endings.is_empty());
            }
        }
    }
}

#[test]
fn both_go_down_from_a_strength_that_the_other_does_not_allow() {
    let (mut caller, mut callee) = (caller(), callee());
    caller.mppe = Some(strengths(&[56, 40]));
    callee.mppe = Some(strengths(&[128, 40]));
    let pair = Pair::new(caller, callee).connect();
    for line in [
        "sent [CCP ConfReq id=0x1 <mppe +H +M -S -L -D -C>]",
        "rcvd [CCP ConfNak id=0x1 <mppe +H -M -S +L -D -C>]",
        "sent [CCP ConfReq id=0x2 <mppe +H -M -S +L -D -C>]",
        "rcvd [CCP ConfReq id=0x1 <mppe +H -M +S -L -D -C>]",
        "sent [CCP ConfNak id=0x1 <mppe +H +M -S -L -D -C>]",
        "rcvd [CCP ConfReq id=0x2 <mppe +H -M -S +L -D -C>]",
    ] {
        pair.assert_said(CALLER, line);
    }
}

/// One that hears no CCP at all from an end that negotiates it.
fn deaf_to_ccp(deaf: usize, require: [bool; 2]) -> Pair {
    let (mut caller, mut callee) = (caller(), callee());
    let mppe = |require| {
        Some(MppeConfig {
            require,
            ..MPPE_128
        })
    };
    caller.mppe = mppe(require[CALLER]);
    callee.mppe = mppe(require[CALLEE]);
    let mut pair = Pair::new(caller, callee);
    pair.wire =
        Box::new(move |from, frame| (from == deaf || !frame.starts_with(&CCP)).then_some(frame));
    pair.connect()
}

#[test]
fn an_end_that_gives_optional_mppe_up_says_so_and_both_go_on_in_the_clear() {
    for deaf in [CALLER, CALLEE] {
        let mut pair = deaf_to_ccp(deaf, [false; 2]);
        pair.run_for(20_000);
        let said = |end: &End| {
            let mut lines = end.lines.iter();
            lines.any(|line| line.starts_with("rcvd [CCP TermReq"))
        };
        assert!(
            said(&pair.ends[1 - deaf]),
            "{:#?}",
            pair.ends[1 - deaf].lines
        );
        pair.run_for(60_000);
        for side in [CALLER, CALLEE] {
            assert_eq!(pair.network(side).cipher, "none");
            assert!(pair.ends[side].send.is_none() && pair.ends[side].receive.is_none());
        }
    }
}

#[test]
fn an_end_that_requires_mppe_gets_no_network_from_one_that_has_given_it_up() {
    for deaf in [CALLER, CALLEE] {
        let mut require = [true; 2];
        require[deaf] = false;
        let mut pair = deaf_to_ccp(deaf, require);
        pair.run_for(120_000);
        assert!(!pair.ends[1 - deaf].was_up);
        assert!(matches!(pair.ending(1 - deaf), Ending::MppeRefused { .. }));
    }
}

#[test]
fn ccp_that_was_given_up_is_answered_with_terminate_acks() {
    let mut pair = deaf_to_ccp(CALLER, [false; 2]);
    pair.run_for(90_000);
    let before = pair.network(CALLER).clone();
    pair.wire = Box::new(|_, frame| Some(frame));
    let request = [0xFF, 3, 0x80, 0xFD, 1, 9, 0, 10, 18, 6, 1, 0, 0, 0x40];
    let at = pair.now;
    pair.in_flight
        .push_back((at, CALLER, Bytes::copy_from_slice(&request)));
    pair.run_for(1_000);
    pair.assert_said(CALLER, "sent [CCP TermAck id=0x9]");
    assert_eq!(*pair.network(CALLER), before);
    assert!(pair.ends[CALLER].receive.is_none());
}
