//! radiusclient.conf and its file of servers, as pppd's plugin radius.so reads them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::proto::auth::Secret;
use crate::wire::radius::MessageAuthenticator;

use super::error::{ConfigError, Place};
use super::pppd_options::PppdOptions;
use super::radius::{ACCT_PORT, AUTH_PORT, RadiusConfig, RadiusServer};
use super::source;

/// What `radius-config-file` is without a word.
const CONFIG_FILE: &str = "/etc/radiusclient/radiusclient.conf";
/// What `servers` is without a word.
const SERVERS_FILE: &str = "/etc/radiusclient/servers";
/// As many of a kind as the plugin takes.
const SERVERS_MAX: usize = 8;

/// Keys that decide nothing here: who logs in to a host, and files that only the plugin needs.
const HARMLESS: [&str; 12] = [
    "auth_order",
    "clientdebug",
    "dictionary",
    "issue",
    "login_local",
    "login_radius",
    "login_timeout",
    "login_tries",
    "mapfile",
    "nologin",
    "radius_deadtime",
    "seqfile",
];

/// What the options ask for; `None` without `plugin radius.so`.
///
/// # Errors
/// What is wrong in radiusclient.conf or the file of servers, with file and line.
pub(super) fn configured(options: &PppdOptions) -> Result<Option<RadiusConfig>, ConfigError> {
    if !options.radius {
        return Ok(None);
    }
    let path = options.radius_config_file.as_deref();
    let path = path.unwrap_or_else(|| Path::new(CONFIG_FILE));
    let text = source::read("RADIUS configuration", path, &Place::command_line())?;
    parse(path, &text).map(Some)
}

/// A server without its secret.
struct Named {
    host: String,
    address: Ipv4Addr,
    port: u16,
    is_auth: bool,
    place: Place,
}

/// The values of radiusclient.conf.
struct Conf {
    named: Vec<Named>,
    servers_file: (PathBuf, Place),
    config: RadiusConfig,
    message_authenticator: MessageAuthenticator,
}

fn parse(path: &Path, text: &[u8]) -> Result<RadiusConfig, ConfigError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut conf = Conf {
        named: Vec::new(),
        servers_file: (PathBuf::from(SERVERS_FILE), Place::command_line()),
        config: RadiusConfig {
            // The plugin's defaults.
            timeout_ms: 10_000,
            tries: 3,
            ..RadiusConfig::default()
        },
        message_authenticator: MessageAuthenticator::Required,
    };
    for (place, words) in lines(path, text) {
        if let [key, values @ ..] = &words[..] {
            conf.add_line(key, values, &place, dir)?;
        }
    }
    conf.finish()
}

/// Words of every line, without comments and empty lines.
fn lines(path: &Path, text: &[u8]) -> Vec<(Place, Vec<String>)> {
    let file: Arc<str> = path.to_string_lossy().into();
    let mut found = Vec::new();
    for (line, octets) in (1_u32..).zip(text.split(|&octet| octet == b'\n')) {
        let content = String::from_utf8_lossy(octets);
        let content = content.trim();
        let words: Vec<String> = content.split_whitespace().map(str::to_owned).collect();
        if !words.is_empty() && !content.starts_with('#') {
            let file = Some(Arc::clone(&file));
            found.push((Place { file, line }, words));
        }
    }
    found
}

fn bad(place: &Place, why: String) -> ConfigError {
    ConfigError::BadValue {
        place: place.clone(),
        why,
    }
}

impl Conf {
    fn add_line(
        &mut self,
        key: &str,
        values: &[String],
        place: &Place,
        dir: &Path,
    ) -> Result<(), ConfigError> {
        let value = values.first().map_or("", String::as_str);
        let number = |high: u64| {
            let number = value
                .parse()
                .ok()
                .filter(|number| (1..=high).contains(number));
            number.ok_or_else(|| bad(place, format!("{key}: '{value}' is not 1 to {high}")))
        };
        match key {
            "authserver" => self.add_servers(values, true, place)?,
            "acctserver" => self.add_servers(values, false, place)?,
            "servers" => self.servers_file = (dir.join(value), place.clone()),
            "radius_timeout" => self.config.timeout_ms = number(60)? * 1000,
            "radius_retries" => {
                self.config.tries = u32::try_from(number(100)?).unwrap_or(u32::MAX);
            }
            "bindaddr" if value == "*" => {}
            "bindaddr" => self.config.bind = address(value, place)?,
            "nas-identifier" => self.config.nas_identifier = Some(value.to_owned()),
            "nas-ip" => self.config.nas_ip_address = Some(address(value, place)?),
            "require-message-authenticator" if value == "no" => {
                self.message_authenticator = MessageAuthenticator::Optional;
            }
            "require-message-authenticator" => {}
            "default_realm" if value.is_empty() => {}
            "default_realm" => {
                let why = "default_realm is not done: let the RADIUS server add the realm, and \
                           remove the line";
                return Err(bad(place, why.to_owned()));
            }
            _ if HARMLESS.contains(&key) => {}
            _ => {
                let key: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
                return Err(bad(
                    place,
                    format!("'{key}' is no key of radiusclient.conf"),
                ));
            }
        }
        Ok(())
    }

    /// `host`, `host:port`, or several with commas between.
    fn add_servers(
        &mut self,
        values: &[String],
        is_auth: bool,
        place: &Place,
    ) -> Result<(), ConfigError> {
        let words = values.iter().flat_map(|value| value.split(','));
        for word in words.filter(|word| !word.is_empty()) {
            let (host, port) = word.split_once(':').unwrap_or((word, ""));
            let port = match (port, is_auth) {
                ("" | "0", true) => AUTH_PORT,
                ("" | "0", false) => ACCT_PORT,
                _ => port
                    .parse()
                    .map_err(|_| bad(place, format!("'{port}' is not a port")))?,
            };
            self.named.push(Named {
                host: host.to_owned(),
                address: address(host, place)?,
                port,
                is_auth,
                place: place.clone(),
            });
        }
        let count = self.named.iter().filter(|it| it.is_auth == is_auth).count();
        if count > SERVERS_MAX {
            return Err(bad(place, format!("more than {SERVERS_MAX} servers")));
        }
        Ok(())
    }

    fn finish(self) -> Result<RadiusConfig, ConfigError> {
        let Self {
            named,
            servers_file: (path, place),
            mut config,
            message_authenticator,
        } = self;
        if !named.iter().any(|server| server.is_auth) {
            let why = "radiusclient.conf names no authserver: add `authserver ADDRESS`";
            return Err(ConfigError::Conflict(why.to_owned()));
        }
        let text = source::read("RADIUS servers file", &path, &place)?;
        let secrets = lines(&path, &text);
        for server in named {
            let names = |host: &str| {
                host == server.host || address(host, &server.place) == Ok(server.address)
            };
            let secret = secrets.iter().find_map(|(_, words)| match &words[..] {
                // `client/server` names both ends; the server is the other one.
                [hosts, secret, ..] => hosts.split('/').any(names).then_some(secret),
                _ => None,
            });
            let secret = secret.ok_or_else(|| {
                let (host, path) = (&server.host, path.display());
                bad(
                    &server.place,
                    format!("{host} has no line `{host} SECRET` in {path}"),
                )
            })?;
            config.servers.push(RadiusServer {
                address: server.address,
                auth_port: server.is_auth.then_some(server.port),
                acct_port: (!server.is_auth).then_some(server.port),
                secret: Secret::new(secret.clone().into_bytes()),
                message_authenticator,
            });
        }
        Ok(config)
    }
}

/// Nothing here asks the network, so names other than localhost cannot be resolved.
fn address(host: &str, place: &Place) -> Result<Ipv4Addr, ConfigError> {
    match host.parse() {
        Ok(IpAddr::V4(address)) => Ok(address),
        _ if host == "localhost" => Ok(Ipv4Addr::LOCALHOST),
        _ => Err(bad(
            place,
            format!("'{host}' is not an IPv4 address: write the server's address"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What pppd's own example says, with its comments.
    const EXAMPLE: &str = "\
# General settings
auth_order\tradius,local
login_tries\t4
nologin /etc/nologin
# name of radius server to use for authentication requests.
authserver \tlocalhost, 192.0.2.9:1645
acctserver \tlocalhost
servers\t\tservers
dictionary \t/etc/radiusclient/dictionary
seqfile\t\t/var/run/radius.seq
default_realm
radius_timeout\t2
radius_retries\t5
bindaddr *
";

    fn read(conf: &str) -> Result<RadiusConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let servers = "#Server Name\tKey\n127.0.0.1\tlocal-secret\n10.0.0.1/192.0.2.9  other\n";
        std::fs::write(dir.path().join("servers"), servers).unwrap();
        parse(&dir.path().join("radiusclient.conf"), conf.as_bytes())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_of_pppd_is_understood() {
        let config = read(EXAMPLE).unwrap();
        assert_eq!((config.timeout_ms, config.tries), (2_000, 5));
        let auth = config.auth().servers;
        let of = |index: usize| (auth[index].address.to_string(), auth[index].secret.clone());
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        assert_eq!(of(0), ("127.0.0.1:1812".into(), secret("local-secret")));
        assert_eq!(of(1), ("192.0.2.9:1645".into(), secret("other")));
        let accounting = config.accounting().unwrap().client.servers;
        assert_eq!(accounting[0].address.to_string(), "127.0.0.1:1813");
        assert_eq!(accounting.len(), 1);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (conf, words) in [
            ("servers servers\n", "names no authserver"),
            (
                "authserver radius.example\n",
                "line 1: 'radius.example' is not an IPv4 address",
            ),
            (
                "authserver 192.0.2.1\nservers servers\n",
                "192.0.2.1 has no line",
            ),
            ("authserver 192.0.2.1:x\n", "'x' is not a port"),
            ("\nauth_sever 192.0.2.1\n", "line 2: 'auth_sever' is no key"),
            ("radius_timeout 0\n", "is not 1 to 60"),
            ("default_realm example.org\n", "default_realm is not done"),
            (
                "authserver localhost\nservers none\n",
                "Can't open RADIUS servers file",
            ),
        ] {
            let error = read(conf).unwrap_err();
            assert!(error.contains(words), "{conf}: {error}");
        }
    }

    #[test]
    fn a_server_that_sends_no_message_authenticator_may_be_believed() {
        let config = read(&format!("{EXAMPLE}require-message-authenticator no\n")).unwrap();
        let server = &config.servers[0];
        assert_eq!(server.message_authenticator, MessageAuthenticator::Optional);
    }
}
