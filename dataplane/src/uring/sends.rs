//! How packets leave a worker: through an AF_XDP socket, the packet socket, or the raw socket, each
//! in batches; what one of the first two refuses goes through the raw socket.

use std::os::fd::{AsFd, AsRawFd};

use io_uring::opcode;
use io_uring::types::Fd;
use nix::errno::Errno;

use super::Uring;
use super::token::Token;
use crate::frame::{Frame, Slot};
use crate::io::{Io, Route};
use crate::limits;

impl Uring {
    /// Hands over what waits for a next hop, and gives to the raw socket what is refused.
    pub(super) fn flush_direct(&mut self) {
        self.flush_xdp();
        let (mut waiting, sent) = self.direct.flush(&self.memory.arena);
        self.counters.gre_sent.add(sent as u64);
        self.counters.gre_sent_directly.add(sent as u64);
        for (index, packet) in waiting.drain(..).enumerate() {
            if index < sent {
                self.release(packet.frame.slot);
            } else {
                self.send_raw(packet.without_header(), packet.route);
            }
        }
        self.direct.recycle(waiting);
    }

    /// What an interface that has failed had not taken is lost, as if it had been on its wire.
    pub(super) fn flush_xdp(&mut self) {
        if self.xdp.lent() == 0 {
            return;
        }
        let now_ms = self.now_ms();
        if let Some(flushed) = self.xdp.flush(now_ms) {
            self.counters.gre_sent.add(flushed.sent as u64);
            self.counters.gre_sent_by_xdp.add(flushed.sent as u64);
            self.counters.send_failed.add(flushed.dropped as u64);
            self.xdp_lost.extend(flushed.failure);
        }
        self.reap_xdp(now_ms);
    }

    pub(super) fn reap_xdp(&mut self, now_ms: u64) {
        if self.xdp.lent() == 0 {
            return;
        }
        let mut done = std::mem::take(&mut self.xdp_done);
        self.xdp.reap(now_ms, |slot| done.push(slot));
        for slot in done.drain(..) {
            self.memory.arena.take_back(slot);
            self.release(slot);
        }
        self.xdp_done = done;
    }

    /// Queues a packet for the raw socket, behind those that the ring has still to send.
    pub(super) fn send_raw(&mut self, frame: Frame, route: Route) {
        if self.sends > 0 {
            self.send_by_ring(frame, route);
            return;
        }
        self.outgoing.push((frame, route));
        if self.outgoing.len() == limits::DIRECT_PACKETS {
            self.flush_raw();
        }
    }

    /// Hands over what waits for the raw socket.
    pub(super) fn flush_raw(&mut self) {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let mut rest = &outgoing[..];
        for &(frame, route) in rest {
            self.address(frame, route);
        }
        while !rest.is_empty() {
            let slots = rest.iter().map(|(frame, _)| frame.slot);
            let (sent, errno) = self.memory.outbox.send(self.gre.as_fd(), slots);
            self.counters.gre_sent.add(sent as u64);
            let is_full = sent == 0 && matches!(errno, Errno::EAGAIN | Errno::ENOBUFS);
            let done = if is_full { 0 } else { sent.max(1) };
            // Whatever the network refuses is lost as any packet may be; the tunnel goes on.
            self.counters.send_failed.add((done - sent) as u64);
            for (frame, _) in &rest[..done] {
                self.memory.arena.take_back(frame.slot);
                self.release(frame.slot);
            }
            rest = &rest[done..];
            if is_full {
                break;
            }
        }
        for &(frame, route) in rest {
            self.memory.arena.take_back(frame.slot);
            self.send_by_ring(frame, route);
        }
        outgoing.clear();
        self.outgoing = outgoing;
    }

    /// Lends the packet, and writes its message.
    fn address(&mut self, frame: Frame, route: Route) -> *const libc::msghdr {
        let packet = self.memory.arena.lend_packet(frame);
        let (outbox, len) = (&mut self.memory.outbox, frame.len());
        outbox.address(frame.slot, packet, len, route.peer, route.local)
    }

    /// Sends through the raw socket as soon as it has room.
    fn send_by_ring(&mut self, frame: Frame, route: Route) {
        let slot = frame.slot;
        let message = self.address(frame, route);
        let entry = opcode::SendMsg::new(Fd(self.gre.as_raw_fd()), message).build();
        self.sends += 1;
        // SAFETY: packet and message are those of a slot that the arena has lent until the
        // operation has completed.
        unsafe { self.ring.push(entry, Token::Send { slot }) };
    }

    pub(super) fn sent(&mut self, slot: Slot, result: i32) {
        self.sends -= 1;
        // Whatever the network refuses is lost as any packet may be; the tunnel goes on.
        let outcome = if result < 0 {
            &self.counters.send_failed
        } else {
            &self.counters.gre_sent
        };
        outcome.add(1);
        self.memory.arena.take_back(slot);
        self.release(slot);
    }
}
