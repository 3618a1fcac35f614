//! `pptp-fast serve`: the concentrator.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use nix::unistd::Gid;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::{fail, host_name, ppp_directory, print_line};
use crate::config::fast_path::FastPathMode;
use crate::config::operation::LogFormat;
use crate::config::pppd_options::Scripts;
use crate::config::server::ServerConfig;
use crate::driver::admin::Asked;
use crate::driver::log::{Journal, Log, Terminal};
use crate::driver::run_files::{self, AdminSocket};
use crate::driver::server::takeover::{self, End, Phase, Sockets};
use crate::driver::{admin, background, privileges, runtime, server, service, signals};

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
    /// Log to systemd's journal in its own words; a service does so anyway.
    #[arg(long)]
    journal: bool,
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
        if self.background
            && !self.check
            && let Some(left) = background::run_beside()
        {
            return left.unwrap_or_else(|error| fail(format_args!("cannot start: {error}"), 1));
        }
        let mut config = match ServerConfig::read(&self.config, &ppp_directory(), &host_name()) {
            Ok(config) => config,
            Err(error) if !self.config.exists() => {
                let next = "'pptp-fast serve --example' prints one to begin with";
                return fail(format_args!("{error}; {next}"), error.exit_status());
            }
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
        service::adopt();
        let dir = config.scripts_dir.as_deref();
        let prepared = privileges::prepare(dir, &Scripts::default(), config.fast_path);
        if let Err(error) = prepared {
            return fail(format_args!("cannot start: {error}"), 1);
        }
        let served = async {
            if self.takeover {
                self.take_over(config).await
            } else {
                serve(config, self.journal).await
            }
        };
        match runtime::block_on(served) {
            Ok(code) => code,
            Err(error) => fail(error, 4),
        }
    }

    async fn take_over(&self, config: ServerConfig) -> ExitCode {
        let log = match open_log(&config, self.journal) {
            Ok(log) => log,
            Err(message) => return fail(message, 1),
        };
        let group = server::admin_group(&config.operation.admin_group);
        let path = run_files::takeover_socket();
        let taken = match takeover::take(config, log.clone(), &path, self.stop_at).await {
            Ok(taken) => taken,
            Err(error) => return fail(&error, error.exit_status()),
        };
        if self.background {
            background::start_session();
            background::report_ready_beside();
        }
        let (admin, takeover) = match taken.sockets() {
            Ok(sockets) => sockets,
            Err(error) => return fail(format_args!("out of descriptors: {error}"), 1),
        };
        let admin = AdminSocket::adopt(admin, &run_files::server_socket());
        let (requests, desk) = attend(&admin, group, &log);
        let (ready, _) = oneshot::channel();
        let end = taken.run(requests, ready, desk).await;
        leave_files(end, [admin, AdminSocket::adopt(takeover, &path)]);
        ExitCode::SUCCESS
    }
}

/// Serves the admin socket, and signals: what they ask for comes out, and who serves the socket.
fn attend(
    socket: &AdminSocket,
    group: Option<Gid>,
    log: &Log,
) -> (mpsc::Receiver<Asked>, Option<AbortHandle>) {
    let (requests, receiver) = mpsc::channel::<Asked>(REQUESTS_MAX);
    if let Some(group) = group
        && let Err(error) = socket.share_with(group)
    {
        log.line(&format!("the admin socket is root's alone: {error}"));
    }
    let mut task = None;
    match socket.listener.try_clone() {
        Ok(listener) => {
            let policy = admin::Policy { group };
            let desk = admin::serve_to(listener, requests.clone(), policy, log.clone());
            task = Some(tokio::task::spawn_local(desk).abort_handle());
        }
        Err(error) => log.line(&format!("nobody is heard on the admin socket: {error}")),
    }
    let (first, _) = oneshot::channel();
    tokio::task::spawn_local(signals::forward(requests, first));
    (receiver, task)
}

/// The run files are the other process's when it has taken over.
fn leave_files(end: End, files: [AdminSocket; 2]) {
    if end == End::TakenOver {
        files.into_iter().for_each(AdminSocket::leave);
    }
}

async fn serve(config: ServerConfig, journal: bool) -> ExitCode {
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
    let log = match open_log(&config, journal) {
        Ok(log) => log,
        Err(message) => return fail(message, 1),
    };
    let copies = (socket.listener.try_clone(), takeover.listener.try_clone());
    let (Ok(admin), Ok(for_takeover)) = copies else {
        return fail("out of descriptors", 1);
    };
    let group = server::admin_group(&config.operation.admin_group);
    let (requests, desk) = attend(&socket, group, &log);
    let (ready, _) = oneshot::channel();
    let mut sockets = Sockets::new(admin, for_takeover);
    sockets.desk = desk;
    match takeover::run(config, log, requests, ready, sockets).await {
        Ok(end) => {
            leave_files(end, [socket, takeover]);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, error.exit_status()),
    }
}

fn open_log(config: &ServerConfig, journal: bool) -> Result<Log, String> {
    let journal = match journal {
        true => Some(Journal::open(None).map_err(|error| format!("no journal: {error}"))?),
        false => Journal::of_a_service(None),
    };
    let log = match (journal, &config.log.file) {
        (Some(journal), _) => Log::new(None).with_journal(journal),
        (None, Some(_)) => Log::new(None).with_syslog(),
        (None, None) => Log::new(Some(Terminal::Stdout)),
    };
    let log = match config.operation.log_format {
        LogFormat::Text => log,
        LogFormat::Json => log.with_json(),
    };
    match &config.log.file {
        Some(path) => log
            .with_file(path)
            .map_err(|error| format!("cannot open the log {}: {error}", path.display())),
        None => Ok(log),
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
