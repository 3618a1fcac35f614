//! What is measured, the same for every system: each measurement is a command in the client's
//! end and the figures that are read from what it prints.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::figure::{Figure, Sample};
use crate::flood;
use crate::iperf;
use crate::namespaces::Namespaces;
use crate::process;

/// Beyond its own time a measurement may take this long to start and to finish.
const GRACE: Duration = Duration::from_secs(20);
const PINGS: u32 = 100;

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measurement {
    Ping,
    TcpOneStream,
    TcpReverse,
    TcpEightStreams,
    TcpBothDirections,
    UdpSmallPackets,
}

impl Measurement {
    /// In the order in which they run: latency first, while the tunnel is fresh and idle.
    pub(crate) const ALL: [Self; 6] = [
        Self::Ping,
        Self::TcpOneStream,
        Self::TcpReverse,
        Self::TcpEightStreams,
        Self::TcpBothDirections,
        Self::UdpSmallPackets,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ping => "ping, idle",
            Self::TcpOneStream => "TCP, one stream",
            Self::TcpReverse => "TCP, one stream, server to client",
            Self::TcpEightStreams => "TCP, 8 streams",
            Self::TcpBothDirections => "TCP, both directions at once",
            Self::UdpSmallPackets => "UDP flood, 64 octets each",
        }
    }

    /// How long it runs.
    pub(crate) fn duration(self, seconds: u32) -> Duration {
        match self {
            Self::Ping => Duration::from_millis(10) * PINGS,
            _ => Duration::from_secs(seconds.into()),
        }
    }

    /// The command as a person would type it in the client's namespace.
    pub(crate) fn command(self, server: Ipv4Addr, seconds: u32) -> String {
        let iperf = format!("iperf3 --json --client {server} --time {seconds}");
        match self {
            Self::Ping => format!("ping -n -c {PINGS} -i 0.01 {server}"),
            Self::TcpOneStream => iperf,
            Self::TcpReverse => iperf + " --reverse",
            Self::TcpEightStreams => iperf + " --parallel 8",
            Self::TcpBothDirections => iperf + " --bidir",
            Self::UdpSmallPackets => format!(
                "pptp-fast-perf flood {server}:{} --seconds {seconds}",
                flood::PORT
            ),
        }
    }

    /// Runs it once through the tunnel to `server`.
    pub(crate) fn run(
        self,
        namespaces: &Namespaces,
        server: Ipv4Addr,
        seconds: u32,
    ) -> Result<Vec<Sample>> {
        let words = self.command(server, seconds);
        let before = flood::arrived(&namespaces.server)?;
        let mut words = words.split_whitespace();
        let program = match words.next().context("an empty command")? {
            "pptp-fast-perf" => std::env::current_exe()?,
            other => other.into(),
        };
        let mut command = namespaces.client.command(program);
        command.args(words);
        let output = process::run(&mut command, self.duration(seconds) + GRACE)?;
        match self {
            Self::Ping => round_trips(&output),
            Self::TcpOneStream => iperf::one_way(&output, Figure::OneStream),
            Self::TcpReverse => iperf::one_way(&output, Figure::Reverse),
            Self::TcpEightStreams => iperf::one_way(&output, Figure::EightStreams),
            Self::TcpBothDirections => iperf::both_ways(&output),
            Self::UdpSmallPackets => {
                let arrived = flood::arrived(&namespaces.server)? - before;
                flood::samples(&output, arrived)
            }
        }
    }
}

/// Median and 99th percentile of the `time=0.123 ms` that ping prints, and how many did not come.
fn round_trips(output: &str) -> Result<Vec<Sample>> {
    let mut times_us: Vec<f64> = output
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
        .map(|time_ms: f64| time_ms * 1000.0)
        .collect();
    times_us.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (times_us.len() as f64 * share).ceil() as usize;
        times_us.get(index.saturating_sub(1)).copied()
    };
    let lost = f64::from(PINGS) - times_us.len() as f64;
    Ok(vec![
        Sample(Figure::PingMedian, at(0.5).context("no ping came back")?),
        Sample(Figure::PingP99, at(0.99).context("no ping came back")?),
        Sample(Figure::PingLost, lost),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_give_nearest_rank_percentiles_and_count_the_lost() {
        let output: String = (1..=98)
            .map(|n| format!("64 bytes from 10.99.0.1: icmp_seq={n} ttl=64 time=0.{n:03} ms\n"))
            .collect();
        let samples = round_trips(&output).unwrap_or_default();
        let values: Vec<f64> = samples.iter().map(|sample| sample.1.round()).collect();
        assert_eq!(values, [49.0, 98.0, 2.0]);
    }

    #[test]
    fn no_reply_at_all_is_an_error() {
        assert!(round_trips("100 packets transmitted, 0 received").is_err());
    }
}
