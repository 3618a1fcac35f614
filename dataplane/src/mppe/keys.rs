//! What a session key is made from (RFC 3079 2 and 3) and how it moves on (RFC 3078 7.3).

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of the key that RC4 runs on (RFC 3078 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl std::fmt::Debug for StartKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StartKey({:?}, <hidden>)", self.strength)
    }
}
