//! `pptp-fast status`: what runs, and how it is.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{fail, print_line, table};
use crate::driver::admin::{self, Answer, Request, ServerStatus, TunnelStatus};
use crate::driver::run_files;

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Show running tunnels and the server: state, addresses, traffic, loss.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast status\n  pptp-fast status office --json")]
pub(super) struct Status {
    /// Only this tunnel.
    name: Option<String>,
    /// One JSON object: `tunnels`, and `server` when one runs.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(&self) -> ExitCode {
        let tunnels: Vec<TunnelStatus> = match &self.name {
            Some(name) => match tunnel(name) {
                Some(status) => vec![status],
                None => {
                    let running = super::down::running();
                    return fail(format_args!("tunnel {name} is not running{running}"), 1);
                }
            },
            None => run_files::tunnels()
                .iter()
                .filter_map(|name| tunnel(name))
                .collect(),
        };
        let server = if self.name.is_none() { server() } else { None };
        if self.json {
            let status = serde_json::json!({ "tunnels": tunnels, "server": server });
            print_line(status);
        } else {
            show(&tunnels, server.as_ref());
        }
        ExitCode::SUCCESS
    }
}

fn tunnel(name: &str) -> Option<TunnelStatus> {
    match admin::ask(
        &run_files::tunnel_socket(name),
        &Request::Status,
        ANSWER_LIMIT,
    ) {
        Ok(Answer::Tunnel(status)) => Some(*status),
        _ => None,
    }
}

fn server() -> Option<ServerStatus> {
    match admin::ask(&run_files::server_socket(), &Request::Status, ANSWER_LIMIT) {
        Ok(Answer::Server(status)) => Some(status),
        _ => None,
    }
}

fn show(tunnels: &[TunnelStatus], server: Option<&ServerStatus>) {
    if tunnels.is_empty() && server.is_none() {
        print_line(
            "No tunnel and no server is running. Start one with: pptp-fast up NAME, or: pptp-fast \
             serve",
        );
    }
    if !tunnels.is_empty() {
        show_tunnels("TUNNEL", tunnels);
    }
    if let Some(server) = server {
        let count = server.sessions.len();
        let listen = server.listen.join(", ");
        print_line(format_args!(
            "Server (pid {}) listens on {listen}; {count} sessions",
            server.pid
        ));
        if count > 0 {
            show_tunnels("USER", &server.sessions);
        }
    }
}

fn show_tunnels(first: &str, tunnels: &[TunnelStatus]) {
    let head = [
        first,
        "STATE",
        "INTERFACE",
        "PEER",
        "LOCAL IP",
        "PEER IP",
        "CIPHER",
        "UP",
        "RECEIVED",
        "SENT",
        "LOST",
        "REORDERED",
        "DROPPED",
    ];
    let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = tunnels
        .iter()
        .map(|status| {
            vec![
                status.name.clone(),
                status.state.clone(),
                status.interface.clone(),
                status.peer.clone(),
                or_dash(&status.local_ip),
                or_dash(&status.peer_ip),
                or_dash(&status.cipher),
                status
                    .uptime_s
                    .map_or_else(|| "-".to_owned(), table::duration),
                table::bytes(status.received_bytes),
                table::bytes(status.sent_bytes),
                status.lost.to_string(),
                status.reordered.to_string(),
                status.dropped.to_string(),
            ]
        })
        .collect();
    table::print(&head, &rows);
    for status in tunnels {
        if let (Some(local), Some(peer)) = (&status.local_ipv6, &status.peer_ipv6) {
            let (name, interface) = (&status.name, &status.interface);
            print_line(format_args!(
                "{name}: IPv6 {local}, peer {peer} on {interface}"
            ));
        }
    }
    for status in tunnels.iter().filter(|status| status.state != "up") {
        let Some(why) = &status.last_ending else {
            continue;
        };
        let next = status.redial_in_s.map_or_else(String::new, |seconds| {
            format!("; next attempt in {seconds} s")
        });
        print_line(format_args!("{}: {why}{next}", status.name));
    }
}
