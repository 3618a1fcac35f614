//! Facts about the machine, without which figures mean nothing.

use std::fs;

use serde::Serialize;

use crate::process;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    /// What `systemd-detect-virt` says, or "unknown".
    pub(crate) virtualization: String,
    /// Others' work shortly before the start: should be near 0.
    pub(crate) load_average_before: String,
    pub(crate) congestion_control: String,
    pub(crate) iperf3: String,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let load = file("/proc/loadavg");
        Self {
            kernel: file("/proc/sys/kernel/osrelease"),
            cpu: cpu_model(&file("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_mib(&file("/proc/meminfo")),
            virtualization: said("systemd-detect-virt", &["--vm"]),
            load_average_before: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            congestion_control: file("/proc/sys/net/ipv4/tcp_congestion_control"),
            iperf3: said("iperf3", &["--version"]),
        }
    }
}

impl Machine {
    /// Whether others were at work when the measurements began.
    pub(crate) fn was_busy(&self) -> bool {
        let last_minute = self.load_average_before.split(' ').next();
        last_minute
            .and_then(|load| load.parse().ok())
            .is_some_and(|load: f64| load > 0.5)
    }
}

/// The date and time as the system's clock has it, in UTC.
pub(crate) fn date() -> String {
    said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"])
}

/// The commit of the sources that the program under test was built from.
pub(crate) fn commit() -> String {
    said("git", &["describe", "--always", "--dirty"])
}

fn file(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn said(program: &str, arguments: &[&str]) -> String {
    process::quick(process::command(program).args(arguments))
        .ok()
        .and_then(|said| said.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn cpu_model(cpuinfo: &str) -> String {
    let value = |name: &str| {
        cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))
            .map_or("?", str::trim)
    };
    format!(
        "{} (family {}, model {})",
        value("model name"),
        value("cpu family"),
        value("model")
    )
}

fn memory_mib(meminfo: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .map_or(0, |kib: u64| kib / 1024)
}
