//! `pptp-fast bench sessions`: many clients against a PPTP server, ours or any other.

use std::net::{Ipv4Addr, SocketAddrV4, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum, value_parser};
use dataplane::impairment::Impairment;

use self::bar::SetUpBar;
use self::own_server::{OwnConfig, OwnServer};
use self::profile::Profile;
use self::report::{Report, ServerUsage};
use self::traffic::{Amount, Pattern};
use crate::cli::demo::{Progress, rounded};
use crate::cli::{fail, print_line};
use crate::config::PPTP_PORT;
use crate::config::fast_path::FastPathMode;
use crate::driver::load::{Load, LoadConfig};
use crate::driver::{descriptors, runtime};
use crate::proto::auth::Secret;

mod answer;
mod bar;
mod memory;
mod own_server;
mod profile;
mod report;
mod sources;
mod traffic;

/// For the tunnels to end in order.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Measure a PPTP server: log-ins, held tunnels, traffic, memory.
///
/// Without --server it starts our own in a network namespace, with an account and an address for
/// every client. Exit status 0 when every tunnel came up and none was lost.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast bench sessions --count 10000 --hold 60 --json\n  \
    pptp-fast bench sessions --count 1000 --traffic tcp --hold 10\n  \
    pptp-fast bench sessions --count 200 --traffic udp --packets-per-s 20000 --loss 1 --reorder 2\n  \
    pptp-fast bench sessions --server vpn.example.net --user 'test{}' --password-file pw \
    --count 100 --rate 20 --profile windows\n  \
    pptp-fast bench sessions --answer        (on the server's machine, for --traffic udp and tcp)"
)]
pub(super) struct Sessions {
    /// Tunnels.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=60_000))]
    count: u32,
    /// Log-ins a second; without it, as many as the server answers.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Log-ins under way at a time.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=60_000))]
    at_once: u32,
    /// Whose ways the clients have.
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// What flows while the tunnels are held.
    #[arg(long, value_enum, default_value_t)]
    traffic: Pattern,
    /// TCP streams through each tunnel (tcp, tcp-down).
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    streams: u32,
    /// How long the tunnels are held, with traffic, seconds.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(0..=86_400))]
    hold: u32,
    /// Packets a second over all tunnels (ping, udp); as many as tunnels unless given.
    #[arg(long, value_parser = positive)]
    packets_per_s: Option<f64>,
    /// Octets of payload of each of them.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u16).range(16..=1300))]
    packet_bytes: u16,
    /// Percentage of GRE packets that get lost, each way.
    #[arg(long, default_value_t = 0.0, value_parser = percentage)]
    loss: f64,
    /// Percentage of GRE packets that are overtaken, each way.
    #[arg(long, default_value_t = 0.0, value_parser = percentage)]
    reorder: f64,
    /// Outer source addresses: how many (of our own server's network), or which of this host's
    /// (`10.0.0.5-20,10.0.1.7`).
    #[arg(long)]
    sources: Option<sources::Sources>,
    /// Another server than our own: name or address, with a port when it is not 1723.
    #[arg(long, requires = "user")]
    server: Option<String>,
    /// Account of each client; `{}` is its number, from 1.
    #[arg(long)]
    user: Option<String>,
    /// Password of all of them; others on this machine can see it.
    #[arg(long)]
    password: Option<String>,
    /// File with the password.
    #[arg(long, conflicts_with = "password")]
    password_file: Option<PathBuf>,
    /// When a client is given up, seconds after its call.
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u32).range(1..=3600))]
    setup_timeout: u32,
    /// Threads that carry packets in our own server; 0 is one a core, but for the core that the
    /// clients' thread takes.
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u16).range(0..=64))]
    server_workers: u16,
    /// How GRE packets leave, at both ends.
    #[arg(long, value_enum, default_value_t = FastPathMode::Off)]
    fast_path: FastPathMode,
    /// Only be the counterpart of --traffic, on the server's machine.
    #[arg(long)]
    answer: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Which of the processes this is.
    #[arg(long, hide = true, value_enum, default_value_t = Role::Clients)]
    role: Role,
    /// Of our own server's files.
    #[arg(long, hide = true)]
    directory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Clients,
    Server,
    Counterpart,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 1e7 => Ok(number),
        _ => Err("a number above 0, at most 10000000, is needed".to_owned()),
    }
}

fn percentage(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=50.0).contains(&number) => Ok(number),
        _ => Err("a percentage from 0 to 50 is needed".to_owned()),
    }
}

impl Sessions {
    pub(super) fn run(&self) -> ExitCode {
        let result = match (self.role, &self.directory, self.answer) {
            (Role::Server, Some(directory), _) => {
                own_server::become_server(directory, self.count, self.streams)
            }
            (Role::Counterpart, ..) => own_server::answer_until_it_ends(),
            (_, _, true) => answer_forever(),
            _ => self.measure(),
        };
        result.unwrap_or_else(|error| fail(format_args!("{error:#}"), 1))
    }

    fn measure(&self) -> anyhow::Result<ExitCode> {
        let each = match self.traffic {
            Pattern::Tcp | Pattern::TcpDown => 1 + u64::from(self.streams),
            _ => 1,
        };
        descriptors::provide(u64::from(self.count), each)?;
        let own = match self.server {
            None => Some(OwnServer::start(self.own_config()?)?),
            Some(_) => None,
        };
        let config = self.load_config(own.as_ref())?;
        let report = runtime::block_on(self.load(config, own.as_ref()))??;
        drop(own);
        if self.json {
            print_line(serde_json::json!(report));
        } else {
            report.show();
        }
        let all_well = report.failed == 0 && report.lost == 0;
        Ok(if all_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn own_config(&self) -> anyhow::Result<OwnConfig> {
        let sources = match &self.sources {
            None => 1,
            Some(sources::Sources::Count(count)) if *count <= own_server::SOURCES_MAX => *count,
            Some(_) => anyhow::bail!(
                "our own server's network has up to {} --sources",
                own_server::SOURCES_MAX
            ),
        };
        Ok(OwnConfig {
            count: self.count,
            streams: self.streams,
            sources,
            workers: match self.server_workers {
                0 => cores_beside_ours(),
                workers => workers,
            },
            fast_path: self.fast_path,
        })
    }

    fn load_config(&self, own: Option<&OwnServer>) -> anyhow::Result<LoadConfig> {
        let server = match (own, &self.server) {
            (Some(own), _) => own.address(),
            (None, Some(name)) => resolve(name)?,
            (None, None) => anyhow::bail!("name a --server"),
        };
        let sources = match (&self.sources, own) {
            (None, _) => Vec::new(),
            (Some(sources::Sources::Count(count)), Some(_)) => own_server::sources(*count),
            (Some(sources::Sources::List(list)), _) => list.clone(),
            (Some(sources::Sources::Count(_)), None) => {
                anyhow::bail!("with --server, --sources must be addresses of this host")
            }
        };
        let per_million = |percent: f64| (percent * 10_000.0) as u32;
        let setup_timeout_ms = u64::from(self.setup_timeout) * 1000;
        Ok(LoadConfig {
            server,
            count: self.count as usize,
            rate: self.rate,
            at_once: self.at_once as usize,
            sources,
            user: self
                .user
                .clone()
                .unwrap_or_else(|| own_server::USER.to_owned()),
            link: self.profile.link(self.password()?, setup_timeout_ms),
            endpoint: self.profile.endpoint(self.count as usize),
            fast_path: self.fast_path,
            impairment: Impairment {
                lost_per_million: per_million(self.loss),
                reordered_per_million: per_million(self.reorder),
                seed: rand::random(),
            },
        })
    }

    fn password(&self) -> anyhow::Result<Secret> {
        let octets = match (&self.password_file, &self.password) {
            (Some(path), _) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                text.lines().next().unwrap_or_default().into()
            }
            (None, Some(password)) => password.as_bytes().to_vec(),
            (None, None) if self.server.is_none() => own_server::PASSWORD.into(),
            (None, None) => anyhow::bail!("give --password-file FILE, or --password"),
        };
        Ok(Secret::new(octets))
    }

    async fn load(&self, config: LoadConfig, own: Option<&OwnServer>) -> anyhow::Result<Report> {
        let server = config.server.to_string();
        let before = own.and_then(OwnServer::usage);
        let mut load = Load::start(config).await?;
        let bar = SetUpBar::start(self.count, self.json);
        load.establish(|tally| bar.show(tally)).await;
        bar.stop();
        let set_up = own.and_then(OwnServer::usage);
        let held_for = Duration::from_secs(u64::from(self.hold));
        let bar = Progress::start("held", held_for, self.json);
        let traffic = self.hold(&mut load, held_for).await?;
        bar.stop();
        let after = own.and_then(OwnServer::usage);
        let report = self.report(&load, server, traffic, [before, set_up, after]);
        load.stop(STOP_LIMIT).await;
        Ok(report)
    }

    async fn hold(
        &self,
        load: &mut Load,
        span: Duration,
    ) -> anyhow::Result<Option<traffic::Outcome>> {
        if self.traffic == Pattern::Idle || span.is_zero() {
            load.hold(tokio::time::sleep(span)).await;
            return Ok(None);
        }
        load.own_addresses().await?;
        let ends = load.networks();
        let amount = Amount {
            span,
            packets_per_s: self.packets_per_s.unwrap_or(ends.len() as f64),
            payload_bytes: usize::from(self.packet_bytes).next_multiple_of(2),
            streams_each: self.streams as usize,
        };
        let pattern = self.traffic;
        let work = tokio::task::spawn_blocking(move || traffic::run(pattern, &ends, amount));
        let outcome = load.hold(work).await.context("the traffic broke off")?;
        outcome.context("cannot make traffic")
    }

    fn report(
        &self,
        load: &Load,
        server: String,
        traffic: Option<traffic::Outcome>,
        [before, set_up, after]: [Option<memory::Usage>; 3],
    ) -> Report {
        let tally = load.tally();
        let (established, took) = (tally.established(), load.took());
        let logins_per_s = established as f64 / took.as_secs_f64().max(1e-6);
        let usage = before
            .zip(set_up)
            .zip(after)
            .map(|((before, set_up), after)| {
                ServerUsage::between(before, set_up, after, established)
            });
        Report {
            profile: self.profile.name(),
            server,
            count: self.count,
            established,
            failed: tally.failed(),
            lost: tally.lost(),
            logins_per_s: rounded(logins_per_s),
            setup_s: rounded(took.as_secs_f64()),
            phases_ms: report::phases(load),
            failures: tally.failures().clone(),
            losses: tally.losses().clone(),
            held_s: f64::from(self.hold),
            server_bytes_per_session: usage.and_then(|usage| usage.per_session(established)),
            server_usage: usage,
            traffic,
            drops: load.drops(),
            hints: report::hints(tally, self.count),
        }
    }
}

/// A server with a worker on every core shares one of them with the clients, who then send half as
/// fast as it could receive.
fn cores_beside_ours() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores.saturating_sub(1)).map_or(u16::MAX, |cores| cores.clamp(1, 64))
}

fn answer_forever() -> anyhow::Result<ExitCode> {
    answer::answer().context("cannot answer on port 5001")?;
    Ok(ExitCode::SUCCESS)
}

fn resolve(server: &str) -> anyhow::Result<SocketAddrV4> {
    if let Ok(address) = server.parse::<Ipv4Addr>() {
        return Ok(SocketAddrV4::new(address, PPTP_PORT));
    }
    let with_port = match server.contains(':') {
        true => server.to_owned(),
        false => format!("{server}:{PPTP_PORT}"),
    };
    let mut found = with_port
        .to_socket_addrs()
        .with_context(|| format!("cannot find the address of {server}"))?;
    let address = found.find_map(|address| match address {
        std::net::SocketAddr::V4(address) => Some(address),
        std::net::SocketAddr::V6(_) => None,
    });
    address.with_context(|| format!("{server} has no IPv4 address"))
}
