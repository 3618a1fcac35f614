//! MPPE written plainly, to measure against; nothing else uses it.
//!
//! One packet at a time, as the kernel's `ppp_mppe` goes about it: SHA-1 by its ordinary interface
//! over the four pieces, RC4 keyed twice for each packet, its state in 32-bit words, its key
//! stream XORed octet by octet. 128-bit stateless keys only.

use sha1::{Digest, Sha1};

/// The chain of session keys of one direction (RFC 3078 7.3).
#[derive(Clone)]
pub struct PlainMppe {
    start_key: [u8; 16],
    session_key: [u8; 16],
    rc4: PlainRc4,
}

impl PlainMppe {
    /// The chain of a start key, at its first session key (RFC 3079 3.3).
    #[must_use]
    pub fn new(start_key: [u8; 16]) -> Self {
        let mut chain = Self {
            start_key,
            session_key: start_key,
            rc4: PlainRc4::new(),
        };
        chain.session_key = chain.digest();
        chain
    }

    /// Moves on to the next session key.
    pub fn rekey(&mut self) -> [u8; 16] {
        let interim = self.digest();
        self.session_key = interim;
        self.rc4.set_key(&interim);
        self.rc4.apply(&mut self.session_key);
        self.session_key
    }

    /// Enciphers one packet under a key of its own.
    pub fn encrypt(&mut self, text: &mut [u8]) {
        let key = self.rekey();
        self.rc4.set_key(&key);
        self.rc4.apply(text);
    }

    fn digest(&self) -> [u8; 16] {
        let mut sha1 = Sha1::new();
        sha1.update(self.start_key);
        sha1.update([0x00; 40]);
        sha1.update(self.session_key);
        sha1.update([0xF2; 40]);
        let digest = sha1.finalize();
        std::array::from_fn(|octet| digest[octet])
    }
}

impl std::fmt::Debug for PlainMppe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainMppe(<hidden>)")
    }
}

/// RC4 as textbooks have it.
#[derive(Clone)]
pub struct PlainRc4 {
    state: [u32; 256],
    i: u8,
    j: u8,
}

impl PlainRc4 {
    /// A cipher without a key.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: [0; 256],
            i: 0,
            j: 0,
        }
    }

    /// Starts the stream of `key`.
    pub fn set_key(&mut self, key: &[u8; 16]) {
        for (i, word) in (0..).zip(&mut self.state) {
            *word = i;
        }
        let mut j = 0_u8;
        for i in 0..=255_u8 {
            let x = self.state[usize::from(i)];
            j = j
                .wrapping_add(x as u8)
                .wrapping_add(key[usize::from(i % 16)]);
            self.state[usize::from(i)] = self.state[usize::from(j)];
            self.state[usize::from(j)] = x;
        }
        self.i = 0;
        self.j = 0;
    }

    /// XORs the next octets of the key stream into `text`.
    pub fn apply(&mut self, text: &mut [u8]) {
        for octet in text {
            self.i = self.i.wrapping_add(1);
            let x = self.state[usize::from(self.i)];
            self.j = self.j.wrapping_add(x as u8);
            let y = self.state[usize::from(self.j)];
            self.state[usize::from(self.j)] = x;
            self.state[usize::from(self.i)] = y;
            *octet ^= self.state[usize::from(x.wrapping_add(y) as u8)] as u8;
        }
    }
}

impl Default for PlainRc4 {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for PlainRc4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainRc4(<hidden>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mppe::keys::{KeyStrength, StartKey};
    use crate::mppe::rekey::KeySchedule;

    #[test]
    fn what_is_measured_does_the_same_work() {
        let start_key = *b"0123456789abcdef";
        let mut chain = PlainMppe::new(start_key);
        let mut schedule = KeySchedule::new(&StartKey::new(KeyStrength::Bits128, &start_key));
        let mut key = schedule.initial();
        for _ in 0..10 {
            key = schedule.next(&key);
            let mut plain = [7; 1400];
            chain.encrypt(&mut plain);
            let mut ours = [7; 1400];
            crate::mppe::rc4::Rc4::new(key.as_bytes()).apply(&mut ours);
            assert_eq!(plain, ours);
        }
    }
}
