//! Log-ins that fail again and again have to wait: longer each time, and not all equally long.
//!
//! Failures are counted for each source and for each name. From a certain number on, log-ins from
//! that source, or under that name, are refused unseen for a while that doubles with every further
//! failure. A refused log-in does not count: whoever repeats it gets in when the time is over.
//!
//! Whoever has logged in from a source before is *known* there: neither others from that source
//! (clients behind one NAT) nor others who try the same name elsewhere can lock it out. Known
//! users have failures of their own, and never wait longer than the first step.
//!
//! All three tables have a fixed number of places.

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

use super::Time;
use super::lru::Lru;
use super::refusal::Refusal;

/// Sources, and names, whose failures are remembered.
const FAILING_MAX: usize = 8_192;
/// Names that are known where they come from: more than sessions at a time, on most servers.
const KNOWN_MAX: usize = 16_384;

/// How patient a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffConfig {
    /// Failures of one source until it has to wait; 0 never.
    pub peer_failures_max: u32,
    /// Failures under one name until it has to wait; 0 never.
    pub user_failures_max: u32,
    /// The first wait.
    pub first_ms: u64,
    /// The longest wait.
    pub max_ms: u64,
    /// After so long without a failure all is forgotten.
    pub forget_ms: u64,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            peer_failures_max: 10,
            user_failures_max: 20,
            first_ms: 2_000,
            max_ms: 300_000,
            forget_ms: 1_800_000,
        }
    }
}

/// A name, as it is remembered: a name may be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UserKey(u64);

/// Failed log-ins.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    last: Time,
    until: Time,
}

/// What a server remembers of log-ins.
#[derive(Debug)]
pub struct Backoff {
    config: BackoffConfig,
    /// So that nobody can find two names with one key.
    seed: u64,
    peers: Lru<Ipv4Addr, Failures>,
    users: Lru<UserKey, Failures>,
    known: Lru<(Ipv4Addr, UserKey), Failures>,
}

impl Backoff {
    /// Nothing has happened yet. `seed` is random.
    #[must_use]
    pub const fn new(config: BackoffConfig, seed: u64) -> Self {
        Self {
            config,
            seed,
            peers: Lru::new(FAILING_MAX),
            users: Lru::new(FAILING_MAX),
            known: Lru::new(KNOWN_MAX),
        }
    }

    /// Another patience from now on.
    pub const fn reconfigure(&mut self, config: BackoffConfig) {
        self.config = config;
    }

    /// Whether a log-in under the name `user` from `source` is to be looked at.
    ///
    /// # Errors
    /// Why not, and for how many milliseconds still.
    pub fn check(&self, now: Time, source: Ipv4Addr, user: &str) -> Result<(), (Refusal, u64)> {
        let user = self.key(user);
        let waits = |failures: Option<&Failures>, refusal| {
            let until = failures.map_or(Time(0), |failures| failures.until);
            let left_ms = until.0.saturating_sub(now.0);
            if left_ms == 0 {
                Ok(())
            } else {
                Err((refusal, left_ms))
            }
        };
        if let Some(own) = self.known.get(&(source, user)) {
            return waits(Some(own), Refusal::BackoffUser);
        }
        waits(self.peers.get(&source), Refusal::BackoffPeer)?;
        waits(self.users.get(&user), Refusal::BackoffUser)
    }

    /// A log-in was looked at and has failed. `random` makes waits differ.
    pub fn failed(&mut self, now: Time, source: Ipv4Addr, user: &str, random: u64) {
        let (config, user) = (self.config, self.key(user));
        if let Some(own) = self.known.get_mut(&(source, user)) {
            let brief = BackoffConfig {
                max_ms: config.first_ms,
                ..config
            };
            own.add(now, brief, config.peer_failures_max, random);
            return;
        }
        let of_peer = self.peers.use_or_insert(source, Failures::default);
        of_peer.add(now, config, config.peer_failures_max, random);
        let of_user = self.users.use_or_insert(user, Failures::default);
        of_user.add(now, config, config.user_failures_max, random);
    }

    /// A log-in has succeeded. The failures of its source and its name stay: one who may come in
    /// could otherwise guess the passwords of others without end.
    pub fn succeeded(&mut self, source: Ipv4Addr, user: &str) {
        let pair = (source, self.key(user));
        *self.known.use_or_insert(pair, Failures::default) = Failures::default();
    }

    fn key(&self, user: &str) -> UserKey {
        let mut hasher = std::hash::DefaultHasher::new();
        (self.seed, user).hash(&mut hasher);
        UserKey(hasher.finish())
    }
}

impl Failures {
    fn add(&mut self, now: Time, config: BackoffConfig, allowed: u32, random: u64) {
        if now.0.saturating_sub(self.last.0) >= config.forget_ms {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.last = now;
        if allowed == 0 {
            return;
        }
        if let Some(step) = self.count.checked_sub(allowed) {
            let doubled = config.first_ms.saturating_mul(1 << step.min(32));
            let wait_ms = doubled.min(config.max_ms);
            // Between half of it and all of it, so that those who wait do not come all at once.
            let jitter_ms = random % (wait_ms / 2 + 1);
            self.until = now.after_ms(wait_ms - jitter_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOME: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const AWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

    fn backoff() -> Backoff {
        let config = BackoffConfig {
            peer_failures_max: 3,
            user_failures_max: 5,
            first_ms: 1_000,
            max_ms: 8_000,
            forget_ms: 60_000,
        };
        Backoff::new(config, 7)
    }

    /// How long a log-in has to wait, without jitter.
    fn wait_ms(backoff: &Backoff, now: Time, source: Ipv4Addr, user: &str) -> u64 {
        backoff
            .check(now, source, user)
            .map_or_else(|(_, ms)| ms, |()| 0)
    }

    #[test]
    fn a_source_that_fails_waits_twice_as_long_each_time_up_to_a_bound() {
        let (mut backoff, mut now) = (backoff(), Time(0));
        let mut waits = Vec::new();
        for n in 0..7 {
            backoff.failed(now, HOME, &format!("user{n}"), 0);
            let wait = wait_ms(&backoff, now, HOME, "anybody");
            waits.push(wait);
            now = now.after_ms(wait);
            assert_eq!(
                backoff.check(now, HOME, "anybody"),
                Ok(()),
                "the time is over"
            );
        }
        assert_eq!(waits, [0, 0, 1_000, 2_000, 4_000, 8_000, 8_000]);
        assert_eq!(backoff.check(now, AWAY, "anybody"), Ok(()));
    }

    #[test]
    fn a_name_that_is_tried_from_many_sources_waits_too() {
        let (mut backoff, now) = (backoff(), Time(5));
        for n in 0..5 {
            backoff.failed(now, Ipv4Addr::new(198, 51, 100, n), "mia", 0);
        }
        assert_eq!(
            backoff.check(now, AWAY, "mia"),
            Err((Refusal::BackoffUser, 1_000))
        );
        assert_eq!(backoff.check(now, AWAY, "ann"), Ok(()));
    }

    #[test]
    fn whoever_is_known_is_locked_out_by_nobody() {
        let (mut backoff, now) = (backoff(), Time(0));
        backoff.succeeded(HOME, "mia");
        for n in 0..200 {
            backoff.failed(now, HOME, &format!("user{n}"), 0);
            backoff.failed(now, AWAY, "mia", 0);
        }
        assert_eq!(backoff.check(now, HOME, "mia"), Ok(()));
        assert!(backoff.check(now, HOME, "ann").is_err());
        assert!(backoff.check(now, AWAY, "mia").is_err());
        // Under its own name, from its own source: briefly.
        for _ in 0..200 {
            backoff.failed(now, HOME, "mia", 0);
        }
        assert_eq!(wait_ms(&backoff, now, HOME, "mia"), 1_000);
        backoff.succeeded(HOME, "mia");
        assert_eq!(backoff.check(now, HOME, "mia"), Ok(()));
    }

    #[test]
    fn a_success_does_not_wipe_the_failures_of_its_source() {
        let (mut backoff, now) = (backoff(), Time(0));
        for _ in 0..4 {
            backoff.succeeded(AWAY, "eve");
            backoff.failed(now, AWAY, "mia", 0);
        }
        assert!(backoff.check(now, AWAY, "mia").is_err());
        assert_eq!(backoff.check(now, AWAY, "eve"), Ok(()));
    }

    #[test]
    fn failures_are_forgotten_and_can_be_switched_off() {
        let mut backoff = backoff();
        for _ in 0..2 {
            backoff.failed(Time(0), HOME, "mia", 0);
        }
        let later = Time(60_000);
        backoff.failed(later, HOME, "mia", 0);
        assert_eq!(backoff.check(later, HOME, "mia"), Ok(()));
        backoff.reconfigure(BackoffConfig {
            peer_failures_max: 0,
            user_failures_max: 0,
            ..backoff.config
        });
        for _ in 0..50 {
            backoff.failed(later, AWAY, "mia", 0);
        }
        assert_eq!(backoff.check(later, AWAY, "mia"), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_busy_source_stays_in_it() {
        let (mut backoff, now) = (backoff(), Time(0));
        for n in 0..30_000_u32 {
            backoff.failed(now, Ipv4Addr::from_bits(n), &n.to_string(), 0);
            backoff.succeeded(Ipv4Addr::from_bits(n), &n.to_string());
            if n % 1_000 == 0 {
                backoff.failed(now, AWAY, "root", 0);
            }
        }
        let sizes = [
            backoff.peers.len(),
            backoff.users.len(),
            backoff.known.len(),
        ];
        assert_eq!(sizes, [FAILING_MAX, FAILING_MAX, KNOWN_MAX]);
        assert!(backoff.check(now, AWAY, "x").is_err());
    }

    proptest! {
        #[test]
        fn a_wait_is_between_half_and_all_of_its_step(random in any::<u64>(), count in 3_u32..60) {
            let mut backoff = backoff();
            for _ in 0..count {
                backoff.failed(Time(9), HOME, "mia", random);
            }
            let full = (1_000_u64 << (count - 3).min(10)).min(8_000);
            let wait = wait_ms(&backoff, Time(9), HOME, "other");
            prop_assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
        }
    }
}
