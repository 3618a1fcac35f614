//! The figures: their names, units and which way is better; their samples and medians.

use serde::Serialize;

/// A number that a measurement gives.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    PingMedian,
    PingP99,
    PingLost,
    OneStream,
    OneStreamSlowestSecond,
    OneStreamRetransmits,
    Reverse,
    ReverseSlowestSecond,
    ReverseRetransmits,
    EightStreams,
    EightStreamsSlowestSecond,
    EightStreamsRetransmits,
    BothDirections,
    BothDirectionsWeaker,
    BothDirectionsRetransmits,
    SmallPackets,
    SmallPacketsOffered,
    SteadyUdp,
    SteadyUdpLost,
    SteadyUdpDroppedSending,
    SteadyUdpDroppedReceiving,
    LoadedPingMedian,
    LoadedPingP99,
    LoadedPingLost,
}

impl Figure {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::PingMedian => "ping, median",
            Self::PingP99 => "ping, 99th percentile",
            Self::PingLost => "pings lost",
            Self::OneStream => "TCP, one stream",
            Self::OneStreamSlowestSecond => "TCP, one stream: slowest second",
            Self::OneStreamRetransmits => "TCP, one stream: retransmitted",
            Self::Reverse => "TCP, server to client",
            Self::ReverseSlowestSecond => "TCP, server to client: slowest second",
            Self::ReverseRetransmits => "TCP, server to client: retransmitted",
            Self::EightStreams => "TCP, 8 streams",
            Self::EightStreamsSlowestSecond => "TCP, 8 streams: slowest second",
            Self::EightStreamsRetransmits => "TCP, 8 streams: retransmitted",
            Self::BothDirections => "TCP, both directions, sum",
            Self::BothDirectionsWeaker => "TCP, both directions: weaker one",
            Self::BothDirectionsRetransmits => "TCP, both directions: retransmitted",
            Self::SmallPackets => "UDP, 64 octets each",
            Self::SmallPacketsOffered => "UDP, 64 octets each: sent",
            Self::SteadyUdp => "UDP, steady flow",
            Self::SteadyUdpLost => "UDP, steady flow: lost",
            Self::SteadyUdpDroppedSending => "UDP, steady flow: dropped by interfaces, sending",
            Self::SteadyUdpDroppedReceiving => "UDP, steady flow: dropped at sockets, receiving",
            Self::LoadedPingMedian => "ping beside a TCP stream, median",
            Self::LoadedPingP99 => "ping beside a TCP stream, 99th percentile",
            Self::LoadedPingLost => "pings lost beside a TCP stream",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::PingMedian | Self::PingP99 | Self::LoadedPingMedian | Self::LoadedPingP99 => "us",
            Self::SteadyUdpLost => "%",
            Self::PingLost
            | Self::LoadedPingLost
            | Self::SteadyUdpDroppedSending
            | Self::SteadyUdpDroppedReceiving
            | Self::OneStreamRetransmits
            | Self::ReverseRetransmits
            | Self::EightStreamsRetransmits
            | Self::BothDirectionsRetransmits => "packets",
            Self::SmallPackets | Self::SmallPacketsOffered => "packets/s",
            _ => "Mbit/s",
        }
    }

    /// Those that a table of ratios compares.
    pub(crate) const HEADLINES: [Self; 9] = [
        Self::OneStream,
        Self::Reverse,
        Self::EightStreams,
        Self::BothDirections,
        Self::SmallPackets,
        Self::PingMedian,
        Self::PingP99,
        Self::LoadedPingMedian,
        Self::SteadyUdpLost,
    ];
}

/// One value of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample(pub(crate) Figure, pub(crate) f64);

/// All values of a figure of one system, and what they come to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) figure: Figure,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// What a person types to take it.
    pub(crate) command: String,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// One a round, in order.
    pub(crate) samples: Vec<f64>,
}

impl Series {
    pub(crate) fn new(figure: Figure, command: String) -> Self {
        Self {
            figure,
            title: figure.title(),
            unit: figure.unit(),
            command,
            median: 0.0,
            min: 0.0,
            max: 0.0,
            samples: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, sample: f64) {
        self.samples.push(sample);
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        self.median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        self.min = sorted[0];
        self.max = sorted[sorted.len() - 1];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_samples_lies_between_the_two_in_the_middle() {
        let mut series = Series::new(Figure::OneStream, String::new());
        for sample in [40.0, 10.0, 30.0, 20.0] {
            series.push(sample);
        }
        assert_eq!((series.median, series.min, series.max), (25.0, 10.0, 40.0));
        series.push(100.0);
        assert_eq!(series.median, 30.0);
    }
}
