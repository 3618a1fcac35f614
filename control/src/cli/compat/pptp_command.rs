//! `pptp-command [setup|stop|start [tunnel]]`, which may also be an init script.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::dialogue::numbered::Numbered;
use crate::cli::dialogue::setup::{exit_status, menu};
use crate::cli::dialogue::{Ask, on_terminal, tunnels};
use crate::cli::{again, dns, fail, ppp_directory, print_line};
use crate::config::edit::peer;
use crate::config::peers::Peer;
use crate::driver::run_files;

/// LSB: the program is not running.
const NOT_RUNNING: u8 = 3;
/// How long tunnels may take to end, and how often that is looked at.
const END_LIMIT: Duration = Duration::from_secs(5);
const END_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = super::texts(arguments);
    let mut words = arguments.iter().map(String::as_str);
    let (verb, name) = (words.next(), words.next());
    match verb {
        Some("setup") => exit_status(menu(&mut Numbered::standard())),
        Some("start") => start(verb, name),
        Some("stop") => stop(name),
        Some("status") => status(name),
        Some("restart" | "reload" | "force-reload") => restart(name),
        _ if on_terminal() => tasks(),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    print_line("usage: pptp-command [setup|stop|start [tunnel]]");
    print_line("all options must be specified to run non-interactively");
    ExitCode::FAILURE
}

/// The first menu, for a person who gave no verb.
fn tasks() -> ExitCode {
    let choices = ["start", "stop", "setup", "quit"].map(ToOwned::to_owned);
    let mut ask = Numbered::standard();
    match ask.choose("What task would you like to do?", &choices) {
        Ok(0) => start(None, None),
        Ok(1) => stop(None),
        Ok(2) => exit_status(menu(&mut ask)),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => exit_status(Err(error)),
    }
}

fn start(verb: Option<&str>, name: Option<&str>) -> ExitCode {
    let directory = ppp_directory();
    match tunnels::names() {
        Ok(names) if names.is_empty() => return fail("no configured tunnels!", 2),
        Ok(_) => {}
        Err(error) => return fail(error, 1),
    }
    let default = || peer::default(&directory).filter(|_| verb.is_some());
    let name = match name.map(ToOwned::to_owned).or_else(default) {
        Some(name) => name,
        None if on_terminal() => {
            match tunnels::select(&mut Numbered::standard(), "Start a tunnel to which server?") {
                Ok(Some(name)) => name,
                Ok(None) => return ExitCode::FAILURE,
                Err(error) => return exit_status(Err(error)),
            }
        }
        None => return usage(),
    };
    start_tunnel(&name)
}

fn start_tunnel(name: &str) -> ExitCode {
    if let Err(error) = Peer::read(&ppp_directory(), name) {
        return fail(error, 2);
    }
    match again(&["up", name, "--", "updetach"]) {
        Ok(ExitCode::SUCCESS) => {}
        Ok(status) => return status,
        Err(error) => return fail(error, 1),
    }
    dns::tell_after_start();
    ExitCode::SUCCESS
}

/// Ends one tunnel, or all of them: those of this program, and no other pppd.
fn stop(name: Option<&str>) -> ExitCode {
    let names: Vec<_> = match name {
        Some(name) => vec![name.to_owned()],
        None => run_files::tunnels(),
    };
    let had_version = dns::files().tunnel_is_active();
    print_line("Sending HUP signal to PPTP processes...");
    let mut worst = ExitCode::SUCCESS;
    for name in names {
        match again(&["down", &name]) {
            Ok(ExitCode::SUCCESS) => {}
            Ok(status) => worst = status,
            Err(error) => worst = fail(error, 1),
        }
    }
    dns::tell_after_stop(had_version);
    worst
}

fn status(name: Option<&str>) -> ExitCode {
    let running = run_files::tunnels();
    let up = match name {
        Some(name) => running.iter().any(|tunnel| tunnel == name),
        None => !running.is_empty(),
    };
    if up {
        print_line("There is probably a pptp tunnel up");
        return ExitCode::SUCCESS;
    }
    print_line("There is probably not a pptp tunnel up");
    ExitCode::from(NOT_RUNNING)
}

/// Ends what runs and brings the same up again; with nothing running, starts.
fn restart(name: Option<&str>) -> ExitCode {
    let running = run_files::tunnels();
    let names: Vec<_> = match name {
        Some(name) => vec![name.to_owned()],
        None => running.clone(),
    };
    if names.is_empty() {
        return start(Some("start"), None);
    }
    if names.iter().any(|name| running.contains(name)) {
        let ended = stop(name);
        if ended != ExitCode::SUCCESS {
            return ended;
        }
        wait_for_end(&names);
    }
    let mut worst = ExitCode::SUCCESS;
    for name in &names {
        let status = start_tunnel(name);
        if status != ExitCode::SUCCESS {
            worst = status;
        }
    }
    worst
}

/// A process answers before it is gone, and holds its name until then.
fn wait_for_end(names: &[String]) {
    let mut left = END_LIMIT;
    while !left.is_zero() && run_files::tunnels().iter().any(|name| names.contains(name)) {
        std::thread::sleep(END_PAUSE);
        left = left.saturating_sub(END_PAUSE);
    }
}
