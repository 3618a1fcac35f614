//! `pptp-fast run-programs`: what `up` and `serve` start to run scripts with all that root may do.
//! It is nothing for a person to call, so neither help nor completions know of it.

use std::process::ExitCode;

use clap::Parser;

use super::fail;
use crate::driver::privileges::{self, Permitted, RUN_PROGRAMS};

/// Run programs for another process of this program, which standard input leads to.
#[derive(Debug, Parser)]
struct RunPrograms {
    #[command(flatten)]
    permitted: Permitted,
}

/// Is the process that runs programs, when that is what the first argument says.
pub(super) fn main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek()? != RUN_PROGRAMS {
        return None;
    }
    let programs = RunPrograms::parse_from(arguments);
    Some(match privileges::run_programs(programs.permitted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format_args!("up and serve start this: {error}"), 1),
    })
}
