//! IPv4 routes, of the main table if no other is named: where a packet goes, which default routes
//! there are, and routes of our own that come and go.

use std::net::Ipv4Addr;
use std::pin::pin;

use dataplane::prefix;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use serde::{Deserialize, Serialize};

use super::{ETHERNET_MTU, Netlink, NetlinkError, mtu_attribute};

/// Of the addresses that are this host's own (RT_TABLE_LOCAL).
const LOCAL_TABLE: u32 = 255;

/// A route as it is added and taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// Network or host.
    pub destination: Ipv4Addr,
    /// Bits of the network.
    pub prefix_len: u8,
    /// Index of the interface; `None` lets the gateway say.
    pub interface: Option<u32>,
    /// The next router; `None` is on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Lower wins; the kernel's default is 0.
    pub metric: u32,
    /// That of a VRF; `None` is the main table.
    #[serde(default)]
    pub table: Option<u32>,
}

impl RouteEntry {
    /// Whether packets for `host` match.
    #[must_use]
    pub fn covers(&self, host: Ipv4Addr) -> bool {
        prefix::covers((self.destination, self.prefix_len), host)
    }

    fn message(&self) -> RouteMessage {
        let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.destination, self.prefix_len);
        if let Some(interface) = self.interface {
            builder = builder.output_interface(interface);
        }
        builder = match self.gateway {
            Some(gateway) => builder.gateway(gateway),
            None => builder.scope(RouteScope::Link),
        };
        if self.metric > 0 {
            builder = builder.priority(self.metric);
        }
        if let Some(table) = self.table {
            builder = builder.table_id(table);
        }
        builder.build()
    }
}

impl std::fmt::Display for RouteEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.destination, self.prefix_len)?;
        self.gateway
            .map_or(Ok(()), |gateway| write!(f, " via {gateway}"))
    }
}

/// Where the kernel sends packets for one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface.
    pub interface: u32,
    /// The next router, unless the host is on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Largest packet, in octets, that needs no fragments as far as is known here.
    pub mtu: u32,
}

/// What came of adding a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is ours to take away.
    New,
    /// Somebody else had added the very same.
    WasThere,
}

impl Netlink {
    /// Makes `host` an address of this machine without giving it to an interface: any number of
    /// them costs no more than routes do.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn add_local_host(&self, index: u32, host: Ipv4Addr) -> Result<(), NetlinkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(host, 32)
            .output_interface(index)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .table_id(LOCAL_TABLE)
            .build();
        let request = self.handle.route().add(route).replace();
        let added = request.execute().await;
        added.map_err(|e| NetlinkError::new(format!("have the address {host}"), e))
    }

    /// The way to `host` for packets with this firewall mark.
    ///
    /// # Errors
    /// When there is no route.
    pub async fn way_to(&self, host: Ipv4Addr, mark: Option<u32>) -> Result<Way, NetlinkError> {
        let failed = |cause: &dyn std::fmt::Display| {
            NetlinkError::new(format!("find the way to {host}"), cause)
        };
        let mut question = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(host, 32);
        if let Some(mark) = mark {
            question = question.mark(mark);
        }
        let mut routes = pin!(self.handle.route().get(question.build()).execute());
        let route = routes.try_next().await.map_err(|error| failed(&error))?;
        let route = route.ok_or_else(|| failed(&"there is no route"))?;
        let (interface, gateway) = next_hop(&route);
        let interface = interface.ok_or_else(|| failed(&"its route names no interface"))?;
        let of_route = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Metrics(metrics) => {
                    metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    })
                }
                _ => None,
            });
        let mtu = match of_route {
            Some(mtu) => mtu,
            None => mtu_attribute(&self.link_of(interface).await?).unwrap_or(ETHERNET_MTU),
        };
        Ok(Way {
            interface,
            gateway,
            mtu,
        })
    }

    /// Default routes of a table, the best first; `None` is the main table.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn default_routes(
        &self,
        table: Option<u32>,
    ) -> Result<Vec<RouteEntry>, NetlinkError> {
        let wanted = table.unwrap_or_else(|| RouteHeader::RT_TABLE_MAIN.into());
        let everything = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(everything)
            .execute()
            .try_collect()
            .await
            .map_err(|error| NetlinkError::new("list the routes", error))?;
        let mut defaults: Vec<RouteEntry> = routes
            .iter()
            .filter(|route| {
                route.header.destination_prefix_length == 0
                    && table_of(route) == wanted
                    && route.header.kind == RouteType::Unicast
            })
            .map(|route| RouteEntry {
                table,
                ..default_route(route)
            })
            .collect();
        defaults.sort_by_key(|route| route.metric);
        Ok(defaults)
    }

    /// Adds a route in front of others with the same destination and metric, as route(8) does:
    /// nothing is replaced.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn add_route(&self, route: &RouteEntry) -> Result<Added, NetlinkError> {
        let failed = |cause: &dyn std::fmt::Display| {
            NetlinkError::new(format!("add the route {route}"), cause)
        };
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(route.message()));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
        let mut handle = self.handle.clone();
        let mut answers = handle.request(request).map_err(|error| failed(&error))?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(refusal) = answer.payload
                && refusal.code.is_some()
            {
                let cause = refusal.to_io();
                return match cause.kind() {
                    std::io::ErrorKind::AlreadyExists => Ok(Added::WasThere),
                    _ => Err(failed(&cause)),
                };
            }
        }
        Ok(Added::New)
    }

    /// Takes a route away; that it is gone already is no error.
    pub async fn remove_route(&self, route: &RouteEntry) {
        let _ = self.handle.route().del(route.message()).execute().await;
    }
}

/// What does not fit into the header is an attribute.
fn table_of(route: &RouteMessage) -> u32 {
    let table = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    table.unwrap_or_else(|| route.header.table.into())
}

fn next_hop(route: &RouteMessage) -> (Option<u32>, Option<Ipv4Addr>) {
    let mut interface = None;
    let mut gateway = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            // Of several ways the first will do.
            RouteAttribute::MultiPath(hops) => {
                if let Some(hop) = hops.first() {
                    interface = Some(hop.interface_index);
                    gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(*address),
                        _ => None,
                    });
                }
            }
            _ => {}
        }
    }
    (interface, gateway)
}

fn default_route(route: &RouteMessage) -> RouteEntry {
    let (interface, gateway) = next_hop(route);
    let metric = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        });
    RouteEntry {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
        interface,
        gateway,
        metric: metric.unwrap_or(0),
        table: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_covers_what_its_prefix_says() {
        let route = |destination: [u8; 4], prefix_len| RouteEntry {
            destination: destination.into(),
            prefix_len,
            interface: None,
            gateway: None,
            metric: 0,
            table: None,
        };
        let host = Ipv4Addr::new(10, 1, 2, 3);
        for (route, covers) in [
            (route([0, 0, 0, 0], 0), true),
            (route([128, 0, 0, 0], 1), false),
            (route([10, 1, 0, 0], 16), true),
            (route([10, 2, 0, 0], 16), false),
            (route([10, 1, 2, 3], 32), true),
            (route([10, 1, 2, 2], 32), false),
        ] {
            assert_eq!(route.covers(host), covers, "{route}");
        }
    }
}
