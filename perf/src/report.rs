//! What comes of it: `latest.json` with every sample, a page with charts, a table to look at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::chart::{self, Bar};
use crate::figure::{Figure, Series};
use crate::machine::Machine;
use crate::namespaces::TUNNEL_MTU;
use crate::systems::System;

/// Everything that was measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    pub(crate) commit: String,
    /// What whoever ran it has to say.
    pub(crate) note: Option<String>,
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) systems: Vec<Measured>,
    pub(crate) left_out: Vec<LeftOut>,
    /// What failed, in words.
    pub(crate) troubles: Vec<String>,
}

/// One system and its figures.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) version: String,
    /// The programs of the tunnel, server first.
    pub(crate) commands: Vec<String>,
    #[serde(serialize_with = "only_values")]
    pub(crate) figures: BTreeMap<Figure, Series>,
}

/// A system that could not be measured, and why.
#[derive(Debug, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) name: &'static str,
    pub(crate) reason: String,
}

impl Measured {
    pub(crate) fn new(system: &dyn System, version: &str) -> Self {
        Self {
            name: system.name(),
            description: system.description(),
            version: version.to_owned(),
            commands: Vec::new(),
            figures: BTreeMap::new(),
        }
    }

    fn is_ours(&self) -> bool {
        self.name.starts_with("pptp-fast")
    }

    fn median(&self, figure: Figure) -> Option<f64> {
        self.figures.get(&figure).map(|series| series.median)
    }
}

fn only_values<S: serde::Serializer>(
    figures: &BTreeMap<Figure, Series>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(figures.values())
}

/// A chart: its file, title and figure.
const CHARTS: [(&str, &str, Figure); 6] = [
    (
        "one-stream.svg",
        "TCP, one stream (Mbit/s, more is better)",
        Figure::OneStream,
    ),
    (
        "both-directions.svg",
        "TCP, both directions at once, sum (Mbit/s, more is better)",
        Figure::BothDirections,
    ),
    (
        "small-packets.svg",
        "UDP packets of 64 octets delivered (a second, more is better)",
        Figure::SmallPackets,
    ),
    (
        "latency.svg",
        "Ping through the idle tunnel, median (us, less is better)",
        Figure::PingMedian,
    ),
    (
        "latency-p99.svg",
        "Ping through the idle tunnel, 99th percentile (us, less is better)",
        Figure::PingP99,
    ),
    (
        "latency-loaded.svg",
        "Ping beside one TCP stream, median (us, less is better)",
        Figure::LoadedPingMedian,
    ),
];

/// Writes `latest.json`, the charts and README.md into `folder`.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<()> {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    file(
        "latest.json",
        &(serde_json::to_string_pretty(results)? + "\n"),
    )?;
    for (name, title, figure) in CHARTS {
        file(name, &chart::bars(title, &bars(results, figure)))?;
    }
    file("README.md", &page(results))
}

/// The bare cable would dwarf all tunnels in a chart of throughput, so it is in the table alone;
/// a latency can only be judged beside its own.
fn bars(results: &Results, figure: Figure) -> Vec<Bar> {
    let latency = figure.unit() == "us";
    results
        .systems
        .iter()
        .filter(|measured| latency || measured.name != "no-tunnel")
        .filter_map(|measured| {
            let series = measured.figures.get(&figure)?;
            Some(Bar {
                label: measured.name.to_owned(),
                value: series.median,
                min: series.min,
                max: series.max,
                ours: measured.is_ours(),
            })
        })
        .collect()
}

/// The table for a terminal: medians, a column for each headline.
pub(crate) fn summary(results: &Results) -> String {
    let mut text = format!("{:<22}", "median");
    let names = [
        "TCP",
        "reverse",
        "8 streams",
        "both",
        "UDP 64 B",
        "ping",
        "ping p99",
        "ping+TCP",
        "UDP lost",
    ];
    let units = [
        "Mbit/s",
        "Mbit/s",
        "Mbit/s",
        "Mbit/s",
        "packets/s",
        "us",
        "us",
        "us",
        "%",
    ];
    for name in names {
        let _ = write!(text, "{name:>11}");
    }
    let _ = write!(text, "\n{:<22}", "");
    for unit in units {
        let _ = write!(text, "{unit:>11}");
    }
    for measured in &results.systems {
        let _ = write!(text, "\n{:<22}", measured.name);
        for figure in Figure::HEADLINES {
            let value = measured
                .median(figure)
                .map_or_else(|| "-".to_owned(), rounded);
            let _ = write!(text, "{value:>11}");
        }
    }
    for left_out in &results.left_out {
        let _ = write!(
            text,
            "\n{:<22} left out: {}",
            left_out.name, left_out.reason
        );
    }
    for trouble in &results.troubles {
        let _ = write!(text, "\ntrouble: {trouble}");
    }
    text
}

/// Three significant digits, or all that stand before the point.
pub(crate) fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn page(results: &Results) -> String {
    let mut text = String::new();
    head(&mut text, results);
    for (file, title, _) in CHARTS {
        let _ = writeln!(text, "![{title}]({file})\n");
    }
    medians(&mut text, results);
    ratios(&mut text, results);
    steadiness(&mut text, results);
    list_systems(&mut text, results);
    list_commands(&mut text, results);
    text
}

fn head(text: &mut String, results: &Results) {
    let machine = &results.machine;
    let mut notes = String::new();
    if machine.was_busy() {
        notes.push_str("**The machine had other work to do, see its load: expect wide ranges.** ");
    }
    notes.push_str(results.note.as_deref().unwrap_or_default());
    let _ = writeln!(
        text,
        "# Measured on {}, commit {}\n\n\
         Written by `perf/run`; every sample is in [latest.json](latest.json), how to read it in \
         [perf/README.md](/perf/README.md).\n\n\
         Both ends of each tunnel share the {} cores of one machine, so the absolute numbers are \
         this machine's; compare the systems with each other. {} rounds, each system in turn, \
         {} s a measurement; charts show medians, the thin line runs from the lowest to the \
         highest round. {notes}\n\n\
         | machine | |\n| --- | --- |\n| kernel | {} |\n| CPU | {}, {} cores, {} |\n\
         | memory | {} MiB |\n| load average before | {} |\n| TCP congestion control | {} |\n\
         | tunnel MTU | {TUNNEL_MTU} |\n| iperf3 | {} |\n",
        results.date,
        results.commit,
        machine.cores,
        results.rounds,
        results.seconds,
        machine.kernel,
        machine.cpu,
        machine.cores,
        machine.virtualization,
        machine.memory_mib,
        machine.load_average_before,
        machine.congestion_control,
        machine.iperf3,
    );
}

fn table_head(text: &mut String, first: &str) {
    let _ = write!(text, "| {first} |");
    for figure in Figure::HEADLINES {
        let _ = write!(text, " {}, {} |", figure.title(), figure.unit());
    }
    let _ = writeln!(
        text,
        "\n| --- |{}",
        " ---: |".repeat(Figure::HEADLINES.len())
    );
}

fn medians(text: &mut String, results: &Results) {
    let _ = writeln!(text, "## Medians (lowest to highest round)\n");
    table_head(text, "system");
    for measured in &results.systems {
        let _ = write!(text, "| {} |", measured.name);
        for figure in Figure::HEADLINES {
            let _ = match measured.figures.get(&figure) {
                Some(series) => write!(
                    text,
                    " **{}** ({} to {}) |",
                    rounded(series.median),
                    rounded(series.min),
                    rounded(series.max)
                ),
                None => write!(text, " - |"),
            };
        }
        text.push('\n');
    }
    text.push('\n');
}

fn ratios(text: &mut String, results: &Results) {
    let Some(ours) = results.systems.iter().find(|measured| measured.is_ours()) else {
        return;
    };
    let _ = writeln!(
        text,
        "## {} as a multiple of each\n\n\
         Throughput above 1 and latency below 1 are in our favour.\n",
        ours.name
    );
    table_head(text, "compared with");
    for other in results
        .systems
        .iter()
        .filter(|measured| measured.name != ours.name)
    {
        let _ = write!(text, "| {} |", other.name);
        for figure in Figure::HEADLINES {
            let _ = match (ours.median(figure), other.median(figure)) {
                (Some(ours), Some(other)) if other > 0.0 => write!(text, " {:.2} |", ours / other),
                _ => write!(text, " - |"),
            };
        }
        text.push('\n');
    }
    text.push('\n');
}

fn steadiness(text: &mut String, results: &Results) {
    const FIGURES: [Figure; 15] = [
        Figure::OneStreamSlowestSecond,
        Figure::OneStreamRetransmits,
        Figure::ReverseSlowestSecond,
        Figure::ReverseRetransmits,
        Figure::EightStreamsRetransmits,
        Figure::BothDirectionsWeaker,
        Figure::BothDirectionsRetransmits,
        Figure::SmallPacketsOffered,
        Figure::PingLost,
        Figure::SteadyUdp,
        Figure::SteadyUdpLost,
        Figure::SteadyUdpDroppedSending,
        Figure::SteadyUdpDroppedReceiving,
        Figure::LoadedPingP99,
        Figure::LoadedPingLost,
    ];
    let _ = writeln!(text, "## Stalls, retransmissions, losses (medians)\n");
    let _ = write!(text, "| |");
    for measured in &results.systems {
        let _ = write!(text, " {} |", measured.name);
    }
    let _ = writeln!(text, "\n| --- |{}", " ---: |".repeat(results.systems.len()));
    for figure in FIGURES {
        let _ = write!(text, "| {}, {} |", figure.title(), figure.unit());
        for measured in &results.systems {
            let value = measured
                .median(figure)
                .map_or_else(|| "-".to_owned(), rounded);
            let _ = write!(text, " {value} |");
        }
        text.push('\n');
    }
    text.push('\n');
    for trouble in &results.troubles {
        let _ = writeln!(text, "- {trouble}");
    }
    if results.troubles.is_empty() {
        let _ = writeln!(text, "No measurement failed.");
    }
    text.push('\n');
}

fn list_systems(text: &mut String, results: &Results) {
    let _ = writeln!(text, "## The systems\n");
    for measured in &results.systems {
        let _ = writeln!(
            text,
            "- **{}** ({}): {}",
            measured.name, measured.version, measured.description
        );
    }
    for left_out in &results.left_out {
        let _ = writeln!(text, "- {} is left out: {}", left_out.name, left_out.reason);
    }
    text.push('\n');
}

fn list_commands(text: &mut String, results: &Results) {
    let _ = writeln!(text, "## The commands\n");
    let Some(first) = results.systems.first() else {
        return;
    };
    let _ = writeln!(
        text,
        "| figure | command in the client's namespace |\n| --- | --- |"
    );
    for series in first.figures.values() {
        let _ = writeln!(text, "| {} | `{}` |", series.title, series.command);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_keeps_three_digits_and_whole_numbers_whole() {
        let texts = [1234.56, 99.96, 12.34, 1.234, 0.0, 7.0].map(rounded);
        assert_eq!(texts, ["1235", "100.0", "12.3", "1.23", "0", "7"]);
    }
}
