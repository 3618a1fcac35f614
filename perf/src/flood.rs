//! Floods of UDP packets. iperf3 spends more on a small packet than a tunnel does, so the sender
//! here is a loop around one socket. The receiving end never reads: what arrives at its port is
//! what its kernel drops there, and that is counted. Counters of a whole host would not do, since a
//! tunnel may be made of UDP itself.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use crate::figure::{Figure, Sample};
use crate::namespaces::End;
use crate::process;

pub(crate) const PORT: u16 = 5210;
/// Octets of IPv4 and UDP headers.
const HEADERS_BYTES: usize = 28;
/// Packets between two looks at the clock.
const BURST: u64 = 64;
/// Pause between two bursts of a steady flow.
const PAUSE: Duration = Duration::from_micros(500);

/// What is sent.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Flow {
    /// Octets of payload.
    #[arg(long, default_value_t = 64)]
    pub(crate) octets: usize,
    /// Mbit/s of IP packets; without it, as many as the socket takes.
    #[arg(long)]
    pub(crate) mbit: Option<u32>,
    #[arg(long)]
    pub(crate) seconds: u64,
}

/// Sends for the time asked for and prints how many packets the kernel took.
pub(crate) fn send(to: SocketAddrV4, flow: Flow) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    let payload = vec![0x5a; flow.octets];
    let packet_bits = ((flow.octets + HEADERS_BYTES) * 8) as f64;
    let packets_a_second = flow.mbit.map(|mbit| f64::from(mbit) * 1e6 / packet_bits);
    let start = Instant::now();
    let (mut sent, mut refused) = (0_u64, 0_u64);
    while start.elapsed().as_secs() < flow.seconds {
        let due = packets_a_second.map_or(BURST, |rate| {
            let due = (start.elapsed().as_secs_f64() * rate) as u64;
            due.saturating_sub(sent + refused)
        });
        for _ in 0..due {
            match socket.send(&payload) {
                Ok(_) => sent += 1,
                Err(_) => refused += 1,
            }
        }
        if packets_a_second.is_some() {
            thread::sleep(PAUSE);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({ "sent": sent, "refused": refused, "seconds": seconds, "octets": flow.octets })
    );
    Ok(())
}

/// Keeps the port open until killed; nothing is read.
pub(crate) fn keep_port_open() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    // The kernel's minimum: one packet waits, all others are dropped and counted.
    setsockopt(&socket, sockopt::RcvBuf, &0)?;
    println!("open");
    loop {
        thread::park();
    }
}

/// What an end has counted since it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Datagrams that came to the port of the flood.
    arrived: u64,
    /// Packets that a network interface was to send and dropped: a tunnel's queue was full.
    dropped_sending: u64,
    /// Packets dropped before a program that reads a socket: a tunnel's receive queue was full.
    dropped_receiving: u64,
}

/// A flood as both ends saw it.
pub(crate) struct Seen {
    report: Value,
    arrived: f64,
    dropped_sending: f64,
    dropped_receiving: f64,
}

impl Counts {
    pub(crate) fn read(end: &End) -> Result<Self> {
        let file = |path: &str| process::quick(end.command("cat").arg(path));
        let udp = file("/proc/net/udp")?;
        let port = format!(":{PORT:04X}");
        let is_flood = |local: &str| local.ends_with(&port);
        let tunnels = drops(&udp, |local| !is_flood(local))?;
        Ok(Self {
            arrived: drops(&udp, is_flood)?,
            dropped_sending: dropped_by_interfaces(&file("/proc/net/dev")?)?,
            dropped_receiving: tunnels + drops(&file("/proc/net/raw")?, |_| true)?,
        })
    }
}

/// The last column of a table of sockets, added up over those with such a local address.
fn drops(table: &str, is_counted: impl Fn(&str) -> bool) -> Result<u64> {
    let sockets = table.lines().skip(1).map(|line| {
        let mut words = line.split_whitespace();
        (words.nth(1).unwrap_or_default(), words.next_back())
    });
    sockets
        .filter(|(local, _)| is_counted(local))
        .map(|(_, drops)| {
            let drops = drops.context("a socket without counters")?;
            drops.parse::<u64>().context("a counter is no number")
        })
        .sum()
}

/// The dropped ones among transmitted packets, over all interfaces: of eight columns each for
/// receiving and transmitting, the fourth.
fn dropped_by_interfaces(dev: &str) -> Result<u64> {
    let interfaces = dev.lines().skip(2).filter_map(|line| line.split_once(':'));
    interfaces
        .map(|(_, counters)| {
            let dropped = counters.split_whitespace().nth(11);
            let dropped = dropped.context("an interface without counters")?;
            dropped.parse::<u64>().context("a counter is no number")
        })
        .sum()
}

impl Seen {
    /// From what the sender printed, and what the client's and the server's end counted before and
    /// after.
    pub(crate) fn new(output: &str, before: [Counts; 2], after: [Counts; 2]) -> Result<Self> {
        let more = |end: usize, count: fn(&Counts) -> u64| {
            count(&after[end]).saturating_sub(count(&before[end])) as f64
        };
        Ok(Self {
            report: serde_json::from_str(output).context("the flood printed no JSON")?,
            arrived: more(1, |counts| counts.arrived),
            dropped_sending: more(0, |counts| counts.dropped_sending),
            dropped_receiving: more(1, |counts| counts.dropped_receiving),
        })
    }

    fn number(&self, name: &str) -> Result<f64> {
        let number = self.report[name].as_f64();
        number.with_context(|| format!("the flood printed no {name}"))
    }

    /// Of a flood of small packets.
    pub(crate) fn small_packets(&self) -> Result<Vec<Sample>> {
        let seconds = self.number("seconds")?;
        Ok(vec![
            Sample(Figure::SmallPackets, self.arrived / seconds),
            Sample(Figure::SmallPacketsOffered, self.number("sent")? / seconds),
        ])
    }

    /// Of a steady flow.
    pub(crate) fn steady_flow(&self) -> Result<Vec<Sample>> {
        let packet_bits = (self.number("octets")? + HEADERS_BYTES as f64) * 8.0;
        let offered = self.number("sent")? + self.number("refused")?;
        let lost = 100.0 * (offered - self.arrived).max(0.0) / offered.max(1.0);
        let mbit = self.arrived * packet_bits / self.number("seconds")? / 1e6;
        Ok(vec![
            Sample(Figure::SteadyUdp, mbit),
            Sample(Figure::SteadyUdpLost, lost),
            Sample(Figure::SteadyUdpDroppedSending, self.dropped_sending),
            Sample(Figure::SteadyUdpDroppedReceiving, self.dropped_receiving),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnels_own_datagrams_are_not_counted_as_arrived() {
        let udp = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt  \
            uid  timeout inode ref pointer drops\n\
            1: 00000000:145A 00000000:0000 07 0:0 0:0 0 0 0 1 2 0 700\n\
            2: 00000000:CA6C 00000000:0000 07 0:0 0:0 0 0 0 1 2 0 3\n";
        assert_eq!(drops(udp, |local| local.ends_with(":145A")).ok(), Some(700));
        assert_eq!(drops(udp, |local| !local.ends_with(":145A")).ok(), Some(3));
    }

    #[test]
    fn dropped_packets_of_all_interfaces_add_up() {
        let dev = "Inter-|   Receive\n face |bytes\n\
            ppp0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
            lo: 0 0 0 0 0 0 0 0 0 0 0 30 0 0 0 0\n";
        assert_eq!(dropped_by_interfaces(dev).ok(), Some(42));
    }

    #[test]
    fn what_does_not_arrive_is_lost_wherever_that_was() {
        let zero = Counts {
            arrived: 0,
            dropped_sending: 0,
            dropped_receiving: 0,
        };
        let client = Counts {
            dropped_sending: 40,
            ..zero
        };
        let server = Counts {
            arrived: 150,
            dropped_receiving: 10,
            ..zero
        };
        let output = r#"{"sent": 190, "refused": 10, "seconds": 2.0, "octets": 972}"#;
        let seen = Seen::new(output, [zero; 2], [client, server]);
        let samples = seen.and_then(|seen| seen.steady_flow()).unwrap_or_default();
        let values: Vec<f64> = samples.iter().map(|sample| sample.1).collect();
        assert_eq!(values, [0.6, 25.0, 40.0, 10.0]);
    }
}
