//! Changes to links, addresses and routes as netlink messages (rtnetlink(7)).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteScope,
};
use rtnetlink::{AddressMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::proxies;

/// Of link-local addresses.
const LINK_LOCAL_PREFIX_LEN: u8 = 64;

/// An IPv4 route through a device, in the table that the writer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteVia {
    /// Index of the device.
    pub index: u32,
    pub destination: Ipv4Addr,
    /// Bits.
    pub prefix_len: u8,
    /// What this host calls itself towards it.
    pub source: Option<Ipv4Addr>,
    /// Octets of the largest packet that it takes.
    pub mtu: Option<u16>,
    pub metric: Option<u32>,
}

impl RouteVia {
    fn message(&self, table: u32) -> RouteMessage {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.destination, self.prefix_len)
            .output_interface(self.index)
            .scope(RouteScope::Link)
            .build();
        if let Some(metric) = self.metric {
            let attribute = RouteAttribute::Priority(metric);
            route.attributes.push(attribute);
        }
        in_table(&mut route, table);
        route
    }
}

impl fmt::Display for RouteVia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.destination, self.prefix_len)
    }
}

/// One change. Index is always that of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Puts a device under a VRF.
    Enslave {
        index: u32,
        controller: u32,
    },
    /// Sets the MTU and brings the device up.
    SetUp {
        index: u32,
        mtu: Option<u16>,
    },
    /// Lets so many packets wait in the device.
    SetQueue {
        index: u32,
        packets: u32,
    },
    /// With `peer` the device is point to point.
    AddAddress {
        index: u32,
        local: Ipv4Addr,
        peer: Option<Ipv4Addr>,
    },
    RemoveAddress {
        index: u32,
        local: Ipv4Addr,
        peer: Option<Ipv4Addr>,
    },
    AddLinkLocal {
        index: u32,
        address: Ipv6Addr,
    },
    /// In place of one that is there.
    AddRoute(RouteVia),
    /// Beside others; that it is there already is no error.
    AddNetwork(RouteVia),
    /// That it is gone already is no error.
    RemoveRoute(RouteVia),
    /// Has ARP for this address answered on an interface.
    AddProxy {
        index: u32,
        address: Ipv4Addr,
    },
    /// That it is gone already is no error.
    RemoveProxy {
        index: u32,
        address: Ipv4Addr,
    },
    AddLinkLocalRoute {
        index: u32,
        host: Ipv6Addr,
        mtu: u16,
    },
    /// That it is gone already is no error.
    RemoveLinkLocalRoute {
        index: u32,
        host: Ipv6Addr,
    },
}

impl Change {
    /// Whether a refusal is to be passed over.
    pub(super) fn may_fail(&self, error: &io::Error) -> bool {
        match self {
            Self::RemoveAddress { .. }
            | Self::RemoveRoute(_)
            | Self::RemoveProxy { .. }
            | Self::RemoveLinkLocalRoute { .. } => true,
            Self::AddNetwork(_) => error.kind() == io::ErrorKind::AlreadyExists,
            _ => false,
        }
    }

    /// The message, and its flags beside those of every request. `table` is where routes go.
    pub(super) fn message(&self, table: u32) -> (RouteNetlinkMessage, u16) {
        const SET: u16 = NLM_F_CREATE | NLM_F_REPLACE;
        match self {
            Self::Enslave { index, controller } => {
                let mut change = LinkUnspec::new_with_index(*index).build();
                let attribute = LinkAttribute::Controller(*controller);
                change.attributes.push(attribute);
                (RouteNetlinkMessage::SetLink(change), 0)
            }
            Self::SetUp { index, mtu } => {
                let mut change = LinkUnspec::new_with_index(*index).up();
                if let Some(mtu) = mtu {
                    change = change.mtu(u32::from(*mtu));
                }
                (RouteNetlinkMessage::SetLink(change.build()), 0)
            }
            Self::SetQueue { index, packets } => {
                let mut change = LinkUnspec::new_with_index(*index).build();
                let attribute = LinkAttribute::TxQueueLen(*packets);
                change.attributes.push(attribute);
                (RouteNetlinkMessage::SetLink(change), 0)
            }
            Self::AddAddress { index, local, peer } => {
                let message = address(*index, *local, *peer);
                (RouteNetlinkMessage::NewAddress(message), SET)
            }
            Self::RemoveAddress { index, local, peer } => {
                let message = address(*index, *local, *peer);
                (RouteNetlinkMessage::DelAddress(message), 0)
            }
            Self::AddLinkLocal { index, address } => {
                let message = AddressMessageBuilder::<Ipv6Addr>::new()
                    .index(*index)
                    .address(*address, LINK_LOCAL_PREFIX_LEN)
                    .build();
                (RouteNetlinkMessage::NewAddress(message), SET)
            }
            Self::AddRoute(route) => {
                let mut message = route.message(table);
                if let Some(source) = route.source {
                    let attribute = RouteAttribute::PrefSource(source.into());
                    message.attributes.push(attribute);
                }
                if let Some(mtu) = route.mtu {
                    message.attributes.push(mtu_metric(mtu));
                }
                (RouteNetlinkMessage::NewRoute(message), SET)
            }
            Self::AddNetwork(route) => {
                let message = RouteNetlinkMessage::NewRoute(route.message(table));
                (message, NLM_F_CREATE | NLM_F_EXCL)
            }
            Self::RemoveRoute(route) => (RouteNetlinkMessage::DelRoute(route.message(table)), 0),
            Self::AddProxy { index, address } => {
                let entry = proxies::message(*index, *address);
                (RouteNetlinkMessage::NewNeighbour(entry), SET)
            }
            Self::RemoveProxy { index, address } => {
                let entry = proxies::message(*index, *address);
                (RouteNetlinkMessage::DelNeighbour(entry), 0)
            }
            Self::AddLinkLocalRoute { index, host, mtu } => {
                let mut message = link_local_route(*index, *host, table);
                message.attributes.push(mtu_metric(*mtu));
                (RouteNetlinkMessage::NewRoute(message), SET)
            }
            Self::RemoveLinkLocalRoute { index, host } => {
                let message = link_local_route(*index, *host, table);
                (RouteNetlinkMessage::DelRoute(message), 0)
            }
        }
    }
}

/// What could not be done, as it stands behind "cannot".
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enslave { .. } => f.write_str("put the interface into its VRF"),
            Self::SetUp { .. } => f.write_str("bring the interface up"),
            Self::SetQueue { .. } => f.write_str("enlarge the interface's queue"),
            Self::AddAddress { local, .. } => write!(f, "add the address {local}"),
            Self::RemoveAddress { local, .. } => write!(f, "remove the address {local}"),
            Self::AddLinkLocal { address, .. } => write!(f, "add the address {address}"),
            Self::AddRoute(route) | Self::AddNetwork(route) => write!(f, "route {route}"),
            Self::RemoveRoute(route) => write!(f, "remove the route {route}"),
            Self::AddProxy { address, .. } => write!(f, "answer ARP for {address}"),
            Self::RemoveProxy { address, .. } => write!(f, "stop answering ARP for {address}"),
            Self::AddLinkLocalRoute { host, .. } => write!(f, "route {host}"),
            Self::RemoveLinkLocalRoute { host, .. } => write!(f, "remove the route to {host}"),
        }
    }
}

fn address(index: u32, local: Ipv4Addr, peer: Option<Ipv4Addr>) -> AddressMessage {
    let mut message = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(index)
        .address(local, 32)
        .build();
    if let Some(peer) = peer {
        let attributes = &mut message.attributes;
        attributes.retain(|attribute| {
            !matches!(
                attribute,
                AddressAttribute::Address(_) | AddressAttribute::Broadcast(_)
            )
        });
        attributes.push(AddressAttribute::Address(IpAddr::V4(peer)));
    }
    message
}

fn link_local_route(index: u32, host: Ipv6Addr, table: u32) -> RouteMessage {
    let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(host, 128)
        .output_interface(index)
        .build();
    in_table(&mut route, table);
    route
}

fn mtu_metric(mtu: u16) -> RouteAttribute {
    RouteAttribute::Metrics(vec![RouteMetric::Mtu(u32::from(mtu))])
}

/// The header has room for small numbers only.
fn in_table(route: &mut RouteMessage, table: u32) {
    match u8::try_from(table) {
        Ok(table) => route.header.table = table,
        Err(_) => {
            route.header.table = RouteHeader::RT_TABLE_UNSPEC;
            route.attributes.push(RouteAttribute::Table(table));
        }
    }
}
