//! What was measured, as one JSON object or a table.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::memory::Usage;
use super::traffic::Outcome;
use crate::cli::demo::rounded;
use crate::cli::{print_line, table};
use crate::driver::drops::Drops;
use crate::driver::load::{Cause, Causes, Load, PHASES, Tally};

/// Of a distribution, milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// Of samples in microseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |us: u64| rounded(us as f64 / 1000.0);
        Self {
            p50: ms(histogram.value_at_quantile(0.5)),
            p90: ms(histogram.value_at_quantile(0.9)),
            p99: ms(histogram.value_at_quantile(0.99)),
            max: ms(histogram.max()),
        }
    }
}

/// Our own server, before the first tunnel and with all of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ServerUsage {
    pub pss_bytes_before: u64,
    pub pss_bytes: u64,
    pub rss_bytes: u64,
    /// Processor time that the set-up took, milliseconds for each tunnel.
    pub setup_processor_ms: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub profile: &'static str,
    pub server: String,
    pub count: u32,
    pub established: usize,
    pub failed: usize,
    /// Came up, and ended before they were to.
    pub lost: usize,
    pub logins_per_s: f64,
    /// From the first dial to the last tunnel.
    pub setup_s: f64,
    pub phases_ms: BTreeMap<&'static str, Percentiles>,
    pub failures: Causes,
    pub losses: Causes,
    pub held_s: f64,
    /// Only of a server of ours.
    pub server_bytes_per_session: Option<u64>,
    pub server_usage: Option<ServerUsage>,
    pub traffic: Option<Outcome>,
    /// By the clients' data plane.
    pub drops: Drops,
    /// What to do about failures, where that can be told.
    pub hints: Vec<String>,
}

impl ServerUsage {
    pub(super) fn between(before: Usage, set_up: Usage, after: Usage, tunnels: usize) -> Self {
        let setup_ms = set_up.processor_ms.saturating_sub(before.processor_ms);
        Self {
            pss_bytes_before: before.proportional_bytes,
            pss_bytes: after.proportional_bytes,
            rss_bytes: after.resident_bytes,
            setup_processor_ms: rounded(setup_ms as f64 / tunnels.max(1) as f64),
        }
    }

    pub(super) fn per_session(&self, tunnels: usize) -> Option<u64> {
        let more = self.pss_bytes.saturating_sub(self.pss_bytes_before);
        more.checked_div(tunnels as u64)
    }
}

/// How long each step took.
pub(super) fn phases(load: &Load) -> BTreeMap<&'static str, Percentiles> {
    let histogram = || {
        let mut histogram = Histogram::<u64>::new(3).ok()?;
        histogram.auto(true);
        Some(histogram)
    };
    let mut histograms = [const { None }; PHASES.len()];
    histograms.fill_with(histogram);
    for phases in load.phases() {
        for (span, histogram) in phases.spans().into_iter().zip(&mut histograms) {
            if let (Some(span), Some(histogram)) = (span, histogram) {
                // It fails only beyond centuries.
                let _ = histogram.record(span.as_micros() as u64);
            }
        }
    }
    let all = PHASES.into_iter().zip(histograms);
    let found = all.filter_map(|(name, histogram)| Some((name, histogram?)));
    found
        .filter(|(_, histogram)| !histogram.is_empty())
        .map(|(name, histogram)| (name, Percentiles::of(&histogram)))
        .collect()
}

/// What a person can do about failures.
pub(super) fn hints(tally: &Tally, count: u32) -> Vec<String> {
    let failed = |name: &str| tally.failures().get(name);
    let mut hints = Vec::new();
    let says = |name: &str, words: &str| failed(name).is_some_and(|it| it.message.contains(words));
    if says("authentication_failed", "649") || failed("no_addresses").is_some() {
        hints.push(format!(
            "the server may have no address left: its pool must have {count}"
        ));
    }
    let tracked = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
    let tracked = tracked.ok().and_then(|it| it.trim().parse::<u64>().ok());
    let is_cut_off = failed("unreachable").is_some() || failed("gre_silent").is_some();
    if let Some(tracked) = tracked.filter(|it| is_cut_off && *it < 2 * u64::from(count)) {
        hints.push(format!(
            "the connection tracker of this host knows {tracked} flows, and each tunnel is two: \
             sysctl net.netfilter.nf_conntrack_max={}",
            4 * count
        ));
    }
    if failed("refused").is_some() {
        hints.push(
            "the server limits its tunnels, all together or from one address: raise its limits, \
             or use more --sources"
                .to_owned(),
        );
    }
    hints
}

impl Report {
    pub(super) fn show(&self) {
        let rows: Vec<_> = PHASES
            .iter()
            .filter_map(|name| Some((name, self.phases_ms.get(name)?)))
            .map(|(name, it)| {
                let cell = |ms: f64| format!("{ms:.1} ms");
                let cells = [it.p50, it.p90, it.p99, it.max].map(cell);
                std::iter::once((*name).to_owned()).chain(cells).collect()
            })
            .collect();
        if !rows.is_empty() {
            table::print(&["PHASE", "P50", "P90", "P99", "MAX"], &rows);
        }
        print_line(format_args!(
            "{} of {} tunnels established in {:.2} s, {:.0} log-ins/s; {} failed, {} lost in {:.0} s",
            self.established,
            self.count,
            self.setup_s,
            self.logins_per_s,
            self.failed,
            self.lost,
            self.held_s
        ));
        if let (Some(usage), Some(each)) = (self.server_usage, self.server_bytes_per_session) {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            print_line(format_args!(
                "server: {:.1} MB before, {:.1} MB with them, {each} octets and {:.2} ms of a \
                 processor each",
                mb(usage.pss_bytes_before),
                mb(usage.pss_bytes),
                usage.setup_processor_ms
            ));
        }
        self.show_traffic();
        for (kind, causes) in [("failed", &self.failures), ("lost", &self.losses)] {
            for (name, cause) in causes {
                let Cause { count, message } = cause;
                print_line(format_args!("{kind}: {count} {name}: {message}"));
            }
        }
        for hint in &self.hints {
            print_line(hint);
        }
    }

    fn show_traffic(&self) {
        match &self.traffic {
            None => {}
            Some(Outcome::Packets {
                sent,
                came_back,
                lost,
                round_trip_ms,
                ..
            }) => print_line(format_args!(
                "traffic: {sent} packets sent, {came_back} came back, {lost} lost; round trip \
                 {:.2} ms, p99 {:.2} ms",
                round_trip_ms.p50, round_trip_ms.p99
            )),
            Some(Outcome::Streams {
                streams,
                failed,
                mbps,
                mbps_min,
                mbps_max,
                ..
            }) => print_line(format_args!(
                "traffic: {mbps:.0} Mbit/s over {streams} tunnels ({failed} failed), \
                 {mbps_min:.2} to {mbps_max:.2} Mbit/s each"
            )),
        }
    }
}
