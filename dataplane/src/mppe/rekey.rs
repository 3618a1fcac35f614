//! The chain of session keys of one direction (RFC 3078 7.3, GetNewKeyFromSHA).
//!
//! A step is one SHA-1 over start key, pad, session key, pad, and one RC4 of the digest under
//! itself. The message has always the same length, so it is kept padded, as the two blocks that
//! SHA-1 sees, and a step writes only the session key into them.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::keys::{KeyStrength, SessionKey, StartKey};
use super::rc4;

const PAD_LEN: usize = 40;
const PAD1: u8 = 0x00;
const PAD2: u8 = 0xF2;

/// Initial state of SHA-1 (FIPS 180-4 5.3.1).
const SHA1_INITIAL: [u32; 5] = [
    0x6745_2301,
    0xEFCD_AB89,
    0x98BA_DCFE,
    0x1032_5476,
    0xC3D2_E1F0,
];

/// Derives the session keys of one direction, one from another.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeySchedule {
    blocks: [[u8; 64]; 2],
    #[zeroize(skip)]
    strength: KeyStrength,
}

impl KeySchedule {
    /// The schedule of a start key.
    #[must_use]
    pub fn new(start_key: &StartKey) -> Self {
        let strength = start_key.strength();
        let key_len = strength.key_len();
        let message_len = 2 * (key_len + PAD_LEN);

        let mut blocks = [[0; 64]; 2];
        let message = blocks.as_flattened_mut();
        message[..key_len].copy_from_slice(start_key.as_bytes());
        message[key_len..key_len + PAD_LEN].fill(PAD1);
        message[message_len - PAD_LEN..message_len].fill(PAD2);
        // SHA-1 ends a message with one bit and its length in bits (FIPS 180-4 5.1.1).
        message[message_len] = 0x80;
        message[120..].copy_from_slice(&(message_len as u64 * 8).to_be_bytes());
        Self { blocks, strength }
    }

    /// The start key that it was made of.
    #[must_use]
    pub fn start_key(&self) -> StartKey {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.blocks[0][..16]);
        let start_key = StartKey::new(self.strength, &octets);
        octets.zeroize();
        start_key
    }

    /// The first session key (RFC 3079 3.1 to 3.3).
    #[must_use]
    pub fn initial(&mut self) -> SessionKey {
        let mut start_key = [0; 16];
        let key_len = self.strength.key_len();
        start_key[..key_len].copy_from_slice(&self.blocks[0][..key_len]);
        let digest = self.digest(&start_key);
        SessionKey::reduce(self.strength, &digest)
    }

    /// The session key that follows `key`.
    #[must_use]
    pub fn next(&mut self, key: &SessionKey) -> SessionKey {
        let interim = self.interim(key);
        let [stream] = rc4::first_octets([interim.as_bytes()]);
        interim.enciphered(self.strength, &stream)
    }

    /// The digest that is enciphered under itself.
    fn interim(&mut self, key: &SessionKey) -> SessionKey {
        let digest = self.digest(key.as_bytes());
        match self.strength {
            KeyStrength::Bits128 => SessionKey::whole(&digest),
            KeyStrength::Bits40 | KeyStrength::Bits56 => SessionKey::doubled(&digest),
        }
    }

    /// The first 16 octets of GetNewKeyFromSHA's digest, of which 8-octet keys use half.
    fn digest(&mut self, session_key: &[u8; 16]) -> [u8; 16] {
        let key_len = self.strength.key_len();
        let at = key_len + PAD_LEN;
        self.blocks.as_flattened_mut()[at..at + key_len].copy_from_slice(&session_key[..key_len]);

        let mut state = SHA1_INITIAL;
        sha1::block_api::compress(&mut state, &self.blocks);
        let mut digest = [0; 16];
        for (octets, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
            *octets = word.to_be_bytes();
        }
        digest
    }
}

/// A key, and the one that follows it in its chain.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The key that is known.
    pub from: SessionKey,
    /// Its successor.
    pub to: SessionKey,
}

/// Steps of several chains taken together: SHA-1 in series, RC4 abreast, which is faster than one
/// chain after another.
#[derive(Debug)]
pub struct StepsAbreast {
    /// Once `run`, the keys that the steps lead to.
    steps: [Step; rc4::LANES_MAX],
    strengths: [KeyStrength; rc4::LANES_MAX],
    len: usize,
}

impl StepsAbreast {
    /// No chain.
    #[must_use]
    pub const fn new() -> Self {
        const NOWHERE: SessionKey = SessionKey::whole(&[0; 16]);
        let step = Step {
            from: NOWHERE,
            to: NOWHERE,
        };
        Self {
            steps: [step; rc4::LANES_MAX],
            strengths: [KeyStrength::Bits128; rc4::LANES_MAX],
            len: 0,
        }
    }

    /// Begins the step that follows `key`, and returns its number, from 0.
    ///
    /// # Panics
    /// After [`rc4::LANES_MAX`] of them.
    pub fn begin(&mut self, schedule: &mut KeySchedule, key: &SessionKey) -> usize {
        let lane = self.len;
        self.steps[lane] = Step {
            from: *key,
            to: schedule.interim(key),
        };
        self.strengths[lane] = schedule.strength;
        self.len += 1;
        lane
    }

    /// Ends all steps.
    pub fn run(&mut self) -> &[Step] {
        match self.len {
            0 => {}
            1 => self.finish::<1>(),
            2 => self.finish::<2>(),
            3 => self.finish::<3>(),
            _ => self.finish::<{ rc4::LANES_MAX }>(),
        }
        &self.steps[..self.len]
    }

    fn finish<const N: usize>(&mut self) {
        let interims = std::array::from_fn::<_, N, _>(|lane| self.steps[lane].to);
        let streams = rc4::first_octets(interims.each_ref().map(SessionKey::as_bytes));
        for (lane, (interim, stream)) in interims.iter().zip(&streams).enumerate() {
            self.steps[lane].to = interim.enciphered(self.strengths[lane], stream);
        }
    }
}

impl Default for StepsAbreast {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for KeySchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySchedule({:?}, <hidden>)", self.strength)
    }
}

#[cfg(test)]
mod tests {
    use ::rc4::{KeyInit, StreamCipher};
    use proptest::prelude::*;
    use sha1::{Digest, Sha1};

    use super::*;
    use crate::mppe::rc4::Rc4;

    fn start_key(strength: KeyStrength, hex: &str) -> StartKey {
        let octets = hex::decode(hex).expect("hex");
        let mut padded = [0; 16];
        padded[..octets.len()].copy_from_slice(&octets);
        StartKey::new(strength, &padded)
    }

    /// `start` in hexadecimal, the session key and the sample message under it.
    fn check_sample(strength: KeyStrength, start: &str, session: &str, message: &str) {
        let key = KeySchedule::new(&start_key(strength, start)).initial();
        let key_len = strength.key_len();
        assert_eq!(hex::encode(&key.as_bytes()[..key_len]), session);
        let mut text = *b"test message";
        Rc4::new(key.as_bytes()).apply(&mut text);
        assert_eq!(hex::encode(text), message);
    }

    #[test]
    fn samples_of_rfc_3079_3_5_come_out() {
        check_sample(
            KeyStrength::Bits40,
            "8b7cdc149b993a1b",
            "d1269ec49fa62e3e",
            "929137917e5803d668d75898",
        );
        check_sample(
            KeyStrength::Bits56,
            "8b7cdc149b993a1b",
            "d15c00c49fa62e3e",
            // The RFC prints 58 as the last octet. Every implementation of RC4 says B8.
            "3f106833fa448da842bc57b8",
        );
        check_sample(
            KeyStrength::Bits128,
            "8b7cdc149b993a1ba118cb153f56dccb",
            "405cb2247a7956e6e211007ae27b22d4",
            "81848317df68846272fb5abe",
        );
    }

    #[test]
    fn samples_of_rfc_3079_2_5_come_out() {
        for (strength, start, session) in [
            (KeyStrength::Bits40, "76a152936096d783", "d1269e538cec4a08"),
            (KeyStrength::Bits56, "76a152936096d783", "d10801538cec4a08"),
            (
                KeyStrength::Bits128,
                "a8947850cfc0acc1d1789fb62ddcddb0",
                "59d159bc09f76f1da2a86a28ffec0b1e",
            ),
        ] {
            let key = KeySchedule::new(&start_key(strength, start)).initial();
            assert_eq!(hex::encode(&key.as_bytes()[..strength.key_len()]), session);
        }
    }

    /// The RFC's text word for word, with other implementations of both algorithms.
    fn plain_step(strength: KeyStrength, start: &[u8], session: &[u8]) -> Vec<u8> {
        let mut sha1 = Sha1::new();
        sha1.update(start);
        sha1.update([0x00; 40]);
        sha1.update(session);
        sha1.update([0xF2; 40]);
        let interim = sha1.finalize()[..strength.key_len()].to_vec();
        let mut key = interim.clone();
        ::rc4::Rc4::new_from_slice(&interim)
            .expect("a key of 8 or 16 octets")
            .apply_keystream(&mut key);
        match strength {
            KeyStrength::Bits40 => key[..3].copy_from_slice(&[0xD1, 0x26, 0x9E]),
            KeyStrength::Bits56 => key[0] = 0xD1,
            KeyStrength::Bits128 => {}
        }
        key
    }

    proptest! {
        #[test]
        fn the_chain_is_the_rfc_text(octets: [u8; 16]) {
            for strength in [KeyStrength::Bits40, KeyStrength::Bits56, KeyStrength::Bits128] {
                let start_key = StartKey::new(strength, &octets);
                let mut schedule = KeySchedule::new(&start_key);
                let mut key = schedule.initial();
                for _ in 0..20 {
                    let old = &key.as_bytes()[..strength.key_len()];
                    let expected = plain_step(strength, start_key.as_bytes(), old);
                    key = schedule.next(&key);
                    prop_assert_eq!(&key.as_bytes()[..strength.key_len()], &expected[..]);
                }
            }
        }

        #[test]
        fn steps_abreast_are_those_of_each_chain_alone(
            chains in proptest::collection::vec((0..3_usize, any::<[u8; 16]>()), 0..=4),
        ) {
            const STRENGTHS: [KeyStrength; 3] =
                [KeyStrength::Bits40, KeyStrength::Bits56, KeyStrength::Bits128];
            let mut steps = StepsAbreast::new();
            let mut expected = Vec::new();
            for (strength, octets) in &chains {
                let start_key = StartKey::new(STRENGTHS[*strength], octets);
                let mut schedule = KeySchedule::new(&start_key);
                let key = schedule.initial();
                steps.begin(&mut schedule, &key);
                expected.push((key, schedule.next(&key)));
            }
            let taken: Vec<_> = steps.run().iter().map(|step| (step.from, step.to)).collect();
            prop_assert_eq!(taken, expected);
        }
    }
}
