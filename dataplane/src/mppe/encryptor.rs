//! The sending half of MPPE (RFC 3078 5 to 8).

use std::sync::Arc;

use zeroize::Zeroize;

use super::keys::{KeyMode, SessionKey, StartKey};
use super::look_ahead::{LookAhead, Mark, Workshop};
use super::rc4::Rc4;
use super::rekey::{KeySchedule, Step};
use crate::snapshot::{EncryptorSnapshot, Hidden};
use crate::wire::mppe::{COHERENCY_COUNTS, MppeHeader};

/// Keys and counts of the direction from us to the peer.
#[derive(Debug)]
pub struct Encryptor {
    schedule: KeySchedule,
    key: SessionKey,
    coherency_count: u16,
    /// Stateful: the cipher that runs on from packet to packet.
    running: Option<Box<Rc4>>,
    reset: bool,
    /// See [`Self::skip`].
    skip: u32,
    /// Changes of the key: the place of `key` in the chain.
    changes: u64,
    ahead: Option<LookAhead>,
}

/// How the next packet is enciphered.
#[derive(Clone, Copy, Debug)]
pub enum Cipher {
    /// Stateless: from the start of this key's stream, whenever it suits.
    Own(SessionKey),
    /// Stateful: with [`Encryptor::encrypt_next`], before the next packet is prepared.
    Running,
    /// Stateless, and the key stream is ready: likewise.
    Prepared,
}

impl Encryptor {
    /// The state before the first packet, whose coherency count is 0.
    #[must_use]
    pub fn new(start_key: &StartKey, mode: KeyMode) -> Self {
        let mut schedule = KeySchedule::new(start_key);
        let key = schedule.initial();
        Self {
            schedule,
            key,
            coherency_count: 0,
            running: match mode {
                KeyMode::Stateless => None,
                KeyMode::Stateful => Some(Box::new(Rc4::new(key.as_bytes()))),
            },
            reset: false,
            skip: 0,
            changes: 0,
            ahead: None,
        }
    }

    /// Where it is, for another process.
    #[must_use]
    pub fn snapshot(&self) -> EncryptorSnapshot {
        let start_key = self.schedule.start_key();
        EncryptorSnapshot {
            strength: start_key.strength(),
            start_key: Hidden::new(start_key.as_bytes()),
            key: Hidden::new(self.key.as_bytes()),
            index: self.changes,
            coherency_count: self.coherency_count,
            running: self
                .running
                .as_ref()
                .map(|rc4| Hidden::from(rc4.position())),
            reset: self.reset,
            skip: self.skip,
        }
    }

    /// One that goes on from there; `None` when a length is wrong.
    #[must_use]
    pub fn restore(snapshot: &EncryptorSnapshot) -> Option<Self> {
        let start_key = snapshot.start_key.as_start_key(snapshot.strength)?;
        let mut encryptor = Self::new(&start_key, KeyMode::Stateless);
        encryptor.key = SessionKey::from_bytes(snapshot.key.as_bytes())?;
        encryptor.changes = snapshot.index;
        encryptor.coherency_count = snapshot.coherency_count % COHERENCY_COUNTS;
        if let Some(position) = &snapshot.running {
            encryptor.running = Some(Box::new(Rc4::at_position(position.as_bytes())?));
        }
        encryptor.reset = snapshot.reset;
        encryptor.skip = snapshot.skip;
        Some(encryptor)
    }

    /// Leaves out the keys of so many packets, which somebody else may have sent. That is done with
    /// the next packet: a session that sends none pays nothing.
    pub const fn skip(&mut self, packets: u32) {
        self.skip = self.skip.saturating_add(packets);
    }

    fn skip_now(&mut self) {
        let packets = std::mem::take(&mut self.skip);
        let changes = match &self.running {
            None => packets,
            Some(_) => {
                // The packets that the peer has not got may have been anything.
                self.reset = true;
                (u32::from(self.coherency_count & 0x00FF) + packets) >> 8
            }
        };
        for _ in 0..changes {
            self.key = self.schedule.next(&self.key);
        }
        self.changes += u64::from(changes);
        let count = (u32::from(self.coherency_count) + packets) % u32::from(COHERENCY_COUNTS);
        self.coherency_count = count as u16;
    }

    /// Stateless: has the key streams prepared from now on. False when `workshop` has no room.
    pub fn look_ahead(&mut self, workshop: &Arc<Workshop>) -> bool {
        if self.running.is_none() && self.ahead.is_none() {
            self.ahead = LookAhead::begin(workshop, &self.schedule, self.mark());
            return self.ahead.is_some();
        }
        true
    }

    /// Moves keys and counts on to the next packet.
    ///
    /// Stateless: every packet has the next key (RFC 3078 7.1), also the first, and the flushed
    /// bit. Stateful: the key changes with every flag packet, whose count ends in FF (7.2), and
    /// flag packets carry the flushed bit, because the peers in the field insist on it.
    pub fn prepare(&mut self) -> (MppeHeader, Cipher) {
        self.prepare_with(None)
    }

    /// The same; `step` may be the next step of the chain, taken already.
    pub fn prepare_with(&mut self, step: Option<&Step>) -> (MppeHeader, Cipher) {
        if self.skip > 0 {
            self.skip_now();
        }
        if self.reset {
            // After a Reset-Request, peers disagree on whether the flushed packet has the current
            // key (RFC 3078 8.2) or the next one (ppp_mppe). In a flag packet it has the next key
            // for all of them, so the count is moved on to the next flag packet: to the peer the
            // packets between were lost too.
            self.coherency_count |= 0x00FF;
            self.reset = false;
        }
        let coherency_count = self.coherency_count;
        self.coherency_count = (coherency_count + 1) % COHERENCY_COUNTS;
        let is_flag = coherency_count & 0x00FF == 0x00FF;

        let flushed = self.running.is_none() || is_flag;
        let mut is_ready = false;
        if flushed {
            let ready = self.take_ahead();
            is_ready = ready.is_some();
            self.key = match (ready, step) {
                (Some(key), _) => key,
                (None, Some(step)) if step.from == self.key => step.to,
                _ => self.schedule.next(&self.key),
            };
            self.changes += 1;
            let mark = self.mark();
            if let Some(ahead) = self.ahead.as_mut().filter(|_| !is_ready) {
                ahead.pass(&mark);
            }
        }
        let cipher = match &mut self.running {
            None if is_ready => Cipher::Prepared,
            None => Cipher::Own(self.key),
            Some(running) => {
                if flushed {
                    **running = Rc4::new(self.key.as_bytes());
                }
                Cipher::Running
            }
        };
        let header = MppeHeader {
            flushed,
            encrypted: true,
            coherency_count,
        };
        (header, cipher)
    }

    /// The chain of keys and the latest of them, when the next packet takes the next one.
    pub(crate) const fn chain(&mut self) -> Option<(&mut KeySchedule, SessionKey)> {
        match (&self.running, &self.ahead) {
            (None, None) => Some((&mut self.schedule, self.key)),
            _ => None,
        }
    }

    /// Enciphers the packet just prepared as [`Cipher::Running`] or [`Cipher::Prepared`].
    pub fn encrypt_next(&mut self, text: &mut [u8]) {
        if let Some(running) = &mut self.running {
            running.apply(text);
        } else if let Some(ahead) = &self.ahead
            && !ahead.apply(self.changes, text)
        {
            // It is longer than what is prepared.
            Rc4::new(self.key.as_bytes()).apply(text);
        }
    }

    /// The next key, if it is ready, and its key stream with it.
    fn take_ahead(&mut self) -> Option<SessionKey> {
        let mark = self.mark();
        let ahead = self.ahead.as_mut()?;
        ahead.pass(&mark);
        let next = ahead.nearest(mark.index + 1)?;
        (next.index == mark.index + 1).then_some(next.key)
    }

    const fn mark(&self) -> Mark {
        Mark {
            index: self.changes,
            key: self.key,
        }
    }

    /// The peer has lost its place (CCP Reset-Request): the next packet starts afresh. Stateless
    /// packets all do.
    pub const fn reset(&mut self) {
        self.reset = self.running.is_some();
    }
}

impl Drop for Encryptor {
    fn drop(&mut self) {
        self.key.zeroize();
        if let Some(running) = &mut self.running {
            running.zeroize();
        }
    }
}
