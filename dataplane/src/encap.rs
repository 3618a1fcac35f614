//! The way out: IP packets become PPP (RFC 1661), MPPE (RFC 3078) and GRE (RFC 2637 4.1) packets.

use crate::counters::DropReason;
use crate::frame::{Frame, Slots};
use crate::program::CallId;
use crate::session::{Session, SessionTable};

/// One packet on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The session that it goes through.
    pub call_id: CallId,
    /// Before: an IP packet with `limits::HEADROOM_BYTES` of headroom. After: a GRE packet.
    pub frame: Frame,
    /// Set when the packet must not be sent; its slot is free.
    pub dropped: Option<DropReason>,
}

impl Outgoing {
    /// A packet for `encap`.
    #[must_use]
    pub const fn new(call_id: CallId, frame: Frame) -> Self {
        Self {
            call_id,
            frame,
            dropped: None,
        }
    }
}

/// Puts a batch of IP packets, of any sessions, into GRE, in place. No outer IP header: the raw
/// socket adds it. Every packet is either ready to send to its session's `peer()`, or `dropped`.
pub fn encap(
    sessions: &mut SessionTable,
    slots: &mut impl Slots,
    batch: &mut [Outgoing],
    now_ms: u64,
) {
    let _ = (sessions, slots, batch, now_ms);
}

/// Puts one PPP frame of control's into GRE, never encrypted.
///
/// # Errors
/// The peer's Call ID is not known yet, or the headroom is too short: the frame must not be sent.
pub fn encap_control(
    session: &mut Session,
    slots: &mut impl Slots,
    frame: &mut Frame,
    now_ms: u64,
) -> Result<(), DropReason> {
    let _ = (session, slots, frame, now_ms);
    Err(DropReason::NoPeerCallId)
}

/// Makes `frame` a GRE packet without payload that acknowledges what was received; whatever was in
/// the slot is overwritten. False when nothing is owed or can be sent.
pub fn acknowledge(session: &mut Session, slots: &mut impl Slots, frame: &mut Frame) -> bool {
    let _ = (session, slots, frame);
    false
}
