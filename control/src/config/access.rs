//! Who may connect, and how patient a server is with log-ins that fail: `[access]` and
//! `[log_in_backoff]`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::Deserialize;

use crate::proto::backoff::BackoffConfig;
use crate::proto::sources::{Access, SourceList};

use super::within::{Seconds, Within};

/// `[access]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AccessSection {
    allow: Vec<Prefix>,
    deny: Vec<Prefix>,
}

impl AccessSection {
    pub(super) fn config(&self) -> Arc<Access> {
        let list = |prefixes: &[Prefix]| SourceList::new(prefixes.iter().map(|it| (it.0, it.1)));
        Arc::new(Access {
            allow: list(&self.allow),
            deny: list(&self.deny),
        })
    }
}

/// `192.0.2.0/24`, or `192.0.2.1` alone.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Prefix(Ipv4Addr, u8);

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let problem = || format!("'{text}' is not a prefix such as 192.0.2.0/24, nor an address");
        let (address, len) = text.split_once('/').unwrap_or((&text, "32"));
        let address: Ipv4Addr = address.trim().parse().map_err(|_| problem())?;
        let len: u8 = len.trim().parse().map_err(|_| problem())?;
        if len > 32 {
            return Err(problem());
        }
        // Most likely something else was meant.
        if address.to_bits().trailing_zeros() + u32::from(len) < 32 {
            return Err(format!(
                "'{text}' has bits beyond its prefix: give the network, or the address alone"
            ));
        }
        Ok(Self(address, len))
    }
}

/// `[log_in_backoff]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BackoffSection {
    peer_failures_max: Option<Count>,
    user_failures_max: Option<Count>,
    first_s: Option<Seconds>,
    max_s: Option<Seconds>,
    forget_s: Option<Seconds>,
}

impl BackoffSection {
    pub(super) fn config(&self) -> BackoffConfig {
        let defaults = BackoffConfig::default();
        let count = |given: Option<Count>, default| given.map_or(default, |count| count.0);
        let ms = |given: Option<Seconds>, default| given.map_or(default, Seconds::ms);
        BackoffConfig {
            peer_failures_max: count(self.peer_failures_max, defaults.peer_failures_max),
            user_failures_max: count(self.user_failures_max, defaults.user_failures_max),
            first_ms: ms(self.first_s, defaults.first_ms),
            max_ms: ms(self.max_s, defaults.max_ms),
            forget_ms: ms(self.forget_s, defaults.forget_ms),
        }
    }
}

type Count = Within<0, 1_000_000>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_of_prefixes_and_addresses() {
        let text = "allow = [\"10.0.0.0/8\", \"192.0.2.1\"]\ndeny = [\"10.9.0.0/16\"]\n";
        let access = toml::from_str::<AccessSection>(text).unwrap().config();
        assert!(access.admits([10, 1, 2, 3].into()) && access.admits([192, 0, 2, 1].into()));
        assert!(!access.admits([10, 9, 2, 3].into()) && !access.admits([192, 0, 2, 2].into()));
        for (prefix, words) in [
            ("10.0.0.0/33", "not a prefix"),
            ("10.0.0/8", "not a prefix"),
            ("10.0.0.1/8", "bits beyond its prefix"),
            ("2001:db8::/32", "not a prefix"),
        ] {
            let error = toml::from_str::<AccessSection>(&format!("deny = [\"{prefix}\"]"));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(words), "{prefix}: {error}");
        }
    }

    #[test]
    fn patience_is_as_configured_and_nothing_is_the_default() {
        let config = |text| toml::from_str::<BackoffSection>(text).unwrap().config();
        assert_eq!(config(""), BackoffConfig::default());
        let given = config("peer_failures_max = 0\nfirst_s = 3\nforget_s = 60\n");
        let expected = BackoffConfig {
            peer_failures_max: 0,
            first_ms: 3_000,
            forget_ms: 60_000,
            ..BackoffConfig::default()
        };
        assert_eq!(given, expected);
    }
}
