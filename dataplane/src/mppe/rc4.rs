//! RC4, one packet at a time or several abreast.
//!
//! RC4 is one long chain of dependent loads, so a core that runs one stream mostly waits. Packets
//! with keys of their own (stateless MPPE) are independent: [`apply_lanes`] advances `N` of them
//! in turn and fills the waiting time. The state holds 32-bit words, which today's cores store and
//! reload faster than octets, and the key stream is gathered into 8 octets before it meets the
//! data. Indices are octets and the arrays have 256 words: no bounds check is left.

/// Lanes that a batch runs abreast: more do not fit the registers.
pub const LANES: usize = 3;

type State = [u32; 256];

const IDENTITY: State = {
    let mut state = [0; 256];
    let mut i = 0;
    while i < 256 {
        state[i] = i as u32;
        i += 1;
    }
    state
};

/// One RC4 stream.
#[derive(Clone)]
pub struct Rc4 {
    state: State,
    i: u8,
    j: u8,
}

impl Rc4 {
    /// Starts the stream of `key`. A key twice in a row is the same key: MPPE's 8-octet keys may
    /// come doubled.
    #[must_use]
    pub fn new<const L: usize>(key: &[u8; L]) -> Self {
        let [state] = schedule([key]);
        Self { state, i: 0, j: 0 }
    }

    /// XORs the next octets of the key stream into `data`.
    pub fn apply(&mut self, data: &mut [u8]) {
        let (words, tail) = data.as_chunks_mut::<8>();
        for word in words {
            let mut stream = [0; 8];
            for octet in &mut stream {
                *octet = self.next_octet();
            }
            *word = (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(stream)).to_ne_bytes();
        }
        for octet in tail {
            *octet ^= self.next_octet();
        }
    }

    #[inline(always)]
    fn next_octet(&mut self) -> u8 {
        self.i = self.i.wrapping_add(1);
        step(&mut self.state, self.i, &mut self.j)
    }
}

impl std::fmt::Debug for Rc4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rc4(<hidden>)")
    }
}

impl zeroize::Zeroize for Rc4 {
    fn zeroize(&mut self) {
        self.state.zeroize();
        self.i = 0;
        self.j = 0;
    }
}

/// Enciphers `N` packets from the start of their streams, abreast as far as the shortest goes and
/// one by one from there: pass packets of like length together.
pub fn apply_lanes<const L: usize, const N: usize>(keys: [&[u8; L]; N], data: [&mut [u8]; N]) {
    let mut states = schedule(keys);
    let parts = data.map(|lane| lane.as_chunks_mut::<8>());
    let common = parts.iter().map(|(words, _)| words.len()).min();
    let (mut i, mut js) = (0_u8, [0_u8; N]);

    for index in 0..common.unwrap_or(0) {
        let mut streams = [0_u64; N];
        for shift in 0..8 {
            i = i.wrapping_add(1);
            for lane in 0..N {
                let octet = step(&mut states[lane], i, &mut js[lane]);
                streams[lane] |= u64::from(octet) << (8 * shift);
            }
        }
        for lane in 0..N {
            let word = &mut parts[lane].0[index];
            *word = (u64::from_le_bytes(*word) ^ streams[lane]).to_le_bytes();
        }
    }

    for ((state, j), (words, tail)) in states.into_iter().zip(js).zip(parts) {
        let mut rest = Rc4 { state, i, j };
        rest.apply(words[common.unwrap_or(0)..].as_flattened_mut());
        rest.apply(tail);
    }
}

/// The key-scheduling algorithm, for `N` keys abreast.
#[inline(always)]
fn schedule<const L: usize, const N: usize>(keys: [&[u8; L]; N]) -> [State; N] {
    let mut states = [IDENTITY; N];
    let mut js = [0_u8; N];
    for i in 0..=255_u8 {
        for lane in 0..N {
            let state = &mut states[lane];
            let x = state[usize::from(i)];
            let j = js[lane]
                .wrapping_add(x as u8)
                .wrapping_add(keys[lane][usize::from(i) % L]);
            js[lane] = j;
            state[usize::from(i)] = state[usize::from(j)];
            state[usize::from(j)] = x;
        }
    }
    states
}

/// One octet of key stream.
#[inline(always)]
fn step(state: &mut State, i: u8, j: &mut u8) -> u8 {
    let x = state[usize::from(i)];
    *j = j.wrapping_add(x as u8);
    let y = state[usize::from(*j)];
    state[usize::from(*j)] = x;
    state[usize::from(i)] = y;
    state[usize::from(x.wrapping_add(y) as u8)] as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rc4::{KeyInit, StreamCipher};

    use super::*;

    fn oracle(key: &[u8; 16], data: &mut [u8]) {
        rc4::Rc4::new_from_slice(key)
            .expect("a key of 16 octets")
            .apply_keystream(data);
    }

    fn check_stream<const L: usize>(expected: &[(usize, &str)]) {
        let key: [u8; L] = std::array::from_fn(|i| i as u8 + 1);
        let mut stream = vec![0; 4112];
        Rc4::new(&key).apply(&mut stream);
        for (offset, octets) in expected {
            let octets = hex::decode(octets).expect("hex");
            assert_eq!(stream[*offset..*offset + 16], octets, "{L} at {offset}");
        }
    }

    #[test]
    fn key_streams_of_rfc_6229_come_out() {
        check_stream::<5>(&[
            (0, "b2396305f03dc027ccc3524a0a1118a8"),
            (16, "6982944f18fc82d589c403a47a0d0919"),
            (240, "28cb1132c96ce286421dcaadb8b69eae"),
            (256, "1cfcf62b03eddb641d77dfcf7f8d8c93"),
            (4096, "ff25b58995996707e51fbdf08b34d875"),
        ]);
        check_stream::<7>(&[
            (0, "293f02d47f37c9b633f2af5285feb46b"),
            (16, "e620f1390d19bd84e2e0fd752031afc1"),
        ]);
        check_stream::<8>(&[
            (0, "97ab8a1bf0afb96132f2f67258da15a8"),
            (16, "8263efdb45c4a18684ef87e6b19e5b09"),
        ]);
        check_stream::<16>(&[
            (0, "9ac7cc9a609d1ef7b2932899cde41b97"),
            (16, "5248c4959014126a6e8a84f11d1a9e1c"),
            (240, "065902e4b620f6cc36c8589f66432f2b"),
            (4096, "a36a4c301ae8ac13610ccbc12256cacc"),
        ]);
    }

    #[test]
    fn a_key_twice_in_a_row_is_the_same_key() {
        let once = [0xD1, 0x26, 0x9E, 4, 5, 6, 7, 8];
        let mut twice = [0; 16];
        twice[..8].copy_from_slice(&once);
        twice[8..].copy_from_slice(&once);
        let (mut a, mut b) = ([0; 300], [0; 300]);
        Rc4::new(&once).apply(&mut a);
        Rc4::new(&twice).apply(&mut b);
        assert_eq!(a, b);
    }

    proptest! {
        #[test]
        fn one_stream_agrees_with_another_implementation(
            key: [u8; 16],
            mut data in proptest::collection::vec(any::<u8>(), 0..2000),
            cut in 0..2000_usize,
        ) {
            let mut expected = data.clone();
            oracle(&key, &mut expected);
            let cut = cut.min(data.len());
            let mut rc4 = Rc4::new(&key);
            rc4.apply(&mut data[..cut]);
            rc4.apply(&mut data[cut..]);
            prop_assert_eq!(data, expected);
        }

        #[test]
        fn lanes_agree_with_another_implementation(
            keys: [[u8; 16]; 4],
            lens in proptest::array::uniform4(0..1500_usize),
        ) {
            let mut data = lens.map(|len| (0..len).map(|i| i as u8).collect::<Vec<_>>());
            let mut expected = data.clone();
            for (key, lane) in keys.iter().zip(&mut expected) {
                oracle(key, lane);
            }
            let mut three = data.clone();
            let [a, b, c, d] = &mut data;
            apply_lanes(keys.each_ref(), [a, b, c, d]);
            prop_assert_eq!(&data, &expected);
            let [a, b, c, _] = &mut three;
            let [j, k, l, _] = keys.each_ref();
            apply_lanes([j, k, l], [a, b, c]);
            prop_assert_eq!(&three[..3], &expected[..3]);
        }
    }
}
