//! `pptp-fast serve`: the concentrator.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::{fail, host_name, ppp_directory, print_line};
use crate::config::fast_path::FastPathMode;
use crate::config::operation::LogFormat;
use crate::config::server::ServerConfig;
use crate::driver::admin::Asked;
use crate::driver::log::{Log, Terminal};
use crate::driver::run_files::{self, AdminSocket};
use crate::driver::{admin, runtime, server, signals};

/// Requests that may wait.
const REQUESTS_MAX: usize = 16;

/// Serve many tunnels on this machine, until INT or TERM.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast serve --config /etc/pptp-fast/server.toml\n  \
    pptp-fast serve --config /etc/pptpd.conf\n  pptp-fast serve --example > server.toml"
)]
pub(super) struct Serve {
    /// A TOML file, or a pptpd.conf with its options file.
    #[arg(long, short, default_value = "/etc/pptp-fast/server.toml")]
    config: PathBuf,
    /// How GRE packets leave this host; wins over the configuration.
    #[arg(long, value_enum)]
    fast_path: Option<FastPathMode>,
    /// Prepare the key streams of packets to come while nothing else is to be done; 390 kB a session.
    #[arg(long)]
    look_ahead: bool,
    /// Print a commented example of the TOML file and end.
    #[arg(long)]
    example: bool,
    /// Only read the configuration and say what is wrong with it.
    #[arg(long)]
    check: bool,
}

impl Serve {
    pub(super) fn run(&self) -> ExitCode {
        if self.example {
            print_line(crate::config::server_toml::EXAMPLE.trim_end());
            return ExitCode::SUCCESS;
        }
        let mut config = match ServerConfig::read(&self.config, &ppp_directory(), &host_name()) {
            Ok(config) => config,
            Err(error) => return fail(&error, error.exit_status()),
        };
        if let Some(mode) = self.fast_path {
            config.fast_path = mode;
        }
        config.look_ahead |= self.look_ahead;
        for warning in &config.warnings {
            super::warn(warning);
        }
        if self.check {
            print_line(format_args!("{}: good", self.config.display()));
            return ExitCode::SUCCESS;
        }
        match runtime::block_on(serve(config)) {
            Ok(code) => code,
            Err(error) => fail(error, 4),
        }
    }
}

async fn serve(config: ServerConfig) -> ExitCode {
    let socket = match AdminSocket::bind(&run_files::server_socket()) {
        Ok(socket) => socket,
        Err(error) => return fail(socket_refused(&error), 1),
    };
    let log = match &config.log.file {
        Some(path) => match Log::new(None).with_syslog().with_file(path) {
            Ok(log) => log,
            Err(error) => {
                return fail(
                    format_args!("cannot open the log {}: {error}", path.display()),
                    1,
                );
            }
        },
        None => Log::new(Some(Terminal::Stdout)),
    };
    let log = match config.operation.log_format {
        LogFormat::Text => log,
        LogFormat::Json => log.with_json(),
    };
    let (requests, receiver) = mpsc::channel::<Asked>(REQUESTS_MAX);
    let Ok(listener) = socket.listener.try_clone() else {
        return fail("out of descriptors", 1);
    };
    let policy = admin::Policy {
        group: server::admin_group(&config.operation.admin_group),
    };
    if let Some(group) = policy.group
        && let Err(error) = socket.share_with(group)
    {
        log.line(&format!("the admin socket is root's alone: {error}"));
    }
    let desk = admin::serve_to(listener, requests.clone(), policy, log.clone());
    tokio::task::spawn_local(desk);
    let (first, _) = oneshot::channel();
    tokio::task::spawn_local(signals::forward(requests, first));
    let (ready, _) = oneshot::channel();
    match server::run(config, log, receiver, ready).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_status()),
    }
}

fn socket_refused(error: &std::io::Error) -> String {
    let path = run_files::server_socket();
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "a server is already running: see pptp-fast status".into(),
        std::io::ErrorKind::PermissionDenied => format!(
            "cannot make {}: run this with sudo, or name another directory in PPTP_FAST_RUN_DIR",
            path.display()
        ),
        _ => format!("cannot make {}: {error}", path.display()),
    }
}
