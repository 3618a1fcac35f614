//! What was read from TUN devices, until it has been cut into packets.
//!
//! A read takes a buffer that holds the longest packet; its pieces go into slots of the arena, and
//! then the buffer is read into again. When no slot is left, what was read waits here.

use std::collections::VecDeque;

use io_uring::Submitter;

use super::arena::Arena;
use super::buffers::BufferRing;
use crate::frame::{Frame, Slot, Slots};
use crate::io::{Arrivals, IoCounters};
use crate::limits::{HEADROOM_BYTES, READ_BUFFERS, READ_BYTES, SLOT_BYTES, SPLIT_PACKETS};
use crate::offload::TunFeatures;
use crate::offload::split::Split;
use crate::program::TunId;
use crate::sys::probe::RingError;

/// The buffers, and what is in them.
#[derive(Debug)]
pub(super) struct Reads {
    buffers: BufferRing,
    arena: Arena<READ_BYTES>,
    /// In the order in which they were read.
    waiting: VecDeque<Read>,
    /// Slots of the other arena for the pieces.
    free: Vec<Slot>,
}

/// One read.
#[derive(Clone, Copy, Debug)]
struct Read {
    tun: TunId,
    has_header: bool,
    buffer: Slot,
    len: usize,
    /// Pieces that have been cut off already.
    taken: usize,
}

impl Reads {
    /// All buffers with the kernel, as buffer group `group`. There is room for `slots` free slots.
    pub(super) fn new(
        submitter: &Submitter<'_>,
        group: u16,
        slots: usize,
    ) -> Result<Self, RingError> {
        let mut reads = Self {
            buffers: BufferRing::register(submitter, group, READ_BUFFERS)?,
            arena: Arena::new(usize::from(READ_BUFFERS)),
            waiting: VecDeque::with_capacity(usize::from(READ_BUFFERS)),
            free: Vec::with_capacity(slots),
        };
        (0..READ_BUFFERS).for_each(|buffer| reads.give_back(Slot(buffer)));
        Ok(reads)
    }

    /// The ring of buffers.
    pub(super) const fn buffers(&self) -> &BufferRing {
        &self.buffers
    }

    /// A slot for a piece is free again.
    pub(super) fn release(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// Whether there is something to cut, and a slot to put it into.
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() && !self.free.is_empty()
    }

    /// The kernel has used a buffer for a read of `len` octets, of a device that is attached, or
    /// without success.
    pub(super) fn arrive(
        &mut self,
        buffer: Slot,
        len: usize,
        device: Option<(TunId, TunFeatures)>,
    ) {
        self.arena.take_back(buffer);
        self.buffers.consume();
        match device {
            Some((tun, features)) if len > 0 => self.waiting.push_back(Read {
                tun,
                has_header: features.vnet_header,
                buffer,
                len,
                taken: 0,
            }),
            _ => self.give_back(buffer),
        }
    }

    /// Cuts what was read into packets, as many as slots and `limits::SPLIT_PACKETS` allow.
    pub(super) fn split(
        &mut self,
        arena: &mut Arena,
        arrivals: &mut Arrivals,
        counters: &IoCounters,
    ) {
        let mut packets_left = SPLIT_PACKETS;
        while let Some(read) = self.waiting.front_mut() {
            let bytes = &self.arena.slot(read.buffer)[..read.len];
            let split = if read.has_header {
                Split::parse(bytes, SLOT_BYTES - HEADROOM_BYTES)
            } else {
                Split::plain(bytes, SLOT_BYTES - HEADROOM_BYTES)
            };
            match split {
                Ok(split) => {
                    let count = split.count().min(read.taken + packets_left);
                    while read.taken < count {
                        let Some(slot) = self.free.pop() else {
                            return;
                        };
                        let out = &mut arena.slot_mut(slot)[HEADROOM_BYTES..];
                        let len = split.emit(read.taken, out);
                        let frame = Frame::new(slot, HEADROOM_BYTES as u16, len as u16);
                        arrivals.tun.push((read.tun, frame));
                        counters.tun_read.add(1);
                        packets_left -= 1;
                        read.taken += 1;
                    }
                    if count < split.count() {
                        return;
                    }
                    counters.trains_read.add(u64::from(count > 1));
                }
                Err(_) => counters.split_failed.add(1),
            }
            let buffer = read.buffer;
            self.waiting.pop_front();
            self.give_back(buffer);
        }
    }

    fn give_back(&mut self, buffer: Slot) {
        let begin = self.arena.lend(buffer);
        self.buffers.push(buffer, begin, READ_BYTES);
    }
}
