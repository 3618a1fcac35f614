//! A password that has expired is changed on the way (RFC 2759 9.1.6).

use std::sync::Mutex;

use super::*;
use crate::crypto::change_password::{
    PASSWORD_BLOCK_LEN, old_nt_password_hash_encrypted_with_new_nt_password_hash,
};
use crate::crypto::nt_hash::nt_password_hash;
use dataplane::mppe::rc4::Rc4;

const CHALLENGE: [u8; 16] = *b"[]|}{?/><,`!2&&(";

/// mia's old password, and what is to take its place.
#[derive(Debug)]
struct Changing(Option<&'static str>);

impl Secrets for Changing {
    fn find(&self, client: &str, server: &str, pap: bool) -> Option<Secret> {
        Known("mia123").find(client, server, pap)
    }

    fn origin(&self, pap: bool) -> String {
        Known("").origin(pap)
    }

    fn new_password(&self) -> Option<Secret> {
        self.0.map(|new| Secret::new(new.into()))
    }
}

/// A callee that holds the old password for expired, in the words of `failure`, and takes what
/// comes for the new one from the Change-Password packet itself.
fn connect(new_password: Option<&'static str>, failure: &str) -> (Pair, Option<Vec<u8>>) {
    let mut caller = caller();
    caller.secrets = Arc::new(Changing(new_password));
    let mut pair = Pair::new(caller, callee());
    pair.ends[CALLEE].holds_verdicts = true;
    let change = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&change);
    pair.wire = Box::new(move |from, frame| {
        let chap = frame.strip_prefix(&[0xFF, 3, 0xC2, 0x23]);
        match (from, chap) {
            (CALLER, Some([7, ..])) => {
                *seen.lock().unwrap() = Some(frame.to_vec());
                None
            }
            // The Success answers the Change-Password, whose identifier is one more.
            (CALLEE, Some([3, ..])) => {
                let mut octets = frame.to_vec();
                octets[5] = octets[5].wrapping_add(1);
                Some(octets.into())
            }
            _ => Some(frame),
        }
    });
    let mut pair = pair.connect();
    let (_, asked) = &pair.ends[CALLEE].asked[0];
    let packet = ChapPacket::Failure {
        id: asked.id,
        message: failure.as_bytes(),
    };
    let frame = [&[0xFF, 3, 0xC2, 0x23], &packet.to_bytes()[..]].concat();
    pair.in_flight.push_back((pair.now, CALLER, frame.into()));
    pair.run_for(200);
    let change = change.lock().unwrap().take();
    (pair, change)
}

fn expired() -> String {
    let challenge = hex::encode_upper(CHALLENGE);
    format!("E=648 R=0 C={challenge} V=3 M=Your password has expired")
}

/// What RFC 2759 7 has in the packet, from a whole frame.
fn opened(frame: &[u8]) -> (u8, Vec<u8>, Vec<u8>) {
    let packet = &frame[4..];
    assert_eq!(packet.len(), 586);
    assert_eq!(packet[2..4], 586_u16.to_be_bytes());
    let mut block: [u8; PASSWORD_BLOCK_LEN] = packet[4..520].try_into().unwrap();
    Rc4::new(&nt_password_hash(b"mia123")).apply(&mut block);
    let len = u32::from_le_bytes(block[512..].try_into().unwrap()) as usize;
    let password = block[512 - len..512].iter().step_by(2).copied().collect();
    // As the Value of a Response: Peer-Challenge, Reserved, NT-Response, and one octet of Flags.
    (packet[1], password, packet[536..585].to_vec())
}

#[test]
fn the_new_password_takes_the_old_ones_place_and_makes_the_keys() {
    let (mut pair, change) = connect(Some("brandnew"), &expired());
    let frame = change.expect("a Change-Password packet");
    let (id, password, value) = opened(&frame);
    assert_eq!(password, b"brandnew");
    assert_eq!(
        frame[4 + 520..4 + 536],
        old_nt_password_hash_encrypted_with_new_nt_password_hash(b"brandnew", b"mia123")
    );
    let (request_id, mut request) = pair.ends[CALLEE].asked.remove(0);
    assert_eq!(id, request.id.wrapping_add(1), "RFC 2759 7: plus 1");
    request.challenge = CHALLENGE.to_vec();
    request.response = Secret::new(value);
    let proof = verify(&request, Some(&Secret::new(password))).expect("made from the new one");
    let verdict = Verdict::Accept {
        proof,
        message: "Access granted".into(),
        addresses: callee_addresses(),
        mppe: MppeLimit::default(),
    };
    let now = pair.now;
    pair.ends[CALLEE]
        .link
        .handle_verdict(now, request_id, verdict);
    pair.drain(CALLEE);
    pair.run_for(3_000);
    pair.network(CALLER);
    pair.assert_encrypted();
    let line = "Password changed: put the new one into /etc/ppp/chap-secrets";
    pair.assert_said(CALLER, line);
    let all = pair.ends[CALLER].lines.join("\n");
    assert!(!all.contains("brandnew"), "{all}");
}

#[test]
fn without_a_new_password_a_person_is_told_how_to_give_one() {
    let (pair, change) = connect(None, &expired());
    assert!(change.is_none());
    let ending = pair.ending(CALLER);
    assert!(
        matches!(ending, Ending::PasswordExpired { .. }),
        "{ending:?}"
    );
    assert_eq!(ending.exit_status(), 19);
    assert!(
        ending.to_string().contains("--new-password-file"),
        "{ending}"
    );
    assert!(
        ending.to_string().contains("Your password has expired"),
        "{ending}"
    );
}

#[test]
fn only_version_3_and_a_fitting_password_are_spoken() {
    for (new, failure) in [
        (Some("brandnew"), expired().replace("V=3", "V=2")),
        (Some("brandnew"), "E=648 R=0 C=00 V=3 M=Expired".to_owned()),
        (Some(""), expired()),
    ] {
        let (pair, change) = connect(new, &failure);
        assert!(change.is_none());
        assert!(matches!(pair.ending(CALLER), Ending::PasswordNotChanged(_)));
    }
}

#[test]
fn a_new_password_that_is_refused_is_not_sent_again() {
    let (mut pair, change) = connect(Some("brandnew"), &expired());
    let (id, ..) = opened(&change.expect("a Change-Password packet"));
    let packet = ChapPacket::Failure {
        id,
        message: b"E=709 R=0 C=00 V=3 M=Too simple",
    };
    let frame = [&[0xFF, 3, 0xC2, 0x23], &packet.to_bytes()[..]].concat();
    pair.in_flight.push_back((pair.now, CALLER, frame.into()));
    pair.run_for(3_000);
    assert_eq!(
        *pair.ending(CALLER),
        Ending::PasswordNotChanged("Too simple".into())
    );
}
