//! How long the steps of a tunnel's set-up took.

use std::time::Duration;

/// The steps, in order.
pub(crate) const PHASES: [&str; 7] = ["tcp", "control", "lcp", "auth", "ccp", "ipcp", "total"];

/// When each step of one tunnel was done, counted from its dial.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phases {
    connected: Option<Duration>,
    call_placed: Option<Duration>,
    link_up: Option<Duration>,
    authenticated: Option<Duration>,
    cipher_up: Option<Duration>,
    network_up: Option<Duration>,
}

impl Phases {
    pub(super) const fn connected(&mut self, at: Duration) {
        self.connected = Some(at);
    }

    pub(super) const fn call_placed(&mut self, at: Duration) {
        self.call_placed = Some(at);
    }

    pub(super) const fn link_up(&mut self, at: Duration) {
        self.link_up = Some(at);
    }

    pub(super) const fn authenticated(&mut self, at: Duration) {
        self.authenticated = Some(at);
    }

    pub(super) const fn cipher_up(&mut self, at: Duration) {
        self.cipher_up = Some(at);
    }

    pub(super) const fn network_up(&mut self, at: Duration) {
        self.network_up = Some(at);
    }

    /// How long each of `PHASES` took: `None` of one that did not come to its end. IPCP is counted
    /// from the end of authentication where there is no encryption.
    pub(crate) fn spans(&self) -> [Option<Duration>; PHASES.len()] {
        let between = |from: Option<Duration>, to: Option<Duration>| to?.checked_sub(from?);
        [
            self.connected,
            between(self.connected, self.call_placed),
            between(self.call_placed, self.link_up),
            between(self.link_up, self.authenticated),
            between(self.authenticated, self.cipher_up),
            between(self.cipher_up.or(self.authenticated), self.network_up),
            self.network_up,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_counts_from_the_end_of_the_one_before() {
        let at = Duration::from_millis;
        let mut phases = Phases::default();
        phases.connected(at(1));
        phases.call_placed(at(3));
        phases.link_up(at(6));
        phases.authenticated(at(10));
        phases.cipher_up(at(15));
        phases.network_up(at(21));
        let spans = phases.spans().map(|span| span.map(|it| it.as_millis()));
        assert_eq!(spans, [1, 2, 3, 4, 5, 6, 21].map(Some));
    }

    #[test]
    fn without_encryption_there_is_no_such_step() {
        let at = Duration::from_millis;
        let mut phases = Phases::default();
        phases.authenticated(at(10));
        phases.network_up(at(12));
        let [.., ccp, ipcp, total] = phases.spans();
        assert_eq!((ccp, ipcp, total), (None, Some(at(2)), Some(at(12))));
    }
}
