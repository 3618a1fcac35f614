//! A ring of provided buffers: the slots that the kernel may fill next (Linux
//! `io_uring_register_buf_ring(3)`).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::frame::Slot;
use crate::sys::probe::{RingError, classify_buffer_ring};

/// The kernel maps the ring, so it begins on a page.
const ALIGNMENT: usize = 4096;

/// The ring of one buffer group. The buffer ID is the number of the slot.
#[derive(Debug)]
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    /// A power of two.
    capacity: u16,
    group: u16,
    /// Where the next entry goes; the kernel sees it after `publish`.
    tail: u16,
    /// Buffers that the kernel has and has not used.
    available: u16,
}

// SAFETY: the ring is the only owner of its memory, and nothing in it depends on the thread.
unsafe impl Send for BufferRing {}

impl BufferRing {
    /// An empty ring of `capacity` entries, a power of two, registered as buffer group `group`.
    pub(super) fn register(
        submitter: &Submitter<'_>,
        group: u16,
        capacity: u16,
    ) -> Result<Self, RingError> {
        assert!(capacity.is_power_of_two());
        let layout = Self::layout(capacity);
        // SAFETY: the layout is not empty, since a power of two is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(memory.cast()) else {
            handle_alloc_error(layout)
        };
        let ring = Self {
            entries,
            capacity,
            group,
            tail: 0,
            available: 0,
        };
        let address = entries.as_ptr() as u64;
        // SAFETY: the memory is aligned to a page, zeroed, holds `capacity` entries, and is freed
        // only with this ring, which `Uring` drops after the io_uring that it is registered with.
        unsafe { submitter.register_buf_ring_with_flags(address, capacity, group, 0) }
            .map_err(classify_buffer_ring)?;
        Ok(ring)
    }

    /// The buffer group that receives name.
    pub(super) const fn group(&self) -> u16 {
        self.group
    }

    /// Whether the kernel has a buffer left.
    pub(super) const fn has_available(&self) -> bool {
        self.available > 0
    }

    /// Gives `len` octets at `begin` into the ring. They lie in a slot of which the arena says that
    /// the kernel owns it now.
    pub(super) fn push(&mut self, slot: Slot, begin: NonNull<u8>, len: usize) {
        assert!(self.available < self.capacity, "every slot is in once");
        let index = usize::from(self.tail & (self.capacity - 1));
        // SAFETY: the index is less than `capacity`, the length of the allocation in entries.
        let entry = unsafe { self.entries.add(index) };
        // SAFETY: the entry is initialized, for the allocation was zeroed; only this thread writes
        // to it, and the kernel reads it only after `publish`.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(begin.as_ptr() as u64);
        entry.set_len(len as u32);
        entry.set_bid(slot.0);
        self.tail = self.tail.wrapping_add(1);
        self.available += 1;
    }

    /// Lets the kernel see what has been pushed.
    pub(super) fn publish(&self) {
        // SAFETY: `entries` is the first entry of a registered ring, and initialized.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is an aligned u16 in this ring's memory; kernel and worker access it
        // atomically only.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entries are written before the kernel sees the tail.
        tail.store(self.tail, Ordering::Release);
    }

    /// The kernel has used one buffer.
    pub(super) fn consume(&mut self) {
        assert!(self.available > 0, "the kernel had a buffer to use");
        self.available -= 1;
    }

    fn layout(capacity: u16) -> Layout {
        let bytes = usize::from(capacity) * size_of::<BufRingEntry>();
        match Layout::from_size_align(bytes, ALIGNMENT) {
            Ok(layout) => layout,
            Err(error) => panic!("ring of {capacity} buffers: {error}"),
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: `register` allocated exactly this layout, and the io_uring that used it has been
        // dropped before, as `register` demands.
        unsafe { dealloc(self.entries.as_ptr().cast(), Self::layout(self.capacity)) };
    }
}
