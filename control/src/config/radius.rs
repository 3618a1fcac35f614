//! Authentication and accounting by RADIUS: `[radius]` of our own server file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::proto::auth::Secret;
use crate::proto::radius::{AccountingConfig, ClientConfig, DynamicClient, ServerSpec};
use crate::wire::radius::MessageAuthenticator;

use super::error::{ConfigError, Place};
use super::source;

/// RFC 2865 3.
pub(super) const AUTH_PORT: u16 = 1812;
/// RFC 2866 3.
pub(super) const ACCT_PORT: u16 = 1813;
/// RFC 5176 2.1.
const DYNAMIC_PORT: u16 = 3799;
/// Sockets for each purpose: so many times 256 requests are under way to one server.
const SOCKETS: u16 = 4;
/// Until a record that no server took is sent again.
const RETRY_MS: u64 = 30_000;
/// Records kept for servers to come back: a day of a thousand sessions that last two hours, and
/// about 10 MB.
const RECORDS_MAX: usize = 25_000;
/// Longest shared secret; more is a wrong file.
const SECRET_BYTES_MAX: usize = 1_024;

/// One RADIUS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RadiusServer {
    /// Where it is.
    pub address: Ipv4Addr,
    /// For authentication; `None` does not ask it.
    pub auth_port: Option<u16>,
    /// For accounting; `None` does not tell it.
    pub acct_port: Option<u16>,
    /// Shared with it.
    pub secret: Secret,
    /// Whether its replies count without Message-Authenticator.
    pub message_authenticator: MessageAuthenticator,
}

/// Who may change and end sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// To whom.
    pub clients: Vec<DynamicClient>,
}

/// How RADIUS is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RadiusConfig {
    /// In the order in which they are asked.
    pub servers: Vec<RadiusServer>,
    /// Local address of the sockets.
    pub bind: Ipv4Addr,
    /// `NAS-Identifier`; `None` is the server's name.
    pub nas_identifier: Option<String>,
    /// `NAS-IP-Address`; `None` is the address that the client called.
    pub nas_ip_address: Option<Ipv4Addr>,
    /// From sending a request to sending it again.
    pub timeout_ms: u64,
    /// How often one server gets the same request.
    pub tries: u32,
    /// How long a server that does not answer is left alone.
    pub dead_ms: u64,
    /// Whether sessions are accounted for.
    pub accounting: bool,
    /// Between interim updates, where the server does not say; `None` sends none.
    pub interim_ms: Option<u64>,
    /// Use the secrets files while no server answers.
    pub fall_back_to_secrets: bool,
    /// Orders to change or end sessions; `None` takes none.
    pub dynamic: Option<DynamicConfig>,
}

impl Default for RadiusConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            bind: Ipv4Addr::UNSPECIFIED,
            nas_identifier: None,
            nas_ip_address: None,
            timeout_ms: 3_000,
            tries: 3,
            dead_ms: 60_000,
            accounting: true,
            interim_ms: None,
            fall_back_to_secrets: false,
            dynamic: None,
        }
    }
}

impl RadiusConfig {
    /// For authentication.
    #[must_use]
    pub fn auth(&self) -> ClientConfig {
        self.client(|server| server.auth_port, !self.fall_back_to_secrets)
    }

    /// For accounting; `None` when there is none.
    #[must_use]
    pub fn accounting(&self) -> Option<AccountingConfig> {
        let client = self.client(|server| server.acct_port, false);
        (self.accounting && !client.servers.is_empty()).then_some(AccountingConfig {
            client,
            retry_ms: RETRY_MS,
            records_max: RECORDS_MAX,
        })
    }

    fn client(
        &self,
        port: impl Fn(&RadiusServer) -> Option<u16>,
        ask_the_dead: bool,
    ) -> ClientConfig {
        let servers = self.servers.iter().filter_map(|server| {
            Some(ServerSpec {
                address: SocketAddr::new(IpAddr::V4(server.address), port(server)?),
                secret: server.secret.clone(),
                message_authenticator: server.message_authenticator,
            })
        });
        ClientConfig {
            servers: servers.collect(),
            timeout_ms: self.timeout_ms,
            tries: self.tries,
            dead_ms: self.dead_ms,
            sockets: SOCKETS,
            ask_the_dead,
        }
    }
}

/// `[radius]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Section {
    servers: Vec<ServerSection>,
    bind: Option<Ipv4Addr>,
    nas_identifier: Option<String>,
    nas_ip_address: Option<Ipv4Addr>,
    timeout_s: f64,
    tries: u32,
    dead_s: f64,
    accounting: bool,
    interim_s: f64,
    fall_back_to_secrets: bool,
    dynamic: Option<DynamicSection>,
}

impl Default for Section {
    fn default() -> Self {
        let default = RadiusConfig::default();
        Self {
            servers: Vec::new(),
            bind: None,
            nas_identifier: None,
            nas_ip_address: None,
            timeout_s: default.timeout_ms as f64 / 1000.0,
            tries: default.tries,
            dead_s: default.dead_ms as f64 / 1000.0,
            accounting: default.accounting,
            interim_s: 0.0,
            fall_back_to_secrets: default.fall_back_to_secrets,
            dynamic: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerSection {
    address: Ipv4Addr,
    secret_file: PathBuf,
    #[serde(default = "auth_port")]
    auth_port: u16,
    #[serde(default = "acct_port")]
    acct_port: u16,
    #[serde(default = "yes")]
    require_message_authenticator: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DynamicSection {
    #[serde(default = "dynamic_listen")]
    listen: SocketAddr,
    clients: Vec<DynamicClientSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DynamicClientSection {
    address: IpAddr,
    secret_file: PathBuf,
}

const fn auth_port() -> u16 {
    AUTH_PORT
}

const fn acct_port() -> u16 {
    ACCT_PORT
}

const fn yes() -> bool {
    true
}

const fn dynamic_listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DYNAMIC_PORT)
}

impl Section {
    /// What it asks for; `None` without servers. Relative paths lie in `dir`.
    pub(super) fn config(self, dir: &Path) -> Result<Option<RadiusConfig>, ConfigError> {
        if self.servers.is_empty() {
            return match self.dynamic {
                None => Ok(None),
                Some(_) => Err(wrong("radius.dynamic needs radius.servers")),
            };
        }
        let servers = self.servers.into_iter().map(|server| server.spec(dir));
        let dynamic = self.dynamic.map(|section| section.config(dir));
        Ok(Some(RadiusConfig {
            servers: servers.collect::<Result<_, _>>()?,
            bind: self.bind.unwrap_or(Ipv4Addr::UNSPECIFIED),
            nas_identifier: self.nas_identifier,
            nas_ip_address: self.nas_ip_address,
            timeout_ms: milliseconds("radius.timeout_s", self.timeout_s, 0.1, 60.0)?,
            tries: self.tries.clamp(1, 100),
            dead_ms: milliseconds("radius.dead_s", self.dead_s, 0.1, 86_400.0)?,
            accounting: self.accounting,
            interim_ms: Some(milliseconds(
                "radius.interim_s",
                self.interim_s,
                0.0,
                86_400.0,
            )?)
            .filter(|ms| *ms > 0),
            fall_back_to_secrets: self.fall_back_to_secrets,
            dynamic: dynamic.transpose()?,
        }))
    }
}

impl ServerSection {
    fn spec(self, dir: &Path) -> Result<RadiusServer, ConfigError> {
        let port = |port: u16| (port > 0).then_some(port);
        Ok(RadiusServer {
            address: self.address,
            auth_port: port(self.auth_port),
            acct_port: port(self.acct_port),
            secret: read_secret(&dir.join(&self.secret_file))?,
            message_authenticator: if self.require_message_authenticator {
                MessageAuthenticator::Required
            } else {
                MessageAuthenticator::Optional
            },
        })
    }
}

impl DynamicSection {
    fn config(self, dir: &Path) -> Result<DynamicConfig, ConfigError> {
        let clients = self.clients.into_iter().map(|client| {
            Ok(DynamicClient {
                address: client.address,
                secret: read_secret(&dir.join(&client.secret_file))?,
            })
        });
        Ok(DynamicConfig {
            listen: self.listen,
            clients: clients.collect::<Result<_, ConfigError>>()?,
        })
    }
}

/// A secret is the first line of its file.
fn read_secret(path: &Path) -> Result<Secret, ConfigError> {
    let text = source::read("secret file", path, &Place::command_line())?;
    let line = text.split(|&octet| octet == b'\n').next();
    let line = line.unwrap_or_default().trim_ascii();
    if line.is_empty() || line.len() > SECRET_BYTES_MAX {
        return Err(wrong(&format!(
            "the first line of {} is not a shared secret: 1 to {SECRET_BYTES_MAX} octets",
            path.display()
        )));
    }
    Ok(Secret::new(line.to_vec()))
}

fn milliseconds(name: &str, seconds: f64, low: f64, high: f64) -> Result<u64, ConfigError> {
    if !(low..=high).contains(&seconds) {
        return Err(wrong(&format!(
            "{name} = {seconds} is not between {low} and {high}"
        )));
    }
    // The bounds leave nothing to be cut off.
    Ok((seconds * 1000.0) as u64)
}

fn wrong(why: &str) -> ConfigError {
    ConfigError::Conflict(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Option<RadiusConfig>, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s3cret\nnot this\n").unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        let section: Section = toml::from_str(text).map_err(|error| error.to_string())?;
        section
            .config(dir.path())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_needs_an_address_and_a_secret() {
        let text = "[[servers]]\naddress = \"192.0.2.1\"\nsecret_file = \"secret\"\n";
        let config = config(text).unwrap().unwrap();
        let server = &config.servers[0];
        assert_eq!(server.secret.as_bytes(), b"s3cret");
        assert_eq!(
            (server.auth_port, server.acct_port),
            (Some(1812), Some(1813))
        );
        assert!(config.auth().ask_the_dead);
        assert_eq!(config.accounting().unwrap().client.servers.len(), 1);
        assert!(self::config("").unwrap().is_none());
    }

    #[test]
    fn a_server_may_be_for_one_thing_only() {
        let text = "fall_back_to_secrets = true\n[[servers]]\naddress = \"192.0.2.1\"\n\
                    secret_file = \"secret\"\nacct_port = 0\n";
        let config = config(text).unwrap().unwrap();
        assert!(config.accounting().is_none() && !config.auth().ask_the_dead);
    }

    #[test]
    fn mistakes_are_named() {
        let server = "[[servers]]\naddress = \"192.0.2.1\"\nsecret_file = \"secret\"\n";
        for (text, words) in [
            (
                server.replace("\"secret\"", "\"empty\""),
                "is not a shared secret",
            ),
            (server.replace("\"secret\"", "\"none\""), "none"),
            (format!("timeout_s = 0\n{server}"), "not between 0.1 and 60"),
            (format!("timeout = 1\n{server}"), "unknown field"),
            (
                "[dynamic]\nclients = []\n".to_owned(),
                "needs radius.servers",
            ),
        ] {
            let error = config(&text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
