//! The baseline that the benchmarks hold the data plane against: MPPE as the kernel's `ppp_mppe`
//! does it. One packet at a time: SHA-1 by its ordinary interface, the key set up twice, RC4 octet
//! by octet. Only for 128-bit stateless keys, and without any checks.

use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};

/// The chain of session keys of one direction (RFC 3078 7.3).
#[derive(Clone, Debug)]
pub struct PlainMppe {
    start_key: [u8; 16],
    session_key: [u8; 16],
}

impl PlainMppe {
    /// The chain of a start key, at its first session key (RFC 3079 3.3).
    #[must_use]
    pub fn new(start_key: [u8; 16]) -> Self {
        let mut chain = Self {
            start_key,
            session_key: start_key,
        };
        chain.session_key = chain.digest();
        chain
    }

    /// Moves on to the next session key.
    pub fn rekey(&mut self) -> [u8; 16] {
        let interim = self.digest();
        self.session_key = interim;
        rc4(&interim, &mut self.session_key);
        self.session_key
    }

    /// Enciphers one packet under a key of its own.
    pub fn encrypt(&mut self, text: &mut [u8]) {
        let key = self.rekey();
        rc4(&key, text);
    }

    fn digest(&self) -> [u8; 16] {
        let digest = Sha1::new()
            .chain_update(self.start_key)
            .chain_update([0x00; 40])
            .chain_update(self.session_key)
            .chain_update([0xF2; 40])
            .finalize();
        std::array::from_fn(|octet| digest[octet])
    }
}

/// RC4 from the start of the key's stream.
pub fn rc4(key: &[u8; 16], text: &mut [u8]) {
    let mut cipher = Rc4::new_from_slice(key).expect("RC4 takes keys of 1 to 256 octets");
    cipher.apply_keystream(text);
}
