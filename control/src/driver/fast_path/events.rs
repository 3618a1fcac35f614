//! What the kernel tells when the network changes (Linux `rtnetlink(7)`, multicast groups).

use std::io;
use std::net::Ipv4Addr;

use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use super::kernel::messages;

/// `RTNLGRP_LINK`, `_NEIGH`, `_TC`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV4_RULE`.
const ROUTE_GROUPS: [u32; 6] = [1, 3, 4, 5, 7, 8];
/// `NFNLGRP_NFTABLES`.
const NFTABLES_GROUPS: [u32; 1] = [7];
/// `XFRMNLGRP_POLICY`.
const XFRM_GROUPS: [u32; 1] = [4];

/// Something has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Nobody knows what: events were lost, or one is not understood.
    Anything,
    /// Rules, firewall or IPsec.
    Host,
    /// An interface or its addresses.
    Link(u32),
    /// Queueing disciplines of an interface.
    Queueing(u32),
    /// Routes to these addresses.
    Route(Prefix),
    /// An entry of the neighbour table.
    Neighbour(u32, Ipv4Addr),
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    address: Ipv4Addr,
    len: u8,
}

impl Prefix {
    pub(super) fn contains(self, address: Ipv4Addr) -> bool {
        let differs = u32::from(self.address) ^ u32::from(address);
        differs.leading_zeros() >= u32::from(self.len)
    }
}

/// The sockets that events come through.
pub(super) struct Events {
    route: TokioSocket,
    /// Without the protocol in the kernel there is none, and nothing to tell.
    nftables: Option<TokioSocket>,
    xfrm: Option<TokioSocket>,
}

impl Events {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            route: subscribe(NETLINK_ROUTE, &ROUTE_GROUPS)?,
            nftables: subscribe(NETLINK_NETFILTER, &NFTABLES_GROUPS).ok(),
            xfrm: subscribe(NETLINK_XFRM, &XFRM_GROUPS).ok(),
        })
    }

    /// Waits for the next; none is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Vec<Event> {
        tokio::select! {
            received = self.route.recv_from_full() => match received {
                Ok((datagram, _)) => read(&datagram),
                // The queue has overflowed.
                Err(_) => vec![Event::Anything],
            },
            () = heard(&mut self.nftables) => vec![Event::Host],
            () = heard(&mut self.xfrm) => vec![Event::Host],
        }
    }
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    let inner = socket.socket_mut();
    inner.bind_auto()?;
    for group in groups {
        inner.add_membership(*group)?;
    }
    Ok(socket)
}

/// Whatever is said, and an overflow too, means that something has changed.
async fn heard(socket: &mut Option<TokioSocket>) {
    match socket {
        Some(socket) => {
            let _ = socket.recv_from_full().await;
        }
        None => std::future::pending().await,
    }
}

fn read(datagram: &[u8]) -> Vec<Event> {
    let event = |message| match message {
        Ok(NetlinkPayload::InnerMessage(message)) => event_of(&message),
        Ok(_) => None,
        Err(_) => Some(Event::Anything),
    };
    messages(datagram)
        .map(|message: io::Result<_>| message.map(|message| message.payload))
        .filter_map(event)
        .collect()
}

fn event_of(message: &RouteNetlinkMessage) -> Option<Event> {
    use RouteNetlinkMessage as Message;
    match message {
        Message::NewLink(link) | Message::DelLink(link) => Some(Event::Link(link.header.index)),
        Message::NewAddress(address) | Message::DelAddress(address) => {
            Some(Event::Link(address.header.index))
        }
        Message::NewQueueDiscipline(qdisc) | Message::DelQueueDiscipline(qdisc) => {
            Some(Event::Queueing(qdisc.header.index.cast_unsigned()))
        }
        Message::NewRule(_) | Message::DelRule(_) => Some(Event::Anything),
        Message::NewRoute(route) | Message::DelRoute(route) => Some(route_event(route)),
        Message::NewNeighbour(neighbour) | Message::DelNeighbour(neighbour) => {
            neighbour_event(neighbour)
        }
        _ => None,
    }
}

fn route_event(route: &RouteMessage) -> Event {
    let address = route.attributes.iter().find_map(|it| match it {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    Event::Route(Prefix {
        address: address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        len: route.header.destination_prefix_length,
    })
}

fn neighbour_event(neighbour: &NeighbourMessage) -> Option<Event> {
    if neighbour.header.family != AddressFamily::Inet {
        return None;
    }
    let interface = neighbour.header.ifindex;
    neighbour.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
            Some(Event::Neighbour(interface, *address))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(octets: [u8; 4], len: u8) -> Prefix {
        let address = octets.into();
        Prefix { address, len }
    }

    #[test]
    fn a_prefix_holds_the_addresses_that_begin_alike() {
        let inside = Ipv4Addr::new(192, 0, 2, 9);
        for len in 0..=32 {
            assert!(prefix([192, 0, 2, 9], len).contains(inside));
        }
        assert!(prefix([0, 0, 0, 0], 0).contains(inside));
        assert!(prefix([192, 0, 2, 0], 24).contains(inside));
        assert!(!prefix([192, 0, 3, 0], 24).contains(inside));
        assert!(!prefix([192, 0, 2, 8], 32).contains(inside));
    }

    #[test]
    fn what_is_not_understood_means_that_anything_may_have_changed() {
        // A message of RTM_NEWROUTE that is cut short: length 20, type 24.
        let mut cut = vec![20, 0, 0, 0, 24, 0];
        cut.resize(20, 0);
        assert_eq!(read(&cut), [Event::Anything]);
        assert_eq!(read(&[1, 2, 3]), [Event::Anything]);
        assert_eq!(read(&[]), []);
    }
}
