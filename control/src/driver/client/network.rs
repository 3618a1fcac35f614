//! The host as long as the network layer is up: addresses, routes, name servers, scripts, in
//! pppd's order.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dataplane::program::{CallId, Command, Role};

use super::super::ipv6;
use super::super::name_servers;
use super::super::netlink::NetlinkError;
use super::super::scripts::{Facts, Script};
use super::{Client, TUN, Up};
use crate::proto::Action;
use crate::proto::ending::Ending;
use crate::proto::link::{Ipv6Network, Network};

/// What pppd makes up for either end before the peer has said, plus the number of the unit.
const LOCAL_DEFAULT: u32 = u32::from_be_bytes([10, 64, 64, 64]);
const REMOTE_DEFAULT: u32 = u32::from_be_bytes([10, 112, 112, 112]);
/// For ip-down, before what it may look at goes.
const SCRIPT_LIMIT: Duration = Duration::from_secs(5);

/// The network as long as it stands.
pub(super) struct Standing {
    pub(super) agreed: Network,
    pub(super) ipv6: Option<Ipv6Network>,
    pub(super) since: Instant,
    /// Packets in both directions at the last look, and when they were last more.
    pub(super) packets: u64,
    pub(super) busy_at: Instant,
}

impl Client<'_> {
    /// Lets packets through; what is to be done when that fails.
    pub(super) async fn network_up(&mut self, call_id: CallId, network: &Network) -> Vec<Action> {
        self.engine.open_network(call_id, TUN, network, false);
        // The packet that has called for the link waits in the device: it is read only now.
        self.attach(call_id);
        // Connections that this host only forwards do not know the interface's MTU.
        let mtu = Some(network.mtu);
        self.engine
            .command(call_id, Command::ClampMss { call_id, mtu });
        if let Err(error) = self.set_up_interface(network, true).await {
            self.log.line(&error.to_string());
            let reason = "no addresses on the interface".to_owned();
            return self.hang_up(call_id, Ending::NoAddresses(error.to_string()), reason);
        }
        self.set_name_servers(network).await;
        let now = Instant::now();
        self.network = Some(Standing {
            agreed: network.clone(),
            ipv6: None,
            since: now,
            packets: 0,
            busy_at: now,
        });
        self.had_network = true;
        self.life.network_up();
        self.start_script(Script::IpUp, Some(network), None);
        self.announce_up(Up {
            interface: self.interface.clone(),
            network: network.clone(),
            setup: self.started.elapsed(),
        });
        Vec::new()
    }

    /// The device serves this call from now on.
    fn attach(&mut self, call_id: CallId) {
        let Ok(fd) = self.tun.fd.try_clone() else {
            self.log.line("out of descriptors");
            return;
        };
        let attach = Command::AttachTun {
            tun: TUN,
            fd: fd.into(),
            features: self.tun.features,
            owner: Some(call_id),
            role: Role::Both,
        };
        self.engine.command(call_id, attach);
    }

    /// The interface before the call, for `demand`: up, with addresses that the peer may change.
    pub(super) async fn set_up_for_demand(&mut self) -> Result<(), NetlinkError> {
        let addresses = &self.config.link.addresses;
        let made_up = |base: u32| Ipv4Addr::from(base.wrapping_add(self.index % 128));
        let network = Network {
            local: addresses.local.unwrap_or_else(|| made_up(LOCAL_DEFAULT)),
            remote: addresses.remote.unwrap_or_else(|| made_up(REMOTE_DEFAULT)),
            dns: [None; 2],
            wins: [None; 2],
            mtu: self.config.link.lcp.mtu,
            compress_protocol: false,
            compress_address_control: false,
            require_encryption: false,
            cipher: String::new(),
        };
        self.set_up_interface(&network, false).await
    }

    /// Addresses, then the script before, then up, then routes. What is as it was stays.
    async fn set_up_interface(
        &mut self,
        network: &Network,
        is_agreed: bool,
    ) -> Result<(), NetlinkError> {
        let index = self.index;
        let is_new = self.addresses != Some((network.local, network.remote));
        if is_new {
            self.take_down_interface().await;
            self.netlink
                .add_address(index, network.local, Some(network.remote), 32)
                .await?;
            self.addresses = Some((network.local, network.remote));
        }
        if is_agreed {
            let facts = self.facts(Some(network), None);
            self.scripts.run(Script::IpPreUp, &facts, &self.log).await;
            self.follow_new_name().await;
        }
        ipv6::choose_no_address(&self.interface);
        self.netlink.set_up(index, Some(network.mtu)).await?;
        if is_new {
            let server = self.server.map_or(Ipv4Addr::UNSPECIFIED, |it| *it.ip());
            let outer = (server, self.way);
            let Self {
                routes,
                netlink,
                record,
                log,
                ..
            } = self;
            routes
                .set(netlink, (index, network.remote), outer, record, log)
                .await?;
        }
        Ok(())
    }

    /// Everything that has to do with the network, in the opposite order.
    pub(super) async fn network_down(&mut self) {
        let Some(standing) = &self.network else {
            return;
        };
        let elapsed = standing.since.elapsed();
        let minutes = elapsed.as_secs_f64() / 60.0;
        let (sent, received) = self.octets();
        let log = &self.log;
        log.line(&format!("Connect time {minutes:.1} minutes."));
        log.line(&format!("Sent {sent} bytes, received {received} bytes."));
        let carried = Some((elapsed.as_secs(), sent, received));
        self.start_script(Script::IpDown, Some(&standing.agreed), carried);
        self.start_ipv6_script(Script::Ipv6Down, carried);
        if let Some(agreed) = standing.ipv6 {
            self.forget_link_local(agreed).await;
        }
        self.network = None;
        self.restore_name_servers().await;
        // On demand the interface stays, to catch the next packet.
        if !self.config.persist.demand {
            self.take_down_interface().await;
        }
    }

    pub(super) async fn take_down_interface(&mut self) {
        let Some((local, _)) = self.addresses.take() else {
            return;
        };
        let _ = self.netlink.set_down(self.index).await;
        self.netlink.remove_address(self.index, local).await;
        self.routes.take_away(&self.netlink, &mut self.record).await;
    }

    async fn set_name_servers(&mut self, network: &Network) {
        let mut servers: Vec<Ipv4Addr> = network.dns.into_iter().flatten().collect();
        if !self.config.link.addresses.ask_dns {
            servers.clear();
        }
        for (which, server) in ["primary", "secondary"].iter().zip(&servers) {
            self.log.line(&format!("{which:<9} DNS address {server}"));
        }
        if !self.config.write_resolv_conf {
            servers.clear();
        }
        if servers.is_empty() && !name_servers::are_set_up() {
            return;
        }
        let interface = self.interface.clone();
        let noted = self.record.note(|left| left.name_servers = Some(interface));
        if !servers.is_empty() {
            self.write_pppds_resolv_conf(&servers);
        }
        let log = &self.log;
        if let Err(error) = noted {
            log.line(&format!("cannot set name servers: {error}"));
            return;
        }
        let set = name_servers::set(&self.config.tunnel, &self.interface, &servers, log);
        if let Err(error) = set.await {
            log.line(&format!("cannot set name servers: {error}"));
        }
    }

    /// pppd's own file, for scripts that know it.
    fn write_pppds_resolv_conf(&mut self, servers: &[Ipv4Addr]) {
        let file = self.config.scripts_dir.join("resolv.conf");
        let noted = self.record.note(|left| left.files.push(file.clone()));
        let written = noted.and_then(|()| std::fs::write(&file, name_servers::lines_of(servers)));
        if let Err(error) = written {
            self.log
                .line(&format!("cannot write {}: {error}", file.display()));
        }
    }

    /// After ip-down, which may have name servers of its own to put back first.
    async fn restore_name_servers(&mut self) {
        if self.record.leftovers().name_servers.is_none() {
            return;
        }
        self.scripts.finish(SCRIPT_LIMIT).await;
        name_servers::restore(&self.config.tunnel, &self.interface, &self.log).await;
        let file = self.config.scripts_dir.join("resolv.conf");
        if self.record.leftovers().files.contains(&file) {
            let _ = std::fs::remove_file(&file);
        }
        let _ = self.record.note(|left| {
            left.name_servers = None;
            left.files.retain(|noted| *noted != file);
        });
    }

    /// net-pre-up or ip-pre-up may have renamed the interface.
    pub(super) async fn follow_new_name(&mut self) {
        let Ok(name) = self.netlink.name_of(self.index).await else {
            return;
        };
        if name == self.interface {
            return;
        }
        self.log.line(&format!("Using interface {name}"));
        self.interface = name;
        self.move_kill_switch();
    }

    /// Once a second: the way to the server must not lead through the tunnel to it.
    pub(super) async fn guard_routes(&mut self) {
        let (Some(server), true) = (self.server, self.network.is_some()) else {
            return;
        };
        let (index, outer) = (self.index, (*server.ip(), self.way));
        let Self {
            routes,
            netlink,
            record,
            log,
            ..
        } = self;
        routes.guard(netlink, index, outer, record, log).await;
    }

    pub(super) fn start_script(
        &self,
        script: Script,
        network: Option<&Network>,
        carried: Option<(u64, u64, u64)>,
    ) {
        let facts = self.facts(network, carried);
        self.scripts.start(script, &facts, &self.log);
    }

    pub(super) fn facts<'a>(
        &'a self,
        network: Option<&'a Network>,
        carried: Option<(u64, u64, u64)>,
    ) -> Facts<'a> {
        Facts {
            interface: &self.interface,
            device: &self.device,
            network,
            ipv6: self.network.as_ref().and_then(|standing| standing.ipv6),
            peer_name: self.peer_name.as_deref(),
            uses_peer_dns: self.config.link.addresses.ask_dns,
            carried,
        }
    }

    /// Sent and received by the present call.
    pub(super) fn octets(&self) -> (u64, u64) {
        self.call.as_ref().map_or((0, 0), |(_, counters)| {
            (counters.sent_bytes.get(), counters.received_bytes.get())
        })
    }
}
