//! What a tunnel changes on its host that does not go with its process: written down before it is
//! done, so that `down` or the next start can undo it after the process was killed.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::super::log::Log;
use super::super::netlink::{Netlink, RouteEntry};
use super::super::{name_servers, run_files};
use super::kill_switch::{self, Passage};

/// One tunnel's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Leftovers {
    /// Routes that do not go through the tunnel: the others went with its interface.
    pub routes: Vec<RouteEntry>,
    /// The kill switch lets this through.
    pub kill_switch: Option<Servers>,
    /// Name servers were set for this interface.
    pub name_servers: Option<String>,
    /// Files that say that the process runs.
    pub files: Vec<PathBuf>,
}

/// A server as it was resolved before the kill switch closed the way to other name servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Servers {
    pub name: String,
    pub addresses: Vec<Ipv4Addr>,
    pub port: u16,
    /// The tunnel's own.
    pub interface: String,
}

/// The record of a running tunnel.
#[derive(Debug)]
pub(super) struct Record {
    tunnel: String,
    path: PathBuf,
    leftovers: Leftovers,
}

impl Record {
    /// What is on record of a tunnel that does not run; nothing when it ended in order.
    pub(super) fn open(tunnel: &str) -> Self {
        let path = run_files::leftovers(tunnel);
        let leftovers = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            tunnel: tunnel.to_owned(),
            path,
            leftovers: leftovers.unwrap_or_default(),
        }
    }

    pub(super) const fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// Changes the record; it is on disk before this returns.
    ///
    /// # Errors
    /// When the run directory cannot be written.
    pub(super) fn note(&mut self, change: impl FnOnce(&mut Leftovers)) -> io::Result<()> {
        change(&mut self.leftovers);
        if self.leftovers == Leftovers::default() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let next = self.path.with_extension("next");
        fs::write(&next, serde_json::to_vec(&self.leftovers)?)?;
        fs::rename(&next, &self.path)
    }

    /// Undoes what is on record, but for the kill switch.
    pub(super) async fn repair(&mut self, netlink: &Netlink, log: &Log) {
        let found = std::mem::take(&mut self.leftovers);
        for route in &found.routes {
            log.line(&format!("Route: {route} was left behind; removed"));
            netlink.remove_route(route).await;
        }
        if let Some(interface) = &found.name_servers {
            log.line("Name servers were left behind; restored");
            name_servers::restore(&self.tunnel, interface, log).await;
        } else if matches!(name_servers::repair(), Ok(true)) {
            log.line("Name servers were left behind; restored");
        }
        for file in &found.files {
            let _ = fs::remove_file(file);
        }
        let _ = self.note(|left| left.kill_switch = found.kill_switch);
    }

    /// Closes every way but that of this tunnel, and those of others with a kill switch. It is on
    /// record before.
    pub(super) fn close_kill_switch(&mut self, servers: Servers) -> io::Result<()> {
        let _lock = lock()?;
        self.note(|left| left.kill_switch = Some(servers))?;
        self.exchange_kill_switch(true)
    }

    /// Opens what the kill switch of this tunnel closed: all ways, when it was the last.
    pub(super) fn open_kill_switch(&mut self) -> io::Result<()> {
        if self.leftovers.kill_switch.is_none() {
            return Ok(());
        }
        let _lock = lock()?;
        self.exchange_kill_switch(false)?;
        self.note(|left| left.kill_switch = None)
    }

    /// Makes the kill switch of all tunnels on record, with or without this one.
    fn exchange_kill_switch(&self, with_own: bool) -> io::Result<()> {
        let others = run_files::tunnels_with_leftovers()
            .into_iter()
            .filter(|name| *name != self.tunnel)
            .filter_map(|name| Self::open(&name).leftovers.kill_switch);
        let own = self.leftovers.kill_switch.clone().filter(|_| with_own);
        let passages: Vec<Passage> = others
            .chain(own)
            .map(|servers| Passage {
                interface: servers.interface,
                servers: servers.addresses,
                port: servers.port,
            })
            .collect();
        kill_switch::let_through(&passages)
    }
}

/// One process at a time changes what tunnels have in common.
fn lock() -> io::Result<Flock<fs::File>> {
    let directory = fs::File::open(run_files::run_dir())?;
    Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Undoes what a killed process of this tunnel has left, all of it; whether there was anything.
///
/// # Errors
/// What cannot be undone, in words.
pub async fn repair(tunnel: &str) -> Result<bool, String> {
    let mut record = Record::open(tunnel);
    if *record.leftovers() == Leftovers::default() {
        return Ok(false);
    }
    let netlink = Netlink::open().map_err(|error| error.to_string())?;
    record.repair(&netlink, &Log::default()).await;
    record
        .open_kill_switch()
        .map_err(|error| format!("cannot remove the kill switch: {error}"))?;
    Ok(true)
}
