//! The control plane: everything that is seen only while a tunnel is negotiated, kept or ended.
//!
//! ```text
//! wire/    bytes of PPTP control messages and PPP negotiation packets, and pppd's log grammar
//! crypto/  password hashes, challenge responses, key derivation (RFC 1994, 2433, 2759, 3079)
//! proto/   the state machines: events in, actions out, no I/O, clock or randomness of their own
//! config/  pppd options, peers, secrets, pptpd.conf, server TOML: text -> validated types
//! driver/  the only clock, sockets, threads and child processes
//! cli/     one file a command
//! ```
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod crypto;
pub mod driver;
pub mod proto;
pub mod wire;
