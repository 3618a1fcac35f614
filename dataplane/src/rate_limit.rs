//! What a session may carry: a rate each way, kept by token buckets, and quotas.
//!
//! A bucket is the meter of RFC 2697 3, in its colour-blind mode and with one burst: it fills at
//! the rate, holds no more than the burst, and a packet takes its octets out, or finds too few and
//! is dropped. Where a burst has a rate of its own, a second bucket keeps that (RFC 2698 3). What
//! the TUN device hands over as one train is cut into packets before it comes here, so each packet
//! is charged for itself.
//!
//! The clock is the worker's, which it reads once a turn. Levels are counted in bits a second times
//! milliseconds, 8,000 to the octet, so that nothing is rounded: a bucket gives exactly its rate.
//!
//! A quota is held against the counters of the session, which both of its halves see where it is
//! split. So what a session may do is known from [`TrafficLimits`] and its counters: who hands a
//! session over to another process carries those, and loses nothing but the levels of buckets,
//! which are full again there.

use crate::counters::{DropReason, SessionCounters};
use crate::limits::{BURST_BYTES_MIN, BURST_MS};

/// Units of a level in an octet: its bits, times the milliseconds in a second.
const UNITS: u64 = 8 * 1000;

/// How fast one direction may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run: bits of IP packets a second.
    pub bps: u64,
    /// What may pass at once after a pause: octets, and no less than the largest packet has.
    pub burst_bytes: u64,
    /// How fast that may pass: bits a second; `None` is at once.
    pub peak_bps: Option<u64>,
}

impl Rate {
    /// A rate with the burst that suits TCP: what passes in `limits::BURST_MS`, and no less than a
    /// train of segments that the TUN device hands over at once.
    #[must_use]
    pub const fn new(bps: u64) -> Self {
        Self {
            bps,
            burst_bytes: burst_bytes(bps),
            peak_bps: None,
        }
    }
}

/// The burst of [`Rate::new`].
#[must_use]
pub const fn burst_bytes(bps: u64) -> u64 {
    let burst = bps.saturating_mul(BURST_MS) / UNITS;
    if burst < BURST_BYTES_MIN {
        BURST_BYTES_MIN
    } else {
        burst
    }
}

/// How much a session may carry from its beginning to its end: octets of IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// From the peer.
    pub receive_bytes: Option<u64>,
    /// To the peer.
    pub send_bytes: Option<u64>,
    /// Both together.
    pub total_bytes: Option<u64>,
}

/// Everything that bounds what a session carries. `None` is without bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficLimits {
    /// From the peer.
    pub receive: Option<Rate>,
    /// To the peer.
    pub send: Option<Rate>,
    /// What ends the session.
    pub quota: Quota,
}

impl TrafficLimits {
    /// Nothing is bounded.
    pub const NONE: Self = Self {
        receive: None,
        send: None,
        quota: Quota {
            receive_bytes: None,
            send_bytes: None,
            total_bytes: None,
        },
    };
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bps: u64,
    depth: u64,
    level: u64,
    /// When the level was true.
    at_ms: u64,
}

impl Bucket {
    const fn full(bps: u64, burst_bytes: u64, now_ms: u64) -> Self {
        let depth = burst_bytes.saturating_mul(UNITS);
        Self {
            bps,
            depth,
            level: depth,
            at_ms: now_ms,
        }
    }

    fn fill(&mut self, now_ms: u64) {
        let gained = self.bps.saturating_mul(now_ms.saturating_sub(self.at_ms));
        self.level = self.level.saturating_add(gained).min(self.depth);
        self.at_ms = self.at_ms.max(now_ms);
    }

    const fn has(&self, cost: u64) -> bool {
        self.level >= cost
    }
}

/// The buckets of one direction.
#[derive(Clone, Copy, Debug)]
struct Meter {
    sustained: Bucket,
    peak: Option<Bucket>,
}

impl Meter {
    fn full(rate: Rate, now_ms: u64) -> Self {
        let peak = |bps| Bucket::full(bps, burst_bytes(bps), now_ms);
        Self {
            sustained: Bucket::full(rate.bps, rate.burst_bytes, now_ms),
            peak: rate.peak_bps.map(peak),
        }
    }

    /// The same session at another rate: what it has used up stays used up.
    fn changed(before: Option<Self>, rate: Rate, now_ms: u64) -> Self {
        let mut meter = Self::full(rate, now_ms);
        if let Some(mut before) = before {
            before.sustained.fill(now_ms);
            meter.sustained.level = meter.sustained.level.min(before.sustained.level);
        }
        meter
    }

    fn take(&mut self, bytes: u64, now_ms: u64) -> bool {
        let cost = bytes.saturating_mul(UNITS);
        self.sustained.fill(now_ms);
        if let Some(peak) = &mut self.peak {
            peak.fill(now_ms);
            if !peak.has(cost) {
                return false;
            }
        }
        if !self.sustained.has(cost) {
            return false;
        }
        self.sustained.level -= cost;
        if let Some(peak) = &mut self.peak {
            peak.level -= cost;
        }
        true
    }
}

/// What is left to one session, or to a half of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    receive: Option<Meter>,
    send: Option<Meter>,
    quota: Quota,
    /// Control knows that a quota is spent.
    pub(crate) is_told: bool,
}

impl Allowance {
    /// `None` when nothing is bounded. `before` is what was left until now.
    pub(crate) fn new(limits: &TrafficLimits, before: Option<&Self>, now_ms: u64) -> Option<Self> {
        if *limits == TrafficLimits::NONE {
            return None;
        }
        let meter = |rate, before: Option<Meter>| Meter::changed(before, rate, now_ms);
        let (receiving, sending) = before.map_or((None, None), |it| (it.receive, it.send));
        Some(Self {
            receive: limits.receive.map(|rate| meter(rate, receiving)),
            send: limits.send.map(|rate| meter(rate, sending)),
            quota: limits.quota,
            is_told: false,
        })
    }

    /// Whether a packet of so many octets from the peer may pass; it is charged then.
    pub(crate) fn receive(
        &mut self,
        bytes: u64,
        carried: &SessionCounters,
        now_ms: u64,
    ) -> Result<(), DropReason> {
        let received = carried.received_bytes.get().saturating_add(bytes);
        let total = received.saturating_add(carried.sent_bytes.get());
        if is_spent(self.quota.receive_bytes, received) || is_spent(self.quota.total_bytes, total) {
            return Err(DropReason::QuotaSpent);
        }
        charge(&mut self.receive, bytes, now_ms)
    }

    /// The same for one to the peer.
    pub(crate) fn send(
        &mut self,
        bytes: u64,
        carried: &SessionCounters,
        now_ms: u64,
    ) -> Result<(), DropReason> {
        let sent = carried.sent_bytes.get().saturating_add(bytes);
        let total = sent.saturating_add(carried.received_bytes.get());
        if is_spent(self.quota.send_bytes, sent) || is_spent(self.quota.total_bytes, total) {
            return Err(DropReason::QuotaSpent);
        }
        charge(&mut self.send, bytes, now_ms)
    }
}

fn is_spent(quota: Option<u64>, bytes: u64) -> bool {
    quota.is_some_and(|quota| bytes > quota)
}

fn charge(meter: &mut Option<Meter>, bytes: u64, now_ms: u64) -> Result<(), DropReason> {
    let passes = meter.as_mut().is_none_or(|it| it.take(bytes, now_ms));
    passes.then_some(()).ok_or(DropReason::RateLimited)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = 1_400;

    /// Octets that pass when a packet is offered each millisecond from `from_ms` on.
    fn offered(meter: &mut Meter, from_ms: u64, for_ms: u64) -> u64 {
        let times = from_ms..from_ms + for_ms;
        times.filter(|now_ms| meter.take(PACKET, *now_ms)).count() as u64 * PACKET
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_exactly_its_rate() {
        let rate = Rate {
            burst_bytes: 10 * PACKET,
            ..Rate::new(1_120_000)
        };
        let mut meter = Meter::full(rate, 5);
        let at_once = (0..100).filter(|_| meter.take(PACKET, 5)).count();
        assert_eq!(at_once, 10);
        // 140 octets a millisecond: a packet each ten of them.
        assert_eq!(offered(&mut meter, 6, 10_000), 1_400_000);
    }

    #[test]
    fn nothing_is_lost_to_rounding_at_low_rates() {
        let rate = Rate {
            burst_bytes: PACKET,
            ..Rate::new(33)
        };
        let mut meter = Meter::full(rate, 0);
        assert!(meter.take(PACKET, 0));
        // 1,400 octets are 11,200 bits: at 33 bit/s they take 339,394 ms.
        let next = (1..1_000_000).find(|now_ms| meter.take(PACKET, *now_ms));
        assert_eq!(next, Some(339_394));
    }

    #[test]
    fn a_pause_earns_no_more_than_the_burst() {
        let mut meter = Meter::full(Rate::new(8_000_000), 0);
        while meter.take(PACKET, 0) {}
        let after_a_year = (0..10_000).take_while(|_| meter.take(PACKET, 31_536_000_000));
        let burst = burst_bytes(8_000_000);
        assert_eq!(after_a_year.count() as u64, burst / PACKET);
        // A clock that goes back gives nothing, and does not panic.
        assert!(!meter.take(PACKET, 7));
        let mut endless = Meter::full(Rate::new(u64::MAX), 0);
        assert!(endless.take(1 << 50, u64::MAX));
    }

    #[test]
    fn the_burst_of_a_low_rate_lets_a_train_of_segments_pass() {
        let mut meter = Meter::full(Rate::new(64_000), 0);
        let passed = (0..45).filter(|_| meter.take(1_448 + 40, 0)).count();
        assert!(passed >= 44, "{passed} of 64 KiB in segments");
    }

    #[test]
    fn a_burst_passes_at_its_own_rate() {
        let rate = Rate {
            bps: 256_000,
            burst_bytes: 1_000_000,
            peak_bps: Some(512_000),
        };
        let mut meter = Meter::full(rate, 0);
        let passed = offered(&mut meter, 0, 2_000);
        // Without the second bucket it would be the whole burst.
        let due = burst_bytes(512_000) + 2 * 512_000 / 8;
        assert!(passed <= due && passed + 2 * PACKET > due, "{passed}");
        let passed = passed + offered(&mut meter, 2_000, 98_000);
        let due = 1_000_000 + 100 * 256_000 / 8;
        assert!(passed <= due && passed + 2 * PACKET > due, "{passed}");
    }

    #[test]
    fn another_rate_does_not_bring_a_new_burst() {
        let limits = |bps| TrafficLimits {
            send: Some(Rate::new(bps)),
            ..TrafficLimits::NONE
        };
        let carried = SessionCounters::default();
        let mut allowance = Allowance::new(&limits(1_000_000), None, 0).unwrap();
        while allowance.send(PACKET, &carried, 0).is_ok() {}
        let changed = Allowance::new(&limits(2_000_000), Some(&allowance), 0);
        let mut changed = changed.unwrap();
        assert_eq!(
            changed.send(PACKET, &carried, 0),
            Err(DropReason::RateLimited)
        );
        assert_eq!(changed.send(PACKET, &carried, 6), Ok(()));
        assert_eq!(changed.receive(PACKET, &carried, 0), Ok(()), "not limited");
        assert!(Allowance::new(&TrafficLimits::NONE, Some(&changed), 0).is_none());
    }

    #[test]
    fn a_quota_holds_to_the_octet_beyond_32_bits() {
        let gigabytes = 5 << 30;
        let with = |quota| {
            let limits = TrafficLimits {
                quota,
                ..TrafficLimits::NONE
            };
            Allowance::new(&limits, None, 0).unwrap()
        };
        let carried = SessionCounters::default();
        carried.received_bytes.add(gigabytes - 100);
        carried.sent_bytes.add(50);
        let spent = Err(DropReason::QuotaSpent);
        let mut of_receiving = with(Quota {
            receive_bytes: Some(gigabytes),
            ..Quota::default()
        });
        assert_eq!(of_receiving.receive(100, &carried, 0), Ok(()));
        assert_eq!(of_receiving.receive(101, &carried, 0), spent);
        assert_eq!(of_receiving.send(1 << 40, &carried, 0), Ok(()));
        let mut of_both = with(Quota {
            total_bytes: Some(gigabytes),
            ..Quota::default()
        });
        assert_eq!(of_both.receive(50, &carried, 0), Ok(()));
        assert_eq!(of_both.send(50, &carried, 0), Ok(()));
        assert_eq!(of_both.receive(51, &carried, 0), spent);
        assert_eq!(of_both.send(51, &carried, 0), spent);
        let mut of_sending = with(Quota {
            send_bytes: Some(60),
            ..Quota::default()
        });
        assert_eq!(of_sending.send(10, &carried, 0), Ok(()));
        assert_eq!(of_sending.send(11, &carried, 0), spent);
        assert_eq!(of_sending.receive(1, &carried, 0), Ok(()));
    }
}
