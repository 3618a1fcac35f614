//! One aligned piece of memory, cut into slots that worker and kernel hand to each other.
//!
//! Behind the ordinary slots there may be room for a packet ring: its frames are slots too, mapped
//! where the arena's own memory would be, so packets are used where the kernel has put them.

use std::alloc::{Layout, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

use crate::frame::{Frame, Slot, Slots};
use crate::limits;
use crate::sys::resident;

/// A ring is mapped where a page begins, whatever the size of pages.
const RING_ALIGNMENT: usize = 1 << 16;

/// Who may touch the bytes of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Worker,
    Kernel,
}

/// The arena of one worker: packets, unless another length is given. Slots that the kernel owns
/// cannot be touched: the worker panics.
#[derive(Debug)]
pub(super) struct Arena<const SLOT_BYTES: usize = { limits::SLOT_BYTES }> {
    base: NonNull<u8>,
    owners: Vec<Owner>,
    /// Slots from this on are frames of the packet ring.
    ring_first: usize,
}

// SAFETY: the arena is the only owner of its memory, and nothing in it depends on the thread.
unsafe impl<const SLOT_BYTES: usize> Send for Arena<SLOT_BYTES> {}

impl<const SLOT_BYTES: usize> Arena<SLOT_BYTES> {
    /// `slots` zeroed slots, all the worker's.
    pub(super) fn new(slots: usize) -> Self {
        Self::with_ring(slots, 0)
    }

    /// `slots` zeroed slots or a few more, all the worker's, and behind them room for a ring of
    /// `frames`, which are the kernel's.
    pub(super) fn with_ring(slots: usize, frames: usize) -> Self {
        let ring_first = match frames {
            0 => slots,
            _ => (slots * SLOT_BYTES).next_multiple_of(RING_ALIGNMENT) / SLOT_BYTES,
        };
        let count = ring_first + frames;
        assert!((1..=1 << 16).contains(&count), "slots have 16-bit names");
        let mut owners = vec![Owner::Worker; ring_first];
        owners.resize(count, Owner::Kernel);
        let base = Self::map(count);
        // SAFETY: it has just been mapped, and the ring begins behind it.
        unsafe { resident::keep(base, ring_first * SLOT_BYTES) };
        Self {
            base,
            owners,
            ring_first,
        }
    }

    /// Memory of zeros that is taken page by page when it is touched.
    fn map(count: usize) -> NonNull<u8> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses an address that is not in use, and no file is involved.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                count * SLOT_BYTES,
                protection,
                flags,
                -1,
                0,
            )
        };
        match NonNull::new(memory.cast()) {
            Some(base) if memory != libc::MAP_FAILED => base,
            _ => match Layout::from_size_align(count * SLOT_BYTES, 1) {
                Ok(layout) => handle_alloc_error(layout),
                Err(error) => panic!("arena of {count} slots: {error}"),
            },
        }
    }

    /// Maps the packet ring of `socket`, which has as many frames, of `SLOT_BYTES` octets each, as
    /// there is room for. After a failure its slots stay the kernel's for ever.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "it replaces memory, so nobody may look into the arena meanwhile"
    )]
    pub(super) fn map_ring(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let begin = self.address(self.ring_slot(0));
        let len = self.ring_frames() * SLOT_BYTES;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: the range is the end of the arena's own mapping, and all its slots are the
        // kernel's, so nobody has a reference into what is replaced.
        let memory = unsafe {
            libc::mmap(
                begin.as_ptr().cast(),
                len,
                protection,
                flags,
                socket.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Frames that the packet ring has.
    pub(super) const fn ring_frames(&self) -> usize {
        self.owners.len() - self.ring_first
    }

    /// The slot that is this frame of the packet ring.
    pub(super) const fn ring_slot(&self, frame: usize) -> Slot {
        Slot((self.ring_first + frame) as u16)
    }

    /// Whether the slot is a frame of the packet ring.
    pub(super) const fn is_of_ring(&self, slot: Slot) -> bool {
        slot.0 as usize >= self.ring_first
    }

    /// Whether the kernel owns the slot.
    pub(super) fn is_lent(&self, slot: Slot) -> bool {
        self.owners[usize::from(slot.0)] == Owner::Kernel
    }

    /// The first word of a frame of the ring, by which worker and kernel hand it to each other.
    pub(super) fn ring_status(&self, slot: Slot) -> &AtomicU32 {
        assert!(self.is_of_ring(slot) && self.is_lent(slot), "{slot:?}");
        // SAFETY: the slot is the kernel's, so there is no reference into it; it is aligned far
        // better than a word, lives as long as the arena, and both sides access the word
        // atomically.
        unsafe { AtomicU32::from_ptr(self.address(slot).as_ptr().cast()) }
    }

    /// Where the worker's own slots lie, one behind the other, and their length in octets.
    pub(super) const fn memory(&self) -> (NonNull<u8>, usize) {
        (self.base, self.ring_first * SLOT_BYTES)
    }

    /// Gives the slot to the kernel, and returns where it begins.
    pub(super) fn lend(&mut self, slot: Slot) -> NonNull<u8> {
        self.change_owner(slot, Owner::Worker, Owner::Kernel);
        self.address(slot)
    }

    /// Gives the slot to the kernel, and returns where the packet in it begins.
    pub(super) fn lend_packet(&mut self, frame: Frame) -> NonNull<u8> {
        assert!(frame.range().end <= SLOT_BYTES, "{frame:?}");
        let begin = self.lend(frame.slot);
        // SAFETY: the packet ends within its slot, as has been checked, so it begins there too.
        unsafe { begin.add(usize::from(frame.start)) }
    }

    /// Copies a packet to the same place in another slot; both are the worker's.
    pub(super) fn copy(&mut self, frame: Frame, to: Slot) {
        let mut octets = [0; SLOT_BYTES];
        octets[frame.range()].copy_from_slice(frame.bytes(self));
        self.slot_mut(to)[frame.range()].copy_from_slice(&octets[frame.range()]);
    }

    /// Takes the slot back: the kernel has said that it is done with it.
    pub(super) fn take_back(&mut self, slot: Slot) {
        self.change_owner(slot, Owner::Kernel, Owner::Worker);
    }

    fn change_owner(&mut self, slot: Slot, from: Owner, to: Owner) {
        let owner = &mut self.owners[usize::from(slot.0)];
        assert_eq!(*owner, from, "{slot:?} changes hands");
        *owner = to;
    }

    fn check(&self, slot: Slot) {
        let owner = self.owners[usize::from(slot.0)];
        assert_eq!(owner, Owner::Worker, "{slot:?} is touched");
    }

    /// Panics when there is no such slot: `owners` has been indexed before.
    fn address(&self, slot: Slot) -> NonNull<u8> {
        // SAFETY: all callers have indexed `owners` with this slot, so the offset lies within the
        // mapping of `owners.len() * SLOT_BYTES` octets.
        unsafe { self.base.add(usize::from(slot.0) * SLOT_BYTES) }
    }
}

impl<const SLOT_BYTES: usize> Slots for Arena<SLOT_BYTES> {
    fn slot(&self, slot: Slot) -> &[u8] {
        self.check(slot);
        // SAFETY: the slot lies within the mapping, the kernel does not own it, and
        // `&self` keeps the worker from writing.
        unsafe { std::slice::from_raw_parts(self.address(slot).as_ptr(), SLOT_BYTES) }
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.check(slot);
        // SAFETY: the slot lies within the mapping, the kernel does not own it, and
        // `&mut self` keeps every other reference away.
        unsafe { std::slice::from_raw_parts_mut(self.address(slot).as_ptr(), SLOT_BYTES) }
    }
}

impl<const SLOT_BYTES: usize> Drop for Arena<SLOT_BYTES> {
    fn drop(&mut self) {
        let len = self.owners.len() * SLOT_BYTES;
        // SAFETY: `map` mapped exactly this range, with a ring in its end or without. `Uring` drops
        // the arena only when the kernel has finished with every slot.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), len) };
        debug_assert_eq!(result, 0, "the mapping is the arena's own");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SLOT_BYTES;

    type Arena = super::Arena;

    #[test]
    fn slots_are_apart_and_aligned() {
        let mut arena = Arena::new(3);
        arena.slot_mut(Slot(1)).fill(1);
        assert_eq!(arena.slot(Slot(0)), &[0; SLOT_BYTES]);
        assert_eq!(arena.slot(Slot(2)), &[0; SLOT_BYTES]);
        assert_eq!(arena.slot(Slot(0)).as_ptr().align_offset(4096), 0);
        arena.slot_mut(Slot(2)).fill(3);
        arena.slot_mut(Slot(0)).fill(2);
        assert_eq!(arena.slot(Slot(1)), &[1; SLOT_BYTES]);
    }

    #[test]
    fn a_lent_slot_comes_back_with_what_the_kernel_wrote() {
        let mut arena = Arena::new(2);
        let address = arena.lend(Slot(1));
        // SAFETY: the address is that of a whole slot, which nobody else touches while it is lent.
        unsafe { address.write(7) };
        arena.take_back(Slot(1));
        assert_eq!(arena.slot(Slot(1))[0], 7);
    }

    #[test]
    fn a_ring_lies_on_a_page_behind_all_slots_and_is_the_kernels() {
        let mut arena = Arena::with_ring(3, 64);
        assert_eq!(arena.ring_frames(), 64);
        let first = arena.ring_slot(0);
        assert!(arena.is_of_ring(first) && !arena.is_of_ring(Slot(first.0 - 1)));
        let offset = usize::from(first.0) * SLOT_BYTES;
        assert_eq!(offset % RING_ALIGNMENT, 0);
        assert!(arena.is_lent(first) && !arena.is_lent(Slot(2)));
        arena.take_back(first);
        assert_eq!(arena.slot(first)[0], 0);
    }

    #[test]
    #[should_panic(expected = "touched")]
    fn what_the_kernel_owns_is_not_touched() {
        let mut arena = Arena::new(2);
        arena.lend(Slot(1));
        let _ = arena.slot_mut(Slot(1));
    }

    #[test]
    #[should_panic(expected = "changes hands")]
    fn nothing_is_lent_twice() {
        let mut arena = Arena::new(2);
        arena.lend(Slot(1));
        arena.lend(Slot(1));
    }
}
