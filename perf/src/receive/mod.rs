//! The receiving half of a tunnel as one loop: receive, decrypt, write to TUN. Our worker beside a
//! loop that takes one packet at a time with three plain steps.
//!
//! Each has a network namespace of its own and is sent the same packets, in bursts: while a burst
//! is queued in its raw socket nothing is timed, and then it works until TUN has taken the last
//! packet. The packets' destination is nowhere, so the kernel drops them once it has looked for a
//! route, and no TCP disturbs. All this is one thread on one processor, and the two take turns.

mod ends;
mod traffic;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dataplane::sys::affinity;
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use self::ends::{Ours, Plain};
use self::traffic::{PACKET_BYTES, Sender};
use crate::machine::{self, Machine};
use crate::process;

/// Packets of one burst: they fit into the queue of the socket, and are a dozen of our batches.
const BURST_PACKETS: usize = 512;
/// Our end of the tunnel outside; the peer's is next.
const LOCAL: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 1);
const PEER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 2);
/// Turns of each before anything is timed.
const WARM_UP: u32 = 5;

/// What was measured: nanoseconds a packet.
#[derive(Debug, Serialize)]
struct Report {
    date: String,
    commit: String,
    machine: Machine,
    ours: Times,
    plain: Times,
    /// Plain to ours, medians of the processor time.
    ratio: f64,
    burst_packets: usize,
    packet_bytes: usize,
    rounds: u32,
    /// Packets that one turn of our worker took, on average.
    packets_per_turn: f64,
    /// Packets that one joined write to TUN took, on average; none where TUN has no offload.
    packets_per_run: Option<f64>,
}

/// Medians, and the best.
#[derive(Debug, Serialize)]
struct Times {
    /// Processor time of the thread: what bounds a tunnel's throughput.
    cpu_ns_per_packet: f64,
    cpu_min_ns_per_packet: f64,
    /// Time by the clock. Our worker waits up to 0.2 ms behind a burst for more to come.
    drain_ns_per_packet: f64,
}

/// One of the two under measurement.
trait Receiver {
    /// Works until TUN has taken all packets of a burst that is waiting in the socket.
    fn drain(&mut self) -> Result<()>;
}

/// Measures, prints, and writes `receive.json` into `folder`, if one is given.
pub(crate) fn run(rounds: u32, as_json: bool, folder: Option<&Path>) -> Result<()> {
    let report = measure(rounds)?;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    if as_json {
        print!("{json}");
    } else {
        report.show();
    }
    let Some(folder) = folder else {
        return Ok(());
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("receive.json");
    fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
}

fn measure(rounds: u32) -> Result<Report> {
    if rounds == 0 {
        bail!("at least one round");
    }
    let (date, commit, machine) = (machine::date(), machine::commit(), Machine::read());
    let cpu = affinity::permitted_processors();
    affinity::pin_current_thread(*cpu.last().context("no processor to run on")?)?;
    enter_new_namespace()?;
    let mut ours = Side::new(Ours::new()?)?;
    enter_new_namespace()?;
    let mut plain = Side::new(Plain::new()?)?;
    for round in 0..WARM_UP + rounds {
        ours.turn(round)?;
        plain.turn(round)?;
    }
    let (ours_times, plain_times) = (ours.times(), plain.times());
    let receiver = ours.receiver;
    Ok(Report {
        date,
        commit,
        machine,
        ratio: plain_times.cpu_ns_per_packet / ours_times.cpu_ns_per_packet,
        ours: ours_times,
        plain: plain_times,
        burst_packets: BURST_PACKETS,
        packet_bytes: PACKET_BYTES,
        rounds,
        packets_per_turn: receiver.packets_per_turn(),
        packets_per_run: receiver.packets_per_run(),
    })
}

/// A namespace whose loopback is up and which forwards nothing. What is opened in it keeps it.
fn enter_new_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("no network namespace: run as root, or where users may make namespaces")?;
    ip("link set lo up")?;
    let setting = "/proc/sys/net/ipv4/ip_forward";
    let forwards = fs::read_to_string(setting)?;
    if forwards.trim() != "0" {
        fs::write(setting, "0").with_context(|| format!("cannot clear {setting}"))?;
    }
    Ok(())
}

fn ip(words: &str) -> Result<()> {
    process::quick(process::command("ip").args(words.split_whitespace()))?;
    Ok(())
}

/// One of the two with the packets that are for it and its times.
struct Side<R> {
    receiver: R,
    sender: Sender,
    cpu_ns: Vec<f64>,
    drain_ns: Vec<f64>,
}

impl<R: Receiver> Side<R> {
    /// The sender lives in the namespace of the calling thread, as the receiver does.
    fn new(receiver: R) -> Result<Self> {
        Ok(Self {
            receiver,
            sender: Sender::new()?,
            cpu_ns: Vec::new(),
            drain_ns: Vec::new(),
        })
    }

    fn turn(&mut self, round: u32) -> Result<()> {
        self.sender.send(BURST_PACKETS)?;
        let (cpu, start) = (thread_time()?, Instant::now());
        self.receiver.drain()?;
        let (cpu, drain) = (thread_time()?.saturating_sub(cpu), start.elapsed());
        if round >= WARM_UP {
            self.cpu_ns.push(per_packet(cpu));
            self.drain_ns.push(per_packet(drain));
        }
        Ok(())
    }

    fn times(&mut self) -> Times {
        self.cpu_ns.sort_unstable_by(f64::total_cmp);
        self.drain_ns.sort_unstable_by(f64::total_cmp);
        let median = |sorted: &[f64]| sorted[sorted.len() / 2];
        Times {
            cpu_ns_per_packet: median(&self.cpu_ns),
            cpu_min_ns_per_packet: self.cpu_ns[0],
            drain_ns_per_packet: median(&self.drain_ns),
        }
    }
}

fn per_packet(time: Duration) -> f64 {
    time.as_nanos() as f64 / BURST_PACKETS as f64
}

fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

impl Report {
    fn show(&self) {
        println!(
            "{:<10}{:>14}{:>14}{:>14}\n{:<10}{:>14}{:>14}{:>14}",
            "receive", "CPU", "best", "clock", "", "ns/packet", "ns/packet", "ns/packet"
        );
        for (name, times) in [("plain", &self.plain), ("pptp-fast", &self.ours)] {
            println!(
                "{name:<10}{:>14.0}{:>14.0}{:>14.0}",
                times.cpu_ns_per_packet, times.cpu_min_ns_per_packet, times.drain_ns_per_packet
            );
        }
        println!(
            "{:.2} times as fast; {PACKET_BYTES} octets a packet, bursts of {BURST_PACKETS}, {} \
             rounds; {:.0} packets a turn, {:.0} a write",
            self.ratio,
            self.rounds,
            self.packets_per_turn,
            self.packets_per_run.unwrap_or(1.0)
        );
    }
}
