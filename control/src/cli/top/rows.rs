//! What `top` shows: sessions and tunnels as rows, with rates from one look to the next; sorted and
//! filtered.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::cli::sessions::columns::printable;
use crate::driver::admin::TunnelStatus;
use crate::driver::admin::records::SessionRecord;

/// One session of the server, or one tunnel of a client. What is received has come to this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    /// Never the same for two.
    pub(super) key: String,
    pub(super) name: String,
    pub(super) state: String,
    pub(super) interface: String,
    pub(super) peer: String,
    pub(super) ip: String,
    pub(super) cipher: String,
    pub(super) uptime_s: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) packets: u64,
    pub(super) lost: u64,
    pub(super) reordered: u64,
    pub(super) dropped: u64,
    /// Bits and packets a second.
    pub(super) receive_rate: f64,
    pub(super) send_rate: f64,
    pub(super) packet_rate: f64,
}

impl From<SessionRecord> for Row {
    fn from(session: SessionRecord) -> Self {
        Self {
            name: printable(&session.user),
            state: session.state,
            interface: session.interface,
            peer: session.peer,
            ip: session.ip.unwrap_or_default(),
            cipher: session.cipher.unwrap_or_default(),
            uptime_s: session.uptime_s,
            received: session.rx_bytes,
            sent: session.tx_bytes,
            packets: session.rx_packets + session.tx_packets,
            lost: session.lost,
            reordered: session.reordered,
            dropped: session.dropped,
            key: session.sid,
            ..Self::default()
        }
    }
}

impl From<TunnelStatus> for Row {
    fn from(tunnel: TunnelStatus) -> Self {
        Self {
            key: format!("tunnel {} {}", tunnel.name, tunnel.pid),
            name: tunnel.name,
            state: tunnel.state,
            interface: tunnel.interface,
            peer: tunnel.peer,
            ip: tunnel.local_ip.unwrap_or_default(),
            cipher: tunnel.cipher.unwrap_or_default(),
            uptime_s: tunnel.uptime_s.unwrap_or(0),
            received: tunnel.received_bytes,
            sent: tunnel.sent_bytes,
            packets: tunnel.received_packets + tunnel.sent_packets,
            lost: tunnel.lost,
            reordered: tunnel.reordered,
            dropped: tunnel.dropped,
            ..Self::default()
        }
    }
}

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Before {
    at: Option<Instant>,
    seen: HashMap<String, (u64, u64, u64)>,
}

impl Before {
    /// Fills in the rates since the last look.
    pub(super) fn rate(&mut self, rows: &mut [Row], now: Instant) {
        let seconds = self.at.replace(now).map(|at| (now - at).as_secs_f64());
        let before = std::mem::take(&mut self.seen);
        for row in rows {
            self.seen
                .insert(row.key.clone(), (row.received, row.sent, row.packets));
            let known = before.get(&row.key);
            let (Some(seconds), Some((received, sent, packets))) = (seconds, known) else {
                continue;
            };
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds.max(1e-3);
            row.receive_rate = 8.0 * rate(row.received, *received);
            row.send_rate = 8.0 * rate(row.sent, *sent);
            row.packet_rate = rate(row.packets, *packets);
        }
    }
}

/// A column, and what it sorts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Name,
    State,
    Peer,
    Ip,
    ReceiveRate,
    SendRate,
    PacketRate,
    Uptime,
    Received,
    Sent,
    Lost,
    Reordered,
    Dropped,
    Interface,
    Cipher,
}

impl Key {
    /// In the order of the screen; those behind do not fit a narrow one.
    pub(super) const ALL: [Self; 15] = [
        Self::Name,
        Self::State,
        Self::Peer,
        Self::Ip,
        Self::ReceiveRate,
        Self::SendRate,
        Self::Uptime,
        Self::PacketRate,
        Self::Received,
        Self::Sent,
        Self::Lost,
        Self::Reordered,
        Self::Dropped,
        Self::Interface,
        Self::Cipher,
    ];

    /// Whether the largest come first.
    pub(super) const fn is_descending(self) -> bool {
        !matches!(
            self,
            Self::Name | Self::State | Self::Peer | Self::Ip | Self::Interface | Self::Cipher
        )
    }

    pub(super) fn order(self, one: &Row, two: &Row) -> Ordering {
        let address = |text: &str| text.parse::<IpAddr>().ok();
        let order = match self {
            Self::Name => one.name.cmp(&two.name),
            Self::State => one.state.cmp(&two.state),
            Self::Peer => (address(&one.peer), &one.peer).cmp(&(address(&two.peer), &two.peer)),
            Self::Ip => address(&one.ip).cmp(&address(&two.ip)),
            Self::ReceiveRate => one.receive_rate.total_cmp(&two.receive_rate),
            Self::SendRate => one.send_rate.total_cmp(&two.send_rate),
            Self::PacketRate => one.packet_rate.total_cmp(&two.packet_rate),
            Self::Uptime => one.uptime_s.cmp(&two.uptime_s),
            Self::Received => one.received.cmp(&two.received),
            Self::Sent => one.sent.cmp(&two.sent),
            Self::Lost => one.lost.cmp(&two.lost),
            Self::Reordered => one.reordered.cmp(&two.reordered),
            Self::Dropped => one.dropped.cmp(&two.dropped),
            Self::Interface => one.interface.cmp(&two.interface),
            Self::Cipher => one.cipher.cmp(&two.cipher),
        };
        let order = if self.is_descending() {
            order.reverse()
        } else {
            order
        };
        // Rows that are equal keep their places from one look to the next.
        order.then_with(|| one.key.cmp(&two.key))
    }
}

/// Which rows are shown, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrangement {
    pub(super) sort: Key,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
}

impl Default for Arrangement {
    fn default() -> Self {
        Self {
            sort: Key::ReceiveRate,
            is_reversed: false,
            filter: String::new(),
        }
    }
}

impl Arrangement {
    /// The rows that are shown, in their order.
    pub(super) fn apply<'a>(&self, rows: &'a [Row]) -> Vec<&'a Row> {
        let mut shown: Vec<&Row> = rows.iter().filter(|row| self.shows(row)).collect();
        shown.sort_by(|one, two| {
            let order = self.sort.order(one, two);
            if self.is_reversed {
                order.reverse()
            } else {
                order
            }
        });
        shown
    }

    fn shows(&self, row: &Row) -> bool {
        let texts = [&row.name, &row.state, &row.peer, &row.ip, &row.interface];
        texts.iter().any(|text| text.contains(&self.filter))
    }

    /// Sorts by the column `by` places farther to the right.
    pub(super) fn move_sort(&mut self, by: isize) {
        let count = Key::ALL.len() as isize;
        let at = Key::ALL
            .iter()
            .position(|key| *key == self.sort)
            .unwrap_or(0) as isize;
        let next = (at + by).rem_euclid(count) as usize;
        self.sort = Key::ALL[next];
        self.is_reversed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn row(name: &str, received: u64) -> Row {
        Row {
            key: name.to_owned(),
            name: name.to_owned(),
            ip: format!("10.0.0.{}", received % 256),
            received,
            ..Row::default()
        }
    }

    #[test]
    fn rates_are_those_between_two_looks_at_the_same_session() {
        let (mut before, start) = (Before::default(), Instant::now());
        let mut rows = [row("mia", 1_000)];
        before.rate(&mut rows, start);
        assert_eq!(rows[0].receive_rate, 0.0, "nothing to compare with");
        let mut rows = [row("mia", 3_000), row("new", 5_000)];
        before.rate(&mut rows, start + Duration::from_secs(2));
        assert_eq!(rows[0].receive_rate, 8_000.0);
        assert_eq!(rows[1].receive_rate, 0.0);
    }

    #[test]
    fn rows_are_sorted_by_meaning_and_filtered_by_any_text() {
        let rows = [row("ann", 9), row("bob", 100), row("mia", 10)];
        let mut arrangement = Arrangement {
            sort: Key::Received,
            ..Arrangement::default()
        };
        let names = |arrangement: &Arrangement| {
            let shown = arrangement.apply(&rows);
            shown.iter().map(|row| row.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&arrangement), ["bob", "mia", "ann"]);
        arrangement.sort = Key::Ip;
        assert_eq!(names(&arrangement), ["ann", "mia", "bob"]);
        arrangement.is_reversed = true;
        assert_eq!(names(&arrangement), ["bob", "mia", "ann"]);
        "0.0.10".clone_into(&mut arrangement.filter);
        assert_eq!(names(&arrangement), ["bob", "mia"]);
        arrangement.move_sort(-4);
        assert_eq!(arrangement.sort, Key::Cipher, "round the left edge");
        assert!(!arrangement.is_reversed);
    }
}
