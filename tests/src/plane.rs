//! A model of the data plane: what `dataplane::program` promises, and no more.
//!
//! It stands for a worker where only negotiation is looked at. Its packets have a format of their
//! own: Call ID (2), sequence (4), kind (1), then the frame, which is veiled with its key so that
//! an eavesdropper on the simulated wire can tell whether it was encrypted.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bytes::Bytes;
use dataplane::program::{CallId, Command, MppeSpec, NetworkSpec, Notice, SessionSpec};

const HEADER_LEN: usize = 7;
const CLEAR: u8 = 0;
const ENCRYPTED: u8 = 1;

/// One host's data plane.
#[derive(Debug, Default)]
pub struct Plane {
    sessions: BTreeMap<CallId, Session>,
    sent: Vec<(Ipv4Addr, Vec<u8>)>,
    delivered: Vec<(CallId, Vec<u8>)>,
    notices: Vec<Notice>,
    garbled: u64,
}

#[derive(Debug)]
struct Session {
    spec: SessionSpec,
    send_sequence: u32,
    receive_next: u32,
    receive_key: Option<MppeSpec>,
    send_key: Option<MppeSpec>,
    network: Option<NetworkSpec>,
}

impl Plane {
    /// Obeys control.
    ///
    /// # Panics
    /// When a command makes no sense: a fault in control.
    pub fn obey(&mut self, command: Command) {
        match command {
            Command::Install(spec) => self.install(spec),
            Command::SetPeerCallId {
                call_id,
                peer_call_id,
            } => self.session(call_id).spec.peer_call_id = Some(peer_call_id),
            Command::Inject { call_id, frame } => self.inject(call_id, &frame),
            Command::SetReceiveKey { call_id, mppe } => self.session(call_id).receive_key = mppe,
            Command::SetSendKey { call_id, mppe } => self.session(call_id).send_key = mppe,
            Command::ResetSendKey { call_id } => {
                self.session(call_id);
            }
            Command::OpenNetwork { call_id, network } => {
                self.session(call_id).network = Some(network);
            }
            Command::CloseNetwork { call_id } => self.session(call_id).network = None,
            Command::Remove { call_id } => {
                let session = self.sessions.remove(&call_id);
                assert!(session.is_some(), "{call_id:?} was removed twice");
            }
            other => panic!("not for this plane: {other:?}"),
        }
    }

    fn install(&mut self, spec: SessionSpec) {
        let session = Session {
            spec: spec.clone(),
            send_sequence: 0,
            receive_next: 0,
            receive_key: None,
            send_key: None,
            network: None,
        };
        let before = self.sessions.insert(spec.call_id, session);
        assert!(before.is_none(), "{:?} is in use", spec.call_id);
    }

    fn session(&mut self, call_id: CallId) -> &mut Session {
        let session = self.sessions.get_mut(&call_id);
        session.unwrap_or_else(|| panic!("{call_id:?} is not installed"))
    }

    fn inject(&mut self, call_id: CallId, frame: &[u8]) {
        let session = self.session(call_id);
        assert!(session.spec.peer_call_id.is_some(), "nowhere to send to");
        let sent = session.send(CLEAR, frame);
        self.sent.extend(sent);
    }

    /// The host sends an IP packet through the tunnel.
    pub fn tun_arrives(&mut self, call_id: CallId, packet: &[u8]) {
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        let Some(network) = &session.network else {
            return;
        };
        let frame = [&[0xFF, 0x03, 0x00, 0x21], packet].concat();
        let sent = match &session.send_key {
            Some(key) => {
                let veiled = veil(key, &frame);
                session.send(ENCRYPTED, &veiled)
            }
            None if network.require_encryption => None,
            None => session.send(CLEAR, &frame),
        };
        self.sent.extend(sent);
    }

    /// A packet came from the network.
    pub fn gre_arrives(&mut self, from: Ipv4Addr, packet: &[u8]) {
        let (header, payload) = packet.split_at(HEADER_LEN);
        let call_id = CallId(u16::from_be_bytes([header[0], header[1]]));
        let sequence = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
        let Some(session) = self.sessions.get_mut(&call_id) else {
            return;
        };
        // Late and duplicate packets are discarded (RFC 2637 4.3).
        if session.spec.peer != from || sequence < session.receive_next {
            return;
        }
        session.receive_next = sequence + 1;
        let is_encrypted = header[6] == ENCRYPTED;
        let frame = match (&session.receive_key, is_encrypted) {
            (Some(key), true) => veil(key, payload),
            (None, true) => return,
            (_, false) => payload.to_vec(),
        };
        let (protocol, information) = split_protocol(&frame);
        match (protocol, &session.network) {
            (0x0021, Some(network)) if is_encrypted || !network.require_encryption => {
                self.delivered.push((call_id, information.to_vec()));
            }
            (0x0021, _) => {}
            _ if is_encrypted => self.garbled += 1,
            _ => self.notices.push(Notice::Punt {
                call_id,
                frame: Bytes::from(frame),
            }),
        }
    }

    /// What has been sent since the last call: where to, and what.
    pub fn take_sent(&mut self) -> Vec<(Ipv4Addr, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// IP packets that came through since the last call.
    pub fn take_delivered(&mut self) -> Vec<(CallId, Vec<u8>)> {
        std::mem::take(&mut self.delivered)
    }

    /// What control must hear.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Packets whose key was not ours: must stay 0.
    #[must_use]
    pub const fn garbled(&self) -> u64 {
        self.garbled
    }

    /// Sessions installed.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }
}

impl Session {
    fn send(&mut self, kind: u8, frame: &[u8]) -> Option<(Ipv4Addr, Vec<u8>)> {
        let mut packet = self.spec.peer_call_id?.to_be_bytes().to_vec();
        packet.extend(self.send_sequence.to_be_bytes());
        packet.push(kind);
        packet.extend(frame);
        self.send_sequence += 1;
        Some((self.spec.peer, packet))
    }
}

/// Its own inverse. No cipher: it only shows whether both ends have one key.
fn veil(key: &MppeSpec, octets: &[u8]) -> Vec<u8> {
    let stream = key.start_key.as_bytes().iter().cycle();
    octets.iter().zip(stream).map(|(a, b)| a ^ b).collect()
}

/// The PPP protocol and what follows, with address, control and protocol compressed or not.
fn split_protocol(frame: &[u8]) -> (u16, &[u8]) {
    let frame = frame.strip_prefix(&[0xFF, 0x03]).unwrap_or(frame);
    match frame {
        [short, rest @ ..] if short & 1 == 1 => (u16::from(*short), rest),
        [high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
        rest => (0, rest),
    }
}
