//! GRE sequence and acknowledgment numbers of one session (RFC 2637 4.1, 4.2, 4.3).
//!
//! Packets are let through in order. One that comes a little early is held until those before it
//! have come or have been given up; one that comes late is dropped, as the RFC demands. A number
//! far away is a jump, and a jump must be confirmed, or one forged packet would blind the tunnel.

use crate::frame::{Frame, Slot};
use crate::limits::{self, REORDER_PACKETS};
use crate::snapshot::{Hidden, WindowSnapshot};

/// Where a sequence number stands to the one that is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is the one.
    Next,
    /// A little early, and not held yet: [`ReceiveWindow::hold`].
    Early,
    /// It was let through, or is held.
    Duplicate,
    /// It was given up, or is too old to tell.
    Late,
    /// Far away.
    Far,
}

/// What has been received, and what is owed for it.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    started: bool,
    next: u32,
    /// Bit n: `next - 1 - n` was let through.
    recent: u64,
    held: [Frame; REORDER_PACKETS],
    /// Bit n: `held[n]` holds the packet whose number is n modulo `REORDER_PACKETS`.
    held_bits: u16,
    gap_since_ms: u64,
    accepted_ms: u64,
    jump: Jump,
    acknowledgment: Acknowledgment,
}

/// Packets in a row that agree on a jump.
#[derive(Debug, Default)]
struct Jump {
    next: u32,
    agreeing: u8,
}

#[derive(Debug, Default)]
struct Acknowledgment {
    highest: u32,
    owed: u32,
    owed_since_ms: u64,
}

const _: () = assert!(REORDER_PACKETS == u16::BITS as usize);

impl ReceiveWindow {
    /// Nothing received. Peers count from 0 (RFC 2637 4.1, pptpd) or from 1 (pptp-linux, the
    /// kernel's driver).
    pub(crate) const fn new() -> Self {
        Self {
            started: false,
            next: 1,
            recent: 0,
            held: [Frame::new(Slot(0), 0, 0); REORDER_PACKETS],
            held_bits: 0,
            gap_since_ms: 0,
            accepted_ms: 0,
            jump: Jump {
                next: 0,
                agreeing: 0,
            },
            acknowledgment: Acknowledgment {
                highest: 0,
                owed: 0,
                owed_since_ms: 0,
            },
        }
    }

    /// Where it is, for another process; of what is held, `held` gives the octets.
    pub(crate) fn snapshot(&self, held: impl Fn(Frame) -> Vec<u8>) -> WindowSnapshot {
        let early = (0..REORDER_PACKETS as u32).map(|ahead| self.next.wrapping_add(ahead));
        WindowSnapshot {
            is_started: self.started,
            next: self.next,
            recent: self.recent,
            highest: self.acknowledgment.highest,
            owed: self.acknowledgment.owed,
            held: early
                .filter(|sequence| self.held_bits & bit(*sequence) != 0)
                .map(|sequence| {
                    let frame = self.held[sequence as usize % REORDER_PACKETS];
                    (sequence, Hidden::from(held(frame)))
                })
                .collect(),
        }
    }

    /// One that goes on from there, and holds nothing yet.
    pub(crate) const fn restore(snapshot: &WindowSnapshot, now_ms: u64) -> Self {
        let mut window = Self::new();
        window.started = snapshot.is_started;
        window.next = snapshot.next;
        window.recent = snapshot.recent;
        window.accepted_ms = now_ms;
        window.acknowledgment = Acknowledgment {
            highest: snapshot.highest,
            owed: snapshot.owed,
            owed_since_ms: now_ms,
        };
        window
    }

    /// Holds again what another process held: acknowledgments are owed for it already.
    pub(crate) const fn hold_again(&mut self, sequence: u32, frame: Frame, now_ms: u64) {
        let owed = self.acknowledgment.owed;
        self.hold(sequence, frame, now_ms);
        self.acknowledgment.owed = owed;
    }

    pub(crate) fn place(&self, sequence: u32) -> Place {
        let ahead = sequence.wrapping_sub(self.next);
        let behind = self.next.wrapping_sub(sequence);
        if ahead == 0 || (!self.started && sequence == 0) {
            Place::Next
        } else if ahead < REORDER_PACKETS as u32 {
            match self.held_bits & bit(sequence) {
                0 => Place::Early,
                _ => Place::Duplicate,
            }
        } else if behind <= u64::BITS && self.recent >> (behind - 1) & 1 == 1 {
            Place::Duplicate
        } else if behind <= limits::LATE_WINDOW {
            Place::Late
        } else {
            Place::Far
        }
    }

    /// Whether the oldest gap should be given up to make room for a number that is just beyond
    /// the window. Where packets can prove themselves, not for the sake of a few that may be
    /// forged (`wary`).
    pub(crate) const fn should_slide(&self, sequence: u32, wary: bool) -> bool {
        let ahead = sequence.wrapping_sub(self.next);
        let held_min = if wary { REORDER_PACKETS / 2 } else { 1 };
        ahead >= REORDER_PACKETS as u32
            && ahead < 2 * REORDER_PACKETS as u32
            && self.held_count() >= held_min
    }

    /// Lets the awaited packet through, and those held right behind it. True when it filled a gap.
    pub(crate) fn accept(
        &mut self,
        sequence: u32,
        frame: Frame,
        now_ms: u64,
        ready: &mut impl FnMut(u32, Frame),
    ) -> bool {
        let filled = self.held_bits != 0;
        self.receive(sequence, now_ms);
        self.next = sequence;
        self.pass(frame, ready);
        self.release_run(now_ms, ready);
        filled
    }

    /// Keeps an early packet.
    pub(crate) const fn hold(&mut self, sequence: u32, frame: Frame, now_ms: u64) {
        debug_assert!(self.held_bits & bit(sequence) == 0);
        if self.held_bits == 0 {
            self.gap_since_ms = now_ms;
        }
        self.receive(sequence, now_ms);
        self.held[sequence as usize % REORDER_PACKETS] = frame;
        self.held_bits |= bit(sequence);
    }

    /// Notes a number far away; true when so many in a row agree that the jump can be believed.
    /// Jumps back, and all where `suspicious`, only when nothing else is received.
    pub(crate) const fn confirm(&mut self, sequence: u32, suspicious: bool, now_ms: u64) -> bool {
        let step = sequence.wrapping_sub(self.jump.next);
        if self.jump.agreeing > 0 && step <= REORDER_PACKETS as u32 {
            self.jump.agreeing = self.jump.agreeing.saturating_add(1);
        } else {
            self.jump.agreeing = 1;
        }
        self.jump.next = sequence.wrapping_add(1);

        let is_back = sequence.wrapping_sub(self.next) > 1 << 31;
        let is_quiet = now_ms >= self.accepted_ms + limits::RESYNC_QUIET_MS;
        self.jump.agreeing >= limits::RESYNC_PACKETS && (is_quiet || !(is_back || suspicious))
    }

    /// Follows a jump that is believed: gives up gaps until the window reaches `sequence`, or all
    /// that was awaited before it. Returns how many numbers were given up.
    pub(crate) fn jump(
        &mut self,
        sequence: u32,
        frame: Frame,
        now_ms: u64,
        ready: &mut impl FnMut(u32, Frame),
    ) -> u64 {
        let mut lost = 0;
        while self.held_bits != 0 && self.place(sequence) == Place::Far {
            lost += self.give_up_gap(now_ms, ready);
        }
        match self.place(sequence) {
            Place::Early => self.hold(sequence, frame, now_ms),
            Place::Next => {
                self.accept(sequence, frame, now_ms, ready);
            }
            Place::Far | Place::Late | Place::Duplicate => {
                let ahead = sequence.wrapping_sub(self.next);
                lost += if ahead < 1 << 31 { u64::from(ahead) } else { 0 };
                self.recent = 0;
                self.acknowledgment.highest = sequence;
                self.accept(sequence, frame, now_ms, ready);
            }
        }
        lost
    }

    /// Gives up what is awaited before the first packet held, and lets through what follows.
    /// Returns how many numbers were given up.
    pub(crate) fn give_up_gap(&mut self, now_ms: u64, ready: &mut impl FnMut(u32, Frame)) -> u64 {
        if self.held_bits == 0 {
            return 0;
        }
        let mut lost = 0;
        while self.held_bits & bit(self.next) == 0 {
            self.next = self.next.wrapping_add(1);
            self.recent <<= 1;
            lost += 1;
        }
        self.release_run(now_ms, ready);
        lost
    }

    /// When the gap has been waited for long enough; `None` without a gap.
    pub(crate) const fn gap_deadline_ms(&self) -> Option<u64> {
        match self.held_bits {
            0 => None,
            _ => Some(self.gap_since_ms + limits::REORDER_TIMEOUT_MS),
        }
    }

    /// How many packets are held.
    pub(crate) const fn held_count(&self) -> usize {
        self.held_bits.count_ones() as usize
    }

    /// The highest number received, when that has not been told to the peer.
    pub(crate) const fn take_acknowledgment(&mut self) -> Option<u32> {
        if self.acknowledgment.owed == 0 {
            return None;
        }
        self.acknowledgment.owed = 0;
        Some(self.acknowledgment.highest)
    }

    /// When an owed acknowledgment must go alone.
    pub(crate) const fn acknowledgment_deadline_ms(&self) -> Option<u64> {
        match self.acknowledgment.owed {
            0 => None,
            limits::ACK_EVERY_PACKETS.. => Some(0),
            _ => Some(self.acknowledgment.owed_since_ms + limits::ACK_DELAY_MS),
        }
    }

    const fn receive(&mut self, sequence: u32, now_ms: u64) {
        let acknowledgment = &mut self.acknowledgment;
        if !self.started || sequence.wrapping_sub(acknowledgment.highest) < 1 << 31 {
            acknowledgment.highest = sequence;
        }
        if acknowledgment.owed == 0 {
            acknowledgment.owed_since_ms = now_ms;
        }
        acknowledgment.owed = acknowledgment.owed.saturating_add(1);
        self.started = true;
        self.accepted_ms = now_ms;
        self.jump.agreeing = 0;
    }

    fn pass(&mut self, frame: Frame, ready: &mut impl FnMut(u32, Frame)) {
        ready(self.next, frame);
        self.next = self.next.wrapping_add(1);
        self.recent = self.recent << 1 | 1;
    }

    fn release_run(&mut self, now_ms: u64, ready: &mut impl FnMut(u32, Frame)) {
        while self.held_bits & bit(self.next) != 0 {
            self.held_bits &= !bit(self.next);
            self.pass(self.held[self.next as usize % REORDER_PACKETS], ready);
        }
        // What is still held waits for another packet than before.
        self.gap_since_ms = now_ms;
    }
}

const fn bit(sequence: u32) -> u16 {
    1 << (sequence as usize % REORDER_PACKETS)
}

/// Numbers of what we send.
#[derive(Debug)]
pub(crate) struct SendSequence {
    next: u32,
    /// Highest number that the peer says it has received.
    acknowledged: Option<u32>,
}

impl SendSequence {
    /// Counts from 1: the kernel's driver drops a packet numbered 0, and all peers take 1.
    pub(crate) const fn new() -> Self {
        Self {
            next: 1,
            acknowledged: None,
        }
    }

    /// Where it is, for another process.
    pub(crate) const fn snapshot(&self) -> (u32, Option<u32>) {
        (self.next, self.acknowledged)
    }

    /// One that goes on from there.
    pub(crate) const fn restore((next, acknowledged): (u32, Option<u32>)) -> Self {
        Self { next, acknowledged }
    }

    /// Leaves so many numbers out.
    pub(crate) const fn skip(&mut self, packets: u32) {
        self.next = self.next.wrapping_add(packets);
    }

    /// The number of the next packet.
    pub(crate) const fn take(&mut self) -> u32 {
        let sequence = self.next;
        self.next = sequence.wrapping_add(1);
        sequence
    }

    /// Notes what the peer acknowledges, if we have sent it and it is news.
    pub(crate) const fn acknowledge(&mut self, acknowledgment: u32) {
        let unsent = acknowledgment.wrapping_sub(self.next) < 1 << 31;
        let news = match self.acknowledged {
            None => true,
            Some(last) => acknowledgment.wrapping_sub(last) < 1 << 31,
        };
        if !unsent && news {
            self.acknowledged = Some(acknowledgment);
        }
    }

    /// Packets that the peer has not acknowledged yet.
    pub(crate) const fn unacknowledged(&self) -> u32 {
        let last = match self.acknowledged {
            Some(last) => last,
            None => 0,
        };
        self.next.wrapping_sub(1).wrapping_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window, and the numbers that it has let through.
    struct Rig {
        window: ReceiveWindow,
        out: Vec<u32>,
        lost: u64,
    }

    impl Rig {
        fn started_at(next: u32) -> Self {
            let mut window = ReceiveWindow::new();
            window.started = true;
            window.next = next;
            window.acknowledgment.highest = next.wrapping_sub(1);
            Self {
                window,
                out: Vec::new(),
                lost: 0,
            }
        }

        fn fresh() -> Self {
            Self {
                window: ReceiveWindow::new(),
                out: Vec::new(),
                lost: 0,
            }
        }

        /// What `decap` does, without cryptography.
        fn receive(&mut self, sequence: u32, now_ms: u64) -> Place {
            let frame = Frame::new(Slot(sequence as u16), 0, 0);
            let out = &mut self.out;
            let mut ready = |number: u32, frame: Frame| {
                assert_eq!(frame.slot.0, number as u16, "the frame of its number");
                out.push(number);
            };
            while self.window.should_slide(sequence, false) {
                self.lost += self.window.give_up_gap(now_ms, &mut ready);
            }
            let place = self.window.place(sequence);
            match place {
                Place::Next => {
                    self.window.accept(sequence, frame, now_ms, &mut ready);
                }
                Place::Early => self.window.hold(sequence, frame, now_ms),
                Place::Far if self.window.confirm(sequence, false, now_ms) => {
                    self.lost += self.window.jump(sequence, frame, now_ms, &mut ready);
                }
                _ => {}
            }
            place
        }

        fn receive_all(&mut self, numbers: impl IntoIterator<Item = u32>) {
            for number in numbers {
                self.receive(number, 0);
            }
        }
    }

    #[test]
    fn peers_may_count_from_zero_or_one() {
        for first in [0, 1] {
            let mut rig = Rig::fresh();
            rig.receive_all(first..first + 3);
            assert_eq!(rig.out, [first, first + 1, first + 2]);
            assert_eq!(rig.lost, 0);
        }
    }

    #[test]
    fn zero_after_one_is_late() {
        let mut rig = Rig::fresh();
        rig.receive(1, 0);
        assert_eq!(rig.receive(0, 0), Place::Late);
    }

    #[test]
    fn reordered_packets_are_put_right() {
        let mut rig = Rig::fresh();
        rig.receive_all([1, 3, 2, 6, 5, 4, 7]);
        assert_eq!(rig.out, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(rig.window.held_count(), 0);
    }

    #[test]
    fn duplicates_and_late_packets_are_told_apart() {
        let mut rig = Rig::fresh();
        rig.receive_all([1, 2, 4]);
        assert_eq!(rig.receive(2, 0), Place::Duplicate);
        assert_eq!(rig.receive(4, 0), Place::Duplicate);
        rig.lost += rig
            .window
            .give_up_gap(60, &mut |number, _| rig.out.push(number));
        assert_eq!(rig.out, [1, 2, 4]);
        assert_eq!(rig.lost, 1);
        assert_eq!(rig.receive(3, 60), Place::Late);
        assert_eq!(rig.receive(4, 60), Place::Duplicate);
    }

    #[test]
    fn a_gap_has_a_deadline_of_its_own() {
        let mut rig = Rig::fresh();
        rig.receive(1, 0);
        assert_eq!(rig.window.gap_deadline_ms(), None);
        rig.receive(3, 100);
        rig.receive(5, 120);
        let first = 100 + limits::REORDER_TIMEOUT_MS;
        assert_eq!(rig.window.gap_deadline_ms(), Some(first));
        rig.window
            .give_up_gap(first, &mut |number, _| rig.out.push(number));
        assert_eq!(rig.out, [1, 3]);
        let second = first + limits::REORDER_TIMEOUT_MS;
        assert_eq!(rig.window.gap_deadline_ms(), Some(second));
    }

    #[test]
    fn a_full_window_gives_its_gap_up() {
        let mut rig = Rig::fresh();
        rig.receive_all((1..=40).filter(|number| *number != 5));
        assert_eq!(rig.lost, 1);
        assert_eq!(rig.out, (1..=40).filter(|n| *n != 5).collect::<Vec<_>>());
    }

    #[test]
    fn the_window_holds_what_is_less_than_its_size_ahead() {
        let size = REORDER_PACKETS as u32;
        let mut rig = Rig::started_at(100);
        assert_eq!(rig.receive(100 + size, 0), Place::Far);
        assert_eq!(rig.receive(100 + size - 1, 0), Place::Early);
        rig.receive_all(100..100 + size - 1);
        assert_eq!(rig.out, (100..100 + size).collect::<Vec<_>>());
        assert_eq!(rig.lost, 0);
    }

    #[test]
    fn numbers_wrap() {
        let mut rig = Rig::started_at(u32::MAX - 2);
        rig.receive_all([u32::MAX - 2, u32::MAX, u32::MAX - 1, 1, 0, 2]);
        assert_eq!(rig.out, [u32::MAX - 2, u32::MAX - 1, u32::MAX, 0, 1, 2]);
        assert_eq!(rig.receive(u32::MAX, 0), Place::Duplicate);
        assert_eq!(rig.window.take_acknowledgment(), Some(2));
    }

    #[test]
    fn one_forged_jump_changes_nothing() {
        let mut rig = Rig::started_at(10);
        rig.receive_all([10, 5_000_000, 11, 900_000, 12, 900_001, 13]);
        assert_eq!(rig.out, [10, 11, 12, 13]);
        assert_eq!(rig.lost, 0);
    }

    #[test]
    fn a_jump_that_several_packets_confirm_is_followed() {
        let mut rig = Rig::started_at(10);
        rig.receive_all([10, 1000, 1001, 1002, 1003]);
        assert_eq!(rig.out, [10, 1002, 1003]);
        assert_eq!(rig.lost, 991);
    }

    #[test]
    fn a_jump_back_needs_silence_too() {
        let mut rig = Rig::started_at(100_000);
        rig.receive(100_000, 0);
        for number in 5..10 {
            assert_eq!(rig.receive(number, 10), Place::Far);
        }
        assert_eq!(rig.out, [100_000]);
        rig.receive(10, limits::RESYNC_QUIET_MS);
        assert_eq!(rig.out, [100_000, 10]);
        assert_eq!(rig.window.take_acknowledgment(), Some(10));
    }

    #[test]
    fn acknowledgments_are_owed_for_what_came() {
        let mut rig = Rig::fresh();
        assert_eq!(rig.window.take_acknowledgment(), None);
        rig.receive(1, 50);
        rig.receive(3, 60);
        assert_eq!(
            rig.window.acknowledgment_deadline_ms(),
            Some(50 + limits::ACK_DELAY_MS)
        );
        assert_eq!(rig.window.take_acknowledgment(), Some(3));
        assert_eq!(rig.window.take_acknowledgment(), None);
        rig.receive(2, 70);
        assert_eq!(rig.window.take_acknowledgment(), Some(3), "the highest");
        rig.receive_all(4..4 + limits::ACK_EVERY_PACKETS);
        assert_eq!(rig.window.acknowledgment_deadline_ms(), Some(0), "at once");
    }

    #[test]
    fn the_peers_acknowledgments_are_noted_if_they_can_be_true() {
        let mut sent = SendSequence::new();
        assert_eq!((sent.take(), sent.take(), sent.take()), (1, 2, 3));
        assert_eq!(sent.unacknowledged(), 3);
        sent.acknowledge(2);
        assert_eq!(sent.unacknowledged(), 1);
        sent.acknowledge(1);
        sent.acknowledge(9);
        assert_eq!(sent.unacknowledged(), 1, "old, and not sent yet");
    }
}
