//! What `serve` needs: one type, whichever file it comes from.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::proto::backoff::BackoffConfig;
use crate::proto::link::LinkConfig;
use crate::proto::pool::AddressRanges;
use crate::proto::pools::{PoolSpec, Pools};
use crate::proto::sources::Access;

use super::client::LogConfig;
use super::error::ConfigError;
use super::fast_path::FastPathMode;
use super::operation::{OperationConfig, Source};
use super::pools::{LeasesConfig, PoolConfig};
use super::radius::RadiusConfig;
use super::secrets::FileSecrets;
use super::traffic::TrafficConfig;
use super::{PPTP_PORT, pptpd_conf, server_toml};

/// Bounds on what peers can make the server hold or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time (`connections`).
    pub sessions_max: u32,
    /// Control connections of one peer address at a time.
    pub connections_per_peer_max: u32,
    /// Control connections without a call at a time.
    pub half_open_max: u32,
    /// The same of one peer address; `None` leaves it at `connections_per_peer_max`.
    pub half_open_per_peer_max: Option<u32>,
    /// Calls over one control connection (pptpd's `MAX_CALLS_PER_TCP_LINK` is 128).
    pub calls_per_connection_max: u32,
    /// Sessions of one peer address; `None` leaves it at what its connections can carry.
    pub sessions_per_peer_max: Option<u32>,
    /// Calls whose network is not open at a time.
    pub half_open_calls_max: u32,
    /// The same of one peer address; `None` leaves it at what its connections can carry.
    pub half_open_calls_per_peer_max: Option<u32>,
    /// Bits of an address that make it one peer address.
    pub peer_prefix_len: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 100,
            connections_per_peer_max: 64,
            half_open_max: 1_024,
            half_open_per_peer_max: None,
            calls_per_connection_max: 1,
            sessions_per_peer_max: None,
            half_open_calls_max: 4_096,
            half_open_calls_per_peer_max: None,
            peer_prefix_len: 32,
        }
    }
}

impl Limits {
    /// Takes over what may change while a server runs: all but how many sessions there is room for,
    /// and which addresses count as one.
    pub(crate) const fn adopt(&mut self, new: &Self) {
        *self = Self {
            sessions_max: self.sessions_max,
            peer_prefix_len: self.peer_prefix_len,
            ..*new
        };
    }
}

/// How long the server waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the first control message (`stimeout`).
    pub first_message_ms: u64,
    /// For the first call, and after the last for another.
    pub first_call_ms: u64,
    /// Silence on a control connection before an Echo-Request (RFC 2637 3.1.4).
    pub echo_interval_ms: u64,
    /// From that Echo-Request to closing the connection (RFC 2637 3.1.4).
    pub echo_wait_ms: u64,
    /// `idle`: without a packet of the network layer; `None` is no limit.
    pub idle_ms: Option<u64>,
    /// `maxconnect`; `None` is no limit.
    pub session_ms: Option<u64>,
    /// For all sessions to end in order at a shutdown.
    pub shutdown_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_message_ms: 10_000,
            first_call_ms: 60_000,
            echo_interval_ms: 60_000,
            echo_wait_ms: 60_000,
            idle_ms: None,
            session_ms: None,
            shutdown_ms: 5_000,
        }
    }
}

/// For LCP, and for what follows authentication: the network layers. LCP gives up by itself after
/// 30 s without an answer.
pub const PHASE_TIMEOUT_MS: u64 = 60_000;

/// What becomes of a user's earlier session when he comes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SingleSession {
    /// Both live.
    #[default]
    Allow,
    /// The earlier one ends.
    Replace,
    /// The later one is turned away.
    Deny,
}

/// Where the inner addresses of the server's own ends come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddresses {
    /// Every session has the same.
    Shared(Ipv4Addr),
    /// The n-th session slot has the n-th, as in pptpd.
    PerSession(Vec<Ipv4Addr>),
}

impl LocalAddresses {
    /// The server's end towards the client that has the `index`-th address of the pool; `None`
    /// only when there is no address at all.
    #[must_use]
    pub fn for_client(&self, index: u32) -> Option<Ipv4Addr> {
        let list = self.as_slice();
        let position = (index as usize).checked_rem(list.len())?;
        list.get(position).copied()
    }

    /// All of them: none may be given to a client.
    #[must_use]
    pub fn as_slice(&self) -> &[Ipv4Addr] {
        match self {
            Self::Shared(address) => std::slice::from_ref(address),
            Self::PerSession(list) => list,
        }
    }
}

/// The concentrator, ready to be started.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// TCP addresses to listen on; GRE goes out from the same.
    pub listen: Vec<SocketAddrV4>,
    /// How every link is negotiated. `addresses` has the name servers only: who gets which address
    /// comes with the verdict of authentication.
    pub link: LinkConfig,
    /// The secrets, for verdicts; `link.secrets` is the same.
    pub secrets: Arc<FileSecrets>,
    /// The server's own inner addresses.
    pub local: LocalAddresses,
    /// Clients' inner addresses. Those of the server among them are set aside. There is always one.
    pub pools: Vec<PoolConfig>,
    /// How they outlive the process.
    pub leases: LeasesConfig,
    /// `delegate`: clients without an address of their own in the secrets get none of the pools.
    pub delegate: bool,
    /// Workers of the data plane; `None` is one a core.
    pub workers: Option<NonZeroUsize>,
    /// Let two workers share each session, one a direction.
    pub split_directions: bool,
    /// How GRE packets leave.
    pub fast_path: FastPathMode,
    /// Prepare the key streams of packets to come.
    pub look_ahead: bool,
    /// TUN interfaces are called so, with a number.
    pub interface_prefix: String,
    /// Give every session an interface of its own, named `pppN`.
    pub interface_per_session: bool,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timeouts: Timeouts,
    /// The same user twice.
    pub single_session: SingleSession,
    /// Who may connect.
    pub access: Arc<Access>,
    /// Log-ins that fail.
    pub backoff: BackoffConfig,
    /// Ask RADIUS servers instead of the secrets.
    pub radius: Option<RadiusConfig>,
    /// The client's outer address is the scripts' `ipparam` (not `noipparam`).
    pub ipparam: bool,
    /// `proxyarp`: answer ARP for clients on the local network.
    pub proxy_arp: bool,
    /// What sessions may carry.
    pub traffic: TrafficConfig,
    /// Run `ip-up` and `ip-down` of this directory for each session; `None` runs nothing.
    pub scripts_dir: Option<PathBuf>,
    /// `pidfile`.
    pub pid_file: Option<PathBuf>,
    /// `vrf`: sockets are bound to this device.
    pub vrf: Option<String>,
    /// TUN interfaces are put into this VRF.
    pub interface_vrf: Option<String>,
    /// TUN interfaces, addresses and routes are in this network namespace: a name or a path.
    pub netns: Option<String>,
    /// Where the log goes.
    pub log: LogConfig,
    /// How it is watched and operated.
    pub operation: OperationConfig,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// Text of the CHAP Success or PAP Ack, which the peer's log shows.
    pub welcome: String,
}

impl ServerConfig {
    /// Defaults for everything but who may come in and which addresses there are.
    #[must_use]
    pub fn new(
        link: LinkConfig,
        secrets: Arc<FileSecrets>,
        local: LocalAddresses,
        pool: AddressRanges,
    ) -> Self {
        Self {
            listen: vec![LISTEN_ANY],
            link,
            secrets,
            local,
            pools: vec![PoolConfig::only(pool)],
            leases: LeasesConfig::default(),
            delegate: false,
            workers: None,
            split_directions: false,
            fast_path: FastPathMode::default(),
            look_ahead: false,
            interface_prefix: "pptp".to_owned(),
            interface_per_session: false,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            single_session: SingleSession::default(),
            access: Arc::default(),
            backoff: BackoffConfig::default(),
            radius: None,
            ipparam: true,
            proxy_arp: false,
            traffic: TrafficConfig::default(),
            scripts_dir: None,
            pid_file: None,
            vrf: None,
            interface_vrf: None,
            netns: None,
            log: LogConfig::default(),
            operation: OperationConfig::default(),
            warnings: Vec::new(),
            welcome: WELCOME.to_owned(),
        }
    }

    /// The pools with no address given yet, the server's own set aside, and those of users kept for
    /// them.
    #[must_use]
    pub fn address_pools(&self) -> Pools {
        Pools::new(
            self.pool_specs(),
            &self.own_addresses(),
            self.fixed_addresses(),
        )
    }

    /// What the pools have.
    #[must_use]
    pub fn pool_specs(&self) -> Vec<PoolSpec> {
        self.pools.iter().map(|pool| pool.spec.clone()).collect()
    }

    /// The server's own inner addresses.
    #[must_use]
    pub fn own_addresses(&self) -> Vec<Ipv4Addr> {
        let of_pools = self.pools.iter().filter_map(|pool| pool.local.as_ref());
        let all = std::iter::once(&self.local).chain(of_pools);
        all.flat_map(LocalAddresses::as_slice).copied().collect()
    }

    /// Addresses that the secrets give to particular users.
    #[must_use]
    pub fn fixed_addresses(&self) -> HashSet<Ipv4Addr> {
        self.secrets.fixed_addresses().collect()
    }

    /// The server's end for a client with this address: that of the address's pool, and where the
    /// pool has a list of them, the one in the same place.
    #[must_use]
    pub fn local_for(&self, remote: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let found = remote.and_then(|remote| {
            self.pools.iter().find_map(|pool| {
                let index = pool.spec.ranges.index_of(remote)?;
                Some((pool.local.as_ref().unwrap_or(&self.local), index))
            })
        });
        let (local, index) = found.unwrap_or((&self.local, 0));
        local.for_client(index)
    }

    /// Reads a server file: TOML when its name ends in `.toml`, else pptpd.conf. `dir` is pppd's
    /// directory, `host_name` the name of this host.
    ///
    /// # Errors
    /// What is wrong, with file and line.
    pub fn read(path: &Path, dir: &Path, host_name: &str) -> Result<Self, ConfigError> {
        let is_toml = path.extension().is_some_and(|it| it == "toml");
        let mut config = if is_toml {
            server_toml::read(path, dir, host_name)
        } else {
            pptpd_conf::read(path, dir, host_name)
        }?;
        config.operation.source = Some(Source::new(path, dir, host_name));
        Ok(config)
    }
}

/// pppd's words.
pub(super) const WELCOME: &str = "Access granted";

/// Every address of this host.
pub(super) const LISTEN_ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PPTP_PORT);
