//! What a worker needs of the outside world: the seam where a simulator takes the ring's place.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::counters::Counter;
use crate::frame::{Frame, Slot, Slots};
use crate::limits;
use crate::offload::TunFeatures;
use crate::program::{NextHop, Role, TunId};
use crate::sys::xdp_socket::XdpSocketError;

/// The ring, or what stands for it.
///
/// Slots: whoever has a [`Slot`] owns it. `wait` hands slots to the worker; `send`, `write` and
/// `release` take them back. A worker that keeps one keeps it out of the receive buffers.
pub trait Io: Slots {
    /// Starts everything that was queued with `send` and `write`, then waits until something
    /// arrives, a command is posted, or the time is `deadline_ms`; without one, for as long as it
    /// takes. A deadline that has passed makes it look without waiting. Appends to `arrivals`,
    /// which must be empty, and returns the time: milliseconds on a clock that never goes back.
    ///
    /// # Errors
    /// The worker cannot go on.
    fn wait(&mut self, deadline_ms: Option<u64>, arrivals: &mut Arrivals) -> Result<u64, IoError>;

    /// A slot for a packet that the worker makes itself: control frames and acknowledgments have
    /// slots of their own, so that data cannot take them all.
    fn take_slot(&mut self) -> Option<Slot>;

    /// A slot for a packet that a session holds, and that did not come from the network.
    fn take_kept_slot(&mut self) -> Option<Slot>;

    /// Gives a slot back.
    fn release(&mut self, slot: Slot);

    /// Sends a GRE packet, without outer IP header, along `route`. Packets of one route go out in
    /// the order in which they are sent. What the network refuses is counted and dropped.
    fn send(&mut self, frame: Frame, route: Route);

    /// Writes an inner IP packet to a TUN device, joined with its neighbours where the device has a
    /// virtio-net header: then until the next `wait` at most. Without such a device it is counted
    /// and dropped.
    fn write(&mut self, tun: TunId, frame: Frame);

    /// Has this TUN device from now on, and reads from it when `role` sends to the peer. False,
    /// and the device is let go, when `tun` is already in use or there are too many.
    fn attach(&mut self, tun: TunId, fd: Arc<OwnedFd>, features: TunFeatures, role: Role) -> bool;

    /// Closes the TUN device. What has been read from it may still arrive.
    fn detach(&mut self, tun: TunId);

    /// Has a packet socket (`sys::packet_socket`) for routes with a next hop from now on.
    fn attach_packet_socket(&mut self, fd: OwnedFd);

    /// Has an AF_XDP socket (`sys::xdp_socket`) for routes with a next hop behind this interface
    /// from now on.
    ///
    /// # Errors
    /// It cannot be used; packets go as they did before.
    fn attach_xdp_socket(&mut self, fd: OwnedFd, interface: u32) -> Result<(), XdpSocketError>;

    /// Closes the AF_XDP socket of this interface, if there is one.
    fn detach_xdp_socket(&mut self, interface: u32);

    /// Takes nothing in from now on, neither from the network nor from devices. What has been taken
    /// in already is appended to `arrivals`, or comes with the next `wait`.
    ///
    /// # Errors
    /// The worker cannot go on.
    fn hold(&mut self, arrivals: &mut Arrivals) -> Result<(), IoError>;

    /// Takes in again what comes.
    fn resume(&mut self);

    /// Lets the GRE socket, if it was deaf, queue packets for worker `index` of `count`. False when
    /// the kernel refuses.
    fn collect(&mut self, index: u16, count: u16) -> bool;

    /// Lets what was queued with `send` go out, closes all devices, and stops receiving.
    fn close(&mut self);
}

/// Where a session's GRE packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Outer address of the peer.
    pub peer: Ipv4Addr,
    /// Outer source address, when it must be a particular one.
    pub local: Option<Ipv4Addr>,
    /// When it is known, packets may leave for it through an AF_XDP or the packet socket.
    pub next_hop: Option<NextHop>,
}

/// What one turn of waiting brought. Its vectors are allocated once: each entry holds a slot, so
/// there cannot be more than slots.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// GRE packets, each with its outer IPv4 header.
    pub gre: Vec<Frame>,
    /// Inner IP packets, each with `limits::HEADROOM_BYTES` of headroom.
    pub tun: Vec<(TunId, Frame)>,
    /// TUN devices that someone has deleted.
    pub tuns_lost: Vec<TunId>,
    /// Interfaces, by index, whose AF_XDP socket has failed and is closed.
    pub xdp_lost: Vec<(u32, std::io::Error)>,
}

impl Arrivals {
    /// Room for everything that an arena of so many slots can bring.
    #[must_use]
    pub fn with_capacity(slots: usize, tuns: usize) -> Self {
        Self {
            gre: Vec::with_capacity(slots),
            tun: Vec::with_capacity(slots),
            tuns_lost: Vec::with_capacity(tuns),
            xdp_lost: Vec::with_capacity(limits::XDP_SOCKETS_MAX),
        }
    }

    /// A device has been deleted. It may be said more than once in a turn: by reads and writes.
    pub fn lose(&mut self, tun: TunId) {
        if !self.tuns_lost.contains(&tun) {
            self.tuns_lost.push(tun);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.gre.clear();
        self.tun.clear();
        self.tuns_lost.clear();
        self.xdp_lost.clear();
    }
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The ring does not work any more.
    #[error("io_uring_enter failed: {0}; the worker's tunnels are down, start it again")]
    Ring(std::io::Error),
    /// The GRE socket does nothing but fail.
    #[error("receiving from the GRE socket fails again and again: {0}")]
    Receive(std::io::Error),
}

/// What a worker's input and output met. Only the worker writes, anyone may read. Padded, so that
/// no two workers write one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct IoCounters {
    /// Turns of the loop.
    pub turns: Counter,
    /// GRE packets received.
    pub gre_received: Counter,
    /// Those of `gre_received` that came through the packet ring.
    pub gre_received_directly: Counter,
    /// Packets lost because the packet ring was full.
    pub ring_full: Counter,
    /// Packets in the packet ring that were cut, or whose IPv4 header was damaged.
    pub ring_damaged: Counter,
    /// GRE packets that the kernel dropped because the socket's queue was full: the worker did not
    /// keep up. Looked at once a second.
    pub receive_dropped: Counter,
    /// GRE packets that the kernel took.
    pub gre_sent: Counter,
    /// Those of `gre_sent` that left through the packet socket.
    pub gre_sent_directly: Counter,
    /// Those of `gre_sent` that left through AF_XDP sockets.
    pub gre_sent_by_xdp: Counter,
    /// GRE packets that the kernel refused: no route, no memory, too long, firewall.
    pub send_failed: Counter,
    /// Packets read from TUN devices.
    pub tun_read: Counter,
    /// Super-packets among what was read: trains that were cut into several of these packets.
    pub trains_read: Counter,
    /// What was read and could not be cut into packets: see `offload::split::SplitError`.
    pub split_failed: Counter,
    /// Packets that TUN devices took.
    pub tun_written: Counter,
    /// Writes in which several of these packets went together.
    pub runs_written: Counter,
    /// Packets that a TUN device refused (it is down), or for a device that is not attached.
    pub write_failed: Counter,
    /// Times that a receiver ran out of buffers: packets wait in the kernel then.
    pub shortages: Counter,
    /// Punted frames dropped: a session had too many, or control does not keep up.
    pub punts_dropped: Counter,
    /// Commands that could not be obeyed: no such session, or too many.
    pub commands_refused: Counter,
    /// Times that a session was keyed and goes without look-ahead, since others have all of it.
    pub look_ahead_refused: Counter,
}
