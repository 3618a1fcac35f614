//! `[traffic]`: what sessions may carry, and what the host does with it.

use dataplane::rate_limit::Quota;
use serde::Deserialize;

use super::rates::{RateError, RateLimit};

/// Longest name of an interface (`IFNAMSIZ`, without the octet that ends it).
const NAME_BYTES_MAX: usize = 15;

/// What becomes of a session whose rate limit is not understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadRates {
    /// It goes on as if there were none; a line in the log says so.
    #[default]
    Pass,
    /// It is turned away.
    Refuse,
}

/// Whose packets leave with the address of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub enum Nat {
    /// Nobody's.
    #[default]
    Off,
    /// Clients', through every interface but other tunnels.
    Everywhere,
    /// Clients', through this interface.
    Through(String),
}

impl TryFrom<toml::Value> for Nat {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Boolean(false) => Ok(Self::Off),
            toml::Value::Boolean(true) => Ok(Self::Everywhere),
            toml::Value::String(name) if is_interface(&name) => Ok(Self::Through(name)),
            other => Err(format!(
                "{other} is neither true, false nor the name of an interface such as \"eth0\""
            )),
        }
    }
}

fn is_interface(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fits)
}

/// What the host does with clients' packets, from the start to the end of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Clients reach each other, as far as the host forwards packets at all.
    pub client_to_client: bool,
    /// Switch forwarding of IPv4 on (`net.ipv4.ip_forward`).
    pub forwarding: bool,
    /// Hide clients behind this host; needs `forwarding`.
    pub nat: Nat,
}

impl HostConfig {
    /// There have to be rules of nftables.
    #[must_use]
    pub const fn needs_table(&self) -> bool {
        !self.client_to_client || !matches!(self.nat, Nat::Off)
    }
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            client_to_client: true,
            forwarding: false,
            nat: Nat::Off,
        }
    }
}

/// Everything about traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficConfig {
    /// Of sessions for which neither secrets nor RADIUS name rates.
    pub rates: RateLimit,
    /// Likewise.
    pub quota: Quota,
    /// A rate limit of RADIUS that is not understood.
    pub bad_rates: BadRates,
    /// Drop what a client sends from an address that is not its own.
    pub check_source: bool,
    /// Tell TCP of no larger segments than the tunnel takes.
    pub clamp_mss: bool,
    /// What takes a restart to change.
    pub host: HostConfig,
}

impl Default for TrafficConfig {
    fn default() -> Self {
        Section::default().config()
    }
}

/// `[traffic]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Section {
    rate_limit: Rates,
    quota_bytes: u64,
    bad_rate_limit: BadRates,
    check_source: bool,
    clamp_mss: bool,
    client_to_client: bool,
    forwarding: bool,
    nat: Nat,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            rate_limit: Rates::default(),
            quota_bytes: 0,
            bad_rate_limit: BadRates::default(),
            check_source: true,
            clamp_mss: true,
            client_to_client: true,
            forwarding: false,
            nat: Nat::Off,
        }
    }
}

/// `down/up` in kbit/s; empty is none.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct Rates(RateLimit);

impl TryFrom<String> for Rates {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        match text.as_str() {
            "" => Ok(Self::default()),
            text => RateLimit::parse_down_up(text).map(Self),
        }
    }
}

impl Section {
    pub(super) fn config(self) -> TrafficConfig {
        TrafficConfig {
            rates: self.rate_limit.0,
            quota: Quota {
                total_bytes: Some(self.quota_bytes).filter(|bytes| *bytes > 0),
                ..Quota::default()
            },
            bad_rates: self.bad_rate_limit,
            check_source: self.check_source,
            clamp_mss: self.clamp_mss,
            host: HostConfig {
                client_to_client: self.client_to_client,
                forwarding: self.forwarding || self.nat != Nat::Off,
                nat: self.nat,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TrafficConfig, String> {
        let section = toml::from_str::<Section>(text);
        section.map(Section::config).map_err(|it| it.to_string())
    }

    #[test]
    fn nat_is_a_switch_or_an_interface_and_brings_forwarding() {
        let host = |text| read(text).unwrap().host;
        assert_eq!(host(""), HostConfig::default());
        assert_eq!(host("nat = false"), HostConfig::default());
        let everywhere = host("nat = true");
        assert!(everywhere.nat == Nat::Everywhere && everywhere.forwarding);
        let through = host("nat = \"eth0\"");
        assert_eq!(through.nat, Nat::Through("eth0".to_owned()));
        for text in [
            "nat = \"\"",
            "nat = 1",
            "nat = \"a/b\"",
            "nat = \"sixteen-letters-\"",
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("name of an interface"), "{error}");
        }
    }

    #[test]
    fn rates_and_quotas_are_for_those_who_have_none_of_their_own() {
        let config = read("rate_limit = \"2000/512\"\nquota_bytes = 5368709120").unwrap();
        assert_eq!(config.rates.to_string(), "2000/512");
        assert_eq!(config.quota.total_bytes, Some(5 << 30));
        assert_eq!(read("").unwrap().quota, Quota::default());
        assert!(read("").unwrap().rates.is_none());
        let error = read("rate_limit = \"fast\"").unwrap_err();
        assert!(error.contains("down/up in kbit/s"), "{error}");
        assert!(read("quota_bytes = -1").is_err());
    }
}
