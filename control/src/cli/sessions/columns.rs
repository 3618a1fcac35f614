//! Columns of a session, with the names that `accel-cmd show sessions` has for them.

use std::cmp::Ordering;
use std::net::IpAddr;

use crate::cli::table;
use crate::driver::admin::records::SessionRecord;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: fn(&SessionRecord) -> Cell,
}

/// What stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Absent,
    Text(String),
    Number(u64),
    /// Octets, as a person writes them.
    Bytes(u64),
    /// Seconds, as accel-ppp writes them.
    Seconds(u64),
}

/// Those that are shown unless others are named: accel-ppp's, and what has been carried.
pub(super) const DEFAULT: [&str; 9] = [
    "ifname",
    "username",
    "calling-sid",
    "ip",
    "comp",
    "state",
    "uptime",
    "rx-bytes",
    "tx-bytes",
];

/// All of them.
pub(super) const ALL: [Column; 33] = [
    column("ifname", "interface", |it| text(&it.interface)),
    column("username", "user name, proved", |it| text(&it.user)),
    column("calling-sid", "outer address of the client", |it| {
        text(&it.peer)
    }),
    column("called-sid", "outer address that it called", |it| {
        text(&it.called)
    }),
    column("ip", "address of the client inside", |it| some(&it.ip)),
    column("ip6", "link-local address of the client inside", |it| {
        some(&it.ip6)
    }),
    column("ip6-dp", "delegated prefix: none", |_| Cell::Absent),
    column("type", "pptp", |_| Cell::Text("pptp".to_owned())),
    column("state", "start, active or finish", |it| text(&it.state)),
    column("uptime", "since the call came", |it| {
        Cell::Seconds(it.uptime_s)
    }),
    column("uptime-raw", "the same in seconds", |it| {
        Cell::Number(it.uptime_s)
    }),
    column("rate-limit", "down/up in kbit/s", |it| some(&it.rate_limit)),
    column("rx-bytes", "from the client", |it| Cell::Bytes(it.rx_bytes)),
    column("tx-bytes", "to the client", |it| Cell::Bytes(it.tx_bytes)),
    column("rx-bytes-raw", "the same in octets", |it| {
        Cell::Number(it.rx_bytes)
    }),
    column("tx-bytes-raw", "the same in octets", |it| {
        Cell::Number(it.tx_bytes)
    }),
    column("rx-pkts", "packets from the client", |it| {
        Cell::Number(it.rx_packets)
    }),
    column("tx-pkts", "packets to the client", |it| {
        Cell::Number(it.tx_packets)
    }),
    column("comp", "encryption", |it| some(&it.cipher)),
    column(
        "inbound-if",
        "not known: GRE comes from any interface",
        |_| Cell::Absent,
    ),
    column("service-name", "PPPoE's: none", |_| Cell::Absent),
    column("netns", "not used", |_| Cell::Absent),
    column("vrf", "not used", |_| Cell::Absent),
    column("sid", "unique name of the session", |it| text(&it.sid)),
    column("call-id", "our call ID", |it| {
        Cell::Number(it.call_id.into())
    }),
    column("peer-call-id", "the client's call ID", |it| {
        it.peer_call_id
            .map_or(Cell::Absent, |id| Cell::Number(id.into()))
    }),
    column("host-name", "what the client calls itself", |it| {
        text(&it.host_name)
    }),
    column("local-ip", "our address inside", |it| some(&it.local_ip)),
    column("worker", "which worker carries it", |it| {
        Cell::Number(it.worker.into())
    }),
    column("lost", "GRE packets that never came", |it| {
        Cell::Number(it.lost)
    }),
    column("reordered", "packets put back into order", |it| {
        Cell::Number(it.reordered)
    }),
    column("dropped", "packets dropped", |it| Cell::Number(it.dropped)),
    column(
        "mppe-resyncs",
        "times MPPE was brought back into step",
        |it| Cell::Number(it.mppe_resyncs),
    ),
];

const fn column(
    name: &'static str,
    help: &'static str,
    value: fn(&SessionRecord) -> Cell,
) -> Column {
    Column { name, help, value }
}

/// The column of this name.
pub(super) fn find(name: &str) -> Result<Column, String> {
    let found = ALL.iter().find(|column| column.name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|column| column.name).collect();
        format!(
            "no column is called '{name}'; there are {}",
            names.join(", ")
        )
    })
}

/// For the help of the command line.
pub(super) fn list() -> String {
    let lines = ALL
        .iter()
        .map(|it| format!("  {:<13} {}\n", it.name, it.help));
    lines.collect()
}

fn text(text: &str) -> Cell {
    if text.is_empty() {
        Cell::Absent
    } else {
        Cell::Text(text.to_owned())
    }
}

fn some(value: &Option<String>) -> Cell {
    value.as_deref().map_or(Cell::Absent, text)
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => Ok(()),
            Self::Text(text) => f.write_str(&printable(text)),
            Self::Number(number) => number.fmt(f),
            Self::Bytes(count) => f.write_str(&table::bytes(*count)),
            Self::Seconds(seconds) => {
                let (days, rest) = (seconds / 86_400, seconds % 86_400);
                if days > 0 {
                    write!(f, "{days}.")?;
                }
                write!(
                    f,
                    "{:02}:{:02}:{:02}",
                    rest / 3600,
                    rest / 60 % 60,
                    rest % 60
                )
            }
        }
    }
}

/// What a client calls itself must not steer a terminal.
pub(in crate::cli) fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(safe).collect()
}

impl From<Cell> for serde_json::Value {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Absent => Self::Null,
            Cell::Text(text) => text.into(),
            Cell::Number(number) | Cell::Bytes(number) | Cell::Seconds(number) => number.into(),
        }
    }
}

impl Cell {
    /// Numbers by size, addresses as addresses, what is absent first.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let number = |cell: &Self| match cell {
            Self::Number(number) | Self::Bytes(number) | Self::Seconds(number) => Some(*number),
            Self::Absent | Self::Text(_) => None,
        };
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => {
                match (one.parse::<IpAddr>(), two.parse::<IpAddr>()) {
                    (Ok(one), Ok(two)) => one.cmp(&two),
                    _ => one.cmp(two),
                }
            }
            (one, two) => {
                let is_text = |cell: &Self| matches!(cell, Self::Text(_));
                (is_text(one), number(one)).cmp(&(is_text(two), number(two)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_name_of_its_own_and_the_usual_ones_exist() {
        for (index, column) in ALL.iter().enumerate() {
            let same = ALL.iter().skip(index + 1).any(|it| it.name == column.name);
            assert!(!same, "{}", column.name);
        }
        for name in DEFAULT {
            assert!(find(name).is_ok(), "{name}");
        }
        assert!(find("Username").unwrap_err().contains("username, "));
    }

    #[test]
    fn cells_read_as_accel_ppp_writes_them_and_sort_by_meaning() {
        assert_eq!(Cell::Seconds(3_723).to_string(), "01:02:03");
        assert_eq!(Cell::Seconds(90_061).to_string(), "1.01:01:01");
        assert_eq!(Cell::Text("a\u{1b}[2J".to_owned()).to_string(), "a?[2J");
        let text = |text: &str| Cell::Text(text.to_owned());
        assert_eq!(text("10.0.0.9").order(&text("10.0.0.10")), Ordering::Less);
        assert_eq!(text("mia").order(&text("ann")), Ordering::Greater);
        assert_eq!(Cell::Bytes(9).order(&Cell::Bytes(10)), Ordering::Less);
        assert_eq!(Cell::Absent.order(&text("a")), Ordering::Less);
    }
}
