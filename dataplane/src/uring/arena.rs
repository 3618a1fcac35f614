//! One aligned piece of memory, cut into slots that worker and kernel hand to each other.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::frame::{Frame, Slot, Slots};
use crate::limits;

/// So that no slot straddles a page, and the kernel pins or maps whole pages.
const ALIGNMENT: usize = 4096;

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
}

// SAFETY: the arena is the only owner of its memory, and nothing in it depends on the thread.
unsafe impl<const SLOT_BYTES: usize> Send for Arena<SLOT_BYTES> {}

impl<const SLOT_BYTES: usize> Arena<SLOT_BYTES> {
    /// `slots` zeroed slots, all the worker's.
    pub(super) fn new(slots: usize) -> Self {
        assert!((1..=1 << 16).contains(&slots), "slots have 16-bit names");
        let layout = Self::layout(slots);
        // SAFETY: the layout is not empty, for there is a slot at least.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        Self {
            base,
            owners: vec![Owner::Worker; slots],
        }
    }

    /// Where all slots lie, one behind the other, and their length in octets.
    pub(super) const fn memory(&self) -> (NonNull<u8>, usize) {
        (self.base, self.owners.len() * SLOT_BYTES)
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
        // allocation of `owners.len() * SLOT_BYTES` octets.
        unsafe { self.base.add(usize::from(slot.0) * SLOT_BYTES) }
    }

    fn layout(slots: usize) -> Layout {
        match Layout::from_size_align(slots * SLOT_BYTES, ALIGNMENT) {
            Ok(layout) => layout,
            Err(error) => panic!("arena of {slots} slots: {error}"),
        }
    }
}

impl<const SLOT_BYTES: usize> Slots for Arena<SLOT_BYTES> {
    fn slot(&self, slot: Slot) -> &[u8] {
        self.check(slot);
        // SAFETY: the slot lies within the zeroed allocation, the kernel does not own it, and
        // `&self` keeps the worker from writing.
        unsafe { std::slice::from_raw_parts(self.address(slot).as_ptr(), SLOT_BYTES) }
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.check(slot);
        // SAFETY: the slot lies within the zeroed allocation, the kernel does not own it, and
        // `&mut self` keeps every other reference away.
        unsafe { std::slice::from_raw_parts_mut(self.address(slot).as_ptr(), SLOT_BYTES) }
    }

    fn slots_mut<const N: usize>(&mut self, slots: [Slot; N]) -> [&mut [u8]; N] {
        for (index, slot) in slots.iter().enumerate() {
            self.check(*slot);
            assert!(!slots[..index].contains(slot), "{slots:?} are lent at once");
        }
        slots.map(|slot| {
            // SAFETY: as in `slot_mut`; that the slots differ has been checked, so the slices do
            // not overlap.
            unsafe { std::slice::from_raw_parts_mut(self.address(slot).as_ptr(), SLOT_BYTES) }
        })
    }
}

impl<const SLOT_BYTES: usize> Drop for Arena<SLOT_BYTES> {
    fn drop(&mut self) {
        let layout = Self::layout(self.owners.len());
        // SAFETY: `new` allocated exactly this layout. `Uring` drops the arena only when the
        // kernel has finished with every slot.
        unsafe { dealloc(self.base.as_ptr(), layout) };
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
        assert_eq!(arena.slot(Slot(0)).as_ptr().align_offset(ALIGNMENT), 0);
        let [c, a] = arena.slots_mut([Slot(2), Slot(0)]);
        c.fill(3);
        a.fill(2);
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
    #[should_panic(expected = "touched")]
    fn what_the_kernel_owns_is_not_touched() {
        let mut arena = Arena::new(2);
        arena.lend(Slot(1));
        let _ = arena.slots_mut([Slot(0), Slot(1)]);
    }

    #[test]
    #[should_panic(expected = "changes hands")]
    fn nothing_is_lent_twice() {
        let mut arena = Arena::new(2);
        arena.lend(Slot(1));
        arena.lend(Slot(1));
    }

    #[test]
    #[should_panic(expected = "lent at once")]
    fn one_slot_is_not_lent_to_two_lanes() {
        let _ = Arena::new(2).slots_mut([Slot(1), Slot(1)]);
    }
}
