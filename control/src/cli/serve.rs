//! `pptp-fast serve`: the concentrator.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::{fail, host_name, ppp_directory, print_line};
use crate::config::fast_path::FastPathMode;
use crate::config::server::ServerConfig;
use crate::driver::admin::Asked;
use crate::driver::log::{Log, Terminal};
use crate::driver::run_files::{self, AdminSocket};
use crate::driver::server::takeover::{self, End, Phase, Sockets};
use crate::driver::{admin, background, runtime, signals};

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
    /// Go on with the sessions of the server that runs here, perhaps of another version; it ends.
    #[arg(long)]
    takeover: bool,
    /// With --takeover: go to the background when it is done.
    #[arg(long, requires = "takeover")]
    background: bool,
    /// Stop this process in a phase of the take-over, for tests.
    #[arg(long, value_enum, requires = "takeover", hide = true)]
    stop_at: Option<Phase>,
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
        if self.background && !background::is_child() {
            return background::run_beside()
                .unwrap_or_else(|error| fail(format_args!("cannot start: {error}"), 1));
        }
        let served = async {
            if self.takeover {
                self.take_over(config).await
            } else {
                serve(config).await
            }
        };
        match runtime::block_on(served) {
            Ok(code) => code,
            Err(error) => fail(error, 4),
        }
    }

    async fn take_over(&self, config: ServerConfig) -> ExitCode {
        let log = match open_log(&config) {
            Ok(log) => log,
            Err(message) => return fail(message, 1),
        };
        let path = run_files::takeover_socket();
        let taken = match takeover::take(config, log, &path, self.stop_at).await {
            Ok(taken) => taken,
            Err(error) => return fail(&error, error.exit_status()),
        };
        if self.background {
            background::start_session();
            background::report_ready_beside();
        }
        let (requests, receiver) = mpsc::channel::<Asked>(REQUESTS_MAX);
        let mut files = Vec::new();
        match taken.admin() {
            Ok(listener) => {
                if let Ok(copy) = listener.try_clone() {
                    files.push(AdminSocket::adopt(copy, &run_files::server_socket()));
                }
                tokio::task::spawn_local(admin::serve(listener, requests.clone()));
            }
            Err(error) => super::warn(format_args!("no admin socket: {error}")),
        }
        files.extend(taken.takeover().map(|copy| AdminSocket::adopt(copy, &path)));
        let (first, _) = oneshot::channel();
        tokio::task::spawn_local(signals::forward(requests, first));
        let (ready, _) = oneshot::channel();
        leave_files(taken.run(receiver, ready).await, files);
        ExitCode::SUCCESS
    }
}

/// The run files are the other process's when it has taken over.
fn leave_files(end: End, files: Vec<AdminSocket>) {
    if end == End::TakenOver {
        files.into_iter().for_each(AdminSocket::leave);
    }
}

fn open_log(config: &ServerConfig) -> Result<Log, String> {
    let Some(path) = &config.log.file else {
        return Ok(Log::new(Some(Terminal::Stdout)));
    };
    let log = Log::new(None).with_syslog().with_file(path);
    log.map_err(|error| format!("cannot open the log {}: {error}", path.display()))
}

async fn serve(config: ServerConfig) -> ExitCode {
    let bind = |path: PathBuf| {
        AdminSocket::bind(&path).map_err(|error| fail(socket_refused(&error, &path), 1))
    };
    let socket = match bind(run_files::server_socket()) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    let takeover = match bind(run_files::takeover_socket()) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    let log = match open_log(&config) {
        Ok(log) => log,
        Err(message) => return fail(message, 1),
    };
    let (requests, receiver) = mpsc::channel::<Asked>(REQUESTS_MAX);
    let copies = (
        socket.listener.try_clone(),
        socket.listener.try_clone(),
        takeover.listener.try_clone(),
    );
    let (Ok(listener), Ok(admin), Ok(for_takeover)) = copies else {
        return fail("out of descriptors", 1);
    };
    tokio::task::spawn_local(admin::serve(listener, requests.clone()));
    let (first, _) = oneshot::channel();
    tokio::task::spawn_local(signals::forward(requests, first));
    let (ready, _) = oneshot::channel();
    let sockets = Sockets {
        admin,
        takeover: for_takeover,
    };
    match takeover::run(config, log, receiver, ready, sockets).await {
        Ok(end) => {
            leave_files(end, vec![socket, takeover]);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, error.exit_status()),
    }
}

fn socket_refused(error: &std::io::Error, path: &std::path::Path) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "a server is already running: see pptp-fast status".into(),
        std::io::ErrorKind::PermissionDenied => format!(
            "cannot make {}: run this with sudo, or name another directory in PPTP_FAST_RUN_DIR",
            path.display()
        ),
        _ => format!("cannot make {}: {error}", path.display()),
    }
}
