//! `poff [option] [provider]`: pppd's way to end a tunnel.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::{again, fail, print_line};
use crate::driver::run_files;

const USAGE: &str = "\
usage: poff [option] [provider]
options:
  -r        Drop the tunnel and dial again.
  -d        Toggle the log of the negotiation (not done while a tunnel is up).
  -c        Negotiate compression again (not done while a tunnel is up).
  -a        Stop all tunnels.  'provider' is ignored.
  -h        Print this help summary and exit.
  -v        Print version and exit.
  none      Stop the tunnel.

Options may not be combined.

If 'provider' is omitted, a tunnel is stopped if and only if there is exactly one
running, unless the '-a' option was given.";

pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = super::texts(arguments);
    let (option, provider) = match arguments.split_first() {
        Some((first, rest)) if first.starts_with('-') => (first.as_str(), rest.first()),
        Some((first, _)) => ("", Some(first)),
        None => ("", None),
    };
    let done = if option == "-r" {
        "signalled"
    } else {
        "stopped"
    };
    match option {
        "-h" => {
            print_line(USAGE);
            return ExitCode::SUCCESS;
        }
        "-v" => {
            print_line(concat!("poff (pptp-fast ", env!("CARGO_PKG_VERSION"), ")"));
            return ExitCode::SUCCESS;
        }
        "-d" | "-c" => return not_done(option),
        "" | "-r" | "-a" => {}
        _ => return say(&format!("Illegal option {option}. Try: poff -h")),
    }
    let running = run_files::tunnels();
    let names = match (provider.filter(|_| option != "-a"), &running[..]) {
        (_, []) => return say(&format!("No tunnel is running.  None {done}.")),
        (Some(name), _) if running.contains(name) => vec![name.clone()],
        (Some(name), _) => {
            return say(&format!(
                "I could not find a tunnel for provider '{name}'. None {done}."
            ));
        }
        (None, [_, _, ..]) if option != "-a" => {
            return say(&format!(
                "More than one tunnel running and no \"-a\" option and\n\
                 no arguments supplied. Nothing {done}."
            ));
        }
        (None, _) => running,
    };
    names
        .iter()
        .map(|name| end(name, option == "-r"))
        .fold(ExitCode::SUCCESS, worse)
}

/// Ends a tunnel, and dials it again.
fn end(name: &str, dial: bool) -> ExitCode {
    let down = again(&["down", name]).unwrap_or_else(|error| fail(error, 1));
    if !dial || down != ExitCode::SUCCESS {
        return down;
    }
    again(&["up", name]).unwrap_or_else(|error| fail(error, 1))
}

fn worse(one: ExitCode, other: ExitCode) -> ExitCode {
    if other == ExitCode::SUCCESS {
        one
    } else {
        other
    }
}

fn say(message: &str) -> ExitCode {
    print_line(format_args!("poff: {message}"));
    ExitCode::FAILURE
}

fn not_done(option: &str) -> ExitCode {
    say(match option {
        "-d" => {
            "the log of a running tunnel does not change. Put `debug` and `logfile FILE` into its \
             peers file, and dial again: poff -r"
        }
        _ => "compression is not negotiated again while a tunnel is up. Dial again: poff -r",
    })
}
