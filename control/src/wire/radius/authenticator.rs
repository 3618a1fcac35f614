//! Who sent a packet: the authenticators (RFC 2865 3, RFC 2866 3, RFC 5176 2.3), and
//! Message-Authenticator (RFC 2869 5.14).
//!
//! A reply without Message-Authenticator proves little: MD5's collisions let who is on the path
//! turn a Reject into an Accept (CVE-2024-3596). So every Access-Request has one, before anything
//! that a stranger may have chosen, and replies must have one too unless a server is known not to
//! send it.

use bytes::Bytes;
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::attribute::Kind;
use super::hidden::hide_password;
use super::packet::{AttributeList, Authenticator, Code, HEADER_LEN, Packet};

/// Whether a reply counts without a Message-Authenticator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageAuthenticator {
    /// It does not.
    #[default]
    Required,
    /// It does; one that is there is looked at all the same.
    Optional,
}

/// A packet is not from who shares the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Forged {
    /// Someone else, or another secret.
    #[error("its authenticator is wrong: the secrets differ, or somebody else sent it")]
    Authenticator,
    /// The attribute is there, and wrong or twice.
    #[error("its Message-Authenticator is wrong: the secrets differ, or somebody else sent it")]
    MessageAuthenticator,
    /// It is not there.
    #[error(
        "it has no Message-Authenticator: update the RADIUS server, or set \
         require_message_authenticator = false for it where nobody else reaches the network"
    )]
    NoMessageAuthenticator,
}

/// An Access-Request. `authenticator` must never be used twice with the same secret: it is random.
#[must_use]
pub fn access_request(
    id: u8,
    authenticator: &Authenticator,
    attributes: &AttributeList,
    password: Option<&[u8]>,
    secret: &[u8],
) -> Bytes {
    let mut hidden = AttributeList::new();
    if let Some(password) = password {
        let value = hide_password(password, secret, authenticator);
        hidden.octets(Kind::USER_PASSWORD, &value);
    }
    let mut packet = with_message_authenticator(
        Code::ACCESS_REQUEST,
        id,
        authenticator,
        &[attributes.as_bytes(), hidden.as_bytes()],
    );
    let digest = hmac_md5(secret, &packet);
    put_message_authenticator(&mut packet, digest);
    packet.into()
}

/// An Accounting-Request, and its authenticator, which the answer is held against.
#[must_use]
pub fn accounting_request(
    id: u8,
    attributes: &AttributeList,
    secret: &[u8],
) -> (Bytes, Authenticator) {
    let parts = [attributes.as_bytes()];
    let packet = unsigned(Code::ACCOUNTING_REQUEST, id, &[0; 16], &parts);
    sign_request(packet, secret)
}

/// A CoA- or Disconnect-Request, as those who manage servers send it, and its authenticator.
#[must_use]
pub fn dynamic_request(
    code: Code,
    id: u8,
    attributes: &AttributeList,
    secret: &[u8],
) -> (Bytes, Authenticator) {
    let mut packet = with_message_authenticator(code, id, &[0; 16], &[attributes.as_bytes()]);
    let digest = hmac_md5(secret, &packet);
    put_message_authenticator(&mut packet, digest);
    sign_request(packet, secret)
}

/// An answer to `request`, with a Message-Authenticator.
#[must_use]
pub fn reply(code: Code, request: Packet<'_>, attributes: &AttributeList, secret: &[u8]) -> Bytes {
    let id = request.id();
    let parts = [attributes.as_bytes()];
    let mut packet = with_message_authenticator(code, id, &request.authenticator(), &parts);
    let digest = hmac_md5(secret, &packet);
    put_message_authenticator(&mut packet, digest);
    let digest = keyed_digest(&packet, secret);
    put_authenticator(&mut packet, digest);
    packet.into()
}

/// Whether `reply` answers the request with the authenticator `request`, and comes from who has
/// `secret`.
///
/// # Errors
/// Why it does not count.
pub fn verify_reply(
    reply: Packet<'_>,
    request: &Authenticator,
    secret: &[u8],
    need: MessageAuthenticator,
) -> Result<(), Forged> {
    let mut due = reply.as_bytes().to_vec();
    put_authenticator(&mut due, *request);
    if !bool::from(keyed_digest(&due, secret).ct_eq(&reply.authenticator())) {
        return Err(Forged::Authenticator);
    }
    verify_message_authenticator(reply, *request, secret, need)
}

/// Whether `request`, for accounting or dynamic authorization, comes from who has `secret`.
///
/// # Errors
/// Why it does not count.
pub fn verify_request(
    request: Packet<'_>,
    secret: &[u8],
    need: MessageAuthenticator,
) -> Result<(), Forged> {
    let mut due = request.as_bytes().to_vec();
    put_authenticator(&mut due, [0; 16]);
    if !bool::from(keyed_digest(&due, secret).ct_eq(&request.authenticator())) {
        return Err(Forged::Authenticator);
    }
    verify_message_authenticator(request, [0; 16], secret, need)
}

fn verify_message_authenticator(
    packet: Packet<'_>,
    authenticator: Authenticator,
    secret: &[u8],
    need: MessageAuthenticator,
) -> Result<(), Forged> {
    let mut zeroed = packet.as_bytes().to_vec();
    put_authenticator(&mut zeroed, authenticator);
    let (mut at, mut found) = (HEADER_LEN, None);
    for (kind, value) in packet.standard_attributes() {
        if Kind::Standard(kind) == Kind::MESSAGE_AUTHENTICATOR {
            if found.is_some() || value.len() != 16 {
                return Err(Forged::MessageAuthenticator);
            }
            if let Some(place) = zeroed.get_mut(at + 2..at + 18) {
                place.fill(0);
            }
            found = Some(value);
        }
        at += 2 + value.len();
    }
    match found {
        Some(value) if bool::from(hmac_md5(secret, &zeroed).ct_eq(value)) => Ok(()),
        Some(_) => Err(Forged::MessageAuthenticator),
        None if need == MessageAuthenticator::Optional => Ok(()),
        None => Err(Forged::NoMessageAuthenticator),
    }
}

/// A packet whose first attribute is a Message-Authenticator of zeroes.
fn with_message_authenticator(
    code: Code,
    id: u8,
    authenticator: &Authenticator,
    parts: &[&[u8]],
) -> Vec<u8> {
    let mut first = AttributeList::new();
    first.octets(Kind::MESSAGE_AUTHENTICATOR, &[0; 16]);
    let parts = [&[first.as_bytes()], parts].concat();
    unsigned(code, id, authenticator, &parts)
}

fn put_message_authenticator(packet: &mut [u8], digest: Authenticator) {
    packet[HEADER_LEN + 2..HEADER_LEN + 18].copy_from_slice(&digest);
}

fn unsigned(code: Code, id: u8, authenticator: &Authenticator, parts: &[&[u8]]) -> Vec<u8> {
    let length = HEADER_LEN + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut packet = Vec::with_capacity(length);
    packet.extend([code.0, id]);
    // A list has a bound, which leaves room for what is added to it.
    packet.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend(authenticator);
    packet.extend(parts.iter().copied().flatten());
    packet
}

fn sign_request(mut packet: Vec<u8>, secret: &[u8]) -> (Bytes, Authenticator) {
    let authenticator = keyed_digest(&packet, secret);
    put_authenticator(&mut packet, authenticator);
    (packet.into(), authenticator)
}

fn put_authenticator(packet: &mut [u8], authenticator: Authenticator) {
    if let Some(place) = packet.get_mut(4..HEADER_LEN) {
        place.copy_from_slice(&authenticator);
    }
}

fn keyed_digest(packet: &[u8], secret: &[u8]) -> Authenticator {
    Md5::new()
        .chain_update(packet)
        .chain_update(secret)
        .finalize()
        .into()
}

/// RFC 2104 with MD5.
fn hmac_md5(secret: &[u8], text: &[u8]) -> [u8; 16] {
    let mut key = [0; 64];
    match key.get_mut(..secret.len()) {
        Some(place) => place.copy_from_slice(secret),
        None => key[..16].copy_from_slice(&Md5::digest(secret)),
    }
    let inner = Md5::new()
        .chain_update(key.map(|octet| octet ^ 0x36))
        .chain_update(text)
        .finalize();
    Md5::new()
        .chain_update(key.map(|octet| octet ^ 0x5C))
        .chain_update(inner)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const SECRET: &[u8] = b"xyzzy5461";

    fn octets<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 2202 2, cases 1, 2 and 6 (a key that is longer than a block).
    #[test]
    fn hmac_md5_gives_the_digests_of_rfc_2202() {
        let digest = |key: &[u8], text: &[u8]| hex::encode(hmac_md5(key, text));
        assert_eq!(
            digest(&[0x0B; 16], b"Hi There"),
            "9294727a3638bb1c13f48ef8158bfc9d"
        );
        let text = b"what do ya want for nothing?";
        assert_eq!(digest(b"Jefe", text), "750c783e6ab0b503eaa86e310a5db738");
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(
            digest(&[0xAA; 80], text),
            "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"
        );
    }

    /// RFC 2865 7.1: the request has no Message-Authenticator there, and its password second; the
    /// rest is the same.
    #[test]
    fn the_request_of_rfc_2865_7_1_is_made_with_a_message_authenticator_more() {
        let mut list = AttributeList::new();
        list.text(Kind::USER_NAME, "nemo");
        list.address(Kind::NAS_IP_ADDRESS, Ipv4Addr::new(192, 168, 1, 16));
        list.number(Kind::NAS_PORT, 3);
        let authenticator = octets("0f403f9473978057bd83d5cb98f4227a");
        let packet = access_request(0, &authenticator, &list, Some(b"arctangent"), SECRET);
        let without: Vec<u8> = [&packet[..HEADER_LEN], &packet[HEADER_LEN + 18..]].concat();
        let due = "01000038 0f403f9473978057bd83d5cb98f4227a 01066e656d6f 0406c0a80110 050600000003 \
                   02120dbe708d93d413ce3196e43f782a0aee";
        let mut due = hex::decode(due.replace(' ', "")).unwrap();
        due[3] += 18;
        assert_eq!(without, due);
    }

    #[test]
    fn the_reply_of_rfc_2865_7_1_is_from_who_has_the_secret() {
        let text =
            "02000026 86fe220e7624ba2a1005f6bf9b55e0b2 060600000001 0f0600000000 0e06c0a80103";
        let mut accept = hex::decode(text.replace(' ', "")).unwrap();
        let request = octets("0f403f9473978057bd83d5cb98f4227a");
        let verify = |reply: &[u8], secret: &[u8], need| {
            verify_reply(Packet::parse(reply).unwrap(), &request, secret, need)
        };
        let (optional, required) = (
            MessageAuthenticator::Optional,
            MessageAuthenticator::Required,
        );
        assert_eq!(verify(&accept, SECRET, optional), Ok(()));
        assert_eq!(
            verify(&accept, b"xyzzy5462", optional),
            Err(Forged::Authenticator)
        );
        assert_eq!(
            verify(&accept, SECRET, required),
            Err(Forged::NoMessageAuthenticator)
        );
        accept[0] = 3;
        assert_eq!(
            verify(&accept, SECRET, optional),
            Err(Forged::Authenticator)
        );
    }

    /// RFC 5997 6.1: a Status-Server, whose Message-Authenticator is made as an Access-Request's.
    #[test]
    fn the_message_authenticator_of_rfc_5997_6_1_comes_out() {
        let authenticator = octets::<16>("8a54f4686fb394c52866e302185d0623");
        let packet = with_message_authenticator(Code(12), 0xDA, &authenticator, &[]);
        let digest = hex::encode(hmac_md5(SECRET, &packet));
        assert_eq!(digest, "5a665e2e1e8411f3e243822097c84fa3");
    }

    #[test]
    fn a_message_authenticator_that_is_there_must_be_right_and_alone() {
        let request = access_request(9, &[7; 16], &AttributeList::new(), None, SECRET);
        let request = Packet::parse(&request).unwrap();
        let mut twice = AttributeList::new();
        twice.octets(Kind::MESSAGE_AUTHENTICATOR, &[0; 16]);
        let good = reply(Code::ACCESS_ACCEPT, request, &AttributeList::new(), SECRET);
        let bad = reply(Code::ACCESS_ACCEPT, request, &twice, SECRET);
        let verify = |octets: &[u8]| {
            let need = MessageAuthenticator::Required;
            verify_reply(Packet::parse(octets).unwrap(), &[7; 16], SECRET, need)
        };
        assert_eq!(verify(&good), Ok(()));
        assert_eq!(verify(&bad), Err(Forged::MessageAuthenticator));
        // Signed anew around a wrong one, as who finds MD5 collisions would.
        let mut wrong = good.to_vec();
        wrong[HEADER_LEN + 2] ^= 1;
        put_authenticator(&mut wrong, [7; 16]);
        let digest = keyed_digest(&wrong, SECRET);
        put_authenticator(&mut wrong, digest);
        assert_eq!(verify(&wrong), Err(Forged::MessageAuthenticator));
    }

    #[test]
    fn requests_that_prove_themselves_are_told_from_others() {
        let mut list = AttributeList::new();
        list.text(Kind::USER_NAME, "mia");
        let verify = |octets: &[u8], secret: &[u8], need| {
            verify_request(Packet::parse(octets).unwrap(), secret, need)
        };
        let (packet, _) = accounting_request(3, &list, SECRET);
        let (optional, required) = (
            MessageAuthenticator::Optional,
            MessageAuthenticator::Required,
        );
        assert_eq!(verify(&packet, SECRET, optional), Ok(()));
        assert_eq!(
            verify(&packet, SECRET, required),
            Err(Forged::NoMessageAuthenticator)
        );
        assert_eq!(verify(&packet, b"no", optional), Err(Forged::Authenticator));
        let (packet, _) = dynamic_request(Code::COA_REQUEST, 4, &list, SECRET);
        assert_eq!(verify(&packet, SECRET, required), Ok(()));
    }

    proptest! {
        #[test]
        fn a_changed_octet_is_noticed(at in 0_usize..200, bit in 0_u8..8, value in vec(any::<u8>(), 0..60)) {
            let request = access_request(9, &[7; 16], &AttributeList::new(), None, SECRET);
            let mut list = AttributeList::new();
            list.octets(Kind::CLASS, &value);
            let mut packet = reply(Code::ACCESS_ACCEPT, Packet::parse(&request).unwrap(), &list, SECRET).to_vec();
            let at = at % packet.len();
            packet[at] ^= 1 << bit;
            if let Ok(packet) = Packet::parse(&packet) {
                let need = MessageAuthenticator::Required;
                prop_assert!(verify_reply(packet, &[7; 16], SECRET, need).is_err());
            }
        }
    }
}
