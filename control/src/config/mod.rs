//! Raw text to validated types: pppd options, peers files, secrets, pptpd.conf, server TOML.
//!
//! ```text
//! words          pppd's word grammar: quotes, backslashes, comments; with lines for errors
//! option_table   every option of pppd and its dialects: what it takes and what we do with it
//! pppd_options   files and words of options -> PppdOptions; `file`, `call`, `dump`
//! peers          /etc/ppp/peers/NAME: is there a tunnel, which server, which routes
//! route          pptp-command's `# Route:` lines
//! secrets        chap-secrets and pap-secrets
//! nt_hashes      NT hashes in place of passwords, as others write them
//! fast_path      whether GRE may go past the IP stack
//! network_manager  NetworkManager's connections of its PPTP plugin, in pppd's words
//! check          what becomes of every option of a configuration
//! client         ClientConfig: what `up` needs
//! pptpd_conf     pptpd.conf and its options file -> ServerConfig
//! server_toml    our own server file           -> ServerConfig
//! within         its numbers: each has bounds, which an error names
//! access         its sections on who may connect, and how often log-ins may fail
//! pools          its sections on addresses and their leases -> PoolConfig, LeasesConfig
//! traffic        its section on traffic        -> TrafficConfig
//! rates          rate limits in everyone's grammar -> RateLimit
//! radius         its section on RADIUS         -> RadiusConfig
//! radius_client  radiusclient.conf, servers    -> RadiusConfig
//! server         ServerConfig: what `serve` needs
//! operation      how a server is watched and operated
//! source         every file is read here: whole, bounded, and forgotten
//! error          what can be wrong, with its place, and with what to do about it
//! edit           the same files, changed: atomically, and without touching what others wrote
//! address_spec   192.168.0.1-254 and friends   -> AddressRanges
//! ```
//!
//! Nothing here reads the environment, the clock or the network. The directory that pppd knows as
//! `/etc/ppp` is always an argument.

mod access;
pub(crate) mod address_spec;
pub mod check;
pub mod client;
pub mod edit;
pub mod error;
pub mod fast_path;
pub mod network_manager;
mod nt_hashes;
pub mod operation;
pub mod option_table;
pub mod peers;
pub mod pools;
pub mod pppd_options;
pub mod pptpd_conf;
pub mod radius;
mod radius_client;
pub mod rates;
pub mod route;
pub mod secrets;
pub mod server;
pub mod server_toml;
mod source;
mod toml_words;
pub mod traffic;
mod within;
pub mod words;

pub use crate::proto::pool::AddressRanges;
pub use client::{ClientConfig, Flags};
pub use error::{ConfigError, Place};
pub use pppd_options::PppdOptions;
pub use secrets::{FileSecrets, FlagSecret};
pub use server::ServerConfig;

/// pppd's directory when nobody says otherwise (`PPPDIR`).
pub const PPP_DIR: &str = "/etc/ppp";
/// PPTP's registered TCP port (RFC 2637 3.1.1).
pub const PPTP_PORT: u16 = 1723;
