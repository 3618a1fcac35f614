//! Just enough of nf_tables for a table whose chains drop everything but what its rules accept. A
//! table is made in one transaction: it is there whole, or not at all.

use std::io;
use std::net::Ipv4Addr;

pub(crate) mod message;

use message::{
    ACCEPT, APPEND, Attributes, Batch, CREATE, DELETE_TABLE, DROP, Family, NETWORK_HEADER,
    NEW_CHAIN, NEW_RULE, NEW_TABLE, REGISTER, TRANSPORT_HEADER,
};

const NFPROTO_IPV4: u8 = 2;
const PRIORITY_FILTER: u32 = 0;
/// Octets of an interface's name in a register.
const NAME_OCTETS: usize = 16;

/// Where a chain looks at packets (`linux/netfilter.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Between other interfaces.
    Forward,
    /// From this host.
    Output,
}

impl Hook {
    const fn number(self) -> u32 {
        match self {
            Self::Forward => 2,
            Self::Output => 3,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// It came through this interface.
    From(String),
    /// It leaves through this interface.
    Through(String),
    /// IPv4, to this host.
    To(Ipv4Addr),
    /// IPv4 or IPv6 with this protocol number.
    Protocol(u8),
    /// Of TCP or UDP.
    SourcePort(u16),
    /// Of TCP or UDP.
    DestinationPort(u16),
}

/// A chain that drops what no rule accepts. A rule accepts what fulfils all its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub hook: Hook,
    pub rules: Vec<Vec<Match>>,
}

/// Makes the table, in place of one with the same name.
///
/// # Errors
/// In the kernel's words; then nothing has changed.
pub(crate) fn replace_table(name: &str, chains: &[Chain]) -> io::Result<()> {
    let mut batch = Batch::new(Family::Inet, 0);
    // Making it when it is there changes nothing, so that it can be deleted in any case.
    for kind in [NEW_TABLE, DELETE_TABLE, NEW_TABLE] {
        batch.message(kind, CREATE, |out| out.text(1, name));
    }
    for chain in chains {
        batch.message(NEW_CHAIN, CREATE, |out| put_chain(out, name, chain.hook));
        for rule in &chain.rules {
            batch.message(NEW_RULE, CREATE | APPEND, |out| {
                put_rule(out, name, chain.hook, rule);
            });
        }
    }
    commit(batch)
}

/// Deletes the table; that there is none is no error.
///
/// # Errors
/// In the kernel's words.
pub(crate) fn delete_table(name: &str) -> io::Result<()> {
    let mut batch = Batch::new(Family::Inet, 0);
    for kind in [NEW_TABLE, DELETE_TABLE] {
        batch.message(kind, CREATE, |out| out.text(1, name));
    }
    commit(batch)
}

fn commit(batch: Batch) -> io::Result<()> {
    let (socket, _) = message::open()?;
    batch.commit(&socket)
}

fn put_chain(out: &mut Attributes, table: &str, hook: Hook) {
    out.text(1, table);
    out.text(3, hook.name());
    out.nest(4, |out| {
        out.number(1, hook.number());
        out.number(2, PRIORITY_FILTER);
    });
    out.number(5, DROP);
    out.text(7, "filter");
}

fn put_rule(out: &mut Attributes, table: &str, hook: Hook, conditions: &[Match]) {
    out.text(1, table);
    out.text(2, hook.name());
    out.nest(4, |out| {
        for condition in conditions {
            put_condition(out, condition);
        }
        out.verdict(ACCEPT);
    });
}

fn put_condition(out: &mut Attributes, condition: &Match) {
    const META_IIFNAME: u32 = 6;
    const META_OIFNAME: u32 = 7;
    const META_NFPROTO: u32 = 15;
    const META_L4PROTO: u32 = 16;
    let padded = |name: &str| {
        let mut octets = name.as_bytes().to_vec();
        octets.resize(NAME_OCTETS, 0);
        octets
    };
    let mut meta = |key: u32, value: &[u8]| {
        out.load_meta(key);
        out.compare(value);
    };
    let (header, offset, value) = match condition {
        Match::From(name) => return meta(META_IIFNAME, &padded(name)),
        Match::Through(name) => return meta(META_OIFNAME, &padded(name)),
        Match::Protocol(number) => return meta(META_L4PROTO, &[*number]),
        Match::To(host) => {
            meta(META_NFPROTO, &[NFPROTO_IPV4]);
            (NETWORK_HEADER, 16, host.octets().to_vec())
        }
        Match::SourcePort(port) => (TRANSPORT_HEADER, 0, port.to_be_bytes().to_vec()),
        Match::DestinationPort(port) => (TRANSPORT_HEADER, 2, port.to_be_bytes().to_vec()),
    };
    out.load(header, offset, value.len() as u32, REGISTER);
    out.compare(&value);
}
