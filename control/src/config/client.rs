//! What `up` needs to bring up one tunnel: from a peers file, or from flags alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::proto::auth::{AuthMethods, Secret, Secrets};
use crate::proto::link::{Addresses, Ipv6Config, LcpConfig, LinkConfig, MppeConfig};
use crate::wire::ipv6cp::InterfaceIdentifier;

use super::PPTP_PORT;
use super::error::{ConfigError, Place};
use super::fast_path::FastPathMode;
use super::peers::{self, Peer};
use super::pppd_options::{
    DefaultRoute, Detach, MppeOptions, PppdOptions, PptpOptions, Scripts, locate,
};
use super::route::Route;
use super::secrets::{FileSecrets, FlagSecret, with_new_password};

/// Where the log goes and how much of it there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// `logfd`: a descriptor that the process has inherited; `None` is `nolog`.
    pub fd: Option<i32>,
    /// `logfile`: lines are appended to it.
    pub file: Option<PathBuf>,
    /// `debug`: every negotiation packet is logged.
    pub debug: bool,
}

/// Reconnecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persist {
    /// `persist`: dial again when the tunnel has ended.
    pub wanted: bool,
    /// `maxfail`: attempts without success in a row; 0 is no limit.
    pub max_fail: u32,
    /// `holdoff`: before the next attempt.
    pub holdoff_ms: u64,
    /// `demand`: dial when the first packet wants to go.
    pub demand: bool,
}

/// The network interface that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// `ifname`.
    pub name: Option<String>,
    /// `unit`: `pppN`.
    pub unit: Option<u32>,
    /// `vrf`: it is put into this one.
    pub vrf: Option<String>,
}

/// What the command line may say; it wins over files.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--server HOST` or `HOST:PORT`.
    pub server: Option<String>,
    /// `--user NAME`.
    pub user: Option<String>,
    /// The password, read by the caller; it wins over the secrets files.
    pub password: Option<Secret>,
    /// `--new-password-file FILE`: in place of a password that has expired.
    pub new_password: Option<Secret>,
    /// `--remotename NAME`.
    pub remote_name: Option<String>,
    /// `--require-mppe`: any of 40 and 128 bits.
    pub require_mppe: bool,
    /// `--require-mppe-40`.
    pub require_mppe_40: bool,
    /// `--require-mppe-128`.
    pub require_mppe_128: bool,
    /// `--no-mppe`: in the clear.
    pub no_mppe: bool,
    /// `--mppe-stateful`.
    pub mppe_stateful: bool,
    /// `--refuse METHOD`: ways in which we do not prove who we are.
    pub refuse: AuthMethods,
    /// `--mtu OCTETS`.
    pub mtu: Option<u16>,
    /// `--mru OCTETS`.
    pub mru: Option<u16>,
    /// `--ifname NAME`.
    pub interface: Option<String>,
    /// `--unit N`.
    pub unit: Option<u32>,
    /// `--ipparam WORD`.
    pub ipparam: Option<String>,
    /// `--defaultroute`.
    pub default_route: bool,
    /// `--usepeerdns`.
    pub use_peer_dns: bool,
    /// `--debug`.
    pub debug: bool,
    /// `--logfile FILE`.
    pub log_file: Option<PathBuf>,
    /// `-f`: stay in the foreground.
    pub foreground: bool,
    /// `--persist`.
    pub persist: bool,
    /// `--phone TEXT`.
    pub phone: Option<String>,
    /// `--localbind ADDRESS`.
    pub local_bind: Option<std::net::Ipv4Addr>,
    /// `--fast-path MODE`.
    pub fast_path: FastPathMode,
    /// `--workers N`; 0 is 1.
    pub workers: u16,
    /// `--look-ahead`.
    pub look_ahead: bool,
    /// `--rtmark N`.
    pub mark: Option<u32>,
    /// `--route NET`: goes through the tunnel.
    pub routes: Vec<Route>,
    /// `--kill-switch`.
    pub kill_switch: bool,
    /// Further words in pppd's grammar: `lcp-echo-interval 10`.
    pub options: Vec<String>,
}

/// One tunnel, ready to be dialled.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Its name: that of the peers file, or the server's when there is no file.
    pub tunnel: String,
    /// Host name or address of the server. Not yet resolved.
    pub server: String,
    /// TCP port of the server.
    pub port: u16,
    /// How the link is negotiated.
    pub link: LinkConfig,
    /// `mtu` as given. `None` leaves `link.lcp.mtu` to be fitted to the path to the server.
    pub mtu: Option<u16>,
    /// Where the log goes.
    pub log: LogConfig,
    /// When the process leaves the terminal.
    pub detach: Detach,
    /// `ipparam`: sixth argument of scripts.
    pub ipparam: Option<String>,
    /// `linkname`.
    pub link_name: Option<String>,
    /// The interface that is asked for.
    pub interface: InterfaceConfig,
    /// `# Route:` lines of the peers file and `--route`, in order.
    pub routes: Vec<Route>,
    /// `--kill-switch`: nothing leaves the host but through the tunnel.
    pub kill_switch: bool,
    /// Write `/var/run/pppN.pid`: this is a tunnel of the host, not of a demonstration.
    pub pid_files: bool,
    /// `call`: the name of the peers file.
    pub call_file: Option<String>,
    /// `defaultroute`.
    pub default_route: DefaultRoute,
    /// `defaultroute6`, with its metric; 0 is the kernel's.
    pub default_route6: Option<u32>,
    /// `proxyarp`.
    pub proxy_arp: bool,
    /// With `usepeerdns`: write resolv.conf (not `noresolvconf`).
    pub write_resolv_conf: bool,
    /// Dial again.
    pub persist: Persist,
    /// `idle`: without a packet of the network layer; `None` is no limit.
    pub idle_ms: Option<u64>,
    /// `maxconnect`; `None` is no limit.
    pub max_connect_ms: Option<u64>,
    /// `child-timeout`: for scripts at the end; `None` is no limit.
    pub child_timeout_ms: Option<u64>,
    /// `set NAME=VALUE` for scripts.
    pub environment: Vec<(String, String)>,
    /// Scripts that are not in pppd's place.
    pub scripts: Scripts,
    /// pppd's place: `ip-up` and the others lie here.
    pub scripts_dir: PathBuf,
    /// The `pptp` program's options.
    pub pptp: PptpOptions,
    /// Whether the fast path was asked for.
    pub fast_path: FastPathMode,
    /// Workers of the data plane: 1, or 2, one a direction.
    pub workers: u16,
    /// Prepare the key streams of packets to come.
    pub look_ahead: bool,
    /// `lock`: only one process may have this tunnel up.
    pub lock: bool,
    /// `dump`: print [`dump_text`](Self::dump_text) before dialling.
    pub dump: bool,
    /// `dryrun`: stop then.
    pub dry_run: bool,
    /// `pppd options in effect:` and one line an option. Never shows a secret.
    pub dump_text: String,
    /// What a person should know: secrets that others can read, lines that were passed over.
    pub warnings: Vec<String>,
}

impl ClientConfig {
    /// The tunnel `name` of `dir`/peers, over `dir`/options. `host_name` is the name of this host,
    /// which is our name towards the peer when nothing else is.
    ///
    /// # Errors
    /// Whatever is wrong in those files or with `flags`, with its place.
    pub fn from_peer(
        dir: &Path,
        name: &str,
        flags: &Flags,
        host_name: &str,
    ) -> Result<Self, ConfigError> {
        let peer = Peer::read(dir, name)?;
        let mut options = PppdOptions::default();
        options.read_system_file(dir)?;
        options.read_peer(dir, name)?;
        flags.apply(dir, &mut options)?;
        let server = flags
            .server
            .clone()
            .or_else(|| peer.server.clone())
            .or_else(|| options.server.clone())
            .ok_or_else(|| ConfigError::NoServer {
                tunnel: name.to_owned(),
                file: peers::path(dir, name).display().to_string(),
            })?;
        let mut config = Self::new(dir, name, server, &options, host_name)?;
        config.warnings.extend(peer.warnings);
        config.routes = peer.routes;
        config.call_file = Some(name.to_owned());
        config.take(flags);
        Ok(config)
    }

    /// A tunnel without a peers file; `dir` is for secrets, `dir`/options is not read.
    ///
    /// Unlike pppd, this requires 128-bit encryption unless a flag says what else is wanted.
    ///
    /// # Errors
    /// No server, or flags that contradict each other.
    pub fn from_flags(dir: &Path, flags: &Flags, host_name: &str) -> Result<Self, ConfigError> {
        let mut options = PppdOptions::default();
        options.read_words(dir, &["require-mppe-128".to_owned()])?;
        flags.apply(dir, &mut options)?;
        let server = flags
            .server
            .clone()
            .or_else(|| options.server.clone())
            .ok_or_else(|| ConfigError::NoServer {
                tunnel: "this tunnel".to_owned(),
                file: format!("a file in {}", dir.join("peers").display()),
            })?;
        let name = server.clone();
        let mut config = Self::new(dir, &name, server, &options, host_name)?;
        // Who types flags is trying something, and wants to see it.
        config.log.debug = true;
        config.take(flags);
        Ok(config)
    }

    /// What only flags say.
    fn take(&mut self, flags: &Flags) {
        self.routes.extend_from_slice(&flags.routes);
        self.kill_switch = flags.kill_switch;
        self.fast_path = flags.fast_path;
        self.workers = flags.workers.max(1);
        self.look_ahead = flags.look_ahead;
    }

    /// The same tunnel, with `new` in place of a password that has expired.
    #[must_use]
    pub fn with_new_password(mut self, new: Secret) -> Self {
        self.link.secrets = with_new_password(Arc::clone(&self.link.secrets), new);
        self
    }

    /// Whether the fast path may be taken: what is to be marked needs the raw socket.
    #[must_use]
    pub const fn fast_path(&self) -> FastPathMode {
        match self.pptp.mark {
            Some(_) => FastPathMode::Off,
            None => self.fast_path,
        }
    }

    fn new(
        dir: &Path,
        tunnel: &str,
        server: String,
        options: &PppdOptions,
        host_name: &str,
    ) -> Result<Self, ConfigError> {
        let (server, port) = host_and_port(&server)?;
        let mut warnings = Vec::new();
        let link = link_config(dir, options, host_name, &mut warnings)?;
        let in_ms = |seconds: u32| u64::from(seconds) * 1000;
        let limit = |seconds: u32| (seconds > 0).then(|| in_ms(seconds));
        Ok(Self {
            tunnel: tunnel.to_owned(),
            server,
            port,
            link,
            mtu: options.mtu,
            log: options.log(),
            detach: options.detach,
            ipparam: options.ipparam.clone(),
            link_name: options.link_name.clone(),
            interface: InterfaceConfig {
                name: options.interface.clone(),
                unit: options.unit,
                vrf: options.vrf.clone(),
            },
            routes: Vec::new(),
            kill_switch: false,
            pid_files: false,
            call_file: None,
            default_route: options.default_route,
            default_route6: options
                .ipv6
                .default_route
                .then(|| options.ipv6.default_route_metric.unwrap_or(0)),
            proxy_arp: options.proxy_arp,
            write_resolv_conf: !options.no_resolv_conf,
            persist: Persist {
                wanted: options.persist,
                max_fail: options.max_fail,
                holdoff_ms: in_ms(options.holdoff_s),
                demand: options.demand,
            },
            idle_ms: limit(options.idle_s),
            max_connect_ms: limit(options.max_connect_s),
            child_timeout_ms: limit(options.child_timeout_s),
            environment: options.environment.clone(),
            scripts: options.scripts.clone(),
            scripts_dir: dir.to_owned(),
            pptp: options.pptp.clone(),
            fast_path: FastPathMode::default(),
            workers: 1,
            look_ahead: false,
            lock: options.lock,
            dump: options.dump,
            dry_run: options.dry_run,
            dump_text: options.dump_text(),
            warnings,
        })
    }
}

impl Flags {
    /// Lays the flags over what files said.
    fn apply(&self, dir: &Path, options: &mut PppdOptions) -> Result<(), ConfigError> {
        options.read_words(dir, &self.words())?;
        if let Some(password) = &self.password {
            options.password = Some(password.clone());
        }
        options.new_password.clone_from(&self.new_password);
        if self.local_bind.is_some() {
            options.pptp.local_bind = self.local_bind;
        }
        if self.mark.is_some() {
            options.pptp.mark = self.mark;
        }
        if let Some(phone) = &self.phone {
            options.pptp.phone.clone_from(phone);
        }
        Ok(())
    }

    /// The flags that are pppd options, as pppd's command line would have them.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut flag = |given: bool, name: &str| {
            if given {
                words.push(name.to_owned());
            }
        };
        flag(self.no_mppe, "nomppe");
        flag(self.mppe_wanted() && !self.no_mppe, "nomppe");
        flag(self.require_mppe, "require-mppe");
        flag(self.require_mppe_40, "require-mppe-40");
        flag(self.require_mppe_128, "require-mppe-128");
        flag(self.mppe_stateful, "mppe-stateful");
        flag(self.refuse.eap, "refuse-eap");
        flag(self.refuse.pap, "refuse-pap");
        flag(self.refuse.chap_md5, "refuse-chap");
        flag(self.refuse.mschap_v1, "refuse-mschap");
        flag(self.refuse.mschap_v2, "refuse-mschap-v2");
        flag(self.default_route, "defaultroute");
        flag(self.use_peer_dns, "usepeerdns");
        flag(self.debug, "debug");
        flag(self.foreground, "nodetach");
        flag(self.persist, "persist");
        let numbers = [
            ("mtu", self.mtu.map(u32::from)),
            ("mru", self.mru.map(u32::from)),
            ("unit", self.unit),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                words.extend([name.to_owned(), number.to_string()]);
            }
        }
        let log_file = self
            .log_file
            .as_ref()
            .map(|path| path.display().to_string());
        let texts = [
            ("user", &self.user),
            ("remotename", &self.remote_name),
            ("ifname", &self.interface),
            ("ipparam", &self.ipparam),
            ("logfile", &log_file),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                words.extend([name.to_owned(), text.clone()]);
            }
        }
        words.extend_from_slice(&self.options);
        words
    }

    const fn mppe_wanted(&self) -> bool {
        self.require_mppe || self.require_mppe_40 || self.require_mppe_128
    }
}

/// `HOST` or `HOST:PORT`.
fn host_and_port(server: &str) -> Result<(String, u16), ConfigError> {
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)),
        None => (server, Some(PPTP_PORT)),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match port {
        Some(port) if !host.is_empty() && host.len() <= 253 && host.chars().all(fits) => {
            Ok((host.to_owned(), port))
        }
        _ => Err(ConfigError::BadValue {
            place: Place::command_line(),
            why: format!(
                "'{}' is not a server such as vpn.example.org or 192.0.2.1",
                server
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(80)
                    .collect::<String>()
            ),
        }),
    }
}

/// The part of the options that decides how the link is negotiated, for either end.
pub(super) fn link_config(
    dir: &Path,
    options: &PppdOptions,
    host_name: &str,
    warnings: &mut Vec<String>,
) -> Result<LinkConfig, ConfigError> {
    let name = options.our_name(host_name);
    let secrets: Arc<dyn Secrets> = match &options.password {
        Some(secret) => Arc::new(FlagSecret {
            client: name.clone(),
            secret: secret.clone(),
        }),
        None => {
            let files = read_secrets(dir, options)?;
            warnings.extend(files.warnings().map(ToOwned::to_owned));
            Arc::new(files)
        }
    };
    let secrets = match &options.new_password {
        Some(new) => with_new_password(secrets, new.clone()),
        None => secrets,
    };
    Ok(LinkConfig {
        name,
        remote_name: options.remote_name.clone(),
        require: options.require_methods(),
        allow: options.allowed_methods(),
        eap_pass_through: options.radius,
        secrets,
        lcp: lcp_config(options),
        mppe: mppe_config(options)?,
        addresses: addresses(options),
        ipv6: ipv6_config(options),
    })
}

/// The secrets files that the options name, else those of `dir`.
pub(super) fn read_secrets(dir: &Path, options: &PppdOptions) -> Result<FileSecrets, ConfigError> {
    let path = |given: &Option<PathBuf>, name: &str| {
        given
            .as_ref()
            .map_or_else(|| dir.join(name), |path| dir.join(locate(dir, path)))
    };
    FileSecrets::read_files(
        &path(&options.chap_secrets, "chap-secrets"),
        &path(&options.pap_secrets, "pap-secrets"),
    )
}

fn lcp_config(options: &PppdOptions) -> LcpConfig {
    let defaults = LcpConfig::default();
    LcpConfig {
        mru: options.mru.unwrap_or(defaults.mru),
        mtu: options.mtu.unwrap_or(defaults.mtu),
        accm: options.accm,
        pfc: options.pfc,
        acfc: options.acfc,
        magic: options.magic,
        restart_ms: u64::from(options.restart_s) * 1000,
        max_configure: options.max_configure,
        max_terminate: options.max_terminate,
        max_failure: options.max_failure,
        // pppd sends no echoes unless told to, and a dead tunnel then lives for ever.
        echo_interval_ms: options
            .echo_interval_s
            .map_or(defaults.echo_interval_ms, |seconds| {
                u64::from(seconds) * 1000
            }),
        echo_failure: options.echo_failure.unwrap_or(defaults.echo_failure),
        echo_adaptive: options.echo_adaptive,
        chap_interval_ms: u64::from(options.chap_interval_s) * 1000,
        auth_timeout_ms: u64::from(options.auth_timeout_s) * 1000,
        setup_timeout_ms: defaults.setup_timeout_ms,
        lcp_timeout_ms: defaults.lcp_timeout_ms,
        network_timeout_ms: defaults.network_timeout_ms,
    }
}

fn mppe_config(options: &PppdOptions) -> Result<Option<MppeConfig>, ConfigError> {
    let MppeOptions {
        bits_40,
        bits_56,
        bits_128,
        stateful,
        prefer_stateful,
        optional,
    } = options.mppe;
    if !options.mppe.wanted() {
        return Ok(None);
    }
    if options.no_ccp && !optional {
        return Err(ConfigError::Conflict(
            "MPPE is required, but noccp turns off the protocol that negotiates it: \
             remove noccp, or say nomppe"
                .to_owned(),
        ));
    }
    let config = MppeConfig {
        require: !optional,
        allow_40: bits_40,
        allow_56: bits_56,
        allow_128: bits_128,
        allow_stateful: stateful,
        prefer_stateful,
    };
    Ok((!options.no_ccp).then_some(config))
}

fn ipv6_config(options: &PppdOptions) -> Option<Ipv6Config> {
    let ipv6 = options.ipv6;
    let from = |address: Option<std::net::Ipv4Addr>| {
        let address = address.filter(|_| ipv6.use_ip_addresses)?;
        Some(InterfaceIdentifier::of(address.to_ipv6_compatible()))
    };
    let config = Ipv6Config {
        local: ipv6.local.or_else(|| from(options.local_address)),
        remote: ipv6.remote.or_else(|| from(options.remote_address)),
        accept_local: ipv6.accept_local,
        accept_remote: ipv6.accept_remote,
    };
    (!ipv6.refused).then_some(config)
}

fn addresses(options: &PppdOptions) -> Addresses {
    let pair = |list: &[std::net::Ipv4Addr]| [list.first().copied(), list.get(1).copied()];
    Addresses {
        local: options.local_address,
        remote: options.remote_address,
        accept_local: options.accept_local || options.local_address.is_none(),
        accept_remote: options.accept_remote || options.remote_address.is_none(),
        ask_dns: options.use_peer_dns,
        ask_wins: options.use_peer_wins,
        dns: pair(&options.ms_dns),
        wins: pair(&options.ms_wins),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pppd_options::tests::{HOW_TO_OPTIONS, HOW_TO_PEER};
    use super::super::route::RouteVia;
    use super::*;
    use std::fs;

    /// The how-to's directory, with `head` in front of its peers file.
    fn how_to(head: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        fs::create_dir(dir.path().join("peers")).unwrap();
        write("peers/test2", &format!("{head}{HOW_TO_PEER}"));
        write("options.pptp", HOW_TO_OPTIONS);
        write("chap-secrets", "mia\tzidler\tmia123\nzidler\tmia\tmia123\n");
        dir
    }

    const HEAD: &str = "#\n# PPTP Tunnel configuration for tunnel test2\n\
        # Server IP: zidler.ece.uic.edu\n\
        # Route: add -net 192.168.2.0 netmask 255.255.255.0 TUNNEL_DEV\n#\n";

    fn test2(dir: &tempfile::TempDir, flags: &Flags) -> Result<ClientConfig, ConfigError> {
        ClientConfig::from_peer(dir.path(), "test2", flags, "host")
    }

    #[test]
    fn the_files_of_the_how_to_make_a_tunnel() {
        let config = test2(&how_to(HEAD), &Flags::default()).unwrap();
        assert_eq!((&*config.server, config.port), ("zidler.ece.uic.edu", 1723));
        assert_eq!(config.link.name, "mia");
        assert_eq!(config.link.remote_name.as_deref(), Some("zidler"));
        assert_eq!(config.link.require, AuthMethods::NONE);
        assert_eq!(config.link.allow, AuthMethods::ALL);
        let secret = config.link.secrets.find("mia", "zidler", false).unwrap();
        assert_eq!(secret.as_bytes(), b"mia123");
        let mppe = config.link.mppe.unwrap();
        assert!(mppe.require && mppe.allow_128 && !mppe.allow_40 && !mppe.allow_stateful);
        assert!(!config.link.lcp.pfc && !config.link.lcp.acfc);
        assert_eq!(config.link.lcp.accm, Some(0));
        assert_eq!(config.ipparam.as_deref(), Some("192.168.2.0"));
        assert_eq!(
            config.log,
            LogConfig {
                fd: Some(2),
                file: None,
                debug: true
            }
        );
        assert_eq!(config.routes.len(), 1);
        assert_eq!(
            (config.routes[0].prefix_len, &config.routes[0].via),
            (24, &RouteVia::Tunnel)
        );
        assert!(config.lock && config.dump && !config.dry_run);
        assert_eq!(config.mtu, None);
    }

    #[test]
    fn dump_is_that_of_the_last_setting_of_each_option() {
        let dir = how_to(HEAD);
        let config = test2(&dir, &Flags::default()).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let expected = format!(
            "pppd options in effect:\ndebug\t\t# (from {0})\nlogfd 2\t\t# (from {0})\n\
             dump\t\t# (from {0})\nnoauth\t\t# (from {0})\nname mia\t\t# (from {0})\n\
             remotename zidler\t\t# (from {1})\nlock\t\t# (from {0})\nnoaccomp\t\t# (from {0})\n\
             nopcomp\t\t# (from {0})\nnovj\t\t# (from {0})\nnovjccomp\t\t# (from {0})\n\
             ipparam 192.168.2.0\t\t# (from {0})\nnobsdcomp\t\t# (from {0})\n\
             nodeflate\t\t# (from {0})\nrequire-mppe-128\t\t# (from {0})\n",
            at("options.pptp"),
            at("peers/test2")
        );
        assert_eq!(config.dump_text, expected);
    }

    #[test]
    fn without_a_server_a_person_is_told_what_to_add() {
        let dir = how_to("");
        let error = test2(&dir, &Flags::default()).unwrap_err().to_string();
        assert!(
            error.starts_with("Server Address for test2 not found."),
            "{error}"
        );
        assert!(error.contains("# Server IP: HOST"), "{error}");
        let flags = Flags {
            server: Some("192.0.2.1:1724".to_owned()),
            ..Flags::default()
        };
        let config = test2(&dir, &flags).unwrap();
        assert_eq!((&*config.server, config.port), ("192.0.2.1", 1724));
    }

    #[test]
    fn the_server_can_stand_in_pty() {
        let dir = how_to("pty \"/usr/sbin/pptp vpn.example --nolaunchpppd --phone 7\"\n");
        let config = test2(&dir, &Flags::default()).unwrap();
        assert_eq!(config.server, "vpn.example");
        assert_eq!(config.pptp.phone, "7");
    }

    #[test]
    fn the_system_file_comes_first_and_flags_last() {
        let dir = how_to(HEAD);
        fs::write(
            dir.path().join("options"),
            "mtu 1300\nmru 1300\nname host2\n",
        )
        .unwrap();
        let flags = Flags {
            mru: Some(1200),
            user: Some("bob".to_owned()),
            password: Some(Secret::new(b"bob123".to_vec())),
            no_mppe: true,
            ..Flags::default()
        };
        let config = test2(&dir, &flags).unwrap();
        assert_eq!((config.mtu, config.link.lcp.mru), (Some(1300), 1200));
        assert_eq!(config.link.name, "bob");
        assert!(config.link.secrets.find("bob", "any", false).is_some());
        assert_eq!(config.link.mppe, None);
        assert!(!format!("{config:?}").contains("bob123"));
    }

    #[test]
    fn a_mistake_in_the_included_file_is_named_there() {
        let dir = how_to(HEAD);
        let path = dir.path().join("options.pptp");
        fs::write(&path, format!("{HOW_TO_OPTIONS}xyz\n")).unwrap();
        let error = test2(&dir, &Flags::default()).unwrap_err();
        let expected = format!(
            "In file {}: unrecognized option 'xyz' (line 19)",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        fs::remove_file(&path).unwrap();
        let error = test2(&dir, &Flags::default()).unwrap_err().to_string();
        assert!(
            error.contains("peers/test2, line 9: Can't open options file"),
            "{error}"
        );
    }

    #[test]
    fn noccp_and_required_mppe_contradict_each_other() {
        let dir = how_to(&format!("{HEAD}noccp\n"));
        let error = test2(&dir, &Flags::default()).unwrap_err().to_string();
        assert!(error.contains("noccp turns off the protocol"), "{error}");
    }

    #[test]
    fn flags_alone_require_strong_encryption_unless_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let mut flags = Flags {
            server: Some("vpn.example".to_owned()),
            user: Some("mia".to_owned()),
            ..Flags::default()
        };
        let mppe = |flags: &Flags| {
            ClientConfig::from_flags(dir.path(), flags, "host")
                .unwrap()
                .link
                .mppe
        };
        let strong = mppe(&flags).unwrap();
        assert!(strong.require && strong.allow_128 && !strong.allow_40);
        flags.require_mppe = true;
        assert!(mppe(&flags).unwrap().allow_40);
        flags.require_mppe = false;
        flags.no_mppe = true;
        assert_eq!(mppe(&flags), None);
        flags.server = None;
        assert!(ClientConfig::from_flags(dir.path(), &flags, "host").is_err());
        for server in ["", "a b", "vpn:0", "vpn:x", "vpn:99999", "-x;y"] {
            flags.server = Some(server.to_owned());
            let error = ClientConfig::from_flags(dir.path(), &flags, "host").unwrap_err();
            assert!(error.to_string().contains("is not a server"), "{error}");
        }
    }

    #[test]
    fn two_name_servers_and_both_addresses_reach_the_link() {
        let dir = how_to(&format!(
            "{HEAD}10.0.0.1:10.0.0.2\nms-dns 10.0.0.3\nms-dns 10.0.0.4\nusepeerdns\npersist\n\
             idle 60\n"
        ));
        let config = test2(&dir, &Flags::default()).unwrap();
        let addresses = config.link.addresses;
        assert_eq!(addresses.local, Some([10, 0, 0, 1].into()));
        assert_eq!(addresses.remote, Some([10, 0, 0, 2].into()));
        assert!(addresses.ask_dns && !addresses.accept_local && !addresses.accept_remote);
        assert_eq!(
            addresses.dns,
            [Some([10, 0, 0, 3].into()), Some([10, 0, 0, 4].into())]
        );
        assert!(config.persist.wanted && config.persist.holdoff_ms == 30_000);
        assert_eq!(config.idle_ms, Some(60_000));
    }
}
