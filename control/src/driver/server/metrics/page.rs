//! One scrape as OpenMetrics text: every name and its help.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::counters::DropReason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;

use super::Sources;
use crate::driver::admin::records::SessionRecord;
use crate::driver::drops;
use crate::driver::server::snapshot::{General, Share};

/// Everything that a scrape shows beside the tally.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) sources: Arc<Sources>,
    pub(super) general: General,
    pub(super) total: Share,
    pub(super) sessions: Vec<SessionRecord>,
}

/// Labels of one sample.
type Labels<'a> = Vec<(&'static str, &'a str)>;
/// One family: name, help, and its samples.
struct Family<'a> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Labels<'a>, f64)>,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.encode_general(&mut encoder)?;
        self.encode_traffic(&mut encoder)?;
        self.encode_workers(&mut encoder)?;
        self.encode_sessions(&mut encoder)
    }
}

impl Page {
    fn encode_general(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let general = &self.general;
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        let uptime = self.sources.started.elapsed().as_secs_f64();
        gauge("build", "The version that runs", [(version, 1.0)]).encode(encoder)?;
        let seconds = [(vec![], uptime)];
        gauge("uptime_seconds", "Seconds since the start", seconds).encode(encoder)?;
        let memory = [(vec![], resident_bytes() as f64)];
        gauge("resident_memory_bytes", "Memory in use", memory).encode(encoder)?;
        let draining = [(vec![], f64::from(u8::from(general.is_draining)))];
        gauge("draining", "1 when no calls are taken", draining).encode(encoder)?;
        let sessions = [
            (vec![("state", "start")], self.total.starting as f64),
            (vec![("state", "active")], self.total.active as f64),
        ];
        gauge("sessions", "Sessions by state", sessions).encode(encoder)?;
        let connections = [(vec![], general.connections as f64)];
        gauge("control_connections", "Control connections", connections).encode(encoder)?;
        let control = &general.control;
        let events = [
            ("connection_refused", control.connections_refused),
            ("connection_broken", control.connections_broken),
            ("call_refused", control.calls_refused),
            ("stray", control.strays),
        ];
        let events = events.map(|(event, count)| (vec![("event", event)], count as f64));
        let help = "What was refused or passed over on control connections";
        counter("control_events", help, events).encode(encoder)?;
        let refused = general.refused.iter();
        let refused = refused.map(|(reason, count)| (vec![("reason", reason)], count as f64));
        let help = "Connections, calls and log-ins refused or given up, by reason";
        counter("refused", help, refused).encode(encoder)?;
        let pools = |value: fn(&_) -> u32| {
            let pools = general.pools.iter();
            let samples =
                pools.map(move |pool| (vec![("pool", pool.name.as_str())], f64::from(value(pool))));
            samples.collect::<Vec<_>>()
        };
        let sizes = pools(|pool| pool.size);
        gauge("pool_addresses", "Addresses of a pool", sizes).encode(encoder)?;
        let used = pools(|pool| pool.used);
        gauge("pool_addresses_used", "Addresses that are given", used).encode(encoder)
    }

    fn encode_traffic(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let traffic = &self.total.traffic;
        for (name, help, value) in [
            (
                "received_bytes",
                "Octets of IP packets from clients",
                traffic.received_bytes,
            ),
            (
                "received_packets",
                "IP packets from clients",
                traffic.received_packets,
            ),
            (
                "sent_bytes",
                "Octets of IP packets to clients",
                traffic.sent_bytes,
            ),
            (
                "sent_packets",
                "IP packets to clients",
                traffic.sent_packets,
            ),
            ("lost_packets", "GRE packets that never came", traffic.lost),
            (
                "reordered_packets",
                "Packets put back into order",
                traffic.reordered,
            ),
            (
                "late_packets",
                "GRE packets that came twice, or too late",
                traffic.late_or_duplicate,
            ),
            (
                "mppe_resyncs",
                "Times MPPE was brought back into step",
                traffic.mppe_resyncs,
            ),
            (
                "mppe_keys_skipped",
                "MPPE keys skipped",
                traffic.mppe_keys_skipped,
            ),
        ] {
            counter(name, help, [(vec![], value as f64)]).encode(encoder)?;
        }
        let drops = self.drops();
        let samples = drops
            .iter()
            .map(|(reason, count)| (vec![("reason", *reason)], *count as f64));
        counter("dropped_packets", "Packets dropped, by reason", samples).encode(encoder)
    }

    /// All reasons, also those without any: a rate needs a beginning.
    fn drops(&self) -> BTreeMap<&str, u64> {
        let mut drops: BTreeMap<&str, u64> = BTreeMap::new();
        for name in DropReason::ALL.map(DropReason::name) {
            drops.insert(name, 0);
        }
        let interfaces = self.sources.interfaces.iter().map(String::as_str);
        drops::each(
            self.sources.workers.iter(),
            interfaces,
            &mut |name, count| {
                *drops.entry(name).or_default() += count;
            },
        );
        drops
    }

    fn encode_workers(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let names: Vec<String> = (0..self.sources.workers.len())
            .map(|index| index.to_string())
            .collect();
        let workers = || names.iter().zip(&self.sources.workers);
        let of = |name: &'static str, help, value: fn(&dataplane::io::IoCounters) -> u64| {
            let samples = workers()
                .map(|(worker, (_, io))| (vec![("worker", worker.as_str())], value(io) as f64));
            counter(name, help, samples)
        };
        of("worker_turns", "Turns of a worker's loop", |io| {
            io.turns.get()
        })
        .encode(encoder)?;
        let received = "GRE packets that a worker received";
        of("worker_gre_received", received, |io| io.gre_received.get()).encode(encoder)?;
        let sent = "GRE packets that a worker sent";
        of("worker_gre_sent", sent, |io| io.gre_sent.get()).encode(encoder)?;
        let read = "Packets that a worker read from its interfaces";
        of("worker_tun_read", read, |io| io.tun_read.get()).encode(encoder)?;
        let short = "Times that a worker ran out of buffers";
        of("worker_shortages", short, |io| io.shortages.get()).encode(encoder)?;
        let threads = threads();
        let samples = threads
            .iter()
            .map(|(name, seconds)| (vec![("thread", name.as_str())], *seconds));
        let help = "Processor time of each thread: workers, control, helpers";
        counter("thread_cpu_seconds", help, samples).encode(encoder)
    }

    fn encode_sessions(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if self.sessions.is_empty() {
            return Ok(());
        }
        let of = |name: &'static str, help, value: fn(&SessionRecord) -> u64| {
            let samples = self.sessions.iter().map(|session| {
                let ip = session.ip.as_deref().unwrap_or_default();
                let labels = vec![
                    ("session", session.sid.as_str()),
                    ("user", session.user.as_str()),
                    ("peer", session.peer.as_str()),
                    ("ip", ip),
                ];
                (labels, value(session) as f64)
            });
            counter(name, help, samples)
        };
        let help = "Octets of IP packets from the client";
        of("session_received_bytes", help, |it| it.rx_bytes).encode(encoder)?;
        let help = "Octets of IP packets to the client";
        of("session_sent_bytes", help, |it| it.tx_bytes).encode(encoder)?;
        let help = "IP packets from the client";
        of("session_received_packets", help, |it| it.rx_packets).encode(encoder)?;
        let help = "IP packets to the client";
        of("session_sent_packets", help, |it| it.tx_packets).encode(encoder)?;
        let help = "GRE packets that never came";
        of("session_lost_packets", help, |it| it.lost).encode(encoder)?;
        let help = "Packets put back into order";
        of("session_reordered_packets", help, |it| it.reordered).encode(encoder)?;
        let help = "Packets dropped, for whatever reason";
        of("session_dropped_packets", help, |it| it.dropped).encode(encoder)?;
        let mut uptime = of("session_uptime_seconds", "Seconds since the call", |it| {
            it.uptime_s
        });
        uptime.kind = MetricType::Gauge;
        uptime.encode(encoder)
    }
}

fn gauge<'a>(
    name: &'static str,
    help: &'static str,
    samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
) -> Family<'a> {
    Family {
        name,
        help,
        kind: MetricType::Gauge,
        samples: samples.into_iter().collect(),
    }
}

/// Its name gets `_total` behind it.
fn counter<'a>(
    name: &'static str,
    help: &'static str,
    samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
) -> Family<'a> {
    Family {
        kind: MetricType::Counter,
        ..gauge(name, help, samples)
    }
}

impl Family<'_> {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        for (labels, value) in &self.samples {
            if labels.is_empty() {
                self.encode_sample(&mut metric, *value)?;
            } else {
                self.encode_sample(&mut metric.encode_family(labels)?, *value)?;
            }
        }
        Ok(())
    }

    fn encode_sample(
        &self,
        metric: &mut MetricEncoder<'_>,
        value: f64,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::encoding::NoLabelSet;
        match self.kind {
            MetricType::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
            _ => metric.encode_gauge(&value),
        }
    }
}

/// Processor time of each thread of this process, in seconds, by the thread's name: from
/// `/proc/self/task/N/schedstat`, whose first number is nanoseconds on a processor (Linux
/// Documentation/scheduler/sched-stats.rst). Threads of one name are one.
fn threads() -> BTreeMap<String, f64> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |file| std::fs::read_to_string(task.path().join(file)).ok();
        let (Some(name), Some(stat)) = (read("comm"), read("schedstat")) else {
            continue;
        };
        let nanoseconds = stat.split(' ').next().and_then(|it| it.parse::<u64>().ok());
        let seconds = nanoseconds.unwrap_or(0) as f64 / 1e9;
        // The first thread has the name of the program.
        let is_control = task.file_name().to_str() == Some(&std::process::id().to_string());
        let name = if is_control { "control" } else { name.trim() };
        *threads.entry(name.to_owned()).or_default() += seconds;
    }
    threads
}

/// `VmRSS` of proc_pid_status(5).
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
