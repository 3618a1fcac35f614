//! Addresses, links and routes, by rtnetlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteScope};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use thiserror::Error;
use tokio::task::JoinHandle;

mod routes;
mod vrf;

pub use routes::{Added, RouteEntry, Way};

/// For interfaces that name none.
const ETHERNET_MTU: u32 = 1500;

/// What the kernel refused, in words.
#[derive(Debug, Error)]
#[error("cannot {what}: {cause}")]
pub struct NetlinkError {
    what: String,
    cause: String,
}

impl NetlinkError {
    fn new(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self {
            what: what.into(),
            cause: cause.to_string(),
        }
    }

    /// With what may help.
    fn hint(mut self, hint: &str) -> Self {
        self.cause = format!("{} ({hint})", self.cause);
        self
    }
}

/// A connection to the kernel's routing tables, in the network namespace of the thread that
/// opened it.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| NetlinkError::new("open a netlink socket", error))?;
        Ok(Self {
            handle,
            connection: tokio::task::spawn_local(connection),
        })
    }

    /// Index and MTU of a network interface.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn link(&self, name: &str) -> Result<(u32, u32), NetlinkError> {
        let failed = |cause: &dyn std::fmt::Display| {
            NetlinkError::new(format!("find the network interface {name}"), cause)
        };
        let mut links = self.handle.link().get().match_name(name).execute();
        let link = links.try_next().await.map_err(|error| failed(&error))?;
        let link = link.ok_or_else(|| failed(&"there is none of this name"))?;
        Ok((
            link.header.index,
            mtu_attribute(&link).unwrap_or(ETHERNET_MTU),
        ))
    }

    /// Sets the MTU of an interface, in octets, and brings it up.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn set_up(&self, index: u32, mtu: Option<u16>) -> Result<(), NetlinkError> {
        let mut change = LinkUnspec::new_with_index(index).up();
        if let Some(mtu) = mtu {
            change = change.mtu(u32::from(mtu));
        }
        let request = self.handle.link().set(change.build());
        request
            .execute()
            .await
            .map_err(|e| NetlinkError::new("bring the interface up", e))
    }

    /// Lets so many packets wait in an interface. Many sessions share one, and each has at least a
    /// few packets on the way: where those of all do not fit, most are lost.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn set_queue(&self, index: u32, packets: u32) -> Result<(), NetlinkError> {
        let change = LinkUnspec::new_with_index(index);
        let change = change.append_extra_attribute(LinkAttribute::TxQueueLen(packets));
        let request = self.handle.link().set(change.build());
        let result = request.execute().await;
        result.map_err(|e| NetlinkError::new("enlarge the interface's queue", e))
    }

    /// Takes an interface down, so that its addresses' routes go at once.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn set_down(&self, index: u32) -> Result<(), NetlinkError> {
        let change = LinkUnspec::new_with_index(index).down();
        let request = self.handle.link().set(change.build());
        request
            .execute()
            .await
            .map_err(|e| NetlinkError::new("take the interface down", e))
    }

    /// Gives an interface an address, and with `peer` makes it point to point.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn add_address(
        &self,
        index: u32,
        local: Ipv4Addr,
        peer: Option<Ipv4Addr>,
        prefix_len: u8,
    ) -> Result<(), NetlinkError> {
        let mut request = self
            .handle
            .address()
            .add(index, IpAddr::V4(local), prefix_len);
        if let Some(peer) = peer {
            let attributes = &mut request.message_mut().attributes;
            attributes.retain(|attribute| {
                !matches!(
                    attribute,
                    AddressAttribute::Address(_) | AddressAttribute::Broadcast(_)
                )
            });
            attributes.push(AddressAttribute::Address(IpAddr::V4(peer)));
        }
        let what = || format!("add the address {local}");
        request
            .replace()
            .execute()
            .await
            .map_err(|e| NetlinkError::new(what(), e))
    }

    /// Takes an address of an interface away; that it is gone already is no error.
    pub async fn remove_address(&self, index: u32, local: Ipv4Addr) {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 32;
        message.header.index = index;
        message
            .attributes
            .push(AddressAttribute::Local(IpAddr::V4(local)));
        let _ = self.handle.address().del(message).execute().await;
    }

    /// The name of the interface with this index: scripts may have changed it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn name_of(&self, index: u32) -> Result<String, NetlinkError> {
        let link = self.link_of(index).await?;
        let name = link
            .attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
        name.ok_or_else(|| {
            NetlinkError::new(format!("name the network interface number {index}"), "")
        })
    }

    async fn link_of(&self, index: u32) -> Result<LinkMessage, NetlinkError> {
        let failed = |cause: &dyn std::fmt::Display| {
            NetlinkError::new(format!("find the network interface number {index}"), cause)
        };
        let mut links = self.handle.link().get().match_index(index).execute();
        let link = links.try_next().await.map_err(|error| failed(&error))?;
        link.ok_or_else(|| failed(&"there is none"))
    }

    /// Gives an interface that is up a link-local address, and so a route to all of its link.
    ///
    /// # Errors
    /// In the kernel's words: IPv6 is switched off, or the MTU is below 1280.
    pub async fn add_link_local(&self, index: u32, local: Ipv6Addr) -> Result<(), NetlinkError> {
        const PREFIX_LEN: u8 = 64;
        let addresses = self.handle.address();
        let request = addresses.add(index, IpAddr::V6(local), PREFIX_LEN);
        let added = request.replace().execute().await;
        added.map_err(|e| NetlinkError::new(format!("add the address {local}"), e))
    }

    /// Takes an address of `add_link_local` away; that it is gone already is no error.
    pub async fn remove_link_local(&self, index: u32, local: Ipv6Addr) {
        let addresses = self.handle.address();
        let mut found = pin!(addresses.get().set_link_index_filter(index).execute());
        while let Ok(Some(message)) = found.try_next().await {
            let ours = AddressAttribute::Address(IpAddr::V6(local));
            if message.attributes.contains(&ours) {
                let _ = addresses.del(message).execute().await;
                return;
            }
        }
    }

    /// Adds a default route for IPv6 through an interface, with the kernel's metric for 0. It goes
    /// when the interface does, or is down.
    ///
    /// # Errors
    /// In the kernel's words; also when there is one with this metric.
    pub async fn add_default_route6(
        &self,
        index: u32,
        metric: u32,
        table: Option<u32>,
    ) -> Result<(), NetlinkError> {
        let route = default_route6(index, metric, table);
        let added = self.handle.route().add(route).execute().await;
        added.map_err(|e| NetlinkError::new("add a default route for IPv6", e))
    }

    /// Takes the route of `add_default_route6` away; that it is gone already is no error.
    pub async fn remove_default_route6(&self, index: u32, metric: u32, table: Option<u32>) {
        let route = default_route6(index, metric, table);
        let _ = self.handle.route().del(route).execute().await;
    }

    /// Routes one link-local host through an interface, with the largest packet that it takes.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn add_link_local_route(
        &self,
        index: u32,
        host: Ipv6Addr,
        mtu: u16,
    ) -> Result<(), NetlinkError> {
        let mut route = link_local_route(index, host);
        let mtu = RouteMetric::Mtu(u32::from(mtu));
        route.attributes.push(RouteAttribute::Metrics(vec![mtu]));
        let request = self.handle.route().add(route).replace();
        let added = request.execute().await;
        added.map_err(|e| NetlinkError::new(format!("route {host}"), e))
    }

    /// Takes the route of `add_link_local_route` away; that it is gone already is no error.
    pub async fn remove_link_local_route(&self, index: u32, host: Ipv6Addr) {
        let route = link_local_route(index, host);
        let _ = self.handle.route().del(route).execute().await;
    }

    /// Routes one host through an interface, with the largest packet that it takes.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn add_host_route(
        &self,
        index: u32,
        host: Ipv4Addr,
        source: Ipv4Addr,
        mtu: u16,
    ) -> Result<(), NetlinkError> {
        let mut route = host_route(index, host);
        route
            .attributes
            .push(RouteAttribute::PrefSource(source.into()));
        route
            .attributes
            .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(u32::from(
                mtu,
            ))]));
        let request = self.handle.route().add(route).replace();
        request
            .execute()
            .await
            .map_err(|e| NetlinkError::new(format!("route {host}"), e))
    }

    /// Takes the route of `add_host_route` away; that it is gone already is no error.
    pub async fn remove_host_route(&self, index: u32, host: Ipv4Addr) {
        let _ = self
            .handle
            .route()
            .del(host_route(index, host))
            .execute()
            .await;
    }

    /// A pair of joined interfaces, the second in the network namespace of process `peer_pid`.
    ///
    /// # Errors
    /// In the kernel's words.
    pub async fn add_veth(
        &self,
        name: &str,
        peer_name: &str,
        peer_pid: u32,
    ) -> Result<(), NetlinkError> {
        let veth = LinkVeth::new(name, peer_name).build();
        let added = self.handle.link().add(veth).execute().await;
        added.map_err(|e| NetlinkError::new("make a pair of network interfaces (veth)", e))?;
        let (peer_index, _) = self.link(peer_name).await?;
        let change = LinkUnspec::new_with_index(peer_index)
            .setns_by_pid(peer_pid)
            .build();
        let moved = self.handle.link().set(change).execute().await;
        moved.map_err(|e| NetlinkError::new(format!("move {peer_name} to its namespace"), e))
    }
}

fn mtu_attribute(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
}

fn host_route(index: u32, host: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(host, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build()
}

fn default_route6(index: u32, metric: u32, table: Option<u32>) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
        .output_interface(index);
    if metric > 0 {
        builder = builder.priority(metric);
    }
    if let Some(table) = table {
        builder = builder.table_id(table);
    }
    builder.build()
}

fn link_local_route(index: u32, host: Ipv6Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(host, 128)
        .output_interface(index)
        .build()
}
