//! What the protocols of one link share while they handle one event: time, timers, chance, and the
//! place where their outputs go.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::Time;
use super::ending::Ending;
use super::link::{LinkConfig, LinkOutput, LinkRole, MppeConfig, MppeLimit, Report};
use super::timer::{Timer, TimerTable};
use crate::wire::ppp::{self, HeaderCompression, Protocol};

/// A layer that can go up and down (RFC 1661 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Lcp,
    Ccp,
    Ipcp,
    Ipv6cp,
}

/// What a layer tells the link.
#[derive(Debug)]
pub(super) enum Signal {
    /// A Configure-Request and a Configure-Ack of ours are out or go out next: the peer may take
    /// the layer for open as soon as it has them.
    Configured,
    /// This-Layer-Up.
    Up,
    /// This-Layer-Down.
    Down,
    /// This-Layer-Finished.
    Finished,
    /// There is no going on.
    Failed(Failure),
    /// LCP's alone: the peer does not know this protocol.
    ProtocolRejected(Protocol),
}

/// Why the link cannot go on, for the peer and for a person.
#[derive(Debug)]
pub(super) struct Failure {
    /// Goes into the Terminate-Request.
    pub(super) reason: &'static str,
    pub(super) ending: Ending,
}

/// How many outputs may wait. One event makes about ten; what is beyond is a frame that the
/// network might as well have lost.
const OUTPUTS_MAX: usize = 64;

/// Rejects (and complaints) that may be sent in a burst, and how long until one more may be.
const REJECTS_MAX: u32 = 8;
const REJECT_INTERVAL_MS: u64 = 1_000;

/// Outputs of one link, in order.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) outputs: VecDeque<LinkOutput>,
    pub(super) signals: VecDeque<(Layer, Signal)>,
    /// How frames of all protocols but LCP are written, since LCP was opened.
    pub(super) compression: HeaderCompression,
    rejects_left: u32,
    rejects_counted_at: Time,
}

/// The first of `queue`. An empty queue gives its memory back: an idle tunnel has several of them,
/// and there may be thousands of idle tunnels.
pub(super) fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if first.is_none() && queue.capacity() > 0 {
        *queue = VecDeque::new();
    }
    first
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            outputs: VecDeque::new(),
            signals: VecDeque::new(),
            compression: HeaderCompression::default(),
            rejects_left: REJECTS_MAX,
            rejects_counted_at: Time::default(),
        }
    }
}

impl Outbox {
    /// Sends one packet of `protocol`.
    pub(super) fn send(&mut self, protocol: Protocol, packet: &[u8]) {
        if self.outputs.len() < OUTPUTS_MAX {
            let frame = ppp::frame(protocol, packet, self.compression);
            self.outputs.push_back(LinkOutput::Frame(frame));
        }
    }

    /// Says a line to a person.
    pub(super) fn report(&mut self, line: impl Into<String>) {
        if self.outputs.len() < OUTPUTS_MAX {
            let report = Report::Line(line.into());
            self.outputs.push_back(LinkOutput::Report(report));
        }
    }

    pub(super) fn push(&mut self, output: LinkOutput) {
        self.outputs.push_back(output);
    }

    pub(super) fn signal(&mut self, layer: Layer, signal: Signal) {
        self.signals.push_back((layer, signal));
    }

    /// Whether one more packet that only answers nonsense may go out now.
    pub(super) fn may_reject(&mut self, now: Time) -> bool {
        let passed_ms = now.0.saturating_sub(self.rejects_counted_at.0);
        let earned = u32::try_from(passed_ms / REJECT_INTERVAL_MS).unwrap_or(u32::MAX);
        if earned > 0 {
            self.rejects_left = self.rejects_left.saturating_add(earned).min(REJECTS_MAX);
            self.rejects_counted_at = now;
        }
        if self.rejects_left == 0 {
            return false;
        }
        self.rejects_left -= 1;
        true
    }
}

/// What a link owns beside its protocols.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) config: Arc<LinkConfig>,
    /// How the verdict on the peer narrows `config.mppe`.
    pub(super) mppe_limit: MppeLimit,
    pub(super) role: LinkRole,
    pub(super) rng: ChaCha12Rng,
    pub(super) timers: TimerTable,
    pub(super) outbox: Outbox,
}

impl Surroundings {
    pub(super) fn new(config: Arc<LinkConfig>, role: LinkRole, seed: [u8; 32]) -> Self {
        Self {
            config,
            mppe_limit: MppeLimit::default(),
            role,
            rng: ChaCha12Rng::from_seed(seed),
            timers: TimerTable::default(),
            outbox: Outbox::default(),
        }
    }

    /// The MPPE of this session.
    pub(super) fn mppe(&self) -> Option<MppeConfig> {
        self.mppe_limit.narrow(self.config.mppe)
    }

    pub(super) fn at(&mut self, now: Time) -> Context<'_> {
        Context {
            now,
            mppe: self.mppe(),
            config: &self.config,
            role: self.role,
            rng: &mut self.rng,
            timers: &mut self.timers,
            outbox: &mut self.outbox,
        }
    }
}

/// Everything around a protocol while it handles one event.
pub(super) struct Context<'a> {
    pub(super) now: Time,
    pub(super) config: &'a LinkConfig,
    /// The MPPE of this session, in place of `config.mppe`.
    pub(super) mppe: Option<MppeConfig>,
    pub(super) role: LinkRole,
    pub(super) rng: &'a mut ChaCha12Rng,
    pub(super) timers: &'a mut TimerTable,
    pub(super) outbox: &'a mut Outbox,
}

impl Context<'_> {
    /// Sets `timer` that far from now; 0 is never.
    pub(super) const fn limit(&mut self, timer: Timer, limit_ms: u64) {
        if limit_ms > 0 {
            self.timers.set(timer, self.now.after_ms(limit_ms));
        }
    }
}

/// Text of a stranger, made fit for a log: printable ASCII, bounded.
pub(super) fn printable(octets: &[u8]) -> String {
    const CHARS_MAX: usize = 255;
    octets
        .iter()
        .take(CHARS_MAX)
        .map(|&octet| match octet {
            b' '..=b'~' => char::from(octet),
            _ => '.',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_are_bounded_in_a_burst_and_come_back_with_time() {
        let mut outbox = Outbox::default();
        let sent = (0..100).filter(|_| outbox.may_reject(Time(0))).count();
        assert_eq!(sent, REJECTS_MAX as usize);
        assert!(!outbox.may_reject(Time(999)));
        assert!(outbox.may_reject(Time(1_000)));
        assert!(!outbox.may_reject(Time(1_000)));
    }

    #[test]
    fn outputs_are_bounded() {
        let mut outbox = Outbox::default();
        for _ in 0..1_000 {
            outbox.send(Protocol::LCP, &[9, 0, 0, 4]);
            outbox.report("line");
        }
        assert_eq!(outbox.outputs.len(), OUTPUTS_MAX);
    }

    #[test]
    fn what_a_stranger_says_is_printable() {
        assert_eq!(printable(b"bye\n\x1b[2J"), "bye..[2J");
        assert_eq!(printable(&[b'x'; 1_000]).len(), 255);
    }
}
