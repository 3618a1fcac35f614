//! RC4, one stream at a time or several packets abreast.
//!
//! RC4 is one long chain of dependent loads, so a core that runs one stream mostly waits. Packets
//! with keys of their own (stateless MPPE) are independent: [`encipher`] advances some of them in
//! turn and fills the waiting time. State is kept in 32-bit words, which cores store and reload
//! faster than octets. What is here runs everywhere: indices are octets and arrays have 256 words,
//! so no bounds check is left. `x86_64` does the same in assembly, about twice as fast.

mod lanes;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use lanes::{Packets, encipher, encipher_with, first_octets};
#[cfg(target_arch = "x86_64")]
pub use x86_64::Sse41;

use zeroize::Zeroize;

/// Lanes of any implementation, at most.
pub const LANES_MAX: usize = 4;

/// Octets of key stream that lanes advance by: `i` of every lane is a multiple.
const STREAM_STEP: usize = 16;

/// Octets of key stream that are generated before they meet the data: few enough to stay in the
/// first-level cache beside the states and the packets.
const STREAM_BYTES: usize = 512;

const _: () = assert!(STREAM_BYTES.is_multiple_of(STREAM_STEP));

/// S: a permutation of the octets, or at least octets. Assembly relies on it.
#[derive(Clone)]
#[repr(C, align(64))]
struct State([u32; 256]);

impl State {
    const IDENTITY: Self = {
        let mut words = [0; 256];
        let mut i = 0;
        while i < 256 {
            words[i] = i as u32;
            i += 1;
        }
        Self(words)
    };
}

/// Where a stream is.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Place {
    i: u8,
    j: u8,
}

/// The memory of all lanes.
#[repr(C, align(64))]
struct Bank {
    states: [State; LANES_MAX],
    streams: [[u8; STREAM_BYTES]; LANES_MAX],
    keys: [[u8; 16]; LANES_MAX],
    places: [Place; LANES_MAX],
}

impl Bank {
    const fn new() -> Self {
        Self {
            states: [State::IDENTITY; LANES_MAX],
            streams: [[0; STREAM_BYTES]; LANES_MAX],
            keys: [[0; 16]; LANES_MAX],
            places: [Place { i: 0, j: 0 }; LANES_MAX],
        }
    }
}

/// An implementation of RC4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Rust, for all machines.
    Portable,
    /// Assembly for x86-64 with SSE4.1.
    #[cfg(target_arch = "x86_64")]
    X86_64(Sse41),
}

impl Kernel {
    /// The fastest one that this machine runs.
    #[must_use]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(sse41) = Sse41::detect() {
            return Self::X86_64(sse41);
        }
        Self::Portable
    }

    /// Packets abreast: more do not fit the registers, or gain nothing.
    #[must_use]
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable => 2,
            #[cfg(target_arch = "x86_64")]
            Self::X86_64(_) => 4,
        }
    }

    /// A name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::X86_64(_) => "x86_64 asm",
        }
    }

    /// Begins the streams of the first `active` lanes under their `keys`.
    fn schedule(self, bank: &mut Bank, active: usize) {
        bank.states[..active].fill(State::IDENTITY);
        bank.places[..active].fill(Place::default());
        match self {
            Self::Portable => schedule(bank, active),
            #[cfg(target_arch = "x86_64")]
            Self::X86_64(sse41) => sse41.schedule(bank, active),
        }
    }

    /// Begins one stream; `state` is the identity.
    fn schedule_one(self, state: &mut State, key: &[u8; 16]) {
        match self {
            Self::Portable => schedule_one(state, key),
            #[cfg(target_arch = "x86_64")]
            Self::X86_64(sse41) => sse41.schedule_one(state, key),
        }
    }

    /// Writes the next `octets` octets of key stream of the first `active` lanes to the end of
    /// their `streams`; a positive multiple of `STREAM_STEP`, at most `STREAM_BYTES`.
    fn generate(self, bank: &mut Bank, active: usize, octets: usize) {
        match self {
            Self::Portable => generate(bank, active, octets),
            #[cfg(target_arch = "x86_64")]
            Self::X86_64(sse41) => sse41.generate(bank, active, octets),
        }
    }
}

/// One RC4 stream.
#[derive(Clone)]
pub struct Rc4 {
    state: State,
    place: Place,
    kernel: Kernel,
}

impl Rc4 {
    /// Starts the stream of `key`. Shorter keys are repeated: RC4 cannot tell a key from the same
    /// key several times in a row.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        Self::with_kernel(Kernel::best(), key)
    }

    fn with_kernel(kernel: Kernel, key: &[u8; 16]) -> Self {
        let mut rc4 = Self {
            state: State::IDENTITY,
            place: Place::default(),
            kernel,
        };
        kernel.schedule_one(&mut rc4.state, key);
        rc4
    }

    /// Where the stream is: S, i and j, `Self::POSITION_LEN` octets.
    #[must_use]
    pub fn position(&self) -> Vec<u8> {
        let words = self.state.0.iter().map(|word| *word as u8);
        words.chain([self.place.i, self.place.j]).collect()
    }

    /// Octets of [`Self::position`].
    pub const POSITION_LEN: usize = 256 + 2;

    /// The stream that goes on from there; `None` when the length is wrong.
    #[must_use]
    pub fn at_position(position: &[u8]) -> Option<Self> {
        let (octets, [i, j]) = position.split_first_chunk::<256>().and_then(|(s, rest)| {
            let place: [u8; 2] = rest.try_into().ok()?;
            Some((s, place))
        })?;
        Some(Self {
            state: State(octets.map(u32::from)),
            place: Place { i, j },
            kernel: Kernel::best(),
        })
    }

    /// XORs the next octets of the key stream into `data`.
    pub fn apply(&mut self, data: &mut [u8]) {
        let unaligned = usize::from(self.place.i.wrapping_neg() % 8);
        let (head, rest) = data.split_at_mut(unaligned.min(data.len()));
        self.apply_octets(head);
        let (words, tail) = rest.as_chunks_mut::<8>();
        match self.kernel {
            Kernel::Portable => self.apply_words(words),
            #[cfg(target_arch = "x86_64")]
            Kernel::X86_64(sse41) => {
                for word in words {
                    let stream = sse41.generate_one(&mut self.state, &mut self.place);
                    *word = (u64::from_le_bytes(*word) ^ stream).to_le_bytes();
                }
            }
        }
        self.apply_octets(tail);
    }

    fn apply_words(&mut self, words: &mut [[u8; 8]]) {
        for word in words {
            let mut stream = [0; 8];
            for octet in &mut stream {
                *octet = step(&mut self.state, &mut self.place);
            }
            *word = (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(stream)).to_ne_bytes();
        }
    }

    fn apply_octets(&mut self, octets: &mut [u8]) {
        for octet in octets {
            *octet ^= step(&mut self.state, &mut self.place);
        }
    }
}

impl std::fmt::Debug for Rc4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rc4(<hidden>)")
    }
}

impl Zeroize for Rc4 {
    fn zeroize(&mut self) {
        self.state.0.zeroize();
        self.place = Place::default();
    }
}

fn schedule(bank: &mut Bank, active: usize) {
    let Bank { states, keys, .. } = bank;
    match (states, keys) {
        ([a, b, ..], [j, k, ..]) if active == 2 => schedule_abreast([a, b], [j, k]),
        (states, keys) => {
            for (state, key) in states.iter_mut().zip(keys).take(active) {
                schedule_one(state, key);
            }
        }
    }
}

fn schedule_one<const L: usize>(state: &mut State, key: &[u8; L]) {
    schedule_abreast([state], [key]);
}

#[inline(always)]
fn schedule_abreast<const N: usize, const L: usize>(
    mut states: [&mut State; N],
    keys: [&[u8; L]; N],
) {
    let mut js = [0_u8; N];
    for i in 0..=255_u8 {
        for ((State(words), key), j) in states.iter_mut().zip(keys).zip(&mut js) {
            let x = words[usize::from(i)];
            *j = j
                .wrapping_add(x as u8)
                .wrapping_add(key[usize::from(i) % L]);
            words[usize::from(i)] = words[usize::from(*j)];
            words[usize::from(*j)] = x;
        }
    }
}

fn generate(bank: &mut Bank, active: usize, octets: usize) {
    match active {
        0 => {}
        1 => generate_abreast::<1>(bank, octets),
        2 => generate_abreast::<2>(bank, octets),
        3 => generate_abreast::<3>(bank, octets),
        _ => generate_abreast::<4>(bank, octets),
    }
}

fn generate_abreast<const N: usize>(bank: &mut Bank, octets: usize) {
    let mut places = [Place::default(); N];
    places.copy_from_slice(&bank.places[..N]);
    for at in (STREAM_BYTES - octets..STREAM_BYTES).step_by(8) {
        let mut words = [0_u64; N];
        for shift in 0..8 {
            let lanes = words.iter_mut().zip(&mut bank.states).zip(&mut places);
            for ((word, state), place) in lanes {
                *word |= u64::from(step(state, place)) << (8 * shift);
            }
        }
        for (word, stream) in words.iter().zip(&mut bank.streams) {
            stream[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
    }
    bank.places[..N].copy_from_slice(&places);
}

/// One octet of key stream.
#[inline(always)]
fn step(state: &mut State, place: &mut Place) -> u8 {
    let State(words) = state;
    place.i = place.i.wrapping_add(1);
    let x = words[usize::from(place.i)];
    place.j = place.j.wrapping_add(x as u8);
    let y = words[usize::from(place.j)];
    words[usize::from(place.j)] = x;
    words[usize::from(place.i)] = y;
    words[usize::from(x.wrapping_add(y) as u8)] as u8
}

#[cfg(test)]
mod tests {
    use ::rc4::{KeyInit, StreamCipher};
    use proptest::prelude::*;

    use super::*;

    fn oracle(key: &[u8; 16], data: &mut [u8]) {
        ::rc4::Rc4::new_from_slice(key)
            .expect("a key of 16 octets")
            .apply_keystream(data);
    }

    fn kernels() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::Portable];
        if Kernel::best() != Kernel::Portable {
            kernels.push(Kernel::best());
        }
        kernels
    }

    fn check_stream<const L: usize>(expected: &[(usize, &str)]) {
        let key: [u8; L] = std::array::from_fn(|i| i as u8 + 1);
        let mut state = State::IDENTITY;
        schedule_one(&mut state, &key);
        for kernel in kernels() {
            let mut rc4 = Rc4 {
                state: state.clone(),
                place: Place::default(),
                kernel,
            };
            let mut stream = vec![0; 4112];
            rc4.apply(&mut stream);
            for (offset, octets) in expected {
                let octets = hex::decode(octets).expect("hex");
                assert_eq!(stream[*offset..*offset + 16], octets, "{L} at {offset}");
            }
        }
    }

    fn check_key(key: &[u8; 16], expected: &str) {
        for kernel in kernels() {
            let mut stream = [0; 16];
            Rc4::with_kernel(kernel, key).apply(&mut stream);
            assert_eq!(hex::encode(stream), expected, "{kernel:?}");
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
        check_key(
            &[1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8],
            "97ab8a1bf0afb96132f2f67258da15a8",
        );
        check_key(
            &std::array::from_fn(|i| i as u8 + 1),
            "9ac7cc9a609d1ef7b2932899cde41b97",
        );
    }

    proptest! {
        #[test]
        fn one_stream_agrees_with_another_implementation(
            key: [u8; 16],
            data in proptest::collection::vec(any::<u8>(), 0..2000),
            cuts in proptest::collection::vec(0..2000_usize, 0..4),
        ) {
            let mut expected = data.clone();
            oracle(&key, &mut expected);
            for kernel in kernels() {
                let mut ours = data.clone();
                let mut rc4 = Rc4::with_kernel(kernel, &key);
                let mut rest = &mut ours[..];
                for cut in &cuts {
                    let (part, behind) = rest.split_at_mut((*cut).min(rest.len()));
                    rc4.apply(part);
                    rest = behind;
                }
                rc4.apply(rest);
                prop_assert_eq!(&ours, &expected);
            }
        }
    }
}
