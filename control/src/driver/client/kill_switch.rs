//! `--kill-switch`: nothing leaves this host, or passes through it, but into tunnels that have one
//! and to their servers.
//!
//! It is a table of nf_tables with drop policies, so it outlives the process that made it: a kill
//! switch that goes with the process is none. Since a packet must be let through by every chain
//! that looks at it, tunnels have one table together. It is made anew, in one transaction, from the
//! records of all of them whenever one comes or goes. A tunnel goes from it when it was ended by
//! request, or never stood. What a lost tunnel or a killed process leaves there, `down` or the next
//! `up` of the same tunnel takes away.

use std::net::Ipv4Addr;

use super::super::nftables::{self, Chain, Hook, Match};

const GRE: u8 = 47;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const TABLE: &str = "pptp-fast-kill-switch";

/// What one tunnel may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passage {
    /// Everything may go through it.
    pub interface: String,
    /// The tunnel itself may go there, GRE and TCP to `port`.
    pub servers: Vec<Ipv4Addr>,
    pub port: u16,
}

/// Closes every way but these; without any, all ways are open.
pub(super) fn let_through(passages: &[Passage]) -> std::io::Result<()> {
    if passages.is_empty() {
        nftables::delete_table(TABLE)
    } else {
        nftables::replace_table(TABLE, &chains(passages))
    }
}

fn chains(passages: &[Passage]) -> Vec<Chain> {
    let through = |name: &str| vec![Match::Through(name.to_owned())];
    let mut output = vec![through("lo")];
    let mut forward = Vec::new();
    for passage in passages {
        let interface = &passage.interface;
        output.push(through(interface));
        for server in &passage.servers {
            let to = Match::To(*server);
            let port = Match::DestinationPort(passage.port);
            output.push(vec![to.clone(), Match::Protocol(GRE)]);
            output.push(vec![to, Match::Protocol(TCP), port]);
        }
        forward.push(through(interface));
        forward.push(vec![Match::From(interface.clone())]);
    }
    // Without its lease the host would lose the way to the servers. No ordinary program can send
    // from this port.
    output.push(vec![
        Match::Protocol(UDP),
        Match::SourcePort(DHCP_CLIENT),
        Match::DestinationPort(DHCP_SERVER),
    ]);
    let chain = |hook, rules| Chain { hook, rules };
    vec![chain(Hook::Output, output), chain(Hook::Forward, forward)]
}
