//! A flood of small UDP packets. iperf3 spends more on such a packet than a tunnel does, so the
//! sender here is a loop around one socket, and the receiving end only counts: its kernel counts
//! every datagram for an open port, also those that it then drops because nobody reads them.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::figure::{Figure, Sample};
use crate::namespaces::End;
use crate::process;

pub(crate) const PORT: u16 = 5210;
const PAYLOAD_BYTES: usize = 64;
/// Packets between two looks at the clock.
const BURST: u64 = 64;

/// Sends as fast as it can for `duration` and prints how many packets the kernel took.
pub(crate) fn send(to: SocketAddrV4, duration: Duration) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    let payload = [0x5a; PAYLOAD_BYTES];
    let start = Instant::now();
    let (mut sent, mut refused) = (0_u64, 0_u64);
    while start.elapsed() < duration {
        for _ in 0..BURST {
            match socket.send(&payload) {
                Ok(_) => sent += 1,
                Err(_) => refused += 1,
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({ "sent": sent, "refused": refused, "seconds": seconds })
    );
    Ok(())
}

/// Keeps the port open until killed; nothing is read.
pub(crate) fn keep_port_open() -> Result<()> {
    let _socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    println!("open");
    loop {
        std::thread::park();
    }
}

/// UDP datagrams that have reached open ports of `end`, read or not.
pub(crate) fn arrived(end: &End) -> Result<u64> {
    count_arrived(&process::quick(end.command("cat").arg("/proc/net/snmp"))?)
}

fn count_arrived(snmp: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = lines.next().context("no UDP counters")?.split(' ');
    let values = lines.next().context("no UDP counters")?.split(' ');
    let counted = |name: &str| matches!(name, "InDatagrams" | "RcvbufErrors");
    names
        .zip(values)
        .filter(|(name, _)| counted(name))
        .map(|(_, value)| value.parse::<u64>().context("a UDP counter is no number"))
        .sum()
}

/// What the sender printed, and what arrived meanwhile.
pub(crate) fn samples(output: &str, arrived: u64) -> Result<Vec<Sample>> {
    let report: Value = serde_json::from_str(output).context("the flood printed no JSON")?;
    let seconds = report["seconds"].as_f64().context("no seconds")?;
    let sent = report["sent"].as_f64().context("no count")?;
    Ok(vec![
        Sample(Figure::SmallPackets, arrived as f64 / seconds),
        Sample(Figure::SmallPacketsOffered, sent / seconds),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_that_nobody_reads_count_as_arrived() {
        let snmp = "Tcp: 1 2\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\n\
            Udp: 10 5 700 3 700\n";
        assert_eq!(count_arrived(snmp).ok(), Some(710));
    }
}
