//! From a verified MS-CHAP exchange to MPPE start keys (RFC 3079 2 and 3).

use dataplane::mppe::keys::{KeyStrength, StartKey};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::nt_hash::{NtSecret, hash_nt_password_hash};

/// What start keys are derived from. Only a verified exchange makes one.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub enum KeyMaterial {
    /// MS-CHAPv1 (RFC 3079 2).
    V1 {
        /// First 8 octets of the LM hash of the password (40 and 56 bit).
        lm_password_hash: [u8; 8],
        /// MD4 of the MD4 of the password (128 bit).
        nt_password_hash_hash: [u8; 16],
        /// The 8-octet challenge.
        challenge: [u8; 8],
    },
    /// MS-CHAPv2 (RFC 3079 3).
    V2 {
        /// MasterKey (RFC 3079 3.4), 16 octets.
        master_key: [u8; 16],
    },
    /// Start keys that an authentication server has derived (RFC 2548 2.4.2 and 2.4.3), as seen by
    /// us; a shorter key is their first octets.
    Given {
        /// For what we send.
        send: [u8; 16],
        /// For what we receive.
        receive: [u8; 16],
    },
}

/// The start keys of both directions, as seen by us.
#[derive(Clone, Debug)]
pub struct StartKeys {
    /// For what we send.
    pub send: StartKey,
    /// For what we receive.
    pub receive: StartKey,
}

impl KeyMaterial {
    /// From a verified MS-CHAPv1 exchange.
    #[must_use]
    pub fn from_mschap_v1<'a>(password: impl Into<NtSecret<'a>>, challenge: &[u8; 8]) -> Self {
        let password = password.into();
        let lm_hash = password.lm_hash();
        let mut lm_password_hash = [0; 8];
        lm_password_hash.copy_from_slice(&lm_hash[..8]);
        Self::V1 {
            lm_password_hash,
            nt_password_hash_hash: *hash_nt_password_hash(&password.nt_hash()),
            challenge: *challenge,
        }
    }

    /// From a verified MS-CHAPv2 exchange.
    #[must_use]
    pub fn from_mschap_v2<'a>(password: impl Into<NtSecret<'a>>, nt_response: &[u8; 24]) -> Self {
        let password_hash_hash = hash_nt_password_hash(&password.into().nt_hash());
        Self::V2 {
            master_key: *get_master_key(&password_hash_hash, nt_response),
        }
    }
}

/// The start keys for keys of `strength`, whose first session keys the data plane makes.
/// `is_server` says whether we were the authenticator.
///
/// In MS-CHAPv1 both directions have the same start key (RFC 3079 2).
#[must_use]
pub fn start_keys(material: &KeyMaterial, strength: KeyStrength, is_server: bool) -> StartKeys {
    let direction = |is_send| match material {
        KeyMaterial::V1 {
            lm_password_hash,
            nt_password_hash_hash,
            challenge,
        } => match strength {
            KeyStrength::Bits40 | KeyStrength::Bits56 => {
                let mut octets = Zeroizing::new([0; 16]);
                octets[..8].copy_from_slice(lm_password_hash);
                octets
            }
            KeyStrength::Bits128 => get_start_key(challenge, nt_password_hash_hash),
        },
        KeyMaterial::V2 { master_key } => get_asymmetric_start_key(master_key, is_send, is_server),
        KeyMaterial::Given { send, receive } => {
            Zeroizing::new(if is_send { *send } else { *receive })
        }
    };
    StartKeys {
        send: StartKey::new(strength, &direction(true)),
        receive: StartKey::new(strength, &direction(false)),
    }
}

/// `GetStartKey` (RFC 3079 2.4): 16 octets from MS-CHAPv1's challenge and password hash hash.
#[must_use]
pub fn get_start_key(challenge: &[u8; 8], password_hash_hash: &[u8; 16]) -> Zeroizing<[u8; 16]> {
    let digest = Sha1::new()
        .chain_update(password_hash_hash)
        .chain_update(password_hash_hash)
        .chain_update(challenge)
        .finalize();
    first(digest.into())
}

/// `GetMasterKey` (RFC 3079 3.4).
#[must_use]
pub fn get_master_key(
    password_hash_hash: &[u8; 16],
    nt_response: &[u8; 24],
) -> Zeroizing<[u8; 16]> {
    let digest = Sha1::new()
        .chain_update(password_hash_hash)
        .chain_update(nt_response)
        .chain_update(b"This is the MPPE Master Key")
        .finalize();
    first(digest.into())
}

/// `GetAsymetricStartKey` (RFC 3079 3.4), whole: a shorter key is its first octets.
#[must_use]
pub fn get_asymmetric_start_key(
    master_key: &[u8; 16],
    is_send: bool,
    is_server: bool,
) -> Zeroizing<[u8; 16]> {
    // What the server sends, the client receives: both sides name one key by one text.
    let magic: &[u8] = if is_send == is_server {
        b"On the client side, this is the receive key; on the server side, it is the send key."
    } else {
        b"On the client side, this is the send key; on the server side, it is the receive key."
    };
    let digest = Sha1::new()
        .chain_update(master_key)
        .chain_update([0x00; 40])
        .chain_update(magic)
        .chain_update([0xF2; 40])
        .finalize();
    first(digest.into())
}

fn first(digest: [u8; 20]) -> Zeroizing<[u8; 16]> {
    let digest = Zeroizing::new(digest);
    let mut octets = Zeroizing::new([0; 16]);
    octets.copy_from_slice(&digest[..16]);
    octets
}
