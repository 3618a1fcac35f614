//! The way in: GRE packets become IP packets for TUN, or PPP frames for control.

use crate::counters::DropReason;
use crate::frame::{Frame, Slots};
use crate::limits;
use crate::program::{CallId, TunId};
use crate::session::SessionTable;

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame is an IP packet: write it to this TUN device.
    Deliver {
        /// Session that it came through.
        call_id: CallId,
        /// Where to.
        tun: TunId,
    },
    /// The frame is a PPP frame that is not the data plane's: hand a copy to control.
    Punt {
        /// Session that it came through.
        call_id: CallId,
    },
    /// It goes no further, and has been counted.
    Drop(DropReason),
    /// A GRE packet without payload: it has done what it came for.
    Consumed,
}

/// One frame and its verdict. Whatever the verdict, the slot belongs to the caller again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The packet that the verdict speaks of.
    pub frame: Frame,
    /// What to do with it.
    pub verdict: Verdict,
}

/// Verdicts in the order of delivery; a fixed capacity of `limits::VERDICTS_MAX`.
#[derive(Debug)]
pub struct Batch {
    decided: Vec<Decided>,
}

impl Batch {
    /// An empty batch; the only allocation that it ever makes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            decided: Vec::with_capacity(limits::VERDICTS_MAX),
        }
    }

    /// Forgets all verdicts.
    pub fn clear(&mut self) {
        self.decided.clear();
    }

    /// The verdicts.
    #[must_use]
    pub fn as_slice(&self) -> &[Decided] {
        &self.decided
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes at most `limits::BATCH_PACKETS` received packets, each beginning with its outer IPv4
/// header as raw sockets deliver it, and appends verdicts to `out`, which must be empty.
///
/// Every slot comes out exactly once: now, or, when the packet is held until an earlier one comes,
/// from a later call of `decap`, [`release_expired`] or [`SessionTable::remove`].
///
/// # Panics
/// When `received` is longer than that, or `out` is not empty.
pub fn decap(
    sessions: &mut SessionTable,
    slots: &mut impl Slots,
    received: &[Frame],
    out: &mut Batch,
    now_ms: u64,
) {
    let _ = (sessions, slots, received, out, now_ms);
}

/// Gives up the gaps that have been waited for long enough, and appends what was behind them to
/// `out`, which must be empty. Bounded work: true when there is more to do at once.
pub fn release_expired(
    sessions: &mut SessionTable,
    slots: &mut impl Slots,
    out: &mut Batch,
    now_ms: u64,
) -> bool {
    let _ = (sessions, slots, out, now_ms);
    false
}
