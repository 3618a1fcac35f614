//! What changes a password without showing it (RFC 2759 8.9 to 8.13).

use dataplane::mppe::rc4::Rc4;
use zeroize::Zeroizing;

use super::nt_hash::{des_encrypt, nt_password_hash, unicode};

/// Octets of a PWBLOCK (RFC 2759 8.9): 256 characters of UTF-16, and their length.
pub const PASSWORD_BLOCK_LEN: usize = PASSWORD_LEN_MAX + 4;
/// Octets of the longest password in UTF-16.
const PASSWORD_LEN_MAX: usize = 512;

/// `NewPasswordEncryptedWithOldNtPasswordHash` (RFC 2759 8.9 and 8.10). `filling` is what stands
/// in front of a shorter password: random octets. `None` when the password has more than 256
/// characters, or none.
#[must_use]
pub fn new_password_encrypted_with_old_nt_password_hash(
    new_password: &[u8],
    old_password: &[u8],
    filling: &[u8; PASSWORD_LEN_MAX],
) -> Option<[u8; PASSWORD_BLOCK_LEN]> {
    let password = unicode(new_password);
    let offset = PASSWORD_LEN_MAX.checked_sub(password.len())?;
    let len = u32::try_from(password.len()).ok().filter(|len| *len > 0)?;
    let mut block = [0; PASSWORD_BLOCK_LEN];
    block[..offset].copy_from_slice(&filling[..offset]);
    block[offset..PASSWORD_LEN_MAX].copy_from_slice(&password);
    block[PASSWORD_LEN_MAX..].copy_from_slice(&len.to_le_bytes());
    Rc4::new(&nt_password_hash(old_password)).apply(&mut block);
    Some(block)
}

/// `OldNtPasswordHashEncryptedWithNewNtPasswordHash` (RFC 2759 8.12).
#[must_use]
pub fn old_nt_password_hash_encrypted_with_new_nt_password_hash(
    new_password: &[u8],
    old_password: &[u8],
) -> [u8; 16] {
    let old = nt_password_hash(old_password);
    nt_password_hash_encrypted_with_block(&old, &nt_password_hash(new_password))
}

/// `NtPasswordHashEncryptedWithBlock` (RFC 2759 8.13): the two halves of a hash, each under 56 bits
/// of `block`.
#[must_use]
pub fn nt_password_hash_encrypted_with_block(
    password_hash: &[u8; 16],
    block: &[u8; 16],
) -> [u8; 16] {
    let mut cipher = [0; 16];
    let (halves, _) = password_hash.as_chunks::<8>();
    for ((half, key), out) in halves
        .iter()
        .zip(block.chunks_exact(7))
        .zip(cipher.chunks_exact_mut(8))
    {
        let mut seven = Zeroizing::new([0; 7]);
        seven.copy_from_slice(key);
        out.copy_from_slice(&des_encrypt(half, &seven));
    }
    cipher
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"clientPass";
    const NEW: &[u8] = b"MyPw";

    /// The hashes of RFC 2759 9.2 and 9.3 are the keys, so what is made can be opened with them.
    const OLD_HASH: [u8; 16] = *b"\x44\xEB\xBA\x8D\x53\x12\xB8\xD6\x11\x47\x44\x11\xF5\x69\x89\xAE";
    const NEW_HASH: [u8; 16] = *b"\xFC\x15\x6A\xF7\xED\xCD\x6C\x0E\xDD\xE3\x33\x7D\x42\x7F\x4E\xAC";

    #[test]
    fn the_block_opens_with_the_old_hash_to_the_new_password_and_its_length() {
        let mut block =
            new_password_encrypted_with_old_nt_password_hash(NEW, OLD, &[0x5A; 512]).unwrap();
        Rc4::new(&OLD_HASH).apply(&mut block);
        assert_eq!(&block[512..], [8, 0, 0, 0]);
        assert_eq!(&block[504..512], b"M\0y\0P\0w\0");
        assert!(block[..504].iter().all(|octet| *octet == 0x5A));
    }

    #[test]
    fn each_half_of_the_old_hash_is_under_the_des_keys_of_rfc_2759_9_3() {
        use des::cipher::{BlockCipherDecrypt, KeyInit};
        let made = old_nt_password_hash_encrypted_with_new_nt_password_hash(NEW, OLD);
        assert_eq!(
            made,
            nt_password_hash_encrypted_with_block(&OLD_HASH, &NEW_HASH)
        );
        let keys = [
            [0xFD, 0x0B, 0x5B, 0x5E, 0x7F, 0x6E, 0x34, 0xD9],
            [0x0E, 0x6E, 0x79, 0x67, 0x37, 0xEA, 0x08, 0xFE],
        ];
        for (index, key) in keys.into_iter().enumerate() {
            let half = index * 8..index * 8 + 8;
            let mut block: [u8; 8] = made[half.clone()].try_into().unwrap();
            let mut in_cipher = block.into();
            des::Des::new(&key.into()).decrypt_block(&mut in_cipher);
            block = in_cipher.into();
            assert_eq!(block, OLD_HASH[half]);
        }
    }

    #[test]
    fn a_password_that_does_not_fit_is_refused() {
        let make = |new: &[u8]| {
            new_password_encrypted_with_old_nt_password_hash(new, OLD, &[0; 512]).is_some()
        };
        assert!(!make(b""));
        assert!(make(&[b'x'; 256]));
        assert!(!make(&[b'x'; 257]));
    }
}
