//! Values that only who has the shared secret can read: User-Password (RFC 2865 5.2), and
//! Microsoft's keys, with a salt (RFC 2548 2.4.2).

use md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::packet::Authenticator;

/// Longest password that User-Password carries.
pub const PASSWORD_BYTES_MAX: usize = 128;

/// Octets of a digest, and so of a block.
const BLOCK: usize = 16;

/// The value of User-Password; a longer password than 128 octets is cut, so the caller refuses it
/// before.
#[must_use]
pub fn hide_password(password: &[u8], secret: &[u8], request: &Authenticator) -> Vec<u8> {
    let password = password.get(..PASSWORD_BYTES_MAX).unwrap_or(password);
    let length = password.len().max(1).next_multiple_of(BLOCK);
    let mut plain = Zeroizing::new(password.to_vec());
    plain.resize(length, 0);
    hide(&plain, secret, request)
}

/// What User-Password and MS-CHAP-MPPE-Keys hide, with the zeroes that they were filled up with;
/// `None` when the value is not whole blocks.
#[must_use]
pub fn reveal_password(
    value: &[u8],
    secret: &[u8],
    request: &Authenticator,
) -> Option<Zeroizing<Vec<u8>>> {
    reveal(value, secret, request)
}

/// The value of MS-MPPE-Send-Key and MS-MPPE-Recv-Key. The salt's highest bit is set here.
#[must_use]
pub fn hide_salted(key: &[u8], salt: u16, secret: &[u8], request: &Authenticator) -> Vec<u8> {
    let salt = (salt | 0x8000).to_be_bytes();
    let length = u8::try_from(key.len()).unwrap_or(u8::MAX);
    let mut plain = Zeroizing::new([&[length][..], key].concat());
    let blocks = plain.len().next_multiple_of(BLOCK);
    plain.resize(blocks, 0);
    let cipher = hide(&plain, secret, &[&request[..], &salt].concat());
    [&salt[..], &cipher].concat()
}

/// The key in MS-MPPE-Send-Key or MS-MPPE-Recv-Key; `None` when the value is not of that form.
#[must_use]
pub fn reveal_salted(
    value: &[u8],
    secret: &[u8],
    request: &Authenticator,
) -> Option<Zeroizing<Vec<u8>>> {
    let (salt, cipher) = value.split_at_checked(2)?;
    let plain = reveal(cipher, secret, &[&request[..], salt].concat())?;
    let (&length, rest) = plain.split_first()?;
    let key = rest.get(..usize::from(length))?;
    Some(Zeroizing::new(key.to_vec()))
}

/// Each block is hidden by the digest of the secret and the block before; `first` stands before
/// the first.
fn hide(plain: &[u8], secret: &[u8], first: &[u8]) -> Vec<u8> {
    let mut cipher = Vec::with_capacity(plain.len());
    let mut before = first.to_vec();
    for block in plain.chunks(BLOCK) {
        before = exclusive_or(block, secret, &before);
        cipher.extend(&before);
    }
    cipher
}

fn reveal(cipher: &[u8], secret: &[u8], first: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if cipher.is_empty() || !cipher.len().is_multiple_of(BLOCK) {
        return None;
    }
    let mut plain = Zeroizing::new(Vec::with_capacity(cipher.len()));
    let mut before = first;
    for block in cipher.chunks(BLOCK) {
        plain.extend(exclusive_or(block, secret, before));
        before = block;
    }
    Some(plain)
}

fn exclusive_or(block: &[u8], secret: &[u8], before: &[u8]) -> Vec<u8> {
    let digest = Md5::new()
        .chain_update(secret)
        .chain_update(before)
        .finalize();
    let pairs = block.iter().zip(digest);
    pairs.map(|(octet, key)| octet ^ key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn the_password_of_rfc_2865_7_1_is_hidden_as_printed_there() {
        let request = hex::decode("0f403f9473978057bd83d5cb98f4227a").unwrap();
        let request = request.try_into().unwrap();
        let hidden = hide_password(b"arctangent", b"xyzzy5461", &request);
        assert_eq!(hex::encode(&hidden), "0dbe708d93d413ce3196e43f782a0aee");
        let plain = reveal_password(&hidden, b"xyzzy5461", &request).unwrap();
        assert_eq!(&plain[..10], b"arctangent");
    }

    proptest! {
        #[test]
        fn what_is_hidden_is_revealed_by_the_same_secret_only(
            key in vec(any::<u8>(), 0..64), salt: u16, secret in vec(any::<u8>(), 1..20), request: [u8; 16],
        ) {
            let hidden = hide_salted(&key, salt, &secret, &request);
            prop_assert!(hidden[0] & 0x80 != 0);
            let revealed = reveal_salted(&hidden, &secret, &request).unwrap();
            prop_assert_eq!(&revealed[..], &key[..]);
            if key.len() >= 16 {
                let other = reveal_salted(&hidden, b"another secret than that", &request);
                prop_assert!(other.is_none_or(|other| other[..] != key[..]));
            }
        }

        #[test]
        fn any_value_is_revealed_or_refused(value in vec(any::<u8>(), 0..100), request: [u8; 16]) {
            let _ = reveal_salted(&value, b"secret", &request);
            let plain = reveal_password(&value, b"secret", &request);
            prop_assert_eq!(plain.is_some(), !value.is_empty() && value.len() % 16 == 0);
        }
    }
}
