//! What each session may carry: worked out of what the secrets and RADIUS say, told to its worker,
//! and changed while it stands (CoA-Request).
//!
//! Of several rates that RADIUS names at once, `Mikrotik-Rate-Limit` counts before `Cisco-AVPair`,
//! that before the WISPr's, and those before `Filter-Id`; a later request that names any takes the
//! place of all earlier ones.
//!
//! Nothing has to be carried along when a session moves to another process but its
//! [`SessionAttributes`] and its counters: [`Server::set_limits`] does the rest.

use dataplane::program::{CallId, Command};
use dataplane::rate_limit::TrafficLimits;

use super::Server;
use super::attributes::SessionAttributes;
use crate::config::rates::{RateError, RateLimit};
use crate::config::traffic::{BadRates, TrafficConfig};
use crate::proto::radius::Change;

impl Server {
    /// Works out how fast who comes in may be. False when it is to be turned away, since nobody can
    /// tell.
    pub(super) fn settle_rates(
        &mut self,
        call_id: CallId,
        attributes: &mut SessionAttributes,
    ) -> bool {
        match rates_of(attributes) {
            Ok(rates) => {
                attributes.rates = rates.or(attributes.rates);
                true
            }
            Err(error) => {
                let is_passed = self.config.traffic.bad_rates == BadRates::Pass;
                let consequence = if is_passed {
                    "the session goes on without that limit"
                } else {
                    "the session is refused (bad_rate_limit = \"refuse\")"
                };
                self.say(call_id, &format!("RADIUS: {error}; {consequence}"));
                is_passed
            }
        }
    }

    /// Tells the worker of a session what it may carry. Without `is_change` it has heard of no
    /// limit yet.
    pub(super) fn set_limits(&mut self, call_id: CallId, is_change: bool) {
        let Some(session) = self.sessions.get(&call_id) else {
            return;
        };
        let limits = limits_of(&session.attributes, &self.config.traffic);
        if limits == TrafficLimits::NONE && !is_change {
            return;
        }
        if let Some(words) = describe(&limits) {
            self.say(call_id, &words);
        }
        let limits = Box::new(limits);
        let command = Command::SetLimits { call_id, limits };
        self.engine.command(call_id, command);
    }

    /// Whether a session that stands may carry more or less with these attributes, which it gets
    /// when its client has proved itself once more.
    pub(super) fn is_limited_anew(&self, call_id: CallId, attributes: &SessionAttributes) -> bool {
        let session = self.sessions.get(&call_id);
        let before = session.filter(|session| session.network.is_some());
        let limits = |attributes| limits_of(attributes, &self.config.traffic);
        before.is_some_and(|before| limits(&before.attributes) != limits(attributes))
    }

    /// Changes what a session may carry, as far as a request says so; its attributes have changed
    /// already.
    pub(super) fn change_limits(&mut self, call_id: CallId, change: &Change) {
        if let Some(session) = self.sessions.get_mut(&call_id)
            && let Ok(Some(rates)) = rates_of(&session.attributes)
        {
            session.attributes.rates = Some(rates);
        }
        if names_rates(change) || change.quota.is_some() {
            self.set_limits(call_id, true);
        }
    }

    /// `down/up` in kbit/s, for a table.
    pub(super) fn rate_limit(&self, attributes: &SessionAttributes) -> Option<String> {
        let rates = rates_in_force(attributes, &self.config.traffic);
        (!rates.is_none()).then(|| rates.to_string())
    }
}

/// Whether a request names rates, which take the place of those of before.
pub(super) fn names_rates(change: &Change) -> bool {
    change.rate_limit.is_some()
        || !change.cisco_rates.is_empty()
        || change.wispr_up_bps.is_some()
        || change.wispr_down_bps.is_some()
        || change
            .filter_id
            .as_deref()
            .is_some_and(RateLimit::is_meant_by)
}

/// Whether a request names rates that nobody understands.
pub(super) fn is_senseless(change: &Change) -> bool {
    let attributes = SessionAttributes {
        filter_id: change.filter_id.clone(),
        rate_limit: change.rate_limit.clone(),
        cisco_rates: change.cisco_rates.clone(),
        ..SessionAttributes::default()
    };
    rates_of(&attributes).is_err()
}

/// What RADIUS says; `None` when it says nothing.
fn rates_of(attributes: &SessionAttributes) -> Result<Option<RateLimit>, RateError> {
    let (up_bps, down_bps) = (attributes.wispr_up_bps, attributes.wispr_down_bps);
    if let Some(text) = &attributes.rate_limit {
        return RateLimit::parse_mikrotik(text).map(Some);
    }
    if !attributes.cisco_rates.is_empty() {
        return RateLimit::parse_cisco(&attributes.cisco_rates).map(Some);
    }
    if up_bps.is_some() || down_bps.is_some() {
        return Ok(Some(RateLimit::of_wispr(down_bps, up_bps)));
    }
    match &attributes.filter_id {
        Some(text) if RateLimit::is_meant_by(text) => RateLimit::parse_down_up(text).map(Some),
        _ => Ok(None),
    }
}

fn rates_in_force(attributes: &SessionAttributes, config: &TrafficConfig) -> RateLimit {
    attributes.rates.unwrap_or(config.rates)
}

fn limits_of(attributes: &SessionAttributes, config: &TrafficConfig) -> TrafficLimits {
    let rates = rates_in_force(attributes, config);
    TrafficLimits {
        receive: rates.up,
        send: rates.down,
        quota: attributes.quota.unwrap_or(config.quota),
    }
}

/// A line for the log.
fn describe(limits: &TrafficLimits) -> Option<String> {
    let rates = RateLimit {
        down: limits.send,
        up: limits.receive,
    };
    let quota = limits.quota;
    let quotas = [
        ("from the client", quota.receive_bytes),
        ("to the client", quota.send_bytes),
        ("both ways", quota.total_bytes),
    ];
    let mut words = Vec::new();
    if !rates.is_none() {
        words.push(format!("rate limit {rates} kbit/s (down/up)"));
    }
    for (direction, octets) in quotas {
        words.extend(octets.map(|octets| format!("quota {octets} octets {direction}")));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::rate_limit::Quota;

    fn attributes(fill: impl FnOnce(&mut SessionAttributes)) -> SessionAttributes {
        let mut attributes = SessionAttributes::default();
        fill(&mut attributes);
        attributes
    }

    fn shown(attributes: &SessionAttributes) -> String {
        let rates = rates_of(attributes).unwrap().unwrap_or_default();
        rates.to_string()
    }

    #[test]
    fn the_most_particular_of_several_rates_counts() {
        let mut all = attributes(|it| {
            it.filter_id = Some("1000".into());
            it.wispr_up_bps = Some(512_000);
            it.cisco_rates = vec!["lcp:interface-config#1=rate-limit output 256000 1 1".into()];
            it.rate_limit = Some("64k/128k".into());
        });
        assert_eq!(shown(&all), "128/64");
        all.rate_limit = None;
        assert_eq!(shown(&all), "256/0");
        all.cisco_rates.clear();
        assert_eq!(shown(&all), "0/512");
        all.wispr_up_bps = None;
        assert_eq!(shown(&all), "1000/1000");
        all.filter_id = Some("gold".into());
        assert_eq!(rates_of(&all), Ok(None), "the name of a filter");
        all.filter_id = Some("1000x".into());
        assert!(rates_of(&all).is_err());
    }

    #[test]
    fn who_has_rates_of_its_own_does_not_get_the_servers() {
        let config = TrafficConfig {
            rates: RateLimit::parse_down_up("2000/512").unwrap(),
            quota: Quota {
                total_bytes: Some(9),
                ..Quota::default()
            },
            ..TrafficConfig::default()
        };
        let common = limits_of(&SessionAttributes::default(), &config);
        assert_eq!(common.receive.unwrap().bps, 512_000);
        assert_eq!(common.quota.total_bytes, Some(9));
        let free = attributes(|it| {
            it.rates = Some(RateLimit::default());
            it.quota = Some(Quota::default());
        });
        assert_eq!(limits_of(&free, &config), TrafficLimits::NONE);
        let words = describe(&common).unwrap();
        assert_eq!(
            words,
            "rate limit 2000/512 kbit/s (down/up), quota 9 octets both ways"
        );
        assert_eq!(describe(&TrafficLimits::NONE), None);
    }

    #[test]
    fn a_request_that_makes_no_sense_is_told_from_one_about_other_things() {
        let change = |text: &str| Change {
            filter_id: Some(text.into()),
            ..Change::default()
        };
        assert!(names_rates(&change("1000")) && !is_senseless(&change("1000")));
        assert!(!names_rates(&change("slow")) && !is_senseless(&change("slow")));
        assert!(is_senseless(&change("1000/")));
    }
}
