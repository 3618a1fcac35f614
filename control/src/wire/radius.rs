//! Remote Authentication Dial In User Service: packets (RFC 2865 3), accounting (RFC 2866), EAP and
//! Message-Authenticator (RFC 2869), Microsoft's attributes (RFC 2548), dynamic authorization
//! (RFC 5176).
//!
//! [`Packet`] is a view of received octets whose structure has been proved; whether they come from
//! who shares our secret is for [`verify_reply`] and [`verify_request`] to say. An
//! [`AttributeList`] becomes a packet by [`access_request`], [`accounting_request`] or [`reply`],
//! all of which sign it.

mod attribute;
mod authenticator;
mod hidden;
mod packet;

pub use attribute::{AcctStatusType, AcctTerminateCause, ErrorCause, Kind};
pub use authenticator::{
    Forged, MessageAuthenticator, access_request, accounting_request, dynamic_request, reply,
    verify_reply, verify_request,
};
pub use hidden::{PASSWORD_BYTES_MAX, hide_password, hide_salted, reveal_password, reveal_salted};
pub use packet::{AttributeList, Authenticator, Code, PACKET_BYTES_MAX, Packet};
