//! `pptp-fast setup`: pptp-command's menu.

use std::process::ExitCode;

use clap::Args;

use super::numbered::Numbered;
use super::terminal::Terminal;
use super::{Ask, Unanswered, on_terminal, owned, resolver, secrets, tunnels};
use crate::cli::secret::Kind;
use crate::cli::{again, fail, warn};

/// Set up tunnels and secrets in a dialogue, as with pptp-command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast setup\n  \
    pptp-fast setup < answers      (numbered menus, one answer a line)\n\n\
    Every step is a command, too: pptp-fast tunnel, pptp-fast secret, pptp-fast dns.")]
pub(in crate::cli) struct Setup {}

impl Setup {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        let end = match on_terminal() {
            true => for_people(&mut Terminal),
            false => menu(&mut Numbered::standard()),
        };
        exit_status(end)
    }
}

/// The end of the input, or of a person's patience, is no failure.
pub(in crate::cli) fn exit_status(end: Result<(), Unanswered>) -> ExitCode {
    match end {
        Ok(()) | Err(Unanswered::End | Unanswered::Cancelled) => ExitCode::SUCCESS,
        Err(Unanswered::Interrupted) => ExitCode::from(130),
        Err(error) => fail(error, 1),
    }
}

/// pptp-command's entries.
const CHOICES: [&str; 8] = [
    "Manage CHAP secrets",
    "Manage PAP secrets",
    "List PPTP Tunnels",
    "Add a NEW PPTP Tunnel",
    "Delete a PPTP Tunnel",
    "Configure resolv.conf",
    "Select a default tunnel",
    "Quit",
];

/// pptp-command's setup menu, until the person quits.
pub(in crate::cli) fn menu(ask: &mut dyn Ask) -> Result<(), Unanswered> {
    let choices = owned(&CHOICES);
    loop {
        let choice = ask.choose("?", &choices)?;
        if choice + 1 == choices.len() {
            return Ok(());
        }
        let step = step(ask, choice);
        go_on(ask, step)?;
    }
}

/// The same with starting and stopping a tunnel in front, in one menu.
fn for_people(ask: &mut dyn Ask) -> Result<(), Unanswered> {
    let mut choices = owned(&["Start a tunnel", "Stop a tunnel"]);
    choices.extend(owned(&CHOICES));
    loop {
        let choice = ask.choose("What task would you like to do?", &choices)?;
        if choice + 1 == choices.len() {
            return Ok(());
        }
        let step = match choice {
            0 => start(ask),
            1 => stop(ask),
            _ => step(ask, choice - 2),
        };
        go_on(ask, step)?;
    }
}

fn step(ask: &mut dyn Ask, choice: usize) -> Result<(), Unanswered> {
    match choice {
        0 => secrets::manage(ask, Kind::Chap),
        1 => secrets::manage(ask, Kind::Pap),
        2 => tunnels::list(ask),
        3 => tunnels::add(ask),
        4 => tunnels::delete(ask),
        5 => resolver::configure(ask),
        _ => tunnels::choose_default(ask),
    }
}

/// What failed is told, and the menu goes on; only the end of the answers ends it.
pub(super) fn go_on(ask: &mut dyn Ask, step: Result<(), Unanswered>) -> Result<(), Unanswered> {
    match step {
        Err(Unanswered::Failed(error)) => ask.say(&format!("ERROR!  {error}")),
        Err(Unanswered::Cancelled) if ask.is_terminal() => {}
        other => return other,
    }
    Ok(())
}

fn start(ask: &mut dyn Ask) -> Result<(), Unanswered> {
    if let Some(name) = tunnels::select(ask, "Start a tunnel to which server?")?
        && let Err(error) = again(&["up", &name])
    {
        warn(error);
    }
    Ok(())
}

fn stop(ask: &mut dyn Ask) -> Result<(), Unanswered> {
    let running = crate::driver::run_files::tunnels();
    if running.is_empty() {
        ask.say("No tunnel is running.");
        return Ok(());
    }
    let choice = ask.choose("Stop which tunnel?", &running)?;
    if let Some(name) = running.get(choice)
        && let Err(error) = again(&["down", name])
    {
        warn(error);
    }
    Ok(())
}
