//! `--kill-switch`: nothing leaves this host, or passes through it, but into the tunnel and to its
//! server.
//!
//! It is a table of nf_tables with drop policies, so it outlives the process that made it: a kill
//! switch that goes with the process is none. It is taken away when the tunnel was ended by
//! request, or never stood. What a lost tunnel or a killed process leaves, `down` or the next `up`
//! of the same tunnel takes away.

use std::net::Ipv4Addr;

use super::super::nftables::{self, Chain, Hook, Match};

const GRE: u8 = 47;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

/// The name of a tunnel's table.
fn table(tunnel: &str) -> String {
    format!("pptp-fast-{tunnel}")
}

/// Closes every way but those through `interface` and to `servers`.
pub(super) fn close(
    tunnel: &str,
    interface: &str,
    servers: &[Ipv4Addr],
    port: u16,
) -> std::io::Result<()> {
    nftables::replace_table(&table(tunnel), &chains(interface, servers, port))
}

/// Opens them again; that they are open is no error.
pub(super) fn open(tunnel: &str) -> std::io::Result<()> {
    nftables::delete_table(&table(tunnel))
}

fn chains(interface: &str, servers: &[Ipv4Addr], port: u16) -> Vec<Chain> {
    let through = |name: &str| vec![Match::Through(name.to_owned())];
    let mut output = vec![through("lo"), through(interface)];
    for server in servers {
        let to = Match::To(*server);
        output.push(vec![to.clone(), Match::Protocol(GRE)]);
        output.push(vec![to, Match::Protocol(TCP), Match::DestinationPort(port)]);
    }
    // Without its lease the host would lose the way to the server. No ordinary program can send
    // from this port.
    output.push(vec![
        Match::Protocol(UDP),
        Match::SourcePort(DHCP_CLIENT),
        Match::DestinationPort(DHCP_SERVER),
    ]);
    let forward = vec![through(interface), vec![Match::From(interface.to_owned())]];
    vec![
        Chain {
            hook: Hook::Output,
            rules: output,
        },
        Chain {
            hook: Hook::Forward,
            rules: forward,
        },
    ]
}
