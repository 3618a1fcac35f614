//! Which of the servers are worth asking.

use crate::proto::Time;

/// One server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Alive,
    /// Left alone until then.
    Dead(Time),
    /// One request is trying it.
    Probed,
}

/// All servers, in the order in which they are asked.
#[derive(Clone, Debug)]
pub(super) struct Health {
    states: Vec<State>,
    /// When each was last heard.
    heard: Vec<Option<Time>>,
}

impl Health {
    pub(super) fn new(count: usize) -> Self {
        Self {
            states: vec![State::Alive; count],
            heard: vec![None; count],
        }
    }

    /// The first server that is alive, or due to be tried, and not in `tried`.
    pub(super) fn choose(&mut self, now: Time, tried: &[usize]) -> Option<usize> {
        let (index, state) = self.states.iter_mut().enumerate().find(|(index, state)| {
            let is_worth_it = match state {
                State::Alive => true,
                State::Dead(until) => *until <= now,
                State::Probed => false,
            };
            is_worth_it && !tried.contains(index)
        })?;
        if *state != State::Alive {
            *state = State::Probed;
        }
        Some(index)
    }

    /// The first server that is not in `tried`, whatever is thought of it.
    pub(super) fn choose_any(&self, tried: &[usize]) -> Option<usize> {
        (0..self.states.len()).find(|index| !tried.contains(index))
    }

    /// It answered; whether that is news.
    pub(super) fn hear(&mut self, now: Time, server: usize) -> bool {
        let (Some(state), Some(heard)) = (self.states.get_mut(server), self.heard.get_mut(server))
        else {
            return false;
        };
        *heard = Some(now);
        std::mem::replace(state, State::Alive) != State::Alive
    }

    /// It did not answer a request that was first sent at `since`; whether that makes it dead, and
    /// is news. One that has answered others since then has its reasons.
    pub(super) fn miss(&mut self, now: Time, server: usize, since: Time, dead_ms: u64) -> bool {
        let heard = self.heard.get(server).copied().flatten();
        let Some(state) = self.states.get_mut(server) else {
            return false;
        };
        if heard.is_some_and(|heard| heard >= since) {
            return false;
        }
        let before = std::mem::replace(state, State::Dead(now.after_ms(dead_ms)));
        before == State::Alive
    }

    /// Nobody waits any more for the request that tried it.
    pub(super) fn abandon(&mut self, now: Time, server: usize) {
        if let Some(state) = self.states.get_mut(server)
            && *state == State::Probed
        {
            *state = State::Dead(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_server_is_tried_by_one_request_when_its_time_has_come() {
        let mut health = Health::new(2);
        assert_eq!(health.choose(Time(0), &[]), Some(0));
        assert!(health.miss(Time(9), 0, Time(0), 100));
        assert_eq!(health.choose(Time(10), &[]), Some(1));
        assert_eq!(health.choose(Time(109), &[]), Some(0));
        assert_eq!(health.choose(Time(109), &[]), Some(1));
        // It still does not answer: that is no news.
        assert!(!health.miss(Time(120), 0, Time(109), 100));
        assert_eq!(health.choose(Time(121), &[]), Some(1));
        assert_eq!(health.choose(Time(220), &[]), Some(0));
        assert!(health.hear(Time(221), 0));
        assert_eq!(health.choose(Time(222), &[]), Some(0));
        assert_eq!(health.choose(Time(222), &[0, 1]), None);
    }

    #[test]
    fn a_server_that_answers_others_is_not_dead() {
        let mut health = Health::new(1);
        assert!(!health.hear(Time(5), 0));
        assert!(!health.miss(Time(9), 0, Time(4), 100));
        assert_eq!(health.choose(Time(9), &[]), Some(0));
    }

    #[test]
    fn a_trial_that_nobody_waits_for_is_made_again() {
        let mut health = Health::new(1);
        assert!(health.miss(Time(1), 0, Time(0), 100));
        assert_eq!(health.choose(Time(200), &[]), Some(0));
        health.abandon(Time(201), 0);
        assert_eq!(health.choose(Time(201), &[]), Some(0));
    }
}
