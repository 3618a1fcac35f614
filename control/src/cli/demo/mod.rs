//! `pptp-fast demo`: server and client on this machine, in two network namespaces of their own,
//! with the names and addresses of the how-to that started this project.
//!
//! The process that was called is the client `mia`; the server `zidler` is a child of it. Both
//! namespaces end with the two processes.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{mpsc, oneshot};

use super::{fail, print_line};
use crate::config::fast_path::FastPathMode;
use crate::driver::admin::{Answer, Asked, Request};
use crate::driver::client::{self, Announcement, Up};
use crate::driver::log::{Log, Terminal};
use crate::driver::netlink::Netlink;
use crate::driver::{runtime, server};

mod configuration;
pub(super) mod namespaces;
pub(super) mod ping;
pub(super) mod throughput;

/// Outer network between the two namespaces.
const CLIENT_OUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SERVER_OUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const OUTER_PREFIX_LEN: u8 = 24;
const CLIENT_LINK: &str = "mia0";
const SERVER_LINK: &str = "zidler0";
/// The how-to's addresses inside the tunnel.
const SERVER_INNER: Ipv4Addr = Ipv4Addr::new(192, 168, 254, 230);
const CLIENT_INNER: Ipv4Addr = Ipv4Addr::new(192, 168, 254, 231);
/// Requests that may wait.
const REQUESTS_MAX: usize = 4;
const PINGS: u16 = 25;

/// Show a whole tunnel on this machine: negotiate, ping, measure TCP both ways, clean up.
///
/// No configuration, no peers, nothing left behind; no root where user namespaces allow it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast demo\n  pptp-fast demo --seconds 10 --json")]
pub(super) struct Demo {
    /// How long TCP is measured, each way.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    #[command(flatten)]
    data_plane: DataPlaneArguments,
    /// Print one JSON object instead of the log and the table.
    #[arg(long)]
    json: bool,
    /// Which of the two processes this is.
    #[arg(long, hide = true, value_enum, default_value_t = Role::Client)]
    role: Role,
}

/// What the data plane is like, at both ends.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct DataPlaneArguments {
    /// How GRE packets leave, at both ends.
    #[arg(long, value_enum, default_value_t)]
    fast_path: FastPathMode,
    /// Processors that carry the tunnel's packets, at each end: with 2, one for each direction.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=2))]
    workers: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Client,
    Server,
}

/// What the client saw.
struct Outcome {
    up: Up,
    round_trips_ms: Vec<f64>,
    tcp_up_mbps: f64,
    tcp_down_mbps: f64,
}

impl Demo {
    pub(super) fn run(&self) -> ExitCode {
        let result = match self.role {
            Role::Client => self.run_client(),
            Role::Server => run_server(self.data_plane),
        };
        result.unwrap_or_else(|error| fail(format_args!("{error:#}"), 1))
    }

    fn run_client(&self) -> anyhow::Result<ExitCode> {
        let log = Log::new((!self.json).then_some(Terminal::Stdout));
        let measure = async |up| self.measure(up).await;
        let (outcome, way) = with_tunnel(log, self.data_plane, measure)?;
        self.show(&outcome, &way);
        Ok(ExitCode::SUCCESS)
    }

    async fn measure(&self, up: Up) -> anyhow::Result<Outcome> {
        if !self.json {
            let (interface, local) = (&up.interface, up.network.local);
            print_line(format_args!(
                "Tunnel {} is active on {interface}. Local IP Address: {local}",
                configuration::SERVER_NAME
            ));
        }
        let span = Duration::from_secs(u64::from(self.seconds));
        let peer = up.network.remote;
        let round_trips_ms =
            in_thread("ping through the tunnel", move || ping::ping(peer, PINGS)).await?;
        if round_trips_ms.is_empty() {
            bail!("the tunnel stands, but no ping came back through it");
        }
        let bar = Progress::start("TCP up  ", span, self.json);
        let tcp_up_mbps = in_thread("send TCP", move || throughput::measure_up(peer, span)).await?;
        bar.stop();
        let bar = Progress::start("TCP down", span, self.json);
        let tcp_down_mbps =
            in_thread("receive TCP", move || throughput::measure_down(peer, span)).await?;
        bar.stop();
        Ok(Outcome {
            up,
            round_trips_ms,
            tcp_up_mbps,
            tcp_down_mbps,
        })
    }

    fn show(&self, outcome: &Outcome, way: &str) {
        let network = &outcome.up.network;
        let ping_ms = outcome.round_trips_ms[outcome.round_trips_ms.len() / 2];
        let setup_ms = outcome.up.setup.as_secs_f64() * 1000.0;
        let lost = usize::from(PINGS) - outcome.round_trips_ms.len();
        if self.json {
            print_line(serde_json::json!({
                "cipher": network.cipher,
                "local_ip": network.local,
                "peer_ip": network.remote,
                "interface": outcome.up.interface,
                "mtu": network.mtu,
                "setup_ms": rounded(setup_ms),
                "ping_ms": rounded(ping_ms),
                "ping_lost": lost,
                "tcp_up_mbps": rounded(outcome.tcp_up_mbps),
                "tcp_down_mbps": rounded(outcome.tcp_down_mbps),
                "seconds": self.seconds,
                "fast_path": way,
            }));
            return;
        }
        print_line("");
        let row = |name: &str, value: String| print_line(format_args!("  {name:<10}{value}"));
        row("cipher", network.cipher.clone());
        row("set-up", format!("{setup_ms:.1} ms"));
        row(
            "ping",
            format!("{ping_ms:.2} ms, median of {PINGS}, {lost} lost"),
        );
        row(
            "TCP up",
            format!("{:.0} Mbit/s for {} s", outcome.tcp_up_mbps, self.seconds),
        );
        row(
            "TCP down",
            format!("{:.0} Mbit/s for {} s", outcome.tcp_down_mbps, self.seconds),
        );
    }
}

/// Brings a tunnel up between two new network namespaces, of which this process enters one, lets
/// `measure` use it, and takes everything down. Tells as well which socket the packets of this end
/// left through, and why. To be called once, before there are threads.
pub(super) fn with_tunnel<T>(
    log: Log,
    data_plane: DataPlaneArguments,
    measure: impl AsyncFnOnce(Up) -> anyhow::Result<T>,
) -> anyhow::Result<(T, String)> {
    namespaces::enter()?;
    let mut server = ServerProcess::start(data_plane)?;
    server.expect("entered")?;
    let outcome = runtime::block_on(run_tunnel(&mut server, log, data_plane, measure))?;
    let left = server.end();
    let outcome = outcome?;
    left?;
    Ok(outcome)
}

async fn run_tunnel<T>(
    server: &mut ServerProcess,
    log: Log,
    data_plane: DataPlaneArguments,
    measure: impl AsyncFnOnce(Up) -> anyhow::Result<T>,
) -> anyhow::Result<(T, String)> {
    let netlink = Netlink::open()?;
    netlink
        .add_veth(CLIENT_LINK, SERVER_LINK, server.process.id())
        .await?;
    namespaces::configure(&netlink, CLIENT_LINK, (CLIENT_OUTER, OUTER_PREFIX_LEN)).await?;
    server.tell("go")?;
    server.expect("ready")?;

    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    let (up, stands) = oneshot::channel();
    let mut config = configuration::client()?;
    config.fast_path = data_plane.fast_path;
    config.workers = data_plane.workers;
    let tunnel = client::run(&config, log, receiver, up);
    let measured = async {
        let measured = match stands.await {
            Ok(Announcement::Up(up)) => measure(up).await,
            // The tunnel never stood; how it ended says why.
            _ => bail!("the tunnel did not come up"),
        };
        let way = way(&requests).await;
        let (answer, _) = oneshot::channel();
        let _ = requests.send((Request::Down, answer)).await;
        measured.map(|measured| (measured, way))
    };
    let (ended, measured) = tokio::join!(tunnel, measured);
    let ended = ended?;
    measured.with_context(|| format!("the tunnel ended: {}", ended.ending))
}

/// Which socket the client's packets leave through, and why.
async fn way(requests: &mpsc::Sender<Asked>) -> String {
    let (sender, answer) = oneshot::channel();
    let _ = requests.send((Request::Status, sender)).await;
    match answer.await {
        Ok(Answer::Tunnel(status)) => format!("{}: {}", status.fast_path, status.fast_path_reason),
        _ => String::new(),
    }
}

/// A progress bar and what moves it.
pub(super) struct Progress {
    bar: ProgressBar,
    ticker: Option<tokio::task::JoinHandle<()>>,
}

impl Progress {
    /// Moves for `span` on a terminal; hidden anywhere else, and when `is_quiet`.
    pub(super) fn start(label: &'static str, span: Duration, is_quiet: bool) -> Self {
        if is_quiet || !std::io::stderr().is_terminal() {
            return Self {
                bar: ProgressBar::hidden(),
                ticker: None,
            };
        }
        let bar = ProgressBar::new(span.as_millis() as u64);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(label);
        let ticking = bar.clone();
        let ticker = tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                ticking.set_position(ticking.elapsed().as_millis() as u64);
            }
        });
        Self {
            bar,
            ticker: Some(ticker),
        }
    }

    pub(super) fn stop(self) {
        if let Some(ticker) = self.ticker {
            ticker.abort();
        }
        self.bar.finish_and_clear();
    }
}

pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Runs blocking work beside the control loop.
pub(super) async fn in_thread<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result
        .with_context(|| format!("cannot {what}"))?
        .with_context(|| format!("cannot {what}"))
}

/// The server's process, told what to do line by line; it ends when its standard input closes.
struct ServerProcess {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl ServerProcess {
    fn start(data_plane: DataPlaneArguments) -> anyhow::Result<Self> {
        let mode = match data_plane.fast_path {
            FastPathMode::Auto => "auto",
            FastPathMode::Off => "off",
        };
        let mut process = Command::new("/proc/self/exe")
            .args(["demo", "--role", "server", "--fast-path", mode])
            .args(["--workers", &data_plane.workers.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server's process")?;
        let input = process.stdin.take();
        let Some(output) = process.stdout.take() else {
            bail!("the server has no output")
        };
        Ok(Self {
            process,
            input,
            output: BufReader::new(output),
        })
    }

    fn tell(&mut self, word: &str) -> anyhow::Result<()> {
        let Some(input) = &mut self.input else {
            bail!("the server's input is closed")
        };
        writeln!(input, "{word}").context("the server's process is gone")
    }

    fn expect(&mut self, word: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.trim_end() != word {
            let status = self.end();
            bail!(
                "the server's process did not get to \"{word}\"{}",
                match status {
                    Err(error) => format!(": {error}"),
                    Ok(()) => String::new(),
                }
            );
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        let status = self.process.wait()?;
        if !status.success() {
            bail!("the server's process ended with {status}; its error is above");
        }
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

fn run_server(data_plane: DataPlaneArguments) -> anyhow::Result<ExitCode> {
    namespaces::enter()?;
    print_line("entered");
    let mut go = String::new();
    std::io::stdin().lock().read_line(&mut go)?;
    if go.trim_end() != "go" {
        // The client gave up before the network stood.
        return Ok(ExitCode::SUCCESS);
    }
    runtime::block_on(serve(data_plane))??;
    Ok(ExitCode::SUCCESS)
}

async fn serve(data_plane: DataPlaneArguments) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    namespaces::configure(&netlink, SERVER_LINK, (SERVER_OUTER, OUTER_PREFIX_LEN)).await?;
    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    let (ready, is_ready) = oneshot::channel();
    let mut config = configuration::server()?;
    config.fast_path = data_plane.fast_path;
    config.split_directions = data_plane.workers > 1;
    let announce = async {
        if is_ready.await.is_err() {
            return Ok(());
        }
        let listener = std::net::TcpListener::bind((SERVER_INNER, throughput::PORT))
            .context("cannot listen inside the tunnel")?;
        std::thread::spawn(move || throughput::serve(&listener));
        print_line("ready");
        let _ = tokio::task::spawn_blocking(wait_for_end_of_input).await;
        let (answer, _) = oneshot::channel();
        let _ = requests.send((Request::Down, answer)).await;
        anyhow::Ok(())
    };
    let (served, announced) = tokio::join!(
        server::run(config, Log::default(), receiver, ready),
        announce
    );
    served?;
    announced
}

fn wait_for_end_of_input() {
    let mut rest = [0; 64];
    while matches!(std::io::stdin().lock().read(&mut rest), Ok(length) if length > 0) {}
}
