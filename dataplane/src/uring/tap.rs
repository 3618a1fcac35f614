//! Takes GRE packets out of the packet ring (Linux `Documentation/networking/packet_mmap.rst`,
//! TPACKET_V2), whose frames are slots of the arena, and gives the frames back.
//!
//! The kernel fills frames in order. The first word of a frame says whose it is; the worker looks
//! at the next one only, so no system call is needed to find packets.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering;

use super::arena::Arena;
use crate::frame::{Frame, Slot, Slots};
use crate::io::{Arrivals, IoCounters};
use crate::limits::{RING_PACKETS, SLOT_BYTES};
use crate::sys::packet_ring::PacketRing;
use crate::wire::ipv4::plain_checksum_holds;

/// Where `tp_len`, `tp_snaplen` and `tp_net` stand in a frame (`struct tpacket2_hdr`).
const LEN_AT: usize = std::mem::offset_of!(libc::tpacket2_hdr, tp_len);
const SNAPLEN_AT: usize = std::mem::offset_of!(libc::tpacket2_hdr, tp_snaplen);
const NET_AT: usize = std::mem::offset_of!(libc::tpacket2_hdr, tp_net);

/// The ring of one worker, when there is one.
#[derive(Debug)]
pub(super) struct Tap {
    ring: Option<PacketRing>,
    /// The frame that the kernel fills next, or has filled and nobody has looked at.
    head: usize,
    /// Frames that the worker has, and those that it has lent for writing.
    outstanding: usize,
}

impl Tap {
    /// No ring.
    pub(super) const fn new() -> Self {
        Self {
            ring: None,
            head: 0,
            outstanding: 0,
        }
    }

    /// Maps the ring into the arena, once.
    pub(super) fn attach(&mut self, arena: &mut Arena, ring: PacketRing) -> std::io::Result<()> {
        assert!(self.ring.is_none(), "there is one ring");
        arena.map_ring(ring.as_fd())?;
        self.ring = Some(ring);
        Ok(())
    }

    /// What is readable while the newest frame has not been given back.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.ring.as_ref().map(|ring| ring.as_fd().as_raw_fd())
    }

    /// Whether `fd` may be readable for frames that have been taken already.
    pub(super) const fn has_outstanding(&self) -> bool {
        self.outstanding > 0
    }

    /// Whether `count` packets wait, one at least and no more than frames.
    pub(super) fn has_waiting(&self, arena: &Arena, count: usize) -> bool {
        self.ring.is_some() && is_filled(arena, self.slot(arena, count - 1))
    }

    /// Takes what waits, as far as `limits::RING_PACKETS` allow.
    pub(super) fn take(
        &mut self,
        arena: &mut Arena,
        arrivals: &mut Arrivals,
        counters: &IoCounters,
    ) {
        if self.ring.is_none() {
            return;
        }
        for _ in 0..RING_PACKETS {
            let slot = self.slot(arena, 0);
            if !is_filled(arena, slot) {
                return;
            }
            self.head = (self.head + 1) % arena.ring_frames();
            self.outstanding += 1;
            arena.take_back(slot);
            match packet(arena, slot) {
                Some(frame) => {
                    counters.gre_received.add(1);
                    counters.gre_received_directly.add(1);
                    arrivals.gre.push(frame);
                }
                None => {
                    counters.ring_damaged.add(1);
                    self.give_back(arena, slot);
                }
            }
        }
    }

    /// Lets the kernel fill the frame again.
    pub(super) fn give_back(&mut self, arena: &mut Arena, slot: Slot) {
        arena.lend(slot);
        self.outstanding -= 1;
        let status = arena.ring_status(slot);
        // Release: whatever was done with the packet is done before the kernel fills the frame.
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }

    /// Counts what the kernel had no frame for: a system call, so not for each packet.
    pub(super) fn count_drops(&self, counters: &IoCounters) {
        if let Some(ring) = &self.ring {
            counters.ring_full.add(ring.drops().into());
        }
    }

    /// Takes an error of the socket away.
    pub(super) fn clear_error(&self) {
        if let Some(ring) = &self.ring {
            ring.clear_error();
        }
    }

    fn slot(&self, arena: &Arena, ahead: usize) -> Slot {
        arena.ring_slot((self.head + ahead) % arena.ring_frames())
    }
}

/// Whether there is a packet in the frame that nobody has taken. One that the worker still has when
/// the ring has come round is no new one.
fn is_filled(arena: &Arena, slot: Slot) -> bool {
    // Acquire: the kernel has written the packet before the status.
    arena.is_lent(slot)
        && arena.ring_status(slot).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
}

/// The packet in a frame. None when it has been cut or its header is damaged: the IP stack, which
/// would have looked, has not seen it.
fn packet(arena: &Arena, slot: Slot) -> Option<Frame> {
    let frame = arena.slot(slot);
    let word = |at: usize| Some(u32::from_ne_bytes(*frame[at..].first_chunk()?));
    let (len, snaplen) = (word(LEN_AT)?, word(SNAPLEN_AT)?);
    let begin = u16::from_ne_bytes(*frame[NET_AT..].first_chunk()?);
    let is_whole = len == snaplen && usize::from(begin) + snaplen as usize <= SLOT_BYTES;
    let packet = Frame::new(
        slot,
        begin,
        u16::try_from(snaplen).ok().filter(|_| is_whole)?,
    );
    plain_checksum_holds(packet.bytes(arena)).then_some(packet)
}
