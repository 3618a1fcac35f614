//! A packet in the arena: one slot and the part of it that is in use.
//!
//! Headers are pushed into the headroom and stripped by moving offsets; bytes never move.

/// Index of one arena slot. Whoever has it owns the slot; it is handed on, never shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// What owns the bytes of all slots.
///
/// A slot that the arena does not have is a programmer's error, and panics: slots never come from
/// the network.
pub trait Slots {
    /// The bytes of one slot, all of them.
    fn slot(&self, slot: Slot) -> &[u8];

    /// The bytes of one slot, all of them.
    fn slot_mut(&mut self, slot: Slot) -> &mut [u8];

    /// A packet will be held beyond this turn. From now on it is where this says: it may have to
    /// move out of memory that others wait for.
    fn keep(&mut self, frame: Frame) -> Frame {
        frame
    }
}

/// A packet: the octets `start..end` of a slot. Copying a `Frame` copies the name of the slot, not
/// the right to it: after it has been handed on, a copy must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where the bytes are.
    pub slot: Slot,
    /// First octet of the packet in the slot.
    pub start: u16,
    /// One past the last octet.
    pub end: u16,
}

impl Frame {
    /// A packet of `len` octets that begins at `start` in its slot; `start + len` fits the slot.
    #[must_use]
    pub const fn new(slot: Slot, start: u16, len: u16) -> Self {
        Self {
            slot,
            start,
            end: start + len,
        }
    }

    /// Octets of the packet.
    #[must_use]
    pub const fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The packet's octets.
    #[must_use]
    pub fn bytes<'a>(&self, slots: &'a impl Slots) -> &'a [u8] {
        &slots.slot(self.slot)[self.range()]
    }

    /// The packet's octets.
    pub fn bytes_mut<'a>(&self, slots: &'a mut impl Slots) -> &'a mut [u8] {
        &mut slots.slot_mut(self.slot)[self.range()]
    }

    /// Where the packet lies in its slot.
    #[must_use]
    pub const fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Takes `len` octets of headroom into the packet. False, and nothing changed, when the
    /// headroom is shorter.
    #[must_use]
    pub const fn push_header(&mut self, len: usize) -> bool {
        if len > self.start as usize {
            return false;
        }
        self.start -= len as u16;
        true
    }

    /// Leaves the first `len` octets out. False, and nothing changed, when the packet is shorter.
    #[must_use]
    pub const fn strip_header(&mut self, len: usize) -> bool {
        if len > self.len() {
            return false;
        }
        self.start += len as u16;
        true
    }

    /// Keeps the first `len` octets; a shorter packet stays as it is.
    pub const fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.end = self.start + len as u16;
        }
    }
}

/// An arena of ordinary memory, for tests, benchmarks and the simulator.
#[derive(Clone, Debug)]
pub struct VecArena {
    bytes: Vec<u8>,
    slot_bytes: usize,
}

impl VecArena {
    /// `slots` zeroed slots of `slot_bytes` octets each.
    #[must_use]
    pub fn new(slots: u16, slot_bytes: u16) -> Self {
        Self {
            bytes: vec![0; usize::from(slots) * usize::from(slot_bytes)],
            slot_bytes: usize::from(slot_bytes),
        }
    }

    /// Writes `packet` into `slot` behind `headroom` octets.
    ///
    /// # Panics
    /// When headroom and packet together are longer than the slot.
    pub fn fill(&mut self, slot: Slot, headroom: u16, packet: &[u8]) -> Frame {
        let frame = Frame::new(slot, headroom, packet.len() as u16);
        frame.bytes_mut(self).copy_from_slice(packet);
        frame
    }

    const fn range(&self, slot: Slot) -> std::ops::Range<usize> {
        let start = slot.0 as usize * self.slot_bytes;
        start..start + self.slot_bytes
    }
}

impl Slots for VecArena {
    fn slot(&self, slot: Slot) -> &[u8] {
        &self.bytes[self.range(slot)]
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut [u8] {
        let range = self.range(slot);
        &mut self.bytes[range]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pushed_and_stripped_without_moving_bytes() {
        let mut arena = VecArena::new(2, 64);
        let mut frame = arena.fill(Slot(1), 8, b"payload");
        assert!(frame.push_header(8));
        assert!(!frame.push_header(1));
        assert_eq!(frame.len(), 15);
        assert!(frame.strip_header(8));
        assert_eq!(frame.bytes(&arena), b"payload");
        frame.truncate(3);
        frame.truncate(9);
        assert_eq!(frame.bytes(&arena), b"pay");
        assert!(!frame.strip_header(4));
        assert!(frame.strip_header(3));
        assert!(frame.is_empty());
    }
}
