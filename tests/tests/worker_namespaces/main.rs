//! Workers on this kernel: io_uring, raw GRE sockets and TUN devices in network namespaces.
//!
//! As root, or as anyone where user namespaces are permitted; elsewhere each test says why it does
//! nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod allocations;
mod namespaces;
mod ring;
mod tunnel;
