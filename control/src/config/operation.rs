//! How a server is watched and operated: the admin group, metrics, the form of the log; and where
//! its configuration came from, to read it again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Whose members may use the admin socket, where there is such a group.
pub const ADMIN_GROUP: &str = "pptp-fast";
/// Sessions that metrics name one by one, unless configured.
const PER_SESSION_MAX: u32 = 1_000;

/// How a server is watched and operated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationConfig {
    /// Beside root, members of this group may use the admin socket.
    pub admin_group: String,
    /// Where metrics are to be had; `None` is nowhere.
    pub metrics: Option<MetricsConfig>,
    /// How lines of the log look.
    pub log_format: LogFormat,
    /// Where this configuration was read from.
    pub source: Option<Source>,
}

impl Default for OperationConfig {
    fn default() -> Self {
        Self {
            admin_group: ADMIN_GROUP.to_owned(),
            metrics: None,
            log_format: LogFormat::default(),
            source: None,
        }
    }
}

/// A configuration's file, and what it was read with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// pppd's directory.
    pub dir: PathBuf,
    /// The name of this host.
    pub host_name: String,
}

/// Where metrics are to be had, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// HTTP is spoken there.
    pub listen: MetricsAddress,
    /// Sessions that are named one by one; 0 is none.
    pub per_session_max: u32,
}

/// An address and port, or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MetricsAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket, for root and the admin group.
    Unix(PathBuf),
}

impl TryFrom<String> for MetricsAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let address = text.parse().map(Self::Tcp);
        address.map_err(|_| {
            format!(
                "'{text}' is neither an address with a port, such as 127.0.0.1:9723, nor the path of \
                 a socket"
            )
        })
    }
}

impl std::fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// pppd's words.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[metrics]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MetricsSection {
    listen: Option<MetricsAddress>,
    per_session: bool,
    per_session_max: Option<u32>,
}

impl MetricsSection {
    pub(super) fn config(self) -> Option<MetricsConfig> {
        let per_session_max = self.per_session_max.unwrap_or(PER_SESSION_MAX);
        Some(MetricsConfig {
            listen: self.listen?,
            per_session_max: if self.per_session { per_session_max } else { 0 },
        })
    }
}

impl Source {
    pub(super) fn new(path: &Path, dir: &Path, host_name: &str) -> Self {
        Self {
            path: path.to_owned(),
            dir: dir.to_owned(),
            host_name: host_name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_an_address_or_a_socket() {
        let parse = |text: &str| MetricsAddress::try_from(text.to_owned());
        let socket = MetricsAddress::Unix("/run/metrics.sock".into());
        assert_eq!(parse("/run/metrics.sock"), Ok(socket));
        assert_eq!(parse("[::1]:9723").unwrap().to_string(), "[::1]:9723");
        assert!(parse("127.0.0.1").unwrap_err().contains("port"));
    }

    #[test]
    fn sessions_are_named_only_on_request() {
        let section = |text| toml::from_str::<MetricsSection>(text).unwrap().config();
        assert_eq!(section("per_session = true"), None);
        let max = |text| section(text).unwrap().per_session_max;
        assert_eq!(max("listen = \"127.0.0.1:1\""), 0);
        assert_eq!(max("listen = \"127.0.0.1:1\"\nper_session = true"), 1_000);
    }
}
