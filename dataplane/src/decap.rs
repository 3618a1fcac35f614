//! The way in: GRE packets (RFC 2637 4) become IP packets for TUN, out of MPPE (RFC 3078) or plain,
//! or PPP frames (RFC 1661) for control.
//!
//! Four passes over a batch. *Sort*: outer headers, session, sequence number; what is in order
//! goes on, what is early waits with its session. *Derive*: PPP and MPPE headers, keys in series.
//! *Decipher*: all packets with keys of their own, several abreast. *Judge*: what proves to be a
//! packet commits its key and is delivered.

use crate::counters::DropReason;
use crate::frame::{Frame, Slots};
use crate::limits;
use crate::mppe::cipher_batch::CipherBatch;
use crate::mppe::decryptor::{Decryptor, Derived, Refusal};
use crate::mppe::rc4::{self, Rc4};
use crate::mppe::rekey::Step;
use crate::offload::mss;
use crate::prefix::covers;
use crate::program::{CallId, NetworkSpec, TunId};
use crate::sequence::Place;
use crate::session::{Session, SessionTable};
use crate::wire::gre::GreRepr;
use crate::wire::ipv4::{self, Ipv4Repr};
use crate::wire::ipv6::Ipv6Repr;
use crate::wire::mppe::{self, MppeHeader};
use crate::wire::ppp::{self, PppHeader};

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame is an IP packet: write it to this TUN device.
    Deliver {
        /// Session that it came through.
        call_id: CallId,
        /// Where to.
        tun: TunId,
    },
    /// The frame is a PPP frame that is not the data plane's: hand a copy to control.
    Punt {
        /// Session that it came through.
        call_id: CallId,
    },
    /// It goes no further, and has been counted.
    Drop(DropReason),
    /// A GRE packet without payload: it has done what it came for.
    Consumed,
}

/// One frame and its verdict. Whatever the verdict, the slot belongs to the caller again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The packet that the verdict speaks of.
    pub frame: Frame,
    /// What to do with it.
    pub verdict: Verdict,
}

/// Verdicts in the order of delivery, and what is needed to reach them: all of fixed capacity.
#[derive(Debug)]
pub struct Batch {
    decided: Vec<Decided>,
    arrived: Vec<Arrived>,
}

/// A packet in order, on its way to a verdict.
#[derive(Debug)]
struct Arrived {
    call_id: CallId,
    sequence: u32,
    frame: Frame,
    stage: Stage,
}

/// How far it has come.
#[derive(Debug)]
enum Stage {
    /// `frame` is the PPP frame.
    Sorted,
    /// `frame` is the text of an MPPE packet, deciphered when its turn comes to be judged.
    Derived(Derived),
    /// `frame` is the ciphertext, and its key depends on how others are judged.
    Undecided(MppeHeader),
    /// There is a verdict on `frame`.
    Decided(Verdict),
}

impl Batch {
    /// An empty batch; the only allocation that it ever makes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            decided: Vec::with_capacity(limits::VERDICTS_MAX),
            arrived: Vec::with_capacity(limits::VERDICTS_MAX),
        }
    }

    /// Forgets all verdicts.
    pub fn clear(&mut self) {
        self.decided.clear();
    }

    /// The verdicts.
    #[must_use]
    pub fn as_slice(&self) -> &[Decided] {
        &self.decided
    }

    pub(crate) fn decide(&mut self, frame: Frame, verdict: Verdict) {
        self.decided.push(Decided { frame, verdict });
    }

    fn arrive(&mut self, call_id: CallId, sequence: u32, frame: Frame) {
        self.arrived.push(Arrived {
            call_id,
            sequence,
            frame,
            stage: Stage::Sorted,
        });
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes at most `limits::BATCH_PACKETS` received packets, each beginning with its outer IPv4
/// header as raw sockets deliver it, and appends verdicts to `out`, which must be empty.
///
/// Every slot comes out exactly once: now, or, when the packet is held until an earlier one comes,
/// from a later call of `decap`, [`release_expired`] or [`SessionTable::remove`].
///
/// # Panics
/// When `received` is longer than that, or `out` is not empty.
pub fn decap(
    sessions: &mut SessionTable,
    slots: &mut impl Slots,
    received: &[Frame],
    out: &mut Batch,
    now_ms: u64,
) {
    assert!(received.len() <= limits::BATCH_PACKETS && out.decided.is_empty());
    for frame in received {
        match sort(sessions, slots, *frame, out, now_ms) {
            Ok(Sorted::Kept) => {}
            Ok(Sorted::Consumed) => out.decide(*frame, Verdict::Consumed),
            Err(reason) => {
                sessions.counters().count_drop(reason);
                out.decide(*frame, Verdict::Drop(reason));
            }
        }
    }
    finish(sessions, slots, out, now_ms);
}

/// Gives up the gaps that have been waited for long enough, and appends what was behind them to
/// `out`, which must be empty. Bounded work: true when there is more to do at once.
///
/// # Panics
/// When `out` is not empty.
pub fn release_expired(
    sessions: &mut SessionTable,
    slots: &mut impl Slots,
    out: &mut Batch,
    now_ms: u64,
) -> bool {
    assert!(out.decided.is_empty());
    for _ in 0..limits::BATCH_PACKETS {
        let Some(call_id) = sessions.next_expired(now_ms) else {
            finish(sessions, slots, out, now_ms);
            return false;
        };
        give_up_gap(sessions, call_id, out, now_ms);
        sessions.queue(call_id);
    }
    finish(sessions, slots, out, now_ms);
    true
}

enum Sorted {
    /// It went on, or is held.
    Kept,
    /// There was nothing in it but an acknowledgment.
    Consumed,
}

/// First pass: finds the session of a packet, and its place among the session's packets.
fn sort(
    sessions: &mut SessionTable,
    slots: &mut impl Slots,
    mut frame: Frame,
    out: &mut Batch,
    now_ms: u64,
) -> Result<Sorted, DropReason> {
    let outer = Ipv4Repr::parse(frame.bytes(slots)).map_err(|_| DropReason::BadIpv4)?;
    if outer.protocol != ipv4::PROTOCOL_GRE || outer.is_fragment {
        return Err(DropReason::BadIpv4);
    }
    frame.truncate(outer.total_len);
    let _ = frame.strip_header(outer.header_len);
    let gre = GreRepr::parse(frame.bytes(slots)).map_err(|_| DropReason::BadGre)?;
    let call_id = CallId(gre.call_id);
    let session = sessions.receiver_mut(call_id);
    let session = session.ok_or(DropReason::UnknownCall)?;
    if outer.source != session.peer() {
        return Err(DropReason::WrongPeer);
    }
    session.counters().gre_received.add(1);
    if let Some(acknowledgment) = gre.acknowledgment {
        session.sent.acknowledge(acknowledgment);
    }
    let Some(sequence) = gre.sequence.filter(|_| gre.payload_len > 0) else {
        return Ok(Sorted::Consumed);
    };
    let _ = frame.strip_header(gre.header_len());
    frame.truncate(usize::from(gre.payload_len));

    let result = place(sessions, slots, call_id, sequence, frame, out, now_ms);
    sessions.queue(call_id);
    if let (Err(reason), Some(session)) = (result, sessions.get(call_id)) {
        let counters = session.counters();
        counters.dropped.add(1);
        if matches!(reason, DropReason::Duplicate | DropReason::Late) {
            counters.late_or_duplicate.add(1);
        }
        if reason == DropReason::SequenceJump {
            // Perhaps the gap is one that no key leads across.
            sessions.note_trouble(call_id, now_ms);
        }
    }
    result.map(|()| Sorted::Kept)
}

/// Lets a packet through, keeps it, or drops it, by its sequence number.
fn place(
    sessions: &mut SessionTable,
    slots: &mut impl Slots,
    call_id: CallId,
    sequence: u32,
    frame: Frame,
    out: &mut Batch,
    now_ms: u64,
) -> Result<(), DropReason> {
    while sessions.get(call_id).is_some_and(|session| {
        let wary = session.decryptor.is_some();
        session.window.should_slide(sequence, wary)
    }) {
        give_up_gap(sessions, call_id, out, now_ms);
    }
    let may_hold = sessions.held_count < limits::HELD_PACKETS_MAX;
    let session = sessions.get_mut(call_id).ok_or(DropReason::UnknownCall)?;
    let held_before = session.window.held_count();
    let mut ready = |sequence, frame| out.arrive(call_id, sequence, frame);
    match session.window.place(sequence) {
        Place::Next => {
            if session.window.accept(sequence, frame, now_ms, &mut ready) {
                session.counters().reordered.add(1);
            }
        }
        Place::Early => {
            session.window.hold(sequence, slots.keep(frame), now_ms);
            if !may_hold {
                // Too many are held already: this session does not wait.
                let lost = session.window.give_up_gap(now_ms, &mut ready);
                session.counters().lost.add(lost);
            }
        }
        Place::Duplicate => return Err(DropReason::Duplicate),
        Place::Late => return Err(DropReason::Late),
        Place::Far => {
            if !is_jump_true(session, slots, sequence, frame, now_ms) {
                return Err(DropReason::SequenceJump);
            }
            let lost = session.window.jump(sequence, frame, now_ms, &mut ready);
            session.counters().lost.add(lost);
        }
    }
    let held_after = session.window.held_count();
    sessions.held_count = sessions.held_count + held_after - held_before;
    Ok(())
}

/// A packet that decrypts vouches for its number itself; others need company, and in a session
/// that has a key, clear ones are suspicious.
fn is_jump_true(
    session: &mut Session,
    slots: &impl Slots,
    sequence: u32,
    frame: Frame,
    now_ms: u64,
) -> bool {
    let Some(decryptor) = &mut session.decryptor else {
        return session.window.confirm(sequence, false, now_ms);
    };
    let bytes = frame.bytes(slots);
    let encrypted = PppHeader::parse(bytes).filter(|ppp| ppp.protocol == ppp::COMPRESSED);
    match encrypted {
        Some(ppp) if decryptor.is_stateless() => {
            let packet = &bytes[ppp.len..];
            let vouched = MppeHeader::parse(packet).is_some_and(|header| {
                decryptor.vouch(header, &packet[mppe::HEADER_LEN..], sequence, now_ms)
            });
            if !vouched {
                decryptor.fail(now_ms);
            }
            vouched
        }
        _ => session
            .window
            .confirm(sequence, encrypted.is_none(), now_ms),
    }
}

fn give_up_gap(sessions: &mut SessionTable, call_id: CallId, out: &mut Batch, now_ms: u64) {
    let Some(session) = sessions.get_mut(call_id) else {
        return;
    };
    let held_before = session.window.held_count();
    let lost = session.window.give_up_gap(now_ms, &mut |sequence, frame| {
        out.arrive(call_id, sequence, frame);
    });
    session.counters().lost.add(lost);
    let released = held_before - session.window.held_count();
    sessions.held_count -= released;
}

/// The passes after the first.
fn finish(sessions: &mut SessionTable, slots: &mut impl Slots, out: &mut Batch, now_ms: u64) {
    let mut ciphers = CipherBatch::new();
    for several in out.arrived.chunks_mut(rc4::LANES_MAX) {
        let call_ids = several.iter().map(|packet| packet.call_id);
        let steps = sessions.step_abreast(call_ids, |session| session.decryptor.as_mut()?.chain());
        for (packet, step) in several.iter_mut().zip(&steps) {
            packet.stage = match sessions.get_mut(packet.call_id) {
                Some(session) => {
                    derive(session, step.as_ref(), slots, packet, &mut ciphers, now_ms)
                }
                None => Stage::Decided(Verdict::Drop(DropReason::UnknownCall)),
            };
        }
    }
    ciphers.run(slots);

    for mut packet in out.arrived.drain(..) {
        let Some(session) = sessions.get_mut(packet.call_id) else {
            continue;
        };
        let verdict = judge(session, slots, &mut packet, now_ms);
        let verdict = within_limits(session, verdict, &packet.frame, now_ms);
        count(session, &verdict, &packet.frame);
        if let (Verdict::Deliver { .. }, Some(mtu)) = (&verdict, session.clamp_mtu) {
            mss::clamp(packet.frame.bytes_mut(slots), mtu);
        }
        let in_trouble = matches!(verdict, Verdict::Drop(_)) && session.decryptor.is_some();
        if let Verdict::Drop(reason) = verdict {
            sessions.counters().count_drop(reason);
            if reason == DropReason::QuotaSpent {
                sessions.note_quota(packet.call_id);
            }
        }
        if in_trouble {
            sessions.note_trouble(packet.call_id, now_ms);
        }
        out.decided.push(Decided {
            frame: packet.frame,
            verdict,
        });
    }
}

/// Drops what is more than the session may carry. What is for control always passes.
fn within_limits(session: &mut Session, verdict: Verdict, frame: &Frame, now_ms: u64) -> Verdict {
    let Some(allowance) = &mut session.allowance else {
        return verdict;
    };
    if !matches!(verdict, Verdict::Deliver { .. }) {
        return verdict;
    }
    match allowance.receive(frame.len() as u64, &session.counters, now_ms) {
        Ok(()) => verdict,
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Second pass: takes the PPP and MPPE headers off, and finds the key. What has to be deciphered
/// goes into `ciphers`, but for what has its key stream ready and is deciphered at once.
fn derive(
    session: &mut Session,
    step: Option<&Step>,
    slots: &mut impl Slots,
    packet: &mut Arrived,
    ciphers: &mut CipherBatch,
    now_ms: u64,
) -> Stage {
    let drop = |reason| Stage::Decided(Verdict::Drop(reason));
    let Some(ppp) = PppHeader::parse(packet.frame.bytes(slots)) else {
        return drop(DropReason::BadPpp);
    };
    if ppp.protocol != ppp::COMPRESSED {
        let verdict = network_verdict(session, slots, &mut packet.frame, ppp, false);
        return Stage::Decided(verdict);
    }
    let Some(decryptor) = &mut session.decryptor else {
        return drop(DropReason::NoReceiveKey);
    };
    let _ = packet.frame.strip_header(ppp.len);
    let Some(header) = MppeHeader::parse(packet.frame.bytes(slots)) else {
        return drop(DropReason::BadMppe);
    };
    let _ = packet.frame.strip_header(mppe::HEADER_LEN);

    if decryptor.is_stateless() {
        return match decryptor.derive_with(step, header, packet.sequence, now_ms) {
            Ok(derived) => {
                let text = packet.frame.bytes_mut(slots);
                let is_deciphered = decryptor.decipher_prepared(&derived, text);
                session
                    .counters
                    .received_prepared
                    .add(u64::from(is_deciphered));
                if !is_deciphered {
                    ciphers.push(slots, packet.frame, derived.key());
                }
                Stage::Derived(derived)
            }
            Err(Refusal::Undecided) => Stage::Undecided(header),
            Err(Refusal::Drop(reason)) => {
                decryptor.fail(now_ms);
                drop(reason)
            }
        };
    }
    match decryptor.decrypt_next(header, packet.frame.bytes_mut(slots), now_ms) {
        Ok(()) => Stage::Decided(deciphered_verdict(session, slots, &mut packet.frame)),
        Err(reason) => drop(reason),
    }
}

/// Last pass: what deciphered to a packet commits its key, and what had to wait for that is
/// deciphered now.
fn judge(
    session: &mut Session,
    slots: &mut impl Slots,
    packet: &mut Arrived,
    now_ms: u64,
) -> Verdict {
    let Some(decryptor) = &mut session.decryptor else {
        return match packet.stage {
            Stage::Decided(verdict) => verdict,
            _ => Verdict::Drop(DropReason::NoReceiveKey),
        };
    };
    let text = packet.frame.bytes_mut(slots);
    let proved = match packet.stage {
        Stage::Decided(verdict) => return verdict,
        Stage::Sorted => Err(DropReason::BadPpp),
        Stage::Undecided(header) => decrypt_again(decryptor, header, packet.sequence, text, now_ms),
        Stage::Derived(derived) => {
            if decryptor.prove(&derived, text, now_ms) {
                Ok(derived.skipped)
            } else if decryptor.was_misled(&derived) {
                // The same stream once more undoes it.
                Rc4::new(derived.key().as_bytes()).apply(text);
                decrypt_again(decryptor, derived.header(), packet.sequence, text, now_ms)
            } else {
                Err(DropReason::BadPlaintext)
            }
        }
    };
    match proved {
        Ok(skipped) => {
            session.counters().keys_skipped.add(u64::from(skipped));
            deciphered_verdict(session, slots, &mut packet.frame)
        }
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Deciphers and judges one packet by itself; returns how many keys were skipped for it.
fn decrypt_again(
    decryptor: &mut Decryptor,
    header: MppeHeader,
    sequence: u32,
    text: &mut [u8],
    now_ms: u64,
) -> Result<u32, DropReason> {
    let derived = decryptor
        .derive_again(header, sequence, now_ms)
        .inspect_err(|_| decryptor.fail(now_ms))?;
    Rc4::new(derived.key().as_bytes()).apply(text);
    if decryptor.prove(&derived, text, now_ms) {
        Ok(derived.skipped)
    } else {
        Err(DropReason::BadPlaintext)
    }
}

/// What to do with a plaintext that has been found to be a packet.
fn deciphered_verdict(session: &Session, slots: &impl Slots, frame: &mut Frame) -> Verdict {
    match PppHeader::parse_protocol(frame.bytes(slots)) {
        Some(ppp) => network_verdict(session, slots, frame, ppp, true),
        None => Verdict::Drop(DropReason::BadPlaintext),
    }
}

/// What to do with a PPP frame in clear text, by its protocol.
fn network_verdict(
    session: &Session,
    slots: &impl Slots,
    frame: &mut Frame,
    ppp: PppHeader,
    was_encrypted: bool,
) -> Verdict {
    let call_id = session.call_id();
    // Protocols from 4000 on negotiate and control (RFC 1661 2); below are datagrams.
    if ppp.protocol >= 0x4000 {
        return Verdict::Punt { call_id };
    }
    let Some(network) = session.network() else {
        return Verdict::Drop(DropReason::NetworkClosed);
    };
    if network.require_encryption && !was_encrypted {
        return Verdict::Drop(DropReason::ClearForbidden);
    }
    let mut inner = *frame;
    let _ = inner.strip_header(ppp.len);
    let packet = inner.bytes(slots);
    let judged = match ppp.protocol {
        ppp::IPV4 => judge_ipv4(session, network, packet),
        ppp::IPV6 => judge_ipv6(session, network, packet),
        _ => return Verdict::Punt { call_id },
    };
    match judged {
        Ok(total_len) => inner.truncate(total_len),
        Err(reason) => return Verdict::Drop(reason),
    }
    *frame = inner;
    Verdict::Deliver {
        call_id,
        tun: network.tun,
    }
}

/// Octets of an IPv4 packet that may be let in.
fn judge_ipv4(
    session: &Session,
    network: &NetworkSpec,
    packet: &[u8],
) -> Result<usize, DropReason> {
    let ipv4 = Ipv4Repr::parse(packet).map_err(|_| DropReason::BadInnerIp)?;
    if network.check_source
        && ipv4.source != network.peer
        && !session.networks.iter().any(|it| covers(*it, ipv4.source))
    {
        return Err(DropReason::InnerSource);
    }
    Ok(ipv4.total_len)
}

/// Octets of an IPv6 packet that may be let in.
fn judge_ipv6(
    session: &Session,
    network: &NetworkSpec,
    packet: &[u8],
) -> Result<usize, DropReason> {
    let spec = session.ipv6.ok_or(DropReason::NetworkClosed)?;
    let ipv6 = Ipv6Repr::parse(packet).ok_or(DropReason::BadInnerIp)?;
    if network.check_source && ipv6.source != spec.peer {
        return Err(DropReason::InnerSource);
    }
    Ok(ipv6.total_len)
}

fn count(session: &Session, verdict: &Verdict, frame: &Frame) {
    let counters = session.counters();
    match verdict {
        Verdict::Deliver { .. } => {
            counters.received_packets.add(1);
            counters.received_bytes.add(frame.len() as u64);
        }
        Verdict::Drop(_) => counters.dropped.add(1),
        Verdict::Punt { .. } | Verdict::Consumed => {}
    }
}
