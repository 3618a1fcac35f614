//! How much of the log strangers can fill: one line for each source and reason, then a count when a
//! minute has passed; and of calls that nobody has logged in with, the first lines only.
//!
//! Both tables have a fixed number of places. When they are full, what is left out is still
//! counted.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::proto::Time;
use crate::proto::refusal::Refusal;

/// From the first line about a source to the count of the rest.
const NOTICE_MS: u64 = 60_000;
/// Sources and reasons at a time; others are only counted.
const NOTICES_MAX: usize = 64;
/// For so long lines about calls are counted.
const CALLS_MS: u64 = 10_000;
/// Lines about calls of one source in that time: some ten failed log-ins.
const LINES_PER_PEER_MAX: u32 = 60;
/// Lines about calls of everybody.
const LINES_MAX: u32 = 600;
/// Sources whose lines are counted; further ones share a place.
const PEERS_MAX: usize = 1_024;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    notices: BTreeMap<(Ipv4Addr, Refusal), Notice>,
    others: BTreeMap<Refusal, u64>,
    others_since: Time,
    calls: Calls,
}

#[derive(Debug)]
struct Notice {
    since: Time,
    more: u64,
}

/// Lines about calls without a log-in.
#[derive(Debug, Default)]
struct Calls {
    since: Time,
    by_peer: BTreeMap<Ipv4Addr, u32>,
    written: u32,
    left_out: u64,
}

impl Quiet {
    /// Whether there is to be a line about this refusal now.
    pub(super) fn may_notice(&mut self, now: Time, peer: Ipv4Addr, refusal: Refusal) -> bool {
        let is_full = self.notices.len() >= NOTICES_MAX;
        if let Some(notice) = self.notices.get_mut(&(peer, refusal)) {
            notice.more += 1;
            return false;
        }
        if is_full {
            if self.others.is_empty() {
                self.others_since = now;
            }
            *self.others.entry(refusal).or_default() += 1;
            return false;
        }
        let notice = Notice {
            since: now,
            more: 0,
        };
        self.notices.insert((peer, refusal), notice);
        true
    }

    /// Whether there is to be a line about a call of `peer` that nobody has logged in with.
    pub(super) fn may_say(&mut self, now: Time, peer: Ipv4Addr) -> bool {
        let calls = &mut self.calls;
        if calls.written == 0 && calls.left_out == 0 {
            calls.since = now;
        }
        let has_place = calls.by_peer.len() < PEERS_MAX || calls.by_peer.contains_key(&peer);
        let place = if has_place {
            peer
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let of_peer = calls.by_peer.entry(place).or_default();
        let may_say = *of_peer < LINES_PER_PEER_MAX && calls.written < LINES_MAX;
        if may_say {
            *of_peer += 1;
            calls.written += 1;
        } else {
            calls.left_out += 1;
        }
        may_say
    }

    /// Counts of what was left out, of periods that are over: to be asked for every second or so.
    pub(super) fn sum_up(&mut self, now: Time) -> Vec<String> {
        let is_over = |since: Time, ms: u64| since.after_ms(ms) <= now;
        let mut lines = Vec::new();
        self.notices.retain(|(peer, refusal), notice| {
            let is_over = is_over(notice.since, NOTICE_MS);
            if is_over && notice.more > 0 {
                lines.push(format!("[{peer}] {} times more: {refusal}", notice.more));
            }
            !is_over
        });
        if !self.others.is_empty() && is_over(self.others_since, NOTICE_MS) {
            let others = std::mem::take(&mut self.others);
            let counts = others.iter();
            let counts = counts.map(|(it, count)| format!("{} {count}", it.name()));
            let counts = counts.collect::<Vec<_>>().join(", ");
            lines.push(format!("turned away from other sources: {counts}"));
        }
        if is_over(self.calls.since, CALLS_MS) {
            let left_out = std::mem::take(&mut self.calls).left_out;
            if left_out > 0 {
                lines.push(format!(
                    "{left_out} lines about calls that nobody logged in with were left out"
                ));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn a_source_has_one_line_a_minute_for_each_reason_and_then_a_count() {
        let mut quiet = Quiet::default();
        assert!(quiet.may_notice(Time(5), PEER, Refusal::NotPptp));
        assert!(quiet.may_notice(Time(5), PEER, Refusal::LogIn));
        for _ in 0..1_000 {
            assert!(!quiet.may_notice(Time(9), PEER, Refusal::NotPptp));
        }
        assert!(quiet.sum_up(Time(60_004)).is_empty());
        let expected = format!("[192.0.2.1] 1000 times more: {}", Refusal::NotPptp);
        assert_eq!(quiet.sum_up(Time(60_005)), [expected]);
        assert!(quiet.may_notice(Time(60_005), PEER, Refusal::NotPptp));
    }

    #[test]
    fn ever_so_many_sources_have_a_bounded_number_of_lines() {
        let mut quiet = Quiet::default();
        let mut lines = 0;
        for n in 0..100_000_u32 {
            let peer = Ipv4Addr::from_bits(n);
            lines += usize::from(quiet.may_notice(Time(1), peer, Refusal::SourceDenied));
            lines += usize::from(quiet.may_say(Time(1), peer));
        }
        assert_eq!(lines, NOTICES_MAX + LINES_MAX as usize);
        assert!(quiet.calls.by_peer.len() <= PEERS_MAX + 1);
        let sums = quiet.sum_up(Time(60_001));
        assert_eq!(
            sums,
            [
                "turned away from other sources: source_denied 99936",
                "99400 lines about calls that nobody logged in with were left out"
            ]
        );
        assert!(quiet.sum_up(Time(200_000)).is_empty());
    }

    #[test]
    fn one_source_cannot_use_up_the_lines_of_others() {
        let mut quiet = Quiet::default();
        let said = (0..1_000).filter(|_| quiet.may_say(Time(0), PEER)).count();
        assert_eq!(said, LINES_PER_PEER_MAX as usize);
        assert!(quiet.may_say(Time(0), Ipv4Addr::LOCALHOST));
        quiet.sum_up(Time(CALLS_MS));
        assert!(quiet.may_say(Time(CALLS_MS), PEER));
    }
}
