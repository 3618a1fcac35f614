//! What is measured, the same for every system: each measurement is a command in the client's
//! end and the figures that are read from what it prints.

use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::figure::{Figure, Sample};
use crate::flood::{self, Counts, Seen};
use crate::iperf;
use crate::namespaces::{Namespaces, TUNNEL_MTU};
use crate::process::{self, Process};

/// Beyond its own time a measurement may take this long to start and to finish.
const GRACE: Duration = Duration::from_secs(20);
const PINGS: u32 = 100;
const PING_INTERVAL: Duration = Duration::from_millis(10);
/// A stream has this long to reach its speed before the pings beside it begin.
const STREAM_START: Duration = Duration::from_millis(500);
/// Payload of the steady flow: packets of 1400 octets with IPv4 and UDP header.
const STEADY_OCTETS: u16 = TUNNEL_MTU - 28;

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measurement {
    Ping,
    TcpOneStream,
    TcpReverse,
    TcpEightStreams,
    TcpBothDirections,
    UdpSmallPackets,
    UdpSteadyFlow,
    PingBesideTcp,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Length of a throughput measurement.
    pub(crate) seconds: u32,
    /// Rate of the steady flow.
    pub(crate) udp_mbit: u32,
}

impl Measurement {
    /// In the order in which they run: latency first, while the tunnel is fresh and idle.
    pub(crate) const ALL: [Self; 8] = [
        Self::Ping,
        Self::TcpOneStream,
        Self::TcpReverse,
        Self::TcpEightStreams,
        Self::TcpBothDirections,
        Self::UdpSmallPackets,
        Self::UdpSteadyFlow,
        Self::PingBesideTcp,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ping => "ping, idle",
            Self::TcpOneStream => "TCP, one stream",
            Self::TcpReverse => "TCP, one stream, server to client",
            Self::TcpEightStreams => "TCP, 8 streams",
            Self::TcpBothDirections => "TCP, both directions at once",
            Self::UdpSmallPackets => "UDP flood, 64 octets each",
            Self::UdpSteadyFlow => "UDP, steady flow",
            Self::PingBesideTcp => "ping beside a TCP stream",
        }
    }

    /// How long it runs.
    pub(crate) fn duration(self, amount: Amount) -> Duration {
        match self {
            Self::Ping => PING_INTERVAL * PINGS,
            _ => Duration::from_secs(amount.seconds.into()),
        }
    }

    /// The command as a person would type it in the client's namespace.
    pub(crate) fn command(self, server: Ipv4Addr, amount: Amount) -> String {
        let seconds = amount.seconds;
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
            Self::UdpSteadyFlow => format!(
                "pptp-fast-perf flood {server}:{} --seconds {seconds} --octets {STEADY_OCTETS} \
                 --mbit {}",
                flood::PORT,
                amount.udp_mbit
            ),
            Self::PingBesideTcp => {
                let pings = loaded_pings(amount);
                format!("ping -n -c {pings} -i 0.01 {server}")
            }
        }
    }

    /// Runs it once through the tunnel to `server`.
    pub(crate) fn run(
        self,
        namespaces: &Namespaces,
        server: Ipv4Addr,
        amount: Amount,
        log: &Path,
    ) -> Result<Vec<Sample>> {
        let words = self.command(server, amount);
        let counts = || -> Result<[Counts; 2]> {
            Ok([
                Counts::read(&namespaces.client)?,
                Counts::read(&namespaces.server)?,
            ])
        };
        let before = counts()?;
        let _load = match self {
            Self::PingBesideTcp => Some(start_stream(namespaces, server, amount, log)?),
            _ => None,
        };
        let mut words = words.split_whitespace();
        let program = match words.next().context("an empty command")? {
            "pptp-fast-perf" => std::env::current_exe()?,
            other => other.into(),
        };
        let mut command = namespaces.client.command(program);
        command.args(words);
        let output = process::run(&mut command, self.duration(amount) + GRACE)?;
        match self {
            Self::Ping => round_trips(&output, PINGS, IDLE),
            Self::PingBesideTcp => round_trips(&output, loaded_pings(amount), LOADED),
            Self::TcpOneStream => iperf::one_way(&output, Figure::OneStream),
            Self::TcpReverse => iperf::one_way(&output, Figure::Reverse),
            Self::TcpEightStreams => iperf::one_way(&output, Figure::EightStreams),
            Self::TcpBothDirections => iperf::both_ways(&output),
            Self::UdpSmallPackets => Seen::new(&output, before, counts()?)?.small_packets(),
            Self::UdpSteadyFlow => Seen::new(&output, before, counts()?)?.steady_flow(),
        }
    }
}

/// The stream begins before the pings and outlives them; it is killed when this is dropped.
fn start_stream(
    namespaces: &Namespaces,
    server: Ipv4Addr,
    amount: Amount,
    log: &Path,
) -> Result<Process> {
    let mut command = namespaces.client.command("iperf3");
    let server = server.to_string();
    let seconds = (Duration::from_secs(amount.seconds.into()) + GRACE).as_secs();
    command.args(["--client", &server, "--time", &seconds.to_string()]);
    command.arg("--forceflush");
    let mut stream = Process::start(&mut command, log)?;
    stream.wait_for("connected to", GRACE)?;
    thread::sleep(STREAM_START);
    Ok(stream)
}

fn loaded_pings(amount: Amount) -> u32 {
    amount.seconds * 1000 / PING_INTERVAL.as_millis() as u32
}

/// Median, 99th percentile, and how many did not come back.
type PingFigures = [Figure; 3];
const IDLE: PingFigures = [Figure::PingMedian, Figure::PingP99, Figure::PingLost];
const LOADED: PingFigures = [
    Figure::LoadedPingMedian,
    Figure::LoadedPingP99,
    Figure::LoadedPingLost,
];

/// From the `time=0.123 ms` that ping prints.
fn round_trips(output: &str, pings: u32, figures: PingFigures) -> Result<Vec<Sample>> {
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
    let lost = f64::from(pings) - times_us.len() as f64;
    Ok(vec![
        Sample(figures[0], at(0.5).context("no ping came back")?),
        Sample(figures[1], at(0.99).context("no ping came back")?),
        Sample(figures[2], lost),
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
        let samples = round_trips(&output, PINGS, IDLE).unwrap_or_default();
        let values: Vec<f64> = samples.iter().map(|sample| sample.1.round()).collect();
        assert_eq!(values, [49.0, 98.0, 2.0]);
    }

    #[test]
    fn no_reply_at_all_is_an_error() {
        assert!(round_trips("100 packets transmitted, 0 received", PINGS, IDLE).is_err());
    }
}
