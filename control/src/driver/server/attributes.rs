//! What the secrets or a RADIUS server say of one session beside that it may come in. Both make
//! the same value; who limits, routes and counts need not know which of them it was.

use std::net::Ipv4Addr;

use dataplane::prefix::mask;
use dataplane::rate_limit::Quota;
use serde::{Deserialize, Serialize};

use crate::config::rates::RateLimit;
use crate::config::secrets::Entry;
use crate::proto::link::MppeLimit;

/// How many routes one session may bring (`Framed-Route`).
pub const ROUTES_MAX: usize = 64;

/// The inner address of a session's client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressChoice {
    /// One of the pool (`Framed-IP-Address` of 255.255.255.254, or none).
    #[default]
    Pool,
    /// This one, whether a pool has it or not.
    Fixed(Ipv4Addr),
    /// What the client asks for (`Framed-IP-Address` of 255.255.255.255; pptpd's `delegate`).
    Client,
}

/// A network behind a client: routed to its session as long as that stands (`Framed-Route`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRoute {
    /// Network, without bits beyond its prefix.
    pub destination: Ipv4Addr,
    /// Bits of the network, 0 to 32.
    pub prefix_len: u8,
    /// Metric; `None` leaves it to the kernel.
    pub metric: Option<u32>,
}

impl SessionRoute {
    /// The network that `address` lies in.
    #[must_use]
    pub const fn around(address: Ipv4Addr, prefix_len: u8, metric: Option<u32>) -> Self {
        Self {
            destination: Ipv4Addr::from_bits(address.to_bits() & mask(prefix_len)),
            prefix_len: if prefix_len > 32 { 32 } else { prefix_len },
            metric,
        }
    }

    /// Whether the network has `address` in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        Self::around(address, self.prefix_len, self.metric) == *self
    }
}

/// Everything that is particular to one session. What is `None` or empty is left to the server's
/// configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionAttributes {
    /// Name that the client proved to be its own (or the `User-Name` that RADIUS gave it); empty
    /// until then.
    pub user: String,
    /// Where its address comes from.
    pub address: AddressChoice,
    /// `Framed-Pool`: the pool's name, when `address` is `Pool`.
    pub pool: Option<String>,
    /// Networks behind it, at most [`ROUTES_MAX`].
    pub routes: Vec<SessionRoute>,
    /// `Filter-Id`, as it came.
    pub filter_id: Option<String>,
    /// `Mikrotik-Rate-Limit`, as it came.
    pub rate_limit: Option<String>,
    /// `Cisco-AVPair` that names rates, as each came.
    pub cisco_rates: Vec<String>,
    /// `WISPr-Bandwidth-Max-Up`, what the client may send: bits a second.
    pub wispr_up_bps: Option<u32>,
    /// `WISPr-Bandwidth-Max-Down`, what it may receive: bits a second.
    pub wispr_down_bps: Option<u32>,
    /// What those four, or the fifth column of a secret, come to.
    pub rates: Option<RateLimit>,
    /// `Session-Octets-Limit` and its like; instead of the server's own.
    pub quota: Option<Quota>,
    /// `Session-Timeout`; instead of the server's own.
    pub session_timeout_ms: Option<u64>,
    /// `Idle-Timeout`; instead of the server's own.
    pub idle_timeout_ms: Option<u64>,
    /// `Acct-Interim-Interval`; instead of the server's own.
    pub interim_interval_ms: Option<u64>,
    /// `Class`: to be echoed in accounting, octet for octet.
    pub class: Vec<Vec<u8>>,
    /// DNS servers to give (`MS-Primary-DNS-Server`, `MS-Secondary-DNS-Server`).
    pub dns: [Option<Ipv4Addr>; 2],
    /// WINS servers to give (`MS-Primary-NBNS-Server`, `MS-Secondary-NBNS-Server`).
    pub wins: [Option<Ipv4Addr>; 2],
    /// `MS-MPPE-Encryption-Policy` and `MS-MPPE-Encryption-Types`.
    pub mppe: MppeLimit,
}

impl SessionAttributes {
    /// What the line of a secrets file says.
    #[must_use]
    pub fn from_secret(user: &str, entry: Option<&Entry>) -> Self {
        let fixed = entry.and_then(Entry::fixed_address);
        Self {
            user: user.to_owned(),
            address: fixed.map_or(AddressChoice::Pool, AddressChoice::Fixed),
            rates: entry.and_then(|entry| entry.rates),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_holds_its_network_and_nothing_else() {
        let address = Ipv4Addr::new(10, 1, 2, 3);
        let route = SessionRoute::around(address, 24, None);
        assert_eq!(route.destination, Ipv4Addr::new(10, 1, 2, 0));
        assert!(route.contains(Ipv4Addr::new(10, 1, 2, 255)));
        assert!(!route.contains(Ipv4Addr::new(10, 1, 3, 0)));
        let all = SessionRoute::around(address, 0, None);
        assert!(all.contains(Ipv4Addr::BROADCAST) && all.destination.is_unspecified());
        let host = SessionRoute::around(address, 32, None);
        assert!(host.contains(address) && !host.contains(Ipv4Addr::new(10, 1, 2, 2)));
    }
}
