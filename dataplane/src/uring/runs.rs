//! What `writev` reads while joined packets are on their way to a TUN device: records allocated
//! once.

use std::ptr::{self, NonNull};

use crate::frame::Slot;
use crate::limits::{GATHERS_MAX, RUN_PACKETS_MAX};

/// One joined write.
struct Record {
    parts: [libc::iovec; RUN_PACKETS_MAX],
    slots: [Slot; RUN_PACKETS_MAX],
    count: usize,
}

/// The records of all joined writes.
pub(super) struct Runs {
    records: Vec<Record>,
    free: Vec<u16>,
}

// SAFETY: the pointers in the records lead to the arena, which the same `Uring` owns; nothing in
// them depends on the thread.
unsafe impl Send for Runs {}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Runs({} of {} free)",
            self.free.len(),
            self.records.len()
        )
    }
}

impl Runs {
    /// All records free.
    pub(super) fn new() -> Self {
        let none = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        let empty = || Record {
            parts: [none; RUN_PACKETS_MAX],
            slots: [Slot(0); RUN_PACKETS_MAX],
            count: 0,
        };
        let records = std::iter::repeat_with(empty).take(usize::from(GATHERS_MAX));
        Self {
            records: records.collect(),
            free: (0..GATHERS_MAX).collect(),
        }
    }

    /// Whether one more write can begin.
    pub(super) const fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a record for these parts: slots that the arena has lent, where the octets begin in
    /// them, and how many they are. Returns the record, and its vector for the kernel; `None` when
    /// no record is free.
    pub(super) fn begin(
        &mut self,
        parts: impl Iterator<Item = (Slot, NonNull<u8>, usize)>,
    ) -> Option<(u16, *const libc::iovec, u32)> {
        let index = self.free.pop()?;
        let record = &mut self.records[usize::from(index)];
        record.count = 0;
        for (slot, begin, len) in parts {
            record.slots[record.count] = slot;
            record.parts[record.count] = libc::iovec {
                iov_base: begin.as_ptr().cast(),
                iov_len: len,
            };
            record.count += 1;
        }
        Some((index, record.parts.as_ptr(), record.count as u32))
    }

    /// The write has completed: its slots, for the arena to take back. The record is free.
    pub(super) fn end(&mut self, index: u16) -> ([Slot; RUN_PACKETS_MAX], usize) {
        self.free.push(index);
        let record = &self.records[usize::from(index)];
        (record.slots, record.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_in_use_until_its_write_has_ended() {
        let mut runs = Runs::new();
        let mut octet = 0u8;
        let part = |slot| (Slot(slot), NonNull::from(&mut octet), 1);
        let parts = [4, 2].map(part);
        let (first, _, count) = runs.begin(parts.into_iter()).unwrap();
        assert_eq!(count, 2);
        let others = std::iter::from_fn(|| runs.begin(parts[..1].iter().copied()));
        let others: Vec<u16> = others.map(|(index, ..)| index).collect();
        assert_eq!(others.len(), usize::from(GATHERS_MAX) - 1);
        assert!(!others.contains(&first) && !runs.has_free());
        let (slots, count) = runs.end(first);
        assert_eq!(slots[..count], [Slot(4), Slot(2)]);
        assert!(runs.has_free());
    }
}
