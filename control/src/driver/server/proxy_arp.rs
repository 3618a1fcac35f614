//! `proxyarp`: this host answers ARP for clients whose addresses lie in the network of one of its
//! interfaces, so that neighbours there find them (pppd(8); arp(7)).
//!
//! It does so by entries in the kernel's table of neighbours, one a session, which carry a protocol
//! number of ours (`NDA_PROTOCOL`, Linux 5.0): what a killed process has left is told from what an
//! administrator has set, and removed by the next start. The kernel answers for an entry only where
//! it forwards packets, and not towards the interface where the address is routed to.
//!
//! When sessions are taken over from another process, `Server::open_proxy_arp` must come before
//! them: it takes entries away, which `Server::answer_arp` makes again.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dataplane::program::CallId;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};

use super::Server;
use crate::config::server::ServerConfig;
use crate::driver::kernel_writer::{Change, For, proxies};
use crate::driver::namespace;

/// Interfaces are looked at again no sooner, when none fits.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Whose ARP is answered.
pub(super) struct ProxyArp {
    place: Option<PathBuf>,
    networks: Vec<LocalNetwork>,
    looked_at: Instant,
    entries: HashMap<CallId, (u32, Ipv4Addr)>,
}

/// A network that this host is in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LocalNetwork {
    name: String,
    index: u32,
    address: Ipv4Addr,
    mask: Ipv4Addr,
}

impl LocalNetwork {
    fn contains(&self, client: Ipv4Addr) -> bool {
        let mask = self.mask.to_bits();
        client != self.address && client.to_bits() & mask == self.address.to_bits() & mask
    }
}

impl ProxyArp {
    fn open(config: &ServerConfig) -> Self {
        let place = config.netns.as_deref().map(namespace::path_of);
        let networks = networks(place.clone()).unwrap_or_default();
        Self {
            place,
            networks,
            looked_at: Instant::now(),
            entries: HashMap::new(),
        }
    }

    /// The interface whose network has `client`.
    fn find(&mut self, client: Ipv4Addr) -> Option<&LocalNetwork> {
        let is_there = |it: &LocalNetwork| it.contains(client);
        if !self.networks.iter().any(is_there) && self.looked_at.elapsed() > LOOK_AGAIN {
            self.looked_at = Instant::now();
            if let Some(networks) = networks(self.place.clone()) {
                self.networks = networks;
            }
        }
        self.networks.iter().find(|it| is_there(it))
    }
}

/// Networks of the interfaces that answer ARP: as pppd, those that are up and broadcast, and are
/// neither loopback nor point to point. `None` when that cannot be known: the namespace can be
/// entered only before capabilities are given up.
fn networks(place: Option<PathBuf>) -> Option<Vec<LocalNetwork>> {
    namespace::inside(place.as_deref(), read_networks).ok()?
}

fn read_networks() -> Option<Vec<LocalNetwork>> {
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_BROADCAST;
    let unwanted =
        InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_POINTOPOINT | InterfaceFlags::IFF_NOARP;
    let usable = getifaddrs()
        .ok()?
        .filter(|it| it.flags.contains(wanted) && !it.flags.intersects(unwanted));
    let networks = usable.filter_map(|it| {
        Some(LocalNetwork {
            address: it.address?.as_sockaddr_in()?.ip(),
            mask: it.netmask?.as_sockaddr_in()?.ip(),
            index: if_nametoindex(it.interface_name.as_str()).ok()?,
            name: it.interface_name,
        })
    });
    Some(networks.collect())
}

impl Server {
    /// Before the first session: finds the interfaces, and takes away what a killed process has
    /// left of addresses of ours.
    pub(super) fn open_proxy_arp(&mut self) {
        if !self.config.proxy_arp {
            return;
        }
        let proxy_arp = ProxyArp::open(&self.config);
        let place = proxy_arp.place.clone();
        let left = namespace::inside(place.as_deref(), proxies::ours);
        let left = left.ok().and_then(Result::ok).unwrap_or_default();
        let fixed = self.config.fixed_addresses();
        let is_ours = |address: &Ipv4Addr| {
            let pools = &self.config.pools;
            let has_it = pools
                .iter()
                .any(|pool| pool.spec.ranges.index_of(*address).is_some());
            has_it || fixed.contains(address)
        };
        let changes: Vec<Change> = left
            .into_iter()
            .filter(|(_, address)| is_ours(address))
            .map(|(index, address)| Change::RemoveProxy { index, address })
            .collect();
        if !changes.is_empty() {
            let count = changes.len();
            self.log.line(&format!(
                "{count} entries of proxy ARP were left behind; removed"
            ));
            self.kernel.change(For::Session(CallId(0)), changes);
        }
        self.proxy_arp = Some(proxy_arp);
    }

    /// From now on ARP for this client is answered.
    pub(super) fn answer_arp(&mut self, call_id: CallId, address: Ipv4Addr) {
        let Some(proxy_arp) = &mut self.proxy_arp else {
            return;
        };
        // As pppd's.
        let Some(network) = proxy_arp.find(address) else {
            return self.say(call_id, "Cannot determine ethernet address for proxy ARP");
        };
        let (index, words) = (
            network.index,
            format!("found interface {} for proxy arp", network.name),
        );
        let before = proxy_arp.entries.insert(call_id, (index, address));
        self.say(call_id, &words);
        let mut changes = Vec::new();
        if let Some((index, address)) = before.filter(|before| *before != (index, address)) {
            changes.push(Change::RemoveProxy { index, address });
        }
        changes.push(Change::AddProxy { index, address });
        self.kernel.change(For::Session(call_id), changes);
    }

    /// ARP for this client is not answered any more.
    pub(super) fn stop_answering_arp(&mut self, call_id: CallId) {
        let entries = self.proxy_arp.as_mut().map(|it| &mut it.entries);
        if let Some((index, address)) = entries.and_then(|entries| entries.remove(&call_id)) {
            let changes = vec![Change::RemoveProxy { index, address }];
            self.kernel.change(For::Session(call_id), changes);
        }
    }

    /// The server ends, and so do those sessions that have not ended in time.
    pub(super) fn stop_answering_all_arp(&mut self) {
        let entries = self.proxy_arp.as_mut().map(|it| &mut it.entries);
        let rest: Vec<CallId> = entries.map_or_else(Vec::new, |it| it.keys().copied().collect());
        for call_id in rest {
            self.stop_answering_arp(call_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_neighbours_and_not_this_host() {
        let network = LocalNetwork {
            name: "lan0".to_owned(),
            index: 2,
            address: Ipv4Addr::new(10, 5, 6, 1),
            mask: Ipv4Addr::new(255, 255, 255, 0),
        };
        assert!(network.contains(Ipv4Addr::new(10, 5, 6, 200)));
        assert!(!network.contains(Ipv4Addr::new(10, 5, 6, 1)));
        assert!(!network.contains(Ipv4Addr::new(10, 5, 7, 200)));
    }

    #[test]
    fn loopback_is_no_network_for_arp() {
        let found = read_networks().unwrap();
        assert!(found.iter().all(|it| !it.address.is_loopback()));
    }
}
