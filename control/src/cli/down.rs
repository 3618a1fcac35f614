//! `pptp-fast down`: ends running tunnels in order.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{fail, print_line};
use crate::driver::admin::{self, Request};
use crate::driver::{client, run_files, runtime};

/// An orderly end takes a few round trips; a peer that does not answer makes it wait for timers.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// End a tunnel in order: the peer is told, the interface goes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast down office\n  pptp-fast down --all")]
pub(super) struct Down {
    /// Name of the tunnel.
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// Every tunnel that runs.
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl Down {
    pub(super) fn run(&self) -> ExitCode {
        let names = self.name.clone().map_or_else(all, |name| vec![name]);
        let mut worst = ExitCode::SUCCESS;
        for name in names {
            if let Err(message) = end(&name) {
                worst = fail(message, 1);
            } else {
                print_line(format_args!("Tunnel {name} is down."));
            }
        }
        worst
    }
}

fn end(name: &str) -> Result<(), String> {
    let socket = run_files::tunnel_socket(name);
    match admin::ask(&socket, &Request::Down, ANSWER_LIMIT) {
        // A process that ends before its answer has gone out has ended all the same.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            let _ = std::fs::remove_file(&socket);
            repair(name)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(format!(
            "not allowed to end tunnel {name}: run this as the user who started it, or with sudo"
        )),
        Err(error) => Err(format!("tunnel {name} does not answer: {error}")),
    }
}

/// Every tunnel that runs, or that was killed and has left something.
fn all() -> Vec<String> {
    let mut names = run_files::tunnels();
    names.extend(run_files::tunnels_with_leftovers());
    names.sort();
    names.dedup();
    names
}

/// Undoes what a killed process has left.
fn repair(name: &str) -> Result<(), String> {
    match runtime::block_on(client::repair(name)) {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(format!("tunnel {name} is not running{}", running())),
        Ok(Err(why)) => Err(why),
        Err(error) => Err(error.to_string()),
    }
}

/// What does run, for someone who mistyped a name.
pub(super) fn running() -> String {
    let names = run_files::tunnels();
    if names.is_empty() {
        return "; none is. Start one with: pptp-fast up NAME".to_owned();
    }
    format!("; running: {}", names.join(", "))
}
