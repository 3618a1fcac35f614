//! What an authentication server says of MPPE (RFC 2548 2.4.4 and 2.4.5), and what comes of it.

use super::*;

const REQUIRED: MppeLimit = MppeLimit {
    require: true,
    deny_40: false,
    deny_56: false,
    deny_128: false,
};
const NOTHING_BUT_40: MppeLimit = MppeLimit {
    require: false,
    deny_40: false,
    deny_56: true,
    deny_128: true,
};
const NOTHING: MppeLimit = MppeLimit {
    deny_40: true,
    ..NOTHING_BUT_40
};

const PREFERRED: MppeConfig = MppeConfig {
    require: false,
    ..MPPE_128
};
const EVERY: MppeConfig = MppeConfig {
    allow_40: true,
    allow_56: true,
    ..PREFERRED
};

/// A caller and a callee with this MPPE; verdicts on the caller come with `limit`.
fn connected(
    of_caller: Option<MppeConfig>,
    of_callee: Option<MppeConfig>,
    limit: MppeLimit,
) -> Pair {
    let (mut caller, mut callee) = (caller(), callee());
    caller.mppe = of_caller;
    callee.mppe = of_callee;
    let mut pair = Pair::new(caller, callee);
    pair.ends[CALLEE].mppe_limit = limit;
    let mut pair = pair.connect();
    pair.run_for(60_000);
    pair
}

#[track_caller]
fn assert_refused(mut pair: Pair, why: &str) {
    pair.assert_never_up();
    let ending = pair.ending(CALLEE).to_string();
    assert!(ending.contains(why), "{ending}");
    assert!(matches!(pair.ending(CALLEE), Ending::MppeRefused { .. }));
    pair.run_for(1_000);
}

#[test]
fn a_verdict_requires_what_this_side_prefers() {
    let pair = connected(Some(PREFERRED), Some(PREFERRED), REQUIRED);
    pair.assert_encrypted();
    assert!(pair.network(CALLEE).require_encryption);

    let pair = connected(None, Some(PREFERRED), REQUIRED);
    assert_refused(pair, "this side requires MPPE (128 bit, stateless only)");
    let pair = connected(None, Some(PREFERRED), MppeLimit::default());
    assert_eq!(pair.network(CALLEE).cipher, "none");
}

#[test]
fn keys_are_required_of_whoever_proves_itself_without_them() {
    let (mut caller, mut callee) = (caller(), callee());
    caller.mppe = Some(PREFERRED);
    callee.mppe = Some(PREFERRED);
    callee.require = only(AuthMethod::ChapMd5);
    let mut pair = Pair::new(caller, callee);
    pair.ends[CALLEE].mppe_limit = REQUIRED;
    assert_refused(pair.connect(), "keys come from MS-CHAP only");
}

#[test]
fn only_strengths_of_both_the_verdict_and_this_side_are_agreed_to() {
    for (of_caller, limit, cipher) in [
        (EVERY, NOTHING_BUT_40, "MPPE 40-bit stateless"),
        (
            EVERY,
            MppeLimit {
                deny_128: true,
                ..REQUIRED
            },
            "MPPE 56-bit stateless",
        ),
        (EVERY, REQUIRED, "MPPE 128-bit stateless"),
        // Nothing in common: in the clear, since neither requires it.
        (PREFERRED, NOTHING_BUT_40, "none"),
        (EVERY, NOTHING, "none"),
    ] {
        let pair = connected(Some(of_caller), Some(EVERY), limit);
        for side in [CALLER, CALLEE] {
            assert_eq!(pair.network(side).cipher, cipher, "{limit}");
        }
        pair.assert_keyed_alike();
    }
}

#[test]
fn where_nothing_is_left_of_what_is_required_both_sides_are_named() {
    let required_40 = MppeLimit {
        require: true,
        ..NOTHING_BUT_40
    };
    let pair = connected(Some(EVERY), Some(PREFERRED), required_40);
    assert_refused(
        pair,
        "this side allows MPPE (128 bit, stateless only); for the authentication server MPPE is \
         required (40 bit)",
    );
    let pair = connected(Some(EVERY), None, REQUIRED);
    assert_refused(pair, "this side does not allow MPPE");
}

#[test]
fn a_verdict_does_not_weaken_what_this_side_requires() {
    for limit in [NOTHING, NOTHING_BUT_40] {
        let pair = connected(Some(EVERY), Some(MPPE_128), limit);
        assert_refused(pair, "MPPE is allowed");
    }
    let pair = connected(None, Some(MPPE_128), MppeLimit::default());
    pair.assert_never_up();
}

#[test]
fn what_a_verdict_says_ends_with_the_next_authentication() {
    let mut pair = connected(Some(EVERY), Some(EVERY), NOTHING_BUT_40);
    assert_eq!(pair.network(CALLEE).cipher, "MPPE 40-bit stateless");
    pair.ends[CALLEE].mppe_limit = MppeLimit::default();
    // LCP negotiates again, from the caller's side.
    let request = [0xFF, 3, 0xC0, 0x21, 1, 99, 0, 4];
    let at = pair.now;
    pair.in_flight
        .push_back((at, CALLEE, Bytes::copy_from_slice(&request)));
    pair.run_for(10_000);
    assert_eq!(pair.network(CALLEE).cipher, "MPPE 128-bit stateless");
}

/// Another process goes on with the limit; one that told of none had none.
#[test]
fn what_a_verdict_said_goes_over_to_another_process() {
    let pair = connected(Some(EVERY), Some(EVERY), NOTHING_BUT_40);
    let link = &pair.ends[CALLEE].link;
    let told = serde_json::to_value(link.snapshot().unwrap()).unwrap();
    let restored = |told| {
        let snapshot = serde_json::from_value(told).unwrap();
        let config = Arc::clone(&link.around.config);
        let link = Link::restore(pair.now, snapshot, config, [0; 32]);
        link.around.mppe().unwrap().strengths()
    };
    assert_eq!(restored(told.clone()), "40 bit");
    let mut of_before = told;
    of_before.as_object_mut().unwrap().remove("mppe_limit");
    assert_eq!(restored(of_before), "128 or 56 or 40 bit");
}
