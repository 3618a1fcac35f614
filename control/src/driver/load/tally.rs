//! How many came up, how many failed or were lost, and why.

use std::collections::{BTreeMap, HashSet};

use crate::proto::ending::Ending;

/// How often a cause occurred, and the first message that told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Cause {
    pub count: usize,
    pub message: String,
}

/// Causes by name.
pub(crate) type Causes = BTreeMap<&'static str, Cause>;

/// The state of all clients together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// By number: whose network came up, whether it still stands or not.
    up: HashSet<usize>,
    failures: Causes,
    losses: Causes,
    is_stopping: bool,
}

impl Tally {
    pub(super) fn came_up(&mut self, index: usize) {
        self.up.insert(index);
    }

    pub(super) fn ended(&mut self, index: usize, ending: &Ending) {
        if self.is_stopping {
            return;
        }
        let causes = match self.up.contains(&index) {
            true => &mut self.losses,
            false => &mut self.failures,
        };
        let cause = causes.entry(name(ending)).or_default();
        if cause.count == 0 {
            cause.message = ending.to_string();
        }
        cause.count += 1;
    }

    /// What ends from now on was to end.
    pub(crate) const fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// How many came up at some time.
    pub(crate) fn established(&self) -> usize {
        self.up.len()
    }

    /// How many never came up.
    pub(crate) fn failed(&self) -> usize {
        self.failures.values().map(|cause| cause.count).sum()
    }

    /// How many came up and ended before they were to.
    pub(crate) fn lost(&self) -> usize {
        self.losses.values().map(|cause| cause.count).sum()
    }

    /// How many are no longer on their way.
    pub(crate) fn decided(&self) -> usize {
        self.established() + self.failed()
    }

    pub(crate) const fn failures(&self) -> &Causes {
        &self.failures
    }

    pub(crate) const fn losses(&self) -> &Causes {
        &self.losses
    }
}

const fn name(ending: &Ending) -> &'static str {
    match ending {
        Ending::LocalRequest(_) => "local",
        Ending::PeerRequest(_) => "ended_by_server",
        Ending::Unreachable { .. } => "unreachable",
        Ending::ControlLost(_) => "control_lost",
        Ending::Refused { .. } => "refused",
        Ending::NotPptp(_) => "not_pptp",
        Ending::ControlTimeout(_) => "control_timeout",
        Ending::GreSilent { .. } => "gre_silent",
        Ending::NegotiationFailed(_) | Ending::PeerIncompatible(_) => "negotiation_failed",
        Ending::MppeRefused { .. } => "mppe_refused",
        Ending::PeerAuthFailed(_) => "server_not_authentic",
        Ending::AuthFailed(_)
        | Ending::PasswordExpired { .. }
        | Ending::PasswordNotChanged(_)
        | Ending::NoSecret { .. } => "authentication_failed",
        Ending::PeerDead(_) => "no_answer_to_echoes",
        Ending::IdleTimeout | Ending::ConnectTimeout => "timed_out",
        Ending::LoopedBack => "looped_back",
        Ending::TrafficLimit => "traffic_limit",
        Ending::NoAddresses(_) => "no_addresses",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_came_up_has_failed_and_who_did_was_lost() {
        let mut tally = Tally::default();
        let ending = Ending::AuthFailed("E=691".to_owned());
        tally.came_up(0);
        tally.ended(1, &ending);
        tally.ended(2, &ending);
        tally.ended(0, &Ending::ControlLost("reset".to_owned()));
        assert_eq!(
            (tally.established(), tally.failed(), tally.lost()),
            (1, 2, 1)
        );
        assert_eq!(tally.failures()["authentication_failed"].count, 2);
        assert_eq!(tally.losses()["control_lost"].count, 1);
        tally.came_up(3);
        tally.stop();
        tally.ended(3, &ending);
        assert_eq!(tally.lost(), 1, "the end was asked for");
    }
}
