//! Metrics for Prometheus, over HTTP on an address or a Unix socket.
//!
//! A thread of its own serves them, one scrape at a time: it reads the workers' counters where they
//! are, and asks the control loop for the rest in parts ([`super::snapshot`]), so that other things
//! get their turn between them. What happens once a session is tallied in [`Tally`], which both
//! have.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::counters::WorkerCounters;
use dataplane::io::IoCounters;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};

use super::observe::{CAUSES, LOG_INS, Phase};
use super::snapshot::{SHARES, Share, Snapshot, SnapshotPart};
use super::{Server, ServerError};
use crate::config::operation::{MetricsAddress, MetricsConfig};
use crate::driver::admin::records::{Order, SessionRecord};
use crate::driver::admin::{Answer, Asked, Request};

mod page;
#[cfg(test)]
mod tests;

use page::Page;

/// Octets of a request that are read.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long a client may take to ask, and to read.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon an address that is in use is tried again: the process before us may be on its way out.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// What Prometheus expects of this format.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One label with one value.
pub(super) type Label = [(&'static str, &'static str); 1];

/// Counts by the value of a label.
pub(super) type Counts = Vec<(String, u64)>;

/// What is counted as it happens.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) connections: Counter,
    pub(super) calls: Counter,
    setup: Family<Label, Histogram, fn() -> Histogram>,
    log_ins: Family<Label, Counter>,
    ended: Family<Label, Counter>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            connections: Counter::default(),
            calls: Counter::default(),
            setup: Family::new_with_constructor(setup_histogram),
            log_ins: Family::default(),
            ended: Family::default(),
        }
    }
}

/// From a local network to a restart or two of negotiation packets.
fn setup_histogram() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ])
}

impl Tally {
    pub(super) fn took(&self, phase: Phase, took: Duration) {
        let histogram = self.setup.get_or_create(&[("phase", phase.name())]);
        histogram.observe(took.as_secs_f64());
    }

    pub(super) fn log_in(&self, result: &'static str) {
        self.log_ins.get_or_create(&[("result", result)]).inc();
    }

    pub(super) fn end(&self, cause: &'static str) {
        self.ended.get_or_create(&[("cause", cause)]).inc();
    }

    /// Log-ins by result, and sessions that have ended by cause.
    pub(super) fn labelled(&self) -> (Counts, Counts) {
        let known =
            |family: &Family<Label, Counter>, name: &'static str, values: &[&'static str]| {
                let counted = values.iter().filter_map(|value| {
                    let count = family.get(&[(name, *value)])?.get();
                    Some(((*value).to_owned(), count))
                });
                counted.collect()
            };
        let log_ins = known(&self.log_ins, "result", &LOG_INS);
        (log_ins, known(&self.ended, "cause", &CAUSES))
    }

    /// Adds what another process has counted.
    pub(super) fn add_labelled(&self, log_ins: &[(String, u64)], ended: &[(String, u64)]) {
        let add = |family: &Family<Label, Counter>,
                   name: &'static str,
                   values: &[&'static str],
                   more: &[(String, u64)]| {
            for (value, count) in more {
                let value = values.iter().find(|known| *known == value);
                if let Some(value) = value {
                    family.get_or_create(&[(name, *value)]).inc_by(*count);
                }
            }
        };
        add(&self.log_ins, "result", &LOG_INS, log_ins);
        add(&self.ended, "cause", &CAUSES, ended);
    }

    #[cfg(test)]
    pub(super) fn log_ins(&self, result: &'static str) -> u64 {
        self.log_ins.get_or_create(&[("result", result)]).get()
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "control_connections_accepted",
            "TCP connections accepted",
            self.connections.clone(),
        );
        registry.register("calls", "Calls that came into being", self.calls.clone());
        registry.register(
            "setup_seconds",
            "How long each phase of a session's set-up took",
            self.setup.clone(),
        );
        registry.register("logins", "Log-ins by result", self.log_ins.clone());
        registry.register(
            "sessions_ended",
            "Sessions that have ended, by cause",
            self.ended.clone(),
        );
    }
}

impl Server {
    /// Starts to serve metrics, where they are wanted; what comes back asks for them.
    pub(super) fn serve_metrics(&self) -> Result<mpsc::Receiver<Asked>, ServerError> {
        let (requests, receiver) = mpsc::channel(1);
        let Some(config) = self.config.operation.metrics.clone() else {
            return Ok(receiver);
        };
        let refused = |cause: std::io::Error| ServerError::Metrics {
            address: config.listen.to_string(),
            cause,
        };
        let listener = match Listener::bind(&config.listen, self.admin_group()) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let address = &config.listen;
                let text = format!("metrics: {address} is in use, and tried again until it is not");
                self.log.line(&text);
                None
            }
            bound => {
                self.log.line(&format!("Metrics on {}", config.listen));
                Some(bound.map_err(refused)?)
            }
        };
        let office = Office {
            group: self.admin_group(),
            config: config.clone(),
            tally: self.observer.tally.clone(),
            sources: Sources {
                started: Instant::now(),
                workers: self.engine.workers.counters().collect(),
                interfaces: self
                    .tuns
                    .iter()
                    .map(|tun| tun.device.name.clone())
                    .collect(),
            },
            requests,
        };
        let thread = std::thread::Builder::new().name("pptp-metrics".to_owned());
        let started = thread.spawn(move || office.run(listener));
        started.map_err(refused)?;
        Ok(receiver)
    }
}

/// What is read without the control loop.
#[derive(Debug)]
pub(super) struct Sources {
    started: Instant,
    workers: Vec<(Arc<WorkerCounters>, Arc<IoCounters>)>,
    interfaces: Vec<String>,
}

/// The thread's own.
struct Office {
    config: MetricsConfig,
    group: Option<nix::unistd::Gid>,
    tally: Tally,
    sources: Sources,
    requests: mpsc::Sender<Asked>,
}

impl Office {
    /// Serves until the control loop is gone.
    fn run(self, listener: Option<Listener>) {
        let Some(listener) = listener.or_else(|| self.wait_for_address()) else {
            return;
        };
        let sources = Arc::new(self.sources);
        while !self.requests.is_closed() {
            let Ok(mut stream) = listener.accept() else {
                std::thread::sleep(BUSY_PAUSE);
                continue;
            };
            let text = match read_request(&mut *stream).as_deref() {
                Some("GET /metrics" | "GET /") => {
                    scrape(&self.config, &self.tally, &sources, &self.requests)
                }
                Some(_) => {
                    let _ =
                        stream.write_all(response("404 Not Found", "see /metrics\n").as_bytes());
                    continue;
                }
                None => continue,
            };
            let Some(text) = text else { return };
            // Who does not read gets no more.
            let _ = stream.write_all(response("200 OK", &text).as_bytes());
        }
    }

    fn wait_for_address(&self) -> Option<Listener> {
        while !self.requests.is_closed() {
            std::thread::sleep(BUSY_PAUSE);
            if let Ok(listener) = Listener::bind(&self.config.listen, self.group) {
                return Some(listener);
            }
        }
        None
    }
}

/// All metrics as text; `None` when the control loop is gone.
fn scrape(
    config: &MetricsConfig,
    tally: &Tally,
    sources: &Arc<Sources>,
    requests: &mpsc::Sender<Asked>,
) -> Option<String> {
    let ask = |request| {
        let (sender, receiver) = oneshot::channel();
        requests.blocking_send((request, sender)).ok()?;
        receiver.blocking_recv().ok()
    };
    let snapshot = |part| match ask(Request::Snapshot(part)) {
        Some(Answer::Snapshot(snapshot)) => Some(*snapshot),
        _ => None,
    };
    let Snapshot::General(general) = snapshot(SnapshotPart::General)? else {
        return None;
    };
    let mut total = Share::default();
    for share in 0..SHARES {
        if let Snapshot::Share(share) = snapshot(SnapshotPart::Share(share))? {
            total.add(&share);
        }
    }
    let wanted = config.per_session_max as usize;
    let (mut sessions, mut after): (Vec<SessionRecord>, _) = (Vec::new(), None);
    while sessions.len() < wanted {
        let Some(Answer::Sessions(page)) = ask(Request::Operate(Order::Sessions { after })) else {
            return None;
        };
        sessions.extend(page.sessions);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    sessions.truncate(wanted);
    let page = Page {
        sources: Arc::clone(sources),
        general,
        total,
        sessions,
    };
    write(tally, page).ok()
}

fn write(tally: &Tally, page: Page) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("pptp_fast");
    tally.register(&mut registry);
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Method and path of a request, once all of its head has come; `None` when it does not come.
fn read_request(stream: &mut dyn Stream) -> Option<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    let deadline = Instant::now() + PATIENCE;
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let len = stream.read(&mut buffer).ok()?;
        head.extend_from_slice(&buffer[..len]);
        if len == 0 || head.len() > REQUEST_BYTES_MAX || Instant::now() > deadline {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split([' ', '?', '\r']);
    Some(format!("{} {}", words.next()?, words.next()?))
}

fn response(status: &str, text: &str) -> String {
    let len = text.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len}\r\n\
         Connection: close\r\n\r\n{text}"
    )
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// Where scrapes come in.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn bind(address: &MetricsAddress, group: Option<nix::unistd::Gid>) -> std::io::Result<Self> {
        match address {
            MetricsAddress::Tcp(address) => TcpListener::bind(address).map(Self::Tcp),
            MetricsAddress::Unix(path) => {
                // One that a killed process left behind answers nobody.
                if std::os::unix::net::UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                let listener = UnixListener::bind(path)?;
                if let Some(group) = group {
                    std::os::unix::fs::chown(path, None, Some(group.as_raw()))?;
                }
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                Ok(Self::Unix(listener))
            }
        }
    }

    fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        })
    }
}
