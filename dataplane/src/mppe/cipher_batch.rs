//! Packets with keys of their own, gathered to be enciphered abreast.
//!
//! The longest come first, so that all lanes end at about the same time.

use super::keys::SessionKey;
use super::rc4::{self, Packets};
use crate::frame::{Frame, Slots};
use crate::limits;

#[derive(Clone, Copy)]
struct Job {
    text: Frame,
    key: SessionKey,
}

/// Frames still to be enciphered or deciphered, each from the start of its own key's stream.
pub struct CipherBatch {
    jobs: [Job; limits::BATCH_PACKETS],
    len: usize,
}

impl CipherBatch {
    /// An empty batch, on the stack.
    #[must_use]
    pub const fn new() -> Self {
        let nothing = Job {
            text: Frame {
                slot: crate::frame::Slot(0),
                start: 0,
                end: 0,
            },
            key: SessionKey::whole(&[0; 16]),
        };
        Self {
            jobs: [nothing; limits::BATCH_PACKETS],
            len: 0,
        }
    }

    /// Adds the octets `text`; no two frames of a batch share a slot. A full batch runs first.
    pub fn push(&mut self, slots: &mut impl Slots, text: Frame, key: SessionKey) {
        if self.len == self.jobs.len() {
            self.run(slots);
        }
        self.jobs[self.len] = Job { text, key };
        self.len += 1;
    }

    /// Enciphers all, in place, and empties the batch.
    pub fn run(&mut self, slots: &mut impl Slots) {
        let jobs = &mut self.jobs[..self.len];
        jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.text.len()));
        rc4::encipher(&mut Texts { jobs, slots });
        self.len = 0;
    }
}

/// Jobs, and where their octets are.
struct Texts<'a, S> {
    jobs: &'a [Job],
    slots: &'a mut S,
}

impl<S: Slots> Packets for Texts<'_, S> {
    fn count(&self) -> usize {
        self.jobs.len()
    }

    fn key(&self, index: usize) -> &[u8; 16] {
        self.jobs[index].key.as_bytes()
    }

    fn text(&mut self, index: usize) -> &mut [u8] {
        self.jobs[index].text.bytes_mut(self.slots)
    }
}

impl Default for CipherBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for CipherBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CipherBatch({} frames)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Slot, VecArena};
    use crate::mppe::rc4::Rc4;

    #[test]
    fn every_frame_is_enciphered_once_under_its_own_key() {
        for count in [0, 1, 2, 3, 4, 5, 64, 65, 100_usize] {
            let mut arena = VecArena::new(100, 512);
            let mut batch = CipherBatch::new();
            let mut expected = Vec::new();
            for n in 0..count {
                let key = SessionKey::whole(&[n as u8; 16]);
                let text = vec![n as u8; n * 37 % 400];
                let frame = arena.fill(Slot(n as u16), 50, &text);
                let mut cipher = text;
                Rc4::new(key.as_bytes()).apply(&mut cipher);
                expected.push((frame, cipher));
                batch.push(&mut arena, frame, key);
            }
            batch.run(&mut arena);
            for (frame, cipher) in expected {
                assert_eq!(frame.bytes(&arena), cipher, "of {count}");
                assert_eq!(&arena.slot(frame.slot)[..50], &[0; 50]);
            }
        }
    }
}
