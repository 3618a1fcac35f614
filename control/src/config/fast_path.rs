//! Whether the fast path may be taken.

use clap::ValueEnum;
use serde::Deserialize;

/// How GRE packets leave and arrive. Firewalls, queueing disciplines and packet captures of this
/// host do not see what the fast path sends, so it must be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FastPathMode {
    /// Through an AF_XDP or packet socket while the next hop is known for certain, and through a
    /// packet ring, as long as nothing on this host has to see the packets; through the raw socket
    /// otherwise.
    Auto,
    /// Through the raw socket, always.
    #[default]
    Off,
}
