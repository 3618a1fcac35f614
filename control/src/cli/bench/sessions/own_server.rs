//! Our own `serve` in a network namespace of its own, with a secret and an address for every
//! client, and a counterpart for traffic beside it. All of it ends with the process that measures.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::memory::Usage;
use crate::cli::demo::namespaces;
use crate::cli::print_line;
use crate::config::PPTP_PORT;
use crate::config::fast_path::FastPathMode;
use crate::driver::descriptors;
use crate::driver::netlink::Netlink;
use crate::driver::runtime;

const CLIENT_LINK: &str = "load-out";
const SERVER_LINK: &str = "serve-out";
const SERVER_OUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The clients' outer addresses are this one and those that follow it.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 0);
const OUTER_PREFIX_LEN: u8 = 16;
/// More neighbours than these the kernel forgets (net.ipv4.neigh.default.gc_thresh3).
pub(super) const SOURCES_MAX: u32 = 500;
const SERVER_INNER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const FIRST_INNER: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);

const SERVER_NAME: &str = "pptp-fast";
/// Name of client `{}`.
pub(super) const USER: &str = "user{}";
pub(super) const PASSWORD: &str = "bench-sessions";

const START_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What the server is to be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnConfig {
    pub count: u32,
    /// Of the traffic, for each client.
    pub streams: u32,
    pub sources: u32,
    pub workers: u16,
    pub fast_path: FastPathMode,
}

/// The running server.
pub(super) struct OwnServer {
    process: Child,
    dir: TempDir,
}

impl OwnServer {
    /// Enters a network namespace, starts the server in another and joins the two. To be called
    /// once, before there are threads.
    pub(super) fn start(config: OwnConfig) -> anyhow::Result<Self> {
        namespaces::enter()?;
        let dir = tempfile::tempdir().context("cannot make a directory for the server's files")?;
        write_files(dir.path(), config).context("cannot write the server's files")?;
        let process = Command::new("/proc/self/exe")
            .args(["bench", "sessions", "--role", "server", "--directory"])
            .arg(dir.path())
            .args(["--count", &config.count.to_string()])
            .args(["--streams", &config.streams.to_string()])
            .env("PPTP_FAST_RUN_DIR", dir.path())
            .env("PPTP_FAST_STATE_DIR", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server's process")?;
        let mut server = Self { process, dir };
        server.bring_up(config)?;
        Ok(server)
    }

    fn bring_up(&mut self, config: OwnConfig) -> anyhow::Result<()> {
        let output = self.process.stdout.take();
        let mut output = BufReader::new(output.context("the server has no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line.trim_end() != "entered" {
            bail!("the server's process could not start; its error is above");
        }
        runtime::block_on(join(self.process.id(), config.sources))??;
        let mut input = self.process.stdin.take();
        if let Some(input) = &mut input {
            writeln!(input, "go").context("the server's process is gone")?;
        }
        let began_at = Instant::now();
        while !self.log().contains("Listening for PPTP") {
            if let Some(status) = self.process.try_wait()? {
                bail!("the server ended with {status}; its error is above");
            }
            if began_at.elapsed() > START_LIMIT {
                bail!("the server does not listen after {START_LIMIT:?}; its error is above");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // What it allocates once is there; the first look is not to miss it.
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    pub(super) const fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(SERVER_OUTER, PPTP_PORT)
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        Usage::of(self.process.id()).ok()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.process.id()) else {
            return;
        };
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let began_at = Instant::now();
        while began_at.elapsed() < STOP_LIMIT {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The outer source addresses of the clients.
pub(super) fn sources(count: u32) -> Vec<Ipv4Addr> {
    let first = FIRST_SOURCE.to_bits();
    (0..count).map(|n| Ipv4Addr::from_bits(first + n)).collect()
}

fn write_files(dir: &Path, config: OwnConfig) -> std::io::Result<()> {
    let mut secrets = String::new();
    for n in 1..=config.count {
        let user = USER.replace("{}", &n.to_string());
        let _ = writeln!(secrets, "{user} {SERVER_NAME} {PASSWORD} *");
    }
    let path = dir.join("chap-secrets");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secrets.as_bytes())?;
    std::fs::write(dir.join("server.toml"), server_toml(dir, config))
}

fn server_toml(dir: &Path, config: OwnConfig) -> String {
    let OwnConfig { count, workers, .. } = config;
    let dir = dir.display();
    let last_inner = Ipv4Addr::from_bits(FIRST_INNER.to_bits() + count - 1);
    let fast_path = match config.fast_path {
        FastPathMode::Auto => "auto",
        FastPathMode::Off => "off",
    };
    format!(
        "[listen]\naddresses = [\"{SERVER_OUTER}\"]\n\
         [auth]\nname = \"{SERVER_NAME}\"\nrequire = [\"mschap-v2\"]\n\
         chap_secrets = \"{dir}/chap-secrets\"\n\
         [pool]\nlocal = \"{SERVER_INNER}\"\nremote = [\"{FIRST_INNER}-{last_inner}\"]\n\
         [limits]\nsessions_max = {count}\nconnections_per_peer_max = {count}\n\
         half_open_max = {count}\nhalf_open_calls_max = {count}\n\
         [timeouts]\nshutdown_s = 10\n\
         [dataplane]\nworkers = {workers}\nfast_path = \"{fast_path}\"\n\
         [log]\nfile = \"{dir}/server.log\"\n"
    )
}

async fn join(server_pid: u32, sources: u32) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    netlink
        .add_veth(CLIENT_LINK, SERVER_LINK, server_pid)
        .await?;
    let (loopback, _) = netlink.link("lo").await?;
    netlink.set_up(loopback, None).await?;
    let (index, _) = netlink.link(CLIENT_LINK).await?;
    for source in self::sources(sources) {
        netlink
            .add_address(index, source, None, OUTER_PREFIX_LEN)
            .await?;
    }
    netlink.set_up(index, None).await?;
    Ok(())
}

/// The server's process, up to the point where it becomes `serve`.
pub(super) fn become_server(dir: &Path, count: u32, streams: u32) -> anyhow::Result<ExitCode> {
    set_pdeathsig(Signal::SIGTERM)?;
    namespaces::enter()?;
    print_line("entered");
    let mut go = String::new();
    std::io::stdin().lock().read_line(&mut go)?;
    if go.trim_end() != "go" {
        return Ok(ExitCode::SUCCESS);
    }
    runtime::block_on(configure())??;
    // The counterpart has one for each stream, the server one for each client.
    descriptors::provide(u64::from(count), u64::from(streams))?;
    Command::new("/proc/self/exe")
        .args(["bench", "sessions", "--role", "counterpart"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the counterpart for traffic")?;
    let error = Command::new("/proc/self/exe")
        .arg("serve")
        .arg("--config")
        .arg(dir.join("server.toml"))
        .stdin(Stdio::null())
        .exec();
    Err(error).context("cannot become the server")
}

/// The counterpart beside our own server, which started it.
pub(super) fn answer_until_it_ends() -> anyhow::Result<ExitCode> {
    set_pdeathsig(Signal::SIGTERM)?;
    super::answer_forever()
}

async fn configure() -> anyhow::Result<()> {
    let outer = (SERVER_OUTER, OUTER_PREFIX_LEN);
    Ok(namespaces::configure(&Netlink::open()?, SERVER_LINK, outer).await?)
}
