//! The systems that are compared: one file each, all behind one trait.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespaces::{End, INNER_CLIENT, INNER_SERVER, Namespaces, TUNNEL_MTU};
use crate::process::{self, Process};

mod bare;
mod how_to;
mod kernel_pptp;
mod openvpn;
mod pptp_fast;
mod wireguard;

/// Each program has this long to be ready.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// A system under measurement.
pub(crate) trait System {
    /// Its name, as `--only` and the report have it.
    fn name(&self) -> &'static str;

    /// What it is, for a reader of the report.
    fn description(&self) -> &'static str;

    /// Its version; an error says why it cannot be measured here.
    fn version(&self, place: &Place) -> Result<String>;

    /// Brings up a tunnel between the two ends.
    fn start(&self, namespaces: &Namespaces, place: &Place) -> Result<Tunnel>;
}

/// Where programs are found and files are kept.
#[derive(Debug)]
pub(crate) struct Place {
    /// Programs that are installed for this comparison alone.
    pub(crate) tools: PathBuf,
    /// The pptp-fast under measurement.
    pub(crate) pptp_fast: PathBuf,
    /// Keys, configuration and logs.
    pub(crate) work: PathBuf,
}

impl Place {
    pub(crate) fn find(&self, program: &str) -> Result<PathBuf> {
        process::find(program, &self.tools)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.log"))
    }

    /// A folder of one system's own.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.work.join(name);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

/// A tunnel that stands; dropping it ends its programs, the client's first.
pub(crate) struct Tunnel {
    /// The server's address as seen through the tunnel.
    pub(crate) server: Ipv4Addr,
    /// What was started, as a person would type it.
    pub(crate) commands: Vec<String>,
    processes: Vec<Process>,
    /// Run when the programs have ended.
    afterwards: Vec<Command>,
}

impl Tunnel {
    fn new(server: Ipv4Addr) -> Self {
        Self {
            server,
            commands: Vec::new(),
            processes: Vec::new(),
            afterwards: Vec::new(),
        }
    }

    /// Has a command run when all programs have ended.
    fn afterwards(&mut self, command: Command) {
        self.afterwards.push(command);
    }

    /// Starts a program that belongs to the tunnel; those started last are ended first.
    fn start(&mut self, command: &mut Command, log: &Path) -> Result<&mut Process> {
        self.commands.push(words(command));
        self.processes.insert(0, Process::start(command, log)?);
        Ok(&mut self.processes[0])
    }

    /// An error when one of the programs has ended by itself.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        self.processes
            .iter_mut()
            .try_for_each(Process::check_running)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.processes.drain(..).for_each(drop);
        for command in &mut self.afterwards {
            if let Err(error) = process::quick(command) {
                eprintln!("  trouble: {error:#}");
            }
        }
    }
}

/// What a command was started as, without the words that put it into an end.
fn words(command: &Command) -> String {
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    let own = words
        .iter()
        .rposition(|word| word == "--")
        .map_or(0, |index| index + 1);
    let program = words[own].rsplit('/').next().unwrap_or_default();
    let all: Vec<&str> = std::iter::once(program)
        .chain(words[own + 1..].iter().map(AsRef::as_ref))
        .collect();
    process::from_here(&all.join(" "))
}

/// Gives both ends' `interface` their addresses inside the tunnel and its MTU, and sets them up.
fn set_addresses(namespaces: &Namespaces, interface: &str) -> Result<()> {
    for (end, own, peer) in [
        (&namespaces.server, INNER_SERVER, INNER_CLIENT),
        (&namespaces.client, INNER_CLIENT, INNER_SERVER),
    ] {
        end.ip(&format!("address add {own} peer {peer} dev {interface}"))?;
        end.ip(&format!("link set {interface} mtu {TUNNEL_MTU} up"))?;
    }
    Ok(())
}

/// Writes a file that only its owner can read.
fn write_secret(file: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut opened = options
        .open(file)
        .with_context(|| format!("cannot write {}", file.display()))?;
    opened.write_all(text.as_bytes())?;
    Ok(())
}

/// Waits until a ping through the tunnel comes back.
pub(crate) fn wait_for_ping(client: &End, server: Ipv4Addr) -> Result<()> {
    let mut command = client.command("ping");
    // Ends with the fifth reply, so that what follows finds a warm tunnel, or at the deadline.
    command
        .args(["-n", "-q", "-i", "0.1", "-c", "5", "-w", "10"])
        .arg(server.to_string());
    process::quick(&mut command).context("no ping comes back through the tunnel")?;
    Ok(())
}

/// All systems that can be asked for; those without a tunnel and of today's kind come first.
pub(crate) fn all() -> Vec<Box<dyn System>> {
    let ours = pptp_fast::VARIANTS.iter();
    let others: [Box<dyn System>; 8] = [
        Box::new(wireguard::GOTATUN),
        Box::new(wireguard::GOTATUN_0_8_1),
        Box::new(wireguard::BORINGTUN),
        Box::new(wireguard::WIREGUARD_GO),
        Box::new(openvpn::OpenVpn),
        Box::new(how_to::HowTo),
        Box::new(kernel_pptp::KernelPptp),
        Box::new(bare::Bare),
    ];
    ours.map(|variant| Box::new(variant) as Box<dyn System>)
        .chain(others)
        .collect()
}
