//! The receiving half of MPPE (RFC 3078 5 to 8).
//!
//! Nothing authenticates a packet, so keys move on in two steps: a packet's key is derived from
//! the *pending* position, and only what proves to be a packet commits it. A batch of packets can
//! be derived before the first of them is deciphered; when one proves false, those that it made
//! look late are tried again from the *committed* position.

use std::sync::Arc;

use zeroize::Zeroize;

use super::keys::{KeyMode, SessionKey, StartKey};
use super::look_ahead::{LookAhead, Mark, Workshop};
use super::plaintext::{self, EVIDENCE_LEN};
use super::rc4::Rc4;
use super::rekey::{KeySchedule, Step};
use crate::counters::DropReason;
use crate::limits;
use crate::snapshot::{DecryptorSnapshot, Hidden};
use crate::wire::mppe::{COHERENCY_COUNTS, MppeHeader};

/// A place in the chain of keys: the key of the packet with this coherency count.
#[derive(Clone, Copy, Debug)]
struct Position {
    key: SessionKey,
    /// Steps from the first key of the chain to this one.
    index: u64,
    coherency_count: u16,
    /// GRE sequence number of that packet; `None` before the first.
    sequence: Option<u32>,
}

impl Position {
    const fn mark(&self) -> Mark {
        Mark {
            index: self.index,
            key: self.key,
        }
    }
}

/// The key of one packet, and the place that it commits when it proves good.
#[derive(Clone, Copy, Debug)]
pub struct Derived {
    position: Position,
    /// The key from which this one was derived.
    base: SessionKey,
    /// Keys derived and not used by any packet seen.
    pub skipped: u32,
}

impl Derived {
    /// What deciphers the packet.
    #[must_use]
    pub const fn key(&self) -> SessionKey {
        self.position.key
    }

    /// The header of the packet that it was derived for.
    #[must_use]
    pub const fn header(&self) -> MppeHeader {
        MppeHeader {
            flushed: true,
            encrypted: true,
            coherency_count: self.position.coherency_count,
        }
    }
}

/// Why no key was derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The packet is behind another one that is not proved yet: try again when it is.
    Undecided,
    /// It cannot be deciphered.
    Drop(DropReason),
}

/// What the peer must be told, or control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Stateful: a CCP Reset-Request is due.
    ResetNeeded,
    /// Nothing decrypts any more.
    Lost,
}

/// Keys and counts of the direction from the peer to us.
#[derive(Debug)]
pub struct Decryptor {
    schedule: KeySchedule,
    committed: Position,
    pending: Position,
    ahead: Option<LookAhead>,
    /// Stateful: the cipher that runs on from packet to packet.
    running: Option<Box<Rc4>>,
    budget: Budget,
    failures: u32,
    /// When a packet last proved good, or the first failure before any did.
    good_ms: Option<u64>,
    lost_reported: bool,
    reset_needed: bool,
    reset_reported_ms: Option<u64>,
}

impl Decryptor {
    /// The state before the first packet, whose coherency count is 0.
    #[must_use]
    pub fn new(start_key: &StartKey, mode: KeyMode) -> Self {
        let mut schedule = KeySchedule::new(start_key);
        let start = Position {
            key: schedule.initial(),
            index: 0,
            coherency_count: COHERENCY_COUNTS - 1,
            sequence: None,
        };
        Self {
            schedule,
            committed: start,
            pending: start,
            ahead: None,
            running: match mode {
                KeyMode::Stateless => None,
                KeyMode::Stateful => Some(Box::new(Rc4::new(start.key.as_bytes()))),
            },
            budget: Budget::default(),
            failures: 0,
            good_ms: None,
            lost_reported: false,
            reset_needed: false,
            reset_reported_ms: None,
        }
    }

    /// Where it is, for another process.
    #[must_use]
    pub fn snapshot(&self) -> DecryptorSnapshot {
        let start_key = self.schedule.start_key();
        DecryptorSnapshot {
            strength: start_key.strength(),
            start_key: Hidden::new(start_key.as_bytes()),
            key: Hidden::new(self.committed.key.as_bytes()),
            index: self.committed.index,
            coherency_count: self.committed.coherency_count,
            sequence: self.committed.sequence,
            running: self
                .running
                .as_ref()
                .map(|rc4| Hidden::from(rc4.position())),
            reset_needed: self.reset_needed,
        }
    }

    /// One that goes on from there; `None` when a length is wrong.
    #[must_use]
    pub fn restore(snapshot: &DecryptorSnapshot) -> Option<Self> {
        let start_key = snapshot.start_key.as_start_key(snapshot.strength)?;
        let mut decryptor = Self::new(&start_key, KeyMode::Stateless);
        decryptor.committed = Position {
            key: SessionKey::from_bytes(snapshot.key.as_bytes())?,
            index: snapshot.index,
            coherency_count: snapshot.coherency_count % COHERENCY_COUNTS,
            sequence: snapshot.sequence,
        };
        decryptor.pending = decryptor.committed;
        if let Some(position) = &snapshot.running {
            decryptor.running = Some(Box::new(Rc4::at_position(position.as_bytes())?));
        }
        decryptor.reset_needed = snapshot.reset_needed;
        Some(decryptor)
    }

    /// Stateless: has the key streams prepared from now on. False when `workshop` has no room.
    pub fn look_ahead(&mut self, workshop: &Arc<Workshop>) -> bool {
        if self.running.is_none() && self.ahead.is_none() {
            let mark = self.committed.mark();
            self.ahead = LookAhead::begin(workshop, &self.schedule, mark);
            return self.ahead.is_some();
        }
        true
    }

    /// Whether every packet has a key of its own, to be had from [`Self::derive`]; otherwise
    /// packets go through [`Self::decrypt_next`] in order.
    #[must_use]
    pub const fn is_stateless(&self) -> bool {
        self.running.is_none()
    }

    /// The chain of keys and the latest of them, when the next packet takes the next one.
    pub(crate) const fn chain(&mut self) -> Option<(&mut KeySchedule, SessionKey)> {
        match (&self.running, &self.ahead) {
            (None, None) => Some((&mut self.schedule, self.pending.key)),
            _ => None,
        }
    }

    /// Stateless: derives the key of a packet, and moves the pending position to it. `sequence` is
    /// the packet's GRE sequence number, which tells how often the count wrapped in an outage.
    ///
    /// # Errors
    /// When the packet is behind another that is not yet proved, or its key is out of reach.
    pub fn derive(
        &mut self,
        header: MppeHeader,
        sequence: u32,
        now_ms: u64,
    ) -> Result<Derived, Refusal> {
        self.derive_with(None, header, sequence, now_ms)
    }

    /// The same; `step` may be the next step of the chain, taken already.
    ///
    /// # Errors
    /// As [`Self::derive`].
    pub fn derive_with(
        &mut self,
        step: Option<&Step>,
        header: MppeHeader,
        sequence: u32,
        now_ms: u64,
    ) -> Result<Derived, Refusal> {
        let derived = self.derive_from(self.pending, step, header, sequence, now_ms)?;
        self.pending = derived.position;
        Ok(derived)
    }

    /// The same from the committed position, for a packet that was refused as undecided or was
    /// misled: all packets before it have proved good or false by now.
    ///
    /// # Errors
    /// When its key is out of reach.
    pub fn derive_again(
        &mut self,
        header: MppeHeader,
        sequence: u32,
        now_ms: u64,
    ) -> Result<Derived, DropReason> {
        self.pending = self.committed;
        match self.derive_from(self.committed, None, header, sequence, now_ms) {
            Ok(derived) => Ok(derived),
            Err(Refusal::Drop(reason)) => Err(reason),
            Err(Refusal::Undecided) => Err(DropReason::BadMppe),
        }
    }

    fn derive_from(
        &mut self,
        from: Position,
        step: Option<&Step>,
        header: MppeHeader,
        sequence: u32,
        now_ms: u64,
    ) -> Result<Derived, Refusal> {
        // RFC 3078 3.1: stateless packets always have the flushed bit.
        if !header.encrypted || !header.flushed {
            return Err(Refusal::Drop(DropReason::BadMppe));
        }
        let distance = distance(from.coherency_count, header.coherency_count);
        let undecided = from.key != self.committed.key;
        // A packet that is not proved is trusted with a few steps; behind it, or far ahead of it,
        // the next one may come from somewhere else.
        if undecided && (distance == 0 || u32::from(distance) > limits::KEYS_SKIPPED_FREE) {
            return Err(Refusal::Undecided);
        }

        let mut steps = u32::from(distance);
        let sent = from.sequence.map_or(0, |last| sequence.wrapping_sub(last));
        if sent < 1 << 31 {
            // Every encrypted packet takes a sequence number: more of them than counts there are
            // means that the count went around.
            steps += sent.saturating_sub(steps) / u32::from(COHERENCY_COUNTS)
                * u32::from(COHERENCY_COUNTS);
        }
        let Some(skipped) = steps.checked_sub(1) else {
            return Err(Refusal::Drop(DropReason::BadMppe));
        };
        if skipped > limits::KEYS_SKIPPED_MAX || !self.budget.spend(skipped, now_ms) {
            return Err(Refusal::Drop(DropReason::KeyBudget));
        }
        let index = from.index + u64::from(steps);
        Ok(Derived {
            position: Position {
                key: self.key_at(index, from.mark(), step),
                index,
                coherency_count: header.coherency_count,
                sequence: Some(sequence),
            },
            base: from.key,
            skipped,
        })
    }

    /// The key at place `index`, found from the one at `from` or nearer.
    fn key_at(&mut self, index: u64, from: Mark, step: Option<&Step>) -> SessionKey {
        let ahead = self.ahead.as_mut().and_then(|ahead| ahead.nearest(index));
        let Mark { index: at, mut key } = match (ahead, step) {
            (Some(mark), _) if mark.index > from.index => mark,
            (_, Some(step)) if step.from == from.key && from.index < index => Mark {
                index: from.index + 1,
                key: step.to,
            },
            _ => from,
        };
        for _ in at..index {
            key = self.schedule.next(&key);
        }
        key
    }

    /// Deciphers a packet, if its key stream has been prepared. False, and nothing has happened,
    /// otherwise.
    pub fn decipher_prepared(&self, derived: &Derived, text: &mut [u8]) -> bool {
        let ahead = self.ahead.as_ref();
        ahead.is_some_and(|ahead| ahead.apply(derived.position.index, text))
    }

    /// Judges a deciphered packet. Good: commits its key. False: nothing has happened, but that
    /// the failure is remembered.
    pub fn prove(&mut self, derived: &Derived, plain: &[u8], now_ms: u64) -> bool {
        let expected = derived.skipped == 0;
        let proved = plaintext::is_packet(plain, plain.len(), expected);
        if proved {
            self.committed = derived.position;
            if let Some(ahead) = &mut self.ahead {
                ahead.pass(&self.committed.mark());
            }
            self.succeed(now_ms);
        } else {
            self.fail(now_ms);
        }
        // Whatever was derived from here in this batch is derived already.
        self.pending = self.committed;
        proved
    }

    /// Whether a packet that did not prove good was derived from one that did not either, so that
    /// [`Self::derive_again`] may find another key for it.
    #[must_use]
    pub fn was_misled(&self, derived: &Derived) -> bool {
        derived.base != self.committed.key
    }

    /// Stateless: whether a packet far out of sequence is the peer's, without touching it or any
    /// state but the budget.
    pub fn vouch(&mut self, header: MppeHeader, cipher: &[u8], sequence: u32, now_ms: u64) -> bool {
        let Ok(derived) = self.derive_from(self.committed, None, header, sequence, now_ms) else {
            return false;
        };
        let mut copy = [0; EVIDENCE_LEN];
        let evidence = &mut copy[..cipher.len().min(EVIDENCE_LEN)];
        evidence.copy_from_slice(&cipher[..evidence.len()]);
        Rc4::new(derived.position.key.as_bytes()).apply(evidence);
        let vouched = plaintext::is_packet(evidence, cipher.len(), false);
        if vouched {
            // The same keys are derived once more when the packet's turn comes.
            self.budget.refund(derived.skipped);
        }
        vouched
    }

    /// Stateful: deciphers the next packet in place, or refuses it and keeps its state.
    ///
    /// # Errors
    /// The reason to drop it. A packet out of order needs a reset ([`Self::trouble`]).
    pub fn decrypt_next(
        &mut self,
        header: MppeHeader,
        text: &mut [u8],
        now_ms: u64,
    ) -> Result<(), DropReason> {
        let Some(running) = &mut self.running else {
            return Err(DropReason::BadMppe);
        };
        if !header.encrypted {
            return Err(DropReason::BadMppe);
        }
        let next = (self.committed.coherency_count + 1) % COHERENCY_COUNTS;
        let is_flag = header.coherency_count & 0x00FF == 0x00FF;
        if header.flushed || is_flag {
            return self.decrypt_flushed(header, next, text, now_ms);
        }
        if header.coherency_count != next {
            // The peer goes on without us; but a packet that follows still counts, for this one
            // may be forged.
            self.reset_needed = true;
            return Err(DropReason::AwaitingFlush);
        }

        let before = Rc4::clone(running);
        running.apply(text);
        if !plaintext::is_packet(text, text.len(), true) {
            **running = before;
            self.fail(now_ms);
            return Err(DropReason::BadPlaintext);
        }
        self.committed.coherency_count = header.coherency_count;
        self.succeed(now_ms);
        Ok(())
    }

    /// A packet that starts afresh (RFC 3078 8.2): first the key changes of flag packets that were
    /// lost. A flag packet changes the key itself. In any other flushed packet, the RFC keeps the
    /// current key and ppp_mppe takes the next one: whichever makes sense of it is right.
    fn decrypt_flushed(
        &mut self,
        header: MppeHeader,
        next: u16,
        text: &mut [u8],
        now_ms: u64,
    ) -> Result<(), DropReason> {
        let is_flag = header.coherency_count & 0x00FF == 0x00FF;
        let missed_flags = ((next & 0x00FF) + distance(next, header.coherency_count)) >> 8;
        let expected = header.coherency_count == next;
        let mut key = self.committed.key;
        for _ in 0..missed_flags + u16::from(is_flag) {
            key = self.schedule.next(&key);
        }
        let attempts = if is_flag { 1 } else { 2 };
        for attempt in 0..attempts {
            let mut rc4 = Rc4::new(key.as_bytes());
            rc4.apply(text);
            if plaintext::is_packet(text, text.len(), expected && attempt == 0) {
                self.committed.key = key;
                self.committed.coherency_count = header.coherency_count;
                if let Some(running) = &mut self.running {
                    **running = rc4;
                }
                self.succeed(now_ms);
                return Ok(());
            }
            // The same stream once more undoes it.
            Rc4::new(key.as_bytes()).apply(text);
            key = self.schedule.next(&key);
        }
        self.fail(now_ms);
        Err(DropReason::BadPlaintext)
    }

    /// What is wrong, once for each time that it must be told.
    pub fn trouble(&mut self, now_ms: u64) -> Option<Trouble> {
        let due = self
            .reset_reported_ms
            .is_none_or(|last| now_ms >= last + limits::RESET_REQUEST_INTERVAL_MS);
        if self.reset_needed && due {
            self.reset_reported_ms = Some(now_ms);
            return Some(Trouble::ResetNeeded);
        }
        let silent = self
            .good_ms
            .is_some_and(|good| now_ms >= good + limits::MPPE_LOST_MS);
        if self.failures >= limits::MPPE_FAILURES_MAX && silent && !self.lost_reported {
            self.lost_reported = true;
            return Some(Trouble::Lost);
        }
        None
    }

    /// A packet was refused for want of keys.
    pub fn fail(&mut self, now_ms: u64) {
        self.good_ms.get_or_insert(now_ms);
        self.failures = self.failures.saturating_add(1);
        // A running cipher that makes no sense has lost its place.
        self.reset_needed |= self.running.is_some();
    }

    const fn succeed(&mut self, now_ms: u64) {
        self.good_ms = Some(now_ms);
        self.failures = 0;
        self.lost_reported = false;
        self.reset_needed = false;
        self.reset_reported_ms = None;
    }
}

impl Drop for Decryptor {
    fn drop(&mut self) {
        self.committed.key.zeroize();
        self.pending.key.zeroize();
        if let Some(running) = &mut self.running {
            running.zeroize();
        }
    }
}

/// Steps from one coherency count to another, around the wrap.
const fn distance(from: u16, to: u16) -> u16 {
    (to + COHERENCY_COUNTS - from) % COHERENCY_COUNTS
}

/// Keys that may still be skipped: what a forger can make us compute is bounded in time.
#[derive(Debug, Default)]
struct Budget {
    since_ms: u64,
    spent: u32,
}

impl Budget {
    const fn spend(&mut self, keys: u32, now_ms: u64) -> bool {
        if keys <= limits::KEYS_SKIPPED_FREE {
            return true;
        }
        let intervals = now_ms.saturating_sub(self.since_ms) / limits::KEY_BUDGET_INTERVAL_MS;
        self.since_ms += intervals * limits::KEY_BUDGET_INTERVAL_MS;
        let earned = intervals.saturating_mul(limits::KEY_BUDGET as u64);
        self.spent = if earned < self.spent as u64 {
            self.spent - earned as u32
        } else {
            0
        };
        if keys > limits::KEYS_SKIPPED_MAX - self.spent {
            return false;
        }
        self.spent += keys;
        true
    }

    const fn refund(&mut self, keys: u32) {
        if keys > limits::KEYS_SKIPPED_FREE {
            self.spent = self.spent.saturating_sub(keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::encryptor::{Cipher, Encryptor};
    use super::super::keys::KeyStrength;
    use super::*;

    fn start_key() -> StartKey {
        StartKey::new(KeyStrength::Bits128, b"0123456789abcdef")
    }

    fn both(mode: KeyMode) -> (Encryptor, Decryptor) {
        (
            Encryptor::new(&start_key(), mode),
            Decryptor::new(&start_key(), mode),
        )
    }

    /// Protocol 0021 and an IPv4 packet of 20 octets.
    fn plain() -> Vec<u8> {
        hex::decode("0021450000144e554000402fd7c90a4d00010a4d0002").expect("hex")
    }

    fn encrypt(encryptor: &mut Encryptor) -> (MppeHeader, Vec<u8>) {
        let mut text = plain();
        let (header, cipher) = encryptor.prepare();
        match cipher {
            Cipher::Own(key) => Rc4::new(key.as_bytes()).apply(&mut text),
            Cipher::Running | Cipher::Prepared => encryptor.encrypt_next(&mut text),
        }
        (header, text)
    }

    #[test]
    fn the_sample_plaintext_is_a_packet() {
        assert!(plaintext::is_packet(&plain(), plain().len(), false));
    }

    #[test]
    fn stateless_headers_count_from_zero_and_are_always_flushed() {
        let (mut encryptor, mut decryptor) = both(KeyMode::Stateless);
        for number in 0..3 * u32::from(COHERENCY_COUNTS) {
            let (header, mut text) = encrypt(&mut encryptor);
            assert_eq!(u32::from(header.coherency_count), number % 4096);
            assert!(header.flushed && header.encrypted);
            let derived = decryptor.derive(header, number, 0).expect("in order");
            assert_eq!(derived.skipped, 0);
            Rc4::new(derived.key().as_bytes()).apply(&mut text);
            assert!(decryptor.prove(&derived, &text, 0));
        }
    }

    #[test]
    fn stateless_packets_without_their_bits_are_dropped() {
        let (mut encryptor, mut decryptor) = both(KeyMode::Stateless);
        let (header, _) = encrypt(&mut encryptor);
        for header in [
            MppeHeader {
                flushed: false,
                ..header
            },
            MppeHeader {
                encrypted: false,
                ..header
            },
        ] {
            let refusal = decryptor.derive(header, 1, 0).expect_err("bits missing");
            assert_eq!(refusal, Refusal::Drop(DropReason::BadMppe));
        }
    }

    #[test]
    fn stateful_packets_flow_and_only_flag_packets_are_flushed() {
        let (mut encryptor, mut decryptor) = both(KeyMode::Stateful);
        for number in 0..5000_u32 {
            let (header, mut text) = encrypt(&mut encryptor);
            assert_eq!(header.flushed, header.coherency_count % 256 == 255);
            assert_eq!(decryptor.decrypt_next(header, &mut text, 0), Ok(()));
            assert_eq!(text, plain(), "packet {number}");
        }
    }

    #[test]
    fn a_lost_stateful_packet_asks_for_a_reset_once_in_a_while() {
        let (mut encryptor, mut decryptor) = both(KeyMode::Stateful);
        encrypt(&mut encryptor);
        for now_ms in [0, 1] {
            let (header, mut text) = encrypt(&mut encryptor);
            let result = decryptor.decrypt_next(header, &mut text, now_ms);
            assert_eq!(result, Err(DropReason::AwaitingFlush));
        }
        assert_eq!(decryptor.trouble(1), Some(Trouble::ResetNeeded));
        assert_eq!(decryptor.trouble(2), None);
        let again_ms = 1 + limits::RESET_REQUEST_INTERVAL_MS;
        assert_eq!(decryptor.trouble(again_ms), Some(Trouble::ResetNeeded));

        encryptor.reset();
        let (header, mut text) = encrypt(&mut encryptor);
        assert!(header.flushed);
        assert_eq!(decryptor.decrypt_next(header, &mut text, 3), Ok(()));
        assert_eq!(text, plain());
        assert_eq!(decryptor.trouble(5000), None);
    }

    /// What other senders do on a Reset-Request: the flushed bit in an ordinary packet, under the
    /// current key (RFC 3078 8.2) or the next (`key_changes`).
    fn flushed_by_peer(key_changes: bool, flags_lost: u32) {
        let mut decryptor = Decryptor::new(&start_key(), KeyMode::Stateful);
        let mut schedule = KeySchedule::new(&start_key());
        let mut key = schedule.initial();
        for _ in 0..flags_lost + u32::from(key_changes) {
            key = schedule.next(&key);
        }
        let mut running = Rc4::new(key.as_bytes());
        let first = 256 * flags_lost as u16 + 7;
        for coherency_count in first..first + 10 {
            let mut text = plain();
            running.apply(&mut text);
            let header = MppeHeader {
                flushed: coherency_count == first,
                encrypted: true,
                coherency_count,
            };
            assert_eq!(decryptor.decrypt_next(header, &mut text, 0), Ok(()));
            assert_eq!(text, plain());
        }
    }

    #[test]
    fn flushed_packets_of_both_schools_are_read() {
        for flags_lost in [0, 1, 2, 9] {
            flushed_by_peer(false, flags_lost);
            flushed_by_peer(true, flags_lost);
        }
    }

    #[test]
    fn a_forged_stateful_packet_leaves_no_trace() {
        let (mut encryptor, mut decryptor) = both(KeyMode::Stateful);
        for forged_flushed in [false, true] {
            let (header, mut text) = encrypt(&mut encryptor);
            let forged = MppeHeader {
                flushed: forged_flushed,
                ..header
            };
            let result = decryptor.decrypt_next(forged, &mut [0x5A; 60], 0);
            assert_eq!(result, Err(DropReason::BadPlaintext));
            assert_eq!(decryptor.decrypt_next(header, &mut text, 0), Ok(()));
        }
    }

    #[test]
    fn only_lasting_failure_is_called_lost() {
        let (_, mut decryptor) = both(KeyMode::Stateless);
        for _ in 0..limits::MPPE_FAILURES_MAX {
            decryptor.fail(100);
        }
        assert_eq!(decryptor.trouble(100), None);
        let lost_ms = 100 + limits::MPPE_LOST_MS;
        assert_eq!(decryptor.trouble(lost_ms), Some(Trouble::Lost));
        assert_eq!(decryptor.trouble(lost_ms), None, "told once");
    }

    #[test]
    fn an_outage_of_fifty_thousand_packets_is_caught_up_with_at_once() {
        let (mut encryptor, mut decryptor) = both(KeyMode::Stateless);
        let (header, mut text) = encrypt(&mut encryptor);
        let first = decryptor.derive(header, 1, 0).expect("the first packet");
        Rc4::new(first.key().as_bytes()).apply(&mut text);
        assert!(decryptor.prove(&first, &text, 0));
        for _ in 0..50_000 {
            encryptor.prepare();
        }
        let (header, text) = encrypt(&mut encryptor);
        assert!(decryptor.vouch(header, &text, 50_002, 0));
        let derived = decryptor
            .derive(header, 50_002, 0)
            .expect("within the budget");
        assert_eq!(derived.skipped, 50_000);
    }

    #[test]
    fn skipping_many_keys_is_bounded_in_time() {
        let (_, mut decryptor) = both(KeyMode::Stateless);
        let mut refused = 0;
        for forged in 0..200 {
            let header = MppeHeader {
                flushed: true,
                encrypted: true,
                coherency_count: 2000,
            };
            match decryptor.derive_again(header, forged, 0) {
                Ok(derived) => assert!(!decryptor.prove(&derived, &[0x5A; 60], 0)),
                Err(reason) => {
                    assert_eq!(reason, DropReason::KeyBudget);
                    refused += 1;
                }
            }
        }
        assert_eq!(200 - refused, limits::KEYS_SKIPPED_MAX / 2000);
    }
}
