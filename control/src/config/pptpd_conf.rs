//! pptpd.conf and the pppd options file that it names (pptpd.conf(5)) into a `ServerConfig`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::proto::auth::AuthMethods;
use crate::proto::backoff::BackoffConfig;
use crate::proto::link::LinkConfig;
use crate::proto::pool::AddressRanges;

use super::address_spec::parse_list;
use super::client::{LogConfig, link_config, read_secrets};
use super::error::{ConfigError, Place, nearest};
use super::fast_path::FastPathMode;
use super::operation::OperationConfig;
use super::pools::{LeasesConfig, PoolConfig};
use super::pppd_options::PppdOptions;
use super::server::{
    LISTEN_ANY, Limits, LocalAddresses, PHASE_TIMEOUT_MS, ServerConfig, SingleSession, Timeouts,
    WELCOME,
};
use super::traffic::TrafficConfig;
use super::{PPTP_PORT, radius_client, source};

/// pptpd's `DEFAULT_LOCAL_IP_LIST`.
const LOCAL_DEFAULT: &str = "192.168.0.1-100";
/// pptpd's `DEFAULT_REMOTE_IP_LIST`.
const REMOTE_DEFAULT: &str = "192.168.1.1-100";
/// pptpd's `CONNECTIONS_DEFAULT`.
const CONNECTIONS_DEFAULT: u32 = 100;
/// More than one host can hold; it keeps a mistyped number from being believed.
const CONNECTIONS_MAX: u32 = 65_535;

const KEYWORDS: [&str; 17] = [
    "option",
    "ppp",
    "speed",
    "debug",
    "bcrelay",
    "localip",
    "remoteip",
    "listen",
    "vrf",
    "pidfile",
    "stimeout",
    "noipparam",
    "logwtmp",
    "connections",
    "delegate",
    "initctl",
    "fg",
];

/// The values of pptpd.conf.
#[derive(Debug)]
struct PptpdConf {
    option: Option<(PathBuf, Place)>,
    debug: bool,
    local: Vec<Ipv4Addr>,
    remote: Vec<Ipv4Addr>,
    listen: Vec<SocketAddrV4>,
    vrf: Option<String>,
    pid_file: Option<PathBuf>,
    first_message_s: u32,
    ipparam: bool,
    connections: u32,
    delegate: bool,
    warnings: Vec<String>,
}

/// Reads pptpd.conf at `path`. `dir` is pppd's directory.
///
/// # Errors
/// What is wrong in it, in the options file or in the secrets, with file and line.
pub fn read(path: &Path, dir: &Path, host_name: &str) -> Result<ServerConfig, ConfigError> {
    let text = source::read("configuration file", path, &Place::command_line())?;
    parse(&path.to_string_lossy(), &text, dir, host_name)
}

/// The same for a text that is called `file` in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(
    file: &str,
    text: &[u8],
    dir: &Path,
    host_name: &str,
) -> Result<ServerConfig, ConfigError> {
    let mut conf = PptpdConf::default();
    let file: Arc<str> = file.into();
    for (line, octets) in (1_u32..).zip(text.split(|&c| c == b'\n')) {
        let place = Place {
            file: Some(Arc::clone(&file)),
            line,
        };
        let content = String::from_utf8_lossy(octets);
        let content = content.trim_start_matches('\u{FEFF}');
        let content = content.split('#').next().unwrap_or_default();
        conf.add_line(content.trim(), &place)?;
    }
    conf.reduce_connections();
    conf.into_server(dir, host_name)
}

impl Default for PptpdConf {
    fn default() -> Self {
        Self {
            option: None,
            debug: false,
            local: Vec::new(),
            remote: Vec::new(),
            listen: Vec::new(),
            vrf: None,
            pid_file: None,
            first_message_s: 10,
            ipparam: true,
            connections: CONNECTIONS_DEFAULT,
            delegate: false,
            warnings: Vec::new(),
        }
    }
}

impl PptpdConf {
    /// One line without its comment.
    fn add_line(&mut self, line: &str, place: &Place) -> Result<(), ConfigError> {
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let value = rest.trim();
        let bad = |why: String| ConfigError::BadValue {
            place: place.clone(),
            why: format!("{keyword}: {why}"),
        };
        let takes_value = !matches!(
            keyword,
            "" | "debug" | "noipparam" | "logwtmp" | "delegate" | "fg" | "initctl"
        );
        if takes_value && value.is_empty() && KEYWORDS.contains(&keyword) {
            return Err(ConfigError::TooFewParameters {
                place: place.clone(),
                name: keyword.to_owned(),
            });
        }
        match keyword {
            "" => {}
            "option" => self.option = Some((PathBuf::from(value), place.clone())),
            "debug" => self.debug = true,
            "localip" => self.local = parse_list(value).map_err(bad)?,
            "remoteip" => self.remote = parse_list(value).map_err(bad)?,
            "listen" => self.listen.push(parse_listen(value).map_err(bad)?),
            "vrf" => self.vrf = Some(value.to_owned()),
            "pidfile" => self.pid_file = Some(PathBuf::from(value)),
            "stimeout" => self.first_message_s = parse_count(value, 1, 3_600).map_err(bad)?,
            "connections" => {
                self.connections = parse_count(value, 1, CONNECTIONS_MAX).map_err(bad)?;
            }
            "noipparam" => self.ipparam = false,
            "delegate" => self.delegate = true,
            "ppp" | "speed" | "fg" | "initctl" => {}
            "bcrelay" => self.warnings.push(format!(
                "{place}bcrelay is not done: broadcasts do not pass to clients"
            )),
            "logwtmp" => self.warnings.push(format!("{place}logwtmp is not done")),
            _ => {
                return Err(ConfigError::UnknownOption {
                    place: place.clone(),
                    suggestion: nearest(keyword, KEYWORDS),
                    name: keyword
                        .chars()
                        .filter(|c| !c.is_control())
                        .take(80)
                        .collect(),
                });
            }
        }
        Ok(())
    }

    /// A connection needs an address at each end; one local address serves all.
    fn reduce_connections(&mut self) {
        let fill = |list: &mut Vec<Ipv4Addr>, spec: &str| {
            if list.is_empty() {
                *list = parse_list(spec).unwrap_or_default();
            }
        };
        fill(&mut self.local, LOCAL_DEFAULT);
        if self.delegate {
            return;
        }
        fill(&mut self.remote, REMOTE_DEFAULT);
        let local_count = if self.local.len() == 1 {
            usize::MAX
        } else {
            self.local.len()
        };
        let count = local_count.min(self.remote.len());
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count < self.connections {
            self.warnings.push(format!(
                "Maximum of {} connections reduced to {count}, not enough IP addresses given",
                self.connections
            ));
            self.connections = count;
        }
    }

    fn into_server(self, dir: &Path, host_name: &str) -> Result<ServerConfig, ConfigError> {
        let mut options = PppdOptions::default();
        options.read_system_file(dir)?;
        if let Some((path, place)) = &self.option {
            options.read_file_named_at(dir, path, place)?;
        }
        let mut warnings = self.warnings;
        let secrets = Arc::new(read_secrets(dir, &options)?);
        // A server checks others against its files; a password of its own has no use.
        options.password = None;
        let mut link = server_link(dir, &options, host_name, &mut warnings)?;
        link.secrets = Arc::<super::FileSecrets>::clone(&secrets);
        let pool = AddressRanges::new(self.remote.iter().map(|&address| (address, address)))
            .map_err(|error| ConfigError::Conflict(format!("remoteip: {error}")))?;
        let in_ms = |seconds: u32| (seconds > 0).then(|| u64::from(seconds) * 1000);
        let log = options.log();
        Ok(ServerConfig {
            listen: if self.listen.is_empty() {
                vec![LISTEN_ANY]
            } else {
                self.listen
            },
            link,
            secrets,
            local: match self.local.as_slice() {
                [one] => LocalAddresses::Shared(*one),
                _ => LocalAddresses::PerSession(self.local),
            },
            pools: vec![PoolConfig::only(pool)],
            leases: LeasesConfig::in_state_dir(),
            delegate: self.delegate,
            workers: None,
            split_directions: false,
            fast_path: FastPathMode::default(),
            look_ahead: false,
            interface_prefix: "pptp".to_owned(),
            interface_per_session: false,
            limits: Limits {
                sessions_max: self.connections,
                ..Limits::default()
            },
            timeouts: Timeouts {
                first_message_ms: u64::from(self.first_message_s) * 1000,
                idle_ms: in_ms(options.idle_s),
                session_ms: in_ms(options.max_connect_s),
                ..Timeouts::default()
            },
            single_session: SingleSession::Allow,
            access: Arc::default(),
            backoff: BackoffConfig::default(),
            radius: radius_client::configured(&options)?,
            ipparam: self.ipparam,
            proxy_arp: options.proxy_arp,
            traffic: TrafficConfig::default(),
            scripts_dir: Some(dir.to_owned()),
            pid_file: self.pid_file,
            vrf: self.vrf,
            interface_vrf: None,
            netns: None,
            operation: OperationConfig::default(),
            log: LogConfig {
                debug: log.debug || self.debug,
                ..log
            },
            warnings,
            welcome: WELCOME.to_owned(),
        })
    }
}

/// What pppd's options ask of a link, as it is at a server.
fn server_link(
    dir: &Path,
    options: &PppdOptions,
    host_name: &str,
    warnings: &mut Vec<String>,
) -> Result<LinkConfig, ConfigError> {
    let mut link = link_config(dir, options, host_name, warnings)?;
    // A server that proves itself to a stranger would answer his challenges.
    link.allow = AuthMethods::NONE;
    link.lcp.lcp_timeout_ms = PHASE_TIMEOUT_MS;
    link.lcp.network_timeout_ms = PHASE_TIMEOUT_MS;
    if options.auth.is_none() {
        link.require = AuthMethods::ALL;
    }
    if link.require == AuthMethods::NONE {
        warnings.push("noauth: anyone may connect, without name or password".to_owned());
    }
    Ok(link)
}

fn parse_listen(value: &str) -> Result<SocketAddrV4, String> {
    value
        .parse()
        .or_else(|_| {
            value
                .parse()
                .map(|address| SocketAddrV4::new(address, PPTP_PORT))
        })
        .map_err(|_| format!("'{value}' is not an address of this host such as 192.0.2.1"))
}

fn parse_count(value: &str, low: u32, high: u32) -> Result<u32, String> {
    let number = value
        .parse()
        .ok()
        .filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| format!("'{value}' is not a number between {low} and {high}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::fs;

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("chap-secrets"),
            "# client server secret addresses\nmia zidler mia123 192.168.254.231\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("pptpd-options"),
            "name zidler\r\nrefuse-pap\r\nrefuse-chap\r\nrefuse-mschap\r\nrequire-mschap-v2\r\n\
             require-mppe-128\r\nms-dns 192.168.254.230\r\nproxyarp\r\nlock\r\nnobsdcomp\r\n",
        )
        .unwrap();
        dir
    }

    fn server(text: &str) -> Result<ServerConfig, ConfigError> {
        let dir = dir();
        parse("/etc/pptpd.conf", text.as_bytes(), dir.path(), "host")
    }

    #[test]
    fn a_usual_file_makes_a_server() {
        let config = server(
            "\u{FEFF}# TAG: ppp\n#ppp /usr/sbin/pppd\noption /etc/ppp/pptpd-options\n\
             stimeout 15\r\nlogwtmp\nlocalip 192.168.254.230\nremoteip 192.168.254.231-240\n\
             connections 10",
        )
        .unwrap();
        assert_eq!(config.listen, [LISTEN_ANY]);
        assert_eq!(config.link.name, "zidler");
        let v2_only = AuthMethods {
            mschap_v2: true,
            ..AuthMethods::NONE
        };
        assert_eq!(config.link.require, v2_only);
        let mppe = config.link.mppe.unwrap();
        assert!(mppe.require && mppe.allow_128 && !mppe.allow_40);
        assert_eq!(config.pools[0].spec.ranges.count(), 10);
        assert_eq!(
            config.local,
            LocalAddresses::Shared(Ipv4Addr::new(192, 168, 254, 230))
        );
        assert_eq!(
            config.link.addresses.dns[0],
            Some(Ipv4Addr::new(192, 168, 254, 230))
        );
        assert_eq!(config.timeouts.first_message_ms, 15_000);
        assert_eq!(config.limits.sessions_max, 10);
        assert!(config.proxy_arp && config.ipparam);
        let mia = config.secrets.entry("mia", "zidler", false).unwrap();
        assert_eq!(mia.fixed_address(), Some(Ipv4Addr::new(192, 168, 254, 231)));
        assert!(
            config
                .warnings
                .iter()
                .any(|warning| warning.contains("logwtmp"))
        );
    }

    #[test]
    fn too_few_addresses_reduce_connections_in_the_words_of_pptpd() {
        let config = server("localip 10.0.0.1\nremoteip 10.0.1.1-20\n").unwrap();
        assert_eq!(config.limits.sessions_max, 20);
        let message = "Maximum of 100 connections reduced to 20, not enough IP addresses given";
        assert!(
            config.warnings.iter().any(|warning| warning == message),
            "{config:?}"
        );
        let config = server("localip 10.0.0.1-5\nremoteip 10.0.1.1-20\nconnections 5").unwrap();
        assert_eq!(config.limits.sessions_max, 5);
        assert_eq!(config.local.for_client(4), Some(Ipv4Addr::new(10, 0, 0, 5)));
    }

    #[test]
    fn the_defaults_are_those_of_pptpd() {
        let config = server("").unwrap();
        assert_eq!(
            config.pools[0].spec.ranges.to_string(),
            "192.168.1.1-192.168.1.100"
        );
        assert_eq!(config.local.as_slice().len(), 100);
        assert_eq!(config.limits.sessions_max, 100);
        assert_eq!(config.timeouts.first_message_ms, 10_000);
        assert_eq!(config.link.require, AuthMethods::ALL);
    }

    #[test]
    fn delegate_needs_no_remote_addresses() {
        let config = server("delegate\nlocalip 10.0.0.1\nconnections 500").unwrap();
        assert!(config.pools[0].spec.ranges.is_empty());
        assert_eq!(config.limits.sessions_max, 500);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, words) in [
            (
                "\nremotip 10.0.0.1",
                "unrecognized option 'remotip' (line 2). Did you mean 'remoteip'?",
            ),
            (
                "localip 10.0.0.300",
                "In file /etc/pptpd.conf, line 1: localip: '10.0.0.300'",
            ),
            (
                "connections 0",
                "line 1: connections: '0' is not a number between 1 and 65535",
            ),
            ("listen here", "line 1: listen: 'here' is not an address"),
            ("option", "too few parameters for option 'option' (line 1)"),
            ("option /etc/ppp/none", "line 1: Can't open options file"),
        ] {
            let error = server(text).unwrap_err();
            assert!(error.to_string().contains(words), "{text}: {error}");
            assert_eq!(error.exit_status(), 2);
        }
    }

    proptest! {
        #[test]
        fn any_octets_end_in_a_server_or_an_error(text in vec(any::<u8>(), 0..200)) {
            let _ = parse("f", &text, Path::new("/nonexistent"), "host");
        }
    }
}
