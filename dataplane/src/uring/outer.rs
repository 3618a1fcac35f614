//! Addresses GRE packets to a known next hop: what the kernel does for those of the raw socket
//! (RFC 791 for the header).

use super::arena::Arena;
use crate::frame::Frame;
use crate::io::Route;
use crate::program::NextHop;
use crate::wire::ipv4::{self, HEADER_LEN, PROTOCOL_GRE};

/// A packet on its way: with IPv4 header, and what the raw socket needs should it be refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addressed {
    /// The IPv4 packet.
    pub(super) frame: Frame,
    pub(super) route: Route,
    pub(super) next_hop: NextHop,
}

impl Addressed {
    /// The GRE packet, as the raw socket takes it.
    pub(super) const fn without_header(&self) -> Frame {
        let mut frame = self.frame;
        // The header was pushed, so it can be stripped.
        let _ = frame.strip_header(HEADER_LEN);
        frame
    }
}

/// Numbers the packets, since a router may cut them (RFC 6864).
#[derive(Debug, Default)]
pub(super) struct Outer {
    identification: u16,
}

impl Outer {
    /// Pushes an IPv4 header in front of a GRE packet. `None`, and the packet is as it was, when it
    /// must take the raw socket: without a next hop, or too long for it.
    pub(super) fn address(
        &mut self,
        arena: &mut Arena,
        frame: Frame,
        route: Route,
    ) -> Option<Addressed> {
        let next_hop = route.next_hop?;
        let mut frame = frame;
        let is_usable = frame.push_header(HEADER_LEN);
        if !is_usable || frame.len() > usize::from(next_hop.packet_len_max) {
            return None;
        }
        self.identification = self.identification.wrapping_add(1);
        let header = ipv4::header(
            frame.len() as u16,
            self.identification,
            PROTOCOL_GRE,
            next_hop.source,
            route.peer,
        );
        frame.bytes_mut(arena)[..HEADER_LEN].copy_from_slice(&header);
        Some(Addressed {
            frame,
            route,
            next_hop,
        })
    }
}
