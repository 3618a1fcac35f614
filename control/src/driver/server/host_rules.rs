//! What the host does with clients' packets while the server runs: forwarding, address translation,
//! and whether clients reach each other. Nothing of it is there before or after.
//!
//! ```text
//! table inet pptp-fast-PORT {              flags owner: it goes when our socket closes
//!     set tunnels { type ifname }          our TUN devices, and nobody else's
//!     chain forward {                      client_to_client = false
//!         type filter hook forward priority 0; policy accept;
//!         iifname @tunnels oifname @tunnels drop
//!     }
//!     chain postrouting {                  nat = true, or an interface
//!         type nat hook postrouting priority 100; policy accept;
//!         iifname @tunnels oifname != @tunnels masquerade
//!     }
//! }
//! ```
//!
//! The kernel deletes the table of a process that is killed (`NFT_TABLE_F_OWNER`, Linux 5.12), and
//! nobody but its owner can change it. `net.ipv4.ip_forward` has no owner: that it was off is
//! written down before it is switched on, so that the next start knows, and its end restores it.
//!
//! A server that hands its sessions over to another process calls [`HostRules::hand_over`]: the
//! other has opened its own table by then, and restores the switch at its own end. While both
//! tables are there, a connection is translated once all the same.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rtnetlink::sys::Socket;
use thiserror::Error;

use crate::config::server::ServerConfig;
use crate::config::traffic::{HostConfig, Nat};
use crate::driver::namespace::{self, NamespaceError};
use crate::driver::nftables::message::{
    self, APPEND, Attributes, Batch, CREATE, DELETE_ELEMENT, DROP, Family, NEW_CHAIN, NEW_ELEMENT,
    NEW_RULE, NEW_SET, NEW_TABLE, OWNED_TABLE_PREFIX, TABLE_OWNED,
};
use crate::driver::run_files;

/// The switch: of the network namespace of who opens it.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const TUNNELS: &str = "tunnels";
/// Octets of an interface's name in a register.
const NAME_OCTETS: usize = 16;

/// What the host cannot be made to do.
#[derive(Debug, Error)]
pub enum HostRulesError {
    /// The operator: the namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The machine or its administrator: a table.
    #[error(
        "cannot make a table of nftables for client_to_client and nat of [traffic]: {0}. It needs \
         Linux 5.12 with nf_tables, and for nat nft_masq"
    )]
    Table(io::Error),
    /// The machine or its administrator: the switch.
    #[error(
        "cannot switch forwarding on in {IP_FORWARD}: {0}. Do it elsewhere, and take forwarding out \
         of [traffic]"
    )]
    Forwarding(io::Error),
    /// The machine or its administrator: the disk.
    #[error("cannot write down in {path} that forwarding was off: {cause}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Operating system's words.
        cause: io::Error,
    },
}

/// What has been set up; taken away when it is dropped.
#[derive(Default)]
pub(super) struct HostRules {
    table: Option<Table>,
    forwarding: Option<Forwarding>,
}

impl HostRules {
    /// Sets up what the configuration asks for, in the network namespace where tunnels end, and
    /// undoes what a killed process has left.
    pub(super) fn open(config: &ServerConfig) -> Result<Self, HostRulesError> {
        let place = config.netns.as_deref().map(namespace::path_of);
        let host = &config.traffic.host;
        let set_up = || {
            let table = Table::open(host).map_err(HostRulesError::Table)?;
            let forwarding = Forwarding::open(host.forwarding)?;
            Ok(Self { table, forwarding })
        };
        namespace::inside(place.as_deref(), set_up)?
    }

    /// The rules count for this device, too.
    pub(super) fn add_device(&mut self, name: &str) -> io::Result<()> {
        self.table
            .as_mut()
            .map_or(Ok(()), |table| table.change(NEW_ELEMENT, CREATE, name))
    }

    /// They do not any more.
    pub(super) fn remove_device(&mut self, name: &str) -> io::Result<()> {
        self.table
            .as_mut()
            .map_or(Ok(()), |table| table.change(DELETE_ELEMENT, 0, name))
    }

    /// Leaves the switch as it is, for the process that takes the sessions over.
    #[expect(dead_code, reason = "for who hands sessions over to another process")]
    pub(super) fn hand_over(&mut self) {
        if let Some(forwarding) = &mut self.forwarding {
            forwarding.record = None;
        }
    }
}

/// Forwarding that is on, and was off.
struct Forwarding {
    switch: File,
    /// That it was off; `None` when it was not our doing.
    record: Option<PathBuf>,
}

impl Forwarding {
    /// `None` when there is nothing to restore.
    fn open(is_wanted: bool) -> Result<Option<Self>, HostRulesError> {
        let path = run_files::server_forwarding();
        let was_left = path.exists();
        if !is_wanted && !was_left {
            return Ok(None);
        }
        let switch = File::options()
            .read(true)
            .write(true)
            .open(IP_FORWARD)
            .map_err(HostRulesError::Forwarding)?;
        let is_on = read_switch(&switch).map_err(HostRulesError::Forwarding)?;
        if is_on && !was_left {
            return Ok(None);
        }
        let this = Self {
            switch,
            record: Some(path.clone()),
        };
        if !is_wanted {
            // Dropped, and so restored.
            return Ok(None);
        }
        write_record(&path).map_err(|cause| HostRulesError::Record { path, cause })?;
        turn_switch(&this.switch, b"1\n").map_err(HostRulesError::Forwarding)?;
        Ok(Some(this))
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            // The file was opened in its namespace, and means that for ever.
            let restored = turn_switch(&self.switch, b"0\n");
            if restored.is_ok() {
                let _ = fs::remove_file(record);
            }
        }
    }
}

/// The kernel passes over what is not written at the beginning (`kernel.sysctl_writes_strict`).
fn turn_switch(switch: &File, to: &[u8]) -> io::Result<()> {
    switch.write_all_at(to, 0)
}

fn read_switch(switch: &File) -> io::Result<bool> {
    let mut octets = [0; 8];
    let len = switch.read_at(&mut octets, 0)?;
    Ok(octets
        .get(..len)
        .is_some_and(|octets| !octets.starts_with(b"0")))
}

fn write_record(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, "net.ipv4.ip_forward was 0\n")
}

/// The table, as long as this lives.
struct Table {
    socket: Socket,
    name: String,
    sequence: u32,
}

impl Table {
    /// `None` when nothing needs it.
    fn open(host: &HostConfig) -> io::Result<Option<Self>> {
        if !host.needs_table() {
            return Ok(None);
        }
        let (socket, port) = message::open()?;
        let mut this = Self {
            socket,
            name: format!("{OWNED_TABLE_PREFIX}{port}"),
            sequence: 0,
        };
        this.commit(|name, batch| create(name, host, batch))?;
        Ok(Some(this))
    }

    fn change(&mut self, kind: u16, flags: u16, device: &str) -> io::Result<()> {
        self.commit(|table, batch| {
            batch.message(kind, flags, |out| {
                out.text(1, table);
                out.text(2, TUNNELS);
                out.nest(3, |out| {
                    out.nest(1, |out| out.nest(1, |out| out.value(1, &padded(device))));
                });
            });
        })
    }

    /// Does all of it or nothing.
    fn commit(&mut self, fill: impl FnOnce(&str, &mut Batch)) -> io::Result<()> {
        let mut batch = Batch::new(Family::Inet, self.sequence);
        fill(&self.name, &mut batch);
        self.sequence = batch.last();
        batch.commit(&self.socket)
    }
}

fn create(table: &str, host: &HostConfig, batch: &mut Batch) {
    batch.message(NEW_TABLE, CREATE, |out| {
        out.text(1, table);
        out.number(2, TABLE_OWNED);
    });
    batch.message(NEW_SET, CREATE, |out| put_set(out, table));
    if !host.client_to_client {
        put_chain(batch, table, &FORWARD);
        put_rule(batch, table, &FORWARD, |out| {
            out.load_meta(IN_NAME);
            out.look_up(TUNNELS, true);
            out.load_meta(OUT_NAME);
            out.look_up(TUNNELS, true);
            out.verdict(DROP);
        });
    }
    if host.nat == Nat::Off {
        return;
    }
    put_chain(batch, table, &POSTROUTING);
    put_rule(batch, table, &POSTROUTING, |out| {
        out.load_meta(IN_NAME);
        out.look_up(TUNNELS, true);
        out.load_meta(OUT_NAME);
        match &host.nat {
            Nat::Through(name) => out.compare(&padded(name)),
            Nat::Everywhere | Nat::Off => out.look_up(TUNNELS, false),
        }
        out.expression("masq", |_| {});
    });
}

/// `NFT_META_IIFNAME`, which a chain behind the routing has since Linux 5.7.
const IN_NAME: u32 = 6;
/// `NFT_META_OIFNAME`.
const OUT_NAME: u32 = 7;

/// A base chain (`linux/netfilter.h`, `linux/netfilter_ipv4.h`).
struct Chain {
    name: &'static str,
    kind: &'static str,
    hook: u32,
    priority: u32,
}

/// `NF_INET_FORWARD`, `NF_IP_PRI_FILTER`.
const FORWARD: Chain = Chain {
    name: "forward",
    kind: "filter",
    hook: 2,
    priority: 0,
};
/// `NF_INET_POST_ROUTING`, `NF_IP_PRI_NAT_SRC`.
const POSTROUTING: Chain = Chain {
    name: "postrouting",
    kind: "nat",
    hook: 4,
    priority: 100,
};

fn put_set(out: &mut Attributes, table: &str) {
    // For people: `ifname` to `nft`.
    const KEY_TYPE: u32 = 41;
    out.text(1, table);
    out.text(2, TUNNELS);
    out.number(3, 0);
    out.number(4, KEY_TYPE);
    out.number(5, NAME_OCTETS as u32);
    out.number(10, 1);
}

fn put_chain(batch: &mut Batch, table: &str, chain: &Chain) {
    batch.message(NEW_CHAIN, CREATE, |out| {
        out.text(1, table);
        out.text(3, chain.name);
        out.nest(4, |out| {
            out.number(1, chain.hook);
            out.number(2, chain.priority);
        });
        out.text(7, chain.kind);
    });
}

fn put_rule(batch: &mut Batch, table: &str, chain: &Chain, fill: impl FnOnce(&mut Attributes)) {
    batch.message(NEW_RULE, CREATE | APPEND, |out| {
        out.text(1, table);
        out.text(2, chain.name);
        out.nest(4, fill);
    });
}

fn padded(name: &str) -> [u8; NAME_OCTETS] {
    let mut octets = [0; NAME_OCTETS];
    for (octet, given) in octets.iter_mut().zip(name.bytes().take(NAME_OCTETS - 1)) {
        *octet = given;
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_a_register_and_end_in_a_zero() {
        assert_eq!(&padded("pptp0"), b"pptp0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(padded("a-name-that-is-too-long")[NAME_OCTETS - 1], 0);
    }

    #[test]
    fn nothing_is_set_up_that_nobody_asked_for() {
        assert!(Table::open(&HostConfig::default()).unwrap().is_none());
    }
}
