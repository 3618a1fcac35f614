//! What different clients ask for: the option sets and times of those that servers meet most.
//!
//! Those of pppd are from captures of it; those of Windows and RouterOS from their manuals, and
//! where these say nothing (RouterOS' vendor and window) a guess. Not reproduced: Windows' callback, multilink and endpoint
//! options, which servers reject, and its LCP Identification packets.

use std::sync::Arc;

use clap::ValueEnum;

use crate::proto::auth::{AuthMethods, Secret, Secrets};
use crate::proto::endpoint::{EndpointConfig, Limits, Timers};
use crate::proto::link::{Addresses, Ipv6Config, LcpConfig, LinkConfig, MppeConfig};

/// Whose ways the clients have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Profile {
    /// MRU 1400, header compression, DNS and WINS asked for, IPV6CP, no echoes.
    Windows,
    /// RouterOS: MRU and MTU 1450, no header compression, MPPE if the server wants it, an echo
    /// every ten seconds.
    Mikrotik,
    /// pptp-linux with pppd: ACCM 0, header compression, MPPE required, window 3.
    PptpLinux,
    /// This program.
    #[default]
    PptpFast,
}

/// One password for everyone.
#[derive(Debug)]
struct OnePassword(Secret);

impl Secrets for OnePassword {
    fn find(&self, _client: &str, _server: &str, _pap: bool) -> Option<Secret> {
        Some(self.0.clone())
    }

    fn origin(&self, _pap: bool) -> String {
        "--password".to_owned()
    }
}

/// MPPE 128 and nothing else.
const MPPE_128: MppeConfig = MppeConfig {
    require: true,
    allow_40: false,
    allow_56: false,
    allow_128: true,
    allow_stateful: false,
    prefer_stateful: false,
};

impl Profile {
    /// As it is written on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Windows => "windows",
            Self::Mikrotik => "mikrotik",
            Self::PptpLinux => "pptp-linux",
            Self::PptpFast => "pptp-fast",
        }
    }

    /// What its control connections say.
    pub(super) fn endpoint(self, count: usize) -> EndpointConfig {
        let (host_name, vendor, receive_window) = match self {
            Self::Windows => ("", "Microsoft", 64),
            Self::Mikrotik => ("MikroTik", "MikroTik", 100),
            Self::PptpLinux => ("local", "cananian", 3),
            Self::PptpFast => ("local", "pptp-fast", 64),
        };
        EndpointConfig {
            host_name: host_name.to_owned(),
            vendor: vendor.to_owned(),
            receive_window,
            limits: Limits {
                connections_max: count,
                connections_per_peer_max: count,
                calls_max: count,
                ..Limits::default()
            },
            timers: Timers::default(),
            ..EndpointConfig::default()
        }
    }

    /// What its links ask for and agree to.
    pub(super) fn link(self, password: Secret, setup_timeout_ms: u64) -> LinkConfig {
        let methods = AuthMethods {
            mschap_v2: true,
            ..AuthMethods::NONE
        };
        let ask = Addresses {
            accept_local: true,
            accept_remote: true,
            ..Addresses::default()
        };
        let (lcp, addresses) = match self {
            Self::Windows => windows(ask),
            Self::Mikrotik => mikrotik(ask),
            Self::PptpLinux => (LcpConfig::default(), ask),
            Self::PptpFast => {
                let accm = None;
                let lcp = LcpConfig::default();
                (LcpConfig { accm, ..lcp }, ask)
            }
        };
        let (allow, mppe) = match self {
            Self::Mikrotik => (
                AuthMethods {
                    eap: false,
                    ..AuthMethods::ALL
                },
                MppeConfig {
                    require: false,
                    ..MPPE_128
                },
            ),
            _ => (methods, MPPE_128),
        };
        LinkConfig {
            name: String::new(),
            remote_name: None,
            require: AuthMethods::NONE,
            allow,
            eap_pass_through: false,
            secrets: Arc::new(OnePassword(password)),
            lcp: LcpConfig {
                setup_timeout_ms,
                ..lcp
            },
            mppe: Some(mppe),
            addresses,
            ipv6: (self == Self::Windows).then(Ipv6Config::default),
        }
    }
}

fn windows(ask: Addresses) -> (LcpConfig, Addresses) {
    let lcp = LcpConfig {
        mru: 1400,
        mtu: 1400,
        accm: None,
        // It does not look whether its peer is there; the control connection's echoes do.
        echo_interval_ms: 0,
        ..LcpConfig::default()
    };
    let addresses = Addresses {
        ask_dns: true,
        ask_wins: true,
        ..ask
    };
    (lcp, addresses)
}

fn mikrotik(ask: Addresses) -> (LcpConfig, Addresses) {
    let lcp = LcpConfig {
        mru: 1450,
        mtu: 1450,
        accm: None,
        pfc: false,
        acfc: false,
        // keepalive-timeout is 60 s.
        echo_interval_ms: 10_000,
        echo_failure: 6,
        ..LcpConfig::default()
    };
    (lcp, ask)
}
