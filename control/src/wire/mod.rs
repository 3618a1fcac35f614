//! Formats of what is exchanged while a tunnel is negotiated, kept or ended.
//!
//! Every protocol looks alike: a `Repr` (or an enum of messages) that only `parse` makes from
//! bytes, `buffer_len()`, and `emit(&mut [u8])`, which fills the first `buffer_len()` octets (a
//! shorter buffer is the caller's mistake, and panics). `parse(emit(x)) == x`; parsing any bytes
//! never panics and never allocates more than a small multiple of the input. All numbers are big
//! endian on the wire. [`log`] prints what is parsed in pppd's words.

use thiserror::Error;

pub mod ccp;
pub mod chap;
pub mod cp;
pub mod eap;
pub mod ipcp;
pub mod ipv6cp;
pub mod lcp;
pub mod log;
pub mod pap;
pub mod ppp;
pub mod pptp;
pub mod radius;

mod reader;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Fewer octets than the fixed part, or than a length field promises.
    #[error("truncated: {needed} octets needed, {got} there")]
    Truncated {
        /// Octets that the format needs.
        needed: usize,
        /// Octets that are there.
        got: usize,
    },
    /// A length field contradicts the format.
    #[error("bad length {0}")]
    BadLength(usize),
    /// A field has a value that the format does not allow.
    #[error("bad value {value:#x} in {field}")]
    BadValue {
        /// Name of the field, as in its RFC.
        field: &'static str,
        /// What stood there.
        value: u32,
    },
}
