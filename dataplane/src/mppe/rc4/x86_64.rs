//! RC4 for x86-64 in assembly: what compilers do not find.
//!
//! Two things bound RC4 on a core that executes out of order.
//!
//! *Mistaken loads.* `S[i]` is known long before it is needed, so the core loads it ahead of older
//! stores to `S[j]` whose address it does not know yet; once in a while they are the same word, and
//! all work since is thrown away. Several lanes make up for it. A stream that is alone has its next
//! eight words loaded on purpose, every `j` is compared with them, and they are loaded again when
//! one was hit; and an addition of zero makes the loads wait for the last `j`.
//!
//! *Stores.* There are two for each octet, and caches take two in a cycle only when they go to the
//! same line. So lanes advance by two octets each, and the second octet stores its words the other
//! way around, which brings the neighbours in `S` together.
//!
//! Every lane has a register for its own `i` even where all are equal: some cores predict from the
//! registers of its address which store a load depends on, and mistake lanes that share one for
//! each other.
//!
//! rustfmt leaves the macros alone, so that a line of assembly stays a line.

use core::arch::asm;
use core::mem::offset_of;

use super::{Bank, Place, STREAM_BYTES, STREAM_STEP, State};

const _: () = assert!(STREAM_STEP == 16 && STREAM_BYTES == 512 && size_of::<State>() == 1024);

/// Loads S\[j\], and swaps it with S\[i + n\], which is `a`; `b` is what S\[j\] was.
#[rustfmt::skip]
macro_rules! swap {
    ($lane:literal, $n:literal, j_first) => {
        concat!(
            "mov {b:e}, [{bank} + {j", $lane, "}*4 + 1024*", $lane, "]\n",
            "mov [{bank} + {j", $lane, "}*4 + 1024*", $lane, "], {a:e}\n",
            "mov [{bank} + {i", $lane, "}*4 + 1024*", $lane, " + 4*", $n, "], {b:e}\n",
        )
    };
    ($lane:literal, $n:literal, i_first) => {
        concat!(
            "mov {b:e}, [{bank} + {j", $lane, "}*4 + 1024*", $lane, "]\n",
            "mov [{bank} + {i", $lane, "}*4 + 1024*", $lane, " + 4*", $n, "], {b:e}\n",
            "mov [{bank} + {j", $lane, "}*4 + 1024*", $lane, "], {a:e}\n",
        )
    };
}

/// One step of the key schedule.
#[rustfmt::skip]
macro_rules! schedule_step {
    ($lane:literal, $n:literal, $order:ident) => {
        concat!(
            "mov {a:e}, [{bank} + {i", $lane, "}*4 + 1024*", $lane, " + 4*", $n, "]\n",
            "add {j", $lane, ":l}, [{bank} + {keys} + 16*", $lane, " + ", $n, "]\n",
            "add {j", $lane, ":l}, {a:l}\n",
            swap!($lane, $n, $order),
        )
    };
}

/// One octet of key stream: `j += S[i + n]`, swap, and `b` is the index of the octet.
#[rustfmt::skip]
macro_rules! stream_step {
    ($lane:literal, $n:literal, $order:ident) => {
        concat!(
            "mov {a:e}, [{bank} + {i", $lane, "}*4 + 1024*", $lane, " + 4*", $n, "]\n",
            "add {j", $lane, ":l}, {a:l}\n",
            swap!($lane, $n, $order),
            "add {b:l}, {a:l}\n",
        )
    };
}

/// Puts the octet at index `b` into a lane's vector.
#[rustfmt::skip]
macro_rules! gather {
    ($lane:literal, 1) => {
        concat!(
            "movd {w", $lane, "}, dword ptr [{bank} + {b}*4 + 1024*", $lane, "]\n"
        )
    };
    ($lane:literal, $n:literal) => {
        concat!(
            "pinsrb {w", $lane, "}, byte ptr [{bank} + {b}*4 + 1024*", $lane, "], ", $n, " - 1\n",
        )
    };
}

/// Two octets of key stream of one lane, numbers `$n` and `$m` of 1 to 16.
#[rustfmt::skip]
macro_rules! stream_pair {
    ($lane:literal, 15, 16) => {
        concat!(
            stream_step!($lane, 15, j_first),
            gather!($lane, 15),
            "add {i", $lane, ":l}, 16\n",
            stream_step!($lane, 0, i_first),
            gather!($lane, 16),
        )
    };
    ($lane:literal, $n:tt, $m:tt) => {
        concat!(
            stream_step!($lane, $n, j_first),
            gather!($lane, $n),
            stream_step!($lane, $m, i_first),
            gather!($lane, $m),
        )
    };
}

/// Two steps of the key schedule of one lane.
#[rustfmt::skip]
macro_rules! schedule_pair {
    ($lane:literal, $n:literal, $m:literal) => {
        concat!(
            schedule_step!($lane, $n, j_first),
            schedule_step!($lane, $m, i_first)
        )
    };
}

/// The functions for several lanes abreast.
macro_rules! abreast {
    ($schedule:ident, $generate:ident, $($lane:tt $i:ident $j:ident $w:ident),+) => {
        fn $schedule(self, bank: &mut Bank) {
            // SAFETY: the assembly reads and writes only inside `bank`: S of each lane at indices
            // below 256, for i counts by 16 from 0 to 240 and j is an octet; and the keys. It only
            // swaps words of S. It uses no stack and ends.
            unsafe {
                asm!(
                    "2:",
                    concat!($(schedule_pair!($lane, 0, 1)),+),
                    concat!($(schedule_pair!($lane, 2, 3)),+),
                    concat!($(schedule_pair!($lane, 4, 5)),+),
                    concat!($(schedule_pair!($lane, 6, 7)),+),
                    concat!($(schedule_pair!($lane, 8, 9)),+),
                    concat!($(schedule_pair!($lane, 10, 11)),+),
                    concat!($(schedule_pair!($lane, 12, 13)),+),
                    concat!($(schedule_pair!($lane, 14, 15)),+),
                    $(concat!("add {i", $lane, ":e}, 16"),)+
                    "cmp {i0:e}, 256",
                    "jne 2b",
                    bank = in(reg) bank,
                    keys = const offset_of!(Bank, keys),
                    a = out(reg) _,
                    b = out(reg) _,
                    $($i = inout(reg) 0_u64 => _, $j = inout(reg) 0_u64 => _,)+
                    options(nostack),
                );
            }
        }

        fn $generate(self, bank: &mut Bank, octets: usize) {
            $(
                let mut $i = u64::from(bank.places[$lane].i);
                let mut $j = u64::from(bank.places[$lane].j);
            )+
            // SAFETY: the assembly reads and writes only inside `bank`: S of each lane at indices
            // below 256, for i is a multiple of 16, j an octet, and so are all words of S, which it
            // only swaps; and the last `octets` of each stream, a multiple of 16 that is at most
            // its length (`generate` has checked). It uses no stack and ends.
            unsafe {
                asm!(
                    "2:",
                    concat!($(stream_pair!($lane, 1, 2)),+),
                    concat!($(stream_pair!($lane, 3, 4)),+),
                    concat!($(stream_pair!($lane, 5, 6)),+),
                    concat!($(stream_pair!($lane, 7, 8)),+),
                    concat!($(stream_pair!($lane, 9, 10)),+),
                    concat!($(stream_pair!($lane, 11, 12)),+),
                    concat!($(stream_pair!($lane, 13, 14)),+),
                    concat!($(stream_pair!($lane, 15, 16)),+),
                    $(concat!(
                        "movdqu [{bank} + {at} + {streams} + 512*", $lane, "], {w", $lane, "}"
                    ),)+
                    "add {at}, 16",
                    "cmp {at}, 512",
                    "jne 2b",
                    bank = in(reg) bank,
                    streams = const offset_of!(Bank, streams),
                    at = inout(reg) STREAM_BYTES - octets => _,
                    a = out(reg) _,
                    b = out(reg) _,
                    $($i = inout(reg) $i, $j = inout(reg) $j, $w = out(xmm_reg) _,)+
                    options(nostack),
                );
            }
            $(
                bank.places[$lane].i = $i as u8;
                bank.places[$lane].j = $j as u8;
            )+
        }
    };
}

/// Loads words of a stream that is alone: register `$x` has the word `$x` behind `i + $first`.
#[rustfmt::skip]
macro_rules! load {
    ($first:literal: $($x:literal)*) => {
        concat!($("mov {x", $x, ":e}, [{state} + {i}*4 + 4*", $first, " + 4*", $x, "]\n",)*)
    };
}

/// The last of eight words of key stream, whose index may wrap.
#[rustfmt::skip]
macro_rules! load_wrapped {
    () => {
        "lea {a:e}, [{i} + 8]\nmovzx {a:e}, {a:l}\nmov {x7:e}, [{state} + {a}*4]\n"
    };
}

/// Makes the loads that follow wait for `j`, and so for the addresses of all stores.
#[rustfmt::skip]
macro_rules! wait_for_j {
    () => {
        "mov {a:e}, {j:e}\nand {a:e}, 0\nadd {i}, {a}\n"
    };
}

/// The swap of a stream that is alone: register `$x` has S\[i + n\]; `a` is what S\[j\] was.
#[rustfmt::skip]
macro_rules! swap_alone {
    ($x:literal, $n:literal) => {
        concat!(
            "mov {a:e}, [{state} + {j}*4]\n",
            "mov [{state} + {j}*4], {x", $x, ":e}\n",
            "mov [{state} + {i}*4 + 4*", $n, "], {a:e}\n",
        )
    };
}

/// Goes to label `$again` if `j` has hit one of the `$left` words from `i + $n` on, which are
/// loaded already; from there it comes back to label `$back`.
#[rustfmt::skip]
macro_rules! check {
    ($n:literal, $left:literal, $again:literal, $back:literal) => {
        concat!(
            "mov {a:e}, {j:e}\nsub {a:l}, {i:l}\nsub {a:l}, ", $n, "\n",
            "cmp {a:l}, ", $left, "\njb ", $again, "f\n",
            $back, ":\n",
        )
    };
}

/// Step `$x` of eight of a key schedule that is alone.
#[rustfmt::skip]
macro_rules! schedule_alone {
    ($x:literal) => {
        concat!(
            "movzx {a:e}, byte ptr [{key} + ", $x, "]\n",
            "add {a:e}, {x", $x, ":e}\nadd {j:l}, {a:l}\n",
            swap_alone!($x, $x),
        )
    };
}

/// Octet `$x` of eight of a key stream that is alone, whose word is S\[i + $n\].
#[rustfmt::skip]
macro_rules! stream_alone {
    ($x:literal, $n:literal) => {
        concat!(
            "add {j:l}, {x", $x, ":l}\n",
            swap_alone!($x, $n),
            "add {a:l}, {x", $x, ":l}\n",
            "pinsrb {w}, byte ptr [{state} + {a}*4], ", $x, "\n",
        )
    };
}

/// A key whose octet 8 is at an address with one bit more than octet 0.
#[repr(align(16))]
struct Aligned([u8; 16]);

/// Proof that this machine has what is used here beyond the least x86-64: SSE4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sse41(());

impl Sse41 {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("sse4.1").then_some(Self(()))
    }

    /// The key-scheduling algorithm on the first `active` lanes.
    pub(super) fn schedule(self, bank: &mut Bank, active: usize) {
        match active {
            0 => {}
            1 => self.schedule_one(&mut bank.states[0], &bank.keys[0]),
            2 => self.schedule_2(bank),
            3 => self.schedule_3(bank),
            _ => self.schedule_4(bank),
        }
    }

    /// Writes the next `octets` octets of key stream of the first `active` lanes to the end of
    /// their streams.
    ///
    /// # Panics
    /// When `octets` is not a positive multiple of `STREAM_STEP` and at most `STREAM_BYTES`.
    pub(super) fn generate(self, bank: &mut Bank, active: usize, octets: usize) {
        assert!(octets > 0 && octets <= STREAM_BYTES && octets.is_multiple_of(STREAM_STEP));
        debug_assert!(
            bank.places
                .iter()
                .all(|place| usize::from(place.i) % STREAM_STEP == 0)
        );
        match active {
            0 => {}
            1 => {
                let (words, _) = bank.streams[0][STREAM_BYTES - octets..].as_chunks_mut();
                for word in words {
                    *word = self
                        .generate_one(&mut bank.states[0], &mut bank.places[0])
                        .to_le_bytes();
                }
            }
            2 => self.generate_2(bank, octets),
            3 => self.generate_3(bank, octets),
            _ => self.generate_4(bank, octets),
        }
    }

    /// The key-scheduling algorithm for one stream.
    pub(super) fn schedule_one(self, state: &mut State, key: &[u8; 16]) {
        let key = Aligned(*key);
        // SAFETY: the assembly reads and writes only S at indices below 256, for i counts by 8 from
        // 0 to 248, words up to 7 behind it are used, and j is an octet; and reads `key`, whose
        // address is a multiple of 16 and is used as it is and with bit 3 set, each with 8 octets.
        // It only swaps words of S. It uses no stack and ends.
        unsafe {
            asm!(
                "2:",
                wait_for_j!(),
                load!(0: 0 1 2 3 4 5 6 7),
                schedule_alone!(0), check!(1, 7, 20, 30),
                schedule_alone!(1), check!(2, 6, 21, 31),
                schedule_alone!(2), check!(3, 5, 22, 32),
                schedule_alone!(3), check!(4, 4, 23, 33),
                schedule_alone!(4), check!(5, 3, 24, 34),
                schedule_alone!(5), check!(6, 2, 25, 35),
                schedule_alone!(6), check!(7, 1, 26, 36),
                schedule_alone!(7),
                "xor {key}, 8",
                "add {i:e}, 8",
                "cmp {i:e}, 256",
                "jne 2b",
                "jmp 9f",
                "20:", load!(0: 1 2 3 4 5 6 7), "jmp 30b",
                "21:", load!(0: 2 3 4 5 6 7), "jmp 31b",
                "22:", load!(0: 3 4 5 6 7), "jmp 32b",
                "23:", load!(0: 4 5 6 7), "jmp 33b",
                "24:", load!(0: 5 6 7), "jmp 34b",
                "25:", load!(0: 6 7), "jmp 35b",
                "26:", load!(0: 7), "jmp 36b",
                "9:",
                state = in(reg) state.0.as_mut_ptr(),
                key = inout(reg) key.0.as_ptr() => _,
                i = inout(reg) 0_u64 => _,
                j = inout(reg) 0_u64 => _,
                a = out(reg) _,
                x0 = out(reg) _, x1 = out(reg) _, x2 = out(reg) _, x3 = out(reg) _,
                x4 = out(reg) _, x5 = out(reg) _, x6 = out(reg) _, x7 = out(reg) _,
                options(nostack),
            );
        }
    }

    /// The next 8 octets of key stream of one stream, the first lowest. `place.i` is a multiple
    /// of 8.
    #[inline(always)]
    pub(super) fn generate_one(self, state: &mut State, place: &mut Place) -> u64 {
        debug_assert!(place.i.is_multiple_of(8));
        let mut j = u64::from(place.j);
        let octets;
        // SAFETY: the assembly reads and writes only S at indices below 256, for i is a multiple of
        // 8, words up to 7 behind it and the one at (i + 8) modulo 256 are used, j is an octet, and
        // so are all words of S, which it only swaps. It uses no stack and ends.
        unsafe {
            asm!(
                wait_for_j!(),
                load!(1: 0 1 2 3 4 5 6),
                load_wrapped!(),
                "pxor {w}, {w}",
                stream_alone!(0, 1), check!(2, 7, 20, 30),
                stream_alone!(1, 2), check!(3, 6, 21, 31),
                stream_alone!(2, 3), check!(4, 5, 22, 32),
                stream_alone!(3, 4), check!(5, 4, 23, 33),
                stream_alone!(4, 5), check!(6, 3, 24, 34),
                stream_alone!(5, 6), check!(7, 2, 25, 35),
                stream_alone!(6, 7), check!(8, 1, 26, 36),
                "add {i:l}, 8",
                stream_alone!(7, 0),
                "movq {a}, {w}",
                "jmp 9f",
                "20:", load!(1: 1 2 3 4 5 6), load_wrapped!(), "jmp 30b",
                "21:", load!(1: 2 3 4 5 6), load_wrapped!(), "jmp 31b",
                "22:", load!(1: 3 4 5 6), load_wrapped!(), "jmp 32b",
                "23:", load!(1: 4 5 6), load_wrapped!(), "jmp 33b",
                "24:", load!(1: 5 6), load_wrapped!(), "jmp 34b",
                "25:", load!(1: 6), load_wrapped!(), "jmp 35b",
                "26:", load_wrapped!(), "jmp 36b",
                "9:",
                state = in(reg) state.0.as_mut_ptr(),
                i = inout(reg) u64::from(place.i) => _,
                j = inout(reg) j,
                a = out(reg) octets,
                x0 = out(reg) _, x1 = out(reg) _, x2 = out(reg) _, x3 = out(reg) _,
                x4 = out(reg) _, x5 = out(reg) _, x6 = out(reg) _, x7 = out(reg) _,
                w = out(xmm_reg) _,
                options(nostack),
            );
        }
        place.i = place.i.wrapping_add(8);
        place.j = j as u8;
        octets
    }

    abreast!(schedule_2, generate_2, 0 i0 j0 w0, 1 i1 j1 w1);
    abreast!(schedule_3, generate_3, 0 i0 j0 w0, 1 i1 j1 w1, 2 i2 j2 w2);
    abreast!(schedule_4, generate_4, 0 i0 j0 w0, 1 i1 j1 w1, 2 i2 j2 w2, 3 i3 j3 w3);
}
