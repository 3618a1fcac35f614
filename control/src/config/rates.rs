//! How fast a session may be, as chap-secrets, RADIUS and operators write it.
//!
//! | where | grammar | unit | example: 2 Mbit/s to the client, 512 kbit/s from it |
//! | --- | --- | --- | --- |
//! | fifth column of chap-secrets, `Filter-Id` (accel-ppp's shaper) | `down/up`, or one number for both | kbit/s | `2000/512` |
//! | `WISPr-Bandwidth-Max-Down`, `-Max-Up` | a number each | bit/s | `2000000`, `512000` |
//! | `Mikrotik-Rate-Limit` | `rx[/tx] [burst [threshold [time [priority [min]]]]]`, seen from the router, so that rx is from the client | bit/s, k, M, G | `512k/2M` |
//! | `Cisco-AVPair`, one for each direction | `lcp:interface-config#1=rate-limit output [access-group ACL] RATE BURST BURST ...`; `input` is from the client | bit/s, octets | `... output 2000000 8000 8000 ...`, `... input 512000 8000 8000 ...` |
//!
//! 0 is no limit everywhere.

use std::fmt;

use dataplane::rate_limit::{Rate, burst_bytes};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Nobody's line is faster; more is a mistake.
const BPS_MAX: u64 = 1_000_000_000_000;
/// RouterOS' average is over so many seconds at most here.
const BURST_TIME_S_MAX: u64 = 3_600;
/// `1s`, RouterOS' default.
const BURST_TIME_S: u64 = 1;

/// The rates of one session. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// To the client.
    pub down: Option<Rate>,
    /// From the client.
    pub up: Option<Rate>,
}

/// Why a text is no rate limit: its writer's mistake.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RateError {
    /// Not `down/up` in kbit/s.
    #[error("'{0}' is not a rate limit such as 2000/512 (down/up in kbit/s) or 1000 (both)")]
    DownUp(String),
    /// Not RouterOS' grammar.
    #[error(
        "'{0}' is not a rate limit such as 512k/2M (from the client/to it) or 64k/128k 128k/256k \
         64k/128k 10/10"
    )]
    Mikrotik(String),
    /// Not Cisco's grammar.
    #[error(
        "'{0}' is not a rate limit such as lcp:interface-config#1=rate-limit output 2000000 8000 \
         8000 conform-action transmit exceed-action drop (input is from the client)"
    )]
    Cisco(String),
}

impl RateLimit {
    /// `down/up` in kbit/s, or one number for both; accel-ppp takes `\` and `:` for `/`, too.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse_down_up(text: &str) -> Result<Self, RateError> {
        let error = || RateError::DownUp(shown(text));
        let (down, up) = match text.trim().split_once(['/', '\\', ':']) {
            Some(both) => both,
            None => (text.trim(), text.trim()),
        };
        let rate = |digits| {
            let kbps = number(digits).ok_or_else(error)?;
            plain(kbps.saturating_mul(1_000)).ok_or_else(error)
        };
        Ok(Self {
            down: rate(down)?,
            up: rate(up)?,
        })
    }

    /// Whether a `Filter-Id` is meant for a rate, and not for the name of a filter.
    #[must_use]
    pub fn is_meant_by(filter_id: &str) -> bool {
        filter_id.trim().starts_with(|c: char| c.is_ascii_digit())
    }

    /// What the attributes of the WISPr name: bits a second.
    #[must_use]
    pub fn of_wispr(down_bps: Option<u32>, up_bps: Option<u32>) -> Self {
        let rate = |bps: Option<u32>| bps.filter(|bps| *bps > 0).map(|bps| Rate::new(bps.into()));
        Self {
            down: rate(down_bps),
            up: rate(up_bps),
        }
    }

    /// RouterOS' grammar. Of a burst, RouterOS lets pass at its rate until the average over its
    /// time reaches the threshold, which takes threshold * time / burst rate; that many octets more
    /// than the rate itself are the burst of our bucket. Priorities and minimal rates order queues,
    /// which we have none of.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse_mikrotik(text: &str) -> Result<Self, RateError> {
        mikrotik(text).ok_or_else(|| RateError::Mikrotik(shown(text)))
    }

    /// Cisco's grammar, of which each text is about one direction. A limit of everything counts
    /// before one of an access group, which has no meaning here (in accel-ppp it is a time of day);
    /// of several alike, the first. What becomes of packets over the rate is not looked at: they
    /// are dropped.
    ///
    /// # Errors
    /// One of the texts is something else.
    pub fn parse_cisco(texts: &[String]) -> Result<Self, RateError> {
        let mut limits = Vec::with_capacity(texts.len());
        for text in texts {
            limits.push(cisco(text).ok_or_else(|| RateError::Cisco(shown(text)))?);
        }
        limits.sort_by_key(|limit| limit.is_of_group);
        let first = |is_output| limits.iter().find(|limit| limit.is_output == is_output);
        Ok(Self {
            down: first(true).and_then(|limit| limit.rate),
            up: first(false).and_then(|limit| limit.rate),
        })
    }

    /// Nothing is limited.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.down.is_none() && self.up.is_none()
    }
}

/// As accel-cmd shows it: `down/up` in kbit/s.
impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kbps = |rate: Option<Rate>| rate.map_or(0, |rate| rate.bps.div_ceil(1_000));
        write!(f, "{}/{}", kbps(self.down), kbps(self.up))
    }
}

/// Numbers in one word of RouterOS: from the client, and to it.
type Pair = (u64, u64);

fn mikrotik(text: &str) -> Option<RateLimit> {
    let mut words = text.split_ascii_whitespace();
    let rates = pair(words.next()?, bits)?;
    let bursts = words.next().map_or(Some((0, 0)), |word| pair(word, bits))?;
    let thresholds = words.next().map_or(Some(rates), |word| pair(word, bits))?;
    let default_times = (BURST_TIME_S, BURST_TIME_S);
    let times = words.next();
    let times = times.map_or(Some(default_times), |word| pair(word, seconds))?;
    let priorities = words
        .next()
        .map_or(Some((8, 8)), |word| pair(word, number))?;
    let _minimal = words.next().map_or(Some(rates), |word| pair(word, bits))?;
    let is_priority = |priority| (1..=8).contains(&priority);
    if words.next().is_some() || !is_priority(priorities.0) || !is_priority(priorities.1) {
        return None;
    }
    Some(RateLimit {
        up: with_burst(rates.0, bursts.0, thresholds.0, times.0)?,
        down: with_burst(rates.1, bursts.1, thresholds.1, times.1)?,
    })
}

/// What one text of Cisco's grammar says.
struct CiscoLimit {
    is_output: bool,
    is_of_group: bool,
    rate: Option<Rate>,
}

fn cisco(text: &str) -> Option<CiscoLimit> {
    let (_, command) = text.split_once('=')?;
    let mut words = command.split_ascii_whitespace().peekable();
    words.next_if_eq(&"rate-limit")?;
    let is_output = match words.next()? {
        "output" => true,
        "input" => false,
        _ => return None,
    };
    let is_of_group = words.next_if_eq(&"access-group").is_some();
    if is_of_group {
        words.next()?;
    }
    let rate = plain(number(words.next()?)?)?;
    let (normal, _most) = (number(words.next()?)?, number(words.next()?)?);
    let is_over = words.next().is_none_or(|word| word == "conform-action");
    is_over.then_some(CiscoLimit {
        is_output,
        is_of_group,
        // Those who write them think of a router's queue: with 4,096 octets TCP would starve.
        rate: rate.map(|rate| Rate {
            burst_bytes: normal.max(rate.burst_bytes),
            ..rate
        }),
    })
}

/// One direction; `Some(None)` is no limit.
fn with_burst(bps: u64, burst_bps: u64, threshold_bps: u64, time_s: u64) -> Option<Option<Rate>> {
    let rate = plain(bps)?;
    if burst_bps <= bps {
        return Some(rate);
    }
    plain(burst_bps)?;
    let bits = u128::from(burst_bps - bps) * u128::from(threshold_bps) * u128::from(time_s);
    let extra = u64::try_from(bits / u128::from(burst_bps) / 8).ok()?;
    Some(rate.map(|rate| Rate {
        burst_bytes: extra.max(burst_bytes(bps)),
        peak_bps: Some(burst_bps),
        ..rate
    }))
}

/// `Some(None)` is no limit, `None` too much.
fn plain(bps: u64) -> Option<Option<Rate>> {
    (bps <= BPS_MAX).then(|| (bps > 0).then(|| Rate::new(bps)))
}

fn pair(word: &str, read: fn(&str) -> Option<u64>) -> Option<Pair> {
    match word.split_once('/') {
        Some((receive, send)) => Some((read(receive)?, read(send)?)),
        None => read(word).map(|both| (both, both)),
    }
}

/// `64k`, `2M`, `128000`.
fn bits(text: &str) -> Option<u64> {
    const UNITS: [([char; 2], u64); 3] = [
        (['k', 'K'], 1_000),
        (['m', 'M'], 1_000_000),
        (['g', 'G'], 1_000_000_000),
    ];
    for (suffix, unit) in UNITS {
        if let Some(digits) = text.strip_suffix(suffix) {
            return number(digits)?.checked_mul(unit);
        }
    }
    number(text)
}

/// `8`, `8s`.
fn seconds(text: &str) -> Option<u64> {
    number(text.strip_suffix('s').unwrap_or(text)).filter(|time_s| *time_s <= BURST_TIME_S_MAX)
}

/// Digits alone: what `parse` takes, but for a sign.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    text.bytes().all(|c| c.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

/// In an error, which goes into the log.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bps(rate: Option<Rate>) -> u64 {
        rate.map_or(0, |rate| rate.bps)
    }

    fn both(limit: RateLimit) -> (u64, u64) {
        (bps(limit.down), bps(limit.up))
    }

    /// The examples of accel-ppp's manual: `Filter-Id=1000` is 1000 kbit/s both ways,
    /// `Filter-Id=2000/3000` is 2000 kbit/s down and 3000 kbit/s up.
    #[test]
    fn down_and_up_are_read_as_accel_ppp_reads_them() {
        let read = |text| RateLimit::parse_down_up(text).map(both);
        assert_eq!(read("1000"), Ok((1_000_000, 1_000_000)));
        assert_eq!(read("2000/3000"), Ok((2_000_000, 3_000_000)));
        assert_eq!(read("2000\\3000"), Ok((2_000_000, 3_000_000)));
        assert_eq!(read(" 2000:3000 "), Ok((2_000_000, 3_000_000)));
        assert_eq!(read("0/512"), Ok((0, 512_000)));
        for text in [
            "",
            "/",
            "1000/",
            "/1000",
            "10M",
            "1/2/3",
            "-1",
            "+1",
            "1.5",
            "gold",
            "1 2",
            "18446744073709551616",
            "2000000000",
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("2000/512"), "{text}: {error}");
        }
        assert!(RateLimit::is_meant_by("2000/512") && !RateLimit::is_meant_by("gold"));
    }

    #[test]
    fn wispr_counts_bits() {
        let limit = RateLimit::of_wispr(Some(2_000_000), Some(512_000));
        assert_eq!(both(limit), (2_000_000, 512_000));
        assert_eq!(both(RateLimit::of_wispr(None, Some(9))), (0, 9));
        assert!(RateLimit::of_wispr(Some(0), None).is_none());
    }

    /// "From the point of view of the router (so rx is client upload, and tx is client download).
    /// All rates should be numbers with optional 'k' (1,000s) or 'M' (1,000,000s). If tx-rate is
    /// not specified, rx-rate is as tx-rate too."
    #[test]
    fn rates_are_read_as_routeros_reads_them() {
        let read = |text| RateLimit::parse_mikrotik(text).map(both);
        assert_eq!(read("64k/128k"), Ok((128_000, 64_000)));
        assert_eq!(read("2M"), Ok((2_000_000, 2_000_000)));
        assert_eq!(read("128000/1G"), Ok((1_000_000_000, 128_000)));
        assert_eq!(read("0/2M"), Ok((2_000_000, 0)));
        let all = "512k/2M 1M/4M 256k/1M 8/8 5 128k/512k";
        assert_eq!(read(all), Ok((2_000_000, 512_000)));
        for text in [
            "",
            "x",
            "64k/",
            "64kk",
            "k",
            "64k 128k 64k 8 9",
            "64k 128k 64k 8 0",
            "-64k",
            "64k 128k 64k 8 8 64k 1",
            "64k/1M/2M",
            "2000G",
            "64k 128k 64k 4000",
            "99999999999999999999",
            "64k 128k 64k 1m",
            "\u{b5}",
            "1\u{b5}",
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("512k/2M"), "{text}: {error}");
        }
    }

    /// RouterOS' manual: with max-limit 256k, burst-limit 512k, burst-threshold 192k and a
    /// burst-time of 8 s, bursts end after 3 s.
    #[test]
    fn a_burst_lasts_as_long_as_routeros_lets_it() {
        let limit = RateLimit::parse_mikrotik("256k 512k 192k 8s").unwrap();
        let rate = limit.down.unwrap();
        assert_eq!((rate.bps, rate.peak_bps), (256_000, Some(512_000)));
        assert_eq!(rate.burst_bytes, 3 * (512_000 - 256_000) / 8);
        assert_eq!(limit.up, limit.down);
    }

    /// "If both rx-burst-threshold and tx-burst-threshold are not specified (but burst-rate is
    /// specified), rx-rate and tx-rate is used as burst thresholds. If both rx-burst-time and
    /// tx-burst-time are not specified, 1s is used as default."
    #[test]
    fn what_a_burst_leaves_out_is_routeros_default() {
        let short = RateLimit::parse_mikrotik("4M/8M 8M/16M").unwrap();
        let long = RateLimit::parse_mikrotik("4M/8M 8M/16M 4M/8M 1/1 8").unwrap();
        assert_eq!(short, long);
        // A burst that is no faster than the rate is none.
        let none = RateLimit::parse_mikrotik("4M 2M").unwrap();
        assert_eq!(none, RateLimit::parse_mikrotik("4M").unwrap());
    }

    /// The examples of accel-ppp's README and manual.
    #[test]
    fn pairs_of_cisco_are_read_as_accel_ppp_reads_them() {
        let read = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            RateLimit::parse_cisco(&texts)
        };
        let rates = |texts: &[&str]| read(texts).map(both);
        let pair = |words: &str| {
            format!(
                "lcp:interface-config#1=rate-limit {words} conform-action transmit \
                 exceed-action drop"
            )
        };
        let output = pair("output access-group 101 8192000 4096 4096");
        let input = pair("input 2000000 8000 8000");
        assert_eq!(rates(&[&output]), Ok((8_192_000, 0)));
        assert_eq!(rates(&[&input]), Ok((0, 2_000_000)));
        assert_eq!(rates(&[&input, &output]), Ok((8_192_000, 2_000_000)));
        let of_all = pair("output 1000000 8000 8000");
        assert_eq!(rates(&[&output, &of_all]), Ok((1_000_000, 0)));
        assert_eq!(rates(&[&pair("output 0 8000 8000")]), Ok((0, 0)));
        let large = read(&[&pair("output 8000 1000000 2000000")]).unwrap();
        assert_eq!(large.down.unwrap().burst_bytes, 1_000_000);
        assert_eq!(read(&[&input]).unwrap().up, Some(Rate::new(2_000_000)));
        for words in [
            "output",
            "output 8000 1500",
            "output 8000 1500 1500 drop",
            "output access-group 8000 1500 1500",
            "output 8M 1500 1500",
            "output 9999999999999 1500 1500",
            "both 8000 1500 1500",
            "output -8000 1500 1500",
        ] {
            let error = rates(&[&input, &pair(words)]).unwrap_err().to_string();
            assert!(error.contains("2000000 8000 8000"), "{words}: {error}");
        }
    }

    #[test]
    fn it_is_shown_as_accel_cmd_shows_it() {
        let limit = RateLimit::parse_mikrotik("512k/2M").unwrap();
        assert_eq!(limit.to_string(), "2000/512");
        assert_eq!(
            RateLimit::parse_down_up("0/100").unwrap().to_string(),
            "0/100"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_rate_limit_or_an_error(text in ".{0,60}") {
            let _ = RateLimit::parse_mikrotik(&text);
            let _ = RateLimit::parse_down_up(&text);
            let _ = RateLimit::parse_cisco(&[text]);
        }

        #[test]
        fn what_looks_like_a_rate_limit_does_not_overflow(text in "[0-9kMG/ s]{0,60}") {
            let _ = RateLimit::parse_mikrotik(&text);
            let _ = RateLimit::parse_down_up(&text);
        }
    }
}
