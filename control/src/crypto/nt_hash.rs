//! Hashes of a password (RFC 2759 8.3 and 8.4; RFC 2433 A.2, A.4 and A.5; RFC 3079 2.4).

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};
use zeroize::{Zeroize, Zeroizing};

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

/// `DesEncrypt`: `clear` under a key of 56 bits, whose parity bits are put in here (RFC 2759 8.6).
pub(super) fn des_encrypt(clear: &[u8; 8], key: &[u8; 7]) -> [u8; 8] {
    let mut wide = [0; 8];
    wide[1..].copy_from_slice(key);
    let mut bits = u64::from_be_bytes(wide);
    let mut parity_key = Zeroizing::new([0; 8]);
    for octet in parity_key.iter_mut().rev() {
        // Seven bits, high ones; DES never looks at the lowest, the parity.
        *octet = u8::try_from((bits & 0x7F) << 1).unwrap_or_default();
        bits >>= 7;
    }
    wide.zeroize();
    let mut block = (*clear).into();
    Des::new(&(*parity_key).into()).encrypt_block(&mut block);
    block.into()
}

fn unicode(password: &[u8]) -> Zeroizing<Vec<u8>> {
    // Two octets for each of the password's are enough: no UTF-8 sequence is shorter than the
    // UTF-16 units that it stands for. So the buffer never moves and leaves no copy behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(2 * password.len()));
    match std::str::from_utf8(password) {
        Ok(text) => octets.extend(text.encode_utf16().flat_map(u16::to_le_bytes)),
        Err(_) => octets.extend(password.iter().flat_map(|octet| [*octet, 0])),
    }
    octets
}
