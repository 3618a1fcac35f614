//! `pptp-fast up`: brings up one tunnel.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::{fail, print_line};
use crate::config::client::{ClientConfig, Flags};
use crate::driver::admin::Asked;
use crate::driver::log::{Log, Terminal};
use crate::driver::run_files::{self, AdminSocket};
use crate::driver::{admin, background, client, runtime, signals};
use crate::proto::ending::Ending;

/// Requests that may wait.
const REQUESTS_MAX: usize = 16;

/// Bring up a tunnel: that of /etc/ppp/peers/NAME, or one described by flags.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast up office\n  \
    pptp-fast up --server vpn.example.net --user mia --password-file /root/mia.password\n  \
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
#[command(next_help_heading = "Instead of a peers file")]
struct FlagArguments {
    /// Address or name of the PPTP server.
    #[arg(long)]
    server: Option<String>,
    /// Our name.
    #[arg(long)]
    user: Option<String>,
    /// File whose first line is the password; without it, chap-secrets is asked.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// Name by which the server is known in chap-secrets.
    #[arg(long)]
    remote_name: Option<String>,
    /// Encryption that must be agreed: 128, 56, 40, or none to do without.
    #[arg(long, default_value = "128")]
    mppe: String,
    /// Ways to prove who we are, separated by commas: mschap-v2, mschap, chap, pap.
    #[arg(long, value_delimiter = ',', default_value = "mschap-v2")]
    auth: Vec<String>,
    /// Largest packet through the tunnel, in octets.
    #[arg(long)]
    mtu: Option<u16>,
    /// Our outer address, when it must be a particular one.
    #[arg(long)]
    bind: Option<std::net::Ipv4Addr>,
}

impl Up {
    pub(super) fn run(&self) -> ExitCode {
        let config = match self.configuration() {
            Ok(config) => config,
            Err(message) => return fail(message, 2),
        };
        let stay = self.foreground || config.detach == crate::config::client::Detach::Never;
        if !stay && !background::is_child() {
            return background::run_in_background()
                .unwrap_or_else(|error| fail(format_args!("cannot start: {error}"), 1));
        }
        if background::is_child() {
            background::start_session();
        }
        match runtime::block_on(bring_up(&config, self.json)) {
            Ok(code) => code,
            Err(error) => fail(error, 4),
        }
    }

    fn configuration(&self) -> Result<ClientConfig, String> {
        let directory = ppp_directory();
        match (&self.name, &self.flags.server) {
            (Some(name), None) => {
                ClientConfig::from_peer(&directory, name).map_err(|error| error.to_string())
            }
            (name, Some(_)) => {
                let flags = self.flags.read(name.clone())?;
                ClientConfig::from_flags(&directory, flags).map_err(|error| error.to_string())
            }
            (None, None) => Err("name a tunnel, or give --server".to_owned()),
        }
    }
}

impl FlagArguments {
    fn read(&self, name: Option<String>) -> Result<Flags, String> {
        let password = match &self.password_file {
            Some(path) => Some(read_password(path)?),
            None => None,
        };
        Ok(Flags {
            name,
            server: self.server.clone().unwrap_or_default(),
            user: self.user.clone(),
            password,
            remote_name: self.remote_name.clone(),
            mppe: self.mppe.clone(),
            auth: self.auth.clone(),
            mtu: self.mtu,
            bind: self.bind,
        })
    }
}

fn read_password(path: &Path) -> Result<crate::proto::auth::Secret, String> {
    let text = std::fs::read(path)
        .map_err(|error| format!("cannot read the password file {}: {error}", path.display()))?;
    let line = text.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(format!("the first line of {} is empty: put the password there", path.display()));
    }
    Ok(crate::proto::auth::Secret::new(line.to_vec()))
}

/// `PPPDIR`, as pptp-command had it, or /etc/ppp.
fn ppp_directory() -> PathBuf {
    std::env::var_os("PPPDIR").map_or_else(|| "/etc/ppp".into(), PathBuf::from)
}

async fn bring_up(config: &ClientConfig, json: bool) -> ExitCode {
    let log = match open_log(config, json) {
        Ok(log) => log,
        Err(message) => return fail(message, 1),
    };
    let socket = match AdminSocket::bind(&run_files::tunnel_socket(&config.tunnel)) {
        Ok(socket) => socket,
        Err(error) => return socket_refused(&config.tunnel, &error),
    };
    let (requests, receiver) = mpsc::channel::<Asked>(REQUESTS_MAX);
    let Ok(listener) = socket.listener.try_clone() else { return fail("out of descriptors", 1) };
    tokio::task::spawn_local(admin::serve(listener, requests.clone()));
    let (first, mut signal) = oneshot::channel();
    tokio::task::spawn_local(signals::forward(requests, first));
    let (up, stands) = oneshot::channel();
    tokio::task::spawn_local(announce(config.tunnel.clone(), stands, json));
    match client::run(config, log, receiver, up).await {
        // Asked for with `down`: in order, and so a success.
        Ok(Ending::LocalRequest(_)) if signal.try_recv().is_err() => ExitCode::SUCCESS,
        Ok(ending) => fail(&ending, ending.exit_status()),
        Err(error) => fail(&error, error.exit_status()),
    }
}

fn open_log(config: &ClientConfig, json: bool) -> Result<Log, String> {
    let terminal = match (json, config.log.to_stderr) {
        (true, _) => None,
        (false, true) => Some(Terminal::Stderr),
        (false, false) => Some(Terminal::Stdout),
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
            format_args!("tunnel {tunnel} is already running: end it with: pptp-fast down {tunnel}"),
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
            format_args!("cannot make {}: {error}", run_files::tunnel_socket(tunnel).display()),
            1,
        ),
    }
}
