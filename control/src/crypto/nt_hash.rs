//! Hashes of a password (RFC 2759 8.3 and 8.4; RFC 2433 A.2, A.4 and A.5; RFC 3079 2.4).

use std::fmt;

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};
use zeroize::Zeroizing;

/// What proves in MS-CHAP who one is: a password, or its NT hash alone, which serves as well.
#[derive(Clone, Copy)]
pub enum NtSecret<'a> {
    /// Octets of the password.
    Password(&'a [u8]),
    /// What [`nt_password_hash`] makes of it.
    Hash(&'a [u8; 16]),
}

impl NtSecret<'_> {
    pub(super) fn nt_hash(self) -> Zeroizing<[u8; 16]> {
        match self {
            Self::Password(password) => nt_password_hash(password),
            Self::Hash(hash) => Zeroizing::new(*hash),
        }
    }

    /// Of an NT hash alone it cannot be told: keys of 40 and 56 bits after MS-CHAPv1, which nobody
    /// should use, come out wrong then.
    pub(super) fn lm_hash(self) -> Zeroizing<[u8; 16]> {
        match self {
            Self::Password(password) => lm_password_hash(password),
            Self::Hash(_) => Zeroizing::new([0; 16]),
        }
    }
}

impl fmt::Debug for NtSecret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NtSecret(<hidden>)")
    }
}

impl<'a> From<&'a [u8]> for NtSecret<'a> {
    fn from(password: &'a [u8]) -> Self {
        Self::Password(password)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for NtSecret<'a> {
    fn from(password: &'a [u8; N]) -> Self {
        Self::Password(password)
    }
}

/// `NtPasswordHash`: MD4 of the password in UTF-16, low octet first.
///
/// `password` is taken for UTF-8, and where it is not that, for Latin-1, so that a secrets file of
/// either kind works.
#[must_use]
pub fn nt_password_hash(password: &[u8]) -> Zeroizing<[u8; 16]> {
    let unicode = unicode(password);
    Zeroizing::new(Md4::digest(&unicode[..]).into())
}

/// `HashNtPasswordHash`: MD4 of the password hash.
#[must_use]
pub fn hash_nt_password_hash(password_hash: &[u8; 16]) -> Zeroizing<[u8; 16]> {
    Zeroizing::new(Md4::digest(password_hash).into())
}

/// `LmPasswordHash`: of the password in capitals, cut or filled up to 14 octets (RFC 2433 A.2).
/// Weak beyond repair; MS-CHAPv1 makes its 40 and 56-bit keys from it (RFC 3079 2.1 and 2.2).
#[must_use]
pub fn lm_password_hash(password: &[u8]) -> Zeroizing<[u8; 16]> {
    let mut capitals = Zeroizing::new([0; 14]);
    for (to, from) in capitals.iter_mut().zip(password) {
        *to = from.to_ascii_uppercase();
    }
    let mut hash = Zeroizing::new([0; 16]);
    for (key, block) in capitals.chunks_exact(7).zip(hash.chunks_exact_mut(8)) {
        let mut seven = Zeroizing::new([0; 7]);
        seven.copy_from_slice(key);
        block.copy_from_slice(&des_encrypt(b"KGS!@#$%", &seven));
    }
    hash
}

/// `DesEncrypt` (RFC 2759 8.6): `clear` under a key of 56 bits.
pub(super) fn des_encrypt(clear: &[u8; 8], key: &[u8; 7]) -> [u8; 8] {
    let mut block = (*clear).into();
    Des::new(&(*with_parity(key)).into()).encrypt_block(&mut block);
    block.into()
}

/// Spreads 56 bits over eight octets, seven in each, and makes the lowest bit of each its odd
/// parity (RFC 2759 9.3).
fn with_parity(key: &[u8; 7]) -> Zeroizing<[u8; 8]> {
    let mut wide = Zeroizing::new([0; 8]);
    wide[1..].copy_from_slice(key);
    let mut bits = Zeroizing::new(u64::from_be_bytes(*wide));
    let mut spread = Zeroizing::new([0; 8]);
    for octet in spread.iter_mut().rev() {
        let seven = (*bits & 0x7F) as u8;
        let parity = u8::from(seven.count_ones().is_multiple_of(2));
        *octet = seven << 1 | parity;
        *bits >>= 7;
    }
    spread
}

/// A password in UTF-16, low octet first.
pub(super) fn unicode(password: &[u8]) -> Zeroizing<Vec<u8>> {
    // Two octets for each of the password's are enough: no UTF-8 sequence is shorter than the
    // UTF-16 units that it stands for. So the buffer never moves and leaves no copy behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(2 * password.len()));
    match std::str::from_utf8(password) {
        Ok(text) => octets.extend(text.encode_utf16().flat_map(u16::to_le_bytes)),
        Err(_) => octets.extend(password.iter().flat_map(|octet| [*octet, 0])),
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn des_keys_get_the_parity_of_rfc_2433_b_3_and_rfc_2759_9_3() {
        let first = [0xFC, 0x15, 0x6A, 0xF7, 0xED, 0xCD, 0x6C];
        let second = [0x0E, 0xDD, 0xE3, 0x33, 0x7D, 0x42, 0x7F];
        assert_eq!(
            *with_parity(&first),
            [0xFD, 0x0B, 0x5B, 0x5E, 0x7F, 0x6E, 0x34, 0xD9]
        );
        assert_eq!(
            *with_parity(&second),
            [0x0E, 0x6E, 0x79, 0x67, 0x37, 0xEA, 0x08, 0xFE]
        );
    }

    #[test]
    fn a_password_is_utf_8_or_else_latin_1() {
        // Two octets a character, low octet first; beyond the first plane, a surrogate pair.
        assert_eq!(
            unicode("pä€😀".as_bytes())[..],
            [0x70, 0x00, 0xE4, 0x00, 0xAC, 0x20, 0x3D, 0xD8, 0x00, 0xDE]
        );
        assert_eq!(unicode(&[0x70, 0xE4])[..], [0x70, 0x00, 0xE4, 0x00]);
    }

    #[test]
    fn lm_hash_takes_capitals_and_14_octets() {
        assert_eq!(lm_password_hash(b"MyPw"), lm_password_hash(b"mypW"));
        assert_eq!(
            lm_password_hash(b"fourteenletters"),
            lm_password_hash(b"fourteenletterz")
        );
    }
}
