//! The two ends that every system runs between: two network namespaces joined by a virtual
//! Ethernet cable. They have no names, so they vanish with the processes that hold them, and
//! those die with this program: nothing is left after a failure, Ctrl-C or even SIGKILL.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{self, Process};

/// Outer addresses, on the cable.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Inner addresses, the same for every system.
pub(crate) const INNER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(crate) const INNER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The largest packet into a tunnel, octets, the same for every system.
pub(crate) const TUNNEL_MTU: u16 = 1400;

/// Both ends.
pub(crate) struct Namespaces {
    pub(crate) server: End,
    pub(crate) client: End,
}

/// One end: a network namespace, and a mount namespace with a `/run` of its own.
pub(crate) struct End {
    holder: Process,
}

impl Namespaces {
    /// Makes both ends and the cable; logs go to the folder `logs`.
    pub(crate) fn new(logs: &Path) -> Result<Self> {
        let server = End::new(&logs.join("server-end.log")).context("the server's namespaces")?;
        let client = End::new(&logs.join("client-end.log")).context("the client's namespaces")?;
        let client_pid = client.holder.pid().to_string();
        server.ip(&format!(
            "link add cable-s type veth peer name cable-c netns {client_pid}"
        ))?;
        server.ip(&format!("address add {SERVER}/24 dev cable-s"))?;
        client.ip(&format!("address add {CLIENT}/24 dev cable-c"))?;
        server.ip("link set cable-s up")?;
        client.ip("link set cable-c up")?;
        Ok(Self { server, client })
    }
}

impl End {
    fn new(log: &Path) -> Result<Self> {
        let script = "mount -t tmpfs run /run && ip link set lo up && echo ready \
            && exec sleep infinity";
        let mut command = process::command("unshare");
        command.args(["--net", "--mount", "--", "sh", "-c", script]);
        let mut holder = Process::start(&mut command, log)?;
        holder.wait_for("ready", Duration::from_secs(10))?;
        Ok(Self { holder })
    }

    /// A process that lives in this end.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// A command that will run in this end.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = process::command("nsenter");
        command
            .args(["--target", &self.holder.pid().to_string()])
            .args(["--net", "--mount", "--"])
            .arg(program);
        command
    }

    /// Runs `ip` with these words.
    pub(crate) fn ip(&self, words: &str) -> Result<String> {
        process::quick(self.command("ip").args(words.split_whitespace()))
    }
}
