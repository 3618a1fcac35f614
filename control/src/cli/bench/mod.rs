//! `pptp-fast bench`: how fast this machine is at what the program does.

use std::process::ExitCode;

use clap::{Args, Subcommand};

mod crypto;
mod sessions;
mod tunnel;

/// Measure this machine.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pptp-fast bench crypto\n  pptp-fast bench tunnel\n  \
    pptp-fast bench sessions --count 1000"
)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Crypto(crypto::Crypto),
    Tunnel(tunnel::Tunnel),
    Sessions(Box<sessions::Sessions>),
}

impl Bench {
    pub(super) fn run(&self) -> ExitCode {
        match &self.what {
            What::Crypto(crypto) => crypto.run(),
            What::Tunnel(tunnel) => tunnel.run(),
            What::Sessions(sessions) => sessions.run(),
        }
    }
}
