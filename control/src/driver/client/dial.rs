//! Before the call: who the server is, how large packets to it may be, and that nothing else
//! leaves this host.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::super::ipv6;
use super::super::netlink::Way;
use super::leftovers::Servers;
use super::{Client, ClientError};
use crate::config::client::ClientConfig;
use crate::proto::link::LinkConfig;
use crate::proto::{Action, Event};

/// Octets in front of an inner packet: IPv4 (20), GRE with both numbers (16), PPP with MPPE (8).
const OVERHEAD: u32 = 44;
/// What every IPv4 host must take.
const MTU_MIN: u32 = 576;
/// What a slot of the data plane holds beside its headers.
const MTU_MAX: u32 = 1_500;

/// A name that is being looked up.
pub(super) type Lookup = JoinHandle<std::io::Result<Vec<Ipv4Addr>>>;

impl Client<'_> {
    /// Starts an attempt: the server's addresses are what it waits for next.
    pub(super) fn dial(&mut self) {
        self.redial_at = None;
        self.is_waiting = false;
        self.ending = None;
        self.had_network = false;
        let known = self.known_addresses();
        let (name, port) = (self.config.server.clone(), self.config.port);
        self.lookup = Some(tokio::task::spawn_local(async move {
            match known {
                Some(known) => Ok(known),
                None => look_up(&name, port).await,
            }
        }));
    }

    /// Behind a kill switch, or with routes on demand, nobody can be asked: the addresses are those
    /// of before.
    fn known_addresses(&self) -> Option<Vec<Ipv4Addr>> {
        let recorded = self.record.leftovers().kill_switch.as_ref();
        let recorded = recorded.filter(|servers| servers.name == self.config.server);
        let kept = self.config.persist.demand && !self.addresses_found.is_empty();
        recorded
            .map(|servers| servers.addresses.clone())
            .or_else(|| kept.then(|| self.addresses_found.clone()))
    }

    /// The lookup has ended: the call is placed.
    pub(super) async fn found(
        &mut self,
        addresses: std::io::Result<Vec<Ipv4Addr>>,
    ) -> Result<Vec<Action>, ClientError> {
        self.lookup = None;
        let addresses = addresses.map_err(|error| self.unknown_server(&error.to_string()))?;
        self.close_kill_switch(&addresses)?;
        // One that does not answer is followed by the next.
        let turn = self.attempts % addresses.len().max(1);
        self.attempts = self.attempts.wrapping_add(1);
        let Some(address) = addresses.get(turn).copied() else {
            return Err(self.unknown_server("it has no IPv4 address, and PPTP needs one"));
        };
        self.addresses_found = addresses;
        self.aim_at(address).await;
        let server = SocketAddrV4::new(address, self.config.port);
        let link = Arc::new(fitted(self.config, self.way));
        Ok(self.engine.handle_event(Event::Dial { server, link }))
    }

    /// Before the first attempt on demand, whose routes may lead the resolver's own packets into
    /// the tunnel.
    pub(super) async fn look_ahead(&mut self) {
        let found = look_up(&self.config.server, self.config.port).await;
        self.addresses_found = found.unwrap_or_default();
        if let Some(address) = self.addresses_found.first().copied() {
            self.aim_at(address).await;
        }
    }

    /// Takes note of the server's address and of the way there.
    async fn aim_at(&mut self, address: Ipv4Addr) {
        self.server = Some(SocketAddrV4::new(address, self.config.port));
        self.device = address.to_string();
        // Without a way, dialling says so in better words. With routes on demand the tunnel may be
        // the way by now; the one from before is right.
        if let Ok(way) = self.routes.way(&self.netlink, address).await
            && way.interface != self.index
        {
            self.way = Some(way);
        }
    }

    fn unknown_server(&self, cause: &str) -> ClientError {
        ClientError::Resolve {
            server: self.config.server.clone(),
            cause: cause.to_owned(),
        }
    }

    fn close_kill_switch(&mut self, addresses: &[Ipv4Addr]) -> Result<(), ClientError> {
        if !self.config.kill_switch || self.is_closed {
            return Ok(());
        }
        self.close_all_but(addresses)
            .map_err(ClientError::KillSwitch)?;
        self.is_closed = true;
        self.log
            .line("Kill switch: nothing leaves but through the tunnel");
        Ok(())
    }

    /// The interface has another name.
    pub(super) fn move_kill_switch(&mut self) {
        if self.is_closed
            && let Err(error) = self.close_all_but(&self.addresses_found.clone())
        {
            self.log
                .line(&format!("cannot change the kill switch: {error}"));
        }
    }

    fn close_all_but(&mut self, addresses: &[Ipv4Addr]) -> std::io::Result<()> {
        self.record.close_kill_switch(Servers {
            name: self.config.server.clone(),
            addresses: addresses.to_vec(),
            port: self.config.port,
            interface: self.interface.clone(),
        })
    }
}

async fn look_up(name: &str, port: u16) -> std::io::Result<Vec<Ipv4Addr>> {
    let found = tokio::net::lookup_host((name, port)).await?;
    Ok(found
        .filter_map(|address| match address {
            std::net::SocketAddr::V4(address) => Some(*address.ip()),
            std::net::SocketAddr::V6(_) => None,
        })
        .collect())
}

/// The link's configuration; without `mtu`, packets are small enough for the way to the server.
fn fitted(config: &ClientConfig, way: Option<Way>) -> LinkConfig {
    let mut link = config.link.clone();
    link.ipv6 = link.ipv6.filter(|_| ipv6::is_available());
    if config.mtu.is_none()
        && let Some(way) = way
    {
        let mtu = way.mtu.saturating_sub(OVERHEAD).clamp(MTU_MIN, MTU_MAX);
        link.lcp.mtu = u16::try_from(mtu).unwrap_or(link.lcp.mtu);
    }
    link
}
