//! `poff [option] [provider]`: pppd's way to end a tunnel, or to send it one of pppd's signals.
//!
//! | option | signal of pppd | what the tunnel is asked |
//! | --- | --- | --- |
//! | none, `-a` | TERM | `Down` |
//! | `-r` | HUP | `HangUp`: it dials again where it persists, and ends where it does not |
//! | `-d` | USR1 | `ToggleDebug` |
//! | `-c` | USR2 | `RenegotiateCompression` |

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{again, fail, print_line};
use crate::driver::admin::{self, Request};
use crate::driver::run_files;

const USAGE: &str = "\
usage: poff [option] [provider]
options:
  -r        Drop the line, and dial again where the tunnel persists.
  -d        Toggle the log of the negotiation.
  -c        Negotiate compression again.
  -a        Stop all tunnels.  'provider' is ignored.
  -h        Print this help summary and exit.
  -v        Print version and exit.
  none      Stop the tunnel.

Options may not be combined.

If 'provider' is omitted, a tunnel is stopped or signalled if and only if there is
exactly one running, unless the '-a' option was given.  If 'provider' is supplied,
its tunnel is stopped or signalled.";
/// A running tunnel answers such a request at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What is wanted of the tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    Stop,
    StopAll,
    Signal(Request),
    Help,
    Version,
}

impl Wish {
    /// Of the first word, if it is an option; `None` when it is none that there is.
    fn from_option(option: &str) -> Option<Self> {
        Some(match option {
            "-r" => Self::Signal(Request::HangUp),
            "-d" => Self::Signal(Request::ToggleDebug),
            "-c" => Self::Signal(Request::RenegotiateCompression),
            "-a" => Self::StopAll,
            "-h" => Self::Help,
            "-v" => Self::Version,
            _ => return None,
        })
    }

    const fn done(&self) -> &'static str {
        match self {
            Self::Signal(_) => "signalled",
            _ => "stopped",
        }
    }
}

pub(super) fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = super::texts(arguments);
    let (wish, provider) = match read(&arguments) {
        Ok(read) => read,
        Err(message) => return say(&message),
    };
    match wish {
        Wish::Help => {
            print_line(USAGE);
            return ExitCode::SUCCESS;
        }
        Wish::Version => {
            print_line(concat!("poff (pptp-fast ", env!("CARGO_PKG_VERSION"), ")"));
            return ExitCode::SUCCESS;
        }
        Wish::Stop | Wish::StopAll | Wish::Signal(_) => {}
    }
    match chosen(&wish, provider, run_files::tunnels()) {
        Ok(names) => names
            .iter()
            .map(|name| carry_out(&wish, name))
            .fold(ExitCode::SUCCESS, worse),
        Err(message) => say(&message),
    }
}

/// One option at most, then the provider.
fn read(arguments: &[String]) -> Result<(Wish, Option<&String>), String> {
    let is_option = |word: &&String| word.starts_with('-') && word.len() > 1;
    let Some(option) = arguments.first().filter(is_option) else {
        return Ok((Wish::Stop, arguments.first()));
    };
    let illegal = |option: &str| format!("Illegal option -- {option}. Try: poff -h");
    let wish = Wish::from_option(option).ok_or_else(|| illegal(option))?;
    match arguments.get(1) {
        Some(second) if is_option(&second) => Err(illegal(second)),
        second => Ok((wish, second)),
    }
}

/// The tunnels that are meant, of those that run.
fn chosen(
    wish: &Wish,
    provider: Option<&String>,
    running: Vec<String>,
) -> Result<Vec<String>, String> {
    let done = wish.done();
    let provider = provider.filter(|_| *wish != Wish::StopAll);
    if running.is_empty() {
        return Err(format!("No tunnel is running.  None {done}."));
    }
    match provider {
        Some(name) if running.contains(name) => Ok(vec![name.clone()]),
        Some(name) => Err(format!(
            "I could not find a tunnel for provider '{name}'. None {done}."
        )),
        None if running.len() > 1 && *wish != Wish::StopAll => Err(format!(
            "More than one tunnel running and no \"-a\" option and\n\
             no arguments supplied. Nothing {done}."
        )),
        None => Ok(running),
    }
}

fn carry_out(wish: &Wish, name: &str) -> ExitCode {
    let Wish::Signal(request) = wish else {
        return again(&["down", name]).unwrap_or_else(|error| fail(error, 1));
    };
    match admin::ask(&run_files::tunnel_socket(name), request, ANSWER_LIMIT) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => say(&format!("tunnel {name} does not answer: {error}")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(words: &[&str]) -> Result<(Wish, Option<String>), String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        read(&words).map(|(wish, provider)| (wish, provider.cloned()))
    }

    #[test]
    fn each_option_is_the_signal_that_debians_poff_sends() {
        for (option, request) in [
            ("-r", Request::HangUp),
            ("-d", Request::ToggleDebug),
            ("-c", Request::RenegotiateCompression),
        ] {
            let wish = Wish::Signal(request);
            assert_eq!(read_words(&[option]), Ok((wish.clone(), None)));
            let provider = Some("isp".to_owned());
            assert_eq!(read_words(&[option, "isp"]), Ok((wish, provider)));
        }
        assert_eq!(read_words(&[]), Ok((Wish::Stop, None)));
        assert!(read_words(&["-x"]).is_err());
        assert!(read_words(&["-rd"]).is_err());
        assert!(read_words(&["-r", "-d"]).is_err());
    }

    #[test]
    fn without_a_provider_only_a_single_tunnel_is_meant() {
        let running = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let redial = Wish::Signal(Request::HangUp);
        let b = "b".to_owned();
        assert_eq!(chosen(&redial, None, running(&["a"])), Ok(running(&["a"])));
        assert!(chosen(&redial, None, running(&["a", "b"])).is_err());
        assert!(chosen(&redial, None, Vec::new()).is_err());
        assert_eq!(
            chosen(&redial, Some(&b), running(&["a", "b"])),
            Ok(running(&["b"]))
        );
        assert!(chosen(&redial, Some(&b), running(&["a"])).is_err());
        assert_eq!(
            chosen(&Wish::StopAll, Some(&b), running(&["a", "c"])),
            Ok(running(&["a", "c"]))
        );
    }
}
