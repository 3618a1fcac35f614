//! A network that loses and reorders GRE packets, in front of a real one: for load generators,
//! which want to see what an honest path does not show.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::frame::{Frame, Slot, Slots};
use crate::io::{Arrivals, Io, IoError, Route};
use crate::offload::TunFeatures;
use crate::program::{Role, TunId};
use crate::sys::xdp_socket::XdpSocketError;

/// How long a packet that is to be overtaken waits for the others, at most.
const HELD_MS: u64 = 2;
/// Packets that wait to be overtaken, at most: each has a slot.
const HELD_MAX: usize = 16;
const PER_MILLION: u64 = 1_000_000;

/// How bad the network is, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Packets lost, of a million.
    pub lost_per_million: u32,
    /// Packets that a later one overtakes, of a million.
    pub reordered_per_million: u32,
    /// The same seed does the same to the same packets.
    pub seed: u64,
}

impl Impairment {
    /// Whether it does nothing.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.lost_per_million == 0 && self.reordered_per_million == 0
    }
}

/// An [`Io`] behind a bad network.
#[derive(Debug)]
pub struct Impaired<I: Io> {
    inner: I,
    impairment: Impairment,
    random: u64,
    now_ms: u64,
    /// To be sent after the next packet, or when their time is over.
    held: Vec<(u64, Frame, Route)>,
}

impl<I: Io> Impaired<I> {
    /// `inner`, seen through a bad network.
    pub fn new(inner: I, impairment: Impairment) -> Self {
        Self {
            inner,
            impairment,
            // Zero would stay zero.
            random: impairment.seed | 1,
            now_ms: 0,
            held: Vec::with_capacity(HELD_MAX),
        }
    }

    /// Marsaglia's xorshift64: good enough to throw dice with.
    const fn throws(&mut self, per_million: u32) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % PER_MILLION < per_million as u64
    }

    fn send_held(&mut self, now_ms: u64) {
        while let Some((since_ms, frame, route)) = self.held.first().copied()
            && since_ms + HELD_MS <= now_ms
        {
            self.held.remove(0);
            self.inner.send(frame, route);
        }
    }

    fn impair_arrivals(&mut self, arrivals: &mut Arrivals) {
        let gre = std::mem::take(&mut arrivals.gre);
        for frame in gre.iter().copied() {
            if self.throws(self.impairment.lost_per_million) {
                self.inner.release(frame.slot);
            } else if self.throws(self.impairment.reordered_per_million)
                && let Some(latest) = arrivals.gre.len().checked_sub(1)
            {
                arrivals.gre.insert(latest, frame);
            } else {
                arrivals.gre.push(frame);
            }
        }
    }
}

impl<I: Io> Slots for Impaired<I> {
    fn slot(&self, slot: Slot) -> &[u8] {
        self.inner.slot(slot)
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.inner.slot_mut(slot)
    }

    fn keep(&mut self, frame: Frame) -> Frame {
        self.inner.keep(frame)
    }
}

impl<I: Io> Io for Impaired<I> {
    fn wait(&mut self, deadline_ms: Option<u64>, arrivals: &mut Arrivals) -> Result<u64, IoError> {
        let held_until_ms = self.held.first().map(|(since_ms, ..)| since_ms + HELD_MS);
        let deadline_ms = match (deadline_ms, held_until_ms) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.now_ms = self.inner.wait(deadline_ms, arrivals)?;
        self.impair_arrivals(arrivals);
        self.send_held(self.now_ms);
        Ok(self.now_ms)
    }

    fn take_slot(&mut self) -> Option<Slot> {
        self.inner.take_slot()
    }

    fn take_kept_slot(&mut self) -> Option<Slot> {
        self.inner.take_kept_slot()
    }

    fn release(&mut self, slot: Slot) {
        self.inner.release(slot);
    }

    fn send(&mut self, frame: Frame, route: Route) {
        if self.throws(self.impairment.lost_per_million) {
            return self.inner.release(frame.slot);
        }
        let is_late = self.throws(self.impairment.reordered_per_million);
        if is_late && self.held.len() < HELD_MAX {
            return self.held.push((self.now_ms, frame, route));
        }
        self.inner.send(frame, route);
        self.send_held(u64::MAX);
    }

    fn write(&mut self, tun: TunId, frame: Frame) {
        self.inner.write(tun, frame);
    }

    fn attach(&mut self, tun: TunId, fd: Arc<OwnedFd>, features: TunFeatures, role: Role) -> bool {
        self.inner.attach(tun, fd, features, role)
    }

    fn detach(&mut self, tun: TunId) {
        self.inner.detach(tun);
    }

    fn attach_packet_socket(&mut self, fd: OwnedFd) {
        self.inner.attach_packet_socket(fd);
    }

    fn attach_xdp_socket(&mut self, fd: OwnedFd, interface: u32) -> Result<(), XdpSocketError> {
        self.inner.attach_xdp_socket(fd, interface)
    }

    fn detach_xdp_socket(&mut self, interface: u32) {
        self.inner.detach_xdp_socket(interface);
    }

    fn hold(&mut self, arrivals: &mut Arrivals) -> Result<(), IoError> {
        self.send_held(u64::MAX);
        self.inner.hold(arrivals)
    }

    fn resume(&mut self) {
        self.inner.resume();
    }

    fn collect(&mut self, index: u16, count: u16) -> bool {
        self.inner.collect(index, count)
    }

    fn close(&mut self) {
        self.send_held(u64::MAX);
        self.inner.close();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::sim_io::SimIo;

    const ROUTE: Route = Route {
        peer: Ipv4Addr::LOCALHOST,
        local: None,
        next_hop: None,
    };

    /// The numbers of 1000 packets as they come out.
    fn sent_through(impairment: Impairment) -> Vec<u16> {
        let mut io = Impaired::new(SimIo::new(64, 64), impairment);
        let mut arrivals = Arrivals::default();
        for number in 0..1000_u16 {
            let slot = io.take_slot().expect("slots come back");
            let frame = Frame::new(slot, 0, 2);
            frame
                .bytes_mut(&mut io)
                .copy_from_slice(&number.to_be_bytes());
            io.send(frame, ROUTE);
            io.wait(Some(0), &mut arrivals).expect("nothing fails");
        }
        io.close();
        let sent = io.inner.take_sent();
        let number = |packet: &[u8]| u16::from_be_bytes([packet[0], packet[1]]);
        sent.iter().map(|sent| number(&sent.packet)).collect()
    }

    #[test]
    fn packets_are_lost_at_the_rate_that_was_asked_for() {
        let sent = sent_through(Impairment {
            lost_per_million: 100_000,
            seed: 42,
            ..Impairment::default()
        });
        assert!((850..950).contains(&sent.len()), "{} of 1000", sent.len());
        assert!(sent.is_sorted());
    }

    #[test]
    fn packets_overtake_each_other_and_none_is_lost() {
        let mut sent = sent_through(Impairment {
            reordered_per_million: 100_000,
            seed: 42,
            ..Impairment::default()
        });
        assert!(!sent.is_sorted());
        sent.sort_unstable();
        assert_eq!(sent, (0..1000).collect::<Vec<_>>());
    }
}
