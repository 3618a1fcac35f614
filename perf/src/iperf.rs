//! What iperf3's JSON says about a TCP measurement.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::figure::{Figure, Sample};

/// A measurement in one direction; `figure` is the throughput that it gives.
pub(crate) fn one_way(output: &str, figure: Figure) -> Result<Vec<Sample>> {
    let (slowest, retransmits) = match figure {
        Figure::Reverse => (Figure::ReverseSlowestSecond, Figure::ReverseRetransmits),
        Figure::EightStreams => (
            Figure::EightStreamsSlowestSecond,
            Figure::EightStreamsRetransmits,
        ),
        _ => (Figure::OneStreamSlowestSecond, Figure::OneStreamRetransmits),
    };
    let report = parse(output)?;
    Ok(vec![
        Sample(figure, megabits(&report, "/end/sum_received")?),
        Sample(slowest, slowest_second(&report)?),
        Sample(retransmits, number(&report, "/end/sum_sent/retransmits")?),
    ])
}

/// A measurement in both directions at once.
pub(crate) fn both_ways(output: &str) -> Result<Vec<Sample>> {
    let report = parse(output)?;
    let there = megabits(&report, "/end/sum_received")?;
    let back = megabits(&report, "/end/sum_received_bidir_reverse")?;
    let retransmits = number(&report, "/end/sum_sent/retransmits")?
        + number(&report, "/end/sum_sent_bidir_reverse/retransmits")?;
    Ok(vec![
        Sample(Figure::BothDirections, there + back),
        Sample(Figure::BothDirectionsWeaker, there.min(back)),
        Sample(Figure::BothDirectionsRetransmits, retransmits),
    ])
}

fn parse(output: &str) -> Result<Value> {
    let report: Value = serde_json::from_str(output).context("iperf3 printed no JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    Ok(report)
}

fn number(report: &Value, pointer: &str) -> Result<f64> {
    report
        .pointer(pointer)
        .and_then(Value::as_f64)
        .with_context(|| format!("iperf3 reports no {pointer}"))
}

fn megabits(report: &Value, pointer: &str) -> Result<f64> {
    Ok(number(report, &format!("{pointer}/bits_per_second"))? / 1e6)
}

/// A tunnel that stalls shows here. The last interval may be a short one and does not count.
fn slowest_second(report: &Value) -> Result<f64> {
    let intervals = report["intervals"]
        .as_array()
        .context("iperf3 reports no intervals")?;
    intervals
        .iter()
        .map(|interval| &interval["sum"])
        .filter(|sum| sum["seconds"].as_f64().is_some_and(|seconds| seconds > 0.9))
        .filter_map(|sum| sum["bits_per_second"].as_f64())
        .min_by(f64::total_cmp)
        .map(|slowest| slowest / 1e6)
        .context("iperf3 reports no whole second")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{
        "intervals": [
            {"sum": {"seconds": 1.0, "bits_per_second": 5e8}},
            {"sum": {"seconds": 1.0, "bits_per_second": 2e8}},
            {"sum": {"seconds": 0.1, "bits_per_second": 1e8}}
        ],
        "end": {
            "sum_sent": {"bits_per_second": 4.1e8, "retransmits": 3},
            "sum_received": {"bits_per_second": 4e8},
            "sum_sent_bidir_reverse": {"retransmits": 4},
            "sum_received_bidir_reverse": {"bits_per_second": 1e8}
        }
    }"#;

    fn values(samples: Result<Vec<Sample>>) -> Vec<f64> {
        samples
            .unwrap_or_default()
            .iter()
            .map(|sample| sample.1)
            .collect()
    }

    #[test]
    fn one_way_counts_what_arrived_and_the_slowest_whole_second() {
        assert_eq!(
            values(one_way(REPORT, Figure::OneStream)),
            [400.0, 200.0, 3.0]
        );
    }

    #[test]
    fn both_ways_adds_up_the_directions_and_their_retransmissions() {
        assert_eq!(values(both_ways(REPORT)), [500.0, 100.0, 7.0]);
    }

    #[test]
    fn an_error_in_the_report_is_an_error() {
        assert!(one_way(r#"{"error": "unable to connect"}"#, Figure::OneStream).is_err());
    }
}
