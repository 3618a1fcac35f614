//! What a session key is made from (RFC 3079 2 and 3) and how it moves on (RFC 3078 7.3).

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of the key that RC4 runs on (RFC 3078 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyStrength {
    /// 40-bit keys: 8 octets, the first three fixed to D1 26 9E.
    Bits40,
    /// 56-bit keys: 8 octets, the first fixed to D1.
    Bits56,
    /// 128-bit keys: 16 octets.
    Bits128,
}

impl KeyStrength {
    /// Octets of a key of this strength: 8 or 16.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Bits40 | Self::Bits56 => 8,
            Self::Bits128 => 16,
        }
    }
}

/// How often the key changes (RFC 3078 2.1, the H bit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyMode {
    /// The key changes with every packet.
    Stateless,
    /// The key changes every 256 packets, and after a Reset-Request.
    Stateful,
}

/// The start key of one direction, from which the first session key is derived.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StartKey {
    octets: [u8; 16],
    #[zeroize(skip)]
    strength: KeyStrength,
}

impl StartKey {
    /// Takes `strength.key_len()` octets, in the order in which RFC 3079 prints them; the rest of
    /// `octets` is ignored.
    #[must_use]
    pub fn new(strength: KeyStrength, octets: &[u8; 16]) -> Self {
        let mut kept = [0; 16];
        kept[..strength.key_len()].copy_from_slice(&octets[..strength.key_len()]);
        Self {
            octets: kept,
            strength,
        }
    }

    /// The strength that was negotiated.
    #[must_use]
    pub const fn strength(&self) -> KeyStrength {
        self.strength
    }

    /// `strength().key_len()` octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.strength.key_len()]
    }
}

/// A key that RC4 runs on. Keys of 8 octets are kept twice in a row, which RC4 cannot tell from
/// once: so every key has 16 octets, and ciphers need not look at the strength.
#[derive(Clone, Copy, PartialEq, Eq, Zeroize)]
pub struct SessionKey([u8; 16]);

impl SessionKey {
    /// Reduces the first octets of a digest to a key (RFC 3078 7.3, RFC 3079 3.1 to 3.3): 40- and
    /// 56-bit keys get their fixed octets.
    pub(super) const fn reduce(strength: KeyStrength, digest: &[u8; 16]) -> Self {
        let mut octets = *digest;
        match strength {
            KeyStrength::Bits40 => {
                octets[0] = 0xD1;
                octets[1] = 0x26;
                octets[2] = 0x9E;
            }
            KeyStrength::Bits56 => octets[0] = 0xD1,
            KeyStrength::Bits128 => return Self(octets),
        }
        Self::doubled(&octets)
    }

    /// The key that a digest becomes when it is enciphered with the stream of itself.
    pub(super) fn enciphered(&self, strength: KeyStrength, stream: &[u8; 16]) -> Self {
        let octets = std::array::from_fn(|at| self.0[at] ^ stream[at]);
        Self::reduce(strength, &octets)
    }

    /// The first 8 octets, twice.
    pub(super) const fn doubled(octets: &[u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *octets;
        Self([a, b, c, d, e, f, g, h, a, b, c, d, e, f, g, h])
    }

    /// All 16 octets.
    pub(super) const fn whole(octets: &[u8; 16]) -> Self {
        Self(*octets)
    }

    /// One that `as_bytes` gave.
    pub(super) fn from_bytes(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self)
    }

    /// 16 octets to run RC4 on.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(<hidden>)")
    }
}

impl std::fmt::Debug for StartKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StartKey({:?}, <hidden>)", self.strength)
    }
}
