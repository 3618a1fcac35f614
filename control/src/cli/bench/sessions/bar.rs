//! The progress of the set-up, on a terminal, when it takes longer than two seconds.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::driver::load::Tally;

const QUIET: Duration = Duration::from_secs(2);

pub(super) struct SetUpBar {
    bar: ProgressBar,
    is_wanted: bool,
}

impl SetUpBar {
    pub(super) fn start(count: u32, is_quiet: bool) -> Self {
        let hidden = ProgressDrawTarget::hidden();
        let bar = ProgressBar::with_draw_target(Some(u64::from(count)), hidden);
        let template = "{msg} [{bar:40}] {pos}/{len} {per_sec} {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let is_wanted = !is_quiet && std::io::stderr().is_terminal();
        Self { bar, is_wanted }
    }

    pub(super) fn show(&self, tally: &Tally) {
        if self.is_wanted && self.bar.is_hidden() && self.bar.elapsed() > QUIET {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(tally.decided() as u64);
        let failed = tally.failed();
        self.bar.set_message(match failed {
            0 => "tunnels".to_owned(),
            _ => format!("tunnels ({failed} failed)"),
        });
    }

    pub(super) fn stop(self) {
        self.bar.finish_and_clear();
    }
}
