//! The Extensible Authentication Protocol (RFC 3748), both ends, with MD5-Challenge
//! (RFC 3748 5.4) and MS-CHAPv2 (draft-kamath-pppext-eap-mschapv2), whose keys are those of
//! MS-CHAPv2 itself. One of the two is agreed on, with a Nak at most, and there is no other then.
//!
//! Success is not acknowledged and may get lost. What the network layers of the authenticator send
//! then says as much (RFC 3748 4.2), to a peer for which the method has succeeded.

mod authenticator;
mod pass_through;
mod peer;

pub(super) use authenticator::{EapAuthenticator, Proved};
pub(super) use pass_through::EapPassThrough;
pub(super) use peer::EapPeer;

use super::outbox::Context;
use crate::wire::chap::ChapPacket;
use crate::wire::eap::EapPacket;

/// Requests of one conversation, repetitions aside: more than any needs, and pppd's
/// `eap-max-rreq`.
const ROUNDS_MAX: u32 = 20;

/// OpCodes of MS-CHAPv2 inside EAP: they are CHAP's codes.
const OP_SUCCESS: u8 = 3;
const OP_FAILURE: u8 = 4;

/// Whether an EAP method must make keys, for MPPE is required.
fn needs_keys(ctx: &Context<'_>) -> bool {
    ctx.mppe.is_some_and(|mppe| mppe.require)
}

/// The OpCode of a type 26 packet; its one-octet forms end there.
fn op_code(packet: &EapPacket<'_>) -> Option<u8> {
    packet.data.first().copied()
}

/// A type 26 packet has the form of a CHAP packet (draft 2).
fn inner<'a>(packet: &EapPacket<'a>) -> Option<ChapPacket<'a>> {
    ChapPacket::parse(packet.data).ok()
}
