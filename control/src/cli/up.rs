//! `pptp-fast up`: brings up one tunnel.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::{fail, host_name, ppp_directory, print_line, warn};
use crate::config::client::{ClientConfig, Flags};
use crate::config::fast_path::FastPathMode;
use crate::config::pppd_options::Detach;
use crate::driver::admin::Asked;
use crate::driver::log::{Log, Terminal};
use crate::driver::run_files::{self, AdminSocket};
use crate::driver::{admin, background, client, runtime, signals, terminal};
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
    #[arg(long)]
    localbind: Option<std::net::Ipv4Addr>,
    /// How GRE packets leave this host.
    #[arg(long, value_enum, default_value_t)]
    fast_path: FastPathMode,
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
        self.bring_up(config)
    }

    /// Brings the tunnel up; once more when its password has expired and a person gives a new one.
    fn bring_up(&self, mut config: ClientConfig) -> ExitCode {
        loop {
            let ending = match runtime::block_on(bring_up(&config, self.json)) {
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
        config.map_err(|error| (error.to_string(), error.exit_status()))
    }
}

impl FlagArguments {
    fn read(&self, foreground: bool) -> Result<Flags, String> {
        let read = |file: &Option<PathBuf>| file.as_deref().map(read_password).transpose();
        let password = read(&self.password_file)?;
        let new_password = read(&self.new_password_file)?;
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
            fast_path: self.fast_path,
            log_file: self.logfile.clone(),
            foreground,
            options: self.options.clone(),
            ..Flags::default()
        })
    }
}

fn read_password(path: &Path) -> Result<crate::proto::auth::Secret, String> {
    let text = std::fs::read(path)
        .map_err(|error| format!("cannot read the password file {}: {error}", path.display()))?;
    let line = text
        .split(|octet| *octet == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(format!(
            "the first line of {} is empty: put the password there",
            path.display()
        ));
    }
    Ok(crate::proto::auth::Secret::new(line.to_vec()))
}

/// What a tunnel came to.
enum Outcome {
    Over(ExitCode),
    PasswordExpired(Ending),
}

async fn bring_up(config: &ClientConfig, json: bool) -> Outcome {
    let log = match open_log(config, json) {
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
        Ok(ending @ Ending::PasswordExpired { .. }) => return Outcome::PasswordExpired(ending),
        // Asked for with `down`: in order, and so a success.
        Ok(Ending::LocalRequest(_)) if signal.try_recv().is_err() => ExitCode::SUCCESS,
        Ok(ending) => fail(&ending, ending.exit_status()),
        Err(error) => fail(&error, error.exit_status()),
    })
}

fn open_log(config: &ClientConfig, json: bool) -> Result<Log, String> {
    let terminal = match (json, config.log.fd) {
        (true, _) | (false, None) => None,
        (false, Some(2)) => Some(Terminal::Stderr),
        (false, Some(_)) => Some(Terminal::Stdout),
    };
    let log = Log::new(terminal);
    match &config.log.file {
        Some(path) => log
            .with_file(path)
            .map_err(|error| format!("cannot open the log {}: {error}", path.display())),
        None => Ok(log),
    }
}

/// Says that the tunnel stands, and lets go of the terminal when in the background.
async fn announce(tunnel: String, stands: oneshot::Receiver<client::Up>, json: bool) {
    let Ok(up) = stands.await else { return };
    if json {
        print_line(serde_json::json!({
            "tunnel": tunnel,
            "interface": up.interface,
            "local_ip": up.network.local,
            "peer_ip": up.network.remote,
            "dns": up.network.dns,
            "cipher": up.network.cipher,
            "mtu": up.network.mtu,
            "setup_ms": up.setup.as_secs_f64() * 1000.0,
        }));
    } else {
        let (interface, local) = (&up.interface, up.network.local);
        print_line(format_args!(
            "Tunnel {tunnel} is active on {interface}. Local IP Address: {local}"
        ));
    }
    if background::is_child() {
        background::report_ready();
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
        std::io::ErrorKind::PermissionDenied => match crate::driver::privileges::check() {
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
