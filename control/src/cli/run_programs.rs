//! `pptp-fast run-programs`: what `up` and `serve` start to run scripts with all that root may do.

use std::process::ExitCode;

use clap::Args;

use super::fail;
use crate::driver::privileges::{self, Permitted};

/// Run programs for another process of this program; nothing for a person to call.
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct RunPrograms {
    #[command(flatten)]
    permitted: Permitted,
}

impl RunPrograms {
    pub(super) fn run(self) -> ExitCode {
        match privileges::run_programs(self.permitted) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(format_args!("up and serve start this: {error}"), 1),
        }
    }
}
