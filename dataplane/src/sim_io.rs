//! An [`Io`] in memory: what a worker meets in tests and in the simulator.
//!
//! The simulator puts packets into `gre_arrives` and `tun_arrives`, moves the clock with
//! `set_now_ms`, lets the worker turn, and takes what came out from `sent` and `written`.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::frame::{Frame, Slot, Slots, VecArena};
use crate::io::{Arrivals, Io, IoError, Route};
use crate::limits;
use crate::offload::gather::{Gather, put_header};
use crate::offload::split::Split;
use crate::offload::{TunFeatures, VnetHeader};
use crate::program::{Role, TunId};
use crate::sys::xdp_socket::XdpSocketError;

/// A GRE packet on its way to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Where to.
    pub peer: Ipv4Addr,
    /// Where from, when it must be a particular address.
    pub local: Option<Ipv4Addr>,
    /// The GRE packet, without outer IP header.
    pub packet: Vec<u8>,
}

/// The world in memory. Nothing in it waits: `wait` returns at once.
#[derive(Debug)]
pub struct SimIo {
    arena: VecArena,
    receive_free: Vec<Slot>,
    control_free: Vec<Slot>,
    /// Slots from this on are for control.
    control_first: u16,
    now_ms: u64,
    gre: VecDeque<Vec<u8>>,
    tun: VecDeque<(TunId, Vec<u8>)>,
    tuns: Vec<TunId>,
    /// Those among them with virtio-net headers.
    offloaded: Vec<(TunId, TunFeatures)>,
    gather: Gather,
    lost: Vec<TunId>,
    sent: Vec<Sent>,
    written: Vec<(TunId, Vec<u8>)>,
    /// Slots of packets sent that have not been given back yet.
    in_flight: Vec<Slot>,
    is_network_stuck: bool,
    is_held: bool,
}

impl SimIo {
    /// A world with so many slots for received packets, and so many for the worker's own.
    #[must_use]
    pub fn new(receive_slots: u16, control_slots: u16) -> Self {
        let slots = receive_slots + control_slots;
        Self {
            arena: VecArena::new(slots, limits::SLOT_BYTES as u16),
            receive_free: (0..receive_slots).map(Slot).collect(),
            control_free: (receive_slots..slots).map(Slot).collect(),
            control_first: receive_slots,
            now_ms: 0,
            gre: VecDeque::new(),
            tun: VecDeque::new(),
            tuns: Vec::new(),
            offloaded: Vec::new(),
            gather: Gather::new(),
            lost: Vec::new(),
            sent: Vec::new(),
            written: Vec::new(),
            in_flight: Vec::new(),
            is_network_stuck: false,
            is_held: false,
        }
    }

    /// A GRE packet, with its outer IPv4 header, has come to the socket.
    pub fn gre_arrives(&mut self, packet: &[u8]) {
        self.gre.push_back(packet.to_vec());
    }

    /// The host sends an inner IP packet through a TUN device. Where the device has virtio-net
    /// headers, it begins with one, and may be a super-packet.
    pub fn tun_arrives(&mut self, tun: TunId, packet: &[u8]) {
        self.tun.push_back((tun, packet.to_vec()));
    }

    /// Someone has deleted a TUN device.
    pub fn tun_vanishes(&mut self, tun: TunId) {
        self.lost.push(tun);
    }

    /// Sets the clock: it must not go back.
    pub fn set_now_ms(&mut self, now_ms: u64) {
        assert!(now_ms >= self.now_ms, "the clock never goes back");
        self.now_ms = now_ms;
    }

    /// While the network is stuck, what is sent keeps its slot.
    pub fn set_network_stuck(&mut self, is_stuck: bool) {
        self.is_network_stuck = is_stuck;
    }

    /// What has been sent since the last `take_sent`, in this order.
    #[must_use]
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// What has been sent since the last call, in this order.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// What has been written to TUN devices since the last call, in this order, with virtio-net
    /// headers where the device has them.
    pub fn take_written(&mut self) -> Vec<(TunId, Vec<u8>)> {
        self.flush();
        std::mem::take(&mut self.written)
    }

    /// Attaches a TUN device of this world, without offload; there is no descriptor behind it.
    pub fn attach_sim(&mut self, tun: TunId) -> bool {
        self.attach_sim_with(tun, TunFeatures::default())
    }

    /// Attaches a TUN device of this world.
    pub fn attach_sim_with(&mut self, tun: TunId, features: TunFeatures) -> bool {
        let is_new = !self.tuns.contains(&tun);
        if is_new {
            self.tuns.push(tun);
        }
        if is_new && features.vnet_header {
            self.offloaded.push((tun, features));
        }
        is_new
    }

    /// TUN devices that are attached.
    #[must_use]
    pub fn tuns(&self) -> &[TunId] {
        &self.tuns
    }

    /// Slots that nobody uses. When nothing is in flight or held, it is all of them.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.receive_free.len() + self.control_free.len()
    }

    fn receive(&mut self, packet: &[u8]) -> Option<Frame> {
        let slot = self.receive_free.pop()?;
        let headroom = limits::HEADROOM_BYTES;
        let len = packet.len().min(limits::SLOT_BYTES - headroom);
        Some(self.arena.fill(slot, headroom as u16, &packet[..len]))
    }

    /// Cuts what the host sends into packets. False when there are not slots enough.
    fn read(&mut self, tun: TunId, bytes: &[u8], arrivals: &mut Arrivals) -> bool {
        let headroom = limits::HEADROOM_BYTES;
        let len_max = limits::SLOT_BYTES - headroom;
        let is_offloaded = self.offloaded.iter().any(|(device, _)| *device == tun);
        let split = if is_offloaded {
            Split::parse(bytes, len_max)
        } else {
            Split::plain(bytes, len_max)
        };
        // What cannot be cut is dropped.
        let Ok(split) = split else { return true };
        if split.count() > self.receive_free.len() {
            return false;
        }
        for index in 0..split.count() {
            let Some(slot) = self.receive_free.pop() else {
                return false;
            };
            let len = split.emit(index, &mut self.arena.slot_mut(slot)[headroom..]);
            let frame = Frame::new(slot, headroom as u16, len as u16);
            arrivals.tun.push((tun, frame));
        }
        true
    }

    fn flush(&mut self) {
        if let Some(gathered) = self.gather.take(&mut self.arena) {
            self.write_now(gathered.tun, gathered.frames());
        }
    }

    fn write_now(&mut self, tun: TunId, frames: &[Frame]) {
        if self.tuns.contains(&tun) {
            let parts = frames.iter().map(|frame| frame.bytes(&self.arena));
            let bytes = parts.collect::<Vec<_>>().concat();
            self.written.push((tun, bytes));
        }
        frames.iter().for_each(|frame| self.release(frame.slot));
    }
}

impl Io for SimIo {
    fn wait(&mut self, _deadline_ms: Option<u64>, arrivals: &mut Arrivals) -> Result<u64, IoError> {
        self.flush();
        if !self.is_network_stuck {
            for slot in std::mem::take(&mut self.in_flight) {
                self.release(slot);
            }
        }
        if self.is_held {
            return Ok(self.now_ms);
        }
        while let Some(packet) = self.gre.pop_front() {
            let Some(frame) = self.receive(&packet) else {
                self.gre.push_front(packet);
                break;
            };
            arrivals.gre.push(frame);
        }
        while let Some((tun, packet)) = self.tun.pop_front() {
            if !self.tuns.contains(&tun) {
                continue;
            }
            if !self.read(tun, &packet, arrivals) {
                self.tun.push_front((tun, packet));
                break;
            }
        }
        arrivals.tuns_lost.append(&mut self.lost);
        Ok(self.now_ms)
    }

    fn take_slot(&mut self) -> Option<Slot> {
        self.control_free.pop()
    }

    fn take_kept_slot(&mut self) -> Option<Slot> {
        self.receive_free.pop()
    }

    fn release(&mut self, slot: Slot) {
        let free = if slot.0 < self.control_first {
            &mut self.receive_free
        } else {
            &mut self.control_free
        };
        assert!(!free.contains(&slot), "{slot:?} is released twice");
        free.push(slot);
    }

    fn send(&mut self, frame: Frame, route: Route) {
        let packet = frame.bytes(&self.arena).to_vec();
        self.sent.push(Sent {
            peer: route.peer,
            local: route.local,
            packet,
        });
        self.in_flight.push(frame.slot);
    }

    fn attach_packet_socket(&mut self, _fd: OwnedFd) {}

    fn attach_xdp_socket(&mut self, _fd: OwnedFd, _interface: u32) -> Result<(), XdpSocketError> {
        Err(XdpSocketError::Missing)
    }

    fn detach_xdp_socket(&mut self, _interface: u32) {}

    fn write(&mut self, tun: TunId, mut frame: Frame) {
        if self.gather.join(&self.arena, tun, frame) {
            return;
        }
        self.flush();
        let offloaded = self.offloaded.iter().find(|(device, _)| *device == tun);
        if let Some(&(_, features)) = offloaded {
            if self.gather.begin(&self.arena, tun, features, frame) {
                return;
            }
            if !put_header(&mut self.arena, &mut frame, VnetHeader::default()) {
                self.release(frame.slot);
                return;
            }
        }
        self.write_now(tun, &[frame]);
    }

    fn attach(
        &mut self,
        tun: TunId,
        _fd: Arc<OwnedFd>,
        features: TunFeatures,
        _role: Role,
    ) -> bool {
        self.attach_sim_with(tun, features)
    }

    fn detach(&mut self, tun: TunId) {
        self.flush();
        self.tuns.retain(|&attached| attached != tun);
        self.offloaded.retain(|&(attached, _)| attached != tun);
    }

    fn hold(&mut self, arrivals: &mut Arrivals) -> Result<(), IoError> {
        self.wait(None, arrivals)?;
        self.is_held = true;
        Ok(())
    }

    fn resume(&mut self) {
        self.is_held = false;
    }

    fn collect(&mut self, _index: u16, _count: u16) -> bool {
        true
    }

    fn close(&mut self) {
        self.flush();
        self.tuns.clear();
    }
}

impl Slots for SimIo {
    fn slot(&self, slot: Slot) -> &[u8] {
        self.arena.slot(slot)
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.arena.slot_mut(slot)
    }
}

/// Puts the outer IPv4 header (RFC 791 3.1) in front of a GRE packet, as the network does between
/// what one worker sends and another receives.
///
/// # Panics
/// When the packet is longer than an IPv4 packet can be.
#[must_use]
pub fn outer_ipv4(source: Ipv4Addr, destination: Ipv4Addr, gre: &[u8]) -> Vec<u8> {
    const VERSION_AND_HEADER_LEN: u8 = 0x45;
    const TIME_TO_LIVE: u8 = 64;
    const PROTOCOL_GRE: u8 = 47;
    let total_len = u16::try_from(20 + gre.len()).expect("it fits an IPv4 packet");
    let mut packet = vec![VERSION_AND_HEADER_LEN, 0];
    packet.extend(total_len.to_be_bytes());
    packet.extend([0, 0, 0, 0, TIME_TO_LIVE, PROTOCOL_GRE, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let (words, _) = packet.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(gre);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_header_is_that_of_a_packet_on_the_wire() {
        // The header of a GRE packet from pptpd, except for identification and Don't Fragment.
        let gre = [0u8; 4];
        let (source, destination) = (Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 1));
        let packet = outer_ipv4(source, destination, &gre);
        let header = crate::wire::ipv4::Ipv4Repr::parse(&packet).unwrap();
        assert!(header.checksum_holds(&packet));
        assert_eq!((header.source, header.destination), (source, destination));
        assert_eq!((header.protocol, header.total_len), (47, 24));
    }
}
