//! Which packet runs in which lane.
//!
//! Lanes run as far as the one that ends first; then the next packet takes its place, while the
//! others go on where they were. Key stream goes through a small buffer, in whole steps: what is
//! beyond a packet's end is not used, and the state behind it is given up with the packet.

use super::{Bank, Kernel, LANES_MAX, Place, Rc4, STREAM_BYTES, STREAM_STEP, State};

/// Packets that can be enciphered in any order, each from the start of its own key's stream. They
/// keep number and lengths meanwhile.
pub trait Packets {
    /// How many there are.
    fn count(&self) -> usize;

    /// The key of one of them.
    fn key(&self, index: usize) -> &[u8; 16];

    /// The octets of one of them, in which the key stream is XORed.
    fn text(&mut self, index: usize) -> &mut [u8];
}

/// Enciphers or deciphers all of them, abreast. Long ones first leaves the fewest lanes idle.
pub fn encipher(packets: &mut impl Packets) {
    let kernel = Kernel::best();
    encipher_with(kernel, kernel.lanes(), packets);
}

/// The same with a certain implementation and number of lanes, to measure and test them.
///
/// # Panics
/// When `lanes` is not one to [`LANES_MAX`].
pub fn encipher_with(kernel: Kernel, lanes: usize, packets: &mut impl Packets) {
    assert!((1..=LANES_MAX).contains(&lanes), "{lanes} lanes");
    let mut bank = Bank::new();
    let mut running = [Running::default(); LANES_MAX];
    let mut active = 0;
    let mut next = 0;
    loop {
        let resumed = active;
        while active < lanes && next < packets.count() {
            let len = packets.text(next).len();
            if len > 0 {
                bank.keys[active] = *packets.key(next);
                running[active] = Running {
                    packet: next,
                    done: 0,
                    len,
                };
                active += 1;
            }
            next += 1;
        }
        if active == 0 {
            return;
        }
        begin(kernel, &mut bank, resumed, active);
        let octets = running[..active]
            .iter()
            .map(|lane| lane.len - lane.done)
            .min();
        let octets = octets
            .unwrap_or(0)
            .next_multiple_of(STREAM_STEP)
            .min(STREAM_BYTES);
        kernel.generate(&mut bank, active, octets);
        for (lane, stream) in running[..active].iter_mut().zip(&bank.streams) {
            let text = &mut packets.text(lane.packet)[lane.done..];
            let len = octets.min(text.len());
            xor(&mut text[..len], &stream[STREAM_BYTES - octets..][..len]);
            lane.done += len;
        }
        active = close_ranks(&mut bank, &mut running, active);
    }
}

/// A packet in a lane.
#[derive(Clone, Copy, Default)]
struct Running {
    packet: usize,
    done: usize,
    len: usize,
}

/// Begins the streams of lanes `first..active`: all at once if all begin.
fn begin(kernel: Kernel, bank: &mut Bank, first: usize, active: usize) {
    if first == 0 {
        kernel.schedule(bank, active);
        return;
    }
    for lane in first..active {
        bank.states[lane] = State::IDENTITY;
        kernel.schedule_one(&mut bank.states[lane], &bank.keys[lane]);
        bank.places[lane] = Place::default();
    }
}

/// Moves lanes that have more to do to the front, and returns their number.
fn close_ranks(bank: &mut Bank, running: &mut [Running; LANES_MAX], active: usize) -> usize {
    let mut kept = 0;
    for lane in 0..active {
        if running[lane].done == running[lane].len {
            continue;
        }
        if kept < lane {
            running[kept] = running[lane];
            bank.places[kept] = bank.places[lane];
            let (front, back) = bank.states.split_at_mut(lane);
            front[kept].0 = back[0].0;
        }
        kept += 1;
    }
    kept
}

/// The first 16 octets of the streams of `keys`, abreast.
#[must_use]
pub fn first_octets<const N: usize>(keys: [&[u8; 16]; N]) -> [[u8; 16]; N] {
    const { assert!(0 < N && N <= LANES_MAX) };
    if N == 1 {
        return keys.map(|key| {
            let mut octets = [0; 16];
            Rc4::new(key).apply(&mut octets);
            octets
        });
    }
    let kernel = Kernel::best();
    let mut bank = Bank::new();
    for (lane, key) in bank.keys.iter_mut().zip(keys) {
        *lane = *key;
    }
    kernel.schedule(&mut bank, N);
    kernel.generate(&mut bank, N, 16);
    std::array::from_fn(|lane| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bank.streams[lane][STREAM_BYTES - 16..]);
        octets
    })
}

fn xor(text: &mut [u8], stream: &[u8]) {
    for (octet, key) in text.iter_mut().zip(stream) {
        *octet ^= key;
    }
}

#[cfg(test)]
mod tests {
    use ::rc4::{KeyInit, StreamCipher};
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Texts(Vec<([u8; 16], Vec<u8>)>);

    impl Packets for Texts {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn key(&self, index: usize) -> &[u8; 16] {
            &self.0[index].0
        }

        fn text(&mut self, index: usize) -> &mut [u8] {
            &mut self.0[index].1
        }
    }

    impl Texts {
        fn enciphered(&self) -> Self {
            let mut texts = self.clone();
            for (key, text) in &mut texts.0 {
                ::rc4::Rc4::new_from_slice(key)
                    .expect("a key of 16 octets")
                    .apply_keystream(text);
            }
            texts
        }

        fn check(&self) -> Result<(), TestCaseError> {
            let expected = self.enciphered();
            for kernel in [Kernel::Portable, Kernel::best()] {
                for lanes in 1..=LANES_MAX {
                    let mut ours = self.clone();
                    encipher_with(kernel, lanes, &mut ours);
                    prop_assert_eq!(&ours, &expected, "{:?}, {} lanes", kernel, lanes);
                }
            }
            Ok(())
        }
    }

    #[test]
    fn packets_of_every_length_agree_with_another_implementation() -> Result<(), TestCaseError> {
        let keyed = |len: usize| {
            (
                std::array::from_fn(|i| (len * 31 + i * 7) as u8),
                vec![0; len],
            )
        };
        Texts((0..=1600).map(keyed).collect()).check()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn batches_agree_with_another_implementation(
            packets in proptest::collection::vec(
                (any::<[u8; 16]>(), proptest::collection::vec(any::<u8>(), 0..=1600)),
                0..=64,
            ),
        ) {
            Texts(packets).check()?;
        }

        #[test]
        fn first_octets_are_those_of_the_streams(keys: [[u8; 16]; 4]) {
            let [a, b, c, d] = &keys;
            let zeros = keys.iter().map(|key| (*key, vec![0; 16])).collect();
            let expected = Texts(zeros).enciphered().0.into_iter().flat_map(|(_, text)| text);
            let expected: Vec<u8> = expected.collect();
            prop_assert_eq!(first_octets([a, b, c, d]).concat(), &expected[..]);
            prop_assert_eq!(first_octets([a, b, c]).concat(), &expected[..48]);
            prop_assert_eq!(first_octets([a]).concat(), &expected[..16]);
        }
    }
}
