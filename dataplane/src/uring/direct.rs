//! Hands GRE packets to a packet socket, many at a time (Linux `packet(7)` and `sendmmsg(2)`).
//!
//! This does not go through the ring: `sendmmsg` needs one message header a packet and nothing
//! else, and when it returns, the slots are free.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use super::arena::Arena;
use super::outer::Addressed;
use crate::limits::DIRECT_PACKETS;
use crate::program::NextHop;

/// The packets that wait to be sent together, in order.
#[derive(Debug)]
pub(super) struct Direct {
    socket: Option<OwnedFd>,
    waiting: Vec<Addressed>,
    messages: Messages,
    /// A device has refused a packet: whatever follows in this turn takes the raw socket, like
    /// the packet refused, or it would overtake it.
    is_detoured: bool,
}

impl Direct {
    /// Without a socket nothing goes this way.
    pub(super) fn new() -> Self {
        Self {
            socket: None,
            waiting: Vec::with_capacity(DIRECT_PACKETS),
            messages: Messages::new(),
            is_detoured: false,
        }
    }

    pub(super) fn attach(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
    }

    /// Whether `flush` must come before another packet.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() == DIRECT_PACKETS
    }

    /// A new turn: what took the raw socket has been handed over.
    pub(super) fn begin_turn(&mut self) {
        self.is_detoured = false;
    }

    /// Queues a packet; there is room. False, and nothing has changed, when it must take the raw
    /// socket.
    pub(super) fn queue(&mut self, packet: Addressed) -> bool {
        let is_usable = self.socket.is_some() && !self.is_detoured;
        if is_usable {
            self.waiting.push(packet);
        }
        is_usable
    }

    /// Sends what waits, as far as the device takes it. Returns all of it, emptied by the caller
    /// and given to `recycle`, and how many have been sent.
    pub(super) fn flush(&mut self, arena: &Arena) -> (Vec<Addressed>, usize) {
        let waiting = std::mem::take(&mut self.waiting);
        let Some(socket) = self.socket.as_ref().filter(|_| !waiting.is_empty()) else {
            return (waiting, 0);
        };
        let mut sent = 0;
        while sent < waiting.len() {
            match self.messages.send(socket, arena, &waiting[sent..]) {
                0 => break,
                taken => sent += taken,
            }
        }
        self.is_detoured |= sent < waiting.len();
        (waiting, sent)
    }

    /// Takes the vector of `flush` back.
    pub(super) fn recycle(&mut self, mut waiting: Vec<Addressed>) {
        waiting.clear();
        self.waiting = waiting;
    }
}

/// What `sendmmsg` reads, allocated once. The pointers in it are good only while it is called.
struct Messages {
    headers: Vec<libc::mmsghdr>,
    payloads: Vec<libc::iovec>,
    next_hops: Vec<libc::sockaddr_ll>,
}

// SAFETY: the pointers in the headers are written anew before each use, and nothing in them depends
// on the thread.
unsafe impl Send for Messages {}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Messages({})", self.headers.capacity())
    }
}

impl Messages {
    fn new() -> Self {
        Self {
            headers: Vec::with_capacity(DIRECT_PACKETS),
            payloads: Vec::with_capacity(DIRECT_PACKETS),
            next_hops: Vec::with_capacity(DIRECT_PACKETS),
        }
    }

    /// Sends the first of `waiting`, and as many that follow as the kernel takes. 0: it refuses the
    /// first, whatever the reason.
    fn send(&mut self, socket: &OwnedFd, arena: &Arena, waiting: &[Addressed]) -> usize {
        self.payloads.clear();
        self.next_hops.clear();
        self.headers.clear();
        for packet in waiting {
            let octets = packet.frame.bytes(arena);
            self.payloads.push(libc::iovec {
                // The kernel only reads it.
                iov_base: octets.as_ptr().cast_mut().cast(),
                iov_len: octets.len(),
            });
            self.next_hops.push(address(&packet.next_hop));
        }
        for (payload, next_hop) in self.payloads.iter_mut().zip(&mut self.next_hops) {
            self.headers.push(message(payload, next_hop));
        }
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: the headers are as many as said, and lead to payloads and addresses that live
        // until the call returns; `arena` is borrowed, so nobody writes to the packets. The kernel
        // writes to nothing but `msg_len` of the headers.
        let result = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                flags,
            )
        };
        usize::try_from(result).unwrap_or(0)
    }
}

fn address(next_hop: &NextHop) -> libc::sockaddr_ll {
    let mut sll_addr = [0; 8];
    sll_addr[..6].copy_from_slice(&next_hop.mac);
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: (libc::ETH_P_IP as u16).to_be(),
        sll_ifindex: next_hop.interface.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr,
    }
}

fn message(payload: &mut libc::iovec, next_hop: &mut libc::sockaddr_ll) -> libc::mmsghdr {
    // SAFETY: a `msghdr` of zeros is a message without anything: null pointers, no lengths.
    let mut msg_hdr: libc::msghdr = unsafe { std::mem::zeroed() };
    msg_hdr.msg_name = ptr::from_mut(next_hop).cast();
    msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    msg_hdr.msg_iov = ptr::from_mut(payload);
    msg_hdr.msg_iovlen = 1;
    libc::mmsghdr {
        msg_hdr,
        msg_len: 0,
    }
}
