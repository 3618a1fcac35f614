//! `pptp-fast up`: brings up one tunnel.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::{fail, host_name, password, ppp_directory, print_line, warn};
use crate::config::client::{ClientConfig, Flags};
use crate::config::fast_path::FastPathMode;
use crate::config::pppd_options::Detach;
use crate::config::route::Route;
use crate::driver::admin::Asked;
use crate::driver::client::{Announcement, Ended};
use crate::driver::log::{Journal, Log, Terminal};
use crate::driver::run_files::{self, AdminSocket};
use crate::driver::{admin, background, client, privileges, runtime, service, signals, terminal};
use crate::proto::ending::Ending;

/// Requests that may wait.
const REQUESTS_MAX: usize = 16;

/// Bring up a tunnel: that of /etc/ppp/peers/NAME, or one described by flags.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast up office\n  \
    pptp-fast up --server vpn.example.net --user mia --password-file mia.password\n  \
    pptp-fast up office -f        (stay in the foreground; Ctrl-C ends the tunnel)\n\n\
    The exit status is pppd's: 0 up, 2 options, 3 not root, 4 kernel, 10 negotiation, \
    16 no connection, 19 wrong name or password.")]
pub(super) struct Up {
    /// Name of the tunnel: a file in /etc/ppp/peers (or $PPPDIR/peers).
    #[arg(required_unless_present = "server")]
    name: Option<String>,
    /// Stay in the foreground.
    #[arg(long, short)]
    foreground: bool,
    /// Print one JSON object when the tunnel stands, instead of the negotiation.
    #[arg(long)]
    json: bool,
    /// Log to systemd's journal in its own words, in place of syslog; a service does so anyway.
    #[arg(long)]
    journal: bool,
    #[command(flatten)]
    flags: FlagArguments,
}

#[derive(Debug, Args)]
struct FlagArguments {
    /// Address or name of the PPTP server: no peers file is needed then.
    #[arg(long)]
    server: Option<String>,
    /// Our name towards the server.
    #[arg(long)]
    user: Option<String>,
    /// File whose first line is the password; without it, chap-secrets is asked.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// File whose first line is to take the place of a password that has expired (MS-CHAPv2).
    #[arg(long)]
    new_password_file: Option<PathBuf>,
    /// Name by which the server stands in chap-secrets.
    #[arg(long)]
    remotename: Option<String>,
    /// No tunnel without encryption with 128-bit keys (with --server: the default).
    #[arg(long)]
    require_mppe_128: bool,
    /// No tunnel without encryption with 40-bit keys.
    #[arg(long)]
    require_mppe_40: bool,
    /// No tunnel without encryption, whatever the key length.
    #[arg(long)]
    require_mppe: bool,
    /// Do without encryption.
    #[arg(long, conflicts_with_all = ["require_mppe", "require_mppe_40", "require_mppe_128"])]
    no_mppe: bool,
    /// Let the server have stateful encryption.
    #[arg(long)]
    mppe_stateful: bool,
    /// Largest packet that goes into the tunnel, octets.
    #[arg(long)]
    mtu: Option<u16>,
    /// Largest packet that comes out of the tunnel, octets.
    #[arg(long)]
    mru: Option<u16>,
    /// Name of the network interface.
    #[arg(long)]
    ifname: Option<String>,
    /// Our outer address, when it must be a particular one.
    #[arg(long, visible_aliases = ["local", "bind"])]
    localbind: Option<std::net::Ipv4Addr>,
    /// Firewall mark of the tunnel's own packets, for policy routing.
    #[arg(long, visible_alias = "fwmark", value_parser = parse_mark)]
    rtmark: Option<u32>,
    /// Network or host that is reached through the tunnel; may be given several times.
    #[arg(long = "route", value_name = "NET", value_parser = parse_route)]
    routes: Vec<Route>,
    /// Send everything through the tunnel that has no other route.
    #[arg(long)]
    defaultroute: bool,
    /// With --defaultroute: even where there is a default route already.
    #[arg(long, requires = "defaultroute")]
    replacedefaultroute: bool,
    /// Let nothing leave this host but through the tunnel and to its server, until the tunnel is
    /// ended with `down` or a signal.
    #[arg(long)]
    kill_switch: bool,
    /// Ask the name servers that the server names.
    #[arg(long)]
    usepeerdns: bool,
    /// Dial again whenever the tunnel has ended.
    #[arg(long)]
    persist: bool,
    /// How GRE packets leave this host.
    #[arg(long, value_enum, default_value_t)]
    fast_path: FastPathMode,
    /// Processors that carry packets: with 2, one for each direction, on a machine with idle ones.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=2))]
    workers: u16,
    /// Prepare the key streams of packets to come while nothing else is to be done.
    #[arg(long)]
    look_ahead: bool,
    /// Append the log to this file, too.
    #[arg(long)]
    logfile: Option<PathBuf>,
    /// Further options in pppd's words, as in a peers file.
    #[arg(last = true, value_name = "PPPD OPTIONS")]
    options: Vec<String>,
}

impl Up {
    pub(super) fn run(&self) -> ExitCode {
        let config = match self.configuration() {
            Ok(config) => config,
            Err((message, status)) => return fail(message, status),
        };
        let stay = self.foreground || config.detach == Detach::Never;
        if !stay && !background::is_child() {
            return background::run_in_background()
                .unwrap_or_else(|error| fail(format_args!("cannot start: {error}"), 1));
        }
        if background::is_child() {
            background::start_session();
        }
        for warning in &config.warnings {
            warn(warning);
        }
        if config.dump && !self.json {
            print_line(config.dump_text.trim_end());
        }
        if config.dry_run {
            return ExitCode::SUCCESS;
        }
        if stay {
            service::adopt();
        }
        let (dir, fast_path) = (Some(config.scripts_dir.as_path()), config.fast_path());
        match privileges::prepare(dir, &config.scripts, fast_path) {
            Ok(()) => self.bring_up(config),
            Err(error) => fail(format_args!("cannot start: {error}"), 1),
        }
    }

    /// Brings the tunnel up; once more when its password has expired and a person gives a new one.
    fn bring_up(&self, mut config: ClientConfig) -> ExitCode {
        loop {
            let ending = match runtime::block_on(bring_up(&config, self)) {
                Ok(Outcome::Over(code)) => return code,
                Ok(Outcome::PasswordExpired(ending)) => ending,
                Err(error) => return fail(error, 4),
            };
            let may_ask = !self.json && !background::is_child();
            let new = may_ask.then(|| terminal::ask_new_password(&config.link.name));
            match new.flatten() {
                Some(new) => config = config.with_new_password(new),
                None => return fail(&ending, ending.exit_status()),
            }
        }
    }

    fn configuration(&self) -> Result<ClientConfig, (String, u8)> {
        let directory = ppp_directory();
        let flags = self
            .flags
            .read(self.foreground)
            .map_err(|message| (message, 2))?;
        let config = match &self.name {
            Some(name) => ClientConfig::from_peer(&directory, name, &flags, &host_name()),
            None => ClientConfig::from_flags(&directory, &flags, &host_name()),
        };
        config
            .map(|config| ClientConfig {
                pid_files: true,
                ..config
            })
            .map_err(|error| (error.to_string(), error.exit_status()))
    }
}

impl FlagArguments {
    fn read(&self, foreground: bool) -> Result<Flags, String> {
        let read = |file: &Option<PathBuf>| file.as_deref().map(password::from_file).transpose();
        let password = read(&self.password_file)?;
        let new_password = read(&self.new_password_file)?;
        let mut options = self.options.clone();
        if self.replacedefaultroute {
            options.push("replacedefaultroute".to_owned());
        }
        Ok(Flags {
            server: self.server.clone(),
            user: self.user.clone(),
            password,
            new_password,
            remote_name: self.remotename.clone(),
            require_mppe: self.require_mppe,
            require_mppe_40: self.require_mppe_40,
            require_mppe_128: self.require_mppe_128,
            no_mppe: self.no_mppe,
            mppe_stateful: self.mppe_stateful,
            mtu: self.mtu,
            mru: self.mru,
            interface: self.ifname.clone(),
            local_bind: self.localbind,
            mark: self.rtmark,
            routes: self.routes.clone(),
            default_route: self.defaultroute,
            kill_switch: self.kill_switch,
            use_peer_dns: self.usepeerdns,
            persist: self.persist,
            fast_path: self.fast_path,
            workers: self.workers,
            look_ahead: self.look_ahead,
            log_file: self.logfile.clone(),
            foreground,
            options,
            ..Flags::default()
        })
    }
}

fn parse_mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "write it as 51820 or 0xca6c".to_owned())
}

fn parse_route(text: &str) -> Result<Route, String> {
    Route::parse(&format!("add {text} TUNNEL_DEV"))
}

/// What a tunnel came to.
enum Outcome {
    Over(ExitCode),
    PasswordExpired(Ending),
}

async fn bring_up(config: &ClientConfig, wanted: &Up) -> Outcome {
    let json = wanted.json;
    let log = match open_log(config, wanted) {
        Ok(log) => log,
        Err(message) => return Outcome::Over(fail(message, 1)),
    };
    let socket = match AdminSocket::bind(&run_files::tunnel_socket(&config.tunnel)) {
        Ok(socket) => socket,
        Err(error) => return Outcome::Over(socket_refused(&config.tunnel, &error)),
    };
    let (requests, receiver) = mpsc::channel::<Asked>(REQUESTS_MAX);
    let Ok(listener) = socket.listener.try_clone() else {
        return Outcome::Over(fail("out of descriptors", 1));
    };
    tokio::task::spawn_local(admin::serve(listener, requests.clone()));
    let (first, mut signal) = oneshot::channel();
    tokio::task::spawn_local(signals::forward(requests, first));
    let (up, stands) = oneshot::channel();
    tokio::task::spawn_local(announce(config.tunnel.clone(), stands, json));
    Outcome::Over(match client::run(config, log, receiver, up).await {
        Ok(Ended {
            ending: ending @ Ending::PasswordExpired { .. },
            ..
        }) => return Outcome::PasswordExpired(ending),
        // Asked for with `down`: in order, and so a success.
        Ok(ended) => {
            let is_asked = matches!(&ended.ending, Ending::LocalRequest(words)
                if words == client::USER_REQUEST);
            if is_asked && signal.try_recv().is_err() {
                return Outcome::Over(ExitCode::SUCCESS);
            }
            fail(&ended.ending, ended.exit_status())
        }
        Err(error) => fail(&error, error.exit_status()),
    })
}

fn open_log(config: &ClientConfig, wanted: &Up) -> Result<Log, String> {
    let terminal = match (wanted.json, config.log.fd) {
        (true, _) | (false, None) => None,
        (false, Some(2)) => Some(Terminal::Stderr),
        (false, Some(_)) => Some(Terminal::Stdout),
    };
    let tunnel = Some(config.tunnel.as_str());
    let journal = match wanted.journal {
        true => Some(Journal::open(tunnel).map_err(|error| format!("no journal: {error}"))?),
        false => Journal::of_a_service(tunnel),
    };
    let log = match journal {
        // Once is enough.
        Some(journal) => Log::new(terminal.filter(|it| !it.is_the_journal())).with_journal(journal),
        None => Log::new(terminal).with_syslog(),
    };
    match &config.log.file {
        Some(path) => log
            .with_file(path)
            .map_err(|error| format!("cannot open the log {}: {error}", path.display())),
        None => Ok(log),
    }
}

/// Says that the tunnel stands, and lets go of the terminal when in the background.
async fn announce(tunnel: String, news: oneshot::Receiver<Announcement>, json: bool) {
    let Ok(news) = news.await else { return };
    if json {
        print_line(as_json(&tunnel, &news));
    } else {
        print_line(in_words(&tunnel, &news));
    }
    if background::is_child() {
        background::report_ready();
    }
}

fn as_json(tunnel: &str, news: &Announcement) -> serde_json::Value {
    match news {
        Announcement::Up(up) => serde_json::json!({
            "tunnel": tunnel,
            "state": "up",
            "interface": up.interface,
            "local_ip": up.network.local,
            "peer_ip": up.network.remote,
            "dns": up.network.dns,
            "cipher": up.network.cipher,
            "mtu": up.network.mtu,
            "setup_ms": up.setup.as_secs_f64() * 1000.0,
        }),
        Announcement::OnDemand { interface } => serde_json::json!({
            "tunnel": tunnel,
            "state": "waiting",
            "interface": interface,
        }),
        Announcement::Persisting { why } => serde_json::json!({
            "tunnel": tunnel,
            "state": "reconnecting",
            "last_ending": why,
        }),
    }
}

fn in_words(tunnel: &str, news: &Announcement) -> String {
    match news {
        Announcement::Up(up) => format!(
            "Tunnel {tunnel} is active on {}. Local IP Address: {}",
            up.interface, up.network.local
        ),
        Announcement::OnDemand { interface } => {
            format!("Tunnel {tunnel} comes up with the first packet for {interface}.")
        }
        Announcement::Persisting { why } => {
            format!("Tunnel {tunnel} is not up yet: {why}. It is tried again in the background.")
        }
    }
}

fn socket_refused(tunnel: &str, error: &std::io::Error) -> ExitCode {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => fail(
            format_args!(
                "tunnel {tunnel} is already running: end it with: pptp-fast down {tunnel}"
            ),
            6,
        ),
        std::io::ErrorKind::PermissionDenied => match privileges::check() {
            Err(missing) => fail(missing, 3),
            Ok(()) => fail(
                format_args!(
                    "cannot make {}: name another directory in PPTP_FAST_RUN_DIR",
                    run_files::tunnel_socket(tunnel).display()
                ),
                1,
            ),
        },
        _ => fail(
            format_args!(
                "cannot make {}: {error}",
                run_files::tunnel_socket(tunnel).display()
            ),
            1,
        ),
    }
}
