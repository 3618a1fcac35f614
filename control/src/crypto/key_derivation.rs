//! From a verified MS-CHAP exchange to MPPE start keys (RFC 3079 2 and 3).

use zeroize::{Zeroize, ZeroizeOnDrop};

/// What start keys are derived from. Only a verified exchange makes one.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
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
}
