//! The values that pppd's options set (pppd(8), OPTIONS).
//!
//! Later words win over earlier ones, as in pppd. Every value remembers where it came from, for
//! `dump` and for errors.

mod dump;
mod read;
#[cfg(test)]
pub(super) mod tests;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::proto::auth::{AuthMethods, Secret};
use crate::wire::ipv6cp::InterfaceIdentifier;

use super::client::LogConfig;
use super::error::Place;
use super::option_table::OptionSpec;

pub use read::DEPTH_MAX;
pub(super) use read::locate;

/// When the process leaves the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detach {
    /// As soon as the options are read (pppd's default).
    #[default]
    AtOnce,
    /// `updetach`: when the tunnel is up.
    WhenUp,
    /// `nodetach`.
    Never,
}

/// Whether the default route goes through the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultRoute {
    /// `defaultroute`.
    pub wanted: bool,
    /// `replacedefaultroute`: even where there is one already.
    pub replace: bool,
    /// `defaultroute-metric`.
    pub metric: Option<u32>,
}

/// Scripts that run as the tunnel comes and goes; `None` is pppd's place for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scripts {
    /// `net-init-script`.
    pub net_init: Option<PathBuf>,
    /// `net-pre-up-script`.
    pub net_pre_up: Option<PathBuf>,
    /// `net-down-script`.
    pub net_down: Option<PathBuf>,
    /// `ip-pre-up-script`.
    pub ip_pre_up: Option<PathBuf>,
    /// `ip-up-script`.
    pub ip_up: Option<PathBuf>,
    /// `ip-down-script`.
    pub ip_down: Option<PathBuf>,
    /// `ipv6-up-script`.
    pub ipv6_up: Option<PathBuf>,
    /// `ipv6-down-script`.
    pub ipv6_down: Option<PathBuf>,
    /// `auth-up-script`.
    pub auth_up: Option<PathBuf>,
    /// `auth-down-script`.
    pub auth_down: Option<PathBuf>,
}

/// MPPE as the options ask for it: key lengths that are required, and the modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MppeOptions {
    /// `require-mppe-40`.
    pub bits_40: bool,
    /// `require-mppe-56` (a dialect).
    pub bits_56: bool,
    /// `require-mppe-128`.
    pub bits_128: bool,
    /// `mppe-stateful`.
    pub stateful: bool,
    /// Our own `mppe-prefer-stateful`: ask for it instead of waiting to be asked.
    pub prefer_stateful: bool,
    /// The dialects' `mppe-128` or `mppe no56` without `required`: encrypt if the peer can.
    pub optional: bool,
}

impl MppeOptions {
    /// Any key length at all.
    #[must_use]
    pub const fn wanted(&self) -> bool {
        self.bits_40 || self.bits_56 || self.bits_128
    }
}

/// IPV6CP as the options ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipv6Options {
    /// `noipv6`.
    pub refused: bool,
    /// `ipv6 LOCAL,`.
    pub local: Option<InterfaceIdentifier>,
    /// `ipv6 ,REMOTE`.
    pub remote: Option<InterfaceIdentifier>,
    /// `ipv6cp-accept-local`.
    pub accept_local: bool,
    /// `ipv6cp-accept-remote`.
    pub accept_remote: bool,
    /// `ipv6cp-use-ipaddr`: identifiers end in the IPv4 addresses.
    pub use_ip_addresses: bool,
    /// `defaultroute6`.
    pub default_route: bool,
    /// `defaultroute6-metric`; `None` is the kernel's.
    pub default_route_metric: Option<u32>,
}

/// What the `pptp` program takes on its command line (pptp(8)), from a `pty` option or from flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PptpOptions {
    /// `--phone`: goes into the Outgoing-Call-Request.
    pub phone: String,
    /// `--localbind`: our outer address.
    pub local_bind: Option<Ipv4Addr>,
    /// `--rtmark`: `SO_MARK` of both sockets.
    pub mark: Option<u32>,
    /// `--timeout`: how long a hole in the sequence may hold later packets back.
    pub reorder_timeout_ms: u32,
    /// Not `--nobuffer`.
    pub reorder: bool,
    /// `--idle-wait`: silence before a control Echo-Request.
    pub idle_wait_ms: u64,
    /// `--max-echo-wait`: from an Echo-Request to giving up.
    pub max_echo_wait_ms: u64,
    /// `--missing-window`: the largest believable jump of sequence numbers.
    pub missing_window: Option<u32>,
    /// `--client-hostname`.
    pub host_name: Option<String>,
    /// `--logstring`.
    pub log_name: Option<String>,
    /// Not `--nohostroute`: a host route keeps the outer packets out of the tunnel.
    pub host_route: bool,
    /// The options as they stand in the `pty` line, for `check`.
    pub given: Vec<PptpWord>,
}

/// One option of the `pptp` program, as it stands in a `pty` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PptpWord {
    /// With its dashes: `--phone`.
    pub name: String,
    /// Empty for none.
    pub value: String,
    /// Why it changes nothing, if so.
    pub harmless: Option<&'static str>,
}

impl Default for PptpOptions {
    fn default() -> Self {
        Self {
            phone: String::new(),
            local_bind: None,
            mark: None,
            reorder_timeout_ms: 300,
            reorder: true,
            idle_wait_ms: 60_000,
            max_echo_wait_ms: 60_000,
            missing_window: None,
            host_name: None,
            log_name: None,
            host_route: true,
            given: Vec::new(),
        }
    }
}

/// An option that a source has set, for `dump` and `check`.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The row of the table.
    pub spec: &'static OptionSpec,
    /// The argument as `dump` shows it; empty for none, `??????` for a secret.
    pub shown: String,
    /// Where it came from.
    pub place: Place,
}

/// All values, with pppd's defaults.
#[derive(Clone, Debug)]
pub struct PppdOptions {
    /// `name`.
    pub name: Option<String>,
    /// `user`: our name towards the peer, when it is another than `name`.
    pub user: Option<String>,
    /// `password`.
    pub password: Option<Secret>,
    /// In place of a password that has expired; no option of pppd's.
    pub new_password: Option<Secret>,
    /// `remotename`.
    pub remote_name: Option<String>,
    /// `usehostname`: the host's name is our name, whatever `name` says.
    pub use_host_name: bool,
    /// `domain`: appended to the host's name.
    pub domain: Option<String>,
    /// `auth` (true) or `noauth` (false).
    pub auth: Option<bool>,
    /// `require-*`.
    pub require: AuthMethods,
    /// `refuse-*`.
    pub refuse: AuthMethods,
    /// `chap-secrets`.
    pub chap_secrets: Option<PathBuf>,
    /// `plugin radius.so`.
    pub radius: bool,
    /// `radius-config-file`.
    pub radius_config_file: Option<PathBuf>,
    /// `pap-secrets`.
    pub pap_secrets: Option<PathBuf>,
    /// `hide-password`: not in logs of PAP (the default).
    pub hide_password: bool,
    /// MPPE.
    pub mppe: MppeOptions,
    /// `noccp`.
    pub no_ccp: bool,
    /// `mru`.
    pub mru: Option<u16>,
    /// `mtu`.
    pub mtu: Option<u16>,
    /// `asyncmap`; `None` is `default-asyncmap`: not negotiated.
    pub accm: Option<u32>,
    /// Not `nopcomp`.
    pub pfc: bool,
    /// Not `noaccomp`.
    pub acfc: bool,
    /// Not `nomagic`.
    pub magic: bool,
    /// `lcp-restart`.
    pub restart_s: u32,
    /// `lcp-max-configure`.
    pub max_configure: u32,
    /// `lcp-max-terminate`.
    pub max_terminate: u32,
    /// `lcp-max-failure`.
    pub max_failure: u32,
    /// `lcp-echo-interval`; 0 sends none, `None` is our default.
    pub echo_interval_s: Option<u32>,
    /// `lcp-echo-failure`; 0 never gives up, `None` is our default.
    pub echo_failure: Option<u32>,
    /// `lcp-echo-adaptive`.
    pub echo_adaptive: bool,
    /// `chap-interval`; 0 challenges once.
    pub chap_interval_s: u32,
    /// `chap-timeout`.
    pub auth_timeout_s: u32,
    /// `local` of `local:remote`.
    pub local_address: Option<Ipv4Addr>,
    /// `remote` of `local:remote`.
    pub remote_address: Option<Ipv4Addr>,
    /// `ipcp-accept-local`.
    pub accept_local: bool,
    /// `ipcp-accept-remote`.
    pub accept_remote: bool,
    /// IPV6CP: `+ipv6` (pppd's default) or `noipv6`, and which identifiers.
    pub ipv6: Ipv6Options,
    /// `usepeerdns`.
    pub use_peer_dns: bool,
    /// `usepeerwins`.
    pub use_peer_wins: bool,
    /// `noresolvconf`: names servers in the environment of scripts only.
    pub no_resolv_conf: bool,
    /// `ms-dns`, in order; pppd takes two.
    pub ms_dns: Vec<Ipv4Addr>,
    /// `ms-wins`, in order; pppd takes two.
    pub ms_wins: Vec<Ipv4Addr>,
    /// `defaultroute` and what belongs to it.
    pub default_route: DefaultRoute,
    /// `proxyarp`.
    pub proxy_arp: bool,
    /// `ipparam`.
    pub ipparam: Option<String>,
    /// How often `debug` stands there.
    pub debug: u32,
    /// `logfd`; `None` is `nolog`.
    pub log_fd: Option<i32>,
    /// `logfile`.
    pub log_file: Option<PathBuf>,
    /// `lock`.
    pub lock: bool,
    /// `dump`.
    pub dump: bool,
    /// `dryrun`.
    pub dry_run: bool,
    /// `nodetach`, `updetach`.
    pub detach: Detach,
    /// `persist`.
    pub persist: bool,
    /// `demand`.
    pub demand: bool,
    /// `maxfail`; 0 is no limit.
    pub max_fail: u32,
    /// `holdoff`.
    pub holdoff_s: u32,
    /// `idle`; 0 is no limit.
    pub idle_s: u32,
    /// `maxconnect`; 0 is no limit.
    pub max_connect_s: u32,
    /// `unit`: the number in `pppN`.
    pub unit: Option<u32>,
    /// `ifname`.
    pub interface: Option<String>,
    /// `vrf`: the interface is put into this one.
    pub vrf: Option<String>,
    /// `child-timeout`: how long scripts may run on at the end; 0 is no limit.
    pub child_timeout_s: u32,
    /// `linkname`.
    pub link_name: Option<String>,
    /// `set NAME=VALUE` for scripts.
    pub environment: Vec<(String, String)>,
    /// `*-script`.
    pub scripts: Scripts,
    /// Server of `pty "pptp SERVER ..."` or `pptp_server SERVER`.
    pub server: Option<String>,
    /// Options of the `pptp` in `pty`.
    pub pptp: PptpOptions,
    /// What was set, in order.
    pub settings: Vec<Setting>,
}

impl Default for PppdOptions {
    fn default() -> Self {
        Self {
            name: None,
            user: None,
            password: None,
            new_password: None,
            remote_name: None,
            use_host_name: false,
            domain: None,
            auth: None,
            require: AuthMethods::NONE,
            refuse: AuthMethods::NONE,
            chap_secrets: None,
            radius: false,
            radius_config_file: None,
            pap_secrets: None,
            hide_password: true,
            mppe: MppeOptions::default(),
            no_ccp: false,
            mru: None,
            mtu: None,
            accm: Some(0),
            pfc: true,
            acfc: true,
            magic: true,
            restart_s: 3,
            max_configure: 10,
            max_terminate: 2,
            max_failure: 10,
            echo_interval_s: None,
            echo_failure: None,
            echo_adaptive: false,
            chap_interval_s: 0,
            auth_timeout_s: 60,
            local_address: None,
            remote_address: None,
            accept_local: false,
            accept_remote: false,
            ipv6: Ipv6Options::default(),
            use_peer_dns: false,
            use_peer_wins: false,
            no_resolv_conf: false,
            ms_dns: Vec::new(),
            ms_wins: Vec::new(),
            default_route: DefaultRoute::default(),
            proxy_arp: false,
            ipparam: None,
            debug: 0,
            log_fd: Some(1),
            log_file: None,
            lock: false,
            dump: false,
            dry_run: false,
            detach: Detach::default(),
            persist: false,
            demand: false,
            max_fail: 10,
            holdoff_s: 30,
            idle_s: 0,
            max_connect_s: 0,
            unit: None,
            interface: None,
            vrf: None,
            child_timeout_s: 5,
            link_name: None,
            environment: Vec::new(),
            scripts: Scripts::default(),
            server: None,
            pptp: PptpOptions::default(),
            settings: Vec::new(),
        }
    }
}

impl PppdOptions {
    /// Our name for authentication: `user`, else `name`, else the host's.
    #[must_use]
    pub fn our_name(&self, host_name: &str) -> String {
        let host_name = match &self.domain {
            Some(domain) if !domain.is_empty() && !host_name.contains('.') => {
                format!("{host_name}.{}", domain.trim_start_matches('.'))
            }
            _ => host_name.to_owned(),
        };
        let name = self.name.as_ref().filter(|_| !self.use_host_name);
        let given = self.user.as_ref().or(name);
        given.cloned().unwrap_or(host_name)
    }

    /// Methods that the peer may prove itself with; none is `noauth`.
    #[must_use]
    pub fn require_methods(&self) -> AuthMethods {
        match self.auth {
            Some(false) => AuthMethods::NONE,
            Some(true) if self.require == AuthMethods::NONE => AuthMethods::ALL,
            _ => self.require,
        }
    }

    /// Methods that we prove ourselves with.
    #[must_use]
    pub const fn allowed_methods(&self) -> AuthMethods {
        AuthMethods {
            eap: !self.refuse.eap,
            mschap_v2: !self.refuse.mschap_v2,
            mschap_v1: !self.refuse.mschap_v1,
            chap_md5: !self.refuse.chap_md5,
            pap: !self.refuse.pap,
        }
    }

    /// Where the log goes.
    #[must_use]
    pub fn log(&self) -> LogConfig {
        LogConfig {
            fd: self.log_fd,
            file: self.log_file.clone(),
            debug: self.debug > 0,
        }
    }
}
