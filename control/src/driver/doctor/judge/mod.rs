//! From what was seen to what it means: one function a phase, each with causes and remedies.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::ear::Heard;
use super::firewall::{Helper, Obstacle, Stops, Way};
use super::observe::Observed;
use super::report::{Finding, Phase, Status};
use crate::config::client::ClientConfig;
use crate::proto::ending::Ending;

mod control;
mod gre;
mod link;

/// All there is to judge by.
pub(super) struct Case<'a> {
    pub(super) config: &'a ClientConfig,
    pub(super) has_password: bool,
    pub(super) address: Ipv4Addr,
    pub(super) local: Ipv4Addr,
    /// The server is on the same network.
    pub(super) is_neighbour: bool,
    pub(super) timeout: Duration,
    pub(super) observed: &'a Observed,
    pub(super) heard: &'a Heard,
    /// `None`: the rules cannot be read.
    pub(super) obstacles: Option<&'a [Obstacle]>,
    pub(super) helper: Helper,
    /// GRE packets that the kernel did not take.
    pub(super) send_refused: u64,
    /// GRE packets that the worker received.
    pub(super) worker_received: u64,
}

impl Case<'_> {
    /// What a phase of the negotiation has come to; with `ending`, it is the one that failed.
    pub(super) fn judge(&self, phase: Phase, ending: Option<&Ending>) -> Finding {
        let finding = match phase {
            Phase::Tcp => self.tcp(ending),
            Phase::Control => self.control(ending),
            Phase::Call => self.call(ending),
            Phase::Gre => self.gre(ending),
            Phase::Lcp => self.lcp(ending),
            Phase::Authentication => self.authentication(ending),
            Phase::Encryption => self.encryption(ending),
            _ => self.addresses(ending),
        };
        // What was not foreseen is said in the words of `up`, which name a remedy themselves.
        match ending {
            Some(ending) if finding.cause.is_none() && finding.status == Status::Failed => {
                finding.because(ending.to_string())
            }
            _ => finding,
        }
    }

    fn obstacle(&self, stops: Stops, way: Way) -> Option<&Obstacle> {
        let mut all = self.obstacles.unwrap_or(&[]).iter();
        all.find(|it| it.stops == stops && it.way == way)
    }

    /// `ADDRESS:PORT`.
    fn endpoint(&self) -> String {
        format!("{}:{}", self.address, self.config.port)
    }

    /// How `up` is called for this server.
    fn up(&self) -> String {
        up_command(self.config)
    }

    fn peers_file(&self) -> Option<String> {
        let name = self.config.call_file.as_ref()?;
        let file = self.config.scripts_dir.join("peers").join(name);
        Some(file.display().to_string())
    }

    /// Adds how an option is set: a line of the peers file, or a flag.
    fn with_option(&self, finding: Finding, line: &str, flag: &str) -> Finding {
        match self.peers_file() {
            Some(file) => finding.advise(format!("put the line `{line}` into {file}")),
            None => finding.command(format!("{} {flag}", self.up())),
        }
    }
}

impl Finding {
    /// The cause is a rule of this host's own firewall, and the remedy a command.
    fn because_of(self, rule: &Obstacle) -> Self {
        let cause = format!("a rule of this host {}: {}", rule.words(), rule.rule);
        self.because(cause).command(&rule.command)
    }
}

/// How `up` is called for the tunnel that is examined.
pub(super) fn up_command(config: &ClientConfig) -> String {
    match &config.call_file {
        Some(name) => format!("pptp-fast up {name}"),
        None => format!(
            "pptp-fast up --server {} --user {}",
            config.server, config.link.name
        ),
    }
}
