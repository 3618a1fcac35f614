//! The way out: IP packets become PPP (RFC 1661), MPPE (RFC 3078) and GRE (RFC 2637 4.1) packets.
//!
//! Two passes over a batch: one writes headers and derives keys, packet by packet; one enciphers
//! all packets that have keys of their own, several abreast.

use std::net::Ipv4Addr;

use crate::counters::DropReason;
use crate::frame::{Frame, Slots};
use crate::limits::HEADROOM_BYTES;
use crate::mppe::cipher_batch::CipherBatch;
use crate::mppe::encryptor::Cipher;
use crate::mppe::rc4;
use crate::mppe::rekey::Step;
use crate::offload::mss;
use crate::program::CallId;
use crate::session::{Session, SessionTable};
use crate::wire::gre::{self, GreRepr};
use crate::wire::ipv4;
use crate::wire::mppe;
use crate::wire::ppp::{self, Compression};

/// One packet on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The session that it goes through.
    pub call_id: CallId,
    /// Before: an IP packet with `limits::HEADROOM_BYTES` of headroom. After: a GRE packet.
    pub frame: Frame,
    /// Set when the packet must not be sent; its slot is free.
    pub dropped: Option<DropReason>,
}

impl Outgoing {
    /// A packet for `encap`.
    #[must_use]
    pub const fn new(call_id: CallId, frame: Frame) -> Self {
        Self {
            call_id,
            frame,
            dropped: None,
        }
    }
}

/// Puts a batch of IP packets, of any sessions, into GRE, in place. No outer IP header: the raw
/// socket adds it. Every packet is either ready to send to its session's `peer()`, or `dropped`
/// and counted. Packets of one session keep their order.
pub fn encap(
    sessions: &mut SessionTable,
    slots: &mut impl Slots,
    batch: &mut [Outgoing],
    now_ms: u64,
) {
    let mut ciphers = CipherBatch::new();
    for several in batch.chunks_mut(rc4::LANES_MAX) {
        let call_ids = several.iter().map(|packet| packet.call_id);
        let steps = sessions.step_abreast(call_ids, |session| session.encryptor.as_mut()?.chain());
        for (packet, step) in several.iter_mut().zip(&steps) {
            let result = match sessions.sender_mut(packet.call_id) {
                Some(session) => encap_one(
                    session,
                    step.as_ref(),
                    slots,
                    &mut packet.frame,
                    &mut ciphers,
                    now_ms,
                ),
                None => Err(DropReason::UnknownCall),
            };
            packet.dropped = result.err();
            if let Some(reason) = packet.dropped {
                sessions.counters().count_drop(reason);
                if let Some(session) = sessions.sender_mut(packet.call_id) {
                    session.counters().send_dropped.add(1);
                }
                if reason == DropReason::QuotaSpent {
                    sessions.note_quota(packet.call_id);
                }
            }
        }
    }
    ciphers.run(slots);
}

fn encap_one(
    session: &mut Session,
    step: Option<&Step>,
    slots: &mut impl Slots,
    frame: &mut Frame,
    ciphers: &mut CipherBatch,
    now_ms: u64,
) -> Result<(), DropReason> {
    let Some(network) = &session.network else {
        return Err(DropReason::NetworkClosed);
    };
    if session.encryptor.is_none() && network.require_encryption {
        return Err(DropReason::NoSendKey);
    }
    let Some(peer_call_id) = session.peer_call_id else {
        return Err(DropReason::NoPeerCallId);
    };
    // All that can fail comes before keys and numbers move.
    if usize::from(frame.start) < OVERHEAD_MAX {
        return Err(DropReason::NoHeadroom);
    }
    let protocol = match frame.bytes(slots).first().map(|octet| octet >> 4) {
        Some(4) if is_own(frame.bytes(slots), session.peer()) => return Err(DropReason::Looped),
        Some(4) => ppp::IPV4,
        Some(6) if session.ipv6.is_some() => ppp::IPV6,
        Some(6) => return Err(DropReason::NetworkClosed),
        _ => return Err(DropReason::BadInnerIp),
    };
    if let Some(allowance) = &mut session.allowance {
        allowance.send(frame.len() as u64, &session.counters, now_ms)?;
    }
    if let Some(mtu) = session.clamp_mtu {
        mss::clamp(frame.bytes_mut(slots), mtu);
    }
    let packet_len = frame.len() as u64;

    let compression = session.compression();
    match &mut session.encryptor {
        None => push_ppp(slots, frame, protocol, compression),
        Some(encryptor) => {
            // Inside, the protocol field keeps both octets, as ppp_mppe writes it.
            push_ppp(slots, frame, protocol, PROTOCOL_ALONE);
            let (header, cipher) = encryptor.prepare_with(step);
            match cipher {
                Cipher::Own(key) => ciphers.push(slots, *frame, key),
                Cipher::Running => encryptor.encrypt_next(frame.bytes_mut(slots)),
                Cipher::Prepared => {
                    encryptor.encrypt_next(frame.bytes_mut(slots));
                    session.counters.sent_prepared.add(1);
                }
            }
            push_header(slots, frame, mppe::HEADER_LEN, |octets| {
                octets.copy_from_slice(&header.to_bytes());
            });
            push_ppp(slots, frame, ppp::COMPRESSED, compression);
        }
    }
    push_gre(session, slots, frame, peer_call_id);
    session.counters().sent_packets.add(1);
    session.counters().sent_bytes.add(packet_len);
    Ok(())
}

/// Whether an IPv4 packet is one that went out to `peer` before: once more, and it would come back
/// for ever, longer each time.
fn is_own(packet: &[u8], peer: Ipv4Addr) -> bool {
    packet.get(16..20) == Some(&peer.octets()) && packet[9] == ipv4::PROTOCOL_GRE
}

/// Puts one PPP frame of control's into GRE, never encrypted.
///
/// # Errors
/// The peer's Call ID is not known yet, or the headroom is too short: the frame must not be sent.
pub fn encap_control(
    session: &mut Session,
    slots: &mut impl Slots,
    frame: &mut Frame,
    _now_ms: u64,
) -> Result<(), DropReason> {
    let Some(peer_call_id) = session.peer_call_id else {
        return Err(DropReason::NoPeerCallId);
    };
    if usize::from(frame.start) < OVERHEAD_MAX {
        return Err(DropReason::NoHeadroom);
    }
    push_gre(session, slots, frame, peer_call_id);
    Ok(())
}

/// Makes `frame` a GRE packet without payload that acknowledges what was received; whatever was in
/// the slot is overwritten. False when nothing is owed or can be sent.
pub fn acknowledge(session: &mut Session, slots: &mut impl Slots, frame: &mut Frame) -> bool {
    let Some(call_id) = session.peer_call_id else {
        return false;
    };
    let Some(acknowledgment) = session.window.take_acknowledgment() else {
        return false;
    };
    let gre = GreRepr {
        call_id,
        payload_len: 0,
        sequence: None,
        acknowledgment: Some(acknowledgment),
    };
    frame.start = HEADROOM_BYTES as u16;
    frame.end = frame.start;
    push_header(slots, frame, gre.header_len(), |header| gre.emit(header));
    true
}

/// Octets in front of an IP packet, at most: GRE, PPP, MPPE, and the protocol inside it.
const OVERHEAD_MAX: usize = gre::HEADER_LEN_MAX + ppp::HEADER_LEN_MAX + mppe::HEADER_LEN + 2;

const _: () = assert!(OVERHEAD_MAX <= HEADROOM_BYTES);

const PROTOCOL_ALONE: Compression = Compression {
    protocol: false,
    address_control: true,
};

fn push_ppp(slots: &mut impl Slots, frame: &mut Frame, protocol: u16, compression: Compression) {
    push_header(slots, frame, compression.header_len(protocol), |header| {
        compression.emit(protocol, header);
    });
}

/// Numbers the packet, and tells with it what we have received, if that is owed.
fn push_gre(session: &mut Session, slots: &mut impl Slots, frame: &mut Frame, call_id: u16) {
    let gre = GreRepr {
        call_id,
        payload_len: frame.len() as u16,
        sequence: Some(session.sent.take()),
        acknowledgment: session.window.take_acknowledgment(),
    };
    push_header(slots, frame, gre.header_len(), |header| gre.emit(header));
}

/// Callers have checked the headroom against `OVERHEAD_MAX`.
fn push_header(
    slots: &mut impl Slots,
    frame: &mut Frame,
    len: usize,
    emit: impl FnOnce(&mut [u8]),
) {
    let pushed = frame.push_header(len);
    debug_assert!(pushed, "headroom was checked");
    if pushed {
        emit(&mut frame.bytes_mut(slots)[..len]);
    }
}
