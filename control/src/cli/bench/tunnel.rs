//! `pptp-fast bench tunnel`: what a whole tunnel carries, both ends on this machine.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, value_parser};
use serde::Serialize;

use crate::cli::demo::ping::ping;
use crate::cli::demo::throughput::{Measurement, measure_down, measure_together, measure_up};
use crate::cli::demo::{DataPlaneArguments, Progress, in_thread, rounded, with_tunnel};
use crate::cli::{fail, print_line, table};
use crate::driver::client::Up;
use crate::driver::log::Log;

/// Streams at a time where there are many.
const STREAMS: usize = 8;
const PINGS: u16 = 100;

/// Measure a tunnel in two network namespaces on this machine, both ends ours.
///
/// TCP is counted where it arrives. Each figure is the median of the rounds, which measure every
/// pattern in turn.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pptp-fast bench tunnel\n  \
    pptp-fast bench tunnel --seconds 6 --rounds 5 --json")]
pub(super) struct Tunnel {
    /// How long each pattern runs in each round.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How often every pattern is measured.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    rounds: u32,
    #[command(flatten)]
    data_plane: DataPlaneArguments,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// A way to load the tunnel.
#[derive(Clone, Copy)]
struct Pattern {
    label: &'static str,
    run: Measurement,
}

const PATTERNS: [Pattern; 4] = [
    Pattern {
        label: "one stream up",
        run: measure_up,
    },
    Pattern {
        label: "one stream down",
        run: measure_down,
    },
    Pattern {
        label: "eight streams up",
        run: |peer, span| measure_together(peer, span, &[measure_up as Measurement; STREAMS]),
    },
    Pattern {
        label: "both ways at once",
        run: |peer, span| measure_together(peer, span, &[measure_up, measure_down]),
    },
];

/// What was measured. Mbit/s of TCP payload; the sum where several streams run.
#[derive(Debug, Serialize)]
struct Report {
    /// Which socket the client's packets left through, and why.
    fast_path: String,
    cipher: String,
    mtu: u16,
    setup_ms: f64,
    ping_ms: f64,
    ping_p99_ms: f64,
    ping_lost: usize,
    tcp_up_mbps: f64,
    tcp_down_mbps: f64,
    tcp_8_streams_mbps: f64,
    tcp_both_ways_mbps: f64,
    seconds: u32,
    rounds: u32,
}

impl Tunnel {
    pub(super) fn run(&self) -> ExitCode {
        let measure = async |up| self.measure(up).await;
        let measured = with_tunnel(Log::default(), self.data_plane, measure);
        let measured = measured.map(|(report, fast_path)| Report {
            fast_path,
            ..report
        });
        match measured {
            Ok(report) if self.json => print_line(serde_json::json!(report)),
            Ok(report) => report.show(),
            Err(error) => return fail(format_args!("{error:#}"), 1),
        }
        ExitCode::SUCCESS
    }

    async fn measure(&self, up: Up) -> anyhow::Result<Report> {
        let peer = up.network.remote;
        let pings = in_thread("ping through the tunnel", move || ping(peer, PINGS)).await?;
        let span = Duration::from_secs(u64::from(self.seconds));
        let mut samples = [const { Vec::new() }; PATTERNS.len()];
        for _ in 0..self.rounds {
            for (pattern, samples) in PATTERNS.iter().zip(&mut samples) {
                let bar = Progress::start(pattern.label, span, self.json);
                let run = pattern.run;
                samples.push(in_thread(pattern.label, move || run(peer, span)).await?);
                bar.stop();
            }
        }
        let [up_mbps, down_mbps, streams_mbps, both_mbps] = samples.map(|s| rounded(median(s)));
        anyhow::ensure!(!pings.is_empty(), "no ping came back through the tunnel");
        let at = |share: usize| pings.get((pings.len() * share / 100).min(pings.len() - 1));
        Ok(Report {
            fast_path: String::new(),
            cipher: up.network.cipher,
            mtu: up.network.mtu,
            setup_ms: rounded(up.setup.as_secs_f64() * 1000.0),
            ping_ms: rounded(at(50).copied().unwrap_or_default()),
            ping_p99_ms: rounded(at(99).copied().unwrap_or_default()),
            ping_lost: usize::from(PINGS) - pings.len(),
            tcp_up_mbps: up_mbps,
            tcp_down_mbps: down_mbps,
            tcp_8_streams_mbps: streams_mbps,
            tcp_both_ways_mbps: both_mbps,
            seconds: self.seconds,
            rounds: self.rounds,
        })
    }
}

impl Report {
    fn show(&self) {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        table::print(
            &["PATTERN", "MEDIAN"],
            &[
                row("one stream up", format!("{:.0} Mbit/s", self.tcp_up_mbps)),
                row(
                    "one stream down",
                    format!("{:.0} Mbit/s", self.tcp_down_mbps),
                ),
                row(
                    "eight streams up",
                    format!("{:.0} Mbit/s", self.tcp_8_streams_mbps),
                ),
                row(
                    "both ways at once",
                    format!("{:.0} Mbit/s", self.tcp_both_ways_mbps),
                ),
                row(
                    "ping",
                    format!("{:.2} ms, p99 {:.2} ms", self.ping_ms, self.ping_p99_ms),
                ),
            ],
        );
        print_line(format_args!(
            "{}, MTU {}; {} rounds of {} s each",
            self.cipher, self.mtu, self.rounds, self.seconds
        ));
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}
