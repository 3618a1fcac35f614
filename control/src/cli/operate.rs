//! `pptp-fast pool`, `reload` and `drain`: a running server and its configuration.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::operator::{Server, unexpected};
use super::{fail, print_line, table, warn};
use crate::driver::admin::Answer;
use crate::driver::admin::records::{Order, PoolRecord, Progress, SessionRecord};

/// How often draining is looked at.
const PAUSE: Duration = Duration::from_millis(500);

/// Show the address pools of the server, and who has which address.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast pool\n  pptp-fast pool --leases")]
pub(super) struct Pool {
    /// Also every address that is given, and to whom.
    #[arg(long)]
    leases: bool,
    /// One JSON object, with leases.
    #[arg(long)]
    json: bool,
}

impl Pool {
    pub(super) fn run(&self) -> ExitCode {
        let shown = self.show();
        shown.map_or_else(|message| fail(message, 1), |()| ExitCode::SUCCESS)
    }

    fn show(&self) -> Result<(), String> {
        let mut server = Server::reach()?;
        let Answer::Pools { pools } = server.order(Order::Pools)? else {
            return Err(unexpected());
        };
        let leases = if self.leases || self.json {
            server.sessions()?
        } else {
            Vec::new()
        };
        if self.json {
            let pools: Vec<_> = pools.iter().map(as_json).collect();
            let leases: Vec<_> = leases.iter().filter_map(lease).collect();
            print_line(serde_json::json!({ "pools": pools, "leases": leases }));
            return Ok(());
        }
        let rows = pools.iter().map(|pool| {
            let numbers = [pool.size, pool.used, pool.free].map(|number| number.to_string());
            let name = pool.name.clone();
            [vec![name], numbers.to_vec(), vec![pool.ranges.clone()]].concat()
        });
        table::print(
            &["POOL", "SIZE", "USED", "FREE", "RANGES"],
            &rows.collect::<Vec<_>>(),
        );
        if self.leases {
            let rows = leases.iter().filter_map(|session| {
                let ip = session.ip.clone()?;
                let user = super::sessions::columns::printable(&session.user);
                Some(vec![ip, user, session.peer.clone(), session.sid.clone()])
            });
            print_line("");
            table::print(
                &["ADDRESS", "USER", "PEER", "SID"],
                &rows.collect::<Vec<_>>(),
            );
        }
        Ok(())
    }
}

fn as_json(pool: &PoolRecord) -> serde_json::Value {
    serde_json::to_value(pool).unwrap_or_default()
}

fn lease(session: &SessionRecord) -> Option<serde_json::Value> {
    let ip = session.ip.as_ref()?;
    Some(serde_json::json!({
        "address": ip,
        "user": session.user,
        "peer": session.peer,
        "sid": session.sid,
    }))
}

/// Have the server read its configuration and its secrets again; no tunnel ends.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast reload")]
pub(super) struct Reload {}

impl Reload {
    #[expect(clippy::unused_self, reason = "every command has such a function")]
    pub(super) fn run(&self) -> ExitCode {
        let reloaded = Server::reach().and_then(|mut server| server.order(Order::Reload));
        match reloaded {
            Ok(Answer::Reloaded(reloaded)) => {
                for warning in &reloaded.warnings {
                    warn(warning);
                }
                for setting in &reloaded.needs_restart {
                    warn(format_args!("{setting} has changed and needs a restart"));
                }
                let count = reloaded.secrets;
                print_line(format_args!("Read again: {count} secrets."));
                ExitCode::SUCCESS
            }
            Ok(_) => fail(unexpected(), 1),
            Err(message) => fail(message, 1),
        }
    }
}

/// Have the server take no more calls, and end when the last one has ended. New connections are
/// refused in the words of the protocol, so that clients try elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast drain --wait\n  pptp-fast drain --cancel")]
pub(super) struct Drain {
    /// Take calls again.
    #[arg(long, conflicts_with = "wait")]
    cancel: bool,
    /// Stay until the server has ended, and show how many sessions are left.
    #[arg(long)]
    wait: bool,
}

impl Drain {
    pub(super) fn run(&self) -> ExitCode {
        let drained = self.drain();
        drained.map_or_else(|message| fail(message, 1), |()| ExitCode::SUCCESS)
    }

    fn drain(&self) -> Result<(), String> {
        let mut server = Server::reach()?;
        let cancel = self.cancel;
        let Answer::Progress(progress) = server.order(Order::Drain { cancel })? else {
            return Err(unexpected());
        };
        if cancel {
            print_line("Calls are taken again.");
        } else if self.wait {
            wait(&mut server, progress)?;
        } else {
            let left = progress.sessions;
            print_line(format_args!(
                "No more calls are taken; {left} sessions are left."
            ));
        }
        Ok(())
    }
}

/// Until the server has ended.
fn wait(server: &mut Server, first: Progress) -> Result<(), String> {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = if is_terminal {
        ProgressBar::new(first.sessions as u64)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} sessions have ended") {
        bar.set_style(style);
    }
    let mut shown = usize::MAX;
    let mut progress = first;
    loop {
        bar.set_position(first.sessions.saturating_sub(progress.sessions) as u64);
        if !is_terminal && progress.sessions != shown {
            shown = progress.sessions;
            print_line(format_args!("{shown} sessions are left."));
        }
        std::thread::sleep(PAUSE);
        progress = match server.order(Order::Progress) {
            Ok(Answer::Progress(progress)) if !progress.is_draining => {
                bar.abandon();
                return Err("somebody has cancelled it: calls are taken again".to_owned());
            }
            Ok(Answer::Progress(progress)) => progress,
            // It has ended, as was wanted.
            Ok(_) | Err(_) if Server::reach().is_err() => break,
            // On its way out.
            Ok(_) | Err(_) => continue,
        };
    }
    bar.finish_and_clear();
    print_line("The server has drained and ended.");
    Ok(())
}
