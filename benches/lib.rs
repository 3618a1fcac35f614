//! What the benchmarks of the data plane share: packets, keys and installed sessions.
//!
//! The plain implementation that they are held against is [`dataplane::mppe::baseline`].

use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::mppe::keys::{KeyMode, KeyStrength, StartKey};
use dataplane::mppe::rc4::Packets;
use dataplane::program::{CallId, MppeSpec, NetworkSpec, Role, SessionSpec, TunId};
use dataplane::session::SessionTable;

/// Octets of an IP packet in a tunnel whose outer packets have 1500 at most, with room to spare.
pub const PACKET_LEN: usize = 1400;

/// Start key of every session.
pub const START_KEY: [u8; 16] = *b"0123456789abcdef";

/// The other end of every session.
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Packets to encipher, each under a key of its own.
#[derive(Clone, Debug)]
pub struct Texts {
    keys: Vec<[u8; 16]>,
    texts: Vec<Vec<u8>>,
}

impl Texts {
    /// One packet of each of these lengths.
    pub fn new(lens: impl IntoIterator<Item = usize>) -> Self {
        let texts: Vec<_> = lens.into_iter().map(|len| vec![0; len]).collect();
        let keys = (0..texts.len()).map(|n| [n as u8; 16]).collect();
        Self { keys, texts }
    }

    /// Keys and texts, one by one.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&[u8; 16], &mut Vec<u8>)> {
        self.keys.iter().zip(&mut self.texts)
    }

    /// Octets of all texts.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.texts.iter().map(|text| text.len() as u64).sum()
    }
}

impl Packets for Texts {
    fn count(&self) -> usize {
        self.texts.len()
    }

    fn key(&self, index: usize) -> &[u8; 16] {
        &self.keys[index]
    }

    fn text(&mut self, index: usize) -> &mut [u8] {
        &mut self.texts[index]
    }
}

/// Open sessions 0 to `count - 1`, whose packets are encrypted with 128-bit stateless keys; the
/// peer's Call IDs are the same.
///
/// # Panics
/// When there are more than Call IDs.
#[must_use]
pub fn sessions(count: u16) -> SessionTable {
    let mut table = SessionTable::new(0, 1, Arc::default());
    let mppe = MppeSpec {
        start_key: StartKey::new(KeyStrength::Bits128, &START_KEY),
        mode: KeyMode::Stateless,
    };
    for call_id in (0..count).map(CallId) {
        let spec = SessionSpec {
            call_id,
            peer: PEER,
            local: None,
            peer_call_id: Some(call_id.0),
            role: Role::Both,
            counters: Arc::default(),
        };
        let network = NetworkSpec {
            tun: TunId(0),
            local: Ipv4Addr::UNSPECIFIED,
            peer: Ipv4Addr::UNSPECIFIED,
            compress_protocol: false,
            compress_address_control: false,
            require_encryption: true,
            check_source: false,
        };
        assert!(table.install(&spec).is_ok() && table.open_network(call_id, network, false));
        if let Some(session) = table.get_mut(call_id) {
            session.set_receive_key(Some(&mppe));
            session.set_send_key(Some(&mppe));
        }
    }
    table
}

/// An IPv4 packet of [`PACKET_LEN`] octets with a true header checksum.
#[must_use]
pub fn inner_packet() -> Vec<u8> {
    let mut packet = vec![0; PACKET_LEN];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(PACKET_LEN as u16).to_be_bytes());
    let checksum = !(0x4500 + PACKET_LEN as u16);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}
