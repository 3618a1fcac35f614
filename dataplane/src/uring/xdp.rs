//! Sends GRE packets to a known next hop through AF_XDP sockets, one for each output interface.
//!
//! A packet's slot is lent to the kernel from the moment it is queued until the driver is done with
//! it. A socket that has failed, or is not wanted any more, is retired: it sends nothing, and is
//! closed when everything has come back. What its interface had not taken never comes back by
//! itself, and cannot be told from what it is late with; so after a while the rest is taken.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::arena::Arena;
use super::outer::Addressed;
use crate::frame::Slot;
use crate::limits::{self, DIRECT_PACKETS, SLOT_BYTES, XDP_SOCKETS_MAX};
use crate::sys::xdp_socket::{Memory, XdpSocket, XdpSocketError};

/// Destination, source, type (IEEE 802.3).
const ETHERNET_LEN: usize = 14;

const ETHERTYPE_IPV4: [u8; 2] = [8, 0];

/// The sockets of one worker.
#[derive(Debug)]
pub(super) struct Xdp {
    senders: Vec<Sender>,
    retired: Vec<Retired>,
}

#[derive(Debug)]
struct Sender {
    interface: u32,
    socket: XdpSocket,
    /// Packets that have been queued since the last request to send.
    new: usize,
    /// The driver was busy: there may be older ones.
    is_busy: bool,
    /// Packets queued since something last came back.
    unanswered: usize,
    lent: Lent,
}

#[derive(Debug)]
struct Retired {
    sender: Sender,
    /// When what has not come back is taken.
    until_ms: u64,
}

/// The slots that the kernel has of one socket.
#[derive(Debug)]
struct Lent {
    is_lent: Vec<bool>,
    count: usize,
}

/// What has become of the packets that waited.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    /// Packets that the kernel took.
    pub(super) sent: usize,
    /// Packets that it threw away.
    pub(super) dropped: usize,
    /// This interface has failed, and its socket is retired.
    pub(super) failure: Option<(u32, io::Error)>,
}

impl Xdp {
    /// Without a socket nothing goes this way.
    pub(super) fn new() -> Self {
        Self {
            senders: Vec::with_capacity(XDP_SOCKETS_MAX),
            retired: Vec::with_capacity(XDP_SOCKETS_MAX),
        }
    }

    /// Sends what goes out of `interface` through this socket from now on, out of `arena`, which
    /// must live until nothing is lent any more.
    pub(super) fn attach(
        &mut self,
        arena: &Arena,
        fd: OwnedFd,
        interface: u32,
    ) -> Result<(), XdpSocketError> {
        if self.senders.len() + self.retired.len() >= XDP_SOCKETS_MAX {
            return Err(XdpSocketError::TooMany(XDP_SOCKETS_MAX));
        }
        let (base, len) = arena.memory();
        let memory = Memory {
            base,
            len,
            slot_bytes: SLOT_BYTES as u32,
        };
        // SAFETY: the memory is that of the arena, which `Uring` keeps until nothing is lent.
        let socket = unsafe { XdpSocket::bind(fd, memory, interface) }?;
        self.senders.push(Sender {
            interface,
            socket,
            new: 0,
            is_busy: false,
            unanswered: 0,
            lent: Lent::new(len / SLOT_BYTES),
        });
        Ok(())
    }

    /// Slots that the kernel has.
    pub(super) fn lent(&self) -> usize {
        let retired = self.retired.iter().map(|it| &it.sender);
        let senders = self.senders.iter().chain(retired);
        senders.map(|sender| sender.lent.count).sum()
    }

    /// Queues a packet. `None`: there is no socket for it. `Some(true)`: `flush` must come next.
    pub(super) fn queue(&mut self, arena: &mut Arena, packet: Addressed) -> Option<bool> {
        let local_mac = packet.next_hop.local_mac?;
        let is_it = |sender: &&mut Sender| sender.interface == packet.next_hop.interface;
        let sender = self.senders.iter_mut().find(is_it)?;
        let mut frame = packet.frame;
        if !frame.push_header(ETHERNET_LEN) {
            return None;
        }
        let header = &mut frame.bytes_mut(arena)[..ETHERNET_LEN];
        header[..6].copy_from_slice(&packet.next_hop.mac);
        header[6..12].copy_from_slice(&local_mac);
        header[12..].copy_from_slice(&ETHERTYPE_IPV4);
        let begin = arena.lend_packet(frame);
        // SAFETY: the frame lies in one slot of the arena, which has lent it until it is completed.
        unsafe { sender.socket.push(begin, frame.len() as u32) };
        sender.lent.add(frame.slot);
        sender.new += 1;
        Some(sender.new >= DIRECT_PACKETS)
    }

    /// Has the drivers send what waits. `None` when nothing does. After a failure, what other
    /// interfaces have may still wait.
    pub(super) fn flush(&mut self, now_ms: u64) -> Option<Flushed> {
        let mut flushed = None;
        for index in 0..self.senders.len() {
            let sender = &mut self.senders[index];
            if sender.new == 0 && !sender.is_busy {
                continue;
            }
            let flushed = flushed.get_or_insert_with(Flushed::default);
            if let Err(error) = sender.flush(flushed) {
                let interface = sender.interface;
                flushed.failure = Some((interface, error));
                self.retire(interface, now_ms);
                break;
            }
        }
        flushed
    }

    /// Sends nothing more out of this interface.
    pub(super) fn retire(&mut self, interface: u32, now_ms: u64) {
        let is_it = |sender: &Sender| sender.interface == interface;
        if let Some(index) = self.senders.iter().position(is_it) {
            let sender = self.senders.swap_remove(index);
            let until_ms = now_ms + limits::XDP_RETIRE_MS;
            if sender.lent.count > 0 {
                self.retired.push(Retired { sender, until_ms });
            }
        }
    }

    /// Retires all sockets.
    pub(super) fn close(&mut self, now_ms: u64) {
        while let Some(interface) = self.senders.first().map(|it| it.interface) {
            self.retire(interface, now_ms);
        }
    }

    /// Takes back what the drivers are done with.
    pub(super) fn reap(&mut self, now_ms: u64, mut take: impl FnMut(Slot)) {
        for sender in &mut self.senders {
            sender.reap(&mut take);
        }
        self.retired.retain_mut(|retired| {
            let Retired { sender, until_ms } = retired;
            sender.reap(&mut take);
            sender.lent.count > 0 && now_ms < *until_ms || {
                // The socket is closed with this, and no frame of it can leave any more.
                sender.lent.drain(&mut take);
                false
            }
        });
    }
}

impl Sender {
    /// An error means that the socket is of no use.
    fn flush(&mut self, flushed: &mut Flushed) -> io::Result<()> {
        self.unanswered += self.new;
        let new = std::mem::take(&mut self.new);
        let waiting = if self.is_busy { self.lent.count } else { new };
        let kicked = self.socket.kick(waiting).inspect_err(|_| {
            flushed.dropped += new;
        })?;
        self.is_busy = kicked.is_busy;
        flushed.sent += new.saturating_sub(kicked.dropped);
        flushed.dropped += kicked.dropped;
        // The driver has stopped, or has fewer queues than it had: no error tells.
        if self.unanswered > self.lent.is_lent.len() / 2 {
            return Err(Errno::ETIMEDOUT.into());
        }
        Ok(())
    }

    fn reap(&mut self, take: &mut impl FnMut(Slot)) {
        while let Some(offset) = self.socket.completed() {
            let slot = Slot((offset / SLOT_BYTES) as u16);
            self.unanswered = 0;
            if self.lent.remove(slot) {
                take(slot);
            }
        }
    }
}

impl Lent {
    fn new(slots: usize) -> Self {
        Self {
            is_lent: vec![false; slots],
            count: 0,
        }
    }

    fn add(&mut self, slot: Slot) {
        self.is_lent[usize::from(slot.0)] = true;
        self.count += 1;
    }

    fn remove(&mut self, slot: Slot) -> bool {
        let was_lent = std::mem::take(&mut self.is_lent[usize::from(slot.0)]);
        self.count -= usize::from(was_lent);
        was_lent
    }

    fn drain(&mut self, take: &mut impl FnMut(Slot)) {
        for slot in (0..self.is_lent.len() as u16).map(Slot) {
            if self.remove(slot) {
                take(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_comes_back_once() {
        let mut lent = Lent::new(8);
        for slot in [3, 5, 7] {
            lent.add(Slot(slot));
        }
        assert!(lent.remove(Slot(5)));
        assert!(!lent.remove(Slot(5)), "it has come back");
        assert_eq!(lent.count, 2);
        let mut rest = Vec::new();
        lent.drain(&mut |slot| rest.push(slot));
        assert_eq!((rest, lent.count), (vec![Slot(3), Slot(7)], 0));
    }
}
