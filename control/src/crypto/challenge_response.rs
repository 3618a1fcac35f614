//! What proves a password without showing it (RFC 2759 8, RFC 2433 A, RFC 1994 4.1).

use md5::Md5;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::nt_hash::{NtSecret, des_encrypt, hash_nt_password_hash};

/// `GenerateNTResponse` (RFC 2759 8.1).
///
/// `user_name` is what stands in the CHAP Name field; a Windows domain in front of it
/// (`DOMAIN\user`) takes no part.
#[must_use]
pub fn generate_nt_response<'a>(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    user_name: &[u8],
    password: impl Into<NtSecret<'a>>,
) -> [u8; 24] {
    let challenge = challenge_hash(peer_challenge, authenticator_challenge, user_name);
    challenge_response(&challenge, &password.into().nt_hash())
}

/// Whether an NT-Response is the one that `GenerateNTResponse` gives, in constant time.
#[must_use]
pub fn check_nt_response<'a>(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    user_name: &[u8],
    password: impl Into<NtSecret<'a>>,
    received: &[u8; 24],
) -> bool {
    let due = generate_nt_response(authenticator_challenge, peer_challenge, user_name, password);
    due.ct_eq(received).into()
}

/// `ChallengeHash` (RFC 2759 8.2).
#[must_use]
pub fn challenge_hash(
    peer_challenge: &[u8; 16],
    authenticator_challenge: &[u8; 16],
    user_name: &[u8],
) -> [u8; 8] {
    let user_name = user_name
        .rsplit(|octet| *octet == b'\\')
        .next()
        .unwrap_or(user_name);
    let digest = Sha1::new()
        .chain_update(peer_challenge)
        .chain_update(authenticator_challenge)
        .chain_update(user_name)
        .finalize();
    first(&digest.into())
}

/// `ChallengeResponse` (RFC 2759 8.5; the same in RFC 2433 A.6).
#[must_use]
pub fn challenge_response(challenge: &[u8; 8], password_hash: &[u8; 16]) -> [u8; 24] {
    let mut keys = Zeroizing::new([0; 21]);
    keys[..16].copy_from_slice(password_hash);
    let mut response = [0; 24];
    for (key, block) in keys.chunks_exact(7).zip(response.chunks_exact_mut(8)) {
        let mut seven = Zeroizing::new([0; 7]);
        seven.copy_from_slice(key);
        block.copy_from_slice(&des_encrypt(challenge, &seven));
    }
    response
}

/// `GenerateAuthenticatorResponse` (RFC 2759 8.7): `S=` and 40 hexadecimal digits in capitals.
#[must_use]
pub fn generate_authenticator_response<'a>(
    password: impl Into<NtSecret<'a>>,
    nt_response: &[u8; 24],
    peer_challenge: &[u8; 16],
    authenticator_challenge: &[u8; 16],
    user_name: &[u8],
) -> String {
    let password_hash_hash = hash_nt_password_hash(&password.into().nt_hash());
    let digest = Sha1::new()
        .chain_update(password_hash_hash.as_slice())
        .chain_update(nt_response)
        .chain_update(b"Magic server to client signing constant")
        .finalize();
    let challenge = challenge_hash(peer_challenge, authenticator_challenge, user_name);
    let digest = Sha1::new()
        .chain_update(digest)
        .chain_update(challenge)
        .chain_update(b"Pad to make it do more than one iteration")
        .finalize();
    format!("S={}", hex::encode_upper(digest))
}

/// `CheckAuthenticatorResponse` (RFC 2759 8.8): whether a Success message begins with the response
/// that is due, in constant time. What follows it (` M=...`) is not looked at, and the digits may
/// be in small letters.
#[must_use]
pub fn check_authenticator_response<'a>(
    password: impl Into<NtSecret<'a>>,
    nt_response: &[u8; 24],
    peer_challenge: &[u8; 16],
    authenticator_challenge: &[u8; 16],
    user_name: &[u8],
    success_message: &[u8],
) -> bool {
    let due = generate_authenticator_response(
        password,
        nt_response,
        peer_challenge,
        authenticator_challenge,
        user_name,
    );
    success_message
        .get(..due.len())
        .is_some_and(|received| received.to_ascii_uppercase().ct_eq(due.as_bytes()).into())
}

/// `NtChallengeResponse` of MS-CHAPv1 (RFC 2433 A.3).
#[must_use]
pub fn nt_challenge_response<'a>(
    challenge: &[u8; 8],
    password: impl Into<NtSecret<'a>>,
) -> [u8; 24] {
    challenge_response(challenge, &password.into().nt_hash())
}

/// Whether an MS-CHAPv1 response is the one that is due, in constant time.
#[must_use]
pub fn check_nt_challenge_response<'a>(
    challenge: &[u8; 8],
    password: impl Into<NtSecret<'a>>,
    received: &[u8; 24],
) -> bool {
    let due = nt_challenge_response(challenge, password);
    due.ct_eq(received).into()
}

/// The Response Value of CHAP with MD5 (RFC 1994 4.1).
#[must_use]
pub fn chap_md5_response(id: u8, password: &[u8], challenge: &[u8]) -> [u8; 16] {
    Md5::new()
        .chain_update([id])
        .chain_update(password)
        .chain_update(challenge)
        .finalize()
        .into()
}

/// Whether a CHAP with MD5 response is the one that is due, in constant time.
#[must_use]
pub fn check_chap_md5_response(id: u8, password: &[u8], challenge: &[u8], received: &[u8]) -> bool {
    chap_md5_response(id, password, challenge)
        .ct_eq(received)
        .into()
}

/// Whether a PAP password is the one that is due, in time that depends on its length alone.
#[must_use]
pub fn check_pap_password(password: &[u8], received: &[u8]) -> bool {
    password.ct_eq(received).into()
}

fn first(digest: &[u8; 20]) -> [u8; 8] {
    let mut octets = [0; 8];
    octets.copy_from_slice(&digest[..8]);
    octets
}
