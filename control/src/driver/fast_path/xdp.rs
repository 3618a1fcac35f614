//! Which workers have AF_XDP sockets on which interfaces, and when to try again to give them one.

use std::collections::{HashMap, HashSet};

/// A worker and the index of an interface.
pub(super) type Seat = (u16, u32);

/// Looks, a second apart, at which what was refused is tried again: a socket that has just been
/// closed keeps its queue for a moment. Afterwards only when something has changed.
const TRIES: u8 = 5;

/// What the workers have said.
#[derive(Debug, Default)]
pub(super) struct XdpSockets {
    states: HashMap<Seat, State>,
}

#[derive(Debug)]
enum State {
    /// The worker has not answered.
    Asked,
    InUse,
    Refused {
        reason: String,
        tries_left: u8,
        is_due: bool,
    },
}

impl XdpSockets {
    /// Whether to ask the worker now; then it has been asked.
    pub(super) fn ask(&mut self, place: Seat) -> bool {
        match self.states.get_mut(&place) {
            None => {
                self.states.insert(place, State::Asked);
                true
            }
            Some(State::Refused { is_due, .. }) => std::mem::take(is_due),
            Some(_) => false,
        }
    }

    /// The worker has answered, or its socket has failed.
    pub(super) fn answer(&mut self, place: Seat, answer: Result<(), String>) {
        let Some(state) = self.states.get_mut(&place) else {
            // Closed meanwhile.
            return;
        };
        let tries_left = match state {
            State::Refused { tries_left, .. } => *tries_left,
            State::Asked | State::InUse => TRIES,
        };
        *state = match answer {
            Ok(()) => State::InUse,
            Err(reason) => State::Refused {
                reason,
                tries_left,
                is_due: false,
            },
        };
    }

    /// Time has passed. True when something is to be asked for again.
    pub(super) fn look(&mut self) -> bool {
        let mut is_any_due = false;
        for state in self.states.values_mut() {
            if let State::Refused {
                tries_left, is_due, ..
            } = state
                && *tries_left > 0
            {
                *tries_left -= 1;
                *is_due = true;
                is_any_due = true;
            }
        }
        is_any_due
    }

    /// Something has changed about those interfaces: what was refused may be granted now.
    pub(super) fn hope(&mut self, which: impl Fn(u32) -> bool) {
        for ((_, interface), state) in &mut self.states {
            if let State::Refused {
                tries_left, is_due, ..
            } = state
                && which(*interface)
            {
                *tries_left = TRIES;
                *is_due = true;
            }
        }
    }

    /// Forgets what is not used any more, and returns it: the sockets are to be closed.
    pub(super) fn keep(&mut self, used: &HashSet<Seat>) -> Vec<Seat> {
        let unused = self.states.keys().filter(|place| !used.contains(*place));
        let unused: Vec<_> = unused.copied().collect();
        for place in &unused {
            self.states.remove(place);
        }
        unused
    }

    /// Whether packets leave through such a socket; or why not.
    pub(super) fn state(&self, place: Seat) -> Result<(), &str> {
        match self.states.get(&place) {
            Some(State::InUse) => Ok(()),
            Some(State::Refused { reason, .. }) => Err(reason),
            Some(State::Asked) | None => Err("it is being opened"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Seat = (0, 3);

    #[test]
    fn what_is_refused_is_asked_for_again_a_few_times_and_after_a_change() {
        let mut sockets = XdpSockets::default();
        assert!(sockets.ask(PLACE));
        assert!(!sockets.ask(PLACE), "the answer is waited for");
        let refuse = |sockets: &mut XdpSockets| sockets.answer(PLACE, Err("taken".to_owned()));
        refuse(&mut sockets);
        assert_eq!(sockets.state(PLACE), Err("taken"));
        let mut asked = 0;
        for _ in 0..20 {
            sockets.look();
            if sockets.ask(PLACE) {
                asked += 1;
                refuse(&mut sockets);
            }
        }
        assert_eq!(asked, TRIES);
        sockets.hope(|interface| interface == 4);
        assert!(!sockets.ask(PLACE), "another interface has changed");
        sockets.hope(|interface| interface == 3);
        assert!(sockets.ask(PLACE));
        sockets.answer(PLACE, Ok(()));
        assert_eq!(sockets.state(PLACE), Ok(()));
        assert!(!sockets.look() && !sockets.ask(PLACE));
    }

    #[test]
    fn what_is_not_used_is_closed_and_a_late_answer_ignored() {
        let mut sockets = XdpSockets::default();
        assert!(sockets.ask(PLACE) && sockets.ask((1, 3)));
        let used = HashSet::from([(1, 3)]);
        assert_eq!(sockets.keep(&used), [PLACE]);
        sockets.answer(PLACE, Ok(()));
        assert!(sockets.state(PLACE).is_err());
        assert!(sockets.ask(PLACE), "it is opened anew");
    }
}
