//! MS-CHAPv2's Change-Password packet (RFC 2759 7): the answer to a Failure with E=648.

use rand::{Rng, RngExt};

use super::auth::Secret;
use super::chap::Exchange;
use super::outbox::Context;
use crate::crypto::challenge_response::{generate_authenticator_response, generate_nt_response};
use crate::crypto::change_password::{
    new_password_encrypted_with_old_nt_password_hash,
    old_nt_password_hash_encrypted_with_new_nt_password_hash,
};
use crate::crypto::key_derivation::KeyMaterial;
use crate::wire::chap::ChapPacket;

/// Code of the packet.
const CHANGE_PASSWORD: u8 = 7;
/// `V=`: the only version of it.
const VERSION: u32 = 3;
/// `ERROR_PASSWD_EXPIRED`.
const PASSWORD_EXPIRED: u32 = 648;

/// A Failure's fields (RFC 2759 6) that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FailureFields {
    code: Option<u32>,
    version: Option<u32>,
    challenge: Option<[u8; 16]>,
}

impl FailureFields {
    /// `E=648 R=0 C=<32 hex> V=3 M=...`; what is missing or odd is `None`.
    pub(super) fn parse(message: &[u8]) -> Self {
        let mut fields = Self::default();
        let text = String::from_utf8_lossy(message);
        let head = text.split("M=").next().unwrap_or_default();
        for word in head.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("E", digits)) => fields.code = digits.parse().ok(),
                Some(("V", digits)) => fields.version = digits.parse().ok(),
                Some(("C", digits)) => {
                    let mut challenge = [0; 16];
                    let decoded = hex::decode_to_slice(digits, &mut challenge);
                    fields.challenge = decoded.ok().map(|()| challenge);
                }
                _ => {}
            }
        }
        fields
    }

    pub(super) fn is_expired(&self) -> bool {
        self.code == Some(PASSWORD_EXPIRED)
    }

    /// What a Change-Password answers, where the authenticator takes one.
    pub(super) fn challenge_for_change(&self) -> Option<[u8; 16]> {
        self.challenge
            .filter(|_| self.is_expired() && self.version == Some(VERSION))
    }
}

/// The Change-Password packet that answers the Failure `failure_id`, and what its Success must
/// prove. `None` when the new password is empty or has more than 256 characters.
pub(super) fn change(
    ctx: &mut Context<'_>,
    failure_id: u8,
    challenge: &[u8; 16],
    old: &Secret,
    new: &Secret,
) -> Option<Exchange> {
    let (old, new, name) = (old.as_bytes(), new.as_bytes(), ctx.config.name.as_bytes());
    let mut filling = [0; 512];
    ctx.rng.fill_bytes(&mut filling);
    let peer_challenge: [u8; 16] = ctx.rng.random();
    let nt_response = generate_nt_response(challenge, &peer_challenge, name, new);
    let mut data = Vec::with_capacity(582);
    data.extend(new_password_encrypted_with_old_nt_password_hash(
        new, old, &filling,
    )?);
    data.extend(old_nt_password_hash_encrypted_with_new_nt_password_hash(
        new, old,
    ));
    data.extend(peer_challenge);
    data.extend([0; 8]);
    data.extend(nt_response);
    data.extend([0; 2]);
    let id = failure_id.wrapping_add(1);
    let packet = ChapPacket::Other {
        code: CHANGE_PASSWORD,
        id,
        data: &data,
    };
    Some(Exchange {
        id,
        challenge: challenge.to_vec(),
        response: packet.to_bytes(),
        unanswered: true,
        success_due: generate_authenticator_response(
            new,
            &nt_response,
            &peer_challenge,
            challenge,
            name,
        ),
        key_material: Some(KeyMaterial::from_mschap_v2(new, &nt_response)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_read_as_rfc_2759_6_writes_it() {
        let fields = FailureFields::parse(
            b"E=648 R=0 C=5B5D7C7D7B3F2F3E3C2C602132262628 V=3 M=Password expired E=691",
        );
        assert!(fields.is_expired());
        let challenge = fields.challenge_for_change().unwrap();
        assert_eq!(challenge[..2], [0x5B, 0x5D]);
        for refused in [
            &b"E=691 R=0 C=5B5D7C7D7B3F2F3E3C2C602132262628 V=3 M=No"[..],
            b"E=648 R=0 C=5B5D7C7D7B3F2F3E3C2C602132262628 V=2",
            b"E=648 R=0 C=5B5D V=3",
            b"E=648 V=3",
            b"",
        ] {
            assert_eq!(FailureFields::parse(refused).challenge_for_change(), None);
        }
    }
}
