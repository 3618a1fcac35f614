//! Our own server file: TOML with the sections of `example-server.toml`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::limits::INFORMATION_BYTES_MAX;
use serde::Deserialize;

use crate::proto::auth::{AuthMethods, Secrets};
use crate::proto::link::{Addresses, Ipv6Config, LcpConfig, LinkConfig, MppeConfig};

use super::access::{AccessSection, BackoffSection};
use super::client::LogConfig;
use super::error::{ConfigError, Place};
use super::fast_path::FastPathMode;
use super::operation::{LogFormat, MetricsSection, OperationConfig};
use super::pools::{LeasesSection, PoolSection};
use super::secrets::FileSecrets;
use super::server::{
    LISTEN_ANY, Limits, PHASE_TIMEOUT_MS, ServerConfig, SingleSession, Timeouts, WELCOME,
};
use super::within::{Seconds, Within};
use super::{PPTP_PORT, radius, source, toml_words, traffic};

/// A complete file with every key and its meaning.
pub const EXAMPLE: &str = include_str!("example-server.toml");

/// Reads a TOML server file at `path`. `dir` is pppd's directory.
///
/// # Errors
/// What is wrong, with file and line.
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
    let problem = |offset: usize, why: String| {
        let before = text.get(..offset.min(text.len())).unwrap_or_default();
        let newlines = before.iter().filter(|&&c| c == b'\n').count();
        ConfigError::Toml {
            place: Place {
                file: Some(file.into()),
                line: u32::try_from(newlines + 1).unwrap_or(u32::MAX),
            },
            why,
        }
    };
    let content = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let skipped = text.len() - content.len();
    let content = std::str::from_utf8(content).map_err(|error| {
        problem(
            skipped + error.valid_up_to(),
            "the file is not UTF-8 here".to_owned(),
        )
    })?;
    let file: File = toml::from_str(content).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        problem(
            skipped + start,
            toml_words::plain(error.message(), content, start),
        )
    })?;
    file.into_server(dir, host_name)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    listen: Listen,
    #[serde(default)]
    auth: Auth,
    #[serde(default)]
    mppe: Mppe,
    #[serde(default)]
    ppp: Ppp,
    pool: PoolSection,
    #[serde(default)]
    leases: LeasesSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    timeouts: TimeoutsSection,
    #[serde(default)]
    access: AccessSection,
    #[serde(default)]
    log_in_backoff: BackoffSection,
    #[serde(default)]
    dataplane: Dataplane,
    #[serde(default)]
    radius: radius::Section,
    #[serde(default)]
    traffic: traffic::Section,
    #[serde(default)]
    scripts: Scripts,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    process: Process,
    #[serde(default)]
    metrics: MetricsSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    #[serde(default)]
    addresses: Vec<ListenAddress>,
    vrf: Option<String>,
}

impl Listen {
    fn sockets(&self) -> Vec<SocketAddrV4> {
        if self.addresses.is_empty() {
            return vec![LISTEN_ANY];
        }
        self.addresses.iter().map(|address| address.0).collect()
    }
}

/// `192.0.2.1` or `192.0.2.1:1723`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct ListenAddress(SocketAddrV4);

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .or_else(|_| {
                text.parse()
                    .map(|address| SocketAddrV4::new(address, PPTP_PORT))
            })
            .map(Self)
            .map_err(|_| format!("'{text}' is not an address such as 192.0.2.1 or 192.0.2.1:1723"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Auth {
    name: Option<String>,
    require: Vec<Method>,
    chap_secrets: PathBuf,
    pap_secrets: PathBuf,
    nt_hashes: bool,
    single_session: Single,
    welcome: Option<String>,
    chap_interval_s: Option<SecondsOrNone>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            name: None,
            require: vec![Method::MsChapV2],
            chap_secrets: "chap-secrets".into(),
            pap_secrets: "pap-secrets".into(),
            nt_hashes: false,
            single_session: Single::Allow,
            welcome: None,
            chap_interval_s: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum Method {
    #[serde(rename = "eap")]
    Eap,
    #[serde(rename = "mschap-v2")]
    MsChapV2,
    #[serde(rename = "mschap")]
    MsChapV1,
    #[serde(rename = "chap")]
    ChapMd5,
    #[serde(rename = "pap")]
    Pap,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Single {
    #[serde(alias = "off")]
    Allow,
    Replace,
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mppe {
    mode: MppeMode,
    strengths: Vec<Strength>,
    stateful: bool,
    prefer_stateful: bool,
}

impl Default for Mppe {
    fn default() -> Self {
        Self {
            mode: MppeMode::Require,
            strengths: vec![Strength(128)],
            stateful: false,
            prefer_stateful: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum MppeMode {
    Require,
    Prefer,
    Deny,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(try_from = "u8")]
struct Strength(u8);

impl TryFrom<u8> for Strength {
    type Error = String;

    fn try_from(bits: u8) -> Result<Self, String> {
        match bits {
            40 | 56 | 128 => Ok(Self(bits)),
            _ => Err(format!("{bits} is not a key length of MPPE: 40, 56 or 128")),
        }
    }
}

/// Packets of IPv4 that every host must take, up to what the data plane holds.
type PacketSize = Within<576, { INFORMATION_BYTES_MAX as u32 }>;
/// A limit in seconds, up to a year; 0 is none.
type SecondsOrNone = Within<0, 31_536_000>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ppp {
    mtu: Option<PacketSize>,
    mru: Option<PacketSize>,
    dns: Servers,
    wins: Servers,
    lcp_echo_interval_s: Option<SecondsOrNone>,
    lcp_echo_failure: Option<Within<0, 1_000>>,
    lcp_restart_s: Option<Within<1, 60>>,
    lcp_max_configure: Option<Within<1, 1_000>>,
    proxy_arp: bool,
    ipv6: Ipv6,
}

/// Whether IPV6CP is spoken.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
struct Ipv6(bool);

impl Default for Ipv6 {
    fn default() -> Self {
        Self(true)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(try_from = "Vec<Ipv4Addr>")]
struct Servers([Option<Ipv4Addr>; 2]);

impl TryFrom<Vec<Ipv4Addr>> for Servers {
    type Error = String;

    fn try_from(list: Vec<Ipv4Addr>) -> Result<Self, String> {
        if list.len() > 2 {
            return Err("IPCP carries at most two name servers of a kind".to_owned());
        }
        Ok(Self([list.first().copied(), list.get(1).copied()]))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSection {
    sessions_max: Option<Within<1, 1_000_000>>,
    connections_per_peer_max: Option<Within<1, 1_000_000>>,
    half_open_max: Option<Within<1, 1_000_000>>,
    half_open_per_peer_max: Option<Within<1, 1_000_000>>,
    sessions_per_peer_max: Option<Within<1, 1_000_000>>,
    half_open_calls_max: Option<Within<1, 1_000_000>>,
    half_open_calls_per_peer_max: Option<Within<1, 1_000_000>>,
    peer_prefix_len: Option<Within<8, 32>>,
    calls_per_connection_max: Option<Within<1, 65_535>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TimeoutsSection {
    first_message_s: Option<Seconds>,
    first_call_s: Option<Seconds>,
    lcp_s: Option<SecondsOrNone>,
    network_s: Option<SecondsOrNone>,
    setup_s: Option<SecondsOrNone>,
    auth_s: Option<Seconds>,
    echo_interval_s: Option<Seconds>,
    echo_wait_s: Option<Seconds>,
    idle_s: Option<SecondsOrNone>,
    session_s: Option<SecondsOrNone>,
    shutdown_s: Option<Seconds>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dataplane {
    workers: Option<Within<0, 1_024>>,
    split_directions: bool,
    interface_prefix: Option<InterfacePrefix>,
    interface: Interface,
    vrf: Option<String>,
    netns: Option<String>,
    fast_path: FastPathMode,
    look_ahead: bool,
}

/// Whose a TUN interface is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Interface {
    #[default]
    Shared,
    PerSession,
}

impl Interface {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Shared => "pptp",
            Self::PerSession => "ppp",
        }
    }
}

/// Leaves room for a number in the 15 characters of an interface's name.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct InterfacePrefix(String);

impl TryFrom<String> for InterfacePrefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        if text.is_empty() || text.len() > 10 || !text.bytes().all(fits) {
            return Err(format!("'{text}' is not 1 to 10 letters, digits, - or _"));
        }
        Ok(Self(text))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Scripts {
    dir: Option<PathBuf>,
    ipparam: bool,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            dir: None,
            ipparam: true,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Log {
    file: Option<PathBuf>,
    debug: bool,
    format: LogFormat,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Process {
    pid_file: Option<PathBuf>,
    admin_group: Option<String>,
}

impl File {
    fn into_server(self, dir: &Path, host_name: &str) -> Result<ServerConfig, ConfigError> {
        let mut secrets = FileSecrets::read_files(
            &dir.join(&self.auth.chap_secrets),
            &dir.join(&self.auth.pap_secrets),
        )?;
        if self.auth.nt_hashes {
            secrets.take_digits_for_hashes();
        }
        let secrets = Arc::new(secrets);
        let mut warnings: Vec<String> = secrets.warnings().map(ToOwned::to_owned).collect();
        if self.auth.require.is_empty() {
            warnings.push("auth.require is empty: anyone may connect".to_owned());
        }
        let mut link = self.link(host_name, Arc::<FileSecrets>::clone(&secrets))?;
        let radius = self.radius.config(dir)?;
        link.eap_pass_through = radius.is_some();
        let (local, pools) = self.pool.config()?;
        Ok(ServerConfig {
            listen: self.listen.sockets(),
            link,
            secrets,
            local,
            pools,
            leases: self.leases.config(),
            delegate: false,
            workers: self
                .dataplane
                .workers
                .and_then(|count| NonZeroUsize::new(count.0 as usize)),
            split_directions: self.dataplane.split_directions,
            interface_prefix: match self.dataplane.interface_prefix {
                Some(prefix) => prefix.0,
                None => self.dataplane.interface.prefix().to_owned(),
            },
            interface_per_session: self.dataplane.interface == Interface::PerSession,
            fast_path: self.dataplane.fast_path,
            look_ahead: self.dataplane.look_ahead,
            limits: self.limits.into(),
            timeouts: self.timeouts.config(),
            single_session: self.auth.single_session.config(),
            access: self.access.config(),
            backoff: self.log_in_backoff.config(),
            radius,
            ipparam: self.scripts.ipparam,
            proxy_arp: self.ppp.proxy_arp,
            traffic: self.traffic.config(),
            scripts_dir: self.scripts.dir,
            pid_file: self.process.pid_file,
            vrf: self.listen.vrf,
            interface_vrf: self.dataplane.vrf,
            netns: self.dataplane.netns,
            operation: OperationConfig {
                admin_group: self
                    .process
                    .admin_group
                    .unwrap_or_else(|| OperationConfig::default().admin_group),
                metrics: self.metrics.config(),
                log_format: self.log.format,
                source: None,
            },
            log: self.log.config(),
            warnings,
            welcome: self.auth.welcome.unwrap_or_else(|| WELCOME.to_owned()),
        })
    }

    fn link(&self, host_name: &str, secrets: Arc<dyn Secrets>) -> Result<LinkConfig, ConfigError> {
        let may = |method| self.auth.require.contains(&method);
        let require = AuthMethods {
            eap: may(Method::Eap),
            mschap_v2: may(Method::MsChapV2),
            mschap_v1: may(Method::MsChapV1),
            chap_md5: may(Method::ChapMd5),
            pap: may(Method::Pap),
        };
        let mppe = self.mppe.config();
        let makes_keys = require.mschap_v2 || require.mschap_v1 || require.eap;
        if mppe.is_some_and(|mppe| mppe.require) && !makes_keys {
            return Err(ConfigError::Conflict(
                "mppe.mode is \"require\", but its keys come from MS-CHAP, and auth.require has \
                 none of mschap-v2, mschap and eap"
                    .to_owned(),
            ));
        }
        let given_name = self.auth.name.clone();
        Ok(LinkConfig {
            name: given_name.unwrap_or_else(|| host_name.to_owned()),
            remote_name: None,
            require,
            // A server that proves itself to a stranger would answer his challenges.
            allow: AuthMethods::NONE,
            eap_pass_through: false,
            secrets,
            lcp: self.lcp(),
            mppe,
            addresses: Addresses {
                dns: self.ppp.dns.0,
                wins: self.ppp.wins.0,
                ..Addresses::default()
            },
            ipv6: self.ppp.ipv6.0.then(Ipv6Config::default),
        })
    }

    fn lcp(&self) -> LcpConfig {
        let (defaults, ppp) = (LcpConfig::default(), &self.ppp);
        LcpConfig {
            mru: ppp.mru.map_or(defaults.mru, Within::u16),
            mtu: ppp.mtu.map_or(defaults.mtu, Within::u16),
            restart_ms: ppp.lcp_restart_s.map_or(defaults.restart_ms, Within::ms),
            max_configure: ppp
                .lcp_max_configure
                .map_or(defaults.max_configure, |count| count.0),
            echo_interval_ms: ppp
                .lcp_echo_interval_s
                .map_or(defaults.echo_interval_ms, Within::ms),
            echo_failure: ppp
                .lcp_echo_failure
                .map_or(defaults.echo_failure, |count| count.0),
            chap_interval_ms: self
                .auth
                .chap_interval_s
                .map_or(defaults.chap_interval_ms, Within::ms),
            auth_timeout_ms: self
                .timeouts
                .auth_s
                .map_or(defaults.auth_timeout_ms, Within::ms),
            setup_timeout_ms: self
                .timeouts
                .setup_s
                .map_or(defaults.setup_timeout_ms, Within::ms),
            lcp_timeout_ms: self.timeouts.lcp_s.map_or(PHASE_TIMEOUT_MS, Within::ms),
            network_timeout_ms: self.timeouts.network_s.map_or(PHASE_TIMEOUT_MS, Within::ms),
            ..defaults
        }
    }
}

impl Single {
    const fn config(self) -> SingleSession {
        match self {
            Self::Allow => SingleSession::Allow,
            Self::Replace => SingleSession::Replace,
            Self::Deny => SingleSession::Deny,
        }
    }
}

impl TimeoutsSection {
    fn config(&self) -> Timeouts {
        let defaults = Timeouts::default();
        let ms = |given: Option<Seconds>, default| given.map_or(default, Seconds::ms);
        Timeouts {
            first_message_ms: ms(self.first_message_s, defaults.first_message_ms),
            first_call_ms: ms(self.first_call_s, defaults.first_call_ms),
            echo_interval_ms: ms(self.echo_interval_s, defaults.echo_interval_ms),
            echo_wait_ms: ms(self.echo_wait_s, defaults.echo_wait_ms),
            idle_ms: self.idle_s.and_then(SecondsOrNone::limit_ms),
            session_ms: self.session_s.and_then(SecondsOrNone::limit_ms),
            shutdown_ms: ms(self.shutdown_s, defaults.shutdown_ms),
        }
    }
}

impl Log {
    /// Standard error is where lines go that have no file.
    fn config(self) -> LogConfig {
        LogConfig {
            fd: self.file.is_none().then_some(2),
            file: self.file,
            debug: self.debug,
        }
    }
}

impl Mppe {
    fn config(&self) -> Option<MppeConfig> {
        let has = |bits| self.strengths.contains(&Strength(bits));
        (self.mode != MppeMode::Deny && !self.strengths.is_empty()).then(|| MppeConfig {
            require: self.mode == MppeMode::Require,
            allow_40: has(40),
            allow_56: has(56),
            allow_128: has(128),
            allow_stateful: self.stateful || self.prefer_stateful,
            prefer_stateful: self.prefer_stateful,
        })
    }
}

impl From<LimitsSection> for Limits {
    fn from(section: LimitsSection) -> Self {
        let defaults = Self::default();
        let or = |given: Option<u32>, default| given.unwrap_or(default);
        Self {
            sessions_max: or(section.sessions_max.map(|n| n.0), 10_000),
            connections_per_peer_max: or(
                section.connections_per_peer_max.map(|n| n.0),
                defaults.connections_per_peer_max,
            ),
            half_open_max: or(section.half_open_max.map(|n| n.0), defaults.half_open_max),
            half_open_per_peer_max: section.half_open_per_peer_max.map(|n| n.0),
            sessions_per_peer_max: section.sessions_per_peer_max.map(|n| n.0),
            half_open_calls_max: or(
                section.half_open_calls_max.map(|n| n.0),
                defaults.half_open_calls_max,
            ),
            half_open_calls_per_peer_max: section.half_open_calls_per_peer_max.map(|n| n.0),
            peer_prefix_len: section
                .peer_prefix_len
                .and_then(|bits| u8::try_from(bits.0).ok())
                .unwrap_or(defaults.peer_prefix_len),
            calls_per_connection_max: or(
                section.calls_per_connection_max.map(|n| n.0),
                defaults.calls_per_connection_max,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const NO_DIR: &str = "/nonexistent";
    const MINIMAL: &str = "[pool]\nlocal = \"10.0.0.1\"\nremote = \"10.0.0.2-254\"\n";

    fn server(text: &str) -> Result<ServerConfig, ConfigError> {
        parse("s.toml", text.as_bytes(), Path::new(NO_DIR), "host")
    }

    #[test]
    fn the_example_is_a_server() {
        let config = server(EXAMPLE).unwrap();
        assert_eq!(config.link.name, "zidler");
        let pool = &config.pools[0].spec;
        assert_eq!(pool.ranges.to_string(), "192.168.254.231-192.168.254.240");
        assert_eq!(config.link.lcp.mtu, 1400);
        assert_eq!(config.address_pools().usage()[0].free, 10);
        assert!(config.warnings.is_empty());
    }

    /// What the example shows behind `# ` as a default is the default.
    #[test]
    fn every_default_that_the_example_shows_is_the_default() {
        let shown: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if is_setting(rest) => rest,
                _ => line,
            })
            .filter(|line| {
                let others = ["vrf", "netns", "file", "pid_file", "dir", "next", "listen"];
                let follow = ["half_open_per_", "half_open_calls_per_", "sessions_per_"];
                !others
                    .iter()
                    .chain(&follow)
                    .any(|key| line.starts_with(key))
            })
            .collect::<Vec<_>>()
            .join("\n");
        assert!(shown.contains("half_open_max = 1024"), "{shown}");
        let (mut all, plain) = (server(&shown).unwrap(), server(EXAMPLE).unwrap());
        all.secrets = Arc::clone(&plain.secrets);
        assert_eq!(format!("{all:?}"), format!("{plain:?}"));
    }

    fn is_setting(line: &str) -> bool {
        let key = line.split(" = ").next().unwrap();
        line.contains(" = ") && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')
    }

    #[test]
    fn a_pool_is_all_that_must_be_there() {
        let config = server(MINIMAL).unwrap();
        assert_eq!(config.link.name, "host");
        assert!(config.link.mppe.unwrap().require);
        assert_eq!(config.limits.sessions_max, 10_000);
        assert!(server("").unwrap_err().to_string().contains("pool"));
    }

    #[test]
    fn several_pools_have_names_and_one_may_follow_another() {
        let text = "[[pool]]\nname = \"office\"\nlocal = \"10.0.0.1\"\nranges = \"10.0.0.2-9\"\n\
                    next = \"more\"\n[[pool]]\nname = \"more\"\nlocal = \"10.1.0.1\"\n\
                    ranges = [\"10.1.0.0/24\", \"10.2.0.7\"]\n";
        let config = server(text).unwrap();
        assert_eq!(config.pools.len(), 2);
        assert_eq!(config.pools[0].spec.next.as_deref(), Some("more"));
        let usage = config.address_pools().usage();
        assert_eq!((usage[0].free, usage[1].free), (8, 254), "without our own");
        let local = |remote: [u8; 4]| config.local_for(Some(remote.into()));
        assert_eq!(local([10, 0, 0, 5]), Some([10, 0, 0, 1].into()));
        assert_eq!(local([10, 2, 0, 7]), Some([10, 1, 0, 1].into()));
        assert_eq!(local([172, 16, 0, 1]), Some([10, 0, 0, 1].into()));
        for (text, words) in [
            (
                text.replace("next = \"more\"", "next = \"less\""),
                "goes on in 'less'",
            ),
            (
                text.replace("name = \"more\"", "name = \"office\""),
                "two pools are called 'office'",
            ),
            (
                text.replacen("local = \"10.0.0.1\"\n", "", 1),
                "the first pool needs `local`",
            ),
            (
                text.replace("10.2.0.7", "10.2.0.x"),
                "line 9: '10.2.0.x' is not an address",
            ),
            ("pool = 3\n".to_owned(), "a table or an array of tables"),
        ] {
            let error = server(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn leases_are_kept_unless_their_file_has_no_name() {
        let leases = |text: &str| server(&format!("{text}{MINIMAL}")).unwrap().leases;
        assert!(leases("").file.is_some() && !leases("").is_required);
        assert_eq!(leases("[leases]\nfile = \"\"\n").file, None);
        let given = leases("[leases]\nfile = \"/x/y\"\nrest_s = 5\n");
        assert!(given.is_required && given.rest_ms == 5_000);
        assert_eq!(given.file.as_deref(), Some(Path::new("/x/y")));
    }

    #[test]
    fn stateful_mode_may_be_preferred_and_clients_challenged_again() {
        let link = |text: &str| server(&format!("{text}{MINIMAL}")).unwrap().link;
        let mppe = link("[mppe]\nprefer_stateful = true\n").mppe.unwrap();
        assert!(mppe.allow_stateful && mppe.prefer_stateful);
        let mppe = link("[mppe]\nstateful = true\n").mppe.unwrap();
        assert!(mppe.allow_stateful && !mppe.prefer_stateful);
        let lcp = link("[auth]\nchap_interval_s = 300\n").lcp;
        assert_eq!(lcp.chap_interval_ms, 300_000);
        assert_eq!(link("").lcp.chap_interval_ms, 0);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, words) in [
            (
                "[listen]\naddress = []\n",
                "line 2: unknown field `address`, expected",
            ),
            (
                "[listen]\naddresses = [\"x\"]\n",
                "line 2: 'x' is not an address",
            ),
            (
                "[ppp]\nmtu = 12\n",
                "line 2: 12 is not between 576 and 1904",
            ),
            (
                "[ppp]\nmru = 1905\n",
                "line 2: 1905 is not between 576 and 1904",
            ),
            (
                "[ppp]\ndns = [\"1.1.1.1\", \"1.1.1.2\", \"1.1.1.3\"]\n",
                "at most two",
            ),
            (
                "[ppp]\nmtu = \"large\"\n",
                "line 2: mtu: \"large\" is not a number",
            ),
            (
                "[mppe]\nstrengths = [64]\n",
                "line 2: 64 is not a key length",
            ),
            (
                "[auth]\nrequire = [\"tls\"]\n",
                "line 2: unknown variant `tls`",
            ),
            (
                "[auth]\nrequire = [\"pap\"]\n",
                "its keys come from MS-CHAP",
            ),
            ("[pptp]\n", "unknown field `pptp`"),
            ("x = = 3\n", "line 1: "),
        ] {
            let error = server(&format!("{text}{MINIMAL}")).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let error = server("[pool]\nlocal = \"10.0.0.1\"\nremote = \"10.0.0.9-3\"\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "In file s.toml, line 3: the range 9-3 in '10.0.0.9-3' ends before it starts"
        );
    }

    #[test]
    fn carriage_returns_a_byte_order_mark_and_other_encodings_are_told_apart() {
        assert!(server(&format!("\u{FEFF}{}", MINIMAL.replace('\n', "\r\n"))).is_ok());
        let error = parse("s.toml", b"# ok\n# caf\xE9\n", Path::new(NO_DIR), "host").unwrap_err();
        assert_eq!(
            error.to_string(),
            "In file s.toml, line 2: the file is not UTF-8 here"
        );
    }

    proptest! {
        #[test]
        fn any_octets_end_in_a_server_or_an_error(text in vec(any::<u8>(), 0..200)) {
            let _ = parse("s.toml", &text, Path::new(NO_DIR), "host");
        }
    }
}
