//! A session on its way to another process: what its worker knows of it and the peer relies on.
//!
//! What control has programmed (addresses, options, next hop) is programmed again by the other
//! process; this is the rest, which changes with every packet. Times are left behind: clocks
//! differ, and whatever was waited for is waited for once more. It holds keys: it is wiped when
//! dropped.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::mppe::keys::{KeyStrength, StartKey};

/// One session, or the half of it that one worker has ([`crate::program::Role`]).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SessionSnapshot {
    /// From the peer.
    pub receive: Option<ReceiveSnapshot>,
    /// To the peer.
    pub send: Option<SendSnapshot>,
}

impl SessionSnapshot {
    /// The half that receives and the half that sends.
    #[must_use]
    pub fn halves(self) -> (Self, Self) {
        let receive = Self {
            receive: self.receive,
            send: None,
        };
        let send = Self {
            receive: None,
            send: self.send,
        };
        (receive, send)
    }

    /// Adds the other half, as another worker exported it.
    pub fn join(&mut self, other: Self) {
        self.receive = self.receive.take().or(other.receive);
        self.send = self.send.take().or(other.send);
    }
}

/// The direction from the peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceiveSnapshot {
    /// Numbers of GRE.
    pub window: WindowSnapshot,
    /// Keys; `None` when what comes is in the clear.
    pub decryptor: Option<DecryptorSnapshot>,
}

/// What has been received of a session, and what is owed for it (RFC 2637 4.1 to 4.3).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WindowSnapshot {
    /// Anything was received.
    pub is_started: bool,
    /// The number that is awaited.
    pub next: u32,
    /// Bit n: `next - 1 - n` was let through.
    pub recent: u64,
    /// The highest number received.
    pub highest: u32,
    /// Packets received that have not been acknowledged.
    pub owed: u32,
    /// Packets that came early: number, and PPP frame as it came.
    pub held: Vec<(u32, Hidden)>,
}

/// MPPE from the peer (RFC 3078).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecryptorSnapshot {
    /// Of both keys.
    pub strength: KeyStrength,
    /// What the chain of keys began with.
    pub start_key: Hidden,
    /// The key of the last packet, 16 octets.
    pub key: Hidden,
    /// Its place in the chain.
    pub index: u64,
    /// The last packet's.
    pub coherency_count: u16,
    /// The last packet's number in GRE.
    pub sequence: Option<u32>,
    /// Stateful: the cipher that runs on, as `mppe::rc4::Rc4::position` gives it.
    pub running: Option<Hidden>,
    /// Stateful: it has lost its place.
    pub reset_needed: bool,
}

/// The direction to the peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SendSnapshot {
    /// The next packet's number in GRE.
    pub next: u32,
    /// The highest number that the peer has acknowledged.
    pub acknowledged: Option<u32>,
    /// Keys; `None` when what goes out is in the clear.
    pub encryptor: Option<EncryptorSnapshot>,
}

/// MPPE to the peer (RFC 3078).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EncryptorSnapshot {
    /// Of both keys.
    pub strength: KeyStrength,
    /// What the chain of keys began with.
    pub start_key: Hidden,
    /// The latest key, 16 octets.
    pub key: Hidden,
    /// Its place in the chain.
    pub index: u64,
    /// The next packet's.
    pub coherency_count: u16,
    /// Stateful: the cipher that runs on, as `mppe::rc4::Rc4::position` gives it.
    pub running: Option<Hidden>,
    /// Stateful: the next packet starts afresh.
    pub reset: bool,
    /// Keys that are to be left out.
    pub skip: u32,
}

/// Octets that nobody is to see. In text they are hexadecimal.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Hidden(Vec<u8>);

impl Hidden {
    /// A copy of these.
    #[must_use]
    pub fn new(octets: &[u8]) -> Self {
        Self(octets.to_vec())
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The start key that they are; `None` when there are too few or too many.
    pub(crate) fn as_start_key(&self, strength: KeyStrength) -> Option<StartKey> {
        let mut octets = Zeroizing::new([0; 16]);
        let key = octets.get_mut(..strength.key_len())?;
        if self.0.len() != key.len() {
            return None;
        }
        key.copy_from_slice(&self.0);
        Some(StartKey::new(strength, &octets))
    }
}

impl From<Vec<u8>> for Hidden {
    fn from(octets: Vec<u8>) -> Self {
        Self(octets)
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} octets hidden>", self.0.len())
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        hex::decode(text.as_bytes())
            .map(Self)
            .map_err(D::Error::custom)
    }
}
